"""Sensitivity to the learning rate and the unstable edge, on laws whose edge is known."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest

from hpo import Axis, Float, Instability, Optimizer, Role, Scale, SpaceError
from hpo.models.lr_sensitivity import EdgeSource, sizes
from hpo.optimizer.result import Result
from surrogates.data import ColumnKind, Columns, TrainingData
from surrogates.feasibility import FeasibilityModel

SPACE = {
    "lr": Float(1e-4, 1.0, log=True, role=Role.LR),
    "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
}
TARGET = {"params": 1e8}
BOWL = 0.03
FAR = math.log(20.0)  # above the best, in ln lr, from where runs diverge


def displaced(lr: float, params: float) -> float:
    """ln lr above its best, which falls as params^-0.4."""
    return math.log(lr / 3e-3) + 0.4 * math.log(params / 1e6)


def loss(lr: float, params: float) -> float:
    return 1.5 + 20 * params**-0.3 + BOWL * displaced(lr, params) ** 2


@lru_cache
def result(diverging: bool, direction: str = "minimize") -> Result:
    optimizer = Optimizer(SPACE, target=TARGET, direction=direction)  # type: ignore[arg-type]
    sign = 1.0 if direction == "minimize" else -1.0
    for params in (1e5, 1e6, 1e7):
        for lr in np.geomspace(1e-4, 1.0, 15).tolist():
            config = {"lr": lr, "params": params}
            if diverging and displaced(lr, params) > FAR:
                optimizer.tell(config, failed="diverged")
            else:
                optimizer.tell(config, sign * loss(lr, params))
    return optimizer.result()


@lru_cache
def report(
    diverging: bool, initial_loss: float, rise: float | None = None, direction: str = "minimize"
) -> Instability:
    return result(diverging, direction).instability(initial_loss=initial_loss, rise=rise)


def test_sensitivity_without_failures_is_the_mean_of_the_bowl() -> None:
    found = report(False, 10.0)
    for curve in found.curves[:-1]:
        params = curve.scale["params"]
        t = np.array([displaced(lr, params) for lr in curve.lr])
        exact = BOWL * float(np.mean(t**2))
        assert curve.sensitivity == pytest.approx(exact, rel=0.1)
        low, high = curve.sensitivity_interval
        assert low < curve.sensitivity < high
    assert len(found.warnings) == 1 and "no run failed" in found.warnings[0]


def test_the_edge_of_a_loss_that_rises_is_where_it_has_risen() -> None:
    rise = 0.2
    for curve in report(False, 10.0, rise).curves:
        exact = 3e-3 * (curve.scale["params"] / 1e6) ** -0.4 * math.exp(math.sqrt(rise / BOWL))
        assert curve.cause is EdgeSource.LOSS and curve.rise == rise
        low, high = curve.edge_interval
        assert low / 1.06 < exact < high * 1.06  # a step of the grid
        assert curve.edge == pytest.approx(exact, rel=0.25)
        assert curve.best_lr < curve.edge


def test_the_edge_of_failing_runs_is_where_half_of_them_fail_also_at_the_target() -> None:
    found = report(True, 5.0, 50.0)
    for curve in found.curves:
        exact = 20 * 3e-3 * (curve.scale["params"] / 1e6) ** -0.4
        low, high = curve.edge_interval
        assert curve.cause is EdgeSource.FAILURE
        assert low / 1.3 < exact < high * 1.3  # runs lie a factor of two apart
    assert found.target.scale == TARGET
    edges = [curve.edge for curve in found.curves]
    assert edges == sorted(edges, reverse=True)
    assert found.target.edge_interval[1] / found.target.edge_interval[0] > 1.5
    assert EdgeSource.FAILURE.value in str(found)


def test_a_failed_run_counts_as_the_loss_of_an_untrained_model() -> None:
    low, high = report(True, 5.0, 50.0), report(True, 8.0, 50.0)
    assert low.target.sensitivity < high.target.sensitivity
    assert (low.initial_loss, high.initial_loss) == (5.0, 8.0)


def test_losses_are_in_the_direction_of_the_user() -> None:
    up, down = report(False, -10.0, direction="maximize"), report(False, 10.0)
    assert up.target.sensitivity == pytest.approx(down.target.sensitivity, rel=0.05)
    assert up.target.loss.max() == pytest.approx(-down.target.loss.min(), rel=0.01)
    assert np.all(up.target.low <= up.target.high)


def test_without_an_edge_in_the_searched_range_it_is_infinite_with_a_warning() -> None:
    found = report(False, 10.0, 100.0)
    assert found.target.cause is EdgeSource.NONE and math.isinf(found.target.edge)
    assert len(found.warnings) == 2 and "no edge at the target" in found.warnings[1]
    assert EdgeSource.NONE.value in str(found)
    assert found.to_pandas()["edge"].map(math.isinf).all()


def test_the_picture_has_a_curve_for_each_scale(tmp_path: Path) -> None:
    figure = report(True, 5.0, 50.0).plot(tmp_path / "edge.png")
    assert (tmp_path / "edge.png").read_bytes().startswith(b"\x89PNG")
    labels = figure.axes[0].get_legend_handles_labels()[1]
    assert labels[:4] == ["params 1e+05", "params 1e+06", "params 1e+07", "params 1e+08"]
    assert "edge at the target, 90 %" in labels


def test_axes_called_like_our_columns_keep_a_column_of_their_own() -> None:
    curve = replace(report(True, 5.0, 50.0).curves[0], scale={"edge": 1e5, "cause": 2.0, "n": 3.0})
    table = Instability("lr", (curve,), initial_loss=5.0, warnings=()).to_pandas()
    assert table["edge"].tolist() == [curve.edge] and table["cause"].tolist() == [curve.cause.value]
    assert table[["params_edge", "params_cause", "n"]].to_numpy().tolist() == [[1e5, 2.0, 3.0]]


def test_bad_arguments_are_refused_with_the_way_out() -> None:
    optimizer = Optimizer(SPACE)
    for lr in (1e-3, 1e-2, 1e-1):
        optimizer.tell({"lr": lr, "params": 1e6}, loss(lr, 1e6))
    told = optimizer.result()
    with pytest.raises(ValueError, match="`initial_loss` must be worse than the best run's"):
        told.instability(initial_loss=1.0)
    with pytest.raises(ValueError, match="`rise` must be a finite number above 0"):
        told.instability(rise=-1.0)
    with pytest.raises(SpaceError, match="log=True, got 'params'"):
        told.instability(parameter="params")
    plain = Optimizer({"x": Float(1e-4, 1.0, log=True)})
    plain.tell({"x": 0.1}, 1.0)
    with pytest.raises(SpaceError, match="role=Role.LR, or name it"):
        plain.result().instability()


def test_the_smallest_size_is_not_rounded_below_its_axis() -> None:
    optimizer = Optimizer({"lr": SPACE["lr"], "width": Scale(64, 256)})
    assert math.exp(round(math.log(64), 9)) < 64
    for lr in (1e-3, 1e-2, 1e-1):
        optimizer.tell({"lr": lr, "width": 64}, 1.0 + math.log10(lr / 1e-2) ** 2)
    assert sizes(optimizer.result().models) == [{"width": 64.0}]


def test_draws_of_success_average_to_its_probability() -> None:
    columns = Columns((ColumnKind.DECISION,), ("x",), np.zeros(1), np.ones(1), (0,))
    X = np.linspace(0.0, 1.0, 20)[:, None]
    model = FeasibilityModel().fit(TrainingData(X, (X[:, 0] < 0.6).astype(float), columns))
    draws = model.sample(X, 4000, np.random.default_rng(0))
    assert draws.shape == (4000, 20)
    # MacKay's formula is an approximation, good to about 0.02
    assert np.allclose(draws.mean(axis=0), model.probability(X), atol=0.03)


def test_success_beyond_the_runs_does_not_rise_again() -> None:
    """Small models succeed and large ones fail, so still larger ones must not succeed again."""
    columns = Columns((ColumnKind.SCALE,), ("params",), np.zeros(1), np.ones(1), (0,))
    X = np.linspace(0.0, 1.0, 20)[:, None]
    data = TrainingData(X, (X[:, 0] < 0.6).astype(float), columns)
    straight = FeasibilityModel(scale_square_sd=1e-6).fit(data)
    far = straight.probability(np.array([[0.5], [1.0], [2.0]]))
    assert np.all(np.diff(far) < 0)


@pytest.mark.parametrize(("low", "high"), [(1e3, 1e5), (3.7e4, 7e9), (1 / 3, 2e7 / 3)])
def test_the_sizes_at_the_ends_of_an_axis_are_those_ends(low, high):
    optimizer = Optimizer({"x": Float(0, 1), "n": Scale(low, high)}, target={"n": low})
    for n in (low, math.sqrt(low * high), high):
        optimizer.tell({"x": 0.5, "n": n}, loss=1.0 / n)
    found = [at["n"] for at in sizes(optimizer.result().models)]
    assert (found[0], found[-1]) == (low, high)


def test_a_target_at_the_least_size_is_not_below_every_proxy_by_rounding():
    space = {"lr": Float(1e-4, 1e-1, log=True, role=Role.LR), "n": Scale(1e3, 1e5)}
    optimizer = Optimizer(space, target={"n": math.exp(math.log(1e3))})
    for i in range(6):
        n, lr = (1e3, 1e5)[i % 2], 10.0 ** (-4 + i / 2)
        optimizer.tell({"lr": lr, "n": n}, n**-0.3 + 0.1 * (math.log10(lr) + 2.5) ** 2)
    report = optimizer.result().instability()
    assert len(report.curves) == 2  # the target is the size of three runs
