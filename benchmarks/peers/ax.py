"""Ax's `Client` with its default generation strategy.

Failed runs are marked as failed, which Ax leaves out of its model.
"""

from __future__ import annotations

import logging
import warnings
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import FullRuns, Job
from benchmarks.peers.seeding import seeded
from benchmarks.peers.spaces import CodedAxis, CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from ax.api.client import Client
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig


class AxPeer(FullRuns):
    """One experiment in memory."""

    def __init__(self, client: Client, translation: Translation, seed: int) -> None:
        super().__init__()
        self._client = client
        self._translation = translation
        self._seed = seed
        self._trials: dict[int, tuple[int, dict[str, Any]]] = {}

    def suggest(self, number: int) -> dict[str, Any] | None:
        from ax.exceptions.generation_strategy import MaxParallelismReachedException

        with seeded(self._seed, number), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of fits that did not converge, and of its own future
            try:
                asked = self._client.get_next_trials(max_trials=1)
            except MaxParallelismReachedException:
                return None
        if not asked:  # it needs results of its first trials before it continues
            return None
        ((index, codes),) = asked.items()
        config = self._translation.config(codes)
        self._trials[number] = index, config
        return config

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        index, asked = self._trials.pop(job.number, (None, None))
        if index is not None and asked != job.config:
            self._client.mark_trial_abandoned(index)  # another config ran in its place
            index = None
        if index is None:
            index = self._client.attach_trial(self._translation.codes(job.config))
        if evaluation.loss is None:
            self._client.mark_trial_failed(index)
        else:
            self._client.complete_trial(index, raw_data={"loss": evaluation.loss})


def make(task: Task, *, seed: int, trials: int) -> AxPeer:
    """See `benchmarks.peers`."""
    from ax.api.client import Client
    from ax.utils.common.logger import set_ax_logger_levels

    set_ax_logger_levels(logging.ERROR)
    translation = Translation(task.space, peer="Ax")
    client = Client(random_seed=seed % 2**31)
    client.configure_experiment(parameters=[_parameter(axis) for axis in translation.axes])
    client.configure_optimization(objective="-loss")
    return AxPeer(client, translation, seed)


def _parameter(axis: CodedAxis) -> RangeParameterConfig | ChoiceParameterConfig:
    from ax.api.configs import ChoiceParameterConfig, RangeParameterConfig

    if axis.kind is CodeKind.CATEGORY:
        return ChoiceParameterConfig(
            name=axis.name, values=list(range(axis.size)), parameter_type="int", is_ordered=False
        )
    return RangeParameterConfig(
        name=axis.name,
        bounds=(axis.low, axis.high),
        parameter_type="float" if axis.kind is CodeKind.REAL else "int",
        scaling="log" if axis.log else "linear",
    )
