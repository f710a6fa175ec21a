"""The Optuna pruner."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from optuna.pruners import BasePruner
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from hpo.adapters.optuna.engine import _FIDELITY, _PLACE, _PerStudy, _read, _write
from hpo.errors import SpaceError
from hpo.schedulers import ASHA, ASHAVariant, Decision, Schedule, Scheduler, Start, StoppingRule
from hpo.schedulers.median import MedianStopping
from hpo.space import Categorical, Fidelity, SearchSpace
from hpo.space.encoding import Direction
from hpo.trials import Cause, Observation, Report, RungAssignment, Status, Trial, TrialLog

if TYPE_CHECKING:
    from optuna.study import Study


class ScaleTunePruner(_PerStudy["_Race"], BasePruner):
    """Stops trials by the rule of a scheduler.

    Optuna cannot pause a trial and go on with it later, so only schedulers that stop for good can
    be used: `ASHA(kind=ASHAVariant.STOPPING)`, `MedianStopping()`, or a `StoppingRule` of your own.

    A NaN or infinite value ends a trial at once, whatever the rule.

    Args:
        scheduler: the rule.
        fidelity: range of the steps that are reported, which gives ASHA its rungs.

    Raises:
        SpaceError: for a scheduler that needs a fidelity or its own driver.
    """

    def __init__(self, scheduler: Scheduler, fidelity: Fidelity | None = None) -> None:
        stops = isinstance(scheduler, StoppingRule | MedianStopping) or (
            isinstance(scheduler, ASHA) and scheduler.kind is ASHAVariant.STOPPING
        )
        if not stops:
            raise SpaceError(
                f"`scheduler` must only stop trials, for Optuna cannot go on with a paused one, got"
                f" {scheduler!r}; use ASHA(kind=ASHAVariant.STOPPING) or MedianStopping(), or run it with "
                "hpo.optimize(..., scheduler=...)"
            )
        self._scheduler = scheduler
        self._space = SearchSpace({_FIDELITY: fidelity or Categorical([0])})
        scheduler.begin(self._space)
        self._forget()

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Whether `trial` should end after what it reported."""
        last = trial.last_step
        if last is None:
            return False
        if not math.isfinite(trial.intermediate_values[last]):
            return True
        with self._lock:
            races = self._studies.setdefault(study._storage, {})
            race = races.get(study._study_id)
            if race is None:
                direction: Direction = (
                    "maximize" if study.direction is StudyDirection.MAXIMIZE else "minimize"
                )
                schedule = self._scheduler.begin(self._space, direction=direction)
                race = races[study._study_id] = _Race(schedule, self._space)
            others = study.get_trials(deepcopy=False)
            race.follow([other for other in others if other.number != trial.number])
            place = race.enter(trial)
            if place is not None:
                _write(study, trial, _PLACE, {"place": place.to_json()})
            return race.ends(trial)


class _Race:
    """A schedule and its log, kept up with one study."""

    def __init__(self, schedule: Schedule, space: SearchSpace) -> None:
        self._schedule = schedule
        self._log = TrialLog()
        top = space[_FIDELITY]
        self._config = {_FIDELITY: top.high if isinstance(top, Fidelity) else 0}
        self._entered: set[int] = set()
        self._judged: dict[int, int] = {}  # last step that was judged

    def follow(self, trials: Sequence[FrozenTrial]) -> None:
        """Take in what other trials have reported and how they ended."""
        for trial in trials:
            if not trial.intermediate_values:
                continue
            told = self._log.observation(trial.number)
            if told is not None:
                continue
            self.enter(trial)
            for step in sorted(trial.intermediate_values):
                self._log.report(trial.number, Report(step, trial.intermediate_values[step]))
            if trial.state.is_finished():
                self._log.tell(self._ended(trial))

    def enter(self, trial: FrozenTrial) -> RungAssignment | None:
        """Give a trial its place, unless it has one; returns a place that is new."""
        if trial.number in self._entered:
            return None
        self._entered.add(trial.number)
        stored = _read(trial.system_attrs, _PLACE)
        if stored is not None:
            assignment: RungAssignment | None = RungAssignment.from_json(stored["place"])
            new = None
        else:
            start = self._schedule.next(self._log)
            assert isinstance(start, Start)  # a rule that only stops never does anything else
            assignment = new = start.assignment
        self._log.add(Trial(trial.number, self._config, trial.number, None, assignment=assignment))
        return new

    def ends(self, trial: FrozenTrial) -> bool:
        """Whether any report that was not judged yet ends the trial."""
        entered = self._log.trial(trial.number)
        before = self._judged.get(trial.number, -1)
        for step in sorted(s for s in trial.intermediate_values if s > before):
            report = Report(step, trial.intermediate_values[step])
            self._log.report(trial.number, report)
            if self._schedule.on_report(entered, report, self._log) is not Decision.CONTINUE:
                return True
            self._judged[trial.number] = step
        return False

    def _ended(self, trial: FrozenTrial) -> Observation:
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
