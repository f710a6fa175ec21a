"""Pictures of a search: what they hold, with matplotlib and with Plotly."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hpo.drawing import search_plots
from hpo.drawing.interactive import figure_of, interactive
from hpo.drawing.search_data import (
    BudgetPlot,
    CalibrationPlot,
    ContourPlot,
    CurvesPlot,
    Dimension,
    ImportancePlot,
    LearningCurve,
    ParallelPlot,
    SlicePlot,
    TimelinePlot,
)

NAME = "<b>$x$</b>_1"  # HTML for Plotly, a formula for matplotlib
X = np.array([1.0, 2.0, 4.0])
CURVE = LearningCurve(0, X, 1 / X, finished=True)
PARTIAL = LearningCurve(1, X[:2], 2 / X[:2], False, X[1:], np.stack([X[1:]] * 3))
PICTURES: dict[Callable[[Axes, Any], Any], Any] = {
    search_plots.draw_slice: SlicePlot(
        Dimension(NAME, log=True), X, X, X - 1, X + 1, X, X, 2.0, loss_label=NAME
    ),
    search_plots.draw_contour: ContourPlot(
        Dimension(NAME), Dimension("act", choices=("a", NAME)), X, X[:2], np.outer(X[:2], X), X,
        np.array([0.0, 1.0, 1.0]), (1.0, 0.0),
    ),
    search_plots.draw_importance: ImportancePlot(
        (NAME, "y"), np.array([0.9, 0.1]), np.array([0.8, 0.0]), np.array([1.0, 0.2]), True, 30
    ),
    search_plots.draw_curves: CurvesPlot((PARTIAL, CURVE), step_label=NAME),
    search_plots.draw_parallel: ParallelPlot(
        (Dimension(NAME, log=True), Dimension("act", choices=("a", NAME))),
        np.array([[1.0, 0.0], [2.0, 1.0], [3.0, np.nan]]), X,
    ),
    search_plots.draw_calibration: CalibrationPlot(X, X, X - 1, X + 1, X + np.array([0, 0, 2])),
    search_plots.draw_timeline: TimelinePlot(
        X, np.zeros(3), X, X + 0.5, ("completed", "paused", "oom")
    ),
    search_plots.draw_budget: BudgetPlot(X, 1 / X, 1 / X, NAME),
}  # fmt: skip


@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
def test_a_picture_draws_on_axes_of_others_and_returns_its_data(
    draw: Callable[[Axes, Any], Any], tmp_path: Path
) -> None:
    figure = Figure(layout="constrained")
    left, right = figure.subplots(1, 2)
    assert draw(left, PICTURES[draw]) is PICTURES[draw]
    assert left.has_data() and not right.has_data()
    figure.savefig(tmp_path / "picture.png")  # a formula in a name would be refused here


@pytest.mark.parametrize("draw", PICTURES, ids=lambda draw: draw.__name__)
def test_plotly_gets_plain_json_in_which_names_are_escaped(draw: Callable[..., Any]) -> None:
    figure = figure_of(PICTURES[draw])
    text = json.dumps(figure, allow_nan=False)
    assert "<b>" not in text
    if "calibration" not in draw.__name__ and "timeline" not in draw.__name__:
        assert "&lt;b&gt;" in text
    assert len(interactive(PICTURES[draw]).data) == len(figure["data"])  # Plotly knows every field


def test_a_picture_of_this_library_shows_itself_in_a_notebook() -> None:
    picture = search_plots.plot_budget(BudgetPlot(X, 1 / X, 1 / X, "trials"))
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert picture.interactive().layout.xaxis.title.text == "spent (trials)"


def test_importance_without_enough_data_has_no_bars_and_says_so() -> None:
    data = ImportancePlot(("x",), np.ones(1), np.ones(1), np.ones(1), enough=False, runs=3)
    (axes,) = search_plots.plot_importance(data).axes
    assert not axes.patches and "not enough data" in axes.get_title()
    figure = figure_of(data)
    assert not figure["data"] and "not enough data" in figure["layout"]["title"]["text"]


def test_empty_pictures_are_drawn() -> None:
    none = np.zeros(0)
    for plot, data in (
        (search_plots.plot_budget, BudgetPlot(none, none, none, "trials")),
        (search_plots.plot_calibration, CalibrationPlot(none, none, none, none, none)),
        (search_plots.plot_curves, CurvesPlot(())),
        (search_plots.plot_parallel, ParallelPlot((), none.reshape(0, 0), none)),
        (search_plots.plot_timeline, TimelinePlot(none, none, none, none, ())),
    ):
        plot(data)._repr_png_()  # type: ignore[operator]
        figure_of(data)


def test_data_without_an_interactive_picture_are_refused_with_the_way_out() -> None:
    with pytest.raises(TypeError, match=r"pass the data of one picture, such as result\.plot"):
        figure_of({"a": 1})
