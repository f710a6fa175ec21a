"""Syne Tune: CQR on full runs; ASHA, ASHACQR and BOHB on rungs.

Its asynchronous successive halving is the stopping kind: a trial continues from rung to rung while
its loss is among the best third there, so a stopped trial never resumes and a continuing one is
resumed before anything new starts. The rungs are low, 3 low, 9 low, ... and high, with one
bracket, its default; a report between rungs would change nothing. BOHB here is Syne Tune's: kernel
densities of TPE on asynchronous halving; the original is `benchmarks.peers.bohb`.

Failed runs go to `on_trial_error`, after which the searchers look for other configs.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import FullRuns, Job, Unsupported, rungs
from benchmarks.peers.seeding import seeded
from benchmarks.peers.spaces import CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from syne_tune.backend.trial_status import Trial
    from syne_tune.optimizer.scheduler import TrialScheduler

_LOSS, _LEVEL = "loss", "level"
_MAX_SEED = 2**31


class SyneTunePeer(FullRuns):
    """A single-fidelity scheduler driven from outside."""

    def __init__(self, translation: Translation, scheduler: TrialScheduler, seed: int) -> None:
        super().__init__()
        self._translation = translation
        self._scheduler = scheduler
        self._seed = seed

    def suggest(self, number: int) -> dict[str, Any]:
        with seeded(self._seed, number):
            suggestion = self._scheduler.suggest()
        if suggestion is None or suggestion.config is None:
            raise LookupError("Syne Tune has no config left to suggest")
        return self._translation.config(suggestion.config)

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        told = _trial(self._translation, job)
        if evaluation.loss is None:
            self._scheduler.on_trial_error(told)
        else:
            self._scheduler.on_trial_complete(told, {_LOSS: evaluation.loss})


class SyneTuneRungs(SyneTunePeer):
    """A multi-fidelity scheduler of the stopping kind driven from outside."""

    def __init__(
        self,
        translation: Translation,
        scheduler: TrialScheduler,
        seed: int,
        ladder: tuple[int, ...],
    ) -> None:
        super().__init__(translation, scheduler, seed)
        self._ladder = ladder
        self._going: deque[Job] = deque()
        self._added: set[int] = set()

    def ask(self) -> Job | None:
        if self._going:
            return self._going.popleft()
        job = Job(self._asked, self.suggest(self._asked), self._ladder[0])
        self._asked += 1
        self._add(job)
        return job

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        from syne_tune.optimizer.scheduler import SchedulerDecision

        told = _trial(self._translation, job)
        if job.number not in self._added:
            self._add(job)
        if evaluation.loss is None:
            self._scheduler.on_trial_error(told)
            return
        level = self._ladder[-1] if job.level is None else job.level
        result = {_LOSS: evaluation.loss, _LEVEL: level}
        decision = self._scheduler.on_trial_result(told, result)
        if decision == SchedulerDecision.CONTINUE and level < self._ladder[-1]:
            above = next(rung for rung in self._ladder if rung > level)
            self._going.append(Job(job.number, job.config, above, resumes=True))

    def _add(self, job: Job) -> None:
        self._added.add(job.number)
        # A draw from NumPy's global generator picks the bracket, of which there is one.
        with seeded(self._seed, job.number % _MAX_SEED):
            self._scheduler.on_trial_add(_trial(self._translation, job))


def cqr(task: Task, *, seed: int, trials: int) -> SyneTunePeer:
    """`CQR`: conformalized quantile regression with gradient-boosted trees."""
    from syne_tune.optimizer.baselines import CQR

    return _full(CQR, task, seed)


def asha(task: Task, *, seed: int, trials: int) -> SyneTuneRungs:
    """`ASHA` with random configs."""
    from syne_tune.optimizer.baselines import ASHA

    return _on_rungs(ASHA, task, seed)


def asha_cqr(task: Task, *, seed: int, trials: int) -> SyneTuneRungs:
    """`ASHACQR`: CQR fitted to the last report of every trial."""
    from syne_tune.optimizer.baselines import ASHACQR

    return _on_rungs(ASHACQR, task, seed)


def bohb(task: Task, *, seed: int, trials: int) -> SyneTuneRungs:
    """Syne Tune's `BOHB`."""
    from syne_tune.optimizer.baselines import BOHB

    return _on_rungs(BOHB, task, seed)


def _full(scheduler: type[TrialScheduler], task: Task, seed: int) -> SyneTunePeer:
    silence()
    translation = Translation(task.space, peer="Syne Tune")
    made = scheduler(domains(translation), metric=_LOSS, random_seed=seed % _MAX_SEED)
    return SyneTunePeer(translation, made, seed)


def _on_rungs(scheduler: type[TrialScheduler], task: Task, seed: int) -> SyneTuneRungs:
    if task.levels is None:
        raise Unsupported(f"rungs need a fidelity, and {task.name} has no levels")
    silence()
    translation = Translation(task.space, peer="Syne Tune")
    made = scheduler(
        domains(translation),
        metric=_LOSS,
        time_attr=_LEVEL,
        max_t=task.levels.high,
        grace_period=task.levels.low,
        random_seed=seed % _MAX_SEED,
    )
    return SyneTuneRungs(translation, made, seed, rungs(task.levels))


def _trial(translation: Translation, job: Job) -> Trial:
    from syne_tune.backend.trial_status import Trial

    codes: Mapping[str, object] = translation.codes(job.config)
    return Trial(job.number, dict(codes), datetime.now(UTC))


def domains(translation: Translation) -> dict[str, Any]:
    """Return Syne Tune's domain of every axis."""
    from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform

    space: dict[str, Any] = {}
    for axis in translation.axes:
        if axis.kind is CodeKind.CATEGORY:
            space[axis.name] = choice(list(range(axis.size)))
        elif axis.kind is CodeKind.INTEGER:
            integers = lograndint if axis.log else randint
            space[axis.name] = integers(int(axis.low), int(axis.high))
        else:
            reals = loguniform if axis.log else uniform
            space[axis.name] = reals(float(axis.low), float(axis.high))
    return space


def silence() -> None:
    """Keep it quiet: it sets up the root logger on import and warns of every failed trial."""
    logging.getLogger("syne_tune").setLevel(logging.ERROR)
