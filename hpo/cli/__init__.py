"""The command line: ``scaletune COMMAND``, thin wrappers around the Python functions.

A command prints what its functions return. The exit code is 0 whatever was found, 1 for input that
cannot be used, with one line on standard error, and 2 for options that do not exist.
"""

from __future__ import annotations

import io
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from hpo.cli.answers import law, recommend, report
from hpo.cli.checks import check_transfer, coordinate_check
from hpo.cli.options import command

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
        add_completion=False,
        pretty_exceptions_enable=False,
    )
    app.callback()(_scaletune)
    for name, function in (
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
        typer.echo(f"scaletune {version('scaletune')}")
        raise typer.Exit


def _scaletune(
    show_version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """Tune the small model, train the big one."""
