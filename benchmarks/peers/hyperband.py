"""Optuna's HyperbandPruner with random configs or with TPE.

The pruner assigns each trial to a bracket and prunes it at that bracket's rungs; a trial that
continues is asked to resume. It looks only at the levels low, 3 low, 9 low, ..., so no others are
reported. A trial cannot change its config, so where a pool ran another one in its place the trial
keeps its own with that loss.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from benchmarks.peers.base import Job, Unsupported, rungs
from benchmarks.peers.optuna_tpe import suggested
from benchmarks.peers.spaces import Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler
    from optuna.trial import Trial


class OptunaHyperband:
    """A study in memory whose trials report at every rung."""

    def __init__(self, task: Task, sampler: BaseSampler) -> None:
        import optuna

        if task.levels is None:
            raise Unsupported(f"Hyperband needs a fidelity, and {task.name} has no levels")
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._translation = Translation(task.space, peer="Optuna", conditional=True)
        self._ladder = rungs(task.levels)
        pruner = optuna.pruners.HyperbandPruner(
            min_resource=task.levels.low, max_resource=task.levels.high
        )
        # Optuna hashes the study's name into the choice of the bracket.
        self._study = optuna.create_study(study_name="benchmark", sampler=sampler, pruner=pruner)
        self._trials: dict[int, Trial] = {}
        self._going: deque[Job] = deque()

    def ask(self) -> Job | None:
        if self._going:
            return self._going.popleft()
        trial = self._study.ask()
        self._trials[trial.number] = trial
        return Job(trial.number, suggested(trial, self._translation), self._ladder[0])

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        from optuna.trial import TrialState

        trial = self._trials.get(job.number)
        if trial is None:
            return  # a start point: a finished trial without rungs would only mislead the pruner
        if evaluation.loss is None:
            self._study.tell(trial, state=TrialState.FAIL)
            return
        level = self._ladder[-1] if job.level is None else job.level
        trial.report(evaluation.loss, level)
        if level == self._ladder[-1]:
            self._study.tell(trial, evaluation.loss)
        elif trial.should_prune():
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            above = next(rung for rung in self._ladder if rung > level)
            self._going.append(Job(job.number, job.config, above, resumes=True))


def random(task: Task, *, seed: int, trials: int) -> OptunaHyperband:
    """Hyperband as published: random configs."""
    from optuna.samplers import RandomSampler

    return OptunaHyperband(task, RandomSampler(seed=seed))


def tpe(task: Task, *, seed: int, trials: int) -> OptunaHyperband:
    """Hyperband over TPE's configs."""
    from optuna.samplers import TPESampler

    return OptunaHyperband(task, TPESampler(seed=seed))
