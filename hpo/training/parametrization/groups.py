"""Parameter groups and initial weights of a model under a parametrization."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeAlias

import torch
from torch import nn

from hpo.space.arguments import Kind, Number
from hpo.space.scalars import shown
from hpo.training.optimizers import LayerRole, ParameterGroup, Step, UpdateRule
from hpo.training.parametrization.layout import ParameterLayout
from hpo.training.parametrization.rules import Factors, Parametrization

#: Factors on learning rates by block or name, or a function of name and block.
Rates: TypeAlias = Mapping[str | int, float] | Callable[[str, int | None], float]

_RATE = Number(above=0, way_out="freeze parameters by requires_grad_(False)")
_RESCALED = "rescaled_"  # attribute of a model whose weights were


@dataclass(frozen=True, slots=True)
class Parametrized:
    """Parameter groups by a parametrization, for `TorchTrainer(groups=...)`.

    Args:
        parametrization: Rule for the factors.
        layout: Roles and base sizes of the parameters.
        rates: Further factors on learning rates, as in `parameter_groups`.

    Example:
        >>> from hpo.training.optimizers import AdamW
        >>> from hpo.training.parametrization import MUP
        >>> def build(width):
        ...     return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))
        >>> groups = Parametrized(MUP, ParameterLayout.of(build(8), build(16)))
        >>> [(group.names, group.lr) for group in groups(build(32), AdamW(1e-2))]
        [(('0.weight',), 1.0), (('0.bias',), 1.0), (('2.weight',), 0.25), (('2.bias',), 1.0)]
    """

    parametrization: Parametrization
    layout: ParameterLayout
    rates: Rates | None = None

    def __call__(self, model: nn.Module, rule: UpdateRule) -> list[ParameterGroup]:
        """Return the groups of `parameter_groups`.

        Args:
            model: Model to train.
            rule: Optimizer, whose steps the factors depend on.
        """
        return parameter_groups(model, self.layout, self.parametrization, rule, rates=self.rates)


def parameter_groups(
    model: nn.Module,
    layout: ParameterLayout,
    parametrization: Parametrization,
    rule: UpdateRule,
    *,
    rates: Rates | None = None,
) -> list[ParameterGroup]:
    """Return the trainable parameters of `model` in groups of equal factors.

    Args:
        model: Model to train.
        layout: Roles and base sizes of its parameters.
        parametrization: Rule for the factors.
        rule: Optimizer, whose steps the factors depend on.
        rates: Further factors on the learning rates of parts of the model: by the number of a
            residual block, -1 for the last, or the first parts of a parameter's name, of which the
            longest counts, as `{-1: 2.0, "head": 0.5}`; or a function of the parameter's name and
            the number of its block, None outside of the blocks. Decays are left as they are.

    Raises:
        ValueError: A weight that is tied cannot be, under this parametrization, or an entry of
            `rates` is no such factor or fits no parameter.

    Example:
        >>> from hpo.training.optimizers import SGD
        >>> from hpo.training.parametrization import MUP
        >>> base, wide = nn.Linear(3, 8), nn.Linear(3, 16)
        >>> layout = ParameterLayout.of(base, wide)
        >>> [group.lr for group in parameter_groups(wide, layout, MUP, SGD(0.1))]
        [2.0, 2.0]
    """
    model = Kind(nn.Module)(model, "`model`")
    extra = _rates(model, layout.blocks, rates)
    if layout.tied:
        parametrization.readout_factor(1.0)  # which says so if a weight cannot be shared
    weights = dict(model.named_parameters())
    together: dict[tuple[LayerRole, bool, Factors], list[str]] = {}
    for name, growth in layout.growth(model).items():
        if weights[name].requires_grad:
            factors = parametrization.factors(growth, rule.step_of(growth.role))
            factors = replace(factors, lr=factors.lr * extra[name])
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
        >>> from hpo.training.parametrization import MUP
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


def _rates(model: nn.Module, blocks: str, rates: Rates | None) -> dict[str, float]:
    """Return the further factor of every parameter."""
    names = [name for name, _ in model.named_parameters()]
    if rates is None:
        return dict.fromkeys(names, 1.0)
    numbers = {name: _block(name, blocks) for name in names}
    if not isinstance(rates, Mapping):
        if not callable(rates):
            raise ValueError(
                "`rates` must be a dict or a function(name, block) of factors, got "
                f"{shown(rates)}; write {{-1: 2.0}}"
            )
        return {
            name: _RATE(rates(name, number), f"`rates` at {name!r}")
            for name, number in numbers.items()
        }
    count = 1 + max((number for number in numbers.values() if number is not None), default=-1)
    found = dict.fromkeys(names, 1.0)
    closest = dict.fromkeys(names, -1)  # length of the entry that counts, 0 for a block's
    for key, given in rates.items():
        factor = _RATE(given, f"`rates` at {shown(key)}")
        fits = [
            name
            for name, number in numbers.items()
            if (isinstance(key, int) and number is not None and number == key + count * (key < 0))
            or (isinstance(key, str) and f"{name}.".startswith(f"{key}."))
        ]
        if not fits:
            raise ValueError(
                f"`rates` has the entry {shown(key)}, which fits no parameter; write the number of "
                f"one of the {count} blocks in {blocks!r} or the first parts of a name such as "
                f"{names[0]!r}"
            )
        length = len(key) if isinstance(key, str) else 0
        for name in fits:
            if length >= closest[name]:
                found[name], closest[name] = factor, length
    return found


def _block(name: str, blocks: str) -> int | None:
    """Return the number of the residual block that a parameter is in."""
    number = name.removeprefix(f"{blocks}.").split(".")[0] if name.startswith(f"{blocks}.") else ""
    return int(number) if number.isdigit() else None
