"""`optimize`: arguments, budgets, what a function sees, confirmation and resumption."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from hpo import (
    Budget,
    BudgetError,
    Categorical,
    Context,
    Fidelity,
    Float,
    Int,
    Report,
    Result,
    Scale,
    SearchSpace,
    SpaceError,
    Status,
    Trial,
    load_result,
    optimize,
)
from hpo.schedulers import StoppingRule
from hpo.study.runners import InlineRunner
from hpo.trials import TrialLog
from tests.study.studies import SPACE, Config, Recorder, asks, bowl

# --- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"train_fn": 3}, TypeError, "train_fn must be callable"),
        ({"budget": 60}, TypeError, r"write Budget\(trials=60\)"),
        ({"budget": Budget(per_trial=3.0)}, BudgetError, "at least one of trials, seconds"),
        (
            {"workers": 0},
            ValueError,
            "`workers` must be an int of at least 1 and at most 10000, got 0",
        ),
        ({"workers": True}, ValueError, "`workers` must be an int"),
        ({"confirm": -1}, ValueError, "`confirm` must be an int of at least 0"),
        ({"seed": 1.5}, ValueError, "`seed` must be an int"),
        ({"direction": "down"}, ValueError, "`direction` must be"),
        (
            {"cost": 3},
            TypeError,
            "`cost` must be a str that is not empty or None, got 3; name the unit",
        ),
        ({"target": {"params": 1e9}}, SpaceError, "target"),
        ({"space": {"x": 3}}, SpaceError, "`x` must be"),
        ({"name": ""}, ValueError, "name must be a text"),
        ({"storage": "sqlite:///a.db"}, ValueError, "storage= needs name="),
        ({"callbacks": [print]}, TypeError, "derive from hpo.study.callbacks.Callback"),
        ({"scheduler": print}, TypeError, "`scheduler` must be one of hpo.schedulers"),
        ({"surrogate": "magic"}, ValueError, "`surrogate` must be one of"),
        ({"priors": "mup"}, ValueError, "priors must be"),
        ({"runner": InlineRunner(), "workers": 2}, ValueError, "InlineRunner runs one trial"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_bad_argument_is_refused_before_anything_is_written(
    change: dict[str, Any], error: type[Exception], message: str, folder: Path
) -> None:
    arguments: dict[str, Any] = {
        "train_fn": bowl,
        "space": SPACE,
        "budget": Budget(trials=1),
        "cost": "flops",
        "name": None if "storage" in change else "n",
    }
    with pytest.raises(error, match=message):
        optimize(**(arguments | change))
    assert list(folder.iterdir()) == []


# --- budgets and cost ----------------------------------------------------------------------------


def test_trials_cost_and_seconds_each_end_the_search() -> None:
    by_trials = optimize(bowl, SPACE, budget=Budget(trials=3), cost="flops")
    by_cost = optimize(bowl, SPACE, budget=Budget(cost=5.0), cost="flops")
    began = time.monotonic()
    by_time = optimize(bowl, SPACE, budget=Budget(seconds=0.3), cost="flops")
    assert len(by_trials.log) == 3
    assert len(by_cost.log) == 3  # 2 + 2 leaves 1 of 5, and the third overshoots
    assert len(by_time.log) >= 1 and time.monotonic() - began < 5.0


def test_a_budget_that_runs_out_stops_a_running_trial_at_its_report() -> None:
    def train(config: Config, ctx: Context) -> float:
        for step in range(100):
            ctx.report(step=step, loss=float(-step), cost=float(step))
        return -100.0

    result = optimize(train, SPACE, budget=Budget(trials=1, cost=3.0), cost="flops")
    (stopped,) = result.log.observations
    assert (stopped.status, stopped.loss, stopped.cost) == (Status.STOPPED, -3.0, 3.0)


def test_a_trial_that_reaches_its_own_cost_limit_is_stopped_and_the_next_runs() -> None:
    def train(config: Config, ctx: Context) -> float:
        for step in range(100):
            ctx.report(step=step, loss=float(-step), cost=float(step))
        return -100.0

    result = optimize(train, SPACE, budget=Budget(trials=2, per_trial=7.0), cost="flops")
    assert [o.cost for o in result.log.observations] == [7.0, 7.0]


def test_a_declared_unit_that_is_not_reported_is_refused_at_the_first_trial(folder: Path) -> None:
    with pytest.raises(BudgetError, match="cost='flops' must be reported by train_fn"):
        optimize(lambda config, ctx: 1.0, SPACE, budget=Budget(trials=9), cost="flops", name="n")
    study = optuna.load_study(study_name="n", storage="sqlite:///scaletune.db")
    (stored,) = study.trials
    assert stored.state == optuna.trial.TrialState.FAIL
    assert stored.user_attrs["scaletune:told"]["cause"] == "error"


def test_a_reported_cost_without_a_unit_is_refused_with_the_way_out() -> None:
    with pytest.raises(BudgetError, match='add cost="flops"'):
        optimize(bowl, SPACE, budget=Budget(trials=9))


def test_seconds_are_measured_unless_they_are_reported() -> None:
    def sleep(config: Config, ctx: Context) -> float:
        time.sleep(0.05)
        return 1.0

    measured = optimize(sleep, SPACE, budget=Budget(trials=1), cost="seconds")
    unnamed = optimize(sleep, SPACE, budget=Budget(trials=1))
    reported = optimize(bowl, SPACE, budget=Budget(trials=1), cost="seconds")
    assert 0.05 <= (measured.log.observations[0].cost or 0.0) < 1.0
    assert unnamed.log.observations[0].cost is None
    assert 0.05 <= (unnamed.log.observations[0].seconds or 0.0) < 1.0
    assert reported.log.observations[0].cost == 2.0


def test_several_workers_share_a_budget_of_trials() -> None:
    result = optimize(bowl, SPACE, budget=Budget(trials=4), cost="flops", workers=3)
    assert len(result.log) == 4
    assert sorted(o.ask_index for o in result.log.observations if o.ask_index is not None) == list(
        range(4)
    )


# --- what a training function sees ---------------------------------------------------------------


def test_a_function_sees_fidelity_scale_and_a_seed_of_its_own() -> None:
    seen: list[Context] = []

    def train(config: Config, ctx: Context) -> float:
        seen.append(ctx)
        assert ctx.fidelity == config["epochs"]
        assert ctx.scale == {"params": config["params"]}
        return 1.0

    space = {"x": Float(0, 1), "params": Scale(1.0, 10.0), "epochs": Fidelity(1, 9)}
    optimize(train, space, budget=Budget(trials=3))
    assert len({ctx.seed for ctx in seen}) == 3


def test_unbounded_logit_and_conditional_parameters_are_stored_whole(folder: Path) -> None:
    space = SearchSpace(
        {
            "free": Float(center=3.0, spread=2.0),
            "beta": Float(0.9, 0.9999, logit=True),
            "width": Int(8, 4096, log=True, multiple_of=8),
            "layers": Int(4, 28, multiple_of=4),
            "kind": Categorical(["a", "b", None, 3]),
            "extra": Float(0.1, 1.0, when=("kind", ["a"])),
        }
    )
    first = optimize(lambda c, ctx: c["free"], space, budget=Budget(trials=12), name="n")
    again = optimize(lambda c, ctx: c["free"], space, budget=Budget(trials=12), name="n")
    assert asks(again) == asks(first)
    assert [list(config) for _, config in asks(again)] == [list(c) for _, c in asks(first)]


def test_a_scheduler_stops_trials_by_their_reports() -> None:
    class Impatient(StoppingRule):
        def stops(self, trial: Trial, report: Report, log: TrialLog, sign: float) -> bool:
            return report.step >= 2 and trial.number > 0

    def train(config: Config, ctx: Context) -> float:
        for step in range(5):
            ctx.report(step=step, loss=5.0 - step)
        return 0.0

    result = optimize(train, SPACE, budget=Budget(trials=3), scheduler=Impatient())
    assert [o.loss for o in result.log.observations] == [0.0, 3.0, 3.0]


# --- confirmation --------------------------------------------------------------------------------


def test_confirming_runs_come_on_top_of_the_budget_and_only_once(folder: Path) -> None:
    scales: list[float] = []

    def train(config: Config, ctx: Context) -> dict[str, float]:
        scales.append(ctx.scale["params"])
        ctx.report(step=0, cost=config["params"])
        return {"loss": config["x"] ** 2 + config["params"] ** -0.3, "cost": config["params"]}

    space = {"x": Float(-1.0, 1.0), "params": Scale(1.0, 100.0)}

    def run(trials: int) -> Result:
        return optimize(
            train,
            space,
            budget=Budget(trials=trials, per_trial=500.0),
            cost="flops",
            target={"params": 1e4},
            confirm=2,
            name="n",
        )

    first = run(8)
    assert scales[8:] == [1e4, 1e4]
    assert all(o.status is Status.COMPLETED for o in first.log.observations)
    run(8)
    assert len(scales) == 10
    run(10)
    assert len(scales) == 14 and scales[12:] == [1e4, 1e4]


def test_a_confirming_run_outside_the_searched_range_is_stored_and_read_back(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, float]:
        miss = np.log(config["lr"] / 3e-3) + 0.5 * np.log(config["tokens"] / 1e5)
        loss = 1.5 + 30 * config["tokens"] ** -0.3 + 0.05 * miss**2
        return {"loss": loss, "cost": config["tokens"]}

    space = {"lr": Float(1e-3, 1e-1, log=True), "tokens": Scale(1e4, 1e6)}

    def run() -> Result:
        budget = Budget(trials=12)
        return optimize(
            train, space, budget=budget, target={"tokens": 1e9}, confirm=1, name="n", cost="flops"
        )

    first, again = run(), run()
    confirmed = first.log.observations[-1]
    assert confirmed.config["tokens"] == 1e9 and confirmed.config["lr"] < 1e-3
    assert again.log.observations[-1].config == confirmed.config
    assert again.recommend() == first.recommend()


# --- resume --------------------------------------------------------------------------------------


def test_a_study_in_parts_asks_the_same_as_a_study_in_one_piece(folder: Path) -> None:
    def run(trials: int, name: str) -> Result:
        return optimize(bowl, SPACE, budget=Budget(trials=trials), cost="flops", name=name, seed=2)

    whole = run(11, "whole")
    for trials in (3, 4, 8, 11):
        parts = run(trials, "parts")
    assert asks(parts) == asks(whole)
    assert parts.best == whole.best


def test_a_finished_study_returns_at_once_without_running_anything(folder: Path) -> None:
    optimize(bowl, SPACE, budget=Budget(trials=3), cost="flops", name="n")
    recorder = Recorder()
    result = optimize(
        lambda config, ctx: pytest.fail("it ran"),
        SPACE,
        budget=Budget(trials=3),
        cost="flops",
        name="n",
        callbacks=[recorder],
    )
    assert len(result.log) == 3
    assert recorder.events == [("start", 3), ("finish", 3)]


def test_driving_time_adds_up_over_calls(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> float:
        time.sleep(0.1)
        return 1.0

    for trials in (3, 6):
        optimize(train, SPACE, budget=Budget(trials=trials), name="n")
    recorder = Recorder()
    result = optimize(train, SPACE, budget=Budget(seconds=0.5), name="n", callbacks=[recorder])
    assert len(result.log) == 6
    assert recorder.events == [("start", 6), ("finish", 6)]


def test_maximizing_shows_and_returns_the_largest(folder: Path) -> None:
    result = optimize(
        lambda config, ctx: {"loss": float(np.exp(-(config["x"] ** 2))), "cost": 1.0},
        {"x": Float(-1.0, 1.0)},
        budget=Budget(trials=15),
        cost="flops",
        direction="maximize",
        name="n",
    )
    assert result.best.loss > 0.95
    assert result.study is not None and result.study.best_value > 0.95


# --- branches ------------------------------------------------------------------------------------


def horizons(config: Config, ctx: Context) -> dict[str, Any]:
    """A run that tells its loss at half of its tokens, too."""
    losses = {t: 30 * t**-0.25 + config["x"] ** 2 for t in (config["tokens"] / 2, config["tokens"])}
    shorter, whole = losses
    branches = [{"tokens": shorter, "loss": losses[shorter]}]
    return {"loss": losses[whole], "cost": 1.2 * whole, "branches": branches}


def test_branches_are_kept_with_their_trial_and_a_resumed_study_asks_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # checkpoints go there
    space = {"x": Float(0, 1), "tokens": Scale(1e6, 2e6)}

    def search(trials: int, name: str) -> Result:
        budget, storage = Budget(trials=trials), f"sqlite:///{name}.db"
        return optimize(horizons, space, budget=budget, cost="flops", name=name, storage=storage)

    whole = search(5, "whole")
    search(3, "parts")
    parts = search(5, "parts")
    for one, other in zip(whole.log.observations, parts.log.observations, strict=True):
        assert (one.config, one.branches, one.cost) == (other.config, other.branches, other.cost)
        assert [set(branch.sizes) for branch in one.branches] == [{"tokens"}]
        assert one.cost == 1.2 * one.config["tokens"]
    assert len(parts.models.law_runs) == 10
    again = load_result("parts", storage="sqlite:///parts.db")
    at = {"tokens": 1e7}
    assert again.predict(at).loss == whole.predict(at).loss


def test_branches_of_a_space_without_scale_axes_are_refused(tmp_path: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, Any]:
        return {"loss": 1.0, "branches": [{"tokens": 1e6, "loss": 2.0}]}

    with pytest.raises(ValueError, match=r"must hold a loss and values of scale axes \[\]"):
        optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=1))
