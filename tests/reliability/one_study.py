"""Child process of test_same_asks: runs small studies under one condition and prints what they did.

Run as `python -m tests.reliability.one_study '{"imports": [...], "gc": ..., ...}' SEED`.
"""

from __future__ import annotations

import gc
import hashlib
import importlib
import json
import random
import sys
import threading
import time
from typing import Any


def study_of_sizes(seed: int) -> list[Any]:
    """`optimize` over sizes without a declared cost; trials take as long as chance has it."""
    from hpo import Axis, Budget, Float, Role, Scale, optimize

    def train(config: dict[str, Any], ctx: Any) -> float:
        time.sleep(0.005 * random.random())
        sizes = 400.0 / config["params"] ** 0.4 + 500.0 / config["tokens"] ** 0.4
        return float(1.7 + sizes + 20.0 * (config["lr"] - 0.01) ** 2)

    space = {
        "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
        "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
        "tokens": Scale(1e6, 1e9, axis=Axis.TOKENS),
    }
    return _did(optimize(train, space, budget=Budget(trials=7), seed=seed))


def study_of_stages(seed: int) -> list[Any]:
    """`optimize` under FreezeThaw without a declared cost."""
    from hpo import Budget, Fidelity, Float, FreezeThaw, optimize

    def train(config: dict[str, Any], ctx: Any) -> float:
        time.sleep(0.002 * random.random())
        for epoch in range(1, ctx.fidelity + 1):
            ctx.report(step=epoch, loss=(config["x"] - 0.3) ** 2 + 1.0 / epoch)
        return float((config["x"] - 0.3) ** 2 + 1.0 / ctx.fidelity)

    space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
    result = optimize(train, space, budget=Budget(trials=8), scheduler=FreezeThaw(), seed=seed)
    return _did(result)


def study_of_choices(seed: int) -> list[Any]:
    """Ask and tell over settings of every kind, with conditions and failures."""
    from hpo import Categorical, Float, Int, Optimizer

    space = {
        "kind": Categorical(["tree", "net", "linear"]),
        "lr": Float(1e-5, 1e-1, log=True, when=("kind", ["net"])),
        "depth": Int(1, 30, when=("kind", ["tree"])),
        "x": Float(1e-4, 1.0),
    }
    optimizer = Optimizer(space, seed=seed)
    for _ in range(12):
        trial = optimizer.ask()
        loss = trial.config["x"] + trial.config.get("depth", 10) / 30 + trial.config.get("lr", 0.1)
        failed = "oom" if trial.config["x"] > 0.9 else None
        optimizer.tell(trial, None if failed else loss, failed=failed, seconds=random.random())
    return [trial.config for trial in optimizer.log.trials]


def study_of_optuna(seed: int) -> list[Any]:
    """The sampler on a define-by-run space."""
    import optuna

    from hpo.adapters.optuna import ScaleTuneSampler

    def objective(trial: optuna.Trial) -> float:
        time.sleep(0.002 * random.random())
        x = trial.suggest_float("x", -5, 5)
        return x**2 + (trial.suggest_int("n", 1, 9) if x > 0 else 0)

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=ScaleTuneSampler(seed=seed))
    study.optimize(objective, n_trials=10)
    return [trial.params for trial in study.trials]


STUDIES = (study_of_sizes, study_of_stages, study_of_choices, study_of_optuna)


def _did(result: Any) -> list[Any]:
    return [
        [t.number, t.config, None if t.assignment is None else t.assignment.to_json()]
        for t in result.log.trials
    ]


def main(condition: dict[str, Any], seed: int) -> None:
    """Print one digest a study."""
    for name in condition.get("imports", []):
        importlib.import_module(name)
    match condition.get("gc"):
        case "off":
            gc.disable()
        case "often":
            gc.set_threshold(50, 2, 2)
    found: dict[str, str] = {}

    def run() -> None:
        for study in STUDIES:
            text = json.dumps(study(seed), sort_keys=True)
            found[study.__name__] = hashlib.sha256(text.encode()).hexdigest()

    if condition.get("in_thread"):
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    else:
        run()
    print(json.dumps(found))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), int(sys.argv[2]))
