import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_example_of_four_objectives_prints_a_front_and_its_volume() -> None:
    command = [sys.executable, "-m", "examples.many_objectives", "--runs", "9", "--start", "8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    for part in ("of 9 runs are on the front", "dominated volume", "by as many random runs"):
        assert part in done.stdout
