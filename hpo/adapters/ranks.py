"""Reports of a trial that other tools train in several processes: all of them end, or none does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from hpo.errors import Stop
from hpo.study.context import Context

__all__ = ["broadcast", "meet", "report_on_all"]


def report_on_all(
    ctx: Context, *, first: bool, broadcast: Callable[[Any], Any], **report: Any
) -> None:
    """Report to the study from every process, and raise on all of them what it raises.

    A context that `hpo.connect` made tells its ranks itself. With any other the first process
    reports, and the tool tells the rest.

    Args:
        ctx: Context of the trial.
        first: Whether this process is the first of them.
        broadcast: Function that returns, on every process, what the first one gives it.
        report: Arguments of `ctx.report`.

    Raises:
        Stop: When the study ends or pauses the trial.
        RuntimeError: On the other processes, when the first could not report.

    Example:
        >>> class Pausing:
        ...     def report(self, **report):
        ...         raise Stop("trial 0 was told to pause at step 1")
        >>> told = []
        >>> for first in (True, False):
        ...     try:
        ...         report_on_all(Pausing(), first=first, step=1,
        ...                       broadcast=lambda value: told.append(value) or told[0])
        ...     except Stop as stop:
        ...         print(first, stop)
        True trial 0 was told to pause at step 1
        False trial 0 was told to pause at step 1
    """
    if getattr(ctx, "ranks", 1) > 1:
        ctx.report(**report)
        return
    raised: BaseException | None = None
    if first:
        try:
            ctx.report(**report)
        except (Exception, Stop) as error:
            raised = error
    told = broadcast(None if raised is None else (isinstance(raised, Stop), str(raised)))
    if raised is not None:
        raise raised
    if told is not None:
        ends, text = told
        raise Stop(text) if ends else RuntimeError(f"the first process could not report: {text}")


def broadcast(value: Any) -> Any:
    """Return what the first process gives, by `torch.distributed` where that is in use.

    Example:
        >>> broadcast({"alone": True})
        {'alone': True}
    """
    distributed = getattr(sys.modules.get("torch"), "distributed", None)
    if distributed is None or not (distributed.is_available() and distributed.is_initialized()):
        return value
    values = [value]
    distributed.broadcast_object_list(values, src=0)
    return values[0]


def meet(ctx: Context) -> None:
    """Wait for all ranks of a context that has several.

    Example:
        >>> from hpo import Trial
        >>> meet(Context(Trial(0, {}, 0, None), seed=0, channel=None))
    """
    if getattr(ctx, "ranks", 1) > 1:
        ctx.barrier()
