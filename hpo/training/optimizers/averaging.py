"""Weights to evaluate where an optimizer trains others: `optimizer.eval()` and `.train()`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

__all__ = ["evaluation_weights", "has_evaluation_weights"]


def has_evaluation_weights(optimizer: object) -> bool:
    """Return whether the optimizer evaluates other weights than those that it trains.

    Example:
        >>> has_evaluation_weights(torch.optim.SGD([torch.zeros(1)], lr=0.1))
        False
    """
    return all(callable(getattr(optimizer, name, None)) for name in ("train", "eval"))


@contextmanager
def evaluation_weights(
    optimizers: Sequence[torch.optim.Optimizer], weights: Sequence[Tensor]
) -> Iterator[list[Tensor] | None]:
    """Put the weights to evaluate in place of those in training, for optimizers that have both.

    Schedule-free methods evaluate an average of the weights. Their own way back from it rounds, so
    that training would depend on how often it is evaluated; here the weights are copied back.

    Args:
        optimizers: Optimizers, in training.
        weights: All that they update.

    Yields:
        The weights in training, copied; None where they are the same ones.

    Example:
        >>> weight = torch.zeros(1)
        >>> with evaluation_weights([torch.optim.SGD([weight], lr=0.1)], [weight]) as kept:
        ...     print(kept)
        None
    """
    switching: list[Any] = [one for one in optimizers if has_evaluation_weights(one)]
    if not switching:
        yield None
        return
    kept = [weight.detach().clone() for weight in weights]
    for optimizer in switching:
        optimizer.eval()
    try:
        yield kept
    finally:
        for optimizer in switching:
            optimizer.train()
        with torch.no_grad():
            for weight, value in zip(weights, kept, strict=True):
                weight.copy_(value)
