"""Optimizers of other packages: how settings and factors reach them."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from hpo.training.coordinate_check import transformer_probe
from hpo.training.devices import seeded
from hpo.training.optimizers import (
    SOAP,
    AdamAtan2,
    AdamW,
    LayerRole,
    ParameterGroup,
    Prodigy,
    ScheduleFree,
    Shampoo,
    UpdateRule,
)
from hpo.training.optimizers.averaging import evaluation_weights
from hpo.training.parametrization import MUP, STANDARD, Parametrization

ADAM = AdamW(1e-2)
PACKAGES: list[tuple[str, UpdateRule]] = [
    ("adam_atan2_pytorch", AdamAtan2(1e-2)),
    ("schedulefree", ScheduleFree(1e-2)),
    ("prodigyopt", Prodigy()),
    ("pytorch_optimizer", Shampoo(1e-2, ADAM)),
    ("pytorch_optimizer", SOAP(1e-2, ADAM)),
]


def package(name: str) -> None:
    pytest.importorskip(name, reason="the extra `optimizers` is not installed")


def one_group(
    weight: Tensor, role: LayerRole = LayerRole.HIDDEN, **factors: float
) -> tuple[nn.Parameter, ParameterGroup]:
    made = nn.Parameter(weight.clone())
    return made, ParameterGroup(("w",), (made,), role, **factors)


@pytest.mark.parametrize(("module", "rule"), PACKAGES)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    module: str, rule: UpdateRule, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    _, group = one_group(torch.ones(2, 2))
    message = r"needs the package .*pip install 'scaletune\[optimizers\]'"
    with pytest.raises(ValueError, match=message):
        rule.build([group])


@pytest.mark.parametrize("rule", [Shampoo(1e-2, ADAM), SOAP(1e-2, ADAM)])
def test_groups_without_hidden_matrices_are_refused(rule: UpdateRule) -> None:
    _, group = one_group(torch.ones(2), LayerRole.VECTOR)
    with pytest.raises(ValueError, match="Parametrized"):
        rule.build([group])


@pytest.mark.parametrize(
    ("kind", "settings", "name"),
    [
        (ScheduleFree, {"lr": 1e-2, "beta1": 0.0}, "`beta1` of ScheduleFree"),
        (Prodigy, {"start": 0.0}, "`start` of Prodigy"),
        (SOAP, {"lr": 1e-2, "others": ADAM, "every": 0}, "`every` of SOAP"),
        (Shampoo, {"lr": 1e-2, "others": 3}, "`others` of Shampoo"),
        (AdamAtan2, {"lr": 0.0}, "`lr` of AdamAtan2"),
    ],
)
def test_settings_out_of_range_are_refused(kind: Any, settings: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        kind(**settings)


def test_adam_atan2_takes_no_notice_of_the_size_of_the_gradient() -> None:
    package("adam_atan2_pytorch")
    found = []
    for size in (1.0, 1e-20):
        weight, group = one_group(torch.ones(1, 2))
        (optimizer,) = AdamAtan2(0.1, weight_decay=0.5).build([group])
        weight.grad = size * torch.tensor([[2.0, -3.0]])
        optimizer.step()
        found.append(weight.detach())
    # The angle of m = +- sqrt(v) is pi / 4; 1.27 is 4 / pi.
    expected = 1 - 0.1 * 0.5 - 0.1 * 1.27 * torch.pi / 4 * torch.tensor([[1.0, -1.0]])
    torch.testing.assert_close(found[0], expected)
    torch.testing.assert_close(found[1], expected)


def test_schedule_free_evaluates_the_average_of_its_iterates_and_trains_on_unchanged() -> None:
    package("schedulefree")
    weight, group = one_group(torch.zeros(1, 1, dtype=torch.float64))
    (optimizer,) = ScheduleFree(0.1, weight_decay=0.0, beta1=0.9).build([group])
    reached = [0.0]  # z, which moves by lr in every update with a gradient of one
    for _ in range(4):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        reached.append(reached[-1] - 0.1)
    before = weight.detach().clone()
    with evaluation_weights([optimizer], [weight]) as trained:
        assert float(weight.detach()) == pytest.approx(sum(reached[1:]) / 4, rel=1e-6)
        assert trained is not None and torch.equal(trained[0], before)
    assert torch.equal(weight.detach(), before)
    weight.grad = torch.ones_like(weight)
    optimizer.step()  # which it refuses unless it is in training


def test_prodigy_gives_a_group_with_a_factor_the_steps_of_scaled_weights() -> None:
    """Training w at the factor f is training w / f at the factor one."""
    package("prodigyopt")
    factor = 0.25  # a power of two, so that nothing is rounded
    start = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    scaled, group = one_group(start, lr=factor, weight_decay=1 / factor, epsilon=2.0)
    plain, plain_group = one_group(start / factor, epsilon=2.0 * factor)
    rule = Prodigy(weight_decay=0.1, start=1e-3)
    (ours,), (theirs,) = rule.build([group]), rule.build([plain_group])
    for _ in range(20):
        ours.zero_grad()
        theirs.zero_grad()
        scaled.square().sum().backward()  # type: ignore[no-untyped-call]
        (factor * plain).square().sum().backward()  # type: ignore[no-untyped-call]
        ours.step()
        theirs.step()
    assert torch.equal(scaled, factor * plain)
    assert float((scaled - start).detach().abs().max()) > 1e-3


def test_prodigy_finds_the_same_rate_at_every_width_in_mup_and_lower_ones_without() -> None:
    package("prodigyopt")

    def found(scheme: Parametrization, width: int) -> float:
        with seeded(0, torch.device("cpu")):
            probe = transformer_probe(scheme, Prodigy(), base=64)(width, 0)
            (optimizer,) = probe.optimizers
            for _ in range(20):
                optimizer.zero_grad()
                probe.loss().backward()  # type: ignore[no-untyped-call]
                optimizer.step()
        rate: float = optimizer.param_groups[0]["d"]
        return rate

    base = found(MUP, 64)
    assert 1e-3 < base == found(STANDARD, 64)
    assert found(MUP, 256) == pytest.approx(base, rel=0.25)
    assert found(STANDARD, 256) < 0.5 * base


def test_prodigy_refuses_groups_that_do_not_move() -> None:
    _, group = one_group(torch.ones(2, 2), lr=0.0)
    with pytest.raises(ValueError, match="above 0; leave frozen"):
        Prodigy().build([group])


def test_the_first_update_of_shampoo_is_orthogonal() -> None:
    package("pytorch_optimizer")
    gradient = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    weight, group = one_group(torch.zeros(3, 5))
    (optimizer,) = Shampoo(0.1, ADAM, epsilon=1e-10).build([group])
    weight.grad = gradient.clone()
    optimizer.step()
    u, _, vh = torch.linalg.svd(gradient, full_matrices=False)
    torch.testing.assert_close(weight.detach(), -0.1 * u @ vh, rtol=1e-3, atol=1e-4)


def test_soap_steps_by_the_sign_in_the_eigenbasis() -> None:
    """Its second update with the same gradient: the first only measures it."""
    package("pytorch_optimizer")
    gradient = torch.randn(3, 3, generator=torch.Generator().manual_seed(0))
    weight, group = one_group(torch.zeros(3, 3))
    (optimizer,) = SOAP(0.1, ADAM, weight_decay=0.0, epsilon=1e-3).build([group])
    for _ in range(2):
        weight.grad = gradient.clone()
        optimizer.step()
    u, _, vh = torch.linalg.svd(gradient)
    torch.testing.assert_close(weight.detach(), -0.1 * u @ vh, rtol=0.02, atol=2e-3)
