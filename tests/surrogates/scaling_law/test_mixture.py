import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import linalg
from scipy.stats import multivariate_normal

from surrogates.numerics import cholesky
from surrogates.scaling_law.mixture import DriftMixture, log_evidences, moment_matched, updated
from surrogates.scaling_law.prior import DriftPrior, Whitening


def component(rng, p, spread=1.0):
    root = np.tril(rng.normal(size=(p, p))) * 0.5
    root[np.diag_indices(p)] = rng.uniform(0.3, 1.5, p)
    return Whitening(rng.normal(size=p), spread * root)


def covariance(rng, n):
    A = rng.normal(size=(n, n))
    return A @ A.T / n + 0.3 * np.eye(n)


def dense(c, target, J, K):
    return multivariate_normal(J @ c.mean, J @ c.root @ c.root.T @ J.T + K).logpdf(target)


@settings(deadline=None, max_examples=40)
@given(n=st.integers(1, 30), p=st.integers(1, 9), k=st.integers(1, 4), seed=st.integers(0, 10**6))
def test_evidences_are_dense_normal_densities(n, p, k, seed):
    rng = np.random.default_rng(seed)
    components = [component(rng, p) for _ in range(k)]
    J, target, K = rng.normal(size=(n, p)), rng.normal(size=n), covariance(rng, n)
    expected = [dense(c, target, J, K) for c in components]
    by_factor = log_evidences(components, target, J, cholesky(K))
    by_root = log_evidences(components, target, J, linalg.cholesky(K, lower=True))
    np.testing.assert_allclose(by_factor, expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(by_root, expected, rtol=1e-9, atol=1e-9)


def test_an_evidence_is_the_mean_likelihood_over_the_prior():
    rng = np.random.default_rng(1)
    prior, J, K = component(rng, 2), rng.normal(size=(3, 2)), covariance(rng, 3)
    target = J @ prior.mean + 0.5
    thetas = prior.mean + rng.standard_normal((200_000, 2)) @ prior.root.T
    likelihood = multivariate_normal(np.zeros(3), K).pdf(target - thetas @ J.T)
    error = likelihood.std() / np.sqrt(len(thetas))
    (found,) = np.exp(log_evidences([prior], target, J, cholesky(K)))
    assert abs(found - likelihood.mean()) < 4.0 * error


def test_a_prior_far_wider_than_the_noise_loses_no_digits():
    # y = theta + noise in one number, seen n times: sufficient statistics give a closed form.
    n, wide, tiny = 50, 1e6, 1e-6
    rng = np.random.default_rng(2)
    target = 3.0 + tiny * rng.standard_normal(n)
    prior = Whitening(np.zeros(1), np.array([[wide]]))
    (found,) = log_evidences([prior], target, np.ones((n, 1)), tiny * np.eye(n))
    m = target.mean()
    inside = np.sum((target - m) ** 2) / tiny**2
    variance = wide**2 + tiny**2 / n
    expected = -0.5 * (
        inside + m**2 / variance + np.log(variance * n) + 2 * (n - 1) * np.log(tiny)
    ) - 0.5 * n * np.log(2 * np.pi)
    assert found == pytest.approx(expected, rel=1e-9)


def test_parameters_that_the_runs_do_not_see_change_no_evidence():
    rng = np.random.default_rng(3)
    seen = component(rng, 2)
    root = np.zeros((3, 3))
    root[:2, :2], root[2, 2] = seen.root, 7.0
    more = Whitening(np.append(seen.mean, 5.0), root)
    J, target, K = rng.normal(size=(4, 2)), rng.normal(size=4), cholesky(covariance(rng, 4))
    wider = np.column_stack([J, np.zeros(4)])
    np.testing.assert_allclose(
        log_evidences([more], target, wider, K), log_evidences([seen], target, J, K), rtol=1e-12
    )


def test_without_runs_the_evidences_say_nothing():
    rng = np.random.default_rng(4)
    components = [component(rng, 2), component(rng, 2)]
    empty = log_evidences(components, np.zeros(0), np.zeros((0, 2)), cholesky(np.zeros((0, 0))))
    np.testing.assert_array_equal(empty, [0.0, 0.0])
    np.testing.assert_allclose(updated(np.array([0.3, 0.7]), empty), [0.3, 0.7])


def test_the_matched_gaussian_has_the_moments_of_the_mixture():
    rng = np.random.default_rng(5)
    components, w = [component(rng, 4, s) for s in (0.5, 1.0, 3.0)], np.array([0.2, 0.5, 0.3])
    matched = moment_matched(components, w)
    mean = sum(v * c.mean for v, c in zip(w, components, strict=True))
    second = sum(
        v * (c.root @ c.root.T + np.outer(c.mean, c.mean))
        for v, c in zip(w, components, strict=True)
    )
    np.testing.assert_allclose(matched.mean, mean, rtol=1e-12)
    expected = second - np.outer(mean, mean)
    np.testing.assert_allclose(matched.root @ matched.root.T, expected, rtol=1e-10)
    np.testing.assert_allclose(matched.root, linalg.cholesky(expected, lower=True), atol=1e-10)


def test_draws_of_the_mixture_have_the_matched_moments():
    rng = np.random.default_rng(6)
    components, w = [component(rng, 2) for _ in range(3)], np.array([0.1, 0.6, 0.3])
    matched = moment_matched(components, w)
    which = rng.choice(3, size=400_000, p=w)
    noise = rng.standard_normal((len(which), 2))
    draws = np.empty_like(noise)
    for k, c in enumerate(components):
        draws[which == k] = c.mean + noise[which == k] @ c.root.T
    np.testing.assert_allclose(draws.mean(axis=0), matched.mean, atol=0.01)
    np.testing.assert_allclose(np.cov(draws.T), matched.root @ matched.root.T, rtol=0.02, atol=0.02)


def test_one_component_is_itself_to_the_last_bit():
    only = component(np.random.default_rng(7), 5)
    assert moment_matched([only], np.ones(1)) is only


def test_a_component_without_weight_does_not_count():
    rng = np.random.default_rng(8)
    kept, dropped = component(rng, 3), component(rng, 3, 1e6)
    matched = moment_matched([kept, dropped], np.array([1.0, 0.0]))
    np.testing.assert_allclose(matched.mean, kept.mean)
    np.testing.assert_allclose(matched.root, kept.root, atol=1e-9)


def test_weights_follow_bayes_rule_and_survive_huge_evidences():
    w, evidence = np.array([0.2, 0.3, 0.5]), np.array([1.0, 2.0, 0.5])
    expected = w * np.exp(evidence) / np.sum(w * np.exp(evidence))
    np.testing.assert_allclose(updated(w, evidence), expected)
    np.testing.assert_allclose(updated(w, evidence - 1e6), expected, rtol=1e-9)
    assert updated(w, np.array([0.0, -1e5, 0.0]))[1] == 0.0


def test_the_component_that_made_the_data_wins_in_the_long_run():
    rng = np.random.default_rng(9)
    right, wrong = (Whitening(np.array([slope, 0.0]), np.diag([0.1, 1.0])) for slope in (-0.3, 0.3))
    x = np.linspace(0.0, 5.0, 40)
    target = -0.3 * x + 0.2 + 0.05 * rng.standard_normal(40)
    J = np.column_stack([x, np.ones(40)])
    weights = updated(
        np.array([0.5, 0.5]), log_evidences([right, wrong], target, J, 0.05 * np.eye(40))
    )
    assert weights[0] > 0.999


@pytest.mark.parametrize("weights", [[0.5, 0.6], [1.0, 0.0], [1.5, -0.5], [np.nan, 1.0], [1.0]])
def test_weights_that_are_no_probabilities_are_refused(weights):
    with pytest.raises(ValueError, match="weights must"):
        DriftMixture((None, None), np.array(weights))


def test_components_about_different_spaces_are_refused():
    one, two = (DriftPrior(np.zeros((1, s)), np.ones((1, s))) for s in (1, 2))
    with pytest.raises(ValueError, match="same decisions x scales"):
        DriftMixture((one, None, two), np.array([0.25, 0.5, 0.25]))


def test_an_evidence_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="evidences must be finite"):
        updated(np.array([0.5, 0.5]), np.array([0.0, np.nan]))
