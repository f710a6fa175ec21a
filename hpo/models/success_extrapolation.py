"""Will a run survive at a scale nobody ran? The survival model of the search, made to extrapolate.

The search asks about runs like those it has seen; there a parabola in every column
(:mod:`surrogates.feasibility`) is a good answer. Beyond the runs it turns back, and weights shrunk
towards zero let the edge of failure stay behind when the optimum moves. So here

* settings are measured from the fitted optimum at their scale, so that before any failure says
  otherwise the edge keeps its distance from the optimum;
* the log-odds are straight in ln scale, which lets that distance grow or shrink evenly;
* the uncertainty of the drift moves the edge with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpo.models.fitted import Models
from surrogates.data import Array, TrainingData
from surrogates.feasibility import FeasibilityModel, FeasibilityPredictor
from surrogates.scaling_law.linearized import align
from surrogates.scaling_law.model import ScalingPredictor

_MIDDLE = 0.5  # where an optimum stands in aligned rows: the success model is centerd there
_STRAIGHT = FeasibilityModel(scale_square_sd=1e-6)  # weights are in these units, so not quite zero


@dataclass(frozen=True, slots=True)
class SuccessExtrapolation:
    """P(success), also far beyond the runs."""

    predictor: FeasibilityPredictor
    law: ScalingPredictor | None

    @classmethod
    def of(cls, models: Models) -> SuccessExtrapolation | None:
        """None while nothing has failed."""
        X, survived = models.survived
        if np.all(survived == 1.0):
            return None
        scaled = len(models.encoder.columns.scale) and len(models.runs)
        law = models.scaling()[0] if scaled else None
        data = TrainingData(_aligned(law, X), survived, models.encoder.columns)
        return cls(_STRAIGHT.fit(data), law)

    def probability(self, X: Array) -> Array:
        """P(success) at the m rows of ``X``, ``(m,)``."""
        return self.predictor.probability(_aligned(self.law, X))

    def sample(self, X: Array, count: int, rng: np.random.Generator) -> Array:
        """``count`` draws of the curve of P(success) over the rows of ``X``, count x m.

        Args:
            X: m x d, one config along one numeric column, at evenly spaced and rising values.
        """
        draws = self.predictor.sample(_aligned(self.law, X), count, rng)
        column = int(np.argmax(np.ptp(X, axis=0)))
        sd = 0.0 if self.law is None else _drift_sd(self.law, X[:1], column)
        if sd == 0.0:
            return draws
        x = X[:, column]
        moved = x - sd * rng.standard_normal((count, 1))
        return np.stack([np.interp(at, x, p) for at, p in zip(moved, draws, strict=True)])


def _aligned(law: ScalingPredictor | None, X: Array) -> Array:
    """``X`` with every setting measured from its optimum at that scale."""
    if law is None:
        return X
    aligned = align(law.loss, X)
    aligned[:, law.loss.layout.decisions] += _MIDDLE
    return aligned


def _drift_sd(law: ScalingPredictor, row: Array, column: int) -> float:
    """Standard deviation of how far the optimum of a column has drifted at a row, in x."""
    layout = law.loss.layout
    place = np.flatnonzero(layout.decisions == column)
    if not len(place):
        return 0.0
    step = layout.scales(row)[0] - law.loss.reference
    start = layout.drift.start + int(place[0]) * len(step)
    _, covariance = law.coefficients()
    block = covariance[start : start + len(step), start : start + len(step)]
    return float(np.sqrt(step @ block @ step))
