"""What became of each run: completed, ended early, failed (and why), or not finished yet.

A run's state and its loss decide together::

    state        a loss           nan, inf, ">10"    no loss
    ------------------------------------------------------------------
    none         completed        diverged           failed
    completed    completed        diverged           left out
    ended        stopped early    diverged           left out
    failed       failed           its cause          failed
    running      left out         left out           left out

The loss of a run that failed or ended early is that of a shorter run. A failed run teaches which
settings fail.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

from hpo.space.scalars import real
from hpo.trials.records import Cause, Status

__all__ = ["Outcome", "RunState", "outcome", "state_of"]


class RunState(Enum):
    """State of a run, as another tool names it.

    Example:
        >>> RunState.RUNNING.value
        'running'
    """

    COMPLETED = "completed"
    ENDED = "ended"
    RUNNING = "running"
    ERROR = "error"
    DIVERGED = "diverged"
    OOM = "oom"
    TIMEOUT = "timeout"


_WORDS = {
    RunState.COMPLETED: "finished finish completed complete done success successful succeeded ok"
    " terminated published closed inactive trained true 1 ended_normally",
    RunState.ENDED: "killed stopped stop aborted cancelled canceled pruned early_stopped"
    " early_stopping stopped_early preempted interrupted lost deleted trashed",
    RunState.RUNNING: "running run pending queued waiting scheduled starting started in_progress"
    " created active requested paused preempting unfinished new draft initializing uploading",
    RunState.ERROR: "failed fail failure crashed crash error errored exception infeasible broken"
    " invalid unknown_error false 0",
    RunState.DIVERGED: "diverged diverge divergence diverging div exploded explode unstable"
    " overflow blew_up nan inf nan_loss loss_nan infinite",
    RunState.OOM: "oom out_of_memory outofmemory cuda_oom out_of_memory_error outofmemoryerror"
    " cuda_out_of_memory",
    RunState.TIMEOUT: "timeout timed_out time_out time_limit timelimit",
}
_STATES = {word: state for state, words in _WORDS.items() for word in words.split()}
_CAUSES = {
    RunState.ERROR: Cause.ERROR,
    RunState.DIVERGED: Cause.DIVERGED,
    RunState.OOM: Cause.OOM,
    RunState.TIMEOUT: Cause.TIMEOUT,
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one run.

    Attributes:
        status: Status of the run; None for one that is left out.
        cause: Cause of a failure.
        loss: Its loss, finite; None for a failure.
        why: Sentence fragment for the table of what was read; empty for a completed run.
    """

    status: Status | None
    cause: Cause | None = None
    loss: float | None = None
    why: str = ""


def state_of(cell: object) -> RunState | None:
    """Return the state that a cell names; None for an unknown word.

    Example:
        >>> [state_of(cell) for cell in ("Finished", "TrialState.PRUNED", "OOM", True, "?")]
        ... # doctest: +NORMALIZE_WHITESPACE
        [<RunState.COMPLETED: 'completed'>, <RunState.ENDED: 'ended'>, <RunState.OOM: 'oom'>,
         <RunState.COMPLETED: 'completed'>, None]
    """
    if isinstance(cell, bool):
        return RunState.COMPLETED if cell else RunState.ERROR
    if (number := real(cell)) is not None:
        cell = f"{number:g}"
    text = getattr(cell, "name", cell)  # a member of an enumeration
    word = re.sub(r"[^a-z0-9]+", "_", str(text).rpartition(".")[2].lower()).strip("_")
    return _STATES.get(word)


def states_of_flag(cells: Sequence[object], state: RunState) -> list[RunState | None]:
    """Return the states of the runs of a column of yes and no, such as `diverged`.

    Example:
        >>> states_of_flag(["True", "0", None], RunState.DIVERGED)
        [<RunState.DIVERGED: 'diverged'>, None, None]
    """
    return [state if state_of(cell) is RunState.COMPLETED else None for cell in cells]


def outcome(loss: float | None, state: RunState | None, has_states: bool) -> Outcome:
    """Return what became of a run.

    Args:
        loss: Its loss, NaN or infinite where that was said; None where none was written.
        state: Its state, if it is known.
        has_states: Whether the table has a column of states.

    Example:
        >>> outcome(2.5, RunState.COMPLETED, True).status
        <Status.COMPLETED: 'completed'>
        >>> outcome(None, RunState.ERROR, True).cause, outcome(float("nan"), None, False).cause
        (<Cause.ERROR: 'error'>, <Cause.DIVERGED: 'diverged'>)
        >>> outcome(2.5, RunState.RUNNING, True).why
        'still running'
    """
    if state is RunState.RUNNING:
        return Outcome(None, why="still running")
    if state in (RunState.OOM, RunState.TIMEOUT, RunState.DIVERGED):
        return Outcome(Status.FAILED, _CAUSES[state], why=_CAUSES[state].value)
    if loss is not None and not math.isfinite(loss):
        return Outcome(Status.FAILED, Cause.DIVERGED, why="diverged")
    if state is RunState.ERROR:
        return Outcome(Status.FAILED, Cause.ERROR, why="failed")
    if loss is not None:
        if state is RunState.ENDED:
            return Outcome(Status.STOPPED, loss=loss, why="stopped early")
        return Outcome(Status.COMPLETED, loss=loss)
    if state is RunState.ENDED:
        return Outcome(None, why="ended before it had a loss")
    if has_states:
        return Outcome(None, why="no loss, though it did not fail")
    return Outcome(Status.FAILED, Cause.ERROR, why="no loss, so it failed")
