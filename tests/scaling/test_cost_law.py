"""Cost laws, predictions at scales without runs, and allocation of seconds."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import pytest

from hpo import Axis, Float, Int, Optimizer, Role, Scale, SpaceError
from hpo.optimizer.result import Result
from hpo.scaling.cost_law import CostLaw

SPACE = {
    "lr": Float(1e-4, 1e-1, log=True, role=Role.LR),
    "batch": Int(8, 512, log=True, role=Role.BATCH),
    "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    "tokens": Scale(1e6, 1e8, axis=Axis.TOKENS),
}
TARGET = {"params": 1e8, "tokens": 1e9}
BEST = {"lr": 3e-3, "batch": 64}


def loss(config: dict[str, float]) -> float:
    bowl = 0.04 * math.log(config["lr"] / 3e-3) ** 2 + 0.02 * math.log(config["batch"] / 64) ** 2
    return 1.5 + 20 * config["params"] ** -0.3 + 30 * config["tokens"] ** -0.3 + bowl


def flops(config: dict[str, float]) -> float:
    return 6.0 * config["params"] * config["tokens"]


def seconds(config: dict[str, float]) -> float:
    """Small models leave the machine idle, large batches use it better."""
    rate = config["params"] ** 0.2 * config["batch"] ** 0.3
    return 1e-9 * flops(config) / rate


@lru_cache
def result(runs: int = 40) -> Result:
    optimizer = Optimizer(SPACE, cost="flops", target=TARGET)
    rng = np.random.default_rng(0)
    for row in rng.random((runs, 4)):
        config = optimizer.space.canonical(optimizer.encoder.decode(row[None])[0])
        noisy = math.exp(0.02 * rng.standard_normal())
        optimizer.tell(config, loss(config), flops(config), seconds=noisy * seconds(config))
    return optimizer.result()


def test_exponents_of_cost_lie_within_their_standard_errors_of_the_truth() -> None:
    declared, timed = result().cost_law, result().wall_clock_law
    assert declared is not None and timed is not None
    truth = {"params": 0.8, "tokens": 1.0, "batch": -0.3, "lr": 0.0}
    for name, slope in truth.items():
        estimate = timed.exponent(name)
        assert abs(estimate.mean - slope) < 3 * estimate.sd + 0.01
        assert estimate.sd < 0.1
    for axis in ("params", "tokens"):
        assert declared.exponent(axis).mean == pytest.approx(1.0, abs=0.02)
        assert timed.exponent(axis).prior_mean == pytest.approx(1.0)
        assert timed.exponent(axis).prior_sd == pytest.approx(0.3)
    with pytest.raises(KeyError, match="`name` must be one of .*, got 'width'"):
        timed.exponent("width")


def test_a_cost_law_shows_prior_beside_posterior() -> None:
    law = result().wall_clock_law
    assert law is not None
    table = law.to_pandas()
    assert list(table["coefficient"]) == [
        "exponent of params",
        "exponent of tokens",
        "d ln seconds / d ln lr",
        "d ln seconds / d ln batch",
    ]
    assert "exponent of params" in str(law) and "from data" in str(law)


def test_seconds_and_flops_at_the_target_lie_within_their_intervals() -> None:
    seen = result().predict(TARGET, BEST)
    config = {**BEST, **TARGET}
    assert seen.config == config
    for value, interval, truth in (
        (seen.loss, seen.loss_interval, loss(config)),
        (seen.cost, seen.cost_interval, flops(config)),
        (seen.seconds, seen.seconds_interval, seconds(config)),
    ):
        assert value is not None and interval is not None
        assert interval[0] < value < interval[1]
        assert interval[0] < truth < interval[1]
        assert value == pytest.approx(truth, rel=0.15)
    assert seen.cost_unit == "flops" and seen.success is None
    assert seen.extrapolation > 10
    assert "flops" in str(seen) and "seconds" in str(seen) and "warning" in str(seen)


def test_without_a_config_the_recommended_one_is_predicted() -> None:
    advice, seen = result().recommend(TARGET), result().predict(TARGET)
    assert seen.config == pytest.approx({**advice.config, **TARGET})
    assert seen.loss == pytest.approx(advice.loss)
    assert seen.loss_interval == pytest.approx(advice.loss_interval)


def test_a_config_may_hold_its_scale_and_an_incomplete_config_is_refused() -> None:
    whole = result().predict(config={**BEST, **TARGET})
    assert whole == result().predict(TARGET, BEST)
    with pytest.raises(SpaceError, match="batch"):
        result().predict(TARGET, {"lr": 3e-3})


def test_seconds_are_allocated_where_the_law_of_loss_is_least() -> None:
    law, timed = result().scaling_law, result().wall_clock_law
    assert law is not None and timed is not None
    best = law.allocation(1e6, timed)
    assert best.unit == "seconds"
    assert set(best.scale) == {"params", "tokens"}
    # the loss falls as N^-0.3 and D^-0.3, time grows as N^0.8 D: both get C^(1 / 1.8)
    for axis in ("params", "tokens"):
        low, high = best.exponent_intervals[axis]
        assert low < 1 / 1.8 < high
    share = 0.8 * best.exponents["params"] + best.exponents["tokens"]
    assert share == pytest.approx(1.0, abs=0.03)
    assert best.loss_interval[0] < best.loss < best.loss_interval[1]
    longer = law.frontier([1e6, 1e7], timed)
    assert longer["loss"].iloc[0] == pytest.approx(best.loss)
    assert longer["loss"].is_monotonic_decreasing
    assert (longer["params"].diff().dropna() > 0).all()


def test_one_size_leaves_the_exponents_to_their_prior() -> None:
    optimizer = Optimizer(SPACE, cost="flops")
    for lr in np.geomspace(1e-3, 1e-2, 6):
        config = {"lr": float(lr), "batch": 64, "params": 1e6, "tokens": 1e7}
        optimizer.tell(config, loss(config), flops(config))
    law = optimizer.result().cost_law
    assert law is not None
    estimate = law.exponent("params")
    assert estimate.mean == pytest.approx(1.0, abs=0.01)
    assert estimate.sd == pytest.approx(0.3, rel=0.01)
    assert optimizer.result().wall_clock_law is None  # nothing was timed
    seen = optimizer.result().predict(TARGET, BEST)
    assert seen.seconds is None and seen.seconds_interval is None
    assert seen.cost_interval is not None
    assert seen.cost_interval[1] / seen.cost_interval[0] > 20  # e^(2 x 1.64 x 0.3 x ln 100 sqrt 2)


def test_costs_in_seconds_are_one_law_under_both_names() -> None:
    optimizer = Optimizer(SPACE, cost="seconds")
    config = {**BEST, "params": 1e6, "tokens": 1e7}
    optimizer.tell(config, loss(config), 12.0)
    found = optimizer.result()
    assert found.wall_clock_law is not None and found.cost_law is not None
    assert found.wall_clock_law.predict(config) == found.cost_law.predict(config)
    assert str(found.predict(config=config)).count("seconds") == 1


@pytest.mark.parametrize(
    ("price", "noise", "runs"),
    [
        (lambda params, tokens: 6.0 * tokens, 0.0, 12),  # an axis that costs nothing
        (lambda params, tokens: 6.0 * tokens, 0.2, 12),
        (lambda params, tokens: 6.0 * tokens, 0.2, 8),
        (lambda params, tokens: 6.0 * tokens * params**-0.1, 0.05, 12),  # or saves
    ],
    ids=["exact", "noisy", "few", "cheaper"],
)
def test_an_axis_that_may_cost_nothing_has_no_allocation(price, noise, runs):
    result = told_sizes(price, noise, runs)
    with pytest.raises(ValueError, match=r"'params' \(cost grows as its power .* more proxies"):
        result.scaling_law.allocation(6e9)
    with pytest.raises(ValueError, match="'params'"):
        result.scaling_law.frontier([6e9, 6e10])
    law = CostLaw.of_seconds(result.models.encoder, result.log.observations)
    with pytest.raises(ValueError, match="'params'"):
        result.scaling_law.allocation(6e9, law)


def test_an_axis_that_costs_little_has_an_allocation_within_reach_of_its_cost():
    best = told_sizes(lambda params, tokens: 6.0 * tokens * params**0.3, 0.0, 12).scaling_law
    found = best.allocation(6.0 * 1e8 * 1e7**0.3)
    spent = 6.0 * found.scale["tokens"] * found.scale["params"] ** 0.3
    assert spent == pytest.approx(found.compute, rel=0.05)


def told_sizes(price, noise: float, runs: int) -> Result:
    rng = np.random.default_rng(0)
    space = {
        "lr": Float(1e-4, 1e-1, log=True),
        "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
        "tokens": Scale(1e6, 1e8, axis=Axis.TOKENS),
    }
    optimizer = Optimizer(space, cost="flops")
    for _ in range(runs):
        params, tokens = 10.0 ** rng.uniform(5, 7), 10.0 ** rng.uniform(6, 8)
        lr = 10.0 ** rng.uniform(-4, -1)
        loss = 1.7 + 400 / params**0.4 + 500 / tokens**0.4 + 0.05 * np.log(lr / 1e-2) ** 2
        cost = price(params, tokens) * np.exp(noise * rng.standard_normal())
        optimizer.tell({"lr": lr, "params": params, "tokens": tokens}, loss, cost, seconds=cost)
    return optimizer.result()
