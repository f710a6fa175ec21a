"""Answers that once were wrong: cut at a bound, moved by declarations, refuted by a told run.

lr: learning rate. N: parameters. D: tokens. The first and last are made up, with a known best; the
second is all of Step Law's runs, asked at N = 7e9 and D = 1.4e12.
"""

from __future__ import annotations

import csv
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.experiments.target.question import (
    OURS,
    Figure,
    Limit,
    Question,
    Reduce,
    mean,
    worst,
)
from benchmarks.tasks.data import find
from hpo import Axis, Budget, Float, Int, Optimizer, Result, Role, Scale, optimize
from hpo.space import Parameter

SIZES = (8e6, 8e8, 8e10, 8e12)  # tokens
TARGET = {"N": 7e9, "D": 1.4e12}
FORMULA = 2441.0  # Step Law's batch there, in sequences of 2,048 tokens

_SPACE: dict[str, Parameter] = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "tokens": Scale(1e4, 1e6, axis=Axis.TOKENS),
}


def _studied(loss: Callable[[float, float], float], trials: int) -> Result:
    def train(config: Mapping[str, Any], ctx: Any) -> dict[str, float]:
        return {"loss": loss(config["lr"], config["tokens"]), "cost": config["tokens"]}

    return optimize(
        train, _SPACE, budget=Budget(trials=trials), cost="flops", target={"tokens": 8e6}
    )


# --- cut at the bound ----------------------------------------------------------------------------


def drifting_loss(lr: float, tokens: float) -> float:
    """Return a loss whose best lr falls as tokens^-0.3, far below what the proxies may use."""
    miss = (lr / 3e-3) * (tokens / 1e5) ** 0.3 - 1.0
    return 1.5 + 30.0 * float(tokens**-0.3) + 0.1 * float(miss**2)


def _measure_clip(case: str, method: str, seed: int) -> Mapping[str, float]:
    result = _studied(drifting_loss, 40)
    values = {}
    for tokens in SIZES:
        answer, best = result.recommend({"tokens": tokens}), 3e-3 * (tokens / 1e5) ** -0.3
        low, high = answer.intervals["lr"]
        values[f"inside {tokens:g}"] = float(low <= best <= high)
        values[f"factor {tokens:g}"] = high / low
        values[f"off {tokens:g}"] = math.exp(abs(math.log(answer.config["lr"] / best)))
    return values


def _clip_figures() -> tuple[Figure, ...]:
    figures = []
    for tokens in SIZES:
        widest = Limit(high=30.0) if tokens == 8e10 else Limit()
        figures += [
            Figure(f"{tokens:.0e} tokens: true lr inside", mean(f"inside {tokens:g}"), Limit(1.0)),
            Figure(f"{tokens:.0e} tokens: high / low end", mean(f"factor {tokens:g}"), widest),
            Figure(f"{tokens:.0e} tokens: answer off by a factor", mean(f"off {tokens:g}")),
        ]
    return tuple(figures)


# --- four harmless declarations ------------------------------------------------------------------

DECLARATIONS = ("as a sweep", "Int, wider lr", "Float, no cost", "Float to 32768")


def declared(name: str, rows: Sequence[Mapping[str, float]]) -> Result:
    """Return the result of all of Step Law's runs under one declaration.

    Args:
        name: one of `DECLARATIONS`.
        rows: N, D, lr, batch and loss of each run.
    """
    ends = {key: (min(r[key] for r in rows), max(r[key] for r in rows)) for key in rows[0]}
    wide = (1e-4, 1e-1)
    whole = tuple(int(end) for end in ends["batch"])
    batch: Int | Float
    if name == "as a sweep":
        lr, batch = ends["lr"], Int(whole[0], whole[1], log=True, role=Role.BATCH)
    elif name == "Int, wider lr":
        lr, batch = wide, Int(16, 2048, log=True, role=Role.BATCH)
    elif name == "Float, no cost":
        lr, batch = ends["lr"], Float(float(whole[0]), 2048.0, log=True, role=Role.BATCH)
    else:
        lr, batch = wide, Float(16.0, 32768.0, log=True, role=Role.BATCH)
    costs = name != "Float, no cost"
    space = {
        "lr": Float(*lr, log=True, role=Role.LR),
        "batch": batch,
        "N": Scale(*ends["N"], axis=Axis.PARAMS),
        "D": Scale(*ends["D"], axis=Axis.TOKENS),
    }
    optimizer = Optimizer(space, cost="flops" if costs else None)
    for row in rows:
        size = int(row["batch"]) if isinstance(batch, Int) else row["batch"]
        config = {"lr": row["lr"], "batch": size, "N": row["N"], "D": row["D"]}
        cost = 6.0 * row["N"] * row["D"] if costs else None
        optimizer.tell(config, row["loss"], cost=cost)
    return optimizer.result()


def _step_law() -> list[dict[str, float]]:
    path = find("steplaw_dense.csv", "it is Step Law's `data/dense_lr_bs_loss.csv`")
    names = {"N": "N", "D": "D", "lr": "lr", "batch": "batch_size", "loss": "loss"}
    with path.open() as file:
        return [
            {name: float(row[column]) for name, column in names.items()}
            for row in csv.DictReader(file)
        ]


def _measure_law(case: str, method: str, seed: int) -> Mapping[str, float]:
    result = declared(case, _step_law())
    answer, law = result.recommend(TARGET), result.scaling_law
    assert law is not None
    low, high = answer.intervals["batch"]
    values = {"inside": float(low <= FORMULA <= high), "factor": high / low}
    middle = dict(zip(law.coefficients.axes, law.coefficients.reference.tolist(), strict=True))
    for name in ("lr", "batch"):
        moved = sum(
            law.slope(name, axis).mean * (math.log(TARGET[axis]) - middle[axis]) for axis in TARGET
        )
        values[name] = float(answer.config[name])
        values[f"{name}, law"] = math.exp(law.optimum(name).mean + moved)
        off = math.log(values[name] / values[f"{name}, law"])
        values[f"{name}, off"] = math.exp(abs(off))
    return values


def apart(name: str) -> Reduce:
    """Return the reduction to the largest over the smallest `name`."""
    return lambda rows: max(row[name] for row in rows) / min(row[name] for row in rows)


def _law_figures() -> tuple[Figure, ...]:
    figures = []
    for name in ("batch", "lr"):
        figures += [
            Figure(f"{name}: largest over smallest answer", apart(name), Limit(high=1.1)),
            Figure(f"{name}: answer off the law, factor", worst(f"{name}, off"), Limit(high=1.1)),
        ]
    for case in DECLARATIONS:
        figures += [
            Figure(f"{case}: batch", mean("batch"), cases=(case,)),
            Figure(f"{case}: the law's own batch", mean("batch, law"), cases=(case,)),
            Figure(f"{case}: 2441 inside", mean("inside"), Limit(1.0), (case,)),
            Figure(f"{case}: high / low end", mean("factor"), cases=(case,)),
        ]
    return tuple(figures)


# --- refuted by a told run -----------------------------------------------------------------------


def steep_loss(lr: float, tokens: float) -> float:
    """Return a loss with a steep side, a flat side and no floor."""
    return 1e4 * (lr - 3e-3) ** 2 * float(tokens**-0.1)


def _measure_refuted(case: str, method: str, seed: int) -> Mapping[str, float]:
    result = _studied(steep_loss, 20)
    tokens = 8e6
    told = [run for run in result.log.observations if run.loss is not None]
    copied = min(told, key=lambda run: float(run.loss or 0.0)).config
    answer = result.recommend()
    loss, by_copy = steep_loss(answer.config["lr"], tokens), steep_loss(copied["lr"], tokens)
    low, high = answer.loss_interval
    return {
        "loss": loss,
        "copied": by_copy,
        "over": loss / by_copy,
        "inside": float(low <= loss <= high),
    }


# --- speed ---------------------------------------------------------------------------------------


def _measure_latency(case: str, method: str, seed: int) -> Mapping[str, float]:
    """Milliseconds of an ask with a target at 30 told runs, the median of five."""
    optimizer = Optimizer(_SPACE, cost="flops", target={"tokens": 8e6}, seed=seed)
    for _ in range(30):
        trial = optimizer.ask()
        lr, tokens = trial.config["lr"], trial.config["tokens"]
        optimizer.tell(trial, drifting_loss(lr, tokens), cost=tokens)
    spent = []
    for _ in range(5):
        started = time.perf_counter()
        trial = optimizer.ask()
        spent.append(1e3 * (time.perf_counter() - started))
        lr, tokens = trial.config["lr"], trial.config["tokens"]
        optimizer.tell(trial, drifting_loss(lr, tokens), cost=tokens)
    return {"ms": sorted(spent)[2]}


QUESTIONS = (
    Question("cases-clip", ("40 runs",), (OURS,), _clip_figures(), _measure_clip),
    Question("cases-law", DECLARATIONS, (OURS,), _law_figures(), _measure_law),
    Question(
        "cases-refuted",
        ("20 runs",),
        (OURS,),
        (
            Figure("true loss over that of the best told settings", mean("over"), Limit(high=1.0)),
            Figure("true loss of the answer", mean("loss")),
            Figure("true loss inside the interval", mean("inside")),
        ),
        _measure_refuted,
    ),
    Question(
        "latency",
        ("30 runs",),
        (OURS,),
        (Figure("ms of an ask with a target", mean("ms"), Limit(high=80.0)),),
        _measure_latency,
    ),
)
