"""PASHA: when its ceiling rises."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.schedulers import (
    PASHA,
)
from tests.contracts.scheduler import Simulation, draws, space
from tests.schedulers.tables import LADDER, paths, rows, table


def test_pasha_stays_low_while_rankings_agree() -> None:
    study = Simulation(PASHA().begin(space(1, 81)), lambda x, r: x + 1 / r, draws(), 81, 4)
    study.run(configs=200)
    assert {end for _, _, end in study.stages} == {1, 3}


def test_pasha_opens_every_level_where_rankings_change() -> None:
    def turning(x: float, r: int) -> float:
        return x if r in (1, 9, 81) else 1.0 - x

    study = Simulation(PASHA().begin(space(1, 81)), turning, draws(), 81, 4).run(configs=300)
    assert {end for _, _, end in study.stages} == {1, 3, 9, 27, 81}


def test_pasha_takes_curves_that_cross_to_and_fro_as_ties() -> None:
    def noisy(x: float, r: int) -> float:
        return round(x, 1) + 0.01 * math.sin(1000.0 * x * r)

    quiet = Simulation(PASHA().begin(space(1, 81)), noisy, draws(), 81, every=1).run(configs=200)
    schedule = quiet.schedule
    assert {end for _, _, end in quiet.stages} <= {1, 3, 9, 27}
    assert 0.0 < getattr(schedule, "noise") < 0.05  # noqa: B009  not of the protocol


@given(st.lists(rows, min_size=60, max_size=60))
@settings(max_examples=15, deadline=None)
def test_pasha_raises_its_ceiling_exactly_when_the_two_top_rungs_disagree(
    losses: list[list[float]],
) -> None:
    curve, xs = table(losses, LADDER)
    schedule = PASHA().begin(space(1, 27))
    study = Simulation(schedule, curve, iter(xs), 27)
    ceiling = 1
    for _ in range(200):
        study.run(configs=60, steps=1)
        schedule.next(study.log, may_start=False)
        reached = paths(study)
        level, below = LADDER.levels[ceiling], LADDER.levels[ceiling - 1]
        both = [x for x in reached if level in reached[x] and math.isfinite(curve(x, level))]
        upper = [curve(x, below) for x in sorted(both, key=lambda x: (curve(x, level), x))]
        if ceiling < LADDER.top and upper != sorted(upper):
            ceiling += 1
        assert schedule.ceiling == ceiling
        if not study.log.pending and schedule.next(study.log, may_start=False) is None:
            break
