"""Ask and tell between a method and the program that runs it.

A `Job` is one piece of training: config `number` up to `level`. A method of full runs asks with
`level=None` only. A multi-fidelity method asks for the same `number` again at higher levels and
states with `resumes` that the trial's checkpoint is continued, so that only the increment is paid
(if the task's levels can be continued: `Levels.continues`).

Notation
--------
number   of a config within one run of one peer, from 0 in the order of asking
level    fidelity to train up to, from scratch or from the checkpoint; None is full fidelity

Several jobs may run at a time. The config told is the one that was run, which can differ from the
one asked for: a finite task runs the nearest member of its pool under the same number, and start
points have negative numbers, which no ask returns.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from benchmarks.task import Evaluation, Levels

__all__ = [
    "Checkpoints",
    "FullRuns",
    "Job",
    "Penalty",
    "Peer",
    "PoolRuns",
    "Unsupported",
    "rungs",
]


class Unsupported(ValueError):
    """The peer cannot search this task; the message gives the reason."""


@dataclass(frozen=True, slots=True)
class Job:
    """Train config `number` up to `level` (None: full fidelity).

    `resumes`: the trial ran before to a lower level; it pays only the increment if levels continue.
    """

    number: int
    config: dict[str, Any]
    level: int | None = None
    resumes: bool = False


class Peer(Protocol):
    """A method under comparison, with its own defaults."""

    def ask(self) -> Job | None:
        """Return the next job; None if none can start before another result is told."""
        ...

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        """Take the result of a job; its config is the one that was run (see the module)."""
        ...


class FullRuns(ABC):
    """A peer that trains every config to the end."""

    def __init__(self) -> None:
        self._asked = 0

    def ask(self) -> Job | None:
        """Return a job with a new config, unless the method needs more results first."""
        config = self.suggest(self._asked)
        if config is None:
            return None
        self._asked += 1
        return Job(self._asked - 1, config)

    @abstractmethod
    def suggest(self, number: int) -> dict[str, Any] | None:
        """Return a config for trial `number`; None to wait for another result."""

    @abstractmethod
    def tell(self, job: Job, evaluation: Evaluation) -> None:
        """Take the result of a job; see `Peer`."""


class PoolRuns(FullRuns):
    """A peer of full runs that can choose among given configs, where a task is a finite pool."""

    def ask_among(self, configs: Sequence[dict[str, Any]]) -> Job:
        """Return one of `configs`, those of the pool that were not run yet."""
        config = self.suggest_among(self._asked, configs)
        self._asked += 1
        return Job(self._asked - 1, config)

    @abstractmethod
    def suggest_among(self, number: int, configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return one of `configs` for trial `number`."""


class Checkpoints:
    """Numbers the jobs of a method that names configs and levels but no trials.

    A config requested again at a higher level resumes its last finished run; one requested at the
    same level or a lower one, or while it still runs, starts again under a new number.
    """

    def __init__(self) -> None:
        self._asked = 0
        self._resumable: dict[Hashable, tuple[int, int]] = {}

    def job(self, key: Hashable, config: dict[str, Any], level: int) -> Job:
        """Return the job for `config`, identified by `key`, up to `level`."""
        number, reached = self._resumable.get(key, (0, level))
        if reached < level:
            del self._resumable[key]
            return Job(number, config, level, resumes=True)
        self._asked += 1
        return Job(self._asked - 1, config, level)

    def finished(self, key: Hashable, job: Job, evaluation: Evaluation) -> None:
        """Keep the checkpoint of `job` unless it failed."""
        if evaluation.loss is not None and job.level is not None:
            self._resumable[key] = job.number, job.level


def rungs(levels: Levels, factor: int = 3) -> tuple[int, ...]:
    """Return low, low * factor, low * factor^2, ... below high, and high."""
    ladder = [levels.low]
    while ladder[-1] * factor < levels.high:
        ladder.append(ladder[-1] * factor)
    return (*ladder, levels.high) if ladder[-1] < levels.high else tuple(ladder)


class Penalty:
    """A loss for failed runs, for peers without failures: the worst loss seen so far.

    Before any run has succeeded it is 0, which is then the only value that the peer has.
    """

    def __init__(self) -> None:
        self._worst = 0.0
        self._succeeded = False

    def loss(self, evaluation: Evaluation) -> float:
        """Return the loss, or the substitute for a failed run."""
        if evaluation.loss is None:
            return self._worst
        self._worst = max(self._worst, evaluation.loss) if self._succeeded else evaluation.loss
        self._succeeded = True
        return evaluation.loss
