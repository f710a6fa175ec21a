"""What a transfer rule claims: slopes and levels of the best setting, with their uncertainty."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from hpo.errors import SpaceError
from hpo.space import SearchSpace

Normal: TypeAlias = tuple[float, float]  # mean and standard deviation


@dataclass(frozen=True, slots=True)
class Slope:
    """Claim: along `scale`, the optimum of `parameter` moves by `mean` +- `sd` per natural unit.

    With `given`, the claim holds for other parameters held still, and `given[k]` says how far the
    optimum follows parameter k::

        dz*/ds = mean + sum_k given[k] dz*_k/ds,    +- sd

    A claim is a rule itself: ``priors=[MuP(), Slope("lr", "tokens", -0.3, 0.1)]``.

    Args:
        parameter, scale: names in the space.
        mean, sd: natural units of the parameter per ln of the scale; sd > 0.
        given: other parameters by name.

    Raises:
        SpaceError: for numbers that are not finite, or an sd that is not positive.
    """

    parameter: str
    scale: str
    mean: float
    sd: float
    given: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_normal(self)
        if self.parameter in self.given or not all(map(math.isfinite, self.given.values())):
            raise SpaceError(
                f"`given` of Slope must name other parameters with finite weights, got {self};"
                " drop it, or give e.g. {'batch': 0.5}"
            )

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Itself."""
        return (self,)


@dataclass(frozen=True, slots=True)
class Level:
    """Claim: at the scale `at`, the optimum of `parameter` is `value`, +- `sd` in natural units.

    Args:
        parameter: name in the space.
        at: value of each scale axis; an axis left out does not matter to the claim.
        value: as a config would hold it (3e-4, not its logarithm).
        sd: natural units, > 0; 0.5 on a log scale is a factor of 1.65.

    Raises:
        SpaceError: for numbers that are not finite, or an sd or scale that is not positive.
    """

    parameter: str
    at: Mapping[str, float]
    value: float
    sd: float

    def __post_init__(self) -> None:
        _check_normal(self)
        if not all(0 < value < math.inf for value in self.at.values()):
            raise SpaceError(
                f"`at` of Level must hold positive, finite scales, got {dict(self.at)}; give sizes,"
                " such as {'params': 1e8}"
            )

    def claims(self, space: SearchSpace) -> tuple[Level, ...]:
        """Itself."""
        return (self,)


@runtime_checkable
class TransferRule(Protocol):
    """Anything with this method is a prior; see :class:`TokenHorizon` for a short one."""

    def claims(self, space: SearchSpace) -> Sequence[Slope | Level]:
        """What the rule says about a space; raises SpaceError where it cannot speak of it."""
        ...


def _check_normal(claim: Slope | Level) -> None:
    mean = claim.mean if isinstance(claim, Slope) else claim.value
    if not (math.isfinite(mean) and 0 < claim.sd < math.inf):
        raise SpaceError(
            f"a {type(claim).__name__} must have finite numbers and `sd` > 0, got {claim}; use a"
            " large sd where little is known"
        )
