"""Trials and their results: records, the append-only log, the budget and the Pareto front."""

from hpo.trials.log import Event, Reported, TrialLog
from hpo.trials.records import Belief, Cause, Observation, Place, Report, Status, Trial

__all__ = [
    "Belief",
    "Cause",
    "Event",
    "Observation",
    "Place",
    "Report",
    "Reported",
    "Status",
    "Trial",
    "TrialLog",
]
