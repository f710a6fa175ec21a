"""The study of proxies with branches: it goes on where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from benchmarks.jsonlines import read_rows
from examples.studies.proxy_to_target import (
    SHARES,
    STUDIES,
    predicted_and_trained,
    search,
    summary,
    trainer,
)
from hpo.training.trainer import TorchTrainer
from hpo.training.training_run import Branch

CHOSEN = {"tokens": 8192.0, "flops": 1e10}


def loss(config: Mapping[str, Any], tokens: float) -> float:
    bowl = 0.1 * math.log(config["lr"] / 5e-3) ** 2
    return float(1.5 + 20 * config["params"] ** -0.3 + 30 * tokens**-0.4 + bowl)


def branch(
    self: TorchTrainer, config: Mapping[str, Any], *, seed: int, tokens: Sequence[float]
) -> list[Branch]:
    return [Branch(t, loss(config, t), 6 * config["params"] * t, {}) for t in tokens]


def train(self: TorchTrainer, config: Mapping[str, Any], *, seed: int) -> dict[str, float]:
    return {"loss": loss(config, config["tokens"])}


def test_runs_are_kept_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchTrainer, "branch", branch)
    monkeypatch.setattr(TorchTrainer, "train", train)
    study, path = STUDIES[0], tmp_path / "runs.jsonl"
    optimizer = search(study, CHOSEN, path, seed=0)
    row = predicted_and_trained(study, optimizer, CHOSEN, path, seed=0)
    rows = read_rows(path)
    assert row == rows[-1]
    branches = [one for proxy in rows[:-1] for one in proxy["branches"]]
    first = [one["config"]["tokens"] for one in branches[:3]]
    assert first == [share * first[-1] for share in SHARES]
    proxies = {(one["config"]["lr"], one["config"]["params"]) for one in branches}
    assert len(proxies) == len(rows) - 1
    assert row["losses"] == len(branches) == len(optimizer.log.observations)
    assert sum(one["cost"] for one in branches) >= CHOSEN["flops"]
    assert "inside" in {column.header for column in summary([row]).columns}

    def no_training(*_: Any, **__: Any) -> Any:
        raise AssertionError("trained again")

    monkeypatch.setattr(TorchTrainer, "branch", no_training)
    monkeypatch.setattr(TorchTrainer, "train", no_training)
    again = search(study, CHOSEN, path, seed=0)
    assert predicted_and_trained(study, again, CHOSEN, path, seed=0) == row


@pytest.mark.parametrize("study", STUDIES, ids=[study.name for study in STUDIES])
def test_the_horizons_of_a_proxy_are_whole_updates_of_one_run(study: Any) -> None:
    config = {"params": 3e4, "tokens": 8192.0, "lr": 1e-3}
    settings = [trainer(study).settings({**config, "tokens": share * 8192.0}) for share in SHARES]
    assert [one.examples for one in settings] == [32, 64, 128]


@pytest.mark.slow
def test_the_study_trains_its_targets(run: Callable[..., str], tmp_path: Path) -> None:
    arguments = ("--minutes", "0.2", "--out", "out")
    printed = run("-m", "examples.studies.proxy_to_target", *arguments, seconds=900)
    assert "Muon, standard" in printed and "inside" in printed
    assert (
        len([row for row in read_rows(tmp_path / "out" / "runs_0.jsonl") if "trained" in row]) == 4
    )
