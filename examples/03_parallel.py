"""Parallel trials: several worker processes share one search.

    python examples/03_parallel.py

`workers=2` runs two trials at a time, each in a process of its own. The search knows what is still
running and does not propose it again. On GPUs, `runner=ProcessRunner(gpus=[0, 1], per_gpu=2)` gives
each trial a slot. Worker processes import this file, so the call stands under `__main__`.
"""

import time
from typing import Any

from hpo import Budget, Context, Float, optimize

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "dropout": Float(0.0, 0.5)}


def train(config: dict[str, Any], ctx: Context) -> float:
    """Return a stand-in for a validation loss after half a second of waiting."""
    time.sleep(0.5)
    return float((config["lr"] / 1e-2 - 1.0) ** 2 + (config["dropout"] - 0.1) ** 2)


if __name__ == "__main__":
    start = time.perf_counter()
    result = optimize(train, SPACE, budget=Budget(trials=12), workers=2)
    elapsed = time.perf_counter() - start
    worked = sum(o.seconds or 0.0 for o in result.log.observations)
    print(f"12 trials of {worked:.1f} s in all took {elapsed:.1f} s with two workers")
    configs = {tuple(o.config.values()) for o in result.log.observations}
    print(f"{len(configs)} different configs, best loss {result.best.loss:.4f}")
