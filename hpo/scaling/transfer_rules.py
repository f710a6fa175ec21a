"""Published transfer rules as priors on how the best settings drift with scale.

Every rule for carrying hyperparameters across scale gives the value model one thing: the slope, and
sometimes the level, of the optimum z* of a parameter along a scale axis. A rule is a small frozen
object that turns a search space into such claims. Data then update them, and `result.scaling_law`
shows prior and posterior side by side. ::

    optimize(..., priors=[MuP(), TokenHorizon()])

Notation
--------
z*_j     best value of parameter j in natural units: ln lr, ln batch, log-odds of beta2
s_a      ln of scale axis a: ln N (parameters), ln D (tokens), ln width, ln depth
slope    dz*_j / ds_a. -0.3 means that the best lr falls by 10^-0.3, to one half, in ten times D
sd       one standard deviation of the slope: how far the rule may be off in a setting it was not
         fitted in, judged from the spread between papers; no paper states it

How claims combine
------------------
Claims about the same slope are pooled as measurements of one quantity that may differ from paper to
paper (DerSimonian & Laird 1986, random effects; `hpo.scaling.drift_prior.pooled`). Where they
agree, this is the product of the Gaussians. Where they disagree by more than their sds allow, the
disagreement is added to every variance: the pooled slope then covers both claims instead of
narrowing between them. A claim conditional on the drift of another parameter (`given`) takes that
parameter's own pooled slope, with its uncertainty. Slopes without a claim keep the neutral prior:
zero mean, wide (`surrogates.scaling_law.prior.LawPrior`).

Where the axis of a rule is missing, another stands in for it. With N = 12 depth width^2, the
non-embedding parameters of a transformer (Kaplan et al. 2020, table 1), ln N = 2 ln width +
ln depth. As models on a PARAMS axis grow, width rises as N^1/2 at fixed depth and as N^1/3 at fixed
aspect ratio.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum

from hpo.errors import SpaceError
from hpo.scaling.claims import Level, MeanSd, Slope, TransferRule
from hpo.space import Axis, Role, SearchSpace, Unit

_EXACT: MeanSd = (1.0, 0.0)
#: d ln width / d ln N and d ln depth / d ln N: from fixed depth (1/2, 0) to fixed aspect (1/3, 1/3)
_WIDTH_OF_PARAMS: MeanSd = (5 / 12, 1 / 12)
_DEPTH_OF_PARAMS: MeanSd = (1 / 6, 1 / 6)
#: d ln lr / d ln batch of Adam below the critical batch: the square-root rule (Malladi et al. 2022)
_LR_OF_BATCH = 0.5


# --- rules in model size -------------------------------------------------------------------------


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

    _: KW_ONLY
    sd: float = 0.2

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
        names = (*_required(self, space, Role.LR), *_optional(space, Role.INIT))
        return _slopes(self, space, names, {Axis.WIDTH: (0.0, self.sd)})


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

    _: KW_ONLY
    width_sd: float = 0.2
    depth_sd: float = 0.3

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
        names = (*_required(self, space, Role.LR), *_optional(space, Role.INIT))
        slopes = {Axis.WIDTH: (0.0, self.width_sd), Axis.DEPTH: (0.0, self.depth_sd)}
        return _slopes(self, space, names, slopes)


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

    _: KW_ONLY
    sd: float = 0.2
    other_sd: float = 0.3

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
        names = (*_required(self, space, Role.LR), *_optional(space, Role.INIT))
        others = (
            *_optional(space, Role.WEIGHT_DECAY),
            *_optional(space, Role.EPSILON),
        )
        tight: MeanSd = (0.0, self.sd)
        loose: MeanSd = (0.0, self.other_sd)
        return (
            *_slopes(self, space, names, {Axis.WIDTH: tight, Axis.DEPTH: tight}),
            *_slopes(self, space, others, {Axis.WIDTH: loose, Axis.DEPTH: loose}),
        )


class ParametrizationScheme(Enum):
    """Dependence of multipliers and initial scales on width n (Everett et al. 2024, table 1).

    Example:
        >>> ParametrizationScheme("mup")
        <ParametrizationScheme.MUP: 'mup'>
    """

    STANDARD = "standard"
    NTK = "ntk"
    MUP = "mup"
    MEAN_FIELD = "mean field"


class Update(Enum):
    """Size of the step that the optimizer takes from a gradient.

    Example:
        >>> Update("adam")
        <Update.ADAM: 'adam'>
    """

    SGD = "sgd"  # proportional to it
    ADAM = "adam"  # entries of order lr: Adam, AdamW, Lion
    ADAFACTOR = "adafactor"  # entries of order lr times the parameter's own size


class Layer(Enum):
    """Kind of weight matrix by its shape; n is width.

    Example:
        >>> Layer("hidden")
        <Layer.HIDDEN: 'hidden'>
    """

    EMBEDDING = "embedding"  # vocabulary x n
    HIDDEN = "hidden"  # n x n
    READOUT = "readout"  # n x vocabulary


class Alignment(Enum):
    """Alignment of updates and activations: their product over n entries grows as n^value.

    Example:
        >>> Alignment.NONE.value
        0.5
    """

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
    """Power of width n in the lr that keeps the updates of one kind of layer at order one.

    Everett et al. 2024, "Scaling Exponents Across Parameterizations and Optimizers"
    (arXiv:2407.05872), tables 1 and 2. With multiplier ~ n^a, initial entries ~ n^-b, gradient
    entries ~ n^-g and updates of order lr (Adam), an update must change its layer's output by O(1):
    lr ~ n^(-a - alignment) (`lr_exponent` covers the other optimizers). So under standard
    parametrization AdamW's hidden layers need lr ~ 1 / n with full alignment and 1 / sqrt(n) with
    none.

    The rule is for code that uses one lr for all layers at all widths. Code that already multiplies
    the lr by this power has a flat base lr: use `MuP()`.

    Args:
        parametrization: dependence of multipliers and initial scales on width.
        update: kind of step of the optimizer.
        layer: kind of layer to which the tuned lr matters most.
        alignment: alignment of updates and activations.
        sd: standard deviation of the exponent. Wide, because the best single lr was seen to fall
            slower than in theory (Haas et al. 2025, arXiv:2505.22491).

    Example:
        >>> ScalingExponents().lr_exponent, ScalingExponents(alignment=Alignment.NONE).lr_exponent
        (-1.0, -0.5)
    """

    parametrization: ParametrizationScheme = ParametrizationScheme.STANDARD
    update: Update = Update.ADAM
    _: KW_ONLY
    layer: Layer = Layer.HIDDEN
    alignment: Alignment = Alignment.FULL
    sd: float = 0.3

    @property
    def gradient_exponent(self) -> float:
        """Power of n in the entries of the layer's gradient at initialization.

        The best epsilon of Adam grows with the same power.

        Example:
            >>> ScalingExponents().gradient_exponent
            -0.5
        """
        layers = _WIDTH_EXPONENTS[self.parametrization]
        multiplier, _ = layers[self.layer]
        if self.layer is Layer.READOUT:
            return multiplier  # logits' gradients and activations are O(1)
        return multiplier + sum(layers[Layer.READOUT])  # back through the read-out

    @property
    def lr_exponent(self) -> float:
        """Power of n in the best lr: d ln lr / d ln n.

        Example:
            >>> ScalingExponents(update=Update.SGD, layer=Layer.READOUT).lr_exponent
            -1.0
        """
        multiplier, initial = _WIDTH_EXPONENTS[self.parametrization][self.layer]
        step = {
            Update.SGD: self.gradient_exponent,
            Update.ADAM: 0.0,
            Update.ADAFACTOR: initial,
        }[self.update]
        fan_in = 0.0 if self.layer is Layer.EMBEDDING else self.alignment.value
        return 0.0 - multiplier - fan_in - step

    def claims(self, space: SearchSpace) -> tuple[Slope, ...]:
        """Claim the slope of every LR in ln width and, for Adam, of every EPSILON.

        Args:
            space: search space whose roles and axes the rule looks up.

        Raises:
            SpaceError: where the space lacks a role or an axis that the rule needs.

        Example:
            >>> from hpo import Axis, Float, Role, Scale, SearchSpace
            >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
            >>> epsilon = Float(1e-10, 1e-6, log=True, role=Role.EPSILON)
            >>> width = Scale(64, 1024, axis=Axis.WIDTH)
            >>> space = SearchSpace({"lr": lr, "epsilon": epsilon, "width": width})
            >>> [(slope.parameter, slope.mean) for slope in ScalingExponents().claims(space)]
            [('lr', -1.0), ('epsilon', -0.5)]
        """
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

    _: KW_ONLY
    exponent: float = -0.32
    sd: float = 0.15

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
        given = dict.fromkeys(_followed(self, space, Role.BATCH), _LR_OF_BATCH)
        names = _required(self, space, Role.LR)
        return _slopes(self, space, names, {Axis.TOKENS: (self.exponent, self.sd)}, given)


@dataclass(frozen=True, slots=True)
class TimeTransfer:
    """Best batch against the token horizon, and the lr that follows it.

    Filatov et al. 2024, "Time Transfer" (arXiv:2410.05838): the critical batch grows as D, the best
    batch grows more slowly and stays below it, both unmoved by model size under muP; at a fixed
    batch lr ~ D^1/2, D^0 or D^-1/2, depending on which side of the critical batch it is. Hence:

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

    _: KW_ONLY
    batch_exponent: float = 0.5
    batch_sd: float = 0.2
    size_sd: float = 0.1
    lr_sd: float = 0.3

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

    _: KW_ONLY
    sd: float = 0.15

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
        names = _required(self, space, Role.LR)
        return _slopes(self, space, names, {Axis.TOKENS: (0.0, self.sd)})


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

    _: KW_ONLY
    ratio_exponent: float = 0.0
    hidden_lr_exponent: float = 0.0
    sd: float = 0.25

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
        at = {name: math.exp(axis.log_middle) for name, axis in space.scale_axes.items()}
        D = at[_only(self, space, Axis.TOKENS)]
        N = self.params
        if N is None:
            N = at[_only(self, space, Axis.PARAMS)]
        levels = [Level(name, at, 1.79 * N**-0.713 * D**0.307, self.lr_sd) for name in lrs]
        if self.sequence_length is not None:
            batch = 0.58 * D**0.571 / self.sequence_length
            levels += [Level(name, at, batch, self.batch_sd) for name in batches]
        return tuple(levels)


# --- reading a space -----------------------------------------------------------------------------


def _required(rule: TransferRule, space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Return the names with this role; refuse if there is none, or one not on a log scale."""
    names = _followed(rule, space, role)
    if not names:
        raise SpaceError(
            f"{rule!r} needs a parameter of role {role}, got none among {list(space.decisions)};"
            f" give the right one role={role}, or leave the rule out of priors"
        )
    return names


def _followed(rule: TransferRule, space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Return the names with this role, perhaps none; refuse one that is not on a log scale."""
    names = _with_role(space, role)
    for name in names:
        if space[name].unit is not Unit.LOG:
            raise SpaceError(
                f"{rule!r} is about ln {name}, so `{name}` must be a Float or Int with log=True,"
                f" got {space[name]}; make it one, or leave the rule out of priors"
            )
    return names


def _optional(space: SearchSpace, role: Role) -> tuple[str, ...]:
    """Return the names with this role that are on a log scale; perhaps none."""
    return tuple(name for name in _with_role(space, role) if space[name].unit is Unit.LOG)


def _with_role(space: SearchSpace, role: Role) -> tuple[str, ...]:
    return tuple(n for n in space.decisions if getattr(space[n], "role", None) is role)


def _has(space: SearchSpace, *axes: Axis) -> bool:
    return any(_along(space, axis) for axis in axes)


def _along(space: SearchSpace, axis: Axis) -> tuple[str, ...]:
    """Return the names of the scale axes that measure `axis`."""
    return tuple(name for name, scale in space.scale_axes.items() if scale.axis is axis)


def _only(rule: TransferRule, space: SearchSpace, axis: Axis) -> str:
    """Return the one scale axis that measures `axis`."""
    names = _along(space, axis)
    if len(names) != 1:
        raise SpaceError(
            f"{rule!r} needs one scale axis of {axis} for its levels, got {list(names)}; declare"
            f" Scale(low, high, axis={axis}), or use levels=False"
        )
    return names[0]


def _stand_ins(rule: TransferRule, space: SearchSpace, axis: Axis) -> dict[str, MeanSd]:
    """Return scale axes by name, with d ln (quantity of `axis`) / d ln (scale) as mean and sd."""
    if own := _along(space, axis):
        return dict.fromkeys(own, _EXACT)
    params = _along(space, Axis.PARAMS)
    found: dict[str, MeanSd] = {}
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
    slopes: Mapping[Axis, MeanSd],
    given: Mapping[str, float] | None = None,
) -> tuple[Slope, ...]:
    """Return slopes in the quantities of the rule as claims about the axes that the space has.

    Where one axis stands in for several quantities (parameters for width and depth), their shares
    add up: dz/ds = sum_q (dz/dq) (dq/ds). An uncertain share widens the claim. A small share does
    not narrow it, since what else changes along the axis is unknown.
    """
    total: dict[str, MeanSd] = {}
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
