"""Input predicates: which configs of a space may run at all.

A predicate is a function of a whole config, such as `lambda c: c["heads"] * c["head_dim"] <= 4096`.
It says what is known before any run; what only runs can show is a failure, and is learned.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from hpo.errors import SpaceError
from hpo.space.arguments import Function
from hpo.space.scalars import scalar, shown

__all__ = ["Predicate", "Where"]

#: What a user may pass as `where`: a function of a config that returns True or False.
Where: TypeAlias = Callable[[dict[str, Any]], bool]

_RULE = Function("where(config)", way_out="write where=lambda c: c['heads'] * c['dim'] <= 4096")


class Predicate:
    """Functions of a config that must all return True where the config may run.

    Args:
        *functions: predicates; those of another `Predicate` are taken over.

    Raises:
        SpaceError: for what cannot be called.

    Example:
        >>> predicate = Predicate(lambda c: c["low"] < c["high"])
        >>> predicate({"low": 1, "high": 2}), predicate({"low": 2, "high": 1})
        (True, False)
    """

    __slots__ = ("functions",)

    def __init__(self, *functions: Where) -> None:
        found: list[Where] = []
        for function in functions:
            if isinstance(function, Predicate):
                found.extend(function.functions)
            else:
                found.append(_RULE(function, "`where`", SpaceError))
        self.functions: tuple[Where, ...] = tuple(found)

    def __call__(self, config: Mapping[str, Any]) -> bool:
        """Return whether a config may run.

        Args:
            config: canonical config; only active parameters are in it.

        Raises:
            SpaceError: if a function raises, or returns anything but True or False.
        """
        return all(_answer(function, config) for function in self.functions)

    def __str__(self) -> str:
        return " and ".join(_name(function) for function in self.functions)

    def __repr__(self) -> str:
        return f"Predicate({self})"


def _name(function: Where) -> str:
    return getattr(function, "__qualname__", type(function).__name__).rpartition("<locals>.")[2]


def _answer(function: Where, config: Mapping[str, Any]) -> bool:
    try:
        answer = scalar(function(dict(config)))
    except Exception as error:
        way_out = "make it return True or False for every config of the space"
        if isinstance(error, KeyError) and error.args:
            way_out = (
                "a config holds its active parameters only, so read one that depends on another by"
                f" c.get({error.args[0]!r})"
            )
        raise SpaceError(
            f"`where` ({_name(function)}) must return True or False, but raised"
            f" {type(error).__name__}: {error} for {shown(dict(config))}; {way_out}"
        ) from error
    if not isinstance(answer, bool | np.bool_):
        raise SpaceError(
            f"`where` ({_name(function)}) must return True or False, got {shown(answer)}"
            f" ({type(answer).__name__}) for {shown(dict(config))}; compare, such as"
            " lambda c: c['heads'] * c['dim'] <= 4096"
        )
    return bool(answer)
