"""Runs held against the front by their own curves."""

import numpy as np
import pytest

from hpo import Fidelity, Float, FreezeThaw, Optimizer, Report, Scale, SearchSpace, StagedOptimizer
from hpo.models.curve_forecast import CurveForecast
from hpo.space.encoding import Encoder
from hpo.trials import Observation, RungAssignment, Status, Trial, TrialLog

SPACE = SearchSpace({"x": Float(0.0, 1.0), "params": Scale(1e5, 1e7), "epochs": Fidelity(1, 27)})
CHEAP, DEAR = 1e5, 1e7


def curve(end: float, level: int) -> float:
    """From 2 at the first level to `end` at the last."""
    return end + (2.0 - end) * (level**-0.8 - 27**-0.8) / (1.0 - 27**-0.8)


def train(log: TrialLog, params: float, end: float, level: int, *, priced: bool = True) -> int:
    config = {"x": 0.5, "params": params, "epochs": 27}
    trial = Trial(log.next_number, config, log.next_ask_index, None, None, RungAssignment(level))
    log.add(trial)
    for step in range(1, level + 1):
        log.report(trial.number, Report(step, curve(end, step)))
    status = Status.COMPLETED if level == 27 else Status.PAUSED
    cost = level * params if priced else None
    log.tell(
        Observation(
            trial.number,
            trial.config,
            curve(end, level),
            cost,
            status,
            None,
            log.next_order,
            trial.ask_index,
        )
    )
    return trial.number


def test_a_run_is_held_against_those_that_cost_no_more() -> None:
    log = TrialLog()
    for end in (1.0, 1.1, 1.2):
        train(log, CHEAP, end, 27)
    for end in (0.3, 0.4, 0.5):
        train(log, DEAR, end, 27)
    numbers = [train(log, params, 0.8, 9) for params in (CHEAP, DEAR)]
    cheap, dear = CurveForecast(Encoder(SPACE)).probability_of_best(log, numbers)
    assert cheap > 0.9 and dear < 0.1


@pytest.mark.parametrize("priced", [True, False])
def test_before_any_end_the_best_curve_promises_most(priced: bool) -> None:
    log = TrialLog()
    ends = [1.2, 0.4, 0.9, 0.6]
    numbers = [train(log, CHEAP, end, 9, priced=priced) for end in ends]
    promise = CurveForecast(Encoder(SPACE)).probability_of_best(log, numbers)
    assert int(np.argmax(promise)) == int(np.argmin(ends))
    assert promise.max() == pytest.approx(0.5, abs=0.01)  # held against its own median


def test_without_any_loss_nothing_is_known() -> None:
    log = TrialLog()
    config = {"x": 0.5, "params": CHEAP, "epochs": 27}
    log.add(Trial(0, config, 0, None, None, RungAssignment(3)))
    assert CurveForecast(Encoder(SPACE)).probability_of_best(log, [0]).tolist() == [0.5]


def test_a_study_over_sizes_goes_on_with_what_its_curves_promise() -> None:
    optimizer = Optimizer(SPACE, seed=0)
    engine = StagedOptimizer(optimizer, FreezeThaw(breadth=0.5, floor=10**6, price=0.0), seed=0)
    forecast = CurveForecast(optimizer.encoder)
    followed = 0
    for _ in range(60):
        resting = [o.number for o in engine.log.paused]
        promise = forecast.probability_of_best(engine.log, resting) if resting else np.zeros(0)
        trial = engine.ask()
        assert trial is not None and trial.assignment is not None
        if trial.number in resting and followed:  # the first promotion is the rank rule's
            assert promise[resting.index(trial.number)] == pytest.approx(promise.max())
        followed += trial.number in resting
        level, params = trial.assignment.level, trial.config["params"]
        end = 0.2 + (trial.config["x"] - 0.5) ** 2 + (params / CHEAP) ** -0.3
        engine.tell(trial, curve(end, level), level * params)
    assert followed >= 5
    assert any(o.status is Status.COMPLETED for o in engine.log.observations)
