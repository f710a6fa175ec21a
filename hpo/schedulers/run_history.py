"""Runs and rungs as the log has them: the events of a log, assigned to runs.

A run is one config's training, carried by one trial at a time: a lost attempt and a completed run
whose fidelity grew are continued under new numbers. A trial with another config than its parent's
is a clone, a run of its own.

    RunFold          base of incremental readers: which run does an event belong to?
    RunIndex         the runs on the levels of a ladder, with their losses at each level
    Rung             losses of the runs that reached one level, ranked
    PausingSchedule  base of schedules under which runs pause at their level

In a `RunIndex` each level of a run counts once, by the first report at or beyond it (the highest
level such a report passes) or by the result of a stage that was to end there. What is reported
again, earlier or after a NaN adds nothing.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

from hpo.schedulers.base import Decision, Setup
from hpo.schedulers.ladder import Ladder
from hpo.trials import (
    Cause,
    Event,
    Observation,
    Report,
    Reported,
    RungAssignment,
    Status,
    Trial,
    TrialLog,
)

RunT = TypeVar("RunT")


class RunFold(ABC, Generic[RunT]):
    """Base of incremental readers of a log: assigns each event to the run that it belongs to.

    Subclasses say what a run is, in `_start` and `_continues`, and go through `_events`.

    Example:
        Count the reports of each config, over all trials that train it:

        >>> from hpo import Report, Trial
        >>> from hpo.trials import Reported, TrialLog
        >>> class ReportCount(RunFold[list]):
        ...     def _start(self, trial, parent):
        ...         return [trial.config["lr"], 0]
        ...
        ...     def _continues(self, trial, parent):
        ...         return trial.config["lr"] == parent[0]
        ...
        ...     def sync(self, log):
        ...         for run, event in self._events(log):
        ...             run[1] += isinstance(event, Reported)
        >>> log, count = TrialLog(), ReportCount()
        >>> log.add(Trial(0, {"lr": 0.5}, 0, None))
        >>> log.report(0, Report(1, 0.9))
        True
        >>> log.add(Trial(1, {"lr": 0.5}, 0, None, parent=0))
        >>> log.report(1, Report(2, 0.8))
        True
        >>> count.sync(log)
        >>> count.get(0), count.get(0) is count.get(1)
        ([0.5, 2], True)
    """

    def __init__(self) -> None:
        self._events_read = 0
        self._by_trial: dict[int, RunT] = {}

    @abstractmethod
    def _start(self, trial: Trial, parent: RunT | None) -> RunT | None:
        """Return the new run of `trial`, or None if its events are not to be read.

        `parent`: run of the trial's parent, which `trial` does not continue.
        """

    @abstractmethod
    def _continues(self, trial: Trial, parent: RunT) -> bool:
        """Return whether `trial` continues `parent`, the run of its parent."""

    def get(self, number: int) -> RunT | None:
        """Return the run that trial `number` belongs to, None if it is not read."""
        return self._by_trial.get(number)

    def _events(self, log: TrialLog) -> Iterator[tuple[RunT | None, Event]]:
        """Yield the new events of `log` in order, each with its run; None where it has none.

        A trial event is the start of a stage: of a new run, or of one that continues.
        """
        for event in log.events(self._events_read):
            self._events_read += 1
            if isinstance(event, Trial):
                yield self._run_of(event), event
            else:
                yield self._by_trial.get(event.number), event

    def _run_of(self, trial: Trial) -> RunT | None:
        run = self._by_trial.get(trial.number)
        if run is None:
            parent = None if trial.parent is None else self._by_trial.get(trial.parent)
            if parent is not None and self._continues(trial, parent):
                run = parent
            else:
                run = self._start(trial, parent)
            if run is not None:
                self._by_trial[trial.number] = run
        return run


class RunState(Enum):
    """What a run is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"  # at the fidelity it was asked for, which may have grown since
    LOST = "lost"  # its worker is gone; it will be continued by another trial
    ENDED = "ended"  # stopped or failed: it can never continue


@dataclass(slots=True)
class Run:
    """One config's training so far.

    Attributes:
        first_trial: number of the trial that started it; identifies the run.
        number: current trial.
        config: of the first trial.
        assignment: bracket, cohort and level of the current stage.
        counts_from: level below which losses do not count.
        state: what it is doing.
        losses: signed loss by level.
        costs: cost of the whole run up to each level at which a stage ended, where told.
        curve: signed loss by reported step.
        reached: last step.
        failed: whether it reported a loss that is not finite, or failed.
    """

    first_trial: int
    number: int
    config: Mapping[str, Any]
    assignment: RungAssignment
    counts_from: int
    state: RunState = RunState.RUNNING
    losses: dict[int, float] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    reached: int = 0
    failed: bool = False

    @property
    def paused(self) -> bool:
        """Whether it waits at its level and could continue from there.

        That includes completed runs, which continue if the fidelity grows.
        """
        return self.state in (RunState.PAUSED, RunState.COMPLETED) and not self.failed

    @property
    def alive(self) -> bool:
        """Whether it may still reach a higher level."""
        return self.state is not RunState.ENDED and not self.failed


class Started(NamedTuple):
    """A run started."""

    run: Run


class Arrival(NamedTuple):
    """A run reached a rung: with a signed loss, or None if it failed on the way there."""

    run: Run
    rung: int
    loss: float | None


class Ended(NamedTuple):
    """A run was stopped or failed and can never continue."""

    run: Run


Change: TypeAlias = Started | Arrival | Ended


class RunIndex(RunFold[Run]):
    """Index of the runs with an assignment, by trial number, on the levels of a ladder.

    Args:
        ladder: levels at which losses count.
        sign: factor that makes a loss one to minimize, 1 or -1.
        fidelity: name of the fidelity in a config; two configs may differ in it and be one run.

    Example:
        >>> from hpo import Report, Trial
        >>> from hpo.trials import RungAssignment, TrialLog
        >>> log, runs = TrialLog(), RunIndex(Ladder((1, 3, 9)), 1.0, "epochs")
        >>> log.add(Trial(0, {"lr": 0.5, "epochs": 9}, 0, None, assignment=RungAssignment(3)))
        >>> for step, loss in ((1, 0.9), (2, 0.8), (3, 0.7)):
        ...     _ = log.report(0, Report(step, loss))
        >>> [type(change).__name__ for change in runs.changes(log)]
        ['Started', 'Arrival', 'Arrival']
        >>> runs[0].losses, runs[0].reached
        ({1: 0.9, 3: 0.7}, 3)
    """

    def __init__(self, ladder: Ladder, sign: float, fidelity: str | None) -> None:
        super().__init__()
        self.ladder = ladder
        self._sign = sign
        self._fidelity = fidelity
        self._all: list[Run] = []

    @classmethod
    def on(cls, ladder: Ladder, setup: Setup) -> RunIndex:
        """Return an empty index for the logs that `setup` is for."""
        return cls(ladder, setup.sign, setup.space.fidelity)

    def __iter__(self) -> Iterator[Run]:
        """Iterate over all runs, in the order in which they started."""
        return iter(self._all)

    def __getitem__(self, number: int) -> Run:
        """Return the run that trial `number` belongs to."""
        return self._by_trial[number]

    def sync(self, log: TrialLog) -> None:
        """Read what is new in `log`."""
        for _ in self.changes(log):
            pass

    def changes(self, log: TrialLog) -> Iterator[Change]:
        """Read what is new in `log`, and yield runs that start, reach a rung and end, in order.

        At each of them the runs are as they were then, also when a whole log is read again.
        """
        count = len(self._all)
        for run, event in self._events(log):
            if run is None:
                continue
            match event:
                case Trial() if len(self._all) > count:
                    count += 1
                    yield Started(run)
                case Trial():
                    _begin_stage(run, event)
                case Reported(number, report) if number == run.number:
                    yield from self._report(run, report)
                case Observation() if event.number == run.number:
                    yield from self._end_stage(run, event)

    def _start(self, trial: Trial, parent: Run | None) -> Run | None:
        if trial.assignment is None:
            return None
        levels = self.ladder.levels
        counts_from = levels[min(trial.assignment.bracket, self.ladder.top)]
        if parent is not None:  # a clone: the levels that its parent reached are not its own
            counts_from = levels[max(self.ladder.rung(trial.assignment.level) - 1, 0)] + 1
        run = Run(trial.number, trial.number, trial.config, trial.assignment, counts_from)
        self._all.append(run)
        return run

    def _continues(self, trial: Trial, parent: Run) -> bool:
        """Return whether `trial` takes over from the run's current trial with the same config."""
        if trial.assignment is None or parent.number != trial.parent:
            return False
        names = {*trial.config, *parent.config} - {self._fidelity}
        return all(trial.config.get(n) == parent.config.get(n) for n in names)

    def _report(self, run: Run, report: Report) -> Iterator[Arrival]:
        if run.failed or report.step <= run.reached:
            return
        if report.loss is not None and not math.isfinite(report.loss):
            yield from self._fail(run)
            return
        run.reached = report.step
        if report.loss is not None:
            run.curve[report.step] = self._sign * report.loss
            yield from self._arrive(run, min(report.step, run.assignment.level), report.loss)

    def _end_stage(self, run: Run, observation: Observation) -> Iterator[Arrival | Ended]:
        match observation.status:
            case Status.PAUSED | Status.COMPLETED:
                paused = observation.status is Status.PAUSED
                run.state = RunState.PAUSED if paused else RunState.COMPLETED
                run.reached = max(run.reached, run.assignment.level)
                if observation.cost:
                    run.costs[run.assignment.level] = observation.cost
                if observation.loss is not None and not run.failed:
                    yield from self._arrive(run, run.assignment.level, observation.loss)
            case Status.FAILED if observation.cause is Cause.LOST:
                run.state = RunState.LOST
            case Status.FAILED:
                yield from self._fail(run)
                run.state = RunState.ENDED
                yield Ended(run)
            case _:
                run.state = RunState.ENDED
                yield Ended(run)

    def _arrive(self, run: Run, level: int, loss: float) -> Iterator[Arrival]:
        rung = self.ladder.rung(level)
        if rung < 0:
            return
        level = self.ladder.levels[rung]
        if level < run.counts_from or level in run.losses:
            return
        run.losses[level] = self._sign * loss
        yield Arrival(run, rung, self._sign * loss)

    def _fail(self, run: Run) -> Iterator[Arrival]:
        """Count a failure in the next rung that the run would have reached."""
        if run.failed:
            return
        run.failed = True
        last = max(run.losses, default=run.counts_from - 1)
        for rung, level in enumerate(self.ladder.levels):
            if level > last and level >= run.counts_from:
                yield Arrival(run, rung, None)
                return


def _begin_stage(run: Run, trial: Trial) -> None:
    """Continue `run` in a resumed trial or, where its parent carried the run, in a new one."""
    assert trial.assignment is not None
    if trial.parent == run.number:
        run.number = trial.number
    run.assignment, run.state = trial.assignment, RunState.RUNNING


class Rung:
    """Losses of the runs that reached one level, best first; ties go to the older run.

    Attributes:
        at_rung: (loss, first trial) of those that have not gone beyond it yet. It may list some
            that have: whoever finds one removes it.
        failures: number of runs that failed on the way to it.

    Example:
        >>> rung = Rung()
        >>> [rung.add(loss, first_trial) for first_trial, loss in enumerate((0.5, 0.2, None))]
        [0, 0, 2]
        >>> len(rung), rung.best(1), rung.rank(0.5, 0)
        (3, [(0.2, 1)], 1)
    """

    __slots__ = ("_entries", "at_rung", "failures")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int]] = []
        self.at_rung: list[tuple[float, int]] = []
        self.failures = 0

    def __len__(self) -> int:
        """Return the number of arrivals, failed ones included."""
        return len(self._entries) + self.failures

    def add(self, loss: float | None, first_trial: int) -> int:
        """Add a run and return its rank from 0.

        Args:
            loss: signed; None is a failure, which ranks behind all others and is never listed.
            first_trial: number that identifies the run.
        """
        if loss is None:
            self.failures += 1
            return len(self) - 1
        assert math.isfinite(loss)  # NaN would silently break the order
        insort(self._entries, (loss, first_trial))
        insort(self.at_rung, (loss, first_trial))
        return bisect_left(self._entries, (loss, first_trial))

    def best(self, count: int) -> list[tuple[float, int]]:
        """Return the `count` best (loss, first trial), fewer if fewer succeeded."""
        return self._entries[:count]

    def rank(self, loss: float, first_trial: int) -> int:
        """Return the position of an entry, from 0."""
        return bisect_left(self._entries, (loss, first_trial))


class PausingSchedule(ABC):
    """Base of schedules under which every run pauses at its assigned level.

    Args:
        runs: index of the runs; `_sync` brings it up to date.
    """

    def __init__(self, runs: RunIndex) -> None:
        self._runs = runs

    @abstractmethod
    def _sync(self, log: TrialLog) -> None:
        """Read what is new in `log`."""

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        """Pause a run that goes beyond its level; see `Schedule`.

        At its level a training function returns by itself, perhaps after a last evaluation; one
        that goes beyond does not look at its level and is ended by force.
        """
        self._sync(log)
        run = self._runs.get(trial.number)
        if run is None or report.step <= run.assignment.level:
            return Decision.CONTINUE
        return Decision.PAUSE
