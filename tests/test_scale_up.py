import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_scale_up_measures_drift_and_checks_its_prediction(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "examples.scale_up",
        "--minutes",
        "0.5",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "predicted loss" in done.stdout and "loss it got" in done.stdout
    record = json.loads((tmp_path / "out" / "scale_up.json").read_text())
    for name in ("muP", "standard"):
        assert len(record[name]["drift_interval"]) == 2
        assert record[name]["target_run"]["params"] > 1.5e6
        assert (tmp_path / "out" / f"{name}.png").stat().st_size > 10_000
