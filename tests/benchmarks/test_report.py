from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from benchmarks import report
from benchmarks.__main__ import main
from benchmarks.analysis import Results, TaskFacts
from benchmarks.figures import _apart
from benchmarks.simulate import Outcome
from benchmarks.table import Note, Record, Study

# It draws the diagram of critical differences; in the extra `bench`, and in `dev`.
pytest.importorskip("scikit_posthocs", reason="pip install scikit-posthocs")

EVIL = '<script>alert("1")</script>|`x`'


def record(rate: float, rng: np.random.Generator, reason: str = "end:trials") -> Record:
    losses = np.exp(-rate * np.arange(30)) * rng.uniform(0.5, 1.0, 30)
    rows = [
        Outcome(
            trial=i,
            number=i,
            level=None,
            loss=float(v),
            incumbent=float(losses[: i + 1].min()),
            run_cost=1.0,
            cost=i + 1.0,
            effort=i + 1.0,
            time=i + 1.0,
            ask_s=1e-3 / rate,
            tell_s=0.0,
            status="ok",
        )
        for i, v in enumerate(losses)
    ]
    return Record(rows, Note(reason, 30.0, 30.0, 0.03 / rate))


def results(rates: dict[str, float], plain: int = 6) -> Results:
    """Of `plain` tasks and one with an evil name; regrets fall at the given rates."""
    rng = np.random.default_rng(0)
    tasks = {f"family/{i}": TaskFacts(0.0, 1.0, "s", 1.0, i == 0) for i in range(plain)}
    tasks[EVIL] = TaskFacts(0.0, 1.0, "s", 1.0, False)
    records = {
        Study("suite", task, method, seed): record(rate, rng)
        for task, (method, rate), seed in itertools.product(tasks, rates.items(), range(2))
    }
    run = {
        "command": f"python -m benchmarks run {EVIL}",
        "machine": dict.fromkeys(("processor", "cores", "memory_gib", "system", "python"), EVIL),
        "threads": {"OMP_NUM_THREADS": "1"},
        "versions": {"python": {EVIL: "1"}},
        "missing": {"carbs": EVIL, "random": "was made later"},
    }
    return Results(records, tasks, (run,))


class Links(HTMLParser):
    """Collects tags and every attribute that could load something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [v or "" for k, v in attrs if k in ("src", "href", "xlink:href", "srcset")]


@pytest.fixture(scope="module")
def losing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report in which random search wins."""
    folder = tmp_path_factory.mktemp("report")
    report.write(results({"scaletune": 0.1, "random": 0.3, EVIL: 0.05}), folder)
    return folder


def test_the_page_loads_nothing_and_escapes_every_name(losing: Path) -> None:
    page = (losing / "report.html").read_text()
    links = Links()
    links.feed(page)
    assert "script" not in links.tags and "img" not in links.tags and "link" not in links.tags
    assert all(link.startswith("#") for link in links.links)
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert "&lt;script&gt;alert" in page


def test_ids_of_different_pictures_differ(losing: Path) -> None:
    ids = re.findall(r'\bid="([^"]+)"', (losing / "report.html").read_text())
    assert len(ids) == len(set(ids)) > 100


def test_where_a_rival_is_better_the_page_says_so(losing: Path) -> None:
    for name in ("report.html", "report.md"):
        page = (losing / name).read_text()
        assert "random has a lower mean regret after 30 trainings" in page
        assert "random has a better mean rank after 30 trainings" in page
        assert "Quicker per trial at trials 26 to 30: random." in page
        assert "On 7 of 7 tasks a rival has the lowest mean regret" in page
        assert re.search(r"family/0°(\s*\||</td><td>).*\(random\)", page)
        assert "2 of 2" in page


def test_a_report_without_losses_names_its_uncertainty() -> None:
    blocks = report.page(results({"scaletune": 0.3, "random": 0.1}))
    texts = [b.text for b in blocks if isinstance(b, report.Paragraph)]
    assert any(text.startswith("Nowhere in this comparison") for text in texts)


def test_the_first_table_holds_our_regret_over_that_of_the_best_quick_rival() -> None:
    found = results({"scaletune": 0.3, "random": 0.1, "tpe": 0.2, "slow": 1e-4})
    blocks = report.page(found)
    start = next(i for i, b in enumerate(blocks) if b == report.Heading("In one table", 3))
    table = blocks[start + 2]
    assert isinstance(table, report.TableBlock)
    assert table.header[1:3] == ("regret ratio at 15 (95 %)", "regret ratio at 30 (95 %)")
    assert [row[0] for row in table.rows] == [
        "the best below 0.5 s a trial",
        "random",
        "slow",
        "tpe",
    ]
    best, tpe = table.rows[0], table.rows[3]
    assert best[2].endswith(", tpe") and best[2].removesuffix(", tpe")[:4] == tpe[2][:4]
    # Latency is 1 ms over the rate.
    assert tpe[3:] == ("5", "1.5") and table.rows[2][3:] == ("1e+04", "3e+03")


@pytest.mark.parametrize("methods", [("scaletune",), ("random", "tpe")])
def test_one_method_or_none_of_ours_is_reported_too(methods: tuple[str, ...]) -> None:
    blocks = report.page(results(dict.fromkeys(methods, 0.2), plain=1))
    assert "Regret against trials" in [b.text for b in blocks if isinstance(b, report.Heading)]
    assert all(name in report.markdown(blocks) for name in methods)


def test_a_run_killed_midway_is_reported_as_far_as_all_got() -> None:
    found = results({"scaletune": 0.3, "random": 0.1}, plain=1)
    last = max(found.records)
    cut = Record(found.records[last].outcomes[:10], None)
    blocks = report.page(Results({**found.records, last: cut}, found.tasks, found.runs))
    texts = " ".join(b.text for b in blocks if isinstance(b, report.Paragraph))
    assert "got to the end of the axis on 3 of 4" in texts
    empty = {study: Record(r.outcomes[:1], None) for study, r in found.records.items()}
    report.page(Results(empty, found.tasks, found.runs))


def test_tasks_seen_in_design_are_marked_and_no_others(losing: Path) -> None:
    text = (losing / "report.md").read_text()
    assert "| family/0° |" in text and "family/1°" not in text
    assert "7 tasks (1 seen in design)" in text


def test_what_could_not_be_had_is_listed_unless_it_ran_after_all(losing: Path) -> None:
    text = (losing / "report.md").read_text()
    assert "* carbs: " in text
    assert "was made later" not in text


def test_markdown_tables_are_rectangular_whatever_the_names(losing: Path) -> None:
    text = (losing / "report.md").read_text()
    for block in text.split("\n\n"):
        if block.startswith("|"):
            widths = {len(re.findall(r"(?<!\\)\|", line)) for line in block.splitlines()}
            assert len(widths) == 1
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", text)
    assert len(pictures) >= 8
    for picture in pictures:
        assert (losing / picture).exists() and (losing / picture).with_suffix(".png").exists()


def test_the_best_of_a_column_is_bold() -> None:
    table = report._table(
        ("m", "low", "mixed"),
        [["a", "1", "3"], ["b", "2", ""]],
        [np.array([1.0, 2.0]), np.array([3.0, np.nan])],
    )
    assert table.best == {(0, 1), (0, 2)}
    assert "| a | **1** | **3** |" in report.markdown([table])


@pytest.mark.parametrize(
    ("last", "points"),
    [(100.0, (25, 50, 100)), (60.0, (25, 50, 60)), (12.0, (3, 6, 12)), (1.0, (1,))],
)
def test_checkpoints_are_the_usual_ones_where_they_exist(
    last: float, points: tuple[float, ...]
) -> None:
    assert report.checkpoints(np.arange(1.0, last + 1)) == points


def test_labels_keep_their_order_and_distance_inside_the_picture() -> None:
    heights = np.array([0.0, 0.0, 0.01, 0.9, 0.0])
    moved = _apart(heights, 0.1)
    assert np.all(np.diff(np.sort(moved)) >= 0.1 - 1e-12)
    assert moved.min() >= 0.0 and moved.max() <= 1.0
    assert moved[3] == pytest.approx(0.9)
    assert moved[2] == sorted(moved)[3]


def test_smoke_runs_and_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["smoke", "--out", str(tmp_path)]) == 0
    assert "18 trials" in capsys.readouterr().out
    page = (tmp_path / "report" / "report.html").read_text()
    for name in ("scaletune", "optuna-tpe", "random", "synthetic/curves-0"):
        assert name in page
