"""What a training run consumes: parameters, tokens, FLOPs, seconds, memory, energy.

FLOPs come from formulas for the built-in models and from torch's counter for others. One
multiply-add is two FLOPs. Matrix products are counted exactly; norms, activations, softmax and
the optimizer's update, all linear in the size of their operands, are not. Attention is counted over
the full T x T square, as is usual (Chowdhery et al., 2022, appendix B), although a causal
kernel may skip half of it. The backward pass takes two products for each one of the forward pass.
Symbols are those of `transformer`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from hpo.space.arguments import Count, Kind, Number, store
from hpo.training.data import examples_in, tensors_in
from hpo.training.transformer import VOCABULARY, TransformerShape


class Quantity(Enum):
    """Quantity that `TorchTrainer` can report as the cost of a trial.

    Example:
        >>> Quantity("flops")
        <Quantity.FLOPS: 'flops'>
    """

    FLOPS = "flops"
    TOKENS = "tokens"
    EXAMPLES = "examples"
    SECONDS = "seconds"
    PEAK_MEMORY = "peak_memory"
    ENERGY = "energy"


@dataclass(frozen=True, slots=True)
class Work:
    """Work of training on one example.

    Args:
        flops: FLOPs of the forward and the backward pass.
        tokens: Tokens in the example.

    Example:
        >>> Work(flops=6e6, tokens=128).tokens
        128
    """

    flops: float
    tokens: float

    def __post_init__(self) -> None:
        amount = Number(least=0)
        store(self, flops=amount, tokens=amount)


@dataclass(frozen=True, slots=True)
class ParameterCount:
    """Number of parameters in two parts.

    Args:
        rest: Number of all other parameters.
        embedding: Number of parameters of input embeddings, and of output layers over a vocabulary.

    Example:
        >>> count_parameters(nn.Sequential(nn.Embedding(10, 4), nn.Linear(4, 3)))
        ParameterCount(rest=15, embedding=40)
    """

    rest: int
    embedding: int

    def __post_init__(self) -> None:
        store(self, rest=Count(0), embedding=Count(0))


@dataclass(frozen=True, slots=True)
class Usage:
    """What a run has consumed so far, over all its stages.

    Args:
        parameters: Number of parameters of the model.
        examples: Examples trained on.
        work: FLOPs and tokens of one example.
        seconds: Seconds of training and evaluation.
        peak_memory: Bytes; on a CUDA device those that tensors took there, else the largest
            resident size of the process.
        energy: Joules of the whole device; None where NVML does not report them.

    Example:
        >>> usage = Usage(ParameterCount(15, 40), 10, Work(2.0, 4.0), 1.5, 2**20, None)
        >>> usage.of(Quantity.TOKENS)
        40.0
    """

    parameters: ParameterCount
    examples: int
    work: Work
    seconds: float
    peak_memory: int
    energy: float | None

    def of(self, quantity: Quantity) -> float:
        """Return the amount of `quantity`.

        Args:
            quantity: FLOPs, tokens, examples, seconds, bytes or joules.

        Raises:
            ValueError: `quantity` is the energy, which could not be measured.
        """
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
        """Return all amounts by name, as they are stored on a trial.

        Example:
            >>> usage = Usage(ParameterCount(15, 40), 10, Work(2.0, 4.0), 1.5, 2**20, None)
            >>> usage.metrics()["params"], usage.metrics()["flops"]
            (15.0, 20.0)
        """
        amounts = {
            "params": float(self.parameters.rest),
            "embedding_params": float(self.parameters.embedding),
        }
        for quantity in Quantity:
            if quantity is not Quantity.ENERGY or self.energy is not None:
                amounts[quantity.value] = self.of(quantity)
        return amounts


def forward_flops_per_token(shape: TransformerShape, context: int) -> float:
    """Return 2 (L (4 d^2 + 2 d f) + d V) for the weights plus 4 L d T for attention.

    With fewer key and value heads, keys and values take 2 d d g / h in place of 2 d^2; with E
    experts of which k are used, the feed-forward takes 2 k d f and its router d E.

    Args:
        shape: Sizes of the transformer.
        context: Bytes per sequence, T.

    Example:
        >>> forward_flops_per_token(TransformerShape(8, 2, heads=2, hidden=16), context=10)
        6784.0
    """
    shape = Kind(TransformerShape, way_out="write params_to_shape(1e6)")(shape, "`shape`")
    context = Count(1, most=2**40, way_out="give the bytes of a sequence")(context, "`context`")
    d, depth = shape.width, shape.depth
    used = shape.experts_used if shape.experts > 1 else 1
    router = d * shape.experts if shape.experts > 1 else 0
    attention = 2 * d * d + 2 * d * d * shape.key_value_heads // shape.heads
    weights = depth * (attention + 2 * d * shape.hidden * used + router) + d * VOCABULARY
    return float(2 * weights + 4 * depth * d * context)


def training_flops_per_token(shape: TransformerShape, context: int) -> float:
    """Return the FLOPs of forward and backward pass, three times those of the forward pass.

    Args:
        shape: Sizes of the transformer.
        context: Bytes per sequence, T.

    Example:
        >>> training_flops_per_token(TransformerShape(8, 2, heads=2, hidden=16), context=10)
        20352.0
    """
    return 3.0 * forward_flops_per_token(shape, context)


def count_work(model: nn.Module, batch: Any, loss: Callable[[nn.Module, Any], Tensor]) -> Work:
    """Count FLOPs and tokens of one example by running the model once with torch's counter.

    Args:
        model: Model; its gradients are cleared afterwards.
        batch: Batch to run it on. Tokens are the integers in its first integer tensor with more
            than one dimension; without such a tensor, an example is one token.
        loss: Function of model and batch that returns a scalar.

    Example:
        >>> def loss(model, batch):
        ...     return model(batch).mean()
        >>> count_work(nn.Linear(4, 3, bias=False), torch.zeros(5, 4), loss)
        Work(flops=48.0, tokens=1.0)
    """
    from torch.utils.flop_counter import FlopCounterMode

    examples = examples_in(batch)
    # The counter knows plain matrix products, not the fused attention of a CPU.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        loss(model, batch).backward()  # type: ignore[no-untyped-call]  # unannotated in torch
    model.zero_grad(set_to_none=True)
    return Work(counter.get_total_flops() / examples, _tokens_in(batch) / examples)


def count_parameters(model: nn.Module) -> ParameterCount:
    """Count the parameters of `nn.Embedding` layers, and weights shared with them, and all others.

    Args:
        model: Model to count.

    Example:
        >>> count_parameters(nn.Linear(4, 3))
        ParameterCount(rest=15, embedding=0)
    """
    model = Kind(nn.Module)(model, "`model`")
    embedded = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for weight in module.parameters()
    }
    weights = list(model.parameters())
    inside = sum(weight.numel() for weight in weights if id(weight) in embedded)
    return ParameterCount(sum(weight.numel() for weight in weights) - inside, inside)


def achieved_flops_per_second(step: Callable[[], float], *, seconds: float) -> float:
    """Measure the FLOP/s of repeated calls of `step`.

    The first call is not timed: it allocates and warms caches.

    Args:
        step: Function that performs some work, waits for it to finish (which matters on a GPU) and
            returns the FLOPs that it took.
        seconds: Time to measure for, about.

    Example:
        >>> achieved_flops_per_second(lambda: 1e6, seconds=0.01) > 1e6
        True
    """
    step()
    start = time.perf_counter()
    work = 0.0
    while (elapsed := time.perf_counter() - start) < seconds or work == 0.0:
        work += step()
    return work / elapsed


class Meter:
    """Meter of seconds, peak memory and energy, from its construction on.

    Args:
        device: Device whose memory and energy are measured.

    Example:
        >>> meter = Meter(torch.device("cpu"))
        >>> meter.resume({"seconds": 60.0, "peak_memory": 0, "energy": 0.0})
        >>> meter.seconds >= 60
        True
    """

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
        """Elapsed seconds, with those of earlier stages."""
        return self._seconds + time.perf_counter() - self._started

    @property
    def peak_memory(self) -> int:
        """Peak memory in bytes, over all stages."""
        if self._device.type == "cuda":
            return max(self._peak, torch.cuda.max_memory_allocated(self._device))
        return max(self._peak, _peak_resident())

    @property
    def energy(self) -> float | None:
        """Joules of the device, with those of earlier stages; None if not measured."""
        now = _joules(self._device)
        if now is None or self._joules_at_start is None:
            return None
        return self._energy + now - self._joules_at_start

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {
            "seconds": self.seconds,
            "peak_memory": self.peak_memory,
            "energy": self.energy or 0.0,
        }

    def resume(self, state: dict[str, Any]) -> None:
        """Add what an earlier stage consumed, its `state`."""
        self._seconds += state["seconds"]
        self._peak = max(self._peak, state["peak_memory"])
        self._energy += state["energy"]


def _tokens_in(batch: Any) -> int:
    for tensor in tensors_in(batch):
        if tensor.ndim >= 2 and not tensor.is_floating_point():
            return tensor.numel()
    return examples_in(batch)


def _peak_resident() -> int:
    """Return the peak resident size of this process in bytes, or 0 if the system has no figure."""
    if sys.platform == "win32":
        return 0
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _joules(device: torch.device) -> float | None:
    """Return the joules of the device since its driver was loaded, as NVML reports them."""
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
