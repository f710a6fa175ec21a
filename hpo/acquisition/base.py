"""What an acquisition is: a sum of log terms, larger is better, with derivatives.

Every term maps encoded rows ``X`` m x d to ``(m,)`` logarithms. Random numbers a term needs are
drawn when it is built, so asking twice gives the same answer. A term never returns NaN.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from surrogates.data import Array


class Term(Protocol):
    """One summand of a log acquisition."""

    def value(self, X: Array) -> Array:
        """``(m,)`` for rows ``X`` m x d; may be -inf."""
        ...

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """:meth:`value` and its derivatives m x d, zero in categorical columns."""
        ...


@dataclass(frozen=True, slots=True)
class Sum:
    """``sum_i term_i(X)``; itself a term.

    Raises:
        FloatingPointError: when a term returns NaN, naming the term: a numerical fault must not
            become a silent preference.
    """

    terms: tuple[Term, ...]

    def value(self, X: Array) -> Array:
        total = np.zeros(len(X))
        for term in self.terms:
            total += _checked(term, term.value(X))
        return total

    def gradient(self, X: Array) -> tuple[Array, Array]:
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
