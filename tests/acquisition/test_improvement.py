"""Expected improvement, the front it is measured against, and the knowledge gradient."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from hpo.acquisition import Improvement, Staircase, expected_improvement_log, knowledge_gradient
from hpo.acquisition.improvement import log_h, log_h_and_slopes
from surrogates.gp import GPPredictor
from surrogates.kernels import MaternHamming
from tests.contracts.acquisition import MIXED, THETA, ConstantThreshold, loss_model, rows

# --- log h


def log_h_by_quadrature(z):
    """``ln int_0^inf t phi(t - z) dt``; below zero with t = u / |z| and phi(z) / z^2 taken out."""
    a = max(-z, 1.0)
    if z < -1.0:
        integral, _ = quad(lambda u: u * np.exp(-u - 0.5 * (u / a) ** 2), 0.0, 60.0, epsrel=1e-12)
        return np.log(integral) - 2.0 * np.log(a) - 0.5 * z**2 - 0.5 * np.log(2.0 * np.pi)
    integral, _ = quad(lambda t: t * norm.pdf(t, z), 0.0, max(z, 0.0) + 12.0, epsrel=1e-12)
    return np.log(integral)


@pytest.mark.parametrize("z", [-1e6, -3e3, -1001.0, -999.0, -60.0, -7.0, -1.001, -0.999, 0.0, 2.5])
def test_log_h_matches_quadrature(z):
    # below -1000 the bracket of log_h carries about ten digits
    assert log_h(np.array(z)) == pytest.approx(log_h_by_quadrature(z), rel=1e-11, abs=1e-9)


def test_log_h_is_continuous_where_its_formulas_meet():
    for seam, allowed in ((-1.0, 1e-14), (-1e3, 1e-9)):
        either = log_h(np.nextafter(seam, [-np.inf, np.inf]))
        assert np.ptp(either) <= allowed * 10.0 + 1e-15 * seam**2


def test_log_h_and_its_slopes_equal_torch():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # their imports use what torch deprecates
        import torch
        from botorch.acquisition.analytic import _log_ei_helper
    z = np.concatenate([-np.geomspace(1e6, 1e-3, 60), np.geomspace(1e-3, 1e3, 30)])
    at = torch.tensor(z, requires_grad=True)
    theirs = _log_ei_helper(at)
    theirs.sum().backward()
    np.testing.assert_allclose(log_h(z), theirs.detach().numpy(), rtol=1e-10, atol=1e-9)
    # (ln h)' = Phi / h; their formula differs numbers that agree in all but 1 / z^2
    ours, grad = log_h_and_slopes(z)[1], at.grad.numpy()
    assert np.all(np.abs(ours - grad) <= np.abs(ours) * (1e-9 + 4.0 * np.finfo(float).eps * z**2))


@given(st.floats(-1e8, 1e8))
def test_slopes_of_log_h_satisfy_their_identity(z):
    # h = phi + z Phi, hence 1 = phi / h + z Phi / h; relative to the larger summand
    Phi, phi = (float(part) for part in log_h_and_slopes(np.array(z))[1:])
    assert phi + z * Phi == pytest.approx(1.0, abs=1e-8 * max(1.0, phi))
    assert Phi > 0.0
    assert phi >= 0.0


def test_slopes_of_log_h_keep_their_digits_far_below_the_threshold():
    a = np.geomspace(1e3, 1e100, 20)
    _, Phi, phi = log_h_and_slopes(-a)
    # Phi / h = a (1 + 2 / a^2 + ..), phi / h = a^2 (1 + 3 / a^2 + ..)
    np.testing.assert_allclose(Phi, a + 2.0 / a, rtol=1e-9)
    np.testing.assert_allclose(phi, a**2 + 3.0, rtol=1e-9)


@pytest.mark.parametrize("sd", [0.1, 0.5, 5.0])
@pytest.mark.parametrize("gap", [-1.0, 0.0, 0.7])
def test_log_expected_improvement_matches_quadrature(gap, sd):
    mean, threshold = 2.0, 2.0 + gap
    improvement, _ = quad(
        lambda f: (threshold - f) * norm.pdf(f, mean, sd),
        min(threshold, mean) - 12.0 * sd,
        threshold,
        points=[min(threshold, mean)],
        epsabs=0.0,
        epsrel=1e-11,
        limit=200,
    )
    found = expected_improvement_log(np.array([mean]), np.array([sd**2]), threshold)
    np.testing.assert_allclose(found, [np.log(improvement)], rtol=1e-8, atol=1e-8)


def test_expected_improvement_of_a_certain_gain_is_that_gain():
    found = expected_improvement_log(np.array([1.0]), np.array([1e-20]), 3.0)
    np.testing.assert_allclose(found, [np.log(2.0)], rtol=1e-14)


@given(st.floats(-50.0, 50.0), st.floats(0.01, 10.0), st.floats(0.001, 1.0))
def test_expected_improvement_rises_with_a_lower_mean_and_a_larger_variance(mean, sd, more):
    def ei(mean, sd):
        return expected_improvement_log(np.array(mean), np.array(sd**2), 0.0)

    assert ei(mean - more, sd) > ei(mean, sd) - 1e-12
    assert ei(mean, sd + more) >= ei(mean, sd) - 1e-12


# --- improvement over a threshold


def test_improvement_without_fantasies_is_log_expected_improvement():
    p, X = loss_model(), rows(6, 1)
    posterior = p.posterior(X)
    found = Improvement(p, ConstantThreshold((-0.5,))).value(X)
    expected = expected_improvement_log(posterior.mean, posterior.variance, -0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_improvement_over_fantasies_is_the_log_of_the_average():
    p, X, pending = loss_model(), rows(6, 1), rows(2, 2)
    fantasies = p.fantasize(pending, 3, np.random.default_rng(0))
    beat = (-0.5, -0.2, -0.9)
    found = Improvement(fantasies.predictor, ConstantThreshold(beat), fantasies).value(X)
    means, variance = fantasies.means(X), fantasies.predictor.posterior(X).variance
    each = [np.exp(expected_improvement_log(means[:, s], variance, beat[s])) for s in range(3)]
    np.testing.assert_allclose(found, np.log(np.mean(each, axis=0)), rtol=1e-10)


def test_improvement_over_many_fantasies_matches_sampling():
    p, X, pending = loss_model(), rows(4, 1), rows(2, 2)
    fantasies = p.fantasize(pending, 64, np.random.default_rng(0))
    found = np.exp(
        Improvement(fantasies.predictor, ConstantThreshold((1.0,) * 64), fantasies).value(X)
    )
    count = 4000
    draws = np.random.default_rng(1).standard_normal((count, 4, 64))
    sd = np.sqrt(fantasies.predictor.posterior(X).variance)
    gain = np.maximum(1.0 - fantasies.means(X) - sd[:, None] * draws, 0.0).mean(axis=2)
    error = gain.std(axis=0) / np.sqrt(count)
    assert np.all(np.abs(gain.mean(axis=0) - found) < 4.0 * error)


def test_gradient_of_the_improvement_is_finite_where_the_improvement_underflows():
    value, gradient = Improvement(loss_model(), ConstantThreshold((-1e6,))).gradient(rows(8, 1))
    assert np.all(value < -1e10)
    assert np.all(np.isfinite(gradient))
    # ln EI falls as the mean over the variance: the same direction as in a nearer, accurate case
    slopes = gradient[:, MIXED.numeric]
    _, nearer = Improvement(loss_model(), ConstantThreshold((-1e5,))).gradient(rows(8, 1))
    np.testing.assert_allclose(slopes / 1e12, nearer[:, MIXED.numeric] / 1e10, rtol=1e-3)


# --- the front


class FirstColumn:
    """A cost model whose ln cost is the first column."""

    def mean(self, X):
        return X[:, 0]


def test_the_front_is_the_smallest_mean_at_no_more_than_the_cost_of_the_candidate():
    log_costs, means = np.array([3.0, 1.0, 2.0]), np.array([[0.5], [2.0], [2.5]])
    front = Staircase.build(log_costs, means, -np.inf, FirstColumn())
    at = np.array([[0.0], [1.0], [1.5], [2.0], [2.9], [3.0], [9.0]])
    # below the cheapest visited point its own loss is the one to beat
    expected = [2.0, 2.0, 2.0, 2.0, 2.0, 0.5, 0.5]
    np.testing.assert_array_equal(front.levels(at)[:, 0], expected)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_levels_fall_with_cost_and_equal_a_loop(k, count, seed):
    rng = np.random.default_rng(seed)
    log_costs = rng.integers(0, 5, k).astype(float)  # with ties
    means = rng.standard_normal((k, count))
    level = float(rng.uniform(-1.0, 6.0))
    front = Staircase.build(log_costs, means, level, FirstColumn())
    at = np.sort(rng.uniform(-1.0, 6.0, 9))[:, None]
    found = front.levels(at)
    assert np.all(np.diff(found, axis=0) <= 0.0)
    for i, c in enumerate(np.maximum(at[:, 0], level)):
        within = log_costs <= max(c, log_costs.min())
        if c >= log_costs.min():
            np.testing.assert_array_equal(found[i], means[within].min(axis=0))


def test_a_candidate_below_the_drawn_level_must_beat_the_front_at_that_level():
    log_costs, means = np.array([1.0, 2.0, 3.0]), np.array([[3.0], [2.0], [1.0]])
    front = Staircase.build(log_costs, means, 2.0, FirstColumn())
    np.testing.assert_array_equal(
        front.levels(np.array([[0.0], [1.0], [2.5], [3.0]]))[:, 0], [2.0, 2.0, 2.0, 1.0]
    )


def test_without_a_cost_model_every_candidate_must_beat_the_best():
    front = Staircase.build(np.zeros(3), np.array([[3.0, 1.0], [2.0, 4.0], [5.0, 6.0]]), 0.0, None)
    np.testing.assert_array_equal(front.levels(np.zeros((2, 1))), [[2.0, 1.0]] * 2)


def test_a_lucky_observation_does_not_become_the_loss_to_beat():
    X = np.repeat(rows(1, 0), 20, axis=0)
    y = np.random.default_rng(0).standard_normal(20)
    p = GPPredictor.build(MaternHamming.from_theta(MIXED, THETA), X, y, 1.0)
    front = Staircase.build(np.zeros(20), p.training_mean()[:, None], 0.0, None)
    # the posterior mean of twenty repeats lies within four standard errors of the truth, 0
    assert front.levels(X[:1])[0, 0] > -4.0 / np.sqrt(20.0)
    assert y.min() < -1.5


# --- replication


@pytest.mark.parametrize(
    ("mean", "variance", "noise", "rival"),
    [(0.0, 1.0, 0.5, 0.3), (0.3, 0.2, 1.0, 0.0), (-0.1, 0.5, 0.0, 0.0), (1.0, 0.1, 0.1, 0.2)],
)
def test_knowledge_gradient_matches_monte_carlo(mean, variance, noise, rival):
    count = 400_000
    rng = np.random.default_rng(0)
    truth = mean + np.sqrt(variance) * rng.standard_normal(count)
    seen = truth + np.sqrt(noise) * rng.standard_normal(count)
    updated = mean + variance / (variance + noise) * (seen - mean)
    fall = min(mean, rival) - np.minimum(updated, rival)
    error = fall.std() / np.sqrt(count)
    found = knowledge_gradient(mean, variance, noise, rival)
    assert abs(found - fall.mean()) < 4.0 * error


def test_knowledge_gradient_is_zero_where_a_measurement_cannot_change_the_best():
    assert knowledge_gradient(1.0, 0.0, 0.0, 0.5) == 0.0
    assert knowledge_gradient(1.0, 0.0, 1.0, 0.5) == 0.0
    assert knowledge_gradient(1e3, 1e-6, 1.0, 0.0) == 0.0  # underflows, without an error


@given(st.floats(-3.0, 3.0), st.floats(0.01, 4.0), st.floats(0.01, 4.0), st.floats(0.1, 2.0))
def test_knowledge_gradient_falls_with_the_noise_and_with_the_gap(rival, variance, noise, more):
    gain = knowledge_gradient(0.0, variance, noise, rival)
    assert 0.0 <= knowledge_gradient(0.0, variance, noise + more, rival) <= gain + 1e-15
    wider = rival + np.copysign(more, rival)
    assert knowledge_gradient(0.0, variance, noise, wider) <= gain + 1e-15
