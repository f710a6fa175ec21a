"""What a log says about runs and rungs: the one fold that all schedules share.

A run is one config's training, carried by one trial at a time: a lost attempt and a completed run
whose fidelity grew go on under new numbers. A trial with another config than its parent's is a
clone, a run of its own.

Each level of a run counts once, by the first report at or beyond it (the highest level such a
report passes) or by the result of a stage that was to end there. What is reported again, earlier or
after a NaN adds nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

from hpo.observations import (
    Cause,
    Observation,
    Place,
    Report,
    Reported,
    Status,
    Trial,
    TrialLog,
)
from hpo.schedulers.base import Decision, Setup
from hpo.schedulers.ladder import Ladder


class State(Enum):
    """What a run is doing."""

    RUNNING = "running"
    PAUSED = "paused"
    COMPLETED = "completed"  # at the fidelity it was asked for, which may have grown since
    LOST = "lost"  # whoever ran it is gone; it will be continued
    ENDED = "ended"  # stopped or failed: it can never go on


@dataclass(slots=True)
class Run:
    """One config's training so far.

    `root`, `number`: its first and its current trial. `floor`: level below which nothing counts.
    `losses`: by level, signed. `costs`: of all the run up to each level at which a stage ended,
    where told. `curve`: signed losses by reported step. `reached`: the last step.
    """

    root: int
    number: int
    config: Mapping[str, Any]
    place: Place
    floor: int
    state: State = State.RUNNING
    losses: dict[int, float] = field(default_factory=dict)
    costs: dict[int, float] = field(default_factory=dict)
    curve: dict[int, float] = field(default_factory=dict)
    reached: int = 0
    failed: bool = False

    @property
    def resting(self) -> bool:
        """Whether it waits at its level and could go on from there."""
        return self.state in (State.PAUSED, State.COMPLETED) and not self.failed

    @property
    def alive(self) -> bool:
        """Whether more can come of it."""
        return self.state is not State.ENDED and not self.failed


class Arrival(NamedTuple):
    """A run came to a rung: with a loss, or None if it failed on the way there."""

    run: Run
    rung: int
    loss: float | None


class Ended(NamedTuple):
    """A run was stopped or failed and can never go on."""

    run: Run


class Runs:
    """The runs of a log by trial number, on the levels of a ladder.

    `sign`: times a loss is to be minimised. `fidelity`: its name in a config.
    """

    def __init__(self, ladder: Ladder, sign: float, fidelity: str | None) -> None:
        self.ladder = ladder
        self._sign = sign
        self._fidelity = fidelity
        self._seen = 0
        self._by_number: dict[int, Run] = {}
        self._all: list[Run] = []

    @classmethod
    def on(cls, ladder: Ladder, setup: Setup) -> Runs:
        """Those of a log that a schedule is made for."""
        return cls(ladder, setup.sign, setup.space.fidelity)

    def __iter__(self) -> Iterator[Run]:
        """All runs, in the order in which they started."""
        return iter(self._all)

    def __getitem__(self, number: int) -> Run:
        """The run that trial `number` belongs to."""
        return self._by_number[number]

    def get(self, number: int) -> Run | None:
        """The run of a trial that has a place, else None."""
        return self._by_number.get(number)

    def sync(self, log: TrialLog) -> Iterator[Run | Arrival | Ended]:
        """Take in what is new in `log`: runs that start, arrive and end, in order.

        At each of them the runs are as they were then, also when a whole log is read back.
        """
        for event in log.events(self._seen):
            self._seen += 1
            match event:
                case Trial():
                    yield from self._placed(event)
                case Reported(number, report):
                    yield from self._reported(number, report)
                case Observation():
                    yield from self._told(event)

    def _placed(self, trial: Trial) -> Iterator[Run]:
        if trial.place is None:
            return
        run = self._by_number.get(trial.number)
        parent = None if trial.parent is None else self._by_number.get(trial.parent)
        if run is None and parent is not None and self._continues(trial, parent):
            run = self._by_number[trial.number] = parent
            run.number = trial.number
        if run is not None:
            run.place, run.state = trial.place, State.RUNNING
            return
        levels = self.ladder.levels
        floor = levels[min(trial.place.bracket, self.ladder.top)]
        if parent is not None:  # a clone: what its parent has done is not its own
            floor = levels[max(self.ladder.rung(trial.place.level) - 1, 0)] + 1
        run = Run(trial.number, trial.number, trial.config, trial.place, floor)
        self._by_number[trial.number] = run
        self._all.append(run)
        yield run

    def _continues(self, trial: Trial, parent: Run) -> bool:
        """Whether `trial` is the same config as its parent's, whatever its fidelity."""
        if parent.number != trial.parent:
            return False
        names = {*trial.config, *parent.config} - {self._fidelity}
        return all(trial.config.get(n) == parent.config.get(n) for n in names)

    def _reported(self, number: int, report: Report) -> Iterator[Arrival]:
        run = self._by_number.get(number)
        if run is None or run.number != number or run.failed or report.step <= run.reached:
            return
        if report.loss is not None and not math.isfinite(report.loss):
            yield from self._fails(run)
            return
        run.reached = report.step
        if report.loss is not None:
            run.curve[report.step] = self._sign * report.loss
            yield from self._arrives(run, min(report.step, run.place.level), report.loss)

    def _told(self, observation: Observation) -> Iterator[Arrival | Ended]:
        run = self._by_number.get(observation.number)
        if run is None or run.number != observation.number:
            return
        match observation.status:
            case Status.PAUSED | Status.COMPLETED:
                paused = observation.status is Status.PAUSED
                run.state = State.PAUSED if paused else State.COMPLETED
                run.reached = max(run.reached, run.place.level)
                if observation.cost:
                    run.costs[run.place.level] = observation.cost
                if observation.loss is not None and not run.failed:
                    yield from self._arrives(run, run.place.level, observation.loss)
            case Status.FAILED if observation.cause is Cause.LOST:
                run.state = State.LOST
            case Status.FAILED:
                yield from self._fails(run)
                run.state = State.ENDED
                yield Ended(run)
            case _:
                run.state = State.ENDED
                yield Ended(run)

    def _arrives(self, run: Run, level: int, loss: float) -> Iterator[Arrival]:
        rung = self.ladder.rung(level)
        if rung < 0:
            return
        level = self.ladder.levels[rung]
        if level < run.floor or level in run.losses:
            return
        run.losses[level] = self._sign * loss
        yield Arrival(run, rung, self._sign * loss)

    def _fails(self, run: Run) -> Iterator[Arrival]:
        """A failure counts in the next rung the run would have come to."""
        if run.failed:
            return
        run.failed = True
        last = max(run.losses, default=run.floor - 1)
        for rung, level in enumerate(self.ladder.levels):
            if level > last and level >= run.floor:
                yield Arrival(run, rung, None)
                return


class Rung:
    """Losses of the runs that came to one level, best first; ties go to the older run.

    `here`: those of them that have not gone beyond it yet, as far as anybody looked.
    """

    __slots__ = ("_entries", "failures", "here")

    def __init__(self) -> None:
        self._entries: list[tuple[float, int]] = []
        self.here: list[tuple[float, int]] = []
        self.failures = 0

    def __len__(self) -> int:
        """Arrivals, failed ones included."""
        return len(self._entries) + self.failures

    def add(self, loss: float | None, root: int) -> int:
        """Enter a run; returns its rank from 0. None is a failure: behind all, never listed."""
        if loss is None:
            self.failures += 1
            return len(self) - 1
        assert math.isfinite(loss)  # NaN would silently break the order
        insort(self._entries, (loss, root))
        insort(self.here, (loss, root))
        return bisect_left(self._entries, (loss, root))

    def best(self, count: int) -> list[tuple[float, int]]:
        """The `count` best (loss, root), fewer if fewer succeeded."""
        return self._entries[:count]

    def rank(self, loss: float, root: int) -> int:
        """Position of an entry, from 0."""
        return bisect_left(self._entries, (loss, root))


def at_level(run: Run, report: Report) -> Decision:
    """What becomes of a run that is to pause at its level.

    At its level it returns by itself, perhaps after a last evaluation; one that goes beyond does
    not look at its level and is ended by force.
    """
    return Decision.CONTINUE if report.step <= run.place.level else Decision.PAUSE
