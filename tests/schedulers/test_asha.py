"""Asynchronous halving against brute force."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import Report, Status, Trial
from hpo.schedulers import (
    ASHA,
    ASHAVariant,
    Decision,
    Ladder,
    Promote,
    Start,
)
from hpo.trials import RungAssignment, TrialLog
from tests.contracts.scheduler import Simulation, XIsBest, draws, smooth, space
from tests.schedulers.tables import LADDER, paths, rows, table, tell


def asha_rule(
    reached: dict[int, dict[int, float]], failed: dict[int, int], at: dict[int, int], ladder: Ladder
) -> tuple[int, int] | None:
    """(run, next level) to promote, by the definition; `at`: level where each run is paused."""
    for rung in reversed(range(ladder.top)):
        level = ladder.levels[rung]
        there = sorted((losses[level], run) for run, losses in reached.items() if level in losses)
        count = len(there) + sum(r == rung for r in failed.values())
        for _, run in there[: count * level // ladder.levels[rung + 1]]:
            if at.get(run) == level:
                return run, ladder.levels[rung + 1]
    return None


@given(st.lists(rows, min_size=40, max_size=40), st.randoms(use_true_random=False))
@settings(max_examples=25, deadline=None)
def test_asha_promotes_by_its_definition_for_any_arrivals(
    losses: list[list[float]], random: Any
) -> None:
    schedule, log = ASHA().begin(space(1, 27)), TrialLog()
    reached: dict[int, dict[int, float]] = {}
    failed: dict[int, int] = {}
    at: dict[int, int] = {}
    going: list[Trial] = []
    for _ in range(80):
        if going and (len(going) > 5 or random.random() < 0.5):
            trial = going.pop(random.randrange(len(going)))
            assert trial.assignment is not None
            rung = LADDER.levels.index(trial.assignment.level)
            value = losses[trial.number][rung]
            reached.setdefault(trial.number, {})
            if math.isfinite(value):
                reached[trial.number][trial.assignment.level] = value
                at[trial.number] = trial.assignment.level
                tell(log, trial, value, Status.PAUSED if rung < 3 else Status.COMPLETED)
            else:
                failed[trial.number] = rung
                tell(log, trial, None, Status.FAILED)
            continue
        may_start = log.next_number < 40
        action = schedule.next(log, may_start=may_start)
        wanted = asha_rule(reached, failed, at, LADDER)
        if wanted is not None:
            assert action == Promote(*wanted)
            going.append(log.resume(*wanted))
            del at[wanted[0]]
        elif may_start:
            assert action == Start(RungAssignment(1))
            going.append(
                Trial(log.next_number, {"x": 0.0, "epochs": 27}, 0, None, None, RungAssignment(1))
            )
            log.add(going[-1])
        else:
            assert action is None
            if not going:
                return


@given(st.lists(rows, min_size=30, max_size=30), st.integers(1, 6))
@settings(max_examples=15, deadline=None)
def test_at_the_end_every_run_of_the_top_share_was_promoted(
    losses: list[list[float]], workers: int
) -> None:
    curve, xs = table(losses, LADDER)
    study = Simulation(ASHA().begin(space(1, 27)), curve, iter(xs), 27, workers).run(configs=30)
    reached = paths(study)
    for rung, level in enumerate(LADDER.levels[:-1]):
        there = [x for x in reached if level in reached[x]]
        alive = sorted((curve(x, level), x) for x in there if math.isfinite(curve(x, level)))
        above = LADDER.levels[rung + 1]
        for _, x in alive[: len(there) // 3]:
            assert above in reached[x]


@given(st.lists(rows, min_size=30, max_size=30))
@settings(max_examples=15, deadline=None)
def test_the_stopping_kind_passes_the_best_third_so_far_rounded_up(
    losses: list[list[float]],
) -> None:
    schedule, log = ASHA(kind=ASHAVariant.STOPPING).begin(space(1, 27)), TrialLog()
    reached: dict[int, list[float]] = {1: [], 3: [], 9: []}
    failures = {1: 0, 3: 0, 9: 0}
    for number, row in enumerate(losses):
        assert schedule.next(log) == Start(RungAssignment(27))
        trial = Trial(number, {"x": 0.0, "epochs": 27}, 0, None, None, RungAssignment(27))
        log.add(trial)
        for level, value in zip((1, 3, 9), row, strict=False):
            log.report(number, Report(level, value))
            decision = schedule.on_report(trial, Report(level, value), log)
            if not math.isfinite(value):
                failures[level] += 1
                assert decision is Decision.STOP
                break
            better = sum(other <= value for other in reached[level])
            reached[level].append(value)
            passes = better < -(-(len(reached[level]) + failures[level]) // 3)
            assert decision is (Decision.CONTINUE if passes else Decision.STOP)
            if not passes:
                break
        tell(log, trial, None, Status.STOPPED)


def test_brackets_share_the_configs_as_a_hyperband_does() -> None:
    study = Simulation(ASHA(brackets=4).begin(space(1, 27)), smooth, draws(), 27).run(configs=98)
    counts = [0, 0, 0, 0]
    for trial in study.log.trials:
        assert trial.assignment is not None
        counts[trial.assignment.bracket] += 1
    assert counts == [54, 24, 12, 8]


def test_a_run_that_is_probably_the_best_is_promoted_beside_the_rank_rule() -> None:
    schedule = ASHA(confidence=0.5).begin(space(1, 9), forecast=XIsBest())
    study = Simulation(schedule, lambda x, r: x, iter([0.4, 0.9, 0.1]), 9)
    study.run(configs=3)
    assert paths(study) == {0.4: {1}, 0.9: {1, 3, 9}, 0.1: {1, 3}}
