"""Standard parametrization, muP with its rules in depth, and rates by layer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from hpo.scaling.transfer_rules import Alignment, Layer, ScalingExponents, Update
from hpo.space.arguments import Flag, Kind, Number, store
from hpo.training.optimizers import LayerRole, Step

RATIO = Number(above=0, way_out="1 is the size of the base model")


@dataclass(frozen=True, slots=True)
class Growth:
    """Size of one parameter relative to its counterpart in the base model.

    Args:
        role: Role of the parameter.
        m_in: Fan-in over that of the counterpart; for a bias, that of the matrix beside it.
        m_out: Fan-out over that of the counterpart.
        aspect: Fan-out over fan-in.
        base_aspect: Fan-out over fan-in of the counterpart.
        depth: m_L for parameters inside residual blocks, else 1.
        in_block: Whether the parameter is inside a residual block.

    Example:
        >>> MUP.factors(Growth(LayerRole.HIDDEN, m_in=4.0, m_out=4.0), Step.ENTRYWISE).lr
        0.25
    """

    role: LayerRole
    m_in: float = 1.0
    m_out: float = 1.0
    aspect: float = 1.0
    base_aspect: float = 1.0
    depth: float = 1.0
    in_block: bool = False

    def __post_init__(self) -> None:
        store(
            self,
            role=Kind(LayerRole, way_out="write LayerRole.HIDDEN or another member"),
            m_in=RATIO,
            m_out=RATIO,
            aspect=RATIO,
            base_aspect=RATIO,
            depth=RATIO,
            in_block=Flag(),
        )


@dataclass(frozen=True, slots=True)
class Factors:
    """Factors of one parameter relative to the base model.

    Args:
        lr: Factor on the learning rate.
        weight_decay: Factor on the weight decay.
        epsilon: Factor on Adam's epsilon.
        initial: Factor on the standard deviation of the initial weights.

    Example:
        >>> STANDARD.factors(Growth(LayerRole.HIDDEN, m_in=4.0), Step.ENTRYWISE)
        Factors(lr=1.0, weight_decay=1.0, epsilon=1.0, initial=1.0)
    """

    lr: float = 1.0
    weight_decay: float = 1.0
    epsilon: float = 1.0
    initial: float = 1.0

    def __post_init__(self) -> None:
        store(self, lr=RATIO, weight_decay=RATIO, epsilon=RATIO, initial=RATIO)


class Parametrization(Protocol):
    """Rule for what changes with width and depth.

    Example:
        >>> parametrization: Parametrization = COMPLETE_P
        >>> parametrization.branch_factor(4.0)
        0.25
    """

    def factors(self, growth: Growth, step: Step) -> Factors:
        """Return the factors of one parameter.

        Args:
            growth: Size of the parameter relative to the base model.
            step: How its optimizer turns gradients into updates.
        """
        ...

    def branch_factor(self, depth: float) -> float:
        """Return the factor on every residual branch.

        Args:
            depth: Number of blocks over that of the base model, m_L.
        """
        ...

    def readout_factor(self, width: float) -> float:
        """Return the factor on the logits of an output layer that is tied to the embedding.

        Args:
            width: Width over that of the base model, m_in of an output layer of its own.
        """
        ...


@dataclass(frozen=True, slots=True)
class Standard:
    """Standard parametrization: all factors are one at every size.

    Example:
        >>> Standard().branch_factor(4.0)
        1.0
    """

    def factors(self, growth: Growth, step: Step) -> Factors:
        """Return factors of one."""
        Kind(Growth)(growth, "`growth`")
        Kind(Step)(step, "`step`")
        return Factors()

    def branch_factor(self, depth: float) -> float:
        """Return one."""
        RATIO(depth, "`depth`")
        return 1.0

    def readout_factor(self, width: float) -> float:
        """Return one."""
        return 1.0


@dataclass(frozen=True, slots=True)
class MaximalUpdate:
    """muP: at any width, every layer's output changes as much as it can without diverging.

    Width: Yang et al., 2022 (arXiv:2203.03466), table 3. Depth, if `alpha` is given: branches times
    m_L^-alpha, and the lr of blocks times what keeps the sum of all blocks' changes at order one,
    m_L^(2 alpha - 1) for SGD and m_L^(alpha - 1) for all others. alpha = 1/2 is Depth-muP
    (Yang et al., 2023, arXiv:2310.02244), alpha = 1 CompleteP (Dey et al., 2025, arXiv:2505.01618,
    table 1, which also has the factors of epsilon). For Muon and Shampoo the spectral norm of
    updates is kept at sqrt(fan-out / fan-in) (Bernstein, 2025); Dion and Scion do so by themselves.
    Decay times lr stays constant in width, or, with `decay_power`, the decay of every layer grows
    as a power of what its lr loses: with 1/2, decay of the hidden matrices grows as the root of
    width under AdamW (Fan et al., 2025, arXiv:2510.15262).

    Args:
        alpha: Exponent of the depth in the factor on residual branches, in [0.5, 1]; None for no
            rule in depth.
        decay_power: Power p of the decay's factor in width, that of the lr to the -p, in [0, 1].

    Raises:
        ValueError: `alpha` lies outside [0.5, 1], or `decay_power` outside [0, 1].

    Example:
        >>> wide = Growth(LayerRole.OUTPUT, m_in=4.0)
        >>> MaximalUpdate().factors(wide, Step.ENTRYWISE)
        Factors(lr=0.25, weight_decay=4.0, epsilon=1.0, initial=0.5)
        >>> MaximalUpdate(alpha=0.5).branch_factor(4.0)
        0.5
        >>> MaximalUpdate(decay_power=0.5).factors(wide, Step.ENTRYWISE).weight_decay
        2.0
    """

    alpha: float | None = None
    decay_power: float = 1.0

    def __post_init__(self) -> None:
        way_out = "leave it out for no rule in depth"
        store(
            self,
            alpha=Number(least=0.5, most=1, optional=True, way_out=way_out),
            decay_power=Number(least=0, most=1, way_out="1 keeps decay times lr constant"),
        )

    def branch_factor(self, depth: float) -> float:
        """Return depth^-alpha, or one without a rule in depth."""
        depth = RATIO(depth, "`depth`")
        return 1.0 if self.alpha is None else float(depth**-self.alpha)

    def readout_factor(self, width: float) -> float:
        """Return 1 / width: table 8, where the tied weight itself is that of an embedding."""
        return 1.0 / width

    def factors(self, growth: Growth, step: Step) -> Factors:
        """Return the factors of one parameter that is updated by `step`."""
        growth, step = Kind(Growth)(growth, "`growth`"), Kind(Step)(step, "`step`")
        lr = self._lr_in_width(growth, step)
        # Gradients of whatever sits below the output layer are of order 1 / width, and the singular
        # values of a matrix of them of order sqrt(fan-in / fan-out).
        epsilon = 1.0 if growth.role is LayerRole.OUTPUT else 1 / growth.m_out
        if step is Step.PRECONDITIONED:
            epsilon = math.sqrt(growth.m_in / growth.m_out)
        decay = 1 / lr**self.decay_power
        if self.alpha is not None and growth.in_block:
            per_block = 2 * self.alpha - 1 if step is Step.PROPORTIONAL else self.alpha - 1
            lr *= growth.depth**per_block
            epsilon *= growth.depth**-self.alpha
        # Biases are drawn of order fan-in^-1/2 by torch, and are to stay of order one.
        power = {LayerRole.OUTPUT: -0.5, LayerRole.VECTOR: 0.5}.get(growth.role, 0.0)
        return Factors(lr, decay, epsilon, initial=growth.m_in**power)

    def _lr_in_width(self, growth: Growth, step: Step) -> float:
        m_in, m_out = growth.m_in, growth.m_out
        if step is Step.NORMALIZED:
            return 1.0
        if step is Step.PRECONDITIONED:
            return math.sqrt(m_out / m_in)
        if step is Step.ORTHOGONAL:
            # torch already multiplies by sqrt(max(1, aspect)).
            done = math.sqrt(max(1.0, growth.aspect) / max(1.0, growth.base_aspect))
            return math.sqrt(m_out / m_in) / done
        if growth.role is LayerRole.VECTOR:
            return m_out if step is Step.PROPORTIONAL else 1.0
        if step is Step.PROPORTIONAL and growth.role is not LayerRole.OUTPUT:
            return m_out / m_in
        return 1 / m_in


@dataclass(frozen=True, slots=True)
class PerLayer:
    """Standard initial weights, with a learning rate for each kind of layer.

    Everett et al., 2024 (arXiv:2407.05872), table 1, standard parametrization; see
    `hpo.scaling.transfer_rules.ScalingExponents`, which has the exponents.

    Args:
        alignment: Assumed alignment of updates and activations. With `Alignment.NONE`, learning
            rates fall slower in width, which did better there than full alignment.

    Example:
        >>> wide = Growth(LayerRole.HIDDEN, m_in=4.0, m_out=4.0)
        >>> [PerLayer(a).factors(wide, Step.ENTRYWISE).lr for a in (Alignment.FULL, Alignment.NONE)]
        [0.25, 0.5]
    """

    alignment: Alignment = Alignment.FULL

    def __post_init__(self) -> None:
        store(self, alignment=Kind(Alignment, way_out="write Alignment.FULL or Alignment.NONE"))

    def branch_factor(self, depth: float) -> float:
        """Return one: there is no rule in depth."""
        RATIO(depth, "`depth`")
        return 1.0

    def readout_factor(self, width: float) -> float:
        """Raise: the learning rates of embedding and output layer differ, and a weight has one.

        Raises:
            ValueError: Always.
        """
        raise ValueError(
            "PerLayer gives the embedding and the output layer learning rates of their own, so the "
            "two cannot share a weight; untie them or use MUP"
        )

    def factors(self, growth: Growth, step: Step) -> Factors:
        """Return the factors of one parameter that is updated by `step`.

        Args:
            growth: Size of the parameter relative to the base model.
            step: How its optimizer turns gradients into updates.

        Raises:
            ValueError: `step` is that of Muon or another one for which no exponents are known.
        """
        growth, step = Kind(Growth)(growth, "`growth`"), Kind(Step)(step, "`step`")
        if step not in (Step.PROPORTIONAL, Step.ENTRYWISE):
            raise ValueError(
                "the scaling exponents are known for SGD and optimizers of Adam's kind, not for "
                f"the {step.value} steps of Muon and others; use MUP"
            )
        update = Update.SGD if step is Step.PROPORTIONAL else Update.ADAM
        layer = {LayerRole.HIDDEN: Layer.HIDDEN, LayerRole.OUTPUT: Layer.READOUT}.get(
            growth.role, Layer.EMBEDDING
        )
        width = growth.m_out if layer is Layer.EMBEDDING else growth.m_in
        rule = ScalingExponents(update=update, layer=layer, alignment=self.alignment)
        lr = width**rule.lr_exponent
        return Factors(lr=lr, weight_decay=1 / lr, epsilon=width**rule.gradient_exponent)


STANDARD = Standard()
MUP = MaximalUpdate()
DEPTH_MUP = MaximalUpdate(alpha=0.5)
COMPLETE_P = MaximalUpdate(alpha=1.0)
