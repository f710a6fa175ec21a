"""The contract of a benchmark task: space, units, fidelity range, oracle, best and worst known.

Notation
--------
loss    minimized; 1 - accuracy if the metric is an accuracy
level   how far a run is trained, an integer: epochs, percent of the training set
cost    in `Task.unit`, cumulative: of training from scratch up to that level
best, worst    losses at full fidelity; regret = (loss - best) / (worst - best), clipped to [0, 1]

A task does not depend on the method that evaluates it. Its noise comes from the `rng` given to
`evaluate`, so that two methods with equal streams get equal noise.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from hpo import SearchSpace

__all__ = ["Bounds", "DataMissing", "Evaluation", "Levels", "Point", "Task"]

#: What `Evaluation.failed` may say, as in `Optimizer.tell(failed=...)`.
CAUSES = ("oom", "diverged", "timeout", "error")


class DataMissing(FileNotFoundError):
    """A task's recorded data is not on this machine; the message names the command to get it."""


@dataclass(frozen=True, slots=True)
class Point:
    """One report of a run: `level` reached, `loss` there, `cost` spent from scratch up to it."""

    level: int
    loss: float
    cost: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The outcome of one run.

    Attributes:
        loss: loss at the requested level; None exactly if the run failed.
        cost: cost from scratch up to that level, or up to the failure.
        curve: every recorded level up to the requested one, ascending; a single point if no curve
            is recorded; of a failed run, the points before the failure.
        failed: None, or one of "oom", "diverged", "timeout", "error".
        true_loss: loss without noise on tasks that add noise, for scoring only (never told to a
            method); None means `loss`.
    """

    loss: float | None
    cost: float
    curve: tuple[Point, ...]
    failed: str | None = None
    true_loss: float | None = None

    def __post_init__(self) -> None:
        if (self.loss is None) != (self.failed is not None):
            raise ValueError(
                "`loss` must be None exactly for failed runs, got "
                f"loss={self.loss!r}, failed={self.failed!r}; leave one of them out"
            )
        if self.failed is not None and self.failed not in CAUSES:
            raise ValueError(f"`failed` must be one of {CAUSES}, got {self.failed!r}; use one")
        if not (math.isfinite(self.cost) and self.cost >= 0):
            raise ValueError(f"`cost` must be finite and >= 0, got {self.cost!r}; clip it")
        if self.loss is not None and not math.isfinite(self.loss):
            raise ValueError(f"`loss` must be finite, got {self.loss!r}; report it as failed")


@dataclass(frozen=True, slots=True)
class Levels:
    """The fidelity range of a task: `name` of the resource, first and last integer level.

    `continues`: whether a run to a lower level is the beginning of a run to a higher one (epochs),
    so that a resumed run costs only the difference; False if each level starts from scratch
    (training sizes).
    """

    name: str
    low: int
    high: int
    continues: bool = True

    def check(self, level: int | None) -> int:
        """Return `level`, or the last one for None; raises `ValueError` outside the range."""
        if level is None:
            return self.high
        if not self.low <= level <= self.high:
            raise ValueError(
                f"`level` must lie in [{self.low}, {self.high}] ({self.name}), got {level!r};"
                " None asks for full fidelity"
            )
        return int(level)


@dataclass(frozen=True, slots=True)
class Bounds:
    """Best and worst known losses at full fidelity, `best <= worst`."""

    best: float
    worst: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.best) and math.isfinite(self.worst) and self.best <= self.worst):
            raise ValueError(
                f"`best <= worst` must hold and both be finite, got best={self.best!r},"
                f" worst={self.worst!r}; losses are minimized"
            )

    def regret(self, loss: float) -> float:
        """Return the normalized regret of `loss`, in [0, 1]; 0 if all losses are equal."""
        width = self.worst - self.best
        return min(max((loss - self.best) / width, 0.0), 1.0) if width > 0 else 0.0


class Task(Protocol):
    """One problem to tune; see the module docstring for units."""

    @property
    def name(self) -> str:
        """Family, slash, instance: "nasbench201/cifar10"; unique, and `tasks.load` takes it."""
        ...

    @property
    def space(self) -> SearchSpace:
        """Tuned parameters and scale axes, never the fidelity."""
        ...

    @property
    def unit(self) -> str:
        """Unit of cost: "seconds", "flops", "evaluations"."""
        ...

    @property
    def levels(self) -> Levels | None:
        """Fidelity range; None if only full runs are recorded."""
        ...

    @property
    def pool(self) -> tuple[dict[str, Any], ...] | None:
        """The only configs that can be evaluated; None if every config of the space can."""
        ...

    @property
    def bounds(self) -> Bounds:
        """Best and worst known losses at full fidelity."""
        ...

    @property
    def seen_in_design(self) -> bool:
        """Whether the engine's design or defaults were chosen with knowledge of this task."""
        ...

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        """Run `config` up to `level` (None: full fidelity).

        Raises:
            SpaceError: for a config that is not in the space (or pool).
            ValueError: for a level outside the range, or given to a task without levels.
        """
        ...
