"""Reports at several levels: last reports, all reports, and quantiles that fall with the level."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.isotonic import IsotonicRegression

from surrogates.data import Columns, Kind
from surrogates.fidelity import MonotoneLevels, Reports, pooled_falling, pooled_forest, reports_of
from surrogates.quantile import QuantileForest

COLUMNS = Columns((Kind.DECISION, Kind.FIDELITY), ("lr", "epochs"), np.zeros(2), np.ones(2), (0, 0))


def curves(count: int, rng: np.random.Generator) -> Reports:
    """Runs stopped anywhere, of loss (x - 0.3)^2 + (1 - level)."""
    X = np.column_stack([rng.random(count), np.zeros(count)])
    stops = rng.integers(1, 4, count)
    found = [
        [(level, (x - 0.3) ** 2 + 1.0 - level) for level in (0.1, 0.5, 1.0)[:stop]]
        for x, stop in zip(X[:, 0], stops, strict=True)
    ]
    return reports_of(X, COLUMNS, found)


def test_the_last_report_of_each_trial_is_its_furthest():
    X = np.array([[0.1, 0.0], [0.2, 0.0], [0.3, 0.0]])
    reports = Reports(
        X,
        COLUMNS,
        np.array([0, 1, 0, 1, 1]),
        np.array([0.1, 0.1, 0.5, 0.5, 0.5]),
        np.array([9.0, 8.0, 5.0, 4.0, 3.0]),
    )
    last = reports.last()
    assert_array_equal(last.X, [[0.1, 0.5], [0.2, 0.5]])  # trial 2 has not reported
    assert_array_equal(last.y, [5.0, 3.0])  # of two reports at one level, the later
    assert len(reports.every()) == 5


def test_an_old_trial_that_reports_again_changes_both_fits():
    before = curves(30, np.random.default_rng(0))
    after = Reports(
        before.X,
        COLUMNS,
        np.append(before.trial, 0),
        np.append(before.level, 1.0),
        np.append(before.value, -7.0),
    )
    assert after.revision == before.revision + 1
    assert len(after.last()) == len(before.last())  # as many trials, yet another fit
    at = np.array([[before.X[0, 0], 1.0]])
    for fit in (
        lambda reports: QuantileForest().fit(reports.last()),
        lambda reports: pooled_forest(reports),
    ):
        assert fit(after).finite_quantiles(at)[0, 0] < fit(before).finite_quantiles(at)[0, 0]


@given(st.lists(st.floats(-5, 5), min_size=1, max_size=8), st.integers(0, 99))
def test_pooling_is_isotonic_regression(values, seed):
    weights = np.random.default_rng(seed).random(len(values)) + 0.1
    oracle = IsotonicRegression(increasing=False)
    expected = oracle.fit_transform(np.arange(len(values)), values, sample_weight=weights)
    assert_allclose(pooled_falling(np.array(values)[:, None], weights)[:, 0], expected, atol=1e-9)


def test_more_training_never_makes_the_belief_worse():
    found = pooled_forest(curves(40, np.random.default_rng(1)))
    assert isinstance(found, MonotoneLevels)
    for x in (0.1, 0.3, 0.9):
        rows = np.column_stack([np.full(3, x), [0.1, 0.5, 1.0]])
        q = found.finite_quantiles(rows)
        assert np.all(np.diff(q, axis=0) <= 1e-12)
        assert np.all(np.diff(q, axis=1) >= -1e-12)


def test_infinite_quantiles_stay_infinite():
    found = pooled_forest(curves(6, np.random.default_rng(2)))
    q = found.quantiles(np.array([[0.5, 1.0]]))
    assert np.isneginf(q[0, 0]) and np.isposinf(q[0, -1])


def test_levels_as_an_input_see_what_the_last_reports_confuse():
    """Runs stopped at random: an early stop is no sign of a bad config, and its loss is higher."""
    reports = curves(120, np.random.default_rng(3))
    at = np.array([[0.3, 1.0], [0.3, 0.1]])
    pooled = pooled_forest(reports).finite_quantiles(at)
    middle = pooled.shape[1] // 2
    assert pooled[0, middle] == pytest.approx(0.0, abs=0.15)
    assert pooled[1, middle] == pytest.approx(0.9, abs=0.15)


def test_trials_out_of_range_and_missing_levels_are_refused():
    with pytest.raises(ValueError, match="must name rows of X"):
        Reports(np.zeros((1, 2)), COLUMNS, np.array([1]), np.ones(1), np.ones(1))
    flat = Columns((Kind.DECISION,), ("x",), np.zeros(1), np.ones(1), (0,))
    with pytest.raises(ValueError, match="one fidelity column"):
        reports_of(np.zeros((1, 1)), flat, [[]])
    with pytest.raises(ValueError, match="one entry a report"):
        Reports(np.zeros((1, 2)), COLUMNS, np.array([0]), np.ones(2), np.ones(1))


def test_no_report_makes_no_rows():
    nothing = reports_of(np.zeros((2, 2)), COLUMNS, [[], []])
    assert len(nothing.last()) == len(nothing.every()) == nothing.revision == 0
