"""Rules about width and depth for training code that implements muP: the base lr stays put."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from hpo.errors import SpaceError
from hpo.scaling.claims import SD, MeanSd, Slope
from hpo.scaling.transfer_rules.reading import optional, required, slope_claims
from hpo.space import Axis, Role, SearchSpace
from hpo.space.arguments import store


@dataclass(frozen=True, slots=True)
class MuP:
    """muP: the best base lr (and init scale) does not drift with width.

    Yang et al. 2022, "Tensor Programs V" (arXiv:2203.03466), tables 1 and 8: with Adam, hidden
    matrices get lr / width, the read-out a multiplier 1 / width, attention 1 / d_head. That is done
    in the *training code*; the tuned base lr then has slope 0 in ln width. Without it, in standard
    parametrization, hidden layers need lr ~ 1 / width: use `ScalingExponents()` instead.

    The rule makes no claim about depth, batch, horizon or weight decay (their table 2).

    Args:
        sd: standard deviation of each slope. The optimum stayed within about a factor of two over
            16 times the width (Lingle 2024, arXiv:2404.05728). On a PARAMS axis the same sd holds,
            although width grows slower, since depth may grow too.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> MuP().claims(SearchSpace({"lr": lr, "width": Scale(64, 1024, axis=Axis.WIDTH)}))
        (Slope(parameter='lr', scale='width', mean=0.0, sd=0.2, given={}),)
    """

    source: ClassVar[str] = "Yang et al. 2022, arXiv:2203.03466"
    _: KW_ONLY
    sd: float = 0.2

    def __post_init__(self) -> None:
        store(self, SpaceError, sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim slope 0 of every LR, and of every INIT if there is one.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            Parameters stand in for width:

            >>> from hpo import Axis, Float, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> params = Scale(1e6, 1e8, axis=Axis.PARAMS)
            >>> MuP().claims(SearchSpace({"lr": lr, "params": params}))
            (Slope(parameter='lr', scale='params', mean=0.0, sd=0.2, given={}),)
        """
        names = (*required(self, space, Role.LR), *optional(space, Role.INIT))
        return slope_claims(self, space, names, {Axis.WIDTH: (0.0, self.sd)})


@dataclass(frozen=True, slots=True)
class DepthMuP:
    """muP with residual branches times depth^-1/2: the best base lr is flat in width and depth.

    Yang et al. 2023, "Tensor Programs VI" (arXiv:2310.02244), table 1; Bordelon et al. 2023
    (arXiv:2309.16620).

    Args:
        width_sd: standard deviation of the slopes in ln width.
        depth_sd: standard deviation of the slopes in ln depth. Wider, because with blocks of
            several layers, as in transformers, the optimum was seen to move (section 8 there; Dey
            et al. 2025, figure 1).

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> width, depth = Scale(64, 1024, axis=Axis.WIDTH), Scale(2, 32, axis=Axis.DEPTH)
        >>> space = SearchSpace({"lr": lr, "width": width, "depth": depth})
        >>> [(c.scale, c.mean, c.sd) for c in DepthMuP().claims(space)]
        [('width', 0.0, 0.2), ('depth', 0.0, 0.3)]
    """

    source: ClassVar[str] = "Yang et al. 2023, arXiv:2310.02244"
    _: KW_ONLY
    width_sd: float = 0.2
    depth_sd: float = 0.3

    def __post_init__(self) -> None:
        store(self, SpaceError, width_sd=SD, depth_sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim slope 0 of every LR, and of every INIT if there is one.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            Parameters stand in for width and depth, whose uncertainties add up:

            >>> from hpo import Axis, Float, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> params = Scale(1e6, 1e8, axis=Axis.PARAMS)
            >>> slope, = DepthMuP().claims(SearchSpace({"lr": lr, "params": params}))
            >>> slope.scale, slope.mean, round(slope.sd, 2)
            ('params', 0.0, 0.36)
        """
        names = (*required(self, space, Role.LR), *optional(space, Role.INIT))
        along = {Axis.WIDTH: (0.0, self.width_sd), Axis.DEPTH: (0.0, self.depth_sd)}
        return slope_claims(self, space, names, along)


@dataclass(frozen=True, slots=True)
class CompleteP:
    """muP with residual branches times 1 / depth: base lr, decay and epsilon are flat in both.

    Dey et al. 2025, "Don't be lazy: CompleteP" (arXiv:2505.01618), table 1 with alpha = 1: hidden
    lr ~ width^-1 depth^(alpha - 1), weight decay ~ width, Adam epsilon ~ width^-1 depth^-alpha, all
    done in the training code, so that the tuned base values have slope 0.

    Args:
        sd: standard deviation of the slopes of lr and init scale, which the paper measured.
        other_sd: standard deviation of the slopes of decay and epsilon, which it did not measure.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> decay = Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY)
        >>> width, depth = Scale(64, 1024, axis=Axis.WIDTH), Scale(2, 32, axis=Axis.DEPTH)
        >>> space = SearchSpace({"lr": lr, "decay": decay, "width": width, "depth": depth})
        >>> [(c.parameter, c.scale, c.mean, c.sd) for c in CompleteP().claims(space)][::2]
        [('lr', 'width', 0.0, 0.2), ('decay', 'width', 0.0, 0.3)]
    """

    source: ClassVar[str] = "Dey et al. 2025, arXiv:2505.01618"
    _: KW_ONLY
    sd: float = 0.2
    other_sd: float = 0.3

    def __post_init__(self) -> None:
        store(self, SpaceError, sd=SD, other_sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim slope 0 of every LR, and of INIT, WEIGHT_DECAY and EPSILON where present.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            >>> from hpo import Axis, Float, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> width, depth = Scale(64, 1024, axis=Axis.WIDTH), Scale(2, 32, axis=Axis.DEPTH)
            >>> space = SearchSpace({"lr": lr, "width": width, "depth": depth})
            >>> [(slope.parameter, slope.scale, slope.mean) for slope in CompleteP().claims(space)]
            [('lr', 'width', 0.0), ('lr', 'depth', 0.0)]
        """
        names = (*required(self, space, Role.LR), *optional(space, Role.INIT))
        others = (
            *optional(space, Role.WEIGHT_DECAY),
            *optional(space, Role.EPSILON),
        )
        tight: MeanSd = (0.0, self.sd)
        loose: MeanSd = (0.0, self.other_sd)
        return (
            *slope_claims(self, space, names, {Axis.WIDTH: tight, Axis.DEPTH: tight}),
            *slope_claims(self, space, others, {Axis.WIDTH: loose, Axis.DEPTH: loose}),
        )
