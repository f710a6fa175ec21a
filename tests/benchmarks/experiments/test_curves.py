import numpy as np
import pytest

from benchmarks.experiments.curves import STUDY, Recorded, measure, power_law, studied

LEVELS = np.arange(1.0, 28.0)


def recorded(runs: int) -> Recorded:
    rng = np.random.default_rng(0)
    end, amplitude = rng.uniform(0.2, 0.5, (runs, 1)), rng.uniform(0.2, 1.0, (runs, 1))
    return Recorded("made", LEVELS, end + amplitude * LEVELS**-0.8)


def test_the_rival_continues_an_exact_power_law() -> None:
    curve = 0.3 + 0.9 * LEVELS**-0.5
    assert power_law(LEVELS[:6], curve[:6], 27.0) == pytest.approx(curve[-1], abs=5e-3)


def test_a_study_is_what_successive_halving_leaves() -> None:
    task = recorded(STUDY)
    task.losses[0, 1] = np.nan  # a report that is not a number is not there
    lengths = [len(curve) for curve in studied(task, np.arange(STUDY))]
    assert lengths == [2] + [3] * 17 + [9] * 6 + [27] * 3


def test_measures_are_shares_and_errors_of_the_runs_outside_the_study() -> None:
    inside, width, ours, last, law = measure(recorded(STUDY + 3), studies=1)[0.2]
    assert 0.0 <= inside <= 1.0 and width > 0.0
    assert ours < last and law < last
