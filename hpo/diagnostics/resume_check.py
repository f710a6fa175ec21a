"""Is a fidelity legal: is a run that was paused and continued the run that was never paused?

A training function may be trained further only if its first r levels do not depend on how many more
will come. A learning rate that decays towards the last level breaks that, and so does a checkpoint
that forgets the optimizer's state or the place in the data. Both show when the same config is
trained twice, once straight through and once with a pause.
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
from hpo.study.context import Consumed
from hpo.study.runners import Job, Outcome, Task, TrainFunction, execute
from hpo.trials import Report, RungAssignment, Status, Trial
from hpo.trials.budget import Limits

__all__ = ["Continuation", "check_continuation"]


@dataclass(frozen=True, slots=True)
class Continuation:
    """What a straight and a paused run of one config reported.

    `straight`, `paused`: losses by step, the result at the last level included. `low`, `high`: the
    levels of the pause and of the end. `resumed`: whether the second half began after the pause.
    `difference`: largest |straight - paused| over the steps both have, relative to the spread of
    the straight run's losses (to their size where there is no spread). `tolerance`: allowed of it.
    """

    straight: dict[int, float]
    paused: dict[int, float]
    low: int
    high: int
    resumed: bool
    difference: float
    tolerance: float

    @property
    def legal(self) -> bool:
        """Whether the fidelity may be continued: both runs agree at every step."""
        return self.difference <= self.tolerance

    def __str__(self) -> str:
        verb = "agrees" if self.legal else "DISAGREES"
        again = (
            "" if self.resumed else "; it was trained again from the start, as ctx.load is unused"
        )
        return (
            f"paused at {self.low} and trained on to {self.high}, the run {verb} with the one that "
            f"was not paused: largest difference {self.difference:.3g} of the spread{again}"
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
    """Train `config` to `high`, and again with a pause at `low`, and compare.

    Costs two runs to `high`, here and now. Unequal random numbers after a resumption are within the
    tolerance on most workloads; a decaying schedule is far outside.

    Args:
        train_fn, space: as for `optimize`; the space has a fidelity.
        config: every parameter but the fidelity.
        low, high: levels; the fidelity's lowest and three times that by default.
        tolerance: largest difference of losses, relative to their spread over the run.
        seed: of both runs.

    Raises:
        SpaceError: for a config that does not fit, or levels outside the fidelity.
        StudyError: if a run fails; the message has its traceback.
    """
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
class _Notes:
    """A channel that keeps the losses and lets the run go on to its level."""

    losses: dict[int, float]

    def send(self, report: Report) -> Decision:
        if report.loss is not None:
            self.losses[report.step] = report.loss
        return Decision.CONTINUE


def _train(
    task: Task, config: dict[str, Any], level: int, seed: int, folder: Path, consumed: Consumed
) -> tuple[dict[int, float], Outcome]:
    """Losses by step of one stage up to `level`, and its outcome; StudyError if it failed."""
    notes = _Notes({})
    trial = Trial(0, config, 0, None, assignment=RungAssignment(level))
    outcome = execute(task, Job(trial, seed, folder, consumed=consumed), notes)
    if outcome.status is Status.FAILED or outcome.loss is None or not math.isfinite(outcome.loss):
        raise StudyError(f"the run to level {level} failed, so nothing is known:\n{outcome.text}")
    notes.losses.setdefault(level, outcome.loss)
    return notes.losses, outcome
