"""Levels of a fidelity."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo import SpaceError
from hpo.schedulers import Ladder


@pytest.mark.parametrize(
    ("low", "high", "eta", "rungs"),
    [(1, 243, 3, 6), (1, 1000, 10, 4), (1, 1, 3, 1), (2, 54, 3, 4), (1, 52, 3, 5), (1, 125, 5, 4)],
)
def test_no_rung_is_lost_to_a_logarithm(low: int, high: int, eta: int, rungs: int) -> None:
    assert len(Ladder.geometric(low, high, eta)) == rungs


@given(st.integers(1, 50), st.integers(1, 10**6), st.integers(2, 10))
def test_levels_start_from_the_lowest_and_grow_by_eta(low: int, more: int, eta: int) -> None:
    ladder = Ladder.geometric(low, low + more, eta)
    assert ladder.levels[0] == low and ladder.levels[-1] == low + more
    assert all(a * eta == b for a, b in zip(ladder.levels, ladder.levels[1:-1], strict=False))
    grown = Ladder.geometric(low, (low + more) * eta, eta)
    assert grown.levels[: len(ladder) - 1] == ladder.levels[:-1]
    for rung, level in enumerate(ladder.levels):
        assert ladder.rung(level) == rung == ladder.rung(level + 1) - (level + 1 in ladder.levels)


def test_brackets_have_the_sizes_of_the_hyperband_paper() -> None:
    ladder = Ladder.geometric(1, 81, 3)
    sizes = [ladder.sizes(b, ladder.hyperband_size(b, 3)) for b in range(5)]
    assert sizes == [(81, 27, 9, 3, 1), (34, 11, 3, 1), (15, 5, 1), (8, 2), (5,)]


@given(st.integers(1, 50), st.integers(0, 200), st.integers(1, 60))
def test_evenly_spaced_levels_differ_by_the_interval_but_for_the_last(
    low: int, more: int, interval: int
) -> None:
    levels = Ladder.evenly_spaced(low, low + more, interval).levels
    assert levels[0] == low and levels[-1] == low + more
    steps = [b - a for a, b in zip(levels, levels[1:], strict=False)]
    assert all(step == interval for step in steps[:-1])
    assert all(0 < step <= interval for step in steps)


@pytest.mark.parametrize("levels", [(), (0, 1), (1, 1), (3, 2)])
def test_levels_that_do_not_grow_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(SpaceError, match="must grow strictly from at least 1"):
        Ladder(levels)


@pytest.mark.parametrize("make", [Ladder.geometric, Ladder.evenly_spaced])
def test_a_range_that_is_none_is_refused(make: Callable[[int, int, int], Ladder]) -> None:
    for low, high in ((0, 5), (6, 5)):
        with pytest.raises(SpaceError, match="`1 <= low <= high` must hold"):
            make(low, high, 3)
