"""Asynchronous successive halving (Li et al., MLSys 2020), and PASHA (Bohdal et al., ICLR 2023).

No rung waits to fill: whenever a worker is free, the best run that stands in the top share of its
rung, as far as the rung is filled by then, goes on; else a new config starts.

Notation
--------
n_j, q_j   arrivals in rung j, failures included; the share of them that goes on (see `levels`)
top set    the floor(q_j n_j) best of rung j; a run of it that still rests there is promotable
"""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from hpo.errors import SpaceError
from hpo.observations import Place, Report, Trial, TrialLog
from hpo.schedulers.base import (
    Action,
    Decision,
    Forecast,
    Promote,
    Scheduler,
    Setup,
    Start,
)
from hpo.schedulers.ladder import Ladder, check_count, check_eta
from hpo.schedulers.run_history import Arrival, Run, Rung, Runs, at_level

# Checkpoints kept in each rung beyond those that could be promoted now. A run that is dropped may
# still come into the top share as worse ones arrive; 4 lost the checkpoint of 1 promotion in 200.
MARGIN = 5
_NOISE_QUANTILE = (9, 10)  # of the differences between criss-crossing curves, PASHA's epsilon


class Kind(Enum):
    """What happens to a run at a rung that it does not pass."""

    PROMOTION = "promotion"  # every run pauses at each rung and may be promoted later
    STOPPING = "stopping"  # runs go through; one outside the top share at its arrival stops


@dataclass(frozen=True, slots=True)
class ASHA(Scheduler):
    """Asynchronous successive halving.

    Args:
        eta: one in `eta` runs of a rung goes on.
        kind: PROMOTION can revive a run long after it came to its rung, and needs checkpoints to be
            cheap; STOPPING needs none, but judges a run only once, and the first ones leniently:
            a run goes on if it is among the ceil(q_j n_j) best by then.
        brackets: how many brackets share the configs, bracket s starting at rung s with rungs of
            its own; shares are those of the configs in a Hyperband. More than one hedges against
            early losses that mislead.
        confidence: with a forecast, a resting run outside the top share is promoted, too, when its
            promise reaches this and nothing in the top share waits. The rank rule is never
            overruled, so what is known of it still holds. None leaves promotions to it alone.
    """

    eta: int = 3
    kind: Kind = Kind.PROMOTION
    brackets: int = 1
    confidence: float | None = None

    def __post_init__(self) -> None:
        check_eta(self.eta)
        check_count("brackets", self.brackets)
        if not isinstance(self.kind, Kind):
            raise SpaceError(f"`kind` must be an ASHA kind, got {self.kind!r}; use Kind.PROMOTION")
        if self.confidence is not None and not 0 < self.confidence <= 1:
            raise SpaceError(f"`confidence` must lie in (0, 1], got {self.confidence!r}")

    def schedule(self, setup: Setup) -> AsyncHalving:
        """See `Scheduler`."""
        ladder = Ladder.over(setup.space, self.eta, "ASHA")
        if self.brackets > len(ladder):
            raise SpaceError(
                f"`brackets` must not exceed the {len(ladder)} levels {ladder.levels}, got "
                f"{self.brackets}; lower it, or widen the fidelity"
            )
        runs = Runs.on(ladder, setup)
        heard = None if self.confidence is None else setup.forecast
        return AsyncHalving(runs, self.kind, self.brackets, heard, self.confidence or 0.0)


class AsyncHalving:
    """ASHA at work; see `Schedule`."""

    def __init__(
        self,
        runs: Runs,
        kind: Kind,
        brackets: int,
        forecast: Forecast | None,
        confidence: float,
    ) -> None:
        self._ladder = ladder = runs.ladder
        self._runs = runs
        self._stopping = kind is Kind.STOPPING
        self._forecast, self._confidence = forecast, confidence
        self._rungs = [[Rung() for _ in ladder.levels] for _ in range(brackets)]
        self._started = [0] * brackets
        self._sizes = [ladder.hyperband_size(bracket) for bracket in range(brackets)]

    @property
    def ceiling(self) -> int:
        """Index of the highest rung that is open."""
        return self._ladder.top

    def next(
        self, log: TrialLog, *, may_start: bool = True, held: frozenset[int] = frozenset()
    ) -> Action | None:
        self._sync(log)
        if not self._stopping:
            action = self._promotion(held) or self._promising(log, held)
            if action is not None:
                return action
        if not may_start:
            return None
        bracket = self._bracket()
        level = self._ladder.levels[self._ladder.top if self._stopping else bracket]
        return Start(Place(level, bracket))

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        self._sync(log)
        run = self._runs.get(trial.number)
        if run is None:
            return Decision.CONTINUE
        if not self._stopping:
            return at_level(run, report)
        return Decision.CONTINUE if self._passes(run, report, log) else Decision.STOP

    def kept(self, log: TrialLog) -> frozenset[int]:
        """The best ceil(n_j / eta) + `MARGIN` of each rung, as far as they rest."""
        self._sync(log)
        numbers: set[int] = set()
        for bracket in self._rungs:
            for index, rung in enumerate(bracket):
                roots = [root for _, root in rung.best(-(-len(rung) // self._ladder.eta) + MARGIN)]
                numbers |= {self._runs[r].number for r in roots if self._rests(r, index)}
        return frozenset(numbers)

    def _sync(self, log: TrialLog) -> None:
        for news in self._runs.sync(log):
            if isinstance(news, Run):
                self._started[news.place.bracket] += 1
            elif isinstance(news, Arrival):
                self._rungs[news.run.place.bracket][news.rung].add(news.loss, news.run.root)
                self._arrived(news)

    def _arrived(self, arrival: Arrival) -> None:
        """For those who learn from arrivals."""

    def _bracket(self) -> int:
        """The bracket that is furthest behind its share, the lowest of equals."""
        behind = [Fraction(n, size) for n, size in zip(self._started, self._sizes, strict=True)]
        return behind.index(min(behind))

    def _rests(self, root: int, rung: int) -> bool:
        run = self._runs[root]
        return run.resting and run.place.level == self._ladder.levels[rung]

    def _promotion(self, held: frozenset[int]) -> Promote | None:
        """The best run in the top set of the highest rung that has one resting there."""
        for index in reversed(range(self.ceiling)):
            for bracket in self._rungs:
                run = self._promotable(bracket[index], index, held)
                if run is not None:
                    return Promote(run.number, self._ladder.levels[index + 1])
        return None

    def _promotable(self, rung: Rung, index: int, held: frozenset[int]) -> Run | None:
        """The best run that rests in the rung, if it is in the top set.

        Each run is dropped from `rung.here` once, so that a promotion costs O(log n) comparisons.
        """
        level, count = self._ladder.levels[index], self._ladder.promotable(len(rung), index)
        place = 0
        while place < len(rung.here):
            loss, root = rung.here[place]
            run = self._runs[root]
            if run.place.level > level or not run.alive:
                del rung.here[place]
            elif rung.rank(loss, root) >= count:
                return None
            elif self._rests(root, index) and run.number not in held:
                return run
            else:
                place += 1  # it still runs, or is another driver's
        return None

    def _promising(self, log: TrialLog, held: frozenset[int]) -> Promote | None:
        """The resting run of highest worth, if its promise is high enough."""
        ranked = self._ranked(log, held)
        if not ranked or not ranked[0][1] >= self._confidence:
            return None
        run = ranked[0][0]
        rung = self._ladder.rung(run.place.level)
        return Promote(run.number, self._ladder.levels[rung + 1])

    def _ranked(self, log: TrialLog, held: frozenset[int]) -> list[tuple[Run, float]]:
        """Runs that rest below the ceiling with their promise, those worth most first."""
        below = self._ladder.levels[self.ceiling]
        resting = [
            run
            for run in self._runs
            if run.resting and run.place.level < below and run.number not in held
        ]
        if self._forecast is None or not resting:
            return []
        promise = self._forecast.promise(log, [run.number for run in resting]).tolist()
        worth = self._worth(promise, resting, log)
        order = sorted(range(len(resting)), key=lambda i: -worth[i])  # the older of equals first
        return [(resting[i], promise[i]) for i in order]

    def _worth(self, promise: list[float], runs: list[Run], log: TrialLog) -> list[float]:
        """By which the resting `runs` are chosen among."""
        return promise

    def _passes(self, run: Run, report: Report, log: TrialLog) -> bool:
        """Whether a run goes on after `report`; it is judged when it first comes to a rung."""
        index = self._ladder.rung(report.step)
        if run.failed:
            return False
        if index < 0 or index >= self._ladder.top:
            return True
        level = self._ladder.levels[index]
        before = [earlier.step for earlier in log.reports(run.number) if earlier.step < report.step]
        if level not in run.losses or (before and before[-1] >= level):
            return True
        rung = self._rungs[run.place.bracket][index]
        passing = -(-len(rung) * level // self._ladder.levels[index + 1])
        return rung.rank(run.losses[level], run.root) < passing


@dataclass(frozen=True, slots=True)
class PASHA(Scheduler):
    """Progressive ASHA: higher levels open only while they still change the ranking.

    Promotion stops at a ceiling, at first the second rung. It rises by one rung whenever the runs
    of the two highest open rungs are not ranked alike, up to noise: the run at each place of the
    upper rung must lie within epsilon of the run at that place in the lower one. Epsilon is the 90
    % quantile of the differences between runs whose curves cross at least twice, since an order
    that turns back and forth is noise.

    Only neighbours in a rung's ranking are looked at for crossings, two pairs an arrival, so that n
    arrivals cost O(n log n) and not every pair of curves. A ceiling never comes down.

    Args:
        eta: one in `eta` runs of a rung goes on.
    """

    eta: int = 3

    def __post_init__(self) -> None:
        check_eta(self.eta)

    def schedule(self, setup: Setup) -> ProgressiveHalving:
        """See `Scheduler`."""
        runs = Runs.on(Ladder.over(setup.space, self.eta, "PASHA"), setup)
        return ProgressiveHalving(runs)


class ProgressiveHalving(AsyncHalving):
    """PASHA at work; see `Schedule`."""

    def __init__(self, runs: Runs) -> None:
        super().__init__(runs, Kind.PROMOTION, 1, forecast=None, confidence=1.0)
        self._ceiling = min(1, self._ladder.top)
        # Losses in the rung below the ceiling, of the runs that came to the ceiling, best first.
        self._below: list[tuple[float, int]] = []
        self._crossings: list[float] = []  # ascending differences of criss-crossing curves

    @property
    def ceiling(self) -> int:
        return self._ceiling

    @property
    def noise(self) -> float:
        """Epsilon: losses closer than this are taken as ranked alike."""
        if not self._crossings:
            return 0.0
        share, whole = _NOISE_QUANTILE
        return self._crossings[-(-len(self._crossings) * share // whole) - 1]

    def _arrived(self, arrival: Arrival) -> None:
        if arrival.loss is None:
            return
        rung = self._rungs[0][arrival.rung]
        rank = rung.rank(arrival.loss, arrival.run.root)
        for _, neighbour in rung.best(rank + 2)[max(rank - 1, 0) :]:
            if neighbour != arrival.run.root:
                self._compare(arrival.run, self._runs[neighbour])
        if arrival.rung > self._ceiling:  # promoted there under an earlier ceiling
            self._raise_to(arrival.rung)
        elif arrival.rung == self._ceiling and 0 < self._ceiling < self._ladder.top:
            if not self._agrees(arrival.run, rank):
                self._raise_to(self._ceiling + 1)

    def _compare(self, a: Run, b: Run) -> None:
        """Learn the noise from two neighbours, if their curves cross at least twice."""
        differences = [a.curve[step] - b.curve[step] for step in a.curve if step in b.curve]
        signs = [d > 0 for d in differences if d != 0]
        crossings = sum(x != y for x, y in zip(signs, signs[1:], strict=False))
        if crossings >= 2:
            insort(self._crossings, abs(differences[-1]))

    def _agrees(self, run: Run, rank: int) -> bool:
        """Enter `run` at `rank` of the ceiling; whether it left the two rungs ranked alike.

        Only the places between its ranks in the two rungs are paired anew.
        """
        level = self._ladder.levels[self._ceiling - 1]
        if level not in run.losses:  # it skipped the rung below: nothing to compare
            return True
        insort(self._below, (run.losses[level], run.root))
        above = self._rungs[0][self._ceiling].best(len(self._below))
        place = self._below.index((run.losses[level], run.root))
        noise = self.noise
        for i in range(min(rank, place), min(max(rank, place) + 1, len(self._below), len(above))):
            loss = self._runs[above[i][1]].losses.get(level, self._below[i][0])
            if abs(loss - self._below[i][0]) > noise:
                return False
        return True

    def _raise_to(self, rung: int) -> None:
        self._ceiling = rung
        level = self._ladder.levels[rung - 1]
        roots = [root for _, root in self._rungs[0][rung].best(len(self._rungs[0][rung]))]
        below = [(self._runs[r].losses.get(level), r) for r in roots]
        self._below = sorted((loss, root) for loss, root in below if loss is not None)
