"""What every scheduler must do, checked on simulated studies.

Derive a test class from `SchedulerContract` and parametrize it over `Subject`s.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from hpo import Cause, Fidelity, Float, Observation, Report, SearchSpace, Status, Trial
from hpo.schedulers import (
    Action,
    Clone,
    Decision,
    Forecast,
    Promote,
    Schedule,
    Scheduler,
    Start,
)
from hpo.trials import RungAssignment, TrialLog

Curve = Callable[[float, int], float]  # config x, level -> loss; NaN diverges
LOW, HIGH = 1, 27


def space(low: int = LOW, high: int = HIGH) -> SearchSpace:
    return SearchSpace({"x": Float(0.0, 1.0), "epochs": Fidelity(low, high)})


def draws(seed: int = 0) -> Iterator[float]:
    rng = np.random.default_rng(seed)
    while True:
        yield float(rng.random())


def smooth(x: float, level: int) -> float:
    """Early losses mislead a little."""
    return (x - 0.3) ** 2 + 0.5 / math.sqrt(level) * (1.0 + 0.3 * math.sin(37.0 * x))


class XIsBest:
    """Forecast that takes x for the probability of being the best."""

    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> NDArray[np.float64]:
        return np.array([log.trial(number).config["x"] for number in numbers])


@dataclass
class Simulation:
    """A study without processes and storage, under a virtual clock.

    Args:
        schedule: what decides.
        curve: loss by config and level.
        xs: configs in the order of their start.
        high: highest level.
        workers: number of stages that run at once.
        speed: cost of a level by x; a stage takes as long as it costs.
        every: steps between reports; None reports nothing on the way.
        loses: whether the worker of the stage with this index is lost, and the stage retried.
        locks: fraction of the paused trials that are locked at each question.
        drops: whether checkpoints that the schedule does not ask to keep are dropped at the end of
            each stage.
        watch: called with each action before it is carried out, and the trials locked then.

    Attributes:
        stages: (trial, level from, level to) of each stage.
        best: (cost, time, loss) of each run that reached `high`.
        checkpoints: trials whose checkpoints are held if `drops`, as a driver holds them.
    """

    schedule: Schedule
    curve: Curve
    xs: Iterator[float]
    high: int = HIGH
    workers: int = 1
    speed: Callable[[float], float] = lambda x: 1.0
    every: int | None = None
    loses: Callable[[int], bool] = lambda index: False
    locks: float = 0.0
    drops: bool = False
    watch: Callable[[Action, frozenset[int]], None] = lambda action, locked: None
    log: TrialLog = field(default_factory=TrialLog)
    cost: float = 0.0
    time: float = 0.0
    stages: list[tuple[int, int, int]] = field(default_factory=list)
    reached: dict[int, int] = field(default_factory=dict)  # level by trial
    best: list[tuple[float, float, float]] = field(default_factory=list)
    checkpoints: set[int] = field(default_factory=set)
    _queue: list[tuple[float, int, Trial, int]] = field(default_factory=list)
    _rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    def run(
        self, *, configs: int | None = None, cost: float = math.inf, steps: int = 10**9
    ) -> Simulation:
        """Go on until nothing is left to do, `cost` is spent or `steps` stages have ended."""
        for _ in range(steps):
            while len(self._queue) < self.workers and self.cost < cost:
                started = sum(t.parent is None for t in self.log.trials)
                may_start = configs is None or started < configs
                paused = [o.number for o in self.log.paused]
                locked = frozenset(n for n in paused if self._rng.random() < self.locks)
                action = self.schedule.next(self.log, may_start=may_start, locked=locked)
                if action is None:
                    break
                self.watch(action, locked)
                self._launch(action)
            if not self._queue:
                return self
            self._finish()
        return self

    def _launch(self, action: Action) -> None:
        match action:
            case Start(assignment):
                trial = self._add(next(self.xs), assignment, None)
            case Promote(number, level):
                before = self.log.observation(number)
                assert before is not None
                if before.status is Status.PAUSED:
                    trial = self.log.resume(number, level)
                else:  # completed at a fidelity that has grown
                    old = self.log.trial(number)
                    assert old.assignment is not None
                    trial = self._add(old.config["x"], replace(old.assignment, level=level), number)
            case Clone(parent, assignment, replaces, _):
                replaced = self.log.observation(replaces)
                if replaced is not None and replaced.status is Status.PAUSED:
                    self._tell(self.log.trial(replaces), Status.STOPPED, replaced.loss)
                trial = self._add(self.log.trial(parent).config["x"] * 0.9, assignment, parent)
        self._train(trial)

    def _add(self, x: float, assignment: RungAssignment | None, parent: int | None) -> Trial:
        number = self.log.next_number
        config = {"x": x, "epochs": self.high}
        trial = Trial(number, config, number, None, parent, assignment)
        self.log.add(trial)
        if parent is not None:
            self.reached[number] = self.reached.get(parent, 0)
        return trial

    def _train(self, trial: Trial) -> None:
        start = self.reached.get(trial.number, 0)
        end = self._end_of_stage(trial, start)
        price = (end - start) * self.speed(trial.config["x"])
        self.cost += price
        self.stages.append((trial.number, start, end))
        heapq.heappush(self._queue, (self.time + price, len(self.stages), trial, end))

    def _end_of_stage(self, trial: Trial, start: int) -> int:
        """Return where the stage ends: at its level or where it diverges."""
        assert trial.assignment is not None
        for level in range(start + 1, trial.assignment.level + 1):
            if not math.isfinite(self.curve(trial.config["x"], level)):
                return level
        return trial.assignment.level

    def _finish(self) -> None:
        self.time, index, trial, end = heapq.heappop(self._queue)
        if self.loses(index):
            del self.stages[index - 1 : index]  # nothing of it was saved
            self.stages.insert(index - 1, (-1, 0, 0))
            self._tell(trial, Status.FAILED, None, Cause.LOST)
            self._train(self._add(trial.config["x"], trial.assignment, trial.number))
            return
        self._end(trial, end)
        self.checkpoints.add(trial.number)
        if self.drops:
            self.checkpoints &= self.schedule.checkpoints_to_keep(self.log)

    def _end(self, trial: Trial, end: int) -> None:
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


def replayed(log: TrialLog) -> TrialLog:
    """The same log, read back event by event."""
    copy = TrialLog()
    known: set[int] = set()
    for event in log.events():
        match event:
            case Trial() if event.number in known:
                assert event.assignment is not None
                copy.resume(event.number, event.assignment.level)
            case Trial():
                known.add(event.number)
                copy.add(event)
            case Observation():
                copy.tell(event)
            case _:
                copy.report(event.number, event.report)
    return copy


@dataclass(frozen=True)
class Subject:
    """A scheduler under test.

    Args:
        scheduler: its settings.
        forecast: model that it uses.
        keeps_next: whether the checkpoint of whatever it promotes next is kept.
        keeps_all: whether that holds for all later promotions, if no run fails.
    """

    scheduler: Scheduler
    forecast: Forecast | None = None
    keeps_next: bool = True
    keeps_all: bool = False

    def begin(self, direction: str = "minimize") -> Schedule:
        assert direction in ("minimize", "maximize")
        return self.scheduler.begin(
            space(),
            direction="minimize" if direction == "minimize" else "maximize",
            forecast=self.forecast,
        )

    def __str__(self) -> str:
        with_forecast = "" if self.forecast is None else " with a forecast"
        return f"{self.scheduler}{with_forecast}"


@st.composite
def curves(draw: st.DrawFn, failing: bool = True) -> Curve:
    """Losses at random, ties included; some runs diverge at a level."""
    seed = draw(st.integers(0, 10**6))
    share = draw(st.sampled_from([0.0, 0.1, 0.5])) if failing else 0.0
    digits = draw(st.sampled_from([1, 9]))

    def curve(x: float, level: int) -> float:
        rng = np.random.default_rng([seed, round(x * 10**9), level])
        if rng.random() < share / level:
            return math.nan
        return round(float(rng.random()), digits)

    return curve


workers = st.integers(1, 5)
stages = st.integers(0, 60)
few = settings(max_examples=5, deadline=None)


class SchedulerContract:
    """The contract of `hpo.schedulers.base`; parametrize over `subject`."""

    @given(curves(), workers, stages)
    @few
    def test_a_schedule_rebuilt_from_the_log_decides_the_same(
        self, subject: Subject, curve: Curve, workers: int, steps: int
    ) -> None:
        simulation = Simulation(
            subject.begin(),
            curve,
            draws(),
            workers=workers,
            speed=lambda x: 1.0 + x,
            every=1,
            loses=lambda index: index % 7 == 3,
        ).run(configs=25, steps=steps)
        log, schedule = simulation.log, simulation.schedule
        paused = frozenset(o.number for o in log.paused)
        for may_start in (True, False):
            for locked in (frozenset[int](), frozenset(list(paused)[::2]), paused):
                now = schedule.next(log, may_start=may_start, locked=locked)
                rebuilt = subject.begin()
                assert rebuilt.next(replayed(log), may_start=may_start, locked=locked) == now
        assert subject.begin().checkpoints_to_keep(log) == schedule.checkpoints_to_keep(log)

    @given(curves(), workers, stages)
    @few
    def test_a_question_changes_no_answer(
        self, subject: Subject, curve: Curve, workers: int, steps: int
    ) -> None:
        simulation = Simulation(subject.begin(), curve, draws(), workers=workers)
        simulation.run(configs=25, steps=steps)
        log, schedule = simulation.log, simulation.schedule
        answers = [schedule.next(log), schedule.next(log, may_start=False)]
        kept = schedule.checkpoints_to_keep(log)
        assert [schedule.next(log), schedule.next(log, may_start=False)] == answers
        assert schedule.checkpoints_to_keep(log) == kept
        assert schedule.next(log) == schedule.next(log) == answers[0]

    @given(curves(), workers)
    @few
    def test_no_locked_failed_or_finished_run_continues(
        self, subject: Subject, curve: Curve, workers: int
    ) -> None:
        def watch(action: Action, locked: frozenset[int]) -> None:
            match action:
                case Promote(number, _):
                    before = simulation.log.observation(number)
                    assert number not in locked
                    assert before is not None and before.status is Status.PAUSED
                case Clone(parent, _, replaces, _):
                    before = simulation.log.observation(parent)
                    assert replaces not in locked
                    # The parent runs already if a lock kept the clone from being the first.
                    assert before is None or before.status in (Status.PAUSED, Status.COMPLETED)

        simulation = Simulation(
            subject.begin(),
            curve,
            draws(),
            workers=workers,
            every=2,
            loses=lambda index: index % 9 == 4,
            locks=0.3,
            watch=watch,
        )
        simulation.run(configs=25, steps=200)
        paused = frozenset(o.number for o in simulation.log.paused)
        if not simulation.log.pending:
            assert simulation.schedule.next(simulation.log, may_start=False, locked=paused) is None

    @given(curves(), workers)
    @few
    def test_every_stage_ends_higher_than_the_last_and_none_beyond_the_fidelity(
        self, subject: Subject, curve: Curve, workers: int
    ) -> None:
        def watch(action: Action, locked: frozenset[int]) -> None:
            log, before = simulation.log, 0
            match action:
                case Start(assignment):
                    assert assignment is not None
                    level = assignment.level
                case Promote(number, level):
                    old = log.trial(number).assignment
                    assert old is not None
                    before = old.level
                case Clone(parent, assignment, _, _):
                    level, before = assignment.level, simulation.reached[parent]
            assert before < level and LOW <= level <= HIGH

        simulation = Simulation(subject.begin(), curve, draws(), workers=workers, watch=watch)
        simulation.run(configs=25, steps=200)
        reached: dict[int, int] = {}
        for number, start, end in simulation.stages:  # so that no level is trained twice
            parent = simulation.log.trial(number).parent
            assert start == reached.get(number, 0 if parent is None else reached.get(parent, 0))
            assert start < end
            reached[number] = end

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_run_that_reported_a_loss_that_is_not_finite_is_never_promoted(
        self, subject: Subject, value: float
    ) -> None:
        schedule, log = subject.begin(), TrialLog()
        bad: set[int] = set()
        for step in range(25):
            match schedule.next(log, may_start=len(log.trials) < 20):
                case Start(assignment):
                    config = {"x": step / 25.0, "epochs": HIGH}
                    trial = Trial(log.next_number, config, log.next_number, None, None, assignment)
                    log.add(trial)
                case Promote(promoted, level):
                    assert promoted not in bad
                    trial = log.resume(promoted, level)
                case _:
                    break
            assert trial.assignment is not None
            loss = smooth(trial.config["x"], trial.assignment.level)
            decision = Decision.CONTINUE
            if trial.number % 3 == 1:  # also if it recovers by the end of the stage
                bad.add(trial.number)
                report = Report(trial.assignment.level, value)
                log.report(trial.number, report)
                decision = schedule.on_report(trial, report, log)
            status = Status.COMPLETED if trial.assignment.level == HIGH else Status.PAUSED
            status = Status.STOPPED if decision is Decision.STOP else status
            number, order = trial.number, log.next_order
            log.tell(Observation(number, trial.config, loss, 1.0, status, None, order, number))
        assert bad

    @given(curves(), workers)
    @few
    def test_a_study_that_may_start_no_more_configs_comes_to_an_end(
        self, subject: Subject, curve: Curve, workers: int
    ) -> None:
        simulation = Simulation(subject.begin(), curve, draws(), workers=workers)
        simulation.run(configs=25, steps=1000)
        log = simulation.log
        assert not log.pending
        assert simulation.schedule.next(log, may_start=False) is None
        assert subject.begin().next(log, may_start=False) is None

    @given(curves(), workers)
    @few
    def test_the_checkpoint_of_the_next_promotion_is_kept(
        self, subject: Subject, curve: Curve, workers: int
    ) -> None:
        if not subject.keeps_next:
            pytest.skip("promotes by forecast what it does not keep")

        def watch(action: Action, locked: frozenset[int]) -> None:
            if isinstance(action, Promote | Clone):
                number = action.number if isinstance(action, Promote) else action.parent
                assert number in kept[-1]

        class Recorded:
            """The schedule, with what it keeps before each answer."""

            def __init__(self, schedule: Schedule) -> None:
                self.schedule = schedule
                self.on_report = schedule.on_report
                self.checkpoints_to_keep = schedule.checkpoints_to_keep

            def next(
                self, log: TrialLog, *, may_start: bool = True, locked: frozenset[int] = frozenset()
            ) -> Action | None:
                kept.append(self.schedule.checkpoints_to_keep(log))
                return self.schedule.next(log, may_start=may_start, locked=locked)

        kept: list[frozenset[int]] = []
        simulation = Simulation(
            Recorded(subject.begin()), curve, draws(), workers=workers, watch=watch
        )
        simulation.run(configs=40, steps=300)

    @given(curves(failing=False), workers)
    @few
    def test_no_checkpoint_is_dropped_that_a_later_promotion_needs(
        self, subject: Subject, curve: Curve, workers: int
    ) -> None:
        if not subject.keeps_all:
            pytest.skip("may drop what comes back into the top share as worse runs arrive")

        def watch(action: Action, locked: frozenset[int]) -> None:
            if isinstance(action, Promote | Clone):
                number = action.number if isinstance(action, Promote) else action.parent
                assert number in simulation.checkpoints

        simulation = Simulation(
            subject.begin(), curve, draws(), workers=workers, drops=True, watch=watch
        )
        simulation.run(configs=60, steps=300)
        assert any(o.status is Status.COMPLETED for o in simulation.log.observations)

    @given(curves(), workers)
    @few
    def test_maximizing_is_minimizing_the_negative(
        self, subject: Subject, curve: Curve, workers: int
    ) -> None:
        def negative(x: float, level: int) -> float:
            return -curve(x, level)

        down = Simulation(subject.begin(), curve, draws(), workers=workers, every=3)
        up = Simulation(subject.begin("maximize"), negative, draws(), workers=workers, every=3)
        assert up.run(configs=25, steps=100).stages == down.run(configs=25, steps=100).stages

    def test_a_trial_without_a_place_is_left_alone(self, subject: Subject) -> None:
        schedule, log = subject.begin(), TrialLog()
        trial, report = Trial(0, {"x": 0.5, "epochs": HIGH}, 0, None), Report(HIGH, 1.0)
        log.add(trial)
        log.report(0, report)
        assert schedule.on_report(trial, report, log) is Decision.CONTINUE
        order = log.next_order
        log.tell(Observation(0, trial.config, 1.0, 1.0, Status.COMPLETED, None, order, 0))
        assert isinstance(schedule.next(log), Start)
        assert schedule.next(log, may_start=False) is None
        assert schedule.checkpoints_to_keep(log) == frozenset()
