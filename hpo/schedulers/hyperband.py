"""Synchronous successive halving, Hyperband, and iterative deepening of either.

A bracket is a set of configs that start at one rung; the best of a full rung are promoted to the
next. While one bracket waits for its slowest run, free workers begin the next one.

Notation
--------
K          index of the highest open rung, R = r_K
n_b        starters of the bracket that begins at rung b (Li et al., JMLR 18, 2018, algorithm 1)
N_i        slots in the i-th rung of a bracket: floor(n_b r_b / r_(b+i)), at least 1
members    of a rung: the runs that compete in it, all starters at first
cohort     one set of brackets; when all of its configs have started, the next cohort begins

When K grows (Brandt et al., "Iterative deepening Hyperband", 2023), every bracket keeps its first
rung and its runs, gets more slots and one rung more, and a new bracket begins at the new R. Nothing
is stored for that but each trial's assignment: the members follow from the results.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum

from hpo.errors import SpaceError
from hpo.schedulers.base import Action, Promote, Scheduler, Setup, Start
from hpo.schedulers.ladder import ETA, Ladder
from hpo.schedulers.run_history import PausingSchedule, Run, RunIndex, Started
from hpo.space.arguments import Count, Kind, store
from hpo.space.scalars import shown
from hpo.trials import RungAssignment, TrialLog

MARGIN = 2  # checkpoints kept in each rung beyond the share that is promoted
_AUTO = "auto"


class Variant(Enum):
    """Which runs are promoted when a rung has grown after some of its runs were promoted."""

    EFFICIENT = "efficient"  # the promoted ones stay, the best others fill the slots left
    PRESERVING = "preserving"  # the promoted ones stay, and the best of all are added
    DISCARDING = "discarding"  # the best of all, as a new Hyperband would choose


@dataclass(frozen=True, slots=True)
class SuccessiveHalving(Scheduler):
    """Rung after rung, the best 1 / eta of `configs` are promoted; then the same with new configs.

    Args:
        eta: reduction factor: one in `eta` runs of a rung is promoted.
        configs: number of configs that start together; None for as many as leave one at full
            fidelity.

    Raises:
        SpaceError: for settings that break these rules.

    Example:
        >>> from hpo import Fidelity, Float, Optimizer, StagedOptimizer, SuccessiveHalving
        >>> space = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 4)}
        >>> engine = StagedOptimizer(Optimizer(space), SuccessiveHalving(eta=2))
        >>> levels = []
        >>> for loss in (0.7, 0.4, 0.9, 0.5, 0.3, 0.4, 0.2):
        ...     trial = engine.ask()
        ...     levels.append(trial.assignment.level)
        ...     _ = engine.tell(trial, loss)
        >>> levels
        [1, 1, 1, 1, 2, 2, 4]
    """

    eta: int = 3
    configs: int | None = None

    def __post_init__(self) -> None:
        configs = Count(1, optional=True, way_out="give the configs of one bracket")
        store(self, SpaceError, eta=ETA, configs=configs)

    def schedule(self, setup: Setup) -> HyperbandSchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity.

        Example:
            While both configs of a cohort still run, a free worker begins the next cohort:

            >>> from hpo import Fidelity, Float, SearchSpace, Trial
            >>> from hpo.space import Direction
            >>> from hpo.trials import TrialLog
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 9)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> schedule, log = SuccessiveHalving(configs=2).schedule(setup), TrialLog()
            >>> for number in range(2):
            ...     rung = schedule.next(log).assignment
            ...     log.add(Trial(number, {"lr": 0.01, "epochs": 9}, number, None, assignment=rung))
            >>> schedule.next(log)
            Start(assignment=RungAssignment(level=1, bracket=0, cohort=1))
        """
        ladder = Ladder.over(setup.space, self.eta, "SuccessiveHalving")
        configs = self.configs or self.eta**ladder.top
        return HyperbandSchedule(
            RunIndex.on(ladder, setup),
            self.eta,
            brackets=lambda ladder: [configs],
            variant=Variant.EFFICIENT,
            first=ladder.top,
            repeats=True,
        )


@dataclass(frozen=True, slots=True)
class Hyperband(Scheduler):
    """Successive halving from every rung in turn, from many short runs to few long ones; repeated.

    Args:
        eta: reduction factor: one in `eta` runs of a rung is promoted.

    Raises:
        SpaceError: unless `eta` is an integer of at least 2.

    Example:
        The first bracket starts 9 configs at level 1, the next 5 at level 3, the last 3 at level 9:

        >>> from hpo import Fidelity, Float, Hyperband, SearchSpace, Trial
        >>> from hpo.trials import TrialLog
        >>> space = SearchSpace({"lr": Float(0.0, 1.0), "epochs": Fidelity(1, 9)})
        >>> schedule, log, levels = Hyperband(eta=3).begin(space), TrialLog(), []
        >>> for number in range(17):
        ...     rung = schedule.next(log).assignment
        ...     log.add(Trial(number, {"lr": 0.5, "epochs": 9}, number, None, None, rung))
        ...     levels.append(rung.level)
        >>> [levels.count(level) for level in (1, 3, 9)]
        [9, 5, 3]
    """

    eta: int = 3

    def __post_init__(self) -> None:
        store(self, SpaceError, eta=ETA)

    def schedule(self, setup: Setup) -> HyperbandSchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity.

        Example:
            >>> from hpo import Fidelity, Float, SearchSpace
            >>> from hpo.space import Direction
            >>> from hpo.trials import TrialLog
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 27)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> Hyperband(eta=3).schedule(setup).next(TrialLog())
            Start(assignment=RungAssignment(level=1, bracket=0, cohort=0))
        """
        ladder = Ladder.over(setup.space, self.eta, "Hyperband")
        return HyperbandSchedule(
            RunIndex.on(ladder, setup),
            self.eta,
            brackets=_hyperband_brackets(self.eta),
            variant=Variant.EFFICIENT,
            first=ladder.top,
            repeats=True,
        )


@dataclass(frozen=True, slots=True)
class IterativeDeepening(Scheduler):
    """One Hyperband whose highest level can be raised later, and that reuses all runs.

    It ends when every bracket is done, whatever is left of the budget. Continuing with a larger
    fidelity (`result.extend(max_fidelity=243)`, or the same study name with a wider `Fidelity`)
    runs what is missing and nothing else.

    Args:
        eta: reduction factor: one in `eta` runs of a rung is promoted.
        variant: rule for promotions from a rung that has grown.
        max_fidelity: None to open all levels of the fidelity at once. "auto" opens two and then,
            each time all brackets are done, one more, until the budget or the fidelity ends.

    Raises:
        SpaceError: for settings that break these rules.

    Example:
        >>> from hpo import Fidelity, Float, IterativeDeepening, SearchSpace
        >>> space = SearchSpace({"lr": Float(0.0, 1.0), "epochs": Fidelity(1, 81)})
        >>> IterativeDeepening(max_fidelity="auto").begin(space).ceiling  # levels 1 and 3 are open
        1
        >>> IterativeDeepening().begin(space).ceiling  # all five levels up to 81
        4
    """

    ends_by_itself = True

    eta: int = 3
    variant: Variant = Variant.EFFICIENT
    max_fidelity: str | None = None

    def __post_init__(self) -> None:
        variant = Kind(Variant, way_out="write Variant.EFFICIENT or another member")
        store(self, SpaceError, eta=ETA, variant=variant)
        given: object = self.max_fidelity
        if given is not None and not (isinstance(given, str) and given == _AUTO):
            raise SpaceError(
                f'`max_fidelity` must be None or "auto", got {shown(given)}; the largest '
                "level is the fidelity's own: Fidelity(1, 243)"
            )

    def schedule(self, setup: Setup) -> HyperbandSchedule:
        """Return a schedule for one log; `begin` calls this.

        Args:
            setup: space, direction and seed of the study, and a forecast if there is one.

        Raises:
            SpaceError: for a space without a fidelity, or unless R is r_min times a power of eta:
                any other level would no longer be a rung once R grows.

        Example:
            >>> from hpo import Fidelity, Float, SearchSpace
            >>> from hpo.space import Direction
            >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 80)})
            >>> setup = Setup(space, Direction.MINIMIZE, seed=0, forecast=None)
            >>> IterativeDeepening(eta=3).schedule(setup)  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            ...
            hpo.errors.SpaceError: the largest fidelity must be ..., got 80; make it 27 or 81
        """
        ladder = Ladder.over(setup.space, self.eta, "IterativeDeepening")
        if not ladder.ends_on_grid(self.eta):
            lower, upper = ladder.levels[-2], ladder.levels[-2] * self.eta
            raise SpaceError(
                f"the largest fidelity must be {ladder.low} times a power of eta={self.eta}, got "
                f"{ladder.high}; make it {lower} or {upper}"
            )
        return HyperbandSchedule(
            RunIndex.on(ladder, setup),
            self.eta,
            brackets=_hyperband_brackets(self.eta),
            variant=self.variant,
            first=min(1, ladder.top) if self.max_fidelity == _AUTO else ladder.top,
            repeats=False,
        )


def _hyperband_brackets(eta: int) -> Callable[[Ladder], list[int]]:
    """Return the function from a ladder to the starters of each bracket, the lowest rung first."""
    return lambda ladder: [ladder.hyperband_size(b, eta) for b in range(len(ladder))]


class Bracket:
    """Runs that started at one rung, and the state of their competition.

    Args:
        ladder: levels that are open.
        rung: index of the rung at which they start.
        starters: runs in the order of their start.
        variant: rule for promotions from a rung that has grown.
        slots: runs in each rung from `rung` up.

    Attributes:
        rung: index of the current rung.
        members: runs that compete in the current rung.
        ranked: members of each full rung, best first.
        waiting: first trials of the members that have not reached the current rung.
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
        self.ranked: list[list[Run]] = []
        self.waiting: set[int] = set()
        self._enter(rung)

    @property
    def done(self) -> bool:
        """Whether the highest rung is full."""
        return self.rung == self._ladder.top and not self.waiting

    def update(self, run: Run) -> None:
        """Take into account that `run` reached a rung, or its end."""
        level = self._ladder.levels[self.rung]
        if level in run.losses or not run.alive:
            self.waiting.discard(run.first_trial)
        while not self.waiting and len(self.ranked) <= self.rung - self._first:
            self.ranked.append(self._order())
            if self.rung == self._ladder.top:
                return
            self.members = self._chosen(self.ranked[-1])
            self._enter(self.rung + 1)

    def promotable(self) -> Iterator[Run]:
        """Yield the members paused below the current rung, in the order of the rung below."""
        level = self._ladder.levels[self.rung]
        for run in self.members:
            if run.first_trial in self.waiting and run.paused and run.assignment.level < level:
                yield run

    def _enter(self, rung: int) -> None:
        self.rung = rung
        level = self._ladder.levels[rung]
        self.waiting = {
            run.first_trial for run in self.members if level not in run.losses and run.alive
        }

    def _order(self) -> list[Run]:
        """Return the members of the full rung by loss, without those that did not reach it.

        What became of them later does not matter, so that the order never changes.
        """
        level = self._ladder.levels[self.rung]
        reached = [run for run in self.members if level in run.losses]
        return sorted(reached, key=lambda run: (run.losses[level], run.first_trial))

    def _chosen(self, ranked: list[Run]) -> list[Run]:
        """Return the members of the next rung, best first."""
        level = self._ladder.levels[self.rung]
        slots = self._slots[len(self.ranked)]
        if self._variant is Variant.DISCARDING:
            return ranked[:slots]
        promoted = [run for run in ranked if run.assignment.level > level]
        if self._variant is Variant.PRESERVING:
            best = {run.first_trial for run in [*promoted, *ranked[:slots]]}
        else:
            others = [run for run in ranked if run.assignment.level <= level]
            free = max(0, slots - len(promoted))
            best = {run.first_trial for run in [*promoted, *others[:free]]}
        return [run for run in ranked if run.first_trial in best]


class HyperbandSchedule(PausingSchedule):
    """`Schedule` of `SuccessiveHalving`, `Hyperband` and `IterativeDeepening`.

    Args:
        runs: index of the runs.
        eta: reduction factor.
        brackets: function from a ladder to the starters of each bracket.
        variant: rule for promotions from a rung that has grown.
        first: K to begin with.
        repeats: whether new cohorts of brackets follow.
    """

    def __init__(
        self,
        runs: RunIndex,
        eta: int,
        *,
        brackets: Callable[[Ladder], list[int]],
        variant: Variant,
        first: int,
        repeats: bool,
    ) -> None:
        super().__init__(runs)
        self._eta = eta
        self._brackets_of = brackets
        self._variant = variant
        self._repeats = repeats
        self._open = self._first = first
        self._may_start = True
        # Both by (cohort, bracket).
        self._starters: dict[tuple[int, int], list[Run]] = {}
        self._brackets: dict[tuple[int, int], Bracket] = {}

    @property
    def ceiling(self) -> int:
        """Index of the highest rung that is open."""
        return self._open

    def next(
        self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
    ) -> Action | None:
        """See `Schedule`."""
        self._sync(log)
        if may_start != self._may_start:
            # Brackets close with the runs they have, or open again. A level that was opened, but
            # that no run has used yet, closes.
            self._may_start = may_start
            self._open = self._first
            self._brackets.clear()
            self._open_levels_in_use()
        while True:
            for cohort in range(self._cohorts + 1):
                action = self._next_in(cohort, locked)
                if action is not None:
                    return action
            if not self._deepen():
                return None

    def checkpoints_to_keep(self, log: TrialLog) -> frozenset[int]:
        """Return the best ceil(N / eta) + `MARGIN` of each rung of N slots, those paused there.

        So a run that is dropped is not promoted unless several better ones fail, or R grows by more
        than one step.
        """
        self._sync(log)
        ladder, numbers = self._ladder, set()
        for (cohort, index), starters in self._starters.items():
            planned = max(len(starters), self._brackets_of(ladder)[index])
            if self._repeats and len(starters) == planned:
                if self._bracket((cohort, index), starters, ladder).done:
                    continue  # none of its runs is promoted any more
            slots = ladder.sizes(index, planned)
            for level, size in zip(ladder.levels[index:], slots, strict=True):
                reached = [run for run in starters if level in run.losses]
                reached.sort(key=lambda run: (run.losses[level], run.first_trial))
                best = reached[: -(-size // self._eta) + MARGIN]
                numbers |= {
                    run.number for run in best if run.paused and run.assignment.level == level
                }
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
        any_changes = False
        for change in self._runs.changes(log):
            any_changes = True
            run = change.run
            key = run.assignment.cohort, run.assignment.bracket
            if isinstance(change, Started):
                self._starters.setdefault(key, []).append(run)
                self._brackets.pop(key, None)
            elif key in self._brackets:
                self._brackets[key].update(run)
        if any_changes:
            self._open_levels_in_use()

    def _open_levels_in_use(self) -> None:
        while self._open < self._runs.ladder.top and self._goes_beyond():
            self._reopen()

    def _goes_beyond(self) -> bool:
        """Return whether a run has an assignment beyond K, so that K had grown before."""
        sizes = self._brackets_of(self._ladder)
        return any(
            bracket >= len(sizes)
            or len(starters) > sizes[bracket]
            or any(run.assignment.level > self._ladder.high for run in starters)
            for (_, bracket), starters in self._starters.items()
        )

    def _next_in(self, cohort: int, locked: frozenset[int]) -> Action | None:
        ladder = self._ladder
        for index, size in enumerate(self._brackets_of(ladder)):
            key = cohort, index
            starters = self._starters.get(key, [])
            if len(starters) < size and self._may_start:
                return Start(RungAssignment(ladder.levels[index], index, cohort))
            if not starters:
                continue
            bracket = self._bracket(key, starters, ladder)
            for run in bracket.promotable():
                if run.number not in locked:
                    return Promote(run.number, ladder.levels[bracket.rung])
        return None

    def _bracket(self, key: tuple[int, int], starters: list[Run], ladder: Ladder) -> Bracket:
        if key not in self._brackets:
            slots = ladder.sizes(key[1], len(starters))
            bracket = Bracket(ladder, key[1], list(starters), self._variant, slots)
            self._brackets[key] = bracket
            for run in starters[:1]:
                bracket.update(run)  # all may have arrived already, when a log is read again
        return self._brackets[key]

    def _deepen(self) -> bool:
        """Open one more level if all brackets are done; return whether there was one."""
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
