"""Resume: a named study survives its process and continues where it stopped.

    python examples/02_resume.py

`name=` keeps every trial in an SQLite file, `scaletune.db` in the current folder unless `storage=`
says otherwise. The same call with the same budget does nothing; with a larger one it continues.
"""

import tempfile
from pathlib import Path
from typing import Any

from hpo import Budget, Context, Float, load_result, optimize

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "momentum": Float(0.0, 0.99)}


def train(config: dict[str, Any], ctx: Context) -> float:
    """Return a stand-in for a validation loss, with its best value of 0.5 at lr 0.01."""
    print(f"  trial {ctx.trial.number} trains")
    loss = 0.5 + (config["lr"] / 1e-2 - 1.0) ** 2 + 0.1 * (config["momentum"] - 0.9) ** 2
    return float(loss)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        storage = f"sqlite:///{Path(folder) / 'studies.db'}"
        print("first call, a budget of 4 trials")
        optimize(train, SPACE, budget=Budget(trials=4), name="run-1", storage=storage)
        print("the same call again: everything is there already")
        optimize(train, SPACE, budget=Budget(trials=4), name="run-1", storage=storage)
        print("a budget of 6 trials: two more")
        optimize(train, SPACE, budget=Budget(trials=6), name="run-1", storage=storage)
        result = load_result("run-1", storage=storage)  # reads without training
        print(f"{len(result.log.observations)} trials on record, best loss {result.best.loss:.3f}")
