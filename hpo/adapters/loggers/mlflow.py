"""A callback that logs a study to MLflow, by its client."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hpo.adapters.loggers.base import StudyLogger, imported
from hpo.space.arguments import Text
from hpo.study.callbacks import StudyState
from hpo.trials import Observation, Status, Trial

__all__ = ["MLflowLogger"]

_LONGEST = 500  # characters of a parameter; servers refuse longer ones
_ENDS = {Status.COMPLETED: "FINISHED", Status.STOPPED: "KILLED", Status.FAILED: "FAILED"}
_NAMED = "scaletune.study"
_OPTIONAL = Text(optional=True)


class MLflowLogger(StudyLogger):
    """Logs each trial as a run below the run of the study.

    The active run of the calling program is neither used nor ended. A resumed study continues its
    run. `hpo.read_runs("mlflow:EXPERIMENT")` reads the trials back.

    Args:
        experiment: Name of the experiment, made where there is none.
        tracking_uri: Address of the server or folder; None for that of MLFLOW_TRACKING_URI or of
            `mlflow.set_tracking_uri`.

    Raises:
        ImportError: Without mlflow.

    Example:
        Needs the extra `mlflow`::

            optimize(train, space, budget=Budget(trials=50), name="run-1",
                     callbacks=[MLflowLogger("my experiment", "http://localhost:5000")])
    """

    def __init__(self, experiment: str = "scaletune", tracking_uri: str | None = None) -> None:
        super().__init__()
        self._name = Text()(experiment, "`experiment`")
        self._uri = _OPTIONAL(tracking_uri, "`tracking_uri`")
        self._mlflow = imported("mlflow", type(self).__name__, "mlflow")
        self._client: Any = None
        self._experiment = ""
        self._study = ""
        self._trials: dict[int, str] = {}

    def open_study(self, run: StudyState) -> None:
        """Open the run of the study, or that of an earlier call with its name."""
        self._client = self._mlflow.MlflowClient(self._uri)
        known = self._client.get_experiment_by_name(self._name)
        self._experiment = (
            self._client.create_experiment(self._name) if known is None else known.experiment_id
        )
        earlier = None if run.name is None else self._run_of(run.name)
        if earlier is not None:
            self._study = earlier
            self._client.update_run(earlier, status="RUNNING")
            return
        made = self._client.create_run(
            self._experiment,
            run_name=run.name or "study",
            tags={_NAMED: run.name or "", "scaletune.direction": run.direction},
        )
        self._study = made.info.run_id

    def _run_of(self, name: str) -> str | None:
        quoted = name.replace("'", "")
        found = self._client.search_runs(
            [self._experiment], filter_string=f"tags.`{_NAMED}` = '{quoted}'"
        )
        return found[0].info.run_id if found else None

    def open_trial(self, trial: Trial) -> None:
        """Open the run of the trial, with its config."""
        if trial.number in self._trials:
            self._client.update_run(self._trials[trial.number], status="RUNNING")
            return
        made = self._client.create_run(
            self._experiment,
            run_name=f"trial {trial.number}",
            tags={"mlflow.parentRunId": self._study, "scaletune.trial": str(trial.number)},
        )
        self._trials[trial.number] = made.info.run_id
        for name, value in trial.config.items():
            self._client.log_param(made.info.run_id, name, str(value)[:_LONGEST])

    def log_step(self, trial: Trial, step: int, numbers: Mapping[str, float]) -> None:
        """Log what the trial has reported."""
        self._log(self._trials[trial.number], step, numbers)

    def close_trial(
        self, trial: Trial, observation: Observation, numbers: Mapping[str, float]
    ) -> None:
        """Log the result and end the run; that of a paused trial is scheduled to continue."""
        run = self._trials[trial.number]
        step = observation.reports[-1].step if observation.reports else 0
        self._log(run, step, numbers)
        if observation.cause is not None:
            self._client.set_tag(run, "scaletune.cause", observation.cause.value)
        if observation.status in _ENDS:
            self._client.set_terminated(run, _ENDS[observation.status])
        else:
            self._client.update_run(run, status="SCHEDULED")

    def log_progress(self, count: int, numbers: Mapping[str, float]) -> None:
        """Log how far the study is."""
        self._log(self._study, count, numbers)

    def close_study(self, best: Mapping[str, Any] | None, *, failed: bool) -> None:
        """Log the best config as tags, which a later call may replace, and end the run."""
        for name, value in (best or {}).items():
            self._client.set_tag(self._study, f"best.{name}", str(value))
        self._client.set_terminated(self._study, "FAILED" if failed else "FINISHED")

    def _log(self, run: str, step: int, numbers: Mapping[str, float]) -> None:
        now = int(1000 * time.time())
        metrics = [
            self._mlflow.entities.Metric(name, value, now, step) for name, value in numbers.items()
        ]
        self._client.log_batch(run, metrics=metrics)
