"""Freeze-thaw: a model of the ends of runs says which of them goes on.

Swersky, Snoek and Adams ("Freeze-thaw Bayesian optimization", 2014) pause every run and choose at
each step between going on with one and starting a new one. Both are compared there by one
acquisition, and so they were here at first: a new run is cheap and uncertain, so it nearly always
wins, hundreds are started, and none comes to its end. What a study spends is therefore divided by a
fixed share between new runs and old ones, as in successive halving, where each rung gets the same;
the model only says which.

Notation
--------
c_j    mean cost of a run up to rung j where costs are told, else its level
spent on new runs   c_0 for each run
spent on old runs   c_j - c_0 for each run that is at rung j or on its way there
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean

from hpo.errors import SpaceError
from hpo.observations import Place, TrialLog
from hpo.schedulers.asha import AsyncHalving, Kind
from hpo.schedulers.base import Action, Forecast, Forecaster, Promote, Scheduler, Setup, Start
from hpo.schedulers.levels import Ladder, check_count, check_eta
from hpo.schedulers.runs import Run, Runs, State


@dataclass(frozen=True, slots=True)
class FreezeThaw(Scheduler):
    """The run whose end promises most goes on by one level; what is left starts new runs.

    With several workers the first that goes on goes to its end at once: an answer is there early,
    and the model learns what a loss on the way says of the end.

    Without a forecast the rank rule of ASHA decides alone.

    Args:
        eta: ratio of neighbouring levels.
        share: of what is spent, for new runs up to the first level. Shares of 0.1 to 0.3 were alike
            on learning curves of networks.
        floor: every so many promotions one follows ASHA's rank rule, whatever the model says: the
            best run in the top 1 / `eta` of its rung, so that a model that is wrong is never alone.
        price: power of the cost still to come by which a promise is divided, where costs were told;
            0 looks at the promise alone.
        continues: whether a run goes on from where it paused. If it starts over instead, as without
            checkpoints or where each training set is one of its own, levels in between only cost,
            and who goes on goes to the end.
        forecaster: says how runs will end in place of the engine, such as
            :class:`hpo.adapters.ftpfn.FTPFN`; None lets the engine speak.
    """

    eta: int = 3
    share: float = 0.1
    floor: int = 4
    price: float = 0.5
    continues: bool = True
    forecaster: Forecaster | None = None

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check_count("floor", self.floor)
        if not 0 <= self.price <= 1:
            raise SpaceError(f"`price` must lie in [0, 1], got {self.price!r}; 0.5 does well")
        if not 0 < self.share < 1:
            raise SpaceError(f"`share` must lie in (0, 1), got {self.share!r}; 0.1 does well")

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
        prices, share = self._prices(log), self._settings.share
        first = prices[0] if self._settings.continues else 0.0
        onward = sum(prices[rung] - first for rung in rungs if rung)
        owed = onward * share <= prices[0] * len(rungs) * (1.0 - share)
        unfinished = self._ladder.top not in rungs
        action: Promote | None = None
        if owed or (unfinished and not may_start):
            # Not by rungs where one promotion passes them all: their sum would keep to multiples.
            turn = sum(rungs) if self._settings.continues else sum(rung > 0 for rung in rungs)
            ranked = self._forecast is None or turn % self._settings.floor == 0
            action = (self._promotion(held) if ranked else None) or self._promising(log, held)
        meanwhile = any(run.state is State.RUNNING for run in self._runs)
        if action is not None and (not self._settings.continues or (unfinished and meanwhile)):
            action = Promote(action.number, self._ladder.levels[-1])
        if action is None and may_start:
            return Start(Place(self._ladder.low))
        return action

    def _prices(self, log: TrialLog) -> list[float]:
        """c_j of each rung; in proportion to its level where no run has come to it yet."""
        levels = self._ladder.levels
        told: list[list[float]] = [[] for _ in levels]
        for run in self._runs:
            carried = log.carried(run.number) if run.resting else None
            if carried is not None:
                told[self._ladder.rung(run.place.level)].append(carried.cost or 0.0)
        if not told[0] or not all(cost > 0.0 for costs in told for cost in costs):
            return [float(level) for level in levels]
        per_level = fmean(told[0]) / levels[0]
        return [
            fmean(costs) if costs else per_level * level
            for costs, level in zip(told, levels, strict=True)
        ]

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
