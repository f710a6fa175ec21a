"""Schedules against brute force: what they decide, in any order of events, and after a restart."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpo import Cause, Fidelity, Float, Observation, Report, SearchSpace, SpaceError, Status, Trial
from hpo.observations import Place, TrialLog
from hpo.schedulers import (
    ASHA,
    PASHA,
    PBT,
    Clone,
    Decision,
    Hyperband,
    IterativeDeepening,
    Kind,
    Ladder,
    MedianStopping,
    OneEpoch,
    Promote,
    Schedule,
    Scheduler,
    Start,
    SuccessiveHalving,
    Variant,
    ancestry,
)
from hpo.schedulers.run_history import Arrival, Runs

# --- a driver without processes and storage, under a virtual clock ------------------------------

Curve = Callable[[float, int], float]  # config x, level -> loss; NaN diverges


def space(low: int = 1, high: int = 81) -> SearchSpace:
    return SearchSpace({"x": Float(0.0, 1.0), "epochs": Fidelity(low, high)})


@dataclass
class Arena:
    """One study: any number of workers, each stage as long as its increment of levels.

    `xs`: configs in the order of their start. `speed`: cost of a level by x.
    """

    schedule: Schedule
    curve: Curve
    xs: Iterator[float]
    high: int
    workers: int = 1
    speed: Callable[[float], float] = lambda x: 1.0
    every: int | None = None  # steps between reports; None reports nothing on the way
    log: TrialLog = field(default_factory=TrialLog)
    cost: float = 0.0
    time: float = 0.0
    stages: list[tuple[int, int, int]] = field(default_factory=list)  # number, from, to
    reached: dict[int, int] = field(default_factory=dict)
    best: list[tuple[float, float, float]] = field(default_factory=list)  # cost, time, loss at high
    _queue: list[tuple[float, int, Trial, int]] = field(default_factory=list)

    def run(
        self, *, configs: int | None = None, cost: float = math.inf, steps: int = 10**9
    ) -> Arena:
        """Until nothing is left to do, `cost` is spent or `steps` stages have ended."""
        for _ in range(steps):
            while len(self._queue) < self.workers and self.cost < cost:
                started = sum(t.parent is None for t in self.log.trials)
                may_start = configs is None or started < configs
                action = self.schedule.next(self.log, may_start=may_start)
                if action is None:
                    break
                self._launch(action)
            if not self._queue:
                return self
            self._finish()
        return self

    def _launch(self, action: Start | Promote | Clone) -> None:
        match action:
            case Start(place):
                trial = self._add(next(self.xs), place, None)
            case Promote(number, level):
                before = self.log.observation(number)
                assert before is not None
                if before.status is Status.PAUSED:
                    trial = self.log.resume(number, level)
                else:  # completed at a fidelity that has grown
                    old = self.log.trial(number)
                    assert old.place is not None
                    place = Place(level, old.place.bracket, old.place.cohort)
                    trial = self._add(old.config["x"], place, number)
                    self.reached[trial.number] = self.reached[number]
            case Clone(parent, place, replaces, _):
                replaced = self.log.observation(replaces)
                if replaced is not None and replaced.status is Status.PAUSED:
                    self._tell(self.log.trial(replaces), Status.STOPPED, replaced.loss)
                x = self.log.trial(parent).config["x"] * 0.9
                trial = self._add(x, place, parent)
                self.reached[trial.number] = self.reached[parent]
        assert trial.place is not None
        start = self.reached.get(trial.number, 0)
        end = self._train(trial, start)
        price = (end - start) * self.speed(trial.config["x"])
        self.cost += price
        self.stages.append((trial.number, start, end))
        heapq.heappush(self._queue, (self.time + price, len(self.stages), trial, end))

    def _add(self, x: float, place: Place | None, parent: int | None) -> Trial:
        number = self.log.next_number
        config = {"x": x, "epochs": self.high}
        trial = Trial(number, config, number, None, parent, place)
        self.log.add(trial)
        return trial

    def _train(self, trial: Trial, start: int) -> int:
        """Where the stage ends, before it is known how: at its level or where it diverges."""
        assert trial.place is not None
        for level in range(start + 1, trial.place.level + 1):
            if not math.isfinite(self.curve(trial.config["x"], level)):
                return level
        return trial.place.level

    def _finish(self) -> None:
        self.time, _, trial, end = heapq.heappop(self._queue)
        x = trial.config["x"]
        if self.every is not None:
            start = self.reached.get(trial.number, 0)
            for step in range(start + self.every - start % self.every, end + 1, self.every):
                report = Report(step, self.curve(x, step))
                self.log.report(trial.number, report)
                if self.schedule.on_report(trial, report, self.log) is Decision.STOP:
                    self.cost -= (end - step) * self.speed(x)
                    self.reached[trial.number] = step
                    self._tell(trial, Status.STOPPED, None)
                    return
        self.reached[trial.number] = end
        loss = self.curve(x, end)
        if not math.isfinite(loss):
            self._tell(trial, Status.FAILED, None, Cause.DIVERGED)
            return
        if end == self.high:
            self.best.append((self.cost, self.time, loss))
        self._tell(trial, Status.COMPLETED if end == self.high else Status.PAUSED, loss)

    def _tell(
        self, trial: Trial, status: Status, loss: float | None, cause: Cause | None = None
    ) -> None:
        self.log.tell(
            Observation(
                number=trial.number,
                config=trial.config,
                loss=loss,
                cost=float(self.reached.get(trial.number, 0)),
                status=status,
                cause=cause,
                order=self.log.next_order,
                ask_index=trial.ask_index,
                reports=self.log.reports(trial.number),
            )
        )

    def results(self) -> dict[tuple[int, int], set[tuple[int, ...]]]:
        """By (cohort, bracket): the (root number, level) pairs that were run."""
        found: dict[tuple[int, int], set[tuple[int, ...]]] = {}
        for number, _, end in self.stages:
            trial = self.log.trial(number)
            root = trial
            while root.parent is not None:
                root = self.log.trial(root.parent)
            assert trial.place is not None
            key = trial.place.cohort, trial.place.bracket
            found.setdefault(key, set()).add((root.number, end))
        return found


def replayed(log: TrialLog) -> TrialLog:
    """The same log, read back event by event."""
    copy = TrialLog()
    known: set[int] = set()
    for event in log.events():
        match event:
            case Trial() if event.number in known:
                assert event.place is not None
                copy.resume(event.number, event.place.level)
            case Trial():
                known.add(event.number)
                copy.add(event)
            case Observation():
                copy.tell(event)
            case _:
                copy.report(event.number, event.report)
    return copy


def draws(seed: int = 0) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    while True:
        yield float(rng.random())


def smooth(x: float, level: int) -> float:
    """Early losses mislead a little."""
    return (x - 0.3) ** 2 + 0.5 / math.sqrt(level) * (1.0 + 0.3 * math.sin(37.0 * x))


def table(losses: Sequence[Sequence[float]], ladder: Ladder) -> tuple[Curve, list[float]]:
    """A curve that takes row i of `losses` for the i-th config, one column a rung."""
    n = len(losses)
    xs = [(i + 1) / n for i in range(n)]

    def curve(x: float, level: int) -> float:
        if level not in ladder.levels:
            return 1.0
        return losses[round(x * n) - 1][ladder.levels.index(level)]

    return curve, xs


def paths(arena: Arena) -> dict[float, set[int]]:
    """By config, the levels to which stages of it ended."""
    found: dict[float, set[int]] = {}
    for number, _, end in arena.stages:
        found.setdefault(arena.log.trial(number).config["x"], set()).add(end)
    return found


LADDER = Ladder(1, 27, 3)
loss = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.25, 0.5, math.nan]))
rows = st.lists(loss, min_size=4, max_size=4)
finite_rows = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4)
ALL: list[Scheduler] = [
    SuccessiveHalving(configs=7),
    Hyperband(),
    IterativeDeepening(),
    IterativeDeepening(variant=Variant.DISCARDING, max_fidelity="auto"),
    IterativeDeepening(variant=Variant.PRESERVING, max_fidelity="auto"),
    ASHA(),
    ASHA(brackets=3),
    ASHA(kind=Kind.STOPPING),
    PASHA(),
    OneEpoch(keep=2, screen=7),
    PBT(population=4, interval=5),
    MedianStopping(),
]


# --- levels --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("low", "high", "eta", "rungs"),
    [(1, 243, 3, 6), (1, 1000, 10, 4), (1, 1, 3, 1), (2, 54, 3, 4), (1, 52, 3, 5), (1, 125, 5, 4)],
)
def test_no_rung_is_lost_to_a_logarithm(low: int, high: int, eta: int, rungs: int) -> None:
    assert len(Ladder(low, high, eta)) == rungs


@given(st.integers(1, 50), st.integers(1, 10**6), st.integers(2, 10))
def test_levels_hang_on_the_lowest_and_grow_by_eta(low: int, more: int, eta: int) -> None:
    ladder = Ladder(low, low + more, eta)
    assert ladder.levels[0] == low and ladder.levels[-1] == low + more
    assert all(a * eta == b for a, b in zip(ladder.levels, ladder.levels[1:-1], strict=False))
    grown = Ladder(low, (low + more) * eta, eta)
    assert grown.levels[: len(ladder) - 1] == ladder.levels[:-1]
    for rung, level in enumerate(ladder.levels):
        assert ladder.rung(level) == rung == ladder.rung(level + 1) - (level + 1 in ladder.levels)


def test_brackets_have_the_sizes_of_the_hyperband_paper() -> None:
    ladder = Ladder(1, 81, 3)
    sizes = [ladder.sizes(b, ladder.hyperband_size(b)) for b in range(5)]
    assert sizes == [(81, 27, 9, 3, 1), (34, 11, 3, 1), (15, 5, 1), (8, 2), (5,)]


@pytest.mark.parametrize(
    ("scheduler", "message"),
    [
        (lambda: ASHA(eta=1), "`eta` must be an int of at least 2"),
        (lambda: ASHA(brackets=0), "`brackets` must be an int of at least 1"),
        (lambda: ASHA(brackets=9).begin(space()), "must not exceed the 5 levels"),
        (lambda: ASHA().begin(SearchSpace({"x": Float(0, 1)})), "ASHA needs a fidelity"),
        (lambda: IterativeDeepening().begin(space(1, 80)), "make it 27 or 81"),
        (lambda: IterativeDeepening(max_fidelity="81"), "Fidelity\\(1, 243\\)"),
        (lambda: PBT(mutate=("y",)).begin(space()), "choose among \\['x'\\]"),
        (lambda: OneEpoch(keep=0), "`keep` must be"),
    ],
)
def test_settings_that_do_not_fit_are_refused(
    scheduler: Callable[[], object], message: str
) -> None:
    with pytest.raises(SpaceError, match=message):
        scheduler()


# --- what counts ---------------------------------------------------------------------------------


def test_each_level_counts_once_whatever_is_reported() -> None:
    runs, log = Runs(Ladder(1, 27, 3), 1.0, "epochs"), TrialLog()
    log.add(Trial(0, {"x": 0.5, "epochs": 27}, 0, None, None, Place(27)))

    def arrivals(step: int, loss: float | None) -> list[tuple[int, float | None]]:
        log.report(0, Report(step, loss))
        return [(a.rung, a.loss) for a in runs.sync(log) if isinstance(a, Arrival)]

    assert arrivals(1, 0.9) == [(0, 0.9)]
    assert arrivals(1, 0.1) == []  # again
    assert arrivals(2, 0.8) == []
    assert arrivals(4, None) == []  # came past a rung without saying how
    assert arrivals(10, 0.5) == [(2, 0.5)]  # skipped one
    assert arrivals(3, 0.2) == []  # late
    assert arrivals(12, math.nan) == [(3, None)]  # failed on the way to the next
    assert arrivals(27, 0.1) == []  # after its failure
    assert runs[0].losses == {1: 0.9, 9: 0.5}


def test_a_lost_attempt_and_its_retry_are_one_run() -> None:
    runs, log = Runs(Ladder(1, 9, 3), 1.0, "epochs"), TrialLog()
    config = {"x": 0.5, "epochs": 9}
    log.add(Trial(0, config, 0, None, None, Place(3)))
    log.report(0, Report(1, 0.9))
    log.tell(Observation(0, config, None, None, Status.FAILED, Cause.LOST, order=0, ask_index=0))
    log.add(Trial(1, config, 0, None, 0, Place(3)))
    log.report(1, Report(1, 0.7))  # trained again
    log.report(1, Report(3, 0.6))
    news = list(runs.sync(log))
    assert [(a.rung, a.loss) for a in news if isinstance(a, Arrival)] == [(0, 0.9), (1, 0.6)]
    assert len(list(runs)) == 1 and runs[1] is runs[0] and runs[0].number == 1


def test_a_clone_is_a_run_of_its_own_and_inherits_no_result() -> None:
    runs, log = Runs(Ladder(1, 9, 3), 1.0, "epochs"), TrialLog()
    log.add(Trial(0, {"x": 0.5, "epochs": 9}, 0, None, None, Place(3)))
    log.report(0, Report(3, 0.5))
    log.add(Trial(1, {"x": 0.4, "epochs": 9}, 1, None, 0, Place(9)))
    log.report(1, Report(3, 0.1))
    assert len(list(runs.sync(log))) == 3
    assert runs[1] is not runs[0] and runs[1].losses == {}


# --- the whole family ----------------------------------------------------------------------------


@pytest.mark.parametrize("scheduler", ALL, ids=lambda s: type(s).__name__)
@given(st.lists(rows, min_size=30, max_size=30), st.integers(1, 5), st.integers(0, 60))
@settings(max_examples=8, deadline=None)
def test_a_schedule_rebuilt_from_the_log_decides_alike(
    scheduler: Scheduler, losses: list[list[float]], workers: int, steps: int
) -> None:
    curve, xs = table(losses, LADDER)
    every = 1 if not isinstance(scheduler, PBT) else None
    arena = Arena(
        scheduler.begin(space(1, 27)), curve, iter(xs), 27, workers, speed=lambda x: 1.0 + x
    )
    arena.every = every
    arena.run(configs=29, steps=steps)
    for may_start in (True, False):
        rebuilt = scheduler.begin(space(1, 27))
        now = arena.schedule.next(arena.log, may_start=may_start)
        assert rebuilt.next(replayed(arena.log), may_start=may_start) == now
    assert scheduler.begin(space(1, 27)).kept(arena.log) == arena.schedule.kept(arena.log)


@pytest.mark.parametrize("scheduler", ALL, ids=lambda s: type(s).__name__)
@given(st.lists(rows, min_size=40, max_size=40), st.integers(1, 4))
@settings(max_examples=8, deadline=None)
def test_nothing_that_failed_ever_goes_on(
    scheduler: Scheduler, losses: list[list[float]], workers: int
) -> None:
    curve, xs = table(losses, LADDER)
    arena = Arena(scheduler.begin(space(1, 27)), curve, iter(xs), 27, workers)
    arena.run(configs=40)
    for number, start, _ in arena.stages:
        if start:
            assert math.isfinite(curve(arena.log.trial(number).config["x"], start))
    assert not arena.log.pending


def test_maximising_is_minimising_the_negative() -> None:
    down = Arena(ASHA().begin(space()), smooth, draws(), 81, 3).run(cost=500)
    up = Arena(
        ASHA().begin(space(), direction="maximize"), lambda x, r: -smooth(x, r), draws(), 81, 3
    ).run(cost=500)
    assert up.stages == down.stages


# --- synchronous halving -------------------------------------------------------------------------


def halved(losses: Sequence[Sequence[float]], ladder: Ladder, start: int) -> set[tuple[int, int]]:
    """(config, rung) pairs of successive halving from rung `start`, by its definition."""
    n = len(losses)
    pairs, members = set(), list(range(n))
    for rung in range(start, len(ladder)):
        pairs |= {(i, rung) for i in members}
        alive = [i for i in members if math.isfinite(losses[i][rung])]
        if rung + 1 < len(ladder):
            slots = max(1, n * ladder.levels[start] // ladder.levels[rung + 1])
            members = sorted(alive, key=lambda i: (losses[i][rung], i))[:slots]
    return pairs


@given(
    st.lists(rows, min_size=1, max_size=30),
    st.integers(1, 6),
    st.lists(st.floats(0.1, 10.0), min_size=31, max_size=31),
)
@settings(max_examples=25, deadline=None)
def test_successive_halving_is_its_definition_in_any_order_of_events(
    losses: list[list[float]], workers: int, speeds: list[float]
) -> None:
    curve, xs = table(losses, LADDER)
    schedule = SuccessiveHalving(configs=len(losses)).begin(space(1, 27))
    arena = Arena(schedule, curve, iter(xs), 27, workers)
    arena.speed = lambda x: speeds[round(x * len(losses))]
    arena.run(configs=len(losses))
    wanted: dict[float, set[int]] = {}
    for i, rung in halved(losses, LADDER, 0):
        wanted.setdefault(xs[i], set()).add(LADDER.levels[rung])
    assert paths(arena) == wanted


@given(st.lists(finite_rows, min_size=49, max_size=49), st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_hyperband_is_its_brackets(losses: list[list[float]], workers: int) -> None:
    curve, xs = table(losses, LADDER)
    arena = Arena(Hyperband().begin(space(1, 27)), curve, iter(xs), 27, workers)
    arena.run(configs=49)
    wanted: dict[float, set[int]] = {}
    first = 0
    for bracket, size in enumerate((27, 12, 6, 4)):
        for i, rung in halved(losses[first : first + size], LADDER, bracket):
            wanted.setdefault(xs[first + i], set()).add(LADDER.levels[rung])
        first += size
    assert first == 49 and paths(arena) == wanted


# --- iterative deepening -------------------------------------------------------------------------


def grown(variant: Variant, seed: int, first: int, last: int) -> tuple[Arena, float]:
    """A study grown from `first` to `last` in hindsight, and what the growth has cost."""
    scheduler = IterativeDeepening(variant=variant)
    arena = Arena(scheduler.begin(space(1, first)), smooth, draws(seed), first, 4).run()
    before = arena.cost
    arena.schedule, arena.high, arena.best = scheduler.begin(space(1, last)), last, []
    return arena.run(), arena.cost - before


@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("seed", range(3))
def test_growing_81_to_243_ends_like_a_fresh_hyperband_for_four_fifths_of_its_cost(
    variant: Variant, seed: int
) -> None:
    fresh = Arena(IterativeDeepening().begin(space(1, 243)), smooth, draws(seed), 243, 4).run()
    arena, cost = grown(variant, seed, 81, 243)
    assert fresh.cost == 6831
    assert cost <= 0.8 * fresh.cost
    best, best_fresh = (min(loss for _, _, loss in a.best) for a in (arena, fresh))
    assert best <= best_fresh + 1e-3


def test_efficient_growth_costs_the_difference_and_repeats_nothing() -> None:
    for first, last, extra in ((27, 81, 1224), (81, 243, 5250), (243, 729, 20289)):
        arena, cost = grown(Variant.EFFICIENT, 0, first, last)
        assert cost == extra
        pairs = [(arena.log.trial(n).config["x"], level) for n, _, level in arena.stages]
        assert len(pairs) == len(set(pairs))


@given(st.lists(finite_rows, min_size=60, max_size=60))
@settings(max_examples=10, deadline=None)
def test_discarding_runs_all_that_a_fresh_hyperband_would(losses: list[list[float]]) -> None:
    curve, xs = table(losses, LADDER)
    scheduler = IterativeDeepening(variant=Variant.DISCARDING)
    arena = Arena(scheduler.begin(space(1, 9)), curve, iter(xs), 9).run()
    arena.schedule, arena.high = scheduler.begin(space(1, 27)), 27
    arena.run()
    started = [t.config["x"] for t in arena.log.trials if t.parent is None]
    for bracket in range(4):
        xs_of = {
            t.config["x"]: t.place.bracket
            for t in arena.log.trials
            if t.parent is None and t.place is not None
        }
        members = [x for x in started if xs_of[x] == bracket]
        rows_of = [losses[round(x * 60) - 1] for x in members]
        for i, rung in halved(rows_of, LADDER, bracket):
            assert LADDER.levels[rung] in paths(arena)[members[i]]


def test_auto_opens_level_after_level_up_to_the_highest() -> None:
    scheduler = IterativeDeepening(max_fidelity="auto")
    arena = Arena(scheduler.begin(space(1, 27)), smooth, draws(), 27).run()
    firsts: dict[int, int] = {}
    for position, (_, _, end) in enumerate(arena.stages):
        firsts.setdefault(end, position)
    assert list(firsts) == [1, 3, 9, 27]
    assert arena.cost == 357 and arena.schedule.next(arena.log) is None


# --- asynchronous halving ------------------------------------------------------------------------


def asha_rule(
    came: dict[int, dict[int, float]], failed: dict[int, int], at: dict[int, int], ladder: Ladder
) -> tuple[int, int] | None:
    """(run, next level) to promote, by the definition; `at`: level where each run rests."""
    for rung in reversed(range(ladder.top)):
        level = ladder.levels[rung]
        there = sorted((losses[level], run) for run, losses in came.items() if level in losses)
        count = len(there) + sum(r == rung for r in failed.values())
        for _, run in there[: count * level // ladder.levels[rung + 1]]:
            if at.get(run) == level:
                return run, ladder.levels[rung + 1]
    return None


@given(st.lists(rows, min_size=40, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_asha_promotes_by_its_definition_for_any_arrivals(
    losses: list[list[float]], random: Any
) -> None:
    schedule, log = ASHA().begin(space(1, 27)), TrialLog()
    came: dict[int, dict[int, float]] = {}
    failed: dict[int, int] = {}
    at: dict[int, int] = {}
    going: list[Trial] = []
    for _ in range(80):
        if going and (len(going) > 5 or random.random() < 0.5):
            trial = going.pop(random.randrange(len(going)))
            assert trial.place is not None
            rung = LADDER.levels.index(trial.place.level)
            value = losses[trial.number][rung]
            came.setdefault(trial.number, {})
            if math.isfinite(value):
                came[trial.number][trial.place.level] = value
                at[trial.number] = trial.place.level
                tell(log, trial, value, Status.PAUSED if rung < 3 else Status.COMPLETED)
            else:
                failed[trial.number] = rung
                tell(log, trial, None, Status.FAILED)
            continue
        may_start = log.next_number < 40
        action = schedule.next(log, may_start=may_start)
        wanted = asha_rule(came, failed, at, LADDER)
        if wanted is not None:
            assert action == Promote(*wanted)
            going.append(log.resume(*wanted))
            del at[wanted[0]]
        elif may_start:
            assert action == Start(Place(1))
            going.append(Trial(log.next_number, {"x": 0.0, "epochs": 27}, 0, None, None, Place(1)))
            log.add(going[-1])
        else:
            assert action is None
            if not going:
                return


def tell(log: TrialLog, trial: Trial, loss: float | None, status: Status) -> None:
    cause = Cause.DIVERGED if status is Status.FAILED else None
    order = log.next_order
    log.tell(Observation(trial.number, trial.config, loss, 1.0, status, cause, order, 0))


@given(st.lists(rows, min_size=30, max_size=30), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_when_all_is_quiet_every_run_of_the_top_share_was_promoted(
    losses: list[list[float]], workers: int
) -> None:
    curve, xs = table(losses, LADDER)
    arena = Arena(ASHA().begin(space(1, 27)), curve, iter(xs), 27, workers).run(configs=30)
    reached = paths(arena)
    for rung, level in enumerate(LADDER.levels[:-1]):
        there = [x for x in reached if level in reached[x]]
        alive = sorted((curve(x, level), x) for x in there if math.isfinite(curve(x, level)))
        above = LADDER.levels[rung + 1]
        for _, x in alive[: len(there) // 3]:
            assert above in reached[x]


@given(st.lists(rows, min_size=30, max_size=30))
@settings(max_examples=15, deadline=None)
def test_the_stopping_kind_passes_the_best_third_so_far_rounded_up(
    losses: list[list[float]],
) -> None:
    schedule, log = ASHA(kind=Kind.STOPPING).begin(space(1, 27)), TrialLog()
    came: dict[int, list[float]] = {1: [], 3: [], 9: []}
    failures = {1: 0, 3: 0, 9: 0}
    for number, row in enumerate(losses):
        assert schedule.next(log) == Start(Place(27))
        trial = Trial(number, {"x": 0.0, "epochs": 27}, 0, None, None, Place(27))
        log.add(trial)
        for level, value in zip((1, 3, 9), row, strict=False):
            log.report(number, Report(level, value))
            decision = schedule.on_report(trial, Report(level, value), log)
            if not math.isfinite(value):
                failures[level] += 1
                assert decision is Decision.STOP
                break
            better = sum(other <= value for other in came[level])
            came[level].append(value)
            passes = better < -(-(len(came[level]) + failures[level]) // 3)
            assert decision is (Decision.CONTINUE if passes else Decision.STOP)
            if not passes:
                break
        tell(log, trial, None, Status.STOPPED)


def test_brackets_share_the_configs_as_a_hyperband_does() -> None:
    arena = Arena(ASHA(brackets=4).begin(space(1, 27)), smooth, draws(), 27).run(configs=98)
    counts = [0, 0, 0, 0]
    for trial in arena.log.trials:
        assert trial.place is not None
        counts[trial.place.bracket] += 1
    assert counts == [54, 24, 12, 8]


def test_a_promising_run_is_promoted_beside_the_rank_rule() -> None:
    class Oracle:
        def promise(self, log: TrialLog, numbers: Sequence[int]) -> NDArray[np.float64]:
            return np.array([log.trial(n).config["x"] for n in numbers])

    schedule = ASHA(confidence=0.5).begin(space(1, 9), forecast=Oracle())
    arena = Arena(schedule, lambda x, r: x, iter([0.4, 0.9, 0.1]), 9)
    arena.run(configs=3)
    assert paths(arena) == {0.4: {1}, 0.9: {1, 3, 9}, 0.1: {1, 3}}


# --- PASHA ---------------------------------------------------------------------------------------


def test_pasha_stays_low_while_rankings_agree() -> None:
    arena = Arena(PASHA().begin(space(1, 81)), lambda x, r: x + 1 / r, draws(), 81, 4)
    arena.run(configs=200)
    assert {end for _, _, end in arena.stages} == {1, 3}


def test_pasha_opens_every_level_where_rankings_change() -> None:
    def turning(x: float, r: int) -> float:
        return x if r in (1, 9, 81) else 1.0 - x

    arena = Arena(PASHA().begin(space(1, 81)), turning, draws(), 81, 4).run(configs=300)
    assert {end for _, _, end in arena.stages} == {1, 3, 9, 27, 81}


def test_pasha_takes_curves_that_cross_to_and_fro_as_ties() -> None:
    def noisy(x: float, r: int) -> float:
        return round(x, 1) + 0.01 * math.sin(1000.0 * x * r)

    quiet = Arena(PASHA().begin(space(1, 81)), noisy, draws(), 81, every=1).run(configs=200)
    schedule = quiet.schedule
    assert {end for _, _, end in quiet.stages} <= {1, 3, 9, 27}
    assert 0.0 < getattr(schedule, "noise") < 0.05  # noqa: B009  not of the protocol


@given(st.lists(rows, min_size=60, max_size=60))
@settings(max_examples=15, deadline=None)
def test_pasha_raises_its_ceiling_exactly_when_the_two_top_rungs_disagree(
    losses: list[list[float]],
) -> None:
    curve, xs = table(losses, LADDER)
    schedule = PASHA().begin(space(1, 27))
    arena = Arena(schedule, curve, iter(xs), 27)
    ceiling = 1
    for _ in range(200):
        arena.run(configs=60, steps=1)
        schedule.next(arena.log, may_start=False)
        reached = paths(arena)
        level, below = LADDER.levels[ceiling], LADDER.levels[ceiling - 1]
        both = [x for x in reached if level in reached[x] and math.isfinite(curve(x, level))]
        upper = [curve(x, below) for x in sorted(both, key=lambda x: (curve(x, level), x))]
        if ceiling < LADDER.top and upper != sorted(upper):
            ceiling += 1
        assert schedule.ceiling == ceiling
        if not arena.log.pending and schedule.next(arena.log, may_start=False) is None:
            break


# --- one epoch, medians, populations -------------------------------------------------------------


@given(st.lists(rows, min_size=21, max_size=21), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_one_epoch_finishes_the_best_not_finished_after_each_screening(
    losses: list[list[float]], keep: int
) -> None:
    curve, xs = table(losses, Ladder(1, 27, 27))
    schedule = OneEpoch(keep=keep, screen=7).begin(space(1, 27))
    arena = Arena(schedule, curve, iter(xs), 27).run(configs=21)
    wanted: set[float] = set()
    for seen in (7, 14, 21):
        first = [x for x in xs[:seen] if math.isfinite(curve(x, 1)) and x not in wanted]
        wanted |= set(sorted(first, key=lambda x: (curve(x, 1), x))[:keep])
    taken = {x for x, levels in paths(arena).items() if 27 in levels}
    assert taken == wanted or len(wanted) < 3 * keep


@given(st.lists(st.lists(st.floats(0, 1), min_size=9, max_size=9), min_size=8, max_size=12))
@settings(max_examples=10, deadline=None)
def test_median_stopping_is_its_definition(curves: list[list[float]]) -> None:
    schedule, log = MedianStopping(after=2, among=3).begin(space(1, 9)), TrialLog()
    told: list[list[float]] = []
    for number, curve in enumerate(curves):
        trial = Trial(number, {"x": 0.0, "epochs": 9}, 0, None, None, Place(9))
        log.add(trial)
        own: list[float] = []
        for step, value in enumerate(curve, start=1):
            own.append(value)
            log.report(number, Report(step, value))
            averages = [math.fsum(c[:step]) / step for c in told if len(c) >= step]
            stops = step >= 2 and len(averages) >= 3 and min(own) > np.median(averages) + 1e-12
            close = bool(averages) and abs(min(own) - float(np.median(averages))) < 1e-9
            decision = schedule.on_report(trial, Report(step, value), log)
            assert close or decision is (Decision.STOP if stops else Decision.CONTINUE)
            if decision is Decision.STOP:
                break
        told.append(own)
        tell(log, trial, None, Status.STOPPED)


@pytest.mark.parametrize("workers", [1, 3, 6])
def test_a_population_trains_the_same_whatever_the_order_of_its_members(workers: int) -> None:
    def fails_sometimes(x: float, r: int) -> float:
        return math.nan if 0.6 < x < 0.65 and r > 20 else smooth(x, r)

    scheduler = PBT(population=6, interval=10)
    arena = Arena(scheduler.begin(space(1, 81)), fails_sometimes, draws(), 81, workers)
    arena.speed = lambda x: 1.0 + (x if workers > 1 else 0.0)
    arena.run()
    final = sorted(o.config["x"] for o in arena.log.observations if o.status is Status.COMPLETED)
    alone = Arena(scheduler.begin(space(1, 81)), fails_sometimes, draws(), 81, 1).run()
    assert final == sorted(
        o.config["x"] for o in alone.log.observations if o.status is Status.COMPLETED
    )
    assert len(final) == 6


def test_the_ancestry_of_the_best_member_is_a_schedule_without_gaps() -> None:
    arena = Arena(PBT(population=6, interval=10).begin(space(1, 81)), smooth, draws(), 81, 2)
    arena.run()
    done = [o for o in arena.log.observations if o.status is Status.COMPLETED]
    changed = False
    for o in done:
        stretches = ancestry(arena.log, o.number)
        assert (stretches[0].start, stretches[-1].end) == (0, 81)
        assert all(a.end == b.start for a, b in zip(stretches, stretches[1:], strict=False))
        assert stretches[-1].config == o.config
        changed |= len(stretches) > 1
    assert changed
