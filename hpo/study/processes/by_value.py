"""Send what only a trial's process has to processes that it starts itself.

The training function of a script travels by value, so the script is not a module there, and a data
loader, a pool or `torch.multiprocessing.spawn` inside a trial could not send a class or function of
it by its name. What cannot be found under its name is therefore sent by value, too.
"""

from __future__ import annotations

import multiprocessing
import pickle
import sys
from multiprocessing.reduction import ForkingPickler
from types import FunctionType
from typing import Any

__all__ = ["send_by_value"]


def send_by_value(start_method: str | None) -> None:
    """Let this process and those it starts send functions and classes that no module holds.

    Args:
        start_method: How processes are started here if nothing else is said; None for the
            system's default. Without this it would be how this process itself was started.

    Example:
        >>> before = multiprocessing.get_start_method(allow_none=True)
        >>> send_by_value(before)
        >>> double = eval("lambda x: 2 * x")
        >>> pickle.loads(ForkingPickler.dumps(double))(4)
        8
        >>> del ForkingPickler.reducer_override
    """
    multiprocessing.set_start_method(start_method, force=True)
    _install()


def _install() -> None:
    pickler: Any = ForkingPickler
    pickler.reducer_override = _reduce  # which pickle looks up whenever it is used


def _reduce(pickler: ForkingPickler, value: Any) -> Any:
    """How to send `value`; NotImplemented leaves that to its name."""
    if not isinstance(value, FunctionType | type) or _is_found(value):
        return NotImplemented
    import cloudpickle  # type: ignore[import-untyped]  # it publishes no types

    try:
        return _received, (cloudpickle.dumps(value),)
    except Exception:  # then the error of plain pickling says more
        return NotImplemented


def _received(dumped: bytes) -> Any:
    """The value, in a process that sends by value itself from now on."""
    _install()
    return pickle.loads(dumped)


def _is_found(value: FunctionType | type) -> bool:
    """Whether another process would find `value` under its name."""
    if value.__module__ == "builtins":
        return True  # where NoneType has no name, but pickle knows it
    found: Any = sys.modules.get(value.__module__ or "")
    for name in value.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is value
