"""Protocol of schedulers: which run starts, continues, pauses, stops, is promoted or cloned.

Three parts, so that a scheduler serves a driver with worker processes, a simulation under a virtual
clock and the adapter to another tool alike:

    Scheduler   settings, frozen: what a user passes, such as `ASHA(eta=3)`
    Schedule    one scheduler applied to one log, made by `Scheduler.begin`
    TrialLog    the only state; a schedule is a function of it and can be rebuilt at any time

Whoever runs the trials calls `Schedule.next` whenever a worker is free and carries out the answer,
adds each report to the log and calls `Schedule.on_report`, and tells the log how each stage ends.
A scheduler never chooses a config: the optimizer does.

Notation
--------
level     value of the fidelity, an integer; a report's `step` counts what was done in the same unit
rung      one level of a bracket with the losses of all runs that reached it
stage     the part of a run between two pauses
run       one config's training, over all trials that continue it (stages, retries)
loss      as schedulers see it: smaller is better, finite; NaN and failures never enter a rung
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias

from hpo.space import Direction, DirectionName, Fidelity, SearchSpace
from hpo.space.scalars import shown
from hpo.trials import Report, RungAssignment, Trial, TrialLog
from hpo.trials.budget import Ledger

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Decision(Enum):
    """What a running trial should do after a report."""

    CONTINUE = "continue"
    PAUSE = "pause"  # end here, to be resumed from the checkpoint
    STOP = "stop"  # end here for good


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new config.

    Args:
        assignment: bracket, cohort and level up to which it trains; None trains it to the end, for
            schedulers without levels.
    """

    assignment: RungAssignment | None


@dataclass(frozen=True, slots=True)
class Promote:
    """Continue a paused run up to a higher level.

    A paused trial is resumed. A completed one, whose fidelity has grown since, is continued by a
    new trial with it as `parent`.

    Args:
        number: current trial of the run.
        level: level up to which it trains now.
    """

    number: int
    level: int


@dataclass(frozen=True, slots=True)
class Clone:
    """Replace a run by a changed copy of another, trained on from the other's checkpoint.

    Args:
        parent: trial that is copied.
        assignment: where the copy belongs.
        replaces: trial that is replaced; it is told STOPPED if it is paused.
        mutate: names of the parameters that may change.
    """

    parent: int
    assignment: RungAssignment
    replaces: int
    mutate: tuple[str, ...]


Action: TypeAlias = Start | Promote | Clone


class Forecast(Protocol):
    """Model of how unfinished runs will end."""

    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Return the probability that the final value of each trial enters the front.

        Args:
            log: log of the study.
            numbers: paused or running trials in `log`.

        Returns:
            Probabilities in [0, 1], shape `(n,)`.
        """
        ...


class Schedule(Protocol):
    """A scheduler applied to one log.

    All three methods may be called at any time and in any order.
    """

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        """Return what a free worker should do.

        Args:
            log: log of the study.
            may_start: whether another config may start. If not, incomplete rungs close with the
                runs that they have.
            locked: trials that the caller may not promote or replace.

        Returns:
            An action; None to wait for running trials, or at the end if there are none.
        """
        ...

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        """Return what running `trial` should do after `report`, which is already in `log`."""
        ...

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        """Return the paused and completed trials whose checkpoints may be needed again."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What a schedule is made for; see `Scheduler.begin`.

    Args:
        space: search space.
        direction: direction of the losses in the log.
        seed: seed of the schedule's random choices.
        forecast: model of how runs will end, if there is one.
        ledger: what the study has spent of its budget, kept up to date; None without a budget.
    """

    space: SearchSpace
    direction: Direction
    seed: int
    forecast: Forecast | None
    ledger: Ledger | None = None

    @property
    def sign(self) -> float:
        """Factor that makes a loss one to minimize, 1 or -1."""
        return self.direction.sign


class Forecaster(Protocol):
    """Settings of a user's own forecast; frozen, and equal ones have equal `repr`."""

    def begin(self, setup: Setup) -> Forecast:
        """Return the forecast for a schedule made for `setup`.

        Raises:
            SpaceError: if there is none for its space.
        """
        ...


class Scheduler(ABC):
    """Settings of a scheduler.

    Equal settings have equal `repr`, which is stored with a study to recognize them. To write a
    scheduler, derive from this class and override `schedule`.

    Example:
        >>> from hpo import ASHA, Fidelity, Float, SearchSpace
        >>> from hpo.trials import TrialLog
        >>> space = SearchSpace({"lr": Float(0.0, 1.0), "epochs": Fidelity(1, 27)})
        >>> schedule = ASHA(eta=3).begin(space)
        >>> action = schedule.next(TrialLog())
        >>> type(action).__name__, action.assignment.level
        ('Start', 1)
    """

    __slots__ = ()

    #: Whether a study under it ends without a budget, once nothing is left to run.
    ends_by_itself: ClassVar[bool] = False

    def begin(
        self,
        space: SearchSpace,
        *,
        direction: DirectionName | Direction = Direction.MINIMIZE,
        seed: int = 0,
        forecast: Forecast | None = None,
        ledger: Ledger | None = None,
    ) -> Schedule:
        """Return a schedule over the levels of the space's fidelity.

        Args:
            space: search space.
            direction: direction of the losses in the log.
            seed: seed of the schedule's random choices, if it makes any.
            forecast: model of how runs will end, for schedulers that use one.
            ledger: what the study has spent of its budget, for schedulers that look ahead.

        Raises:
            SpaceError: for a scheduler that needs a fidelity where there is none, or does not suit
                its levels.
        """
        return self.schedule(Setup(space, Direction.of(direction), seed, forecast, ledger))

    @abstractmethod
    def schedule(self, setup: Setup) -> Schedule:
        """Return a schedule for `setup`; `begin` calls this."""


def check_scheduler(scheduler: object) -> None:
    """Refuse what is no scheduler.

    Raises:
        TypeError: For anything without a method `begin`, and for a class.
    """
    if scheduler is None:
        return
    if isinstance(scheduler, type) or not callable(getattr(scheduler, "begin", None)):
        raise TypeError(
            f"`scheduler` must be one of hpo.schedulers, such as ASHA(eta=3), or None, got"
            f" {shown(scheduler)}; derive your own stopping rule from hpo.schedulers.StoppingRule"
        )


class StoppingRule(Scheduler):
    """Scheduler that only stops runs: derive from it and override `stops`.

    Example:
        >>> from hpo import Float, Report, SearchSpace, Trial
        >>> from hpo.trials import TrialLog
        >>> class StopAbove(StoppingRule):
        ...     def __init__(self, bound):
        ...         self.bound = bound
        ...
        ...     def stops(self, trial, report, log, sign):
        ...         return report.loss is not None and sign * report.loss > self.bound
        >>> schedule = StopAbove(10.0).begin(SearchSpace({"lr": Float(0.0, 1.0)}))
        >>> log, trial = TrialLog(), Trial(0, {"lr": 0.5}, 0, None)
        >>> [schedule.on_report(trial, Report(1, loss), log).name for loss in (9.0, 11.0)]
        ['CONTINUE', 'STOP']
    """

    @abstractmethod
    def stops(self, trial: Trial, report: Report, log: TrialLog, sign: float) -> bool:
        """Return whether `trial` should stop after `report`.

        Args:
            trial: running trial.
            report: its last report, which is already in `log`.
            log: log of the study.
            sign: factor that makes a loss one to minimize, 1 or -1.
        """

    def schedule(self, setup: Setup) -> Schedule:
        """Return the schedule that applies the rule to one log; see `Scheduler`."""
        space = setup.space
        top = space[space.fidelity] if space.fidelity is not None else None
        assert top is None or isinstance(top, Fidelity)
        return _StoppingSchedule(self, None if top is None else top.high, setup.sign)


@dataclass(frozen=True, slots=True)
class _StoppingSchedule:
    """Starts every config at full fidelity and applies its rule at each report."""

    rule: StoppingRule
    top: int | None
    sign: float

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        if not may_start:
            return None
        return Start(None if self.top is None else RungAssignment(self.top))

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        stops = self.rule.stops(trial, report, log, self.sign)
        return Decision.STOP if stops else Decision.CONTINUE

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        return frozenset()
