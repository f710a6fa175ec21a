"""Budget of a study and the ledger of what it has spent.

Three totals bound a study, each optional and each counted over every restart of it:

=========  ======================================================================================
trials     trials that came to a result (paused, completed, stopped or failed); a lost attempt is
           not a trial, nor is a longer run of one that is completed
seconds    wall-clock time spent driving the study: from the start of each `optimize()` call to
           its end, summed over calls. Trials that run side by side count once. After a kill the
           sum continues from the last trial that was told.
cost       the sum of the trials' costs in the study's declared unit. With `cost="seconds"` that
           is the sum of the trials' own seconds: with four workers it grows four times as fast.
           Without a declared unit costs follow from the configs (:mod:`hpo.trials.default_cost`).
=========  ======================================================================================

A run that pauses is one trial from its first pause on. Each stage is charged the cost it adds; a
trial that starts from another's checkpoint is charged in the same way.

A lost attempt (machine, preemption, driver death) is charged nothing: the trial that continues it
reports the cost of the whole. So the ledger of a killed and resumed study equals the ledger of an
undisturbed one, and what depends on it stays equal too.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

from hpo.errors import BudgetError
from hpo.space.arguments import Count, Kind, Number, Rule, store
from hpo.trials.records import Cause, Observation, Trial

_AMOUNT = Number(above=0, optional=True, way_out="leave it out for no limit")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one trial; None is no limit.

    Attributes:
        seconds: Wall-clock seconds. Beyond them the trial is killed and fails with `timeout`.
        cost: Cost in the study's declared unit, checked at each report. Beyond it the trial is told
            to stop and keeps its last reported loss.
        memory: Resident bytes of the trial's process, interpreter and libraries included. Beyond
            them the trial is killed and fails with `oom`.

    Raises:
        BudgetError: If a limit is not above zero, or `memory` is not a whole number.

    Example:
        >>> Budget(trials=100, per_trial=Limits(seconds=3600, memory=8 * 1024**3)).limits.seconds
        3600
    """

    seconds: float | None = None
    cost: float | None = None
    memory: int | None = None

    def __post_init__(self) -> None:
        memory = Count(1, optional=True, way_out="give bytes, such as 2 * 1024**3")
        _store(self, seconds=_AMOUNT, cost=_AMOUNT, memory=memory)


@dataclass(frozen=True, slots=True)
class Regret:
    """Expected regret of stopping at which a search ends.

    It is what the models expect to be lost by keeping the believed best config rather than the best
    of the space (:mod:`hpo.models.stopping`).

    Attributes:
        tolerance: Largest regret that does not matter, in units of the objective.

    Raises:
        BudgetError: If it is not above zero.

    Example:
        >>> print(Regret(0.01))
        an expected regret of at most 0.01
    """

    tolerance: float

    def __post_init__(self) -> None:
        way_out = "give a difference of the objective that does not matter, such as 0.01"
        store(self, BudgetError, tolerance=Number(above=0, way_out=way_out))

    def __str__(self) -> str:
        return f"an expected regret of at most {self.tolerance:.6g}"


@dataclass(frozen=True, slots=True)
class Budget:
    """Budget of a whole study; every part is optional, and the first used up ends the search.

    Attributes:
        trials: Number of trials that come to a result, failed ones included.
        seconds: Wall-clock seconds spent driving the study, summed over all its calls.
        cost: Sum of the trials' costs, in the study's declared unit; without one as derived by
            :mod:`hpo.trials.default_cost`.
        per_trial: Limits of each single trial; a plain number is `Limits(cost=number)`.
        until: Expected regret below which no new config starts, `Regret(0.01)` in units of the
            objective (docs/when_to_stop.md). One of the three totals must cap it.

    Raises:
        BudgetError: If a part is not above zero, or `trials` is not a whole number.

    Example:
        >>> budget = Budget(cost=1000.0, per_trial=50.0)
        >>> budget.limits.cost, budget.bounded
        (50.0, True)
        >>> print(budget)
        a cost of 1000; of one trial: cost 50.0
    """

    trials: int | None = None
    seconds: float | None = None
    cost: float | None = None
    per_trial: Limits | float | None = None
    until: Regret | None = None

    def __post_init__(self) -> None:
        trials = Count(1, optional=True, way_out="give the number of trials to run")
        _store(self, trials=trials, seconds=_AMOUNT, cost=_AMOUNT)
        if not isinstance(self.per_trial, Limits):
            per_trial = replace(_AMOUNT, way_out="give a cost, or Limits(seconds=...)")
            _store(self, per_trial=per_trial)
        _store(self, until=Kind(Regret, optional=True, way_out="write until=Regret(0.01)"))

    def __str__(self) -> str:
        parts = [
            f"{value:.6g} {name}" if name != "cost" else f"a cost of {value:.6g}"
            for name in ("trials", "seconds", "cost")
            if (value := getattr(self, name)) is not None
        ]
        limits = ", ".join(
            f"{field.name} {value}"
            for field in fields(self.limits)
            if (value := getattr(self.limits, field.name)) is not None
        )
        total = ", ".join(parts) or "no limit"
        if self.until is not None:
            total += f", or {self.until}"
        return f"{total}; of one trial: {limits}" if limits else total

    @property
    def limits(self) -> Limits:
        """The limits of one trial, `per_trial` in its full form.

        Example:
            >>> Budget(trials=10, per_trial=50.0).limits
            Limits(seconds=None, cost=50.0, memory=None)
        """
        if isinstance(self.per_trial, Limits):
            return self.per_trial
        return Limits(cost=self.per_trial)

    @property
    def bounded(self) -> bool:
        """Whether any total is set, so that a study with this budget ends.

        Example:
            >>> Budget(seconds=3600).bounded, Budget(per_trial=50.0).bounded
            (True, False)
        """
        return not (self.trials is None and self.seconds is None and self.cost is None)


@dataclass(frozen=True, slots=True)
class Spent:
    """Totals of a study.

    Attributes:
        trials: Number of trials that came to a result.
        seconds: Wall-clock seconds spent driving the study.
        cost: Cost in the declared unit.

    Example:
        >>> Spent(trials=3, cost=12.0).seconds
        0.0
    """

    trials: int = 0
    seconds: float = 0.0
    cost: float = 0.0


class Ledger:
    """Running totals of one study against its budget, rebuilt from the log on resume.

    Args:
        budget: Budget to count against.

    Example:
        >>> from hpo.trials.records import Observation, Status
        >>> ledger = Ledger(Budget(trials=10, cost=5.0))
        >>> ledger.charge(
        ...     Observation(0, {}, 0.3, 2.0, Status.COMPLETED, None, order=0, ask_index=0)
        ... )
        >>> ledger.remaining_trials, ledger.remaining_cost
        (9, 3.0)
        >>> ledger.spent
        Spent(trials=1, seconds=0.0, cost=2.0)
    """

    def __init__(self, budget: Budget) -> None:
        self.budget = Kind(Budget, way_out="write Budget(trials=60)")(budget, "`budget`")
        self._excluded: set[int] = set()
        self._counted: set[int] = set()
        self._charged: dict[int, float] = {}  # by trial, cost of its run that is charged already
        self._trials = 0
        self._cost = 0.0
        self._seconds = 0.0

    def register(self, trial: Trial, carried: Observation | None) -> None:
        """Register a new trial, so that only what it adds to earlier runs is charged.

        Registering a trial again changes nothing.

        Args:
            trial: Trial that was asked or resumed.
            carried: Last result on which the trial builds, whose cost is charged already
                (`TrialLog.carried`); None for a run from nothing.
        """
        if carried is None or trial.number in self._charged:
            return
        self._charged[trial.number] = carried.cost or 0.0
        if carried.ask_index == trial.ask_index:  # the same run, not a clone
            self._counted.add(trial.number)

    def charge(self, observation: Observation) -> None:
        """Charge what a stage has added; charging the same result again changes nothing.

        Failed trials are charged like any other; lost ones are not.

        Args:
            observation: Result of the stage, with the cost of the whole run.
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
        """Return whether trial `number` is counted already, so that it may be resumed."""
        return number in self._counted

    def exclude(self, number: int) -> None:
        """Exclude trial `number` from the budget: it is never charged."""
        self._excluded.add(number)

    def set_elapsed(self, seconds: float) -> None:
        """Set the total driving time so far, in seconds; a smaller value is ignored."""
        self._seconds = max(self._seconds, seconds)

    @property
    def spent(self) -> Spent:
        """Totals so far."""
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
        """Largest cost of the next trial: the smaller of its own limit and what is left."""
        caps = [c for c in (self.budget.limits.cost, self.remaining_cost) if c is not None]
        return min(caps, default=None)

    def spent_out(self) -> str | None:
        """Return why nothing may run at all, not even a trial that is counted, or None.

        The number of trials is no such reason: a counted trial may be resumed.
        """
        if self.remaining_seconds == 0.0:
            return f"{self._seconds:.4g} of {self.budget.seconds:.4g} seconds are used"
        if self.remaining_cost == 0.0:
            return f"{self._cost:.4g} of {self.budget.cost:.4g} cost units are used"
        return None


def _store(limits: Limits | Budget, **rules: Rule) -> None:
    """Check the named parts and store them; their messages name them as users write them."""
    for part, rule in rules.items():
        name = f"{type(limits).__name__}.{part}"
        object.__setattr__(limits, part, rule(getattr(limits, part), name, BudgetError))
