"""The machine under a training run: device, precision, random streams, memory, peak rate."""

from __future__ import annotations

import gc
import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

#: Dense bfloat16 FLOP/s without sparsity by a part of the device's name, from the vendor's data
#: sheets; the first that fits counts.
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


def best_device() -> torch.device:
    """CUDA, else Apple's Metal, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def peak_flops_per_second(device: torch.device) -> float | None:
    """What the device could do at best in bfloat16 by its data sheet; None where not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in _PEAK_FLOPS.items() if part in name), None)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that host or device memory did not suffice."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    # torch has no type of its own for the CPU and for some CUDA libraries
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "not enough memory" in text or "out of memory" in text
    )


def free_memory(device: torch.device) -> None:
    """Give back what no live object holds any more."""
    gc.collect()  # models hold reference cycles, which would keep their tensors
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds the global streams of torch, NumPy and Python inside, puts them back after.

    Layers, dropout and many augmentations draw from them and take no generator.
    """
    before = random_states(device)
    try:
        torch.manual_seed(seed)  # on all devices
        np.random.seed(seed % 2**32)
        random.seed(seed)
        yield
    finally:
        restore_random_states(before, device)


def random_states(device: torch.device) -> dict[str, Any]:
    """Where the global streams stand, as tensors and plain values that a checkpoint may hold."""
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
    """Put the global streams where `random_states` found them."""
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
