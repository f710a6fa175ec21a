import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from scipy.stats import multivariate_normal

from surrogates.learning_curves import (
    REPORTS,
    TEMPER,
    Cells,
    Curve,
    CurveModel,
    CurvePredictor,
    LossWarp,
    SharedParameters,
)

LOW, HIGH = 1.0, 50.0
LEVELS = np.arange(LOW, HIGH + 1.0)


def power_laws(runs: int, rng: np.random.Generator) -> np.ndarray:
    """`runs x 50`: ends, amplitudes and exponents vary, reports are noisy by half a percent."""
    end = rng.uniform(0.2, 0.6, (runs, 1))
    amplitude = rng.uniform(0.3, 1.0, (runs, 1))
    exponent = rng.uniform(0.4, 1.2, (runs, 1))
    values = end + amplitude * LEVELS**-exponent
    return values * (1.0 + 0.005 * rng.standard_normal(values.shape))


def halved(values: np.ndarray) -> list[Curve]:
    """The runs as successive halving leaves them."""
    stops = [len(LEVELS)] * 2 + [16] * 4 + [5] * (len(values) - 6)
    return [Curve(LEVELS[:stop], row[:stop]) for stop, row in zip(stops, values, strict=True)]


@pytest.fixture(scope="module")
def predictor() -> CurvePredictor:
    return CurveModel(LOW, HIGH).fit(halved(power_laws(24, np.random.default_rng(0))))


# --- the closed form ------------------------------------------------------------------------------


def test_a_cell_is_the_gaussian_process_its_formula_says() -> None:
    sharing = SharedParameters.prior()
    levels, asked = np.array([1.0, 3.0, 10.0]), np.array([20.0, 50.0])
    z = np.array([0.4, 0.1, -0.3])
    cells = Cells.at(sharing, levels, asked, LOW, HIGH)
    e = cells.whitened(z[None])
    # one power law, (t + 3)^-0.7, with s = 0.3, tau = 0.1, sigma = 0.03
    shape, s, tau, sigma = 5, 0.3, 0.1, 0.03
    cell = np.ravel_multi_index((shape, 1, 2, 2), (47, 4, 5, 5))
    every = np.concatenate([levels, asked])
    fall = (every + 3.0) ** -0.7
    fall = (fall - 4.0**-0.7) / (53.0**-0.7 - 4.0**-0.7)
    H = np.stack([np.ones(5), s * fall, s * (every - 1.0) / 49.0], axis=1)
    u = np.log(every) / np.log(50.0)
    K = H @ sharing.covariance @ H.T + tau**2 * np.minimum(u[:, None], u) + sigma**2 * np.eye(5)
    mean = H @ sharing.mu
    gain = np.linalg.solve(K[:3, :3], K[:3, 3:]).T
    found = cells.prior[3:, cell] + cells.asked[..., cell] @ e[:, 0, cell]
    assert_allclose(found, mean[3:] + gain @ (z - mean[:3]), rtol=1e-9)
    expected = np.diagonal(K[3:, 3:] - gain @ K[:3, 3:])
    assert_allclose(cells.variance[:, cell], expected, rtol=1e-8)
    # and so is its weight: the likelihoods of two cells, tempered
    other = np.ravel_multi_index((shape, 1, 2, 3), (47, 4, 5, 5))
    wider = K[:3, :3] + (0.1**2 - sigma**2) * np.eye(3)
    ratio = multivariate_normal(mean[:3], K[:3, :3]).logpdf(z)
    ratio -= multivariate_normal(mean[:3], wider).logpdf(z)
    weight = cells.weights(e)[0]
    assert_allclose(np.log(weight[cell] / weight[other]), TEMPER * ratio, rtol=1e-8)


def test_runs_read_together_get_what_each_gets_alone() -> None:
    levels = np.array([1.0, 2.0, 4.0])
    z = np.random.default_rng(0).standard_normal((3, 3))
    cells = Cells.at(SharedParameters.prior(), levels, np.array([50.0]), LOW, HIGH)
    together = cells.weights(cells.whitened(z))
    alone = np.concatenate([cells.weights(cells.whitened(row[None])) for row in z])
    assert_allclose(together, alone, rtol=1e-10)
    assert_allclose(together.sum(axis=1), 1.0)


def test_learning_the_starts_of_exact_runs_is_the_conjugate_update() -> None:
    # Runs of one shape without noise: v is seen exactly, so its mean and variance are those of the
    # normal-inverse-Wishart posterior mode, worth 1 and 4 runs beside the 100 seen.
    rng = np.random.default_rng(1)
    v, d = rng.multivariate_normal([0.2, -0.8], [[0.3, 0.1], [0.1, 0.2]], size=100).T
    levels = np.array([1.0, 2.0, 5.0, 12.0, 25.0, 50.0])
    fall = (levels**-0.7 - 1.0) / (50.0**-0.7 - 1.0)
    sharing = SharedParameters.prior()
    for _ in range(2):
        sharing = sharing.em_step([(levels, v[:, None] + d[:, None] * fall)], LOW, HIGH)
    mean = (v.sum() + 0.5) / 101
    scatter = np.sum((v - mean) ** 2) + (mean - 0.5) ** 2 + 4 * 1.5**2
    assert_allclose(sharing.mu[0], mean, atol=1e-3)
    assert_allclose(sharing.covariance[0, 0], scatter / 104, rtol=1e-2)
    assert sharing.mu[1] < 0.0


def test_samples_agree_with_the_marginal_prediction(predictor: CurvePredictor) -> None:
    curve = Curve([1, 2, 3, 4], [1.1, 0.9, 0.82, 0.77])
    levels = [8, 20, 50]
    end = predictor.predict(curve, levels)
    count = 20_000
    drawn = predictor.sample(curve, levels, count, rng=np.random.default_rng(0))
    for p in (0.05, 0.5, 0.95):
        share = np.mean(drawn < end.quantile(p), axis=0)
        assert_allclose(share, p, atol=4.0 * np.sqrt(p * (1 - p) / count))
    kept = np.clip(drawn, end.quantile(0.005), end.quantile(0.995))
    posterior = end.posterior()
    error = np.sqrt(posterior.variance / count)
    assert_allclose(kept.mean(axis=0), posterior.mean, atol=5.0 * error.max())
    assert_allclose(kept.var(axis=0), posterior.variance, rtol=0.1)


def test_probability_below_inverts_the_quantile(predictor: CurvePredictor) -> None:
    end = predictor.predict(Curve([1, 2], [0.9, 0.8]), 50)
    for p in (0.01, 0.3, 0.5, 0.99):
        assert_allclose(end.probability_below(end.quantile(p)[0]), p, atol=1e-6)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20),
    st.lists(st.floats(-3.0, 3.0), min_size=1, max_size=20),
)
def test_the_warp_has_an_inverse_and_rises(values: list[float], away: list[float]) -> None:
    warp = LossWarp.of(np.array(values))
    width = warp.lower_knee - warp.floor
    y = np.sort(warp.lower_knee + width * np.array(away))
    z = warp.apply(y)
    assert np.all(np.diff(z) >= 0.0)
    assert_allclose(warp.invert(z), y, rtol=1e-9, atol=1e-9 * (width + abs(warp.lower_knee)))


def test_the_warp_is_smooth_where_its_lines_begin() -> None:
    warp = LossWarp.of(np.array([1.0, 2.0, 3.0]))
    for corner in (warp.lower_knee, warp.upper_knee):
        below, above = np.diff(warp.apply(corner + 1e-6 * np.array([-1.0, 0.0, 1.0])))
        assert_allclose(below, above, rtol=1e-4)


def test_predictions_follow_the_units_of_the_loss() -> None:
    values = power_laws(10, np.random.default_rng(2))
    curve = Curve(LEVELS[:6], values[0, :6])
    plain = CurveModel(LOW, HIGH).fit(halved(values)).predict(curve, 50)
    other = CurveModel(LOW, HIGH).fit(halved(40.0 * values - 300.0))
    moved = other.predict(Curve(LEVELS[:6], 40.0 * values[0, :6] - 300.0), 50)
    for p in (0.05, 0.5, 0.95):
        assert_allclose(moved.quantile(p), 40.0 * plain.quantile(p) - 300.0, rtol=1e-6)


def test_predictions_follow_the_units_of_the_level() -> None:
    values = power_laws(10, np.random.default_rng(3))
    epochs = CurveModel(LOW, HIGH).fit(halved(values))
    steps = CurveModel(100 * LOW, 100 * HIGH).fit(
        [Curve(100 * curve.levels, curve.values) for curve in halved(values)]
    )
    curve = halved(values)[-1]
    assert_allclose(
        steps.predict(Curve(100 * curve.levels, curve.values), 5000).quantile(0.3),
        epochs.predict(curve, 50).quantile(0.3),
        rtol=1e-6,
    )


def test_the_order_of_the_runs_does_not_matter() -> None:
    curves = halved(power_laws(12, np.random.default_rng(4)))
    forwards = CurveModel(LOW, HIGH).fit(curves).predict(curves[-1], 50)
    backwards = CurveModel(LOW, HIGH).fit(curves[::-1]).predict(curves[-1], 50)
    assert_allclose(forwards.quantile(0.9), backwards.quantile(0.9), rtol=1e-6)


# --- what it is for -------------------------------------------------------------------------------


def test_nine_in_ten_ends_lie_in_the_interval_and_beat_the_last_value(
    predictor: CurvePredictor,
) -> None:
    values = power_laws(60, np.random.default_rng(5))
    for seen in (5, 10, 25):
        inside, ours, last = [], [], []
        for row in values:
            end = predictor.predict(Curve(LEVELS[:seen], row[:seen]), 50)
            inside.append(end.quantile(0.05)[0] <= row[-1] <= end.quantile(0.95)[0])
            ours.append(abs(end.quantile(0.5)[0] - row[-1]))
            last.append(abs(row[seen - 1] - row[-1]))
        assert 0.78 <= np.mean(inside)  # three standard errors below 0.9
        assert np.mean(ours) < 0.5 * np.mean(last)


def test_learning_from_the_study_narrows_the_interval(predictor: CurvePredictor) -> None:
    untrained = CurvePredictor(LOW, HIGH, predictor.warp, SharedParameters.prior())
    curve = Curve(LEVELS[:5], power_laws(1, np.random.default_rng(6))[0, :5])
    before, after = untrained.predict(curve, 50), predictor.predict(curve, 50)
    width = after.quantile(0.95) - after.quantile(0.05)
    assert width < 0.8 * (before.quantile(0.95) - before.quantile(0.05))


def test_uncertainty_grows_with_distance_and_shrinks_with_reports(
    predictor: CurvePredictor,
) -> None:
    row = power_laws(1, np.random.default_rng(7))[0]
    widths = []
    for seen in (2, 8, 30):
        end = predictor.predict(Curve(LEVELS[:seen], row[:seen]), [31, 50, 200])
        width = end.quantile(0.95) - end.quantile(0.05)
        assert np.all(np.diff(width) > 0)
        widths.append(width[1])
    assert np.all(np.diff(widths) < 0)


def test_a_run_not_started_is_predicted_like_the_others(predictor: CurvePredictor) -> None:
    end = predictor.predict(Curve([], []), [1, 50])
    starts = power_laws(200, np.random.default_rng(8))[:, 0]
    assert end.quantile(0.02)[0] < np.median(starts) < end.quantile(0.98)[0]
    assert end.quantile(0.5)[1] < end.quantile(0.5)[0]


# --- odd histories --------------------------------------------------------------------------------


def test_reports_are_sorted_and_the_last_of_a_level_counts() -> None:
    curve = Curve([3, 1, 2, 1, 5], [0.3, 9.0, 0.5, 0.7, np.nan])
    assert_array_equal(curve.levels, [1, 2, 3])
    assert_array_equal(curve.values, [0.7, 0.5, 0.3])


def test_a_report_that_is_not_finite_does_not_hide_an_earlier_one_at_its_level() -> None:
    curve = Curve([1, 1], [0.5, np.inf])
    assert_array_equal(curve.values, [0.5])


def test_a_long_run_is_read_evenly_in_log_level_with_both_ends() -> None:
    curve = Curve(LEVELS, LEVELS).thinned(REPORTS)
    assert len(curve) == REPORTS
    assert curve.levels[0] == 1 and curve.levels[-1] == 50
    assert_allclose(np.diff(np.log(curve.levels))[2:], np.log(50) / 5, atol=0.1)


def test_one_report_is_enough() -> None:
    end = CurveModel(1, 27).fit([Curve([1], [2.3])]).predict(Curve([1], [2.3]), [1, 27])
    assert np.all(end.quantile(0.05) < end.quantile(0.95))
    assert_allclose(end.quantile(0.5)[0], 2.3, rtol=0.2)
    assert end.quantile(0.05)[1] < 2.3 < end.quantile(0.95)[1]


@pytest.mark.parametrize("value", [0.0, 2.3, -1.0, 1e-12, 1e12])
def test_constant_curves_are_predicted_to_stay(value: float) -> None:
    curves = [Curve(LEVELS[:k], np.full(k, value)) for k in (3, 10, 50)]
    end = CurveModel(LOW, HIGH).fit(curves).predict(curves[1], 50)
    unit = abs(value) or 1.0
    assert_allclose(end.quantile(0.5), value, atol=0.05 * unit)
    assert end.quantile(0.05)[0] < value < end.quantile(0.95)[0]
    assert np.isfinite(end.posterior().variance)


def test_rising_curves_are_predicted_to_end_above_their_best() -> None:
    rng = np.random.default_rng(9)
    best = rng.uniform(2.0, 10.0, (20, 1))
    values = 1.0 + 0.1 * np.log(LEVELS / best) ** 2 + 0.01 * rng.standard_normal((20, 50))
    predictor = CurveModel(LOW, HIGH).fit(halved(values[:15]))
    for row in values[15:]:
        end = predictor.predict(Curve(LEVELS[:25], row[:25]), 50)
        assert end.quantile(0.5)[0] > row[:25].min()


def test_a_run_that_shoots_up_is_not_sent_to_absurd_losses() -> None:
    predictor = CurveModel(LOW, HIGH).fit(halved(power_laws(10, np.random.default_rng(13))))
    end = predictor.predict(Curve([1, 2, 3], [1.0, 2.0, 4.0]), 50)
    assert 1.0 < end.quantile(0.5)[0] < 40.0


def test_the_better_of_two_crossing_runs_is_predicted() -> None:
    rng = np.random.default_rng(10)
    steep = rng.random(24) < 0.5
    end = np.where(steep, 0.2, 0.5) + 0.03 * rng.standard_normal(24)
    amplitude = np.where(steep, 1.0, 0.4)
    exponent = np.where(steep, 0.8, 1.5)
    values = end[:, None] + amplitude[:, None] * LEVELS ** -exponent[:, None]
    predictor = CurveModel(LOW, HIGH).fit(halved(values))
    fast, slow = 0.5 + 0.4 * LEVELS**-1.5, 0.2 + LEVELS**-0.8
    assert slow[2] > fast[2]  # the better one is still behind at level 3
    ends = [predictor.predict(Curve(LEVELS[:3], y[:3]), 50).quantile(0.5) for y in (fast, slow)]
    assert ends[1] < ends[0]


def test_a_report_far_below_every_other_is_read() -> None:
    others = power_laws(10, np.random.default_rng(11))
    predictor = CurveModel(LOW, HIGH).fit(halved(others))
    end = predictor.predict(Curve([1, 2, 3], [0.5, 0.0, -0.5]), [3, 50])
    assert_allclose(end.quantile(0.5)[0], -0.5, atol=0.2)
    assert end.quantile(0.5)[1] < others.min()  # its end too, although no run came near
    mean = end.posterior().mean
    assert np.all((end.quantile(0.005) < mean) & (mean < end.quantile(0.995)))


def test_many_runs_are_learned_from_a_sample_of_all_lengths() -> None:
    curves = halved(power_laws(100, np.random.default_rng(12)))
    few = CurveModel(LOW, HIGH, max_runs=20).fit(curves).predict(curves[-1], 50)
    all_of_them = CurveModel(LOW, HIGH, max_runs=100).fit(curves).predict(curves[-1], 50)
    assert_allclose(few.quantile(0.5), all_of_them.quantile(0.5), rtol=0.1)


@settings(max_examples=15)
@given(
    st.lists(
        st.lists(
            st.tuples(st.integers(1, 60), st.floats(-1e6, 1e6) | st.just(float("nan"))),
            max_size=12,
        ),
        min_size=1,
        max_size=3,
    )
)
def test_any_history_gives_finite_ordered_predictions(
    histories: list[list[tuple[int, float]]],
) -> None:
    curves = [Curve([t for t, _ in runs], [y for _, y in runs]) for runs in histories]
    if not any(len(curve) for curve in curves):
        with pytest.raises(ValueError, match="finite report"):
            CurveModel(1, 27).fit(curves)
        return
    predictor = CurveModel(1, 27, steps=1).fit(curves)
    for curve in curves:
        end = predictor.predict(curve, [5, 27, 81])
        quantiles = np.array([end.quantile(p) for p in (0.05, 0.5, 0.95)])
        assert np.all(np.isfinite(quantiles))
        assert np.all(np.diff(quantiles, axis=0) >= 0)
        posterior = end.posterior()
        assert np.all(np.isfinite(posterior.mean)) and np.all(posterior.variance >= 0)


# --- refusals -------------------------------------------------------------------------------------


def test_nonsense_is_refused_with_the_way_out() -> None:
    with pytest.raises(ValueError, match="one value per level"):
        Curve([1, 2], [0.5])
    with pytest.raises(ValueError, match="from 1"):
        Curve([0, 1], [0.5, 0.4])
    with pytest.raises(ValueError, match="low=5.*high=5"):
        CurveModel(5, 5)
    with pytest.raises(ValueError, match="first level of a run"):
        CurveModel(2, 50).fit([Curve([1], [0.5])])
    predictor = CurveModel(2, 50).fit([Curve([2], [0.5])])
    with pytest.raises(ValueError, match="first level of a run"):
        predictor.predict(Curve([2], [0.5]), 1)
    with pytest.raises(ValueError, match="0 < p < 1"):
        predictor.predict(Curve([2], [0.5]), 50).quantile(1.0)
