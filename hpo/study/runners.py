"""Where trials run: the contract of runners, and the one that runs trials in the driver itself.

A runner takes jobs, returns how they ended, and carries reports and decisions in between:

    task     what all jobs of a study share: the training function, how to read a config, the limits
    job      one trial to run, its seed and its checkpoint folder
    outcome  how a job ended, as its process or its runner saw it

`execute` turns whatever a training function does (return, raise, diverge, run out of memory) into
an outcome; the driver and worker processes share this code. What is not the function's doing never
becomes a result of its config: an error of the driver itself, such as one of its storage or of a
callback, is raised in the driver, and a failing disk or process is an outcome made by `lost`.
"""

from __future__ import annotations

import errno
import math
import os
import sys
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from hpo.errors import BudgetError, Stop, StudyError
from hpo.schedulers import Decision
from hpo.space.scalars import metric_values, to_float
from hpo.study.checkpoints import CheckpointKey, causes
from hpo.study.context import Channel, Consumed, Context, to_cost
from hpo.study.processes import ranks  # noqa: F401  a context becomes that of a rank when it is sent
from hpo.trials import BranchLoss, Cause, FurthestStep, Report, Status, Trial
from hpo.trials.budget import Limits
from hpo.trials.pareto import Objectives
from hpo.trials.records import SECONDS

TrainFunction: TypeAlias = Callable[[dict[str, Any], Context], Any]
OnReport: TypeAlias = Callable[[Trial, Report], Decision]

_LONGEST_TEXT = 4000  # characters of a traceback that are kept, from its end

# What disks, file servers and networks do, whatever the config.
_MACHINE_ERRORS = frozenset(
    number
    for name in (
        "ENOSPC EDQUOT EIO EROFS ESTALE ENXIO ENODEV ENFILE EREMOTEIO ETIMEDOUT EHOSTDOWN "
        "EHOSTUNREACH ENETDOWN ENETUNREACH ENETRESET"
    ).split()
    if (number := getattr(errno, name, None)) is not None
)
_MACHINE_SIGNS = (  # in errors of torch, which has no types for them
    "PytorchStreamWriter failed",
    "PytorchStreamReader failed",
    "killed by signal: Killed",
    "killed by signal: Bus error",
)


@dataclass(frozen=True, slots=True)
class Task:
    """What all trials of a study share.

    Attributes:
        train: The training function.
        fidelity: Name of the fidelity in a config, if there is one.
        scales: Names of the scale axes in a config.
        limits: Limits of each trial.
        objectives: Objectives and constraints, whose values a completed run returns; None for one
            loss.
    """

    train: TrainFunction
    fidelity: str | None
    scales: tuple[str, ...]
    limits: Limits
    objectives: Objectives | None = None

    def context(self, job: Job, channel: Channel) -> Context:
        """Return the context of a job, which sees the level to train up to now.

        Args:
            job: The trial to run.
            channel: Connection over which its reports reach the driver.
        """
        trial = job.trial
        furthest = FurthestStep.of(trial, self.fidelity)
        if self.fidelity is not None and trial.assignment is not None:
            trial = replace(trial, config={**trial.config, self.fidelity: trial.assignment.level})
        return Context(
            trial,
            seed=job.seed,
            channel=channel,
            checkpoint_dir=job.checkpoint_dir,
            checkpoint_key=job.checkpoint_key,
            fidelity=None if self.fidelity is None else trial.config[self.fidelity],
            scale={name: trial.config[name] for name in self.scales},
            consumed=job.consumed,
            furthest=furthest,
        )

    def pauses(self, trial: Trial) -> bool:
        """Return whether a run of `trial` pauses when it returns: its config allows more."""
        if self.fidelity is None or trial.assignment is None:
            return False
        highest: int = trial.config[self.fidelity]
        return trial.assignment.level < highest


@dataclass(frozen=True, slots=True)
class Job:
    """One trial to run.

    Attributes:
        trial: The trial.
        seed: Seed of its own randomness.
        checkpoint_dir: Folder for its checkpoints.
        confirming: Whether it is a run of the recommendation at the target, which may be far larger
            than any trial of the search, and so is not bound by the time limit of those.
        consumed: What earlier stages have used.
        checkpoint_key: Key of the checkpoints it may write and read; None outside of a study.
    """

    trial: Trial
    seed: int
    checkpoint_dir: Path
    confirming: bool = False
    consumed: Consumed = Consumed()
    checkpoint_key: CheckpointKey | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended.

    Attributes:
        number: Number of the trial.
        status: Completed, paused, stopped or failed.
        seconds: Wall-clock time of the training function, over all stages of the trial.
        cause: Cause of a failure.
        loss: Loss in the user's direction.
        cost: Cost of all stages of the trial, in the study's unit; None if none was reported in
            this one.
        metrics: Further results.
        branches: Losses of runs of other sizes that the trial found on its way.
        text: A traceback or a reason.
        refusal: The error that ends the study: at once where the function broke the rules of
            `optimize`, and for a lost trial once it has been tried in vain. A lost trial without
            one ended its own process, and counts as failed in the end.
    """

    number: int
    status: Status
    seconds: float
    cause: Cause | None = None
    loss: float | None = None
    cost: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    branches: tuple[BranchLoss, ...] = ()
    text: str = ""
    refusal: Exception | None = None


class Runner(Protocol):
    """Runs jobs of one study. Calls come from one thread, `open` first and `close` last."""

    @property
    def interruptible(self) -> bool:
        """Whether `poll` itself runs the training function, so that Ctrl-C must interrupt it."""
        ...

    def open(self, task: Task, workers: int) -> None:
        """Prepare to run up to `workers` jobs of `task` at a time.

        Args:
            task: What all jobs share.
            workers: Largest number of unfinished jobs.

        Raises:
            TypeError: For a training function that this runner cannot run.
            ValueError: For limits or workers that this runner does not support.
        """
        ...

    def submit(self, job: Job) -> None:
        """Take on a job; at most `workers` are unfinished at any time."""
        ...

    def poll(self, timeout: float, on_report: OnReport) -> list[Outcome]:
        """Answer reports, and return the jobs that ended.

        Args:
            timeout: Seconds to wait at most, about.
            on_report: Called as `on_report(trial, report)`, once per report; its answer is carried
                back to the trial.
        """
        ...

    def kill(self, number: int) -> None:
        """End trial `number` now, without an outcome and without harm to the others."""
        ...

    def close(self) -> None:
        """Kill what still runs and release all resources; calling it again does nothing."""
        ...


def execute(task: Task, job: Job, channel: Channel) -> Outcome:
    """Run one job to its end, in this process.

    Two things pass through, because they are about the study and not about the trial:
    KeyboardInterrupt, and whatever `channel` raises, even where the function catches it.

    Args:
        task: What all jobs of the study share.
        job: The trial to run.
        channel: Connection over which its reports reach the driver.

    Returns:
        How the trial ended.
    """
    context = task.context(job, channel)
    try:
        outcome = _run(task, job, context)
    finally:
        context.close()
    if context.driver_error is not None:
        raise context.driver_error
    return outcome


def _run(task: Task, job: Job, context: Context) -> Outcome:
    """Run the function of `task` in `context`, and say how that ended."""
    refusal: Exception | None = None
    loss: float | None = None
    cause: Cause | None = None
    metrics: dict[str, Any] = {}
    branches: tuple[BranchLoss, ...] = ()
    text = ""
    try:
        returned = task.train(context.config, context)
    except Stop:
        loss = context.last_loss
        status = Status.PAUSED if context.paused else Status.STOPPED
    except KeyboardInterrupt:
        if context.driver_error is None:
            raise
        status = Status.FAILED  # of no interest: the driver's own error is raised
    except BaseException as error:  # SystemExit, or a cancellation, is the function's own, too
        if context.should_stop and context.has_ranks and isinstance(error, Exception):
            loss = context.last_loss  # this is how a process looks that `Stop` has ended
            status = Status.PAUSED if context.paused else Status.STOPPED
        else:
            status, cause = Status.FAILED, _cause(error, context, job.checkpoint_dir)
            text = traceback_text(error)
            refusal = _plain(error) if error is context.refusal else None
    else:
        status = Status.STOPPED if context.should_stop else Status.COMPLETED
        if context.paused or (status is Status.COMPLETED and task.pauses(job.trial)):
            status = Status.PAUSED
        try:
            loss, metrics, branches = _read_returned(returned, context, task.objectives)
            if task.objectives is not None and status is Status.COMPLETED:
                text = _not_finite(task.objectives, loss, metrics, context)
                loss = math.nan if text else loss
        except (TypeError, ValueError) as error:
            status, cause, text = Status.FAILED, Cause.ERROR, str(error)
            refusal = _plain(error)
        except Exception as error:  # the value itself raised, as a tensor of a broken GPU does
            status, cause, text = (
                Status.FAILED,
                _cause(error, context, job.checkpoint_dir),
                traceback_text(error),
            )
    if status is Status.PAUSED and loss is None:
        status, cause = Status.FAILED, Cause.ERROR
        text = f"no loss was reported up to level {context.fidelity}, where the run was to pause"
        refusal = ValueError(f"{text}; report one, or return it at ctx.fidelity")
    if context.diverged or (loss is not None and not math.isfinite(loss)):
        status, cause = Status.FAILED, Cause.DIVERGED
        text = text or f"the loss became {'non-finite' if context.diverged else loss}"
    if cause is Cause.LOST:
        return lost(job, text, seconds=context.seconds, cost=context.last_cost)
    return Outcome(
        number=job.trial.number,
        status=status,
        seconds=context.seconds,
        cause=cause,
        loss=None if status is Status.FAILED else loss,
        cost=context.last_cost,
        metrics=metrics,
        branches=branches,
        text=text,
        refusal=None if refusal is None else refusal.with_traceback(None),
    )


def lost(
    job: Job,
    text: str,
    *,
    seconds: float,
    cost: float | None = None,
    way_out: str = "mend that and call again",
) -> Outcome:
    """Return the outcome of a job that the machine ended, which says nothing about its config.

    Args:
        job: The trial.
        text: What happened; the last line is what the study's error tells.
        seconds: Wall-clock time of the training function, over all stages of the trial.
        cost: Cost of all stages of the trial, if it was reported.
        way_out: What the user can do about it.
    """
    what = text.strip().rpartition("\n")[2]
    refusal = StudyError(
        f"trial {job.trial.number} cannot be run here, however often it is tried: {what}; "
        f"{way_out}. Nothing was learned from it, and what was told before is still there"
    )
    number = job.trial.number
    return Outcome(
        number, Status.FAILED, seconds, Cause.LOST, cost=cost, text=text, refusal=refusal
    )


def pickled(task: Task, where: str, or_else: str = "") -> bytes:
    """Return a task as bytes that another process can load.

    Args:
        task: What all jobs of a study share.
        where: Where it is to run, for the message.
        or_else: Another way out, for the message.

    Raises:
        TypeError: For a training function that cannot be pickled.
    """
    import cloudpickle  # type: ignore[import-untyped]  # it publishes no types

    try:
        dumped: bytes = cloudpickle.dumps(task)
    except Exception as error:  # what a function refers to may raise anything
        what = _message(error) or type(error).__name__
        raise TypeError(
            f"train_fn must be picklable to run {where}, but {what}; create locks, open files, "
            f"CUDA tensors and the like inside the function{or_else}"
        ) from error
    return dumped


def unloadable(error: Exception) -> str:
    """Return in one line that a worker could not load the training function, and why."""
    what = " ".join(f"{type(error).__name__}: {_message(error)}".split())
    return f"train_fn could not be loaded in the worker ({what})"


def priced(outcome: Outcome, unit: str | None) -> Outcome:
    """Return `outcome` with its cost in the study's unit, or as the error of a missing one.

    Args:
        outcome: How a trial ended.
        unit: Declared unit of the study; "seconds" measures them. None leaves the cost open.

    Example:
        >>> priced(Outcome(0, Status.COMPLETED, seconds=2.5, loss=0.1), "seconds").cost
        2.5
        >>> priced(Outcome(0, Status.COMPLETED, seconds=2.5, loss=0.1), "flops").cause
        <Cause.ERROR: 'error'>
    """
    if unit is None and outcome.cost is not None:
        return _refused(
            outcome,
            BudgetError(
                f"train_fn reported cost={outcome.cost!r}, but optimize() was given no unit "
                'for it; add cost="flops" or another name, or leave the cost out of what it '
                "returns"
            ),
            cost=None,
        )
    if unit is None:
        return outcome
    if unit == SECONDS:
        return outcome if outcome.cost is not None else replace(outcome, cost=outcome.seconds)
    if outcome.cost is None and outcome.status is not Status.FAILED:
        return _refused(
            outcome,
            BudgetError(
                f"cost={unit!r} must be reported by train_fn, but trial {outcome.number} "
                'reported none; return {"loss": ..., "cost": ...} or call '
                'ctx.report(cost=...), or measure time with cost="seconds"'
            ),
            cost=None,
        )
    return outcome


def _refused(outcome: Outcome, refusal: Exception, cost: float | None) -> Outcome:
    """`outcome` as an error that ends the study; an earlier refusal stands."""
    return replace(
        outcome,
        status=Status.FAILED,
        cause=Cause.ERROR,
        loss=None,
        cost=cost,
        text=str(refusal),
        refusal=outcome.refusal or refusal,
    )


class InlineRunner:
    """Runs one trial at a time inside the driver; nothing is pickled, nothing can be killed.

    It is the default of `optimize` for one worker without limits on time or memory.

    Example:
        >>> from hpo import Budget, Float, InlineRunner, optimize
        >>> result = optimize(lambda config, ctx: config["x"] ** 2, {"x": Float(-1, 1)},
        ...                   budget=Budget(trials=3), runner=InlineRunner())
        >>> len(result.log)
        3
    """

    interruptible = True

    def __init__(self) -> None:
        self._task: Task | None = None
        self._jobs: deque[Job] = deque()

    def open(self, task: Task, workers: int) -> None:
        """Prepare to run jobs of `task`; see `Runner.open`.

        Args:
            task: What all jobs share.
            workers: Largest number of unfinished jobs, which must be 1.

        Raises:
            ValueError: For several workers, a time limit or a memory limit.

        Example:
            >>> from hpo import Limits
            >>> task = Task(lambda config, ctx: config["x"] ** 2, None, (), Limits())
            >>> runner = InlineRunner()
            >>> runner.open(task, workers=1)
            >>> runner.open(task, workers=4)  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            ValueError: InlineRunner runs one trial at a time, got workers=4; ...
        """
        if workers != 1:
            raise ValueError(
                f"InlineRunner runs one trial at a time, got workers={workers}; "
                "leave out runner= to get one process per trial"
            )
        if task.limits.seconds is not None or task.limits.memory is not None:
            raise ValueError(
                f"InlineRunner cannot enforce {task.limits}; leave out runner= to run each trial "
                "in a process that can be killed, or drop the limit"
            )
        self._task = task

    def submit(self, job: Job) -> None:
        """Take on a job, which the next `poll` runs; see `Runner.submit`.

        Args:
            job: The trial to run.

        Example:
            >>> from pathlib import Path
            >>> from hpo import Limits, Trial
            >>> from hpo.schedulers import Decision
            >>> task = Task(lambda config, ctx: config["x"] ** 2, None, (), Limits())
            >>> job = Job(Trial(0, {"x": 0.5}, 0, None), seed=0, checkpoint_dir=Path("unused"))
            >>> runner = InlineRunner()
            >>> runner.open(task, workers=1)
            >>> runner.submit(job)
            >>> [outcome] = runner.poll(0.0, lambda trial, report: Decision.CONTINUE)
            >>> outcome.status.value, outcome.loss
            ('completed', 0.25)
        """
        self._jobs.append(job)

    def poll(self, timeout: float, on_report: OnReport) -> list[Outcome]:
        """Run the next job to its end, however long it takes; see `Runner.poll`.

        Args:
            timeout: Ignored, because the job runs inside this call.
            on_report: Function that is called as `on_report(trial, report)` once per report; its
                answer is carried back to the trial.

        Returns:
            The outcome of the job; an empty list if there is no job.

        Example:
            >>> from pathlib import Path
            >>> from hpo import Limits, Trial
            >>> from hpo.schedulers import Decision
            >>> def train(config, ctx):
            ...     for step in range(1, 10):
            ...         ctx.report(step=step, loss=config["x"] / step)
            ...     return config["x"] / step
            >>> runner = InlineRunner()
            >>> runner.open(Task(train, None, (), Limits()), workers=1)
            >>> runner.submit(Job(Trial(0, {"x": 0.5}, 0, None), seed=0,
            ...                   checkpoint_dir=Path("unused")))
            >>> [outcome] = runner.poll(0.0, lambda trial, report: Decision.STOP)
            >>> outcome.status.value, outcome.loss
            ('stopped', 0.5)
            >>> runner.poll(0.0, lambda trial, report: Decision.STOP)
            []
        """
        assert self._task is not None
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        return [execute(self._task, job, _DirectChannel(job.trial, on_report))]

    def kill(self, number: int) -> None:
        """Drop trial `number` if it has not begun; a job that runs cannot be killed.

        Args:
            number: Number of the trial.

        Example:
            >>> from pathlib import Path
            >>> from hpo import Limits, Trial
            >>> from hpo.schedulers import Decision
            >>> task = Task(lambda config, ctx: config["x"] ** 2, None, (), Limits())
            >>> job = Job(Trial(0, {"x": 0.5}, 0, None), seed=0, checkpoint_dir=Path("unused"))
            >>> runner = InlineRunner()
            >>> runner.open(task, workers=1)
            >>> runner.submit(job)
            >>> runner.kill(0)
            >>> runner.poll(0.0, lambda trial, report: Decision.CONTINUE)
            []
        """
        self._jobs = deque(job for job in self._jobs if job.trial.number != number)

    def close(self) -> None:
        """Drop every job that has not begun; calling it again does nothing.

        Example:
            >>> from pathlib import Path
            >>> from hpo import Limits, Trial
            >>> from hpo.schedulers import Decision
            >>> task = Task(lambda config, ctx: config["x"] ** 2, None, (), Limits())
            >>> job = Job(Trial(0, {"x": 0.5}, 0, None), seed=0, checkpoint_dir=Path("unused"))
            >>> runner = InlineRunner()
            >>> runner.open(task, workers=1)
            >>> runner.submit(job)
            >>> runner.close()
            >>> runner.poll(0.0, lambda trial, report: Decision.CONTINUE)
            []
        """
        self._jobs.clear()


@dataclass(frozen=True, slots=True)
class _DirectChannel:
    """Channel that is a function call."""

    trial: Trial
    on_report: OnReport

    def send(self, report: Report) -> Decision:
        return self.on_report(self.trial, report)


def _read_returned(
    returned: Any, context: Context, objectives: Objectives | None = None
) -> tuple[float, dict[str, Any], tuple[BranchLoss, ...]]:
    """Loss, metrics and branches that a training function returned; a cost goes to `context`.

    Raises TypeError or ValueError for anything but a number or a dict with a loss, which may go by
    the name of the first objective.
    """
    first = "loss" if objectives is None else objectives.first
    if not isinstance(returned, Mapping):
        if returned is None:
            raise TypeError(
                "train_fn must return its loss, got None; end it with `return loss` or "
                '`return {"loss": loss}`'
            )
        return to_float(returned, "the loss returned by train_fn"), {}, ()
    if first not in returned:
        raise ValueError(
            f'a dict returned by train_fn must have an entry "{first}", got the keys '
            f'{sorted(map(str, returned))}; rename the objective to "{first}"'
        )
    if returned.get("cost") is not None:
        context.finish(to_cost(returned["cost"]))
    known = (first, "cost", "branches")
    metrics = {name: value for name, value in returned.items() if name not in known}
    loss = to_float(returned[first], f"the {first} returned by train_fn")
    branches = BranchLoss.read(returned.get("branches"), list(context.scale))
    return loss, metric_values(metrics, texts=True), branches


def _not_finite(
    objectives: Objectives, loss: float, metrics: Mapping[str, Any], context: Context
) -> str:
    """Say which value of a completed run is not finite; nothing if all are.

    Raises ValueError for a value that was neither returned nor reported; a cost may follow later.
    """
    told = {**context.last_metrics, **metrics, objectives.first: loss}
    for name in objectives.names:
        value = told.get(name, 0.0 if name == "cost" else None)
        if not isinstance(value, int | float):
            raise ValueError(
                "train_fn must return every objective and constrained value, got no number for"
                f' "{name}" among {sorted(told)}; return {{..., "{name}": ...}}'
            )
        if not math.isfinite(value):
            return f"the value of {name!r} became {value}"
    return ""


def _cause(error: BaseException, context: Context, folder: Path) -> Cause:
    """Cause of a failure: out of memory, the machine, or any other error."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (
        torch is not None and isinstance(error, torch.OutOfMemoryError)
    ):
        return Cause.OOM
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return Cause.OOM
    text = _message(error)
    if isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "not enough memory" in text or "out of memory" in text
    ):
        return Cause.OOM  # torch has no type of its own for the CPU and for some CUDA libraries
    if any(cause is context.fault or _is_machines(cause, folder) for cause in causes(error)):
        return Cause.LOST
    return Cause.ERROR


def _is_machines(error: BaseException, folder: Path) -> bool:
    """Whether `error` is one of the machine or another one that it talks to.

    So is any error about the run's own `folder`, or a file that is not found, once somebody has
    deleted that folder or the one in which the process works.
    """
    text = _message(error)
    if isinstance(error, ConnectionError) or (
        isinstance(error, OSError) and error.errno in _MACHINE_ERRORS
    ):
        return True
    if isinstance(error, RuntimeError) and any(sign in text for sign in _MACHINE_SIGNS):
        return True
    if isinstance(error, FileNotFoundError) and not in_a_folder():
        return True
    return str(folder) in text and not folder.exists()


def in_a_folder() -> bool:
    """Return whether the working directory of this process is still there."""
    try:
        os.getcwd()
    except OSError:
        return False
    return True


def _message(error: BaseException) -> str:
    """Message of an error; empty where a class of the user cannot tell it."""
    try:
        return str(error)
    except Exception:
        return ""


def _plain(error: Exception) -> Exception:
    """`error` without a class of the user's own, which may not survive the way to the driver."""
    if type(error).__module__.partition(".")[0] in ("builtins", "hpo"):
        return error
    base = TypeError if isinstance(error, TypeError) else ValueError
    return base(_message(error))


def traceback_text(error: BaseException) -> str:
    """Return the traceback as text, without its beginning if it is long."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= _LONGEST_TEXT else "[...]\n" + text[-_LONGEST_TEXT:]
