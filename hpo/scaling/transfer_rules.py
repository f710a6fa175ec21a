"""Published transfer rules as priors on how the best settings move with scale.

Every rule for carrying hyperparameters across scale says one thing to the value model: the slope,
and sometimes the level, of the optimum z* of a parameter along a scale axis. A rule is a small
frozen object that turns a search space into such claims; data then move them, and
`result.scaling_law` shows both side by side. ::

    optimize(..., priors=[MuP(), TokenHorizon()])

Notation
--------
z*_j     best value of parameter j in natural units: ln lr, ln batch, log-odds of beta2
s_a      ln of scale axis a: ln N (parameters), ln D (tokens), ln width, ln depth
slope    dz*_j / ds_a. -0.3 says that the best lr falls by 10^-0.3, to one half, in ten times D
sd       one standard deviation of that belief: how far the rule itself may be off in a setting it
         was not fitted in, judged from the spread between papers; no paper states it

How claims combine
------------------
Claims about the same slope are pooled as measurements of one quantity that may differ from paper to
paper (DerSimonian & Laird 1986, random effects; :func:`pooled`). Where they agree, this is the
product of the Gaussians. Where they disagree by more than their sds allow, the disagreement is
added to every variance: the pooled belief then covers both claims instead of narrowing between
them. A claim conditional on the drift of another parameter (`given`) takes that parameter's own
pooled belief, with its uncertainty. Slopes nobody speaks of keep the neutral prior: zero mean, wide
(:class:`surrogates.law_fit.LawPrior`).

Axes stand in for one another where the rule's own is missing: with N = 12 depth width^2, the
non-embedding parameters of a transformer (Kaplan et al. 2020, table 1), ln N = 2 ln width +
ln depth; and as models on a PARAMS axis grow, width rises as N^1/2 at fixed depth and as N^1/3 at
fixed aspect ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum

from hpo.errors import SpaceError
from hpo.scaling.claims import Level, Normal, Slope, TransferRule
from hpo.scaling.drift_prior import middle_of_scales
from hpo.space import Axis, Float, Int, Parameter, Role, Scale, SearchSpace

_EXACT: Normal = (1.0, 0.0)
#: d ln width / d ln N and d ln depth / d ln N: from fixed depth (1/2, 0) to fixed aspect (1/3, 1/3)
_WIDTH_OF_PARAMS: Normal = (5 / 12, 1 / 12)
_DEPTH_OF_PARAMS: Normal = (1 / 6, 1 / 6)
#: d ln lr / d ln batch of Adam below the critical batch: the square-root rule (Malladi et al. 2022)
_LR_OF_BATCH = 0.5


# --- what a rule says ----------------------------------------------------------------------------


# --- rules in model size -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class MuP:
    """The model is trained in muP: the base lr (and init scale) stays put as width grows.

    Yang et al. 2022, "Tensor Programs V" (arXiv:2203.03466), tables 1 and 8: with Adam, hidden
    matrices get lr / width, the read-out a multiplier 1 / width, attention 1 / d_head. That is done
    in the *training code*; the tuned base lr then has slope 0 in ln width. Without it, in standard
    parametrization, hidden layers need lr ~ 1 / width: say `ScalingExponents()` instead.

    It says nothing of depth, batch, horizon or weight decay (their table 2). `sd`: the optimum
    stayed within about a factor of two over 16 times the width (Lingle 2024, arXiv:2404.05728). On
    a PARAMS axis it is believed as widely, although width grows slower, since depth may grow too.
    """

    _: KW_ONLY
    sd: float = 0.2

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Slope 0 of every LR, and of every INIT if there is one."""
        names = (*_required(self, space, Role.LR), *_optional(space, Role.INIT))
        return _slopes(self, space, names, {Axis.WIDTH: (0.0, self.sd)})


@dataclass(frozen=True, slots=True)
class DepthMuP:
    """muP with residual branches times depth^-1/2: base lr flat in width and depth.

    Yang et al. 2023, "Tensor Programs VI" (arXiv:2310.02244), table 1; Bordelon et al. 2023
    (arXiv:2309.16620). `depth_sd` is wider than `width_sd`: with blocks of several layers, as in
    transformers, the optimum was seen to move (section 8 there; Dey et al. 2025, figure 1).
    """

    _: KW_ONLY
    width_sd: float = 0.2
    depth_sd: float = 0.3

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Slope 0 of every LR, and of every INIT if there is one."""
        names = (*_required(self, space, Role.LR), *_optional(space, Role.INIT))
        slopes = {Axis.WIDTH: (0.0, self.width_sd), Axis.DEPTH: (0.0, self.depth_sd)}
        return _slopes(self, space, names, slopes)


@dataclass(frozen=True, slots=True)
class CompleteP:
    """muP with residual branches times 1 / depth: base lr, decay and epsilon flat in both.

    Dey et al. 2025, "Don't be lazy: CompleteP" (arXiv:2505.01618), table 1 with alpha = 1: hidden
    lr ~ width^-1 depth^(alpha - 1), weight decay ~ width, Adam epsilon ~ width^-1 depth^-alpha, all
    done in the training code, so that the tuned base values have slope 0. The paper measured it for
    the lr and the init scale; decay and epsilon are believed `other_sd` wide.
    """

    _: KW_ONLY
    sd: float = 0.2
    other_sd: float = 0.3

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Slope 0 of every LR, and of INIT, WEIGHT_DECAY and EPSILON where there are any."""
        names = (*_required(self, space, Role.LR), *_optional(space, Role.INIT))
        others = (
            *_optional(space, Role.WEIGHT_DECAY),
            *_optional(space, Role.EPSILON),
        )
        tight: Normal = (0.0, self.sd)
        loose: Normal = (0.0, self.other_sd)
        return (
            *_slopes(self, space, names, {Axis.WIDTH: tight, Axis.DEPTH: tight}),
            *_slopes(self, space, others, {Axis.WIDTH: loose, Axis.DEPTH: loose}),
        )


class ParametrizationScheme(Enum):
    """How multipliers and initial scales depend on width n: Everett et al. 2024, table 1."""

    STANDARD = "standard"
    NTK = "ntk"
    MUP = "mup"
    MEAN_FIELD = "mean field"


class Update(Enum):
    """What kind of step the optimizer takes from a gradient."""

    SGD = "sgd"  # proportional to it
    ADAM = "adam"  # entries of order lr: Adam, AdamW, Lion
    ADAFACTOR = "adafactor"  # entries of order lr times the parameter's own size


class Layer(Enum):
    """Where a weight matrix sits; n is width."""

    EMBEDDING = "embedding"  # vocabulary x n
    HIDDEN = "hidden"  # n x n
    READOUT = "readout"  # n x vocabulary


class Alignment(Enum):
    """How updates and activations line up: a product over n entries grows as n^value."""

    FULL = 1.0
    NONE = 0.5


_E, _H, _R = Layer.EMBEDDING, Layer.HIDDEN, Layer.READOUT
#: exponents of n in (multiplier, standard deviation of the initial entries)
_WIDTH_EXPONENTS = {
    ParametrizationScheme.STANDARD: {_E: (0.0, 0.0), _H: (0.0, -0.5), _R: (0.0, -0.5)},
    ParametrizationScheme.NTK: {_E: (0.0, 0.0), _H: (-0.5, 0.0), _R: (-0.5, 0.0)},
    ParametrizationScheme.MUP: {_E: (0.5, -0.5), _H: (0.0, -0.5), _R: (-0.5, -0.5)},
    ParametrizationScheme.MEAN_FIELD: {_E: (0.0, 0.0), _H: (-0.5, 0.0), _R: (-1.0, 0.0)},
}


@dataclass(frozen=True, slots=True)
class ScalingExponents:
    """The lr that keeps feature learning of one layer kind at order one as width n grows.

    Everett et al. 2024, "Scaling Exponents Across Parameterizations and Optimizers"
    (arXiv:2407.05872), tables 1 and 2. With multiplier ~ n^a, initial entries ~ n^-b, gradient
    entries ~ n^-g and updates of order lr (Adam), an update must change its layer's output by O(1):
    lr ~ n^(-a - alignment) (:meth:`lr_exponent` has the others). So under standard parametrization
    AdamW's hidden layers need lr ~ 1 / n with full alignment and 1 / sqrt(n) with none.

    It is for code that uses *one and the same* lr rule at all widths. Code that already multiplies
    the lr by this power has a flat base lr: say `MuP()`.

    Args:
        parametrization, update, layer, alignment: row and column of the tables; `layer` is the kind
            that the tuned lr matters most to.
        sd: of the exponent. Wide, because the best single lr was seen to fall slower than theory
            says (Haas et al. 2025, arXiv:2505.22491).
    """

    parametrization: ParametrizationScheme = ParametrizationScheme.STANDARD
    update: Update = Update.ADAM
    _: KW_ONLY
    layer: Layer = Layer.HIDDEN
    alignment: Alignment = Alignment.FULL
    sd: float = 0.3

    @property
    def gradient_exponent(self) -> float:
        """Of n in the entries of the layer's gradient at initialization; Adam's epsilon follows."""
        layers = _WIDTH_EXPONENTS[self.parametrization]
        multiplier, _ = layers[self.layer]
        if self.layer is Layer.READOUT:
            return multiplier  # logits' gradients and activations are O(1)
        return multiplier + sum(layers[Layer.READOUT])  # back through the read-out

    @property
    def lr_exponent(self) -> float:
        """D ln lr / d ln n."""
        multiplier, initial = _WIDTH_EXPONENTS[self.parametrization][self.layer]
        step = {
            Update.SGD: self.gradient_exponent,
            Update.ADAM: 0.0,
            Update.ADAFACTOR: initial,
        }[self.update]
        fan_in = 0.0 if self.layer is Layer.EMBEDDING else self.alignment.value
        return 0.0 - multiplier - fan_in - step

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """The slope of every LR in ln width and, for Adam, of every EPSILON if there is one."""
        lr = {Axis.WIDTH: (self.lr_exponent, self.sd)}
        claims = _slopes(self, space, _required(self, space, Role.LR), lr)
        if self.update is Update.ADAM:
            epsilon = {Axis.WIDTH: (self.gradient_exponent, self.sd)}
            names = _optional(space, Role.EPSILON)
            claims += _slopes(self, space, names, epsilon)
        return claims


# --- rules in data size --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TokenHorizon:
    """At a fixed batch size the best lr falls with the horizon: lr ~ D^-0.32.

    Bjorck et al. 2024, "Scaling Optimal LR Across Token Horizons" (arXiv:2409.19913), whose joint
    law is lr = 1.32e-5 N^-0.23 D^-0.32 with N and D in billions, at half a million tokens a batch.
    Where a BATCH is tuned too, the lr follows it by the square-root rule, and what is known of the
    batch's own drift (:class:`TimeTransfer`) comes in. Not for schedules whose base lr is free of
    the horizon: those are :class:`PowerScheduler`'s.
    """

    _: KW_ONLY
    exponent: float = -0.32
    sd: float = 0.15

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """The slope of every LR in ln D, at fixed batch."""
        given = dict.fromkeys(_followed(self, space, Role.BATCH), _LR_OF_BATCH)
        names = _required(self, space, Role.LR)
        return _slopes(self, space, names, {Axis.TOKENS: (self.exponent, self.sd)}, given)


@dataclass(frozen=True, slots=True)
class TimeTransfer:
    """The best batch grows with the horizon, behind the critical one, and the lr goes with it.

    Filatov et al. 2024, "Time Transfer" (arXiv:2410.05838): the critical batch grows as D, the best
    batch grows more slowly and stays below it, both unmoved by model size under muP; at a fixed
    batch lr ~ D^1/2, D^0 or D^-1/2, depending on which side of the critical batch it is. Hence:

        d ln batch / d ln D = 1/2 +- 0.2     (0.383 in Bergsma et al. 2025, arXiv:2505.13738;
                                              0.571 in Step Law; 1 for the critical batch itself)
        d ln batch / d ln N =   0 +- 0.1     where the space has such an axis
        d ln lr / d ln D    =   0 +- 0.3 + (1/2) d ln batch / d ln D
    """

    _: KW_ONLY
    batch_exponent: float = 0.5
    batch_sd: float = 0.2
    size_sd: float = 0.1
    lr_sd: float = 0.3

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Slopes of every BATCH, and of every LR at fixed batch."""
        batches = _required(self, space, Role.BATCH)
        lrs = _required(self, space, Role.LR)
        along = {Axis.TOKENS: (self.batch_exponent, self.batch_sd)}
        claims = _slopes(self, space, batches, along)
        if _has(space, Axis.PARAMS, Axis.WIDTH, Axis.DEPTH):
            claims += _slopes(self, space, batches, {Axis.PARAMS: (0.0, self.size_sd)})
        given = dict.fromkeys(batches, _LR_OF_BATCH)
        return claims + _slopes(self, space, lrs, {Axis.TOKENS: (0.0, self.lr_sd)}, given)


@dataclass(frozen=True, slots=True)
class PowerScheduler:
    """The schedule itself carries the horizon: its base lr is free of D and of the batch.

    Shen et al. 2024, "Power Scheduler" (arXiv:2408.13359): the lr after t tokens is
    batch * a * t^b, capped and then decayed, and the tuned amplitude `a` moves neither with the
    horizon nor with the batch nor, under muP, with size. Only for training code with that schedule,
    where the parameter of role LR is `a`; it makes it legal to continue a run before its decay. A
    cosine's or a warmup-stable-decay schedule's peak lr is :class:`TokenHorizon`'s matter.
    """

    _: KW_ONLY
    sd: float = 0.15

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Slope 0 of every LR in ln D."""
        names = _required(self, space, Role.LR)
        return _slopes(self, space, names, {Axis.TOKENS: (0.0, self.sd)})


@dataclass(frozen=True, slots=True)
class AdamWTimescale:
    """Weight decay keeps AdamW's averaging time a fixed share of the run: batch / (lr wd D).

    Wang & Aitchison 2024, "How to set AdamW's weight decay" (arXiv:2405.13698): 1 / (lr wd), in
    steps, is the time over which the weights average their updates, and its best value is a
    constant number of epochs. With D tokens seen once, ::

        d ln wd = d ln batch - d ln lr - d ln D + m (d ln N - d ln D)

    where `m` is 0 there. Bergsma et al. 2025, "Power Lines" (arXiv:2505.13738) find that the best
    share itself falls with D / N, to about the power -0.5: say `ratio_exponent=-0.5` for it.

    Args:
        ratio_exponent: m, of D / N in the best share of the run. Needs an axis for N unless 0.
        hidden_lr_exponent: d ln (hidden lr) / d ln width at a fixed base lr: -1 under muP with Adam
            if the training code leaves the decay alone (then wd ~ width); 0 in standard
            parametrization, and where the code scales the decay itself, as CompleteP does.
        sd: of each slope.
    """

    _: KW_ONLY
    ratio_exponent: float = 0.0
    hidden_lr_exponent: float = 0.0
    sd: float = 0.25

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Slopes of every WEIGHT_DECAY in ln D and ln N, given those of the LR and the BATCH."""
        decays = _required(self, space, Role.WEIGHT_DECAY)
        given = dict.fromkeys(_followed(self, space, Role.LR), -1.0)
        given |= dict.fromkeys(_followed(self, space, Role.BATCH), 1.0)
        m, hidden = self.ratio_exponent, self.hidden_lr_exponent
        claims = _slopes(self, space, decays, {Axis.TOKENS: (-1.0 - m, self.sd)}, given)
        if not (m or hidden or _has(space, Axis.PARAMS, Axis.WIDTH, Axis.DEPTH)):
            return claims
        size = {Axis.PARAMS: (m, self.sd)}
        if hidden:
            size[Axis.WIDTH] = (-hidden, 0.0)
        return claims + _slopes(self, space, decays, size, given)


@dataclass(frozen=True, slots=True)
class StepLaw:
    """Optimum and slopes of lr and batch, both tuned: a formula fitted to language models.

    Li et al. 2025, "Predictable Scale: Part I, Step Law" (arXiv:2503.04715), equation 1::

        lr = 1.79 N^-0.713 D^0.307        batch = 0.58 D^0.571 tokens

    for AdamW in standard parametrization, N without the vocabulary's parameters, 60 million to a
    billion of them, cosine decay to a fixed small lr. In other setups (other optimizers, muP, tiny
    models) its levels mean little: widen them or use `levels=False`.

    Args:
        sequence_length: tokens that one unit of the BATCH stands for: 1 for a batch counted in
            tokens. Without it nothing is claimed about the level of the batch.
        params: N where the space has no PARAMS axis because every run has this size.
        levels: whether to claim the optimum itself and not only its slopes.
        slope_sd: of each of lr's exponents; batch's is believed half as wide.
        lr_sd, batch_sd: of the levels, in ln; 0.5 is a factor of 1.65.
    """

    _: KW_ONLY
    sequence_length: float | None = None
    params: float | None = None
    levels: bool = True
    slope_sd: float = 0.2
    lr_sd: float = 0.5
    batch_sd: float = 0.7

    def __post_init__(self) -> None:
        for name in ("sequence_length", "params"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise SpaceError(
                    f"`{name}` of StepLaw must be positive and finite, got {value!r}; give a count,"
                    " such as 2048, or None"
                )

    def claims(self, space: SearchSpace) -> tuple[Slope | Level, ...]:
        """Slopes of every LR and BATCH, and their levels at the middle of the scales."""
        lrs = _required(self, space, Role.LR)
        batches = _required(self, space, Role.BATCH)
        lr = {Axis.TOKENS: (0.307, self.slope_sd)}
        batch = {Axis.TOKENS: (0.571, self.slope_sd / 2)}
        if self.params is None:
            lr[Axis.PARAMS] = (-0.713, self.slope_sd)
            batch[Axis.PARAMS] = (0.0, self.slope_sd / 2)
        claims: tuple[Slope | Level, ...] = (
            *_slopes(self, space, lrs, lr),
            *_slopes(self, space, batches, batch),
        )
        return claims + (self._levels(space, lrs, batches) if self.levels else ())

    def _levels(
        self, space: SearchSpace, lrs: Sequence[str], batches: Sequence[str]
    ) -> tuple[Level, ...]:
        at = {name: math.exp(middle) for name, middle in middle_of_scales(space).items()}
        D = at[_only(self, space, Axis.TOKENS)]
        N = self.params
        if N is None:
            N = at[_only(self, space, Axis.PARAMS)]
        levels = [Level(name, at, 1.79 * N**-0.713 * D**0.307, self.lr_sd) for name in lrs]
        if self.sequence_length is not None:
            batch = 0.58 * D**0.571 / self.sequence_length
            levels += [Level(name, at, batch, self.batch_sd) for name in batches]
        return tuple(levels)


# --- from claims to a prior ----------------------------------------------------------------------


# --- reading a space -----------------------------------------------------------------------------


def _required(rule: TransferRule, space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Names with this role; SpaceError if there is none, or one that is not on a log scale."""
    names = _followed(rule, space, role)
    if not names:
        raise SpaceError(
            f"{rule!r} needs a parameter of role {role}, got none among {list(space.decisions)};"
            f" give the right one role={role}, or leave the rule out of priors"
        )
    return names


def _followed(rule: TransferRule, space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Names with this role, perhaps none; SpaceError for one that is not on a log scale."""
    names = _with_role(space, role)
    for name in names:
        if not _is_log(space[name]):
            raise SpaceError(
                f"{rule!r} speaks of ln {name}, so `{name}` must be a Float or Int with log=True,"
                f" got {space[name]}; make it one, or leave the rule out of priors"
            )
    return names


def _optional(space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Names with this role that are on a log scale; perhaps none."""
    return tuple(name for name in _with_role(space, role) if _is_log(space[name]))


def _with_role(space: SearchSpace, role: Role) -> tuple[str, ...]:
    return tuple(n for n in space.decisions if getattr(space[n], "role", None) is role)


def _is_log(parameter: Parameter) -> bool:
    return isinstance(parameter, Float | Int) and parameter.log


def _has(space: SearchSpace, *axes: Axis) -> bool:
    return any(_along(space, axis) for axis in axes)


def _along(space: SearchSpace, axis: Axis) -> tuple[str, ...]:
    """Names of the scale axes that measure `axis`."""
    found = []
    for name in space.scales:
        scale = space[name]
        if isinstance(scale, Scale) and scale.axis is axis:
            found.append(name)
    return tuple(found)


def _only(rule: TransferRule, space: SearchSpace, axis: Axis) -> str:
    """The one scale axis that measures `axis`."""
    names = _along(space, axis)
    if len(names) != 1:
        raise SpaceError(
            f"{rule!r} needs one scale axis of {axis} for its levels, got {list(names)}; declare"
            f" Scale(low, high, axis={axis}), or use levels=False"
        )
    return names[0]


def _stand_ins(rule: TransferRule, space: SearchSpace, axis: Axis) -> dict[str, Normal]:
    """Scale axes by name, with d ln (quantity of `axis`) / d ln (axis) as mean and sd."""
    if own := _along(space, axis):
        return dict.fromkeys(own, _EXACT)
    params = _along(space, Axis.PARAMS)
    found: dict[str, Normal] = {}
    if axis is Axis.WIDTH:
        found = dict.fromkeys(params, _WIDTH_OF_PARAMS)
    elif axis is Axis.DEPTH:
        found = dict.fromkeys(params, _DEPTH_OF_PARAMS)
    elif axis is Axis.PARAMS:
        found = dict.fromkeys(_along(space, Axis.WIDTH), (2.0, 0.0))
        found |= dict.fromkeys(_along(space, Axis.DEPTH), _EXACT)
    if not found:
        raise SpaceError(
            f"{rule!r} needs a scale axis of {axis}, got {list(space.scales)}; declare"
            f" Scale(low, high, axis={axis}), give the right one that axis=, or leave the rule out"
            " of priors"
        )
    return found


def _slopes(
    rule: TransferRule,
    space: SearchSpace,
    names: Sequence[str],
    slopes: Mapping[Axis, Normal],
    given: Mapping[str, float] | None = None,
) -> tuple[Slope, ...]:
    """`slopes` in the quantities of the rule as claims about the axes that the space has.

    Where one axis stands for several quantities (parameters for width and depth), their shares add
    up: dz/ds = sum_q (dz/dq) (dq/ds). An uncertain share widens the claim, a small one does not
    narrow it, for what else changes along a stand-in is not known.
    """
    total: dict[str, Normal] = {}
    for axis, (mean, sd) in slopes.items():
        for name, (share, share_sd) in _stand_ins(rule, space, axis).items():
            before, before_sd = total.get(name, (0.0, 0.0))
            own_sd = math.hypot(max(abs(share), 1.0) * sd, mean * share_sd)
            total[name] = (before + mean * share, math.hypot(before_sd, own_sd))
    return tuple(
        Slope(parameter, scale, mean, sd, dict(given or {}))
        for parameter in names
        for scale, (mean, sd) in total.items()
    )
