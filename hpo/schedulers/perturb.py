"""Small random changes of a config: the explore step of population-based training.

Jaderberg et al. (2017), section 4: a number is multiplied by 0.8 or 1.2 (its odds, where the
parameter is searched on a logit scale), or sometimes resampled.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from hpo.space import Categorical, Float, Int, Parameter, SearchSpace, Unit

_FACTORS = (0.8, 1.2)
_RESAMPLE_PROBABILITY = 0.25  # of a new value, where the parameter has bounds
_ATTEMPTS = 20  # before a config counts as one that cannot change


def perturb(
    space: SearchSpace, config: dict[str, Any], names: tuple[str, ...], *, rng: np.random.Generator
) -> dict[str, Any]:
    """Return a randomly changed copy of a config.

    Args:
        space: search space of `config`.
        config: values by name.
        names: parameters that change, those that are active in `config`; the rest stay as they are.
        rng: random numbers.

    Returns:
        A config of `space` that its `where` allows. It differs from `config` unless none of `names`
        can change.

    Example:
        >>> from hpo import Float, SearchSpace
        >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "dropout": Float(0.0, 0.5)})
        >>> config = {"lr": 0.01, "dropout": 0.1}
        >>> perturb(space, config, ("lr",), rng=np.random.default_rng(1))
        {'lr': 0.012, 'dropout': 0.1}
    """
    active = [name for name in names if name in config]
    for _ in range(_ATTEMPTS):
        changed = config | {name: _perturb_value(space[name], config[name], rng) for name in active}
        changed = space.canonical(changed, extrapolate=True)
        if changed != config and space.allows(changed):
            return changed
    return dict(config)


def _perturb_value(parameter: Parameter, value: Any, rng: np.random.Generator) -> Any:
    resampled = rng.random() < _RESAMPLE_PROBABILITY
    if isinstance(parameter, Categorical):
        return parameter.choices[int(rng.integers(len(parameter.choices)))] if resampled else value
    assert isinstance(parameter, Float | Int)
    low, high = parameter.low, parameter.high
    if resampled and low is not None and high is not None:
        return _uniform(parameter, float(low), float(high), float(rng.random()))
    factor = _FACTORS[int(rng.integers(2))]
    moved = value * factor
    if parameter.unit is Unit.LOGIT:
        odds = value / (1.0 - value) * factor
        moved = odds / (1.0 + odds)
    if isinstance(parameter, Int):
        step = parameter.multiple_of
        moved = value + math.copysign(max(step, abs(moved - value)), factor - 1.0)
        moved = step * round(moved / step)
    if low is not None:
        moved = max(moved, low)
    if high is not None:
        moved = min(moved, high)
    return moved


def _uniform(parameter: Float | Int, low: float, high: float, share: float) -> float | int:
    """Return the value at `share` of the range, in [0, 1], on the parameter's own scale."""
    bottom, top = parameter.unit.natural_of(low), parameter.unit.natural_of(high)
    value = parameter.unit.value_of(bottom + share * (top - bottom))
    if isinstance(parameter, Int):
        step = parameter.multiple_of
        return int(min(max(step * round(value / step), low), high))
    return min(max(value, low), high)
