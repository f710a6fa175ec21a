from dataclasses import dataclass

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from surrogates.basis_gp import (
    BasisKernel,
    NoisePrior,
    ProcessPrior,
    ResidualCovariance,
    _negative_log_likelihood,
    fit_residual,
)
from surrogates.data import ColumnKind, Columns
from surrogates.gp import GPPredictor, NormalPrior
from surrogates.kernels import MaternHamming

COLUMNS = Columns(
    (ColumnKind.DECISION, ColumnKind.CATEGORICAL, ColumnKind.SCALE, ColumnKind.ACTIVITY),
    tuple("acNg"),
    np.zeros(4),
    np.ones(4),
    (0, 3, 0, 2),
)
NUMERIC, CODES = COLUMNS.numeric, COLUMNS.categorical
NONE = np.zeros(0, dtype=np.intp)


@dataclass(frozen=True)
class Quadratic:
    """Features 2, x_0, x_0 x_2 and x_2^2 / 2."""

    def value(self, X):
        a, b = X[:, 0], X[:, 2]
        return np.column_stack([np.full(len(X), 2.0), a, a * b, 0.5 * b**2])

    def gradient(self, X):
        a, b = X[:, 0], X[:, 2]
        gradient = np.zeros((len(X), 4, X.shape[1]))
        gradient[:, 1, 0], gradient[:, 2, 0] = 1.0, b
        gradient[:, 2, 2], gradient[:, 3, 2] = a, b
        return gradient


def rows(n, seed):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 4))
    X[:, 1], X[:, 3] = rng.integers(0, 3, n), rng.integers(0, 2, n)
    return X


def two_parts(X):
    """A mixed process over everything and a small one over the scale column alone."""
    mixed = ProcessPrior(
        X,
        NUMERIC,
        CODES,
        NormalPrior(-1.0, 1.0),
        (NormalPrior(-0.5, 0.7),) * 2,
        NormalPrior(-0.3, 1.0),
    )
    scale = ProcessPrior(
        X,
        np.array([2]),
        NONE,
        NormalPrior(-3.0, 1.0),
        (NormalPrior(0.5, 0.5),),
        NormalPrior(0.0, 1.0),
    )
    return mixed, scale


def priors(parts, errors):
    entries = [entry for part in parts for entry in part.prior] + [errors.discrepancy, errors.noise]
    return np.array([e.mean for e in entries]), np.array([e.sd for e in entries])


def problem(n=20, seed=0):
    X = rows(n, seed)
    rng = np.random.default_rng(seed + 1)
    errors = NoisePrior(NormalPrior(-5.0, 1.5), NormalPrior(-4.0, 1.0), rng.random(n))
    basis = Quadratic()
    phi = basis.value(X)
    y = phi @ rng.standard_normal(4) + 0.3 * np.sin(8.0 * X[:, 0]) + 0.1 * X[:, 1]
    return X, y + 0.1 * rng.standard_normal(n), two_parts(X), errors, phi @ phi.T


def kernel_of(X):
    theta = np.log([0.5, 0.6, 0.9, 0.7, 0.4, 0.05, 1.5])
    parts = two_parts(X)
    return BasisKernel((parts[0].kernel(theta[:5]), parts[1].kernel(theta[5:])), Quadratic())


# --- the kernel


def test_covariance_is_the_sum_of_the_parts_and_of_the_features():
    A, B = rows(5, 0), rows(7, 1)
    kernel = kernel_of(A)
    expected = Quadratic().value(A) @ Quadratic().value(B).T
    expected += sum(part.cross(A, B) for part in kernel.parts)
    np.testing.assert_allclose(kernel.cross(A, B), expected, rtol=1e-13)
    np.testing.assert_allclose(kernel.diagonal(A), np.diagonal(kernel.cross(A, A)), rtol=1e-12)


def test_kernel_gradients_match_finite_differences():
    A, B = rows(5, 0), rows(6, 1)
    kernel = kernel_of(A)
    K, gradient = kernel.cross_gradient(A, B)
    np.testing.assert_allclose(K, kernel.cross(A, B), rtol=1e-13)
    own = kernel.diagonal_gradient(A)
    for j in NUMERIC:
        step = 1e-6 * np.eye(4)[j]
        slope = (kernel.cross(A + step, B) - kernel.cross(A - step, B)) / 2e-6
        np.testing.assert_allclose(gradient[:, :, j], slope, atol=1e-8)
        slope = (kernel.diagonal(A + step) - kernel.diagonal(A - step)) / 2e-6
        np.testing.assert_allclose(own[:, j], slope, atol=1e-8)
    np.testing.assert_array_equal(gradient[:, :, CODES], 0.0)
    np.testing.assert_array_equal(own[:, CODES], 0.0)


def test_features_alone_give_bayesian_linear_regression():
    X, y, at = rows(15, 0), np.random.default_rng(1).standard_normal(15), rows(6, 2)
    basis, v = Quadratic(), 0.05
    predictor = GPPredictor.build(BasisKernel((), basis), X, y, v)
    phi, phi_at = basis.value(X), basis.value(at)
    covariance = np.linalg.inv(np.eye(4) + phi.T @ phi / v)
    found = predictor.joint_posterior(at)
    np.testing.assert_allclose(found.mean, phi_at @ covariance @ phi.T @ y / v, rtol=1e-7)
    np.testing.assert_allclose(found.covariance, phi_at @ covariance @ phi_at.T, atol=1e-9)


def test_posterior_gradient_matches_finite_differences():
    X, y, at = rows(15, 0), np.random.default_rng(1).standard_normal(15), rows(6, 2)
    predictor = GPPredictor.build(kernel_of(X), X, y, 0.05)
    found = predictor.posterior_gradient(at)
    for j in NUMERIC:
        step = 1e-5 * np.eye(4)[j]
        up, down = predictor.posterior(at + step), predictor.posterior(at - step)
        np.testing.assert_allclose(found.d_mean[:, j], (up.mean - down.mean) / 2e-5, atol=1e-7)
        slope = (up.variance - down.variance) / 2e-5
        np.testing.assert_allclose(found.d_variance[:, j], slope, atol=1e-7)


# --- its hyperparameters


def test_theta_is_read_part_by_part_then_growth_then_noise():
    X = rows(3, 0)
    parts = two_parts(X)
    theta = np.arange(9.0) / 10.0
    read = ResidualCovariance.from_theta(parts, theta)
    assert parts[0].size + parts[1].size + 2 == len(theta)
    assert [k.log_variance for k in read.kernels] == [0.0, 0.5]
    np.testing.assert_array_equal(read.kernels[0].log_lengths, [0.1, 0.2])
    np.testing.assert_array_equal(read.kernels[0].log_weights, [0.3, 0.4])
    np.testing.assert_array_equal(read.kernels[1].log_lengths, [0.6])
    assert read.discrepancy_variance == pytest.approx(np.exp(0.7))
    assert read.noise_variance == pytest.approx(np.exp(0.8))


def test_likelihood_is_the_density_of_the_summed_covariance():
    X, y, parts, errors, known = problem()
    theta, _ = priors(parts, errors)
    value, _ = _negative_log_likelihood(theta, y, known, parts, errors)
    read = ResidualCovariance.from_theta(parts, theta)
    K = known + sum(kernel.cross(X, X) for kernel in read.kernels)
    K += np.diag(read.noise_variance + read.discrepancy_variance * errors.factors)
    expected = -multivariate_normal(np.zeros(20), K).logpdf(y) - 10.0 * np.log(2.0 * np.pi)
    assert value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_gradient_of_the_likelihood_matches_finite_differences(seed):
    _, y, parts, errors, known = problem(seed=seed)
    mean, sd = priors(parts, errors)
    theta = mean + 0.5 * sd * np.random.default_rng(seed).standard_normal(len(mean))

    def value(theta):
        return _negative_log_likelihood(theta, y, known, parts, errors)[0]

    _, gradient = _negative_log_likelihood(theta, y, known, parts, errors)
    for i in range(len(theta)):
        step = 1e-5 * np.eye(len(theta))[i]
        slope = (value(theta + step) - value(theta - step)) / 2e-5
        assert gradient[i] == pytest.approx(slope, rel=1e-6, abs=1e-6)


def test_likelihood_steps_back_where_the_covariance_cannot_be_factorized():
    _, y, parts, errors, known = problem()
    theta, _ = priors(parts, errors)
    value, gradient = _negative_log_likelihood(theta, y, known - 1e3, parts, errors)
    assert value > 1e20
    np.testing.assert_array_equal(gradient, 0.0)


def test_the_fit_ends_where_the_gradient_of_the_posterior_vanishes():
    _, y, parts, errors, known = problem()
    theta = fit_residual(y, known, parts, errors, max_iterations=200)
    mean, sd = priors(parts, errors)
    _, slope = _negative_log_likelihood(theta, y, known, parts, errors)
    assert np.max(np.abs(slope + (theta - mean) / sd**2)) < 0.02  # ftol 1e-6 stops it first


def test_without_rows_the_fit_is_the_prior_mean():
    X = rows(0, 0)
    parts, errors = (
        two_parts(X),
        NoisePrior(NormalPrior(-5.0, 1.5), NormalPrior(-4.0, 1.0), np.zeros(0)),
    )
    theta = fit_residual(np.zeros(0), np.zeros((0, 0)), parts, errors)
    np.testing.assert_array_equal(theta, priors(parts, errors)[0])


def test_a_warm_start_of_another_length_is_ignored():
    _, y, parts, errors, known = problem()
    cold = fit_residual(y, known, parts, errors)
    np.testing.assert_array_equal(fit_residual(y, known, parts, errors, warm=np.zeros(3)), cold)


def test_growing_errors_are_distinguished_from_constant_ones():
    n = 300
    X, rng = rows(n, 0), np.random.default_rng(1)
    factors = rng.exponential(1.0, n)
    y = np.sqrt(0.02 + 0.3 * factors) * rng.standard_normal(n)
    tiny = ProcessPrior(
        X,
        NUMERIC,
        NONE,
        NormalPrior(-12.0, 0.3),
        (NormalPrior(0.0, 0.3),) * 2,
        NormalPrior(0.0, 1.0),
    )
    errors = NoisePrior(NormalPrior(-3.0, 2.0), NormalPrior(-3.0, 2.0), factors)
    read = ResidualCovariance.from_theta(
        (tiny,), fit_residual(y, np.zeros((n, n)), (tiny,), errors)
    )
    # a variance learned from n squares has a relative sd of about sqrt(2 / n) = 0.08
    assert read.discrepancy_variance == pytest.approx(0.3, rel=0.33)
    assert read.noise_variance < 0.06


def test_one_part_without_features_is_the_plain_gaussian_process():
    X, y = rows(20, 0), np.random.default_rng(1).standard_normal(20)
    part = two_parts(X)[0]
    theta = np.array([0.2, -0.4, 0.1, -0.6, 0.3, -40.0, -3.0])
    errors = NoisePrior(NormalPrior(0.0, 1.0), NormalPrior(0.0, 1.0), np.zeros(20))
    value, _ = _negative_log_likelihood(theta, y, np.zeros((20, 20)), (part,), errors)
    K = MaternHamming.from_theta(COLUMNS, theta[:5]).cross(X, X) + np.exp(-3.0) * np.eye(20)
    expected = -multivariate_normal(np.zeros(20), K).logpdf(y) - 10.0 * np.log(2.0 * np.pi)
    assert value == pytest.approx(expected, rel=1e-10)
