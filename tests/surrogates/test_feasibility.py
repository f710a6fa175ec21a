import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.feasibility import FeasibilityModel


def columns(numeric: int, *categories: int) -> Columns:
    kinds = (ColumnKind.DECISION,) * numeric + (ColumnKind.CATEGORICAL,) * len(categories)
    d = len(kinds)
    names = tuple(f"x{i}" for i in range(d))
    return Columns(kinds, names, np.zeros(d), np.ones(d), (0,) * numeric + categories)


def ridge_history(d: int, seed: int) -> TrainingData:
    """Three failures above 0.85 in the first column, seventeen successes below 0.8."""
    rng = np.random.default_rng(seed)
    X = rng.random((20, d))
    X[:, 0] = np.concatenate([rng.uniform(0.85, 1.0, 3), rng.uniform(0.0, 0.8, 17)])
    return TrainingData(X, (X[:, 0] < 0.82).astype(float), columns(d))


def test_prior_probability_is_the_same_everywhere_before_any_data():
    space = columns(4, 3)
    nothing = TrainingData(np.zeros((0, 5)), np.zeros(0), space)
    X = np.random.default_rng(0).random((50, 5)) * 3 - 1
    X[:, 4] = 1
    np.testing.assert_allclose(FeasibilityModel().fit(nothing).probability(X), 0.95)


@pytest.mark.parametrize("prior", [0.5, 0.95, 0.99])
def test_averaged_prior_probability_matches_sampled_weights(prior):
    model = FeasibilityModel(prior_probability=prior, slope_sd=2.0)
    predictor = model.fit(TrainingData(np.zeros((0, 2)), np.zeros(0), columns(2)))
    rng = np.random.default_rng(1)
    phi = predictor.features(rng.random((5, 2))) * predictor.prior_sd
    weights = rng.standard_normal((200_000, phi.shape[1]))
    sampled = expit(predictor.offset(phi)[:, None] + phi @ weights.T).mean(axis=1)
    # the probit approximation is good to about 0.01
    np.testing.assert_allclose(sampled, prior, atol=0.02)


def test_three_failures_among_twenty_teach_a_ridge_in_one_of_eight_columns():
    above, below = [], []
    for seed in range(10):
        predictor = FeasibilityModel().fit(ridge_history(8, seed))
        X = np.random.default_rng(seed).random((200, 8))
        X[:, 0] = 0.95
        above.append(predictor.probability(X).mean())
        X[:, 0] = 0.4
        below.append(predictor.probability(X).mean())
    assert np.mean(above) < 0.5
    assert np.mean(below) > 0.97


def test_predictive_probability_averages_over_the_posterior_variance():
    # MacKay's formula needs the variance; with the standard deviation it would be far too confident
    predictor = FeasibilityModel().fit(ridge_history(3, 0))
    X = np.random.default_rng(2).random((20, 3)) * 1.5
    phi = predictor.features(X) * predictor.prior_sd
    mean = predictor.offset(phi) + phi @ predictor.weights
    sd = np.sqrt(np.einsum("ij,jk,ik->i", phi, predictor.covariance, phi))
    nodes, weights = np.polynomial.hermite_e.hermegauss(60)
    exact = expit(mean[:, None] + sd[:, None] * nodes) @ weights / weights.sum()
    np.testing.assert_allclose(predictor.probability(X), exact, atol=0.025)


def test_laplace_mode_is_stationary():
    predictor = FeasibilityModel().fit(ridge_history(4, 3))
    data = ridge_history(4, 3)
    phi = predictor.features(data.X) * predictor.prior_sd
    p = expit(predictor.offset(phi) + phi @ predictor.weights)
    np.testing.assert_allclose(phi.T @ (data.y - p) - predictor.weights, 0.0, atol=1e-4)


def test_gradient_matches_finite_differences():
    rng = np.random.default_rng(4)
    X = rng.random((40, 4))
    X[:, 3] = rng.integers(0, 3, 40)
    labels = (X[:, 0] + 0.3 * X[:, 3] < 1.0).astype(float)
    predictor = FeasibilityModel().fit(TrainingData(X, labels, columns(3, 3)))
    log_p, gradient = predictor.log_probability_gradient(X[:6])
    np.testing.assert_allclose(log_p, predictor.log_probability(X[:6]))
    np.testing.assert_allclose(np.exp(log_p), predictor.probability(X[:6]))
    for j in range(3):
        step = np.zeros(4)
        step[j] = 1e-5
        slope = predictor.log_probability(X[:6] + step) - predictor.log_probability(X[:6] - step)
        np.testing.assert_allclose(gradient[:, j], slope / 2e-5, rtol=1e-5, atol=1e-8)
    assert not gradient[:, 3].any()


def test_only_successes_keep_at_least_the_prior_and_only_failures_fall_below_it():
    X = np.random.default_rng(5).random((30, 3))
    good = FeasibilityModel().fit(TrainingData(X, np.ones(30), columns(3)))
    bad = FeasibilityModel().fit(TrainingData(X, np.zeros(30), columns(3)))
    assert np.all(good.probability(X) > 0.949)
    assert np.all(bad.probability(X) < 0.3)


def test_a_failing_category_is_learned():
    rng = np.random.default_rng(6)
    X = np.column_stack([rng.random(40), rng.integers(0, 2, 40)])
    predictor = FeasibilityModel().fit(TrainingData(X, 1.0 - X[:, 1], columns(1, 2)))
    p = predictor.probability(np.array([[0.5, 0.0], [0.5, 1.0]]))
    assert p[0] > 0.9 and p[1] < 0.3


def test_successes_inside_a_ball_do_not_drive_probabilities_to_the_ends():
    # log loss of a wrong certainty is unbounded; of the base rate it is 0.66 here
    losses = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        X, Q = rng.random((60, 2)), rng.random((400, 2))
        inside, truth = (np.sum((Z - 0.5) ** 2, axis=1) < 0.2 for Z in (X, Q))
        p = FeasibilityModel().fit(TrainingData(X, inside.astype(float), columns(2))).probability(Q)
        p = np.clip(p, 1e-12, 1.0 - 1e-12)
        losses.append(-np.mean(np.where(truth, np.log(p), np.log1p(-p))))
    assert np.mean(losses) < 0.25


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 60), st.integers(0, 5), st.integers(0, 2**31))
def test_any_history_gives_finite_probabilities(n, d, seed):
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.random((rng.integers(1, n + 1), d + 1)), n, axis=0)[:n]
    X[:, d] = rng.integers(0, 2, n)
    data = TrainingData(X, rng.integers(0, 2, n).astype(float), columns(d, 2))
    predictor = FeasibilityModel().fit(data)
    Q = rng.uniform(-5, 5, (9, d + 1))
    log_p, gradient = predictor.log_probability_gradient(Q)
    assert np.all(np.isfinite(log_p)) and np.all(log_p <= 0) and np.all(np.isfinite(gradient))


def test_labels_other_than_zero_and_one_are_refused():
    with pytest.raises(ValueError, match="0 or 1"):
        FeasibilityModel().fit(TrainingData(np.zeros((1, 1)), np.array([0.5]), columns(1)))
    with pytest.raises(ValueError, match="prior_probability"):
        FeasibilityModel(prior_probability=1.0)
