"""Conformalized quantile forest: predictive quantiles without assumptions about the noise.

Notation:

==========  =======  ==============================================================================
`tau`       K        `LEVELS`, symmetric about one half; tau_k and tau_(K-1-k) are a pair
`q`         m x K    raw quantiles at m rows, from trees
`E`         n x K/2  conformity scores `max(q_lo(x) - y, y - q_hi(x))` of each pair at n rows,
                     `q` from trees that did not see the row (Romano, Patterson & Candes 2019)
`c`         K/2      correction of each pair: the ceil((n + 1) (1 - alpha))-th smallest score
==========  =======  ==============================================================================

The interval `[q_lo - c, q_hi + c]` then covers a new exchangeable run with probability at least
`1 - alpha`, whatever the noise and however bad the trees. Where `n` is too small for that,
`ceil((n + 1) (1 - alpha)) > n`, only the unbounded interval is valid, and it is what comes back.
Corrected quantiles may cross; sorting them never moves them further from the truth (Chernozhukov,
Fernandez-Val & Galichon 2010).

Configs of a search are not exchangeable: they are chosen where trees expect better losses than any
they know, which trees cannot predict. Out-of-bag rows do not show that error; one-step-ahead
forecasts do. `OnlineConformal` corrects by both.

The raw quantiles come from extremely randomized trees that share one set of leaf weights over all
quantiles (Meinshausen 2006), scored out of bag (Gupta, Kuchibhotla & Ramdas 2022): 36 ms for a fit
at n = 200.

Trees split on columns as encoded, so a log parameter is split in its logarithm; a categorical
column becomes one indicator per code. Splits are sought in the normal scores of y, so neither an
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
_LARGEST_ALPHA = 0.999  # share of misses of the narrowest interval: at 1 none need be covered


class QuantilePredictor(Protocol):
    """Calibrated quantiles of a new run.

    Example:
        >>> def median(predictor: QuantilePredictor, X: Array) -> Array:
        ...     return predictor.quantiles(X)[:, len(LEVELS) // 2]
    """

    def quantiles(self, X: Array) -> Array:
        """Return the quantiles at `LEVELS`, `m x K`, ascending along each row.

        They are infinite where nothing is known.
        """
        ...


def interval(predictor: QuantilePredictor, X: Array, coverage: float) -> tuple[Array, Array]:
    """Return the ends of the central interval, infinite where `coverage` cannot be guaranteed.

    Args:
        predictor: calibrated quantiles.
        X: `m x d`.
        coverage: probability of the interval; its ends must be among `LEVELS`.

    Returns:
        Lower and upper ends, `(m,)` each.

    Raises:
        ValueError: unless the ends are among `LEVELS`.

    Example:
        >>> X = np.linspace(0.0, 1.0, 60)[:, None]
        >>> y = X[:, 0] + 0.1 * np.random.default_rng(0).standard_normal(60)
        >>> predictor = QuantileForest().fit(TrainingData(X, y, Columns.of_decisions("x")))
        >>> low, high = interval(predictor, X, 0.8)
        >>> bool(np.all(low < high))
        True
    """
    pair, q = _pair(coverage), predictor.quantiles(X)
    return q[:, pair], q[:, -1 - pair]


def _pair(coverage: float) -> int:
    """Return the place in `LEVELS` of the lower end."""
    pair = np.flatnonzero(np.isclose(LEVELS, 0.5 * (1.0 - coverage)))
    if len(pair) != 1:
        known = np.round(1.0 - 2.0 * LEVELS[:_PAIRS], 3).tolist()
        raise ValueError(f"`coverage` must be one of {known}, got {coverage}; pick the nearest")
    return int(pair[0])


def crps(predictor: SampledQuantiles, X: Array, y: Array) -> Array:
    """Return the continuous ranked probability score of outcomes `y` at the rows of `X`, `(m,)`.

    `2 integral pinball_tau(y - q_tau) dtau` (Gneiting & Ranjan 2011, eq. 10), over the bands.

    Args:
        predictor: calibrated quantiles.
        X: `m x d`.
        y: `(m,)`.

    Example:
        >>> data = TrainingData(np.zeros((30, 1)), np.arange(30.0), Columns.of_decisions("x"))
        >>> predictor = QuantileForest(trees=5).fit(data)
        >>> near, far = crps(predictor, np.zeros((2, 1)), np.array([15.0, 100.0]))
        >>> bool(near < far)
        True
    """
    error = y[:, None] - predictor.finite_quantiles(X)
    pinball = np.where(error >= 0.0, LEVELS * error, (LEVELS - 1.0) * error)
    return np.asarray(2.0 * pinball @ _MASS)


class SampledQuantiles(QuantilePredictor, Protocol):
    """Calibrated quantiles from which functions can be drawn.

    Example:
        >>> def spread(predictor: SampledQuantiles, X: Array) -> Array:
        ...     return np.ptp(predictor.finite_quantiles(X), axis=1)
    """

    def finite_quantiles(self, X: Array) -> Array:
        """Return `quantiles` with the largest score in place of infinite corrections."""
        ...


def at_level(predictor: SampledQuantiles, X: Array, level: float) -> Array:
    """Return one draw of the function, `(m,)`: the quantile at one `level` shared by all rows.

    With a level drawn uniformly once per suggestion, minimizing this is posterior sampling with all
    rows fully dependent. A level drawn for each row would be minimized by whichever row drew the
    lowest: a random lower bound.

    Args:
        predictor: calibrated quantiles.
        X: `m x d`.
        level: level of the quantile, in [0, 1].

    Example:
        >>> data = TrainingData(np.zeros((30, 1)), np.arange(30.0), Columns.of_decisions("x"))
        >>> predictor = QuantileForest(trees=5).fit(data)
        >>> row = np.zeros((1, 1))
        >>> bool(at_level(predictor, row, 0.1)[0] < at_level(predictor, row, 0.9)[0])
        True
    """
    q = predictor.finite_quantiles(X)
    place = np.clip(np.searchsorted(LEVELS, level), 1, len(LEVELS) - 1)
    share = (level - LEVELS[place - 1]) / (LEVELS[place] - LEVELS[place - 1])
    share = float(np.clip(share, 0.0, 1.0))
    return np.asarray((1.0 - share) * q[:, place - 1] + share * q[:, place])


def moments(predictor: SampledQuantiles, X: Array) -> Posterior:
    """Return mean and variance of a new run at the rows of `X`, noise included, over the bands.

    Args:
        predictor: calibrated quantiles.
        X: `m x d`.

    Example:
        >>> data = TrainingData(np.zeros((30, 1)), np.full(30, 2.0), Columns.of_decisions("x"))
        >>> moments(QuantileForest(trees=5).fit(data), np.zeros((1, 1))).mean.tolist()
        [2.0]
    """
    q = predictor.finite_quantiles(X)
    mean = q @ _MASS
    return Posterior(mean, (q - mean[:, None]) ** 2 @ _MASS)


@dataclass(frozen=True, slots=True)
class Corrections:
    """Conformal correction of each pair of levels.

    Args:
        guaranteed: `(K/2,)`, correction with a finite-sample guarantee, possibly infinite.
        finite: `(K/2,)`, the same with the largest score in place of infinity.
        scores: `n x K/2`, E of the rows that their trees did not see.

    Example:
        >>> q, y = np.tile(LEVELS, (30, 1)), np.linspace(0.0, 1.0, 30)
        >>> Corrections.of(q, y).finite.round(2).tolist()
        [0.03, 0.02, 0.03, 0.04, 0.01, 0.01, 0.02]
    """

    guaranteed: Array
    finite: Array
    scores: Array

    @classmethod
    def of(cls, q: Array, y: Array) -> Corrections:
        """Return the corrections for quantiles `n x K` and outcomes `(n,)` at out-of-bag rows."""
        scores = conformity(q, y)
        guaranteed = np.array(
            [conformal_quantile(scores[:, k], 1.0 - 2.0 * LEVELS[k]) for k in range(_PAIRS)]
        )
        largest = scores.max(axis=0, initial=0.0) if len(scores) else np.zeros(_PAIRS)
        return cls(guaranteed, np.where(np.isfinite(guaranteed), guaranteed, largest), scores)


@dataclass(frozen=True, slots=True)
class ForecastScores:
    """Conformity scores of a forest on out-of-bag rows and on the runs that came next.

    Args:
        out_of_bag: `n x K/2`, E of the rows these trees left out.
        ahead: `b x K/2`, E of the next runs (one-step-ahead, prequential).

    Example:
        >>> ForecastScores(np.zeros((20, 7)), np.ones((3, 7))).ahead.shape
        (3, 7)
    """

    out_of_bag: Array
    ahead: Array


@dataclass(frozen=True, slots=True)
class OnlineConformal:
    """Online correction of one pair by out-of-bag rows and one-step-ahead forecasts.

    Args:
        pair: position of the pair, counted from the widest.
        level: online level, corrected by the misses so far.
        scores: `(b,)`, E of the one-step-ahead forecasts so far.

    Example:
        >>> online = OnlineConformal.start(0.9)
        >>> online = online.updated(ForecastScores(np.zeros((20, 7)), np.ones((3, 7))))
        >>> online.level.observed, online.level.level < 0.1
        (3, True)
    """

    pair: int
    level: OnlineLevel
    scores: Array

    @classmethod
    def start(cls, coverage: float) -> OnlineConformal:
        """Return the state before any forecast.

        Args:
            coverage: probability of the interval; its ends must be among `LEVELS`.

        Raises:
            ValueError: as `interval`.
        """
        return cls(_pair(coverage), OnlineLevel.start(1.0 - coverage), np.zeros(0))

    def updated(self, block: ForecastScores) -> OnlineConformal:
        """Return the state with the runs of one more block."""
        ahead, known = block.ahead[:, self.pair], self._pooled(block.out_of_bag)
        level = self.level
        for score in ahead:
            level = level.updated(rank_of(float(score), known))
        return replace(self, level=level, scores=np.concatenate([self.scores, ahead]))

    def interval(self, forest: ForestPredictor, x: Array) -> tuple[float, float, float]:
        """Return lower end, median and upper end at a row `x`, `1 x d`, all finite.

        Where the level cannot be guaranteed the largest score widens the interval.
        """
        q, scores = forest.leaf_weights.quantiles(x)[0], self._pooled(forest.corrections.scores)
        alpha = self.level.level
        by = (
            np.inf if alpha <= 0.0 else conformal_quantile(scores, 1.0 - min(alpha, _LARGEST_ALPHA))
        )
        if not np.isfinite(by):
            by = float(np.max(scores, initial=0.0))
        middle = float(q[_PAIRS])
        return (
            min(float(q[self.pair]) - by, middle),
            middle,
            max(float(q[-1 - self.pair]) + by, middle),
        )

    def _pooled(self, out_of_bag: Array) -> Array:
        """Return out-of-bag scores and at most as many of the last one-step-ahead scores."""
        return np.concatenate([out_of_bag[:, self.pair], self.scores[-max(len(out_of_bag), 1) :]])


def conformity(q: Array, y: Array) -> Array:
    """Return the scores `E`, `n x K/2`, negative where the outcome lies inside.

    Args:
        q: `n x K`, quantiles.
        y: `(n,)`, outcomes.

    Example:
        >>> conformity(LEVELS[None, :], np.array([2.0]))[0].round(3).tolist()
        [1.025, 1.05, 1.1, 1.175, 1.25, 1.325, 1.4]
    """
    below, above = q[:, :_PAIRS] - y[:, None], y[:, None] - q[:, : -_PAIRS - 1 : -1]
    return np.maximum(below, above)


def _widened(q: Array, by: Array) -> Array:
    """Return every pair moved outwards by `by` `(K/2,)`, crossing repaired by sorting."""
    return np.sort(q + np.concatenate([-by, [0.0], by[::-1]]), axis=1)


@dataclass(frozen=True, slots=True)
class LeafWeights:
    """Extremely randomized trees read as weights on their training rows (Meinshausen 2006, eq. 4).

    Build it with `of`.

    Args:
        columns: roles of the columns of X.
        trees: fitted tree structures of scikit-learn.
        leaves: `n x T`, leaf of each row in each tree, numbered over all trees.
        counts: `n x T`, how often each row is in the bag of each tree.
        y: `(n,)`.
        members: `leaves x n`, share of each row in each leaf; rows in ascending order of y.
        ascending: `(n,)`, y in that order.

    Example:
        >>> X = np.linspace(0.0, 1.0, 20)[:, None]
        >>> data = TrainingData(X, X[:, 0], Columns.of_decisions("x"))
        >>> weights = QuantileForest(trees=5).fit(data).leaf_weights
        >>> weights.quantiles(X[:2]).shape
        (2, 15)
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
        """Return the weights of trees, given the leaf and count of each row, and the targets."""
        order = np.argsort(y, kind="stable")
        row, tree = np.nonzero(counts[order])
        leaf, count = leaves[order][row, tree], counts[order][row, tree]
        size = sum(structure.node_count for structure in trees)
        total = np.bincount(leaf, weights=count, minlength=size)
        members = sparse.csr_array((count / total[leaf], (leaf, row)), shape=(size, len(y)))
        return cls(columns, trees, leaves, counts, y, members, y[order])

    def quantiles(self, X: Array) -> Array:
        """Return the raw quantiles at the m rows of `X`, `m x K`."""
        asked = _leaf_indices(self.trees, features(X, self.columns))
        return self._quantiles(asked, np.ones(asked.shape))

    def out_of_bag(self, rows: IntArray) -> tuple[Array, IntArray]:
        """Return quantiles at training rows from the trees that did not see them.

        Args:
            rows: indices of training rows.

        Returns:
            Quantiles `m x K`, and those of `rows` that some tree left out, `(m,)`.
        """
        unseen = (self.counts[rows] == 0.0).astype(np.float64)
        known = unseen.any(axis=1)
        return self._quantiles(self.leaves[rows[known]], unseen[known]), rows[known]

    def with_rows(self, X: Array, y: Array) -> LeafWeights:
        """Return the weights with more rows in the leaves they fall into; the trees stay."""
        more = _leaf_indices(self.trees, features(X, self.columns))
        return LeafWeights.of(
            self.columns,
            self.trees,
            np.concatenate([self.leaves, more]),
            np.concatenate([self.counts, np.ones(more.shape)]),
            np.concatenate([self.y, y]),
        )

    def with_targets(self, y: Array) -> LeafWeights:
        """Return the weights with other targets `(n,)` in the leaves; trees and rows stay."""
        return LeafWeights.of(self.columns, self.trees, self.leaves, self.counts, y)

    def _quantiles(self, leaves: IntArray, use: Array) -> Array:
        """Return the quantiles `m x K`.

        Args:
            leaves: `m x T`, leaf of each row in each tree.
            use: `m x T`, 1 where the row uses the tree, else 0.
        """
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
    """Return means over the bands of levels, `m x K`, of distributions with `weights` on `y`.

    Args:
        weights: `m x n`, rows sum to 1, columns sorted.
        y: `(n,)`, ascending.
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
    """Return what trees split on, `m x p` in single precision.

    Numeric columns come first, then one indicator per code. A code that no training row had sets no
    indicator that any split asks for.

    Args:
        X: `m x d`.
        columns: roles of the columns.

    Example:
        >>> features(np.array([[0.5]]), Columns.of_decisions("x")).dtype
        dtype('float32')
    """
    parts = np.concatenate([X[:, columns.numeric], columns.one_hot(X)], axis=1)
    return cast(Array, parts.astype(np.float32))


def _leaf_indices(trees: tuple[Any, ...], rows: Array) -> IntArray:
    """Return the leaf of each row in each tree, `m x T`, numbered over all trees.

    Tree by tree: the forest's own `apply` spends more time on threads than on trees.
    """
    offset = np.concatenate([[0], np.cumsum([tree.node_count for tree in trees])])[:-1]
    return np.asarray(np.stack([tree.apply(rows) for tree in trees], axis=1) + offset)


def normal_scores(y: Array) -> Array:
    """Return the normal scores `Phi^-1((rank - 1/2) / n)`, ties at their mean rank.

    Args:
        y: `(n,)`.

    Example:
        >>> normal_scores(np.array([3.0, 1.0, 2.0])).round(2).tolist()
        [0.97, -0.97, 0.0]
    """
    return np.asarray(ndtri((rankdata(y) - 0.5) / len(y)))


@dataclass(frozen=True, slots=True)
class ForestPredictor:
    """A calibrated quantile forest.

    Args:
        leaf_weights: trees and their training rows.
        corrections: conformal corrections.

    Example:
        >>> X = np.linspace(0.0, 1.0, 60)[:, None]
        >>> data = TrainingData(X, X[:, 0], Columns.of_decisions("x"))
        >>> predictor = QuantileForest().fit(data)
        >>> round(float(predictor.quantiles(np.array([[0.5]]))[0, len(LEVELS) // 2]), 1)
        0.5
    """

    leaf_weights: LeafWeights
    corrections: Corrections

    def quantiles(self, X: Array) -> Array:
        """Return the quantiles at `LEVELS`, `m x K`, infinite where they cannot be guaranteed."""
        return _widened(self.leaf_weights.quantiles(X), self.corrections.guaranteed)

    def finite_quantiles(self, X: Array) -> Array:
        """Return the quantiles at `LEVELS`, `m x K`, all finite."""
        return _widened(self.leaf_weights.quantiles(X), self.corrections.finite)

    def condition(self, X: Array, y: Array) -> ForestPredictor:
        """Return the predictor with more rows in the leaves; trees and corrections unchanged."""
        return replace(self, leaf_weights=self.leaf_weights.with_rows(X, y)) if len(X) else self


@dataclass(frozen=True, slots=True)
class QuantileForest:
    """Extremely randomized trees (Geurts, Ernst & Wehenkel 2006) on bootstrap samples.

    Quantiles at a new row come from all trees, those that are scored from the trees that left the
    row out. These are fewer and err more, so intervals come out too wide: at n = 60 by 2 points of
    coverage with samples as large as the data, where 37 % of the trees leave a row out, and by 1
    with samples half as large, where 61 % do. The score (CRPS) of both is the same.

    Args:
        trees: number of trees.
        leaf: least number of rows in a leaf.
        share: size of a bootstrap sample, as a share of the data.
        max_rows: largest size of a bootstrap sample.
        max_scored: largest number of out-of-bag rows used for calibration, evenly over their order.

    Example:
        >>> X = np.linspace(0.0, 1.0, 60)[:, None]
        >>> data = TrainingData(X, X[:, 0], Columns.of_decisions("x"))
        >>> predictor = QuantileForest().fit(data, rng=np.random.default_rng(1))
        >>> predictor.quantiles(X).shape
        (60, 15)
    """

    trees: int = 50
    leaf: int = 2
    share: float = 0.5
    max_rows: int = 2000
    max_scored: int = 500

    def fit(self, data: TrainingData, *, rng: np.random.Generator | None = None) -> ForestPredictor:
        """Return the calibrated forest of n >= 1 rows.

        Args:
            data: rows and targets.
            rng: source of randomness; None is a generator of seed 0.

        Raises:
            ValueError: without any row.
        """
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
    """Return one row for each run with a report: its last one.

    The last report of a run is the one at its highest level; of two at one level, the later counts.

    Learning from the last report of each run whatever its level is what the conformal-quantile
    paper does (Salinas et al. 2023, section 5). Under a scheduler that lets only good runs go
    further, the level reached is itself a sign of being good, and ranks survive the mixing. It
    needs no model of levels, and where runs are stopped at random it is wrong.

    Args:
        X: `t x d`, one row per run; its fidelity column is not read.
        columns: roles of the columns of X, with exactly one fidelity column.
        run: `(r,)`, row of X that each report belongs to, in the order the reports came in.
        level: `(r,)`, encoded as the fidelity column is.
        value: `(r,)`, reported values.

    Returns:
        Rows whose fidelity column holds the level of the report.

    Raises:
        ValueError: for lengths that differ, an unknown run, or another number of fidelity columns.

    Example:
        >>> from surrogates.data import ColumnKind
        >>> columns = Columns((ColumnKind.FIDELITY,), ("epoch",), np.zeros(1), np.ones(1), (0,))
        >>> data = last_reports(
        ...     np.zeros((2, 1)), columns,
        ...     run=np.array([0, 1, 0]),
        ...     level=np.array([0.1, 0.1, 0.5]),
        ...     value=np.array([9.0, 8.0, 5.0]),
        ... )
        >>> data.X.tolist(), data.y.tolist()
        ([[0.1], [0.5]], [8.0, 5.0])
    """
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
