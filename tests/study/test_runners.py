"""Runners: the shared contract, failures by their cause, and what only processes can do."""

import math
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hpo.schedulers import Decision
from hpo.study.context import Context
from hpo.study.process_runner import ProcessRunner
from hpo.study.runners import InlineRunner, Outcome, Runner, Task
from hpo.trials import Cause, Report, Status, Trial
from hpo.trials.budget import Limits
from tests.contracts.runner import Bench, Config, RunnerContract, job

REPOSITORY = Path(__file__).parents[2]


class TestInlineRunner(RunnerContract):
    @pytest.fixture
    def make(self) -> Callable[[], Runner]:
        return InlineRunner


class TestProcessRunner(RunnerContract):
    @pytest.fixture
    def make(self) -> Callable[[], Runner]:
        return ProcessRunner


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(ProcessRunner, tmp_path)
    yield bench
    bench.runner.close()


# --- what a function returns ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "returned",
    [2, 2.0, np.float32(2.0), np.int64(2), np.array(2.0), torch.tensor(2.0), {"loss": 2.0}],
    ids=lambda value: type(value).__name__,
)
def test_any_real_number_is_a_loss(returned: object, tmp_path: Path) -> None:
    (outcome,) = Bench(InlineRunner, tmp_path).run(lambda config, ctx: returned, {})
    assert outcome.status is Status.COMPLETED
    assert type(outcome.loss) is float and outcome.loss == 2.0


@pytest.mark.parametrize(
    ("returned", "error", "way_out"),
    [
        (None, TypeError, "end it with `return loss`"),
        ("0.5", TypeError, "convert it with float"),
        (True, TypeError, "convert it with float"),
        (1j, TypeError, "convert it with float"),
        (np.zeros(3), TypeError, "convert it with float"),
        ({"accuracy": 1.0}, ValueError, 'rename the objective to "loss"'),
        ({"loss": "low"}, TypeError, "convert it with float"),
        ({"loss": 1.0, "cost": -1.0}, ValueError, "cost must be finite and at least 0"),
        ({"loss": 1.0, "weights": [1]}, TypeError, "metric 'weights'"),
    ],
    ids=str,
)
def test_what_is_no_loss_is_refused_with_the_way_out(
    returned: object, error: type[Exception], way_out: str, tmp_path: Path
) -> None:
    (outcome,) = Bench(InlineRunner, tmp_path).run(lambda config, ctx: returned, {})
    assert outcome.status is Status.FAILED and outcome.cause is Cause.ERROR
    assert type(outcome.refusal) is error
    assert way_out in str(outcome.refusal)


def fails(config: Config, ctx: Context) -> float:
    ctx.report(step=0, cost=2.0)
    match config["how"]:
        case "raise":
            raise RuntimeError("the layer is too wide")
        case "exit":
            sys.exit(3)
        case "memory":
            raise MemoryError
        case "cuda":
            raise torch.OutOfMemoryError("CUDA out of memory")
        case "cpu":
            torch.empty(2**62, dtype=torch.uint8)
        case "nan report":
            ctx.report(step=1, loss=math.nan)
    return math.inf


@pytest.mark.parametrize(
    ("how", "cause", "text"),
    [
        ("raise", Cause.ERROR, "RuntimeError: the layer is too wide"),
        ("exit", Cause.ERROR, "SystemExit: 3"),
        ("memory", Cause.OOM, "MemoryError"),
        ("cuda", Cause.OOM, "CUDA out of memory"),
        ("cpu", Cause.OOM, "memory"),
        ("nan report", Cause.DIVERGED, "non-finite"),
        ("infinite loss", Cause.DIVERGED, "inf"),
    ],
)
def test_each_failure_has_its_cause_and_keeps_its_cost(
    how: str, cause: Cause, text: str, tmp_path: Path
) -> None:
    (outcome,) = Bench(InlineRunner, tmp_path).run(fails, {"how": how})
    assert (outcome.status, outcome.cause, outcome.cost) == (Status.FAILED, cause, 2.0)
    assert outcome.loss is None and outcome.refusal is None
    assert text in outcome.text


def test_keyboard_interrupt_passes_through_the_inline_runner(tmp_path: Path) -> None:
    def train(config: Config, ctx: Context) -> float:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Bench(InlineRunner, tmp_path).run(train, {})


@pytest.mark.parametrize("limits", [Limits(seconds=1.0), Limits(memory=2**30)])
def test_the_inline_runner_refuses_limits_it_cannot_enforce(limits: Limits) -> None:
    task = Task(lambda config, ctx: 0.0, None, (), limits)
    with pytest.raises(ValueError, match="leave out runner="):
        InlineRunner().open(task, workers=1)


# --- processes -----------------------------------------------------------------------------------


def test_a_function_that_cannot_be_pickled_is_refused_with_the_way_out(processes: Bench) -> None:
    lock = threading.Lock()
    with pytest.raises(TypeError, match="inside the function, or run inline"):
        processes.run(lambda config, ctx: float(lock.locked()), {})


def test_trials_run_side_by_side_in_processes_of_their_own(processes: Bench) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        began = time.monotonic()
        time.sleep(0.5)
        return {"loss": 0.0, "pid": os.getpid(), "began": began, "threads": torch.get_num_threads()}

    first, second = processes.run(train, {}, {})
    pids = {first.metrics["pid"], second.metrics["pid"], float(os.getpid())}
    assert len(pids) == 3
    assert abs(first.metrics["began"] - second.metrics["began"]) < 0.5
    cores = len(os.sched_getaffinity(0))
    assert first.metrics["threads"] == max(1, cores // 2)


def test_a_trial_over_its_time_is_killed_and_its_neighbor_is_not(processes: Bench) -> None:
    def train(config: Config, ctx: Context) -> float:
        ctx.report(step=0, cost=4.0)
        time.sleep(config["seconds"])
        return 1.0

    slow, quick = processes.run(
        train, {"seconds": 600}, {"seconds": 0.1}, limits=Limits(seconds=1.0)
    )
    assert (slow.cause, slow.cost) == (Cause.TIMEOUT, 4.0)
    assert 1.0 <= slow.seconds < 5.0
    assert "time limit" in slow.text
    assert quick.status is Status.COMPLETED


def test_a_confirming_run_is_not_bound_by_the_time_limit(processes: Bench) -> None:
    def train(config: Config, ctx: Context) -> float:
        time.sleep(0.6)
        return 1.0

    (outcome,) = processes.run(train, {}, limits=Limits(seconds=0.2), confirming=True)
    assert outcome.status is Status.COMPLETED


def test_memory_over_the_limit_is_oom_at_once_or_step_by_step(processes: Bench) -> None:
    def train(config: Config, ctx: Context) -> float:
        held = []
        for _ in range(400):
            held.append(np.ones(config["bytes"] // 8))
            time.sleep(0.02)
        return float(len(held))

    at_once, slowly = processes.run(
        train, {"bytes": 4 * 2**30}, {"bytes": 10 * 2**20}, limits=Limits(memory=700 * 2**20)
    )
    assert (at_once.status, at_once.cause) == (Status.FAILED, Cause.OOM)
    assert (slowly.status, slowly.cause) == (Status.FAILED, Cause.OOM)


@pytest.mark.parametrize("how", ["SIGKILL", "SIGSEGV", "exit"])
def test_a_worker_that_vanishes_is_lost(processes: Bench, how: str) -> None:
    def train(config: Config, ctx: Context) -> float:
        ctx.report(step=0, loss=1.0)
        if config["how"] == "exit":
            os._exit(7)
        os.kill(os.getpid(), getattr(signal, config["how"]))
        return 0.0

    (outcome,) = processes.run(train, {"how": how})
    assert (outcome.status, outcome.cause) == (Status.FAILED, Cause.LOST)
    assert len(processes.reports) == 1


def test_killing_one_trial_leaves_the_other_and_takes_its_children(processes: Bench) -> None:
    def train(config: Config, ctx: Context) -> float:
        assert ctx.checkpoint_dir is not None
        if config["long"]:
            child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            (ctx.checkpoint_dir / "child").write_text(str(child.pid))
            ctx.report(step=0)
            time.sleep(600)
        while not (ctx.checkpoint_dir.parent / "go").exists():
            time.sleep(0.05)
        return 3.0

    runner, folder = processes.runner, processes.folder
    seen: list[int] = []

    def on_report(trial: Trial, report: Report) -> Decision:
        seen.append(trial.number)
        return Decision.CONTINUE

    runner.open(Task(train, None, (), Limits()), 2)
    runner.submit(job(0, folder, long=True))
    runner.submit(job(1, folder, long=False))
    until = time.monotonic() + 60
    while not seen and time.monotonic() < until:
        assert runner.poll(0.1, on_report) == []
    runner.kill(0)
    (folder / "go").touch()
    outcomes: list[Outcome] = []
    while not outcomes and time.monotonic() < until:
        outcomes = runner.poll(0.5, on_report)
    assert [(outcome.number, outcome.loss) for outcome in outcomes] == [(1, 3.0)]
    assert not _runs(int((folder / "0" / "child").read_text()))


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_end_when_their_driver_is_killed_even_in_a_script_without_a_main_guard(
    tmp_path: Path, method: str
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import os, sys, time
            from pathlib import Path
            from hpo.trials.budget import Limits
            from hpo.trials.records import Trial
            from hpo.study.process_runner import ProcessRunner
            from hpo.study.runners import Job, Task
            from hpo.schedulers import Decision

            folder = Path(sys.argv[1])
            with open(folder / "starts", "a") as file:
                file.write("start ")

            def train(config, ctx):
                (folder / "pid").write_text(str(os.getpid()))
                ctx.report(step=0)
                time.sleep(600)

            runner = ProcessRunner(start_method=sys.argv[2])
            answer = lambda trial, report: print("running", flush=True) or Decision.CONTINUE
            runner.open(Task(train, None, (), Limits()), 1)
            runner.submit(Job(Trial(0, {}, 0, None), 0, folder / "0"))
            while True:
                runner.poll(1.0, answer)
        """)
    )
    driver = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path), method],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
    )
    assert driver.stdout is not None
    assert driver.stdout.readline() == "running\n"
    worker = int((tmp_path / "pid").read_text())
    assert _runs(worker)
    driver.kill()
    driver.wait()
    driver.stdout.close()
    until = time.monotonic() + 10
    while _runs(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _runs(worker)
    assert (tmp_path / "starts").read_text() == "start "


def _runs(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
