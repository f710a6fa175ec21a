"""Recorded sweeps of real pre-training runs, told in part: what is foreseen of the rest.

Two families. NCPL's split of Step Law's dense runs (arXiv 2602.10300, 2503.04715) keeps runs within
the sizes told and runs of larger models. Marin's four tables (arXiv 2509.02046) have up to eleven
settings, most runs changing one of them; the small cells are told and all others asked about.
"""

from __future__ import annotations

import csv
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.experiments.target.laws import huber, process, trees
from benchmarks.experiments.target.question import (
    OURS,
    Array,
    Figure,
    Foreseen,
    Limit,
    Question,
    mean,
    pooled,
)
from benchmarks.tasks.data import find
from hpo import Axis, Categorical, Float, Int, Optimizer, Result, Role, Scale
from hpo.space import Parameter

Config = dict[str, Any]

AXES = ("params", "tokens")
HUBER = "Chinchilla + Huber"
METHODS = (OURS, HUBER, "GP", "trees")


@dataclass(frozen=True, slots=True)
class Runs:
    """Completed runs of one table.

    Attributes:
        configs: settings, params and tokens of each.
        loss: final loss, `(n,)`.
        groups: what each run belongs to: its part of a split, or its cell.
    """

    configs: tuple[Config, ...]
    loss: Array
    groups: tuple[str, ...]

    def of(self, kept: Callable[[str], bool]) -> Runs:
        """Return the runs of the groups that `kept` accepts."""
        return self.where([kept(group) for group in self.groups])

    def where(self, kept: Sequence[bool]) -> Runs:
        """Return the runs where a mask is true."""
        places = [i for i, wanted in enumerate(kept) if wanted]
        return Runs(
            tuple(self.configs[i] for i in places),
            self.loss[places],
            tuple(self.groups[i] for i in places),
        )


@dataclass(frozen=True, slots=True)
class Sweep:
    """A table, the space it was drawn from, and what is told of it.

    Attributes:
        space: parameters and scale axes.
        told: runs to learn from.
        asked: runs to foresee.
    """

    space: Mapping[str, Parameter]
    told: Runs
    asked: Runs


# --- NCPL's split of Step Law --------------------------------------------------------------------

_STEP_LAW = ("N", "D", "lr", "batch_size")


@functools.cache
def ncpl() -> Sweep:
    """Return Step Law's dense runs, told where NCPL trained on them."""
    losses = {
        _place(row): float(row["loss"])
        for row in _table("steplaw_dense.csv", "it is Step Law's `data/dense_lr_bs_loss.csv`")
    }
    split = _table("steplaw_ncpl_split.csv", "it lists the run names published with NCPL")
    configs = tuple(
        {
            "lr": float(row["lr"]),
            "batch": int(row["batch_size"]),
            "params": float(row["N"]),
            "tokens": float(row["D"]),
        }
        for row in split
    )
    loss = np.array([losses[_place(row)] for row in split])
    runs = Runs(configs, loss, tuple(row["split"] for row in split))
    told = runs.of(lambda part: part == "train")
    space: dict[str, Parameter] = {
        "lr": Float(*_ends(runs, "lr"), log=True, role=Role.LR),
        "batch": Int(*map(int, _ends(runs, "batch")), log=True, role=Role.BATCH),
        **_scales(told),
    }
    return Sweep(space, told, runs.of(lambda part: part != "train"))


def _place(row: Mapping[str, str]) -> tuple[float, ...]:
    return tuple(float(row[name]) for name in _STEP_LAW)


# --- Marin ---------------------------------------------------------------------------------------

MARIN = ("adamw", "muon", "nadamw", "soap")
TOLD_CELLS = ("130m 1x", "130m 2x", "130m 4x", "130m 8x", "300m 1x", "520m 1x")
FAILED_FROM = 4.0  # loss above which a run diverged
FEWEST = 3  # runs of a cell whose best counts as the best
_PARAMS = {"130m": 134217728, "300m": 301989888, "520m": 536870912, "1.2b": 1207959552}
_TOKENS_PER_PARAM = 20
#: Not settings; or (`adam_lr`) not what the run used where `lr` was varied: the ratio to `lr` is.
_NOT_TUNED = ("optimizer", "size", "chinchilla", "loss", "adam_lr")
_OUTLIER = ("soap", "1.2b 1x")  # trained in bf16

_ROLES = {
    "lr": Role.LR,
    "batch": Role.BATCH,
    "weight_decay": Role.WEIGHT_DECAY,
    "beta1": Role.BETA1,
    "beta2": Role.BETA2,
    "epsilon": Role.EPSILON,
    "warmup": Role.WARMUP,
}
_LOGIT = ("beta1", "beta2", "momentum", "shampoo_beta")
_LOG = ("lr", "epsilon", "muon_epsilon", "muon_to_adam_lr")
_COUNTS = ("batch", "warmup", "block_size", "precond_freq")
_CHOICES = ("grad_norm", "blocking", "schedule")  # grad_norm 0 is no clipping, not a small norm


@functools.cache
def marin(name: str) -> Sweep:
    """Return one optimizer's table, told at 130m, 300m 1x and 520m 1x.

    Runs that diverged and the one cell trained in other arithmetic are left out.
    """
    rows = _table(f"marin/{name}.csv", "it is a table of Marin's optimizer sweeps")
    return parse_marin(name, rows)


def parse_marin(name: str, rows: Sequence[Mapping[str, str]]) -> Sweep:
    """Return a table as a sweep.

    Args:
        name: optimizer.
        rows: lines of the table as text; a loss may be `>10` or `NaN`.
    """
    settings = [
        column
        for column in rows[0]
        if column not in _NOT_TUNED and len({_value(column, row[column]) for row in rows}) > 1
    ]
    configs, losses, cells = [], [], []
    for row in rows:
        cell, loss = f"{row['size']} {row['chinchilla']}x", _number(row["loss"])
        if not loss <= FAILED_FROM or (name, cell) == _OUTLIER:
            continue
        params = float(_PARAMS[row["size"]])
        config: Config = {column: _value(column, row[column]) for column in settings}
        config["params"] = params
        config["tokens"] = _TOKENS_PER_PARAM * params * float(row["chinchilla"])
        configs.append(config)
        losses.append(loss)
        cells.append(cell)
    runs = Runs(tuple(configs), np.array(losses), tuple(cells))
    told = runs.of(lambda cell: cell in TOLD_CELLS)
    every = {column: sorted({_value(column, row[column]) for row in rows}) for column in settings}
    space = {column: _parameter(column, values) for column, values in every.items()}
    return Sweep({**space, **_scales(told)}, told, runs.of(lambda cell: cell not in TOLD_CELLS))


def _parameter(name: str, values: Sequence[Any]) -> Parameter:
    """The setting as one would declare it to tune it; a grid with a zero is linear."""
    role = _ROLES.get(name, Role.OTHER)
    low, high = values[0], values[-1]
    if name in _CHOICES:
        return Categorical(list(values), role=role)
    if name in _COUNTS:
        return Int(low, high, log=low > 0, role=role)
    return Float(low, high, log=name in _LOG, logit=name in _LOGIT, role=role)


def _value(name: str, text: str) -> Any:
    if name in ("blocking", "schedule"):
        return text
    number = float(text)
    return int(number) if name in _COUNTS else number


def _number(text: str) -> float:
    """A loss; infinite for one that left the scale."""
    try:
        value = float(text)
    except ValueError:
        return math.inf
    return value if math.isfinite(value) else math.inf


# --- common --------------------------------------------------------------------------------------


def _table(name: str, hint: str) -> list[dict[str, str]]:
    with find(name, hint).open() as file:
        return list(csv.DictReader(file))


def _ends(runs: Runs, name: str) -> tuple[float, float]:
    values = [config[name] for config in runs.configs]
    return min(values), max(values)


def _scales(runs: Runs) -> dict[str, Parameter]:
    params, tokens = _ends(runs, "params"), _ends(runs, "tokens")
    return {
        "params": Scale(*params, axis=Axis.PARAMS),
        "tokens": Scale(*tokens, axis=Axis.TOKENS),
    }


def size_of(config: Mapping[str, Any]) -> dict[str, float]:
    """Return the params and tokens of a config."""
    return {axis: config[axis] for axis in AXES}


def learn(sweep: Sweep) -> Result:
    """Return our result after the told runs, without a target."""
    optimizer = Optimizer(sweep.space, cost="flops", seed=0)
    for config, loss in zip(sweep.told.configs, sweep.told.loss.tolist(), strict=True):
        optimizer.tell(config, loss, cost=6.0 * config["params"] * config["tokens"])
    return optimizer.result()


def foresee(result: Result, runs: Runs) -> Foreseen:
    """Return our predictions of runs."""
    found = [result.predict(size_of(config), config) for config in runs.configs]
    ends = np.array([prediction.loss_interval for prediction in found])
    return Foreseen(np.array([prediction.loss for prediction in found]), *ends.T)


def best_of_cells(runs: Runs) -> dict[str, tuple[dict[str, float], float]]:
    """Return size and smallest loss of each cell with at least three runs."""
    found = {}
    for cell in dict.fromkeys(runs.groups):
        here = runs.of(lambda group, cell=cell: group == cell)  # type: ignore[misc]
        if len(here.loss) >= FEWEST:
            found[cell] = size_of(here.configs[0]), float(here.loss.min())
    return found


def features(space: Mapping[str, Parameter], runs: Runs) -> Array:
    """Return the table that rivals learn from: each setting on its scale, choices as their place.

    Args:
        space: parameters and scale axes, a column each.
        runs: runs, a row each.
    """
    columns = []
    for name, parameter in space.items():
        values = [config[name] for config in runs.configs]
        if isinstance(parameter, Categorical):
            columns.append(np.array([parameter.index(value) for value in values], dtype=float))
        else:
            columns.append(parameter.unit.to_natural(np.array(values, dtype=float)))
    return np.stack(columns, axis=1)


def law_of_sizes(runs: Runs, asked: Runs) -> Foreseen:
    """Return what Chinchilla's law of N and D alone foresees, fitted by Huber loss."""
    N, D = (np.array([config[axis] for config in runs.configs]) for axis in AXES)
    law = huber(N, D, runs.loss)
    return Foreseen.points(
        law.predict(*(np.array([config[axis] for config in asked.configs]) for axis in AXES))
    )


def foresee_by(method: str, sweep: Sweep) -> Foreseen:
    """Return a rival's predictions of the runs asked about.

    Args:
        method: one of `METHODS` but ours.
        sweep: what was told, and what is asked.
    """
    if method == HUBER:
        return law_of_sizes(sweep.told, sweep.asked)
    rival = process if method == "GP" else trees
    told, asked = (features(sweep.space, runs) for runs in (sweep.told, sweep.asked))
    return rival(told, sweep.told.loss, asked)


def _measure_ncpl(case: str, method: str, seed: int) -> Mapping[str, float]:
    sweep = ncpl()
    started = time.perf_counter()
    if method == OURS:
        result = learn(sweep)
        result.predict(size_of(sweep.asked.configs[0]), sweep.asked.configs[0])  # fits the model
        fitted = time.perf_counter()
        found = foresee(result, sweep.asked)
        each = 1e3 * (time.perf_counter() - fitted) / len(sweep.asked.loss)
        values = parts(found, sweep.asked) | {"ms": each}
    else:
        values = parts(foresee_by(method, sweep), sweep.asked)
    return values | {"seconds": time.perf_counter() - started}


def parts(found: Foreseen, runs: Runs) -> dict[str, float]:
    """Return the scores of each group of runs, each name followed by the group's.

    Args:
        found: predictions, in the order of `runs`.
        runs: runs that were predicted.
    """
    values = {}
    for group in dict.fromkeys(runs.groups):
        here = np.array([other == group for other in runs.groups])
        part = Foreseen(found.loss[here], found.low[here], found.high[here])
        for name, value in part.against(runs.loss[here]).items():
            values[f"{name}, {group}"] = value
    return values


def _measure_marin(case: str, method: str, seed: int) -> Mapping[str, float]:
    sweep = marin(case)
    started = time.perf_counter()
    if method == HUBER:  # the law of the best runs
        best = {cell: min(sweep.told.of(cell.__eq__).loss) for cell in sweep.told.groups}
        kept = [
            loss == best[cell]
            for cell, loss in zip(sweep.told.groups, sweep.told.loss.tolist(), strict=True)
        ]
        values = law_of_sizes(sweep.told.where(kept), sweep.asked).against(sweep.asked.loss)
        return values | {"seconds": time.perf_counter() - started}
    if method != OURS:
        values = foresee_by(method, sweep).against(sweep.asked.loss)
        return values | {"seconds": time.perf_counter() - started}
    result = learn(sweep)
    values = foresee(result, sweep.asked).against(sweep.asked.loss)
    gaps = [
        result.recommend(size).loss - best for size, best in best_of_cells(sweep.asked).values()
    ]
    return values | winners(gaps) | {"seconds": time.perf_counter() - started}


def winners(gaps: Sequence[float]) -> dict[str, float]:
    """Return how the predicted best of cells compares with the recorded best.

    Args:
        gaps: predicted less recorded, of each cell.
    """
    miss = np.abs(gaps)
    return {
        "cells": float(len(miss)),
        "best within .02": float(np.mean(miss <= 0.02)),
        "best, bias": float(np.mean(gaps)),
    }


def _ncpl_figures() -> tuple[Figure, ...]:
    figures = []
    for part, most in (("in_distribution", 0.0065), ("out_of_distribution", 0.0090)):
        words = part.replace("_", " ")
        figures += [
            Figure(f"{words}: mean absolute error", mean(f"mae, {part}"), Limit(high=most)),
            Figure(f"{words}: covered", mean(f"covered, {part}"), Limit(0.87, 0.93)),
            Figure(f"{words}: median half width", mean(f"half width, {part}")),
        ]
    figures.append(Figure("seconds in all", mean("seconds"), Limit(high=20.0)))
    figures.append(Figure("ms of one prediction", mean("ms"), Limit(high=5.0)))
    return tuple(figures)


def _marin_figures() -> tuple[Figure, ...]:
    limits = {"adamw": 0.010, "muon": 0.010, "nadamw": 0.010, "soap": 0.006}
    errors = [
        Figure(f"{name}: mean absolute error", mean("mae"), Limit(high=most), (name,))
        for name, most in limits.items()
    ]
    return (
        *errors,
        Figure("covered", pooled("covered"), Limit(0.83, 0.97)),
        Figure("median half width", pooled("half width")),
        Figure("best within .02: share of cells", pooled("best within .02", "cells"), Limit(0.8)),
        Figure("predicted best less recorded best", pooled("best, bias", "cells")),
        Figure("seconds, four tables", lambda rows: sum(row["seconds"] for row in rows)),
    )


QUESTIONS = (
    Question("ncpl", ("split",), METHODS, _ncpl_figures(), _measure_ncpl),
    Question("marin", MARIN, METHODS, _marin_figures(), _measure_marin),
)
