"""What a transfer rule claims: slopes and levels of the best setting, with their uncertainty.

Notation
--------
z*_j     best value of parameter j in natural units: ln lr, ln batch, log-odds of beta2
s_a      ln of scale axis a: ln N (parameters), ln D (tokens), ln width, ln depth
slope    dz*_j / ds_a
level    z*_j at one scale
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, runtime_checkable

from hpo.errors import SpaceError
from hpo.space import SearchSpace
from hpo.space.arguments import Number, Table, Text, store

#: Mean and standard deviation of a normal distribution.
MeanSd: TypeAlias = tuple[float, float]

#: Rule of a standard deviation of a slope or level, in natural units.
SD = Number(above=0, most=1e6, way_out="use a large one, such as 1, where little is known")

#: Rule of a slope or another power.
EXPONENT = Number(least=-1e6, most=1e6, way_out="1 is proportional, 0 does not move")

_NAME = Text(way_out="give the name that it has in the space")


@dataclass(frozen=True, slots=True)
class Slope:
    """Claim that the optimum of a parameter drifts along a scale axis by `mean` +- `sd`.

    With `given`, the claim holds for other parameters held fixed, and `given[k]` is the weight with
    which the optimum follows parameter k::

        dz*/ds = mean + sum_k given[k] dz*_k/ds,    +- sd

    A claim is a rule itself: `priors=[MuP(), Slope("lr", "tokens", -0.3, 0.1)]`.

    Args:
        parameter: name of a numeric parameter of the space.
        scale: name of a scale axis of the space.
        mean: expected slope, in natural units of the parameter per ln of the scale.
        sd: standard deviation of the slope, > 0, same unit.
        given: weights of other parameters, by name.

    Raises:
        SpaceError: for numbers that are not finite, or an sd that is not positive.

    Example:
        >>> slope = Slope("lr", "tokens", mean=-0.3, sd=0.1)
        >>> round(10**slope.mean, 2)  # factor on the best lr with ten times the tokens
        0.5
    """

    parameter: str
    scale: str
    mean: float
    sd: float
    given: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        store(
            self,
            SpaceError,
            parameter=_NAME,
            scale=_NAME,
            mean=EXPONENT,
            sd=SD,
            given=Table(EXPONENT, way_out="drop it, or give e.g. {'batch': 0.5}"),
        )
        if self.parameter in self.given:
            raise SpaceError(
                f"`given` of Slope must name other parameters, got {dict(self.given)} for"
                f" {self.parameter!r}; drop it, or give e.g. {{'batch': 0.5}}"
            )

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Return the claim itself.

        Args:
            space: search space, which does not matter.

        Example:
            >>> from hpo import Float
            >>> slope = Slope("lr", "width", 0.0, 0.2)
            >>> slope.claims(SearchSpace({"lr": Float(1e-4, 1e-1, log=True)})) == (slope,)
            True
        """
        return (self,)


@dataclass(frozen=True, slots=True)
class Level:
    """Claim that the optimum of a parameter at one scale is `value`, +- `sd` in natural units.

    Args:
        parameter: name of a numeric parameter of the space.
        at: value of each scale axis by name; an axis left out does not matter to the claim.
        value: best value as a config would hold it (3e-4, not its logarithm).
        sd: standard deviation in natural units, > 0; 0.5 on a log scale is a factor of 1.65.

    Raises:
        SpaceError: for numbers that are not finite, or an sd or scale that is not positive.

    Example:
        >>> import math
        >>> level = Level("lr", at={"params": 1e8}, value=3e-4, sd=0.5)
        >>> low, high = (level.value * math.exp(z * level.sd) for z in (-1.645, 1.645))
        >>> print(f"90 %: {low:.2g} to {high:.2g}")
        90 %: 0.00013 to 0.00068
    """

    parameter: str
    at: Mapping[str, float]
    value: float
    sd: float

    def __post_init__(self) -> None:
        store(
            self,
            SpaceError,
            parameter=_NAME,
            at=Table(Number(above=0), way_out="give sizes, such as {'params': 1e8}"),
            value=Number(way_out="give it as a config would hold it, such as 3e-4"),
            sd=SD,
        )

    def claims(self, space: SearchSpace) -> tuple[Level, ...]:
        """Return the claim itself.

        Args:
            space: search space, which does not matter.

        Example:
            >>> from hpo import Float
            >>> level = Level("lr", {"width": 256}, 1e-3, 0.5)
            >>> level.claims(SearchSpace({"lr": Float(1e-4, 1e-1, log=True)})) == (level,)
            True
        """
        return (self,)


@runtime_checkable
class TransferRule(Protocol):
    """Any object with this method is a transfer rule.

    Example:
        >>> class Halving:
        ...     def claims(self, space):
        ...         return [Slope("lr", name, -1.0, 0.1) for name in space.scales]
        >>> isinstance(Halving(), TransferRule)
        True
    """

    def claims(self, space: SearchSpace) -> Sequence[Slope | Level]:
        """Return what the rule claims about the optima of a space.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the rule does not apply to the space.
        """
        ...


@dataclass(frozen=True, slots=True)
class Neutral:
    """No rule at all: each drift has a wide zero-mean prior, and the runs alone tell its slope.

    Pass it as `priors=Neutral()` where no published rule should have a say. Beside other rules it
    changes nothing, since they compete with the neutral prior anyway.

    Example:
        >>> from hpo import Axis, Float, Neutral, Optimizer, Role, Scale
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> space = {"lr": lr, "params": Scale(1e5, 1e7, axis=Axis.PARAMS)}
        >>> optimizer = Optimizer(space, priors=Neutral())
        >>> _ = optimizer.tell({"lr": 1e-3, "params": 1e6}, loss=2.0)
        >>> optimizer.result().scaling_law.rules
        ()
    """

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim nothing.

        Args:
            space: search space, which does not matter.

        Example:
            >>> from hpo import Float
            >>> Neutral().claims(SearchSpace({"lr": Float(1e-4, 1e-1, log=True)}))
            ()
        """
        return ()


#: What a user may pass as `priors`: rules, none at all, or None for every published one that fits.
Priors: TypeAlias = Sequence[TransferRule] | Neutral | None
