"""What all commands share: options stated once, exit codes, start-up, completion."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.cli.options import AsJSON, BudgetOptions, StudyOptions, command

ROOT = Path(__file__).parent.parent.parent
SECONDS = 0.5  # of processor time for `--help`
CODE = "import sys; sys.argv[0] = 'scaletune'; from hpo.cli import main; main()"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CODE, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def processor_time(*command: str) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_group_becomes_options_and_arrives_whole() -> None:
    got: list[object] = []

    def act(study: StudyOptions, limits: BudgetOptions, as_json: AsJSON = False) -> None:
        got.extend([study, limits, as_json])

    command(act)(name="a", storage=None, budget=["trials=3"], per_trial=None, as_json=True)
    assert got == [StudyOptions("a", None), BudgetOptions(["trials=3"], None), True]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ValueError("so\nlong\n\nTraceback ..."), "error: so long"),
        (KeyboardInterrupt(), 130),
        (BrokenPipeError(), 141),
    ],
    ids=["refused", "interrupted", "pipe"],
)
def test_each_end_has_its_exit_code(error: BaseException, code: object) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        command(fail)()
    assert ended.value.code == code


def test_our_own_mistakes_keep_their_traceback() -> None:
    def fail() -> None:
        raise AssertionError("a bug")

    with pytest.raises(AssertionError, match="a bug"):
        command(fail)()


def test_help_takes_half_a_second_or_twice_what_its_libraries_take() -> None:
    script = [sys.executable, "-c", CODE, "--help"]
    libraries = [sys.executable, "-c", "import numpy, typer.rich_utils"]
    times = [(processor_time(*script), processor_time(*libraries)) for _ in range(3)]
    assert any(ours < SECONDS or ours < 2 * theirs for ours, theirs in times), times


def test_a_shell_completes_commands_and_names() -> None:
    words = {"COMP_WORDS": "scaletune ex", "COMP_CWORD": "1"}
    assert run(_SCALETUNE_COMPLETE="complete_bash", **words).stdout.split() == ["export"]
    words = {"COMP_WORDS": "scaletune optimize --scheduler Hyp", "COMP_CWORD": "3"}
    assert run(_SCALETUNE_COMPLETE="complete_bash", **words).stdout.split() == ["Hyperband"]
