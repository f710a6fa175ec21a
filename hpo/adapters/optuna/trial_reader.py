"""Optuna's trials read as runs: loss, cost, and fidelity, or the cause of a failure."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.adapters.amounts import amount_or_none
from hpo.adapters.optuna.scalarization import Scalarization
from hpo.schedulers.ladder import Ladder
from hpo.space import Direction
from hpo.study.takeover import failure_cause, trial_seconds
from hpo.trials import Cause
from hpo.trials.records import SECONDS

__all__ = ["ReadRun", "TrialReader", "engine_direction", "limit_name"]

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
        metrics: Further objectives and constrained values, by the engine's names.
    """

    fidelity: int | None
    loss: float | None
    cost: float | None
    seconds: float | None
    cause: Cause | None
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TrialReader:
    """Rules by which the trials of one study are read.

    Attributes:
        cost: Unit of the costs and user attribute that holds them; None if none is declared.
        directions: Direction of each objective.
        retried: Numbers of failed trials that Optuna's heartbeat has repeated.
        scalarization: How several objectives become one; None for a single objective, and where the
            engine models each.
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
        """Direction of the loss, the first objective: a scalarized one is always minimized."""
        if self.scalarization is not None:
            return Direction.MINIMIZE
        return engine_direction(self.directions[0])

    @property
    def objectives(self) -> dict[str, str] | None:
        """Direction of each objective by the engine's names; None where the loss is one number."""
        if len(self.directions) == 1 or self.scalarization is not None:
            return None
        return {_objective(k): d.name.lower() for k, d in enumerate(self.directions)}

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
        metrics = self._metrics(trial) if cause is None and self.objectives else {}
        longest = ReadRun(fidelity, loss if cause is None else None, cost, seconds, cause, metrics)
        if cause is not None or self.full_step is None or trial.state is not TrialState.COMPLETE:
            return [longest]
        shorter: list[ReadRun] = []
        for level in Ladder.geometric(1, self.full_step, _ETA).levels[:-1]:
            step = min((s for s in finite if level <= s < self.full_step), default=None)
            if step is not None and all(run.fidelity != step for run in shorter):
                shorter.append(ReadRun(step, finite[step], None, None, None))
        return [*shorter, longest]

    def _metrics(self, trial: FrozenTrial) -> dict[str, float]:
        """Objectives after the first, and constrained values, of a complete trial."""
        others = {_objective(k): v for k, v in enumerate(trial.values) if k}
        return others | {limit_name(name): v for name, v in trial.constraints.items()}

    def _outcome(
        self, trial: FrozenTrial, finite: Mapping[int, float]
    ) -> tuple[float | None, Cause | None, int | None]:
        """Loss or cause of failure, and the fidelity of a run that is not whole."""
        if trial.number in self.retried:
            return None, Cause.LOST, None
        if trial.state is TrialState.FAIL:
            return None, failure_cause(trial), None
        violated = any(value > 0 for value in trial.constraints.values())
        if violated and self.objectives is None:
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


def _objective(index: int) -> str:
    return f"objective {index}"


def limit_name(name: str) -> str:
    """Return the engine's name of a constraint of Optuna, which is kept where it is at most 0."""
    return f"constraint {name}"


def engine_direction(direction: StudyDirection) -> Direction:
    """Return Optuna's direction by the engine's name for it."""
    return Direction(direction.name.lower())
