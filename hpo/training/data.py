"""Training data that can be asked for by position, so that an interrupted run resumes exactly.

A `Source` is an endless sequence of examples. Which example has which number depends on the seed
alone: neither on the batch size, nor on how a batch is cut into pieces, nor on what was asked
before. A checkpoint therefore stores nothing of the data but the number of examples seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import islice
from typing import Any, Protocol, TypeAlias, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from hpo.space.arguments import Count, Kind, Row, store
from hpo.training.devices import random_states, restore_random_states

Batch: TypeAlias = Any


class Split(Enum):
    """Part of the data, for training or for validation.

    Example:
        >>> [split.value for split in Split]
        ['train', 'validation']
    """

    TRAIN = "train"
    VALIDATION = "validation"


@runtime_checkable
class Source(Protocol):
    """Endless sequence of training examples.

    Example:
        >>> isinstance(Shuffled([torch.arange(3)]), Source)
        True
    """

    def batch(self, first: int, count: int, *, seed: int) -> Batch:
        """Return examples `first` .. `first + count - 1` of the sequence of `seed`."""
        ...


def _examples(first: int, count: int, seed: int) -> tuple[int, int, int]:
    """Return the arguments of `Source.batch`, checked."""
    first = Count(0, most=2**62, way_out="count the examples from 0")(first, "`first`")
    count = Count(1, most=2**31, way_out="give a batch size")(count, "`count`")
    return first, count, Count(0, most=2**64 - 1)(seed, "`seed`")


@dataclass(slots=True)
class Shuffled:
    """Rows of tensors, epoch after epoch, each epoch in a new random order.

    Args:
        tensors: Tensors of equal length with one row per example. A batch is a tuple of as many
            tensors.

    Raises:
        ValueError: There are no tensors, they are empty, or their lengths differ.

    Example:
        >>> source = Shuffled([torch.arange(4), torch.arange(4) * 10])
        >>> inputs, targets = source.batch(0, 3, seed=0)
        >>> inputs.tolist(), targets.tolist()
        ([2, 0, 1], [20, 0, 10])
    """

    tensors: Sequence[Tensor]
    _order: tuple[int, int, Tensor] | None = field(default=None, repr=False)  # seed, epoch, rows

    def __post_init__(self) -> None:
        store(
            self,
            tensors=Row(Kind(Tensor), way_out="write Shuffled([inputs, targets])"),
        )
        lengths = [len(tensor) for tensor in self.tensors]
        if not lengths or min(lengths) != max(lengths) or lengths[0] < 1:
            raise ValueError(
                "`tensors` must be one or more tensors with one row per example and equal "
                f"lengths, got lengths {lengths}; pass inputs and targets of the same examples"
            )

    def __len__(self) -> int:
        return len(self.tensors[0])

    def rows(self, first: int, count: int, *, seed: int) -> Tensor:
        """Return the row numbers of examples `first` .. `first + count - 1`, `(count,)`.

        Example:
            >>> Shuffled([torch.arange(4)]).rows(0, 8, seed=0).tolist()
            [2, 0, 1, 3, 3, 0, 2, 1]
        """
        first, count, seed = _examples(first, count, seed)
        pieces = []
        while count > 0:
            epoch, start = divmod(first, len(self))
            piece = self._epoch(epoch, seed)[start : start + count]
            pieces.append(piece)
            first, count = first + len(piece), count - len(piece)
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)

    def batch(self, first: int, count: int, *, seed: int) -> tuple[Tensor, ...]:
        """Return examples `first` .. `first + count - 1`, one tensor for each of `tensors`."""
        rows = self.rows(first, count, seed=seed)
        return tuple(tensor[rows.to(tensor.device)] for tensor in self.tensors)

    def _epoch(self, epoch: int, seed: int) -> Tensor:
        if self._order is None or self._order[:2] != (seed, epoch):
            rows = np.random.default_rng([seed, epoch]).permutation(len(self))
            self._order = (seed, epoch, torch.from_numpy(rows))
        return self._order[2]


@dataclass(frozen=True, slots=True)
class Windows:
    """Windows of a text, each starting at a position drawn uniformly with replacement.

    Args:
        text: One-dimensional tensor of tokens, on any device, or array of them, such as a
            `numpy.memmap` of uint16, of which only the windows are read.
        length: Tokens in a window. A batch is `count x length`, int64.

    Raises:
        TypeError: `text` does not hold integers in one dimension.
        ValueError: `length` is below 1 or above the length of `text`.

    Example:
        >>> Windows(torch.arange(100), length=3).batch(0, 2, seed=0).tolist()
        [[71, 72, 73], [13, 14, 15]]
    """

    text: Tensor | np.ndarray[Any, Any]
    length: int

    def __post_init__(self) -> None:
        text = self.text
        if isinstance(text, Tensor):
            integer = not text.is_floating_point() and not text.is_complex()
        else:
            integer = isinstance(text, np.ndarray) and np.issubdtype(text.dtype, np.integer)
        if not integer or text.ndim != 1:
            found = getattr(text, "dtype", type(text).__name__), getattr(text, "ndim", "no")
            raise TypeError(
                "`text` must be a tensor or an array of integers in one dimension, "
                f"got {found[0]} in {found[1]} dimensions; pass token numbers, text.ravel()"
            )
        store(self, length=Count(1))
        if self.length > len(self.text):
            raise ValueError(
                f"`length` must lie in 1 .. {len(self.text)}, the length of `text`, "
                f"got {self.length}; shorten the windows or pass a longer text"
            )

    def batch(self, first: int, count: int, *, seed: int) -> Tensor:
        """Return windows `first` .. `first + count - 1`, `count x length`."""
        first, count, seed = _examples(first, count, seed)
        # A counter-based generator: window i is drawn from counter i in every batch.
        drawn = np.random.Philox(key=seed, counter=first).random_raw(4 * count)[::4]
        places = drawn % np.uint64(len(self.text) - self.length + 1)
        starts = torch.from_numpy(places.astype(np.int64))
        rows = starts[:, None] + torch.arange(self.length)
        if isinstance(self.text, Tensor):
            return self.text[rows.to(self.text.device)].long()
        return torch.from_numpy(self.text[rows.numpy()].astype(np.int64))


class BatchStream:
    """Training batches in order, from a `Source` or from an iterable of batches.

    An update takes the number of examples that it was asked for, whatever the size of an iterable's
    batches: smaller ones are accumulated, and of a larger one the rest is kept for the next update.

    Args:
        data: `Source`, or an iterable that gives the batches of one epoch each time.
        micro_batch: Largest number of examples in a piece of a batch.
        seed: Seed of the sequence of a `Source`.

    Raises:
        TypeError: `data` is neither.

    Example:
        >>> stream = BatchStream(Shuffled([torch.arange(6)]), micro_batch=2, seed=0)
        >>> [(len(batch[0]), round(weight, 2)) for batch, weight in stream.pieces(0, 5)]
        [(2, 0.4), (2, 0.4), (1, 0.2)]
        >>> loader = [torch.arange(4), torch.arange(4)]
        >>> stream = BatchStream(loader, micro_batch=8, seed=0)
        >>> [len(batch) for batch, _ in stream.pieces(0, 6)]
        [4, 2]
    """

    def __init__(self, data: Any, *, micro_batch: int, seed: int) -> None:
        self._source = data if isinstance(data, Source) else None
        if self._source is None and not isinstance(data, Iterable):
            raise TypeError(
                "make_data(config, Split.TRAIN) must return a Source or an iterable of batches, "
                f"got {type(data).__name__}; wrap tensors as Shuffled([inputs, targets])"
            )
        self._loader: Iterable[Batch] = () if self._source is not None else data
        self._micro_batch = Count(1)(micro_batch, "`micro_batch`")
        self._seed = Count(0)(seed, "`seed`")
        self._batches: Iterator[Batch] | None = None
        self._epoch_began: dict[str, Any] | None = None  # random states at the start of the epoch
        self._taken = 0  # batches of the epoch
        self._batch: Batch = None  # the last of them
        self._left = 0  # examples of it that no update has had

    def pieces(self, first: int, count: int) -> Iterator[tuple[Batch, float]]:
        """Yield examples `first` .. `first + count - 1` in pieces.

        Args:
            first: Number of the first example.
            count: Examples of the update.

        Yields:
            Pieces, each with its weight in the mean over the update.

        Raises:
            ValueError: A batch has to be cut, and its parts have different lengths.
        """
        done = 0
        while done < count:
            size = min(self._micro_batch, count - done)
            if self._source is not None:
                piece = self._source.batch(first + done, size, seed=self._seed)
            else:
                piece, size = self._part(size)
            done += size
            yield piece, size / count

    def _part(self, most: int) -> tuple[Batch, int]:
        """The next examples of the iterable, at most so many of one batch, and their number."""
        if self._left == 0:
            self._batch = self._next()
            self._left = examples_in(self._batch)
        whole = examples_in(self._batch)
        first, size = whole - self._left, min(most, self._left)
        self._left -= size
        piece = self._batch if size == whole else part_of(self._batch, first, first + size)
        if self._left == 0:
            self._batch = None
        return piece, size

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold; empty for a `Source`, which needs nothing.

        Example:
            >>> BatchStream(Shuffled([torch.arange(6)]), micro_batch=2, seed=0).state()
            {'epoch_began': None, 'taken': 0, 'left': 0}
        """
        return {"epoch_began": self._epoch_began, "taken": self._taken, "left": self._left}

    def resume(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Skip to the position in `state` by drawing the epoch's batches again.

        The global generators are changed by this; the caller restores them afterwards.

        Args:
            state: Result of `state`.
            device: Device whose generator is set to that at the start of the epoch.
        """
        self._batches, self._batch, self._left = None, None, 0
        if state["epoch_began"] is None:
            return
        restore_random_states(state["epoch_began"], device)
        self._begin()
        assert self._batches is not None
        for batch in islice(self._batches, state["taken"]):
            self._batch = batch
        self._taken = state["taken"]
        self._left = state.get("left", 0)

    def _begin(self) -> None:
        self._epoch_began = random_states(torch.device("cpu"))
        self._batches, self._taken = iter(self._loader), 0

    def _next(self) -> Batch:
        if self._batches is None:
            self._begin()
        assert self._batches is not None
        batch = next(self._batches, None)
        if batch is None:
            self._begin()
            batch = next(self._batches, None)
        if batch is None:
            raise ValueError(
                "make_data(config, Split.TRAIN) must give at least one batch each time it is "
                "iterated over, got none; return a DataLoader or a list, not a generator"
            )
        self._taken += 1
        return batch


def tensors_in(batch: Batch) -> Iterator[Tensor]:
    """Yield every tensor in nested mappings, lists and tuples, in order.

    Example:
        >>> batch = {"x": torch.zeros(3), "y": [torch.zeros(2), "z"]}
        >>> [len(tensor) for tensor in tensors_in(batch)]
        [3, 2]
    """
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping | list | tuple):
        for item in batch.values() if isinstance(batch, Mapping) else batch:
            yield from tensors_in(item)


def examples_in(batch: Batch) -> int:
    """Return the number of examples in a batch: the length of the first tensor found in it.

    Args:
        batch: Tensor, or a mapping, list or tuple that holds one at any depth.

    Raises:
        ValueError: `batch` holds no tensor with examples.

    Example:
        >>> examples_in({"inputs": torch.zeros(4, 2), "labels": torch.zeros(4)})
        4
    """
    count = next((len(tensor) for tensor in tensors_in(batch) if tensor.ndim), 0)
    if count == 0:
        raise ValueError(
            "a batch must be a tensor, or a tuple, list or dict that holds one, with one row per "
            f"example, got {type(batch).__name__}; convert it in make_data"
        )
    return count


def part_of(batch: Batch, first: int, last: int) -> Batch:
    """Return examples `first` .. `last - 1` of a batch.

    Args:
        batch: Tensor, or nested mappings, lists and tuples. Lists with one entry per example, such
            as their names, are cut as tensors are; single values stay as they are.
        first: First example.
        last: One past the last example.

    Raises:
        ValueError: Tensors in it have different lengths, so that it is unclear what an example is.

    Example:
        >>> part_of({"x": torch.arange(4), "name": ["a", "b", "c", "d"], "scale": 2.0}, 1, 3)
        {'x': tensor([1, 2]), 'name': ['b', 'c'], 'scale': 2.0}
    """
    lengths = {len(tensor) for tensor in tensors_in(batch) if tensor.ndim}
    if len(lengths) != 1:
        raise ValueError(
            f"a batch must have one row per example in every tensor to be cut into parts, got "
            f"{', '.join(map(str, sorted(lengths)))} rows; let `batch_size` be that of the loader "
            "and leave out `micro_batch`"
        )
    count = lengths.pop()

    def cut(item: Any) -> Any:
        return item[first:last] if item.ndim else item

    def cut_list(items: Any) -> Any:
        plain = not any(isinstance(item, Tensor | Mapping | list | tuple) for item in items)
        return items[first:last] if plain and len(items) == count else None

    return _mapped(batch, cut, cut_list)


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Return the batch with every tensor in it on `device`.

    Args:
        batch: Tensor, or nested mappings, lists and tuples; other values stay as they are.
        device: Device to copy to.

    Example:
        >>> moved = to_device((torch.zeros(2), "name"), torch.device("cpu"))
        >>> moved[0].device.type, moved[1]
        ('cpu', 'name')
    """
    return _mapped(batch, lambda tensor: tensor.to(device, non_blocking=True))


def _mapped(
    batch: Batch, tensor: Callable[[Tensor], Any], items: Callable[[Any], Any] = lambda _: None
) -> Batch:
    """Apply `tensor` to every tensor in a batch, and `items` to lists where it returns something.

    Mappings of other types, such as those of tokenizers, become dicts.
    """
    if isinstance(batch, Tensor):
        return tensor(batch)
    if isinstance(batch, Mapping):
        return {name: _mapped(item, tensor, items) for name, item in batch.items()}
    if isinstance(batch, list | tuple):
        whole = items(batch)
        if whole is not None:
            return whole
        mapped = [_mapped(item, tensor, items) for item in batch]
        return type(batch)(*mapped) if hasattr(batch, "_fields") else type(batch)(mapped)
    return batch
