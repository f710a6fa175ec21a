"""Exceptions of scaletune, and how text of unknown origin is printed.

A wrong value raises a `ValueError` at the call; a study that cannot continue raises a
`RuntimeError`; `Stop` is control flow. Messages name the argument, the rule, the value and the way
out.

Names, categories and messages may come from a study or table that somebody else has made. On a
terminal, control characters among them could move the cursor, hide lines or change the title, so
they are printed as escapes.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import wraps
from typing import TypeVar

__all__ = ["BudgetError", "SpaceError", "Stop", "StudyError", "UnknownNameError"]

Printed = TypeVar("Printed")

# Control characters but line feed and tab, line and paragraph separators, marks that change the
# direction of the text, and surrogates, which no terminal can be sent.
_CONTROLS = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str) -> str:
    r"""Return `text` with control characters as escapes; line feeds and tabs stay.

    Args:
        text: Text for a terminal or a log.

    Example:
        >>> print(printable("loss" + chr(27) + "[2J"))
        loss\x1b[2J
    """
    return _CONTROLS.sub(lambda found: ascii(found.group())[1:-1], text)


def printable_str(method: Callable[[Printed], str]) -> Callable[[Printed], str]:
    r"""Return a `__str__` whose text is printable.

    Args:
        method: Method that makes the text.

    Example:
        >>> class Named:
        ...     @printable_str
        ...     def __str__(self):
        ...         return "lr" + chr(13)
        >>> print(Named())
        lr\r
    """

    @wraps(method)
    def printed(self: Printed) -> str:
        return printable(method(self))

    return printed


class _PrintableError(Exception):
    """Exception whose message is printable."""

    @printable_str
    def __str__(self) -> str:
        return super().__str__()


class SpaceError(_PrintableError, ValueError):
    """Raised for a search space, or a config meant for one, that breaks a rule of the space.

    Example:
        >>> from hpo import Float, Optimizer, SpaceError
        >>> optimizer = Optimizer({"x": Float(0, 1)})
        >>> try:
        ...     optimizer.tell({"x": 2.0}, loss=1.0)
        ... except SpaceError as error:
        ...     print(error)
        `x` must lie in [0.0, 1.0], got 2.0; move it or widen the bounds
    """


class UnknownNameError(_PrintableError, KeyError, ValueError):
    """Raised when something is looked up by a name or number that does not exist.

    Example:
        >>> from hpo import Float, Optimizer
        >>> try:
        ...     Optimizer({"x": Float(0, 1)}).tell(7, loss=1.0)
        ... except KeyError as error:
        ...     print(str(error).split(";")[0])
        `trial` must be the number of a trial that was asked, got 7
    """

    @printable_str
    def __str__(self) -> str:
        return ValueError.__str__(self)  # that of KeyError adds quotation marks


class BudgetError(_PrintableError, ValueError):
    """Raised for a budget or limit that cannot be kept, or a declared cost that no run reports.

    Example:
        >>> from hpo import Budget, BudgetError
        >>> try:
        ...     Budget(trials=0)
        ... except BudgetError as error:
        ...     print(error)
        Budget.trials must be an int of at least 1 or None, got 0; give the number of trials to run
    """


class StudyError(_PrintableError, RuntimeError):
    """Raised when a study cannot be opened, resumed or extended, or a result contradicts its log.

    Example:
        >>> from hpo import Float, Optimizer, StudyError
        >>> optimizer = Optimizer({"x": Float(0, 1)})
        >>> trial = optimizer.ask()
        >>> _ = optimizer.tell(trial, loss=1.0)
        >>> _ = optimizer.tell(trial, loss=1.0)  # the same result again changes nothing
        >>> try:
        ...     optimizer.tell(trial, loss=2.0)
        ... except StudyError as error:
        ...     print(str(error).split(";")[1].strip())
        ask for a new trial to run the config again
    """


class Stop(BaseException):
    """Raised by `ctx.report` to end a run: on the scheduler's decision or at a non-finite loss.

    Derives from `BaseException`, as `KeyboardInterrupt` does, so that a training function's own
    `except Exception` cannot swallow it.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> def train(config, ctx):
        ...     try:
        ...         ctx.report(step=1, loss=float("nan"))
        ...     except Exception:
        ...         print("never reached")
        ...     return 0.0
        >>> result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=1))
        >>> result.log.observation(0).cause.value
        'diverged'
    """
