"""`scaletune` as users type it."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
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


def test_a_csv_file_gets_a_recommendation_at_the_target(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("recommend", sweep, "--target", "params=1e8", "--plot", "law.png", "--holdout")
    assert run(monkeypatch, *arguments) == 0
    printed = capsys.readouterr().out
    assert "24 runs from sweep.csv: 24 completed" in printed
    assert "well-known name of a learning rate" in printed
    assert "Recommended at params 1e+08, 100 times the compute of the largest run" in printed
    assert "warning: the target needs 100 times" in printed
    assert "held-out runs in their 90 % intervals" in printed
    assert (sweep.parent / "law.png").read_bytes().startswith(b"\x89PNG")


def test_json_holds_what_the_text_says(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "recommend", sweep, "--target", "params=100M", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    advice = said["recommendation"]
    assert advice["target"] == {"params": 1e8}
    low, high = advice["intervals"]["lr"]
    assert low <= 3e-3 * 1e3**-0.5 <= high
    assert said["columns"][0]["column"] == "lr" and said["runs"] == 24
    assert run(monkeypatch, "law", sweep, "--json") == 0
    law = json.loads(capsys.readouterr().out)["law"]
    assert law["coefficients"][0]["name"] == "d ln lr / d ln params"
    assert {rule["name"] for rule in law["rules"]} > {"MuP", "none of them"}
    assert run(monkeypatch, "check-transfer", sweep, "--json") == 0
    assert json.loads(capsys.readouterr().out)["verdicts"][0]["verdict"] == "drifts"


@pytest.mark.parametrize("target", ["params=1e8", "N=1e8", "model size=100M", "n=0.1B"])
def test_a_target_takes_the_name_of_a_column_or_of_its_axis(
    sweep: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    target: str,
) -> None:
    sweep.write_text(sweep.read_text().replace("params", "N"))
    assert run(monkeypatch, "recommend", sweep, "--target", target) == 0
    assert "Recommended at N 1e+08" in capsys.readouterr().out


def test_a_law_and_a_report_are_written_from_a_csv_file(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "law", sweep) == 0
    assert "which published rule holds for these runs" in capsys.readouterr().out
    assert run(monkeypatch, "report", sweep, "--output", "page.html") == 0
    assert "report: page.html" in capsys.readouterr().out
    assert "Recommendation" in (sweep.parent / "page.html").read_text()


def test_an_optuna_study_of_another_sampler_is_a_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path / 'study.db'}"
    sampler = optuna.samplers.RandomSampler(seed=0)
    study = optuna.create_study(study_name="theirs", storage=url, sampler=sampler)
    study.optimize(lambda t: (math.log(t.suggest_float("lr", 1e-4, 1, log=True)) + 4) ** 2, 12)
    for arguments in (
        (url,),
        ("study.db",),
        (url, "--name", "theirs"),
        ("--name", "theirs", "--storage", url),
        (url, "--loss", "value", "--param", "lr"),
    ):
        assert run(monkeypatch, "recommend", *arguments) == 0
        assert "predicted loss" in capsys.readouterr().out


def test_output_that_nobody_reads_ends_quietly(sweep: Path) -> None:
    root = str(Path(__file__).parent.parent.parent)
    code = "from hpo.cli import main; main()"
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(
            [sys.executable, "-c", code, "recommend", str(sweep)],
            env={**os.environ, "PYTHONPATH": root},
            stdout=closed,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.stderr == ""


def test_help_is_quick_and_loads_nothing_heavy() -> None:
    code = (
        "import sys\nfrom hpo.cli import command_line\ncommand_line()\n"
        "print([n for n in ('numpy.linalg.linalg', 'scipy', 'pandas', 'optuna', 'torch',"
        " 'matplotlib') if n in sys.modules])"
    )
    root = str(Path(__file__).parent.parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "[]"


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
    ("target", "message"),
    [
        ("params", "--target must look like params=7e9,tokens=1.4e12"),
        ("params=big", "--target must look like"),
        ("tokens=1e9", "--target must name the size columns, params (params), got 'tokens'"),
        ("params=1,params=2", "--target must name each size once"),
        ("params=-1", "must be positive"),
    ],
)
def test_a_target_that_cannot_be_read_is_refused_in_one_line(
    sweep: Path, monkeypatch: pytest.MonkeyPatch, target: str, message: str
) -> None:
    line = run(monkeypatch, "recommend", sweep, "--target", target)
    assert message in str(line) and "\n" not in str(line)


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
