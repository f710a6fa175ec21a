"""Forecast of partial runs from their learning curves alone, in spaces with scale axes.

There the search models whole runs only. Losses of different sizes cannot be compared with each
other, so a run is compared with those that cost no more: what matters is whether its end enters the
front of loss against cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpo.schedulers.ladder import Ladder
from hpo.schedulers.run_history import Run, RunIndex
from hpo.space.encoding import Encoder
from hpo.trials import TrialLog
from surrogates.data import Array
from surrogates.learning_curves import Curve, CurveModel, EndDistribution
from surrogates.numerics import single_threaded

_ETA = 3  # of the levels whose losses count beside those reported


class CurveForecast:
    """Forecast of each run's final loss from its own curve; a :class:`~hpo.schedulers.Forecast`.

    Override `ends` in a subclass to forecast with another model of learning curves.

    Args:
        encoder: Encoder of the space, which must have a fidelity.

    Example:
        >>> from hpo.space import Fidelity, SearchSpace
        >>> forecast = CurveForecast(Encoder(SearchSpace({"epochs": Fidelity(1, 27)})))
        >>> forecast.low, forecast.high
        (1, 27)
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._ladder = Ladder.over(encoder.space, _ETA, "CurveForecast")
        self._runs = RunIndex(self._ladder, encoder.loss_sign, encoder.space.fidelity)

    @single_threaded
    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """Return the probability that each run ends below the front at its own cost, `(m,)`.

        The front at a cost is the smallest final loss of the runs that cost at most as much. Where
        none has ended, it is the smallest median forecast of the partial runs. The final cost of a
        run is extrapolated in proportion to its levels. Where no costs were told, or in a space
        without scale axes, all runs have the same cost.

        Args:
            log: Log to read.
            numbers: Numbers of trials that a scheduler placed.
        """
        self._runs.sync(log)
        runs = list(self._runs)
        if not any(run.curve or run.losses for run in runs) or self.low == self.high:
            return np.full(len(numbers), 0.5)
        high = self.high
        ended = [(self._price(run, log), run.losses[high]) for run in runs if high in run.losses]
        places = {run.first_trial: place for place, run in enumerate(runs)}
        asked = [self._runs[number] for number in numbers]
        curves = [_curve(run) for run in runs]
        ends = self.ends(runs, curves, [places[run.first_trial] for run in asked])
        prices = [self._price(run, log) for run in asked]
        medians = [float(end.quantile(0.5)[0]) for end in ends]
        partial = list(zip(prices, medians, strict=True))
        probability = np.empty(len(asked))
        for i, (end, price) in enumerate(zip(ends, prices, strict=True)):
            front = _front(ended, price)
            front = _front(partial, price) if front is None else front
            assert front is not None  # the run itself is among the partial ones
            probability[i] = end.probability_below(front)[0]
        return probability

    @property
    def low(self) -> int:
        """First level of a run."""
        return self._ladder.low

    @property
    def high(self) -> int:
        """Level of a run at its end."""
        return self._ladder.high

    def ends(
        self, runs: Sequence[Run], curves: Sequence[Curve], asked: Sequence[int]
    ) -> Sequence[EndDistribution]:
        """Return the distributions of the final losses of some runs, smaller is better.

        Args:
            runs: Every run of the log.
            curves: Losses that each of them has reported, perhaps none.
            asked: Positions in `runs` of those to forecast.
        """
        model = CurveModel(self.low, self.high).fit(curves)
        return [model.predict(curves[i], self.high) for i in asked]

    def _price(self, run: Run, log: TrialLog) -> float:
        """Return the cost of `run` at its end; 0 if none was told or none counts."""
        carried = log.carried(run.number)
        if not self.encoder.space.scales or carried is None:
            return 0.0
        if not carried.cost or not run.reached:
            return 0.0
        return carried.cost * self.high / run.reached


def _curve(run: Run) -> Curve:
    losses = {**run.losses, **run.curve}
    levels = sorted(losses)
    return Curve(np.array(levels, dtype=np.float64), np.array([losses[level] for level in levels]))


def _front(points: Sequence[tuple[float, float]], price: float) -> float | None:
    """Return the smallest loss at a cost up to `price`, give or take a percent, or None."""
    within = [loss for cost, loss in points if cost <= 1.01 * price]
    return min(within) if within else None
