"""Dion and Scion: updates of a fixed operator norm, on one device.

Notation
--------
W    weight, fan-out x fan-in; stacked matrices, as of experts, are a batch of them
G    its gradient
M    momentum
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo.space.arguments import Flag, Kind, Number, store
from hpo.training.optimizers.base import (
    AVERAGE,
    LR,
    ROLE,
    WEIGHT_DECAY,
    LayerRole,
    ParameterGroup,
    Step,
    shared_settings,
    split_hidden,
)
from hpo.training.optimizers.first_order import AdamW

_RADIUS = Number(above=0, way_out="50 for hidden matrices and 3000 for the rest are usual")
_NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)  # of Jordan et al., 2024
_TINY = 1e-7


@dataclass(frozen=True, slots=True)
class Dion:
    """Dion (Ahn et al., 2025, arXiv:2504.05295, algorithm 1): low-rank orthogonalized momentum.

    Hidden matrices change by lr sqrt(fan-out / fan-in) times an orthonormal matrix of a given rank,
    found by one step of power iteration; what it leaves out stays in the momentum. One device only.

    Args:
        lr: Learning rate of the hidden matrices, positive.
        others: Optimizer of all other parameters.
        rank: Rank of an update over that of the matrix, in (0, 1].
        momentum: Decay of the part of the momentum that was applied, in [0, 1).
        weight_decay: Decoupled decay of the hidden matrices, at least 0.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> rule = Dion(lr=0.01, others=AdamW(lr=3e-3), rank=0.25)
        >>> rule.step_of(LayerRole.HIDDEN), rule.step_of(LayerRole.INPUT)
        (<Step.NORMALIZED: 'normalized'>, <Step.ENTRYWISE: 'entrywise'>)
    """

    lr: float
    others: AdamW
    rank: float = 1.0
    momentum: float = 0.95
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        store(
            self,
            lr=LR,
            others=Kind(AdamW, way_out="write others=AdamW(lr=3e-3)"),
            rank=Number(above=0, most=1, way_out="1 keeps all of the matrix"),
            momentum=AVERAGE,
            weight_decay=WEIGHT_DECAY,
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: hidden matrices differ."""
        ROLE(role, "`role`")
        return Step.NORMALIZED if role is LayerRole.HIDDEN else Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return an optimizer for hidden matrices, and that of the rest if there is any.

        Args:
            groups: Groups of all parameters, with their roles.

        Raises:
            ValueError: No group is hidden, or a hidden parameter is no matrix.
        """
        hidden, rest = split_hidden("Dion", groups)
        _check_matrices("Dion", hidden)
        settings = [shared_settings(group, self.lr, self.weight_decay) for group in hidden]
        dion = _Dion(settings, lr=self.lr, rank=self.rank, momentum=self.momentum)
        return (dion, *self.others.build(rest)) if rest else (dion,)


@dataclass(frozen=True, slots=True)
class Scion:
    """Scion (Pethick et al., 2025, arXiv:2502.07529, algorithms 1 and 2): steepest under a norm.

    Each layer moves by lr times its radius in the direction that is best under the norm of its
    kind: hidden matrices by sqrt(fan-out / fan-in) U V', output layers by sign / fan-in, all else
    by its sign. So no factor depends on the width. One device only.

    Args:
        lr: Learning rate, positive.
        radius: Radius of hidden matrices, positive.
        rest_radius: Radius of everything else, positive.
        momentum: Decay of the average of gradients, 1 - alpha in the paper, in [0, 1).
        constrained: Whether weights are kept within the radii, by a decay of 1 times lr; on all
            parameters, not on matrices only.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> rule = Scion(lr=4e-4, rest_radius=1000)
        >>> rule.step_of(LayerRole.OUTPUT)
        <Step.NORMALIZED: 'normalized'>
    """

    lr: float
    radius: float = 50.0
    rest_radius: float = 3000.0
    momentum: float = 0.9
    constrained: bool = False

    def __post_init__(self) -> None:
        store(
            self,
            lr=LR,
            radius=_RADIUS,
            rest_radius=_RADIUS,
            momentum=AVERAGE,
            constrained=Flag(),
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.NORMALIZED

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new optimizer for all groups.

        Args:
            groups: Groups of all parameters, with their roles.

        Raises:
            ValueError: No group is hidden, or a hidden parameter is no matrix.
        """
        hidden, rest = split_hidden("Scion", groups)
        _check_matrices("Scion", hidden)
        settings = []
        for group in (*hidden, *rest):
            radius = self.radius if group.role is LayerRole.HIDDEN else self.rest_radius
            decay = group.weight_decay if self.constrained else 0.0
            settings.append(
                {
                    "params": list(group.parameters),
                    "lr": self.lr * group.lr,
                    "weight_decay": decay,
                    "radius": radius,
                    "role": group.role.value,
                }
            )
        return (_Scion(settings, lr=self.lr, momentum=self.momentum),)


def orthogonalized(matrix: Tensor, *, steps: int = 5) -> Tensor:
    """Return U V' of a matrix, or of each of a batch, with singular values of 0.7 to 1.2.

    Args:
        matrix: `(..., m, n)`.
        steps: Steps of the Newton-Schulz iteration of Jordan et al., 2024.

    Example:
        >>> torch.linalg.svdvals(orthogonalized(torch.diag(torch.tensor([3.0, 1.0])))).round()
        tensor([1., 1.])
    """
    a, b, c = _NEWTON_SCHULZ
    x: Tensor = matrix.mT if matrix.shape[-2] > matrix.shape[-1] else matrix
    x = x / (torch.linalg.matrix_norm(x, keepdim=True) + _TINY)
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if matrix.shape[-2] > matrix.shape[-1] else x


class _Dion(torch.optim.Optimizer):
    """B = M + G; P = orthonormal(B Q); R = B' P; M = B - (1 - mu) P R'; Q = R / |columns|."""

    def __init__(
        self, params: Iterable[dict[str, Any]], *, lr: float, rank: float, momentum: float
    ) -> None:
        defaults = {"lr": lr, "rank": rank, "momentum": momentum, "weight_decay": 0.0}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                fan_out, fan_in = weight.shape[-2:]
                state = self.state[weight]
                if not state:
                    rank = max(1, math.ceil(group["rank"] * min(fan_out, fan_in)))
                    state["momentum"] = torch.zeros_like(weight)
                    state["basis"] = _start_basis(weight, rank)
                momentum, basis = state["momentum"], state["basis"]
                momentum.add_(weight.grad)
                left = torch.linalg.qr(momentum @ basis).Q
                right = momentum.mT @ left
                momentum.sub_(left @ right.mT, alpha=1 - group["momentum"])
                norms = torch.linalg.vector_norm(right, dim=-2, keepdim=True)
                # A direction without a gradient keeps its place.
                basis.copy_(torch.where(norms > 0, right / norms.clamp_min(1e-30), basis))
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                step = left @ (basis * (norms > 0)).mT
                weight.sub_(step, alpha=group["lr"] * math.sqrt(fan_out / fan_in))


class _Scion(torch.optim.Optimizer):
    """M = mu M + (1 - mu) G; W -= lr (radius * direction(M) + decay W)."""

    def __init__(self, params: Iterable[dict[str, Any]], *, lr: float, momentum: float) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            role = LayerRole(group["role"])
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = weight.grad.clone()
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                weight.mul_(1 - group["lr"] * group["weight_decay"])
                direction = _direction(state["momentum"], role)
                weight.sub_(direction, alpha=group["lr"] * group["radius"])


def _direction(momentum: Tensor, role: LayerRole) -> Tensor:
    """Return the steepest direction of norm one."""
    if role is LayerRole.HIDDEN:
        fan_out, fan_in = momentum.shape[-2:]
        return orthogonalized(momentum) * math.sqrt(fan_out / fan_in)
    if role is LayerRole.OUTPUT:
        return momentum.sign() / momentum.shape[-1]
    return momentum.sign()


def _start_basis(weight: Tensor, rank: int) -> Tensor:
    """Random orthonormal columns, the same for every weight of that shape."""
    rng = torch.Generator().manual_seed(0)  # so that no other draw of the run changes
    shape = (*weight.shape[:-2], weight.shape[-1], rank)
    drawn = torch.randn(shape, generator=rng, dtype=torch.float32)
    basis: Tensor = torch.linalg.qr(drawn).Q
    return basis.to(weight)


def _check_matrices(name: str, groups: Sequence[ParameterGroup]) -> None:
    for group in groups:
        for label, weight in zip(group.names, group.parameters, strict=True):
            if weight.ndim not in (2, 3):
                raise ValueError(
                    f"{name} needs hidden parameters that are matrices or stacks of them, got "
                    f"{label!r} of the shape {tuple(weight.shape)}; use AdamW for convolutions"
                )
