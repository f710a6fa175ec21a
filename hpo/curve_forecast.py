"""What learning curves alone say of runs on their way, where whole runs are what the search models.

In a space with scale axes losses of different sizes are no standard for each other, so a run is
held against those that cost no more: what matters is whether its end enters the front of loss
against cost.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hpo.encoding import Encoder
from hpo.observations import TrialLog
from hpo.schedulers.levels import Ladder
from hpo.schedulers.runs import Run, Runs
from surrogates.curves import Curve, CurveModel
from surrogates.data import Array
from surrogates.numerics import single_threaded

_ETA = 3  # of the levels whose losses count beside those reported


class CurveForecast:
    """Ends foreseen from each run's own curve; a :class:`~hpo.schedulers.Forecast`.

    The space must have a fidelity.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._ladder = Ladder.over(encoder.space, _ETA, "CurveForecast")
        self._runs = Runs(self._ladder, encoder.loss_sign, encoder.space.fidelity)

    @single_threaded
    def promise(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """Probability that each run ends below the front at its own cost, ``(m,)``.

        The front at a cost is the least loss of the runs that ended for no more or, where none has,
        the least median end of those under way. A run's cost at its end is foreseen in proportion
        to its levels; where no costs were told all runs are of one cost.
        """
        for _ in self._runs.sync(log):
            pass
        curves = {run.root: _curve(run) for run in self._runs if run.curve or run.losses}
        low, high = self._ladder.low, self._ladder.high
        if not curves or low == high:
            return np.full(len(numbers), 0.5)
        model = CurveModel(low, high).fit(list(curves.values()))
        ended = [(self._price(r, log), r.losses[high]) for r in self._runs if high in r.losses]
        asked = [self._runs[number] for number in numbers]
        nothing = Curve(np.zeros(0), np.zeros(0))
        ends = [model.predict(curves.get(run.root, nothing), high) for run in asked]
        prices = [self._price(run, log) for run in asked]
        medians = [float(end.quantile(0.5)[0]) for end in ends]
        going = list(zip(prices, medians, strict=True))
        promise = np.empty(len(asked))
        for i, (end, price) in enumerate(zip(ends, prices, strict=True)):
            front = _front(ended, price)
            front = _front(going, price) if front is None else front
            assert front is not None  # the run itself is among those under way
            promise[i] = end.probability_below(front)[0]
        return promise

    def _price(self, run: Run, log: TrialLog) -> float:
        """Cost of `run` at its end; 0 if none was told."""
        carried = log.carried(run.number)
        if carried is None or not carried.cost or not run.reached:
            return 0.0
        return carried.cost * self._ladder.high / run.reached


def _curve(run: Run) -> Curve:
    said = {**run.losses, **run.curve}
    levels = sorted(said)
    return Curve(np.array(levels, dtype=np.float64), np.array([said[level] for level in levels]))


def _front(points: Sequence[tuple[float, float]], price: float) -> float | None:
    """Least loss at no more than `price`, give or take a percent."""
    within = [loss for cost, loss in points if cost <= 1.01 * price]
    return min(within) if within else None
