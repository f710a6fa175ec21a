"""The password of a storage URL stands in no message, repr, log line or process list."""

import logging
import subprocess
import traceback
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from optuna.storages import InMemoryStorage, RDBStorage

from hpo import ASHA, Budget, Context, Fidelity, Float, StudyError, load_result, optimize
from hpo.study.storage import _Where, without_password

SECRET = "hunter2secret"
SPACE = {"x": Float(0.0, 1.0)}
URLS = [
    f"me:{SECRET}@host/runs",
    f"host/runs?password={SECRET}",
    f"password={SECRET} host=localhost dbname=runs",
    f"sqlite://me:{SECRET}@host/runs",
    f"postgresql://me:%68unter2secret@127.0.0.1:1/runs?options={SECRET}",
    f"postgresql://me:{SECRET}@127.0.0.1:1/runs",
    f"postgresql://me:{SECRET}@127.0.0.1:port/runs",
    f"postgresql://me:a@{SECRET}@127.0.0.1/runs",
    f"postgresql://me:a/{SECRET}@b@127.0.0.1/runs",
    f"postgresql+psycopg2://127.0.0.1:1/runs?user=me&password={SECRET}",
    f"postgresql+psycopg2://127.0.0.1:1/runs?connect_timeout={SECRET}",
    f"mysql+nosuchdriver://me:{SECRET}@127.0.0.1/runs",
    f"nosuchdatabase://me:{SECRET}@127.0.0.1/runs",
    f"redis://:{SECRET}@127.0.0.1:1/0",
    f"sqlite+pysqlcipher://:{SECRET}@/{{folder}}/a.db?cipher={SECRET}",
]


def train(config: dict[str, Any], ctx: Context) -> float:
    return float(config["x"])


@pytest.mark.parametrize("url", URLS)
@pytest.mark.parametrize("named", [True, False])
def test_no_message_traceback_or_log_tells_the_password(
    url: str,
    named: bool,
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hpo.study.storage._SERVER_PATIENCE", 0.0)
    caplog.set_level(logging.DEBUG)
    name = "s" if named else None
    calls: list[Callable[[], object]] = [
        lambda: optimize(train, SPACE, budget=Budget(trials=1), name=name, storage=url)
    ]
    if named:
        calls.append(lambda: load_result("s", storage=url))
    for call in calls:
        with pytest.raises((StudyError, ValueError)) as refused:
            call()
        assert SECRET not in "".join(traceback.format_exception(refused.value))
        assert "storage" in str(refused.value)
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://me:{SECRET}@host/runs",
        f"postgresql://me:%68unter2secret@host/runs?token={SECRET}",
        f"mssql+pyodbc:///?odbc_connect=DSN%3Druns%3BPWD%3D{SECRET}%3B",
        f"redis://:{SECRET}@host:1/0",
    ],
)
def test_a_secret_is_found_however_the_url_holds_it(url: str) -> None:
    where = _Where.of(url)
    assert (
        where.without_secrets(f"login of me with {SECRET} failed") == "login of me with *** failed"
    )
    assert SECRET not in where.without_secrets(f"cannot open {url}")


def test_a_journal_in_redis_is_known_by_its_url() -> None:
    class Journal(InMemoryStorage):
        _backend = SimpleNamespace(_url=f"redis://:{SECRET}@host:1/0")

    assert str(_Where.of(Journal())) == "redis://:***@host:1/0"
    assert _Where.of(Journal()).without_secrets(SECRET) == "***"


def test_a_stored_traceback_and_the_log_of_a_failed_trial_do_not_tell_the_password(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite+pysqlite:///{folder}/a.db"
    storage = RDBStorage(url)
    storage.url = f"postgresql://me:{SECRET}@host/runs"  # an SQLite file behind a server's URL

    def failing(config: dict[str, Any], ctx: Context) -> float:
        raise OSError(f"cannot connect to postgresql://me:{SECRET}@host/runs")

    result = optimize(failing, SPACE, budget=Budget(trials=1), name="s", storage=storage)
    assert result.study is not None
    (trial,) = result.study.trials
    assert "cannot connect to" in str(trial.user_attrs)
    for text in (str(trial.user_attrs), caplog.text, result.to_pandas().to_string()):
        assert SECRET not in text
    assert SECRET.encode() not in (folder / "a.db").read_bytes()


@pytest.mark.parametrize("url", URLS)
def test_a_url_is_shown_without_its_password_and_with_the_rest_that_can_be_told(url: str) -> None:
    assert SECRET not in without_password(url)
    assert "***" in without_password(url)
    assert without_password("sqlite:///a@b:c.db") == "sqlite:///a@b:c.db"
    assert (
        without_password("postgresql://me:x%40y@host:5/runs") == "postgresql://me:***@host:5/runs"
    )


def test_a_result_its_study_and_what_extends_it_do_not_show_the_password(folder: Path) -> None:
    class Disguised(RDBStorage):
        """An SQLite file behind the URL of a server."""

        def __init__(self) -> None:
            super().__init__(f"sqlite:///{folder}/a.db")
            self.url = f"postgresql://me:{SECRET}@host/runs"

        def get_study_id_from_name(self, *arguments: Any, **named: Any) -> Any:
            if self.broken:
                raise OSError(f"no answer from me:{SECRET}@host")
            return super().get_study_id_from_name(*arguments, **named)

        broken = False

    storage = Disguised()

    def steps(config: dict[str, Any], ctx: Context) -> float:
        assert ctx.fidelity is not None
        return float(config["x"])

    result = optimize(
        steps,
        {**SPACE, "epochs": Fidelity(1, 3)},
        scheduler=ASHA(),
        budget=Budget(trials=2),
        name="s",
        storage=storage,
    )
    assert result.onward is not None
    for shown_text in (
        repr(result),
        repr(result.onward),
        str(vars(result.onward)),
        repr(result.study),
    ):
        assert SECRET not in shown_text
    storage.broken = True
    with pytest.raises(StudyError, match=r"postgresql://me:\*\*\*@host/runs") as refused:
        load_result("s", storage=storage)
    assert SECRET not in "".join(traceback.format_exception(refused.value))


def test_no_process_of_a_study_has_the_password_in_its_arguments_or_environment(
    folder: Path,
) -> None:
    secret_file = f"sqlite:///{folder}/{SECRET}.db"  # stands for a password in the URL
    listings: list[str] = []

    def listing(config: dict[str, Any], ctx: Context) -> float:
        (folder / f"listing{ctx.trial.number}").write_text(
            subprocess.run(["ps", "-axwwe", "-o", "args"], capture_output=True, text=True).stdout
        )
        return float(config["x"])

    optimize(listing, SPACE, budget=Budget(trials=2), workers=2, name="s", storage=secret_file)
    listings = [path.read_text() for path in folder.glob("listing*")]
    assert len(listings) == 2 and "python" in listings[0]
    assert not any(SECRET in line for line in "".join(listings).splitlines())
