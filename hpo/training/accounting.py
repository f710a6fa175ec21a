"""What a training run consumes: parameters, tokens, FLOPs, seconds, memory, energy.

FLOPs come from formulas for the built-in models and from torch's counter for others. One
multiply-add is two FLOPs. Matrix products are counted exactly; norms, activations, softmax and
the optimizer's update, all linear in the size of their operands, are not. Attention is counted over
the full T x T square, as is the custom (Chowdhery et al., 2022, appendix B), although a causal
kernel may skip half of it. The backward pass takes two products for each one of the forward pass.
Symbols are those of `transformer`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hpo.training.data import examples_in
from hpo.training.transformer import VOCABULARY, Shape


class Quantity(Enum):
    """What `TorchTrainer` may report as the cost of a trial."""

    FLOPS = "flops"
    TOKENS = "tokens"
    EXAMPLES = "examples"
    SECONDS = "seconds"
    PEAK_MEMORY = "peak_memory"
    ENERGY = "energy"


@dataclass(frozen=True, slots=True)
class Work:
    """What training on one example takes: FLOPs forward and backward, and tokens."""

    flops: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Parameters:
    """Counts: `embedding` parameters are looked up or read out, `rest` are all others."""

    rest: int
    embedding: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has consumed so far, of all its stages.

    `seconds`: of training and evaluation. `peak_memory`: bytes; on a CUDA device those that
    tensors took there, else the largest resident size of the process. `energy`: joules of the whole
    device, None where NVML does not tell.
    """

    parameters: Parameters
    examples: int
    work: Work
    seconds: float
    peak_memory: int
    energy: float | None

    def of(self, quantity: Quantity) -> float:
        """The amount of `quantity`. Raises `ValueError` for energy that nobody measured."""
        if quantity is Quantity.ENERGY and self.energy is None:
            raise ValueError(
                "cost=Quantity.ENERGY needs a CUDA device and the package nvidia-ml-py; "
                "install it or name another quantity"
            )
        amounts = {
            Quantity.FLOPS: self.examples * self.work.flops,
            Quantity.TOKENS: self.examples * self.work.tokens,
            Quantity.EXAMPLES: float(self.examples),
            Quantity.SECONDS: self.seconds,
            Quantity.PEAK_MEMORY: float(self.peak_memory),
            Quantity.ENERGY: self.energy or 0.0,
        }
        return amounts[quantity]

    def metrics(self) -> dict[str, float]:
        """Everything by name, as it is stored on a trial."""
        amounts = {
            "params": float(self.parameters.rest),
            "embedding_params": float(self.parameters.embedding),
        }
        for quantity in Quantity:
            if quantity is not Quantity.ENERGY or self.energy is not None:
                amounts[quantity.value] = self.of(quantity)
        return amounts


def forward_flops_per_token(shape: Shape, context: int) -> float:
    """2 (L (4 d^2 + 2 d f) + d V) for the weights plus 4 L d T for attention.

    With fewer key and value heads, keys and values take 2 d d g / h in place of 2 d^2; with E
    experts of which k are used, the feed-forward takes 2 k d f and its router d E.
    """
    d, depth = shape.width, shape.depth
    used = shape.experts_used if shape.experts > 1 else 1
    router = d * shape.experts if shape.experts > 1 else 0
    attention = 2 * d * d + 2 * d * d * shape.key_value_heads // shape.heads
    weights = depth * (attention + 2 * d * shape.hidden * used + router) + d * VOCABULARY
    return float(2 * weights + 4 * depth * d * context)


def training_flops_per_token(shape: Shape, context: int) -> float:
    """Forward and backward: three times the forward pass."""
    return 3.0 * forward_flops_per_token(shape, context)


def counted_work(model: nn.Module, batch: Any, loss: Callable[[nn.Module, Any], Tensor]) -> Work:
    """FLOPs of one example forward and backward by torch's counter, and its tokens.

    Runs the model once on `batch`. Tokens are the integers in the first tensor of the batch that
    holds any, if it has more than one an example; else an example is one token.
    """
    from torch.utils.flop_counter import FlopCounterMode

    examples = examples_in(batch)
    # The counter knows plain matrix products, not the fused attention of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss(model, batch).backward()  # type: ignore[no-untyped-call]  # unannotated in torch
    model.zero_grad(set_to_none=True)
    return Work(counter.get_total_flops() / examples, _tokens_in(batch) / examples)


def counted_parameters(model: nn.Module) -> Parameters:
    """Those of `nn.Embedding` layers, and of weights shared with them, against all others."""
    embedded = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for weight in module.parameters()
    }
    weights = list(model.parameters())
    inside = sum(weight.numel() for weight in weights if id(weight) in embedded)
    return Parameters(sum(weight.numel() for weight in weights) - inside, inside)


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


class Meter:
    """Seconds, peak memory and energy from its making on, added to what earlier stages took."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._started = time.perf_counter()
        self._seconds = 0.0
        self._peak = 0
        self._energy = 0.0
        self._joules_at_start = _joules(device)
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)

    @property
    def seconds(self) -> float:
        return self._seconds + time.perf_counter() - self._started

    @property
    def peak_memory(self) -> int:
        if self._device.type == "cuda":
            return max(self._peak, torch.cuda.max_memory_allocated(self._device))
        return max(self._peak, _peak_resident())

    @property
    def energy(self) -> float | None:
        now = _joules(self._device)
        if now is None or self._joules_at_start is None:
            return None
        return self._energy + now - self._joules_at_start

    def state(self) -> dict[str, Any]:
        """For a checkpoint."""
        return {
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "energy": self.energy or 0.0,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Go on from an earlier stage's `state`."""
        self._seconds += state["seconds"]
        self._peak = max(self._peak, state["peak_memory"])
        self._energy += state["energy"]


def _tokens_in(batch: Any) -> int:
    tensors = [batch] if isinstance(batch, Tensor) else []
    if isinstance(batch, dict | list | tuple):
        items = batch.values() if isinstance(batch, dict) else batch
        tensors = [item for item in items if isinstance(item, Tensor)]
    for tensor in tensors:
        if tensor.ndim >= 2 and not tensor.is_floating_point():
            return tensor.numel()
    return examples_in(batch)


def _peak_resident() -> int:
    """The largest resident size of this process so far, bytes; 0 where the system does not tell."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return 0
    import sys

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _joules(device: torch.device) -> float | None:
    """What the device has consumed since its driver was loaded, by NVML."""
    if device.type != "cuda":
        return None
    try:
        import pynvml  # type: ignore[import-not-found]  # an optional package
    except ModuleNotFoundError:
        return None
    try:
        pynvml.nvmlInit()
        uuid = f"GPU-{torch.cuda.get_device_properties(device).uuid}"
        handle = pynvml.nvmlDeviceGetHandleByUUID(uuid)
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000.0
    except pynvml.NVMLError:  # before Volta, in some virtual machines
        return None
