"""Rules about the token horizon: how lr and batch follow the number of training tokens."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from hpo.errors import SpaceError
from hpo.scaling.claims import EXPONENT, SD, Slope
from hpo.scaling.transfer_rules.reading import LR_OF_BATCH, followed, has, required, slope_claims
from hpo.space import Axis, Role, SearchSpace
from hpo.space.arguments import store


@dataclass(frozen=True, slots=True)
class TokenHorizon:
    """Best lr against the token horizon at a fixed batch size: lr ~ D^-0.32.

    Bjorck et al. 2024, "Scaling Optimal LR Across Token Horizons" (arXiv:2409.19913), whose joint
    law is lr = 1.32e-5 N^-0.23 D^-0.32 with N and D in billions, at half a million tokens a batch.
    Where a BATCH is tuned too, the lr follows it by the square-root rule, with the batch's own
    drift (`TimeTransfer`). For schedules whose base lr does not depend on the horizon use
    `PowerScheduler`.

    Args:
        exponent: slope of ln lr in ln D.
        sd: standard deviation of it.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> TokenHorizon().claims(
        ...     SearchSpace({"lr": lr, "tokens": Scale(1e7, 1e9, axis=Axis.TOKENS)})
        ... )
        (Slope(parameter='lr', scale='tokens', mean=-0.32, sd=0.15, given={}),)
    """

    source: ClassVar[str] = "Bjorck et al. 2024, arXiv:2409.19913"
    _: KW_ONLY
    exponent: float = -0.32
    sd: float = 0.15

    def __post_init__(self) -> None:
        store(self, SpaceError, exponent=EXPONENT, sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim the slope of every LR in ln D, at fixed batch.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            The learning rate follows a batch size that is tuned too:

            >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> batch = Int(8, 512, log=True, role=Role.BATCH)
            >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
            >>> TokenHorizon().claims(SearchSpace({"lr": lr, "batch": batch, "tokens": tokens}))
            (Slope(parameter='lr', scale='tokens', mean=-0.32, sd=0.15, given={'batch': 0.5}),)
        """
        given = dict.fromkeys(followed(self, space, Role.BATCH), LR_OF_BATCH)
        names = required(self, space, Role.LR)
        return slope_claims(self, space, names, {Axis.TOKENS: (self.exponent, self.sd)}, given)


@dataclass(frozen=True, slots=True)
class TimeTransfer:
    """Best batch against the token horizon, and the lr that follows it.

    Filatov et al. 2024, "Time Transfer" (arXiv:2410.05838): the critical batch grows as D, the best
    batch grows more slowly and stays below it, both unmoved by model size under muP; at a fixed
    batch lr ~ D^1/2, D^0 or D^-1/2, depending on which side of the critical batch it is. Hence::

        d ln batch / d ln D = 1/2 +- 0.2     (0.383 in Bergsma et al. 2025, arXiv:2505.13738;
                                              0.571 in Step Law; 1 for the critical batch itself)
        d ln batch / d ln N =   0 +- 0.1     where the space has such an axis
        d ln lr / d ln D    =   0 +- 0.3 + (1/2) d ln batch / d ln D

    Args:
        batch_exponent: slope of ln batch in ln D.
        batch_sd: standard deviation of it.
        size_sd: standard deviation of the slope of ln batch in ln N.
        lr_sd: standard deviation of the slope of ln lr in ln D at a fixed batch.

    Example:
        >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> batch = Int(8, 512, log=True, role=Role.BATCH)
        >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
        >>> space = SearchSpace({"lr": lr, "batch": batch, "tokens": tokens})
        >>> [(c.parameter, c.mean, c.sd, c.given) for c in TimeTransfer().claims(space)]
        [('batch', 0.5, 0.2, {}), ('lr', 0.0, 0.3, {'batch': 0.5})]
    """

    source: ClassVar[str] = "Filatov et al. 2024, arXiv:2410.05838"
    _: KW_ONLY
    batch_exponent: float = 0.5
    batch_sd: float = 0.2
    size_sd: float = 0.1
    lr_sd: float = 0.3

    def __post_init__(self) -> None:
        store(self, SpaceError, batch_exponent=EXPONENT, batch_sd=SD, size_sd=SD, lr_sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim the slopes of every BATCH, and of every LR at fixed batch.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            With model size as an axis, the rule also claims that the batch does not follow it:

            >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> batch = Int(8, 512, log=True, role=Role.BATCH)
            >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
            >>> params = Scale(1e6, 1e8, axis=Axis.PARAMS)
            >>> space = SearchSpace({"lr": lr, "batch": batch, "tokens": tokens, "params": params})
            >>> [(c.parameter, c.scale, c.mean) for c in TimeTransfer().claims(space)]
            [('batch', 'tokens', 0.5), ('batch', 'params', 0.0), ('lr', 'tokens', 0.0)]
        """
        batches = required(self, space, Role.BATCH)
        lrs = required(self, space, Role.LR)
        along = {Axis.TOKENS: (self.batch_exponent, self.batch_sd)}
        claims = slope_claims(self, space, batches, along)
        if has(space, Axis.PARAMS, Axis.WIDTH, Axis.DEPTH):
            claims += slope_claims(self, space, batches, {Axis.PARAMS: (0.0, self.size_sd)})
        given = dict.fromkeys(batches, LR_OF_BATCH)
        return claims + slope_claims(self, space, lrs, {Axis.TOKENS: (0.0, self.lr_sd)}, given)


@dataclass(frozen=True, slots=True)
class PowerScheduler:
    """Power schedule: its base lr depends on neither the token horizon nor the batch.

    Shen et al. 2024, "Power Scheduler" (arXiv:2408.13359): the lr after t tokens is
    batch * a * t^b, capped and then decayed, and the tuned amplitude `a` moves neither with the
    horizon nor with the batch nor, under muP, with size. The rule is only for training code with
    that schedule, where the parameter of role LR is `a`. Such a run may be continued from before
    its decay. For the peak lr of a cosine or warmup-stable-decay schedule use `TokenHorizon`.

    Args:
        sd: standard deviation of the slope of ln lr in ln D.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> PowerScheduler().claims(
        ...     SearchSpace({"lr": lr, "tokens": Scale(1e7, 1e9, axis=Axis.TOKENS)})
        ... )
        (Slope(parameter='lr', scale='tokens', mean=0.0, sd=0.15, given={}),)
    """

    source: ClassVar[str] = "Shen et al. 2024, arXiv:2408.13359"
    _: KW_ONLY
    sd: float = 0.15

    def __post_init__(self) -> None:
        store(self, SpaceError, sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim slope 0 of every LR in ln D.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            The claim does not depend on the batch size, unlike that of `TokenHorizon`:

            >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> batch = Int(8, 512, log=True, role=Role.BATCH)
            >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
            >>> PowerScheduler().claims(SearchSpace({"lr": lr, "batch": batch, "tokens": tokens}))
            (Slope(parameter='lr', scale='tokens', mean=0.0, sd=0.15, given={}),)
        """
        names = required(self, space, Role.LR)
        return slope_claims(self, space, names, {Axis.TOKENS: (0.0, self.sd)})
