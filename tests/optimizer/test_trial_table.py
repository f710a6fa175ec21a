"""The table of a result: levels, paused runs, attempts, predictions and failures."""

from __future__ import annotations

from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from hpo import (
    ASHA,
    Budget,
    Cause,
    Fidelity,
    Float,
    InlineRunner,
    Observation,
    Optimizer,
    Status,
    load_result,
    optimize,
    read_runs,
)
from hpo.optimizer.trial_table import OURS


@pytest.mark.parametrize("name", OURS)
def test_no_parameter_and_no_metric_takes_the_place_of_one_of_our_columns(name: str) -> None:
    optimizer = Optimizer({name: Float(100, 200)}, cost="epochs")
    optimizer.tell({name: 150.0}, 0.5, cost=2.0, metrics={name: 0.25})
    table = optimizer.result().to_pandas()
    assert table.columns.is_unique
    assert table[f"params_{name}"].tolist() == [150.0]
    assert table[f"metrics_{name}"].tolist() == [0.25]


def trained(config: dict[str, Any], ctx: Any) -> dict[str, float]:
    for epoch in range(1, ctx.fidelity + 1):
        ctx.report(step=epoch, loss=config["x"] + 1 / epoch, metrics={"acc": 1.0 / epoch})
    return {"loss": config["x"] + 1 / ctx.fidelity, "acc": 1.0 / ctx.fidelity}


def test_paused_runs_have_rows_with_the_level_and_metrics_that_they_reached() -> None:
    space, storage = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}, InMemoryStorage()
    budget = Budget(trials=8)
    result = optimize(trained, space, budget=budget, scheduler=ASHA(), name="n", storage=storage)
    for shown in (result, load_result("n", storage=storage)):
        table = shown.to_pandas()
        assert len(table) == 8 and (table["status"] == "paused").any()
        paused = table[table["status"] == "paused"]
        assert paused["trained_level"].isin([1, 3]).all()
        assert (paused["acc"] == 1.0 / paused["trained_level"]).all()
        assert (table["loss"] - table["x"] - 1 / table["trained_level"]).abs().max() < 1e-9
        assert table["started"].notna().all() and (table["attempts"] == 1).all()
        assert (table["worker"] == 0).all()


def test_the_interval_of_a_prediction_stands_beside_it() -> None:
    def train(config: dict[str, Any], ctx: Any) -> float:
        return float(config["x"])

    table = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=6)).to_pandas()
    known = table[table["predicted_loss"].notna()]
    assert len(known) >= 2
    assert (known["predicted_loss_low"] <= known["predicted_loss"]).all()
    assert (known["predicted_loss"] <= known["predicted_loss_high"]).all()


def test_a_failure_is_in_the_table_in_one_line_and_with_its_traceback() -> None:
    def train(config: dict[str, Any], ctx: Any) -> float:
        if config["x"] < 0.5:
            raise RuntimeError("too small")
        return float(config["x"])

    result = optimize(
        train, {"x": Float(0, 1)}, budget=Budget(trials=8), runner=InlineRunner(), seed=1
    )
    table = result.to_pandas()
    failed = table[table["cause"] == "error"]
    assert 0 < len(failed) < 8
    assert (failed["failure"] == "RuntimeError: too small").all()
    assert failed["traceback"].str.contains("in train").all()
    assert table[table["cause"].isna()]["traceback"].isna().all()
    assert "RuntimeError at test_trial_table.py:" in str(result)


def test_a_stopped_run_shows_the_step_that_it_reached() -> None:
    optimizer = Optimizer({"x": Float(0, 1), "epochs": Fidelity(1, 9)})
    from hpo import Report

    reports = (Report(1, 0.9), Report(2, 0.8))
    optimizer.record(
        Observation(
            0, {"x": 0.5, "epochs": 9}, 0.8, None, Status.STOPPED, None, 0, None, reports=reports
        )
    )
    assert optimizer.result().to_pandas()["trained_level"].tolist() == [2]


def test_a_table_that_is_read_back_as_runs_tunes_nothing_but_its_parameters() -> None:
    def train(config: dict[str, Any], ctx: Any) -> float:
        return float(config["lr"])

    space = {"lr": Float(1e-4, 1e-1, log=True)}
    table = optimize(train, space, budget=Budget(trials=6)).to_pandas()
    assert list(read_runs(table).space) == ["lr"]


def test_an_observation_keeps_its_error_through_json_and_without_one_stores_nothing_more() -> None:
    failed = Observation(
        0, {"x": 1}, None, None, Status.FAILED, Cause.ERROR, 0, 0, error="KeyError: 'lr'"
    )
    again = Observation.from_json(
        failed.to_json(), number=0, config={"x": 1}, ask_index=0, reports=()
    )
    assert again.error == "KeyError: 'lr'"
    done = Observation(0, {"x": 1}, 1.0, None, Status.COMPLETED, None, 0, 0)
    assert "text" not in done.to_json()
