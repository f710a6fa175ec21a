"""Seeds for rivals that draw from the process-wide generators.

A run must be repeatable and must not depend on earlier runs in the same process, so such a rival is
called with the global generators seeded by (seed, step), which are restored afterwards.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int, step: int) -> Iterator[None]:
    """Python's, NumPy's and (where it is loaded) torch's global generators under (seed, step)."""
    torch = sys.modules.get("torch")
    numpy_state, python_state = np.random.get_state(), random.getstate()
    torch_state = None if torch is None else torch.get_rng_state()
    key = int(np.random.SeedSequence([seed, step]).generate_state(1)[0])
    np.random.seed(key)
    random.seed(key)
    if torch is not None:
        torch.manual_seed(key)
    try:
        yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        if torch is not None:
            torch.set_rng_state(torch_state)
