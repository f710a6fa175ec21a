"""Going on from earlier runs: they count as told, outside the budget, and only once."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.storages import InMemoryStorage

from hpo import (
    Budget,
    Cause,
    Float,
    Optimizer,
    Result,
    SpaceError,
    Status,
    load_result,
    optimize,
    read_runs,
)
from hpo.trials.read_runs import RunFileError

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "wd": Float(0.0, 0.5)}
ROWS = [
    {"lr": lr, "wd": wd, "loss": (lr - 3e-3) ** 2 * 1e4 + wd}
    for lr in (1e-3, 3e-3, 1e-2)
    for wd in (0.1, 0.2)
]


def train(config: dict[str, Any], ctx: Any) -> float:
    return float((config["lr"] - 3e-3) ** 2 * 1e4 + config["wd"])


def run(trials: int, **options: Any) -> Result:
    return optimize(train, SPACE, budget=Budget(trials=trials), callbacks=(), **options)


def test_earlier_runs_count_as_told_and_not_against_the_budget() -> None:
    result = run(3, history=ROWS)
    told = result.log.observations
    assert [o.ask_index is None for o in told] == [True] * 6 + [False] * 3
    assert [o.loss for o in told[:6]] == [row["loss"] for row in ROWS]
    # nothing is left of the start points: the first ask has something to learn from
    asked = result.log.trial(told[6].number)
    assert asked.prediction is not None and asked.prediction.loss is not None


def test_the_asks_are_those_of_an_optimizer_that_was_told_the_same_runs() -> None:
    optimizer = Optimizer(SPACE, seed=3)
    assert optimizer.tell_many(ROWS) == 6
    first = optimizer.ask()
    asked = run(1, history=ROWS, seed=3).log.observations[-1]
    assert asked.config == first.config


def test_a_resumed_study_knows_its_history_and_is_told_nothing_twice(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'runs.db'}"
    path = tmp_path / "sweep.csv"
    pd.DataFrame(ROWS).to_csv(path, index=False)
    run(2, name="a", storage=storage, history=path)
    without = run(4, name="a", storage=storage)
    assert len(without.log) == 10
    again = run(5, name="a", storage=storage, history=path)
    assert len(again.log) == 11
    more = [*ROWS, {"lr": 2e-2, "wd": 0.3, "loss": 5.0}, ROWS[0]]
    grown = run(6, name="a", storage=storage, history=more)
    assert len(grown.log) == 14  # two runs are new, one of them a replicate
    loaded = load_result("a", storage=storage)
    assert loaded.log.observations == grown.log.observations
    whole = run(6, name="b", storage=storage, history=path)
    assert [o.config for o in whole.log.observations[:8]] == [
        o.config for o in grown.log.observations[:8]
    ]


def test_a_study_in_pieces_asks_what_one_in_one_piece_asks() -> None:
    storage = InMemoryStorage()
    for trials in (2, 3, 5):
        pieces = run(trials, name="a", storage=storage, history=ROWS)
    whole = run(5, history=ROWS)
    assert [o.config for o in pieces.log.observations] == [o.config for o in whole.log.observations]


def test_failed_and_stopped_runs_and_their_costs_are_kept() -> None:
    rows = [
        {"lr": 1e-3, "wd": 0.1, "loss": 2.0, "flops": 3.0, "state": "finished", "runtime": 60},
        {"lr": 1e-1, "wd": 0.1, "loss": "nan", "flops": 2.0, "state": "failed", "runtime": None},
        {"lr": 2e-3, "wd": 0.1, "loss": 2.5, "flops": 1.0, "state": "killed", "runtime": 30},
        {"lr": 5e-2, "wd": 0.1, "loss": None, "flops": 1.0, "state": "oom", "runtime": 30},
    ]

    def priced(config: dict[str, Any], ctx: Any) -> dict[str, float]:
        return {"loss": train(config, ctx), "cost": 1.0}

    budget = Budget(trials=1, cost=5.0)
    result = optimize(priced, SPACE, budget=budget, cost="flops", history=rows)
    told = result.log.observations[:4]
    assert [(o.status, o.cause, o.loss, o.cost) for o in told] == [
        (Status.COMPLETED, None, 2.0, 3.0),
        (Status.FAILED, Cause.DIVERGED, None, 2.0),
        (Status.STOPPED, None, 2.5, 1.0),
        (Status.FAILED, Cause.OOM, None, 1.0),
    ]
    assert told[0].seconds == pytest.approx(60.0)
    assert len(result.log) == 5  # the costs of the past are not in the budget


def test_ten_failures_of_the_past_do_not_end_a_study() -> None:
    rows = [{"lr": 1e-2, "wd": k / 100, "loss": None} for k in range(12)]
    assert len(run(1, history=[*rows, *ROWS]).log) == 19


def test_results_studies_and_read_runs_are_histories_too() -> None:
    optimizer = Optimizer(SPACE)
    optimizer.tell_many(ROWS)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(lambda t: t.suggest_float("lr", 1e-3, 1e-2) + t.suggest_float("wd", 0, 0.5), 4)
    for source, count in (
        (optimizer.result(), 6),
        (optimizer, 6),
        (read_runs(ROWS, space=SPACE), 6),
        (read_runs(ROWS), 6),
        (study, 4),
        (list(optimizer.log.observations), 6),
    ):
        assert len(run(1, history=source).log) == count + 1


def test_runs_outside_the_space_are_left_out_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    outside = read_runs([*ROWS, {"lr": 0.9, "wd": 0.1, "loss": 1.0}])
    with caplog.at_level(logging.WARNING):
        assert len(run(1, history=outside).log) == 7
    assert "left out 1 runs from the list" in caplog.text
    with pytest.raises(SpaceError, match="can hold none of the runs"):
        run(1, history=read_runs([{"lr": 5.0 + k, "wd": 0.1 * k, "loss": 1.0} for k in range(2)]))
    with pytest.raises(RunFileError, match="needs a column for `wd`"):
        run(1, history=[{"lr": 1e-3, "loss": 1.0}])


def test_losses_of_the_other_direction_are_refused() -> None:
    with pytest.raises(ValueError, match="direction of the search, maximize, got minimize"):
        optimize(
            train,
            SPACE,
            budget=Budget(trials=1),
            direction="maximize",
            history=read_runs(ROWS, space=SPACE),
        )


def test_two_drivers_that_give_the_same_history_at_once_tell_it_once(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'runs.db'}"
    run(1, name="a", storage=storage, history=ROWS)
    study = optuna.load_study(study_name="a", storage=storage)
    first = study.get_trials()[0]
    study.add_trial(first)  # what a second driver wrote before it saw the first one's
    assert len(run(2, name="a", storage=storage).log) == 8


def test_an_optuna_study_of_another_sampler_is_loaded_as_a_result() -> None:
    storage = InMemoryStorage()
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(sampler=sampler, storage=storage, study_name="theirs")
    study.optimize(lambda t: (t.suggest_float("lr", 1e-4, 1e-1, log=True) - 3e-3) ** 2, 15)
    result = load_result("theirs", storage=storage)
    assert len(result.log) == 15
    assert result.best_observed.loss == study.best_value
    assert 1e-4 < result.recommend().config["lr"] < 1e-2
    assert result.study is not None and result.study.study_name == "theirs"
