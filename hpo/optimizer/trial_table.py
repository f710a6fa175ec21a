"""The table of a result: one row for each trial that has one, paused trials included."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.space import SearchSpace
from hpo.trials import Observation, Prediction, Report, Status, TrialLog
from hpo.trials.failures import last_line
from hpo.trials.pareto import Objectives, pareto_set
from hpo.trials.table_columns import column_names

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["OURS", "Attempt", "trained_level", "trial_table"]

#: Columns that are ours; the parameters stand behind the first of them, the metrics at the end.
OURS = (
    "number",
    "loss",
    "cost",
    "seconds",
    "status",
    "cause",
    "trained_level",
    "predicted_loss",
    "predicted_loss_low",
    "predicted_loss_high",
    "predicted_cost",
    "predicted_cost_low",
    "predicted_cost_high",
    "predicted_success",
    "reason",
    "started",
    "worker",
    "attempts",
    "failure",
    "traceback",
)
_OF_OBJECTIVES = ("feasible", "on_front")  # where there are several objectives or constraints


@dataclass(frozen=True, slots=True)
class Attempt:
    """When and by whom a trial was run.

    Attributes:
        started: When it was started first, in local time; None if unknown.
        worker: Index of the `optimize` call that ran it, of those that drove the study side by
            side; None if unknown.
        attempts: Number of attempts, those included that were lost.
    """

    started: datetime | None = None
    worker: int | None = None
    attempts: int | None = None


def trial_table(
    log: TrialLog,
    space: SearchSpace,
    attempts: Mapping[int, Attempt],
    objectives: Objectives | None = None,
) -> pd.DataFrame:
    """Return one row per trial with a result, finished ones first.

    Args:
        log: Every trial.
        space: Its space, whose parameters all have a column.
        attempts: When and by whom trials were run, by number.
        objectives: Objectives and constraints; None for one loss.
    """
    import pandas as pd

    observations = (*log.runs, *log.paused)
    ours = OURS if objectives is None else (*OURS, *_OF_OBJECTIVES)
    standing = {} if objectives is None else _standing(observations, objectives)
    metrics = {o.number: _metrics(o, log.reports(o.number) or o.reports) for o in observations}
    if objectives is not None and objectives.first != "loss":  # by its own name as well
        for o in observations:
            metrics[o.number][objectives.first] = o.loss
    settings, measured = column_names(
        ours,
        [*space, *(name for o in observations for name in o.config)],
        [name for values in metrics.values() for name in values],
    )
    rows = []
    for o in observations:
        trial = None if o.ask_index is None else log.trial(o.number)
        attempt = attempts.get(o.number, Attempt())
        rows.append(
            {
                "number": o.number,
                **{settings[name]: value for name, value in o.config.items()},
                "loss": o.loss,
                "cost": o.cost,
                "seconds": o.seconds,
                "status": o.status.value,
                "cause": None if o.cause is None else o.cause.value,
                "trained_level": trained_level(o, log, space.fidelity),
                **_predicted(None if trial is None else trial.prediction),
                "started": attempt.started,
                "worker": attempt.worker,
                "attempts": attempt.attempts,
                "failure": last_line(o.error) or None,
                "traceback": o.error or None,
                **standing.get(o.number, {}),
                **{measured[name]: value for name, value in metrics[o.number].items()},
            }
        )
    number, *others = ours
    columns = [number, *settings.values(), *others, *measured.values()]
    return pd.DataFrame(rows, columns=columns)


def _standing(
    observations: Sequence[Observation], objectives: Objectives
) -> dict[int, dict[str, bool]]:
    """Return whether each completed trial keeps the constraints and is on the front."""
    values = {
        o.number: told
        for o in observations
        if o.status is Status.COMPLETED and (told := objectives.values(o)) is not None
    }
    kept = [number for number, told in values.items() if objectives.feasible(told)]
    front = pareto_set(np.array([objectives.losses(values[number]) for number in kept]))
    best = {kept[i] for i in front.tolist()}
    return {n: {"feasible": n in set(kept), "on_front": n in best} for n in values}


def trained_level(o: Observation, log: TrialLog, fidelity: str | None) -> int | None:
    """Return the level of the fidelity up to which a trial was trained, or the last it reported.

    Args:
        o: Its result.
        log: Log that holds it.
        fidelity: Name of the fidelity; None without one.
    """
    if fidelity is None:
        return None
    assignment = None if o.ask_index is None else log.assignment(o.number)
    highest: int = o.config[fidelity]
    level = highest if assignment is None else min(assignment.level, highest)
    if o.status.finished and o.status.value != "completed":  # it ended before
        reports = log.reports(o.number) or o.reports
        return min(level, reports[-1].step) if reports else None
    return level


def _predicted(prediction: Prediction | None) -> dict[str, Any]:
    if prediction is None:
        return {}
    found: dict[str, Any] = {
        "predicted_success": prediction.success,
        "reason": str(prediction.reason) if prediction.reason is not None else None,
    }
    for name, value, interval in (
        ("predicted_loss", prediction.loss, prediction.loss_interval),
        ("predicted_cost", prediction.cost, prediction.cost_interval),
    ):
        found[name] = value
        found[f"{name}_low"], found[f"{name}_high"] = interval or (None, None)
    return found


def _metrics(o: Observation, reports: Sequence[Report]) -> dict[str, Any]:
    """Return the metrics of a trial by name, the last reported value of what it did not return."""
    metrics: dict[str, Any] = {}
    for report in reports:
        metrics.update(report.metrics)
    return {**metrics, **o.metrics}
