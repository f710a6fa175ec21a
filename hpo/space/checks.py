"""Rules that several kinds of parameters share, checked when one is made, with their messages."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np

from hpo.errors import SpaceError
from hpo.space.arguments import Flag, Kind, store
from hpo.space.roles import Role
from hpo.space.scalars import real, shown, whole

if TYPE_CHECKING:
    from hpo.space.parameters import Categorical, Fidelity, Float, Int, Scale

#: What a categorical choice may be: what JSON, and so every Optuna storage, holds exactly.
Choice: TypeAlias = str | int | float | bool | None

#: Any value a config may hold.
Value: TypeAlias = Choice

#: Name of the parent parameter and the values of it under which a parameter is active.
When: TypeAlias = tuple[str, Sequence[Choice]]

Number = TypeVar("Number", int, float)

#: Integers up to here survive ln, affine map and back without touching the next integer.
LARGEST_INT = 10**12

#: Floats stay inside these where the user gives no bound: the maps to natural units must not
#: overflow.
LARGEST_FLOAT = 1e300
SMALLEST_POSITIVE = 1e-300
SMALLEST_ODDS = 1e-15

#: Largest share that a recommendation beyond the searched range may reach: below 1 by far more than
#: single precision resolves.
SHARE_CEILING = 1.0 - 1e-6


def plain(value: object) -> object:
    """Return a NumPy scalar as the Python value it stands for; anything else unchanged."""
    if (
        type(value).__module__ == "numpy"
        and hasattr(value, "item")
        and getattr(value, "ndim", None) == 0
    ):
        return value.item()
    return value


def as_float(value: object, what: str) -> float:
    """Return `value` as a finite float; `what` names it in the error."""
    number = real(value)
    if number is None:
        value = plain(value)
        raise SpaceError(
            f"{what} must be a number, got {shown(value)} ({type(value).__name__}); pass a float"
        )
    if not math.isfinite(number):
        given = shown(plain(value))
        raise SpaceError(
            f"{what} must be finite, got {given}; leave it out or pass a finite number"
        )
    return number


def as_int(value: object, what: str) -> int:
    """Return `value` as an int if it is a whole number; `what` names it in the error."""
    number = whole(value)
    if number is None:
        value = plain(value)
        raise SpaceError(
            f"{what} must be an integer, got {shown(value)} ({type(value).__name__}); pass an int"
        )
    return number


def as_choice(value: object, what: str) -> Choice:
    """Return `value` as a choice that storage can hold; `what` names it in the error."""
    value = plain(value)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise SpaceError(
            f"{what} must hold only str, int, float, bool or None, got {shown(value)}"
            f" ({type(value).__name__}); name it by a string and look it up in your function"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise SpaceError(f"{what} must hold finite numbers, got {value!r}; name it by a string")
    return value


def listed(choices: object) -> Sequence[object]:
    """Return choices that have an order and can be read again.

    Raises:
        SpaceError: for anything else. The order of a set changes from one process to the next, a
            mapping has no obvious values, the parts of a text or of bytes are no choices, and a
            generator is empty after one reading.
    """
    if isinstance(choices, np.ndarray) and choices.ndim == 1:
        choices = choices.tolist()
    if isinstance(choices, list | tuple | range):
        return choices
    if isinstance(choices, set | frozenset):
        way_out = "a set has no order, write Categorical(sorted(...))"
    elif isinstance(choices, Iterable) and not isinstance(choices, str | bytes | bytearray):
        way_out = "write Categorical(list(...))"
    else:
        way_out = "write Categorical([...])"
    raise SpaceError(
        f"`choices` of Categorical must be a list or tuple of values, got {shown(choices)}"
        f" ({type(choices).__name__}); {way_out}"
    )


def store_number(parameter: Float | Scale, argument: str) -> None:
    """Store the named argument as a finite float; None stays None."""
    value = getattr(parameter, argument)
    if value is not None:
        kind = type(parameter).__name__
        object.__setattr__(parameter, argument, as_float(value, f"`{argument}` of {kind}"))


def check_flags(parameter: Float | Int | Categorical, *arguments: str) -> None:
    """Raise `SpaceError` for named arguments that are not True or False."""
    flag = Flag(way_out="pass a bool")
    store(parameter, SpaceError, **dict.fromkeys(arguments, flag))


def check_order(parameter: Float | Int | Scale | Fidelity) -> None:
    """Raise `SpaceError` for bounds in the wrong order."""
    if (
        parameter.low is not None
        and parameter.high is not None
        and not parameter.low <= parameter.high
    ):
        raise SpaceError(
            f"`low <= high` must hold for {type(parameter).__name__}, got low={parameter.low!r}, "
            f"high={parameter.high!r}; swap them?"
        )


def check_center(parameter: Float | Int) -> None:
    """Raise `SpaceError` where center, spread and bounds disagree; store `spread` as a float."""
    kind, center, spread = type(parameter).__name__, parameter.center, parameter.spread
    if spread is not None:
        spread = as_float(spread, f"`spread` of {kind}")
        object.__setattr__(parameter, "spread", spread)
        if spread <= 0:
            raise SpaceError(
                f"`spread` of {kind} must be > 0, got spread={spread!r}; it is one standard"
                " deviation in natural units"
            )
        if center is None:
            raise SpaceError(
                f"`spread` of {kind} needs `center`, got spread={spread!r} alone; add center="
            )
    if not parameter.bounded and (center is None or spread is None):
        raise SpaceError(
            f"{kind} without both bounds needs `center` and `spread`, got low={parameter.low!r},"
            f" high={parameter.high!r}, center={center!r}, spread={spread!r}; give the missing ones"
        )
    if center is not None:
        low, high = parameter.limits
        if not low <= center <= high:
            raise SpaceError(
                f"`center` of {kind} must lie in [low, high], got center={center!r}, low={low!r},"
                f" high={high!r}; move it or widen the bounds"
            )


def check_role_and_when(parameter: Float | Int | Categorical) -> None:
    """Raise `SpaceError` for a `role` or `when` of the wrong form; store `when` as tuples."""
    kind = type(parameter).__name__
    role = Kind(Role, way_out="write role=Role.LR or another member")
    store(parameter, SpaceError, role=role)
    if parameter.when is None:
        return
    hint = 'write when=("optimizer", ["adamw"])'
    if not isinstance(parameter.when, tuple | list) or len(parameter.when) != 2:
        raise SpaceError(
            f"`when` of {kind} must be a pair (parent name, values), got {shown(parameter.when)};"
            f" {hint}"
        )
    parent, values = parameter.when
    listed = isinstance(values, list | tuple | range | set | frozenset)  # ordered by the parent
    if not isinstance(parent, str) or not listed:
        raise SpaceError(
            f"`when` of {kind} must be a name and a list of values, got {shown(parameter.when)};"
            f" {hint}"
        )
    values = tuple(as_choice(value, f"`when` of {kind}") for value in values)
    if not values:
        raise SpaceError(
            f"`when` of {kind} must list at least one value of `{parent}`, got []; {hint}"
        )
    object.__setattr__(parameter, "when", (parent, values))


def check_range(value: Number, limits: tuple[Number, Number], name: str) -> Number:
    """Return `value` if it lies inside the limits; `name` is the parameter in the error."""
    low, high = limits
    if not low <= value <= high:
        raise SpaceError(
            f"`{name}` must lie in [{low!r}, {high!r}], got {value!r}; move it or widen the bounds"
        )
    return value


def is_rounding_of(value: float, end: float, parameter: Float | Scale) -> bool:
    """Whether a value differs from the end of a parameter's range by no more than rounding."""
    if parameter.low is not None and parameter.high is not None:
        width = parameter.high - parameter.low
    else:
        width = 0.0
    return parameter.unit.is_rounding_of(value, end, width=width)


def check_within(
    value: float, parameter: Float | Scale, limits: tuple[float, float], name: str
) -> float:
    """Do the same for a float, where one beyond a limit by rounding alone counts as the limit."""
    low, high = limits
    end = min(max(value, low), high)
    if end != value and is_rounding_of(value, end, parameter):
        return end
    return check_range(value, limits, name)
