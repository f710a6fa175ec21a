"""Train every config up to the first level, finish the best.

Egele, Guyon, Sun and Balaprakash ("Is one epoch all you need for multi-fidelity hyperparameter
optimization?", 2023). A strong and simple baseline for every halving scheme wherever the first
level already ranks configs about right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hpo.errors import SpaceError
from hpo.schedulers.base import Action, Promote, Scheduler, Setup, Start
from hpo.schedulers.ladder import Ladder, fidelity_of
from hpo.schedulers.run_history import Arrival, PausingSchedule, Run, Rung, RunIndex
from hpo.space.arguments import Count, store
from hpo.trials import RungAssignment, TrialLog

MARGIN = 2  # checkpoints kept beyond those that will be finished


@dataclass(frozen=True, slots=True)
class OneEpoch(Scheduler):
    """After every `screen` configs at the lowest level, the best `keep` not finished yet go to R.

    Args:
        keep: number of configs that are finished each time.
        screen: number of configs that are compared each time; None for `keep` R / r_min, which
            spends as much on the screening as on the rest.

    Raises:
        SpaceError: for settings that are no counts.

    Example:
        >>> from hpo import Fidelity, Float, OneEpoch, Optimizer, StagedOptimizer
        >>> space = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 27)}
        >>> engine = StagedOptimizer(Optimizer(space), OneEpoch(keep=1, screen=3))
        >>> for loss in (0.7, 0.9, 0.4):
        ...     _ = engine.tell(engine.ask(), loss)
        >>> trial = engine.ask()
        >>> trial.number, trial.assignment.level
        (2, 27)
    """

    keep: int = 1
    screen: int | None = None

    def __post_init__(self) -> None:
        count = "give a number of configs"
        store(
            self,
            SpaceError,
            keep=Count(1, way_out=count),
            screen=Count(1, optional=True, way_out=count),
        )

    def schedule(self, setup: Setup) -> OneEpochSchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity.

        Example:
            >>> from hpo import Fidelity, Float, SearchSpace
            >>> from hpo.space import Direction
            >>> from hpo.trials import TrialLog
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 27)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> OneEpoch().schedule(setup).next(TrialLog())
            Start(assignment=RungAssignment(level=1, bracket=0, cohort=0))
        """
        fidelity = fidelity_of(setup.space, "OneEpoch")
        ladder = Ladder(tuple(sorted({fidelity.low, fidelity.high})))
        screen = self.screen or max(1, self.keep * fidelity.high // fidelity.low)
        return OneEpochSchedule(RunIndex.on(ladder, setup), keep=self.keep, screen=screen)


class OneEpochSchedule(PausingSchedule):
    """`Schedule` of `OneEpoch`."""

    def __init__(self, runs: RunIndex, *, keep: int, screen: int) -> None:
        super().__init__(runs)
        self._keep, self._screen = keep, screen
        self._first = Rung()

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        """See `Schedule`."""
        self._sync(log)
        ladder = self._runs.ladder
        rounds = len(self._first) // self._screen
        if not may_start:
            rounds = -(-len(self._first) // self._screen)
        if self._count_promoted() < self._keep * rounds and ladder.top > 0:
            for run in self._paused_runs():
                if run.number not in locked:
                    return Promote(run.number, ladder.high)
        return Start(RungAssignment(ladder.low)) if may_start else None

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        """Return the best `keep` + `MARGIN` runs that are paused at the lowest level."""
        self._sync(log)
        paused = [run.number for run in self._paused_runs()]
        return frozenset(paused[: self._keep + MARGIN])

    def _paused_runs(self) -> Iterator[Run]:
        """Yield the runs that are paused at the lowest level, best first."""
        for _, first_trial in self._first.best(len(self._first)):
            run = self._runs[first_trial]
            if run.paused and run.assignment.level < self._runs.ladder.high:
                yield run

    def _count_promoted(self) -> int:
        """Return the number of runs sent to the top so far, whatever came of them."""
        return sum(run.assignment.level > self._runs.ladder.low for run in self._runs)

    def _sync(self, log: TrialLog) -> None:
        for change in self._runs.changes(log):
            if isinstance(change, Arrival) and change.rung == 0:
                self._first.add(change.loss, change.run.first_trial)
