"""The one table: what it shows, what it keeps, where it is written."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from benchmarks.__main__ import main
from benchmarks.experiments.target import chinchilla, command
from benchmarks.experiments.target.question import (
    OURS,
    Figure,
    Limit,
    Question,
    RivalMissing,
    Row,
    mean,
    pooled,
    table,
)

MEASURED: list[tuple[str, str, int]] = []


def _measure(case: str, method: str, seed: int) -> Mapping[str, float]:
    if method == "absent":
        raise RivalMissing("absent is not installed; install it")
    MEASURED.append((case, method, seed))
    base = 1.0 if method == OURS else 2.0
    return {"error": base + seed, "runs": 2.0} | ({"covered": 0.9} if method == OURS else {})


QUESTION = Question(
    "toy",
    ("a",),
    (OURS, "rival", "absent"),
    (
        Figure("error", mean("error"), Limit(high=0.8, of=("rival",))),
        Figure("covered", pooled("covered"), Limit(0.86, 0.94)),
    ),
    _measure,
    seeds=2,
)


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> None:
    MEASURED.clear()
    monkeypatch.setattr(command, "QUESTIONS", (QUESTION,))


@pytest.mark.usefixtures("toy")
def test_a_figure_shows_ours_what_it_must_be_and_the_rivals(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["target"]) == 0
    printed = capsys.readouterr()
    assert "| toy | error | <= 2 | 1.5 | yes | rival 2.5 |" in printed.out
    assert "| toy | covered | 0.86 to 0.94 | 0.9 | yes |  |" in printed.out
    assert printed.err.count("absent is not installed; install it") == 1


@pytest.mark.usefixtures("toy")
def test_a_second_run_measures_only_what_the_file_lacks(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "rows.jsonl")]
    assert main(["target", "--methods", OURS, "--seeds", "1", *out]) == 0
    assert MEASURED == [("a", OURS, 0)]
    assert main(["target", *out]) == 0
    assert MEASURED[1:] == [("a", OURS, 1), ("a", "rival", 0), ("a", "rival", 1)]


@pytest.mark.usefixtures("toy")
def test_the_table_replaces_what_stood_between_the_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{command.BEGIN}\nstale\n{command.END}\nafter\n")
    assert main(["target", "--write", str(page)]) == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nafter\n") and "stale" not in text
    assert "| toy | error |" in text


@pytest.mark.usefixtures("toy")
def test_a_page_without_marks_is_refused_and_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("nothing\n")
    assert main(["target", "--write", str(page)]) == 2
    assert page.read_text() == "nothing\n"


def test_a_value_outside_its_limit_is_marked_no_and_what_nobody_has_is_left_out() -> None:
    rows = [Row("toy", "a", OURS, 0, {"error": 3.0})]
    lines = table([QUESTION], rows).splitlines()
    assert lines[2:] == ["| toy | error |  | 3 |  |  |"]  # no rival, so nothing to be held to
    rows.append(Row("toy", "a", "rival", 0, {"error": 3.0}))
    assert "| toy | error | <= 2.4 | 3 | no | rival 3 |" in table([QUESTION], rows)


def test_the_first_words_of_a_name_choose_a_group_and_an_unknown_name_is_refused() -> None:
    assert [q.name for q in command.chosen(["chinchilla"])] == [
        q.name for q in chinchilla.QUESTIONS
    ]
    with pytest.raises(ValueError, match=re.escape("`--only` takes names out of")):
        command.chosen(["chin"])


def test_questions_have_distinct_names_and_every_limit_is_for_a_method_of_its_question() -> None:
    names = [question.name for question in command.QUESTIONS]
    assert len(set(names)) == len(names)
    for question in command.QUESTIONS:
        for figure in question.figures:
            assert figure.ours in question.methods
            assert set(figure.limit.of) <= set(question.methods)
            assert set(figure.cases) <= set(question.cases)
