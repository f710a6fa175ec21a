"""Studies that are interrupted or killed, for test_driver.py and test_scheduled_studies.py."""

import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from hpo import ASHA, Budget, Context, Fidelity, Float, optimize
from hpo.study.checkpoints import RunCheckpoints
from hpo.trials import Trial


def live(folder: Path, workers: int, output: Connection) -> None:
    """Run a study whose fourth trial is long, and send what is known of it at the end.

    Each trial leaves a file when it has begun.
    """
    os.chdir(folder)
    # A shell that starts the tests in the background lets all below it ignore SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and nohup lets them ignore this one

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


def epochs(file: Path, trials: int) -> None:
    """Search under ASHA, and note each epoch of each run in `file`."""

    def train(config: dict[str, Any], ctx: Context) -> float:
        loss = float(ctx.trial.ask_index)  # so the first run is promoted first
        for epoch in range((ctx.load() or 0) + 1, config["epochs"] + 1):
            with file.open("a") as notes:
                notes.write(f"{ctx.trial.ask_index} {epoch}\n")
            ctx.save(epoch)
            ctx.report(step=epoch, loss=loss)
        return loss

    space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
    optimize(train, space, budget=Budget(trials=trials), scheduler=ASHA(), name="n")


def die_before_a_promoted_run_has_its_folder(file: Path, trials: int) -> None:
    """Do the same, but die once the trial that continues a run is written, and nothing more."""

    def die(checkpoints: RunCheckpoints, trial: Trial, *, confirming: bool) -> None:
        if trial.parent is not None:
            os.kill(os.getpid(), signal.SIGKILL)

    os.chdir(file.parent)
    RunCheckpoints.begin = die  # type: ignore[method-assign]
    epochs(file, trials)
