"""Runs that pause lose nothing and pay nothing twice, whoever is killed and when."""

from pathlib import Path

import pytest

from tests.reliability.kill_soak import Soak

pytestmark = pytest.mark.engine


@pytest.mark.parametrize("kills", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_drivers_and_workers_leave_no_level_cost_trial_or_checkpoint_wrong(
    tmp_path: Path, kills: int
) -> None:
    soak = Soak(tmp_path)
    soak.run(kills, each=2 if kills == 6 else 10)
    assert soak.kills.total() == kills and set(soak.kills) == {"drivers", "workers"}
    assert soak.found.keys() and not soak.found.total()
