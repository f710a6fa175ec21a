"""Processes of trials where there is no fork server, as on Windows."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest

from hpo import Budget, Context, Float, Limits, ProcessRunner, optimize
from hpo.study.processes.system import OWN_SIGNALS, default_start_method
from hpo.study.runners import Runner
from tests.contracts.runner import RunnerContract

SPACE = {"x": Float(0.0, 1.0)}


def train(config: dict[str, Any], ctx: Context) -> dict[str, float]:
    ctx.report(step=1, loss=config["x"])
    if ctx.trial.number == 0:
        time.sleep(600)
    if ctx.trial.number == 1:
        os._exit(7)
    torch_was_loaded = float("torch" in sys.modules)
    return {"loss": config["x"], "pid": float(os.getpid()), "torch": torch_was_loaded}


def test_a_study_runs_in_processes_that_are_spawned() -> None:
    result = optimize(
        train,
        SPACE,
        budget=Budget(trials=3, per_trial=Limits(seconds=1.0)),
        workers=2,
        runner=ProcessRunner(start_method="spawn"),
    )
    runs = [o for o in result.log.runs if o.cause is None]
    assert len({o.metrics["pid"] for o in runs} | {float(os.getpid())}) == len(runs) + 1
    assert {o.metrics["torch"] for o in runs} == {0.0}  # no fork server has preloaded it
    causes = {o.number: o.cause and o.cause.value for o in result.log.observations}
    assert causes[0] == "timeout" and causes[1] == "lost"
    assert 1 in {trial.parent for trial in result.log.trials}  # it was tried again


def test_processes_are_spawned_where_there_is_no_fork_server(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert default_start_method() == "forkserver"
    monkeypatch.setattr(multiprocessing, "get_all_start_methods", lambda: ["spawn"])
    assert default_start_method() == "spawn"
    with pytest.raises(ValueError, match=r"`start_method` must be one of \['spawn'\]"):
        ProcessRunner(start_method="forkserver")


def test_a_forked_driver_is_no_way_to_start_trials() -> None:
    with pytest.raises(ValueError, match=r"\['forkserver', 'spawn'\], got 'fork'"):
        ProcessRunner(start_method="fork")


def test_signals_of_the_process_itself_are_those_of_the_system() -> None:
    assert signal.SIGSEGV in OWN_SIGNALS and signal.SIGKILL not in OWN_SIGNALS


@pytest.mark.slow
class TestSpawnedRunner(RunnerContract):
    @pytest.fixture
    def make(self) -> Callable[[], Runner]:
        return lambda: ProcessRunner(start_method="spawn")
