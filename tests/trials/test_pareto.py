"""Front and hypervolume against brute force and figures worked out by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.trials.pareto import front, hypervolume

# Few distinct values, so that ties and duplicates are the rule.
points = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=12)


def split(pairs: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    both = np.array(pairs, dtype=float).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def dominated(i: int, loss: np.ndarray, cost: np.ndarray) -> bool:
    no_worse = (loss <= loss[i]) & (cost <= cost[i])
    return bool(np.any(no_worse & ((loss < loss[i]) | (cost < cost[i]))))


@given(points)
def test_the_front_is_the_set_of_points_not_dominated(
    pairs: list[tuple[int, int]],
) -> None:
    loss, cost = split(pairs)
    kept = {(loss[i], cost[i]) for i in range(len(loss)) if not dominated(i, loss, cost)}
    members = front(loss, cost)
    assert {(loss[i], cost[i]) for i in members} == kept
    assert len(members) == len(kept)


@given(points)
def test_cost_rises_and_loss_falls_along_the_front(pairs: list[tuple[int, int]]) -> None:
    loss, cost = split(pairs)
    members = front(loss, cost)
    assert np.all(np.diff(cost[members]) > 0)
    assert np.all(np.diff(loss[members]) < 0)


def test_of_equal_points_the_first_is_on_the_front() -> None:
    assert front([2.0, 1.0, 1.0, 1.0], [1.0, 3.0, 3.0, 4.0]).tolist() == [0, 1]


def test_the_front_of_nothing_is_empty_and_of_one_point_is_the_point() -> None:
    assert front([], []).tolist() == []
    assert front([3.0], [0.0]).tolist() == [0]
    assert front([np.inf, np.inf], [2.0, 1.0]).tolist() == [1]


@given(points)
def test_hypervolume_counts_the_dominated_unit_cells(pairs: list[tuple[int, int]]) -> None:
    loss, cost = split(pairs)
    cells = sum(
        bool(np.any((loss <= i) & (cost <= j))) for i in range(5) for j in range(6)
    )  # the cell [i, i + 1] x [j, j + 1] below the reference (5, 6)
    assert hypervolume(loss, cost, (5.0, 6.0)) == cells


def test_hypervolume_of_a_front_of_two_points() -> None:
    # (cost 1, loss 3): 2 wide, 2 high; (cost 3, loss 1): 1 wide, 4 high.
    assert hypervolume([3.0, 1.0], [1.0, 3.0], (5.0, 4.0)) == pytest.approx(2 * 2 + 1 * 4)
    assert hypervolume([5.0], [1.0], (5.0, 4.0)) == 0.0


def test_nan_and_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="`cost` must not be NaN, got NaN at 1"):
        front([1.0, 2.0], [1.0, np.nan])
    with pytest.raises(ValueError, match="must be of one length"):
        front([1.0, 2.0], [1.0])
