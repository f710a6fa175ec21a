"""Positive definite linear algebra in float64, with the failures said out loud.

Notation: ``K`` n x n symmetric positive definite, ``L`` its lower Cholesky factor, ``K = L L^T``.

A :class:`Factor` is kept in two levels, a *head* factorized at once and a *tail* of rows appended
later one by one::

    L = [ head   0  ]      head n x n,  cross t x n,  tail t x t
        [ cross tail]

Appending touches only ``cross`` and ``tail``, so it costs O(n^2) arithmetic and no copy of the
head. A row is always appended by the same operations whatever was appended after it, so a factor
grown during a run and one rebuilt from the log agree to the last bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import ParamSpec, TypeVar

import numpy as np
from scipy.linalg import lapack
from scipy.special import ndtri
from threadpoolctl import ThreadpoolController

from surrogates.data import Array

P = ParamSpec("P")
R = TypeVar("R")

_JITTERS = (0.0, 1e-10, 1e-9, 1e-8, 1e-7, 1e-6, 1e-5, 1e-4)  # of the mean diagonal
_LARGEST_EXPONENT = 700.0  # exp of it is still a float64, of 710 it is not
_WORST_CONDITION = 1e13  # beyond it, solutions keep fewer than three digits


class NumericalError(ArithmeticError):
    """A matrix could not be factorized at any jitter."""


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # NumPy's and SciPy's BLAS are loaded by now


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """The function with BLAS held to one thread while it runs.

    The matrices here are small: two threads that wait for each other made an ask 15 times slower on
    a busy machine. And results no longer depend on how many threads the caller's BLAS has.
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


def _solve_lower(L: Array, B: Array, transpose: bool = False) -> Array:
    """``L^-1 B`` or ``L^-T B`` for a Fortran-ordered lower triangle; ``B`` is ``(n,)`` or n x m."""
    if not len(L):
        return B.copy()
    solution, info = lapack.dtrtrs(L, B, lower=1, trans=int(transpose))
    if info:
        raise NumericalError(f"triangular solve failed, LAPACK info {info}")
    return np.asarray(solution, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Factor:
    """Cholesky factor of ``K + jitter I``; see the module's opening for the two levels.

    Attributes:
        jitter: what was added to the diagonal before it could be factorized.
        condition: estimate of the 1-norm condition number of the head.
    """

    head: Array
    cross: Array
    tail: Array
    jitter: float
    condition: float

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)

    def half_solve(self, B: Array) -> Array:
        """``L^-1 B`` for ``B`` ``(n,)`` or n x m."""
        n = len(self.head)
        top = _solve_lower(self.head, B[:n])
        if not len(self.tail):
            return top
        bottom = _solve_lower(self.tail, B[n:] - self.cross @ top)
        return np.concatenate([top, bottom])

    def solve(self, B: Array) -> Array:
        """``K^-1 B`` for ``B`` ``(n,)`` or n x m."""
        n = len(self.head)
        half = self.half_solve(B)
        if not len(self.tail):
            return _solve_lower(self.head, half, transpose=True)
        bottom = _solve_lower(self.tail, half[n:], transpose=True)
        top = _solve_lower(self.head, half[:n] - self.cross.T @ bottom, transpose=True)
        return np.concatenate([top, bottom])

    def log_determinant(self) -> float:
        """``ln det K``."""
        diagonals = np.concatenate([np.diagonal(self.head), np.diagonal(self.tail)])
        return float(2.0 * np.sum(np.log(diagonals)))

    def inverse_diagonal(self) -> Array:
        """``diag(K^-1)``, ``(n,)``: the sums of squares of the columns of ``L^-1``."""
        return np.asarray(np.sum(self.half_solve(np.eye(len(self))) ** 2, axis=0))

    def inverse_diagonal_of_last(self, count: int) -> Array:
        """The last ``count`` entries of :meth:`inverse_diagonal`, in O(count^3).

        The last columns of ``L^-1`` are zero above, so they need the last rows of L alone.
        """
        count = min(count, len(self))
        above = max(count - len(self.tail), 0)  # rows that lie in the head
        h, t = len(self.head) - above, max(len(self.tail) - count, 0)
        corner = np.zeros((count, count), order="F")
        corner[:above, :above] = self.head[h:, h:]
        corner[above:, :above] = self.cross[t:, h:]
        corner[above:, above:] = self.tail[t:, t:]
        return np.asarray(np.sum(_solve_lower(corner, np.eye(count)) ** 2, axis=0))

    def append(self, k: Array, variance: float) -> Factor:
        """Factor of the matrix bordered by one more row.

        Args:
            k: ``(n + t,)``, covariances of the new row with the present ones.
            variance: of the new row, noise included.

        A pivot that rounding has made too small is raised to the first step of the jitter ladder.
        """
        n, t = len(self.head), len(self.tail)
        row = _solve_lower(self.head, k[:n])
        short = _solve_lower(self.tail, k[n:] - self.cross @ row)
        diagonal = variance + self.jitter
        pivot = max(float(diagonal - row @ row - short @ short), _JITTERS[1] * diagonal)
        tail = np.zeros((t + 1, t + 1), order="F")
        tail[:t, :t], tail[t, :t], tail[t, t] = self.tail, short, np.sqrt(pivot)
        return Factor(self.head, np.vstack([self.cross, row]), tail, self.jitter, self.condition)


def cholesky(K: Array) -> Factor:
    """Factorize, climbing a jitter ladder until the condition estimate is sound.

    Raises:
        NumericalError: if ``K`` holds a number that is not finite or no jitter suffices.
    """
    if not np.all(np.isfinite(K)):
        raise NumericalError("the covariance matrix holds a number that is not finite")
    n = len(K)
    empty = np.zeros((0, n)), np.zeros((0, 0), order="F")
    if n == 0:
        return Factor(np.zeros((0, 0), order="F"), *empty, 0.0, 1.0)
    scale = float(np.mean(np.diagonal(K)))
    for step in _JITTERS:
        jitter = step * scale
        shifted = np.array(K, order="F")
        shifted[np.diag_indices(n)] += jitter
        norm = float(np.max(np.sum(np.abs(shifted), axis=0)))
        L, info = lapack.dpotrf(shifted, lower=1, clean=1, overwrite_a=1)
        if info:
            continue
        reciprocal, _ = lapack.dpocon(L, norm, uplo="L")
        if reciprocal * _WORST_CONDITION >= 1.0 or step == _JITTERS[-1]:
            return Factor(L, *empty, jitter, 1.0 / max(reciprocal, 1e-300))
    raise NumericalError(f"a {n} x {n} covariance matrix is not positive definite at any jitter")


def negative_log_density(K: Array, y: Array) -> tuple[float, Array]:
    """``-ln N(y; 0, K)`` less its constant ``n ln(2 pi) / 2``, and its derivative in ``K``.

    Rasmussen & Williams (2006), eqs. 5.8 and 5.9, with ``w = K^-1 y``::

        (y^T w + ln det K) / 2,      (K^-1 - w w^T) / 2

    One potrf and one potri, no jitter: an optimizer that meets the error steps back.

    Args:
        K: n x n, n >= 1; overwritten if in Fortran order.
        y: ``(n,)``.

    Raises:
        NumericalError: if ``K`` is not positive definite.
    """
    L, info = lapack.dpotrf(K, lower=1, clean=1, overwrite_a=1)
    if info:
        raise NumericalError(f"a {len(K)} x {len(K)} covariance matrix is not positive definite")
    weights, _ = lapack.dpotrs(L, y, lower=1)
    value = 0.5 * float(y @ weights) + float(np.sum(np.log(np.diagonal(L))))
    inverse, _ = lapack.dpotri(L, lower=1, overwrite_c=1)
    inverse += np.tril(inverse, -1).T
    inverse -= np.outer(weights, weights)
    inverse *= 0.5
    return value, np.asarray(inverse, dtype=np.float64)


def bounded_exp(x: float) -> float:
    """TODO"""
    return math.exp(min(max(x, -_LARGEST_EXPONENT), _LARGEST_EXPONENT))


@cache
def normal_half_width(coverage: float) -> float:
    """TODO"""
    return float(ndtri(0.5 * (1.0 + coverage)))


def radical_inverse(index: int, base: int = 2) -> float:
    """TODO"""
    value, denominator = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        denominator *= base
        value += digit / denominator
    return value


def kronecker(index: int, step: float) -> float:
    """TODO"""
    return (index + 0.5) * step % 1.0
