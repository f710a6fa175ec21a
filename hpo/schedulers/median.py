"""Median stopping (Golovin et al., "Google Vizier", KDD 2017, section 3.2)."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import median

from hpo.errors import SpaceError
from hpo.schedulers.base import Schedule, Scheduler, Setup, StoppingRule
from hpo.schedulers.run_history import RunFold
from hpo.space.arguments import Count, store
from hpo.trials import Observation, Report, Reported, Status, Trial, TrialLog


@dataclass(frozen=True, slots=True)
class MedianStopping(Scheduler):
    """Stops a run whose best loss so far is worse than the median run's average up to that step.

    It reads only the steps and losses of reports, so it needs neither a fidelity nor checkpoints.

    Args:
        after: step before which no run stops.
        among: number of other runs that must have reached the step before a run can stop.

    Raises:
        SpaceError: for settings that are no counts.

    Example:
        >>> from hpo import Float, MedianStopping, Report, SearchSpace, Trial
        >>> from hpo.trials import TrialLog
        >>> schedule = MedianStopping(among=2).begin(SearchSpace({"lr": Float(0.0, 1.0)}))
        >>> log, decisions = TrialLog(), []
        >>> for number, loss in enumerate((0.2, 0.3, 0.9)):
        ...     trial, report = Trial(number, {"lr": 0.5}, number, None), Report(1, loss)
        ...     log.add(trial)
        ...     _ = log.report(number, report)
        ...     decisions.append(schedule.on_report(trial, report, log).name)
        >>> decisions
        ['CONTINUE', 'CONTINUE', 'STOP']
    """

    after: int = 1
    among: int = 4

    def __post_init__(self) -> None:
        store(self, SpaceError, after=Count(0), among=Count(1, way_out="4 is usual"))

    def schedule(self, setup: Setup) -> Schedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Example:
            Without a fidelity every run trains to its end unless it is stopped:

            >>> from hpo import Float, SearchSpace
            >>> from hpo.space import Direction
            >>> from hpo.trials import TrialLog
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> MedianStopping().schedule(setup).next(TrialLog())
            Start(assignment=None)
        """
        return _MedianRule(self.after, self.among).schedule(setup)


class _MedianRule(StoppingRule):
    """The rule on one log."""

    def __init__(self, after: int, among: int) -> None:
        self._after, self._among = after, among
        self._curves = _Curves()

    def stops(self, trial: Trial, report: Report, log: TrialLog, sign: float) -> bool:
        self._curves.sync(log, sign)
        own = self._curves.get(trial.number)
        if report.step < self._after or own is None or not own.steps:
            return False
        others = (curve for curve in self._curves if curve is not own)
        averages = [a for curve in others if (a := curve.average(report.step)) is not None]
        return len(averages) >= self._among and own.best > median(averages)


@dataclass(slots=True)
class _Curve:
    """Finite losses that one trial reported; `sums[i]` is that of the losses up to `steps[i]`."""

    steps: list[int] = field(default_factory=list)
    sums: list[float] = field(default_factory=list)
    best: float = math.inf

    def add(self, step: int, loss: float) -> None:
        self.steps.append(step)
        self.sums.append(loss + (self.sums[-1] if self.sums else 0.0))
        self.best = min(self.best, loss)

    def average(self, step: int) -> float | None:
        """Return the mean of the losses up to `step`; None if the trial has not reached it."""
        count = bisect_right(self.steps, step)
        return self.sums[count - 1] / count if count and self.steps[-1] >= step else None


class _Curves(RunFold[_Curve]):
    """Curves of all trials but the failed ones.

    Every trial counts as a run of its own, also one that retries a lost attempt.
    """

    def __iter__(self) -> Iterator[_Curve]:
        return iter(self._by_trial.values())

    def sync(self, log: TrialLog, sign: float) -> None:
        for curve, event in self._events(log):
            match event:
                case Reported(_, report) if curve is not None:
                    if report.loss is not None and math.isfinite(report.loss):
                        curve.add(report.step, sign * report.loss)
                case Observation() if event.status is Status.FAILED:
                    # A lost attempt is retried by another trial; no run is judged by failed ones.
                    self._by_trial.pop(event.number, None)

    def _start(self, trial: Trial, parent: _Curve | None) -> _Curve:
        return _Curve()

    def _continues(self, trial: Trial, parent: _Curve) -> bool:
        return False
