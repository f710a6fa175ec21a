"""Ask and tell in stages."""

import math
from typing import Any

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
from hpo.optimizer.multi_fidelity import (
    CloneTrial,
    ContinueTrial,
    ResumeTrial,
    StartTrial,
    TrialAction,
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


# --- turns as values -----------------------------------------------------------------------------


def until(engine: StagedOptimizer, kind: type, **options: Any) -> TrialAction:
    """The first action of a kind, which is not carried out."""
    for _ in range(100):
        action = engine.next_action(**options)
        if isinstance(action, kind):
            return action
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        level = trial.assignment.level
        engine.tell(trial, trial.config["x"] + 1.0 / level, float(level))
    raise AssertionError("no such action")


def test_a_turn_is_a_value_and_changes_nothing_until_it_is_carried_out() -> None:
    engine = StagedOptimizer(Optimizer(SPACE, seed=1), PBT(population=3, interval=3))
    for kind in (StartTrial, ResumeTrial, CloneTrial):
        action = until(engine, kind)
        events = len(engine.log.events())
        assert engine.next_action() == action
        assert len(engine.log.events()) == events
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        if isinstance(action, ResumeTrial):
            assert (trial.number, trial.assignment.level) == (action.number, action.level)
        else:
            assert trial == action.trial(trial.number)  # type: ignore[union-attr]
        engine.tell(trial, trial.config["x"], float(trial.assignment.level))


def test_a_paused_trial_that_cannot_be_resumed_is_continued_as_a_new_one() -> None:
    engine = StagedOptimizer(Optimizer(SPACE), ASHA())
    action = until(engine, ContinueTrial, may_resume=lambda trial, level: False)
    assert isinstance(action, ContinueTrial) and action.paused
    trial = action.trial(99)
    assert (trial.number, trial.parent) == (99, action.parent.number)
    assert (trial.config, trial.ask_index) == (action.parent.config, action.parent.ask_index)
    assert engine.next_action() == ResumeTrial(action.parent.number, action.assignment.level)


def test_locked_trials_are_left_alone() -> None:
    engine = StagedOptimizer(Optimizer(SPACE), ASHA())
    action = until(engine, ResumeTrial)
    assert isinstance(action, ResumeTrial)
    assert engine.next_action(locked=frozenset({action.number})) != action


def test_drivers_that_share_a_study_change_their_clones_by_random_numbers_of_their_own() -> None:
    changes = []  # by a factor of 0.8 or 1.2, or drawn anew
    for driver in range(6):
        optimizer = Optimizer(SPACE, seed=1)
        engine = StagedOptimizer(optimizer, PBT(population=3, interval=3), driver=driver)
        clone = until(engine, CloneTrial)
        assert isinstance(clone, CloneTrial)
        changes.append(clone.config["x"])
    assert len(set(changes)) >= 2


def test_without_a_scheduler_every_config_is_trained_to_the_end() -> None:
    engine = StagedOptimizer(Optimizer(SPACE), None)
    trial = engine.ask()
    assert trial is not None and trial.assignment is None
    assert engine.report(trial, Report(1, 0.5)) is Decision.CONTINUE
    assert engine.tell(trial, 0.5).status is Status.COMPLETED
    assert engine.ask(may_start=False) is None
