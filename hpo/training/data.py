"""Training data that can be asked for by position, so that a run can go on where it was.

A `Source` stands for an endless sequence of examples. Which example has which number depends on the
seed alone: neither on the batch size, nor on how a batch is cut into pieces, nor on what was asked
before. So the number of examples seen is all that a checkpoint must hold of the data.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor


class Split(Enum):
    """Which part of the data."""

    TRAIN = "train"
    VALIDATION = "validation"


@runtime_checkable
class Source(Protocol):
    """An endless sequence of training examples."""

    def batch(self, first: int, count: int, *, seed: int) -> Any:
        """Examples `first` .. `first + count - 1` of the sequence that `seed` stands for."""
        ...


@dataclass(slots=True)
class Shuffled:
    """Epoch after epoch over tensors of equal length, each epoch in an order of its own.

    `tensors`: each has one row an example; a batch is a tuple of as many tensors.

    Raises `ValueError` where there are none, or lengths differ.
    """

    tensors: Sequence[Tensor]
    _order: tuple[int, int, Tensor] | None = field(default=None, repr=False)  # seed, epoch, rows

    def __post_init__(self) -> None:
        lengths = [len(tensor) for tensor in self.tensors]
        if not lengths or min(lengths) != max(lengths) or lengths[0] < 1:
            raise ValueError(
                f"`tensors` must have one row for each example, all as many, got lengths {lengths}"
            )

    def __len__(self) -> int:
        return len(self.tensors[0])

    def rows(self, first: int, count: int, *, seed: int) -> Tensor:
        """Row numbers of the examples, `(count,)`."""
        pieces = []
        while count > 0:
            epoch, start = divmod(first, len(self))
            piece = self._epoch(epoch, seed)[start : start + count]
            pieces.append(piece)
            first, count = first + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def batch(self, first: int, count: int, *, seed: int) -> tuple[Tensor, ...]:
        """See `Source`."""
        rows = self.rows(first, count, seed=seed)
        return tuple(tensor[rows.to(tensor.device)] for tensor in self.tensors)

    def _epoch(self, epoch: int, seed: int) -> Tensor:
        if self._order is None or self._order[:2] != (seed, epoch):
            rows = np.random.default_rng([seed, epoch]).permutation(len(self))
            self._order = (seed, epoch, torch.from_numpy(rows))
        return self._order[2]


@dataclass(frozen=True, slots=True)
class Windows:
    """Stretches of a text, each from a place drawn uniformly, with replacement.

    `text`: one-dimensional, on any device. `length`: of a stretch. A batch is `count x length`
    int64. Raises `ValueError` where the text is shorter than one stretch.
    """

    text: Tensor
    length: int

    def __post_init__(self) -> None:
        if not 1 <= self.length <= len(self.text):
            raise ValueError(
                f"`length` must lie in 1 .. {len(self.text)}, the length of `text`, "
                f"got {self.length}"
            )

    def batch(self, first: int, count: int, *, seed: int) -> Tensor:
        """See `Source`."""
        # A counter-based generator: example i is drawn from counter i, whoever asks for it.
        drawn = np.random.Philox(key=seed, counter=first).random_raw(4 * count)[::4]
        places = drawn % np.uint64(len(self.text) - self.length + 1)
        starts = torch.from_numpy(places.astype(np.int64))
        rows = (starts[:, None] + torch.arange(self.length)).to(self.text.device)
        return self.text[rows].long()


def examples_in(batch: Any) -> int:
    """The number of examples in a batch: the length of the first tensor found in it.

    Raises `ValueError` where there is none.
    """
    if isinstance(batch, Tensor):
        return len(batch)
    items = batch.values() if isinstance(batch, dict) else batch
    if isinstance(batch, dict | list | tuple):
        for item in items:
            if isinstance(item, Tensor | dict | list | tuple):
                return examples_in(item)
    raise ValueError(
        "a batch must be a tensor, or a tuple, list or dict that holds one, "
        f"got {type(batch).__name__}"
    )


def to_device(batch: Any, device: torch.device) -> Any:
    """The batch with every tensor in it on `device`."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, dict):
        return {name: to_device(item, device) for name, item in batch.items()}
    if isinstance(batch, list | tuple):
        return type(batch)(to_device(item, device) for item in batch)
    return batch
