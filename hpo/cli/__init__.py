"""The command line: ``scaletune COMMAND``, thin wrappers around the Python functions.

A command prints what its functions return, and errors as one line on standard error.

=====  ============================================================================
code   meaning
=====  ============================================================================
0      done, whatever was found
1      an input that cannot be used, or a study that cannot continue
2      options that do not exist
3      the search ended and no trial was completed
130    interrupted by Ctrl-C or a signal; what was found is stored
141    whoever read the output has closed it
=====  ============================================================================
"""

from __future__ import annotations

import io
import sys
from typing import Annotated

import typer

from hpo.cli.answers import law, recommend, report
from hpo.cli.checks import check_transfer, coordinate_check
from hpo.cli.options import command
from hpo.cli.searches import optimize, resume
from hpo.cli.studies import export, list_studies, show, status

__all__ = ["command_line", "main"]


def main() -> None:
    """Run the command that ``sys.argv`` names, and exit."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # of any encoding, whatever parameters are called
            stream.reconfigure(errors="backslashreplace")
    command_line()()


def command_line() -> typer.Typer:
    """Return the application with all its commands."""
    app = typer.Typer(
        name="scaletune",
        help="Tune the small model, train the big one.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_scaletune)
    for name, function in (
        ("optimize", optimize),
        ("resume", resume),
        ("status", status),
        ("list", list_studies),
        ("show", show),
        ("export", export),
        ("recommend", recommend),
        ("law", law),
        ("report", report),
        ("check-transfer", check_transfer),
        ("coord-check", coordinate_check),
    ):
        app.command(name)(command(function))
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"scaletune {version('scaletune')}")
        raise typer.Exit


def _scaletune(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Tune the small model, train the big one."""
