"""Kernel densities on rungs, from the engine's parts."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

STUDY = Path(__file__).parents[2] / "examples" / "studies" / "bohb.py"


@pytest.fixture(scope="module")
def bohb() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bohb", STUDY)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_both_searches_run_under_hyperband(
    bohb: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["bohb.py", "--epochs", "80"])
    bohb.main()
    printed = capsys.readouterr().out
    for part in ("kernel densities: best validation loss 0.", "the engine: best validation loss 0"):
        assert part in printed


def test_densities_propose_where_runs_of_the_highest_rung_were_good(bohb: ModuleType) -> None:
    optimizer = bohb.KernelDensities(bohb.SPACE, seed=0)
    engine = bohb.StagedOptimizer(optimizer, bohb.Hyperband(eta=3), seed=0)
    for _ in range(150):
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        # at the first level high momentum looks good, at all others low momentum is
        momentum = trial.config["momentum"]
        engine.tell(trial, -momentum if trial.assignment.level == 1 else momentum)
    drawn = [
        trial.config["momentum"]
        for trial in map(engine.log.trial, range(engine.log.next_number))
        if trial.prediction is not None
        and trial.prediction.reason is not None
        and trial.prediction.reason.text.startswith("densities")
    ]
    assert len(drawn) > 30
    assert np.median(drawn[-20:]) < 0.3
