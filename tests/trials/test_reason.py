"""Reasons are data; sentences are made of them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.trials import Reason, ReasonKind

numbers = st.none() | st.floats(allow_nan=False, allow_infinity=False)
reasons = st.builds(
    Reason,
    st.sampled_from(ReasonKind),
    repeated=st.booleans(),
    from_pool=st.booleans(),
    surrogate=st.none() | st.text(max_size=5),
    log_acquisition=numbers,
    cost_level=numbers,
    quantile=numbers,
    forest_share=numbers,
    expected_regret=numbers,
    start=st.none() | st.tuples(st.integers(1, 9), st.integers(1, 9)),
    log_parameters=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    other_tasks=st.lists(st.tuples(st.text(max_size=5), st.floats(0.0, 1.0)), max_size=3).map(
        tuple
    ),
    text=st.text(max_size=5),
)


@given(reasons)
def test_a_reason_survives_json(reason: Reason) -> None:
    assert Reason.from_json(json.loads(json.dumps(reason.to_json()))) == reason


def test_fields_with_their_default_are_not_stored() -> None:
    assert Reason(ReasonKind.EXPLORE).to_json() == {"kind": "explore"}


@pytest.mark.parametrize(
    ("reason", "sentence"),
    [
        (Reason(ReasonKind.START_POINT, start=(2, 4)), "start point 2 of 4"),
        (
            Reason(ReasonKind.IMPROVE_FRONT, surrogate="log", cost_level=3.0, log_acquisition=-2.5),
            "maximizes expected improvement of the front near cost 3 (log-EI -2.50; log model)",
        ),
        (
            Reason(
                ReasonKind.POSTERIOR_SAMPLE,
                surrogate="quantile forest",
                quantile=0.25,
                forest_share=0.61,
            ),
            "best posterior sample at quantile level 0.25"
            " (quantile forest, used for 61% of the asks by forecast skill)",
        ),
        (
            Reason(ReasonKind.IMPROVE_LOSS, other_tasks=(("task a", 0.72), ("task b", 0.1))),
            "maximizes expected improvement of the best loss (72% from task a, 10% from task b)",
        ),
        (
            Reason(ReasonKind.IMPROVE_LOSS, other_tasks=tuple((name, 0.2) for name in "abcd")),
            "maximizes expected improvement of the best loss"
            " (20% from a, 20% from b, 20% from c, 1 more)",
        ),
        (
            Reason(ReasonKind.START_POINT, start=(1, 3), other_tasks=(("task a", 1.0),)),
            "start point 1 of 3 (did best on other tasks: task a)",
        ),
        (
            Reason(ReasonKind.IMPROVE_LOSS, log_parameters=("decay",)),
            "maximizes expected improvement of the best loss (in logarithms: decay)",
        ),
        (
            Reason(ReasonKind.IMPROVE_LOSS, repeated=True, from_pool=True),
            "every other config of the pool was tried",
        ),
    ],
)
def test_a_sentence_names_the_rule_and_its_numbers(reason: Reason, sentence: str) -> None:
    assert str(reason) == sentence
