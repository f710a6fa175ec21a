"""Check whether a run that was paused and resumed is the run that was never paused.

A training function may be paused and trained further only if its first r levels do not depend on
how many more will come. A learning rate that decays toward the last level breaks that, and so does
a checkpoint that forgets the optimizer's state or the position in the data. Both show when the same
config is trained twice, once straight through and once with a pause.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpo.errors import SpaceError, StudyError
from hpo.schedulers import Decision
from hpo.space import Fidelity, Parameter, SearchSpace
from hpo.space.arguments import Count, Flag, Function, Kind, Number, Table, store
from hpo.study.context import Consumed
from hpo.study.runners import Job, Outcome, Task, TrainFunction, execute
from hpo.trials import Report, RungAssignment, Status, Trial
from hpo.trials.budget import Limits

__all__ = ["Continuation", "check_continuation"]


@dataclass(frozen=True, slots=True)
class Continuation:
    """Losses that a straight and a paused run of one config reported, and how far they differ.

    Attributes:
        straight: Losses of the straight run by step, that of the last level included.
        paused: Losses of the paused run by step.
        low: Level of the pause.
        high: Level of the end.
        resumed: Whether the second stage loaded a checkpoint; False if it began again.
        difference: Largest `|straight - paused|` over the steps that both have, relative to the
            spread of the straight run's losses (to their size where there is no spread).
        tolerance: Largest difference that counts as agreement.

    Example:
        >>> check = Continuation({1: 2.0, 2: 1.0}, {1: 2.0, 2: 1.3}, 1, 2, True, 0.3, 0.05)
        >>> check.passed
        False
        >>> str(check).split(":")[0]
        'the run paused at 1 and resumed to 2 DISAGREES with the straight one'
    """

    straight: dict[int, float]
    paused: dict[int, float]
    low: int
    high: int
    resumed: bool
    difference: float
    tolerance: float

    def __post_init__(self) -> None:
        level, size, losses = Count(0), Number(least=0, infinite=True), Kind(Mapping)
        store(
            self,
            straight=losses,
            paused=losses,
            low=level,
            high=level,
            resumed=Flag(),
            difference=size,
            tolerance=size,
        )

    @property
    def passed(self) -> bool:
        """Whether runs may be paused: both runs agree at every step.

        Example:
            >>> straight, paused = {1: 2.0, 2: 1.0}, {1: 2.0, 2: 1.02}
            >>> check = Continuation(straight, paused, 1, 2, True, difference=0.02, tolerance=0.05)
            >>> check.passed
            True
        """
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verb = "agrees" if self.passed else "DISAGREES"
        again = (
            "" if self.resumed else "; it was trained again from the start, as ctx.load is unused"
        )
        return (
            f"the run paused at {self.low} and resumed to {self.high} {verb} with the straight one:"
            f" largest difference {self.difference:.3g} of the spread{again}"
        )


def check_continuation(
    train_fn: TrainFunction,
    space: Mapping[str, Parameter] | SearchSpace,
    config: Mapping[str, Any],
    *,
    low: int | None = None,
    high: int | None = None,
    tolerance: float = 0.05,
    seed: int = 0,
) -> Continuation:
    """Train `config` to `high` straight through, and again with a pause at `low`, and compare.

    This costs two runs to `high`, in this process. Different random numbers after a pause stay
    within the tolerance on most workloads; a decaying schedule is far outside.

    Args:
        train_fn: Training function, as for `optimize`.
        space: Search space with a fidelity.
        config: Values of all parameters but the fidelity.
        low: Level of the pause; the fidelity's lowest by default.
        high: Level of the end; three times `low` by default.
        tolerance: Largest difference of losses, relative to their spread over the run.
        seed: Seed of both runs.

    Returns:
        Losses of both runs and the largest difference.

    Raises:
        SpaceError: If the config does not fit, or the levels lie outside the fidelity.
        StudyError: If a run fails; the message has its traceback.

    Example:
        >>> from hpo import Fidelity, Float, check_continuation
        >>> def train(config, ctx):  # gradient descent on w^2
        ...     state = ctx.load() or {"epoch": 0, "w": 1.0}
        ...     w = state["w"]
        ...     for epoch in range(state["epoch"] + 1, config["epochs"] + 1):
        ...         w -= config["lr"] * w
        ...         ctx.save({"epoch": epoch, "w": w})
        ...         ctx.report(step=epoch, loss=w * w)
        ...     return w * w
        >>> space = {"lr": Float(0.1, 1.0), "epochs": Fidelity(1, 9)}
        >>> check = check_continuation(train, space, {"lr": 0.5}, low=2, high=4)
        >>> check.passed, check.resumed, check.paused[4]
        (True, True, 0.00390625)
    """
    train_fn = Function("train_fn(config, ctx)")(train_fn, "`train_fn`", TypeError)
    tolerance = Number(least=0, way_out="0.05 is the default")(tolerance, "`tolerance`")
    seed = Count(0)(seed, "`seed`")
    level = Count(1, optional=True, way_out="give a level of the fidelity")
    low, high = level(low, "`low`", SpaceError), level(high, "`high`", SpaceError)
    config = Table(way_out="pass a dict")(config, "`config`", SpaceError)
    space = space if isinstance(space, SearchSpace) else SearchSpace(space)
    fidelity = None if space.fidelity is None else space[space.fidelity]
    if space.fidelity is None or not isinstance(fidelity, Fidelity):
        raise SpaceError("check_continuation needs a space with a fidelity: Fidelity(1, 81)")
    low = fidelity.low if low is None else low
    high = min(3 * low, fidelity.high) if high is None else high
    if not fidelity.low <= low < high <= fidelity.high:
        raise SpaceError(
            f"`low < high` must hold inside [{fidelity.low}, {fidelity.high}], got {low}, {high}"
        )
    whole = space.canonical({**config, space.fidelity: fidelity.high})
    task = Task(train_fn, space.fidelity, space.scales, Limits())
    with tempfile.TemporaryDirectory(prefix="scaletune-") as folder:
        straight, _ = _train(task, whole, high, seed, Path(folder, "straight"), Consumed())
        first, outcome = _train(task, whole, low, seed, Path(folder, "paused"), Consumed())
        before = Consumed(outcome.cost or 0.0, outcome.seconds, max(first, default=-1))
        second, _ = _train(task, whole, high, seed, Path(folder, "paused"), before)
        resumed = any(Path(folder, "paused").glob("*"))
    paused = first | second
    both = [step for step in straight if step in paused]
    losses = [straight[step] for step in both]
    spread = max(losses) - min(losses) or abs(losses[0]) or 1.0
    difference = max(abs(straight[step] - paused[step]) for step in both) / spread
    return Continuation(straight, paused, low, high, resumed, difference, tolerance)


@dataclass(frozen=True, slots=True)
class _LossRecorder:
    """Channel that keeps the losses and lets the run continue to its level."""

    losses: dict[int, float]

    def send(self, report: Report) -> Decision:
        if report.loss is not None:
            self.losses[report.step] = report.loss
        return Decision.CONTINUE


def _train(
    task: Task, config: dict[str, Any], level: int, seed: int, folder: Path, consumed: Consumed
) -> tuple[dict[int, float], Outcome]:
    """Return the losses by step of one stage up to `level`, and its outcome.

    Raises:
        StudyError: If the run failed.
    """
    recorder = _LossRecorder({})
    trial = Trial(0, config, 0, None, assignment=RungAssignment(level))
    outcome = execute(task, Job(trial, seed, folder, consumed=consumed), recorder)
    if outcome.status is Status.FAILED or outcome.loss is None or not math.isfinite(outcome.loss):
        raise StudyError(
            f"the run to level {level} failed, so there is nothing to compare:\n{outcome.text}"
        )
    recorder.losses.setdefault(level, outcome.loss)
    return recorder.losses, outcome
