import numpy as np
import pytest

from surrogates.base import JointPosterior
from surrogates.data import ColumnKind, Columns, TrainingData

MIXED = Columns(
    (
        ColumnKind.DECISION,
        ColumnKind.CATEGORICAL,
        ColumnKind.SCALE,
        ColumnKind.ACTIVITY,
        ColumnKind.FIDELITY,
    ),
    ("lr", "optimizer", "params", "adamw", "epochs"),
    np.array([0.0, 0.0, 11.5, 0.0, 0.0]),
    np.array([1.0, 1.0, 4.6, 1.0, 4.4]),
    (0, 3, 0, 2, 0),
)


def test_columns_are_found_by_kind():
    assert MIXED.numeric.tolist() == [0, 2, 4]
    assert MIXED.categorical.tolist() == [1, 3]
    assert MIXED.decision.tolist() == [0]
    assert MIXED.scale.tolist() == [2]
    assert MIXED.fidelity.tolist() == [4]


def test_no_column_of_a_kind_gives_an_empty_index():
    columns = Columns((ColumnKind.CATEGORICAL,), ("c",), np.zeros(1), np.ones(1), (2,))
    assert columns.numeric.shape == (0,)
    assert np.zeros((5, 1))[:, columns.numeric].shape == (5, 0)


def test_columns_of_unequal_lengths_are_refused():
    with pytest.raises(ValueError, match="one entry per column: 1 kinds"):
        Columns((ColumnKind.DECISION,), ("a", "b"), np.zeros(1), np.ones(1), (0,))


@pytest.mark.parametrize("width", [0.0, -1.0, np.nan, np.inf])
def test_a_width_that_is_not_positive_and_finite_is_refused(width):
    with pytest.raises(ValueError, match="width"):
        Columns((ColumnKind.DECISION,), ("a",), np.zeros(1), np.array([width]), (0,))


@pytest.mark.parametrize("shape", [(3,), (3, 4), (3, 6)])
def test_rows_of_another_width_are_refused(shape):
    with pytest.raises(ValueError, match="X must be n x 5"):
        TrainingData(np.zeros(shape), np.zeros(3), MIXED)


def test_targets_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"y must be \(3,\), got \(2,\)"):
        TrainingData(np.zeros((3, 5)), np.zeros(2), MIXED)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_the_first_row_that_is_not_finite_is_named(bad):
    X, y = np.zeros((4, 5)), np.zeros(4)
    X[2, 3] = bad
    with pytest.raises(ValueError, match="X must be finite, row 2"):
        TrainingData(X, y, MIXED)
    y[1] = bad
    with pytest.raises(ValueError, match="y must be finite, row 1"):
        TrainingData(np.zeros((4, 5)), y, MIXED)


def test_no_rows_are_data_too():
    assert len(TrainingData(np.zeros((0, 5)), np.zeros(0), MIXED)) == 0


def test_one_hot_codes_have_one_column_per_code():
    X = np.array([[0.3, 2.0, 0.5, 0.0, 0.0], [0.1, 0.0, 0.5, 1.0, 0.0]])
    np.testing.assert_array_equal(MIXED.one_hot(X), [[0, 0, 1, 1, 0], [1, 0, 0, 0, 1]])
    plain = Columns((ColumnKind.DECISION,), ("a",), np.zeros(1), np.ones(1), (0,))
    assert plain.one_hot(X[:, :1]).shape == (2, 0)


def test_samples_of_a_joint_posterior_have_its_mean_and_covariance():
    root = np.array([[1.0, 0.0, 0.0], [0.8, 0.5, 0.0], [-0.3, 0.2, 0.1]])
    joint = JointPosterior(np.array([1.0, -2.0, 0.5]), root @ root.T)
    count = 40_000
    draws = joint.sample(count, np.random.default_rng(0))
    # four standard errors: sd / sqrt(S) of a mean, about sqrt(2) sd^2 / sqrt(S) of a covariance
    variance = np.diagonal(joint.covariance)
    assert np.all(np.abs(draws.mean(axis=0) - joint.mean) < 4.0 * np.sqrt(variance / count))
    widest = np.sqrt(2.0 * np.outer(variance, variance) / count)
    assert np.all(np.abs(np.cov(draws.T) - joint.covariance) < 4.0 * widest)


def test_a_singular_covariance_gives_identical_draws_for_identical_rows():
    joint = JointPosterior(np.zeros(2), np.ones((2, 2)))
    draws = joint.sample(100, np.random.default_rng(0))
    np.testing.assert_allclose(draws[:, 0], draws[:, 1], atol=1e-7)  # root of the rounding


def test_samples_depend_on_the_generator_alone():
    joint = JointPosterior(np.zeros(3), np.eye(3))
    first, again = (joint.sample(5, np.random.default_rng(7)) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, joint.sample(5, np.random.default_rng(8)))
