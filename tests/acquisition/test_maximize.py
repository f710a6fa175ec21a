"""The maximizer finds known optima, returns legal rows, and avoids rows already asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hpo.acquisition import Region, Rows, maximize
from hpo.space import Categorical, Float, Int, SearchSpace
from hpo.space.encoding import Encoder
from surrogates.data import Array

SPACE = Encoder(
    SearchSpace(
        {
            "lr": Float(1e-4, 1.0, log=True),
            "decay": Float(0.0, 0.1),
            "depth": Int(1, 9),
            "kind": Categorical(["a", "b", "c"]),
        }
    )
)
BEST = np.array([0.37, 0.62, 0.5, 2.0])


@dataclass(frozen=True)
class Bowl:
    """A term with its maximum, 0, at `BEST`."""

    def value(self, X: Array) -> Array:
        return -np.sum((X - BEST) ** 2, axis=1)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        slope = -2.0 * (X - BEST)
        slope[:, SPACE.columns.categorical] = 0.0
        return self.value(X), slope


def region(**changes: Any) -> Region:
    arguments: dict[str, Any] = {
        "centers": np.full((1, 4), 0.5),
        "radii": np.full(4, 0.2),
        "extra": np.zeros((0, 4)),
        "global_share": 0.5,
        "candidates": 64,
    }
    return Region(SPACE.lower, SPACE.upper, **{**arguments, **changes})


def found(where: Region | Rows, taken: Array | None = None, seed: int = 0) -> Any:
    taken = np.zeros((0, 4)) if taken is None else taken
    return maximize(Bowl(), SPACE, where, taken, rng=np.random.default_rng(seed))


def test_the_maximum_of_a_smooth_term_over_a_mixed_space_is_found_exactly():
    best = found(region())
    np.testing.assert_allclose(best.row, BEST, atol=1e-5)
    assert best.value == pytest.approx(0.0, abs=1e-9)
    assert not best.repeated


def test_without_gradients_the_neighbor_moves_come_close():
    np.testing.assert_allclose(found(region(smooth=False)).row, BEST, atol=0.05)


def test_an_extra_row_counts_as_a_candidate():
    assert found(region(extra=BEST[None], smooth=False)).row.tolist() == BEST.tolist()


def test_rows_are_those_of_legal_configs():
    for seed in range(5):
        best = found(region(), seed=seed)
        np.testing.assert_array_equal(SPACE.snap(best.row[None])[0], best.row)


def test_the_same_generator_gives_the_same_bits():
    np.testing.assert_array_equal(found(region()).row, found(region()).row)


def test_a_finite_space_is_searched_whole():
    encoder = Encoder(SearchSpace({"depth": Int(1, 5), "kind": Categorical(["a", "b"])}))
    taken = np.zeros((0, 2))
    term = Linear(np.array([1.0, 1.0]))
    where = Region(
        encoder.lower, encoder.upper, np.zeros((0, 2)), np.ones(2), np.zeros((0, 2)), 1.0, 64
    )
    asked = []
    for _ in range(11):
        best = maximize(term, encoder, where, taken, rng=np.random.default_rng(0))
        asked.append((*best.row.tolist(), best.repeated))
        taken = np.vstack([taken, best.row])
    assert asked[0] == (1.0, 1.0, False)
    assert len(set(asked[:10])) == 10 and not any(repeated for *_, repeated in asked[:10])
    assert asked[10] == (1.0, 1.0, True)  # every config was asked: the best is repeated


def test_among_given_rows_one_already_asked_is_chosen_only_when_all_were():
    pool = BEST + 0.1 * np.arange(3)[:, None] * np.eye(4)[0]
    first = found(Rows(pool))
    assert first.row.tolist() == pool[0].tolist() and not first.repeated
    second = found(Rows(pool), taken=pool[:1])
    assert second.row.tolist() == pool[1].tolist() and not second.repeated
    again = found(Rows(pool), taken=pool)
    assert again.row.tolist() == pool[0].tolist() and again.repeated


@dataclass(frozen=True)
class Linear:
    """A term that is the weighted sum of the columns."""

    weights: Array

    def value(self, X: Array) -> Array:
        return np.asarray(X @ self.weights)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        return self.value(X), np.tile(self.weights, (len(X), 1))
