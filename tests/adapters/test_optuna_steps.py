"""Steps of Optuna's reports are counted in the unit of the declared fidelity."""

import logging

import optuna
import pytest

from hpo import ASHA, Fidelity
from hpo.adapters.optuna import ScaleTunePruner, ScaleTuneSampler
from hpo.schedulers import ASHAVariant, MedianStopping, Scheduler

EPOCHS = Fidelity(1, 9)


def objective(batches: int) -> optuna.study.study.ObjectiveFuncType:
    """Nine epochs of so many steps each."""

    def run(trial: optuna.Trial) -> float:
        loss = (trial.suggest_float("x", 0, 1) - 0.3) ** 2
        for epoch in range(1, 10):
            trial.report(loss + 1 / epoch, batches * epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return loss

    return run


@pytest.mark.parametrize(
    "scheduler", [ASHA(kind=ASHAVariant.STOPPING), MedianStopping()], ids=["asha", "median"]
)
def test_the_pruner_refuses_a_step_beyond_its_fidelity(scheduler: Scheduler) -> None:
    study = optuna.create_study(
        pruner=ScaleTunePruner(scheduler, EPOCHS), sampler=optuna.samplers.RandomSampler(seed=0)
    )
    with pytest.raises(ValueError, match=r"`fidelity` up to 9, got step=100"):
        study.optimize(objective(100), n_trials=8)
    study.optimize(objective(1), n_trials=8)
    assert len(study.trials) == 9


def test_a_pruner_without_a_fidelity_takes_any_step() -> None:
    study = optuna.create_study(
        pruner=ScaleTunePruner(MedianStopping()), sampler=optuna.samplers.RandomSampler(seed=0)
    )
    study.optimize(objective(100), n_trials=8)


def test_the_sampler_says_once_that_steps_have_another_unit_and_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    study = optuna.create_study(
        sampler=ScaleTuneSampler({"epochs": EPOCHS}, seed=0),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=2),
    )
    with caplog.at_level(logging.WARNING):
        study.optimize(objective(100), n_trials=10)
    texts = [r.getMessage() for r in caplog.records if "declared fidelity" in r.getMessage()]
    assert len(texts) == 1
    assert "step 100" in texts[0] or "step 900" in texts[0]
    assert "ends at 9" in texts[0]
    assert any(trial.state.name == "PRUNED" for trial in study.trials)


def test_a_run_pruned_early_does_not_pass_for_a_whole_one() -> None:
    """Its loss after one epoch lies below every whole run's; only its place looks whole."""
    study = optuna.create_study(sampler=ScaleTuneSampler({"epochs": EPOCHS}, seed=0))
    x = optuna.distributions.FloatDistribution(0, 1)
    for k in range(8):
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": 0.9 + k / 100},
                distributions={"x": x},
                state=optuna.trial.TrialState.PRUNED,
                intermediate_values={100: -5.0},
            )
        )
        at = 0.1 + k / 20
        study.add_trial(
            optuna.trial.create_trial(
                params={"x": at}, distributions={"x": x}, value=(at - 0.3) ** 2
            )
        )
    study.optimize(lambda trial: (trial.suggest_float("x", 0, 1) - 0.3) ** 2, n_trials=8)
    assert min(abs(trial.params["x"] - 0.3) for trial in study.trials[16:]) < 0.02
    assert sum(trial.params["x"] > 0.8 for trial in study.trials[16:]) <= 2
