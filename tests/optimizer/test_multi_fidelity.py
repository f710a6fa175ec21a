"""Ask and tell in stages."""

import math

import pytest

from hpo import (
    ASHA,
    PBT,
    Fidelity,
    Float,
    IterativeDeepening,
    Optimizer,
    Report,
    StagedOptimizer,
    Status,
    SuccessiveHalving,
)
from hpo.schedulers import ASHAVariant, Decision, Scheduler

SPACE = {"x": Float(0.0, 1.0), "epochs": Fidelity(1, 9)}


def finish(engine: StagedOptimizer, *, starts: int) -> list[tuple[int, int]]:
    """Run it alone to its end; (number, level) of every stage."""
    stages: list[tuple[int, int]] = []
    while True:
        trial = engine.ask(may_start=len(engine.log.trials) < starts)
        if trial is None:
            return stages
        assert trial.assignment is not None
        level = trial.assignment.level
        stages.append((trial.number, level))
        engine.tell(trial, trial.config["x"] + 1.0 / level, float(level))


@pytest.mark.parametrize(
    "scheduler", [SuccessiveHalving(), ASHA(), IterativeDeepening(), PBT(population=3)]
)
def test_stages_come_back_under_their_number_until_they_are_full(scheduler: Scheduler) -> None:
    engine = StagedOptimizer(Optimizer(SPACE, cost="epochs"), scheduler)
    stages = finish(engine, starts=9)
    assert len(stages) == len(set(stages))
    done = [o for o in engine.log.observations if o.status is Status.COMPLETED]
    assert done and all(o.cost == 9.0 for o in done)
    assert not engine.log.pending


def test_the_ledger_charges_each_level_once() -> None:
    engine = StagedOptimizer(Optimizer(SPACE, cost="epochs"), SuccessiveHalving())
    finish(engine, starts=9)
    assert (engine.ledger.spent.trials, engine.ledger.spent.cost) == (9, 9 + 3 * 2 + 6)


def test_a_failed_stage_is_told_as_a_failed_trial() -> None:
    engine = StagedOptimizer(Optimizer(SPACE), ASHA())
    trial = engine.ask()
    assert trial is not None
    assert engine.tell(trial, math.nan).status is Status.FAILED
    assert engine.log.paused == ()


def test_reports_are_answered_under_the_stopping_variant() -> None:
    engine = StagedOptimizer(Optimizer(SPACE), ASHA(kind=ASHAVariant.STOPPING))
    good, bad = engine.ask(), engine.ask()
    assert good is not None and bad is not None
    assert engine.report(good, Report(1, 0.1)) is Decision.CONTINUE
    assert engine.report(bad, Report(1, 0.9)) is Decision.STOP
    assert engine.tell(bad, 0.9, stopped=True).status is Status.STOPPED
