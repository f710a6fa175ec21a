"""Powers of width that keep updates at order one, by parametrization, optimizer and layer."""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import ClassVar

from hpo.errors import SpaceError
from hpo.scaling.claims import SD, Slope
from hpo.scaling.transfer_rules.reading import optional, required, slope_claims
from hpo.space import Axis, Role, SearchSpace
from hpo.space.arguments import Kind, store


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


_FROM_RULES = "import it from hpo.scaling.transfer_rules and pick a member"
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

    source: ClassVar[str] = "Everett et al. 2024, arXiv:2407.05872"
    parametrization: ParametrizationScheme = ParametrizationScheme.STANDARD
    update: Update = Update.ADAM
    _: KW_ONLY
    layer: Layer = Layer.HIDDEN
    alignment: Alignment = Alignment.FULL
    sd: float = 0.3

    def __post_init__(self) -> None:
        store(
            self,
            SpaceError,
            parametrization=Kind(ParametrizationScheme, way_out=_FROM_RULES),
            update=Kind(Update, way_out=_FROM_RULES),
            layer=Kind(Layer, way_out=_FROM_RULES),
            alignment=Kind(Alignment, way_out=_FROM_RULES),
            sd=SD,
        )

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
        claims = slope_claims(self, space, required(self, space, Role.LR), lr)
        if self.update is Update.ADAM:
            epsilon = {Axis.WIDTH: (self.gradient_exponent, self.sd)}
            names = optional(space, Role.EPSILON)
            claims += slope_claims(self, space, names, epsilon)
        return claims
