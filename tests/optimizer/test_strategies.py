"""Strategies: cost levels, the trust region, replicates, and whose turn it is."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpo.models.fitted import Models
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.surrogate_selector import SurrogateChoice, SurrogateSelector
from hpo.optimizer.ask import Ask, CostLimits, Turn, carry_out, whose_turn
from hpo.optimizer.ask_tell import Optimizer
from hpo.optimizer.strategies import STRATEGIES
from hpo.optimizer.strategies.search_region import region_scale
from hpo.space import Axis, Categorical, Float, Int, Parameter, Scale
from hpo.trials import ReasonKind, Trial
from hpo.trials.budget import Budget
from surrogates.numerics import radical_inverse

SQUARE: dict[str, Parameter] = {"x": Float(0, 1), "y": Float(0, 1)}


def bowl(config: dict[str, Any]) -> float:
    return float((config["x"] - 0.3) ** 2 + (config["y"] - 0.7) ** 2)


def stratified(index: int) -> float:
    """The cost level of the ask of this index, as a place in (0, 1)."""
    return radical_inverse(index + 1, 2)


def kind_of(trial: Trial) -> ReasonKind:
    assert trial.prediction is not None and trial.prediction.reason is not None
    return trial.prediction.reason.kind


def warp_of(optimizer: Optimizer, choice: SurrogateChoice = SurrogateChoice.GP) -> InputWarp:
    models = Models(optimizer.encoder)
    models.sync(optimizer.log)
    return InputWarp(models, SurrogateSelector(models, choice))


def ask_of(optimizer: Optimizer, turn: Turn, *, pending: int = 0, seed: int = 0) -> Ask:
    """An ask in which the first runs count as pending."""
    warp = warp_of(optimizer)
    told = optimizer.encoder.encode([o.config for o in optimizer.log.observations])
    return Ask(
        warp=warp,
        turn=turn,
        index=3,
        pending=told[:pending],
        taken=told,
        pool=None,
        limits=CostLimits(math.log(4.0), 0.5),
        cost_aware=True,
        target=None,
        start=None,
        objectives=None,
        rng=np.random.default_rng(seed),
    )


def repeats(optimizer: Optimizer) -> int:
    """Asked trials whose config had been asked before."""
    keys = [optimizer.space.key(trial.config) for trial in optimizer.log.trials]
    return len(keys) - len(set(keys))


# Cost levels


def test_levels_are_the_sequence_of_van_der_corput():
    first = [stratified(index) for index in range(7)]
    assert first == [1 / 2, 1 / 4, 3 / 4, 1 / 8, 5 / 8, 3 / 8, 7 / 8]


@pytest.mark.parametrize("power", [1, 3, 6])
def test_every_power_of_two_of_levels_has_one_in_each_stratum(power):
    count = 2**power
    for start in (0, count, 5 * count):
        # The sequence proper starts at index -1 here, with the level 0.
        levels = [stratified(index - 1) for index in range(start + 1, start + count)]
        strata = sorted(int(level * count) for level in levels)
        missing = set(range(count)) - set(strata)
        assert len(missing) == 1 and len(set(strata)) == count - 1


@given(st.integers(0, 10**9))
def test_levels_lie_inside_the_unit_interval(index):
    assert 0.0 < stratified(index) < 1.0


def price(config: dict[str, Any]) -> float:
    return float(100.0 ** config["x"])


def trade(config: dict[str, Any]) -> float:
    """More expensive is better, and the best y moves with cost."""
    return 1.0 - config["x"] + (config["y"] - 0.5 - 0.3 * config["x"]) ** 2


def priced_run(asks: int, **arguments: Any) -> list[Trial]:
    optimizer = Optimizer(SQUARE, cost="seconds", **arguments)
    trials = []
    for _ in range(asks):
        trials.append(optimizer.ask())
        optimizer.tell(trials[-1], trade(trials[-1].config), price(trials[-1].config))
    return trials


@pytest.fixture(scope="module")
def priced() -> list[Trial]:
    """One search of 60 asks that several tests look at."""
    return priced_run(60)


def test_asks_keep_walking_the_whole_front(priced):
    """Late asks still meet every third of the levels, which begin a fifth up the range."""
    late = [math.log(price(trial.config), 100.0) for trial in priced[28:]]
    counts, _ = np.histogram(late, bins=[0, 0.2 + 0.8 / 3, 0.2 + 1.6 / 3, 1 + 1e-9])
    assert counts.min() >= 6  # of 32


def test_the_reason_names_the_cost_level_and_the_ask_costs_about_as_much(priced):
    walked = [t for t in priced[6:] if kind_of(t) is ReasonKind.IMPROVE_FRONT]
    assert len(walked) > 40
    for trial in walked:
        assert trial.prediction.reason.surrogate in ("log", "winsor", "raw")
        assert price(trial.config) <= 2.0 * trial.prediction.reason.cost_level


def test_levels_end_at_the_cap():
    trials = priced_run(40, budget=Budget(per_trial=20.0))
    assert max(price(trial.config) for trial in trials[8:]) <= 20.5


def test_without_a_declared_cost_the_price_is_ignored():
    trials = {}
    for told in (True, False):
        optimizer = Optimizer(SQUARE)
        for _ in range(15):
            trial = optimizer.ask()
            optimizer.tell(trial, trade(trial.config), price(trial.config) if told else None)
        trials[told] = [trial.config for trial in optimizer.log.trials]
    assert trials[True] == trials[False]


# The region


def test_the_region_keeps_its_size_before_there_is_news():
    assert region_scale(np.zeros(0), 2) == 1.0
    assert region_scale(np.array([3.0]), 2) == 1.0


def test_three_improvements_in_a_row_double_the_region_once():
    falling = np.array([10.0, 8.0, 6.0, 4.0])
    assert region_scale(falling[:3], 2) == 1.0
    assert region_scale(falling, 2) == 2.0
    assert region_scale(np.arange(20.0, 0.0, -1.0), 2) == 2.0  # and no further


@pytest.mark.parametrize(("columns", "patience"), [(1, 4), (4, 4), (9, 9)])
def test_the_region_halves_after_as_many_failures_as_there_are_columns(columns, patience):
    losses = np.concatenate([[0.0], np.ones(patience)])
    assert region_scale(losses[:-1], columns) == 1.0
    assert region_scale(losses, columns) == 0.5
    assert region_scale(np.concatenate([losses, np.ones(patience)]), columns) == 0.25


def test_the_region_never_vanishes_and_grows_again():
    stuck = np.concatenate([[0.0], np.ones(200)])
    assert region_scale(stuck, 2) == 2.0**-6
    better = np.concatenate([stuck, [-1.0, -2.0, -3.0]])
    assert region_scale(better, 2) == 2.0**-5


def test_an_improvement_lost_in_the_spread_is_none():
    losses = np.concatenate([np.linspace(0.0, -1e-4, 5), np.ones(20)])
    assert region_scale(losses[:5], 4) == 2.0  # among themselves they fall
    assert region_scale(losses, 4) < 1.0


@given(st.lists(st.floats(-1e3, 1e3), max_size=60), st.integers(1, 12), st.integers(-8, 8))
def test_the_region_does_not_depend_on_the_unit_of_the_loss(losses, columns, power):
    y = np.round(np.array(losses), 3)
    assert region_scale(y * 2.0**power, columns) == region_scale(y, columns)


# Repeats


def noisy_run(asks: int, sd: float, seed: int = 0, **arguments: Any) -> Optimizer:
    optimizer = Optimizer(
        {"a": Int(1, 4), "c": Categorical(["p", "q", "r"])}, seed=seed, **arguments
    )
    rng = np.random.default_rng(seed)
    for _ in range(asks):
        trial = optimizer.ask()
        loss = 0.3 * trial.config["a"] + 0.2 * "pqr".index(trial.config["c"])
        optimizer.tell(trial, loss + sd * rng.standard_normal(), 1.0 + trial.config["a"])
    return optimizer


@pytest.mark.parametrize("cost", [None, "seconds"])
def test_a_noisy_function_makes_good_configs_be_repeated(cost):
    counts = 0
    for seed in range(3):
        optimizer = noisy_run(24, 0.3, seed, cost=cost)
        repeated = [t for t in optimizer.log.trials if kind_of(t) is ReasonKind.REPLICATE]
        counts += len(repeated)
        for trial in repeated:
            earlier = optimizer.log.trials[: trial.number]
            assert trial.config in [other.config for other in earlier]
    assert counts >= 6


def test_repeats_go_to_the_better_half():
    good = bad = 0
    for seed in range(3):
        for trial in noisy_run(24, 0.3, seed).log.trials:
            if kind_of(trial) is ReasonKind.REPLICATE:
                loss = 0.3 * trial.config["a"] + 0.2 * "pqr".index(trial.config["c"])
                good, bad = (good + 1, bad) if loss <= 0.8 else (good, bad + 1)
    assert good > 3 * bad


@pytest.mark.parametrize("cost", [None, "seconds"])
def test_a_deterministic_smooth_function_is_never_repeated(cost):
    for seed in range(3):
        optimizer = Optimizer(SQUARE, seed=seed, cost=cost)
        for _ in range(25):
            trial = optimizer.ask()
            optimizer.tell(trial, bowl(trial.config), price(trial.config))
        assert repeats(optimizer) == 0


def test_a_deterministic_discrete_function_is_not_repeated_while_anything_is_left():
    for seed in range(5):
        assert repeats(noisy_run(12, 0.0, seed)) == 0


def test_a_rough_deterministic_function_is_hardly_repeated_though_it_looks_noisy():
    optimizer = Optimizer({"x": Float(0, 1)})
    for _ in range(40):
        trial = optimizer.ask()
        rough = math.sin(1e4 * trial.config["x"])  # no model follows it
        optimizer.tell(trial, (trial.config["x"] - 0.4) ** 2 + 0.3 * rough)
    assert repeats(optimizer) <= 2


def test_nothing_is_repeated_while_a_trial_is_pending():
    optimizer = noisy_run(20, 0.3)
    optimizer.ask()
    assert not any(kind_of(optimizer.ask()) is ReasonKind.REPLICATE for _ in range(3))


# Whose turn it is


def test_a_suggestion_is_a_function_of_its_ask():
    optimizer = noisy_run(10, 0.1)

    def once(seed: int) -> np.ndarray:
        ask = ask_of(optimizer, Turn.FRONT, pending=2, seed=seed)
        return carry_out(STRATEGIES[ask.turn](ask), ask).row

    np.testing.assert_array_equal(once(1), once(1))
    assert np.array_equal(optimizer.encoder.snap(once(1)[None])[0], once(1))


def test_exploring_goes_where_nothing_was_tried_and_nothing_failed():
    optimizer = Optimizer(SQUARE)
    for x, y in np.random.default_rng(0).random((12, 2)) * [0.5, 1.0]:
        optimizer.tell({"x": x, "y": y}, failed="oom")
    ask = ask_of(optimizer, Turn.EXPLORE, seed=1)
    suggestion = carry_out(STRATEGIES[ask.turn](ask), ask)
    assert suggestion.row[0] > 0.7
    assert suggestion.reason.kind is ReasonKind.EXPLORE
    assert not suggestion.reason.repeated


def test_start_points_come_first_then_exploring_until_a_run_was_completed():
    empty, told = warp_of(Optimizer(SQUARE)), warp_of(noisy_run(5, 0.1))

    def turn(warp: InputWarp, *, starting: bool = False, target: bool = False) -> Turn:
        return whose_turn(warp, index=1, starting=starting, has_target=target, only_target=False)

    assert turn(empty, starting=True) is turn(told, starting=True) is Turn.START
    assert turn(empty) is turn(empty, target=True) is Turn.EXPLORE
    assert turn(told) is Turn.FRONT


def test_with_a_target_every_other_ask_walks_the_front_unless_only_the_target_counts():
    warp = warp_of(noisy_run(5, 0.1))

    def turns(only: bool) -> list[Turn]:
        return [
            whose_turn(warp, index=i, starting=False, has_target=True, only_target=only)
            for i in range(4)
        ]

    assert turns(only=False) == [Turn.FRONT, Turn.TARGET, Turn.FRONT, Turn.TARGET]
    assert turns(only=True) == 4 * [Turn.TARGET]


def test_the_forest_answers_where_it_was_named():
    warp = warp_of(noisy_run(5, 0.1), SurrogateChoice.QUANTILE)
    for index in range(4):
        turn = whose_turn(warp, index=index, starting=False, has_target=False, only_target=False)
        assert turn is Turn.FOREST


def test_every_turn_has_a_strategy():
    assert set(STRATEGIES) == set(Turn)


# Scale axes


def test_scales_are_explored_along_the_drift_of_the_optimum():
    """In a scale space the asks visit small and large sizes, and lr falls as size grows."""
    space: dict[str, Parameter] = {
        "lr": Float(1e-4, 1e-1, log=True),
        "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    }
    optimizer = Optimizer(space, cost="flops")
    for _ in range(25):
        config = (trial := optimizer.ask()).config
        miss = math.log10(config["lr"]) + 1.5 + 0.5 * math.log10(config["params"] / 1e5)
        optimizer.tell(trial, 2.0 + 30 / config["params"] ** 0.3 + 0.2 * miss**2, config["params"])
    late = [trial.config for trial in optimizer.log.trials[10:]]
    sizes = np.log([config["params"] for config in late])
    rates = np.log([config["lr"] for config in late])
    assert np.ptp(sizes) > math.log(20.0)
    slope = np.polyfit(sizes, rates, 1)[0]
    assert -0.8 < slope < -0.25  # the truth is -0.5


# Told runs outside the space: branches of a run, runs of a table


def told_outside(count: int) -> Optimizer:
    """Noisy runs inside the space, each with two much smaller and cheaper ones."""
    space: dict[str, Parameter] = {
        "lr": Float(1e-3, 1e-1, log=True),
        "tokens": Scale(1e6, 2e6, axis=Axis.TOKENS),
    }
    optimizer = Optimizer(space, cost="flops", target={"tokens": 1e7}, seed=1)
    rng = np.random.default_rng(0)
    for _ in range(count):
        trial = optimizer.ask()
        for share in (0.1, 0.3, 1.0):
            config = {**trial.config, "tokens": share * trial.config["tokens"]}
            loss = 30 * config["tokens"] ** -0.25 + 0.1 * math.log(config["lr"] / 1e-2) ** 2
            told = trial if share == 1.0 else config
            optimizer.tell(told, loss + 0.05 * rng.standard_normal(), cost=config["tokens"])
    return optimizer


def test_a_told_run_outside_the_space_is_not_repeated_and_sets_no_cost_level():
    optimizer = told_outside(9)
    for trial in optimizer.log.trials:
        assert 1e6 <= trial.config["tokens"] <= 2e6
        reason = trial.prediction.reason if trial.prediction is not None else None
        if reason is not None and reason.cost_level is not None:
            assert reason.cost_level > 0.9e6
    assert ReasonKind.REPLICATE in {kind_of(trial) for trial in optimizer.log.trials}
