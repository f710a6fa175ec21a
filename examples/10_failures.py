"""Failures: runs that diverge or run out of memory teach the search where not to go.

    python examples/10_failures.py

A NaN loss or a `MemoryError` is recorded with its cause. No loss is invented for it: a model of the
probability of success keeps later trials away from that region.
"""

import math
from collections import Counter
from typing import Any

from hpo import Budget, Context, Float, Int, SearchSpace, optimize

SPACE = SearchSpace({"lr": Float(1e-4, 1.0, log=True), "batch_size": Int(8, 2048, log=True)})


def train(config: dict[str, Any], ctx: Context) -> float:
    """Return a stand-in for a loss; high rates diverge and large batches do not fit."""
    lr, batch_size = config["lr"], config["batch_size"]
    if batch_size > 512:
        raise MemoryError("a batch of this size does not fit")
    if lr > 0.05:
        return math.nan
    return 1.0 + math.log10(lr / 0.01) ** 2 + 0.1 * math.log2(batch_size / 128) ** 2


if __name__ == "__main__":
    result = optimize(train, SPACE, budget=Budget(trials=25))
    outcomes = Counter(o.cause.value if o.cause else "completed" for o in result.log.observations)
    print("25 trials:", ", ".join(f"{count} {name}" for name, count in outcomes.most_common()))
    for lr, batch_size in ((0.01, 128), (0.5, 128), (0.01, 2048)):
        expected = result.predict(config={"lr": lr, "batch_size": batch_size})
        print(f"probability of success at lr {lr}, batch size {batch_size}: {expected.success:.0%}")
    print(f"best loss {result.best.loss:.2f} with {result.best.config}")
