"""Start points from other tasks, and when these are used at all."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import pytest

from hpo import Categorical, Float
from hpo.models.other_tasks.tasks import PORTFOLIO, OtherTasks
from hpo.space import SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials.other_tasks import OtherTask
from tests.histories import Config, random_configs

SPACE = SearchSpace({"x": Float(0, 1), "kind": Categorical(["a", "b"])})


def runs(name: str, loss: Callable[[Config], float], seed: int, count: int = 40) -> OtherTask:
    configs = random_configs(SPACE, count, seed=seed)
    return OtherTask(name, tuple(configs), tuple(loss(config) for config in configs))


def near(best: float, kind: str = "a") -> Callable[[Config], float]:
    return lambda config: abs(config["x"] - best) + (config["kind"] != kind)


def shuffled(task: OtherTask, seed: int) -> OtherTask:
    losses = np.random.default_rng(seed).permutation(task.losses)
    return OtherTask(task.name, task.configs, tuple(losses.tolist()))


def test_the_first_start_points_did_best_on_the_tasks():
    tasks = OtherTasks(Encoder(SPACE), [runs("a", near(0.2), 0), runs("b", near(0.25), 1)])
    for start in tasks.portfolio():
        [config] = Encoder(SPACE).decode(start.row[None])
        assert config["kind"] == "a"
        assert config["x"] == pytest.approx(0.22, abs=0.1)


def test_groups_of_tasks_get_a_start_point_each_that_names_them():
    left, right = ([runs(f"{k}{i}", near(k), 10 * i) for i in range(3)] for k in (0.1, 0.9))
    tasks = OtherTasks(Encoder(SPACE), [*left, *right])
    starts = tasks.portfolio()
    assert len(starts) <= PORTFOLIO
    served = [name for start in starts for name, _ in start.other_tasks]
    assert sorted(served) == sorted(task.name for task in (*left, *right))
    xs = [Encoder(SPACE).decode(start.row[None])[0]["x"] for start in starts]
    assert min(xs) < 0.3 and max(xs) > 0.7


def test_a_single_task_suggests_one_start_point():
    assert len(OtherTasks(Encoder(SPACE), [runs("a", near(0.2), 0)]).portfolio()) == 1


def test_agreement_is_high_for_related_tasks_and_none_where_losses_are_shuffled():
    related = [runs(str(i), near(0.3 + 0.03 * i), i) for i in range(4)]
    assert OtherTasks(Encoder(SPACE), related).agreement > 0.6
    noise = [shuffled(task, i) for i, task in enumerate(related)]
    assert abs(OtherTasks(Encoder(SPACE), noise).agreement) < 0.15


def test_tasks_that_disagree_are_not_used_and_it_is_said(caplog):
    noise = [shuffled(runs(str(i), near(0.3), i), i) for i in range(4)]
    with caplog.at_level(logging.WARNING):
        assert OtherTasks.useful([Encoder(SPACE)], noise) == (None,)
    assert "do not agree with each other" in caplog.text


def test_a_task_of_many_runs_keeps_its_best_ones():
    many = runs("a", near(0.2), 0, count=600)
    tasks = OtherTasks(Encoder(SPACE), [many, runs("b", near(0.2), 1)])
    best = many.configs[int(np.argmin(many.losses))]
    row = Encoder(SPACE).encode([best])[0]
    assert any(np.array_equal(row, kept) for kept in tasks.best_rows)
