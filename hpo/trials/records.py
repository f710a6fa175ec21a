"""Records of a study: trials, predictions, reports and observations.

Losses are in the user's direction and unit, costs in the study's declared unit. Nothing here is
fitted or transformed: everything else in the engine is a function of a log of these records.

A run that pauses goes through several stages under one number, each up to a higher level of the
fidelity: asked, told PAUSED, resumed, told PAUSED, .., told COMPLETED.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Self

from hpo.space import Direction
from hpo.space.arguments import Count, Flag, Kind, Member, Number, Row, Table, Text, store
from hpo.space.scalars import metric_values, to_float
from hpo.trials.printing import Part, Printed, settings, short, span
from hpo.trials.reason import READ_BACK, Reason, ReasonKind

Interval = tuple[float, float]

#: Rule of the name of a cost's unit.
UNIT = Text(optional=True, way_out='name the unit, such as "seconds" or "flops"')

SECONDS = "seconds"  # the cost unit that is measured rather than reported


class Status(Enum):
    """State of a trial.

    Example:
        >>> Status.STOPPED.finished, Status.PAUSED.finished
        (True, False)
    """

    PENDING = "pending"  # asked, not told
    PAUSED = "paused"  # halted at a checkpoint, may be resumed
    COMPLETED = "completed"
    STOPPED = "stopped"  # ended early on purpose; its loss is that of a shorter run
    FAILED = "failed"

    @property
    def finished(self) -> bool:
        """Whether the trial can have no further result.

        Example:
            >>> [status.name for status in Status if status.finished]
            ['COMPLETED', 'STOPPED', 'FAILED']
        """
        return self not in (Status.PENDING, Status.PAUSED)


class Cause(Enum):
    """Cause of a failure.

    Example:
        >>> Cause("oom").teaches, Cause.LOST.teaches
        (True, False)
    """

    OOM = "oom"
    DIVERGED = "diverged"
    TIMEOUT = "timeout"
    ERROR = "error"
    LOST = "lost"

    @property
    def teaches(self) -> bool:
        """Whether the failure is due to the config; a lost machine says nothing about it.

        Example:
            >>> [cause.name for cause in Cause if not cause.teaches]
            ['LOST']
        """
        return self is not Cause.LOST


@dataclass(frozen=True, slots=True)
class Prediction(Printed):
    """Predicted outcome of one run before it is made, in the user's direction and units.

    Every interval is the central 90 % interval of a single run.

    Attributes:
        loss: Predicted loss; None where there is no model of it yet, as before the first result.
        loss_interval: Interval of the loss.
        cost: Predicted cost in the study's unit; None where no cost was told.
        cost_interval: Interval of the cost.
        success: Probability in [0, 1] that the run does not fail; None where none has failed yet
            and none is assumed.
        degraded: Whether a model could not be built and an earlier fit of it was used.
        fallbacks: Number of times that this has happened so far.
        reason: Why the config was proposed; None for a run that the engine did not propose.
        config: Every active parameter, scale values included; empty in a trial, which has its own.
        cost_unit: Name of the unit of the cost.
        seconds: Predicted wall-clock time, on the machine that the runs were timed on.
        seconds_interval: Interval of the seconds.
        extrapolation: Compute as a multiple of that of the largest run, where compute is the
            product of the scale axes.
        warnings: Sentences on why to doubt the prediction.
        direction: Whether the objective is minimized, a loss, or maximized, a value.

    Raises:
        ValueError: If a number is not finite, or an interval is out of order.

    Example:
        >>> prediction = Prediction(0.25, (0.2, 0.3), 40.0, (30.0, 55.0), success=0.97)
        >>> print(prediction)
        One run, with 90 % intervals
          loss 0.25 (0.2 to 0.3)
          cost 40 (30 to 55)
          success 97%
        >>> Prediction.from_json(prediction.to_json()) == prediction
        True
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
    direction: Direction = field(default=Direction.MINIMIZE, repr=False)

    def __post_init__(self) -> None:
        store(
            self,
            loss=_KNOWN,
            loss_interval=_INTERVAL,
            cost=_KNOWN,
            cost_interval=_INTERVAL,
            success=_PROBABILITY,
            degraded=_FLAG,
            fallbacks=_INDEX,
            reason=_REASON,
            config=_CONFIG,
            cost_unit=UNIT,
            seconds=_KNOWN,
            seconds_interval=_INTERVAL,
            extrapolation=_AT_LEAST_ZERO,
            warnings=_TEXTS,
            direction=_DIRECTION,
        )
        for name in ("loss_interval", "cost_interval", "seconds_interval"):
            interval = getattr(self, name)
            if interval is not None and interval[0] > interval[1]:
                raise ValueError(
                    f"`{name}` of Prediction must be (low, high), got {interval!r}; swap them?"
                )

    def parts(self) -> list[Part]:
        """Return what is printed."""
        at = ", ".join(f"{name} {short(value)}" for name, value in self.config.items())
        lines: list[Part] = [f"One run{f' at {at}' if at else ''}, with 90 % intervals"]
        amounts = [(self.direction.noun, self.loss, self.loss_interval)]
        if self.cost_unit != SECONDS:
            amounts.append((self.cost_unit or "cost", self.cost, self.cost_interval))
        amounts.append((SECONDS, self.seconds, self.seconds_interval))
        for name, value, interval in amounts:
            if value is not None and interval is not None:
                lines.append(f"  {name} {value:.5g} ({span(interval, 5)})")
        if self.success is not None:
            lines.append(f"  success {self.success:.0%}")
        return [*lines, *(f"  warning: {text}" for text in self.warnings)]

    def to_json(self) -> dict[str, Any]:
        """Return JSON-compatible values, from which `from_json` restores an equal prediction.

        The config, which the trial stores, and the fields that only `Result.predict` fills in are
        left out.

        Example:
            >>> stored = Prediction(0.25, (0.2, 0.3), None, None, success=0.9).to_json()
            >>> stored["loss"], stored["loss_interval"], stored["cost"]
            (0.25, [0.2, 0.3], None)
        """
        stored = {
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
        minimized = self.direction is Direction.MINIMIZE
        return stored if minimized else {**stored, "direction": self.direction.value}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the prediction that `to_json` stored, here or in a version without reasons.

        Args:
            stored: Values of `to_json`.

        Example:
            >>> reason = Reason(ReasonKind.EXPLORE)
            >>> prediction = Prediction(0.25, (0.2, 0.3), None, None, None, reason=reason)
            >>> Prediction.from_json(prediction.to_json()).reason.kind
            <ReasonKind.EXPLORE: 'explore'>
        """
        names = ("loss", "loss_interval", "cost", "cost_interval", "success", "degraded")
        stored = Table(keys=(*names, "fallbacks", "reason"), way_out=READ_BACK)(stored, "`stored`")
        reason = None
        if known := stored.get("reason_fields"):
            reason = Reason.from_json(known)
        elif stored["reason"]:
            reason = Reason(ReasonKind.OTHER, text=stored["reason"])
        return cls(
            loss=stored["loss"],
            loss_interval=stored["loss_interval"],
            cost=stored["cost"],
            cost_interval=stored["cost_interval"],
            success=stored["success"],
            degraded=stored["degraded"],
            fallbacks=stored["fallbacks"],
            reason=reason,
            direction=stored.get("direction", Direction.MINIMIZE),
        )


@dataclass(frozen=True, slots=True)
class RungAssignment:
    """Rung to which a scheduler assigned a trial; stored with the trial, never derived again.

    Attributes:
        level: Level of the fidelity up to which the trial trains now.
        bracket: Index of the rung at which its bracket starts.
        cohort: Number of the repetition of that bracket, or of the member of a population.

    Example:
        >>> RungAssignment(level=9).to_json()
        [9, 0, 0]
        >>> RungAssignment.from_json([9, 0, 0])
        RungAssignment(level=9, bracket=0, cohort=0)
    """

    level: int
    bracket: int = 0
    cohort: int = 0

    def __post_init__(self) -> None:
        store(self, level=_INDEX, bracket=_INDEX, cohort=_INDEX)

    def to_json(self) -> list[int]:
        """Return JSON-compatible values, from which `from_json` restores an equal assignment."""
        return [self.level, self.bracket, self.cohort]

    @classmethod
    def from_json(cls, stored: list[int]) -> Self:
        """Return the assignment that `to_json` stored."""
        return cls(*stored)


@dataclass(frozen=True, slots=True)
class Trial(Printed):
    """One config at one scale and fidelity, to be run.

    Attributes:
        number: Identity in the study.
        config: Canonical config, with scale and fidelity values.
        ask_index: Index of the ask that made the trial, the key of its random draws.
        prediction: Outcome predicted when it was asked; None for a config that was not proposed.
        parent: Number of the trial whose checkpoint this one starts from: a lost attempt or a
            shorter run of the same config, whose ask index it keeps, or the run of which it is a
            changed clone.
        assignment: Rung of the trial; None without a scheduler. Its level may be lower than the
            config's fidelity, which is as far as the run may ever train.

    Example:
        >>> trial = Trial(0, {"lr": 0.01, "epochs": 27}, ask_index=0, prediction=None)
        >>> trial.config["lr"]
        0.01
    """

    number: int
    config: dict[str, Any]
    ask_index: int
    prediction: Prediction | None
    parent: int | None = None
    assignment: RungAssignment | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", _CONFIG(self.config, "`config` of Trial"))
        store(
            self,
            number=_INDEX,
            ask_index=_INDEX,
            prediction=_PREDICTION,
            parent=_OPTIONAL_INDEX,
            assignment=_ASSIGNMENT,
        )

    def parts(self) -> list[Part]:
        """Return what is printed."""
        level = "" if self.assignment is None else f", up to level {self.assignment.level}"
        parent = "" if self.parent is None else f", continues trial {self.parent}"
        lines: list[Part] = [f"Trial {self.number}{level}{parent}"]
        if self.config:
            lines.append(settings(self.config))
        prediction = self.prediction
        if prediction is not None and prediction.loss is not None:
            interval = prediction.loss_interval
            within = "" if interval is None else f" ({span(interval, 5)} with 90 %)"
            lines.append(f"predicted {prediction.direction.noun} {prediction.loss:.5g}{within}")
        if prediction is not None and prediction.reason is not None:
            lines.append(f"chosen as: {prediction.reason}")
        return lines


@dataclass(frozen=True, slots=True)
class Report:
    """Intermediate result that a training function reports.

    Attributes:
        step: Step of training that was reached, >= 0.
        loss: Loss at that step; may be NaN or infinite, as that of a diverging run is.
        cost: Cost of this trial so far, >= 0.
        metrics: Further numbers by name.

    Raises:
        ValueError: If `step` or `cost` breaks its rule.

    Example:
        >>> report = Report(step=1000, loss=float("nan"), cost=3.5)
        >>> report.to_json()
        {'step': 1000, 'loss': 'nan', 'cost': 3.5, 'metrics': {}}
    """

    step: int
    loss: float | None = None
    cost: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        metrics = metric_values(self.metrics, texts=False)
        object.__setattr__(self, "metrics", metrics)
        store(self, step=_STEP, cost=_AMOUNT)
        if self.loss is not None:
            object.__setattr__(self, "loss", to_float(self.loss, "`loss` of Report"))

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values, NaN and infinities as strings, for `from_json`.

        Example:
            >>> Report(step=3, loss=float("inf"), metrics={"lr": 0.1}).to_json()
            {'step': 3, 'loss': 'inf', 'cost': None, 'metrics': {'lr': 0.1}}
        """
        return {
            "step": self.step,
            "loss": _to_json_number(self.loss),
            "cost": self.cost,
            "metrics": {name: _to_json_number(value) for name, value in self.metrics.items()},
        }

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> Self:
        """Return the report that `to_json` stored.

        Args:
            stored: Values of `to_json`.

        Example:
            >>> Report.from_json({"step": 3, "loss": "inf", "cost": None, "metrics": {}})
            Report(step=3, loss=inf, cost=None, metrics={})
        """
        stored = _STORED_REPORT(stored, "`stored`")
        given = _CONFIG(stored["metrics"], "`metrics` in `stored`")
        metrics = {name: _from_json_number(value) for name, value in given.items()}
        return cls(
            step=stored["step"],
            loss=_from_json_number(stored["loss"]),
            cost=stored["cost"],
            metrics={name: value for name, value in metrics.items() if value is not None},
        )


@dataclass(frozen=True, slots=True)
class FurthestStep:
    """Largest step that a trial may report: steps are counted in the unit of the fidelity.

    A run that reports batches where the space declares epochs would pass for one trained to the
    end after its first report.

    Attributes:
        fidelity: Name of the fidelity.
        level: Level up to which the trial's config allows training.

    Example:
        >>> FurthestStep("epochs", 9).check(9)
        >>> FurthestStep("epochs", 9).check(100)
        Traceback (most recent call last):
        ValueError: `step` must lie within the fidelity, `epochs` up to 9, got step=100; ...
    """

    fidelity: str
    level: int

    @classmethod
    def of(cls, trial: Trial, fidelity: str | None) -> Self | None:
        """Return that of a trial; None for a space without a fidelity."""
        return None if fidelity is None else cls(fidelity, trial.config[fidelity])

    def check(self, step: int) -> None:
        """Raise ValueError for a step beyond the level."""
        if step > self.level:
            raise ValueError(
                f"`step` must lie within the fidelity, `{self.fidelity}` up to {self.level}, got "
                f"step={step}; report it in the unit of `{self.fidelity}`, or declare the fidelity "
                "in the unit of the steps"
            )


@dataclass(frozen=True, slots=True)
class BranchLoss:
    """Loss that a trial found on its way, as that of a run of other sizes.

    A stable run that cools down at several horizons tells the loss at each of them. The surrogates
    learn it as a run of the trial's settings at these sizes; what it took is part of the trial's
    cost.

    Args:
        sizes: Values of scale axes in which the run differs from the trial's config, > 0.
        loss: Loss in the user's direction, finite.

    Raises:
        ValueError: If a value breaks its rule.

    Example:
        >>> BranchLoss({"tokens": 1e6}, 2.5).config({"lr": 0.01, "tokens": 4e6})
        {'lr': 0.01, 'tokens': 1000000.0}
    """

    sizes: dict[str, float]
    loss: float

    def __post_init__(self) -> None:
        store(
            self,
            sizes=Table(Number(above=0), way_out='write {"tokens": 1e6}'),
            loss=Number(way_out="leave a branch that diverged out"),
        )

    def config(self, of_trial: Mapping[str, Any]) -> dict[str, Any]:
        """Return the config of the run, from that of its trial."""
        return {**of_trial, **self.sizes}

    @classmethod
    def read(cls, rows: object, axes: Collection[str]) -> tuple[Self, ...]:
        """Return the branches that a user gives, each as a dict of sizes and a loss.

        Args:
            rows: Dicts such as `{"tokens": 1e6, "loss": 2.5}`; None for none.
            axes: Names of the scale axes of the space.

        Raises:
            ValueError: If a row has no loss, no size, or another name.

        Example:
            >>> BranchLoss.read([{"tokens": 1e6, "loss": 2.5}], ["params", "tokens"])
            (BranchLoss(sizes={'tokens': 1000000.0}, loss=2.5),)
        """
        found = []
        for row in _ROWS(rows, "`branches`") or ():
            sizes = {name: value for name, value in row.items() if name != "loss"}
            if "loss" not in row or not sizes or not sizes.keys() <= set(axes):
                raise ValueError(
                    f"each of `branches` must hold a loss and values of scale axes {list(axes)}, "
                    f'got {dict(row)}; write {{"tokens": 1e6, "loss": 2.5}}'
                )
            found.append(cls(sizes, row["loss"]))
        return tuple(found)


@dataclass(frozen=True, slots=True)
class Observation(Printed):
    """Result of a trial.

    A loss that is NaN or infinite is a failure with cause `DIVERGED`, never a completed trial.

    Attributes:
        number: Number of the trial.
        config: Config of the trial.
        loss: Loss in the user's direction, finite; required when completed, else optional.
        cost: Cost of the whole run in the declared unit, finite, >= 0. It includes earlier stages
            and the parent's checkpoint, and is given for failed trials too.
        status: State of the trial, not `PENDING`.
        cause: Cause of the failure, given exactly when the status is `FAILED`.
        order: Position among all tells of the study.
        ask_index: Ask index of the trial; None for a config that was never asked.
        seconds: Wall-clock seconds, >= 0.
        reports: Reports of the trial, in order.
        metrics: Further values by name.
        error: Traceback or reason of a failure; empty where there is none. It is not compared.
        branches: Losses that the run found on its way, as those of runs of other sizes.

    Raises:
        ValueError: If one of these rules is broken.

    Example:
        >>> done = Observation(0, {"lr": 0.1}, 0.4, 2.0, Status.COMPLETED, None, 0, ask_index=0)
        >>> done.same_result(done)
        True
        >>> Observation(1, {"lr": 9.0}, None, 0.5, Status.FAILED, Cause.OOM, 1, ask_index=1).cause
        <Cause.OOM: 'oom'>
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
    error: str = field(default="", repr=False, compare=False)
    branches: tuple[BranchLoss, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "config", _CONFIG(self.config, "`config` of Observation"))
        object.__setattr__(self, "metrics", _CONFIG(self.metrics, "`metrics` of Observation"))
        store(
            self,
            number=_INDEX,
            loss=_LOSS,
            cost=_AMOUNT,
            status=_STATUS,
            cause=_CAUSE,
            order=_INDEX,
            ask_index=_OPTIONAL_INDEX,
            seconds=_AMOUNT,
            reports=_REPORTS,
            error=_ERROR,
            branches=_BRANCHES,
        )
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

    def parts(self) -> list[Part]:
        """Return what is printed."""
        how = self.status.value if self.cause is None else f"failed ({self.cause.value})"
        loss = "" if self.loss is None else f" with {self.loss:.5g}"
        amounts = [
            f"{name} {value:.5g}"
            for name, value in (("cost", self.cost), (SECONDS, self.seconds))
            if value is not None
        ]
        amounts += [f"{name} {short(value, 5)}" for name, value in self.metrics.items()]
        first = ", ".join([f"Trial {self.number} {how}{loss}", *amounts])
        lines: list[Part] = [first, *([settings(self.config)] if self.config else [])]
        for branch in self.branches:
            at = ", ".join(f"{name} {short(value)}" for name, value in branch.sizes.items())
            lines.append(f"branch at {at} with {branch.loss:.5g}")
        return [*lines, *([self.error.rstrip()] if self.error else [])]

    @classmethod
    def lost(cls, trial: Trial, order: int) -> Self:
        """Return the observation of an attempt whose machine or driver was lost.

        Args:
            trial: Trial of the attempt.
            order: Position among all tells of the study.

        Example:
            >>> trial = Trial(3, {"lr": 0.1}, ask_index=2, prediction=None)
            >>> lost = Observation.lost(trial, order=5)
            >>> lost.number, lost.status.value, lost.cause.value
            (3, 'failed', 'lost')
        """
        trial = Kind(Trial)(trial, "`trial`")
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
        """Return the result as JSON-compatible values, without its trial and the reports.

        Example:
            >>> done = Observation(0, {"lr": 0.1}, 0.4, 2.0, Status.COMPLETED, None, 0, ask_index=0)
            >>> stored = done.to_json()
            >>> stored["status"], stored["loss"], stored["cost"], stored["order"]
            ('completed', 0.4, 2.0, 0)
        """
        stored: dict[str, Any] = {
            "status": self.status.value,
            "cause": None if self.cause is None else self.cause.value,
            "loss": self.loss,
            "cost": self.cost,
            "seconds": self.seconds,
            "order": self.order,
            "metrics": self.metrics,
        }
        if self.branches:
            stored["branches"] = [{"sizes": one.sizes, "loss": one.loss} for one in self.branches]
        return {**stored, "text": self.error} if self.error else stored

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
        """Return the result that `to_json` stored.

        Args:
            stored: Values of `to_json`.
            number: Number of the trial.
            config: Config of the trial.
            ask_index: Ask index of the trial, or None.
            reports: Reports of the trial, which are stored separately.

        Example:
            >>> done = Observation(0, {"lr": 0.1}, 0.4, 2.0, Status.COMPLETED, None, 0, ask_index=0)
            >>> done == Observation.from_json(
            ...     done.to_json(), number=0, config={"lr": 0.1}, ask_index=0, reports=()
            ... )
            True
        """
        names = ("status", "cause", "loss", "cost", "seconds", "order", "metrics")
        stored = Table(keys=names, way_out=READ_BACK)(stored, "`stored`")
        failed = stored["cause"] is not None  # the text of another one is a note of the storage
        return cls(
            number=number,
            config=config,  # type: ignore[arg-type]  # copied there
            loss=stored["loss"],
            cost=stored["cost"],
            status=Member(Status)(stored["status"], "`status` in `stored`"),
            cause=Member(Cause, optional=True)(stored["cause"], "`cause` in `stored`"),
            order=stored["order"],
            ask_index=ask_index,
            seconds=stored["seconds"],
            reports=reports,
            metrics=stored["metrics"],
            error=stored.get("text", "") if failed else "",
            branches=tuple(BranchLoss(**one) for one in stored.get("branches", ())),
        )

    def same_result(self, other: Observation) -> bool:
        """Return whether `other` is the same result of the same trial.

        When it was told, how long it took, its reports, metrics and error are not compared.

        Args:
            other: Result to compare with.

        Example:
            >>> done = Observation(0, {"lr": 0.1}, 0.4, 2.0, Status.COMPLETED, None, 0, ask_index=0)
            >>> again = Observation(0, {"lr": 0.1}, 0.4, 2.0, Status.COMPLETED, None, 7, 0)
            >>> done == again, done.same_result(again)
            (False, True)
        """
        other = Kind(Observation)(other, "`other`")
        return (
            self.number == other.number
            and self.config == other.config
            and self.status is other.status
            and self.cause is other.cause
            and self.loss == other.loss
            and self.cost == other.cost
        )


# Rules of the fields.
_UNKNOWN = "leave out what is not known"
_KNOWN = Number(optional=True, way_out=_UNKNOWN)
_LOSS = Number(optional=True, way_out="tell status FAILED with cause DIVERGED")
_AMOUNT = Number(least=0, optional=True, way_out=_UNKNOWN)
_AT_LEAST_ZERO = Number(least=0, infinite=True)
_PROBABILITY = Number(least=0, most=1, optional=True, way_out=_UNKNOWN)
_INTERVAL = Row(Number(), length=2, optional=True, way_out="write (low, high)")
_INDEX = Count(0, way_out="count up from 0")
_OPTIONAL_INDEX = Count(0, optional=True, way_out="count up from 0")
_STEP = Count(0, way_out="count up from 0")
_FLAG = Flag()
_TEXTS = Row(Text(empty=True))
_ERROR = Text(empty=True)
_DIRECTION = Member(Direction)
_CONFIG = Table(way_out="pass a dict")
_STATUS = Kind(Status, way_out="write Status.COMPLETED or another member")
_CAUSE = Kind(Cause, optional=True, way_out="write Cause.OOM or another member")
_REASON = Kind(Reason, optional=True)
_PREDICTION = Kind(Prediction, optional=True)
_ASSIGNMENT = Kind(RungAssignment, optional=True)
_REPORTS = Row(Kind(Report))
_BRANCHES = Row(Kind(BranchLoss))
_ROWS = Row(Table(), optional=True, way_out='write [{"tokens": 1e6, "loss": 2.5}]')
_STORED_REPORT = Table(keys=("step", "loss", "cost", "metrics"), way_out=READ_BACK)


def _as_list(interval: Interval | None) -> list[float] | None:
    return None if interval is None else list(interval)


def _to_json_number(value: float | None) -> float | str | None:
    return value if value is None or math.isfinite(value) else str(float(value))


def _from_json_number(stored: float | str | None) -> float | None:
    return float(stored) if isinstance(stored, str) else stored
