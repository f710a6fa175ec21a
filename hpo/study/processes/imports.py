"""Time that a process spends on loading modules, which is not part of training.

A training function often imports what it needs when it is called, and every new process loads it
again. Without this that time would be the trial's.
"""

from __future__ import annotations

import importlib
import threading
import time
from typing import Any

__all__ = ["training_clock", "watch_imports"]

_bootstrap: Any = importlib._bootstrap
_loading = 0.0  # seconds so far, of the outermost imports of the main thread
_depth = 0


def watch_imports() -> None:
    """Count from now on the time that the main thread of this process spends on loading modules.

    Example:
        >>> before = _bootstrap._find_and_load
        >>> watch_imports()
        >>> first = training_clock(), time.perf_counter()
        >>> import this_is_missing
        Traceback (most recent call last):
        ModuleNotFoundError: No module named 'this_is_missing'
        >>> training_clock() - first[0] < time.perf_counter() - first[1]
        True
        >>> _bootstrap._find_and_load = before
    """
    load = getattr(_bootstrap, "_find_and_load", None)  # called for modules that are not loaded yet
    if load is None or getattr(load, "watched", False):
        return

    def find_and_load(name: str, *arguments: Any) -> Any:
        global _depth, _loading
        if _depth or threading.current_thread() is not threading.main_thread():
            return load(name, *arguments)
        began = time.perf_counter()
        _depth = 1
        try:
            return load(name, *arguments)
        finally:
            _depth = 0
            _loading += time.perf_counter() - began

    find_and_load.watched = True  # type: ignore[attr-defined]
    _bootstrap._find_and_load = find_and_load


def training_clock() -> float:
    """Return seconds of a clock that stands still while modules are loaded."""
    return time.perf_counter() - _loading
