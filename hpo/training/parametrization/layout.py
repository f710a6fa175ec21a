"""Which dimensions of which parameters grow, from two models that differ in width."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from torch import nn

from hpo.training.optimizers import LayerRole
from hpo.training.parametrization.rules import Growth

_INDEX = re.compile(r"(?<![^.])\d+(?![^.])")  # a whole part of a dotted name


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
