"""The one exception of reading runs, and how its messages name an option."""

from __future__ import annotations

from hpo.errors import printable

__all__ = ["RunFileError", "option"]


class RunFileError(ValueError):
    r"""Runs or an option that cannot be read; the message is one line with the way out.

    Example:
        >>> from hpo import read_runs
        >>> try:
        ...     read_runs([{"lr": 1e-3, "loss": 2.5}, {"lr": 2e-3, "loss": "low"}])
        ... except RunFileError as error:
        ...     print(str(error).split(";")[0])
        the list, item 1: `loss` must be a number, got 'low'
    """

    def __init__(self, message: str) -> None:
        super().__init__(printable(" ".join(message.split())))


def option(name: str, value: str) -> str:
    """Return how to say an option, in Python and on the command line.

    Example:
        >>> option("loss", "COLUMN"), option("params", "lr:log")
        ("loss='COLUMN' (--loss COLUMN)", "params=['lr:log'] (--param lr:log)")
    """
    if name in ("params", "scales"):
        return f"{name}=[{value!r}] (--{name[:-1]} {value})"
    return f"{name}={value!r} (--{name} {value})"
