"""One writer per trial: results and trials of drivers that died or live."""

from pathlib import Path

import optuna

from hpo import (
    Budget,
    Cause,
    Observation,
    Result,
    SearchSpace,
    Status,
    Trial,
    optimize,
)
from hpo.study.lease import Lease
from hpo.study.storage import Asked, StudyStorage
from tests.study.studies import SPACE, asks, bowl


def open_storage(storage: optuna.storages.BaseStorage) -> StudyStorage:
    return StudyStorage.open(
        name="n",
        storage=storage,
        space=SearchSpace(SPACE),
        direction="minimize",
        cost="flops",
        seed=0,
    )


def started(study: StudyStorage, lease: Lease, attempt: int = 0) -> Trial:
    """A running trial of a driver that holds `lease`."""
    config = {"x": 0.25, "kind": "a"}
    distributions = SearchSpace(SPACE).distributions(config, {})
    return study.ask(Asked(0, 0, lease.owner, after=0, attempt=attempt), config, distributions)


def result_of(trial: Trial, loss: float) -> Observation:
    return Observation(
        trial.number, trial.config, loss, 2.0, Status.COMPLETED, None, 0, trial.ask_index
    )


def resume(storage: optuna.storages.BaseStorage) -> Result:
    return optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n", storage=storage)


def test_a_result_written_just_before_the_kill_is_kept(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    study, lease = open_storage(storage), Lease.take()
    study.write_lease(0, lease)
    trial = started(study, lease)
    identity = storage.get_trial_id_from_study_id_trial_number(1, trial.number)
    told = {
        "status": "completed",
        "cause": None,
        "loss": 0.125,
        "cost": 2.0,
        "seconds": 1.0,
        "order": 0,
        "metrics": {},
        "reports": [],
        "driven": 1.0,
        "text": "",
    }
    storage.set_trial_user_attr(identity, "scaletune:told", told)
    study.write_lease(0, lease.released())
    (observation,) = resume(storage).log.observations
    assert observation.loss == 0.125
    assert storage.get_trial(identity).state.name == "COMPLETE"
    assert storage.get_trial(identity).value == 0.125


def test_a_driver_whose_trial_was_taken_over_cannot_tell_it_any_more(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    study, lease = open_storage(storage), Lease.take()
    trial = started(study, lease)
    result = resume(storage)
    assert not study.tell(result_of(trial, 99.0), driven=0.0, text="")
    lost, retried = result.log.observations
    assert (lost.number, lost.cause) == (trial.number, Cause.LOST)
    assert retried.config == trial.config and retried.ask_index == trial.ask_index
    assert asks(resume(storage)) == asks(result)


def test_a_trial_of_a_living_driver_is_left_alone(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    study, lease = open_storage(storage), Lease.take()
    assert study.claim(lease) == 0
    study.identity(driver=0)  # as a driver of index 0 does first; others wait for it
    trial = started(study, lease)
    result = optimize(bowl, SPACE, budget=Budget(trials=3), cost="flops", name="n", storage=storage)
    assert [t.number for t in result.log.pending] == [trial.number]
    assert len(result.log) == 2
    stored = [entry.asked.driver for entry in study.entries()]
    assert stored == [0, 1, 1]
    assert study.tell(result_of(trial, 1.0), driven=0.0, text="")


def test_a_third_loss_of_the_driver_makes_an_error(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    study, lease = open_storage(storage), Lease.take()
    started(study, lease, attempt=2)
    (failed,) = resume(storage).log.observations
    assert failed.cause is Cause.ERROR


def test_a_loss_whose_continuation_was_never_written_is_continued(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    study, lease = open_storage(storage), Lease.take()
    trial = started(study, lease)
    assert study.mark_lost(trial.number, order=0)
    assert not study.mark_lost(trial.number, order=0)
    lost, retried = resume(storage).log.trials
    assert retried.parent == lost.number and retried.config == lost.config
