"""Asynchronous successive halving (Li et al., MLSys 2020).

No rung waits to fill: whenever a worker is free, the best run that is paused in the top share of
its rung, as far as the rung is filled by then, is promoted; otherwise a new config starts.

Notation
--------
n_j, q_j   arrivals in rung j, failures included; the share of them that is promoted (see `ladder`)
top set    the floor(q_j n_j) best of rung j; a run of it that is still paused there is promotable
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from fractions import Fraction

from hpo.errors import SpaceError
from hpo.schedulers.base import (
    Action,
    Decision,
    Forecast,
    Promote,
    Scheduler,
    Setup,
    Start,
)
from hpo.schedulers.ladder import ETA, Ladder
from hpo.schedulers.run_history import Arrival, PausingSchedule, Run, Rung, RunIndex, Started
from hpo.space.arguments import Count, Kind, Number, store
from hpo.trials import Report, RungAssignment, Trial, TrialLog

# Checkpoints kept in each rung beyond those that could be promoted now. A run that is dropped may
# still come into the top share as worse ones arrive; 4 lost the checkpoint of 1 promotion in 200.
MARGIN = 5


class ASHAVariant(Enum):
    """What happens to a run at a rung where it is not in the top share."""

    PROMOTION = "promotion"  # every run pauses at each rung and may be promoted later
    STOPPING = "stopping"  # runs do not pause; one outside the top share at its arrival stops

    def __repr__(self) -> str:
        # Part of the `repr` of `ASHA` that studies in databases are recognized by.
        return f"<Kind.{self.name}: {self.value!r}>"


@dataclass(frozen=True, slots=True)
class ASHA(Scheduler):
    """Asynchronous successive halving.

    Args:
        eta: reduction factor: one in `eta` runs of a rung is promoted.
        kind: variant. PROMOTION can promote a run long after it reached its rung, and needs cheap
            checkpoints. STOPPING needs none, but judges a run only once, and the first ones
            leniently: a run continues if it is among the ceil(q_j n_j) best by then.
        brackets: number of brackets that share the configs, bracket s starting at rung s with rungs
            of its own, in the proportions of Hyperband. More than one hedges against early losses
            that mislead.
        confidence: probability of being the best from which a forecast promotes a paused run
            outside the top share, when no run in the top share can be promoted. The rank rule is
            never overruled, so its guarantees hold. None promotes by rank alone.

    Raises:
        SpaceError: for settings that break these rules.

    Example:
        Of three runs paused at the first level the best is promoted:

        >>> from hpo import ASHA, Fidelity, Float, Optimizer, StagedOptimizer
        >>> space = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 27)}
        >>> engine = StagedOptimizer(Optimizer(space), ASHA(eta=3))
        >>> for loss in (0.7, 0.4, 0.9):
        ...     _ = engine.tell(engine.ask(), loss)
        >>> trial = engine.ask()
        >>> trial.number, trial.assignment.level
        (1, 3)
    """

    eta: int = 3
    kind: ASHAVariant = ASHAVariant.PROMOTION
    brackets: int = 1
    confidence: float | None = None

    def __post_init__(self) -> None:
        store(
            self,
            SpaceError,
            eta=ETA,
            kind=Kind(ASHAVariant, way_out="use ASHAVariant.PROMOTION"),
            brackets=Count(1, way_out="1 is usual"),
            confidence=Number(
                above=0, most=1, optional=True, way_out="leave it out to promote by rank alone"
            ),
        )

    def schedule(self, setup: Setup) -> ASHASchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity, or with fewer levels than brackets.

        Example:
            A run trains to the first level and pauses, or to the end unless it is stopped:

            >>> from hpo import Fidelity, Float, SearchSpace
            >>> from hpo.space import Direction
            >>> from hpo.trials import TrialLog
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 27)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> schedules = [ASHA(kind=variant).schedule(setup) for variant in ASHAVariant]
            >>> [schedule.next(TrialLog()).assignment.level for schedule in schedules]
            [1, 27]
        """
        ladder = Ladder.over(setup.space, self.eta, "ASHA")
        if self.brackets > len(ladder):
            raise SpaceError(
                f"`brackets` must not exceed the {len(ladder)} levels {ladder.levels}, got "
                f"{self.brackets}; lower it, or widen the fidelity"
            )
        return ASHASchedule(
            RunIndex.on(ladder, setup),
            self.eta,
            variant=self.kind,
            brackets=self.brackets,
            forecast=None if self.confidence is None else setup.forecast,
            confidence=self.confidence or 0.0,
        )


class ASHASchedule(PausingSchedule):
    """`Schedule` of `ASHA`."""

    def __init__(
        self,
        runs: RunIndex,
        eta: int,
        *,
        variant: ASHAVariant = ASHAVariant.PROMOTION,
        brackets: int = 1,
        forecast: Forecast | None = None,
        confidence: float = 0.0,
    ) -> None:
        super().__init__(runs)
        self._ladder = ladder = runs.ladder
        self._eta = eta
        self._stopping = variant is ASHAVariant.STOPPING
        self._forecast, self._confidence = forecast, confidence
        self._rungs = [[Rung() for _ in ladder.levels] for _ in range(brackets)]
        self._started = [0] * brackets
        self._sizes = [ladder.hyperband_size(bracket, eta) for bracket in range(brackets)]

    @property
    def ceiling(self) -> int:
        """Index of the highest rung that is open."""
        return self._ladder.top

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        """See `Schedule`."""
        self._sync(log)
        if not self._stopping:
            action = self._promotion_by_rank(locked) or self._promotion_by_forecast(log, locked)
            if action is not None:
                return action
        if not may_start:
            return None
        bracket = self._next_bracket()
        level = self._ladder.levels[self._ladder.top if self._stopping else bracket]
        return Start(RungAssignment(level, bracket))

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        """See `Schedule`."""
        if not self._stopping:
            return super().on_report(trial, report, log)
        self._sync(log)
        run = self._runs.get(trial.number)
        if run is None or self._passes(run, report, log):
            return Decision.CONTINUE
        return Decision.STOP

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        """Return the best ceil(n_j / eta) + `MARGIN` of each rung, those that are paused there."""
        self._sync(log)
        numbers: set[int] = set()
        for bracket in self._rungs:
            for index, rung in enumerate(bracket):
                best = rung.best(-(-len(rung) // self._eta) + MARGIN)
                runs = [self._runs[first_trial] for _, first_trial in best]
                numbers |= {run.number for run in runs if self._is_paused_at(run, index)}
        return frozenset(numbers)

    def _sync(self, log: TrialLog) -> None:
        for change in self._runs.changes(log):
            bracket = change.run.assignment.bracket
            match change:
                case Started():
                    self._started[bracket] += 1
                case Arrival(run, rung, loss):
                    self._rungs[bracket][rung].add(loss, run.first_trial)
                    self._on_arrival(change)

    def _on_arrival(self, arrival: Arrival) -> None:
        """For subclasses: react to an arrival, which is in its rung already."""

    def _next_bracket(self) -> int:
        """Return the bracket that is furthest behind its share, the lowest of equals."""
        shares = [Fraction(n, size) for n, size in zip(self._started, self._sizes, strict=True)]
        return shares.index(min(shares))

    def _is_paused_at(self, run: Run, rung: int) -> bool:
        return run.paused and run.assignment.level == self._ladder.levels[rung]

    def _promotion_by_rank(self, locked: frozenset[int]) -> Promote | None:
        """Promote the best promotable run of the highest rung that has one."""
        for index in reversed(range(self.ceiling)):
            for bracket in self._rungs:
                run = self._promotable(bracket[index], index, locked)
                if run is not None:
                    return Promote(run.number, self._ladder.levels[index + 1])
        return None

    def _promotable(self, rung: Rung, index: int, locked: frozenset[int]) -> Run | None:
        """Return the best run that is paused in the rung, if it is in the top set.

        Each run is removed from `rung.at_rung` once, so that a promotion costs O(log n)
        comparisons.
        """
        level, quota = self._ladder.levels[index], self._ladder.promotion_quota(len(rung), index)
        position = 0
        while position < len(rung.at_rung):
            loss, first_trial = rung.at_rung[position]
            run = self._runs[first_trial]
            if run.assignment.level > level or not run.alive:
                del rung.at_rung[position]
            elif rung.rank(loss, first_trial) >= quota:
                return None
            elif self._is_paused_at(run, index) and run.number not in locked:
                return run
            else:
                position += 1  # it still runs, or is locked
        return None

    def _promotion_by_forecast(self, log: TrialLog, locked: frozenset[int]) -> Promote | None:
        """Promote the paused run of highest value, if it is likely enough to be the best."""
        ranked = self._by_value(log, locked)
        if not ranked or not ranked[0][1] >= self._confidence:
            return None
        run = ranked[0][0]
        rung = self._ladder.rung(run.assignment.level)
        return Promote(run.number, self._ladder.levels[rung + 1])

    def _by_value(self, log: TrialLog, locked: frozenset[int]) -> list[tuple[Run, float]]:
        """Return the runs paused below the ceiling, highest value first, with their probability."""
        below = self._ladder.levels[self.ceiling]
        paused = [
            run
            for run in self._runs
            if run.paused and run.assignment.level < below and run.number not in locked
        ]
        if self._forecast is None or not paused:
            return []
        numbers = [run.number for run in paused]
        probability = self._forecast.probability_of_best(log, numbers).tolist()
        value = self._value(probability, paused, log)
        order = sorted(range(len(paused)), key=lambda i: -value[i])  # the older of equals first
        return [(paused[i], probability[i]) for i in order]

    def _value(self, probability: list[float], runs: list[Run], log: TrialLog) -> list[float]:
        """Return the value of promoting each of the paused `runs`, by which they are ranked."""
        return probability

    def _passes(self, run: Run, report: Report, log: TrialLog) -> bool:
        """Return whether a run continues after `report`; it is judged once, on reaching a rung."""
        index = self._ladder.rung(report.step)
        if run.failed:
            return False
        if index < 0 or index >= self._ladder.top:
            return True
        level = self._ladder.levels[index]
        before = log.step_before(run.number, report.step)
        if level not in run.losses or (before is not None and before >= level):
            return True
        rung = self._rungs[run.assignment.bracket][index]
        passing = -(-len(rung) * level // self._ladder.levels[index + 1])
        return rung.rank(run.losses[level], run.first_trial) < passing
