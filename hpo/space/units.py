"""The unit in which a parameter is searched: its value, the logarithm of it, or its log-odds.

========  ====================  ==================  ====================
unit      natural value of v    domain of v         written
========  ====================  ==================  ====================
LINEAR    v                     all real numbers    ``dropout``
LOG       ln v                  v > 0               ``ln lr``
LOGIT     ln(v / (1 - v))       0 < v < 1           ``logit beta2``
========  ====================  ==================  ====================

This is the only place that knows the three maps. Every parameter offers its own as
`parameter.unit`.
"""

from __future__ import annotations

import math
from enum import Enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # NumPy is imported where it is used, so that `import hpo` stays fast.
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Unit"]

#: exp overflows beyond 709.8.
_LOG_LIMIT = 709.0

#: Largest relative error of exp(ln v), which is 1.5e-13 at the largest v, and a little.
_ROUNDING = 4e-13


class Unit(Enum):
    """Scale on which equal distances mean equal changes of a parameter.

    Example:
        >>> from hpo import Float
        >>> Float(1e-4, 1e-1, log=True).unit
        <Unit.LOG: 'log'>
        >>> Float(0.9, 0.999, logit=True).unit.label("beta2")
        'logit beta2'
    """

    LINEAR = "linear"
    LOG = "log"
    LOGIT = "logit"

    @property
    def domain(self) -> tuple[float, float]:
        """Open interval of the values that have a natural value.

        Example:
            >>> Unit.LOGIT.domain
            (0.0, 1.0)
        """
        if self is Unit.LINEAR:
            return -math.inf, math.inf
        return 0.0, math.inf if self is Unit.LOG else 1.0

    def label(self, name: str) -> str:
        """Return how the natural value of the parameter `name` is written.

        Args:
            name: name of the parameter in its space.

        Example:
            >>> [unit.label("lr") for unit in Unit]
            ['lr', 'ln lr', 'logit lr']
        """
        return {Unit.LINEAR: "", Unit.LOG: "ln ", Unit.LOGIT: "logit "}[self] + name

    def to_natural(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the natural values of an array.

        Args:
            values: values as the user writes them, any shape, inside the domain.

        Example:
            >>> import numpy as np
            >>> Unit.LOG.to_natural(np.array([1.0, np.e]))
            array([0., 1.])
        """
        import numpy as np

        if self is Unit.LOG:
            return np.log(values)
        if self is Unit.LOGIT:
            logit: NDArray[np.float64] = np.log(values) - np.log1p(-values)
            return logit
        return values

    def from_natural(self, natural: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the values of an array of natural values, the inverse of `to_natural`.

        Args:
            natural: natural values, any shape. Values that would overflow stay finite.

        Example:
            >>> import numpy as np
            >>> Unit.LOGIT.from_natural(np.array([0.0, np.log(9.0)])).round(6)
            array([0.5, 0.9])
        """
        import numpy as np

        if self is Unit.LOG:
            return np.exp(np.clip(natural, -_LOG_LIMIT, _LOG_LIMIT))
        if self is Unit.LOGIT:
            odds = np.exp(-np.abs(natural))
            smaller = odds / (1.0 + odds)  # min(p, 1 - p), without cancellation
            probability: NDArray[np.float64] = np.where(natural < 0, smaller, 1.0 - smaller)
            return probability
        return natural

    def natural_of(self, value: float) -> float:
        """Return the natural value of one number.

        The last digit may differ from `to_natural`, which uses NumPy's logarithm.

        Args:
            value: value as the user writes it, inside the domain.

        Example:
            >>> round(Unit.LOG.natural_of(3e-4), 4)
            -8.1117
        """
        if self is Unit.LINEAR:
            return value
        return math.log(value) if self is Unit.LOG else math.log(value / (1.0 - value))

    def value_of(self, natural: float) -> float:
        """Return the value of one natural value, the inverse of `natural_of`.

        Args:
            natural: natural value. Values that would overflow stay finite.

        Example:
            >>> round(Unit.LOGIT.value_of(3.0), 4)
            0.9526
        """
        if self is Unit.LINEAR:
            return natural
        natural = min(max(natural, -_LOG_LIMIT), _LOG_LIMIT)
        return math.exp(natural) if self is Unit.LOG else 1.0 / (1.0 + math.exp(-natural))

    def is_rounding_of(self, value: float, end: float, *, width: float) -> bool:
        """Return whether a value differs from the end of a range by no more than rounding.

        It is wider than the way through natural values and back, and narrower than half a step of
        canonical values.

        Args:
            value: value as the user writes it.
            end: end of the range.
            width: width of the range, for linear units.

        Example:
            >>> import math
            >>> Unit.LOG.is_rounding_of(math.exp(math.log(1e3)), 1e3, width=0.0)
            True
            >>> Unit.LINEAR.is_rounding_of(0.1 + 0.2, 0.3, width=0.3)
            True
            >>> Unit.LOGIT.is_rounding_of(1.0, 1.0 - 1e-15, width=1.0)
            False
        """
        if self is Unit.LINEAR:
            return abs(value - end) <= _ROUNDING * width + 2.0 * math.ulp(end)
        if self is Unit.LOGIT:
            return abs(value - end) <= _ROUNDING * min(end, 1.0 - end) + 2.0 * math.ulp(0.5)
        return abs(value - end) <= _ROUNDING * end
