"""The protocol of schedulers: who starts, goes on, pauses, stops, is promoted or cloned.

Three parts, so that a scheduler serves a driver with worker processes, a simulation under a virtual
clock and a guest in another tool alike:

    Scheduler   settings, frozen: what a user passes, such as `ASHA(eta=3)`
    Schedule    one scheduler at work on one log, made by `Scheduler.begin`
    TrialLog    the only state; a schedule is a function of it and rebuilds itself from nothing

Whoever runs the trials asks `next` whenever a worker is free and does what it says, hands each
report to the log and asks `on_report` what becomes of the run, and tells the log how each stage
ends. Configs never come from here: they are the optimizer's to propose.

Notation
--------
level     of the fidelity, an integer; a report's `step` counts in the same unit, done so far
rung      one level of a bracket with the losses of all runs that reached it
run       one config's training, over all trials that carry it on (stages, retries)
loss      as schedulers see it: smaller is better, finite; NaN and failures never enter a rung
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from hpo.space import Fidelity, SearchSpace
from hpo.trials import Report, RungAssignment, Trial, TrialLog

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Direction: TypeAlias = Literal["minimize", "maximize"]


class Decision(Enum):
    """The answer to a report."""

    CONTINUE = "continue"
    PAUSE = "pause"  # end here, to be continued from the checkpoint
    STOP = "stop"  # end here for good


@dataclass(frozen=True, slots=True)
class Start:
    """Start a new config in `place`; None trains it to the end, for rules without levels."""

    assignment: RungAssignment | None


@dataclass(frozen=True, slots=True)
class Promote:
    """Train the run carried by trial `number` on, up to `level`.

    A paused trial is resumed. A completed one, whose fidelity has grown since, goes on under a new
    trial with it as `parent`.
    """

    number: int
    level: int


@dataclass(frozen=True, slots=True)
class Clone:
    """Start a changed copy of trial `parent` from its checkpoint, instead of trial `replaces`.

    `mutate`: names of the parameters that may change. `replaces` is told STOPPED if it is paused.
    """

    parent: int
    assignment: RungAssignment
    replaces: int
    mutate: tuple[str, ...]


Action: TypeAlias = Start | Promote | Clone


class Forecast(Protocol):
    """What a model expects of runs that are not at their end."""

    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> NDArray[np.float64]:
        """Probability in [0, 1] that the final value of each trial enters the front, `(n,)`.

        `numbers`: of paused or running trials in `log`.
        """
        ...


class Schedule(Protocol):
    """A scheduler at work on one log. Both questions may be asked at any time and in any order."""

    def next(
        self, log: TrialLog, *, may_start: bool = True, held: frozenset[int] = frozenset()
    ) -> Action | None:
        """What a free worker should do; None to wait for others, or at the end when none runs.

        `may_start`: False when no more configs may be started, so that what waits for them goes on
        without. `held`: numbers of trials that are not the caller's to move.
        """
        ...

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        """What becomes of a running `trial` after `report`, which is in `log` already."""
        ...

    def kept(self, log: TrialLog) -> frozenset[int]:
        """Paused and completed trials whose checkpoints may be needed again."""
        ...


@dataclass(frozen=True, slots=True)
class Setup:
    """What a schedule is made for; see `Scheduler.begin`. `sign`: makes a loss one to minimize."""

    space: SearchSpace
    sign: float
    seed: int
    forecast: Forecast | None


class Forecaster(Protocol):
    """Settings of a forecast of one's own; frozen, and equal ones have equal `repr`."""

    def begin(self, setup: Setup) -> Forecast:
        """The forecast that a schedule made for `setup` hears; raises `SpaceError` if none can."""
        ...


class Scheduler(ABC):
    """Settings of a scheduler; equal settings have equal `repr`, which is stored with a study.

    Derive from it and override `schedule`.
    """

    __slots__ = ()

    def begin(
        self,
        space: SearchSpace,
        *,
        direction: Direction = "minimize",
        seed: int = 0,
        forecast: Forecast | None = None,
    ) -> Schedule:
        """A schedule over the levels of the space's fidelity, for losses in `direction`.

        `seed`: of its random choices, if it makes any. `forecast`: says which runs promise to end
        well, for schedulers that ask.

        Raises `SpaceError` for a scheduler that needs a fidelity where there is none, or does not
        suit its levels.
        """
        return self.schedule(Setup(space, loss_sign(direction), seed, forecast))

    @abstractmethod
    def schedule(self, setup: Setup) -> Schedule:
        """As `begin`."""


class StoppingRule(Scheduler):
    """A scheduler that only stops runs: derive from it and override `stops`."""

    @abstractmethod
    def stops(self, trial: Trial, report: Report, log: TrialLog, sign: float) -> bool:
        """Whether `trial` should stop after `report`; `sign` times a loss is to be minimized."""

    def schedule(self, setup: Setup) -> Schedule:
        """See `Scheduler`."""
        space = setup.space
        top = space[space.fidelity] if space.fidelity is not None else None
        assert top is None or isinstance(top, Fidelity)
        return _Stopping(self, None if top is None else top.high, setup.sign)


@dataclass(frozen=True, slots=True)
class _Stopping:
    """Starts whatever may start, at full fidelity, and asks its rule at each report."""

    rule: StoppingRule
    top: int | None
    sign: float

    def next(
        self, log: TrialLog, *, may_start: bool = True, held: frozenset[int] = frozenset()
    ) -> Action | None:
        if not may_start:
            return None
        return Start(None if self.top is None else RungAssignment(self.top))

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        stops = self.rule.stops(trial, report, log, self.sign)
        return Decision.STOP if stops else Decision.CONTINUE

    def kept(self, log: TrialLog) -> frozenset[int]:
        return frozenset()


def loss_sign(direction: Direction) -> float:
    """1 to minimize, -1 to maximize."""
    return 1.0 if direction == "minimize" else -1.0
