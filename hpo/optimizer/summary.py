"""What `print(result)` says: what was asked, spent and found, how sure it is, and what to do next.

Words are for people: nothing reads them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hpo.models.fitted import Models
from hpo.models.intervals import loss_forecast
from hpo.optimizer.recommend import TOUCHING, is_wall
from hpo.space import Direction, Float, Int, SearchSpace
from hpo.trials import Cause, Status, TrialLog
from hpo.trials.failures import failures
from hpo.trials.pareto import Objectives
from hpo.trials.printing import Grid, Part, short, span
from hpo.trials.records import SECONDS

if TYPE_CHECKING:
    from hpo.optimizer.result import FrontMember, Result

__all__ = ["at_bound", "states", "summary"]

_NAMED = 6  # parameters, trials or settings that a sentence names
_SHOWN = 12  # members of the front of several objectives
_UNNAMED = "no-name-"  # how Optuna calls a study without a name


def summary(result: Result) -> list[Part]:
    """Return sentences and a table about a result.

    Args:
        result: The result.
    """
    direction = Direction.of_sign(result.models.encoder.loss_sign)
    parts: list[Part] = [_asked(result, direction), _spent(result)]
    kinds = failures(result.log.observations)
    failed = [
        f"Failed: {len(kind.numbers)} with {kind.error or kind.cause.value} "
        f"({_trials(kind.numbers)})."
        for kind in kinds
    ]
    if not result.candidates():
        return [*parts, *failed, f"No trial was completed: {result.why_nothing()}."]
    if result.objectives is not None:
        return [*parts, *_front_of(result, result.objectives), *failed, *_continued(result)]
    best, observed = result.best, result.best_observed
    if observed.loss == best.loss:
        observed = best
    parts.append(_table(result, best, observed, direction))
    if observed.number != best.number:
        parts.append(
            f"Trial {observed.number} has the best {direction.noun} observed; the models expect "
            f"more of trial {best.number}, because one run may be lucky."
        )
    if not len(result.models.runs):
        parts.append(f"No trial was trained in full: {result.why_nothing()}.")
    return [*parts, *failed, *_next(result, best)]


def at_bound(models: Models, config: dict[str, Any]) -> dict[str, str]:
    """Return the settings of a config that lie on a bound of the search which could be moved.

    Args:
        models: Models of the log.
        config: A whole config.

    Returns:
        "lower" or "upper" by name.

    Example:
        >>> from hpo import Float, Optimizer
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "x": Float(0, 1)})
        >>> at_bound(optimizer.result().models, {"lr": 0.1, "x": 0.5})
        {'lr': 'upper'}
    """
    encoder, found = models.encoder, {}
    row = encoder.encode([config])[0]
    for name in encoder.space.decisions:
        parameter = encoder.space[name]
        if name not in config or not isinstance(parameter, Float | Int):
            continue
        if not parameter.bounded or parameter.low == parameter.high:
            continue
        j = encoder.index(name)
        low, high = float(encoder.lower[j]), float(encoder.upper[j])
        near = TOUCHING * (high - low)
        movable = parameter.physical_limits == parameter.limits
        if row[j] - low <= near and (movable or not is_wall(parameter, "below")):
            found[name] = "lower"
        elif high - row[j] <= near and (movable or not is_wall(parameter, "above")):
            found[name] = "upper"
    return found


def _asked(result: Result, direction: Direction) -> str:
    space, budget = result.space, result.budget
    verb = "Minimized the loss" if direction is Direction.MINIMIZE else "Maximized the value"
    if result.objectives is not None:
        verb = _wanted(result.objectives)
    rest = [name for name in (*space.scales, *_fidelity(space))]
    names = [name for name in space if name not in rest]
    over = [f"{len(names)} setting{'s' * (len(names) != 1)} ({_listed(names)})"] if names else []
    if space.scales:
        over.append(f"the scale {' and '.join(space.scales)}")
    if space.fidelity is not None:
        over.append(f"{space.fidelity} up to {space[space.fidelity].limits[1]}")
    text = f"{verb} over {' and '.join(over)}"
    if result.target:
        at = ", ".join(f"{name} {value:.4g}" for name, value in result.target.items())
        text += f", for a target of {at}"
    limits = [] if budget is None else _limits(result)
    allowed = ", ".join(f"{limit:.5g} {unit}" for _, limit, unit in limits)
    return f"{text}; budget {allowed}." if limits else f"{text}."


def _wanted(objectives: Objectives) -> str:
    """Return what was minimized and maximized, and within what limits."""
    by_direction: dict[Direction, list[str]] = {}
    for name, direction in objectives.directions.items():
        by_direction.setdefault(direction, []).append(name)
    verbs = {Direction.MINIMIZE: "minimized", Direction.MAXIMIZE: "maximized"}
    text = " and ".join(f"{verbs[d]} {_all(names)}" for d, names in by_direction.items())
    limits = ", ".join(f"{name} {limit}" for name, limit in objectives.constraints.items())
    return text[0].upper() + text[1:] + (f" with {limits}" if limits else "")


def _all(names: list[str]) -> str:
    return " and ".join([*([", ".join(names[:-1])] if names[1:] else []), names[-1]])


def _front_of(result: Result, objectives: Objectives) -> list[Part]:
    """Return the front of several objectives as a table, with a sentence."""
    members = result.pareto_set
    done = sum(o.status is Status.COMPLETED for o in result.log.observations)
    if not members:
        return [
            f"None of the {done} completed trials keeps every constraint"
            f" ({', '.join(f'{n} {limit}' for n, limit in objectives.constraints.items())})."
        ]
    shown = members[:_SHOWN]
    if len(members) > _SHOWN:  # evenly along the first objective, both ends included
        places = [round(k * (len(members) - 1) / (_SHOWN - 1)) for k in range(_SHOWN)]
        shown = tuple(members[place] for place in places)
    names = list(dict.fromkeys(name for member in shown for name in member.config))
    header = ("trial", *objectives.names, *names)
    rows = [
        [
            str(member.number),
            *(short(member.values[name], 5) for name in objectives.names),
            *(short(member.config.get(name)) for name in names),
        ]
        for member in shown
    ]
    if len(objectives.directions) == 1:
        text = f"Best of {done} completed trials within the constraints, as observed:"
        return [text, Grid(header, rows)]
    within = " within the constraints" if objectives.constraints else ""
    some = f" ({len(shown)} of them are shown)" if len(shown) < len(members) else ""
    return [
        f"Front: {len(members)} of {done} completed trials{some}. No other trial{within} is as good"
        " in every objective and better in one, as observed.",
        Grid(header, rows),
    ]


def _fidelity(space: SearchSpace) -> tuple[str, ...]:
    return () if space.fidelity is None else (space.fidelity,)


def _limits(result: Result) -> list[tuple[float, float, str]]:
    """Return what was used, the limit and the unit of each limit of the budget."""
    budget, spent = result.budget, result.spent
    if budget is None or spent is None:
        return []
    unit = result.cost_unit or ""
    return [
        (float(used), float(limit), name)
        for used, limit, name in (
            (spent.trials, budget.trials, "trials"),
            (spent.seconds, budget.seconds, "seconds"),
            (spent.cost, budget.cost, f"of cost in {unit}" if unit else "of cost"),
        )
        if limit is not None
    ]


def _spent(result: Result) -> str:
    text, spent = f"{_counted(result.log)}", result.spent
    if spent is not None and spent.seconds >= 0.1:
        text += f", {spent.seconds:.4g} s"
    unit = result.cost_unit
    if spent is not None and spent.cost > 0 and unit is not None:
        text += f", {spent.cost:.4g} {'s of training' if unit == SECONDS else unit}"
    until = None if result.budget is None else result.budget.until
    regret = None if until is None else result.expected_regret
    if until is not None and regret is not None and regret <= until.tolerance:
        return (
            f"Spent: {text}. Stopping here is expected to lose {regret:.2g}, no more than the"
            f" {until.tolerance:.5g} asked for."
        )
    hit = [f"{limit:.5g} {unit}" for used, limit, unit in _limits(result) if used >= limit]
    left = [
        f"{used:.5g} of {limit:.5g} {unit}" for used, limit, unit in _limits(result) if used < limit
    ]
    if hit:
        return f"Spent: {text}. The budget of {' and '.join(hit)} is used up."
    return f"Spent: {text}" + (f"; that is {', '.join(left)}." if left else ".")


def states(log: TrialLog) -> Counter[str]:
    """Return how many trials are in each state; lost attempts are none.

    Args:
        log: Every trial.
    """
    runs = [o.status.value for o in log.runs if o.cause is not Cause.LOST]
    return Counter([*runs, *("paused" for _ in log.paused), *("running" for _ in log.pending)])


def _counted(log: TrialLog) -> str:
    counts = states(log)
    total = sum(counts.values())
    counted = ", ".join(f"{n} {state}" for state, n in counts.items())
    if len(counts) == 1:
        return f"{total} trial{'s' * (total != 1)}, {'all ' * (total != 1)}{next(iter(counts))}"
    return f"{total} trials ({counted})" if total else "no trial"


def _table(result: Result, best: FrontMember, observed: FrontMember, direction: Direction) -> Grid:
    members = [best] if observed.number == best.number else [best, observed]
    columns = ["best"] if len(members) == 1 else ["best expected", "best observed"]
    rows = [
        ["trial", *(str(member.number) for member in members), ""],
        [direction.noun, *(short(member.loss, 5) for member in members), "as observed"],
    ]
    runs = result.models.runs
    if len(runs):
        rows.append(
            ["expected", *(short(m.expected_loss, 5) for m in members), "mean by the models"]
        )
        shown = []
        for member in members:
            row = runs.X[[runs.numbers.index(member.number)]]
            forecast = loss_forecast(result.warp, row, model=result.models.loss())
            shown.append(span(forecast.interval))
        rows.append(["next run", *shown, "90 % interval of one more run"])
    if any(member.cost is not None for member in members):
        unit = result.cost_unit or ""
        rows.append(["cost", *(short(member.cost) for member in members), unit])
    bounds = at_bound(result.models, result.full_config(best.number))
    names = dict.fromkeys(name for member in members for name in member.config)
    for name in names:
        values = [short(member.config.get(name)) for member in members]
        rows.append([name, *values, _range(result.space, name, bounds.get(name))])
    return Grid(("", *columns, ""), rows)


def _range(space: SearchSpace, name: str, bound: str | None) -> str:
    """Return what was searched of a parameter, and that the best lies on a bound of it."""
    if name not in space:
        return ""
    parameter = space[name]
    if isinstance(parameter, Float | Int):
        text = f"searched {short(parameter.low)} to {short(parameter.high)}"
        return text if bound is None else f"{text}: at the {bound} bound"
    if name in space.scales:
        return f"runs of {span((float(parameter.limits[0]), float(parameter.limits[1])))}"
    return ""


def _next(result: Result, best: FrontMember) -> list[str]:
    """Return what to do next, one sentence each."""
    advice: list[str] = []
    for name, bound in at_bound(result.models, result.full_config(best.number)).items():
        parameter = result.space[name]
        assert isinstance(parameter, Float | Int)
        way, end = ("below", parameter.low) if bound == "lower" else ("above", parameter.high)
        advice.append(
            f"Next: search {name} {way} {short(end)}, too, if such values make sense: the best lies"
            " on that bound."
        )
    advice += _continued(result)
    if result.space.scales and len(result.models.runs):
        at: Mapping[str, object] = result.target or dict.fromkeys(result.space.scales, "...")
        size = ", ".join(f"{name!r}: {short(value)}" for name, value in at.items())
        advice.append(f"Next: result.recommend({{{size}}}) has the settings for that size.")
    return advice


def _continued(result: Result) -> list[str]:
    """Return how a search whose budget is used up can go on, as one sentence or none."""
    advice = []
    study = result.study
    if any(used >= limit for used, limit, _ in _limits(result)) and study is not None:
        unnamed = study.study_name.startswith(_UNNAMED)
        advice.append(
            "Next: to be able to continue a search, give it a name: optimize(..., name=...)."
            if unnamed
            else f"Next: for more trials call optimize with name={study.study_name!r} and a larger"
            " budget."
        )
    return advice


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _trials(numbers: tuple[int, ...]) -> str:
    return f"trial{'s' * (len(numbers) != 1)} {_listed([str(number) for number in numbers])}"
