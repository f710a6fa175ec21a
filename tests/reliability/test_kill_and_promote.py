"""A study of pausing runs killed at random moments spends every level of every run once."""

import os
import random
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

from hpo import Observation, load_result

VICTIM = Path(__file__).with_name("staged_victim.py")
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_killed_hyperband_promotes_the_same_and_pays_for_each_level_once(tmp_path: Path) -> None:
    rng, kills, done = random.Random(0), 0, False
    while not done:
        life = subprocess.Popen(
            [sys.executable, str(VICTIM)],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.DEVNULL,
        )
        try:
            done = life.wait(rng.uniform(2.0, 20.0) if kills < 6 else 300.0) == 0
        except subprocess.TimeoutExpired:
            kills += 1
        finally:
            life.kill()
            life.wait()
    log = load_result("victim", storage=f"sqlite:///{tmp_path}/scaletune.db").log
    last: dict[int, Observation] = {}
    attempts: dict[int, int] = defaultdict(int)
    for trial in log.trials:
        attempts[trial.ask_index] += 1
        observation = log.observation(trial.number)
        if observation is not None and observation.cost is not None:
            last[trial.ask_index] = observation
    assert sorted(attempts) == list(range(17))  # 9, 5 and 3 starters
    # A run that lost its driver three times in a row is an error, and the next best takes its slot.
    given_up = 17 - len(last)
    assert given_up <= kills // 3
    costs = sorted(o.cost for o in last.values() if o.cost is not None)
    assert set(costs) <= {1.0, 3.0, 9.0}
    assert 69.0 - 9.0 * given_up <= sum(costs) <= 69.0
