"""The engine is a pure function of its log: same log, same asks, to the last bit.

A run is recorded; at many points of it an optimizer is rebuilt from nothing but the recorded trials
and observations, in the order they were told, and must propose what the one that lived through it
did.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from hpo.optimizer.ask_tell import Optimizer, Proposal
from hpo.space import Axis, Categorical, Float, Int, Parameter, Scale
from hpo.trials import Observation, Prediction, Report, Trial
from hpo.trials.budget import Budget

pytestmark = pytest.mark.engine


@dataclass(frozen=True)
class Case:
    """A kind of study: its space and arguments, asks, and a history that includes failures."""

    space: dict[str, Parameter]
    arguments: dict[str, Any]
    asks: int

    def optimizer(self, seed: int = 0) -> Optimizer:
        return Optimizer(self.space, seed=seed, **self.arguments)


CASES = {
    "plain": Case({"x": Float(0, 1), "lr": Float(1e-4, 1.0, log=True), "y": Float(-2, 2)}, {}, 60),
    "mixed": Case(
        {
            "lr": Float(center=1e-2, spread=1.0, log=True),
            "layers": Int(1, 12),
            "kind": Categorical(["a", "b", "c"]),
            "beta": Float(0.9, 0.999, logit=True, when=("kind", ["a", "b"])),
        },
        {"direction": "maximize"},
        60,
    ),
    "wide": Case({"decay": Float(1e-6, 0.1), "units": Int(1, 300), "y": Float(-2, 2)}, {}, 40),
    "cost-aware": Case(
        {"x": Float(0, 1), "width": Int(8, 512, multiple_of=8, log=True)},
        {"cost": "seconds", "budget": Budget(cost=2000.0, per_trial=60.0)},
        60,
    ),
    "scale": Case(
        {
            "lr": Float(1e-4, 1e-1, log=True),
            "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
            "tokens": Scale(1e6, 1e9, axis=Axis.TOKENS),
        },
        {"cost": "flops", "target": {"params": 1e8, "tokens": 1e10}},
        26,
    ),
}


def outcome(config: dict[str, Any]) -> dict[str, Any]:
    """Deterministic result of a config: mostly a loss and a cost, sometimes a failure."""
    rows = [v if isinstance(v, int | float) else len(str(v)) for v in config.values()]
    size = float(np.sum(np.log1p(np.abs(rows))))
    cost = config.get("width", 4.0) / 4.0 * (1.0 + config.get("x", 0.0))
    if "params" in config:
        cost = 6.0 * config["params"] * config["tokens"]
    if np.sin(50.0 * size) > 0.9:
        return {"failed": "diverged", "cost": 0.5 * cost}
    return {"loss": float(np.sin(3.0 * size) + 0.1 * size), "cost": cost}


@dataclass(frozen=True)
class Step:
    """What was proposed after the first `added` trials and `told` observations of a run."""

    added: int
    told: int
    proposal: Proposal


def live(case: Case, workers: int, seed: int = 0) -> tuple[Optimizer, list[Step]]:
    """A run of `workers` that finish out of order, and what each ask of it proposed."""
    optimizer, steps = case.optimizer(seed), []
    rng = np.random.default_rng(17)
    running: list[Trial] = []
    for _ in range(case.asks):
        steps.append(
            Step(len(optimizer.log.trials), len(optimizer.log.observations), optimizer.propose())
        )
        running.append(optimizer.ask())
        while len(running) >= workers:
            trial = running.pop(int(rng.integers(len(running))))
            optimizer.tell(trial, **outcome(trial.config))
    return optimizer, steps


def rebuilt(case: Case, log: Optimizer, step: Step, seed: int = 0) -> Optimizer:
    """An optimizer that knows nothing but the first trials and observations of `log`."""
    optimizer = case.optimizer(seed)
    for trial in log.log.trials[: step.added]:
        optimizer.add_pending(trial)
    for observation in log.log.observations[: step.told]:
        optimizer.record(observation)
    return optimizer


def points(steps: list[Step]) -> Iterator[Step]:
    """Every seventh step and the last: points on and between refits."""
    yield from steps[::7]
    yield steps[-1]


@pytest.fixture(scope="module")
def runs() -> Callable[[str, int], tuple[Optimizer, list[Step]]]:
    """Runs by case and workers, made once."""
    made: dict[tuple[str, int], tuple[Optimizer, list[Step]]] = {}

    def run(name: str, workers: int) -> tuple[Optimizer, list[Step]]:
        if (name, workers) not in made:
            made[name, workers] = live(CASES[name], workers)
        return made[name, workers]

    return run


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("name", CASES)
def test_an_optimizer_rebuilt_from_the_log_proposes_the_same_bits(runs, name, workers):
    optimizer, steps = runs(name, workers)
    for step in points(steps):
        assert rebuilt(CASES[name], optimizer, step).propose() == step.proposal


@pytest.mark.parametrize("name", CASES)
def test_the_answer_of_a_rebuilt_optimizer_is_the_same(runs, name):
    optimizer, steps = runs(name, 1)
    end = Step(len(optimizer.log.trials), len(optimizer.log.observations), steps[-1].proposal)
    assert rebuilt(CASES[name], optimizer, end).recommend() == optimizer.recommend()


@pytest.mark.parametrize("name", ["mixed", "cost-aware"])
def test_a_rebuilt_optimizer_carries_on_as_the_first_would_have(runs, name):
    optimizer, steps = runs(name, 1)
    step = steps[23]
    second = rebuilt(CASES[name], optimizer, step)
    for later in steps[23:40]:
        trial = second.ask()
        assert (trial.config, trial.prediction) == (
            later.proposal.config,
            later.proposal.prediction,
        )
        second.tell(trial, **outcome(trial.config))


def test_asking_in_between_does_not_change_what_follows(runs):
    """Models fitted at odd moments, by results or extra proposals, leave no trace."""
    optimizer, steps = runs("plain", 1)
    case = CASES["plain"]
    curious = case.optimizer()
    for index, step in enumerate(steps[:30]):
        if index % 3 == 0 and any(o.loss is not None for o in curious.log.observations):
            curious.propose()
            _ = curious.result().best
            curious.recommend()
        trial = curious.ask()
        assert trial.config == step.proposal.config
        curious.tell(trial, **outcome(trial.config))


def test_a_rebuild_that_skipped_asks_equals_one_that_made_them(runs):
    """Telling fifty results at once meets refits the other optimizer made one by one."""
    optimizer, steps = runs("mixed", 1)
    assert rebuilt(CASES["mixed"], optimizer, steps[50]).propose() == steps[50].proposal


def test_the_recorded_order_of_several_workers_gives_the_same_asks_again(runs):
    optimizer, steps = runs("cost-aware", 4)
    again, made = live(CASES["cost-aware"], 4)
    assert [step.proposal for step in made] == [step.proposal for step in steps]
    assert [o.number for o in again.log.observations] == [
        o.number for o in optimizer.log.observations
    ]


def test_the_order_of_tells_is_part_of_the_log(runs):
    """Refits happen at counts, so what the first of them saw depends on the order."""
    optimizer, _ = runs("plain", 1)
    case = CASES["plain"]
    observations = optimizer.log.observations[:25]

    def told_in(order: list[Observation]) -> Proposal:
        other = case.optimizer()
        for trial in optimizer.log.trials[:25]:
            other.add_pending(trial)
        for observation in order:
            other.record(observation)
        return other.propose()

    forward, backward = told_in(list(observations)), told_in(list(observations[::-1]))
    assert forward == told_in(list(observations))
    assert backward == told_in(list(observations[::-1]))
    assert forward.prediction != backward.prediction


def test_what_is_stored_as_json_is_enough_for_the_same_asks(runs):
    optimizer, steps = runs("cost-aware", 1)
    step, second = steps[30], CASES["cost-aware"].optimizer()
    for trial in optimizer.log.trials[:30]:
        config = json.loads(json.dumps(trial.config))
        belief = Prediction.from_json(json.loads(json.dumps(trial.prediction.to_json())))
        second.add_pending(Trial(trial.number, config, trial.ask_index, belief))
    for observation in optimizer.log.observations[:30]:
        loss, cost = json.loads(json.dumps([observation.loss, observation.cost]))
        second.tell(observation.number, loss, cost, failed=observation.cause)
    assert second.propose() == step.proposal


def test_wall_clock_reports_and_metrics_do_not_enter_the_engine():
    case = CASES["plain"]
    bare, adorned = case.optimizer(), case.optimizer()
    for index in range(12):
        one, other = bare.ask(), adorned.ask()
        assert one.config == other.config
        result = outcome(one.config)
        bare.tell(one, **result)
        reports = (Report(step=0, loss=float(index)),)
        adorned.tell(other, **result, seconds=1.5 * index, reports=reports, metrics={"acc": 0.5})


@pytest.mark.parametrize("name", ["plain", "mixed"])
def test_seeds_and_drivers_differ_from_the_first_asks_on(name):
    case = CASES[name]

    def first_asks(**arguments: Any) -> list[dict[str, Any]]:
        optimizer = Optimizer(case.space, **case.arguments, **arguments)
        trials = []
        for _ in range(8):
            trials.append(optimizer.ask())
            optimizer.tell(trials[-1], **outcome(trials[-1].config))
        return [trial.config for trial in trials]

    assert first_asks(seed=1) == first_asks(seed=1)
    for other in (first_asks(seed=2), first_asks(seed=1, driver=1)):
        same = [a == b for a, b in zip(first_asks(seed=1), other, strict=True)]
        assert sum(same) <= 1  # a center, if there is one, is everyone's first


def test_nothing_global_is_drawn_from_or_seeded():
    random.seed(1)
    np.random.seed(2)
    torch.manual_seed(3)
    before = random.getstate(), np.random.get_state(), torch.random.get_rng_state()
    optimizer, _ = live(Case(CASES["mixed"].space, {"cost": "seconds"}, 10), workers=3)
    optimizer.recommend()
    assert random.getstate() == before[0]
    assert all(np.array_equal(a, b) for a, b in zip(np.random.get_state(), before[1], strict=True))
    assert torch.equal(torch.random.get_rng_state(), before[2])
    random.seed(99)
    np.random.seed(99)
    torch.manual_seed(99)
    again, _ = live(Case(CASES["mixed"].space, {"cost": "seconds"}, 10), workers=3)
    assert [t.config for t in again.log.trials] == [t.config for t in optimizer.log.trials]
