"""Errors of single runs: what a wrong decimal may do, and how far a run must be to count less."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surrogates.basis_gp import ResidualCovariance
from surrogates.data import Columns, TrainingData
from surrogates.scaling_law.errors import (
    RunErrors,
    degrees_of_freedom,
    discrepancy_factors,
    factors_at,
    outlier_factors,
)
from surrogates.scaling_law.model import FittedParameters, ScalingModel
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout
from surrogates.scaling_law.prior import LossUnits
from tests.surrogates.scaling_law.families import LLM, Family, random_loss

UNITS = LossUnits(3.0, 0.5)


def parameters(theta):
    return FittedParameters.from_vector(theta, ThetaLayout.of(LLM, 28), 0)


def law_in_sd(predictor, other):
    """How far the law of `other` is from that of `predictor`, in its standard errors."""
    before, after = predictor.law(), other.law()
    pairs = [*zip(before.exponent, after.exponent, strict=True)]
    pairs += [*zip(before.optimum, after.optimum, strict=True)]
    for row, again in zip(before.drift, after.drift, strict=True):
        pairs += [*zip(row, again, strict=True)]
    return np.array([abs(a.mean - b.mean) / a.sd for a, b in pairs])


# --- outliers


@pytest.mark.parametrize("factor", [0.1, 10.0, 1000.0])
@pytest.mark.parametrize("row", [3, 11])
def test_a_wrong_decimal_moves_the_law_by_next_to_nothing(row, factor):
    data = Family(0).runs(60)
    wrong = data.y.copy()
    wrong[row] *= factor
    clean = ScalingModel().fit(data)
    found = ScalingModel().fit(TrainingData(data.X, wrong, LLM))
    without = ScalingModel().fit(
        TrainingData(np.delete(data.X, row, axis=0), np.delete(data.y, row), LLM)
    )
    # no more than leaving the run out does, and a bit
    assert np.all(law_in_sd(clean, found) < law_in_sd(clean, without).max() + 0.6)
    assert found.row_noise[row] > 1e3 * np.median(found.row_noise)
    target = Family(0).best
    sd = np.sqrt(clean.posterior(target).variance[0])
    assert abs(found.posterior(target).mean[0] - clean.posterior(target).mean[0]) < 0.6 * sd


def test_five_gross_outliers_of_245_leave_the_exponents():
    data = Family(1).runs(245)
    wrong, rows = data.y.copy(), np.random.default_rng(0).choice(245, 5, replace=False)
    wrong[rows] = [0.0, 30.0, 8.0, 0.3, 1e6]
    clean = ScalingModel().fit(data)
    found = ScalingModel().fit(TrainingData(data.X, wrong, LLM))
    for a, b in zip(clean.law().exponent, found.law().exponent, strict=True):
        assert abs(a.mean - b.mean) < 0.5 * a.sd
    assert np.all(law_in_sd(clean, found) < 1.0)
    own = found.row_noise + found.noise_variance
    assert own[rows].min() > 10.0 * np.quantile(np.delete(own, rows), 0.95)


@given(z=st.floats(-1e6, 1e6), df=st.floats(1.0, 40.0))
def test_an_error_further_out_than_expected_has_a_larger_variance(z, df):
    (found,) = outlier_factors(np.array([z]), df)
    assert found == pytest.approx(max(1.0, (df + z**2) / (df + 1.0)))
    assert found == outlier_factors(np.array([-z]), df)[0]
    # its pull z / found never exceeds the largest of a t variable
    assert abs(z) / found <= (df + 1.0) / (2.0 * np.sqrt(df)) + 1e-9


# --- degrees of freedom


def test_degrees_of_freedom_are_many_for_normal_errors_and_few_for_heavy_tails():
    rng = np.random.default_rng(1)
    normal = [degrees_of_freedom(rng.standard_normal(400)) for _ in range(10)]
    heavy = [degrees_of_freedom(rng.standard_t(2, 400)) for _ in range(10)]
    assert np.median(normal) >= 9.0 and min(normal) >= 6.0 and max(heavy) <= 3.0


def test_few_errors_leave_the_degrees_of_freedom_at_their_prior():
    assert degrees_of_freedom(np.zeros(0)) == 4.0
    assert 3.0 <= degrees_of_freedom(np.array([-0.7, 0.1, 1.1])) <= 6.0


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_the_scale_of_the_errors_is_fitted_with_their_degrees_of_freedom(scale):
    z = np.random.default_rng(2).standard_t(3, 300)
    assert degrees_of_freedom(scale * z) == degrees_of_freedom(z)


# --- the scale of each run


def errors_of(df=4.0, noise=1e-4, discrepancy=0.04):
    return RunErrors((), ResidualCovariance((), noise, discrepancy), UNITS, df)


def test_the_variance_of_a_run_is_its_scale_squared_times_the_outlier_factor():
    loss, rng = random_loss(LLM), np.random.default_rng(3)
    X = rng.random((20, 4))
    y = loss.value(X) + rng.choice([0.01, 0.5, 20.0], 20)
    errors = errors_of()
    s = errors.scale(loss, X, y)
    z = (y - loss.value(X)) / s
    assert (np.abs(z) > 1.0).any() and (np.abs(z) < 1.0).any()
    total = errors.residual.noise_variance + errors.beyond_noise(loss, X, y)
    np.testing.assert_allclose(total, s**2 * outlier_factors(z, errors.df), rtol=1e-12)
    inflation = errors.inflation(loss, X, y)
    np.testing.assert_array_equal(inflation == 1.0, np.abs(z) <= 1.0)


def test_the_residual_processes_excuse_what_they_can_explain():
    class Constant:
        def diagonal(self, X):
            return np.full(len(X), 0.25)

    loss, X = random_loss(LLM), np.random.default_rng(4).random((5, 4))
    y = loss.value(X) + 0.4
    plain = errors_of(discrepancy=1e-9)
    wider = replace(plain, kernels=(Constant(),))
    np.testing.assert_allclose(
        wider.scale(loss, X, y) ** 2, plain.scale(loss, X, y) ** 2 + 0.25, rtol=1e-9
    )
    assert np.all(wider.inflation(loss, X, y) == 1.0)
    assert np.all(plain.inflation(loss, X, y) > 1.0)


def test_error_variance_grows_with_the_distance_from_the_optimum():
    data = Family(0).runs(40)
    predictor = ScalingModel().fit(data)
    loss, units, errors = predictor.loss, predictor.units, predictor.errors
    far = discrepancy_factors(loss, data.X, predictor.y, units)
    expected = errors.residual.discrepancy_variance * far
    usual = errors.inflation(loss, data.X, predictor.y) == 1.0
    assert usual.mean() > 0.5
    np.testing.assert_allclose(predictor.row_noise[usual], expected[usual])
    assert np.all(predictor.row_noise[~usual] > expected[~usual])
    assert errors.residual.discrepancy_variance > 0.0
    # near the optimum the error's standard deviation is proportional to the distance, far from it
    # to the square of the distance
    floor = loss.floor(data.X[:2])
    best = data.X[:2].copy()
    layout = loss.layout
    best[:, layout.decisions] = loss.optimum_at(layout.scales(best))
    steps = np.array([1.0, 2.0]) * units.spread
    near = discrepancy_factors(loss, best, floor + 1e-3 * steps, units)
    away = discrepancy_factors(loss, best, floor + 1e3 * steps, units)
    assert near[1] / near[0] == pytest.approx(4.0, rel=1e-4)
    assert away[1] / away[0] == pytest.approx(16.0, rel=1e-4)


def test_the_variance_expected_of_a_run_is_that_of_a_run_on_the_law():
    predictor = ScalingModel().fit(Family(0).runs(40))
    X = np.random.default_rng(5).random((6, 4))
    on_the_law = predictor.errors.beyond_noise(predictor.loss, X, predictor.loss.value(X))
    np.testing.assert_allclose(
        predictor.error_variance(X), predictor.noise_variance + on_the_law, rtol=1e-9
    )
    assert np.all(predictor.error_variance(X, discrepancy=10.0) > predictor.error_variance(X))


def test_without_a_decision_no_run_can_be_far_from_the_best():
    columns = Columns.of_decisions()
    layout = ThetaLayout.of(columns, 0)
    loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
    assert factors_at(loss, np.array([0.0, 5.0]), UNITS).tolist() == [0.0, 0.0]


# --- what a fit learns of them


def test_a_fit_learns_heavy_tails_from_runs_that_have_them():
    family = Family(3)
    data = family.runs(150)
    rng = np.random.default_rng(6)
    heavy = data.y + 0.05 * rng.standard_t(1.5, 150)
    many = parameters(ScalingModel().learn(data)).df
    few = parameters(ScalingModel().learn(TrainingData(data.X, heavy, LLM))).df
    assert few <= 3.0 and few <= many
