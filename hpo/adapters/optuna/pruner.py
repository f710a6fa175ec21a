"""The Optuna pruner: a scheduler's rule for trials that stop for good."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from hpo.adapters.optuna.attributes import ASSIGNMENT, read_attribute, write_attribute
from hpo.adapters.optuna.space_view import FIDELITY
from hpo.adapters.optuna.study_cache import PerStudy
from hpo.adapters.optuna.trial_reader import engine_direction
from hpo.errors import SpaceError
from hpo.schedulers import ASHA, ASHAVariant, Decision, Schedule, Scheduler, Start, StoppingRule
from hpo.schedulers.median import MedianStopping
from hpo.space import Categorical, Fidelity, SearchSpace
from hpo.space.arguments import Kind
from hpo.space.scalars import shown
from hpo.trials import (
    Cause,
    FurthestStep,
    Observation,
    Report,
    RungAssignment,
    Status,
    Trial,
    TrialLog,
)

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["ScaleTunePruner"]


class ScaleTunePruner(BasePruner):
    """Stops trials by the rule of a scheduler.

    Optuna cannot pause a trial and resume it later, so only schedulers that stop for good can be
    used: `ASHA(kind=ASHAVariant.STOPPING)`, `MedianStopping()`, or a `StoppingRule` of your own.

    A NaN or infinite value ends a trial at once, whatever the rule. After a report with a step
    beyond the fidelity, `should_prune` raises ValueError: such a run would pass for a whole one.

    Args:
        scheduler: Rule that says which trials stop.
        fidelity: Range of the steps that are reported, which gives ASHA its rungs.

    Raises:
        SpaceError: For a scheduler that needs a fidelity or must pause trials.

    Example:
        >>> import optuna
        >>> from hpo import ASHA, Fidelity
        >>> from hpo.adapters.optuna import ScaleTunePruner
        >>> from hpo.schedulers import ASHAVariant
        >>> pruner = ScaleTunePruner(ASHA(eta=3, kind=ASHAVariant.STOPPING), Fidelity(1, 9))
        >>> study = optuna.create_study(pruner=pruner)
        >>> def objective(trial):
        ...     loss = [0.4, 0.6, 0.2][trial.number]
        ...     for step in range(1, 10):
        ...         trial.report(loss, step)
        ...         if trial.should_prune():
        ...             raise optuna.TrialPruned
        ...     return loss
        >>> study.optimize(objective, n_trials=3)
        >>> [trial.state.name for trial in study.trials]
        ['COMPLETE', 'PRUNED', 'COMPLETE']
    """

    def __init__(self, scheduler: Scheduler, fidelity: Fidelity | None = None) -> None:
        only_stops = isinstance(scheduler, StoppingRule | MedianStopping) or (
            isinstance(scheduler, ASHA) and scheduler.kind is ASHAVariant.STOPPING
        )
        if not only_stops:
            raise SpaceError(
                "`scheduler` must only stop trials, because Optuna cannot resume a paused one, got"
                f" {shown(scheduler)}; use ASHA(kind=ASHAVariant.STOPPING) or MedianStopping(), or"
                " run it with hpo.optimize(..., scheduler=...)"
            )
        kind = Kind(Fidelity, optional=True, way_out="write Fidelity(1, 81)")
        fidelity = kind(fidelity, "`fidelity`", SpaceError)
        self._scheduler = scheduler
        self._space = SearchSpace({FIDELITY: fidelity or Categorical([0])})
        self._furthest = None if fidelity is None else FurthestStep("fidelity", fidelity.high)
        scheduler.begin(self._space)  # refuses a scheduler that needs a fidelity and has none
        self._states: PerStudy[PrunerState] = PerStudy()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Return whether `trial` should end after what it has reported.

        Raises:
            ValueError: For a step beyond the fidelity.
        """
        last = trial.last_step
        if last is None:
            return False
        if not math.isfinite(trial.intermediate_values[last]):
            return True
        if self._furthest is not None:
            self._furthest.check(last)

        def begin() -> PrunerState:
            direction = engine_direction(study.direction)
            return PrunerState(self._scheduler.begin(self._space, direction=direction), self._space)

        with self._states.lock:
            state = self._states.get(study, begin)
            others = study.get_trials(deepcopy=False)
            state.update([other for other in others if other.number != trial.number])
            assignment = state.add(trial)
            if assignment is not None:
                write_attribute(study, trial, ASSIGNMENT, {"place": assignment.to_json()})
            return state.stops(trial)


class PrunerState:
    """A schedule and its log, which follows one study.

    Args:
        schedule: Schedule over `space` with an empty log.
        space: Search space of the fidelity alone.
    """

    def __init__(self, schedule: Schedule, space: SearchSpace) -> None:
        self._schedule = schedule
        self._log = TrialLog()
        top = space[FIDELITY]
        self._config = {FIDELITY: top.high if isinstance(top, Fidelity) else 0}
        self._added: set[int] = set()
        self._judged: dict[int, int] = {}  # last step that was judged

    def update(self, trials: Sequence[FrozenTrial]) -> None:
        """Log what other trials have reported and how they ended."""
        for trial in trials:
            if not trial.intermediate_values:
                continue
            if self._log.observation(trial.number) is not None:
                continue
            self.add(trial)
            for step in sorted(trial.intermediate_values):
                self._log.report(trial.number, Report(step, trial.intermediate_values[step]))
            if trial.state.is_finished():
                self._log.tell(self._observation(trial))

    def add(self, trial: FrozenTrial) -> RungAssignment | None:
        """Log a trial with its rung assignment, unless it is there; return an assignment if new."""
        if trial.number in self._added:
            return None
        self._added.add(trial.number)
        stored = read_attribute(trial.system_attrs, ASSIGNMENT)
        if stored is not None:
            assignment: RungAssignment | None = RungAssignment.from_json(stored["place"])
            new = None
        else:
            start = self._schedule.next(self._log)
            assert isinstance(start, Start)  # a rule that only stops never does anything else
            assignment = new = start.assignment
        self._log.add(Trial(trial.number, self._config, trial.number, None, assignment=assignment))
        return new

    def stops(self, trial: FrozenTrial) -> bool:
        """Return whether any report that was not judged yet ends the trial."""
        entered = self._log.trial(trial.number)
        before = self._judged.get(trial.number, -1)
        for step in sorted(s for s in trial.intermediate_values if s > before):
            report = Report(step, trial.intermediate_values[step])
            self._log.report(trial.number, report)
            if self._schedule.on_report(entered, report, self._log) is not Decision.CONTINUE:
                return True
            self._judged[trial.number] = step
        return False

    def _observation(self, trial: FrozenTrial) -> Observation:
        loss = trial.value if trial.state is TrialState.COMPLETE else None
        if loss is not None and not math.isfinite(loss):
            loss = None
        done = trial.state is TrialState.PRUNED or loss is not None
        status = Status.STOPPED if trial.state is TrialState.PRUNED else Status.COMPLETED
        return Observation(
            number=trial.number,
            config=self._config,
            loss=loss,
            cost=None,
            status=status if done else Status.FAILED,
            cause=None if done else Cause.ERROR,
            order=self._log.next_order,
            ask_index=trial.number,
        )
