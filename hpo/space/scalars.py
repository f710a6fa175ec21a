"""Numbers that users hand over: the one place that says what counts as one.

A number is a real number of Python, `fractions` or `decimal`, a NumPy scalar, or what an array or
tensor with one element holds, whatever its shape. True and False are none, except among metrics.

======================  ==================================================
:func:`real`            a loss, cost, time, bound: float, or None
:func:`whole`           a seed, count, step: int, or None
:func:`metric_values`   the metrics of a report, a return or a tell
:func:`shown`           any value as text, for a message
======================  ==================================================
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import numpy as np

__all__ = ["metric_values", "real", "scalar", "shown", "to_float", "whole"]

_LONGEST_SHOWN = 200  # characters


def scalar(value: object) -> object:
    """Return what a NumPy scalar, or an array or tensor with one element, holds.

    Anything else is returned as it is.

    Example:
        >>> import numpy as np
        >>> scalar(np.array([[0.5]])), scalar(np.True_), scalar("0.5")
        (0.5, True, '0.5')
    """
    if type(value) in (int, float, bool, str) or value is None or not hasattr(value, "shape"):
        return value
    try:
        item = getattr(value, "item", None)
        if callable(item):
            return item()
        if hasattr(value, "__array__"):  # TensorFlow's tensors have no `item`
            return np.asarray(value).item()
    except (TypeError, ValueError, RuntimeError):  # the answers to more than one element
        pass
    return value


def real(value: object) -> float | None:
    """Return a number as a float, NaN and infinities included; None if it is no number.

    What is too large for a float is infinite.

    Example:
        >>> import numpy as np
        >>> from fractions import Fraction
        >>> [real(x) for x in (np.float32(0.5), np.ones((1, 1)), Fraction(1, 4), -(10**400))]
        [0.5, 1.0, 0.25, -inf]
        >>> [real(value) for value in (True, "0.5", None, 1j, np.ones(2))]
        [None, None, None, None, None]
    """
    value = scalar(value)
    if isinstance(value, bool | np.bool_) or not isinstance(value, numbers.Real | Decimal):
        return None
    try:
        return float(value)
    except OverflowError:
        return -math.inf if value < 0 else math.inf
    except ValueError:  # a signaling NaN of `decimal`
        return math.nan


def whole(value: object) -> int | None:
    """Return a whole number as an int, 3.0 included; None if it is not one.

    Example:
        >>> import numpy as np
        >>> [whole(value) for value in (np.int64(3), np.array([3]), 1e9, 1.5, True, "3")]
        [3, 3, 1000000000, None, None, None]
    """
    value = scalar(value)
    if isinstance(value, bool | np.bool_):
        return None
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real | Decimal):
        number = real(value)
        if number is not None and number.is_integer() and number == value:
            return int(number)
    return None


def to_float(value: object, argument: str) -> float:
    """Return a number as a float; it may be NaN or infinite.

    Args:
        value: Value to convert.
        argument: Name of the value in the message.

    Raises:
        TypeError: If it is no number.

    Example:
        >>> to_float(10**400, "loss")
        inf
    """
    number = real(value)
    if number is None:
        raise TypeError(
            f"{argument} must be a real number, got {shown(value)} of type {type(value).__name__}; "
            "convert it with float(...)"
        )
    return number


def metric_values(metrics: Mapping[Any, Any], *, texts: bool) -> dict[str, Any]:
    """Return metrics as floats by name: True and False are 1 and 0, and None is dropped.

    Args:
        metrics: Values by name.
        texts: Whether a metric may be a text.

    Raises:
        TypeError: If it is no mapping of names and such values.

    Example:
        >>> import numpy as np
        >>> metric_values({"ok": np.True_, "top1": np.array([0.5]), "bleu": None}, texts=False)
        {'ok': 1.0, 'top1': 0.5}
    """
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a dict of names and numbers, got {shown(metrics)}")
    values: dict[str, Any] = {}
    for name, given in metrics.items():
        value = scalar(given)
        if value is None:
            continue
        if isinstance(value, bool):
            values[str(name)] = float(value)
        elif texts and isinstance(value, str):
            values[str(name)] = str(value)
        else:
            values[str(name)] = to_float(given, f"metric {name!r}")
    return values


def shown(value: object) -> str:
    """Return a value as one line of text for a message, cut if it is long; it never raises.

    Example:
        >>> shown(0.5), shown(10**5000)
        ('0.5', 'a value of type int that cannot be printed')
    """
    try:
        text = repr(value)
    except Exception:  # Python refuses to print very long integers; a user's repr may do anything
        return f"a value of type {type(value).__name__} that cannot be printed"
    text = " ".join(line.strip() for line in text.split("\n"))  # arrays take several lines
    return text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}..."
