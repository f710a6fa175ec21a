"""Median stopping against its definition."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo import Cause, Observation, Report, Status, Trial
from hpo.schedulers import (
    Decision,
    MedianStopping,
)
from hpo.trials import RungAssignment, TrialLog
from tests.contracts.scheduler import space
from tests.schedulers.tables import tell


@given(st.lists(st.lists(st.floats(0, 1), min_size=9, max_size=9), min_size=8, max_size=12))
@settings(max_examples=10, deadline=None)
def test_median_stopping_is_its_definition(curves: list[list[float]]) -> None:
    schedule, log = MedianStopping(after=2, among=3).begin(space(1, 9)), TrialLog()
    told: list[list[float]] = []
    for number, curve in enumerate(curves):
        trial = Trial(number, {"x": 0.0, "epochs": 9}, 0, None, None, RungAssignment(9))
        log.add(trial)
        own: list[float] = []
        for step, value in enumerate(curve, start=1):
            own.append(value)
            log.report(number, Report(step, value))
            averages = [math.fsum(c[:step]) / step for c in told if len(c) >= step]
            stops = step >= 2 and len(averages) >= 3 and min(own) > np.median(averages) + 1e-12
            close = bool(averages) and abs(min(own) - float(np.median(averages))) < 1e-9
            decision = schedule.on_report(trial, Report(step, value), log)
            assert close or decision is (Decision.STOP if stops else Decision.CONTINUE)
            if decision is Decision.STOP:
                break
        told.append(own)
        tell(log, trial, None, Status.STOPPED)


def test_a_retry_of_a_lost_attempt_is_judged_by_its_own_reports() -> None:
    schedule, log = MedianStopping(among=1).begin(space(1, 9)), TrialLog()

    def decision(number: int, step: int, loss: float) -> Decision:
        log.report(number, Report(step, loss))
        return schedule.on_report(log.trial(number), Report(step, loss), log)

    for number, parent in ((0, None), (1, None), (2, 1)):
        log.add(Trial(number, {"x": 0.0, "epochs": 9}, 0, None, parent, RungAssignment(9)))
        if number == 1:
            assert decision(0, 1, 0.5) is decision(1, 1, 0.1) is Decision.CONTINUE
            lost = (Status.FAILED, Cause.LOST, log.next_order, 0)
            log.tell(Observation(1, log.trial(1).config, None, None, *lost))
    assert decision(2, 2, math.nan) is Decision.CONTINUE  # no loss of its own yet
    assert decision(0, 3, 0.5) is Decision.CONTINUE
    assert decision(2, 3, 0.6) is Decision.STOP  # whatever the lost attempt had reached
