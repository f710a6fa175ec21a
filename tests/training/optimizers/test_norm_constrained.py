"""Dion and Scion against what their papers say of one update."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from hpo.training.optimizers import (
    AdamW,
    Dion,
    LayerRole,
    ParameterGroup,
    Scion,
    UpdateRule,
    plain_groups,
)
from hpo.training.optimizers.norm_constrained import orthogonalized

ADAM = AdamW(1e-2)


def moved(rule: UpdateRule, gradients: list[Tensor], role: LayerRole) -> Tensor:
    """The weight, from zero, after updates with those gradients."""
    weight = nn.Parameter(torch.zeros_like(gradients[0]))
    beside = nn.Parameter(torch.zeros(2, 2))  # since a model has hidden matrices
    groups = [ParameterGroup(("w",), (weight,), role)]
    if role is not LayerRole.HIDDEN:
        groups.append(ParameterGroup(("h",), (beside,), LayerRole.HIDDEN))
    optimizers = rule.build(groups)
    for gradient in gradients:
        weight.grad = gradient.clone()
        for optimizer in optimizers:
            optimizer.step()
    return weight.detach()


def of_rank_one() -> Tensor:
    left, right = torch.arange(1.0, 7.0), torch.tensor([1.0, -2.0, 0.5])
    return torch.outer(left / left.norm(), right / right.norm())


def test_dion_moves_along_a_gradient_of_rank_one_by_the_root_of_the_aspect() -> None:
    direction = of_rank_one()  # 6 x 3
    found = moved(Dion(0.1, ADAM, rank=0.3), [5.0 * direction], LayerRole.HIDDEN)
    torch.testing.assert_close(found, -0.1 * math.sqrt(6 / 3) * direction)


def test_dion_of_full_rank_moves_by_an_orthonormal_matrix_once_its_basis_has_settled() -> None:
    gradient = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    rule = Dion(1.0, ADAM, momentum=0.0, weight_decay=0.0)
    before, after = (
        moved(rule, [gradient] * count, LayerRole.HIDDEN).double() for count in (400, 401)
    )
    torch.testing.assert_close(
        torch.linalg.svdvals(after - before), torch.ones(4).double(), rtol=1e-3, atol=1e-3
    )


def test_dion_keeps_in_its_momentum_what_a_low_rank_leaves_out() -> None:
    gradient = torch.diag(torch.tensor([3.0, 1.0]))
    rule = Dion(0.1, ADAM, rank=0.5, momentum=0.0, weight_decay=0.0)
    found = moved(rule, [gradient] * 40, LayerRole.HIDDEN)
    assert found.diagonal().max() < -0.5  # both directions had their turns


@pytest.mark.parametrize("shape", [(4, 4), (8, 3), (3, 8), (2, 5, 3)])
def test_orthogonalized_has_singular_values_near_one(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    values = torch.linalg.svdvals(orthogonalized(matrix, steps=8))
    assert values.min() > 0.6 and values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    products = torch.linalg.svdvals(u @ vh + orthogonalized(matrix, steps=8))
    assert products.min() > 1.6  # the same singular vectors


def test_scion_moves_each_kind_of_layer_by_its_radius_in_its_norm() -> None:
    rule = Scion(lr=0.1, radius=2.0, rest_radius=3.0)
    gradient = torch.randn(6, 3, generator=torch.Generator().manual_seed(0))
    hidden = moved(rule, [gradient], LayerRole.HIDDEN)
    values = torch.linalg.svdvals(hidden) / (0.1 * 2.0 * math.sqrt(6 / 3))
    assert values.min() > 0.6 and values.max() < 1.3
    for role, unit in ((LayerRole.OUTPUT, 1 / 3), (LayerRole.INPUT, 1.0), (LayerRole.VECTOR, 1.0)):
        expected = -0.1 * 3.0 * unit * gradient.sign()
        torch.testing.assert_close(moved(rule, [gradient], role), expected)


def test_a_constrained_scion_stays_within_its_radius() -> None:
    gradient = torch.tensor([[1.0, -1.0]])
    rule = Scion(lr=0.1, rest_radius=3.0, constrained=True)
    found = moved(rule, [gradient] * 300, LayerRole.INPUT)
    torch.testing.assert_close(found, -3.0 * gradient, rtol=1e-3, atol=0)
    free = Scion(lr=0.1, rest_radius=3.0)
    torch.testing.assert_close(moved(free, [gradient] * 20, LayerRole.INPUT), -6.0 * gradient)


@pytest.mark.parametrize("rule", [Dion(0.1, ADAM), Scion(0.1)])
def test_groups_without_roles_and_convolutions_are_refused(rule: UpdateRule) -> None:
    with pytest.raises(ValueError, match="Parametrized"):
        rule.build(plain_groups(nn.Linear(2, 2), rule))
    kernel = nn.Parameter(torch.zeros(4, 4, 3, 3))
    with pytest.raises(ValueError, match=r"matrices or stacks of them, got 'conv' of the shape"):
        rule.build([ParameterGroup(("conv",), (kernel,), LayerRole.HIDDEN)])


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: Dion(0.1, ADAM, rank=0.0), "`rank` of Dion"),
        (lambda: Dion(0.1, ADAM, rank=1.5), "`rank` of Dion"),
        (lambda: Scion(0.1, radius=0.0), "`radius` of Scion"),
    ],
)
def test_settings_out_of_range_are_refused(make: object, name: str) -> None:
    with pytest.raises(ValueError, match=name):
        make()  # type: ignore[operator]
