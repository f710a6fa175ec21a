"""Initial design: what to run before there is anything to learn from.

Notation: u an entry of a scrambled Sobol sequence in (0, 1), X rows of an `Encoder`.

The design, from first to last:

* The centers. If any parameter has a `center`, one row of all of them, at the cheapest scales.
* A scrambled Sobol sequence over the first box. Parameters with a `spread` follow a normal
  distribution around their center instead of filling the box. The choices of a categorical are
  stratified: over the design each is met equally often, give or take one.
* Along a scale axis, x = u^2 of the log range: half of the starts lie in the cheapest quarter of
  it, a few reach high enough to show how loss and cost grow. Rows are run from cheap to expensive
  (the cost taken as the product of the sizes, as in 6 N D): a failure is met where it costs least.
* At full fidelity; a scheduler lowers it.

Points that the space's `where` forbids are left out, and the center is moved to where it allows.

Few starts are enough: 4 were about as good as 16 on tabular benchmarks, because the model takes
over well before the space is covered.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from hpo.space.encoding import Encoder, row_keys
from surrogates.data import Array, ColumnKind

__all__ = ["start_count", "starts"]

_BATCHES = 16  # drawn before the points of a small space are listed one by one
_LISTED = 4096  # most points that are listed
_TAIL = 1e-6  # u stays this far from 0 and 1, whose normal quantiles are infinite


def start_count(d: int) -> int:
    """Return the number of start points for `d` columns that vary: d + 2, clipped to [4, 10].

    Example:
        >>> [start_count(d) for d in (1, 5, 20)]
        [4, 7, 10]
    """
    return max(4, min(10, d + 2))


def starts(encoder: Encoder, count: int, *, rng: np.random.Generator) -> Array:
    """Return the first `count` rows to run, `count x d`, snapped.

    No row repeats before every row of the space was listed; after that they repeat in order.

    Args:
        encoder: Encoder of the space.
        count: Number of rows.
        rng: Source of the scrambling.

    Raises:
        ValueError: If `count` is negative.

    Example:
        >>> from hpo import Float, SearchSpace
        >>> encoder = Encoder(SearchSpace({"x": Float(0, 1), "y": Float(0, 1)}))
        >>> starts(encoder, 5, rng=np.random.default_rng(0)).shape
        (5, 2)
    """
    if count < 0:
        raise ValueError(f"`count` must be >= 0, got {count}; 0 gives no start points")
    if count == 0:
        return np.empty((0, len(encoder.columns.kinds)))
    distinct: dict[bytes, Array] = {}
    for batch in _candidates(encoder, count, rng):
        for key, row in zip(row_keys(batch), batch, strict=True):
            distinct.setdefault(key, row)
        if len(distinct) >= count:
            break
    rows = np.array(list(distinct.values()))[:count]
    centers = int(encoder.centered)
    rows[centers:] = _cheap_first(encoder, rows[centers:])
    return np.resize(rows, (count, rows.shape[1]))  # repeats whole rows


def _candidates(encoder: Encoder, count: int, rng: np.random.Generator) -> Iterator[Array]:
    """Yield batches of snapped rows, in the order in which they are wanted."""
    from scipy.stats import qmc

    if encoder.centered:
        yield encoder.repaired(encoder.center[None])
    size = max(count - int(encoder.centered), 1)
    # A power of two is drawn because only then is the sequence balanced; its prefix is used.
    draws = math.ceil(math.log2(_BATCHES * size))
    sobol = qmc.Sobol(len(encoder.columns.kinds), scramble=True, rng=rng).random_base2(draws)
    for batch in np.split(sobol[: _BATCHES * size], _BATCHES):
        rows = encoder.first_rows(_shaped(encoder, batch))
        yield rows if encoder.space.where is None else rows[encoder.allowed(rows)]
    if encoder.space.where is not None:
        yield encoder.allowed_rows()
    listed = encoder.grid(_LISTED)
    if listed is not None:
        yield rng.permutation(listed)


def _shaped(encoder: Encoder, sobol: Array) -> Array:
    """Return `sobol`, `n x d`, with categorical columns stratified and scale columns squared."""
    U = np.clip(sobol, _TAIL, 1.0 - _TAIL)
    for j, kind in enumerate(encoder.columns.kinds):
        if kind is ColumnKind.CATEGORICAL:
            U[:, j] = (np.argsort(np.argsort(U[:, j])) + 0.5) / len(U)
        elif kind is ColumnKind.SCALE:
            U[:, j] **= 2
    return U


def _cheap_first(encoder: Encoder, rows: Array) -> Array:
    """Return `rows` by rising product of their sizes; in their order without a scale axis."""
    scale = encoder.columns.scale
    log_size = rows[:, scale] @ encoder.columns.width[scale]
    return rows[np.argsort(log_size, kind="stable")]
