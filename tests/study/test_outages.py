"""Storages that are away for a while: nothing is lost, nothing stays pending, one clear error."""

import json
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import BaseStorage, InMemoryStorage, RDBStorage
from sqlalchemy.exc import OperationalError

from hpo import (
    ASHA,
    PBT,
    Budget,
    Callback,
    Cause,
    Context,
    Fidelity,
    Float,
    Hyperband,
    Report,
    Result,
    StudyError,
    Trial,
    load_result,
    optimize,
)
from hpo.schedulers import FreezeThaw, Scheduler
from hpo.space import Parameter
from hpo.study.callbacks import StudyState
from hpo.study.lease import DRIVER_KEY

pytestmark = pytest.mark.usefixtures("folder")  # checkpoints go to the current directory

SPACE: dict[str, Parameter] = {"x": Float(0.0, 1.0)}


class Away(RDBStorage):
    """A storage that takes no writes of attributes while it is away."""

    away = False

    def _check(self) -> None:
        if self.away:
            raise OSError("server is away")

    def set_trial_user_attr(self, *arguments: Any, **named: Any) -> None:
        self._check()
        super().set_trial_user_attr(*arguments, **named)

    def set_study_user_attr(self, *arguments: Any, **named: Any) -> None:
        self._check()
        super().set_study_user_attr(*arguments, **named)


@pytest.fixture
def storage(folder: Path) -> Away:
    return Away(f"sqlite:///{folder}/s.db")


def drive(storage: Any, *, fails_at: int | None = None, **options: Any) -> Result:
    """Run twelve trials; the storage goes away while trial `fails_at` is training."""

    def train(config: dict[str, Any], ctx: Context) -> float:
        if ctx.trial.number == fails_at:
            storage.away = True
        return float(config["x"])

    arguments = {"budget": Budget(trials=12), "name": "s", "storage": storage, "seed": 1}
    return optimize(train, options.pop("space", SPACE), **(arguments | options))


def test_after_an_outage_the_same_process_tells_every_trial_at_once_and_none_is_pending(
    storage: Away, folder: Path
) -> None:
    with pytest.raises(StudyError, match="server is away") as refused:
        drive(storage, fails_at=5)
    assert "still there" in str(refused.value)
    storage.away = False
    result = drive(storage)
    assert [o.number for o in result.log.observations] == list(range(12))
    assert not result.log.pending and all(o.cause is None for o in result.log.observations)
    undisturbed = drive(f"sqlite:///{folder}/other.db")
    assert [o.config for o in result.log.observations] == [
        o.config for o in undisturbed.log.observations
    ]


def test_another_process_finishes_the_books_when_the_lease_has_lapsed(
    storage: Away, folder: Path
) -> None:
    with pytest.raises(StudyError):
        drive(storage, fails_at=5)
    storage.away = False
    study = load_result("s", storage=storage).study
    assert study is not None
    [(key, lease)] = [(k, v) for k, v in study.user_attrs.items() if k.startswith(DRIVER_KEY)]
    code = (
        "import json; from hpo import *; r = optimize(lambda c, ctx: c['x'], {'x': Float(0, 1)},"
        "budget=Budget(trials=12), name='s', storage='sqlite:///s.db', seed=1);"
        "print(json.dumps([[o.number for o in r.log.observations if o.cause is None],"
        "[t.number for t in r.log.pending]]))"
    )

    def elsewhere() -> Any:
        command = [sys.executable, "-c", code]
        run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        return json.loads(run.stdout)

    assert elsewhere()[1] == [5]  # this process lives and the lease has not lapsed
    study.set_user_attr(key, lease | {"expires": 1.0})
    told, pending = elsewhere()
    assert len(told) == 12 and not pending


def test_a_paused_stage_that_could_not_be_written_is_paused_by_the_next_call(
    storage: Away,
) -> None:
    space = {**SPACE, "epochs": Fidelity(1, 9)}
    with pytest.raises(StudyError):
        drive(storage, fails_at=3, space=space, scheduler=ASHA())
    storage.away = False
    result = drive(storage, space=space, scheduler=ASHA())
    assert result.log.observation(3) is not None
    lost = {o.number for o in result.log.observations if o.cause is Cause.LOST}
    continued = {trial.parent for trial in result.log.trials}
    assert lost <= continued  # promoted: another trial continues the run
    assert all(o.cause in (None, Cause.LOST) for o in result.log.observations)


def test_the_result_is_returned_if_only_the_lease_could_not_be_given_up(
    storage: Away, caplog: pytest.LogCaptureFixture
) -> None:
    class GoesAway(Away):
        """Goes away once the twelfth result is final."""

        finals = 0

        def set_trial_state_values(self, *arguments: Any, **named: Any) -> bool:
            done = super().set_trial_state_values(*arguments, **named)
            self.finals += 1
            self.away = self.finals == 12
            return done

    result = drive(GoesAway(storage.url))
    assert len(result.log.observations) == 12
    assert "could not be given up" in caplog.text
    assert len(drive(storage.url, budget=Budget(trials=14)).log.observations) == 14


FAULTS = [
    RuntimeError("boom"),
    KeyError("boom"),
    OperationalError("SELECT", {}, Exception("boom")),
    BrokenPipeError(),
    ValueError("boom"),
    TimeoutError(),
]
CALLS = [
    "create_new_trial",
    "set_trial_user_attr",
    "set_trial_state_values",
    "set_trial_intermediate_value",
    "set_study_user_attr",
    "get_study_user_attrs",
    "get_all_trials",
    "get_study_id_from_name",
    "create_new_study",
    "get_trial_id_from_study_id_trial_number",
]


def faulty(call: str, fault: Exception, *, times: int, stored: bool) -> InMemoryStorage:
    """A storage whose second `call` fails `times` times, before or after it is stored."""
    storage, count = InMemoryStorage(), iter(range(1_000_000))
    real = getattr(storage, call)

    def failing(*arguments: Any, **named: Any) -> Any:
        first = 0 if call == "create_new_study" else 1  # which is called once
        if not first <= next(count) < first + times:
            return real(*arguments, **named)
        if stored:
            real(*arguments, **named)
        raise fault

    setattr(storage, call, failing)
    return storage


def reporting(config: dict[str, Any], ctx: Context) -> float:
    ctx.report(step=1, loss=config["x"])
    return float(config["x"])


@pytest.mark.parametrize("stored", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("call", CALLS)
def test_a_storage_that_fails_once_in_any_way_changes_nothing(call: str, stored: bool) -> None:
    for fault in FAULTS:
        storage = faulty(call, fault, times=1, stored=stored)
        result = optimize(reporting, SPACE, budget=Budget(trials=2), name="s", storage=storage)
        assert [o.cause for o in result.log.observations] == [None] * 2
        assert not result.log.pending and result.study is not None
        assert [trial.state.name for trial in result.study.trials] == ["COMPLETE"] * 2


@pytest.mark.parametrize("call", CALLS[:4])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
def test_a_storage_that_keeps_failing_is_one_study_error_that_says_what_is_kept(
    fault: Exception, call: str
) -> None:
    storage = faulty(call, fault, times=8, stored=False)
    with pytest.raises(StudyError, match="cannot be used.*What was stored before is still there"):
        optimize(reporting, SPACE, budget=Budget(trials=3), name="s", storage=storage)
    delattr(storage, call)
    result = optimize(reporting, SPACE, budget=Budget(trials=3), name="s", storage=storage)
    assert [o.loss is not None for o in result.log.observations if o.cause is None] == [True] * 3
    assert not any(o.cause is Cause.ERROR for o in result.log.observations)
    assert not result.log.pending


class RpcError(Exception):
    """An error as gRPC raises it."""

    def details(self) -> str:
        return "failed to connect to all addresses"

    def __str__(self) -> str:
        return f"<_InactiveRpcError of RPC that terminated with:\n{self.details()}>"


def test_an_error_of_a_remote_storage_is_told_by_its_details() -> None:
    storage = faulty("set_trial_user_attr", RpcError(), times=100, stored=False)
    with pytest.raises(StudyError, match="cannot be used: failed to connect to all addresses;"):
        optimize(reporting, SPACE, budget=Budget(trials=3), name="s", storage=storage)


@pytest.mark.parametrize("call", CALLS[5:8])
def test_a_study_that_is_only_looked_at_takes_a_fault_and_tells_a_lasting_one(call: str) -> None:
    storage = InMemoryStorage()
    optimize(reporting, SPACE, budget=Budget(trials=2), name="s", storage=storage)
    real, left = getattr(storage, call), [1]

    def failing(*arguments: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] >= 0:
            raise KeyError("boom")
        return real(*arguments, **named)

    setattr(storage, call, failing)
    assert len(load_result("s", storage=storage).log) == 2
    left[0] = 1000
    with pytest.raises(StudyError):
        load_result("s", storage=storage)


WRITES = [
    "create_new_study",
    "set_study_user_attr",
    "create_new_trial",
    "set_trial_user_attr",
    "set_trial_state_values",
    "set_trial_intermediate_value",
]
EPOCHS: dict[str, Parameter] = {**SPACE, "epochs": Fidelity(1, 9)}
SCHEDULERS: dict[str, tuple[Scheduler | None, dict[str, Parameter], int]] = {
    "none": (None, SPACE, 5),
    "asha": (ASHA(), EPOCHS, 8),
    "hyperband": (Hyperband(), EPOCHS, 6),
    "freeze-thaw": (FreezeThaw(), EPOCHS, 4),
    "pbt": (PBT(population=4), EPOCHS, 8),
}


class Outage:
    """Makes the n-th write to a storage fail, and every one after it until the storage is back."""

    def __init__(self, storage: BaseStorage, *, at: int | None = None) -> None:
        self._at = at
        self._away = False
        self.written: list[str] = []  # each write, with the key of an attribute
        for name in WRITES:
            setattr(storage, name, self._failing(name, getattr(storage, name)))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if not self._away:
                self.written.append(f"{name} {arguments[1] if 'attr' in name else ''}".strip())
                self._away = len(self.written) - 1 == self._at
            if self._away:
                raise OSError("server is away")
            return real(*arguments, **named)

        return call

    def end(self) -> None:
        self._away, self._at = False, None


def staged(scheduler: str, storage: BaseStorage, trained: list[tuple[float, int]]) -> Result:
    """Search under a scheduler, and note every config and epoch that is trained."""
    schedule, space, trials = SCHEDULERS[scheduler]

    def train(config: dict[str, Any], ctx: Context) -> dict[str, float]:
        level = ctx.fidelity or 1
        for epoch in range((ctx.load() or 0) + 1, level + 1):
            trained.append((config["x"], epoch))
            ctx.save(epoch)
            ctx.report(step=epoch, loss=config["x"] + 1 / epoch, cost=epoch)
        return {"loss": config["x"] + 1 / level, "cost": level}

    return optimize(
        train,
        space,
        budget=Budget(trials=trials),
        cost="epochs",
        scheduler=schedule,
        surrogate="gp",
        name="s",
        storage=storage,
    )


def told(result: Result) -> list[Any]:
    """What each run came to; the numbers of its trials do not matter."""
    last = [o for o in (*result.log.runs, *result.log.paused) if o.cause is not Cause.LOST]
    return sorted((o.config["x"], o.status.value, o.loss, o.cost) for o in last)


def check_outage(scheduler: str, at: int, calm: Result, epochs: list[tuple[float, int]]) -> None:
    """An outage from one write on: the next call fills the budget and trains nothing again."""
    storage, trained = InMemoryStorage(), list[tuple[float, int]]()
    outage = Outage(storage, at=at)
    with suppress(StudyError):  # at the very end, only the lease is not given up
        staged(scheduler, storage, trained)
    outage.end()
    result = staged(scheduler, storage, trained)
    assert told(result) == told(calm), (at, outage.written[at])
    assert not result.log.pending
    assert sorted(trained) == sorted(epochs)


def test_whatever_write_an_outage_begins_with_the_next_call_fills_the_budget() -> None:
    storage, epochs = InMemoryStorage(), list[tuple[float, int]]()
    outage = Outage(storage)
    calm = staged("asha", storage, epochs)
    kinds = {write: at for at, write in enumerate(outage.written)}  # the last of each kind
    kinds = {write: at for write, at in kinds.items() if "wanted" not in write}
    assert {f"set_trial_user_attr scaletune:{k}" for k in ("told", "paused:0", "resumed:0")} <= {
        *kinds
    }
    for at in kinds.values():
        check_outage("asha", at, calm, epochs)


@pytest.mark.engine
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_an_outage_may_begin_with_any_write_under_any_scheduler(scheduler: str) -> None:
    storage, epochs = InMemoryStorage(), list[tuple[float, int]]()
    outage = Outage(storage)
    calm = staged(scheduler, storage, epochs)
    for at in range(len(outage.written)):
        check_outage(scheduler, at, calm, epochs)


def test_a_run_that_was_cloned_before_it_was_interrupted_is_continued() -> None:
    cloned, interrupted = set[int | None](), list[int]()

    def train(config: dict[str, Any], ctx: Context) -> float:
        cloned.add(ctx.trial.parent)
        if ctx.trial.number in cloned and not interrupted:
            interrupted.append(ctx.trial.number)
            raise KeyboardInterrupt
        return float(config["x"])

    storage = InMemoryStorage()

    def call() -> Result:
        return optimize(
            train,
            EPOCHS,
            budget=Budget(trials=8),
            scheduler=PBT(population=4),
            surrogate="gp",
            name="s",
            storage=storage,
        )

    call()
    assert interrupted
    result = call()
    asks = {t.ask_index for t in result.log.trials if t.parent in interrupted}
    assert result.log.trial(interrupted[0]).ask_index in asks
    assert len([o for o in result.log.observations if o.cause is None]) >= 8


@pytest.mark.parametrize(
    ("workers", "error"),
    [(1, KeyError("mine")), (1, OSError("mine")), (2, BrokenPipeError("mine"))],
)
def test_an_error_while_a_report_is_answered_ends_the_study_and_is_not_the_trial_s(
    workers: int, error: Exception
) -> None:
    class Failing(Callback):
        """Fails at one report of each call."""

        failed = False

        def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
            if not self.failed:
                self.failed = True
                raise error

    storage = InMemoryStorage()

    def call(*callbacks: Callback) -> Result:
        return optimize(
            reporting,
            SPACE,
            budget=Budget(trials=3),
            name="s",
            storage=storage,
            workers=workers,
            callbacks=callbacks,
        )

    with pytest.raises(type(error), match="mine"):
        call(Failing())
    assert not any(
        o.cause is Cause.ERROR for o in load_result("s", storage=storage).log.observations
    )
    assert len([o for o in call().log.observations if o.cause is None]) == 3
