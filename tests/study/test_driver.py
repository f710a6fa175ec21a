"""Interrupts: a study ends in good order and the next call continues it."""

import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from hpo import Budget, Context, Float, InlineRunner, StudyError, optimize
from hpo.study.runners import Job
from tests.study.interrupted import live
from tests.study.studies import SPACE, Config

# Forked from a server that has imported everything: a study costs no seconds of imports.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["torch", "alembic.command", "tests.study.interrupted"])


def interrupted(folder: Path, number: signal.Signals, workers: int) -> dict[str, Any]:
    """What is known of a study that is interrupted by `number` in its fourth trial."""
    reader, writer = FORKS.Pipe(duplex=False)
    process = FORKS.Process(target=live, args=(folder, workers, writer))
    process.start()
    assert process.pid is not None
    until = time.monotonic() + 60
    while not (folder / "trial-3").exists() and process.is_alive() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, number)
    process.join(30)
    assert process.exitcode == 0
    output: dict[str, Any] = reader.recv()
    return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_returns_the_result_so_far_and_the_next_call_continues(
    folder: Path, number: signal.Signals, workers: int
) -> None:
    output = interrupted(folder, number, workers)
    assert output["told"] == 3
    assert output["states"][:3] == ["COMPLETE"] * 3
    assert set(output["states"][3:]) == {"RUNNING"}
    steps: list[int] = []

    def train(config: Config, ctx: Context) -> float:
        state = ctx.load()
        if state is not None:
            steps.append(state["step"])
        return 1.0

    result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=6), name="n")
    running = len(output["states"]) - 3
    assert len(steps) == running and min(steps) >= 1
    retried = [trial for trial in result.log.trials if trial.parent is not None]
    assert len(retried) == running
    assert result.study is not None
    for trial in retried:
        asked = result.study.trials[trial.number].user_attrs["scaletune:asked"]
        assert asked["attempt"] == 0
    assert sum(o.cause is None for o in result.log.observations) == 6


def test_handlers_of_the_user_are_left_alone_and_ours_are_taken_back() -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError

    seen: list[Any] = []

    def train(config: Config, ctx: Context) -> float:
        seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
        return 1.0

    before = signal.getsignal(signal.SIGINT), signal.signal(signal.SIGTERM, mine)
    try:
        optimize(train, SPACE, budget=Budget(trials=1))
        assert signal.getsignal(signal.SIGTERM) is mine
        assert seen[0][1] is mine
        assert signal.getsignal(signal.SIGINT) is before[0]
    finally:
        signal.signal(signal.SIGTERM, before[1])


class InterruptedRunner(InlineRunner):
    """Runner of a process that Ctrl-C ends while it starts."""

    def submit(self, job: Job) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise StudyError("no process can be started")


def test_an_interrupt_that_ends_a_starting_process_is_no_error() -> None:
    result = optimize(
        lambda config, ctx: 0.0, SPACE, budget=Budget(trials=2), runner=InterruptedRunner()
    )
    assert result.interrupted and not result.log.runs
