"""The best trial: by what the models expect, as observed, and how far it was trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hpo import Fidelity, Float, Optimizer
from hpo.optimizer.multi_fidelity import StagedOptimizer
from hpo.optimizer.result import Result
from hpo.schedulers import ASHA, PASHA, Scheduler
from hpo.trials import Report, Status


def lucky() -> Optimizer:
    """Four runs of each of four configs, and a lucky one of the third."""
    optimizer = Optimizer({"x": Float(0, 1)})
    for x in (0.2, 0.4, 0.6, 0.8):
        for noise in (-0.03, -0.01, 0.01, 0.03):
            optimizer.tell({"x": x}, (x - 0.4) ** 2 + noise)
    optimizer.tell({"x": 0.6}, -0.04)
    return optimizer


def test_the_best_observed_is_the_lowest_loss_and_the_best_is_the_lowest_expected() -> None:
    result = lucky().result()
    assert result.best.config == {"x": 0.4}
    observed = result.best_observed
    assert (observed.number, observed.loss) == (16, -0.04)
    assert observed.expected_loss > result.best.expected_loss


def test_the_best_observed_of_a_maximized_objective_is_the_highest() -> None:
    optimizer = Optimizer({"x": Float(0, 1)}, direction="maximize")
    rng = np.random.default_rng(0)
    for x in np.linspace(0.0, 1.0, 12).tolist():
        optimizer.tell({"x": x}, 1.0 - (x - 0.4) ** 2 + 0.1 * rng.standard_normal())
    losses = [o.loss for o in optimizer.log.observations]
    assert optimizer.result().best_observed.loss == max(losses)


def test_a_printed_result_and_its_page_name_both_where_they_differ(tmp_path: Path) -> None:
    result = lucky().result()
    text = str(result)
    assert (
        f"Trial 16 has the best loss observed; the models expect more of trial {result.best.number}"
        in text
    )
    assert "best expected" in text and "best observed" in text
    page = result.report(tmp_path / "report.html").read_text()
    assert "<p>Best loss observed: trial 16, loss -0.04, expected" in page


def test_a_printed_result_and_its_page_name_one_where_they_agree(tmp_path: Path) -> None:
    optimizer = Optimizer({"x": Float(0, 1)})
    for x in (0.1, 0.4, 0.9):
        optimizer.tell({"x": x}, (x - 0.5) ** 2)
    result = optimizer.result()
    assert result.best == result.best_observed
    assert "best observed" not in str(result) and "Trial 1" not in str(result)
    assert "Best loss observed" not in result.report(tmp_path / "report.html").read_text()


def test_a_result_without_a_completed_trial_prints_and_has_no_best() -> None:
    optimizer = Optimizer({"x": Float(0, 1)})
    optimizer.tell(optimizer.ask(), failed="oom")
    text = str(optimizer.result())
    assert "1 trial, failed" in text and "Failed: 1 with oom (trial 0)." in text
    assert "No trial was completed: 1 finished otherwise" in text
    with pytest.raises(ValueError, match="no trial was completed"):
        _ = optimizer.result().best_observed


def staged(scheduler: Scheduler, stages: int, high: int) -> Result:
    """A study whose loss falls with every epoch, after some stages."""
    space = {"x": Float(0, 1), "epochs": Fidelity(1, high)}
    optimizer = StagedOptimizer(Optimizer(space, cost="epochs"), scheduler)
    for _ in range(stages):
        trial = optimizer.ask()
        assert trial is not None and trial.assignment is not None
        level = trial.assignment.level
        optimizer.tell(trial, (trial.config["x"] - 0.4) ** 2 + 1.0 / level, cost=float(level))
    return optimizer.optimizer.result()


@pytest.mark.parametrize("scheduler", [ASHA(), PASHA()], ids=["asha", "pasha"])
def test_the_best_of_paused_trials_shows_the_level_that_was_trained(scheduler: Scheduler) -> None:
    result = staged(scheduler, 12, 243)
    assert not any(o.status is Status.COMPLETED for o in result.log.observations)
    top = max(o.cost or 0.0 for o in result.log.paused)
    for member in (result.best, result.best_observed):
        assert member.config["epochs"] == top == member.cost
        assert member.loss >= 1.0 / top


def test_with_a_completed_trial_the_best_was_trained_in_full() -> None:
    result = staged(ASHA(), 60, 9)
    done = {o.number for o in result.log.observations if o.status is Status.COMPLETED}
    assert result.best.number in done and result.best.config["epochs"] == 9
    assert result.best_observed.number in done


def test_nothing_completed_is_a_state_that_can_be_looked_at() -> None:
    optimizer = Optimizer({"x": Float(0, 1)}, cost="seconds")
    for told in (0, 1):
        result = optimizer.result()
        assert result.front == ()
        assert list(result.to_pandas().columns)[:3] == ["number", "x", "loss"]
        assert len(result.to_pandas()) == told
        assert result.scaling_law is None and result.cost_law is None
        optimizer.tell(optimizer.ask(), float("nan"))


def test_where_all_runs_are_paused_the_advice_names_how_far_they_came() -> None:
    result = staged(ASHA(), 4, 9)
    with pytest.raises(ValueError, match=r"paused, the furthest at epochs=\d of 9: give a larger"):
        result.recommend()


# The table: our columns keep their names, whatever users call theirs

OURS = ("number", "loss", "cost", "seconds", "status", "cause", "reason", "predicted_loss")


@pytest.mark.parametrize("name", OURS)
def test_a_parameter_called_like_one_of_our_columns_has_a_column_of_its_own(name: str) -> None:
    optimizer = Optimizer({name: Float(100, 200)}, cost="epochs")
    optimizer.tell({name: 150.0}, 0.5, cost=2.0, seconds=3.0)
    (row,) = optimizer.result().to_pandas().to_dict("records")
    assert row[f"params_{name}"] == 150.0
    assert [row[ours] for ours in OURS[:5]] == [0, 0.5, 2.0, 3.0, "completed"]


def test_metrics_have_columns_that_collide_with_nothing() -> None:
    optimizer = Optimizer({"x": Float(0, 1), "accuracy": Float(0, 1)})
    optimizer.tell({"x": 0.1, "accuracy": 0.2}, 0.5, metrics={"status": 7.0, "accuracy": 0.9})
    optimizer.tell({"x": 0.3, "accuracy": 0.4}, 0.6, metrics={"top5": 0.99})
    table = optimizer.result().to_pandas()
    assert table.columns.is_unique
    assert table["accuracy"].tolist() == [0.2, 0.4]
    assert table["metrics_accuracy"].tolist()[0] == 0.9
    assert table["metrics_status"].tolist()[0] == 7.0
    assert table["status"].tolist() == ["completed"] * 2
    assert table["top5"].tolist()[1] == 0.99 and np.isnan(table["top5"][0])


def test_a_metric_that_was_only_reported_shows_its_last_value() -> None:
    optimizer = Optimizer({"x": Float(0, 1)})
    reports = [Report(step, 1.0, metrics={"lr": 0.1 / step, "top1": 0.5}) for step in (1, 2)]
    optimizer.tell({"x": 0.1}, 0.5, reports=reports, metrics={"top1": 0.9})
    (row,) = optimizer.result().to_pandas().to_dict("records")
    assert (row["lr"], row["top1"]) == (0.05, 0.9)
