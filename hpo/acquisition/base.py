"""The contract of an acquisition: a sum of log terms with derivatives, larger is better.

Every term maps encoded rows `X` m x d to `(m,)` logarithms. Random numbers that a term needs are
drawn when it is built, so asking twice gives the same answer. A term never returns NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from surrogates.data import Array


class Term(Protocol):
    """One summand of a log acquisition; write your own by giving it these two methods.

    Example:
        A term that prefers rows near the origin:

        >>> class NearOrigin:
        ...     def value(self, X):
        ...         return -np.sum(X**2, axis=1)
        ...
        ...     def gradient(self, X):
        ...         return self.value(X), -2.0 * X
        >>> Sum((NearOrigin(), NearOrigin())).value(np.array([[0.0, 0.5]])).tolist()
        [-0.5]
    """

    def value(self, X: Array) -> Array:
        """Return the logarithms at the rows of `X`, `(m,)`; minus infinity is allowed.

        Args:
            X: Encoded rows, m x d.
        """
        ...

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return `value` and its derivatives, m x d, zero in categorical columns.

        Args:
            X: Encoded rows, m x d.
        """
        ...


@dataclass(frozen=True, slots=True)
class Sum:
    """Sum of terms, `sum_i term_i(X)`; itself a term.

    Attributes:
        terms: Terms to add; the sum of none is zero.

    Raises:
        FloatingPointError: When a term returns NaN, naming the term: a numerical fault must not
            become a silent preference.

    Example:
        >>> from hpo.acquisition import TrustRegion
        >>> near = TrustRegion(np.zeros((1, 1)), np.ones(1), np.array([0]))
        >>> Sum((near, near)).value(np.array([[1.0]])).round(3).tolist()  # 2 ln(1 / 2)
        [-1.386]
    """

    terms: tuple[Term, ...]

    def value(self, X: Array) -> Array:
        """Return the sum of the terms, `(m,)`."""
        total = np.zeros(len(X))
        for term in self.terms:
            total += _checked(term, term.value(X))
        return total

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return the sum of the terms and its derivatives, m x d."""
        total, slope = np.zeros(len(X)), np.zeros(X.shape)
        for term in self.terms:
            value, gradient = term.gradient(X)
            total += _checked(term, value)
            slope += gradient
        return total, slope


def _checked(term: Term, value: Array) -> Array:
    if np.any(np.isnan(value)):
        row = int(np.flatnonzero(np.isnan(value))[0])
        raise FloatingPointError(f"{type(term).__name__} is NaN at candidate row {row}")
    return value
