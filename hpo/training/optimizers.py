"""Optimizers as plain settings, which turn parameter groups into torch optimizers.

    AdamW(lr=3e-3, weight_decay=0.1).build(groups)

A `ParameterGroup` lists parameters that share factors on the base values of the optimizer:
`parametrization` makes groups by width and depth, `plain_groups` those of a model that follows no
such rule. Weight decay acts on matrices only, not on biases and norms. The `lr` of the groups as
built are peak rates; a schedule multiplies them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from hpo.space.arguments import Flag, Interface, Kind, Number, Row, Text, store


class LayerRole(Enum):
    """Position of a parameter relative to the widths that grow with the model.

    Example:
        >>> LayerRole("hidden") is LayerRole.HIDDEN
        True
    """

    INPUT = "input"  # from a fixed width to a growing one: embeddings, first layers
    HIDDEN = "hidden"  # between growing widths
    OUTPUT = "output"  # from a growing width to a fixed one: the output layer
    VECTOR = "vector"  # one growing width or none: biases, gains


class Step(Enum):
    """How the size of an update follows from its gradient.

    Example:
        >>> AdamW(1e-3).step_of(LayerRole.HIDDEN)
        <Step.ENTRYWISE: 'entrywise'>
    """

    PROPORTIONAL = "proportional"  # SGD: lr times the gradient
    ENTRYWISE = "entrywise"  # AdamW, Lion: every entry of order lr
    ORTHOGONAL = "orthogonal"  # Muon: every singular value of order lr


_LR = Number(above=0, way_out="search it on a log scale")
_WEIGHT_DECAY = Number(least=0, way_out="0 switches it off")
_AVERAGE = Number(least=0, below=1, way_out="0 keeps no average")
_FACTOR = Number(least=0, way_out="1 leaves the base setting as it is")
_ROLE = Kind(LayerRole, way_out="write LayerRole.HIDDEN or another member")


@dataclass(frozen=True, slots=True)
class ParameterGroup:
    """Parameters that are updated alike.

    Args:
        names: Names in the model.
        parameters: Parameters of those names.
        role: Role that they have in common.
        lr: Factor on the base learning rate of the optimizer.
        weight_decay: Factor on its base weight decay.
        epsilon: Factor on its base epsilon.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2, 2))
        >>> group = ParameterGroup(("weight",), (weight,), LayerRole.HIDDEN, lr=0.5)
        >>> (optimizer,) = SGD(lr=0.1).build([group])
        >>> optimizer.param_groups[0]["lr"]
        0.05
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    role: LayerRole
    lr: float = 1.0
    weight_decay: float = 1.0
    epsilon: float = 1.0

    def __post_init__(self) -> None:
        store(
            self,
            names=Row(Text()),
            parameters=Row(Kind(torch.Tensor), way_out="list nn.Parameters"),
            role=_ROLE,
            lr=_FACTOR,
            weight_decay=_FACTOR,
            epsilon=_FACTOR,
        )

    @property
    def decays(self) -> bool:
        """Whether weight decay acts on the group: on matrices and convolutions only."""
        return self.parameters[0].ndim >= 2


#: Rule of an optimizer and its base settings.
UPDATE_RULE = Interface("an optimizer such as AdamW(lr=1e-3)", ("step_of", "build"))
_GROUPS = Row(
    Kind(ParameterGroup), empty=False, way_out="pass what plain_groups or parameter_groups returned"
)


class UpdateRule(Protocol):
    """Optimizer and its base settings.

    Example:
        >>> rule: UpdateRule = Lion(lr=1e-4)
        >>> (optimizer,) = rule.build(plain_groups(nn.Linear(2, 2), rule))
        >>> len(optimizer.param_groups)
        2
    """

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated."""
        ...

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return new optimizers, with each parameter in exactly one of them."""
        ...


@dataclass(frozen=True, slots=True)
class AdamW:
    """AdamW (Loshchilov & Hutter, 2019), with one fused kernel where the device has one.

    Args:
        lr: Learning rate, positive.
        weight_decay: Decoupled decay of matrices, at least 0.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        epsilon: Term added to the root of the second moment, at least 0.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> rule = AdamW(lr=3e-3, weight_decay=0.1)
        >>> (optimizer,) = rule.build(plain_groups(nn.Linear(2, 2), rule))
        >>> [group["weight_decay"] for group in optimizer.param_groups]
        [0.1, 0.0]
    """

    lr: float
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        store(
            self,
            lr=_LR,
            weight_decay=_WEIGHT_DECAY,
            beta1=_AVERAGE,
            beta2=_AVERAGE,
            epsilon=Number(least=0, way_out="1e-8 is usual"),
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        _ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new torch optimizer for all groups."""
        groups = _GROUPS(groups, "`groups`")
        settings = [
            {**_shared(group, self.lr, self.weight_decay), "eps": self.epsilon * group.epsilon}
            for group in groups
        ]
        betas = (self.beta1, self.beta2)
        return (torch.optim.AdamW(settings, lr=self.lr, betas=betas, fused=_has_fused(groups)),)


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent with momentum.

    Args:
        lr: Learning rate, positive.
        momentum: Decay of the momentum, in [0, 1).
        weight_decay: Factor of the L2 penalty on matrices, at least 0.
        nesterov: Whether the momentum is Nesterov's.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> rule = SGD(lr=0.1, nesterov=True)
        >>> (optimizer,) = rule.build(plain_groups(nn.Linear(2, 2), rule))
        >>> optimizer.defaults["nesterov"]
        True
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        store(self, lr=_LR, weight_decay=_WEIGHT_DECAY, momentum=_AVERAGE, nesterov=Flag())

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        _ROLE(role, "`role`")
        return Step.PROPORTIONAL

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new torch optimizer for all groups."""
        groups = _GROUPS(groups, "`groups`")
        settings = [_shared(group, self.lr, self.weight_decay) for group in groups]
        return (
            torch.optim.SGD(
                settings,
                lr=self.lr,
                momentum=self.momentum,
                nesterov=self.nesterov,
                fused=_has_fused(groups),
            ),
        )


@dataclass(frozen=True, slots=True)
class Lion:
    """Lion (Chen et al., 2023, arXiv:2302.06675, algorithm 2): the sign of a mixed momentum.

    Args:
        lr: Learning rate, positive.
        weight_decay: Decoupled decay of matrices, at least 0.
        beta1: Share of the momentum in the direction of the update, in [0, 1).
        beta2: Decay of the momentum, in [0, 1).

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2))
        >>> rule = Lion(lr=0.1)
        >>> (optimizer,) = rule.build([ParameterGroup(("w",), (weight,), LayerRole.VECTOR)])
        >>> weight.grad = torch.tensor([5.0, -0.01])
        >>> optimizer.step()
        >>> weight.tolist() == torch.tensor([-0.1, 0.1]).tolist()
        True
    """

    lr: float
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        store(self, lr=_LR, weight_decay=_WEIGHT_DECAY, beta1=_AVERAGE, beta2=_AVERAGE)

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        _ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new torch optimizer for all groups."""
        groups = _GROUPS(groups, "`groups`")
        settings = [_shared(group, self.lr, self.weight_decay) for group in groups]
        return (_Lion(settings, lr=self.lr, betas=(self.beta1, self.beta2)),)


@dataclass(frozen=True, slots=True)
class Muon:
    """Muon (Jordan et al., 2024): orthogonalized momentum for hidden matrices, AdamW for the rest.

    Args:
        lr: Learning rate of the hidden matrices, positive; torch multiplies it by
            sqrt(max(1, out / in)).
        others: Optimizer of all other parameters.
        momentum: Decay of the momentum, in [0, 1).
        weight_decay: Decoupled decay of the hidden matrices, at least 0.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> rule = Muon(lr=0.02, others=AdamW(lr=3e-3))
        >>> rule.step_of(LayerRole.HIDDEN), rule.step_of(LayerRole.INPUT)
        (<Step.ORTHOGONAL: 'orthogonal'>, <Step.ENTRYWISE: 'entrywise'>)
    """

    lr: float
    others: AdamW
    momentum: float = 0.95
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        others = Kind(AdamW, way_out="write others=AdamW(lr=3e-3)")
        store(self, lr=_LR, others=others, momentum=_AVERAGE, weight_decay=_WEIGHT_DECAY)

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: hidden matrices differ."""
        _ROLE(role, "`role`")
        return Step.ORTHOGONAL if role is LayerRole.HIDDEN else Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return torch's Muon for hidden matrices, and the optimizer of the rest if there is any.

        Args:
            groups: Groups of all parameters, with their roles.

        Raises:
            ValueError: No group is hidden, or torch is older than 2.9.
        """
        groups = _GROUPS(groups, "`groups`")
        hidden = [group for group in groups if group.role is LayerRole.HIDDEN]
        rest = [group for group in groups if group.role is not LayerRole.HIDDEN]
        if not hidden:
            raise ValueError(
                "Muon needs parameter groups that tell hidden matrices from embeddings and "
                "output layers; pass groups=Parametrized(STANDARD, layout) of hpo.training."
                "parametrization"
            )
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"Muon needs torch >= 2.9, got {torch.__version__}; update torch")
        settings = [_shared(group, self.lr, self.weight_decay) for group in hidden]
        muon = torch.optim.Muon(settings, lr=self.lr, momentum=self.momentum)
        return (muon, *self.others.build(rest)) if rest else (muon,)


def plain_groups(model: nn.Module, rule: UpdateRule) -> list[ParameterGroup]:
    """Return two groups, matrices and the rest, both with all factors one.

    Args:
        model: Model that follows no rule in width or depth.
        rule: Optimizer, which has no effect here.

    Example:
        >>> [group.names for group in plain_groups(nn.Linear(2, 3), SGD(lr=0.1))]
        [('weight',), ('bias',)]
    """
    model = Kind(nn.Module)(model, "`model`")
    UPDATE_RULE(rule, "`rule`")
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    parts = (
        (LayerRole.INPUT, [(n, w) for n, w in named if w.ndim >= 2]),
        (LayerRole.VECTOR, [(n, w) for n, w in named if w.ndim < 2]),
    )
    return [
        ParameterGroup(tuple(n for n, _ in part), tuple(w for _, w in part), role)
        for role, part in parts
        if part
    ]


class _Lion(torch.optim.Optimizer):
    """u = sign(beta1 m + (1 - beta1) g); w -= lr (u + decay w); m = beta2 m + (1 - beta2) g."""

    def __init__(
        self, params: Iterable[dict[str, Any]], *, lr: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            weights: list[Tensor] = [w for w in group["params"] if w.grad is not None]
            if not weights:
                continue
            gradients = [w.grad for w in weights if w.grad is not None]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            momenta = [self.state[weight]["momentum"] for weight in weights]
            beta1, beta2 = group["betas"]
            updates = torch._foreach_lerp(momenta, gradients, 1 - beta1)
            torch._foreach_sign_(updates)
            torch._foreach_mul_(weights, 1 - group["lr"] * group["weight_decay"])
            torch._foreach_add_(weights, updates, alpha=-group["lr"])
            torch._foreach_lerp_(momenta, gradients, 1 - beta2)


def _shared(group: ParameterGroup, lr: float, weight_decay: float) -> dict[str, Any]:
    return {
        "params": list(group.parameters),
        "lr": lr * group.lr,
        "weight_decay": weight_decay * group.weight_decay if group.decays else 0.0,
    }


def _has_fused(groups: Sequence[ParameterGroup]) -> bool:
    # One kernel for all parameters: a third of the time of the plain loop on small models.
    return all(weight.device.type in ("cpu", "cuda") for g in groups for weight in g.parameters)
