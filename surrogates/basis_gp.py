"""Gaussian process plus integrated-out basis functions (universal kriging).

Notation: `y = m(X) + Phi(X) u + f(X) + e` with a known mean m, features Phi n x p, weights
`u ~ N(0, I)`, `f` a sum of independent `MaternHamming` processes and independent errors
`e_i ~ N(0, v a_i + w r_i)` with v and w to learn and a_i and r_i known. Integrating u out leaves an
ordinary Gaussian process with kernel `sum_k k_k(x, x') + Phi(x) Phi(x')^T` (Rasmussen & Williams
2006, eq. 2.40), so everything that `GPPredictor` does holds for it, interval widths far from the
data included.
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
    """Features with unit prior variance of their weights.

    Example:
        >>> class Constant:
        ...     def value(self, X):
        ...         return np.ones((len(X), 1))
        ...     def gradient(self, X):
        ...         return np.zeros((len(X), 1, X.shape[1]))
        >>> basis: Basis = Constant()
        >>> basis.value(np.zeros((3, 2))).shape
        (3, 1)
    """

    def value(self, X: Array) -> Array:
        """Return `Phi`, `n x p`."""
        ...

    def gradient(self, X: Array) -> Array:
        """Return `dPhi / dX`, `n x p x d`, zero in categorical columns."""
        ...


@dataclass(frozen=True, slots=True)
class BasisKernel:
    """The kernel `sum_k k_k(x, x') + Phi(x) Phi(x')^T`.

    Args:
        parts: kernels k_k.
        basis: features Phi.

    Example:
        >>> class Linear:
        ...     def value(self, X):
        ...         return X
        ...     def gradient(self, X):
        ...         return np.tile(np.eye(X.shape[1]), (len(X), 1, 1))
        >>> BasisKernel((), Linear()).cross(np.array([[2.0]]), np.array([[3.0]])).tolist()
        [[6.0]]
    """

    parts: tuple[Kernel, ...]
    basis: Basis

    def cross(self, A: Array, B: Array) -> Array:
        """Return the covariances, `a x b`."""
        K = self.basis.value(A) @ self.basis.value(B).T
        for part in self.parts:
            K += part.cross(A, B)
        return K

    def diagonal(self, A: Array) -> Array:
        """Return the variances, `(a,)`."""
        phi = self.basis.value(A)
        return np.asarray(
            np.einsum("ip,ip->i", phi, phi) + sum(part.diagonal(A) for part in self.parts)
        )

    def cross_gradient(self, A: Array, B: Array) -> tuple[Array, Array]:
        """Return the covariances and their derivatives in the rows of `A`, `a x b x d`."""
        phi = self.basis.value(B)
        K = self.basis.value(A) @ phi.T
        gradient = np.matmul(phi, self.basis.gradient(A))  # (b x p) (a x p x d)
        for part in self.parts:
            own, own_gradient = part.cross_gradient(A, B)
            K += own
            gradient += own_gradient
        return K, gradient

    def diagonal_gradient(self, A: Array) -> Array:
        """Return the derivatives of `diagonal`, `a x d`."""
        gradient = 2.0 * np.einsum("ip,ipd->id", self.basis.value(A), self.basis.gradient(A))
        for part in self.parts:
            gradient += part.diagonal_gradient(A)
        return np.asarray(gradient)


@dataclass(frozen=True, slots=True)
class ProcessPrior:
    """One residual process: its coordinates and the prior of its hyperparameters.

    Args:
        X: `n x d`, rows, already warped if the process lives in other coordinates.
        numeric: columns of its Matern factor.
        categorical: columns of its Hamming factor.
        variance: prior of ln s.
        lengths: a prior of ln l for each numeric column.
        weights: prior of ln w, the same for each categorical column.
        amplitude: `(n,)`, known factor on the process at each row; None for 1.

    Example:
        >>> none = np.zeros(0, dtype=np.intp)
        >>> process = ProcessPrior(
        ...     np.zeros((3, 1)), np.array([0]), none,
        ...     NormalPrior(0.0, 1.0), (NormalPrior(-1.0, 1.0),), NormalPrior(0.0, 1.0),
        ... )
        >>> process.size
        2
    """

    X: Array
    numeric: IntArray
    categorical: IntArray
    variance: NormalPrior
    lengths: tuple[NormalPrior, ...]
    weights: NormalPrior
    amplitude: Array | None = None

    @property
    def size(self) -> int:
        """Number of hyperparameters."""
        return 1 + len(self.numeric) + len(self.categorical)

    @property
    def prior(self) -> tuple[NormalPrior, ...]:
        """Prior of each hyperparameter, in the order of `kernel`."""
        return (self.variance, *self.lengths, *[self.weights] * len(self.categorical))

    def kernel(self, theta: Array) -> MaternHamming:
        """Return the kernel at `theta = (ln s, ln l.., ln w..)`."""
        p = len(self.numeric)
        return MaternHamming(
            self.numeric, self.categorical, float(theta[0]), theta[1 : 1 + p], theta[1 + p :]
        )


@dataclass(frozen=True, slots=True)
class NoisePrior:
    """Prior of independent errors of variance `v a_i + w r_i`.

    Args:
        noise: prior of ln v, the variance of a single run.
        discrepancy: prior of ln w, the model discrepancy variance per unit of r.
        factors: `(n,)`, r.
        inflation: `(n,)`, a, 1 for a run that is no outlier; None for 1 everywhere.

    Example:
        >>> NoisePrior(NormalPrior(-5.0, 1.0), NormalPrior(0.0, 1.0), np.zeros(3)).noise.mean
        -5.0
    """

    noise: NormalPrior
    discrepancy: NormalPrior
    factors: Array
    inflation: Array | None = None


@dataclass(frozen=True, slots=True)
class ResidualCovariance:
    """Learned covariance of what the features leave over: processes, v and w.

    Args:
        kernels: kernels of the processes.
        noise_variance: v.
        discrepancy_variance: w.

    Example:
        >>> round(ResidualCovariance.from_theta((), np.log([0.5, 0.1])).noise_variance, 3)
        0.1
    """

    kernels: tuple[MaternHamming, ...]
    noise_variance: float
    discrepancy_variance: float

    @classmethod
    def from_theta(cls, parts: tuple[ProcessPrior, ...], theta: Array) -> ResidualCovariance:
        """Read `theta = (theta of each part.., ln w, ln v)`."""
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
    """Return the `theta` of highest posterior density for `ResidualCovariance.from_theta`.

    The search has one start.

    Args:
        residual: `(n,)`, y - m(X); with n = 0 the prior mean comes back.
        known: `n x n`, `Phi Phi^T`.
        parts: priors of the residual processes.
        errors: prior of the errors.
        warm: starting point; the prior mean if None or of another length.
        max_iterations: number of L-BFGS iterations.

    Example:
        >>> errors = NoisePrior(NormalPrior(0.0, 3.0), NormalPrior(-9.0, 0.1), np.zeros(200))
        >>> y = 0.5 * np.random.default_rng(0).standard_normal(200)
        >>> theta = fit_residual(y, np.zeros((200, 200)), (), errors)
        >>> round(ResidualCovariance.from_theta((), theta).noise_variance, 2)
        0.23
    """
    prior = [entry for part in parts for entry in part.prior] + [errors.discrepancy, errors.noise]
    mean = np.array([entry.mean for entry in prior])
    sd = np.array([entry.sd for entry in prior])
    if not len(residual):
        return mean

    def objective(theta: Array) -> tuple[float, Array]:
        z = (theta - mean) / sd
        value, slope = _negative_log_likelihood(theta, residual, known, parts, errors)
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
    theta: Array,
    residual: Array,
    known: Array,
    parts: tuple[ProcessPrior, ...],
    errors: NoisePrior,
) -> tuple[float, Array]:
    """Return `-ln p(residual | theta)`, less a constant, and its gradient."""
    read = ResidualCovariance.from_theta(parts, theta)
    inflation = np.ones(len(residual)) if errors.inflation is None else errors.inflation
    covariance = np.array(known, order="F")
    grams = []
    for part, kernel in zip(parts, read.kernels, strict=True):
        K, slope = kernel.gram(part.X)
        a = part.amplitude
        amplitude = None if a is None else np.outer(a, a)
        covariance += K if amplitude is None else K * amplitude
        grams.append((kernel, part.X, K, slope, amplitude))
    covariance[np.diag_indices(len(residual))] += (
        read.noise_variance * inflation + read.discrepancy_variance * errors.factors
    )
    try:
        value, sensitivity = negative_log_density(covariance, residual)
    except NumericalError:
        return FAR_AWAY, np.zeros_like(theta)
    slopes = [
        kernel.pullback(X, K, slope, sensitivity if scale is None else sensitivity * scale)
        for kernel, X, K, slope, scale in grams
    ]
    own = np.diagonal(sensitivity)
    tail = [
        read.discrepancy_variance * float(own @ errors.factors),
        read.noise_variance * float(own.sum() if errors.inflation is None else own @ inflation),
    ]
    return value, np.concatenate([*slopes, tail])
