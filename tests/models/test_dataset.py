"""Runs on their way as rows of a model, and what the search makes of them."""

import math
from collections.abc import Sequence
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
from hpo.trials import Event, Reported, RungAssignment, TrialLog

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
    stages = PartialRuns(Encoder(space))
    stages.sync(log)
    levels = np.exp(stages.X[:, 1] * math.log(27))
    return [
        (float(x), round(float(level), 9), float(loss))
        for x, level, loss in zip(stages.X[:, 0], levels, stages.loss, strict=True)
    ]


def test_each_level_of_a_run_is_one_row_by_what_was_said_first() -> None:
    log = TrialLog()
    trial = asked(log, 0.5, 3)
    for step, loss in ((1, 9.0), (2, 8.0), (3, 7.0)):
        log.report(trial.number, Report(step, loss))
    told(log, trial, 7.5)  # the loss at 3 is known by now; that at 2 is too near that at 1
    log.resume(trial.number, 9)
    told(log, log.trial(trial.number), 6.0)
    assert read(log) == [(0.5, 1.0, 9.0), (0.5, 3.0, 7.0), (0.5, 9.0, 6.0)]


def test_a_lost_attempt_and_the_run_that_carries_it_on_are_one_run() -> None:
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


def test_a_stopped_run_counts_with_its_last_report() -> None:
    log = TrialLog()
    trial = asked(log, 0.5, 27)
    for step in (1, 2, 3, 4):
        log.report(trial.number, Report(step, 1.0 / step))
    told(log, trial, None, Status.STOPPED)
    assert read(log) == [(0.5, 1.0, 1.0), (0.5, 3.0, 1.0 / 3.0), (0.5, 4.0, 0.25)]


def test_results_from_elsewhere_count_once_a_scheduler_has_placed_a_run() -> None:
    log = TrialLog()
    elsewhere = asked(log, 0.9, 0)
    told(log, elsewhere, 4.0, Status.COMPLETED)
    assert read(log) == []  # no scheduler is at work: the model of whole runs has it
    trial = asked(log, 0.5, 3)
    told(log, trial, 7.0)
    assert read(log) == [(0.5, 3.0, 7.0), (0.9, 27.0, 4.0)]


def test_a_space_with_scale_axes_is_not_read() -> None:
    space = SearchSpace({**SPACE, "params": Scale(1e5, 1e7)})
    log = TrialLog()
    log.add(Trial(0, {"x": 0.5, "epochs": 27, "params": 1e6}, 0, None, None, RungAssignment(3)))
    assert read(log, space) == []


# --- the search ----------------------------------------------------------------------------------


def replayed(events: Sequence[Event], optimizer: Optimizer) -> None:
    """Make the optimizer's log what another one was."""
    log = optimizer.log
    for event in events:
        match event:
            case Trial() if event.number < log.next_number:
                assert event.assignment is not None
                log.resume(event.number, event.assignment.level)
            case Trial():
                optimizer.add_pending(event)
            case Reported(number, report):
                log.report(number, report)
            case Observation():
                optimizer.record(event)


def loss_at(config: dict[str, Any], level: int) -> float:
    """A bowl about 0.7 at the end, about 0.3 at the first level: early losses mislead."""
    return float((config["x"] - 0.7) ** 2 + 0.8 * config["x"] * (1.0 / level - 1.0 / 27.0))


def drive(engine: StagedOptimizer, stages: int) -> list[tuple[int, float, int]]:
    path = []
    for _ in range(stages):
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        path.append((trial.number, trial.config["x"], trial.assignment.level))
        engine.tell(
            trial, loss_at(trial.config, trial.assignment.level), float(trial.assignment.level)
        )
    return path


def test_a_study_rebuilt_from_its_log_asks_the_same() -> None:
    whole = drive(StagedOptimizer(Optimizer(SPACE, seed=1), FreezeThaw(), seed=1), 40)
    before = StagedOptimizer(Optimizer(SPACE, seed=1), FreezeThaw(), seed=1)
    assert drive(before, 25) == whole[:25]
    optimizer = Optimizer(SPACE, seed=1)
    replayed(before.log.events(), optimizer)
    assert drive(StagedOptimizer(optimizer, FreezeThaw(), seed=1), 15) == whole[25:]


def test_the_best_end_is_found_although_early_losses_mislead() -> None:
    engine = StagedOptimizer(Optimizer(SPACE, seed=2), FreezeThaw(), seed=2)
    path = drive(engine, 150)
    spent = engine.log.observations + engine.log.paused
    assert sum(o.cost or 0.0 for o in spent) < 27 * 25
    done = [o.config["x"] for o in engine.log.observations]
    assert min(abs(x - 0.7) for x in done) < 0.02
    first = min((x for _, x, level in path if level == 1), key=lambda x: loss_at({"x": x}, 1))
    assert abs(first - 0.7) > 0.2  # what led at the first level is not what was found


def test_the_belief_of_a_new_run_is_about_its_end() -> None:
    engine = StagedOptimizer(Optimizer(SPACE, seed=3), FreezeThaw(), seed=3)
    drive(engine, 100)
    asked = [
        t for t in engine.log.trials if t.prediction is not None and t.prediction.loss is not None
    ]
    beliefs = [(t.prediction, loss_at(t.config, 27)) for t in asked if t.prediction is not None]
    errors = [abs(belief.loss - end) for belief, end in beliefs[-8:] if belief.loss is not None]
    assert np.median(errors) < 0.05
    costs = [belief.cost for belief, _ in beliefs[-8:] if belief.cost is not None]
    assert len(costs) == 8 and 20.0 < min(costs) and max(costs) < 35.0


def test_what_rests_has_survived() -> None:
    engine = StagedOptimizer(Optimizer(SPACE, seed=4), FreezeThaw(), seed=4)
    for _ in range(40):
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        if trial.config["x"] > 0.8:
            engine.tell(trial, failed="oom")
        else:
            engine.tell(trial, loss_at(trial.config, trial.assignment.level), 1.0)
    last = [t for t in engine.log.trials if t.prediction is not None][-1]
    assert last.prediction is not None and last.prediction.success > 0.7


def test_promises_are_ranked_like_the_ends() -> None:
    engine = StagedOptimizer(Optimizer(SPACE, seed=5), FreezeThaw(), seed=5)
    drive(engine, 60)
    forecast = engine.optimizer.forecast
    assert forecast is not None
    resting = [o.number for o in engine.log.paused]
    promise = forecast.probability_of_best(engine.log, resting)
    assert np.all((promise >= 0.0) & (promise <= 1.0))
    ends = [loss_at(engine.log.trial(n).config, 27) for n in resting]
    good = np.argsort(ends)[: len(ends) // 4]
    poor = np.argsort(ends)[-(len(ends) // 4) :]
    assert promise[good].mean() > promise[poor].mean()


def test_no_twin_is_started_of_a_run_that_rests() -> None:
    """While nothing is known of ends, one place looks best; once there, runs look elsewhere."""
    engine = StagedOptimizer(Optimizer(SPACE, seed=0), FreezeThaw(breadth=100.0), seed=0)
    drive(engine, 20)
    x = np.array([t.config["x"] for t in engine.log.trials])
    assert len(x) >= 18
    nearest = [float(np.min(np.abs(x[:i] - x[i]))) for i in range(4, len(x))]
    assert np.median(nearest) > 0.01
