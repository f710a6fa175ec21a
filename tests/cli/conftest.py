"""`scaletune` as users type it, in this process."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hpo.cli import main

SPACE = """\
lr:        {type: float, low: 1e-4, high: 1e-1, log: true, role: lr}
optimizer: {type: categorical, choices: [adamw, sgd]}
momentum:  {type: float, low: 0.0, high: 0.99, when: {optimizer: [sgd]}}
"""
TRAIN = """\
import math, os, signal

SPACE = {}

def train(config, ctx):
    loss = 2 + (math.log(config["lr"]) + 6) ** 2 / 10 + 0.3 * (config["optimizer"] == "sgd")
    return {"loss": loss, "accuracy": math.exp(-loss)}

def interrupted(config, ctx):
    if ctx.trial.number == 2:
        signal.raise_signal(signal.SIGTERM)  # SIGINT may be ignored by the shell
    return config["lr"]

def diverging(config, ctx):
    return float("nan")

def raising(config, ctx):
    raise RuntimeError("no GPU")

def text(config, ctx):
    return "low"

def staged(config, ctx):
    for epoch in range(1, ctx.fidelity + 1):
        ctx.report(step=epoch, loss=config["lr"] / epoch)
    return config["lr"] / ctx.fidelity

not_callable = 3
"""


class Ended(NamedTuple):
    """Exit code, standard output and standard error."""

    code: int
    out: str
    err: str


Scaletune = Callable[..., Ended]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with the module `my_training` and a space."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.delitem(sys.modules, "my_training", raising=False)
    (tmp_path / "my_training.py").write_text(TRAIN)
    (tmp_path / "space.yaml").write_text(SPACE)
    return tmp_path


@pytest.fixture
def scaletune(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Scaletune:
    """Run `scaletune ARGUMENTS` in the working directory."""

    def run(*arguments: object) -> Ended:
        monkeypatch.setattr(sys, "argv", ["scaletune", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        code = ended.value.code
        if isinstance(code, str):  # as Python itself does
            return Ended(1, out, f"{err}{code}\n")
        return Ended(int(code or 0), out, err)

    return run
