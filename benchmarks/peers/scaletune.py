"""scaletune's engine without a driver, with its defaults; failures are told by their cause."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.peers.base import Job, PoolRuns, Unsupported
from benchmarks.task import Evaluation, Task
from hpo import Optimizer


class Scaletune(PoolRuns):
    """`hpo.Optimizer` on a task's own space; costs are told in any case."""

    def __init__(self, optimizer: Optimizer) -> None:
        super().__init__()
        self._optimizer = optimizer
        self._trials: dict[int, int] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        return self._asked_for(number, None)

    def suggest_among(self, number: int, configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return self._asked_for(number, configs)

    def _asked_for(self, number: int, among: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
        trial = self._optimizer.ask(among=among)
        self._trials[number] = trial.number
        return trial.config

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        told: int | dict[str, Any] = job.config
        trial = self._trials.pop(job.number, None)
        if trial is not None:
            asked = self._optimizer.log.trial(trial).config
            if self._optimizer.space.canonical(job.config) == asked:
                told = trial
            else:  # another config ran in its place
                self._optimizer.tell(trial, failed="lost")
        self._optimizer.tell(told, evaluation.loss, evaluation.cost, failed=evaluation.failed)


def by_trials(task: Task, *, seed: int, trials: int) -> Scaletune:
    """Every trial counts the same, unless the space has scale axes."""
    return Scaletune(Optimizer(task.space, seed=seed))


def by_transfer(task: Task, *, seed: int, trials: int) -> Scaletune:
    """`by_trials` with the runs of other tasks that the task's benchmark gives, as HPO-B's do."""
    other_tasks = getattr(task, "other_tasks", None)
    if other_tasks is None:
        raise Unsupported(f"scaletune-transfer needs runs of other tasks, and {task.name} has none")
    return Scaletune(Optimizer(task.space, seed=seed, other_tasks=other_tasks()))


def by_process(task: Task, *, seed: int, trials: int) -> Scaletune:
    """`by_trials` with the Gaussian process alone."""
    return Scaletune(Optimizer(task.space, surrogate="gp", seed=seed))


def by_trees(task: Task, *, seed: int, trials: int) -> Scaletune:
    """`by_trials` with the quantile trees alone."""
    return Scaletune(Optimizer(task.space, surrogate="quantile", seed=seed))


def by_cost(task: Task, *, seed: int, trials: int) -> Scaletune:
    """Cost-aware: searches the front of loss against cost."""
    return Scaletune(Optimizer(task.space, cost=task.unit, seed=seed))
