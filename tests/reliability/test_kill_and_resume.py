"""A study killed at random moments is, in the end, the study that was never killed."""

import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, Queue
from typing import Any

import optuna
import pytest

from tests.reliability.victim import live

pytestmark = pytest.mark.engine

PATIENCE = 120.0  # seconds

VICTIM = "tests.reliability.victim"
# Forked from a server that has imported everything: a life costs no seconds of imports.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch", "scipy.stats", "sqlalchemy", "alembic.command", "rich.live", VICTIM]
)

Ask = tuple[int, int]  # driver, and its ask index: unique to a trial and all its attempts


class Life:
    """One process of the victim, with its output as it comes."""

    def __init__(self, folder: Path, trials: int, workers: int) -> None:
        folder.mkdir(exist_ok=True)
        reader, writer = FORKS.Pipe(duplex=False)
        self.process = FORKS.Process(target=live, args=(str(folder), trials, workers, writer))
        self.process.start()
        writer.close()
        self.lines: Queue[str] = Queue()
        self.told: dict[int, str] = {}
        self.said: list[str] = []
        self._reader = threading.Thread(target=self._read, args=(os.dup(reader.fileno()),))
        self._reader.start()
        reader.close()

    def _read(self, descriptor: int) -> None:
        with open(descriptor) as lines:
            for line in lines:
                self.lines.put(line.strip())

    def wait_for(self, word: str, seconds: float = PATIENCE) -> bool:
        """Whether a line starting with `word` comes within `seconds`."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            try:
                line = self.lines.get(timeout=min(left, 0.05))
            except Empty:
                if not self._reader.is_alive() and self.lines.empty():
                    return False
                continue
            self._note(line)
            if line.startswith(word):
                return True
        return False

    def end(self) -> bool:
        """Kill it if it still lives; whether that was needed."""
        killed = self.process.is_alive()
        self.process.kill()
        self.process.join()
        self._reader.join()
        while not self.lines.empty():
            self._note(self.lines.get())
        return killed

    def kill_a_worker(self, rng: random.Random) -> bool:
        """Kill one of the processes in which its trials run; False if none does now."""
        assert self.process.pid is not None
        workers = [pid for server in children(self.process.pid) for pid in children(server)]
        if not workers:
            return False
        with suppress(ProcessLookupError):
            os.kill(rng.choice(workers), signal.SIGKILL)
            return True
        return False

    def _note(self, line: str) -> None:
        self.said.append(line)
        if line.startswith("told "):
            _, ask_index, loss = line.split()
            self.told[int(ask_index)] = loss


def children(pid: int) -> list[int]:
    """Of a process on Linux; none once it has ended."""
    try:
        return [int(n) for n in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:
        return []


@dataclass
class History:
    """What a storage holds of a finished study."""

    finished: dict[Ask, tuple[dict[str, Any], str, float | None, float | None]]
    order: list[Ask]
    twice: list[Ask] = field(default_factory=list)


def storage_of(folder: Path) -> str:
    """Where the victim in `folder` keeps its study."""
    elsewhere = folder / "storage.txt"
    return elsewhere.read_text() if elsewhere.exists() else f"sqlite:///{folder}/scaletune.db"


def history(folder: Path) -> History:
    """Results by driver and ask index, apart from lost attempts, and the order of the tells."""
    study = optuna.load_study(study_name="victim", storage=storage_of(folder))
    found = History({}, [])
    orders: list[tuple[int, Ask]] = []
    for trial in study.get_trials(deepcopy=False):
        told = trial.user_attrs.get("scaletune:told")
        if told is None:
            continue
        asked = trial.user_attrs["scaletune:asked"]
        index = (asked["driver"], asked["ask_index"])
        if index in found.finished:
            found.twice.append(index)
        found.finished[index] = (trial.params, told["status"], told["loss"], told["cost"])
        orders.append((told["order"], index))
    found.order = [index for _, index in sorted(orders)]
    return found


def attempts_at_risk(folder: Path) -> int:
    """Attempts already lost, before the last one, of a trial that is not told yet."""
    try:
        study = optuna.load_study(study_name="victim", storage=storage_of(folder))
    except KeyError:  # killed before the study was created
        return 0
    trials = [trial.user_attrs for trial in study.get_trials(deepcopy=False)]
    told = {t["scaletune:asked"]["ask_index"] for t in trials if "scaletune:told" in t}
    asked = [t["scaletune:asked"] for t in trials]
    return max((a["attempt"] for a in asked if a["ask_index"] not in told), default=0)


def start_together(folder: Path, trials: int, count: int) -> list[Life]:
    """Drivers of one new study, none of which asks before all of them have opened it."""
    live_to_the_end(folder, 1)  # so that all find the study there
    hold = folder / "hold"
    hold.touch()
    lives = [Life(folder, trials, workers=1) for _ in range(count)]
    try:
        assert all(life.wait_for("driving", 300.0) for life in lives)
    except BaseException:
        for life in lives:
            life.end()
        raise
    hold.unlink()
    return lives


def live_to_the_end(folder: Path, trials: int, workers: int = 1) -> None:
    life = Life(folder, trials, workers)
    try:
        assert life.wait_for("done", 5 * PATIENCE)
    finally:
        life.end()


def kill_until_done(
    folder: Path, trials: int, *, kills: int, workers: int = 1, rng: random.Random
) -> tuple[int, dict[int, str]]:
    """Kill the victim at up to `kills` random moments, then let it finish.

    A trial may lose its driver twice and no more, so a life that continues one which did is
    spared until that trial is told. Returns the number of kills and what was announced as told.
    """
    told: dict[int, str] = {}
    done = 0
    spare = False
    while done < kills:
        life = Life(folder, trials, workers)
        try:
            if not spare and rng.random() < 0.15:
                time.sleep(rng.uniform(0.0, 0.5))  # while it opens and replays
            else:
                assert life.wait_for("driving")
                if spare:
                    life.wait_for("told")
                if life.wait_for("done", rng.uniform(0.0, 0.2)):
                    break
        finally:
            done += life.end()
            told |= life.told
        file = folder / "scaletune.db"
        if (folder / "storage.txt").exists() or (file.exists() and file.stat().st_size):
            spare = attempts_at_risk(folder) >= 1
    live_to_the_end(folder, trials, workers)
    return done, told


def check_nothing_lost_or_doubled(folder: Path, announced: dict[int, str], trials: int) -> History:
    after = history(folder)
    assert after.twice == []
    assert sorted(after.finished) == [(0, index) for index in range(trials)]
    for index, loss in announced.items():
        assert repr(after.finished[0, index][2]) == loss
    return after


def check_the_same_however_often_killed(
    calm: History, folders: Iterator[Path], *, kills: int, each: int = 10
) -> int:
    """Kill `kills` times, in one study after another, each of which must end up as the calm one.

    Returns the number of kills.
    """
    trials, killed, rng = len(calm.order), 0, random.Random(0)
    assert calm.order == [(0, index) for index in range(trials)]
    while killed < kills:
        folder = next(folders)
        here, announced = kill_until_done(folder, trials, kills=min(each, kills - killed), rng=rng)
        killed += here
        after = check_nothing_lost_or_doubled(folder, announced, trials)
        assert after.finished == calm.finished
        assert after.order == calm.order
    return killed


@pytest.mark.parametrize(
    ("trials", "kills"), [(16, 8), pytest.param(12, 90, marks=pytest.mark.slow)]
)
def test_a_study_killed_at_random_moments_asks_the_same_bit_for_bit(
    tmp_path: Path, trials: int, kills: int
) -> None:
    live_to_the_end(tmp_path / "calm", trials)
    killed = check_the_same_however_often_killed(
        history(tmp_path / "calm"), (tmp_path / f"killed{i}" for i in count()), kills=kills
    )
    assert killed == kills


def check_killed_workers(folders: Iterator[Path], *, kills: int) -> None:
    """Kill a trial's process `kills` times, in one study after another, with its driver alive."""
    rng, trials, killed = random.Random(2), 12, 0
    while killed < kills:
        folder = next(folders)
        life = Life(folder, trials, workers=2)
        try:
            assert life.wait_for("driving")
            while killed < kills and not life.wait_for("done", rng.uniform(0.0, 3.0)):
                killed += life.kill_a_worker(rng)
            assert "done" in life.said or life.wait_for("done")
        finally:
            life.end()
        check_nothing_lost_or_doubled(folder, life.told, trials)


@pytest.mark.parametrize("kills", [2, pytest.param(100, marks=pytest.mark.slow)])
def test_killed_workers_lose_no_result_and_double_none(tmp_path: Path, kills: int) -> None:
    check_killed_workers((tmp_path / f"killed{i}" for i in count()), kills=kills)


def test_workers_of_a_killed_driver_lose_no_result_and_double_none(tmp_path: Path) -> None:
    trials = 10
    killed, announced = kill_until_done(
        tmp_path / "killed", trials, kills=3, workers=2, rng=random.Random(1)
    )
    assert killed >= 1
    check_nothing_lost_or_doubled(tmp_path / "killed", announced, trials)


def test_two_drivers_of_one_study_share_the_work_and_double_none(tmp_path: Path) -> None:
    trials = 16
    lives = start_together(tmp_path / "shared", trials, 2)
    try:
        assert all(life.wait_for("done") for life in lives)
    finally:
        for life in lives:
            life.end()
    after = history(tmp_path / "shared")
    assert after.twice == []
    assert all(life.told for life in lives)
    assert {driver for driver, _ in after.finished} == {0, 1}
    assert trials <= len(after.finished) <= trials + 1
