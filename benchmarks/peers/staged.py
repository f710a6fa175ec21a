"""scaletune's schedulers through `StagedOptimizer`, with random configs.

Only the rank rule decides here. ASHA is of the promotion kind, as Li et al. (MLSys 2020)
published it: whenever a worker is free, the best run in the top third of its rung continues.
Neither Optuna, whose pruners can only stop, nor Syne Tune 0.16 has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.peers.base import Job, Unsupported
from benchmarks.peers.spaces import Translation
from benchmarks.task import Evaluation, Task
from hpo import ASHA, Fidelity, Hyperband, Optimizer, Prediction, SearchSpace
from hpo.optimizer.ask_tell import Proposal
from hpo.optimizer.multi_fidelity import StagedOptimizer
from hpo.schedulers import Scheduler
from hpo.trials import Reason, ReasonKind, Trial

LEVEL = "level"
_NO_BELIEF = Prediction(None, None, None, None, 1.0, reason=Reason(ReasonKind.RANDOM))


class RandomConfigs(Optimizer):
    """An optimizer that learns nothing."""

    def __init__(self, translation: Translation, fidelity: Fidelity, seed: int) -> None:
        super().__init__(SearchSpace({**translation.space, LEVEL: fidelity}), seed=seed)
        self._translation = translation
        self._top = fidelity.high
        self._rng = np.random.default_rng(seed)

    @property
    def forecast(self) -> None:
        """Forecast nothing: only the rank rule decides."""
        return None

    def propose(
        self, *, among: Sequence[Mapping[str, Any]] | None = None, index: int | None = None
    ) -> Proposal:
        """Draw a config, uniform on every parameter's own scale, or one of `among`."""
        config = self._translation.sample(self._rng)
        if among is not None:
            config = dict(among[int(self._rng.integers(len(among)))])
        index = self.log.next_ask_index if index is None else index
        return Proposal({**config, LEVEL: self._top}, index, _NO_BELIEF)


class Staged:
    """Runs of one log; a stage is a job, under the number of its trial.

    `pool`: the only configs that may be started, each once; None for the whole space.
    """

    def __init__(self, engine: StagedOptimizer, pool: Sequence[Mapping[str, Any]] | None) -> None:
        self._engine = engine
        space = engine.optimizer.space
        fidelity = space[LEVEL]
        assert isinstance(fidelity, Fidelity)
        whole = [space.canonical({**config, LEVEL: fidelity.high}) for config in pool or ()]
        self._free = None if pool is None else {space.key(config): config for config in whole}
        self._running: dict[int, Trial] = {}

    def ask(self) -> Job | None:
        among = None if self._free is None else list(self._free.values())
        trial = self._engine.ask(may_start=among is None or bool(among), among=among)
        if trial is None:
            return None
        if self._free:
            self._free.pop(self._engine.optimizer.space.key(trial.config), None)
        assert trial.assignment is not None  # a scheduler over levels
        self._running[trial.number] = trial
        config = {name: value for name, value in trial.config.items() if name != LEVEL}
        resumes = self._engine.log.resumed(trial.number) > 0
        return Job(trial.number, config, trial.assignment.level, resumes)

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
    return Staged(engine, task.pool)
