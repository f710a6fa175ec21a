"""The answer at a scale nobody ran yet: what to train with, and how far to trust it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.stats import qmc

from hpo.acquisition import Term
from hpo.acquisition.maximize import Region, maximize
from hpo.errors import SpaceError
from hpo.space import Scale, SearchSpace
from hpo.space.encoding import Encoder
from surrogates.base import Predictor
from surrogates.data import Array, IntArray
from surrogates.scaling import Optimum, ScalingPredictor

if TYPE_CHECKING:
    pass

NINETY = 1.6448536269514722  # normal quantile of a central 90 % interval
_CAUTION = 1.0  # standard deviations added to the mean when choosing what to recommend
_DRAWS = 256
_SPREAD = 512  # rows among which each draw looks for its optimum
_ONE_SIDED = 0.05  # share of runs on the other side of the optimum that is too few to place it
_FAR = 8.0  # times the dearest run's compute beyond which an answer is called bold
_KEY = 0x5CA1E  # random key of recommendations: the same log gives the same answer


@dataclass(frozen=True, slots=True)
class Recommendation:
    """What to train with.

    Attributes:
        config: every parameter, scale values included.
        intervals: central 90 % interval of where the optimum lies, per numeric parameter; a wide
            one says that the parameter hardly matters or that the data cannot tell.
        informed_by_data: share of the doubt about where the optimum at the target lies (its variance)
            that runs removed, per numeric parameter: near 0 the answer is the prior's, near 1 the
            runs'. Empty without scale axes.
        loss: predicted, of one run. loss_interval: central 90 %.
        target: scale values it is meant for, empty without scale axes.
        extrapolation: compute of the target over that of the dearest run, taken as the product of
            the scale axes; 1 without them.
        warnings: plain words on why to doubt it.
    """

    config: dict[str, Any]
    intervals: dict[str, tuple[float, float]]
    informed_by_data: dict[str, float]
    loss: float
    loss_interval: tuple[float, float]
    target: dict[str, float]
    extrapolation: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Cautious:
    """Minus (mean + one standard deviation) at fixed scale; a :class:`~hpo.acquisition.Term`.

    It is told in multiples of ``unit``, the loss that weighs as much as one e-fold of P(success):
    an answer must not depend on the unit of the loss.
    """

    model: Predictor
    scale: IntArray
    fixed: Array
    unit: float

    def value(self, X: Array) -> Array:
        p = self.model.posterior(_at_scale(X, self.scale, self.fixed))
        return -(p.mean + _CAUTION * np.sqrt(p.variance)) / self.unit

    def gradient(self, X: Array) -> tuple[Array, Array]:
        p = self.model.posterior_gradient(_at_scale(X, self.scale, self.fixed))
        sd = np.sqrt(np.maximum(p.variance, np.finfo(float).tiny))  # tiny losses: it underflows
        slope = -(p.d_mean + _CAUTION * p.d_variance / (2.0 * sd)[:, None])
        slope[:, self.scale] = 0.0
        return -(p.mean + _CAUTION * sd) / self.unit, slope / self.unit


def check_target(space: SearchSpace, target: Mapping[str, float]) -> dict[str, float]:
    """``target`` as floats, one for each scale axis.

    Raises:
        SpaceError: for a missing or unknown axis, a value that is not positive and finite, or a
            target smaller than the smallest proxy along every axis.
    """
    if not space.scales:
        raise SpaceError(
            f"`target` needs a space with Scale axes, got {dict(target)}; declare one, such as"
            " Scale(1e5, 1e7, axis=Axis.PARAMS), or leave the target out"
        )
    if set(target) != set(space.scales):
        raise SpaceError(
            f"`target` must name every scale axis and nothing else: {list(space.scales)},"
            f" got {list(target)}"
        )
    for name, value in target.items():
        is_number = isinstance(value, Real) and not isinstance(value, bool)
        if not (is_number and 0 < value < math.inf):
            raise SpaceError(
                f"`target[{name!r}]` must be positive and finite, got {value!r};"
                " give a size, such as 1e9"
            )
    lows = {name: scale.low for name, scale in space.items() if isinstance(scale, Scale)}
    if all(target[name] < low for name, low in lows.items()):
        raise SpaceError(
            f"`target` must not lie below every proxy, got {dict(target)} where the smallest proxy"
            f" is {lows}; name the scale of the final run, or lower the axes' `low`"
        )
    return {name: float(target[name]) for name in space.scales}


def _at_scale(X: Array, scale: IntArray, fixed: Array) -> Array:
    moved = X.copy()
    moved[:, scale] = fixed
    return moved


def _minimize(encoder: Encoder, score: Term, centers: Array, rng: np.random.Generator) -> Array:
    """The best row of ``score``, ``(d,)``."""
    lower, upper = encoder.box(centers)
    radii = np.full(len(lower), 0.25)
    region = Region(lower, upper, centers, radii, encoder.snap(centers), global_share=0.5)
    return maximize(score, encoder, region, centers[:0], candidates=1024, rng=rng).row


def _law_bounds(
    encoder: Encoder, model: ScalingPredictor, row: Array, fixed: Array
) -> tuple[Array, Array]:
    """Central 90 % bounds of where the optimum lies inside the box, ``(d,)`` each.

    About the row, which is the best of law and processes together. Where the processes moved it
    away from the law's own optimum, the law is wrong by about as much, and the interval reaches
    that far for this alone.
    """
    columns = encoder.columns
    low, high = row[0].copy(), row[0].copy()
    optimum = _law_optimum(encoder, model, row, fixed)
    place = columns.decision
    moved = row[0, place] - (optimum.mean - columns.origin[place]) / columns.width[place]
    variance = np.diagonal(optimum.covariance) / columns.width[place] ** 2
    half = np.sqrt(NINETY**2 * variance + moved**2)
    lower, upper = encoder.box(row)
    low[place] = np.clip(row[0, place] - half, lower[place], upper[place])
    high[place] = np.clip(row[0, place] + half, lower[place], upper[place])
    return low, high


def _law_optimum(encoder: Encoder, model: ScalingPredictor, row: Array, fixed: Array) -> Optimum:
    """Prediction about the law's optimum at encoded scales ``fixed``."""
    at = row.copy()
    at[:, encoder.columns.scale] = fixed
    return model.optimum(model.loss.layout.scales(at)[0])


def _drawn_bounds(
    encoder: Encoder, model: Predictor, row: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Quantiles 5 % and 95 % of the optima of joint posterior draws, ``(d,)`` each."""
    box = encoder.box(row)
    far = encoder.from_unit(qmc.Sobol(len(row[0]), scramble=True, rng=rng).random(_SPREAD), box)
    near = row + 0.1 * rng.standard_normal((_SPREAD // 2, len(row[0]))) * encoder.free
    X = np.concatenate([row, far, encoder.snap(near)])
    draws = model.joint_posterior(X).sample(_DRAWS, rng)
    low, high = np.quantile(X[np.argmin(draws, axis=1)], [0.05, 0.95], axis=0)
    return low, high
