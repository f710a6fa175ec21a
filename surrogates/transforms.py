"""Output transforms applied to a vector of losses before a Gaussian process is fitted.

Which one is best depends on the problem and on the stage of the search, so the engine cycles
through `CYCLE` from ask to ask; hedging was measured to beat every single transform. All three end
in a standardization, increase with the loss and are *not* meant to be inverted: predictions shown
to people come from the `Transform.RAW` model.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from surrogates.data import Array

_LOG_OFFSET = 0.05  # of the distance from best to median: bounds the slope at the best value
_SMALLEST_UNIT = 1e-300  # of the largest value: dividing by a subnormal number overflows
_WINSOR_REACH = 1.5  # values beyond median + reach * (median - best) say only "bad"


class Transform(Enum):
    """A monotone map of losses `(n,)` to standardized values `(n,)`.

    `RAW` only standardizes, `LOG` stretches differences between good values, and `WINSOR` treats
    all values far beyond the median alike.

    Example:
        >>> Transform.WINSOR(np.array([1.0, 2.0, 3.0, 1000.0])).round(2).tolist()
        [-1.22, -0.5, 0.23, 1.49]
    """

    RAW = "raw"
    LOG = "log"
    WINSOR = "winsor"

    def __call__(self, y: Array) -> Array:
        """Return the transformed losses, `(n,)`, standardized."""
        largest = float(np.max(np.abs(y), initial=0.0))
        y = y / max(largest, np.finfo(float).tiny)  # no overflow below
        if self is Transform.LOG:
            return standardize(_log(y))
        if self is Transform.WINSOR:
            return standardize(_winsorize(y))
        return standardize(y)


CYCLE = (Transform.LOG, Transform.WINSOR, Transform.RAW)


def location_scale(y: Array) -> tuple[float, float]:
    """Return mean and standard deviation of finite `y`, safe from overflow.

    Constant values get their magnitude as scale (zeros get 1), so that they standardize to zeros.

    Args:
        y: `(n,)`; n may be 0, which gives 0 and 1.

    Example:
        >>> location_scale(np.array([1.0, 3.0]))
        (2.0, 1.0)
    """
    if not len(y):
        return 0.0, 1.0
    unit = float(np.max(np.abs(y)))
    if unit == 0.0:
        return 0.0, 1.0
    scaled = y / unit
    scale = float(np.std(scaled)) * unit
    if scale <= 1e-12 * unit:  # constant up to rounding
        return float(np.mean(scaled)) * unit, max(unit, np.finfo(float).tiny)
    return float(np.mean(scaled)) * unit, scale


def standardize(y: Array) -> Array:
    """Return `(y - mean) / sd`; zeros for constant values.

    Args:
        y: `(n,)`, finite.

    Example:
        >>> standardize(np.array([1.0, 3.0])).tolist()
        [-1.0, 1.0]
    """
    location, scale = location_scale(y)
    return np.asarray((y - location) / scale)


def _log(y: Array) -> Array:
    """Return `ln((y - best) / (median - best) + 0.05)`; it stretches good values."""
    best, unit = _best_and_unit(y)
    return np.asarray(np.log((y - best) / unit + _LOG_OFFSET))


def _winsorize(y: Array) -> Array:
    """Return `y` with every value beyond the reach set to the reach."""
    best, unit = _best_and_unit(y)
    return np.minimum(y, best + (1.0 + _WINSOR_REACH) * unit)


def _best_and_unit(y: Array) -> tuple[float, float]:
    """Return the best value and its distance to the median (to the worst if more than half tie)."""
    best = float(np.min(y))
    unit = float(np.median(y)) - best
    if unit <= 0.0:
        unit = float(np.max(y)) - best
    return best, max(unit, _SMALLEST_UNIT) if unit > 0.0 else 1.0
