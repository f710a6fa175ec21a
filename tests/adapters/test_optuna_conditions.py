"""Declared conditions that the objective does not follow."""

from __future__ import annotations

import optuna
import pytest

from hpo import Categorical, Float
from hpo.adapters.optuna import ScaleTuneSampler
from hpo.space import Parameter

SPACE: dict[str, Parameter] = {
    "opt": Categorical(["a", "b"]),
    "x": Float(0, 1, when=("opt", ["a"])),
    "y": Float(0, 1),
}


def always(trial: optuna.Trial) -> float:
    """Suggests x under either optimizer, whatever was declared."""
    worse = 0.1 * (trial.suggest_categorical("opt", ["a", "b"]) == "b")
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    return (x - 0.3) ** 2 + (y - 0.7) ** 2 + worse


def otherwise(trial: optuna.Trial) -> float:
    """Suggests x under the other optimizer than was declared."""
    opt = trial.suggest_categorical("opt", ["a", "b"])
    y = trial.suggest_float("y", 0, 1)
    x = trial.suggest_float("x", 0, 1) if opt == "b" else 0.5
    return (x - 0.3) ** 2 + (y - 0.7) ** 2


@pytest.mark.parametrize("objective", [always, otherwise])
def test_where_trials_contradict_a_declared_condition_they_are_followed_and_one_line_says_so(
    objective: object, caplog: pytest.LogCaptureFixture
) -> None:
    study = optuna.create_study(sampler=ScaleTuneSampler(SPACE, seed=0))
    with caplog.at_level("WARNING", logger="hpo"):
        study.optimize(objective, n_trials=14)  # type: ignore[arg-type]
    assert study.best_value < 0.05
    said = [r.getMessage() for r in caplog.records if r.name.startswith("hpo")]
    assert len(said) == 1
    assert "'x' was suggested where its declared when=('opt', ('a',)) says" in said[0]
    assert "correct `when` in space=" in said[0]


def test_a_condition_that_the_trials_follow_stays_and_nothing_is_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def as_declared(trial: optuna.Trial) -> float:
        opt, y = trial.suggest_categorical("opt", ["a", "b"]), trial.suggest_float("y", 0, 1)
        return (trial.suggest_float("x", 0, 1) if opt == "a" else 0.5) + y

    study = optuna.create_study(sampler=ScaleTuneSampler(SPACE, seed=0))
    with caplog.at_level("WARNING", logger="hpo"):
        study.optimize(as_declared, n_trials=8)
    assert [r for r in caplog.records if r.name.startswith("hpo")] == []
