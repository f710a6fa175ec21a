"""scaletune: tune the small model, train the big one.

The names below are the public face. Spaces, errors and records are imported at once; what needs
SciPy, Optuna or torch is loaded when its name is first used, so `import hpo` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpo.errors import BudgetError, SpaceError, Stop, StudyError
from hpo.observations import Belief, Cause, Observation, Report, Status, Trial
from hpo.space import Axis, Categorical, Fidelity, Float, Int, Role, Scale, SearchSpace

if TYPE_CHECKING:
    from hpo.budget import Budget, Limits
    from hpo.callbacks import Callback
    from hpo.continuation import Continuation, check_continuation
    from hpo.cost_law import CostLaw
    from hpo.instability import Instability
    from hpo.optimizer import Optimizer
    from hpo.prediction import Prediction
    from hpo.priors import (
        AdamWTimescale,
        CompleteP,
        DepthMuP,
        Level,
        MuP,
        PowerScheduler,
        ScalingExponents,
        Slope,
        StepLaw,
        TimeTransfer,
        TokenHorizon,
    )
    from hpo.result import Recommendation, Result
    from hpo.runners import InlineRunner, ProcessRunner
    from hpo.schedulers import (
        ASHA,
        PASHA,
        PBT,
        FreezeThaw,
        Hyperband,
        IterativeDeepening,
        MedianStopping,
        OneEpoch,
        SuccessiveHalving,
    )
    from hpo.staged import StagedOptimizer
    from hpo.study import load_result, optimize
    from hpo.training.context import Context
    from hpo.transfer_check import TransferCheck, check_transfer

__all__ = [
    "ASHA",
    "PASHA",
    "PBT",
    "AdamWTimescale",
    "Axis",
    "Belief",
    "Budget",
    "BudgetError",
    "Callback",
    "Categorical",
    "Cause",
    "CompleteP",
    "Context",
    "Continuation",
    "CostLaw",
    "DepthMuP",
    "Fidelity",
    "Float",
    "FreezeThaw",
    "Hyperband",
    "InlineRunner",
    "Instability",
    "Int",
    "IterativeDeepening",
    "Level",
    "Limits",
    "MedianStopping",
    "MuP",
    "Observation",
    "OneEpoch",
    "Optimizer",
    "PowerScheduler",
    "Prediction",
    "ProcessRunner",
    "Recommendation",
    "Report",
    "Result",
    "Role",
    "Scale",
    "ScalingExponents",
    "SearchSpace",
    "Slope",
    "SpaceError",
    "StagedOptimizer",
    "Status",
    "StepLaw",
    "Stop",
    "StudyError",
    "SuccessiveHalving",
    "TimeTransfer",
    "TokenHorizon",
    "TransferCheck",
    "Trial",
    "check_continuation",
    "check_transfer",
    "load_result",
    "optimize",
]

_LAZY = {
    "ASHA": "hpo.schedulers",
    "PASHA": "hpo.schedulers",
    "PBT": "hpo.schedulers",
    "AdamWTimescale": "hpo.priors",
    "Budget": "hpo.budget",
    "Callback": "hpo.callbacks",
    "CompleteP": "hpo.priors",
    "Context": "hpo.training.context",
    "Continuation": "hpo.continuation",
    "CostLaw": "hpo.cost_law",
    "DepthMuP": "hpo.priors",
    "FreezeThaw": "hpo.schedulers",
    "Hyperband": "hpo.schedulers",
    "InlineRunner": "hpo.runners",
    "Instability": "hpo.instability",
    "IterativeDeepening": "hpo.schedulers",
    "Level": "hpo.priors",
    "Limits": "hpo.budget",
    "MedianStopping": "hpo.schedulers",
    "MuP": "hpo.priors",
    "OneEpoch": "hpo.schedulers",
    "Optimizer": "hpo.optimizer",
    "PowerScheduler": "hpo.priors",
    "Prediction": "hpo.prediction",
    "ProcessRunner": "hpo.runners",
    "Recommendation": "hpo.result",
    "Result": "hpo.result",
    "ScalingExponents": "hpo.priors",
    "Slope": "hpo.priors",
    "StagedOptimizer": "hpo.staged",
    "StepLaw": "hpo.priors",
    "SuccessiveHalving": "hpo.schedulers",
    "TimeTransfer": "hpo.priors",
    "TokenHorizon": "hpo.priors",
    "TransferCheck": "hpo.transfer_check",
    "check_continuation": "hpo.continuation",
    "check_transfer": "hpo.transfer_check",
    "load_result": "hpo.study",
    "optimize": "hpo.study",
}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
