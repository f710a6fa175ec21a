"""Trials and their results: records, append-only log, budget and Pareto front."""

from hpo.trials.log import Event, Reported, TrialLog
from hpo.trials.reason import Reason, ReasonKind
from hpo.trials.records import (
    BranchLoss,
    Cause,
    FurthestStep,
    Observation,
    Prediction,
    Report,
    RungAssignment,
    Status,
    Trial,
)

__all__ = [
    "BranchLoss",
    "Prediction",
    "Cause",
    "Event",
    "FurthestStep",
    "Observation",
    "Reason",
    "ReasonKind",
    "Report",
    "Reported",
    "RungAssignment",
    "Status",
    "Trial",
    "TrialLog",
]
