"""What an object prints: sentences and tables, as plain text and as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, TypeAlias

from hpo.errors import printable

__all__ = ["Grid", "Part", "Printed", "as_html", "as_text", "settings", "short", "span"]

_CELL = "text-align:left; padding:2px 12px 2px 0"


@dataclass(frozen=True, slots=True)
class Grid:
    """Table of texts.

    Attributes:
        header: Names of the columns; empty for none.
        rows: Cells of each row, as many as there are columns.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]


Part: TypeAlias = str | Grid


class Printed:
    """Base class of what prints as parts: `print` aligns its tables, a notebook shows HTML.

    Example:
        >>> class Answer(Printed):
        ...     def parts(self):
        ...         return ["One setting", Grid(("setting", "value"), [("lr", "0.01")])]
        >>> print(Answer())
        One setting
        setting  value
        lr       0.01
        >>> Answer()._repr_html_().startswith("<div><p>One setting</p><table>")
        True
    """

    __slots__ = ()

    def parts(self) -> Sequence[Part]:
        """Return sentences and tables, in order."""
        raise NotImplementedError

    def __str__(self) -> str:
        return as_text(self.parts())

    def _repr_html_(self) -> str:
        return as_html(self.parts())


def as_text(parts: Iterable[Part]) -> str:
    """Return sentences, one a line, and aligned tables.

    Args:
        parts: Sentences and tables.

    Example:
        >>> print(as_text(["Best", Grid((), [("lr", "0.01"), ("depth", "4")])]))
        Best
        lr     0.01
        depth  4
    """
    return printable("\n".join(part if isinstance(part, str) else _aligned(part) for part in parts))


def as_html(parts: Iterable[Part]) -> str:
    """Return the same as HTML, everything escaped.

    Args:
        parts: Sentences and tables.

    Example:
        >>> as_html(["a < b"])
        '<div><p>a &lt; b</p></div>'
    """
    shown = []
    for part in parts:
        if isinstance(part, str):
            text = escape(printable(part)).replace("\n", "<br>")
            shown.append(f"<p>{text}</p>" if text else "")
            continue
        head = _cells("th", part.header) if part.header else ""
        rows = (*([head] if head else []), *(_cells("td", row) for row in part.rows))
        shown.append(f"<table>{''.join(f'<tr>{row}</tr>' for row in rows)}</table>")
    return f"<div>{''.join(shown)}</div>"


def settings(config: Mapping[str, Any]) -> Grid:
    """Return a table of the values of a config."""
    return Grid(("setting", "value"), [(name, short(value)) for name, value in config.items()])


def short(value: object, digits: int = 4) -> str:
    """Return a value for people: four digits of a float, nothing for None.

    Example:
        >>> short(0.123456), short(3), short(None)
        ('0.1235', '3', '')
    """
    if value is None:
        return ""
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def span(interval: tuple[float, float] | None, digits: int = 4) -> str:
    """Return an interval for people.

    Example:
        >>> span((0.25, 1e9))
        '0.25 to 1e+09'
    """
    return "" if interval is None else " to ".join(f"{end:.{digits}g}" for end in interval)


def _aligned(grid: Grid) -> str:
    rows = [grid.header, *grid.rows] if grid.header else [*grid.rows]
    lines = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def _cells(tag: str, texts: Iterable[str]) -> str:
    return "".join(f'<{tag} style="{_CELL}">{escape(printable(text))}</{tag}>' for text in texts)
