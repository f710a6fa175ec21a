import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_auto_lrs_prints_a_schedule_and_a_cosine_beside_it() -> None:
    command = [sys.executable, "-m", "examples.auto_lrs", "--stages", "2", "--looks", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for part in ("0 to 40", "40 to 80", "by stages: loss", "cosine: loss", "6 stages of 40"):
        assert part in done.stdout
