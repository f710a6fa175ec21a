"""Who models the loss: both surrogates by turns as they deserve, one by name, and at the edges."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from hpo import Budget, Categorical, Float, Int, Optimizer, Scale, SpaceError, optimize
from hpo.models.surrogate_selector import (
    FULL,
    MARGIN,
    SurrogateChoice,
    SurrogateSelector,
    margin,
    normal_crps,
)
from hpo.space import Parameter, SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials import Trial

SMOOTH: dict[str, Parameter] = {"x": Float(0, 1), "y": Float(0, 1)}
CODES: dict[str, Parameter] = {f"c{i}": Categorical(list("abcd")) for i in range(6)}
MIXED: dict[str, Parameter] = {
    "lr": Float(1e-4, 1.0, log=True),
    "depth": Int(1, 8),
    "kind": Categorical(["a", "b", "c"]),
    "beta": Float(0.9, 0.999, logit=True, when=("kind", ["a", "b"])),
}


def bowl(config: dict[str, Any]) -> float:
    return (config["x"] - 0.3) ** 2 + (config["y"] - 0.6) ** 2


def wild(config: dict[str, Any]) -> float:
    """Calm where c0 is a, b or c; where it is d, draws that differ by factors."""
    code = int.from_bytes(str(sorted(config.items())).encode(), "little")
    noise = np.random.default_rng(code % 2**63).standard_normal()
    calm = 0.01 * noise + 0.1 * (config["c1"] == "a")
    return float(calm if config["c0"] != "d" else 1.0 + abs(noise) ** 3)


def run(
    space: dict[str, Parameter],
    loss: Callable[[dict[str, Any]], float],
    asks: int,
    **arguments: Any,
) -> tuple[Optimizer, list[Trial]]:
    optimizer, trials = Optimizer(space, seed=0, **arguments), []
    for _ in range(asks):
        trials.append(optimizer.ask())
        optimizer.tell(trials[-1], loss(trials[-1].config), cost=1.0)
    return optimizer, trials


def told(optimizer: Optimizer, configs: list[dict[str, Any]], losses: list[float]) -> None:
    for config, loss in zip(configs, losses, strict=True):
        optimizer.tell(config, loss)


def test_a_smooth_space_is_asked_as_by_the_process_alone():
    _, by_turns = run(SMOOTH, bowl, 34)
    _, alone = run(SMOOTH, bowl, 34, surrogate="gp")
    assert [t.config for t in by_turns] == [t.config for t in alone]
    assert not any("trees" in t.prediction.reason for t in by_turns)


@pytest.mark.parametrize(
    "space, expected",
    [
        (SMOOTH, MARGIN),
        (MIXED, MARGIN),  # three of four
        ({**CODES, "depth": Int(1, 4)}, -0.5 * FULL),  # three steps, nothing between them
        ({**CODES, **SMOOTH, "depth": Int(1, 64, log=False)}, MARGIN / 1.5 - 0.5 * FULL / 3.0),
        ({**CODES, "x": Float(0, 1), "fixed": Float(0.5, 0.5)}, MARGIN * 2 / 7 - FULL * 5 / 14),
        ({"fixed": Float(0.5, 0.5)}, -0.5 * FULL),
    ],
    ids=["smooth", "mixed", "codes", "a third", "one of seven", "nothing moves"],
)
def test_the_process_has_an_advantage_as_far_as_columns_are_smooth(space, expected):
    assert margin(Encoder(SearchSpace(space))) == pytest.approx(expected)


def test_codes_are_shared_evenly_until_one_forecasts_better_and_trees_take_over_if_it_is_they():
    optimizer = Optimizer(CODES, seed=0)
    members = optimizer._views.declared.selector
    assert members.share == 0.5
    assert sum(members.uses_forest(index) for index in range(100)) == 50
    members._scores = np.array([1.0, 0.75])
    assert members.share == 1.0
    members._scores = np.array([0.75, 1.0])
    assert members.share == 0.0


def random_configs(space: dict[str, Parameter], count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [{name: str(rng.choice(p.choices)) for name, p in space.items()} for _ in range(count)]


def test_trees_speak_and_say_so_where_they_foresee_better():
    optimizer = Optimizer(CODES, seed=0)
    configs = random_configs(CODES, 60)
    told(optimizer, configs, [wild(config) for config in configs])
    reasons = []
    for _ in range(4):
        trial = optimizer.ask()
        reasons.append(trial.prediction.reason)
        optimizer.tell(trial, wild(trial.config))
    share = optimizer._views.declared.selector.share
    assert share > 0.5
    assert any(reason.startswith(f"quantile trees, who answer {share:.0%}") for reason in reasons)


def test_an_optimizer_rebuilt_from_the_log_gives_the_word_to_the_same_member():
    optimizer = Optimizer(CODES, seed=0)
    configs = random_configs(CODES, 60)
    told(optimizer, configs, [wild(config) for config in configs])
    for _ in range(4):
        trial = optimizer.ask()
        optimizer.tell(trial, wild(trial.config))
    again = Optimizer(CODES, seed=0)
    for trial in optimizer.log.trials:
        again.add_pending(trial)
    for observation in optimizer.log.observations:
        again.record(observation)
    assert again.propose() == optimizer.propose()


@pytest.mark.parametrize("workers", [1, 3])
def test_a_study_of_trees_replays_to_the_last_bit(workers):
    def loss(config: dict[str, Any]) -> float:
        return abs(np.log10(config["lr"]) + 2.0) + 0.1 * config["depth"] + (config["kind"] == "a")

    optimizer, running = Optimizer(MIXED, seed=3, surrogate="quantile"), []
    for _ in range(24):
        running.append(optimizer.ask())
        while len(running) >= workers:
            trial = running.pop(0)
            optimizer.tell(trial, loss(trial.config))
    again = Optimizer(MIXED, seed=3, surrogate="quantile")
    for trial in optimizer.log.trials:
        again.add_pending(trial)
    for observation in optimizer.log.observations:
        again.record(observation)
    assert again.propose() == optimizer.propose()
    last = optimizer.log.trials[-1].prediction
    assert "quantile trees, as told" in last.reason
    low, high = last.loss_interval
    assert low <= last.loss <= high


def test_trees_find_the_good_codes():
    optimizer, _ = run(
        CODES, lambda c: float(sum(c[n] != "b" for n in CODES)), 40, surrogate="quantile"
    )
    assert min(o.loss for o in optimizer.log.observations) <= 2.0


def test_trees_look_at_cost_and_stay_below_its_cap():
    def loss(config: dict[str, Any]) -> tuple[float, float]:
        return 1.0 / config["width"] + (config["x"] - 0.5) ** 2, config["width"] / 8.0

    space: dict[str, Parameter] = {"x": Float(0, 1), "width": Int(8, 512, log=True)}
    optimizer = Optimizer(
        space, cost="seconds", budget=Budget(cost=1e4, per_trial=20.0), surrogate="quantile"
    )
    costs = []
    for _ in range(32):
        trial = optimizer.ask()
        value, cost = loss(trial.config)
        costs.append(cost)
        optimizer.tell(trial, value, cost)
    assert np.mean(np.array(costs[16:]) <= 20.0) > 0.7
    assert np.ptp(np.log(costs[16:])) > 1.0  # the front is walked


@pytest.mark.parametrize("surrogate", ["auto", "gp", "quantile"])
@pytest.mark.parametrize(
    "losses",
    [[1.0, 2.0, 3.0], [5.0] * 14, [None] * 5, [1.0, 1e308, -1e308, 0.0]],
    ids=["three", "constant", "all failed", "extreme"],
)
def test_odd_histories_are_answered(surrogate, losses):
    optimizer = Optimizer(MIXED, seed=1, surrogate=surrogate)
    for loss in losses:
        trial = optimizer.ask()
        optimizer.tell(trial, loss, failed="oom" if loss is None else None)
    for _ in range(12):
        trial = optimizer.ask()
        assert trial.prediction.fallbacks == 0
        optimizer.tell(trial, losses[-1], failed="oom" if losses[-1] is None else None)


@pytest.mark.parametrize("surrogate", ["auto", "quantile"])
def test_repeated_configs_and_categories_never_seen_are_no_obstacle(surrogate):
    optimizer = Optimizer(MIXED, seed=1, surrogate=surrogate)
    config = {"lr": 0.01, "depth": 3, "kind": "c"}
    for i in range(16):  # kinds a and b are never seen
        optimizer.tell(config, 1.0 + 0.01 * i)
    trial = optimizer.ask()
    assert np.isfinite(trial.prediction.loss)
    assert trial.config != config


def test_unknown_surrogates_and_trees_on_scales_are_refused():
    with pytest.raises(ValueError, match="`surrogate` must be one of"):
        Optimizer(SMOOTH, surrogate="forest")
    sized: dict[str, Parameter] = {"x": Float(0, 1), "n": Scale(1, 100)}
    with pytest.raises(SpaceError, match="trees do not extrapolate"):
        Optimizer(sized, surrogate="quantile")
    with pytest.raises(ValueError, match="`surrogate` must be one of"):
        optimize(lambda c, ctx: 0.0, SMOOTH, budget=Budget(trials=1), surrogate="forest")
    assert SurrogateChoice.of("gp") is SurrogateChoice.GP


def test_optimize_hands_the_choice_on():
    result = optimize(
        lambda config, ctx: bowl(config), SMOOTH, budget=Budget(trials=14), surrogate="quantile"
    )
    assert "quantile trees, as told" in str(result.study.trials[-1].user_attrs)


def test_the_normal_score_is_the_integral_of_its_pinball_losses():
    from scipy.special import ndtri

    tau = (np.arange(20000) + 0.5) / 20000
    q = 1.0 + 2.0 * ndtri(tau)
    for y in (-3.0, 1.0, 4.0):
        pinball = np.where(y >= q, tau, tau - 1.0) * (y - q)
        found = normal_crps(np.array([y]), np.array([1.0]), np.array([2.0]))
        assert found[0] == pytest.approx(2.0 * pinball.mean(), rel=1e-3)


def test_intervals_follow_the_residuals_of_the_study():
    """A wild space: the belief's 90 % interval covers nine of ten of what then happens."""
    optimizer = Optimizer(SMOOTH, seed=0, surrogate="gp")
    rng = np.random.default_rng(0)
    hits = []
    for _ in range(60):
        trial = optimizer.ask()
        loss = bowl(trial.config) + 0.2 * float(rng.standard_t(2))
        if trial.prediction.loss_interval is not None and len(optimizer.log.observations) > 15:
            low, high = trial.prediction.loss_interval
            hits.append(low <= loss <= high)
        optimizer.tell(trial, loss)
    assert np.mean(hits) == pytest.approx(0.9, abs=0.09)


def test_members_keep_no_state_beyond_the_log():
    optimizer, _ = run(SMOOTH, bowl, 30)
    fresh = SurrogateSelector(optimizer._views.declared.models, SurrogateChoice.AUTO)
    fresh.sync()
    optimizer._views.declared.selector.sync()
    assert fresh.share == optimizer._views.declared.selector.share
    assert fresh._level.level == optimizer._views.declared.selector._level.level


def test_blocks_are_forgotten_alike_by_members_who_saw_them_and_by_those_who_did_not(monkeypatch):
    monkeypatch.setattr("hpo.models.surrogate_selector.WINDOW", 2)
    optimizer = Optimizer(CODES, seed=0)
    lived = optimizer._views.declared.selector
    configs = random_configs(CODES, 80)
    for config in configs:
        optimizer.tell(config, wild(config))
        optimizer._views.declared.models.sync(optimizer.log)
        lived.sync()
    fresh = SurrogateSelector(optimizer._views.declared.models, SurrogateChoice.AUTO)
    fresh.sync()
    assert list(fresh._blocks) == list(lived._blocks) == [57, 77]
    assert fresh.share == lived.share
    assert fresh._level.level == lived._level.level


def test_trees_learn_from_the_last_report_of_every_run_under_a_scheduler():
    from hpo import ASHA, Fidelity
    from hpo.optimizer.multi_fidelity import StagedOptimizer

    space: dict[str, Parameter] = {
        "x": Float(0, 1),
        "kind": Categorical(["a", "b"]),
        "epochs": Fidelity(1, 9),
    }
    engine = StagedOptimizer(Optimizer(space, surrogate="quantile", seed=0), ASHA(), seed=0)
    asked = []
    for _ in range(28):
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        level = trial.assignment.level
        loss = (trial.config["x"] - 0.3) ** 2 + (trial.config["kind"] == "a") + 1.0 / level
        engine.tell(trial, loss, cost=float(level))
        asked.append(trial)
    engine.optimizer.propose()  # takes in the last result
    X, _ = engine.optimizer._views.declared.selector.known()
    assert len(X) == len({tuple(trial.config.values()) for trial in asked})
    assert np.all(X[:, engine.optimizer.encoder.columns.fidelity[0]] == 1.0)
    new = [trial.config for trial in asked if "trees" in trial.prediction.reason]
    assert np.mean([config["kind"] == "b" for config in new]) > 0.6
