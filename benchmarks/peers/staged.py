"""scaletune's schedulers through `hpo.staged.StagedOptimizer`, with random configs.

Nothing but the rank rule is at work here. ASHA is of the promotion kind, as Li et al. (MLSys 2020)
published it: whenever a worker is free, the best run in the top third of its rung goes on. Neither
Optuna, whose pruners can only stop, nor Syne Tune 0.16 has it. Where a pool ran another config in
its place a run keeps its own with that loss.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from benchmarks.peers.base import Job, Unsupported
from benchmarks.peers.spaces import Translation
from benchmarks.task import Evaluation, Task
from hpo import ASHA, Belief, Fidelity, Hyperband, Optimizer, SearchSpace
from hpo.observations import Trial
from hpo.optimizer import Proposal
from hpo.schedulers import Scheduler
from hpo.staged import StagedOptimizer

_LEVEL = "level"
_NO_BELIEF = Belief(None, None, None, None, 1.0, False, 0, "random")


class RandomConfigs(Optimizer):
    """An optimizer that learns nothing."""

    def __init__(self, translation: Translation, fidelity: Fidelity, seed: int) -> None:
        super().__init__(SearchSpace({**translation.space, _LEVEL: fidelity}), seed=seed)
        self._translation = translation
        self._top = fidelity.high
        self._rng = np.random.default_rng(seed)

    def propose(self, *, among: object = None) -> Proposal:
        """A draw, uniform on every parameter's own scale."""
        config: dict[str, Any] = {**self._translation.sample(self._rng), _LEVEL: self._top}
        return Proposal(config, self.log.next_ask_index, _NO_BELIEF)


class Staged:
    """Runs of one log, at most `most`; a stage is a job, under the number of its trial."""

    def __init__(self, engine: StagedOptimizer, most: float) -> None:
        self._engine = engine
        self._most = most
        self._running: dict[int, Trial] = {}

    def ask(self) -> Job | None:
        trial = self._engine.ask(may_start=self._engine.log.next_number < self._most)
        if trial is None:
            return None
        assert trial.place is not None  # a scheduler over levels
        self._running[trial.number] = trial
        config = {name: value for name, value in trial.config.items() if name != _LEVEL}
        resumes = self._engine.log.resumed(trial.number) > 0
        return Job(trial.number, config, trial.place.level, resumes)

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        trial = self._running.pop(job.number, None)
        if trial is not None:  # else a start point, which is no stage of any run
            self._engine.tell(trial, evaluation.loss, evaluation.cost, failed=evaluation.failed)


def asha(task: Task, *, seed: int, trials: int) -> Staged:
    """ASHA, eta 3, one bracket."""
    return _staged(task, ASHA(), seed)


def hyperband(task: Task, *, seed: int, trials: int) -> Staged:
    """Hyperband, eta 3; while a rung fills, other brackets start."""
    return _staged(task, Hyperband(), seed)


def _staged(task: Task, scheduler: Scheduler, seed: int) -> Staged:
    if task.levels is None:
        raise Unsupported(f"a scheduler needs a fidelity, and {task.name} has no levels")
    translation = Translation(task.space, peer="random configs", conditional=True)
    fidelity = Fidelity(task.levels.low, task.levels.high)
    engine = StagedOptimizer(RandomConfigs(translation, fidelity, seed), scheduler, seed=seed)
    return Staged(engine, math.inf if task.pool is None else len(task.pool))
