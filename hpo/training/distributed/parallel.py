"""One training on several devices: the model is copied to each of them, or sharded over them.

    TorchTrainer(..., parallel=DDP())

Each process of `torchrun` calls the trainer, with the context of `hpo.connect`. With one process
nothing changes, so the same function trains a proxy on one GPU and the target on eight. An update
takes `Settings.batch_size` examples in all, of which each rank has its part; the gradient is that
of the mean over all of them, whatever the number of ranks.

The ranks draw the same random numbers: they take their parts of the same shuffled batches, and
dropout has the same masks on each.

Notation
--------
R  number of ranks
n  examples in a batch, of which rank r has n_r
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, distributed, nn

from hpo.training.data import Batch, examples_in, part_of

__all__ = ["DDP", "FSDP", "Parallel", "Ranks"]

_Item = TypeVar("_Item")


@dataclass(frozen=True, slots=True)
class Parallel:
    """How several processes train one model; `DDP` or `FSDP`."""


@dataclass(frozen=True, slots=True)
class DDP(Parallel):
    """A copy of the model in each process: `torch.nn.parallel.DistributedDataParallel`.

    Args:
        unused: Whether a forward pass may leave parameters out, which costs a search for them.

    Example:
        >>> DDP()
        DDP(unused=False)
    """

    unused: bool = False


@dataclass(frozen=True, slots=True)
class FSDP(Parallel):
    """Weights, gradients and optimizer states sharded over the processes: `fully_shard` of torch.

    Modules in a `torch.nn.ModuleList`, which are the blocks of most models, are gathered one at a
    time, and the rest together. Checkpoints are written by `torch.distributed.checkpoint` while
    training goes on, each rank its own shards, and can be loaded by any number of ranks. Figures of
    weights and updates are not among the metrics.

    Example:
        >>> FSDP()
        FSDP()
    """


class Ranks:
    """What one process of a training needs to know and to do about the others.

    Args:
        parallel: How they train; None for one process alone.
        device: Device of this process.

    Example:
        >>> ranks = Ranks(None, torch.device("cpu"))
        >>> ranks.size, ranks.part(torch.arange(4))
        (1, (tensor([0, 1, 2, 3]), 1.0))
    """

    def __init__(self, parallel: Parallel | None, device: torch.device) -> None:
        self._device = device
        self.rank, self.size = 0, 1
        if parallel is not None and _joined(device):
            self.rank, self.size = distributed.get_rank(), distributed.get_world_size()
        self._parallel = parallel if self.size > 1 else None
        self._wrapped: nn.Module | None = None

    @property
    def sharded(self) -> bool:
        """Whether each process holds a shard of the model only."""
        return isinstance(self._parallel, FSDP)

    def shard(self, model: nn.Module) -> nn.Module:
        """Return the model, sharded in place if that is asked for."""
        if self.sharded:
            from torch.distributed.device_mesh import init_device_mesh
            from torch.distributed.fsdp import fully_shard

            mesh = init_device_mesh(self._device.type, (self.size,))
            for module in list(model.modules()):
                for block in module if isinstance(module, nn.ModuleList) else ():
                    fully_shard(block, mesh=mesh)
            fully_shard(model, mesh=mesh)
        self._wrapped = model
        return model

    def wrap(self, forward: nn.Module) -> nn.Module:
        """Return what the training loss calls in place of the model."""
        if isinstance(self._parallel, DDP):
            places = [self._device] if self._device.type == "cuda" else None
            self._wrapped = nn.parallel.DistributedDataParallel(
                forward, device_ids=places, find_unused_parameters=self._parallel.unused
            )
            return self._wrapped
        return forward

    def part(self, batch: Batch) -> tuple[Batch, float]:
        """Return this rank's part of a batch, and the weight of its mean: R n_r / n.

        The mean of the weighted losses over the ranks is the mean over the batch. A rank for which
        no example is left takes one with the weight zero, for all must call the model.
        """
        if self.size == 1:
            return batch, 1.0
        count = examples_in(batch)
        first, last = (count * rank // self.size for rank in (self.rank, self.rank + 1))
        part = part_of(batch, first, last) if first < last else part_of(batch, 0, 1)
        return part, self.size * (last - first) / count

    def accumulating(self, *, last: bool) -> AbstractContextManager[Any]:
        """Return a context in which gradients are exchanged after the last piece only."""
        if isinstance(self._wrapped, nn.parallel.DistributedDataParallel) and not last:
            return self._wrapped.no_sync()
        if self.sharded:
            wrapped: Any = self._wrapped
            wrapped.set_requires_gradient_sync(last)
        return nullcontext()

    def with_last(self, items: Iterable[_Item]) -> Iterator[tuple[_Item, bool]]:
        """Yield items with whether each is the last; alone, where none is asked for, True."""
        if self.size == 1:  # without looking ahead, for that may draw random numbers
            for item in items:
                yield item, True
            return
        waiting: list[_Item] = []
        for item in items:
            if waiting:
                yield waiting.pop(), False
            waiting.append(item)
        if waiting:
            yield waiting.pop(), True

    def mean(self, value: Tensor) -> Tensor:
        """Return the mean of a scalar over the ranks, on each of them."""
        if self.size == 1:
            return value
        whole = value.detach().clone()
        distributed.all_reduce(whole)
        return whole / self.size

    def means(self, values: Sequence[float]) -> list[float]:
        """Return the mean of each of some numbers over the ranks, on each of them."""
        if self.size == 1:
            return list(values)
        found: list[float] = self.mean(
            torch.tensor(values, dtype=torch.float64, device=self._device)
        ).tolist()
        return found

    def agreed(self, flag: bool) -> bool:
        """Return what the first rank says, on each of them."""
        if self.size == 1:
            return flag
        value = torch.tensor(int(flag), device=self._device)
        distributed.broadcast(value, src=0)
        return bool(value)


def whole_tensor(value: Tensor) -> Tensor:
    """Return a tensor that is sharded as a plain one.

    Example:
        >>> whole_tensor(torch.tensor(1.0))
        tensor(1.)
    """
    full = getattr(value, "full_tensor", None)
    return value if full is None else full()


def device_of_rank(device: torch.device) -> torch.device:
    """Return the GPU of this process among those of the machine, as `torchrun` counts them.

    Example:
        >>> device_of_rank(torch.device("cpu"))
        device(type='cpu')
    """
    if device.type != "cuda" or device.index is not None or "LOCAL_RANK" not in os.environ:
        return device
    mine = torch.device("cuda", int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())
    torch.cuda.set_device(mine)
    return mine


def _joined(device: torch.device) -> bool:
    """Whether this process is one of several; joins them if `torchrun` has started it."""
    if not distributed.is_available():
        return False
    if not distributed.is_initialized() and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        # With a group for the CPU as well, which checkpoints need
        backend = "gloo" if device.type == "cpu" else f"cpu:gloo,{device.type}:nccl"
        distributed.init_process_group(backend)
    return distributed.is_initialized() and distributed.get_world_size() > 1
