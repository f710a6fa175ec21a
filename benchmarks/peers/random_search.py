"""Uniform random search: every parameter on its own scale, independent draws."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.peers.base import Job, PoolRuns
from benchmarks.peers.spaces import Translation
from benchmarks.task import Evaluation, Task


class RandomSearch(PoolRuns):
    """Draws with replacement and learns nothing."""

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__()
        self._translation = Translation(task.space, peer="random search", conditional=True)
        self._rng = np.random.default_rng(seed)

    def suggest(self, number: int) -> dict[str, Any]:
        return self._translation.sample(self._rng)

    def suggest_among(self, number: int, configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        return configs[int(self._rng.integers(len(configs)))]

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        """Nothing to learn."""


def make(task: Task, *, seed: int, trials: int) -> RandomSearch:
    """See `benchmarks.peers`."""
    return RandomSearch(task, seed)
