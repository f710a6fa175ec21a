"""Records are checked when they are made; the log keeps each result for good."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo import Cause, Observation, Prediction, Report, Status, StudyError, Trial
from hpo.trials import BranchLoss, Reason, ReasonKind, RungAssignment, TrialLog

numbers = st.floats(allow_nan=False, allow_infinity=False)
amounts = st.floats(0, 1e30)
intervals = st.tuples(numbers, numbers).map(lambda pair: (min(pair), max(pair)))
kinds = st.sampled_from([ReasonKind.EXPLORE, ReasonKind.REPLICATE, ReasonKind.OTHER])
predictions = st.builds(
    Prediction,
    loss=st.none() | numbers,
    loss_interval=st.none() | intervals,
    cost=st.none() | amounts,
    cost_interval=st.none() | intervals,
    success=st.floats(0, 1),
    degraded=st.booleans(),
    fallbacks=st.integers(0, 9),
    reason=st.none() | st.builds(Reason, kinds, repeated=st.booleans(), text=st.text()),
)
reports = st.builds(
    Report,
    step=st.integers(0, 10**6),
    loss=st.none() | st.floats(),
    cost=st.none() | amounts,
    metrics=st.dictionaries(st.text(max_size=5), st.floats()),
)


def trial(number: int, **changes: Any) -> Trial:
    return replace(Trial(number, {"x": 0.5 + number}, ask_index=number, prediction=None), **changes)


def result(number: int, **changes: Any) -> Observation:
    completed = Observation(
        number=number,
        config={"x": 0.5 + number},
        loss=1.0,
        cost=2.0,
        status=Status.COMPLETED,
        cause=None,
        order=number,
        ask_index=number,
    )
    return replace(completed, **changes)


def failed(number: int, cause: Cause, **changes: Any) -> Observation:
    return result(number, status=Status.FAILED, cause=cause, loss=None, **changes)


@given(predictions)
def test_a_prediction_survives_json(prediction: Prediction) -> None:
    stored = json.dumps(prediction.to_json(), allow_nan=False)
    assert Prediction.from_json(json.loads(stored)) == prediction


def test_a_prediction_stored_before_reasons_had_fields_keeps_its_sentence() -> None:
    stored = Prediction(1.0, None, None, None, None).to_json()
    del stored["reason_fields"]
    assert Prediction.from_json(stored).reason is None
    stored["reason"] = "improves the front near cost 3"
    reason = Prediction.from_json(stored).reason
    assert reason == Reason(ReasonKind.OTHER, text="improves the front near cost 3")
    assert str(reason) == "improves the front near cost 3"


def test_a_rung_assignment_survives_json() -> None:
    assignment = RungAssignment(level=9, bracket=2, cohort=1)
    assert RungAssignment.from_json(json.loads(json.dumps(assignment.to_json()))) == assignment


@pytest.mark.parametrize("status", [Status.COMPLETED, Status.PAUSED, Status.FAILED])
def test_an_observation_survives_json(status: Status) -> None:
    told = result(3, status=status, cause=Cause.OOM if status is Status.FAILED else None)
    read = Observation.from_json(
        json.loads(json.dumps(told.to_json(), allow_nan=False)),
        number=told.number,
        config=told.config,
        ask_index=told.ask_index,
        reports=(),
    )
    assert read == told


@given(reports)
def test_a_report_survives_strict_json_even_when_diverging(report: Report) -> None:
    stored = json.dumps(report.to_json(), allow_nan=False)
    assert repr(Report.from_json(json.loads(stored))) == repr(report)  # repr, as nan != nan


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"loss": math.nan}, "`loss` of Prediction must be a finite number or None, got nan"),
        ({"loss_interval": (0.0, math.inf)}, "`loss_interval` of Prediction must be .* finite"),
        ({"cost_interval": (2.0, 1.0)}, "`cost_interval` of Prediction must be"),
        ({"success": 1.1}, "`success` of Prediction must be .* at most 1 or None, got 1.1"),
    ],
)
def test_a_prediction_that_is_not_finite_or_out_of_range_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        replace(Prediction(1.0, (0.5, 1.5), None, None, 0.9), **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"loss": math.nan},
            "a finite number or None, got nan; tell status FAILED with cause DIVERGED",
        ),
        ({"loss": -math.inf}, "must be a finite number or None, got -inf"),
        ({"loss": None}, "`loss` must be given when `status` is COMPLETED"),
        (
            {"cost": math.inf},
            "`cost` of Observation must be a finite number of at least 0 or None, got inf",
        ),
        (
            {"cost": -1.0},
            "`cost` of Observation must be a finite number of at least 0 or None, got -1.0",
        ),
        (
            {"seconds": -1.0},
            "`seconds` of Observation must be a finite number of at least 0 or None",
        ),
        ({"cause": Cause.OOM}, "`cause` must be given exactly when `status` is FAILED"),
        ({"status": Status.FAILED}, "`cause` must be given exactly when `status` is FAILED"),
        ({"status": Status.PENDING}, "`status` of an observation must not be PENDING"),
    ],
)
def test_an_observation_that_breaks_a_rule_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        result(0, **changes)


def test_a_failed_or_stopped_trial_needs_no_loss_and_keeps_its_cost() -> None:
    assert failed(0, Cause.OOM).cost == 2.0
    assert result(0, status=Status.STOPPED, loss=None).cost == 2.0


def test_a_report_counts_up_from_zero() -> None:
    with pytest.raises(ValueError, match="`step` of Report must be an int of at least 0, got -1"):
        Report(-1)


def test_every_cause_but_a_lost_machine_says_something_about_the_config() -> None:
    assert [cause for cause in Cause if not cause.teaches] == [Cause.LOST]


def test_records_keep_their_own_copy_of_the_config() -> None:
    config = {"x": 0.5}
    asked = Trial(0, config, 0, None)
    config["x"] = 9.0
    assert asked.config == {"x": 0.5}


def test_a_trial_is_pending_until_it_is_told() -> None:
    log = TrialLog()
    log.add(trial(0))
    log.add(trial(1))
    assert log.pending == (trial(0), trial(1))
    assert log.tell(result(1))
    assert log.pending == (trial(0),)
    assert log.observations == (result(1),)
    assert log.trial(1) == trial(1)
    assert len(log) == 1


def test_observations_stand_in_the_order_they_were_told() -> None:
    log = TrialLog()
    for number in range(3):
        log.add(trial(number))
    for order, number in enumerate((2, 0, 1)):
        log.tell(result(number, order=order))
    assert [observation.number for observation in log.observations] == [2, 0, 1]


def test_telling_the_same_result_twice_changes_nothing() -> None:
    log = TrialLog()
    log.add(trial(0))
    log.tell(result(0))
    assert not log.tell(result(0, order=log.next_order, seconds=99.0))
    assert log.observations == (result(0),)
    assert log.next_order == 1


@pytest.mark.parametrize(
    "other",
    [result(0, loss=0.9), result(0, cost=None), failed(0, Cause.OOM), failed(0, Cause.LOST)],
)
def test_a_finished_trial_keeps_its_result(other: Observation) -> None:
    log = TrialLog()
    log.add(trial(0))
    log.tell(result(0))
    with pytest.raises(StudyError, match="trial 0 is finished with completed, loss=1.0, cost=2.0"):
        log.tell(other)
    assert log.observations == (result(0),)


def test_a_result_from_elsewhere_needs_no_trial() -> None:
    log = TrialLog()
    log.tell(result(4, ask_index=None))
    assert log.next_number == 5
    assert log.next_ask_index == 0
    assert log.pending == ()


def test_a_result_of_an_asked_trial_needs_the_trial_and_its_config() -> None:
    log = TrialLog()
    with pytest.raises(StudyError, match="trial 0 was never added"):
        log.tell(result(0))
    log.add(trial(0))
    with pytest.raises(StudyError, match=r"trial 0 has config .* got a result for {'x': 7}"):
        log.tell(result(0, config={"x": 7}))
    assert log.pending == (trial(0),)


def test_adding_twice_changes_nothing_and_another_trial_of_that_number_is_refused() -> None:
    log = TrialLog()
    log.add(trial(0))
    log.add(trial(0))
    assert log.trials == (trial(0),)
    with pytest.raises(StudyError, match="trial 0 exists already .* use number 1"):
        log.add(trial(0, config={"x": 3}))
    log.tell(result(0))
    log.add(trial(0))
    assert log.pending == ()


def test_next_number_order_and_ask_index_are_above_all_seen() -> None:
    log = TrialLog()
    assert (log.next_number, log.next_order, log.next_ask_index) == (0, 0, 0)
    log.add(trial(7, ask_index=3))
    log.tell(result(7, order=11))
    assert (log.next_number, log.next_order, log.next_ask_index) == (8, 12, 4)


def test_a_lost_trial_is_continued_by_a_child_with_its_ask_index() -> None:
    log = TrialLog()
    log.add(trial(0))
    log.tell(failed(0, Cause.LOST))
    log.add(trial(1, config=trial(0).config, ask_index=0, parent=0))
    assert log.next_ask_index == 1
    assert [pending.parent for pending in log.pending] == [0]


def test_a_paused_trial_is_neither_pending_nor_finished_until_it_is_resumed() -> None:
    log = TrialLog()
    log.add(trial(0))
    log.tell(result(0, status=Status.PAUSED))
    assert (log.pending, log.observations) == ((), ())
    assert [observation.number for observation in log.paused] == [0]
    assert log.resume(0) == trial(0)
    assert (log.pending, log.paused) == ((trial(0),), ())
    log.tell(result(0, loss=0.5))
    assert [observation.loss for observation in log.observations] == [0.5]
    with pytest.raises(StudyError, match="only a paused trial can be resumed, got trial 0"):
        log.resume(0)


def test_branches_are_stored_with_their_result() -> None:
    branches = (BranchLoss({"tokens": 1e6}, 2.5), BranchLoss({"tokens": 2e6}, 2.25))
    told = result(0, branches=branches)
    stored = json.loads(json.dumps(told.to_json()))
    read = Observation.from_json(stored, number=0, config=told.config, ask_index=0, reports=())
    assert read.branches == branches
    assert "branches" not in result(0).to_json()  # as earlier versions wrote it
    assert "branch at tokens 1e+06 with 2.5" in str(told)


@pytest.mark.parametrize(
    "row", [{"tokens": 1e6}, {"loss": 2.5}, {"loss": 2.5, "width": 8}], ids=["loss", "size", "axis"]
)
def test_a_branch_needs_a_loss_and_sizes_of_scale_axes(row: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"must hold a loss and values of scale axes \['tokens'\]"):
        BranchLoss.read([row], ["tokens"])


def test_a_branch_without_a_finite_loss_is_refused() -> None:
    with pytest.raises(ValueError, match="leave a branch that diverged out"):
        BranchLoss({"tokens": 1e6}, math.nan)
