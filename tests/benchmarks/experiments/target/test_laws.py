"""Rivals on losses whose law is known."""

import numpy as np
import pytest

from benchmarks.experiments.target.laws import PowerLaw, huber, process, trees

TRUE = PowerLaw(E=1.8, ln_A=6.2, alpha=0.35, ln_B=7.6, beta=0.37)


def _sizes(seed: int = 0, n: int = 120) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return 10 ** rng.uniform(8, 10, n), 10 ** rng.uniform(9, 11.5, n)


def test_huber_recovers_the_law_of_exact_losses() -> None:
    N, D = _sizes()
    law = huber(N, D, TRUE.predict(N, D))
    assert law.alpha == pytest.approx(0.35, abs=0.01)
    assert law.beta == pytest.approx(0.37, abs=0.01)
    assert law.E == pytest.approx(1.8, abs=0.01)


def test_huber_hardly_moves_when_one_run_in_ten_is_far_off() -> None:
    N, D = _sizes(1)
    rng = np.random.default_rng(2)
    loss = TRUE.predict(N, D) * np.exp(0.002 * rng.standard_normal(len(N)))
    clean = huber(N, D, loss)
    wrong = loss.copy()
    wrong[:12] *= np.where(np.arange(12) % 3 == 0, 10.0, 1.4)
    assert huber(N, D, wrong).exponent == pytest.approx(clean.exponent, abs=0.01)


def test_the_best_size_of_a_compute_has_the_least_loss_of_all_that_spend_it() -> None:
    compute = 5.76e23
    best = TRUE.best_size(compute)
    N = best * np.array([0.9, 1.0, 1.1])
    losses = TRUE.predict(N, compute / (6.0 * N))
    assert losses[1] < losses[0] and losses[1] < losses[2]
    tenfold = TRUE.best_size(10 * compute) / best
    assert np.log10(tenfold) == pytest.approx(TRUE.exponent)


def test_a_process_covers_runs_among_those_told_and_trees_stay_in_their_range() -> None:
    rng = np.random.default_rng(3)
    told, asked = rng.uniform(-1, 1, (80, 2)), rng.uniform(-0.8, 0.8, (60, 2))

    def loss(X: np.ndarray) -> np.ndarray:
        return 2.0 + X[:, 0] ** 2 + 0.3 * X[:, 1] + 0.02 * rng.standard_normal(len(X))

    seen, truth = loss(told), loss(asked)
    assert process(told, seen, asked).against(truth)["covered"] > 0.75
    found = trees(told, seen, asked + 5.0)
    assert found.loss.max() <= seen.max() + 1e-9
    assert np.all(found.low <= found.high)
