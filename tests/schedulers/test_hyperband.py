"""Synchronous halving and iterative deepening against brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.schedulers import (
    Hyperband,
    IterativeDeepening,
    Ladder,
    SuccessiveHalving,
    Variant,
)
from tests.contracts.scheduler import Simulation, draws, smooth, space
from tests.schedulers.tables import LADDER, finite_rows, paths, rows, table


def halved(losses: Sequence[Sequence[float]], ladder: Ladder, start: int) -> set[tuple[int, int]]:
    """(config, rung) pairs of successive halving from rung `start`, by its definition."""
    n = len(losses)
    pairs, members = set(), list(range(n))
    for rung in range(start, len(ladder)):
        pairs |= {(i, rung) for i in members}
        alive = [i for i in members if math.isfinite(losses[i][rung])]
        if rung + 1 < len(ladder):
            slots = max(1, n * ladder.levels[start] // ladder.levels[rung + 1])
            members = sorted(alive, key=lambda i: (losses[i][rung], i))[:slots]
    return pairs


@given(
    st.lists(rows, min_size=1, max_size=30),
    st.integers(1, 6),
    st.lists(st.floats(0.1, 10.0), min_size=31, max_size=31),
)
@settings(max_examples=25, deadline=None)
def test_successive_halving_is_its_definition_in_any_order_of_events(
    losses: list[list[float]], workers: int, speeds: list[float]
) -> None:
    curve, xs = table(losses, LADDER)
    schedule = SuccessiveHalving(configs=len(losses)).begin(space(1, 27))
    study = Simulation(schedule, curve, iter(xs), 27, workers)
    study.speed = lambda x: speeds[round(x * len(losses))]
    study.run(configs=len(losses))
    wanted: dict[float, set[int]] = {}
    for i, rung in halved(losses, LADDER, 0):
        wanted.setdefault(xs[i], set()).add(LADDER.levels[rung])
    assert paths(study) == wanted


@given(st.lists(finite_rows, min_size=49, max_size=49), st.integers(1, 6))
@settings(max_examples=10, deadline=None)
def test_hyperband_is_its_brackets(losses: list[list[float]], workers: int) -> None:
    curve, xs = table(losses, LADDER)
    study = Simulation(Hyperband().begin(space(1, 27)), curve, iter(xs), 27, workers)
    study.run(configs=49)
    wanted: dict[float, set[int]] = {}
    first = 0
    for bracket, size in enumerate((27, 12, 6, 4)):
        for i, rung in halved(losses[first : first + size], LADDER, bracket):
            wanted.setdefault(xs[first + i], set()).add(LADDER.levels[rung])
        first += size
    assert first == 49 and paths(study) == wanted


def grown(variant: Variant, seed: int, first: int, last: int) -> tuple[Simulation, float]:
    """A study grown from `first` to `last` in hindsight, and what the growth has cost."""
    scheduler = IterativeDeepening(variant=variant)
    study = Simulation(scheduler.begin(space(1, first)), smooth, draws(seed), first, 4).run()
    before = study.cost
    study.schedule, study.high, study.best = scheduler.begin(space(1, last)), last, []
    return study.run(), study.cost - before


@pytest.mark.parametrize("variant", Variant)
@pytest.mark.parametrize("seed", range(3))
def test_growing_81_to_243_ends_like_a_fresh_hyperband_for_four_fifths_of_its_cost(
    variant: Variant, seed: int
) -> None:
    fresh = Simulation(IterativeDeepening().begin(space(1, 243)), smooth, draws(seed), 243, 4).run()
    study, cost = grown(variant, seed, 81, 243)
    assert fresh.cost == 6831
    assert cost <= 0.8 * fresh.cost
    best, best_fresh = (min(loss for _, _, loss in a.best) for a in (study, fresh))
    assert best <= best_fresh + 1e-3


def test_efficient_growth_costs_the_difference_and_repeats_nothing() -> None:
    for first, last, extra in ((27, 81, 1224), (81, 243, 5250), (243, 729, 20289)):
        study, cost = grown(Variant.EFFICIENT, 0, first, last)
        assert cost == extra
        pairs = [(study.log.trial(n).config["x"], level) for n, _, level in study.stages]
        assert len(pairs) == len(set(pairs))


@given(st.lists(finite_rows, min_size=60, max_size=60))
@settings(max_examples=10, deadline=None)
def test_discarding_runs_all_that_a_fresh_hyperband_would(losses: list[list[float]]) -> None:
    curve, xs = table(losses, LADDER)
    scheduler = IterativeDeepening(variant=Variant.DISCARDING)
    study = Simulation(scheduler.begin(space(1, 9)), curve, iter(xs), 9).run()
    study.schedule, study.high = scheduler.begin(space(1, 27)), 27
    study.run()
    started = [t.config["x"] for t in study.log.trials if t.parent is None]
    for bracket in range(4):
        xs_of = {
            t.config["x"]: t.assignment.bracket
            for t in study.log.trials
            if t.parent is None and t.assignment is not None
        }
        members = [x for x in started if xs_of[x] == bracket]
        rows_of = [losses[round(x * 60) - 1] for x in members]
        for i, rung in halved(rows_of, LADDER, bracket):
            assert LADDER.levels[rung] in paths(study)[members[i]]


def test_auto_opens_level_after_level_up_to_the_highest() -> None:
    scheduler = IterativeDeepening(max_fidelity="auto")
    study = Simulation(scheduler.begin(space(1, 27)), smooth, draws(), 27).run()
    firsts: dict[int, int] = {}
    for position, (_, _, end) in enumerate(study.stages):
        firsts.setdefault(end, position)
    assert list(firsts) == [1, 3, 9, 27]
    assert study.cost == 357 and study.schedule.next(study.log) is None
