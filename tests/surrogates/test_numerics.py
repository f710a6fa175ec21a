import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg
from scipy.stats import multivariate_normal, norm, qmc

from surrogates.numerics import (
    NumericalError,
    bounded_exp,
    cholesky,
    kronecker,
    negative_log_density,
    normal_half_width,
    radical_inverse,
)


def spread_out(n, seed=0, condition=1e3):
    """A random symmetric positive definite matrix whose eigenvalues span `condition`."""
    rng = np.random.default_rng(seed)
    Q, _ = np.linalg.qr(rng.standard_normal((n, n)))
    return (Q * np.geomspace(1.0, condition, n)) @ Q.T


def grown(K, head):
    """The factor of `K` whose rows from `head` on are appended one by one."""
    factor = cholesky(K[:head, :head])
    for i in range(head, len(K)):
        factor = factor.append(K[i, :i], K[i, i])
    return factor


def test_factor_equals_scipy_cholesky():
    K = spread_out(30)
    factor = cholesky(K)
    assert factor.jitter == 0.0
    np.testing.assert_allclose(factor.head, linalg.cholesky(K, lower=True), rtol=1e-11, atol=1e-13)


@pytest.mark.parametrize("head", [0, 1, 7, 20])
def test_solves_and_determinant_equal_scipy_however_the_factor_was_grown(head):
    K = spread_out(20)
    factor, rng = grown(K, head), np.random.default_rng(1)
    root = linalg.cholesky(K, lower=True)
    for B in (rng.standard_normal(20), rng.standard_normal((20, 3))):
        half = linalg.solve_triangular(root, B, lower=True)
        np.testing.assert_allclose(factor.half_solve(B), half, rtol=1e-9, atol=1e-11)
        expected = linalg.solve(K, B, assume_a="pos")
        np.testing.assert_allclose(factor.solve(B), expected, rtol=1e-9, atol=1e-11)
    assert len(factor) == 20
    assert factor.log_determinant() == pytest.approx(np.linalg.slogdet(K)[1], rel=1e-12)
    expected = np.diagonal(np.linalg.inv(K))
    np.testing.assert_allclose(factor.inverse_diagonal(), expected, rtol=1e-9)


@pytest.mark.parametrize("head", [0, 1, 7, 13, 20])
@pytest.mark.parametrize("count", [0, 1, 6, 7, 13, 20, 25])
def test_the_last_rows_of_the_inverse_are_those_of_scipy(head, count):
    K = spread_out(20)
    factor = grown(K, head)
    inverse = linalg.inv(K)
    last = slice(max(20 - count, 0), 20)
    found = factor.inverse_of_last(count)
    np.testing.assert_allclose(found, inverse[last, last], rtol=1e-9, atol=1e-12)
    diagonal = factor.inverse_diagonal_of_last(count)
    np.testing.assert_allclose(diagonal, np.diagonal(inverse)[last], rtol=1e-9)


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.data())
def test_any_head_gives_the_solution_of_the_whole(n, seed, data):
    K = spread_out(n, seed)
    b = np.random.default_rng(seed).standard_normal(n)
    factor = grown(K, data.draw(st.integers(0, n)))
    np.testing.assert_allclose(K @ factor.solve(b), b, atol=1e-9)


def test_appending_leaves_the_older_factor_as_it_was():
    K = spread_out(6)
    older = grown(K[:5, :5], 4)
    before = older.head.copy(), older.cross.copy(), older.tail.copy()
    older.append(K[5, :5], K[5, 5])
    for now, then in zip((older.head, older.cross, older.tail), before, strict=True):
        np.testing.assert_array_equal(now, then)


def test_the_matrix_itself_is_not_changed():
    for order in ("C", "F"):
        K = np.array(spread_out(5), order=order)
        before = K.copy()
        cholesky(K)
        np.testing.assert_array_equal(K, before)


@pytest.mark.parametrize("condition", [1e2, 1e6, 1e10])
def test_condition_estimate_is_within_a_factor_ten_of_the_truth(condition):
    # the estimate is a lower bound of the 1-norm condition, seldom off by more than three
    for seed in range(5):
        K = spread_out(25, seed, condition)
        truth = np.linalg.cond(K, 1)
        estimate = cholesky(K).condition
        assert truth / 10.0 <= estimate <= truth * 1.01


def test_condition_of_the_identity_is_one():
    assert cholesky(3.0 * np.eye(4)).condition == pytest.approx(1.0)


def test_jitter_starts_at_a_ten_billionth_of_the_mean_variance():
    K = 7.0 * np.ones((5, 5))  # five identical rows without noise
    factor = cholesky(K)
    assert factor.jitter == pytest.approx(7.0 * 1e-10)
    rebuilt = factor.head @ factor.head.T
    np.testing.assert_allclose(rebuilt, K + factor.jitter * np.eye(5), rtol=1e-14)


def test_jitter_climbs_as_far_as_a_negative_eigenvalue_demands():
    K = np.eye(3)
    K[0, 1] = K[1, 0] = 1.0 + 3e-7
    factor = cholesky(K)
    assert factor.jitter == pytest.approx(1e-6)
    assert np.all(np.isfinite(factor.solve(np.ones(3))))


def test_an_ill_conditioned_matrix_gets_jitter_although_it_can_be_factorized():
    K = np.diag(np.geomspace(1.0, 1e-15, 6))
    linalg.cholesky(K)  # no error
    factor = cholesky(K)
    assert factor.jitter > 0.0
    assert factor.condition <= 1e13


@pytest.mark.parametrize(
    "K",
    [
        np.array([[1.0, 2.0], [2.0, 1.0]]),
        -np.eye(3),
        np.zeros((2, 2)),
    ],
    ids=["indefinite", "negative", "zero"],
)
def test_a_matrix_beyond_any_jitter_is_a_numerical_error(K):
    with pytest.raises(NumericalError, match="not positive definite at any jitter"):
        cholesky(K)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_matrix_that_is_not_finite_is_a_numerical_error(bad):
    K = np.eye(3)
    K[1, 2] = bad
    with pytest.raises(NumericalError, match="not finite"):
        cholesky(K)


def test_appending_a_duplicate_row_without_noise_keeps_the_factor_usable():
    factor = cholesky(np.eye(2))
    for _ in range(3):
        k = np.concatenate([[1.0, 0.0], np.ones(len(factor) - 2)])
        factor = factor.append(k, 1.0)
    # the pivot is raised to the first jitter, so the last diagonal entry is its root
    assert factor.tail[-1, -1] == pytest.approx(np.sqrt(1e-10), rel=1e-3)
    assert np.all(np.isfinite(factor.solve(np.ones(5))))


def test_an_empty_matrix_can_be_factorized_and_grown():
    factor = cholesky(np.zeros((0, 0)))
    assert len(factor) == 0
    assert factor.log_determinant() == 0.0
    assert factor.solve(np.zeros(0)).shape == (0,)
    grown = factor.append(np.zeros(0), 4.0)
    np.testing.assert_allclose(grown.solve(np.array([2.0])), [0.5])


@pytest.mark.parametrize("order", ["C", "F"])
def test_negative_log_density_equals_scipy(order):
    K, y = spread_out(12), np.random.default_rng(2).standard_normal(12)
    value, _ = negative_log_density(np.array(K, order=order), y)
    expected = -multivariate_normal(np.zeros(12), K).logpdf(y)
    assert value + 0.5 * 12 * np.log(2.0 * np.pi) == pytest.approx(expected, rel=1e-11)


def test_derivative_of_the_negative_log_density_matches_finite_differences():
    K, y = spread_out(6, condition=30.0), np.random.default_rng(3).standard_normal(6)
    _, slope = negative_log_density(K.copy(order="F"), y)
    np.testing.assert_allclose(slope, slope.T, rtol=1e-12)
    for seed in range(5):
        A = np.random.default_rng(seed).standard_normal((6, 6))
        D, h = A + A.T, 1e-5
        up, _ = negative_log_density((K + h * D).copy(order="F"), y)
        down, _ = negative_log_density((K - h * D).copy(order="F"), y)
        assert np.sum(slope * D) == pytest.approx((up - down) / (2.0 * h), rel=1e-7)


def test_density_of_an_indefinite_matrix_is_a_numerical_error():
    with pytest.raises(NumericalError, match="not positive definite"):
        negative_log_density(np.array([[1.0, 2.0], [2.0, 1.0]]), np.zeros(2))


# --- scalars


def test_a_bounded_exponential_is_exp_inside_and_finite_and_positive_outside():
    for x in (-700.0, -3.2, 0.0, 5.5, 700.0):
        assert bounded_exp(x) == math.exp(x)
    assert bounded_exp(1e300) == math.exp(700.0)
    assert bounded_exp(-1e300) == math.exp(-700.0) > 0.0


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_the_half_width_is_the_normal_quantile_of_a_central_interval(coverage):
    mass = norm.cdf(normal_half_width(coverage)) - norm.cdf(-normal_half_width(coverage))
    assert mass == pytest.approx(coverage, abs=1e-15)
    assert normal_half_width(0.9) == 1.6448536269514722


@pytest.mark.parametrize("base", [2, 3, 5])
def test_radical_inverses_mirror_the_digits_of_the_index(base):
    assert radical_inverse(0, base) == 0.0
    assert radical_inverse(1, base) == 1.0 / base
    # every full period covers each of its cells once
    cells = sorted(round(radical_inverse(i, base) * base**3) for i in range(base**3))
    assert cells == list(range(base**3))


def test_radical_inverses_are_the_halton_sequence_of_scipy():
    theirs = qmc.Halton(3, scramble=False).random(50)
    ours = [[radical_inverse(i, base) for base in (2, 3, 5)] for i in range(50)]
    np.testing.assert_allclose(ours, theirs, atol=1e-15)


def test_a_kronecker_sequence_covers_every_share_evenly():
    golden = 0.5 * (np.sqrt(5.0) - 1.0)
    points = [kronecker(i, golden) for i in range(100)]
    for share in (0.1, 0.5, 0.9):
        assert np.mean(np.array(points) < share) == pytest.approx(share, abs=0.02)
