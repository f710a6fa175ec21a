"""SMAC3's facades for hyperparameters (random forest) and black boxes (Gaussian process).

`deterministic=True`: without it SMAC repeats configs under several seeds, and a table holds one
value. Failed runs are told as crashed at the worst loss seen: SMAC's own `crash_cost`, infinity,
ends its random forest with an error. `n_trials` sets the size of its start design (at most a
quarter of it).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import FullRuns, Job, Penalty
from benchmarks.peers.configspace import config_space, configuration
from benchmarks.peers.spaces import Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from smac.facade.abstract_facade import AbstractFacade
    from smac.runhistory.dataclasses import TrialInfo


class SmacPeer(FullRuns):
    """A facade driven from outside."""

    def __init__(self, task: Task, facade: type[AbstractFacade], *, seed: int, trials: int) -> None:
        from smac import Scenario

        super().__init__()
        self._translation = Translation(task.space, peer="SMAC", conditional=True)
        self._space = config_space(self._translation, seed)
        # SMAC keeps a log of its runs on disk whether one wants it or not.
        self._folder = tempfile.TemporaryDirectory(prefix="smac-", ignore_cleanup_errors=True)
        scenario = Scenario(
            self._space,
            deterministic=True,
            n_trials=trials,
            seed=seed,
            output_directory=Path(self._folder.name),
        )
        self._facade = facade(scenario, None, logging_level=False, overwrite=True)
        self._penalty = Penalty()
        self._trials: dict[int, TrialInfo] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        info = self._trials[number] = self._facade.ask()
        return self._translation.config(dict(info.config))

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        from smac.runhistory.dataclasses import TrialInfo, TrialValue
        from smac.runhistory.enumerations import StatusType

        info = self._trials.pop(job.number, None)
        if info is None or self._translation.config(dict(info.config)) != job.config:
            # Another config ran in its place; the one asked for stays pending, as SMAC has no
            # word for a trial that never ran.
            info = TrialInfo(configuration(self._space, self._translation, job.config), seed=0)
        status = StatusType.SUCCESS if evaluation.failed is None else StatusType.CRASHED
        value = TrialValue(self._penalty.loss(evaluation), time=evaluation.cost, status=status)
        self._facade.tell(info, value, save=False)


def hyperparameter_optimization(task: Task, *, seed: int, trials: int) -> SmacPeer:
    """`HyperparameterOptimizationFacade`."""
    from smac import HyperparameterOptimizationFacade

    return SmacPeer(task, HyperparameterOptimizationFacade, seed=seed, trials=trials)


def black_box(task: Task, *, seed: int, trials: int) -> SmacPeer:
    """`BlackBoxFacade`."""
    from smac import BlackBoxFacade

    return SmacPeer(task, BlackBoxFacade, seed=seed, trials=trials)
