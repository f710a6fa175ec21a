"""Other tasks: start from what did best elsewhere, and unlearn it where it does not hold.

    python examples/15_other_tasks.py

Runs of other tasks in the same space are passed by name: results, files, Optuna studies, or lists
of (config, loss). Each trial's reason says what they contributed.
"""

import math
from typing import Any

from hpo import Budget, Categorical, Context, Float, Result, SearchSpace, optimize

SPACE = SearchSpace(
    {
        "lr": Float(1e-5, 1e-1, log=True),
        "dropout": Float(0.0, 0.6),
        "optimizer": Categorical(["adam", "lion", "sgd"]),
    }
)


def training(best_lr: float) -> Any:
    """Return a stand-in for trainings on one data set, which has its own best learning rate."""

    def train(config: dict[str, Any], ctx: Context) -> float:
        away = math.log10(config["lr"] / best_lr)
        worse = {"adam": 0.0, "lion": 0.1, "sgd": 0.4}[config["optimizer"]]
        return float(0.5 + 0.2 * away**2 + (config["dropout"] - 0.2) ** 2 + worse)

    return train


def best_after(result: Result, trials: int) -> float:
    """Return the best loss of the first trials."""
    return min(o.loss for o in result.log.observations[:trials] if o.loss is not None)


if __name__ == "__main__":
    earlier = {
        name: optimize(training(lr), SPACE, budget=Budget(trials=20), seed=seed)
        for seed, (name, lr) in enumerate({"reviews": 1e-3, "tweets": 2e-3, "news": 1.5e-3}.items())
    }
    alone = optimize(training(1.2e-3), SPACE, budget=Budget(trials=8), seed=9)
    learned = optimize(
        training(1.2e-3), SPACE, budget=Budget(trials=8), other_tasks=earlier, seed=9
    )
    for trial in learned.log.trials:
        assert trial.prediction is not None
        print(f"trial {trial.number}: {trial.prediction.reason}")
    for n in (1, 8):
        print(f"best of {n}: {best_after(learned, n):.3f}, alone {best_after(alone, n):.3f}")
