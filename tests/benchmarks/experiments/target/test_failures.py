"""Made-up losses of the answers that once were wrong."""

import numpy as np
import pytest

from benchmarks.experiments.target.failures import DECLARATIONS, apart, declared, drifting_loss


def test_the_best_lr_of_the_drifting_loss_falls_as_tokens_to_the_minus_three_tenths() -> None:
    lrs = np.geomspace(1e-6, 1e-1, 20001)
    for tokens in (1e5, 8e10):
        best = lrs[np.argmin([drifting_loss(lr, tokens) for lr in lrs.tolist()])]
        assert best == pytest.approx(3e-3 * (tokens / 1e5) ** -0.3, rel=1e-3)


@pytest.mark.parametrize("name", DECLARATIONS)
def test_every_declaration_takes_every_run(name: str) -> None:
    rows = [
        {"N": N, "D": 20 * N, "lr": lr, "batch": batch, "loss": 2.0 + 1e8 / N + lr}
        for N in (1e8, 2e8)
        for lr in (1e-3, 2e-3)
        for batch in (32.0, 64.0)
    ]
    assert len(declared(name, rows).log) == 8


def test_answers_are_apart_by_the_largest_over_the_smallest() -> None:
    assert apart("batch")([{"batch": 500.0}, {"batch": 1000.0}, {"batch": 800.0}]) == 2.0
