"""HPO-B's table from our runs and from files in the published format."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks.__main__ import main
from benchmarks.experiments.hpob_report import PUBLISHED, curves, published, report

SPACES = {"4796": ("3549", "23"), "5971": ("10093",)}


def results(value, length=101):
    """Incumbents that reach `value` after the first trial; the second seed only after ten."""
    rising = [0.0, *[value] * (length - 1)]
    late = [0.0] * min(10, length) + [value] * max(length - 10, 0)
    return {
        space: {task: {"test0": [*rising], "test1": [*late]} for task in members}
        for space, members in SPACES.items()
    }


def cells(line):
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_regret_and_rank_are_means_over_the_runs_that_all_methods_have():
    good, bad = curves(results(0.9)), curves(results(0.5))
    del bad["4796", "3549", "test1"]
    lines = list(report({"good": good, "bad": bad}, at=(5, 25)))
    assert lines[0] == "5 runs of 2 spaces that every method has."
    rows = {cells(line)[0]: cells(line)[1:] for line in lines[4:]}
    # three of five runs are at 0.9 after 5 trials, two still at 0
    assert float(rows["good"][0]) == pytest.approx((3 * 0.1 + 2 * 1.0) / 5)
    assert float(rows["good"][1]) == pytest.approx(0.1)
    assert rows["good"][2:4] == ["1.20", "1.00"]  # tied at rank 1.5 where both are at 0
    assert rows["bad"][2:4] == ["1.80", "2.00"]
    assert float(rows["bad"][4]) == pytest.approx(0.5)


def test_a_file_that_ends_early_is_shown_up_to_its_end():
    lines = list(report({"a": curves(results(0.9)), "b": curves(results(0.5, 6))}, at=(5, 100)))
    short = cells(lines[-1])
    assert short[1] != "-" and short[2] == "-"
    whole = cells(lines[-2])
    assert whole[4] == "1.00"  # at 100 it is the only one


def test_files_whose_incumbents_fall_are_mended_with_a_note(tmp_path):
    fallen = results(0.9)
    fallen["4796"]["23"]["test0"][50] = 0.1
    (tmp_path / "RF.json").write_text(json.dumps(fallen))
    found, notes = published(tmp_path)
    assert notes == ["RF: 1 of 6 curves fell and were replaced by their running maximum"]
    assert found["RF"]["4796", "23", "test0"][50] == 0.9
    assert all(np.all(np.diff(curve) >= 0) for curve in found["RF"].values())


def test_the_command_prints_the_files_and_without_them_the_published_means(tmp_path, capsys):
    for name, value in (("FSBO", 0.9), ("Random", 0.5)):
        (tmp_path / f"{name}.json").write_text(json.dumps(results(value)))
    assert main(["hpob-report", "--published", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    assert "| FSBO |" in printed and "over all 430 runs" not in printed
    assert main(["hpob-report"]) == 2
    assert "nothing to report" in capsys.readouterr().err


def test_the_published_means_fall_with_the_trials():
    for row in PUBLISHED.values():
        assert list(row) == sorted(row, reverse=True)
