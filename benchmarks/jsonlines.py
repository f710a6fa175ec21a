"""Rows in a file with one JSON object a line, only ever appended to.

Experiments write a row as soon as it is measured and skip what the file already holds, so a command
that was killed continues where it stopped. Several processes may append to one file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["append_row", "read_rows"]


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows in the order written; none where there is no file.

    A line that a kill cut off is skipped.

    Raises:
        ValueError: if the file has lines but the first one is no JSON object, so that the file
            belongs to something else.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    rows = [_parse(line) for line in lines]
    if len(rows) > 1 and rows[0] is None:
        raise ValueError(
            f"{path} must hold one JSON object a line, got {lines[0][:60]!r} first; choose another"
            " --out"
        )
    return [row for row in rows if row is not None]


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Append one line in one write, after a line break where the last line was cut off."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        start = b""
        if file.tell() > 0:
            file.seek(-1, 2)
            start = b"" if file.read(1) == b"\n" else b"\n"
        file.write(start + json.dumps(row).encode() + b"\n")


def _parse(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
