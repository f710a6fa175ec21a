"""Pareto fronts: of loss against cost, with the area it dominates, and of several objectives.

In arrays smaller is better; infinities are allowed, NaN is not. :class:`Objectives` says what a
study with several objectives wants, in the user's names and directions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from hpo.space import Direction
from hpo.space.arguments import Member, Number, OneOf, Table
from hpo.space.scalars import shown
from hpo.trials.records import Observation
from surrogates.data import Array, IntArray

__all__ = ["Constraint", "Objectives", "front", "hypervolume", "pareto_set"]

_SIDES = OneOf(("<=", ">="))
_WAY_OUT = 'write constraints={"memory": ("<=", 80e9)}'


@dataclass(frozen=True, slots=True)
class Constraint:
    """Limit on one value that a run returns.

    Attributes:
        side: "<=" or ">=".
        limit: The limit, finite.

    Example:
        >>> memory = Constraint("<=", 80.0)
        >>> memory.keeps(79.0), memory.keeps(81.0)
        (True, False)
    """

    side: str
    limit: float

    def keeps(self, value: float) -> bool:
        """Return whether a value keeps the limit."""
        return value <= self.limit if self.side == "<=" else value >= self.limit

    def __str__(self) -> str:
        return f"{self.side} {self.limit:.6g}"


@dataclass(frozen=True, slots=True)
class Objectives:
    """Objectives and constraints of a study.

    The loss of a run is its first objective, which schedulers see and predictions are of. The other
    values are among the metrics of the run; "cost" is its cost.

    Attributes:
        directions: Direction of each objective, by name, in order.
        constraints: Constraint on each value that has one, by name.

    Example:
        >>> wanted = Objectives.of({"loss": "minimize", "speed": "maximize"}, {"memory": ("<=", 8)})
        >>> wanted.names, str(wanted)
        (('loss', 'speed', 'memory'), 'minimize loss, maximize speed, memory <= 8')
    """

    directions: dict[str, Direction]
    constraints: dict[str, Constraint]

    @classmethod
    def of(
        cls,
        objectives: Mapping[str, str | Direction] | None,
        constraints: Mapping[str, tuple[str, float]] | None,
    ) -> Self | None:
        """Return what a user asks for; None where it is one loss and nothing else.

        Args:
            objectives: "minimize" or "maximize" by name; None for the loss alone.
            constraints: Pair of "<=" or ">=" and a limit by name; None for none.

        Raises:
            ValueError: For a name, direction or constraint that breaks a rule.
        """
        given = Table(optional=True, way_out='write {"loss": "minimize", "latency": "minimize"}')(
            objectives, "`objectives`"
        )
        limits = Table(optional=True, way_out=_WAY_OUT)(constraints, "`constraints`") or {}
        if given is not None and not given:
            raise ValueError("`objectives` must name at least one, got {}; None means the loss")
        direction = Member(Direction, way_out="pick one")
        found = cls(
            {name: direction(d, f"`objectives[{name!r}]`") for name, d in (given or {}).items()},
            {name: _constraint(name, limit) for name, limit in limits.items()},
        )
        if given is None and not limits:
            return None
        if given is not None and len(given) == 1 and not limits:
            raise ValueError(
                f"`objectives` needs a second objective or `constraints`, got {shown(given)}; for"
                ' one objective write direction="maximize" or leave both out'
            )
        return found

    def with_direction(self, direction: Direction) -> Objectives:
        """Return these with the loss as the one objective where none was named.

        Args:
            direction: Direction of the loss.
        """
        if self.directions:
            return self
        return Objectives({"loss": direction}, self.constraints)

    @property
    def first(self) -> str:
        """Name of the first objective, which is the loss of a run."""
        return next(iter(self.directions))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of every value that a run must return, objectives first."""
        return tuple(dict.fromkeys([*self.directions, *self.constraints]))

    def _known(self, observation: Observation) -> dict[str, float]:
        """Return those of the values that a run has told, by name."""
        known: dict[str, Any] = {}
        for report in observation.reports:
            known.update(report.metrics)
        known.update(observation.metrics)
        known |= {"cost": observation.cost, self.first: observation.loss}
        return {n: known[n] for n in self.names if isinstance(known.get(n), int | float)}

    def missing(self, observation: Observation) -> tuple[str, ...]:
        """Return the names of the values that a run has not told.

        Args:
            observation: Result of a run, or of a stage.
        """
        known = self._known(observation)
        return tuple(name for name in self.names if name not in known)

    def values(self, observation: Observation) -> dict[str, float] | None:
        """Return the values of a run by name; None unless it has all of them, finite.

        A metric is what was returned, else what was reported last.

        Args:
            observation: Result of a run, or of a stage.
        """
        known = self._known(observation)
        complete = len(known) == len(self.names) and all(map(math.isfinite, known.values()))
        return {name: float(known[name]) for name in self.names} if complete else None

    def feasible(self, values: Mapping[str, float]) -> bool:
        """Return whether values keep every constraint.

        Args:
            values: Values by name.
        """
        return all(limit.keeps(values[name]) for name, limit in self.constraints.items())

    def losses(self, values: Mapping[str, float]) -> list[float]:
        """Return the objectives, smaller is better.

        Args:
            values: Values by name.
        """
        return [direction.sign * values[name] for name, direction in self.directions.items()]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values, from which `of` restores equal objectives.

        Example:
            >>> wanted = Objectives.of({"loss": "minimize"}, {"memory": ("<=", 8)})
            >>> Objectives.of(**wanted.to_json()) == wanted
            True
        """
        return {
            "objectives": {name: d.value for name, d in self.directions.items()},
            "constraints": {name: [c.side, c.limit] for name, c in self.constraints.items()},
        }

    def __str__(self) -> str:
        wanted = [f"{direction.value} {name}" for name, direction in self.directions.items()]
        return ", ".join([*wanted, *(f"{n} {limit}" for n, limit in self.constraints.items())])


def _constraint(name: str, given: object) -> Constraint:
    what = f"`constraints[{name!r}]`"
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise ValueError(
            f"{what} must be a pair of a side and a limit, got {shown(given)}; {_WAY_OUT}"
        )
    side = _SIDES(given[0], f"the side of {what}")
    return Constraint(side, float(Number(way_out=_WAY_OUT)(given[1], f"the limit of {what}")))


def pareto_set(Y: ArrayLike) -> IntArray:
    """Return the indices of the points that no other point dominates, in order.

    Of points that are equal in everything only the first is returned.

    Args:
        Y: `n x k`, points, smaller is better.

    Example:
        >>> pareto_set([[1, 4, 0], [2, 2, 0], [3, 3, 0], [2, 2, 0]]).tolist()
        [0, 1]
    """
    points = np.asarray(Y, dtype=np.float64)
    if len(points) == 0:
        return np.zeros(0, dtype=np.intp)
    as_good = np.all(points[:, None] <= points[None], axis=2)  # i is as good as j
    equal = as_good & as_good.T
    earlier = np.tri(len(points), k=-1, dtype=bool).T  # i comes before j
    beaten = np.any(as_good & (~equal | earlier), axis=0)
    return np.flatnonzero(~beaten)


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
