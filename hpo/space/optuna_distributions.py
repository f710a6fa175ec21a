"""Convert Optuna distributions to parameters and back."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

from hpo.errors import SpaceError
from hpo.space.checks import Number
from hpo.space.parameters import Categorical, Fidelity, Float, Int, Parameter, Scale

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

#: A grid of an Optuna distribution becomes an ordinal up to this many values.
LARGEST_GRID = 1000


def from_distribution(distribution: BaseDistribution) -> Parameter:
    """Return the parameter that searches the values of an Optuna distribution.

    Args:
        distribution: distribution of one parameter.

    Raises:
        SpaceError: for a distribution without a counterpart, or a grid of too many values.

    Example:
        >>> from optuna.distributions import IntDistribution
        >>> from_distribution(IntDistribution(1, 7, step=2)).choices
        (1, 3, 5, 7)
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return Categorical(distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        if low % step == 0:
            return Int(low, high, log=distribution.log, multiple_of=step)
        return Categorical(_grid(low, high, step), ordered=True)
    if isinstance(distribution, FloatDistribution):
        if distribution.step is None:
            return Float(distribution.low, distribution.high, log=distribution.log)
        grid = _grid(distribution.low, distribution.high, distribution.step)
        return Categorical(grid, ordered=True)
    raise SpaceError(
        f"only float, int and categorical Optuna distributions have a counterpart, got"
        f" {distribution!r}; write it as Float, Int or Categorical"
    )


def _grid(low: Number, high: Number, step: Number) -> tuple[Number, ...]:
    """List low, low + step, ..., high in decimals: steps of 0.1 give 0.3, not 0.3000...04."""
    start, stride = Decimal(repr(low)), Decimal(repr(step))
    last = int((Decimal(repr(high)) - start) / stride)
    if last >= LARGEST_GRID:
        raise SpaceError(
            f"a range with a step is searched as a grid of at most {LARGEST_GRID}"
            f" values, got {last + 1}; use a coarser step, or Float or Int without one"
        )
    return tuple(type(low)(start + k * stride) for k in range(last + 1))


def to_distribution(
    parameter: Parameter, value: Any, box: tuple[float, float] | None
) -> BaseDistribution:
    """Return an Optuna distribution that holds a parameter's values.

    Args:
        parameter: parameter as declared.
        value: value of the config to be stored, which the distribution has to hold: it is widened
            for one outside the range.
        box: range in v that was searched, for an unbounded parameter; None for `value` alone.

    Example:
        >>> to_distribution(Float(1e-4, 1e-1, log=True), 1e-3, None)
        FloatDistribution(high=0.1, log=True, low=0.0001, step=None)
    """
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, Fidelity):
        return IntDistribution(parameter.low, parameter.high)
    if isinstance(parameter, Scale):
        return FloatDistribution(min(parameter.low, value), max(parameter.high, value), log=True)
    low, high = parameter.limits
    if not parameter.bounded:
        searched = (value, value) if box is None else box
        low, high = max(low, min(searched[0], value)), min(high, max(searched[1], value))
    low, high = min(low, value), max(high, value)  # a run at the target may leave the range
    if isinstance(parameter, Float):
        return FloatDistribution(low, high, log=parameter.log)
    low = parameter.canonical(low, extrapolate=True)
    high = parameter.canonical(high, extrapolate=True)
    if parameter.log:
        # Optuna refuses a step on a log scale; our values are a subset of its integers.
        return IntDistribution(low, high, log=True)
    return IntDistribution(low, high, step=parameter.multiple_of)
