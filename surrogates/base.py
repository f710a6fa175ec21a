"""The contract between predictive models and everything that asks them.

A surrogate is fitted once, in a pure step, into an immutable *predictor*. Search code sees only the
predictor. Marginals and joint distributions are two methods, never one whose return changes
meaning.
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
    """Marginal beliefs about noise-free values at m rows: ``mean``, ``variance``, each ``(m,)``."""

    mean: Array
    variance: Array


@dataclass(frozen=True, slots=True)
class PosteriorGradient:
    """Marginal beliefs and how they change with each column.

    ``mean`` and ``variance`` are ``(m,)``; ``d_mean`` and ``d_variance`` are ``m x d`` and zero in
    categorical columns.
    """

    mean: Array
    variance: Array
    d_mean: Array
    d_variance: Array


@dataclass(frozen=True, slots=True)
class JointPosterior:
    """Joint posterior about noise-free values at m rows: ``mean`` ``(m,)``, ``covariance`` m x m."""

    mean: Array
    covariance: Array

    def sample(self, count: int, rng: np.random.Generator) -> Array:
        """Draw ``count`` functions, returned as ``count x m``.

        An eigendecomposition with negative eigenvalues set to zero, because the covariance of close
        rows is singular to working precision and a Cholesky factor of it may not exist.
        """
        values, vectors = linalg.eigh(self.covariance)
        root = vectors * np.sqrt(np.maximum(values, 0.0))
        draws = rng.standard_normal((count, len(self.mean))) @ root.T
        return np.asarray(self.mean + draws, dtype=np.float64)


class Predictor(Protocol):
    """A fitted model of one quantity."""

    @property
    def noise_variance(self) -> float:
        """Variance of a single new run around the noise-free value."""
        ...

    def posterior(self, X: Array) -> Posterior:
        """Marginal posterior at the m rows of ``X``."""
        ...

    def posterior_gradient(self, X: Array) -> PosteriorGradient:
        """As :meth:`posterior`, with derivatives in the numeric columns."""
        ...

    def joint_posterior(self, X: Array) -> JointPosterior:
        """Joint posterior at the m rows of ``X``."""
        ...

    def condition(self, X: Array, y: Array) -> Self:
        """The predictor after seeing ``X`` with targets ``y`` too, hyperparameters unchanged."""
        ...


class Surrogate(Protocol[Fitted]):
    """TODO"""

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """TODO"""
        ...

    def predictor(self, data: TrainingData, theta: Array) -> Fitted:
        """TODO"""
        ...


@dataclass(frozen=True, slots=True)
class Rescaled:
    """A predictor of ``(y - location) / scale`` read in the units of ``y``."""

    predictor: Predictor
    location: float
    scale: float

    @property
    def noise_variance(self) -> float:
        return self.predictor.noise_variance * self.scale**2

    def posterior(self, X: Array) -> Posterior:
        p = self.predictor.posterior(X)
        return Posterior(self.location + self.scale * p.mean, self.scale**2 * p.variance)

    def posterior_gradient(self, X: Array) -> PosteriorGradient:
        p = self.predictor.posterior_gradient(X)
        return PosteriorGradient(
            self.location + self.scale * p.mean,
            self.scale**2 * p.variance,
            self.scale * p.d_mean,
            self.scale**2 * p.d_variance,
        )

    def joint_posterior(self, X: Array) -> JointPosterior:
        p = self.predictor.joint_posterior(X)
        return JointPosterior(self.location + self.scale * p.mean, self.scale**2 * p.covariance)

    def condition(self, X: Array, y: Array) -> Rescaled:
        inner = self.predictor.condition(X, (y - self.location) / self.scale)
        return Rescaled(inner, self.location, self.scale)
