"""`ask` on random spaces and histories: it never raises, what it says is legal and finite.

Each example tells a short history and asks twice. The histories are what goes wrong in practice:
NaN and infinite losses, constants, repeats, failures only, free and unpriced runs, numbers at both
ends of the floats, pending trials. Together the tests draw 560 spaces and histories a run.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from hpo.optimizer.ask_tell import Optimizer
from hpo.space import Axis, Categorical, Fidelity, Float, Int, Parameter, Scale
from hpo.trials import Cause, Status, Trial
from hpo.trials.budget import Budget

pytestmark = pytest.mark.engine

FAST = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}

floats = st.one_of(
    st.builds(lambda a, w: Float(a, a + w), st.floats(-1e3, 1e3), st.floats(1e-3, 1e6)),
    st.builds(lambda a, r: Float(a, a * r, log=True), st.floats(1e-8, 10), st.floats(1.1, 1e6)),
    st.just(Float(0.8, 0.9999, logit=True)),
    st.just(Float(0.5, 0.5)),
    st.builds(lambda c, s: Float(center=c, spread=s), st.floats(-10, 10), st.floats(0.01, 10)),
    st.builds(
        lambda c, s: Float(center=c, spread=s, log=True), st.floats(1e-6, 10), st.floats(0.1, 3)
    ),
    st.builds(lambda c: Float(center=c, spread=0.5, logit=True), st.floats(0.01, 0.99)),
)
integers = st.one_of(
    st.builds(lambda a, w: Int(a, a + w), st.integers(-50, 50), st.integers(0, 200)),
    st.builds(lambda a, r: Int(a, a * r, log=True), st.integers(1, 9), st.integers(1, 500)),
    st.just(Int(8, 64, multiple_of=8)),
    st.just(Int(1, center=16, spread=1.0, log=True)),
)
choices = st.builds(
    lambda k, ordered: Categorical([f"choice {i}" for i in range(k)], ordered=ordered),
    st.integers(1, 5),
    st.booleans(),
)
scales = st.builds(
    lambda low, r, axis: Scale(low, low * r, axis=axis),
    st.floats(1.0, 1e6),
    st.floats(1.5, 1e4),
    st.sampled_from(Axis),
)


@st.composite
def plain_spaces(draw: st.DrawFn) -> dict[str, Parameter]:
    """One to four parameters of any kind, perhaps a conditional group and a fidelity."""
    kinds = draw(st.lists(st.one_of(floats, integers, choices), min_size=1, max_size=4))
    space: dict[str, Parameter] = {f"p{i}": kind for i, kind in enumerate(kinds)}
    if draw(st.integers(0, 3)) == 0:
        space["switch"] = Categorical(["on", "off", "auto"])
        space["child"] = Float(1e-3, 1.0, log=True, when=("switch", ["on", "auto"]))
        space["count"] = Int(1, 5, when=("switch", ["on"]))
    if draw(st.integers(0, 4)) == 0:
        space["epochs"] = Fidelity(1, 27)
    return space


@st.composite
def scale_spaces(draw: st.DrawFn) -> dict[str, Parameter]:
    """One or two scale axes beside one or two other parameters."""
    kinds = draw(st.lists(st.one_of(floats, integers, choices), min_size=1, max_size=2))
    space: dict[str, Parameter] = {f"p{i}": kind for i, kind in enumerate(kinds)}
    axes = draw(st.lists(scales, min_size=1, max_size=2))
    return space | {f"scale{i}": axis for i, axis in enumerate(axes)}


extreme_losses = st.one_of(
    st.just(0.0),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.floats(-1.0, 1.0),
    st.builds(lambda s, e: s * 10.0**e, st.sampled_from([-1.0, 1.0]), st.integers(-300, 300)),
)
extreme_costs = st.one_of(
    st.none(), st.just(0.0), st.builds(lambda e: 10.0**e, st.floats(-6, 6)), st.just(1e300)
)
outcomes = st.one_of(
    st.tuples(extreme_losses, extreme_costs, st.none()),
    st.tuples(st.none(), extreme_costs, st.sampled_from(Cause)),
)


def histories(result: st.SearchStrategy[Any], longest: int) -> st.SearchStrategy[list[Any]]:
    """One to `longest` results, every length equally likely (plain lists are mostly short)."""
    return st.integers(1, longest).flatmap(lambda n: st.lists(result, min_size=n, max_size=n))


def told(
    space: dict[str, Parameter],
    history: list[tuple[float | None, float | None, Cause | None]],
    seed: int,
    **arguments: Any,
) -> Optimizer:
    """An optimizer told `history` at random configs of `space`, not all of them distinct."""
    optimizer = Optimizer(space, seed=seed, **arguments)
    rng = np.random.default_rng(seed)
    encoder = optimizer.encoder
    U = rng.random((len(history), len(encoder.columns.kinds)))
    configs = encoder.decode(encoder.from_unit(U, (encoder.lower, encoder.upper)))
    for order, (loss, cost, cause) in enumerate(history):
        config = configs[int(rng.integers(order + 1))] if rng.random() < 0.2 else configs[order]
        # Adopting past the start points makes every later ask one of the model's.
        trial = Trial(optimizer.log.next_number, config, order + 20, None)
        optimizer.add_pending(trial)
        optimizer.tell(trial, loss, cost, failed=cause)
    return optimizer


def ask_and_check(optimizer: Optimizer, asks: int = 2) -> list[Trial]:
    """Ask without telling, and check every trial."""
    trials = [optimizer.ask() for _ in range(asks)]
    for trial in trials:
        assert optimizer.space.canonical(trial.config) == trial.config
        belief = trial.prediction  # a belief refuses numbers that are not finite
        assert belief is not None
        assert belief.reason is not None and "\n" not in str(belief.reason)
        if belief.loss is not None and belief.loss_interval is not None:
            assert belief.loss_interval[0] <= belief.loss <= belief.loss_interval[1]
        if belief.cost is not None and belief.cost_interval is not None:
            assert belief.cost_interval[0] <= belief.cost <= belief.cost_interval[1]
    return trials


def recommend_and_check(optimizer: Optimizer) -> None:
    """A recommendation and a best trial can be had from anything that was completed."""
    if not any(o.status is Status.COMPLETED for o in optimizer.log.observations):
        with pytest.raises(ValueError, match="no trial was completed"):
            optimizer.recommend()
        return
    answer = optimizer.recommend()
    assert optimizer.space.canonical(answer.config, extrapolate=True) == answer.config
    assert all(math.isfinite(v) for v in (answer.loss, *answer.loss_interval))
    assert math.isfinite(optimizer.result().best.expected_loss)


def assert_undegraded(trials: list[Trial]) -> None:
    for trial in trials:
        assert trial.prediction is not None
        assert trial.prediction.fallbacks == 0 and not trial.prediction.degraded


@settings(max_examples=170, **FAST)
@given(
    plain_spaces(),
    histories(outcomes, 12),
    st.integers(0, 99),
    st.sampled_from([None, "seconds"]),
    st.sampled_from([None, Budget(cost=1e-3), Budget(cost=1e9, per_trial=10.0)]),
    st.sampled_from(["minimize", "maximize"]),
    st.sampled_from(["auto", "quantile"]),
)
@example(  # the best two are a subnormal number apart, once divided by the worst
    {"x": Float(0, 1)},
    [(0.0, None, None), (1e-38, None, None), (1e271, None, None)],
    0,
    None,
    None,
    "minimize",
    "auto",
)
@example(  # all draws of the trees agree
    {"x": Float(0, 1)},
    [(0.0, None, None)] * 10 + [(-1e27, None, None)],
    97,
    None,
    None,
    "maximize",
    "quantile",
)
def test_no_history_of_a_plain_space_breaks_ask(
    space, history, seed, cost, budget, direction, surrogate
):
    optimizer = told(
        space, history, seed, cost=cost, budget=budget, direction=direction, surrogate=surrogate
    )
    ask_and_check(optimizer)


@settings(max_examples=30, **FAST)
@given(st.one_of(plain_spaces(), scale_spaces()), histories(outcomes, 6), st.integers(0, 99))
def test_no_history_breaks_recommend(space, history, seed):
    recommend_and_check(told(space, history, seed, cost="seconds"))


@settings(max_examples=60, **FAST)
@given(scale_spaces(), histories(outcomes, 8), st.integers(0, 99))
@example(  # exp(ln low) lies below low, across a tie of its twelfth digit
    {"p0": Float(0.0, 1.0), "scale0": Scale(455688.2288505003, 35087993.62148853)},
    [(0.0, None, None)],
    1,
)
def test_no_history_of_a_scale_space_breaks_ask(space, history, seed):
    ask_and_check(told(space, history, seed, cost="flops"))


@settings(max_examples=140, **FAST)
@given(
    plain_spaces(),
    histories(st.tuples(st.floats(-10, 10), st.floats(0.1, 100)), 10),
    st.integers(0, 99),
    st.sampled_from([None, "seconds"]),
)
def test_no_model_falls_back_on_a_well_posed_history(space, results, seed, cost):
    history = [(loss, price, None) for loss, price in results]
    assert_undegraded(ask_and_check(told(space, history, seed, cost=cost)))


@settings(max_examples=40, **FAST)
@given(
    scale_spaces(),
    histories(st.tuples(st.floats(0.5, 10), st.floats(0.1, 100)), 8),
    st.integers(0, 99),
)
def test_no_model_falls_back_on_a_well_posed_history_over_scales(space, results, seed):
    history = [(loss, price, None) for loss, price in results]
    assert_undegraded(ask_and_check(told(space, history, seed, cost="flops")))


@settings(max_examples=30, **FAST)
@given(plain_spaces(), st.floats(-1e6, 1e6), st.integers(0, 99), st.booleans())
def test_forty_identical_observations_are_well_posed(space, loss, seed, priced):
    optimizer = Optimizer(space, seed=seed, cost="seconds" if priced else None)
    config = optimizer.propose().config
    for index in range(40):
        trial = Trial(index, config, index, None)
        optimizer.add_pending(trial)
        optimizer.tell(trial, loss, cost=1.0 if priced else None)
    assert_undegraded(ask_and_check(optimizer))


@settings(max_examples=40, **FAST)
@given(
    st.one_of(plain_spaces(), scale_spaces()),
    st.floats(-1e6, 1e6),
    st.integers(1, 12),
    st.integers(0, 99),
)
def test_constant_losses_are_well_posed(space, loss, count, seed):
    assert_undegraded(ask_and_check(told(space, [(loss, 1.0, None)] * count, seed, cost="seconds")))


@settings(max_examples=30, **FAST)
@given(
    st.one_of(plain_spaces(), scale_spaces()),
    histories(st.sampled_from(Cause), 12),
    st.integers(0, 99),
)
def test_nothing_but_failures_leaves_ask_exploring(space, causes, seed):
    history = [(None, 1.0, cause) for cause in causes]
    trials = ask_and_check(told(space, history, seed))
    assert_undegraded(trials)
    assert all(trial.prediction.loss is None for trial in trials)


@settings(max_examples=20, **FAST)
@given(histories(st.floats(-6, 6), 12), st.integers(0, 99))
def test_costs_over_twelve_orders_of_magnitude_are_well_posed(exponents, seed):
    space: dict[str, Parameter] = {"x": Float(0, 1), "size": Scale(1.0, 1e6)}
    rng = np.random.default_rng(seed)
    history = [(float(rng.random()), 10.0**e, None) for e in exponents]
    assert_undegraded(ask_and_check(told(space, history, seed, cost="flops")))
