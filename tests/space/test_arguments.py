"""Rules of arguments: what is read, and what the message says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hpo import Axis, SpaceError
from hpo.space.arguments import (
    Count,
    File,
    Flag,
    Function,
    Interface,
    Kind,
    Member,
    Number,
    OneOf,
    Row,
    Rule,
    Table,
    Text,
    store,
)

RULES: tuple[Rule, ...] = (
    Count(),
    File(),
    Flag(),
    Function("f()"),
    Interface("a list", ("append",)),
    Kind(Axis),
)
RULES += (Member(Axis), Number(), OneOf(("a",)), Row(Count()), Table(Number()), Text())


@pytest.mark.parametrize(
    "three",
    [3, 3.0, np.int64(3), np.float32(3), np.array(3), np.array([[3]]), torch.tensor(3)]
    + [Fraction(3), Decimal(3), torch.tensor([3.0])],
    ids=lambda value: type(value).__name__,
)
def test_every_number_of_value_three_is_a_count_and_a_number(three: Any) -> None:
    assert Count(1)(three, "`n`") == 3 and type(Count(1)(three, "`n`")) is int
    assert Number(above=0)(three, "`x`") == 3.0


def test_a_python_int_stays_one_so_that_stored_settings_keep_their_text() -> None:
    assert repr(Number()(2, "`x`")) == "2"
    assert repr(Number()(np.int64(2), "`x`")) == "2.0"


@given(st.floats(), st.floats(-10, 10), st.floats(-10, 10))
def test_a_number_is_read_exactly_within_its_bounds(
    value: float, least: float, most: float
) -> None:
    rule = Number(least=least, most=most)
    if least <= value <= most:
        assert rule(value, "`x`") == value
    else:
        with pytest.raises(ValueError, match="`x` must be a finite number"):
            rule(value, "`x`")


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
@pytest.mark.parametrize("value", [None, object(), np.ones((2, 2)), torch.ones(3), b"a", math.nan])
def test_what_breaks_a_rule_is_refused_in_one_line_with_its_way_out(rule: Rule, value: Any) -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="^`it` must be .*, got .*; do that$") as refused:
        replace(rule, way_out="do that")(value, "`it`")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: type(rule).__name__)
def test_none_leaves_an_optional_argument_out(rule: Rule) -> None:
    from dataclasses import replace

    assert replace(rule, optional=True)(None, "`it`") is None


@pytest.mark.parametrize(
    "value", ["ab", {"a", "b"}, (part for part in "ab"), {"a": 1}, {"a": 1}.keys(), b"ab"]
)
def test_what_has_no_order_or_only_one_reading_is_no_row(value: Any) -> None:
    with pytest.raises(ValueError, match="must be a list or tuple"):
        Row(Text())(value, "`names`")


@pytest.mark.parametrize("path", ["", ".", "/", "a\0b", 3, b"a", ["a"]])
def test_what_names_no_file_is_refused(path: Any) -> None:
    with pytest.raises(ValueError, match="`path` must be the path of a file"):
        File()(path, "`path`")
    assert File()("runs/front.png", "`path`") == Path("runs/front.png")


def test_fields_of_a_frozen_dataclass_are_stored_as_read_and_named_with_their_class() -> None:
    @dataclass(frozen=True)
    class Rate:
        lr: float
        steps: int = 3

        def __post_init__(self) -> None:
            store(self, SpaceError, lr=Number(above=0, way_out="1e-3 is usual"), steps=Count(1))

    stored = Rate(np.float64(0.5), torch.tensor(4))  # type: ignore[arg-type]
    assert (type(stored.lr), type(stored.steps)) == (float, int)
    with pytest.raises(
        SpaceError, match="^`lr` of Rate must be a finite number above 0, got 0; 1e-3 is usual$"
    ):
        Rate(0)
