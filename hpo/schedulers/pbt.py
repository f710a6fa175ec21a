"""Population-based training (Jaderberg et al., 2017).

A population of configs trains in parallel. After each interval every member that is among the worst
is replaced by a clone of one of the best: its checkpoint, with changed hyperparameters. So the best
member's ancestors, end to end, are a schedule of hyperparameters, which is the result.

Notation
--------
member      one slot of the population, stored as the cohort of its trials
generation  g = 0, 1, ..: all members reach level r_g, then each continues or is replaced
r_g         min(r_min + g interval, R)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.errors import SpaceError
from hpo.schedulers.base import Action, Clone, Promote, Scheduler, Setup, Start
from hpo.schedulers.ladder import Ladder, fidelity_of
from hpo.schedulers.run_history import (
    Arrival,
    PausingSchedule,
    Run,
    RunIndex,
    RunState,
    Started,
)
from hpo.space import Float
from hpo.space.arguments import Count, Number, Row, Text, store
from hpo.space.parameters import condition
from hpo.trials import Observation, RungAssignment, Status, Trial, TrialLog


@dataclass(frozen=True, slots=True)
class PBT(Scheduler):
    """Population-based training with truncation selection.

    Args:
        population: number of members.
        interval: levels between two selections; None for a tenth of the fidelity's range.
        share: fraction of the population that is replaced, and equally of those that are cloned.
        mutate: names of the parameters that change in a clone; None for every Float. What fixes the
            shape of a checkpoint, such as a width, must not be among them.

    Raises:
        SpaceError: for settings that break these rules.

    Example:
        After one interval the worst of three is replaced by a changed clone of the best:

        >>> from hpo import PBT, Fidelity, Float, Optimizer, StagedOptimizer
        >>> space = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 10)}
        >>> engine = StagedOptimizer(Optimizer(space), PBT(population=3, interval=3))
        >>> for loss in (0.7, 0.4, 0.9):
        ...     _ = engine.tell(engine.ask(), loss)
        >>> trial = engine.ask()
        >>> trial.parent, trial.assignment.level
        (1, 4)
    """

    population: int = 10
    interval: int | None = None
    share: float = 0.2
    mutate: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        store(
            self,
            SpaceError,
            population=Count(2, way_out="10 is usual"),
            interval=Count(1, optional=True, way_out="count it in levels of the fidelity"),
            share=Number(above=0, most=0.5, way_out="0.2 is usual"),
            mutate=Row(Text(), optional=True, way_out='write mutate=("lr",)'),
        )

    def schedule(self, setup: Setup) -> PBTSchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity, or if there is nothing to mutate.

        Example:
            The first member of the population starts:

            >>> from hpo import Fidelity, Float, SearchSpace
            >>> from hpo.space import Direction
            >>> from hpo.trials import TrialLog
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 10)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> PBT(population=3, interval=3).schedule(setup).next(TrialLog())
            Start(assignment=RungAssignment(level=1, bracket=0, cohort=0))
        """
        space = setup.space
        low, high = fidelity_of(space, "PBT").limits
        names = self.mutate
        if names is None:
            names = tuple(name for name in space.decisions if isinstance(space[name], Float))
        conditions = [condition(parameter) for parameter in space.values()]
        parents = {when[0] for when in conditions if when is not None}
        allowed = [name for name in space.decisions if name not in parents]
        if not names or not {*names} <= {*allowed}:
            raise SpaceError(
                "`mutate` must name parameters of the search on which no other depends, got "
                f"{list(names)}; choose among {allowed}"
            )
        interval = self.interval or max(1, (high - low) // 10)
        replaced = max(1, int(self.share * self.population))
        runs = RunIndex.on(Ladder.evenly_spaced(low, high, interval), setup)
        return PBTSchedule(runs, self.population, replaced, names, setup.seed)


class PBTSchedule(PausingSchedule):
    """`Schedule` of `PBT`."""

    def __init__(
        self, runs: RunIndex, population: int, replaced: int, mutate: tuple[str, ...], seed: int
    ) -> None:
        super().__init__(runs)
        self._population, self._replaced = population, replaced
        self._mutate = mutate
        self._seed = seed
        self._newest: dict[int, Run] = {}  # by member
        # By generation and member: the run that reached it, or failed on the way.
        self._reached: list[dict[int, Run]] = [{} for _ in runs.ladder.levels]

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        """See `Schedule`."""
        self._sync(log)
        levels = self._runs.ladder.levels
        if may_start and len(self._newest) < self._population:
            return Start(RungAssignment(levels[0], 0, len(self._newest)))
        generation = self._last_complete()
        if generation is None or generation == len(levels) - 1:
            return None
        above = levels[generation + 1]
        waiting = {
            member: run
            for member, run in sorted(self._newest.items())
            if run.assignment.level < above and run.number not in locked
        }
        # Clones come first: a parent that continues would replace the checkpoint they start from.
        # But a parent whose stage is not told yet has a cost that nobody knows, and that its clone
        # would be charged for as well; and the run that is replaced could not be stopped yet.
        parents = self._parents(generation)
        replaced = [member for member in waiting if member in parents]
        for member in replaced:
            run, parent = waiting[member], parents[member]
            if not any(_in_stage(each, levels[generation]) for each in (run, parent)):
                assignment = RungAssignment(above, 0, member)
                return Clone(parent.number, assignment, run.number, self._mutate)
        needed = {*replaced, *(parents[member].assignment.cohort for member in replaced)}
        for member, run in waiting.items():
            if run.paused and member not in needed:
                return Promote(run.number, above)
        return None

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        """Return every paused member of the population."""
        self._sync(log)
        return frozenset(run.number for run in self._newest.values() if run.paused)

    def _sync(self, log: TrialLog) -> None:
        for change in self._runs.changes(log):
            run = change.run
            member = run.assignment.cohort
            match change:
                case Started():
                    self._newest[member] = run
                case Arrival(rung=rung):
                    self._reached[rung][member] = run
                case _:  # stopped before its level, by a budget perhaps: counts as failed
                    rung = self._runs.ladder.rung(run.assignment.level)
                    self._reached[rung].setdefault(member, run)

    def _last_complete(self) -> int | None:
        """Return the last generation that all members reached."""
        members = len(self._newest)
        complete = [g for g, runs in enumerate(self._reached) if len(runs) == members > 0]
        return max(complete, default=None)

    def _parents(self, generation: int) -> dict[int, Run]:
        """Return the members to be replaced after `generation`, each with the run to clone.

        A pure function of the log.
        """
        level = self._runs.ladder.levels[generation]
        reached = self._reached[generation]

        def order(member: int) -> tuple[bool, float, int]:
            run = reached[member]
            failed = run.failed or level not in run.losses
            return failed, 0.0 if failed else run.losses[level], member

        ranked = sorted(reached, key=order)
        failed = [member for member in ranked if order(member)[0]]
        best = [member for member in ranked if member not in failed][: self._replaced]
        worst = [member for member in ranked[-self._replaced :] if member not in best]
        parents = {}
        for member in sorted({*worst, *failed}) if best else []:
            rng = np.random.default_rng([self._seed, generation, member])
            parents[member] = reached[best[int(rng.integers(len(best)))]]
        return parents


def _in_stage(run: Run, level: int) -> bool:
    """Whether a run has reported from `level` already, but the end of that stage is not told."""
    return run.assignment.level == level and run.state in (RunState.RUNNING, RunState.LOST)


@dataclass(frozen=True, slots=True)
class Stretch:
    """Part of a run's ancestry that was trained with one config.

    Attributes:
        number: trial that was trained.
        config: its config.
        start: level from which it was trained.
        end: level up to which it was trained.
    """

    number: int
    config: dict[str, Any]
    start: int
    end: int


def ancestry(log: TrialLog, number: int) -> tuple[Stretch, ...]:
    """Return the stretches of training that led to a trial, first to last.

    Under PBT that is the schedule of hyperparameters which the run was trained with.

    Args:
        log: log of the study.
        number: trial in `log`.

    Example:
        >>> from hpo import PBT, Fidelity, Float, Optimizer, StagedOptimizer
        >>> space = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 4)}
        >>> engine = StagedOptimizer(Optimizer(space), PBT(population=2, interval=3))
        >>> for loss in (0.7, 0.4, 0.3):  # the third stage trains a clone of the second trial
        ...     trial = engine.ask()
        ...     _ = engine.tell(trial, loss)
        >>> [(part.number, part.start, part.end) for part in ancestry(engine.log, trial.number)]
        [(1, 0, 1), (2, 1, 4)]
    """
    target: dict[int, int] = {}  # level up to which each trial's stage trains
    reached: dict[int, int] = {}  # level of each trial's checkpoint
    began: dict[int, int] = {}  # level from which it continues its parent
    for event in log.events():
        if isinstance(event, Trial):
            if event.number not in began:
                start = 0 if event.parent is None else reached.get(event.parent, 0)
                began[event.number] = reached[event.number] = start
            if event.assignment is not None:
                target[event.number] = event.assignment.level
        elif isinstance(event, Observation) and event.number in target:
            if event.status in (Status.PAUSED, Status.COMPLETED):
                reached[event.number] = target[event.number]
    stretches = []
    end, current = reached.get(number, 0), log.trial(number)
    while True:
        if end > began[current.number]:
            start = began[current.number]
            stretches.append(Stretch(current.number, current.config, start, end))
        end = min(end, began[current.number])
        if current.parent is None:
            return tuple(reversed(stretches))
        current = log.trial(current.parent)
