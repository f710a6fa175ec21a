"""The kinds of parameters a search space is made of.

Notation
--------
v        a value as the user writes it, e.g. lr = 3e-4
natural  the unit in which distances make sense: v (linear), ln v (log), ln(v / (1 - v)) (logit)
center   where an unbounded search starts, in v; `spread` one standard deviation of it, natural
config   a dict from the names of the *active* parameters to values

Every kind is frozen and checked when it is made. A parameter does not know its name, so its own
messages say `Float` or `Int`; `SearchSpace` names the parameter. All kinds share `unit`, `step`,
`limits`, `check` and `canonical`.

Canonical values. A float is kept on a lattice of about 12 significant digits. That is far coarser
than the rounding of the maps in `hpo.space.encoding` and far finer than any experiment can tell, so
encoding and decoding give back the very same number, and equal configs compare equal. Integers are
limited to `LARGEST_INT` for the same reason.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias

from hpo.errors import SpaceError
from hpo.space.arguments import Kind, store
from hpo.space.checks import (
    LARGEST_FLOAT,
    LARGEST_INT,
    SHARE_CEILING,
    SMALLEST_ODDS,
    SMALLEST_POSITIVE,
    Choice,
    When,
    as_choice,
    as_float,
    as_int,
    check_center,
    check_flags,
    check_order,
    check_range,
    check_role_and_when,
    check_within,
    is_rounding_of,
    listed,
    plain,
    store_number,
)
from hpo.space.roles import Axis, Role
from hpo.space.scalars import shown
from hpo.space.units import Unit

#: Roles of shares, for which 1 is a wall.
_SHARES = (Role.DROPOUT, Role.BETA1, Role.BETA2)

__all__ = [
    "LARGEST_INT",
    "Categorical",
    "Choice",
    "Fidelity",
    "Float",
    "Int",
    "Parameter",
    "Scale",
    "When",
    "condition",
]


@dataclass(frozen=True, slots=True)
class Float:
    """A real parameter.

    Args:
        low: lower bound in v, inclusive. Without it the search may grow that way, from `center` by
            `spread`, which are then both required.
        high: upper bound in v, inclusive, or missing as `low`. Equal bounds make a constant.
        log: whether to search in ln v; needs positive bounds.
        logit: whether to search in log-odds; needs bounds inside (0, 1).
        center: first value to try.
        spread: one standard deviation of the first search, in natural units (v; ln v under `log`;
            log-odds under `logit`).
        hard: whether the bounds hold for every run; otherwise a recommendation at a size beyond the
            runs may lie outside of them, up to `physical_limits`.
        role: role of the parameter in the training run, for transfer rules.
        when: pair `("parent", [values])`; the parameter is active where the parent has one of them.

    Raises:
        SpaceError: for arguments that break these rules.

    Example:
        >>> lr = Float(1e-4, 1e-1, log=True, center=1e-3)
        >>> beta2 = Float(0.9, 0.9999, logit=True)
        >>> unbounded = Float(log=True, center=1e-3, spread=1.0)
        >>> lr.bounded, unbounded.bounded
        (True, False)
        >>> Float(1e-4, 1e-1, log=True, hard=True).physical_limits
        (0.0001, 0.1)
    """

    low: float | None = None
    high: float | None = None
    _: KW_ONLY
    log: bool = False
    logit: bool = False
    center: float | None = None
    spread: float | None = None
    hard: bool = False
    role: Role = Role.OTHER
    when: When | None = None

    def __post_init__(self) -> None:
        for argument in ("low", "high", "center"):
            store_number(self, argument)
        check_flags(self, "log", "logit", "hard")
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
        check_order(self)
        if (
            self.low is not None
            and self.high is not None
            and not math.isfinite(self.high - self.low)
        ):
            raise SpaceError(
                f"`high - low` of Float must be finite, got low={self.low!r}, high={self.high!r}; "
                "narrow the range or use log=True"
            )
        check_center(self)
        check_role_and_when(self)

    @property
    def unit(self) -> Unit:
        """Unit of the search: LOG, LOGIT or LINEAR.

        Example:
            >>> Float(1e-4, 1e-1, log=True).unit, Float(0.0, 0.5).unit
            (<Unit.LOG: 'log'>, <Unit.LINEAR: 'linear'>)
        """
        if self.log:
            return Unit.LOG
        return Unit.LOGIT if self.logit else Unit.LINEAR

    @property
    def step(self) -> None:
        """None, since every number inside the limits is legal.

        Example:
            >>> Float(0.0, 1.0).step is None
            True
        """
        return None

    @property
    def bounded(self) -> bool:
        """Whether both bounds are given.

        Example:
            >>> Float(0.0, 1.0).bounded, Float(0.0, center=1.0, spread=0.5).bounded
            (True, False)
        """
        return self.low is not None and self.high is not None

    @property
    def limits(self) -> tuple[float, float]:
        """Bounds in v, with the largest safe value where the user gave none.

        Example:
            >>> Float(0.0, center=1.0, spread=0.5).limits
            (0.0, 1e+300)
        """
        if self.log:
            least, most = SMALLEST_POSITIVE, LARGEST_FLOAT
        elif self.logit:
            least, most = SMALLEST_ODDS, 1.0 - SMALLEST_ODDS
        else:
            least, most = -LARGEST_FLOAT, LARGEST_FLOAT
        return least if self.low is None else self.low, most if self.high is None else self.high

    @property
    def physical_limits(self) -> tuple[float, float]:
        """Bounds in v that no run may pass, whatever range is searched.

        They are the declared ones under `hard`. Otherwise a log parameter stays positive, a logit
        one inside (0, 1), and a linear one whose `low` is not negative at 0 or above. Dropout and
        betas stay below 1; a range that ends at 1 ends there if it is linear from 0 or above, as
        does a warm-up in shares of a run.

        Example:
            >>> Float(1e-4, 1e-1, log=True).physical_limits
            (1e-300, 1e+300)
            >>> Float(0.0, 0.3, role=Role.DROPOUT).physical_limits
            (0.0, 0.999999)
        """
        low, high = self.limits
        if self.hard or low == high:
            return low, high
        if self.logit:
            return SMALLEST_ODDS, 1.0 - SMALLEST_ODDS
        least, most = SMALLEST_POSITIVE if self.log else 0.0, LARGEST_FLOAT
        if not self.log and (self.low is None or self.low < 0):
            least = -LARGEST_FLOAT
        if self.role in _SHARES:
            most = SHARE_CEILING
        elif self.high is not None and (
            (not self.log and least == 0.0 and self.high == 1.0)
            or (self.role is Role.WARMUP and self.high <= 1.0)
        ):
            most = 1.0
        return min(least, low), most if self.high is None else max(most, self.high)

    def check(self, value: object, name: str = "Float", *, extrapolate: bool = False) -> float:
        """Return `value` as a float inside the limits.

        Args:
            value: value from a user's config.
            name: name of the parameter, for the message.
            extrapolate: whether only `physical_limits` hold.

        Raises:
            SpaceError: for any other value.

        Example:
            >>> Float(0.0, 1.0).check(1, "dropout")
            1.0
        """
        limits = self.physical_limits if extrapolate else self.limits
        return check_within(as_float(value, f"`{name}`"), self, limits, name)

    def canonical(self, value: float, *, extrapolate: bool = False) -> float:
        """Return the nearest canonical value inside the limits (see the head of the module).

        The ends of the range are canonical themselves.

        Args:
            value: number, perhaps outside.
            extrapolate: whether only `physical_limits` hold.

        Example:
            >>> Float(0.0, 1.0).canonical(0.1 + 0.2)
            0.3
        """
        low, high = self.physical_limits if extrapolate else self.limits
        value = min(max(value, low), high)
        for end in (self.low, self.high):
            if end is not None and is_rounding_of(value, end, self):
                return min(max(end, low), high)
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
            if not width > 0:
                return value
            decimals = 12 - _digits_before_point(width)
            if not self.low <= value <= self.high:
                decimals = min(decimals, 14 - _digits_before_point(max(abs(value), width)))
            return round(value, decimals) + 0.0
        assert self.center is not None and self.spread is not None
        # Far out, the rounding of an unbounded value grows with its size, and so must the lattice.
        size = max(abs(value), abs(self.center), self.spread)
        decimals = min(12 - _digits_before_point(self.spread), 14 - _digits_before_point(size))
        return round(value, decimals) + 0.0  # + 0.0 turns -0.0 into 0.0


@dataclass(frozen=True, slots=True)
class Int:
    """An integer parameter on the lattice 0, +-`multiple_of`, +-2 `multiple_of`, ...

    Args:
        low: lower bound, inclusive, a multiple of `multiple_of`, at most `LARGEST_INT` in size; may
            be missing as for `Float`.
        high: upper bound, likewise.
        log: whether to search in ln v; needs positive bounds.
        multiple_of: distance between neighboring values.
        center: first value to try.
        spread: one standard deviation of the first search, in v, or in ln v under `log`.
        hard: whether the bounds hold for every run; otherwise a recommendation at a size beyond the
            runs may lie outside of them, up to `physical_limits`.
        role: role of the parameter in the training run, for transfer rules.
        when: pair `("parent", [values])`; the parameter is active where the parent has one of them.

    Raises:
        SpaceError: for arguments that break these rules.

    Example:
        >>> layers = Int(1, 12)
        >>> batch = Int(8, 512, log=True, multiple_of=8)
        >>> batch.canonical(100)
        96
    """

    low: int | None = None
    high: int | None = None
    _: KW_ONLY
    log: bool = False
    multiple_of: int = 1
    center: int | None = None
    spread: float | None = None
    hard: bool = False
    role: Role = Role.OTHER
    when: When | None = None

    def __post_init__(self) -> None:
        check_flags(self, "log", "hard")
        object.__setattr__(self, "multiple_of", as_int(self.multiple_of, "`multiple_of` of Int"))
        if self.multiple_of < 1:
            raise SpaceError(
                f"`multiple_of` of Int must be >= 1, got {self.multiple_of}; drop it for every"
                " integer"
            )
        for argument in ("low", "high", "center"):
            value = getattr(self, argument)
            if value is None:
                continue
            value = as_int(value, f"`{argument}` of Int")
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
        check_order(self)
        check_center(self)
        check_role_and_when(self)

    @property
    def unit(self) -> Unit:
        """Unit of the search: LOG or LINEAR.

        Example:
            >>> Int(8, 512, log=True).unit, Int(1, 12).unit
            (<Unit.LOG: 'log'>, <Unit.LINEAR: 'linear'>)
        """
        return Unit.LOG if self.log else Unit.LINEAR

    @property
    def step(self) -> int:
        """Distance between neighboring values: `multiple_of`.

        Example:
            >>> Int(1, 12).step, Int(8, 512, multiple_of=8).step
            (1, 8)
        """
        return self.multiple_of

    @property
    def bounded(self) -> bool:
        """Whether both bounds are given.

        Example:
            >>> Int(1, 12).bounded, Int(low=0, center=4, spread=2.0).bounded
            (True, False)
        """
        return self.low is not None and self.high is not None

    @property
    def limits(self) -> tuple[int, int]:
        """Bounds in v, with the largest safe lattice value where the user gave none.

        Example:
            >>> Int(low=0, center=4, spread=2.0).limits
            (0, 1000000000000)
        """
        most = LARGEST_INT - LARGEST_INT % self.multiple_of
        least = self.multiple_of if self.log else -most
        return least if self.low is None else self.low, most if self.high is None else self.high

    @property
    def physical_limits(self) -> tuple[int, int]:
        """Bounds in v that no run may pass, whatever range is searched.

        They are the declared ones under `hard`. Otherwise a count from 1 on stays at least 1, and
        one from 0 on at least 0.

        Example:
            >>> Int(8, 64, multiple_of=8).physical_limits
            (8, 1000000000000)
            >>> Int(0, 4).physical_limits[0], Int(2, 4, hard=True).physical_limits
            (0, (2, 4))
        """
        low, high = self.limits
        if self.hard or low == high:
            return low, high
        most = LARGEST_INT - LARGEST_INT % self.multiple_of
        if self.low is None or self.low < 0:
            return self.multiple_of if self.log else -most, most
        return min(self.low, self.multiple_of), most

    def check(self, value: object, name: str = "Int", *, extrapolate: bool = False) -> int:
        """Return `value` as an int on the lattice, inside the limits.

        Args:
            value: value from a user's config.
            name: name of the parameter, for the message.
            extrapolate: whether only `physical_limits` hold.

        Raises:
            SpaceError: for any other value.

        Example:
            >>> Int(8, 64, multiple_of=8).check(17, "batch")
            Traceback (most recent call last):
            ...
            hpo.errors.SpaceError: `batch` must be a multiple of 8, got 17; use 16
        """
        limits = self.physical_limits if extrapolate else self.limits
        integer = check_range(as_int(value, f"`{name}`"), limits, name)
        if integer % self.multiple_of:
            raise SpaceError(
                f"`{name}` must be a multiple of {self.multiple_of}, got {integer}; use"
                f" {self.canonical(integer, extrapolate=extrapolate)}"
            )
        return integer

    def canonical(self, value: float, *, extrapolate: bool = False) -> int:
        """Return the nearest lattice value inside the limits.

        Args:
            value: number, perhaps outside.
            extrapolate: whether only `physical_limits` hold.

        Example:
            >>> Int(8, 64, multiple_of=8).canonical(100.0)
            64
        """
        low, high = self.physical_limits if extrapolate else self.limits
        return min(max(self.multiple_of * round(value / self.multiple_of), low), high)


@dataclass(frozen=True, slots=True)
class Categorical:
    """One of several choices: str, int, float, bool or None.

    Args:
        choices: possible values, all different.
        ordered: whether the choices are listed in order and neighbors behave alike (an ordinal).
        center: first choice to try.
        role: role of the parameter in the training run, for transfer rules.
        when: pair `("parent", [values])`; the parameter is active where the parent has one of them.

    Raises:
        SpaceError: for empty or equal choices, or choices that cannot be stored.

    Example:
        >>> optimizer = Categorical(["sgd", "adamw"])
        >>> heads = Categorical([1, 2, 4, 8], ordered=True)
        >>> momentum = Float(0.0, 0.99, when=("optimizer", ["sgd"]))
        >>> heads.choices
        (1, 2, 4, 8)
    """

    choices: Sequence[Choice]
    _: KW_ONLY
    ordered: bool = False
    center: Choice = None
    role: Role = Role.OTHER
    when: When | None = None

    def __post_init__(self) -> None:
        check_flags(self, "ordered")
        choices = tuple(
            as_choice(choice, "`choices` of Categorical") for choice in listed(self.choices)
        )
        object.__setattr__(self, "choices", choices)
        if not choices:
            raise SpaceError(
                "`choices` of Categorical must not be empty, got []; list at least one choice"
            )
        for position, choice in enumerate(choices):
            if choice in choices[:position]:
                equal = choices[choices.index(choice)]
                raise SpaceError(
                    f"`choices` of Categorical must differ, got {equal!r} and {choice!r}; drop one"
                    " of the two"
                    + ("" if type(equal) is type(choice) else " or name them by strings")
                )
        if self.center is not None:
            object.__setattr__(self, "center", self.check(self.center, "center` of `Categorical"))
        check_role_and_when(self)

    @property
    def unit(self) -> Unit:
        """Unit of the search: LINEAR, in the index of the choice.

        Example:
            >>> Categorical(["sgd", "adamw"]).unit
            <Unit.LINEAR: 'linear'>
        """
        return Unit.LINEAR

    @property
    def step(self) -> int:
        """Distance between neighboring choices: 1, in the index of the choice.

        Example:
            >>> Categorical([16, 64, 256], ordered=True).step
            1
        """
        return 1

    @property
    def limits(self) -> tuple[int, int]:
        """Indices of the first and the last choice.

        Example:
            >>> Categorical(["a", "b", "c"]).limits
            (0, 2)
        """
        return 0, len(self.choices) - 1

    def check(self, value: object, name: str = "Categorical") -> Choice:
        """Return `value` as the choice equal to it.

        Args:
            value: value from a user's config.
            name: name of the parameter, for the message.

        Raises:
            SpaceError: for any other value.

        Example:
            >>> Categorical(["sgd", "adamw"]).check("adamw", "optimizer")
            'adamw'
        """
        return self.choices[self.index(value, name)]

    def index(self, value: object, name: str = "Categorical") -> int:
        """Return the position of `value` among the choices.

        Args:
            value: value from a user's config.
            name: name of the parameter, for the message.

        Raises:
            SpaceError: for a value that is no choice.

        Example:
            >>> Categorical(["sgd", "adamw"]).index("adamw")
            1
        """
        value = plain(value)
        if value is None or isinstance(value, str | int | float | bool):
            for position, choice in enumerate(self.choices):
                # True == 1 in Python, but a flag is not a number here.
                if choice == value and isinstance(choice, bool) == isinstance(value, bool):
                    return position
        raise SpaceError(
            f"`{name}` must be one of {list(self.choices)!r}, got {shown(value)}; use one of these"
            " or add it"
        )

    def canonical(self, value: Choice) -> Choice:
        """Return the choice itself: choices need no rounding.

        Args:
            value: one of the choices.

        Example:
            >>> Categorical(["sgd", "adamw"]).canonical("sgd")
            'sgd'
        """
        return value


@dataclass(frozen=True, slots=True)
class Scale:
    """A size axis, searched on a log scale: parameters, tokens, width, depth, ...

    Values are floats. The target of the search may lie far beyond `high`.

    Args:
        low: smallest proxy that may be run, > 0.
        high: largest proxy that may be run.
        axis: what the axis measures, for transfer rules and the scaling law.

    Raises:
        SpaceError: for arguments that break these rules.

    Example:
        >>> params = Scale(1e6, 1e8, axis=Axis.PARAMS)
        >>> params.limits
        (1000000.0, 100000000.0)
    """

    low: float
    high: float
    _: KW_ONLY
    axis: Axis = Axis.OTHER

    def __post_init__(self) -> None:
        for argument in ("low", "high"):
            store_number(self, argument)
            value = getattr(self, argument)
            if value is None or not SMALLEST_POSITIVE <= value <= LARGEST_FLOAT:
                raise SpaceError(
                    f"`{argument}` of Scale must be a positive number, got {argument}={value!r}; "
                    "scale axes are searched in ln v, so start above 0"
                )
        check_order(self)
        store(self, SpaceError, axis=Kind(Axis, way_out="write axis=Axis.PARAMS or another member"))

    @property
    def unit(self) -> Unit:
        """Unit of the search: LOG.

        Example:
            >>> Scale(1e6, 1e8).unit
            <Unit.LOG: 'log'>
        """
        return Unit.LOG

    @property
    def step(self) -> None:
        """None, since every number inside the limits is legal.

        Example:
            >>> Scale(1e6, 1e8).step is None
            True
        """
        return None

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest proxy, `(low, high)`.

        Example:
            >>> Scale(64, 1024).limits
            (64.0, 1024.0)
        """
        return self.low, self.high

    @property
    def log_middle(self) -> float:
        """Natural logarithm of the geometric middle of the range.

        Example:
            >>> round(math.exp(Scale(1e6, 1e8).log_middle))
            10000000
        """
        return 0.5 * (math.log(self.low) + math.log(self.high))

    def check(self, value: object, name: str = "Scale", *, extrapolate: bool = False) -> float:
        """Return `value` as a float inside the range.

        Args:
            value: value from a user's config.
            name: name of the parameter, for the message.
            extrapolate: whether any positive float is legal.

        Raises:
            SpaceError: for any other value.

        Example:
            >>> Scale(1e6, 1e8).check(7e9, "params", extrapolate=True)
            7000000000.0
        """
        size = as_float(value, f"`{name}`")
        if size <= 0:
            raise SpaceError(f"`{name}` must be a positive size, got {shown(value)}; give e.g. 1e6")
        limits = (SMALLEST_POSITIVE, LARGEST_FLOAT) if extrapolate else self.limits
        return check_within(size, self, limits, name)

    def canonical(self, value: float) -> float:
        """Return the nearest canonical value; the ends of the range are canonical themselves.

        Args:
            value: positive number, perhaps beyond the range.

        Example:
            >>> Scale(1e6, 1e8).canonical(12345678.9012345678)
            12345678.9012
        """
        rounded = _significant(value)
        for end in self.limits:
            # Not by equal digits: exp(ln end) may round to the other side of a tie.
            if math.isclose(rounded, end, rel_tol=1e-10):
                return end
        return rounded


@dataclass(frozen=True, slots=True)
class Fidelity:
    """The resource level inside one resumable run: epochs, steps, folds.

    A space holds at most one fidelity.

    Args:
        low: lowest level, an integer >= 1.
        high: level of a complete run, an integer from `low` to `LARGEST_INT`.

    Raises:
        SpaceError: for arguments that break these rules.

    Example:
        >>> epochs = Fidelity(1, 81)
        >>> epochs.canonical(27.2)
        27
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        for argument in ("low", "high"):
            value = as_int(getattr(self, argument), f"`{argument}` of Fidelity")
            object.__setattr__(self, argument, value)
            if not 1 <= value <= LARGEST_INT:
                raise SpaceError(
                    f"`{argument}` of Fidelity must be an integer from 1 to {LARGEST_INT:.0e}, got"
                    f" {argument}={value}; count the resource in whole units from 1"
                )
        check_order(self)

    @property
    def unit(self) -> Unit:
        """Unit of the search: LOG.

        Example:
            >>> Fidelity(1, 81).unit
            <Unit.LOG: 'log'>
        """
        return Unit.LOG

    @property
    def step(self) -> int:
        """Distance between neighboring levels: 1, since levels are whole.

        Example:
            >>> Fidelity(1, 81).step
            1
        """
        return 1

    @property
    def limits(self) -> tuple[int, int]:
        """Lowest level and level of a complete run, `(low, high)`.

        Example:
            >>> Fidelity(1, 81).limits
            (1, 81)
        """
        return self.low, self.high

    def check(self, value: object, name: str = "Fidelity") -> int:
        """Return `value` as an int inside the range.

        Args:
            value: value from a user's config.
            name: name of the parameter, for the message.

        Raises:
            SpaceError: for any other value.

        Example:
            >>> Fidelity(1, 81).check(9.0, "epochs")
            9
        """
        return check_range(as_int(value, f"`{name}`"), self.limits, name)

    def canonical(self, value: float) -> int:
        """Return the nearest integer inside the range.

        Args:
            value: number, perhaps outside.

        Example:
            >>> Fidelity(1, 81).canonical(100)
            81
        """
        return min(max(round(value), self.low), self.high)


Parameter: TypeAlias = Float | Int | Categorical | Scale | Fidelity


def condition(parameter: Parameter) -> When | None:
    """Return the `when` of a parameter; scale axes and fidelities are always active.

    Args:
        parameter: parameter of any kind.

    Returns:
        Parent and values, or None for a parameter that is always active.

    Example:
        >>> condition(Float(0.0, 0.99, when=("optimizer", ["sgd"])))
        ('optimizer', ('sgd',))
    """
    return None if isinstance(parameter, Scale | Fidelity) else parameter.when


def _digits_before_point(size: float) -> int:
    """Digits before the decimal point of `size` > 0: 1 for 1 to 9.99, 0 for 0.1 to 0.99, ..."""
    return math.floor(math.log10(size)) + 1


def _significant(value: float) -> float:
    """Round `value` > 0 to 12 significant digits; 11 beyond 1e+-100, where ln v has fewer left."""
    return float(f"{value:.12g}") if 1e-100 < value < 1e100 else float(f"{value:.11g}")
