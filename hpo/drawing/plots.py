"""Pictures of a result, drawn with matplotlib.

Figures are built without pyplot, so no global state is touched and no window opens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator

from hpo.space import Float, Int, Parameter
from hpo.trials import Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from hpo.diagnostics.transfer_check import Panel, TransferCheck
    from hpo.models.lr_sensitivity import Instability
    from hpo.optimizer.result import FrontMember, Result
    from hpo.training.coordinate_check import CoordinateCheck
    from surrogates.data import Array

_LOG_LIMIT = 690.0  # exp overflows beyond 709
_SHOWN = 0.8  # of the trials lie in the better half of the picture or above it
_STOPS = 6  # scales between the dearest run and the target at which the law is drawn
_TRIALS, _FRONT, _LAW = "tab:gray", "tab:blue", "tab:orange"
_MEASURED = ("tab:green", "tab:red", "tab:purple", "tab:brown")


@dataclass(frozen=True, slots=True)
class Measured:
    """A run made outside the study, such as the target itself: what it cost and its loss."""

    cost: float
    loss: float


def plot_front(
    result: Result,
    path: str | Path | None = None,
    *,
    measured: Mapping[str, Measured] | None = None,
) -> Figure:
    """Loss against cost: every trial, the front, and what the scaling law expects beyond it.

    The front is drawn at its expected losses (posterior means), so a lucky run below it stays
    visible. With a target, the line beyond the front is the predicted loss of the recommended
    config at scales up to the target, the band its 90 % interval for one run.

    `path`: where to save the picture, its suffix giving the format. `measured`: runs made outside
    the study by name, drawn as stars.

    Raises `ValueError` when no trial was completed with a cost.
    """
    front = result.front
    if not front:
        raise ValueError(
            "the front needs at least one completed trial with a cost; tell one, or report cost= "
            "from the training function"
        )
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    _draw_trials(axes, result)
    _draw_front(axes, front)
    if result.target:
        _draw_law(axes, result, result.target, front[-1])
    for color, (name, run) in zip(cycle(_MEASURED), (measured or {}).items(), strict=False):
        axes.plot(run.cost, run.loss, "*", ms=14, mec="white", color=color, label=name)
    axes.set(xscale="log", xlabel=f"cost ({result.cost_unit or 'as told'})", ylabel="loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _draw_trials(axes: Axes, result: Result) -> None:
    done = [
        (o.cost, o.loss)
        for o in result.log.observations
        if o.status is Status.COMPLETED and o.loss is not None and o.cost
    ]
    costs, losses = np.array(done).T
    sign = result.models.encoder.loss_sign
    near = np.quantile(sign * losses, _SHOWN)
    shown = sign * losses <= near + (near - np.min(sign * losses))
    label = "trials" if shown.all() else f"trials (and {np.sum(~shown)} of far worse loss)"
    axes.plot(costs[shown], losses[shown], "o", ms=4, alpha=0.6, color=_TRIALS, label=label)


def _draw_front(axes: Axes, front: tuple[FrontMember, ...]) -> None:
    costs = np.array([member.cost for member in front], dtype=np.float64)
    expected = [member.expected_loss for member in front]
    axes.step(costs, expected, where="post", color=_FRONT)
    axes.plot(costs, expected, "o", color=_FRONT, label="front, expected loss")


def _draw_law(axes: Axes, result: Result, target: Mapping[str, float], last: FrontMember) -> None:
    cost_model, encoder = result.models.cost(), result.models.encoder
    if cost_model is None or not target:
        return
    start = {name: float(last.config[name]) for name in target}
    costs, losses, lows, highs = [], [], [], []
    for share in np.linspace(0.0, 1.0, _STOPS):
        scale = {
            name: start[name] * math.exp(share * math.log(target[name] / start[name]))
            for name in target
        }
        advice = result.recommend(scale)
        log_cost = cost_model.posterior(encoder.encode([advice.config])).mean[0]
        costs.append(math.exp(log_cost))
        losses.append(advice.loss)
        lows.append(advice.loss_interval[0])
        highs.append(advice.loss_interval[1])
    axes.plot(costs, losses, "--", color=_LAW, label="predicted up to the target")
    axes.fill_between(costs, lows, highs, alpha=0.2, color=_LAW, lw=0, label="90 % interval")


def plot_transfer(check: TransferCheck, path: str | Path | None = None) -> Figure:
    """One panel a parameter and scale axis: runs, the best of each size, and the fitted optimum.

    Runs are dots, darker the nearer their loss is to the best at their scale, and stand where they
    would with all other axes at their mean. The line is the fitted optimum with its 90 % band: flat
    where the setting transfers.

    `path`: where to save the picture, its suffix giving the format.
    """
    parameters = list(dict.fromkeys(d.parameter for d in check.drifts))
    axes_names = list(dict.fromkeys(d.axis for d in check.drifts))
    size = (1.0 + 4.2 * len(axes_names), 0.4 + 3.4 * len(parameters))
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(parameters), len(axes_names), squeeze=False)
    for drift in check.drifts:
        axes = grid[parameters.index(drift.parameter), axes_names.index(drift.axis)]
        panel = check.panel(drift.parameter, drift.axis)
        _draw_panel(axes, panel, _readable(check.space[drift.parameter]))
        slope, (low, high) = drift.slope.mean, drift.interval
        axes.set_title(
            f"{drift.verdict.value}\nslope {slope:+.2f} ({low:+.2f} to {high:+.2f})", fontsize=10
        )
        logit = drift.unit.startswith("logit ")
        axes.set(xlabel=drift.axis, ylabel=f"{drift.unit if logit else drift.parameter}")
    figure.legend(
        *grid[0, 0].get_legend_handles_labels(),
        loc="outside lower center",
        ncols=4 if len(axes_names) > 1 else 2,  # one panel is too narrow for four
        frameon=False,
    )
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure


def _readable(parameter: Parameter) -> bool:
    """Whether natural units are logarithms, which are drawn as values on a log axis."""
    return isinstance(parameter, Float | Int) and parameter.log


def _draw_panel(axes: Axes, panel: Panel, log: bool) -> None:
    span = float(np.ptp(panel.setting))
    room = 0.25 * span if span > 0 else 0.5  # a wide band must not squeeze the runs
    bottom, top = float(panel.setting.min()) - room, float(panel.setting.max()) + room

    def shown(natural: Array) -> Array:
        inside = np.clip(natural, bottom, top)
        return np.exp(np.clip(inside, -_LOG_LIMIT, _LOG_LIMIT)) if log else inside

    edge = 0.05 * float(np.ptp(panel.scale)) or 0.1
    left, right = np.exp([panel.scale.min() - edge, panel.scale.max() + edge])
    low, high = shown(np.array([bottom, top]))
    axes.set(xscale="log", yscale="log" if log else "linear", xlim=(left, right), ylim=(low, high))
    x, y = np.exp(panel.scale), shown(panel.setting)
    best = list(panel.best)
    # ranks, because the losses of a bowl crowd near its bottom
    order = np.argsort(-panel.excess, kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.linspace(0.0, 1.0, len(order))
    axes.scatter(x[order], y[order], c=rank[order], cmap="Greys", vmin=-0.4, s=12, label="runs")
    line_x = np.exp(panel.line_scale)
    axes.plot(line_x, shown(panel.line), color=_LAW, lw=2, label="fitted optimum")
    band = (shown(panel.low), shown(panel.high))
    axes.fill_between(line_x, *band, alpha=0.3, color=_LAW, lw=0, label="90 % band")
    axes.plot(x[best], y[best], "o", mfc="none", mec=_FRONT, ms=8, label="best run of each size")
    axes.grid(alpha=0.25)
    axes.xaxis.set_minor_locator(LogLocator(subs=(2.0, 5.0)))  # labels of all nine would overlap


def plot_instability(report: Instability, path: str | Path | None = None) -> Figure:
    """Expected loss against learning rate, one curve a scale, with the unstable edges.

    Losses beyond that of a failed run are cut there. A dashed line is an edge, the band behind it
    its 90 % interval (drawn for the target only), a dot the recommended value.

    `path`: where to save the picture, its suffix giving the format.
    """
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    colors = colormaps["viridis"](np.linspace(0.0, 0.85, len(report.curves)))
    for curve, color in zip(report.curves, colors, strict=True):
        at = ", ".join(f"{name} {value:.3g}" for name, value in curve.scale.items())
        worst = report.initial_loss
        bound = np.minimum if curve.loss.min() < worst else np.maximum
        axes.plot(curve.lr, bound(curve.loss, worst), color=color, label=at or "all runs")
        best = float(np.interp(curve.best_lr, curve.lr, curve.loss))
        axes.plot(curve.best_lr, best, "o", color=color)
        if math.isfinite(curve.edge):
            axes.axvline(curve.edge, ls="--", lw=1, color=color)
    edge = report.target.edge_interval
    if math.isfinite(edge[0]):
        top = min(edge[1], float(report.target.lr[-1]))
        axes.axvspan(edge[0], top, alpha=0.15, lw=0, color=_LAW, label="edge at the target, 90 %")
    axes.axhline(report.initial_loss, ls=":", lw=1, color=_TRIALS, label="failed run")
    axes.set(xscale="log", xlabel=report.parameter, ylabel="loss")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure


def plot_coordinates(check: CoordinateCheck, path: str | Path | None = None) -> Figure:
    """How much each layer's output has changed, against size: level where it is flat.

    One line a layer, through the geometric means over seeds; layers that grow or vanish are thick
    and in the legend. `path`: where to save the picture, its suffix giving the format.
    """
    figure = Figure(figsize=(10, 5), layout="constrained")
    axes = figure.subplots()
    bad = [trace for trace in check.traces if trace.verdict.value != "flat"]
    colors = dict(
        zip(
            (trace.layer for trace in bad),
            colormaps["autumn"](np.linspace(0.0, 0.8, max(1, len(bad)))),
            strict=False,
        )
    )
    flat = "flat"
    for trace in check.traces:
        middle = np.exp(np.log(np.maximum(trace.change, 1e-12)).mean(axis=1))
        if trace.layer in colors:
            label = f"{trace.layer}, {trace.verdict.value}, slope {trace.slope:+.2f}"
            axes.plot(check.sizes, middle, "o-", lw=2, color=colors[trace.layer], label=label)
        else:
            axes.plot(check.sizes, middle, "o-", lw=1, color=_TRIALS, alpha=0.6, label=flat)
            flat = "_"  # matplotlib leaves such labels out
    axes.set(
        xscale="log",
        yscale="log",
        xlabel="size",
        ylabel=f"change of outputs after {check.updates} updates, rms",
        title="passed" if check.passed else "failed",
    )
    axes.set_xticks(check.sizes, [str(size) for size in check.sizes])
    axes.minorticks_off()
    axes.grid(alpha=0.25)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    if path is not None:
        figure.savefig(path, dpi=130)
    return figure
