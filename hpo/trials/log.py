"""Append-only log of a study: all of the engine's state."""

from __future__ import annotations

import copy
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TypeAlias

from hpo.errors import StudyError
from hpo.trials.records import Cause, Observation, Report, RungAssignment, Trial


@dataclass(frozen=True, slots=True)
class Reported:
    """Report of a trial, as an event of the log.

    Attributes:
        number: Number of the trial.
        report: Its report.

    Example:
        >>> Reported(0, Report(step=1, loss=0.5)).report.step
        1
    """

    number: int
    report: Report


# A trial that was added or resumed (with its rung assignment at that time), a report, a result.
Event: TypeAlias = Trial | Reported | Observation


class TrialLog:
    """Append-only record of a study: trials as they are asked, observations as they are told.

    A trial is pending from `add` (or `resume`) until it is told. Telling the same result twice
    changes nothing. A finished trial keeps its result for good.

    Example:
        >>> from hpo.trials.records import Status
        >>> log = TrialLog()
        >>> log.add(Trial(0, {"lr": 0.1}, ask_index=0, prediction=None))
        >>> log.report(0, Report(step=1, loss=0.9))
        True
        >>> log.tell(
        ...     Observation(0, {"lr": 0.1}, 0.4, 2.0, Status.COMPLETED, None, order=0, ask_index=0)
        ... )
        True
        >>> len(log), log.pending, [observation.loss for observation in log.observations]
        (1, (), [0.4])
    """

    __slots__ = (
        "_carried",
        "_events",
        "_finished",
        "_lost_while_paused",
        "_next_ask_index",
        "_next_number",
        "_next_order",
        "_paused",
        "_pending",
        "_reports",
        "_resumed",
        "_trials",
    )

    def __init__(self) -> None:
        self._trials: dict[int, Trial] = {}
        self._pending: dict[int, Trial] = {}
        self._paused: dict[int, Observation] = {}
        self._finished: dict[int, Observation] = {}
        self._reports: dict[int, list[Report]] = {}
        self._resumed: dict[int, int] = {}
        self._carried: dict[int, Observation] = {}
        self._lost_while_paused: set[int] = set()
        self._events: list[Event] = []
        self._next_number = 0
        self._next_ask_index = 0
        self._next_order = 0

    def __len__(self) -> int:
        """Number of finished trials."""
        return len(self._finished)

    def snapshot(self) -> TrialLog:
        """Return a copy that later events of this log do not change."""
        same = TrialLog()
        for name in self.__slots__:
            value = getattr(self, name)
            setattr(same, name, copy.copy(value))
        same._reports = {number: list(reports) for number, reports in self._reports.items()}
        return same

    @property
    def pending(self) -> tuple[Trial, ...]:
        """Trials asked and not told, in the order they were added."""
        return tuple(self._pending.values())

    @property
    def paused(self) -> tuple[Observation, ...]:
        """Last observation of each paused trial, in tell order."""
        return tuple(self._paused.values())

    @property
    def observations(self) -> tuple[Observation, ...]:
        """Results of finished trials, in tell order."""
        return tuple(self._finished.values())

    @property
    def runs(self) -> tuple[Observation, ...]:
        """Results of finished trials that are runs of their own, in tell order.

        A run that was paused may go on under another number, as after an extension of the fidelity
        or under another driver. Its first number is then told lost, though nothing was: the run's
        one result is that of its last number.
        """
        moved = self._lost_while_paused
        if moved:
            moved = moved & {trial.parent for trial in self._trials.values()}
        return tuple(o for o in self._finished.values() if o.number not in moved)

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Every trial that was asked, in the order they were added."""
        return tuple(self._trials.values())

    @property
    def next_number(self) -> int:
        """Smallest number above all numbers seen."""
        return self._next_number

    @property
    def next_ask_index(self) -> int:
        """Smallest ask index above all ask indices seen."""
        return self._next_ask_index

    @property
    def next_order(self) -> int:
        """Smallest tell order above all orders seen."""
        return self._next_order

    def trial(self, number: int) -> Trial:
        """Return the trial asked as `number`, with its current rung assignment.

        Raises:
            KeyError: If no trial has this number.
        """
        return self._trials[number]

    def assignment(self, number: int) -> RungAssignment | None:
        """Return the current rung assignment of trial `number`; None without one, or if unknown."""
        trial = self._trials.get(number)
        return None if trial is None else trial.assignment

    def reports(self, number: int) -> tuple[Report, ...]:
        """Return what trial `number` reported in all its stages, by growing step."""
        return tuple(self._reports.get(number, ()))

    def step_before(self, number: int, step: int) -> int | None:
        """Return the last step before `step` that trial `number` reported; None without one."""
        reports = self._reports.get(number, [])
        before = bisect_left(reports, step, key=attrgetter("step"))
        return reports[before - 1].step if before else None

    def resumed(self, number: int) -> int:
        """Return how often trial `number` was resumed."""
        return self._resumed.get(number, 0)

    def carried(self, number: int) -> Observation | None:
        """Return the last result on which trial `number` builds; None for a run from nothing.

        It is the trial's own last result, pauses included, or the one that its parent had when the
        trial was added. A lost attempt has no result of its own.
        """
        return self._carried.get(number)

    def events(self, since: int = 0) -> Sequence[Event]:
        """Return the events in order, without the first `since`; for incremental readers."""
        return self._events[since:]

    def observation(self, number: int) -> Observation | None:
        """Return the last observation of trial `number`, paused or finished, or None."""
        return self._finished.get(number) or self._paused.get(number)

    def add(self, trial: Trial) -> None:
        """Record that `trial` was asked.

        Adding it again changes nothing, even if it was assigned to another rung since.

        Raises:
            StudyError: If another trial or result has this number.
        """
        known = self._trials.get(trial.number)
        if known is not None and known == replace(trial, assignment=known.assignment):
            return
        if known is not None or trial.number in self._finished:
            raise StudyError(
                f"trial {trial.number} exists already with config "
                f"{known.config if known else self._finished[trial.number].config}, "
                f"got {trial.config}; use number {self._next_number}"
            )
        trial = replace(trial)  # copies the config: the run may change the one it was given
        self._trials[trial.number] = trial
        self._pending[trial.number] = trial
        if trial.parent in self._carried:
            self._carried[trial.number] = self._carried[trial.parent]
        self._events.append(trial)
        self._next_number = max(self._next_number, trial.number + 1)
        self._next_ask_index = max(self._next_ask_index, trial.ask_index + 1)

    def report(self, number: int, report: Report) -> bool:
        """Record a report of a pending trial.

        A step that was reached before is ignored, as when a run is resumed from an earlier
        checkpoint.

        Args:
            number: Number of the trial.
            report: Its report.

        Returns:
            Whether the report was new.
        """
        if number not in self._pending:
            return False
        reports = self._reports.setdefault(number, [])
        if reports and report.step <= reports[-1].step:
            return False
        reports.append(report)
        self._events.append(Reported(number, report))
        return True

    def tell(self, observation: Observation) -> bool:
        """Record a result with its reports.

        A number that was never asked is accepted when the observation has no ask index, as for a
        result from elsewhere.

        Args:
            observation: Result of a stage or of a whole trial.

        Returns:
            Whether the result was new.

        Raises:
            StudyError: If the trial is finished with another result, has another config, or was
                never added although the observation has an ask index.
        """
        number = observation.number
        known = self.observation(number)
        if known is not None and known.same_result(observation):
            return False
        if number in self._finished:
            raise StudyError(
                f"trial {number} is finished with {_say(self._finished[number])}, got"
                f" {_say(observation)}; ask for a new trial to run the config again"
            )
        trial = self._trials.get(number)
        if trial is None and observation.ask_index is not None:
            raise StudyError(
                f"trial {number} was never added, got a result with"
                f" ask_index={observation.ask_index}; add it first"
            )
        if trial is not None and trial.config != observation.config:
            raise StudyError(
                f"trial {number} has config {trial.config}, got a result for {observation.config};"
                " tell its own config"
            )
        for report in observation.reports:
            self.report(number, report)
        if number in self._paused and observation.cause is Cause.LOST:
            self._lost_while_paused.add(number)
        self._pending.pop(number, None)
        self._paused.pop(number, None)
        self._events.append(observation)
        if observation.cause is not Cause.LOST:
            self._carried[number] = observation
        (self._finished if observation.status.finished else self._paused)[number] = observation
        self._next_number = max(self._next_number, number + 1)
        self._next_order = max(self._next_order, observation.order + 1)
        return True

    def resume(self, number: int, level: int | None = None) -> Trial:
        """Make a paused trial pending again.

        Args:
            number: Number of the trial.
            level: Level of the fidelity up to which it trains now; None keeps its rung assignment.

        Returns:
            The trial with its new rung assignment.

        Raises:
            StudyError: If the trial is not paused.
        """
        if number not in self._paused or number not in self._trials:
            raise StudyError(
                f"only a paused trial can be resumed, got trial {number}; tell it PAUSED first"
            )
        trial = self._trials[number]
        if level is not None and trial.assignment is not None:
            trial = replace(trial, assignment=replace(trial.assignment, level=level))
        del self._paused[number]
        self._trials[number] = self._pending[number] = trial
        self._resumed[number] = self.resumed(number) + 1
        self._events.append(trial)
        return trial


def _say(observation: Observation) -> str:
    cause = "" if observation.cause is None else f" ({observation.cause.value})"
    return (
        f"{observation.status.value}{cause}, loss={observation.loss!r}, cost={observation.cost!r}"
    )
