"""Records of a study: what was asked, what was predicted of it, and what came back.

Losses are in the user's direction and unit, costs in the study's declared unit. Nothing here is
fitted or transformed: everything else in the engine is a function of a log of these records.

A run that pauses goes through several stages under one number, each up to a higher level of the
fidelity: asked, told PAUSED, resumed, told PAUSED, .., told COMPLETED.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from hpo.trials.reason import Reason, ReasonKind

Interval = tuple[float, float]

SECONDS = "seconds"  # the cost unit that is measured rather than reported


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
class Prediction:
    """What the models expect of one run before it is made, in the user's direction and units.

    Every interval is the central 90 % interval of a single run.

    Attributes:
        loss: Predicted loss; None where there is no model of it yet, as before the first result.
        loss_interval: Its interval.
        cost: Predicted cost in the study's unit; None where no cost was told.
        cost_interval: Its interval.
        success: Probability in [0, 1] that the run does not fail; None where none has failed yet
            and none is assumed.
        degraded: Whether a model could not be built and an earlier fit of it was used.
        fallbacks: How often that has happened so far.
        reason: Why the config was proposed; None for a run that nobody proposed.
        config: Every active parameter, scale values included; empty for a trial, which has it.
        cost_unit: Name of the unit of the cost.
        seconds: Predicted wall-clock time, on the machine that the runs were timed on.
        seconds_interval: Its interval.
        extrapolation: Compute over that of the largest run, taken as the product of the scale axes.
        warnings: Sentences on why to doubt the prediction.

    Raises:
        ValueError: If a number is not finite, or an interval is out of order.
    """

    loss: float | None
    loss_interval: Interval | None
    cost: float | None
    cost_interval: Interval | None
    success: float | None
    degraded: bool = False
    fallbacks: int = 0
    reason: Reason | None = None
    config: dict[str, Any] = field(default_factory=dict)
    cost_unit: str | None = None
    seconds: float | None = None
    seconds_interval: Interval | None = None
    extrapolation: float = 1.0
    warnings: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("loss", "cost", "success", "seconds"):
            _check_finite(f"`{name}` of a prediction", getattr(self, name))
        for name in ("loss_interval", "cost_interval", "seconds_interval"):
            interval = getattr(self, name)
            if interval is None:
                continue
            low, high = interval
            _check_finite(f"`{name}` of a prediction", low)
            _check_finite(f"`{name}` of a prediction", high)
            if low > high:
                raise ValueError(f"`{name}` of a prediction must be (low, high), got {interval!r}")
        if self.success is not None and not 0 <= self.success <= 1:
            raise ValueError(f"`success` of a prediction must lie in [0, 1], got {self.success!r}")

    def __str__(self) -> str:
        settings = ", ".join(f"{name} {_short(value)}" for name, value in self.config.items())
        lines = [f"One run{f' at {settings}' if settings else ''}, with 90 % intervals"]
        amounts = [("loss", self.loss, self.loss_interval)]
        if self.cost_unit != SECONDS:
            amounts.append((self.cost_unit or "cost", self.cost, self.cost_interval))
        amounts.append((SECONDS, self.seconds, self.seconds_interval))
        for name, value, interval in amounts:
            if value is not None and interval is not None:
                low, high = interval
                lines.append(f"  {name} {value:.5g} ({low:.5g} to {high:.5g})")
        if self.success is not None:
            lines.append(f"  success {self.success:.0%}")
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def to_json(self) -> dict[str, Any]:
        """Return what is stored with a trial, of which `from_json` makes an equal prediction.

        The config, which the trial has, and what only `Result.predict` fills in are left out.
        """
        return {
            "loss": self.loss,
            "loss_interval": _as_list(self.loss_interval),
            "cost": self.cost,
            "cost_interval": _as_list(self.cost_interval),
            "success": self.success,
            "degraded": self.degraded,
            "fallbacks": self.fallbacks,
            "reason": "" if self.reason is None else str(self.reason),
            "reason_fields": None if self.reason is None else self.reason.to_json(),
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the prediction that `to_json` stored, here or in a version without reasons."""
        reason = None
        if known := stored.get("reason_fields"):
            reason = Reason.from_json(known)
        elif stored["reason"]:
            reason = Reason(ReasonKind.OTHER, text=stored["reason"])
        return cls(
            loss=stored["loss"],
            loss_interval=_as_interval(stored["loss_interval"]),
            cost=stored["cost"],
            cost_interval=_as_interval(stored["cost_interval"]),
            success=stored["success"],
            degraded=stored["degraded"],
            fallbacks=stored["fallbacks"],
            reason=reason,
        )


@dataclass(frozen=True, slots=True)
class RungAssignment:
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
    prediction: Prediction | None
    parent: int | None = None
    assignment: RungAssignment | None = None

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

    @classmethod
    def lost(cls, trial: Trial, order: int) -> Self:
        """Return the observation of an attempt that its machine or driver has lost."""
        return cls(
            number=trial.number,
            config=trial.config,
            loss=None,
            cost=None,
            status=Status.FAILED,
            cause=Cause.LOST,
            order=order,
            ask_index=trial.ask_index,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the result as JSON-able values, without its trial and the reports."""
        return {
            "status": self.status.value,
            "cause": None if self.cause is None else self.cause.value,
            "loss": self.loss,
            "cost": self.cost,
            "seconds": self.seconds,
            "order": self.order,
            "metrics": self.metrics,
        }

    @classmethod
    def from_json(
        cls,
        stored: Mapping[str, Any],
        *,
        number: int,
        config: Mapping[str, Any],
        ask_index: int | None,
        reports: tuple[Report, ...],
    ) -> Self:
        """Return the result that `to_json` stored, of the trial with these values."""
        return cls(
            number=number,
            config=dict(config),
            loss=stored["loss"],
            cost=stored["cost"],
            status=Status(stored["status"]),
            cause=None if stored["cause"] is None else Cause(stored["cause"]),
            order=stored["order"],
            ask_index=ask_index,
            seconds=stored["seconds"],
            reports=reports,
            metrics=stored["metrics"],
        )

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


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
