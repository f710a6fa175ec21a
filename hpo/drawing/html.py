"""One self-contained HTML page about a study: opening it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from hpo.drawing.plot_data import FrontPlot
from hpo.drawing.plots import plot_front

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
img { max-width: 100%; } .scroll { overflow-x: auto; } .warning { color: #a40; }
"""


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
    """

    config: Mapping[str, Any]
    intervals: Mapping[str, tuple[float, float]]
    informed_by_data: Mapping[str, float]
    loss: float
    loss_interval: tuple[float, float]
    warnings: Sequence[str] = ()
    no_effect: Sequence[str] = ()


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
    sections = [
        _best(page),
        *_observed(page.observed),
        *([] if page.nothing is None else [_nothing(page.nothing)]),
        *([] if page.recommended is None else [_recommendation(page.recommended)]),
    ]
    if page.front is not None:
        sections.append("<h2>Front of loss against cost</h2>")
        if page.picture is not None:
            sections.append(_picture(page.picture))
        sections.append(_table(page.front))
    sections += ["<h2>Trials</h2>", _table(page.trials)]
    title = escape(page.title)
    text = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>{''.join(sections)}</html>"
    )
    path = Path(path)
    path.write_text(text, encoding="utf-8", errors="backslashreplace")  # surrogates have no UTF-8
    return path


def _best(page: ReportPage) -> str:
    best = page.best
    if best is None:
        return f"<p>{page.finished} finished trials, none of them completed.</p>"
    return (
        f"<p>Best of {page.finished} finished trials: trial {best.number},"
        f" loss {_show(best.loss)}, expected {_show(best.expected_loss)}.</p>"
    )


def _nothing(why: str) -> str:
    return (
        "<h2>Recommendation</h2><p>No trial was completed, so nothing can be recommended; "
        f"{escape(why)}.</p>"
    )


def _observed(best: ShownTrial | None) -> tuple[str, ...]:
    if best is None:
        return ()
    return (
        f"<p>Best loss observed: trial {best.number}, loss {_show(best.loss)},"
        f" expected {_show(best.expected_loss)}.</p>",
    )


def _recommendation(advice: RecommendedConfig) -> str:
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
    low, high = (_show(end) for end in advice.loss_interval)
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in advice.warnings)
    return (
        "<h2>Recommendation</h2>"
        + _table(HTMLTable(["setting", "value", "90 % from", "to", "from data"], rows))
        + f"<p>Predicted loss {_show(advice.loss)}, 90 % interval {low} to {high}.</p>"
        + warnings
    )


def _picture(data: FrontPlot) -> str:
    buffer = io.BytesIO()
    plot_front(data).savefig(buffer, format="png", dpi=120)
    encoded = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="loss against cost" src="data:image/png;base64,{encoded}">'


def _table(table: HTMLTable) -> str:
    head = _cells("th", table.header)
    body = "".join(f"<tr>{_cells('td', map(_show, row))}</tr>" for row in table.rows)
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f"<{tag}>{escape(text)}</{tag}>" for text in texts)


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _show(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
