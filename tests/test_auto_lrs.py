import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parent.parent / "examples" / "auto_lrs.py"


def test_auto_lrs_prints_a_schedule_and_a_cosine_beside_it(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE), "--stages", "2", "--looks", "3"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for part in ("0 to 40", "40 to 80", "by stages: loss", "cosine: loss", "6 stages of 40"):
        assert part in done.stdout
