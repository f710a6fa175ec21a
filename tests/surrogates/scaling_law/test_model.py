from dataclasses import replace

import numpy as np
import pytest

from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.scaling_law.linearized import align
from surrogates.scaling_law.mixture import DriftMixture
from surrogates.scaling_law.model import FittedParameters, ScalingModel
from surrogates.scaling_law.parametric_loss import ThetaLayout
from surrogates.scaling_law.prior import Anchor, DriftPrior
from tests.surrogates.scaling_law.families import LLM, LOW, MIXED, WIDTH, Family, mixed_rows


@pytest.fixture(scope="module")
def fitted():
    data = Family(0).runs(40)
    model = ScalingModel()
    theta = model.learn(data)
    return model, data, theta, model.predictor(data, theta)


def read(theta):
    """The vector of a fit of `LLM` without rules, named."""
    return FittedParameters.from_vector(theta, ThetaLayout.of(LLM, 28), 0)


# --- the fit


def test_predictions_equal_bayesian_linear_regression_once_linearized(fitted):
    # without g, h, q and r the kernel must be nothing but theta's prior pushed through Phi
    model, data, theta, predictor = fitted
    parameters = read(theta)
    hyper = parameters.hyper.copy()
    sizes = [1 + 4, 1 + 4, 1 + 2]  # (ln s, ln l..) of g, h and q, before those of r
    hyper[np.cumsum([0, *sizes])] = -60.0  # variances
    hyper[-2] = -60.0  # growth of the errors
    linear = model.predictor(data, replace(parameters, hyper=hyper).to_vector())
    basis, v = linear.prior_mean.basis, linear.noise_variance + linear.row_noise
    phi, u = basis.value(data.X), linear.prior_mean.mode
    covariance = np.linalg.inv(np.eye(len(u)) + (phi.T / v) @ phi)
    weights = covariance @ phi.T @ ((data.y - linear.loss.value(data.X) + phi @ u) / v)
    X = np.random.default_rng(6).random((8, 4)) * 1.4
    phi_new = basis.value(X)
    posterior = linear.joint_posterior(X)
    np.testing.assert_allclose(
        posterior.mean, linear.loss.value(X) + phi_new @ (weights - u), rtol=1e-6
    )
    np.testing.assert_allclose(
        posterior.covariance, phi_new @ covariance @ phi_new.T, rtol=1e-4, atol=1e-8
    )
    mean, spread = linear.coefficients()
    root = linear.prior.root
    np.testing.assert_allclose(mean, linear.prior.mean + root @ weights, atol=1e-5)
    np.testing.assert_allclose(spread, root @ covariance @ root.T, atol=1e-6)


def test_posterior_gradient_matches_finite_differences(fitted):
    predictor = fitted[3]
    X = np.random.default_rng(7).random((5, 4)) * 1.3
    posterior = predictor.posterior_gradient(X)
    marginal = predictor.posterior(X)
    np.testing.assert_allclose(posterior.mean, marginal.mean, rtol=1e-9)
    np.testing.assert_allclose(posterior.variance, marginal.variance, rtol=1e-6)
    for j in range(4):
        step = 1e-5 * np.eye(4)[j]
        above, below = predictor.posterior(X + step), predictor.posterior(X - step)
        d_mean, d_variance = (
            (above.mean - below.mean) / 2e-5,
            (above.variance - below.variance) / 2e-5,
        )
        np.testing.assert_allclose(posterior.d_mean[:, j], d_mean, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(posterior.d_variance[:, j], d_variance, rtol=1e-4, atol=1e-8)


def test_leave_one_out_equals_refitting_without_the_row(fitted):
    model, data, theta, predictor = fitted
    loo = predictor.leave_one_out()
    for i in (0, 17):
        rest = np.arange(len(data)) != i
        without = model.predictor(TrainingData(data.X[rest], data.y[rest], LLM), theta)
        posterior = without.posterior(data.X[[i]])
        own = predictor.noise_variance + predictor.row_noise[i]
        assert loo.mean[i] == pytest.approx(posterior.mean[0], rel=1e-8)
        assert loo.variance[i] == pytest.approx(posterior.variance[0] + own, rel=1e-6)


def test_appended_rows_equal_a_rebuild_and_any_grouping_gives_the_same_bits(fitted):
    model, data, theta, _ = fitted
    head = model.predictor(TrainingData(data.X[:30], data.y[:30], LLM), theta)
    at_once = head.condition(data.X[30:], data.y[30:])
    in_two = head.condition(data.X[30:33], data.y[30:33]).condition(data.X[33:], data.y[33:])
    whole = model.predictor(data, theta)
    X = np.random.default_rng(9).random((5, 4))
    np.testing.assert_array_equal(at_once.weights, in_two.weights)
    np.testing.assert_allclose(at_once.posterior(X).mean, whole.posterior(X).mean, rtol=1e-8)
    np.testing.assert_allclose(at_once.training_mean(), whole.posterior(data.X).mean, rtol=1e-8)


def test_fantasies_average_to_the_posterior_mean(fitted):
    predictor = fitted[3]
    pending = np.random.default_rng(10).random((3, 4))
    fantasies = predictor.fantasize(pending, 4000, np.random.default_rng(11))
    X = np.random.default_rng(12).random((4, 4))
    posterior = predictor.posterior(X)
    error = fantasies.means(X).mean(axis=1) - posterior.mean
    assert np.all(np.abs(error) < 5.0 * np.sqrt(posterior.variance / 4000) + 1e-9)
    assert fantasies.training_means().shape == (43, 4000)


def test_the_same_data_give_the_same_fit_to_the_last_bit(fitted):
    model, data, theta, _ = fitted
    np.testing.assert_array_equal(model.learn(data), theta)


def test_a_warm_start_survives_a_shift_of_the_reference_scale(fitted):
    model, data, theta, _ = fitted
    upper = data.X[:, 2] > 0.5
    part = TrainingData(data.X[upper], data.y[upper], LLM)
    warm = model.predictor(part, model.learn(part, theta, cold=False))
    cold = model.predictor(part, model.learn(part))
    # rows of other scales as well, which the part does not hold
    found, expected = warm.posterior(data.X), cold.posterior(data.X)
    assert np.all(np.abs(found.mean - expected.mean) < 0.5 * np.sqrt(expected.variance))
    spread = np.std(part.y)
    assert np.sqrt(np.mean((warm.training_mean() - part.y) ** 2)) < 0.1 * spread


# --- what it is for


@pytest.fixture(scope="module")
def forty():
    """Forty known laws, each with the model of 40 of its runs."""
    families = [Family(seed) for seed in range(40)]
    return [(family, ScalingModel().fit(family.runs(40))) for family in families]


def test_known_drift_lies_within_its_intervals(forty):
    inside = []
    for family, predictor in forty:
        law = predictor.law()
        mean = np.array([[entry.mean for entry in row] for row in law.drift])
        sd = np.array([[entry.sd for entry in row] for row in law.drift])
        inside.append(np.abs(family.slopes - mean) < 1.645 * sd)
    assert 0.85 <= np.mean(inside) <= 0.99


def test_loss_at_eight_times_the_compute_lies_within_its_interval(forty):
    inside, error = [], []
    for family, predictor in forty:
        posterior = predictor.posterior(family.best)
        truth = family.loss.value(family.best)[0]
        inside.append(abs(truth - posterior.mean[0]) < 1.645 * np.sqrt(posterior.variance[0]))
        error.append(abs(truth / posterior.mean[0] - 1.0))
    assert 0.80 <= np.mean(inside) <= 1.0
    assert np.median(error) < 0.02


@pytest.mark.parametrize("relative", [False, True])
@pytest.mark.parametrize("n", [6, 8, 12, 20])
def test_the_bottom_of_a_parabola_is_found_from_a_handful_of_runs(n, relative):
    columns = Columns(
        (ColumnKind.DECISION,), ("z",), np.zeros(1), np.full(1, 7.0), (0,), (relative,)
    )
    X = np.linspace(0.0, 1.0, n)[:, None]
    predictor = ScalingModel().fit(TrainingData(X, (X[:, 0] - 0.4) ** 2, columns))
    optimum = predictor.optimum(np.zeros(0))
    assert optimum.mean[0] / 7.0 == pytest.approx(0.4, abs=0.02)
    assert predictor.loss.curvature_at(np.zeros(0))[0, 0] == pytest.approx(2.0, rel=0.3)


def test_diverged_runs_do_not_move_the_optimum():
    family = Family(2)
    data = family.runs(40)
    wild = data.y.copy()
    worst = np.argsort(data.X[:, 0])[-8:]  # the highest learning rates blow up
    wild[worst] = [11.0, 40.0, 1e3, 1e6, 1e12, 10.8, 9.0, 1e300]
    clean = ScalingModel().fit(data).optimum(family.target)
    blown = ScalingModel().fit(TrainingData(data.X, wild, LLM)).optimum(family.target)
    assert np.all(np.abs(blown.mean - clean.mean) < 2.0 * np.sqrt(np.diagonal(blown.covariance)))
    truth = LOW[:2] + WIDTH[:2] * family.best[0, :2]
    assert np.all(np.abs(blown.mean - truth) < 2.5 * np.sqrt(np.diagonal(blown.covariance)))


def test_drift_priors_are_in_natural_units_and_data_move_them():
    slopes = np.array([[-0.7, 0.3], [0.0, 0.5]])
    prior = DriftPrior(slopes, np.full((2, 2), 0.2))
    family = Family(3)
    few = ScalingModel(drift=DriftMixture.of(prior)).fit(family.runs(1)).law()
    many = ScalingModel(drift=DriftMixture.of(prior)).fit(family.runs(150)).law()
    for row, expected in zip(few.drift, slopes, strict=True):
        for entry, slope in zip(row, expected, strict=True):
            assert entry.prior_mean == pytest.approx(slope)
            assert entry.prior_sd == pytest.approx(0.2)
            assert entry.mean == pytest.approx(slope, abs=0.1)
    learned = np.array([[entry.mean for entry in row] for row in many.drift])
    assert np.abs(learned - family.slopes).sum() < 0.5 * np.abs(slopes - family.slopes).sum()
    assert many.drift[0][0].sd < 0.5 * many.drift[0][0].prior_sd


def test_an_anchor_places_the_optimum_at_its_own_scale():
    at = LOW[2:] + 2.0 * WIDTH[2:]  # far beyond the data
    anchor = Anchor(at, np.array([np.log(2e-3), 0.0]), np.array([0.05, np.inf]))
    prior = DriftPrior(np.zeros((2, 2)), np.full((2, 2), 0.3), anchor)
    nothing = TrainingData(np.zeros((0, 4)), np.zeros(0), LLM)
    optimum = ScalingModel(drift=DriftMixture.of(prior)).fit(nothing).optimum(at)
    assert optimum.mean[0] == pytest.approx(np.log(2e-3), abs=0.02)
    assert np.sqrt(optimum.covariance[0, 0]) == pytest.approx(0.05, rel=0.05)
    assert optimum.mean[1] == pytest.approx(LOW[1] + 0.5 * WIDTH[1])


def test_moves_along_the_drift_keep_the_place_relative_to_the_optimum(fitted):
    predictor = fitted[3]
    rng = np.random.default_rng(13)
    X, moved = rng.random((6, 4)), rng.random((6, 4))
    carried = predictor.moved_along_drift(X, moved)
    np.testing.assert_array_equal(carried[:, 2:], moved[:, 2:])
    np.testing.assert_allclose(
        align(predictor.loss, carried)[:, :2], align(predictor.loss, X)[:, :2], atol=1e-12
    )


def test_one_scale_value_leaves_the_law_at_its_prior_and_the_interval_wide():
    family = Family(4)
    data = family.runs(30)
    X = data.X.copy()
    X[:, 2:] = 0.5
    predictor = ScalingModel().fit(TrainingData(X, family.loss.value(X), LLM))
    for entry in predictor.law().exponent:
        assert entry.mean == pytest.approx(entry.prior_mean, rel=0.05)
    here = X[np.argmin(data.y)][None, :]
    there = here.copy()
    there[:, 2:] = 1.3
    near, far = predictor.posterior(here).variance[0], predictor.posterior(there).variance[0]
    assert far > 25.0 * near


HISTORIES = {
    "zero": lambda n, rng: np.zeros(n),
    "constant": lambda n, rng: np.full(n, 3.3),
    "huge": lambda n, rng: rng.choice([1e300, -1e300, 1.0, 0.0], n),
    "tiny": lambda n, rng: 1e-300 * rng.random(n),
    "24 orders": lambda n, rng: 10.0 ** rng.uniform(-12, 12, n),
    "one diverged": lambda n, rng: np.where(np.arange(n) == n - 1, 1e18, 3.0 + rng.random(n)),
    "offset": lambda n, rng: 1e6 + rng.standard_normal(n),
}


@pytest.mark.parametrize("n", [0, 1, 2, 5, 40])
@pytest.mark.parametrize("history", list(HISTORIES))
@pytest.mark.parametrize("duplicates", [False, True])
def test_odd_histories_give_finite_posteriors(n, history, duplicates):
    rng = np.random.default_rng(14)
    X = mixed_rows(n, rng)
    if duplicates and n:
        X = np.repeat(X[:1], n, axis=0)
    model, data = ScalingModel(), TrainingData(X, HISTORIES[history](n, rng), MIXED)
    theta = model.learn(data)
    predictor = model.predictor(data, model.learn(data, theta, cold=False))
    Q = mixed_rows(6, rng)
    Q[:, MIXED.numeric] = 3.0 * Q[:, MIXED.numeric] - 1.0
    posterior = predictor.posterior_gradient(Q)
    for values in (posterior.mean, posterior.variance, posterior.d_mean, posterior.d_variance):
        assert np.all(np.isfinite(values))
    assert np.isfinite(predictor.law().irreducible.sd)
    assert np.all(np.isfinite(predictor.condition(Q, posterior.mean).training_mean()))


@pytest.mark.parametrize("kinds", [("decision",), ("categorical",), ("scale", "scale")])
def test_spaces_without_scales_or_without_decisions_work(kinds):
    d = len(kinds)
    categories = tuple(3 if kind == "categorical" else 0 for kind in kinds)
    columns = Columns(
        tuple(ColumnKind(kind) for kind in kinds),
        ("a", "b")[:d],
        np.zeros(d),
        np.ones(d),
        categories,
    )
    rng = np.random.default_rng(15)
    X = rng.integers(0, 3, (12, d)).astype(float)
    y = 2.0 - X[:, 0]  # a law cannot rise with scale
    predictor = ScalingModel().fit(TrainingData(X, y + 0.01 * rng.random(12), columns))
    np.testing.assert_allclose(predictor.training_mean(), y, atol=0.2)
    assert np.all(np.isfinite(predictor.posterior_gradient(X).d_mean))


def test_rescaling_the_losses_rescales_the_posterior(fitted):
    model, data, _, predictor = fitted
    # powers of two, so that only the order of rounding differs
    scaled = model.fit(TrainingData(data.X, 8.0 * data.y, LLM))
    X = np.random.default_rng(16).random((5, 4))
    np.testing.assert_allclose(
        scaled.posterior(X).mean, 8.0 * predictor.posterior(X).mean, rtol=2e-3
    )


def test_a_further_run_shrinks_the_posterior_of_the_optimum_by_its_covariance(fitted):
    _, _, _, predictor = fitted
    row = mixed_rows(1, np.random.default_rng(3))[:, :4]
    target = LOW[2:] + 1.2 * WIDTH[2:]
    further = predictor.condition(row, predictor.posterior(row).mean)
    before, after = predictor.optimum(target).covariance, further.optimum(target).covariance
    c = predictor.optimum_covariance(row, target)[0] * WIDTH[:2]
    error = predictor.noise_variance + further.row_noise[-1]
    variance = predictor.posterior(row).variance[0] + error
    np.testing.assert_allclose(before - after, np.outer(c, c) / variance, rtol=1e-5, atol=1e-12)


# --- transfer rules that compete


def rules(*means, sd=0.1, weights=None):
    """Rules that claim these slopes, and last the neutral prior."""
    priors = (*(DriftPrior(mean, np.full((2, 2), sd)) for mean in means), None)
    weights = np.full(len(priors), 1.0 / len(priors)) if weights is None else np.array(weights)
    return DriftMixture(priors, weights)


@pytest.mark.parametrize("seed", range(4))
def test_a_rule_that_is_right_gains_weight(seed):
    family = Family(seed)
    drift = rules(family.slopes, family.slopes + 0.8, family.slopes * [[-1.0], [1.0]] - 0.5)
    weights = ScalingModel(drift=drift).fit(family.runs(80)).rule_weights
    assert weights.sum() == pytest.approx(1.0) and np.all(weights >= 0.0)
    assert weights[0] > 0.5 and weights[0] > 2.0 * drift.weights[0]


@pytest.mark.parametrize("seed", range(4))
def test_where_all_rules_are_wrong_the_neutral_prior_gains(seed):
    family = Family(seed)
    drift = rules(family.slopes + 1.0, family.slopes - 1.0, weights=[0.45, 0.45, 0.1])
    predictor = ScalingModel(drift=drift).fit(family.runs(80))
    weights = predictor.rule_weights
    assert weights.sum() == pytest.approx(1.0)
    assert weights[2] > 0.9
    # and the law is the one that no rule would have given
    free = ScalingModel().fit(TrainingData(predictor.X, predictor.y, LLM)).law()
    for row, expected in zip(predictor.law().drift, free.drift, strict=True):
        for entry, other in zip(row, expected, strict=True):
            assert abs(entry.mean - other.mean) < 1.0 * other.sd


def test_rules_alike_share_their_weight_as_before_the_runs():
    family = Family(1)
    drift = rules(family.slopes, family.slopes, weights=[0.6, 0.2, 0.2])
    weights = ScalingModel(drift=drift).fit(family.runs(60)).rule_weights
    assert weights[0] / weights[1] == pytest.approx(3.0, rel=1e-6)


def test_without_runs_the_rules_keep_their_weights():
    drift = rules(np.zeros((2, 2)), np.ones((2, 2)), weights=[0.5, 0.3, 0.2])
    nothing = TrainingData(np.zeros((0, 4)), np.zeros(0), LLM)
    np.testing.assert_allclose(ScalingModel(drift=drift).fit(nothing).rule_weights, drift.weights)


def test_one_rule_alone_is_a_prior_whatever_the_runs_say():
    family = Family(2)
    wrong = DriftMixture.of(DriftPrior(family.slopes + 1.0, np.full((2, 2), 0.1)))
    assert ScalingModel(drift=wrong).fit(family.runs(60)).rule_weights.tolist() == [1.0]


@pytest.fixture(scope="module")
def competing():
    family = Family(0)
    data, drift = family.runs(40), rules(family.slopes, family.slopes + 0.4)
    model = ScalingModel(drift=drift)
    theta = model.learn(data)
    return model, data, theta, model.predictor(data, theta)


def test_a_fit_is_the_predictor_of_the_vector_it_learned(competing):
    model, data, theta, predictor = competing
    again = model.fit(data)
    X = np.random.default_rng(20).random((6, 4)) * 1.3
    np.testing.assert_array_equal(again.rule_weights, predictor.rule_weights)
    np.testing.assert_array_equal(again.posterior(X).mean, predictor.posterior(X).mean)
    np.testing.assert_array_equal(again.posterior(X).variance, predictor.posterior(X).variance)
    named = FittedParameters.from_vector(theta, ThetaLayout.of(LLM, 28), 3)
    np.testing.assert_array_equal(named.weights, predictor.rule_weights)
    np.testing.assert_array_equal(named.to_vector(), theta)


def test_with_rules_too_appended_rows_equal_a_rebuild(competing):
    model, data, theta, predictor = competing
    head = model.predictor(TrainingData(data.X[:25], data.y[:25], LLM), theta)
    grown = head.condition(data.X[25:], data.y[25:])
    X = np.random.default_rng(21).random((6, 4)) * 1.3
    found, expected = grown.posterior(X), predictor.posterior(X)
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-8)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-6)
    np.testing.assert_allclose(grown.row_noise, predictor.row_noise, rtol=1e-8)
    np.testing.assert_array_equal(grown.rule_weights, predictor.rule_weights)
    np.testing.assert_allclose(
        grown.extrapolation_variance(X), predictor.extrapolation_variance(X), rtol=1e-8
    )


def test_the_prior_shown_beside_the_law_is_the_one_before_the_runs():
    family = Family(0)
    drift = rules(family.slopes, family.slopes + 0.8, weights=[0.3, 0.5, 0.2])
    before = 0.3 * family.slopes + 0.5 * (family.slopes + 0.8)
    for n in (0, 1, 60):
        law = ScalingModel(drift=drift).fit(family.runs(n)).law()
        found = [[entry.prior_mean for entry in row] for row in law.drift]
        np.testing.assert_allclose(found, before, rtol=1e-6)
