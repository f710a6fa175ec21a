"""Trials in several processes: every rank is told the same, and none is left."""

import pickle
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo import ASHA, Budget, Context, Fidelity, Float, Observation, Result, StudyError, optimize
from hpo.schedulers import Decision
from hpo.study.process_runner import ProcessRunner
from hpo.study.processes.ranks import connect, launch
from hpo.study.runners import InlineRunner, Outcome, Runner, Task
from hpo.trials import Cause, Report, Status, Trial
from hpo.trials.budget import Limits
from tests.contracts.runner import Bench, Config, job
from tests.study.processes.test_children import runs, until

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs Unix sockets")

# Starts the ranks as torchrun does, but without loading torch.
LAUNCHER = """
import os, subprocess, sys
ranks = [
    subprocess.Popen([sys.executable, sys.argv[1]], start_new_session=True,
                     env=os.environ | {"RANK": str(rank), "WORLD_SIZE": "2"})
    for rank in range(2)
]
sys.exit(max(rank.wait() for rank in ranks) and 1)
"""
PLAIN = """
import os, time
import hpo

with hpo.connect() as ctx:
    with open(ctx.checkpoint_dir / f"pid{ctx.rank}", "w") as file:
        file.write(str(os.getpid()))
    for step in range(1, 6):
        how = ctx.config.get("how")
        if how == "raise" and step == 3 and ctx.rank == 1:
            raise RuntimeError("the second rank is broken")
        if how == "memory" and step == 3 and ctx.rank == 1:
            raise MemoryError
        if how == "vanish" and step == 3 and ctx.rank == 0:
            os._exit(7)
        if how == "sleep" and step == 3:
            time.sleep(600)
        loss = {"nan": float("nan"), "text": "low"}.get(how, 1.0) if step == 3 else 1.0 / step
        try:
            ctx.report(step=step, loss=loss if ctx.rank == 0 else None, cost=step)
        except hpo.Stop:
            with open(ctx.checkpoint_dir / f"stopped{ctx.rank}", "w") as file:
                file.write(f"{step} {ctx.should_stop} {ctx.paused}")
            raise
        ctx.barrier()
    ctx.complete({"loss": 0.5, "cost": 5, "ranks": ctx.ranks})
"""
GLOO = """
import os
import torch
import torch.distributed as dist
import hpo

dist.init_process_group("gloo")
with hpo.connect() as ctx:
    torch.manual_seed(ctx.seed)
    state = ctx.load() or {"weights": torch.randn(5), "epoch": 0}
    weights = state["weights"]
    with open(ctx.checkpoint_dir / f"pid{ctx.rank}", "w") as file:
        file.write(str(os.getpid()))
    for epoch in range(state["epoch"] + 1, (ctx.fidelity or 4) + 1):
        gradient = torch.sin(weights * (1 + ctx.rank)) + ctx.config.get("x", 0.3)
        dist.all_reduce(gradient)
        weights = weights - 0.1 * gradient
        loss = float(weights.square().sum())
        ctx.save({"weights": weights, "epoch": epoch})
        ctx.report(step=epoch, loss=loss)
    ctx.complete({"loss": loss, "rank": ctx.rank})
"""


def starts(folder: Path, script: str, *, torchrun: bool = False) -> Callable[..., Any]:
    """A training function whose ranks run a script."""
    (folder / "train.py").write_text(script)
    (folder / "launcher.py").write_text(LAUNCHER)
    launcher = [str(folder / "launcher.py")]
    if torchrun:
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

    def train(config: Config, ctx: Context) -> Any:
        assert ctx.checkpoint_dir is not None
        return launch(ctx, [sys.executable, *launcher, str(folder / "train.py")])

    return train


@pytest.fixture(params=[InlineRunner, ProcessRunner])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(request.param, tmp_path)
    yield bench
    bench.runner.close()


def ended(folder: Path) -> bool:
    return not any(runs(int(path.read_text())) for path in folder.glob("*/pid*"))


def at(step: int, decision: Decision) -> Callable[[Trial, Report], Decision]:
    return lambda trial, report: decision if report.step == step else Decision.CONTINUE


def test_ranks_report_through_the_first_and_return_its_result(bench: Bench) -> None:
    (outcome,) = bench.run(starts(bench.folder, PLAIN), {})
    assert (outcome.status, outcome.loss, outcome.cost) == (Status.COMPLETED, 0.5, 5.0)
    assert outcome.metrics == {"ranks": 2.0}
    assert [report.step for _, report in bench.reports] == [1, 2, 3, 4, 5]
    assert ended(bench.folder)


@pytest.mark.parametrize("decision", [Decision.STOP, Decision.PAUSE])
def test_every_rank_is_told_to_end_at_the_same_report(bench: Bench, decision: Decision) -> None:
    (outcome,) = bench.run(starts(bench.folder, PLAIN), {}, answer=at(2, decision))
    paused = decision is Decision.PAUSE
    assert outcome.status is (Status.PAUSED if paused else Status.STOPPED)
    assert (outcome.loss, outcome.cost) == (0.5, 2.0)
    for rank in range(2):
        assert (bench.folder / "0" / f"stopped{rank}").read_text() == f"2 True {paused}"
    assert ended(bench.folder)


@pytest.mark.parametrize(
    ("how", "cause", "text"),
    [
        ("raise", Cause.ERROR, "rank 1 failed.*the second rank is broken"),
        ("memory", Cause.OOM, "rank 1 failed"),
        ("nan", Cause.DIVERGED, "non-finite"),
        ("text", Cause.ERROR, "loss must be a real number, got 'low'"),
        pytest.param("vanish", Cause.ERROR, "rank 0 of this trial ended", marks=pytest.mark.engine),
    ],
)
def test_what_goes_wrong_in_a_rank_is_the_trials_and_no_other_rank_waits_for_it(
    tmp_path: Path, how: str, cause: Cause, text: str
) -> None:
    (outcome,) = Bench(InlineRunner, tmp_path).run(starts(tmp_path, PLAIN), {"how": how})
    assert (outcome.status, outcome.cause) == (Status.FAILED, cause)
    assert outcome.cost in (2.0, 3.0)  # the first rank may have reported before the second failed
    assert re.search(text, outcome.text, re.DOTALL), outcome.text
    assert isinstance(outcome.refusal, TypeError) is (how == "text")
    assert ended(tmp_path)


def test_an_error_of_the_driver_is_raised_there_and_ends_every_rank(bench: Bench) -> None:
    def answer(trial: Trial, report: Report) -> Decision:
        raise StudyError("the database is gone")

    with pytest.raises(StudyError, match="the database is gone"):
        bench.run(starts(bench.folder, PLAIN), {}, answer=answer)
    bench.runner.close()
    until(lambda: ended(bench.folder))


@pytest.mark.parametrize("how", ["killed", "timed out", "driver killed"])
def test_a_trial_that_is_killed_leaves_no_rank(tmp_path: Path, how: str) -> None:
    limits = Limits(seconds=3.0) if how == "timed out" else Limits()
    runner, reported = ProcessRunner(), list[int]()

    def on_report(trial: Trial, report: Report) -> Decision:
        reported.append(report.step)
        return Decision.CONTINUE

    runner.open(Task(starts(tmp_path, PLAIN), None, (), limits), 1)
    runner.submit(job(0, tmp_path, how="sleep"))
    outcomes: list[Outcome] = []
    until(lambda: outcomes.extend(runner.poll(0.1, on_report)) or 2 in reported or outcomes)
    if how == "killed":
        runner.kill(0)
    elif how == "driver killed":  # as the worker sees it
        (worker,) = runner._workers.values()
        worker.lifeline.close()
    else:
        (outcome,) = until(lambda: outcomes or runner.poll(0.1, on_report))
        assert outcome.cause is Cause.TIMEOUT
    assert len(list((tmp_path / "0").glob("pid*"))) == 2
    until(lambda: ended(tmp_path))
    runner.close()


def test_a_process_of_no_trial_is_refused_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SCALETUNE_SOCKET", raising=False)
    with pytest.raises(StudyError, match="belongs to no trial; start it by hpo.launch"):
        connect()
    monkeypatch.setenv("SCALETUNE_SOCKET", str(tmp_path / "gone"))
    monkeypatch.setenv("SCALETUNE_KEY", "00")
    with pytest.raises(StudyError, match="cannot be reached"):
        connect()


def test_only_who_has_the_key_gets_in_and_the_socket_is_for_its_owner(tmp_path: Path) -> None:
    script = """
import os, stat, hpo
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client
address = os.environ["SCALETUNE_SOCKET"]
assert stat.S_IMODE(os.stat(os.path.dirname(address)).st_mode) == 0o700
try:
    Client(address, "AF_UNIX", authkey=b"guess")
except AuthenticationError:
    with hpo.connect() as ctx:
        ctx.complete(2.0)
"""
    (tmp_path / "alone.py").write_text(script)

    def train(config: Config, ctx: Context) -> Any:
        return launch(ctx, [sys.executable, str(tmp_path / "alone.py")])

    (outcome,) = Bench(InlineRunner, tmp_path).run(train, {})
    assert outcome.loss == 2.0, outcome.text


@pytest.mark.parametrize(
    ("script", "text"),
    [
        ("", "ended without a result; call ctx.complete"),
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("import os; os.kill(os.getpid(), 9)", "killed by signal: Killed"),
    ],
)
def test_a_command_that_ends_without_a_result_says_so(
    tmp_path: Path, script: str, text: str
) -> None:
    def train(config: Config, ctx: Context) -> Any:
        return launch(ctx, [sys.executable, "-c", script])

    (outcome,) = Bench(InlineRunner, tmp_path).run(train, {})
    assert text in outcome.text
    assert outcome.cause is (Cause.LOST if "signal" in text else Cause.ERROR)


def test_a_context_that_starts_no_process_cannot_be_pickled(tmp_path: Path) -> None:
    def train(config: Config, ctx: Context) -> float:
        with pytest.raises(TypeError, match="send ctx.config, or start the processes"):
            pickle.dumps(ctx)
        return 0.0

    (outcome,) = Bench(InlineRunner, tmp_path).run(train, {})
    assert outcome.status is Status.COMPLETED, outcome.text


# --- with torch ----------------------------------------------------------------------------------


@pytest.mark.engine
def test_a_gloo_run_under_torchrun_resumes_to_the_last_bit(tmp_path: Path) -> None:
    def losses(name: str, pauses: list[int]) -> list[float | None]:
        (tmp_path / name).mkdir()
        bench = Bench(ProcessRunner, tmp_path / name)
        train = starts(tmp_path / name, GLOO, torchrun=True)
        for step in pauses:
            (outcome,) = bench.run(train, {}, answer=at(step, Decision.PAUSE))
            assert outcome.status is Status.PAUSED, outcome.text
        (outcome,) = bench.run(train, {})
        assert outcome.status is Status.COMPLETED, outcome.text
        bench.runner.close()
        assert ended(tmp_path / name)
        return [report.loss for _, report in bench.reports] + [outcome.loss]

    assert losses("whole", []) == losses("parts", [2])


@pytest.mark.engine
def test_contexts_sent_to_spawned_processes_are_those_of_ranks(tmp_path: Path) -> None:
    def fit(number: int, ctx: Context, address: str) -> None:
        torch.distributed.init_process_group("gloo", address, rank=number, world_size=2)
        for step in range(1, 6):
            ctx.save({"step": step})
            ctx.report(step=step, loss=1.0 / step)

    def train(config: Config, ctx: Context) -> Any:
        store = f"file://{ctx.checkpoint_dir}/store{config['go']}"
        torch.multiprocessing.spawn(fit, args=(ctx, store), nprocs=2)
        return ctx.last_loss

    bench = Bench(ProcessRunner, tmp_path)
    (outcome,) = bench.run(train, {"go": 0}, answer=at(3, Decision.STOP))
    assert (outcome.status, outcome.loss) == (Status.STOPPED, 1 / 3), outcome.text
    (outcome,) = bench.run(train, {"go": 1})
    assert (outcome.status, outcome.loss) == (Status.COMPLETED, 1 / 5), outcome.text
    bench.runner.close()


def stops(folder: Path, count: int) -> None:
    """Stop, pause or kill a two-rank run as often as asked, at different moments."""
    train = starts(folder, GLOO, torchrun=True)
    runner: Runner = ProcessRunner()
    runner.open(Task(train, None, (), Limits()), 1)
    for number in range(count):
        kind, step = number % 3, 1 + number % 4
        decision = [Decision.STOP, Decision.PAUSE, Decision.CONTINUE][kind]
        seen: list[int] = []

        def answer(
            trial: Trial,
            report: Report,
            seen: list[int] = seen,
            decision: Decision = decision,
            step: int = step,
        ) -> Decision:
            seen.append(report.step)
            return decision if report.step == step else Decision.CONTINUE

        runner.submit(job(number, folder))
        if kind == 2:
            until(lambda: runner.poll(0.05, answer) or step in seen)  # noqa: B023
            runner.kill(number)
        else:
            (outcome,) = until(lambda: runner.poll(0.1, answer))  # noqa: B023
            assert outcome.status is [Status.STOPPED, Status.PAUSED][kind], outcome.text
            assert seen[-1] == step
        until(lambda: ended(folder))
    runner.close()


@pytest.mark.engine
def test_a_gloo_run_under_torchrun_is_stopped_paused_and_killed_without_a_rank_left(
    tmp_path: Path,
) -> None:
    stops(tmp_path, 4)


@pytest.mark.slow
def test_fifty_stops_of_a_gloo_run_never_hang(tmp_path: Path) -> None:
    stops(tmp_path, 50)


def under_asha(folder: Path, trials: int, epochs: int) -> Result:
    """Search with trials of two ranks, which ASHA pauses and promotes."""
    return optimize(
        starts(folder, GLOO, torchrun=True),
        {"x": Float(0, 1), "epochs": Fidelity(1, epochs)},
        budget=Budget(trials=trials),
        scheduler=ASHA(eta=2),
        runner=ProcessRunner(),
    )


@pytest.mark.slow
def test_fifty_pauses_of_gloo_runs_under_asha_never_hang(tmp_path: Path) -> None:
    events = under_asha(tmp_path, 38, 4).log.events()
    told = [event for event in events if isinstance(event, Observation)]
    assert sum(one.status is Status.PAUSED for one in told) >= 50
    assert all(one.cause is None for one in told)
    assert ended(tmp_path)


@pytest.mark.engine
def test_asha_pauses_promotes_and_completes_gloo_runs(tmp_path: Path) -> None:
    result = under_asha(tmp_path, 3, 2)
    done = [o for o in result.log.observations if o.status is Status.COMPLETED]
    assert done and all([r.step for r in o.reports] == [1, 2] for o in done)
    assert len(result.log.trials) == 3
