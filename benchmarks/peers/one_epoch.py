"""Random search that stops almost everything after the first level.

Egele, Guyon, Sun and Balaprakash ("Is one epoch all you need for multi-fidelity hyperparameter
optimization?", 2023) train every config for one epoch and then the best k to the end, with k and
the number of configs fixed by the budget. Here the two halves alternate, so that the method has an
answer at any time: as many configs start as one full training pays for, the best that was not taken
further yet is trained to the end, and so on. Once every member of a finite pool has started, only
the second half is left.
"""

from __future__ import annotations

import math

import numpy as np

from benchmarks.peers.base import Job, Unsupported
from benchmarks.peers.spaces import Translation
from benchmarks.task import Evaluation, Levels, Task


class OneEpoch:
    """One half of the effort screens configs, the other completes the best of them."""

    def __init__(
        self, translation: Translation, levels: Levels, seed: int, most: float = math.inf
    ) -> None:
        self._translation = translation
        self._levels = levels
        self._rng = np.random.default_rng(seed)
        self._screens = max(levels.high // levels.low, 1)
        self._most = most  # configs there are
        self._asked = self._finals = 0
        self._screened: dict[int, tuple[float, Job]] = {}

    def ask(self) -> Job | None:
        if self._screened and self._asked >= min(self._screens * (self._finals + 1), self._most):
            best = min(self._screened, key=lambda number: self._screened[number][0])
            job = self._screened.pop(best)[1]
            self._finals += 1
            return Job(best, job.config, self._levels.high, resumes=True)
        job = Job(self._asked, self._translation.sample(self._rng), self._levels.low)
        self._asked += 1
        return job

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        if evaluation.loss is not None and job.level == self._levels.low:
            self._screened[job.number] = evaluation.loss, job


def make(task: Task, *, seed: int, trials: int) -> OneEpoch:
    """See `benchmarks.peers`."""
    if task.levels is None or task.levels.low == task.levels.high:
        raise Unsupported(f"screening needs a fidelity, and {task.name} has no levels")
    translation = Translation(task.space, peer="one-epoch", conditional=True)
    most = math.inf if task.pool is None else len(task.pool)
    return OneEpoch(translation, task.levels, seed, most)
