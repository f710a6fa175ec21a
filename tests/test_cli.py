"""`scaletune` as users type it."""

from __future__ import annotations

import math
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hpo
from hpo import Axis, Budget, Float, Role, Scale, StudyError, load_result, optimize
from hpo.cli import main

SPACE = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "params": Scale(1e4, 1e6, axis=Axis.PARAMS),
}


def loss(lr: float, params: float) -> float:
    t = math.log(lr / 3e-3) + 0.5 * math.log(params / 1e5)
    return 1.5 + 20 * params**-0.3 + 0.05 * t**2


def train(config: dict[str, Any], ctx: Any) -> float:
    return loss(config["lr"], config["params"])


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    rows = [
        f"{lr},{params},{loss(lr, params)}"
        for lr in np.geomspace(1e-4, 1e-1, 8)
        for params in (1e4, 1e5, 1e6)
    ]
    path = tmp_path / "sweep.csv"
    path.write_text("\n".join(["lr,params,loss", *rows]))
    monkeypatch.chdir(tmp_path)
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    """The exit code of ``scaletune ARGUMENTS``, or the line it ends with."""
    monkeypatch.setattr(sys, "argv", ["scaletune", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_a_csv_file_gets_verdicts_and_a_picture(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "check-transfer", sweep, "--prior", "MuP") == 0
    printed = capsys.readouterr().out
    assert "tuned: lr (log, role lr)" in printed
    assert "drifts: the best lr falls" in printed and "rules said +0.000 +- 0.2" in printed
    assert (sweep.parent / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_a_stored_study_gets_the_same_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    storage = f"sqlite:///{tmp_path / 'runs.db'}"
    told = optimize(train, SPACE, budget=Budget(trials=6), name="a", storage=storage)
    read = load_result("a", storage=storage)
    assert read.log.observations == told.log.observations
    assert read.space.fingerprint() == told.space.fingerprint()
    assert read.recommend() == told.recommend()
    before = (tmp_path / "runs.db").read_bytes()
    arguments = ("check-transfer", "--name", "a", "--storage", storage)
    assert run(monkeypatch, *arguments, "--picture", "a.png") == 0
    assert "6 completed runs" in capsys.readouterr().out
    assert (tmp_path / "a.png").exists()
    assert (tmp_path / "runs.db").read_bytes() == before  # nothing was written


def test_a_study_that_does_not_exist_is_refused_and_no_file_is_made(tmp_path: Path) -> None:
    storage = f"sqlite:///{tmp_path / 'none.db'}"
    with pytest.raises(StudyError, match="there is no file"):
        load_result("a", storage=storage)
    assert not (tmp_path / "none.db").exists()
    optimize(train, SPACE, budget=Budget(trials=1), name="a", storage=storage)
    with pytest.raises(StudyError, match=r"no study 'b'.*it has \['a'\]"):
        load_result("b", storage=storage)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give either a CSV file or a stored study"),
        (("sweep.csv", "--name", "a"), "give either a CSV file or a stored study"),
        (("none.csv",), "No such file"),
        (("sweep.csv", "--storage", "sqlite:///a.db"), "--storage goes with --name"),
        (("--name", "a", "--loss", "y"), "describe a CSV"),
        (("sweep.csv", "--prior", "NuP"), "--prior must be one of"),
        (("sweep.csv", "--prior", "TokenHorizon"), "needs a scale axis"),
        (("sweep.csv", "--tolerance", "0"), "`tolerance` must be a finite number above 0"),
        (("sweep.csv", "--param", "lr:log:lr:lr"), "name:kind:role"),
    ],
)
def test_bad_input_ends_in_one_line_on_standard_error(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    line = run(monkeypatch, "check-transfer", *arguments)
    assert isinstance(line, str) and line.startswith("error: ")  # printed, and exit code 1
    assert message in line and "\n" not in line


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--param", "lr:log", "--param", "lr:linear"), "`--param` must name each column once"),
        (("--param", "lr", "--param", "lr"), "`--param` must name each column once"),
        (("--scale", "params", "--scale", "params:tokens"), "`--scale` must name each column once"),
        (("--prior", "MuP", "--prior", "MuP"), "--prior must name each rule once, got MuP again"),
    ],
)
def test_what_is_said_twice_is_refused(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], said: str
) -> None:
    assert said in str(run(monkeypatch, "check-transfer", sweep, *arguments))


@pytest.mark.parametrize("lr", ["0", "0.0", "-0.01", "nan", "inf"])
@pytest.mark.parametrize("probe", [(), ("package.module:function",)], ids=["built-in", "own"])
def test_a_learning_rate_that_is_not_positive_is_refused_and_not_replaced(
    monkeypatch: pytest.MonkeyPatch, lr: str, probe: tuple[str, ...]
) -> None:
    ended = str(run(monkeypatch, "coord-check", *probe, "--lr", lr))
    assert "--lr must be finite and > 0" in ended


def test_the_version_is_printed_by_the_command_the_module_and_the_package(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"scaletune {hpo.__version__}\n"
    assert version("scaletune") == hpo.__version__
    assert import_module("hpo.__main__").main is main
