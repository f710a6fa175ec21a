import time

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from hpo.training.accounting import (
    achieved_flops_per_second,
    forward_flops_per_token,
    training_flops_per_token,
)
from hpo.training.transformer import Shape, Transformer


def test_forward_flops_match_a_count_by_hand() -> None:
    shape = Shape(width=8, depth=2, heads=2, hidden=16)
    # Per block 8 x 24, 8 x 8 and 2 x 8 x 16 weights, head 8 x 256; scores and mixing 10 x 8 each.
    assert forward_flops_per_token(shape, context=10) == 2 * (2 * 512 + 2048) + 2 * 2 * 2 * 80


@pytest.mark.parametrize("shape", [Shape(32, 2, 2, 128), Shape(48, 3, 3, 100)])
def test_flops_match_those_that_torch_counts(shape: Shape) -> None:
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


def test_long_runs_cost_six_flops_per_parameter_and_token() -> None:
    shape = Shape(width=1024, depth=16, heads=16, hidden=4096)
    ratio = training_flops_per_token(shape, context=128) / (6 * shape.non_embedding)
    assert 1.0 < ratio < 1.05


def test_the_rate_is_work_over_time_without_the_first_call() -> None:
    pauses = iter([0.1] + [0.01] * 100)

    def step() -> float:
        time.sleep(next(pauses))
        return 5.0

    assert 250 < achieved_flops_per_second(step, seconds=0.1) <= 500


def test_a_step_longer_than_the_probe_is_timed_once() -> None:
    calls = []

    def step() -> float:
        calls.append(1)
        time.sleep(0.01)
        return 1.0

    achieved_flops_per_second(step, seconds=0.0)
    assert len(calls) == 2
