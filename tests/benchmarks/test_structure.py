"""Measures of a source tree, on a small one whose numbers are known."""

from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.structure import circles, floors, measure

TREE = {
    "hpo/__init__.py": 'from hpo.top import Top\n\n__all__ = ["Top"]\n',
    "hpo/low.py": "X = 1\n",
    "hpo/middle/__init__.py": "from hpo.middle.one import f\n",
    "hpo/middle/one.py": "from typing import TYPE_CHECKING\n\nimport hpo.low\n\n"
    "if TYPE_CHECKING:\n    from hpo.top import Top\n\n\n"
    'def f() -> None:\n    """Do it.\n\n    >>> f()\n    """\n\n    # a comment\n    return None\n',
    "hpo/middle/two.py": "from hpo.middle import one\nfrom hpo.middle.three import g\n",
    "hpo/middle/three.py": "def g():\n    import hpo.middle.two\n",
    "hpo/top.py": 'from hpo.middle import f\n\n\nclass Top:\n    """Top."""\n\n'
    "    def shown(self):\n        from hpo import low\n\n    def _hidden(self): ...\n",
    "tests/test_layers.py": 'RANKS = {"hpo": 0, "hpo.low": 3, "hpo.middle": 2, "hpo.top": 4}\n',
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, text in TREE.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_rooms_arrows_and_floors(root: Path) -> None:
    found = measure(root, "hpo")
    assert found.floors == [["hpo.low"], ["hpo.middle"], ["hpo.top"]]
    assert found.arrows == [
        ("hpo.middle", "hpo.low"),
        ("hpo.top", "hpo.low"),
        ("hpo.top", "hpo.middle"),
    ]
    assert found.upward == [("hpo.middle", "hpo.low")]
    assert found.folders == {"hpo": 2, "hpo.middle": 3}


def test_imports_for_types_close_a_circle_only_where_they_count(root: Path) -> None:
    found = measure(root, "hpo")
    assert circles(found.rooms) == []
    assert circles(found.typed_rooms) == [["hpo.middle", "hpo.top"]]


def test_an_import_inside_a_function_closes_a_circle_of_modules(root: Path) -> None:
    assert circles(measure(root, "hpo").imports) == [["hpo.middle.three", "hpo.middle.two"]]


def test_a_circle_is_one_node_of_a_chain() -> None:
    graph = {"a": {"b"}, "b": {"a", "c"}, "c": set(), "d": {"a"}}
    assert floors(graph) == [["c"], ["a", "b"], ["d"]]


def test_lengths_leave_docstrings_and_comments_out(root: Path) -> None:
    lengths = {name.split(":")[0]: n for name, n in measure(root, "hpo").function_lengths.items()}
    assert lengths["hpo.middle.one.f"] == 2
    assert lengths["hpo.top.shown"] == 2


def test_names_with_docstrings_and_examples_are_counted(root: Path) -> None:
    found = measure(root, "hpo")
    assert str(found.exported) == "1 / 0 of 1"
    assert str(found.methods) == "0 / 0 of 1"
    assert str(found.public) == "2 / 1 of 3"


def test_one_table_is_printed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["structure", "--root", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "|  | hpo |" and all(line.count("|") == 3 for line in lines)
