"""Lines of Markdown tables, for experiments that print each row as soon as it is measured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

__all__ = ["table_head", "table_row"]


def table_head(columns: Sequence[str]) -> list[str]:
    """Return the line of column names and the line below it."""
    return [table_row(columns), "|---" * len(columns) + "|"]


def table_row(cells: Iterable[object]) -> str:
    """Return one line; a cell is written as `str` shows it."""
    return f"| {' | '.join(map(str, cells))} |"
