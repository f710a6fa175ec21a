"""Conformal quantiles at the right level, online levels, calibration of a Gaussian process."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy.special import ndtri

from surrogates.conformal import (
    STEP_SIZES,
    Calibration,
    OnlineLevel,
    conformal_quantile,
    fold_hyperparameters,
    rank_of,
    recency_weights,
    scale_weights,
)
from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.gp import GaussianProcess, GPPredictor

COLUMNS = Columns((ColumnKind.DECISION,) * 2, ("a", "b"), np.zeros(2), np.ones(2), (0, 0))
scores = st.lists(st.floats(0, 100, allow_nan=False), min_size=0, max_size=30)


def fitted(n: int, noise: float = 0.2) -> GPPredictor:
    rng = np.random.default_rng(n)
    X = rng.random((n, 2))
    y = np.sin(5.0 * X[:, 0]) + noise * rng.standard_normal(n)
    data = TrainingData(X, (y - y.mean()) / (y.std() or 1.0), COLUMNS)
    model = GaussianProcess()
    return model.predictor(data, model.learn(data))


@pytest.mark.parametrize("n, place", [(9, 9), (19, 18), (30, 28), (33, 31), (100, 91)])
def test_the_ninety_percent_quantile_is_the_right_order_statistic(n, place):
    """ceil(0.9 (n + 1)); dividing by 1 + 1/n instead gives 8, 17, 27, 29, 90."""
    values = np.random.default_rng(0).permutation(np.arange(1.0, n + 1.0))
    assert conformal_quantile(values, 0.9) == place


def test_rounding_does_not_push_a_whole_number_up():
    assert conformal_quantile(np.arange(1.0, 20.0), 0.95) == 19.0  # 20 * 0.95 = 19 and a hair
    assert conformal_quantile(np.arange(1.0, 10.0), 0.7) == 7.0


@pytest.mark.parametrize("n", [0, 1, 8])
def test_fewer_than_nine_scores_guarantee_no_ninety_percent(n):
    assert conformal_quantile(np.ones(n), 0.9) == np.inf


@pytest.mark.parametrize("coverage", [0.0, 1.0, -0.1, 90.0])
def test_coverages_outside_the_unit_interval_are_refused(coverage):
    with pytest.raises(ValueError, match=r"`coverage` must lie in \(0, 1\)"):
        conformal_quantile(np.ones(3), coverage)


def test_negative_weights_are_refused():
    with pytest.raises(ValueError, match="`weights` must be >= 0"):
        conformal_quantile(np.ones(2), 0.5, np.array([1.0, -1.0]))


@given(scores, st.floats(0.05, 0.95), st.integers(0, 1000))
def test_a_score_counts_as_often_as_its_weight_says(values, coverage, seed):
    counts = np.random.default_rng(seed).integers(0, 4, len(values))
    weighted = conformal_quantile(np.array(values), coverage, counts.astype(float))
    assert weighted == conformal_quantile(np.repeat(values, counts), coverage)


@given(scores, st.floats(0, 100), st.floats(0.01, 0.99))
def test_the_rank_tells_which_levels_cover(values, new, level):
    beta = rank_of(new, np.array(values))
    if abs(level - beta) > 1e-6:
        covers = new <= conformal_quantile(np.array(values), 1.0 - level)
        assert covers == (level < beta)


def test_exchangeable_scores_are_covered_exactly_as_often_as_stated():
    rng = np.random.default_rng(0)
    drawn = rng.exponential(size=(20000, 20))
    bounds = np.array([conformal_quantile(row[:19], 0.8) for row in drawn[:4000]])
    covered = np.mean(drawn[:4000, 19] <= bounds)
    assert covered == pytest.approx(0.8, abs=4 * np.sqrt(0.16 / 4000))


def test_recency_halves_over_its_half_life_and_scale_over_its_reach():
    assert_allclose(recency_weights(np.array([0.0, 50.0, 100.0]), 50.0), [1.0, 0.5, 0.25])
    scales = np.array([[0.0, 0.0], [3.0, 4.0]])
    assert_allclose(scale_weights(scales, np.zeros(2), 5.0), [1.0, 0.5])


def reference_dtaci(betas: list[float], alpha: float) -> list[float]:
    """Algorithm 2 of Gibbs & Candes (2024), step by step, without any safeguard."""
    memory, k = 100, len(STEP_SIZES)
    denominator = (1 - alpha) ** 2 * alpha**3 + alpha**2 * (1 - alpha) ** 3
    eta = np.sqrt(3.0 / memory) * np.sqrt((np.log(memory * k) + 2.0) / denominator)
    sigma = 1.0 / (2.0 * memory)
    w, a, used = [1.0] * k, [alpha] * k, []
    for beta in betas:
        total = sum(w)
        used.append(sum(wi * ai for wi, ai in zip(w, a, strict=True)) / total)
        bar = [
            wi * np.exp(-eta * (alpha * (beta - ai) - min(0.0, beta - ai)))
            for wi, ai in zip(w, a, strict=True)
        ]
        w = [(1 - sigma) * b + sum(bar) * sigma / k for b in bar]
        a = [
            ai + gamma * (alpha - float(ai > beta)) for ai, gamma in zip(a, STEP_SIZES, strict=True)
        ]
    return used


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.5])
def test_online_levels_follow_the_published_algorithm(alpha):
    betas = np.random.default_rng(0).random(60).tolist()
    state, used = OnlineLevel.start(alpha), []
    for beta in betas:
        used.append(state.level)
        state = state.updated(beta)
    assert_allclose(used, np.clip(reference_dtaci(betas, alpha), 0.0, 1.0), rtol=1e-9)


def test_online_levels_restore_coverage_when_scores_grow():
    """Scores double after 300 tells: a fixed level misses 40 %, the online one about 10 %."""
    rng = np.random.default_rng(0)
    past = np.abs(rng.standard_normal(200))
    new = np.abs(rng.standard_normal(1500)) * np.where(np.arange(1500) < 300, 1.0, 2.0)
    fixed = new > conformal_quantile(past, 0.9)
    state, missed = OnlineLevel.start(0.1), []
    for score in new:
        beta = rank_of(score, past)
        missed.append(state.level >= beta)
        state = state.updated(beta)
    assert np.mean(fixed[300:]) > 0.3
    assert np.mean(missed[400:]) == pytest.approx(0.1, abs=0.03)
    assert state.observed == 1500


def test_weights_of_experts_neither_vanish_nor_overflow():
    state = OnlineLevel.start(0.05)
    for _ in range(5000):
        state = state.updated(0.0)
    assert np.all(np.isfinite(state.log_weights)) and np.all(np.isfinite(state.experts))
    assert state.level == 0.0
    for _ in range(5000):
        state = state.updated(1.0)
    assert 0.0 < state.level <= 1.0


def test_levels_outside_the_unit_interval_are_refused():
    with pytest.raises(ValueError, match=r"`alpha` must lie in \(0, 1\)"):
        OnlineLevel.start(1.0)


def test_residuals_are_those_of_models_that_never_saw_the_run():
    model = fitted(15)
    found = Calibration.of(model)
    for i in range(15):
        rest = np.delete(np.arange(15), i)
        without = GPPredictor.build(
            model.kernel, model.X[rest], model.y[rest], model.noise_variance
        )
        posterior = without.posterior(model.X[i : i + 1])
        sd = np.sqrt(posterior.variance[0] + model.noise_variance)
        assert found.scores[i] == pytest.approx(abs(model.y[i] - posterior.mean[0]) / sd, rel=1e-6)


@pytest.mark.parametrize("appended", [0, 1, 7, 24])
@pytest.mark.parametrize("last", [24, 10])
def test_residuals_by_group_are_those_of_a_model_that_never_saw_the_group(appended, last):
    whole = fitted(24)
    first = 24 - appended
    model = GPPredictor.build(
        whole.kernel, whole.X[:first], whole.y[:first], whole.noise_variance
    ).condition(whole.X[first:], whole.y[first:])
    assert len(model.factor.tail) == appended
    groups = np.random.default_rng(0).integers(0, 4, last)  # in no order
    found = Calibration.by_group(model, groups)
    expected = np.empty(last)
    for group in np.unique(groups):
        own = 24 - last + np.flatnonzero(groups == group)
        rest = np.delete(np.arange(24), own)
        without = GPPredictor.build(
            whole.kernel, whole.X[rest], whole.y[rest], whole.noise_variance
        )
        posterior = without.posterior(whole.X[own])
        sd = np.sqrt(posterior.variance + whole.noise_variance)
        expected[groups == group] = np.abs(whole.y[own] - posterior.mean) / sd
    assert_allclose(found.scores, expected, rtol=1e-6)
    assert_allclose(found.weights, 1.0)


def test_groups_of_one_run_give_the_leave_one_out_residuals():
    model = fitted(15)
    by_group = Calibration.by_group(model, np.arange(15))
    assert_allclose(by_group.scores, Calibration.of(model).scores, rtol=1e-6)
    assert_allclose(by_group.scores, Calibration.recent(model, 15).scores, rtol=1e-9)


def test_one_group_of_all_runs_is_scored_by_the_prior():
    model = fitted(12)
    found = Calibration.by_group(model, np.zeros(12, dtype=np.intp))
    sd = np.sqrt(model.kernel.diagonal(model.X) + model.noise_variance)
    gap = np.abs(model.y - model.prior_mean.value(model.X))
    assert_allclose(found.scores, gap / sd, rtol=1e-6)


def test_an_overconfident_process_is_widened_until_it_covers():
    """A process whose noise is a tenth of the truth: its normal 90 % interval covers far less."""
    rng = np.random.default_rng(0)
    naive, calibrated = [], []
    for _ in range(60):
        X = rng.random((41, 2))
        y = np.sin(5.0 * X[:, 0]) + 0.5 * rng.standard_normal(41)
        from surrogates.kernels import MaternHamming

        kernel = MaternHamming(
            COLUMNS.numeric, COLUMNS.categorical, 0.0, np.log([0.5, 2.0]), np.zeros(0)
        )
        model = GPPredictor.build(kernel, X[:40], y[:40], 0.05**2)
        posterior = model.posterior(X[40:])
        z = abs(y[40] - posterior.mean[0]) / np.sqrt(posterior.variance[0] + model.noise_variance)
        naive.append(z <= ndtri(0.95))
        calibrated.append(z <= Calibration.of(model).multiplier(0.9))
    assert np.mean(naive) < 0.7
    assert np.mean(calibrated) == pytest.approx(0.9, abs=0.1)


def test_the_multiplier_of_a_right_process_is_about_the_normal_one():
    rng = np.random.default_rng(0)
    found = Calibration(np.abs(rng.standard_normal(4000)), np.ones(4000))
    assert found.multiplier(0.9) == pytest.approx(ndtri(0.95), abs=0.06)


def test_an_online_level_moves_the_multiplier():
    scores = np.abs(np.random.default_rng(0).standard_normal(200))
    state = OnlineLevel.start(0.1)
    for _ in range(20):
        state = state.updated(0.0)  # missed at every level
    plain = Calibration(scores, np.ones(200))
    moved = Calibration(scores, np.ones(200), {0.9: state})
    assert moved.multiplier(0.9) > plain.multiplier(0.9)
    assert moved.multiplier(0.5) == plain.multiplier(0.5)


def test_the_displayed_multiplier_is_finite_where_nothing_is_guaranteed():
    few = Calibration(np.array([0.1, 0.2, 5.0]), np.ones(3))
    assert few.multiplier(0.9) == np.inf
    assert few.finite_multiplier(0.9) == 5.0
    assert Calibration(np.array([0.1]), np.ones(1)).finite_multiplier(0.9) == pytest.approx(
        ndtri(0.95)
    )


@pytest.mark.parametrize("y", [np.zeros(3), np.full(3, 1e9)])
def test_a_constant_history_of_three_is_calibrated_without_a_fault(y):
    data = TrainingData(np.random.default_rng(0).random((3, 2)), np.zeros(3), COLUMNS)
    model = GaussianProcess()
    found = Calibration.of(model.predictor(data, model.learn(data)).with_targets(0.0 * y))
    assert np.all(np.isfinite(found.scores))
    assert np.isfinite(found.finite_multiplier(0.9))


def test_a_cross_fitted_residual_is_that_of_hyperparameters_learned_without_its_fold():
    """Learned from twenty rows; the four added since join folds and the rows to predict from."""
    predictor, model = fitted(24), GaussianProcess()
    data = TrainingData(predictor.X, predictor.y, COLUMNS)
    first = TrainingData(data.X[:20], data.y[:20], COLUMNS)
    theta = model.learn(first)
    found = Calibration.cross_fitted(model, data, fold_hyperparameters(model, first, theta)).scores
    for i in (0, 7, 23):
        rest = np.arange(20) % 10 != i % 10
        without = TrainingData(first.X[rest], first.y[rest], COLUMNS)
        own = model.learn(without, theta, cold=False)
        others = np.arange(24) != i
        alone = model.predictor(TrainingData(data.X[others], data.y[others], COLUMNS), own)
        posterior = alone.posterior(data.X[i : i + 1])
        sd = np.sqrt(posterior.variance[0] + alone.noise_variance)
        assert_allclose(found[i], abs(data.y[i] - posterior.mean[0]) / sd, rtol=1e-6)


def test_fewer_rows_than_folds_are_refused():
    predictor = fitted(9)
    data = TrainingData(predictor.X, predictor.y, COLUMNS)
    with pytest.raises(ValueError, match="at least 10 rows"):
        fold_hyperparameters(GaussianProcess(), data, GaussianProcess().learn(data))


def test_small_samples_are_covered_once_residuals_are_cross_fitted():
    """30 rows in four columns: plain leave-one-out residuals cover 80 % where 90 % are stated."""
    columns = Columns((ColumnKind.DECISION,) * 4, tuple("abcd"), np.zeros(4), np.ones(4), (0,) * 4)
    model, plain, crossed = GaussianProcess(), [], []
    for r in range(40):
        rng = np.random.default_rng(r)
        X = rng.random((130, 4))
        y = np.sin(6.0 * X[:, 0]) + X[:, 2] ** 2 + (0.05 + X[:, 1]) * rng.standard_normal(130)
        y = (y - y[:30].mean()) / y[:30].std()
        data = TrainingData(X[:30], y[:30], columns)
        theta = model.learn(data)
        predictor = model.predictor(data, theta)
        posterior = predictor.posterior(X[30:])
        z = np.abs(y[30:] - posterior.mean) / np.sqrt(posterior.variance + predictor.noise_variance)
        thetas = fold_hyperparameters(model, data, theta)
        plain.append(np.mean(z <= Calibration.of(predictor).multiplier(0.9)))
        crossed.append(np.mean(z <= Calibration.cross_fitted(model, data, thetas).multiplier(0.9)))
    assert np.mean(plain) < 0.86
    assert np.mean(crossed) == pytest.approx(0.9, abs=0.04)
