"""What the plots show, as arrays and plain values. It needs NumPy alone, so importing it is cheap.

Losses are in the user's direction and costs in one unit, in every array.
"""

from __future__ import annotations

from dataclasses import dataclass

from surrogates.data import Array


@dataclass(frozen=True, slots=True)
class Measured:
    """A run made outside the study, such as that of the target itself.

    Attributes:
        cost: Cost of the run, in the study's unit.
        loss: Loss of the run.

    Example:
        >>> Measured(cost=8e8, loss=1.2).loss
        1.2
    """

    cost: float
    loss: float


@dataclass(frozen=True, slots=True)
class PredictedLosses:
    """Predicted loss of the recommended config at scales from the front's end to the target.

    Attributes:
        cost: Predicted costs, `(m,)`, ascending.
        loss: Predicted losses of one run each, `(m,)`.
        low: Lower ends of their 90 % intervals, `(m,)`.
        high: Upper ends of their 90 % intervals, `(m,)`.
    """

    cost: Array
    loss: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class FrontPlot:
    """Losses against costs of a study, for `hpo.drawing.plots.plot_front`.

    Attributes:
        cost: Costs of the completed trials that told one, `(n,)`, > 0.
        loss: Losses of those trials, `(n,)`.
        front_cost: Costs of the members of the front, `(k,)`, ascending; k = 0 without a front.
        front_loss: Expected losses of the members, `(k,)`.
        predicted: Losses predicted beyond the front; None without a target or without costs.
        cost_unit: Name of the unit of the costs; None if the study declared none.
        maximize: Whether a larger loss is better.
        path: Indices of the trials that were the best so far when they ended, in that order.
        loss_label: Name of the loss.

    Example:
        >>> import numpy as np
        >>> cost, loss = np.array([1.0, 2.0, 4.0]), np.array([3.0, 2.0, 2.5])
        >>> data = FrontPlot(cost, loss, front_cost=cost[:2], front_loss=loss[:2])
        >>> data.front_loss.tolist()
        [3.0, 2.0]
    """

    cost: Array
    loss: Array
    front_cost: Array
    front_loss: Array
    predicted: PredictedLosses | None = None
    cost_unit: str | None = None
    maximize: bool = False
    path: tuple[int, ...] = ()
    loss_label: str = "loss"


@dataclass(frozen=True, slots=True)
class TransferPanel:
    """Runs and fitted optimum of one parameter along one scale axis, in natural units.

    Natural units are the logarithm of a scale axis, and the logarithm, the log-odds or the value of
    a parameter. The runs are moved along the fitted drift to the mean of all other axes, so that
    they can be compared with the line.

    Attributes:
        parameter: Name of the parameter, the row of the panel in the figure.
        axis: Name of the scale axis, the column of the panel in the figure.
        label: Label of the vertical axis.
        log: Whether the parameter's natural unit is its logarithm; values are drawn on a log axis.
        verdict: Verdict, the first line of the title.
        slope: Slope of the line, natural units per e-fold of the axis.
        slope_interval: Central 90 % interval of the slope.
        scale: Logarithms of the runs' sizes, `(n,)`.
        setting: Settings of the runs, `(n,)`.
        excess: Losses of the runs above the fitted best at their sizes, `(n,)`, less is better.
        best: Indices of the best run of each size.
        line_scale: Logarithms of the sizes of the line, `(m,)`.
        line: Fitted optimum, `(m,)`.
        low: Lower ends of its 90 % band, `(m,)`.
        high: Upper ends of its 90 % band, `(m,)`.
    """

    parameter: str
    axis: str
    label: str
    log: bool
    verdict: str
    slope: float
    slope_interval: tuple[float, float]
    scale: Array
    setting: Array
    excess: Array
    best: tuple[int, ...]
    line_scale: Array
    line: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class LRCurvePlot:
    """Expected loss against learning rate at one scale, with its unstable edge.

    Attributes:
        label: Name of the scale in the legend.
        lr: Learning rates, `(m,)`, ascending.
        loss: Expected losses, `(m,)`.
        best_lr: Recommended learning rate.
        edge: Least unstable learning rate; inf if there is none in the range.
        edge_interval: Central 90 % interval of the edge, ends inf likewise.
    """

    label: str
    lr: Array
    loss: Array
    best_lr: float
    edge: float
    edge_interval: tuple[float, float]


@dataclass(frozen=True, slots=True)
class OptimumPlot:
    """Best value of one setting from the smallest run to the target.

    Attributes:
        parameter: Name of the setting.
        log: Whether it is drawn on a log axis.
        value: Fitted optimum along the line, `(m,)`.
        low: Lower ends of its 90 % band, `(m,)`.
        high: Upper ends of its 90 % band, `(m,)`.
        run_value: Values of the runs, moved along the fitted drift to the line, `(n,)`.
        recommended: Value recommended at the target.
        interval: Its central 90 % interval.
        prior_low: Lower ends of the 90 % band before any run, `(m,)`; None if it is not known.
        prior_high: Upper ends of that band, `(m,)`.
    """

    parameter: str
    log: bool
    value: Array
    low: Array
    high: Array
    run_value: Array
    recommended: float
    interval: tuple[float, float]
    prior_low: Array | None = None
    prior_high: Array | None = None


@dataclass(frozen=True, slots=True)
class LawPlot:
    """Loss law and optima of the settings from the smallest run to a target.

    Attributes:
        label: Name of what stands for compute.
        compute: Compute along the line, `(m,)`; the last one is the target's.
        loss: Loss at the best settings along the line, `(m,)`.
        low: Lower ends of the 90 % intervals of one run, `(m,)`.
        high: Upper ends of them, `(m,)`.
        run_compute: Compute of the runs, `(n,)`.
        run_loss: Losses of the runs, `(n,)`.
        best: Indices of the best run of each size.
        predicted: Predicted loss of the recommended config at the target.
        predicted_interval: Its central 90 % interval.
        optima: One entry a setting.
        loss_label: Label of the axis of the loss.
        maximize: Whether a larger loss is better.
    """

    label: str
    compute: Array
    loss: Array
    low: Array
    high: Array
    run_compute: Array
    run_loss: Array
    best: tuple[int, ...]
    predicted: float
    predicted_interval: tuple[float, float]
    optima: tuple[OptimumPlot, ...]
    loss_label: str = "loss"
    maximize: bool = False
