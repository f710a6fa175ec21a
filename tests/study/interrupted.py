"""A study that is interrupted by a signal, for test_driver.py."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hpo import Budget, Context, Float, optimize


def live(folder: Path, workers: int, output: Connection) -> None:
    """Run a study whose fourth trial is long, and send what is known of it at the end.

    Each trial leaves a file when it has begun.
    """
    os.chdir(folder)
    # A shell that starts the tests in the background lets all below it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def train(config: dict[str, Any], ctx: Context) -> float:
        state = ctx.load() or {"step": 0}
        for step in range(state["step"], 400 if ctx.trial.number >= 3 else 2):
            ctx.save({"step": step + 1})
            (folder / f"trial-{ctx.trial.number}").touch()
            time.sleep(0.02)
            try:
                ctx.report(step=step, loss=1.0)
            except Exception:  # the habit that an interrupt must survive
                pass
        return 1.0

    space = {"x": Float(0, 1)}
    result = optimize(train, space, budget=Budget(trials=40), workers=workers, name="n")
    assert result.study is not None
    states = [trial.state.name for trial in result.study.trials]
    output.send({"told": len(result.log), "states": states})
