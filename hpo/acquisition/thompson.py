"""How far one draw of the loss lies below what is to be beaten, for surrogates made of trees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hpo.acquisition.improvement import Threshold
from surrogates.data import Array
from surrogates.quantile_forest import SampledQuantiles, at_level


@dataclass(frozen=True, slots=True)
class SharedLevel:
    """``ln softplus((F(x) - q_u(x)) / s)``: a draw of the loss, at one level u for all rows.

    It falls with the draw alone, so by itself it is Thompson sampling. Far below F it is the log of
    the improvement and adds up with log probabilities; far above, a straight line, so that rows
    which improve nothing are still told apart.

    Args:
        model: whose quantiles are drawn.
        level: u in (0, 1), drawn once a suggestion.
        threshold: F, in one world.
        scale: s > 0, in units of the loss.
    """

    model: SampledQuantiles
    level: float
    threshold: Threshold
    scale: float

    def value(self, X: Array) -> Array:
        draw = at_level(self.model, X, self.level)
        gain = (self.threshold.levels(X)[:, 0] - draw) / self.scale
        # ln ln(1 + e^g) tends to g below -30, where ln(1 + e^g) would lose its digits
        soft = np.logaddexp(0.0, np.maximum(gain, -30.0))
        return np.asarray(np.where(gain > -30.0, np.log(soft), gain))

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Trees are flat between their splits."""
        return self.value(X), np.zeros(X.shape)
