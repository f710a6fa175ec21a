"""How sensitive training is to its learning rate at each scale, and where it becomes unstable.

Notation: ``L(lr)`` loss at one scale with every other setting at its best, ``l0`` the loss of an
untrained model, ``l*`` the least L in the searched range, ``p(lr)`` probability that a run
survives.

**Sensitivity** is what a badly chosen lr costs on average over the searched range, evenly in
ln lr (Wortsman et al. 2023, "Small-scale proxies for large-scale Transformer training
instabilities", arXiv:2309.14322, section 2.2)::

    E_lr [ p min(L, l0) + (1 - p) l0 ] - l*

They count a run that diverged as l0, and so does this, with its probability.

**The unstable edge** is the least lr above the best at which p < 1/2 or L > l* + rise. Failures say
it through the model of survival (:mod:`hpo.models.success_extrapolation`), the steep side of the bowl through the
model of the loss. Both are drawn from their posteriors as whole curves, and each draw has an edge
of its own: its interval is theirs. An edge outside the searched range is not looked for; there
neither model is credible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.errors import SpaceError
from hpo.models.fitted import Models
from hpo.models.success_extrapolation import SuccessExtrapolation
from hpo.space import Float, Int, Role
from hpo.space.encoding import Encoder
from surrogates.data import Array

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

_GRID = 129  # learning rates on a curve
_DRAWS = 400
_KEY = 0xED6E  # random key of the draws: the same log gives the same report
_RISE = 0.1  # of what training removes at that scale
_FAR = 10.0  # distances from best to median beyond which a loss is no guess of an initial one
_MOST_SIZES = 5
_STOPS = 4  # scales between the smallest and the largest run if there are more sizes

Interval = tuple[float, float]


class EdgeSource(Enum):
    """What ends the stable range."""

    FAILURE = "runs fail"
    LOSS = "loss rises"
    NONE = "no edge in the searched range"


@dataclass(frozen=True, slots=True)
class LRCurve:
    """Loss against learning rate at one scale; losses in the user's direction.

    Attributes:
        scale: value of each axis.
        lr: ``(m,)``. loss: ``(m,)``, expected. low, high: ``(m,)``, central 90 % of it.
        success: ``(m,)``, probability that a run does not fail.
        best_lr: the recommended one.
        sensitivity: see the module; always >= 0. sensitivity_interval: central 90 %.
        edge: median of the least unstable lr; inf if most draws have none in the range.
        edge_interval: central 90 %, its upper end inf likewise.
        cause: what makes the edge in most draws that have one.
        rise: of the loss that counts as unstable.
    """

    scale: dict[str, float]
    lr: Array
    loss: Array
    low: Array
    high: Array
    success: Array
    best_lr: float
    sensitivity: float
    sensitivity_interval: Interval
    edge: float
    edge_interval: Interval
    cause: EdgeSource
    rise: float


@dataclass(frozen=True, slots=True)
class Instability:
    """Curves from the smallest scale to the target, which comes last.

    Attributes:
        parameter: the learning rate's name.
        initial_loss: that a failed run counts as.
        warnings: plain words on why to doubt it.
    """

    parameter: str
    curves: tuple[LRCurve, ...]
    initial_loss: float
    warnings: tuple[str, ...]

    @property
    def target(self) -> LRCurve:
        """The curve at the target."""
        return self.curves[-1]

    def to_pandas(self) -> pd.DataFrame:
        """One row a scale: its axes, sensitivity, best lr and edge with intervals, cause."""
        import pandas as pd

        return pd.DataFrame(
            {
                **c.scale,
                "sensitivity": c.sensitivity,
                "sensitivity_low": c.sensitivity_interval[0],
                "sensitivity_high": c.sensitivity_interval[1],
                "best": c.best_lr,
                "edge": c.edge,
                "edge_low": c.edge_interval[0],
                "edge_high": c.edge_interval[1],
                "cause": c.cause.value,
            }
            for c in self.curves
        )

    def __str__(self) -> str:
        lines = [
            f"Sensitivity to {self.parameter} and its unstable edge, with 90 % intervals; a failed"
            f" run counts as {self.initial_loss:.4g}"
        ]
        for curve in self.curves:
            at = ", ".join(f"{name} {value:.3g}" for name, value in curve.scale.items())
            low, high = curve.sensitivity_interval
            if curve.cause is EdgeSource.NONE:
                edge = curve.cause.value
            else:
                least, most = (_or_beyond(end) for end in curve.edge_interval)
                edge = f"edge {_or_beyond(curve.edge)} ({least} to {most}): {curve.cause.value}"
            lines.append(
                f"  {at or 'all runs'}: sensitivity {curve.sensitivity:.3g} ({low:.3g} to"
                f" {high:.3g}), best {curve.best_lr:.3g}, {edge}"
            )
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def plot(self, path: str | Path | None = None) -> Figure:
        """Loss against lr at each scale; see :func:`hpo.drawing.plots.plot_instability`."""
        from hpo.drawing.plots import plot_instability

        return plot_instability(self, path)


def lr_parameter(encoder: Encoder, name: str | None) -> str:
    """``name``, or the one parameter of role LR.

    Raises:
        SpaceError: if it is not a bounded or unbounded number on a log scale, or there is not
            exactly one of role LR.
    """
    space = encoder.space
    if name is None:
        found = [n for n in space.decisions if getattr(space[n], "role", None) is Role.LR]
        if len(found) != 1:
            raise SpaceError(
                f"an instability report needs one parameter of role LR, got {found}; give it"
                " role=Role.LR, or name it with parameter="
            )
        name = found[0]
    parameter = space.get(name)
    if not (isinstance(parameter, Float | Int) and parameter.log):
        raise SpaceError(
            f"`parameter` must be a Float or Int with log=True, got {name!r} ({parameter}); name"
            f" one of {list(space.decisions)}"
        )
    return name


def sizes(models: Models) -> list[dict[str, float]]:
    """Scales to look at: those of the runs if they are few, else some from least to largest."""
    columns = models.encoder.columns
    scale = columns.scale
    names = [columns.names[j] for j in scale]
    if not names:
        return [{}]
    natural = columns.origin[scale] + columns.width[scale] * models.runs.X[:, scale]
    found = np.unique(np.round(natural, 9), axis=0)
    found = found[np.argsort(found.sum(axis=1), kind="stable")]
    if len(found) > _MOST_SIZES:
        found = np.linspace(natural.min(axis=0), natural.max(axis=0), _STOPS)
    return [dict(zip(names, np.exp(row).tolist(), strict=True)) for row in found]


def instability(
    models: Models,
    configs: Sequence[Mapping[str, Any]],
    parameter: str,
    *,
    initial_loss: float | None,
    rise: float | None,
) -> Instability:
    """Curves of :class:`LRCurve` at the scale of each config, the last being the target's.

    Args:
        models: fitted to at least one completed run.
        configs: canonical, recommended at their scales.
        parameter: of :func:`lr_parameter`.
        initial_loss: of an untrained model, in the user's direction; None takes the worst completed
            run's, if it is not absurd.
        rise: of the loss that counts as unstable, > 0; None is a tenth of what training removes.

    Raises:
        ValueError: for an initial loss that training did not improve, or a rise that is not
            positive.
    """
    if rise is not None and not 0 < rise < math.inf:
        raise ValueError(f"`rise` must be positive and finite, got {rise!r}; give e.g. 0.1")
    encoder, y = models.encoder, models.runs.loss
    best, median = float(np.min(y)), float(np.median(y))
    l0 = min(float(np.max(y)), median + _FAR * (median - best))
    if initial_loss is not None:
        l0 = encoder.loss_sign * initial_loss
        if not best < l0 < math.inf:
            raise ValueError(
                f"`initial_loss` must be worse than the best run's {encoder.loss_sign * best:.5g},"
                f" got {initial_loss!r}; give the loss of an untrained model"
            )
    rng = np.random.default_rng([_KEY, len(y)])
    curves = tuple(_curve(models, config, parameter, l0, rise, rng) for config in configs)
    warnings = []
    if initial_loss is None:
        warnings.append("no initial_loss was given, so that of the worst completed run stands in")
    if models.success() is None:
        warnings.append("no run failed, so the edges are those of the loss alone")
    if curves[-1].cause is EdgeSource.NONE:
        warnings.append(f"the runs show no edge at the target below the largest {parameter}")
    elif math.isinf(curves[-1].edge_interval[1]):
        warnings.append(f"the edge at the target may lie above the largest {parameter}")
    return Instability(parameter, curves, encoder.loss_sign * l0, tuple(warnings))


def _curve(
    models: Models,
    config: Mapping[str, Any],
    parameter: str,
    l0: float,
    rise: float | None,
    rng: np.random.Generator,
) -> LRCurve:
    encoder, model = models.encoder, models.loss()
    column = encoder.index(parameter)
    row = encoder.encode([config])
    lower, upper = encoder.box(models.runs.X)
    X = np.repeat(row, _GRID, axis=0)
    X[:, column] = np.linspace(lower[column], upper[column], _GRID)
    natural = encoder.columns.origin[column] + encoder.columns.width[column] * X[:, column]
    lr = np.exp(natural)

    posterior = model.joint_posterior(X)
    losses = posterior.sample(_DRAWS, rng)
    success = SuccessExtrapolation.of(models)
    alive = np.ones_like(losses) if success is None else success.sample(X, _DRAWS, rng)
    expected = alive * np.minimum(losses, l0) + (1.0 - alive) * l0
    least = np.minimum(losses.min(axis=1), l0)
    sensitivity = expected.mean(axis=1) - least
    gap = max(l0 - float(posterior.mean.min()), 0.0)
    allowed = rise if rise is not None else _RISE * gap
    edge, fails = _edges(expected, losses, alive, least + allowed)
    place = np.append(lr, math.inf)[edge]
    found = edge < _GRID
    cause = EdgeSource.NONE
    if found.mean() >= 0.05:
        cause = EdgeSource.FAILURE if fails[found].mean() > 0.5 else EdgeSource.LOSS
    sign = encoder.loss_sign
    bounds = np.sort(sign * np.quantile(losses, [0.05, 0.95], axis=0), axis=0)
    return LRCurve(
        scale={name: float(config[name]) for name in encoder.space.scales},
        lr=lr,
        loss=sign * posterior.mean,
        low=bounds[0],
        high=bounds[1],
        success=alive.mean(axis=0),
        best_lr=float(config[parameter]),
        sensitivity=float(np.mean(sensitivity)),
        sensitivity_interval=_central(sensitivity),
        edge=float(np.sort(place)[_DRAWS // 2]),
        edge_interval=_central(place),
        cause=cause,
        rise=allowed,
    )


def _edges(expected: Array, losses: Array, alive: Array, highest: Array) -> tuple[Array, Array]:
    """Index of the first unstable lr above the best in each draw, and whether runs fail there.

    The index is the number of columns where there is none. `highest`: ``(draws,)``, loss beyond
    which an lr is unstable.
    """
    dead, steep = alive < 0.5, losses > highest[:, None]
    unstable = dead | steep
    above = np.arange(losses.shape[1]) > np.argmin(expected, axis=1)[:, None]
    unstable &= above
    index = np.where(unstable.any(axis=1), np.argmax(unstable, axis=1), losses.shape[1])
    there = np.minimum(index, losses.shape[1] - 1)
    return index, dead[np.arange(len(index)), there]


def _central(draws: Array) -> Interval:
    """Order statistics at 5 % and 95 %: interpolation between a number and inf would be nan."""
    ordered = np.sort(draws)
    return float(ordered[int(0.05 * len(draws))]), float(ordered[int(0.95 * len(draws))])


def _or_beyond(lr: float) -> str:
    return "beyond the range" if math.isinf(lr) else f"{lr:.3g}"
