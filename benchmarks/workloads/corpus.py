"""Text for language models that every machine has: the source of Python's standard library.

Training and validation text come from different files, told apart by a hash of the file's path, so
that the split depends neither on the order of the files nor on which others are present. The text
differs between Python releases: compare losses only under one release.
"""

from __future__ import annotations

import hashlib
import os
import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

SEPARATOR = b"\0"
"""Between files; occurs in no source file."""

_SKIPPED = frozenset(
    {"__pycache__", "site-packages", "dist-packages"}  # not the standard library's source
    | {"encodings", "pydoc_data"}  # generated tables and prose: a tenth of the bytes, no code
)
_TESTS = frozenset({"test", "tests", "idle_test"})


@dataclass(frozen=True, slots=True)
class Corpus:
    """Two texts, each a one-dimensional uint8 tensor with files joined by `SEPARATOR`."""

    train: Tensor
    validation: Tensor


def standard_library_files(*, tests: bool = False) -> list[Path]:
    """Return the paths of the standard library's `.py` files, relative to its root, sorted.

    Args:
        tests: whether to include the library's own tests, about half of all bytes.

    Raises:
        FileNotFoundError: if Python was installed without its sources.
    """
    root = _root()
    skipped = _SKIPPED if tests else _SKIPPED | _TESTS
    kept = []
    for folder, below, names in os.walk(root):
        below[:] = [name for name in below if name not in skipped]  # not entered
        kept += [
            (Path(folder) / name).relative_to(root)
            for name in names
            if name.endswith(".py") and not name.startswith("_sysconfigdata")
        ]
    if not kept:
        raise FileNotFoundError(
            f"no Python sources under {root}; install a Python that comes with its library source"
        )
    return sorted(kept, key=Path.as_posix)


def is_held_out(path: Path, *, fraction: float = 0.1) -> bool:
    """Return whether a file belongs to the validation text: about `fraction` of all paths do."""
    digest = hashlib.blake2b(path.as_posix().encode(), digest_size=8).digest()
    return int.from_bytes(digest) < fraction * 2**64


@cache
def standard_library(*, tests: bool = False) -> Corpus:
    """Return the standard library as one corpus; read once per process, 10 MB without tests."""
    files = standard_library_files(tests=tests)
    return Corpus(
        train=_read(path for path in files if not is_held_out(path)),
        validation=_read(path for path in files if is_held_out(path)),
    )


def sample_sequences(text: Tensor, count: int, length: int, *, rng: torch.Generator) -> Tensor:
    """Return `count x length` int64 bytes from uniformly drawn places in `text`, with replacement.

    `rng` lives on the CPU, so that a seed gives the same text on every device.
    """
    starts = torch.randint(len(text) - length + 1, (count,), generator=rng)
    return _windows(text, starts, length)


def spread_sequences(text: Tensor, count: int, length: int) -> Tensor:
    """Return `count x length` int64 bytes spread evenly over `text`: a fixed evaluation set."""
    starts = torch.linspace(0, len(text) - length, count, dtype=torch.float64).long()
    return _windows(text, starts, length)


def _windows(text: Tensor, starts: Tensor, length: int) -> Tensor:
    rows = (starts[:, None] + torch.arange(length)).to(text.device)
    return text[rows].long()


def _root() -> Path:
    return Path(sysconfig.get_path("stdlib"))


def _read(paths: Iterable[Path]) -> Tensor:
    root = _root()
    text = SEPARATOR.join((root / path).read_bytes() for path in paths)
    return torch.frombuffer(bytearray(text), dtype=torch.uint8)
