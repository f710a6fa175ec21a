"""Pareto front of loss against cost, and the area it dominates.

Smaller is better in both; infinities are allowed, NaN is not.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from surrogates.data import Array, IntArray

__all__ = ["front", "hypervolume"]


def front(loss: ArrayLike, cost: ArrayLike) -> IntArray:
    """Return the indices of the points that no other point dominates, cheapest first.

    A point is dominated by one that is no worse in both and better in one. Of points equal in both,
    only the first is returned. So cost rises and loss falls strictly along the front.

    Args:
        loss: Losses, `(n,)`.
        cost: Costs, `(n,)`.

    Raises:
        ValueError: If shapes differ or a number is NaN.

    Example:
        >>> front(loss=[3.0, 2.0, 4.0, 1.0], cost=[1.0, 2.0, 2.0, 8.0]).tolist()
        [0, 1, 3]
    """
    losses, costs = _checked(loss, cost)
    order = np.lexsort((losses, costs))  # stable: of equal points the first comes first
    sorted_losses = losses[order]
    best_before = np.minimum.accumulate(np.concatenate([[np.inf], sorted_losses]))[:-1]
    on_front = sorted_losses < best_before
    if len(order) and not on_front.any():  # every loss is infinite: the cheapest is not dominated
        on_front[0] = True
    return order[on_front]


def hypervolume(loss: ArrayLike, cost: ArrayLike, reference: tuple[float, float]) -> float:
    """Return the area that the points dominate within a reference point, by one sweep.

    Args:
        loss: Losses, `(n,)`.
        cost: Costs, `(n,)`.
        reference: Loss and cost that bound the area. Points that are not better in both add
            nothing.

    Raises:
        ValueError: If shapes differ or a number is NaN.

    Example:
        >>> hypervolume(loss=[3.0, 1.0], cost=[1.0, 3.0], reference=(5.0, 4.0))  # 2 x 2 + 1 x 4
        8.0
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
