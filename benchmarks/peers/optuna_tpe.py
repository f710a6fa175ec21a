"""Optuna's TPESampler, and what every Optuna peer shares.

A conditional parameter is asked for only while its parent calls for it (Optuna is define-by-run).
Failed runs are told as FAIL, which Optuna's samplers ignore.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import FullRuns, Job
from benchmarks.peers.spaces import CodedAxis, CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


class OptunaPeer(FullRuns):
    """A study in memory with one sampler."""

    def __init__(self, task: Task, sampler: BaseSampler) -> None:
        import optuna

        super().__init__()
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._translation = Translation(task.space, peer="Optuna", conditional=True)
        self.study = optuna.create_study(sampler=sampler)
        self._trials: dict[int, Trial] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        trial = self._trials[number] = self.study.ask()
        return suggested(trial, self._translation)

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        from optuna.trial import TrialState, create_trial

        codes = self._translation.codes(job.config)
        trial = self._trials.pop(job.number, None)
        if trial is not None:
            if self._translation.config(trial.params) == job.config:
                if evaluation.loss is None:
                    self.study.tell(trial, state=TrialState.FAIL)
                else:
                    self.study.tell(trial, evaluation.loss)
                return
            self.study.tell(trial, state=TrialState.FAIL)  # another config ran in its place
        if evaluation.loss is not None:
            self.study.add_trial(
                create_trial(
                    params=codes,
                    distributions={
                        axis.name: distribution(axis)
                        for axis in self._translation.axes
                        if axis.name in codes
                    },
                    value=evaluation.loss,
                )
            )


def suggested(trial: Trial, translation: Translation) -> dict[str, Any]:
    """The config that `trial` proposes, parents before children."""
    codes: dict[str, Any] = {}
    for axis in translation.axes:
        if axis.parent is None or codes.get(axis.parent) in axis.values:
            codes[axis.name] = _suggest(trial, axis)
    return translation.config(codes)


def _suggest(trial: Trial, axis: CodedAxis) -> Any:
    if axis.kind is CodeKind.CATEGORY:
        return trial.suggest_categorical(axis.name, range(axis.size))
    if axis.kind is CodeKind.INTEGER:
        return trial.suggest_int(axis.name, int(axis.low), int(axis.high), log=axis.log)
    return trial.suggest_float(axis.name, float(axis.low), float(axis.high), log=axis.log)


def distribution(axis: CodedAxis) -> BaseDistribution:
    """The Optuna distribution of an axis."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if axis.kind is CodeKind.CATEGORY:
        return CategoricalDistribution(range(axis.size))
    if axis.kind is CodeKind.INTEGER:
        return IntDistribution(int(axis.low), int(axis.high), log=axis.log)
    return FloatDistribution(float(axis.low), float(axis.high), log=axis.log)


def make(task: Task, *, seed: int, trials: int) -> OptunaPeer:
    """See `benchmarks.peers`."""
    from optuna.samplers import TPESampler

    return OptunaPeer(task, TPESampler(seed=seed))
