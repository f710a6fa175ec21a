"""Runs of other tasks in the same space, from which a study of a new task learns.

Nothing here is fitted: :mod:`hpo.models.other_tasks` learns from these records.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from hpo.errors import SpaceError
from hpo.space import Direction, SearchSpace
from hpo.space.scalars import real, shown
from hpo.trials.read_runs import read_runs
from hpo.trials.records import Observation, Status

__all__ = ["GivenTasks", "OtherTask", "changes", "fingerprint", "read_other_tasks"]

#: What holds the runs of one task: an object with `observations`, such as what `read_runs` returns;
#: one with a `log`, such as a `Result` or an `Optimizer`; a list of observations or of (config,
#: loss); or what `read_runs` can read: a path, a DataFrame, an Optuna study.
TaskSource: TypeAlias = Any

_DIGITS = 16  # of a fingerprint
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class OtherTask:
    """Completed runs of another task.

    Attributes:
        name: Name of the task, shown in reasons.
        configs: Canonical configs of the runs that the space can hold, in the order they were told.
        losses: Their losses, in the direction of the study that learns from them.

    Example:
        >>> OtherTask("a", ({"x": 0.5},), (1.25,)).losses
        (1.25,)
    """

    name: str
    configs: tuple[dict[str, Any], ...]
    losses: tuple[float, ...]


#: What users write, or what was read from it.
GivenTasks: TypeAlias = Mapping[str, TaskSource] | tuple[OtherTask, ...] | None


def read_other_tasks(
    given: GivenTasks, space: SearchSpace, direction: Direction
) -> tuple[OtherTask, ...]:
    """Return the completed runs of each task; tasks without one are left out.

    Runs whose config the space cannot hold, such as one beyond a range, are left out with a
    warning.

    Args:
        given: Source of the runs by name of the task; None for no task. What this function returned
            is returned as it is.
        space: Space of the study.
        direction: Direction of the study.

    Raises:
        TypeError: If `given` or a source is of a wrong type.
        SpaceError: If no completed run of a task has a config that the space can hold.
        ValueError: If a loss is no number, a file cannot be read, or the losses of a task have
            another direction.

    Example:
        >>> from hpo.space import Float
        >>> space = SearchSpace({"x": Float(0.0, 1.0)})
        >>> given = {"a": [({"x": 0.5}, 1.25), ({"x": 0.75}, 2.5)]}
        >>> [task] = read_other_tasks(given, space, Direction.MINIMIZE)
        >>> task.configs, task.losses
        (({'x': 0.5}, {'x': 0.75}), (1.25, 2.5))
    """
    if given is None:
        return ()
    if isinstance(given, tuple) and all(isinstance(task, OtherTask) for task in given):
        return given
    if not isinstance(given, Mapping):
        raise TypeError(
            f"`other_tasks` must map names of tasks to their runs, got {shown(given)}; write"
            ' {"task a": runs}'
        )
    tasks = []
    for name, source in given.items():
        if not isinstance(name, str) or not name:
            raise TypeError(
                f"`other_tasks` must have names of tasks as keys, got {shown(name)}; write"
                ' {"task a": runs}'
            )
        done = [_completed(name, run) for run in _runs(name, source, space, direction)]
        if task := _held(name, [run for run in done if run is not None], space):
            tasks.append(task)
    return tuple(tasks)


def fingerprint(tasks: Sequence[OtherTask]) -> dict[str, str]:
    """Return a short digest of the runs of each task, by its name.

    Args:
        tasks: Tasks that a study learns from.

    Example:
        >>> a = OtherTask("a", ({"x": 0.5},), (1.25,))
        >>> fingerprint([a]) == fingerprint([OtherTask("a", ({"x": 0.5},), (1.25,))])
        True
        >>> fingerprint([a]) == fingerprint([OtherTask("a", ({"x": 0.5},), (1.5,))])
        False
    """
    return {
        task.name: hashlib.sha256(
            json.dumps([task.configs, task.losses], sort_keys=True, default=repr).encode()
        ).hexdigest()[:_DIGITS]
        for task in tasks
    }


def changes(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Return in words how the tasks of two fingerprints differ; empty if they do not.

    Args:
        before: Fingerprint of the tasks that a study learned from so far.
        now: Fingerprint of those that it learns from now.

    Example:
        >>> changes({"a": "1", "b": "2"}, {"b": "3", "c": "4"})
        "'a' is gone, 'b' has other runs, 'c' is new"
    """
    said = [f"{name!r} is gone" for name in before if name not in now]
    said += [f"{name!r} has other runs" for name in now if before.get(name, now[name]) != now[name]]
    said += [f"{name!r} is new" for name in now if name not in before]
    return ", ".join(said)


def _check_direction(name: str, source: TaskSource, direction: Direction) -> None:
    """Refuse runs that say that their losses go the other way."""
    theirs = getattr(source, "direction", None)
    if isinstance(theirs, str | Direction) and Direction(theirs) is not direction:
        raise ValueError(
            f"`other_tasks` must have losses to {direction.value} as the study has, got"
            f" {name!r} to {Direction(theirs).value}; negate its losses"
        )


def _runs(name: str, source: TaskSource, space: SearchSpace, direction: Direction) -> Iterable[Any]:
    """Return observations or pairs of config and loss.

    Raises:
        TypeError: If the source holds no runs.
        ValueError: If it cannot be read, or its losses have another direction.
    """
    log = getattr(source, "log", source)
    runs = getattr(log, "observations", None)
    if runs is None and isinstance(source, list | tuple) and not _is_table(source):
        runs = source
    if runs is not None:
        _check_direction(name, source, direction)
        return tuple(runs)
    try:
        read = read_runs(source, space=space)
    except TypeError:
        raise TypeError(
            f"`other_tasks` must hold runs for each task, got {shown(source)} for {name!r}; pass"
            " what `read_runs` can read, a Result, or a list of (config, loss)"
        ) from None
    except OSError as error:
        raise ValueError(
            f"`other_tasks` must hold runs for each task, but {shown(source)} for {name!r} cannot"
            f" be read: {error.strerror or error}; pass the path of a table of runs"
        ) from error
    _check_direction(name, read, direction)
    return read.observations


def _is_table(source: Sequence[Any]) -> bool:
    """Return whether it is a list of dicts, one a run."""
    return bool(source) and all(isinstance(row, Mapping) for row in source)


def _completed(name: str, run: Any) -> tuple[Mapping[str, Any], float] | None:
    """Return config and loss of a completed run; None for any other."""
    if isinstance(run, Observation):
        completed = run.status is Status.COMPLETED and run.loss is not None
        return (run.config, run.loss) if completed and run.loss is not None else None
    try:
        config, told = run
    except (TypeError, ValueError):
        raise TypeError(
            "a run of `other_tasks` must be an Observation or (config, loss), got"
            f" {shown(run)} in {name!r}; write ({{'lr': 1e-3}}, 2.5)"
        ) from None
    loss = real(told)
    if loss is None:
        raise ValueError(
            f"the loss of a run of `other_tasks` must be a number, got {shown(told)} in {name!r};"
            " leave out runs without a loss"
        )
    return (config, loss) if math.isfinite(loss) else None


def _held(
    name: str, runs: Sequence[tuple[Mapping[str, Any], float]], space: SearchSpace
) -> OtherTask | None:
    """Return the task with those runs whose config the space can hold; None without runs."""
    configs, losses, refused = [], [], []
    for config, loss in runs:
        try:
            configs.append(space.canonical(config, extrapolate=True))
        except SpaceError as error:
            refused.append(error)
        else:
            losses.append(loss)
    if refused and not configs:
        raise SpaceError(
            f"the runs of the other task {name!r} must have configs of the space, and none has:"
            f" {refused[0]}"
        )
    if refused:
        _log.warning(
            "other task %r: %d of %d runs are left out, which the space cannot hold: %s",
            name,
            len(refused),
            len(runs),
            refused[0],
        )
    return OtherTask(name, tuple(configs), tuple(losses)) if configs else None
