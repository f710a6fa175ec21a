"""Runs you already have, in an Optuna study of any sampler: recommendation, law and report.

    python examples/14_runs_from_optuna.py

From a shell: `scaletune recommend sqlite:///study.db --name mine`. Sizes are parameters or user
attributes called `n_params`, `tokens` and the like; `read_runs(study, scales=["n:params"])` names
others.
"""

import math
import tempfile
from pathlib import Path

import optuna

from hpo import Optimizer, load_result, read_runs


def objective(trial: optuna.Trial) -> float:
    """Return a stand-in for the loss of a small run."""
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    params = 10.0 ** trial.suggest_int("size", 5, 7)
    trial.set_user_attr("n_params", params)
    best = 3e-3 * (params / 1e6) ** -0.25
    return float(1.5 + 20.0 * params**-0.25 + 0.05 * math.log(lr / best) ** 2)


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder, 'study.db')}"
        sampler = optuna.samplers.RandomSampler(seed=0)
        study = optuna.create_study(study_name="mine", storage=url, sampler=sampler)
        study.optimize(objective, n_trials=40)
        print(load_result("mine", storage=url))
        runs = read_runs(study, params=["lr"])  # not `size`, which says what `n_params` says
    optimizer = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
    optimizer.tell_many(runs)
    print(optimizer.recommend({"n_params": 1e9}))
    print(f"the true best lr there is {3e-3 * 1e3**-0.25:.2e}")
