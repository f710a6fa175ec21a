"""The front of loss against cost: who is on it, its staircase, the area it dominates.

Notation
--------
loss, cost   (n,), both smaller is better; infinities are allowed, NaN is not
F(c)         the staircase min {loss_i : cost_i <= c}, infinite below the cheapest point
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import ArrayLike

from surrogates.data import Array, IntArray

__all__ = ["Staircase", "front", "hypervolume"]


def front(loss: ArrayLike, cost: ArrayLike) -> IntArray:
    """Indices of the points that no other point beats, from cheap to dear.

    A point is beaten by one that is no worse in both and better in one. Of points equal in both,
    the first stands for all. So cost rises and loss falls strictly along the front.

    Raises `ValueError` when shapes differ or a number is NaN.
    """
    losses, costs = _checked(loss, cost)
    order = np.lexsort((losses, costs))  # stable: of equal points the first comes first
    sorted_losses = losses[order]
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], sorted_losses]))[:-1]
    on_front = sorted_losses < best_before
    if len(order) and not on_front.any():  # every loss is infinite: the cheapest is not beaten
        on_front[0] = True
    return order[on_front]


@dataclass(frozen=True, slots=True)
class Staircase:
    """F(c), the best loss that a cost up to c has bought.

    `cost`: `(k,)`, strictly rising. `loss`: `(k,)`, strictly falling. k may be 0.
    """

    cost: Array
    loss: Array

    @classmethod
    def of(cls, loss: ArrayLike, cost: ArrayLike) -> Self:
        """The staircase of the points `(loss, cost)`, each `(n,)`; raises as `front` does."""
        losses, costs = _checked(loss, cost)
        members = front(losses, costs)
        return cls(cost=costs[members], loss=losses[members])

    def value(self, cost: ArrayLike) -> Array:
        """F at `cost`, any shape; infinite below the cheapest point."""
        steps = np.concatenate([[np.inf], self.loss])
        return np.asarray(steps[np.searchsorted(self.cost, cost, side="right")])


def hypervolume(loss: ArrayLike, cost: ArrayLike, reference: tuple[float, float]) -> float:
    """Area dominated by the points and bounded by `reference = (loss, cost)`, by one sweep.

    Points that do not beat the reference in both add nothing. Raises as `front` does.
    """
    losses, costs = _checked(loss, cost)
    worst_loss, worst_cost = reference
    inside = (losses < worst_loss) & (costs < worst_cost)
    losses, costs = losses[inside], costs[inside]
    members = front(losses, costs)
    # Each front point owns the strip from its cost to that of the next one.
    widths = np.diff(np.append(costs[members], worst_cost))
    return float(np.sum(widths * (worst_loss - losses[members])))


def _checked(loss: ArrayLike, cost: ArrayLike) -> tuple[Array, Array]:
    losses, costs = np.asarray(loss, dtype=np.float64), np.asarray(cost, dtype=np.float64)
    if losses.ndim != 1 or losses.shape != costs.shape:
        raise ValueError(
            f"`loss` and `cost` must be of one length, got "
            f"{losses.shape} and {costs.shape}; pass (n,) each"
        )
    for name, values in (("loss", losses), ("cost", costs)):
        if np.isnan(values).any():
            row = int(np.flatnonzero(np.isnan(values))[0])
            raise ValueError(f"`{name}` must not be NaN, got NaN at {row}; leave failed trials out")
    return losses, costs
