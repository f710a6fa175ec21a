"""The runner on a real local Dask cluster of processes."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("distributed", reason="pip install 'scaletune[dask]' to run this")

from distributed import Client  # noqa: E402  after the skip

from hpo import ASHA, Budget, Context, Fidelity, Float, Limits, optimize  # noqa: E402
from hpo.adapters.dask import DaskRunner  # noqa: E402
from hpo.observations import Cause, Status, Trial  # noqa: E402
from hpo.runners import Job, Outcome, Task  # noqa: E402
from hpo.schedulers import Decision  # noqa: E402

pytestmark = [pytest.mark.guests, pytest.mark.filterwarnings("ignore")]  # Dask's own warnings


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with Client(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
    ) as connected:
        yield connected
        connected.shutdown()


def epochs(config: dict[str, Any], ctx: Context) -> float:
    start = (ctx.load() or 0) + 1
    for epoch in range(start, ctx.fidelity + 1):  # type: ignore[operator]
        ctx.save(epoch)
        ctx.report(step=epoch, loss=(config["lr"] - 0.1) ** 2 + 1 / epoch)
    return (config["lr"] - 0.1) ** 2 + 1 / ctx.fidelity  # type: ignore[operator]


def test_optimize_runs_pauses_and_promotes_over_dask(client: Client, tmp_path: Path) -> None:
    space = {"lr": Float(1e-3, 1.0, log=True), "epochs": Fidelity(1, 3)}
    result = optimize(
        epochs,
        space,
        budget=Budget(trials=4),
        scheduler=ASHA(),
        workers=2,
        runner=DaskRunner(client),
        name="over-dask",
        storage=f"sqlite:///{tmp_path / 'study.db'}",
    )
    trials = result.study.trials  # type: ignore[union-attr]
    assert len(trials) >= 4 and all(t.intermediate_values for t in trials)
    assert "FAIL" not in {t.state.name for t in trials}
    assert any("scaletune:resumed:0" in t.user_attrs for t in trials)


def wait_for(runner: DaskRunner, seconds: float = 60.0) -> list[Outcome]:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended = runner.poll(0.5)
        if ended:
            return ended
    raise AssertionError("nothing ended")


def test_killing_one_trial_leaves_the_other_and_its_own_process_ends(
    client: Client, tmp_path: Path
) -> None:
    def train(config: dict[str, Any], ctx: Context) -> float:
        (tmp_path / f"pid{ctx.trial.number}").write_text(str(os.getpid()))
        ctx.report(step=1, loss=1.0)
        while not (tmp_path / f"go{ctx.trial.number}").exists():
            time.sleep(0.05)
        return 0.5

    heard: list[int] = []

    def on_report(trial: Trial, report: Any) -> Decision:
        heard.append(trial.number)
        return Decision.CONTINUE

    runner = DaskRunner(client)
    runner.open(Task(train, None, (), Limits()), on_report, 2)
    for number in (0, 1):
        runner.submit(Job(Trial(number, {}, number, None), 0, tmp_path / str(number)))
    until = time.monotonic() + 60
    while len(heard) < 2 and time.monotonic() < until:
        runner.poll(0.2)
    assert sorted(heard) == [0, 1]
    runner.kill(0)
    (tmp_path / "go1").touch()
    (outcome,) = wait_for(runner)
    assert outcome.number == 1 and outcome.status is Status.COMPLETED and outcome.loss == 0.5
    pid = int((tmp_path / "pid0").read_text())
    while Path(f"/proc/{pid}").exists() and time.monotonic() < until:
        time.sleep(0.1)
    assert not Path(f"/proc/{pid}").exists()
    runner.close()


def test_a_trial_over_its_time_ends_in_timeout_over_dask(client: Client) -> None:
    def endless(config: dict[str, Any], ctx: Context) -> float:
        time.sleep(600)
        return 0.0

    result = optimize(
        endless,
        {"lr": Float(0, 1)},
        budget=Budget(trials=1, per_trial=Limits(seconds=1.0)),
        runner=DaskRunner(client),
    )
    (cause,) = result.to_pandas()["cause"]
    assert cause == Cause.TIMEOUT.value
