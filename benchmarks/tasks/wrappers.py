"""Tasks made harder: noise and random failures around any task.

Both draw from the `rng` of `evaluate` in an order that does not depend on the level, so that a run
continued to a higher level under an equal stream repeats its earlier part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from benchmarks.task import Bounds, Evaluation, Levels, Point, Task
from hpo import SearchSpace
from hpo.space.encoding import Encoder

__all__ = ["Failing", "Heteroscedastic", "Noisy", "Outliers", "wrap"]


@dataclass(frozen=True)
class _Wrapper:
    task: Task

    @property
    def space(self) -> SearchSpace:
        return self.task.space

    @property
    def unit(self) -> str:
        return self.task.unit

    @property
    def levels(self) -> Levels | None:
        return self.task.levels

    @property
    def pool(self) -> tuple[dict[str, Any], ...] | None:
        return self.task.pool

    @property
    def bounds(self) -> Bounds:
        return self.task.bounds

    @property
    def seen_in_design(self) -> bool:
        return self.task.seen_in_design


@dataclass(frozen=True)
class Noisy(_Wrapper):
    """Independent normal noise on every reported loss.

    `share`: its standard deviation as a share of `worst - best`. `Evaluation.true_loss` keeps the
    loss before noise; bounds are those of the noiseless task.
    """

    share: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and self.share >= 0):
            raise ValueError(f"`share` of Noisy must be >= 0, got {self.share!r}; try 0.05")

    @property
    def name(self) -> str:
        return f"{self.task.name}+noise={self.share:g}"

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        clean = self.task.evaluate(config, level, rng)
        sd = self.share * (self.bounds.worst - self.bounds.best)
        curve = tuple(replace(point, loss=point.loss + sd * rng.normal()) for point in clean.curve)
        if clean.loss is None:
            return replace(clean, curve=curve)
        true_loss = clean.loss if clean.true_loss is None else clean.true_loss
        return replace(clean, loss=curve[-1].loss, curve=curve, true_loss=true_loss)


@dataclass(frozen=True)
class Failing(_Wrapper):
    """Runs that break at random, whatever their config.

    `rate`: share of full runs that fail. The place where a run breaks is uniform over its levels,
    so a run to half of them fails half as often; it has paid in proportion and keeps its curve up
    to there. Tasks without levels break after a uniform share of their cost.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"`rate` of Failing must lie in [0, 1), got {self.rate!r}; try 0.1")

    @property
    def name(self) -> str:
        return f"{self.task.name}+failures={self.rate:g}"

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        fails, place = rng.random() < self.rate, rng.random()
        run = self.task.evaluate(config, level, rng)
        if not fails or run.failed is not None:
            return run
        if self.levels is None:
            return Evaluation(None, place * run.cost, (), "error")
        asked = self.levels.check(level)
        breaks_at = place * self.levels.high
        if breaks_at >= asked:
            return run
        curve = tuple(point for point in run.curve if point.level <= breaks_at)
        return Evaluation(None, _cost_at(breaks_at, run.curve), curve, "error")


@dataclass(frozen=True)
class Heteroscedastic(_Wrapper):
    """Normal noise on the loss that grows with the square of the first numeric parameter.

    `share`: its standard deviation where that parameter is largest, as a share of `worst - best`;
    a twentieth of it remains where it is smallest. Curves are replaced by their last point.
    """

    share: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and self.share >= 0):
            raise ValueError(f"`share` must be >= 0, got {self.share!r}; try 0.1")

    @property
    def name(self) -> str:
        return f"{self.task.name}+hetero={self.share:g}"

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        clean, draw = self.task.evaluate(config, level, rng), rng.normal()
        encoder = Encoder(self.space)
        place = float(encoder.encode([config])[0, encoder.columns.numeric[0]])
        sd = self.share * (self.bounds.worst - self.bounds.best) * (0.05 + 0.95 * place**2)
        return _shifted(clean, sd * draw)


@dataclass(frozen=True)
class Outliers(_Wrapper):
    """Runs that end far too high for no reason of their config.

    `rate`: share of them. What is added is `worst - best` times one plus a half-Cauchy draw, so it
    has no mean. Curves are replaced by their last point.
    """

    rate: float

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1:
            raise ValueError(f"`rate` of Outliers must lie in [0, 1), got {self.rate!r}; try 0.1")

    @property
    def name(self) -> str:
        return f"{self.task.name}+outliers={self.rate:g}"

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        clean = self.task.evaluate(config, level, rng)
        strays, far = rng.random() < self.rate, 1.0 + abs(float(rng.standard_cauchy()))
        spread = self.bounds.worst - self.bounds.best
        return _shifted(clean, spread * min(far, 1e6) if strays else 0.0)


def _shifted(clean: Evaluation, by: float) -> Evaluation:
    """The run with its last loss moved, scored by the loss it had."""
    if clean.loss is None:
        return clean
    last = replace(clean.curve[-1], loss=clean.loss + by)
    true_loss = clean.loss if clean.true_loss is None else clean.true_loss
    return replace(clean, loss=last.loss, curve=(last,), true_loss=true_loss)


def _cost_at(level: float, curve: Sequence[Point]) -> float:
    """Cumulative cost, linear between the recorded levels and from 0 at level 0."""
    levels = [0.0, *(float(point.level) for point in curve)]
    return float(np.interp(level, levels, [0.0, *(point.cost for point in curve)]))


_WRAPPERS: Mapping[str, Callable[[Task, float], Task]] = {
    "noise": Noisy,
    "failures": Failing,
    "hetero": Heteroscedastic,
    "outliers": Outliers,
}


def wrap(task: Task, wrappers: Sequence[str]) -> Task:
    """`task` inside wrappers, the first innermost: `noise=0.05`, `failures=0.1`, `repeats`.

    `repeats` (tables only) draws one recorded training per evaluation.

    Raises `ValueError` for anything else.
    """
    for text in wrappers:
        kind, _, number = text.partition("=")
        if text == "repeats" and hasattr(task, "repeated"):
            task = task.repeated()
        elif kind in _WRAPPERS:
            task = _WRAPPERS[kind](task, _number(text, number))
        else:
            raise ValueError(
                f"a wrapper of {task.name} is one of +noise=SHARE, +hetero=SHARE, +failures=RATE,"
                f" +outliers=RATE and, on tables only, +repeats; got {text!r}; write +noise=0.05"
            )
    return task


def _number(text: str, number: str) -> float:
    try:
        return float(number)
    except ValueError:
        raise ValueError(f"a wrapper ends in a number, got {text!r}; write +noise=0.05") from None
