"""The command line: every command is listed, and only the chosen one is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.__main__ import _COMMANDS, main

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("hpo", "numpy", "matplotlib", "optuna", "torch")


def test_the_help_lists_every_command_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from benchmarks.__main__ import main\n"
        "try:\n    main(['--help'])\n"
        f"except SystemExit: print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    *text, loaded = done.stdout.splitlines()
    assert loaded == "[]"
    listed = {line.split()[0] for line in text if line[:4].isspace() and line[4:5].isalpha()}
    assert listed == set(_COMMANDS)


@pytest.mark.parametrize("command", _COMMANDS)
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m benchmarks {command}")


def test_a_refused_command_has_status_two_and_names_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["curves", "nothing"]) == 2
    assert "`GROUP` must be one of" in capsys.readouterr().err


def test_an_unknown_command_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["nothing"])
    assert ended.value.code == 2
    assert "invalid choice: 'nothing'" in capsys.readouterr().err
