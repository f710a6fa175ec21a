"""Python blocks of the documentation run, and the paths that it names exist.

The blocks of one page share a namespace, from top to bottom. To be quick, budgets are cut to
`TRIALS` trials, and a width of 1024 to 200. A block that cannot run here stands below
`<!-- not run: reason -->`.
"""

import re
from pathlib import Path

import pytest

import hpo

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
TRIALS = 6
BLOCK = re.compile(r"(<!-- not run: [^>]+ -->\n)?```python\n(.*?)```", re.DOTALL)
NAMED = re.compile(r"`((?:hpo|surrogates|benchmarks|examples)/[\w./-]*)`")
CHANGELOG = "CHANGELOG.md"  # names what no longer exists
NEEDS_DATA = "benchmarks_tasks.md"  # its block loads recorded tasks


def blocks(page: Path) -> list[str]:
    """Return the Python blocks of a page that can run, short."""
    found = [code for skip, code in BLOCK.findall(page.read_text()) if not skip]
    few = [re.sub(r"trials=\d+", f"trials={TRIALS}", code) for code in found]
    return [re.sub(r"\b1024\b", "200", code) for code in few]


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p) and p.name != NEEDS_DATA], ids=lambda p: p.stem
)
def test_python_blocks_run(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {"__name__": "docs"}
    for number, code in enumerate(blocks(page)):
        exec(compile(code, f"{page.name}, block {number}", "exec"), namespace)


@pytest.mark.parametrize("page", [p for p in PAGES if p.name != CHANGELOG], ids=lambda p: p.stem)
def test_named_paths_exist(page: Path) -> None:
    named = [path for path in NAMED.findall(page.read_text()) if "/." not in path]
    assert not [path for path in named if not (ROOT / path).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_to_other_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert not [link for link in links if not (page.parent / link).exists()]


def test_every_public_name_is_in_the_reference() -> None:
    pages = (ROOT / "docs" / "reference").glob("*.md")
    documented = set(
        re.findall(r":: hpo\.(\w+)$", "".join(map(Path.read_text, pages)), re.MULTILINE)
    )
    assert set(hpo.__all__) <= documented


def test_the_training_of_the_readme_is_that_of_the_tutorial() -> None:
    def steps(text: str) -> str:
        start = text.index("    torch.manual_seed(seed)")
        return text[start : text.index(".item()", start)]

    module = steps((ROOT / "examples" / "studies" / "digits.py").read_text())
    tutorial = steps((ROOT / "docs" / "tutorial.md").read_text())
    comment = "  # type: ignore[no-untyped-call]"
    assert module.replace(comment, "").replace("UPDATES", "100") == tutorial
