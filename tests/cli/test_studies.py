"""`scaletune status`, `list`, `show` and `export`."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest

from hpo import Budget, Categorical, Float, load_result, optimize, read_runs
from tests.cli.conftest import Scaletune

SPACE = {"lr": Float(1e-4, 1e-1, log=True), "optimizer": Categorical(["adamw", "sgd"])}


def train(config: dict[str, Any], ctx: Any) -> dict[str, float]:
    if ctx.trial.number == 1:
        raise RuntimeError("no GPU")
    return {"loss": config["lr"], "accuracy": 0.5}


@pytest.fixture
def study(folder: Path) -> str:
    """Name of a study of 5 trials, the second of which has failed."""
    optimize(train, SPACE, budget=Budget(trials=5), name="mine")
    return "mine"


def test_the_status_of_a_study_is_printed(study: str, scaletune: Scaletune) -> None:
    ended = scaletune("status")
    assert ended.code == 0
    assert "scaletune mine: nothing drives it now" in ended.out
    lines = {line.split()[0]: " ".join(line.split()) for line in ended.out.splitlines()[1:]}
    assert lines["trials"] == "trials 5" and "1 failed" in lines["now"]
    best = load_result(study).best_observed
    assert lines["best"] == f"best loss {best.loss:.6g} trial {best.number}"
    said = json.loads(scaletune("status", study, "--json").out)
    assert said["trials"] == {"completed": 4, "failed": 1} and said["drivers"] == 0
    assert said["best_observed"] == {"number": best.number, "loss": best.loss}


def test_a_watch_ends_when_nothing_drives_the_study(study: str, scaletune: Scaletune) -> None:
    ended = scaletune("status", study, "--watch", "--every", 0.1)
    assert ended.code == 0 and ended.out.count("\n") == 1
    assert ended.out.startswith("trials 5, ") and "nothing drives it now" in ended.out
    line = scaletune("status", study, "--watch", "--json").out
    assert line.count("\n") == 1 and json.loads(line)["study"] == study


def test_a_study_that_runs_is_seen_running(folder: Path, scaletune: Scaletune) -> None:
    seen: list[dict[str, Any]] = []

    def look(config: dict[str, Any], ctx: Any) -> float:
        if ctx.trial.number == 1:
            seen.append(json.loads(scaletune("status", "live", "--json").out))
        return float(config["lr"])

    optimize(look, SPACE, budget=Budget(trials=2), name="live")
    assert seen[0]["drivers"] == 1 and seen[0]["running"] == 1
    assert seen[0]["trials"] == {"completed": 1, "running": 1}


def test_stored_studies_are_listed_with_those_of_optuna(study: str, scaletune: Scaletune) -> None:
    optuna.create_study(
        study_name="theirs", storage="sqlite:///scaletune.db", directions=["minimize", "maximize"]
    )
    ended = scaletune("list")
    assert ended.code == 0
    header, mine, theirs = ended.out.splitlines()
    assert header.split()[:4] == ["study", "trials", "completed", "failed"]
    assert mine.split()[:5] == ["mine", "5", "4", "1", "0"] and theirs.split()[:2] == [
        "theirs",
        "0",
    ]
    rows = json.loads(scaletune("list", "--json").out)
    assert [row["study"] for row in rows] == ["mine", "theirs"]
    assert rows[0]["best"] == load_result(study).best_observed.loss


def test_nothing_is_made_where_nothing_is_stored(folder: Path, scaletune: Scaletune) -> None:
    for command in ("list", "status", "resume"):
        ended = scaletune(command)
        assert ended.code == 1 and "there is no file" in ended.err
    assert not (folder / "scaletune.db").exists()


def test_a_study_is_shown_and_so_is_one_of_its_trials(study: str, scaletune: Scaletune) -> None:
    ended = scaletune("show", study)
    assert ended.code == 0 and "5 trials (4 completed, 1 failed)" in ended.out
    assert json.loads(scaletune("show", study, "--json").out)["trials"]["failed"] == 1
    trial = scaletune("show", study, "--trial", 1)
    assert "Trial 1 failed (error)" in trial.out and "RuntimeError: no GPU" in trial.out
    assert "chosen as: start point 2" in trial.out
    row = json.loads(scaletune("show", study, "--trial", 1, "--json").out)
    assert row["number"] == 1 and row["failure"] == "RuntimeError: no GPU"
    refused = scaletune("show", study, "--trial", 9)
    assert refused.code == 1 and "got 9; it has 0 to 4" in refused.err


def test_a_study_is_a_source_by_its_name_alone(study: str, scaletune: Scaletune) -> None:
    assert "predicted loss" in scaletune("recommend", study).out
    by_url = ("recommend", study, "--storage", "sqlite:///scaletune.db")
    assert scaletune(*by_url).out == scaletune("recommend", "--name", study).out
    assert "no study 'yours'" in scaletune(*("recommend", "yours"), *by_url[2:]).err
    assert "No such file" in scaletune("recommend", "yours").err


def test_an_exported_table_is_read_back(study: str, folder: Path, scaletune: Scaletune) -> None:
    expected = load_result(study).to_pandas()
    assert scaletune("export", study, "-o", "trials.csv").err == "5 trials: trials.csv\n"
    assert scaletune("export", study).out == (folder / "trials.csv").read_text()
    assert scaletune("export", study, "--output", "trials.jsonl").code == 0
    for frame in (pd.read_csv("trials.csv"), pd.read_json("trials.jsonl", lines=True)):
        assert list(frame.columns) == list(expected.columns)
        assert np.allclose(frame["lr"], expected["lr"], rtol=1e-9)
        assert list(frame["status"]) == list(expected["status"])
    runs = read_runs("trials.csv", loss="loss", params=["lr", "optimizer"])
    assert len(runs) == 5


def test_parquet_needs_pyarrow_and_a_file(study: str, scaletune: Scaletune) -> None:
    assert "needs a file; add --output" in scaletune("export", study, "--format", "parquet").err
    ended = scaletune("export", study, "-o", "trials.parquet")
    if find_spec("pyarrow") is None:
        assert ended.code == 1 and "pip install pyarrow" in ended.err
    else:
        assert len(pd.read_parquet("trials.parquet")) == 5


def test_a_file_of_an_unknown_format_is_refused(study: str, scaletune: Scaletune) -> None:
    ended = scaletune("export", study, "-o", "trials.xls")
    assert ended.code == 1 and "--output must end in one of ['.csv', '.jsonl'" in ended.err
    assert scaletune("export", study, "-o", "trials.txt", "--format", "csv").code == 0
