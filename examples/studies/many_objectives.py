"""Minimize loss, cost, latency and size at once: four objectives by hypervolume.

    python -m examples.studies.many_objectives [--runs 32] [--seed 0]

A perceptron learns scikit-learn's digits. No setting is best in every objective; the search looks
for the Pareto front of all four (docs/several_objectives.md). The same number of random runs is the
comparison, by the volume that the front dominates in logarithms.
"""

from __future__ import annotations

import argparse
import time
import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import log_loss
from sklearn.neural_network import MLPClassifier

from hpo import Budget, Categorical, Context, Float, Int, Result, SearchSpace, optimize
from hpo.space import DirectionName

Array = NDArray[np.float64]

OBJECTIVES = ("loss", "gigaflops", "microseconds", "weights")
SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1e-1, log=True),
        "width": Int(8, 256, log=True),
        "depth": Int(1, 3),
        "epochs": Int(2, 20, log=True),
        "activation": Categorical(["relu", "tanh"]),
    }
)


def train(config: dict[str, Any], ctx: Context | None = None) -> dict[str, float]:
    """Train one perceptron and return its four objectives.

    They are the loss on a third of the images, the floating-point operations of training, the time
    of one prediction and the number of weights.
    """
    X, y = load_digits(return_X_y=True)
    X = X / 16.0
    model = MLPClassifier(
        (config["width"],) * config["depth"],
        activation=config["activation"],
        learning_rate_init=config["lr"],
        max_iter=config["epochs"],
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # few epochs are a choice here
        model.fit(X[::3], y[::3])
    weights = sum(w.size for w in model.coefs_) + sum(b.size for b in model.intercepts_)
    gigaflops = 6e-9 * weights * len(X[::3]) * config["epochs"]  # forward 2, backward 4
    loss = log_loss(y[1::3], model.predict_proba(X[1::3]))
    values = (loss, gigaflops, 1e6 * _latency(model, X[:1]), weights)
    return dict(zip(OBJECTIVES, map(float, values), strict=True))


def _latency(model: MLPClassifier, image: Array) -> float:
    """Return the seconds that one image takes through the layers, the least of many."""
    seconds = []
    for _ in range(200):
        start, row = time.perf_counter(), image
        for W, b in zip(model.coefs_, model.intercepts_, strict=True):
            row = np.maximum(row @ W + b, 0.0)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def search(runs: int, seed: int) -> Result:
    """Return the result of a search for the front of all objectives."""
    wanted: dict[str, DirectionName] = dict.fromkeys(OBJECTIVES, "minimize")
    return optimize(train, SPACE, budget=Budget(trials=runs), objectives=wanted, seed=seed)


def random_runs(runs: int, seed: int) -> Array:
    """Return the objectives of random configs, runs x 4."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(runs):
        config = {
            "lr": float(10 ** rng.uniform(-4, -1)),
            "width": round(float(np.exp(rng.uniform(np.log(8), np.log(256))))),
            "depth": int(rng.integers(1, 4)),
            "epochs": round(float(np.exp(rng.uniform(np.log(2), np.log(20))))),
            "activation": str(rng.choice(["relu", "tanh"])),
        }
        found.append(list(train(config).values()))
    return np.array(found)


def volume(Y: Array, worst: Array) -> float:
    """Return the volume that Y dominates below `worst`, in logarithms."""
    import torch
    from botorch.utils.multi_objective.box_decompositions import DominatedPartitioning

    points = torch.tensor(-np.log(Y), dtype=torch.float64)
    boxes = DominatedPartitioning(torch.tensor(-np.log(worst), dtype=torch.float64), points)
    return float(boxes.compute_hypervolume())


def main() -> None:
    """Search, print the front and compare its volume with that of random runs."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    result = search(given.runs, given.seed)
    Y = result.to_pandas()[list(OBJECTIVES)].to_numpy(dtype=np.float64)
    random = random_runs(given.runs, given.seed)
    front = result.pareto_set
    table = Table(*SPACE, *OBJECTIVES, title=f"{len(front)} of {len(Y)} runs are on the front")
    for member in front:
        table.add_row(
            *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in member.config.values()),
            *(f"{member.values[name]:.3g}" for name in OBJECTIVES),
        )
    console = Console()
    console.print(table)
    worst = np.vstack([Y, random]).max(axis=0)
    ours, theirs = volume(Y, worst), volume(random, worst)
    console.print(f"dominated volume {ours:.1f}, by as many random runs {theirs:.1f}")


if __name__ == "__main__":
    main()
