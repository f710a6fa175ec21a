"""Callbacks: functions of the user that a study calls as it proceeds.

All methods are called in the driver, one at a time. An error that they raise ends the study, with
everything told so far in place. Trials told before a resume are not announced again; they are in
`run.log`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hpo.optimizer.result import Result
from hpo.trials import Observation, Report, Trial, TrialLog
from hpo.trials.budget import Ledger


@dataclass(frozen=True, slots=True)
class StudyState:
    """A study while it is driven. `log` and `ledger` are live: read, do not write.

    Attributes:
        name: Name of the study; None in memory.
        direction: Direction of the loss.
        cost: Declared unit of the costs; None for costs that are derived from the config, if any.
        target: Value of each scale axis of the final training, or None.
        workers: Number of trials at a time.
        log: Every trial, report and result so far.
        ledger: What the study has spent.
    """

    name: str | None
    direction: str
    cost: str | None
    target: Mapping[str, float] | None
    workers: int
    log: TrialLog
    ledger: Ledger


class Callback:
    """Base class of callbacks, which does nothing: derive from it and override what you need.

    Example:
        >>> from hpo import Budget, Callback, Float, optimize
        >>> class Announce(Callback):
        ...     def on_trial_end(self, run, trial, observation):
        ...         print(f"trial {trial.number}: {observation.status.value}")
        >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...                   budget=Budget(trials=2), callbacks=[Announce()])
        trial 0: completed
        trial 1: completed
    """

    def on_start(self, run: StudyState) -> None:
        """Called when the study is open and, if it existed, read back; nothing runs yet.

        Example:
            >>> from hpo import Budget, Float, optimize
            >>> class Plan(Callback):
            ...     def on_start(self, run):
            ...         print(f"{run.ledger.remaining_trials} trials, {run.workers} at a time")
            >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
            ...                   budget=Budget(trials=2), callbacks=[Plan()])
            2 trials, 1 at a time
        """

    def on_trial_start(self, run: StudyState, trial: Trial) -> None:
        """Called before `trial` runs.

        A promoted trial is announced again, with a higher level in its assignment; a lost one that
        is retried is announced again under a new number.

        Example:
            >>> from hpo import Budget, Float, optimize
            >>> class Announce(Callback):
            ...     def on_trial_start(self, run, trial):
            ...         print(f"trial {trial.number}: {trial.prediction.reason.kind.value}")
            >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
            ...                   budget=Budget(trials=2), callbacks=[Announce()])
            trial 0: start point
            trial 1: start point
        """

    def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
        """Called when `trial` has reported, before its report is answered.

        Example:
            >>> from hpo import Budget, Float, optimize
            >>> class Watch(Callback):
            ...     def on_report(self, run, trial, report):
            ...         print(f"trial {trial.number}, step {report.step}: loss {report.loss}")
            >>> def train(config, ctx):
            ...     for step in (1, 2):
            ...         ctx.report(step=step, loss=1 / step)
            ...     return 1 / step
            >>> result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=1),
            ...                   callbacks=[Watch()])
            trial 0, step 1: loss 1.0
            trial 0, step 2: loss 0.5
        """

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        """Called when `trial` ended or paused at its level, and the result is written.

        Example:
            >>> from hpo import Budget, Categorical, optimize
            >>> class Announce(Callback):
            ...     def on_trial_end(self, run, trial, observation):
            ...         print(f"trial {trial.number}: loss {observation.loss}")
            >>> result = optimize(lambda config, ctx: 0.25, {"x": Categorical(["a", "b"])},
            ...                   budget=Budget(trials=2), callbacks=[Announce()])
            trial 0: loss 0.25
            trial 1: loss 0.25
        """

    def on_error(self, run: StudyState, error: BaseException) -> None:
        """Called when the study ends with `error`, which `optimize` raises next.

        Example:
            >>> from contextlib import suppress
            >>> from hpo import Budget, Float, optimize
            >>> class Alert(Callback):
            ...     def on_error(self, run, error):
            ...         print(f"trial {len(run.log) - 1} ended the study: {type(error).__name__}")
            >>> with suppress(TypeError):  # this function returns no loss
            ...     optimize(lambda config, ctx: None, {"x": Float(0, 1)},
            ...              budget=Budget(trials=2), callbacks=[Alert()])
            trial 0 ended the study: TypeError
        """

    def on_finish(self, run: StudyState, result: Result) -> None:
        """Called when nothing runs any more: the budget is used, or the study was interrupted.

        Example:
            >>> from hpo import Budget, Float, optimize
            >>> class Summary(Callback):
            ...     def on_finish(self, run, result):
            ...         print(f"{run.ledger.spent.trials} trials, {len(result.log)} in the log")
            >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
            ...                   budget=Budget(trials=3), callbacks=[Summary()])
            3 trials, 3 in the log
        """
