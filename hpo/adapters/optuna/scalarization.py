"""One loss made of several objectives: the augmented Tchebycheff norm of ParEGO.

Knowles, IEEE Transactions on Evolutionary Computation 10 (2006), equation 2. Each trial has weights
of its own, so that together the trials cover the front.

Notation
--------
k        number of objectives
f_i      value of objective i, its sign turned so that less is better, in units of its spread
w_i      weight of objective i, >= 0; they sum to 1
loss     max_i w_i f_i + rho sum_i w_i f_i
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surrogates.numerics import radical_inverse

__all__ = ["Scalarization", "weights"]

_AUGMENTED = 0.05  # rho, Knowles' value
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29)


@dataclass(frozen=True, slots=True)
class Scalarization:
    """One way to trade objectives off against each other.

    Attributes:
        weights: `(k,)`, non-negative, summing to 1.
        seen: Values of all objectives in earlier trials, `(m, k)`; they fix origin and unit of each
            objective. Without any, values count as they are.

    Example:
        >>> equal = Scalarization((0.5, 0.5), seen=((0.0, 0.0), (1.0, 2.0), (2.0, 4.0)))
        >>> equal.loss([1.0, 2.0], signs=[1.0, 1.0])  # both one median above their best
        0.55
    """

    weights: tuple[float, ...]
    seen: tuple[tuple[float, ...], ...]

    def loss(self, values: Sequence[float], signs: Sequence[float]) -> float:
        """Return the scalarized loss of one trial, to be minimized.

        Args:
            values: Value of each objective, `(k,)`.
            signs: 1 for each objective to be minimized, -1 for each to be maximized, `(k,)`.
        """
        turned = np.asarray(signs) * np.asarray(values)
        seen = np.asarray(signs) * np.array(self.seen).reshape(-1, len(signs))
        if len(seen):
            ideal = seen.min(axis=0)
            width = np.median(seen, axis=0) - ideal
            width = np.where(width > 0, width, seen.max(axis=0) - ideal)
            turned = (turned - ideal) / np.where(width > 0, width, 1.0)
        weighted = np.asarray(self.weights) * turned
        return float(weighted.max() + _AUGMENTED * weighted.sum())


def weights(index: int, objectives: int) -> tuple[float, ...]:
    """Return the `index`-th weights of a sequence that covers the simplex evenly.

    They are the gaps between sorted points of a Halton sequence.

    Example:
        >>> [weights(index, 2) for index in range(3)]
        [(0.5, 0.5), (0.25, 0.75), (0.75, 0.25)]
    """
    axes = range(objectives - 1)
    points = sorted(radical_inverse(index + 1, _PRIMES[axis % len(_PRIMES)]) for axis in axes)
    return tuple(float(gap) for gap in np.diff([0.0, *points, 1.0]))
