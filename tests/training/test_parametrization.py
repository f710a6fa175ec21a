import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.scaling.transfer_rules import Alignment
from hpo.training.optimizers import (
    SGD,
    AdamW,
    LayerRole,
    Lion,
    Muon,
    ParameterGroup,
    Step,
    UpdateRule,
    plain_groups,
)
from hpo.training.parametrization import (
    COMPLETE_P,
    DEPTH_MUP,
    MEAN_FIELD,
    MUP,
    NTK,
    STANDARD,
    UNIT_SCALED,
    ABCParametrization,
    Exponents,
    Growth,
    MaximalUpdate,
    ParameterLayout,
    Parametrized,
    PerLayer,
    parameter_groups,
    rescale_,
)
from hpo.training.transformer import Transformer, TransformerShape

RULES: list[UpdateRule] = [AdamW(1e-2, 0.1), Lion(1e-2, 0.1), SGD(1e-2, weight_decay=0.1)]


class Perceptron(nn.Module):
    """The network of mup's own example, with the output layer that it is given."""

    def __init__(self, width: int, readout: type[nn.Linear] = nn.Linear) -> None:
        super().__init__()
        self.fc_1 = nn.Linear(12, width)
        self.fc_2 = nn.Linear(width, width)
        self.fc_3 = readout(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc_3(torch.relu(self.fc_2(torch.relu(self.fc_1(x)))))
        return out


def transformer(width: int, depth: int = 2, **settings: Any) -> Transformer:
    shape = TransformerShape(width, depth, heads=width // 16, hidden=4 * width)
    rng = torch.Generator().manual_seed(0)
    return Transformer(shape, context=8, rng=rng, **settings)


def by_name(groups: list[ParameterGroup]) -> dict[str, ParameterGroup]:
    return {name: group for group in groups for name in group.names}


@pytest.fixture(scope="module")
def layout() -> ParameterLayout:
    return ParameterLayout.of(transformer(32), transformer(64))


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("MuAdam", AdamW(3e-3, weight_decay=0.0, epsilon=1e-30)),
        ("MuAdamW", AdamW(3e-3, weight_decay=0.2, epsilon=1e-30)),
        ("MuSGD", SGD(3e-2, momentum=0.9, weight_decay=1e-2)),
    ],
)
def test_training_is_that_of_the_mup_package_on_its_example(name: str, rule: Any) -> None:
    mup = pytest.importorskip("mup", reason="the extra `oracles` is not installed")
    torch.manual_seed(0)
    base, wider = Perceptron(16), Perceptron(24)
    ours = Perceptron(96).double()
    theirs = Perceptron(96, mup.MuReadout).double()
    theirs.load_state_dict(ours.state_dict())
    mup.set_base_shapes(theirs, Perceptron(16, mup.MuReadout), delta=Perceptron(24, mup.MuReadout))
    layout = ParameterLayout.of(base, wider)
    rescale_(ours, layout, MUP)
    x = torch.randn(20, 12, dtype=torch.float64)
    y = torch.randint(5, (20,))
    torch.testing.assert_close(ours(x), theirs(x))

    groups = parameter_groups(ours, layout, MUP, rule)
    # mup decays every parameter and we leave biases out, so the decay is set by hand.
    (optimizer,) = rule.build(groups)
    settings: dict[str, Any] = {"lr": rule.lr, "weight_decay": rule.weight_decay}
    settings |= {"momentum": 0.9} if name == "MuSGD" else {"eps": 1e-30}
    (reference,) = (getattr(mup, name)(theirs.parameters(), **settings),)
    for group, made in zip(groups, optimizer.param_groups, strict=True):
        made["weight_decay"] = rule.weight_decay * group.weight_decay
    for _ in range(6):
        for model, step in ((ours, optimizer), (theirs, reference)):
            step.zero_grad()
            F.cross_entropy(model(x), y).backward()
            step.step()
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("parametrization", [MUP, DEPTH_MUP, COMPLETE_P, PerLayer(), STANDARD, NTK])
def test_at_the_base_model_all_factors_are_one(
    layout: ParameterLayout, rule: UpdateRule, parametrization: Any
) -> None:
    for group in parameter_groups(transformer(32), layout, parametrization, rule):
        assert (group.lr, group.weight_decay, group.epsilon) == (1, 1, 1)
    assert parametrization.branch_factor(1.0) == 1


def test_roles_follow_from_shape_and_type_of_layer(layout: ParameterLayout) -> None:
    groups = by_name(parameter_groups(transformer(64), layout, MUP, AdamW(1e-2)))
    roles = {name: group.role for name, group in groups.items()}
    assert roles["embedding.weight"] is LayerRole.INPUT
    assert roles["head.weight"] is LayerRole.OUTPUT  # of the same shape as the embedding
    assert roles["blocks.1.attention_in.weight"] is LayerRole.HIDDEN
    assert roles["blocks.0.feed_forward.down.weight"] is LayerRole.HIDDEN
    assert roles["norm.weight"] is LayerRole.VECTOR


def test_adam_in_mup_follows_table_3(layout: ParameterLayout) -> None:
    groups = by_name(parameter_groups(transformer(128), layout, MUP, AdamW(1e-2)))
    for name, lr in {
        "embedding.weight": 1,
        "norm.weight": 1,
        "blocks.0.attention_in.weight": 1 / 4,
        "head.weight": 1 / 4,
    }.items():
        assert groups[name].lr == pytest.approx(lr)
        if groups[name].decays:
            assert groups[name].lr * groups[name].weight_decay == pytest.approx(1)
    assert groups["embedding.weight"].epsilon == pytest.approx(1 / 4)
    assert groups["head.weight"].epsilon == 1


def test_sgd_in_mup_follows_table_3(layout: ParameterLayout) -> None:
    groups = by_name(parameter_groups(transformer(128), layout, MUP, SGD(1e-2)))
    assert groups["embedding.weight"].lr == groups["norm.weight"].lr == 4
    assert groups["blocks.0.feed_forward.up.weight"].lr == 1
    assert groups["head.weight"].lr == 1 / 4


@pytest.mark.parametrize(("rule", "alpha"), [(DEPTH_MUP, 0.5), (COMPLETE_P, 1.0)])
def test_rules_in_depth_act_on_blocks_only(
    layout: ParameterLayout, rule: MaximalUpdate, alpha: float
) -> None:
    deep = transformer(32, depth=8)
    adam = by_name(parameter_groups(deep, layout, rule, AdamW(1e-2)))
    sgd = by_name(parameter_groups(deep, layout, rule, SGD(1e-2)))
    for name in ("blocks.7.attention_in.weight", "blocks.0.attention_norm.weight"):
        assert adam[name].lr == pytest.approx(4 ** (alpha - 1))
        assert adam[name].epsilon == pytest.approx(4**-alpha)
        assert sgd[name].lr == pytest.approx(4 ** (2 * alpha - 1))
    assert adam["head.weight"].lr == adam["norm.weight"].lr == sgd["embedding.weight"].lr == 1
    assert rule.branch_factor(4.0) == pytest.approx(4**-alpha)


def test_width_and_depth_factors_multiply(layout: ParameterLayout) -> None:
    groups = by_name(parameter_groups(transformer(64, 8), layout, DEPTH_MUP, AdamW(1e-2)))
    assert groups["blocks.5.attention_out.weight"].lr == pytest.approx(0.5 * 0.5)


@pytest.mark.parametrize(
    ("alignment", "hidden"), [(Alignment.FULL, 1 / 4), (Alignment.NONE, 1 / 2)]
)
def test_per_layer_rates_follow_the_scaling_exponents(
    layout: ParameterLayout, alignment: Alignment, hidden: float
) -> None:
    groups = by_name(parameter_groups(transformer(128), layout, PerLayer(alignment), AdamW(1e-2)))
    assert groups["blocks.0.attention_in.weight"].lr == pytest.approx(hidden)
    assert groups["head.weight"].lr == pytest.approx(hidden)
    assert groups["embedding.weight"].lr == groups["norm.weight"].lr == 1


def test_muon_takes_the_hidden_matrices_and_adam_the_rest(layout: ParameterLayout) -> None:
    rule = Muon(lr=0.02, others=AdamW(1e-2))
    groups = Parametrized(MUP, layout)(transformer(64), rule)
    muon, adam = rule.build(groups)
    assert type(muon) is torch.optim.Muon and type(adam) is torch.optim.AdamW
    assert {id(w) for o in (muon, adam) for g in o.param_groups for w in g["params"]} == {
        id(w) for group in groups for w in group.parameters
    }
    # Aspects do not change, so the spectral norm of updates need not either.
    assert {g["lr"] for g in muon.param_groups} == {0.02}


def test_muon_accounts_for_the_factor_that_torch_applies() -> None:
    growth = Growth(LayerRole.HIDDEN, m_in=1.0, m_out=4.0, aspect=4.0, base_aspect=1.0)
    # Wanted: sqrt(out / in), twice the base; torch multiplies by sqrt(max(1, out / in)) = 2 itself.
    assert MUP.factors(growth, Step.ORTHOGONAL).lr == pytest.approx(1.0)
    shrunk = Growth(LayerRole.HIDDEN, m_in=4.0, m_out=1.0, aspect=0.25, base_aspect=1.0)
    assert MUP.factors(shrunk, Step.ORTHOGONAL).lr == pytest.approx(0.5)


def test_muon_without_roles_is_refused() -> None:
    rule = Muon(lr=0.02, others=AdamW(1e-2))
    with pytest.raises(ValueError, match="Parametrized"):
        rule.build(plain_groups(transformer(32), rule))


def test_lion_steps_by_the_sign_of_its_momentum() -> None:
    weight = nn.Parameter(torch.tensor([[1.0, -2.0, 3.0]]))
    rule = Lion(lr=0.1, weight_decay=0.5, beta1=0.9, beta2=0.99)
    (optimizer,) = rule.build([ParameterGroup(("w",), (weight,), LayerRole.HIDDEN)])
    weight.grad = torch.tensor([[2.0, -1.0, 0.0]])
    optimizer.step()
    shrunk = torch.tensor([[1.0, -2.0, 3.0]]) * (1 - 0.1 * 0.5)
    torch.testing.assert_close(weight.data, shrunk - 0.1 * torch.tensor([[1.0, -1.0, 0.0]]))
    momentum = optimizer.state[weight]["momentum"]
    torch.testing.assert_close(momentum, 0.01 * torch.tensor([[2.0, -1.0, 0.0]]))


def test_no_tensor_gets_an_attribute(layout: ParameterLayout) -> None:
    model = transformer(64)
    before = {name: set(vars(weight)) for name, weight in model.named_parameters()}
    rescale_(model, layout, MUP)
    parameter_groups(model, layout, MUP, AdamW(1e-2))
    assert before == {name: set(vars(weight)) for name, weight in model.named_parameters()}


def test_rescaling_changes_output_layer_and_biases_only() -> None:
    torch.manual_seed(0)
    model = Perceptron(64)
    before = copy.deepcopy(model.state_dict())
    rescale_(model, ParameterLayout.of(Perceptron(16), Perceptron(32)), MUP)
    after = model.state_dict()
    for name, factor in {
        "fc_1.weight": 1.0,
        "fc_1.bias": 1.0,
        "fc_2.weight": 1.0,
        "fc_2.bias": 2.0,
        "fc_3.weight": 0.5,
        "fc_3.bias": 2.0,
    }.items():
        torch.testing.assert_close(after[name], factor * before[name])


def test_models_of_equal_width_are_refused() -> None:
    with pytest.raises(ValueError, match="all shapes are equal"):
        ParameterLayout.of(transformer(32), transformer(32))


def test_a_dimension_that_was_fixed_and_grows_is_refused(layout: ParameterLayout) -> None:
    odd = Transformer(
        TransformerShape(64, 2, heads=4, hidden=256), context=8, rng=torch.Generator()
    )
    odd.embedding = nn.Embedding(300, 64)
    with pytest.raises(ValueError, match="fan-in of 'embedding.weight'"):
        layout.growth(odd)


def test_models_that_do_not_correspond_are_refused(layout: ParameterLayout) -> None:
    with pytest.raises(ValueError, match="no counterpart of 'blocks.1"):
        ParameterLayout.of(transformer(32, depth=2), transformer(64, depth=1))
    with pytest.raises(ValueError, match="'fc_1.weight' must have a counterpart"):
        layout.growth(Perceptron(16))


@pytest.mark.parametrize("alpha", [0.0, 2.0, math.nan])
def test_an_exponent_outside_its_range_is_refused(alpha: float) -> None:
    with pytest.raises(ValueError, match="`alpha`"):
        MaximalUpdate(alpha=alpha)


def test_experts_are_treated_as_hidden_matrices() -> None:
    def mixture(width: int) -> Transformer:
        shape = TransformerShape(width, 1, heads=2, hidden=2 * width, experts=4, experts_used=2)
        return Transformer(shape, context=8, rng=torch.Generator())

    layout = ParameterLayout.of(mixture(16), mixture(32))
    groups = by_name(parameter_groups(mixture(64), layout, MUP, AdamW(1e-2)))
    assert groups["blocks.0.feed_forward.up"].role is LayerRole.HIDDEN
    assert groups["blocks.0.feed_forward.up"].lr == pytest.approx(1 / 4)
    assert groups["blocks.0.feed_forward.router.weight"].role is LayerRole.OUTPUT


def _tied(width: int, *, head_first: bool = False) -> nn.Module:
    embedding, head = nn.Embedding(7, width), nn.Linear(width, 7, bias=False)
    head.weight = embedding.weight
    return nn.ModuleDict(
        {"head": head, "wte": embedding} if head_first else {"wte": embedding, "head": head}
    )


@pytest.mark.parametrize("head_first", [False, True])
def test_a_tied_embedding_is_refused_unless_its_readout_has_a_factor(head_first: bool) -> None:
    base, wider = _tied(8, head_first=head_first), _tied(16, head_first=head_first)
    with pytest.raises(ValueError, match=r"weight of an embedding and of an output layer.*untie"):
        ParameterLayout.of(base, wider)
    layout = ParameterLayout.of(base, wider, tied_readout=True)
    (group,) = parameter_groups(_tied(32, head_first=head_first), layout, MUP, AdamW(0.1))
    assert (group.role, group.lr) == (LayerRole.INPUT, 1.0)
    assert MUP.readout_factor(4.0) == 0.25 and STANDARD.readout_factor(4.0) == 1.0
    with pytest.raises(ValueError, match="cannot share a weight; untie them"):
        parameter_groups(_tied(32), layout, PerLayer(), AdamW(0.1))


def test_weights_are_rescaled_once() -> None:
    base, wide = nn.Linear(4, 2), nn.Linear(16, 2)
    layout = ParameterLayout.of(base, nn.Linear(8, 2))
    rescale_(wide, layout, MUP)
    before = wide.weight.detach().clone()
    with pytest.raises(ValueError, match="rescaled before; build a new one"):
        rescale_(wide, layout, MUP)
    with pytest.raises(ValueError, match="rescaled before"):
        rescale_(copy.deepcopy(wide), layout, MUP)
    assert torch.equal(wide.weight, before)


# --- abc-parametrizations, unit scaling, decay ---------------------------------------------------

#: Yang & Hu, 2021, table 1: a, b and c of input, hidden and output layers under SGD.
TABLE_1 = {
    "ntk": (NTK, (0, 0.5, 0.5), (0, 0, 0), 0),
    "mean-field": (MEAN_FIELD, (0, None, 1), (0, None, 0), -1),
    "mup": (MUP, (-0.5, 0, 0.5), (0.5, 0.5, 0.5), 0),
}
ROLES = (LayerRole.INPUT, LayerRole.HIDDEN, LayerRole.OUTPUT)


def grown(role: LayerRole, n: float) -> Growth:
    m_in = 1.0 if role is LayerRole.INPUT else n
    m_out = 1.0 if role is LayerRole.OUTPUT else n
    return Growth(role, m_in=m_in, m_out=m_out)


@pytest.mark.parametrize("name", TABLE_1)
@pytest.mark.parametrize("n", [4.0, 9.0])
def test_sgd_follows_table_1_of_abc_parametrizations(name: str, n: float) -> None:
    rule, a, b, c = TABLE_1[name]
    for role, a_l, b_l in zip(ROLES, a, b, strict=True):
        if a_l is None or b_l is None:
            continue
        found = rule.factors(grown(role, n), Step.PROPORTIONAL)
        # W = n^-a w: a step of w moves W by n^-a times n^-a the gradient of W.
        assert found.lr == pytest.approx(n ** -(2 * a_l + c))
        standard = 0.0 if role is LayerRole.INPUT else 0.5  # torch draws with n^-standard
        initial = rule.factors(grown(role, n), Step.ENTRYWISE).initial
        assert initial == pytest.approx(n ** (standard - a_l - b_l))


def test_adam_in_the_kernel_limit_moves_features_by_the_root_of_width() -> None:
    """Coherent sums over n inputs: rate times n is n^-1/2 inside and one at the output."""
    for role, power in zip(ROLES, (-0.5, -1.5, -1.0), strict=True):
        assert NTK.factors(grown(role, 4.0), Step.ENTRYWISE).lr == pytest.approx(4.0**power)
    bias = Growth(LayerRole.VECTOR, m_in=4.0, m_out=4.0)
    assert NTK.factors(bias, Step.ENTRYWISE).lr == pytest.approx(0.5)
    assert NTK.factors(bias, Step.ENTRYWISE).initial == pytest.approx(2.0)  # of order one


@pytest.mark.parametrize("step", [Step.PROPORTIONAL, Step.ENTRYWISE])
@pytest.mark.parametrize("role", [LayerRole.INPUT, LayerRole.OUTPUT, LayerRole.VECTOR])
def test_mean_field_is_mup_with_one_hidden_layer(role: LayerRole, step: Step) -> None:
    growth = grown(role, 4.0) if role is not LayerRole.VECTOR else Growth(role, m_out=4.0)
    ours, mup = MEAN_FIELD.factors(growth, step), MUP.factors(growth, step)
    assert (ours.lr, ours.initial) == pytest.approx((mup.lr, mup.initial))
    if step is Step.ENTRYWISE:
        assert ours.epsilon == pytest.approx(mup.epsilon)


def test_exponents_that_do_not_exist_are_refused() -> None:
    hidden = grown(LayerRole.HIDDEN, 4.0)
    with pytest.raises(ValueError, match="one hidden layer only; use MUP"):
        MEAN_FIELD.factors(hidden, Step.ENTRYWISE)
    with pytest.raises(ValueError, match="not for orthogonal; use MUP"):
        NTK.factors(hidden, Step.ORTHOGONAL)
    with pytest.raises(ValueError, match="not for proportional steps"):
        UNIT_SCALED.factors(hidden, Step.PROPORTIONAL)
    with pytest.raises(ValueError, match="`a` of Exponents"):
        Exponents(a=(0, 1), b=(0, 0, 0), c=(0, 0, 0))  # type: ignore[arg-type]
    only_sgd = ABCParametrization(sgd=NTK.sgd, adam=None)
    with pytest.raises(ValueError, match=r"steps \['proportional'\], not for entrywise"):
        only_sgd.factors(hidden, Step.ENTRYWISE)


@pytest.mark.parametrize("rule", [NTK, UNIT_SCALED])
def test_rates_of_their_own_forbid_a_tied_weight(rule: Any) -> None:
    layout = ParameterLayout.of(_tied(8), _tied(16), tied_readout=True)
    with pytest.raises(ValueError, match="cannot share a weight; untie them"):
        parameter_groups(_tied(32), layout, rule, AdamW(0.1))


def test_unit_scaling_is_depth_mup_with_slower_embeddings(layout: ParameterLayout) -> None:
    deep = transformer(128, depth=8)
    ours = by_name(parameter_groups(deep, layout, UNIT_SCALED, AdamW(1e-2)))
    mup = by_name(parameter_groups(deep, layout, DEPTH_MUP, AdamW(1e-2)))
    for name, group in ours.items():
        root = 2.0 if group.role is LayerRole.INPUT else 1.0  # four times the width
        assert group.lr == pytest.approx(mup[name].lr / root)
        assert group.lr * group.weight_decay == pytest.approx(mup[name].lr * mup[name].weight_decay)
    # Table 2 of the paper: A times C is 1 / fan-in, and depth^-1/2 in blocks.
    assert ours["blocks.7.attention_in.weight"].lr == pytest.approx(1 / 4 / 2)
    assert ours["head.weight"].lr == pytest.approx(1 / 4)


@pytest.mark.parametrize(("power", "decay"), [(1.0, 4.0), (0.5, 2.0), (0.0, 1.0)])
def test_decay_of_hidden_matrices_grows_as_a_power_of_width(power: float, decay: float) -> None:
    rule = MaximalUpdate(decay_power=power)
    assert rule.factors(grown(LayerRole.HIDDEN, 4.0), Step.ENTRYWISE).weight_decay == decay
    assert rule.factors(grown(LayerRole.INPUT, 4.0), Step.ENTRYWISE).weight_decay == 1.0


def test_shampoo_scales_as_the_spectral_norm_and_normalized_steps_not_at_all() -> None:
    taller = Growth(LayerRole.HIDDEN, m_in=1.0, m_out=4.0)
    shampoo = MUP.factors(taller, Step.PRECONDITIONED)
    assert (shampoo.lr, shampoo.epsilon) == (2.0, 0.5)
    for role in LayerRole:
        assert MUP.factors(Growth(role, m_in=4.0, m_out=4.0), Step.NORMALIZED).lr == 1.0
    with pytest.raises(ValueError, match="preconditioned steps"):
        PerLayer().factors(taller, Step.PRECONDITIONED)


# --- rates by block ------------------------------------------------------------------------------


def test_rates_of_blocks_and_names_multiply_those_of_the_parametrization(
    layout: ParameterLayout,
) -> None:
    model = transformer(64, depth=3)
    plain = by_name(parameter_groups(model, layout, MUP, AdamW(1e-2)))
    table = {0: 0.5, -1: 2.0, "head": 3.0, "blocks.0.attention_in": 7.0}
    rates = by_name(Parametrized(MUP, layout, table)(model, AdamW(1e-2)))
    expected = {
        "blocks.0.attention_in.weight": 7.0,  # the closer entry counts
        "blocks.0.attention_out.weight": 0.5,
        "blocks.1.attention_in.weight": 1.0,
        "blocks.2.feed_forward.up.weight": 2.0,
        "head.weight": 3.0,
        "embedding.weight": 1.0,
    }
    for name, factor in expected.items():
        assert rates[name].lr == pytest.approx(factor * plain[name].lr)
        assert rates[name].weight_decay == plain[name].weight_decay


def test_rates_may_be_a_function_of_name_and_block(layout: ParameterLayout) -> None:
    def falling(name: str, block: int | None) -> float:
        return 1.0 if block is None else 0.5 ** (2 - block)

    model = transformer(32, depth=3)
    groups = by_name(parameter_groups(model, layout, MUP, SGD(0.1), rates=falling))
    found = [groups[f"blocks.{i}.attention_in.weight"].lr for i in range(3)]
    assert found == [0.25, 0.5, 1.0]
    assert groups["head.weight"].lr == 1.0


@pytest.mark.parametrize(
    ("rates", "message"),
    [
        ({5: 2.0}, "entry 5, which fits no parameter"),
        ({-3: 2.0}, "entry -3, which fits no parameter"),
        ({"haed": 2.0}, "entry 'haed', which fits no parameter"),
        ({0: 0.0}, "`rates` at 0 must be a finite number above 0"),
        (3.0, "`rates` must be a dict or a function"),
        (lambda name, block: math.nan, "`rates` at 'embedding.weight' must be"),
    ],
)
def test_rates_that_fit_nothing_or_are_none_are_refused(
    layout: ParameterLayout, rates: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        parameter_groups(transformer(32), layout, MUP, SGD(0.1), rates=rates)
