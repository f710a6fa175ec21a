"""AdamW, SGD, Lion and Muon: what torch has, and Lion."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hpo.space.arguments import Flag, Kind, Number, store
from hpo.training.optimizers.base import (
    AVERAGE,
    GROUPS,
    LR,
    ROLE,
    WEIGHT_DECAY,
    LayerRole,
    ParameterGroup,
    Step,
    shared_settings,
    split_hidden,
)


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
        >>> from hpo.training.optimizers import plain_groups
        >>> layer = torch.nn.Linear(2, 2)
        >>> rule = AdamW(lr=3e-3, weight_decay=0.1)
        >>> (optimizer,) = rule.build(plain_groups(layer, rule))
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
            lr=LR,
            weight_decay=WEIGHT_DECAY,
            beta1=AVERAGE,
            beta2=AVERAGE,
            epsilon=Number(least=0, way_out="1e-8 is usual"),
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new torch optimizer for all groups."""
        groups = GROUPS(groups, "`groups`")
        settings = [
            {
                **shared_settings(group, self.lr, self.weight_decay),
                "eps": self.epsilon * group.epsilon,
            }
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
        >>> from hpo.training.optimizers import plain_groups
        >>> layer = torch.nn.Linear(2, 2)
        >>> rule = SGD(lr=0.1, nesterov=True)
        >>> (optimizer,) = rule.build(plain_groups(layer, rule))
        >>> optimizer.defaults["nesterov"]
        True
    """

    lr: float
    momentum: float = 0.9
    weight_decay: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        store(self, lr=LR, weight_decay=WEIGHT_DECAY, momentum=AVERAGE, nesterov=Flag())

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.PROPORTIONAL

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new torch optimizer for all groups."""
        groups = GROUPS(groups, "`groups`")
        settings = [shared_settings(group, self.lr, self.weight_decay) for group in groups]
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
        >>> weight = torch.nn.Parameter(torch.zeros(2))
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
        store(self, lr=LR, weight_decay=WEIGHT_DECAY, beta1=AVERAGE, beta2=AVERAGE)

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new torch optimizer for all groups."""
        groups = GROUPS(groups, "`groups`")
        settings = [shared_settings(group, self.lr, self.weight_decay) for group in groups]
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
        store(self, lr=LR, others=others, momentum=AVERAGE, weight_decay=WEIGHT_DECAY)

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: hidden matrices differ."""
        ROLE(role, "`role`")
        return Step.ORTHOGONAL if role is LayerRole.HIDDEN else Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return torch's Muon for hidden matrices, and the optimizer of the rest if there is any.

        Args:
            groups: Groups of all parameters, with their roles.

        Raises:
            ValueError: No group is hidden, or torch is older than 2.9.
        """
        hidden, rest = split_hidden("Muon", groups)
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(f"Muon needs torch >= 2.9, got {torch.__version__}; update torch")
        settings = [shared_settings(group, self.lr, self.weight_decay) for group in hidden]
        muon = torch.optim.Muon(settings, lr=self.lr, momentum=self.momentum)
        return (muon, *self.others.build(rest)) if rest else (muon,)


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


def _has_fused(groups: Sequence[ParameterGroup]) -> bool:
    # One kernel for all parameters: a third of the time of the plain loop on small models.
    return all(weight.device.type in ("cpu", "cuda") for g in groups for weight in g.parameters)
