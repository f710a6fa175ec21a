"""Ray and Dask as places where trials run: one contract for both, on real local clusters."""

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hpo import ASHA, Budget, Context, Fidelity, Float, Limits, Report, Status, Trial, optimize
from hpo.schedulers import Decision
from hpo.study.runners import Job, Outcome, Runner, Task

pytestmark = [pytest.mark.guests, pytest.mark.filterwarnings("ignore")]  # the guests' own warnings

PATIENCE = 120.0  # seconds


@pytest.fixture(scope="module", params=["ray", "dask"])
def make(request: pytest.FixtureRequest) -> Iterator[Callable[[], Runner]]:
    """Make a runner on a cluster of two workers."""
    if request.param == "ray":
        ray = pytest.importorskip("ray", reason="pip install 'scaletune[ray]' to run this")
        from hpo.adapters.ray import RayRunner

        ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
        yield RayRunner
        ray.shutdown()
    else:
        dask = pytest.importorskip(
            "distributed", reason="pip install 'scaletune[dask]' to run this"
        )
        from hpo.adapters.dask import DaskRunner

        with dask.Client(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as client:
            yield lambda: DaskRunner(client)
            client.shutdown()


def step_by_step(config: dict[str, Any], ctx: Context) -> float:
    start = (ctx.load() or 0) + 1
    for epoch in range(start, ctx.fidelity + 1):  # type: ignore[operator]
        ctx.save(epoch)
        ctx.report(step=epoch, loss=(config["lr"] - 0.1) ** 2 + 1 / epoch)
    return (config["lr"] - 0.1) ** 2 + 1 / ctx.fidelity  # type: ignore[operator]


def test_runs_pause_and_are_promoted_from_their_checkpoints(
    make: Callable[[], Runner], tmp_path: Path
) -> None:
    result = optimize(
        step_by_step,
        {"lr": Float(1e-3, 1.0, log=True), "epochs": Fidelity(1, 3)},
        budget=Budget(trials=4),
        scheduler=ASHA(),
        workers=2,
        runner=make(),
        name="over-a-cluster",
        storage=f"sqlite:///{tmp_path / 'study.db'}",
    )
    log = result.log
    assert len(log.trials) >= 4 and all(o.cause is None for o in log.observations)
    steps = [[report.step for report in log.reports(trial.number)] for trial in log.trials]
    assert all(each in ([1], [1, 2, 3]) for each in steps) and [1, 2, 3] in steps
    assert any(log.resumed(trial.number) for trial in log.trials)


def test_killing_one_trial_leaves_the_other_and_its_own_process_ends(
    make: Callable[[], Runner], tmp_path: Path
) -> None:
    def waits(config: dict[str, Any], ctx: Context) -> float:
        (tmp_path / f"pid{ctx.trial.number}").write_text(str(os.getpid()))
        ctx.report(step=1, loss=1.0)
        while not (tmp_path / f"go{ctx.trial.number}").exists():
            time.sleep(0.05)
        return 0.5

    reported: list[int] = []

    def on_report(trial: Trial, report: Report) -> Decision:
        reported.append(trial.number)
        return Decision.CONTINUE

    runner = make()
    runner.open(Task(waits, None, (), Limits()), 2)
    for number in (0, 1):
        runner.submit(Job(Trial(number, {}, number, None), 0, tmp_path / str(number)))
    until = time.monotonic() + PATIENCE
    while len(reported) < 2 and time.monotonic() < until:
        runner.poll(0.2, on_report)
    assert sorted(reported) == [0, 1]
    runner.kill(0)
    (tmp_path / "go1").touch()
    ended: list[Outcome] = []
    while not ended and time.monotonic() < until:
        ended = runner.poll(0.5, on_report)
    assert [(o.number, o.status, o.loss) for o in ended] == [(1, Status.COMPLETED, 0.5)]
    pid = int((tmp_path / "pid0").read_text())
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    runner.close()


def test_limits_on_time_and_memory_end_a_trial_and_leave_the_other(
    make: Callable[[], Runner],
) -> None:
    def greedy(config: dict[str, Any], ctx: Context) -> float:
        if ctx.trial.number == 0:
            time.sleep(600)
        if ctx.trial.number == 1:
            bytearray(8 << 30)
        return float(config["lr"])

    result = optimize(
        greedy,
        {"lr": Float(0, 1)},
        budget=Budget(trials=3, per_trial=Limits(seconds=5.0, memory=1 << 30)),
        workers=2,
        runner=make(),
    )
    frame = result.to_pandas().sort_values("number")
    assert list(frame["cause"].fillna("none")) == ["timeout", "oom", "none"]
