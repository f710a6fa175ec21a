"""The only bridge between configs and arrays, and the only place where `direction` matters.

Notation
--------
v        a value as the user writes it
natural  v, ln v or the log-odds of v, whichever the parameter is searched in
x        its column entry: x = (natural - anchor) / width + offset
X        n x d, rows of such entries

Columns, in this order: the decision parameters as the space lists them; one ACTIVITY column (0 or
1) for each distinct `when`; the scale axes; the fidelity.

=====================  =====================================================  ==================
parameter              entry                                                  searched box
=====================  =====================================================  ==================
Float, Int, bounded    0 at `low`, 1 at `high`, even in natural units         [0, 1]
Float, Int, unbounded  0.5 at `center`, 0.25 for one `spread`                 [0, 1], then grows
ordinal                index / (k - 1)                                        [0, 1]
Categorical            index, 0 .. k - 1                                      [0, k - 1]
Scale, Fidelity        ln(v / low) / ln(high / low); a target lies beyond 1   [0, 1]
of one value           0.5, with width 1                                      [0.5, 0.5]
inactive               0.5 if numeric, code 0 if categorical
=====================  =====================================================  ==================

An inactive entry is at one neutral value, so two inactive rows agree there and the ACTIVITY column
alone tells them from active ones: a kernel with a Hamming factor on that column is then positive
semi-definite, which leaving the entries out of the distance would not be.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpo.space.parameters import Categorical, Fidelity, Float, Int, Parameter, Scale, condition
from hpo.space.search_space import SearchSpace
from surrogates.data import ColumnKind, Columns

__all__ = ["Box", "Direction", "Encoder", "wide_parameters"]

Array: TypeAlias = NDArray[np.float64]
Box: TypeAlias = tuple[Array, Array]
Direction: TypeAlias = Literal["minimize", "maximize"]

NEUTRAL = 0.5
#: One spread of an unbounded parameter in x: the box [0, 1] is center +- two spreads.
SPREAD = 0.25
#: exp overflows beyond 709.8.
LOG_LIMIT = 709.0
_WIDE = 100.0  # high / low from which a linear range may be meant as a logarithmic one


@dataclass(frozen=True, slots=True)
class _Column:
    """One parameter's column. `floor`, `ceiling`: limits of x, infinite where v has no bound."""

    name: str
    parameter: Parameter
    index: int
    kind: ColumnKind
    anchor: float
    width: float
    offset: float
    floor: float
    ceiling: float

    @property
    def degenerate(self) -> bool:
        return self.kind is not ColumnKind.CATEGORICAL and self.floor == self.ceiling

    @property
    def neutral(self) -> float:
        return 0.0 if self.kind is ColumnKind.CATEGORICAL else NEUTRAL

    @property
    def start(self) -> float:
        """Where to begin without a center: first choice, middle, cheapest scale, full fidelity."""
        if self.kind in (ColumnKind.CATEGORICAL, ColumnKind.SCALE):
            return self.floor
        return self.ceiling if self.kind is ColumnKind.FIDELITY else NEUTRAL

    def to_x(self, natural: Array) -> Array:
        return (natural - self.anchor) / self.width + self.offset

    def to_natural(self, x: Array) -> Array:
        return (x - self.offset) * self.width + self.anchor


@dataclass(frozen=True, slots=True)
class _Group:
    """The parameters that share one `when`: `index` of the ACTIVITY column, `parent` column."""

    index: int
    parent: _Column
    parent_activity: int | None
    activating: Array  # lattice values of the parent, see `_lattice`
    members: tuple[_Column, ...]


class Encoder:
    """Configs of one space as rows of numbers and back.

    `space`: the search space. `direction`: of the user's loss. `log_axes`: names of linear Floats
    and Ints whose column is ln v all the same (:func:`wide_parameters`); their values and limits
    stay as declared.
    Raises `ValueError` for an unknown direction.

    For every canonical config c, `decode(encode([c])) == [c]`, and `snap` leaves encoded rows be.
    """

    def __init__(
        self,
        space: SearchSpace,
        direction: Direction = "minimize",
        *,
        log_axes: Collection[str] = (),
    ) -> None:
        if direction not in ("minimize", "maximize"):
            raise ValueError(
                f'`direction` must be "minimize" or "maximize", got {direction!r}; pick one'
            )
        self.space = space
        self.direction: Direction = direction
        self.log_axes = tuple(log_axes)
        self._parameters, self._groups = _lay_out(space, self.log_axes)
        self._activity = {
            member.name: group.index for group in self._groups for member in group.members
        }
        self.columns = self._describe()
        self.lower, self.upper = self._starting_box()

    @property
    def loss_sign(self) -> float:
        """+1 or -1: times a loss in the user's direction, one that is minimized."""
        return 1.0 if self.direction == "minimize" else -1.0

    @property
    def continuous(self) -> NDArray[np.intp]:
        """Columns in which every value of the box is legal: what a gradient may move."""
        return np.array(
            [
                c.index
                for c in self._parameters
                if isinstance(c.parameter, Float | Scale) and not c.degenerate
            ],
            dtype=np.intp,
        )

    @property
    def unbounded(self) -> NDArray[np.intp]:
        """Columns whose box grows with the search."""
        return np.array([c.index for c in self._unbounded()], dtype=np.intp)

    @property
    def free(self) -> NDArray[np.bool_]:
        """`(d,)`, columns a search may move: more than one value, not derived, not the fidelity."""
        free = np.zeros(len(self.columns.kinds), dtype=bool)
        for column in self._parameters:
            single = column.floor == column.ceiling
            free[column.index] = not single and column.kind is not ColumnKind.FIDELITY
        return free

    @property
    def steps(self) -> Array:
        """`(d,)`, a typical lattice step in x; 0 for continuous and categorical columns."""
        steps = np.zeros(len(self.columns.kinds))
        for column in self._parameters:
            parameter = column.parameter
            if column.degenerate or column.kind is ColumnKind.CATEGORICAL:
                continue
            if isinstance(parameter, Categorical):
                steps[column.index] = 1.0 / column.width
            elif isinstance(parameter, Int):
                low, high = parameter.limits
                middle = parameter.center or math.sqrt(low * high) if parameter.log else 0.0
                step = parameter.multiple_of
                natural = math.log1p(step / middle) if parameter.log else float(step)
                steps[column.index] = natural / column.width
        return steps

    @property
    def center(self) -> Array:
        """`(d,)`, the row of the parameters' centers, at the cheapest scales and full fidelity.

        Without a center a parameter is at the middle of its box, or at its first choice.
        """
        row = np.zeros(len(self.columns.kinds))
        for column in self._parameters:
            parameter = column.parameter
            row[column.index] = column.start
            if not isinstance(parameter, Scale | Fidelity) and parameter.center is not None:
                row[column.index] = self._entries(column, [parameter.center])[0]
        return np.asarray(self.snap(row[None])[0])

    @property
    def centered(self) -> bool:
        """Whether any parameter has a `center`."""
        return any(
            not isinstance(p, Scale | Fidelity) and p.center is not None
            for p in self.space.values()
        )

    def from_unit(self, U: Array, box: Box) -> Array:
        """Rows spread over `box` from `U`, `n x d` in the unit cube; full fidelity, snapped.

        Each value of a lattice gets an equal share of the cube, in natural units, also at its ends.
        """
        return self.snap(self._spread_over(U, box))

    def first_rows(self, U: Array) -> Array:
        """As `from_unit` over the first box, but normal around the center of a `spread`.

        There `U` holds the probabilities of the normal distribution, inside (0, 1).
        """
        from scipy.special import ndtri

        X = self._spread_over(U, (self.lower, self.upper))
        for column in self._parameters:
            parameter = column.parameter
            if isinstance(parameter, Float | Int) and parameter.spread is not None:
                center = self._entries(column, [parameter.center])
                X[:, column.index] = center + parameter.spread / column.width * ndtri(
                    U[:, column.index]
                )
        return self.snap(X)

    def grid(self, limit: int) -> Array | None:
        """Every legal row at full fidelity if there are at most `limit`, else None."""
        values: dict[int, Array] = {}
        for column in self._parameters:
            parameter = column.parameter
            if column.kind is ColumnKind.FIDELITY or column.floor == column.ceiling:
                entries = np.array([column.ceiling])
            elif isinstance(parameter, Categorical):
                codes = np.arange(len(parameter.choices), dtype=np.float64)
                entries = codes if column.kind is ColumnKind.CATEGORICAL else column.to_x(codes)
            elif isinstance(parameter, Int) and parameter.bounded:
                low, high = parameter.limits
                if (high - low) // parameter.multiple_of >= limit:
                    return None
                whole = np.arange(low, high + 1, parameter.multiple_of, dtype=np.float64)
                entries = column.to_x(_to_natural(parameter, whole))
            else:
                return None
            values[column.index] = entries
        if math.prod(len(entries) for entries in values.values()) > limit:
            return None
        mesh = np.meshgrid(*values.values(), indexing="ij")
        X = np.zeros((mesh[0].size, len(self.columns.kinds)))
        for index, entries in zip(values, mesh, strict=True):
            X[:, index] = entries.ravel()
        return np.asarray(np.unique(self.snap(X), axis=0))

    def index(self, name: str) -> int:
        """Column of the parameter `name`; raises `KeyError` if the space has none."""
        for column in self._parameters:
            if column.name == name:
                return column.index
        raise KeyError(name)

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> Array:
        """`configs`: canonical configs. Returns `n x d`.

        Values are not checked (`SearchSpace.canonical` does that), so that a target config may hold
        scale values beyond the searched range.
        """
        X = np.zeros((len(configs), len(self.columns.kinds)))
        for column in self._parameters:
            name, x = column.name, np.full(len(configs), column.neutral)
            present = np.array([name in config for config in configs], dtype=bool)
            values = [config[name] for config in configs if name in config]
            if values:
                x[present] = self._entries(column, values)
            X[:, column.index] = x
            if name in self._activity:
                X[:, self._activity[name]] = present
        return X

    def decode(self, X: ArrayLike) -> list[dict[str, Any]]:
        """`X`: `n x d`, any finite rows. Returns the canonical configs of `snap(X)`, one a row.

        Scale entries are taken as they are, also beyond the searched range.
        """
        rows = self.snap(X, keep_scale=True)
        configs: list[dict[str, Any]] = [{} for _ in rows]
        for column in self._parameters:
            values = self._values(column, rows[:, column.index])
            if column.name in self._activity:
                active = rows[:, self._activity[column.name]] == 1
            else:
                active = np.ones(len(rows), dtype=bool)
            for config, value, is_active in zip(configs, values, active.tolist(), strict=True):
                if is_active:
                    config[column.name] = value
        return configs

    def snap(self, X: ArrayLike, *, keep_scale: bool = False) -> Array:
        """The rows of legal configs nearest to `X` (`n x d`, finite), as a new array.

        Numeric entries outside their limits are reflected back inside (clipping would pile rows up
        on the bounds); integers, ordinals and codes go to their lattice; ACTIVITY columns follow
        from the parents; inactive entries become neutral. Floats inside their limits are left
        alone, not rounded to 12 digits. Snapping twice is snapping once.
        `keep_scale`: leave scale entries as they are, as for a target beyond the searched range.

        Raises `ValueError` when `X` has the wrong shape or is not finite.
        """
        X = np.array(X, dtype=np.float64)
        if X.ndim != 2 or X.shape[1] != len(self.columns.kinds):
            raise ValueError(
                f"`X` must be n x {len(self.columns.kinds)}, got {X.shape}; encode configs"
            )
        if not np.isfinite(X).all():
            row = int(np.flatnonzero(~np.isfinite(X).all(axis=1))[0])
            raise ValueError(f"`X` must be finite, got row {row} = {X[row]}; drop it")
        for column in self._parameters:
            if keep_scale and column.kind is ColumnKind.SCALE:
                continue
            x = X[:, column.index]
            X[:, column.index] = self._on_lattice(column, _reflect(x, column.floor, column.ceiling))
        for group in self._groups:
            active = np.isin(_lattice(group.parent, X[:, group.parent.index]), group.activating)
            if group.parent_activity is not None:
                active &= X[:, group.parent_activity] == 1
            X[:, group.index] = active
            for member in group.members:
                X[~active, member.index] = member.neutral
        return X

    def box(self, X_good: ArrayLike) -> Box:
        """The box to search around the good rows `X_good` (`n x d`, n may be 0).

        `(lower, upper)`, each `(d,)`. Bounded columns keep theirs. An unbounded column gets the
        hull of its first box and of the good entries with one spread to either side, inside the
        bound it may have on one side.
        """
        lower, upper = self.lower.copy(), self.upper.copy()
        rows = np.asarray(X_good, dtype=np.float64).reshape(-1, len(lower))
        if len(rows):
            for column in self._unbounded():
                j = column.index
                lower[j] = max(min(lower[j], rows[:, j].min() - SPREAD), column.floor)
                upper[j] = min(max(upper[j], rows[:, j].max() + SPREAD), column.ceiling)
        return lower, upper

    def value_box(self, box: Box) -> dict[str, tuple[float, float]]:
        """`box` in the user's values, unbounded parameters only (`SearchSpace.distributions`)."""
        lower, upper = box
        return {
            column.name: (
                self._values(column, lower[column.index : column.index + 1])[0],
                self._values(column, upper[column.index : column.index + 1])[0],
            )
            for column in self._unbounded()
        }

    def _spread_over(self, U: Array, box: Box) -> Array:
        lower, upper = box
        X = lower + U * (upper - lower)
        for column in self._parameters:
            j, u, parameter = column.index, U[:, column.index], column.parameter
            if column.kind is ColumnKind.CATEGORICAL:
                X[:, j] = np.minimum(np.floor(u * (column.ceiling + 1.0)), column.ceiling)
            elif column.kind is ColumnKind.FIDELITY:
                X[:, j] = column.ceiling
            elif isinstance(parameter, Categorical | Int) and lower[j] < upper[j]:
                # Half a step beyond the ends, or the end values would get half a share.
                first, last = _lattice(column, np.array([lower[j], upper[j]]))
                half = 0.5 * parameter.multiple_of if isinstance(parameter, Int) else 0.5
                ends = _to_natural(parameter, np.array([first - half, last + half]))
                whole = _whole(parameter, ends[0] + u * (ends[1] - ends[0]))
                X[:, j] = column.to_x(_to_natural(parameter, np.clip(whole, first, last)))
        return X

    def _entries(self, column: _Column, values: Sequence[Any]) -> Array:
        if isinstance(column.parameter, Categorical):
            indices = np.array(
                [column.parameter.index(v, column.name) for v in values], dtype=np.float64
            )
            return indices if column.kind is ColumnKind.CATEGORICAL else column.to_x(indices)
        return column.to_x(_to_natural(column.parameter, np.array(values, dtype=np.float64)))

    def _values(self, column: _Column, x: Array) -> list[Any]:
        parameter = self.space[column.name]
        if isinstance(parameter, Categorical):
            return [parameter.choices[int(i)] for i in _lattice(column, x)]
        if isinstance(parameter, Int | Fidelity):
            return [parameter.canonical(int(v)) for v in _lattice(column, x)]
        natural = column.to_natural(x)
        return [parameter.canonical(v) for v in _from_natural(column.parameter, natural).tolist()]

    def _on_lattice(self, column: _Column, x: Array) -> Array:
        if column.kind is ColumnKind.CATEGORICAL:
            return _lattice(column, x)
        if column.degenerate or isinstance(column.parameter, Float | Scale):
            return x
        lattice = _lattice(column, x)
        if isinstance(column.parameter, Categorical):
            return column.to_x(lattice)
        return column.to_x(_to_natural(column.parameter, lattice))

    def _unbounded(self) -> tuple[_Column, ...]:
        return tuple(
            c
            for c in self._parameters
            if isinstance(c.parameter, Float | Int) and not c.parameter.bounded
        )

    def _describe(self) -> Columns:
        d = len(self._parameters) + len(self._groups)
        kinds, names, categories = [ColumnKind.ACTIVITY] * d, [""] * d, [2] * d
        origin, width = np.zeros(d), np.ones(d)
        for group in self._groups:
            names[group.index] = f"active: {', '.join(member.name for member in group.members)}"
        for column in self._parameters:
            j = column.index
            kinds[j], names[j], categories[j] = column.kind, column.name, 0
            if column.kind is ColumnKind.CATEGORICAL:
                assert isinstance(column.parameter, Categorical)
                categories[j] = len(column.parameter.choices)
            else:
                origin[j], width[j] = column.anchor - column.offset * column.width, column.width
        return Columns(tuple(kinds), tuple(names), origin, width, tuple(categories))

    def _starting_box(self) -> Box:
        lower, upper = np.zeros(len(self.columns.kinds)), np.ones(len(self.columns.kinds))
        for column in self._parameters:
            lower[column.index] = max(column.floor, 0.0)
            upper[column.index] = (
                column.ceiling
                if column.kind is ColumnKind.CATEGORICAL
                else min(column.ceiling, 1.0)
            )
        return lower, upper


def wide_parameters(space: SearchSpace) -> tuple[str, ...]:
    """Names of the linear parameters whose range spans two orders of magnitude or more."""
    return tuple(
        name
        for name, p in space.items()
        if isinstance(p, Float | Int)
        and not (_is_log(p) or (isinstance(p, Float) and p.logit))
        and p.bounded
        and p.spread is None
        and p.limits[1] >= _WIDE * p.limits[0] > 0
    )


def _lay_out(
    space: SearchSpace, log_axes: Collection[str]
) -> tuple[tuple[_Column, ...], tuple[_Group, ...]]:
    """Columns in the order of the space, and groups with parents before children."""
    members: dict[tuple[str, tuple[Any, ...]], list[str]] = {}
    for name in space.parents_first:
        when = condition(space[name])
        if when is not None:
            members.setdefault((when[0], tuple(when[1])), []).append(name)
    last = () if space.fidelity is None else (space.fidelity,)
    order = [*space.decisions, *members, *space.scales, *last]  # a group stands for its column
    laid = {name: _logged(p) if name in log_axes else p for name, p in space.items()}
    columns = {name: _column(name, laid[name], order.index(name)) for name in space}
    groups: list[_Group] = []
    group_of: dict[str, int] = {}
    for (parent, values), names in members.items():
        index = order.index((parent, values))
        group_of |= dict.fromkeys(names, index)
        groups.append(
            _Group(
                index=index,
                parent=columns[parent],
                parent_activity=group_of.get(parent),
                activating=_lattice_of_values(space[parent], values),
                members=tuple(columns[name] for name in names),
            )
        )
    return tuple(columns.values()), tuple(groups)


def _column(name: str, parameter: Parameter, index: int) -> _Column:
    """Where the column of `parameter` is anchored, and how far it reaches."""
    if isinstance(parameter, Categorical):
        last = float(len(parameter.choices) - 1)
        if not parameter.ordered:
            return _Column(name, parameter, index, ColumnKind.CATEGORICAL, 0.0, 1.0, 0.0, 0.0, last)
        low, high, kind = 0.0, last, ColumnKind.DECISION
    else:
        low, high = (float(_to_natural(parameter, np.array([v]))[0]) for v in parameter.limits)
        kind = {Scale: ColumnKind.SCALE, Fidelity: ColumnKind.FIDELITY}.get(
            type(parameter), ColumnKind.DECISION
        )
    if isinstance(parameter, Float | Int) and not parameter.bounded:
        assert parameter.center is not None and parameter.spread is not None
        anchor = float(_to_natural(parameter, np.array([float(parameter.center)]))[0])
        width = parameter.spread / SPREAD
        floor = -math.inf if parameter.low is None else (low - anchor) / width + NEUTRAL
        ceiling = math.inf if parameter.high is None else (high - anchor) / width + NEUTRAL
        return _Column(name, parameter, index, kind, anchor, width, NEUTRAL, floor, ceiling)
    if low == high:
        return _Column(name, parameter, index, kind, low, 1.0, NEUTRAL, NEUTRAL, NEUTRAL)
    return _Column(name, parameter, index, kind, low, high - low, 0.0, 0.0, 1.0)


def _logged(parameter: Parameter) -> Parameter:
    assert isinstance(parameter, Float | Int)
    return replace(parameter, log=True)


def _is_log(parameter: Parameter) -> bool:
    return isinstance(parameter, Scale | Fidelity) or (
        isinstance(parameter, Float | Int) and parameter.log
    )


def _to_natural(parameter: Parameter, values: Array) -> Array:
    if _is_log(parameter):
        return np.log(values)
    if isinstance(parameter, Float) and parameter.logit:
        logit: Array = np.log(values) - np.log1p(-values)
        return logit
    return values


def _from_natural(parameter: Parameter, natural: Array) -> Array:
    """The inverse of `_to_natural`; what leaves the limits stays finite and is canonicalised."""
    if _is_log(parameter):
        return np.exp(np.clip(natural, -LOG_LIMIT, LOG_LIMIT))
    if isinstance(parameter, Float) and parameter.logit:
        odds = np.exp(-np.abs(natural))
        smaller = odds / (1.0 + odds)  # min(p, 1 - p), without cancellation
        probability: Array = np.where(natural < 0, smaller, 1.0 - smaller)
        return probability
    return natural


def _lattice_of_values(parameter: Parameter, values: Sequence[Any]) -> Array:
    """What `_lattice` gives for these values: the value of an Int, the index of a choice."""
    if isinstance(parameter, Categorical):
        return np.array([parameter.index(v) for v in values], dtype=np.float64)
    return np.array(values, dtype=np.float64)


def _lattice(column: _Column, x: Array) -> Array:
    """Entries of a discrete column as whole numbers: values of an Int, indices of a choice."""
    parameter = column.parameter
    if column.kind is ColumnKind.CATEGORICAL:
        return np.clip(np.rint(x), column.floor, column.ceiling)
    return _whole(parameter, column.to_natural(x))


def _whole(parameter: Parameter, natural: Array) -> Array:
    """The lattice values nearest to `natural`, not the codes of an unordered Categorical."""
    if isinstance(parameter, Categorical):
        return np.clip(np.rint(natural), 0, len(parameter.choices) - 1)
    assert isinstance(parameter, Int | Fidelity)
    step = parameter.multiple_of if isinstance(parameter, Int) else 1
    low, high = parameter.limits
    whole: Array = step * np.rint(_from_natural(parameter, natural) / step)
    return np.clip(whole, low, high)


def _reflect(x: Array, floor: float, ceiling: float) -> Array:
    """`x` folded into [floor, ceiling]; entries inside are returned bit for bit."""
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
