"""Wall-clock time decides nothing unless it was declared as the cost."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest

from hpo import (
    ASHA,
    Axis,
    Budget,
    Fidelity,
    Float,
    FreezeThaw,
    Observation,
    Optimizer,
    Report,
    Scale,
    StagedOptimizer,
    Status,
)
from hpo.adapters.events import events_to_json, replay

PLAIN = {"x": Float(0, 1)}
TOKENS = {**PLAIN, "D": Scale(1e6, 1e9, axis=Axis.TOKENS)}
SIZES = {**TOKENS, "N": Scale(1e5, 1e7, axis=Axis.PARAMS)}
EPOCHS = {**PLAIN, "epochs": Fidelity(1, 9)}


def loss(config: dict[str, Any]) -> float:
    sizes = sum(math.log(config[name]) for name in ("N", "D") if name in config)
    return float((config["x"] - 0.4) ** 2 - 0.1 * sizes)


def told(space: dict[str, Any], seconds: Callable[[int], float], asks: int) -> Optimizer:
    optimizer = Optimizer(space, seed=1)
    for i in range(asks):
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.config), seconds=seconds(i))
    return optimizer


def configs(optimizer: Optimizer) -> list[dict[str, Any]]:
    return [trial.config for trial in optimizer.log.trials]


@pytest.mark.parametrize(
    ("space", "asks"),
    [
        (PLAIN, 9),
        (SIZES, 6),
        pytest.param(TOKENS, 12, marks=pytest.mark.engine),
        pytest.param(SIZES, 12, marks=pytest.mark.engine),
        pytest.param({**SIZES, "epochs": Fidelity(1, 4)}, 12, marks=pytest.mark.engine),
    ],
)
def test_how_long_runs_take_does_not_change_what_is_asked(space, asks):
    quick = told(space, lambda i: 0.1 / (i + 1), asks)
    slow = told(space, lambda i: 10.0 * i**2, asks)
    assert configs(quick) == configs(slow)
    assert quick.result().front == slow.result().front
    assert [o.seconds for o in slow.log.observations] == [10.0 * i**2 for i in range(asks)]


def test_how_long_stages_take_does_not_change_what_freeze_thaw_does():
    def stages(factor: float) -> list[tuple[int, int]]:
        engine = StagedOptimizer(Optimizer(EPOCHS, seed=2), FreezeThaw(), seed=2)
        done = []
        for i in range(24):
            trial = engine.ask()
            assert trial is not None and trial.assignment is not None
            level = trial.assignment.level
            done.append((trial.number, level))
            engine.tell(trial, trial.config["x"] + 1.0 / level, seconds=factor * (i + 1) ** 3)
        return done

    assert stages(1.0) == stages(1e-3)


def test_a_run_costs_six_n_d_or_its_level_or_nothing_known():
    config = {"x": 0.5, "D": 1e7, "N": 1e6, "epochs": 9}
    for space, cost in ((PLAIN, None), (TOKENS, None), (SIZES, 6e13), (EPOCHS, 9.0)):
        observation = Optimizer(space).tell({name: config[name] for name in space}, 1.0)
        assert observation.cost == cost


def test_a_stage_costs_the_level_that_its_run_has_reached():
    engine = StagedOptimizer(Optimizer(EPOCHS, seed=0), ASHA())
    costs = []
    for _ in range(4):
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        costs.append((trial.assignment.level, engine.tell(trial, 0.5).cost))
    assert costs == [(1, 1.0), (1, 1.0), (1, 1.0), (3, 3.0)]
    assert engine.ledger.spent.cost == 5.0


def test_a_run_that_ended_early_costs_what_it_last_reported():
    optimizer = Optimizer(EPOCHS)
    for ended in ({"failed": "diverged"}, {"stopped": True, "loss": 0.5}):
        reported = (Report(1, 0.9), Report(4, 0.5))
        assert optimizer.tell(optimizer.ask(), reports=reported, **ended).cost == 4.0
    assert optimizer.tell(optimizer.ask(), failed="oom").cost == 9.0  # it may have been at the end
    assert optimizer.tell(optimizer.ask(), failed="lost").cost is None


def test_a_told_cost_is_the_declared_one_from_then_on():
    optimizer = Optimizer(SIZES, seed=0)
    costs = [3.0, None, 2.0]
    for cost in costs:
        optimizer.tell(optimizer.ask(), 1.0, cost)
    optimizer.tell(optimizer.ask(), failed="oom")
    assert [o.cost for o in optimizer.log.observations] == [*costs, None]


def test_a_named_unit_is_never_replaced():
    optimizer = Optimizer(SIZES, cost="flops")
    assert optimizer.tell(optimizer.ask(), 1.0).cost is None


def test_telling_again_changes_nothing_whatever_was_told_in_between():
    optimizer = Optimizer(SIZES, seed=0)
    first, second = optimizer.ask(), optimizer.ask()
    elsewhere = {"x": 0.5, "D": 1e7, "N": 1e6}
    for _ in range(2):
        optimizer.tell(first, 1.0)
        optimizer.tell(elsewhere, 2.0)
        optimizer.tell(second, 3.0, 7.0)
    assert [o.cost for o in optimizer.log.observations if o.number == second.number] == [7.0]
    assert len(optimizer.log) == 3


def test_the_front_is_the_one_best_where_no_cost_is_known():
    for space in (PLAIN, TOKENS, EPOCHS):
        result = told(space, lambda i: 1.0 + i, 5).result()
        assert result.front == (result.best,)


def test_a_front_without_costs_is_printed_and_reported(tmp_path):
    result = told(PLAIN, lambda i: 1.0 + i, 3).result()
    assert result.front[0].cost is None
    assert "<h2>Front" not in result.report(tmp_path / "report.html").read_text()
    result.plot_front(tmp_path / "front.png")


def test_costs_that_an_earlier_version_measured_are_counted_anew():
    old = Optimizer(EPOCHS)
    for seconds in (0.25, 0.75):
        trial = old.ask()
        config, number = trial.config, trial.number
        old.record(
            Observation(
                number, config, 1.0, seconds, Status.COMPLETED, None, number, number, seconds
            )
        )
    optimizer = Optimizer(EPOCHS)
    replay(optimizer, events_to_json(old.log))
    assert [o.cost for o in optimizer.log.observations] == [9.0, 9.0]
    declared = Optimizer(EPOCHS, cost="seconds")
    replay(declared, events_to_json(old.log))
    assert [o.cost for o in declared.log.observations] == [0.25, 0.75]


def test_a_budget_counts_the_derived_costs():
    optimizer = Optimizer(EPOCHS, budget=Budget(cost=20.0))
    spent = list(
        itertools.accumulate(optimizer.tell(optimizer.ask(), 1.0).cost or 0.0 for _ in range(3))
    )
    assert spent == [9.0, 18.0, 27.0]
    assert optimizer.ledger.remaining_cost == 0.0
