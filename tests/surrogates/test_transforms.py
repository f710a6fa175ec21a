import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from surrogates.transforms import CYCLE, Transform, location_scale, standardize

FINITE = st.floats(-1e300, 1e300)
LOSSES = arrays(np.float64, st.integers(1, 30), elements=FINITE)
THOUSANDTHS = st.integers(-10_000, 10_000).map(lambda i: i / 1000.0)

each_transform = pytest.mark.parametrize("transform", Transform)


def test_the_cycle_visits_every_transform_once():
    assert sorted(t.value for t in CYCLE) == sorted(t.value for t in Transform)


@each_transform
@given(y=LOSSES)
@example(y=np.array([1e300, -1e300, 1e-300]))
@example(y=np.array([0.0, 1e-310, 1.0]))
@example(y=np.array([0.0, 5e-324]))
def test_any_losses_become_finite_and_keep_their_order(transform, y):
    z = transform(y)
    assert z.shape == y.shape
    assert np.all(np.isfinite(z))
    assert np.all(np.diff(z[np.argsort(y, kind="stable")]) >= 0.0)
    assert np.all(np.abs(z) <= np.sqrt(len(y)) + 1e-6)  # |z_i|^2 <= sum z^2 = n


@each_transform
@given(y=arrays(np.float64, st.integers(2, 30), elements=THOUSANDTHS))
def test_losses_that_differ_become_standardized(transform, y):
    z = transform(y)
    if np.all(y == y[0]):
        np.testing.assert_allclose(z, 0.0, atol=1e-12)
    else:
        assert np.mean(z) == pytest.approx(0.0, abs=1e-9)
        assert np.std(z) == pytest.approx(1.0)


@each_transform
@pytest.mark.parametrize("value", [0.0, 3.7, -1e300, 1e-300])
@pytest.mark.parametrize("n", [1, 2, 40])
def test_constant_losses_become_zeros(transform, value, n):
    np.testing.assert_allclose(transform(np.full(n, value)), 0.0, atol=1e-12)


@each_transform
def test_two_losses_become_minus_and_plus_one(transform):
    np.testing.assert_allclose(transform(np.array([5.0, -2.0])), [1.0, -1.0], rtol=1e-12)


@each_transform
@given(y=LOSSES, exponent=st.integers(-20, 20))
def test_the_unit_of_the_losses_does_not_matter(transform, y, exponent):
    # a power of two changes no digit, unless it pushes small numbers out of the normal range
    y = np.where(np.abs(y) < 1e-250, 0.0, y)
    scaled = np.ldexp(y / 2.0**20, exponent)
    np.testing.assert_array_equal(transform(scaled), transform(y))


@each_transform
def test_the_losses_themselves_are_not_changed(transform):
    y = np.array([3.0, 1.0, 2.0])
    transform(y)
    np.testing.assert_array_equal(y, [3.0, 1.0, 2.0])


def test_raw_is_a_z_score():
    y = np.array([1.0, 2.0, 4.0, 9.0])
    np.testing.assert_allclose(Transform.RAW(y), (y - 4.0) / np.sqrt(9.5), rtol=1e-12)


def test_log_stretches_the_good_end_as_its_formula_says():
    y = np.array([1.0, 1.1, 2.0, 3.0, 50.0])  # best 1, median 2
    expected = np.log(y - 1.0 + 0.05)
    expected = (expected - expected.mean()) / expected.std()
    np.testing.assert_allclose(Transform.LOG(y), expected, rtol=1e-12)


def test_winsor_makes_everything_beyond_the_reach_equally_bad():
    y = np.array([0.0, 1.0, 2.0, 4.9, 5.1, 1e9])  # median 3.45, reach 3.45 * 2.5 = 8.625
    z = Transform.WINSOR(y)
    unchanged = y[:5] - np.append(y[:5], 8.625).mean()
    expected = np.append(unchanged, 8.625 - np.append(y[:5], 8.625).mean())
    np.testing.assert_allclose(z, expected / np.std(np.append(y[:5], 8.625)), rtol=1e-9)


def test_winsor_survives_more_than_half_of_the_losses_tying_for_best():
    z = Transform.WINSOR(np.array([1.0, 1.0, 1.0, 2.0]))
    np.testing.assert_allclose(z, [-1 / np.sqrt(3)] * 3 + [np.sqrt(3)], rtol=1e-12)


@given(LOSSES)
def test_location_and_scale_are_finite_and_the_scale_is_positive(y):
    location, scale = location_scale(y)
    assert np.isfinite(location)
    assert np.isfinite(scale)
    assert scale > 0.0


def test_location_and_scale_of_nothing_are_zero_and_one():
    assert location_scale(np.zeros(0)) == (0.0, 1.0)


def test_standardising_is_undone_by_location_and_scale():
    y = np.random.default_rng(0).standard_normal(20) * 3.0 + 7.0
    location, scale = location_scale(y)
    np.testing.assert_allclose(location + scale * standardize(y), y, rtol=1e-14)
