"""What holds checkpoints or a study is for its owner only, whatever the umask."""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hpo import ASHA, Budget, Context, Fidelity, Float, optimize
from hpo.study.checkpoints import make_private, save_state

SPACE: dict[str, Any] = {"x": Float(0.0, 1.0), "epochs": Fidelity(1, 3)}


@pytest.fixture(params=[0o000, 0o777], ids=["umask-0", "umask-777"])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def keeping(config: dict[str, Any], ctx: Context) -> float:
    assert ctx.fidelity is not None and ctx.checkpoint_dir is not None
    ctx.save({"x": config["x"]})
    ctx.save({"x": config["x"]})
    ctx.report(step=ctx.fidelity, loss=config["x"])
    return float(config["x"])


def test_the_files_of_a_study_are_for_their_owner_only(folder: Path, umask: int) -> None:
    optimize(keeping, SPACE, budget=Budget(trials=6), scheduler=ASHA(), warm_start=True, name="s")
    made = [folder / "scaletune.db", *(folder / "scaletune_checkpoints").rglob("*")]
    names = {path.name for path in made}
    assert {"state.pt", ".scaletune.json", "best", "scaletune.db"} <= names
    assert {mode(path) for path in made if path.is_file()} == {0o600}
    folders = [folder / "scaletune_checkpoints", *(path for path in made if path.is_dir())]
    assert {mode(path) for path in folders} == {0o700}


@pytest.mark.parametrize(
    "url", ["sqlite:///{}/a b.db", "sqlite:///file:{}/u.db?uri=true", "sqlite+pysqlite:///{}/p.db"]
)
def test_an_sqlite_file_is_for_its_owner_only_whatever_names_it(url: str, folder: Path) -> None:
    before = os.umask(0)
    try:
        storage = url.format(folder)
        optimize(
            lambda c, ctx: c["x"],
            {"x": Float(0, 1)},
            budget=Budget(trials=1),
            name="s",
            storage=storage,
        )
    finally:
        os.umask(before)
    (file,) = [path for path in folder.iterdir() if path.suffix == ".db"]
    assert mode(file) == 0o600 and file.stat().st_size > 0


def test_a_file_that_was_there_keeps_its_permissions(folder: Path) -> None:
    file = folder / "shared.db"
    with closing(sqlite3.connect(file)):
        file.touch()
    file.chmod(0o660)
    optimize(
        lambda c, ctx: c["x"],
        {"x": Float(0, 1)},
        budget=Budget(trials=1),
        name="s",
        storage=f"sqlite:///{file}",
    )
    assert mode(file) == 0o660


def test_only_missing_folders_are_made_private(tmp_path: Path, umask: int) -> None:
    there = tmp_path / "there"
    there.mkdir()
    there.chmod(0o755)
    make_private(there / "a" / "b")
    make_private(there / "a" / "b")
    assert [mode(path) for path in (there, there / "a", there / "a" / "b")] == [0o755, 0o700, 0o700]


def test_a_state_saved_outside_of_a_study_is_for_its_owner_only(tmp_path: Path, umask: int) -> None:
    save_state(tmp_path / "0", {"step": 1}, seconds=0.0)
    assert mode(tmp_path / "0") == 0o700 and mode(tmp_path / "0" / "state.pt") == 0o600
