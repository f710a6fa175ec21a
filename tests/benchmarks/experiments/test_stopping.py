"""Whether stops by the expected regret are counted as they should be."""

from benchmarks.experiments import stopping
from benchmarks.experiments.stopping import Count


def test_a_study_too_short_to_be_judged_is_not_stopped():
    lines = list(stopping.table(["synthetic/branin-0"], 4, 0))
    assert all("0 of 1" in line for line in lines[2:])


def test_a_study_stops_at_the_first_count_within_the_tolerance(monkeypatch):
    studies = {
        "right": [Count(15, 0.2, 0.3), Count(17, 0.02, 0.01), Count(19, 0.001, 0.5)],
        "wrong": [Count(15, 0.02, 0.06)],
    }
    monkeypatch.setattr(stopping, "searched", lambda name, trials, seed: studies[name])
    lines = list(stopping.table(list(studies), 60, 0))
    assert lines[2] == "| 0.01 | 1 of 2 | 0 | 19 | 50.0 |"
    assert lines[3] == "| 0.03 | 2 of 2 | 1 | 16 | 2.0 |"
    assert lines[4] == "| 0.1 | 2 of 2 | 2 | 16 | 0.6 |"
