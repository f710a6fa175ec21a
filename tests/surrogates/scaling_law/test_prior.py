"""Priors that do not depend on how a space was declared."""

from dataclasses import replace

import numpy as np
import pytest

from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.scaling_law.mixture import DriftMixture
from surrogates.scaling_law.model import ScalingModel
from surrogates.scaling_law.parametric_loss import ThetaLayout
from surrogates.scaling_law.prior import (
    E_FOLDS,
    Anchor,
    DriftPrior,
    LawPrior,
    LossUnits,
    Reach,
    neutral_sd,
    whitening,
)
from tests.surrogates.scaling_law.families import LLM, LOW, MIXED, WIDTH, Family, mixed_rows

# lr in e-folds, momentum in its own units, one size
SMALL = Columns(
    (ColumnKind.DECISION, ColumnKind.DECISION, ColumnKind.SCALE),
    ("lr", "momentum", "N"),
    np.array([np.log(1e-4), 0.0, np.log(1e5)]),
    np.array([np.log(1e3), 1.0, np.log(1e2)]),
    (0, 0, 0),
    (True, False, True),
)


def encoded(natural, columns):
    return (natural - columns.origin) / columns.width


def widened(columns, which, low, high):
    """The same columns with `low` and `high` box widths added below and above those of `which`."""
    wider = np.isin(np.arange(len(columns.kinds)), which)
    origin = np.where(wider, columns.origin - low * columns.width, columns.origin)
    return replace(
        columns, origin=origin, width=columns.width * np.where(wider, 1.0 + low + high, 1.0)
    )


def small_runs(n=30, seed=0):
    """Natural rows and losses of `SMALL`."""
    rng = np.random.default_rng(seed)
    X = rng.random((n, 3))
    best = 0.7 - 0.3 * X[:, 2]
    y = 2.0 + np.exp(-X[:, 2]) + (X[:, 0] - best) ** 2 + 0.3 * (X[:, 1] - 0.4) ** 2
    return SMALL.origin + SMALL.width * X, y + 0.01 * rng.standard_normal(n)


# --- bounds


@pytest.mark.parametrize("which", [[0], [1], [0, 1], [2], [0, 1, 2]])
@pytest.mark.parametrize(("low", "high"), [(0.5, 0.0), (1.0, 3.0)])
def test_wider_bounds_change_neither_predictions_nor_the_law(which, low, high):
    natural, y = small_runs()
    fits = []
    for columns in (SMALL, widened(SMALL, which, low, high)):
        predictor = ScalingModel().fit(TrainingData(encoded(natural, columns), y, columns))
        rows = SMALL.origin + SMALL.width * np.random.default_rng(1).random((20, 3)) * 1.2
        fits.append((predictor, predictor.posterior(encoded(rows, columns))))
    (one, before), (other, after) = fits
    np.testing.assert_allclose(after.mean, before.mean, rtol=1e-6)
    np.testing.assert_allclose(after.variance, before.variance, rtol=1e-6)
    assert other.growth == pytest.approx(one.growth, rel=1e-6)
    law, again = one.law(), other.law()
    for name in ("reducible", "exponent", "optimum"):
        for a, b in zip(getattr(law, name), getattr(again, name), strict=True):
            assert (b.mean, b.sd) == pytest.approx((a.mean, a.sd), rel=1e-6, abs=1e-9)
    for a, b in zip(law.drift, again.drift, strict=True):
        assert (b[0].mean, b[0].sd) == pytest.approx((a[0].mean, a[0].sd), rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("which", [[0, 1], [2]])
def test_the_reach_of_runs_is_a_place_and_a_width_of_the_runs(which):
    natural, y = small_runs()
    wider = widened(SMALL, which, 1.0, 3.0)
    narrow, wide = (Reach.of(c, encoded(natural, c), y) for c in (SMALL, wider))
    for name in ("step", "spread"):
        np.testing.assert_allclose(
            getattr(wide, name) * wider.width[:2], getattr(narrow, name) * SMALL.width[:2]
        )
    np.testing.assert_allclose(
        wider.origin[:2] + wide.middle * wider.width[:2],
        SMALL.origin[:2] + narrow.middle * SMALL.width[:2],
    )


def test_a_log_setting_has_steps_of_three_e_folds_and_a_linear_one_those_of_the_runs():
    natural, y = small_runs(300)
    natural[:, :2] *= 0.5
    reach = Reach.of(SMALL, encoded(natural, SMALL), y)
    step = reach.step * SMALL.width[:2]
    assert step[0] == pytest.approx(E_FOLDS)
    assert step[1] == pytest.approx(0.5, rel=0.1)
    assert np.all(reach.spread >= reach.step)


def test_before_any_run_the_reach_is_the_box():
    reach = Reach.of(SMALL, np.zeros((0, 3)), np.zeros(0))
    np.testing.assert_allclose(reach.middle, 0.5)
    np.testing.assert_allclose(reach.step, [E_FOLDS / SMALL.width[0], 1.0])


def test_the_middle_is_where_the_best_runs_are_whatever_their_size():
    rng = np.random.default_rng(2)
    X = rng.random((200, 3))
    size = 5.0 * X[:, 2]  # differs far more between sizes than within one
    y = -size + (X[:, 0] - 0.2) ** 2 + (X[:, 1] - 0.9) ** 2
    y[7] = 1e12  # a run that diverged
    middle = Reach.of(SMALL, X, y).middle
    np.testing.assert_allclose(middle, [0.2, 0.9], atol=0.2)  # a quarter of all runs is wide


def test_the_middle_is_the_mean_of_the_best_quarter_and_four_times_the_middle_of_what_was_tried():
    columns = Columns.of_decisions("a")
    rng = np.random.default_rng(8)
    for n, best in ((3, 3), (8, 3), (40, 10)):
        X = rng.random((n, 1)) ** 2
        y = np.abs(X[:, 0] - 0.2)
        near = X[np.argsort(y)[:best], 0]
        tried = 0.5 * (X.min() + X.max())
        expected = (near.sum() + 4.0 * tried) / (best + 4.0)
        assert Reach.of(columns, X, y).middle[0] == pytest.approx(expected)


def test_settings_tried_at_one_value_only_are_expected_there():
    X = np.random.default_rng(9).random((12, 3))
    X[:, 1] = 0.3
    reach = Reach.of(SMALL, X, X[:, 0] + X[:, 2])
    assert reach.middle[1] == pytest.approx(0.3)
    assert reach.step[1] == reach.spread[1] == 1.0


@pytest.mark.parametrize("decisions", [1, 2, 4])
def test_the_curvatures_of_all_settings_add_up_to_that_of_the_prior(decisions):
    columns = Columns.of_decisions(*"abcd"[:decisions])
    layout = ThetaLayout.of(columns, 28)
    reach = Reach.of(columns, np.zeros((0, decisions)), np.zeros(0))
    prior = whitening(layout, columns, np.zeros(0), LossUnits(3.0, 0.5), reach, LawPrior(), None)
    total = np.exp(prior.mean[layout.log_curvature]).sum()
    assert total == pytest.approx(LawPrior().curvature * 0.5)


# --- order and units


@pytest.mark.parametrize("order", [[2, 0, 1, 3], [0, 3, 1, 2], [1, 0, 2, 3], [3, 1, 2, 0]])
def test_columns_may_come_in_any_order_coupled_decisions_too(order):
    columns = Columns(
        tuple(LLM.kinds[i] for i in order),
        tuple(LLM.names[i] for i in order),
        LOW[order],
        WIDTH[order],
        (0,) * 4,
        (True,) * 4,
    )
    data = Family(0).runs(40)
    X = np.random.default_rng(3).random((20, 4))
    expected = ScalingModel().fit(data).posterior(X)
    found = ScalingModel().fit(TrainingData(data.X[:, order], data.y, columns))
    found = found.posterior(X[:, order])
    np.testing.assert_allclose(found.mean, expected.mean, rtol=1e-8)
    np.testing.assert_allclose(found.variance, expected.variance, rtol=1e-8)


def test_the_law_of_coupled_decisions_that_trade_places_is_the_same():
    order = [1, 0, 2, 3]
    swapped = replace(LLM, names=("batch", "lr", "N", "D"), origin=LOW[order], width=WIDTH[order])
    data = Family(2).runs(40)
    one = ScalingModel().fit(data)
    other = ScalingModel().fit(TrainingData(data.X[:, order], data.y, swapped))
    # the same pair is coupled, whatever the order
    (j, k), (i, m) = *one.loss.layout.pairs, *other.loss.layout.pairs
    assert LLM.names[j] == swapped.names[i] and LLM.names[k] == swapped.names[m]
    coupling, again = (p.loss.theta[p.loss.layout.couplings][0] for p in (one, other))
    assert abs(coupling) > 0.1 and again == pytest.approx(coupling, rel=1e-6)
    target = LOW[2:] + 1.5 * WIDTH[2:]
    best, same = one.optimum(target), other.optimum(target)
    np.testing.assert_allclose(same.mean[[1, 0]], best.mean, rtol=1e-8)
    flipped = same.covariance[np.ix_([1, 0], [1, 0])]
    np.testing.assert_allclose(flipped, best.covariance, rtol=1e-6, atol=1e-9)
    for a, b in zip(one.law().drift, reversed(other.law().drift), strict=True):
        assert [x.mean for x in b] == pytest.approx([x.mean for x in a], rel=1e-6, abs=1e-9)


def test_rules_about_decisions_that_trade_places_gain_the_same_weight():
    order = [1, 0, 2, 3]
    swapped = replace(LLM, names=("batch", "lr", "N", "D"), origin=LOW[order], width=WIDTH[order])
    family = Family(3)
    data, sd = family.runs(40), np.full((2, 2), 0.1)
    fits = []
    for flip, columns in (([0, 1], LLM), ([1, 0], swapped)):
        right, wrong = (DriftPrior(family.slopes[flip] + by, sd) for by in (0.0, 0.4))
        drift = DriftMixture((right, wrong, None), np.array([0.3, 0.4, 0.3]))
        X = data.X[:, [*flip, 2, 3]]
        fits.append(ScalingModel(drift=drift).fit(TrainingData(X, data.y, columns)))
    one, other = fits
    # the root of the mixed prior is triangular in the order of the columns, and with it the steps
    # of the descent: the same bottom is reached from another side
    np.testing.assert_allclose(other.rule_weights, one.rule_weights, rtol=1e-4)
    np.testing.assert_allclose(other.training_mean(), one.training_mean(), atol=1e-6)


def test_decisions_that_are_not_coupled_may_trade_places():
    order = [1, 0, 2]
    swapped = Columns(
        SMALL.kinds,
        ("momentum", "lr", "N"),
        SMALL.origin[order],
        SMALL.width[order],
        (0, 0, 0),
        (False, True, True),
    )
    natural, y = small_runs()
    model, X = ScalingModel(max_couplings=0), np.random.default_rng(4).random((20, 3))
    expected = model.fit(TrainingData(encoded(natural, SMALL), y, SMALL)).posterior(X)
    found = model.fit(TrainingData(encoded(natural, SMALL)[:, order], y, swapped))
    np.testing.assert_allclose(found.posterior(X[:, order]).mean, expected.mean, rtol=1e-8)


def test_a_linear_setting_in_thousandths_of_its_unit_is_the_same_setting():
    natural, y = small_runs()
    X = encoded(natural, SMALL)
    thousandths = replace(SMALL, width=SMALL.width * [1.0, 1000.0, 1.0])
    one = ScalingModel().fit(TrainingData(X, y, SMALL))
    other = ScalingModel().fit(TrainingData(X, y, thousandths))
    np.testing.assert_allclose(other.training_mean(), one.training_mean(), rtol=1e-9)
    for name in ("mean", "sd", "prior_mean", "prior_sd"):
        a, b = getattr(one.law().optimum[1], name), getattr(other.law().optimum[1], name)
        assert b == pytest.approx(1000.0 * a, rel=1e-6)
        a, b = getattr(one.law().drift[1][0], name), getattr(other.law().drift[1][0], name)
        assert b == pytest.approx(1000.0 * a, rel=1e-6, abs=1e-9)


def test_without_a_rule_the_optimum_of_a_log_setting_drifts_alike_in_every_range():
    wide, narrow = (replace(LLM, width=WIDTH * factor) for factor in (2.0, 0.5))
    expected = LawPrior().drift_sd * E_FOLDS
    assert neutral_sd(wide, 0) == neutral_sd(narrow, 0) == pytest.approx(expected)


# --- the map to whitened parameters


def wide_prior(columns, drift=None, rows=50):
    rng = np.random.default_rng(5)
    layout = ThetaLayout.of(columns, 28)
    X = mixed_rows(rows, rng)[:, : len(columns.kinds)]
    reach = Reach.of(columns, X, rng.random(rows))
    reference = layout.scales(X).mean(axis=0)
    units = LossUnits(3.0, 0.5)
    return layout, whitening(layout, columns, reference, units, reach, LawPrior(), drift), reach


@pytest.mark.parametrize("columns", [LLM, MIXED])
def test_whitening_is_undone_by_its_inverse(columns):
    _, prior, _ = wide_prior(columns)
    u = np.random.default_rng(6).standard_normal(len(prior.mean))
    np.testing.assert_allclose(prior.u(prior.theta(u)), u, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("columns", [LLM, MIXED])
def test_both_sides_of_a_bowl_are_as_wide_and_have_most_in_common(columns):
    layout, prior, reach = wide_prior(columns)
    covariance = prior.root @ prior.root.T
    J = len(layout.decisions)
    where = np.arange(layout.size)[layout.asymmetry]
    sd = np.sqrt(np.diagonal(covariance))[where]
    law = LawPrior()
    per_width = (
        law.log_asymmetry_sd * WIDTH[:2] if columns is LLM else law.asymmetry_sd / reach.step
    )
    np.testing.assert_allclose(sd, np.tile(per_width, 2))
    correlation = covariance[where[:J], where[J:]] / (sd[:J] * sd[J:])
    assert np.all((correlation > 0.5) & (correlation < 1.0))


def test_an_anchor_narrows_the_optimum_at_its_scale_through_drift_and_bend():
    at = LOW[2:] + 3.0 * WIDTH[2:]
    anchor = Anchor(at, np.array([np.log(1e-3), 0.0]), np.array([0.1, np.inf]))
    drift = DriftPrior(np.zeros((2, 2)), np.full((2, 2), 0.3), anchor)
    layout, prior, _ = wide_prior(LLM, drift)
    step = at - layout.scales(mixed_rows(50, np.random.default_rng(5))[:, :4]).mean(axis=0)
    row = np.zeros(layout.size)
    row[layout.optimum.start] = 1.0
    row[layout.drift.start : layout.drift.start + 2] = step
    row[layout.bend.start : layout.bend.start + 2] = 0.5 * step**2
    assert LOW[0] + WIDTH[0] * (row @ prior.mean) == pytest.approx(np.log(1e-3), abs=0.05)
    assert WIDTH[0] * np.linalg.norm(row @ prior.root) == pytest.approx(0.1, rel=0.05)
    # far narrower than any of its parts
    assert WIDTH[0] * np.sqrt((prior.root @ prior.root.T)[row > 0, :][:, row > 0][0, 0]) > 0.3


def test_losses_that_only_say_diverged_do_not_widen_the_units():
    y = np.random.default_rng(7).normal(3.0, 0.1, 50)
    for wild in (1e3, 1e12, 1e300):
        blown = np.append(y, [wild] * 5)
        assert LossUnits.of(blown).spread < 3.0 * LossUnits.of(y).spread
        assert LossUnits.of(blown).bounded(blown).max() < 3.0 + 40.0 * LossUnits.of(blown).spread
    assert LossUnits.of(np.zeros(0)) == LossUnits(0.0, 1.0)


def test_drift_priors_are_checked():
    with pytest.raises(ValueError, match="decisions x scales"):
        DriftPrior(np.zeros(2), np.ones((2, 2)))
    with pytest.raises(ValueError, match="positive"):
        DriftPrior(np.zeros((2, 2)), np.zeros((2, 2)))
