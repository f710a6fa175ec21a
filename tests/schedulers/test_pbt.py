"""Population-based training."""

from __future__ import annotations

import math

import pytest

from hpo import Status
from hpo.schedulers import (
    PBT,
    ancestry,
)
from tests.contracts.scheduler import Simulation, draws, smooth, space


@pytest.mark.parametrize("workers", [1, 3, 6])
def test_a_population_trains_the_same_whatever_the_order_of_its_members(workers: int) -> None:
    def fails_sometimes(x: float, r: int) -> float:
        return math.nan if 0.6 < x < 0.65 and r > 20 else smooth(x, r)

    scheduler = PBT(population=6, interval=10)
    study = Simulation(scheduler.begin(space(1, 81)), fails_sometimes, draws(), 81, workers)
    study.speed = lambda x: 1.0 + (x if workers > 1 else 0.0)
    study.run()
    final = sorted(o.config["x"] for o in study.log.observations if o.status is Status.COMPLETED)
    alone = Simulation(scheduler.begin(space(1, 81)), fails_sometimes, draws(), 81, 1).run()
    assert final == sorted(
        o.config["x"] for o in alone.log.observations if o.status is Status.COMPLETED
    )
    assert len(final) == 6


def test_the_ancestry_of_the_best_member_is_a_schedule_without_gaps() -> None:
    study = Simulation(PBT(population=6, interval=10).begin(space(1, 81)), smooth, draws(), 81, 2)
    study.run()
    done = [o for o in study.log.observations if o.status is Status.COMPLETED]
    changed = False
    for o in done:
        stretches = ancestry(study.log, o.number)
        assert (stretches[0].start, stretches[-1].end) == (0, 81)
        assert all(a.end == b.start for a, b in zip(stretches, stretches[1:], strict=False))
        assert stretches[-1].config == o.config
        changed |= len(stretches) > 1
    assert changed
