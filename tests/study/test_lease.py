"""Leases, and driver indices that only one driver gets."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import InMemoryStorage

from hpo import Budget, Context, Float, Result, SearchSpace, load_result, optimize
from hpo.study.lease import DURATION, RETURN, Lease
from hpo.study.storage import StudyStorage

pytestmark = pytest.mark.usefixtures("folder")  # checkpoints go to the current directory


class Elsewhere:
    """Writes leases of drivers on other machines into a study."""

    def __init__(self, study: StudyStorage) -> None:
        self._study = study

    def hold(self, index: int, *, seconds: float) -> Lease:
        lease = Lease(f"other{index}", "elsewhere", 1, 1, time.time() + seconds)
        self._study.write_lease(index, lease)
        return lease


def opened(storage: Any) -> StudyStorage:
    return StudyStorage.open(
        name="n",
        storage=storage,
        space=SearchSpace({"x": Float(0.0, 1.0)}),
        direction="minimize",
        cost=None,
        seed=0,
    )


def test_a_lease_of_this_process_holds_whatever_the_clock_says_until_its_call_ends() -> None:
    lease = Lease.take()
    late = Lease(lease.owner, lease.machine, lease.pid, lease.born, expires=1.0)
    assert lease.alive and late.alive
    assert not lease.released().alive
    assert Lease.from_json(json.loads(json.dumps(lease.to_json()))) == lease
    lease.end()  # also if it could not be given up in storage
    assert not lease.alive and not lease.renewed().alive


def test_a_lease_that_this_process_held_before_exec_is_void() -> None:
    lease = Lease.take()
    assert not Lease("before", lease.machine, lease.pid, lease.born, lease.expires).alive


def test_a_lease_of_another_process_here_that_lives_holds_until_it_expires() -> None:
    lease = Lease.take()
    code = (
        "import sys, json; from hpo.study.lease import Lease; lease = json.loads(sys.argv[1]);"
        "print(*(Lease(**{**lease, 'expires': lease['expires'] + s}).alive for s in (0, -120)))"
    )
    seen = subprocess.run(
        [sys.executable, "-c", code, json.dumps(lease.to_json())],
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.split() == ["True", "False"]


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
    url = f"sqlite:///{tmp_path}/study.db"
    studies = [opened(url) for _ in range(6)]
    together = threading.Barrier(len(studies))

    def claim(study: StudyStorage) -> int:
        lease = Lease.take()
        together.wait()
        return study.claim(lease)

    with ThreadPoolExecutor(len(studies)) as pool:
        indices = list(pool.map(claim, studies))
    assert sorted(indices) == list(range(len(studies)))


def test_a_driver_that_was_cut_off_itself_gives_others_the_time_to_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, lease, now = opened(f"sqlite:///{tmp_path}/s.db"), Lease.take(), time.time()
    index = study.claim(lease)
    other = Elsewhere(study).hold(index + 1, seconds=DURATION).owner

    def after(seconds: float) -> bool:
        monkeypatch.setattr("hpo.study.lease.time.time", lambda: now + seconds)
        return study.owners()[other]

    assert after(50.0)
    assert after(100.0)  # the storage was gone for longer than the leases last, for both
    study.renew(index, lease)
    assert after(101.0) and after(115.0)
    study.renew(index, lease)
    assert not after(121.0)  # it had the time


def test_a_driver_that_is_never_cut_off_sees_a_lease_end_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, lease, now = opened(f"sqlite:///{tmp_path}/s.db"), Lease.take(), time.time()
    index = study.claim(lease)
    other = Elsewhere(study).hold(index + 1, seconds=25.0).owner
    for seconds in (10.0, 20.0, 30.0):
        assert study.owners()[other]
        monkeypatch.setattr("hpo.study.lease.time.time", lambda seconds=seconds: now + seconds)
        study.renew(index, lease)
    assert not study.owners()[other]


def test_a_driver_that_finds_its_index_taken_when_it_comes_back_takes_another(
    tmp_path: Path,
) -> None:
    study, lease = opened(f"sqlite:///{tmp_path}/s.db"), Lease.take()
    index = study.claim(lease)
    other = Elsewhere(study).hold(index, seconds=DURATION)
    moved = study.renew(index, lease.renewed())
    assert moved != index
    assert study.owners() == {lease.owner: True, other.owner: True}
    assert study.renew(moved, lease.renewed()) == moved


def test_a_driver_that_starts_waits_for_the_holder_of_a_lease_that_ended_just_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study, slept = opened(f"sqlite:///{tmp_path}/s.db"), list[float]()
    other = Elsewhere(study).hold(0, seconds=-5.0)

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        study.write_lease(0, other.renewed())

    monkeypatch.setattr("hpo.study.storage.time.sleep", sleep)
    assert study.claim(Lease.take()) == 1 and slept == [RETURN]
    Elsewhere(study).hold(0, seconds=-1000.0)
    assert study.claim(Lease.take()) == 0 and slept == [RETURN]


def test_two_threads_that_drive_one_study_in_memory_leave_each_other_s_trials_alone() -> None:
    storage, together = InMemoryStorage(), threading.Barrier(2)
    trained: list[int] = []

    def train(config: dict[str, Any], ctx: Context) -> float:
        trained.append(ctx.trial.number)
        if ctx.trial.number < 2:
            together.wait()  # each has one trial
        time.sleep(0.01)
        return float(config["x"])

    def drive() -> Result:
        return optimize(
            train, {"x": Float(0, 1)}, budget=Budget(trials=6), name="n", storage=storage
        )

    with ThreadPoolExecutor(2) as pool:
        for future in [pool.submit(drive) for _ in range(2)]:
            future.result()
    told = load_result("n", storage=storage).log.observations
    assert 6 <= len(told) <= 7 and not any(o.cause for o in told)
    assert sorted(trained) == sorted(o.number for o in told)  # each once, by one of the two
