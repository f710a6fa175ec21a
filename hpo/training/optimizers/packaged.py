"""Optimizers that packages of their own maintain: `pip install 'scaletune[optimizers]'`.

AdamAtan2       `adam-atan2-pytorch`
ScheduleFree    `schedulefree`
Prodigy         `prodigyopt`
Shampoo, SOAP   `pytorch-optimizer`

Their packages are imported by `build`.
"""

from __future__ import annotations

import importlib
import io
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import Any

import torch

from hpo.space.arguments import Count, Kind, Number, store
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
from hpo.training.optimizers.first_order import AdamW

_OTHERS = Kind(AdamW, way_out="write others=AdamW(lr=3e-3)")
_EPSILON = Number(above=0, way_out="1e-8 is usual")
_EVERY = Count(1, way_out="10 is usual")


@dataclass(frozen=True, slots=True)
class AdamAtan2:
    """Adam-atan2 (Everett et al., 2024, arXiv:2407.05872, section 4.3): Adam without epsilon.

    The ratio of the moments becomes their angle, `1.27 atan2(m, sqrt(v))`, which no factor on the
    gradient changes. Needs the package `adam-atan2-pytorch`.

    Args:
        lr: Learning rate, positive.
        weight_decay: Decoupled decay of matrices, at least 0.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> AdamAtan2(lr=3e-3).step_of(LayerRole.HIDDEN)
        <Step.ENTRYWISE: 'entrywise'>
    """

    lr: float
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.99

    def __post_init__(self) -> None:
        store(self, lr=LR, weight_decay=WEIGHT_DECAY, beta1=AVERAGE, beta2=AVERAGE)

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new optimizer for all groups.

        Args:
            groups: Groups of all parameters.

        Raises:
            ValueError: The package is missing.
        """
        groups = GROUPS(groups, "`groups`")
        made = _of_package("adam_atan2_pytorch", "AdamAtan2", "adam-atan2-pytorch")(
            [shared_settings(group, self.lr, self.weight_decay) for group in groups],
            lr=self.lr,
            betas=(self.beta1, self.beta2),
        )
        return (made,)


@dataclass(frozen=True, slots=True)
class ScheduleFree:
    """Schedule-free AdamW (Defazio et al., 2024, arXiv:2405.15682), under the schedule `Constant`.

    An average of the weights takes the place of the decay of the rate. The trainer evaluates and
    saves that average; running means of batch norms remain those of the weights in training. Needs
    the package `schedulefree`.

    Args:
        lr: Learning rate, positive; the best is 1 to 10 times that of a schedule.
        weight_decay: Decay of matrices, at least 0.
        beta1: Share of the average in the weights that gradients are taken at, in (0, 1).
        beta2: Decay of the second moment, in [0, 1).
        epsilon: Term added to the root of the second moment, positive.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> ScheduleFree(lr=3e-3).step_of(LayerRole.HIDDEN)
        <Step.ENTRYWISE: 'entrywise'>
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
            beta1=Number(above=0, below=1, way_out="0.9 is usual"),
            beta2=AVERAGE,
            epsilon=_EPSILON,
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new optimizer for all groups, in training.

        Args:
            groups: Groups of all parameters.

        Raises:
            ValueError: The package is missing.
        """
        groups = GROUPS(groups, "`groups`")
        made = _of_package("schedulefree", "AdamWScheduleFree", "schedulefree")(
            [
                {
                    **shared_settings(group, self.lr, self.weight_decay),
                    "eps": self.epsilon * group.epsilon,
                }
                for group in groups
            ],
            lr=self.lr,
            betas=(self.beta1, self.beta2),
        )
        made.train()
        return (made,)


@dataclass(frozen=True, slots=True)
class Prodigy:
    """Prodigy (Mishchenko & Defazio, 2024, arXiv:2306.06101): Adam that finds its learning rate.

    The estimate d of the distance to the solution is that of all parameters together, each divided
    by its group's factor; so a group's rate is d times its factor. Needs the package `prodigyopt`.

    Args:
        lr: Factor on the rate that is found; 1 leaves it as it is.
        weight_decay: Decoupled decay of matrices, at least 0.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment, in [0, 1).
        epsilon: Term added to the root of the second moment, positive.
        start: First estimate of the distance, positive.
        coefficient: Factor on the estimate; 0.5 or 2 tune the method.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> Prodigy().step_of(LayerRole.HIDDEN)
        <Step.ENTRYWISE: 'entrywise'>
    """

    lr: float = 1.0
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    start: float = 1e-6
    coefficient: float = 1.0

    def __post_init__(self) -> None:
        store(
            self,
            lr=LR,
            weight_decay=WEIGHT_DECAY,
            beta1=AVERAGE,
            beta2=AVERAGE,
            epsilon=_EPSILON,
            start=Number(above=0, way_out="1e-6 is usual"),
            coefficient=Number(above=0, way_out="1 is usual"),
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return one new optimizer for all groups.

        Args:
            groups: Groups of all parameters.

        Raises:
            ValueError: The package is missing, or a group's factor on the rate is 0.
        """
        groups = GROUPS(groups, "`groups`")
        if any(group.lr == 0 for group in groups):
            raise ValueError(
                "Prodigy needs groups whose factor on the learning rate is above 0; leave frozen "
                "parameters out by requires_grad_(False)"
            )
        settings = []
        for group in groups:
            shared = shared_settings(group, self.lr, self.weight_decay)
            # The package has one rate for all. A group with the factor f is trained as weights / f.
            shared["weight_decay"] *= group.lr
            shared["eps"] = self.epsilon * group.epsilon * group.lr
            settings.append({**shared, "lr": self.lr, "factor": group.lr})
        with redirect_stdout(io.StringIO()):  # it prints what it was asked for
            made: torch.optim.Optimizer = _of_package("prodigyopt", "Prodigy", "prodigyopt")(
                settings,
                lr=self.lr,
                betas=(self.beta1, self.beta2),
                d0=self.start,
                d_coef=self.coefficient,
                safeguard_warmup=True,
            )
        made.register_step_pre_hook(_to_units)
        made.register_step_post_hook(_from_units)
        return (made,)


@dataclass(frozen=True, slots=True)
class Shampoo:
    """Shampoo (Gupta et al., 2018, arXiv:1802.09568) for hidden matrices, AdamW for the rest.

    L^(-1/4) G R^(-1/4), where L and R are the sums of G G' and G' G over all updates, so rates fall
    as the root of time. Needs the package `pytorch-optimizer`.

    Args:
        lr: Learning rate of the hidden matrices, positive.
        others: Optimizer of all other parameters.
        momentum: Share of the last update in the gradient, in [0, 1).
        weight_decay: Decoupled decay of the hidden matrices, at least 0.
        every: Updates between the computations of the roots, at least 1.
        epsilon: Multiple of the identity that L and R begin with, positive.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> rule = Shampoo(lr=0.02, others=AdamW(lr=3e-3))
        >>> rule.step_of(LayerRole.HIDDEN), rule.step_of(LayerRole.INPUT)
        (<Step.PRECONDITIONED: 'preconditioned'>, <Step.ENTRYWISE: 'entrywise'>)
    """

    lr: float
    others: AdamW
    momentum: float = 0.0
    weight_decay: float = 0.01
    every: int = 1
    epsilon: float = 1e-6

    def __post_init__(self) -> None:
        store(
            self,
            lr=LR,
            others=_OTHERS,
            momentum=AVERAGE,
            weight_decay=WEIGHT_DECAY,
            every=_EVERY,
            epsilon=Number(above=0, way_out="1e-6 is usual"),
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: hidden matrices differ."""
        ROLE(role, "`role`")
        return Step.PRECONDITIONED if role is LayerRole.HIDDEN else Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return the package's optimizer for hidden matrices, and that of the rest if there is any.

        Args:
            groups: Groups of all parameters, with their roles.

        Raises:
            ValueError: No group is hidden, or the package is missing.
        """
        hidden, rest = split_hidden("Shampoo", groups)
        made = _of_package("pytorch_optimizer", "Shampoo", "pytorch-optimizer")(
            [
                {
                    **shared_settings(group, self.lr, self.weight_decay),
                    "matrix_eps": self.epsilon * group.epsilon**2,
                }
                for group in hidden
            ],
            lr=self.lr,
            momentum=self.momentum,
            weight_decouple=True,
            preconditioning_compute_steps=self.every,
        )
        return (made, *self.others.build(rest)) if rest else (made,)


@dataclass(frozen=True, slots=True)
class SOAP:
    """SOAP (Vyas et al., 2024, arXiv:2409.11321) for hidden matrices, AdamW for the rest.

    Adam in the eigenbasis of Shampoo's matrices. The first update only measures them. Rates follow
    the width as Adam's do: so it passes the coordinate check, and as Shampoo's it fails. Needs the
    package `pytorch-optimizer`.

    Args:
        lr: Learning rate of the hidden matrices, positive.
        others: Optimizer of all other parameters.
        weight_decay: Decoupled decay of the hidden matrices, at least 0.
        beta1: Decay of the first moment, in [0, 1).
        beta2: Decay of the second moment and of Shampoo's matrices, in [0, 1).
        every: Updates between the computations of the eigenbasis, at least 1.
        epsilon: Term added to the root of the second moment, positive.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> SOAP(lr=3e-3, others=AdamW(lr=3e-3)).step_of(LayerRole.HIDDEN)
        <Step.ENTRYWISE: 'entrywise'>
    """

    lr: float
    others: AdamW
    weight_decay: float = 0.01
    beta1: float = 0.95
    beta2: float = 0.95
    every: int = 10
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        store(
            self,
            lr=LR,
            others=_OTHERS,
            weight_decay=WEIGHT_DECAY,
            beta1=AVERAGE,
            beta2=AVERAGE,
            every=_EVERY,
            epsilon=_EPSILON,
        )

    def step_of(self, role: LayerRole) -> Step:
        """Return how parameters of that role are updated: the same for all."""
        ROLE(role, "`role`")
        return Step.ENTRYWISE

    def build(self, groups: Sequence[ParameterGroup]) -> tuple[torch.optim.Optimizer, ...]:
        """Return the package's optimizer for hidden matrices, and that of the rest if there is any.

        Args:
            groups: Groups of all parameters, with their roles.

        Raises:
            ValueError: No group is hidden, or the package is missing.
        """
        hidden, rest = split_hidden("SOAP", groups)
        made = _of_package("pytorch_optimizer", "SOAP", "pytorch-optimizer")(
            [
                {
                    **shared_settings(group, self.lr, self.weight_decay),
                    "eps": self.epsilon * group.epsilon,
                }
                for group in hidden
            ],
            lr=self.lr,
            betas=(self.beta1, self.beta2),
            precondition_frequency=self.every,
        )
        return (made, *self.others.build(rest)) if rest else (made,)


def _of_package(module: str, name: str, package: str) -> Callable[..., Any]:
    """Return a class of an optional package; `package` is its name at the registry."""
    try:
        found: Callable[..., Any] = getattr(importlib.import_module(module), name)
    except ImportError as error:
        raise ValueError(
            f"the optimizer {name} needs the package {package}, got {type(error).__name__}: "
            f"{error}; run: pip install 'scaletune[optimizers]'"
        ) from None
    return found


@torch.no_grad()
def _to_units(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """Before a step: weights / factor, with the gradients of those."""
    for group in optimizer.param_groups:
        if group["factor"] != 1.0:
            for weight in group["params"]:
                weight.div_(group["factor"])
                if weight.grad is not None:
                    weight.grad.mul_(group["factor"])


@torch.no_grad()
def _from_units(optimizer: torch.optim.Optimizer, args: Any, kwargs: Any) -> None:
    """After a step: back to the weights."""
    for group in optimizer.param_groups:
        if group["factor"] != 1.0:
            for weight in group["params"]:
                weight.mul_(group["factor"])
