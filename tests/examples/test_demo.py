import json
from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.slow
def test_demo_runs_from_probe_to_picture(run: Callable[..., str], tmp_path: Path) -> None:
    printed = run("-m", "examples.studies.demo", "--minutes", "0.1", "--out", "out", seconds=240)
    for part in ("Probe", "Front of loss against cost", "Recommendation", "The target, trained"):
        assert part in printed
    record = json.loads((tmp_path / "out" / "demo.json").read_text())
    assert set(record["target runs"]) == {"recommended", "usual defaults"}
    assert record["plan"]["search_flops"] > 0
    assert (tmp_path / "out" / "front.png").stat().st_size > 10_000
