"""Quantile surrogates: exact finite-sample levels, coverage, order, and the edges of the data."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from surrogates.data import Array, ColumnKind, Columns, TrainingData
from surrogates.quantile_forest import (
    LEVELS,
    Corrections,
    ForecastScores,
    OnlineConformal,
    QuantileForest,
    _widened,
    at_level,
    conformity,
    crps,
    features,
    interval,
    last_reports,
    moments,
    normal_scores,
)

COVERAGES = (0.5, 0.8, 0.9, 0.95)


def numeric(d: int) -> Columns:
    names = tuple(f"x{i}" for i in range(d))
    return Columns((ColumnKind.DECISION,) * d, names, np.zeros(d), np.ones(d), (0,) * d)


MIXED = Columns(
    (ColumnKind.DECISION, ColumnKind.CATEGORICAL), ("x", "kind"), np.zeros(2), np.ones(2), (0, 4)
)


def heteroscedastic(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    X = rng.random((n, 3))
    return X, np.sin(6.0 * X[:, 0]) + (0.05 + X[:, 1]) * rng.standard_normal(n)


def heavy_tailed(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    X = rng.random((n, 3))
    return X, np.sin(6.0 * X[:, 0]) + 0.2 * rng.standard_t(2, size=n)


class Known:
    """Raw quantiles of a standard normal, whatever the row."""

    def __init__(self, scale: float = 1.0) -> None:
        from scipy.special import ndtri

        self.q = scale * ndtri(LEVELS)

    def at(self, X: Array) -> Array:
        return np.tile(self.q, (len(X), 1))


class Answered:
    """The same quantiles whatever the rows."""

    def __init__(self, q: Array) -> None:
        self.q = q

    def quantiles(self, X: Array) -> Array:
        return self.q

    def finite_quantiles(self, X: Array) -> Array:
        return self.q


class Corrected:
    """Raw quantiles widened by conformal corrections, as a forest widens those of its leaves."""

    def __init__(self, raw: Known, corrections: Corrections) -> None:
        self.raw, self.corrections = raw, corrections

    def quantiles(self, X: Array) -> Array:
        return _widened(self.raw.at(X), self.corrections.guaranteed)

    def finite_quantiles(self, X: Array) -> Array:
        return _widened(self.raw.at(X), self.corrections.finite)


@pytest.mark.parametrize("n", [9, 19, 30, 99])
@pytest.mark.parametrize("scale", [0.2, 1.0, 3.0])
def test_a_split_covers_exactly_as_order_statistics_say(n, scale):
    """Coverage given calibration rows is Beta(k, n + 1 - k), k = ceil((n + 1) 0.8): mean k/(n+1).

    However wrong the raw quantiles are.
    """
    rng = np.random.default_rng(0)
    raw = Known(scale)
    covered = []
    for _ in range(1500):
        y = rng.standard_normal(n)
        found = Corrected(raw, Corrections.of(raw.at(y[:, None]), y))
        low, high = interval(found, np.zeros((1, 1)), 0.8)
        new = rng.standard_normal(40)
        covered.append(np.mean((low <= new) & (new <= high)))
    exact = np.ceil(0.8 * (n + 1) - 1e-9) / (n + 1)
    assert np.mean(covered) == pytest.approx(exact, abs=4.0 * np.std(covered) / np.sqrt(1500))


@pytest.mark.parametrize("made", [heteroscedastic, heavy_tailed])
def test_the_forest_covers_what_it_says_out_of_bag(made):
    hits = np.zeros(len(COVERAGES))
    for seed in range(40):
        rng = np.random.default_rng(seed)
        X, y = made(60, rng)
        new, outcome = made(200, rng)
        found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
        found = Answered(found.quantiles(new))  # the forest is asked once for all coverages
        for k, coverage in enumerate(COVERAGES):
            low, high = interval(found, new, coverage)
            hits[k] += np.mean((low <= outcome) & (outcome <= high)) / 40
    # a repetition's coverage has an sd of about 0.065, so their mean one of 0.01
    assert np.all(hits > np.array(COVERAGES) - 0.03)
    assert np.all(hits < np.array(COVERAGES) + 0.045)


def test_the_conformal_step_is_that_of_mapie():
    regression = pytest.importorskip("mapie.regression", reason="pip install 'scaletune[oracles]'")
    from sklearn.base import BaseEstimator, RegressorMixin

    class Constant(RegressorMixin, BaseEstimator):
        def __init__(self, value: float = 0.0) -> None:
            self.value = value

        def fit(self, X, y):
            self.fitted_ = True
            return self

        def predict(self, X):
            return np.full(len(X), self.value)

    rng = np.random.default_rng(3)
    y = rng.standard_t(3, size=37)
    X, raw = rng.random((37, 1)), Known(0.5)
    found = Corrected(raw, Corrections.of(raw.at(X), y))
    for coverage in (0.8, 0.9):
        k = int(np.flatnonzero(np.isclose(LEVELS, 0.5 * (1.0 - coverage)))[0])
        parts = [Constant(float(raw.q[j])).fit(X, y) for j in (k, -1 - k, len(LEVELS) // 2)]
        theirs = regression.ConformalizedQuantileRegressor(
            parts, confidence_level=coverage, prefit=True
        )
        theirs.conformalize(X, y)
        _, ends = theirs.predict_interval(X[:1], symmetric_correction=True)
        low, high = interval(found, X[:1], coverage)
        assert_allclose(ends.ravel(), [low[0], high[0]], rtol=1e-12)


def test_too_few_rows_give_unbounded_intervals_and_say_so():
    X, y = heteroscedastic(12, np.random.default_rng(0))
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    q = found.quantiles(X)
    assert np.all(np.isneginf(q[:, 0])) and np.all(np.isposinf(q[:, -1]))  # 13 * 0.95 > 12
    low, high = interval(found, X, 0.8)  # 13 * 0.8 <= 12
    assert np.all(np.isfinite(low)) and np.all(np.isfinite(high))
    assert np.all(np.isfinite(found.finite_quantiles(X)))


def test_crossing_is_repaired():
    X, y = heavy_tailed(25, np.random.default_rng(5))
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    new = np.random.default_rng(6).random((50, 3))
    assert np.all(np.diff(found.finite_quantiles(new), axis=1) >= 0.0)
    q = found.quantiles(new)
    assert np.all(q[:, 1:] >= q[:, :-1])


def test_sorting_crossed_quantiles_does_not_worsen_the_score():
    rng = np.random.default_rng(0)
    q, y = rng.standard_normal((200, len(LEVELS))), rng.standard_normal(200)
    raw = np.where(y[:, None] >= q, LEVELS, LEVELS - 1.0) * (y[:, None] - q)
    s = np.sort(q, axis=1)
    repaired = np.where(y[:, None] >= s, LEVELS, LEVELS - 1.0) * (y[:, None] - s)
    assert np.all(repaired.mean(axis=1) <= raw.mean(axis=1) + 1e-12)


def test_conformity_is_negative_inside_and_the_distance_outside():
    q = Known().at(np.zeros((3, 1)))
    scores = conformity(q, np.array([0.0, 5.0, -5.0]))
    assert np.all(scores[0] < 0.0)
    assert_allclose(scores[1], 5.0 - q[0, : -len(scores[1]) - 1 : -1])
    assert_allclose(scores[2], q[0, : len(scores[2])] + 5.0)


def test_the_forest_without_correction_has_the_mean_of_its_leaves():
    """The bands partition (0, 1), so band means average to the weighted mean of y."""
    X, y = heteroscedastic(50, np.random.default_rng(0))
    leaves = QuantileForest().fit(TrainingData(X, y, numeric(3))).leaf_weights
    edges = np.concatenate([[0.0], 0.5 * (LEVELS[1:] + LEVELS[:-1]), [1.0]])
    by_bands = leaves.quantiles(X[:5]) @ np.diff(edges)
    by_trees = np.zeros(5)
    for t, tree in enumerate(leaves.trees):
        at = tree.apply(features(X[:5], numeric(3)))
        own = tree.apply(features(X, numeric(3)))
        for i in range(5):
            w = leaves.counts[:, t] * (own == at[i])
            by_trees[i] += (w @ y) / w.sum() / len(leaves.trees)
    assert_allclose(by_bands, by_trees, rtol=1e-9)


def test_one_shared_level_orders_rows_by_that_quantile():
    X, y = heteroscedastic(80, np.random.default_rng(0))
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    new = np.random.default_rng(1).random((20, 3))
    q = found.finite_quantiles(new)
    for k in (0, 4, 7, 14):
        assert_allclose(at_level(found, new, float(LEVELS[k])), q[:, k])
    assert_array_equal(at_level(found, new, 0.0), q[:, 0])
    assert_array_equal(at_level(found, new, 1.0), q[:, -1])


def test_draws_over_levels_have_the_moments_of_the_prediction():
    X, y = heteroscedastic(80, np.random.default_rng(0))
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    levels = np.random.default_rng(1).random(4000)
    answer = Answered(found.finite_quantiles(X[:1]))  # the forest is asked once for all levels
    draws = np.stack([at_level(answer, X[:1], level) for level in levels])
    posterior = moments(found, X[:1])
    assert draws.mean() == pytest.approx(posterior.mean[0], abs=0.05)
    assert draws.var() == pytest.approx(posterior.variance[0], rel=0.15)


def test_the_score_of_a_normal_law_is_its_closed_form():
    """CRPS of N(0, 1) at y = 0 is (sqrt 2 - 1) / sqrt pi (Gneiting & Raftery 2007, eq. 21)."""
    raw = Known()
    nothing = Corrections(np.zeros(len(LEVELS) // 2), np.zeros(len(LEVELS) // 2), np.zeros((0, 7)))
    score = crps(Corrected(raw, nothing), np.zeros((1, 1)), np.zeros(1))
    assert score[0] == pytest.approx((np.sqrt(2.0) - 1.0) / np.sqrt(np.pi), rel=0.05)


def test_seeds_decide_and_equal_seeds_agree_to_the_last_bit():
    X, y = heteroscedastic(40, np.random.default_rng(0))
    data = TrainingData(X, y, numeric(3))
    first, again, other = (
        QuantileForest().fit(data, rng=np.random.default_rng(s)).quantiles(X) for s in (1, 1, 2)
    )
    assert_array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_row_added_to_the_leaves_pulls_its_neighborhood():
    X, y = heteroscedastic(60, np.random.default_rng(0))
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    at = np.full((1, 3), 0.5)
    grown = found.condition(np.tile(at, (5, 1)), np.full(5, -9.0))
    assert moments(grown, at).mean[0] < moments(found, at).mean[0] - 1.0
    assert found.condition(X[:0], y[:0]) is found


def test_outliers_do_not_move_the_splits():
    X, y = heteroscedastic(60, np.random.default_rng(0))
    worst = int(np.argmax(y))
    wild = y.copy()
    wild[worst] = 1e12
    a = QuantileForest().fit(TrainingData(X, y, numeric(3))).leaf_weights
    b = QuantileForest().fit(TrainingData(X, wild, numeric(3))).leaf_weights
    assert_array_equal(a.leaves, b.leaves)


def test_normal_scores_of_ties_are_equal_and_centered():
    assert_array_equal(normal_scores(np.full(5, 3.0)), np.zeros(5))
    assert_allclose(normal_scores(np.array([3.0, 1.0, 2.0]))[2], 0.0, atol=1e-15)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_rows_is_enough_to_answer(n):
    X, y = heteroscedastic(n, np.random.default_rng(0))
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    q = found.finite_quantiles(X)
    assert np.all(np.isfinite(q))
    low, high = interval(found, X, 0.9)
    assert np.all(np.isinf(low)) and np.all(np.isinf(high))


def test_no_row_at_all_is_refused():
    with pytest.raises(ValueError, match="at least one row"):
        QuantileForest().fit(TrainingData(np.zeros((0, 3)), np.zeros(0), numeric(3)))


def test_constant_targets_are_predicted_without_width():
    X = np.random.default_rng(0).random((30, 3))
    found = QuantileForest().fit(TrainingData(X, np.full(30, 0.1), numeric(3)))
    assert_allclose(found.finite_quantiles(X), 0.1, rtol=1e-12)


def test_duplicate_rows_show_the_spread_of_their_outcomes():
    X = np.full((40, 3), 0.5)
    y = np.random.default_rng(0).standard_normal(40)
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    low, high = interval(found, X[:1], 0.8)
    assert low[0] == pytest.approx(np.quantile(y, 0.1), abs=0.35)
    assert high[0] == pytest.approx(np.quantile(y, 0.9), abs=0.35)


def test_a_category_never_seen_gets_a_finite_prediction_between_the_outcomes():
    rng = np.random.default_rng(0)
    X = np.stack([rng.random(40), rng.integers(0, 3, 40).astype(float)], axis=1)
    y = X[:, 1] + 0.1 * rng.standard_normal(40)
    found = QuantileForest().fit(TrainingData(X, y, MIXED))
    q = found.leaf_weights.quantiles(np.array([[0.5, 3.0]]))
    assert np.all((q >= y.min()) & (q <= y.max()))


def test_a_coverage_that_is_no_pair_of_levels_is_refused():
    X, y = heteroscedastic(30, np.random.default_rng(0))
    found = QuantileForest().fit(TrainingData(X, y, numeric(3)))
    with pytest.raises(ValueError, match="`coverage` must be one of"):
        interval(found, X, 0.77)


@settings(max_examples=20, deadline=None)
@given(
    y=st.lists(
        st.floats(-1e12, 1e12, allow_nan=False, allow_subnormal=False), min_size=1, max_size=30
    ),
    seed=st.integers(0, 100),
)
def test_quantiles_are_ordered_and_raw_ones_lie_between_the_outcomes(y, seed):
    rows = np.random.default_rng(seed).random((len(y), 3))
    found = QuantileForest(trees=8).fit(
        TrainingData(rows, np.array(y), numeric(3)), rng=np.random.default_rng(seed)
    )
    raw = found.leaf_weights.quantiles(rows)
    assert np.all((raw >= min(y)) & (raw <= max(y)))
    q = found.quantiles(rows)
    assert not np.any(np.isnan(q))
    assert np.all(q[:, 1:] >= q[:, :-1])


def improving(n: int, rng: np.random.Generator) -> tuple[Array, Array]:
    """Losses that fall with the order of telling, as in a search that goes on improving."""
    X = rng.random((n, 2))
    return X, 0.1 * rng.standard_normal(n) - 0.05 * np.arange(n)


def forecast_scores(X: Array, y: Array, start: int, end: int) -> ForecastScores:
    forest = QuantileForest().fit(
        TrainingData(X[:start], y[:start], numeric(2)), rng=np.random.default_rng(start)
    )
    ahead = conformity(forest.leaf_weights.quantiles(X[start:end]), y[start:end])
    return ForecastScores(forest.corrections.scores, ahead)


def test_forecast_scores_widen_intervals_that_out_of_bag_rows_leave_too_narrow():
    covered, plain = [], []
    for seed in range(5):
        X, y = improving(90, np.random.default_rng(seed))
        ahead = OnlineConformal.start(0.8)
        for start, end in ((30, 40), (40, 55), (55, 75)):
            ahead = ahead.updated(forecast_scores(X, y, start, end))
        forest = QuantileForest().fit(TrainingData(X[:75], y[:75], numeric(2)))
        for i in range(75, 90):
            low, middle, high = ahead.interval(forest, X[i : i + 1])
            assert low <= middle <= high
            covered.append(low <= y[i] <= high)
            low, high = (float(end[0]) for end in interval(forest, X[i : i + 1], 0.8))
            plain.append(low <= y[i] <= high)
    assert np.mean(plain) < 0.6
    assert np.mean(covered) > 0.8


def test_before_any_forecast_the_interval_is_that_of_the_out_of_bag_rows():
    rng = np.random.default_rng(0)
    X, y = rng.random((60, 2)), rng.standard_normal(60)
    forest = QuantileForest().fit(TrainingData(X, y, numeric(2)))
    low, middle, high = OnlineConformal.start(0.9).interval(forest, X[:1])
    ends = [float(end[0]) for end in interval(forest, X[:1], 0.9)]
    assert [low, high] == pytest.approx(ends)
    assert low <= middle <= high


def test_without_a_guarantee_the_largest_score_widens_the_interval():
    X, y = np.random.default_rng(0).random((5, 2)), np.arange(5.0)
    forest = QuantileForest().fit(TrainingData(X, y, numeric(2)))
    low, middle, high = OnlineConformal.start(0.95).interval(forest, X[:1])
    raw, largest = forest.leaf_weights.quantiles(X[:1])[0], forest.corrections.scores[:, 0].max()
    assert low == min(raw[0] - max(largest, 0.0), middle)
    assert high == max(raw[-1] + max(largest, 0.0), middle)
    with pytest.raises(ValueError, match="`coverage` must be one of"):
        OnlineConformal.start(0.42)


# --- last reports of partial runs

LEVELED = Columns(
    (ColumnKind.DECISION, ColumnKind.FIDELITY), ("lr", "epochs"), np.zeros(2), np.ones(2), (0, 0)
)


def test_the_last_report_of_each_run_is_its_furthest():
    X = np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])
    last = last_reports(
        X,
        LEVELED,
        np.array([0, 1, 0, 1, 1]),
        np.array([0.1, 0.1, 0.5, 0.5, 0.5]),
        np.array([9.0, 8.0, 5.0, 4.0, 3.0]),
    )
    assert_array_equal(last.X, [[0.1, 0.5], [0.2, 0.5]])  # run 2 has not reported
    assert_array_equal(last.y, [5.0, 3.0])  # of two reports at one level, the later


def test_a_new_report_of_an_old_run_replaces_its_row():
    X = np.random.default_rng(0).random((4, 2))
    run, level, value = np.array([0, 1, 2]), np.full(3, 0.1), np.array([3.0, 4.0, 5.0])
    before = last_reports(X, LEVELED, run, level, value)
    after = last_reports(X, LEVELED, np.append(run, 0), np.append(level, 1.0), np.append(value, -7))
    assert len(after) == len(before) == 3
    at = int(np.flatnonzero(after.X[:, 0] == X[0, 0])[0])
    assert after.y[at] == -7.0 and after.X[at, 1] == 1.0
    assert_array_equal(np.sort(np.delete(after.y, at)), [4.0, 5.0])


def test_runs_out_of_range_and_missing_levels_are_refused():
    with pytest.raises(ValueError, match="must index rows of X"):
        last_reports(np.zeros((1, 2)), LEVELED, np.array([1]), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="one fidelity column"):
        last_reports(np.zeros((1, 2)), MIXED, np.array([0]), np.ones(1), np.ones(1))
    with pytest.raises(ValueError, match="one entry per report"):
        last_reports(np.zeros((1, 2)), LEVELED, np.array([0]), np.ones(2), np.ones(1))


def test_no_report_makes_no_rows():
    nothing = last_reports(
        np.zeros((2, 2)), LEVELED, np.zeros(0, dtype=np.intp), np.zeros(0), np.zeros(0)
    )
    assert len(nothing) == 0
