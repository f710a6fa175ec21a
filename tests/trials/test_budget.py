"""Budgets and the ledger that counts against them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.errors import BudgetError
from hpo.trials import Cause, Observation, Status, Trial
from hpo.trials.budget import Budget, Ledger, Limits, Spent


def told(number: int, cost: float | None, cause: Cause | None = None) -> Observation:
    """A completed trial, or a failed one if `cause` is given."""
    failed = cause is not None
    return Observation(
        number=number,
        config={},
        loss=None if failed else 1.0,
        cost=cost,
        status=Status.FAILED if failed else Status.COMPLETED,
        cause=cause,
        order=number,
        ask_index=number,
    )


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, True, "60"])
@pytest.mark.parametrize("argument", ["trials", "seconds", "cost", "per_trial"])
def test_a_total_that_is_not_above_zero_is_refused_by_name(argument: str, value: object) -> None:
    with pytest.raises(BudgetError, match=rf"Budget\.{argument} must be .*got {value!r}"):
        Budget(**{argument: value})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("argument", "value"), [("trials", 2.5), ("memory", 1.5), ("memory", 0), ("seconds", -1)]
)
def test_a_limit_of_the_wrong_kind_is_refused_by_name(argument: str, value: float) -> None:
    kind = Budget if argument == "trials" else Limits
    with pytest.raises(BudgetError, match=argument):
        kind(**{argument: value})  # type: ignore[arg-type]


def test_a_plain_number_per_trial_is_a_cost_limit() -> None:
    assert Budget(per_trial=3.0).limits == Limits(cost=3.0)
    assert Budget().limits == Limits()


def test_a_budget_is_bounded_by_any_total_and_not_by_limits_alone() -> None:
    assert Budget(trials=1).bounded and Budget(seconds=1).bounded and Budget(cost=1).bounded
    assert not Budget(per_trial=Limits(seconds=1)).bounded


def test_failed_trials_count_and_lost_ones_do_not() -> None:
    ledger = Ledger(Budget(trials=3))
    ledger.charge(told(0, 2.0))
    ledger.charge(told(1, 3.0, Cause.OOM))
    ledger.charge(told(2, 50.0, Cause.LOST))
    assert ledger.spent == Spent(trials=2, seconds=0.0, cost=5.0)
    assert ledger.remaining_trials == 1


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 1000)), max_size=40))
def test_charging_a_trial_again_changes_nothing(charges: list[tuple[int, int]]) -> None:
    ledger = Ledger(Budget(cost=1e9))
    first: dict[int, int] = {}
    for number, cost in charges:
        first.setdefault(number, cost)
        ledger.charge(told(number, float(first[number])))
    assert ledger.spent == Spent(trials=len(first), cost=float(sum(first.values())))


def test_an_excluded_trial_is_never_charged() -> None:
    ledger = Ledger(Budget(trials=1, cost=1.0))
    ledger.exclude(0)
    ledger.charge(told(0, 100.0))
    assert ledger.spent == Spent()


def test_a_spent_budget_says_what_is_used_up_and_counted_trials_may_still_be_resumed() -> None:
    by_trials, by_cost, by_time = (
        Ledger(budget) for budget in (Budget(trials=1), Budget(cost=4.0), Budget(seconds=10))
    )
    by_trials.charge(told(0, None))
    by_cost.charge(told(0, 4.5))
    by_time.set_elapsed(10.0)
    assert by_trials.remaining_trials == 0
    assert by_trials.spent_out() is None and by_trials.counts(0) and not by_trials.counts(1)
    assert by_cost.spent_out() == "4.5 of 4 cost units are used"
    assert by_time.spent_out() == "10 of 10 seconds are used"


def test_a_trial_is_charged_only_what_it_adds_to_the_run_it_builds_on() -> None:
    ledger = Ledger(Budget(cost=100.0))
    ledger.charge(told(0, 10.0))
    continued = Trial(1, {}, ask_index=0, prediction=None, parent=0)
    clone = Trial(2, {}, ask_index=2, prediction=None, parent=0)
    for trial in (continued, clone):
        ledger.register(trial, told(0, 10.0))
        ledger.register(trial, told(0, 10.0))  # again: nothing changes
    ledger.charge(told(1, 14.0))
    ledger.charge(told(2, 13.0))
    assert ledger.spent == Spent(trials=2, cost=10.0 + 4.0 + 3.0)  # a clone is another trial


def test_the_cost_cap_is_the_smaller_of_the_own_limit_and_what_is_left() -> None:
    ledger = Ledger(Budget(cost=10.0, per_trial=4.0))
    assert ledger.cost_cap == 4.0
    ledger.charge(told(0, 8.0))
    assert ledger.cost_cap == 2.0
    ledger.charge(told(1, 8.0))
    assert ledger.cost_cap == 0.0
    assert Ledger(Budget(trials=1)).cost_cap is None


def test_a_smaller_driving_time_is_ignored() -> None:
    ledger = Ledger(Budget(seconds=10))
    ledger.set_elapsed(6.0)
    ledger.set_elapsed(4.0)
    assert ledger.spent.seconds == 6.0
    assert ledger.remaining_seconds == 4.0
