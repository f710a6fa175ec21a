"""Ask and tell: what is taken, what is refused, and what is asked."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from hpo.errors import SpaceError, StudyError
from hpo.optimizer.ask_tell import Optimizer
from hpo.space import Axis, Categorical, Fidelity, Float, Int, Parameter, Scale
from hpo.trials import Cause, ReasonKind, Status, Trial
from hpo.trials.budget import Budget

PLAIN: dict[str, Parameter] = {"lr": Float(1e-4, 1e-1, log=True), "x": Float(-1, 1)}
MIXED: dict[str, Parameter] = {
    "lr": Float(1e-4, 1e-1, log=True),
    "layers": Int(1, 12),
    "optimizer": Categorical(["adamw", "lion"]),
    "beta2": Float(0.9, 0.9999, logit=True, when=("optimizer", ["adamw"])),
}
SCALED: dict[str, Parameter] = {
    "lr": Float(1e-4, 1e-1, log=True),
    "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    "tokens": Scale(1e6, 1e9, axis=Axis.TOKENS),
}


def bowl(config: dict[str, Any]) -> float:
    """Quadratic in ln lr and every other float, with a price on each other choice."""
    loss = (math.log10(config["lr"]) + 2.5) ** 2 + 0.1 * config.get("x", 0.0) ** 2
    return loss + 0.01 * config.get("layers", 0) + 0.2 * (config.get("optimizer") == "lion")


def loss_and_flops(config: dict[str, Any]) -> tuple[float, float]:
    """A Chinchilla-like loss whose best lr falls with size, and 6 N D."""
    n, d = config["params"], config["tokens"]
    best = -2.0 - 0.3 * math.log10(n / 1e5)
    loss = 1.7 + 40 / n**0.34 + 80 / d**0.3 + 0.1 * (math.log10(config["lr"]) - best) ** 2
    return loss, 6.0 * n * d


def run(
    optimizer: Optimizer, function: Callable[[dict[str, Any]], float], asks: int
) -> list[Trial]:
    """Ask and tell `asks` times; the trials asked."""
    trials = []
    for _ in range(asks):
        trial = optimizer.ask()
        optimizer.tell(trial, function(trial.config))
        trials.append(trial)
    return trials


# What can be told


def test_a_trial_can_be_told_by_itself_by_its_number_and_by_a_config_of_ones_own():
    optimizer = Optimizer(PLAIN)
    first, second = optimizer.ask(), optimizer.ask()
    assert optimizer.tell(first, 1.0).number == first.number
    assert optimizer.tell(second.number, 2.0).config == second.config
    own = optimizer.tell({"lr": 0.01, "x": 0.5}, 3.0)
    assert own.ask_index is None
    assert own.number == 2
    assert [o.loss for o in optimizer.log.observations] == [1.0, 2.0, 3.0]
    assert not optimizer.log.pending


def test_telling_the_same_result_twice_changes_nothing():
    optimizer = Optimizer(PLAIN, cost="seconds", budget=Budget(cost=100.0))
    trial, config = optimizer.ask(), {"lr": 0.01, "x": 0.5}
    first, own = optimizer.tell(trial, 1.0, 2.0), optimizer.tell(config, 3.0, 4.0)
    before = optimizer.ledger.spent
    optimizer.tell(trial, 1.0, 2.0)
    assert optimizer.tell(config, 3.0, 4.0) == own
    assert optimizer.log.observations == (first, own)
    assert optimizer.ledger.spent == before


def test_a_second_different_result_is_refused_and_the_first_is_kept():
    optimizer = Optimizer(PLAIN)
    trial = optimizer.ask()
    optimizer.tell(trial, 1.0)
    with pytest.raises(StudyError, match=r"trial 0 is finished .*loss=1\.0.*ask for a new trial"):
        optimizer.tell(trial, 2.0)
    assert [o.loss for o in optimizer.log.observations] == [1.0]


@pytest.mark.parametrize(
    "loss",
    [2, np.float64(2), np.float32(2), np.int64(2), np.array([2.0]), torch.tensor(2.0)],
    ids=lambda loss: type(loss).__name__,
)
def test_numbers_of_numpy_and_torch_are_taken_as_plain_floats(loss):
    optimizer = Optimizer(PLAIN)
    observation = optimizer.tell(optimizer.ask(), loss, cost=loss)
    assert observation.loss == 2.0 and type(observation.loss) is float
    assert observation.cost == 2.0 and type(observation.cost) is float


def test_a_tensor_that_still_needs_its_gradient_is_taken():
    optimizer = Optimizer(PLAIN)
    loss = torch.tensor(2.0, requires_grad=True)
    assert optimizer.tell(optimizer.ask(), loss).loss == 2.0


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, np.float32("nan")])
def test_a_loss_that_is_not_finite_is_a_diverged_run(loss):
    optimizer = Optimizer(PLAIN)
    observation = optimizer.tell(optimizer.ask(), loss)
    assert observation.status is Status.FAILED
    assert observation.cause is Cause.DIVERGED
    assert observation.loss is None


@pytest.mark.parametrize("cause", Cause)
def test_a_failure_is_told_by_its_cause_or_its_name(cause):
    optimizer = Optimizer(PLAIN)
    assert optimizer.tell(optimizer.ask(), failed=cause).cause is cause
    assert optimizer.tell(optimizer.ask(), failed=cause.value).cause is cause


def test_failures_count_in_the_ledger_with_their_cost_and_lost_runs_do_not():
    optimizer = Optimizer(PLAIN, cost="seconds", budget=Budget(trials=10, cost=100.0))
    optimizer.tell(optimizer.ask(), 1.0, cost=5.0)
    optimizer.tell(optimizer.ask(), failed="oom", cost=7.0)
    optimizer.tell(optimizer.ask(), math.nan, cost=11.0)
    optimizer.tell(optimizer.ask(), failed="lost", cost=13.0)
    assert optimizer.ledger.spent.trials == 3
    assert optimizer.ledger.spent.cost == 23.0
    assert optimizer.ledger.remaining_cost == 77.0


def test_a_stopped_run_needs_no_loss_and_teaches_the_value_model_nothing():
    optimizer = Optimizer(PLAIN)
    observation = optimizer.tell(optimizer.ask(), stopped=True)
    assert observation.status is Status.STOPPED
    with pytest.raises(ValueError, match="no trial was completed"):
        optimizer.recommend()


# What is refused, and that nothing is stored then


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"loss": "0.5"}, TypeError, r"`loss` must be one number, got '0\.5'; return a float"),
        ({"loss": True}, TypeError, "`loss` must be one number, got True"),
        ({"loss": [1.0]}, TypeError, r"`loss` must be one number, got \[1\.0\]"),
        ({"loss": np.array([1.0, 2.0])}, TypeError, "`loss` must be one number"),
        ({"loss": torch.tensor([1.0, 2.0])}, TypeError, "`loss` must be one number"),
        ({"loss": None}, ValueError, r"needs a loss, failed=\.\.\. or stopped=True"),
        ({"loss": 1.0, "cost": "3"}, TypeError, "`cost` must be one number, got '3'"),
        ({"loss": 1.0, "cost": -1.0}, ValueError, r"`cost` must be finite and >= 0, got -1\.0"),
        ({"loss": 1.0, "cost": math.nan}, ValueError, "`cost` .* got nan; pass None if"),
        ({"loss": 1.0, "cost": math.inf}, ValueError, "`cost` .* got inf; pass None if"),
        ({"failed": "exploded"}, ValueError, r"`failed` must be one of \['oom', .*got 'exploded'"),
        ({"loss": 1.0, "seconds": -2.0}, ValueError, r"`seconds` .* got -2\.0"),
        ({"loss": 1.0, "seconds": "2"}, TypeError, "`seconds` must be one number, got '2'"),
    ],
)
def test_a_bad_result_is_refused_with_the_way_out_and_nothing_is_stored(arguments, error, message):
    optimizer = Optimizer(PLAIN)
    trial = optimizer.ask()
    with pytest.raises(error, match=message):
        optimizer.tell(trial, **arguments)
    assert not optimizer.log.observations
    assert optimizer.log.pending == (trial,)
    assert optimizer.tell(trial, 1.0).order == 0


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lr": 0.01, "x": 0.0, "momentum": 0.9}, r"unknown \['momentum'\]; the space holds"),
        ({"lr": 0.01}, r"every active parameter, got none for \['x'\]; add them"),
        ({"lr": 10.0, "x": 0.0}, "lr.*10"),
        ({"lr": "high", "x": 0.0}, "lr.*'high'"),
    ],
)
def test_a_config_that_is_not_of_the_space_is_refused(config, message):
    optimizer = Optimizer(PLAIN)
    with pytest.raises(SpaceError, match=message):
        optimizer.tell(config, 1.0)
    assert not optimizer.log.observations


@pytest.mark.parametrize("number", [7, -1])
def test_a_number_that_was_never_asked_is_refused(number):
    with pytest.raises(KeyError, match=f"trial that was asked, got {number}"):
        Optimizer(PLAIN).tell(number, 1.0)


@pytest.mark.parametrize("trial", ["0", 0.0, True, None])
def test_what_is_neither_trial_nor_number_nor_config_is_refused(trial):
    optimizer = Optimizer(PLAIN)
    optimizer.ask(), optimizer.ask()
    with pytest.raises(TypeError, match="`trial` must be a Trial, its number or a config, got"):
        optimizer.tell(trial, 1.0)


def test_a_trial_of_another_optimizer_is_refused():
    stranger = Optimizer(PLAIN, seed=1).ask()
    with pytest.raises(StudyError, match="never added.*add it first"):
        Optimizer(PLAIN).tell(stranger, 1.0)


def test_bad_arguments_of_an_optimizer_are_refused():
    with pytest.raises(ValueError, match="`seed` must be an int of at least 0, got -1"):
        Optimizer(PLAIN, seed=-1)
    with pytest.raises(ValueError, match='`direction` must be "minimize" or "maximize"'):
        Optimizer(PLAIN, direction="up")  # type: ignore[arg-type]


# Direction


@pytest.mark.parametrize("space", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_maximising_asks_exactly_what_minimising_the_negative_does(space):
    down, up = Optimizer(space, seed=3), Optimizer(space, seed=3, direction="maximize")
    for below, above in zip(
        run(down, bowl, 20), run(up, lambda config: -bowl(config), 20), strict=True
    ):
        assert above.config == below.config
        assert above.prediction is not None and below.prediction is not None
        assert above.prediction.reason == below.prediction.reason
        if below.prediction.loss is not None and below.prediction.loss_interval is not None:
            low, high = below.prediction.loss_interval
            assert above.prediction.loss == -below.prediction.loss
            assert above.prediction.loss_interval == (-high, -low)
    assert up.result().best.config == down.result().best.config
    assert up.recommend().config == down.recommend().config
    assert up.recommend().loss == -down.recommend().loss


# Prediction


@pytest.mark.parametrize("space", [PLAIN, MIXED], ids=["plain", "mixed"])
def test_every_asked_trial_carries_a_sound_prediction(space):
    optimizer = Optimizer(space, cost="seconds")
    trials = []
    for _ in range(20):
        trial = optimizer.ask()
        optimizer.tell(trial, 100.0 + bowl(trial.config), cost=10.0 * trial.config["lr"])
        trials.append(trial)
    for trial in trials:
        belief = trial.prediction
        assert belief is not None
        assert belief.fallbacks == 0 and not belief.degraded
        assert belief.reason is not None and "\n" not in str(belief.reason)
    assert (
        trials[0].prediction.loss is None and trials[0].prediction.cost is None
    )  # nothing known yet
    # In the user's units: losses are near 100, costs are 10 lr.
    last = trials[-1].prediction
    assert last.loss_interval[0] <= last.loss <= last.loss_interval[1]
    assert 95.0 < last.loss < 110.0
    assert last.cost == pytest.approx(10.0 * trials[-1].config["lr"], rel=0.3)
    assert last.success == pytest.approx(0.95)


def test_intervals_of_predictions_cover_what_then_happens():
    optimizer = Optimizer(PLAIN)
    rng = np.random.default_rng(0)
    inside = []
    for _ in range(40):
        trial = optimizer.ask()
        loss = bowl(trial.config) + 0.2 * rng.standard_normal()
        optimizer.tell(trial, loss)
        if trial.ask_index >= 10:
            low, high = trial.prediction.loss_interval
            inside.append(low <= loss <= high)
    # 30 draws at 90 %: fewer than 21 has probability 2e-4 were they independent.
    assert sum(inside) >= 21


# Search


def test_start_points_come_first_and_the_centers_before_all():
    space = {"lr": Float(1e-4, 1e-1, log=True, center=3e-3), "x": Float(-1, 1, center=0.25)}
    trials = run(Optimizer(space), bowl, 6)
    assert trials[0].config == {"lr": 3e-3, "x": 0.25}
    reasons = [trial.prediction.reason for trial in trials]
    assert [reason.start for reason in reasons[:4]] == [(i, 4) for i in (1, 2, 3, 4)]
    assert not any(reason.kind is ReasonKind.START_POINT for reason in reasons[4:])


def test_a_smooth_bowl_is_found():
    optimizer = Optimizer(PLAIN)
    run(optimizer, bowl, 25)
    assert optimizer.result().best.loss < 1e-2
    answer = optimizer.recommend()
    assert answer.config["lr"] == pytest.approx(10**-2.5, rel=0.15)
    assert answer.loss == pytest.approx(0.0, abs=0.01)


def test_twenty_pending_trials_of_a_continuous_space_are_all_different():
    optimizer = Optimizer({"x": Float(0, 1), "y": Float(0, 1)})
    run(optimizer, lambda c: (c["x"] - 0.3) ** 2 + (c["y"] - 0.7) ** 2, 8)
    rows = optimizer.encoder.encode([optimizer.ask().config for _ in range(20)])
    told = optimizer.encoder.encode([o.config for o in optimizer.log.observations])
    distances = np.linalg.norm(rows[:, None] - np.concatenate([told, rows])[None], axis=2)
    distances[np.arange(20), 8 + np.arange(20)] = np.inf
    assert distances.min() > 1e-4


def test_a_small_discrete_space_is_exhausted_before_anything_repeats():
    space: dict[str, Parameter] = {
        "a": Categorical(["p", "q", "r"]),
        "b": Int(1, 3),
        "c": Categorical([True, False], ordered=True),
    }
    optimizer = Optimizer(space)
    trials = run(optimizer, lambda c: c["b"] + 0.5 * (c["a"] == "q") - 0.2 * c["c"], 18)
    assert len({optimizer.space.key(trial.config) for trial in trials}) == 18
    repeat = optimizer.ask()
    reason = repeat.prediction.reason
    assert reason.repeated or reason.kind is ReasonKind.REPLICATE


def test_pending_trials_of_a_small_discrete_space_are_not_asked_again():
    optimizer = Optimizer({"a": Categorical(["p", "q", "r"]), "b": Int(1, 4)})
    asked = [optimizer.space.key(optimizer.ask().config) for _ in range(12)]
    assert len(set(asked)) == 12


POOL = [{"lr": lr, "x": x} for lr in (1e-4, 1e-3, 3e-3, 1e-2, 1e-1) for x in (-1.0, 0.0, 1.0)]


def test_a_pool_is_exhausted_before_any_of_it_repeats_and_nothing_else_is_asked():
    optimizer = Optimizer(PLAIN)
    asked = []
    for _ in range(len(POOL)):
        trial = optimizer.ask(among=POOL)
        optimizer.tell(trial, bowl(trial.config))
        asked.append(trial.config)
    assert sorted(asked, key=str) == sorted(POOL, key=str)
    again = optimizer.ask(among=POOL)
    assert again.config in POOL
    assert (
        again.prediction is not None
        and again.prediction.reason is not None
        and again.prediction.reason.repeated
        and again.prediction.reason.from_pool
    )


def test_the_best_of_a_pool_is_found_before_the_pool_is_used_up():
    optimizer = Optimizer(PLAIN)
    wide = [{"lr": 10.0**e, "x": x} for e in np.linspace(-4, -1, 25) for x in np.linspace(-1, 1, 9)]
    for _ in range(20):
        trial = optimizer.ask(among=wide)
        optimizer.tell(trial, bowl(trial.config))
    best = min(bowl(config) for config in wide)
    assert optimizer.result().best.loss == pytest.approx(best, abs=1e-12)


def test_a_pool_of_failures_is_still_searched():
    optimizer = Optimizer(PLAIN)
    for _ in range(8):
        optimizer.tell(optimizer.ask(among=POOL), failed="diverged")
    assert len({str(o.config) for o in optimizer.log.observations}) == 8


def test_a_bad_pool_is_refused():
    with pytest.raises(ValueError, match="`among` must hold at least one config"):
        Optimizer(PLAIN).ask(among=[])
    with pytest.raises(SpaceError, match="lr"):
        Optimizer(PLAIN).ask(among=[{"lr": 5.0, "x": 0.0}])


@pytest.mark.parametrize("log", [False, True])
def test_an_unbounded_optimum_six_spreads_from_the_centre_is_found(log):
    spread = 0.5
    space: dict[str, Parameter] = {
        "far": Float(center=1.0, spread=spread, log=log),
        "near": Float(0, 1),
    }
    best = math.exp(6 * spread) if log else 1.0 + 6 * spread

    def loss(config: dict[str, Any]) -> float:
        steps = math.log(config["far"] / best) if log else config["far"] - best
        return (steps / spread) ** 2 + (config["near"] - 0.5) ** 2

    optimizer = Optimizer(space)
    run(optimizer, loss, 40)
    assert optimizer.result().best.loss < 0.05
    assert optimizer.recommend().config["far"] == pytest.approx(best, rel=0.1)


def test_a_conditional_space_is_searched_on_both_sides_of_its_switch():
    space: dict[str, Parameter] = {
        "kind": Categorical(["a", "b"]),
        "x": Float(0, 1, when=("kind", ["a"])),
        "k": Int(1, 9, when=("kind", ["b"])),
        "z": Float(0, 1, when=("k", [7, 8, 9])),
    }

    def loss(config: dict[str, Any]) -> float:
        if config["kind"] == "a":
            return 1.0 + (config["x"] - 0.5) ** 2
        return 0.1 * abs(config["k"] - 8) + (config.get("z", 1.0) - 0.2) ** 2

    optimizer = Optimizer(space)
    trials = run(optimizer, loss, 35)
    for trial in trials:
        assert tuple(trial.config) == optimizer.space.active(trial.config)
    best = optimizer.result().best
    assert best.config["kind"] == "b" and best.config["k"] == 8
    assert best.loss < 0.02


def test_failures_teach_where_they_happen_and_are_not_recommended():
    optimizer = Optimizer({"x": Float(0, 1), "y": Float(0, 1)})
    believed: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(40):
        trial = optimizer.ask()
        if trial.config["x"] > 0.6:  # the best place is close to the cliff
            optimizer.tell(trial, failed="diverged")
        else:
            loss = (trial.config["x"] - 0.5) ** 2 + (trial.config["y"] - 0.5) ** 2
            optimizer.tell(trial, loss)
        if trial.ask_index >= 10:
            believed[trial.config["x"] > 0.6].append(trial.prediction.success)
    assert np.mean(believed[True]) < 0.5
    assert np.mean(believed[False]) > 0.8
    assert optimizer.result().best.loss < 1e-3
    assert optimizer.recommend().config["x"] < 0.6


def test_neither_asks_nor_answers_depend_on_the_unit_of_the_loss():
    unit = 2.0**-20  # exact in floating point
    one, other = Optimizer(PLAIN, seed=5), Optimizer(PLAIN, seed=5)
    for index in range(15):
        trial, scaled = one.ask(), other.ask()
        assert scaled.config == trial.config
        failed = "oom" if index % 5 == 3 else None
        loss = bowl(trial.config)
        one.tell(trial, loss, failed=failed)
        other.tell(scaled, unit * loss, failed=failed)
    assert other.recommend().config == one.recommend().config
    assert other.recommend().loss == unit * one.recommend().loss


def test_nothing_is_asked_twice_of_a_space_with_one_value_unless_it_must():
    optimizer = Optimizer({"x": Float(0.5, 0.5), "k": Int(3, 3), "c": Categorical(["only"])})
    trials = run(optimizer, lambda config: 1.0, 6)
    assert all(trial.config == {"x": 0.5, "k": 3, "c": "only"} for trial in trials)
    assert all(trial.prediction.fallbacks == 0 for trial in trials)


def test_the_fidelity_is_asked_in_full():
    space: dict[str, Parameter] = {"lr": Float(1e-4, 1e-1, log=True), "epochs": Fidelity(1, 81)}
    assert all(t.config["epochs"] == 81 for t in run(Optimizer(space), bowl, 8))


def test_proposing_changes_nothing():
    optimizer = Optimizer(MIXED)
    run(optimizer, bowl, 8)
    first = optimizer.propose()
    assert optimizer.propose() == first
    assert not optimizer.log.pending
    assert optimizer.ask().config == first.config


def test_told_configs_count_as_evidence():
    optimizer = Optimizer(PLAIN)
    for lr, x in itertools.product(np.geomspace(1e-4, 1e-1, 7).tolist(), [-1.0, 0.0, 1.0]):
        optimizer.tell({"lr": lr, "x": x}, bowl({"lr": lr, "x": x}))
    assert optimizer.recommend().config["lr"] == pytest.approx(10**-2.5, rel=0.5)


# Scale and target


def test_a_scale_space_answers_at_a_target_nobody_ran():
    target = {"params": 1e8, "tokens": 1e10}
    optimizer = Optimizer(SCALED, cost="flops", target=target)
    for _ in range(30):
        trial = optimizer.ask()
        assert 1e5 <= trial.config["params"] <= 1e7
        optimizer.tell(trial, *loss_and_flops(trial.config))
    answer = optimizer.recommend()
    assert {name: answer.config[name] for name in target} == target
    assert answer.target == target
    assert answer.extrapolation > 1.0
    truth = loss_and_flops({**answer.config})[0]
    assert answer.loss == pytest.approx(truth, abs=0.15)
    # The best lr falls from 1e-2 at the smallest size to 10**-2.9 at the target.
    assert 3e-4 < answer.config["lr"] < 5e-3
    assert optimizer.result().scaling_law is not None
    other = optimizer.recommend({"params": 1e6, "tokens": 1e8})
    assert other.target == {"params": 1e6, "tokens": 1e8}
    assert other.config["lr"] > answer.config["lr"]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ({"params": 1e9}, "must name every scale axis and nothing else: .*got"),
        ({"params": 1e9, "tokens": 1e9, "lr": 1.0}, "must name every scale axis and nothing else"),
        ({"params": 1e9, "tokens": -1.0}, r"`target\['tokens'\]` .* got -1\.0"),
        ({"params": math.nan, "tokens": 1e9}, r"`target\['params'\]` .* got nan"),
        ({"params": "1b", "tokens": 1e9}, r"`target\['params'\]` .* got '1b'"),
    ],
)
def test_a_target_that_does_not_fit_the_space_is_refused(target, message):
    with pytest.raises(SpaceError, match=message):
        Optimizer(SCALED, target=target)
    optimizer = Optimizer(SCALED)
    optimizer.tell({"lr": 0.01, "params": 1e6, "tokens": 1e7}, 3.0)
    with pytest.raises(SpaceError, match=message):
        optimizer.recommend(target)


def test_with_a_target_runs_are_bought_where_they_teach_about_it():
    target = {"params": 1e8, "tokens": 1e10}
    cost = {}
    for aim in (None, target):
        optimizer = Optimizer(SCALED, cost="flops", target=aim)
        for _ in range(16):
            trial = optimizer.ask()
            optimizer.tell(trial, *loss_and_flops(trial.config))
        cost[aim is None] = sum(o.cost for o in optimizer.log.observations)
        best = 10 ** (-2.0 - 0.3 * math.log10(1e8 / 1e5))
        low, high = optimizer.recommend(target).intervals["lr"]
        assert low < best < high
    assert cost[False] < cost[True] / 3
    reasons = [optimizer.log.trial(n).prediction.reason for n in range(16)]
    kinds = [reason.kind for reason in reasons]
    assert kinds.count(ReasonKind.LEARN_TARGET) >= 6
    assert ReasonKind.IMPROVE_FRONT in kinds


def test_an_answer_says_how_much_of_it_the_runs_told():
    target = {"params": 1e8, "tokens": 1e10}
    optimizer = Optimizer(SCALED, cost="flops", target=target)
    rng = np.random.default_rng(0)
    told = []
    for count in (2, 30):
        while len(optimizer.log.observations) < count:
            config = {
                "lr": 10 ** rng.uniform(-4, -1),
                "params": 10 ** rng.uniform(5, 7),
                "tokens": 10 ** rng.uniform(6, 9),
            }
            optimizer.tell(config, *loss_and_flops(config))
        told.append(optimizer.recommend().informed_by_data["lr"])
    assert 0.0 <= told[0] < 0.6 < told[1] <= 1.0


def test_runs_on_one_side_of_the_optimum_are_warned_about():
    optimizer = Optimizer(SCALED, cost="flops", target={"params": 1e8, "tokens": 1e10})
    rng = np.random.default_rng(0)
    for _ in range(20):
        config = {
            "lr": 10 ** rng.uniform(-4, -3.4),
            "params": 10 ** rng.uniform(5, 7),
            "tokens": 10 ** rng.uniform(6, 9),
        }
        optimizer.tell(config, *loss_and_flops(config))
    warnings = optimizer.recommend().warnings
    assert any("had a lr below what seems best" in warning for warning in warnings)


def test_pending_runs_count_as_taught_when_the_target_is_served():
    optimizer = Optimizer(SCALED, cost="flops", target={"params": 1e8, "tokens": 1e10})
    for _ in range(6):
        trial = optimizer.ask()
        optimizer.tell(trial, *loss_and_flops(trial.config))
    rows = optimizer.encoder.encode([optimizer.ask().config for _ in range(8)])
    distance = np.linalg.norm(rows[:, None] - rows[None], axis=2) + np.eye(8)
    assert distance.min() > 1e-3


def test_a_target_without_scale_axes_is_refused_with_the_way_out():
    with pytest.raises(SpaceError, match="needs a space with Scale axes.*leave the target out"):
        Optimizer(PLAIN, target={"params": 1e9})


def test_a_target_may_be_given_in_numpy_numbers():
    target = {"params": np.int64(10**9), "tokens": np.float32(2e10)}
    optimizer = Optimizer(SCALED, target=target)
    assert optimizer.target == {"params": 1e9, "tokens": float(np.float32(2e10))}


@pytest.mark.parametrize("space", [PLAIN, SCALED], ids=["plain", "scaled"])
def test_nothing_can_be_recommended_before_anything_was_completed(space):
    optimizer = Optimizer(space)
    optimizer.tell(optimizer.ask(), failed="oom")
    with pytest.raises(ValueError, match="no trial was completed.*1 finished otherwise"):
        optimizer.recommend()
    with pytest.raises(ValueError, match="no trial was completed"):
        _ = optimizer.result().best
    assert optimizer.result().scaling_law is None


def test_a_run_at_the_target_can_be_told_as_a_config_of_its_own():
    space = {"lr": Float(1e-4, 1e-1, log=True), "tokens": Scale(1e4, 1e6, axis=Axis.TOKENS)}
    optimizer = Optimizer(space, cost="flops", target={"tokens": 8e6})
    for _ in range(6):
        trial = optimizer.ask()
        optimizer.tell(trial, 2.0 + 10.0 / trial.config["tokens"] ** 0.3, trial.config["tokens"])
    before = optimizer.recommend().extrapolation
    optimizer.tell({"lr": 1e-3, "tokens": 8e6}, 2.1, 8e6)
    assert before > 7.9 and optimizer.recommend().extrapolation == pytest.approx(1.0)
    optimizer.tell({"lr": 1e-5, "tokens": 8e6}, 2.2, 8e6)  # as a recommendation may be
    with pytest.raises(SpaceError, match="lr"):
        optimizer.tell({"lr": -1.0, "tokens": 8e6}, 2.1, 8e6)
    assert 1e-4 <= optimizer.ask().config["lr"] <= 1e-1


def test_a_result_is_a_snapshot_that_later_tells_do_not_change():
    optimizer = Optimizer({"x": Float(0, 1), "y": Float(0, 1)})
    for x in np.linspace(0.0, 0.9, 12):
        optimizer.tell({"x": x, "y": 0.5}, (x - 0.5) ** 2)
    result = optimizer.result()
    before = result.best, result.front, result.recommend(), len(result.log)
    assert before == (result.best, result.front, result.recommend(), len(result.log))
    for x in (0.48, 0.52, 0.5):
        optimizer.tell({"x": x, "y": 0.1}, -1.0)
    optimizer.ask()
    assert before == (result.best, result.front, result.recommend(), len(result.log))
    assert optimizer.result().best.loss == -1.0 and len(optimizer.result().log) == 15


def test_taking_a_result_changes_no_later_ask():
    def asked(look: bool) -> list[dict[str, Any]]:
        optimizer = Optimizer({"x": Float(0, 1), "y": Float(-2, 2)}, seed=3)
        for _ in range(18):
            trial = optimizer.ask()
            optimizer.tell(trial, (trial.config["x"] - 0.3) ** 2 + trial.config["y"] ** 2)
            if look:
                optimizer.result().recommend()
        return [trial.config for trial in optimizer.log.trials]

    assert asked(look=True) == asked(look=False)


def test_one_config_has_one_interval_wherever_it_is_asked():
    """`recommend`, `predict` and the trial's prediction agree on the loss of one run."""
    optimizer = Optimizer({"x": Float(0, 1), "y": Float(-2, 2)}, surrogate="gp", seed=1)
    rng = np.random.default_rng(0)
    for _ in range(40):
        trial = optimizer.ask()
        loss = (trial.config["x"] - 0.3) ** 2 + 0.2 * trial.config["y"] ** 2
        optimizer.tell(trial, loss + 0.03 * rng.standard_normal())
    advice = optimizer.recommend()
    predicted = optimizer.result().predict(config=advice.config)
    asked = optimizer.propose(among=[advice.config]).prediction
    assert predicted.loss == asked.loss == pytest.approx(advice.loss, rel=1e-9)
    assert predicted.loss_interval == asked.loss_interval
    assert predicted.loss_interval == pytest.approx(advice.loss_interval, rel=1e-9)


def test_serving_only_a_target_never_walks_the_front():
    space = {
        "lr": Float(1e-4, 1e-1, log=True),
        "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
    }
    optimizer = Optimizer(space, cost="flops")
    for size in (1e5, 3e5, 1e6, 3e6, 1e7):
        for lr in (1e-3, 1e-2):
            optimizer.tell({"lr": lr, "params": size}, 2.0 + lr + 30 / size**0.3, size)
    kinds = {
        optimizer.propose_at({"params": 1e8}, index=index).prediction.reason.kind
        for index in range(10, 16)
    }
    assert kinds == {ReasonKind.LEARN_TARGET}
    assert optimizer.target is None
