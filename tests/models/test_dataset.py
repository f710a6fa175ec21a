"""Partial runs as rows of a model, and how the search uses them."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from hpo import (
    Cause,
    Fidelity,
    Float,
    FreezeThaw,
    Observation,
    Optimizer,
    Report,
    Scale,
    SearchSpace,
    StagedOptimizer,
    Status,
    Trial,
)
from hpo.models.dataset import PartialRuns
from hpo.space.encoding import Encoder
from hpo.trials import RungAssignment, TrialLog
from tests.histories import replay

SPACE = SearchSpace({"x": Float(0.0, 1.0), "epochs": Fidelity(1, 27)})


def asked(log: TrialLog, x: float, level: int, parent: int | None = None) -> Trial:
    trial = Trial(
        log.next_number,
        {"x": x, "epochs": 27},
        log.next_ask_index,
        None,
        parent,
        None if level == 0 else RungAssignment(level),
    )
    log.add(trial)
    return trial


def told(
    log: TrialLog,
    trial: Trial,
    loss: float | None,
    status: Status = Status.PAUSED,
    cause: Cause | None = None,
    cost: float | None = None,
) -> None:
    log.tell(
        Observation(
            trial.number, trial.config, loss, cost, status, cause, log.next_order, trial.ask_index
        )
    )


def read(log: TrialLog, space: SearchSpace = SPACE) -> list[tuple[float, float, float]]:
    """(x, level, loss) of each row."""
    partial = PartialRuns(Encoder(space))
    partial.sync(log)
    levels = np.exp(partial.X[:, 1] * math.log(27))
    return [
        (float(x), round(float(level), 9), float(loss))
        for x, level, loss in zip(partial.X[:, 0], levels, partial.loss, strict=True)
    ]


def test_each_level_of_a_run_is_one_row_with_the_first_loss_known_there() -> None:
    log = TrialLog()
    trial = asked(log, 0.5, 3)
    for step, loss in ((1, 9.0), (2, 8.0), (3, 7.0)):
        log.report(trial.number, Report(step, loss))
    told(log, trial, 7.5)  # the loss at 3 is known already; level 2 is too close to level 1
    log.resume(trial.number, 9)
    told(log, log.trial(trial.number), 6.0)
    assert read(log) == [(0.5, 1.0, 9.0), (0.5, 3.0, 7.0), (0.5, 9.0, 6.0)]


def test_a_lost_attempt_and_the_trial_that_continues_it_are_one_run() -> None:
    log = TrialLog()
    first = asked(log, 0.5, 3)
    log.report(first.number, Report(1, 9.0))
    told(log, first, None, Status.FAILED, Cause.LOST)
    second = asked(log, 0.5, 3, parent=first.number)
    log.report(second.number, Report(1, 9.0))
    told(log, second, 7.0)
    assert read(log) == [(0.5, 1.0, 9.0), (0.5, 3.0, 7.0)]


def test_a_changed_clone_is_a_run_of_its_own() -> None:
    log = TrialLog()
    parent = asked(log, 0.5, 3)
    told(log, parent, 7.0)
    clone = asked(log, 0.6, 9, parent=parent.number)
    told(log, clone, 5.0)
    assert read(log) == [(0.5, 3.0, 7.0), (0.6, 9.0, 5.0)]


@pytest.mark.parametrize("loss", [math.nan, math.inf, None])
def test_a_report_without_a_finite_loss_is_no_row(loss: float | None) -> None:
    log = TrialLog()
    trial = asked(log, 0.5, 9)
    log.report(trial.number, Report(1, 2.0))
    log.report(trial.number, Report(4, loss))
    told(log, trial, None, Status.FAILED, Cause.DIVERGED)
    assert read(log) == [(0.5, 1.0, 2.0)]


def test_the_last_report_of_a_stopped_run_is_a_row() -> None:
    log = TrialLog()
    trial = asked(log, 0.5, 27)
    for step in (1, 2, 3, 4):
        log.report(trial.number, Report(step, 1.0 / step))
    told(log, trial, None, Status.STOPPED)
    assert read(log) == [(0.5, 1.0, 1.0), (0.5, 3.0, 1.0 / 3.0), (0.5, 4.0, 0.25)]


def test_results_from_elsewhere_are_rows_from_the_first_run_with_a_level_on() -> None:
    log = TrialLog()
    elsewhere = asked(log, 0.9, 0)
    told(log, elsewhere, 4.0, Status.COMPLETED)
    assert read(log) == []  # without a scheduler it is a row of the model of whole runs
    trial = asked(log, 0.5, 3)
    told(log, trial, 7.0)
    assert read(log) == [(0.5, 3.0, 7.0), (0.9, 27.0, 4.0)]


def test_a_space_with_scale_axes_has_no_partial_runs() -> None:
    space = SearchSpace({**SPACE, "params": Scale(1e5, 1e7)})
    log = TrialLog()
    log.add(Trial(0, {"x": 0.5, "epochs": 27, "params": 1e6}, 0, None, None, RungAssignment(3)))
    assert read(log, space) == []


# --- the search ----------------------------------------------------------------------------------


def loss_at(config: dict[str, Any], level: int) -> float:
    """A bowl about 0.7 at the end, about 0.3 at the first level: early losses mislead."""
    return float((config["x"] - 0.7) ** 2 + 0.8 * config["x"] * (1.0 / level - 1.0 / 27.0))


@dataclass
class Study:
    """A study, with its stages (trial, x, level) and the number of events before each."""

    engine: StagedOptimizer
    stages: list[tuple[int, float, int]]
    events: list[int]


def drive(engine: StagedOptimizer, stages: int) -> Study:
    study = Study(engine, [], [])
    for _ in range(stages):
        study.events.append(len(engine.log.events()))
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        study.stages.append((trial.number, trial.config["x"], trial.assignment.level))
        engine.tell(
            trial, loss_at(trial.config, trial.assignment.level), float(trial.assignment.level)
        )
    return study


def fresh(seed: int) -> StagedOptimizer:
    return StagedOptimizer(Optimizer(SPACE, seed=seed), FreezeThaw(), seed=seed)


@pytest.fixture(scope="module")
def study() -> Study:
    """A study of 150 stages, which the tests below read and do not change."""
    return drive(fresh(2), 150)


def test_a_study_rebuilt_from_its_log_asks_the_same(study: Study) -> None:
    optimizer = replay(study.engine.log.events()[: study.events[25]], Optimizer(SPACE, seed=2))
    again = drive(StagedOptimizer(optimizer, FreezeThaw(), seed=2), 12)
    assert again.stages == study.stages[25:37]


def test_the_best_end_is_found_although_early_losses_mislead(study: Study) -> None:
    log = study.engine.log
    assert sum(o.cost or 0.0 for o in log.observations + log.paused) < 27 * 25
    assert min(abs(o.config["x"] - 0.7) for o in log.observations) < 0.02
    first = [x for _, x, level in study.stages if level == 1]
    led = min(first, key=lambda x: loss_at({"x": x}, 1))
    assert abs(led - 0.7) > 0.2  # the best run at the first level is another one


def test_the_prediction_of_a_new_run_is_about_its_end(study: Study) -> None:
    predicted = [
        (t.prediction, loss_at(t.config, 27))
        for t in study.engine.log.trials
        if t.prediction is not None and t.prediction.loss is not None
    ][-8:]
    errors = [abs(p.loss - end) for p, end in predicted if p.loss is not None]
    assert np.median(errors) < 0.05
    costs = [p.cost for p, _ in predicted if p.cost is not None]
    assert len(costs) == 8 and 20.0 < min(costs) and max(costs) < 35.0


def test_better_runs_have_a_higher_probability_of_being_best(study: Study) -> None:
    forecast, log = study.engine.optimizer.forecast, study.engine.log
    assert forecast is not None
    paused = [o.number for o in log.paused]
    probability = forecast.probability_of_best(log, paused)
    assert np.all((probability >= 0.0) & (probability <= 1.0))
    order = np.argsort([loss_at(log.trial(n).config, 27) for n in paused])
    quarter = len(paused) // 4
    assert quarter >= 2
    assert probability[order[:quarter]].mean() > probability[order[-quarter:]].mean()


def test_a_paused_run_counts_as_a_success() -> None:
    engine = fresh(4)
    for _ in range(24):
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        if trial.config["x"] > 0.8:
            engine.tell(trial, failed="oom")
        else:
            engine.tell(trial, loss_at(trial.config, trial.assignment.level), 1.0)
    assert any(o.status is Status.FAILED for o in engine.log.observations)
    last = [t.prediction for t in engine.log.trials if t.prediction is not None][-1]
    assert last.success is not None and last.success > 0.7


def test_no_near_duplicate_of_a_paused_run_is_started() -> None:
    """Before any end is known one place looks best; once it is taken, runs must look elsewhere."""
    engine = StagedOptimizer(Optimizer(SPACE, seed=0), FreezeThaw(breadth=100.0), seed=0)
    drive(engine, 20)
    x = np.array([t.config["x"] for t in engine.log.trials])
    assert len(x) >= 18
    nearest = [float(np.min(np.abs(x[:i] - x[i]))) for i in range(4, len(x))]
    assert np.median(nearest) > 0.01
