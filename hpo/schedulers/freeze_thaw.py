"""Freeze-thaw: a model of the ends of runs says which of them goes on.

Swersky, Snoek and Adams ("Freeze-thaw Bayesian optimization", 2014) pause every run and choose at
each step between going on with one and starting a new one. Both are compared there by one
acquisition, and so they were here at first: a new run is cheap and uncertain, so it nearly always
wins, hundreds are started, and none comes to its end. What a study spends is therefore divided by a
rule between new runs and old ones, as in successive halving, where each rung gets the same; the
model only says which.

The rule is breadth first: the model of short runs is good after dozens of them, and until then it
cannot tell who deserves a long one. With a fixed share of a tenth for new runs random search was
caught up with at six tenths of the speed on learning curves of networks (LCBench, 4 workers).

Notation
--------
c_j    mean cost of a run up to rung j where costs are told, else its level
T      what the study has spent, in c_K, the cost of a whole run
spent on new runs   c_0 for each run
spent on old runs   c_j - c_0 for each run that is at rung j or on its way there
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from hpo.errors import SpaceError
from hpo.observations import Place, TrialLog
from hpo.schedulers.asha import AsyncHalving, Kind
from hpo.schedulers.base import Action, Forecast, Forecaster, Promote, Scheduler, Setup, Start
from hpo.schedulers.ladder import Ladder, check_count, check_eta
from hpo.schedulers.run_history import Run, Runs, State

_WORTH_OF_NEW = 10.0  # times what new runs had is spent in all where no more may start


@dataclass(frozen=True, slots=True)
class FreezeThaw(Scheduler):
    """The run whose end promises most goes on by one level, unless it is the turn of new runs.

    The first run whose turn it is goes to its end at once, with several workers the best of the
    first few: an answer is there early, the model learns what a loss on the way says of the end,
    and the scheduler what going on costs. Where no more may start, as the budget counts trials,
    runs go on until ten times what the new ones had is spent.

    Without a forecast the rank rule of ASHA decides alone.

    Args:
        eta: ratio of neighbouring levels.
        breadth: of what T whole runs cost, that of `breadth` sqrt(T) is for new runs up to the
            first level: all of it at first, a tenth when T is 100.
        floor: every so many promotions one follows ASHA's rank rule, whatever the model says: the
            best run in the top 1 / `eta` of its rung, so that a model that is wrong is never alone.
        price: power of the cost still to come by which a promise is divided, where costs were told;
            0 looks at the promise alone.
        continues: whether a run goes on from where it paused. If it starts over instead, as without
            checkpoints or where each training set is one of its own, levels in between only cost,
            and who goes on goes to the end. An early run goes there at once to see what it costs;
            where a run to the first level costs more than one in `eta` of that, all do.
        forecaster: says how runs will end in place of the engine, such as
            :class:`hpo.adapters.ftpfn.FTPFN`; None lets the engine speak.
    """

    eta: int = 3
    breadth: float = 1.0
    floor: int = 4
    price: float = 0.5
    continues: bool = True
    forecaster: Forecaster | None = None

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check_count("floor", self.floor)
        if not 0 <= self.price <= 1:
            raise SpaceError(f"`price` must lie in [0, 1], got {self.price!r}; 0.5 does well")
        if not (math.isfinite(self.breadth) and self.breadth > 0):
            raise SpaceError(f"`breadth` must be finite and > 0, got {self.breadth!r}; 1 does well")

    def schedule(self, setup: Setup) -> FreezingThawing:
        """See `Scheduler`."""
        runs = Runs.on(Ladder.over(setup.space, self.eta, "FreezeThaw"), setup)
        own = setup.forecast if self.forecaster is None else self.forecaster.begin(setup)
        return FreezingThawing(runs, own, self)


class FreezingThawing(AsyncHalving):
    """FreezeThaw at work; see `Schedule`."""

    def __init__(self, runs: Runs, forecast: Forecast | None, settings: FreezeThaw) -> None:
        super().__init__(runs, Kind.PROMOTION, 1, forecast, confidence=0.0)
        self._settings = settings

    def next(
        self, log: TrialLog, *, may_start: bool = True, held: frozenset[int] = frozenset()
    ) -> Action | None:
        self._sync(log)
        rungs = [self._ladder.rung(run.place.level) for run in self._runs]
        unfinished = self._ladder.top not in rungs
        meanwhile = any(run.state is State.RUNNING for run in self._runs)
        prices = self._prices()
        if may_start and self._skips_levels(prices, unfinished and bool(rungs)):
            return Start(Place(self._ladder.levels[-1]))
        action: Promote | None = None
        owed = self._is_turn_of_old(prices, rungs, may_start) or (unfinished and not may_start)
        if owed:
            # Not by rungs where one promotion passes them all: their sum would keep to multiples.
            turn = sum(rungs) if self._settings.continues else sum(rung > 0 for rung in rungs)
            ranked = self._forecast is None or turn % self._settings.floor == 0
            action = (self._promotion(held) if ranked else None) or self._promising(log, held)
        elif not any(rungs):
            action = self._promotion(held)  # to see what going on costs
        straight = not self._settings.continues or (unfinished and (owed or meanwhile))
        if action is not None and straight:
            action = Promote(action.number, self._ladder.levels[-1])
        if action is None and may_start:
            return Start(Place(self._ladder.low))
        return action

    def _is_turn_of_old(self, prices: list[float], rungs: list[int], may_start: bool) -> bool:
        """Whether new runs have had what is theirs, or have all had it."""
        first = prices[0] if self._settings.continues else 0.0
        new = prices[0] * len(rungs) / prices[-1]
        old = sum(prices[rung] - first for rung in rungs if rung) / prices[-1]
        if not may_start:
            return new + old <= _WORTH_OF_NEW * new
        return new >= self._settings.breadth * math.sqrt(new + old)

    def _skips_levels(self, prices: list[float], first_to_end: bool) -> bool:
        """Whether a new run goes to its end at once, as levels on the way cost too much.

        `first_to_end`: nobody was sent there yet, and others were started.
        """
        if self._settings.continues:
            return False
        return first_to_end or prices[0] * self._ladder.eta > prices[-1]

    def _prices(self) -> list[float]:
        """c_j of each rung: c_0 times how much dearer the runs that came to j became on the way.

        In line with the level where none did, and the level itself where costs were not told.
        """
        low, high = self._ladder.low, self._ladder.levels[-1]
        first = [run.costs[low] for run in self._runs if low in run.costs]
        if not first:
            return [float(level) for level in self._ladder.levels]
        known = {low: fmean(first)}
        for level in self._ladder.levels[1:]:
            came = [run for run in self._runs if level in run.costs]
            both = [run for run in came if low in run.costs]
            if both:
                dearer = sum(run.costs[level] for run in both) / sum(run.costs[low] for run in both)
                known[level] = known[low] * dearer
            elif came:
                known[level] = fmean(run.costs[level] for run in came)
        last = max(known)
        slope = known[low] / low if last == low else (known[last] - known[low]) / (last - low)
        if last < high:
            known[high] = known[last] + max(slope, 0.0) * (high - last)
        return np.interp(self._ladder.levels, list(known), list(known.values())).tolist()

    def kept(self, log: TrialLog) -> frozenset[int]:
        """Beside those that ASHA keeps, one in `eta` of the resting, those that are worth most."""
        ranked = self._ranked(log, frozenset())
        count = -(-len(ranked) // self._settings.eta)
        return super().kept(log) | {run.number for run, _ in ranked[:count]}

    def _worth(self, promise: list[float], runs: list[Run], log: TrialLog) -> list[float]:
        """What a promise is worth per cost still to come, that of the run so far in proportion."""
        carried = [log.carried(run.number) for run in runs]
        spent = [0.0 if c is None or c.cost is None else c.cost for c in carried]
        if not all(spent):
            return promise
        high = self._ladder.levels[-1]
        return [
            p / (cost * (high - run.place.level) / run.place.level) ** self._settings.price
            for p, cost, run in zip(promise, spent, runs, strict=True)
        ]
