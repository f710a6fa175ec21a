"""Names and paths of users: each is escaped once, wherever it goes."""

import io
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from hpo import Budget, Context, Float, StudyError, load_result, optimize
from hpo.study.checkpoints import LONGEST_FILE_NAME, bounded, study_folder
from hpo.study.progress import Progress
from hpo.study.storage import sqlite_file

SPACE = {"x": Float(0.0, 1.0)}


def saving(config: dict[str, Any], ctx: Context) -> float:
    ctx.save({"x": config["x"]})
    assert ctx.load() is not None
    return float(config["x"])


@pytest.mark.parametrize(
    "name",
    ["[/red]", "run[/]", "[bold]", "<b>&", "長" * 120, "é/../..", "a\\b", "'\"; --", "%20?#"],
)
def test_a_study_of_any_name_is_shown_saved_stored_and_found_again(name: str, folder: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=400, color_system=None)
    result = optimize(
        saving, SPACE, budget=Budget(trials=2), name=name, callbacks=[Progress(console=console)]
    )
    assert [o.cause for o in result.log.observations] == [None, None]
    assert "".join(f"scaletune{name}".split()) in "".join(screen.getvalue().split())
    assert load_result(name).best == result.best
    assert {path.name for path in folder.iterdir()} == {"scaletune.db", "scaletune_checkpoints"}


@pytest.mark.parametrize("bad", ["a\ud800b", "a\0b", "", "x" * 201])
def test_a_name_that_no_database_holds_is_refused_before_anything_is_written(
    bad: str, folder: Path
) -> None:
    with pytest.raises(ValueError, match="^name must"):
        optimize(saving, SPACE, budget=Budget(trials=1), name=bad)
    with pytest.raises(ValueError, match="^name must"):
        load_result(bad)
    with pytest.raises(ValueError, match="^storage must"):
        optimize(saving, SPACE, budget=Budget(trials=1), name="s", storage="sqlite:///a\ud800.db")
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    "file",
    [
        "a%20b.db",
        "a?b.db",
        "{a}.db",
        "a{.db",
        "a#b.db",
        "me:x@y.db",
        "100%.db",
        "é ü.db",
        "a?b=c.db",
        "a%2520b.db",
        "%41.db",
    ],
)
def test_a_url_opens_the_very_file_that_its_path_names(file: str, folder: Path) -> None:
    url = f"sqlite:///{folder / file}"
    result = optimize(saving, SPACE, budget=Budget(trials=1), name="s", storage=url)
    assert {path.name for path in folder.iterdir()} == {file, f"{Path(file).stem}_checkpoints"}
    assert load_result("s", storage=url).best == result.best
    with pytest.raises(StudyError, match="there is no file"):
        load_result("s", storage=f"sqlite:///{folder}/other%20.db")


def test_options_of_a_url_are_not_part_of_the_path(folder: Path) -> None:
    assert sqlite_file("sqlite:///a.db?timeout=5&uri=true") == Path("a.db")
    assert sqlite_file("sqlite:///a.db?color=red") == Path("a.db?color=red")
    for url in (
        "sqlite://",
        "sqlite:///:memory:",
        "sqlite:///file:a.db?uri=true",
        "mysql://h/a.db",
    ):
        assert sqlite_file(url) is None
    optimize(saving, SPACE, budget=Budget(trials=1), name="s", storage="sqlite:///a.db?timeout=5")
    assert (folder / "a.db").is_file()


def test_a_file_that_is_there_may_be_named_with_its_letters_quoted(folder: Path) -> None:
    written = f"sqlite:///{folder}/my runs.db"
    result = optimize(saving, SPACE, budget=Budget(trials=1), name="s", storage=written)
    quoted = written.replace(" ", "%20")
    assert load_result("s", storage=quoted).best == result.best
    with closing(sqlite3.connect(folder / "my%20runs.db")):  # from now on this one is meant
        pass
    (folder / "my%20runs.db").touch()
    with pytest.raises(StudyError, match="there is no study 's'"):
        load_result("s", storage=quoted)


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.text(max_size=300))
def test_every_name_of_a_folder_fits_into_a_file_system(text: str) -> None:
    name = study_folder(Path("base"), text, "0" * 32).name
    assert len(name.encode()) <= LONGEST_FILE_NAME and "/" not in name and name.isascii()
    stem = text.encode(errors="ignore").decode()
    fitting = bounded(stem, "_checkpoints")
    assert len(fitting.encode()) <= LONGEST_FILE_NAME and fitting.endswith("_checkpoints")
    assert fitting == f"{stem}_checkpoints" or fitting != bounded(f"{stem}x", "_checkpoints")


def test_checkpoints_lie_beside_a_file_with_the_longest_name(folder: Path) -> None:
    file = "長" * 81 + "a.db"  # 247 bytes, to which SQLite adds 8 while it writes
    result = optimize(
        saving, SPACE, budget=Budget(trials=1), name="s", storage=f"sqlite:///{folder}/{file}"
    )
    assert [o.cause for o in result.log.observations] == [None]
