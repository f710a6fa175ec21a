"""Recorded studies: what the engine asked for, to the last bit, before a change that must keep it.

    OMP_NUM_THREADS=1 python -m tests.recordings.record              # write every recording
    OMP_NUM_THREADS=1 python -m tests.recordings.record scaled pbt   # those whose name contains one
    OMP_NUM_THREADS=1 python -m tests.recordings.record --check      # replay and compare only

Each study is a function without arguments in `STUDIES`. Its objective is pure arithmetic on the
config, every cost is declared, and nothing reads the clock or a global random state. The result is
a list of rows, one JSON object each, in the order in which things happened:

===========  ======================================================================================
ask          number, ask index, parent, rung assignment ([level, bracket, cohort] or null), config.
             A run that is resumed has one row for each stage.
told         number, loss, cost, status, cause, number of reports; the config if it was never asked
recommended  the configuration of `recommend`, at the end of a study
trial        of an Optuna study: number, params, user attributes, values, intermediate values
===========  ======================================================================================

Recordings hold no reasons, intervals or predictions. They belong to the versions of the libraries
and the processor named in environment.json: another BLAS kernel rounds otherwise, and a search
follows the last bit.

After a rename, only the block of imports below should need a change.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from threadpoolctl import threadpool_info

from hpo import (
    ASHA,
    PASHA,
    PBT,
    AdamWTimescale,
    Axis,
    Budget,
    Categorical,
    CompleteP,
    Context,
    Fidelity,
    Float,
    FreezeThaw,
    Hyperband,
    Int,
    IterativeDeepening,
    Limits,
    MuP,
    Optimizer,
    Report,
    Role,
    Scale,
    StagedOptimizer,
    StepLaw,
    TimeTransfer,
    TokenHorizon,
    Trial,
    optimize,
)
from hpo import Observation as Told
from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler
from hpo.schedulers import ASHAVariant as ASHAKind
from hpo.schedulers import Decision

FOLDER = Path(__file__).parent
Row = dict[str, Any]
Rows = list[Row]
Config = dict[str, Any]
Outcome = dict[str, Any]


# --- objectives: pure arithmetic -----------------------------------------------------------------


def ripple(config: Mapping[str, Any]) -> float:
    """A number in [-1, 1] that looks random and follows from the config."""
    total = 0.0
    for position, name in enumerate(sorted(config)):
        value = config[name]
        if isinstance(value, str):
            value = float(sum(map(ord, value)))
        total += (position + 1.0) * math.log1p(abs(float(value or 0.0)))
    return math.sin(37.0 * total)


def smooth(config: Mapping[str, Any], number: int) -> Outcome:
    """Three floats; a corner diverges, and one trial never gives a finite loss."""
    x, lr, y = config["x"], math.log10(config["lr"]), config["y"]
    loss = (x - 0.3) ** 2 + 0.2 * (lr + 2.0) ** 2 + 0.1 * (y - 0.5 * x) ** 2
    if x > 0.85 and y > 1.0:
        return {"failed": "diverged", "cost": 0.5}
    return {"loss": math.nan if number == 6 else loss + 0.01 * ripple(config), "cost": 1.0}


def branched(config: Mapping[str, Any], number: int) -> Outcome:
    """To be maximized; fails now and then, for every cause in turn."""
    score = 0.8 - 0.1 * (math.log(config["lr"] / 3e-3) / 2.0) ** 2
    score -= 0.01 * (config["layers"] - 7) ** 2
    score += {"a": 0.05, "b": 0.0, "c": -0.1}[config["kind"]]
    if "beta" in config:
        score -= 0.02 * (math.log(config["beta"] / (1.0 - config["beta"])) - 4.0) ** 2
    score -= 0.002 * (config["shift"] - 3.0) ** 2
    if ripple(config) > 0.8:
        causes = ["oom", "diverged", "timeout", "error", "lost"]
        return {"failed": causes[number % 5], "cost": 0.25}
    return {"loss": score, "cost": 1.0 + 0.1 * config["layers"]}


def narrow(config: Mapping[str, Any], number: int) -> Outcome:
    """The best decay lies in a thousandth of its range."""
    loss = 0.3 * (math.log10(config["decay"]) + 4.5) ** 2
    loss += 0.1 * (math.log(config["units"]) - 3.0) ** 2 + 0.05 * (config["y"] - 0.7) ** 2
    return {"loss": loss + 0.01 * ripple(config), "cost": 1.0}


def lookup(config: Mapping[str, Any], number: int) -> Outcome:
    """Nothing but choices with interactions; to be maximized."""
    a, b = "pqrst".index(config["first"]), "uvwx".index(config["second"])
    score = 0.5 * math.cos(2.1 * a + 0.3) * math.sin(1.7 * b + 0.4) + 0.2 * (config["flag"] is True)
    score -= 0.1 * abs(config["size"] - 32) / 32.0 + 0.1 * ((a + b) % 3)
    return {"loss": score + 0.02 * ripple(config), "cost": 1.0}


def stepped(config: Mapping[str, Any], number: int) -> Outcome:
    """Plateaus that two columns decide together, which trees foresee better than a process."""
    x, y, z = config["x"], config["y"], config["z"]
    plateau = 1.0 * ((x > 0.5) != (y > 0.5)) + 0.5 * (math.floor(3.0 * z) == 1)
    return {"loss": plateau + 0.01 * ripple(config)}


def priced(config: Mapping[str, Any], number: int) -> Outcome:
    """Wider is better and costs more; the widest at large x run out of memory."""
    x, width = config["x"], config["width"]
    cost = width / 16.0 * (1.0 + x)
    if width > 384 and x > 0.5:
        return {"failed": "oom", "cost": 0.1 * cost}
    loss = (x - 0.4) ** 2 + 4.0 / width**0.5 + 0.05 * (config["y"] - 1.0) ** 2
    return {"loss": loss + 0.01 * ripple(config), "cost": cost}


def scaled(config: Mapping[str, Any], number: int) -> Outcome:
    """A power law in both sizes, whose best lr falls with both; cost is 6 N D."""
    params, tokens = config["params"], config["tokens"]
    best = -5.0 - 0.2 * math.log(params / 1e6) - 0.3 * math.log(tokens / 1e8)
    miss = math.log(config["lr"]) - best
    cost = 6.0 * params * tokens
    if miss > 3.5 or ripple(config) > 0.9:
        return {"failed": "diverged", "cost": 0.3 * cost}
    loss = 1.7 + 400.0 / params**0.4 + 500.0 / tokens**0.4 + 0.05 * miss**2
    if "batch" in config:
        loss += 0.02 * (math.log(config["batch"]) - 0.5 * math.log(tokens / 1e6) - 1.5) ** 2
    if "decay" in config:
        loss += 0.01 * (math.log10(config["decay"]) + 1.5) ** 2
    return {"loss": loss + 0.002 * ripple(config), "cost": cost}


def curve(config: Mapping[str, Any], level: int) -> float:
    """Loss after `level` epochs; its end and its speed depend on the config."""
    lr = math.log10(config["lr"])
    end = 0.2 * (lr + 2.0) ** 2 + 0.5 * (config["x"] - 0.6) ** 2
    return end + (1.0 + config["x"]) * level ** -(0.4 + 0.1 * (lr + 4.0)) + 0.005 * ripple(config)


def epoch_cost(config: Mapping[str, Any]) -> float:
    """Cost of one epoch."""
    return 1.0 + 0.5 * config["x"]


# --- drivers -------------------------------------------------------------------------------------


def assignment(trial: Trial) -> list[int] | None:
    """Level, bracket and cohort of a trial under a scheduler, whatever the attribute is called."""
    place: Any = getattr(trial, "assignment", None) or getattr(trial, "place", None)
    return None if place is None else [place.level, place.bracket, place.cohort]


def rows_of(log: Any) -> Rows:
    """What happened in a log, in order."""
    rows: Rows = []
    asked: set[int] = set()
    for event in log.events():
        if isinstance(event, Trial):
            asked.add(event.number)
            rows.append(
                {
                    "ask": event.number,
                    "index": event.ask_index,
                    "parent": event.parent,
                    "assignment": assignment(event),
                    "config": event.config,
                }
            )
        elif isinstance(event, Told):
            row = {
                "told": event.number,
                "loss": event.loss,
                "cost": event.cost,
                "status": event.status.value,
                "cause": None if event.cause is None else event.cause.value,
                "reports": len(event.reports),
            }
            rows.append(row if event.number in asked else row | {"config": event.config})
    return rows


def recommended(found: Any) -> Row:
    """The answer of a study, as a row."""
    return {"recommended": found.config, "target": dict(found.target)}


def ask_and_tell(
    optimizer: Optimizer,
    objective: Callable[[Mapping[str, Any], int], Outcome],
    asks: int,
    *,
    workers: int = 1,
    among: Callable[[int], Sequence[Config] | None] = lambda ask: None,
) -> Rows:
    """A study of `workers` that finish out of order."""
    running: list[Trial] = []
    for ask in range(asks):
        running.append(optimizer.ask(among=among(ask)))
        while len(running) >= workers:
            trial = running.pop((5 * ask + 3) % len(running))
            optimizer.tell(trial, **objective(trial.config, trial.number))
    for trial in running[::-1]:
        optimizer.tell(trial.number, **objective(trial.config, trial.number))
    return [*rows_of(optimizer.log), recommended(optimizer.recommend())]


def in_stages(
    engine: StagedOptimizer,
    *,
    starts: int,
    stages: int,
    workers: int = 1,
    sign: float = 1.0,
    among: Callable[[int], Sequence[Config] | None] = lambda ask: None,
) -> Rows:
    """A study whose runs pause: `workers` finish out of order, each reports every epoch."""
    trained: dict[int, int] = {}
    paid: dict[int, float] = {}
    running: list[Trial] = []
    asked = 0
    while True:
        while len(running) < workers and asked < stages:
            trial = engine.ask(may_start=len(engine.log.trials) < starts, among=among(asked))
            if trial is None:
                break
            running.append(trial)
            asked += 1
        if not running:
            return rows_of(engine.log)
        _stage(engine, running.pop((5 * asked + 3) % len(running)), trained, paid, sign)


def _stage(
    engine: StagedOptimizer,
    trial: Trial,
    trained: dict[int, int],
    paid: dict[int, float],
    sign: float,
) -> None:
    number, parent = trial.number, trial.parent
    if number not in trained:
        trained[number] = 0 if parent is None else trained[parent]
        paid[number] = 0.0 if parent is None else paid[parent]
    place = assignment(trial)
    assert place is not None
    for level in range(trained[number] + 1, place[0] + 1):
        loss = sign * curve(trial.config, level)
        trained[number], paid[number] = level, paid[number] + epoch_cost(trial.config)
        if ripple(trial.config) > 0.9 and level >= 2:
            engine.tell(trial, failed="diverged", cost=paid[number])
            return
        if engine.report(trial, Report(level, loss, paid[number])) is Decision.STOP:
            engine.tell(trial, loss, paid[number], stopped=True)
            return
    engine.tell(trial, sign * curve(trial.config, place[0]), paid[number])


STAGED = {"x": Float(0.0, 1.0), "lr": Float(1e-4, 1.0, log=True), "epochs": Fidelity(1, 27)}


def staged(scheduler: Any, *, seed: int = 0, **optimizer: Any) -> StagedOptimizer:
    """An engine on `STAGED` whose costs are told."""
    return StagedOptimizer(
        Optimizer(STAGED, cost="epochs", seed=seed, **optimizer), scheduler, seed=seed
    )


def train_in_epochs(config: Config, ctx: Context) -> Outcome:
    """A resumable run for `optimize`; its cost is declared."""
    state = ctx.load() or {"epoch": 0, "cost": 0.0}
    for epoch in range(state["epoch"] + 1, config["epochs"] + 1):
        state = {"epoch": epoch, "cost": state["cost"] + epoch_cost(config)}
        ctx.save(state)
        ctx.report(step=epoch, loss=curve(config, epoch), cost=state["cost"])
    return {"loss": curve(config, config["epochs"]), "cost": state["cost"]}


def train_tokens_in_epochs(config: Config, ctx: Context) -> Outcome:
    """A run with both a scale axis and a fidelity; each epoch costs its tokens."""
    state = ctx.load() or {"epoch": 0}
    tokens = config["tokens"]
    miss = math.log(config["lr"] / 1e-2) + 0.25 * math.log(tokens / 1e5)

    def loss(epoch: int) -> float:
        return 1.0 + 20.0 * tokens**-0.3 + 0.05 * miss**2 + (0.5 + 0.1 * abs(miss)) * epoch**-0.8

    for epoch in range(state["epoch"] + 1, config["epochs"] + 1):
        ctx.save({"epoch": epoch})
        ctx.report(step=epoch, loss=loss(epoch), cost=6.0 * tokens * epoch)
    return {"loss": loss(config["epochs"]), "cost": 6.0 * tokens * config["epochs"]}


def train_whole(config: Config, ctx: Context) -> Outcome:
    """`scaled` as a training function: some configs raise, some return NaN."""
    outcome = scaled(config, 0)
    if "failed" in outcome:
        if ripple(config) > 0.0:
            raise RuntimeError("the loss is not finite")
        return {"loss": math.nan, "cost": outcome["cost"]}
    return outcome


# --- studies of the engine -----------------------------------------------------------------------

FLOATS = {"x": Float(0, 1), "lr": Float(1e-4, 1.0, log=True), "y": Float(-2, 2)}
MIXED = {
    "lr": Float(center=1e-2, spread=1.0, log=True),
    "layers": Int(1, 12),
    "kind": Categorical(["a", "b", "c"]),
    "beta": Float(0.9, 0.999, logit=True, when=("kind", ["a", "b"])),
    "shift": Float(center=0.0, spread=2.0),
}
WIDE = {"decay": Float(1e-6, 0.1), "units": Int(1, 300), "y": Float(-2, 2)}
CHOICES = {
    "first": Categorical(list("pqrst")),
    "second": Categorical(list("uvwx")),
    "flag": Categorical([True, False]),
    "size": Categorical([8, 16, 32, 64, 128], ordered=True),
}
PRICED = {
    "x": Float(0, 1),
    "width": Int(8, 512, multiple_of=8, log=True),
    "y": Float(-2, 2),
}
SIZES = {
    "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    "tokens": Scale(1e6, 1e9, axis=Axis.TOKENS),
}
SCALED = {"lr": Float(1e-4, 1e-1, log=True, role=Role.LR)} | SIZES
SCALED_FULL = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "batch": Int(1, 512, log=True, role=Role.BATCH),
    "decay": Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY),
} | SIZES


def plain_floats() -> Rows:
    return ask_and_tell(Optimizer(FLOATS, seed=1), smooth, 50)


def plain_mixed() -> Rows:
    return ask_and_tell(Optimizer(MIXED, direction="maximize", seed=2), branched, 45)


def plain_wide() -> Rows:
    return ask_and_tell(Optimizer(WIDE, seed=3), narrow, 40)


def plain_among() -> Rows:
    """Every third ask is free, the others choose among what may run now, which changes."""
    grid = [
        {"x": i / 6.0, "lr": 10.0 ** (-j), "y": float(k)}
        for i in range(7)
        for j in range(5)
        for k in (-2, 0, 1, 2)
    ]

    def among(ask: int) -> list[Config] | None:
        return None if ask % 3 == 2 else grid[ask % 4 :: 4]

    return ask_and_tell(Optimizer(FLOATS, seed=4), smooth, 36, among=among)


def process_with_pending() -> Rows:
    """Five workers, a repeated tell, and configs that were never asked for."""
    optimizer = Optimizer(MIXED, direction="maximize", surrogate="gp", seed=5)
    told = [
        {"lr": 1e-3, "layers": 4, "kind": "a", "beta": 0.95, "shift": 1.0},
        {"lr": 2e-2, "layers": 9, "kind": "c", "shift": -1.5},
    ]
    for number, config in enumerate(told):
        optimizer.tell(config, **branched(config, number))
        optimizer.tell(config, **branched(config, number))
    return ask_and_tell(optimizer, branched, 40, workers=5)


def quantile() -> Rows:
    optimizer = Optimizer(MIXED, direction="maximize", surrogate="quantile", seed=6)
    return ask_and_tell(optimizer, branched, 40)


def auto_on_choices() -> Rows:
    """Without smooth columns the trees answer about half of the asks from the start."""
    return ask_and_tell(Optimizer(CHOICES, direction="maximize", seed=7), lookup, 45, workers=2)


def auto_on_steps() -> Rows:
    """Smooth columns, where the trees must first be clearly better."""
    space = {name: Float(0, 1) for name in "xyz"}
    return ask_and_tell(Optimizer(space, seed=8), stepped, 60)


def cost_aware() -> Rows:
    budget = Budget(cost=2000.0, per_trial=60.0)
    return ask_and_tell(Optimizer(PRICED, cost="seconds", budget=budget, seed=9), priced, 45)


def cost_aware_with_pending() -> Rows:
    optimizer = Optimizer(PRICED, cost="flops", surrogate="auto", seed=10)
    return ask_and_tell(optimizer, priced, 36, workers=4)


def scaled_without_target() -> Rows:
    priors = [MuP(), TokenHorizon()]
    optimizer = Optimizer(SCALED, cost="flops", priors=priors, seed=11)
    rows = ask_and_tell(optimizer, scaled, 28)
    return [*rows, recommended(optimizer.recommend({"params": 1e8, "tokens": 1e10}))]


def scaled_with_target() -> Rows:
    """Transfer rules as priors, three workers, and one run at the target that nobody asked for."""
    target = {"params": 1e8, "tokens": 1e10}
    priors = [CompleteP(), TimeTransfer(), AdamWTimescale(), StepLaw(sequence_length=1024.0)]
    optimizer = Optimizer(SCALED_FULL, cost="flops", target=target, priors=priors, seed=12)
    config = {"lr": 2e-3, "batch": 64, "decay": 0.1, **target}
    optimizer.tell(config, **scaled(config, 0))
    return ask_and_tell(optimizer, scaled, 26, workers=3)


# --- studies of schedulers -----------------------------------------------------------------------


def staged_freeze_thaw() -> Rows:
    return in_stages(staged(FreezeThaw(), seed=13), starts=30, stages=48, workers=3)


def staged_freeze_thaw_restarting() -> Rows:
    """Runs that start over when they go on, by trees as told."""
    engine = staged(FreezeThaw(continues=False, floor=3), seed=14, surrogate="quantile")
    return in_stages(engine, starts=20, stages=30, workers=2)


def staged_asha() -> Rows:
    engine = staged(ASHA(brackets=2, confidence=0.8), seed=15)
    grid = [
        {"x": i / 9.0, "lr": 10.0 ** (-j / 2.0), "epochs": 27} for i in range(10) for j in range(9)
    ]
    return in_stages(
        engine,
        starts=30,
        stages=50,
        workers=3,
        among=lambda ask: grid if ask % 4 == 1 else None,
    )


def staged_asha_stopping() -> Rows:
    return in_stages(staged(ASHA(kind=ASHAKind.STOPPING), seed=16), starts=26, stages=26, workers=4)


def staged_hyperband() -> Rows:
    engine = staged(Hyperband(), seed=17, direction="maximize")
    return in_stages(engine, starts=28, stages=44, workers=2, sign=-1.0)


def staged_pasha() -> Rows:
    return in_stages(staged(PASHA(), seed=18), starts=30, stages=48, workers=3)


def staged_pbt() -> Rows:
    return in_stages(
        staged(PBT(population=6, interval=3), seed=19), starts=40, stages=50, workers=3
    )


# --- studies by `optimize` -----------------------------------------------------------------------


def optimize_freeze_thaw() -> Rows:
    result = optimize(
        train_in_epochs,
        STAGED,
        budget=Budget(trials=24, cost=200.0),
        cost="epochs",
        scheduler=FreezeThaw(),
        seed=20,
    )
    return [*rows_of(result.log), recommended(result.recommend())]


def optimize_freeze_thaw_on_curves() -> Rows:
    """With a scale axis each run's own curve is extrapolated."""
    result = optimize(
        train_tokens_in_epochs,
        {
            "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
            "tokens": Scale(1e4, 1e6, axis=Axis.TOKENS),
            "epochs": Fidelity(1, 9),
        },
        budget=Budget(trials=10),
        cost="flops",
        target={"tokens": 1e7},
        scheduler=FreezeThaw(),
        seed=21,
    )
    return [*rows_of(result.log), recommended(result.recommend())]


def optimize_deepening() -> Rows:
    """Iterative deepening, whose fidelity grows afterwards."""
    space = STAGED | {"epochs": Fidelity(1, 9)}
    result = optimize(
        train_in_epochs,
        space,
        budget=Budget(trials=40),
        cost="epochs",
        scheduler=IterativeDeepening(),
        seed=22,
    ).extend(max_fidelity=27)
    return rows_of(result.log)


def optimize_scaled() -> Rows:
    """A target, a budget in FLOPs, failures by exceptions, and two confirmations."""
    result = optimize(
        train_whole,
        SCALED,
        budget=Budget(trials=20, cost=1e18, per_trial=Limits(cost=3e16)),
        cost="flops",
        target={"params": 5e7, "tokens": 5e9},
        priors=[MuP(), TokenHorizon()],
        confirm=2,
        seed=23,
    )
    return [*rows_of(result.log), recommended(result.recommend())]


# --- studies through Optuna ----------------------------------------------------------------------


def trials_of(study: optuna.Study) -> Rows:
    """What an Optuna study holds, in order."""
    return [
        {
            "trial": trial.number,
            "params": trial.params,
            "user_attrs": trial.user_attrs,
            "state": trial.state.name,
            "values": trial.values,
            "intermediate": sorted(map(list, trial.intermediate_values.items())),
            "assignment": trial.system_attrs.get("scaletune:place:0"),
        }
        for trial in study.trials
    ]


def optuna_define_by_run() -> Rows:
    """Conditions that are learned, a width that changes, failures, an enqueued trial."""

    def objective(trial: optuna.Trial) -> float:
        kind = trial.suggest_categorical("kind", ["linear", "tree", "net"])
        score = 0.1 * trial.suggest_int("folds", 2, 10)
        if kind == "net":
            lr = trial.suggest_float("lr", 1e-5, 1e-1, log=True)
            score += 1.0 - 0.1 * math.log(lr / 1e-3) ** 2
            for layer in range(trial.suggest_int("layers", 1, 3)):
                score -= 0.1 * abs(
                    math.log2(trial.suggest_int(f"units{layer}", 4, 128, log=True)) - 5
                )
        elif kind == "tree":
            score += 0.2 - 0.05 * abs(trial.suggest_int("depth", 1, 30, step=1) - 6)
        else:
            score += trial.suggest_float("alpha", 0.0, 1.0) * 0.3
        if trial.number % 9 == 7:
            trial.set_user_attr("failed", "oom")
            raise MemoryError("pretended")
        return score

    study = optuna.create_study(sampler=ScaleTuneSampler(seed=24), direction="maximize")
    study.enqueue_trial({"kind": "net", "lr": 1e-2})
    study.optimize(objective, n_trials=36, catch=(MemoryError,))
    return trials_of(study)


def optuna_pruned() -> Rows:
    """Declared costs, reports, and asynchronous halving that stops."""

    def objective(trial: optuna.Trial) -> float:
        config = {
            "x": trial.suggest_float("x", 0.0, 1.0),
            "lr": trial.suggest_float("lr", 1e-4, 1.0, log=True),
        }
        for epoch in range(1, 28):
            trial.set_user_attr("epochs", epoch * epoch_cost(config))
            trial.report(curve(config, epoch), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return curve(config, 27)

    fidelity = Fidelity(1, 27)
    study = optuna.create_study(
        sampler=ScaleTuneSampler({"step": fidelity}, cost="epochs", seed=25),
        pruner=ScaleTunePruner(ASHA(kind=ASHAKind.STOPPING), fidelity),
    )
    study.optimize(objective, n_trials=36)
    return trials_of(study)


def optuna_scaled() -> Rows:
    """A declared space with scale axes; asks overlap, and tells come out of order."""
    sampler = ScaleTuneSampler(
        SCALED,
        cost="flops",
        target={"params": 1e8, "tokens": 1e10},
        priors=[MuP(), TokenHorizon()],
        seed=26,
    )
    study = optuna.create_study(sampler=sampler)
    running: list[optuna.Trial] = []

    def finish(trial: optuna.Trial) -> None:
        outcome = scaled(trial.params | {"tokens": trial.user_attrs["tokens"]}, trial.number)
        trial.set_user_attr("flops", outcome["cost"])
        if "failed" in outcome:
            trial.set_user_attr("failed", outcome["failed"])
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, outcome["loss"])

    for ask in range(22):
        trial = study.ask()
        trial.set_user_attr("tokens", 10.0 ** (6 + ask % 4))
        trial.suggest_float("lr", 1e-4, 1e-1, log=True)
        trial.suggest_float("params", 1e5, 1e7, log=True)
        running.append(trial)
        if len(running) == 3:
            finish(running.pop((5 * ask + 3) % 3))
    for trial in running[::-1]:
        finish(trial)
    return trials_of(study)


def optuna_two_objectives() -> Rows:
    def objective(trial: optuna.Trial) -> tuple[float, float]:
        x, y = trial.suggest_float("x", 0.0, 1.0), trial.suggest_float("y", -1.0, 2.0)
        kind = trial.suggest_categorical("kind", ["a", "b"])
        trial.set_constraint("sum", x + y - 2.0)
        shift = 0.2 if kind == "a" else 0.0
        return (x - shift) ** 2 + y**2, 1.0 - (x - 0.8) ** 2 - 0.3 * (y - 1.0) ** 2

    study = optuna.create_study(
        sampler=ScaleTuneSampler(seed=27), directions=["minimize", "maximize"]
    )
    study.optimize(objective, n_trials=24)
    return trials_of(study)


STUDIES: dict[str, Callable[[], Rows]] = {
    study.__name__: study
    for study in (
        plain_floats,
        plain_mixed,
        plain_wide,
        plain_among,
        process_with_pending,
        quantile,
        auto_on_choices,
        auto_on_steps,
        cost_aware,
        cost_aware_with_pending,
        scaled_without_target,
        scaled_with_target,
        staged_freeze_thaw,
        staged_freeze_thaw_restarting,
        staged_asha,
        staged_asha_stopping,
        staged_hyperband,
        staged_pasha,
        staged_pbt,
        optimize_freeze_thaw,
        optimize_freeze_thaw_on_curves,
        optimize_deepening,
        optimize_scaled,
        optuna_define_by_run,
        optuna_pruned,
        optuna_scaled,
        optuna_two_objectives,
    )
}


# --- files ---------------------------------------------------------------------------------------


def lines(rows: Rows) -> list[str]:
    """Each row as one line of JSON, floats as their repr: equal lines mean equal bits."""
    return [json.dumps(row, sort_keys=True) for row in rows]


def replay(name: str) -> list[str]:
    """Run a study with the code of today."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return lines(STUDIES[name]())


def recorded(name: str) -> list[str]:
    """What was written down of a study."""
    return lines(json.loads((FOLDER / f"{name}.json").read_text()))


def environment() -> dict[str, Any]:
    """What the last bit depends on beside the code."""
    simd: Any = np.show_config(mode="dicts")
    libraries = ("numpy", "scipy", "scikit-learn", "optuna", "torch", "gpytorch")
    blas = {
        (i["internal_api"], i.get("architecture"))
        for i in threadpool_info()
        if "blas" in i["user_api"]
    }
    return {
        "python": platform.python_version(),
        "libraries": {name: version(name) for name in libraries},
        "blas": sorted([api, str(kernel)] for api, kernel in blas),
        "simd": simd["SIMD Extensions"].get("found", []),
    }


def recorded_environment() -> dict[str, Any]:
    """Of the machine on which the recordings were made."""
    made: dict[str, Any] = json.loads((FOLDER / "environment.json").read_text())
    return made


def difference(name: str, now: Sequence[str]) -> str | None:
    """The first row in which `now` is not what was recorded; None where nothing differs."""
    then = recorded(name)
    for index, (old, new) in enumerate(zip(then, now, strict=False)):
        if old != new:
            return f"{name}, row {index}\n  recorded {old}\n  now      {new}"
    if len(then) != len(now):
        return f"{name}: {len(then)} rows were recorded, got {len(now)}"
    return None


def main(arguments: Sequence[str]) -> int:
    """Write or check recordings; the exit status is the number of studies that differ."""
    parser = argparse.ArgumentParser(description="Write the recorded studies, or check them.")
    parser.add_argument("names", nargs="*", help="parts of names; all studies without any")
    parser.add_argument("--check", action="store_true", help="replay and compare, write nothing")
    options = parser.parse_args(arguments)
    check, differing, total = options.check, 0, 0.0
    for name in STUDIES:
        if options.names and not any(part in name for part in options.names):
            continue
        began = time.process_time()
        now = replay(name)
        seconds = time.process_time() - began
        total += seconds
        verdict = ""
        if check:
            found = difference(name, now)
            differing += found is not None
            verdict = "same" if found is None else f"DIFFERS: {found}"
        else:
            (FOLDER / f"{name}.json").write_text("[\n" + ",\n".join(now) + "\n]\n")
        asks = sum('"ask": ' in line or '"trial": ' in line for line in now)
        print(f"{name:32} {asks:4} asks {seconds:7.2f} s {verdict}", flush=True)
    print(f"{total:.1f} s of processor time")
    if not check:
        text = json.dumps(environment(), indent=1)
        (FOLDER / "environment.json").write_text(text + "\n")
    return differing


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
