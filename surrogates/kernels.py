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

from collections.abc import Callable, Iterator
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


def cross_and_pullback(
    kernel: Kernel, A: Array, B: Array
) -> tuple[Array, Callable[[Array], Array]]:
    """Return the covariances `a x b`, and how sums of them change with the rows of `A`.

    It is what `cross_gradient` gives, without an array of `a x b x d` where the kernel allows it.

    Args:
        kernel: covariance function.
        A: `a x d`.
        B: `b x d`.

    Returns:
        The covariances, and a function of coefficients `c` `a x b` that returns
        `sum_j c_ij dk(a_i, b_j) / da_i`, `a x d`.

    Example:
        >>> kernel = MaternHamming.from_theta(Columns.of_decisions("x"), np.log([2.0, 0.5]))
        >>> K, pullback = cross_and_pullback(kernel, np.array([[0.0]]), np.array([[0.0], [0.5]]))
        >>> pullback(np.ones((1, 2))).round(3).tolist()
        [[2.306]]
    """
    if isinstance(kernel, MaternHamming):
        return kernel.cross_and_pullback(A, B)
    K, gradient = kernel.cross_gradient(A, B)
    return K, lambda c: np.einsum("abd,ab->ad", gradient, c)


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

    def cross_and_pullback(self, A: Array, B: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return the covariances and the function that :func:`cross_and_pullback` describes."""
        K, slope = self._with_slope(A, B)
        numeric = self.numeric
        of_A, of_B = A[:, numeric], B[:, numeric]
        inverse = np.exp(-2.0 * self.log_lengths)

        def pullback(coefficients: Array) -> Array:
            weights = coefficients * slope
            gradient = np.zeros(A.shape)
            moved = weights @ of_B - np.sum(weights, axis=1)[:, None] * of_A
            gradient[:, numeric] = moved * inverse
            return gradient

        return K, pullback

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


@dataclass(frozen=True, slots=True)
class PairedRows:
    """All pairs of some rows, for a `MaternHamming` whose hyperparameters are being learned.

    What does not depend on the hyperparameters is computed once, and each pair once, not twice:
    with up to 100 rows three times as fast as `gram` and `pullback`.

    Args:
        count: number n of rows.
        first: `(m,)`, row i of each of the m = n (n - 1) / 2 pairs, greater than k.
        second: `(m,)`, row k of each.
        places: `(m,)`, places of the pairs in the columns of a matrix, one after the other.
        squares: `p x m`, squared differences in the numeric columns.
        differ: `q x m`, 1 where the codes of a categorical column differ, else 0.

    Example:
        >>> X, columns = np.array([[0.0], [0.5]]), Columns.of_decisions("x")
        >>> kernel = MaternHamming.from_theta(columns, np.log([2.0, 0.5]))
        >>> values, slopes = PairedRows.of(X, columns).gram(kernel)
        >>> values.round(3).tolist()
        [1.048]
    """

    count: int
    first: IntArray
    second: IntArray
    places: IntArray
    squares: Array
    differ: Array

    @classmethod
    def of(cls, X: Array, columns: Columns) -> PairedRows:
        """Pair all rows of `X` `n x d` with each other.

        Args:
            X: `n x d`.
            columns: roles of the columns.
        """
        second, first = np.triu_indices(len(X), 1)
        numeric, codes = X[:, columns.numeric].T, X[:, columns.categorical].T
        squares = (numeric[:, first] - numeric[:, second]) ** 2
        differ = (codes[:, first] != codes[:, second]).astype(np.float64)
        return cls(len(X), first, second, second * len(X) + first, squares, differ)

    def gram(self, kernel: MaternHamming) -> tuple[Array, Array]:
        """Return the covariance and the slope of each pair, `(m,)`, for `pullback`."""
        values = (5.0 * np.exp(-2.0 * kernel.log_lengths)) @ self.squares
        r = np.sqrt(values)
        slopes = kernel.log_variance - r
        if len(self.differ):
            slopes -= np.exp(kernel.log_weights) @ self.differ
        np.exp(slopes, out=slopes)
        r += 1.0
        values *= 1.0 / 3.0
        values += r
        values *= slopes
        slopes *= r
        slopes *= 5.0 / 3.0
        return values, slopes

    def matrix(self, values: Array, diagonal: float) -> Array:
        """Return the symmetric matrix of `values` `(m,)`, lower triangle only, Fortran order.

        Args:
            values: value of each pair.
            diagonal: value of each row with itself.
        """
        n = self.count
        flat = np.zeros(n * n)
        flat[self.places] = values
        flat[:: n + 1] = diagonal
        return flat.reshape(n, n, order="F")

    def pullback(
        self, kernel: MaternHamming, values: Array, slopes: Array, sensitivity: Array
    ) -> Array:
        """Return `sum_ik sensitivity_ik dK_ik/dtheta` over i > k, `(1 + p + q,)`.

        Args:
            kernel: kernel of the same columns.
            values: the first value of `gram`.
            slopes: the second value of `gram`.
            sensitivity: `(m,)`, derivative of an objective in the covariance of each pair.
        """
        weighted = sensitivity * values
        d_lengths = np.exp(-2.0 * kernel.log_lengths) * (self.squares @ (sensitivity * slopes))
        d_weights = -np.exp(kernel.log_weights) * (self.differ @ weighted)
        return np.concatenate([[np.sum(weighted)], d_lengths, d_weights])


def _same_code_sum(values: Array, codes: Array) -> float:
    """Return the sum of `values` `n x n` over the pairs whose codes agree."""
    members = (codes[:, None] == np.unique(codes)).astype(np.float64)
    return float(np.einsum("ik,ik->", members, values @ members))
