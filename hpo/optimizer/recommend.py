"""Recommend: the config to train with at a scale nobody ran yet, and how far to trust it.

The posterior mean plus one standard deviation is minimized over the searched box, so that the
answer stays where the model knows something. Intervals say where the optimum lies: by the law's
posterior for the optimum, which moves with scale, where there are scale axes, widened by how far
the recommended value is from it; else by the optima of joint posterior draws. They always contain
the recommended value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from scipy.stats import qmc

from hpo.acquisition import ProbabilityOfSuccess, Region, Sum, Term, maximize
from hpo.errors import SpaceError
from hpo.models.fitted import Models
from hpo.models.intervals import extrapolation, loss_forecast
from hpo.models.log_scale_hedge import InputWarp
from hpo.space import Float, Int, Scale, SearchSpace
from hpo.space.encoding import Encoder
from surrogates.base import Predictor
from surrogates.data import Array, IntArray
from surrogates.numerics import normal_half_width
from surrogates.scaling_law.coefficients import Optimum
from surrogates.scaling_law.model import ScalingPredictor
from surrogates.transforms import location_scale

_NINETY = normal_half_width(0.9)  # in standard deviations
_CAUTION = 1.0  # standard deviations added to the mean when choosing what to recommend
_DRAWS = 256
_SPREAD = 512  # rows among which each draw looks for its optimum
_ONE_SIDED = 0.05  # share of runs on the other side of the optimum that is too few to place it
_FAR = 8.0  # times the largest run's compute beyond which a warning says so
_KEY = 0x5CA1E  # random key of recommendations: the same log gives the same answer


@dataclass(frozen=True, slots=True)
class Recommendation:
    """The config to train with at one scale.

    Attributes:
        config: Every parameter, scale values included.
        intervals: Central 90 % interval of where the optimum lies, per numeric parameter; a wide
            one says that the parameter hardly matters or that the data cannot tell.
        informed_by_data: Share of the prior variance of the optimum at the target that the runs
            removed, per numeric parameter: near 0 the answer is the prior's, near 1 the data's.
            Empty without scale axes.
        loss: Predicted loss of one run, in the user's direction.
        loss_interval: Its central 90 % interval.
        target: Scale values it is meant for; empty without scale axes.
        extrapolation: Compute of the target over that of the largest run, taken as the product of
            the scale axes; 1 without them.
        warnings: Sentences on why to doubt it.

    Example:
        >>> from hpo import Float, Optimizer, Scale
        >>> space = {"lr": Float(1e-4, 1e-1, log=True), "params": Scale(1e5, 1e7)}
        >>> optimizer = Optimizer(space)
        >>> for k in range(4):
        ...     for params in (1e5, 1e6):
        ...         config = {"lr": 10 ** (-3 + k / 2), "params": params}
        ...         _ = optimizer.tell(config, loss=10 * params**-0.1 + 0.1 * (k - 1.5) ** 2)
        >>> advice = optimizer.recommend({"params": 1e8})
        >>> advice.target, round(advice.extrapolation)
        ({'params': 100000000.0}, 100)
        >>> low, high = advice.intervals["lr"]
        >>> low <= advice.config["lr"] <= high
        True
        >>> 0.5 < advice.informed_by_data["lr"] <= 1.0
        True
        >>> print(*advice.warnings)
        the target needs 100 times the compute of the largest run: it is an extrapolation
    """

    config: dict[str, Any]
    intervals: dict[str, tuple[float, float]]
    informed_by_data: dict[str, float]
    loss: float
    loss_interval: tuple[float, float]
    target: dict[str, float]
    extrapolation: float
    warnings: tuple[str, ...]


def recommend(
    warp: InputWarp, target: Mapping[str, float], example: Mapping[str, Any]
) -> Recommendation:
    """Return the config expected to do best at `target`.

    Args:
        warp: Models of the log, of at least one completed run.
        target: One value per scale axis; empty without any.
        example: Any config; its scale values are replaced.
    """
    models, encoder = warp.models, warp.encoder
    runs, scale = models.runs, encoder.columns.scale
    model = models.loss()
    fixed = encoder.encode([{**example, **target}])[0, scale]
    rng = np.random.default_rng([_KEY, len(runs)])
    unit = float(np.median(runs.loss) - np.min(runs.loss)) or location_scale(runs.loss)[1]
    score = _Cautious(model, scale, fixed, unit)
    visited = encoder.snap(_at_scale(runs.X, scale, fixed), keep_scale=True)
    order = np.argsort(-score.value(visited), kind="stable")[:5]
    row = _best_row(models, score, visited[order], rng)
    row = _at_scale(row[None, :], scale, fixed)
    loss = loss_forecast(warp, row, model=model)
    return Recommendation(
        config=encoder.decode(row)[0],
        intervals=_intervals(encoder, model, row, fixed, rng),
        informed_by_data=_informed_by_data(encoder, model, row, fixed),
        loss=loss.mean,
        loss_interval=loss.interval,
        target=dict(target),
        extrapolation=extrapolation(models, fixed),
        warnings=(*doubts(models, fixed), *_one_sided(models, model)),
    )


def doubts(models: Models, fixed: Array) -> tuple[str, ...]:
    """Return sentences on why to doubt an answer at encoded sizes `fixed`."""
    warnings = []
    columns, runs = models.encoder.columns, models.runs
    tuned = len(columns.decision)
    if len(runs) < 2 * (tuned + len(columns.categorical) + 1):
        warnings.append(f"only {len(runs)} trials were completed for {tuned} parameters")
    for column, x in zip(columns.scale, fixed, strict=True):
        name, seen = columns.names[column], runs.X[:, column]
        if float(np.ptp(seen)) * columns.width[column] < math.log(1.5):
            warnings.append(f"every run had nearly the same {name}: its law comes from the prior")
        elif x < float(np.min(seen)):
            warnings.append(f"the target's {name} lies below that of every run")
    if (factor := extrapolation(models, fixed)) > _FAR * 1.01:
        warnings.append(
            f"the target needs {factor:.3g} times the compute of the largest run: it is an"
            " extrapolation"
        )
    if models.fallbacks:
        warnings.append(f"models fell back to an earlier fit {models.fallbacks} times")
    return tuple(warnings)


def _best_row(models: Models, score: Term, centers: Array, rng: np.random.Generator) -> Array:
    """Return the best row of `score` and the probability of success together, `(d,)`."""
    encoder, success = models.encoder, models.success()
    if success is not None:
        score = Sum((score, ProbabilityOfSuccess(success)))
    lower, upper = encoder.box(centers)
    region = Region(
        lower,
        upper,
        centers=centers,
        radii=np.full(len(lower), 0.25),
        extra=encoder.snap(centers),
        global_share=0.5,
        candidates=1024,
    )
    return maximize(score, encoder, region, centers[:0], rng=rng).row


def _intervals(
    encoder: Encoder, model: Predictor, row: Array, fixed: Array, rng: np.random.Generator
) -> dict[str, tuple[float, float]]:
    """Return the central 90 % interval of where the optimum lies, per numeric parameter."""
    space, config = encoder.space, encoder.decode(row)[0]
    numeric = [
        name for name in space.decisions if isinstance(space[name], Float | Int) and name in config
    ]
    columns = np.array([encoder.index(name) for name in numeric], dtype=np.intp)
    if isinstance(model, ScalingPredictor):
        low, high = _law_bounds(encoder, model, row, fixed)
    else:
        low, high = _drawn_bounds(encoder, model, row, rng)
    low, high = np.minimum(low, row[0]), np.maximum(high, row[0])
    # each bound is decoded in the recommended config, so that conditions stay as they are
    bounds = {}
    for name, column in zip(numeric, columns, strict=True):
        ends = np.repeat(row, 2, axis=0)
        ends[:, column] = low[column], high[column]
        first, last = encoder.decode(ends)
        bounds[name] = (float(first[name]), float(last[name]))
    return bounds


def _informed_by_data(
    encoder: Encoder, model: Predictor, row: Array, fixed: Array
) -> dict[str, float]:
    """Return the share of the optimum's prior variance that the runs removed, per parameter."""
    if not isinstance(model, ScalingPredictor):
        return {}
    optimum = _law_optimum(encoder, model, row, fixed)
    left = np.diagonal(optimum.covariance) / np.diagonal(optimum.prior_covariance)
    names = (encoder.columns.names[j] for j in encoder.columns.decision)
    return dict(zip(names, np.clip(1.0 - left, 0.0, 1.0).tolist(), strict=True))


def _one_sided(models: Models, model: Predictor) -> tuple[str, ...]:
    """Return a warning for each parameter with nearly all runs on one side of its optimum."""
    if not isinstance(model, ScalingPredictor):
        return ()
    above = np.mean(model.loss.displacement(models.runs.X) > 0.0, axis=0)
    warnings = []
    for j, share in zip(model.loss.layout.decisions, above.tolist(), strict=True):
        side = "above" if share > 0.5 else "below"
        if min(share, 1.0 - share) < _ONE_SIDED:
            warnings.append(
                f"nearly all runs had a {model.columns.names[j]} {side} what seems best at their"
                " scale, so its best value is uncertain"
            )
    return tuple(warnings)


@dataclass(frozen=True, slots=True)
class _Cautious:
    """Minus (mean + one standard deviation) at fixed scale; a :class:`~hpo.acquisition.Term`.

    It is measured in multiples of `unit`, the loss that weighs as much as a factor e of P(success):
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
    """Return `target` as floats, one for each scale axis.

    Raises:
        SpaceError: If an axis is missing or unknown, a value is not positive and finite, or the
            target is smaller than the smallest proxy along every axis.
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


def _law_bounds(
    encoder: Encoder, model: ScalingPredictor, row: Array, fixed: Array
) -> tuple[Array, Array]:
    """Return central 90 % bounds of where the optimum lies inside the box, `(d,)` each.

    They surround the row, which is the best of law and processes together. Where the processes
    moved it away from the law's own optimum, the law is wrong by about as much, and the interval
    reaches that far for this alone.
    """
    columns = encoder.columns
    low, high = row[0].copy(), row[0].copy()
    optimum = _law_optimum(encoder, model, row, fixed)
    decisions = columns.decision
    moved = (
        row[0, decisions] - (optimum.mean - columns.origin[decisions]) / columns.width[decisions]
    )
    variance = np.diagonal(optimum.covariance) / columns.width[decisions] ** 2
    half = np.sqrt(_NINETY**2 * variance + moved**2)
    lower, upper = encoder.box(row)
    low[decisions] = np.clip(row[0, decisions] - half, lower[decisions], upper[decisions])
    high[decisions] = np.clip(row[0, decisions] + half, lower[decisions], upper[decisions])
    return low, high


def _law_optimum(encoder: Encoder, model: ScalingPredictor, row: Array, fixed: Array) -> Optimum:
    """Return the posterior of the law's optimum at encoded scales `fixed`."""
    at = row.copy()
    at[:, encoder.columns.scale] = fixed
    return model.optimum(model.loss.layout.scales(at)[0])


def _drawn_bounds(
    encoder: Encoder, model: Predictor, row: Array, rng: np.random.Generator
) -> tuple[Array, Array]:
    """Return the quantiles 5 % and 95 % of the optima of joint posterior draws, `(d,)` each."""
    box = encoder.box(row)
    far = encoder.from_unit(qmc.Sobol(len(row[0]), scramble=True, rng=rng).random(_SPREAD), box)
    near = row + 0.1 * rng.standard_normal((_SPREAD // 2, len(row[0]))) * encoder.free
    X = np.concatenate([row, far, encoder.snap(near)])
    draws = model.joint_posterior(X).sample(_DRAWS, rng)
    low, high = np.quantile(X[np.argmin(draws, axis=1)], [0.05, 0.95], axis=0)
    return low, high
