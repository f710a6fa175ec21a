"""The direction of an objective: its sign, and the words users write for it."""

import json

import pytest

from hpo import Float, SearchSpace
from hpo.space.search_space import Direction
from hpo.space.encoding import Encoder


def test_a_direction_has_the_sign_that_makes_a_loss() -> None:
    assert Direction("minimize").sign == 1.0
    assert Direction("maximize").sign == -1.0


@pytest.mark.parametrize("direction", Direction)
def test_a_direction_converts_to_itself_and_is_stored_as_its_word(direction: Direction) -> None:
    assert Direction(direction) is direction
    assert json.loads(json.dumps(direction)) == direction == direction.value


@pytest.mark.parametrize("value", ["max", "MAXIMIZE", None, -1])
def test_any_other_word_is_refused_with_the_way_out(value: object) -> None:
    with pytest.raises(ValueError, match=f'must be "minimize" or "maximize", got {value!r}; pick'):
        Direction(value)


def test_an_encoder_takes_a_word_or_a_direction() -> None:
    space = SearchSpace({"x": Float(0.0, 1.0)})
    for direction in ("maximize", Direction.MAXIMIZE):
        assert Encoder(space, direction).direction is Direction.MAXIMIZE
