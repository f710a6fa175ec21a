"""Runs a schedule against a log under a virtual clock, with any number of workers.

Not a mock: a driver without processes and storage. A stage costs its increment of levels (times the
config's speed), all of it when there is no checkpoint.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from hpo import Cause, Fidelity, Float, Observation, Report, SearchSpace, Status, Trial
from hpo.observations import Place, TrialLog
from hpo.schedulers import Clone, Decision, Promote, Schedule, Start

Curve = Callable[[float, int], float]  # config x, level -> loss; NaN diverges


def space(low: int = 1, high: int = 81) -> SearchSpace:
    return SearchSpace({"x": Float(0.0, 1.0), "epochs": Fidelity(low, high)})


@dataclass
class Arena:
    """One study. `xs`: configs in the order of their start; `speed`: cost of a level by x."""

    schedule: Schedule
    curve: Curve
    xs: Iterator[float]
    high: int
    workers: int = 1
    speed: Callable[[float], float] = lambda x: 1.0
    every: int | None = None  # steps between reports; None reports nothing on the way
    log: TrialLog = field(default_factory=TrialLog)
    cost: float = 0.0
    time: float = 0.0
    stages: list[tuple[int, int, int]] = field(default_factory=list)  # number, from, to
    reached: dict[int, int] = field(default_factory=dict)
    best: list[tuple[float, float, float]] = field(default_factory=list)  # cost, time, loss at high
    _queue: list[tuple[float, int, Trial, int]] = field(default_factory=list)

    def run(
        self, *, configs: int | None = None, cost: float = math.inf, steps: int = 10**9
    ) -> Arena:
        """Until nothing is left to do, `cost` is spent or `steps` stages have ended."""
        for _ in range(steps):
            while len(self._queue) < self.workers and self.cost < cost:
                started = sum(t.parent is None for t in self.log.trials)
                may_start = configs is None or started < configs
                action = self.schedule.next(self.log, may_start=may_start)
                if action is None:
                    break
                self._launch(action)
            if not self._queue:
                return self
            self._finish()
        return self

    def _launch(self, action: Start | Promote | Clone) -> None:
        match action:
            case Start(place):
                trial = self._add(next(self.xs), place, None)
            case Promote(number, level):
                before = self.log.observation(number)
                assert before is not None
                if before.status is Status.PAUSED:
                    trial = self.log.resume(number, level)
                else:  # completed at a fidelity that has grown
                    old = self.log.trial(number)
                    assert old.place is not None
                    place = Place(level, old.place.bracket, old.place.cohort)
                    trial = self._add(old.config["x"], place, number)
                    self.reached[trial.number] = self.reached[number]
            case Clone(parent, place, replaces, _):
                replaced = self.log.observation(replaces)
                if replaced is not None and replaced.status is Status.PAUSED:
                    self._tell(self.log.trial(replaces), Status.STOPPED, replaced.loss)
                x = self.log.trial(parent).config["x"] * 0.9
                trial = self._add(x, place, parent)
                self.reached[trial.number] = self.reached[parent]
        assert trial.place is not None
        start = self.reached.get(trial.number, 0)
        end = self._train(trial, start)
        price = (end - start) * self.speed(trial.config["x"])
        self.cost += price
        self.stages.append((trial.number, start, end))
        heapq.heappush(self._queue, (self.time + price, len(self.stages), trial, end))

    def _add(self, x: float, place: Place | None, parent: int | None) -> Trial:
        number = self.log.next_number
        config = {"x": x, "epochs": self.high}
        trial = Trial(number, config, number, None, parent, place)
        self.log.add(trial)
        return trial

    def _train(self, trial: Trial, start: int) -> int:
        """Where the stage ends, before it is known how: at its level or where it diverges."""
        assert trial.place is not None
        for level in range(start + 1, trial.place.level + 1):
            if not math.isfinite(self.curve(trial.config["x"], level)):
                return level
        return trial.place.level

    def _finish(self) -> None:
        self.time, _, trial, end = heapq.heappop(self._queue)
        x = trial.config["x"]
        if self.every is not None:
            start = self.reached.get(trial.number, 0)
            for step in range(start + self.every - start % self.every, end + 1, self.every):
                report = Report(step, self.curve(x, step))
                self.log.report(trial.number, report)
                if self.schedule.on_report(trial, report, self.log) is Decision.STOP:
                    self.cost -= (end - step) * self.speed(x)
                    self.reached[trial.number] = step
                    self._tell(trial, Status.STOPPED, None)
                    return
        self.reached[trial.number] = end
        loss = self.curve(x, end)
        if not math.isfinite(loss):
            self._tell(trial, Status.FAILED, None, Cause.DIVERGED)
            return
        if end == self.high:
            self.best.append((self.cost, self.time, loss))
        self._tell(trial, Status.COMPLETED if end == self.high else Status.PAUSED, loss)

    def _tell(
        self, trial: Trial, status: Status, loss: float | None, cause: Cause | None = None
    ) -> None:
        self.log.tell(
            Observation(
                number=trial.number,
                config=trial.config,
                loss=loss,
                cost=float(self.reached.get(trial.number, 0)),
                status=status,
                cause=cause,
                order=self.log.next_order,
                ask_index=trial.ask_index,
                reports=self.log.reports(trial.number),
            )
        )

    def results(self) -> dict[tuple[int, int], set[tuple[int, ...]]]:
        """By (cohort, bracket): the (root number, level) pairs that were run."""
        found: dict[tuple[int, int], set[tuple[int, ...]]] = {}
        for number, _, end in self.stages:
            trial = self.log.trial(number)
            root = trial
            while root.parent is not None:
                root = self.log.trial(root.parent)
            assert trial.place is not None
            key = trial.place.cohort, trial.place.bracket
            found.setdefault(key, set()).add((root.number, end))
        return found


def replayed(log: TrialLog) -> TrialLog:
    """The same log, read back event by event."""
    copy = TrialLog()
    known: set[int] = set()
    for event in log.events():
        match event:
            case Trial() if event.number in known:
                assert event.place is not None
                copy.resume(event.number, event.place.level)
            case Trial():
                known.add(event.number)
                copy.add(event)
            case Observation():
                copy.tell(event)
            case _:
                copy.report(event.number, event.report)
    return copy


def as_config(x: float) -> dict[str, Any]:
    return {"x": x}
