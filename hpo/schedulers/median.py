"""Median stopping (Golovin et al., "Google Vizier", KDD 2017, section 3.2)."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from statistics import median

from hpo.observations import Observation, Report, Reported, Status, Trial, TrialLog
from hpo.schedulers.base import Schedule, Scheduler, Setup, StoppingRule
from hpo.schedulers.ladder import check_count


@dataclass(frozen=True, slots=True)
class MedianStopping(Scheduler):
    """Stops a run whose best loss so far is worse than the median run's average up to that step.

    Looks at the steps of reports only, so it needs neither a fidelity nor checkpoints.

    Args:
        after: no run stops before this step.
        among: nor while fewer than this many others have come to the step.
    """

    after: int = 1
    among: int = 4

    def __post_init__(self) -> None:
        check_count("after", self.after, 0)
        check_count("among", self.among)

    def schedule(self, setup: Setup) -> Schedule:
        """See `Scheduler`."""
        return _Medians(self.after, self.among).schedule(setup)


class _Medians(StoppingRule):
    """What each trial reported, kept up with one log as sums from its first report on."""

    def __init__(self, after: int, among: int) -> None:
        self._after, self._among = after, among
        self._seen = 0
        self._curves: dict[int, _Curve] = {}

    def stops(self, trial: Trial, report: Report, log: TrialLog, sign: float) -> bool:
        self._sync(log, sign)
        own = self._curves.get(trial.number)
        if report.step < self._after or own is None:
            return False
        others = (curve for number, curve in self._curves.items() if number != trial.number)
        averages = [a for curve in others if (a := curve.average(report.step)) is not None]
        return len(averages) >= self._among and own.best > median(averages)

    def _sync(self, log: TrialLog, sign: float) -> None:
        events = log.events(self._seen)
        self._seen += len(events)
        for event in events:
            if isinstance(event, Reported):
                loss = event.report.loss
                if loss is not None and math.isfinite(loss):
                    curve = self._curves.setdefault(event.number, _Curve([], [], math.inf))
                    curve.add(event.report.step, sign * loss)
            elif isinstance(event, Observation) and event.status is Status.FAILED:
                # A lost attempt is taken up by another trial, and no run is judged by failed ones.
                self._curves.pop(event.number, None)


@dataclass(slots=True)
class _Curve:
    """`sums[i]`: of the losses up to `steps[i]`."""

    steps: list[int]
    sums: list[float]
    best: float

    def add(self, step: int, loss: float) -> None:
        self.steps.append(step)
        self.sums.append(loss + (self.sums[-1] if self.sums else 0.0))
        self.best = min(self.best, loss)

    def average(self, step: int) -> float | None:
        """Mean of the losses up to `step`; None if there is none or the run is not there yet."""
        count = bisect_right(self.steps, step)
        return self.sums[count - 1] / count if count and self.steps[-1] >= step else None
