"""Population-based training."""

from __future__ import annotations

import math

import pytest

from hpo import Fidelity, Float, Optimizer, Report, StagedOptimizer, Status
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


@pytest.mark.parametrize("last", ["best", "worst"])
def test_a_run_is_cloned_or_replaced_once_its_stage_is_told_and_costs_nothing_twice(
    last: str,
) -> None:
    """A report tells the loss before the end of the stage tells the cost."""
    searched = {"x": Float(0, 1), "epochs": Fidelity(1, 3)}
    optimizer = Optimizer(searched, cost="epochs")
    engine = StagedOptimizer(optimizer, PBT(population=2, interval=2, share=0.5))
    best, worst = engine.ask(), engine.ask()
    assert best is not None and worst is not None
    late, early = (best, worst) if last == "best" else (worst, best)
    for trial, loss in ((best, 0.1), (worst, 0.9)):
        engine.report(trial, Report(1, loss, cost=1.0))
    engine.tell(early, 0.1 if early is best else 0.9, 1.0)
    assert engine.ask() is None
    engine.tell(late, 0.1 if late is best else 0.9, 1.0)
    clone = engine.ask()
    assert clone is not None and clone.parent == best.number
    assert optimizer.log.observation(worst.number).status is Status.STOPPED  # type: ignore[union-attr]
    engine.tell(clone, 0.05, 3.0)
    assert optimizer.ledger.spent.cost == 1.0 + 1.0 + 2.0
