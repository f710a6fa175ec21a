"""Covariance functions over mixed columns.

The kernel of this package is one stationary product::

    k(x, x') = s * m(r) * exp(-sum_q w_q [c_q != c'_q])
    r^2      = sum_j (x_j - x'_j)^2 / l_j^2                          over numeric columns j
    m(r)     = (1 + sqrt(5) r + 5/3 r^2) exp(-sqrt(5) r)             Matern, smoothness 5/2

with variance `s`, one length `l_j` per numeric column (ARD) and one weight `w_q` per categorical or
activity column; Rasmussen & Williams (2006), eq. 4.17 for m. The categorical factor is the
exponential of a weighted Hamming distance.

Conditional columns need no special case: an inactive entry sits at a fixed neutral value and its
group's ACTIVITY column differs, which multiplies the covariance by rho = exp(-w) < 1. (The tempting
rule "1 if both inactive, rho if one is, k otherwise" without the neutral value is *not* positive
semi-definite: K - rho^2 11^T >= 0 fails as soon as enough active points are nearly independent.)

Hyperparameters live in log space: `theta = (ln s, ln l_1.., ln w_1..)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from surrogates.data import Array, Columns, IntArray

_ROOT5 = np.sqrt(5.0)
_BLOCK = 32_768  # entries of a matrix worked on at a time: larger ones do not stay in a cache


class Kernel(Protocol):
    """A covariance function; rows of `A` are `a x d`, rows of `B` `b x d`.

    Example:
        >>> def correlation(kernel: Kernel, A: Array, B: Array) -> Array:
        ...     scale = np.sqrt(np.outer(kernel.diagonal(A), kernel.diagonal(B)))
        ...     return kernel.cross(A, B) / scale
    """

    def cross(self, A: Array, B: Array) -> Array:
        """Return the covariances, `a x b`."""
        ...

    def diagonal(self, A: Array) -> Array:
        """Return the variances `k(x, x)`, `(a,)`."""
        ...

    def cross_gradient(self, A: Array, B: Array) -> tuple[Array, Array]:
        """Return the covariances `a x b` and their derivatives in the rows of `A`, `a x b x d`."""
        ...

    def diagonal_gradient(self, A: Array) -> Array:
        """Return the derivatives of `diagonal`, `a x d`."""
        ...


def squared_distances(A: Array, B: Array) -> Array:
    """Return `|a_i - b_j|^2`, `a x b`, by one matrix product; rounding below zero is clipped.

    Args:
        A: `a x p`.
        B: `b x p`.

    Example:
        >>> squared_distances(np.array([[0.0, 0.0]]), np.array([[3.0, 4.0]])).tolist()
        [[25.0]]
    """
    center = B.mean(axis=0) if len(B) else 0.0  # less cancellation
    A, B = A - center, B - center
    squares = A @ (-2.0 * B).T
    of_A, of_B = np.einsum("ij,ij->i", A, A)[:, None], np.einsum("ij,ij->i", B, B)
    for rows in _blocks(squares):
        block = squares[rows]
        np.maximum(np.add(of_A[rows] + of_B, block, out=block), 0.0, out=block)
    return np.asarray(squares)


def _blocks(values: Array) -> Iterator[slice]:
    """Divide the rows of a matrix into blocks that stay in a cache while they are worked on."""
    count = max(1, _BLOCK // max(1, values.shape[1]))
    return (slice(start, start + count) for start in range(0, len(values), count))


@dataclass(frozen=True, slots=True)
class MaternHamming:
    """Matern-5/2 kernel on numeric columns times a Hamming kernel on categorical ones.

    The formula stands at the head of the module.

    Args:
        numeric: columns of the Matern factor.
        categorical: columns of the Hamming factor.
        log_variance: ln s.
        log_lengths: `(p,)`, ln l of the numeric columns.
        log_weights: `(q,)`, ln w of the categorical columns.

    Example:
        >>> kernel = MaternHamming.from_theta(Columns.of_decisions("x"), np.log([2.0, 0.5]))
        >>> kernel.cross(np.array([[0.0]]), np.array([[0.0], [0.5]])).round(3).tolist()
        [[2.0, 1.048]]
    """

    numeric: IntArray
    categorical: IntArray
    log_variance: float
    log_lengths: Array
    log_weights: Array

    @classmethod
    def from_theta(cls, columns: Columns, theta: Array) -> MaternHamming:
        """Build the kernel of all columns from `theta = (ln s, ln l.., ln w..)`.

        Args:
            columns: roles of the columns.
            theta: `(1 + p + q,)`.
        """
        p = len(columns.numeric)
        lengths, weights = theta[1 : 1 + p], theta[1 + p :]
        return cls(columns.numeric, columns.categorical, float(theta[0]), lengths, weights)

    @property
    def lengths(self) -> Array:
        """Length scales `l`, `(p,)`."""
        return np.asarray(np.exp(self.log_lengths))

    def cross(self, A: Array, B: Array) -> Array:
        """Return the covariances of the rows of `A` with those of `B`, `a x b`."""
        values = self._squares(A, B)
        for rows in _blocks(values):
            squares = values[rows]
            r = np.sqrt(squares)
            decay = self._exponent(r, A[rows], B)
            np.exp(decay, out=decay)
            squares *= 1.0 / 3.0
            squares += r
            squares += 1.0
            squares *= decay
        return values

    def diagonal(self, A: Array) -> Array:
        """Return the variances, `(a,)`, all equal to `s`."""
        return np.full(len(A), np.exp(self.log_variance))

    def cross_gradient(self, A: Array, B: Array) -> tuple[Array, Array]:
        """Return the covariances and their derivatives in the rows of `A`, `a x b x d`."""
        K, slope = self._with_slope(A, B)
        gradient = np.zeros((len(A), len(B), A.shape[1]))
        steps = A[:, None, self.numeric] - B[None, :, self.numeric]
        gradient[:, :, self.numeric] = -slope[:, :, None] * steps * np.exp(-2.0 * self.log_lengths)
        return K, gradient

    def diagonal_gradient(self, A: Array) -> Array:
        """Return zeros, `a x d`: the kernel is stationary."""
        return np.zeros(A.shape)

    def gram(self, X: Array) -> tuple[Array, Array]:
        """Return the Gram matrix and the slope matrix at `X`, both `n x n`, for `pullback`."""
        return self._with_slope(X, X)

    def _squares(self, A: Array, B: Array) -> Array:
        """Return `5 r^2`, `a x b`."""
        units = _ROOT5 * np.exp(-self.log_lengths)
        return squared_distances(A[:, self.numeric] * units, B[:, self.numeric] * units)

    def _exponent(self, r: Array, A: Array, B: Array) -> Array:
        """Return `ln s - sqrt(5) r - Hamming`, `a x b`, for `r` already times sqrt(5)."""
        exponent = self.log_variance - r
        for column, weight in zip(self.categorical, np.exp(self.log_weights), strict=True):
            exponent -= weight * (A[:, column, None] != B[None, :, column])
        return exponent

    def _with_slope(self, A: Array, B: Array) -> tuple[Array, Array]:
        """Return `k` and `-2 dk/d(r^2) = 5/3 (1 + sqrt(5) r) exp(..)`, `a x b` each."""
        values = self._squares(A, B)
        slopes = np.empty_like(values)
        for rows in _blocks(values):
            squares, slope = values[rows], slopes[rows]
            r = np.sqrt(squares)
            np.exp(self._exponent(r, A[rows], B), out=slope)
            r += 1.0
            squares *= 1.0 / 3.0
            squares += r
            squares *= slope
            slope *= r
            slope *= 5.0 / 3.0
        return values, slopes

    def pullback(self, X: Array, K: Array, slope: Array, sensitivity: Array) -> Array:
        """Return `sum_ik sensitivity_ik dK_ik/dtheta`, `(1 + p + q,)`, in O(n^2 d).

        Args:
            X: `n x d`.
            K: Gram matrix, the first value of `gram(X)`.
            slope: slope matrix, the second value of `gram(X)`.
            sensitivity: symmetric `n x n`, derivative of an objective in `K`.
        """
        weighted = sensitivity * K
        total = float(np.sum(weighted))
        # sum_ik G_ik (x_i - x_k)^2 = 2 (sum_i x_i^2 G_i. - x^T G x) turns d masks into one product
        G = sensitivity * slope
        numeric = X[:, self.numeric]
        rows = G.sum(axis=1)
        spread = 2.0 * (rows @ numeric**2 - np.einsum("ij,ij->j", numeric, G @ numeric))
        d_lengths = spread * np.exp(-2.0 * self.log_lengths)
        d_weights = [
            -weight * (total - _same_code_sum(weighted, X[:, column]))
            for column, weight in zip(self.categorical, np.exp(self.log_weights), strict=True)
        ]
        return np.concatenate([[total], d_lengths, d_weights])


def _same_code_sum(values: Array, codes: Array) -> float:
    """Return the sum of `values` `n x n` over the pairs whose codes agree."""
    members = (codes[:, None] == np.unique(codes)).astype(np.float64)
    return float(np.einsum("ik,ik->", members, values @ members))
