"""Start points: distinct, covering, centerd where asked, cheap along the scale axes."""

import collections
import math

import numpy as np
import pytest

from hpo import Categorical, Fidelity, Float, Int, Scale, SearchSpace
from hpo.optimizer.initial_design import start_count, starts
from hpo.space.encoding import Encoder


def draw(space: dict, count: int, seed: int = 0) -> list[dict]:
    encoder = Encoder(SearchSpace(space))
    return encoder.decode(starts(encoder, count, rng=np.random.default_rng(seed)))


def test_the_same_seed_gives_the_same_starts_and_another_seed_others() -> None:
    space = {"lr": Float(1e-5, 1e-1, log=True), "layers": Int(1, 12)}
    assert draw(space, 8, seed=3) == draw(space, 8, seed=3)
    assert draw(space, 8, seed=3) != draw(space, 8, seed=4)


def test_the_center_comes_first_and_leaves_the_rest_at_its_middle() -> None:
    space = {
        "lr": Float(1e-5, 1e-1, log=True, center=3e-3),
        "momentum": Float(0.0, 1.0),
        "optimizer": Categorical(["sgd", "adamw"]),
        "epochs": Fidelity(1, 81),
        "params": Scale(1e5, 1e7),
    }
    first = draw(space, 5)[0]
    expected = {"lr": 3e-3, "momentum": 0.5, "optimizer": "sgd", "epochs": 81, "params": 1e5}
    assert first == expected


def test_a_conditional_center_is_taken_when_its_parent_is_on() -> None:
    space = {
        "optimizer": Categorical(["sgd", "adamw"], center="adamw"),
        "beta2": Float(0.9, 0.9999, logit=True, center=0.95, when=("optimizer", ["adamw"])),
        "momentum": Float(0.0, 1.0, center=0.9, when=("optimizer", ["sgd"])),
    }
    assert draw(space, 4)[0] == {"optimizer": "adamw", "beta2": 0.95}


def test_no_start_occurs_twice_while_the_space_has_another_point() -> None:
    space = {"a": Int(1, 3), "b": Categorical(["x", "y"]), "c": Int(0, 1, when=("b", ["y"]))}
    everything = draw(space, 9)
    assert len({tuple(config.items()) for config in everything}) == 9
    assert draw(space, 20)[9:18] == draw(space, 20)[:9]


def test_a_space_of_one_point_repeats_it() -> None:
    assert draw({"a": Float(2.0, 2.0), "b": Categorical(["x"])}, 3) == [{"a": 2.0, "b": "x"}] * 3


@pytest.mark.parametrize("count", [4, 7, 10])
@pytest.mark.parametrize("choices", [2, 3, 5])
def test_choices_are_met_equally_often(count: int, choices: int) -> None:
    space = {"x": Float(0.0, 1.0), "kind": Categorical(range(choices)), "y": Float(0.0, 1.0)}
    met = collections.Counter(config["kind"] for config in draw(space, count))
    times = [met[choice] for choice in range(choices)]
    assert max(times) - min(times) <= 1


def test_both_branches_of_a_condition_are_run() -> None:
    space = {
        "optimizer": Categorical(["sgd", "adamw"]),
        "beta2": Float(0.9, 0.9999, logit=True, when=("optimizer", ["adamw"])),
        "momentum": Float(0.0, 1.0, when=("optimizer", ["sgd"])),
    }
    active = [config["beta2"] for config in draw(space, 8) if "beta2" in config]
    assert len(active) == 4
    assert min(active) < 0.98 < max(active)


def test_every_integer_gets_an_equal_share() -> None:
    encoder = Encoder(SearchSpace({"n": Int(1, 4)}))
    U = np.linspace(0, 1, 4001)[:, None]
    values = [c["n"] for c in encoder.decode(encoder.from_unit(U, (encoder.lower, encoder.upper)))]
    shares = np.bincount(values, minlength=5)[1:] / len(values)
    np.testing.assert_allclose(shares, 0.25, atol=1e-3)


def test_a_spread_draws_starts_around_the_center() -> None:
    space = {"lr": Float(log=True, center=1e-3, spread=0.5), "n": Int(center=100, spread=10.0)}
    configs = draw(space, 256)
    logs = np.log([config["lr"] for config in configs])
    counts = np.array([config["n"] for config in configs], dtype=float)
    assert logs.mean() == pytest.approx(math.log(1e-3), abs=0.05)
    assert logs.std() == pytest.approx(0.5, rel=0.1)
    assert counts.mean() == pytest.approx(100, abs=1.5)
    assert counts.std() == pytest.approx(10, rel=0.1)


def test_a_one_sided_bound_holds_for_starts_on_its_far_side() -> None:
    values = [c["x"] for c in draw({"x": Float(low=0.0, center=0.1, spread=1.0)}, 64)]
    assert min(values) >= 0
    assert len(set(values)) == 64


def test_starts_are_mostly_cheap_and_run_from_cheap_to_dear() -> None:
    space = {
        "lr": Float(1e-5, 1e-1, log=True),
        "params": Scale(1e5, 1e7),
        "tokens": Scale(1e6, 1e9),
    }
    configs = draw(space, 32)
    costs = [config["params"] * config["tokens"] for config in configs]
    assert costs == sorted(costs)
    share = np.log([config["params"] / 1e5 for config in configs]) / math.log(1e2)
    assert 0.2 <= np.median(share) <= 0.3
    assert share.max() > 0.7


def test_the_number_of_starts_follows_the_dimension_within_limits() -> None:
    assert [start_count(d) for d in (0, 1, 2, 5, 8, 40)] == [4, 4, 4, 7, 10, 10]


def test_no_starts_and_fewer_than_none() -> None:
    assert draw({"x": Float(0.0, 1.0)}, 0) == []
    with pytest.raises(ValueError, match="`count` must be >= 0, got -1"):
        draw({"x": Float(0.0, 1.0)}, -1)
