"""Schedulers: which runs pause, stop, are promoted or cloned at which level of a fidelity.

`base` has the protocol, `run_history` what schedules read from the log.
"""

from hpo.schedulers.asha import ASHA, ASHAVariant
from hpo.schedulers.base import (
    Action,
    Clone,
    Decision,
    Forecast,
    Forecaster,
    Promote,
    Schedule,
    Scheduler,
    Setup,
    Start,
    StoppingRule,
)
from hpo.schedulers.freeze_thaw import FreezeThaw
from hpo.schedulers.hyperband import Hyperband, IterativeDeepening, SuccessiveHalving, Variant
from hpo.schedulers.ladder import Ladder
from hpo.schedulers.median import MedianStopping
from hpo.schedulers.one_epoch import OneEpoch
from hpo.schedulers.pasha import PASHA
from hpo.schedulers.pbt import PBT, Stretch, ancestry

__all__ = [
    "ASHA",
    "PASHA",
    "PBT",
    "ASHAVariant",
    "Action",
    "Clone",
    "Decision",
    "Forecast",
    "Forecaster",
    "FreezeThaw",
    "Hyperband",
    "IterativeDeepening",
    "Ladder",
    "MedianStopping",
    "OneEpoch",
    "Promote",
    "Schedule",
    "Scheduler",
    "Setup",
    "Start",
    "StoppingRule",
    "Stretch",
    "SuccessiveHalving",
    "Variant",
    "ancestry",
]
