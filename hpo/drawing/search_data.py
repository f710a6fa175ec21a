"""What the pictures of a search show, as arrays and plain values; it needs NumPy alone.

Losses are in the user's direction, in every array.
"""

from __future__ import annotations

from dataclasses import dataclass

from surrogates.data import Array


@dataclass(frozen=True, slots=True)
class Dimension:
    """Axis of one setting.

    Attributes:
        name: Name of the setting.
        log: Whether it is drawn on a log axis.
        choices: Texts of the choices of a categorical setting, whose values are their indices;
            empty for a number.

    Example:
        >>> Dimension("lr", log=True).choices
        ()
    """

    name: str
    log: bool = False
    choices: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SlicePlot:
    """Expected loss along one setting, the others as recommended.

    A run is drawn as far from the line as its loss was from what the model expects of its config.

    Attributes:
        setting: The setting.
        value: Its values, `(m,)`, ascending.
        loss: Expected losses, `(m,)`.
        low: Lower ends of their 90 % intervals, `(m,)`.
        high: Upper ends of them, `(m,)`.
        run_value: Values of the runs in which the setting was active, `(n,)`.
        run_loss: Their losses, moved to the slice, `(n,)`.
        recommended: Recommended value; None if it is not active there.
        at: What the slice is taken at.
        loss_label: Name of the loss.
        maximize: Whether a larger loss is better.
    """

    setting: Dimension
    value: Array
    loss: Array
    low: Array
    high: Array
    run_value: Array
    run_loss: Array
    recommended: float | None = None
    at: str = ""
    loss_label: str = "loss"
    maximize: bool = False


@dataclass(frozen=True, slots=True)
class ContourPlot:
    """Expected loss over two settings, the others as recommended.

    Attributes:
        x: Setting along the horizontal axis.
        y: Setting along the vertical axis.
        x_value: Its values, `(p,)`, ascending.
        y_value: Values of the other one, `(q,)`, ascending.
        loss: Expected losses, `q x p`.
        run_x: Values of the runs, `(n,)`.
        run_y: Values of the other setting, `(n,)`.
        recommended: Recommended values of the two.
        at: What the slice is taken at.
        loss_label: Name of the loss.
        maximize: Whether a larger loss is better.
    """

    x: Dimension
    y: Dimension
    x_value: Array
    y_value: Array
    loss: Array
    run_x: Array
    run_y: Array
    recommended: tuple[float, float]
    at: str = ""
    loss_label: str = "loss"
    maximize: bool = False


@dataclass(frozen=True, slots=True)
class ImportancePlot:
    """Share of each setting in how the expected loss varies over the searched range.

    Attributes:
        names: Names of the settings, the most important first.
        share: Shares, `(k,)`; they add up to 1.
        low: Lower ends of their 90 % intervals, `(k,)`.
        high: Upper ends of them, `(k,)`.
        enough: Whether the model knows more about the loss than it does not.
        runs: Number of runs, partial ones included.
        at: What scale it holds at.
    """

    names: tuple[str, ...]
    share: Array
    low: Array
    high: Array
    enough: bool
    runs: int
    at: str = ""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """Losses that one run reported, and where it is expected to go.

    Attributes:
        number: Number of the trial.
        step: Steps of the reports, `(m,)`, ascending.
        loss: Losses at them, `(m,)`.
        finished: Whether the run is complete.
        later: Later steps, `(k,)`; None without a forecast.
        forecast: Median, lower and upper ends of the 90 % interval there, `3 x k`.
    """

    number: int
    step: Array
    loss: Array
    finished: bool
    later: Array | None = None
    forecast: Array | None = None


@dataclass(frozen=True, slots=True)
class CurvesPlot:
    """Learning curves, the best last.

    Attributes:
        curves: Curves of some runs.
        hidden: Number of runs that are left out.
        step_label: Name of the steps.
        loss_label: Name of the loss.
        maximize: Whether a larger loss is better.
    """

    curves: tuple[LearningCurve, ...]
    hidden: int = 0
    step_label: str = "step"
    loss_label: str = "loss"
    maximize: bool = False


@dataclass(frozen=True, slots=True)
class ParallelPlot:
    """Settings of the runs side by side, one line a run.

    Attributes:
        settings: One entry an axis.
        value: Values of the runs, `n x k`, NaN where a setting was not active.
        loss: Their losses, `(n,)`.
        loss_label: Name of the loss.
        maximize: Whether a larger loss is better.
    """

    settings: tuple[Dimension, ...]
    value: Array
    loss: Array
    loss_label: str = "loss"
    maximize: bool = False


@dataclass(frozen=True, slots=True)
class CalibrationPlot:
    """Losses as predicted before each run, beside those it had.

    Attributes:
        number: Numbers of the trials, `(n,)`.
        predicted: Predicted losses, `(n,)`.
        low: Lower ends of their 90 % intervals, `(n,)`.
        high: Upper ends of them, `(n,)`.
        observed: Observed losses, `(n,)`.
        loss_label: Name of the loss.

    Example:
        >>> import numpy as np
        >>> one = np.ones(2)
        >>> CalibrationPlot(np.arange(2), one, 0 * one, 2 * one, np.array([1.5, 3.0])).inside
        1
    """

    number: Array
    predicted: Array
    low: Array
    high: Array
    observed: Array
    loss_label: str = "loss"

    @property
    def inside(self) -> int:
        """Number of losses that lie within their intervals."""
        return int(((self.low <= self.observed) & (self.observed <= self.high)).sum())


@dataclass(frozen=True, slots=True)
class TimelinePlot:
    """When each trial ran.

    Attributes:
        number: Numbers of the trials, `(n,)`.
        lane: Lane of each trial, `(n,)`: trials that ran at the same time are in different ones.
        start: Seconds from the first start, `(n,)`.
        end: Seconds from the first start, `(n,)`.
        status: Status of each trial, or the cause of its failure.
    """

    number: Array
    lane: Array
    start: Array
    end: Array
    status: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class BudgetPlot:
    """Best loss so far, against what was spent.

    Attributes:
        spent: Sum of the costs up to each completed trial, or their count, `(n,)`, ascending.
        loss: Losses of those trials, `(n,)`.
        best: Best loss so far, `(n,)`.
        unit: Name of what was spent.
        loss_label: Name of the loss.
        maximize: Whether a larger loss is better.
    """

    spent: Array
    loss: Array
    best: Array
    unit: str
    loss_label: str = "loss"
    maximize: bool = False
