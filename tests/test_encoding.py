"""Configs to rows and back: exact, for every kind of parameter and every legal value."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from hpo import Categorical, Fidelity, Float, Int, Scale, SearchSpace
from hpo.encoding import Encoder
from hpo.space import Parameter, condition
from surrogates.data import Kind

finite = st.floats(allow_nan=False, allow_infinity=False, width=64)


@st.composite
def bounded_floats(draw: DrawFn, when: Any = None) -> Float:
    scale = draw(st.sampled_from(["linear", "log", "logit"]))
    if scale == "linear":
        values = st.floats(-1e300, 1e300) | st.floats(-10, 10) | st.floats(1e6, 1.0001e6)
    elif scale == "log":
        values = st.floats(1e-300, 1e300) | st.floats(1e-5, 1.0)
    else:
        values = st.floats(1e-15, 1 - 1e-15) | st.floats(0.9, 0.9999)
    low, high = sorted((draw(values), draw(values)))
    return Float(low, high, log=scale == "log", logit=scale == "logit", when=when)


@st.composite
def unbounded_floats(draw: DrawFn, when: Any = None) -> Float:
    scale = draw(st.sampled_from(["linear", "log", "logit"]))
    ranges = {"linear": (-1e6, 1e6), "log": (1e-6, 1e6), "logit": (1e-4, 0.9999)}
    center = draw(st.floats(*ranges[scale]))
    spread = draw(st.floats(1e-3, 1e3 if scale == "linear" else 3.0))
    side = draw(st.sampled_from(["neither", "low", "high"]))
    return Float(
        low=center if side == "low" else None,
        high=center if side == "high" else None,
        log=scale == "log",
        logit=scale == "logit",
        center=center,
        spread=spread,
        when=when,
    )


@st.composite
def ints(draw: DrawFn, when: Any = None) -> Int:
    log = draw(st.booleans())
    step = draw(st.integers(1, 64))
    most = draw(st.sampled_from([3, 100, 10**12 // step]))
    ends = st.integers(1 if log else -most, most)
    low, high = sorted((draw(ends) * step, draw(ends) * step))
    if draw(st.booleans()):
        return Int(low, high, log=log, multiple_of=step, when=when)
    spread = draw(st.floats(0.1, 3.0))
    return Int(low, log=log, multiple_of=step, center=low, spread=spread, when=when)


@st.composite
def categoricals(draw: DrawFn, when: Any = None) -> Categorical:
    kinds = st.text(max_size=3) | st.integers(-5, 5) | st.none() | st.floats(2.5, 9.5)
    choices = draw(st.lists(kinds, min_size=1, max_size=5, unique=True))
    return Categorical(choices, ordered=draw(st.booleans()), when=when)


def parameters(when: Any = None) -> SearchStrategy[Parameter]:
    return st.one_of(
        bounded_floats(when=when),
        unbounded_floats(when=when),
        ints(when=when),
        categoricals(when=when),
    )


def values(parameter: Parameter) -> SearchStrategy[Any]:
    """Legal values, not only the ones the search would visit first."""
    if isinstance(parameter, Categorical):
        return st.sampled_from(parameter.choices)
    low, high = parameter.limits
    if isinstance(parameter, Int):
        step = parameter.multiple_of
        return st.integers(low // step, high // step).map(lambda k: k * step)
    if isinstance(parameter, Fidelity):
        return st.integers(low, high)
    return st.floats(low, high)


@st.composite
def spaces(draw: DrawFn) -> SearchSpace:
    space: dict[str, Parameter] = {}
    for i in range(draw(st.integers(1, 6))):
        when = None
        parents = [n for n, p in space.items() if isinstance(p, Categorical | Int)]
        if parents and draw(st.booleans()):
            parent = draw(st.sampled_from(parents))
            chosen = draw(st.lists(values(space[parent]), min_size=1, max_size=3))
            when = (parent, chosen)
        space[f"p{i}"] = draw(parameters(when))
    for name in draw(st.sampled_from([(), ("params",), ("params", "tokens")])):
        low, high = sorted((draw(st.floats(1e-3, 1e15)), draw(st.floats(1e-3, 1e15))))
        space[name] = Scale(low, high)
    if draw(st.booleans()):
        low, high = sorted((draw(st.integers(1, 500)), draw(st.integers(1, 500))))
        space["epochs"] = Fidelity(low, high)
    order = draw(st.permutations(list(space)))
    return SearchSpace({name: space[name] for name in order})


@st.composite
def configs(draw: DrawFn, space: SearchSpace) -> dict[str, Any]:
    config: dict[str, Any] = {}
    for name in space.parents_first:
        when = condition(space[name])
        if when is None or (when[0] in config and config[when[0]] in when[1]):
            config[name] = draw(values(space[name]))
    return space.canonical(config)


@st.composite
def spaces_with_configs(draw: DrawFn) -> tuple[SearchSpace, list[dict[str, Any]]]:
    space = draw(spaces())
    return space, draw(st.lists(configs(space), min_size=1, max_size=5))


def rows(space: SearchSpace, seed: int, count: int = 7, reach: float = 2.0) -> np.ndarray:
    d = len(Encoder(space).columns.kinds)
    return np.random.default_rng(seed).uniform(-reach, 1 + reach, (count, d))


@given(spaces_with_configs())
def test_decoding_an_encoded_config_gives_it_back_exactly(
    case: tuple[SearchSpace, list[Any]],
) -> None:
    space, asked = case
    encoder = Encoder(space)
    back = encoder.decode(encoder.encode(asked))
    assert back == asked
    for config, original in zip(back, asked, strict=True):
        assert list(config) == list(original)
        assert [type(v) for v in config.values()] == [type(v) for v in original.values()]
        assert space.key(config) == space.key(original)


@given(spaces_with_configs())
def test_canonical_is_idempotent(case: tuple[SearchSpace, list[Any]]) -> None:
    space, asked = case
    for config in asked:
        assert space.canonical(config) == config


@given(spaces(), st.integers(0, 2**32 - 1))
def test_any_row_decodes_to_a_legal_canonical_config(space: SearchSpace, seed: int) -> None:
    for config in Encoder(space).decode(Encoder(space).snap(rows(space, seed))):
        assert space.canonical(config) == config


@given(spaces(), st.integers(0, 2**32 - 1), st.booleans())
def test_snapping_twice_is_snapping_once(space: SearchSpace, seed: int, keep: bool) -> None:
    encoder = Encoder(space)
    once = encoder.snap(rows(space, seed), keep_scale=keep)
    np.testing.assert_array_equal(encoder.snap(once, keep_scale=keep), once)


@given(spaces(), st.integers(0, 2**32 - 1))
def test_a_batch_is_snapped_as_its_rows_are(space: SearchSpace, seed: int) -> None:
    encoder = Encoder(space)
    X = rows(space, seed)
    np.testing.assert_array_equal(
        encoder.snap(X), np.concatenate([encoder.snap(X[i : i + 1]) for i in range(len(X))])
    )


@given(spaces(), st.integers(0, 2**32 - 1))
def test_a_snapped_lattice_entry_encodes_again_bit_for_bit(space: SearchSpace, seed: int) -> None:
    encoder = Encoder(space)
    X = encoder.snap(rows(space, seed))
    again = encoder.encode(encoder.decode(X))
    on_lattice = np.setdiff1d(np.arange(X.shape[1]), encoder.continuous)
    np.testing.assert_array_equal(again[:, on_lattice], X[:, on_lattice])


@given(spaces_with_configs())
def test_encoded_rows_are_fixed_points_of_snap(case: tuple[SearchSpace, list[Any]]) -> None:
    space, asked = case
    X = Encoder(space).encode(asked)
    np.testing.assert_allclose(Encoder(space).snap(X), X, rtol=1e-9, atol=1e-9)
