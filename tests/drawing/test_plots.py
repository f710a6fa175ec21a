from pathlib import Path

import numpy as np
import pytest
from matplotlib.axes import Axes

from hpo import Axis, Float, Role, Scale
from hpo.drawing.plots import Measured, plot_front
from hpo.optimizer.ask_tell import Optimizer

SPACE = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "tokens": Scale(1e4, 1e6, axis=Axis.TOKENS),
}


def told(losses_at: str = "minimize", target: dict[str, float] | None = None) -> Optimizer:
    """An optimizer that was told ten runs of a power law with a bowl in ln lr."""
    optimizer = Optimizer(SPACE, cost="flops", direction=losses_at, target=target)
    for lr in (1e-3, 4e-3):
        for tokens in np.geomspace(1e4, 1e6, 5):
            loss = 1.0 + 20 * tokens**-0.3 + 0.05 * np.log(lr / 2e-3) ** 2
            sign = 1.0 if losses_at == "minimize" else -1.0
            optimizer.tell({"lr": lr, "tokens": tokens}, sign * loss, cost=100 * tokens)
    return optimizer


def labels(axes: Axes) -> list[str]:
    return axes.get_legend_handles_labels()[1]


def test_front_plot_shows_trials_front_and_law_up_to_the_target(tmp_path: Path) -> None:
    result = told(target={"tokens": 8e6}).result()
    path = tmp_path / "front.png"
    figure = plot_front(result, path, measured={"target": Measured(cost=8e8, loss=1.2)})
    assert path.read_bytes().startswith(b"\x89PNG")
    (axes,) = figure.axes
    assert labels(axes) == [
        "trials",
        "front, expected loss",
        "predicted up to the target",
        "90 % interval",
        "target",
    ]
    law = next(line for line in axes.lines if line.get_label() == "predicted up to the target")
    assert np.all(np.diff(np.asarray(law.get_xdata())) > 0)
    assert np.all(np.diff(np.asarray(law.get_ydata())) < 0)
    assert float(np.asarray(law.get_xdata())[-1]) == pytest.approx(8e8, rel=0.1)


def test_front_plot_needs_no_target() -> None:
    (axes,) = plot_front(told().result()).axes
    assert labels(axes) == ["trials", "front, expected loss"]
    assert axes.get_xlabel() == "cost (flops)"


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_runs_of_far_worse_loss_are_counted_instead_of_drawn(direction: str) -> None:
    optimizer = told(direction)
    sign = 1.0 if direction == "minimize" else -1.0
    optimizer.tell({"lr": 1e-1, "tokens": 1e5}, sign * 50.0, cost=1e7)
    (axes,) = plot_front(optimizer.result()).axes
    assert labels(axes)[0] == "trials (and 1 of far worse loss)"


def test_a_front_without_costs_is_refused_with_the_way_out() -> None:
    optimizer = Optimizer({"lr": SPACE["lr"]})
    optimizer.tell({"lr": 1e-3}, 1.0)
    with pytest.raises(ValueError, match="report cost="):
        plot_front(optimizer.result())
