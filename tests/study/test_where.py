"""`where` in a study: what a resume says, enqueued trials, and what is refused."""

import logging

import optuna
import pytest
from optuna.storages import InMemoryStorage

from hpo import Budget, Fidelity, Float, Int, SpaceError, load_result, optimize
from hpo.adapters.optuna import ScaleTuneSampler
from hpo.space import SearchSpace

SPACE = {"a": Float(0, 1), "b": Float(0, 1)}


def train(config, ctx):
    return -(config["a"] + config["b"])


def below(c):
    return c["a"] + c["b"] <= 0.8


@pytest.fixture
def call():
    storage = InMemoryStorage()

    def run(trials, where=None):
        budget = Budget(trials=trials)
        return optimize(train, SPACE, budget=budget, where=where, name="s", storage=storage)

    run.storage = storage
    return run


def test_every_trial_and_the_confirmed_recommendation_keep_it():
    result = optimize(train, SPACE, budget=Budget(trials=12), where=below, confirm=1)
    assert len(result.log) == 13
    assert all(below(observation.config) for observation in result.log.observations)
    best = result.best.config
    assert best["a"] + best["b"] > 0.7


def test_a_resume_says_which_stored_trials_it_forbids(call, caplog):
    free = call(6)
    forbidden = [o.number for o in free.log.observations if not below(o.config)]
    with caplog.at_level(logging.WARNING):
        result = call(9, below)
    numbers = ", ".join(map(str, forbidden[:5]))
    said = f"where=below forbids {len(forbidden)} of the 6 trials that the study holds ({numbers}"
    assert said in caplog.text
    assert all(below(o.config) for o in result.log.observations[6:])


def test_a_resume_without_it_says_so(call, caplog):
    call(4, below)
    with caplog.at_level(logging.WARNING):
        call(5)
    assert "the study was searched with where=below before; this call has none" in caplog.text


def test_a_resume_with_it_says_nothing_more(call, caplog):
    call(4, below)
    with caplog.at_level(logging.WARNING):
        call(5, below)
    assert "where" not in caplog.text


def test_a_loaded_result_keeps_it_if_it_is_given(call, caplog):
    call(10, below)
    with caplog.at_level(logging.WARNING):
        load_result("s", storage=call.storage)
    assert "was searched with where=below, which is not stored with it" in caplog.text
    caplog.clear()
    loaded = load_result("s", storage=call.storage, where=below)
    assert "where" not in caplog.text
    assert below(loaded.recommend().config)


def test_enqueued_trials_are_completed_so_that_it_holds_or_named(call, caplog):
    call(3, below)
    study = optuna.load_study(study_name="s", storage=call.storage)
    study.enqueue_trial({"a": 0.7})
    study.enqueue_trial({"a": 0.9})
    with caplog.at_level(logging.WARNING):
        result = call(6, below)
    started = [o.config for o in result.log.observations if o.config["a"] == 0.7]
    assert len(started) == 1
    assert below(started[0])
    assert "`where` (below) forbids {'a': 0.9}" in caplog.text


def test_a_predicate_that_allows_nothing_is_refused_before_anything_is_written():
    storage = InMemoryStorage()
    with pytest.raises(SpaceError, match="must allow some config"):
        optimize(
            train, {"n": Int(1, 9)}, budget=Budget(trials=3), where=lambda c: c["n"] > 9,
            name="s", storage=storage,
        )  # fmt: skip
    assert not optuna.get_all_study_summaries(storage)


def test_an_extended_study_keeps_it():
    from hpo import ASHA

    space = {**SPACE, "epochs": Fidelity(1, 3)}
    result = optimize(train, space, budget=Budget(trials=6), scheduler=ASHA(), where=below)
    longer = result.extend(max_fidelity=9, budget=Budget(trials=10))
    assert all(below(trial.config) for trial in longer.log.trials)


def test_the_sampler_of_optuna_refuses_it():
    with pytest.raises(SpaceError, match="`space` must have no `where`"):
        ScaleTuneSampler(SearchSpace(SPACE, where=below))
