"""Optuna's TPESampler, and what every Optuna peer shares.

A conditional parameter is asked for only while its parent calls for it (Optuna is define-by-run).
Failed runs are told as FAIL, which Optuna's samplers ignore.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.base import FullRuns, Job, PoolRuns
from benchmarks.peers.spaces import Code, CodedAxis, CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler, TPESampler
    from optuna.trial import FrozenTrial, Trial

Array = NDArray[np.float64]


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


class TPEPeer(OptunaPeer, PoolRuns):
    """TPE, which in a finite pool scores every config by its own ratio of densities.

    As released it draws candidates from the density of good configs and keeps the one of highest
    ratio; the best row of a table is then rarely among them. Its first trials are random.
    """

    def __init__(self, task: Task, sampler: TPESampler, seed: int) -> None:
        super().__init__(task, sampler)
        self._sampler, self._rng = sampler, np.random.default_rng(seed)

    def suggest_among(self, number: int, configs: Sequence[dict[str, Any]]) -> dict[str, Any]:
        from optuna.trial import TrialState

        codes = [self._translation.codes(config) for config in configs]
        told = self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if len(told) < self._sampler._n_startup_trials:
            chosen = int(self._rng.integers(len(configs)))
        else:
            chosen = int(np.argmax(self._scores(codes, told)))
        self.study.enqueue_trial(dict(codes[chosen]))
        return self.suggest(number)

    def _scores(self, codes: Sequence[Mapping[str, Code]], told: list[FrozenTrial]) -> Array:
        """Return ln l(x) - ln g(x) of every config, summed over the parameters."""
        from optuna.samplers._tpe.sampler import _split_trials, default_gamma

        sampler, study = self._sampler, self.study
        gamma = sampler._gamma or default_gamma
        good, bad = _split_trials(study, told, gamma(len(told)))
        scores = np.zeros(len(codes))
        for axis in self._translation.axes:
            with_it = [i for i, row in enumerate(codes) if axis.name in row]
            space = {axis.name: distribution(axis)}
            values = np.array(
                [space[axis.name].to_internal_repr(codes[i][axis.name]) for i in with_it]
            )
            densities = [
                sampler._build_parzen_estimator(study, space, trials, handle_below=below)
                for trials, below in ((good, True), (bad, False))
            ]
            scores[with_it] += sampler._compute_acquisition_func({axis.name: values}, *densities)
        return scores


def make(task: Task, *, seed: int, trials: int) -> OptunaPeer:
    """See `benchmarks.peers`."""
    from optuna.samplers import TPESampler

    return TPEPeer(task, TPESampler(seed=seed), seed)
