"""FreezeThaw: the shares of new and old runs, the rank rule, and the model."""

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import (
    Budget,
    Fidelity,
    Float,
    FreezeThaw,
    Observation,
    Optimizer,
    SearchSpace,
    SpaceError,
    StagedOptimizer,
    Status,
    Trial,
)
from hpo.schedulers import Promote, Schedule, Start
from hpo.trials import Cause, RungAssignment, TrialLog
from tests.contracts.scheduler import XIsBest

LEVELS = (1, 3, 9, 27)
SPACE = SearchSpace({"x": Float(0.0, 1.0), "epochs": Fidelity(1, 27)})


def tell(log: TrialLog, trial: Trial, loss: float | None) -> None:
    assert trial.assignment is not None
    status = Status.COMPLETED if trial.assignment.level == 27 else Status.PAUSED
    cause = None if loss is not None else Cause.DIVERGED
    log.tell(
        Observation(
            trial.number,
            trial.config,
            loss,
            None,
            status if loss is not None else Status.FAILED,
            cause,
            log.next_order,
            trial.ask_index,
        )
    )


def play(
    schedule: Schedule, losses: Iterator[float | None], steps: int, starts: int = 10**9
) -> tuple[TrialLog, list[Promote | None]]:
    """One worker; every stage takes its loss, and None fails. The promotions, None for a start."""
    log = TrialLog()
    rng = np.random.default_rng(0)
    actions: list[Promote | None] = []
    for _ in range(steps):
        match schedule.next(log, may_start=len(log.trials) < starts):
            case Start(assignment):
                config = {"x": float(rng.random()), "epochs": 27}
                trial = Trial(log.next_number, config, log.next_ask_index, None, None, assignment)
                log.add(trial)
                actions.append(None)
            case Promote(number, level) as action:
                assert log.observation(number) is not None
                trial = log.resume(number, level)
                actions.append(action)
            case _:
                break
        tell(log, trial, next(losses))
    return log, actions


def losses(seed: int, failing: float = 0.0) -> Iterator[float | None]:
    rng = np.random.default_rng(seed)
    while True:
        yield None if rng.random() < failing else float(rng.random())


@given(st.integers(0, 99), st.sampled_from([0.5, 1.0, 2.0]), st.sampled_from([0.0, 0.3]))
@settings(max_examples=20, deadline=None)
def test_of_the_cost_of_t_whole_runs_that_of_sqrt_t_is_for_new_ones(
    seed: int, breadth: float, failing: float
) -> None:
    schedule = FreezeThaw(breadth=breadth).begin(SPACE, forecast=XIsBest())
    log, _ = play(schedule, losses(seed, failing), 300)
    reached = [t.assignment.level for t in log.trials if t.assignment is not None]
    new, spent = len(reached) / 27, sum(reached) / 27
    # either way a decision overshoots by no more than one stage
    assert new >= breadth * np.sqrt(spent - 26 / 27)
    if not failing:
        assert new <= breadth * np.sqrt(spent) + 1 / 27
    assert 27 in reached


@given(st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_without_a_model_every_promotion_follows_the_rank_rule_of_asha(seed: int) -> None:
    schedule = FreezeThaw(breadth=2.0).begin(SPACE)
    reached: dict[int, dict[int, float]] = {level: {} for level in LEVELS}
    log = TrialLog()
    drawn = losses(seed)
    for step in range(150):
        action = schedule.next(log)
        if isinstance(action, Promote):
            assignment = log.trial(action.number).assignment
            assert assignment is not None
            below = assignment.level
            ranked = sorted(reached[below], key=lambda n: reached[below][n])
            assert action.number in ranked[: len(ranked) // 3]
            trial = log.resume(action.number, action.level)
        else:
            assert action == Start(RungAssignment(1))
            trial = Trial(
                log.next_number, {"x": 0.5, "epochs": 27}, step, None, None, RungAssignment(1)
            )
            log.add(trial)
        loss = next(drawn)
        assert trial.assignment is not None and loss is not None
        reached[trial.assignment.level][trial.number] = loss
        tell(log, trial, loss)
    assert reached[27]


def test_the_likeliest_best_run_is_promoted_but_for_every_fourth_promotion() -> None:
    schedule = FreezeThaw().begin(SPACE, forecast=XIsBest())
    log = TrialLog()
    rng = np.random.default_rng(3)
    rule = {"model": 0, "rank": 0}
    for _ in range(200):
        paused = {o.number: o.config["x"] for o in log.paused}
        climbed = sum(
            LEVELS.index(t.assignment.level) for t in log.trials if t.assignment is not None
        )
        match schedule.next(log):
            case Promote(number, level):
                if climbed % 4:
                    assert number == max(paused, key=lambda n: paused[n])
                rule["rank" if number != max(paused, key=lambda n: paused[n]) else "model"] += 1
                trial = log.resume(number, level)
            case _:
                config = {"x": float(rng.random()), "epochs": 27}
                trial = Trial(
                    log.next_number, config, log.next_ask_index, None, None, RungAssignment(1)
                )
                log.add(trial)
        tell(log, trial, float(rng.random()))  # so the rank rule disagrees with the model
    rank, model = rule["rank"] - 1, rule["model"]  # the very first shows what a whole run costs
    assert rank >= 5 and model >= 3 * rank


@pytest.mark.parametrize("price, first", [(0.0, 1), (0.5, 0)])
def test_of_two_similar_runs_the_cheaper_one_is_promoted(price: float, first: int) -> None:
    schedule = FreezeThaw(breadth=0.1, price=price, floor=100).begin(SPACE, forecast=XIsBest())
    log = TrialLog()
    for x, cost in ((0.5, 1.0), (0.6, 10.0), (0.0, 1.0)):
        trial = Trial(
            log.next_number,
            {"x": x, "epochs": 27},
            log.next_ask_index,
            None,
            None,
            RungAssignment(1),
        )
        log.add(trial)
        log.tell(
            Observation(
                trial.number,
                trial.config,
                1.0 - x,
                cost,
                Status.PAUSED,
                None,
                log.next_order,
                trial.ask_index,
            )
        )
    rank_rule = schedule.next(log)  # the first promotion is its
    assert isinstance(rank_rule, Promote) and rank_rule.number == 1
    log.resume(2, 3)  # as if another run had taken that turn
    action = schedule.next(log)
    assert isinstance(action, Promote) and action.number == first


def test_a_last_run_is_finished_where_no_more_may_start() -> None:
    log, actions = play(
        FreezeThaw().begin(SPACE, forecast=XIsBest()), losses(2), steps=10**6, starts=12
    )
    assert len(log.trials) == 12
    assert any(o.status is Status.COMPLETED for o in log.observations)
    spent = sum(t.assignment.level for t in log.trials if t.assignment is not None)
    assert 12 * 10 <= spent <= 12 * 10 + 27  # ten times what the new ones had, and one stage


@pytest.mark.parametrize(
    "settings",
    [{"breadth": 0.0}, {"breadth": float("inf")}, {"floor": 0}, {"eta": 1}, {"price": 2.0}],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(SpaceError):
        FreezeThaw(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("workers, level", [(1, 3), (2, 27)])
def test_an_early_run_is_promoted_to_the_end_before_its_turn(workers: int, level: int) -> None:
    """It shows what a whole run costs, long before new runs have had their share."""
    schedule = FreezeThaw().begin(SPACE, forecast=XIsBest())
    log = TrialLog()
    for number in range(2 + workers):
        config = {"x": 0.5, "epochs": 27}
        log.add(Trial(number, config, number, None, None, RungAssignment(1)))
    for number, loss in ((0, 2.0), (1, 1.0)):
        tell(log, log.trial(number), loss)
        assert schedule.next(log) == Start(RungAssignment(1))
    tell(log, log.trial(2), 3.0)
    assert schedule.next(log) == Promote(1, level)
    log.resume(1, level)
    assert schedule.next(log) == Start(RungAssignment(1))


def test_a_run_that_starts_over_goes_to_the_end_at_once() -> None:
    schedule = FreezeThaw(continues=False).begin(SPACE, forecast=XIsBest())
    _, actions = play(schedule, losses(5), 100)
    assert {action.level for action in actions if action is not None} == {27}


def test_the_model_decides_too_where_one_promotion_passes_as_many_rungs_as_the_floor() -> None:
    """27 lies three rungs up, and every third promotion is the rank rule's."""
    schedule = FreezeThaw(continues=False, floor=3).begin(SPACE, forecast=XIsBest())
    log = TrialLog()
    rng = np.random.default_rng(6)
    followed = asked = 0
    for _ in range(600):
        paused = {o.number: o.config["x"] for o in log.paused}
        match schedule.next(log):
            case Promote(number, level):
                asked += 1
                followed += number == max(paused, key=lambda n: paused[n])
                trial = log.resume(number, level)
            case Start(assignment):
                config = {"x": float(rng.random()), "epochs": 27}
                trial = Trial(log.next_number, config, log.next_ask_index, None, None, assignment)
                log.add(trial)
        tell(log, trial, float(rng.random()))
    assert asked >= 50 and 0.6 * asked < followed < asked


@pytest.mark.parametrize("first, skips", [(0.5, True), (0.2, False)])
def test_where_the_first_level_costs_nearly_a_whole_run_none_starts_there(
    first: float, skips: bool
) -> None:
    schedule = FreezeThaw(continues=False, price=0.0).begin(SPACE, forecast=XIsBest())
    log = TrialLog()
    rng = np.random.default_rng(0)
    places = []
    for _ in range(20):
        match schedule.next(log):
            case Promote(number, level):
                trial = log.resume(number, level)
            case Start(assignment):
                assert assignment is not None
                places.append(assignment.level)
                config = {"x": float(rng.random()), "epochs": 27}
                trial = Trial(log.next_number, config, log.next_ask_index, None, None, assignment)
                log.add(trial)
        assert trial.assignment is not None
        log.tell(
            Observation(
                trial.number,
                trial.config,
                float(rng.random()),
                first if trial.assignment.level == 1 else 1.0,
                Status.COMPLETED if trial.assignment.level == 27 else Status.PAUSED,
                None,
                log.next_order,
                trial.ask_index,
            )
        )
    assert places[:2] == [1, 27]  # an early run says what a whole one costs
    assert set(places[2:]) == ({27} if skips else {1})


def test_the_cost_of_a_whole_run_is_learned_from_runs_that_were_promoted() -> None:
    """A cheap run was promoted; the cost of a usual whole run is scaled up from it."""
    schedule = FreezeThaw().begin(SPACE, forecast=XIsBest())
    log = TrialLog()
    for number in range(40):
        log.add(Trial(number, {"x": 0.5, "epochs": 27}, number, None, None, RungAssignment(1)))
    for number in range(3):
        one = 0.1 if number == 0 else 1.0
        for level, cost in ((1, one), (27, 10.0 * one))[: 2 if number == 0 else 1]:
            if level == 27:
                log.resume(number, level)
            done = Status.COMPLETED if level == 27 else Status.PAUSED
            log.tell(
                Observation(
                    number, log.trial(number).config, 1.0, cost, done, None, log.next_order, number
                )
            )
    # c_0 = 0.7 and c_K = 7: new runs have had 40 / 10 of a whole run, their share is sqrt(4 + 0.9)
    assert isinstance(schedule.next(log), Promote)
    assert FreezeThaw(breadth=1.9).begin(SPACE, forecast=XIsBest()).next(log) == Start(
        RungAssignment(1)
    )


@pytest.mark.engine
@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("runs", [1.2, 1.6, 2.5])
@pytest.mark.parametrize(("spread", "seed"), [(0.0, 0), (0.5, 1), (0.5, 2)])
def test_a_budget_of_cost_always_leaves_a_finished_run(
    runs: float, workers: int, spread: float, seed: int
) -> None:
    whole = 27.0 * runs * (1.0 + 0.5 * spread)
    optimizer = Optimizer(SPACE, budget=Budget(cost=whole), seed=seed, cost="epochs")
    engine = StagedOptimizer(optimizer, FreezeThaw(), seed=seed)
    running: list[tuple[float, int, Trial]] = []
    now, finished = 0.0, 0
    while engine.ledger.remaining_cost or running:
        while len(running) < workers and engine.ledger.remaining_cost:
            trial = engine.ask()
            if trial is None:
                assert running  # it waits for the first end
                break
            assert trial.assignment is not None
            cost = trial.assignment.level * (1.0 + spread * (trial.config["x"] - 0.5))
            running.append((now + cost, trial.number, trial))
        now, _, trial = running.pop(running.index(min(running, key=lambda one: one[:2])))
        assert trial.assignment is not None
        level = trial.assignment.level
        cost = level * (1.0 + spread * (trial.config["x"] - 0.5))
        told = engine.tell(trial, loss=trial.config["x"] / level, cost=cost)
        paid = engine.ledger.spent.cost <= whole  # else it would have been stopped before its end
        finished += told.status is Status.COMPLETED and paid
    assert finished
