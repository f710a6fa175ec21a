"""One self-contained HTML page about a result: opening it loads nothing from elsewhere."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.drawing.plots import plot_front

if TYPE_CHECKING:
    from hpo.optimizer.recommend import Recommendation
    from hpo.optimizer.result import Result

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 13px; }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd; }
img { max-width: 100%; } .scroll { overflow-x: auto; } .warning { color: #a40; }
"""


def write_report(result: Result, path: str | Path) -> Path:
    """Write best trial, recommendation, front, picture and all trials to ``path``; returns it.

    Every text that came from the user (names, categories, reasons) is escaped.

    Raises:
        ValueError: before any trial was completed.
    """
    best, advice = result.best, result.recommend()
    unit = result.cost_unit or "cost"
    names = list(result.space)
    sections = [
        f"<p>Best of {len(result.log.observations)} finished trials: trial {best.number},"
        f" loss {_show(best.loss)}, expected {_show(best.expected_loss)}.</p>",
        _recommendation(advice),
    ]
    if result.front:
        rows = [
            [m.number, m.cost, m.loss, m.expected_loss, *(m.config.get(name) for name in names)]
            for m in result.front
        ]
        sections += [
            "<h2>Front of loss against cost</h2>",
            _picture(result),
            _table(["trial", unit, "loss", "expected", *names], rows),
        ]
    trials = result.to_pandas()
    sections += [
        "<h2>Trials</h2>",
        _table(list(trials.columns), trials.itertuples(index=False)),
    ]
    title = escape(result.study.study_name if result.study is not None else "scaletune")
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style><h1>{title}</h1>{''.join(sections)}</html>"
    )
    path = Path(path)
    path.write_text(page, encoding="utf-8")
    return path


def _recommendation(advice: Recommendation) -> str:
    rows = [
        [
            name,
            value,
            *advice.intervals.get(name, ("", "")),
            _share(advice.informed_by_data.get(name)),
        ]
        for name, value in advice.config.items()
    ]
    low, high = (_show(end) for end in advice.loss_interval)
    warnings = "".join(f'<p class="warning">{escape(text)}</p>' for text in advice.warnings)
    return (
        "<h2>Recommendation</h2>"
        + _table(["setting", "value", "90 % from", "to", "told by runs"], rows)
        + f"<p>Predicted loss {_show(advice.loss)}, 90 % interval {low} to {high}.</p>"
        + warnings
    )


def _picture(result: Result) -> str:
    buffer = io.BytesIO()
    plot_front(result).savefig(buffer, format="png", dpi=120)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return f'<img alt="loss against cost" src="data:image/png;base64,{data}">'


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in header)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_show(value))}</td>" for value in row) + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'


def _share(value: float | None) -> str:
    return "" if value is None else f"{value:.0%}"


def _show(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.5g}" if isinstance(value, float) else str(value)
