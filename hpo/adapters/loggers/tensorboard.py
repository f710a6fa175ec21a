"""A callback that writes a study as TensorBoard event files, by `torch.utils.tensorboard`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hpo.adapters.loggers.base import StudyLogger, imported
from hpo.space.arguments import File
from hpo.study.callbacks import StudyState
from hpo.trials import Observation, Trial

__all__ = ["TensorBoardLogger"]

_WRITER = "torch.utils.tensorboard"


class TensorBoardLogger(StudyLogger):
    """Writes one run for each trial and one of the study, with the configs as hyperparameters.

    `tensorboard --logdir runs` then has the curves of all trials, and the HParams tab their
    configs beside their results.

    Args:
        folder: Folder of the event files; the study gets one of its name in it.

    Raises:
        ImportError: Without tensorboard.

    Example:
        Needs the extra `tensorboard`::

            optimize(train, space, budget=Budget(trials=50), name="run-1",
                     callbacks=[TensorBoardLogger("runs")])
    """

    def __init__(self, folder: str | Path = "runs") -> None:
        super().__init__()
        self._folder = self._root = File()(folder, "`folder`")
        self._writer_of = imported(_WRITER, type(self).__name__, "tensorboard").SummaryWriter
        self._study: Any = None
        self._trials: dict[int, Any] = {}
        self._described: set[int] = set()  # trials whose config is written

    def open_study(self, run: StudyState) -> None:
        """Open the event file of the study."""
        self._root = self._folder / (run.name or "study").replace("/", "_")
        self._study = self._writer_of(str(self._root / "study"))

    def open_trial(self, trial: Trial) -> None:
        """Open an event file of the trial."""
        self._trials[trial.number] = self._writer_of(str(self._root / f"trial-{trial.number:04d}"))

    def log_step(self, trial: Trial, step: int, numbers: Mapping[str, float]) -> None:
        """Write what the trial has reported."""
        for name, value in numbers.items():
            self._trials[trial.number].add_scalar(name, value, step)

    def close_trial(
        self, trial: Trial, observation: Observation, numbers: Mapping[str, float]
    ) -> None:
        """Write results and, the first time, hyperparameters; close the event file."""
        writer = self._trials.pop(trial.number)
        results = {f"final/{name}": value for name, value in numbers.items()}
        if trial.number not in self._described:
            self._describe(writer, trial, results)
        step = observation.reports[-1].step if observation.reports else 0
        for name, value in results.items():
            writer.add_scalar(name, value, step)
        writer.close()

    def _describe(self, writer: Any, trial: Trial, results: Mapping[str, float]) -> None:
        """Write the config as hyperparameters, whose results are the scalars of these names."""
        self._described.add(trial.number)
        config = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in trial.config.items()
        }
        summary = imported(f"{_WRITER}.summary", type(self).__name__, "tensorboard")
        for part in summary.hparams(config, dict(results)):  # add_hparams would add a run
            writer.file_writer.add_summary(part)

    def log_progress(self, count: int, numbers: Mapping[str, float]) -> None:
        """Write how far the study is."""
        for name, value in numbers.items():
            self._study.add_scalar(name, value, count)

    def close_study(self, best: Mapping[str, Any] | None, *, failed: bool) -> None:
        """Write the best config as a text, and close all event files."""
        if best is not None:
            rows = "".join(f"| {name} | {value} |\n" for name, value in best.items())
            self._study.add_text("best", f"| setting | value |\n|---|---|\n{rows}")
        for writer in (*self._trials.values(), self._study):
            if writer is not None:
                writer.close()
        self._trials, self._study = {}, None
