"""`Budget(until=Regret(...))`: when a study ends by itself, what it says, and what is refused."""

import math

import numpy as np
import pytest
from optuna.storages import InMemoryStorage

from hpo import Budget, BudgetError, Float, Optimizer, Regret, Scale, SearchSpace, optimize
from hpo.models.stopping import expected_regret, least_runs
from tests.histories import models_of

SPACE = {"x": Float(0, 1)}


def train(config, ctx):
    return 3.0 + (config["x"] - 0.3) ** 2


def study(trials, until, **others):
    return optimize(train, SPACE, budget=Budget(trials=trials, until=until), seed=0, **others)


def test_a_study_ends_once_the_expected_regret_is_small_enough():
    result = study(40, Regret(1e-3))
    count = len(result.log)
    assert least_runs(result.models.encoder) <= count < 40
    assert result.expected_regret <= 1e-3
    assert result.best.loss - 3.0 <= 1e-3
    assert "Stopping here is expected to lose" in str(result)


def test_the_number_of_trials_is_a_cap():
    result = study(5, Regret(1e-3))
    assert len(result.log) == 5
    assert result.expected_regret is None
    assert "The budget of 5 trials is used up." in str(result)


def test_a_resumed_study_ends_where_an_undisturbed_one_does():
    whole, storage = study(40, Regret(1e-3)), InMemoryStorage()
    named = {"name": "s", "storage": storage}
    study(6, Regret(1e-3), **named)
    resumed = study(40, Regret(1e-3), **named)
    again = study(40, Regret(1e-3), **named)
    assert len(whole.log) == len(resumed.log) == len(again.log)


def test_a_smaller_tolerance_continues_a_study_that_has_ended():
    named = {"name": "s", "storage": InMemoryStorage()}
    first = study(40, Regret(1.0), **named)
    second = study(len(first.log) + 2, Regret(1e-12), **named)
    assert len(second.log) == len(first.log) + 2


def test_the_unit_is_that_of_the_objective_in_either_direction():
    def score(config, ctx):
        return -1000.0 * train(config, ctx)

    budget = Budget(trials=30, until=Regret(1.0))
    result = optimize(score, SPACE, budget=budget, direction="maximize", seed=0)
    assert len(result.log) < 30
    assert result.expected_regret <= 1.0


def test_failed_trials_are_no_evidence():
    def fails(config, ctx):
        return math.nan

    assert len(optimize(fails, SPACE, budget=Budget(trials=16, until=Regret(1e9))).log) == 16


def test_progress_counts_where_the_model_is_sure():
    xs = np.linspace(0.0, 1.0, 18)
    models = models_of(SPACE, [{"x": float(x)} for x in xs], [-x for x in xs])
    since_a_third = xs[-1] - xs[5]
    assert expected_regret(models) == pytest.approx(0.5 * since_a_third, rel=0.05)


def test_the_expected_regret_is_what_joint_draws_lose():
    rng = np.random.default_rng(0)
    xs = rng.random(16)
    xs[0] = 0.52  # the best comes first, so that there is no progress
    models = models_of(SPACE, [{"x": float(x)} for x in xs], list(np.sin(9 * xs)))
    found = expected_regret(models)
    grid = np.linspace(0, 1, 201)[:, None]
    best = models.runs.X[[int(np.argmin(models.loss().posterior(models.runs.X).mean))]]
    draws = models.loss().joint_posterior(np.concatenate([best, grid])).sample(4000, rng)
    exact = float(np.mean(draws[:, 0] - draws.min(axis=1)))
    assert found == pytest.approx(exact, rel=0.25, abs=1e-4)


def test_a_regret_needs_a_cap_and_one_loss_without_scale_axes():
    with pytest.raises(BudgetError, match="at least one of trials, seconds and cost"):
        optimize(train, SPACE, budget=Budget(until=Regret(0.1)))
    budget = Budget(trials=9, until=Regret(0.1))
    with pytest.raises(BudgetError, match="needs a space without Scale axes"):
        Optimizer(SearchSpace({**SPACE, "n": Scale(1, 9)}), budget=budget)
    with pytest.raises(BudgetError, match="needs one loss without constraints"):
        Optimizer(SPACE, budget=budget, constraints={"m": ("<=", 1)})


@pytest.mark.parametrize("tolerance", [0.0, -1.0, math.inf, "0.1", True])
def test_a_tolerance_is_a_positive_number(tolerance):
    with pytest.raises(BudgetError, match="`tolerance` of Regret must be a finite number above 0"):
        Regret(tolerance)


def test_until_must_be_a_regret():
    with pytest.raises(BudgetError, match=r"Budget\.until must be a Regret or None, got 0\.01"):
        Budget(trials=9, until=0.01)
    assert str(Budget(trials=9, until=Regret(0.01))) == (
        "9 trials, or an expected regret of at most 0.01"
    )
