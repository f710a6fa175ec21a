"""What the callbacks that log a study share: which numbers are logged, and when.

Each trial becomes a run of the other tool, with its config, what it reports at each step, and at
its end the numbers of `final_numbers`. Beside the trials there is one run of the study, with the
best value and what was spent after each result. A trial that pauses keeps its run, which continues
when it is promoted.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import ModuleType
from typing import Any

from hpo.adapters.amounts import numbers_among
from hpo.optimizer.result import Result
from hpo.space import Direction
from hpo.study.callbacks import Callback, StudyState
from hpo.trials import Observation, Report, Status, Trial
from hpo.trials.records import SECONDS

__all__ = ["StudyLogger", "final_numbers", "imported"]

_log = logging.getLogger(__name__)


def imported(module: str, user: str, extra: str) -> ModuleType:
    """Return a module of an optional package.

    Args:
        module: Name of the module.
        user: Who needs it, for the message.
        extra: Extra of scaletune that installs it.

    Raises:
        ImportError: If it cannot be imported; the message says what to install.

    Example:
        >>> imported("math", "this", "none").sqrt(4.0)
        2.0
    """
    try:
        return import_module(module)
    except ImportError as error:
        raise ImportError(
            f"{user} needs {module.partition('.')[0]}, which cannot be imported ({error}); run: "
            f"pip install 'scaletune[{extra}]'"
        ) from error


def final_numbers(trial: Trial, observation: Observation, noun: str = "loss") -> dict[str, float]:
    """Return the numbers of a trial that ended or paused, by the names under which they are logged.

    Args:
        trial: The trial.
        observation: Its result.
        noun: Name of the objective: "loss", or "value" of a maximized one.

    Returns:
        The objective, cost and seconds, the trial's metrics, and what was predicted before it ran
        with its 90 % interval; what is unknown is left out.

    Example:
        >>> from hpo import Float, Optimizer
        >>> optimizer = Optimizer({"x": Float(0, 1)})
        >>> trial = optimizer.ask()
        >>> told = optimizer.tell(trial, loss=0.5, cost=2.0)
        >>> final_numbers(trial, optimizer.log.observation(trial.number))
        {'loss': 0.5, 'cost': 2.0}
    """
    found: dict[str, float | None] = {
        noun: observation.loss,
        "cost": observation.cost,
        SECONDS: observation.seconds,
    }
    prediction = trial.prediction
    if prediction is not None and prediction.loss is not None:
        found[f"predicted_{noun}"] = prediction.loss
        if prediction.loss_interval is not None:
            low, high = prediction.loss_interval
            found |= {f"predicted_{noun}_low": low, f"predicted_{noun}_high": high}
    known = {name: float(value) for name, value in found.items() if value is not None}
    return {**numbers_among(observation.metrics), **known}


class StudyLogger(Callback):
    """Base class of callbacks that log a study to another tool.

    What fails while the study runs, as a tracking server that is away, is logged as a warning once
    for each kind of error, and the study continues. What fails when it opens ends it, so that a
    wrong address or a missing login is seen at once.
    """

    def __init__(self) -> None:
        self._noun = "loss"
        self._sign = 1.0
        self._best: float | None = None
        self._failed: set[type[Exception]] = set()

    @abstractmethod
    def open_study(self, run: StudyState) -> None:
        """Open the run of the study."""

    @abstractmethod
    def open_trial(self, trial: Trial) -> None:
        """Open the run of a trial, or open it again after a pause."""

    @abstractmethod
    def log_step(self, trial: Trial, step: int, numbers: Mapping[str, float]) -> None:
        """Log what a running trial has reported."""

    @abstractmethod
    def close_trial(
        self, trial: Trial, observation: Observation, numbers: Mapping[str, float]
    ) -> None:
        """Log how a trial ended or paused, and close its run."""

    @abstractmethod
    def log_progress(self, count: int, numbers: Mapping[str, float]) -> None:
        """Log the best value and what was spent after `count` results, those of pauses included."""

    @abstractmethod
    def close_study(self, best: Mapping[str, Any] | None, *, failed: bool) -> None:
        """Log the config that is best by the models, and close everything that is open."""

    def on_start(self, run: StudyState) -> None:
        """Open the run of the study."""
        direction = Direction(run.direction)
        self._noun, self._sign = direction.noun, direction.sign
        losses = [o.loss for o in run.log.runs if o.status is Status.COMPLETED]
        self._best = min((self._sign * loss for loss in losses if loss is not None), default=None)
        self.open_study(run)

    def on_trial_start(self, run: StudyState, trial: Trial) -> None:
        """Open the run of the trial."""
        with self._passed_over():
            self.open_trial(trial)

    def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
        """Log the report."""
        known = {self._noun: report.loss, "cost": report.cost}
        numbers = {name: float(value) for name, value in known.items() if value is not None}
        with self._passed_over():
            self.log_step(trial, report.step, {**numbers_among(report.metrics), **numbers})

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        """Log the result, and how far the study is."""
        with self._passed_over():
            numbers = final_numbers(trial, observation, self._noun)
            self.close_trial(trial, observation, numbers)
        if observation.status is Status.COMPLETED and observation.loss is not None:
            loss = self._sign * observation.loss
            self._best = loss if self._best is None else min(self._best, loss)
        spent = run.ledger.spent
        progress = {
            "spent_trials": float(spent.trials),
            "spent_seconds": spent.seconds,
            "spent_cost": spent.cost,
        }
        if self._best is not None:
            progress[f"best_{self._noun}"] = self._sign * self._best
        with self._passed_over():
            self.log_progress(run.log.next_order, progress)

    def on_error(self, run: StudyState, error: BaseException) -> None:
        """Close what is open."""
        with self._passed_over():
            self.close_study(None, failed=True)

    def on_finish(self, run: StudyState, result: Result) -> None:
        """Log the best config, and close what is open."""
        best = result.best if result.candidates() else None
        with self._passed_over():
            self.close_study(None if best is None else best.config, failed=False)

    @contextmanager
    def _passed_over(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a network, a server or a disk: the study is worth more
            if type(error) not in self._failed:
                self._failed.add(type(error))
                _log.warning(
                    "%s could not log (%s: %s); the study continues, and says this once",
                    type(self).__name__,
                    type(error).__name__,
                    error,
                )
