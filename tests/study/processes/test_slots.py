"""GPUs are shared out, and never oversubscribed: in a simulation and in real trials."""

import os
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from hpo import Budget, Float, optimize
from hpo.schedulers import Decision
from hpo.study.context import Context
from hpo.study.process_runner import ProcessRunner
from hpo.study.processes.slots import Slots
from hpo.study.runners import Task
from hpo.trials.budget import Limits
from tests.contracts.runner import Config, job


@pytest.mark.parametrize("per_gpu", [1, 2])
def test_a_mix_of_one_to_eight_gpus_never_oversubscribes_and_nobody_starves(per_gpu: int) -> None:
    """Jobs that need up to all GPUs come and go at random, and are started in their order."""
    rng = random.Random(per_gpu)
    names = [str(number) for number in range(8)]
    slots, running, waiting = Slots(names, per_gpu), list[tuple[str, ...]](), list[int]()
    started, largest = 0, 0
    for _ in range(5000):
        while len(waiting) < 6:
            waiting.append(rng.randint(1, 8))
        while waiting and (gpus := slots.take(waiting[0])) is not None:
            assert len(set(gpus)) == waiting.pop(0)
            running.append(gpus)
            started += 1
        taken = Counter(gpu for gpus in running for gpu in gpus)
        assert all(count <= per_gpu for count in taken.values())
        largest = max(largest, taken.total())
        assert running, "nothing runs, and what waits does not start"
        slots.give(running.pop(rng.randrange(len(running))))
    assert started > 4000 and largest == 8 * per_gpu


def test_the_gpus_with_the_fewest_trials_are_taken_and_wanted_ones_first() -> None:
    slots = Slots(["a", "b", "c"], per_gpu=2)
    assert slots.take(1) == ("a",)
    assert slots.take(2) == ("b", "c")
    assert slots.take(1, first=("c",)) == ("c",)
    assert slots.take(1, first=("c",)) == ("a",)
    assert slots.take(2) is None
    slots.give(("c",))
    assert slots.take(2, first=("c",)) == ("b", "c")


@pytest.mark.parametrize("reuse", [False, True])
def test_each_trial_sees_as_many_gpus_as_its_config_asks_for(tmp_path: Path, reuse: bool) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        began = time.monotonic()
        time.sleep(0.1)
        seen = os.environ["CUDA_VISIBLE_DEVICES"]
        return {"loss": 0.0, "seen": seen, "began": began, "ended": time.monotonic()}

    runner = ProcessRunner(gpus=range(4), gpus_per_trial=lambda config: config["gpus"], reuse=reuse)
    runner.open(Task(train, None, (), Limits()), 4)
    wanted = [1, 1, 4, 2, 2, 1, 3]
    left, outcomes = list(enumerate(wanted)), []
    until = time.monotonic() + 60
    while len(outcomes) < len(wanted):
        assert time.monotonic() < until
        while left and len(wanted) - len(left) - len(outcomes) < 4:
            number, gpus = left.pop(0)
            runner.submit(job(number, tmp_path, gpus=gpus))
        outcomes += runner.poll(0.1, lambda trial, report: Decision.CONTINUE)
    runner.close()
    found = {outcome.number: outcome.metrics for outcome in outcomes}
    seen = {number: set(metrics["seen"].split(",")) for number, metrics in found.items()}
    assert [len(seen[number]) for number in range(len(wanted))] == wanted
    for one in found:
        for other in range(one):
            first, second = found[one], found[other]
            if first["began"] < second["ended"] and second["began"] < first["ended"]:
                assert not seen[one] & seen[other]


def test_a_number_of_gpus_that_cannot_be_had_is_refused_with_the_way_out(tmp_path: Path) -> None:
    for gpus, share in ((range(4), 0), (range(4), 5), ([], 2), (range(4), "2")):
        with pytest.raises(ValueError, match=r"`gpus_per_trial` must be .*name the GPUs"):
            ProcessRunner(gpus=gpus, gpus_per_trial=share)  # type: ignore[arg-type]
    task = Task(lambda config, ctx: 0.0, None, (), Limits())
    runner = ProcessRunner(gpus=range(8), gpus_per_trial=3)
    with pytest.raises(ValueError, match="workers=3 do not fit on 8 GPUs.*use workers=2"):
        runner.open(task, workers=3)
    runner = ProcessRunner(gpus=range(2), gpus_per_trial=lambda config: 3)
    runner.open(task, workers=2)
    with pytest.raises(
        ValueError, match="`gpus_per_trial` must be an int of at least 1 and at most 2"
    ):
        runner.submit(job(0, tmp_path))
    runner.close()


def test_seconds_in_which_a_trial_waited_for_gpus_are_not_its_cost(tmp_path: Path) -> None:
    """The first trial trains for a second, and the second one, which waits for it, for less."""

    def train(config: Config, ctx: Context) -> float:
        first = ctx.trial.number == 0
        time.sleep(1.5 if first else 0.1)
        if not first:
            ctx.report(step=1, loss=1.0)
            return 0.0
        return 2.0

    result = optimize(
        train,
        {"x": Float(0, 1)},
        cost="seconds",
        budget=Budget(trials=2, per_trial=1.0),
        workers=2,
        runner=ProcessRunner(gpus=range(2), gpus_per_trial=lambda config: 2),
    )
    losses = {o.number: (o.status.name, o.loss) for o in result.log.observations}
    assert losses == {0: ("COMPLETED", 2.0), 1: ("COMPLETED", 0.0)}
