"""Games on synthetic laws: what is bought, what is scored, and a table that continues."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.experiments.scale_transfer import METHODS, SHARE, play, read, synthetic

GAME = ["scale-transfer", "--synthetic", "2", "--seeds", "1", "--budgets", "0.25"]
COPIED = "random, best copied"


def test_the_gap_of_the_best_config_is_zero_and_of_any_other_positive() -> None:
    problem = synthetic(0)
    ranges = problem.plateau()
    middle = {name: float(np.sqrt(low * high)) for name, (low, high) in ranges.items()}
    assert 0.0 <= problem.gap(middle) < 0.1
    assert problem.gap({"lr": 2.5e-4, "batch": 1024}) > 1.0


def test_no_source_costs_more_than_its_share_of_the_target_and_the_budget_is_kept() -> None:
    problem = synthetic(1)
    assert all(cell.cost <= SHARE * problem.target.cost for cell in problem.sources)
    score = play(problem, METHODS[COPIED], budget=0.5, seed=0)
    cheapest = min(cell.cost for cell in problem.sources) / problem.target.cost
    assert 0.5 - cheapest < score.spent <= 0.5
    assert score.gap >= 0.0 and np.isnan(score.inside)


def test_a_second_run_adds_only_what_the_file_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "scores.jsonl"
    words = [*GAME, "--methods", COPIED, "--out", str(out)]
    assert main(words) == 0
    first, table = out.read_text(), capsys.readouterr().out
    assert main(words) == 0
    assert out.read_text() == first and capsys.readouterr().out == table
    assert main([*GAME, "--methods", COPIED, "rule: Step Law", "--out", str(out)]) == 0
    assert out.read_text().startswith(first)
    assert {key[1] for key in read(out)} == {COPIED, "rule: Step Law"}
    assert f"| {COPIED} | 0.25 |" in table
