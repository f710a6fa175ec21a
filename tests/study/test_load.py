"""Large studies answer, and the work grows no faster than what was asked for.

Counts are compared, not seconds; `python -m benchmarks load` measures those.
"""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from hpo import (
    ASHA,
    Budget,
    Callback,
    Categorical,
    Context,
    Fidelity,
    Float,
    FreezeThaw,
    Hyperband,
    MedianStopping,
    Optimizer,
    optimize,
)
from hpo.schedulers import ASHAVariant, Scheduler
from hpo.space import Parameter
from hpo.trials import TrialLog

SPACE: dict[str, Any] = {"x": Float(0.0, 1.0)}


class CountingStorage(InMemoryStorage):
    """Counts the attributes of trials that are written: in a database each is a transaction."""

    def __init__(self) -> None:
        super().__init__()
        self.lengths: list[int] = []

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.lengths.append(len(json.dumps(value)))
        super().set_trial_user_attr(trial_id, key, value)


def test_the_reports_of_a_long_run_are_stored_in_few_transactions() -> None:
    def train(config: dict[str, Any], ctx: Context) -> float:
        for step in range(5000):
            ctx.report(step=step, loss=1 / (step + 1), metrics={"lr": 0.1})
        return 0.0

    storage = CountingStorage()
    result = optimize(train, SPACE, budget=Budget(trials=1), name="s", storage=storage)
    assert len(result.log.reports(0)) == 5000
    assert sum(storage.lengths) > 300_000
    assert len(storage.lengths) < 3 + sum(storage.lengths) / 30_000


def test_a_thousand_metrics_are_stored_in_few_transactions_and_have_a_column_each() -> None:
    metrics = {f"m{i}": i / 7 for i in range(1000)}
    storage = CountingStorage()
    result = optimize(
        lambda config, ctx: {"loss": config["x"], **metrics},
        SPACE,
        budget=Budget(trials=3),
        name="s",
        storage=storage,
    )
    assert len(storage.lengths) <= 2 * 3
    assert result.to_pandas()[[*metrics]].iloc[0].to_dict() == metrics


@pytest.mark.parametrize(
    "scheduler",
    [
        None,
        ASHA(),
        ASHA(kind=ASHAVariant.STOPPING),
        Hyperband(),
        MedianStopping(),
        FreezeThaw(),
    ],
    ids=str,
)
def test_a_report_is_answered_without_going_through_all_reports_before(
    scheduler: Scheduler | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted are the reports and events that the log hands out while a run reports."""
    read = 0

    def counted(method: Any) -> Any:
        def handing_out(*arguments: Any) -> Any:
            nonlocal read
            found = method(*arguments)
            read += len(found)
            return found

        return handing_out

    monkeypatch.setattr(TrialLog, "reports", counted(TrialLog.reports))
    monkeypatch.setattr(TrialLog, "events", counted(TrialLog.events))

    def train(config: dict[str, Any], ctx: Context) -> float:
        nonlocal read
        before, reports = read, 0
        for step in range(1, 2001):
            try:
                ctx.report(step=step, loss=config["x"] + 1 / step)
            finally:
                reports += 1
                if reports > 100:
                    read_a_report.append((read - before) / reports)
        return float(config["x"])

    read_a_report: list[float] = []
    space = {**SPACE, "steps": Fidelity(500, 2000)}
    optimize(train, space, budget=Budget(trials=3), scheduler=scheduler)
    assert max(read_a_report) < 5


def test_files_and_processes_of_a_study_do_not_grow_with_its_trials(tmp_path: Path) -> None:
    class Watch(Callback):
        def on_trial_end(self, run: Any, trial: Any, observation: Any) -> None:
            threads = len(list(Path("/proc/self/task").iterdir()))
            children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
            held.append((len(list(Path("/proc/self/fd").iterdir())), threads, len(children)))

    held: list[tuple[int, int, int]] = []
    optimize(
        lambda config, ctx: math.nan,
        SPACE,
        budget=Budget(trials=30),
        workers=2,
        callbacks=[Watch()],
        name="s",
        storage=f"sqlite:///{tmp_path}/a.db",
    )
    assert len(held) == 30
    early, late = (max(held[a:b]) for a, b in ((4, 10), (24, 30)))
    assert all(now <= before + 1 for before, now in zip(early, late, strict=True))


SPACES: dict[str, dict[str, Parameter]] = {
    "1000 dimensions": {f"x{i}": Float(0.0, 1.0) for i in range(1000)},
    "500 categories": {"kind": Categorical([f"{i:x}" for i in range(500)])},
    "200 conditional parameters": {
        "model": Categorical([f"m{i}" for i in range(10)]),
        **{f"x{i}": Float(0.0, 1.0, when=("model", [f"m{i % 10}"])) for i in range(200)},
    },
}


@pytest.mark.parametrize("size", SPACES)
def test_a_large_space_is_searched(size: str) -> None:
    optimizer = Optimizer(SPACES[size])
    for _ in range(3):
        trial = optimizer.ask()
        optimizer.tell(trial, float(len(repr(trial.config)) % 7))
    optimizer.ask()
    assert optimizer.result().best.loss == min(o.loss or 0.0 for o in optimizer.log.observations)
