"""The HTML page about a result."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo import ASHA, Categorical, Fidelity, Float, Optimizer, Scale, StagedOptimizer
from hpo.drawing.html import HTMLTable, RecommendedConfig, ReportPage, ShownTrial, write_report


def finished() -> Optimizer:
    optimizer = Optimizer(
        {"lr": Float(0.1, 1.0), "<b>kind</b>": Categorical(["<script>", "b"])}, cost="s"
    )
    for _ in range(6):
        trial = optimizer.ask()
        optimizer.tell(trial, trial.config["lr"], 1.0 + trial.config["lr"])
    return optimizer


def test_report_escapes_what_the_user_named_and_loads_nothing_from_elsewhere(
    tmp_path: Path,
) -> None:
    page = finished().result().report(tmp_path / "report.html").read_text()
    assert "<script>" not in page and "&lt;script&gt;" in page
    assert "<b>kind</b>" not in page and "&lt;b&gt;kind&lt;/b&gt;" in page
    assert "http" not in page
    assert page.count("<tr>") > 6


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

TAGS = "!doctype html meta title style h1 h2 p div table tr th td img".split()


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
    page = replace(optimizer.result(), study=study).report(tmp_path / "report.html").read_text()
    tags = re.findall("<([^>]*)>", re.sub(' src="data:[^"]*"', "", page))
    assert {tag.split()[0].strip("/") for tag in tags} <= set(TAGS)
    assert {tag.split(maxsplit=1)[1] for tag in tags if " " in tag} == {
        "html",
        'lang="en"',
        'charset="utf-8"',
        'class="scroll"',
        'class="warning"',
        'alt="loss against cost"',
    }


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
    assert "Front of loss against cost" in page and "<img" not in page


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
    assert "<h1>a &amp; b</h1>" in text and "<img" not in text and "Front" not in text
    assert "<td>lr</td><td>0.5</td><td>0.25</td><td>0.75</td><td>90%</td>" in text
    assert "<td>kind</td><td>x</td><td></td><td></td><td></td>" in text
    assert '<p class="warning">1 &lt; 2</p>' in text
    assert "<tr><td>0</td><td></td></tr><tr><td>1</td><td>0.12346</td></tr>" in text
