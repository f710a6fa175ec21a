import warnings
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import norm

from hpo.acquisition import (
    CostBelow,
    Improvement,
    ProbabilityOfSuccess,
    Staircase,
    Sum,
    TargetGain,
    TrustRegion,
    expected_improvement_log,
    knowledge_gradient,
)
from hpo.acquisition.improvement import log_h, log_h_slopes
from surrogates.cost import CostModel
from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.feasibility import FeasibilityModel
from surrogates.gp import GPPredictor
from surrogates.kernels import MaternHamming
from surrogates.scaling_law.model import ScalingModel

MIXED = Columns(
    (ColumnKind.DECISION, ColumnKind.CATEGORICAL, ColumnKind.SCALE, ColumnKind.ACTIVITY),
    tuple("acNg"),
    np.array([0.0, 0.0, 11.0, 0.0]),
    np.array([1.0, 1.0, 4.0, 1.0]),
    (0, 3, 0, 2),
)
THETA = np.log([1.7, 0.4, 1.1, 0.3, 0.9])


def rows(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 4))
    X[:, 1], X[:, 3] = rng.integers(0, 3, n), rng.integers(0, 2, n)
    return X


def loss_model(n=20):
    X = rows(n, 0)
    y = np.sin(5.0 * X[:, 0]) + X[:, 2] - 0.4 * X[:, 1]
    return GPPredictor.build(MaternHamming.from_theta(MIXED, THETA), X, y, 0.01)


def cost_model():
    X = rows(15, 3)
    noise = 0.1 * np.random.default_rng(4).standard_normal(15)
    return CostModel().fit(TrainingData(X, 11.0 + 4.0 * X[:, 2] + X[:, 0] + noise, MIXED))


def success_model():
    X = rows(30, 5)
    return FeasibilityModel().fit(TrainingData(X, (X[:, 0] < 0.7).astype(float), MIXED))


@dataclass(frozen=True)
class Beat:
    """One loss to beat in each world."""

    levels_: tuple[float, ...]

    def levels(self, X):
        return np.tile(self.levels_, (len(X), 1))


def assert_gradient_matches_finite_differences(term, X, atol=1e-6):
    value, gradient = term.gradient(X)
    np.testing.assert_allclose(value, term.value(X), rtol=1e-9, atol=1e-10)
    for j in range(X.shape[1]):
        if j in MIXED.categorical:
            np.testing.assert_array_equal(gradient[:, j], 0.0)
            continue
        step = 1e-6 * np.eye(X.shape[1])[j]
        slope = (term.value(X + step) - term.value(X - step)) / 2e-6
        np.testing.assert_allclose(gradient[:, j], slope, rtol=1e-5, atol=atol)


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
    ours, grad = log_h_slopes(z)[0], at.grad.numpy()
    assert np.all(np.abs(ours - grad) <= np.abs(ours) * (1e-9 + 4.0 * np.finfo(float).eps * z**2))


@given(st.floats(-1e8, 1e8))
def test_slopes_of_log_h_satisfy_their_identity(z):
    # h = phi + z Phi, hence 1 = phi / h + z Phi / h; relative to the larger summand
    Phi, phi = (float(part) for part in log_h_slopes(np.array(z)))
    assert phi + z * Phi == pytest.approx(1.0, abs=1e-8 * max(1.0, phi))
    assert Phi > 0.0
    assert phi >= 0.0


def test_slopes_of_log_h_keep_their_digits_far_below_the_threshold():
    a = np.geomspace(1e3, 1e100, 20)
    Phi, phi = log_h_slopes(-a)
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
def test_expected_improvement_rises_with_hope_and_with_doubt(mean, sd, more):
    def ei(mean, sd):
        return expected_improvement_log(np.array(mean), np.array(sd**2), 0.0)

    assert ei(mean - more, sd) > ei(mean, sd) - 1e-12
    assert ei(mean, sd + more) >= ei(mean, sd) - 1e-12


# --- improvement over a threshold


def test_improvement_in_one_world_is_log_expected_improvement():
    p, X = loss_model(), rows(6, 1)
    belief = p.posterior(X)
    found = Improvement(p, Beat((-0.5,))).value(X)
    expected = expected_improvement_log(belief.mean, belief.variance, -0.5)
    np.testing.assert_allclose(found, expected, rtol=1e-13)


def test_improvement_over_worlds_is_the_log_of_the_average():
    p, X, pending = loss_model(), rows(6, 1), rows(2, 2)
    worlds = p.fantasize(pending, 3, np.random.default_rng(0))
    beat = (-0.5, -0.2, -0.9)
    found = Improvement(worlds.predictor, Beat(beat), worlds).value(X)
    means, variance = worlds.means(X), worlds.predictor.posterior(X).variance
    each = [np.exp(expected_improvement_log(means[:, s], variance, beat[s])) for s in range(3)]
    np.testing.assert_allclose(found, np.log(np.mean(each, axis=0)), rtol=1e-10)


def test_improvement_over_many_worlds_matches_sampling():
    p, X, pending = loss_model(), rows(4, 1), rows(2, 2)
    worlds = p.fantasize(pending, 64, np.random.default_rng(0))
    found = np.exp(Improvement(worlds.predictor, Beat((1.0,) * 64), worlds).value(X))
    count = 4000
    draws = np.random.default_rng(1).standard_normal((count, 4, 64))
    sd = np.sqrt(worlds.predictor.posterior(X).variance)
    gain = np.maximum(1.0 - worlds.means(X) - sd[:, None] * draws, 0.0).mean(axis=2)
    error = gain.std(axis=0) / np.sqrt(count)
    assert np.all(np.abs(gain.mean(axis=0) - found) < 4.0 * error)


@pytest.mark.parametrize("beat", [1.0, -0.5, -20.0])
def test_gradient_of_the_improvement_matches_finite_differences(beat):
    X = rows(8, 1)
    value = abs(Improvement(loss_model(), Beat((beat,))).value(X)).max()
    # central differences of a value v carry about eps v / step
    assert_gradient_matches_finite_differences(
        Improvement(loss_model(), Beat((beat,))), X, atol=1e-6 + 1e-9 * value
    )


def test_gradient_of_the_improvement_over_worlds_matches_finite_differences():
    worlds = loss_model().fantasize(rows(3, 2), 5, np.random.default_rng(0))
    beat = Beat((-0.5, 0.0, -1.0, -3.0, 0.3))
    assert_gradient_matches_finite_differences(
        Improvement(worlds.predictor, beat, worlds), rows(8, 1)
    )


def test_gradient_of_the_improvement_is_finite_where_the_improvement_underflows():
    value, gradient = Improvement(loss_model(), Beat((-1e6,))).gradient(rows(8, 1))
    assert np.all(value < -1e10)
    assert np.all(np.isfinite(gradient))
    # ln EI falls as the mean over the variance: the same direction as in a nearer, accurate case
    slopes = gradient[:, MIXED.numeric]
    _, nearer = Improvement(loss_model(), Beat((-1e5,))).gradient(rows(8, 1))
    np.testing.assert_allclose(slopes / 1e12, nearer[:, MIXED.numeric] / 1e10, rtol=1e-3)


def test_a_batch_of_candidates_gives_what_each_candidate_alone_gives():
    worlds = loss_model().fantasize(rows(2, 2), 4, np.random.default_rng(0))
    term = Sum(
        (
            Improvement(worlds.predictor, Beat((-0.5,) * 4), worlds),
            ProbabilityOfSuccess(success_model()),
            CostBelow(cost_model(), 13.0),
            TrustRegion(rows(2, 6), np.full(4, 0.3), MIXED.decision),
        )
    )
    X = rows(6, 1)
    value, gradient = term.gradient(X)
    for i in range(len(X)):
        np.testing.assert_allclose(term.value(X[i : i + 1]), value[i], rtol=1e-9)
        np.testing.assert_allclose(term.gradient(X[i : i + 1])[1][0], gradient[i], rtol=1e-7)


# --- the front


class FirstColumn:
    """A cost model whose ln cost is the first column."""

    def mean(self, X):
        return X[:, 0]


def test_the_staircase_is_the_smallest_mean_no_dearer_than_the_candidate():
    log_costs, means = np.array([3.0, 1.0, 2.0]), np.array([[0.5], [2.0], [2.5]])
    front = Staircase.build(log_costs, means, -np.inf, FirstColumn())
    at = np.array([[0.0], [1.0], [1.5], [2.0], [2.9], [3.0], [9.0]])
    # below the cheapest visited point its own loss is the one to beat
    expected = [2.0, 2.0, 2.0, 2.0, 2.0, 0.5, 0.5]
    np.testing.assert_array_equal(front.levels(at)[:, 0], expected)


@given(st.integers(1, 12), st.integers(1, 4), st.integers(0, 2**32 - 1))
def test_levels_fall_with_cost_and_equal_a_loop(k, worlds, seed):
    rng = np.random.default_rng(seed)
    log_costs = rng.integers(0, 5, k).astype(float)  # with ties
    means = rng.standard_normal((k, worlds))
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


def test_a_lucky_observation_does_not_become_the_goal():
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


def test_knowledge_gradient_is_zero_where_nothing_can_be_learned():
    assert knowledge_gradient(1.0, 0.0, 0.0, 0.5) == 0.0
    assert knowledge_gradient(1.0, 0.0, 1.0, 0.5) == 0.0
    assert knowledge_gradient(1e3, 1e-6, 1.0, 0.0) == 0.0  # underflows, without an error


@given(st.floats(-3.0, 3.0), st.floats(0.01, 4.0), st.floats(0.01, 4.0), st.floats(0.1, 2.0))
def test_knowledge_gradient_falls_with_the_noise_and_with_the_gap(rival, variance, noise, more):
    gain = knowledge_gradient(0.0, variance, noise, rival)
    assert 0.0 <= knowledge_gradient(0.0, variance, noise + more, rival) <= gain + 1e-15
    wider = rival + np.copysign(more, rival)
    assert knowledge_gradient(0.0, variance, noise, wider) <= gain + 1e-15


# --- feasibility


def test_gradient_of_success_matches_finite_differences():
    assert_gradient_matches_finite_differences(ProbabilityOfSuccess(success_model()), rows(8, 1))


@pytest.mark.parametrize("log_cap", [9.0, 13.0, 20.0])
def test_gradient_of_the_cost_term_matches_finite_differences(log_cap):
    term = CostBelow(cost_model(), log_cap)
    assert_gradient_matches_finite_differences(term, rows(8, 1), atol=1e-5)


def test_feasibility_terms_are_the_logs_of_the_models_probabilities():
    success, cost, X = success_model(), cost_model(), rows(8, 1)
    np.testing.assert_allclose(
        np.exp(ProbabilityOfSuccess(success).value(X)), success.probability(X)
    )
    np.testing.assert_allclose(
        np.exp(CostBelow(cost, 13.0).value(X)),
        np.exp(cost.log_probability_below(X, 13.0)),
        rtol=1e-9,
    )


# --- the trust region


def test_the_region_is_zero_at_its_centres_and_falls_away_from_them():
    centers, radii = rows(3, 6), np.array([0.2, 1.0, 0.5, 1.0])
    region = TrustRegion(centers, radii, MIXED.numeric)
    np.testing.assert_array_equal(region.value(centers), 0.0)
    assert np.all(region.value(rows(20, 7)) < 0.0)


def test_one_radius_away_costs_ln_two_a_column():
    center, radii = rows(1, 6), np.array([0.2, 1.0, 0.5, 1.0])
    moved = center.copy()
    moved[:, MIXED.numeric] += radii[MIXED.numeric]
    region = TrustRegion(center, radii, MIXED.numeric)
    np.testing.assert_allclose(region.value(moved), -len(MIXED.numeric) * np.log(2.0), rtol=1e-14)


def test_the_nearest_centre_counts():
    centers, X = rows(3, 6), rows(10, 7)
    radii = np.full(4, 0.3)
    each = [TrustRegion(c[None], radii, MIXED.numeric).value(X) for c in centers]
    found = TrustRegion(centers, radii, MIXED.numeric).value(X)
    np.testing.assert_array_equal(found, np.max(each, axis=0))


def test_gradient_of_the_region_matches_finite_differences():
    region = TrustRegion(rows(3, 6), np.array([0.2, 1.0, 0.5, 1.0]), MIXED.numeric)
    assert_gradient_matches_finite_differences(region, rows(10, 7))


@pytest.mark.parametrize(
    "region",
    [
        TrustRegion(rows(3, 6), np.ones(4), np.zeros(0, dtype=np.intp)),
        TrustRegion(rows(0, 6), np.ones(4), MIXED.numeric),
    ],
    ids=["no column", "no center"],
)
def test_a_region_that_restrains_nothing_is_zero_with_zero_gradient(region):
    value, gradient = region.gradient(rows(5, 7))
    np.testing.assert_array_equal(value, 0.0)
    np.testing.assert_array_equal(gradient, 0.0)


# --- sums


def test_a_sum_adds_values_and_gradients():
    first = TrustRegion(rows(3, 6), np.full(4, 0.3), MIXED.numeric)
    second, X = Improvement(loss_model(), Beat((-0.5,))), rows(6, 1)
    total = Sum((first, second))
    np.testing.assert_array_equal(total.value(X), first.value(X) + second.value(X))
    assert_gradient_matches_finite_differences(total, X)


def test_an_empty_sum_is_zero():
    value, gradient = Sum(()).gradient(rows(3, 1))
    np.testing.assert_array_equal(value, np.zeros(3))
    np.testing.assert_array_equal(gradient, np.zeros((3, 4)))


class Broken:
    """A term with a numerical fault at row 2."""

    def value(self, X):
        return np.where(np.arange(len(X)) == 2, np.nan, 0.0)

    def gradient(self, X):
        return self.value(X), np.zeros(X.shape)


def test_nan_is_an_error_that_names_the_term_and_the_row():
    for ask in (Sum((Broken(),)).value, Sum((Broken(),)).gradient):
        with pytest.raises(FloatingPointError, match="Broken is NaN at candidate row 2"):
            ask(rows(4, 0))


def test_asking_twice_gives_the_same_bits():
    worlds = loss_model().fantasize(rows(2, 2), 4, np.random.default_rng(0))
    term, X = Improvement(worlds.predictor, Beat((-0.5,) * 4), worlds), rows(6, 1)
    np.testing.assert_array_equal(term.value(X), term.value(X))


@pytest.fixture(scope="module")
def proxies():
    """A fitted law of one decision over one scale, the target beyond it, and a cost of n^1."""
    kinds = (ColumnKind.DECISION, ColumnKind.SCALE)
    low, width = np.array([-9.0, 11.0]), np.array([6.0, 4.0])
    columns = Columns(kinds, ("lr", "N"), low, width, (0, 0))
    rng = np.random.default_rng(0)
    X = rng.random((24, 2))
    z, s = low[0] + width[0] * X[:, 0], low[1] + width[1] * X[:, 1]
    y = 1.5 + 60.0 * np.exp(-0.3 * s) + 0.02 * (z + 6.0 + 0.4 * (s - 13.0)) ** 2
    data = TrainingData(X, y + 0.002 * rng.standard_normal(24), columns)
    cost = CostModel().fit(TrainingData(X, s, columns))
    return ScalingModel().fit(data), cost, np.array([16.5])


def test_the_gain_of_a_run_is_what_it_takes_off_the_regret_at_the_target(proxies):
    belief, _, target = proxies
    gain = TargetGain(belief, target, None)
    X = np.random.default_rng(1).random((20, 2))
    # where the error of the fit is not below the one assumed in a design, both must agree
    told = [belief.condition(x[None], belief.posterior(x[None]).mean) for x in X]
    own = np.array([after.row_noise[-1] + belief.noise_variance for after in told])
    lost = np.array([gain.regret - TargetGain(after, target, None).regret for after in told])
    variance = belief.posterior(X).variance
    assumed = belief.error_variance(X, 0.5)
    expected = np.log(lost * (variance + own) / (variance + assumed))
    np.testing.assert_allclose(gain.value(X), expected, rtol=1e-4, atol=1e-6)


def test_a_run_of_the_same_gain_is_worth_less_the_dearer_it_is(proxies):
    belief, cost, target = proxies
    X = np.random.default_rng(2).random((9, 2))
    per_cost, plain = TargetGain(belief, target, cost), TargetGain(belief, target, None)
    np.testing.assert_allclose(plain.value(X) - per_cost.value(X), cost.posterior(X).mean)


def test_gradient_of_the_gain_matches_finite_differences(proxies):
    belief, cost, target = proxies
    gain, X = TargetGain(belief, target, cost), np.random.default_rng(3).random((5, 2))
    value, slope = gain.gradient(X)
    np.testing.assert_allclose(value, gain.value(X))
    for j in range(2):
        shift = 1e-4 * np.eye(2)[j]
        numeric = (gain.value(X + shift) - gain.value(X - shift)) / 2e-4
        np.testing.assert_allclose(slope[:, j], numeric, rtol=1e-3, atol=1e-3)
