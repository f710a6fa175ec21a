"""Hypervolume of several objectives: the problems, the volume and the table."""

import pytest

from benchmarks.experiments import objectives


def test_the_volume_is_that_of_the_feasible_runs_within_the_reference_point():
    problem = objectives.Problem("BraninCurrin")  # reference point (18, 6)
    runs = [([8.0, 5.0], []), ([17.0, 2.0], []), ([20.0, 1.0], [])]
    assert problem.volume(runs) == pytest.approx(10.0 * 1.0 + 1.0 * 3.0)
    constrained = objectives.Problem("DiscBrake")
    assert constrained.volume([([1.0, 1.0], [0.0, 0.1, -1.0, 0.0])]) == 0.0


def test_a_constraint_is_exceeded_where_the_slack_of_the_problem_is_negative():
    _, excess = objectives.Problem("DiscBrake")([55.0, 110.0, 1000.0, 11.0])
    assert len(excess) == 4
    _, thin = objectives.Problem("DiscBrake")([80.0, 80.0, 1000.0, 11.0])
    assert max(thin) > 0.0


def test_rows_are_shares_of_the_largest_volume():
    lines = list(objectives.table(["DiscBrake"], ["random", "NSGA-II"], 12, 1))
    assert len(lines) == 4
    last = [float(line.split("|")[5]) for line in lines[2:]]
    assert max(last) == 1.0
