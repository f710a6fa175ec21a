import time
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hpo.training.accounting import (
    Meter,
    ParameterCount,
    Quantity,
    Usage,
    Work,
    achieved_flops_per_second,
    count_parameters,
    count_work,
    forward_flops_per_token,
    training_flops_per_token,
)
from hpo.training.transformer import Transformer, TransformerShape, next_byte_loss


def test_forward_flops_match_a_hand_count() -> None:
    shape = TransformerShape(width=8, depth=2, heads=2, hidden=16)
    # Per block 8 x 24, 8 x 8 and 2 x 8 x 16 weights, head 8 x 256; scores and mixing 10 x 8 each.
    assert forward_flops_per_token(shape, context=10) == 2 * (2 * 512 + 2048) + 2 * 2 * 2 * 80


@pytest.mark.parametrize(
    ("shape", "parameters", "embedding", "flops"),
    [
        # Attention 4 x 16^2, feed-forward 2 x 16 x 64, two gains of 16; one more gain of 16.
        # Forward 2 x (3072 + 16 x 256) for weights and 4 x 16 x 8 for attention over 8 bytes.
        (TransformerShape(16, 1, 2, 64), 3120, 8192, 3 * (2 * (3072 + 4096) + 512)),
        # Two key and value heads of four: queries and output 32^2 each, keys and values 32 x 16
        # each, 2 x 32 x 100, gains 64; twice that and 32.
        # Forward 2 x (2 x 9472 + 32 x 256) and 4 x 2 x 32 x 8.
        (
            TransformerShape(32, 2, 4, 100, queries_per_key=2),
            2 * (2048 + 1024 + 6400 + 64) + 32,
            16384,
            3 * (2 * (2 * 9472 + 8192) + 2048),
        ),
        # Four experts of 2 x 16 x 24, a router of 16 x 4; two experts work on each byte.
        # Forward 2 x (1024 + 2 x 768 + 64 + 16 x 256) and 4 x 16 x 8.
        (
            TransformerShape(16, 1, 2, 24, experts=4, experts_used=2),
            1024 + 4 * 768 + 64 + 32 + 16,
            8192,
            3 * (2 * (1024 + 1536 + 64 + 4096) + 512),
        ),
    ],
    ids=["dense", "grouped queries", "experts"],
)
def test_parameters_and_flops_match_hand_counts(
    shape: TransformerShape, parameters: int, embedding: int, flops: int
) -> None:
    assert (shape.non_embedding, shape.embedding) == (parameters, embedding)
    assert training_flops_per_token(shape, context=8) == flops
    model = Transformer(shape, context=8, rng=torch.Generator().manual_seed(0))
    assert sum(weight.numel() for weight in model.parameters()) == parameters + embedding
    text = torch.randint(256, (3, 9), generator=torch.Generator().manual_seed(0))
    # Every byte goes to exactly two experts, so the total does not depend on which.
    assert count_work(model, text, next_byte_loss).flops == pytest.approx(8 * flops)


@pytest.mark.parametrize(
    "shape",
    [
        TransformerShape(32, 2, 2, 128),
        TransformerShape(48, 3, 3, 100),
        TransformerShape(32, 2, 4, 64, queries_per_key=4),
    ],
)
def test_flops_match_those_that_torch_counts(shape: TransformerShape) -> None:
    context, rows = 24, 3
    model = Transformer(shape, context=context, rng=torch.Generator())
    text = torch.zeros(rows, context, dtype=torch.int64)
    # The counter knows plain matrix products, not the fused CPU attention.
    with sdpa_kernel(SDPBackend.MATH):
        with FlopCounterMode(display=False) as forward:
            logits = model(text)
        with FlopCounterMode(display=False) as backward:
            logits.sum().backward()
    tokens = rows * context
    assert forward.get_total_flops() == tokens * forward_flops_per_token(shape, context)
    total = forward.get_total_flops() + backward.get_total_flops()
    assert total == tokens * training_flops_per_token(shape, context)


def test_count_parameters_separates_embeddings_from_the_rest() -> None:
    model = nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3))
    assert count_parameters(model) == ParameterCount(rest=15, embedding=40)


def test_tokens_are_integers_of_a_sequence_and_else_examples() -> None:
    def loss(model: nn.Module, batch: Any) -> torch.Tensor:
        return (model(torch.zeros(1, 4)) * 1.0).sum()

    model = nn.Linear(4, 1)
    for batch, tokens in (
        (torch.zeros(5, 7, dtype=torch.int64), 7),
        ((torch.zeros(5, 4), torch.zeros(5, dtype=torch.int64)), 1),
        ({"x": torch.zeros(5, 4), "ids": torch.zeros(5, 3, dtype=torch.int64)}, 3),
    ):
        assert count_work(model, batch, loss).tokens == tokens


def test_usage_is_summed_over_stages() -> None:
    meter = Meter(torch.device("cpu"))
    meter.resume({"seconds": 100.0, "peak_memory": 2**50, "energy": 0.0})
    assert 100 <= meter.seconds < 101
    assert meter.peak_memory == 2**50
    assert meter.energy is None
    usage = Usage(ParameterCount(3, 5), 10, Work(2.0, 4.0), meter.seconds, meter.peak_memory, None)
    assert usage.of(Quantity.FLOPS) == 20 and usage.of(Quantity.TOKENS) == 40
    metrics = usage.metrics()
    assert metrics["params"] == 3 and metrics["embedding_params"] == 5
    assert "energy" not in metrics
    with pytest.raises(ValueError, match="nvidia-ml-py"):
        usage.of(Quantity.ENERGY)


def test_long_runs_cost_six_flops_per_parameter_and_token() -> None:
    shape = TransformerShape(width=1024, depth=16, heads=16, hidden=4096)
    ratio = training_flops_per_token(shape, context=128) / (6 * shape.non_embedding)
    assert 1.0 < ratio < 1.05


def test_the_rate_is_work_over_time_without_the_first_call() -> None:
    pauses = iter([0.1] + [0.01] * 100)

    def step() -> float:
        time.sleep(next(pauses))
        return 5.0

    assert 100 < achieved_flops_per_second(step, seconds=0.1) <= 500  # the machine may be busy


def test_a_step_longer_than_the_measurement_is_timed_once() -> None:
    calls = []

    def step() -> float:
        calls.append(1)
        time.sleep(0.01)
        return 1.0

    achieved_flops_per_second(step, seconds=0.0)
    assert len(calls) == 2
