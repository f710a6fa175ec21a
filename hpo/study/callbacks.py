"""Watching a study from outside: what a callback is told, and when.

Derive from `Callback` and override what is of interest:

    class Notify(Callback):
        def on_trial_end(self, run, trial, observation):
            send(f"{run.name}: trial {trial.number} gave {observation.loss}")

All methods are called in the driver, one at a time. What they raise ends the study, with everything
told so far in place. Trials told before a resume are not announced again; they are in `run.log`.
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

    `cost`: the declared unit; None for seconds that are recorded only. `target`: scale values the
    user will train at, or None.
    """

    name: str | None
    direction: str
    cost: str | None
    target: Mapping[str, float] | None
    workers: int
    log: TrialLog
    ledger: Ledger


class Callback:
    """Does nothing at each moment of a study."""

    def on_start(self, run: StudyState) -> None:
        """The study was opened and, if it existed, read back; nothing runs yet."""

    def on_trial_start(self, run: StudyState, trial: Trial) -> None:
        """`trial` is about to run.

        One that is promoted comes again, with a higher level in its place; a lost one that is
        retried comes again under a new number.
        """

    def on_report(self, run: StudyState, trial: Trial, report: Report) -> None:
        """`trial` reported, and has not had its answer yet."""

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        """`trial` was told, or paused at its level, and the result is written."""

    def on_error(self, run: StudyState, error: BaseException) -> None:
        """The study ends with `error`, which `optimize` raises next; there is no result."""

    def on_finish(self, run: StudyState, result: Result) -> None:
        """Nothing runs any more: the budget is used, or the study was interrupted."""
