"""OneEpoch against its definition."""

from __future__ import annotations

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.schedulers import (
    Ladder,
    OneEpoch,
)
from tests.contracts.scheduler import Simulation, space
from tests.schedulers.tables import paths, rows, table


@given(st.lists(rows, min_size=21, max_size=21), st.integers(1, 3))
@settings(max_examples=15, deadline=None)
def test_one_epoch_finishes_the_best_not_finished_after_each_screening(
    losses: list[list[float]], keep: int
) -> None:
    curve, xs = table(losses, Ladder.geometric(1, 27, 27))
    schedule = OneEpoch(keep=keep, screen=7).begin(space(1, 27))
    study = Simulation(schedule, curve, iter(xs), 27).run(configs=21)
    wanted: set[float] = set()
    for seen in (7, 14, 21):
        first = [x for x in xs[:seen] if math.isfinite(curve(x, 1)) and x not in wanted]
        wanted |= set(sorted(first, key=lambda x: (curve(x, 1), x))[:keep])
    taken = {x for x, levels in paths(study).items() if 27 in levels}
    assert taken == wanted or len(wanted) < 3 * keep
