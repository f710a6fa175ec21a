"""A callback that logs a study to Weights & Biases, by its package."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.adapters.loggers.base import StudyLogger, imported
from hpo.space.arguments import Text
from hpo.study.callbacks import StudyState
from hpo.trials import Observation, Status, Trial

__all__ = ["WandbLogger"]


class WandbLogger(StudyLogger):
    """Logs each trial as a run of W&B, and the study as one more; all share a group.

    A run that the calling program has open is neither used nor finished.

    Args:
        project: Name of the project.
        **init: Further arguments of `wandb.init`, such as `entity="my-team"` or `mode="offline"`.

    Raises:
        ImportError: Without wandb.

    Example:
        Needs the extra `wandb`::

            optimize(train, space, budget=Budget(trials=50), name="run-1",
                     callbacks=[WandbLogger("my project", entity="my-team")])
    """

    def __init__(self, project: str = "scaletune", **init: Any) -> None:
        super().__init__()
        self._init = {"project": Text()(project, "`project`"), **init}
        self._wandb = imported("wandb", type(self).__name__, "wandb")
        self._study: Any = None
        self._trials: dict[int, Any] = {}
        self._ids: dict[int, str] = {}

    def open_study(self, run: StudyState) -> None:
        """Open the run of the study, and with it the group of its trials."""
        self._init = {"group": run.name or self._wandb.util.generate_id(), **self._init}
        config = {"direction": run.direction, "cost": run.cost, "target": run.target}
        name = f"{self._init['group']} (study)"
        self._study = self._open(name=name, job_type="study", config=config)

    def open_trial(self, trial: Trial) -> None:
        """Open the run of the trial, with its config."""
        known = self._ids.get(trial.number)
        again = {} if known is None else {"id": known, "resume": "allow"}
        self._trials[trial.number] = made = self._open(
            name=f"{self._init['group']} trial {trial.number}",
            job_type="trial",
            config={**trial.config, "trial": trial.number},
            **again,
        )
        self._ids[trial.number] = made.id

    def _open(self, **arguments: Any) -> Any:
        return self._wandb.init(**{**self._init, **arguments}, reinit="create_new")

    def log_step(self, trial: Trial, step: int, numbers: Mapping[str, float]) -> None:
        """Log what the trial has reported."""
        self._trials[trial.number].log(dict(numbers), step=step, commit=True)

    def close_trial(
        self, trial: Trial, observation: Observation, numbers: Mapping[str, float]
    ) -> None:
        """Log the result as the summary of the run, and finish it."""
        made = self._trials.pop(trial.number)
        cause = {} if observation.cause is None else {"cause": observation.cause.value}
        made.summary.update({**numbers, "status": observation.status.value, **cause})
        made.finish(exit_code=int(observation.status is Status.FAILED))

    def log_progress(self, count: int, numbers: Mapping[str, float]) -> None:
        """Log how far the study is."""
        self._study.log(dict(numbers), step=count, commit=True)

    def close_study(self, best: Mapping[str, Any] | None, *, failed: bool) -> None:
        """Log the best config as the summary of the study, and finish all runs."""
        for made in self._trials.values():  # an interrupt has left them
            made.finish(exit_code=1)
        if best is not None:
            self._study.summary.update({f"best_{name}": value for name, value in best.items()})
        self._study.finish(exit_code=int(failed))
        self._trials, self._study = {}, None
