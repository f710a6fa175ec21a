"""Search spaces: what may vary, over which values, and in which units.

Notation
--------
v        a value as the user writes it, e.g. lr = 3e-4
natural  the unit in which distances make sense: v (linear), ln v (log), ln(v / (1 - v)) (logit)
center   where an unbounded search starts, in v; `spread` one standard deviation of it, natural
config   a dict from the names of the *active* parameters to values

Every kind is frozen and checked when it is made. A parameter does not know its name, so its own
messages say `Float` or `Int`; `SearchSpace` names the parameter.

Canonical values. A float is kept on a lattice of about 12 significant digits, far coarser than the
rounding of the maps in `hpo.encoding` and far finer than any experiment can tell, so that encoding
and decoding give back the very same number and equal configs compare equal. Integers are limited to
`LARGEST_INT` for the same reason.
"""

from __future__ import annotations

import math
import numbers
import operator
import sys
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields, replace
from decimal import Decimal
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from hpo.errors import SpaceError

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution

__all__ = [
    "Axis",
    "Categorical",
    "Choice",
    "Fidelity",
    "Float",
    "Int",
    "Parameter",
    "Role",
    "Scale",
    "SearchSpace",
    "Value",
    "When",
]

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
#: A grid of an Optuna distribution is taken over as an ordinal up to this many values.
LARGEST_GRID = 1000


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

    `ordered`: the choices are listed in order and neighbours behave alike (an ordinal).
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


class SearchSpace(Mapping[str, Parameter]):
    """An immutable, checked mapping from names to parameters, in the order given.

    `parameters`: a mapping from names to parameters of this module or to Optuna distributions, or
    another `SearchSpace`. An Optuna distribution with a step that is not a plain lattice becomes an
    ordinal over its grid (up to 1000 values).

    Raises `SpaceError` when a parameter is no parameter, when `when` names an unknown parent, a
    value the parent cannot take, or runs in a circle, and when there are two fidelities.
    """

    __slots__ = ("_depth_order", "_parameters")

    def __init__(
        self, parameters: Mapping[str, Parameter | BaseDistribution] | SearchSpace
    ) -> None:
        if not isinstance(parameters, Mapping):
            raise SpaceError(
                "a search space must be a mapping from names to parameters, got"
                f' {type(parameters).__name__}; write {{"lr": Float(1e-4, 1e-1, log=True), ...}}'
            )
        if not parameters:
            raise SpaceError("a search space must hold at least one parameter, got {}; add one")
        checked: dict[str, Parameter] = {}
        for name, parameter in parameters.items():
            if not isinstance(name, str) or not name:
                raise SpaceError(
                    f"parameter names must be non-empty strings, got {name!r}; rename it"
                )
            checked[name] = _as_parameter(name, parameter)
        fidelities = [
            name for name, parameter in checked.items() if isinstance(parameter, Fidelity)
        ]
        if len(fidelities) > 1:
            raise SpaceError(
                f"at most one Fidelity may be in a space, got {fidelities}; keep one and make the"
                " others Int or Scale"
            )
        for name, parameter in checked.items():
            checked[name] = _resolve_when(name, parameter, checked)
        self._parameters = checked
        self._depth_order = _parents_first(checked)

    def __getitem__(self, name: str) -> Parameter:
        return self._parameters[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._parameters)

    def __len__(self) -> int:
        return len(self._parameters)

    def __repr__(self) -> str:
        return f"SearchSpace({self._parameters!r})"

    @property
    def decisions(self) -> tuple[str, ...]:
        """Names that are chosen by the search at any scale: all but scale axes and fidelity."""
        return tuple(n for n, p in self._parameters.items() if not isinstance(p, Scale | Fidelity))

    @property
    def scales(self) -> tuple[str, ...]:
        """Names of the scale axes."""
        return tuple(n for n, p in self._parameters.items() if isinstance(p, Scale))

    @property
    def fidelity(self) -> str | None:
        """Name of the fidelity, if the space has one."""
        return next((n for n, p in self._parameters.items() if isinstance(p, Fidelity)), None)

    @property
    def parents_first(self) -> tuple[str, ...]:
        """All names, ordered so that a parent comes before its children."""
        return self._depth_order

    def active(self, config: Mapping[str, Any]) -> tuple[str, ...]:
        """Names that are active under `config`, in the order of the space.

        Only the parents' values are read; raises `SpaceError` when an active parent is missing.
        """
        active = set()
        for name in self._depth_order:
            when = condition(self._parameters[name])
            if when is None:
                active.add(name)
                continue
            parent, values = when
            if parent not in active:
                continue
            if parent not in config:
                raise SpaceError(
                    f"`{parent}` is missing from the config, and `{name}` depends on it; add it"
                )
            if self._parameters[parent].check(config[parent], parent) in values:
                active.add(name)
        return tuple(name for name in self._parameters if name in active)

    def validate(self, config: Mapping[str, Any], *, extrapolate: bool = False) -> dict[str, Any]:
        """`config` as a dict of plain Python values in the order of the space.

        `extrapolate`: let scale axes leave their range, as a run at the target does.
        Raises `SpaceError` for unknown, missing, inactive or illegal entries.
        """
        if not isinstance(config, Mapping):
            raise SpaceError(
                f"a config must be a mapping from names to values, got {type(config).__name__};"
                " pass a dict"
            )
        unknown = [name for name in config if name not in self._parameters]
        if unknown:
            raise SpaceError(
                f"every name of a config must be in the space, got unknown {unknown}; "
                f"the space holds {list(self._parameters)}"
            )
        active = self.active(config)
        missing = [name for name in active if name not in config]
        if missing:
            raise SpaceError(
                f"a config must hold every active parameter, got none for {missing}; add them"
            )
        inactive = [name for name in config if name not in active]
        if inactive:
            conditions = "; ".join(
                f"`{n}` needs {_say_when(self._parameters[n])}" for n in inactive
            )
            raise SpaceError(
                f"a config must not hold inactive parameters, got {inactive} ({conditions}); drop"
                " them"
            )
        return {name: self._check(name, config[name], extrapolate) for name in active}

    def canonical(self, config: Mapping[str, Any], *, extrapolate: bool = False) -> dict[str, Any]:
        """`validate(config)` with floats on the lattice: exact under encoding and decoding."""
        valid = self.validate(config, extrapolate=extrapolate)
        return {name: _canonical(self._parameters[name], value) for name, value in valid.items()}

    def key(self, config: Mapping[str, Any]) -> Hashable:
        """Hashable identity of a canonical config: equal exactly for equal configs."""
        return tuple((name, config[name]) for name in self._parameters if name in config)

    def fingerprint(self) -> dict[str, dict[str, Any]]:
        """JSON-able description of the space, to recognise it when a study is resumed."""
        return {name: _describe(parameter) for name, parameter in self._parameters.items()}

    @classmethod
    def from_fingerprint(cls, fingerprint: Mapping[str, Mapping[str, Any]]) -> SearchSpace:
        """The space that a `fingerprint()` describes, perhaps read back from JSON."""
        return cls({name: _from_description(d) for name, d in fingerprint.items()})

    def difference(self, other: Mapping[str, Mapping[str, Any]]) -> str | None:
        """What differs from `other`, the `fingerprint()` of a stored space; None if nothing."""
        mine = self.fingerprint()
        found = []
        for name in [*mine, *(n for n in other if n not in mine)]:
            if name not in other:
                found.append(f"`{name}` is new")
            elif name not in mine:
                found.append(f"`{name}` is gone")
            else:
                here, there = mine[name], other[name]
                found.extend(
                    f"`{name}`: {field} is {here.get(field)!r}, was {there.get(field)!r}"
                    for field in dict.fromkeys([*here, *there])
                    if here.get(field) != there.get(field)
                )
        if not found and list(mine) != list(other):
            found.append(f"the order is {list(mine)}, was {list(other)}")
        return "; ".join(found) or None

    def distributions(
        self, config: Mapping[str, Any], box: Mapping[str, tuple[float, float]]
    ) -> dict[str, BaseDistribution]:
        """Optuna distributions of the active parameters of `config`.

        `box`: for unbounded parameters, the finite range in v that was searched
        (`Encoder.value_box`); it is widened to hold the config's own value, as is a scale axis that
        the config leaves. Logit floats are stored as plain floats.
        """
        return {
            name: _distribution(self._parameters[name], config[name], box.get(name))
            for name in self.active(config)
        }

    def _check(self, name: str, value: object, extrapolate: bool) -> Value:
        parameter = self._parameters[name]
        if isinstance(parameter, Scale):
            return parameter.check(value, name, extrapolate=extrapolate)
        return parameter.check(value, name)


def condition(parameter: Parameter) -> When | None:
    """The `when` of a parameter; None for scale axes and fidelities, which are always active."""
    return None if isinstance(parameter, Scale | Fidelity) else parameter.when


# --- rules shared by the kinds -------------------------------------------------------------------


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


# --- the lattice ---------------------------------------------------------------------------------


def _digits_before_point(size: float) -> int:
    """Digits before the decimal point of `size` > 0: 1 for 1 to 9.99, 0 for 0.1 to 0.99, ..."""
    return math.floor(math.log10(size)) + 1


def _significant(value: float) -> float:
    """`value` > 0 to 12 significant digits; 11 beyond 1e+-100, where ln v has fewer left."""
    return float(f"{value:.12g}") if 1e-100 < value < 1e100 else float(f"{value:.11g}")


def _canonical(parameter: Parameter, value: Any) -> Value:
    return parameter.canonical(value)


# --- conditions ----------------------------------------------------------------------------------


def _say_when(parameter: Parameter) -> str:
    when = condition(parameter)
    assert when is not None
    parent, values = when
    return f"`{parent}` in {list(values)!r}"


def _resolve_when(name: str, parameter: Parameter, space: Mapping[str, Parameter]) -> Parameter:
    """`parameter` with the values of its `when` as the parent knows them, in the parent's order."""
    when = condition(parameter)
    if when is None or isinstance(parameter, Scale | Fidelity):
        return parameter
    parent_name, values = when
    parent = space.get(parent_name)
    if parent is None:
        raise SpaceError(
            f"`when` of `{name}` must name a parameter of the space, got {parent_name!r}; the space"
            f" holds {list(space)}"
        )
    if not isinstance(parent, Categorical | Int):
        raise SpaceError(
            f"`when` of `{name}` must name a Categorical or Int, got `{parent_name}`, a"
            f" {type(parent).__name__}; add a Categorical that switches it"
        )
    known = {parent.check(value, f"{parent_name}` in `when` of `{name}") for value in values}
    if isinstance(parent, Categorical):
        return replace(
            parameter, when=(parent_name, tuple(c for c in parent.choices if c in known))
        )
    return replace(parameter, when=(parent_name, tuple(sorted(known))))  # type: ignore[type-var]  # all int here


def _parents_first(space: Mapping[str, Parameter]) -> tuple[str, ...]:
    ordered: dict[str, None] = {}
    for name in space:
        chain = [name]
        while (when := condition(space[chain[-1]])) is not None and when[0] not in ordered:
            if when[0] in chain:
                raise SpaceError(
                    f"`when` must not run in a circle, got {' -> '.join([*chain, when[0]])}; break"
                    " it at one of them"
                )
            chain.append(when[0])
        ordered.update(dict.fromkeys(reversed(chain)))
    return tuple(ordered)


def _describe(parameter: Parameter) -> dict[str, Any]:
    def jsonable(value: object) -> object:
        if isinstance(value, Enum):
            return value.name
        return [jsonable(v) for v in value] if isinstance(value, tuple) else value

    described = {
        field.name: jsonable(getattr(parameter, field.name)) for field in fields(parameter)
    }
    return {"kind": type(parameter).__name__} | described


def _from_description(described: Mapping[str, Any]) -> Parameter:
    """The parameter that `_describe` described."""
    arguments = {name: value for name, value in described.items() if name != "kind"}
    if "role" in arguments:
        arguments["role"] = Role[arguments["role"]]
    if "axis" in arguments:
        arguments["axis"] = Axis[arguments["axis"]]
    if arguments.get("when") is not None:
        parent, values = arguments["when"]
        arguments["when"] = (parent, values)
    kinds = {kind.__name__: kind for kind in (Float, Int, Categorical, Scale, Fidelity)}
    parameter: Parameter = kinds[described["kind"]](**arguments)
    return parameter


# --- Optuna --------------------------------------------------------------------------------------


def _as_parameter(name: str, parameter: object) -> Parameter:
    if isinstance(parameter, Float | Int | Categorical | Scale | Fidelity):
        return parameter
    # An object can be an Optuna distribution only if Optuna has been imported.
    distributions = sys.modules.get("optuna.distributions")
    if distributions is None or not isinstance(parameter, distributions.BaseDistribution):
        raise SpaceError(
            f"`{name}` must be a Float, Int, Categorical, Scale, Fidelity or an Optuna"
            f" distribution, got {parameter!r} ({type(parameter).__name__}); a constant is"
            " Categorical([value])"
        )
    try:
        return _from_optuna(parameter)
    except SpaceError as error:
        raise SpaceError(f"in `{name}`: {error}") from None


def _from_optuna(distribution: BaseDistribution) -> Parameter:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return Categorical(distribution.choices)
    if isinstance(distribution, IntDistribution):
        low, high, step = distribution.low, distribution.high, distribution.step
        if low % step == 0:
            return Int(low, high, log=distribution.log, multiple_of=step)
        return Categorical(_grid(low, high, step), ordered=True)
    if isinstance(distribution, FloatDistribution):
        if distribution.step is None:
            return Float(distribution.low, distribution.high, log=distribution.log)
        grid = _grid(distribution.low, distribution.high, distribution.step)
        return Categorical(grid, ordered=True)
    raise SpaceError(
        f"only float, int and categorical Optuna distributions have a counterpart, got"
        f" {distribution!r}; write it as Float, Int or Categorical"
    )


def _grid(low: Number, high: Number, step: Number) -> tuple[Number, ...]:
    """low, low + step, ..., high in decimals: steps of 0.1 give 0.3, not 0.30000000000000004."""
    start, stride = Decimal(repr(low)), Decimal(repr(step))
    last = int((Decimal(repr(high)) - start) / stride)
    if last >= LARGEST_GRID:
        raise SpaceError(
            f"a range with a step is searched as a grid of at most {LARGEST_GRID}"
            f" values, got {last + 1}; use a coarser step, or Float or Int without one"
        )
    return tuple(type(low)(start + k * stride) for k in range(last + 1))


def _distribution(
    parameter: Parameter, value: Any, box: tuple[float, float] | None
) -> BaseDistribution:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(parameter, Categorical):
        return CategoricalDistribution(parameter.choices)
    if isinstance(parameter, Fidelity):
        return IntDistribution(parameter.low, parameter.high)
    if isinstance(parameter, Scale):
        return FloatDistribution(min(parameter.low, value), max(parameter.high, value), log=True)
    low, high = parameter.limits
    if not parameter.bounded:
        searched = (value, value) if box is None else box
        low, high = max(low, min(searched[0], value)), min(high, max(searched[1], value))
    if isinstance(parameter, Float):
        return FloatDistribution(low, high, log=parameter.log)
    low, high = parameter.canonical(low), parameter.canonical(high)
    if (
        parameter.log
    ):  # Optuna refuses a step on a log scale; our values are a subset of its integers.
        return IntDistribution(low, high, log=True)
    return IntDistribution(low, high, step=parameter.multiple_of)
