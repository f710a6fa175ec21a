"""Population-based training (Jaderberg et al., 2017).

A population trains side by side. After each interval every member that is among the worst is
replaced by a clone of one of the best: its checkpoint, with changed hyperparameters. So the best
member's ancestors, end to end, are a schedule of hyperparameters, which is the result.

Notation
--------
member      a place in the population, stored as the cohort of its trials
generation  g = 0, 1, ..: all members come to level r_g, then each goes on or is replaced
r_g         min(r_min + g interval, R)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo.errors import SpaceError
from hpo.observations import Observation, Place, Report, Status, Trial, TrialLog
from hpo.schedulers.base import (
    Action,
    Clone,
    Decision,
    Promote,
    Scheduler,
    Setup,
    Start,
)
from hpo.schedulers.ladder import Ladder, check_count
from hpo.schedulers.run_history import Arrival, Run, Runs, at_level
from hpo.space import Float, condition


@dataclass(frozen=True, slots=True)
class PBT(Scheduler):
    """Population-based training with truncation selection.

    Args:
        population: members.
        interval: levels between two selections; None for a tenth of the fidelity's range.
        share: of the population that is replaced, and equally of those that are cloned.
        mutate: names of the parameters that change in a clone; None for every Float. What fixes the
            shape of a checkpoint, such as a width, must not be among them.
    """

    population: int = 10
    interval: int | None = None
    share: float = 0.2
    mutate: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        check_count("population", self.population, 2)
        if self.interval is not None:
            check_count("interval", self.interval)
        if not 0 < self.share <= 0.5:
            raise SpaceError(f"`share` must lie in (0, 0.5], got {self.share!r}; 0.2 is usual")

    def schedule(self, setup: Setup) -> PopulationTraining:
        """See `Scheduler`. Raises `SpaceError` when there is nothing to mutate."""
        space = setup.space
        whole = Ladder.over(space, 2, "PBT")
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
        interval = self.interval or max(1, (whole.high - whole.low) // 10)
        replaced = max(1, int(self.share * self.population))
        ladder = _Generations(whole.low, whole.high, 2, interval=interval)
        runs = Runs.on(ladder, setup)
        return PopulationTraining(runs, self.population, replaced, names, setup.seed)


@dataclass(frozen=True, slots=True)
class _Generations(Ladder):
    """Levels at equal distances."""

    interval: int = 1

    def __post_init__(self) -> None:
        levels = (*range(self.low, self.high, self.interval), self.high)
        object.__setattr__(self, "levels", levels)


class PopulationTraining:
    """PBT at work; see `Schedule`."""

    def __init__(
        self, runs: Runs, population: int, replaced: int, mutate: tuple[str, ...], seed: int
    ) -> None:
        self._runs = runs
        self._population, self._replaced = population, replaced
        self._mutate = mutate
        self._seed = seed
        self._newest: dict[int, Run] = {}  # by member
        # By generation and member: who came to it, also those that failed on the way.
        self._came: list[dict[int, Run]] = [{} for _ in runs.ladder.levels]

    def next(
        self, log: TrialLog, *, may_start: bool = True, held: frozenset[int] = frozenset()
    ) -> Action | None:
        self._sync(log)
        levels = self._runs.ladder.levels
        if may_start and len(self._newest) < self._population:
            return Start(Place(levels[0], 0, len(self._newest)))
        generation = self._complete()
        if generation is None or generation == len(levels) - 1:
            return None
        above = levels[generation + 1]
        waiting = {
            member: run
            for member, run in sorted(self._newest.items())
            if run.place.level < above and run.number not in held
        }
        # Clones come first: a parent that trains on would replace the checkpoint they start from.
        parents = self._parents(generation)
        for member, run in waiting.items():
            if member in parents:
                parent = parents[member].number
                return Clone(parent, Place(above, 0, member), run.number, self._mutate)
        for run in waiting.values():
            if run.resting:
                return Promote(run.number, above)
        return None

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        self._sync(log)
        run = self._runs.get(trial.number)
        return Decision.CONTINUE if run is None else at_level(run, report)

    def kept(self, log: TrialLog) -> frozenset[int]:
        """Every resting member of the population."""
        self._sync(log)
        return frozenset(run.number for run in self._newest.values() if run.resting)

    def _sync(self, log: TrialLog) -> None:
        for news in self._runs.sync(log):
            if isinstance(news, Run):
                self._newest[news.place.cohort] = news
            elif isinstance(news, Arrival):
                self._came[news.rung][news.run.place.cohort] = news.run
            else:  # stopped before its level, by a budget perhaps: as good as failed
                rung = self._runs.ladder.rung(news.run.place.level)
                self._came[rung].setdefault(news.run.place.cohort, news.run)

    def _complete(self) -> int | None:
        """The last generation to which all members came."""
        complete = [g for g, came in enumerate(self._came) if len(came) == len(self._newest) > 0]
        return max(complete, default=None)

    def _parents(self, generation: int) -> dict[int, Run]:
        """Members to be replaced after `generation`, and by a clone of whom; pure in the log."""
        level = self._runs.ladder.levels[generation]
        came = self._came[generation]

        def order(member: int) -> tuple[bool, float, int]:
            run = came[member]
            dead = run.failed or level not in run.losses
            return dead, 0.0 if dead else run.losses[level], member

        ranked = sorted(came, key=order)
        alive = [member for member in ranked if not order(member)[0]]
        best = alive[: self._replaced]
        worst = [m for m in ranked[-self._replaced :] if m not in best]
        dead = [m for m in ranked if order(m)[0]]
        parents = {}
        for member in sorted({*worst, *dead}) if best else []:
            rng = np.random.default_rng([self._seed, generation, member])
            parents[member] = came[best[int(rng.integers(len(best)))]]
        return parents


@dataclass(frozen=True, slots=True)
class Stretch:
    """One part of a run's ancestry: `config` was trained with from level `start` to `end`."""

    number: int
    config: dict[str, Any]
    start: int
    end: int


def ancestry(log: TrialLog, number: int) -> tuple[Stretch, ...]:
    """The stretches of training that led to trial `number`, first to last.

    Under PBT the schedule of hyperparameters that the run was trained with.
    """
    heading: dict[int, int] = {}
    reached: dict[int, int] = {}  # where each trial's checkpoint stands
    began: dict[int, int] = {}  # where it took over from its parent
    for event in log.events():
        if isinstance(event, Trial):
            if event.number not in began:
                start = 0 if event.parent is None else reached.get(event.parent, 0)
                began[event.number] = reached[event.number] = start
            if event.place is not None:
                heading[event.number] = event.place.level
        elif isinstance(event, Observation) and event.number in heading:
            if event.status in (Status.PAUSED, Status.COMPLETED):
                reached[event.number] = heading[event.number]
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
