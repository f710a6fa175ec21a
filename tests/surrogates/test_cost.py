import numpy as np
import pytest
from scipy.special import log_ndtr

from surrogates.cost import CostModel
from surrogates.data import ColumnKind, Columns, TrainingData

LOW = np.array([0.0, 0.0, np.log(1e5), np.log(1e6)])
WIDTH = np.array([1.0, 1.0, np.log(100.0), np.log(1000.0)])
COLUMNS = Columns(
    (ColumnKind.DECISION, ColumnKind.DECISION, ColumnKind.SCALE, ColumnKind.SCALE),
    ("a", "b", "N", "D"),
    LOW,
    WIDTH,
    (0,) * 4,
)


def log_flops(X):
    """ln(6 N D), and a tenth more where a is large."""
    natural = LOW + WIDTH * X
    return np.log(6.0) + natural[:, 2] + natural[:, 3] + 0.1 * np.tanh(8.0 * (X[:, 0] - 0.5))


def history(n, seed=0, noise=0.03):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 4))
    return TrainingData(X, log_flops(X) + noise * rng.standard_normal(n), COLUMNS)


def test_linear_part_equals_bayesian_linear_regression():
    # with the residual process switched off, kriging and the weight-space posterior are one thing
    model, data = CostModel(), history(15)
    theta = model.learn(data)
    theta[0] = -60.0
    predictor = model.predictor(data, theta)
    X = np.random.default_rng(1).random((7, 4)) * 2.0
    mean, basis = predictor.prior_mean, predictor.kernel.basis
    phi, phi_new, v = basis.value(data.X), basis.value(X), predictor.noise_variance
    covariance = np.linalg.inv(np.eye(phi.shape[1]) + phi.T @ phi / v)
    weights = covariance @ phi.T @ (data.y - mean.value(data.X)) / v
    posterior = predictor.joint_posterior(X)
    np.testing.assert_allclose(posterior.mean, mean.value(X) + phi_new @ weights, rtol=1e-6)
    np.testing.assert_allclose(
        posterior.covariance, phi_new @ covariance @ phi_new.T, rtol=1e-4, atol=1e-9
    )


def test_three_cheap_runs_predict_a_run_a_thousand_times_more_expensive():
    rng = np.random.default_rng(2)
    X = rng.random((3, 4)) * np.array([1.0, 1.0, 0.3, 0.3])
    predictor = CostModel().fit(TrainingData(X, log_flops(X), COLUMNS))
    target = np.array([[0.5, 0.5, 1.0, 1.0]])
    posterior = predictor.posterior(target)
    error = abs(posterior.mean[0] - log_flops(target)[0])
    assert error < 1.645 * np.sqrt(posterior.variance[0])
    assert error < 0.7  # a factor of two, over four orders of magnitude


def test_ninety_percent_intervals_cover_unseen_costs():
    inside = []
    for seed in range(20):
        data, unseen = history(40, seed), history(50, seed + 100)
        predictor = CostModel().fit(data)
        posterior = predictor.posterior(unseen.X)
        spread = np.sqrt(posterior.variance + predictor.noise_variance)
        inside.append(np.abs(unseen.y - posterior.mean) < 1.645 * spread)
    assert 0.85 <= np.mean(inside) <= 0.97


def test_probability_below_matches_sampling():
    predictor = CostModel().fit(history(12))
    X = np.random.default_rng(3).random((4, 4)) * 1.4
    cap = float(np.median(log_flops(X)))
    posterior = predictor.posterior(X)
    rng = np.random.default_rng(4)
    draws = posterior.mean + np.sqrt(
        posterior.variance + predictor.noise_variance
    ) * rng.standard_normal((200_000, 4))
    np.testing.assert_allclose(
        np.exp(predictor.log_probability_below(X, cap)), (draws < cap).mean(axis=0), atol=0.005
    )


@pytest.mark.parametrize("shift", [0.0, -3.0, -200.0, 200.0])
def test_log_probability_below_and_its_gradient_hold_in_the_tails(shift):
    predictor = CostModel().fit(history(12))
    X = np.random.default_rng(5).random((5, 4))
    cap = float(np.mean(log_flops(X))) + shift

    def log_p(X):
        posterior = predictor.posterior(X)
        return log_ndtr(
            (cap - posterior.mean) / np.sqrt(posterior.variance + predictor.noise_variance)
        )

    value, gradient = predictor.log_probability_below_gradient(X, cap)
    np.testing.assert_allclose(value, log_p(X), rtol=1e-9)
    for j in range(4):
        step = 1e-6 * np.eye(4)[j]
        slope = (log_p(X + step) - log_p(X - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-4, atol=1e-3 * abs(value).max())


@pytest.mark.parametrize("n", [0, 1, 2, 40])
@pytest.mark.parametrize("kind", ["constant", "twelve orders", "duplicates"])
def test_odd_histories_give_finite_posteriors(n, kind):
    rng = np.random.default_rng(7)
    X = rng.random((n, 4))
    y = {
        "constant": np.full(n, 5.0),
        "twelve orders": rng.uniform(-14.0, 14.0, n),
        "duplicates": np.zeros(n),
    }[kind]
    if kind == "duplicates":
        X[:] = 0.3
    predictor = CostModel().fit(TrainingData(X, y, COLUMNS))
    posterior = predictor.posterior_gradient(rng.random((6, 4)) * 4.0 - 1.0)
    for values in (posterior.mean, posterior.variance, posterior.d_mean, posterior.d_variance):
        assert np.all(np.isfinite(values))
    assert np.all(posterior.variance > 0)


def test_a_wider_posterior_is_less_certain_on_either_side_of_the_cap():
    predictor = CostModel().fit(history(20))
    X = np.random.default_rng(1).random((1, 4))
    center = float(predictor.posterior(X[:1]).mean[0])
    for cap, more_certain in ((center - 30.0, True), (center + 0.2, False)):
        plain = predictor.log_probability_below(X[:1], cap)
        wide = predictor.log_probability_below(X[:1], cap, 2.0)
        assert (wide > plain) == more_certain
    step = 1e-6
    _, slope = predictor.log_probability_below_gradient(X[:1], center - 0.1, 2.0)
    for j in range(4):
        shift = step * np.eye(4)[j]
        above, below = (
            predictor.log_probability_below(X[:1] + sign * shift, center - 0.1, 2.0)[0]
            for sign in (1.0, -1.0)
        )
        assert slope[0, j] == pytest.approx((above - below) / (2.0 * step), rel=1e-4, abs=1e-5)
