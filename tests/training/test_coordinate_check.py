"""The coordinate check accepts muP and rejects other parametrizations, on small models."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.cli import main
from hpo.training.coordinate_check import (
    CoordinateCheck,
    CoordinateVerdict,
    Probe,
    coordinate_check,
    load_probe,
    transformer_probe,
)
from hpo.training.optimizers import (
    SGD,
    SOAP,
    AdamAtan2,
    AdamW,
    Dion,
    Muon,
    ScheduleFree,
    Scion,
    Shampoo,
    UpdateRule,
)
from hpo.training.parametrization import (
    COMPLETE_P,
    MEAN_FIELD,
    MUP,
    NTK,
    STANDARD,
    UNIT_SCALED,
    MaximalUpdate,
    ParameterLayout,
    Parametrization,
    parameter_groups,
    rescale_,
)

WIDTHS = (32, 128, 512)
RULES: list[UpdateRule] = [AdamW(1e-2), SGD(0.1, momentum=0.0)]
INPUTS = torch.randn(16, 10, generator=torch.Generator().manual_seed(0))
LABELS = torch.arange(16) % 4


def perceptron(width: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(10, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 4)
    )


def probe(scheme: Parametrization, rule: UpdateRule) -> Callable[[int, int], Probe]:
    layout = ParameterLayout.of(perceptron(32), perceptron(64))

    def make(width: int, seed: int) -> Probe:
        model = perceptron(width)
        rescale_(model, layout, scheme)
        groups = parameter_groups(model, layout, scheme, rule)
        return Probe(model, rule.build(groups), lambda: F.cross_entropy(model(INPUTS), LABELS))

    return make


def verdicts(check: CoordinateCheck) -> dict[str, CoordinateVerdict]:
    return {trace.layer: trace.verdict for trace in check.traces}


@pytest.mark.parametrize("rule", RULES, ids=["adamw", "sgd"])
def test_mup_passes_and_the_standard_parametrization_fails(rule: UpdateRule) -> None:
    assert coordinate_check(probe(MUP, rule), WIDTHS).passed
    standard = coordinate_check(probe(STANDARD, rule), WIDTHS)
    assert not standard.passed
    assert verdicts(standard)["4"] is CoordinateVerdict.GROWS  # the output layer
    assert verdicts(standard)["0"] is CoordinateVerdict.FLAT or isinstance(rule, SGD)


PACKAGED: dict[str, UpdateRule] = {
    "adam_atan2_pytorch": AdamAtan2(1e-2),
    "schedulefree": ScheduleFree(1e-2),
    "pytorch_optimizer": SOAP(1e-2, AdamW(1e-2), every=2),
}


@pytest.mark.parametrize(
    "rule",
    [
        Muon(5e-2, AdamW(1e-2)),
        Dion(5e-2, AdamW(1e-2), rank=0.5),
        Scion(1e-2, radius=5.0, rest_radius=1.0),
        *(
            pytest.param(rule, marks=pytest.mark.skipif(find_spec(module) is None, reason=module))
            for module, rule in PACKAGED.items()
        ),
        pytest.param(
            Shampoo(5e-2, AdamW(1e-2)),
            marks=pytest.mark.skipif(find_spec("pytorch_optimizer") is None, reason="package"),
        ),
    ],
    ids=["muon", "dion", "scion", "adam-atan2", "schedule-free", "soap", "shampoo"],
)
def test_mup_passes_with_every_optimizer(rule: UpdateRule) -> None:
    check = coordinate_check(probe(MUP, rule), (32, 64, 128, 256))
    assert check.passed, str(check)


@pytest.mark.parametrize("rule", RULES, ids=["adamw", "sgd"])
def test_in_the_kernel_limit_features_vanish_and_outputs_stay(rule: UpdateRule) -> None:
    check = coordinate_check(probe(NTK, rule), (32, 128, 512))
    slopes = {trace.layer: trace.slope for trace in check.traces}
    assert slopes["0"] == pytest.approx(-0.5, abs=0.12)
    assert slopes["2"] == pytest.approx(-0.5, abs=0.12)
    assert verdicts(check)["2"] is CoordinateVerdict.VANISHES
    assert verdicts(check)["4"] is CoordinateVerdict.FLAT


@pytest.mark.parametrize("rule", RULES, ids=["adamw", "sgd"])
def test_mean_field_passes_with_one_hidden_layer(rule: UpdateRule) -> None:
    def shallow(width: int) -> nn.Sequential:
        return nn.Sequential(nn.Linear(10, width), nn.Tanh(), nn.Linear(width, 4))

    layout = ParameterLayout.of(shallow(32), shallow(64))

    def make(width: int, seed: int) -> Probe:
        model = shallow(width)
        rescale_(model, layout, MEAN_FIELD)
        groups = parameter_groups(model, layout, MEAN_FIELD, rule)
        return Probe(model, rule.build(groups), lambda: F.cross_entropy(model(INPUTS), LABELS))

    check = coordinate_check(make, WIDTHS)
    assert check.passed, str(check)


def test_unit_scaling_passes_but_for_embeddings_which_it_slows_down() -> None:
    make = transformer_probe(UNIT_SCALED, AdamW(1e-2), base=32)
    check = coordinate_check(make, (32, 64, 128), tolerance=0.35)
    slopes = {trace.layer: trace.slope for trace in check.traces}
    assert slopes.pop("embedding") == pytest.approx(-0.5, abs=0.05)
    assert verdicts(check)["head"] is CoordinateVerdict.FLAT
    assert CoordinateVerdict.GROWS not in verdicts(check).values()


def test_decay_by_the_root_of_width_passes() -> None:
    rule = AdamW(1e-2, weight_decay=0.1)
    assert coordinate_check(probe(MaximalUpdate(decay_power=0.5), rule), WIDTHS).passed


def test_an_output_layer_without_mup_is_caught() -> None:
    """muP everywhere but in the output layer, which keeps its standard rate and weights."""
    mup = probe(MUP, AdamW(1e-2))

    def broken(width: int, seed: int) -> Probe:
        made = mup(width, seed)
        model = made.model
        assert isinstance(model, nn.Sequential)
        layout = ParameterLayout.of(perceptron(32), perceptron(64))
        with torch.no_grad():
            model[4].weight.mul_((width / 32) ** 0.5)  # type: ignore[operator]
        groups = [
            dataclasses.replace(group, lr=1.0) if "4.weight" in group.names else group
            for group in parameter_groups(model, layout, MUP, AdamW(1e-2))
        ]
        return dataclasses.replace(made, optimizers=AdamW(1e-2).build(groups))

    check = coordinate_check(broken, WIDTHS)
    assert not check.passed
    assert verdicts(check)["4"] is CoordinateVerdict.GROWS


def test_the_built_in_transformer_passes_in_mup_and_fails_without() -> None:
    found = {
        # Narrow models have not reached their limit yet, hence the tolerance.
        name: coordinate_check(
            transformer_probe(scheme, AdamW(1e-2), base=32), (32, 64, 128), tolerance=0.35
        )
        for name, scheme in {"mup": MUP, "standard": STANDARD}.items()
    }
    assert found["mup"].passed, str(found["mup"])
    assert not found["standard"].passed


class Tied(nn.Module):
    """Embedding, one hidden layer, and an output layer that shares the embedding's weight."""

    def __init__(self, width: int, factor: float) -> None:
        super().__init__()
        self.embedding = nn.Embedding(32, width)
        self.hidden = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, 32, bias=False)
        self.head.weight = self.embedding.weight
        self.logits = nn.Identity()  # whose output the check follows
        self.factor = factor

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = self.hidden(self.embedding(tokens)).tanh()
        logits: Tensor = self.logits(self.factor * self.head(hidden))
        return logits


@pytest.mark.parametrize("with_factor", [True, False])
def test_tied_embeddings_pass_in_mup_with_the_readout_factor_only(with_factor: bool) -> None:
    layout = ParameterLayout.of(Tied(16, 1.0), Tied(32, 1.0), tied_readout=True)
    rule = AdamW(1e-2)

    def make(width: int, seed: int) -> Probe:
        model = Tied(width, MUP.readout_factor(width / 16) if with_factor else 1.0)
        rescale_(model, layout, MUP)
        tokens = torch.arange(32)
        return Probe(
            model,
            rule.build(parameter_groups(model, layout, MUP, rule)),
            lambda: nn.functional.cross_entropy(model(tokens), tokens.roll(1)),
        )

    check = coordinate_check(make, [32, 64, 128, 256, 512])
    logits = next(trace for trace in check.traces if trace.layer == "logits")
    assert (logits.verdict is not CoordinateVerdict.GROWS) == with_factor


def test_complete_p_passes_in_depth_and_plain_mup_fails() -> None:
    sizes = (2, 4, 8)
    complete_p, mup = (
        coordinate_check(transformer_probe(scheme, AdamW(1e-2), along="depth", base=2), sizes)
        for scheme in (COMPLETE_P, MUP)
    )
    assert complete_p.passed, str(complete_p)
    assert not mup.passed, str(mup)


def test_slopes_and_intervals_match_a_known_law() -> None:
    """One layer whose change is width^0.5 by construction: SGD steps times a known factor."""

    class Known(nn.Module):
        def __init__(self, width: int) -> None:
            super().__init__()
            self.shift = nn.Linear(1, 1)
            self.factor = width**0.5

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.shift(x)
            return out * self.factor

    def make(width: int, seed: int) -> Probe:
        model = Known(width)
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
        return Probe(model, [optimizer], lambda: model(torch.ones(3, 1)).mean())

    check = coordinate_check(make, (4, 16, 64), updates=1)
    (trace,) = check.traces
    assert trace.slope == pytest.approx(0.5, abs=1e-3)
    assert trace.interval[0] <= trace.slope <= trace.interval[1]
    assert trace.verdict is CoordinateVerdict.GROWS
    assert not check.passed and "failed: 1 of 1" in str(check)


def test_the_figure_is_drawn(tmp_path: Path) -> None:
    check = coordinate_check(probe(STANDARD, AdamW(1e-2)), (32, 64, 128), seeds=2)
    check.plot(tmp_path / "check.png")
    assert (tmp_path / "check.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("sizes", "settings", "name"),
    [
        ((32, 64), {}, "`sizes`"),
        ((32, 64, 100), {}, "`sizes`"),
        (WIDTHS, {"seeds": 1}, "`seeds`"),
        (WIDTHS, {"updates": 0}, "`updates`"),
    ],
)
def test_too_few_sizes_seeds_or_updates_are_refused(
    sizes: tuple[int, ...], settings: dict[str, int], name: str
) -> None:
    with pytest.raises(ValueError, match=name):
        coordinate_check(probe(MUP, AdamW(1e-2)), sizes, **settings)  # type: ignore[arg-type]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> object:
    monkeypatch.setattr(sys, "argv", ["scaletune", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code


def test_the_command_prints_a_verdict_and_draws(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = tmp_path / "c.png"
    code = run(
        monkeypatch,
        *("coord-check", "--sizes", "16,32,64", "--seeds", 2, "--tolerance", 0.6),
        *("--picture", picture),
    )
    assert code == 0
    printed = capsys.readouterr().out
    assert "blocks.1.attention_out" in printed and "passed" in printed
    assert picture.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--parametrization", "sp"), "--parametrization must be one of"),
        (("--optimizer", "adam"), "--optimizer must be one of"),
        (("--sizes", "a,b"), "--sizes must be whole numbers"),
        (("--along", "time"), "`along` must be"),
        (("nowhere:make",), "package.module:function"),
    ],
)
def test_invalid_arguments_give_an_error_in_one_line(
    arguments: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert message in str(run(monkeypatch, "coord-check", *arguments))


def test_a_probe_is_found_by_its_path() -> None:
    assert load_probe("hpo.training.coordinate_check:transformer_probe") is transformer_probe
    with pytest.raises(ValueError, match="function of size and seed"):
        load_probe("hpo.training.coordinate_check:_TINY")


def test_changes_are_kept_for_every_size_and_seed() -> None:
    check = coordinate_check(probe(MUP, AdamW(1e-2)), (32, 64, 128), seeds=2)
    assert check.sizes == (32, 64, 128)
    for trace in check.traces:
        assert trace.change.shape == trace.size.shape == (3, 2)
        assert np.all(trace.change > 0)
