"""Pictures drawn with matplotlib, from arrays and plain values.

Figures are built without pyplot, so no global state is touched and no window opens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.ticker import LogLocator

from hpo.drawing.conventions import BLUE, GRAY, GREEN, ORANGE, PURPLE, SKY, near_best
from hpo.drawing.picture import Picture
from hpo.drawing.plot_data import (
    FrontPlot,
    LawPlot,
    LRCurvePlot,
    Measured,
    OptimumPlot,
    PredictedLosses,
    TransferPanel,
)
from surrogates.data import Array

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes

_LOG_LIMIT = 690.0  # exp overflows beyond 709
_TRIALS, _FRONT, _PREDICTED = GRAY, BLUE, ORANGE
_MEASURED = (GREEN, PURPLE, SKY, "black")
_NOTHING = (
    "no trial with a cost was completed yet;\ntell one, or report cost= from the training function"
)
_FLAT = "flat"  # the verdict on a layer that passes the coordinate check


def plot_front(
    data: FrontPlot,
    path: str | Path | None = None,
    *,
    measured: Mapping[str, Measured] | None = None,
) -> Picture:
    """Plot loss against cost: every trial, the front, and what is predicted beyond it.

    The front is drawn at its expected losses (posterior means), so a lucky run below it stays
    visible. Trials of far worse loss than the others are counted in the legend and not drawn. The
    path of the search links the trials that were the best so far when they ended.

    Args:
        data: Trials, front and predictions.
        path: File to save the figure to, its suffix giving the format; None for no file.
        measured: Runs made outside the study by name, drawn as stars.

    Returns:
        The figure; without a completed trial of positive cost it says so in its title.

    Example:
        >>> cost, loss = np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.0, 2.5])
        >>> data = FrontPlot(cost, loss, front_cost=cost[:2], front_loss=loss[:2])
        >>> plot_front(data, measured={"target": Measured(8.0, 1.5)}).axes[0].get_ylabel()
        'loss'
    """
    figure = Picture(data, (8, 5))
    draw_front(figure.subplots(), data, measured=measured)
    save(figure, path, dpi=150)
    return figure


def draw_front(
    axes: Axes, data: FrontPlot, *, measured: Mapping[str, Measured] | None = None
) -> FrontPlot:
    """Draw the front on axes that are given; see :func:`plot_front`."""
    some = len(data.front_cost) > 0 and len(data.cost) > 0
    if some:
        _draw_trials(axes, data)
        axes.step(data.front_cost, data.front_loss, where="post", color=_FRONT)
        axes.plot(data.front_cost, data.front_loss, "o", color=_FRONT, label="front, expected loss")
    else:
        axes.set_title(_NOTHING, fontsize=10)
    if some and data.predicted is not None:
        _draw_predicted(axes, data.predicted)
    if some and len(data.path) > 1:
        records = list(data.path)
        axes.plot(data.cost[records], data.loss[records], ":", lw=1.2, marker="D", ms=4,
                  color=PURPLE, label="path of the search")  # fmt: skip
    for color, (name, run) in zip(cycle(_MEASURED), (measured or {}).items(), strict=False):
        axes.plot(run.cost, run.loss, "*", ms=14, mec="white", color=color, label=plain(name))
    if some or measured:
        axes.set_xscale("log")
        axes.legend(frameon=False)
    axes.set(xlabel=plain(f"cost ({data.cost_unit or 'as told'})"), ylabel=plain(data.loss_label))
    axes.grid(alpha=0.25)
    return data


def _draw_trials(axes: Axes, data: FrontPlot) -> None:
    shown = near_best(data.loss, data.maximize)
    label = "trials" if shown.all() else f"trials (and {np.sum(~shown)} of far worse loss)"
    axes.plot(data.cost[shown], data.loss[shown], "o", ms=4, alpha=0.6, color=_TRIALS, label=label)


def _draw_predicted(axes: Axes, predicted: PredictedLosses) -> None:
    cost, band = predicted.cost, (predicted.low, predicted.high)
    axes.plot(cost, predicted.loss, "--", color=_PREDICTED, label="predicted up to the target")
    axes.fill_between(cost, *band, alpha=0.2, color=_PREDICTED, lw=0, label="90 % interval")


def plot_transfer(panels: Sequence[TransferPanel], path: str | Path | None = None) -> Picture:
    r"""Plot the runs, the best of each size and the fitted optimum, one panel a pair.

    Rows are parameters and columns are scale axes. Runs are dots, darker the nearer their loss is
    to the best at their scale. The line is the fitted optimum with its 90 % band: flat where the
    setting transfers.

    Args:
        panels: Panels of distinct pairs of parameter and axis, at least one.
        path: File to save the figure to, its suffix giving the format; None for no file.

    Returns:
        The figure.

    Example:
        >>> s, z = np.log([1e5, 1e5, 1e6, 1e6]), np.log([1e-3, 1e-2, 1e-3, 1e-2])
        >>> line = np.log([3e-3, 3e-3])
        >>> panel = TransferPanel("lr", "params", "lr", True, "drifts", 0.0, (-0.1, 0.1), s, z,
        ...     np.array([0.2, 0.1, 0.3, 0.0]), (1, 3), s[::2], line, line - 0.1, line + 0.1)
        >>> plot_transfer([panel]).axes[0].get_title()
        'drifts\nslope +0.00 (-0.10 to +0.10)'
    """
    parameters = list(dict.fromkeys(panel.parameter for panel in panels))
    axes_names = list(dict.fromkeys(panel.axis for panel in panels))
    size = (1.0 + 4.2 * len(axes_names), 0.4 + 3.4 * len(parameters))
    figure = Picture(tuple(panels), size)
    grid = figure.subplots(len(parameters), len(axes_names), squeeze=False)
    for panel in panels:
        axes = grid[parameters.index(panel.parameter), axes_names.index(panel.axis)]
        _draw_panel(axes, panel)
        low, high = panel.slope_interval
        axes.set_title(
            f"{plain(panel.verdict)}\nslope {panel.slope:+.2f} ({low:+.2f} to {high:+.2f})",
            fontsize=10,
        )
        axes.set(xlabel=plain(panel.axis), ylabel=plain(panel.label))
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4 if len(axes_names) > 1 else 2,  # one panel is too narrow for four
        frameon=False,
    )
    save(figure, path, dpi=130)
    return figure


def _draw_panel(axes: Axes, panel: TransferPanel) -> None:
    span = float(np.ptp(panel.setting))
    room = 0.25 * span if span > 0 else 0.5  # a wide band must not squeeze the runs
    bottom, top = float(panel.setting.min()) - room, float(panel.setting.max()) + room

    def shown(natural: Array) -> Array:
        inside = np.clip(natural, bottom, top)
        return np.exp(np.clip(inside, -_LOG_LIMIT, _LOG_LIMIT)) if panel.log else inside

    edge = 0.05 * float(np.ptp(panel.scale)) or 0.1
    left, right = np.exp([panel.scale.min() - edge, panel.scale.max() + edge])
    low, high = shown(np.array([bottom, top]))
    yscale = "log" if panel.log else "linear"
    axes.set(xscale="log", yscale=yscale, xlim=(left, right), ylim=(low, high))
    x, y = np.exp(panel.scale), shown(panel.setting)
    best = list(panel.best)
    # ranks, because the losses of a bowl crowd near its bottom
    order = np.argsort(-panel.excess, kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.linspace(0.0, 1.0, len(order))
    axes.scatter(x[order], y[order], c=rank[order], cmap="Greys", vmin=-0.4, s=12, label="runs")
    line_x = np.exp(panel.line_scale)
    axes.plot(line_x, shown(panel.line), color=_PREDICTED, lw=2, label="fitted optimum")
    band = (shown(panel.low), shown(panel.high))
    axes.fill_between(line_x, *band, alpha=0.3, color=_PREDICTED, lw=0, label="90 % band")
    axes.plot(x[best], y[best], "o", mfc="none", mec=_FRONT, ms=8, label="best run of each size")
    axes.grid(alpha=0.25)
    axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))  # labels of all nine would overlap


def plot_law(data: LawPlot, path: str | Path | None = None) -> Picture:
    """Plot the loss law, and the best value of each setting against scale, up to the target.

    Args:
        data: Runs, law and target.
        path: File to save the figure to, its suffix giving the format; None for no file.

    Returns:
        The figure: one panel for the loss and one for each setting.

    Example:
        >>> from hpo import Float, Optimizer, Scale
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "n": Scale(1e5, 1e7)})
        >>> for i in range(12):
        ...     n, k = 10.0 ** (5 + i // 4), i % 4
        ...     loss = n**-0.3 + 0.1 * (k - 1.5) ** 2
        ...     _ = optimizer.tell({"lr": 10 ** (-3.2 + k / 2), "n": n}, loss)
        >>> figure = optimizer.result().plot_law({"n": 1e9})
        >>> [axes.get_ylabel() for axes in figure.axes]
        ['loss', 'lr']
    """
    count = 1 + len(data.optima)
    wide = min(count, 3)
    high = -(-count // wide)
    figure = Picture(data, (1.0 + 4.4 * wide, 0.6 + 3.6 * high))
    panels = figure.subplots(high, wide, squeeze=False).ravel()
    target, reached = float(data.compute[-1]), float(data.run_compute.max())
    for axes in panels[:count]:
        axes.set(xscale="log", xlabel=plain(data.label))
        if target > reached:
            axes.axvspan(reached, target, alpha=0.08, lw=0, color=_TRIALS)
        axes.axvline(target, ls=":", lw=1, color=_TRIALS)
        axes.grid(alpha=0.25)
    _draw_loss_law(panels[0], data, target)
    for axes, setting in zip(panels[1:], data.optima, strict=False):
        _draw_optimum(axes, data, setting, target)
    for axes in panels[count:]:
        axes.set_axis_off()
    legend: dict[str, Artist] = {}
    for axes in panels[:count]:
        drawn, names = axes.get_legend_handles_labels()
        legend = dict(zip(names, drawn, strict=True)) | legend
    labels, handles = list(legend), list(legend.values())
    figure.legend(
        handles, labels, loc="outside lower center", ncols=min(4, 2 * wide), frameon=False
    )
    save(figure, path)
    return figure


def _draw_loss_law(axes: Axes, data: LawPlot, target: float) -> None:
    shown = near_best(data.run_loss, data.maximize)
    best = list(data.best)
    axes.plot(data.run_compute[shown], data.run_loss[shown], "o", ms=3, alpha=0.4, color=_TRIALS,
              label="runs")  # fmt: skip
    axes.plot(data.compute, data.loss, color=_PREDICTED, lw=2, label="fitted law")
    axes.fill_between(data.compute, data.low, data.high, alpha=0.25, color=_PREDICTED, lw=0,
                      label="90 % interval")  # fmt: skip
    axes.plot(data.run_compute[best], data.run_loss[best], "o", mfc="none", mec=_FRONT, ms=7,
              label="best run of each size")  # fmt: skip
    _mark(axes, target, data.predicted, data.predicted_interval)
    axes.set_ylabel(plain(data.loss_label))


def _draw_optimum(axes: Axes, data: LawPlot, setting: OptimumPlot, target: float) -> None:
    best = list(data.best)
    values = setting.run_value
    bottom = min(float(values.min()), float(setting.value.min()), setting.recommended)
    top = max(float(values.max()), float(setting.value.max()), setting.recommended)
    if setting.log:
        room = (top / bottom) ** 0.08
        axes.set(yscale="log", ylim=(bottom / room, top * room))
    elif bottom < top:
        axes.set_ylim(bottom - 0.08 * (top - bottom), top + 0.08 * (top - bottom))
    axes.plot(data.run_compute, values, "o", ms=3, alpha=0.4, color=_TRIALS)
    if setting.prior_low is not None and setting.prior_high is not None:
        for edge, label in ((setting.prior_low, "90 % before the runs"), (setting.prior_high, "_")):
            axes.plot(data.compute, edge, "-.", lw=1.2, color=_FRONT, label=label)
    axes.plot(data.compute, setting.value, color=_PREDICTED, lw=2)
    axes.fill_between(data.compute, setting.low, setting.high, alpha=0.25, color=_PREDICTED, lw=0)
    axes.plot(data.run_compute[best], values[best], "o", mfc="none", mec=_FRONT, ms=7)
    _mark(axes, target, setting.recommended, setting.interval)
    axes.set_ylabel(plain(setting.parameter))


def _mark(axes: Axes, x: float, y: float, interval: tuple[float, float]) -> None:
    """Mark the target: the recommended value with its interval."""
    axes.vlines(x, *interval, lw=1.5, color=_MEASURED[1])
    axes.plot(x, y, "*", ms=13, mec="white", color=_MEASURED[1], label="target")


def plot_instability(
    curves: Sequence[LRCurvePlot],
    path: str | Path | None = None,
    *,
    parameter: str,
    initial_loss: float,
) -> Picture:
    """Plot expected loss against learning rate, one curve a scale, with the unstable edges.

    Losses worse than that of a failed run are cut there. A dashed line is an edge, the band behind
    it the 90 % interval of the last curve's edge, a dot the recommended value.

    Args:
        curves: Curves from the smallest scale to the target, which comes last.
        path: File to save the figure to, its suffix giving the format; None for no file.
        parameter: Name of the learning rate.
        initial_loss: Loss that a failed run counts as.

    Returns:
        The figure.

    Example:
        >>> lr = np.geomspace(1e-4, 1e-1, 4)
        >>> curve = LRCurvePlot("params 1e+06", lr, np.array([2.0, 1.0, 1.5, 3.0]), 1e-3, 5e-2,
        ...     (2e-2, 1e-1))
        >>> plot_instability([curve], parameter="lr", initial_loss=4.0).axes[0].get_xlabel()
        'lr'
    """
    figure = Picture(tuple(curves), (8, 5))
    axes = figure.subplots()
    colors = colormaps["viridis"](np.linspace(0.0, 0.85, len(curves)))
    for curve, color in zip(curves, colors, strict=True):
        bound = np.minimum if curve.loss.min() < initial_loss else np.maximum
        axes.plot(curve.lr, bound(curve.loss, initial_loss), color=color, label=plain(curve.label))
        best = float(np.interp(curve.best_lr, curve.lr, curve.loss))
        axes.plot(curve.best_lr, best, "o", color=color)
        if math.isfinite(curve.edge):
            axes.axvline(curve.edge, ls="--", lw=1, color=color)
    target = curves[-1]
    low, high = target.edge_interval
    if math.isfinite(low):
        top, label = min(high, float(target.lr[-1])), "edge at the target, 90 %"
        axes.axvspan(low, top, alpha=0.15, lw=0, color=_PREDICTED, label=label)
    axes.axhline(initial_loss, ls=":", lw=1, color=_TRIALS, label="failed run")
    axes.set(xscale="log", xlabel=plain(parameter), ylabel="loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    save(figure, path, dpi=130)
    return figure


def plot_coordinates(
    sizes: Sequence[int],
    changes: Mapping[str, Array],
    path: str | Path | None = None,
    *,
    slopes: Mapping[str, float],
    verdicts: Mapping[str, str],
    updates: int,
) -> Picture:
    """Plot how much the output of each layer has changed, against size: level where it is flat.

    One line a layer, through the geometric means over seeds. Layers that grow or vanish are thick
    and in the legend.

    Args:
        sizes: Widths or depths, `(k,)`, ascending.
        changes: Change of each layer at each size and seed, `(k, seeds)`, by name of the layer.
        path: File to save the figure to, its suffix giving the format; None for no file.
        slopes: Log-log slope of each layer.
        verdicts: Verdict on each layer: "flat", "grows" or "vanishes".
        updates: Number of updates that the changes are over.

    Returns:
        The figure, with the title "passed" if all layers are flat.

    Example:
        >>> changes = {"head": np.array([[1.0, 1.1], [1.4, 1.5], [2.0, 2.2]])}
        >>> figure = plot_coordinates(
        ...     [16, 32, 64], changes, slopes={"head": 0.5}, verdicts={"head": "grows"}, updates=4
        ... )
        >>> figure.axes[0].get_title()
        'failed'
    """
    figure = Picture(changes, (10, 5))
    axes = figure.subplots()
    bad = [layer for layer in changes if verdicts[layer] != _FLAT]
    ramp = colormaps["autumn"](np.linspace(0.0, 0.8, max(1, len(bad))))
    colors = dict(zip(bad, ramp, strict=False))
    flat = _FLAT
    for layer, change in changes.items():
        middle = np.exp(np.log(np.maximum(change, 1e-12)).mean(axis=1))
        if layer in colors:
            label = plain(f"{layer}, {verdicts[layer]}, slope {slopes[layer]:+.2f}")
            axes.plot(sizes, middle, "o-", lw=2, color=colors[layer], label=label)
        else:
            axes.plot(sizes, middle, "o-", lw=1, color=_TRIALS, alpha=0.6, label=flat)
            flat = "_"  # matplotlib leaves such labels out
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="size",
        ylabel=f"change of outputs after {updates} updates, rms",
        title="failed" if bad else "passed",
    )
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    save(figure, path, dpi=130)
    return figure


def plain(text: str) -> str:
    """Return a user's name as matplotlib shows it letter by letter.

    A pair of dollar signs would be read as a formula, and a label that starts with an underscore is
    left out of a legend. Letters that cannot be drawn become escapes.
    """
    drawn = (letter if letter.isprintable() else ascii(letter)[1:-1] for letter in text)
    escaped = "".join(drawn).replace("$", r"\$")
    return f" {escaped}" if escaped.startswith("_") else escaped


def save(figure: Picture, path: str | Path | None, *, dpi: int = 130) -> None:
    """Write a figure, or refuse a suffix that names no format; None writes nothing."""
    if path is None:
        return
    suffix, known = Path(path).suffix[1:].lower(), figure.canvas.get_supported_filetypes()
    if suffix and suffix not in known:
        raise ValueError(
            f"`path` must end in one of the formats {sorted(known)}, got {str(path)!r}; write .png"
        )
    figure.savefig(path, dpi=dpi)
