"""Encode configs as rows of numbers and decode rows as configs.

Notation
--------
v        a value as the user writes it
natural  v, ln v or the log-odds of v, by the unit of the parameter (`hpo.space.units`)
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

An inactive entry has one neutral value, so two inactive rows agree there and the ACTIVITY column
alone tells them from active ones. A kernel with a Hamming factor on that column is then positive
semi-definite, which it would not be if inactive entries were left out of the distance.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hpo.errors import SpaceError
from hpo.space.columns import SPREAD, Column, described, laid_out
from hpo.space.direction import Direction, DirectionName
from hpo.space.parameters import Float, Int
from hpo.space.search_space import SearchSpace
from hpo.space.units import Unit
from surrogates.data import ColumnKind

__all__ = ["Box", "Encoder", "row_keys", "wide_parameters"]

Array: TypeAlias = NDArray[np.float64]
Box: TypeAlias = tuple[Array, Array]

_POOL = 256  # configs that `where` allows, towards which others are moved
_POOL_DRAWS = 2**17  # most configs among which they are looked for
_POOL_BATCH = 2**10
_POOL_SEED = 0x5EA  # the pool is one for every study of a space
_HALVINGS = 3  # of the way from a row that `where` forbids to one that it allows
_WIDE = 100.0  # high / low from which a linear range may be meant as a logarithmic one
_DIGITS = 9  # decimals to which two rows must agree to be one


class Encoder:
    """Configs of one space as rows of numbers and back.

    For every canonical config c, `decode(encode([c])) == [c]`, and `snap` leaves encoded rows as
    they are.

    Args:
        space: search space of the configs.
        direction: direction of the user's objective.
        log_axes: names of bounded, positive, linear Floats and Ints whose columns are in ln v all
            the same (`wide_parameters`). Their values and limits stay as declared.

    Raises:
        ValueError: for an unknown direction.

    Attributes:
        columns: meaning of each column, for the surrogates.
        lower: `(d,)`, lower corner of the first box to search.
        upper: `(d,)`, upper corner of it.

    Example:
        >>> from hpo import Categorical, Float, SearchSpace
        >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "act": Categorical(["a", "b"])})
        >>> encoder = Encoder(space, "maximize")
        >>> encoder.encode([{"lr": 1e-4, "act": "b"}])
        array([[0., 1.]])
        >>> encoder.decode([[1.0, 0.0]])
        [{'lr': 0.1, 'act': 'a'}]
        >>> encoder.loss_sign
        -1.0
    """

    def __init__(
        self,
        space: SearchSpace,
        direction: DirectionName | Direction = Direction.MINIMIZE,
        *,
        log_axes: Collection[str] = (),
    ) -> None:
        self.space = space
        self.direction = Direction.of(direction)
        self.log_axes = tuple(log_axes)
        self._parameters, self._groups = laid_out(space, self.log_axes)
        self._activity = {
            member.name: group.index for group in self._groups for member in group.members
        }
        self.columns = described(self._parameters, self._groups)
        self.lower, self.upper = self._starting_box()
        self._where = space.where
        self._pool: Array | None = None  # drawn when it is first needed

    @property
    def loss_sign(self) -> float:
        """+1 or -1: turns an objective in the user's direction into a loss to minimize."""
        return self.direction.sign

    @property
    def continuous(self) -> NDArray[np.intp]:
        """Columns in which every value of the box is legal: what a gradient may move."""
        return np.array(
            [c.index for c in self._parameters if c.parameter.step is None and not c.single],
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
            free[column.index] = not column.single and column.kind is not ColumnKind.FIDELITY
        return free

    @property
    def steps(self) -> Array:
        """`(d,)`, a typical lattice step in x; 0 for continuous and categorical columns."""
        steps = np.zeros(len(self.columns.kinds))
        for column in self._parameters:
            steps[column.index] = column.step
        return steps

    @property
    def center(self) -> Array:
        """`(d,)`, the row of the parameters' centers, at the lowest scales and full fidelity.

        Without a center a parameter is at the middle of its box, or at its first choice.
        """
        row = np.zeros(len(self.columns.kinds))
        for column in self._parameters:
            row[column.index] = column.center
        return np.asarray(self.snap(row[None])[0])

    @property
    def centered(self) -> bool:
        """Whether any parameter has a `center`."""
        return any(getattr(p, "center", None) is not None for p in self.space.values())

    def from_unit(self, U: Array, box: Box) -> Array:
        """Return rows spread over a box, at full fidelity and snapped.

        Each value of a lattice gets an equal share of the cube, in natural units, also at its ends.

        Args:
            U: `n x d`, points of the unit cube.
            box: lower and upper corner, each `(d,)`.

        Returns:
            `n x d`.

        Example:
            >>> from hpo import Int, SearchSpace
            >>> encoder = Encoder(SearchSpace({"n": Int(0, 4)}))
            >>> rows = encoder.from_unit(np.array([[0.1], [0.9]]), (encoder.lower, encoder.upper))
            >>> encoder.decode(rows)
            [{'n': 0}, {'n': 4}]
        """
        return self.snap(self._spread_over(U, box))

    def first_rows(self, U: Array) -> Array:
        """Return rows over the first box, normal around the center where there is a `spread`.

        Args:
            U: `n x d`, points of the unit cube. In columns with a `spread` they are probabilities
                of the normal distribution, inside (0, 1).

        Returns:
            `n x d`, snapped, at full fidelity.
        """
        from scipy.special import ndtri

        X = self._spread_over(U, (self.lower, self.upper))
        for column in self._parameters:
            parameter = column.parameter
            if isinstance(parameter, Float | Int) and parameter.spread is not None:
                center = column.entries([parameter.center])
                X[:, column.index] = center + parameter.spread / column.width * ndtri(
                    U[:, column.index]
                )
        return self.snap(X)

    def grid(self, limit: int) -> Array | None:
        """Return every legal row at full fidelity if there are at most `limit`, else None.

        Rows that `where` forbids are left out.

        Args:
            limit: largest number of rows, before inactive entries are merged.

        Example:
            >>> from hpo import Categorical, Int, SearchSpace
            >>> encoder = Encoder(SearchSpace({"n": Int(1, 3), "act": Categorical(["a", "b"])}))
            >>> len(encoder.grid(10)), encoder.grid(5)
            (6, None)
        """
        values: dict[int, Array] = {}
        for column in self._parameters:
            entries = column.listed(limit)
            if entries is None:
                return None
            values[column.index] = entries
        if math.prod(len(entries) for entries in values.values()) > limit:
            return None
        mesh = np.meshgrid(*values.values(), indexing="ij")
        X = np.zeros((mesh[0].size, len(self.columns.kinds)))
        for index, entries in zip(values, mesh, strict=True):
            X[:, index] = entries.ravel()
        rows = np.asarray(np.unique(self.snap(X), axis=0))
        return rows if self._where is None else rows[self.allowed(rows)]

    def index(self, name: str) -> int:
        """Return the column of the parameter `name`.

        Args:
            name: name of a parameter of the space.

        Raises:
            KeyError: if the space has no such parameter.
        """
        for column in self._parameters:
            if column.name == name:
                return column.index
        raise KeyError(name)

    def encode(self, configs: Sequence[Mapping[str, Any]]) -> Array:
        """Return the rows of configs.

        Values are not checked (`SearchSpace.canonical` does that), so that a target config may hold
        scale values beyond the searched range.

        Args:
            configs: canonical configs.

        Returns:
            `n x d`.

        Example:
            >>> from hpo import Scale, SearchSpace
            >>> encoder = Encoder(SearchSpace({"params": Scale(1e6, 1e8)}))
            >>> encoder.encode([{"params": 1e7}, {"params": 1e10}]).round(6)
            array([[0.5],
                   [2. ]])
        """
        X = np.zeros((len(configs), len(self.columns.kinds)))
        for column in self._parameters:
            name, x = column.name, np.full(len(configs), column.neutral)
            present = np.array([name in config for config in configs], dtype=bool)
            values = [config[name] for config in configs if name in config]
            if values:
                x[present] = column.entries(values)
            X[:, column.index] = x
            if name in self._activity:
                X[:, self._activity[name]] = present
        return X

    def decode(self, X: ArrayLike) -> list[dict[str, Any]]:
        """Return the canonical configs of `snap(X)`, one a row.

        Scale entries are taken as they are, also beyond the searched range.

        Args:
            X: `n x d`, any finite rows.

        Raises:
            ValueError: when `X` has the wrong shape or is not finite.

        Example:
            >>> from hpo import Int, SearchSpace
            >>> Encoder(SearchSpace({"n": Int(0, 10)})).decode([[0.52], [1.1]])
            [{'n': 5}, {'n': 9}]
        """
        rows = self.snap(X, keep_scale=True)
        configs: list[dict[str, Any]] = [{} for _ in rows]
        for column in self._parameters:
            values = column.values(rows[:, column.index])
            if column.name in self._activity:
                active = rows[:, self._activity[column.name]] == 1
            else:
                active = np.ones(len(rows), dtype=bool)
            for config, value, is_active in zip(configs, values, active.tolist(), strict=True):
                if is_active:
                    config[column.name] = value
        return configs

    def snap(self, X: ArrayLike, *, keep_scale: bool = False) -> Array:
        """Return the rows of legal configs nearest to `X`, as a new array.

        Numeric entries outside their limits are reflected back inside (clipping would pile rows up
        on the bounds). Integers, ordinals and codes go to their lattice. ACTIVITY columns follow
        from the parents, and inactive entries become neutral. Floats inside their limits stay as
        they are, not rounded to 12 digits. Snapping twice is snapping once.

        Args:
            X: `n x d`, finite.
            keep_scale: whether to leave scale entries as they are, as for a target beyond the
                searched range.

        Raises:
            ValueError: when `X` has the wrong shape or is not finite.

        Example:
            >>> from hpo import Float, Int, SearchSpace
            >>> encoder = Encoder(SearchSpace({"x": Float(0.0, 1.0), "n": Int(0, 4)}))
            >>> encoder.snap([[1.25, 0.3]])
            array([[0.75, 0.25]])
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
            if not (keep_scale and column.kind is ColumnKind.SCALE):
                X[:, column.index] = column.snapped(X[:, column.index])
        for group in self._groups:
            active = group.active(X)
            X[:, group.index] = active
            for member in group.members:
                X[~active, member.index] = member.neutral
        return X

    def allowed(self, X: Array) -> NDArray[np.bool_]:
        """Return which rows are configs that the space's `where` allows, `(n,)`.

        Args:
            X: `n x d`, snapped rows; scale entries may lie beyond the searched range.

        Raises:
            SpaceError: if `where` raises, or returns anything but True or False.

        Example:
            >>> from hpo import Int, SearchSpace
            >>> encoder = Encoder(SearchSpace({"n": Int(0, 4)}, where=lambda c: c["n"] > 2))
            >>> encoder.allowed(np.array([[0.0], [1.0]])).tolist()
            [False, True]
        """
        where = self.space.where
        if where is None or not len(X):
            return np.ones(len(X), dtype=bool)
        return np.array([where(config) for config in self.decode(X)], dtype=bool)

    def repaired(self, X: Array) -> Array:
        """Return the rows, those that `where` forbids moved towards the nearest that it allows.

        Where nothing is forbidden `X` itself is returned.

        Args:
            X: `n x d`, snapped rows.

        Raises:
            SpaceError: if `where` allows no config that can be found.

        Example:
            >>> from hpo import Int, SearchSpace
            >>> encoder = Encoder(SearchSpace({"n": Int(0, 4)}, where=lambda c: c["n"] > 2))
            >>> encoder.decode(encoder.repaired(np.array([[0.0], [1.0]])))
            [{'n': 3}, {'n': 4}]
        """
        if self._where is None or not len(X):
            return X
        forbidden = np.flatnonzero(~self.allowed(X))
        if not len(forbidden):
            return X
        repaired = X.copy()
        repaired[forbidden] = self._moved_inside(X[forbidden], self.allowed_rows())
        return repaired

    def allowed_rows(self) -> Array:
        """Return some rows over the first box, `n x d`, that `where` allows; n is at least 1.

        Raises:
            SpaceError: if there is none that can be found.

        Example:
            >>> from hpo import Int, SearchSpace
            >>> encoder = Encoder(SearchSpace({"n": Int(0, 4)}, where=lambda c: c["n"] > 2))
            >>> sorted(config["n"] for config in encoder.decode(encoder.allowed_rows()))
            [3, 4]
        """
        if self._pool is None:
            self._pool = self._drawn_pool()
        return self._pool

    def _drawn_pool(self) -> Array:
        from scipy.stats import qmc

        listed = self.grid(_POOL_BATCH)
        looked, found = "each of the space's configs was tried", listed
        if found is None:
            looked = f"{_POOL_DRAWS} configs spread over the space were tried"
            center = self.center[None]
            found = center[self.allowed(center)]
            sobol = qmc.Sobol(len(self.lower), scramble=True, rng=_POOL_SEED)
            for _ in range(_POOL_DRAWS // _POOL_BATCH):
                rows = self.from_unit(sobol.random(_POOL_BATCH), (self.lower, self.upper))
                found = np.concatenate([found, rows[self.allowed(rows)]])
                if len(found) >= _POOL:
                    break
        if not len(found):
            raise SpaceError(
                f"`where` ({self.space.where}) must allow some config of the space, got False for"
                f" all ({looked}); loosen it, change the ranges, or give an allowed `center`"
            )
        return found

    def _moved_inside(self, X: Array, pool: Array) -> Array:
        """Return forbidden rows moved to the nearest allowed ones until they are allowed.

        The way is halved: numbers move along it, and a category is exchanged at a place of its own.
        """
        columns = self.columns
        numeric, codes = columns.numeric, columns.categorical
        width = np.maximum(np.ptp(pool[:, numeric], axis=0), 1e-9)
        goals = np.empty_like(X)
        for i, row in enumerate(X):
            steps = np.sum(((pool[:, numeric] - row[numeric]) / width) ** 2, axis=1)
            steps += np.sum(pool[:, codes] != row[codes], axis=1)
            goals[i] = pool[np.argmin(steps)]
        places = (np.arange(len(codes)) + 1.0) / (len(codes) + 1.0)
        bad, good, moved = np.zeros(len(X)), np.ones(len(X)), goals.copy()
        for _ in range(_HALVINGS):
            share = (0.5 * (bad + good))[:, None]
            tried = X + share * (goals - X)
            tried[:, codes] = np.where(share >= places, goals[:, codes], X[:, codes])
            tried = self.snap(tried)
            inside = self.allowed(tried)
            moved[inside] = tried[inside]
            good[inside] = share[inside, 0]
            bad[~inside] = share[~inside, 0]
        return moved

    def box(self, X_good: ArrayLike) -> Box:
        """Return the box to search around good rows.

        Bounded columns keep their limits. An unbounded column gets the hull of its first box and of
        the good entries with one spread to either side, inside the bound it may have on one side.

        Args:
            X_good: `n x d`, rows; n may be 0.

        Returns:
            Lower and upper corner, each `(d,)`.
        """
        lower, upper = self.lower.copy(), self.upper.copy()
        rows = np.asarray(X_good, dtype=np.float64).reshape(-1, len(lower))
        if len(rows):
            for column in self._unbounded():
                j = column.index
                lower[j] = max(min(lower[j], rows[:, j].min() - SPREAD), column.floor)
                upper[j] = min(max(upper[j], rows[:, j].max() + SPREAD), column.ceiling)
        return lower, upper

    def within(self, lower: Array, upper: Array) -> Encoder:
        """Return an encoder of the same columns whose settings lie in another box.

        The entries mean what they mean here, so its rows are rows of this one. The box is cut at
        the physical limits of the settings that may leave their range
        (:attr:`~hpo.space.search_space.SearchSpace.extrapolated`), and at the declared ones of the
        others. Equal ends fix a setting. `grid` and `repaired` of the encoder pass over `where`,
        which may allow nothing in the box; `allowed` does not.

        Args:
            lower: `(d,)`, least entries; only those of DECISION columns are read.
            upper: `(d,)`, largest entries, >= `lower`.

        Example:
            >>> from hpo.space import Float, Scale, SearchSpace
            >>> lr, params = Float(1e-4, 1e-1, log=True), Scale(1e6, 1e8)
            >>> encoder = Encoder(SearchSpace({"lr": lr, "params": params}))
            >>> wide = encoder.within(np.array([-1.0, 0.0]), np.array([1.0, 1.0]))
            >>> wide.decode([[-0.5, 2.0]])
            [{'lr': 3.16227766017e-06, 'params': 10000000000.0}]
        """
        free = set(self.space.extrapolated)
        moved = {
            column.name: column.within(
                float(lower[column.index]),
                float(upper[column.index]),
                extrapolate=column.name in free,
            )
            for column in self._parameters
            if column.kind is ColumnKind.DECISION and column.floor < column.ceiling
        }
        other = copy.copy(self)
        other._where = other._pool = None
        other._parameters = tuple(moved.get(column.name, column) for column in self._parameters)
        other._groups = tuple(
            replace(
                group,
                parent=moved.get(group.parent.name, group.parent),
                members=tuple(moved.get(member.name, member) for member in group.members),
            )
            for group in self._groups
        )
        other.lower, other.upper = self.lower.copy(), self.upper.copy()
        for column in moved.values():
            other.lower[column.index], other.upper[column.index] = column.floor, column.ceiling
        return other

    def value_box(self, box: Box) -> dict[str, tuple[float, float]]:
        """Return a box in the user's values, for `SearchSpace.distributions`.

        Args:
            box: lower and upper corner, each `(d,)`.

        Returns:
            Range by name, unbounded parameters only.
        """
        lower, upper = box
        return {
            column.name: (
                column.values(lower[column.index : column.index + 1])[0],
                column.values(upper[column.index : column.index + 1])[0],
            )
            for column in self._unbounded()
        }

    def _spread_over(self, U: Array, box: Box) -> Array:
        lower, upper = box
        X = lower + U * (upper - lower)
        for column in self._parameters:
            j = column.index
            spread = column.spread(U[:, j], lower[j], upper[j])
            if spread is not None:
                X[:, j] = spread
        return X

    def _unbounded(self) -> tuple[Column, ...]:
        return tuple(column for column in self._parameters if not column.bounded)

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


def row_keys(X: Array) -> list[bytes]:
    """Return one key a row, equal for rows that agree to nine decimals.

    Args:
        X: `n x d`, encoded rows.

    Example:
        >>> first, second, third = row_keys(np.array([[0.0], [-1e-12], [0.1]]))
        >>> first == second, first == third
        (True, False)
    """
    rounded = np.round(X, _DIGITS) + 0.0  # -0.0 and 0.0 are one value
    return [row.tobytes() for row in rounded]


def wide_parameters(space: SearchSpace) -> tuple[str, ...]:
    """Return the names of the linear parameters that span two orders of magnitude or more.

    Args:
        space: search space to look through.

    Example:
        >>> from hpo import Float, SearchSpace
        >>> wide_parameters(SearchSpace({"decay": Float(1e-4, 1.0), "dropout": Float(0.1, 0.5)}))
        ('decay',)
    """
    return tuple(
        name
        for name, p in space.items()
        if isinstance(p, Float | Int)
        and p.unit is Unit.LINEAR
        and p.bounded
        and p.spread is None
        and p.limits[1] >= _WIDE * p.limits[0] > 0
    )
