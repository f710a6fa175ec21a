"""What a run teaches about the best config at the target, per unit of its cost.

Near its optimum the loss at the target is a bowl of Hessian ``H`` about ``z*``, so a config chosen
at the mean of our belief about ``z*``, of covariance ``S``, is expected to lose ``tr(H S) / 2``:
the regret at the target. A run at x shrinks S by ``c c^T / (v + e)``, where c is its covariance
with ``z*``, v the variance of the latent loss there and e of its error, whatever the loss turns out
to be. Its gain is therefore known beforehand::

    gain(x) = c^T H c / (2 (v + e))

an L-optimal design (Atkinson, Donev & Tobias 2007, section 10.5) bought greedily by gain per cost.
A bowl that were exact would be learned best from its steep sides. It is not: errors far from the
optimum are shared by neighbors, so a design is made with a distrust of the bowl that rises faster
with the distance than the fit's own.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surrogates.cost import CostPredictor
from surrogates.data import Array
from surrogates.scaling_law.model import ScalingPredictor

_STEP = 1e-5  # of the central difference, in box widths
_INADEQUACY = 0.5  # c of the value model's errors, at least; see surrogates/scaling_law/model.py
_NOTHING = 1e-300  # a gain that is no gain; its logarithm is finite


@dataclass(frozen=True, slots=True)
class TargetGain:
    """``ln gain(x) - ln cost(x)``; a :class:`~hpo.acquisition.Term`.

    Args:
        model: value model, pending runs among its rows.
        scales: ``(axes,)``, natural coordinates of the target.
        cost: model of ln cost; None counts every run alike.
    """

    model: ScalingPredictor
    scales: Array
    cost: CostPredictor | None

    @property
    def regret(self) -> float:
        """``tr(H S) / 2``: what answering now is expected to lose at the target."""
        columns = self.model.loss.layout.decisions
        width = self.model.columns.width[columns]
        spread = self.model.optimum(self.scales).covariance / np.outer(width, width)
        return 0.5 * float(np.sum(self._curvature * spread))

    @property
    def _curvature(self) -> Array:
        return np.asarray(self.model.loss.curvature_at(self.scales))

    def value(self, X: Array) -> Array:
        c = self.model.optimum_covariance(X, self.scales)
        latent, error = self.model.posterior(X), self.model.error_variance(X, _INADEQUACY)
        gain = 0.5 * np.einsum("mj,jk,mk->m", c, self._curvature, c) / (latent.variance + error)
        price = 0.0 if self.cost is None else self.cost.posterior(X).mean
        return np.asarray(np.log(np.maximum(gain, _NOTHING)) - price)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """By central differences, all columns in two calls."""
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
