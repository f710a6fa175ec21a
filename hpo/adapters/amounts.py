"""Numbers that other tools hand over: taken if they are numbers, ignored if not.

Values told by a user directly are checked and refused instead (`hpo.optimizer.ask_tell.number`);
what a number is, is the same (`hpo.space.scalars`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpo.space.scalars import metric_values, real

__all__ = ["amount_or_none", "number_or_none", "numbers_among"]


def number_or_none(value: Any) -> float | None:
    """Return `value` as a float, NaN and infinities included; None if it is not one number.

    Example:
        >>> import numpy as np
        >>> [number_or_none(value) for value in (2, np.float32(0.5), True, "2", None)]
        [2.0, 0.5, None, None, None]
    """
    return real(value)


def amount_or_none(value: Any) -> float | None:
    """Return `value` as a finite float of at least 0; None for anything else.

    Example:
        >>> [amount_or_none(value) for value in (2, -1.0, float("inf"), "2")]
        [2.0, None, None, None]
    """
    number = number_or_none(value)
    return number if number is not None and math.isfinite(number) and number >= 0 else None


def numbers_among(metrics: Mapping[Any, Any]) -> dict[str, float]:
    """Return those of a tool's metrics that are numbers, as floats by name.

    Example:
        >>> import numpy as np
        >>> numbers_among({"f1": np.float32(0.5), "ok": True, "name": "bert", "rows": np.ones(2)})
        {'f1': 0.5, 'ok': 1.0}
    """
    kept: dict[str, float] = {}
    for name, value in metrics.items():
        try:
            kept |= metric_values({name: value}, texts=False)
        except TypeError:  # a text, a table, a curve
            continue
    return kept
