"""Drivers that start at the same moment on an empty database: one creates, the others join."""

import subprocess
import sys
import textwrap
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import InMemoryStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend

from hpo import Budget, Context, Float, SearchSpace, load_result, optimize
from hpo.study.storage import StudyStorage
from hpo.trials import Cause

SPACE = {"x": Float(0.0, 1.0)}
DRIVER = textwrap.dedent("""
    import sys
    from hpo import Budget, Float, optimize
    import optuna, sqlalchemy, alembic  # what takes time comes before the start
    from optuna.storages import RDBStorage
    print("ready", flush=True)
    sys.stdin.readline()
    optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)}, budget=Budget(trials=6),
             name="s", storage=sys.argv[1])
""")


def bowl(config: dict[str, Any], ctx: Context) -> float:
    return float((config["x"] - 0.3) ** 2)


def opened(storage: Any, name: str = "s") -> StudyStorage:
    return StudyStorage.open(
        name=name,
        storage=storage,
        space=SearchSpace(SPACE),
        direction="minimize",
        cost=None,
        seed=0,
    )


def start_drivers(url: str, folder: Path, count: int) -> None:
    """Run drivers that begin at the same moment, all to their end."""
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", DRIVER, url],
            cwd=folder,
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for _ in range(count)
    ]
    for driver in drivers:
        assert driver.stdout is not None and driver.stdout.readline() == "ready\n"
    for driver in drivers:
        assert driver.stdin is not None
        driver.stdin.write("\n")
        driver.stdin.flush()
    ends = [(driver.communicate(timeout=120)[1], driver.returncode) for driver in drivers]
    assert [code for _, code in ends] == [0] * count, ends


def check_whole(url: str, trials: int) -> None:
    result = load_result("s", storage=url)
    told = [o for o in result.log.observations if o.cause is not Cause.LOST]
    assert len(told) >= trials and not result.log.pending
    assert result.study is not None
    asked = [trial.user_attrs["scaletune:asked"] for trial in result.study.trials]
    asks = {(asked[o.number]["driver"], o.ask_index) for o in told}
    assert len(asks) == len(told)  # no driver's ask is run twice
    assert optuna.get_all_study_names(url) == ["s"]


def test_processes_that_start_together_on_no_file_share_one_study(folder: Path) -> None:
    url = f"sqlite:///{folder}/s.db"
    start_drivers(url, folder, 3)
    check_whole(url, 6)


@pytest.mark.parametrize("attempt", range(3))
def test_threads_that_open_no_file_together_get_one_study(attempt: int, folder: Path) -> None:
    url, together = f"sqlite:///{folder}/s.db", threading.Barrier(6)

    def start() -> StudyStorage:
        together.wait()
        return opened(url)

    with ThreadPoolExecutor(6) as pool:
        studies = [future.result() for future in [pool.submit(start) for _ in range(6)]]
    assert len({study.study._study_id for study in studies}) == 1
    assert optuna.get_all_study_names(url) == ["s"]


@pytest.mark.parametrize("kind", ["file", "object", "memory", "journal"])
def test_two_threads_drive_one_new_study_together(kind: str, folder: Path) -> None:
    url = f"sqlite:///{folder}/s.db"
    shared: Any = {
        "file": lambda: url,
        "object": lambda: RDBStorage(url),
        "memory": InMemoryStorage,
        "journal": lambda: JournalStorage(
            JournalFileBackend(f"{folder}/s.log")  # type: ignore[no-untyped-call]
        ),
    }[kind]()
    together = threading.Barrier(2)

    def drive() -> int:
        together.wait()
        result = optimize(bowl, SPACE, budget=Budget(trials=6), name="s", storage=shared)
        return len(result.log)

    with ThreadPoolExecutor(2) as pool:
        logs = [future.result() for future in [pool.submit(drive) for _ in range(2)]]
    assert max(logs) >= 6
    final = load_result("s", storage=shared)
    assert len(final.log.observations) >= 6 and not final.log.pending
    told = [o for o in final.log.observations if o.cause is not Cause.LOST]
    assert 6 <= len(told) <= 7 and len({o.config["x"] for o in told}) == len(told)


def test_a_study_whose_first_trial_comes_while_it_is_opened_is_joined(folder: Path) -> None:
    class Busy(RDBStorage):
        """Another driver writes its header and a trial right after the study was created."""

        def create_new_study(self, *arguments: Any, **named: Any) -> int:
            study = super().create_new_study(*arguments, **named)
            optimize(bowl, SPACE, budget=Budget(trials=1), name="s", storage=self.url)
            return study

    storage = Busy(f"sqlite:///{folder}/s.db")
    result = optimize(bowl, SPACE, budget=Budget(trials=3), name="s", storage=storage)
    assert len(result.log.observations) == 3
