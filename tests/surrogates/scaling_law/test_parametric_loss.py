from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surrogates.data import Columns
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout, valley
from tests.surrogates.scaling_law.families import LLM, LOW, MIXED, WIDTH, mixed_rows, random_loss


@pytest.mark.parametrize("columns", [LLM, MIXED])
def test_jacobian_matches_finite_differences(columns):
    loss, X = random_loss(columns), mixed_rows(9, np.random.default_rng(1))[:, : len(columns.kinds)]
    above = loss.displacement(X) > 0.0
    assert above.any() and not above.all()  # both sides of the bowl are seen
    step = 1e-6
    numeric = np.empty((9, loss.layout.size))
    for i in range(loss.layout.size):
        shift = step * np.eye(loss.layout.size)[i]
        above = replace(loss, theta=loss.theta + shift).value(X)
        below = replace(loss, theta=loss.theta - shift).value(X)
        numeric[:, i] = (above - below) / (2.0 * step)
    np.testing.assert_allclose(loss.jacobian(X), numeric, rtol=1e-6, atol=1e-6)


def test_every_parameter_but_one_side_of_the_bowl_moves_every_row():
    loss, layout = random_loss(LLM), ThetaLayout.of(LLM, 28)
    X = np.random.default_rng(1).random((9, 4))
    J = loss.jacobian(X)
    above, below = np.split(J[:, layout.asymmetry], 2, axis=1)
    assert np.all((above != 0.0) != (below != 0.0))
    np.testing.assert_array_equal(above != 0.0, loss._rows(X).bowl.above)
    rest = np.delete(J, np.r_[layout.asymmetry], axis=1)
    assert np.all(rest != 0.0)


def test_gradient_matches_finite_differences():
    loss, X = random_loss(MIXED), mixed_rows(9, np.random.default_rng(2))
    for gradient, value in ((loss.gradient, loss.value), (loss.excess_gradient, loss.excess)):
        for j in MIXED.numeric:
            shift = 1e-6 * np.eye(8)[j]
            slope = (value(X + shift) - value(X - shift)) / 2e-6
            np.testing.assert_allclose(gradient(X)[:, j], slope, rtol=1e-6, atol=1e-6)
        assert not gradient(X)[:, MIXED.categorical].any()


def test_curvature_at_the_optimum_matches_finite_differences_of_the_gradient():
    loss, columns = random_loss(LLM), LLM.decision
    scales = LOW[2:] + 0.7 * WIDTH[2:]
    best = np.concatenate([loss.optimum_at(scales[None, :])[0], [0.7, 0.7]])
    numeric = np.empty((2, 2))
    for i in range(2):
        shift = 1e-5 * np.eye(4)[i]
        slopes = loss.gradient(np.stack([best + shift, best - shift]))[:, columns]
        numeric[i] = (slopes[0] - slopes[1]) / 2e-5
    # the third derivative jumps at the optimum, so the central difference is of first order there
    np.testing.assert_allclose(loss.curvature_at(scales), numeric, rtol=1e-4, atol=1e-8)


# --- one valley


def test_without_asymmetry_a_valley_is_a_parabola_and_smooth_around_it():
    t = np.linspace(-1.0, 1.0, 21)[:, None]
    shape, slope, _ = valley(t, np.array([0.0]))
    np.testing.assert_allclose(shape, 0.5 * t**2)
    np.testing.assert_allclose(slope, t)
    for sign in (-1.0, 1.0):  # where the series hands over
        t, near = np.full((1, 1), sign), 0.05
        for inside, outside in zip(
            valley(t, np.array([near - 1e-7])), valley(t, np.array([near + 1e-7])), strict=True
        ):
            np.testing.assert_allclose(inside, outside, rtol=1e-6)


@given(
    t=st.floats(-3.0, 3.0).filter(lambda t: abs(t) > 1e-3),
    lam=st.floats(-7.0, 7.0),
)
def test_a_valley_is_its_formula_and_its_derivatives_are_its_slopes(t, lam):
    def one(t, lam):
        return [float(entry[0, 0]) for entry in valley(np.array([[t]]), np.array([lam]))]

    shape, slope, by_asymmetry = one(t, lam)
    if abs(lam) > 1e-3:
        assert shape == pytest.approx(0.5 * (np.expm1(lam * t) / lam) ** 2, rel=1e-9)
    step = 1e-5
    by_t = (one(t + step, lam)[0] - one(t - step, lam)[0]) / (2.0 * step)
    by_lam = (one(t, lam + step)[0] - one(t, lam - step)[0]) / (2.0 * step)
    assert slope == pytest.approx(by_t, rel=1e-6, abs=1e-9)
    assert by_asymmetry == pytest.approx(by_lam, rel=1e-6, abs=1e-9)
    assert slope * t > 0.0  # it falls towards 0 from both sides


def test_below_the_optimum_a_valley_levels_off_and_above_it_grows_without_end():
    t, lam = np.array([[-8.0], [-4.0], [4.0], [8.0]]), 2.0
    shape, slope, _ = valley(t, np.array([lam]))
    level = 1.0 / (2.0 * lam**2)  # of a run that learns nothing
    np.testing.assert_allclose(shape[:2, 0], level, rtol=1e-3)
    assert np.all(np.abs(slope[:2, 0]) < 1e-3)
    assert shape[3, 0] > 1e3 * shape[2, 0] > 1e6 * level
    # negative asymmetries are the mirror image
    mirrored, back, _ = valley(-t, np.array([-lam]))
    np.testing.assert_allclose(mirrored, shape)
    np.testing.assert_allclose(back, -slope)


def test_a_valley_stays_level_however_far_it_reaches():
    shape, slope, by_asymmetry = valley(np.array([[-10.0], [-30.0], [-300.0]]), np.array([2.0]))
    np.testing.assert_allclose(shape[:, 0], 1.0 / 8.0, rtol=1e-6)
    np.testing.assert_allclose(slope[:, 0], 0.0, atol=1e-6)
    np.testing.assert_allclose(by_asymmetry[:, 0], -1.0 / 8.0, rtol=1e-6)


@pytest.mark.parametrize("width", [np.log(10.0), np.log(1e6)])
def test_a_parabola_in_the_learning_rate_itself_is_inside_the_family(width):
    # 0.3 (lr / lr* - 1)^2, as a function of ln lr in a box of any width
    lr, best, low = np.geomspace(1e-5, 1e-2, 31), 7e-4, np.log(1e-5)
    columns = replace(Columns.of_decisions("lr"), origin=np.array([low]), width=np.array([width]))
    layout = ThetaLayout.of(columns, 0)
    theta = np.zeros(layout.size)
    theta[layout.asymmetry] = width  # 1 per e-fold
    theta[layout.log_curvature] = np.log(2.0 * 0.3 * width**2)
    theta[layout.optimum] = (np.log(best) - low) / width
    loss = ParametricLoss(layout, np.zeros(0), theta)
    X = ((np.log(lr) - low) / width)[:, None]
    np.testing.assert_allclose(loss.value(X), 0.3 * (lr / best - 1.0) ** 2, rtol=1e-10, atol=1e-14)


def test_each_side_of_the_bowl_has_an_asymmetry_of_its_own():
    layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
    theta = np.zeros(layout.size)
    theta[layout.asymmetry] = [3.0, -1.0]  # steep above, steep below
    X = np.linspace(-1.0, 1.0, 21)[:, None]
    found = ParametricLoss(layout, np.zeros(0), theta).value(X)
    for side, lam in ((X[:, 0] > 0.0, 3.0), (X[:, 0] < 0.0, -1.0)):
        np.testing.assert_allclose(found[side], valley(X[side], np.array([lam]))[0][:, 0])
    assert np.all(found >= 0.5 * X[:, 0] ** 2)


# --- the bowl


def test_the_bowl_has_its_minimum_at_the_drifting_optimum_whatever_the_couplings():
    loss = random_loss(LLM, seed=3)
    rng = np.random.default_rng(3)
    for _ in range(20):
        X = rng.random((1, 4)) * 2.0
        X[:, :2] = loss.optimum_at(loss.layout.scales(X))
        assert loss.excess(X)[0] == pytest.approx(0.0, abs=1e-12)
        around = np.tile(X, (50, 1))
        around[:, :2] += rng.standard_normal((50, 2))
        assert np.all(loss.excess(around) > 0.0)


def test_the_drift_at_a_scale_is_the_slope_of_the_optimum_there():
    loss = random_loss(LLM, seed=5)
    assert loss.bend.any()
    scales = loss.layout.scales(np.random.default_rng(5).random((7, 4)) * 1.5)
    found = loss.drift_at(scales)
    for a in range(2):
        shift = 1e-5 * np.eye(2)[a]
        slope = (loss.optimum_at(scales + shift) - loss.optimum_at(scales - shift)) / 2e-5
        np.testing.assert_allclose(found[:, :, a], slope, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(loss.drift_at(loss.reference[None, :])[0], loss.drift)


@pytest.mark.parametrize("columns", [LLM, MIXED])
def test_rebasing_writes_the_same_function_about_another_scale(columns):
    loss, X = random_loss(columns), mixed_rows(9, np.random.default_rng(4))[:, : len(columns.kinds)]
    assert loss.bend.all()
    moved = loss.rebased(loss.reference + 1.3)
    np.testing.assert_allclose(moved.value(X), loss.value(X), rtol=1e-10)
    scales = loss.layout.scales(X)
    np.testing.assert_allclose(moved.optimum_at(scales), loss.optimum_at(scales), atol=1e-12)
    np.testing.assert_allclose(moved.drift_at(scales), loss.drift_at(scales), atol=1e-12)
    back = moved.rebased(loss.reference)
    np.testing.assert_allclose(back.theta, loss.theta, atol=1e-10)


def test_rows_asked_about_again_give_the_same_answers():
    loss, rng = random_loss(LLM), np.random.default_rng(6)
    batches = [rng.random((3, 4)) for _ in range(7)]
    for X in [*batches, *batches[::-1], batches[0]]:
        fresh = replace(loss)
        np.testing.assert_array_equal(loss.value(X), fresh.value(X))
        np.testing.assert_array_equal(loss.jacobian(X), fresh.jacobian(X))
        np.testing.assert_array_equal(loss.gradient(X), fresh.gradient(X))
