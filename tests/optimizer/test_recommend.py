"""The answer at a target: where it lies, what limits it, and what it says."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import qmc

from hpo import Axis, Categorical, Float, Int, Optimizer, Role, Scale, SearchSpace, SpaceError
from hpo.models.intervals import extrapolation
from hpo.optimizer.recommend import Recommendation, check_target
from hpo.space import Parameter
from hpo.trials import Cause

TOKENS = Scale(1e4, 1e6, axis=Axis.TOKENS)
NUDGE = math.log(1.09)  # how far an answer may lie from the law's optimum beyond the runs


def told(
    space: Mapping[str, Parameter],
    loss: Callable[[dict[str, Any]], float],
    runs: int = 32,
    *,
    seed: int = 0,
    noise: float = 0.0,
) -> Optimizer:
    """An optimizer that was told `runs` runs spread evenly over the searched ranges."""
    optimizer = Optimizer(space)
    encoder, rng = optimizer.encoder, np.random.default_rng(seed)
    U = qmc.Sobol(len(encoder.lower), rng=rng).random(128)[:runs]
    for config in encoder.decode(encoder.from_unit(U, (encoder.lower, encoder.upper))):
        optimizer.tell(config, loss(config) + noise * rng.standard_normal())
    return optimizer


def gains(tokens: float) -> float:
    return 1.5 + 30.0 * tokens**-0.3


def miss(value: float, best: float) -> float:
    return 0.05 * math.log(value / best) ** 2


def lr_law(config: dict[str, Any]) -> float:
    """Best lr 3e-3 at 1e5 tokens, falling with the power 0.4."""
    tokens = config["tokens"]
    return gains(tokens) + miss(config["lr"], 3e-3 * (tokens / 1e5) ** -0.4)


def law_optimum(optimizer: Optimizer, target: dict[str, float], name: str) -> float:
    """Best value by the fitted law, natural units: its optimum, slopes and their bends."""
    result = optimizer.result()
    law = result.scaling_law
    assert law is not None
    predictor = result.models.scaling()[0]
    scales = np.array([math.log(target[axis]) for axis in law.coefficients.axes])
    place = law.coefficients.decisions.index(name)
    return float(predictor.optimum(scales).mean[place])


def mentions(answer: Recommendation, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in answer.warnings)


# The optimum may leave the box


def test_beyond_the_runs_the_answer_leaves_the_searched_range_with_the_law() -> None:
    optimizer = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, lr_law)
    target = {"tokens": 1e11}
    answer = optimizer.recommend(target)
    truth = 3e-3 * 1e6**-0.4
    assert answer.config["lr"] < 1e-4
    assert abs(math.log(answer.config["lr"]) - law_optimum(optimizer, target, "lr")) < NUDGE + 1e-6
    assert answer.config["lr"] == pytest.approx(truth, rel=0.5)
    low, high = answer.intervals["lr"]
    assert low < truth < high and low < 1e-4
    assert mentions(answer, "lr", "below the searched range 0.0001 to 0.1: widen it to about")


def test_a_run_with_settings_outside_the_range_is_predicted_told_and_learned_from() -> None:
    optimizer = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, lr_law)
    target = {"tokens": 1e11}
    answer = optimizer.recommend(target)
    predicted = optimizer.result().predict(target, {**answer.config, **target})
    assert predicted.loss == pytest.approx(answer.loss, rel=1e-9)
    optimizer.tell(answer.config, lr_law(answer.config))
    again = optimizer.recommend(target)
    assert again.extrapolation == pytest.approx(1.0)
    assert again.config["lr"] < 2e-4
    assert 1e-4 <= optimizer.ask().config["lr"] <= 1e-1


def test_hard_bounds_are_kept_and_named_where_the_answer_lies_on_one() -> None:
    lr = Float(1e-4, 1e-1, log=True, hard=True)
    answer = told({"lr": lr, "tokens": TOKENS}, lr_law).recommend({"tokens": 1e11})
    assert answer.config["lr"] == 1e-4
    assert answer.intervals["lr"][0] == 1e-4
    assert mentions(answer, "lr", "lies on its hard bound 0.0001")


def test_an_integer_beyond_its_range_is_a_multiple() -> None:
    def loss(config: dict[str, Any]) -> float:
        best = 64 * (config["tokens"] / 1e5) ** 0.5
        return gains(config["tokens"]) + miss(config["batch"], best)

    space = {"batch": Int(16, 256, log=True, multiple_of=16), "tokens": TOKENS}
    answer = told(space, loss).recommend({"tokens": 1e9})
    assert type(answer.config["batch"]) is int and answer.config["batch"] % 16 == 0
    assert answer.config["batch"] == pytest.approx(6400, rel=0.4)
    assert mentions(answer, "batch", "above the searched range 16 to 256")


def test_a_count_stays_at_least_one() -> None:
    def loss(config: dict[str, Any]) -> float:
        best = 4 - 1.5 * math.log(config["tokens"] / 1e5)
        return gains(config["tokens"]) + 0.02 * (config["layers"] - best) ** 2

    answer = told({"layers": Int(1, 8), "tokens": TOKENS}, loss).recommend({"tokens": 1e10})
    assert answer.config["layers"] == 1 and answer.intervals["layers"][0] == 1
    assert not mentions(answer, "layers", "widen")


def test_a_share_stays_inside_zero_and_one() -> None:
    def loss(config: dict[str, Any]) -> float:
        step = math.log(config["tokens"] / 1e5)
        odds = math.log(config["beta2"] / (1 - config["beta2"]))
        bowl = 0.05 * (odds - 3.0 - 0.5 * step) ** 2 + (config["dropout"] - 0.1 + 0.04 * step) ** 2
        return gains(config["tokens"]) + bowl

    space = {
        "beta2": Float(0.9, 0.99, logit=True, role=Role.BETA2),
        "dropout": Float(0.0, 0.3, role=Role.DROPOUT),
        "tokens": TOKENS,
    }
    answer = told(space, loss, 64).recommend({"tokens": 1e9})
    assert 0.99 < answer.config["beta2"] < 1.0
    assert answer.config["dropout"] == 0.0
    low, high = answer.intervals["beta2"]
    assert 0.0 < low < high < 1.0


def test_plain_search_stays_inside_and_says_when_the_best_is_on_an_edge() -> None:
    optimizer = Optimizer({"x": Float(-1.0, 1.0)})
    for x in np.linspace(-1.0, 1.0, 9).tolist():
        optimizer.tell({"x": x}, (x - 3.0) ** 2)
    answer = optimizer.recommend()
    assert answer.config["x"] == pytest.approx(1.0, abs=0.01)
    assert mentions(answer, "x", "edge of the searched range -1 to 1: widen it")


@pytest.mark.parametrize("runs", [8, 12])  # with 12 it lies beyond where absent settings are coded
def test_the_values_tried_of_a_setting_are_those_of_runs_that_had_it(runs: int) -> None:
    optimizer = Optimizer(
        {"kind": Categorical(["with", "without"]), "y": Float(0.0, 1.0, when=("kind", ["with"]))}
    )
    for y in np.linspace(0.1, 0.2, runs).tolist():
        optimizer.tell({"kind": "with", "y": y}, 1.0 - 5.0 * y)
    for _ in range(3):
        optimizer.tell({"kind": "without"}, 1.0)
    answer = optimizer.recommend()
    assert answer.config["y"] > 0.3
    assert mentions(answer, "the best y", "lies outside the values tried, 0.1 to 0.2")


def test_a_choice_is_made_where_the_answer_lies() -> None:
    def loss(config: dict[str, Any]) -> float:
        return lr_law(config) + 0.2 * (config["optimizer"] == "sgd")

    space = {
        "lr": Float(1e-4, 1e-1, log=True),
        "optimizer": Categorical(["sgd", "adamw"]),
        "tokens": TOKENS,
    }
    answer = told(space, loss).recommend({"tokens": 1e11})
    assert answer.config["optimizer"] == "adamw" and answer.config["lr"] < 1e-4


# One answer


def test_the_answer_does_not_depend_on_how_wide_the_range_was_declared() -> None:
    narrow = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, lr_law)
    wide = Optimizer({"lr": Float(1e-5, 1.0, log=True), "tokens": TOKENS})
    for o in narrow.log.observations:
        assert o.loss is not None
        wide.tell(o.config, o.loss)
    for tokens in (3e5, 1e8, 1e11):
        one, other = (optimizer.recommend({"tokens": tokens}) for optimizer in (narrow, wide))
        assert one.config["lr"] == pytest.approx(other.config["lr"], rel=0.1)


def test_the_answer_moves_smoothly_from_the_data_to_the_law() -> None:
    optimizer = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, lr_law, noise=0.01)
    factors = np.exp(np.linspace(-0.2, 1.2, 15))
    answers = [optimizer.recommend({"tokens": 1e6 * f}) for f in factors.tolist()]
    steps = np.abs(np.diff([math.log(answer.config["lr"]) for answer in answers]))
    assert steps.max() < 0.2
    last = law_optimum(optimizer, answers[-1].target, "lr")
    assert abs(math.log(answers[-1].config["lr"]) - last) < NUDGE + 1e-6


def test_inside_the_data_the_answer_lies_in_the_law_s_band() -> None:
    optimizer = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, lr_law, noise=0.02)
    model, encoder = optimizer.result().models.scaling()[0], optimizer.encoder
    for tokens in (1e4, 1e5, 9e5):
        answer = optimizer.recommend({"tokens": tokens})
        row = encoder.encode([answer.config])
        optimum = model.optimum(model.loss.layout.scales(row)[0])
        half = 1.645 * math.sqrt(optimum.covariance[0, 0])
        assert abs(math.log(answer.config["lr"]) - optimum.mean[0]) < half * 1.001
        assert extrapolation(optimizer.result().models, row[0, encoder.columns.scale]) <= 1.0


# Told runs that refute it


def steep(config: dict[str, Any]) -> float:
    """A flat side, a side on which everything fails, and no floor."""
    return float(1e4 * (config["lr"] - 3e-3) ** 2 * config["tokens"] ** -0.1)


def test_the_answer_never_lies_beside_a_run_that_failed_badly() -> None:
    optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS})
    good = [(1.2e-4, 1e4), (2.1e-4, 1e4), (2.7e-4, 4e4), (3.3e-4, 1e5), (4e-4, 1.1e4)]
    good += [(4.4e-4, 2e4), (5.2e-4, 3.5e5), (6e-4, 4e4), (8.3e-4, 1e4)]
    bad = [(0.0164, 1e4), (0.0193, 1e4), (0.057, 8.6e5), (0.058, 1e4), (0.08, 1.4e4), (0.1, 1e4)]
    for lr, tokens in good + bad:
        optimizer.tell({"lr": lr, "tokens": tokens}, steep({"lr": lr, "tokens": tokens}))
    answer = optimizer.recommend({"tokens": 8e6})
    best = min(optimizer.log.observations, key=lambda o: math.inf if o.loss is None else o.loss)
    assert steep(answer.config) <= steep({**best.config, "tokens": 8e6})
    low, high = answer.loss_interval
    assert low <= answer.loss <= high


@pytest.mark.parametrize("runs", [12, 32])
def test_the_answer_is_never_on_a_ridge_that_runs_found_where_the_law_has_its_bottom(
    runs: int,
) -> None:
    def ridge(config: dict[str, Any]) -> float:
        best = 3e-3 * (config["tokens"] / 1e5) ** -0.4
        return lr_law(config) + 5.0 * (abs(math.log(config["lr"] / best)) < 0.45)

    optimizer = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, ridge, runs)
    for k in range(4):
        config = {"lr": 3e-3 * 10**-0.4 * 1.1 ** (k - 2), "tokens": 1e6}
        optimizer.tell(config, ridge(config))
    answer = optimizer.recommend({"tokens": 8e6})
    assert mentions(answer, "the law's own answer lies beside trial", "far from the")
    assert ridge(answer.config) < 2.5  # on the ridge: at least 6.7
    low, high = answer.loss_interval
    assert low <= answer.loss <= high


def test_runs_that_diverged_beside_the_law_s_answer_refute_it_unless_more_did_well() -> None:
    def optimizer_with(failures: int, successes: int) -> Optimizer:
        optimizer = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, lr_law)
        lr = 3e-3 * 100**-0.4  # the best at 1e7, as if all failed there
        for k in range(failures):
            optimizer.tell({"lr": lr * 1.01**k, "tokens": 1e7}, failed=Cause.DIVERGED)
        for k in range(successes):
            config = {"lr": lr * 0.99**k, "tokens": 1e6}
            optimizer.tell(config, lr_law(config))
        return optimizer

    target = {"tokens": 1e8}
    kept = optimizer_with(1, 3).recommend(target)
    assert not mentions(kept, "the law's own answer")
    warned = optimizer_with(40, 0).recommend(target)
    assert mentions(warned, "the law's own answer lies beside a run that failed")


def test_one_wrong_decimal_beside_the_answer_changes_little() -> None:
    space = {"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}
    target = {"tokens": 1e8}
    before = told(space, lr_law).recommend(target)
    optimizer = told(space, lr_law)
    optimizer.tell({"lr": 3e-3, "tokens": 1e5}, 10.0 * lr_law({"lr": 3e-3, "tokens": 1e5}))
    after = optimizer.recommend(target)
    assert not mentions(after, "the law's own answer")
    assert after.config["lr"] == pytest.approx(before.config["lr"], rel=0.5)


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_few_runs_give_an_answer(runs: int) -> None:
    optimizer = told({"lr": Float(1e-4, 1e-1, log=True), "tokens": TOKENS}, lr_law, runs)
    answer = optimizer.recommend({"tokens": 1e9})
    low, high = answer.intervals["lr"]
    assert low <= answer.config["lr"] <= high and math.isfinite(answer.loss)


# Settings without effect


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_settings_without_effect_stay_quiet_and_cost_the_others_nothing(noise: float) -> None:
    dummies: dict[str, Parameter] = {f"d{i}": Float(0.0, 1.0) for i in range(8)}
    lr = Float(1e-4, 1e-1, log=True)
    optimizer = told({"lr": lr, **dummies, "tokens": TOKENS}, lr_law, 64, noise=noise)
    target = {"tokens": 1e8}
    answer = optimizer.recommend(target)
    assert "lr" not in answer.no_effect and len(answer.no_effect) >= 6
    assert sum("no effect seen" in warning for warning in answer.warnings) == 1
    told_values = [o.config for o in optimizer.log.observations]
    same = [all(o[name] == answer.config[name] for name in answer.no_effect) for o in told_values]
    assert any(same)  # all from one run
    truth = 3e-3 * 1e3**-0.4
    assert answer.config["lr"] == pytest.approx(truth, rel=0.5)
    for name in answer.no_effect:
        low, high = answer.intervals[name]
        assert 0.0 <= low <= answer.config[name] <= high <= 1.0


def test_a_setting_with_an_effect_is_never_called_without() -> None:
    def loss(config: dict[str, Any]) -> float:
        return lr_law(config) + 0.1 * (config["x"] - 0.3) ** 2

    space = {"lr": Float(1e-4, 1e-1, log=True), "x": Float(-1.0, 2.0), "tokens": TOKENS}
    answer = told(space, loss, 48, noise=0.005).recommend({"tokens": 1e8})
    assert answer.no_effect == ()
    assert answer.config["x"] == pytest.approx(0.3, abs=0.3)


@pytest.mark.parametrize(
    "size", [10**9, np.float32(1e9), np.array([1e9]), torch.tensor(1e9), torch.tensor([[1e9]])]
)
def test_a_target_may_be_any_number_and_is_stored_as_a_float(size: object) -> None:
    space = SearchSpace({"params": Scale(1e5, 1e7)})
    checked = check_target(space, {"params": size})  # type: ignore[dict-item]
    assert checked == {"params": 1e9} and type(checked["params"]) is float


@pytest.mark.parametrize("target", [3, "params", ["params"], {1: 1e9}, np.ones(2), torch.ones(2)])
def test_a_target_that_is_no_dict_of_names_is_refused_by_what_the_user_calls_it(
    target: object,
) -> None:
    space = SearchSpace({"params": Scale(1e5, 1e7)})
    with pytest.raises(SpaceError, match="`scale` must be a dict of names .*give each scale axis"):
        check_target(space, target, "scale")  # type: ignore[arg-type]
