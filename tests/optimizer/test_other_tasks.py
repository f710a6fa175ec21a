"""A search that learns from other tasks."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from hpo import Categorical, Float, Int, Optimizer
from hpo.trials import Reason, ReasonKind
from tests.histories import Config, random_configs, replay

SPACE = {
    "lr": Float(1e-4, 1.0, log=True),
    "depth": Int(1, 8),
    "kind": Categorical(["a", "b", "c"]),
}


def loss(config: Config, best: float) -> float:
    return (
        (np.log10(config["lr"]) - best) ** 2
        + 0.1 * (config["depth"] - 5) ** 2
        + (config["kind"] != "b")
    )


def others(shift: float = 0.0, seed: int = 0) -> dict[str, list[tuple[Config, float]]]:
    return {
        f"task {i}": [
            (config, loss(config, -2.0 + shift + 0.1 * i))
            for config in random_configs(SPACE, 40, seed=10 * seed + i)
        ]
        for i in range(3)
    }


def search(trials: int, best: float = -1.9, **options: Any) -> Optimizer:
    optimizer = Optimizer(SPACE, seed=0, **options)
    for _ in range(trials):
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.config, best))
    return optimizer


def best_losses(optimizer: Optimizer) -> list[float]:
    losses = [o.loss for o in optimizer.log.observations if o.loss is not None]
    return np.minimum.accumulate(losses).tolist()


def test_the_search_starts_and_goes_on_better_than_without_the_other_tasks():
    learned, alone = (best_losses(search(6, other_tasks=given)) for given in (others(), None))
    assert learned[0] < 0.5 * alone[2]
    assert learned[-1] < 0.5 * alone[-1]


def test_reasons_say_what_the_other_tasks_contributed():
    optimizer = search(5, other_tasks=others())
    reasons = [optimizer.log.trial(i).prediction.reason for i in range(5)]
    assert reasons[0].kind is ReasonKind.START_POINT
    assert {name for name, _ in reasons[0].other_tasks} <= set(others())
    last = reasons[-1]
    assert last.kind is ReasonKind.IMPROVE_LOSS
    assert 0.3 < sum(share for _, share in last.other_tasks) < 1.0
    assert "% from task" in str(last)
    assert Reason.from_json(json.loads(json.dumps(last.to_json()))) == last


def test_the_same_runs_give_the_same_asks_and_a_replayed_log_goes_on_alike():
    first = search(7, other_tasks=others())
    second = replay(first.log.events(), Optimizer(SPACE, seed=0, other_tasks=others()))
    assert first.ask().config == second.ask().config


def test_tasks_that_do_not_agree_leave_the_search_as_it_is_without_them():
    rng = np.random.default_rng(0)
    noise = {
        name: [(config, float(rng.random())) for config, _ in runs]
        for name, runs in others().items()
    }
    learned, alone = search(8, other_tasks=noise), search(8)
    assert [o.config for o in learned.log.observations] == [
        o.config for o in alone.log.observations
    ]


def test_tasks_that_agree_with_each_other_and_not_with_the_target_are_dropped():
    """They call the worst settings the best."""
    wrong = {name: [(config, -y) for config, y in runs] for name, runs in others().items()}
    learned = search(14, other_tasks=wrong)
    assert not learned.log.trial(13).prediction.reason.other_tasks
    assert best_losses(learned)[-1] < 0.5


def test_maximized_scores_of_other_tasks_are_maximized_too():
    scores = {name: [(config, -y) for config, y in runs] for name, runs in others().items()}
    optimizer = Optimizer(SPACE, direction="maximize", seed=0, other_tasks=scores)
    trial = optimizer.ask()
    assert loss(trial.config, -1.9) < 0.5


def test_pending_trials_and_recommendations_work_with_other_tasks():
    optimizer = search(4, other_tasks=others())
    first, second = optimizer.ask(), optimizer.ask()
    assert first.config != second.config
    advice = optimizer.recommend()
    assert advice.config["kind"] == "b"
    assert optimizer.result().best.loss == pytest.approx(best_losses(optimizer)[-1], abs=0.2)
