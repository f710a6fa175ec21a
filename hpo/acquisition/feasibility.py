"""Log probabilities that a run succeeds, and that it stays within a cost or another limit."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import log_ndtr

from surrogates.base import Predictor
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


@dataclass(frozen=True, slots=True)
class Below:
    """Term `ln P(f <= limit)` of a latent value.

    Attributes:
        model: Fitted model of the value.
        limit: Largest value that is allowed.

    Example:
        >>> import numpy as np
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.gp import GaussianProcess
        >>> X = np.linspace(0.0, 1.0, 9)[:, None]
        >>> model = GaussianProcess().fit(TrainingData(X, 3.0 * X[:, 0], Columns.of_decisions("x")))
        >>> np.exp(Below(model, limit=1.5).value(np.array([[0.1], [0.9]]))).round(2).tolist()
        [1.0, 0.0]
    """

    model: Predictor
    limit: float

    def value(self, X: Array) -> Array:
        """Return the log probabilities, `(m,)`."""
        p = self.model.posterior(X)
        return np.asarray(log_ndtr((self.limit - p.mean) / np.sqrt(p.variance)))

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return the log probabilities and their derivatives, m x d."""
        p = self.model.posterior_gradient(X)
        sd = np.sqrt(p.variance)
        z = (self.limit - p.mean) / sd
        value = log_ndtr(z)
        ratio = np.exp(-0.5 * z**2 - value) / np.sqrt(2.0 * np.pi)  # phi(z) / Phi(z)
        d_z = -p.d_mean / sd[:, None] - (0.5 * z / p.variance)[:, None] * p.d_variance
        return np.asarray(value), ratio[:, None] * d_z
