"""Configs to rows and back: exact, for every kind of parameter and every legal value."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from hpo import Categorical, Fidelity, Float, Int, Role, Scale, SearchSpace, SpaceError
from hpo.space import Parameter
from hpo.space.encoding import Encoder, row_keys
from hpo.space.parameters import condition
from surrogates.data import ColumnKind


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
    if scale == "linear":
        center = round(center, 6)  # 1e-96 and 0 are one where the spread is 1
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


@settings(max_examples=200)
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


def test_columns_are_decisions_then_groups_then_scales_then_fidelity() -> None:
    space = SearchSpace(
        {
            "epochs": Fidelity(1, 81),
            "params": Scale(1e5, 1e7),
            "optimizer": Categorical(["sgd", "adamw", "lion"]),
            "beta2": Float(0.9, 0.999, when=("optimizer", ["lion", "adamw"])),
            "size": Categorical([16, 32, 64], ordered=True),
            "eps": Float(1e-9, 1e-7, log=True, when=("optimizer", ["adamw", "lion"])),
        }
    )
    encoder = Encoder(space)
    columns = encoder.columns
    assert columns.names == (
        "optimizer", "beta2", "size", "eps", "active: beta2, eps", "params", "epochs"
    )  # fmt: skip
    assert columns.kinds == (
        ColumnKind.CATEGORICAL,
        *3 * [ColumnKind.DECISION],
        ColumnKind.ACTIVITY,
        ColumnKind.SCALE,
        ColumnKind.FIDELITY,
    )
    assert columns.categories == (3, 0, 0, 0, 2, 0, 0)
    config = {"optimizer": "sgd", "size": 32, "params": 1e6, "epochs": 9}
    row = encoder.encode([config])[0]
    np.testing.assert_allclose(row, [0, 0.5, 0.5, 0.5, 0, 0.5, 0.5])
    assert [encoder.index(name) for name in ("size", "params")] == [2, 5]


@given(spaces_with_configs())
def test_natural_values_are_affine_in_the_columns(case: tuple[SearchSpace, list[Any]]) -> None:
    space, asked = case
    encoder = Encoder(space)
    X = encoder.encode(asked)
    natural = encoder.columns.origin + encoder.columns.width * X
    for name in (*space.scales, *([space.fidelity] if space.fidelity else [])):
        logs = [math.log(config[name]) for config in asked]
        np.testing.assert_allclose(natural[:, encoder.index(name)], logs, rtol=1e-9, atol=1e-9)


def test_bounds_are_reflected_not_clipped() -> None:
    encoder = Encoder(SearchSpace({"x": Float(0.0, 1.0), "n": Int(0, 10)}))
    snapped = encoder.snap([[-0.2, -0.21], [1.3, 1.32], [2.1, 4.0], [0.4, 0.44]])
    np.testing.assert_allclose(snapped, [[0.2, 0.2], [0.7, 0.7], [0.1, 0.0], [0.4, 0.4]])


def test_an_unbounded_parameter_is_reflected_only_at_the_bound_it_has() -> None:
    space = SearchSpace(
        {"x": Float(low=0.0, center=1.0, spread=0.5), "y": Float(center=0.0, spread=1.0)}
    )
    encoder = Encoder(space)
    (config,) = encoder.decode([[-0.1, -7.0]])  # x: 0.1 beyond its low, which lies at 0
    assert config == {"x": pytest.approx(0.2), "y": -30.0}


def test_the_box_of_an_unbounded_parameter_grows_around_good_rows() -> None:
    space = SearchSpace(
        {
            "free": Float(log=True, center=1e-3, spread=1.0),
            "low": Float(low=0.0, center=0.0, spread=1.0),
            "fixed": Float(0.0, 1.0),
        }
    )
    encoder = Encoder(space)
    np.testing.assert_array_equal(encoder.lower, [0.0, 0.5, 0.0])
    np.testing.assert_array_equal(encoder.upper, [1.0, 1.0, 1.0])
    lower, upper = encoder.box([[1.5, 0.55, 0.9], [0.1, 0.5, 0.2]])
    np.testing.assert_allclose(lower, [-0.15, 0.5, 0.0])
    np.testing.assert_allclose(upper, [1.75, 1.0, 1.0])
    box = encoder.value_box(encoder.box(np.empty((0, 3))))
    assert set(box) == {"free", "low"}
    assert box["free"] == pytest.approx((1e-3 * math.exp(-2), 1e-3 * math.exp(2)))
    assert box["low"] == pytest.approx((0.0, 2.0))


def test_a_child_of_an_inactive_parent_is_inactive() -> None:
    space = SearchSpace(
        {
            "leaf": Float(0.0, 1.0, when=("depth", [2, 3])),
            "depth": Int(1, 3, when=("kind", ["deep"])),
            "kind": Categorical(["flat", "deep"]),
        }
    )
    encoder = Encoder(space)
    assert encoder.decode(encoder.snap([[0.3, 1.0, 0, 0, 0]])) == [{"kind": "flat"}]
    assert encoder.decode(encoder.snap([[0.3, 0.0, 1, 1, 1]])) == [{"depth": 1, "kind": "deep"}]
    (full,) = encoder.decode(encoder.snap([[0.3, 1.0, 1, 0, 0]]))
    assert full == {"leaf": 0.3, "depth": 3, "kind": "deep"}


def test_rows_that_differ_only_in_inactive_entries_become_one() -> None:
    space = SearchSpace(
        {"kind": Categorical(["a", "b"]), "x": Float(0.0, 1.0, when=("kind", ["b"]))}
    )
    snapped = Encoder(space).snap([[0, 0.1, 1], [0, 0.9, 0]])
    np.testing.assert_array_equal(snapped[0], snapped[1])


def test_a_one_value_parameter_stays_at_the_middle_of_a_column_of_width_one() -> None:
    space = SearchSpace(
        {
            "x": Float(3.0, 3.0),
            "n": Int(5, 5, log=True),
            "o": Categorical(["only"], ordered=True),
            "c": Categorical(["only"]),
            "s": Scale(1e6, 1e6),
            "f": Fidelity(9, 9),
        }
    )
    encoder = Encoder(space)
    assert np.all(encoder.columns.width == 1)
    np.testing.assert_array_equal(encoder.lower, encoder.upper)
    assert encoder.decode(encoder.snap([[0.1, 7.0, 0.9, 3.0, -4.0, 0.2]])) == [
        {"x": 3.0, "n": 5, "o": "only", "c": "only", "s": 1e6, "f": 9}
    ]
    assert not encoder.free.any()


def test_a_target_beyond_the_scale_range_round_trips() -> None:
    space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)})
    target = space.canonical({"lr": 3e-3, "params": 1.23456789e9}, extrapolate=True)
    encoder = Encoder(space)
    row = encoder.encode([target])
    assert row[0, 1] == pytest.approx(math.log(1.23456789e4) / math.log(100))
    assert encoder.decode(row) == [target]
    np.testing.assert_array_equal(encoder.snap(row, keep_scale=True), row)


def test_the_grid_of_a_finite_space_lists_every_config_once() -> None:
    space = SearchSpace(
        {
            "n": Int(2, 8, multiple_of=2),
            "kind": Categorical(["a", "b"]),
            "o": Categorical([1, 2, 3], ordered=True, when=("kind", ["b"])),
        }
    )
    encoder = Encoder(space)
    X = encoder.grid(100)
    assert X is not None
    assert len({space.key(config) for config in encoder.decode(X)}) == len(X) == 4 * (1 + 3)
    assert encoder.grid(10) is None
    assert Encoder(SearchSpace({"x": Float(0.0, 1.0)})).grid(100) is None


def test_direction_gives_the_sign_of_the_loss() -> None:
    space = SearchSpace({"x": Float(0.0, 1.0)})
    assert Encoder(space).loss_sign == 1.0
    assert Encoder(space, "maximize").loss_sign == -1.0
    with pytest.raises(ValueError, match='must be "minimize" or "maximize", got \'max\''):
        Encoder(space, "max")  # type: ignore[arg-type]  # the mistake under test


def test_row_keys_are_equal_for_rows_that_agree_to_nine_decimals() -> None:
    X = np.array([[0.1, -0.0], [0.1 + 1e-11, 0.0], [0.1 + 1e-8, 0.0]])
    first, second, third = row_keys(X)
    assert first == second != third
    assert row_keys(X[2:]) == [third]


def test_rows_of_the_wrong_shape_or_not_finite_are_refused() -> None:
    encoder = Encoder(SearchSpace({"x": Float(0.0, 1.0)}))
    with pytest.raises(ValueError, match=r"`X` must be n x 1, got \(1, 2\)"):
        encoder.snap([[0.1, 0.2]])
    with pytest.raises(ValueError, match="`X` must be finite, got row 1"):
        encoder.snap([[0.1], [np.nan]])


def test_snapping_changes_no_argument() -> None:
    X = np.array([[1.5]])
    Encoder(SearchSpace({"x": Float(0.0, 1.0)})).snap(X)
    assert X[0, 0] == 1.5


def test_continuous_unbounded_and_free_columns_are_listed() -> None:
    encoder = Encoder(
        SearchSpace(
            {
                "x": Float(0.0, 1.0),
                "fixed": Float(1.0, 1.0),
                "n": Int(0, 10, multiple_of=2),
                "o": Categorical([1, 2, 3, 4, 5], ordered=True),
                "kind": Categorical(["a", "b"]),
                "child": Float(center=0.0, spread=1.0, when=("kind", ["b"])),
                "params": Scale(1e5, 1e7),
                "epochs": Fidelity(1, 9),
            }
        )
    )
    names = np.array(encoder.columns.names)
    assert names[encoder.continuous].tolist() == ["x", "child", "params"]
    assert names[encoder.unbounded].tolist() == ["child"]
    assert names[encoder.free].tolist() == ["x", "n", "o", "kind", "child", "params"]
    np.testing.assert_allclose(encoder.steps, [0, 0, 0.2, 0.25, 0, 0, 0, 0, 0])


def test_an_encoder_of_another_box_gives_rows_the_same_meaning() -> None:
    space = SearchSpace(
        {
            "lr": Float(1e-4, 1e-1, log=True),
            "dropout": Float(0.0, 0.5, role=Role.DROPOUT),
            "beta": Float(0.9, 0.99, logit=True),
            "batch": Int(8, 64, log=True, multiple_of=8),
            "fixed": Float(0.0, 1.0, hard=True),
            "params": Scale(1e6, 1e8),
        }
    )
    encoder = Encoder(space)
    far = np.full(len(encoder.lower), 3.0)
    wide = encoder.within(-far, far)
    config = space.canonical(
        {
            "lr": 1e-6,
            "dropout": 0.75,
            "beta": 0.9995,
            "batch": 256,
            "fixed": 0.5,
            "params": 1e10,
        },
        extrapolate=True,
    )
    row = encoder.encode([config])
    assert wide.decode(row) == [config]
    np.testing.assert_array_equal(wide.snap(row, keep_scale=True), row)
    low, high = wide.decode(np.stack([-far, far]) * 10.0)[0], wide.decode(wide.upper[None])[0]
    assert low["batch"] >= 8 and low["dropout"] >= 0.0
    assert high["dropout"] < 1.0 and high["beta"] < 1.0 and high["fixed"] == 1.0
    held = encoder.within(row[0], row[0])
    assert not held.free[:5].any() and held.decode(row) == [config]


@pytest.mark.parametrize("width", [1e-12, 1.0, 1e12])
def test_a_linear_value_outside_the_range_survives_encoding(width: float) -> None:
    space = SearchSpace({"x": Float(-width, width), "params": Scale(1e6, 1e8)})
    encoder = Encoder(space)
    for x in (7.3 * width, -41.7 * width, 1234.5 * width):
        config = space.canonical({"x": x, "params": 1e7}, extrapolate=True)
        row = encoder.encode([config])
        decoded = encoder.within(row[0], row[0]).decode(row)[0]
        assert space.canonical(decoded, extrapolate=True) == config


def ends(low: Any, high: Any) -> SearchStrategy[tuple[Any, Any]]:
    values = st.integers(low, high) if isinstance(low, int) else st.floats(low, high)
    return st.tuples(values, values).map(lambda pair: (min(pair), max(pair)))


def ranges() -> SearchStrategy[Parameter]:
    return (
        bounded_floats()
        | ends(1e-300, 1e300).map(lambda pair: Scale(*pair))
        | ends(1, 10**12).map(lambda pair: Int(*pair, log=True))
        | ends(1, 10**12).map(lambda pair: Fidelity(*pair))
    )


@given(ranges())
@example(Scale(1e3, 1e5))
@example(Float(1 / 3, 2 / 3, log=True))
@example(Float(0.1, 0.3))
def test_an_end_of_a_range_survives_the_way_to_rows_and_back(parameter):
    encoder = Encoder(SearchSpace({"p": parameter}))
    for end in parameter.limits:
        (config,) = encoder.decode(encoder.encode([{"p": end}]))
        assert config["p"] == end
        assert encoder.space.canonical({"p": end}) == {"p": end}
        inside = encoder.within(encoder.lower, encoder.upper)
        (config,) = inside.decode(encoder.encode([{"p": end}]))
        assert config["p"] == end


@given(ranges())
@example(Scale(1e3, 1e5))
@example(Float(0.1, 0.3))
def test_an_end_that_went_through_natural_units_is_that_end(parameter):
    space, unit = SearchSpace({"p": parameter}), parameter.unit
    if isinstance(parameter, Int | Fidelity):
        return  # whole numbers are rounded by whoever computes them
    for end in parameter.limits:
        assert space.canonical({"p": unit.value_of(unit.natural_of(end))}) == {"p": end}


@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        (Scale(1e3, 1e5), 999.999999),
        (Float(1e-4, 1e-1, log=True), 0.1000000001),
        (Float(0.0, 1.0), -1e-9),
        (Float(0.9, 1.0 - 1e-15, logit=True), 1.0),
        (Float(low=0.0, center=1.0, spread=0.5), -1e-9),
        (Int(1, 9), 10),
    ],
)
def test_a_value_beyond_its_range_by_more_than_rounding_is_refused(parameter, value):
    with pytest.raises(SpaceError, match="must lie in"):
        SearchSpace({"p": parameter}).canonical({"p": value})
