"""The contract of a surrogate as test classes; a surrogate inherits those it supports.

`SurrogateContract` holds for every surrogate. The others are promises that a surrogate may or may
not make: a class that inherits one declares that it makes it.

    JointContract      joint posteriors whose diagonal is the marginal posterior
    ConditionContract  conditioning on further rows, as a new predictor
    RefitContract      conditioning equals a rebuild from all rows under the same hyperparameters
    GradientContract   derivatives in the numeric columns
    OrderContract      invariance under permutation of the training rows
    UnitsContract      equivariance under changes of the unit of the targets

Subclasses fill in the hooks: `learn`, `predictor` and, where a model is not asked by `posterior`,
`posterior` and `posterior_gradient`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from surrogates.base import Posterior, PosteriorGradient
from surrogates.data import Array, ColumnKind, Columns, TrainingData

EPS = np.finfo(float).eps
MIXED = Columns(
    (
        ColumnKind.DECISION,
        ColumnKind.CATEGORICAL,
        ColumnKind.SCALE,
        ColumnKind.DECISION,
        ColumnKind.ACTIVITY,
    ),
    ("lr", "optimizer", "params", "decay", "adamw"),
    np.array([-9.0, 0.0, 12.0, 0.0, 0.0]),
    np.array([7.0, 1.0, 5.0, 1.0, 1.0]),
    (0, 3, 0, 0, 2),
)


class SurrogateContract:
    """What every surrogate promises: finite posteriors of each row on its own, without surprises.

    Attributes:
        columns: roles of the columns of the data.
        size: number of training rows of the tests that fix none.
    """

    columns = MIXED
    size = 24

    # --- hooks

    def learn(self, data: TrainingData) -> Any:
        """Return hyperparameters; whatever `predictor` takes beside data."""
        raise NotImplementedError

    def predictor(self, data: TrainingData, theta: Any) -> Any:
        """Return the predictor of `data` under `theta`."""
        raise NotImplementedError

    def posterior(self, predictor: Any, X: Array) -> Posterior:
        """Return what the predictor says at the rows of `X`."""
        return predictor.posterior(X)

    def targets(self, X: Array, rng: np.random.Generator) -> Array:
        """Return targets of training rows: smooth in the numeric columns, with a little noise."""
        numeric = X[:, self.columns.numeric]
        codes = X[:, self.columns.categorical].sum(axis=1)
        y = np.sin(3.0 * numeric[:, 0]) + ((numeric - 0.4) ** 2).sum(axis=1) + 0.3 * codes
        return y + 0.05 * rng.standard_normal(len(X))

    def rounding(self, predictor: Any) -> float:
        """Relative error that solving with the covariance of the training rows may leave."""
        factor = getattr(predictor, "factor", None)
        return 1e-9 if factor is None else max(1e-12, 10.0 * EPS * factor.condition)

    # --- what the tests use

    def rows(self, n: int, seed: int) -> Array:
        rng = np.random.default_rng(seed)
        X = rng.random((n, len(self.columns.kinds)))
        for column in self.columns.categorical:
            X[:, column] = rng.integers(0, self.columns.categories[column], n)
        return X

    def data(self, n: int | None = None, seed: int = 0) -> TrainingData:
        X = self.rows(self.size if n is None else n, seed)
        return TrainingData(X, self.targets(X, np.random.default_rng(seed + 1)), self.columns)

    def fitted(self, data: TrainingData) -> Any:
        return self.predictor(data, self.learn(data))

    def check_sound(self, posterior: Posterior, m: int) -> None:
        assert posterior.mean.shape == posterior.variance.shape == (m,)
        assert np.all(np.isfinite(posterior.mean))
        assert np.all(np.isfinite(posterior.variance))
        assert np.all(posterior.variance >= 0.0)

    # --- the promises

    def test_posteriors_are_finite_and_variances_are_not_negative(self):
        data = self.data()
        predictor = self.fitted(data)
        self.check_sound(self.posterior(predictor, self.rows(9, 5)), 9)
        self.check_sound(self.posterior(predictor, data.X), len(data))  # where uncertainty is least

    def test_a_single_training_row_is_enough(self):
        predictor = self.fitted(self.data(1))
        self.check_sound(self.posterior(predictor, self.rows(4, 5)), 4)

    def test_identical_training_rows_are_accepted(self):
        data = self.data()
        same = TrainingData(np.repeat(data.X[:1], len(data), axis=0), data.y, data.columns)
        predictor = self.fitted(same)
        self.check_sound(self.posterior(predictor, self.rows(4, 5)), 4)
        self.check_sound(self.posterior(predictor, data.X[:1]), 1)

    def test_each_row_of_a_batch_gets_what_it_gets_alone(self):
        predictor, X = self.fitted(self.data()), self.rows(5, 5)
        batch, tolerance = self.posterior(predictor, X), self.rounding(predictor)
        for i in range(len(X)):
            alone = self.posterior(predictor, X[i : i + 1])
            assert_allclose(alone.mean[0], batch.mean[i], rtol=tolerance, atol=tolerance)
            assert_allclose(alone.variance[0], batch.variance[i], rtol=tolerance, atol=tolerance)

    def test_no_rows_can_be_asked_about(self):
        posterior = self.posterior(self.fitted(self.data()), self.rows(0, 5))
        assert posterior.mean.shape == posterior.variance.shape == (0,)

    def test_the_same_data_give_the_same_posterior_to_the_last_bit(self):
        X = self.rows(5, 5)
        first, again = (self.posterior(self.fitted(self.data()), X) for _ in range(2))
        assert_array_equal(first.mean, again.mean)
        assert_array_equal(first.variance, again.variance)

    def test_neither_the_data_nor_the_rows_asked_about_are_changed(self):
        data, X = self.data(), self.rows(5, 5)
        before = data.X.copy(), data.y.copy(), X.copy()
        self.posterior(self.fitted(data), X)
        for now, then in zip((data.X, data.y, X), before, strict=True):
            assert_array_equal(now, then)


class JointContract:
    """`joint_posterior` agrees with `posterior` and is a covariance."""

    def test_the_diagonal_of_the_joint_posterior_is_the_marginal(self):
        predictor, X = self.fitted(self.data()), self.rows(6, 5)
        joint, marginal = predictor.joint_posterior(X), predictor.posterior(X)
        tolerance = self.rounding(predictor)
        assert_allclose(joint.mean, marginal.mean, rtol=tolerance, atol=tolerance)
        assert_allclose(
            np.diagonal(joint.covariance), marginal.variance, rtol=tolerance, atol=tolerance
        )

    def test_the_joint_covariance_is_symmetric_and_positive_semidefinite(self):
        predictor, X = self.fitted(self.data()), self.rows(6, 5)
        covariance = predictor.joint_posterior(X).covariance
        largest = np.max(np.abs(covariance))
        assert_allclose(covariance, covariance.T, rtol=0.0, atol=1e-12 * largest)
        assert np.linalg.eigvalsh(covariance).min() >= -self.rounding(predictor) * max(largest, 1.0)

    def test_one_row_given_twice_has_one_value(self):
        predictor, X = self.fitted(self.data()), self.rows(1, 5)
        joint = predictor.joint_posterior(np.repeat(X, 2, axis=0))
        difference = joint.covariance[0, 0] + joint.covariance[1, 1] - 2.0 * joint.covariance[0, 1]
        scale = max(joint.covariance[0, 0], 1.0)
        assert abs(difference) <= 10.0 * self.rounding(predictor) * scale


class ConditionContract:
    """`condition` returns a new predictor that has seen the rows."""

    def test_conditioning_on_nothing_changes_nothing(self):
        data = self.data()
        predictor, X = self.fitted(data), self.rows(5, 5)
        same = predictor.condition(data.X[:0], data.y[:0])
        assert_array_equal(self.posterior(same, X).mean, self.posterior(predictor, X).mean)
        assert_array_equal(self.posterior(same, X).variance, self.posterior(predictor, X).variance)

    def test_conditioning_leaves_the_older_predictor_as_it_was(self):
        predictor, X = self.fitted(self.data()), self.rows(5, 5)
        before, new = self.posterior(predictor, X), self.data(3, seed=7)
        predictor.condition(new.X, new.y)
        assert_array_equal(self.posterior(predictor, X).mean, before.mean)
        assert_array_equal(self.posterior(predictor, X).variance, before.variance)

    def test_a_better_result_lowers_the_mean_where_it_was_seen(self):
        predictor, X = self.fitted(self.data()), self.rows(1, 5)
        before = self.posterior(predictor, X)
        good = before.mean - 3.0 * np.sqrt(before.variance) - 0.1
        rows = np.repeat(X, 3, axis=0)
        after = self.posterior(predictor.condition(rows, np.repeat(good, 3)), X)
        assert after.mean[0] < before.mean[0]


class RefitContract(ConditionContract):
    """Conditioning equals a rebuild from all rows under the same hyperparameters."""

    def rebuilt(self, predictor: Any, data: TrainingData, theta: Any) -> Any:
        """Return a predictor of `data` with every learned quantity of `predictor`."""
        return self.predictor(data, theta)

    def test_conditioning_equals_a_rebuild_under_the_same_hyperparameters(self):
        data, X = self.data(), self.rows(6, 5)
        head = TrainingData(data.X[:16], data.y[:16], data.columns)
        theta = self.learn(head)
        start = self.predictor(head, theta)
        grown = start.condition(data.X[16:], data.y[16:])
        whole = self.rebuilt(start, data, theta)
        found, expected = self.posterior(grown, X), self.posterior(whole, X)
        tolerance = self.rounding(whole)
        assert_allclose(found.mean, expected.mean, rtol=tolerance, atol=tolerance)
        assert_allclose(found.variance, expected.variance, rtol=tolerance, atol=tolerance)

    def test_rows_added_together_or_one_by_one_give_the_same_bits(self):
        predictor, new, X = self.fitted(self.data()), self.data(3, seed=7), self.rows(5, 5)
        together, one_by_one = predictor.condition(new.X, new.y), predictor
        for i in range(3):
            one_by_one = one_by_one.condition(new.X[i : i + 1], new.y[i : i + 1])
        found, expected = self.posterior(one_by_one, X), self.posterior(together, X)
        assert_array_equal(found.mean, expected.mean)
        assert_array_equal(found.variance, expected.variance)


class GradientContract:
    """Derivatives are those of the posterior, and zero where a column holds codes."""

    step = 1e-5  # of the central difference: its error is of order step^2

    def posterior_gradient(self, predictor: Any, X: Array) -> PosteriorGradient:
        """Return the derivatives of `differentiated`."""
        return predictor.posterior_gradient(X)

    def differentiated(self, predictor: Any, X: Array) -> Posterior:
        """Return the quantity whose derivatives are offered."""
        return self.posterior(predictor, X)

    def test_values_beside_the_gradient_are_those_without_it(self):
        predictor, X = self.fitted(self.data()), self.rows(6, 5)
        found, expected = self.posterior_gradient(predictor, X), self.differentiated(predictor, X)
        tolerance = self.rounding(predictor)
        assert_allclose(found.mean, expected.mean, rtol=tolerance, atol=tolerance)
        assert_allclose(found.variance, expected.variance, rtol=tolerance, atol=tolerance)

    def test_gradients_equal_finite_differences(self):
        predictor, X = self.fitted(self.data()), self.rows(6, 5)
        found = self.posterior_gradient(predictor, X)
        # rounding of the two ends, divided by the distance between them
        noise = self.rounding(predictor) / self.step
        for column in self.columns.numeric:
            ends = []
            for sign in (1.0, -1.0):
                moved = X.copy()
                moved[:, column] += sign * self.step
                ends.append(self.differentiated(predictor, moved))
            for name in ("mean", "variance"):
                slope = (getattr(ends[0], name) - getattr(ends[1], name)) / (2.0 * self.step)
                scale = max(float(np.max(np.abs(slope))), 1.0)
                assert_allclose(
                    getattr(found, f"d_{name}")[:, column],
                    slope,
                    rtol=1e-4,
                    atol=(1e-6 + noise) * scale,
                )

    def test_gradients_are_zero_in_categorical_columns(self):
        found = self.posterior_gradient(self.fitted(self.data()), self.rows(6, 5))
        assert_array_equal(found.d_mean[:, self.columns.categorical], 0.0)
        assert_array_equal(found.d_variance[:, self.columns.categorical], 0.0)


class OrderContract:
    """The order of the training rows does not matter under given hyperparameters."""

    def test_the_order_of_the_training_rows_does_not_matter(self):
        data, X = self.data(), self.rows(6, 5)
        theta = self.learn(data)
        predictor = self.predictor(data, theta)
        expected, tolerance = self.posterior(predictor, X), self.rounding(predictor)
        for seed in range(3):
            order = np.random.default_rng(seed).permutation(len(data))
            shuffled = TrainingData(data.X[order], data.y[order], data.columns)
            found = self.posterior(self.predictor(shuffled, theta), X)
            assert_allclose(found.mean, expected.mean, rtol=tolerance, atol=tolerance)
            assert_allclose(found.variance, expected.variance, rtol=tolerance, atol=tolerance)


class UnitsContract:
    """Targets in another unit give the same posterior in that unit.

    Attributes:
        units: pairs (a, b); the targets become `a y + b`.
        units_tolerance: relative to the spread of the targets: what learning in another unit, with
            other roundings, may change.
    """

    units = ((8.0, 0.0), (0.25, -3.0))
    units_tolerance = 1e-6

    def test_another_unit_of_the_targets_gives_the_same_posterior_in_that_unit(self):
        data, X = self.data(), self.rows(6, 5)
        plain = self.posterior(self.fitted(data), X)
        spread = float(np.std(data.y))
        for a, b in self.units:
            moved = TrainingData(data.X, a * data.y + b, data.columns)
            found = self.posterior(self.fitted(moved), X)
            tolerance = self.units_tolerance
            assert_allclose(found.mean, a * plain.mean + b, rtol=0.0, atol=tolerance * a * spread)
            assert_allclose(
                found.variance,
                a**2 * plain.variance,
                rtol=10.0 * tolerance,
                atol=tolerance * a**2 * spread**2,
            )
