"""Interrupts: a study ends in good order and the next call continues it."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hpo import (
    Budget,
    Context,
    Float,
    optimize,
)
from tests.study.studies import SPACE, Config

REPOSITORY = Path(__file__).parents[2]


def interrupted(
    folder: Path, number: signal.Signals, workers: int, wait: Callable[[], bool]
) -> dict[str, Any]:
    """Output of a script whose study is interrupted by `number` once `wait()` holds."""
    script = folder / "script.py"
    script.write_text(
        textwrap.dedent("""
            import json, signal, sys, time
            from pathlib import Path
            from hpo import Budget, Float, optimize

            # A shell that starts the tests in the background lets all below it ignore SIGINT.
            signal.signal(signal.SIGINT, signal.default_int_handler)
            folder = Path(sys.argv[1])

            def train(config, ctx):
                state = ctx.load() or {"step": 0}
                for step in range(state["step"], 400 if ctx.trial.number >= 3 else 2):
                    ctx.save({"step": step + 1})
                    (folder / f"trial-{ctx.trial.number}").touch()
                    time.sleep(0.05)
                    try:
                        ctx.report(step=step, loss=1.0)
                    except Exception:
                        pass
                return 1.0

            result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=40),
                              workers=int(sys.argv[2]), name="n")
            states = [trial.state.name for trial in result.study.trials]
            print(json.dumps({"told": len(result.log), "states": states}))
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(workers)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until = time.monotonic() + 60
    while not wait() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    printed, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    output: dict[str, Any] = json.loads(printed)
    return output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_returns_the_result_so_far_and_the_next_call_continues(
    folder: Path, number: signal.Signals, workers: int
) -> None:
    output = interrupted(folder, number, workers, lambda: (folder / "trial-3").exists())
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
