"""Freeze-thaw: a model of how runs will end chooses which paused run is promoted.

Swersky, Snoek and Adams ("Freeze-thaw Bayesian optimization", 2014) pause every run and choose at
each step between resuming one and starting a new one. Both are compared there by one acquisition,
and so they were here at first: a new run is cheap and uncertain, so it nearly always wins, hundreds
are started, and none reaches its end. What a study spends is therefore divided by a rule between
new and old runs, as in successive halving, where each rung gets the same; the model only chooses
among the old ones.

The rule is breadth first: the model of short runs is good after dozens of them, and until then it
cannot tell which run deserves a long one. With a fixed share of a tenth for new runs random search
was caught up with at six tenths of the speed on learning curves of networks (LCBench, 4 workers).

Notation
--------
c_j    mean cost of a run up to rung j where costs are told, else its level
T      what the study has spent, in c_K, the cost of a whole run
R      what the study may still spend, less what its running stages will cost
spent on new runs   c_0 for each run
spent on old runs   c_j - c_0 for each run that is at rung j or training toward it
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from hpo.errors import SpaceError
from hpo.schedulers.asha import ASHASchedule
from hpo.schedulers.base import Action, Forecast, Forecaster, Promote, Scheduler, Setup, Start
from hpo.schedulers.ladder import ETA, Ladder
from hpo.schedulers.run_history import Run, RunIndex, RunState
from hpo.space.arguments import Count, Flag, Number, store
from hpo.space.scalars import shown
from hpo.trials import RungAssignment, TrialLog
from hpo.trials.budget import Ledger

# Multiple of what new runs cost that is spent in all where no more may start.
_TOTAL_PER_NEW = 10.0
_NEAR = 3.0  # whole runs: with more than they cost left, nothing is kept back for a first end
_MARGIN = 2.0  # factor on the cost of a stage before a first end, as it may exceed its forecast


@dataclass(frozen=True, slots=True)
class FreezeThaw(Scheduler):
    """Promotes the paused run that a forecast expects to end best, unless new runs are due.

    The first promoted run trains to its end at once; with several workers, the best of the first
    few does. So there is an early answer, the model learns what an intermediate loss says about the
    final one, and the scheduler learns what a whole run costs. Where no more configs may start,
    as the budget counts trials, promotions continue until ten times what the new runs cost is
    spent. Under a budget of cost, the best paused run is sent to its end while what is left still
    pays for it, unless a run has reached its end before; so a budget of one whole run and a few
    short ones always leaves a finished run.

    Without a forecast the rank rule of ASHA decides alone.

    Args:
        eta: ratio of successive levels.
        breadth: share of new runs: of what T whole runs cost, that of `breadth` sqrt(T) is for new
            runs up to the first level: all of it at first, a tenth when T is 100.
        floor: number of promotions of which one follows ASHA's rank rule, whatever the model says:
            the best run in the top 1 / `eta` of its rung, so that a wrong model never decides
            alone.
        price: power of the remaining cost by which the probability of being the best is divided,
            where costs were told; 0 looks at the probability alone.
        continues: whether a run continues from where it paused. If it starts over instead, as
            without checkpoints or where each training set is different, levels in between only
            cost, and every promotion goes to the end. An early run goes there at once to see what
            it costs; where a run to the first level costs more than one in `eta` of that, all do.
        forecaster: model of how runs will end, such as :class:`hpo.adapters.ftpfn.FTPFN`; None uses
            the engine's.

    Raises:
        SpaceError: for settings that break these rules.

    Example:
        The best of the paused runs is promoted to the end once new runs have had their share:

        >>> from hpo import Fidelity, Float, FreezeThaw, SearchSpace, Status, Observation, Trial
        >>> from hpo.trials import TrialLog
        >>> space = SearchSpace({"lr": Float(0.0, 1.0), "epochs": Fidelity(1, 27)})
        >>> schedule, log = FreezeThaw(breadth=0.3).begin(space), TrialLog()
        >>> for number, loss in enumerate((0.4, 0.7, 0.9)):
        ...     rung = schedule.next(log).assignment
        ...     trial = Trial(number, {"lr": 0.5, "epochs": 27}, number, None, None, rung)
        ...     log.add(trial)
        ...     result = (number, trial.config, loss, 1.0, Status.PAUSED, None, number, number)
        ...     _ = log.tell(Observation(*result))
        >>> schedule.next(log)
        Promote(number=0, level=27)
    """

    eta: int = 3
    breadth: float = 1.0
    floor: int = 4
    price: float = 0.5
    continues: bool = True
    forecaster: Forecaster | None = None

    def __post_init__(self) -> None:
        store(
            self,
            SpaceError,
            eta=ETA,
            breadth=Number(above=0, most=1e6, way_out="1 does well"),
            floor=Count(1, way_out="4 does well"),
            price=Number(least=0, most=1, way_out="0.5 does well"),
            continues=Flag(),
        )
        if self.forecaster is not None and not callable(getattr(self.forecaster, "begin", None)):
            raise SpaceError(
                f"`forecaster` of FreezeThaw must have a method begin(setup), or be None, got"
                f" {shown(self.forecaster)}; None forecasts with the study's own model"
            )

    def schedule(self, setup: Setup) -> FreezeThawSchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity, or one that the forecaster does not suit.

        Example:
            >>> from hpo import Fidelity, Float, SearchSpace
            >>> from hpo.space import Direction
            >>> from hpo.trials import TrialLog
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 27)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> FreezeThaw().schedule(setup).next(TrialLog())
            Start(assignment=RungAssignment(level=1, bracket=0, cohort=0))
        """
        runs = RunIndex.on(Ladder.over(setup.space, self.eta, "FreezeThaw"), setup)
        forecast = setup.forecast if self.forecaster is None else self.forecaster.begin(setup)
        return FreezeThawSchedule(runs, forecast, self, setup.ledger)


class FreezeThawSchedule(ASHASchedule):
    """`Schedule` of `FreezeThaw`."""

    def __init__(
        self,
        runs: RunIndex,
        forecast: Forecast | None,
        settings: FreezeThaw,
        ledger: Ledger | None = None,
    ) -> None:
        super().__init__(runs, settings.eta, forecast=forecast)
        self._settings, self._ledger = settings, ledger

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        """See `Schedule`."""
        self._sync(log)
        costs = self._costs()
        left, top = self._left(costs), self._ladder.levels[-1]
        at_end = [run for run in self._runs if run.alive and run.assignment.level == top]
        if left is not None and not at_end:
            last = self._last_chance(log, costs, left, locked)
            if last is not None:
                return last
        action = self._next(log, costs, may_start, locked)
        if action is not None and left is not None and at_end:
            first_to_end = all(run.state is RunState.RUNNING for run in at_end)
            if first_to_end and _MARGIN * self._price(action, costs) > left:
                return None  # its end must stay paid for
        return action

    def _next(
        self, log: TrialLog, costs: list[float], may_start: bool, locked: frozenset[int]
    ) -> Action | None:
        """Return what is due, whatever is left of the budget."""
        rungs = [self._ladder.rung(run.assignment.level) for run in self._runs]
        none_to_end = self._ladder.top not in rungs
        any_running = any(run.state is RunState.RUNNING for run in self._runs)
        if may_start and self._skips_levels(costs, none_to_end and bool(rungs)):
            return Start(RungAssignment(self._ladder.levels[-1]))
        action: Promote | None = None
        turn_of_old = self._is_turn_of_old(costs, rungs, may_start)
        turn_of_old = turn_of_old or (none_to_end and not may_start)
        if turn_of_old:
            # Not by rungs where one promotion passes them all: their sum would keep to multiples.
            turn = sum(rungs) if self._settings.continues else sum(rung > 0 for rung in rungs)
            by_rank = self._forecast is None or turn % self._settings.floor == 0
            action = self._promotion_by_rank(locked) if by_rank else None
            action = action or self._promotion_by_forecast(log, locked)
        elif not any(rungs):
            action = self._promotion_by_rank(locked)  # to see what a whole run costs
        to_end = not self._settings.continues or (none_to_end and (turn_of_old or any_running))
        if action is not None and to_end:
            action = Promote(action.number, self._ladder.levels[-1])
        if action is None and may_start:
            return Start(RungAssignment(self._ladder.low))
        return action

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        """Return those that ASHA keeps, and the paused runs of highest value, one in `eta`."""
        self._sync(log)
        ranked = self._by_value(log, frozenset())
        count = -(-len(ranked) // self._settings.eta)
        return super().checkpoints_to_keep(log) | {run.number for run, _ in ranked[:count]}

    def _is_turn_of_old(self, costs: list[float], rungs: list[int], may_start: bool) -> bool:
        """Return whether a paused run is due: new runs have had their share, or all of theirs."""
        first = costs[0] if self._settings.continues else 0.0
        new = costs[0] * len(rungs) / costs[-1]
        old = sum(costs[rung] - first for rung in rungs if rung) / costs[-1]
        if not may_start:
            return new + old <= _TOTAL_PER_NEW * new
        return new >= self._settings.breadth * math.sqrt(new + old)

    def _left(self, costs: list[float]) -> float | None:
        """Return R; None where the budget has no cost, or is far from spent."""
        left = None if self._ledger is None else self._ledger.remaining_cost
        if left is None or left > _NEAR * costs[-1]:
            return None
        running = [run for run in self._runs if run.state is RunState.RUNNING]
        return left - sum(self._stage_cost(run, run.assignment.level, costs) for run in running)

    def _last_chance(
        self, log: TrialLog, costs: list[float], left: float, locked: frozenset[int]
    ) -> Promote | None:
        """Return the promotion of the best paused run to its end, if it can wait no longer.

        R pays for it, but not for another stage before it as well.
        """
        paused = [run for run in self._runs if run.paused and run.number not in locked]
        if not paused:
            return None
        by_value = self._by_value(log, locked)
        best = by_value[0][0] if by_value else min(paused, key=_furthest_and_best)
        action = Promote(best.number, self._ladder.levels[-1])
        needed = self._price(action, costs)
        stage = max(costs[0], costs[min(1, self._ladder.top)] - costs[0])
        return action if needed <= left < needed + _MARGIN * stage else None

    def _price(self, action: Action, costs: list[float]) -> float:
        """Return what a start or a promotion will cost."""
        if isinstance(action, Promote):
            return self._stage_cost(self._runs[action.number], action.level, costs)
        assert isinstance(action, Start) and action.assignment is not None
        return costs[self._ladder.rung(action.assignment.level)]

    def _stage_cost(self, run: Run, level: int, costs: list[float]) -> float:
        """Return what a run costs from where it is to a level, in proportion to its own costs."""
        cost = costs[self._ladder.rung(level)]
        if not run.costs:
            return cost
        last = max(run.costs)
        whole = cost * run.costs[last] / costs[self._ladder.rung(last)]
        return max(whole - run.costs[last], 0.0) if self._settings.continues else whole

    def _skips_levels(self, costs: list[float], first_to_end: bool) -> bool:
        """Return whether a new run goes to its end at once, as intermediate levels cost too much.

        `first_to_end`: no run was sent there yet, and others were started.
        """
        if self._settings.continues:
            return False
        return first_to_end or costs[0] * self._settings.eta > costs[-1]

    def _costs(self) -> list[float]:
        """Return c_j of each rung: c_0 times the ratio of costs of the runs that reached j.

        In proportion to the level where none did, and the level itself where costs were not told.
        """
        low, high = self._ladder.low, self._ladder.levels[-1]
        first = [run.costs[low] for run in self._runs if low in run.costs]
        if not first:
            return [float(level) for level in self._ladder.levels]
        known = {low: fmean(first)}
        for level in self._ladder.levels[1:]:
            reached = [run for run in self._runs if level in run.costs]
            both = [run for run in reached if low in run.costs]
            if both:
                ratio = sum(run.costs[level] for run in both) / sum(run.costs[low] for run in both)
                known[level] = known[low] * ratio
            elif reached:
                known[level] = fmean(run.costs[level] for run in reached)
        last = max(known)
        slope = known[low] / low if last == low else (known[last] - known[low]) / (last - low)
        if last < high:
            known[high] = known[last] + max(slope, 0.0) * (high - last)
        return np.interp(self._ladder.levels, list(known), list(known.values())).tolist()

    def _value(self, probability: list[float], runs: list[Run], log: TrialLog) -> list[float]:
        """Return the probability per remaining cost, the latter in proportion to that so far."""
        inherited = [log.carried(run.number) for run in runs]
        spent = [0.0 if last is None or last.cost is None else last.cost for last in inherited]
        if not all(spent):
            return probability
        high = self._ladder.levels[-1]
        return [
            p
            / (cost * (high - run.assignment.level) / run.assignment.level) ** self._settings.price
            for p, cost, run in zip(probability, spent, runs, strict=True)
        ]


def _furthest_and_best(run: Run) -> tuple[int, float]:
    """Return a key that sorts runs by their level, highest first, and by their loss there."""
    level = run.assignment.level
    return -level, run.losses.get(level, math.inf)
