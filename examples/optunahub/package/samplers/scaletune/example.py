"""Tune on small models; the sampler learns how the best learning rate changes with size."""

import optuna
import optunahub

from hpo import Axis, Float, Role, Scale


def objective(trial: optuna.Trial) -> float:
    params = trial.suggest_float("params", 1e4, 1e6, log=True)
    lr = trial.suggest_float("lr", 1e-4, 1e-1, log=True)
    trial.set_user_attr("flops", 6.0 * params)  # what this trial has cost
    miss = (lr / 3e-3) * (params / 1e5) ** 0.3 - 1.0
    loss: float = 1.5 + 30.0 * params**-0.3 + 0.1 * miss**2
    return loss


if __name__ == "__main__":
    module = optunahub.load_module("samplers/scaletune")
    sampler = module.ScaleTuneSampler(
        {
            "params": Scale(1e4, 1e6, axis=Axis.PARAMS),
            "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
        },
        cost="flops",
        seed=0,
    )
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=40)
    print(study.best_trial.params, study.best_value)
