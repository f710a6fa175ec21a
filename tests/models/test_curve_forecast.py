"""Forecasts of partial runs from their own learning curves."""

from collections.abc import Sequence

import numpy as np
import pytest

from hpo import Fidelity, Float, FreezeThaw, Optimizer, Report, Scale, SearchSpace
from hpo.models.curve_forecast import CurveForecast
from hpo.schedulers import Promote, Start
from hpo.space.encoding import Encoder
from hpo.trials import Observation, RungAssignment, Status, Trial, TrialLog
from surrogates.data import Array

SPACE = SearchSpace({"x": Float(0.0, 1.0), "params": Scale(1e5, 1e7), "epochs": Fidelity(1, 27)})
CHEAP, EXPENSIVE = 1e5, 1e7


def curve(end: float, level: int) -> float:
    """From 2 at the first level to `end` at the last."""
    return end + (2.0 - end) * (level**-0.8 - 27**-0.8) / (1.0 - 27**-0.8)


def train(log: TrialLog, params: float, end: float, level: int, *, priced: bool = True) -> int:
    config = {"x": 0.5, "params": params, "epochs": 27}
    trial = Trial(log.next_number, config, log.next_ask_index, None, None, RungAssignment(level))
    log.add(trial)
    for step in range(1, level + 1):
        log.report(trial.number, Report(step, curve(end, step)))
    told(log, trial, curve(end, level), level * params if priced else None)
    return trial.number


def told(log: TrialLog, trial: Trial, loss: float, cost: float | None) -> None:
    """Tell that the trial has reached its level."""
    assert trial.assignment is not None
    status = Status.COMPLETED if trial.assignment.level == 27 else Status.PAUSED
    log.tell(
        Observation(
            trial.number, trial.config, loss, cost, status, None, log.next_order, trial.ask_index
        )
    )


def test_a_run_is_compared_with_those_that_cost_no_more() -> None:
    log = TrialLog()
    for end in (1.0, 1.1, 1.2):
        train(log, CHEAP, end, 27)
    for end in (0.3, 0.4, 0.5):
        train(log, EXPENSIVE, end, 27)
    numbers = [train(log, params, 0.8, 9) for params in (CHEAP, EXPENSIVE)]
    cheap, expensive = CurveForecast(Encoder(SPACE)).probability_of_best(log, numbers)
    assert cheap > 0.9 and expensive < 0.1


@pytest.mark.parametrize("priced", [True, False])
def test_before_any_run_has_ended_the_best_curve_is_most_probable(priced: bool) -> None:
    log = TrialLog()
    ends = [1.2, 0.4, 0.9, 0.6]
    numbers = [train(log, CHEAP, end, 9, priced=priced) for end in ends]
    probability = CurveForecast(Encoder(SPACE)).probability_of_best(log, numbers)
    assert int(np.argmax(probability)) == int(np.argmin(ends))
    assert probability.max() == pytest.approx(0.5, abs=0.01)  # compared with its own median


def test_before_any_loss_every_run_has_probability_one_half() -> None:
    log = TrialLog()
    config = {"x": 0.5, "params": CHEAP, "epochs": 27}
    log.add(Trial(0, config, 0, None, None, RungAssignment(3)))
    assert CurveForecast(Encoder(SPACE)).probability_of_best(log, [0]).tolist() == [0.5]


def test_an_optimizer_over_sizes_forecasts_from_curves() -> None:
    assert isinstance(Optimizer(SPACE).forecast, CurveForecast)


class RecordedForecast(CurveForecast):
    """A forecast that keeps its last answer, by trial number."""

    last: dict[int, float]

    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        probability = super().probability_of_best(log, numbers)
        self.last = dict(zip(numbers, probability.tolist(), strict=True))
        return probability


def test_a_scheduler_over_sizes_resumes_the_run_most_likely_to_be_best() -> None:
    log, forecast = TrialLog(), RecordedForecast(Encoder(SPACE))
    schedule = FreezeThaw(breadth=0.5, floor=10**6, price=0.0).begin(
        SPACE, direction="minimize", seed=0, forecast=forecast
    )
    rng = np.random.default_rng(0)
    resumed = []
    for _ in range(40):
        match schedule.next(log):
            case Start(assignment):
                config = {"x": rng.random(), "params": 10 ** rng.uniform(5, 7), "epochs": 27}
                trial = Trial(
                    log.next_number, config, log.next_ask_index, None, assignment=assignment
                )
                log.add(trial)
            case Promote(number, level):
                if resumed:  # the first promotion is that of the rank rule
                    assert set(forecast.last) == {o.number for o in log.paused}
                    assert forecast.last[number] == max(forecast.last.values())
                trial = log.resume(number, level)
                resumed.append(number)
        assert trial.assignment is not None
        level, params = trial.assignment.level, trial.config["params"]
        end = 0.2 + (trial.config["x"] - 0.5) ** 2 + (params / CHEAP) ** -0.3
        told(log, trial, curve(end, level), level * params)
    assert len(resumed) >= 5
    assert any(o.status is Status.COMPLETED for o in log.observations)
