"""The interval of one run."""

import numpy as np
import pytest

from hpo import Axis, Float, Scale, SearchSpace
from hpo.models.fitted import Models
from hpo.models.intervals import cost_forecast, loss_forecast
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.surrogate_selector import SurrogateChoice, SurrogateSelector
from hpo.space.encoding import Encoder
from surrogates.numerics import normal_half_width
from tests.histories import log_of, random_configs

SPACE = SearchSpace({"x": Float(0.0, 1.0)})
CONFIGS = random_configs(SPACE, 30)
NOISE = np.random.default_rng(1).standard_normal(30)
LOSSES = [(c["x"] - 0.3) ** 2 + 0.05 * e for c, e in zip(CONFIGS, NOISE, strict=True)]
COSTS = [float(np.exp(2.0 * c["x"] + 0.1 * e)) for c, e in zip(CONFIGS, NOISE, strict=True)]


def warp_of(losses: list[float], direction: str = "minimize") -> InputWarp:
    models = Models(Encoder(SPACE, direction))
    models.sync(log_of(CONFIGS, losses, COSTS))
    selector = SurrogateSelector(models, SurrogateChoice.AUTO)
    selector.sync()
    return InputWarp(models, selector)


ROW = Encoder(SPACE).encode([{"x": 0.8}])


def test_a_maximized_metric_is_forecast_in_its_own_direction() -> None:
    low, high = warp_of(LOSSES), warp_of([-loss for loss in LOSSES], "maximize")
    for name in (None, "forest"):
        one, other = (
            loss_forecast(
                warp,
                ROW,
                model=warp.models.loss(),
                forest=None if name is None else warp.selector.forest(),
            )
            for warp in (low, high)
        )
        assert other.mean == -one.mean
        assert other.interval == (-one.interval[1], -one.interval[0])
        assert one.interval[0] <= one.mean <= one.interval[1]


def test_the_interval_is_as_wide_as_the_calibrated_standard_deviation() -> None:
    warp = warp_of(LOSSES)
    model = warp.models.loss()
    forecast = loss_forecast(warp, ROW, model=model)
    calibration = warp.selector.calibration(model.predictor, ROW, online=True)
    sd = np.sqrt(model.posterior(ROW).variance[0] + model.noise_variance)
    half = calibration.finite_multiplier(0.9) * sd
    assert forecast.mean == pytest.approx(model.posterior(ROW).mean[0])
    assert np.ptp(forecast.interval) == pytest.approx(2.0 * half)


def test_the_cost_is_forecast_on_its_logarithm_and_stays_positive() -> None:
    warp = warp_of(LOSSES)
    cost = warp.models.cost()
    assert cost is not None
    forecast = cost_forecast(warp, ROW, model=cost)
    low, high = forecast.interval
    assert 0.0 < low < forecast.mean < high
    assert low * high == pytest.approx(forecast.mean**2)  # symmetric in ln cost
    assert forecast.mean == pytest.approx(np.exp(1.6), rel=0.1)


def test_beyond_the_largest_run_residuals_may_widen_an_interval_but_not_narrow_it() -> None:
    space = SearchSpace(
        {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7, axis=Axis.PARAMS)}
    )
    configs = random_configs(space, 40)
    losses = [
        2.0 + 30.0 * c["params"] ** -0.3 + 0.05 * np.log(c["lr"] / 3e-3) ** 2 for c in configs
    ]
    models = Models(Encoder(space))
    models.sync(log_of(configs, losses, [c["params"] for c in configs]))
    warp = InputWarp(models, SurrogateSelector(models, SurrogateChoice.GP))
    model = models.loss()

    def factor(params: float) -> tuple[float, float]:
        """Half-widths in standard deviations: as shown, and by the residuals alone."""
        row = models.encoder.encode([{"lr": 3e-3, "params": params}])
        variance = model.posterior(row).variance[0] + model.noise_variance
        sd = np.sqrt(variance + model.extrapolation_variance(row)[0])
        shown = np.ptp(loss_forecast(warp, row, model=model).interval) / (2.0 * sd)
        calibration = warp.selector.calibration(model, row, online=False)
        return float(shown), calibration.finite_multiplier(0.9)

    inside, beyond = factor(1e6), factor(2e7)
    assert inside[0] == pytest.approx(inside[1])
    assert beyond[0] == pytest.approx(max(beyond[1], normal_half_width(0.9)))
    assert beyond[1] < normal_half_width(0.9)  # else the test would not show the floor
