"""Input predicates: what a space allows, what is refused, and rows moved to where it allows."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import Categorical, Float, Int, SearchSpace, SpaceError
from hpo.space.encoding import Encoder

HEADS = {"heads": Int(1, 64, log=True), "head_dim": Int(16, 256, multiple_of=16)}
NARROW = SearchSpace(
    {**HEADS, "lr": Float(1e-4, 1e-1, log=True), "act": Categorical(["relu", "gelu", "silu"])},
    where=lambda c: c["heads"] * c["head_dim"] == 1024 and c["act"] != "relu",
)
NARROW_ENCODER = Encoder(NARROW)  # draws its pool once


def refusal(where, parameters=HEADS):
    with pytest.raises(SpaceError) as refused:
        Encoder(SearchSpace(parameters, where=where)).allowed_rows()
    return str(refused.value)


def test_a_predicate_that_cannot_be_called_is_refused():
    assert "`where` must be callable as where(config), got 4096" in refusal(4096)


def test_a_predicate_that_allows_nothing_is_refused_with_what_was_tried():
    assert "got False for all (131072 configs spread over the space were tried)" in refusal(
        lambda c: False, {**HEADS, "x": Float(0, 1)}
    )
    few = refusal(lambda c: False, {"n": Int(1, 9)})
    assert "got False for all (each of the space's configs was tried)" in few


def test_a_predicate_that_raises_is_named_with_the_config():
    def divides(c):
        return 1 / 0

    said = refusal(divides)
    assert "`where` (divides) must return True or False, but raised ZeroDivisionError" in said
    assert "'head_dim'" in said


def test_a_missing_parameter_says_that_inactive_ones_are_not_in_the_config():
    parameters = {
        "opt": Categorical(["sgd", "adam"]),
        "momentum": Float(0, 1, when=("opt", ["sgd"])),
    }
    assert "c.get('momentum')" in refusal(lambda c: c["momentum"] < 0.5, parameters)


@pytest.mark.parametrize("answer", [1, "yes", None, 0.0, np.ones(2, dtype=bool)])
def test_an_answer_that_is_no_bool_is_refused(answer):
    assert "must return True or False, got" in refusal(lambda c: answer)


def test_numpy_bools_are_bools():
    space = SearchSpace(HEADS, where=lambda c: np.int64(c["heads"]) < 8)
    assert space.allows({"heads": 4, "head_dim": 16})
    assert not space.allows({"heads": 8, "head_dim": 16})


def test_a_space_made_of_a_space_keeps_its_predicate_and_adds_its_own():
    both = SearchSpace(
        SearchSpace(HEADS, where=lambda c: c["heads"] > 2), where=lambda c: c["heads"] < 8
    )
    asked = [both.allows({"heads": heads, "head_dim": 16}) for heads in (2, 4, 8)]
    assert asked == [False, True, False]


def test_a_predicate_cannot_change_the_config():
    config = {"heads": 4, "head_dim": 16}

    def spoils(c):
        c.clear()
        return True

    assert SearchSpace(HEADS, where=spoils).allows(config)
    assert config == {"heads": 4, "head_dim": 16}


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32))
def test_repaired_rows_are_allowed_and_allowed_rows_stay(seed):
    encoder = NARROW_ENCODER
    rng = np.random.default_rng(seed)
    drawn = encoder.from_unit(rng.random((8, len(encoder.lower))), (encoder.lower, encoder.upper))
    X = np.concatenate([drawn, encoder.allowed_rows()[:4]])
    repaired = encoder.repaired(X)
    assert encoder.allowed(repaired).all()
    np.testing.assert_array_equal(repaired, encoder.snap(repaired))
    kept = encoder.allowed(X)
    np.testing.assert_array_equal(repaired[kept], X[kept])


def test_without_a_predicate_rows_are_handed_back_as_they_are():
    encoder = Encoder(SearchSpace(HEADS))
    X = np.array([[0.0, 1.0]])
    assert encoder.repaired(X) is X


def test_the_grid_holds_exactly_what_is_allowed():
    space = SearchSpace({"a": Int(1, 6), "b": Int(1, 6)}, where=lambda c: c["a"] < c["b"])
    listed = Encoder(space).decode(Encoder(space).grid(100))
    pairs = {(config["a"], config["b"]) for config in listed}
    assert pairs == {(a, b) for a in range(1, 7) for b in range(a + 1, 7)}
