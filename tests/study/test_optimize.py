"""`optimize`: arguments, budgets, failures, resume, interrupts, callbacks."""

import json
import math
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
import torch
from optuna.storages import BaseStorage, InMemoryStorage
from rich.console import Console

from hpo import (
    ASHA,
    Budget,
    BudgetError,
    Categorical,
    Context,
    Fidelity,
    Float,
    Int,
    Limits,
    Observation,
    Report,
    Result,
    Scale,
    SearchSpace,
    SpaceError,
    Status,
    StudyError,
    Trial,
    optimize,
)
from hpo.schedulers import StoppingRule
from hpo.study.callbacks import Callback, StudyState
from hpo.study.lease import Lease
from hpo.study.process_runner import ProcessRunner
from hpo.study.progress import Progress
from hpo.study.runners import InlineRunner
from hpo.study.storage import Asked, Journal, _read, _split
from hpo.trials import TrialLog

Config = dict[str, Any]
SPACE = {"x": Float(-1.0, 1.0), "kind": Categorical(["a", "b"])}
REPOSITORY = Path(__file__).parent.parent


def bowl(config: Config, ctx: Context) -> dict[str, float]:
    return {"loss": config["x"] ** 2 + (config["kind"] == "b"), "cost": 2.0}


class Recorder(Callback):
    """Notes what it is told, in order."""

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    def on_start(self, run: StudyState) -> None:
        self.events.append(("start", run.ledger.spent.trials))

    def on_trial_start(self, run: StudyState, trial: Trial) -> None:
        self.events.append(("trial", trial.number))

    def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
        self.events.append(("report", report.step))

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        self.events.append(("end", observation))

    def on_error(self, run: StudyState, error: BaseException) -> None:
        self.events.append(("error", type(error)))

    def on_finish(self, run: StudyState, result: Result) -> None:
        self.events.append(("finish", run.ledger.spent.trials))

    @property
    def observations(self) -> list[Observation]:
        return [what for event, what in self.events if event == "end"]


def asks(result: Result) -> list[tuple[int | None, Config]]:
    return [(o.ask_index, o.config) for o in result.log.observations if o.cause is None]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train_fn": 3}, TypeError, "train_fn must be callable"),
        ({"budget": 60}, TypeError, r"write Budget\(trials=60\)"),
        ({"budget": Budget(per_trial=3.0)}, BudgetError, "at least one of trials, seconds"),
        ({"workers": 0}, ValueError, "workers must be an int of at least 1, got 0"),
        ({"workers": True}, ValueError, "workers must be an int"),
        ({"confirm": -1}, ValueError, "confirm must be an int of at least 0"),
        ({"seed": 1.5}, ValueError, "seed must be an int"),
        ({"direction": "down"}, ValueError, "direction must be"),
        ({"cost": 3}, TypeError, "cost must be None or the name of a unit"),
        ({"target": {"params": 1e9}}, SpaceError, "target"),
        ({"space": {"x": 3}}, SpaceError, "`x` must be"),
        ({"name": ""}, ValueError, "name must be a text"),
        ({"storage": "sqlite:///a.db"}, ValueError, "storage= needs name="),
        ({"callbacks": [print]}, TypeError, "derive from hpo.study.callbacks.Callback"),
        ({"scheduler": print}, TypeError, "scheduler must be one of hpo.schedulers"),
        ({"surrogate": "magic"}, ValueError, "`surrogate` must be one of"),
        ({"priors": "mup"}, ValueError, "priors must be"),
        ({"runner": InlineRunner(), "workers": 2}, ValueError, "InlineRunner runs one trial"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_argument_is_refused_before_anything_is_written(
    change: dict[str, Any], error: type[Exception], message: str, folder: Path
) -> None:
    arguments: dict[str, Any] = {
        "train_fn": bowl,
        "space": SPACE,
        "budget": Budget(trials=1),
        "cost": "flops",
        "name": None if "storage" in change else "n",
    }
    with pytest.raises(error, match=message):
        optimize(**(arguments | change))
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("storage", ["sqlite:////nowhere/to/be/found/a.db", "sqlite:///."])
def test_an_unusable_storage_is_refused_with_its_path_and_the_way_out(
    storage: str, folder: Path
) -> None:
    with pytest.raises(StudyError, match=rf"{storage}.*name another one with storage="):
        optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n", storage=storage)


def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(folder: Path) -> None:
    (folder / "scaletune.db").write_text("my notes, nothing else " * 100)
    with pytest.raises(StudyError, match="not a database"):
        optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n")
    assert (folder / "scaletune.db").read_text().startswith("my notes")


def test_a_plain_path_as_storage_is_refused_with_its_url(folder: Path) -> None:
    with pytest.raises(StudyError, match="write storage='sqlite:///runs.db'"):
        optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n", storage="runs.db")


# --- budgets and cost ----------------------------------------------------------------------------


def test_trials_cost_and_seconds_each_end_the_search() -> None:
    by_trials = optimize(bowl, SPACE, budget=Budget(trials=3), cost="flops")
    by_cost = optimize(bowl, SPACE, budget=Budget(cost=5.0), cost="flops")
    began = time.monotonic()
    by_time = optimize(bowl, SPACE, budget=Budget(seconds=0.3), cost="flops")
    assert len(by_trials.log) == 3
    assert len(by_cost.log) == 3  # 2 + 2 leaves 1 of 5, and the third overshoots
    assert len(by_time.log) >= 1 and time.monotonic() - began < 5.0


def test_a_budget_that_runs_out_stops_a_running_trial_at_its_report() -> None:
    def train(config: Config, ctx: Context) -> float:
        for step in range(100):
            ctx.report(step=step, loss=float(-step), cost=float(step))
        return -100.0

    result = optimize(train, SPACE, budget=Budget(trials=1, cost=3.0), cost="flops")
    (stopped,) = result.log.observations
    assert (stopped.status, stopped.loss, stopped.cost) == (Status.STOPPED, -3.0, 3.0)


def test_a_trial_that_reaches_its_own_cost_limit_is_stopped_and_the_next_runs() -> None:
    def train(config: Config, ctx: Context) -> float:
        for step in range(100):
            ctx.report(step=step, loss=float(-step), cost=float(step))
        return -100.0

    result = optimize(train, SPACE, budget=Budget(trials=2, per_trial=7.0), cost="flops")
    assert [o.cost for o in result.log.observations] == [7.0, 7.0]


def test_a_declared_unit_that_is_not_reported_is_refused_at_the_first_trial(folder: Path) -> None:
    with pytest.raises(BudgetError, match="cost='flops' must be reported by train_fn"):
        optimize(lambda config, ctx: 1.0, SPACE, budget=Budget(trials=9), cost="flops", name="n")
    study = optuna.load_study(study_name="n", storage="sqlite:///scaletune.db")
    (stored,) = study.trials
    assert stored.state == optuna.trial.TrialState.FAIL
    assert stored.user_attrs["scaletune:told"]["cause"] == "error"


def test_a_reported_cost_without_a_unit_is_refused_with_the_way_out() -> None:
    with pytest.raises(BudgetError, match='add cost="flops"'):
        optimize(bowl, SPACE, budget=Budget(trials=9))


def test_seconds_are_measured_unless_they_are_reported() -> None:
    def sleep(config: Config, ctx: Context) -> float:
        time.sleep(0.05)
        return 1.0

    measured = optimize(sleep, SPACE, budget=Budget(trials=1), cost="seconds")
    unnamed = optimize(sleep, SPACE, budget=Budget(trials=1))
    reported = optimize(bowl, SPACE, budget=Budget(trials=1), cost="seconds")
    for result in (measured, unnamed):
        assert 0.05 <= (result.log.observations[0].cost or 0.0) < 1.0
    assert reported.log.observations[0].cost == 2.0


# --- failures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("returned", [None, "0.5", True, 1j, {"accuracy": 1.0}])
def test_a_returned_value_that_is_no_loss_ends_the_study_and_is_stored(
    returned: object, folder: Path
) -> None:
    recorder = Recorder()
    with pytest.raises((TypeError, ValueError), match="loss"):
        optimize(
            lambda config, ctx: returned,
            SPACE,
            budget=Budget(trials=9),
            name="n",
            callbacks=[recorder],
        )
    (observation,) = recorder.observations
    assert observation.cause is not None and observation.cause.value == "error"
    assert recorder.events[-1][0] == "error"
    assert optuna.load_study(study_name="n", storage="sqlite:///scaletune.db").trials[0].state == (
        optuna.trial.TrialState.FAIL
    )


def test_failures_are_told_with_their_cause_and_their_text_and_the_search_goes_on(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def train(config: Config, ctx: Context) -> float:
        match ctx.trial.number:
            case 0:
                raise RuntimeError("too wide " * 2000)
            case 1:
                raise MemoryError
            case 2:
                return math.nan
        return 1.0

    result = optimize(train, SPACE, budget=Budget(trials=5), name="n")
    causes = [o.cause.value if o.cause else None for o in result.log.observations]
    assert causes == ["error", "oom", "diverged", None, None]
    assert "trial 1 failed (oom)" in caplog.text
    told = _read(result.study.trials[0].user_attrs, "scaletune:told") if result.study else None
    assert told is not None and told["text"].endswith("too wide \n")
    assert all(
        len(json.dumps(value)) <= 2045
        for trial in (result.study.trials if result.study else [])
        for value in trial.user_attrs.values()
    )


def test_a_train_function_with_other_parameters_is_refused() -> None:
    def one(ctx: Context) -> float:
        return 1.0

    def named(config: Config, ctx: Context, *, lr: float) -> float:
        return lr

    for train, message in ((one, "too many positional"), (named, "missing.* argument.* 'lr'")):
        with pytest.raises(TypeError, match=message):
            optimize(train, SPACE, budget=Budget(trials=1))  # type: ignore[arg-type]


def test_a_train_function_that_only_ever_raises_ends_the_search_and_goes_on_once_mended(
    folder: Path,
) -> None:
    broken, seen = True, 0

    def train(config: Config, ctx: Context) -> dict[str, float]:
        nonlocal seen
        seen += 1
        if broken:
            raise KeyError("learning_rate")
        return bowl(config, ctx)

    def search() -> Result:
        return optimize(train, SPACE, budget=Budget(cost=20), cost="flops", name="typo")

    with pytest.raises(StudyError, match="first 10 trials raised, the last with .*learning_rate"):
        search()
    with pytest.raises(StudyError, match="first 10 trials raised"):
        search()
    assert seen == 11
    broken = False
    assert search().best.loss is not None


def test_one_trial_that_went_well_or_ran_out_of_memory_keeps_a_search_alive() -> None:
    for first in ("oom", None):
        count = 0

        def train(config: Config, ctx: Context, first: str | None = first) -> float:
            nonlocal count
            count += 1
            if count == 1 and first == "oom":
                raise torch.cuda.OutOfMemoryError("CUDA out of memory")
            if count > 1:
                raise KeyError("learning_rate")
            return 1.0

        optimize(train, SPACE, budget=Budget(trials=15))
        assert count == 15


def test_a_study_whose_trials_all_fail_has_a_result_without_a_best() -> None:
    def train(config: Config, ctx: Context) -> float:
        raise RuntimeError

    result = optimize(train, SPACE, budget=Budget(trials=4), confirm=2)
    assert len(result.log) == 4
    with pytest.raises(ValueError, match="no trial was completed"):
        _ = result.best


def test_a_worker_that_always_vanishes_is_tried_three_times_and_then_an_error(
    folder: Path,
) -> None:
    def train(config: Config, ctx: Context) -> float:
        assert ctx.checkpoint_dir is not None
        with open(ctx.checkpoint_dir.parent / "tries", "a") as file:
            file.write(f"{ctx.seed} ")
        os._exit(1)

    result = optimize(
        train, SPACE, budget=Budget(trials=1), runner=ProcessRunner(), name="n", seed=5
    )
    causes = [o.cause.value for o in result.log.observations if o.cause]
    assert causes == ["lost", "lost", "error"]
    assert {o.ask_index for o in result.log.observations} == {0}
    assert [t.parent for t in result.log.trials] == [None, 0, 1]
    (root,) = (folder / "scaletune_checkpoints").glob("n-*")
    tries = (root / "tries").read_text().split()
    assert len(tries) == 3 and len(set(tries)) == 1


def test_a_lost_trial_goes_on_from_its_checkpoint_and_keeps_its_time(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, float]:
        state = ctx.load() or {"step": 0, "weight": torch.zeros(3)}
        for step in range(state["step"], 4):
            time.sleep(0.1)
            state = {"step": step + 1, "weight": state["weight"] + 1}
            ctx.save(state)
            ctx.report(step=step, loss=1.0)
            if step == 1 and ctx.trial.parent is None:
                os.kill(os.getpid(), signal.SIGKILL)
        return {"loss": float(state["weight"].sum()), "began": float(4 - step)}

    result = optimize(train, SPACE, budget=Budget(trials=1), runner=ProcessRunner(), name="n")
    lost, done = result.log.observations
    assert done.loss == 12.0
    assert [report.step for report in done.reports] == [2, 3]
    assert done.seconds is not None and done.seconds >= 0.4
    (root,) = (folder / "scaletune_checkpoints").glob("n-*")
    assert [p for p in root.iterdir()] == []


def test_limits_run_one_worker_in_a_process_and_kill_it() -> None:
    def train(config: Config, ctx: Context) -> float:
        if ctx.trial.number == 0:
            time.sleep(600)
        return float(os.getpid())

    result = optimize(
        train, SPACE, budget=Budget(trials=2, per_trial=Limits(seconds=0.5)), cost="seconds"
    )
    late, done = result.log.observations
    assert late.cause is not None and late.cause.value == "timeout"
    assert late.cost is not None and 0.5 <= late.cost < 3.0
    assert done.loss != float(os.getpid())


def test_several_workers_share_a_budget_of_trials() -> None:
    result = optimize(bowl, SPACE, budget=Budget(trials=7), cost="flops", workers=3)
    assert len(result.log) == 7
    assert sorted(o.ask_index for o in result.log.observations if o.ask_index is not None) == list(
        range(7)
    )


# --- what a training function sees ---------------------------------------------------------------


def test_a_function_sees_fidelity_scale_and_a_seed_of_its_own() -> None:
    seen: list[Context] = []

    def train(config: Config, ctx: Context) -> float:
        seen.append(ctx)
        assert ctx.fidelity == config["epochs"]
        assert ctx.scale == {"params": config["params"]}
        return 1.0

    space = {"x": Float(0, 1), "params": Scale(1.0, 10.0), "epochs": Fidelity(1, 9)}
    optimize(train, space, budget=Budget(trials=3))
    assert len({ctx.seed for ctx in seen}) == 3


def test_unbounded_logit_and_conditional_parameters_are_stored_whole(folder: Path) -> None:
    space = SearchSpace(
        {
            "free": Float(center=3.0, spread=2.0),
            "beta": Float(0.9, 0.9999, logit=True),
            "width": Int(8, 4096, log=True, multiple_of=8),
            "layers": Int(4, 28, multiple_of=4),
            "kind": Categorical(["a", "b", None, 3]),
            "extra": Float(0.1, 1.0, when=("kind", ["a"])),
        }
    )
    first = optimize(lambda c, ctx: c["free"], space, budget=Budget(trials=12), name="n")
    again = optimize(lambda c, ctx: c["free"], space, budget=Budget(trials=12), name="n")
    assert asks(again) == asks(first)
    assert [list(config) for _, config in asks(again)] == [list(c) for _, c in asks(first)]


def test_a_scheduler_stops_trials_by_their_reports() -> None:
    class Impatient(StoppingRule):
        def stops(self, trial: Trial, report: Report, log: TrialLog, sign: float) -> bool:
            return report.step >= 2 and trial.number > 0

    def train(config: Config, ctx: Context) -> float:
        for step in range(5):
            ctx.report(step=step, loss=5.0 - step)
        return 0.0

    result = optimize(train, SPACE, budget=Budget(trials=3), scheduler=Impatient())
    assert [o.loss for o in result.log.observations] == [0.0, 3.0, 3.0]


# --- confirmation --------------------------------------------------------------------------------


def test_confirming_runs_come_on_top_of_the_budget_and_only_once(folder: Path) -> None:
    scales: list[float] = []

    def train(config: Config, ctx: Context) -> dict[str, float]:
        scales.append(ctx.scale["params"])
        ctx.report(step=0, cost=config["params"])
        return {"loss": config["x"] ** 2 + config["params"] ** -0.3, "cost": config["params"]}

    space = {"x": Float(-1.0, 1.0), "params": Scale(1.0, 100.0)}

    def run(trials: int) -> Result:
        return optimize(
            train,
            space,
            budget=Budget(trials=trials, per_trial=500.0),
            cost="flops",
            target={"params": 1e4},
            confirm=2,
            name="n",
        )

    first = run(8)
    assert scales[8:] == [1e4, 1e4]
    assert all(o.status is Status.COMPLETED for o in first.log.observations)
    run(8)
    assert len(scales) == 10
    run(10)
    assert len(scales) == 14 and scales[12:] == [1e4, 1e4]


# --- resume --------------------------------------------------------------------------------------


def test_a_study_in_parts_asks_the_same_as_a_study_in_one_piece(folder: Path) -> None:
    def run(trials: int, name: str) -> Result:
        return optimize(bowl, SPACE, budget=Budget(trials=trials), cost="flops", name=name, seed=2)

    whole = run(14, "whole")
    for trials in (3, 4, 9, 14):
        parts = run(trials, "parts")
    assert asks(parts) == asks(whole)
    assert parts.best == whole.best


def test_a_finished_study_returns_at_once_without_running_anything(folder: Path) -> None:
    optimize(bowl, SPACE, budget=Budget(trials=3), cost="flops", name="n")
    recorder = Recorder()
    result = optimize(
        lambda config, ctx: pytest.fail("it ran"),
        SPACE,
        budget=Budget(trials=3),
        cost="flops",
        name="n",
        callbacks=[recorder],
    )
    assert len(result.log) == 3
    assert recorder.events == [("start", 3), ("finish", 3)]


def test_driving_time_adds_up_over_calls(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> float:
        time.sleep(0.1)
        return 1.0

    for trials in (3, 6):
        optimize(train, SPACE, budget=Budget(trials=trials), name="n")
    recorder = Recorder()
    result = optimize(train, SPACE, budget=Budget(seconds=0.5), name="n", callbacks=[recorder])
    assert len(result.log) == 6
    assert recorder.events == [("start", 6), ("finish", 6)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": SPACE | {"x": Float(-2.0, 1.0)}}, "`x`: low is -2.0, was -1.0"),
        ({"space": SPACE | {"y": Int(1, 2)}}, "`y` is new"),
        ({"direction": "maximize"}, "direction='minimize', got direction='maximize'"),
        ({"cost": "seconds"}, "cost='flops', got cost='seconds'"),
    ],
    ids=["bound", "parameter", "direction", "cost"],
)
def test_a_resumed_study_that_differs_is_refused_and_nothing_is_lost(
    change: dict[str, Any], message: str, folder: Path
) -> None:
    arguments: dict[str, Any] = {
        "train_fn": bowl,
        "space": SPACE,
        "budget": Budget(trials=3),
        "cost": "flops",
        "name": "n",
    }
    before = optimize(**arguments)
    with pytest.raises(StudyError, match=message) as refused:
        optimize(**(arguments | change | {"budget": Budget(trials=5)}))
    assert "another name=" in str(refused.value)
    assert asks(optimize(**arguments)) == asks(before)


def test_a_study_of_a_newer_schema_or_of_someone_else_is_refused(folder: Path) -> None:
    url = f"sqlite:///{folder}/scaletune.db"
    optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="newer")
    study = optuna.load_study(study_name="newer", storage=url)
    study.set_user_attr("scaletune:study", study.user_attrs["scaletune:study"] | {"schema": 99})
    with pytest.raises(StudyError, match="newer scaletune .*upgrade"):
        optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="newer")
    foreign = optuna.create_study(study_name="foreign", storage=url)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(StudyError, match="was not made by optimize"):
        optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="foreign")
    assert len(foreign.trials) == 1


def test_a_storage_object_and_several_names_in_one_file_work(folder: Path) -> None:
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder}/mine.db")
    first = optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="a", storage=storage)
    second = optimize(
        bowl, SPACE, budget=Budget(trials=3), cost="flops", name="b/c", storage=storage, seed=1
    )
    again = optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="a", storage=storage)
    assert asks(again) == asks(first) != asks(second)[:2]


def test_optuna_sees_values_states_and_reports(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, float]:
        ctx.report(step=5, loss=3.0)
        if ctx.trial.number == 1:
            raise RuntimeError
        return {"loss": 2.0, "cost": 1.0}

    result = optimize(train, SPACE, budget=Budget(trials=2), cost="flops", name="n")
    assert result.study is not None
    done, failed = result.study.trials
    assert (done.state.name, done.value, done.intermediate_values) == ("COMPLETE", 2.0, {5: 3.0})
    assert failed.state.name == "FAIL"
    assert result.study.best_trial.number == 0
    assert set(done.params) == {"x", "kind"}


def test_optuna_keeps_its_verbosity_and_says_nothing(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    before = optuna.logging.get_verbosity()
    optimize(bowl, SPACE, budget=Budget(trials=2), cost="flops", name="n")
    assert optuna.logging.get_verbosity() == before
    assert capfd.readouterr() == ("", "")


# --- one writer per trial ------------------------------------------------------------------------


def open_journal(storage: optuna.storages.BaseStorage) -> Journal:
    return Journal.open(
        name="n",
        storage=storage,
        space=SearchSpace(SPACE),
        direction="minimize",
        cost="flops",
        seed=0,
    )


def started(journal: Journal, lease: Lease, attempt: int = 0) -> Trial:
    """A running trial of a driver that holds `lease`."""
    config = {"x": 0.25, "kind": "a"}
    distributions = SearchSpace(SPACE).distributions(config, {})
    return journal.ask(Asked(0, 0, lease.owner, after=0, attempt=attempt), config, distributions)


def result_of(trial: Trial, loss: float) -> Observation:
    return Observation(
        trial.number, trial.config, loss, 2.0, Status.COMPLETED, None, 0, trial.ask_index
    )


def resume(storage: optuna.storages.BaseStorage) -> Result:
    return optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", name="n", storage=storage)


def test_a_result_written_just_before_the_kill_is_kept(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    journal, lease = open_journal(storage), Lease.take()
    journal.keep(0, lease)
    trial = started(journal, lease)
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
    journal.keep(0, lease.released())
    (observation,) = resume(storage).log.observations
    assert observation.loss == 0.125
    assert storage.get_trial(identity).state.name == "COMPLETE"
    assert storage.get_trial(identity).value == 0.125


def test_a_driver_whose_trial_was_taken_over_cannot_tell_it_any_more(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    journal, lease = open_journal(storage), Lease.take()
    trial = started(journal, lease)
    result = resume(storage)
    assert not journal.tell(result_of(trial, 99.0), driven=0.0, text="")
    lost, retried = result.log.observations
    assert lost.number == trial.number and lost.cause is not None and lost.cause.value == "lost"
    assert retried.config == trial.config and retried.ask_index == trial.ask_index
    assert asks(resume(storage)) == asks(result)


def test_a_trial_of_a_living_driver_is_left_alone(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    journal, lease = open_journal(storage), Lease.take()
    assert journal.claim(lease) == 0
    trial = started(journal, lease)
    result = optimize(bowl, SPACE, budget=Budget(trials=3), cost="flops", name="n", storage=storage)
    assert [t.number for t in result.log.pending] == [trial.number]
    assert len(result.log) == 2
    stored = [entry.asked.driver for entry in journal.entries()]
    assert stored == [0, 1, 1]
    assert journal.tell(result_of(trial, 1.0), driven=0.0, text="")


def test_a_third_loss_of_the_driver_makes_an_error(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    journal, lease = open_journal(storage), Lease.take()
    started(journal, lease, attempt=2)
    (failed,) = resume(storage).log.observations
    assert failed.cause is not None and failed.cause.value == "error"


def test_a_loss_whose_continuation_was_never_written_is_continued(folder: Path) -> None:
    storage = optuna.storages.RDBStorage("sqlite:///a.db")
    journal, lease = open_journal(storage), Lease.take()
    trial = started(journal, lease)
    assert journal.lose(trial.number, order=0)
    assert not journal.lose(trial.number, order=0)
    lost, retried = resume(storage).log.trials
    assert retried.parent == lost.number and retried.config == lost.config


@pytest.mark.parametrize("size", [0, 1999, 2000, 5000, 12345])
def test_long_attributes_are_split_below_the_limit_and_read_back(size: int) -> None:
    rng = random.Random(size)
    value = {"text": "".join(rng.choice('a"\\\n\u00e9') for _ in range(size))}
    parts = _split("key", value)
    assert parts[-1][0] == "key"
    assert all(len(json.dumps(part)) <= 2045 for _, part in parts)
    assert _read(dict(parts), "key") == value


# --- leases --------------------------------------------------------------------------------------


def test_a_lease_of_this_process_holds_whatever_the_clock_says_until_it_is_released() -> None:
    lease = Lease.take()
    late = Lease(lease.owner, lease.machine, lease.pid, lease.born, expires=1.0)
    assert lease.alive and late.alive
    assert not lease.released().alive
    assert Lease.from_json(json.loads(json.dumps(lease.to_json()))) == lease


def test_a_lease_of_a_dead_or_reused_process_here_is_void_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        dead = process.pid
    lease = Lease.take()
    assert not Lease("o", lease.machine, dead, 5, lease.expires).alive
    assert not Lease("o", lease.machine, lease.pid, lease.born + 1, lease.expires).alive


def test_a_lease_from_elsewhere_holds_until_it_expires() -> None:
    assert Lease("o", "elsewhere", 1, 1, time.time() + 5).alive
    assert not Lease("o", "elsewhere", 1, 1, time.time() - 5).alive


# --- interrupts ----------------------------------------------------------------------------------


def interrupted(
    folder: Path, number: signal.Signals, workers: int, wait: Callable[[], bool]
) -> dict[str, Any]:
    """What a script said whose study was interrupted by `number` once `wait()` holds."""
    script = folder / "script.py"
    script.write_text(
        textwrap.dedent("""
            import json, signal, sys, time
            from pathlib import Path
            from hpo import Budget, Float, optimize

            # a shell that starts the tests in the background has SIGINT ignored by all below it
            signal.signal(signal.SIGINT, signal.default_int_handler)
            folder = Path(sys.argv[1])

            def train(config, ctx):
                state = ctx.load() or {"step": 0}
                for step in range(state["step"], 400 if ctx.trial.number >= 3 else 2):
                    ctx.save({"step": step + 1})
                    (folder / f"trial-{ctx.trial.number}").touch()
                    time.sleep(0.05)
                    try:
                        ctx.report(step=step, loss=1.0)
                    except Exception:
                        pass
                return 1.0

            began = time.monotonic()
            result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=40),
                              workers=int(sys.argv[2]), name="n")
            states = [trial.state.name for trial in result.study.trials]
            print(json.dumps({"told": len(result.log), "states": states}))
        """)
    )
    process = subprocess.Popen(
        [sys.executable, str(script), str(folder), str(workers)],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    until = time.monotonic() + 60
    while not wait() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(number)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 0
    said: dict[str, Any] = json.loads(output)
    return said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_interrupt_returns_the_result_so_far_and_the_next_call_goes_on(
    folder: Path, number: signal.Signals, workers: int
) -> None:
    said = interrupted(folder, number, workers, lambda: (folder / "trial-3").exists())
    assert said["told"] == 3
    assert said["states"][:3] == ["COMPLETE"] * 3
    assert set(said["states"][3:]) == {"RUNNING"}
    steps: list[int] = []

    def train(config: Config, ctx: Context) -> float:
        state = ctx.load()
        if state is not None:
            steps.append(state["step"])
        return 1.0

    result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=6), name="n")
    running = len(said["states"]) - 3
    assert len(steps) == running and min(steps) >= 1
    retried = [trial for trial in result.log.trials if trial.parent is not None]
    assert len(retried) == running
    assert result.study is not None
    for trial in retried:
        asked = result.study.trials[trial.number].user_attrs["scaletune:asked"]
        assert asked["attempt"] == 0
    assert sum(o.cause is None for o in result.log.observations) == 6


def test_handlers_of_the_user_are_left_alone_and_ours_are_taken_back() -> None:
    def mine(number: int, frame: object) -> None:
        raise AssertionError

    seen: list[Any] = []

    def train(config: Config, ctx: Context) -> float:
        seen.append((signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)))
        return 1.0

    before = signal.getsignal(signal.SIGINT), signal.signal(signal.SIGTERM, mine)
    try:
        optimize(train, SPACE, budget=Budget(trials=1))
        assert signal.getsignal(signal.SIGTERM) is mine
        assert seen[0][1] is mine
        assert signal.getsignal(signal.SIGINT) is before[0]
    finally:
        signal.signal(signal.SIGTERM, before[1])


# --- callbacks and progress ----------------------------------------------------------------------


def test_callbacks_hear_of_every_step_in_order() -> None:
    def train(config: Config, ctx: Context) -> float:
        ctx.report(step=0, loss=2.0)
        return 1.0

    recorder = Recorder()
    optimize(train, SPACE, budget=Budget(trials=2), callbacks=[recorder])
    assert [event for event, _ in recorder.events] == [
        "start", *["trial", "report", "end"] * 2, "finish"
    ]  # fmt: skip


def test_an_error_in_a_callback_ends_the_study_with_everything_told_in_place(
    folder: Path,
) -> None:
    class Faulty(Callback):
        def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
            if trial.number == 1:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        optimize(bowl, SPACE, budget=Budget(trials=5), cost="flops", name="n", callbacks=[Faulty()])
    result = optimize(bowl, SPACE, budget=Budget(trials=5), cost="flops", name="n")
    assert [o.number for o in result.log.observations] == list(range(5))


def test_the_live_view_shows_trials_loss_spend_front_and_time_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with open(os.devnull, "w") as nowhere:
        console = Console(force_terminal=True, width=100, file=nowhere, record=True)
        optimize(
            bowl,
            SPACE,
            budget=Budget(trials=3, cost=60.0),
            cost="flops",
            callbacks=[Progress(console=console)],
        )
        shown = console.export_text()
    for words in (
        "trials",
        "3 / 3",
        "cost",
        "6 / 60",
        "0 failed",
        "best loss",
        "front",
        "time to go",
    ):
        assert words in shown
    optimize(bowl, SPACE, budget=Budget(trials=1), cost="flops", callbacks=[Progress()])
    assert capsys.readouterr().out == ""


def test_maximising_shows_and_returns_the_largest(folder: Path) -> None:
    result = optimize(
        lambda config, ctx: {"loss": float(np.exp(-(config["x"] ** 2))), "cost": 1.0},
        {"x": Float(-1.0, 1.0)},
        budget=Budget(trials=15),
        cost="flops",
        direction="maximize",
        name="n",
    )
    assert result.best.loss > 0.95
    assert result.study is not None and result.study.best_value > 0.95


def test_drivers_that_start_at_once_get_different_indices(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    space = SearchSpace({"x": Float(0.0, 1.0)})

    def opened() -> Journal:
        return Journal.open(
            name="n",
            storage=storage,
            space=space,
            direction="minimize",
            cost=None,
            seed=0,
            scheduler=None,
        )

    journals = [opened() for _ in range(6)]
    together = threading.Barrier(len(journals))

    def claim(journal: Journal) -> int:
        lease = Lease.take()
        together.wait()
        return journal.claim(lease)

    with ThreadPoolExecutor(len(journals)) as pool:
        indices = list(pool.map(claim, journals))
    assert sorted(indices) == list(range(len(journals)))


@pytest.mark.parametrize("name", ["..", ".", "../..", "0", "a/b", "名" * 120])
def test_no_name_of_a_study_touches_folders_of_its_user(folder: Path, name: str) -> None:
    home = folder / "deep" / "home"
    for place in (folder, home.parent, home):
        for number in ("0", "1", "2"):
            (place / number).mkdir(parents=True)
            (place / number / "precious.txt").write_text("thesis")

    def train(config: Config, ctx: Context) -> float:
        ctx.save({"x": config["x"]})
        return float(config["x"])

    storage = f"sqlite:///{home / 'runs.db'}"
    result = optimize(train, SPACE, budget=Budget(trials=3), name=name, storage=storage)
    assert all(o.cause is None for o in result.log.observations)
    assert len(list(folder.rglob("precious.txt"))) == 9
    assert not list(folder.rglob("state.pt"))  # what was made for the runs went with them


def test_a_study_begun_again_under_an_old_name_never_loads_an_old_checkpoint(
    folder: Path,
) -> None:
    strangers: list[int] = []

    def train(config: Config, ctx: Context) -> float:
        state = ctx.load() or {"epochs": 0, "x": config["x"]}
        if state["x"] != config["x"]:
            strangers.append(ctx.trial.number)
        assert ctx.fidelity is not None
        for epoch in range(state["epochs"] + 1, ctx.fidelity + 1):
            state["epochs"] = epoch
            ctx.save(state)
            ctx.report(step=epoch, loss=(state["x"] - 0.3) ** 2 + 1 / epoch)
        return float((state["x"] - 0.3) ** 2 + 1 / ctx.fidelity)

    def begin(seed: int, storage: str | BaseStorage | None = None) -> list[Path]:
        space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
        optimize(
            train,
            space,
            budget=Budget(trials=6),
            scheduler=ASHA(),
            name="s",
            seed=seed,
            storage=storage,
        )
        return list(folder.rglob("state.pt"))

    assert begin(1)  # some runs are paused, so there is something to mistake
    (folder / "scaletune.db").unlink()
    begin(2)
    optuna.delete_study(study_name="s", storage="sqlite:///scaletune.db")
    begin(3)
    begin(4, InMemoryStorage())
    begin(5, InMemoryStorage())
    begin(6, optuna.storages.RDBStorage("sqlite:///a.db"))
    begin(7, optuna.storages.RDBStorage("sqlite:///b.db"))
    begin(8, "sqlite:///x.db")
    begin(9, "sqlite:///x.sqlite3")
    assert strangers == []


def test_a_paused_run_still_goes_on_from_its_checkpoint_in_the_next_call(folder: Path) -> None:
    begun: dict[int, list[int]] = {}

    def train(config: Config, ctx: Context) -> float:
        done = (ctx.load() or {"epochs": 0})["epochs"]
        begun.setdefault(ctx.trial.ask_index, []).append(done)
        ctx.save({"epochs": ctx.fidelity})
        return float((config["x"] - 0.3) ** 2 + 1 / (ctx.fidelity or 1))

    space = {"x": Float(0, 1), "epochs": Fidelity(1, 9)}
    for cost in (4.0, 40.0):
        optimize(
            lambda config, ctx: {"loss": train(config, ctx), "cost": float(config["epochs"])},
            space,
            budget=Budget(cost=cost),
            cost="epochs",
            scheduler=ASHA(),
            name="s",
        )
    assert any(len(starts) > 1 for starts in begun.values())
    assert all(starts in ([0], [0, 1], [0, 1, 3]) for starts in begun.values())
