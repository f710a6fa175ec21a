"""Folders of recorded data: `$SCALETUNE_DATA` (else a cache), then `../shared/data`.

Each has the same layout: `yahpo/<scenario>/`, `hpob/`.
"""

from __future__ import annotations

import os
from pathlib import Path

from benchmarks.task import DataMissing

__all__ = ["cache", "find", "folders"]

_ROOT = Path(__file__).resolve().parents[2]


def cache() -> Path:
    """Return the folder for fetched data: `$SCALETUNE_DATA`, or a cache folder of the user."""
    named = os.environ.get("SCALETUNE_DATA")
    return Path(named) if named else Path.home() / ".cache" / "scaletune"


def folders() -> tuple[Path, ...]:
    """Return the folders to search, in order, whether they exist or not."""
    return tuple(dict.fromkeys([cache(), _ROOT.parent / "shared" / "data"]))


def find(relative: str, hint: str) -> Path:
    """Return the first existing `relative` path; raises `DataMissing` ending in `hint`."""
    for folder in folders():
        if (folder / relative).exists():
            return folder / relative
    places = ", ".join(str(folder) for folder in folders())
    raise DataMissing(f"`{relative}` is in none of {places}; {hint}")
