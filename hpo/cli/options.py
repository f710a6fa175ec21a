"""Options that several commands share, and what every command does with errors.

An option is stated once: as an annotated type where a command names it, or as the field of a group.
A command that takes a group, such as `SourceOptions`, has all options of its fields.
"""

from __future__ import annotations

import inspect
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass
from enum import IntEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn, get_type_hints

import typer

from hpo.errors import StudyError, printable

__all__ = [
    "AsJSON",
    "BudgetOptions",
    "ExitCode",
    "Picture",
    "Prior",
    "SourceOptions",
    "Storage",
    "StudyName",
    "StudyOptions",
    "Target",
    "command",
    "print_json",
    "refuse",
]

_DESCRIBED = "How the source is read"


class ExitCode(IntEnum):
    """Exit codes of the commands; 2, for options that do not exist, is typer's."""

    DONE = 0
    REFUSED = 1  # an input that cannot be used
    NOTHING_COMPLETED = 3  # a study ended without a completed trial
    INTERRUPTED = 130  # as a shell reports SIGINT
    PIPE_CLOSED = 141  # as a shell reports SIGPIPE


Target = Annotated[
    str | None,
    typer.Option(
        help="Sizes of the final run, such as params=7e9,tokens=1.4T, by column or by axis. Left"
        " out: those of the largest run.",
        show_default=False,
    ),
]
Prior = Annotated[
    list[str] | None,
    typer.Option(
        help="Published transfer rule, such as MuP or TokenHorizon. Left out: all that fit compete."
    ),
]
Picture = Annotated[
    Path | None,
    typer.Option(
        "--plot",
        help="File for a picture of the loss law and of each setting's best value against scale.",
        dir_okay=False,
        show_default=False,
    ),
]
AsJSON = Annotated[bool, typer.Option("--json", help="Print JSON in place of text.")]
Storage = Annotated[
    str | None,
    typer.Option(
        help="Optuna URL of the stored studies; sqlite:///scaletune.db if left out.",
        show_default=False,
    ),
]


def _study_names(incomplete: str) -> list[str]:
    """Names of the studies in the default file, for the completion of a shell."""
    from hpo.study.storage import StudyStorage

    try:
        return [name for name in StudyStorage.names(None) if name.startswith(incomplete)]
    except StudyError:
        return []


StudyName = Annotated[
    str | None,
    typer.Argument(
        metavar="[NAME]",
        help="Name of the stored study; not needed where the storage holds only one.",
        show_default=False,
        autocompletion=_study_names,
    ),
]


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """Where the runs are, and what the user says of their columns."""

    source: Annotated[
        str | None,
        typer.Argument(
            help="Runs: the name of a stored study; a CSV, JSON, Parquet or Excel file, a folder of"
            " them; the URL or SQLite file of an Optuna storage, wandb:entity/project, or"
            " mlflow:experiment.",
            show_default=False,
            autocompletion=_study_names,
        ),
    ] = None
    name: Annotated[
        str | None,
        typer.Option(help="Name of a stored study, in place of SOURCE.", show_default=False),
    ] = None
    storage: Storage = None
    param: Annotated[
        list[str] | None,
        typer.Option(
            help="Tuned column as name, name:kind or name:kind:role, such as lr:log:lr; kinds"
            " are log, linear, logit, choice. Left out: well-known names.",
            rich_help_panel=_DESCRIBED,
        ),
    ] = None
    scale: Annotated[
        list[str] | None,
        typer.Option(
            help="Size column as name or name:axis, such as N:params; axes are params, tokens,"
            " width, depth, other. Left out: well-known names.",
            rich_help_panel=_DESCRIBED,
        ),
    ] = None
    loss: Annotated[
        str | None, typer.Option(help="Column of the loss.", rich_help_panel=_DESCRIBED)
    ] = None
    cost: Annotated[
        str | None,
        typer.Option(
            help="Column of the cost; `seconds` for the wall-clock time, `none` for no cost. Left"
            " out: a well-known name, else 6 N D.",
            rich_help_panel=_DESCRIBED,
        ),
    ] = None
    status: Annotated[
        str | None, typer.Option(help="Column of the runs' states.", rich_help_panel=_DESCRIBED)
    ] = None
    ignore: Annotated[
        list[str] | None, typer.Option(help="Column to leave out.", rich_help_panel=_DESCRIBED)
    ] = None
    maximize: Annotated[
        bool, typer.Option("--maximize", help="Larger is better.", rich_help_panel=_DESCRIBED)
    ] = False

    @property
    def columns(self) -> dict[str, Any]:
        """What was said of the columns: arguments of `read_runs` by name."""
        given = {
            "params": self.param,
            "scales": self.scale,
            "loss": self.loss,
            "cost": self.cost,
            "status": self.status,
            "ignore": self.ignore,
            "direction": "maximize" if self.maximize else None,
        }
        return {name: value for name, value in given.items() if value}


@dataclass(frozen=True, slots=True)
class StudyOptions:
    """A stored study."""

    name: StudyName = None
    storage: Storage = None


@dataclass(frozen=True, slots=True)
class BudgetOptions:
    """What a study may spend."""

    budget: Annotated[
        list[str] | None,
        typer.Option(
            "--budget",
            "-b",
            help="Limits of the whole study, such as trials=50,seconds=8h,cost=1e18; the first used"
            " up ends it. What earlier calls have spent counts.",
            show_default=False,
        ),
    ] = None
    per_trial: Annotated[
        list[str] | None,
        typer.Option(
            help="Limits of each trial, such as seconds=20min,cost=1e15,memory=8G.",
            show_default=False,
        ),
    ] = None


def command(function: Callable[..., None]) -> Callable[..., None]:
    """Return a function as a command: groups become options, and errors end in one line.

    Args:
        function: The command. A parameter whose type is a group of options gets one option for each
            field, in its place.

    Example:
        >>> def show(study: StudyOptions, as_json: AsJSON = False) -> None:
        ...     '''Show a study.'''
        >>> list(inspect.signature(command(show)).parameters)
        ['name', 'storage', 'as_json']
    """
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    options = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name not in groups:
            options.append(parameter.replace(annotation=hints[parameter.name]))
            continue
        group = groups[parameter.name]
        types = get_type_hints(group, include_extras=True)
        for field in fields(group):
            options.append(
                inspect.Parameter(
                    field.name,
                    inspect.Parameter.POSITIONAL_OR_KEYWORD,
                    default=field.default,
                    annotation=types[field.name],
                )
            )

    @wraps(function)
    def run(**given: Any) -> None:
        with _errors_in_one_line():
            for name, group in groups.items():
                members = {field.name: given.pop(field.name) for field in fields(group)}
                given[name] = group(**members)
            function(**given)

    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]  # read by typer
    run.__annotations__ = {option.name: option.annotation for option in options}
    return run


def print_json(value: Any, *, indent: int | None = 2) -> None:
    """Print values as JSON; NaN and infinities, which it lacks, are null.

    Args:
        value: Mappings, lists, texts and numbers.
        indent: Spaces of each level; None for one line.

    Example:
        >>> print_json({"loss": float("nan")}, indent=None)
        {"loss": null}
    """
    typer.echo(json.dumps(_plain(value), indent=indent, ensure_ascii=False, default=str))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and not abs(value) < float("inf"):
        return None
    return value


def refuse(error: BaseException) -> NoReturn:
    """Print an error that the user can fix as one line on standard error, and exit.

    Args:
        error: The error. What follows an empty line in its message, as a traceback does that was
            printed before, is left out.
    """
    text = str(error).partition("\n\n")[0]
    raise SystemExit("error: " + printable(" ".join(text.split())))  # printed, with exit code 1


@contextmanager
def _errors_in_one_line() -> Iterator[None]:
    """End a command at an error that the user can fix, at Ctrl-C, or at the end of its readers.

    Where nobody reads the output any more, as behind `| head`, nothing is said.
    """
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):  # it is no file
            pass
        raise SystemExit(ExitCode.PIPE_CLOSED) from None
    except KeyboardInterrupt:
        raise SystemExit(ExitCode.INTERRUPTED) from None
    except (ValueError, StudyError, OSError) as error:
        refuse(error)
