"""Parameter groups, and what every optimizer of this package has."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import torch
from torch import nn

from hpo.space.arguments import Interface, Kind, Number, Row, Text, store


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
        >>> from hpo.training.optimizers import AdamW
        >>> AdamW(1e-3).step_of(LayerRole.HIDDEN)
        <Step.ENTRYWISE: 'entrywise'>
    """

    PROPORTIONAL = "proportional"  # SGD: lr times the gradient
    ENTRYWISE = "entrywise"  # AdamW, Lion, SOAP: every entry of order lr
    PRECONDITIONED = "preconditioned"  # Shampoo: every singular value of order lr
    ORTHOGONAL = "orthogonal"  # Muon of torch: the same, times sqrt(max(1, fan-out / fan-in))
    NORMALIZED = "normalized"  # Dion, Scion: outputs change by lr where inputs are of order one


LR = Number(above=0, way_out="search it on a log scale")
WEIGHT_DECAY = Number(least=0, way_out="0 switches it off")
AVERAGE = Number(least=0, below=1, way_out="0 keeps no average")
_FACTOR = Number(least=0, way_out="1 leaves the base setting as it is")
ROLE = Kind(LayerRole, way_out="write LayerRole.HIDDEN or another member")


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
        >>> from hpo.training.optimizers import SGD
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
            role=ROLE,
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
GROUPS = Row(
    Kind(ParameterGroup), empty=False, way_out="pass what plain_groups or parameter_groups returned"
)


class UpdateRule(Protocol):
    """Optimizer and its base settings.

    Example:
        >>> from hpo.training.optimizers import Lion
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


def plain_groups(model: nn.Module, rule: UpdateRule) -> list[ParameterGroup]:
    """Return two groups, matrices and the rest, both with all factors one.

    Args:
        model: Model that follows no rule in width or depth.
        rule: Optimizer, which has no effect here.

    Example:
        >>> from hpo.training.optimizers import SGD
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


def shared_settings(group: ParameterGroup, lr: float, weight_decay: float) -> dict[str, Any]:
    """Return what a group of any torch optimizer has: parameters, rate and decay.

    Args:
        group: Group with its factors.
        lr: Base learning rate.
        weight_decay: Base weight decay.

    Example:
        >>> group = ParameterGroup(("w",), (nn.Parameter(torch.zeros(2)),), LayerRole.VECTOR)
        >>> shared_settings(group, 0.1, 0.01)["weight_decay"]  # a vector does not decay
        0.0
    """
    return {
        "params": list(group.parameters),
        "lr": lr * group.lr,
        "weight_decay": weight_decay * group.weight_decay if group.decays else 0.0,
    }


def split_hidden(
    name: str, groups: Sequence[ParameterGroup]
) -> tuple[list[ParameterGroup], list[ParameterGroup]]:
    """Return the groups of hidden matrices, and all others.

    Args:
        name: Optimizer of the hidden matrices, for the message.
        groups: Groups of all parameters, with their roles.

    Raises:
        ValueError: No group is hidden.

    Example:
        >>> weight = nn.Parameter(torch.zeros(2, 2))
        >>> group = ParameterGroup(("w",), (weight,), LayerRole.HIDDEN)
        >>> hidden, rest = split_hidden("Muon", [group])
        >>> len(hidden), len(rest)
        (1, 0)
    """
    groups = GROUPS(groups, "`groups`")
    hidden = [group for group in groups if group.role is LayerRole.HIDDEN]
    if not hidden:
        raise ValueError(
            f"{name} needs parameter groups that tell hidden matrices from embeddings and output "
            "layers; pass groups=Parametrized(STANDARD, layout) of hpo.training.parametrization"
        )
    return hidden, [group for group in groups if group.role is not LayerRole.HIDDEN]
