"""Pause, resume, promote and clone for real: `optimize` with inline and process runners."""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import optuna
import pytest
from optuna.storages import InMemoryStorage

from hpo import (
    Budget,
    BudgetError,
    Cause,
    Context,
    Fidelity,
    Float,
    Observation,
    Result,
    SearchSpace,
    SpaceError,
    Status,
    StudyError,
    optimize,
)
from hpo.schedulers import (
    ASHA,
    PASHA,
    PBT,
    ASHAVariant,
    FreezeThaw,
    Hyperband,
    IterativeDeepening,
    OneEpoch,
    Scheduler,
    SuccessiveHalving,
    ancestry,
)
from hpo.study.process_runner import ProcessRunner
from hpo.study.runners import InlineRunner, Runner
from tests.study.interrupted import die_before_a_promoted_run_has_its_folder, epochs
from tests.study.studies import Config

RUNNERS: list[Callable[[], Runner]] = [InlineRunner, ProcessRunner]
# Workers then need not import this file and what it imports, which takes seconds.
cloudpickle.register_pickle_by_value(sys.modules[__name__])


def space(high: int = 9) -> dict[str, Any]:
    return {"x": Float(0.0, 1.0), "epochs": Fidelity(1, high)}


def with_checkpoints(config: Config, ctx: Context) -> dict[str, float]:
    """One unit of cost an epoch; each epoch is in the state, so nothing is trained twice."""
    state = ctx.load() or {"epochs": [], "cost": 0.0}
    for epoch in range(len(state["epochs"]) + 1, config["epochs"] + 1):
        state = {"epochs": [*state["epochs"], epoch], "cost": state["cost"] + 1.0}
        ctx.save(state)
        ctx.report(step=epoch, loss=config["x"] + 1.0 / epoch, cost=state["cost"])
    assert state["epochs"] == list(range(1, config["epochs"] + 1))
    return {"loss": config["x"] + 1.0 / config["epochs"], "cost": state["cost"]}


def without_checkpoints(config: Config, ctx: Context) -> dict[str, float]:
    for epoch in range(1, config["epochs"] + 1):
        ctx.report(step=epoch, loss=config["x"] + 1.0 / epoch, cost=float(epoch))
    return {"loss": config["x"] + 1.0 / config["epochs"], "cost": float(config["epochs"])}


def run(
    train: Callable[[Config, Context], Any],
    scheduler: Scheduler,
    *,
    high: int = 9,
    trials: int | None = 9,
    **options: Any,
) -> Result:
    return optimize(
        train,
        space(high),
        budget=options.pop("budget", Budget(trials=trials, cost=1e6)),
        cost="epochs",
        scheduler=scheduler,
        **options,
    )


def everything(result: Result) -> list[Observation]:
    return [*result.log.observations, *result.log.paused]


@pytest.mark.parametrize("runner", RUNNERS)
def test_a_resumed_run_pays_only_the_increment(runner: Callable[[], Runner]) -> None:
    result = run(with_checkpoints, SuccessiveHalving(), high=3, trials=3, runner=runner())
    observations = everything(result)
    assert sorted(o.cost for o in observations if o.cost) == [1.0, 1.0, 3.0]
    (done,) = result.log.observations
    assert done.loss == min(o.config["x"] for o in observations) + 1.0 / 3
    assert [report.step for report in done.reports] == [1, 2, 3]
    assert [report.cost for report in done.reports] == [1.0, 2.0, 3.0]


def test_a_run_without_checkpoints_restarts_and_is_charged_for_it() -> None:
    costs: list[float] = []

    def train(config: Config, ctx: Context) -> dict[str, float]:
        costs.append(config["epochs"])
        return without_checkpoints(config, ctx)

    result = run(train, SuccessiveHalving())
    assert sorted(costs) == [1] * 9 + [3] * 3 + [9]
    assert sorted(o.cost for o in everything(result) if o.cost) == [1.0] * 6 + [4.0] * 2 + [13.0]
    (done,) = result.log.observations
    assert [report.step for report in done.reports] == list(range(1, 10))  # each counted once


def test_a_function_that_only_returns_its_loss_can_be_promoted() -> None:
    def train(config: Config, ctx: Context) -> float:
        assert config["epochs"] == ctx.fidelity
        return float(config["x"] + 1.0 / config["epochs"])

    result = optimize(train, space(), budget=Budget(trials=9), scheduler=SuccessiveHalving())
    assert [o.status for o in result.log.observations] == [Status.COMPLETED]
    assert len(result.log.paused) == 8


def test_a_function_that_does_not_look_at_its_level_is_paused_by_its_report() -> None:
    def train(config: Config, ctx: Context) -> float:
        for epoch in range(1, 10):
            ctx.report(step=epoch, loss=config["x"])
        return float(config["x"])

    result = optimize(train, space(), budget=Budget(trials=9), scheduler=SuccessiveHalving())
    assert [o.status for o in result.log.observations] == [Status.COMPLETED]
    assert sorted(o.reports[-1].step for o in result.log.paused) == [2] * 6 + [4] * 2


def test_a_run_that_reports_no_loss_by_its_level_is_refused() -> None:
    def train(config: Config, ctx: Context) -> float:
        for epoch in range(1, 10):
            ctx.report(step=epoch)
        return 0.0

    with pytest.raises(ValueError, match="no loss was reported up to level 1"):
        optimize(train, space(), budget=Budget(trials=9), scheduler=SuccessiveHalving())


def test_the_ledger_counts_each_run_once_and_each_epoch_once() -> None:
    trained: list[tuple[int, int]] = []

    def train(config: Config, ctx: Context) -> dict[str, float]:
        state = ctx.load() or {"epochs": 0}
        for epoch in range(state["epochs"] + 1, config["epochs"] + 1):
            trained.append((ctx.trial.number, epoch))
            ctx.save({"epochs": epoch})
            ctx.report(step=epoch, loss=config["x"], cost=float(epoch))
        return {"loss": config["x"], "cost": float(config["epochs"])}

    result = run(train, ASHA(), trials=None, budget=Budget(cost=60.0))
    assert len(trained) == len(set(trained)) == 60
    assert sum(o.cost for o in everything(result) if o.cost) == 60.0


@pytest.mark.parametrize(
    "scheduler",
    [
        ASHA(),
        ASHA(brackets=2),
        ASHA(kind=ASHAVariant.STOPPING),
        PASHA(),
        Hyperband(),
        IterativeDeepening(),
        OneEpoch(),
        PBT(population=4),
        FreezeThaw(),
        FreezeThaw(continues=False),
    ],
    ids=lambda s: type(s).__name__,
)
def test_every_scheduler_drives_a_study_to_its_end(scheduler: Scheduler, folder: Path) -> None:
    # On disk once: where it is stored is no concern of a scheduler.
    storage = None if scheduler == ASHA() else InMemoryStorage()
    options: dict[str, Any] = {"budget": Budget(trials=12), "name": "n", "storage": storage}
    result = run(with_checkpoints, scheduler, **dict(options))
    assert 4 <= len(everything(result)) <= 14
    assert all(o.cause is None for o in result.log.observations)
    before = [(o.number, o.loss) for o in everything(result)]
    again = run(with_checkpoints, scheduler, **dict(options))
    assert [(o.number, o.loss) for o in everything(again)] == before


def test_several_worker_processes_pause_and_resume(folder: Path) -> None:
    result = run(with_checkpoints, ASHA(), high=3, trials=4, workers=2, name="n")
    assert any(o.status is Status.COMPLETED for o in result.log.observations)
    assert all(o.cost == o.reports[-1].step for o in everything(result))


def test_a_study_stopped_midway_fills_the_rungs_of_one_that_was_not(folder: Path) -> None:
    options: dict[str, Any] = {"seed": 3, "storage": InMemoryStorage()}
    whole = run(with_checkpoints, SuccessiveHalving(), name="whole", **options)
    for trials in (4, 9):  # the rung is not full at 4, and closes with what it has
        parts = run(with_checkpoints, SuccessiveHalving(), trials=trials, name="parts", **options)
    started = [
        [o.config["x"] for o in sorted(everything(result), key=lambda o: o.number)]
        for result in (whole, parts)
    ]
    assert started[0][:4] == started[1][:4]  # what was told by then is the same
    for result in (whole, parts):
        assert len(everything(result)) == 9
        for level, size in ((3, 3), (9, 1)):
            reached = [o for o in everything(result) if o.reports[-1].step >= level]
            assert len(reached) >= size
            best = min(everything(result), key=lambda o: o.reports[0].loss)
            assert best in reached or (
                level == 9 and result is parts
            )  # a closed rung took its slot


def test_a_worker_that_dies_after_its_report_is_continued_and_counted_once(folder: Path) -> None:
    def train(config: Config, ctx: Context) -> dict[str, float]:
        if ctx.trial.parent is None and ctx.fidelity == 3:
            state = ctx.load()
            assert state is not None and state["epochs"] == [1]
            ctx.report(step=2, loss=config["x"] + 0.5, cost=2.0)
            os.kill(os.getpid(), signal.SIGKILL)  # reported 2, saved 1
        return with_checkpoints(config, ctx)

    scheduler = SuccessiveHalving()
    result = run(train, scheduler, high=3, trials=3, runner=ProcessRunner(), name="n")
    lost = [o for o in result.log.observations if o.cause is not None]
    done = [o for o in everything(result) if o.cause is None]
    assert [o.cause for o in lost] == [Cause.LOST]
    assert sorted(o.cost for o in done if o.cost) == [1.0, 1.0, 3.0]
    assert result.log.observations[-1].status is Status.COMPLETED


def earlier_is_better(config: Config, ctx: Context) -> dict[str, float]:
    return {"loss": 1.0 * ctx.trial.ask_index + 1.0 / config["epochs"], "cost": config["epochs"]}


def test_paused_trials_of_a_finished_call_are_continued_as_new_ones_in_the_next_call(
    folder: Path,
) -> None:
    def search(trials: int) -> Result:
        return run(earlier_is_better, ASHA(), budget=Budget(trials=trials), name="n")

    assert {o.number for o in search(3).log.paused} == {0, 1, 2}
    log = search(9).log
    assert {t.parent for t in log.trials} == {None, 0, 1, 2}
    assert {o.number for o in log.observations if o.cause is Cause.LOST} == {0, 1, 2}
    for trial in log.trials:
        if trial.parent is not None:
            parent = log.trial(trial.parent)
            assert (trial.config, trial.ask_index) == (parent.config, parent.ask_index)
    best = next(t for t in log.trials if t.parent == 0)
    assert log.observation(best.number).status is Status.COMPLETED  # type: ignore[union-attr]


def test_a_driver_that_dies_before_a_promoted_run_has_its_folder_loses_no_checkpoint(
    folder: Path,
) -> None:
    notes = folder / "notes"
    epochs(notes, 3)
    life = multiprocessing.get_context("spawn").Process(
        target=die_before_a_promoted_run_has_its_folder, args=(notes, 9)
    )
    life.start()
    life.join(120.0)
    assert life.exitcode == -signal.SIGKILL
    epochs(notes, 9)
    trained = notes.read_text().splitlines()
    assert len(trained) == len(set(trained)) > 9


def test_paused_trials_of_a_driver_that_lives_are_left_to_it(folder: Path) -> None:
    def search(trials: int) -> Result:
        return run(earlier_is_better, ASHA(), budget=Budget(trials=trials), name="n")

    search(3)
    study = optuna.load_study(study_name="n", storage="sqlite:///scaletune.db")
    released = study.user_attrs["scaletune:driver:0"]
    lives = {"machine": "elsewhere", "expires": time.time() + 1e4}
    study.set_user_attr("scaletune:driver:0", released | lives)
    beside = search(9).log
    assert {0, 1, 2} <= {o.number for o in beside.paused}
    assert not {0, 1, 2} & {t.parent for t in beside.trials}
    assert {t.user_attrs["scaletune:asked"]["driver"] for t in study.trials[3:]} == {1}
    study.set_user_attr("scaletune:driver:0", released)
    assert {0, 1, 2} <= {t.parent for t in search(10).log.trials}


def test_only_checkpoints_that_may_be_needed_are_kept(folder: Path) -> None:
    result = run(with_checkpoints, ASHA(), trials=30, name="n", storage=InMemoryStorage())
    (root,) = (folder / "scaletune_checkpoints").glob("n-*")
    kept = {int(p.name) for p in root.iterdir()}
    schedule = ASHA().begin(SearchSpace(space()))
    # Not equal: one that was dropped early may be among the best again.
    assert kept <= schedule.checkpoints_to_keep(result.log)
    assert 1 <= len(kept) <= 15


def test_a_clone_continues_from_its_parents_checkpoint_with_another_config() -> None:
    result = run(with_checkpoints, PBT(population=4, interval=4), trials=None)
    clones = [t for t in result.log.trials if t.parent is not None]
    assert clones
    for clone in clones:
        assert clone.parent is not None
        assert clone.config != result.log.trial(clone.parent).config
    for o in result.log.observations:
        if o.status is Status.COMPLETED:
            schedule = ancestry(result.log, o.number)
            assert [s.end for s in schedule[:-1]] == [s.start for s in schedule[1:]]
            assert (schedule[0].start, schedule[-1].end) == (0, 9)
            assert o.cost == 9.0


def test_a_diverging_run_is_never_promoted() -> None:
    def train(config: Config, ctx: Context) -> dict[str, float]:
        if config["x"] < 0.5:
            return {"loss": float("nan"), "cost": 1.0}
        return with_checkpoints(config, ctx)

    result = run(train, ASHA(), trials=20)
    assert all(o.cost == 1.0 for o in everything(result) if o.config["x"] < 0.5)
    assert any(o.status is Status.COMPLETED for o in result.log.observations)


def test_a_study_whose_fidelity_grew_continues_and_repeats_nothing(folder: Path) -> None:
    trained: list[tuple[float, int]] = []

    def train(config: Config, ctx: Context) -> dict[str, float]:
        done = len((ctx.load() or {"epochs": []})["epochs"])
        trained.extend((config["x"], epoch) for epoch in range(done + 1, config["epochs"] + 1))
        return with_checkpoints(config, ctx)

    options: dict[str, Any] = {"name": "n", "storage": InMemoryStorage()}
    run(train, IterativeDeepening(), high=3, budget=Budget(cost=1e9), **options)
    first = len(trained)
    grown = run(train, IterativeDeepening(), high=9, budget=Budget(cost=1e9), **options)
    assert (first, len(trained)) == (11, 69)  # a Hyperband of 3, and of 9 in all
    best = min(o.config["x"] for o in grown.log.observations if o.config["epochs"] == 9)
    assert any(o.config["x"] == best and o.cost == 9.0 for o in grown.log.observations)


@pytest.mark.parametrize("name", [None, "n"])
def test_a_result_is_extended_and_pays_for_what_is_missing_only(
    name: str | None, folder: Path
) -> None:
    budget = Budget(cost=1e9)
    small = run(with_checkpoints, IterativeDeepening(), high=3, budget=budget, name=name)
    large = small.extend(max_fidelity=9)
    paid = [sum(o.cost or 0.0 for o in everything(r) if o.cause is None) for r in (small, large)]
    # The cost of a trial that was continued under a new number is in the new one's, too.
    continued = {t.parent for t in large.log.trials}
    again = sum(o.cost or 0.0 for o in large.log.observations if o.number in continued)
    assert (paid[0], paid[1] - again) == (11.0, 69.0)
    assert max(o.config["epochs"] for o in large.log.observations) == 9


def test_only_what_can_go_on_is_extended() -> None:
    plain = optimize(lambda config, ctx: config["x"], space(), budget=Budget(trials=1))
    with pytest.raises(StudyError, match="pass a scheduler"):
        plain.extend(max_fidelity=27)
    result = run(with_checkpoints, ASHA(), trials=3)
    with pytest.raises(BudgetError, match="needs a budget under ASHA"):
        result.extend(max_fidelity=27)
    with pytest.raises(SpaceError, match="a fidelity only grows"):
        result.extend(max_fidelity=3, budget=Budget(trials=5))


def test_the_best_of_a_study_without_a_full_run_is_the_best_of_those_that_came_furthest() -> None:
    result = run(with_checkpoints, PASHA(), high=81, trials=20)
    assert result.best.number in {o.number for o in result.log.paused if o.cost == 3.0}
