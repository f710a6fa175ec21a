"""Mixture of drift priors: several published rules, of which the runs tell which one holds.

Notation as in `surrogates.scaling_law.prior`. Each component k is a Gaussian over theta::

    theta | k ~ N(m_k, C_k),    C_k = L_k L_k^T,    P(k) = w_k

The loss is linearized once, at the MAP estimate under the one Gaussian with the same mean and
covariance as the whole mixture (`moment_matched`). With J the Jacobian of the n losses there and K
the covariance of what the parametric loss leaves unexplained, the evidence of a component is the
marginal likelihood of the linear model::

    p(y | k) = N(t; J m_k, J C_k J^T + K),    t = y - m(x; theta^) + J theta^

and the weights follow by Bayes' rule, `w_k p(y | k) / sum_j w_j p(y | j)`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.special import log_softmax

from surrogates.data import Array
from surrogates.numerics import Factor
from surrogates.scaling_law.prior import DriftPrior, Whitening


@dataclass(frozen=True, slots=True, eq=False)
class DriftMixture:
    """Several priors of how the optima drift, each with the probability that it is the right one.

    Args:
        priors: components; None is the neutral one, zero-mean and `LawPrior.drift_sd` wide.
        weights: `(components,)`, prior probabilities, > 0, which sum to 1.

    Raises:
        ValueError: when there is no component, or the weights are no probabilities.

    Example:
        >>> falls = DriftPrior(np.array([[-0.5]]), np.array([[0.1]]))
        >>> len(DriftMixture((falls, None), np.array([0.75, 0.25])).priors)
        2
    """

    priors: tuple[DriftPrior | None, ...]
    weights: Array

    def __post_init__(self) -> None:
        w = self.weights
        if not self.priors or w.shape != (len(self.priors),):
            raise ValueError(
                "weights must hold one number for each of at least one prior, got shape"
                f" {w.shape} for {len(self.priors)} priors"
            )
        if not (np.all(np.isfinite(w)) and np.all(w > 0) and abs(float(w.sum()) - 1.0) < 1e-9):
            raise ValueError(
                f"weights must be positive and sum to 1, got {w.tolist()}; divide them by their"
                " sum, and leave out what has no weight"
            )
        if len({prior.mean.shape for prior in self.priors if prior is not None}) > 1:
            raise ValueError(
                "priors must all be about the same decisions x scales, got shapes"
                f" {[None if prior is None else prior.mean.shape for prior in self.priors]}"
            )

    @classmethod
    def of(cls, prior: DriftPrior) -> DriftMixture:
        """Return the mixture of one prior.

        Args:
            prior: the prior.

        Example:
            >>> DriftMixture.of(DriftPrior(np.zeros((1, 1)), np.ones((1, 1)))).weights.tolist()
            [1.0]
        """
        return cls((prior,), np.ones(1))


def moment_matched(components: Sequence[Whitening], weights: Array) -> Whitening:
    """Return the one Gaussian with the mean and covariance of a mixture.

    With m = sum_k w_k m_k, its covariance is ::

        sum_k w_k (C_k + (m_k - m) (m_k - m)^T)

    Of all Gaussians it is the one closest to the mixture in Kullback-Leibler divergence from the
    mixture. Its root, the Cholesky factor, is read off a QR factorization of the stacked
    `sqrt(w_k) L_k^T` and `sqrt(w_k) (m_k - m)^T`, so that the covariance is never formed.

    Args:
        components: Gaussians over the same theta, at least one.
        weights: `(components,)`, probabilities, >= 0; they sum to 1.

    Returns:
        The Gaussian as a whitening; the component itself, to the last bit, where there is only one.

    Example:
        >>> left = Whitening(np.array([-3.0]), np.array([[4.0]]))
        >>> right = Whitening(np.array([3.0]), np.array([[4.0]]))
        >>> both = moment_matched([left, right], np.array([0.5, 0.5]))
        >>> both.mean.tolist(), both.root.round(6).tolist()
        ([0.0], [[5.0]])
    """
    if len(components) == 1:
        return components[0]
    mean = np.sum([w * c.mean for w, c in zip(weights, components, strict=True)], axis=0)
    rows = [
        math.sqrt(w) * np.vstack([c.root.T, c.mean - mean])
        for w, c in zip(weights.tolist(), components, strict=True)
    ]
    (upper,) = linalg.qr(np.vstack(rows), mode="r")
    upper = upper[: len(mean)]
    upper = upper * np.where(np.diagonal(upper) < 0.0, -1.0, 1.0)[:, None]
    return Whitening(mean, np.ascontiguousarray(upper.T))


def log_evidences(
    components: Sequence[Whitening], target: Array, jacobian: Array, noise: Factor | Array
) -> Array:
    """Return `ln N(target; J m_k, J C_k J^T + K)` of each component.

    After whitening by K and one QR factorization `J = Q R`, only p x p matrices differ between
    components: with `B_k = R L_k` and `r_k = Q^T t - R m_k`, ::

        -2 ln p = |t - Q Q^T t|^2 + min_u (|r_k - B_k u|^2 + |u|^2)
                  + ln det(I + B_k^T B_k) + ln det K + n ln(2 pi)

    Minimum and determinant come from a QR factorization of B_k stacked on I. No normal equations
    are formed, so a prior a million times wider than the noise loses no digits.

    Args:
        components: Gaussians over theta, p numbers each.
        target: `(n,)`, losses minus the part of the linearization that does not depend on theta.
        jacobian: `n x p`, J; derivatives of the losses in theta itself, not in the whitened u.
        noise: factor of K, as `surrogates.numerics.cholesky` returns it, or its lower triangular
            root, `n x n`.

    Returns:
        `(components,)`, natural logarithms of densities. Zeros where n is 0.

    Example:
        >>> near, far = (Whitening(np.array([m]), np.array([[1.0]])) for m in (0.0, 4.0))
        >>> t, J = np.zeros(1), np.eye(1)
        >>> log_evidences([near, far], t, J, np.eye(1)).round(3).tolist()
        [-1.266, -5.266]
    """
    n, p = jacobian.shape
    if n == 0:
        return np.zeros(len(components))
    both, log_determinant = _whitened(np.column_stack([jacobian, target]), noise)
    A, t = both[:, :p], both[:, p]
    Q, R = linalg.qr(A, mode="economic")
    short = Q.T @ t
    constant = float(np.sum((t - Q @ short) ** 2)) + log_determinant + n * math.log(2.0 * math.pi)
    r = short - np.array([component.mean for component in components]) @ R.T
    B = R @ np.array([component.root for component in components])
    below = np.broadcast_to(np.eye(p), (len(components), p, p))
    orthogonal, upper = np.linalg.qr(np.concatenate([B, below], axis=1))
    pull = np.einsum("kip,ki->kp", orthogonal[:, : R.shape[0]], r)
    u = np.linalg.solve(upper, pull[:, :, None])[:, :, 0]
    misfit = np.sum((r - np.einsum("kip,kp->ki", B, u)) ** 2, axis=1) + np.sum(u**2, axis=1)
    spread = 2.0 * np.log(np.abs(np.diagonal(upper, axis1=1, axis2=2))).sum(axis=1)
    return np.asarray(-0.5 * (constant + misfit + spread))


def updated(weights: Array, evidences: Array) -> Array:
    """Return the posterior probabilities of the components, by Bayes' rule in logarithms.

    Args:
        weights: `(components,)`, prior probabilities, > 0.
        evidences: `(components,)`, logarithms of the evidence, up to a common constant.

    Raises:
        ValueError: when an evidence is NaN or infinite.

    Example:
        >>> updated(np.array([0.5, 0.5]), np.array([-1000.0, -1000.0 - np.log(3.0)])).round(6)
        array([0.75, 0.25])
    """
    if not np.all(np.isfinite(evidences)):
        raise ValueError(f"evidences must be finite, got {evidences.tolist()}")
    return np.exp(log_softmax(np.log(weights) + evidences))


def _whitened(columns: Array, noise: Factor | Array) -> tuple[Array, float]:
    """Return `K^-1/2 columns` and `ln det K`."""
    if isinstance(noise, Factor):
        return noise.half_solve(columns), noise.log_determinant()
    half = linalg.solve_triangular(noise, columns, lower=True)
    return np.asarray(half), 2.0 * float(np.sum(np.log(np.diagonal(noise))))
