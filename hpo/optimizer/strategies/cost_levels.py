"""What cost means to a strategy: the cap, the level of an ask, and the runs within reach."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from hpo.acquisition import CostBelow
from hpo.optimizer.ask import CostLimits
from hpo.space.encoding import Box, Encoder
from surrogates.conformal import Calibration
from surrogates.cost import CostPredictor
from surrogates.data import Array
from surrogates.numerics import normal_half_width

SLACK = 0.35  # ln cost that a candidate may lie above the drawn level
_CHEAP_SHARE = 0.2  # of the range of ln cost: the cheap end competes as one point, as in CARBS
_CALIBRATED = 200  # runs whose cost calibrates the cap
_CAP_COVERAGE = 0.9  # of the intervals that are compared


@dataclass(frozen=True, slots=True)
class CostMean:
    """Mean of a cost model, as fronts need it."""

    cost: CostPredictor

    def mean(self, X: Array) -> Array:
        return self.cost.posterior(X).mean


def known_costs(log_costs: Array, X: Array, cost: CostPredictor | None) -> Array:
    """Return observed ln costs, predicted where none was told; zeros without a cost model."""
    if cost is None:
        return np.zeros(len(X))
    missing = np.isnan(log_costs)
    known = log_costs.copy()
    if np.any(missing):
        known[missing] = cost.posterior(X[missing]).mean
    return known


def below_cap(cost: CostPredictor, log_cap: float) -> CostBelow:
    """Return the term that a run costs less than the cap, as sure as past errors allow.

    It is never surer than the model is itself: a run above the cap is lost, one below it is not won.
    """
    widening = Calibration.recent(cost, _CALIBRATED).finite_multiplier(
        _CAP_COVERAGE
    ) / normal_half_width(_CAP_COVERAGE)
    return CostBelow(cost, log_cap, max(widening, 1.0))


def affordable(
    log_costs: Array, cost: CostPredictor | None, limits: CostLimits
) -> NDArray[np.bool_]:
    """Return which runs are within the cap, up to their noise; all if none is.

    The others are no standard to beat: nothing that may be run reaches it.
    """
    everything = np.ones(len(log_costs), dtype=bool)
    if cost is None or limits.log_cap is None:
        return everything
    within = log_costs <= limits.log_cap + 2.0 * np.sqrt(cost.noise_variance)
    return within if within.any() else everything


def cost_level(
    encoder: Encoder,
    box: Box,
    cost: CostPredictor,
    log_costs: Array,
    limits: CostLimits,
    pool: Array | None,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """Return the cost level of this ask and the highest one possible, both in ln.

    Levels run from the cheap end of the visited runs to the most expensive run that the box (or the
    pool) and the cap allow. The cheap end is a share of the range, not of the runs as in CARBS:
    there expensive runs raise it, the next runs are more expensive still, and the cheap half of the
    front is never visited again.
    """
    within = pool
    if within is None:
        sample = qmc.Sobol(len(encoder.lower), scramble=True, rng=rng).random(128)
        within = encoder.from_unit(sample, box)
    reachable = cost.posterior(within).mean
    cheapest = float(np.min(log_costs))
    high = max(float(np.max(reachable)), float(np.max(log_costs)))
    if limits.log_cap is not None:
        high = min(high, limits.log_cap)
    low = min(cheapest + _CHEAP_SHARE * (high - cheapest), high)
    return low + limits.level * (high - low), high
