"""What every rule reads from a search space: parameters by role, scales by axis, slopes by both.

Where the axis of a rule is missing, another stands in for it. With N = 12 depth width^2, the
non-embedding parameters of a transformer (Kaplan et al. 2020, table 1), ln N = 2 ln width +
ln depth. As models on a PARAMS axis grow, width rises as N^1/2 at fixed depth and as N^1/3 at fixed
aspect ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from hpo.errors import SpaceError
from hpo.scaling.claims import MeanSd, Slope, TransferRule
from hpo.space import Axis, Role, SearchSpace, Unit

_EXACT: MeanSd = (1.0, 0.0)
#: d ln width / d ln N and d ln depth / d ln N: from fixed depth (1/2, 0) to fixed aspect (1/3, 1/3)
_WIDTH_OF_PARAMS: MeanSd = (5 / 12, 1 / 12)
_DEPTH_OF_PARAMS: MeanSd = (1 / 6, 1 / 6)
#: d ln lr / d ln batch of Adam below the critical batch: the square-root rule (Malladi et al. 2022)
LR_OF_BATCH = 0.5


def required(rule: TransferRule, space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Return the names with this role; refuse if there is none, or one not on a log scale."""
    names = followed(rule, space, role)
    if not names:
        raise SpaceError(
            f"{rule!r} needs a parameter of role {role}, got none among {list(space.decisions)};"
            f" give the right one role={role}, or leave the rule out of priors"
        )
    return names


def followed(rule: TransferRule, space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Return the names with this role, perhaps none; refuse one that is not on a log scale."""
    names = with_role(space, role)
    for name in names:
        if space[name].unit is not Unit.LOG:
            raise SpaceError(
                f"{rule!r} is about ln {name}, so `{name}` must be a Float or Int with log=True,"
                f" got {space[name]}; make it one, or leave the rule out of priors"
            )
    return names


def optional(space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Return the names with this role that are on a log scale; perhaps none."""
    return tuple(name for name in with_role(space, role) if space[name].unit is Unit.LOG)


def with_role(space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Return the names with this role; perhaps none."""
    return tuple(n for n in space.decisions if getattr(space[n], "role", None) is role)


def has(space: SearchSpace, *axes: Axis) -> bool:
    """Return whether the space has a scale axis of one of these kinds."""
    return any(along(space, axis) for axis in axes)


def along(space: SearchSpace, axis: Axis) -> tuple[str, ...]:
    """Return the names of the scale axes that measure `axis`."""
    return tuple(name for name, scale in space.scale_axes.items() if scale.axis is axis)


def only(rule: TransferRule, space: SearchSpace, axis: Axis, instead: str) -> str:
    """Return the one scale axis that measures `axis`; `instead` is the argument that avoids it."""
    names = along(space, axis)
    if len(names) != 1:
        raise SpaceError(
            f"{rule!r} needs exactly one scale axis of {axis}, got {list(names)}; declare"
            f" Scale(low, high, axis={axis}), or pass {instead}"
        )
    return names[0]


def stand_ins(rule: TransferRule, space: SearchSpace, axis: Axis) -> dict[str, MeanSd]:
    """Return scale axes by name, with d ln (quantity of `axis`) / d ln (scale) as mean and sd."""
    if own := along(space, axis):
        return dict.fromkeys(own, _EXACT)
    params = along(space, Axis.PARAMS)
    found: dict[str, MeanSd] = {}
    if axis is Axis.WIDTH:
        found = dict.fromkeys(params, _WIDTH_OF_PARAMS)
    elif axis is Axis.DEPTH:
        found = dict.fromkeys(params, _DEPTH_OF_PARAMS)
    elif axis is Axis.PARAMS:
        found = dict.fromkeys(along(space, Axis.WIDTH), (2.0, 0.0))
        found |= dict.fromkeys(along(space, Axis.DEPTH), _EXACT)
    if not found:
        raise SpaceError(
            f"{rule!r} needs a scale axis of {axis}, got {list(space.scales)}; declare"
            f" Scale(low, high, axis={axis}), give the right one that axis=, or leave the rule out"
            " of priors"
        )
    return found


def slope_claims(
    rule: TransferRule,
    space: SearchSpace,
    names: Sequence[str],
    along_axes: Mapping[Axis, MeanSd],
    given: Mapping[str, float] | None = None,
) -> tuple[Slope, ...]:
    """Return slopes in the quantities of the rule as claims about the axes that the space has.

    Where one axis stands in for several quantities (parameters for width and depth), their shares
    add up: dz/ds = sum_q (dz/dq) (dq/ds). An uncertain share widens the claim. A small share does
    not narrow it, since what else changes along the axis is unknown.
    """
    total: dict[str, MeanSd] = {}
    for axis, (mean, sd) in along_axes.items():
        for name, (share, share_sd) in stand_ins(rule, space, axis).items():
            before, before_sd = total.get(name, (0.0, 0.0))
            own_sd = math.hypot(max(abs(share), 1.0) * sd, mean * share_sd)
            total[name] = (before + mean * share, math.hypot(before_sd, own_sd))
    return tuple(
        Slope(parameter, scale, mean, sd, dict(given or {}))
        for parameter in names
        for scale, (mean, sd) in total.items()
    )
