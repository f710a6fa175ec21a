"""Runs you already have, in a file: from a CSV of small runs to the settings of a large one.

    python examples/11_runs_from_csv.py

In a shell: `scaletune recommend sweep.csv --target params=7e9,tokens=1.4e11`. Columns are
found by their names and contents; `print(runs)` says what was taken for what, and why.
"""

import csv
import math
import tempfile
from pathlib import Path

from hpo import Optimizer, read_runs

TARGET = {"params": 7e9, "tokens": 1.4e11}


def best_lr(params: float) -> float:
    """Return the truth that the runs have to tell."""
    return float(2e-3 * (params / 1e8) ** -0.3)


def write_sweep(path: Path) -> None:
    """Write a stand-in for your sweep: three sizes, two lengths, six learning rates."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["run", "params", "tokens", "lr", "status", "val_loss", "seed"])
        for name, params in (("125M", 1.25e8), ("350M", 3.5e8), ("1.3B", 1.3e9)):
            for tokens in (2.5e9, 1e10):
                for lr in (3e-4, 6e-4, 1.2e-3, 2.4e-3, 4.8e-3, 2e-1):
                    off = math.log(lr / best_lr(params))
                    loss = 1.7 + 400 * params**-0.34 + 410 * tokens**-0.28 + 0.03 * off**2
                    ended = ("crashed", "") if lr > 0.1 else ("finished", f"{loss:.4f}")
                    writer.writerow([f"{name}-{lr}", name, tokens, lr, *ended, 0])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        sweep = Path(folder, "sweep.csv")
        write_sweep(sweep)
        runs = read_runs(sweep)
    print(runs)
    optimizer = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
    optimizer.tell_many(runs)
    print(optimizer.recommend(TARGET))
    print(f"the true best lr there is {best_lr(TARGET['params']):.2e}")
