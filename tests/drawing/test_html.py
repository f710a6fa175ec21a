"""The HTML page about a result."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo import Categorical, Float, Optimizer


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
