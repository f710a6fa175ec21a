"""Leases, and driver indices that only one driver gets."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hpo import (
    Float,
    SearchSpace,
)
from hpo.study.lease import Lease
from hpo.study.storage import StudyStorage


def test_a_lease_of_this_process_holds_whatever_the_clock_says_until_it_is_released() -> None:
    lease = Lease.take()
    late = Lease(lease.owner, lease.machine, lease.pid, lease.born, expires=1.0)
    assert lease.alive and late.alive
    assert not lease.released().alive
    assert Lease.from_json(json.loads(json.dumps(lease.to_json()))) == lease


def test_a_lease_of_a_dead_or_reused_process_here_is_void_at_once() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        dead = process.pid
    lease = Lease.take()
    assert not Lease("o", lease.machine, dead, 5, lease.expires).alive
    assert not Lease("o", lease.machine, lease.pid, lease.born + 1, lease.expires).alive


def test_a_lease_from_elsewhere_holds_until_it_expires() -> None:
    assert Lease("o", "elsewhere", 1, 1, time.time() + 5).alive
    assert not Lease("o", "elsewhere", 1, 1, time.time() - 5).alive


def test_drivers_that_start_at_once_get_different_indices(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path}/study.db"
    space = SearchSpace({"x": Float(0.0, 1.0)})

    def opened() -> StudyStorage:
        return StudyStorage.open(
            name="n",
            storage=storage,
            space=space,
            direction="minimize",
            cost=None,
            seed=0,
            scheduler=None,
        )

    opened = [opened() for _ in range(6)]
    together = threading.Barrier(len(opened))

    def claim(study: StudyStorage) -> int:
        lease = Lease.take()
        together.wait()
        return study.claim(lease)

    with ThreadPoolExecutor(len(opened)) as pool:
        indices = list(pool.map(claim, opened))
    assert sorted(indices) == list(range(len(opened)))
