"""Who runs on and who stops: what a scheduler is asked and what it may answer.

A scheduler looks at one report of a running trial and at everything told so far, and decides about
that trial; it never proposes configurations.
"""

from __future__ import annotations

from enum import Enum
from typing import Protocol

from hpo.observations import Report, Trial, TrialLog


class Decision(Enum):
    """The answer to a report."""

    CONTINUE = "continue"
    STOP = "stop"


class Scheduler(Protocol):
    """Decides at each report whether the trial is worth its further cost."""

    def on_report(self, trial: Trial, report: Report, log: TrialLog) -> Decision:
        """Judge `trial` at its newest `report`, given all trials in `log`."""
        ...


__all__ = ["Decision", "Scheduler"]
