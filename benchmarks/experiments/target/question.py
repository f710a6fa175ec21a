"""What is asked of a method, what it scored, and the one table of all scores.

A question has cases (a table, a cut, a family). Measuring one method on one case with one seed
gives a `Row`: named numbers. A `Figure` reduces the rows of one method to the number shown, and
carries the range that number must lie in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from benchmarks.markdown import table_head, table_row

Array = NDArray[np.float64]
OURS = "scaletune"


class RivalMissing(Exception):
    """A rival cannot run here; the message says what is missing and the way out."""


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement.

    Attributes:
        question: name of the question.
        case: what it was asked about, such as a table or a cut.
        method: method that answered.
        seed: seed of whatever is drawn.
        values: numbers measured, by name.
    """

    question: str
    case: str
    method: str
    seed: int
    values: Mapping[str, float]

    @property
    def key(self) -> tuple[str, str, str, int]:
        """Return what tells a row apart from every other."""
        return self.question, self.case, self.method, self.seed


@dataclass(frozen=True, slots=True)
class Limit:
    """Range in which a figure must lie, both ends included.

    Attributes:
        low: smallest value that holds.
        high: largest value that holds.
        of: methods; `high` counts in units of the smallest figure among those that ran. Without any
            of them there is no upper limit to check.

    Example:
        >>> Limit(0.8, 0.97).text({})
        '0.8 to 0.97'
        >>> Limit(high=1.1, of=("Huber",)).holds(0.05, {"Huber": 0.05})
        True
    """

    low: float = -math.inf
    high: float = math.inf
    of: tuple[str, ...] = ()

    def range(self, rivals: Mapping[str, float]) -> tuple[float, float]:
        """Return the two ends, given the figures of the rivals."""
        if not self.of:
            return self.low, self.high
        known = [rivals[name] for name in self.of if name in rivals]
        return self.low, self.high * min(known) if known else math.inf

    def holds(self, value: float, rivals: Mapping[str, float]) -> bool:
        """Return whether `value` lies in the range; NaN does not."""
        low, high = self.range(rivals)
        return low <= value <= high

    def text(self, rivals: Mapping[str, float]) -> str:
        """Return the range in words; empty if nothing is required."""
        low, high = self.range(rivals)
        if math.isinf(high):
            return "" if math.isinf(low) else f">= {low:.3g}"
        return f"<= {high:.3g}" if math.isinf(low) else f"{low:.3g} to {high:.3g}"


Reduce = Callable[[Sequence[Mapping[str, float]]], float]


@dataclass(frozen=True, slots=True)
class Figure:
    """One number shown for each method.

    Attributes:
        label: words in the table.
        reduce: number from the values of all rows of one method.
        limit: range it must lie in.
        cases: cases whose rows count; all if empty.
        ours: method that `limit` is for.
    """

    label: str
    reduce: Reduce
    limit: Limit = field(default_factory=Limit)
    cases: tuple[str, ...] = ()
    ours: str = OURS


Measure = Callable[[str, str, int], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Question:
    """Something to measure, and how it is shown.

    Attributes:
        name: name in the command and the table.
        cases: what it is asked about.
        methods: methods that can answer, ours first.
        figures: what is shown.
        measure: function of case, method and seed that returns named numbers; raises `RivalMissing`
            for a method that cannot run here.
        seeds: number of seeds; 1 where nothing is drawn.
        skipped: whether a (case, method, seed) is left out, since it would repeat another.
    """

    name: str
    cases: tuple[str, ...]
    methods: tuple[str, ...]
    figures: tuple[Figure, ...]
    measure: Measure
    seeds: int = 1
    skipped: Callable[[str, str, int], bool] = lambda case, method, seed: False


def mean(name: str) -> Reduce:
    """Return the reduction to the mean of `name` over rows, each counted once."""
    return lambda rows: float(np.mean(_column(rows, name)))


def worst(name: str) -> Reduce:
    """Return the reduction to the largest `name` over rows."""
    return lambda rows: float(np.max(_column(rows, name)))


def median(name: str) -> Reduce:
    """Return the reduction to the median of `name` over rows."""
    return lambda rows: float(np.median(_column(rows, name)))


def pooled(name: str, count: str = "runs") -> Reduce:
    """Return the reduction to the mean of `name`, a row counting as often as its `count` says.

    Example:
        >>> pooled("covered")([{"covered": 1.0, "runs": 1}, {"covered": 0.5, "runs": 3}])
        0.625
    """

    def reduce(rows: Sequence[Mapping[str, float]]) -> float:
        weights = np.array([row[count] for row in rows if name in row], dtype=np.float64)
        return float(np.average(_column(rows, name), weights=weights))

    return reduce


def _column(rows: Sequence[Mapping[str, float]], name: str) -> Array:
    """Raises `ValueError` if no row has it, as for intervals of a method without any."""
    values = [row[name] for row in rows if name in row]
    if not values:
        raise ValueError(f"no row has {name!r}")
    return np.array(values, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """Predicted losses of runs not told, `(n,)` each; NaN ends where there is no interval.

    Attributes:
        loss: predicted loss.
        low: lower end of the 90 % interval of one run.
        high: upper end of it.
    """

    loss: Array
    low: Array
    high: Array

    @classmethod
    def points(cls, loss: Array) -> Foreseen:
        """Return predictions without intervals."""
        nothing = np.full(len(loss), np.nan)
        return cls(np.asarray(loss, dtype=np.float64), nothing, nothing)

    def against(self, recorded: Array) -> dict[str, float]:
        """Return errors, coverage and widths.

        Args:
            recorded: true losses, `(n,)`.

        Returns:
            "runs", "mae", "rmse", "bias" (predicted less recorded, mean) and, with intervals,
            "covered" (share) and "half width" (median, of loss).
        """
        miss = self.loss - recorded
        found = {
            "runs": float(len(miss)),
            "mae": float(np.mean(np.abs(miss))),
            "rmse": float(np.sqrt(np.mean(miss**2))),
            "bias": float(np.mean(miss)),
        }
        if np.isfinite(self.low).all():
            inside = (self.low <= recorded) & (recorded <= self.high)
            found["covered"] = float(np.mean(inside))
            found["half width"] = float(np.median(self.high - self.low)) / 2.0
        return found


COLUMNS = ("question", "figure", "must hold", "scaletune", "held", "others")


def table(questions: Iterable[Question], rows: Sequence[Row]) -> str:
    """Return all figures as one Markdown table: ours, what it must be, and the others'.

    Figures of which nothing was measured are left out.

    Args:
        questions: what to show, in order.
        rows: what was measured.
    """
    lines = table_head(COLUMNS)
    for question in questions:
        for figure in question.figures:
            found = _by_method(question, figure, rows)
            if found:
                lines.append(table_row(_cells(question.name, figure, found)))
    return "\n".join(lines)


def _by_method(question: Question, figure: Figure, rows: Sequence[Row]) -> dict[str, float]:
    """The figure of each method that has it, in the question's order."""
    cases = figure.cases or question.cases
    found = {}
    for method in question.methods:
        mine = [
            row.values
            for row in rows
            if row.question == question.name and row.method == method and row.case in cases
        ]
        try:
            value = figure.reduce(mine) if mine else math.nan
        except (KeyError, ValueError, ZeroDivisionError):  # no row has what this figure needs
            continue
        if not math.isnan(value):
            found[method] = value
    return found


def _cells(question: str, figure: Figure, found: Mapping[str, float]) -> list[str]:
    ours = found.get(figure.ours, math.nan)
    others = {name: value for name, value in found.items() if name != figure.ours}
    asked = figure.limit.text(found)
    held = (
        "" if not asked or math.isnan(ours) else "yes" if figure.limit.holds(ours, found) else "no"
    )
    shown = ", ".join(f"{name} {_number(value)}" for name, value in others.items())
    return [question, figure.label, asked, "" if math.isnan(ours) else _number(ours), held, shown]


def _number(value: float) -> str:
    """Three digits, and no exponent where a reader can do without."""
    if value == 0.0 or 1e-4 <= abs(value) < 1e4:
        digits = 3 if abs(value) < 1000 else 4
        return f"{float(f'{value:.{digits}g}'):.6f}".rstrip("0").rstrip(".")
    return f"{value:.2e}"
