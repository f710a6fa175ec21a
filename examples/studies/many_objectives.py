"""Minimize loss, cost, latency and size at once: four objectives by qLogNEHVI, with BoTorch.

    python -m examples.studies.many_objectives [--runs 32] [--start 10] [--seed 0]

A perceptron learns scikit-learn's digits. No setting is best in every objective; the search looks
for the Pareto front of all four. Each objective has its own Gaussian process on its logarithm, and
the next run is the one expected to add most to the volume that the front dominates (Daulton,
Balandat & Bakshy 2021; Ament et al. 2023). The same number of random runs is the comparison.

`optimize` and `Optimizer` handle one loss and its cost. An Optuna study with several directions
under `hpo.adapters.optuna.ScaleTuneSampler` needs no BoTorch and searches one trade-off at a time;
this is the loop for those who want the hypervolume.
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

from hpo import Categorical, Float, Int, SearchSpace
from hpo.acquisition.maximize import Region, maximize
from hpo.optimizer.initial_design import starts
from hpo.space.encoding import Encoder
from surrogates.data import TrainingData
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.transforms import location_scale

Array = NDArray[np.float64]

OBJECTIVES = ("loss", "cost, Gflop", "latency, us", "weights")
SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1e-1, log=True),
        "width": Int(8, 256, log=True),
        "depth": Int(1, 3),
        "epochs": Int(2, 20, log=True),
        "activation": Categorical(["relu", "tanh"]),
    }
)


def train(config: dict[str, Any]) -> Array:
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
    return np.array([loss, gigaflops, 1e6 * _latency(model, X[:1]), weights])


def _latency(model: MLPClassifier, image: Array) -> float:
    """Return the seconds that one image takes through the layers, the least of many."""
    seconds = []
    for _ in range(200):
        start, row = time.perf_counter(), image
        for W, b in zip(model.coefs_, model.intercepts_, strict=True):
            row = np.maximum(row @ W + b, 0.0)
        seconds.append(time.perf_counter() - start)
    return min(seconds)


def search(runs: int, start: int, seed: int) -> tuple[list[dict[str, Any]], Array]:
    """Return the configs in the order they were tried and their objectives, runs x 4."""
    from surrogates.interop.botorch import HypervolumeImprovement

    encoder, rng = Encoder(SPACE), np.random.default_rng(seed)
    X = starts(encoder, start, rng=rng)
    Y = np.stack([train(config) for config in encoder.decode(X)])
    while len(X) < runs:
        processes, scaled = _fitted(encoder, X, np.log(Y))
        term = HypervolumeImprovement.of(
            processes,
            X,
            scaled.max(axis=0) + 0.1,
            numeric=tuple(encoder.columns.numeric.tolist()),
            samples=32,
            rng=rng,
        )
        best = X[front(Y)]
        radii = np.full(X.shape[1], 0.2)
        where = Region(
            encoder.lower, encoder.upper, best, radii, X[:0], 0.5, candidates=128, smooth=False
        )
        row = maximize(term, encoder, where, X, rng=rng).row
        X = np.vstack([X, row])
        Y = np.vstack([Y, train(encoder.decode(row[None, :])[0])])
    return encoder.decode(X), Y


def _fitted(encoder: Encoder, X: Array, Y: Array) -> tuple[list[GPPredictor], Array]:
    """Return one process per objective, and the standardized columns of Y it was fitted to."""
    model, scaled = GaussianProcess(), np.empty_like(Y)
    processes = []
    for k, y in enumerate(Y.T):
        location, scale = location_scale(y)
        scaled[:, k] = (y - location) / scale
        data = TrainingData(X, scaled[:, k], encoder.columns)
        processes.append(model.predictor(data, model.learn(data)))
    return processes, scaled


def front(Y: Array) -> NDArray[np.intp]:
    """Return the rows of the Pareto front: none is as good everywhere and better somewhere."""
    as_good = np.all(Y[:, None] <= Y[None], axis=2)
    better = np.any(Y[:, None] < Y[None], axis=2)
    return np.flatnonzero(~np.any(as_good & better, axis=0))


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
    parser.add_argument("--start", type=int, default=10, help="runs before the first model")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    configs, Y = search(given.runs, given.start, given.seed)
    encoder, rng = Encoder(SPACE), np.random.default_rng(given.seed)
    drawn = encoder.from_unit(
        rng.random((given.runs, len(encoder.lower))), (encoder.lower, encoder.upper)
    )
    random = np.stack([train(config) for config in encoder.decode(encoder.snap(drawn))])
    best = front(Y)
    table = Table(*SPACE, *OBJECTIVES, title=f"{len(best)} of {len(Y)} runs are on the front")
    for i in best[np.argsort(Y[best, 0])]:
        table.add_row(
            *(f"{v:.3g}" if isinstance(v, float) else str(v) for v in configs[i].values()),
            *(f"{v:.3g}" for v in Y[i]),
        )
    console = Console()
    console.print(table)
    worst = np.vstack([Y, random]).max(axis=0)
    ours, theirs = volume(Y, worst), volume(random, worst)
    console.print(f"dominated volume {ours:.1f}, by as many random runs {theirs:.1f}")


if __name__ == "__main__":
    main()
