"""Answers for a scale at which nothing was run: recorded language models and known laws.

    OMP_NUM_THREADS=1 python -m benchmarks scale-transfer            # the six targets
    OMP_NUM_THREADS=1 python -m benchmarks scale-transfer --design   # what choices were made on
    OMP_NUM_THREADS=1 python -m benchmarks scale-transfer --calibration

The table is Step Law's dense runs (Li et al. 2025): learning rate x batch size for 17 pairs of
model size N and tokens D. For one of them, the target, a run may be bought from any other whose
compute 6 N D is at most a quarter of the target's, and each recorded run only once. Buying ends
when no run fits into what is left of the budget, which is counted in runs of the target. The answer
is a learning rate and a batch size, and its gap is the loss there, by linear interpolation in
(ln lr, ln batch) between the target's recorded runs, above the best of them, in percent.

The six targets are the most expensive cells. Model form, priors and search settings were chosen on
the synthetic problems of this module, whose drift is known, and on the other eleven cells
(`--design`); the targets were then run once. `rule: Step Law` was fitted by its authors on all 17
cells, targets included: it is a reference, not a rival.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from benchmarks.jsonlines import append_row, read_rows
from benchmarks.markdown import table_head, table_row
from benchmarks.task import Evaluation
from benchmarks.tasks.data import find
from hpo import (
    Axis,
    Budget,
    Float,
    Neutral,
    Optimizer,
    Role,
    Scale,
    SearchSpace,
    Slope,
    StepLaw,
)
from hpo.scaling.claims import Priors

NINETY = 1.6448536269514722  # half-width of a normal central 90 % interval, in sd
Array = NDArray[np.float64]
Config = dict[str, Any]
_ERROR = "error %"  # of the predicted loss, told apart from the intervals of a calibration

_AXES = ("params", "tokens")
BUDGETS = (0.25, 0.5, 1.0, 2.0)
SHARE = 0.25  # of the target's compute that a proxy may cost
TARGETS = 0.3  # of the most expensive cell's compute, from which on a cell is a target
CONFIRMED = 3  # runs of the target itself, where they are allowed
_TOLD = 60  # random runs behind each interval of a calibration
_FINE = 300  # steps of a grid over the target
_FEWEST = 4  # cells of proxies that a problem needs
_KEY = ("problem", "method", "budget", "seed")
Key = tuple[str, str, float, int]


@dataclass(frozen=True, slots=True)
class Cell:
    """The recorded runs of one size.

    Attributes:
        configs: lr, batch, params and tokens of each run.
        loss: validation loss of each, `(n,)`.
        cost: FLOPs of one run.
    """

    configs: tuple[Config, ...]
    loss: Array
    cost: float

    @property
    def size(self) -> dict[str, float]:
        return {axis: self.configs[0][axis] for axis in _AXES}


@dataclass(frozen=True, slots=True)
class Problem:
    """Cells whose runs can be bought, the target, and the loss anywhere in the target.

    Attributes:
        name: name in the table.
        sources: cells whose runs can be bought.
        target: cell to answer for.
        loss_at: target's loss at arrays of (ln lr, ln batch).
        best: smallest loss of the target.
        drift: d ln (lr, batch) / d ln (N, D), 2 x 2, if it is known.
    """

    name: str
    sources: tuple[Cell, ...]
    target: Cell
    loss_at: Callable[[Array, Array], Array]
    best: float
    drift: Array | None = None

    def space(self) -> SearchSpace:
        """Return the space of lr, batch, N and D over the sources."""
        sizes = [cell.size for cell in self.sources]
        lr, batch = (
            [config[name] for cell in self.sources for config in cell.configs]
            for name in ("lr", "batch")
        )

        def scale(name: str, axis: Axis) -> Scale:
            values = [size[name] for size in sizes]
            return Scale(min(values), max(values), axis=axis)

        return SearchSpace(
            {
                "lr": Float(min(lr), max(lr), log=True, role=Role.LR),
                "batch": Float(min(batch), max(batch), log=True, role=Role.BATCH),
                "params": scale("params", Axis.PARAMS),
                "tokens": scale("tokens", Axis.TOKENS),
            }
        )

    def gap(self, config: Mapping[str, Any]) -> float:
        """Return the percent by which the loss of `config` at the target exceeds the best."""
        place = np.log([[config["lr"]], [config["batch"]]])
        return 100.0 * (float(self.loss_at(*place)[0]) / self.best - 1.0)

    def plateau(self) -> dict[str, tuple[float, float]]:
        """Return the ranges of lr and batch in which the loss can be within 0.1 % of the best."""
        corners = np.log([[c["lr"], c["batch"]] for c in self.target.configs])
        sides = np.linspace(corners.min(axis=0), corners.max(axis=0), _FINE).T
        lr, batch = (grid.ravel() for grid in np.meshgrid(*sides))
        good = self.loss_at(lr, batch) <= 1.001 * self.best
        return {
            name: (float(np.exp(axis[good].min())), float(np.exp(axis[good].max())))
            for name, axis in (("lr", lr), ("batch", batch))
        }


class Shop:
    """Runs that can still be bought, and the FLOPs `spent`."""

    def __init__(self, problem: Problem, budget: float) -> None:
        self.spent = 0.0
        self._purse = budget * problem.target.cost
        self._left = [
            (config, float(loss), cell.cost)
            for cell in problem.sources
            for config, loss in zip(cell.configs, cell.loss, strict=True)
        ]

    @property
    def left(self) -> float:
        return self._purse - self.spent

    def offers(self) -> list[Config]:
        """Return the configs that can still be afforded."""
        return [config for config, _, cost in self._left if cost <= self.left]

    def buy(self, config: Mapping[str, Any]) -> tuple[float, float]:
        """Return loss and cost of one of `offers`, which is then no longer offered."""
        place = next(i for i, offer in enumerate(self._left) if offer[0] == config)
        _, loss, cost = self._left.pop(place)
        self.spent += cost
        return loss, cost


def recorded(*, design: bool) -> list[Problem]:
    """Return the problems of Step Law's table.

    Args:
        design: whether to return those of the other cells with enough proxies, in which no run of a
            target occurs, instead of the targets.
    """
    made = _cells()
    highest = max(cell.cost for cell in made)
    problems = []
    for target in made:
        is_target = target.cost >= TARGETS * highest
        sources = tuple(cell for cell in made if cell.cost <= SHARE * target.cost)
        if is_target != design and len(sources) >= _FEWEST:
            problems.append(_problem(target, sources))
    return problems


def left_out() -> list[Problem]:
    """Return a problem for each cell, with all others as sources whatever they cost."""
    made = _cells()
    return [_problem(target, tuple(cell for cell in made if cell is not target)) for target in made]


def _problem(target: Cell, sources: tuple[Cell, ...]) -> Problem:
    name = "N={params:.3g} D={tokens:.3g}".format(**target.size)
    return Problem(name, sources, target, _interpolated(target), float(target.loss.min()))


def _cells() -> list[Cell]:
    """The cells of Step Law's table, cheapest first."""
    path = find("steplaw_dense.csv", "it is Step Law's `data/dense_lr_bs_loss.csv`")
    cells: dict[tuple[float, float], list[dict[str, str]]] = {}
    with path.open() as file:
        for row in csv.DictReader(file):
            cells.setdefault((float(row["N"]), float(row["D"])), []).append(row)
    made = [_cell(size, rows) for size, rows in cells.items()]
    return sorted(made, key=lambda cell: cell.cost)


def _cell(size: tuple[float, float], rows: Sequence[Mapping[str, str]]) -> Cell:
    configs = tuple(
        {
            "lr": float(row["lr"]),
            "batch": float(row["batch_size"]),
            "params": size[0],
            "tokens": size[1],
        }
        for row in rows
    )
    return Cell(configs, np.array([float(row["loss"]) for row in rows]), 6.0 * size[0] * size[1])


def _interpolated(cell: Cell) -> Callable[[Array, Array], Array]:
    """Linear between recorded runs; outside of them, at the nearest of them."""
    from scipy.interpolate import LinearNDInterpolator, NearestNDInterpolator

    points = np.log([[config["lr"], config["batch"]] for config in cell.configs])
    low, high = points.min(axis=0), points.max(axis=0)
    linear = LinearNDInterpolator(points / (high - low), cell.loss)
    nearest = NearestNDInterpolator(points / (high - low), cell.loss)

    def loss_at(log_lr: Array, log_batch: Array) -> Array:
        place = np.clip(np.stack([log_lr, log_batch], axis=-1), low, high) / (high - low)
        inside = linear(place)
        return np.where(np.isfinite(inside), inside, nearest(place))

    return loss_at


def synthetic(seed: int) -> Problem:
    """Return a problem with a known law and drift, recorded on a grid like Step Law's with noise.

    Exponents, drift, curvature, asymmetry, coupling, how curvature shrinks and noise are drawn anew
    for each `seed`; the loss at the target is free of noise.
    """
    rng = np.random.default_rng([0x5CA1E, seed])
    alpha, beta = rng.uniform(0.2, 0.45, 2)
    gamma = rng.uniform(0.5, 1.0)
    share, floor = rng.uniform(0.25, 0.75), rng.uniform(1.3, 2.2)
    reducible = rng.uniform(0.4, 1.0)
    drift = np.array([[rng.normal(-0.5, 0.25), rng.normal(0.0, 0.3)], [0.0, 0.0]])
    drift[1] = rng.normal(0.0, 0.1), rng.normal(0.5, 0.15)
    start = np.log([rng.uniform(1e-3, 3e-3), rng.uniform(60, 200)])
    curvature = rng.uniform(0.5, 1.5) * np.array([0.03, 0.02])
    cliff, coupling = rng.uniform(0.0, 0.8), rng.uniform(0.0, 0.6)
    shrink, noise = rng.uniform(0.0, 1.0), rng.uniform(0.001, 0.003)
    origin = np.log([2e8, 4e9])

    def loss(log_lr: Array, log_batch: Array, params: float, tokens: float) -> Array:
        steps = np.log([params, tokens]) - origin
        left = (
            share * math.exp(-alpha * steps[0] / gamma)
            + (1 - share) * math.exp(-beta * steps[1] / gamma)
        ) ** gamma
        z = np.stack([log_lr, log_batch], axis=-1) - start - drift @ steps
        t = z[..., 0] - coupling * z[..., 1]
        w = cliff * t
        bowl = t**2 * np.where(
            np.abs(w) < 1e-3, 0.5, (np.expm1(w) - w) / np.where(w == 0, 1.0, w) ** 2
        )
        excess = curvature[0] * bowl + curvature[1] * z[..., 1] ** 2 / 2
        return np.asarray(floor + reducible * left + left**shrink * excess)

    lrs = np.log(np.geomspace(2.5e-4, 1.1e-2, 12))
    batches = np.log(np.geomspace(16, 1024, 10))
    lr, batch = (grid.ravel() for grid in np.meshgrid(lrs, batches))
    sizes = [(2.1e8, 4e9), (2.7e8, 5e9), (2.1e8, 1.1e10), (4.3e8, 8e9), (2.7e8, 1.4e10)]
    sizes += [(2.1e8, 2e10), (5.4e8, 1e10), (4e8, 6e10) if seed % 2 else (1.1e9, 2e10)]
    cells = []
    for params, tokens in sizes:
        seen = loss(lr, batch, params, tokens) + noise * rng.standard_normal(len(lr))
        configs = tuple(
            {"lr": float(a), "batch": float(b), "params": params, "tokens": tokens}
            for a, b in zip(np.exp(lr), np.exp(batch), strict=True)
        )
        cells.append(Cell(configs, seen, 6.0 * params * tokens))
    *sources, target = cells
    sides = (np.linspace(axis[0], axis[-1], _FINE) for axis in (lrs, batches))
    fine_lr, fine_batch = (grid.ravel() for grid in np.meshgrid(*sides))
    size = (target.size["params"], target.size["tokens"])
    best = float(loss(fine_lr, fine_batch, *size).min())
    return Problem(
        f"synthetic/{seed}",
        tuple(cell for cell in sources if cell.cost <= SHARE * target.cost),
        target,
        lambda log_lr, log_batch: loss(log_lr, log_batch, *size),
        best,
        drift,
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """Config to train the target with; predicted loss and its 90 % interval, if there is one."""

    config: Config
    loss: float = math.nan
    interval: tuple[float, float] = (math.nan, math.nan)


class Method(Protocol):
    """Method that buys proxies and answers for the target."""

    def choose(self, offers: Sequence[Config]) -> Config:
        """Return one of `offers`, which are never empty."""
        ...

    def tell(self, config: Config, loss: float, cost: float) -> None:
        """Take the result of a bought run."""
        ...

    def answer(self) -> Answer:
        """Return the answer after at least one run."""
        ...


class Scaletune:
    """Engine that buys the runs most informative about the target and answers by `recommend`."""

    def __init__(self, problem: Problem, budget: float, seed: int, priors: Priors = None) -> None:
        self._optimizer = Optimizer(
            problem.space(),
            cost="flops",
            budget=Budget(cost=budget * problem.target.cost),
            target=problem.target.size,
            priors=priors,
            seed=seed,
        )

    def choose(self, offers: Sequence[Config]) -> Config:
        asked = self._optimizer.ask(among=offers)
        self._number = asked.number
        return _nearest(asked.config, offers)

    def tell(self, config: Config, loss: float, cost: float) -> None:
        self._optimizer.tell(self._number, loss, cost)

    def confirm(self, config: Config, loss: float, cost: float) -> None:
        """Take the result of a run of the target itself."""
        self._optimizer.tell(config, loss, cost)

    def answer(self) -> Answer:
        found = self._optimizer.recommend()
        return Answer(found.config, found.loss, found.loss_interval)


class RandomProxies:
    """Random affordable runs, and the config of the best of them."""

    def __init__(self, problem: Problem, budget: float, seed: int) -> None:
        self._problem, self._rng = problem, np.random.default_rng(seed)
        self._runs: list[tuple[Config, float, float]] = []

    def choose(self, offers: Sequence[Config]) -> Config:
        return offers[int(self._rng.integers(len(offers)))]

    def tell(self, config: Config, loss: float, cost: float) -> None:
        self._runs.append((config, loss, cost))

    def answer(self) -> Answer:
        return Answer(min(self._runs, key=lambda run: run[1])[0])


class RandomThenLaw(RandomProxies):
    """Random affordable runs, and our law's answer."""

    def answer(self) -> Answer:
        target = self._problem.target.size
        optimizer = Optimizer(self._problem.space(), cost="flops", target=target)
        for config, loss, cost in self._runs:
            optimizer.tell(config, loss, cost)
        found = optimizer.recommend()
        return Answer(found.config, found.loss, found.loss_interval)


class RandomThenGP(RandomProxies):
    """Random affordable runs, and the best mean of a plain GP on (lr, batch, ln N, ln D)."""

    def answer(self) -> Answer:
        from surrogates.data import ColumnKind, Columns, TrainingData
        from surrogates.gp import GaussianProcess

        names = ("lr", "batch", "params", "tokens")
        rows = np.log([[config[name] for name in names] for config, _, _ in self._runs])
        target = np.log(list(self._problem.target.size.values()))
        low = np.minimum(rows.min(axis=0), [*rows.min(axis=0)[:2], *target])
        width = np.maximum(rows.max(axis=0), [*rows.max(axis=0)[:2], *target]) - low
        width[width == 0.0] = 1.0
        columns = Columns((ColumnKind.DECISION,) * 4, names, low, width, (0,) * 4)
        loss = np.array([run[1] for run in self._runs])
        level, unit = loss.mean(), loss.std() or 1.0
        data = TrainingData((rows - low) / width, (loss - level) / unit, columns)
        model = GaussianProcess()
        predictor = model.predictor(data, model.learn(data))
        side = np.linspace(0.0, 1.0, 60)
        lr, batch = (grid.ravel() for grid in np.meshgrid(side, side))
        X = np.tile(np.append([0.0, 0.0], (target - low[2:]) / width[2:]), (len(lr), 1))
        X[:, 0], X[:, 1] = lr, batch
        best = X[int(np.argmin(predictor.posterior(X).mean))]
        found = np.exp(low + width * best)
        return Answer({"lr": float(found[0]), "batch": float(found[1])})


class OptunaOnLargest:
    """Optuna's GPSampler on (lr, batch) at the largest affordable proxy; its best is copied."""

    def __init__(self, problem: Problem, budget: float, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = problem.space()
        self._distributions: dict[str, optuna.distributions.BaseDistribution] = {}
        for name in ("lr", "batch"):
            parameter = space[name]
            assert isinstance(parameter, Float)
            assert parameter.low is not None and parameter.high is not None
            self._distributions[name] = optuna.distributions.FloatDistribution(
                parameter.low, parameter.high, log=True
            )
        self._study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=seed))
        self._size: dict[str, float] | None = None

    def choose(self, offers: Sequence[Config]) -> Config:
        if self._size is None:
            largest = max(offers, key=lambda offer: float(offer["params"] * offer["tokens"]))
            self._size = {axis: largest[axis] for axis in _AXES}
        asked = self._study.ask(self._distributions).params
        here = [offer for offer in offers if offer.items() >= self._size.items()]
        return _nearest(asked, here or offers, ("lr", "batch"))

    def tell(self, config: Config, loss: float, cost: float) -> None:
        import optuna

        params = {name: config[name] for name in self._distributions}
        self._study.add_trial(
            optuna.trial.create_trial(params=params, distributions=self._distributions, value=loss)
        )

    def answer(self) -> Answer:
        return Answer(dict(self._study.best_params))


class Carbs:
    """CARBS with lr, batch, N and D as its parameters, its own front extrapolated in ln cost.

    `SCALETUNE_CARBS` names its checkout, and `python -m benchmarks env carbs` makes its
    environment: run this experiment with that interpreter. CARBS does not know the budget when it
    proposes, as always.
    """

    def __init__(self, problem: Problem, budget: float, seed: int) -> None:
        from benchmarks.peers.carbs import over

        self._target = math.log(problem.target.cost)
        self._peer = over(problem.space(), seed=seed)
        self._runs: list[tuple[Config, float, float]] = []

    def choose(self, offers: Sequence[Config]) -> Config:
        job = self._peer.ask()
        assert job is not None
        self._job = replace(job, config=_nearest(job.config, offers))
        return self._job.config

    def tell(self, config: Config, loss: float, cost: float) -> None:
        self._peer.tell(self._job, Evaluation(loss, cost, ()))
        self._runs.append((config, loss, cost))

    def answer(self) -> Answer:
        """Least-squares lines of ln lr and ln batch in ln cost over the front, at the target."""
        best, front = math.inf, []
        for config, loss, cost in sorted(self._runs, key=lambda run: (run[2], run[1])):
            if loss < best:
                best = loss
                front.append((math.log(cost), config))
        costs = np.array([cost for cost, _ in front])
        if np.ptp(costs) == 0.0:
            return Answer(front[-1][1])
        design = np.stack([np.ones_like(costs), costs], axis=1)
        values = np.log([[config["lr"], config["batch"]] for _, config in front])
        lines = np.linalg.lstsq(design, values, rcond=None)[0]
        lr, batch = np.exp([1.0, self._target] @ lines)
        return Answer({"lr": float(lr), "batch": float(batch)})


class Formula:
    """Step Law's published formula: lr = 1.79 N^-0.713 D^0.307, batch = 0.58 D^0.571 tokens."""

    def __init__(self, problem: Problem, budget: float, seed: int) -> None:
        size = problem.target.size
        lr = 1.79 * size["params"] ** -0.713 * size["tokens"] ** 0.307
        batch = 0.58 * size["tokens"] ** 0.571 / 2048
        self._config = {"lr": lr, "batch": batch}

    def choose(self, offers: Sequence[Config]) -> Config:
        raise NotImplementedError("a formula buys nothing")

    def tell(self, config: Config, loss: float, cost: float) -> None: ...

    def answer(self) -> Answer:
        return Answer(self._config)


def _nearest(
    config: Mapping[str, Any],
    offers: Sequence[Config],
    names: Sequence[str] = ("lr", "batch", "params", "tokens"),
) -> Config:
    """The offer at the smallest distance in logarithms."""
    place = np.log([[offer[name] for name in names] for offer in offers])
    here = np.log([config[name] for name in names])
    return offers[int(np.argmin(np.sum((place - here) ** 2, axis=1)))]


Maker = Callable[[Problem, float, int], Method]


def _with(priors: Priors) -> Maker:
    return lambda problem, budget, seed: Scaletune(problem, budget, seed, priors)


_UNMOVED = [Slope(name, axis, mean=0.0, sd=0.01) for name in ("lr", "batch") for axis in _AXES]
METHODS: dict[str, Maker] = {
    "scaletune": _with(None),
    "scaletune, neutral priors": _with(Neutral()),
    "scaletune, no drift": _with(_UNMOVED),
    "scaletune, StepLaw": _with([StepLaw(sequence_length=2048)]),
    "random, then law": RandomThenLaw,
    "random, then GP": RandomThenGP,
    "random, best copied": RandomProxies,
    "Optuna GP on largest": OptunaOnLargest,
    "CARBS": Carbs,
    "rule: Step Law": Formula,
}


@dataclass(frozen=True, slots=True)
class Score:
    """Measurements of one game.

    Attributes:
        gap: percent by which the answer's loss exceeds the best.
        spent: compute, in runs of the target.
        runs: number of runs bought.
        inside: whether the interval holds the loss; NaN without an interval.
        ape: absolute percentage error of the predicted loss; NaN without a prediction.
        ask_ms: milliseconds of the method a run.
    """

    gap: float
    spent: float
    runs: float
    inside: float
    ape: float
    ask_ms: float


def play(problem: Problem, make: Maker, budget: float, seed: int, confirmed: int = 0) -> Score:
    """Buy, answer and score.

    Args:
        problem: problem to answer.
        make: constructor of the method.
        budget: compute that may be spent, in runs of the target.
        seed: seed of the method.
        confirmed: number of runs of the target bought after that, whose best is scored.
    """
    shop, method = Shop(problem, budget), make(problem, budget, seed)
    runs, started = 0, time.perf_counter()
    if not isinstance(method, Formula):
        while offers := shop.offers():
            config = method.choose(offers)
            method.tell(config, *shop.buy(config))
            runs += 1
    answer = method.answer()
    gap = problem.gap(answer.config)
    loss = problem.best * (1.0 + gap / 100.0)
    if confirmed:
        assert isinstance(method, Scaletune)
        gap = _confirm(problem, method, confirmed)
    milliseconds = 1e3 * (time.perf_counter() - started) / max(runs, 1)
    low, high = answer.interval
    known = math.isfinite(answer.loss)
    return Score(
        gap,
        shop.spent / problem.target.cost + confirmed,
        runs,
        float(low <= loss <= high) if known else math.nan,
        100.0 * abs(answer.loss - loss) / loss if known else math.nan,
        milliseconds,
    )


def _confirm(problem: Problem, method: Scaletune, runs: int) -> float:
    """Recorded gap of the best of `runs` target runs, each the answer after those before."""
    offers, best = list(problem.target.configs), math.inf
    for _ in range(runs):
        config = _nearest(method.answer().config, offers, ("lr", "batch"))
        offers.remove(config)
        loss = float(problem.target.loss[problem.target.configs.index(config)])
        method.confirm(config, loss, problem.target.cost)
        best = min(best, loss)
    return 100.0 * (best / problem.best - 1.0)


def calibration(problems: Sequence[Problem], seeds: int) -> str:
    """Return how often 90 % intervals hold the truth, told random runs and no published rule.

    Intervals of lr and batch must reach the plateau within 0.1 % of the best loss; those of the
    drift (each of four slopes) are checked if it is known.
    """
    held: dict[str, list[float]] = {}
    for problem in problems:
        plateau = problem.plateau()
        for seed in range(seeds):
            for name, value in _held(problem, plateau, seed):
                held.setdefault(name, []).append(value)
    errors = np.array(held.pop(_ERROR))
    lines = table_head(["90 % interval of", "covered", "of"])
    for name, inside in held.items():
        lines.append(table_row([name, f"{np.mean(inside):.3f}", len(inside)]))
    lines.append(f"\nMedian error of the predicted loss: {np.median(errors):.2f} %")
    return "\n".join(lines)


def _held(
    problem: Problem, plateau: Mapping[str, tuple[float, float]], seed: int
) -> Iterator[tuple[str, float]]:
    """Whether each interval holds the truth after random runs, and the error of the loss."""
    runs = [
        (config, float(loss), cell.cost)
        for cell in problem.sources
        for config, loss in zip(cell.configs, cell.loss, strict=True)
    ]
    optimizer = Optimizer(problem.space(), cost="flops", target=problem.target.size)
    for place in np.random.default_rng(seed).choice(len(runs), _TOLD, replace=False):
        optimizer.tell(runs[place][0], *runs[place][1:])
    answer = optimizer.recommend()
    loss = problem.best * (1.0 + problem.gap(answer.config) / 100.0)
    low, high = answer.loss_interval
    yield "loss", low <= loss <= high
    yield _ERROR, 100.0 * abs(answer.loss / loss - 1.0)
    for name, (least, greatest) in plateau.items():
        low, high = answer.intervals[name]
        yield name, low <= greatest and least <= high
    law = optimizer.result().scaling_law
    assert law is not None
    if problem.drift is None:
        return
    for (i, name), (a, axis) in product(enumerate(plateau), enumerate(_AXES)):
        slope = law.slope(name, axis)
        yield "drift", abs(slope.mean - problem.drift[i, a]) <= NINETY * slope.sd


def chinchilla() -> str:
    """Return the law on the points read off Chinchilla's figure, beside the published re-analysis.

    Besiroglu et al. 2024 leave out the five points of highest loss, as runs that ended early, and
    fit E + A N^-a + B D^-b with a Huber loss. Ours also fits gamma, how the two terms combine.
    """
    path = find("chinchilla.csv", "it is Epoch AI's `analyzing-chinchilla` table")
    with path.open() as file:
        points = [(float(r["N"]), float(r["D"]), float(r["loss"])) for r in csv.DictReader(file)]
    points.sort(key=lambda point: -point[2])
    lines = table_head(["points", "exponent of N", "exponent of D", "E", "gamma"])
    for kept in (points, points[5:]):
        sizes, tokens, _ = zip(*kept, strict=True)
        space = {
            "params": Scale(min(sizes), max(sizes), axis=Axis.PARAMS),
            "tokens": Scale(min(tokens), max(tokens), axis=Axis.TOKENS),
        }
        optimizer = Optimizer(space)
        for size, data, loss in kept:
            optimizer.tell({"params": size, "tokens": data}, loss)
        law = optimizer.result().scaling_law
        assert law is not None
        exponents = (law.exponent("params"), law.exponent("tokens"))
        shown = (*exponents, law.coefficients.irreducible, law.gamma)
        lines.append(table_row([len(kept), *(f"{e.mean:.3f} +- {e.sd:.3f}" for e in shown)]))
    lines.append(table_row(["240, published", 0.35, 0.37, 1.82, 1]))
    return "\n".join(lines)


def _wanted(
    problems: Iterable[Problem], methods: Iterable[str], budgets: Iterable[float], seeds: int
) -> Iterator[tuple[Problem, str, float, int]]:
    """Every game; that of the formula, which buys nothing and draws nothing, only once."""
    for seed, problem, method, budget in product(range(seeds), problems, methods, budgets):
        if method != "rule: Step Law" or (seed == 0 and budget == BUDGETS[0]):
            yield problem, method, budget, seed


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks scale-transfer`."""
    parser.add_argument("--design", action="store_true", help="cells that are no targets")
    parser.add_argument("--synthetic", type=int, metavar="N", help="N laws that are known instead")
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=["scaletune"])
    parser.add_argument("--budgets", nargs="+", type=float, default=list(BUDGETS))
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--confirm", action="store_true", help=f"with {CONFIRMED} target runs")
    parser.add_argument(
        "--calibration", action="store_true", help="check intervals: each cell left out, 200 laws"
    )
    parser.add_argument("--chinchilla", action="store_true", help="exponents of another table")
    parser.add_argument("--out", type=Path, help="file to append to; what it holds is not rerun")
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    if given.chinchilla:
        print(chinchilla())
    elif given.calibration:
        print(f"Each recorded cell left out, 3 seeds\n\n{calibration(left_out(), 3)}\n")
        laws = [synthetic(seed) for seed in range(200)]
        print(f"200 synthetic laws\n\n{calibration(laws, 1)}")
    else:
        print(table(_scores(given)))
    return 0


def _scores(given: argparse.Namespace) -> dict[Key, Score]:
    """Play what `--out` does not hold yet; without it, each row is written to standard error."""
    if given.synthetic:
        problems = [synthetic(seed) for seed in range(given.synthetic)]
    else:
        problems = recorded(design=given.design)
    confirmed = CONFIRMED if given.confirm else 0
    done = read(given.out) if given.out else {}
    for problem, method, budget, seed in _wanted(
        problems, given.methods, given.budgets, given.seeds
    ):
        name = f"{method} + {confirmed} confirmed" if confirmed else method
        key = (problem.name, name, budget, seed)
        if key in done:
            continue
        score = play(problem, METHODS[method], budget, seed, confirmed)
        # Six digits are more than the table shows.
        values = {field: float(f"{value:.6g}") for field, value in asdict(score).items()}
        row = dict(zip(_KEY, key, strict=True)) | values
        if given.out:
            append_row(given.out, row)
        else:
            print(json.dumps(row), file=sys.stderr, flush=True)
        done[key] = Score(**values)
    return done


def read(path: Path) -> dict[Key, Score]:
    """Return the scores in a file."""
    scores: dict[Key, Score] = {}
    for row in read_rows(path):
        problem, method, budget, seed = (row.pop(name) for name in _KEY)
        scores[problem, method, budget, seed] = Score(**row)
    return scores


def table(scores: Mapping[Key, Score]) -> str:
    """Return the gap by method and budget, over all targets and seeds, as Markdown."""
    columns = ["method", "budget", "spent", "runs", "gap % mean", "p90", "max"]
    lines = table_head([*columns, "covered", "ape %", "ms per ask"])
    groups: dict[str, dict[float, list[Score]]] = {}
    for (_, method, budget, _), score in scores.items():
        groups.setdefault(method, {}).setdefault(budget, []).append(score)
    for method, by_budget in groups.items():
        for budget in sorted(by_budget):
            lines.append(table_row([method, f"{budget:g}", *_summary(by_budget[budget])]))
    return "\n".join(lines)


def _summary(scores: Sequence[Score]) -> list[str]:
    column = {
        field.name: np.array([getattr(score, field.name) for score in scores])
        for field in fields(Score)
    }
    gap = column["gap"]
    return [
        f"{column['spent'].mean():.2f}",
        f"{column['runs'].mean():.0f}",
        f"{gap.mean():.3f}",
        f"{np.quantile(gap, 0.9):.3f}",
        f"{gap.max():.3f}",
        f"{column['inside'].mean():.2f}",
        f"{np.median(column['ape']):.2f}",
        f"{column['ask_ms'].mean():.0f}",
    ]
