"""What is remembered of a study between two questions of Optuna; all of it can be rebuilt."""

from __future__ import annotations

import math
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from optuna.trial import FrozenTrial, TrialState

from hpo.adapters.amounts import number_or_none
from hpo.adapters.optuna.attributes import ASKED, read_attribute
from hpo.adapters.optuna.define_by_run import ObservedSpace
from hpo.adapters.optuna.engine import SyncedOptimizer
from hpo.adapters.optuna.scalarization import Scalarization, weights
from hpo.space import Fidelity
from hpo.study.takeover import retried_numbers

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["PerStudy", "StudyCache"]

State = TypeVar("State")


class PerStudy(Generic[State]):
    """One state for each study, dropped with the study's storage.

    Pickling and copying give an empty one: the states can be rebuilt, and a lock cannot travel.

    Attributes:
        lock: Held by whoever uses a state; Optuna asks from several threads.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._states: weakref.WeakKeyDictionary[Any, dict[int, State]] = weakref.WeakKeyDictionary()

    def get(self, study: Study, create: Callable[[], State]) -> State:
        """Return the state of `study`, made by `create` if there is none."""
        states = self._states.setdefault(study._storage, {})  # a study has no other identity
        if study._study_id not in states:
            states[study._study_id] = create()
        return states[study._study_id]

    def __reduce__(self) -> tuple[type[PerStudy[State]], tuple[()]]:
        return type(self), ()


class StudyCache:
    """What a sampler has read of one study so far.

    Attributes:
        observed: Search space that its trials have shown.
        finished: Finished trials in the order in which they ended.
        running: Trials that ran at the last look.
        retried: Numbers of failed trials that Optuna's heartbeat has repeated.
        last_numbers: Last value of each user attribute that is a number.
        unsuggested: Names of declared parameters that a trial got a value of and never suggested.
        proposals: What was stored as proposed for each running trial, by its number.
        warned: Names of parameters whose random draw was logged.
        warned_of_condition: Names of parameters whose declared condition trials contradict.
        warned_of_steps: Whether steps beyond the declared fidelity were logged.
        constraints: Names of the constraints that complete trials have.
        optimizers: Engines by what they search, the one used last at the end.
    """

    def __init__(self) -> None:
        self.observed = ObservedSpace()
        self.finished: list[FrozenTrial] = []
        self.running: list[FrozenTrial] = []
        self.retried: set[int] = set()
        self.last_numbers: dict[str, float] = {}
        self.unsuggested: set[str] = set()
        self.proposals: dict[int, dict[str, Any]] = {}
        self.warned: set[str] = set()
        self.warned_of_condition: set[str] = set()
        self.warned_of_steps = False
        self.constraints: dict[str, None] = {}
        self.optimizers: OrderedDict[Any, SyncedOptimizer] = OrderedDict()
        self._seen: set[int] = set()
        self._pruned = False
        self._longest = 0
        self._complete = 0

    def update(self, trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
        """Read what is new among all trials of the study.

        Returns:
            Trials that have finished since the last call, then those that run.
        """
        self.running = [trial for trial in trials if trial.state is TrialState.RUNNING]
        retried = retried_numbers(trials)
        if any(number in self._seen for number in retried - self.retried):
            self.optimizers.clear()  # they were told a failure before its repetition was there
        self.retried |= retried
        new = [t for t in trials if t.state.is_finished() and t.number not in self._seen]
        new.sort(key=lambda t: (_local(t.datetime_complete), t.number))
        for trial in new:
            self._add(trial)
        return new + self.running

    def _add(self, trial: FrozenTrial) -> None:
        self._seen.add(trial.number)
        self.finished.append(trial)
        self.proposals.pop(trial.number, None)
        if trial.state is TrialState.FAIL:
            return  # it may have failed before it had suggested everything
        self.observed.add(trial)
        asked = read_attribute(trial.system_attrs, ASKED) or {"declared": {}}
        self.unsuggested.update(set(asked["declared"]) - set(trial.params))
        for name, value in trial.user_attrs.items():
            number = number_or_none(value)
            if number is not None:
                self.last_numbers[name] = number
        if trial.state is TrialState.COMPLETE:
            self._complete += 1
            self.constraints.update(dict.fromkeys(trial.constraints))
            self._longest = max([self._longest, *trial.intermediate_values])
        elif any(math.isfinite(value) for value in trial.intermediate_values.values()):
            self._pruned = True

    def best_before(self, number: int, sign: float) -> FrozenTrial | None:
        """Return the complete trial of a lower number with the least `sign` times its value."""
        finite = [
            (sign * trial.value, trial.number, trial)
            for trial in self.finished
            if trial.number < number
            and trial.state is TrialState.COMPLETE
            and trial.value is not None
            and math.isfinite(trial.value)
        ]
        return min(finite)[2] if finite else None

    def full_step(self, declared: Fidelity | None) -> int | None:
        """Return the last step of a whole run; None while no shorter run is to be compared."""
        if not self._pruned:
            return None
        return declared.high if declared is not None else max(self._longest, 2)

    def scalarization(self, number: int, objectives: int) -> Scalarization | None:
        """Return the scalarization that trial `number` serves; None for a single objective."""
        if objectives == 1:
            return None
        settled = 1 << max(self._complete.bit_length() - 1, 0)  # 1, 2, 4, .. so it changes rarely
        values = [t.values for t in self.finished if t.state is TrialState.COMPLETE]
        finite = [v for v in values if v and all(map(math.isfinite, v))][:settled]
        return Scalarization(
            weights(number % (4 * objectives), objectives), tuple(map(tuple, finite))
        )


def _local(time: datetime | None) -> datetime:
    """A time as Optuna's own clock shows it, local and without a time zone; the first for None."""
    if time is None:
        return datetime.min
    return time if time.tzinfo is None else time.astimezone().replace(tzinfo=None)
