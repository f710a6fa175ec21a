"""Positive definite linear algebra in float64, and the scalar numerics several modules share.

Functions raise `NumericalError` instead of returning numbers that mean nothing.

Notation: `K` n x n symmetric positive definite, `L` its lower Cholesky factor, `K = L L^T`.

A `Factor` is kept in two levels, a *head* factorized at once and a *tail* of rows appended later
one by one::

    L = [ head   0  ]      head n x n,  cross t x n,  tail t x t
        [ cross tail]

Appending touches only `cross` and `tail`, so it costs O(n^2) arithmetic and no copy of the head. A
row is always appended by the same operations whatever was appended after it, so a factor grown
during a run and one rebuilt from the log agree to the last bit.
"""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any, ParamSpec, TypeVar

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
    """A matrix could not be factorized at any jitter.

    Example:
        >>> try:
        ...     cholesky(-np.eye(2))
        ... except NumericalError as error:
        ...     print(error)
        a 2 x 2 covariance matrix is not positive definite at any jitter
    """


@cache
def _controller() -> ThreadpoolController:
    return ThreadpoolController()  # NumPy's and SciPy's BLAS are loaded by now


def single_threaded(function: Callable[P, R]) -> Callable[P, R]:
    """Wrap a function so that BLAS uses one thread while it runs.

    The matrices here are small: two threads that wait for each other made an ask 15 times slower on
    a busy machine. Results also no longer depend on how many threads the caller's BLAS has.

    Args:
        function: function to wrap.

    Returns:
        A function with the same signature and result.

    Example:
        >>> @single_threaded
        ... def trace(K):
        ...     return float(np.trace(K @ K))
        >>> trace(np.eye(3))
        3.0
    """

    @wraps(function)
    def limited(*args: P.args, **kwargs: P.kwargs) -> R:
        with _ONE_THREAD:
            return function(*args, **kwargs)

    return limited


class _OneThread:
    """Keeps BLAS at one thread from the first `with` of any thread to the end of the last one.

    A `with` must not restore what it has found itself: of two that overlap, the second finds the
    limit that the first has set, and would leave it behind. Where a library counts threads for each
    caller apart, each caller does set and restore its own.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._open: dict[int, int] = {}  # by thread, how many of its blocks are open
        self._found: list[tuple[Any, int]] = []  # libraries, and what they had
        self._own = threading.local()  # the same, of libraries that count for each caller

    def __enter__(self) -> None:
        here = threading.get_ident()
        with self._guard:
            if not self._open:
                self._found = _limit_to_one(lib for lib in _blas() if not _counts_by_caller(lib))
            if here not in self._open:
                self._own.found = _limit_to_one(lib for lib in _blas() if _counts_by_caller(lib))
            self._open[here] = self._open.get(here, 0) + 1

    def __exit__(self, *exception: object) -> None:
        here = threading.get_ident()
        with self._guard:
            self._open[here] -= 1
            if not self._open[here]:
                del self._open[here]
                _restore(self._own.found)
            if not self._open:
                _restore(self._found)

    def forget_other_threads(self) -> None:
        """In a forked child, which has none of them: their blocks never end there."""
        here, before = threading.get_ident(), self._open
        self._guard = threading.Lock()
        self._open = {here: before[here]} if here in before else {}
        if before and not self._open:
            _restore(self._found)


def _blas() -> list[Any]:
    return [lib for lib in _controller().lib_controllers if lib.user_api == "blas"]


def _counts_by_caller(library: Any) -> bool:
    layer = getattr(library, "threading_layer", None)
    return library.internal_api == "mkl" or layer == "openmp"


def _limit_to_one(libraries: Iterable[Any]) -> list[tuple[Any, int]]:
    """Set each library to one thread; returns those that had another number, with it."""
    found = [(library, library.num_threads) for library in libraries]
    changed = [(library, count) for library, count in found if count != 1]
    _restore([(library, 1) for library, _ in changed])
    return changed


def _restore(found: Iterable[tuple[Any, int]]) -> None:
    """Set each library to its number of threads, whichever thread has set it before.

    `set_num_threads` of threadpoolctl 3.8 does nothing while another thread has a limit open.
    """
    for library, count in found:
        getattr(library, "_real_set_num_threads", library.set_num_threads)(count)


_ONE_THREAD = _OneThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_ONE_THREAD.forget_other_threads)


def _solve_lower(L: Array, B: Array, transpose: bool = False) -> Array:
    """Return `L^-1 B` or `L^-T B` for a Fortran-ordered lower triangle."""
    if not len(L):
        return B.copy()
    solution, info = lapack.dtrtrs(L, B, lower=1, trans=int(transpose))
    if info:
        raise NumericalError(f"triangular solve failed, LAPACK info {info}")
    return np.asarray(solution, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Factor:
    """Cholesky factor of `K + jitter I` in the two levels described at the head of the module.

    Args:
        head: `n x n`, lower triangle.
        cross: `t x n`, appended rows to the left of `tail`.
        tail: `t x t`, lower triangle.
        jitter: amount added to the diagonal before it could be factorized.
        condition: estimate of the 1-norm condition number of the head.

    Example:
        >>> factor = cholesky(np.array([[4.0]])).append(np.array([2.0]), 5.0)
        >>> len(factor)
        2
        >>> factor.solve(np.array([2.0, 5.0])).round(3).tolist()
        [0.0, 1.0]
    """

    head: Array
    cross: Array
    tail: Array
    jitter: float
    condition: float

    def __len__(self) -> int:
        return len(self.head) + len(self.tail)

    def half_solve(self, B: Array) -> Array:
        """Return `L^-1 B` for `B` `(n,)` or `n x m`."""
        n = len(self.head)
        top = _solve_lower(self.head, B[:n])
        if not len(self.tail):
            return top
        bottom = _solve_lower(self.tail, B[n:] - self.cross @ top)
        return np.concatenate([top, bottom])

    def solve(self, B: Array) -> Array:
        """Return `K^-1 B` for `B` `(n,)` or `n x m`."""
        n = len(self.head)
        half = self.half_solve(B)
        if not len(self.tail):
            return _solve_lower(self.head, half, transpose=True)
        bottom = _solve_lower(self.tail, half[n:], transpose=True)
        top = _solve_lower(self.head, half[:n] - self.cross.T @ bottom, transpose=True)
        return np.concatenate([top, bottom])

    def log_determinant(self) -> float:
        """Return `ln det K`."""
        diagonals = np.concatenate([np.diagonal(self.head), np.diagonal(self.tail)])
        return float(2.0 * np.sum(np.log(diagonals)))

    def inverse_diagonal(self) -> Array:
        """Return `diag(K^-1)`, `(n,)`, the sums of squares of the columns of `L^-1`."""
        return np.asarray(np.sum(self.half_solve(np.eye(len(self))) ** 2, axis=0))

    def inverse_diagonal_of_last(self, count: int) -> Array:
        """Return the last `count` entries of `inverse_diagonal`, in O(count^3)."""
        return np.asarray(np.sum(self._inverse_root_of_last(count) ** 2, axis=0))

    def inverse_of_last(self, count: int) -> Array:
        """Return the last `count` rows and columns of `K^-1`, in O(count^3)."""
        root = self._inverse_root_of_last(count)
        return np.asarray(root.T @ root)

    def _inverse_root_of_last(self, count: int) -> Array:
        """Return the last `count` rows and columns of `L^-1`.

        The last columns of `L^-1` are zero above, so they need the last rows of L alone.
        """
        count = min(count, len(self))
        above = max(count - len(self.tail), 0)  # rows that lie in the head
        h, t = len(self.head) - above, max(len(self.tail) - count, 0)
        corner = np.zeros((count, count), order="F")
        corner[:above, :above] = self.head[h:, h:]
        corner[above:, :above] = self.cross[t:, h:]
        corner[above:, above:] = self.tail[t:, t:]
        return _solve_lower(corner, np.eye(count))

    def append(self, k: Array, variance: float) -> Factor:
        """Return the factor of the matrix bordered by one more row.

        A pivot that rounding has made too small is raised to the first step of the jitter ladder.

        Args:
            k: `(n + t,)`, covariances of the new row with the present ones.
            variance: variance of the new row, noise included.
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
    """Factorize `K`, raising the jitter until the condition estimate is sound.

    Args:
        K: `n x n`, symmetric; left unchanged.

    Returns:
        The factor of `K + jitter I`.

    Raises:
        NumericalError: if `K` holds a number that is not finite or no jitter suffices.

    Example:
        >>> cholesky(np.array([[4.0, 2.0], [2.0, 5.0]])).head.round(3).tolist()
        [[2.0, 0.0], [1.0, 2.0]]
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
    """Return `-ln N(y; 0, K)` without its constant `n ln(2 pi) / 2`, and its derivative in `K`.

    Rasmussen & Williams (2006), eqs. 5.8 and 5.9, with `w = K^-1 y`::

        (y^T w + ln det K) / 2,      (K^-1 - w w^T) / 2

    One potrf and one potri, no jitter: a line search that meets the error steps back.

    Args:
        K: `n x n`, n >= 1; overwritten if in Fortran order.
        y: `(n,)`.

    Returns:
        The value and its derivative, `n x n`.

    Raises:
        NumericalError: if `K` is not positive definite.

    Example:
        >>> value, slope = negative_log_density(np.array([[4.0]]), np.array([2.0]))
        >>> round(value, 3), slope.round(3).tolist()
        (1.193, [[0.0]])
    """
    value, slope, _ = negative_log_density_terms(K, y)
    return value, slope


def negative_log_density_terms(K: Array, y: Array) -> tuple[float, Array, Array]:
    """Return `negative_log_density` and its derivatives in `K` and in `y`, which is `K^-1 y`.

    Args:
        K: `n x n`, n >= 1; overwritten if in Fortran order.
        y: `(n,)`.

    Returns:
        The value, its derivative in `K`, `n x n`, and its derivative in `y`, `(n,)`.

    Raises:
        NumericalError: if `K` is not positive definite.

    Example:
        >>> _, _, slope = negative_log_density_terms(np.array([[4.0]]), np.array([2.0]))
        >>> slope.tolist()
        [0.5]
    """
    value, inverse, weights = lower_inverse(K, y, clean=True)
    inverse += np.tril(inverse, -1).T
    inverse -= np.outer(weights, weights)
    inverse *= 0.5
    return value, np.asarray(inverse, dtype=np.float64), weights


def lower_inverse(K: Array, y: Array, *, clean: bool = False) -> tuple[float, Array, Array]:
    """Return `(y^T w + ln det K) / 2`, `K^-1` and `w = K^-1 y` from the lower triangle of `K`.

    Args:
        K: `n x n`, n >= 1; overwritten if in Fortran order.
        y: `(n,)`.
        clean: whether the upper triangle of the inverse is zero; else it is not defined.

    Returns:
        The value, the lower triangle of the inverse, `n x n`, and w, `(n,)`.

    Raises:
        NumericalError: if `K` is not positive definite.

    Example:
        >>> _, inverse, w = lower_inverse(np.array([[4.0]]), np.array([2.0]))
        >>> inverse.tolist(), w.tolist()
        ([[0.25]], [0.5])
    """
    L, info = lapack.dpotrf(K, lower=1, clean=int(clean), overwrite_a=1)
    if info:
        raise NumericalError(f"a {len(K)} x {len(K)} covariance matrix is not positive definite")
    weights, _ = lapack.dpotrs(L, y, lower=1)
    value = 0.5 * float(y @ weights) + float(np.sum(np.log(np.diagonal(L))))
    inverse, _ = lapack.dpotri(L, lower=1, overwrite_c=1)
    return value, inverse, weights


def bounded_exp(x: float) -> float:
    """Return `exp(x)` with the exponent held in [-700, 700], so that it is finite and positive.

    Args:
        x: exponent, any finite or infinite number.

    Example:
        >>> bounded_exp(0.0), bounded_exp(1e9) < np.inf
        (1.0, True)
    """
    return math.exp(min(max(x, -_LARGEST_EXPONENT), _LARGEST_EXPONENT))


@cache
def normal_half_width(coverage: float) -> float:
    """Return the half width of the central normal interval, in standard deviations.

    Args:
        coverage: probability of the interval, in (0, 1).

    Example:
        >>> normal_half_width(0.9)
        1.6448536269514722
    """
    return float(ndtri(0.5 * (1.0 + coverage)))


def radical_inverse(index: int, base: int = 2) -> float:
    """Return a point of the van der Corput sequence.

    It mirrors the digits of `index` at the radix point. Every prefix of the sequence covers [0, 1)
    evenly. Sequences in different prime bases together form the Halton sequence.

    Args:
        index: position in the sequence, >= 0; index 0 gives 0.
        base: radix, >= 2.

    Example:
        >>> [radical_inverse(index) for index in range(1, 5)]
        [0.5, 0.25, 0.75, 0.125]
    """
    value, denominator = 0.0, 1.0
    while index:
        index, digit = divmod(index, base)
        denominator *= base
        value += digit / denominator
    return value


def kronecker(index: int, step: float) -> float:
    """Return a point of the Kronecker sequence `(index + 1/2) step mod 1`.

    With an irrational `step`, every prefix of the sequence covers [0, 1) evenly, so "take the
    second choice where the point is below a share" gives each choice its share at any time.

    Args:
        index: position in the sequence, >= 0.
        step: irrational number, such as the golden ratio.

    Example:
        >>> [round(kronecker(index, 0.5 * (5.0**0.5 - 1.0)), 2) for index in range(4)]
        [0.31, 0.93, 0.55, 0.16]
    """
    return (index + 0.5) * step % 1.0
