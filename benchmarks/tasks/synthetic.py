"""Synthetic tasks whose optimum, bounds and costs are known exactly.

* `Problem`: a function with a minimum of 0, moved by its seed (optimum shifted, ellipsoid rotated),
  so that no method gains from a favorite place. Regrets are shares of `spread`, about the range of
  the function over its box. As a task (`synthetic/branin-3` is `branin(3)`) it costs what
  `Problem.cost` says, known in closed form.
* `Curves`: learning curves over 27 epochs that cross, for methods that stop runs early.
* `Crossing`: curves over 81 epochs whose early ranking is reversed.
* `Drift`: two scale axes; the best learning rate and batch move with them by known exponents.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from benchmarks.task import Bounds, Evaluation, Levels, Point
from hpo import Categorical, Float, Int, Scale, SearchSpace
from hpo.space import Axis, Parameter, Role

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


def _one(config: Mapping[str, Any]) -> float:
    return 1.0


@dataclass(frozen=True, slots=True)
class Problem:
    """A space, a function whose minimum over it is 0, the spread of its values, and what it costs.

    `cost`: units for one evaluation of a config; 1 unless the function has something like a size.
    """

    space: dict[str, Parameter]
    evaluate: Callable[[Mapping[str, Any]], float]
    spread: float
    cost: Callable[[Mapping[str, Any]], float] = _one


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
    """A training-like loss: best log lr depends on the optimizer; integers; two categories.

    A run costs its depth, and up to twice that at small batches.
    """
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

    def cost(config: Mapping[str, Any]) -> float:
        return float(config["depth"] * (1.0 + 8.0 / config["batch"]))

    return Problem(space, evaluate, 8.0, cost)


PROBLEMS: dict[str, Callable[[int], Problem]] = {
    "branin": branin,
    "hartmann6": hartmann6,
    "ackley10": ackley10,
    "ellipsoid6": ellipsoid6,
    "mixed": mixed,
}


@dataclass(frozen=True, slots=True)
class FunctionTask:
    """A `Problem` as a task: no levels, cost in closed form, regret as a share of its spread."""

    name: str
    problem: Problem
    space: SearchSpace
    unit: str = "units"
    levels: None = None
    pool: None = None
    seen_in_design: bool = True

    @property
    def bounds(self) -> Bounds:
        return Bounds(0.0, self.problem.spread)

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        if level is not None:
            raise ValueError(f"`level` must be None for {self.name}, got {level!r}; it has none")
        config = self.space.validate(config)
        loss, cost = self.problem.evaluate(config), self.problem.cost(config)
        return Evaluation(loss, cost, (Point(1, loss, cost),))


@dataclass(frozen=True, slots=True)
class Curves:
    """Learning curves in closed form, crossing because larger learning rates fall faster.

    With u the distances from the optimum in units of the box (learning rate and width in logs),
    the last loss is f = 0.1 + 0.5 (1.5 u_lr^2 + u_dropout^2 + 0.5 u_width^2), and at epoch e of E

        loss(e) = f + (1.5 - f) (e^-r - E^-r) / (1 - E^-r),   r = 0.3 + 1.5 log-position of lr,

    so that loss(1) = 1.5 for every config and loss(E) = f exactly. An epoch costs 0.1 + width / 256
    seconds. A run whose lr exceeds the best by more than a factor 50 diverges after a third of its
    epochs.
    """

    name: str
    best: dict[str, Any]
    unit: str = "seconds"
    levels: Levels = Levels("epoch", 1, 27)
    pool: None = None
    seen_in_design: bool = True

    @property
    def space(self) -> SearchSpace:
        return _CURVES_SPACE

    def final_loss(self, config: Mapping[str, Any]) -> float:
        """Loss after the last epoch, were the run not to diverge."""
        lr = np.log(config["lr"] / self.best["lr"]) / np.log(1e4)
        width = np.log(config["width"] / self.best["width"]) / np.log(64)
        dropout = (config["dropout"] - self.best["dropout"]) / 0.6
        return float(0.1 + 0.5 * (1.5 * lr**2 + dropout**2 + 0.5 * width**2))

    @property
    def bounds(self) -> Bounds:
        """Exact: the bowl is separable and convex, so its largest value is at a corner.

        The worst is that of finished runs; towards large lr it is the edge of divergence.
        """
        edge = min(1.0, _DIVERGES_ABOVE * self.best["lr"])
        corners = [
            self.final_loss({"lr": lr, "width": width, "dropout": dropout})
            for lr in (1e-4, edge)
            for width in (16, 1024)
            for dropout in (0.0, 0.6)
        ]
        return Bounds(self.final_loss(self.best), max(corners))

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        asked = self.levels.check(level)
        config = self.space.validate(config)
        final, last = self.final_loss(config), float(self.levels.high)
        rate = 0.3 + 1.5 * np.log(config["lr"] / 1e-4) / np.log(1e4)
        per_epoch = 0.1 + config["width"] / 256
        breaks = config["lr"] > _DIVERGES_ABOVE * self.best["lr"]
        reached = min(asked, self.levels.high // 3) if breaks else asked
        epochs = np.arange(1, reached + 1)
        gap = (epochs**-rate - last**-rate) / (1.0 - last**-rate)
        losses = final + (1.5 - final) * gap
        curve = tuple(
            Point(int(epoch), float(loss), float(epoch * per_epoch))
            for epoch, loss in zip(epochs, losses, strict=True)
        )
        if reached < asked:
            return Evaluation(None, curve[-1].cost, curve, "diverged")
        return Evaluation(curve[-1].loss, curve[-1].cost, curve)


_CURVES_SPACE = SearchSpace(
    {
        "lr": Float(1e-4, 1.0, log=True, role=Role.LR),
        "width": Int(16, 1024, log=True),
        "dropout": Float(0.0, 0.6, role=Role.DROPOUT),
    }
)
#: A learning rate diverges beyond this multiple of the best one.
_DIVERGES_ABOVE = 50.0


def curves(seed: int) -> Curves:
    """`Curves` with its optimum in the inner half of every axis."""
    rng = np.random.default_rng(seed)
    best = {
        "lr": float(10.0 ** rng.uniform(-3.0, -1.0)),
        "width": int(round(2.0 ** rng.uniform(5.5, 8.5))),
        "dropout": float(rng.uniform(0.15, 0.45)),
    }
    return Curves(f"synthetic/curves-{seed}", best)


@dataclass(frozen=True, slots=True)
class Crossing:
    """Learning curves in closed form with a misleading start: good final losses start slowly.

    With q = sum_j w_j u_j^2, u the distances from the optimum in units of the box (logs where the
    axis is one), and the badness b = q / (q + 0.6) in [0, 1), the last loss is f = 0.1 + 0.8 b, and
    at epoch e of E

        loss(e) = f + (2 - f) (k(e) - k(E)) / (1 - k(E)),   k(e) = (1 + e / tau)^-2,
        tau = E^(c (1 - (3 b + p) / 4)),   p the learning rate's position in the box,

    so that loss(0) would be 2 for every config and loss(E) = f exactly. `patience` c determines how
    late the curves cross: of uniform configs those that end in the best tenth are among the worst
    fifth at epoch 1, and are the best tenth from epoch 27 on. An epoch costs 0.1 + width / 256
    seconds.
    """

    name: str
    best: dict[str, Any]
    patience: float
    unit: str = "seconds"
    levels: Levels = Levels("epoch", 1, 81)
    pool: None = None
    seen_in_design: bool = True

    @property
    def space(self) -> SearchSpace:
        return _CROSSING_SPACE

    def badness(self, config: Mapping[str, Any]) -> float:
        """b, 0 at the optimum and below 1 everywhere."""
        q = 0.0
        for name, weight in _CROSSING_WEIGHTS.items():
            here, best = (_position(name, values[name]) for values in (config, self.best))
            q += weight * (here - best) ** 2
        return q / (q + 0.6)

    @property
    def bounds(self) -> Bounds:
        """Exact: the last loss grows with q, which is separable and convex."""
        axes = {name: axis.limits for name, axis in _CROSSING_AXES.items()}
        corners = [dict(zip(axes, ends, strict=True)) for ends in product(*axes.values())]
        return Bounds(0.1, 0.1 + 0.8 * max(self.badness(corner) for corner in corners))

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        asked = self.levels.check(level)
        config = self.space.validate(config)
        badness, last = self.badness(config), float(self.levels.high)
        haste = (3.0 * badness + _position("lr", config["lr"])) / 4.0
        final, tau = 0.1 + 0.8 * badness, last ** (self.patience * (1.0 - haste))
        epochs = np.arange(1, asked + 1)
        to_go, end = (1.0 + epochs / tau) ** -2, (1.0 + last / tau) ** -2
        losses = final + (2.0 - final) * (to_go - end) / (1.0 - end)
        per_epoch = 0.1 + config["width"] / 256
        curve = tuple(
            Point(int(epoch), float(loss), float(epoch * per_epoch))
            for epoch, loss in zip(epochs, losses, strict=True)
        )
        return Evaluation(curve[-1].loss, curve[-1].cost, curve)


_CROSSING_AXES: dict[str, Float | Int] = {
    "lr": Float(1e-4, 1.0, log=True, role=Role.LR),
    "weight_decay": Float(1e-6, 1e-1, log=True, role=Role.WEIGHT_DECAY),
    "momentum": Float(0.0, 0.99),
    "dropout": Float(0.0, 0.6, role=Role.DROPOUT),
    "width": Int(16, 1024, log=True),
}
_CROSSING_WEIGHTS = {"lr": 3.0, "weight_decay": 1.0, "momentum": 0.7, "dropout": 1.0, "width": 0.5}
_CROSSING_SPACE = SearchSpace(_CROSSING_AXES)


def _position(name: str, value: float) -> float:
    """`value` in [0, 1] of the box, in logs where the axis is one."""
    axis = _CROSSING_AXES[name]
    low, high = axis.limits
    if axis.log:
        return float(np.log(value / low) / np.log(high / low))
    return (value - low) / (high - low)


def crossing(seed: int) -> Crossing:
    """`Crossing` with its optimum in the inner half of every axis and c in [0.4, 0.8]."""
    rng = np.random.default_rng(seed)
    best: dict[str, Any] = {}
    for name, axis in _CROSSING_AXES.items():
        (low, high), place = axis.limits, float(rng.uniform(0.25, 0.75))
        value = low * (high / low) ** place if axis.log else low + place * (high - low)
        best[name] = axis.canonical(value)
    return Crossing(f"synthetic/crossing-{seed}", best, float(rng.uniform(0.4, 0.8)))


@dataclass(frozen=True, slots=True)
class Drift:
    """Training at every size: a loss law in (N, D) and an optimum that moves with known slopes.

        loss = 1.7 + 400 N^-0.34 + 410 D^-0.28 + 0.05 bowl,
        bowl = (ln lr / lr*)^2 + 0.3 (ln batch / batch*)^2,
        ln lr*    = lr_origin    + lr_slopes    . (ln N / N_top, ln D / D_top),
        ln batch* = batch_origin + batch_slopes . (ln N / N_top, ln D / D_top).

    N: parameters, D: tokens, cost 6 N D FLOPs. Learning rates above 8 lr* diverge after a tenth of
    the run. `optimum(N, D)` is the exact answer for any target, inside the range or beyond it.
    """

    name: str
    lr_origin: float
    lr_slopes: tuple[float, float]
    batch_origin: float
    batch_slopes: tuple[float, float]
    unit: str = "flops"
    levels: None = None
    pool: None = None
    seen_in_design: bool = True

    @property
    def space(self) -> SearchSpace:
        return _DRIFT_SPACE

    def optimum(self, params: float, tokens: float) -> dict[str, float]:
        """Best lr and (real-valued) batch at a size, with the loss they reach there."""
        logs = np.array([np.log(params / _PARAMS[1]), np.log(tokens / _TOKENS[1])])
        return {
            "lr": float(np.exp(self.lr_origin + logs @ self.lr_slopes)),
            "batch": float(np.exp(self.batch_origin + logs @ self.batch_slopes)),
            "loss": _size_law(params, tokens),
        }

    def loss(self, config: Mapping[str, Any]) -> float:
        """Loss at the end of a run, were it not to diverge."""
        best = self.optimum(config["params"], config["tokens"])
        bowl = np.log(config["lr"] / best["lr"]) ** 2
        bowl += 0.3 * np.log(config["batch"] / best["batch"]) ** 2
        return float(best["loss"] + 0.05 * bowl)

    @property
    def bounds(self) -> Bounds:
        """Best over the space: the largest size at its optimum, batch to the next integer.

        Worst: the largest finite loss over the corners of the box, where the convex bowl peaks.
        """
        top = {"params": _PARAMS[1], "tokens": _TOKENS[1]}
        optimum = self.optimum(**top)
        batches = (int(np.floor(optimum["batch"])), int(np.ceil(optimum["batch"])))
        best = min(self.loss({**top, "lr": optimum["lr"], "batch": batch}) for batch in batches)
        worst = max(
            self.loss({"lr": lr, "batch": batch, "params": params, "tokens": tokens})
            for params in _PARAMS
            for tokens in _TOKENS
            for lr in (1e-5, min(1.0, 8.0 * self.optimum(params, tokens)["lr"]))
            for batch in (8, 4096)
        )
        return Bounds(best, worst)

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        if level is not None:
            raise ValueError(f"`level` must be None for {self.name}, got {level!r}; it has none")
        config = self.space.validate(config)
        cost = 6.0 * config["params"] * config["tokens"]
        if config["lr"] > 8.0 * self.optimum(config["params"], config["tokens"])["lr"]:
            return Evaluation(None, 0.1 * cost, (), "diverged")
        loss = self.loss(config)
        return Evaluation(loss, cost, (Point(1, loss, cost),))


_PARAMS = (1e6, 1e8)
_TOKENS = (1e8, 1e10)
_DRIFT_SPACE = SearchSpace(
    {
        "lr": Float(1e-5, 1.0, log=True, role=Role.LR),
        "batch": Int(8, 4096, log=True, role=Role.BATCH),
        "params": Scale(*_PARAMS, axis=Axis.PARAMS),
        "tokens": Scale(*_TOKENS, axis=Axis.TOKENS),
    }
)


def _size_law(params: float, tokens: float) -> float:
    return float(1.7 + 400.0 * params**-0.34 + 410.0 * tokens**-0.28)


def drift(seed: int) -> Drift:
    """`Drift` with slopes around the published ones: lr falls in N, batch rises in D."""
    rng = np.random.default_rng(seed)
    return Drift(
        f"synthetic/drift-{seed}",
        lr_origin=float(np.log(10.0) * rng.uniform(-3.2, -2.4)),
        lr_slopes=(float(rng.uniform(-0.6, -0.2)), float(rng.uniform(-0.1, 0.3))),
        batch_origin=float(np.log(2.0) * rng.uniform(7.5, 9.0)),
        batch_slopes=(0.0, float(rng.uniform(0.2, 0.5))),
    )


_MAKERS: dict[str, Callable[[int], FunctionTask | Curves | Crossing | Drift]] = {
    "curves": curves,
    "crossing": crossing,
    "drift": drift,
}
#: Listed for every function; any other non-negative seed loads as well.
_LISTED_SEEDS = range(5)


def names() -> tuple[str, ...]:
    """Names of the listed seeds of every function."""
    functions = [*PROBLEMS, *_MAKERS]
    return tuple(f"synthetic/{name}-{seed}" for name in functions for seed in _LISTED_SEEDS)


def load(name: str) -> FunctionTask | Curves | Crossing | Drift:
    """`synthetic/FUNCTION-SEED`; raises `ValueError` for another function or seed."""
    function, _, seed = name.removeprefix("synthetic/").rpartition("-")
    if not seed.isdecimal() or function not in {*PROBLEMS, *_MAKERS}:
        raise ValueError(
            f"a synthetic task is called synthetic/FUNCTION-SEED with one of"
            f" {[*PROBLEMS, *_MAKERS]}, got {name!r}; try synthetic/branin-0"
        )
    if function in _MAKERS:
        return _MAKERS[function](int(seed))
    problem = PROBLEMS[function](int(seed))
    return FunctionTask(name, problem, SearchSpace(problem.space))
