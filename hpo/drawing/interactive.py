"""The pictures for Plotly, from the data that matplotlib draws.

A figure is the plain JSON value that plotly.js takes: `{"data": [...], "layout": {...}}`. Plotly
reads texts as HTML, so whatever a user named is escaped; numbers are rounded to eight digits, and
those that are not finite become null, which leaves a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import singledispatch
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike

from hpo.drawing.conventions import (
    BLUE,
    FAILED_COLOR,
    GRAY,
    GREEN,
    NOT_ENOUGH,
    ORANGE,
    PURPLE,
    STATUS_COLORS,
    near_best,
    rank_of,
    time_unit,
)
from hpo.drawing.plot_data import FrontPlot, LawPlot, LRCurvePlot, OptimumPlot, TransferPanel
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
    import plotly.graph_objects as go

JSON = dict[str, Any]

_FAINT = "rgba(213, 94, 0, 0.18)"  # the orange of a prediction
_VIRIDIS = ("#440154", "#3b528b", "#21918c", "#5ec962", "#b5de2b")
_DIGITS = 8
_LONGEST = 24  # letters of a label
_FEW_DECADES = 4.0  # on a log axis, whose labels are 1, 2 and 5


def interactive(data: Any) -> go.Figure:
    """Return the Plotly figure of one picture.

    Args:
        data: Data of a picture, such as `result.plot_front().data`.

    Raises:
        TypeError: If it has no interactive version.

    Example:
        >>> falling = np.array([3.0, 1.0])
        >>> figure = interactive(BudgetPlot(np.array([1.0, 2.0]), falling, falling, "trials"))
        >>> figure.layout.xaxis.title.text
        'spent (trials)'
    """
    import plotly.graph_objects as go

    return go.Figure(figure_of(data))


@singledispatch
def figure_of(data: Any) -> JSON:
    """Return the figure of one picture, as plain JSON values for plotly.js."""
    if isinstance(data, tuple) and data and isinstance(data[0], LRCurvePlot):
        return _lr_curves(data)
    if isinstance(data, tuple) and len(data) == 1:
        return figure_of(data[0])
    raise TypeError(
        f"there is no interactive picture of {type(data).__name__}; pass the data of one picture, "
        "such as result.plot_front().data, or one of its panels"
    )


@figure_of.register
def _(data: FrontPlot) -> JSON:
    shown = near_best(data.loss, data.maximize)
    traces = [
        _points(data.cost[shown], data.loss[shown], "trials"),
        _line(
            data.front_cost, data.front_loss, "front, expected loss", BLUE,
            mode="lines+markers", line={"shape": "hv", "color": BLUE, "width": 2},
        ),
    ]  # fmt: skip
    if data.predicted is not None:
        beyond = data.predicted
        traces += _band(beyond.cost, beyond.low, beyond.high)
        traces.append(
            _line(beyond.cost, beyond.loss, "predicted up to the target", ORANGE, dash="dash")
        )
    if len(data.path) > 1:
        records = list(data.path)
        traces.append(
            _line(
                data.cost[records],
                data.loss[records],
                "path of the search",
                PURPLE,
                dash="dot",
                mode="lines+markers",
                marker={"symbol": "diamond", "size": 7},
            )  # fmt: skip
        )
    return _figure(traces, _log(f"cost ({data.cost_unit or 'as told'})"), _linear(data.loss_label))


@figure_of.register
def _(data: LawPlot) -> JSON:
    shown, best = near_best(data.run_loss, data.maximize), list(data.best)
    traces = [
        _points(data.run_compute[shown], data.run_loss[shown], "runs"),
        *_band(data.compute, data.low, data.high),
        _line(data.compute, data.loss, "fitted law", ORANGE),
        _rings(data.run_compute[best], data.run_loss[best]),
        _star(data.compute[-1], data.predicted, data.predicted_interval),
    ]
    return _figure(traces, _log(data.label), _linear(data.loss_label))


def points_figure(
    groups: Mapping[str, tuple[ArrayLike, ArrayLike]], x_name: str, y_name: str
) -> JSON:
    """Return the figure of groups of points, such as trials on a front and beside it.

    Args:
        groups: Horizontal and vertical values of each group by its name, the most important first;
            groups without a point are left out.
        x_name: Name of the horizontal axis.
        y_name: Name of the vertical axis.

    Example:
        >>> figure = points_figure({"on the front": ([1.0], [2.0])}, "latency", "loss")
        >>> figure["data"][0]["x"], figure["layout"]["yaxis"]["title"]["text"]
        ([1.0], 'loss')
    """
    colors, traces = (BLUE, GRAY, FAILED_COLOR), []
    for (name, (x, y)), color in zip(groups.items(), colors, strict=False):
        if np.size(x):
            marker = {"size": 8, "color": color, "opacity": 0.8}
            traces.append(_points(x, y, name) | {"marker": marker})
    return _figure(traces, _linear(x_name), _linear(y_name))


def optimum_figure(law: LawPlot, setting: OptimumPlot) -> JSON:
    """Return the figure of the best value of one setting against scale.

    Args:
        law: Law to which the setting belongs.
        setting: One of its settings.
    """
    best = list(law.best)
    traces = [
        _points(law.run_compute, setting.run_value, "runs"),
        *_band(law.compute, setting.low, setting.high),
        _line(law.compute, setting.value, "fitted optimum", ORANGE),
        _rings(law.run_compute[best], setting.run_value[best]),
        _star(law.compute[-1], setting.recommended, setting.interval),
    ]
    if setting.prior_low is not None and setting.prior_high is not None:
        for edge, named in ((setting.prior_low, True), (setting.prior_high, False)):
            traces.append(
                _line(
                    law.compute,
                    edge,
                    "90 % before the runs",
                    BLUE,
                    dash="dashdot",
                    showlegend=named,
                    legendgroup="prior",
                    line_width=1.2,
                )  # fmt: skip
            )
    axis = _axis(Dimension(setting.parameter, setting.log))
    seen = np.concatenate([setting.run_value, setting.value, [setting.recommended]])
    axis["range"] = _range(seen, log=setting.log)
    return _figure(traces, _log(law.label), axis)


@figure_of.register
def _(data: SlicePlot) -> JSON:
    shown = near_best(data.run_loss, data.maximize)
    traces = [_points(data.run_value[shown], data.run_loss[shown], "runs, moved to this slice")]
    if data.setting.choices:
        traces.append(
            _line(
                data.value,
                data.loss,
                "expected loss, 90 % interval",
                ORANGE,
                mode="markers",
                marker={"symbol": "square", "size": 9, "color": ORANGE},
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "array": _numbers(data.high - data.loss),
                    "arrayminus": _numbers(data.loss - data.low),
                },
            )  # fmt: skip
        )
    else:
        traces += _band(data.value, data.low, data.high)
        traces.append(_line(data.value, data.loss, "expected loss", ORANGE))
    axis = _linear(data.loss_label)
    axis["range"] = _range(np.concatenate([data.run_loss[shown], data.loss]))
    figure = _figure(traces, _axis(data.setting), axis)
    if data.recommended is not None:
        place = float(data.recommended)
        figure["data"].append(
            _line([place, place], axis["range"], "recommended", BLUE, dash="dash")
        )
    return figure


@figure_of.register
def _(data: ContourPlot) -> JSON:
    traces = [
        {
            "type": "heatmap" if data.x.choices or data.y.choices else "contour",
            "x": _numbers(data.x_value), "y": _numbers(data.y_value),
            "z": [_numbers(row) for row in data.loss],
            "colorscale": "Cividis", "reversescale": not data.maximize,
            "colorbar": {"title": {"text": _text(data.loss_label)}, "thickness": 12},
        },
        _points(data.run_x, data.run_y, "runs"),
        _line(
            [data.recommended[0]], [data.recommended[1]], "recommended", ORANGE, mode="markers",
            marker={"symbol": "star", "size": 15, "color": ORANGE,
                    "line": {"color": "white", "width": 1}},
        ),
    ]  # fmt: skip
    return _figure(traces, _axis(data.x), _axis(data.y))


@figure_of.register
def _(data: ImportancePlot) -> JSON:
    traces = [
        {
            "type": "bar", "orientation": "h",
            "x": _numbers(data.share[::-1]), "y": [_text(name) for name in data.names[::-1]],
            "marker": {"color": BLUE},
            "error_x": {
                "type": "data", "symmetric": False,
                "array": _numbers((data.high - data.share)[::-1]),
                "arrayminus": _numbers((data.share - data.low)[::-1]),
            },
        }
    ] if data.enough else []  # fmt: skip
    axis = _linear("share of the variation") | {"range": [0, 1]}
    places = list(range(len(data.names)))
    labels = [_label(name) for name in data.names[::-1]]
    names = {"automargin": True, "tickvals": places, "ticktext": labels}
    figure = _figure(traces, axis, names)
    figure["layout"]["showlegend"] = False
    if not data.enough:
        figure["layout"]["title"] = {"text": f"{NOT_ENOUGH} ({data.runs} runs)"}
    return figure


@figure_of.register
def _(data: CurvesPlot) -> JSON:
    groups: dict[str, list[tuple[Any, Any]]] = {"complete": [], "not complete": []}
    traces: list[JSON] = []
    for curve in data.curves:
        groups["complete" if curve.finished else "not complete"].append((curve.step, curve.loss))
    for (label, curves), color in zip(groups.items(), (GRAY, BLUE), strict=True):
        if curves:  # one trace with gaps is far quicker than one a curve
            gap = [np.nan]
            x = np.concatenate([np.append(step, gap) for step, _ in curves])
            y = np.concatenate([np.append(loss, gap) for _, loss in curves])
            traces.append(
                _line(
                    x,
                    y,
                    label,
                    color,
                    mode="lines+markers",
                    line_width=1,
                    opacity=0.6,
                    marker={"size": 3},
                )  # fmt: skip
            )
    named = True
    for curve in data.curves:
        if curve.later is not None and curve.forecast is not None:
            middle, low, high = curve.forecast
            traces += _band(curve.later, low, high, named=named)
            traces.append(
                _line(
                    curve.later,
                    middle,
                    "forecast",
                    ORANGE,
                    dash="dash",
                    showlegend=named,
                    legendgroup="forecast",
                )  # fmt: skip
            )
            named = False
    axis = _linear(data.loss_label)
    if data.curves:
        best = data.curves[-1]
        traces.append(
            _line(
                best.step,
                best.loss,
                f"best, trial {best.number}",
                GREEN,
                line_width=3,
                mode="lines+markers",
            )  # fmt: skip
        )
        seen = np.concatenate([curve.loss for curve in data.curves])
        axis["range"] = _range(seen[near_best(seen, data.maximize)])
    return _figure(traces, _linear(data.step_label), axis)


@figure_of.register
def _(data: ParallelPlot) -> JSON:
    dimensions = []
    for k, setting in enumerate(data.settings):
        column = np.log10(data.value[:, k]) if setting.log else data.value[:, k].copy()
        known = np.isfinite(column)
        if not known.any():
            continue
        low, high = float(column[known].min()), float(column[known].max())
        column[~known] = low  # parallel coordinates have no gaps
        dimension: JSON = {"label": _label(setting.name), "values": _numbers(column)}
        if setting.choices:
            codes = list(range(len(setting.choices)))
            dimension |= {"tickvals": codes, "ticktext": [_label(c) for c in setting.choices]}
        elif setting.log:
            ticks = np.linspace(low, high, 4) if high > low else np.array([low])
            dimension |= {
                "tickvals": _numbers(ticks),
                "ticktext": [f"{value:.2g}" for value in 10.0**ticks],
            }
        dimensions.append(dimension)
    losses = data.loss[near_best(data.loss, data.maximize)]
    shown = np.clip(data.loss, losses.min(), losses.max()) if len(losses) else data.loss
    dimensions.append({"label": _text(data.loss_label), "values": _numbers(shown)})
    trace = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {
            "color": _numbers(rank_of(data.loss, data.maximize)), "colorscale": "Cividis",
            "cmin": 0, "cmax": 1,
        },
        "labelside": "bottom",
    }  # fmt: skip
    layout = {"margin": {"l": 50, "r": 70, "t": 34, "b": 40}, "font": {"size": 12}}
    return {"data": [trace], "layout": layout}


@figure_of.register
def _(data: CalibrationPlot) -> JSON:
    within = (data.low <= data.observed) & (data.observed <= data.high)
    seen = np.concatenate(
        [np.quantile(side, [0.0, 0.9]) for side in (data.observed, data.predicted)]
        if len(data.observed)
        else [np.array([0.0, 1.0])]
    )
    ends = _range(seen)
    traces = [_line(ends, ends, "as predicted", GRAY, dash="dash")]
    for chosen, label, color, symbol in (
        (within, "within its 90 % interval", BLUE, "circle"),
        (~within, "outside", ORANGE, "x"),
    ):
        traces.append(
            _line(
                data.observed[chosen],
                data.predicted[chosen],
                label,
                color,
                mode="markers",
                marker={"symbol": symbol, "size": 7, "color": color},
                text=[f"trial {number:.0f}" for number in data.number[chosen]],
                error_y={
                    "type": "data",
                    "symmetric": False,
                    "thickness": 0.8,
                    "width": 0,
                    "array": _numbers((data.high - data.predicted)[chosen]),
                    "arrayminus": _numbers((data.predicted - data.low)[chosen]),
                },
            )  # fmt: skip
        )
    axes = (_linear(f"{side} {data.loss_label}") | {"range": ends} for side in
            ("observed", "predicted"))  # fmt: skip
    return _figure(traces, *axes)


@figure_of.register
def _(data: TimelinePlot) -> JSON:
    seconds, unit = time_unit(float(data.end.max()) if len(data.end) else 1.0)
    traces = []
    for status in dict.fromkeys(data.status):
        mine = np.array([other == status for other in data.status])
        color = STATUS_COLORS.get(status, FAILED_COLOR)
        traces.append(
            {
                "type": "bar", "orientation": "h", "name": _text(status),
                "base": _numbers(data.start[mine] / seconds),
                "x": _numbers((data.end - data.start)[mine] / seconds),
                "y": _numbers(data.lane[mine] + 1),
                "text": [f"trial {number:.0f}" for number in data.number[mine]],
                "textposition": "none", "hoverinfo": "text+x",
                "marker": {"color": color,
                           "pattern": {"shape": "" if status in STATUS_COLORS else "/"}},
            }
        )  # fmt: skip
    axis: JSON = _linear("lane") | {"autorange": "reversed", "dtick": 1}
    figure = _figure(traces, _linear(f"time since the first start ({unit})"), axis)
    figure["layout"] |= {"barmode": "overlay", "bargap": 0.2, "showlegend": True}
    return figure


@figure_of.register
def _(data: BudgetPlot) -> JSON:
    shown = near_best(data.loss, data.maximize)
    best = _line(data.spent, data.best, "best so far", BLUE)
    best["line"]["shape"] = "hv"
    axis = _linear(data.loss_label)
    axis["range"] = _range(np.concatenate([data.loss[shown], data.best[-1:]]))
    traces = [_points(data.spent[shown], data.loss[shown], "trials"), best]
    return _figure(traces, _linear(f"spent ({data.unit})"), axis)


def _lr_curves(curves: Sequence[LRCurvePlot]) -> JSON:
    traces = []
    for i, curve in enumerate(curves):
        last = i == len(curves) - 1
        color = ORANGE if last else _VIRIDIS[i % len(_VIRIDIS)]
        traces.append(
            _line(curve.lr, curve.loss, curve.label, color, line_width=3 if last else 1.5)
        )
        best = float(np.interp(curve.best_lr, curve.lr, curve.loss))
        traces.append(
            _line(
                [curve.best_lr],
                [best],
                "recommended",
                color,
                mode="markers",
                showlegend=False,
                marker={"size": 9, "color": color},
            )  # fmt: skip
        )
    losses = np.concatenate([curve.loss for curve in curves])
    axis = _linear("loss") | {"range": _range(losses[near_best(losses)])}
    return _figure(traces, _log("learning rate"), axis)


@figure_of.register
def _(data: TransferPanel) -> JSON:
    def shown(natural: Any) -> Any:
        return np.exp(np.clip(natural, -690.0, 690.0)) if data.log else natural

    line = np.exp(data.line_scale)
    best = list(data.best)
    x, y = np.exp(data.scale), shown(data.setting)
    axis = _axis(Dimension(data.label, data.log)) | {"range": _range(y, log=data.log)}
    traces = [
        _points(x, y, "runs"),
        *_band(line, shown(data.low), shown(data.high)),
        _line(line, shown(data.line), "fitted optimum", ORANGE),
        _rings(x[best], y[best]),
    ]
    return _figure(traces, _log(data.axis), axis)


def _figure(traces: Sequence[JSON], x: JSON, y: JSON) -> JSON:
    for axis, letter in ((x, "x"), (y, "y")):
        if axis.get("type") == "log":
            axis["dtick"] = _log_step(axis, [trace.get(letter, []) for trace in traces])
    layout = {
        "xaxis": x,
        "yaxis": y,
        "margin": {"l": 64, "r": 16, "t": 34, "b": 48},
        "legend": {"orientation": "h", "y": -0.27, "yanchor": "top"},
        "plot_bgcolor": "white",
        "paper_bgcolor": "white",
        "font": {"size": 13, "color": "#222"},
        "hovermode": "closest",
    }
    return {"data": list(traces), "layout": layout}


def _log_step(axis: JSON, columns: Sequence[Sequence[float | None]]) -> str | int:
    """Return the step of the labels of a log axis: 1, 2, 5 or powers of ten."""
    seen = [value for column in columns for value in column if value is not None and value > 0]
    low, high = axis.get("range") or np.log10([min(seen, default=1.0), max(seen, default=10.0)])
    decades = float(high - low)
    return "D2" if decades < _FEW_DECADES else max(1, round(decades / _FEW_DECADES))


def _axis(setting: Dimension) -> JSON:
    if setting.choices:
        codes = list(range(len(setting.choices)))
        texts = [_label(choice) for choice in setting.choices]
        ticks = {"tickvals": codes, "ticktext": texts, "range": [-0.5, len(codes) - 0.5]}
        return _linear(setting.name) | ticks
    return _log(setting.name) if setting.log else _linear(setting.name)


def _linear(name: str) -> JSON:
    return {
        "title": {"text": _label(name, 2 * _LONGEST)}, "automargin": True, "gridcolor": "#e4e4e4",
        "zeroline": False, "linecolor": "#888", "ticks": "outside",
    }  # fmt: skip


def _log(name: str) -> JSON:
    return _linear(name) | {"type": "log", "exponentformat": "power"}


def _points(x: ArrayLike, y: ArrayLike, name: str) -> JSON:
    marker = {"size": 6, "color": GRAY, "opacity": 0.5}
    return {
        "type": "scatter", "mode": "markers", "name": name, "marker": marker,
        "x": _numbers(x), "y": _numbers(y),
    }  # fmt: skip


def _line(
    x: ArrayLike,
    y: ArrayLike,
    name: str,
    color: str,
    *,
    dash: str = "solid",
    line_width: float = 2.0,
    mode: str = "lines",
    **more: Any,
) -> JSON:
    line = {"color": color, "dash": dash, "width": line_width}
    return {
        "type": "scatter", "mode": mode, "name": _text(name), "line": line,
        "x": _numbers(x), "y": _numbers(y), **more,
    }  # fmt: skip


def _band(x: ArrayLike, low: ArrayLike, high: ArrayLike, *, named: bool = True) -> list[JSON]:
    edge = {"width": 0, "color": ORANGE}
    first = _line(x, low, "", ORANGE, showlegend=False, hoverinfo="skip")
    last = _line(
        x, high, "90 % interval", ORANGE, fill="tonexty", fillcolor=_FAINT, showlegend=named,
        hoverinfo="skip", legendgroup="band",
    )  # fmt: skip
    return [first | {"line": edge}, last | {"line": edge}]


def _rings(x: ArrayLike, y: ArrayLike) -> JSON:
    marker = {"symbol": "circle-open", "size": 11, "color": BLUE, "line": {"width": 2}}
    return _line(x, y, "best run of each size", BLUE, mode="markers", marker=marker)


def _star(x: float, y: float, interval: tuple[float, float]) -> JSON:
    low, high = interval
    return _line(
        [x], [y], "target", PURPLE, mode="markers",
        marker={"symbol": "star", "size": 15, "color": PURPLE,
                "line": {"color": "white", "width": 1}},
        error_y={"type": "data", "symmetric": False, "array": _numbers([high - y]),
                 "arrayminus": _numbers([y - low])},
    )  # fmt: skip


def _range(values: ArrayLike, *, log: bool = False) -> list[float]:
    seen = np.asarray(values, dtype=np.float64)
    seen = np.log10(seen[seen > 0]) if log else seen
    seen = seen[np.isfinite(seen)]
    if not len(seen):
        return [0.0, 1.0]
    low, high = float(seen.min()), float(seen.max())
    room = 0.08 * (high - low) or 0.5 * (abs(high) or 1.0)
    return [float(f"{low - room:.{_DIGITS}g}"), float(f"{high + room:.{_DIGITS}g}")]


def _numbers(values: ArrayLike) -> list[float | None]:
    return [
        float(f"{value:.{_DIGITS}g}") if np.isfinite(value) else None
        for value in np.asarray(values, dtype=np.float64).ravel().tolist()
    ]


def _text(text: str) -> str:
    """Return a user's text as Plotly shows it letter by letter; MathJax is never loaded."""
    return escape(text.encode("utf-8", "backslashreplace").decode())


def _label(text: str, longest: int = _LONGEST) -> str:
    """Return a text that leaves room for the picture beside it."""
    return _text(text if len(text) <= longest else f"{text[: longest - 3]}...")
