"""Synchronous successive halving, Hyperband, and iterative deepening of either.

A bracket is a set of configs that start at one rung; the best of a full rung go on to the next.
While one bracket waits for its slowest run, free workers begin the next one.

Notation
--------
K          index of the highest open rung, R = r_K
n_b        starters of the bracket that begins at rung b (Li et al., JMLR 18, 2018, algorithm 1)
N_i        slots in the i-th rung of a bracket: floor(n_b r_b / r_(b+i)), at least 1
members    of a rung: the runs that compete in it, all starters at first

When K grows (Brandt et al., "Iterative deepening Hyperband", 2023), every bracket keeps its first
rung and its runs, gets more slots and one rung more, and a new bracket begins at the new R. Nothing
is stored for that but each trial's place: the members follow from the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from hpo.errors import SpaceError
from hpo.observations import Place, Report, Trial, TrialLog
from hpo.schedulers.base import Action, Decision, Promote, Scheduler, Setup, Start
from hpo.schedulers.ladder import Ladder, check_count, check_eta
from hpo.schedulers.run_history import Run, Runs, at_level

MARGIN = 2  # checkpoints kept in each rung beyond the share that goes on
_AUTO = "auto"


class Variant(Enum):
    """Who competes on when a rung has grown after some of its runs went on already."""

    EFFICIENT = "efficient"  # those that went on stay, the best others fill the slots left
    PRESERVING = "preserving"  # those that went on stay, and the best of all come along
    DISCARDING = "discarding"  # the best of all, whoever went on; as a fresh Hyperband would choose


@dataclass(frozen=True, slots=True)
class SuccessiveHalving(Scheduler):
    """Rung after rung, the best 1 / eta of `configs` go on; then the same with new configs.

    Args:
        eta: one in `eta` goes on.
        configs: started together; None for as many as leave one at full fidelity.
    """

    eta: int = 3
    configs: int | None = None

    def __post_init__(self) -> None:
        check_eta(self.eta)
        if self.configs is not None:
            check_count("configs", self.configs)

    def schedule(self, setup: Setup) -> SyncHalving:
        """See `Scheduler`."""
        ladder = Ladder.over(setup.space, self.eta, "SuccessiveHalving")
        configs = self.configs or self.eta**ladder.top
        return SyncHalving(
            Runs.on(ladder, setup),
            brackets=lambda grid: [configs],
            variant=Variant.EFFICIENT,
            first=ladder.top,
            repeats=True,
        )


@dataclass(frozen=True, slots=True)
class Hyperband(Scheduler):
    """Successive halving from every rung in turn, many short runs or few long ones; and again.

    Args:
        eta: one in `eta` goes on.
    """

    eta: int = 3

    def __post_init__(self) -> None:
        check_eta(self.eta)

    def schedule(self, setup: Setup) -> SyncHalving:
        """See `Scheduler`."""
        ladder = Ladder.over(setup.space, self.eta, "Hyperband")
        return SyncHalving(
            Runs.on(ladder, setup),
            brackets=_hyperband,
            variant=Variant.EFFICIENT,
            first=ladder.top,
            repeats=True,
        )


@dataclass(frozen=True, slots=True)
class IterativeDeepening(Scheduler):
    """One Hyperband whose highest level grows in hindsight, and reuses all that was run.

    Ends when every bracket is done, whatever is left of the budget. Going on with a larger fidelity
    (`result.extend(max_fidelity=243)`, or the same name with a wider `Fidelity`) runs what is
    missing and nothing else.

    Args:
        eta: one in `eta` goes on.
        variant: who goes on when a rung has grown.
        max_fidelity: None opens all levels of the fidelity at once. "auto" opens two and then, each
            time all brackets are done, one more, until the budget or the fidelity ends.
    """

    eta: int = 3
    variant: Variant = Variant.EFFICIENT
    max_fidelity: str | None = None

    def __post_init__(self) -> None:
        check_eta(self.eta)
        if not isinstance(self.variant, Variant):
            raise SpaceError(
                f"`variant` must be one of {[str(v) for v in Variant]}, got {self.variant!r}"
            )
        if self.max_fidelity not in (None, _AUTO):
            raise SpaceError(
                f'`max_fidelity` must be None or "auto", got {self.max_fidelity!r}; the largest '
                "level is the fidelity's own: Fidelity(1, 243)"
            )

    def schedule(self, setup: Setup) -> SyncHalving:
        """See `Scheduler`. Raises `SpaceError` unless R is on the grid, for a level that is not
        would be no rung any more once R grows.
        """
        ladder = Ladder.over(setup.space, self.eta, "IterativeDeepening")
        if not ladder.on_grid:
            lower, upper = ladder.levels[-2], ladder.levels[-2] * self.eta
            raise SpaceError(
                f"the largest fidelity must be {ladder.low} times a power of eta={self.eta}, got "
                f"{ladder.high}; make it {lower} or {upper}"
            )
        return SyncHalving(
            Runs.on(ladder, setup),
            brackets=_hyperband,
            variant=self.variant,
            first=min(1, ladder.top) if self.max_fidelity == _AUTO else ladder.top,
            repeats=False,
        )


def _hyperband(ladder: Ladder) -> list[int]:
    """Starters of each bracket, that of the lowest rung first."""
    return [ladder.hyperband_size(bracket) for bracket in range(len(ladder))]


class Bracket:
    """The runs that started at one rung, and how far their competition has come.

    `starters`: in the order of their start; `closed`: whether no more can come.
    """

    def __init__(
        self,
        ladder: Ladder,
        rung: int,
        starters: list[Run],
        variant: Variant,
        slots: tuple[int, ...],
    ) -> None:
        self._ladder = ladder
        self._variant = variant
        self._slots = slots
        self._first = rung
        self.members = starters
        self.ranked: list[list[Run]] = []  # members of full rungs, best first
        self.waiting: set[int] = set()
        self._enter(rung)

    @property
    def done(self) -> bool:
        """Whether the highest rung is full."""
        return self.rung == self._ladder.top and not self.waiting

    def arrived(self, run: Run) -> None:
        """`run` came to a rung, or to its end."""
        level = self._ladder.levels[self.rung]
        if level in run.losses or not run.alive:
            self.waiting.discard(run.root)
        while not self.waiting and len(self.ranked) <= self.rung - self._first:
            self.ranked.append(self._order())
            if self.rung == self._ladder.top:
                return
            self.members = self._chosen(self.ranked[-1])
            self._enter(self.rung + 1)

    def owed(self) -> Iterator[Run]:
        """Members that rest below the current rung, best of the rung below first."""
        level = self._ladder.levels[self.rung]
        for run in self.members:
            if run.root in self.waiting and run.resting and run.place.level < level:
                yield run

    def _enter(self, rung: int) -> None:
        self.rung = rung
        level = self._ladder.levels[rung]
        self.waiting = {run.root for run in self.members if level not in run.losses and run.alive}

    def _order(self) -> list[Run]:
        """Members of the full rung by loss, without those that did not come to it.

        What became of them later does not matter, so that the order stays what it was.
        """
        level = self._ladder.levels[self.rung]
        there = [run for run in self.members if level in run.losses]
        return sorted(there, key=lambda run: (run.losses[level], run.root))

    def _chosen(self, ranked: list[Run]) -> list[Run]:
        """Members of the next rung, best first."""
        level = self._ladder.levels[self.rung]
        slots = self._slots[len(self.ranked)]
        if self._variant is Variant.DISCARDING:
            return ranked[:slots]
        ahead = [run for run in ranked if run.place.level > level]
        if self._variant is Variant.PRESERVING:
            best = {run.root for run in ahead} | {run.root for run in ranked[:slots]}
        else:
            others = [run for run in ranked if run.place.level <= level]
            free = max(0, slots - len(ahead))
            best = {run.root for run in [*ahead, *others[:free]]}
        return [run for run in ranked if run.root in best]


class SyncHalving:
    """Brackets at work; see `Schedule`.

    `brackets`: starters of each bracket for a ladder. `first`: K to begin with. `repeats`: whether
    new cohorts of brackets follow.
    """

    def __init__(
        self,
        runs: Runs,
        *,
        brackets: Callable[[Ladder], list[int]],
        variant: Variant,
        first: int,
        repeats: bool,
    ) -> None:
        self._runs = runs
        self._brackets_of = brackets
        self._variant = variant
        self._repeats = repeats
        self._open = self._first = first
        self._may_start = True
        self._starters: dict[tuple[int, int], list[Run]] = {}
        self._brackets: dict[tuple[int, int], Bracket] = {}

    @property
    def ceiling(self) -> int:
        """Index of the highest rung that is open."""
        return self._open

    def next(
        self, log: TrialLog, *, may_start: bool = True, held: frozenset[int] = frozenset()
    ) -> Action | None:
        self._sync(log)
        if may_start != self._may_start:
            # Brackets close with what they have, or open again; nobody acted on a higher level yet.
            self._may_start = may_start
            self._open = self._first
            self._brackets.clear()
            self._open_what_is_in_use()
        while True:
            for cohort in range(self._cohorts + 1):
                action = self._act(cohort, held)
                if action is not None:
                    return action
            if not self._deepen():
                return None

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        self._sync(log)
        run = self._runs.get(trial.number)
        return Decision.CONTINUE if run is None else at_level(run, report)

    def kept(self, log: TrialLog) -> frozenset[int]:
        """The best ceil(N / eta) + `MARGIN` of each rung of N slots, as far as they rest.

        So a run that is dropped is not promoted unless several better ones fail, or R grows by more
        than one step.
        """
        self._sync(log)
        ladder, numbers = self._ladder, set()
        for (cohort, index), starters in self._starters.items():
            planned = max(len(starters), self._brackets_of(ladder)[index])
            if self._repeats and len(starters) == planned:
                if self._bracket((cohort, index), starters, ladder).done:
                    continue  # nothing of it is promoted any more
            slots = ladder.sizes(index, planned)
            for level, size in zip(ladder.levels[index:], slots, strict=True):
                there = [run for run in starters if level in run.losses]
                there.sort(key=lambda run: (run.losses[level], run.root))
                best = there[: -(-size // ladder.eta) + MARGIN]
                numbers |= {r.number for r in best if r.resting and r.place.level == level}
        return frozenset(numbers)

    @property
    def _ladder(self) -> Ladder:
        return self._runs.ladder.up_to(self._open)

    @property
    def _cohorts(self) -> int:
        """Index of the newest cohort that may be worked on."""
        newest = max((cohort for cohort, _ in self._starters), default=0)
        return newest + 1 if self._repeats and self._may_start else newest

    def _sync(self, log: TrialLog) -> None:
        any_news = False
        for news in self._runs.sync(log):
            any_news = True
            run = news if isinstance(news, Run) else news.run
            key = run.place.cohort, run.place.bracket
            if isinstance(news, Run):
                self._starters.setdefault(key, []).append(run)
                self._brackets.pop(key, None)
            elif key in self._brackets:
                self._brackets[key].arrived(run)
        if any_news:
            self._open_what_is_in_use()

    def _open_what_is_in_use(self) -> None:
        while self._open < self._runs.ladder.top and self._goes_beyond():
            self._reopen()

    def _goes_beyond(self) -> bool:
        """Whether a run was given a place that K does not allow, so that K had grown before."""
        sizes = self._brackets_of(self._ladder)
        return any(
            bracket >= len(sizes)
            or len(starters) > sizes[bracket]
            or any(run.place.level > self._ladder.high for run in starters)
            for (_, bracket), starters in self._starters.items()
        )

    def _act(self, cohort: int, held: frozenset[int]) -> Action | None:
        ladder = self._ladder
        for index, size in enumerate(self._brackets_of(ladder)):
            key = cohort, index
            starters = self._starters.get(key, [])
            if len(starters) < size and self._may_start:
                return Start(Place(ladder.levels[index], index, cohort))
            if not starters:
                continue
            bracket = self._bracket(key, starters, ladder)
            for run in bracket.owed():
                if run.number not in held:
                    return Promote(run.number, ladder.levels[bracket.rung])
        return None

    def _bracket(self, key: tuple[int, int], starters: list[Run], ladder: Ladder) -> Bracket:
        if key not in self._brackets:
            slots = ladder.sizes(key[1], len(starters))
            bracket = Bracket(ladder, key[1], list(starters), self._variant, slots)
            self._brackets[key] = bracket
            for run in starters[:1]:
                bracket.arrived(run)  # all may have come already, when a log is read back
        return self._brackets[key]

    def _deepen(self) -> bool:
        """Open one more level if all is done; whether there was one."""
        if self._open >= self._runs.ladder.top or not self._may_start or not self._all_done():
            return False
        self._reopen()
        return True

    def _reopen(self) -> None:
        self._open += 1
        self._brackets.clear()

    def _all_done(self) -> bool:
        sizes = self._brackets_of(self._ladder)
        return all(
            (bracket := self._brackets.get((0, index))) is not None and bracket.done
            for index in range(len(sizes))
        )
