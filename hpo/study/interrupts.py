"""Ctrl-C and SIGTERM, heard where they do no harm."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class Interrupts:
    """Turns Ctrl-C and SIGTERM into KeyboardInterrupt where it does no harm.

    Inside user code run inline it is raised at once; in the driver's own code, which must not be
    cut off between two writes, at the next `check`. A second signal is raised wherever it hits.
    Handlers that the user has set, and threads other than the main one, are left alone.
    """

    def __init__(self) -> None:
        self._pending = False
        self._exposed = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():
            for number, default in (
                (signal.SIGINT, signal.default_int_handler),
                (signal.SIGTERM, signal.SIG_DFL),
            ):
                if signal.getsignal(number) is default:
                    self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has come."""
        if self._pending:
            raise KeyboardInterrupt

    @contextmanager
    def exposed(self) -> Iterator[None]:
        """Let a signal raise at once."""
        self.check()
        self._exposed = True
        try:
            yield
        finally:
            self._exposed = False

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """Back in the driver's own code: hold a signal until the end of this."""
        before, self._exposed = self._exposed, False
        try:
            yield
        finally:
            self._exposed = before
        if before:
            self.check()

    def _handle(self, number: int, frame: FrameType | None) -> None:
        again, self._pending = self._pending, True
        if self._exposed or again:
            raise KeyboardInterrupt
