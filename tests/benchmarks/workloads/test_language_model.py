import math
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from benchmarks.workloads.language_model import (
    LanguageModelRecipe,
    measured_flops_per_second,
    train_language_model,
)
from hpo.schedulers import Decision
from hpo.study.context import Context
from hpo.training.accounting import training_flops_per_token
from hpo.training.devices import best_device
from hpo.training.transformer import params_to_shape
from hpo.trials import Report, Trial

SMALL = {"params": 4e3, "tokens": 16e3, "lr": 5e-3, "batch_size": 4, "context": 32}


@dataclass
class Recorder:
    """A channel that lets every trial go on."""

    reports: list[Report] = field(default_factory=list)

    def send(self, report: Report) -> Decision:
        self.reports.append(report)
        return Decision.CONTINUE


def train(config: dict[str, Any], seed: int = 0) -> tuple[dict[str, float], list[Report]]:
    channel = Recorder()
    trial = Trial(number=0, config=config, ask_index=0, prediction=None)
    result = train_language_model(config, Context(trial, seed=seed, channel=channel))
    return result, channel.reports


def test_training_learns_more_than_byte_frequencies() -> None:
    result, reports = train({**SMALL, "tokens": 64e3})
    losses = [report.loss for report in reports]
    assert losses == sorted(losses, reverse=True)
    assert result["loss"] == losses[-1] < 3.1  # single bytes have an entropy of 3.3 nats here


def test_cost_is_the_formula_times_the_tokens() -> None:
    # 500 sequences of 32 do not fill the last batch of 7.
    result, reports = train({**SMALL, "batch_size": 7})
    per_token = training_flops_per_token(params_to_shape(4e3), context=32)
    assert result["cost"] == pytest.approx(per_token * 16e3, rel=1e-12)
    assert reports[-1].cost == result["cost"]
    assert [report.cost for report in reports] == sorted(report.cost or 0 for report in reports)
    assert result["params"] == params_to_shape(4e3).non_embedding


def test_a_batch_larger_than_the_run_is_one_step() -> None:
    result, reports = train({**SMALL, "tokens": 640, "batch_size": 64})
    assert [report.step for report in reports] == [1]
    assert result["cost"] == 640 * training_flops_per_token(params_to_shape(4e3), context=32)


def test_the_seed_decides_the_run() -> None:
    config = {**SMALL, "dropout": 0.1, "tokens": 4e3}
    once, again, other = train(config)[0], train(config)[0], train(config, seed=1)[0]
    assert once["loss"] == again["loss"] != other["loss"]


def test_the_global_random_stream_is_left_alone() -> None:
    before = torch.random.get_rng_state()
    train({**SMALL, "dropout": 0.1, "tokens": 640})
    assert torch.equal(before, torch.random.get_rng_state())


def test_divergence_ends_the_run_early_with_a_nan_loss() -> None:
    result, reports = train({**SMALL, "tokens": 1e6, "lr": 1e30})
    assert math.isnan(result["loss"])
    assert 0 < result["cost"] < 0.1 * 1e6 * training_flops_per_token(params_to_shape(4e3), 32)
    assert not reports


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learning_rate": 1.0}, "learning_rate"),
        ({"lr": -1.0}, "`lr` must be positive"),
        ({"lr": math.inf}, "`lr` of AdamW must be a finite number above 0"),
        ({"beta2": 1.0}, "`beta2`"),
        ({"warmup": 1.5}, "`warmup`"),
    ],
)
def test_a_bad_setting_is_refused_by_name(change: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        train({**SMALL, **change})


def test_a_config_without_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="tokens"):
        train({"params": 4e3})


def test_the_measured_rate_is_positive() -> None:
    assert measured_flops_per_second(4e3, LanguageModelRecipe(batch_size=2), seconds=0.05) > 1e6


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_runs_on_the_gpu_and_agrees_with_the_formula() -> None:
    assert best_device().type == "cuda"
    result, _ = train({**SMALL, "params": 1e5, "tokens": 64e3, "batch_size": 16})
    assert result["loss"] < 3.3
    assert result["cost"] == pytest.approx(
        64e3 * training_flops_per_token(params_to_shape(1e5), context=32)
    )
