"""Who runs on and who stops: schedulers over the levels of a fidelity; `base` has the protocol."""

from hpo.schedulers.asha import ASHA, PASHA, Kind
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
from hpo.schedulers.pbt import PBT, Stretch, ancestry

__all__ = [
    "ASHA",
    "PASHA",
    "PBT",
    "Action",
    "Clone",
    "Decision",
    "Forecast",
    "Forecaster",
    "FreezeThaw",
    "Hyperband",
    "IterativeDeepening",
    "Kind",
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
