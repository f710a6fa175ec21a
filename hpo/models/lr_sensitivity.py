"""Sensitivity of training to its learning rate at each scale, and where it becomes unstable.

Notation: `L(lr)` loss at one scale with every other setting at its best, `l0` the loss of an
untrained model, `l*` the least L in the searched range, `p(lr)` probability that a run does not
fail.

**Sensitivity** is what a badly chosen lr costs on average over the searched range, evenly in
ln lr (Wortsman et al. 2023, "Small-scale proxies for large-scale Transformer training
instabilities", arXiv:2309.14322, section 2.2)::

    E_lr [ p min(L, l0) + (1 - p) l0 ] - l*

They count a run that diverged as l0, and so does this, with its probability.

**The unstable edge** is the least lr above the best at which p < 1/2 or L > l* + rise. Failures
show in the model of success (:mod:`hpo.models.success_extrapolation`), the steep side of the bowl
in the model of the loss. Both are sampled from their posteriors as whole curves, and each sample
has an edge of its own; the interval of the edge is that of the samples. No edge is looked for
outside the searched range, where neither model is credible.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.drawing.plot_data import LRCurvePlot
from hpo.errors import SpaceError, printable_str
from hpo.models.fitted import Models
from hpo.models.success_extrapolation import SuccessExtrapolation
from hpo.space import Float, Int, Role
from hpo.space.arguments import File, Kind, Number, Row, Text, store
from hpo.space.encoding import Encoder
from hpo.trials.table_columns import column_names
from surrogates.data import Array

if TYPE_CHECKING:
    import pandas as pd

    from hpo.drawing.picture import Picture

_GRID = 129  # learning rates on a curve
_DRAWS = 400  # samples from the posteriors
_COLUMNS = ("sensitivity", "sensitivity_low", "sensitivity_high", "best") + (
    ("edge", "edge_low", "edge_high", "cause")
)
_KEY = 0xED6E  # random key of the draws: the same log gives the same report
_RISE = 0.1  # of what training removes at that scale
_FAR = 10.0  # distances from best to median; a loss beyond is not taken for an initial one
_MOST_SIZES = 5
_STOPS = 4  # scales between the smallest and the largest run if there are more sizes

Interval = tuple[float, float]


class EdgeSource(Enum):
    """What ends the stable range of learning rates.

    Example:
        >>> EdgeSource("runs fail").name
        'FAILURE'
    """

    FAILURE = "runs fail"
    LOSS = "loss rises"
    NONE = "no edge in the searched range"


@dataclass(frozen=True, slots=True)
class LRCurve:
    """Loss against learning rate at one scale; losses are in the user's direction.

    Attributes:
        scale: Value of each scale axis.
        lr: Learning rates, `(m,)`, ascending.
        loss: Expected losses, `(m,)`.
        low: Lower ends of their central 90 % intervals, `(m,)`.
        high: Upper ends of their central 90 % intervals, `(m,)`.
        success: Probabilities that a run does not fail, `(m,)`.
        best_lr: Recommended learning rate.
        sensitivity: Mean loss above the least, see the module; >= 0.
        sensitivity_interval: Central 90 % interval of it.
        edge: Median of the least unstable lr; inf if most samples have none in the range.
        edge_interval: Central 90 % interval of the edge, its upper end inf likewise.
        cause: What makes the edge in most samples that have one.
        rise: Rise of the loss above the least that counts as unstable.

    Example:
        >>> curve = LRCurve(
        ...     scale={"params": 1e6}, lr=np.array([1e-3, 1e-2]), loss=np.array([2.0, 3.0]),
        ...     low=np.array([1.9, 2.8]), high=np.array([2.1, 3.2]), success=np.array([1.0, 0.6]),
        ...     best_lr=1e-3, sensitivity=0.5, sensitivity_interval=(0.4, 0.6), edge=8e-3,
        ...     edge_interval=(5e-3, np.inf), cause=EdgeSource.LOSS, rise=0.1,
        ... )
        >>> curve.cause.value
        'loss rises'
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
    """Result of `Result.instability`; `str` and `to_pandas` give tables, `plot` a figure.

    Attributes:
        parameter: Name of the learning rate.
        curves: Curves from the smallest scale to the target, which comes last.
        initial_loss: Loss that a failed run counts as.
        warnings: Sentences on why to doubt it.

    Example:
        >>> from hpo import Float, Optimizer, Role, Scale
        >>> lr = Float(1e-4, 1e-1, log=True, role=Role.LR)
        >>> optimizer = Optimizer({"lr": lr, "width": Scale(64, 256)})
        >>> for lr in (1e-4, 1e-3, 1e-2, 1e-1):
        ...     _ = optimizer.tell({"lr": lr, "width": 64}, loss=2 + math.log10(lr / 1e-3) ** 2)
        >>> report = optimizer.result().instability(initial_loss=5.0)
        >>> report.target.cause.value
        'loss rises'
        >>> report.warnings
        ('no run failed, so the edges are those of the loss alone',)
    """

    parameter: str
    curves: tuple[LRCurve, ...]
    initial_loss: float
    warnings: tuple[str, ...]

    def __post_init__(self) -> None:
        store(
            self,
            parameter=Text(),
            curves=Row(Kind(LRCurve), way_out="give at least one"),
            initial_loss=Number(),
            warnings=Row(Text(empty=True)),
        )
        if not self.curves:
            raise ValueError("`curves` of Instability must not be empty, got (); give at least one")

    @property
    def target(self) -> LRCurve:
        """Curve at the target scale, the last one.

        Example:
            >>> lr, loss, success = np.array([[1e-3, 1e-2], [2.0, 3.0], [1.0, 0.6]])
            >>> numbers = (1e-3, 0.5, (0.4, 0.6), 8e-3, (5e-3, np.inf))
            >>> small, large = (
            ...     LRCurve({"n": n}, lr, loss, loss, loss, success, *numbers, EdgeSource.LOSS, 0.1)
            ...     for n in (1e6, 1e7)
            ... )
            >>> Instability("lr", (small, large), initial_loss=5.0, warnings=()).target.scale
            {'n': 10000000.0}
        """
        return self.curves[-1]

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per scale.

        Its columns are the scale axes, then sensitivity, sensitivity_low, sensitivity_high, best,
        edge, edge_low, edge_high and cause. An axis called like one of these is in `params_edge`
        and so on.

        Example:
            >>> lr, loss, success = np.array([[1e-3, 1e-2], [2.0, 3.0], [1.0, 0.6]])
            >>> numbers = (1e-3, 0.5, (0.4, 0.6), 8e-3, (5e-3, np.inf))
            >>> curve = LRCurve(
            ...     {"n": 1e6}, lr, loss, loss, loss, success, *numbers, EdgeSource.LOSS, 0.1
            ... )
            >>> report = Instability("lr", (curve,), initial_loss=5.0, warnings=())
            >>> report.to_pandas()["cause"].tolist()
            ['loss rises']
        """
        import pandas as pd

        axes, _ = column_names(_COLUMNS, [name for c in self.curves for name in c.scale])
        rows = [
            (
                *(c.scale.get(name) for name in axes),
                c.sensitivity,
                *c.sensitivity_interval,
                c.best_lr,
                c.edge,
                *c.edge_interval,
                c.cause.value,
            )
            for c in self.curves
        ]
        return pd.DataFrame(rows, columns=[*axes.values(), *_COLUMNS])

    @printable_str
    def __str__(self) -> str:
        lines = [
            f"Sensitivity to {self.parameter} and its unstable edge, with 90 % intervals; a failed"
            f" run counts as {self.initial_loss:.4g}"
        ]
        for curve in self.curves:
            low, high = curve.sensitivity_interval
            if curve.cause is EdgeSource.NONE:
                edge = curve.cause.value
            else:
                least, most = (_or_beyond(end) for end in curve.edge_interval)
                edge = f"edge {_or_beyond(curve.edge)} ({least} to {most}): {curve.cause.value}"
            lines.append(
                f"  {_at(curve.scale)}: sensitivity {curve.sensitivity:.3g} ({low:.3g} to"
                f" {high:.3g}), best {curve.best_lr:.3g}, {edge}"
            )
        return "\n".join([*lines, *(f"  warning: {text}" for text in self.warnings)])

    def plot(self, path: str | Path | None = None) -> Picture:
        """Plot loss against learning rate at each scale, with the unstable edges.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure; see :func:`hpo.drawing.plots.plot_instability`.

        Example:
            >>> lr, loss, success = np.array([[1e-3, 1e-2], [2.0, 3.0], [1.0, 0.6]])
            >>> numbers = (1e-3, 0.5, (0.4, 0.6), 8e-3, (5e-3, np.inf))
            >>> curve = LRCurve(
            ...     {"n": 1e6}, lr, loss, loss, loss, success, *numbers, EdgeSource.LOSS, 0.1
            ... )
            >>> report = Instability("lr", (curve,), initial_loss=5.0, warnings=())
            >>> report.plot().axes[0].get_xlabel()
            'lr'
        """
        from hpo.drawing.plots import plot_instability

        path = File(optional=True)(path, "`path`")
        return plot_instability(
            self.curves_to_draw(), path, parameter=self.parameter, initial_loss=self.initial_loss
        )

    def curves_to_draw(self) -> tuple[LRCurvePlot, ...]:
        """Return what :meth:`plot` shows, from the smallest scale to the target."""
        return tuple(
            LRCurvePlot(_at(c.scale), c.lr, c.loss, c.best_lr, c.edge, c.edge_interval)
            for c in self.curves
        )


def lr_parameter(encoder: Encoder, name: str | None) -> str:
    """Return `name`, or the one parameter of role LR.

    Args:
        encoder: Encoder of the space.
        name: Name of the learning rate; None looks for the role.

    Raises:
        SpaceError: If it is not a number on a log scale, or there is not exactly one of role LR.

    Example:
        >>> from hpo import Float, Role, SearchSpace
        >>> space = SearchSpace({"eta": Float(1e-4, 1e-1, log=True, role=Role.LR)})
        >>> lr_parameter(Encoder(space), None)
        'eta'
    """
    space = encoder.space
    name = Text(optional=True, way_out="name a parameter")(name, "`parameter`", SpaceError)
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
    """Return the scales of the runs if they are few, else some from the least to the largest.

    Args:
        models: Models of the runs.

    Returns:
        A value of each scale axis, for each scale, ascending; one empty scale without axes.

    Example:
        >>> from hpo import Float, Optimizer, Scale
        >>> optimizer = Optimizer({"x": Float(0, 1), "n": Scale(1, 100)})
        >>> for x, n in ((0.2, 1), (0.5, 100), (0.8, 100)):
        ...     _ = optimizer.tell({"x": x, "n": n}, loss=x / n)
        >>> [round(at["n"], 6) for at in sizes(optimizer.result().models)]
        [1.0, 100.0]
    """
    columns = models.encoder.columns
    scale = columns.scale
    names = [columns.names[j] for j in scale]
    if not names:
        return [{}]
    natural = columns.origin[scale] + columns.width[scale] * models.runs.X[:, scale]
    found = natural[np.unique(np.round(natural, 9), axis=0, return_index=True)[1]]
    found = found[np.argsort(found.sum(axis=1), kind="stable")]
    if len(found) > _MOST_SIZES:
        found = np.linspace(natural.min(axis=0), natural.max(axis=0), _STOPS)
    axes = models.encoder.space.scale_axes
    return [
        {name: axes[name].canonical(value) for name, value in zip(names, row, strict=True)}
        for row in np.exp(found).tolist()
    ]


def instability(
    models: Models,
    configs: Sequence[Mapping[str, Any]],
    parameter: str,
    *,
    initial_loss: float | None,
    rise: float | None,
) -> Instability:
    """Return one :class:`LRCurve` for the scale of each config, the last being the target's.

    Args:
        models: Models fitted to at least one completed run.
        configs: Canonical configs, each recommended at its scale.
        parameter: Name of the learning rate, as :func:`lr_parameter` returns it.
        initial_loss: Loss of an untrained model, in the user's direction; None takes that of the
            worst completed run, bounded by ten times the distance from the best to the median.
        rise: Rise of the loss that counts as unstable, > 0; None takes a tenth of what training
            removes.

    Returns:
        The curves with warnings.

    Raises:
        ValueError: If training did not improve on the initial loss, or the rise is not positive.

    Example:
        >>> from hpo import Float, Optimizer
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True)})
        >>> for lr in (1e-4, 1e-3, 1e-2, 1e-1):
        ...     _ = optimizer.tell({"lr": lr}, loss=2.0 + 0.1 * math.log(lr / 1e-3) ** 2)
        >>> models = optimizer.result().models
        >>> report = instability(models, [{"lr": 1e-3}], "lr", initial_loss=5.0, rise=None)
        >>> report.target.best_lr < report.target.edge < 0.1
        True
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
        warnings.append("no initial_loss was given, so that of the worst completed run was taken")
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
    edge_lr = np.append(lr, math.inf)[edge]
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
        edge=float(np.sort(edge_lr)[_DRAWS // 2]),
        edge_interval=_central(edge_lr),
        cause=cause,
        rise=allowed,
    )


def _edges(expected: Array, losses: Array, alive: Array, highest: Array) -> tuple[Array, Array]:
    """Find the first unstable lr above the best in each sample.

    Args:
        expected: Losses with failures counted, `(samples, m)`.
        losses: Losses of runs that do not fail, `(samples, m)`.
        alive: Probabilities that a run does not fail, `(samples, m)`.
        highest: Loss beyond which an lr is unstable, `(samples,)`.

    Returns:
        Index of the lr, m where there is none, `(samples,)`, and whether runs fail there.
    """
    dead, steep = alive < 0.5, losses > highest[:, None]
    unstable = dead | steep
    above = np.arange(losses.shape[1]) > np.argmin(expected, axis=1)[:, None]
    unstable &= above
    index = np.where(unstable.any(axis=1), np.argmax(unstable, axis=1), losses.shape[1])
    there = np.minimum(index, losses.shape[1] - 1)
    return index, dead[np.arange(len(index)), there]


def _central(draws: Array) -> Interval:
    """Return order statistics at 5 % and 95 %: interpolating a number and inf would give nan."""
    ordered = np.sort(draws)
    return float(ordered[int(0.05 * len(draws))]), float(ordered[int(0.95 * len(draws))])


def _at(scale: Mapping[str, float]) -> str:
    """Return how a scale is written; without axes all runs are of one."""
    return ", ".join(f"{name} {value:.3g}" for name, value in scale.items()) or "all runs"


def _or_beyond(lr: float) -> str:
    return "beyond the range" if math.isinf(lr) else f"{lr:.3g}"
