"""Losses by config and rung, for tests of schedules against brute force."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import strategies as st

from hpo import Cause, Observation, Status, Trial
from hpo.schedulers import (
    Ladder,
)
from hpo.trials import TrialLog
from tests.contracts.scheduler import Curve, Simulation


def table(losses: Sequence[Sequence[float]], ladder: Ladder) -> tuple[Curve, list[float]]:
    """A curve that takes row i of `losses` for the i-th config, one column a rung."""
    n = len(losses)
    xs = [(i + 1) / n for i in range(n)]

    def curve(x: float, level: int) -> float:
        if level not in ladder.levels:
            return 1.0
        return losses[round(x * n) - 1][ladder.levels.index(level)]

    return curve, xs


def paths(study: Simulation) -> dict[float, set[int]]:
    """By config, the levels to which stages of it ended."""
    found: dict[float, set[int]] = {}
    for number, _, end in study.stages:
        found.setdefault(study.log.trial(number).config["x"], set()).add(end)
    return found


LADDER = Ladder.geometric(1, 27, 3)
loss = st.one_of(st.floats(0.0, 1.0), st.sampled_from([0.25, 0.5, math.nan]))
rows = st.lists(loss, min_size=4, max_size=4)
finite_rows = st.lists(st.floats(0.0, 1.0), min_size=4, max_size=4)


def tell(log: TrialLog, trial: Trial, loss: float | None, status: Status) -> None:
    cause = Cause.DIVERGED if status is Status.FAILED else None
    order = log.next_order
    log.tell(Observation(trial.number, trial.config, loss, 1.0, status, cause, order, 0))
