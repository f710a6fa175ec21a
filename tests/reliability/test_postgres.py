"""Studies on a real PostgreSQL server, which `make test-postgres` starts on loopback."""

import os
import random
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import RDBStorage
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import make_url

from hpo import (
    Budget,
    Cause,
    Context,
    Fidelity,
    Float,
    Observation,
    Prediction,
    Report,
    StudyError,
    load_result,
    optimize,
)
from hpo.adapters.optuna import prediction_of
from hpo.space import SearchSpace
from hpo.study.lease import Lease
from hpo.study.storage import Asked, StudyStorage
from hpo.trials import Status
from tests.reliability.test_kill_and_resume import (
    check_killed_workers,
    check_the_same_however_often_killed,
    history,
    live_to_the_end,
    start_together,
)
from tests.study.test_starting_together import check_whole, start_drivers

SERVER = os.environ.get("SCALETUNE_POSTGRES", "")
pytestmark = [
    pytest.mark.postgres,
    pytest.mark.skipif(not SERVER, reason="make test-postgres starts the server this needs"),
]
REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def database() -> Callable[[], str]:
    """Makes an empty database and gives its URL."""

    def make() -> str:
        name = f"study_{uuid.uuid4().hex}"
        engine = create_engine(SERVER, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.execute(text(f"CREATE DATABASE {name}"))
        engine.dispose()
        return make_url(SERVER).set(database=name).render_as_string(hide_password=False)

    return make


def folder_on(path: Path, url: str) -> Path:
    path.mkdir()
    (path / "storage.txt").write_text(url)
    return path


def assert_none_twice(asked: list[tuple[Prediction | None, tuple[Any, ...]]]) -> None:
    """No config twice, but those which the engine repeats on purpose, to learn the noise."""
    chosen = [c for p, c in asked if p is None or p.reason is None or not p.reason.repeated]
    assert len(set(chosen)) == len(chosen), sorted(chosen)


def server(action: str) -> None:
    subprocess.run([os.environ["SCALETUNE_POSTGRES_SERVER"], action], check=True)


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.slow)])
def test_a_study_killed_at_random_moments_asks_the_same_bit_for_bit(
    tmp_path: Path, database: Callable[[], str], kills: int
) -> None:
    live_to_the_end(tmp_path / "calm", 12)  # on SQLite: where it is kept changes nothing
    folders = (folder_on(tmp_path / f"killed{i}", database()) for i in count())
    killed = check_the_same_however_often_killed(history(tmp_path / "calm"), folders, kills=kills)
    assert killed == kills


@pytest.mark.slow
def test_killed_workers_lose_no_result_and_double_none(
    tmp_path: Path, database: Callable[[], str]
) -> None:
    folders = (folder_on(tmp_path / f"killed{i}", database()) for i in count())
    check_killed_workers(folders, kills=100)


def test_eight_drivers_share_a_study_without_a_duplicate(
    tmp_path: Path, database: Callable[[], str]
) -> None:
    trials, folder = 24, folder_on(tmp_path / "shared", database())
    lives = start_together(folder, trials, 8)
    try:
        assert all(life.wait_for("done", 300.0) for life in lives)
    finally:
        for life in lives:
            life.end()
    after = history(folder)
    assert after.twice == []
    assert trials <= len(after.finished) <= trials + 7
    assert len({driver for driver, _ in after.finished}) >= 6  # each had something to do
    log = load_result("victim", storage=(folder / "storage.txt").read_text()).log
    done = [log.trial(o.number) for o in log.observations if o.cause is not Cause.LOST]
    assert_none_twice([(t.prediction, tuple(sorted(t.config.items()))) for t in done])


def test_a_killed_driver_is_taken_over_by_another_that_runs(
    tmp_path: Path, database: Callable[[], str]
) -> None:
    trials, folder = 16, folder_on(tmp_path / "shared", database())
    doomed, other = start_together(folder, trials, 2)
    try:
        assert doomed.wait_for("told") and other.wait_for("told")
        assert doomed.end()
        assert other.wait_for("done")
    finally:
        doomed.end()
        other.end()
    after = history(folder)
    assert after.twice == []
    assert trials <= len(after.finished) <= trials + 1
    assert {driver for driver, _ in after.finished} == {0, 1}
    told = {repr(loss) for _, _, loss, _ in after.finished.values()}
    assert {*doomed.told.values(), *other.told.values()} <= told


def test_a_server_that_goes_away_for_a_while_is_waited_for(
    tmp_path: Path, database: Callable[[], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    away = 30.0 if os.environ.get("SCALETUNE_LONG") else 6.0
    monkeypatch.chdir(tmp_path)
    outage, gone = threading.Event(), threading.Event()

    def cut() -> None:
        outage.wait()
        server("stop")
        gone.set()
        time.sleep(away)
        server("start")

    def train(config: dict[str, Any], ctx: Context) -> float:
        if ctx.trial.number == 2:
            outage.set()
            gone.wait()  # so this trial is told to a server that is not there
        return float(config["x"])

    url = database()
    thread = threading.Thread(target=cut)
    thread.start()
    try:
        result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=6), name="s", storage=url)
    finally:
        outage.set()
        thread.join()
    assert len(result.to_pandas()) == 6
    numbers = [t.number for t in optuna.load_study(study_name="s", storage=url).trials]
    assert numbers == list(range(6))


@pytest.mark.slow
def test_a_server_that_comes_and_goes_loses_no_result_and_doubles_none(
    tmp_path: Path, database: Callable[[], str]
) -> None:
    rng, trials, folder = random.Random(0), 40, folder_on(tmp_path / "shared", database())
    lives = start_together(folder, trials, 2)
    try:
        for _ in range(10):
            time.sleep(rng.uniform(1.0, 3.0))
            server("stop")
            server("start")
        assert not any("done" in life.said for life in lives)
        assert all(life.wait_for("done", 300.0) for life in lives)
    finally:
        for life in lives:
            life.end()
    after = history(folder)
    assert after.twice == []
    assert trials <= len(after.finished) <= trials + 1
    told = {repr(loss) for _, _, loss, _ in after.finished.values()}
    assert {loss for life in lives for loss in life.told.values()} <= told


def test_a_call_cut_off_in_its_middle_is_made_again(
    database: Callable[[], str],
) -> None:
    url = database()
    storage = RDBStorage(url, engine_kwargs={"pool_pre_ping": True})
    space, cuts = SearchSpace({"x": Float(0, 1)}), list[str]()

    @event.listens_for(storage.engine, "before_cursor_execute")
    def cut(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if cuts and cuts[0] in statement:
            cuts.clear()
            other = create_engine(url)
            with other.connect() as killer:
                pid = connection.connection.dbapi_connection.info.backend_pid
                killer.execute(text(f"SELECT pg_terminate_backend({pid}, 10000)"))
            other.dispose()

    study = StudyStorage.open(
        name="s", storage=storage, space=space, direction="minimize", cost=None, seed=0
    )
    distributions = space.distributions({"x": 0.5}, {})
    lease = Lease.take()
    trial = study.ask(Asked(0, 0, lease.owner, after=0), {"x": 0.5}, distributions)
    told = Observation(trial.number, trial.config, 0.25, None, Status.COMPLETED, None, 0, 0)

    def cutting(call: Callable[[], Any], where: str = "") -> Any:
        cuts.append(where)
        try:
            return call()
        finally:
            assert not cuts

    assert len(cutting(study.entries)) == 1
    cutting(study.owners)
    cutting(lambda: study.report(trial.number, Report(1, 0.5)))
    assert cutting(lambda: study.tell(told, driven=1.0, text=""))
    (entry,) = study.entries()
    assert entry.observation == told and not entry.open
    asked = Asked(1, 0, lease.owner, 1)
    second = cutting(lambda: study.ask(asked, {"x": 0.1}, distributions), "INSERT INTO trials")
    assert cutting(lambda: study.mark_lost(second.number, order=1), "UPDATE trials")
    assert [(entry.open, entry.lost) for entry in study.entries()] == [
        (False, False),
        (False, True),
    ]


def test_six_drivers_that_start_together_on_an_empty_database_share_one_study(
    database: Callable[[], str], tmp_path: Path
) -> None:
    url = database()
    start_drivers(url, tmp_path, 6)
    check_whole(url, 6)


@pytest.mark.parametrize("high", [None, 10**12])
def test_steps_beyond_the_integers_of_the_database_cost_no_trial(
    database: Callable[[], str], high: int | None
) -> None:
    url, space = database(), {"x": Float(0, 1)}

    def train(config: dict[str, Any], ctx: Context) -> float:
        ctx.report(step=10**9, loss=0.9)
        time.sleep(0.25)  # one intermediate value in a while
        ctx.report(step=5 * 10**9, loss=0.5)
        return float(config["x"])

    result = optimize(
        train,
        space if high is None else {**space, "tokens": Fidelity(1, high)},
        budget=Budget(trials=2),
        name="s",
        storage=url,
    )
    assert [o.cause for o in result.log.observations] == [None] * 2
    assert [r.step for r in load_result("s", storage=url).log.reports(0)] == [10**9, 5 * 10**9]
    shown = optuna.load_study(study_name="s", storage=url).trials[0].intermediate_values
    assert shown == ({10**9: 0.9} if high is None else {10**6: 0.9, 5 * 10**6: 0.5})


def test_drivers_that_wait_for_a_server_longer_than_a_lease_lasts_keep_their_trials(
    database: Callable[[], str], tmp_path: Path
) -> None:
    url = database()
    script = (
        "import sys, time, hpo.study.lease as lease\n"
        "lease.DURATION, lease.RENEWAL = 2.0, 0.4\n"
        "from hpo import Budget, Float, optimize\n"
        "def train(config, ctx):\n"
        "    print('training', flush=True)\n"
        "    time.sleep(1.0)\n"
        "    return config['x']\n"
        "optimize(train, {'x': Float(0, 1)}, budget=Budget(trials=8), name='s',\n"
        "         storage=sys.argv[1])\n"
    )
    drivers = [
        subprocess.Popen(
            [sys.executable, "-c", script, url],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            cwd=tmp_path,
            text=True,
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for driver in drivers:
        assert driver.stdout is not None and driver.stdout.readline() == "training\n"
    server("stop")
    time.sleep(6.0)  # three times as long as a lease
    server("start")
    for driver in drivers:
        driver.communicate(timeout=120)
        assert driver.returncode == 0
    result = load_result("s", storage=url)
    assert not result.log.pending and not any(o.cause for o in result.log.observations)
    assert 8 <= len(result.log) <= 9


def test_a_wrong_password_is_one_clear_error_at_once(database: Callable[[], str]) -> None:
    url = make_url(database()).set(password="wrong").render_as_string(hide_password=False)
    began = time.monotonic()
    with pytest.raises(StudyError, match="cannot be used") as refused:
        optimize(
            lambda config, ctx: 0.0,
            {"x": Float(0, 1)},
            budget=Budget(trials=1),
            name="s",
            storage=url,
        )
    assert time.monotonic() - began < 10
    assert ":wrong@" not in str(refused.value)  # no password in a log


def test_optuna_workers_on_other_processes_share_the_sampler(database: Callable[[], str]) -> None:
    """`study.optimize` in four processes with the sampler of one seed: no config twice."""
    url = database()
    optuna.create_study(storage=url, study_name="s")
    script = (
        "import optuna, sys\n"
        "from hpo.adapters.optuna import ScaleTuneSampler\n"
        "study = optuna.load_study(study_name='s', storage=sys.argv[1],\n"
        "                          sampler=ScaleTuneSampler(seed=0))\n"
        "study.optimize(lambda t: (t.suggest_float('x', 0, 1) - 0.3) ** 2\n"
        "               + (t.suggest_float('y', 0, 1) - 0.6) ** 2, 6)\n"
    )
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", script, url],
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stderr=subprocess.DEVNULL,
        )
        for _ in range(4)
    ]
    assert [worker.wait(300) for worker in workers] == [0] * 4
    trials = optuna.load_study(study_name="s", storage=url).trials
    assert len(trials) == 24
    assert_none_twice([(prediction_of(t), tuple(t.params.values())) for t in trials])
