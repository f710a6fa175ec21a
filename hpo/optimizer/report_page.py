"""What the HTML report of a result shows."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from hpo.drawing.html import (
    FailureKind,
    HTMLTable,
    PagePicture,
    RecommendedConfig,
    ReportPage,
    ShownTrial,
)
from hpo.drawing.interactive import figure_of, optimum_figure, points_figure
from hpo.errors import SpaceError
from hpo.optimizer import pictures
from hpo.optimizer.law_plot import law_plot
from hpo.optimizer.summary import summary
from hpo.space import Categorical, Scale, SearchSpace
from hpo.trials import Cause, Observation, Status
from hpo.trials.failures import failures
from hpo.trials.table_columns import column_names

if TYPE_CHECKING:
    from hpo.optimizer.recommend import Recommendation
    from hpo.optimizer.result import FrontMember, Result

_UNNAMED = "no-name-"  # how Optuna begins the names that it makes up
_LONGEST_TITLE = 4  # settings that are named in a title
_MOST_SLICES = 8
_PACKAGES = ("scaletune", "numpy", "scikit-learn", "optuna")


def report_page(result: Result) -> ReportPage:
    """Return what the report shows; see :meth:`hpo.optimizer.result.Result.report`."""
    some = bool(result.candidates())
    best, observed = (result.best, result.best_observed) if some else (None, None)
    several = result.objectives
    advice = result.recommend() if len(result.models.runs) and several is None else None
    front, trials = result.front, result.to_pandas().drop(columns="traceback")
    picture = pictures.front_plot(result, front) if front else None
    law = result.scaling_law
    return ReportPage(
        title=_title(result),
        made=_made(),
        finished=len(result.log.runs),
        best=None if best is None else _shown(best),
        observed=None
        if best is None or observed is None or observed.number == best.number
        else _shown(observed),
        nothing=None if advice is not None or (some and several) else result.why_nothing(),
        recommended=None if advice is None else _recommended(advice),
        front=_front_table(result, front),
        picture=picture if picture is not None and len(picture.cost) > 1 else None,
        summary=[
            part if isinstance(part, str) else HTMLTable(part.header, part.rows)
            for part in summary(result)
        ],
        trials=HTMLTable(list(trials.columns), list(trials.itertuples(index=False))),
        asked=_asked(result),
        space=_space_table(result.space),
        spent=_spent(result),
        failures=_failures(result.log.runs),
        law=None
        if law is None
        else HTMLTable(
            ("coefficient", "before the runs", "+-", "fitted", "+-", "from data"),
            [
                (row.name, e.prior_mean, e.prior_sd, e.mean, e.sd, f"{row.informed_by_data:.0%}")
                for row in law.rows
                for e in [row.estimate]
            ],
        ),
        law_note="Slopes are changes of the logarithm per e-fold of the axis; best values and "
        "removable losses are those at the mean scale of the runs; +- is one standard error.",
        rules=None
        if law is None or not law.rules
        else HTMLTable(
            ("rule", "before", "after the runs", "source"),
            [
                (rule.name, f"{rule.before:.0%}", f"{rule.after:.0%}", rule.source)
                for rule in sorted(law.rules[:-1], key=lambda rule: -round(rule.after, 6))
            ]
            + [
                (rule.name, f"{rule.before:.0%}", f"{rule.after:.0%}", rule.source)
                for rule in law.rules[-1:]
            ],
        ),
        pictures=[*_objective_pictures(result), *_pictures(result, advice)],
        loss_name=pictures.loss_name(result),
    )


def _title(result: Result) -> str:
    name = "" if result.study is None else result.study.study_name
    if name and not name.startswith(_UNNAMED):
        return name
    names = result.space.decisions or tuple(result.space)
    shown = ", ".join(names[:_LONGEST_TITLE])
    return f"Search over {shown}" + (" and others" if len(names) > _LONGEST_TITLE else "")


def _made() -> str:
    parts = []
    for package in _PACKAGES:
        try:
            parts.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # run from a source tree
            continue
    written = datetime.now().astimezone().strftime("%Y-%m-%d %H:%M %Z")
    return f"Written {written}, with {', '.join(parts)}, Python {platform.python_version()}"


def _shown(member: FrontMember) -> ShownTrial:
    return ShownTrial(member.number, member.loss, member.expected_loss)


def _recommended(advice: Recommendation) -> RecommendedConfig:
    scale = ", ".join(f"{name} {value:.4g}" for name, value in advice.target.items())
    times = f", {advice.extrapolation:.3g} times the compute of the largest run"
    at = f"At {scale}{times if advice.extrapolation > 1.0 else ''}." if scale else ""
    return RecommendedConfig(
        config=advice.config,
        intervals=advice.intervals,
        informed_by_data=advice.informed_by_data,
        loss=advice.loss,
        loss_interval=advice.loss_interval,
        warnings=advice.warnings,
        no_effect=advice.no_effect,
        at=at,
    )


def _front_table(result: Result, front: tuple[FrontMember, ...]) -> HTMLTable | None:
    if not any(member.cost is not None for member in front):
        return None
    names, unit = list(result.space), result.cost_unit or "cost"
    loss = pictures.loss_name(result)
    ours = ("trial", "cost" if unit in ("trial", loss, "expected") else unit, loss, "expected")
    rows = [
        (m.number, m.cost, m.loss, m.expected_loss, *(m.config.get(name) for name in names))
        for m in front
    ]
    return HTMLTable((*ours, *column_names(ours, names)[0].values()), rows)


def _asked(result: Result) -> list[tuple[str, Any]]:
    target = ", ".join(f"{name} {value:.4g}" for name, value in (result.target or {}).items())
    rows = [
        ("direction", result.models.encoder.direction.value),
        ("objectives and constraints", str(result.objectives or "")),
        ("budget", None if result.budget is None else str(result.budget)),
        *result.asked,
        ("cost is counted in", result.cost_unit),
        ("target", target),
    ]
    return [(name, value) for name, value in rows if value]


def _space_table(space: SearchSpace) -> HTMLTable:
    rows = []
    for name in space:
        parameter = space[name]
        low, high = getattr(parameter, "low", None), getattr(parameter, "high", None)
        if isinstance(parameter, Categorical):
            reach = ", ".join(str(choice) for choice in parameter.choices)
        elif low is None and high is None:
            reach = f"around {getattr(parameter, 'center', None)}"
        else:
            reach = f"{_end(low)} to {_end(high)}"
        logarithmic = isinstance(parameter, Scale) or getattr(parameter, "log", False)
        scale = "log" if logarithmic else "logit" if getattr(parameter, "logit", False) else ""
        role = getattr(parameter, "role", None) or getattr(parameter, "axis", None)
        when = getattr(parameter, "when", None)
        rows.append(
            (
                name,
                type(parameter).__name__,
                reach,
                scale,
                "" if role is None or role.name == "OTHER" else role.name.lower(),
                "" if when is None else f"{when[0]} in {', '.join(map(str, when[1]))}",
            )
        )
    header = ("setting", "kind", "range", "scale", "role", "active when")
    kept = [k for k in range(len(header)) if k < 3 or any(row[k] for row in rows)]
    return HTMLTable([header[k] for k in kept], [[row[k] for k in kept] for row in rows])


def _end(value: float | None) -> str:
    return "open" if value is None else f"{value:.6g}"


def _spent(result: Result) -> list[tuple[str, Any]]:
    runs = result.log.runs
    rows: list[tuple[str, Any]] = []
    for status in Status:
        count = sum(o.status is status for o in (*runs, *result.log.paused))
        if count:
            rows.append((f"{status.value} trials", str(count)))
    every = (*runs, *result.log.paused)
    costs = [o.cost for o in every if o.cost is not None]
    seconds = [o.seconds for o in every if o.seconds is not None]
    if costs:
        rows.append((f"cost of all of them ({result.cost_unit or 'as told'})", f"{sum(costs):.5g}"))
        lost = [o.cost for o in runs if o.cost is not None and o.status is Status.FAILED]
        if lost:
            rows.append(("of it for failed trials", f"{sum(lost):.5g}"))
    if seconds and result.cost_unit != "seconds":
        rows.append(("seconds of all of them", f"{sum(seconds):.5g}"))
    return rows


def _failures(runs: Sequence[Observation]) -> list[FailureKind]:
    """Return the kinds of failures, and last those of no fault of their configs."""
    kinds = [
        FailureKind(f"{kind.cause.value}: {kind.error}", kind.numbers, kind.text)
        for kind in failures(runs)
    ]
    lost = [o for o in runs if o.cause is Cause.LOST]
    if lost:
        text = next((o.error for o in lost if o.error), "")
        kinds.append(FailureKind("lost", [o.number for o in lost], text))
    return kinds


def _pictures(result: Result, advice: Recommendation | None) -> list[PagePicture]:
    found: list[PagePicture] = []
    budget = pictures.budget_plot(result)
    if len(budget.spent) > 1:
        caption = "The best that any trial had reached when so much was spent."
        found.append(PagePicture("Progress", caption, budget))
    if advice is not None:
        if result.space.scales:
            found += _law_pictures(result, advice)
        found += _model_pictures(result, advice)
    curves = pictures.curves_plot(result)
    if curves.curves:
        caption = "Losses as reported; the forecast is that of the run's own curve."
        found.append(PagePicture("Learning curves", caption, curves))
    calibration = pictures.calibration_plot(result)
    if len(calibration.observed) > 2:
        caption = (
            f"{calibration.inside} of {len(calibration.observed)} losses lie within the 90 % "
            "interval that was predicted before the trial ran."
        )
        found.append(PagePicture("Predicted and observed", caption, calibration))
    times = pictures.timeline_plot(result)
    if len(times.number) > 1:
        caption = "Trials that ran at the same time are in different lanes."
        found.append(PagePicture("When the trials ran", caption, times))
    parallel = pictures.parallel_plot(result)
    if len(parallel.loss) > 1 and len(parallel.settings) > 1:
        caption = (
            "One line a completed trial, bright ones are the best; drag along an axis to select. "
            "A setting that was not active is drawn at the lower end."
        )
        found.append(PagePicture("All settings", caption, parallel, wide=True))
    return found


def _objective_pictures(result: Result) -> list[PagePicture]:
    """Return the first objective against each other one."""
    wanted, found = result.objectives, []
    if wanted is None:
        return []
    on_front = {member.number for member in result.pareto_set}
    groups: dict[str, list[dict[str, float]]] = {
        "on the front": [],
        "beaten": [],
        "breaks a constraint": [],
    }
    for o in result.log.observations:
        values = wanted.values(o) if o.status is Status.COMPLETED else None
        if values is not None:
            kept = "on the front" if o.number in on_front else "beaten"
            groups[kept if wanted.feasible(values) else "breaks a constraint"].append(values)
    first, *others = wanted.directions
    for other in others if any(groups.values()) else []:
        points = {
            name: ([run[other] for run in runs], [run[first] for run in runs])
            for name, runs in groups.items()
        }
        figure = points_figure(points, other, first)
        title, caption = f"{first} against {other}", f"{first}: {wanted.directions[first].value}, "
        caption += f"{other}: {wanted.directions[other].value}; one point a completed trial."
        found.append(PagePicture(title, caption, figure=figure))
    return found


def _law_pictures(result: Result, advice: Recommendation) -> list[PagePicture]:
    law = law_plot(result.models, advice)
    caption = "Runs, fitted law at the best settings with the 90 % interval of one run, and target."
    name = pictures.loss_name(result)
    found = [PagePicture(f"{name.capitalize()} against scale", caption, law)]
    caption = (
        "Best value with its 90 % band, that of the prior, and the recommended value at the target."
        " Runs are moved along the fitted drift to the sizes of the line."
    )
    for setting in law.optima:
        figure = optimum_figure(law, setting)
        found.append(PagePicture(f"Best {setting.parameter} against scale", caption, figure=figure))
    try:
        report = result.instability()
    except (SpaceError, ValueError):  # there is no learning rate
        return found
    caption = "Expected loss at each scale; the thick line is the target."
    figure = figure_of(report.curves_to_draw())
    found.append(PagePicture(f"Sensitivity to {report.parameter}", caption, figure=figure))
    return found


def _model_pictures(result: Result, advice: Recommendation) -> list[PagePicture]:
    settings = [name for name in result.space.decisions if name in advice.config]
    at = ", ".join(f"{name} {value:.3g}" for name, value in advice.target.items())
    where = f" at {at}" if at else ""
    found = []
    importance = pictures.importance_plot(result, advice)
    if len(settings) > 1:
        caption = (
            f"Share of each setting in how the expected loss varies over the searched range{where}."
            if importance.enough
            else f"Not enough data yet: {importance.runs} runs."
        )
        shown = importance if importance.enough else None
        found.append(PagePicture("Importance of the settings", caption, shown))
    if importance.runs <= len(settings):
        return found  # slices of a model of so few runs show its prior
    ranked = [name for name in importance.names if name in settings]
    caption = f"The other settings are as recommended{where}."
    for name in ranked[:_MOST_SLICES]:
        found.append(
            PagePicture(f"Slice along {name}", caption, pictures.slice_plot(result, name, advice))
        )
    if len(ranked) > 1:
        x, y = ranked[:2]
        both = pictures.contour_plot(result, x, y, advice)
        found.append(PagePicture(f"Slice over {x} and {y}", caption, both))
    return found
