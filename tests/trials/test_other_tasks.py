"""Runs of other tasks, read from what users have."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest

from hpo import Float, Optimizer, SpaceError
from hpo.space import Direction, SearchSpace
from hpo.trials.other_tasks import changes, fingerprint, read_other_tasks
from hpo.trials.read_runs import read_runs
from tests.histories import log_of, observation

SPACE = SearchSpace({"x": Float(0, 1)})


def read(given: Any, direction: Direction = Direction.MINIMIZE) -> dict[str, list[float]]:
    return {task.name: list(task.losses) for task in read_other_tasks(given, SPACE, direction)}


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def study(xs: list[float], losses: list[float], direction: str = "minimize") -> optuna.Study:
    made = optuna.create_study(direction=direction)
    for x, loss in zip(xs, losses, strict=True):
        distributions = {"x": optuna.distributions.FloatDistribution(0, 1)}
        made.add_trial(
            optuna.trial.create_trial(params={"x": x}, distributions=distributions, value=loss)
        )
    return made


def test_runs_are_taken_from_everything_that_holds_some(tmp_path):
    log = log_of([{"x": 0.1}, {"x": 0.2}], [1.0, 2.0])
    optimizer = Optimizer(SPACE)
    optimizer.tell({"x": 0.1}, 1.0)
    optimizer.tell({"x": 0.2}, 2.0)
    sources = {
        "pairs": [({"x": 0.1}, 1.0), ({"x": 0.2}, 2.0)],
        "observations": list(log.observations),
        "an object with observations": SimpleNamespace(observations=log.observations),
        "an optimizer": optimizer,
        "a result": optimizer.result(),
        "a table": [{"x": 0.1, "loss": 1.0}, {"x": 0.2, "loss": 2.0}],
        "a file": write(tmp_path / "runs.csv", "x,loss\n0.1,1.0\n0.2,2.0\n"),
        "an Optuna study": study([0.1, 0.2], [1.0, 2.0]),
        "what was read": read_runs([{"x": 0.1, "loss": 1.0}, {"x": 0.2, "loss": 2.0}], space=SPACE),
    }
    assert read(sources) == dict.fromkeys(sources, [1.0, 2.0])


def test_only_completed_runs_count_and_a_task_without_one_is_left_out():
    runs = [observation(0, {"x": 0.1}, 1.0), observation(1, {"x": 0.2}, None)]
    assert read({"a": runs, "b": runs[1:], "c": [({"x": 0.3}, float("nan"))]}) == {"a": [1.0]}


def test_what_was_read_is_read_again_as_it_is():
    tasks = read_other_tasks({"a": [({"x": 0.1}, 1.0)]}, SPACE, Direction.MINIMIZE)
    assert read_other_tasks(tasks, SPACE, Direction.MINIMIZE) is tasks
    assert read_other_tasks(None, SPACE, Direction.MINIMIZE) == ()


def test_runs_beyond_the_space_are_left_out_and_said(caplog):
    with caplog.at_level(logging.WARNING):
        assert read({"a": [({"x": 0.1}, 1.0), ({"x": 7.0}, 0.5)]}) == {"a": [1.0]}
    assert "'a': 1 of 2 runs are left out" in caplog.text


def test_a_task_of_another_space_is_refused():
    with pytest.raises(SpaceError, match="task 'a' must have configs of the space"):
        read({"a": [({"lr": 0.1}, 1.0)]})


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        ([({"x": 0.1}, 1.0)], TypeError, "must map names of tasks to their runs"),
        ({1: []}, TypeError, "names of tasks as keys"),
        ({"a": 3.0}, TypeError, "must hold runs for each task"),
        ({"a": "missing.csv"}, ValueError, "missing.csv' for 'a' cannot be read"),
        ({"a": [0.1, 1.0]}, TypeError, "must be an Observation or"),
        ({"a": [({"x": 0.1}, "low")]}, ValueError, "must be a number, got 'low' in 'a'"),
    ],
)
def test_what_holds_no_runs_is_refused(given, error, said):
    with pytest.raises(error, match=said):
        read(given)


def test_losses_of_the_other_direction_are_refused():
    runs = SimpleNamespace(observations=[], direction="maximize")
    with pytest.raises(ValueError, match="negate its losses"):
        read({"a": runs})
    assert read({"a": runs}, Direction.MAXIMIZE) == {}
    with pytest.raises(ValueError, match="negate its losses"):
        read({"a": study([0.1], [1.0], "maximize")})


def test_a_fingerprint_tells_tasks_apart_by_their_runs():
    a, b = ([({"x": 0.1}, 1.0)], [({"x": 0.1}, 1.5)])
    one, other, same = (
        fingerprint(read_other_tasks({"a": runs}, SPACE, Direction.MINIMIZE)) for runs in (a, b, a)
    )
    assert one == same != other
    assert changes(one, same) == ""
    assert changes(one, other) == "'a' has other runs"
    assert changes(one, {}) == "'a' is gone"
    assert changes({}, one) == "'a' is new"
