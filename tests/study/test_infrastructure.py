"""What storages, callbacks, disks and processes do never becomes a result of a config."""

import errno
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import cloudpickle
import optuna
import pytest
from optuna.storages import InMemoryStorage
from sqlalchemy.exc import OperationalError

from hpo import (
    ASHA,
    Budget,
    Callback,
    Cause,
    Context,
    Fidelity,
    Float,
    ProcessRunner,
    Report,
    Result,
    StudyError,
    Trial,
    load_result,
    optimize,
)
from hpo.study.callbacks import StudyState
from hpo.study.checkpoints import STATE_FILE
from hpo.study.runners import InlineRunner, Runner
from tests.study.studies import SPACE, Config

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # else each worker imports this file

RUNNERS: list[Callable[[], Runner]] = [InlineRunner, ProcessRunner]
URL = "sqlite:///scaletune.db"


@pytest.fixture(params=RUNNERS, ids=["inline", "process"])
def runner(request: pytest.FixtureRequest) -> Runner:
    """A runner of each kind: what the machine does must not depend on it."""
    made: Runner = request.param()
    return made


def search(train: Any, runner: Runner, trials: int = 3, **arguments: Any) -> Result:
    return optimize(
        train, SPACE, budget=Budget(trials=trials), runner=runner, name="n", **arguments
    )


def reports(config: Config, ctx: Context) -> float:
    try:
        ctx.report(step=1, loss=1.0)
    except Exception:  # the habit that an error of the driver must survive
        pass
    return float(config["x"] ** 2)


def causes(name: str = "n", storage: Any = URL) -> list[Cause | None]:
    return [o.cause for o in load_result(name, storage=storage).log.observations]


# --- the driver's own errors ----------------------------------------------------------------------


@pytest.mark.parametrize("error", [BrokenPipeError, SystemExit])
def test_an_error_of_a_callback_ends_the_study_and_the_next_call_continues_it(
    folder: Path, runner: Runner, error: type[BaseException]
) -> None:
    class Fails(Callback):
        def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
            if trial.number == 1:
                raise error("no such dashboard")

    with pytest.raises(error, match="no such dashboard"):
        search(reports, runner, callbacks=[Fails()])
    assert causes() == [None]
    log = search(reports, type(runner)()).log
    assert [o.cause for o in log.observations if o.cause is not Cause.LOST] == [None] * 3
    assert log.trial(2).parent == 1 and log.trial(2).config == log.trial(1).config


def test_a_storage_that_fails_at_a_report_ends_the_study_and_the_next_call_continues_it(
    folder: Path, runner: Runner
) -> None:
    class Away(InMemoryStorage):
        away = True

        def set_trial_intermediate_value(self, *arguments: Any) -> None:
            if self.away:  # every time that it is tried
                raise OperationalError("", None, Exception("the server was shut down"))
            super().set_trial_intermediate_value(*arguments)

    storage = Away()
    with pytest.raises(StudyError, match="the server was shut down"):
        search(reports, runner, storage=storage)
    storage.away = False
    assert causes(storage=storage) == []
    log = search(reports, type(runner)(), storage=storage).log
    assert [o.cause for o in log.observations if o.cause is not Cause.LOST] == [None] * 3


# --- disks ----------------------------------------------------------------------------------------


def test_a_disk_that_is_full_for_a_moment_costs_a_retry(
    folder: Path, runner: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    def train(config: Config, ctx: Context) -> float:
        if ctx.trial.number == 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        return float(config["x"] ** 2)

    log = search(train, runner).log
    assert [o.cause for o in log.observations] == [Cause.LOST, None, None, None]
    assert log.trial(1).parent == 0 and log.trial(1).config == log.trial(0).config
    assert "No space left on device" in caplog.text
    (lost, *_) = optuna.load_study(study_name="n", storage=URL).trials
    assert "No space left on device" in lost.user_attrs["scaletune:lost"]["text"]


def test_a_disk_that_stays_full_ends_the_study_in_one_message_until_there_is_room(
    folder: Path, runner: Runner
) -> None:
    full = folder / "full"

    def train(config: Config, ctx: Context) -> float:
        ctx.save({"step": 1})
        ctx.report(step=1, loss=1.0)
        if full.exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        return float(config["x"] ** 2)

    full.touch()
    for attempts in (3, 4):
        with pytest.raises(StudyError, match="No space left on device") as refused:
            search(train, runner)
        assert "\n" not in str(refused.value)
        assert set(causes()) <= {Cause.LOST}
        stored = optuna.load_study(study_name="n", storage=URL).trials
        assert len(stored) == attempts and len({str(trial.params) for trial in stored}) == 1
    full.unlink()
    log = search(train, runner).log
    assert [o.cause for o in log.observations if o.cause is not Cause.LOST] == [None] * 3
    (root,) = (folder / "scaletune_checkpoints").iterdir()
    assert list(root.iterdir()) == []


def test_a_folder_of_checkpoints_that_cannot_be_made_is_refused_in_one_message(
    folder: Path, runner: Runner
) -> None:
    (folder / "scaletune_checkpoints").touch()  # a file

    def train(config: Config, ctx: Context) -> float:
        ctx.save({"step": 1})
        return 0.0

    with pytest.raises(StudyError, match="scaletune_checkpoints") as refused:
        search(train, runner)
    assert "\n" not in str(refused.value)
    assert set(causes()) <= {Cause.LOST}


def stages(config: Config, ctx: Context) -> float:
    """Trains epoch by epoch, and notes beside the study which ones."""
    state = ctx.load() or {"epoch": 0}
    assert ctx.fidelity is not None and ctx.checkpoint_dir is not None
    for epoch in range(state["epoch"] + 1, ctx.fidelity + 1):
        with open("epochs", "a") as file:
            file.write(f"{ctx.trial.number}:{epoch} ")
        ctx.save({"epoch": epoch})
        ctx.report(step=epoch, loss=config["x"] ** 2 + 1 / epoch)
    return float(config["x"] ** 2 + 1 / ctx.fidelity)


class Harms(Callback):
    """Calls a function when a trial starts that was promoted for the first time."""

    def __init__(self, harm: Callable[[int], None]) -> None:
        self.harm = harm
        self.harmed: int | None = None

    def on_trial_start(self, run: StudyState, trial: Trial) -> None:
        if self.harmed is None and run.log.resumed(trial.number):
            self.harmed = trial.number
            self.harm(trial.number)


@pytest.mark.parametrize("how", ["torn", "empty", "deleted", "all deleted"])
def test_a_promoted_run_whose_checkpoint_is_gone_starts_from_the_beginning(
    folder: Path, runner: Runner, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def harm(number: int) -> None:
        (root,) = (folder / "scaletune_checkpoints").iterdir()
        state = root / str(number) / STATE_FILE
        match how:
            case "torn":
                state.write_bytes(state.read_bytes()[:100])
            case "empty":
                state.write_bytes(b"")
            case "deleted":
                shutil.rmtree(root / str(number))
            case _:
                shutil.rmtree(folder / "scaletune_checkpoints")

    harms = Harms(harm)
    result = optimize(
        stages,
        {"x": Float(0, 1), "epochs": Fidelity(1, 4)},
        budget=Budget(trials=4),
        scheduler=ASHA(eta=2),
        runner=runner,
        callbacks=[harms],
        name="n",
    )
    assert harms.harmed is not None
    assert all(o.cause is None for o in result.log.observations)
    trained = (folder / "epochs").read_text().split()
    assert trained.count(f"{harms.harmed}:1") == 2  # before and after
    assert ("is damaged" in caplog.text) is (
        how in ("torn", "empty")
    ) or runner.interruptible is False


# --- processes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM", "SIGHUP"])
def test_a_worker_that_is_killed_again_and_again_ends_the_study_and_teaches_nothing(
    folder: Path, how: str
) -> None:
    def train(config: Config, ctx: Context) -> float:
        os.kill(os.getpid(), getattr(signal, how))
        ctx.report(step=1, loss=1.0)
        return 0.0

    with pytest.raises(StudyError, match="cannot be run here.*(signal|SIG)") as refused:
        search(train, ProcessRunner())
    assert "\n" not in str(refused.value)
    assert set(causes()) == {Cause.LOST}


def test_a_killed_fork_server_costs_a_retry(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> float:
        ctx.report(step=1, loss=1.0)
        time.sleep(0.2)
        return float(config["x"] ** 2)

    class KillsServer(Callback):
        def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
            if trial.number == 1:
                server: Any = forkserver._forkserver
                os.kill(server._forkserver_pid, signal.SIGKILL)

    log = search(train, ProcessRunner(), callbacks=[KillsServer()]).log
    assert [o.cause for o in log.observations] == [None, Cause.LOST, None, None]


@pytest.mark.parametrize("once", [True, False])
def test_a_fork_server_that_dies_at_the_start_of_a_worker_is_started_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch, once: bool
) -> None:
    server: Any = forkserver._forkserver
    connect, left = server.connect_to_new_process, [1 if once else 100]

    def cut(descriptors: list[int]) -> tuple[int, int]:
        if left[0] == 0:
            pair: tuple[int, int] = connect(descriptors)
            return pair
        left[0] -= 1
        reader, writer = os.pipe()
        os.close(writer)
        return reader, os.open(os.devnull, os.O_WRONLY)

    monkeypatch.setattr(forkserver, "connect_to_new_process", cut)
    if once:
        assert len(search(reports, ProcessRunner()).log.observations) == 3
    else:
        with pytest.raises(StudyError, match="no process can be started for trial 0"):
            search(reports, ProcessRunner())
        assert causes() == []


def test_a_train_function_that_a_worker_cannot_load_is_refused_and_teaches_nothing(
    folder: Path,
) -> None:
    class Unloadable:
        def __call__(self, config: Config, ctx: Context) -> float:
            return 0.0

        def __reduce__(self) -> Any:
            return int, ("not a number",)

    with pytest.raises(StudyError, match="could not be loaded in the worker.*not a number"):
        search(Unloadable(), ProcessRunner())
    assert set(causes()) <= {Cause.LOST}


@pytest.mark.parametrize("error", [ValueError, RuntimeError, NotImplementedError])
def test_a_train_function_that_cannot_be_pickled_is_refused_whatever_it_raises(
    error: type[Exception],
) -> None:
    class Unpicklable:
        def __call__(self, config: Config, ctx: Context) -> float:
            return 0.0

        def __reduce__(self) -> Any:
            raise error("not this one")

    with pytest.raises(TypeError, match="train_fn must be picklable.*not this one"):
        optimize(Unpicklable(), SPACE, budget=Budget(trials=1), workers=2)


def test_a_function_that_closes_all_its_descriptors_does_not_block_the_driver(
    folder: Path,
) -> None:
    def train(config: Config, ctx: Context) -> float:
        if ctx.trial.number == 0:
            os.closerange(0, 100)
            time.sleep(600)
        return 0.0

    log = search(train, ProcessRunner(), trials=1).log
    assert [o.cause for o in log.observations] == [Cause.LOST, None]
