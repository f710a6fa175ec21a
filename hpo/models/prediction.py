"""Predict one run before it is made: its loss, cost, seconds, and whether it succeeds.

All come from the surrogates that drive the search, so a prediction at a scale nobody ran is the
fitted laws' (:mod:`hpo.scaling.scaling_law`, :mod:`hpo.scaling.cost_law`), corrected near the runs
by what the laws miss there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hpo.models.intervals import loss_forecast
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.success_extrapolation import SuccessExtrapolation
from hpo.scaling.cost_law import CostLaw
from hpo.trials import Prediction
from hpo.trials.records import Interval


def predict(
    warp: InputWarp,
    config: dict[str, Any],
    *,
    cost_law: CostLaw | None,
    wall_clock_law: CostLaw | None,
    extrapolation: float,
    warnings: tuple[str, ...],
) -> Prediction:
    """Return what the models expect of one run of `config`.

    Args:
        warp: Models of the log, of at least one completed run.
        config: Canonical config.
        cost_law: Law of the cost in the study's unit; None where no cost was told.
        wall_clock_law: Law of the seconds; None where no run was timed.
        extrapolation: Compute over that of the largest run, handed on.
        warnings: Sentences on why to doubt the prediction, handed on.
    """
    row = warp.encoder.encode([config])
    loss = loss_forecast(warp, row, model=warp.models.loss())
    cost, cost_interval = _priced(cost_law, config)
    seconds, seconds_interval = _priced(wall_clock_law, config)
    success = SuccessExtrapolation.of(warp.models)
    return Prediction(
        loss=loss.mean,
        loss_interval=loss.interval,
        cost=cost,
        cost_interval=cost_interval,
        success=None if success is None else float(success.probability(row)[0]),
        config=config,
        cost_unit=None if cost_law is None else cost_law.unit,
        seconds=seconds,
        seconds_interval=seconds_interval,
        extrapolation=extrapolation,
        warnings=warnings,
    )


def _priced(law: CostLaw | None, config: Mapping[str, Any]) -> tuple[float | None, Interval | None]:
    return (None, None) if law is None else law.predict(config)
