"""Studies without `cost=`: measured time is recorded and decides nothing."""

import random
import time
from pathlib import Path
from typing import Any

import optuna
import pytest

from hpo import (
    Axis,
    Budget,
    BudgetError,
    Context,
    Fidelity,
    Float,
    FreezeThaw,
    Limits,
    Result,
    Scale,
    StudyError,
    load_result,
    optimize,
)
from hpo.adapters.optuna import ScaleTuneSampler
from tests.study.studies import SPACE, Config

X = {"x": Float(0, 1)}
TOKENS = {**X, "D": Scale(1e6, 1e9, axis=Axis.TOKENS)}
SIZES = {**TOKENS, "N": Scale(1e5, 1e7, axis=Axis.PARAMS)}
EPOCHS = {**X, "epochs": Fidelity(1, 9)}


def train(config: Config, ctx: Context) -> float:
    time.sleep(0.003 * random.random())
    for epoch in range(1, config.get("epochs", 0) + 1):
        ctx.report(step=epoch, loss=config["x"] + 1.0 / epoch)
    return float(config["x"] + sum(config.get(axis, 1.0) ** -0.2 for axis in "ND"))


def did(result: Result) -> list[Any]:
    return [(t.number, t.config, t.assignment) for t in result.log.trials]


@pytest.mark.parametrize(
    ("space", "scheduler"),
    [
        (TOKENS, None),
        pytest.param(SIZES, None, marks=pytest.mark.engine),
        (EPOCHS, FreezeThaw()),
    ],
    ids=["tokens", "params and tokens", "freeze-thaw"],
)
def test_one_seed_does_the_same_however_long_trials_take(space, scheduler):
    first, second = (
        optimize(train, space, budget=Budget(trials=6), scheduler=scheduler, seed=4)
        for _ in range(2)
    )
    assert did(first) == did(second)
    assert [o.seconds for o in first.log.observations] != [
        o.seconds for o in second.log.observations
    ]


def test_one_seed_of_the_sampler_does_the_same_however_long_trials_take():
    def objective(trial: optuna.Trial) -> float:
        time.sleep(0.003 * random.random())
        return trial.suggest_float("x", 0, 1) + trial.suggest_float("D", 1e6, 1e9, log=True) ** -0.1

    studies = [optuna.create_study(sampler=ScaleTuneSampler(TOKENS, seed=5)) for _ in range(2)]
    for study in studies:
        study.optimize(objective, n_trials=6)
    first, second = ([trial.params for trial in study.trials] for study in studies)
    assert first == second


@pytest.mark.parametrize(
    ("budget", "named"),
    [
        (Budget(cost=60.0), r"Budget\(cost=60.0\) needs a cost"),
        (Budget(trials=3, per_trial=5.0), r"Budget\(per_trial=5.0\) needs a cost"),
        (Budget(trials=3, per_trial=Limits(cost=5.0)), r"Budget\(per_trial=5.0\) needs a cost"),
    ],
)
def test_a_budget_of_costs_without_a_cost_is_refused_before_anything_runs(budget, named):
    for space in (SPACE, TOKENS):
        with pytest.raises(BudgetError, match=rf'{named}.*cost="seconds".*Budget\(seconds='):
            optimize(train, space, budget=budget)


def test_a_budget_of_costs_counts_levels_under_a_fidelity():
    result = optimize(train, EPOCHS, budget=Budget(cost=25.0))
    assert [o.cost for o in result.log.observations] == [9.0, 9.0, 7.0]  # told to stop at 25


def test_a_limit_of_each_trial_counts_levels_under_a_fidelity():
    result = optimize(train, EPOCHS, budget=Budget(trials=2, per_trial=4.0))
    assert [o.cost for o in result.log.observations] == [4.0, 4.0]


def test_a_failed_trial_is_charged_so_that_a_budget_ends():
    def fails(config: Config, ctx: Context) -> float:
        if ctx.trial.number % 2:
            raise MemoryError
        return 1.0

    result = optimize(fails, SIZES, budget=Budget(cost=1e20, trials=3))
    assert all(o.cost == 6 * o.config["N"] * o.config["D"] for o in result.log.observations)


def make_old(folder: Path, space: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Result:
    """A durable study in which measured seconds are the cost, as an earlier version left it."""
    with monkeypatch.context() as patched:
        patched.setattr(
            "hpo.optimizer.ask_tell.Optimizer.with_default_cost",
            lambda self, o: o if o.cause else _measured(o),
        )
        return optimize(train, space, budget=Budget(trials=3), name="old")


def _measured(observation: Any) -> Any:
    from dataclasses import replace

    return replace(observation, cost=observation.seconds)


@pytest.mark.parametrize("space", [X, EPOCHS], ids=["plain", "epochs"])
def test_a_study_that_stored_seconds_as_its_cost_resumes_without_them(folder, monkeypatch, space):
    before = make_old(folder, space, monkeypatch)
    result = optimize(train, space, budget=Budget(trials=4), name="old")
    costs = [9.0 if "epochs" in space else None] * 4
    assert [o.cost for o in result.log.observations] == costs
    assert [o.seconds for o in result.log.observations[:3]] == [
        o.cost for o in before.log.observations
    ]
    assert load_result("old").log.observations == result.log.observations


def test_a_study_that_stored_seconds_as_its_cost_resumes_with_them_if_asked(folder, monkeypatch):
    before = make_old(folder, X, monkeypatch)
    result = optimize(train, X, budget=Budget(trials=4), cost="seconds", name="old")
    assert all(o.cost == o.seconds for o in result.log.observations)
    assert [o.cost for o in result.log.observations[:3]] == [
        o.cost for o in before.log.observations
    ]
    assert load_result("old").cost_unit == "seconds"
    with pytest.raises(StudyError, match="cost='seconds', got cost=None"):
        optimize(train, X, budget=Budget(trials=5), name="old")


def test_a_study_whose_costs_are_levels_is_not_resumed_in_seconds(folder):
    optimize(train, EPOCHS, budget=Budget(trials=2), name="levels")
    with pytest.raises(StudyError, match="cost=None, got cost='seconds'"):
        optimize(train, EPOCHS, budget=Budget(trials=3), cost="seconds", name="levels")
