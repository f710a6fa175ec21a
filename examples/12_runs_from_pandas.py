"""Runs you already have, in a DataFrame: continue from them, with your own words for the columns.

    python examples/12_runs_from_pandas.py

`history=` takes what `read_runs` can read: earlier runs of the same task count as told, and not
against the budget. They are told once, also when the call is repeated or the table has grown.
"""

import math
from typing import Any

import pandas as pd

from hpo import Budget, Context, Float, optimize, read_runs

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "momentum": Float(0.0, 0.99)}


def loss_at(lr: float, momentum: float) -> float:
    """Return a stand-in for the loss of a run."""
    return 1.0 + math.log10(lr / 3e-3) ** 2 + (momentum - 0.9) ** 2


def train(config: dict[str, Any], ctx: Context) -> float:
    """Return the loss of one run."""
    return loss_at(config["lr"], config["momentum"])


if __name__ == "__main__":
    table = pd.DataFrame(
        [
            {"step size": lr, "mom": m, "final": loss_at(lr, m), "who": "me"}
            for lr in (1e-4, 1e-3, 1e-2, 1e-1)
            for m in (0.5, 0.8)
        ]
    )
    guessed = read_runs(table, params=["step size:log:lr", "mom"], loss="final", ignore=["who"])
    print(guessed)
    renamed = table.rename(columns={"step size": "lr", "mom": "momentum", "final": "loss"})
    result = optimize(train, SPACE, budget=Budget(trials=8), history=renamed)
    print(f"{len(result.log)} runs, {len(renamed)} of them from the table")
    best = min(renamed["loss"])
    print(f"best loss before {best:.3f}, now {result.best_observed.loss:.3f}")
