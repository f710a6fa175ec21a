"""The trust region against its formula."""

import numpy as np
import pytest

from hpo.acquisition import TrustRegion
from tests.contracts.acquisition import MIXED, rows


def test_the_region_is_zero_at_its_centers_and_negative_elsewhere():
    centers, radii = rows(3, 6), np.array([0.2, 1.0, 0.5, 1.0])
    region = TrustRegion(centers, radii, MIXED.numeric)
    np.testing.assert_array_equal(region.value(centers), 0.0)
    assert np.all(region.value(rows(20, 7)) < 0.0)


def test_one_radius_from_the_center_costs_ln_2_per_column():
    center, radii = rows(1, 6), np.array([0.2, 1.0, 0.5, 1.0])
    moved = center.copy()
    moved[:, MIXED.numeric] += radii[MIXED.numeric]
    region = TrustRegion(center, radii, MIXED.numeric)
    np.testing.assert_allclose(region.value(moved), -len(MIXED.numeric) * np.log(2.0), rtol=1e-14)


def test_the_value_is_that_of_the_nearest_center():
    centers, X = rows(3, 6), rows(10, 7)
    radii = np.full(4, 0.3)
    each = [TrustRegion(c[None], radii, MIXED.numeric).value(X) for c in centers]
    found = TrustRegion(centers, radii, MIXED.numeric).value(X)
    np.testing.assert_array_equal(found, np.max(each, axis=0))


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
