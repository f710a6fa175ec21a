"""scaletune: tune the small model, train the big one.

The names below are the public face. Spaces, errors and records are imported at once; what needs
SciPy, Optuna or torch is loaded when its name is first used, so `import hpo` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from hpo.errors import BudgetError, SpaceError, Stop, StudyError
from hpo.space import Axis, Categorical, Fidelity, Float, Int, Role, Scale, SearchSpace
from hpo.trials import Cause, Observation, Prediction, Reason, ReasonKind, Report, Status, Trial

if TYPE_CHECKING:
    from hpo.diagnostics.norms import check_norms as check_norms
    from hpo.diagnostics.resume_check import Continuation, check_continuation
    from hpo.diagnostics.transfer_check import TransferCheck, check_transfer
    from hpo.models.lr_sensitivity import Instability
    from hpo.optimizer.ask_tell import Optimizer
    from hpo.optimizer.multi_fidelity import StagedOptimizer
    from hpo.optimizer.recommend import Recommendation
    from hpo.optimizer.result import Result
    from hpo.scaling.claims import Level, Neutral, Slope
    from hpo.scaling.cost_law import CostLaw
    from hpo.scaling.transfer_rules import (
        AdamWTimescale,
        CompleteP,
        DeepSeekLaw,
        DepthMuP,
        KaplanLR,
        MuP,
        PowerScheduler,
        ScalingExponents,
        StepLaw,
        TimeTransfer,
        TokenHorizon,
        WeightDecayTransfer,
    )
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
    from hpo.study.callbacks import Callback
    from hpo.study.context import Context
    from hpo.study.optimize import load_result, optimize
    from hpo.study.process_runner import ProcessRunner
    from hpo.study.processes.ranks import connect, launch
    from hpo.study.runners import InlineRunner
    from hpo.trials.budget import Budget, Limits, Regret
    from hpo.trials.read_runs import Runs, read_runs

__all__ = [
    "ASHA",
    "AdamWTimescale",
    "Axis",
    "Budget",
    "BudgetError",
    "Callback",
    "Categorical",
    "Cause",
    "CompleteP",
    "Context",
    "Continuation",
    "CostLaw",
    "DeepSeekLaw",
    "DepthMuP",
    "Fidelity",
    "Float",
    "FreezeThaw",
    "Hyperband",
    "InlineRunner",
    "Instability",
    "Int",
    "IterativeDeepening",
    "KaplanLR",
    "Level",
    "Limits",
    "MedianStopping",
    "MuP",
    "Neutral",
    "Observation",
    "OneEpoch",
    "Optimizer",
    "PASHA",
    "PBT",
    "PowerScheduler",
    "Prediction",
    "ProcessRunner",
    "Reason",
    "ReasonKind",
    "Regret",
    "Recommendation",
    "Report",
    "Result",
    "Role",
    "Runs",
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
    "WeightDecayTransfer",
    "check_continuation",
    "check_norms",
    "check_transfer",
    "connect",
    "launch",
    "load_result",
    "optimize",
    "read_runs",
]

_LAZY = {
    "ASHA": "hpo.schedulers",
    "PASHA": "hpo.schedulers",
    "PBT": "hpo.schedulers",
    "AdamWTimescale": "hpo.scaling.transfer_rules",
    "Budget": "hpo.trials.budget",
    "Callback": "hpo.study.callbacks",
    "CompleteP": "hpo.scaling.transfer_rules",
    "Context": "hpo.study.context",
    "Continuation": "hpo.diagnostics.resume_check",
    "CostLaw": "hpo.scaling.cost_law",
    "DeepSeekLaw": "hpo.scaling.transfer_rules",
    "DepthMuP": "hpo.scaling.transfer_rules",
    "FreezeThaw": "hpo.schedulers",
    "Hyperband": "hpo.schedulers",
    "InlineRunner": "hpo.study.runners",
    "Instability": "hpo.models.lr_sensitivity",
    "IterativeDeepening": "hpo.schedulers",
    "KaplanLR": "hpo.scaling.transfer_rules",
    "Level": "hpo.scaling.claims",
    "Limits": "hpo.trials.budget",
    "MedianStopping": "hpo.schedulers",
    "MuP": "hpo.scaling.transfer_rules",
    "Neutral": "hpo.scaling.claims",
    "OneEpoch": "hpo.schedulers",
    "Optimizer": "hpo.optimizer.ask_tell",
    "PowerScheduler": "hpo.scaling.transfer_rules",
    "ProcessRunner": "hpo.study.process_runner",
    "Regret": "hpo.trials.budget",
    "Recommendation": "hpo.optimizer.recommend",
    "Result": "hpo.optimizer.result",
    "Runs": "hpo.trials.read_runs",
    "ScalingExponents": "hpo.scaling.transfer_rules",
    "Slope": "hpo.scaling.claims",
    "StagedOptimizer": "hpo.optimizer.multi_fidelity",
    "StepLaw": "hpo.scaling.transfer_rules",
    "SuccessiveHalving": "hpo.schedulers",
    "TimeTransfer": "hpo.scaling.transfer_rules",
    "TokenHorizon": "hpo.scaling.transfer_rules",
    "TransferCheck": "hpo.diagnostics.transfer_check",
    "WeightDecayTransfer": "hpo.scaling.transfer_rules",
    "check_continuation": "hpo.diagnostics.resume_check",
    "check_norms": "hpo.diagnostics.norms",
    "check_transfer": "hpo.diagnostics.transfer_check",
    "connect": "hpo.study.processes.ranks",
    "launch": "hpo.study.processes.ranks",
    "load_result": "hpo.study.optimize",
    "optimize": "hpo.study.optimize",
    "read_runs": "hpo.trials.read_runs",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":  # of the installed package; reading it takes longer than the import
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version("scaletune")
        except PackageNotFoundError:  # a clone that was not installed
            return "unknown"
    if name not in _LAZY:
        raise AttributeError(f"module 'hpo' has no attribute {name!r}")
    value = getattr(import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
