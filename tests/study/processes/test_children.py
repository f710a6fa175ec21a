"""What trials start themselves: data loaders, pools, spawned processes; nothing of it is left."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo.schedulers import Decision
from hpo.study.context import Context
from hpo.study.process_runner import ProcessRunner
from hpo.study.runners import Task
from hpo.trials import Cause, Report, Status, Trial
from hpo.trials.budget import Limits
from tests.contracts.runner import Bench, Config, job

REPOSITORY = Path(__file__).parents[3]
PATIENCE = 60.0
SCRIPT = """
import multiprocessing
import torch
from hpo import Budget, Float, ProcessRunner, optimize

class Numbers(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        return Number(index)

class Number:
    def __init__(self, value):
        self.value = value

def collated(numbers):
    return [Number(number.value + 1) for number in numbers]

def doubled(number):
    return Number(2 * number.value)

def noted(rank, box, number):
    box[rank] = number.value + rank

def train(config, ctx):
    method = METHODS[ctx.trial.number]
    loader = torch.utils.data.DataLoader(
        Numbers(), batch_size=4, num_workers=1, collate_fn=collated,
        multiprocessing_context=None if method == "default" else method,
    )
    total = sum(number.value for batch in loader for number in batch)
    context = multiprocessing.get_context(None if method == "default" else method)
    with context.Pool(1) as pool:
        total += pool.apply(doubled, (Number(10),)).value
    if method == "spawn":
        box = torch.zeros(2).share_memory_()
        torch.multiprocessing.spawn(noted, args=(box, Number(100)), nprocs=2)
        total += int(box.sum()) - 201
    return float(total)

budget = Budget(trials=len(METHODS))
result = optimize(train, {"x": Float(0, 1)}, budget=budget, runner=ProcessRunner())
print([(o.status.name, o.loss) for o in result.log.observations])
"""


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(ProcessRunner, tmp_path)
    yield bench
    bench.runner.close()


@pytest.mark.engine
def test_classes_of_a_script_reach_the_processes_that_its_trials_start(tmp_path: Path) -> None:
    """Without a guard of `__main__`, which the runner does not need, nothing starts over."""
    methods = ["default", "spawn", "forkserver"]
    script = tmp_path / "script.py"
    script.write_text(f"METHODS = {methods!r}\n{SCRIPT}")
    done = subprocess.run(
        [sys.executable, str(script)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        check=False,
        timeout=240,
    )
    expected = ("COMPLETED", float(sum(range(8)) + 8 + 20))
    assert done.stdout.strip() == str([expected] * len(methods)), done.stderr


def test_classes_that_no_module_holds_reach_loaders_and_pools_inside_a_trial(
    processes: Bench,
) -> None:
    class Number:
        def __init__(self, value: int) -> None:
            self.value = value

    class Numbers(torch.utils.data.Dataset[Number]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> Number:
            return Number(index)

    def doubled(number: Number) -> Number:
        return Number(2 * number.value)

    def train(config: Config, ctx: Context) -> float:
        loader = torch.utils.data.DataLoader(Numbers(), num_workers=1, collate_fn=lambda rows: rows)
        total = sum(number.value for rows in loader for number in rows)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            return float(total + pool.apply(doubled, (Number(10),)).value)

    (outcome,) = processes.run(train, {})
    assert (outcome.status, outcome.loss) == (Status.COMPLETED, 26.0), outcome.text


def test_trials_start_processes_as_the_driver_does_and_leave_that_choice_open(
    processes: Bench,
) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        return {"loss": 0.0, "method": multiprocessing.get_context().get_start_method()}

    before = multiprocessing.get_start_method(allow_none=True)
    (outcome,) = processes.run(train, {})
    assert multiprocessing.get_start_method(allow_none=True) == before
    assert outcome.metrics["method"] == (before or multiprocessing.get_all_start_methods()[0])


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("how", ["killed", "timed out", "crashed", "returned"])
def test_nothing_that_a_trial_started_is_left_whatever_session_it_is_in(
    tmp_path: Path, how: str
) -> None:
    def train(config: Config, ctx: Context) -> float:
        assert ctx.checkpoint_dir is not None
        sleep = [sys.executable, "-c", "import time; time.sleep(600)"]
        far = subprocess.Popen(sleep, start_new_session=True).pid
        orphan = subprocess.run(
            ["sh", "-c", "setsid sleep 600 >/dev/null 2>&1 & echo $!"],
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        near = subprocess.Popen(sleep).pid
        (ctx.checkpoint_dir / "started").write_text(f"{far} {near} {int(orphan)}")
        ctx.report(step=0)
        if config["how"] == "crashed":
            os.kill(os.getpid(), signal.SIGSEGV)
        if config["how"] != "returned":
            time.sleep(600)
        return 0.0

    runner, seen = ProcessRunner(), list[int]()

    def on_report(trial: Trial, report: Report) -> Decision:
        seen.append(trial.number)
        return Decision.CONTINUE

    limits = Limits(seconds=2.0) if how == "timed out" else Limits()
    runner.open(Task(train, None, (), limits), 1)
    runner.submit(job(0, tmp_path, how=how))
    outcomes = until(lambda: runner.poll(0.1, on_report) or (how == "killed" and seen))
    if how == "killed":
        runner.kill(0)
    else:
        cause = {"timed out": Cause.TIMEOUT, "crashed": Cause.LOST}.get(how)
        assert [outcome.cause for outcome in outcomes] == [cause]
    started = [int(pid) for pid in (tmp_path / "0" / "started").read_text().split()]
    until(lambda: not any(runs(pid) for pid in started))
    runner.close()


# --- reuse ---------------------------------------------------------------------------------------


def test_reused_workers_load_once_and_are_replaced_after_a_failure(tmp_path: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        if config["how"] == "fail":
            raise RuntimeError("broken")
        if config["how"] == "start":
            subprocess.Popen(["sleep", "600"])
        sys.visits = getattr(sys, "visits", 0) + 1  # type: ignore[attr-defined]
        return {"loss": 0.0, "pid": os.getpid(), "visits": sys.visits}  # type: ignore[attr-defined]

    bench = Bench(lambda: ProcessRunner(reuse=True), tmp_path)
    runner = bench.runner
    runner.open(Task(train, None, (), Limits()), 1)
    outcomes = []
    for number, how in enumerate(["run", "run", "fail", "run", "start", "run"]):
        runner.submit(job(number, tmp_path, how=how))
        outcomes += until(lambda: runner.poll(0.1, lambda trial, report: Decision.CONTINUE))
    visits = [outcome.metrics.get("visits") for outcome in outcomes]
    assert visits == [1.0, 2.0, None, 1.0, 2.0, 1.0]
    last = int(outcomes[-1].metrics["pid"])
    assert runs(last)
    runner.close()
    assert not runs(last)


def test_a_reused_worker_that_has_grown_is_replaced(tmp_path: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        held = getattr(sys, "held", [])
        held.append(b"1" * config["bytes"])
        sys.held = held  # type: ignore[attr-defined]
        return {"loss": 0.0, "held": len(held)}

    runner = ProcessRunner(reuse=True)
    runner.open(Task(train, None, (), Limits()), 1)
    held = []
    for number, size in enumerate([1, 2**29, 1]):
        runner.submit(job(number, tmp_path, bytes=size))
        (outcome,) = until(lambda: runner.poll(0.1, lambda trial, report: Decision.CONTINUE))
        held.append(outcome.metrics["held"])
    runner.close()
    assert held == [1.0, 2.0, 1.0]


def test_a_reused_worker_pauses_resumes_and_keeps_its_limit(tmp_path: Path) -> None:
    def train(config: Config, ctx: Context) -> float:
        start = (ctx.load() or {"step": 0})["step"]
        for step in range(start + 1, 4):
            ctx.save({"step": step})
            ctx.report(step=step, loss=float(step))
        if config["slow"]:
            time.sleep(600)
        return float(start)

    runner = ProcessRunner(reuse=True)
    runner.open(Task(train, None, (), Limits(seconds=1.0)), 1)

    def run(number: int, decision: Decision, *, slow: bool = False) -> Any:
        runner.submit(job(number, tmp_path, slow=slow))
        (outcome,) = until(lambda: runner.poll(0.1, lambda trial, report: decision))
        return outcome

    assert run(0, Decision.PAUSE).status is Status.PAUSED
    assert run(0, Decision.CONTINUE).loss == 1.0
    assert run(1, Decision.STOP).status is Status.STOPPED
    time.sleep(1.1)  # which a trial that rests is not charged
    assert run(2, Decision.CONTINUE).status is Status.COMPLETED
    assert run(3, Decision.CONTINUE, slow=True).cause is Cause.TIMEOUT
    runner.close()


def test_time_to_load_modules_is_not_the_trials(processes: Bench) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        sys.path.insert(0, config["where"])
        began = time.monotonic()
        import slow_to_load  # type: ignore[import-not-found]

        return {"loss": float(slow_to_load.x), "waited": time.monotonic() - began}

    (processes.folder / "slow_to_load.py").write_text("import time; time.sleep(1.5); x = 1")
    (outcome,) = processes.run(train, {"where": str(processes.folder)})
    assert outcome.metrics["waited"] >= 1.5
    assert outcome.seconds < 1.0


def test_trials_see_the_environment_of_their_driver_as_it_is_now(
    processes: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        seen = {name: os.environ.get(name, "none") for name in ("SOME_MODE", "SOME_KEY")}
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(os.environ.get('SOME_MODE'))"],
            capture_output=True,
            text=True,
        )
        assert child.stdout.strip() == seen["SOME_MODE"]
        return {"loss": 0.0, **seen}

    monkeypatch.setenv("SOME_KEY", "first")
    processes.run(train, {})  # the fork server runs from here on at the latest
    monkeypatch.setenv("SOME_MODE", "offline")
    monkeypatch.delenv("SOME_KEY")
    (outcome,) = processes.run(train, {})
    assert outcome.status is Status.COMPLETED, outcome.text
    assert (outcome.metrics["SOME_MODE"], outcome.metrics["SOME_KEY"]) == ("offline", "none")


def until(found: Callable[[], Any]) -> Any:
    """What `found` returns once that is true."""
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.02)
    return value


def runs(pid: int) -> bool:
    """Whether the process is there and not a zombie."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"
