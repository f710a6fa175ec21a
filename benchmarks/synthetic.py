"""Synthetic test functions with a known minimum of 0 after subtracting it.

Each :class:`Problem` is moved by its seed (optimum shifted, ellipsoid rotated), so that no method
gains from a favourite place. Regrets are quoted as shares of ``spread``, about the range of the
function over its box.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from hpo import Categorical, Float, Int
from hpo.space import Parameter

_HARTMANN_A = np.array(
    [
        [10, 3, 17, 3.5, 1.7, 8],
        [0.05, 10, 17, 0.1, 8, 14],
        [3, 3.5, 1.7, 10, 17, 8],
        [17, 8, 0.05, 10, 0.1, 14],
    ]
)
_HARTMANN_C = np.array([1.0, 1.2, 3.0, 3.2])
_HARTMANN_P = 1e-4 * np.array(
    [
        [1312, 1696, 5569, 124, 8283, 5886],
        [2329, 4135, 8307, 3736, 1004, 9991],
        [2348, 1451, 3522, 2883, 3047, 6650],
        [4047, 8828, 8732, 5743, 1091, 381],
    ]
)
_HARTMANN_MINIMUM = -3.322368011415515
_BRANIN_MINIMUM = 0.39788735772973816


@dataclass(frozen=True, slots=True)
class Problem:
    """A space, a function whose minimum over it is 0, and the spread of its values."""

    space: dict[str, Parameter]
    evaluate: Callable[[Mapping[str, Any]], float]
    spread: float


def branin(seed: int) -> Problem:
    """Branin in 2-d; the shift of at most 1.5 keeps the minimum at (pi, 2.275) inside."""
    shift = np.random.default_rng(seed).uniform(-1.5, 1.5, size=2)

    def evaluate(config: Mapping[str, Any]) -> float:
        x, y = config["x0"] - shift[0], config["x1"] - shift[1]
        bowl = (y - 5.1 / (4 * np.pi**2) * x**2 + 5 / np.pi * x - 6) ** 2
        return float(bowl + 10 * (1 - 1 / (8 * np.pi)) * np.cos(x) + 10 - _BRANIN_MINIMUM)

    return Problem({"x0": Float(-5, 10), "x1": Float(0, 15)}, evaluate, 308.0)


def hartmann6(seed: int) -> Problem:
    """Hartmann in 6-d, coordinates permuted and reflected by the seed."""
    rng = np.random.default_rng(seed)
    order, flip = rng.permutation(6), rng.random(6) < 0.5

    def evaluate(config: Mapping[str, Any]) -> float:
        x = np.array([config[f"x{i}"] for i in range(6)])
        x = np.where(flip, 1.0 - x, x)[order]
        inner = np.sum(_HARTMANN_A * (x - _HARTMANN_P) ** 2, axis=1)
        return float(-_HARTMANN_C @ np.exp(-inner) - _HARTMANN_MINIMUM)

    return Problem({f"x{i}": Float(0, 1) for i in range(6)}, evaluate, 3.3)


def ackley10(seed: int) -> Problem:
    """Ackley in 10-d on [-32.768, 32.768], optimum anywhere in the inner half of every axis."""
    optimum = np.random.default_rng(seed).uniform(-16.0, 16.0, size=10)

    def evaluate(config: Mapping[str, Any]) -> float:
        x = np.array([config[f"x{i}"] for i in range(10)]) - optimum
        first = -20.0 * np.exp(-0.2 * np.sqrt(np.mean(x**2)))
        return float(first - np.exp(np.mean(np.cos(2 * np.pi * x))) + 20.0 + np.e)

    return Problem({f"x{i}": Float(-32.768, 32.768) for i in range(10)}, evaluate, 22.0)


def ellipsoid6(seed: int) -> Problem:
    """Rotated ellipsoid in 6-d with axis ratio 10 (condition 100), optimum in the inner half."""
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((6, 6)))
    optimum = rng.uniform(-2.5, 2.5, size=6)
    weights = 100.0 ** (np.arange(6) / 5.0)

    def evaluate(config: Mapping[str, Any]) -> float:
        x = np.array([config[f"x{i}"] for i in range(6)]) - optimum
        return float(weights @ (rotation @ x) ** 2)

    return Problem({f"x{i}": Float(-5, 5) for i in range(6)}, evaluate, 7000.0)


def mixed(seed: int) -> Problem:
    """A training-like loss: best log lr depends on the optimiser; integers; two categories."""
    rng = np.random.default_rng(seed)
    best_lr = {name: float(rng.uniform(-3.5, -1.5)) for name in ("adam", "sgd", "lion")}
    offset = dict(zip(best_lr, rng.permutation([0.0, 0.15, 0.4]).tolist(), strict=True))
    best_depth, best_dropout = int(rng.integers(3, 10)), float(rng.uniform(0.05, 0.4))
    good_norm = str(rng.choice(["layer", "rms", "none", "batch"]))

    def evaluate(config: Mapping[str, Any]) -> float:
        name = config["optimizer"]
        loss = offset[name] + 0.6 * (np.log10(config["lr"]) - best_lr[name]) ** 2
        loss += 0.02 * (config["depth"] - best_depth) ** 2
        loss += 3.0 * (config["dropout"] - best_dropout) ** 2
        loss += 0.3 * (config["norm"] != good_norm)
        loss += 0.1 * abs(np.log2(config["batch"]) - 6) * (1 + (name == "sgd"))
        return float(loss)

    space: dict[str, Parameter] = {
        "optimizer": Categorical(["adam", "sgd", "lion"]),
        "norm": Categorical(["layer", "rms", "none", "batch"]),
        "lr": Float(1e-5, 1.0, log=True),
        "dropout": Float(0.0, 0.6),
        "depth": Int(1, 12),
        "batch": Int(8, 512, log=True),
    }
    return Problem(space, evaluate, 8.0)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "branin": branin,
    "hartmann6": hartmann6,
    "ackley10": ackley10,
    "ellipsoid6": ellipsoid6,
    "mixed": mixed,
}
