"""Information of a run about the best config at the target, per unit of its cost.

Near its optimum the loss at the target is a bowl of Hessian `H` about `z*`, so a config chosen at
the posterior mean of `z*`, of covariance `S`, is expected to lose `tr(H S) / 2`: the regret at the
target. A run at x shrinks S by `c c^T / (v + e)`, where c is its covariance with `z*`, v the
variance of the latent loss there and e of its error, whatever the loss turns out to be. Its gain is
therefore known beforehand::

    gain(x) = c^T H c / (2 (v + e))

This is an L-optimal design (Atkinson, Donev & Tobias 2007, section 10.5), chosen greedily by gain
per cost. An exact bowl would be learned best from its steep sides. The bowl is not exact: errors
far from the optimum are shared by neighbors, so a design assumes a model discrepancy variance that
rises faster with the distance from the optimum than the fitted one.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surrogates.cost import CostPredictor
from surrogates.data import Array
from surrogates.scaling_law.model import ScalingPredictor

_STEP = 1e-5  # of the central difference, in box widths
_DISCREPANCY = 0.5  # least c of the scaling model's errors; see surrogates/scaling_law/model.py
_NOTHING = 1e-300  # a gain that is no gain; its logarithm is finite


@dataclass(frozen=True, slots=True)
class TargetGain:
    """Term `ln gain(x) - ln cost(x)`.

    Attributes:
        model: Scaling model of the loss, pending runs among its rows.
        scales: `(axes,)`, natural coordinates of the target.
        cost: Model of ln cost; None gives every run the same cost.

    Example:
        >>> from surrogates.data import ColumnKind, Columns, TrainingData
        >>> from surrogates.scaling_law.model import ScalingModel
        >>> columns = Columns(
        ...     (ColumnKind.DECISION, ColumnKind.SCALE), ("lr", "params"),
        ...     np.log([1e-4, 1e6]), np.log([1e3, 1e2]), (0, 0),
        ... )
        >>> X = np.random.default_rng(0).random((12, 2))
        >>> y = 2.0 + np.exp(-X[:, 1]) + (X[:, 0] - 0.7 + 0.4 * X[:, 1]) ** 2
        >>> model = ScalingModel().fit(TrainingData(X, y, columns))
        >>> gain = TargetGain(model, scales=np.log([1e9]), cost=None)
        >>> small, large = gain.value(np.array([[0.5, 0.0], [0.3, 1.0]]))
        >>> bool(large > small)
        True
    """

    model: ScalingPredictor
    scales: Array
    cost: CostPredictor | None

    @property
    def regret(self) -> float:
        """Return `tr(H S) / 2`, the expected regret at the target without further runs."""
        columns = self.model.loss.layout.decisions
        width = self.model.columns.width[columns]
        spread = self.model.optimum(self.scales).covariance / np.outer(width, width)
        return 0.5 * float(np.sum(self._curvature * spread))

    @property
    def _curvature(self) -> Array:
        return np.asarray(self.model.loss.curvature_at(self.scales))

    def value(self, X: Array) -> Array:
        """Return the log gain per cost, `(m,)`."""
        c = self.model.optimum_covariance(X, self.scales)
        latent, error = self.model.posterior(X), self.model.error_variance(X, _DISCREPANCY)
        gain = 0.5 * np.einsum("mj,jk,mk->m", c, self._curvature, c) / (latent.variance + error)
        price = 0.0 if self.cost is None else self.cost.posterior(X).mean
        return np.asarray(np.log(np.maximum(gain, _NOTHING)) - price)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return `value` and its derivatives by central differences, m x d.

        All rows of all columns are evaluated in one call.
        """
        numeric = self.model.columns.numeric
        m, d = X.shape
        shifts = np.zeros((len(numeric), 1, d))
        shifts[np.arange(len(numeric)), 0, numeric] = _STEP
        ends = np.concatenate([(X + shifts).reshape(-1, d), (X - shifts).reshape(-1, d), X])
        values = self.value(ends)
        above, below = values[: len(numeric) * m], values[len(numeric) * m : -m]
        slope = np.zeros((m, d))
        slope[:, numeric] = ((above - below) / (2.0 * _STEP)).reshape(len(numeric), m).T
        return values[-m:], slope
