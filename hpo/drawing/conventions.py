"""What all pictures share: colors, which losses are drawn, and units of time.

The colors are those of Okabe and Ito (2008), which people with any form of color blindness can
tell apart; kinds of marks differ in shape as well.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from surrogates.data import Array

GRAY, BLUE, ORANGE, GREEN = "#6e6e6e", "#0072b2", "#d55e00", "#009e73"
PURPLE, SKY, YELLOW = "#cc79a7", "#56b4e9", "#e69f00"

#: Colors of trials by status; a trial that failed has `FAILED_COLOR`.
STATUS_COLORS = {"completed": BLUE, "paused": SKY, "stopped": YELLOW, "pending": GRAY}
FAILED_COLOR = ORANGE
NOT_ENOUGH = "not enough data: the model is as unsure as the settings differ"

_SHOWN = 0.8  # of the losses lie in the better half of the picture or above it


def near_best(loss: Array, maximize: bool = False) -> NDArray[np.bool_]:
    """Return which losses are drawn: those far worse than most would squeeze the others, `(n,)`.

    Example:
        >>> near_best(np.array([1.0, 1.1, 1.2, 1.3, 1.4, 90.0])).tolist()
        [True, True, True, True, True, False]
    """
    if not len(loss):
        return np.zeros(0, dtype=np.bool_)
    losses = -loss if maximize else loss
    near = np.quantile(losses, _SHOWN)
    return np.asarray(losses <= near + (near - np.min(losses)))


def rank_of(loss: Array, maximize: bool) -> Array:
    """Return 0 for the worst loss, 1 for the best, and evenly in between, `(n,)`."""
    order = np.argsort(loss if maximize else -loss, kind="stable")
    rank = np.empty(len(loss))
    rank[order] = np.linspace(0.0, 1.0, len(loss)) if len(loss) > 1 else 1.0
    return rank


def time_unit(longest: float) -> tuple[float, str]:
    """Return the seconds of the unit in which a time is shown, and its name.

    Example:
        >>> time_unit(7200.0)
        (60.0, 'minutes')
    """
    if longest > 3 * 3600:
        return 3600.0, "hours"
    return (60.0, "minutes") if longest > 300 else (1.0, "seconds")
