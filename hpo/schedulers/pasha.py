"""Progressive ASHA (Bohdal et al., ICLR 2023)."""

from __future__ import annotations

from bisect import insort
from dataclasses import dataclass

from hpo.errors import SpaceError
from hpo.schedulers.asha import ASHASchedule
from hpo.schedulers.base import Scheduler, Setup
from hpo.schedulers.ladder import ETA, Ladder
from hpo.schedulers.run_history import Arrival, Run, RunIndex
from hpo.space.arguments import store

_NOISE_QUANTILE = (9, 10)  # of the differences between curves that cross repeatedly, epsilon


@dataclass(frozen=True, slots=True)
class PASHA(Scheduler):
    """Progressive ASHA: higher levels open only while they still change the ranking.

    Promotion stops at a ceiling, at first the second rung. It rises by one rung whenever the runs
    of the two highest open rungs are not ranked alike, up to noise: the run at each position of the
    upper rung must lie within epsilon of the run at that position in the lower one. Epsilon is the
    90 % quantile of the differences between runs whose curves cross at least twice, since an order
    that changes repeatedly is noise.

    Only neighbors in a rung's ranking are checked for crossings, two pairs an arrival, so that n
    arrivals cost O(n log n) and not every pair of curves. A ceiling never comes down.

    Args:
        eta: reduction factor: one in `eta` runs of a rung is promoted.

    Raises:
        SpaceError: unless `eta` is an integer of at least 2.

    Example:
        >>> from hpo import PASHA, Fidelity, Float, SearchSpace
        >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 81)})
        >>> schedule = PASHA(eta=3).begin(space)
        >>> schedule.ceiling  # index of the highest open rung: level 3
        1
    """

    eta: int = 3

    def __post_init__(self) -> None:
        store(self, SpaceError, eta=ETA)

    def schedule(self, setup: Setup) -> PASHASchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity.

        Example:
            >>> from hpo import Fidelity, Float, SearchSpace
            >>> from hpo.space import Direction
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 81)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> PASHA(eta=3).schedule(setup).ceiling  # levels 1 and 3 are open at first
            1
        """
        ladder = Ladder.over(setup.space, self.eta, "PASHA")
        return PASHASchedule(RunIndex.on(ladder, setup), self.eta)


class PASHASchedule(ASHASchedule):
    """`Schedule` of `PASHA`."""

    def __init__(self, runs: RunIndex, eta: int) -> None:
        super().__init__(runs, eta)
        self._ceiling = min(1, self._ladder.top)
        # Losses in the rung below the ceiling, of the runs that reached the ceiling, best first.
        self._below: list[tuple[float, int]] = []
        self._crossings: list[float] = []  # ascending differences of curves that cross repeatedly

    @property
    def ceiling(self) -> int:
        """Index of the highest rung that is open."""
        return self._ceiling

    @property
    def noise(self) -> float:
        """Epsilon: losses closer than this count as ranked alike."""
        if not self._crossings:
            return 0.0
        share, whole = _NOISE_QUANTILE
        return self._crossings[-(-len(self._crossings) * share // whole) - 1]

    def _on_arrival(self, arrival: Arrival) -> None:
        if arrival.loss is None:
            return
        rung = self._rungs[0][arrival.rung]
        rank = rung.rank(arrival.loss, arrival.run.first_trial)
        for _, neighbor in rung.best(rank + 2)[max(rank - 1, 0) :]:
            if neighbor != arrival.run.first_trial:
                self._compare(arrival.run, self._runs[neighbor])
        if arrival.rung > self._ceiling:  # promoted there under an earlier ceiling
            self._raise_to(arrival.rung)
        elif arrival.rung == self._ceiling and 0 < self._ceiling < self._ladder.top:
            if not self._agrees(arrival.run, rank):
                self._raise_to(self._ceiling + 1)

    def _compare(self, a: Run, b: Run) -> None:
        """Learn the noise from two neighbors, if their curves cross at least twice."""
        differences = [a.curve[step] - b.curve[step] for step in a.curve if step in b.curve]
        signs = [d > 0 for d in differences if d != 0]
        crossings = sum(x != y for x, y in zip(signs, signs[1:], strict=False))
        if crossings >= 2:
            insort(self._crossings, abs(differences[-1]))

    def _agrees(self, run: Run, rank: int) -> bool:
        """Add `run` at `rank` of the ceiling; return whether it left the two rungs ranked alike.

        Only the positions between its ranks in the two rungs are compared anew.
        """
        level = self._ladder.levels[self._ceiling - 1]
        if level not in run.losses:  # it skipped the rung below: nothing to compare
            return True
        insort(self._below, (run.losses[level], run.first_trial))
        above = self._rungs[0][self._ceiling].best(len(self._below))
        below = self._below.index((run.losses[level], run.first_trial))
        noise = self.noise
        for i in range(min(rank, below), min(max(rank, below) + 1, len(self._below), len(above))):
            loss = self._runs[above[i][1]].losses.get(level, self._below[i][0])
            if abs(loss - self._below[i][0]) > noise:
                return False
        return True

    def _raise_to(self, rung: int) -> None:
        self._ceiling = rung
        level = self._ladder.levels[rung - 1]
        reached = self._rungs[0][rung]
        numbers = [first_trial for _, first_trial in reached.best(len(reached))]
        below = [(self._runs[number].losses.get(level), number) for number in numbers]
        self._below = sorted((loss, number) for loss, number in below if loss is not None)
