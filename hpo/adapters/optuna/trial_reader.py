"""Optuna's trials read as runs: loss, cost, and fidelity, or the cause of a failure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.adapters.amounts import amount_or_none
from hpo.adapters.optuna.scalarization import Scalarization
from hpo.schedulers.ladder import Ladder
from hpo.space import Direction
from hpo.study.takeover import failure_cause, trial_seconds
from hpo.trials import Cause
from hpo.trials.records import SECONDS

__all__ = ["ReadRun", "TrialReader", "engine_direction"]

_ETA = 4  # factor between the fidelities at which a complete trial is read


@dataclass(frozen=True, slots=True)
class ReadRun:
    """One run that a trial stands for.

    Attributes:
        fidelity: Step it reached; None for a whole run.
        loss: Its loss; None if it failed.
        cost: Its cost in the study's unit; None if unknown.
        seconds: Its wall-clock time; None if unknown.
        cause: Why it failed; None if it did not.
    """

    fidelity: int | None
    loss: float | None
    cost: float | None
    seconds: float | None
    cause: Cause | None


@dataclass(frozen=True, slots=True)
class TrialReader:
    """Rules by which the trials of one study are read.

    Attributes:
        cost: Unit of the costs and user attribute that holds them; None if none is declared.
        directions: Direction of each objective.
        retried: Numbers of failed trials that Optuna's heartbeat has repeated.
        scalarization: How several objectives become one; None for a single objective.
        full_step: Last step of a whole run; None while no shorter run is compared with whole ones.
        furthest: Largest step of the declared fidelity; None if there is none. A shorter run with a
            step beyond it counts in another unit, and its level is unknown.
    """

    cost: str | None
    directions: tuple[StudyDirection, ...]
    retried: frozenset[int]
    scalarization: Scalarization | None
    full_step: int | None
    furthest: int | None = None

    @property
    def direction(self) -> Direction:
        """Direction of the loss: a scalarized one is always minimized."""
        single = len(self.directions) == 1
        return engine_direction(self.directions[0]) if single else Direction.MINIMIZE

    def runs(self, trial: FrozenTrial) -> list[ReadRun]:
        """Return the runs that a finished trial stands for, the longest last; none if unclear."""
        seconds = trial_seconds(trial)
        cost = amount_or_none(trial.user_attrs.get(self.cost)) if self.cost else None
        if cost is None and self.cost == SECONDS:
            cost = seconds
        finite = {s: v for s, v in trial.intermediate_values.items() if math.isfinite(v)}
        loss, cause, fidelity = self._outcome(trial, finite)
        if cause is None and loss is None:
            return []
        longest = ReadRun(fidelity, loss if cause is None else None, cost, seconds, cause)
        if cause is not None or self.full_step is None or trial.state is not TrialState.COMPLETE:
            return [longest]
        shorter: list[ReadRun] = []
        for level in Ladder.geometric(1, self.full_step, _ETA).levels[:-1]:
            step = min((s for s in finite if level <= s < self.full_step), default=None)
            if step is not None and all(run.fidelity != step for run in shorter):
                shorter.append(ReadRun(step, finite[step], None, None, None))
        return [*shorter, longest]

    def _outcome(
        self, trial: FrozenTrial, finite: Mapping[int, float]
    ) -> tuple[float | None, Cause | None, int | None]:
        """Loss or cause of failure, and the fidelity of a run that is not whole."""
        if trial.number in self.retried:
            return None, Cause.LOST, None
        if trial.state is TrialState.FAIL:
            return None, failure_cause(trial), None
        if any(value > 0 for value in trial.constraints.values()):
            return None, Cause.ERROR, None
        if trial.state is TrialState.COMPLETE:
            assert trial.values is not None
            if not all(map(math.isfinite, trial.values)):
                return None, Cause.DIVERGED, None
            if self.scalarization is not None:
                signs = [engine_direction(each).sign for each in self.directions]
                return self.scalarization.loss(trial.values, signs), None, None
            return trial.values[0], None, None
        last = trial.last_step
        if last is None or (self.furthest is not None and last > self.furthest):
            return None, None, None
        if last not in finite:
            return None, Cause.DIVERGED, None
        return finite[last], None, min(max(last, 1), self.full_step or 1)


def engine_direction(direction: StudyDirection) -> Direction:
    """Return Optuna's direction by the engine's name for it."""
    return Direction(direction.name.lower())
