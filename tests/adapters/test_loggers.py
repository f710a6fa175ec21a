"""Callbacks that log a study to W&B, MLflow and TensorBoard, on the real packages."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from hpo import ASHA, Budget, Context, Fidelity, Float, Observation, Trial, optimize, read_runs
from hpo.adapters.loggers import MLflowLogger, StudyLogger, TensorBoardLogger, WandbLogger
from hpo.adapters.loggers.base import imported
from hpo.study.callbacks import StudyState

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 4)}


def train(config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    if ctx.trial.number == 1:
        raise RuntimeError("no GPU")
    first = 1 if ctx.load() is None else ctx.load()["epoch"] + 1
    for epoch in range(first, ctx.fidelity + 1):
        ctx.save({"epoch": epoch})
        ctx.report(step=epoch, loss=score(config["lr"], epoch), metrics={"speed": 2.0})
    return {"loss": score(config["lr"], ctx.fidelity), "f1": 0.5, "note": "text"}


def score(lr: float, epoch: int) -> float:
    return math.log10(lr) - 1 / epoch


def search(logger: StudyLogger, trials: int = 6, **options: Any) -> Any:
    """A maximized search with pauses, a failure and a name."""
    return optimize(
        train, SPACE, budget=Budget(trials=trials), direction="maximize", scheduler=ASHA(eta=2),
        name="run/1", callbacks=[logger], **options,
    )  # fmt: skip


class Recorder(StudyLogger):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[tuple[int, int, dict[str, float]]] = []
        self.ends: list[tuple[int, str, dict[str, float]]] = []
        self.progress: list[tuple[int, dict[str, float]]] = []
        self.best: Mapping[str, Any] | None = None

    def open_study(self, run: StudyState) -> None: ...

    def open_trial(self, trial: Trial) -> None: ...

    def log_step(self, trial: Trial, step: int, numbers: Mapping[str, float]) -> None:
        self.steps.append((trial.number, step, dict(numbers)))

    def close_trial(
        self, trial: Trial, observation: Observation, numbers: Mapping[str, float]
    ) -> None:
        self.ends.append((trial.number, observation.status.value, dict(numbers)))

    def log_progress(self, count: int, numbers: Mapping[str, float]) -> None:
        self.progress.append((count, dict(numbers)))

    def close_study(self, best: Mapping[str, Any] | None, *, failed: bool) -> None:
        self.best = best


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_reports_results_and_the_best_so_far_are_logged(folder: Path) -> None:
    logger = Recorder()
    result = search(logger)
    for number, step, values in logger.steps:
        observation = result.log.observation(number)
        assert values["value"] == score(observation.config["lr"], step)
        assert values["speed"] == 2.0
    completed = [(n, v) for n, status, v in logger.ends if status == "completed"]
    assert completed and {v["f1"] for _, v in completed} == {0.5}
    for number, values in completed:
        observation = result.log.observation(number)
        assert values["value"] == observation.loss and values["seconds"] == observation.seconds
        prediction = result.log.trial(number).prediction
        if prediction.loss is not None:
            assert values["predicted_value"] == prediction.loss
            low, high = prediction.loss_interval
            assert (values["predicted_value_low"], values["predicted_value_high"]) == (low, high)
    assert {status for _, status, _ in logger.ends} == {"completed", "paused", "failed"}
    best = [values["best_value"] for _, values in logger.progress if "best_value" in values]
    assert best == sorted(best) and best[-1] == result.best_observed.loss
    assert logger.best == result.best.config
    again = Recorder()
    search(again, trials=7)
    assert again.progress[0][1]["best_value"] >= best[-1]  # what earlier calls found counts


def test_a_tool_that_fails_does_not_end_the_study(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Away(Recorder):
        def log_step(self, trial: Trial, step: int, numbers: Mapping[str, float]) -> None:
            raise ConnectionError("the server is away")

    with caplog.at_level(logging.WARNING, "hpo.adapters.loggers.base"):
        result = search(Away())
    said = [r for r in caplog.records if "could not log" in r.message]
    assert len(said) == 1 and "the server is away" in said[0].message
    assert result.best.config


def test_a_tool_that_cannot_be_opened_ends_the_study_at_its_start(folder: Path) -> None:
    class Closed(Recorder):
        def open_study(self, run: StudyState) -> None:
            raise ConnectionError("no such address")

    with pytest.raises(ConnectionError, match="no such address"):
        search(Closed())


def test_a_missing_package_is_named_with_its_extra() -> None:
    with pytest.raises(ImportError, match=r"It needs no_such_tool.*'scaletune\[tool\]'"):
        imported("no_such_tool.writer", "It", "tool")


@pytest.mark.guests
@pytest.mark.filterwarnings("ignore")  # the packages' own
def test_mlflow_has_a_run_for_each_trial_below_that_of_the_study(folder: Path) -> None:
    mlflow = pytest.importorskip("mlflow", reason="pip install 'scaletune[mlflow]' to run this")
    address = f"sqlite:///{folder / 'mlflow.db'}" if has("sqlalchemy") else f"file://{folder}/ml"
    result = search(MLflowLogger("digits", address))
    search(MLflowLogger("digits", address), trials=8)
    assert mlflow.active_run() is None
    client = mlflow.MlflowClient(address)
    runs = client.search_runs([client.get_experiment_by_name("digits").experiment_id])
    studies = [r for r in runs if "mlflow.parentRunId" not in r.data.tags]
    assert len(studies) == 1 and studies[0].info.status == "FINISHED"
    assert studies[0].data.metrics["best_value"] >= result.best_observed.loss
    assert studies[0].data.tags["scaletune.direction"] == "maximize"
    trials = {int(r.data.tags["scaletune.trial"]): r for r in runs if r not in studies}
    assert {r.data.tags["mlflow.parentRunId"] for r in trials.values()} == {studies[0].info.run_id}
    assert trials[1].info.status == "FAILED" and trials[1].data.tags["scaletune.cause"] == "error"
    for o in result.log.runs:
        if o.loss is not None:
            found = trials[o.number]
            assert found.info.status == "FINISHED"
            assert float(found.data.params["lr"]) == o.config["lr"]
            assert found.data.metrics["value"] == pytest.approx(o.loss)
            curve = client.get_metric_history(found.info.run_id, "value")
            assert {m.step for m in curve} == {r.step for r in result.log.reports(o.number)}
    mlflow.set_tracking_uri(address)
    read = read_runs(
        "mlflow:digits", loss="metrics.value", params=["params.lr"], direction="maximize"
    )
    losses = [o.loss for o in read.observations if o.loss is not None]
    assert all(pytest.approx(o.loss) in losses for o in result.log.runs if o.loss is not None)


@pytest.mark.guests
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_has_curves_and_hyperparameters_of_each_trial(folder: Path) -> None:
    pytest.importorskip("tensorboard", reason="pip install 'scaletune[tensorboard]' to run this")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = search(TensorBoardLogger(folder / "runs"))

    def read(run: str, name: str) -> dict[int, float]:
        """The scalars of a run by their steps; each stage of a trial has a file of its own."""
        found: dict[int, float] = {}
        for file in (folder / "runs" / "run_1" / run).glob("events*"):
            events = EventAccumulator(str(file))
            events.Reload()
            if name in events.Tags()["scalars"]:
                found |= {event.step: event.value for event in events.Scalars(name)}
        return found

    best = read("study", "best_value")
    assert best[max(best)] == pytest.approx(result.best_observed.loss, rel=1e-6)
    for o in result.log.runs:
        events = EventAccumulator(str(folder / "runs" / "run_1" / f"trial-{o.number:04d}"))
        events.Reload()
        content = events.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        assert b"lr" in content and b"epochs" in content
        if o.loss is not None:
            final = read(f"trial-{o.number:04d}", "final/value")
            assert final[max(final)] == pytest.approx(o.loss, rel=1e-6)
            steps = read(f"trial-{o.number:04d}", "value")
            assert sorted(steps) == [report.step for report in result.log.reports(o.number)]


@pytest.mark.guests
@pytest.mark.filterwarnings("ignore")
def test_wandb_has_a_run_for_each_stage_and_one_of_the_study(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="pip install 'scaletune[wandb]' to run this")
    monkeypatch.setenv("WANDB_SILENT", "true")
    opened: list[tuple[dict[str, Any], Any]] = []
    summaries: dict[str, dict[str, Any]] = {}
    init = wandb.init

    def noting(**arguments: Any) -> Any:
        """The real run, whose summary is kept before it is finished, as then it is gone."""
        made = init(**arguments)
        finish = made.finish

        def finished(**how: Any) -> None:
            summaries[made.id] = dict(made.summary)
            finish(**how)

        made.finish = finished
        opened.append((arguments, made))
        return made

    monkeypatch.setattr(wandb, "init", noting)
    result = search(WandbLogger("digits", mode="offline", dir=str(folder)))
    assert wandb.run is None
    [study] = [made for arguments, made in opened if arguments["job_type"] == "study"]
    trials = [(a, made) for a, made in opened if a["job_type"] == "trial"]
    assert {arguments["group"] for arguments, _ in opened} == {"run/1"}
    assert summaries[study.id]["best_lr"] == result.best.config["lr"]
    assert summaries[study.id]["best_value"] == result.best_observed.loss
    last = {arguments["config"]["trial"]: made for arguments, made in trials}
    for o in result.log.runs:
        summary = summaries[last[o.number].id]
        assert dict(last[o.number].config)["lr"] == o.config["lr"]
        assert summary["status"] == o.status.value
        assert o.loss is None or summary["value"] == o.loss
    stages = [arguments["config"]["trial"] for arguments, _ in trials]
    assert len(set(stages)) < len(stages)  # some were paused and promoted
    assert len(list(folder.glob("wandb/offline-run-*"))) >= len(set(stages)) + 1


def has(package: str) -> bool:
    from importlib.util import find_spec

    return find_spec(package) is not None
