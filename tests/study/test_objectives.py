"""`optimize` with several objectives and constraints: returns, resume, schedulers, refusals."""

import math

import pytest
from optuna.storages import InMemoryStorage

from hpo import ASHA, Budget, Fidelity, Float, Status, StudyError, load_result, optimize

SPACE = {"x": Float(0, 1)}
BOTH = {"error": "minimize", "latency": "minimize"}
LIMIT = {"memory": ("<=", 0.7)}


def train(config, ctx):
    x = config["x"]
    return {"error": (x - 0.9) ** 2, "latency": x, "memory": x}


def study(trials, storage=None, *, train_fn=train, **others):
    arguments = {"objectives": BOTH, "constraints": LIMIT, "seed": 0, **others}
    name = None if storage is None else "s"
    budget = Budget(trials=trials)
    return optimize(train_fn, SPACE, budget=budget, name=name, storage=storage, **arguments)


def test_a_resumed_study_asks_what_an_undisturbed_one_asks():
    storage = InMemoryStorage()
    study(5, storage)
    resumed = study(7, storage)
    whole = study(7)
    assert [t.config for t in resumed.log.trials] == [t.config for t in whole.log.trials]
    assert resumed.pareto_set == whole.pareto_set
    assert load_result("s", storage=storage).pareto_set == whole.pareto_set


def test_a_study_with_other_objectives_is_refused():
    storage = InMemoryStorage()
    study(1, storage)
    said = (
        "is to minimize error, minimize latency, memory <= 0.7, got minimize latency, minimize"
        " error, memory <= 0.7"
    )
    with pytest.raises(StudyError, match=said):
        study(2, storage, objectives=dict(reversed(BOTH.items())))
    with pytest.raises(StudyError, match="got optimize the loss"):
        optimize(train, SPACE, budget=Budget(trials=2), name="s", storage=storage)


def test_the_first_objective_may_be_maximized():
    def score(config, ctx):
        return {"score": -((config["x"] - 0.9) ** 2), "latency": config["x"]}

    wanted = {"score": "maximize", "latency": "minimize"}
    result = study(6, train_fn=score, objectives=wanted, constraints=None)
    assert result.best_observed.loss == max(o.loss for o in result.log.observations)
    assert str(result).startswith("Maximized score and minimized latency")
    table = result.to_pandas()
    assert (table["score"] == table["loss"]).all()


def test_a_missing_value_ends_the_study_and_names_it():
    def forgets(config, ctx):
        return {"error": 1.0, "latency": 1.0}

    with pytest.raises(ValueError, match='got no number for "memory" among'):
        study(2, train_fn=forgets)


def test_a_missing_first_objective_is_named():
    with pytest.raises(ValueError, match='must have an entry "error", got the keys'):
        study(2, train_fn=lambda config, ctx: {"loss": 1.0, "latency": 1.0})


def test_a_value_that_was_reported_need_not_be_returned_and_one_that_is_nan_fails():
    def reports(config, ctx):
        ctx.report(step=1, loss=1.0, metrics={"latency": 2.0, "memory": 0.5})
        return {"error": 1.0, "latency": math.nan} if config["x"] > 0.5 else {"error": 1.0}

    result = study(4, train_fn=reports)
    for observation in result.log.observations:
        failed = observation.config["x"] > 0.5
        assert (observation.status is Status.FAILED) == failed
        assert ("'latency' became nan" in observation.error) == failed
    assert {member.values["latency"] for member in result.pareto_set} == {2.0}


def test_runs_stop_early_by_the_first_objective():
    def stages(config, ctx):
        for step in range(1, ctx.fidelity + 1):
            ctx.report(step=step, loss=(config["x"] - 0.9) ** 2 + 1 / step)
        return {"error": (config["x"] - 0.9) ** 2 + 1 / ctx.fidelity, "latency": config["x"]}

    space = {**SPACE, "epochs": Fidelity(1, 9)}
    result = optimize(
        stages, space, budget=Budget(trials=9), scheduler=ASHA(), objectives=BOTH, seed=0
    )
    levels = [trial.assignment.level for trial in result.log.trials]
    assert min(levels) == 1
    assert result.log.paused
    assert set(result.to_pandas()["trained_level"]) > {1}


def test_confirming_a_recommendation_needs_one_loss():
    with pytest.raises(ValueError, match="`confirm` needs one loss without constraints"):
        study(2, confirm=1)
