"""What the pictures of a result show."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from hpo import ASHA, Budget, Categorical, Fidelity, Float, Optimizer, Result, Scale, optimize
from hpo.drawing.search_data import SlicePlot
from hpo.errors import SpaceError


def searched(direction: str = "minimize") -> Result:
    """Return a result whose loss has a bowl in x at 0.3, and next to nothing of the others."""
    space = {
        "x": Float(0, 1),
        "y": Float(0.1, 10, log=True),
        "act": Categorical(["relu", "gelu"]),
        "slope": Float(0, 1, when=("act", ["gelu"])),
    }
    optimizer = Optimizer(space, cost="s", direction=direction)  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    sign = 1.0 if direction == "minimize" else -1.0
    for i in range(40):
        x, y, slope = rng.random(3)
        config: dict[str, Any] = {"x": x, "y": 10 ** (2 * y - 1), "act": ("relu", "gelu")[i % 2]}
        if i % 2:
            config["slope"] = slope
        optimizer.tell(config, sign * ((x - 0.3) ** 2 + 0.01 * y), cost=1.0 + x)
    return optimizer.result()


RESULT = searched()


def test_a_slice_has_its_optimum_where_the_loss_has_it_and_the_runs_beside_it() -> None:
    (data,) = RESULT.plot_slice("x").data
    assert data.value[np.argmin(data.loss)] == pytest.approx(0.3, abs=0.05)
    assert np.all((data.low <= data.loss) & (data.loss <= data.high))
    assert len(data.run_value) == 40
    line = np.interp(data.run_value, data.value, data.loss)
    assert np.abs(data.run_loss - line).max() < 0.01  # there is no noise


def test_a_slice_of_a_maximized_objective_is_the_mirror_image() -> None:
    (below,), (above,) = (r.plot_slice("x").data for r in (RESULT, searched("maximize")))
    assert above.loss == pytest.approx(-below.loss, abs=1e-6) and above.maximize
    assert above.loss_label == "value" and below.loss_label == "loss"


def test_a_slice_of_choices_has_one_value_a_choice() -> None:
    (data,) = RESULT.plot_slice("act").data
    assert data.setting.choices == ("relu", "gelu") and data.value.tolist() == [0.0, 1.0]
    assert np.abs(np.diff(data.loss)).max() < 0.01


def test_without_names_there_is_a_slice_of_each_active_setting() -> None:
    picture = RESULT.plot_slice()
    names = [data.setting.name for data in picture.data if isinstance(data, SlicePlot)]
    active = RESULT.recommend().config
    assert names == [name for name in RESULT.space.decisions if name in active]


@pytest.mark.parametrize("names", [("z",), ("x", "x"), ("x", "y", "act"), ("slope", "missing")])
def test_a_slice_along_what_is_no_setting_is_refused_with_those_there_are(
    names: tuple[str, ...],
) -> None:
    with pytest.raises(SpaceError, match=r"got \[.*\]; name some of \['x', 'y', 'act'"):
        RESULT.plot_slice(*names)


def test_a_surface_is_the_slices_of_its_two_settings() -> None:
    data = RESULT.plot_slice("x", "y").data
    assert data.loss.shape == (len(data.y_value), len(data.x_value))
    assert data.x_value[np.unravel_index(data.loss.argmin(), data.loss.shape)[1]] == (
        pytest.approx(0.3, abs=0.05)
    )


def test_importance_is_that_of_the_function_and_the_same_each_time() -> None:
    data = RESULT.plot_importance().data
    assert data.enough and data.names[0] == "x" and data.share[0] > 0.8
    assert data.share.sum() == pytest.approx(1.0)
    assert np.all((data.low <= data.share) & (data.share <= data.high))
    assert np.array_equal(data.share, RESULT.plot_importance().data.share)


def test_importance_of_noise_is_not_told() -> None:
    optimizer = Optimizer({"x": Float(0, 1), "y": Float(0, 1)})
    rng = np.random.default_rng(1)
    for x, y in rng.random((6, 2)).tolist():
        optimizer.tell({"x": x, "y": y}, float(rng.standard_normal()))
    assert not optimizer.result().plot_importance().data.enough


def test_a_slice_at_a_target_lies_at_the_optimum_of_its_size() -> None:
    optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "n": Scale(1e3, 1e5)})
    for n in np.geomspace(1e3, 1e5, 5):
        for lr in np.geomspace(3e-4, 3e-2, 5):
            miss = math.log(lr / 3e-3) + 0.3 * math.log(n / 1e4)
            optimizer.tell({"lr": lr, "n": n}, 1.0 + 5 * n**-0.3 + 0.1 * miss**2)
    result = optimizer.result()
    best = []
    for n in (1e5, 1e7):
        (data,) = result.plot_slice("lr", target={"n": n}).data
        best.append(data.value[np.argmin(data.loss)])
    assert best[1] < best[0]
    law = result.plot_law({"n": 1e7}).data
    (setting,) = law.optima
    assert setting.prior_low is not None and setting.prior_high is not None
    width = np.log(setting.prior_high / setting.prior_low)
    assert np.all(width > np.log(setting.high / setting.low))  # the runs have told something


def test_the_budget_adds_up_costs_in_the_order_of_tells() -> None:
    data = RESULT.plot_budget().data
    costs = [o.cost for o in RESULT.log.observations if o.cost is not None]
    assert data.spent == pytest.approx(np.cumsum(costs)) and data.unit == "s"
    assert np.all(np.diff(data.best) <= 0) and data.best[-1] == data.loss.min()


def test_the_path_of_the_search_links_the_records() -> None:
    data = RESULT.plot_front().data
    losses = data.loss[list(data.path)]
    assert np.all(np.diff(losses) < 0) and losses[-1] == data.loss.min()


def test_settings_that_were_not_active_are_gaps_in_parallel_coordinates() -> None:
    data = RESULT.plot_parallel().data
    assert [setting.name for setting in data.settings] == ["x", "y", "act", "slope"]
    assert np.isnan(data.value[:, 3]).sum() == 20


def test_a_study_has_curves_with_forecasts_a_time_line_and_a_calibration() -> None:
    def train(config: dict[str, Any], ctx: Any) -> dict[str, float]:
        loss = 0.0
        for epoch in range(1, ctx.fidelity + 1):
            loss = config["x"] + 1 / epoch
            ctx.report(step=epoch, loss=loss, cost=epoch)
        return {"loss": loss, "cost": ctx.fidelity}

    space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
    result = optimize(train, space, budget=Budget(trials=12), cost="epochs", scheduler=ASHA())
    curves = result.plot_curves().data
    assert curves.step_label == "epochs" and len(curves.curves) == 12
    partial = [c for c in curves.curves if c.forecast is not None]
    assert partial and all(not c.finished for c in partial)
    for curve in partial:
        assert curve.later is not None and curve.later[-1] == 9 and curve.forecast is not None
        assert np.all(curve.forecast[1] <= curve.forecast[2])
    times = result.plot_timeline().data
    assert len(times.number) >= 12 and np.all(times.end >= times.start) and times.start[0] == 0.0
    done = result.plot_calibration().data
    assert len(done.observed) <= len(result.log)


def test_pictures_before_any_trial_are_empty_or_say_why() -> None:
    result = Optimizer({"x": Float(0, 1)}).result()
    for picture in (
        result.plot_budget(),
        result.plot_calibration(),
        result.plot_curves(),
        result.plot_parallel(),
        result.plot_timeline(),
        result.plot_front(),
    ):
        assert picture._repr_png_()
    with pytest.raises(ValueError, match="nothing can be recommended"):
        result.plot_slice()
    with pytest.raises(ValueError, match="nothing can be recommended"):
        result.plot_importance()
