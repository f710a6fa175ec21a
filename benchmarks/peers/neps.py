"""NePS: PriorBand and ifBO through `AskAndTell`.

Neither is given priors, as no other method is. A trial that NePS continues names the one before it,
and resumes. Failed runs are told as exceptions. Both draw from the process-wide generators.

ifBO needs the weights of its network, which its package downloads; `SCALETUNE_IFBO` names the
folder that holds them (`surrogate_path` of NePS). It wants losses in [0, 1].
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import Job, Unsupported
from benchmarks.peers.seeding import seeded
from benchmarks.peers.spaces import CodedAxis, CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from neps import AskAndTell, SearchSpace
    from neps.optimizers.optimizer import AskFunction
    from neps.state import Trial

_LEVEL = "fidelity of the task"


class NepsPeer:
    """Trials of NePS, one job each; those of one config share a number."""

    def __init__(self, optimizer: AskFunction, translation: Translation, seed: int) -> None:
        from neps import AskAndTell

        self._neps: AskAndTell = AskAndTell(optimizer)
        self._translation = translation
        self._seed = seed
        self._asked = self._numbers_given = 0
        self._numbers: dict[str, int] = {}
        self._running: dict[int, Trial] = {}

    def ask(self) -> Job | None:
        with seeded(self._seed, self._asked):
            trial = self._neps.ask()
        self._asked += 1
        before = trial.metadata.previous_trial_id
        number = self._numbers.get(before) if before is not None else None
        resumes = number is not None
        if number is None:
            number = self._numbers_given
            self._numbers_given += 1
        self._numbers[trial.metadata.id] = number
        self._running[number] = trial
        codes: dict[str, Any] = dict(trial.config)
        level = int(codes.pop(_LEVEL))
        return Job(number, self._translation.config(codes), level, resumes)

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        trial = self._running.pop(job.number, None)
        if trial is None:
            return  # a start point, of no trial
        if evaluation.loss is None:
            self._neps.tell(trial, RuntimeError(evaluation.failed))
        else:
            self._neps.tell(trial, evaluation.loss)


def priorband(task: Task, *, seed: int, trials: int) -> NepsPeer:
    """`neps.algorithms.priorband`, on Hyperband."""
    from neps import algorithms

    space, translation = _space(task, seed)
    with seeded(seed, 2**32):
        optimizer = algorithms.priorband(space)
    return NepsPeer(optimizer, translation, seed)


def ifbo(task: Task, *, seed: int, trials: int) -> NepsPeer:
    """`neps.algorithms.ifbo`, one level at a time."""
    from neps import algorithms

    space, translation = _space(task, seed)
    with seeded(seed, 2**32):
        optimizer = algorithms.ifbo(space, surrogate_path=Path(os.environ["SCALETUNE_IFBO"]))
    return NepsPeer(optimizer, translation, seed)


def _space(task: Task, seed: int) -> tuple[SearchSpace, Translation]:
    from neps import HPOInteger, SearchSpace

    if task.levels is None:
        raise Unsupported(f"NePS needs a fidelity here, and {task.name} has no levels")
    translation = Translation(task.space, peer="NePS")
    parameters = {axis.name: _parameter(axis) for axis in translation.axes}
    level = HPOInteger(task.levels.low, task.levels.high, is_fidelity=True)
    return SearchSpace(parameters | {_LEVEL: level}), translation


def _parameter(axis: CodedAxis) -> Any:
    from neps import HPOCategorical, HPOFloat, HPOInteger

    if axis.kind is CodeKind.CATEGORY:
        return HPOCategorical(list(range(axis.size)))
    if axis.kind is CodeKind.INTEGER:
        return HPOInteger(int(axis.low), int(axis.high), log=axis.log)
    return HPOFloat(float(axis.low), float(axis.high), log=axis.log)
