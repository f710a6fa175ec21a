"""Spaces far larger than any that is searched well still answer."""

import time
from typing import Any

import pytest

from hpo import Axis, Categorical, Fidelity, Float, Optimizer, Scale

pytestmark = pytest.mark.engine
LONGEST = 15.0  # seconds of processor time of one ask


def many(count: int) -> dict[str, Any]:
    return {f"x{i}": Float(0, 1) for i in range(count)}


def switched(count: int) -> dict[str, Any]:
    switches = {f"on{i}": Categorical([True, False]) for i in range(count)}
    return switches | {f"x{i}": Float(0, 1, when=(f"on{i}", [True])) for i in range(count)}


@pytest.mark.parametrize(
    "space",
    [
        many(1000),
        {"x": Float(0, 1), "choice": Categorical([f"c{i}" for i in range(500)])},
        switched(200),
        {**many(300), "N": Scale(1e5, 1e7, axis=Axis.PARAMS)},
        {**many(1000), "epochs": Fidelity(1, 9)},
    ],
    ids=["dimensions", "choices", "conditions", "sizes", "epochs"],
)
def test_every_ask_of_a_large_space_answers_soon(space):
    optimizer = Optimizer(space, seed=0)
    for i in range(12):
        began = time.process_time()
        trial = optimizer.ask()
        assert time.process_time() - began < LONGEST
        assert trial.prediction is not None and not trial.prediction.degraded
        numbers = [v for v in trial.config.values() if isinstance(v, float) and v <= 1.0]
        optimizer.tell(trial, sum((v - 0.3) ** 2 for v in numbers) / len(space) + 0.01 * i)
