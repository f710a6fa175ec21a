"""Central 90 % interval of a single run, the same wherever it is shown.

An interval is `mean +- k sd` with the model's own standard deviation, noise included. The factor
`k` is calibrated on the study: a conformal quantile of the residuals of its recent runs
(:mod:`hpo.models.surrogate_selector`), not the 1.64 of a normal distribution. Beyond the largest
run it is that at least.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from hpo.models.fitted import Models
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.surrogate_selector import COVERAGE
from hpo.trials.records import Interval
from surrogates.base import Predictor, Rescaled
from surrogates.cost import CostPredictor
from surrogates.data import Array
from surrogates.gp import GPPredictor
from surrogates.numerics import bounded_exp, normal_half_width
from surrogates.quantile_forest import ForestPredictor
from surrogates.scaling_law.model import ScalingPredictor


@dataclass(frozen=True, slots=True)
class Expected:
    """Expected value of one run, with its interval.

    Attributes:
        mean: Expected value; for the quantile forest the median.
        interval: Ends of the central 90 % interval, in the same unit.

    Example:
        >>> Expected(0.3, (0.2, 0.4)).interval
        (0.2, 0.4)
    """

    mean: float
    interval: Interval


def loss_forecast(
    warp: InputWarp,
    row: Array,
    *,
    model: Predictor,
    forest: ForestPredictor | None = None,
) -> Expected:
    """Forecast the loss of one run, in the user's direction.

    Args:
        warp: Models of the log, with the selector that calibrates them.
        row: 1 x d, encoded config.
        model: Model of the loss, one of the models of `warp`.
        forest: Quantile forest, where it is used in place of the model.
    """
    if forest is not None:
        low, mean, high = warp.selector.interval(forest, row)
    else:
        half, mean = _half_width(warp, model, row)
        low, high = mean - half, mean + half
    sign = warp.encoder.loss_sign
    first, last = sorted([sign * low, sign * high])
    return Expected(sign * mean, (first, last))


def cost_forecast(warp: InputWarp, row: Array, *, model: CostPredictor) -> Expected:
    """Forecast the cost of one run, in the study's unit.

    Args:
        warp: Models of the log, with the selector that calibrates them.
        row: 1 x d, encoded config.
        model: Model of ln cost.
    """
    half, mean = _half_width(warp, model, row)
    return Expected(bounded_exp(mean), (bounded_exp(mean - half), bounded_exp(mean + half)))


def extrapolation(models: Models, fixed: Array) -> float:
    """Return the compute at encoded sizes over that of the largest run, as a product of the axes.

    Args:
        models: Models of the log.
        fixed: `(scales,)`, encoded values of the scale axes; empty without any, which gives 1.
    """
    columns = models.encoder.columns
    if not len(fixed):
        return 1.0
    reached = models.runs.X[:, columns.scale] @ columns.width[columns.scale]
    distance = fixed @ columns.width[columns.scale] - float(np.max(reached))
    return math.exp(min(float(distance), 700.0))


def _half_width(warp: InputWarp, model: Predictor, row: Array) -> tuple[float, float]:
    """Return half the interval and the mean at one row, in units of `model`."""
    posterior = model.posterior(row)
    process = model.predictor if isinstance(model, Rescaled) else model
    assert isinstance(process, GPPredictor)
    scored = isinstance(model, Rescaled) and not warp.models.uses_partial_runs  # in blocks
    calibration = warp.selector.calibration(process, row, online=scored)
    factor = calibration.finite_multiplier(COVERAGE)
    if extrapolation(warp.models, row[0, warp.encoder.columns.scale]) > 1.0:
        # the residuals of the runs say little of larger ones: they may widen, but not narrow
        factor = max(factor, normal_half_width(COVERAGE))
    variance = float(posterior.variance[0]) + model.noise_variance
    if isinstance(model, ScalingPredictor):
        variance += float(model.extrapolation_variance(row)[0])
    sd = math.sqrt(variance)
    return factor * sd, float(posterior.mean[0])
