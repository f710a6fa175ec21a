import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hpo.training.transformer import (
    VOCABULARY,
    Experts,
    FeedForward,
    Transformer,
    TransformerShape,
    next_byte_loss,
    params_to_shape,
)


def random_bytes(rows: int, length: int) -> torch.Tensor:
    return torch.randint(VOCABULARY, (rows, length), generator=torch.Generator().manual_seed(1))


def with_random_head(shape: TransformerShape, context: int) -> Transformer:
    """Return a model with a random head, so that its logits depend on its input."""
    rng = torch.Generator().manual_seed(0)
    model = Transformer(shape, context=context, rng=rng)
    with torch.no_grad():
        model.head.weight.normal_(generator=rng)
    return model


def test_parameter_count_matches_a_hand_count() -> None:
    shape = TransformerShape(width=8, depth=1, heads=2, hidden=16)
    # 8 x 24 and 8 x 8 for attention, 2 x 8 x 16 for the feed-forward, three norms of 8.
    assert shape.non_embedding == 192 + 64 + 256 + 24
    assert shape.embedding == 2 * 256 * 8


@pytest.mark.parametrize("n_params", [1e3, 3e4, 1e6])
def test_parameter_count_matches_the_module(n_params: float) -> None:
    shape = params_to_shape(n_params)
    model = Transformer(shape, context=4, rng=torch.Generator())
    built = sum(p.numel() for p in model.parameters())
    assert built == shape.non_embedding + shape.embedding


@given(st.floats(4, 9))
def test_shape_hits_the_count_within_five_percent(exponent: float) -> None:
    n_params = 10**exponent
    assert params_to_shape(n_params).non_embedding == pytest.approx(n_params, rel=0.05)


@given(st.floats(3, 9), st.floats(3, 9))
def test_shape_grows_with_the_count(a: float, b: float) -> None:
    small, large = (params_to_shape(10**exponent) for exponent in sorted((a, b)))
    assert small.width <= large.width
    assert small.depth <= large.depth
    assert small.non_embedding <= large.non_embedding


@pytest.mark.parametrize("n_params", [999.0, -1.0, math.nan, math.inf])
def test_invalid_parameter_counts_are_refused_by_name(n_params: float) -> None:
    with pytest.raises(ValueError, match="n_params"):
        params_to_shape(n_params)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ValueError, match="width=32, heads=3"):
        TransformerShape(width=32, depth=1, heads=3, hidden=64)


def test_a_future_byte_does_not_change_past_logits() -> None:
    model = with_random_head(params_to_shape(1e4), context=16)
    text = random_bytes(2, 16)
    changed = text.clone()
    changed[:, 9] = (changed[:, 9] + 1) % VOCABULARY
    before, after = model(text), model(changed)
    torch.testing.assert_close(before[:, :9], after[:, :9], rtol=0, atol=1e-6)
    assert (before[:, 9:] - after[:, 9:]).abs().amax(dim=(0, 2)).min() > 1e-3


def test_a_shorter_text_has_the_logits_of_its_prefix() -> None:
    model = with_random_head(params_to_shape(1e4), context=16)
    text = random_bytes(2, 16)
    torch.testing.assert_close(model(text)[:, :7], model(text[:, :7]), rtol=1e-5, atol=1e-5)


def test_attention_depends_on_the_order_of_the_bytes() -> None:
    model = with_random_head(params_to_shape(1e4), context=8)
    text = random_bytes(1, 8)
    swapped = text[:, [1, 0, 2, 3, 4, 5, 6, 7]]
    assert (model(text)[:, -1] - model(swapped)[:, -1]).abs().max() > 1e-3


def test_first_loss_is_that_of_a_uniform_guess() -> None:
    model = Transformer(params_to_shape(1e4), context=8, rng=torch.Generator().manual_seed(0))
    text = random_bytes(2, 9)
    loss = torch.nn.functional.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].ravel())
    assert float(loss.detach()) == pytest.approx(math.log(256), rel=1e-6)


def test_dropout_acts_in_training_only() -> None:
    shape = params_to_shape(1e4)
    model = with_random_head(shape, context=8)
    model.dropout = 0.5
    text = random_bytes(1, 8)
    assert not torch.equal(model(text), model(text))
    model.eval()
    assert torch.equal(model(text), model(text))


def test_grouped_queries_are_full_attention_with_repeated_keys_and_values() -> None:
    shape = TransformerShape(32, 1, heads=4, hidden=64, queries_per_key=2)
    grouped = with_random_head(shape, context=8)
    full = with_random_head(TransformerShape(32, 1, heads=4, hidden=64), context=8)
    state = grouped.state_dict()
    name = "blocks.0.attention_in.weight"
    queries, keys, values = state[name].split([32, 16, 16])
    repeated = [w.view(2, 8, 32).repeat_interleave(2, 0).reshape(32, 32) for w in (keys, values)]
    full.load_state_dict({**state, name: torch.cat([queries, *repeated])})
    text = random_bytes(2, 8)
    torch.testing.assert_close(grouped(text), full(text))


def test_normalized_queries_make_attention_independent_of_their_scale() -> None:
    shape = TransformerShape(32, 1, heads=2, hidden=64)
    rng = torch.Generator().manual_seed(0)
    model = Transformer(shape, context=8, qk_norm=True, rng=rng)
    text = random_bytes(2, 8)
    with torch.no_grad():
        model.head.weight.normal_(generator=rng)
        before = model(text)
        model.blocks[0].get_parameter("attention_in.weight")[:64] *= 10.0
        torch.testing.assert_close(model(text), before, rtol=1e-4, atol=1e-4)


def test_identical_experts_equal_the_dense_layer() -> None:
    dense = FeedForward(TransformerShape(16, 1, 2, 24))
    experts = Experts(TransformerShape(16, 1, 2, 24, experts=3, experts_used=3))
    with torch.no_grad():
        for weight, source in ((experts.up, dense.up.weight), (experts.down, dense.down.weight)):
            weight.copy_(source.expand_as(weight))
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(experts(x), dense(x))
    assert float(experts.imbalance.detach()) == pytest.approx(1.0)


def test_imbalance_is_the_number_of_experts_if_one_is_used_for_all() -> None:
    experts = Experts(TransformerShape(16, 1, 2, 24, experts=4))
    nn.init.zeros_(experts.up)
    nn.init.zeros_(experts.down)
    with torch.no_grad():
        experts.router.weight.zero_()
        experts.router.weight[1] = 10.0
    experts(torch.ones(2, 5, 16))
    assert float(experts.imbalance.detach()) == pytest.approx(4.0)


def test_z_loss_and_balance_act_in_training_only() -> None:
    shape = TransformerShape(16, 1, 2, 24, experts=4, experts_used=2)
    model = with_random_head(shape, context=8)
    text = random_bytes(2, 9)
    plain = next_byte_loss(model, text)
    logits = model(text[:, :-1])
    z = logits.logsumexp(-1).square().mean()
    imbalance = model.imbalance()
    assert imbalance is not None
    full = next_byte_loss(model, text, z_loss=0.1, balance=0.2)
    torch.testing.assert_close(full, plain + 0.1 * z + 0.2 * imbalance)
    model.eval()
    torch.testing.assert_close(next_byte_loss(model, text, z_loss=0.1, balance=0.2), plain)


def test_branches_are_multiplied_by_their_factor() -> None:
    shape = TransformerShape(16, 3, 2, 24)
    rng = torch.Generator().manual_seed(0)
    model = Transformer(shape, context=8, branch_factor=0.0, rng=rng)
    with torch.no_grad():
        model.head.weight.normal_(generator=rng)
        text = random_bytes(1, 4)
        bare = model.head(model.norm(model.embedding(text)))
        torch.testing.assert_close(model(text), bare)


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"queries_per_key": 3}, "queries_per_key"),
        ({"experts": 2, "experts_used": 3}, "experts_used"),
        ({"depth": 0}, "depth"),
    ],
)
def test_invalid_shapes_are_refused_by_name(settings: dict[str, int], name: str) -> None:
    with pytest.raises(ValueError, match=name):
        TransformerShape(**{"width": 32, "depth": 1, "heads": 4, "hidden": 64, **settings})
