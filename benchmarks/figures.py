"""Pictures of comparisons: colors that the color-blind can tell apart, names beside the lines.

Figures are built without pyplot, so no global state is touched and no window opens. Regret is drawn
on a log scale from `FLOOR`, below which differences are those of the tables' last digits.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from benchmarks.analysis import (
    OURS,
    Array,
    BudgetAxis,
    Comparison,
    Interval,
    Latency,
    bootstrap,
    mean_ranks,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "FLOOR",
    "STYLE",
    "colors",
    "critical_difference",
    "inline_svg",
    "latency_lines",
    "rank_lines",
    "ratio_dots",
    "regret_lines",
    "save",
    "task_grid",
]

FLOOR = 1e-4
# Okabe and Ito's palette without its yellow, which is hard to see on white; ours is the blue.
_OURS, _RANDOM = "#0072B2", "#8A8A8A"
_OTHERS = ("#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#6B4E16", "#1B3A57")
_DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)))
STYLE: dict[Any, Any] = {
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.labelcolor": "#333333",
    "axes.titlesize": 9.5,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
    "svg.hashsalt": "scaletune",  # equal data, equal file
}

_NAMESPACES = (
    'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" role="img"'
)


def colors(methods: Sequence[str]) -> dict[str, tuple[str, Any]]:
    """Return color and dashes by method; random search is gray."""
    others = [m for m in methods if m not in (OURS, "random")]
    styles: dict[str, tuple[str, Any]] = {OURS: (_OURS, "-"), "random": (_RANDOM, "-")}
    for index, method in enumerate(others):
        lap, place = divmod(index, len(_OTHERS))
        styles[method] = (_OTHERS[place], _DASHES[lap % len(_DASHES)])
    return styles


def regret_lines(comparison: Comparison, methods: Sequence[str]) -> Figure:
    """Draw mean regret over tasks against the budget, with 95 % bootstrap bands over tasks."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 4.4), layout="constrained")
        axes = figure.subplots()
        lines: dict[str, Array] = {}
        for index, method in enumerate(comparison.methods):
            curves = comparison.curve(method)
            mean = np.maximum(curves.mean(axis=0), FLOOR)
            color, dashes = colors(methods)[method]
            wide = 2.6 if method == OURS else 1.5
            axes.plot(comparison.grid, mean, color=color, ls=dashes, lw=wide, zorder=3 + index)
            if len(comparison.methods) <= 5 or method == OURS:
                low, high = _band(curves)
                axes.fill_between(comparison.grid, low, high, color=color, alpha=0.10, lw=0)
            lines[method] = mean
        axes.set(yscale="log", xlabel=comparison.label, ylabel="mean normalized regret")
        _frame(axes, comparison)
        _label_ends(axes, lines, methods)
    return figure


def rank_lines(comparison: Comparison, methods: Sequence[str]) -> Figure:
    """Draw the mean rank among the compared methods against the budget, 1 the best."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.6), layout="constrained")
        axes = figure.subplots()
        lines = dict(zip(comparison.methods, mean_ranks(comparison), strict=True))
        for method, rank in lines.items():
            color, dashes = colors(methods)[method]
            wide = 2.6 if method == OURS else 1.5
            axes.plot(comparison.grid, rank, color=color, ls=dashes, lw=wide)
        axes.set(xlabel=comparison.label, ylabel="mean rank")
        axes.set_ylim(len(lines) + 0.1, 0.9)
        _frame(axes, comparison)
        _label_ends(axes, lines, methods)
    return figure


def task_grid(comparison: Comparison, methods: Sequence[str], titles: Mapping[str, str]) -> Figure:
    """Draw one small panel per task: mean regret over seeds. `titles`: text above each panel."""
    count = len(comparison.tasks)
    columns = min(4, count)
    rows = math.ceil(count / columns)
    with mpl.rc_context(STYLE | {"font.size": 8, "axes.titlesize": 8}):
        figure = Figure(figsize=(2.45 * columns + 0.4, 1.75 * rows + 0.9), layout="constrained")
        panels = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel()
        handles = {}
        for axes, (t, task) in zip(panels, enumerate(comparison.tasks), strict=False):
            for method in reversed(comparison.methods):  # ours on top
                color, dashes = colors(methods)[method]
                curve = np.maximum(comparison.curve(method)[t], FLOOR)
                (handles[method],) = axes.plot(
                    comparison.grid,
                    curve,
                    color=color,
                    ls=dashes,
                    lw=1.9 if method == OURS else 1.1,
                )
            axes.set_yscale("log")
            axes.set_title(titles[task], loc="left")
            _frame(axes, comparison)
        for axes in panels[count:]:
            axes.set_axis_off()
        figure.supxlabel(comparison.label, fontsize=8.5, color="#333333")
        figure.supylabel("normalized regret", fontsize=8.5, color="#333333")
        figure.legend(
            [handles[m] for m in comparison.methods],
            comparison.methods,
            loc="outside upper center",
            ncols=min(len(handles), 6),
            frameon=False,
        )
    return figure


def critical_difference(ranks: Mapping[str, float], p: Array, methods: Sequence[str]) -> Figure:
    """Draw mean ranks on a line; a bar joins methods that do not differ at 5 %.

    `p`: `(M, M)` adjusted p-values in the order of `ranks`.
    """
    import pandas as pd
    from scikit_posthocs import critical_difference_diagram

    names = list(ranks)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 1.1 + 0.17 * len(names)), layout="constrained")
        axes = figure.subplots()
        critical_difference_diagram(
            ranks=dict(ranks),
            sig_matrix=pd.DataFrame(p, index=names, columns=names),
            ax=axes,
            label_fmt_left="{label}  {rank:.2f}  ",
            label_fmt_right="  {rank:.2f}  {label}",
            color_palette={name: colors(methods)[name][0] for name in names},
            crossbar_props={"color": "#333333", "linewidth": 3},
            text_h_margin=0.03,
        )
    return figure


def latency_lines(latency: Latency) -> Figure:
    """Draw the mean ask + tell of a trial against the number of trials before, both in logs."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.8), layout="constrained")
        axes = figure.subplots()
        middle = np.array([math.sqrt((low + 1) * high) for low, high in latency.bins])
        lines = {}
        for method, seconds in zip(latency.methods, latency.seconds, strict=True):
            color, dashes = colors(latency.methods)[method]
            wide = 2.6 if method == OURS else 1.5
            axes.plot(middle, seconds, marker="o", ms=3.5, color=color, ls=dashes, lw=wide)
            lines[method] = seconds
        axes.set(xscale="log", yscale="log", xlabel="trial", ylabel="seconds of ask + tell")
        axes.set_xticks(middle, latency.labels)
        axes.minorticks_off()
        axes.grid(axis="y", alpha=0.25)
        _label_ends(axes, lines, latency.methods)
    return figure


def ratio_dots(ratios: Mapping[str, Interval], methods: Sequence[str], label: str) -> Figure:
    """Draw one row per rival: a ratio and its interval on a log axis; left of 1 ours is ahead."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(7.6, 0.9 + 0.32 * len(ratios)), layout="constrained")
        axes = figure.subplots()
        for row, (method, ratio) in enumerate(ratios.items()):
            color = colors(methods)[method][0]
            axes.plot([ratio.low, ratio.high], [row, row], color=color, lw=2)
            axes.plot(ratio.value, row, "o", color=color, ms=6)
        axes.axvline(1.0, color="#666666", lw=1, ls=(0, (3, 2)))
        axes.set(xscale="log", xlabel=label)
        _plain_log(axes)
        axes.set_yticks(range(len(ratios)), list(ratios))
        axes.set_ylim(len(ratios) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x", alpha=0.25)
    return figure


def save(figure: Figure, path: Path) -> str:
    """Write the figure to `path` with the suffixes .png and .svg; return the text of the latter."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        figure.savefig(path.with_suffix(".png"), dpi=160)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    path.with_suffix(".svg").write_text(buffer.getvalue(), encoding="utf-8")
    return buffer.getvalue()


def inline_svg(text: str, prefix: str) -> str:
    """Return an SVG file's text as an element; `prefix` makes its ids unique among figures."""
    text = text[text.index("<svg") :]
    # The metadata block links to vocabularies on the web, which no viewer needs.
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{prefix}-", text)
    return re.sub(r'<svg[^>]*?(viewBox="[^"]*")[^>]*>', rf"<svg \1 {_NAMESPACES}>", text, count=1)


def _band(curves: Array) -> tuple[Array, Array]:
    rng = np.random.default_rng(0)
    intervals = [bootstrap(column, rng=rng) for column in curves.T]
    low, high = (np.array([getattr(i, end) for i in intervals]) for end in ("low", "high"))
    return np.maximum(low, FLOOR), np.maximum(high, FLOOR)


def _frame(axes: Axes, comparison: Comparison) -> None:
    axes.grid(axis="y", alpha=0.25)
    if comparison.axis is BudgetAxis.SECONDS:
        axes.set_xscale("log")
    if len(comparison.grid) > 1:  # a run stopped at its first trial is a point
        axes.set_xlim(comparison.grid[0], comparison.grid[-1])


def _plain_log(axes: Axes) -> None:
    """Ticks as 0.2, 0.5, 1, 2 instead of powers of ten."""
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def _label_ends(axes: Axes, lines: Mapping[str, Array], methods: Sequence[str]) -> None:
    """Write each name right of its line's end, moved apart where they would overlap."""
    ends = {
        method: float(line[~np.isnan(line)][-1])
        for method, line in lines.items()
        if not np.isnan(line).all()
    }
    axes.get_ylim()  # settles the limits, which the transform below takes as they are
    heights = axes.transAxes.inverted().transform(
        axes.transData.transform([(1.0, value) for value in ends.values()])
    )[:, 1]
    for method, height in zip(ends, _apart(heights, 0.055), strict=True):
        axes.annotate(
            method,
            (1.0, height),
            xycoords="axes fraction",
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            color=colors(methods)[method][0],
            fontweight="bold" if method == OURS else "normal",
        )


def _apart(heights: Array, gap: float) -> Array:
    """The nearest heights in [0, 1] at least `gap` apart, in the same order (least squares)."""
    from scipy.optimize import isotonic_regression

    order = np.argsort(heights, kind="stable")
    gaps = gap * np.arange(len(heights))
    moved = np.empty(len(heights))
    # With the gaps taken out, "at least a gap apart" is "does not fall".
    level = np.asarray(isotonic_regression(heights[order] - gaps).x)
    moved[order] = np.clip(level, 0.0, max(1.0 - gaps[-1], 0.0)) + gaps
    return moved
