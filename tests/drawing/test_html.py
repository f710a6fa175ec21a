"""The HTML page about a result."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from hpo import (
    ASHA,
    Budget,
    Categorical,
    Fidelity,
    Float,
    Optimizer,
    Role,
    Scale,
    StagedOptimizer,
    optimize,
)
from hpo.drawing.html import (
    FailureKind,
    HTMLTable,
    PagePicture,
    RecommendedConfig,
    ReportPage,
    ShownTrial,
    write_report,
)
from hpo.drawing.plot_data import FrontPlot
from hpo.drawing.search_data import (
    BudgetPlot,
    CalibrationPlot,
    Dimension,
    ParallelPlot,
    SlicePlot,
)


def finished() -> Optimizer:
    optimizer = Optimizer(
        {"lr": Float(0.1, 1.0), "<b>kind</b>": Categorical(["<script>", "b"])}, cost="s"
    )
    for _ in range(6):
        trial = optimizer.ask()
        optimizer.tell(trial, trial.config["lr"], 1.0 + trial.config["lr"])
    return optimizer


class Page(HTMLParser):
    """Elements, attributes and texts of a page, as a browser reads it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[tuple[str, str | None]] = set()
        self.texts: dict[str, list[str]] = {}
        self.tag = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tag = tag
        self.tags.add(tag)
        self.attributes |= set(attrs)
        self.texts.setdefault(tag, []).append("")

    def handle_endtag(self, tag: str) -> None:
        self.tag = ""

    def handle_data(self, data: str) -> None:
        if self.tag:
            self.texts[self.tag][-1] += data


def test_report_escapes_what_the_user_named_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    text = finished().result().report(tmp_path / "report.html").read_text()
    page = Page(text)
    assert "&lt;script&gt;" in text and "<b>kind</b>" not in text
    assert "<script>" in page.texts["td"] and "<b>kind</b>" in page.texts["th"]
    assert not {"link", "iframe", "object", "embed", "form", "a"} & page.tags
    assert not {name for name, _ in page.attributes} & {"src", "href", "action", "data"}
    assert "default-src 'none'" in text and text.count("<tr>") > 6


HOSTILE = (
    "</script><script>alert(1)</script>",
    "</title><img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "\"'><iframe src=javascript:alert(1)>",
    "<!-- <![CDATA[ &lt;b&gt; -->",
    "$\\frac$ and $x_1$",
    "\x1b[2J\x00\ud800",
    "=cmd|' /C calc'!A1",
)

TAGS = (
    "html head body main meta title style script h1 h2 h3 p div dl dt dd figure figcaption details "
    "summary pre table thead tbody tr th td"
).split()
ATTRIBUTES = "lang charset name content http-equiv class data-figure type id open".split()


@pytest.mark.filterwarnings("error")
def test_report_holds_only_its_own_tags_whatever_things_are_called(tmp_path: Path) -> None:
    text = " ".join(HOSTILE)
    space: dict[str, Any] = {name: Categorical([*HOSTILE, "b"]) for name in HOSTILE[:3]}
    space |= {name: Float(0.1, 1.0) for name in HOSTILE[3:]}
    space |= {f"size {text}": Scale(1.0, 8.0)}
    optimizer = Optimizer(space, cost=text, target={f"size {text}": 16.0})
    for _ in range(5):
        trial = optimizer.ask()
        loss = trial.config[HOSTILE[3]]
        optimizer.tell(trial, loss, 1.0 + loss, metrics={text: 1.0, f"m{text}": text})
    trial = optimizer.ask()
    optimizer.tell(trial, failed="error")
    study = optuna.create_study(study_name=text)
    text = replace(optimizer.result(), study=study).report(tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.tags <= set(TAGS)
    assert {name for name, _ in page.attributes} <= set(ATTRIBUTES)
    assert {value for name, value in page.attributes if name == "class"} <= {
        "scroll",
        "scroll paged",
        "scroll paged front",
        "warning",
        "soft",
        "pictures",
        "plot",
        "plot wide",
        "wide",
    }
    figures, library, ours = page.texts["script"]
    shown = json.dumps(json.loads(figures))
    assert "&lt;/script&gt;" in shown and "<" not in shown  # plotly reads texts as HTML
    assert re.fullmatch("[A-Za-z0-9+/=]+", library)
    assert "alert" not in ours


@pytest.mark.parametrize("failed", [0, 2])
def test_report_before_any_completed_trial_says_so_and_shows_what_failed(
    tmp_path: Path, failed: int
) -> None:
    optimizer = Optimizer({"lr": Float(0.1, 1.0)})
    for _ in range(failed):
        optimizer.tell(optimizer.ask(), failed="oom")
    page = optimizer.result().report(tmp_path / "report.html").read_text()
    assert f"<p>{failed} finished trials, none of them completed.</p>" in page
    assert "nothing can be recommended" in page
    assert page.count("<td>oom</td>") == failed


def test_report_of_paused_trials_shows_the_furthest_and_why_nothing_is_recommended(
    tmp_path: Path,
) -> None:
    space = {"lr": Float(0.1, 1.0), "epochs": Fidelity(1, 9)}
    staged = StagedOptimizer(Optimizer(space, cost="epochs"), ASHA())
    for loss in (0.2, 0.1):
        staged.tell(staged.ask(), loss=loss, cost=1.0)
    page = staged.optimizer.result().report(tmp_path / "report.html").read_text()
    assert "trial 1, loss 0.1" in page
    assert "2 are paused, the furthest at epochs=1 of 9: give a larger budget" in page


def test_a_parameter_called_like_one_of_our_columns_has_a_heading_of_its_own(
    tmp_path: Path,
) -> None:
    optimizer = Optimizer({"loss": Float(0, 1), "trial": Float(0, 1)}, cost="expected")
    optimizer.tell({"loss": 0.5, "trial": 0.25}, 1.0, cost=2.0)
    page = optimizer.result().report(tmp_path / "report.html").read_text()
    front = page[page.index("<h2>Front") : page.index("<h2>Trials")]
    headings = re.findall("<th>(.*?)</th>", front)
    assert headings == ["trial", "cost", "loss", "expected", "params_loss", "params_trial"]


def test_report_of_free_runs_has_a_front_and_no_picture(tmp_path: Path) -> None:
    optimizer = Optimizer({"lr": Float(0.1, 1.0)})
    optimizer.tell({"lr": 0.5}, 1.0, cost=0.0)
    page = optimizer.result().report(tmp_path / "report.html").read_text()
    assert "Front of loss against cost" in page and 'data-figure="front"' not in page


def test_page_shows_what_it_is_given(tmp_path: Path) -> None:
    page = ReportPage(
        title="a & b",
        finished=2,
        best=ShownTrial(1, 0.123456789, 0.2),
        recommended=RecommendedConfig(
            config={"lr": 0.5, "kind": "x"},
            intervals={"lr": (0.25, 0.75)},
            informed_by_data={"lr": 0.9},
            loss=0.2,
            loss_interval=(0.1, 0.3),
            warnings=("1 < 2",),
        ),
        front=None,
        picture=None,
        trials=HTMLTable(("number", "loss"), [(0, None), (1, 0.123456789)]),
    )
    text = write_report(page, tmp_path / "page.html").read_text()
    assert "<h1>a &amp; b</h1>" in text and "Front" not in text
    assert "<figure" not in text and 'id="library"' not in text
    assert "<td>lr</td><td>0.5</td><td>0.25</td><td>0.75</td><td>90%</td>" in text
    assert "<td>kind</td><td>x</td><td></td><td></td><td></td>" in text
    assert '<p class="warning">1 &lt; 2</p>' in text
    assert "<tr><td>0</td><td></td></tr>\n<tr><td>1</td><td>0.12346</td></tr>" in text


def test_report_says_what_was_asked_found_spent_and_failed(tmp_path: Path) -> None:
    def train(config: dict[str, Any], ctx: Any) -> dict[str, float]:
        if config["lr"] > 0.05:
            raise ValueError("it exploded")
        loss = 1.0 + (np.log10(config["lr"]) + 3.0) ** 2 + config["n"] ** -0.3
        return {"loss": loss, "cost": config["n"]}

    space = {"lr": Float(1e-4, 1e-1, log=True, role=Role.LR), "n": Scale(1e2, 1e4)}
    result = optimize(
        train, space, budget=Budget(trials=14), cost="flops", target={"n": 1e5}, seed=3
    )
    text = result.report(tmp_path / "report.html").read_text()
    page = Page(text)
    assert page.texts["h1"] == ["Search over lr"] and "no-name" not in text  # Optuna's made-up name
    asked = dict(zip(page.texts["dt"], page.texts["dd"], strict=True))
    assert asked["budget"] == "14 trials" and asked["seed"] == "3" and asked["target"] == "n 1e+05"
    assert "Python" in page.texts["p"][0]
    headings = {"Recommendation", "What was asked", "Cost", "Scaling law", "Pictures", "Trials"}
    assert headings <= set(page.texts["h2"])
    pictures = {"Progress", "Loss against scale", "Best lr against scale", "Sensitivity to lr"}
    assert pictures <= set(page.texts["h3"])
    figures = json.loads(page.texts["script"][0])
    places = {value for name, value in page.attributes if name == "data-figure"}
    assert places == set(figures)
    assert not any(cell in ("nan", "None", "NaN") for cell in page.texts["td"])


def test_failures_of_one_kind_stand_together_with_their_traceback(tmp_path: Path) -> None:
    kind = FailureKind("error", tuple(range(20)), "Traceback\n  <train>\nValueError: a & b")
    page = ReportPage("x", 30, None, None, None, None, HTMLTable(("a",), []), failures=(kind,))
    found = Page(write_report(page, tmp_path / "page.html").read_text())
    (line,) = found.texts["summary"]
    assert line.startswith("error: 20 of 30 trials (0, 1, 2") and line.endswith("and 8 more)")
    assert found.texts["pre"] == ["Traceback\n  <train>\nValueError: a & b"]


def test_a_page_of_two_thousand_trials_stays_below_five_megabytes(tmp_path: Path) -> None:
    names = [f"setting {k}" for k in range(12)]
    values = np.random.default_rng(0).random((2000, 12))
    loss = values.sum(axis=1)
    settings = tuple(Dimension(name) for name in names)
    data = [
        BudgetPlot(np.arange(2000.0), loss, np.minimum.accumulate(loss), "trials"),
        CalibrationPlot(np.arange(2000.0), loss, loss - 1, loss + 1, loss),
        ParallelPlot(settings, values, loss),
        *(SlicePlot(s, loss[:60], *[loss[:60]] * 3, loss, loss) for s in settings[:8]),
    ]
    reason = "improves the best loss: expected improvement 0.0123 under the model of raw losses"
    page = ReportPage(
        title="large",
        finished=2000,
        best=None,
        recommended=None,
        front=None,
        picture=FrontPlot(loss, loss, loss[:9], loss[:9]),
        trials=HTMLTable([*names, "reason"], [[*row, reason] for row in values.tolist()]),
        pictures=[PagePicture("", "", one) for one in data],
    )
    assert write_report(page, tmp_path / "page.html").stat().st_size < 5e6
