"""Log probabilities that a run succeeds and stays within a cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from surrogates.data import Array


class SuccessBelief(Protocol):
    """A fitted success model, e.g. :class:`surrogates.success.FeasibilityPredictor`."""

    def log_probability(self, X: Array) -> Array: ...

    def log_probability_gradient(self, X: Array) -> tuple[Array, Array]: ...


class CostBelief(Protocol):
    """A fitted cost model, e.g. :class:`surrogates.cost.CostPredictor`."""

    def log_probability_below(self, X: Array, log_cap: float, widening: float = 1.0) -> Array: ...

    def log_probability_below_gradient(
        self, X: Array, log_cap: float, widening: float = 1.0
    ) -> tuple[Array, Array]: ...


@dataclass(frozen=True, slots=True)
class ProbabilityOfSuccess:
    """``ln P(the run does not fail)``."""

    model: SuccessBelief

    def value(self, X: Array) -> Array:
        return self.model.log_probability(X)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        return self.model.log_probability_gradient(X)


@dataclass(frozen=True, slots=True)
class CostBelow:
    """``ln P(cost <= cap)`` with the uncertainty of the cost model, not a hard mask.

    Args:
        widening: factor on that uncertainty, as the model's past errors ask for.
    """

    model: CostBelief
    log_cap: float
    widening: float = 1.0

    def value(self, X: Array) -> Array:
        return self.model.log_probability_below(X, self.log_cap, self.widening)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        return self.model.log_probability_below_gradient(X, self.log_cap, self.widening)
