"""Sums of terms."""

import numpy as np
import pytest

from hpo.acquisition import Improvement, Sum, TrustRegion
from tests.contracts.acquisition import MIXED, ConstantThreshold, loss_model, rows


def test_a_sum_adds_values_and_gradients():
    first = TrustRegion(rows(3, 6), np.full(4, 0.3), MIXED.numeric)
    second, X = Improvement(loss_model(), ConstantThreshold((-0.5,))), rows(6, 1)
    total = Sum((first, second))
    np.testing.assert_array_equal(total.value(X), first.value(X) + second.value(X))
    expected = first.gradient(X)[1] + second.gradient(X)[1]
    np.testing.assert_array_equal(total.gradient(X)[1], expected)


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
