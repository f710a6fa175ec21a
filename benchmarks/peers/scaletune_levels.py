"""scaletune's engine with runs that pause: models of (config, level), and a scheduler."""

from __future__ import annotations

from benchmarks.peers.base import Unsupported
from benchmarks.peers.staged import LEVEL, Staged
from benchmarks.task import Task
from hpo import ASHA, Fidelity, FreezeThaw, Optimizer, SearchSpace
from hpo.optimizer.multi_fidelity import StagedOptimizer
from hpo.schedulers import Scheduler


def freeze_thaw(task: Task, *, seed: int, trials: int) -> Staged:
    """The default for runs that may pause."""
    continues = task.levels is None or task.levels.continues
    return _staged(task, FreezeThaw(continues=continues), seed)


def asha(task: Task, *, seed: int, trials: int) -> Staged:
    """The same model under ASHA's rank rule, after MOBSTER (Klein et al. 2020)."""
    return _staged(task, ASHA(), seed)


def _staged(task: Task, scheduler: Scheduler, seed: int) -> Staged:
    if task.levels is None:
        raise Unsupported(f"a scheduler needs a fidelity, and {task.name} has no levels")
    space = SearchSpace({**task.space, LEVEL: Fidelity(task.levels.low, task.levels.high)})
    engine = StagedOptimizer(Optimizer(space, seed=seed), scheduler, seed=seed)
    return Staged(engine, task.pool)
