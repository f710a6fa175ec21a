import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_demo_runs_from_probe_to_picture(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "examples.demo",
        "--minutes",
        "0.1",
        "--out",
        str(tmp_path / "out"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    for part in ("Probe", "Front of loss against cost", "Recommendation", "The target, trained"):
        assert part in done.stdout
    record = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert set(record["target runs"]) == {"recommended", "usual defaults"}
    assert record["plan"]["search_flops"] > 0
    assert (tmp_path / "out" / "front.png").stat().st_size > 10_000
