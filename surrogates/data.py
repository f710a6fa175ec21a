"""Training data of the surrogates: rows of numbers and the role of each column.

Notation, used in every module of this package:

=========  =========  ==============================================================================
`X`        n x d      encoded rows. Numeric columns lie about in [0, 1], categorical ones hold codes
`y`        (n,)       targets, smaller is better for a loss
`x`                   a numeric entry of `X`; its natural value is `origin + width * x`
natural               ln(value) for a log parameter, log-odds for a logit one, the value otherwise
=========  =========  ==============================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
IntArray = NDArray[np.intp]


class ColumnKind(Enum):
    """The role of one column of `X`.

    Example:
        >>> [kind.value for kind in ColumnKind]
        ['decision', 'scale', 'fidelity', 'categorical', 'activity']
    """

    DECISION = "decision"  # numeric, to be tuned
    SCALE = "scale"  # numeric, ln of a size such as parameters or tokens
    FIDELITY = "fidelity"  # numeric, how far one run was trained
    CATEGORICAL = "categorical"  # codes 0 .. k-1
    ACTIVITY = "activity"  # 1 where a group of conditional columns is active, else 0


@dataclass(frozen=True, slots=True)
class Columns:
    """The role, name and unit of each column of `X`.

    Args:
        kinds: kind of each column.
        names: name of each column, for messages only.
        origin: `(d,)`, natural value at x = 0 (0 for categorical columns).
        width: `(d,)`, natural length of the unit interval, > 0 (1 for categorical columns).
        categories: number of codes of each column, 0 for numeric ones.
        relative: whether a natural unit of a column is an e-fold of its value or of its odds, the
            same step whatever the range; empty for no column.

    Raises:
        ValueError: when the lengths differ or a width is not positive and finite.

    Example:
        >>> columns = Columns(
        ...     (ColumnKind.DECISION, ColumnKind.CATEGORICAL), ("lr", "optimizer"),
        ...     np.zeros(2), np.ones(2), (0, 3),
        ... )
        >>> columns.numeric.tolist(), columns.categorical.tolist()
        ([0], [1])
    """

    kinds: tuple[ColumnKind, ...]
    names: tuple[str, ...]
    origin: Array
    width: Array
    categories: tuple[int, ...]
    relative: tuple[bool, ...] = ()

    def __post_init__(self) -> None:
        d = len(self.kinds)
        if self.relative and len(self.relative) != d:
            raise ValueError(f"`relative` needs one entry per column: {d}, got {self.relative}")
        lengths = (len(self.names), len(self.origin), len(self.width), len(self.categories))
        if any(length != d for length in lengths):
            raise ValueError(f"every field needs one entry per column: {d} kinds, got {lengths}")
        if not (np.all(np.isfinite(self.origin)) and np.all(np.isfinite(self.width))):
            raise ValueError("origin and width must be finite")
        if np.any(self.width <= 0):
            raise ValueError(f"width must be positive, got {self.width}")

    @classmethod
    def of_decisions(cls, *names: str) -> Columns:
        """Return tuned numeric columns whose natural values are the entries of `X` themselves.

        Args:
            names: name of each column.

        Example:
            >>> Columns.of_decisions("x", "y").decision.tolist()
            [0, 1]
        """
        d = len(names)
        return cls((ColumnKind.DECISION,) * d, names, np.zeros(d), np.ones(d), (0,) * d)

    @property
    def numeric(self) -> IntArray:
        """Indices of the DECISION, SCALE and FIDELITY columns."""
        return self._where(ColumnKind.DECISION, ColumnKind.SCALE, ColumnKind.FIDELITY)

    @property
    def categorical(self) -> IntArray:
        """Indices of the CATEGORICAL and ACTIVITY columns."""
        return self._where(ColumnKind.CATEGORICAL, ColumnKind.ACTIVITY)

    @property
    def decision(self) -> IntArray:
        """Indices of the DECISION columns."""
        return self._where(ColumnKind.DECISION)

    @property
    def scale(self) -> IntArray:
        """Indices of the SCALE columns."""
        return self._where(ColumnKind.SCALE)

    @property
    def fidelity(self) -> IntArray:
        """Indices of the FIDELITY columns."""
        return self._where(ColumnKind.FIDELITY)

    def one_hot(self, X: Array) -> Array:
        """Return one column per code of every categorical or activity column.

        Args:
            X: `n x d`.

        Returns:
            `n x codes`, 0 or 1. A code outside the known ones gives zeros.

        Example:
            >>> columns = Columns((ColumnKind.CATEGORICAL,), ("c",), np.zeros(1), np.ones(1), (3,))
            >>> columns.one_hot(np.array([[2.0], [0.0]])).tolist()
            [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
        """
        blocks = [
            (X[:, q, None] == np.arange(self.categories[q])).astype(np.float64)
            for q in self.categorical
        ]
        return np.concatenate([np.empty((len(X), 0)), *blocks], axis=1)

    def _where(self, *kinds: ColumnKind) -> IntArray:
        return _places(self.kinds, kinds)


@lru_cache(maxsize=1024)  # they are asked for a hundred times an ask
def _places(kinds: tuple[ColumnKind, ...], wanted: tuple[ColumnKind, ...]) -> IntArray:
    places = np.array([i for i, kind in enumerate(kinds) if kind in wanted], dtype=np.intp)
    places.flags.writeable = False
    return places


@dataclass(frozen=True, slots=True)
class TrainingData:
    """Finite rows and targets, checked once on construction.

    Args:
        X: `n x d`.
        y: `(n,)`.
        columns: meaning of the d columns.

    Raises:
        ValueError: on shapes that disagree or numbers that are not finite, naming the row.

    Example:
        >>> data = TrainingData(np.zeros((3, 1)), np.arange(3.0), Columns.of_decisions("x"))
        >>> len(data)
        3
    """

    X: Array
    y: Array
    columns: Columns

    def __post_init__(self) -> None:
        if self.X.ndim != 2 or self.X.shape[1] != len(self.columns.kinds):
            raise ValueError(f"X must be n x {len(self.columns.kinds)}, got {self.X.shape}")
        if self.y.shape != (len(self.X),):
            raise ValueError(f"y must be ({len(self.X)},), got {self.y.shape}")
        for name, values in (("X", self.X), ("y", self.y[:, None])):
            bad = np.flatnonzero(~np.all(np.isfinite(values), axis=1))
            if len(bad):
                raise ValueError(f"{name} must be finite, row {bad[0]} is {values[bad[0]]}")

    def __len__(self) -> int:
        return len(self.y)
