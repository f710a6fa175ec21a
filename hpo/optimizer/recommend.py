"""Recommend: the config to train with at a scale nobody ran yet, and how far to trust it.

:mod:`hpo.optimizer.answer` says which settings are chosen. Intervals say where the optimum lies: by
the law's posterior for the optimum, which moves with scale, where there are scale axes, widened by
how far the recommended value is from it; else by the optima of joint posterior draws. They always
contain the recommended value. With a law neither value nor interval ends at the searched range.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.stats import qmc

from hpo.errors import SpaceError
from hpo.models.fitted import MANY, Models
from hpo.models.intervals import Expected, extrapolation, loss_forecast
from hpo.models.log_scale_hedge import InputWarp
from hpo.optimizer.answer import Refutation, answer, law_optimum, walls
from hpo.space import Axis, Direction, Float, Int, SearchSpace
from hpo.space.arguments import Table
from hpo.space.checks import LARGEST_FLOAT, SMALLEST_POSITIVE
from hpo.space.encoding import Encoder
from hpo.space.scalars import real, shown
from hpo.trials.printing import Grid, Part, Printed, short, span
from surrogates.base import Predictor
from surrogates.data import Array
from surrogates.numerics import normal_half_width
from surrogates.scaling_law.model import ScalingPredictor

_NINETY = normal_half_width(0.9)  # in standard deviations
_DRAWS = 256
_SPREAD = 512  # rows among which each draw looks for its optimum
_ONE_SIDED = 0.05  # share of runs on the other side of the optimum that is too few to place it
_FAR = 8.0  # times the largest run's compute beyond which a warning says so
#: Share of a range: closer to a bound, a value lies on it.
TOUCHING = 0.005
_SIZES = (Axis.PARAMS, Axis.WIDTH, Axis.DEPTH)
_SAME = 1e-9  # relative difference of two sizes that are one
#: What to write for the scale of a run.
SIZES = "give each scale axis a value, such as {'params': 1e9}"
_KEY = 0x5CA1E  # random key of recommendations: the same log gives the same answer


@dataclass(frozen=True, slots=True)
class Recommendation(Printed):
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
        warnings: Sentences on why to doubt it, and which range to widen.
        no_effect: Settings without an effect that the runs could show. They keep the value of the
            best run.
        direction: Whether the objective is minimized, a loss, or maximized, a value.

    The numeric settings may lie outside the searched range where the space has scale axes: beyond
    the runs they are the optimum of the fitted law (`result.scaling_law`), which only physical
    bounds and `hard=True` limit.

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
        >>> print(str(advice).splitlines()[0])
        Recommended at params 1e+08, 100 times the compute of the largest run

        A best value that falls with size may lie below the searched range:

        >>> import math
        >>> optimizer = Optimizer(space)
        >>> for params in (1e5, 3e5, 1e6):
        ...     for lr in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        ...         miss = math.log(lr / 3e-3) + 0.5 * math.log(params / 3e5)
        ...         loss = 10 * params**-0.1 + 0.1 * miss**2
        ...         _ = optimizer.tell({"lr": lr, "params": params}, loss=loss)
        >>> advice = optimizer.recommend({"params": 1e9})
        >>> advice.config["lr"] < 1e-4
        True
        >>> advice.warnings[-1].split(": ")[1].startswith("widen it to about")
        True
        >>> advice.no_effect
        ()
    """

    config: dict[str, Any]
    intervals: dict[str, tuple[float, float]]
    informed_by_data: dict[str, float]
    loss: float
    loss_interval: tuple[float, float]
    target: dict[str, float]
    extrapolation: float
    warnings: tuple[str, ...]
    no_effect: tuple[str, ...] = ()
    direction: Direction = field(default=Direction.MINIMIZE, repr=False)

    def parts(self) -> list[Part]:
        """Return what is printed."""
        at = ", ".join(f"{name} {value:.4g}" for name, value in self.target.items())
        far = f", {self.extrapolation:.3g} times the compute of the largest run"
        lines: list[Part] = [
            f"Recommended{f' at {at}' if at else ''}{far if self.extrapolation > 1.01 else ''}"
        ]
        rows = []
        for name, value in self.config.items():
            if name not in self.target:
                share = self.informed_by_data.get(name)
                from_data = "no effect seen" if name in self.no_effect else ""
                if share is not None and not from_data:
                    from_data = f"{share:.0%}"
                rows.append((name, short(value), span(self.intervals.get(name)), from_data))
        if rows:
            header = ("setting", "value", "90 % interval", "from data" if self.target else "")
            lines.append(Grid(header, rows))
        interval = span(self.loss_interval, 5)
        lines.append(f"predicted {self.direction.noun} {self.loss:.5g} ({interval})")
        return [*lines, *(f"warning: {text}" for text in self.warnings)]


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
    runs, columns = models.runs, encoder.columns
    model = models.loss()
    fixed = encoder.encode([{**example, **target}])[0, columns.scale]
    rng = np.random.default_rng([_KEY, len(runs)])
    found = answer(models, model, fixed, rng)
    row, quiet = found.row, tuple(columns.names[j] for j in found.no_effect)
    loss = loss_forecast(warp, row, model=model)
    if found.refutation is not None:
        loss = _at_least(loss, found.refutation.least, encoder.loss_sign)
    config = _decoded(encoder, row, row[0], row[0])[0]
    no_effect = tuple(name for name in quiet if name in config)
    intervals = _intervals(encoder, model, row, fixed, no_effect, rng)
    return Recommendation(
        config=config,
        intervals=intervals,
        informed_by_data=_informed_by_data(encoder, model, row, fixed),
        loss=loss.mean,
        loss_interval=loss.interval,
        target=dict(target),
        extrapolation=extrapolation(models, fixed),
        warnings=(
            *doubts(models, fixed),
            *_one_sided(models, model, no_effect),
            *_outside(models, config, intervals, row, no_effect),
            *_refuted(models, found.refutation),
            *_quiet(no_effect),
        ),
        no_effect=no_effect,
        direction=Direction.of_sign(encoder.loss_sign),
    )


def doubts(models: Models, fixed: Array) -> tuple[str, ...]:
    """Return sentences on why to doubt an answer at encoded sizes `fixed`."""
    warnings = []
    columns, runs = models.encoder.columns, models.runs
    tuned = len(columns.decision)
    if len(runs) < 2 * (tuned + len(columns.categorical) + 1):
        warnings.append(f"only {len(runs)} trials were completed for {tuned} parameters")
    for column, x in zip(columns.scale, fixed, strict=True):
        name, seen = columns.names[column], models.law_runs.X[:, column]
        if float(np.ptp(seen)) * columns.width[column] < math.log(1.5):
            warnings.append(f"every run had nearly the same {name}: its law comes from the prior")
        elif x < float(np.min(seen)):
            warnings.append(f"the target's {name} lies below that of every run")
    if (factor := extrapolation(models, fixed)) > _FAR * 1.01:
        warnings.append(
            f"the target needs {factor:.3g} times the compute of the largest run: it is an"
            " extrapolation"
        )
    warnings += _far_in_size(models, fixed)
    if models.fallbacks:
        warnings.append(f"models fell back to an earlier fit {models.fallbacks} times")
    return tuple(warnings)


def _far_in_size(models: Models, fixed: Array) -> list[str]:
    """Return a sentence for each axis of model size along which the target lies far out.

    The best lr was seen to bend at larger models, more along size than along tokens
    (arXiv:2606.29158).
    """
    encoder = models.encoder
    columns, runs = encoder.columns, models.runs
    if not len(columns.decision):
        return []
    axes = encoder.space.scale_axes
    found = []
    for column, x in zip(columns.scale, fixed, strict=True):
        name = columns.names[column]
        folds = (x - float(np.max(runs.X[:, column]))) * columns.width[column]
        if axes[name].axis in _SIZES and folds > math.log(_FAR * 1.01):
            found.append(
                f"the target's {name} is {math.exp(min(folds, 700.0)):.3g} times that of the"
                " largest run: best settings may bend along model size, so a larger proxy tells"
                " more than one with more tokens"
            )
    return found


def _intervals(
    encoder: Encoder,
    model: Predictor,
    row: Array,
    fixed: Array,
    no_effect: tuple[str, ...],
    rng: np.random.Generator,
) -> dict[str, tuple[float, float]]:
    """Return the central 90 % interval of where the optimum lies, per numeric parameter."""
    space, config = encoder.space, _decoded(encoder, row, row[0], row[0])[0]
    numeric = [
        name for name in space.decisions if isinstance(space[name], Float | Int) and name in config
    ]
    columns = np.array([encoder.index(name) for name in numeric], dtype=np.intp)
    if isinstance(model, ScalingPredictor):
        low, high = _law_bounds(encoder, model, row, fixed, no_effect)
    else:
        low, high = _drawn_bounds(encoder, model, row, rng)
    low, high = np.minimum(low, row[0]), np.maximum(high, row[0])
    # each bound is decoded in the recommended config, so that conditions stay as they are
    bounds = {}
    for name, column in zip(numeric, columns, strict=True):
        ends = np.repeat(row, 2, axis=0)
        ends[:, column] = low[column], high[column]
        first, last = _decoded(encoder, ends, low, high)
        bounds[name] = (float(first[name]), float(last[name]))
    return bounds


def _decoded(encoder: Encoder, rows: Array, lower: Array, upper: Array) -> list[dict[str, Any]]:
    """Return the configs of `rows`, whose settings lie in the box, perhaps beyond the searched."""
    if not encoder.space.extrapolated:
        return encoder.decode(rows)
    configs = encoder.within(lower, upper).decode(rows)
    return [encoder.space.canonical(config, extrapolate=True) for config in configs]


def _informed_by_data(
    encoder: Encoder, model: Predictor, row: Array, fixed: Array
) -> dict[str, float]:
    """Return the share of the optimum's prior variance that the runs removed, per parameter."""
    if not isinstance(model, ScalingPredictor):
        return {}
    optimum = law_optimum(encoder, model, row, fixed)
    left = np.diagonal(optimum.covariance) / np.diagonal(optimum.prior_covariance)
    names = (encoder.columns.names[j] for j in encoder.columns.decision)
    return dict(zip(names, np.clip(1.0 - left, 0.0, 1.0).tolist(), strict=True))


def _one_sided(models: Models, model: Predictor, no_effect: tuple[str, ...]) -> tuple[str, ...]:
    """Return a warning for each parameter with nearly all runs on one side of its optimum."""
    if not isinstance(model, ScalingPredictor):
        return ()
    above = np.mean(model.loss.displacement(models.runs.X) > 0.0, axis=0)
    warnings = []
    for j, share in zip(model.loss.layout.decisions, above.tolist(), strict=True):
        side = "above" if share > 0.5 else "below"
        if model.columns.names[j] in no_effect:
            continue
        if min(share, 1.0 - share) < _ONE_SIDED:
            warnings.append(
                f"nearly all runs had a {model.columns.names[j]} {side} what seems best at their"
                " scale, so its best value is uncertain"
            )
    return tuple(warnings)


def _outside(
    models: Models,
    config: Mapping[str, Any],
    intervals: Mapping[str, tuple[float, float]],
    row: Array,
    no_effect: tuple[str, ...],
) -> tuple[str, ...]:
    """Return a warning for each setting that lies outside what was tried, or on a bound."""
    encoder, warnings = models.encoder, []
    least, most = walls(encoder)
    rows = models.runs.X
    if len(rows) > MANY:  # those at the ends of what was tried are enough
        rows = rows[np.unique([np.argmin(rows, axis=0), np.argmax(rows, axis=0)])]
    configs = encoder.decode(rows)
    for name, interval in intervals.items():
        parameter = encoder.space[name]
        assert isinstance(parameter, Float | Int)
        if name in no_effect or not parameter.bounded or parameter.low == parameter.high:
            continue
        j, value = encoder.index(name), config[name]
        x, low, high = float(row[0, j]), float(encoder.lower[j]), float(encoder.upper[j])
        side, bound = ("below", low) if x - low < high - x else ("above", high)
        step = TOUCHING * (high - low)
        searched = f"the searched range {parameter.low:.6g} to {parameter.high:.6g}"
        best = (
            f"the best {name} at this target, {value:.3g},"
            if encoder.space.scales
            else (f"the best {name}, {value:.3g},")
        )
        at_wall = min(x - least[j], most[j] - x) < step
        if low - step <= x <= low + step or high - step <= x <= high + step:
            if at_wall and name in encoder.space.extrapolated:
                continue  # nothing lies beyond
            if parameter.physical_limits == parameter.limits:
                end = parameter.low if side == "below" else parameter.high
                warnings.append(
                    f"{best} lies on its hard bound {end:.6g}: move the bound if values {side} it"
                    " make sense"
                )
            elif not is_wall(parameter, side):
                edge = _edge(encoder, name, interval, x, side)
                warnings.append(
                    f"{best} lies on the edge of {searched}: widen it to about {edge:.2g}"
                )
        elif not low < x < high:
            edge = _edge(encoder, name, interval, x, side)
            warnings.append(
                f"{best} lies {side} {searched}: widen it to about {edge:.2g} for runs at this size"
            )
        else:
            ran = [k for k, run in enumerate(configs) if name in run]  # its condition held
            tried = rows[ran, j]
            if ran and not np.min(tried) - step <= x <= np.max(tried) + step:
                values = [configs[k][name] for k in ran]
                warnings.append(
                    f"{best} lies outside the values tried, {min(values):.3g} to {max(values):.3g}"
                )
    return tuple(warnings)


def is_wall(parameter: Float | Int, side: str) -> bool:
    """Return whether the declared bound on that side is a physical one."""
    k = 0 if side == "below" else 1
    return parameter.limits[k] == parameter.physical_limits[k]


def _edge(encoder: Encoder, name: str, interval: tuple[float, float], x: float, side: str) -> float:
    """Return where the range should end: as far as the interval goes, at most half a range on."""
    j = encoder.index(name)
    row = np.repeat(encoder.center[None, :], 2, axis=0)
    most = 0.5 * float(encoder.upper[j] - encoder.lower[j])
    least = 0.1 * most
    sign = -1.0 if side == "below" else 1.0
    row[:, j] = x + sign * most, x + sign * least
    far, near = (
        float(c[name]) for c in encoder.within(row.min(axis=0), row.max(axis=0)).decode(row)
    )
    end = interval[0] if side == "below" else interval[1]
    return float(np.clip(end, min(far, near), max(far, near)))


def _refuted(models: Models, refutation: Refutation | None) -> tuple[str, ...]:
    """Return a warning that the model's own answer was not taken, and why."""
    if refutation is None:
        return ()
    runs, sign = models.answering, models.encoder.loss_sign
    near = "a run that failed"
    if refutation.near is not None:
        near = (
            f"trial {runs.numbers[refutation.near]}, whose {Direction.of_sign(sign).noun}"
            f" {sign * runs.loss[refutation.near]:.3g} is far from the"
            f" {sign * refutation.predicted:.3g} predicted there"
        )
    return (
        f"the law's own answer lies beside {near}: these are the settings of trial"
        f" {runs.numbers[refutation.best]} instead, the best run that no other contradicts",
    )


def _quiet(no_effect: tuple[str, ...]) -> tuple[str, ...]:
    """Return one sentence that names the settings without effect."""
    if not no_effect:
        return ()
    return (f"no effect seen of {', '.join(no_effect)}: the value of the best run is kept",)


def _at_least(loss: Expected, least: float, sign: float) -> Expected:
    """Return the forecast with a mean of `least` or more, smaller being better."""
    mean, (low, high) = sign * loss.mean, sorted(sign * end for end in loss.interval)
    if mean >= least:
        return loss
    high = max(high, least + (high - mean))
    first, last = sorted([sign * low, sign * high])
    return Expected(sign * least, (first, last))


def check_target(
    space: SearchSpace, target: Mapping[str, float], argument: str = "target"
) -> dict[str, float]:
    """Return `target` as floats, one for each scale axis.

    Args:
        space: Space that the target is meant for.
        target: Value of each scale axis.
        argument: What the user calls it.

    Raises:
        SpaceError: If an axis is missing or unknown, a value is not positive and finite, or the
            target is smaller than the smallest proxy along every axis.
    """
    given: dict[str, Any] = Table(way_out=SIZES)(target, f"`{argument}`", SpaceError)
    if not space.scales:
        raise SpaceError(
            f"`{argument}` needs a space with Scale axes, got {shown(given)}; declare one, such as"
            " Scale(1e5, 1e7, axis=Axis.PARAMS), or leave the target out"
        )
    if set(given) != set(space.scales):
        raise SpaceError(
            f"`{argument}` must name every scale axis and nothing else: {list(space.scales)},"
            f" got {list(given)}"
        )
    checked: dict[str, float] = {}
    for name in space.scales:
        value = real(given[name])
        if value is None or not SMALLEST_POSITIVE <= value <= LARGEST_FLOAT:
            raise SpaceError(
                f"`{argument}[{name!r}]` must be positive and finite, got {shown(given[name])};"
                " give a size, such as 1e9"
            )
        checked[name] = value
    lows = {name: scale.low for name, scale in space.scale_axes.items()}
    if all(checked[name] < low * (1.0 - _SAME) for name, low in lows.items()):
        raise SpaceError(
            f"`{argument}` must not lie below every proxy, got {checked} where the smallest proxy"
            f" is {lows}; name the scale of the final run, or lower the axes' `low`"
        )
    return checked


def _law_bounds(
    encoder: Encoder,
    model: ScalingPredictor,
    row: Array,
    fixed: Array,
    no_effect: tuple[str, ...],
) -> tuple[Array, Array]:
    """Return central 90 % bounds of where the optimum lies, `(d,)` each.

    They surround the row, which is the best of law and processes together. Where the processes
    moved it away from the law's own optimum, the law is wrong by about as much, and the interval
    reaches that far for this alone. They end at physical and hard bounds only, and at the searched
    range for settings without an effect.
    """
    columns = encoder.columns
    low, high = row[0].copy(), row[0].copy()
    optimum = law_optimum(encoder, model, row, fixed)
    decisions = columns.decision
    moved = (
        row[0, decisions] - (optimum.mean - columns.origin[decisions]) / columns.width[decisions]
    )
    variance = np.diagonal(optimum.covariance) / columns.width[decisions] ** 2
    half = np.sqrt(_NINETY**2 * variance + moved**2)
    lower, upper = walls(encoder)
    searched = encoder.box(row)
    for name in no_effect:
        j = encoder.index(name)
        lower[j], upper[j] = searched[0][j], searched[1][j]
    low[decisions] = np.clip(row[0, decisions] - half, lower[decisions], upper[decisions])
    high[decisions] = np.clip(row[0, decisions] + half, lower[decisions], upper[decisions])
    return low, high


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
