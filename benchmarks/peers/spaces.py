"""A search space in the terms rivals share: reals, integers, ordinals and categories.

Rivals name these things differently but none knows logits, multiples, scale axes or constants, so
each is turned into what they do know, without loss:

==========================  ==================================================================
ours                        theirs
==========================  ==================================================================
Float, Scale                a real; a log axis stays one
Float with logit            a real, linear in the log-odds
Int with multiple_of = k    the integer v / k; a log axis stays one
Categorical, ordered        the integer 0 .. K-1, position among the choices, linear
Categorical                 the category 0 .. K-1
equal bounds, one choice    not searched, put back into every config
==========================  ==================================================================

An unbounded parameter has no counterpart and is refused.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from benchmarks.peers.base import Unsupported
from hpo import Categorical, Float, Int, SearchSpace
from hpo.space import Parameter
from hpo.space.parameters import condition

__all__ = ["CodedAxis", "Code", "CodeKind", "Translation"]

#: A value as the rival stores it.
Code = float | int


class CodeKind(Enum):
    """The type of an axis."""

    REAL = "real"
    INTEGER = "integer"
    CATEGORY = "category"


@dataclass(frozen=True, slots=True)
class CodedAxis:
    """One searched parameter, in codes.

    `low`, `high`: inclusive, in codes; categories run from 0 to `high`. `log`: search in ln code.
    `parent`, `values`: active only while the parent's code is among `values`; None: always.
    """

    name: str
    kind: CodeKind
    low: Code
    high: Code
    log: bool = False
    parent: str | None = None
    values: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """Number of codes; only for integers and categories."""
        return int(self.high) - int(self.low) + 1

    def to_unit(self, code: Code) -> float:
        """Return `code` on [0, 1], on the axis's own scale."""
        if self.log:
            return math.log(code / self.low) / math.log(self.high / self.low)
        return (code - self.low) / (self.high - self.low)

    def from_unit(self, share: float) -> float:
        """Return the inverse of `to_unit`, not rounded."""
        if self.log:
            return float(self.low * (self.high / self.low) ** share)
        return float(self.low + share * (self.high - self.low))


class Translation:
    """Axes of `space`, and configs to codes and back.

    `peer`: the rival's name, for messages. `conditional`: whether it knows conditional parameters.
    Raises `Unsupported` for unbounded parameters, for conditional ones unless `conditional`, and
    for a space that is constant.
    """

    def __init__(self, space: SearchSpace, *, peer: str, conditional: bool = False) -> None:
        self.space = space
        self._constants: dict[str, Any] = {}
        axes = []
        for name in space.parents_first:
            parameter = space[name]
            if condition(parameter) is not None and not conditional:
                raise Unsupported(
                    f"{peer} knows no conditional parameters, and `{name}` is one; leave"
                    f" {peer} out on this task"
                )
            axis = _axis(name, parameter, peer)
            if axis.low == axis.high:
                self._constants[name] = _value(parameter, axis.low)
            else:
                axes.append(axis)
        self.axes = tuple(self._conditioned(axis) for axis in axes)
        if not self.axes:
            raise Unsupported(f"{peer} has nothing to search: every parameter is constant")

    def config(self, codes: Mapping[str, Any]) -> dict[str, Any]:
        """Return the canonical config of `codes`; codes of inactive parameters are ignored."""
        values = dict(self._constants)
        for axis in self.axes:
            if codes.get(axis.name) is not None:
                values[axis.name] = _value(self.space[axis.name], _clipped(axis, codes[axis.name]))
        active = self.space.active(values)
        return self.space.canonical({name: values[name] for name in active})

    def codes(self, config: Mapping[str, Any]) -> dict[str, Code]:
        """Return the codes of a config's searched and active parameters."""
        return {
            axis.name: _clipped(axis, _code(self.space[axis.name], config[axis.name]))
            for axis in self.axes
            if axis.name in config
        }

    def sample(self, rng: np.random.Generator) -> dict[str, Any]:
        """Draw codes uniformly: in the code, in its logarithm, or over whole codes."""
        codes: dict[str, Code] = {}
        for axis in self.axes:
            if axis.kind is CodeKind.REAL:
                codes[axis.name] = axis.from_unit(rng.random())
            elif axis.log:
                low, high = math.log(axis.low - 0.5), math.log(axis.high + 0.5)
                codes[axis.name] = round(math.exp(rng.uniform(low, high)))
            else:
                codes[axis.name] = int(rng.integers(int(axis.low), int(axis.high) + 1))
        return self.config(codes)

    def _conditioned(self, axis: CodedAxis) -> CodedAxis:
        when = condition(self.space[axis.name])
        # A constant parent decides once and for all; `config` asks the space which way.
        if when is None or when[0] in self._constants:
            return axis
        parent, values = when
        codes = tuple(int(_code(self.space[parent], value)) for value in values)
        return CodedAxis(axis.name, axis.kind, axis.low, axis.high, axis.log, parent, codes)


def _axis(name: str, parameter: Parameter, peer: str) -> CodedAxis:
    if isinstance(parameter, Categorical):
        kind = CodeKind.INTEGER if parameter.ordered else CodeKind.CATEGORY
        return CodedAxis(name, kind, 0, len(parameter.choices) - 1)
    if isinstance(parameter, Float | Int) and not parameter.bounded:
        raise Unsupported(
            f"{peer} needs both bounds, and `{name}` lacks one; bound it or leave {peer} out"
        )
    low, high = parameter.limits
    if isinstance(parameter, Int):
        step = parameter.multiple_of
        low, high = parameter.canonical(low) // step, parameter.canonical(high) // step
        return CodedAxis(name, CodeKind.INTEGER, low, high, parameter.log)
    if isinstance(parameter, Float) and parameter.logit:
        return CodedAxis(name, CodeKind.REAL, _log_odds(low), _log_odds(high))
    return CodedAxis(
        name, CodeKind.REAL, low, high, not isinstance(parameter, Float) or parameter.log
    )


def _value(parameter: Parameter, code: Code) -> Any:
    if isinstance(parameter, Categorical):
        return parameter.choices[int(code)]
    if isinstance(parameter, Int):
        return int(code) * parameter.multiple_of
    if isinstance(parameter, Float) and parameter.logit:
        low, high = parameter.limits
        return min(max(1.0 / (1.0 + math.exp(-code)), low), high)
    return float(code)


def _code(parameter: Parameter, value: Any) -> Code:
    if isinstance(parameter, Categorical):
        return parameter.index(value)
    if isinstance(parameter, Int):
        return int(value) // parameter.multiple_of
    if isinstance(parameter, Float) and parameter.logit:
        return _log_odds(value)
    return float(value)


def _clipped(axis: CodedAxis, code: Any) -> Code:
    """`code` inside the range, whole where it must be; rivals return NumPy scalars and 9.9999."""
    inside = min(max(float(code), float(axis.low)), float(axis.high))
    return inside if axis.kind is CodeKind.REAL else round(inside)


def _log_odds(value: float) -> float:
    return math.log(value) - math.log1p(-value)
