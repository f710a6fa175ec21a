"""Records: what was asked, what came back, and the append-only log: all of the engine's state.

Losses are in the user's direction and unit, costs in the study's declared unit. Nothing here is
fitted or transformed: everything else in the engine is a function of a `TrialLog`.

A run that pauses goes through several stages under one number, each up to a higher level of the
fidelity: asked, told PAUSED, resumed, told PAUSED, .., told COMPLETED.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

Interval = tuple[float, float]


class Status(Enum):
    """Where a trial stands."""

    PENDING = "pending"  # asked, not told
    PAUSED = "paused"  # halted at a checkpoint, may be continued
    COMPLETED = "completed"
    STOPPED = "stopped"  # ended early on purpose; its loss is that of a shorter run
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """Whether nothing more can come from the trial."""
        return self not in (Status.PENDING, Status.PAUSED)


class Cause(Enum):
    """Why a trial failed."""

    OOM = "oom"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    ERROR = "error"
    LOST = "lost"

    @property
    def teaches(self) -> bool:
        """Whether the config is to blame; a lost machine says nothing about it."""
        return self is not Cause.LOST


@dataclass(frozen=True, slots=True)
class Belief:
    """What the model believed of a trial when it was asked, in the user's units.

    `loss`, `cost`: predicted; None where there is no model of it yet, as before the first result.
    `loss_interval`, `cost_interval`: central 90 % intervals for one run.
    `success`: probability in [0, 1] that the run does not fail.
    `degraded`: whether a model fell back to an earlier fit; `fallbacks`: how often so far.
    `reason`: one line on why this config.

    Raises `ValueError` for numbers that are not finite or intervals out of order.
    """

    loss: float | None
    loss_interval: Interval | None
    cost: float | None
    cost_interval: Interval | None
    success: float
    degraded: bool
    fallbacks: int
    reason: str

    def __post_init__(self) -> None:
        for name in ("loss", "cost", "success"):
            _check_finite(f"`{name}` of a belief", getattr(self, name))
        for name in ("loss_interval", "cost_interval"):
            interval = getattr(self, name)
            if interval is None:
                continue
            low, high = interval
            _check_finite(f"`{name}` of a belief", low)
            _check_finite(f"`{name}` of a belief", high)
            if low > high:
                raise ValueError(f"`{name}` of a belief must be (low, high), got {interval!r}")
        if not 0 <= self.success <= 1:
            raise ValueError(f"`success` of a belief must lie in [0, 1], got {self.success!r}")

    def to_json(self) -> dict[str, Any]:
        """As JSON-able values; `from_json` gives back an equal belief."""
        return {
            "loss": self.loss,
            "loss_interval": _as_list(self.loss_interval),
            "cost": self.cost,
            "cost_interval": _as_list(self.cost_interval),
            "success": self.success,
            "degraded": self.degraded,
            "fallbacks": self.fallbacks,
            "reason": self.reason,
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The belief that `to_json` stored."""
        return cls(
            loss=stored["loss"],
            loss_interval=_as_interval(stored["loss_interval"]),
            cost=stored["cost"],
            cost_interval=_as_interval(stored["cost_interval"]),
            success=stored["success"],
            degraded=stored["degraded"],
            fallbacks=stored["fallbacks"],
            reason=stored["reason"],
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where a scheduler put a trial: stored with the trial, never derived again.

    `level`: of the fidelity, up to which it trains now. `bracket`: index of the rung at which its
    bracket starts. `cohort`: which repetition of that bracket, or which member of a population.
    """

    level: int
    bracket: int = 0
    cohort: int = 0

    def to_json(self) -> list[int]:
        """As JSON-able values; `from_json` gives back an equal place."""
        return [self.level, self.bracket, self.cohort]

    @classmethod
    def from_json(cls, stored: list[int]) -> Self:
        """The place that `to_json` stored."""
        return cls(*stored)


@dataclass(frozen=True, slots=True)
class Trial:
    """One config at one scale and fidelity, to be run.

    `number`: identity in the study. `config`: canonical, with scale and fidelity values.
    `ask_index`: which ask of its driver made it, the key of its random draws.
    `parent`: number of the trial whose checkpoint this one starts from: a lost attempt or a shorter
    run of the same config, whose ask index it keeps, or the run that it is a changed clone of.
    `place`: None without a scheduler. Its level may be lower than the config's fidelity, which is
    as far as the run may ever go.
    """

    number: int
    config: dict[str, Any]
    ask_index: int
    belief: Belief | None
    parent: int | None = None
    place: Place | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", dict(self.config))


@dataclass(frozen=True, slots=True)
class Report:
    """What a training function said on its way.

    `step`: its own count, >= 0. `loss`: may be NaN or infinite, as a diverging run is.
    `cost`: used by this trial so far, >= 0.
    """

    step: int
    loss: float | None = None
    cost: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "metrics", dict(self.metrics))
        if self.step < 0:
            raise ValueError(f"`step` of a report must be >= 0, got {self.step}; count up from 0")
        _check_amount("`cost` of a report", self.cost)

    def to_json(self) -> dict[str, Any]:
        """As strict JSON, NaN and infinities as strings; `from_json` gives back an equal report."""
        return {
            "step": self.step,
            "loss": _to_json_number(self.loss),
            "cost": self.cost,
            "metrics": {name: _to_json_number(value) for name, value in self.metrics.items()},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """The report that `to_json` stored."""
        metrics = {name: _from_json_number(value) for name, value in stored["metrics"].items()}
        return cls(
            step=stored["step"],
            loss=_from_json_number(stored["loss"]),
            cost=stored["cost"],
            metrics={name: value for name, value in metrics.items() if value is not None},
        )


@dataclass(frozen=True, slots=True)
class Observation:
    """The result of a trial.

    `loss`: in the user's direction, finite; required when completed, optional otherwise.
    `cost`: declared unit, >= 0, finite; a failed trial's cost counts too. Of the whole run, so what
    earlier stages and the parent's checkpoint have cost is in it.
    `cause`: given exactly when failed. `order`: position among all tells of the study.
    `ask_index`: None for a config that was never asked for. `seconds`: wall-clock, >= 0.

    Raises `ValueError` when these rules are broken. A loss that is NaN or infinite is a failure
    with cause `DIVERGED`, never a completed trial.
    """

    number: int
    config: dict[str, Any]
    loss: float | None
    cost: float | None
    status: Status
    cause: Cause | None
    order: int
    ask_index: int | None
    seconds: float | None = None
    reports: tuple[Report, ...] = ()
    metrics: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", dict(self.config))
        object.__setattr__(self, "metrics", dict(self.metrics))
        if self.status is Status.PENDING:
            raise ValueError(
                "`status` of an observation must not be PENDING; a trial is pending by not being"
                " told"
            )
        if (self.status is Status.FAILED) != (self.cause is not None):
            raise ValueError(
                "`cause` must be given exactly when `status` is FAILED, got "
                f"status={self.status.name}, cause={self.cause}; change one of the two"
            )
        if self.status is Status.COMPLETED and self.loss is None:
            raise ValueError(
                "`loss` must be given when `status` is COMPLETED, got None; tell a failure instead"
            )
        if self.loss is not None and not math.isfinite(self.loss):
            raise ValueError(
                f"`loss` of an observation must be finite, got {self.loss!r}; tell status FAILED"
                " with cause DIVERGED"
            )
        _check_amount("`cost` of an observation", self.cost)
        _check_amount("`seconds` of an observation", self.seconds)

    def same_result(self, other: Observation) -> bool:
        """Whether `other` says the same of the same trial, whenever and however long it took."""
        return (
            self.number == other.number
            and self.config == other.config
            and self.status is other.status
            and self.cause is other.cause
            and self.loss == other.loss
            and self.cost == other.cost
        )


def _check_finite(what: str, value: float | None) -> None:
    if value is not None and not math.isfinite(value):
        raise ValueError(f"{what} must be finite, got {value!r}; leave out what is not known")


def _check_amount(what: str, value: float | None) -> None:
    if value is not None and not (math.isfinite(value) and value >= 0):
        raise ValueError(
            f"{what} must be finite and >= 0, got {value!r}; leave it out if it is not known"
        )


def _as_list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _as_interval(stored: list[float] | None) -> Interval | None:
    return None if stored is None else (stored[0], stored[1])


def _to_json_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(float(value))


def _from_json_number(stored: float | str | None) -> float | None:
    return float(stored) if isinstance(stored, str) else stored
