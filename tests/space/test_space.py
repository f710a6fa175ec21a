"""What a space accepts, what it refuses, and the messages of its refusals."""

import json
import math
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from hpo import Axis, Categorical, Fidelity, Float, Int, Role, Scale, SearchSpace, SpaceError

SPACE: dict[str, Any] = {
    "lr": Float(1e-4, 1e-1, log=True, center=3e-3, role=Role.LR),
    "beta2": Float(0.9, 0.9999, logit=True),
    "optimizer": Categorical(["sgd", "adamw", "lion"]),
    "decay": Float(0.0, 1.0, when=("optimizer", ["adamw", "lion"])),
    "batch": Int(8, 64, multiple_of=8, role=Role.BATCH),
    "size": Categorical(["s", "m", "l"], ordered=True),
    "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    "epochs": Fidelity(1, 81),
}
CONFIG: dict[str, Any] = {
    "lr": 1e-3,
    "beta2": 0.99,
    "optimizer": "adamw",
    "decay": 0.1,
    "batch": 16,
    "size": "m",
    "params": 1e6,
    "epochs": 27,
}

REFUSED = {
    "swapped bounds": (
        lambda: Float(0.1, 0.001),
        "`low <= high` must hold for Float, got low=0.1, high=0.001; swap them?",
    ),
    "swapped ints": (lambda: Int(5, 3), "`low <= high` must hold for Int, got low=5, high=3"),
    "swapped scale": (lambda: Scale(1e9, 1e6), "`low <= high` must hold for Scale"),
    "swapped fidelity": (lambda: Fidelity(9, 1), "`low <= high` must hold for Fidelity"),
    "log of zero": (
        lambda: Float(0, 1, log=True),
        "`low` of Float must be > 0 with log=True, got low=0.0",
    ),
    "log int of zero": (lambda: Int(0, 9, log=True), "`low` of Int must be > 0 with log=True"),
    "logit at one": (
        lambda: Float(0.5, 1.0, logit=True),
        r"`high` of Float must lie inside \(0, 1\) with logit=True, got high=1.0",
    ),
    "log and logit": (lambda: Float(0.1, 0.9, log=True, logit=True), "exclude each other"),
    "infinite bound": (
        lambda: Float(0.0, math.inf),
        "`high` of Float must be finite, got inf; leave it out",
    ),
    "nan bound": (lambda: Float(math.nan, 1.0), "`low` of Float must be finite, got nan"),
    "infinite range": (lambda: Float(-1.7e308, 1.7e308), "`high - low` of Float must be finite"),
    "bool bound": (
        lambda: Float(True, 2.0),
        r"`low` of Float must be a number, got True \(bool\)",
    ),
    "string bound": (lambda: Float("1", 2.0), "`low` of Float must be a number, got '1'"),
    "fractional int": (lambda: Int(1.5, 3), "`low` of Int must be an integer, got 1.5"),
    "bool int": (lambda: Int(False, 3), "`low` of Int must be an integer, got False"),
    "string log": (lambda: Float(1, 2, log="yes"), "`log` of Float must be True or False"),
    "huge int": (lambda: Int(0, 10**13), r"`high` of Int must be at most 1e\+12 in size"),
    "off the lattice": (
        lambda: Int(3, 12, multiple_of=4),
        "must be a multiple of multiple_of=4, got low=3; use 0 or 4",
    ),
    "no lattice": (lambda: Int(0, 4, multiple_of=0), "`multiple_of` of Int must be >= 1, got 0"),
    "no choices": (lambda: Categorical([]), "`choices` of Categorical must not be empty"),
    "equal choices": (lambda: Categorical(["a", "b", "a"]), "must differ, got 'a' and 'a'"),
    "1 and True": (
        lambda: Categorical([1, True]),
        "must differ, got 1 and True; drop one of the two or name them by strings",
    ),
    "a string for choices": (lambda: Categorical("abc"), r"write Categorical\(\[...\]\)"),
    "bytes for choices": (lambda: Categorical(b"ab"), r"got b'ab' \(bytes\); write Cat"),
    "a set for choices": (
        lambda: Categorical({"a", "b"}),
        r"a set has no order, write Categorical\(sorted\(...\)\)",
    ),
    "a frozenset for choices": (lambda: Categorical(frozenset("a")), "a set has no order"),
    "a generator for choices": (
        lambda: Categorical(c for c in "ab"),
        r"\(generator\); write Categorical\(list\(...\)\)",
    ),
    "a dict for choices": (lambda: Categorical({"a": 1}), r"\(dict\); write Categorical\(list"),
    "keys for choices": (lambda: Categorical({"a": 1}.keys()), r"\(dict_keys\); write"),
    "values for choices": (lambda: Categorical({"a": 1}.values()), r"\(dict_values\); write"),
    "1 and 1.0": (lambda: Categorical([1, 1.0]), "must differ, got 1 and 1.0"),
    "rows for choices": (lambda: Categorical(np.ones((2, 2))), r"\(ndarray\); write"),
    "bytes in when": (lambda: Float(0, 1, when=("a", b"ab")), "must be a name and a list"),
    "a dict in when": (lambda: Float(0, 1, when=("a", {"b": 1})), "must be a name and a list"),
    "an object as choice": (lambda: Categorical([object()]), "name it by a string"),
    "nan as choice": (lambda: Categorical([math.nan]), "must hold finite numbers, got nan"),
    "center is no choice": (
        lambda: Categorical(["a"], center="b"),
        r"must be one of \['a'\], got 'b'",
    ),
    "center outside": (
        lambda: Float(0, 1, center=2),
        r"`center` of Float must lie in \[low, high\], got center=2.0",
    ),
    "center off the lattice": (lambda: Int(0, 8, multiple_of=4, center=3), "use 0 or 4"),
    "no spread": (lambda: Float(0, 1, center=0.5, spread=0), "`spread` of Float must be > 0"),
    "spread alone": (lambda: Float(0, 1, spread=1), "`spread` of Float needs `center`"),
    "unbounded without center": (
        lambda: Float(low=0.0),
        "Float without both bounds needs `center` and `spread`",
    ),
    "unbounded int": (lambda: Int(center=3), "Int without both bounds needs `center` and `spread`"),
    "role by name": (lambda: Float(0, 1, role="lr"), "`role` of Float must be a Role, got 'lr'"),
    "axis by name": (lambda: Scale(1, 2, axis="params"), "`axis` of Scale must be an Axis"),
    "scale from zero": (lambda: Scale(0, 1e6), "`low` of Scale must be a positive number"),
    "fidelity from zero": (lambda: Fidelity(0, 9), "`low` of Fidelity must be an integer from 1"),
    "when without values": (lambda: Float(0, 1, when=("a", [])), "must list at least one value"),
    "when with a string": (lambda: Float(0, 1, when=("a", "b")), "must be a name and a list"),
    "when not a pair": (lambda: Float(0, 1, when="a"), "must be a pair"),
}  # fmt: skip


@pytest.mark.parametrize(
    "choices",
    [np.array(["a", "b"]), ("a", "b"), [np.str_("a"), "b"]],
    ids=lambda c: type(c).__name__,
)
def test_choices_may_be_any_list_whose_order_is_that_of_its_writing(choices: Any) -> None:
    assert Categorical(choices).choices == ("a", "b")
    assert Categorical(np.array([1, 2])).choices == Categorical(range(1, 3)).choices == (1, 2)


@pytest.mark.parametrize("case", REFUSED)
def test_a_parameter_that_breaks_a_rule_is_refused_with_the_way_out(case: str) -> None:
    make, message = REFUSED[case]
    with pytest.raises(SpaceError, match=message):
        make()


ab = Categorical(["a", "b"])
SPACES_REFUSED = {
    "unknown parent": (
        {"x": Float(0, 1, when=("y", ["a"]))},
        r"`when` of `x` must name a parameter of the space, got 'y'; the space holds \['x'\]",
    ),
    "value the parent has not": (
        {"k": ab, "x": Float(0, 1, when=("k", ["c"]))},
        r"`k` in `when` of `x` must be one of \['a', 'b'\], got 'c'",
    ),
    "number outside the parent": (
        {"n": Int(1, 4), "x": Float(0, 1, when=("n", [5]))},
        r"`n` in `when` of `x` must lie in \[1, 4\], got 5",
    ),
    "float parent": (
        {"y": Float(0, 1), "x": Float(0, 1, when=("y", [0.5]))},
        "must name a Categorical or Int, got `y`, a Float",
    ),
    "scale parent": (
        {"y": Scale(1, 9), "x": Float(0, 1, when=("y", [3]))},
        "must name a Categorical or Int, got `y`, a Scale",
    ),
    "circle": (
        {n: Int(0, 1, when=(parent, [1])) for n, parent in (("x", "z"), ("y", "x"), ("z", "y"))},
        "must not run in a circle, got x -> z -> y -> x",
    ),
    "own parent": ({"x": Int(0, 1, when=("x", [1]))}, "circle, got x -> x"),
    "two fidelities": (
        {"epochs": Fidelity(1, 9), "folds": Fidelity(1, 5)},
        r"at most one Fidelity may be in a space, got \['epochs', 'folds'\]",
    ),
    "empty": ({}, "must hold at least one parameter"),
    "a number": ({"x": 3}, r"`x` must be a Float, .* got 3 \(int\); a constant is Categorical"),
    "a nameless parameter": ({"": ab}, "names must be non-empty strings, got ''"),
    "not a mapping": ([("x", ab)], "must be a mapping from names to parameters, got list"),
}  # fmt: skip


@pytest.mark.parametrize("case", SPACES_REFUSED)
def test_a_space_that_breaks_a_rule_is_refused_by_name(case: str) -> None:
    space, message = SPACES_REFUSED[case]
    with pytest.raises(SpaceError, match=message):
        SearchSpace(space)


CONFIGS_REFUSED: dict[str, tuple[Any, str]] = {
    "unknown": (CONFIG | {"momentum": 0.9}, r"got unknown \['momentum'\]; the space holds"),
    "missing": ({"optimizer": "sgd"}, r"must hold every active parameter, got none for \['lr', "),
    "missing parent": ({"lr": 1e-3}, "`optimizer` is missing from the config, and `decay` depends"),
    "inactive": (
        CONFIG | {"optimizer": "sgd"},
        r"got \['decay'\] \(`decay` needs `optimizer` in \['adamw', 'lion'\]\); drop them",
    ),
    "outside": (CONFIG | {"lr": 1.0}, r"`lr` must lie in \[0.0001, 0.1\], got 1.0"),
    "string": (CONFIG | {"lr": "0.1"}, r"`lr` must be a number, got '0.1' \(str\)"),
    "bool": (CONFIG | {"batch": True}, "`batch` must be an integer, got True"),
    "nan": (CONFIG | {"lr": math.nan}, "`lr` must be finite, got nan"),
    "off the lattice": (CONFIG | {"batch": 17}, "`batch` must be a multiple of 8, got 17; use 16"),
    "no choice": (CONFIG | {"size": "xl"}, r"`size` must be one of \['s', 'm', 'l'\], got 'xl'"),
    "beyond the scale": (CONFIG | {"params": 1e9}, "`params` must lie in"),
    "fraction of an epoch": (CONFIG | {"epochs": 2.5}, "`epochs` must be an integer, got 2.5"),
    "not a mapping": (3, "a config must be a mapping from names to values, got 3"),
}


@pytest.mark.parametrize("case", CONFIGS_REFUSED)
def test_an_illegal_config_is_refused_by_name(case: str) -> None:
    config, message = CONFIGS_REFUSED[case]
    with pytest.raises(SpaceError, match=message):
        SearchSpace(SPACE).validate(config)


def test_a_legal_config_comes_back_in_plain_python_values_and_space_order() -> None:
    given_config = {
        name: np.asarray(value)[()] if not isinstance(value, str) else np.str_(value)
        for name, value in reversed(CONFIG.items())
    }
    valid = SearchSpace(SPACE).validate(given_config)
    assert valid == CONFIG
    assert list(valid) == list(SPACE)
    assert [type(v) for v in valid.values()] == [type(v) for v in CONFIG.values()]


def test_whole_floats_pass_for_integers() -> None:
    assert SearchSpace({"n": Int(1, 9)}).validate({"n": 4.0}) == {"n": 4}


def test_a_flag_is_not_a_number_among_choices() -> None:
    space = SearchSpace({"layers": Categorical([1, 2]), "bias": Categorical([True, False])})
    assert space.validate({"layers": 1, "bias": np.True_}) == {"layers": 1, "bias": True}
    with pytest.raises(SpaceError, match="`layers` must be one of"):
        space.validate({"layers": True, "bias": True})


def test_a_run_at_a_target_may_leave_the_ranges_of_scale_axes_and_soft_settings_only() -> None:
    space = SearchSpace(SPACE)
    beyond = CONFIG | {"params": 1e9, "lr": 1.0, "batch": 1024}
    assert space.validate(beyond, extrapolate=True) == space.validate(CONFIG) | {
        "params": 1e9,
        "lr": 1.0,
        "batch": 1024,
    }
    with pytest.raises(SpaceError, match="`lr` must lie in"):
        space.validate(CONFIG | {"lr": 1.0})
    with pytest.raises(SpaceError, match="`lr` must lie in"):
        space.validate(CONFIG | {"lr": -1.0}, extrapolate=True)
    hard = SearchSpace(SPACE | {"lr": Float(1e-4, 1e-1, log=True, hard=True)})
    assert "lr" in space.extrapolated and "lr" not in hard.extrapolated
    with pytest.raises(SpaceError, match="`lr` must lie in"):
        hard.validate(CONFIG | {"lr": 1.0}, extrapolate=True)


def test_without_scale_axes_and_for_what_others_depend_on_ranges_always_hold() -> None:
    plain = SearchSpace({"lr": Float(1e-4, 1e-1, log=True)})
    with pytest.raises(SpaceError, match="`lr` must lie in"):
        plain.validate({"lr": 1.0}, extrapolate=True)
    layers, extra = Int(1, 4), Float(0.0, 0.5, when=("layers", [4]))
    switched = SearchSpace({"layers": layers, "x": extra, "params": Scale(1e5, 1e7)})
    assert switched.extrapolated == ("x",)


@pytest.mark.parametrize(
    ("parameter", "limits"),
    [
        (Float(1e-4, 1e-1, log=True), (1e-300, 1e300)),
        (Float(1e-4, 1e-1, log=True, hard=True), (1e-4, 1e-1)),
        (Float(0.9, 0.99, logit=True), (1e-15, 1.0 - 1e-15)),
        (Float(0.0, 0.1), (0.0, 1e300)),
        (Float(0.0, 1.0), (0.0, 1.0)),
        (Float(-1.0, 1.0), (-1e300, 1e300)),
        (Float(0.1, 0.5, role=Role.DROPOUT), (0.0, 1.0 - 1e-6)),
        (Float(0.8, 0.95, role=Role.BETA1), (0.0, 1.0 - 1e-6)),
        (Float(1e-3, 0.1, log=True, role=Role.WARMUP), (1e-300, 1.0)),
        (Float(10.0, 500.0, role=Role.WARMUP), (0.0, 1e300)),
        (Float(0.5, 0.5), (0.5, 0.5)),
        (Float(log=True, center=1e-3, spread=1.0), (1e-300, 1e300)),
        (Int(2, 12), (1, 10**12)),
        (Int(0, 12), (0, 10**12)),
        (Int(-4, 12), (-(10**12), 10**12)),
        (Int(16, 64, multiple_of=8), (8, 10**12)),
        (Int(16, 64, multiple_of=8, hard=True), (16, 64)),
    ],
    ids=str,
)
def test_only_physical_bounds_limit_a_value_at_a_target(
    parameter: Float | Int, limits: tuple[float, float]
) -> None:
    assert parameter.physical_limits == limits
    for end in limits:
        if isinstance(parameter, Int) or abs(end) < 1e200:
            assert parameter.check(end, extrapolate=True) == end
            assert parameter.canonical(end, extrapolate=True) == end


@pytest.mark.parametrize("kind", [Float, Int])
def test_hard_is_a_flag(kind: type[Float] | type[Int]) -> None:
    with pytest.raises(SpaceError, match="`hard` of .* must be True or False, got 'yes'"):
        kind(1, 2, hard="yes")  # type: ignore[arg-type]


def test_hard_bounds_are_stored_with_the_space_and_soft_ones_as_ever() -> None:
    space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True, hard=True), "n": Int(1, 4)})
    stored = json.loads(json.dumps(space.fingerprint()))
    assert stored["lr"]["hard"] is True and "hard" not in stored["n"]
    assert SearchSpace.from_fingerprint(stored) == space
    soft = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "n": Int(1, 4)})
    assert soft != space
    assert soft.difference(stored) == "`lr`: hard is False, was True"


def test_a_distribution_holds_a_value_outside_the_range() -> None:
    from optuna.distributions import FloatDistribution, IntDistribution

    space = SearchSpace(
        {
            "lr": Float(1e-4, 1e-1, log=True),
            "batch": Int(8, 64, multiple_of=8),
            "params": Scale(1e5, 1e7),
        }
    )
    config = space.canonical({"lr": 1e-6, "batch": 128, "params": 1e9}, extrapolate=True)
    assert space.distributions(config, {}) == {
        "lr": FloatDistribution(1e-6, 1e-1, log=True),
        "batch": IntDistribution(8, 128, step=8),
        "params": FloatDistribution(1e5, 1e9, log=True),
    }


def test_the_parts_of_a_space_are_named() -> None:
    space = SearchSpace(SPACE)
    assert space.decisions == ("lr", "beta2", "optimizer", "decay", "batch", "size")
    assert space.scales == ("params",)
    assert space.fidelity == "epochs"
    assert space.scale_axes == {"params": SPACE["params"]}
    assert SearchSpace({"x": Float(0, 1)}).fidelity is None
    assert SearchSpace(space) == space


def test_activity_follows_chains_of_parents() -> None:
    space = SearchSpace(
        {
            "leaf": Float(0, 1, when=("depth", [2, 3])),
            "depth": Int(1, 3, when=("kind", ["deep"])),
            "kind": Categorical(["flat", "deep"]),
        }
    )
    assert space.parents_first == ("kind", "depth", "leaf")
    assert space.active({"kind": "flat"}) == ("kind",)
    assert space.active({"kind": "deep", "depth": 1}) == ("depth", "kind")
    assert space.active({"kind": "deep", "depth": 3}) == ("leaf", "depth", "kind")


def test_parameters_and_spaces_cannot_be_changed() -> None:
    space = SearchSpace(SPACE)
    with pytest.raises(AttributeError):
        space["lr"].low = 1.0  # type: ignore[misc, union-attr]  # the mistake under test
    with pytest.raises(TypeError):
        space["x"] = Float(0, 1)  # type: ignore[index]  # the mistake under test
    original = dict(SPACE)
    original_space = SearchSpace(original)
    original.clear()
    assert len(original_space) == len(SPACE)


@given(st.floats(1e-4, 1e-1))
def test_canonical_floats_have_at_most_twelve_digits_and_stay_close(value: float) -> None:
    canonical = SearchSpace({"lr": Float(1e-4, 1e-1, log=True)}).canonical({"lr": value})["lr"]
    assert canonical == pytest.approx(value, rel=1e-11)
    assert float(f"{canonical:.12g}") == canonical


def test_canonical_values_are_the_numbers_people_write() -> None:
    space = SearchSpace(
        {"p": Float(0.5, 0.99999, logit=True), "x": Float(-1, 1), "u": Float(center=0, spread=1)}
    )
    config = {"p": 0.9999 + 1e-17, "x": 0.1 + 0.2, "u": -1e-17}
    assert space.canonical(config) == {"p": 0.9999, "x": 0.3, "u": 0.0}
    assert math.copysign(1, space.canonical(config)["u"]) == 1


def test_keys_are_equal_exactly_for_equal_configs() -> None:
    space = SearchSpace(SPACE)
    config = space.canonical(CONFIG)
    assert space.key(config) == space.key(dict(reversed(config.items())))
    assert space.key(config) != space.key(config | {"batch": 24})
    assert len({space.key(config), space.key(space.canonical(CONFIG))}) == 1


def test_a_fingerprint_survives_json_and_knows_its_space() -> None:
    stored = json.loads(json.dumps(SearchSpace(SPACE).fingerprint()))
    assert SearchSpace(SPACE).difference(stored) is None


def test_a_difference_names_what_changed() -> None:
    stored = SearchSpace(SPACE).fingerprint()
    changed = {n: p for n, p in SPACE.items() if n != "beta2"}
    changed |= {
        "lr": Float(1e-5, 1e-1, log=True, center=3e-3, role=Role.LR),
        "momentum": Float(0, 1),
    }
    difference = SearchSpace(changed).difference(stored)
    assert difference == "`lr`: low is 1e-05, was 0.0001; `momentum` is new; `beta2` is gone"
    swapped = dict(reversed(SPACE.items()))
    assert "the order is" in (SearchSpace(swapped).difference(stored) or "")


def test_optuna_distributions_make_a_space() -> None:
    space = SearchSpace(
        {
            "x": FloatDistribution(0.0, 1.0),
            "lr": FloatDistribution(1e-5, 1e-1, log=True),
            "grid": FloatDistribution(0.0, 0.5, step=0.1),
            "n": IntDistribution(4, 16, step=4),
            "odd": IntDistribution(1, 7, step=2),
            "width": IntDistribution(1, 512, log=True),
            "kind": CategoricalDistribution(("a", "b")),
        }
    )
    assert dict(space) == {
        "x": Float(0.0, 1.0),
        "lr": Float(1e-5, 1e-1, log=True),
        "grid": Categorical([0.0, 0.1, 0.2, 0.3, 0.4, 0.5], ordered=True),
        "n": Int(4, 16, multiple_of=4),
        "odd": Categorical([1, 3, 5, 7], ordered=True),
        "width": Int(1, 512, log=True),
        "kind": Categorical(["a", "b"]),
    }


def test_a_grid_too_fine_for_an_ordinal_is_refused() -> None:
    with pytest.raises(SpaceError, match="in `x`: .* at most 1000 values, got 10001"):
        SearchSpace({"x": FloatDistribution(0.0, 1.0, step=1e-4)})


def test_the_error_of_an_optuna_distribution_names_the_parameter() -> None:
    with pytest.raises(SpaceError, match="in `seed`: `high` of Int must be at most"):
        SearchSpace({"seed": IntDistribution(0, 2**62)})


def test_every_active_value_lies_in_its_optuna_distribution() -> None:
    space = SearchSpace(
        SPACE | {"free": Float(center=1.0, spread=2.0), "many": Int(center=4, spread=1)}
    )
    config = space.canonical(CONFIG | {"free": 9.5, "many": -3})
    found = space.distributions(config, {"free": (-3.0, 5.0)})
    assert found == {
        "lr": FloatDistribution(1e-4, 1e-1, log=True),
        "beta2": FloatDistribution(0.9, 0.9999),
        "optimizer": CategoricalDistribution(("sgd", "adamw", "lion")),
        "decay": FloatDistribution(0.0, 1.0),
        "batch": IntDistribution(8, 64, step=8),
        "size": CategoricalDistribution(("s", "m", "l")),
        "params": FloatDistribution(1e5, 1e7, log=True),
        "epochs": IntDistribution(1, 81),
        "free": FloatDistribution(-3.0, 9.5),
        "many": IntDistribution(-3, -3),
    }
    trial = optuna.create_trial(params=config, distributions=found, value=1.0)
    assert trial.params == config


def test_inactive_parameters_have_no_distribution() -> None:
    space = SearchSpace(SPACE)
    config = {n: v for n, v in CONFIG.items() if n != "decay"} | {"optimizer": "sgd"}
    assert "decay" not in space.distributions(config, {})


def test_a_space_read_back_from_its_stored_fingerprint_is_the_same() -> None:
    space = SearchSpace(
        {
            "kind": Categorical(["a", "b", None]),
            "order": Categorical([1, 2.5, 4], ordered=True, center=2.5),
            "lr": Float(1e-4, 1e-1, log=True, role=Role.LR, when=("kind", ["a", None])),
            "beta2": Float(0.9, 0.999, logit=True, role=Role.BETA2),
            "wide": Float(center=1.0, spread=0.5),
            "batch": Int(8, 512, log=True, multiple_of=8),
            "width": Scale(64, 1024, axis=Axis.WIDTH),
            "epochs": Fidelity(1, 81),
        }
    )
    stored = json.loads(json.dumps(space.fingerprint()))
    assert dict(SearchSpace.from_fingerprint(stored)) == dict(space)
