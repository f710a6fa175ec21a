"""Optuna's GPSampler with its defaults; see `benchmarks.peers.optuna_tpe`."""

from __future__ import annotations

from benchmarks.peers.optuna_tpe import OptunaPeer
from benchmarks.task import Task


def make(task: Task, *, seed: int, trials: int) -> OptunaPeer:
    """See `benchmarks.peers`."""
    from optuna.samplers import GPSampler

    return OptunaPeer(task, GPSampler(seed=seed))
