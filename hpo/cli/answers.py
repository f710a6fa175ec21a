"""``scaletune recommend``, ``law`` and ``report``: what earlier runs say about a larger one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import AsJSON, Picture, Prior, SourceOptions, Target, print_json
from hpo.cli.sources import read, target_of, transfer_rules
from hpo.errors import printable

if TYPE_CHECKING:
    from hpo.optimizer.recommend import Recommendation
    from hpo.optimizer.result import Result
    from hpo.scaling.scaling_law import FittedLaw
    from hpo.trials.read_runs import Runs

__all__ = ["law", "recommend", "report"]


def recommend(
    options: SourceOptions,
    target: Target = None,
    holdout: Annotated[
        bool,
        typer.Option(
            "--holdout", help="Also predict the largest runs from the others, and compare."
        ),
    ] = False,
    plot: Picture = None,
    prior: Prior = None,
    as_json: AsJSON = False,
) -> None:
    """Say which settings to train the big run with, from the runs you already have.

    Prints how each column was read, the recommended settings with 90 % intervals, the predicted
    loss, and what to doubt.

    Example: scaletune recommend sweep.csv --target params=7e9,tokens=1.4e12
    """
    result, runs = read(options, transfer_rules(prior))
    sizes = target_of(target, result.space)
    advice = result.recommend(sizes)
    parts: dict[str, Any] = {"recommendation": _advice_as_json(advice)}
    texts = [str(advice)]
    if target is None and result.space.scales:
        texts[0] += "\nnote: no --target was given, so these are for the size of the largest run"
    if holdout:
        from hpo.cli.holdout import hold_out

        check = hold_out(result)
        parts["holdout"] = check.to_json()
        texts.append(str(check))
    if plot is not None:
        result.plot_law(sizes, plot)
        parts["plot"] = str(plot)
        texts.append(f"picture: {plot}")
    _show(runs, texts, parts, as_json)


def law(
    options: SourceOptions,
    target: Target = None,
    plot: Picture = None,
    prior: Prior = None,
    as_json: AsJSON = False,
) -> None:
    """Print the scaling law fitted to the runs, and how well each published rule fits them.

    The law says how the loss falls with size and how the best settings move.

    Example: scaletune law sweep.csv
    """
    result, runs = read(options, transfer_rules(prior))
    sizes = target_of(target, result.space)
    fitted = result.scaling_law
    if fitted is None:
        raise ValueError(_why_no_law(result))
    texts, parts = [str(fitted)], {"law": _law_as_json(fitted)}
    if plot is not None:
        result.plot_law(sizes, plot)
        texts.append(f"picture: {plot}")
    _show(runs, texts, parts, as_json)


def report(
    options: SourceOptions,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="HTML file to write.", dir_okay=False)
    ] = Path("report.html"),
    target: Target = None,
    prior: Prior = None,
) -> None:
    """Write one HTML page: the best run, the recommendation, the front and all runs.

    Example: scaletune report sweep.csv --output report.html
    """
    result, runs = read(options, transfer_rules(prior))
    sizes = target_of(target, result.space)
    written = replace(result, target=sizes or result.target).report(output)
    _show(runs, [f"report: {written}"], {}, False)


def _show(runs: Runs | None, texts: list[str], parts: dict[str, Any], as_json: bool) -> None:
    """Print the table of how the runs were read and the texts, or all of it as JSON."""
    if as_json:
        print_json({**_runs_as_json(runs), **parts})
        return
    for text in [*([] if runs is None else [str(runs)]), *texts]:
        typer.echo(printable(f"{text}\n" if text is not texts[-1] else text))


def _runs_as_json(runs: Runs | None) -> dict[str, Any]:
    if runs is None:
        return {}
    columns = [
        {
            "column": guess.column,
            "use": guess.use.value,
            "kind": guess.kind,
            "values": guess.values,
            "reason": guess.reason,
        }
        for guess in runs.guesses
    ]
    return {
        "source": runs.name,
        "runs": len(runs),
        "direction": runs.direction,
        "cost_unit": runs.cost_unit,
        "columns": columns,
        "notes": runs.guesses.rows,
    }


def _advice_as_json(advice: Recommendation) -> dict[str, Any]:
    return {
        "target": advice.target,
        "config": advice.config,
        "intervals": advice.intervals,
        "informed_by_data": advice.informed_by_data,
        "loss": advice.loss,
        "loss_interval": advice.loss_interval,
        "extrapolation": advice.extrapolation,
        "no_effect": advice.no_effect,
        "warnings": advice.warnings,
    }


def _law_as_json(fitted: FittedLaw) -> dict[str, Any]:
    return {
        "coefficients": [
            {
                "name": row.name,
                "prior": row.estimate.prior_mean,
                "prior_sd": row.estimate.prior_sd,
                "posterior": row.estimate.mean,
                "posterior_sd": row.estimate.sd,
                "informed_by_data": row.informed_by_data,
            }
            for row in fitted.rows
        ],
        "rules": [
            {"name": r.name, "source": r.source, "before": r.before, "after": r.after}
            for r in fitted.rules
        ],
    }


def _why_no_law(result: Result) -> str:
    if not result.space.scales:
        return (
            f"a scaling law needs runs of several sizes, got {list(result.space)} without a size;"
            " name the column of the size with --scale, such as --scale N:params"
        )
    return "a scaling law needs a completed run, got none; give runs with losses"
