"""Rules about weight decay: what it removes per step, and over how many steps weights average."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from hpo.errors import SpaceError
from hpo.scaling.claims import EXPONENT, SD, Slope
from hpo.scaling.transfer_rules.reading import followed, has, required, slope_claims
from hpo.space import Axis, Role, SearchSpace
from hpo.space.arguments import store


@dataclass(frozen=True, slots=True)
class AdamWTimescale:
    """Weight decay that keeps AdamW's averaging time a fixed share of the run: batch / (lr wd D).

    Wang & Aitchison 2024, "How to set AdamW's weight decay" (arXiv:2405.13698): 1 / (lr wd), in
    steps, is the time over which the weights average their updates, and its best value is a
    constant number of epochs. With D tokens seen once, ::

        d ln wd = d ln batch - d ln lr - d ln D + m (d ln N - d ln D)

    where `m` is 0 there. Bergsma et al. 2025, "Power Lines" (arXiv:2505.13738) find that the best
    share itself falls with D / N, to about the power -0.5: set `ratio_exponent=-0.5` for it.

    Args:
        ratio_exponent: m, power of D / N in the best share of the run. Needs an axis for N unless
            0.
        hidden_lr_exponent: d ln (hidden lr) / d ln width at a fixed base lr: -1 under muP with Adam
            if the training code does not scale the decay (then wd ~ width); 0 in standard
            parametrization, and where the code scales the decay itself, as CompleteP does.
        sd: standard deviation of each slope.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> decay = Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY)
        >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
        >>> AdamWTimescale().claims(SearchSpace({"decay": decay, "tokens": tokens}))
        (Slope(parameter='decay', scale='tokens', mean=-1.0, sd=0.25, given={}),)
    """

    source: ClassVar[str] = "Wang & Aitchison 2024, arXiv:2405.13698"
    _: KW_ONLY
    ratio_exponent: float = 0.0
    hidden_lr_exponent: float = 0.0
    sd: float = 0.25

    def __post_init__(self) -> None:
        store(self, SpaceError, ratio_exponent=EXPONENT, hidden_lr_exponent=EXPONENT, sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim the slopes of every WEIGHT_DECAY in ln D and ln N, given LR and BATCH.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            The decay falls as the learning rate rises, and rises with the batch size:

            >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> batch = Int(8, 512, log=True, role=Role.BATCH)
            >>> decay = Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY)
            >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
            >>> space = SearchSpace({"lr": lr, "batch": batch, "decay": decay, "tokens": tokens})
            >>> slope, = AdamWTimescale().claims(space)
            >>> slope.mean, slope.given
            (-1.0, {'lr': -1.0, 'batch': 1.0})
        """
        decays = required(self, space, Role.WEIGHT_DECAY)
        given = dict.fromkeys(followed(self, space, Role.LR), -1.0)
        given |= dict.fromkeys(followed(self, space, Role.BATCH), 1.0)
        m, hidden = self.ratio_exponent, self.hidden_lr_exponent
        claims = slope_claims(self, space, decays, {Axis.TOKENS: (-1.0 - m, self.sd)}, given)
        if not (m or hidden or has(space, Axis.PARAMS, Axis.WIDTH, Axis.DEPTH)):
            return claims
        size = {Axis.PARAMS: (m, self.sd)}
        if hidden:
            size[Axis.WIDTH] = (-hidden, 0.0)
        return claims + slope_claims(self, space, decays, size, given)


@dataclass(frozen=True, slots=True)
class WeightDecayTransfer:
    """Weight decay that removes the same share of the weights per step at every width.

    Kosson et al. 2025, "Weight Decay may matter more than muP for Learning Rate Transfer in
    Practice" (arXiv:2510.19093): the alignment that muP assumes holds only early in training. After
    that it is lr x decay of the hidden layers, not muP's scaling of the lr, that keeps the relative
    size of updates the same across widths, and the lr transfers where that product is constant
    ("independent" weight decay). So, at a fixed horizon, ::

        d ln wd / d ln width = -(hidden_lr_exponent + d ln lr / d ln width)

    muP code divides the hidden lr by width; with AdamW, whose decay is multiplied by that lr, the
    best decay then rises as width. Fan et al. 2025 (arXiv:2510.15262) find width^0.5 instead.

    Args:
        hidden_lr_exponent: d ln (hidden lr) / d ln width at a fixed base lr: -1 under muP with Adam
            if the training code does not scale the decay; 0 where one lr is used for all layers, or
            where the code keeps lr x decay constant itself.
        sd: standard deviation of the slope in ln width; covers the two exponents above.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> decay = Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY)
        >>> width = Scale(64, 1024, axis=Axis.WIDTH)
        >>> WeightDecayTransfer().claims(SearchSpace({"decay": decay, "width": width}))
        (Slope(parameter='decay', scale='width', mean=1.0, sd=0.3, given={}),)
    """

    source: ClassVar[str] = "Kosson et al. 2025, arXiv:2510.19093"
    _: KW_ONLY
    hidden_lr_exponent: float = -1.0
    sd: float = 0.3

    def __post_init__(self) -> None:
        store(self, SpaceError, hidden_lr_exponent=EXPONENT, sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim the slope of every WEIGHT_DECAY in ln width, given LR.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            A base lr that falls with width lets the decay rise by as much:

            >>> from hpo import Axis, Float, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> decay = Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY)
            >>> width = Scale(64, 1024, axis=Axis.WIDTH)
            >>> space = SearchSpace({"lr": lr, "decay": decay, "width": width})
            >>> slope, = WeightDecayTransfer(hidden_lr_exponent=0.0).claims(space)
            >>> slope.mean, slope.given
            (0.0, {'lr': -1.0})
        """
        decays = required(self, space, Role.WEIGHT_DECAY)
        given = dict.fromkeys(followed(self, space, Role.LR), -1.0)
        along = {Axis.WIDTH: (0.0 - self.hidden_lr_exponent, self.sd)}
        return slope_claims(self, space, decays, along, given)
