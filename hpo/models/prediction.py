"""What one run is expected to do before it is made: its loss, cost, seconds, and whether it lives.

All come from the surrogates that drive the search, so a prediction at a scale nobody ran is the
fitted laws' (:mod:`hpo.scaling.scaling_law`, :mod:`hpo.scaling.cost_law`), bent near the runs by what the laws miss there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from hpo.models.fitted import Models
from hpo.models.success_extrapolation import SuccessExtrapolation
from hpo.scaling.cost_law import CostLaw
from hpo.trials import Prediction
from hpo.trials.records import Interval
from surrogates.base import Rescaled
from surrogates.calibration import Calibration
from surrogates.gp import GPPredictor

_CALIBRATED = 200  # runs whose residuals widen or narrow an interval
_NINETY = 1.6448536269514722  # normal quantile of a central 90 % interval


def predict(
    models: Models,
    config: dict[str, Any],
    *,
    cost_law: CostLaw | None,
    wall_clock_law: CostLaw | None,
    extrapolation: float,
    warnings: tuple[str, ...],
) -> Prediction:
    """What the models expect of one run of ``config``, which is canonical.

    Args:
        models: fitted to at least one completed run.
        cost_law: in the study's unit. wall_clock_law: in seconds.
        extrapolation, warnings: handed on.
    """
    encoder = models.encoder
    row = encoder.encode([config])
    model = models.loss()
    belief = model.posterior(row)
    sds = _NINETY
    if not len(encoder.columns.scale):  # the law of sizes has an error model of its own
        process = model.predictor if isinstance(model, Rescaled) else model
        assert isinstance(process, GPPredictor)
        sds = Calibration.recent(process, _CALIBRATED).shown(0.9)
    half = sds * math.sqrt(float(belief.variance[0]) + model.noise_variance)
    loss = encoder.loss_sign * float(belief.mean[0])
    cost, cost_interval = _priced(cost_law, config)
    seconds, seconds_interval = _priced(wall_clock_law, config)
    success = SuccessExtrapolation.of(models)
    return Prediction(
        config=config,
        loss=loss,
        loss_interval=(loss - half, loss + half),
        cost=cost,
        cost_interval=cost_interval,
        cost_unit=None if cost_law is None else cost_law.unit,
        seconds=seconds,
        seconds_interval=seconds_interval,
        success=None if success is None else float(success.probability(row)[0]),
        extrapolation=extrapolation,
        warnings=warnings,
    )


def _priced(law: CostLaw | None, config: Mapping[str, Any]) -> tuple[float | None, Interval | None]:
    return (None, None) if law is None else law.predict(config)
