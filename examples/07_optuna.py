"""Optuna: the engine as a sampler of an ordinary Optuna study.

    python examples/07_optuna.py

`ScaleTuneSampler()` needs no description of the space: it learns it, conditions included, from what
the objective suggests. `prediction_of` returns what the model expected of a trial.
"""

import math

import optuna

from hpo.adapters.optuna import ScaleTuneSampler, prediction_of


def objective(trial: optuna.Trial) -> float:
    """Return a stand-in for a loss; momentum exists under SGD alone."""
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    if trial.suggest_categorical("optimizer", ["adam", "sgd"]) == "adam":
        return 0.3 + 0.1 * math.log10(lr / 1e-3) ** 2
    momentum = trial.suggest_float("momentum", 0.0, 0.99)
    return 0.2 + 0.1 * math.log10(lr / 3e-2) ** 2 + (momentum - 0.9) ** 2


if __name__ == "__main__":
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=30)
    print(f"best value {study.best_value:.3f} with {study.best_params}")
    last = study.trials[-1]
    expected = prediction_of(last)
    if expected is not None and expected.loss_interval is not None:
        low, high = expected.loss_interval
        print(f"trial {last.number}: expected {low:.3f} to {high:.3f}, observed {last.value:.3f}")
        print(f"  why it was proposed: {expected.reason}")
