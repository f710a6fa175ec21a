"""Disks, databases, clocks and training functions that misbehave: each has one clear outcome."""

import ast
import heapq
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import OperationalError

from hpo import (
    ASHA,
    Budget,
    Categorical,
    Context,
    Fidelity,
    Float,
    FreezeThaw,
    Int,
    Optimizer,
    ProcessRunner,
    Report,
    StagedOptimizer,
    StudyError,
    Trial,
    load_result,
    optimize,
)
from hpo.schedulers import ASHAVariant, Decision, Scheduler
from hpo.study.checkpoints import load_state

ROOT = Path(__file__).parents[2]
SPACE = {"x": Float(0, 1), "y": Float(0, 1)}


def bowl(config: dict[str, Any], ctx: Context) -> float:
    return float((config["x"] - 0.3) ** 2 + config["y"])


@pytest.fixture
def url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    return f"sqlite:///{tmp_path / 'study.db'}"


# --- the storage ----------------------------------------------------------------------------------


def test_a_full_disk_ends_in_one_error_and_the_study_continues_where_there_is_room(
    url: str,
) -> None:
    optimize(bowl, SPACE, budget=Budget(trials=3), name="s", storage=url)
    storage = RDBStorage(url)

    @event.listens_for(storage.engine, "connect")
    def fill(connection: sqlite3.Connection, record: object) -> None:
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")

    storage.engine.dispose()
    with pytest.raises(StudyError, match="database or disk is full") as refused:
        optimize(bowl, SPACE, budget=Budget(trials=400), name="s", storage=storage)
    assert "\n" not in str(refused.value) and "still there" in str(refused.value)
    storage.engine.dispose()
    before = {o.number: o.loss for o in load_result("s", storage=url).log.observations}
    before = {number: loss for number, loss in before.items() if loss is not None}
    assert len(before) >= 3
    budget = Budget(trials=len(before) + 2)
    log = optimize(bowl, SPACE, budget=budget, name="s", storage=url).log
    after = {o.number: o.loss for o in log.observations if o.loss is not None}
    assert before.items() <= after.items() and len(after) == len(before) + 2


def test_a_read_only_database_is_refused_and_left_as_it_is(url: str, tmp_path: Path) -> None:
    optimize(bowl, SPACE, budget=Budget(trials=3), name="s", storage=url)
    content = (tmp_path / "study.db").read_bytes()
    read_only = f"sqlite:///file:{tmp_path / 'study.db'}?mode=ro&uri=true"
    with pytest.raises(StudyError, match="readonly") as refused:
        optimize(bowl, SPACE, budget=Budget(trials=5), name="s", storage=read_only)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "study.db").read_bytes() == content


class Silenced(RDBStorage):
    """Stores what it is given, but loses the connection before it can say so, now and then."""

    left = 0

    def create_new_trial(self, *args: Any, **kwargs: Any) -> int:
        identity = super().create_new_trial(*args, **kwargs)
        self._lose()
        return identity

    def set_trial_state_values(self, *args: Any, **kwargs: Any) -> bool:
        changed = super().set_trial_state_values(*args, **kwargs)
        self._lose()
        return changed

    def _lose(self) -> None:
        self.left += 1
        if self.left % 3 == 0:
            gone = Exception("server closed the connection unexpectedly")
            raise OperationalError("", None, gone, connection_invalidated=True)


def test_a_write_whose_answer_was_lost_is_not_made_twice(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    storage = Silenced(url)
    result = optimize(
        lambda config, ctx: config["x"] ** 2,
        {"x": Float(0, 1)},
        budget=Budget(trials=6),
        name="s",
        storage=storage,
    )
    assert storage.left == 12  # six created, six told
    calm = optimize(
        lambda config, ctx: config["x"] ** 2, {"x": Float(0, 1)}, budget=Budget(trials=6)
    )
    assert [t.config for t in result.log.trials] == [t.config for t in calm.log.trials]
    assert [o.loss for o in result.log.observations] == [o.loss for o in calm.log.observations]


def test_a_clock_that_jumps_by_days_changes_nothing(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calm = optimize(bowl, SPACE, budget=Budget(trials=8), name="calm", storage=url)
    jumps, clock = random.Random(0), time.time
    monkeypatch.setattr(time, "time", lambda: clock() + jumps.uniform(-3e5, 3e5))
    jumpy = optimize(bowl, SPACE, budget=Budget(trials=8, seconds=300), name="jumpy", storage=url)
    assert [o.config for o in jumpy.log.observations] == [o.config for o in calm.log.observations]
    assert all(o.seconds is not None and o.seconds < 60 for o in jumpy.log.observations)


def test_a_checkpoint_that_does_not_fit_is_no_result_and_the_old_one_is_kept(
    url: str, tmp_path: Path
) -> None:
    import torch

    def train(config: dict[str, Any], ctx: Context) -> float:
        import resource

        ctx.save({"step": 1})
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        try:
            ctx.save({"step": torch.zeros(100_000)})
        except OSError:
            state = ctx.load()
            assert state == {"step": 1}
            raise
        return 0.0

    with pytest.raises(StudyError, match="File too large"):
        optimize(train, SPACE, budget=Budget(trials=1), workers=2, name="s", storage=url)
    first, second, third = optuna.load_study(study_name="s", storage=url).trials
    assert "File too large" in first.user_attrs["scaletune:lost"]["text"]
    assert "scaletune:told" not in third.user_attrs  # left to the next call
    (root,) = (tmp_path / "study_checkpoints").iterdir()
    assert load_state(root / str(third.number)) is not None


# --- the training function ------------------------------------------------------------------------


def test_megabytes_on_both_streams_block_nothing() -> None:
    def train(config: dict[str, Any], ctx: Context) -> float:
        for step in range(4):
            sys.stdout.write("x" * 1_000_000 + "\n")
            sys.stderr.write("y" * 1_000_000 + "\n")
            ctx.report(step=step, loss=1.0)
        return 0.5

    result = optimize(train, SPACE, budget=Budget(trials=2), workers=2)
    assert [o.loss for o in result.log.observations] == [0.5, 0.5]


def test_a_function_that_forks_counts_once_whoever_returns() -> None:
    def train(config: dict[str, Any], ctx: Context) -> float:
        child = os.fork()
        if child == 0:
            time.sleep(0.1)
            return 99.0  # the child comes back here, too
        os.waitpid(child, 0)
        return 0.5

    result = optimize(train, SPACE, budget=Budget(trials=3), workers=2)
    assert [o.loss for o in result.log.observations] == [0.5] * 3


def test_nested_metrics_are_refused_by_name() -> None:
    def returns(config: dict[str, Any], ctx: Context) -> Any:
        return {"loss": 1.0, "eval": {"accuracy": 0.5}}

    def reports(config: dict[str, Any], ctx: Context) -> float:
        ctx.report(step=0, loss=1.0, metrics={"eval": {"accuracy": 0.5}})
        return 1.0

    for train in (returns, reports):
        with pytest.raises(TypeError, match="metric 'eval'"):
            optimize(train, SPACE, budget=Budget(trials=1))


def test_a_worker_told_to_terminate_is_continued_from_what_it_saved(url: str) -> None:
    def train(config: dict[str, Any], ctx: Context) -> float:
        state = ctx.load() or {"step": 0, "lives": 0}
        state["lives"] += 1
        for step in range(state["step"] + 1, 21):
            if step == 10 and state["lives"] == 1:
                os.kill(os.getpid(), signal.SIGTERM)
            state["step"] = step
            ctx.save(state)
            ctx.report(step=step, loss=1.0 / step)
        return float(state["lives"])

    result = optimize(train, SPACE, budget=Budget(trials=1), workers=2, name="s", storage=url)
    (done,) = [o for o in result.log.observations if o.loss is not None]
    assert done.loss == 2.0
    lost, told = optuna.load_study(study_name="s", storage=url).trials
    assert lost.state.name == "FAIL" and "scaletune:lost" in lost.user_attrs
    assert told.user_attrs["scaletune:asked"]["parent"] == lost.number


# --- many workers ---------------------------------------------------------------------------------


def test_sixty_four_asynchronous_workers_get_no_duplicate_in_a_continuous_space() -> None:
    engine, rng = Optimizer(SPACE, seed=0), np.random.default_rng(0)
    running = [engine.ask() for _ in range(64)]
    asked = [tuple(trial.config.values()) for trial in running]
    for _ in range(40):
        trial = running.pop(int(rng.integers(len(running))))
        engine.tell(trial, (trial.config["x"] - 0.3) ** 2 + trial.config["y"])
        running.append(engine.ask())
        asked.append(tuple(running[-1].config.values()))
    assert len(set(asked)) == len(asked)


@pytest.mark.parametrize(
    "scheduler",
    [ASHA(), ASHA(kind=ASHAVariant.STOPPING), FreezeThaw()],
    ids=["asha", "stops", "thaws"],
)
def test_none_of_sixty_four_workers_is_ever_left_idle(scheduler: Scheduler) -> None:
    """Under a virtual clock: a worker that becomes free gets a stage from the very next ask."""
    space = SPACE | {"epochs": Fidelity(1, 27)}
    engine, rng = StagedOptimizer(Optimizer(space, seed=0), scheduler), np.random.default_rng(0)
    busy: list[tuple[float, int]] = []  # when each stage makes its next report, and its trial
    running: dict[int, Trial] = {}
    epochs: dict[int, int] = {}  # that each trial has behind it
    asked: list[tuple[Any, ...]] = []

    def employ(now: float) -> None:
        trial = engine.ask()
        assert trial is not None, f"a worker is idle at {now}"
        if trial.number not in epochs:
            asked.append((trial.config["x"], trial.config["y"]))
            epochs[trial.number] = 0
        running[trial.number] = trial
        heapq.heappush(busy, (now + rng.lognormal(), trial.number))

    for _ in range(64):
        employ(0.0)
    for _ in range(160):
        now, number = heapq.heappop(busy)
        trial = running[number]
        assert trial.assignment is not None
        epoch = epochs[number] = epochs[number] + 1
        loss = (trial.config["x"] - 0.3) ** 2 + trial.config["y"] + 1.0 / epoch
        decision = engine.report(trial, Report(epoch, loss))
        if decision is Decision.CONTINUE and epoch < trial.assignment.level:
            heapq.heappush(busy, (now + rng.lognormal(), number))
            continue
        del running[number]
        engine.tell(trial, loss, float(epoch), stopped=decision is Decision.STOP)
        employ(now)
    assert len(running) == 64
    assert len(set(asked)) == len(asked)


def test_workers_repeat_a_config_of_a_small_space_only_when_all_were_asked() -> None:
    space = {"a": Int(0, 5), "b": Categorical(["p", "q", "r", "s"])}  # 24 configs
    engine, rng = Optimizer(space, seed=0), np.random.default_rng(0)
    running = [engine.ask() for _ in range(16)]
    asked = [tuple(trial.config.values()) for trial in running]
    while len(asked) < 30:
        trial = running.pop(int(rng.integers(len(running))))
        engine.tell(trial, float(trial.config["a"]))
        running.append(engine.ask())
        asked.append(tuple(running[-1].config.values()))
    assert len(set(asked[:24])) == 24


@pytest.mark.slow
def test_ten_thousand_trials_are_asked_within_a_second_and_a_gibibyte() -> None:
    import resource

    space = {f"x{i}": Float(0, 1) for i in range(8)}
    engine, rng = Optimizer(space, seed=0), np.random.default_rng(0)
    for number, x in enumerate(rng.random((10_000, 8))):
        config = {f"x{i}": float(v) for i, v in enumerate(x)}
        trial = Trial(number, config, number, None)
        engine.add_pending(trial)
        engine.tell(trial, float(np.sum((x - 0.4) ** 2)))
    rebuilt = time.process_time()
    for _ in range(2):
        engine.ask()  # the first one refits everything, as after a restart
    assert time.process_time() - rebuilt < 20.0
    engine.ask()  # by turns, on differently transformed losses
    began = time.process_time()
    for _ in range(3):
        engine.tell(engine.ask(), 0.1)
    assert (time.process_time() - began) / 3 < 1.0
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < 2**20  # KiB


def lengthen(file: Path, study: str, trials: int) -> None:
    """Copy the first trial of a stored study until there are so many, each with its own values."""
    rng = np.random.default_rng(0)
    with closing(sqlite3.connect(file)) as db, db:
        (last,) = db.execute("SELECT max(trial_id) FROM trials").fetchone()
        (first,) = db.execute(
            "SELECT trial_id FROM trials JOIN studies USING (study_id) "
            "WHERE study_name = ? AND number = 0",
            (study,),
        ).fetchone()
        attributes = dict(
            db.execute(
                "SELECT key, value_json FROM trial_user_attributes WHERE trial_id = ?", (first,)
            ).fetchall()
        )
        for index in range(1, trials):
            trial, loss = last + index, float(rng.random())
            db.execute(
                "INSERT INTO trials SELECT ?, ?, study_id, state, datetime_start, "
                "datetime_complete FROM trials WHERE trial_id = ?",
                (trial, index, first),
            )
            db.execute(
                "INSERT INTO trial_values (trial_id, objective, value, value_type) "
                "VALUES (?, 0, ?, 'FINITE')",
                (trial, loss),
            )
            db.execute(
                "INSERT INTO trial_params (trial_id, param_name, param_value, distribution_json) "
                "SELECT ?, param_name, abs(random() % 1000000) / 1e6, distribution_json "
                "FROM trial_params WHERE trial_id = ?",
                (trial, first),
            )
            asked = json.loads(attributes["scaletune:asked"]) | {"ask_index": index, "after": index}
            told = json.loads(attributes["scaletune:told"]) | {"order": index, "loss": loss}
            for key, value in (("scaletune:asked", asked), ("scaletune:told", told)):
                db.execute(
                    "INSERT INTO trial_user_attributes (trial_id, key, value_json) "
                    "VALUES (?, ?, ?)",
                    (trial, key, json.dumps(value)),
                )


@pytest.mark.slow
def test_a_study_of_ten_thousand_trials_is_resumed_within_twenty_seconds(url: str) -> None:
    """Imports, reading and replaying. The first ask comes on top: it refits what was cached."""
    script = """
import resource, sys, time
began = time.process_time()
from hpo import Budget, Float, optimize
from hpo.study.callbacks import Callback

class Clock(Callback):
    def on_start(self, run):
        print(len(run.log), time.process_time() - began)

    def on_trial_start(self, run, trial):
        print(time.process_time() - began, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)

def train(config, ctx):
    for step in range(5):
        ctx.report(step=step, loss=1.0)
    return 1.0

space = {f"x{i}": Float(0, 1) for i in range(8)}
optimize(train, space, budget=Budget(trials=int(sys.argv[2])), name="s", storage=sys.argv[1],
         callbacks=[Clock()])
"""

    def run(trials: int) -> list[float]:
        command = [sys.executable, "-c", script, url, str(trials)]
        said = subprocess.run(
            command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, check=True
        )
        return [float(word) for word in said.stdout.split()]

    run(1)
    lengthen(Path(url.removeprefix("sqlite:///")), "s", 10_000)
    known, resumed, asked, memory = run(10_001)
    assert known == 10_000
    assert resumed < 20.0
    assert asked < 40.0
    assert memory < 2**20  # KiB


# --- what must not be there -----------------------------------------------------------------------


@cache
def all_calls() -> list[tuple[Path, str, ast.Call]]:
    """File, function as written, and node of every call in the library."""
    return [
        (path, ast.unparse(node.func), node)
        for path in (ROOT / "hpo").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]


def calls(name: str) -> list[tuple[Path, ast.Call]]:
    """Calls of `module.function` anywhere in the library."""
    return [(path, node) for path, function, node in all_calls() if function == name]


def test_checkpoints_are_read_with_weights_only() -> None:
    loads = calls("torch.load")
    assert loads
    for path, call in loads:
        named = {k.arg: ast.unparse(k.value) for k in call.keywords}
        assert named.get("weights_only") == "True", path


def test_nothing_is_unpickled_but_the_function_that_a_driver_sends_its_worker() -> None:
    places = {
        path.relative_to(ROOT).as_posix()
        for name in ("pickle.loads", "pickle.load", "cloudpickle.loads", "cloudpickle.load")
        for path, _ in calls(name)
    }
    assert places == {
        "hpo/study/process_runner.py",
        "hpo/study/processes/by_value.py",  # a trial's own classes, in what it starts
        "hpo/adapters/remote.py",
    }


def test_no_server_listens_beyond_loopback() -> None:
    for path in (ROOT / "hpo").rglob("*.py"):
        assert "0.0.0.0" not in path.read_text(), path


# --- GPUs -----------------------------------------------------------------------------------------


def test_trials_are_spread_over_the_gpus_they_may_have(tmp_path: Path) -> None:
    def train(config: dict[str, Any], ctx: Context) -> float:
        gpu = os.environ["CUDA_VISIBLE_DEVICES"]
        (tmp_path / f"{ctx.trial.number}").write_text(gpu)
        while len(list(tmp_path.iterdir())) < 4:  # all four at a time
            time.sleep(0.02)
        return float(gpu)

    runner = ProcessRunner(gpus=[3, 5], per_gpu=2)
    result = optimize(train, SPACE, budget=Budget(trials=4), workers=4, runner=runner)
    assert sorted(o.loss or 0.0 for o in result.log.observations) == [3.0, 3.0, 5.0, 5.0]


def test_more_workers_than_places_on_the_gpus_are_refused() -> None:
    with pytest.raises(ValueError, match="workers=3 do not fit"):
        optimize(bowl, SPACE, budget=Budget(trials=3), workers=3, runner=ProcessRunner(gpus=[0, 1]))
