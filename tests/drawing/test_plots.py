"""Pictures from arrays, and what a result gives to them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo import Axis, Float, Optimizer, Role, Scale
from hpo.drawing.plot_data import FrontPlot, LRCurvePlot, Measured, PredictedLosses, TransferPanel
from hpo.drawing.plots import plot_coordinates, plot_front, plot_instability, plot_transfer

SPACE = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "tokens": Scale(1e4, 1e6, axis=Axis.TOKENS),
}
COST, LOSS = np.array([1.0, 2.0, 4.0, 8.0]), np.array([3.0, 2.5, 2.0, 2.2])
FRONT = FrontPlot(COST, LOSS, front_cost=COST[:3], front_loss=LOSS[:3])


def told(losses_at: str = "minimize", target: dict[str, float] | None = None) -> Optimizer:
    """Return an optimizer with ten runs of a power law with a bowl in ln lr."""
    optimizer = Optimizer(SPACE, cost="flops", direction=losses_at, target=target)
    for lr in (1e-3, 4e-3):
        for tokens in np.geomspace(1e4, 1e6, 5):
            loss = 1.0 + 20 * tokens**-0.3 + 0.05 * np.log(lr / 2e-3) ** 2
            sign = 1.0 if losses_at == "minimize" else -1.0
            optimizer.tell({"lr": lr, "tokens": tokens}, sign * loss, cost=100 * tokens)
    return optimizer


def labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def test_front_of_a_result_shows_trials_and_predictions_up_to_the_target(tmp_path: Path) -> None:
    path = tmp_path / "front.png"
    stars = {"target": Measured(cost=8e8, loss=1.2)}
    figure = told(target={"tokens": 8e6}).result().plot_front(path, measured=stars)
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert labels(axes) == [
        "trials",
        "front, expected loss",
        "predicted up to the target",
        "90 % interval",
        "path of the search",
        "target",
    ]
    line = next(line for line in axes.lines if line.get_label() == "predicted up to the target")
    assert np.all(np.diff(np.asarray(line.get_xdata())) > 0)
    assert np.all(np.diff(np.asarray(line.get_ydata())) < 0)
    assert float(np.asarray(line.get_xdata())[-1]) == pytest.approx(8e8, rel=0.1)


def test_front_of_a_result_needs_no_target() -> None:
    (axes,) = told().result().plot_front().axes
    assert labels(axes) == ["trials", "front, expected loss", "path of the search"]
    assert axes.get_xlabel() == "cost (flops)"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_runs_of_far_worse_loss_are_counted_instead_of_drawn(direction: str) -> None:
    optimizer = told(direction)
    sign = 1.0 if direction == "minimize" else -1.0
    optimizer.tell({"lr": 1e-1, "tokens": 1e5}, sign * 50.0, cost=1e7)
    (axes,) = optimizer.result().plot_front().axes
    assert labels(axes)[0] == "trials (and 1 of far worse loss)"


@pytest.mark.parametrize("cost", [None, 0.0])
def test_a_front_without_costs_is_an_empty_picture_with_the_way_out(cost: float | None) -> None:
    optimizer = Optimizer({"lr": SPACE["lr"]})
    optimizer.tell({"lr": 1e-3}, 1.0, cost=cost)
    (axes,) = optimizer.result().plot_front().axes
    assert "report cost=" in axes.get_title() and not axes.lines


def test_a_front_of_nothing_shows_what_was_measured_by_hand(tmp_path: Path) -> None:
    picture = tmp_path / "front.png"
    result = Optimizer({"lr": SPACE["lr"]}, cost="seconds").result()
    (axes,) = result.plot_front(picture, measured={"by hand": Measured(8.0, 0.5)}).axes
    assert labels(axes) == ["by hand"] and picture.stat().st_size > 0


def test_front_draws_what_it_is_given() -> None:
    beyond = PredictedLosses(COST[2:] * 4, LOSS[2:] - 1, LOSS[2:] - 1.5, LOSS[2:] - 0.5)
    (axes,) = plot_front(replace(FRONT, predicted=beyond)).axes
    trials, steps, members, line = axes.lines
    assert np.array_equal(trials.get_xydata(), np.stack([COST, LOSS], axis=1))
    assert np.array_equal(members.get_xydata(), np.stack([COST[:3], LOSS[:3]], axis=1))
    assert np.array_equal(line.get_ydata(), beyond.loss)
    assert axes.get_xscale() == "log" and axes.get_xlabel() == "cost (as told)"


def panel(parameter: str, axis: str, *, log: bool = True) -> TransferPanel:
    """Return a panel of four runs at two sizes, drawn between 1e-3 and 1e-2."""
    scale, setting = np.log([1e5, 1e5, 1e6, 1e6]), np.log([1e-3, 1e-2, 1e-3, 1e-2])
    line = np.log([3e-3, 1e3])  # the second leaves the picture
    return TransferPanel(
        parameter=parameter,
        axis=axis,
        label=parameter,
        log=log,
        verdict="drifts",
        slope=0.5,
        slope_interval=(0.4, 0.6),
        scale=scale,
        setting=setting,
        excess=np.array([0.2, 0.1, 0.3, 0.0]),
        best=(1, 3),
        line_scale=scale[::2],
        line=line,
        low=line - 0.1,
        high=line + 0.1,
    )


def test_transfer_panels_stand_in_rows_of_parameters_and_columns_of_axes() -> None:
    pairs = [(p, a) for p in ("lr", "dropout") for a in ("params", "tokens")]
    figure = plot_transfer([panel(p, a, log=p == "lr") for p, a in pairs])
    assert [(axes.get_ylabel(), axes.get_xlabel()) for axes in figure.axes] == pairs
    assert [axes.get_yscale() for axes in figure.axes] == ["log", "log", "linear", "linear"]
    assert {axes.get_title() for axes in figure.axes} == {"drifts\nslope +0.50 (+0.40 to +0.60)"}


def test_a_fitted_optimum_far_outside_the_runs_does_not_widen_the_picture() -> None:
    (axes,) = plot_transfer([panel("lr", "params")]).axes
    low, high = axes.get_ylim()
    assert 1e-4 < low < 1e-3 and 1e-2 < high < 1e-1
    optimum = next(line for line in axes.lines if line.get_label() == "fitted optimum")
    assert np.asarray(optimum.get_ydata()) == pytest.approx([3e-3, high])


def test_instability_cuts_losses_at_that_of_a_failed_run_and_marks_finite_edges() -> None:
    lr, loss = np.geomspace(1e-4, 1e-1, 4), np.array([2.0, 1.0, 1.5, 9.0])
    curves = [
        LRCurvePlot("params 1e+06", lr, loss, 1e-3, np.inf, (np.inf, np.inf)),
        LRCurvePlot("params 1e+07", lr, loss, 1e-3, 5e-2, (2e-2, np.inf)),
    ]
    (axes,) = plot_instability(curves, parameter="lr", initial_loss=4.0).axes
    assert labels(axes) == [
        "params 1e+06",
        "params 1e+07",
        "edge at the target, 90 %",
        "failed run",
    ]
    assert np.asarray(axes.lines[0].get_ydata()).max() == 4.0
    assert sum(line.get_linestyle() == "--" for line in axes.lines) == 1


def test_coordinates_name_the_layers_that_are_not_flat() -> None:
    ones = np.ones((3, 2))
    sizes, growth = [16, 32, 64], ones * np.array([[1.0], [2.0], [4.0]])
    arguments = {"slopes": {"a": 0.0, "b": 0.0, "c": 1.0}, "updates": 4}
    changes = {"a": ones, "b": ones, "c": growth}
    verdicts = {"a": "flat", "b": "flat", "c": "grows"}
    (axes,) = plot_coordinates(sizes, changes, verdicts=verdicts, **arguments).axes
    assert axes.get_title() == "failed"
    assert labels(axes) == ["flat", "c, grows, slope +1.00"]
    assert np.asarray(axes.lines[2].get_ydata()) == pytest.approx([1.0, 2.0, 4.0])
    good = plot_coordinates(sizes, changes, verdicts=dict.fromkeys(changes, "flat"), **arguments)
    assert good.axes[0].get_title() == "passed"


@pytest.mark.parametrize(
    "name", ["$", "$x$", r"$\frac$", "a_$b^c$_{", "_hidden", "^", "cost $^$ {"]
)
def test_names_of_users_are_shown_letter_by_letter_and_never_read_as_formulas(
    tmp_path: Path, name: str
) -> None:
    s, z = np.log([1e5, 1e6]), np.log([1e-3, 1e-2])
    panel = TransferPanel(
        name, name, name, True, "drifts", 0.0, (-0.1, 0.1), s, z, z * 0, (1,), s, z, z - 1, z + 1
    )
    lr = np.array([1e-3, 1e-2])
    curve = LRCurvePlot(name, lr, lr + 1, 1e-3, 8e-3, (5e-3, 9e-3))
    figures = [
        plot_front(
            replace(FRONT, cost_unit=name),
            tmp_path / "front.png",
            measured={name: Measured(8.0, 1.5)},
        ),
        plot_transfer([panel], tmp_path / "transfer.png"),
        plot_instability([curve], tmp_path / "lr.png", parameter=name, initial_loss=5.0),
        plot_coordinates(
            [64, 128],
            {name: np.array([[1.0], [2.0]])},
            tmp_path / "layers.png",
            slopes={name: 1.0},
            verdicts={name: "grows"},
            updates=3,
        ),
    ]
    assert len(list(tmp_path.iterdir())) == 4
    shown = [text for figure in figures for text in (*labels(figure.axes[0]), _xlabel(figure))]
    assert sum(name.replace("$", r"\$") in text for text in shown) >= 5
    assert not any(text.startswith("_") for text in shown)


def _xlabel(figure: Figure) -> str:
    return figure.axes[0].get_xlabel()


def test_a_format_that_cannot_be_written_is_refused_with_those_that_can(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`path` must end in one of the formats .*write \.png"):
        plot_front(FRONT, tmp_path / "front.xyz")


@pytest.mark.filterwarnings("error")
def test_a_name_with_dollar_signs_is_drawn_letter_by_letter(tmp_path: Path) -> None:
    name = r"$\frac$, $x_1$"
    s, z = np.log([1e5, 1e5, 1e6, 1e6]), np.log([1e-3, 1e-2, 1e-3, 1e-2])
    line, losses = np.log([3e-3, 3e-3]), np.array([2.0, 1.0, 1.5, 3.0])
    excess, band = np.array([0.2, 0.1, 0.3, 0.0]), (-0.1, 0.1)
    panel = TransferPanel(
        name, name, name, True, "drifts", 0.0, band, s, z, excess, (1, 3), s[::2], line, line, line
    )
    curve = LRCurvePlot(name, np.geomspace(1e-4, 1e-1, 4), losses, 1e-3, 5e-2, (2e-2, 1e-1))
    figures = [
        plot_front(replace(FRONT, cost_unit=name), measured={name: Measured(8.0, 1.5)}),
        plot_transfer([panel]),
        plot_instability([curve], parameter=name, initial_loss=4.0),
        plot_coordinates(
            [16, 32],
            {name: np.ones((2, 1))},
            slopes={name: 0.5},
            verdicts={name: "grows"},
            updates=4,
        ),
    ]
    for number, figure in enumerate(figures):
        path = tmp_path / f"{number}.svg"
        with rc_context({"svg.fonttype": "none"}):
            figure.savefig(path)
        assert r"$\frac$, $x_1$" in path.read_text()
