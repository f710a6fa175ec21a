"""Improvement of one posterior sample of the loss, for surrogates made of trees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpo.acquisition.improvement import Threshold
from surrogates.data import Array
from surrogates.quantile_forest import SampledQuantiles, at_level


@dataclass(frozen=True, slots=True)
class SharedLevel:
    """Term `ln softplus((F(x) - q_u(x)) / s)`: a sample at one quantile level u for all rows.

    It falls with the sample alone, so by itself it is Thompson sampling. Far below F it is the log
    of the improvement and adds up with log probabilities. Far above F it is a straight line, so
    that rows without an improvement are still ranked.

    Attributes:
        model: Quantiles of the loss, `q`.
        level: Quantile level u in (0, 1), drawn once per suggestion.
        threshold: Loss to beat, F, without fantasies (S = 1).
        scale: Unit s > 0 of the improvement, as a difference of losses.

    Example:
        >>> from hpo.acquisition import Staircase
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.quantile_forest import QuantileForest
        >>> X = np.repeat([[0.0], [1.0]], 30, axis=0)
        >>> data = TrainingData(X, X[:, 0], Columns.of_decisions("x"))
        >>> forest = QuantileForest(trees=5).fit(data)
        >>> best = Staircase.build(np.zeros(1), np.zeros((1, 1)), 0.0, None)
        >>> good, bad = SharedLevel(forest, 0.5, best, scale=1.0).value(X[[0, -1]])
        >>> bool(good > bad)
        True
    """

    model: SampledQuantiles
    level: float
    threshold: Threshold
    scale: float

    def value(self, X: Array) -> Array:
        """Return the log of the softened improvement, `(m,)`."""
        draw = at_level(self.model, X, self.level)
        gain = (self.threshold.levels(X)[:, 0] - draw) / self.scale
        # ln ln(1 + e^g) tends to g below -30, where ln(1 + e^g) would lose its digits
        soft = np.logaddexp(0.0, np.maximum(gain, -30.0))
        return np.asarray(np.where(gain > -30.0, np.log(soft), gain))

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return `value` and zeros: trees are flat between their splits."""
        return self.value(X), np.zeros(X.shape)
