"""Train every config one level, finish the best.

Egele, Guyon, Sun and Balaprakash ("Is one epoch all you need for multi-fidelity hyperparameter
optimization?", 2023). A strong and simple rival of every halving scheme wherever the first level
already ranks configs about right.
"""

from __future__ import annotations

from dataclasses import dataclass

from hpo.observations import Place, Report, Trial, TrialLog
from hpo.schedulers.base import Action, Decision, Promote, Scheduler, Setup, Start
from hpo.schedulers.ladder import Ladder, check_count
from hpo.schedulers.run_history import Arrival, Run, Rung, Runs, at_level

MARGIN = 2  # checkpoints kept beyond those that will be finished


@dataclass(frozen=True, slots=True)
class OneEpoch(Scheduler):
    """After every `screen` configs at the lowest level, the best `keep` not finished yet go to R.

    Args:
        keep: how many are finished each time.
        screen: None for `keep` R / r_min, which spends as much on the screening as on the rest.
    """

    keep: int = 1
    screen: int | None = None

    def __post_init__(self) -> None:
        check_count("keep", self.keep)
        if self.screen is not None:
            check_count("screen", self.screen)

    def schedule(self, setup: Setup) -> Screening:
        """See `Scheduler`."""
        whole = Ladder.over(setup.space, 2, "OneEpoch")
        # eta = R / r_min rounded up leaves no rung between the two
        ladder = Ladder(whole.low, whole.high, max(2, -(-whole.high // whole.low)))
        screen = self.screen or max(1, self.keep * whole.high // whole.low)
        return Screening(Runs.on(ladder, setup), keep=self.keep, screen=screen)


class Screening:
    """OneEpoch at work; see `Schedule`."""

    def __init__(self, runs: Runs, *, keep: int, screen: int) -> None:
        self._runs = runs
        self._keep, self._screen = keep, screen
        self._first = Rung()

    def next(
        self, log: TrialLog, *, may_start: bool = True, held: frozenset[int] = frozenset()
    ) -> Action | None:
        self._sync(log)
        ladder = self._runs.ladder
        rounds = len(self._first) // self._screen
        if not may_start:
            rounds = -(-len(self._first) // self._screen)
        if self._taken() < self._keep * rounds and ladder.top > 0:
            for _, root in self._first.best(len(self._first)):
                run = self._runs[root]
                if self._rests(run) and run.number not in held:
                    return Promote(run.number, ladder.high)
        return Start(Place(ladder.low)) if may_start else None

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        self._sync(log)
        run = self._runs.get(trial.number)
        return Decision.CONTINUE if run is None else at_level(run, report)

    def kept(self, log: TrialLog) -> frozenset[int]:
        """The best `keep` + `MARGIN` runs that rest at the lowest level."""
        self._sync(log)
        ranked = [self._runs[root] for _, root in self._first.best(len(self._first))]
        resting = [run.number for run in ranked if self._rests(run)]
        return frozenset(resting[: self._keep + MARGIN])

    def _rests(self, run: Run) -> bool:
        return run.resting and run.place.level < self._runs.ladder.high

    def _taken(self) -> int:
        """Runs sent to the top so far, whatever came of them."""
        return sum(run.place.level > self._runs.ladder.low for run in self._runs)

    def _sync(self, log: TrialLog) -> None:
        for news in self._runs.sync(log):
            if isinstance(news, Arrival) and news.rung == 0:
                self._first.add(news.loss, news.run.root)
