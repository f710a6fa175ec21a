"""Syne Tune: CQR on full runs.

Failed runs go to `on_trial_error`, after which the searchers look for other configs.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import FullRuns, Job
from benchmarks.peers.spaces import Kind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.scheduler import TrialScheduler

_LOSS = "loss"
_MAX_SEED = 2**31


class SyneTunePeer(FullRuns):
    """A single-fidelity scheduler driven from outside."""

    def __init__(self, translation: Translation, scheduler: TrialScheduler) -> None:
        super().__init__()
        self._translation = translation
        self._scheduler = scheduler

    def suggest(self, number: int) -> dict[str, Any]:
        suggestion = self._scheduler.suggest()
        if suggestion is None or suggestion.config is None:
            raise LookupError("Syne Tune has no config left to suggest")
        return self._translation.config(suggestion.config)

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        told = trial(job.number, self._translation, job.config)
        if evaluation.loss is None:
            self._scheduler.on_trial_error(told)
        else:
            self._scheduler.on_trial_complete(told, {_LOSS: evaluation.loss})


def trial(number: int, translation: Translation, config: dict[str, Any]) -> Trial:
    """Syne Tune's record of a config."""
    from syne_tune.backend.trial_status import Trial

    return Trial(number, dict(translation.codes(config)), datetime.now(UTC))


def domains(translation: Translation) -> dict[str, Any]:
    """Syne Tune's `config_space`."""
    from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform

    space: dict[str, Any] = {}
    for axis in translation.axes:
        if axis.kind is Kind.CATEGORY:
            space[axis.name] = choice(list(range(axis.size)))
        elif axis.kind is Kind.INTEGER:
            integers = lograndint if axis.log else randint
            space[axis.name] = integers(int(axis.low), int(axis.high))
        else:
            reals = loguniform if axis.log else uniform
            space[axis.name] = reals(float(axis.low), float(axis.high))
    return space


def cqr(task: Task, *, seed: int, trials: int) -> SyneTunePeer:
    """`CQR`: conformalised quantile regression with gradient-boosted trees."""
    from syne_tune.optimizer.baselines import CQR

    translation = Translation(task.space, peer="Syne Tune")
    scheduler = CQR(domains(translation), metric=_LOSS, random_seed=seed % _MAX_SEED)
    return SyneTunePeer(translation, scheduler)
