"""Every way in which a config is proposed keeps the space's `where`."""

import math

import numpy as np
import pytest

from hpo import (
    ASHA,
    PBT,
    Axis,
    Categorical,
    Fidelity,
    Float,
    Int,
    Optimizer,
    Scale,
    SearchSpace,
    SpaceError,
    StagedOptimizer,
)

PARAMETERS = {
    "heads": Int(1, 64, log=True),
    "head_dim": Int(16, 256, multiple_of=16),
    "lr": Float(1e-4, 1e-1, log=True),
    "act": Categorical(["relu", "gelu"]),
}


def small(c):
    return c["heads"] * c["head_dim"] <= 512


def loss_of(c):  # falls with the size, so the best lies where `small` forbids
    size = math.log(c["heads"] * c["head_dim"])
    return -size + 0.1 * math.log(c["lr"] / 3e-3) ** 2 + (c["act"] == "relu")


@pytest.mark.parametrize("surrogate", ["gp", "quantile"])
def test_asks_and_the_recommendation_keep_the_predicate(surrogate):
    space = SearchSpace(PARAMETERS, where=small)
    optimizer = Optimizer(space, seed=1, surrogate=surrogate)
    for k in range(11):
        trial = optimizer.ask()
        assert small(trial.config)
        if k % 3:  # some stay pending
            optimizer.tell(trial, loss_of(trial.config))
    advice = optimizer.recommend()
    assert small(advice.config)
    assert advice.config["heads"] * advice.config["head_dim"] >= 128  # near the edge of the allowed


def test_told_configs_that_break_it_are_learned_from_but_not_repeated():
    optimizer = Optimizer(SearchSpace(PARAMETERS, where=small), seed=0)
    rng = np.random.default_rng(0)
    large = {"heads": 64, "head_dim": 256, "lr": 3e-3, "act": "gelu"}
    for _ in range(6):  # noisy, so that measuring the best again would pay
        optimizer.tell(large, loss_of(large) + rng.normal())
    for _ in range(10):
        trial = optimizer.ask()
        assert small(trial.config)
        optimizer.tell(trial, loss_of(trial.config) + rng.normal())
    assert small(optimizer.recommend().config)
    assert optimizer.result().best_observed.config == large  # what ran, ran


@pytest.mark.parametrize("scheduler", [ASHA(), PBT(population=4, interval=1, mutate=("lr", "wd"))])
def test_runs_that_pause_and_clones_keep_the_predicate(scheduler):
    def balanced(c):
        return c["lr"] * c["wd"] <= 1e-3

    space = SearchSpace(
        {
            "lr": Float(1e-4, 1.0, log=True),
            "wd": Float(1e-4, 1.0, log=True),
            "epochs": Fidelity(1, 9),
        },
        where=balanced,
    )
    engine = StagedOptimizer(Optimizer(space, seed=0), scheduler, seed=0)
    for _ in range(20):
        trial = engine.ask()
        if trial is None:
            break
        assert balanced(trial.config)
        engine.tell(trial, -math.log(trial.config["lr"] * trial.config["wd"]))


@pytest.mark.parametrize("wide", [False, True])
def test_the_answer_at_a_target_keeps_the_predicate_there(wide):
    def at_most(c):  # tighter at larger sizes
        return c["lr"] <= 1e-3 * (c["params"] / 1e6) ** -0.25

    settings = {"lr": Float(1e-5, 1e-1, log=True)} if wide else {}
    space = SearchSpace(
        {
            **settings,
            "act": Categorical(["relu", "gelu"]),
            "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
        },
        where=at_most if wide else lambda c: c["act"] == "gelu" or c["params"] < 1e8,
    )
    optimizer = Optimizer(space, target={"params": 1e9}, seed=0)
    for _ in range(11):
        trial = optimizer.ask()
        assert space.allows(trial.config)
        c = trial.config
        loss = 2.0 + 10 * c["params"] ** -0.2 + 0.1 * (c["act"] == "gelu")
        if wide:
            loss += 0.05 * math.log(c["lr"] / 1e-2) ** 2  # best where it is forbidden
        optimizer.tell(trial, loss, cost=6 * c["params"])
    advice = optimizer.recommend()
    assert space.allows(advice.config)
    assert advice.config["params"] == 1e9


def test_a_target_where_nothing_is_allowed_is_refused():
    space = SearchSpace(
        {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)},
        where=lambda c: c["params"] <= 1e8,
    )
    optimizer = Optimizer(space, seed=0)
    for _ in range(6):
        trial = optimizer.ask()
        optimizer.tell(trial, 1.0 + trial.config["lr"])
    with pytest.raises(SpaceError, match=r"`where` .* must allow some config at \{'params': 1"):
        optimizer.recommend({"params": 1e9})


def test_among_must_keep_it():
    optimizer = Optimizer(SearchSpace(PARAMETERS, where=small))
    large = {"heads": 64, "head_dim": 256, "lr": 3e-3, "act": "gelu"}
    with pytest.raises(SpaceError, match="`among` must hold only configs that `where`"):
        optimizer.ask(among=[large])


def test_a_forbidden_center_is_moved():
    space = SearchSpace(
        {"a": Float(0, 1, center=0.9), "b": Float(0, 1, center=0.9)},
        where=lambda c: c["a"] + c["b"] <= 1.0,
    )
    first = Optimizer(space).ask().config
    assert first["a"] + first["b"] <= 1.0


def test_a_predicate_that_always_holds_changes_no_ask():
    free = Optimizer(PARAMETERS, seed=3)
    bound = Optimizer(SearchSpace(PARAMETERS, where=lambda c: True), seed=3)
    for _ in range(11):
        one, other = free.ask(), bound.ask()
        assert one.config == other.config
        free.tell(one, loss_of(one.config))
        bound.tell(other, loss_of(other.config))
