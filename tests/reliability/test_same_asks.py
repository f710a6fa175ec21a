"""One seed asks the same whatever surrounds the process: hashes, threads, imports, memory, load."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
SOAK = float(os.environ.get("SCALETUNE_SOAK", "600"))  # seconds
_IMPORTS = ["optuna", "pandas", "torch", "scipy.stats", "sklearn", "hpo.cli", "hpo.schedulers.asha"]


def run_studies(condition: dict[str, Any], seed: int) -> dict[str, str]:
    """What each study did under a condition, as digests."""
    threads, hashing = str(condition["threads"]), str(condition["hash_seed"])
    environment = {
        **os.environ,
        "PYTHONHASHSEED": hashing,
        "PYTHONPATH": str(ROOT),
        **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), threads),
    }
    with load(condition["load"]):
        command = [sys.executable, "-m", "tests.reliability.one_study"]
        done = subprocess.run(
            [*command, json.dumps(condition), str(seed)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


@contextmanager
def load(processes: int) -> Iterator[None]:
    """So many processes that compute beside."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def plain() -> dict[str, Any]:
    return {"hash_seed": 0, "threads": 1, "load": 0}


def drawn(rng: random.Random) -> dict[str, Any]:
    """A condition by chance."""
    return {
        "hash_seed": rng.randrange(1 << 32),
        "threads": rng.choice([1, 2, 3]),
        "load": rng.choice([0, 0, 1, 3]),
        "imports": rng.sample(_IMPORTS, rng.randrange(len(_IMPORTS) + 1)),
        "gc": rng.choice(["off", "often", None]),
        "in_thread": rng.random() < 0.3,
    }


@pytest.mark.engine
def test_a_seed_asks_the_same_under_two_conditions():
    other = {
        **{"hash_seed": 4711, "threads": 2, "load": 1},
        **{"imports": ["hpo.cli", "torch"], "gc": "often", "in_thread": True},
    }
    assert run_studies(other, seed=1) == run_studies(plain(), seed=1)


@pytest.mark.slow
def test_a_seed_asks_the_same_under_any_condition():
    """A soak of ten minutes; SCALETUNE_SOAK sets its seconds."""
    until, rng = time.monotonic() + SOAK, random.Random(7)
    compared, expected = 0, {}
    while time.monotonic() < until:
        seed, condition = rng.randrange(3), drawn(rng)
        if seed not in expected:
            expected[seed] = run_studies(plain(), seed)
        assert run_studies(condition, seed) == expected[seed], condition
        compared += 1
    assert compared >= 2
