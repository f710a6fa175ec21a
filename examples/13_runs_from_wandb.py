"""Runs you already have, in Weights & Biases: an export, or the project itself.

    python examples/13_runs_from_wandb.py

An export (the table's download button) is a CSV file. `read_runs("wandb:entity/project")` and
`read_runs(wandb.Api().runs("entity/project"))` read the project, with W&B's package installed.
MLflow: `read_runs("mlflow:experiment")`, or what `mlflow.search_runs()` returns.
"""

import math
import tempfile
from pathlib import Path

from hpo import Optimizer, read_runs
from hpo.trials.read_runs import Use

HEADER = "Name,State,Created,Runtime,config.optimizer.lr,config.model.width,config.seed,val/loss"


def export() -> str:
    """Return a stand-in for an export: runs that crashed have no loss, one is still running."""
    lines = [HEADER]
    for width in (128, 256, 512):
        for lr in (1e-3, 3e-3, 1e-2, 3e-2, 1e-1):
            loss = 2.0 + 8.0 / width**0.5 + 0.1 * math.log(lr * width / 2.0) ** 2
            state = "crashed" if lr * width > 40 else "finished"
            shown = "" if state == "crashed" else f"{loss:.4f}"
            lines.append(f"run,{state},2026-01-01T00:00:00Z,{width},{lr},{width},1,{shown}")
    lines.append("run,running,2026-01-02T00:00:00Z,7,0.002,512,1,3.9")
    return "\n".join(lines)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "wandb_export.csv")
        path.write_text(export())
        runs = read_runs(path)
    for guess in runs.guesses:
        if guess.use is not Use.LEFT_OUT:
            print(guess)
    print(*runs.guesses.rows, sep="\n")
    optimizer = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
    optimizer.tell_many(runs)
    print(optimizer.recommend({"config.model.width": 4096}))
    print(f"the true best lr there is {2.0 / 4096:.2e}")
