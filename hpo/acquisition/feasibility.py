"""Log probabilities that a run succeeds and that it stays within a cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from surrogates.data import Array


class FeasibilityModel(Protocol):
    """Fitted model of success, such as :class:`surrogates.feasibility.FeasibilityPredictor`."""

    def log_probability(self, X: Array) -> Array:
        """Return `ln P(success)` at the rows of `X`, `(m,)`."""
        ...

    def log_probability_gradient(self, X: Array) -> tuple[Array, Array]:
        """Return `log_probability` and its derivatives, m x d."""
        ...


class CostCapModel(Protocol):
    """Fitted model of ln cost, such as :class:`surrogates.cost.CostPredictor`."""

    def log_probability_below(self, X: Array, log_cap: float, widening: float = 1.0) -> Array:
        """Return `ln P(ln cost <= log_cap)` at the rows of `X`, `(m,)`."""
        ...

    def log_probability_below_gradient(
        self, X: Array, log_cap: float, widening: float = 1.0
    ) -> tuple[Array, Array]:
        """Return `log_probability_below` and its derivatives, m x d."""
        ...


@dataclass(frozen=True, slots=True)
class ProbabilityOfSuccess:
    """Term `ln P(the run does not fail)`.

    Attributes:
        model: Fitted model of success.

    Example:
        >>> import numpy as np
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.feasibility import FeasibilityModel
        >>> X, survived = np.array([[0.0], [0.2], [0.8], [1.0]]), np.array([1.0, 1.0, 0.0, 0.0])
        >>> data = TrainingData(X, survived, Columns.of_decisions("lr"))
        >>> low, high = ProbabilityOfSuccess(FeasibilityModel().fit(data)).value(X[[0, 3]])
        >>> bool(low > high)
        True
    """

    model: FeasibilityModel

    def value(self, X: Array) -> Array:
        """Return the log probabilities, `(m,)`."""
        return self.model.log_probability(X)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return the log probabilities and their derivatives, m x d."""
        return self.model.log_probability_gradient(X)


@dataclass(frozen=True, slots=True)
class CostBelow:
    """Term `ln P(cost <= cap)`: it carries the uncertainty of the cost model, unlike a hard mask.

    Attributes:
        model: Fitted model of ln cost.
        log_cap: Logarithm of the cap.
        widening: Factor on the model's standard deviation, at least 1 where its past errors were
            larger than it expected.

    Example:
        >>> import numpy as np
        >>> from surrogates.cost import CostModel
        >>> from surrogates.data import Columns, TrainingData
        >>> X = np.linspace(0.0, 1.0, 9)[:, None]
        >>> cost = CostModel().fit(TrainingData(X, 3.0 * X[:, 0], Columns.of_decisions("depth")))
        >>> np.exp(CostBelow(cost, log_cap=1.5).value(np.array([[0.1], [0.9]]))).round(2).tolist()
        [1.0, 0.0]
    """

    model: CostCapModel
    log_cap: float
    widening: float = 1.0

    def value(self, X: Array) -> Array:
        """Return the log probabilities, `(m,)`."""
        return self.model.log_probability_below(X, self.log_cap, self.widening)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return the log probabilities and their derivatives, m x d."""
        return self.model.log_probability_below_gradient(X, self.log_cap, self.widening)
