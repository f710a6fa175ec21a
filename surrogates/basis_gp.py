"""Universal kriging: a Gaussian process around a parametric mean whose parameters are uncertain.

Notation: ``y = m(X) + Phi(X) u + f(X) + e`` with a known mean m, features Phi n x p, weights
``u ~ N(0, I)``, ``f`` a sum of independent :class:`MaternHamming` processes and independent errors
``e_i ~ N(0, v + w r_i)`` with v and w to learn and r_i known. Integrating u out leaves an ordinary
Gaussian process with kernel ``sum_k k_k(x, x') + Phi(x) Phi(x')^T`` (Rasmussen & Williams 2006, eq.
2.40), so everything that :class:`~surrogates.gp.GPPredictor` does holds for it, interval widths far
from the data included.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.optimize import minimize

from surrogates.data import Array, IntArray
from surrogates.gp import FAR_AWAY, NormalPrior
from surrogates.kernels import Kernel, MaternHamming
from surrogates.numerics import NumericalError, negative_log_density


class Basis(Protocol):
    """Features with unit prior variance of their weights."""

    def value(self, X: Array) -> Array:
        """``Phi``, n x p."""
        ...

    def gradient(self, X: Array) -> Array:
        """``dPhi / dX``, n x p x d, zero in categorical columns."""
        ...


@dataclass(frozen=True, slots=True)
class BasisKernel:
    """``sum_k k_k(x, x') + Phi(x) Phi(x')^T``; a :class:`~surrogates.kernels.Kernel`."""

    parts: tuple[Kernel, ...]
    basis: Basis

    def cross(self, A: Array, B: Array) -> Array:
        K = self.basis.value(A) @ self.basis.value(B).T
        for part in self.parts:
            K += part.cross(A, B)
        return K

    def diagonal(self, A: Array) -> Array:
        phi = self.basis.value(A)
        return np.asarray(
            np.einsum("ip,ip->i", phi, phi) + sum(part.diagonal(A) for part in self.parts)
        )

    def cross_gradient(self, A: Array, B: Array) -> tuple[Array, Array]:
        phi = self.basis.value(B)
        K = self.basis.value(A) @ phi.T
        gradient = np.matmul(phi, self.basis.gradient(A))  # (b x p) (a x p x d)
        for part in self.parts:
            own, own_gradient = part.cross_gradient(A, B)
            K += own
            gradient += own_gradient
        return K, gradient

    def diagonal_gradient(self, A: Array) -> Array:
        gradient = 2.0 * np.einsum("ip,ipd->id", self.basis.value(A), self.basis.gradient(A))
        for part in self.parts:
            gradient += part.diagonal_gradient(A)
        return np.asarray(gradient)


@dataclass(frozen=True, slots=True)
class ProcessPrior:
    """One residual process: where it lives and the prior of its hyperparameters.

    Args:
        X: n x d rows, already warped if the process lives in other coordinates.
        numeric, categorical: columns of its Matern and Hamming factors.
        variance: prior of ln s.
        lengths: a prior of ln l for each numeric column.
        weights: prior of ln w, the same for each categorical column.
    """

    X: Array
    numeric: IntArray
    categorical: IntArray
    variance: NormalPrior
    lengths: tuple[NormalPrior, ...]
    weights: NormalPrior

    @property
    def size(self) -> int:
        return 1 + len(self.numeric) + len(self.categorical)

    @property
    def prior(self) -> tuple[NormalPrior, ...]:
        return (self.variance, *self.lengths, *[self.weights] * len(self.categorical))

    def kernel(self, theta: Array) -> MaternHamming:
        """The kernel at ``theta = (ln s, ln l.., ln w..)``."""
        p = len(self.numeric)
        return MaternHamming(
            self.numeric, self.categorical, float(theta[0]), theta[1 : 1 + p], theta[1 + p :]
        )


@dataclass(frozen=True, slots=True)
class NoisePrior:
    """Independent errors of variance ``v + w r_i``.

    Args:
        noise: prior of ln v, the variance of a single run.
        growth: prior of ln w.
        factors: ``(n,)``, r.
    """

    noise: NormalPrior
    discrepancy: NormalPrior
    factors: Array


@dataclass(frozen=True, slots=True)
class ResidualCovariance:
    """Learned covariance of what the features leave over: processes, v and w."""

    kernels: tuple[MaternHamming, ...]
    noise_variance: float
    discrepancy_variance: float

    @classmethod
    def from_theta(cls, parts: tuple[ProcessPrior, ...], theta: Array) -> ResidualCovariance:
        """Read ``theta = (theta of each part.., ln w, ln v)``."""
        *pieces, last = np.split(theta, np.cumsum([part.size for part in parts]))
        kernels = tuple(part.kernel(piece) for part, piece in zip(parts, pieces, strict=True))
        return cls(kernels, float(np.exp(last[1])), float(np.exp(last[0])))


def fit_residual(
    residual: Array,
    known: Array,
    parts: tuple[ProcessPrior, ...],
    errors: NoisePrior,
    *,
    warm: Array | None = None,
    max_iterations: int = 30,
) -> Array:
    """``theta`` of :meth:`ResidualCovariance.from_theta` of highest posterior density, from one start.

    Args:
        residual: ``(n,)``, y - m(X); with n = 0 the prior mean comes back.
        known: n x n, ``Phi Phi^T``.
        parts: residual processes.
        errors: priors of the errors.
        warm: where to start; the prior mean if None or of another length.
        max_iterations: of L-BFGS.
    """
    prior = [entry for part in parts for entry in part.prior] + [errors.discrepancy, errors.noise]
    mean = np.array([entry.mean for entry in prior])
    sd = np.array([entry.sd for entry in prior])
    if not len(residual):
        return mean

    def objective(theta: Array) -> tuple[float, Array]:
        z = (theta - mean) / sd
        value, slope = _negative_log_likelihood(theta, residual, known, parts, errors.factors)
        return value + 0.5 * float(z @ z), slope + z / sd

    start = mean if warm is None or warm.shape != mean.shape else warm
    found = minimize(
        objective,
        np.clip(start, mean - 3.0 * sd, mean + 3.0 * sd),
        jac=True,
        method="L-BFGS-B",
        bounds=list(zip(mean - 4.0 * sd, mean + 4.0 * sd, strict=True)),
        options={"maxiter": max_iterations, "ftol": 1e-6, "gtol": 1e-3},
    )
    return np.asarray(found.x, dtype=np.float64)


def _negative_log_likelihood(
    theta: Array, residual: Array, known: Array, parts: tuple[ProcessPrior, ...], factors: Array
) -> tuple[float, Array]:
    """``-ln p(residual | theta)``, less a constant, and its gradient."""
    read = ResidualCovariance.from_theta(parts, theta)
    covariance = np.array(known, order="F")
    grams = []
    for part, kernel in zip(parts, read.kernels, strict=True):
        K, slope = kernel.gram(part.X)
        covariance += K
        grams.append((kernel, part.X, K, slope))
    covariance[np.diag_indices(len(residual))] += (
        read.noise_variance + read.discrepancy_variance * factors
    )
    try:
        value, sensitivity = negative_log_density(covariance, residual)
    except NumericalError:
        return FAR_AWAY, np.zeros_like(theta)
    slopes = [kernel.pullback(X, K, slope, sensitivity) for kernel, X, K, slope in grams]
    own = np.diagonal(sensitivity)
    tail = [
        read.discrepancy_variance * float(own @ factors),
        read.noise_variance * float(own.sum()),
    ]
    return value, np.concatenate([*slopes, tail])
