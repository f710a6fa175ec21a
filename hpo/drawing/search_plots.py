"""Pictures of a search, drawn with matplotlib from arrays and plain values.

`draw_...` draws on axes that are given and returns the data it was given; `plot_...` makes a
figure of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import Normalize

from hpo.drawing.conventions import (
    BLUE,
    FAILED_COLOR,
    GRAY,
    GREEN,
    NOT_ENOUGH,
    ORANGE,
    STATUS_COLORS,
    near_best,
    rank_of,
    time_unit,
)
from hpo.drawing.picture import Picture
from hpo.drawing.plots import plain, save
from hpo.drawing.search_data import (
    BudgetPlot,
    CalibrationPlot,
    ContourPlot,
    CurvesPlot,
    Dimension,
    ImportancePlot,
    ParallelPlot,
    SlicePlot,
    TimelinePlot,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Data = TypeVar("Data")


def draw_slice(axes: Axes, data: SlicePlot) -> SlicePlot:
    """Draw the expected loss along one setting, its 90 % interval, the runs and the answer."""
    shown = near_best(data.run_loss, data.maximize)
    ticks = _set_axis(axes, data.setting)
    axes.plot(
        data.run_value[shown], data.run_loss[shown], "o", ms=3.5, alpha=0.45, color=GRAY,
        label="runs, moved to this slice",
    )  # fmt: skip
    if ticks:
        spread = np.abs(np.stack([data.low, data.high]) - data.loss)
        axes.errorbar(
            data.value, data.loss, spread, fmt="s", color=ORANGE, capsize=4,
            label="expected loss, 90 % interval",
        )  # fmt: skip
    else:
        axes.plot(data.value, data.loss, lw=2, color=ORANGE, label="expected loss")
        axes.fill_between(
            data.value, data.low, data.high, alpha=0.25, lw=0, color=ORANGE, label="90 % interval"
        )
    if data.recommended is not None:
        axes.axvline(data.recommended, ls="--", lw=1.2, color=BLUE, label="recommended")
    seen = np.concatenate([data.run_loss[shown], data.loss])
    room = 0.08 * float(np.ptp(seen)) or 0.5
    axes.set_ylim(float(seen.min()) - room, float(seen.max()) + room)
    axes.set_ylabel(plain(data.loss_label))
    axes.grid(alpha=0.25)
    return data


def plot_slice(slices: tuple[SlicePlot, ...], path: str | Path | None = None) -> Picture:
    """Plot one panel a setting.

    Args:
        slices: Slices, at least one.
        path: File to save the figure to, its suffix giving the format; None for no file.

    Example:
        >>> x = np.array([0.0, 0.5, 1.0])
        >>> data = SlicePlot(Dimension("x"), x, x**2, x**2 - 1, x**2 + 1, x, x**2, 0.0)
        >>> plot_slice((data,)).axes[0].get_xlabel()
        'x'
    """
    wide = min(3, len(slices))
    high = -(-len(slices) // wide)
    figure = Picture(slices, (1.0 + 4.2 * wide, 0.8 + 3.3 * high))
    panels = figure.subplots(high, wide, squeeze=False).ravel()
    for axes, data in zip(panels, slices, strict=False):
        draw_slice(axes, data)
    for axes in panels[len(slices) :]:
        axes.set_axis_off()
    if slices[0].at:
        figure.suptitle(plain(slices[0].at), fontsize=10)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", frameon=False,
        ncols=min(4, 2 * wide),
    )  # fmt: skip
    save(figure, path)
    return figure


def draw_contour(axes: Axes, data: ContourPlot) -> ContourPlot:
    """Draw the expected loss over two settings, the runs and the answer."""
    for setting, name in ((data.x, "x"), (data.y, "y")):
        _set_axis(axes, setting, name)
    colors = "cividis" if data.maximize else "cividis_r"
    if data.x.choices or data.y.choices:
        surface: ScalarMappable = axes.pcolormesh(
            data.x_value, data.y_value, data.loss, cmap=colors
        )
    else:
        surface = axes.contourf(data.x_value, data.y_value, data.loss, levels=14, cmap=colors)
    axes.plot(data.run_x, data.run_y, "o", ms=4, mfc="none", mec="black", alpha=0.5, label="runs")
    axes.plot(*data.recommended, "*", ms=16, mfc=ORANGE, mec="white", label="recommended")
    axes.figure.colorbar(surface, ax=axes, label=plain(f"expected {data.loss_label}"))
    axes.legend(frameon=True, fontsize=8)
    if data.at:
        axes.set_title(plain(data.at), fontsize=10)
    return data


def plot_contour(data: ContourPlot, path: str | Path | None = None) -> Picture:
    """Plot the expected loss over two settings; see :func:`draw_contour`.

    Example:
        >>> x = np.array([0.0, 1.0])
        >>> data = ContourPlot(Dimension("x"), Dimension("y"), x, x, np.outer(x, x), x, x, (0.0, 0))
        >>> plot_contour(data).axes[0].get_ylabel()
        'y'
    """
    return _alone(draw_contour, data, path)


def draw_importance(axes: Axes, data: ImportancePlot) -> ImportancePlot:
    """Draw one bar a setting; without enough data the picture says so and has no bar."""
    if not data.enough:
        axes.set_title(f"{NOT_ENOUGH} ({data.runs} runs)", fontsize=10)
        axes.set_axis_off()
        return data
    place = np.arange(len(data.names))[::-1]
    axes.barh(place, data.share, color=BLUE, height=0.6)
    spread = np.abs(np.stack([data.low, data.high]) - data.share)
    axes.errorbar(data.share, place, xerr=spread, fmt="none", color="black", capsize=3, lw=1)
    axes.set_yticks(place, [plain(name) for name in data.names])
    axes.set(xlim=(0, 1), xlabel="share of the variation of the expected loss, 90 % interval")
    axes.grid(alpha=0.25, axis="x")
    if data.at:
        axes.set_title(plain(data.at), fontsize=10)
    return data


def plot_importance(data: ImportancePlot, path: str | Path | None = None) -> Picture:
    """Plot how much each setting matters; see :func:`draw_importance`.

    Example:
        >>> share = np.array([0.9, 0.1])
        >>> data = ImportancePlot(("lr", "batch"), share, share, share, enough=True, runs=20)
        >>> len(plot_importance(data).axes[0].patches)
        2
    """
    return _alone(draw_importance, data, path, (7.0, 1.3 + 0.4 * max(3, len(data.names))))


def draw_curves(axes: Axes, data: CurvesPlot) -> CurvesPlot:
    """Draw learning curves, and the forecast of those that are not complete."""
    labels = set()

    def once(label: str) -> str:
        first = label not in labels
        labels.add(label)
        return label if first else "_"

    for curve in data.curves:
        color, label = (GRAY, "complete") if curve.finished else (BLUE, "not complete")
        axes.plot(
            curve.step, curve.loss, "-" if len(curve.step) > 1 else "o", ms=3, lw=1, alpha=0.6,
            color=color, label=once(label),
        )  # fmt: skip
        if curve.later is not None and curve.forecast is not None:
            middle, low, high = curve.forecast
            axes.plot(curve.later, middle, "--", lw=1.2, color=ORANGE, label=once("forecast"))
            axes.fill_between(
                curve.later, low, high, alpha=0.12, lw=0, color=ORANGE,
                label=once("90 % interval"),
            )  # fmt: skip
    if data.curves:
        best = data.curves[-1]
        axes.plot(best.step, best.loss, lw=2.5, color=GREEN, label=f"best, trial {best.number}")
        last = np.concatenate([curve.loss for curve in data.curves])
        shown = last[near_best(last, data.maximize)]
        room = 0.05 * float(np.ptp(shown)) or 0.5
        axes.set_ylim(float(shown.min()) - room, float(shown.max()) + room)
        axes.legend(frameon=False, fontsize=9)
    axes.set(xlabel=plain(data.step_label), ylabel=plain(data.loss_label))
    if data.hidden:
        axes.set_title(f"{data.hidden} more runs are not drawn", fontsize=10)
    axes.grid(alpha=0.25)
    return data


def plot_curves(data: CurvesPlot, path: str | Path | None = None) -> Picture:
    """Plot learning curves; see :func:`draw_curves`.

    Example:
        >>> from hpo.drawing.search_data import LearningCurve
        >>> curve = LearningCurve(3, np.array([1.0, 2.0]), np.array([0.9, 0.5]), finished=True)
        >>> plot_curves(CurvesPlot((curve,), step_label="epochs")).axes[0].get_xlabel()
        'epochs'
    """
    return _alone(draw_curves, data, path)


def draw_parallel(axes: Axes, data: ParallelPlot) -> ParallelPlot:
    """Draw one line a run through its settings, from 0 to 1 on each; the best are drawn last."""
    count = len(data.settings)
    unit = np.full(data.value.shape, np.nan)
    for k, setting in enumerate(data.settings):
        column = np.log(data.value[:, k]) if setting.log else data.value[:, k]
        known = np.isfinite(column)
        if known.any():
            low, span = np.min(column[known]), np.ptp(column[known])
            unit[:, k] = 0.5 if span == 0 else (column - low) / span
            for height, value in ((-0.04, data.value[known, k].min()),
                                  (1.02, data.value[known, k].max())):  # fmt: skip
                text = setting.choices[int(value)] if setting.choices else f"{value:.3g}"
                axes.text(
                    k, height, plain(text), ha="center", va="top" if height < 0 else "bottom",
                    fontsize=8,
                )  # fmt: skip
    rank = rank_of(data.loss, data.maximize)
    order = np.argsort(rank)
    lines = [np.stack([np.arange(count), unit[i]], axis=1) for i in order]
    axes.add_collection(
        LineCollection(lines, cmap="cividis", array=rank[order], alpha=0.6, linewidths=1.2)
    )
    axes.vlines(np.arange(count), 0, 1, color="black", lw=0.8)
    axes.set(xlim=(-0.3, count - 0.7), ylim=(-0.14, 1.12), yticks=[])
    names = [plain(setting.name) for setting in data.settings]
    axes.set_xticks(np.arange(len(names)), names)
    for side in ("left", "right", "top", "bottom"):
        axes.spines[side].set_visible(False)
    bar = axes.figure.colorbar(
        ScalarMappable(Normalize(0, 1), "cividis"), ax=axes, ticks=[0, 1], shrink=0.8
    )
    bar.ax.set_yticklabels(["worst", "best"])
    return data


def plot_parallel(data: ParallelPlot, path: str | Path | None = None) -> Picture:
    """Plot the settings of all runs side by side; see :func:`draw_parallel`.

    Example:
        >>> value = np.array([[1e-3, 0.0], [1e-2, 1.0]])
        >>> settings = (Dimension("lr", log=True), Dimension("act", choices=("relu", "gelu")))
        >>> data = ParallelPlot(settings, value, np.array([0.5, 0.4]))
        >>> [tick.get_text() for tick in plot_parallel(data).axes[0].get_xticklabels()]
        ['lr', 'act']
    """
    return _alone(draw_parallel, data, path, (1.5 + 1.6 * max(3, len(data.settings)), 4.5))


def draw_calibration(axes: Axes, data: CalibrationPlot) -> CalibrationPlot:
    """Draw predicted against observed losses, with the line on which they agree."""
    if len(data.observed):
        within = (data.low <= data.observed) & (data.observed <= data.high)
        shown = np.quantile(data.observed, [0.0, 0.9]), np.quantile(data.predicted, [0.0, 0.9])
        low, high = np.min(shown), np.max(shown)
        room = 0.1 * (high - low) or 0.5
        limits = (float(low - room), float(high + room))
        axes.plot(limits, limits, color=GRAY, lw=1, ls="--", label="as predicted")
        for mark, color, chosen, label in (
            ("o", BLUE, within, "within its 90 % interval"),
            ("X", ORANGE, ~within, "outside"),
        ):
            spread = np.abs(np.stack([data.low, data.high]) - data.predicted)[:, chosen]
            axes.errorbar(
                data.observed[chosen], data.predicted[chosen], spread, fmt=mark, ms=5, lw=0.7,
                color=color, label=label,
            )  # fmt: skip
        axes.set(xlim=limits, ylim=limits)
        axes.legend(frameon=False, fontsize=9)
    axes.set_title(
        f"{data.inside} of {len(data.observed)} losses lie within their 90 % interval", fontsize=10
    )
    name = plain(data.loss_label)
    axes.set(xlabel=f"observed {name}", ylabel=f"predicted {name}")
    axes.grid(alpha=0.25)
    return data


def plot_calibration(data: CalibrationPlot, path: str | Path | None = None) -> Picture:
    """Plot the predictions made before each run beside its loss; see :func:`draw_calibration`.

    Example:
        >>> x = np.array([1.0, 2.0])
        >>> data = CalibrationPlot(np.arange(2), x, x - 0.5, x + 0.5, np.array([1.1, 3.0]))
        >>> plot_calibration(data).axes[0].get_title()
        '1 of 2 losses lie within their 90 % interval'
    """
    return _alone(draw_calibration, data, path, (6.0, 6.0))


def draw_timeline(axes: Axes, data: TimelinePlot) -> TimelinePlot:
    """Draw one bar a trial, in the lane where it ran."""
    seconds, unit = time_unit(float(data.end.max()) if len(data.end) else 1.0)
    statuses = list(dict.fromkeys(data.status))
    for status in statuses:
        mine = np.array([other == status for other in data.status])
        axes.barh(
            data.lane[mine], (data.end - data.start)[mine] / seconds,
            left=data.start[mine] / seconds, height=0.75, edgecolor="white", linewidth=0,
            color=STATUS_COLORS.get(status, FAILED_COLOR),
            hatch=None if status in STATUS_COLORS else "//", label=plain(status),
        )  # fmt: skip
    lanes = int(data.lane.max()) + 1 if len(data.lane) else 1
    axes.set_yticks(np.arange(lanes), [f"lane {k + 1}" for k in range(lanes)])
    axes.set(xlabel=f"time since the first start ({unit})", ylim=(lanes - 0.4, -0.6))
    if statuses:
        axes.figure.legend(loc="outside lower center", frameon=False, ncols=5)
    return data


def plot_timeline(data: TimelinePlot, path: str | Path | None = None) -> Picture:
    """Plot when each trial ran; see :func:`draw_timeline`.

    Example:
        >>> x = np.array([0.0, 1.0])
        >>> data = TimelinePlot(x, 0 * x, x, x + 1.0, ("completed", "oom"))
        >>> len(plot_timeline(data).axes[0].patches)
        2
    """
    lanes = int(data.lane.max()) + 1 if len(data.lane) else 1
    return _alone(draw_timeline, data, path, (9.0, 1.6 + 0.4 * min(lanes, 24)))


def draw_budget(axes: Axes, data: BudgetPlot) -> BudgetPlot:
    """Draw the loss of each trial and the best so far against what was spent."""
    shown = near_best(data.loss, data.maximize)
    left_out = int(np.sum(~shown))
    label = "trials" if not left_out else f"trials (and {left_out} of far worse {data.loss_label})"
    axes.plot(data.spent[shown], data.loss[shown], "o", ms=4, alpha=0.5, color=GRAY, label=label)
    axes.step(data.spent, data.best, where="post", lw=2, color=BLUE, label="best so far")
    if shown.any():
        seen = np.concatenate([data.loss[shown], data.best[-1:]])
        room = 0.05 * float(np.ptp(seen)) or 0.5
        axes.set_ylim(float(seen.min()) - room, float(seen.max()) + room)
    axes.set(xlabel=plain(f"spent ({data.unit})"), ylabel=plain(data.loss_label))
    axes.legend(frameon=False)
    axes.grid(alpha=0.25)
    return data


def plot_budget(data: BudgetPlot, path: str | Path | None = None) -> Picture:
    """Plot the best loss so far against what was spent; see :func:`draw_budget`.

    Example:
        >>> falling = np.array([3.0, 1.0])
        >>> data = BudgetPlot(np.array([1.0, 2.0]), falling, falling, "trials")
        >>> plot_budget(data).axes[0].get_xlabel()
        'spent (trials)'
    """
    return _alone(draw_budget, data, path)


def _set_axis(axes: Axes, setting: Dimension, name: str = "x") -> bool:
    """Name an axis and set its scale; return whether it is one of choices."""
    axis = axes.xaxis if name == "x" else axes.yaxis
    axis.set_label_text(plain(setting.name))
    if setting.choices:
        axis.set_ticks(range(len(setting.choices)), [plain(text) for text in setting.choices])
    elif setting.log:
        (axes.set_xscale if name == "x" else axes.set_yscale)("log")
    return bool(setting.choices)


def _alone(
    draw: Callable[[Axes, Data], Data],
    data: Data,
    path: str | Path | None,
    size: tuple[float, float] = (8.0, 5.0),
) -> Picture:
    figure = Picture(data, size)
    draw(figure.subplots(), data)
    save(figure, path)
    return figure
