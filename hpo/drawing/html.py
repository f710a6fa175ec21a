"""One self-contained HTML page about a study: opening it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from hpo.drawing.interactive import figure_of
from hpo.drawing.plot_data import FrontPlot

_FEW = 12  # numbers of trials that are listed
_LONGEST = 1e7  # from here on numbers are written with an exponent
_FRONT = (
    "The front links the trials that no other beats in both; it is drawn at the losses that the "
    "model expects, so a lucky run may lie beyond it."
)


@dataclass(frozen=True, slots=True)
class HTMLTable:
    """Table of a page: names of the columns and values, which are formatted and escaped later.

    Example:
        >>> HTMLTable(("trial", "loss"), [(0, 1.5), (1, None)]).header
        ('trial', 'loss')
    """

    header: Sequence[str]
    rows: Sequence[Sequence[Any]]


@dataclass(frozen=True, slots=True)
class RecommendedConfig:
    """Recommended config of a page, with how far to trust it.

    Attributes:
        config: Value of every setting.
        intervals: Central 90 % intervals of where the best values lie, of numeric settings.
        informed_by_data: Shares of the prior variance that the runs removed, in [0, 1].
        loss: Predicted loss of one run.
        loss_interval: Central 90 % interval of the loss.
        warnings: Sentences on why to doubt it.
        no_effect: Settings without an effect that the runs could show.
        at: Sentence on the scale it is meant for.
    """

    config: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]
    informed_by_data: Mapping[str, float]
    loss: float
    loss_interval: tuple[float, float]
    warnings: Sequence[str] = ()
    no_effect: Sequence[str] = ()
    at: str = ""


@dataclass(frozen=True, slots=True)
class ShownTrial:
    """The best trial, or the one with the best loss as observed.

    Attributes:
        number: Number of the trial.
        loss: Its observed loss.
        expected_loss: Posterior mean of the loss at its config.
    """

    number: int
    loss: float
    expected_loss: float


@dataclass(frozen=True, slots=True)
class PagePicture:
    """Picture of a page.

    Attributes:
        title: What it shows.
        caption: How to read it.
        data: Its data, such as a :class:`~hpo.drawing.plot_data.LawPlot`.
        figure: Its figure as plotly.js takes it, where it is not that of the data. Without both
            there is only the caption.
        wide: Whether it keeps its width on a phone, where it scrolls.
    """

    title: str
    caption: str
    data: Any = None
    figure: Mapping[str, Any] | None = None
    wide: bool = False


@dataclass(frozen=True, slots=True)
class FailureKind:
    """Failures of one kind.

    Attributes:
        title: What happened.
        numbers: Numbers of the trials.
        text: Traceback or reason of the first of them.
    """

    title: str
    numbers: Sequence[int]
    text: str = ""


@dataclass(frozen=True, slots=True)
class ReportPage:
    """What a page shows.

    Attributes:
        title: Title of the page.
        finished: Number of finished trials.
        best: The best trial; None without any.
        recommended: Recommended config; None before any trial was completed.
        front: Members of the front of loss against cost; None without any.
        picture: Data of the picture of the front; None without any.
        trials: All finished trials.
        observed: Trial with the best observed loss; None where it is the best trial.
        nothing: Why there is no recommendation, and what to do; None where there is one.
        made: Line on when and with what the page was made.
        summary: Sentences and tables on what was found.
        asked: Names and texts of what was asked for.
        space: The searched space.
        spent: Names and values of what was spent.
        failures: Kinds of failures.
        law: Coefficients of the fitted law.
        law_note: How to read them.
        rules: Transfer rules with their weights.
        pictures: More pictures.
        loss_name: Name of the objective.
    """

    title: str
    finished: int
    best: ShownTrial | None
    recommended: RecommendedConfig | None
    front: HTMLTable | None
    picture: FrontPlot | None
    trials: HTMLTable
    observed: ShownTrial | None = None
    nothing: str | None = None
    made: str = ""
    summary: Sequence[str | HTMLTable] = ()
    asked: Sequence[tuple[str, Any]] = ()
    space: HTMLTable | None = None
    spent: Sequence[tuple[str, Any]] = ()
    failures: Sequence[FailureKind] = ()
    law: HTMLTable | None = None
    law_note: str = ""
    rules: HTMLTable | None = None
    pictures: Sequence[PagePicture] = ()
    loss_name: str = "loss"


def write_report(page: ReportPage, path: str | Path) -> Path:
    """Write best trial, recommendation, front, picture and all trials as one HTML file.

    Every text that came from the user (names, categories, reasons) is escaped.

    Args:
        page: What to show.
        path: File to write.

    Returns:
        The path.

    Example:
        >>> import tempfile
        >>> advice = RecommendedConfig({"lr": 1e-3}, {"lr": (5e-4, 2e-3)}, {}, 1.4, (1.3, 1.5))
        >>> trials = HTMLTable(("number", "loss"), [(0, 1.5)])
        >>> page = ReportPage(
        ...     "<lr> search", 1, ShownTrial(0, 1.5, 1.45), advice, None, None, trials
        ... )
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     text = write_report(page, Path(folder, "report.html")).read_text()
        >>> "<h1>&lt;lr&gt; search</h1>" in text
        True
    """
    environment = _environment()
    advice = page.recommended
    shown = {
        f"p{i}": picture for i, picture in enumerate(page.pictures)
    }  # the front has a place of its own
    if page.picture is not None:
        shown["front"] = PagePicture("", "", page.picture)
    figures = {
        key: picture.figure or figure_of(picture.data)
        for key, picture in shown.items()
        if picture.figure is not None or picture.data is not None
    }
    text = environment.get_template("report.html.j2").render(
        page=_without_empty_columns(page),
        recommendation=None if advice is None else _recommendation(advice),
        front={"key": "front", "title": "Every trial, and the front", "caption": _FRONT}
        if page.picture is not None
        else None,
        pictures=[
            {
                "key": key if key in figures else "",
                "title": p.title,
                "caption": p.caption,
                "wide": p.wide,
            }
            for key, p in shown.items()
            if key != "front"
        ],
        figures=_as_script(figures) if figures else "",
        library=_library() if figures else "",
    )
    path = Path(path)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # surrogates have no UTF-8
    return path


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("hpo", "drawing"),
        autoescape=True,
        trim_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else _show(value),
    )
    environment.filters["few"] = _few
    return environment


def _as_script(figures: Mapping[str, Any]) -> Markup:
    """Return JSON that stands inside a script element, which no text can end."""
    text = json.dumps(figures, separators=(",", ":"), allow_nan=False)
    for letter in "<>&":
        text = text.replace(letter, f"\\u{ord(letter):04x}")
    return Markup(text)


@cache
def _library() -> Markup:
    """Return plotly.js, compressed and in letters; it is a third of its size."""
    packed = gzip.compress(get_plotlyjs().encode(), mtime=0)
    return Markup(base64.b64encode(packed).decode("ascii"))


def _recommendation(advice: RecommendedConfig) -> HTMLTable:
    rows = [
        [
            name,
            value,
            *advice.intervals.get(name, ("", "")),
            "no effect seen"
            if name in advice.no_effect
            else _share(advice.informed_by_data.get(name)),
        ]
        for name, value in advice.config.items()
    ]
    known = 5 if any(row[4] for row in rows) else 4
    header = ("setting", "value", "90 % from", "to", "from data")
    return HTMLTable(header[:known], [row[:known] for row in rows])


def _without_empty_columns(page: ReportPage) -> ReportPage:
    """Leave out columns of the trials in which nothing stands."""
    header, rows = page.trials.header, page.trials.rows
    kept = [k for k in range(len(header)) if not rows or any(_show(row[k]) for row in rows)]
    trials = HTMLTable([header[k] for k in kept], [[row[k] for k in kept] for row in rows])
    return replace(page, trials=trials)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _few(numbers: Sequence[int]) -> str:
    named = ", ".join(str(number) for number in numbers[:_FEW])
    return named if len(numbers) <= _FEW else f"{named} and {len(numbers) - _FEW} more"


def _show(value: object) -> str:
    """Return a value as text; nothing for None and for a number that is none."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        digits = f"{value:.5g}"
        return f"{float(digits):.0f}" if 1e5 <= abs(value) < _LONGEST else digits
    shown = (c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in str(value))
    return "".join(shown)
