"""Trials whose machine died: Optuna's heartbeat fails them, and its callback repeats them."""

from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy
from optuna.storages import RDBStorage
from optuna.trial import TrialState

from hpo import Fidelity
from hpo.adapters.optuna import ScaleTuneSampler, prediction_of

pytestmark = [
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
    pytest.mark.filterwarnings("ignore:Heartbeat of storage"),  # a trial asked for by hand
]

PRIOR = 0.95  # probability of success while nothing has failed


def heart(path: Path, **retry: Any) -> RDBStorage:
    """A storage with a heartbeat, which repeats what stopped beating."""
    callbacks = optuna.storages
    kind = getattr(callbacks, "RetryHeartbeatStaleTrialCallback", None)
    if kind is None:  # before Optuna 4.9
        return RDBStorage(
            f"sqlite:///{path}",
            heartbeat_interval=60,
            failed_trial_callback=callbacks.RetryFailedTrialCallback(**retry),
        )
    return RDBStorage(
        f"sqlite:///{path}", heartbeat_interval=60, heartbeat_stale_trial_callback=kind(**retry)
    )


def study_in(storage: RDBStorage, sampler: optuna.samplers.BaseSampler) -> optuna.Study:
    return optuna.create_study(
        storage=storage, study_name="a", sampler=sampler, load_if_exists=True
    )


def objective(trial: optuna.Trial) -> float:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
    return (x - 0.3) ** 2 + (y - 0.6) ** 2


def die(study: optuna.Study, storage: RDBStorage, *, suggested: int = 2) -> optuna.Trial:
    """Start a trial, and stop beating an hour ago."""
    trial = study.ask()
    for name in ("x", "y")[:suggested]:
        trial.suggest_float(name, 0, 1)
    storage.record_heartbeat(trial._trial_id)
    with storage.engine.begin() as connection:
        connection.execute(
            sqlalchemy.text(
                "UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 hour') "
                f"WHERE trial_id = {trial._trial_id}"
            )
        )
    return trial


@pytest.mark.parametrize("suggested", [1, 2])
def test_a_dead_trial_is_repeated_with_its_values_and_teaches_nothing(
    tmp_path: Path, suggested: int
) -> None:
    storage = heart(tmp_path / "a.db")
    study = study_in(storage, ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=3)
    dead = die(study, storage, suggested=suggested)
    study.optimize(objective, n_trials=2)
    states = [trial.state for trial in study.trials]
    assert states == [TrialState.COMPLETE] * 3 + [TrialState.FAIL] + [TrialState.COMPLETE] * 2
    again = study.trials[4]
    assert dead.params.items() <= again.params.items()
    assert set(again.params) == {"x", "y"}
    for trial in study.trials[5:]:
        prediction = prediction_of(trial)
        assert prediction is not None and prediction.success == PRIOR


def test_a_trial_that_dies_again_and_again_teaches_only_when_optuna_gives_it_up(
    tmp_path: Path,
) -> None:
    storage = heart(tmp_path / "a.db", max_retry=2)
    study = study_in(storage, ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=3)
    success = []
    for _ in range(3):
        first = die(study, storage)
        optuna.storages.fail_stale_trials(study)
        probe = study_in(storage, ScaleTuneSampler(seed=0))
        waiting = [trial for trial in probe.trials if trial.state is TrialState.WAITING]
        success.append(len(waiting))
        if waiting:
            assert waiting[0].params == first.params
    assert success == [1, 1, 0]
    study.optimize(objective, n_trials=2)
    prediction = prediction_of(study.trials[-1])
    assert prediction is not None and prediction.success is not None
    assert prediction.success != PRIOR  # a model of one failure, of the three attempts


def test_a_failure_that_was_learned_before_its_repetition_was_there_is_forgotten(
    tmp_path: Path,
) -> None:
    """Another process fails the trial first and enqueues it a moment later."""
    storage = heart(tmp_path / "a.db")
    study = study_in(storage, ScaleTuneSampler(seed=0))
    study.optimize(objective, n_trials=3)
    dead = die(study, storage)
    storage.set_trial_state_values(dead._trial_id, TrialState.FAIL)
    between = study.ask()
    study.tell(between, objective(between))
    repeat = storage.get_heartbeat_stale_trial_callback()
    assert repeat is not None
    repeat(study, storage.get_trial(dead._trial_id))
    study.optimize(objective, n_trials=2)
    successes = []
    for trial in (study.trials[4], study.trials[-1]):
        prediction = prediction_of(trial)
        assert prediction is not None and prediction.success is not None
        successes.append(prediction.success)
    assert successes[0] != PRIOR  # a model of one failure
    assert successes[1] == PRIOR


def test_reports_of_a_dead_trial_do_not_count_beside_those_of_its_repetition(
    tmp_path: Path,
) -> None:
    storage = heart(tmp_path / "a.db", inherit_intermediate_values=True)
    study = study_in(storage, ScaleTuneSampler({"epochs": Fidelity(1, 4)}, seed=0))

    def trained(trial: optuna.Trial) -> float:
        loss = objective(trial)
        for epoch in range((trial._cached_frozen_trial.last_step or 0) + 1, 5):
            trial.report(loss + 1 / epoch, epoch)
        return loss

    study.optimize(trained, n_trials=4)
    dead = die(study, storage)
    dead.report(0.9, 1)
    study.optimize(trained, n_trials=3)
    again = study.trials[5]
    assert again.state is TrialState.COMPLETE and sorted(again.intermediate_values) == [1, 2, 3, 4]
    assert len(study.trials) == 8
