"""The study of proxies with branches: it goes on where it was stopped."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks.jsonlines import read_rows
from examples.studies.proxy_to_target import (
    FORMULA_SEEDS,
    FORMULAS,
    SHARES,
    SHORTEST,
    SIZES,
    STUDIES,
    Experiment,
    Findings,
    best_of,
    calibration,
    comparison,
    draw,
    trainer,
)
from hpo.training.trainer import TorchTrainer
from hpo.training.training_run import Branch

SMALL = replace(SIZES[0], compute=1.0)


def loss(config: Mapping[str, Any], tokens: float) -> float:
    bowl = 0.1 * math.log(config["lr"] / 5e-3) ** 2
    return float(1.5 + 20 * config["params"] ** -0.3 + 30 * tokens**-0.4 + bowl)


def branch(
    self: TorchTrainer, config: Mapping[str, Any], *, seed: int, tokens: Sequence[float]
) -> list[Branch]:
    return [Branch(t, loss(config, t), 6 * config["params"] * t, {}) for t in tokens]


def train(self: TorchTrainer, config: Mapping[str, Any], *, seed: int) -> dict[str, float]:
    return {"loss": loss(config, config["tokens"])}


def no_training(*_: Any, **__: Any) -> Any:
    raise AssertionError("trained again")


def test_runs_are_kept_and_not_trained_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchTrainer, "branch", branch)
    monkeypatch.setattr(TorchTrainer, "train", train)
    one = Experiment(SMALL, STUDIES[1], tmp_path / "runs.jsonl")
    one.predict_and_train(0)
    one.spread_rates()
    one.published()
    (row,) = one.rows("predicted")
    proxies = one.rows("proxy")
    losses = [found for proxy in proxies for found in proxy["branches"]]
    for proxy in proxies:
        asked = proxy["branches"][-1]["config"]["tokens"]
        assert SHORTEST * SMALL.tokens <= asked <= SMALL.tokens
        told = [found["config"]["tokens"] for found in proxy["branches"]]
        assert told == [share * asked for share in SHARES]
    assert row["losses"] == len(losses) == len(SHARES) * len(proxies)
    assert sum(found["cost"] for found in losses) >= SMALL.compute * one.flops
    assert len(one.rows("rate")) == SMALL.rates
    assert len(one.rows("formula")) == len(FORMULAS) * FORMULA_SEEDS

    monkeypatch.setattr(TorchTrainer, "branch", no_training)
    monkeypatch.setattr(TorchTrainer, "train", no_training)
    before = read_rows(one.path)
    one.predict_and_train(0)
    one.spread_rates()
    one.published()
    assert read_rows(one.path) == before
    again = one.predict_again(row)
    assert again["predicted"] == pytest.approx(row["predicted"], abs=1e-6)
    found = Findings.of(one, again=True)
    assert found is not None and bool(found.inside.all())
    assert found.at_random > found.trained[0]  # no rate that was drawn is the best one
    for table in (calibration([found]), comparison([found])):
        assert table.row_count == 1
    draw([found]).savefig(tmp_path / "picture.png")


def test_a_search_that_was_stopped_goes_on_with_the_same_proxies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(TorchTrainer, "branch", branch)
    whole = Experiment(SMALL, STUDIES[0], tmp_path / "whole.jsonl")
    whole.search(3)
    lines = whole.path.read_text().splitlines()
    stopped = Experiment(SMALL, STUDIES[0], tmp_path / "stopped.jsonl")
    stopped.path.write_text("\n".join(lines[:4]) + "\n")
    stopped.search(3)
    configs = [
        [row["branches"] for row in read_rows(one.path) if "proxy" in row]
        for one in (whole, stopped)
    ]
    assert configs[0] == configs[1]


def test_a_random_search_finds_the_mean_of_the_smallest_of_its_draws() -> None:
    rng = np.random.default_rng(0)
    losses = [3.0, 1.0, 2.0, 5.0]
    drawn = rng.choice(losses, size=(100_000, 3)).min(axis=1)
    assert best_of(losses, 3) == pytest.approx(drawn.mean(), abs=0.01)
    assert best_of(losses, 1) == np.mean(losses)


def test_a_rate_is_carried_over_by_the_rules_of_mup() -> None:
    carried = [study.carried(8e-3, 25e3, 100e3) for study in STUDIES]
    assert carried == [8e-3, 4e-3, 8e-3, 8e-3]


@pytest.mark.parametrize("study", STUDIES, ids=[study.name for study in STUDIES])
def test_the_horizons_of_a_proxy_are_whole_updates_of_one_run(study: Any) -> None:
    config = {"params": SMALL.family.smallest, "lr": 1e-3}
    settings = [
        trainer(SMALL, study).settings({**config, "tokens": share * SMALL.tokens})
        for share in SHARES
    ]
    batch = SMALL.family.batch_size
    assert [one.examples for one in settings] == [
        round(share * SMALL.updates) * batch for share in SHARES
    ]
    assert {one.schedule for one in settings} == {settings[0].schedule}


@pytest.mark.slow
def test_the_study_trains_its_target(run: Callable[..., str], tmp_path: Path) -> None:
    arguments = ("--sizes", "small", "--studies", "AdamW, standard", "--seeds", "1", "--out", "out")
    printed = run("-m", "examples.studies.proxy_to_target", *arguments, seconds=900)
    assert "AdamW, standard" in printed and "of 1" in printed
    assert (tmp_path / "out" / "proxy_to_target.png").exists()
    assert "1 of 1" in run("-m", "examples.studies.proxy_to_target", *arguments, "--again")
