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
    from hpo.optimizer import Optimizer
    from hpo.result import Recommendation, Result
    from hpo.runners import InlineRunner, ProcessRunner
    from hpo.study import optimize
    from hpo.training.context import Context

__all__ = [
    "Axis",
    "Belief",
    "Budget",
    "BudgetError",
    "Callback",
    "Categorical",
    "Cause",
    "Context",
    "Fidelity",
    "Float",
    "InlineRunner",
    "Int",
    "Limits",
    "Observation",
    "Optimizer",
    "ProcessRunner",
    "Recommendation",
    "Report",
    "Result",
    "Role",
    "Scale",
    "SearchSpace",
    "SpaceError",
    "Status",
    "Stop",
    "StudyError",
    "Trial",
    "optimize",
]

_LAZY = {
    "Budget": "hpo.budget",
    "Callback": "hpo.callbacks",
    "Context": "hpo.training.context",
    "InlineRunner": "hpo.runners",
    "Limits": "hpo.budget",
    "Optimizer": "hpo.optimizer",
    "ProcessRunner": "hpo.runners",
    "Recommendation": "hpo.result",
    "Result": "hpo.result",
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
