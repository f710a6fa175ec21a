"""A search space as a YAML file: one line a parameter.

    lr:        {type: float, low: 1e-4, high: 1e-1, log: true, role: lr}
    batch:     {type: int, low: 8, high: 512, log: true, multiple_of: 8, role: batch}
    optimizer: {type: categorical, choices: [adamw, sgd]}
    momentum:  {type: float, low: 0.0, high: 0.99, when: {optimizer: [sgd]}}
    params:    {type: scale, low: 1e5, high: 1e7, axis: params}
    epochs:    {type: fidelity, low: 1, high: 81}

`type` is that of a class in `hpo`, and everything else is an argument of it by its name; roles and
axes are written by their values.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml

from hpo.errors import SpaceError
from hpo.space import Axis, Categorical, Fidelity, Float, Int, Parameter, Role, Scale, SearchSpace
from hpo.space.arguments import Member
from hpo.space.scalars import shown

__all__ = ["read_space", "space_of"]

_KINDS: dict[str, type[Parameter]] = {
    kind.__name__.lower(): kind for kind in (Float, Int, Categorical, Scale, Fidelity)
}
_FLOAT = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_EXAMPLE = "lr: {type: float, low: 1e-4, high: 1e-1, log: true}"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]  # it publishes no types
    """YAML with 1e-4 as a number, as in YAML 1.2 and Python, and without repeated keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for place, key in enumerate(keys):
            if key in keys[:place]:
                line = node.value[place][0].start_mark.line + 1
                raise SpaceError(f"line {line}: {shown(key)} is there twice; keep one")
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789"))


def read_space(path: Path) -> SearchSpace:
    """Return the search space that a YAML file describes.

    Args:
        path: The file.

    Raises:
        SpaceError: If it describes none; the message names the file and what to change.
        OSError: If it cannot be read.
    """
    try:
        return space_of(path.read_text(encoding="utf-8"))
    except (SpaceError, UnicodeDecodeError) as error:
        raise SpaceError(f"{path}: {error}") from None


def space_of(text: str) -> SearchSpace:
    """Return the search space that a text in YAML describes.

    Args:
        text: The text.

    Raises:
        SpaceError: If it describes none.

    Example:
        >>> space = space_of("lr: {type: float, low: 1e-4, high: 1e-1, log: true, role: lr}")
        >>> space["lr"].limits, space["lr"].role
        ((0.0001, 0.1), <Role.LR: 'lr'>)
    """
    try:
        described = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError as error:
        raise SpaceError(f"it must be YAML, got {' '.join(str(error).split())}") from None
    if not isinstance(described, Mapping) or not described:
        raise SpaceError(
            f"it must hold one parameter by name a line, got {shown(described)}; write {_EXAMPLE}"
        )
    return SearchSpace({name: _parameter(name, given) for name, given in described.items()})


def _parameter(name: object, given: object) -> Parameter:
    if not isinstance(given, Mapping) or given.get("type") not in _KINDS:
        got = given.get("type") if isinstance(given, Mapping) else given
        raise SpaceError(
            f"`type` of `{name}` must be one of {[*_KINDS]}, got {shown(got)}; write {_EXAMPLE}"
        )
    kind = _KINDS[given["type"]]
    arguments = {argument: value for argument, value in given.items() if argument != "type"}
    known = [field.name for field in fields(kind)]
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise SpaceError(
            f"`{name}` must have arguments of {kind.__name__}, {known}, got {unknown}; rename or"
            " drop them"
        )
    for argument, enum in (("role", Role), ("axis", Axis)):
        if argument in arguments:
            arguments[argument] = Member(enum)(
                arguments[argument], f"`{argument}` of `{name}`", SpaceError
            )
    if "when" in arguments:
        arguments["when"] = _when(name, arguments["when"])
    try:
        return kind(**arguments)
    except SpaceError as error:
        raise SpaceError(f"in `{name}`: {error}") from None
    except TypeError:  # an argument without a default
        missing = [argument for argument in known[:2] if argument not in arguments]
        raise SpaceError(f"`{name}` needs {missing}; add what is missing") from None


def _when(name: object, given: object) -> tuple[str, list[Any]]:
    """The parent and its values, from `{parent: [value, ...]}` or `{parent: value}`."""
    if not isinstance(given, Mapping) or len(given) != 1:
        raise SpaceError(
            f"`when` of `{name}` must name one parameter and its values, got {shown(given)}; write"
            " when: {optimizer: [sgd]}"
        )
    [(parent, values)] = given.items()
    return parent, values if isinstance(values, list) else [values]
