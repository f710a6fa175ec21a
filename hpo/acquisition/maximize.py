"""Maximize an acquisition over a mixed space.

Three stages, all on encoded rows: *candidates* (a global Sobol share, and clouds of several radii
around the centers), *neighbor moves* from the best of them (steps of shrinking size in some
columns, other codes in categorical ones), and *gradient refinement* of the continuous columns by
L-BFGS-B on all starts at once. Rows already asked are skipped while any other exists. Rows that the
space's `where` forbids are moved towards ones that it allows before they are scored.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import Bounds, minimize
from scipy.stats import qmc

from hpo.acquisition.base import Term
from hpo.space.encoding import Encoder, row_keys
from surrogates.data import Array, IntArray

_CLOUD_SCALES = (1.0, 0.25, 0.05)  # of the region's radii; the small ones polish
_MOVED_COLUMNS = 8.0  # expected number of columns a cloud or neighbor move changes
_ROUNDS = 4
_NEIGHBORS = 24  # per kept row and round
_KEPT = 8
_TOLERANCE = 1e-4  # of the sum of log acquisitions: the rows hardly move any more


@dataclass(frozen=True, slots=True)
class Region:
    """Part of the space to search.

    `maximize` has an example.

    Attributes:
        lower: `(d,)`, lower end of the box of numeric columns.
        upper: `(d,)`, its upper end.
        centers: k x d, members of the front (or the incumbent) to search around.
        radii: `(d,)`, how far a local move goes in each numeric column.
        extra: r x d, further candidate rows, such as moves along the drift line.
        global_share: Share of candidates drawn from the whole box.
        candidates: Number of rows scored in the first stage.
        smooth: Whether gradients are worth following; those of trees are not.
    """

    lower: Array
    upper: Array
    centers: Array
    radii: Array
    extra: Array
    global_share: float
    candidates: int
    smooth: bool = True


@dataclass(frozen=True, slots=True)
class Rows:
    """The only rows that may be chosen.

    Attributes:
        X: q x d, encoded rows.

    Example:
        >>> Rows(np.zeros((3, 2))).X.shape
        (3, 2)
    """

    X: Array


@dataclass(frozen=True, slots=True)
class Maximum:
    """Result of `maximize`.

    Attributes:
        row: `(d,)`, the row chosen.
        value: Log acquisition of the row.
        repeated: Whether the row was asked before.
    """

    row: Array
    value: float
    repeated: bool


def maximize(
    acquisition: Term,
    encoder: Encoder,
    where: Region | Rows,
    taken: Array,
    *,
    rng: np.random.Generator,
) -> Maximum:
    """Return the row of highest `acquisition` that is not among `taken`.

    Args:
        acquisition: Term to maximize.
        encoder: Encoder of the rows.
        where: Region of the space, or the only rows that may be chosen.
        taken: t x d, rows asked before. One is repeated only when no other is left.
        rng: Source of the candidates.

    Example:
        >>> from hpo.acquisition import TrustRegion
        >>> from hpo.space import Float, SearchSpace
        >>> encoder = Encoder(SearchSpace({"x": Float(0.0, 10.0)}))
        >>> acquisition = TrustRegion(np.array([[0.3]]), np.ones(1), np.array([0]))
        >>> region = Region(
        ...     encoder.lower, encoder.upper, centers=np.array([[0.5]]), radii=np.full(1, 0.2),
        ...     extra=np.zeros((0, 1)), global_share=0.5, candidates=64,
        ... )
        >>> rng, none = np.random.default_rng(0), np.zeros((0, 1))
        >>> found = maximize(acquisition, encoder, region, none, rng=rng)
        >>> found.row.round(3).tolist(), found.repeated
        ([0.3], False)

        Among given rows, one already asked is chosen only when no other is left:

        >>> pool = Rows(np.array([[0.3], [0.4], [0.9]]))
        >>> maximize(acquisition, encoder, pool, pool.X[:1], rng=rng).row.tolist()
        [0.4]
    """
    if isinstance(where, Rows):
        return best_of(where.X, acquisition.value(where.X), taken)
    grid = encoder.grid(where.candidates)
    if grid is not None:
        return best_of(grid, acquisition.value(grid), taken)
    X = np.concatenate([encoder.snap(_draw(encoder, where, where.candidates, rng)), where.extra])
    X = encoder.repaired(X)
    values = acquisition.value(X)
    X, values = _distinct_best(X, values, taken, _KEPT)
    if len(encoder.continuous) < X.shape[1]:
        X, values = _neighbor_moves(acquisition, encoder, where, taken, X, values, rng)
    if not where.smooth:
        return best_of(X, values, taken)
    refined = encoder.snap(_refine(acquisition, where, encoder.continuous, X))
    refined = encoder.repaired(refined)
    everything = np.concatenate([X, refined])
    return best_of(everything, np.concatenate([values, acquisition.value(refined)]), taken)


def _draw(encoder: Encoder, region: Region, count: int, rng: np.random.Generator) -> Array:
    """Draw candidate rows before snapping: a Sobol share, then clouds around the centers."""
    d = len(region.lower)
    spread = int(np.ceil(region.global_share * count)) if len(region.centers) else count
    power = int(np.ceil(np.log2(max(spread, 2))))
    sobol = qmc.Sobol(d, scramble=True, rng=rng).random_base2(power)[:spread]
    far = encoder.from_unit(sobol, (region.lower, region.upper))
    if spread == count:
        return far
    origin = region.centers[rng.integers(len(region.centers), size=count - spread)]
    scale = rng.choice(_CLOUD_SCALES, size=(count - spread, 1))
    return np.concatenate([far, _perturb(encoder, origin, scale * region.radii, rng)])


def _perturb(encoder: Encoder, X: Array, radii: Array, rng: np.random.Generator) -> Array:
    """Move some columns of each row: normal steps in numeric ones, new codes in categorical ones.

    A step on a lattice column is at least one lattice step wide, or small radii could never leave a
    value.

    Args:
        encoder: Encoder of the rows.
        X: m x d, rows to move.
        radii: m x d, standard deviations of the steps.
        rng: Source of the moves.
    """
    m, d = X.shape
    moved = rng.random((m, d)) < min(1.0, _MOVED_COLUMNS / d)
    moved[np.arange(m), rng.integers(d, size=m)] = True
    moved &= encoder.free
    out = X.copy()
    numeric = encoder.columns.numeric
    width = np.maximum(radii[:, numeric], encoder.steps[numeric])
    out[:, numeric] += moved[:, numeric] * width * rng.standard_normal((m, len(numeric)))
    codes = encoder.columns.categorical
    counts = np.maximum(np.array(encoder.columns.categories)[codes], 1)
    flips = moved[:, codes] & (rng.random((m, len(codes))) < 0.5)
    out[:, codes] = np.where(flips, rng.integers(counts, size=(m, len(codes))), out[:, codes])
    return out


def _neighbor_moves(
    acquisition: Term,
    encoder: Encoder,
    region: Region,
    taken: Array,
    X: Array,
    values: Array,
    rng: np.random.Generator,
) -> tuple[Array, Array]:
    """Move the kept rows in several rounds, halving the radius from round to round."""
    radii = region.radii
    for _ in range(_ROUNDS):
        radii = 0.5 * radii
        origin = np.repeat(X, _NEIGHBORS, axis=0)
        moved = encoder.snap(_perturb(encoder, origin, np.broadcast_to(radii, origin.shape), rng))
        moved = encoder.repaired(moved)
        everything = np.concatenate([X, moved])
        values = np.concatenate([values, acquisition.value(moved)])
        X, values = _distinct_best(everything, values, taken, _KEPT)
    return X, values


def _refine(acquisition: Term, region: Region, continuous: IntArray, X: Array) -> Array:
    """Run L-BFGS-B on the continuous columns of all rows together; their sum separates by row."""
    if not len(continuous):
        return X
    bounds = np.stack([region.lower[continuous], region.upper[continuous]], axis=1)

    def negative_sum(flat: Array) -> tuple[float, Array]:
        rows = X.copy()
        rows[:, continuous] = flat.reshape(len(X), -1)
        value, slope = acquisition.gradient(rows)
        usable = np.isfinite(value)
        slope = np.where(usable[:, None], slope, 0.0)[:, continuous]
        return -float(np.sum(value[usable])), -slope.ravel()

    found = minimize(
        negative_sum,
        np.clip(X[:, continuous], bounds[:, 0], bounds[:, 1]).ravel(),
        jac=True,
        method="L-BFGS-B",
        bounds=Bounds(*np.tile(bounds, (len(X), 1)).T),
        options={"maxiter": 25, "maxfun": 35, "ftol": _TOLERANCE},
    )
    out = X.copy()
    out[:, continuous] = found.x.reshape(len(X), -1)
    return out


def _distinct_best(X: Array, values: Array, taken: Array, count: int) -> tuple[Array, Array]:
    """Return the `count` best distinct rows, best first, with rows of `taken` at the end."""
    order = np.argsort(-values, kind="stable")[: 16 * count + len(taken)]
    seen = set(row_keys(taken))
    fresh: list[int] = []
    old: list[int] = []
    for place, key in zip(order.tolist(), row_keys(X[order]), strict=True):
        (old if key in seen else fresh).append(place)
        seen.add(key)
        if len(fresh) == count:
            break
    best = (fresh + old)[:count]
    return X[best], values[best]


def best_of(X: Array, values: Array, taken: Array) -> Maximum:
    """Return the best row of `X`; one of `taken` only if all rows are.

    Args:
        X: m x d, rows to choose from.
        values: Log acquisition of the rows, `(m,)`.
        taken: t x d, rows asked before.

    Example:
        >>> X = np.array([[0.1], [0.2]])
        >>> best_of(X, np.array([1.0, 2.0]), taken=X[1:]).row.tolist()
        [0.1]
    """
    rows, best = _distinct_best(X, values, taken, 1)
    repeated = bool(len(taken)) and row_keys(rows)[0] in set(row_keys(taken))
    return Maximum(rows[0], float(best[0]), repeated)
