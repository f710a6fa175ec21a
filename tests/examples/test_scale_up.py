import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_scale_up_measures_drift_and_checks_its_prediction(
    run: Callable[..., str], tmp_path: Path
) -> None:
    arguments = ("--minutes", "0.5", "--out", "out")
    printed = run("-m", "examples.studies.scale_up", *arguments, seconds=900)
    assert "predicted loss" in printed and "loss it got" in printed
    record = json.loads((tmp_path / "out" / "scale_up.json").read_text())
    for name in ("muP", "standard"):
        assert len(record[name]["drift_interval"]) == 2
        assert record[name]["target_run"]["params"] > 1.5e6
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
