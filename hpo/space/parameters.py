"""The kinds of parameters that a search space is made of."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Iterable, Sequence
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from hpo.errors import SpaceError

if TYPE_CHECKING:
    pass


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


class Role(Enum):
    """What a decision parameter is to the training run; read by transfer rules."""

    LR = "lr"
    BATCH = "batch"
    WEIGHT_DECAY = "weight_decay"
    BETA1 = "beta1"
    BETA2 = "beta2"
    EPSILON = "epsilon"
    WARMUP = "warmup"
    DROPOUT = "dropout"
    INIT = "init"
    OTHER = "other"


class Axis(Enum):
    """What a scale axis measures; read by transfer rules and the scaling law."""

    PARAMS = "params"
    WIDTH = "width"
    DEPTH = "depth"
    TOKENS = "tokens"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Float:
    """A real parameter.

    `low`, `high`: bounds in v, inclusive; equal bounds make a constant. A missing bound means that
    the search may grow that way, from `center` by `spread`, which are then both required.
    `log`: search in ln v (`low` > 0). `logit`: search in log-odds (bounds inside (0, 1)).
    `center`: first value to try. `spread`: one standard deviation of the first search, in natural
    units (v; ln v under `log`; log-odds under `logit`).
    `role`: what the parameter is to the run. `when`: `("parent", [values that activate])`.

    Raises `SpaceError` for arguments that break these rules.
    """

    low: float | None = None
    high: float | None = None
    _: KW_ONLY
    log: bool = False
    logit: bool = False
    center: float | None = None
    spread: float | None = None
    role: Role = Role.OTHER
    when: When | None = None

    def __post_init__(self) -> None:
        for argument in ("low", "high", "center"):
            _store_number(self, argument)
        _check_flags(self, "log", "logit")
        if self.log and self.logit:
            raise SpaceError(
                "`log` and `logit` of Float exclude each other, got both True; keep one"
            )
        for argument in ("low", "high", "center"):
            value = getattr(self, argument)
            if value is None:
                continue
            if self.log and value <= 0:
                raise SpaceError(
                    f"`{argument}` of Float must be > 0 with log=True, got {argument}={value!r}; "
                    "raise it or drop log=True"
                )
            if self.logit and not 0 < value < 1:
                raise SpaceError(
                    f"`{argument}` of Float must lie inside (0, 1) with logit=True, got "
                    f"{argument}={value!r}; move it inside, e.g. 1e-4 or 0.9999"
                )
        _check_order(self)
        if (
            self.low is not None
            and self.high is not None
            and not math.isfinite(self.high - self.low)
        ):
            raise SpaceError(
                f"`high - low` of Float must be finite, got low={self.low!r}, high={self.high!r}; "
                "narrow the range or use log=True"
            )
        _check_center(self)
        _check_role_and_when(self)

    @property
    def bounded(self) -> bool:
        """Whether both bounds are given."""
        return self.low is not None and self.high is not None

    @property
    def limits(self) -> tuple[float, float]:
        """Bounds in v, with the largest safe value where the user gave none."""
        if self.log:
            least, most = SMALLEST_POSITIVE, LARGEST_FLOAT
        elif self.logit:
            least, most = SMALLEST_ODDS, 1.0 - SMALLEST_ODDS
        else:
            least, most = -LARGEST_FLOAT, LARGEST_FLOAT
        return least if self.low is None else self.low, most if self.high is None else self.high

    def check(self, value: object, name: str = "Float") -> float:
        """`value` as a float inside the limits; raises `SpaceError` naming `name` otherwise."""
        return _check_range(_as_float(value, f"`{name}`"), self.limits, name)

    def canonical(self, value: float) -> float:
        """The nearest lattice value inside the limits (module docstring)."""
        low, high = self.limits
        value = min(max(value, low), high)
        if self.log:
            value = _significant(value)
        elif self.logit:
            # Digits of the smaller of p and 1 - p: near 1 what matters is the distance to 1.
            value = _significant(value) if value <= 0.5 else 1.0 - _significant(1.0 - value)
        else:
            value = self._canonical_linear(value)
        return min(max(value, low), high)

    def _canonical_linear(self, value: float) -> float:
        if self.low is not None and self.high is not None:
            # When high - low is small beside |low|, v - low is exact (Sterbenz's lemma) and so is
            # the way back; otherwise 1e-12 (high - low) exceeds the rounding of v.
            width = self.high - self.low
            return round(value, 12 - _digits_before_point(width)) + 0.0 if width > 0 else value
        assert self.center is not None and self.spread is not None
        # Far out, the rounding of an unbounded value grows with its size, and so must the lattice.
        size = max(abs(value), abs(self.center), self.spread)
        decimals = min(12 - _digits_before_point(self.spread), 14 - _digits_before_point(size))
        return round(value, decimals) + 0.0  # + 0.0 turns -0.0 into 0.0


@dataclass(frozen=True, slots=True)
class Int:
    """An integer parameter on the lattice 0, +-`multiple_of`, +-2 `multiple_of`, ...

    `low`, `high`: inclusive bounds, multiples of `multiple_of`, at most `LARGEST_INT` in size.
    The other arguments are those of `Float`. Raises `SpaceError` for arguments that break these.
    """

    low: int | None = None
    high: int | None = None
    _: KW_ONLY
    log: bool = False
    multiple_of: int = 1
    center: int | None = None
    spread: float | None = None
    role: Role = Role.OTHER
    when: When | None = None

    def __post_init__(self) -> None:
        _check_flags(self, "log")
        object.__setattr__(self, "multiple_of", _as_int(self.multiple_of, "`multiple_of` of Int"))
        if self.multiple_of < 1:
            raise SpaceError(
                f"`multiple_of` of Int must be >= 1, got {self.multiple_of}; drop it for every"
                " integer"
            )
        for argument in ("low", "high", "center"):
            value = getattr(self, argument)
            if value is None:
                continue
            value = _as_int(value, f"`{argument}` of Int")
            object.__setattr__(self, argument, value)
            if abs(value) > LARGEST_INT:
                raise SpaceError(
                    f"`{argument}` of Int must be at most {LARGEST_INT:.0e} in size, got"
                    f" {argument}={value}; use Float (or Scale for a size axis) and round in your"
                    " function"
                )
            if value % self.multiple_of:
                below = value - value % self.multiple_of
                raise SpaceError(
                    f"`{argument}` of Int must be a multiple of multiple_of={self.multiple_of}, got"
                    f" {argument}={value}; use {below} or {below + self.multiple_of}"
                )
            if self.log and value <= 0:
                raise SpaceError(
                    f"`{argument}` of Int must be > 0 with log=True, got {argument}={value}; raise"
                    " it or drop log=True"
                )
        _check_order(self)
        _check_center(self)
        _check_role_and_when(self)

    @property
    def bounded(self) -> bool:
        """Whether both bounds are given."""
        return self.low is not None and self.high is not None

    @property
    def limits(self) -> tuple[int, int]:
        """Bounds in v, with the largest safe lattice value where the user gave none."""
        most = LARGEST_INT - LARGEST_INT % self.multiple_of
        least = self.multiple_of if self.log else -most
        return least if self.low is None else self.low, most if self.high is None else self.high

    def check(self, value: object, name: str = "Int") -> int:
        """`value` as an int on the lattice; raises `SpaceError` naming `name` otherwise."""
        integer = _check_range(_as_int(value, f"`{name}`"), self.limits, name)
        if integer % self.multiple_of:
            raise SpaceError(
                f"`{name}` must be a multiple of {self.multiple_of}, got {integer}; use"
                f" {self.canonical(integer)}"
            )
        return integer

    def canonical(self, value: float) -> int:
        """The nearest lattice value inside the limits."""
        low, high = self.limits
        return min(max(self.multiple_of * round(value / self.multiple_of), low), high)


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of several choices: str, int, float, bool or None.

    `ordered`: the choices are listed in order and neighbors behave alike (an ordinal).
    `center`: first choice to try. Raises `SpaceError` for empty, equal or unstorable choices.
    """

    choices: Sequence[Choice]
    _: KW_ONLY
    ordered: bool = False
    center: Choice = None
    role: Role = Role.OTHER
    when: When | None = None

    def __post_init__(self) -> None:
        _check_flags(self, "ordered")
        if isinstance(self.choices, str) or not isinstance(self.choices, Iterable):
            raise SpaceError(
                f"`choices` of Categorical must be a list of values, got {self.choices!r}; write"
                " Categorical([...])"
            )
        choices = tuple(_as_choice(choice, "`choices` of Categorical") for choice in self.choices)
        object.__setattr__(self, "choices", choices)
        if not choices:
            raise SpaceError(
                "`choices` of Categorical must not be empty, got []; list at least one choice"
            )
        for position, choice in enumerate(choices):
            if choice in choices[:position]:
                twin = choices[choices.index(choice)]
                raise SpaceError(
                    f"`choices` of Categorical must differ, got {twin!r} and {choice!r}; drop one"
                    " of the two"
                    + ("" if type(twin) is type(choice) else " or name them by strings")
                )
        if self.center is not None:
            object.__setattr__(self, "center", self.check(self.center, "center` of `Categorical"))
        _check_role_and_when(self)

    def check(self, value: object, name: str = "Categorical") -> Choice:
        """The choice equal to `value`; raises `SpaceError` naming `name` otherwise."""
        return self.choices[self.index(value, name)]

    def index(self, value: object, name: str = "Categorical") -> int:
        """Position of `value` among the choices; raises `SpaceError` naming `name` otherwise."""
        value = _plain(value)
        for position, choice in enumerate(self.choices):
            # True == 1 in Python, but a flag is not a number here.
            if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                return position
        raise SpaceError(
            f"`{name}` must be one of {list(self.choices)!r}, got {value!r}; use one of these or"
            " add it"
        )

    def canonical(self, value: Choice) -> Choice:
        """The choice itself: choices need no rounding."""
        return value


@dataclass(frozen=True, slots=True)
class Scale:
    """A size axis, searched on a log scale: parameters, tokens, width, depth, ...

    `low`, `high`: range of the proxies that may be run, > 0. Values are floats. The target of the
    search may lie far beyond `high`. Raises `SpaceError` for arguments that break these rules.
    """

    low: float
    high: float
    _: KW_ONLY
    axis: Axis = Axis.OTHER

    def __post_init__(self) -> None:
        for argument in ("low", "high"):
            _store_number(self, argument)
            value = getattr(self, argument)
            if value is None or not SMALLEST_POSITIVE <= value <= LARGEST_FLOAT:
                raise SpaceError(
                    f"`{argument}` of Scale must be a positive number, got {argument}={value!r}; "
                    "scale axes are searched in ln v, so start above 0"
                )
        _check_order(self)
        if not isinstance(self.axis, Axis):
            raise SpaceError(
                f"`axis` of Scale must be an Axis, got {self.axis!r}; write axis=Axis.PARAMS or"
                " another member"
            )

    @property
    def limits(self) -> tuple[float, float]:
        """`(low, high)`."""
        return self.low, self.high

    def check(self, value: object, name: str = "Scale", *, extrapolate: bool = False) -> float:
        """`value` as a float inside the range, or any positive float if `extrapolate`."""
        size = _as_float(value, f"`{name}`")
        if size <= 0:
            raise SpaceError(f"`{name}` must be a positive size, got {value!r}; give e.g. 1e6")
        limits = (SMALLEST_POSITIVE, LARGEST_FLOAT) if extrapolate else self.limits
        return _check_range(size, limits, name)

    def canonical(self, value: float) -> float:
        """The nearest lattice value; the ends of the range stand for their lattice values."""
        rounded = _significant(value)
        for end in self.limits:
            # Not by equal digits: exp(ln end) may round to the other side of a tie.
            if math.isclose(rounded, end, rel_tol=1e-10):
                return end
        return rounded


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The resource level inside one resumable run: epochs, steps, folds.

    `low`, `high`: integers, 1 <= low <= high <= `LARGEST_INT`; at most one fidelity in a space.
    Raises `SpaceError` for arguments that break these rules.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        for argument in ("low", "high"):
            value = _as_int(getattr(self, argument), f"`{argument}` of Fidelity")
            object.__setattr__(self, argument, value)
            if not 1 <= value <= LARGEST_INT:
                raise SpaceError(
                    f"`{argument}` of Fidelity must be an integer from 1 to {LARGEST_INT:.0e}, got"
                    f" {argument}={value}; count the resource in whole units from 1"
                )
        _check_order(self)

    @property
    def limits(self) -> tuple[int, int]:
        """`(low, high)`."""
        return self.low, self.high

    def check(self, value: object, name: str = "Fidelity") -> int:
        """`value` as an int inside the range; raises `SpaceError` naming `name` otherwise."""
        return _check_range(_as_int(value, f"`{name}`"), self.limits, name)

    def canonical(self, value: float) -> int:
        """The nearest integer inside the range."""
        return min(max(round(value), self.low), self.high)


Parameter: TypeAlias = Float | Int | Categorical | Scale | Fidelity


def condition(parameter: Parameter) -> When | None:
    """The `when` of a parameter; None for scale axes and fidelities, which are always active."""
    return None if isinstance(parameter, Scale | Fidelity) else parameter.when


def _plain(value: object) -> object:
    """A NumPy scalar as the Python value it stands for; anything else unchanged."""
    if (
        type(value).__module__ == "numpy"
        and hasattr(value, "item")
        and getattr(value, "ndim", None) == 0
    ):
        return value.item()
    return value


def _as_float(value: object, what: str) -> float:
    value = _plain(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise SpaceError(
            f"{what} must be a number, got {value!r} ({type(value).__name__}); pass a float"
        )
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise SpaceError(
            f"{what} must be finite, got {value!r}; leave it out or pass a finite number"
        )
    return number


def _as_int(value: object, what: str) -> int:
    value = _plain(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise SpaceError(
            f"{what} must be an integer, got {value!r} ({type(value).__name__}); pass an int"
        )
    return operator.index(value)


def _as_choice(value: object, what: str) -> Choice:
    value = _plain(value)
    if value is not None and not isinstance(value, str | int | float | bool):
        raise SpaceError(
            f"{what} must hold only str, int, float, bool or None, got {value!r}"
            f" ({type(value).__name__}); name it by a string and look it up in your function"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise SpaceError(f"{what} must hold finite numbers, got {value!r}; name it by a string")
    return value


def _store_number(parameter: Float | Scale, argument: str) -> None:
    value = getattr(parameter, argument)
    if value is not None:
        kind = type(parameter).__name__
        object.__setattr__(parameter, argument, _as_float(value, f"`{argument}` of {kind}"))


def _check_flags(parameter: Float | Int | Categorical, *arguments: str) -> None:
    for argument in arguments:
        value = getattr(parameter, argument)
        if not isinstance(value, bool):
            raise SpaceError(
                f"`{argument}` of {type(parameter).__name__} must be True or False, got {value!r};"
                " pass a bool"
            )


def _check_order(parameter: Float | Int | Scale | Fidelity) -> None:
    if (
        parameter.low is not None
        and parameter.high is not None
        and not parameter.low <= parameter.high
    ):
        raise SpaceError(
            f"`low <= high` must hold for {type(parameter).__name__}, got low={parameter.low!r}, "
            f"high={parameter.high!r}; swap them?"
        )


def _check_center(parameter: Float | Int) -> None:
    kind, center, spread = type(parameter).__name__, parameter.center, parameter.spread
    if spread is not None:
        spread = _as_float(spread, f"`spread` of {kind}")
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


def _check_role_and_when(parameter: Float | Int | Categorical) -> None:
    kind = type(parameter).__name__
    if not isinstance(parameter.role, Role):
        raise SpaceError(
            f"`role` of {kind} must be a Role, got {parameter.role!r}; write role=Role.LR or"
            " another member"
        )
    if parameter.when is None:
        return
    hint = 'write when=("optimizer", ["adamw"])'
    if not isinstance(parameter.when, tuple | list) or len(parameter.when) != 2:
        raise SpaceError(
            f"`when` of {kind} must be a pair (parent name, values), got {parameter.when!r}; {hint}"
        )
    parent, values = parameter.when
    if not isinstance(parent, str) or isinstance(values, str) or not isinstance(values, Iterable):
        raise SpaceError(
            f"`when` of {kind} must be a name and a list of values, got {parameter.when!r}; {hint}"
        )
    values = tuple(values)
    if not values:
        raise SpaceError(
            f"`when` of {kind} must list at least one value of `{parent}`, got []; {hint}"
        )
    object.__setattr__(parameter, "when", (parent, values))


def _check_range(value: Number, limits: tuple[Number, Number], name: str) -> Number:
    low, high = limits
    if not low <= value <= high:
        raise SpaceError(
            f"`{name}` must lie in [{low!r}, {high!r}], got {value!r}; move it or widen the bounds"
        )
    return value


def _digits_before_point(size: float) -> int:
    """Digits before the decimal point of `size` > 0: 1 for 1 to 9.99, 0 for 0.1 to 0.99, ..."""
    return math.floor(math.log10(size)) + 1


def _significant(value: float) -> float:
    """`value` > 0 to 12 significant digits; 11 beyond 1e+-100, where ln v has fewer left."""
    return float(f"{value:.12g}") if 1e-100 < value < 1e100 else float(f"{value:.11g}")
