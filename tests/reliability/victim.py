"""A study that is killed again and again, for test_kill_and_resume.py and test_postgres.py."""

import os
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

from hpo import Budget, Categorical, Context, Float, Int, Observation, Scale, Trial, optimize
from hpo.study.callbacks import Callback, StudyState

SPACE = {
    "lr": Float(1e-4, 1e-1, log=True),
    "depth": Int(1, 8),
    "optimizer": Categorical(["adamw", "lion"]),
    "beta2": Float(0.9, 0.999, logit=True, when=("optimizer", ["adamw"])),
    "params": Scale(1e3, 1e5),
}


def train(config: dict[str, object], ctx: Context) -> dict[str, float]:
    """A cheap bowl with a region that fails and one that diverges; the cost is deterministic."""
    lr, depth, params = float(config["lr"]), int(config["depth"]), float(config["params"])  # type: ignore[arg-type, call-overload]
    for step in range(4):
        time.sleep(0.005)
        ctx.report(step=step, loss=10.0 - step, cost=params * (step + 1))
    if lr > 0.07:
        raise RuntimeError("too hot")
    loss = (lr * 100 - 1) ** 2 + 0.1 * abs(depth - 5) + 30 * params**-0.3
    return {"loss": float("inf") if depth == 8 else loss, "cost": 5.0 * params}


class Announce(Callback):
    def on_start(self, run: StudyState) -> None:
        print("driving", flush=True)
        while Path("hold").exists():
            time.sleep(0.01)

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        print(f"told {trial.ask_index} {observation.loss!r}", flush=True)


def live(folder: str, trials: int, workers: int, lines: Connection) -> None:
    """Drive the study in `folder`, whose `storage.txt` may name another storage than the default.

    Nothing is asked before the file `hold` in it, if there is one, is gone. Writes `driving` to
    `lines` when the study is open, `told <ask index> <loss>` after each result, and `done` at the
    end.
    """
    os.chdir(folder)
    os.dup2(lines.fileno(), 1)
    os.dup2(os.open("stderr.txt", os.O_WRONLY | os.O_APPEND | os.O_CREAT), 2)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    elsewhere = Path("storage.txt")
    optimize(
        train,
        SPACE,
        budget=Budget(trials=trials, cost=1e9),
        cost="flops",
        workers=workers,
        callbacks=[Announce()],
        name="victim",
        storage=elsewhere.read_text() if elsewhere.exists() else None,
        seed=3,
    )
    print("done")
