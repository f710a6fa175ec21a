import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
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
    belief = predictor.joint_posterior(X)
    np.testing.assert_allclose(belief.mean, mean.value(X) + phi_new @ weights, rtol=1e-6)
    np.testing.assert_allclose(
        belief.covariance, phi_new @ covariance @ phi_new.T, rtol=1e-4, atol=1e-9
    )


def test_three_cheap_runs_foretell_a_run_a_thousand_times_dearer():
    rng = np.random.default_rng(2)
    X = rng.random((3, 4)) * np.array([1.0, 1.0, 0.3, 0.3])
    predictor = CostModel().fit(TrainingData(X, log_flops(X), COLUMNS))
    target = np.array([[0.5, 0.5, 1.0, 1.0]])
    belief = predictor.posterior(target)
    error = abs(belief.mean[0] - log_flops(target)[0])
    assert error < 1.645 * np.sqrt(belief.variance[0])
    assert error < 0.7  # a factor of two, over four orders of magnitude


def test_ninety_percent_intervals_cover_unseen_costs():
    inside = []
    for seed in range(20):
        data, unseen = history(40, seed), history(50, seed + 100)
        predictor = CostModel().fit(data)
        belief = predictor.posterior(unseen.X)
        spread = np.sqrt(belief.variance + predictor.noise_variance)
        inside.append(np.abs(unseen.y - belief.mean) < 1.645 * spread)
    assert 0.85 <= np.mean(inside) <= 0.97


def test_probability_below_matches_sampling():
    predictor = CostModel().fit(history(12))
    X = np.random.default_rng(3).random((4, 4)) * 1.4
    cap = float(np.median(log_flops(X)))
    belief = predictor.posterior(X)
    rng = np.random.default_rng(4)
    draws = belief.mean + np.sqrt(belief.variance + predictor.noise_variance) * rng.standard_normal(
        (200_000, 4)
    )
    np.testing.assert_allclose(
        np.exp(predictor.log_probability_below(X, cap)), (draws < cap).mean(axis=0), atol=0.005
    )


@pytest.mark.parametrize("shift", [0.0, -3.0, -200.0, 200.0])
def test_log_probability_below_and_its_gradient_hold_in_the_tails(shift):
    predictor = CostModel().fit(history(12))
    X = np.random.default_rng(5).random((5, 4))
    cap = float(np.mean(log_flops(X))) + shift

    def log_p(X):
        belief = predictor.posterior(X)
        return log_ndtr((cap - belief.mean) / np.sqrt(belief.variance + predictor.noise_variance))

    value, gradient = predictor.log_probability_below_gradient(X, cap)
    np.testing.assert_allclose(value, log_p(X), rtol=1e-9)
    for j in range(4):
        step = 1e-6 * np.eye(4)[j]
        slope = (log_p(X + step) - log_p(X - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-4, atol=1e-3 * abs(value).max())


def test_appended_rows_equal_a_rebuild():
    model, data = CostModel(), history(30)
    theta = model.learn(TrainingData(data.X[:20], data.y[:20], COLUMNS))
    head = model.predictor(TrainingData(data.X[:20], data.y[:20], COLUMNS), theta)
    grown = head.condition(data.X[20:25], data.y[20:25]).condition(data.X[25:], data.y[25:])
    K = head.kernel.cross(data.X, data.X) + head.noise_variance * np.eye(30)
    weights = np.linalg.solve(K, data.y - head.prior_mean.value(data.X))
    X = np.random.default_rng(6).random((5, 4))
    expected = head.prior_mean.value(X) + head.kernel.cross(X, data.X) @ weights
    np.testing.assert_allclose(grown.posterior(X).mean, expected, rtol=1e-6)


@pytest.mark.parametrize("n", [0, 1, 2, 40])
@pytest.mark.parametrize("kind", ["constant", "twelve orders", "duplicates"])
def test_odd_histories_give_finite_beliefs(n, kind):
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
    belief = predictor.posterior_gradient(rng.random((6, 4)) * 4.0 - 1.0)
    for values in (belief.mean, belief.variance, belief.d_mean, belief.d_variance):
        assert np.all(np.isfinite(values))
    assert np.all(belief.variance > 0)


@settings(max_examples=20, deadline=None)
@given(st.permutations(range(12)))
def test_the_order_of_rows_does_not_matter(order):
    model, data = CostModel(), history(12)
    theta = model.learn(data)
    X = np.random.default_rng(8).random((5, 4))
    shuffled = TrainingData(data.X[order], data.y[order], COLUMNS)
    np.testing.assert_allclose(
        model.predictor(shuffled, theta).posterior(X).mean,
        model.predictor(data, theta).posterior(X).mean,
        rtol=1e-7,
    )


def test_a_wider_belief_is_less_sure_on_either_side_of_the_cap():
    predictor = CostModel().fit(history(20))
    X = np.random.default_rng(1).random((1, 4))
    centre = float(predictor.posterior(X[:1]).mean[0])
    for cap, surer in ((centre - 30.0, True), (centre + 0.2, False)):
        plain = predictor.log_probability_below(X[:1], cap)
        wide = predictor.log_probability_below(X[:1], cap, 2.0)
        assert (wide > plain) == surer
    step = 1e-6
    _, slope = predictor.log_probability_below_gradient(X[:1], centre - 0.1, 2.0)
    for j in range(4):
        shift = step * np.eye(4)[j]
        above, below = (
            predictor.log_probability_below(X[:1] + sign * shift, centre - 0.1, 2.0)[0]
            for sign in (1.0, -1.0)
        )
        assert slope[0, j] == pytest.approx((above - below) / (2.0 * step), rel=1e-4, abs=1e-5)
