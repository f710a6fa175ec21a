"""What scaletune raises.

Callers' mistakes are `ValueError`s refused at the boundary; a study that cannot go on is a
`RuntimeError`; `Stop` is control flow. Messages name the argument, the rule, the value and the way
out.
"""

__all__ = ["BudgetError", "SpaceError", "Stop", "StudyError"]


class SpaceError(ValueError):
    """A search space, or a config meant for one, breaks a rule of the space."""


class BudgetError(ValueError):
    """A budget or a limit that cannot be kept, or a cost that was declared and never reported."""


class StudyError(RuntimeError):
    """A stored study cannot be opened, resumed or written."""


class Stop(BaseException):
    """Raised by `ctx.report` when the scheduler ends the trial.

    Derives from `BaseException`, as `KeyboardInterrupt` does, so that a training function's own
    `except Exception` cannot swallow it.
    """
