"""Use of one object by several threads, one call at a time.

Fitted models are caches: a call may fit, extend or replace them, so two calls must not overlap.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class ThreadLock:
    """A reentrant lock; a copied or pickled object gets one of its own.

    Example:
        >>> import copy
        >>> lock = ThreadLock()
        >>> with lock, lock:
        ...     copy.deepcopy(lock) is lock
        False
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exception: object) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[ThreadLock], tuple[()]]:
        return type(self), ()


class Locked(Protocol):
    """An object whose methods are called by one thread at a time."""

    @property
    def lock(self) -> ThreadLock:
        """Held while one of its methods runs."""


S = TypeVar("S", bound=Locked)


def serialized(method: Callable[Concatenate[S, P], R]) -> Callable[Concatenate[S, P], R]:
    """Wrap a method so that the lock of its object is held while it runs.

    Example:
        >>> class Counter:
        ...     lock, count = ThreadLock(), 0
        ...
        ...     @serialized
        ...     def increment(self):
        ...         self.count += 1
        >>> counter = Counter()
        >>> counter.increment()
        >>> counter.count
        1
    """

    @wraps(method)
    def held(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return method(self, *args, **kwargs)

    return held
