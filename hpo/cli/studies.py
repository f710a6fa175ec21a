"""``scaletune status``, ``list``, ``show`` and ``export``: what stored studies hold."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hpo.cli.options import AsJSON, SourceOptions, Storage, StudyOptions, print_json
from hpo.cli.results import TableFormat, result_as_json, write_table
from hpo.cli.searches import Call
from hpo.cli.sources import read
from hpo.errors import printable

if TYPE_CHECKING:
    import optuna

    from hpo.study.optimize import Stored
    from hpo.study.progress import Row

__all__ = ["export", "list_studies", "show", "status"]


def status(
    study: StudyOptions,
    watch: Annotated[
        bool, typer.Option("--watch", help="Keep it up to date until nothing drives the study.")
    ] = False,
    every: Annotated[
        float, typer.Option(help="Seconds between two looks under --watch.", min=0.1)
    ] = 2.0,
    as_json: AsJSON = False,
) -> None:
    """Say how far a stored study is, also while it runs elsewhere.

    Example: scaletune status train:train --watch
    """
    from hpo.study.optimize import look_at, only_study
    from hpo.study.storage import StudyStorage

    name = only_study(study.storage) if study.name is None else study.name
    call = StudyStorage.read(name=name, storage=study.storage)[0].call
    budget = None if call is None else Call.from_json(call).limits()

    def look() -> Stored:
        return look_at(name, storage=study.storage, budget=budget)

    if watch:
        _watch(look, every, as_json)
    elif as_json:
        print_json(_as_json(look()))
    else:
        typer.echo(_text(look()))


def _watch(look: Callable[[], Stored], every: float, as_json: bool) -> None:
    """Show a study until nothing drives it: a live table on a terminal, else a line per change."""
    from rich.console import Console
    from rich.live import Live

    from hpo.study.progress import progress_table

    console, said = Console(), None
    live = Live(console=console, auto_refresh=False) if console.is_terminal else None
    with nullcontext() if live is None or as_json else live:
        while True:
            now = look()
            if live is not None and not as_json:
                table = progress_table(now.state, _rows(now), _driven(now))
                live.update(table, refresh=True)
            elif said != (line := _as_json(now) if as_json else _line(now)):
                said = line
                print_json(line, indent=None) if as_json else typer.echo(line)
                sys.stdout.flush()
            if now.drivers == 0:
                return
            time.sleep(every)


def _rows(now: Stored) -> list[Row]:
    from hpo.study.progress import progress_rows

    rows = progress_rows(now.state, now.state.ledger.spent.seconds, now.running)
    return rows if now.drivers else rows[:-1]  # without the time to go


def _driven(now: Stored) -> str:
    count = now.drivers
    return f"driven by {count} process{'es' * (count != 1)}" if count else "nothing drives it now"


def _text(now: Stored) -> str:
    from hpo.study.progress import progress_title
    from hpo.trials.printing import Grid, as_text

    rows = [(row.label, row.value, row.note) for row in _rows(now)]
    return as_text([f"{progress_title(now.state)}: {_driven(now)}", Grid((), rows)])


def _line(now: Stored) -> str:
    rows = [f"{row.label} {row.value} {row.note}".strip() for row in _rows(now)]
    return printable(", ".join([*rows, _driven(now)]))


def _as_json(now: Stored) -> dict[str, Any]:
    from hpo.optimizer.summary import states

    state = now.state
    budget = {k: v for k, v in asdict(state.ledger.budget).items() if v is not None}
    losses = {o.number: o.loss for o in state.log.runs if o.status.value == "completed"}
    pick = min if state.direction == "minimize" else max
    best = pick(losses, key=lambda number: losses[number] or 0.0) if losses else None
    return {
        "study": state.name,
        "direction": state.direction,
        "drivers": now.drivers,
        "running": now.running,
        "trials": dict(states(state.log)),
        "spent": asdict(state.ledger.spent),
        "budget": budget,
        "best_observed": None if best is None else {"number": best, "loss": losses[best]},
    }


def list_studies(storage: Storage = None, as_json: AsJSON = False) -> None:
    """List the stored studies.

    Example: scaletune list --storage sqlite:///runs.db
    """
    from hpo.study.storage import StudyStorage
    from hpo.trials.printing import Grid, as_text, short

    found = [_listed(study) for study in StudyStorage.all_studies(storage)]
    if as_json:
        print_json(found)
        return
    if not found:
        typer.echo("no study is stored here")
        return
    header = ("study", "trials", "completed", "failed", "open", "best", "direction", "last change")
    rows = [
        (
            row["study"],
            *(str(row[name]) for name in ("trials", "completed", "failed", "open")),
            short(row["best"]),
            row["direction"] or "",
            row["last_change"] or "",
        )
        for row in found
    ]
    typer.echo(as_text([Grid(header, rows)]))


def _listed(study: optuna.Study) -> dict[str, Any]:
    """One line of the list: trials by their Optuna states, and the best observed value."""
    trials = study.get_trials(deepcopy=False)
    states = Counter(trial.state.name for trial in trials)
    single = len(study.directions) == 1
    values = [t.values[0] for t in trials if single and t.state.name == "COMPLETE" and t.values]
    pick = min if single and study.direction.name == "MINIMIZE" else max
    times = [t for trial in trials for t in (trial.datetime_start, trial.datetime_complete) if t]
    return {
        "study": study.study_name,
        "trials": len(trials),
        "completed": states["COMPLETE"],
        "failed": states["FAIL"],
        "open": states["RUNNING"] + states["WAITING"],
        "best": pick(values) if values else None,
        "direction": study.direction.name.lower() if single else None,
        "last_change": max(times).isoformat(" ", "seconds") if times else None,
    }


def show(
    options: SourceOptions,
    trial: Annotated[
        int | None, typer.Option(help="Number of one trial to show.", show_default=False)
    ] = None,
    as_json: AsJSON = False,
) -> None:
    """Print what a study or file of runs has found: the best, what was spent, what failed.

    Example: scaletune show train:train --trial 7
    """
    from hpo.trials.printing import as_text

    result, _ = read(options)
    if trial is None:
        if as_json:
            print_json(result_as_json(result))
        else:
            typer.echo(printable(str(result)))
        return
    observation = result.log.observation(trial)
    asked = next((t for t in result.log.trials if t.number == trial), None)
    if observation is None and asked is None:
        numbers = sorted({o.number for o in result.log.observations})
        has = f"it has {numbers[0]} to {numbers[-1]}" if numbers else "it has none"
        raise ValueError(f"--trial must be the number of a trial, got {trial}; {has}")
    if as_json:
        frame = result.to_pandas()
        found = frame[frame["number"] == trial].to_json(orient="records", date_format="iso")
        typer.echo(found[1:-1] or "null")
        return
    first, *rest = [part for part in (observation, asked) if part is not None]
    lines = [line for part in rest for line in part.parts()[1:] if isinstance(line, str)]
    typer.echo(as_text([str(first), *lines]))


def export(
    options: SourceOptions,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="File to write: .csv, .jsonl or .parquet. Left out: standard output.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    kind: Annotated[
        TableFormat | None,
        typer.Option(
            "--format", help="Format, where the name of the file does not say.", show_default=False
        ),
    ] = None,
) -> None:
    """Write all trials as a table: settings, loss, cost, state, what was predicted, metrics.

    `scaletune recommend` and `hpo.read_runs` read it back.

    Example: scaletune export train:train -o trials.csv
    """
    if kind is None:
        suffix = "" if output is None else output.suffix.lower().removeprefix(".")
        names = [format.value for format in TableFormat]
        if output is not None and suffix not in names:
            raise ValueError(
                f"--output must end in one of {[f'.{name}' for name in names]} to tell the format,"
                f" got {output}; rename it or add --format csv"
            )
        kind = TableFormat(suffix) if output is not None else TableFormat.CSV
    frame = read(options)[0].to_pandas()
    text = write_table(frame, output, kind)
    if text is not None:  # as it is for a file or program, without control characters for people
        typer.echo(printable(text) if sys.stdout.isatty() else text, nl=False)
    else:
        typer.echo(f"{len(frame)} trials: {output}", err=True)
