"""Device, number format, random states, memory and peak rate of a training run."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from typing import Any

import numpy as np
import torch

from hpo.space.arguments import Count, Kind

#: Dense bfloat16 FLOP/s without sparsity by a part of the device's name, from the vendor's data
#: sheets. The first part that the name contains counts.
_PEAK_FLOPS: Mapping[str, float] = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
}


class Precision(Enum):
    """Number format of matrix products; weights and optimizer states are always float32.

    Example:
        >>> Precision("bfloat16")
        <Precision.BFLOAT16: 'bfloat16'>
    """

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


def best_device() -> torch.device:
    """Return the CUDA device if there is one, else Apple's Metal device, else the CPU.

    Example:
        >>> best_device().type in ("cuda", "mps", "cpu")
        True
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def peak_flops_per_second(device: torch.device) -> float | None:
    """Return the peak dense bfloat16 FLOP/s from the device's data sheet, or None if unknown.

    Example:
        >>> peak_flops_per_second(torch.device("cpu")) is None
        True
    """
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_FLOPS.items() if part in name), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether `error` means that host or device memory was exhausted.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("shapes differ"))
        (True, False)
    """
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    # torch has no exception type for the CPU and for some CUDA libraries.
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "not enough memory" in text or "out of memory" in text
    )


def free_memory(device: torch.device) -> None:
    """Release memory that no live object holds any more.

    Example:
        >>> free_memory(torch.device("cpu"))
    """
    gc.collect()  # models hold reference cycles, which would keep their tensors
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global generators of torch, NumPy and Python inside, and restore them afterwards.

    Layers, dropout and many augmentations draw from these and accept no generator.

    Args:
        seed: Seed of all generators.
        device: Device whose generator is restored besides that of the CPU.

    Example:
        >>> cpu = torch.device("cpu")
        >>> with seeded(0, cpu):
        ...     first = torch.rand(1)
        >>> with seeded(0, cpu):
        ...     second = torch.rand(1)
        >>> torch.equal(first, second)
        True
    """
    seed = Count(0, most=2**64 - 1)(seed, "`seed`")
    device = Kind(torch.device, way_out='write torch.device("cpu")')(device, "`device`")
    before = random_states(device)
    try:
        torch.manual_seed(seed)  # on all devices
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        restore_random_states(before, device)


def random_states(device: torch.device) -> dict[str, Any]:
    """Return the states of the global generators, as tensors and plain values for a checkpoint.

    Args:
        device: Device whose generator is included besides that of the CPU.

    Example:
        >>> sorted(random_states(torch.device("cpu")))
        ['numpy', 'python', 'torch']
    """
    # legacy=False is for typing only: the dict form of MT19937
    numpy_state = np.random.get_state(legacy=False)
    assert isinstance(numpy_state, dict)
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": {
            "key": torch.from_numpy(numpy_state["state"]["key"].astype(np.int64)),
            "pos": int(numpy_state["state"]["pos"]),
            "has_gauss": int(numpy_state["has_gauss"]),
            "gauss": float(numpy_state["gauss"]),
        },
        "python": random.getstate(),
    }
    if device.type == "cuda":
        states["device"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["device"] = torch.mps.get_rng_state()
    return states


def restore_random_states(states: Mapping[str, Any], device: torch.device) -> None:
    """Set the global generators to what `random_states` returned.

    Args:
        states: Result of `random_states`.
        device: Device whose generator is set too, if `states` has it.

    Example:
        >>> cpu = torch.device("cpu")
        >>> states = random_states(cpu)
        >>> first = torch.rand(1)
        >>> restore_random_states(states, cpu)
        >>> torch.equal(first, torch.rand(1))
        True
    """
    torch.set_rng_state(states["torch"])
    stored = states["numpy"]
    key = stored["key"].numpy().astype(np.uint32)
    np.random.set_state(("MT19937", key, stored["pos"], stored["has_gauss"], stored["gauss"]))
    version, internal, gauss = states["python"]
    random.setstate((version, tuple(internal), gauss))
    if "device" in states and device.type == "cuda":
        torch.cuda.set_rng_state(states["device"], device)
    elif "device" in states and device.type == "mps":
        torch.mps.set_rng_state(states["device"])
