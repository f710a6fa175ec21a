"""The contract of an acquisition term as test classes; a term inherits those it supports.

`TermContract` holds for every term. The others are declared by inheriting them:

    LogProbabilityContract  values are logarithms of probabilities
    MonotoneContract        values never fall along a list of terms

Subclasses fill in the hooks: `term` and, for `MonotoneContract`, `rising_terms`.

Below the contract stand the fitted models that several tests of terms share.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.testing import assert_allclose, assert_array_equal

from hpo.acquisition import Term
from surrogates.cost import CostModel, CostPredictor
from surrogates.data import Array, ColumnKind, Columns, TrainingData
from surrogates.feasibility import FeasibilityModel, FeasibilityPredictor
from surrogates.gp import Fantasies, GPPredictor
from surrogates.kernels import MaternHamming
from surrogates.scaling_law.model import ScalingModel, ScalingPredictor

EPS = np.finfo(float).eps
MIXED = Columns(
    (ColumnKind.DECISION, ColumnKind.CATEGORICAL, ColumnKind.SCALE, ColumnKind.ACTIVITY),
    tuple("acNg"),
    np.array([0.0, 0.0, 11.0, 0.0]),
    np.array([1.0, 1.0, 4.0, 1.0]),
    (0, 3, 0, 2),
)
THETA = np.log([1.7, 0.4, 1.1, 0.3, 0.9])
SCALED = Columns(
    (ColumnKind.DECISION, ColumnKind.SCALE),
    ("lr", "N"),
    np.array([-9.0, 11.0]),
    np.array([6.0, 4.0]),
    (0, 0),
)
TARGET = np.array([16.5])  # natural coordinates, beyond the box of `SCALED`


class TermContract:
    """What every term promises: logarithms of each row on its own, with their derivatives.

    Attributes:
        columns: roles of the columns of the rows.
        step: half width of the central difference.
        gradient_tolerance: relative error of the derivatives, beyond rounding.
        batch_tolerance: relative error that the size of a batch may make, by another summation
            order.
    """

    columns = MIXED
    step = 1e-6
    gradient_tolerance = 1e-5
    batch_tolerance = 1e-9

    # --- hooks

    def term(self) -> Term:
        """Return the term, built anew from the same inputs each time."""
        raise NotImplementedError

    # --- what the tests use

    def rows(self, n: int, seed: int = 1) -> Array:
        return rows(n, seed, self.columns)

    # --- the promises

    def test_values_are_one_number_for_each_row_and_never_nan(self):
        X = np.concatenate([self.rows(40), self.rows(40) * 3.0 - 1.0])  # inside and far outside
        X[:, self.columns.categorical] = self.rows(80)[:, self.columns.categorical]
        value, gradient = self.term().gradient(X)
        assert value.shape == (80,) and gradient.shape == X.shape
        assert not np.any(np.isnan(value)) and not np.any(np.isnan(gradient))
        assert not np.any(np.isposinf(value))

    def test_no_rows_can_be_asked_about(self):
        term, none = self.term(), self.rows(0)
        assert term.value(none).shape == (0,)
        assert [part.shape for part in term.gradient(none)] == [(0,), none.shape]

    def test_values_beside_the_gradient_are_those_without_it(self):
        term, X = self.term(), self.rows(8)
        assert_allclose(term.gradient(X)[0], term.value(X), rtol=1e-9, atol=1e-10)

    def test_each_row_of_a_batch_gets_what_it_gets_alone(self):
        term, X = self.term(), self.rows(6)
        value, gradient = term.gradient(X)
        for i in range(len(X)):
            alone = X[i : i + 1]
            tolerance = self.batch_tolerance
            assert_allclose(term.value(alone)[0], value[i], rtol=tolerance, atol=tolerance)
            scale = max(float(np.max(np.abs(gradient[i]))), 1.0)
            found = term.gradient(alone)[1][0]
            assert_allclose(found, gradient[i], rtol=0.0, atol=100.0 * tolerance * scale)

    def test_the_order_of_the_rows_does_not_matter(self):
        term, X = self.term(), self.rows(8)
        order = np.random.default_rng(0).permutation(8)
        tolerance = self.batch_tolerance
        assert_allclose(term.value(X[order]), term.value(X)[order], rtol=tolerance, atol=tolerance)

    def test_asking_twice_or_a_term_built_anew_gives_the_same_bits(self):
        term, X = self.term(), self.rows(6)
        first = term.gradient(X)
        for again in (term.gradient(X), self.term().gradient(X)):
            assert_array_equal(again[0], first[0])
            assert_array_equal(again[1], first[1])
        assert_array_equal(term.value(X), self.term().value(X))

    def test_the_rows_asked_about_are_not_changed(self):
        term, X = self.term(), self.rows(6)
        before = X.copy()
        term.value(X)
        term.gradient(X)
        assert_array_equal(X, before)

    def test_gradients_equal_finite_differences(self):
        term, X = self.term(), self.rows(8)
        value, gradient = term.gradient(X)
        rounding = 10.0 * EPS * float(np.max(np.abs(value))) / self.step
        for column in self.columns.numeric:
            step = self.step * np.eye(X.shape[1])[column]
            slope = (term.value(X + step) - term.value(X - step)) / (2.0 * self.step)
            scale = max(float(np.max(np.abs(slope))), 1.0)
            assert_allclose(
                gradient[:, column],
                slope,
                rtol=self.gradient_tolerance,
                atol=self.gradient_tolerance * scale + rounding,
            )

    def test_gradients_are_zero_in_categorical_columns(self):
        gradient = self.term().gradient(self.rows(8))[1]
        assert_array_equal(gradient[:, self.columns.categorical], 0.0)


class LogProbabilityContract:
    """Values are at most zero."""

    def test_values_are_logarithms_of_probabilities(self):
        value = self.term().value(self.rows(50))
        assert np.all(value <= 0.0)
        assert np.any(value < 0.0)


class MonotoneContract:
    """Values never fall along `rising_terms`."""

    def rising_terms(self) -> list[Term]:
        """Return terms that differ in one argument, in the order in which values rise."""
        raise NotImplementedError

    def test_values_rise_with_the_argument(self):
        X = self.rows(20)
        values = np.stack([term.value(X) for term in self.rising_terms()])
        assert np.all(np.diff(values, axis=0) >= 0.0)
        assert np.all(values[-1] > values[0])


# --- models that tests share


def rows(n: int, seed: int, columns: Columns = MIXED) -> Array:
    """Return random rows, codes in categorical columns."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, len(columns.kinds)))
    for column in columns.categorical:
        X[:, column] = rng.integers(0, columns.categories[column], n)
    return X


@dataclass(frozen=True)
class ConstantThreshold:
    """One loss to beat for each fantasy."""

    losses: tuple[float, ...]

    def levels(self, X: Array) -> Array:
        return np.tile(self.losses, (len(X), 1))


@cache
def loss_model() -> GPPredictor:
    X = rows(20, 0)
    y = np.sin(5.0 * X[:, 0]) + X[:, 2] - 0.4 * X[:, 1]
    return GPPredictor.build(MaternHamming.from_theta(MIXED, THETA), X, y, 0.01)


def fantasies(count: int, pending: int = 2) -> Fantasies:
    return loss_model().fantasize(rows(pending, 2), count, np.random.default_rng(0))


@cache
def cost_model() -> CostPredictor:
    X = rows(15, 3)
    noise = 0.1 * np.random.default_rng(4).standard_normal(15)
    return CostModel().fit(TrainingData(X, 11.0 + 4.0 * X[:, 2] + X[:, 0] + noise, MIXED))


@cache
def success_model() -> FeasibilityPredictor:
    X = rows(30, 5)
    return FeasibilityModel().fit(TrainingData(X, (X[:, 0] < 0.7).astype(float), MIXED))


@cache
def scaling_models() -> tuple[ScalingPredictor, CostPredictor]:
    """A fitted law of one decision over one scale, and a cost of n^1."""
    rng = np.random.default_rng(0)
    X = rng.random((24, 2))
    z, s = (X * SCALED.width + SCALED.origin).T
    y = 1.5 + 60.0 * np.exp(-0.3 * s) + 0.02 * (z + 6.0 + 0.4 * (s - 13.0)) ** 2
    data = TrainingData(X, y + 0.002 * rng.standard_normal(24), SCALED)
    return ScalingModel().fit(data), CostModel().fit(TrainingData(X, s, SCALED))
