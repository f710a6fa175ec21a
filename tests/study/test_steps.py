"""Steps are counted in the unit of the fidelity; what a study says of a level was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo import ASHA, PBT, Budget, Fidelity, Float, Hyperband, Optimizer, StagedOptimizer, optimize
from hpo.schedulers import (
    PASHA,
    FreezeThaw,
    IterativeDeepening,
    MedianStopping,
    OneEpoch,
    Scheduler,
)
from hpo.trials import Report

SPACE = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
SCHEDULERS: dict[str, Scheduler | None] = {
    "none": None,
    "asha": ASHA(),
    "pasha": PASHA(),
    "pbt": PBT(population=3),
    "hyperband": Hyperband(),
    "freeze-thaw": FreezeThaw(),
    "median": MedianStopping(),
    "deepening": IterativeDeepening(),
    "one epoch": OneEpoch(),
}


def trained(batches: int) -> Any:
    """A training function that counts so many steps an epoch."""

    def train(config: dict[str, Any], ctx: Any) -> dict[str, float]:
        state = ctx.load()
        for epoch in range(1 if state is None else state + 1, config["epochs"] + 1):
            ctx.save(epoch)
            ctx.report(step=batches * epoch, loss=config["x"] + 1 / epoch)
        return {"loss": config["x"] + 1 / config["epochs"], "cost": config["epochs"]}

    return train


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_a_step_beyond_the_fidelity_is_refused_at_the_report_naming_both(
    scheduler: Scheduler | None,
) -> None:
    with pytest.raises(ValueError, match=r"`epochs` up to 9, got step=100; report it in the unit"):
        optimize(
            trained(100),
            SPACE,
            budget=Budget(trials=4, cost=40),
            cost="epochs",
            scheduler=scheduler,
        )


@pytest.mark.parametrize("scheduler", SCHEDULERS.values(), ids=SCHEDULERS)
def test_every_step_up_to_the_fidelity_may_be_reported(scheduler: Scheduler | None) -> None:
    result = optimize(trained(1), SPACE, budget=Budget(cost=30), cost="epochs", scheduler=scheduler)
    steps = [r.step for t in result.log.trials for r in result.log.reports(t.number)]
    assert steps and max(steps) <= 9


def test_without_a_fidelity_a_step_is_whatever_the_user_counts() -> None:
    def train(config: dict[str, Any], ctx: Any) -> float:
        ctx.report(step=10**6, loss=0.5)
        return 0.5

    optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=1))


def test_a_stage_run_by_hand_refuses_it_too_and_keeps_nothing() -> None:
    staged = StagedOptimizer(Optimizer(SPACE), ASHA())
    trial = staged.ask()
    assert trial is not None
    with pytest.raises(ValueError, match=r"`epochs` up to 9, got step=100"):
        staged.report(trial, Report(step=100, loss=0.5))
    with pytest.raises(ValueError, match=r"`epochs` up to 9, got step=10"):
        staged.tell(trial, 0.5, reports=[Report(step=1, loss=0.5), Report(step=10, loss=0.5)])
    assert not staged.log.reports(trial.number)


@pytest.mark.parametrize("scheduler", [ASHA(), IterativeDeepening()], ids=["asha", "deepening"])
def test_an_extension_shows_one_row_for_each_run_and_level_that_it_finished(
    scheduler: Scheduler,
) -> None:
    budget = {"budget": Budget(cost=60), "cost": "epochs"}
    result = optimize(trained(1), SPACE, scheduler=scheduler, **budget)  # type: ignore[arg-type]
    longer = result.extend(max_fidelity=27, budget=Budget(cost=150))
    table = longer.to_pandas()
    assert table["number"].is_unique and len(table) == len(longer.log.runs) + len(longer.log.paused)
    table = table[table["status"] != "paused"]
    assert "lost" not in set(table["cause"])
    assert len(table) == len(longer.log.runs) == len(table[["x", "epochs"]].drop_duplicates())
    assert any(o.cause is not None for o in longer.log.observations)  # the first number of a run
    assert f"{len(table) + len(longer.log.paused)} trials" in str(longer)


def test_clones_of_an_extended_population_may_report_up_to_the_new_fidelity() -> None:
    scheduler = PBT(population=3)
    budget = {"budget": Budget(trials=8), "cost": "epochs"}
    result = optimize(trained(1), SPACE, scheduler=scheduler, **budget)  # type: ignore[arg-type]
    longer = result.extend(max_fidelity=27, budget=Budget(trials=10))
    assert {trial.config["epochs"] for trial in longer.log.trials if trial.number > 10} == {27}
    assert max(o.reports[-1].step for o in longer.log.observations) == 27


@pytest.mark.parametrize(("high", "unit"), [(None, 1), (10**12, 1000), (2**31 - 1, 1)])
def test_steps_beyond_the_integers_of_a_database_cost_no_trial(
    high: int | None,
    unit: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("hpo.study.storage._largest_step", lambda storage: 2**31 - 1)
    monkeypatch.setattr("hpo.study.storage._REPORT_INTERVAL", 0.0)
    steps = [10**9, 2 * 10**9] if high == 2**31 - 1 else [10**9, 5 * 10**9, 6 * 10**9]
    space = {"x": Float(0, 1)} if high is None else {"x": Float(0, 1), "tokens": Fidelity(1, high)}

    def train(config: dict[str, Any], ctx: Any) -> float:
        for step in steps:
            ctx.report(step=step, loss=0.5)
        return 0.5

    result = optimize(train, space, budget=Budget(trials=2))
    assert [o.cause for o in result.log.observations] == [None, None]
    assert [report.step for report in result.log.reports(0)] == steps
    assert result.study is not None
    shown = [step // unit for step in steps if step // unit < 2**31]
    assert list(result.study.trials[0].intermediate_values) == shown
    left_out = [r for r in caplog.records if "larger unit" in r.getMessage()]
    assert len(left_out) == (high is None)  # said once


def test_a_step_beyond_what_sqlite_holds_costs_no_trial(tmp_path: Path) -> None:
    def train(config: dict[str, Any], ctx: Any) -> float:
        ctx.report(step=2**63, loss=0.5)
        return 0.5

    result = optimize(
        train,
        {"x": Float(0, 1)},
        budget=Budget(trials=1),
        name="s",
        storage=f"sqlite:///{tmp_path}/s.db",
    )
    assert result.log.observations[0].cause is None
