"""Which optimizer to use, as plain values that turn parameter groups into torch optimizers.

    AdamW(lr=3e-3, weight_decay=0.1).build(groups)

A `Group` names parameters that share factors on the rule's base values: `parametrization` makes
them, `plain_groups` makes those of a model that follows no such rule. Weight decay acts on matrices
only, not on biases and norms. Peak learning rates are the `lr` of the groups as built; a schedule
multiplies them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import torch
from torch import Tensor, nn


class Role(Enum):
    """Where a parameter sits, seen from the widths that grow with the model."""

    INPUT = "input"  # from a fixed width to a growing one: embeddings, first layers
    HIDDEN = "hidden"  # between growing widths
    OUTPUT = "output"  # from a growing width to a fixed one: the read-out
    VECTOR = "vector"  # one growing width or none: biases, gains


class Step(Enum):
    """How the size of an update follows from its gradient."""

    PROPORTIONAL = "proportional"  # SGD: lr times the gradient
    ENTRYWISE = "entrywise"  # AdamW, Lion: every entry of order lr
    ORTHOGONAL = "orthogonal"  # Muon: every singular value of order lr


@dataclass(frozen=True, slots=True)
class Group:
    """Parameters that are updated alike.

    `lr`, `weight_decay`, `epsilon`: factors on the base values of the rule.
    """

    names: tuple[str, ...]
    parameters: tuple[nn.Parameter, ...]
    role: Role
    lr: float = 1.0
    weight_decay: float = 1.0
    epsilon: float = 1.0

    @property
    def decays(self) -> bool:
        """Whether weight decay acts on it: matrices and convolutions only."""
        return self.parameters[0].ndim >= 2


class Rule(Protocol):
    """An optimizer and its base settings."""

    def step_of(self, role: Role) -> Step:
        """How parameters of that role are updated."""
        ...

    def build(self, groups: Sequence[Group]) -> tuple[torch.optim.Optimizer, ...]:
        """Fresh optimizers, each parameter in exactly one of them."""
        ...


@dataclass(frozen=True, slots=True)
class AdamW:
    """Loshchilov & Hutter, 2019. One fused kernel for all parameters where the device has one."""

    lr: float
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, beta1=self.beta1, beta2=self.beta2)
        if not self.epsilon >= 0:
            raise ValueError(f"`epsilon` must be at least 0, got {self.epsilon}")

    def step_of(self, role: Role) -> Step:
        return Step.ENTRYWISE

    def build(self, groups: Sequence[Group]) -> tuple[torch.optim.Optimizer, ...]:
        settings = [
            {**_shared(group, self.lr, self.weight_decay), "eps": self.epsilon * group.epsilon}
            for group in groups
        ]
        betas = (self.beta1, self.beta2)
        return (torch.optim.AdamW(settings, lr=self.lr, betas=betas, fused=_has_fused(groups)),)


@dataclass(frozen=True, slots=True)
class SGD:
    """Stochastic gradient descent with momentum; its weight decay is an L2 penalty."""

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, momentum=self.momentum)

    def step_of(self, role: Role) -> Step:
        return Step.PROPORTIONAL

    def build(self, groups: Sequence[Group]) -> tuple[torch.optim.Optimizer, ...]:
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
    """Chen et al., 2023 (arXiv:2302.06675), algorithm 2: the sign of an interpolated momentum."""

    lr: float
    weight_decay: float = 0.1
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, beta1=self.beta1, beta2=self.beta2)

    def step_of(self, role: Role) -> Step:
        return Step.ENTRYWISE

    def build(self, groups: Sequence[Group]) -> tuple[torch.optim.Optimizer, ...]:
        settings = [_shared(group, self.lr, self.weight_decay) for group in groups]
        return (_Lion(settings, lr=self.lr, betas=(self.beta1, self.beta2)),)


@dataclass(frozen=True, slots=True)
class Muon:
    """Jordan et al., 2024: hidden matrices get orthogonalised momentum, the rest `others`.

    `lr` is that of the hidden matrices; torch multiplies it by sqrt(max(1, out / in)).
    """

    lr: float
    others: AdamW
    momentum: float = 0.95
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        _check(self.lr, self.weight_decay, momentum=self.momentum)

    def step_of(self, role: Role) -> Step:
        return Step.ORTHOGONAL if role is Role.HIDDEN else Step.ENTRYWISE

    def build(self, groups: Sequence[Group]) -> tuple[torch.optim.Optimizer, ...]:
        """Raises `ValueError` where no group is hidden, or torch is older than 2.9."""
        hidden = [group for group in groups if group.role is Role.HIDDEN]
        rest = [group for group in groups if group.role is not Role.HIDDEN]
        if not hidden:
            raise ValueError(
                "Muon needs parameter groups that tell hidden matrices from embeddings and "
                "read-outs; pass groups=Parametrized(STANDARD, layout) of hpo.training."
                "parametrization"
            )
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"Muon needs torch >= 2.9, got {torch.__version__}; update torch")
        settings = [_shared(group, self.lr, self.weight_decay) for group in hidden]
        muon = torch.optim.Muon(settings, lr=self.lr, momentum=self.momentum)
        return (muon, *self.others.build(rest)) if rest else (muon,)


def plain_groups(model: nn.Module, rule: Rule) -> list[Group]:
    """Matrices and the rest, all with the base values: for a model that follows no width rule."""
    named = [(name, weight) for name, weight in model.named_parameters() if weight.requires_grad]
    parts = (
        (Role.INPUT, [(n, w) for n, w in named if w.ndim >= 2]),
        (Role.VECTOR, [(n, w) for n, w in named if w.ndim < 2]),
    )
    return [
        Group(tuple(n for n, _ in part), tuple(w for _, w in part), role)
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


def _shared(group: Group, lr: float, weight_decay: float) -> dict[str, Any]:
    return {
        "params": list(group.parameters),
        "lr": lr * group.lr,
        "weight_decay": weight_decay * group.weight_decay if group.decays else 0.0,
    }


def _has_fused(groups: Sequence[Group]) -> bool:
    # One kernel for all parameters: a third of the time of the plain loop on small models.
    return all(weight.device.type in ("cpu", "cuda") for g in groups for weight in g.parameters)


def _check(lr: float, weight_decay: float, **decays: float) -> None:
    if not lr > 0:
        raise ValueError(f"`lr` must be positive, got {lr}")
    if not weight_decay >= 0:
        raise ValueError(f"`weight_decay` must be at least 0, got {weight_decay}")
    for name, value in decays.items():
        if not 0 <= value < 1:
            raise ValueError(f"`{name}` must lie in [0, 1), got {value}")
