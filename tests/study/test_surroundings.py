"""Folders, names and terminals as they come: unicode, spaces, vanished, unwritable, closed."""

import io
import os
import pty
import signal
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from optuna.storages import InMemoryStorage
from rich.console import Console

from hpo import Budget, Context, InlineRunner, ProcessRunner, StudyError, optimize
from hpo.study.checkpoints import bounded
from hpo.study.progress import Progress
from hpo.study.runners import Runner
from tests.study.studies import SPACE, Config

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # else each worker imports this file

REPOSITORY = Path(__file__).parents[2]
NAMES = ["研" * 29, "究 ü/../\"'<b>", "a" * 200]


@pytest.fixture(params=[InlineRunner, ProcessRunner])
def runner(request: pytest.FixtureRequest) -> Runner:
    made: Runner = request.param()
    return made


def saves(config: Config, ctx: Context) -> float:
    ctx.save({"step": 1})
    ctx.report(step=1, loss=1.0)
    assert ctx.load() == {"step": 1}
    return float(config["x"] ** 2)


def told(runner: Runner, **arguments: Any) -> int:
    result = optimize(saves, SPACE, budget=Budget(trials=2), runner=runner, **arguments)
    return sum(o.cause is None for o in result.log.observations)


@pytest.mark.parametrize("name", NAMES)
def test_any_name_has_checkpoints_in_a_folder_of_any_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner, name: str
) -> None:
    folder = tmp_path / " a ü 研 %20"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("HOME", raising=False)
    assert told(runner, name=name) == 2
    assert sorted(path.name for path in folder.iterdir()) == [
        "scaletune.db",
        "scaletune_checkpoints",
    ]


def test_a_file_name_is_shortened_by_its_bytes_in_every_locale() -> None:
    for stem in ("研" * 200, "a" * 300, "\udcff" * 300):
        short = bounded(stem, "_checkpoints")
        assert len(short.encode()) <= 255 and short.endswith("_checkpoints")


@pytest.fixture
def vanished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory that has been deleted."""
    told(InlineRunner(), name="before", storage=InMemoryStorage())  # libraries load from a folder
    folder = tmp_path / "gone"
    folder.mkdir()
    monkeypatch.chdir(folder)
    folder.rmdir()
    return folder


def test_a_vanished_working_directory_is_named_where_it_is_needed(
    vanished: Path, tmp_path: Path
) -> None:
    kept = f"sqlite:///{tmp_path / 'kept.db'}"
    with pytest.raises(StudyError, match="working directory.* has been deleted; change to one"):
        told(ProcessRunner(), name="m", storage=kept)
    with pytest.raises(StudyError, match="working directory.* has been deleted; change to one"):
        told(InlineRunner(), name="n", storage=InMemoryStorage())
    with pytest.raises(StudyError, match="make sure that its folder exists"):
        told(InlineRunner(), name="n")


def test_an_unwritable_working_directory_is_refused_by_name_unless_nothing_is_written_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runner: Runner
) -> None:
    monkeypatch.chdir("/proc")
    with pytest.raises(StudyError, match="make sure that its folder exists and can be written"):
        told(runner, name="n")
    assert told(runner, name="n", storage=f"sqlite:///{tmp_path / 'kept.db'}") == 2


def test_a_file_that_exists_but_holds_no_text_is_not_this_process_problem(tmp_path: Path) -> None:
    (tmp_path / "kept_checkpoints").write_text("a file where the folder would be")
    with pytest.raises(StudyError, match="kept_checkpoints"):
        told(InlineRunner(), name="n", storage=f"sqlite:///{tmp_path / 'kept.db'}")


# --- terminals ------------------------------------------------------------------------------------


class Terminal(io.TextIOWrapper):
    """A terminal of an old encoding."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("state", ["ascii", "latin-1", "closed", "full", None])
def test_a_view_that_the_terminal_cannot_show_ends_no_study(
    state: str | None, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full(io.RawIOBase):
        def writable(self) -> bool:
            return True

        def write(self, data: object) -> int:
            raise BrokenPipeError

    raw = io.BytesIO()
    encoding = state if state in ("ascii", "latin-1") else "utf-8"
    stream = Terminal(io.BufferedWriter(Full()) if state == "full" else raw, encoding=encoding)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", None if state is None else stream)

    def train(config: Config, ctx: Context) -> float:
        if state == "closed" and ctx.trial.number == 0:
            stream.detach()
        return float(config["x"])

    result = optimize(train, SPACE, budget=Budget(trials=2), name="研究", cost=None)
    assert [o.cause for o in result.log.observations] == [None, None]
    if state == "ascii":
        assert b"\\u7814\\u7a76" in raw.getvalue()


def test_a_console_of_the_users_own_is_used_as_it_is() -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    view = Progress(console=console)
    optimize(lambda config, ctx: 0.0, SPACE, budget=Budget(trials=1), callbacks=[view])
    assert "trials" in console.file.getvalue()  # type: ignore[attr-defined]


def drain(descriptor: int) -> None:
    """Read what is written to a terminal, so that nobody waits for a reader."""
    with suppress(OSError):
        while os.read(descriptor, 4096):
            pass


@pytest.mark.engine
@pytest.mark.parametrize("workers", [1, 2])
def test_a_study_of_any_name_runs_in_the_c_locale_on_a_terminal(
    tmp_path: Path, workers: int
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
            import sys
            from hpo import Budget, Float, load_result, optimize

            def train(config, ctx):
                ctx.save({"step": 1})
                ctx.report(step=1, loss=1.0)
                return config["\\u03b7"]

            name = "\\u7814\\u7a76"
            result = optimize(train, {"\\u03b7": Float(0, 1)}, budget=Budget(trials=2),
                              workers=int(sys.argv[1]), name=name)
            assert len(load_result(name).log.observations) == 2
            repr(result)
        """)
    )
    main, terminal = pty.openpty()
    reader = threading.Thread(target=drain, args=(main,), daemon=True)
    reader.start()
    ended = subprocess.run(
        [sys.executable, str(script), str(workers)],
        cwd=tmp_path,
        env=os.environ
        | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "TERM": "xterm"}
        | {"PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.DEVNULL,
        stdout=terminal,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(terminal)
    reader.join()
    os.close(main)
    assert ended.returncode == 0, ended.stderr


STUDY = """
    import multiprocessing, os, sys, time
    from hpo import Budget, Float, optimize

    def train(config, ctx):
        for step in range(1, 400 if os.environ.get("LONG") and ctx.trial.number >= 2 else 3):
            ctx.save({"step": step})
            open(f"begun-{ctx.trial.number}", "w").close()
            if os.environ.get("LONG"):
                time.sleep(0.02)
            ctx.report(step=step, loss=config["x"])
        return config["x"]

    if __name__ == "__main__":
        if os.environ.get("SPAWN"):
            multiprocessing.set_start_method("spawn")
        budget = Budget(trials=4)
        result = optimize(train, {"x": Float(0, 1)}, budget=budget, workers=2, name="n", seed=0)
        with open("told", "w") as file:
            file.write(str(sum(o.cause is None for o in result.log.observations)))
"""


def started(folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
    """The script above in a process of its own, in `folder`."""
    (folder / "study.py").write_text(textwrap.dedent(STUDY))
    closed = "closed" in environment
    return subprocess.Popen(
        [sys.executable, "study.py"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | environment,
        stdin=subprocess.DEVNULL,
        preexec_fn=(lambda: (os.close(1), os.close(2))) if closed else None,
    )


@pytest.mark.engine
@pytest.mark.parametrize("environment", [{"SPAWN": "1"}, {"closed": "1"}])
def test_a_study_runs_under_spawn_and_without_any_output(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    assert started(tmp_path, **environment).wait(120) == 0
    assert (tmp_path / "told").read_text() == "4"


@pytest.mark.engine
def test_a_second_interrupt_ends_a_study_at_once_and_the_next_call_goes_on(tmp_path: Path) -> None:
    process = started(tmp_path, LONG="1")
    until = time.monotonic() + 60
    while not (tmp_path / "begun-2").exists() and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    with suppress(ProcessLookupError):
        process.send_signal(signal.SIGINT)
    process.wait(30)
    assert started(tmp_path).wait(120) == 0
    assert (tmp_path / "told").read_text() == "4"
    assert not list((tmp_path / "scaletune_checkpoints").glob("*/[0-9]*"))  # none is left over
