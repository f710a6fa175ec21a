"""Protocols that every surrogate and every predictor follow, and the posteriors they return.

A *surrogate* is fitted once, in a pure step, and returns an immutable *predictor*; search code sees
only the predictor. Marginal and joint posteriors are two methods, never one method whose return
changes meaning.

Interval widths are not part of this contract: a posterior describes the noise-free value, and how
much it must be widened is learned from data (`surrogates.conformal`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import numpy as np
from scipy import linalg

from surrogates.data import Array, TrainingData

Fitted = TypeVar("Fitted", covariant=True)


@dataclass(frozen=True, slots=True)
class Posterior:
    """Marginal posterior of noise-free values at m rows.

    Args:
        mean: `(m,)`, posterior means.
        variance: `(m,)`, posterior variances, >= 0.

    Example:
        >>> import numpy as np
        >>> posterior = Posterior(np.array([1.0]), np.array([0.25]))
        >>> np.sqrt(posterior.variance).tolist()
        [0.5]
    """

    mean: Array
    variance: Array


@dataclass(frozen=True, slots=True)
class PosteriorGradient:
    """Marginal posterior at m rows with its derivatives in the columns of the rows.

    Args:
        mean: `(m,)`, posterior means.
        variance: `(m,)`, posterior variances.
        d_mean: `m x d`, derivatives of the mean, zero in categorical columns.
        d_variance: `m x d`, derivatives of the variance, zero in categorical columns.

    Example:
        >>> import numpy as np
        >>> d_mean = np.array([[2.0, 0.0]])
        >>> slope = PosteriorGradient(np.zeros(1), np.ones(1), d_mean, np.zeros((1, 2)))
        >>> slope.d_mean.tolist()
        [[2.0, 0.0]]
    """

    mean: Array
    variance: Array
    d_mean: Array
    d_variance: Array


@dataclass(frozen=True, slots=True)
class JointPosterior:
    """Joint posterior of noise-free values at m rows.

    Args:
        mean: `(m,)`, posterior means.
        covariance: `m x m`, posterior covariance.

    Example:
        >>> import numpy as np
        >>> joint = JointPosterior(np.zeros(2), np.ones((2, 2)))
        >>> draws = joint.sample(3, np.random.default_rng(0))
        >>> draws.shape
        (3, 2)
        >>> bool(np.allclose(draws[:, 0], draws[:, 1]))
        True
    """

    mean: Array
    covariance: Array

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Draw functions from the posterior, evaluated at the m rows.

        The root of the covariance is an eigendecomposition with negative eigenvalues set to zero:
        the covariance of close rows is singular to working precision, and a Cholesky factor of it
        may not exist.

        Args:
            count: number of draws.
            rng: source of randomness.

        Returns:
            Draws, `count x m`.
        """
        values, vectors = linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws = rng.standard_normal((count, len(self.mean))) @ root.T
        return np.asarray(self.mean + draws, dtype=np.float64)


class Predictor(Protocol):
    """A fitted model of one quantity.

    Example:
        >>> def widest_row(predictor: Predictor, X: Array) -> int:
        ...     return int(np.argmax(predictor.posterior(X).variance))
    """

    @property
    def noise_variance(self) -> float:
        """Variance of a single new run around the noise-free value."""
        ...

    def posterior(self, X: Array) -> Posterior:
        """Return the marginal posterior at the m rows of `X`, `m x d`."""
        ...

    def posterior_gradient(self, X: Array) -> PosteriorGradient:
        """Return `posterior` at the rows of `X` with its derivatives in the numeric columns."""
        ...

    def joint_posterior(self, X: Array) -> JointPosterior:
        """Return the joint posterior at the m rows of `X`, `m x d`."""
        ...

    def condition(self, X: Array, y: Array) -> Self:
        """Return the predictor given further rows, hyperparameters unchanged.

        Args:
            X: `k x d`, new rows.
            y: `(k,)`, their targets.
        """
        ...


class Surrogate(Protocol[Fitted]):
    """A model whose hyperparameters are one vector `theta`.

    Learning is separate from conditioning, so that hyperparameters learned once serve many data
    sets.

    Example:
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.gp import GaussianProcess
        >>> surrogate: Surrogate = GaussianProcess()
        >>> X = np.array([[0.0], [0.5], [1.0]])
        >>> data = TrainingData(X, np.array([1.0, -2.0, 1.0]), Columns.of_decisions("x"))
        >>> theta = surrogate.learn(data)
        >>> surrogate.predictor(data, theta).posterior(X).mean.round(1).tolist()
        [1.0, -2.0, 1.0]
    """

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """Return the hyperparameters of highest posterior density found.

        Args:
            data: rows and targets.
            warm: earlier hyperparameters, a further starting point of the search.
            cold: whether to start from the prior too.
        """
        ...

    def predictor(self, data: TrainingData, theta: Array) -> Fitted:
        """Return the posterior under fixed hyperparameters.

        Args:
            data: rows and targets.
            theta: hyperparameters, as `learn` returns them.

        Raises:
            NumericalError: if the covariance matrix cannot be factorized.
        """
        ...


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A predictor of `(y - location) / scale`, read in the units of `y`.

    Args:
        predictor: predictor of the scaled targets.
        location: offset, in units of `y`.
        scale: length of one scaled unit, in units of `y`, > 0.

    Example:
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.gp import GaussianProcess
        >>> X = np.array([[0.0], [0.5], [1.0]])
        >>> data = TrainingData(X, np.array([1.0, -2.0, 1.0]), Columns.of_decisions("x"))
        >>> inner = GaussianProcess().fit(data)
        >>> outer = Rescaled(inner, location=10.0, scale=2.0)
        >>> (outer.posterior(X).mean - 2.0 * inner.posterior(X).mean).tolist()
        [10.0, 10.0, 10.0]
    """

    predictor: Predictor
    location: float
    scale: float

    @property
    def noise_variance(self) -> float:
        """Variance of a single new run, in squared units of `y`."""
        return self.predictor.noise_variance * self.scale**2

    def posterior(self, X: Array) -> Posterior:
        """Return the marginal posterior in units of `y`."""
        p = self.predictor.posterior(X)
        return Posterior(self.location + self.scale * p.mean, self.scale**2 * p.variance)

    def posterior_gradient(self, X: Array) -> PosteriorGradient:
        """Return the marginal posterior and its derivatives in units of `y`."""
        p = self.predictor.posterior_gradient(X)
        return PosteriorGradient(
            self.location + self.scale * p.mean,
            self.scale**2 * p.variance,
            self.scale * p.d_mean,
            self.scale**2 * p.d_variance,
        )

    def joint_posterior(self, X: Array) -> JointPosterior:
        """Return the joint posterior in units of `y`."""
        p = self.predictor.joint_posterior(X)
        return JointPosterior(self.location + self.scale * p.mean, self.scale**2 * p.covariance)

    def condition(self, X: Array, y: Array) -> Rescaled:
        """Return the predictor given further rows `X` with targets `y` in their own units."""
        inner = self.predictor.condition(X, (y - self.location) / self.scale)
        return Rescaled(inner, self.location, self.scale)
