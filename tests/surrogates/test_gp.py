import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist
from scipy.stats import multivariate_normal

from surrogates.base import Rescaled
from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.gp import GaussianProcess, GPPredictor, _NegativeLogPosterior, representative
from surrogates.kernels import MaternHamming
from surrogates.numerics import NumericalError

MIXED = Columns(
    (ColumnKind.DECISION, ColumnKind.CATEGORICAL, ColumnKind.SCALE, ColumnKind.ACTIVITY),
    tuple("acNg"),
    np.zeros(4),
    np.ones(4),
    (0, 3, 0, 2),
)
THETA = np.log([1.7, 0.4, 1.1, 0.3, 0.9, 0.01])  # s, l_a, l_N, w_c, w_g, v
NOISE = 0.01


class Slope:
    """A prior mean, 2 - x_0 + 3 x_2."""

    def value(self, X):
        return 2.0 - X[:, 0] + 3.0 * X[:, 2]

    def gradient(self, X):
        return np.tile([-1.0, 0.0, 3.0, 0.0], (len(X), 1))


def mixed_rows(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 4))
    X[:, 1], X[:, 3] = rng.integers(0, 3, n), rng.integers(0, 2, n)
    return X


def data(n=25, seed=0):
    X = mixed_rows(n, seed)
    noise = 0.1 * np.random.default_rng(seed + 1).standard_normal(n)
    return TrainingData(X, np.sin(5.0 * X[:, 0]) + X[:, 2] - 0.4 * X[:, 1] + noise, MIXED)


def predictor(n=25, mean=None, noise=NOISE):
    d = data(n)
    kernel = MaternHamming.from_theta(MIXED, THETA[:-1])
    return GPPredictor.build(kernel, d.X, d.y, noise, mean)


def dense(p, X):
    """Mean and covariance by the textbook formulas, eqs. 2.23 and 2.24, through an inverse."""
    K = p.kernel.cross(p.X, p.X) + p.noise_variance * np.eye(len(p.X))
    k = p.kernel.cross(X, p.X)
    gain = k @ np.linalg.inv(K)
    mean = p.prior_mean.value(X) + gain @ (p.y - p.prior_mean.value(p.X))
    return mean, p.kernel.cross(X, X) - gain @ k.T


# --- the posterior


@pytest.mark.parametrize("mean", [None, Slope()], ids=["zero mean", "sloped mean"])
def test_posterior_equals_the_textbook_formulas(mean):
    p, X = predictor(mean=mean), mixed_rows(12, 5)
    expected, covariance = dense(p, X)
    found, joint = p.posterior(X), p.joint_posterior(X)
    np.testing.assert_allclose(found.mean, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.variance, np.diagonal(covariance), rtol=1e-8, atol=1e-11)
    np.testing.assert_allclose(joint.mean, expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(joint.covariance, covariance, rtol=1e-8, atol=1e-11)


def test_one_observation_gives_the_two_line_posterior():
    columns = Columns((ColumnKind.DECISION,), ("x",), np.zeros(1), np.ones(1), (0,))
    kernel = MaternHamming.from_theta(columns, np.log([2.0, 1.0]))
    p = GPPredictor.build(kernel, np.zeros((1, 1)), np.array([3.0]), 0.5)
    at = p.posterior(np.zeros((1, 1)))
    np.testing.assert_allclose(at.mean, [2.0 / 2.5 * 3.0], rtol=1e-14)
    np.testing.assert_allclose(at.variance, [2.0 - 4.0 / 2.5], rtol=1e-14)


def test_far_from_all_rows_the_posterior_is_the_prior():
    p, X = predictor(mean=Slope()), mixed_rows(3, 1)
    X[:, 0] += 1e3
    found = p.posterior(X)
    np.testing.assert_allclose(found.mean, Slope().value(X), rtol=1e-14)
    np.testing.assert_allclose(found.variance, 1.7, rtol=1e-14)


def test_without_rows_the_posterior_is_the_prior():
    kernel = MaternHamming.from_theta(MIXED, THETA[:-1])
    p = GPPredictor.build(kernel, np.zeros((0, 4)), np.zeros(0), NOISE, Slope())
    X = mixed_rows(4, 2)
    np.testing.assert_allclose(p.posterior(X).mean, Slope().value(X))
    np.testing.assert_allclose(p.posterior(X).variance, 1.7)
    np.testing.assert_allclose(p.posterior_gradient(X).d_mean, Slope().gradient(X))
    grown = p.condition(X, np.ones(4))
    expected, _ = dense(grown, X)
    np.testing.assert_allclose(grown.posterior(X).mean, expected, rtol=1e-10)


def test_a_batch_of_rows_gives_what_each_row_alone_gives():
    p, X = predictor(), mixed_rows(8, 3)
    batch = p.posterior_gradient(X)
    for i in range(len(X)):
        one = p.posterior_gradient(X[i : i + 1])
        for name in ("mean", "variance", "d_mean", "d_variance"):
            np.testing.assert_allclose(
                getattr(one, name)[0], getattr(batch, name)[i], rtol=1e-9, atol=1e-12
            )


def test_a_row_repeated_k_times_is_one_row_of_a_kth_of_the_noise():
    kernel, X = MaternHamming.from_theta(MIXED, THETA[:-1]), mixed_rows(5, 0)
    y, at = np.array([0.1, 0.2, 0.6, -0.4]), mixed_rows(6, 1)
    repeated = GPPredictor.build(kernel, np.repeat(X[:1], 4, axis=0), y, NOISE)
    once = GPPredictor.build(kernel, X[:1], np.array([y.mean()]), NOISE / 4.0)
    np.testing.assert_allclose(repeated.posterior(at).mean, once.posterior(at).mean, rtol=1e-9)
    np.testing.assert_allclose(
        repeated.posterior(at).variance, once.posterior(at).variance, rtol=1e-9
    )


def test_posterior_gradient_matches_finite_differences():
    p, X = predictor(mean=Slope()), mixed_rows(6, 5)
    found, posterior = p.posterior_gradient(X), p.posterior(X)
    np.testing.assert_allclose(found.mean, posterior.mean, rtol=1e-12)
    np.testing.assert_allclose(found.variance, posterior.variance, rtol=1e-10)
    for j in MIXED.numeric:
        step = 1e-5 * np.eye(4)[j]
        up, down = p.posterior(X + step), p.posterior(X - step)
        np.testing.assert_allclose(found.d_mean[:, j], (up.mean - down.mean) / 2e-5, atol=1e-7)
        np.testing.assert_allclose(
            found.d_variance[:, j], (up.variance - down.variance) / 2e-5, atol=1e-7
        )
    np.testing.assert_array_equal(found.d_mean[:, MIXED.categorical], 0.0)
    np.testing.assert_array_equal(found.d_variance[:, MIXED.categorical], 0.0)


def test_variance_stays_positive_at_a_row_measured_without_noise():
    p = predictor(noise=0.0)
    assert np.all(p.posterior(p.X).variance > 0.0)
    assert np.all(p.posterior_gradient(p.X).variance > 0.0)


def test_training_mean_is_the_posterior_mean_at_the_training_rows():
    p = predictor(mean=Slope())
    np.testing.assert_allclose(p.training_mean(), p.posterior(p.X).mean, rtol=1e-10, atol=1e-11)
    grown = p.condition(mixed_rows(4, 9), np.arange(4.0))
    expected = grown.posterior(grown.X).mean
    np.testing.assert_allclose(grown.training_mean(), expected, rtol=1e-10, atol=1e-11)


def test_training_mean_allows_for_jitter():
    p = predictor()
    doubled = GPPredictor.build(p.kernel, np.tile(p.X, (2, 1)), np.tile(p.y, 2), 0.0)
    assert doubled.factor.jitter > 0.0
    # a condition of 1e11 leaves about five digits of the weights
    expected = doubled.posterior(doubled.X).mean
    np.testing.assert_allclose(doubled.training_mean(), expected, atol=1e-5)


def test_leave_one_out_equals_refits_without_the_row():
    p = predictor(12, mean=Slope())
    found = p.leave_one_out()
    for i in range(12):
        rest = np.delete(np.arange(12), i)
        without = GPPredictor.build(p.kernel, p.X[rest], p.y[rest], NOISE, Slope())
        posterior = without.posterior(p.X[i : i + 1])
        assert found.mean[i] == pytest.approx(posterior.mean[0], rel=1e-9, abs=1e-10)
        assert found.variance[i] == pytest.approx(posterior.variance[0] + NOISE, rel=1e-9)


# --- growing


def test_appended_rows_give_the_posterior_of_a_full_factorization():
    whole, X = predictor(25, Slope()), mixed_rows(6, 7)
    start = GPPredictor.build(whole.kernel, whole.X[:10], whole.y[:10], NOISE, Slope())
    grown = start.condition(whole.X[10:], whole.y[10:])
    np.testing.assert_allclose(grown.posterior(X).mean, whole.posterior(X).mean, rtol=1e-9)
    np.testing.assert_allclose(grown.posterior(X).variance, whole.posterior(X).variance, rtol=1e-8)
    np.testing.assert_allclose(
        grown.joint_posterior(X).covariance, whole.joint_posterior(X).covariance, atol=1e-11
    )
    np.testing.assert_allclose(
        grown.leave_one_out().mean, whole.leave_one_out().mean, rtol=1e-8, atol=1e-10
    )


@given(st.lists(st.integers(0, 8), max_size=4))
@settings(max_examples=30)
def test_any_grouping_of_appended_rows_gives_the_same_bits(cuts):
    start, X, y = predictor(10), mixed_rows(8, 8), np.linspace(-1.0, 1.0, 8)
    edges = [0, *sorted(cuts), 8]
    grouped = start
    for low, high in zip(edges[:-1], edges[1:], strict=True):
        grouped = grouped.condition(X[low:high], y[low:high])
    at_once = start.condition(X, y)
    at = mixed_rows(5, 9)
    np.testing.assert_array_equal(grouped.weights, at_once.weights)
    np.testing.assert_array_equal(grouped.factor.tail, at_once.factor.tail)
    np.testing.assert_array_equal(grouped.posterior(at).mean, at_once.posterior(at).mean)
    np.testing.assert_array_equal(grouped.posterior(at).variance, at_once.posterior(at).variance)


def test_other_targets_give_the_bits_of_a_rebuild():
    p = predictor()
    y = np.cos(np.arange(25.0))
    rebuilt = GPPredictor.build(p.kernel, p.X, y, NOISE)
    np.testing.assert_array_equal(p.with_targets(y).weights, rebuilt.weights)


def test_a_covariance_that_is_not_finite_is_a_numerical_error():
    kernel = MaternHamming.from_theta(MIXED, np.append(800.0, THETA[1:-1]))
    with np.errstate(over="ignore"), pytest.raises(NumericalError, match="not finite"):
        GPPredictor.build(kernel, mixed_rows(3, 0), np.zeros(3), NOISE)


# --- fantasies


def test_means_of_many_fantasies_average_to_the_posterior_mean():
    p, pending, X = predictor(), mixed_rows(3, 6), mixed_rows(8, 7)
    count = 4096
    fantasies = p.fantasize(pending, count, np.random.default_rng(0))
    # by the tower rule, and their spread is the variance that the pending rows would remove
    before, after = p.posterior(X), fantasies.predictor.posterior(X)
    removed = before.variance - after.variance
    means = fantasies.means(X)
    assert np.all(np.abs(means.mean(axis=1) - before.mean) < 4.0 * np.sqrt(removed / count))
    np.testing.assert_allclose(means.var(axis=1), removed, rtol=4.0 * np.sqrt(2.0 / count))


def test_each_fantasy_is_the_predictor_conditioned_on_its_outcomes():
    p, pending, X = predictor(mean=Slope()), mixed_rows(3, 6), mixed_rows(8, 7)
    fantasies = p.fantasize(pending, 5, np.random.default_rng(0))
    for s in range(5):
        world = p.condition(pending, fantasies.y[-3:, s])
        np.testing.assert_allclose(fantasies.means(X)[:, s], world.posterior(X).mean, rtol=1e-9)
        means, pullback = fantasies.means_and_pullback(X)
        np.testing.assert_allclose(means, fantasies.means(X), rtol=1e-9)
        own = pullback(np.tile(np.eye(5)[s], (len(X), 1)))
        np.testing.assert_allclose(own, world.posterior_gradient(X).d_mean, atol=1e-9)
        np.testing.assert_allclose(
            fantasies.training_means()[:, s], world.training_mean(), rtol=1e-9
        )
        np.testing.assert_array_equal(
            fantasies.predictor.posterior(X).variance, world.posterior(X).variance
        )


def test_training_means_are_the_means_at_the_training_rows():
    p = predictor()
    fantasies = p.fantasize(mixed_rows(2, 6), 4, np.random.default_rng(0))
    expected = fantasies.means(fantasies.predictor.X)
    np.testing.assert_allclose(fantasies.training_means(), expected, rtol=1e-9, atol=1e-10)


def test_imagined_outcomes_have_the_predictive_mean_and_variance():
    p, pending, count = predictor(), mixed_rows(2, 6), 20_000
    outcomes = p.fantasize(pending, count, np.random.default_rng(1)).y[-2:]
    joint = p.joint_posterior(pending)
    covariance = joint.covariance + NOISE * np.eye(2)
    variance = np.diagonal(covariance)
    assert np.all(np.abs(outcomes.mean(axis=1) - joint.mean) < 4.0 * np.sqrt(variance / count))
    bound = 4.0 * np.sqrt(2.0 * np.outer(variance, variance) / count)
    assert np.all(np.abs(np.cov(outcomes) - covariance) < bound)


def test_the_same_row_may_be_pending_twice():
    p, row = predictor(), mixed_rows(1, 6)
    fantasies = p.fantasize(np.repeat(row, 2, axis=0), 8, np.random.default_rng(0))
    assert np.all(np.isfinite(fantasies.means(mixed_rows(5, 7))))
    twice = fantasies.predictor.posterior(row).variance[0]
    assert twice < p.condition(row, np.zeros(1)).posterior(row).variance[0]


def test_fantasies_depend_on_the_generator_alone():
    p, pending = predictor(), mixed_rows(2, 6)
    first, again = (p.fantasize(pending, 4, np.random.default_rng(3)).y for _ in range(2))
    np.testing.assert_array_equal(first, again)


# --- other units


def test_a_rescaled_predictor_equals_one_fitted_in_those_units():
    p, X = predictor(), mixed_rows(6, 5)
    location, scale = -3.0, 20.0
    rescaled = Rescaled(p, location, scale)
    kernel = MaternHamming.from_theta(MIXED, THETA[:-1] + np.append(2.0 * np.log(scale), [0.0] * 4))

    class Constant:
        def value(self, X):
            return np.full(len(X), location)

        def gradient(self, X):
            return np.zeros(X.shape)

    y = location + scale * p.y
    native = GPPredictor.build(kernel, p.X, y, scale**2 * NOISE, Constant())
    assert rescaled.noise_variance == pytest.approx(native.noise_variance)
    found, expected = rescaled.posterior_gradient(X), native.posterior_gradient(X)
    for name in ("mean", "variance", "d_mean", "d_variance"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-8, atol=1e-8
        )
    np.testing.assert_allclose(
        rescaled.joint_posterior(X).covariance, native.joint_posterior(X).covariance, atol=1e-8
    )
    rows, seen = mixed_rows(3, 8), np.array([1.0, -20.0, 7.0])
    np.testing.assert_allclose(
        rescaled.condition(rows, seen).posterior(X).mean,
        native.condition(rows, seen).posterior(X).mean,
        rtol=1e-8,
    )


# --- learning


def objective(d=None):
    d = d or data()
    mean, sd = GaussianProcess().prior(d.columns)
    return _NegativeLogPosterior(d, mean, sd), mean, sd


def test_objective_is_the_log_density_of_the_targets_and_of_the_prior():
    negative, mean, sd = objective()
    d = data()
    K = MaternHamming.from_theta(MIXED, THETA[:-1]).cross(d.X, d.X) + NOISE * np.eye(25)
    expected = -multivariate_normal(np.zeros(25), K).logpdf(d.y)
    expected -= 0.5 * 25 * np.log(2.0 * np.pi)
    expected += 0.5 * np.sum(((THETA - mean) / sd) ** 2)
    assert negative(THETA)[0] == pytest.approx(expected, rel=1e-11)


@pytest.mark.parametrize("n", [1, 2, 25])
def test_the_objective_by_pairs_of_rows_is_the_one_by_matrices(monkeypatch, n):
    by_pairs, _, _ = objective(data(n))
    monkeypatch.setattr("surrogates.gp._MOST_PAIRED", -1)
    by_matrices, _, _ = objective(data(n))
    for seed in range(3):
        theta = THETA + 0.5 * np.random.default_rng(seed).standard_normal(len(THETA))
        (value, gradient), (other, its) = by_pairs(theta), by_matrices(theta)
        assert value == pytest.approx(other, rel=1e-11)
        np.testing.assert_allclose(gradient, its, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_objective_matches_finite_differences(seed):
    negative, _, _ = objective()
    theta = THETA + 0.5 * np.random.default_rng(seed).standard_normal(len(THETA))
    _, gradient = negative(theta)
    for i in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[i]
        slope = (negative(theta + step)[0] - negative(theta - step)[0]) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_objective_steps_back_where_the_covariance_cannot_be_factorized():
    d = data()
    twins = TrainingData(np.tile(d.X, (2, 1)), np.tile(d.y, 2), MIXED)
    negative, _, _ = objective(twins)
    value, gradient = negative(np.append(THETA[:-1], -60.0))
    assert value > 1e20
    np.testing.assert_array_equal(gradient, 0.0)


def test_learning_ends_where_the_gradient_vanishes():
    d = data()
    theta = GaussianProcess(max_iterations=200).learn(d)
    negative, _, _ = objective(d)
    assert np.max(np.abs(negative(theta)[1])) < 0.02  # stopped by the tolerance of the value


def test_learning_finds_the_hyperparameters_that_made_the_data():
    columns = Columns((ColumnKind.DECISION,) * 2, ("a", "b"), np.zeros(2), np.ones(2), (0, 0))
    truth = np.log([1.0, 0.15, 0.6, 0.01])
    X = np.random.default_rng(0).random((250, 2))
    K = MaternHamming.from_theta(columns, truth[:-1]).cross(X, X) + 0.01 * np.eye(250)
    y = np.linalg.cholesky(K) @ np.random.default_rng(1).standard_normal(250)
    theta = GaussianProcess().learn(TrainingData(X, y, columns))
    # the variance is hardly identified by one draw (its sd is about 0.5); lengths and noise are
    np.testing.assert_allclose(theta[1:], truth[1:], atol=0.4)


def test_a_warm_start_at_the_optimum_stays_there():
    d, gp = data(), GaussianProcess()
    theta = gp.learn(d)
    negative, _, _ = objective(d)
    again = gp.learn(d, warm=theta, cold=False)
    assert negative(again)[0] <= negative(theta)[0]
    np.testing.assert_allclose(again, theta, atol=0.05)


def test_learning_twice_gives_the_same_bits():
    d = data()
    np.testing.assert_array_equal(GaussianProcess().learn(d), GaussianProcess().learn(d))


def test_a_column_without_effect_gets_a_longer_length_than_one_that_matters():
    columns = Columns((ColumnKind.DECISION,) * 2, ("a", "b"), np.zeros(2), np.ones(2), (0, 0))
    X = np.random.default_rng(0).random((60, 2))
    y = np.sin(9.0 * X[:, 0])
    theta = GaussianProcess().learn(TrainingData(X, (y - y.mean()) / y.std(), columns))
    assert theta[2] > theta[1] + np.log(4.0)


@pytest.mark.parametrize(
    "y",
    [np.zeros(40), np.tile([-1.0, 1.0], 20), np.append(np.zeros(39), 6.2)],
    ids=["constant", "contradictory", "one outlier"],
)
@pytest.mark.parametrize("rows", ["distinct", "identical"])
def test_odd_histories_give_finite_posteriors(y, rows):
    X = mixed_rows(40, 0) if rows == "distinct" else np.repeat(mixed_rows(1, 0), 40, axis=0)
    d, gp = TrainingData(X, y, MIXED), GaussianProcess()
    theta = gp.learn(d)
    assert np.all(np.isfinite(theta))
    posterior = gp.predictor(d, theta).posterior_gradient(mixed_rows(10, 1))
    for part in (posterior.mean, posterior.variance, posterior.d_mean, posterior.d_variance):
        assert np.all(np.isfinite(part))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("kind", [ColumnKind.DECISION, ColumnKind.CATEGORICAL])
def test_few_rows_of_one_kind_can_be_learned(n, kind):
    columns = Columns(
        (kind,), ("x",), np.zeros(1), np.ones(1), (3 * (kind is ColumnKind.CATEGORICAL),)
    )
    X = np.arange(float(n))[:, None]
    d, gp = TrainingData(X, np.linspace(-1.0, 1.0, n), columns), GaussianProcess()
    posterior = gp.predictor(d, gp.learn(d)).posterior(X)
    assert np.all(np.isfinite(posterior.mean))
    assert np.all(posterior.variance > 0.0)


def test_beyond_max_rows_hyperparameters_come_from_the_representative_rows():
    d = data(60)
    gp = GaussianProcess(max_rows=30)
    rows = representative(d.X[:, MIXED.numeric], d.y, 30)
    subset = TrainingData(d.X[rows], d.y[rows], MIXED)
    np.testing.assert_array_equal(gp.learn(d), gp.learn(subset))


# --- representative rows


def test_few_rows_all_stand_for_themselves():
    X = np.random.default_rng(0).random((7, 2))
    np.testing.assert_array_equal(representative(X, X[:, 0], 7), np.arange(7))


@given(st.integers(1, 60), st.integers(1, 40), st.integers(0, 4), st.integers(0, 2**32 - 1))
def test_representative_rows_are_distinct_sorted_and_include_the_best(n, count, p, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((n, p))[rng.integers(0, n, n)]  # with duplicates
    y = rng.integers(0, 5, n).astype(float)
    rows = representative(X, y, count)
    assert len(rows) == min(n, count)
    assert np.all(np.diff(rows) > 0)
    best = np.argsort(y, kind="stable")[: max(1, int(0.4 * count))]
    assert set(best[:count]) <= set(rows)


def test_the_rows_beyond_the_best_cover_within_twice_the_optimum():
    # Gonzalez: farthest-first needs at most twice the radius of the best cover with as many centers
    X = np.random.default_rng(0).random((400, 2))
    y = np.linalg.norm(X - 0.2, axis=1)
    count = 40
    rows = representative(X, y, count)
    radius = cdist(X, X[rows]).min(axis=1).max()
    side = np.floor(np.sqrt(0.6 * count))  # a square grid of the 24 covering rows
    assert radius <= 2.0 * np.sqrt(0.5) / side
    best_only = np.argsort(y)[:count]
    assert radius < 0.25 * cdist(X, X[best_only]).min(axis=1).max()


# --- BoTorch as the oracle


@pytest.fixture(scope="module")
def oracle():
    """BoTorch's exact GP on the data of this file with the hyperparameters THETA."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their imports use what torch deprecates
        import torch
        from botorch.models import SingleTaskGP
        from botorch.models.kernels.categorical import CategoricalKernel
        from gpytorch.constraints import Positive
        from gpytorch.kernels import MaternKernel, ScaleKernel
        from gpytorch.likelihoods import GaussianLikelihood
        from gpytorch.means import ZeroMean

        s, l_a, l_n, w_c, w_g, v = np.exp(THETA)
        matern = MaternKernel(nu=2.5, ard_num_dims=2, active_dims=(0, 2))
        hamming = CategoricalKernel(ard_num_dims=2, active_dims=(1, 3))
        covariance = ScaleKernel(matern * hamming)
        d = data()
        model = SingleTaskGP(
            torch.tensor(d.X),
            torch.tensor(d.y)[:, None],
            likelihood=GaussianLikelihood(noise_constraint=Positive()),
            covar_module=covariance,
            mean_module=ZeroMean(),
            outcome_transform=None,
        ).double()
        matern.lengthscale = torch.tensor([l_a, l_n])
        hamming.lengthscale = torch.tensor([0.5 / w_c, 0.5 / w_g])  # it averages over columns
        covariance.outputscale = torch.tensor(s)
        model.likelihood.noise = torch.tensor([v])
        return model


def test_posterior_equals_botorch(oracle):
    import torch

    X = mixed_rows(12, 5)
    oracle.eval()
    with torch.no_grad():
        theirs = oracle.posterior(torch.tensor(X))
    ours = predictor().joint_posterior(X)
    np.testing.assert_allclose(ours.mean, theirs.mean[:, 0].numpy(), rtol=1e-8, atol=1e-10)
    covariance = theirs.distribution.covariance_matrix.numpy()
    np.testing.assert_allclose(ours.covariance, covariance, rtol=1e-7, atol=1e-10)


def test_posterior_gradient_equals_botorch_through_autograd(oracle):
    import torch

    X = mixed_rows(6, 5)
    oracle.eval()
    rows = torch.tensor(X, requires_grad=True)
    theirs = oracle.posterior(rows[:, None, :])
    (d_mean,) = torch.autograd.grad(theirs.mean.sum(), rows, retain_graph=True)
    (d_variance,) = torch.autograd.grad(theirs.variance.sum(), rows)
    ours = predictor().posterior_gradient(X)
    np.testing.assert_allclose(ours.d_mean, d_mean.numpy(), rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(ours.d_variance, d_variance.numpy(), rtol=1e-7, atol=1e-9)


def test_log_marginal_likelihood_and_its_gradient_equal_gpytorch(oracle):
    from gpytorch.mlls import ExactMarginalLogLikelihood

    d = data()
    oracle.train()
    oracle.zero_grad()
    mll = ExactMarginalLogLikelihood(oracle.likelihood, oracle)
    value = 25 * mll(oracle(*oracle.train_inputs), oracle.train_targets)
    value.backward()
    negative, mean, sd = objective(d)
    ours, gradient = negative(THETA)
    z = (THETA - mean) / sd
    ours, gradient = ours - 0.5 * z @ z, gradient - z / sd
    assert -ours - 0.5 * 25 * np.log(2.0 * np.pi) == pytest.approx(value.item(), rel=1e-9)

    def in_log_space(module, name):
        """Their gradient in the raw value, carried to the logarithm of the value."""
        raw, constraint = getattr(module, f"raw_{name}"), getattr(module, f"raw_{name}_constraint")
        inner = raw.detach().clone().requires_grad_(True)
        constraint.transform(inner).sum().backward()
        value = constraint.transform(raw.detach())
        return (raw.grad * value / inner.grad).numpy().ravel()

    scale = oracle.covar_module
    matern, hamming = scale.base_kernel.kernels
    expected = np.concatenate(
        [
            in_log_space(scale, "outputscale"),
            in_log_space(matern, "lengthscale"),
            -in_log_space(hamming, "lengthscale"),  # w = 1 / length
            in_log_space(oracle.likelihood.noise_covar, "noise"),
        ]
    )
    np.testing.assert_allclose(-gradient, expected, rtol=1e-7)
