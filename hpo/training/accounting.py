"""What a training run consumes: FLOPs by formula, and the rate a machine achieves by the clock.

One multiply-add is two FLOPs. Matrix products are counted exactly; norms, activations, softmax and
the optimizer's update, all linear in the size of their operands, are not. Attention is counted over
the full T x T square, as is the custom (Chowdhery et al., 2022, appendix B), although a causal
kernel may skip half of it. The backward pass takes two products for each one of the forward pass.
Symbols are those of `transformer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from hpo.training.transformer import VOCABULARY, Shape


def forward_flops_per_token(shape: Shape, context: int) -> float:
    """2 (L (4 d^2 + 2 d f) + d V) for the weights plus 4 L d T for attention."""
    d, f, depth = shape.width, shape.hidden, shape.depth
    weights = depth * (4 * d * d + 2 * d * f) + d * VOCABULARY
    return float(2 * weights + 4 * depth * d * context)


def training_flops_per_token(shape: Shape, context: int) -> float:
    """Forward and backward: three times the forward pass."""
    return 3.0 * forward_flops_per_token(shape, context)


def achieved_flops_per_second(step: Callable[[], float], *, seconds: float) -> float:
    """The rate at which repeated calls of `step` do work, measured for about `seconds`.

    `step` performs some work, waits for it to finish (matters on a GPU) and returns the FLOPs it
    did. The first call is not timed: it allocates and warms caches.
    """
    step()
    start = time.perf_counter()
    work = 0.0
    while (elapsed := time.perf_counter() - start) < seconds or work == 0.0:
        work += step()
    return work / elapsed
