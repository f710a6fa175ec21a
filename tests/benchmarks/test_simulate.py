from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.peers.base import Job
from benchmarks.simulate import (
    Ending,
    Outcome,
    Pool,
    ReplayError,
    StudyLimits,
    draw,
    full_cost,
    simulate,
)
from benchmarks.task import Bounds, Evaluation, Levels, Point
from hpo import Categorical, Float, Int, Scale, SearchSpace


@dataclasses.dataclass(frozen=True)
class Line:
    """Loss x, cost `price` per level; fails as "oom" above `ceiling`."""

    price: float = 1.0
    levels: Levels | None = None
    pool: tuple[dict[str, Any], ...] | None = None
    ceiling: float = math.inf
    name: str = "line"
    unit: str = "seconds"
    seen_in_design: bool = False
    space: SearchSpace = dataclasses.field(default_factory=lambda: SearchSpace({"x": Float(0, 1)}))
    bounds: Bounds = Bounds(0.0, 1.0)

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        reached = 1 if self.levels is None else self.levels.check(level)
        cost = self.price * reached * (1 + config["x"])
        if config["x"] > self.ceiling:
            return Evaluation(None, cost, (), "oom")
        return Evaluation(config["x"], cost, (Point(reached, config["x"], cost),))


class Script:
    """Asks the given jobs in order, recording what it was told."""

    def __init__(self, jobs: list[Job | None]) -> None:
        self.jobs, self.told = list(jobs), list[tuple[Job, Evaluation]]()

    def ask(self) -> Job | None:
        return self.jobs.pop(0) if self.jobs else None

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        self.told.append((job, evaluation))


def jobs(*values: float) -> list[Job | None]:
    return [Job(i, {"x": x}) for i, x in enumerate(values)]


def outcomes(
    task: Line, peer: Script, limits: StudyLimits, **options: Any
) -> tuple[list[Outcome], Ending]:
    *events, ending = simulate(task, peer, seed=0, limits=limits, **options)
    assert isinstance(ending, Ending)
    return [e for e in events if isinstance(e, Outcome)], ending


def test_one_worker_pays_the_sum_of_costs_and_keeps_the_running_minimum() -> None:
    losses = [0.5, 0.7, 0.2, 0.9]
    rows, ending = outcomes(Line(), Script(jobs(*losses)), StudyLimits(trials=4))
    assert ending is Ending.TRIALS
    assert [r.trial for r in rows] == [0, 1, 2, 3]
    assert [r.incumbent for r in rows] == [0.5, 0.5, 0.2, 0.2]
    assert [r.cost for r in rows] == pytest.approx(np.cumsum(1 + np.array(losses)))
    assert [r.time for r in rows] == [r.cost for r in rows]
    assert [r.effort for r in rows] == [1.0, 2.0, 3.0, 4.0]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=200), st.integers(min_value=1, max_value=64))
def test_n_workers_are_list_scheduling_in_virtual_time(values: list[float], workers: int) -> None:
    rows, _ = outcomes(
        Line(), Script(jobs(*values)), StudyLimits(trials=len(values)), workers=workers
    )
    free = np.zeros(workers)  # Graham's list scheduling: each job to the worker free first
    ends = []
    for value in values:
        worker = int(np.argmin(free))
        free[worker] += 1 + value
        ends.append(free[worker])
    assert [r.time for r in rows] == pytest.approx(sorted(ends))
    assert rows[-1].cost == pytest.approx(sum(1 + v for v in values))
    assert max(sum(ends) / len(ends), rows[-1].cost / workers) <= rows[-1].time + 1e-9
    assert all(a.time <= b.time for a, b in zip(rows, rows[1:], strict=False))


def test_64_workers_of_equal_jobs_finish_in_waves() -> None:
    rows, _ = outcomes(Line(), Script(jobs(*[0.0] * 256)), StudyLimits(trials=256), workers=64)
    assert [r.time for r in rows] == [1.0 + i // 64 for i in range(256)]
    assert [r.number for r in rows] == list(range(256))


def test_a_resumed_job_pays_only_the_increment_and_another_pays_it_all() -> None:
    task = Line(levels=Levels("epoch", 1, 10))
    script = Script(
        [
            Job(0, {"x": 0.0}, 2),
            Job(0, {"x": 0.0}, 6, resumes=True),
            Job(0, {"x": 0.0}, None, resumes=True),
            Job(1, {"x": 1.0}, 5),
            Job(1, {"x": 1.0}, 10),
        ]
    )
    rows, _ = outcomes(task, script, StudyLimits(trials=2.5))
    assert [r.cost for r in rows] == pytest.approx([2, 6, 10, 20, 40])
    assert [r.effort for r in rows] == pytest.approx([0.2, 0.6, 1.0, 1.5, 2.5])
    assert [r.run_cost for r in rows] == pytest.approx([2, 6, 10, 10, 20])
    assert [r.incumbent for r in rows] == [None, None, 0.0, 0.0, 0.0]


def test_where_levels_cannot_be_continued_a_resumed_job_pays_for_all_of_it() -> None:
    task = Line(levels=Levels("trainsize", 1, 10, continues=False))
    script = Script(
        [
            Job(0, {"x": 0.0}, 2),
            Job(0, {"x": 0.0}, 6, resumes=True),
            Job(0, {"x": 0.0}, None, resumes=True),
        ]
    )
    rows, _ = outcomes(task, script, StudyLimits(trials=1.8))
    assert [r.cost for r in rows] == pytest.approx([2, 8, 18])
    assert [r.effort for r in rows] == pytest.approx([0.2, 0.8, 1.8])
    assert [r.time for r in rows] == [r.cost for r in rows]


def test_failed_runs_cost_and_are_never_the_incumbent() -> None:
    task = Line(ceiling=0.6)
    rows, _ = outcomes(task, Script(jobs(0.9, 0.5, 0.8)), StudyLimits(trials=3))
    assert [r.status for r in rows] == ["oom", "ok", "oom"]
    assert [r.incumbent for r in rows] == [None, 0.5, 0.5]
    assert rows[-1].cost == pytest.approx(1.9 + 1.5 + 1.8)


def test_the_incumbent_of_a_noisy_task_is_scored_without_its_luck() -> None:
    class Noisy(Line):
        def evaluate(
            self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
        ) -> Evaluation:
            plain = super().evaluate(config, level, rng)
            assert plain.loss is not None
            return dataclasses.replace(plain, loss=1 - plain.loss, true_loss=plain.loss)

    rows, _ = outcomes(Noisy(), Script(jobs(0.3, 0.8, 0.1)), StudyLimits(trials=3))
    assert [r.incumbent for r in rows] == [0.3, 0.8, 0.8]


def test_noise_is_equal_for_equal_seed_and_number_whatever_the_method() -> None:
    class Noise(Line):
        def evaluate(
            self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
        ) -> Evaluation:
            return Evaluation(float(rng.random()), 1.0, ())

    one, _ = outcomes(Noise(), Script(jobs(0.1, 0.2)), StudyLimits(trials=2))
    two, _ = outcomes(Noise(), Script(jobs(0.7, 0.9)), StudyLimits(trials=2), workers=2)
    assert [r.loss for r in one] == [r.loss for r in two]
    assert one[0].loss != one[1].loss


def test_a_cost_limit_stops_the_asking_and_lets_running_jobs_end() -> None:
    rows, ending = outcomes(Line(), Script(jobs(*[0.0] * 9)), StudyLimits(cost=3.0), workers=2)
    assert ending is Ending.COST
    assert rows[-1].cost == 3.0


def test_a_slow_method_is_stopped_and_this_is_recorded() -> None:
    ticks = iter(np.arange(0.0, 1e3))
    rows, ending = outcomes(
        Line(),
        Script(jobs(*[0.0] * 9)),
        StudyLimits(trials=9, seconds=4.0),
        clock=lambda: float(next(ticks)),
    )
    assert ending is Ending.SECONDS
    assert len(rows) == 2  # each took 1 s to ask and 1 s to tell


def test_a_method_that_waits_is_asked_again_after_the_next_tell() -> None:
    script = Script([*jobs(0.0, 0.5), None, *jobs(0.25)])
    rows, ending = outcomes(Line(), script, StudyLimits(trials=9), workers=4)
    assert ending is Ending.METHOD
    assert [r.time for r in rows] == pytest.approx([1.0, 1.5, 1.0 + 1.25])


def test_start_points_come_first_and_are_free_but_for_their_cost() -> None:
    script = Script(jobs(0.9))
    rows, _ = outcomes(Line(), script, StudyLimits(trials=1), starts=[{"x": 0.5}, {"x": 0.25}])
    assert [r.trial for r in rows] == [-2, -1, 0]
    assert [r.effort for r in rows] == [0.0, 0.0, 1.0]
    assert rows[-1].cost == pytest.approx(1.5 + 1.25 + 1.9)
    assert [job.number for job, _ in script.told] == [-2, -1, 0]


SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1.0, log=True),
        "p": Float(0.01, 0.99, logit=True),
        "depth": Int(1, 9),
        "width": Int(8, 512, log=True, multiple_of=8),
        "kind": Categorical(["a", "b", "c"]),
        "order": Categorical([1, 10, 100], ordered=True),
        "momentum": Float(0.0, 0.9, when=("kind", ["b"])),
        "tokens": Scale(1e3, 1e6),
    }
)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_random_configs_are_legal_and_a_member_is_nearest_to_itself(seed: int) -> None:
    rng = np.random.default_rng(seed)
    members = [draw(SPACE, rng) for _ in range(20)]
    for member in members:
        assert SPACE.validate(member) == member
    pool = Pool(SPACE, members)
    for index in rng.permutation(20):
        assert pool.take(members[index]) == members[index]
    with pytest.raises(LookupError, match="every member"):
        pool.take(members[0])


def test_the_pool_answers_with_the_nearest_free_member_on_the_log_scale() -> None:
    space = SearchSpace({"lr": Float(1e-4, 1.0, log=True)})
    pool = Pool(space, [{"lr": 1e-4}, {"lr": 1e-2}, {"lr": 1.0}])
    assert pool.take({"lr": 0.05}) == {"lr": 1e-2}
    assert pool.take({"lr": 0.05}) == {"lr": 1.0}
    assert pool.take({"lr": 0.05}) == {"lr": 1e-4}


def test_a_pool_is_never_evaluated_twice_and_ends_the_study_when_used_up() -> None:
    pool = tuple({"x": x} for x in (0.0, 0.5, 1.0))
    script = Script(jobs(0.4, 0.4, 0.4, 0.4))
    rows, ending = outcomes(Line(pool=pool), script, StudyLimits(trials=9))
    assert [r.loss for r in rows] == [0.5, 0.0, 1.0]
    assert ending is Ending.METHOD
    assert [job.config["x"] for job, _ in script.told] == [0.5, 0.0, 1.0]


def test_runs_of_a_used_up_pool_still_continue_to_higher_levels() -> None:
    task = Line(levels=Levels("epoch", 1, 10), pool=({"x": 0.0}, {"x": 1.0}))
    script = Script(
        [
            Job(0, {"x": 0.0}, 1),
            Job(1, {"x": 1.0}, 1),
            Job(2, {"x": 0.5}, 1),
            Job(0, {"x": 0.0}, None, resumes=True),
        ]
    )
    rows, ending = outcomes(task, script, StudyLimits(trials=9), workers=2)
    assert [(r.number, r.level) for r in rows] == [(0, 1), (1, 1), (0, 10)]
    assert ending is Ending.METHOD
    assert not [job for job, _ in script.told if job.number == 2]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("kept", range(9))
def test_going_on_after_any_number_of_rows_gives_the_same_rows(kept: int, workers: int) -> None:
    values = [0.5, 0.9, 0.1, 0.3, 0.8, 0.2, 0.7, 0.4]
    whole, _ = outcomes(Line(), Script(jobs(*values)), StudyLimits(trials=8), workers=workers)
    rest, ending = outcomes(
        Line(), Script(jobs(*values)), StudyLimits(trials=8), workers=workers, recorded=whole[:kept]
    )
    assert ending is Ending.TRIALS
    together = whole[:kept] + rest
    assert all(a.agrees(b) for a, b in zip(together, whole, strict=True))


def test_a_method_that_does_not_repeat_itself_is_noticed() -> None:
    whole, _ = outcomes(Line(), Script(jobs(0.5, 0.9)), StudyLimits(trials=2))
    with pytest.raises(ReplayError, match="start the study again"):
        outcomes(Line(), Script(jobs(0.5, 0.8)), StudyLimits(trials=2), recorded=whole)
    with pytest.raises(ReplayError, match="not asked for again"):
        outcomes(Line(), Script(jobs(0.5)), StudyLimits(trials=2), recorded=whole)


def test_full_cost_is_the_mean_over_the_space() -> None:
    assert full_cost(Line(price=2.0), count=4000) == pytest.approx(3.0, abs=0.05)


def test_limits_and_workers_are_checked() -> None:
    with pytest.raises(ValueError, match="one of `trials` and `cost`"):
        StudyLimits()
    with pytest.raises(ValueError, match="`cost` must be > 0"):
        StudyLimits(cost=0.0)
    with pytest.raises(ValueError, match="`workers` must be >= 1"):
        outcomes(Line(), Script([]), StudyLimits(trials=1), workers=0)
