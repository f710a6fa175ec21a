"""Conformalised quantile regression: beliefs that assume nothing about the shape of the noise.

Notation:

==========  =======  ==============================================================================
``tau``     K        :data:`LEVELS`, symmetric about one half; tau_k and tau_(K-1-k) are a pair
``q``       m x K    raw quantiles at m rows, from trees
``E``       n x K/2  conformity scores ``max(q_lo(x) - y, y - q_hi(x))`` of each pair at n rows,
                     ``q`` from trees that did not see the row (Romano, Patterson & Candes 2019)
``c``       K/2      correction of each pair: the ceil((n + 1) (1 - alpha))-th smallest score
==========  =======  ==============================================================================

The interval ``[q_lo - c, q_hi + c]`` then covers a new exchangeable run with probability at least
``1 - alpha``, whatever the noise and however bad the trees. Where ``n`` is too small for that,
``ceil((n + 1) (1 - alpha)) > n``, only the unbounded interval is honest, and it is what comes back.
Corrected quantiles may cross; sorting them never moves them further from the truth (Chernozhukov,
Fernandez-Val & Galichon 2010).

Configs of a search are not exchangeable: they are chosen where trees expect better losses than any
they know, which trees cannot predict. Rows left out do not show that error; runs foreseen from
those before them do. :class:`OnlineConformal` corrects by both.

Two ways to the raw quantiles:

* :class:`QuantileForest`, the default: extremely randomized trees that share one set of leaf
  weights over all quantiles (Meinshausen 2006), scored out of bag (Gupta, Kuchibhotla & Ramdas
  2022). It is the default because of the time an ask may take: 36 ms for a fit at n = 200.
* :class:`QuantileBoosting`, one gradient-boosted model a level, with CV+ (Barber et al. 2021) for
  few rows and a split for many.

Trees split on columns as encoded, so a log parameter is split in its logarithm; a categorical
column becomes one indicator a code. Splits are sought in the normal scores of y, so neither an
outlier nor the unit of the loss decides where; leaves keep y itself.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, cast

import numpy as np
from scipy import sparse
from scipy.special import ndtri
from scipy.stats import rankdata

from surrogates.base import Posterior
from surrogates.conformal import OnlineLevel, conformal_quantile, rank_of
from surrogates.data import Array, Columns, IntArray, TrainingData

_LOWER = (0.025, 0.05, 0.1, 0.175, 0.25, 0.325, 0.4)
LEVELS: Array = np.array([*_LOWER, 0.5, *(1.0 - tau for tau in reversed(_LOWER))])
_PAIRS = len(_LOWER)
# A level stands for the band of levels nearer to it than to any other, and its quantile is the mean
# over the band: continuous in the weights, where a step function would tie most candidates.
_EDGES = np.concatenate([[0.0], 0.5 * (LEVELS[1:] + LEVELS[:-1]), [1.0]])
_MASS = np.diff(_EDGES)
_LEAST = 0.999  # level at which the least is promised: 1 would ask for no runs at all


class QuantilePredictor(Protocol):
    """Calibrated quantiles of a new run."""

    def quantiles(self, X: Array) -> Array:
        """At :data:`LEVELS`, m x K, ascending along each row; infinite where nothing is known."""
        ...


def interval(predictor: QuantilePredictor, X: Array, coverage: float) -> tuple[Array, Array]:
    """Ends of the central interval, ``(m,)`` each, infinite where ``coverage`` cannot be promised.

    Raises:
        ValueError: unless the ends are among :data:`LEVELS`.
    """
    pair, q = _pair(coverage), predictor.quantiles(X)
    return q[:, pair], q[:, -1 - pair]


def _pair(coverage: float) -> int:
    """Place in :data:`LEVELS` of the lower end."""
    pair = np.flatnonzero(np.isclose(LEVELS, 0.5 * (1.0 - coverage)))
    if len(pair) != 1:
        known = np.round(1.0 - 2.0 * LEVELS[:_PAIRS], 3).tolist()
        raise ValueError(f"`coverage` must be one of {known}, got {coverage}; pick the nearest")
    return int(pair[0])


def crps(predictor: SampledQuantiles, X: Array, y: Array) -> Array:
    """Continuous ranked probability score of outcomes ``y`` at the rows of ``X``, ``(m,)``.

    ``2 integral pinball_tau(y - q_tau) dtau`` (Gneiting & Ranjan 2011, eq. 10), over the bands.
    """
    error = y[:, None] - predictor.finite_quantiles(X)
    pinball = np.where(error >= 0.0, LEVELS * error, (LEVELS - 1.0) * error)
    return np.asarray(2.0 * pinball @ _MASS)


class SampledQuantiles(QuantilePredictor, Protocol):
    """Calibrated quantiles from which functions can be drawn."""

    def finite_quantiles(self, X: Array) -> Array:
        """As :meth:`quantiles`, with the largest score in place of infinite corrections."""
        ...


def at_level(predictor: SampledQuantiles, X: Array, level: float) -> Array:
    """One draw from the posterior, ``(m,)``: the quantile at one ``level`` shared by all rows.

    With a level drawn uniformly once a suggestion, minimizing this is posterior sampling with all
    rows fully dependent. A level drawn for each row would be minimized by whichever row drew the
    lowest: a random lower bound.
    """
    q = predictor.finite_quantiles(X)
    place = np.clip(np.searchsorted(LEVELS, level), 1, len(LEVELS) - 1)
    share = (level - LEVELS[place - 1]) / (LEVELS[place] - LEVELS[place - 1])
    share = float(np.clip(share, 0.0, 1.0))
    return np.asarray((1.0 - share) * q[:, place - 1] + share * q[:, place])


def moments(predictor: SampledQuantiles, X: Array) -> Posterior:
    """Mean and variance of a new run, noise included, over the bands."""
    q = predictor.finite_quantiles(X)
    mean = q @ _MASS
    return Posterior(mean, (q - mean[:, None]) ** 2 @ _MASS)


@dataclass(frozen=True, slots=True)
class Corrections:
    """What each pair of levels is widened by.

    Attributes:
        promised: ``(K/2,)``, possibly infinite. finite: the largest score instead.
        scores: n x K/2, E of the rows that their trees did not see.
    """

    guaranteed: Array
    finite: Array
    scores: Array

    @classmethod
    def of(cls, q: Array, y: Array) -> Corrections:
        """From quantiles n x K and outcomes ``(n,)`` at rows their trees did not see."""
        scores = conformity(q, y)
        guaranteed = np.array(
            [conformal_quantile(scores[:, k], 1.0 - 2.0 * LEVELS[k]) for k in range(_PAIRS)]
        )
        largest = scores.max(axis=0, initial=0.0) if len(scores) else np.zeros(_PAIRS)
        return cls(guaranteed, np.where(np.isfinite(guaranteed), guaranteed, largest), scores)


@dataclass(frozen=True, slots=True)
class ForecastScores:
    """Runs and what trees fitted before them said of them.

    Attributes:
        out_of_bag: n x K/2, E of the rows these trees left out.
        ahead: b x K/2, E of the runs that were told next.
    """

    out_of_bag: Array
    ahead: Array


@dataclass(frozen=True, slots=True)
class OnlineConformal:
    """The correction of one pair from rows left out and from runs foreseen, its level kept online.

    Attributes:
        pair: which one, counted from the widest. level: corrected by what was missed so far.
        scores: ``(b,)``, E of the runs foreseen so far.
    """

    pair: int
    level: OnlineLevel
    scores: Array

    @classmethod
    def start(cls, coverage: float) -> OnlineConformal:
        """Before anything was foreseen. Raises ValueError as :func:`interval`."""
        return cls(_pair(coverage), OnlineLevel.start(1.0 - coverage), np.zeros(0))

    def updated(self, block: ForecastScores) -> OnlineConformal:
        """With the runs of one more block."""
        ahead, known = block.ahead[:, self.pair], self._pooled(block.out_of_bag)
        level = self.level
        for score in ahead:
            level = level.updated(rank_of(float(score), known))
        return replace(self, level=level, scores=np.concatenate([self.scores, ahead]))

    def interval(self, forest: ForestPredictor, x: Array) -> tuple[float, float, float]:
        """Lower end, median and upper end at a row ``x`` 1 x d, all finite.

        Where the level cannot be promised the largest score widens the interval.
        """
        q, scores = forest.leaf_weights.quantiles(x)[0], self._pooled(forest.corrections.scores)
        alpha = self.level.level
        by = np.inf if alpha <= 0.0 else conformal_quantile(scores, 1.0 - min(alpha, _LEAST))
        if not np.isfinite(by):
            by = float(np.max(scores, initial=0.0))
        middle = float(q[_PAIRS])
        return (
            min(float(q[self.pair]) - by, middle),
            middle,
            max(float(q[-1 - self.pair]) + by, middle),
        )

    def _pooled(self, out_of_bag: Array) -> Array:
        """Scores of rows left out and of at most as many of the last runs foreseen."""
        return np.concatenate([out_of_bag[:, self.pair], self.scores[-max(len(out_of_bag), 1) :]])


def conformity(q: Array, y: Array) -> Array:
    """``E``, n x K/2, negative where the outcome lies inside."""
    below, above = q[:, :_PAIRS] - y[:, None], y[:, None] - q[:, : -_PAIRS - 1 : -1]
    return np.maximum(below, above)


def _widened(q: Array, by: Array) -> Array:
    """Every pair moved outwards by ``by`` ``(K/2,)``, then crossing repaired by sorting."""
    return np.sort(q + np.concatenate([-by, [0.0], by[::-1]]), axis=1)


@dataclass(frozen=True, slots=True)
class LeafWeights:
    """Extremely randomized trees read as weights on their training rows (Meinshausen 2006, eq. 4).

    Build it with :meth:`of`.

    Attributes:
        columns: of X.
        trees: fitted structures of scikit-learn.
        leaves: n x T, leaf of each row in each tree, numbered over all trees.
        counts: n x T, how often each row is in the bag of each tree.
        y: ``(n,)``.
        members: leaves x n, share of each row in each leaf; rows in ascending order of y.
        ascending: ``(n,)``, y in that order.
    """

    columns: Columns
    trees: tuple[Any, ...]
    leaves: IntArray
    counts: Array
    y: Array
    members: sparse.csr_array
    ascending: Array

    @classmethod
    def of(
        cls, columns: Columns, trees: tuple[Any, ...], leaves: IntArray, counts: Array, y: Array
    ) -> LeafWeights:
        order = np.argsort(y, kind="stable")
        row, tree = np.nonzero(counts[order])
        leaf, count = leaves[order][row, tree], counts[order][row, tree]
        size = sum(structure.node_count for structure in trees)
        total = np.bincount(leaf, weights=count, minlength=size)
        members = sparse.csr_array((count / total[leaf], (leaf, row)), shape=(size, len(y)))
        return cls(columns, trees, leaves, counts, y, members, y[order])

    def quantiles(self, X: Array) -> Array:
        asked = _leaf_indices(self.trees, features(X, self.columns))
        return self._quantiles(asked, np.ones(asked.shape))

    def out_of_bag(self, rows: IntArray) -> tuple[Array, IntArray]:
        """Quantiles at training rows from the trees that did not see them, and the rows with any.

        The second are those of ``rows`` that some tree left out.
        """
        unseen = (self.counts[rows] == 0.0).astype(np.float64)
        known = unseen.any(axis=1)
        return self._quantiles(self.leaves[rows[known]], unseen[known]), rows[known]

    def with_rows(self, X: Array, y: Array) -> LeafWeights:
        """With more rows in the leaves they fall into; the trees stay."""
        more = _leaf_indices(self.trees, features(X, self.columns))
        return LeafWeights.of(
            self.columns,
            self.trees,
            np.concatenate([self.leaves, more]),
            np.concatenate([self.counts, np.ones(more.shape)]),
            np.concatenate([self.y, y]),
        )

    def with_targets(self, y: Array) -> LeafWeights:
        """The same trees and rows with other targets ``(n,)`` in the leaves."""
        return LeafWeights.of(self.columns, self.trees, self.leaves, self.counts, y)

    def _quantiles(self, leaves: IntArray, use: Array) -> Array:
        """m x K from the leaves m x T of each row and which trees it asks, 0 or 1."""
        m, T = leaves.shape
        share = use / use.sum(axis=1, keepdims=True)
        asked = sparse.csr_array(
            (share.ravel(), leaves.ravel(), np.arange(0, m * T + 1, T)),
            shape=(m, self.members.shape[0]),
        )
        weights = sparse.csr_array(asked @ self.members)
        weights.sort_indices()  # rows are in the order of y
        return _band_means(weights, self.ascending)


def _band_means(weights: sparse.csr_array, y: Array) -> Array:
    """Mean over each band of levels, m x K, of the distributions with ``weights`` m x n on ``y``.

    Args:
        weights: rows sum to 1, columns sorted.
        y: ``(n,)``, ascending.
    """
    starts, values = weights.indptr[:-1], y[weights.indices]
    upto = np.cumsum(weights.data)
    before = upto[starts] - weights.data[starts]
    lengths = np.diff(weights.indptr)
    upper = upto - np.repeat(before, lengths)
    upper[weights.indptr[1:] - 1] = 1.0  # rounding of the running sum
    lower = np.concatenate([[0.0], upper[:-1]])
    lower[starts] = 0.0
    # integral of the quantile function up to each edge
    below = np.stack(
        [
            np.add.reduceat((np.minimum(upper, edge) - np.minimum(lower, edge)) * values, starts)
            for edge in _EDGES
        ],
        axis=1,
    )
    # the bands of one value alone must agree to the last bit: sorting takes back the rounding
    means = np.diff(below, axis=1) / _MASS
    return np.sort(np.clip(means, y[0], y[-1]), axis=1)


def features(X: Array, columns: Columns) -> Array:
    """What trees split on: numeric columns, then one indicator a code, m x p in single precision.

    A code that no training row had sets no indicator that any split asks for.
    """
    parts = np.concatenate([X[:, columns.numeric], columns.one_hot(X)], axis=1)
    return cast(Array, parts.astype(np.float32))


def _leaf_indices(trees: tuple[Any, ...], rows: Array) -> IntArray:
    """m x T. Tree by tree: the forest's own ``apply`` spends more time on threads than on trees."""
    offset = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])[:-1]
    return np.asarray(np.stack([tree.apply(rows) for tree in trees], axis=1) + offset)


def normal_scores(y: Array) -> Array:
    """``Phi^-1((rank - 1/2) / n)``, ties at their mean rank."""
    return np.asarray(ndtri((rankdata(y) - 0.5) / len(y)))


@dataclass(frozen=True, slots=True)
class ForestPredictor:
    """A calibrated quantile forest; a :class:`SampledQuantiles`."""

    leaf_weights: LeafWeights
    corrections: Corrections

    def quantiles(self, X: Array) -> Array:
        return _widened(self.leaf_weights.quantiles(X), self.corrections.guaranteed)

    def finite_quantiles(self, X: Array) -> Array:
        return _widened(self.leaf_weights.quantiles(X), self.corrections.finite)

    def condition(self, X: Array, y: Array) -> ForestPredictor:
        """With more rows in the leaves; trees and corrections unchanged."""
        return replace(self, leaf_weights=self.leaf_weights.with_rows(X, y)) if len(X) else self


@dataclass(frozen=True, slots=True)
class QuantileForest:
    """Extremely randomized trees (Geurts, Ernst & Wehenkel 2006) on bootstrap samples.

    Quantiles at a new row come from all trees, those that are scored from the trees that left the
    row out. These are fewer and err more, so intervals come out too wide: at n = 60 by 2 points of
    coverage with samples as large as the data, where 37 % of the trees leave a row out, and by 1
    with samples half as large, where 61 % do. The score (CRPS) of both is the same.

    Args:
        trees: number of them.
        leaf: rows a leaf holds at least.
        share: size of a bootstrap sample, in those of the data.
        max_rows: its size at most.
        max_scored: out-of-bag rows used for calibration at most, evenly over the order of telling.
    """

    trees: int = 50
    leaf: int = 2
    share: float = 0.5
    max_rows: int = 2000
    max_scored: int = 500

    def fit(self, data: TrainingData, *, rng: np.random.Generator | None = None) -> ForestPredictor:
        """From n >= 1 rows. Raises ValueError without any."""
        from sklearn import config_context
        from sklearn.tree import ExtraTreeRegressor

        n = len(data)
        if not n:
            raise ValueError("a quantile forest needs at least one row, got none; tell one first")
        rng = np.random.default_rng(0) if rng is None else rng
        size = max(1, min(round(self.share * n), self.max_rows))
        rows, y = features(data.X, data.columns), normal_scores(data.y)
        bags = rng.integers(n, size=(self.trees, size))
        seeds = rng.integers(2**31, size=self.trees).tolist()
        grown: list[Any] = []
        # Tree by tree, arguments checked here: in ExtraTreesRegressor 50 small trees spend four
        # times as long on their checks and threads as on growing.
        with config_context(skip_parameter_validation=True, assume_finite=True):
            for bag, state in zip(bags, seeds, strict=True):
                tree = ExtraTreeRegressor(
                    min_samples_leaf=self.leaf, max_features=1.0, random_state=state
                )
                grown.append(tree.fit(rows[bag], y[bag], check_input=False).tree_)
        trees = tuple(grown)
        counts = np.stack([np.bincount(bag, minlength=n) for bag in bags], axis=1).astype(float)
        leaf_weights = LeafWeights.of(
            data.columns, trees, _leaf_indices(trees, rows), counts, data.y
        )
        scored = np.unique(np.linspace(0, n - 1, min(n, self.max_scored)).round().astype(np.intp))
        q, rows_scored = leaf_weights.out_of_bag(scored)
        return ForestPredictor(leaf_weights, Corrections.of(q, data.y[rows_scored]))


def last_reports(
    X: Array, columns: Columns, run: IntArray, level: Array, value: Array
) -> TrainingData:
    """TODO"""
    if len(columns.fidelity) != 1:
        raise ValueError(f"`columns` must have one fidelity column, got {len(columns.fidelity)}")
    if not len(run) == len(level) == len(value):
        raise ValueError(
            "`run`, `level` and `value` must have one entry per report, got "
            f"{len(run)}, {len(level)}, {len(value)}"
        )
    if len(run) and not 0 <= int(run.min()) <= int(run.max()) < len(X):
        raise ValueError(f"`run` must index rows of X, 0 to {len(X) - 1}")
    order = np.lexsort((np.arange(len(run)), level, run))
    ends = np.append(np.diff(run[order]) != 0, True)[: len(order)]
    kept = np.sort(order[ends])
    rows = X[run[kept]].copy()
    rows[:, columns.fidelity[0]] = level[kept]
    return TrainingData(rows, value[kept], columns)
