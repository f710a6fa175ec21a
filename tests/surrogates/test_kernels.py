import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from surrogates.data import ColumnKind, Columns
from surrogates.kernels import MaternHamming, squared_distances

MIXED = Columns(
    (
        ColumnKind.DECISION,
        ColumnKind.CATEGORICAL,
        ColumnKind.SCALE,
        ColumnKind.ACTIVITY,
        ColumnKind.DECISION,
    ),
    tuple("acNge"),
    np.zeros(5),
    np.ones(5),
    (0, 3, 0, 2, 0),
)
THETA = np.log([1.7, 0.4, 1.1, 0.2, 0.3, 0.9])


def mixed_rows(n, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.random((n, 5))
    X[:, 1], X[:, 3] = rng.integers(0, 3, n), rng.integers(0, 2, n)
    return X


def kernel(theta=THETA):
    return MaternHamming.from_theta(MIXED, theta)


def by_the_book(A, B, theta=THETA):
    """The formula of the module, entry by entry."""
    s, l1, l2, l3, w1, w2 = np.exp(theta)
    K = np.empty((len(A), len(B)))
    for i, a in enumerate(A):
        for j, b in enumerate(B):
            r = np.sqrt(
                ((a[0] - b[0]) / l1) ** 2 + ((a[2] - b[2]) / l2) ** 2 + ((a[4] - b[4]) / l3) ** 2
            )
            matern = (1.0 + np.sqrt(5.0) * r + 5.0 / 3.0 * r**2) * np.exp(-np.sqrt(5.0) * r)
            hamming = np.exp(-w1 * (a[1] != b[1]) - w2 * (a[3] != b[3]))
            K[i, j] = s * matern * hamming
    return K


@st.composite
def mixed_problems(draw):
    """Columns of any kinds, hyperparameters over six decades and rows with duplicates."""
    kinds = draw(st.lists(st.sampled_from(ColumnKind), min_size=1, max_size=6))
    discrete = [kind in (ColumnKind.CATEGORICAL, ColumnKind.ACTIVITY) for kind in kinds]
    columns = Columns(
        tuple(kinds),
        tuple(str(i) for i in range(len(kinds))),
        np.zeros(len(kinds)),
        np.ones(len(kinds)),
        tuple(4 if is_code else 0 for is_code in discrete),
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    X = rng.random((draw(st.integers(1, 15)), len(kinds)))
    X[:, discrete] = rng.integers(0, 4, (len(X), sum(discrete)))
    X = X[rng.integers(0, len(X), len(X) + 3)]
    return columns, X, np.log(10.0) * rng.uniform(-3.0, 3.0, 1 + len(kinds))


def test_covariances_equal_the_formula():
    A, B = mixed_rows(9), mixed_rows(6, seed=1)
    np.testing.assert_allclose(kernel().cross(A, B), by_the_book(A, B), rtol=1e-12)


def test_two_rows_half_a_length_apart_have_the_matern_value():
    columns = Columns((ColumnKind.DECISION,), ("x",), np.zeros(1), np.ones(1), (0,))
    k = MaternHamming.from_theta(columns, np.array([0.0, np.log(2.0)]))
    # (1 + sqrt(5)/2 + 5/12) exp(-sqrt(5)/2)
    assert k.cross(np.zeros((1, 1)), np.ones((1, 1)))[0, 0] == pytest.approx(0.8286491424181255)


def test_squared_distances_equal_scipy_and_are_never_negative():
    rng = np.random.default_rng(0)
    A, B = 3.0 + rng.random((20, 4)), 3.0 + rng.random((15, 4))
    np.testing.assert_allclose(squared_distances(A, B), cdist(A, B, "sqeuclidean"), atol=1e-14)
    assert np.all(squared_distances(A, A) >= 0.0)
    assert squared_distances(A, A).diagonal().max() < 1e-14


def test_shapes_hold_without_rows_or_without_columns():
    rows, none = mixed_rows(3), mixed_rows(0)
    assert kernel().cross(rows, none).shape == (3, 0)
    assert kernel().cross(none, rows).shape == (0, 3)
    assert squared_distances(np.zeros((3, 0)), np.zeros((2, 0))).tolist() == [[0.0] * 2] * 3


def test_diagonal_equals_the_diagonal_of_the_gram_matrix():
    X = mixed_rows(10)
    np.testing.assert_allclose(kernel().diagonal(X), kernel().cross(X, X).diagonal(), rtol=1e-12)
    np.testing.assert_array_equal(kernel().diagonal_gradient(X), np.zeros(X.shape))


@given(mixed_problems())
def test_gram_matrices_are_positive_semidefinite(problem):
    columns, X, theta = problem
    K = MaternHamming.from_theta(columns, theta).cross(X, X)
    # The distances are rounded to about eps r^2 for the largest r = 1 / shortest length, and a
    # perturbation of the entries by that much moves eigenvalues by up to n times it.
    largest = 5.0 * len(columns.kinds) * np.exp(2.0 * np.max(-theta[1:], initial=0.0))
    rounding = np.finfo(float).eps * max(10.0, largest)
    assert np.linalg.eigvalsh(0.5 * (K + K.T)).min() >= -np.exp(theta[0]) * len(X) * rounding


@given(mixed_problems())
def test_covariance_is_symmetric_and_bounded_by_the_variance(problem):
    columns, X, theta = problem
    K = MaternHamming.from_theta(columns, theta).cross(X, X)
    np.testing.assert_allclose(K, K.T, rtol=1e-9, atol=1e-12 * np.exp(theta[0]))
    assert np.all(K >= 0.0)
    assert np.all(K <= np.exp(theta[0]) * (1.0 + 1e-12))


def test_conditional_columns_give_a_semidefinite_matrix_where_the_tempting_rule_does_not():
    """Many nearly independent active rows and one inactive row, inactive entries at 1/2."""
    columns = Columns(
        (ColumnKind.DECISION, ColumnKind.ACTIVITY), ("x", "g"), np.zeros(2), np.ones(2), (0, 2)
    )
    active = np.column_stack([np.linspace(0.0, 1.0, 12), np.ones(12)])
    X = np.vstack([active, [0.5, 0.0]])
    theta = np.array([0.0, np.log(0.01), np.log(-np.log(0.5))])  # rho = 1/2
    assert np.linalg.eigvalsh(MaternHamming.from_theta(columns, theta).cross(X, X)).min() > 0.0
    tempting = MaternHamming.from_theta(columns, theta).cross(X, X)
    tempting[-1, :-1] = tempting[:-1, -1] = 0.5
    assert np.linalg.eigvalsh(tempting).min() < -0.5


def test_rows_that_differ_only_in_an_activity_keep_the_factor_rho():
    X = mixed_rows(1)
    other = X.copy()
    other[0, 3] = 1.0 - X[0, 3]
    expected = np.exp(THETA[0] - np.exp(THETA[5]))
    np.testing.assert_allclose(kernel().cross(X, other), [[expected]], rtol=1e-13)


def test_gradient_in_the_rows_matches_finite_differences():
    A, B = mixed_rows(5), mixed_rows(7, seed=1)
    K, gradient = kernel().cross_gradient(A, B)
    np.testing.assert_allclose(K, kernel().cross(A, B), rtol=1e-13)
    for j in MIXED.numeric:
        step = 1e-6 * np.eye(5)[j]
        slope = (kernel().cross(A + step, B) - kernel().cross(A - step, B)) / 2e-6
        np.testing.assert_allclose(gradient[:, :, j], slope, atol=1e-8)
    np.testing.assert_array_equal(gradient[:, :, MIXED.categorical], 0.0)


def test_gradient_at_coinciding_rows_is_zero():
    X = mixed_rows(3)
    _, gradient = kernel().cross_gradient(X, X)
    np.testing.assert_array_equal(gradient[np.arange(3), np.arange(3)], 0.0)


def test_pullback_matches_finite_differences_in_every_hyperparameter():
    X = mixed_rows(12)
    A = np.random.default_rng(2).standard_normal((12, 12))
    sensitivity = A + A.T
    K, slope = kernel().gram(X)
    np.testing.assert_allclose(K, by_the_book(X, X), rtol=1e-12)
    found = kernel().pullback(X, K, slope, sensitivity)
    for i in range(len(THETA)):
        step = 1e-6 * np.eye(len(THETA))[i]
        up, down = by_the_book(X, X, THETA + step), by_the_book(X, X, THETA - step)
        expected = np.sum(sensitivity * (up - down)) / 2e-6
        assert found[i] == pytest.approx(expected, rel=1e-7, abs=1e-7)


@given(mixed_problems())
def test_pullback_of_the_sum_of_the_gram_matrix_scales_with_the_variance(problem):
    columns, X, theta = problem
    k = MaternHamming.from_theta(columns, theta)
    K, slope = k.gram(X)
    gradient = k.pullback(X, K, slope, np.ones(K.shape))
    assert gradient[0] == pytest.approx(K.sum(), rel=1e-12)  # dK / dln s = K
    assert np.all(gradient[1 : 1 + len(columns.numeric)] >= -1e-6 * K.sum())  # longer, closer
    assert np.all(gradient[1 + len(columns.numeric) :] <= 1e-12 * K.sum())  # heavier, farther


def test_a_matrix_too_large_for_one_block_has_the_values_of_its_rows():
    kernel = MaternHamming.from_theta(MIXED, THETA)
    X = mixed_rows(300)
    whole = kernel.cross(X, X)
    rows = np.concatenate([kernel.cross(X[i : i + 1], X) for i in range(len(X))])
    np.testing.assert_allclose(whole, rows, rtol=0, atol=1e-12)
