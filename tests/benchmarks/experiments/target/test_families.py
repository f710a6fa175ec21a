"""Families whose best settings are known, and the oracle's intervals."""

import numpy as np
import pytest

from benchmarks.experiments.target import families
from benchmarks.experiments.target.families import BOWLS, DRIFTS, SETTINGS, study


@pytest.mark.parametrize("bowl", BOWLS)
@pytest.mark.parametrize("drift", DRIFTS)
def test_no_settings_do_better_at_the_target_than_the_known_best(drift: str, bowl: str) -> None:
    made = study(drift, bowl, 1)
    size = made.problem.target.size
    best = made.best(size)
    assert made.problem.gap(dict(zip(SETTINGS, np.exp(best), strict=True))) == pytest.approx(0.0)
    around = best + np.random.default_rng(0).normal(0.0, 0.3, (200, 2))
    assert np.all(made.loss(around, size) > made.problem.best)


def test_the_saturating_bowl_is_flat_below_the_best_lr_and_explodes_above() -> None:
    made = study("right", "saturating", 0)
    size = made.problem.target.size
    below, above = (
        made.loss(made.best(size) + np.array([[by, 0.0]]), size)[0] - made.problem.best
        for by in (-4.0, 4.0)
    )
    farther = made.loss(made.best(size) + np.array([[-6.0, 0.0]]), size)[0] - made.problem.best
    assert above > 1000 * below
    assert farther == pytest.approx(below, rel=0.05)


def test_the_drift_of_a_family_is_what_its_name_says_of_step_law() -> None:
    of = {name: study(name, "quadratic", 3).problem.drift for name in DRIFTS}
    right, half, wrong = (of[name] for name in ("right", "half right", "wrong"))
    assert right is not None and half is not None and wrong is not None
    assert np.abs(right - DRIFTS["right"]).max() < 0.15
    assert np.abs(half[0] - right[0]).max() < 0.2 and abs(half[1, 1] - right[1, 1]) > 0.5
    assert wrong[0, 0] > 0.0 and wrong[1, 1] < 0.0


def _told(seed: int) -> tuple[families.Study, np.ndarray, np.ndarray]:
    made = study("neutral", "quadratic", seed)
    rng = np.random.default_rng(seed)
    cells = made.problem.sources
    settings, steps = [], []
    for _ in range(60):
        cell = cells[int(rng.integers(len(cells)))]
        config = cell.configs[int(rng.integers(len(cell.configs)))]
        settings.append(np.log([config["lr"], config["batch"]]))
        steps.append(np.log([config["params"], config["tokens"]]) - families.ORIGIN)
    return made, np.array(settings), np.array(steps)


def test_least_squares_in_the_true_form_lands_inside_the_oracles_interval() -> None:
    from scipy.optimize import least_squares

    inside = []
    for seed in range(30):
        made, settings, steps = _told(seed)
        size = made.problem.target.size
        used = made._used()
        rng = np.random.default_rng(100 + seed)
        seen = families._loss(made.theta, made.bowl, settings, steps)
        seen = seen + made.noise * rng.standard_normal(len(seen))

        def residual(
            numbers: np.ndarray,
            made: families.Study = made,
            settings: np.ndarray = settings,
            steps: np.ndarray = steps,
            seen: np.ndarray = seen,
            used: list[int] = used,
        ) -> np.ndarray:
            theta = made.theta.copy()
            theta[used] = numbers
            prior = (numbers - made.theta[used]) / families._WEAK
            miss = (families._loss(theta, made.bowl, settings, steps) - seen) / made.noise
            return np.concatenate([miss, prior])

        theta = made.theta.copy()
        theta[used] = least_squares(residual, made.theta[used]).x
        steps_at = np.log([size[axis] for axis in families.AXES]) - families.ORIGIN
        off = np.abs(families._best(theta, steps_at) - made.best(size))
        inside.extend(off <= made.oracle(settings, steps, size)[:2] / 2.0)
    assert 0.8 <= np.mean(inside) <= 0.98


def test_the_oracle_is_more_certain_of_more_runs() -> None:
    made, settings, steps = _told(0)
    size = made.problem.target.size
    few = made.oracle(settings[:30], steps[:30], size)
    assert np.all(made.oracle(settings, steps, size) < few)
