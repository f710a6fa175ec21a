"""Power laws of lr and batch fitted to runs of language models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar

from hpo.errors import SpaceError
from hpo.scaling.claims import SD, Level, Slope
from hpo.scaling.transfer_rules.reading import followed, has, only, required, slope_claims
from hpo.space import Axis, Role, SearchSpace
from hpo.space.arguments import Flag, Number, store

_KAPLAN_LEVEL, _KAPLAN_SLOPE = 0.003239, 0.0001395  # eq. D.1
_KAPLAN_LARGEST = math.log(1.5e9)


_PARAMS = Number(above=0, optional=True, way_out="give a count, such as 1e8")


@dataclass(frozen=True, slots=True)
class StepLaw:
    """Step Law: optimum and slopes of lr and batch, fitted to language models.

    Li et al. 2025, "Predictable Scale: Part I, Step Law" (arXiv:2503.04715), equation 1::

        lr = 1.79 N^-0.713 D^0.307        batch = 0.58 D^0.571 tokens

    for AdamW in standard parametrization, N without the vocabulary's parameters, 60 million to a
    billion of them, cosine decay to a fixed small lr. In other setups (other optimizers, muP, tiny
    models) its levels mean little: widen them or use `levels=False`.

    Args:
        sequence_length: tokens in one unit of the BATCH: 1 for a batch counted in tokens. Without
            it there is no claim about the level of the batch.
        params: N where the space has no PARAMS axis because every run has this size.
        levels: whether to claim the optimum itself and not only its slopes.
        slope_sd: standard deviation of each exponent of the lr; that of the batch is half of it.
        lr_sd: standard deviation of the level of ln lr; 0.5 is a factor of 1.65.
        batch_sd: standard deviation of the level of ln batch.

    Raises:
        SpaceError: for a `sequence_length` or `params` that is not positive and finite.

    Example:
        >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> batch = Int(8, 512, log=True, role=Role.BATCH)
        >>> tokens = Scale(1e9, 1e11, axis=Axis.TOKENS)
        >>> space = SearchSpace({"lr": lr, "batch": batch, "tokens": tokens})
        >>> slope_lr, slope_batch, level_lr = StepLaw(params=1e8).claims(space)
        >>> slope_lr.mean, slope_batch.mean, f"{level_lr.value:.2g}"
        (0.307, 0.571, '0.0042')
    """

    source: ClassVar[str] = "Li et al. 2025, arXiv:2503.04715"
    _: KW_ONLY
    sequence_length: float | None = None
    params: float | None = None
    levels: bool = True
    slope_sd: float = 0.2
    lr_sd: float = 0.5
    batch_sd: float = 0.7

    def __post_init__(self) -> None:
        store(
            self,
            SpaceError,
            sequence_length=Number(above=0, optional=True, way_out="give a count, such as 2048"),
            params=_PARAMS,
            levels=Flag(),
            slope_sd=SD,
            lr_sd=SD,
            batch_sd=SD,
        )

    def claims(self, space: SearchSpace) -> tuple[Slope | Level, ...]:
        """Claim slopes of every LR and BATCH, and their levels at the middle of the scales.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> batch = Int(8, 512, log=True, role=Role.BATCH)
            >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
            >>> params = Scale(1e6, 1e8, axis=Axis.PARAMS)
            >>> space = SearchSpace({"lr": lr, "batch": batch, "tokens": tokens, "params": params})
            >>> slopes = StepLaw(levels=False).claims(space)
            >>> {(slope.parameter, slope.scale): slope.mean for slope in slopes if slope.mean}
            {('lr', 'tokens'): 0.307, ('lr', 'params'): -0.713, ('batch', 'tokens'): 0.571}
        """
        lrs = required(self, space, Role.LR)
        batches = required(self, space, Role.BATCH)
        lr = {Axis.TOKENS: (0.307, self.slope_sd)}
        batch = {Axis.TOKENS: (0.571, self.slope_sd / 2)}
        if self.params is None:
            lr[Axis.PARAMS] = (-0.713, self.slope_sd)
            batch[Axis.PARAMS] = (0.0, self.slope_sd / 2)
        claims: tuple[Slope | Level, ...] = (
            *slope_claims(self, space, lrs, lr),
            *slope_claims(self, space, batches, batch),
        )
        return claims + (self._levels(space, lrs, batches) if self.levels else ())

    def _levels(
        self, space: SearchSpace, lrs: Sequence[str], batches: Sequence[str]
    ) -> tuple[Level, ...]:
        at = {name: math.exp(axis.log_middle) for name, axis in space.scale_axes.items()}
        D = at[only(self, space, Axis.TOKENS, "levels=False")]
        N = self.params
        if N is None:
            N = at[only(self, space, Axis.PARAMS, "levels=False")]
        levels = [Level(name, at, 1.79 * N**-0.713 * D**0.307, self.lr_sd) for name in lrs]
        if self.sequence_length is not None:
            batch = 0.58 * D**0.571 / self.sequence_length
            levels += [Level(name, at, batch, self.batch_sd) for name in batches]
        return tuple(levels)


@dataclass(frozen=True, slots=True)
class DeepSeekLaw:
    """DeepSeek LLM: lr and batch as powers of the compute of the run.

    DeepSeek-AI 2024, "DeepSeek LLM" (arXiv:2401.02954), equation 1, fitted to language models of
    1e17 to 2e19 FLOPs with a multi-step schedule::

        lr = 0.3118 C^-0.1250        batch = 0.2920 C^0.3271 tokens

    With C = 6 N D, ln C rises by one with ln N and with ln D, so each exponent is the slope in
    both. Both were fitted together: where no BATCH is tuned, the lr's slope assumes that the
    training code lets the batch grow. The paper's levels are not claimed.

    Args:
        lr_sd: standard deviation of each slope of ln lr.
        batch_sd: standard deviation of each slope of ln batch.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> tokens, params = Scale(1e9, 1e11, axis=Axis.TOKENS), Scale(1e7, 1e9, axis=Axis.PARAMS)
        >>> space = SearchSpace({"lr": lr, "params": params, "tokens": tokens})
        >>> [(slope.scale, slope.mean) for slope in DeepSeekLaw().claims(space)]
        [('tokens', -0.125), ('params', -0.125)]
    """

    source: ClassVar[str] = "DeepSeek-AI 2024, arXiv:2401.02954"
    _: KW_ONLY
    lr_sd: float = 0.15
    batch_sd: float = 0.15

    def __post_init__(self) -> None:
        store(self, SpaceError, lr_sd=SD, batch_sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim the slopes of every LR, and of every BATCH if there is one, in ln N and ln D.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            >>> from hpo import Axis, Float, Int, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> batch = Int(8, 512, log=True, role=Role.BATCH)
            >>> tokens = Scale(1e9, 1e11, axis=Axis.TOKENS)
            >>> space = SearchSpace({"lr": lr, "batch": batch, "tokens": tokens})
            >>> [(slope.parameter, slope.mean) for slope in DeepSeekLaw().claims(space)]
            [('lr', -0.125), ('batch', 0.3271)]
        """
        lrs = required(self, space, Role.LR)
        batches = followed(self, space, Role.BATCH)
        return (
            *slope_claims(self, space, lrs, self._in_compute(space, -0.125, self.lr_sd)),
            *slope_claims(self, space, batches, self._in_compute(space, 0.3271, self.batch_sd)),
        )

    def _in_compute(
        self, space: SearchSpace, exponent: float, sd: float
    ) -> dict[Axis, tuple[float, float]]:
        """Return the slope in each factor of 6 N D that the space has; at least one is needed."""
        axes = [Axis.TOKENS] if has(space, Axis.TOKENS) else []
        if has(space, Axis.PARAMS, Axis.WIDTH, Axis.DEPTH) or not axes:
            axes.append(Axis.PARAMS)
        return dict.fromkeys(axes, (exponent, sd))


@dataclass(frozen=True, slots=True)
class KaplanLR:
    """The lr of Kaplan et al. 2020 for transformers of N parameters, which falls as N grows.

    "Scaling Laws for Neural Language Models" (arXiv:2001.08361), equation D.1, a rule of thumb for
    Adam in standard parametrization, N without embeddings, up to about 1e10 parameters::

        lr(N) = 0.003239 - 0.0001395 ln N
        d ln lr / d ln N = -0.0001395 / lr(N)

    The slope in ln lr steepens with N, from -0.11 at a million to -0.40 at a billion parameters;
    the rule claims the one at the middle of the PARAMS axis. N counts there as at most 1.5e9, the
    largest model they trained, since the line itself reaches zero at 1.2e10.

    Args:
        params: N at which to take the slope; None is the middle of the PARAMS axis. Needed where
            the space has WIDTH or DEPTH in its place.
        sd: standard deviation of the slope.

    Raises:
        SpaceError: for a `params` that is not positive and finite.

    Example:
        >>> from hpo import Axis, Float, Role, Scale, SearchSpace
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> space = SearchSpace({"lr": lr, "params": Scale(1e7, 1e9, axis=Axis.PARAMS)})
        >>> slope, = KaplanLR().claims(space)
        >>> round(slope.mean, 3), slope.sd
        (-0.208, 0.2)
    """

    source: ClassVar[str] = "Kaplan et al. 2020, arXiv:2001.08361"
    _: KW_ONLY
    params: float | None = None
    sd: float = 0.2

    def __post_init__(self) -> None:
        store(self, SpaceError, params=_PARAMS, sd=SD)

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim the slope of every LR in ln N.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            >>> from hpo import Axis, Float, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> space = SearchSpace({"lr": lr, "width": Scale(256, 4096, axis=Axis.WIDTH)})
            >>> slope, = KaplanLR(params=1e8).claims(space)
            >>> round(slope.mean, 3)  # ln N = 2 ln width
            -0.417
        """
        lrs = required(self, space, Role.LR)
        if self.params is None:
            log_N = space.scale_axes[only(self, space, Axis.PARAMS, "params=1e8")].log_middle
        else:
            log_N = math.log(self.params)
        slope = -_KAPLAN_SLOPE / (_KAPLAN_LEVEL - _KAPLAN_SLOPE * min(log_N, _KAPLAN_LARGEST))
        return slope_claims(self, space, lrs, {Axis.PARAMS: (slope, self.sd)})
