"""Runs and rungs as the log has them."""

from __future__ import annotations

import math

from hpo import Cause, Observation, Report, Status, Trial
from hpo.schedulers import (
    Ladder,
)
from hpo.schedulers.run_history import Arrival, RunFold, RunIndex
from hpo.trials import RungAssignment, TrialLog


def test_each_level_counts_once_whatever_is_reported() -> None:
    runs, log = RunIndex(Ladder.geometric(1, 27, 3), 1.0, "epochs"), TrialLog()
    log.add(Trial(0, {"x": 0.5, "epochs": 27}, 0, None, None, RungAssignment(27)))

    def arrivals(step: int, loss: float | None) -> list[tuple[int, float | None]]:
        log.report(0, Report(step, loss))
        return [(a.rung, a.loss) for a in runs.changes(log) if isinstance(a, Arrival)]

    assert arrivals(1, 0.9) == [(0, 0.9)]
    assert arrivals(1, 0.1) == []  # again
    assert arrivals(2, 0.8) == []
    assert arrivals(4, None) == []  # passed a rung without a loss
    assert arrivals(10, 0.5) == [(2, 0.5)]  # skipped one
    assert arrivals(3, 0.2) == []  # late
    assert arrivals(12, math.nan) == [(3, None)]  # failed on the way to the next
    assert arrivals(27, 0.1) == []  # after its failure
    assert runs[0].losses == {1: 0.9, 9: 0.5}


def test_a_lost_attempt_and_its_retry_are_one_run() -> None:
    runs, log = RunIndex(Ladder.geometric(1, 9, 3), 1.0, "epochs"), TrialLog()
    config = {"x": 0.5, "epochs": 9}
    log.add(Trial(0, config, 0, None, None, RungAssignment(3)))
    log.report(0, Report(1, 0.9))
    log.tell(Observation(0, config, None, None, Status.FAILED, Cause.LOST, order=0, ask_index=0))
    log.add(Trial(1, config, 0, None, 0, RungAssignment(3)))
    log.report(1, Report(1, 0.7))  # trained again
    log.report(1, Report(3, 0.6))
    news = list(runs.changes(log))
    assert [(a.rung, a.loss) for a in news if isinstance(a, Arrival)] == [(0, 0.9), (1, 0.6)]
    assert len(list(runs)) == 1 and runs[1] is runs[0] and runs[0].number == 1


def test_a_clone_is_a_run_of_its_own_and_inherits_no_result() -> None:
    runs, log = RunIndex(Ladder.geometric(1, 9, 3), 1.0, "epochs"), TrialLog()
    log.add(Trial(0, {"x": 0.5, "epochs": 9}, 0, None, None, RungAssignment(3)))
    log.report(0, Report(3, 0.5))
    log.add(Trial(1, {"x": 0.4, "epochs": 9}, 1, None, 0, RungAssignment(9)))
    log.report(1, Report(3, 0.1))
    assert len(list(runs.changes(log))) == 3
    assert runs[1] is not runs[0] and runs[1].losses == {}


# --- the fold ------------------------------------------------------------------------------------


class Seen(RunFold[list[str]]):
    """What happened to each config, for configs that are at most 1."""

    def _start(self, trial: Trial, parent: list[str] | None) -> list[str] | None:
        return None if trial.config["x"] > 1 else ["start" if parent is None else "clone"]

    def _continues(self, trial: Trial, parent: list[str]) -> bool:
        return bool(trial.config["x"] == 0)

    def sync(self, log: TrialLog) -> list[str]:
        other: list[str] = []
        for run, event in self._events(log):
            (other if run is None else run).append(type(event).__name__)
        return other


def test_each_event_goes_to_the_run_of_its_trial_once() -> None:
    seen, log = Seen(), TrialLog()
    log.add(Trial(0, {"x": 0}, 0, None, None, RungAssignment(1)))
    log.report(0, Report(1, 0.5))
    assert seen.sync(log) == []
    log.tell(Observation(0, {"x": 0}, 0.5, None, Status.PAUSED, None, 0, 0))
    log.resume(0, 3)
    log.add(Trial(1, {"x": 0}, 1, None, 0, RungAssignment(3)))  # continues 0
    log.add(Trial(2, {"x": 1}, 2, None, 0, RungAssignment(3)))  # a clone of 0
    log.add(Trial(3, {"x": 2}, 3, None, 0, RungAssignment(3)))  # not read
    log.report(3, Report(1, 0.5))
    log.tell(Observation(9, {"x": 0}, 0.5, None, Status.COMPLETED, None, 1, None))  # elsewhere
    assert seen.sync(log) == ["Trial", "Reported", "Observation"]
    assert seen.sync(log) == []
    assert seen.get(0) == ["start", "Trial", "Reported", "Observation", "Trial", "Trial"]
    assert seen.get(1) is seen.get(0)
    assert seen.get(2) == ["clone", "Trial"] and seen.get(3) is seen.get(9) is None


def test_a_run_is_as_it_was_then_at_each_change_of_a_log_read_back() -> None:
    runs, log = RunIndex(Ladder((1, 3, 9)), 1.0, "epochs"), TrialLog()
    log.add(Trial(0, {"x": 0.5, "epochs": 9}, 0, None, None, RungAssignment(1)))
    log.tell(Observation(0, log.trial(0).config, 0.9, None, Status.PAUSED, None, 0, 0))
    log.resume(0, 3)
    log.tell(Observation(0, log.trial(0).config, None, None, Status.STOPPED, None, 1, 0))
    states = [
        (type(c).__name__, c.run.assignment.level, c.run.state.name) for c in runs.changes(log)
    ]
    assert states == [("Started", 1, "RUNNING"), ("Arrival", 1, "PAUSED"), ("Ended", 3, "ENDED")]
    assert not runs[0].alive and not runs[0].paused
