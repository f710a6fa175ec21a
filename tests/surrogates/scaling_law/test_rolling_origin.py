from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from surrogates.data import TrainingData
from surrogates.scaling_law.model import ScalingModel
from surrogates.scaling_law.rolling_origin import Forecasts, distance_beyond, growth, origins
from tests.surrogates.scaling_law.families import LLM, LOW, WIDTH, Family

UNIT = 0.1  # loss between the scatter of the runs and their spread
Z = 1.6448536269514722  # half width of a central 90 % interval of a normal


def off_by(error, sd=0.01, distance=2.0, count=200):
    return Forecasts(
        np.full(count, error), np.full(count, sd), np.full(count, distance, dtype=float)
    )


# --- distance


def test_sizes_among_the_runs_are_at_no_distance():
    rng = np.random.default_rng(0)
    runs = rng.normal(10.0, 1.0, (50, 2))
    np.testing.assert_array_equal(distance_beyond(runs, runs), 0.0)
    corner = runs.max(axis=0)
    inside = np.array([corner - 0.1 - (corner.sum() - runs.sum(axis=1).max())])
    assert distance_beyond(runs, inside)[0] == 0.0


@given(
    step=st.lists(st.floats(-5.0, 5.0), min_size=2, max_size=2),
    more=st.floats(0.0, 3.0),
)
def test_the_distance_is_that_in_compute_or_along_one_axis_whichever_is_larger(step, more):
    runs = np.array([[2.0, 3.0], [4.0, 1.0]])
    scale = np.array([[4.0, 3.0]]) + step
    (found,) = distance_beyond(runs, scale)
    assert found == pytest.approx(max(0.0, scale.sum() - 5.0, step[0], step[1]))
    (further,) = distance_beyond(runs, scale + [[more, 0.0]])
    assert further >= found
    # a unit of length is an e-fold, wherever the axes begin
    (moved,) = distance_beyond(runs + 7.0, scale + 7.0)
    assert moved == pytest.approx(found)


def test_without_runs_or_axes_nothing_is_beyond():
    assert distance_beyond(np.zeros((0, 2)), np.ones((3, 2))).tolist() == [0.0] * 3
    assert distance_beyond(np.zeros((4, 0)), np.zeros((3, 0))).tolist() == [0.0] * 3


# --- cuts


def test_every_run_beyond_a_cut_took_more_compute_than_all_below_it():
    scales = np.random.default_rng(1).random((60, 2)) * 3.0
    found = list(origins(scales))
    assert len(found) == 3
    sizes = []
    for cheap, expensive in found:
        assert not (cheap & expensive).any()
        assert scales[expensive].sum(axis=1).min() > scales[cheap].sum(axis=1).max() + 0.5
        assert np.all(distance_beyond(scales[cheap], scales[expensive]) > 0.5)
        sizes.append(cheap.sum() / 60)
    np.testing.assert_allclose(sizes, [0.4, 0.55, 0.7], atol=0.03)


@pytest.mark.parametrize(
    "scales",
    [
        np.zeros((0, 1)),
        np.zeros((40, 0)),
        np.full((40, 2), 3.0),  # one size: nothing to foresee
        np.linspace(0.0, 0.4, 40)[:, None],  # too close together
        np.arange(7.0)[:, None],  # too few
    ],
)
def test_runs_that_cannot_be_cut_give_no_origin(scales):
    assert list(origins(scales)) == []


def test_a_ladder_of_few_sizes_is_cut_between_them_and_never_twice_alike():
    scales = np.repeat(np.arange(4.0), 10)[:, None]
    found = list(origins(scales))
    counts = [int(cheap.sum()) for cheap, _ in found]
    assert counts == sorted(set(counts)) and set(counts) <= {20, 30}


# --- tau


def test_tau_is_the_score_that_covers_nine_tenths_of_the_weight():
    rng = np.random.default_rng(2)
    cuts = [
        Forecasts(np.abs(rng.normal(0.0, 0.3, m)), rng.random(m) * 0.1, 0.5 + 4.0 * rng.random(m))
        for m in (30, 7, 90)
    ]
    tau = growth(cuts, UNIT)
    scores, weights = [], []
    for cut in cuts:
        short = np.sqrt(np.maximum(0.0, (cut.error / Z) ** 2 - cut.sd**2)) / cut.distance
        scores.append(short)
        weights.append(np.full(len(short), 1.0 / len(short)))
    scores, weights = np.concatenate(scores), np.concatenate(weights)
    # one more cut of a prior whose scores are all smaller than tau
    assert 0.25 * UNIT * 2.0 < tau
    prior = 1.0
    below = (weights[scores < tau - 1e-12].sum() + prior) / (3.0 + prior)
    here = (weights[scores <= tau + 1e-12].sum() + prior) / (3.0 + prior)
    assert below < 0.9 <= here + 1e-12
    # and with it the intervals hold nine tenths of the runs, each cut counting the same
    inside = [
        np.mean(cut.error <= Z * np.sqrt(cut.sd**2 + (tau * cut.distance) ** 2) + 1e-12)
        for cut in cuts
    ]
    assert (np.sum(inside) + prior) / (3.0 + prior) >= 0.9 - 1e-9


def test_without_forecasts_tau_is_that_of_the_prior():
    tau = growth([], UNIT)
    assert growth([off_by(0.0, count=0)], UNIT) == tau
    assert 0.25 * UNIT < tau < 0.75 * UNIT


def test_tau_grows_when_forecasts_are_off_and_not_when_they_said_so():
    honest = [off_by(0.3, sd=0.3)] * 3
    right = [off_by(0.005)] * 3
    off, further_off = [off_by(0.3)] * 3, [off_by(0.6)] * 3
    assert growth(right, UNIT) < growth([], UNIT) < growth(off, UNIT) < growth(further_off, UNIT)
    assert growth(honest, UNIT) == growth(right, UNIT)
    # the same error is worse the nearer it was
    near = [off_by(0.3, distance=1.0)] * 3
    assert growth(near, UNIT) == pytest.approx(2.0 * growth(off, UNIT))
    assert growth(off, UNIT) == pytest.approx(np.sqrt((0.3 / Z) ** 2 - 0.01**2) / 2.0)


@given(st.lists(st.floats(0.0, 3.0), min_size=1, max_size=4), st.floats(0.0, 3.0))
def test_larger_errors_never_make_tau_smaller(errors, more):
    cuts = [off_by(error, count=5) for error in errors]
    larger = [off_by(error + more, count=5) for error in errors]
    assert growth(cuts, UNIT) <= growth(larger, UNIT)


def test_every_cut_counts_the_same_however_many_runs_are_beyond_it():
    few, many = off_by(0.3, count=3), off_by(0.005, count=3000)
    assert growth([few, many], UNIT) == growth([few, replace_count(many, 3)], UNIT)


def replace_count(cut, count):
    return replace(cut, error=cut.error[:count], sd=cut.sd[:count], distance=cut.distance[:count])


def test_tau_is_in_units_of_the_loss():
    cuts = [off_by(0.3), off_by(0.1)]
    scaled = [replace(cut, error=8.0 * cut.error, sd=8.0 * cut.sd) for cut in cuts]
    assert growth(scaled, 8.0 * UNIT) == pytest.approx(8.0 * growth(cuts, UNIT))


# --- in the model


def test_a_law_that_breaks_is_off_by_more_beyond_the_runs_than_one_that_holds():
    for seed in range(3):
        family = Family(seed)
        data = family.runs(60)
        compute = data.X[:, 2:] @ WIDTH[2:]
        late = np.maximum(0.0, compute - np.median(compute))
        broken = TrainingData(data.X, data.y + 0.08 * late**2, LLM)  # no longer falls
        held, broke = ScalingModel().fit(data), ScalingModel().fit(broken)
        assert broke.growth / broke.units.spread > 2.0 * held.growth / held.units.spread


def test_without_a_cut_tau_lies_between_the_scatter_of_the_runs_and_their_spread():
    family = Family(0)
    data = family.runs(30)
    X = data.X.copy()
    X[:, 2:] = 0.5  # one size
    predictor = ScalingModel().fit(TrainingData(X, family.loss.value(X), LLM))
    residual = predictor.errors.residual
    q, r = (kernel.log_variance for kernel in residual.kernels[-2:])
    scatter = np.sqrt(residual.noise_variance + np.exp(q) + np.exp(r))
    assert predictor.errors.scatter == pytest.approx(scatter)
    expected = growth([], np.sqrt(scatter * predictor.units.spread))
    assert predictor.growth == pytest.approx(expected, rel=0.05)  # law and errors moved once more


def test_the_extra_variance_is_none_among_the_runs_and_grows_beyond_them():
    family = Family(1)
    predictor = ScalingModel().fit(family.runs(40))
    assert np.all(predictor.extrapolation_variance(predictor.X) == 0.0)
    reached = LOW[2:] + WIDTH[2:] * predictor.X[:, 2:]
    rows = np.tile(family.best, (3, 1))
    rows[:, 2:] += np.array([[0.0], [0.5], [1.0]])
    distance = distance_beyond(reached, LOW[2:] + WIDTH[2:] * rows[:, 2:])
    expected = (predictor.growth * distance) ** 2
    np.testing.assert_allclose(predictor.extrapolation_variance(rows), expected)
    assert np.all(np.diff(expected) > 0.0) and expected[0] > 0.0


def test_runs_far_from_the_optimum_are_no_test_of_a_forecast():
    family = Family(2)
    data = family.runs(40)
    predictor = ScalingModel().fit(data)
    rows = np.tile(family.best, (3, 1))
    rows[2, 0] += 0.8  # a learning rate far too high
    found = predictor.forecasts(rows, family.loss.value(rows))
    assert len(found.error) == 2 and np.all(found.distance > 0.5) and np.all(found.sd > 0.0)
