"""What a study may spend, and what it has spent so far.

Three totals bound a study, each optional and each counted over every restart of it:

=========  ======================================================================================
trials     trials that came to a result (paused, completed, stopped or failed); a lost attempt is
           not a trial, nor is a longer run of one that is completed
seconds    wall-clock time spent driving the study: from the start of each `optimize()` call to
           its end, summed over calls. Trials that run side by side count once. After a kill the
           sum goes on from the last trial that was told.
cost       the sum of the trials' costs in the study's declared unit. With `cost="seconds"` that
           is the sum of the trials' own seconds, which workers do multiply.
=========  ======================================================================================

A run that pauses is one trial from its first pause on, and each stage is charged what it adds. So
is a trial that starts from another's checkpoint.

A lost attempt (machine, preemption, driver death) is charged nothing: the trial that continues it
reports the cost of the whole. So the ledger of a killed and resumed study equals the ledger of an
undisturbed one, and what depends on it stays equal too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from hpo.errors import BudgetError
from hpo.trials.records import Cause, Observation, Trial


@dataclass(frozen=True, slots=True)
class Limits:
    """What one trial may use.

    `seconds`: wall-clock; the trial is killed and told `timeout`. `cost`: in the study's declared
    unit, checked at each report; the trial is told to stop and keeps its last reported loss.
    `memory`: resident bytes of the trial's process, interpreter and libraries included; the trial
    is killed and told `oom`.
    """

    seconds: float | None = None
    cost: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        _positive("Limits.seconds", self.seconds)
        _positive("Limits.cost", self.cost)
        _positive_integer("Limits.memory", self.memory, "give bytes, such as 2 * 1024**3")


@dataclass(frozen=True, slots=True)
class Budget:
    """What the whole study may use; every part is optional, the first used up ends the search.

    `trials`, `seconds`, `cost`: see the module. `per_trial`: limits of each single trial, a plain
    number being `Limits(cost=number)`.
    """

    trials: int | None = None
    seconds: float | None = None
    cost: float | None = None
    per_trial: Limits | float | None = None

    def __post_init__(self) -> None:
        _positive_integer("Budget.trials", self.trials, "give the number of trials to run")
        _positive("Budget.seconds", self.seconds)
        _positive("Budget.cost", self.cost)
        if not isinstance(self.per_trial, Limits):
            _positive("Budget.per_trial", self.per_trial)

    @property
    def limits(self) -> Limits:
        """The limits of one trial, `per_trial` in its full form."""
        if isinstance(self.per_trial, Limits):
            return self.per_trial
        return Limits(cost=self.per_trial)

    @property
    def bounded(self) -> bool:
        """Whether any total is set, so that a study with this budget ends."""
        return not (self.trials is None and self.seconds is None and self.cost is None)


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals of a study: finished trials, driving seconds, cost in the declared unit."""

    trials: int = 0
    seconds: float = 0.0
    cost: float = 0.0


class Ledger:
    """Running totals of one study against its budget, rebuilt from the log on resume."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self._excluded: set[int] = set()
        self._counted: set[int] = set()
        self._charged: dict[int, float] = {}  # by trial, cost of its run that is charged already
        self._trials = 0
        self._cost = 0.0
        self._seconds = 0.0

    def register(self, trial: Trial, carried: Observation | None) -> None:
        """Note what a new trial builds on, which is charged already; entering it again is harmless.

        `carried`: the result of its parent, as `TrialLog.carried` has it.
        """
        if carried is None or trial.number in self._charged:
            return
        self._charged[trial.number] = carried.cost or 0.0
        if carried.ask_index == trial.ask_index:  # the same run, not a clone
            self._counted.add(trial.number)

    def charge(self, observation: Observation) -> None:
        """Charge what a told stage adds; telling the same again changes nothing.

        Failed trials are charged like any other; `lost` ones are not.
        """
        number = observation.number
        if observation.cause is Cause.LOST or number in self._excluded:
            return
        if number not in self._counted:
            self._counted.add(number)
            self._trials += 1
        before = self._charged.get(number, 0.0)
        after = max(before, observation.cost or 0.0)
        self._charged[number] = after
        self._cost += after - before

    def counts(self, number: int) -> bool:
        """Whether trial `number` is one of those counted so far, so that it may go on."""
        return number in self._counted

    def exclude(self, number: int) -> None:
        """Never charge trial `number`: it runs on top of the budget."""
        self._excluded.add(number)

    def set_elapsed(self, seconds: float) -> None:
        """Set the total driving time so far, in seconds; it never runs backwards."""
        self._seconds = max(self._seconds, seconds)

    @property
    def spent(self) -> Spent:
        return Spent(self._trials, self._seconds, self._cost)

    @property
    def remaining_trials(self) -> int | None:
        """Trials left, at least zero; None without a limit."""
        limit = self.budget.trials
        return None if limit is None else max(0, limit - self._trials)

    @property
    def remaining_seconds(self) -> float | None:
        """Driving seconds left, at least zero; None without a limit."""
        limit = self.budget.seconds
        return None if limit is None else max(0.0, limit - self._seconds)

    @property
    def remaining_cost(self) -> float | None:
        """Cost left, at least zero; None without a limit."""
        limit = self.budget.cost
        return None if limit is None else max(0.0, limit - self._cost)

    @property
    def cost_cap(self) -> float | None:
        """Most that the next trial may cost: the smaller of its own limit and what is left."""
        caps = [c for c in (self.budget.limits.cost, self.remaining_cost) if c is not None]
        return min(caps, default=None)

    def exhausted(self) -> str | None:
        """Why no new trial may start, in words, or None while one may."""
        if self.remaining_trials == 0:
            return f"all {self.budget.trials} trials are done"
        return self.spent_out()

    def spent_out(self) -> str | None:
        """Why nothing may run at all, not even a trial that is counted, or None."""
        if self.remaining_seconds == 0.0:
            return f"{self._seconds:.4g} of {self.budget.seconds:.4g} seconds are used"
        if self.remaining_cost == 0.0:
            return f"{self._cost:.4g} of {self.budget.cost:.4g} cost units are used"
        return None


def _positive(argument: str, value: float | None) -> None:
    """Raise unless `value` is None or a finite number above zero."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BudgetError(
            f"{argument} must be a number above zero or None, got {value!r}; "
            "leave it out for no limit"
        )
    if not (math.isfinite(value) and value > 0):
        raise BudgetError(
            f"{argument} must be finite and above zero, got {value!r}; leave it out for no limit"
        )


def _positive_integer(argument: str, value: int | None, way_out: str) -> None:
    """Raise unless `value` is None or an int of at least one."""
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BudgetError(
            f"{argument} must be an int of at least 1 or None, got {value!r}; {way_out}"
        )
