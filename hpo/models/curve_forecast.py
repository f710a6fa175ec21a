"""What learning curves alone say of runs on their way, where whole runs are what the search models.

In a space with scale axes losses of different sizes are no standard for each other, so a run is
held against those that cost no more: what matters is whether its end enters the front of loss
against cost.
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
    """Ends foreseen from each run's own curve; a :class:`~hpo.schedulers.Forecast`.

    The space must have a fidelity. Derive from it and override :meth:`ends` to foresee them in
    another way.
    """

    def __init__(self, encoder: Encoder) -> None:
        self.encoder = encoder
        self._ladder = Ladder.over(encoder.space, _ETA, "CurveForecast")
        self._runs = RunIndex(self._ladder, encoder.loss_sign, encoder.space.fidelity)

    @single_threaded
    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """Probability that each run ends below the front at its own cost, ``(m,)``.

        The front at a cost is the least loss of the runs that ended for no more or, where none has,
        the least median end of those under way. A run's cost at its end is foreseen in proportion
        to its levels; where no costs were told, or in a space without scale axes, all runs are of
        one cost.
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
        going = list(zip(prices, medians, strict=True))
        promise = np.empty(len(asked))
        for i, (end, price) in enumerate(zip(ends, prices, strict=True)):
            front = _front(ended, price)
            front = _front(going, price) if front is None else front
            assert front is not None  # the run itself is among those under way
            promise[i] = end.probability_below(front)[0]
        return promise

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
        """Beliefs about the losses, signed, with which the runs `asked` end.

        Args:
            runs, curves: all of them, and what each has reported, perhaps nothing.
            asked: positions in `runs`.
        """
        model = CurveModel(self.low, self.high).fit(curves)
        return [model.predict(curves[i], self.high) for i in asked]

    def _price(self, run: Run, log: TrialLog) -> float:
        """Cost of `run` at its end; 0 if none was told or none counts."""
        carried = log.carried(run.number)
        if not self.encoder.space.scales or carried is None:
            return 0.0
        if not carried.cost or not run.reached:
            return 0.0
        return carried.cost * self.high / run.reached


def _curve(run: Run) -> Curve:
    said = {**run.losses, **run.curve}
    levels = sorted(said)
    return Curve(np.array(levels, dtype=np.float64), np.array([said[level] for level in levels]))


def _front(points: Sequence[tuple[float, float]], price: float) -> float | None:
    """Least loss at no more than `price`, give or take a percent."""
    within = [loss for cost, loss in points if cost <= 1.01 * price]
    return min(within) if within else None
