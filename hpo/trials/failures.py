"""Kinds of failures: the exception and the line that raised it, read from a traceback."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePath

from hpo.errors import printable
from hpo.trials.records import Cause, Observation

__all__ = ["Failure", "failures", "last_line", "where_raised"]

_FRAME = re.compile(r'^ *File "(?P<file>.*)", line (?P<line>\d+)', re.MULTILINE)
_ERROR = re.compile(r"^(?P<type>[A-Za-z_][\w.<>]*)(?::|$)")


@dataclass(frozen=True, slots=True)
class Failure:
    """Failures of one kind.

    Attributes:
        cause: Their cause.
        error: Type of the exception and where it was raised; the reason where none was.
        numbers: Numbers of the trials, in the order in which they failed.
        text: Traceback or reason of the first.
    """

    cause: Cause
    error: str
    numbers: tuple[int, ...]
    text: str


def failures(observations: Iterable[Observation]) -> tuple[Failure, ...]:
    """Return the kinds of failures among results, the most frequent first; lost ones count not.

    Args:
        observations: Results of trials.

    Example:
        >>> from hpo.trials.records import Status
        >>> failed = [
        ...     Observation(
        ...         k, {}, None, None, Status.FAILED, Cause.TIMEOUT, k, k, error="killed after 5 s"
        ...     )
        ...     for k in range(2)
        ... ]
        >>> [(kind.error, kind.numbers) for kind in failures(failed)]
        [('killed after 5 s', (0, 1))]
    """
    found: dict[tuple[Cause, str], list[Observation]] = {}
    for o in observations:
        if o.cause is not None and o.cause.teaches:
            error = where_raised(o.error) or last_line(o.error)
            found.setdefault((o.cause, error), []).append(o)
    kinds = [
        Failure(cause, error, tuple(o.number for o in those), those[0].error)
        for (cause, error), those in found.items()
    ]
    return tuple(sorted(kinds, key=lambda kind: -len(kind.numbers)))


def where_raised(text: str) -> str | None:
    r"""Return the type of an exception and the file and line that raised it; None if unknown.

    Args:
        text: Traceback as text, perhaps without its beginning.

    Example:
        >>> where_raised('Traceback ...\n  File "/home/me/train.py", line 12, in train\n'
        ...              "    loss / 0\nZeroDivisionError: division by zero\n")
        'ZeroDivisionError at train.py:12'
        >>> where_raised("killed after 5 s, its time limit") is None
        True
    """
    frames = list(_FRAME.finditer(text))
    if not frames:
        return None
    rest = text[frames[-1].end() :].split("\n")[1:]
    raised = next((found for line in rest if (found := _ERROR.match(line))), None)
    if raised is None:
        return None
    last = frames[-1]
    file = PurePath(last["file"].replace("\\", "/")).name
    return f"{raised['type']} at {file}:{last['line']}"


def last_line(text: str) -> str:
    r"""Return the last line of a traceback or reason, which says what happened.

    Args:
        text: Traceback or reason.

    Example:
        >>> last_line("Traceback ...\nKeyError: 'lr'\n")
        "KeyError: 'lr'"
    """
    return printable(text.strip().rpartition("\n")[2])
