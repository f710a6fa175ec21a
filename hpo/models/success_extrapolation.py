"""Probability of success extrapolated beyond the observed scales.

Within the range of the runs, where the search asks, a parabola in every column
(:mod:`surrogates.feasibility`) fits well. Beyond them it turns back, and weights shrunk towards
zero leave the boundary of failure behind when the optimum drifts. So here

* settings are measured from the fitted optimum at their scale, so that the boundary keeps its
  distance from the optimum unless failures show otherwise;
* the log-odds are linear in ln scale, which lets that distance grow or shrink evenly;
* the uncertainty of the drift moves the boundary with it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpo.models.fitted import Models
from surrogates.data import Array, TrainingData
from surrogates.feasibility import FeasibilityModel, FeasibilityPredictor
from surrogates.scaling_law.linearized import align
from surrogates.scaling_law.model import ScalingPredictor

_MIDDLE = 0.5  # entry of an optimum in aligned rows: the success model is centered there
_LINEAR = FeasibilityModel(scale_square_sd=1e-6)  # weights are in these units, so not quite zero


@dataclass(frozen=True, slots=True)
class SuccessExtrapolation:
    """Probability of success, also far beyond the runs.

    Attributes:
        predictor: Model of success on aligned rows.
        law: Scaling model whose optimum the rows are aligned to; None without scale axes.

    Example:
        >>> from hpo.space import Float, SearchSpace
        >>> from hpo.space.encoding import Encoder
        >>> from hpo.trials import Observation, Status, TrialLog, Cause
        >>> log, models = TrialLog(), Models(Encoder(SearchSpace({"lr": Float(0.0, 1.0)})))
        >>> for i, lr in enumerate([0.1, 0.3, 0.9, 1.0]):
        ...     failed = (None, Status.FAILED, Cause.DIVERGED)
        ...     loss, status, cause = (0.5, Status.COMPLETED, None) if lr < 0.5 else failed
        ...     _ = log.tell(Observation(i, {"lr": lr}, loss, None, status, cause, i, None))
        >>> models.sync(log)
        >>> low, high = SuccessExtrapolation.of(models).probability(np.array([[0.2], [0.95]]))
        >>> bool(low > high)
        True
    """

    predictor: FeasibilityPredictor
    law: ScalingPredictor | None

    @classmethod
    def of(cls, models: Models) -> SuccessExtrapolation | None:
        """Return the model fitted to all runs; None while nothing has failed.

        Args:
            models: Models of the log.
        """
        X, success = models.outcomes
        if np.all(success == 1.0):
            return None
        scaled = len(models.encoder.columns.scale) and len(models.runs)
        law = models.scaling()[0] if scaled else None
        data = TrainingData(_aligned(law, X), success, models.encoder.columns)
        return cls(_LINEAR.fit(data), law)

    def probability(self, X: Array) -> Array:
        """Return the probability of success at the m rows of `X`, `(m,)`."""
        return self.predictor.probability(_aligned(self.law, X))

    def sample(self, X: Array, count: int, rng: np.random.Generator) -> Array:
        """Return posterior samples of the probability of success along one column, count x m.

        Args:
            X: m x d, one config along one numeric column, at evenly spaced and rising values.
            count: Number of samples.
            rng: Source of the samples.
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
    """Return `X` with every setting measured from its optimum at that scale."""
    if law is None:
        return X
    aligned = align(law.loss, X)
    aligned[:, law.loss.layout.decisions] += _MIDDLE
    return aligned


def _drift_sd(law: ScalingPredictor, row: Array, column: int) -> float:
    """Return the standard deviation of the drift of a column's optimum at a row, in x."""
    layout = law.loss.layout
    place = np.flatnonzero(layout.decisions == column)
    if not len(place):
        return 0.0
    step = layout.scales(row)[0] - law.loss.reference
    start = layout.drift.start + int(place[0]) * len(step)
    _, covariance = law.coefficients()
    block = covariance[start : start + len(step), start : start + len(step)]
    return float(np.sqrt(step @ block @ step))
