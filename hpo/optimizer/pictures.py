"""What the pictures of a result show, read from its log and its models.

Notation: X, rows of encoded configs; losses inside are those that are minimized, and those of the
pictures are in the user's direction.

**Slices.** All settings but one (or two) are as recommended at a scale. The line is the posterior
mean of the loss of a whole run, without its noise. A run is drawn at f(slice at its value) + (its
loss - f(its config)), as in a partial residual plot: off the line by what the model leaves
unexplained.

**Importance.** The total effect of setting j is half the mean of (f(A) - f(A with x_j redrawn))^2
over the searched range (Jansen 1999), its share is that over the sum of all effects. f is drawn
from the joint posterior, so the intervals hold what the model does not know. It is not told where
the mean posterior variance is as large as the variance of the mean: there is not enough data.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.drawing.plot_data import FrontPlot, PredictedLosses
from hpo.drawing.search_data import (
    BudgetPlot,
    CalibrationPlot,
    ContourPlot,
    CurvesPlot,
    Dimension,
    ImportancePlot,
    LearningCurve,
    ParallelPlot,
    SlicePlot,
    TimelinePlot,
)
from hpo.optimizer.law_plot import inside
from hpo.space import Categorical, Fidelity, Float, Int, Scale, SearchSpace
from hpo.trials import Observation, Status
from surrogates.data import Array
from surrogates.gp import representative
from surrogates.learning_curves import Curve, CurveModel
from surrogates.numerics import normal_half_width
from surrogates.scaling_law.model import ScalingPredictor

if TYPE_CHECKING:
    from hpo.optimizer.recommend import Recommendation
    from hpo.optimizer.result import FrontMember, Result

_SHOWN_SCALES = 6  # from the largest run of the front to the target, in the picture
_POINTS, _GRID = 60, 36  # of a slice in one and along each side of one in two dimensions
_DRAWS = 200  # of the loss, for the importance
_MOST_ROWS = 1500  # in a joint posterior
_MOST_CURVES, _FORECASTS = 200, 3
_MOST_RUNS = 500  # in a slice
_KEY = 0x1A9E  # random key: the same log gives the same picture
_NINETY = normal_half_width(0.9)


def loss_name(result: Result) -> str:
    """Return the name of the objective in pictures and pages."""
    return result.models.encoder.direction.noun


def front_plot(result: Result, front: tuple[FrontMember, ...]) -> FrontPlot:
    """Return what the picture of the front shows; its arrays are empty without costs."""
    front = tuple(member for member in front if member.cost is not None)
    done = [(o.cost, o.loss) for o in _completed(result) if o.cost]
    costs, losses = np.array(done, dtype=np.float64).reshape(-1, 2).T
    sign = result.models.encoder.loss_sign
    best = np.minimum.accumulate(sign * losses) if len(losses) else losses
    record = np.r_[True, np.diff(best) < 0] if len(losses) else np.zeros(0, dtype=np.bool_)
    return FrontPlot(
        cost=costs,
        loss=losses,
        front_cost=np.array([member.cost for member in front], dtype=np.float64),
        front_loss=np.array([member.expected_loss for member in front]),
        predicted=_predicted_beyond(result, front[-1]) if front else None,
        cost_unit=result.cost_unit,
        maximize=sign < 0,
        path=tuple(np.flatnonzero(record).tolist()),
        loss_label=loss_name(result),
    )


def _predicted_beyond(result: Result, last: FrontMember) -> PredictedLosses | None:
    """Return predictions from the scale of the front's last member to the target, if there is one.

    None without a target, a model of the cost or a completed trial.
    """
    cost_model, encoder, target = result.models.cost(), result.models.encoder, result.target
    if not target or cost_model is None or not len(result.models.runs):
        return None
    start = {name: float(last.config[name]) for name in target}
    rows = []
    for share in np.linspace(0.0, 1.0, _SHOWN_SCALES):
        scale = {
            name: start[name] * math.exp(share * math.log(target[name] / start[name]))
            for name in target
        }
        advice = result.recommend(scale)
        log_cost = cost_model.posterior(encoder.encode([advice.config])).mean[0]
        rows.append((math.exp(log_cost), advice.loss, *advice.loss_interval))
    return PredictedLosses(*np.array(rows).T)


def slice_plot(result: Result, name: str, advice: Recommendation) -> SlicePlot:
    """Return the expected loss along one setting.

    Args:
        result: Result with at least one completed trial.
        name: Name of a setting.
        advice: Recommendation at the scale of the slice.
    """
    encoder, model = result.models.encoder, result.models.loss_at_full_fidelity()
    place, base = encoder.index(name), _row(result, advice)
    entries = _entries(result, name, _POINTS, base[0, place])
    rows = _spread(result, base, [place], entries[:, None])
    mean, sd = _posterior(result, rows)
    X, losses = _shown_runs(result, name)
    moved = _spread(result, base, [place], X[:, [place]])
    residual = losses - model.posterior(X).mean
    sign = encoder.loss_sign
    ends = np.sort([sign * (mean - _NINETY * sd), sign * (mean + _NINETY * sd)], axis=0)
    fits = name in advice.config
    return SlicePlot(
        setting=_dimension(result.space, name),
        value=_values(result, name, entries),
        loss=sign * mean,
        low=ends[0],
        high=ends[1],
        run_value=_values(result, name, X[:, place]),
        run_loss=sign * (model.posterior(moved).mean + residual),
        recommended=_number(result.space, name, advice.config[name]) if fits else None,
        at=_at(advice),
        loss_label=loss_name(result),
        maximize=sign < 0,
    )


def contour_plot(result: Result, x: str, y: str, advice: Recommendation) -> ContourPlot:
    """Return the expected loss over two settings, both active in the recommended config."""
    encoder = result.models.encoder
    places, base = [encoder.index(x), encoder.index(y)], _row(result, advice)
    sides = [
        _entries(result, name, _GRID, base[0, place])
        for name, place in zip((x, y), places, strict=True)
    ]
    grid = np.stack([side.ravel() for side in np.meshgrid(*sides)], axis=1)
    mean, _ = _posterior(result, _spread(result, base, places, grid))
    runs, _ = _shown_runs(result, x, y)
    sign = encoder.loss_sign
    tried = [_values(result, n, runs[:, p]) for n, p in zip((x, y), places, strict=True)]
    best = [_number(result.space, name, advice.config[name]) for name in (x, y)]
    return ContourPlot(
        x=_dimension(result.space, x),
        y=_dimension(result.space, y),
        x_value=_values(result, x, sides[0]),
        y_value=_values(result, y, sides[1]),
        loss=sign * mean.reshape(len(sides[1]), len(sides[0])),
        run_x=tried[0],
        run_y=tried[1],
        recommended=(best[0], best[1]),
        at=_at(advice),
        loss_label=loss_name(result),
        maximize=sign < 0,
    )


def importance_plot(result: Result, advice: Recommendation) -> ImportancePlot:
    """Return how much each setting matters over the searched range, at one scale."""
    encoder, model = result.models.encoder, result.models.loss_at_full_fidelity()
    names, count = result.space.decisions, _count(result)
    rng = np.random.default_rng(_KEY)
    n = max(24, min(128, _MOST_ROWS // (len(names) + 1)))
    box = encoder.box(result.models.runs.X)
    d = len(encoder.lower)
    first, second = (
        _at_scale_of(result, encoder.from_unit(rng.random((n, d)), box), advice) for _ in range(2)
    )
    rows = [first]
    for name in names:
        changed = first.copy()
        changed[:, encoder.index(name)] = second[:, encoder.index(name)]
        rows.append(_snapped(result, changed))
    joint = model.joint_posterior(np.concatenate(rows))
    f = joint.sample(_DRAWS, rng).reshape(_DRAWS, len(names) + 1, n)
    effects = 0.5 * np.mean((f[:, 1:] - f[:, :1]) ** 2, axis=2)
    total = effects.sum(axis=1, keepdims=True)
    shares = np.divide(effects, total, out=np.zeros_like(effects), where=total > 0)
    variance = float(np.mean(np.diag(joint.covariance)[:n]))
    enough = count > len(names) and variance < float(np.var(joint.mean[:n]))
    low, middle, high = np.quantile(shares, [0.05, 0.5, 0.95], axis=0)
    middle = middle / middle.sum() if middle.sum() > 0 else middle
    order = np.argsort(-middle, kind="stable")
    return ImportancePlot(
        names=tuple(names[i] for i in order),
        share=middle[order],
        low=np.minimum(low, middle)[order],
        high=np.maximum(high, middle)[order],
        enough=enough,
        runs=count,
        at=_at(advice),
    )


def curves_plot(result: Result) -> CurvesPlot:
    """Return the learning curves of the runs that reported more than one loss, the best last."""
    sign, space = result.models.encoder.loss_sign, result.space
    fidelity = None if space.fidelity is None else space[space.fidelity]
    found: list[LearningCurve] = []
    for o in (*_finished(result), *result.log.paused):
        reports = [r for r in result.log.reports(o.number) or o.reports if r.loss is not None]
        points = {r.step: float(r.loss) for r in reports if r.loss is not None}
        points = {step: loss for step, loss in points.items() if math.isfinite(loss)}
        if len(points) > 1 or (points and fidelity is not None):
            steps = sorted(points)
            losses = np.array([points[step] for step in steps])
            done = o.status is Status.COMPLETED
            found.append(LearningCurve(o.number, np.array(steps, np.float64), losses, done))
    found.sort(key=lambda curve: (curve.finished, -sign * float(curve.loss[-1])))
    kept = found[-_MOST_CURVES:]
    if isinstance(fidelity, Fidelity):
        kept = _forecast(kept, found, fidelity, sign)
    return CurvesPlot(
        curves=tuple(kept),
        hidden=len(found) - len(kept),
        step_label=space.fidelity or "step",
        loss_label=loss_name(result),
        maximize=sign < 0,
    )


def _forecast(
    kept: Sequence[LearningCurve],
    all_curves: Sequence[LearningCurve],
    fidelity: Fidelity,
    sign: float,
) -> list[LearningCurve]:
    """Add forecasts to the most promising of the runs that are not complete."""
    low, high = float(fidelity.low), float(fidelity.high)
    inner = [c for c in all_curves if c.step[0] >= low]
    open_ = [c for c in kept if not c.finished and c.step[0] >= low and c.step[-1] < high]
    chosen = {c.number for c in sorted(open_, key=lambda c: sign * float(c.loss[-1]))[:_FORECASTS]}
    if not chosen or low >= high:
        return list(kept)
    model = CurveModel(low, high).fit([Curve(c.step, sign * c.loss) for c in inner])
    curves = []
    for curve in kept:
        if curve.number in chosen:
            later = np.geomspace(curve.step[-1], high, 16)
            ahead = model.predict(Curve(curve.step, sign * curve.loss), later)
            quantiles = np.sort([sign * ahead.quantile(p) for p in (0.05, 0.5, 0.95)], axis=0)
            curve = LearningCurve(
                curve.number, curve.step, curve.loss, False, later, quantiles[[1, 0, 2]]
            )
        curves.append(curve)
    return curves


def parallel_plot(result: Result) -> ParallelPlot:
    """Return the settings and scales of all completed trials."""
    space, done = result.space, _completed(result)
    names = [*space.decisions, *space.scales]
    values = [
        [_number(space, n, o.config[n]) if n in o.config else np.nan for n in names] for o in done
    ]
    return ParallelPlot(
        settings=tuple(_dimension(space, name) for name in names),
        value=np.array(values, dtype=np.float64).reshape(len(done), len(names)),
        loss=np.array([o.loss for o in done], dtype=np.float64),
        loss_label=loss_name(result),
        maximize=result.models.encoder.loss_sign < 0,
    )


def calibration_plot(result: Result) -> CalibrationPlot:
    """Return what was predicted of each completed trial before it ran, and its loss."""
    rows = []
    for o in _completed(result):
        trial = None if o.ask_index is None else result.log.trial(o.number)
        prediction = None if trial is None else trial.prediction
        if prediction is not None and prediction.loss is not None and prediction.loss_interval:
            rows.append((o.number, prediction.loss, *prediction.loss_interval, o.loss))
    columns = np.array(rows, dtype=np.float64).reshape(-1, 5).T
    number, predicted, low, high, observed = columns
    return CalibrationPlot(number, predicted, low, high, observed, loss_name(result))


def timeline_plot(result: Result) -> TimelinePlot:
    """Return when each trial of a study ran; nothing for an optimizer without a driver."""
    causes = {o.number: o.cause.value for o in result.log.observations if o.cause is not None}
    status = {o.number: o.status.value for o in (*result.log.observations, *result.log.paused)}
    seconds = {o.number: o.seconds for o in result.log.paused}
    spans = []
    for trial in () if result.study is None else result.study.get_trials(deepcopy=False):
        if trial.datetime_start is None:
            continue
        start = trial.datetime_start.timestamp()
        if trial.datetime_complete is not None:
            end = trial.datetime_complete.timestamp()
        elif trial.number in status:  # paused: only its run time is known
            end = start + (seconds.get(trial.number) or 0.0)
        else:
            continue
        shown = causes.get(trial.number, status.get(trial.number, "other"))
        spans.append((start, max(start, end), trial.number, shown))
    spans.sort()
    lanes: list[float] = []
    lane = []
    for start, end, _, _ in spans:
        free = next((k for k, until in enumerate(lanes) if until <= start), len(lanes))
        lanes[free : free + 1] = [end]
        lane.append(free)
    zero = spans[0][0] if spans else 0.0
    return TimelinePlot(
        number=np.array([span[2] for span in spans], dtype=np.float64),
        lane=np.array(lane, dtype=np.float64),
        start=np.array([span[0] for span in spans]) - zero,
        end=np.array([span[1] for span in spans]) - zero,
        status=tuple(span[3] for span in spans),
    )


def budget_plot(result: Result) -> BudgetPlot:
    """Return the best loss so far against the sum of the costs; against trials without costs."""
    sign = result.models.encoder.loss_sign
    priced = any(o.cost for o in _finished(result))
    spent, rows = 0.0, []
    for o in _finished(result):
        spent += (o.cost or 0.0) if priced else 1.0
        if o.status is Status.COMPLETED and o.loss is not None:
            rows.append((spent, o.loss))
    amount, losses = np.array(rows, dtype=np.float64).reshape(-1, 2).T
    best = sign * np.minimum.accumulate(sign * losses) if len(losses) else losses
    return BudgetPlot(
        spent=amount,
        loss=losses,
        best=best,
        unit=(result.cost_unit or "cost as told") if priced else "trials",
        loss_label=loss_name(result),
        maximize=sign < 0,
    )


def _finished(result: Result) -> tuple[Observation, ...]:
    return result.log.runs


def _completed(result: Result) -> list[Observation]:
    return [
        o for o in result.log.observations if o.status is Status.COMPLETED and o.loss is not None
    ]


def _at(advice: Recommendation) -> str:
    scale = ", ".join(f"{name} {value:.3g}" for name, value in advice.target.items())
    return f"at {scale}" if scale else ""


def _row(result: Result, advice: Recommendation) -> Array:
    """Return the encoded recommended config, at its scale also where that lies beyond the range."""
    row = result.models.encoder.encode([inside(result.space, advice.config)])
    return _at_scale_of(result, row, advice)


def _at_scale_of(result: Result, rows: Array, advice: Recommendation) -> Array:
    columns = result.models.encoder.columns
    moved = rows.copy()
    for j in columns.scale.tolist():
        natural = math.log(advice.target[columns.names[j]])
        moved[:, j] = (natural - columns.origin[j]) / columns.width[j]
    return moved


def _snapped(result: Result, rows: Array) -> Array:
    return result.models.encoder.snap(rows, keep_scale=True)


def _spread(result: Result, base: Array, places: list[int], entries: Array) -> Array:
    """Return the base row with other entries in some columns, as legal rows.

    Another choice may switch settings on and off.
    """
    rows = np.repeat(base, len(entries), axis=0)
    rows[:, places] = entries
    return _snapped(result, rows)


def _posterior(result: Result, rows: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of the loss without the noise of one run."""
    model = result.models.loss_at_full_fidelity()
    posterior = model.posterior(rows)
    variance = posterior.variance
    if isinstance(model, ScalingPredictor):
        variance = variance + model.extrapolation_variance(rows)
    return posterior.mean, np.sqrt(variance)


def _count(result: Result) -> int:
    """Return the number of runs of which the model knows, partial ones included."""
    partial = len(result.log.paused) if result.models.uses_partial_runs else 0
    return len(result.models.runs) + partial


def _shown_runs(result: Result, *names: str) -> tuple[Array, Array]:
    """Return rows and losses of the runs that are drawn, in which all of the settings are active.

    Of many runs, a subset that represents them.
    """
    runs, columns = result.models.runs, result.models.encoder.columns
    kept = representative(runs.X[:, columns.numeric], runs.loss, _MOST_RUNS)
    configs = result.models.encoder.decode(runs.X[kept])
    active = [all(name in config for name in names) for config in configs]
    kept = kept[np.array(active, dtype=np.bool_)]
    return runs.X[kept], runs.loss[kept]


def _entries(result: Result, name: str, count: int, answer: float) -> Array:
    """Return entries of a setting over the searched range, the runs and the recommended value."""
    encoder, parameter = result.models.encoder, result.space[name]
    place = encoder.index(name)
    if isinstance(parameter, Categorical) and not parameter.ordered:
        return np.arange(len(parameter.choices), dtype=np.float64)
    if isinstance(parameter, Categorical):
        return (
            np.linspace(0.0, 1.0, len(parameter.choices))
            if len(parameter.choices) > 1
            else (np.array([answer]))
        )
    low, high = encoder.box(result.models.runs.X)
    entries = np.linspace(min(low[place], answer), max(high[place], answer), count)
    row = np.repeat(encoder.lower[None], count, axis=0)
    row[:, place] = entries
    legal = encoder.snap(row)[:, place] if isinstance(parameter, Int) else entries
    return np.unique(legal)


def _values(result: Result, name: str, entries: Array) -> Array:
    """Return entries of a column in the user's unit; the index of a choice."""
    columns, parameter = result.models.encoder.columns, result.space[name]
    place = result.models.encoder.index(name)
    if isinstance(parameter, Categorical):
        last = len(parameter.choices) - 1
        return np.round(entries * last) if parameter.ordered else np.round(entries)
    assert isinstance(parameter, Float | Int)
    natural = columns.origin[place] + columns.width[place] * entries
    if name in result.models.encoder.log_axes:
        return np.asarray(np.exp(natural))
    return np.asarray(parameter.unit.from_natural(natural))


def _number(space: SearchSpace, name: str, value: Any) -> float:
    """Return a value as a number: a choice as its index."""
    parameter = space[name]
    if isinstance(parameter, Categorical):
        return float(next(i for i, c in enumerate(parameter.choices) if c is value or c == value))
    return float(value)


def _dimension(space: SearchSpace, name: str) -> Dimension:
    parameter = space[name]
    if isinstance(parameter, Categorical):
        return Dimension(name, choices=tuple(str(choice) for choice in parameter.choices))
    log = isinstance(parameter, Scale) or (isinstance(parameter, Float | Int) and parameter.log)
    return Dimension(name, log=log)
