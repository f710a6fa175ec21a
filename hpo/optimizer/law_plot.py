"""What the picture of a fitted law shows: loss and best settings from the smallest run to a target.

The line goes from the smallest run to the target along all scale axes at once, evenly in their
logarithms. Compute is 6 N D where the axes are parameters and tokens, the axis itself where there
is one, else the product of the axes. A run off the line is shown as far from the line as it was
from its own optimum: its settings are moved along the fitted drift to the sizes of the line that
take as much compute.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hpo.drawing.plot_data import LawPlot, OptimumPlot
from hpo.models.fitted import Models
from hpo.optimizer.answer import law_optimum
from hpo.optimizer.recommend import Recommendation
from hpo.scaling.scaling_law import FittedLaw
from hpo.space import Axis, Categorical, Float, Int, SearchSpace
from surrogates.data import Array
from surrogates.gp import representative
from surrogates.numerics import normal_half_width

_POINTS = 30  # of the line
_MOST_RUNS = 2000  # drawn
_CROWD = 3  # runs of one size from which the best of them is marked
_NINETY = normal_half_width(0.9)  # in standard deviations


def compute_label(space: SearchSpace) -> tuple[str, float]:
    """Return what stands for compute, and its factor on the product of the scale axes.

    Args:
        space: Space with scale axes.

    Example:
        >>> from hpo.space import Scale
        >>> compute_label(SearchSpace({"width": Scale(64, 512, axis=Axis.WIDTH)}))
        ('width', 1.0)
        >>> params, tokens = Scale(1e5, 1e7, axis=Axis.PARAMS), Scale(1e6, 1e8, axis=Axis.TOKENS)
        >>> compute_label(SearchSpace({"N": params, "D": tokens}))
        ('FLOPs (6 N D)', 6.0)
    """
    axes = space.scale_axes
    measured = {scale.axis for scale in axes.values()}
    if len(axes) == 2 and measured == {Axis.PARAMS, Axis.TOKENS}:
        return "FLOPs (6 N D)", 6.0
    return " x ".join(axes), 1.0


def law_plot(models: Models, advice: Recommendation) -> LawPlot:
    """Return what the picture shows.

    Args:
        models: Models of a space with scale axes, of at least one completed run.
        advice: Recommendation at the target.

    Example:
        >>> from hpo import Float, Optimizer, Scale
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "n": Scale(1e5, 1e7)})
        >>> for i in range(12):
        ...     n, k = 10.0 ** (5 + i // 4), i % 4
        ...     loss = n**-0.3 + 0.1 * (k - 1.5) ** 2
        ...     _ = optimizer.tell({"lr": 10 ** (-3.2 + k / 2), "n": n}, loss)
        >>> result = optimizer.result()
        >>> plot = law_plot(result.models, result.recommend({"n": 1e9}))
        >>> round(plot.compute[0]), round(plot.compute[-1]), plot.optima[0].parameter
        (100000, 1000000000, 'lr')
    """
    encoder, (model, _) = models.encoder, models.scaling()
    space, columns = encoder.space, encoder.columns
    label, factor = compute_label(space)
    law = FittedLaw.of(encoder, model, None)
    runs, scale, decisions = models.law_runs, columns.scale, columns.decision
    natural = columns.origin[scale] + columns.width[scale] * runs.X[:, scale]
    start = natural.min(axis=0)
    end = np.log([advice.target[columns.names[j]] for j in scale])
    base = encoder.encode([inside(space, advice.config)])
    share = np.linspace(0.0, 1.0, _POINTS)[:, None]
    sizes = start + share * (end - start)
    rows = np.repeat(base, _POINTS, axis=0)
    rows[:, scale] = (sizes - columns.origin[scale]) / columns.width[scale]
    optima = [law_optimum(encoder, model, rows[i : i + 1], rows[i, scale]) for i in range(_POINTS)]
    mean = np.array([optimum.mean for optimum in optima]).reshape(_POINTS, -1)
    sd = np.sqrt([np.diagonal(optimum.covariance) for optimum in optima]).reshape(_POINTS, -1)
    rows[:, decisions] = (mean - columns.origin[decisions]) / columns.width[decisions]
    posterior = model.posterior(rows)
    noise = model.noise_variance + model.extrapolation_variance(rows)
    half = _NINETY * np.sqrt(posterior.variance + noise)
    shown = representative(runs.X[:, columns.numeric], runs.loss, _MOST_RUNS)
    of_runs = _compute(natural[shown], factor)
    length = float((end - start).sum())
    along = (natural[shown].sum(axis=1) - start.sum()) / length if length else 0.0 * of_runs
    beside = runs.X[shown].copy()
    at_line = start + along[:, None] * (end - start)
    beside[:, scale] = (at_line - columns.origin[scale]) / columns.width[scale]
    beside = model.moved_along_drift(runs.X[shown], beside)
    sign = encoder.loss_sign
    ends = np.sort([sign * (posterior.mean - half), sign * (posterior.mean + half)], axis=0)
    distance = sizes - _reference(law)
    settings = []
    for k, j in enumerate(decisions.tolist()):
        name = columns.names[j]
        parameter = space[name]
        if isinstance(parameter, Categorical) or name not in advice.config:
            continue
        assert isinstance(parameter, Float | Int)
        unit = parameter.unit
        tried = columns.origin[j] + columns.width[j] * beside[:, j]
        low, high = (mean[:, k] + side * _NINETY * sd[:, k] for side in (-1.0, 1.0))
        middle, spread = _before(law, name, distance)
        before = [unit.from_natural(middle + side * _NINETY * spread) for side in (-1.0, 1.0)]
        settings.append(
            OptimumPlot(
                parameter=name,
                log=parameter.log,
                value=unit.from_natural(mean[:, k]),
                low=unit.from_natural(low),
                high=unit.from_natural(high),
                run_value=unit.from_natural(tried),
                recommended=float(advice.config[name]),
                interval=advice.intervals[name],
                prior_low=before[0],
                prior_high=before[1],
            )
        )
    return LawPlot(
        label=label,
        compute=_compute(sizes, factor),
        loss=sign * posterior.mean,
        low=ends[0],
        high=ends[1],
        run_compute=of_runs,
        run_loss=sign * runs.loss[shown],
        best=_best_of_each(natural[shown], runs.loss[shown]),
        predicted=advice.loss,
        predicted_interval=advice.loss_interval,
        optima=tuple(settings),
        maximize=sign < 0,
    )


def _reference(law: FittedLaw) -> Array:
    return np.asarray(law.coefficients.reference)


def _before(law: FittedLaw, name: str, distance: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of the optimum before any run, at distances `m x axes`.

    The prior level and the prior slopes are taken as independent.
    """
    level = law.optimum(name)
    slopes = [law.slope(name, axis) for axis in law.coefficients.axes]
    mean = level.prior_mean + distance @ np.array([slope.prior_mean for slope in slopes])
    variance = level.prior_sd**2 + distance**2 @ np.array([s.prior_sd**2 for s in slopes])
    return mean, np.sqrt(variance)


def _compute(sizes: Array, factor: float) -> Array:
    return np.asarray(factor * np.exp(np.minimum(sizes.sum(axis=1), 690.0)))


def _best_of_each(sizes: Array, loss: Array) -> tuple[int, ...]:
    """Return the best run of each size at which there are a few."""
    _, group = np.unique(np.round(sizes, 6), axis=0, return_inverse=True)
    group = group.ravel()
    order = np.lexsort((loss, group))
    first = np.flatnonzero(np.r_[True, np.diff(group[order]) != 0])
    crowd = np.diff(np.r_[first, len(order)]) >= _CROWD
    return tuple(int(order[i]) for i in first[crowd])


def inside(space: SearchSpace, config: Mapping[str, Any]) -> dict[str, Any]:
    """Return a config whose settings lie in the searched range, so that it can be encoded.

    Args:
        space: Searched space.
        config: Config that may lie outside.

    Example:
        >>> inside(SearchSpace({"lr": Float(1e-4, 1e-1, log=True)}), {"lr": 1e-5})
        {'lr': 0.0001}
    """
    near = dict(config)
    for name, value in config.items():
        parameter = space[name]
        if isinstance(parameter, Float | Int):
            low, high = parameter.limits
            near[name] = parameter.canonical(min(max(value, low), high))
        elif name in space.scales:
            low, high = space.scale_axes[name].limits
            near[name] = math.sqrt(low) * math.sqrt(high)
    return near
