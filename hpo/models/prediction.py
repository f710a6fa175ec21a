"""Predict one run before it is made: loss, cost, seconds and probability of success.

All come from the surrogates that drive the search. So a prediction beyond the observed scales is
that of the fitted laws (:mod:`hpo.scaling.scaling_law`, :mod:`hpo.scaling.cost_law`), and near the
runs it is corrected by the laws' residuals.
"""

from __future__ import annotations

from typing import Any

from hpo.models.intervals import cost_forecast, loss_forecast
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.success_extrapolation import SuccessExtrapolation
from hpo.scaling.cost_law import CostLaw
from hpo.space import Direction
from hpo.trials import Prediction


def predict(
    warp: InputWarp,
    config: dict[str, Any],
    *,
    cost_unit: str,
    wall_clock_law: CostLaw | None,
    extrapolation: float,
    warnings: tuple[str, ...],
) -> Prediction:
    """Return what the models expect of one run of `config`.

    Args:
        warp: Models of the log, of at least one completed run.
        config: Canonical config.
        cost_unit: Name of the unit of the cost.
        wall_clock_law: Law of the seconds; None where no run was timed.
        extrapolation: Compute as a multiple of that of the largest run, copied to the prediction.
        warnings: Sentences on why to doubt the prediction, copied to it.
    """
    row = warp.encoder.encode([config])
    loss = loss_forecast(warp, row, model=warp.models.loss())
    price = warp.models.cost()
    cost = None if price is None else cost_forecast(warp, row, model=price)
    seconds, seconds_interval = (
        (None, None) if wall_clock_law is None else wall_clock_law.predict(config)
    )
    success = SuccessExtrapolation.of(warp.models)
    return Prediction(
        loss=loss.mean,
        loss_interval=loss.interval,
        cost=None if cost is None else cost.mean,
        cost_interval=None if cost is None else cost.interval,
        success=None if success is None else float(success.probability(row)[0]),
        config=config,
        cost_unit=None if cost is None else cost_unit,
        seconds=seconds,
        seconds_interval=seconds_interval,
        extrapolation=extrapolation,
        warnings=warnings,
        direction=Direction.of_sign(warp.encoder.loss_sign),
    )
