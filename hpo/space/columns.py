"""Columns of encoded rows: how one parameter becomes one column, and which columns are active.

Notation as in `hpo.space.encoding`. The *number* of a value is the value itself, and the index of a
choice for a categorical parameter. A column maps numbers to entries::

    x = (natural - anchor) / width + offset,    natural = unit.to_natural(number)
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from hpo.space.parameters import Categorical, Fidelity, Float, Int, Parameter, Scale, condition
from hpo.space.search_space import SearchSpace
from hpo.space.units import Unit
from surrogates.data import ColumnKind, Columns

__all__ = ["SPREAD", "Column", "Group", "described", "laid_out"]

Array: TypeAlias = NDArray[np.float64]

NEUTRAL = 0.5
#: One spread of an unbounded parameter in x: the box [0, 1] is center +- two spreads.
SPREAD = 0.25


@dataclass(frozen=True, slots=True)
class Column:
    """One parameter's column.

    Attributes:
        name: name of the parameter.
        parameter: parameter as declared.
        unit: unit of the column, which may be LOG for a parameter declared linear.
        index: position of the column in a row.
        kind: kind of the column, for the surrogates.
        anchor: natural value at x = `offset`.
        width: natural length of the unit interval.
        offset: entry at `anchor`.
        floor: least entry, -inf where the parameter has no lower bound.
        ceiling: largest entry, inf where the parameter has no upper bound.
    """

    name: str
    parameter: Parameter
    unit: Unit
    index: int
    kind: ColumnKind
    anchor: float
    width: float
    offset: float
    floor: float
    ceiling: float

    @property
    def single(self) -> bool:
        """Whether the parameter has one value only."""
        return self.floor == self.ceiling

    @property
    def bounded(self) -> bool:
        """Whether both limits are finite."""
        return math.isfinite(self.floor) and math.isfinite(self.ceiling)

    @property
    def neutral(self) -> float:
        """Entry of an inactive parameter."""
        return 0.0 if self.kind is ColumnKind.CATEGORICAL else NEUTRAL

    @property
    def center(self) -> float:
        """Entry of the parameter's center.

        Without one it is the first choice, the middle of the range, the lowest scale or the
        highest fidelity.
        """
        center = None if isinstance(self.parameter, Scale | Fidelity) else self.parameter.center
        if center is not None:
            return float(self.entries([center])[0])
        if self.kind in (ColumnKind.CATEGORICAL, ColumnKind.SCALE):
            return self.floor
        return self.ceiling if self.kind is ColumnKind.FIDELITY else NEUTRAL

    @property
    def step(self) -> float:
        """Typical distance of two lattice entries; 0 if continuous, unordered or not tuned."""
        if self.single or self.kind is not ColumnKind.DECISION or self.parameter.step is None:
            return 0.0
        step = self.parameter.step
        if self.unit is Unit.LINEAR:
            return step / self.width
        assert isinstance(self.parameter, Int)
        low, high = self.parameter.limits
        middle = self.parameter.center or math.sqrt(low * high)
        return math.log1p(step / middle) / self.width

    def within(self, lower: float, upper: float, *, extrapolate: bool) -> Column:
        """Return the same column with the entries [`lower`, `upper`] as its limits.

        Args:
            lower: least entry, which is cut at the limits of the parameter.
            upper: largest entry, likewise.
            extrapolate: whether only the physical limits of the parameter hold.
        """
        parameter = self.parameter
        if not isinstance(parameter, Float | Int):
            floor, ceiling = np.clip([lower, upper], self.floor, self.ceiling).tolist()
            return replace(self, floor=floor, ceiling=ceiling)
        ends = self.unit.from_natural(self.to_natural(np.array([lower, upper])))
        low, high = (parameter.canonical(end, extrapolate=extrapolate) for end in ends.tolist())
        floor, ceiling = self.entries([low, high]).tolist()
        parameter = replace(parameter, low=low, high=high, center=None, spread=None)  # type: ignore[arg-type]  # ints for an Int
        return replace(self, parameter=parameter, floor=floor, ceiling=ceiling)

    def to_x(self, natural: Array) -> Array:
        """Return the entries of natural values."""
        return (natural - self.anchor) / self.width + self.offset

    def to_natural(self, x: Array) -> Array:
        """Return the natural values of entries."""
        return (x - self.offset) * self.width + self.anchor

    def entries(self, values: Sequence[Any]) -> Array:
        """Return the entries of legal values."""
        return self.entries_of_numbers(numbers(self.parameter, values, self.name))

    def entries_of_numbers(self, numbers: Array) -> Array:
        """Return the entries of numbers."""
        return self.to_x(self.unit.to_natural(numbers))

    def values(self, x: Array) -> list[Any]:
        """Return the canonical values nearest to entries."""
        parameter = self.parameter
        if isinstance(parameter, Categorical):
            return [parameter.choices[int(i)] for i in self.lattice(x)]
        if parameter.step is not None:
            return [parameter.canonical(int(v)) for v in self.lattice(x)]
        natural = self.to_natural(x)
        return [parameter.canonical(v) for v in self.unit.from_natural(natural).tolist()]

    def lattice(self, x: Array) -> Array:
        """Return the numbers nearest to entries of a discrete column."""
        return self.nearest_numbers(self.to_natural(x))

    def nearest_numbers(self, natural: Array) -> Array:
        """Return the numbers nearest to natural values of a discrete column."""
        step = self.parameter.step
        assert step is not None
        whole: Array = step * np.rint(self.unit.from_natural(natural) / step)
        return np.clip(whole, *self.parameter.limits)

    def snapped(self, x: Array) -> Array:
        """Return the legal entries nearest to `x`; entries outside are reflected inside first."""
        x = self._reflected(x)
        if self.parameter.step is None or self.single:
            return x
        return self.entries_of_numbers(self.lattice(x))

    def spread(self, u: Array, lower: float, upper: float) -> Array | None:
        """Return entries at the shares `u` of [`lower`, `upper`], equal shares for equal choices.

        None stands for the even spread of a continuous column.
        """
        if self.kind is ColumnKind.CATEGORICAL:
            return np.minimum(np.floor(u * (self.ceiling + 1.0)), self.ceiling)
        if self.kind is ColumnKind.FIDELITY:
            return np.full(len(u), self.ceiling)
        if self.parameter.step is None or not lower < upper:
            return None
        # Half a step beyond the ends, or the end values would get half a share.
        first, last = self.lattice(np.array([lower, upper]))
        half = 0.5 * self.parameter.step
        ends = self.unit.to_natural(np.array([first - half, last + half]))
        whole = self.nearest_numbers(ends[0] + u * (ends[1] - ends[0]))
        return self.entries_of_numbers(np.clip(whole, first, last))

    def listed(self, limit: int) -> Array | None:
        """Return every entry at full fidelity if there are at most `limit`, else None."""
        if self.kind is ColumnKind.FIDELITY or self.single:
            return np.array([self.ceiling])
        step = self.parameter.step
        if step is None or not self.bounded:
            return None
        low, high = self.parameter.limits
        if (high - low) // step >= limit:
            return None
        return self.entries_of_numbers(np.arange(low, high + 1, step, dtype=np.float64))

    def _reflected(self, x: Array) -> Array:
        """Return `x` folded into [floor, ceiling]; entries inside are returned bit for bit."""
        floor, ceiling = self.floor, self.ceiling
        if floor == ceiling:
            return np.full_like(x, floor)
        outside = (x < floor) | (x > ceiling)
        if not outside.any():
            return x
        folded = x.copy()
        if math.isinf(ceiling):
            folded[outside] = 2 * floor - x[outside]
        elif math.isinf(floor):
            folded[outside] = 2 * ceiling - x[outside]
        else:
            span = ceiling - floor
            phase = np.mod((x[outside] - floor) / span, 2.0)
            folded[outside] = np.clip(floor + span * np.minimum(phase, 2.0 - phase), floor, ceiling)
        return folded


@dataclass(frozen=True, slots=True)
class Group:
    """The parameters that share one `when`.

    Attributes:
        index: position of their ACTIVITY column.
        parent: column of the parent.
        parent_activity: position of the parent's own ACTIVITY column, None if always active.
        activating: numbers of the parent under which they are active.
        members: their columns.
    """

    index: int
    parent: Column
    parent_activity: int | None
    activating: Array
    members: tuple[Column, ...]

    def active(self, X: Array) -> NDArray[np.bool_]:
        """Return in which rows of `X` the group is active; the parent's activity is set before."""
        active = np.isin(self.parent.lattice(X[:, self.parent.index]), self.activating)
        if self.parent_activity is not None:
            active &= X[:, self.parent_activity] == 1
        return active


def numbers(parameter: Parameter, values: Sequence[Any], name: str) -> Array:
    """Return the numbers of legal values: indices of choices, the values themselves otherwise."""
    if isinstance(parameter, Categorical):
        values = [parameter.index(value, name) for value in values]
    return np.array(values, dtype=np.float64)


def laid_out(
    space: SearchSpace, log_axes: Collection[str]
) -> tuple[tuple[Column, ...], tuple[Group, ...]]:
    """Return columns in the order of the space, and groups with parents before children."""
    members: dict[tuple[str, tuple[Any, ...]], list[str]] = {}
    for name in space.parents_first:
        when = condition(space[name])
        if when is not None:
            members.setdefault((when[0], tuple(when[1])), []).append(name)
    last = () if space.fidelity is None else (space.fidelity,)
    order = [*space.decisions, *members, *space.scales, *last]  # a group stands for its column
    units = {name: Unit.LOG if name in log_axes else space[name].unit for name in space}
    columns = {name: _column(name, space[name], units[name], order.index(name)) for name in space}
    groups: list[Group] = []
    group_of: dict[str, int] = {}
    for (parent, values), names in members.items():
        index = order.index((parent, values))
        group_of |= dict.fromkeys(names, index)
        groups.append(
            Group(
                index=index,
                parent=columns[parent],
                parent_activity=group_of.get(parent),
                activating=numbers(space[parent], values, parent),
                members=tuple(columns[name] for name in names),
            )
        )
    return tuple(columns.values()), tuple(groups)


def described(columns: Sequence[Column], groups: Sequence[Group]) -> Columns:
    """Return what each column means to a surrogate."""
    d = len(columns) + len(groups)
    kinds, names, categories = [ColumnKind.ACTIVITY] * d, [""] * d, [2] * d
    origin, width, relative = np.zeros(d), np.ones(d), [False] * d
    for group in groups:
        names[group.index] = f"active: {', '.join(member.name for member in group.members)}"
    for column in columns:
        j = column.index
        kinds[j], names[j], categories[j] = column.kind, column.name, 0
        if column.kind is ColumnKind.CATEGORICAL:
            categories[j] = int(column.ceiling) + 1
        else:
            origin[j], width[j] = column.anchor - column.offset * column.width, column.width
            relative[j] = column.unit is not Unit.LINEAR
    return Columns(tuple(kinds), tuple(names), origin, width, tuple(categories), tuple(relative))


def _column(name: str, parameter: Parameter, unit: Unit, index: int) -> Column:
    """Return the column of `parameter`: where it is anchored and how far it reaches."""

    def natural(number: float) -> float:
        return float(unit.to_natural(np.array([number]))[0])

    def column(
        kind: ColumnKind, anchor: float, width: float, offset: float, floor: float, ceiling: float
    ) -> Column:
        return Column(name, parameter, unit, index, kind, anchor, width, offset, floor, ceiling)

    kind = {Scale: ColumnKind.SCALE, Fidelity: ColumnKind.FIDELITY}.get(
        type(parameter), ColumnKind.DECISION
    )
    if isinstance(parameter, Categorical) and not parameter.ordered:
        return column(ColumnKind.CATEGORICAL, 0.0, 1.0, 0.0, 0.0, float(parameter.limits[1]))
    if isinstance(parameter, Float | Int) and not parameter.bounded:
        assert parameter.center is not None and parameter.spread is not None
        anchor = natural(float(parameter.center))
        width = parameter.spread / SPREAD
        floor, ceiling = -math.inf, math.inf
        if parameter.low is not None:
            floor = (natural(parameter.low) - anchor) / width + NEUTRAL
        if parameter.high is not None:
            ceiling = (natural(parameter.high) - anchor) / width + NEUTRAL
        return column(kind, anchor, width, NEUTRAL, floor, ceiling)
    low, high = (natural(number) for number in parameter.limits)
    if low == high:
        return column(kind, low, 1.0, NEUTRAL, NEUTRAL, NEUTRAL)
    return column(kind, low, high - low, 0.0, 0.0, 1.0)
