"""The HTML page about a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo import Categorical, Float, Optimizer
from hpo.drawing.html import HTMLTable, RecommendedConfig, ReportPage, write_report


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


def test_report_before_any_completed_trial_is_refused(tmp_path: Path) -> None:
    optimizer = Optimizer({"lr": Float(0.1, 1.0)})
    with pytest.raises(ValueError, match="no trial was completed"):
        optimizer.result().report(tmp_path / "report.html")


def test_report_of_free_runs_has_a_front_and_no_picture(tmp_path: Path) -> None:
    optimizer = Optimizer({"lr": Float(0.1, 1.0)})
    optimizer.tell({"lr": 0.5}, 1.0, cost=0.0)
    page = optimizer.result().report(tmp_path / "report.html").read_text()
    assert "Front of loss against cost" in page and "<img" not in page


def test_page_shows_what_it_is_given(tmp_path: Path) -> None:
    page = ReportPage(
        title="a & b",
        finished=2,
        best=1,
        best_loss=0.123456789,
        expected_loss=0.2,
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
