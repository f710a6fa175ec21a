"""Parametrizations: learning rate, decay, epsilon and initial scale by width and depth.

    layout = ParameterLayout.of(build(width=64), build(width=128))      # which dimensions grow
    model = build(width=1024)
    rescale_(model, layout, MUP)                               # once, on new weights
    trainer = TorchTrainer(..., groups=Parametrized(MUP, layout))

A parametrization is a table of factors relative to a base model, for which all factors are one. It
acts through the initial weights and through optimizer groups only: no tensor gets an attribute and
the forward pass is unchanged, so compiled and sharded models work. What a forward multiplier would
do (1 / width on the output layer in Yang et al., 2022, table 8) is moved into weights and learning
rates by their lemma J.1; that is table 3 of the same paper. Two things remain in the model:
attention logits divided by the head width, not by its root, where heads themselves widen, the
factor on residual branches of a parametrization in depth, `branch_factor`, and, where one weight is
both embedding and output layer, the factor on the logits, `readout_factor`.

Notation
--------
m_in, m_out  a weight's fan-in and fan-out over those of the base model, 1 where they do not grow
m_L          depth over the base model's
alpha        residual branches are multiplied by m_L^-alpha
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch
from torch import nn

from hpo.scaling.transfer_rules import Alignment, Layer, ScalingExponents, Update
from hpo.space.arguments import Flag, Kind, Number, store
from hpo.training.optimizers import LayerRole, ParameterGroup, Step, UpdateRule

_RESCALED = "rescaled_"  # attribute of a model whose weights were
_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")  # a whole part of a dotted name

_RATIO = Number(above=0, way_out="1 is the size of the base model")


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
            m_in=_RATIO,
            m_out=_RATIO,
            aspect=_RATIO,
            base_aspect=_RATIO,
            depth=_RATIO,
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
        store(self, lr=_RATIO, weight_decay=_RATIO, epsilon=_RATIO, initial=_RATIO)


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
        _RATIO(depth, "`depth`")
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
    Decay times lr stays constant in width.

    Args:
        alpha: Exponent of the depth in the factor on residual branches, in [0.5, 1]; None for no
            rule in depth.

    Raises:
        ValueError: `alpha` lies outside [0.5, 1].

    Example:
        >>> wide = Growth(LayerRole.OUTPUT, m_in=4.0)
        >>> MaximalUpdate().factors(wide, Step.ENTRYWISE)
        Factors(lr=0.25, weight_decay=4.0, epsilon=1.0, initial=0.5)
        >>> MaximalUpdate(alpha=0.5).branch_factor(4.0)
        0.5
    """

    alpha: float | None = None

    def __post_init__(self) -> None:
        way_out = "leave it out for no rule in depth"
        store(self, alpha=Number(least=0.5, most=1, optional=True, way_out=way_out))

    def branch_factor(self, depth: float) -> float:
        """Return depth^-alpha, or one without a rule in depth."""
        depth = _RATIO(depth, "`depth`")
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
        decay = 1 / lr
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
        _RATIO(depth, "`depth`")
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


@dataclass(frozen=True, slots=True)
class _Counterpart:
    """Parameter of the base model: its role, fans, and which of them grow."""

    role: LayerRole
    fan_in: int
    fan_out: int
    grows_in: bool
    grows_out: bool


@dataclass(frozen=True, slots=True)
class ParameterLayout:
    """Roles and base sizes of all parameters, by name; made by `of`.

    Args:
        counterparts: Parameters of the base model by name.
        blocks: Name of the list of residual blocks in the module tree, such as "blocks".
        depth: Number of residual blocks of the base model.
        tied: Names of embeddings whose weight is also that of an output layer.

    Example:
        >>> def build(width):
        ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
        >>> layout = ParameterLayout.of(build(8), build(16))
        >>> growth = layout.growth(build(32))
        >>> growth["2.weight"].role.value, growth["2.weight"].m_in
        ('output', 4.0)
    """

    counterparts: Mapping[str, _Counterpart] = field(repr=False)
    blocks: str
    depth: int
    tied: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls,
        base: nn.Module,
        wider: nn.Module,
        *,
        blocks: str = "blocks",
        tied_readout: bool = False,
    ) -> ParameterLayout:
        """Compare `base` with a model that differs from it in width only.

        Roles follow from the dimensions that differ and from the kind of layer, since an embedding
        and an output layer may have the same shape: embeddings map a fixed vocabulary to a width;
        of other matrices the second-to-last dimension is the output's. Blocks that `base` lacks are
        assumed to be like its last one.

        Args:
            base: Base model, for which all factors are one.
            wider: Model of the same depth in which every dimension that may grow is larger.
            blocks: Name of the list of residual blocks in the module tree.
            tied_readout: Confirms that a model whose output layer shares the embedding's weight
                multiplies its logits by `readout_factor` of the parametrization. A tie that is
                made inside `forward` alone cannot be seen from outside.

        Raises:
            ValueError: Parameters do not correspond, none grows, or an output layer is tied to an
                embedding without `tied_readout`.
        """
        embeddings = _embedding_weights(base)
        tied = _tied_embeddings(base)
        if tied and not tied_readout:
            raise ValueError(
                f"{', '.join(map(repr, sorted(tied)))} is the weight of an embedding and of an "
                "output layer, which scale differently with the width; multiply the logits by "
                "`MUP.readout_factor(width / base_width)` and pass `tied_readout=True`, or untie "
                "them"
            )
        wide = dict(wider.named_parameters())
        found: dict[str, _Counterpart] = {}
        for name, weight in base.named_parameters():
            if name not in wide or wide[name].ndim != weight.ndim:
                raise ValueError(
                    "`base` and `wider` must have the same parameters in different widths, but "
                    f"`wider` has no counterpart of {name!r} {tuple(weight.shape)}; build both "
                    "with the same depth"
                )
            fans = _fans(weight, name in embeddings)
            wide_fans = _fans(wide[name], name in embeddings)
            grows = (fans[0] != wide_fans[0], fans[1] != wide_fans[1])
            found[name] = _Counterpart(_role(weight, grows), *fans, *grows)
        if not any(c.grows_in or c.grows_out for c in found.values()):
            raise ValueError("`wider` must be wider than `base`, but all shapes are equal")
        return cls(found, blocks, _depth(base, blocks), tied)

    def growth(self, model: nn.Module) -> dict[str, Growth]:
        """Return the size of every parameter of `model` relative to its counterpart, by name.

        Args:
            model: Model of any width and depth.

        Raises:
            ValueError: A parameter has no counterpart, or differs from it in a dimension that was
                equal in `base` and `wider`.
        """
        embeddings = _embedding_weights(model)
        depth = _depth(model, self.blocks) / max(1, self.depth)
        grown = {}
        for name, weight in model.named_parameters():
            base = self._counterpart(name)
            fan_in, fan_out = _fans(weight, name in embeddings)
            in_block = name.startswith(f"{self.blocks}.")
            for label, now, before, grows in (
                ("fan-in", fan_in, base.fan_in, base.grows_in),
                ("fan-out", fan_out, base.fan_out, base.grows_out),
            ):
                if now != before and not grows:
                    raise ValueError(
                        f"the {label} of {name!r} must be {before} as in the base model, got {now}:"
                        " it did not differ between `base` and `wider`; build a `wider` in which "
                        "everything that may grow does"
                    )
            grown[name] = Growth(
                base.role,
                m_in=fan_in / base.fan_in if base.grows_in else 1.0,
                m_out=fan_out / base.fan_out if base.grows_out else 1.0,
                aspect=fan_out / fan_in,
                base_aspect=base.fan_out / base.fan_in,
                depth=depth if in_block else 1.0,
                in_block=in_block,
            )
        for name, growth in grown.items():
            matrix = grown.get(f"{name.removesuffix('bias')}weight")
            if name.endswith("bias") and matrix is not None:
                grown[name] = replace(growth, m_in=matrix.m_in)
        return grown

    def _counterpart(self, name: str) -> _Counterpart:
        if name in self.counterparts:
            return self.counterparts[name]
        pattern = _INDEX.sub("*", name)
        alike = [known for known in self.counterparts if _INDEX.sub("*", known) == pattern]
        if not alike:
            raise ValueError(
                f"{name!r} must have a counterpart in the base model; build the layout from models "
                "of the same kind"
            )
        return self.counterparts[max(alike, key=_indices)]


@dataclass(frozen=True, slots=True)
class Parametrized:
    """Parameter groups by a parametrization, for `TorchTrainer(groups=...)`.

    Args:
        parametrization: Rule for the factors.
        layout: Roles and base sizes of the parameters.

    Example:
        >>> from hpo.training.optimizers import AdamW
        >>> def build(width):
        ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
        >>> groups = Parametrized(MUP, ParameterLayout.of(build(8), build(16)))
        >>> [(group.names, group.lr) for group in groups(build(32), AdamW(1e-2))]
        [(('0.weight',), 1.0), (('0.bias',), 1.0), (('2.weight',), 0.25), (('2.bias',), 1.0)]
    """

    parametrization: Parametrization
    layout: ParameterLayout

    def __call__(self, model: nn.Module, rule: UpdateRule) -> list[ParameterGroup]:
        """Return the groups of `parameter_groups`.

        Args:
            model: Model to train.
            rule: Optimizer, whose steps the factors depend on.
        """
        return parameter_groups(model, self.layout, self.parametrization, rule)


def parameter_groups(
    model: nn.Module, layout: ParameterLayout, parametrization: Parametrization, rule: UpdateRule
) -> list[ParameterGroup]:
    """Return the trainable parameters of `model` in groups of equal factors.

    Args:
        model: Model to train.
        layout: Roles and base sizes of its parameters.
        parametrization: Rule for the factors.
        rule: Optimizer, whose steps the factors depend on.

    Raises:
        ValueError: A weight that is tied cannot be, under this parametrization.

    Example:
        >>> from hpo.training.optimizers import SGD
        >>> base, wide = nn.Linear(3, 8), nn.Linear(3, 16)
        >>> layout = ParameterLayout.of(base, wide)
        >>> [group.lr for group in parameter_groups(wide, layout, MUP, SGD(0.1))]
        [2.0, 2.0]
    """
    if layout.tied:
        parametrization.readout_factor(1.0)  # which says so if a weight cannot be shared
    weights = dict(model.named_parameters())
    together: dict[tuple[LayerRole, bool, Factors], list[str]] = {}
    for name, growth in layout.growth(model).items():
        if weights[name].requires_grad:
            factors = parametrization.factors(growth, rule.step_of(growth.role))
            key = (growth.role, weights[name].ndim >= 2, factors)
            together.setdefault(key, []).append(name)
    return [
        ParameterGroup(
            tuple(names),
            tuple(weights[name] for name in names),
            role,
            lr=factors.lr,
            weight_decay=factors.weight_decay,
            epsilon=factors.epsilon,
        )
        for (role, _, factors), names in together.items()
    ]


@torch.no_grad()
def rescale_(model: nn.Module, layout: ParameterLayout, parametrization: Parametrization) -> None:
    """Rescale new weights from the standard initialization to that of `parametrization`, in place.

    Standard means variance 1 / fan-in for matrices, up to a constant, as in torch's own layers, and
    biases of that order too; embeddings, gains and zeros of any kind are unchanged. To be called
    once, before training, and never on a loaded checkpoint: the attribute `rescaled_` of the model
    notes it.

    Args:
        model: Model with new weights.
        layout: Roles and base sizes of its parameters.
        parametrization: Rule for the factors.

    Raises:
        ValueError: The model was rescaled before.

    Example:
        >>> base, wide = nn.Linear(4, 2), nn.Linear(16, 2)
        >>> before = wide.weight.detach().clone()
        >>> rescale_(wide, ParameterLayout.of(base, nn.Linear(8, 2)), MUP)
        >>> torch.equal(wide.weight, 0.5 * before)
        True
    """
    if getattr(model, _RESCALED, False):
        raise ValueError(
            "`rescale_` must be called once on new weights, but this model was rescaled before; "
            "build a new one"
        )
    growth = layout.growth(model)
    setattr(model, _RESCALED, True)
    for name, weight in model.named_parameters():
        # The same for every optimizer.
        factor = parametrization.factors(growth[name], Step.ENTRYWISE).initial
        if factor != 1.0:
            weight.mul_(factor)


def _embedding_weights(model: nn.Module) -> frozenset[str]:
    """Names of embeddings' weights, those that they share with other layers included."""
    inside = {
        id(weight)
        for module in model.modules()
        if isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for weight in module.parameters(recurse=False)
    }
    return frozenset(name for name, weight in model.named_parameters() if id(weight) in inside)


def _tied_embeddings(model: nn.Module) -> frozenset[str]:
    """Names of embeddings' weights that another kind of layer has as well."""
    outside = {
        id(weight)
        for module in model.modules()
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag)
        for weight in module.parameters(recurse=False)
    }
    weights = dict(model.named_parameters())
    return frozenset(name for name in _embedding_weights(model) if id(weights[name]) in outside)


def _fans(weight: nn.Parameter, embedding: bool) -> tuple[int, int]:
    """Return fan-in and fan-out. Stacked matrices, as of experts, are `count x out x in`."""
    if weight.ndim < 2:
        return 1, weight.numel()
    if embedding:
        return weight.shape[0], weight.shape[1]
    if weight.ndim == 3:
        return weight.shape[2], weight.shape[1]
    field_size = math.prod(weight.shape[2:])  # of a convolution
    return weight.shape[1] * field_size, weight.shape[0]


def _role(weight: nn.Parameter, grows: tuple[bool, bool]) -> LayerRole:
    if weight.ndim < 2:
        return LayerRole.VECTOR
    return {
        (False, False): LayerRole.VECTOR,
        (False, True): LayerRole.INPUT,
        (True, False): LayerRole.OUTPUT,
        (True, True): LayerRole.HIDDEN,
    }[grows]


def _depth(model: nn.Module, blocks: str) -> int:
    indices = {
        name.removeprefix(f"{blocks}.").split(".")[0]
        for name, _ in model.named_parameters()
        if name.startswith(f"{blocks}.")
    }
    return len(indices)


def _indices(name: str) -> tuple[int, ...]:
    return tuple(int(index) for index in _INDEX.findall(name))
