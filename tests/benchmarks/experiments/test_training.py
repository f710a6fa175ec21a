from pathlib import Path

import pytest

from benchmarks.experiments.training import GRID, LR_FREE, lr_free_lines


def test_runs_without_a_learning_rate_are_kept_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = iter(range(1, 100))
    monkeypatch.setattr(
        "benchmarks.experiments.training.train_with", lambda *_, **__: float(next(losses))
    )
    first, again = (
        list(lr_free_lines(tmp_path / "runs.jsonl", widths=[64, 128], seeds=[0], updates=3))
        for _ in range(2)
    )
    assert first == again
    methods = len(LR_FREE) + len(GRID)
    assert next(losses) == 2 * methods + 1
    assert len(first) == 2 + len(LR_FREE) + 2
    best = 2 * len(LR_FREE) + 1  # the first rate of the grid, at the first width
    assert first[-1].split("|")[2:4] == [f" {best:.4f} ", f" {best + 1:.4f} "]
