"""`optimize(other_tasks=...)`: a durable study that learns from other tasks."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from hpo import Budget, Result, load_result, optimize
from tests.histories import random_configs
from tests.study.studies import SPACE, Config, asks, bowl

OTHERS: dict[str, list[tuple[Config, float]]] = {
    f"task {i}": [
        (config, (config["x"] - 0.1 * i) ** 2 + (config["kind"] == "b"))
        for config in random_configs(SPACE, 25, seed=i)
    ]
    for i in range(2)
}


def study(trials: int, folder: Path, **options: Any) -> Result:
    return optimize(
        bowl,
        SPACE,
        budget=Budget(trials=trials),
        cost="units",
        name="mine",
        storage=f"sqlite:///{folder / 'studies.db'}",
        **options,
    )


def test_a_study_in_parts_asks_the_same_as_one_in_one_piece(tmp_path: Path, caplog: Any) -> None:
    parts, whole = tmp_path / "parts", tmp_path / "whole"
    parts.mkdir()
    whole.mkdir()
    with caplog.at_level(logging.WARNING):
        study(3, parts, other_tasks=OTHERS)
        continued = study(6, parts, other_tasks=OTHERS)
    assert "other tasks" not in caplog.text
    assert asks(continued) == asks(study(6, whole, other_tasks=OTHERS))


def test_a_study_that_learns_from_other_tasks_than_before_says_so(
    tmp_path: Path, caplog: Any
) -> None:
    study(2, tmp_path, other_tasks=OTHERS)
    fewer = {"task 0": OTHERS["task 0"], "task 1": OTHERS["task 1"][:20]}
    with caplog.at_level(logging.WARNING):
        study(3, tmp_path, other_tasks=fewer)
    assert "'task 1' has other runs" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        study(4, tmp_path)
    assert "'task 0' is gone, 'task 1' is gone" in caplog.text


def test_a_result_is_loaded_with_and_without_the_other_tasks(tmp_path: Path) -> None:
    done = study(4, tmp_path, other_tasks=OTHERS)
    storage = f"sqlite:///{tmp_path / 'studies.db'}"
    learned = load_result("mine", storage=storage, other_tasks=OTHERS)
    assert learned.recommend().config == done.recommend().config
    without = load_result("mine", storage=storage)
    assert without.best_observed.number == done.best_observed.number


def test_the_result_of_one_study_teaches_another() -> None:
    first = optimize(bowl, SPACE, budget=Budget(trials=12), cost="units", seed=1)
    second = optimize(
        bowl, SPACE, budget=Budget(trials=2), cost="units", other_tasks={"first": first}
    )
    start = second.log.trial(0)
    assert start.config["x"] == pytest.approx(first.best_observed.config["x"], abs=0.05)
    assert start.config["kind"] == "a"
    assert start.prediction is not None and start.prediction.reason is not None
    assert start.prediction.reason.other_tasks == (("first", 1.0),)


def test_a_bad_source_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="`other_tasks` must map names of tasks"):
        study(2, tmp_path, other_tasks=[1, 2])
    assert not list(tmp_path.iterdir())
