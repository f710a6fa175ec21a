"""Rules that arguments keep, with one message for each: argument, rule, value, way out.

A rule is a frozen value that is called with what the user gave and the argument's name. It returns
the value as it is to be stored, NumPy scalars and arrays of one element as Python numbers, or
raises. :func:`store` applies rules to the fields of a frozen dataclass while it is made.

====================  ============================================================
:class:`Number`       a finite real number within bounds; a Python int stays one
:class:`Count`        a whole number within bounds
:class:`Flag`         True or False
:class:`Text`         a text, not empty
:class:`Kind`         an instance of one of some classes
:class:`Member`       a member of an enum, or its value
:class:`OneOf`        one of some names
:class:`File`         the path of a file
:class:`Interface`    an object with some methods
:class:`Function`     anything that can be called
:class:`Table`        a mapping whose keys are texts
:class:`Row`          a list or tuple, each item of which keeps a rule
====================  ============================================================
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from enum import Enum
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np

from hpo.space.scalars import real, scalar, shown, whole

__all__ = [
    "BROKEN",
    "Count",
    "File",
    "Flag",
    "Function",
    "Interface",
    "Kind",
    "Member",
    "Number",
    "OneOf",
    "Row",
    "Rule",
    "Table",
    "Text",
    "store",
]

#: What a rule's `read` returns for a value that breaks it.
BROKEN = object()

_LARGEST_FLOAT_INT = 2**1023


@dataclass(frozen=True, slots=True)
class Rule(ABC):
    """What one argument must be.

    Args:
        optional: whether None is allowed, and means that the argument is left out.
        way_out: what to do instead, for the message.
    """

    _: KW_ONLY
    optional: bool = False
    way_out: str = ""

    @property
    @abstractmethod
    def text(self) -> str:
        """What the value must be, to follow "must be"."""

    @abstractmethod
    def read(self, value: Any) -> Any:
        """Return the value to store, or `BROKEN`."""

    def __call__(self, value: Any, name: str, error: type[Exception] = ValueError) -> Any:
        """Return the value as it is to be stored.

        Args:
            value: what the user gave.
            name: the argument as the message calls it.
            error: class of what is raised.

        Raises:
            ValueError: for a value that breaks the rule, or `error` in its place.

        Example:
            >>> Number(above=0)(np.float32(0.5), "`sd`")
            0.5
            >>> Number(above=0, way_out="0.2 is usual")("0.2", "`sd` of MuP")
            Traceback (most recent call last):
            ...
            ValueError: `sd` of MuP must be a finite number above 0, got '0.2'; 0.2 is usual
        """
        if value is None and self.optional:
            return None
        try:
            read = self.read(value)
        except (TypeError, ValueError, RuntimeError):  # an array or a tensor where none belongs
            read = BROKEN
        if read is BROKEN:
            rule = f"{self.text} or None" if self.optional else self.text
            way_out = f"; {self.way_out}" if self.way_out else ""
            raise error(f"{name} must be {rule}, got {shown(value)}{way_out}")
        return read


@dataclass(frozen=True, slots=True)
class Number(Rule):
    """A finite real number within bounds.

    Args:
        least: smallest value.
        above: bound below all values.
        most: largest value.
        below: bound above all values.
        infinite: whether an infinity within the bounds is allowed.

    Example:
        >>> Number(least=0, below=1).text, Number(above=0, infinite=True).text
        ('a finite number of at least 0 and below 1', 'a number above 0')
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    infinite: bool = False

    @property
    def text(self) -> str:
        """What the value must be."""
        bounds = _bounds(self.least, self.above, self.most, self.below)
        return f"a{'' if self.infinite else ' finite'} number{bounds}"

    def read(self, value: Any) -> Any:
        """Return the number, a Python int as one and anything else as a float."""
        number = value if type(value) is float else real(value)
        if number is None or not (
            math.isfinite(number) or (self.infinite and not math.isnan(number))
        ):
            return BROKEN
        if (
            (self.least is not None and number < self.least)
            or (self.above is not None and number <= self.above)
            or (self.most is not None and number > self.most)
            or (self.below is not None and number >= self.below)
        ):
            return BROKEN
        return value if type(value) is int and abs(value) < _LARGEST_FLOAT_INT else number


@dataclass(frozen=True, slots=True)
class Count(Rule):
    """A whole number within bounds.

    Args:
        least: smallest value, None for no bound.
        most: largest value, None for no bound.

    Example:
        >>> Count(1)(np.int64(3), "`workers`"), Count(1)(4.0, "`workers`")
        (3, 4)
    """

    least: int | None = 0
    most: int | None = None

    @property
    def text(self) -> str:
        """What the value must be."""
        return f"an int{_bounds(self.least, None, self.most, None)}"

    def read(self, value: Any) -> Any:
        """Return the number as an int."""
        number = value if type(value) is int else whole(value)
        if (
            number is None
            or (self.least is not None and number < self.least)
            or (self.most is not None and number > self.most)
        ):
            return BROKEN
        return number


@dataclass(frozen=True, slots=True)
class Flag(Rule):
    """True or False."""

    @property
    def text(self) -> str:
        """What the value must be."""
        return "True or False"

    def read(self, value: Any) -> Any:
        """Return the value as a bool."""
        value = scalar(value)
        return bool(value) if isinstance(value, bool | np.bool_) else BROKEN


@dataclass(frozen=True, slots=True)
class Text(Rule):
    """A text.

    Args:
        empty: whether it may be empty.
    """

    empty: bool = False

    @property
    def text(self) -> str:
        """What the value must be."""
        return "a str" if self.empty else "a str that is not empty"

    def read(self, value: Any) -> Any:
        """Return the text."""
        return str(value) if isinstance(value, str) and (self.empty or value) else BROKEN


@dataclass(frozen=True, slots=True)
class Kind(Rule):
    """An instance of a class, or of one of several.

    Args:
        classes: class, or tuple of them.

    Example:
        >>> from hpo.space import Axis
        >>> Kind(Axis)("params", "`axis`")
        Traceback (most recent call last):
        ...
        ValueError: `axis` must be an Axis, got 'params'
    """

    classes: type | tuple[type, ...]

    @property
    def text(self) -> str:
        """What the value must be."""
        classes = self.classes if isinstance(self.classes, tuple) else (self.classes,)
        names = [kind.__name__ for kind in classes]
        article = "an" if names[0][0] in "AEIOUaeiou" else "a"
        return f"{article} {' or '.join(names)}"

    def read(self, value: Any) -> Any:
        """Return the object."""
        return value if isinstance(value, self.classes) else BROKEN


@dataclass(frozen=True, slots=True)
class Member(Rule):
    """A member of an enum, or the value of one, which is returned as the member.

    Args:
        enum: the enum.

    Example:
        >>> from hpo.space import Axis
        >>> Member(Axis)("params", "`axis`")
        <Axis.PARAMS: 'params'>
    """

    enum: type[Enum]

    @property
    def text(self) -> str:
        """What the value must be."""
        return f"one of {[member.value for member in self.enum]}"

    def read(self, value: Any) -> Any:
        """Return the member."""
        if isinstance(value, self.enum):
            return value
        hashable = value is None or isinstance(value, str | int | float)
        found = [member for member in self.enum if hashable and member.value == value]
        return found[0] if found and type(found[0].value) is type(value) else BROKEN


@dataclass(frozen=True, slots=True)
class OneOf(Rule):
    """One of some names.

    Args:
        names: the names.
    """

    names: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the value must be."""
        return f"one of {list(self.names)}"

    def read(self, value: Any) -> Any:
        """Return the name."""
        return value if isinstance(value, str) and value in self.names else BROKEN


@dataclass(frozen=True, slots=True)
class File(Rule):
    """A path of a file, as a text or a `Path`."""

    @property
    def text(self) -> str:
        """What the value must be."""
        return "the path of a file, a str or Path"

    def read(self, value: Any) -> Any:
        """Return the path."""
        if not isinstance(value, str | PathLike) or "\0" in str(value):
            return BROKEN
        return Path(value) if Path(value).name else BROKEN


@dataclass(frozen=True, slots=True)
class Function(Rule):
    """Anything that can be called.

    Args:
        call: how it will be called, for the message.
    """

    call: str

    @property
    def text(self) -> str:
        """What the value must be."""
        return f"callable as {self.call}"

    def read(self, value: Any) -> Any:
        """Return the function."""
        return value if callable(value) else BROKEN


@dataclass(frozen=True, slots=True)
class Interface(Rule):
    """An object, not a class, that has some methods.

    Args:
        name: what such an object is, for the message.
        methods: names of its methods.
    """

    name: str
    methods: tuple[str, ...]

    @property
    def text(self) -> str:
        """What the value must be."""
        return f"{self.name} with {', '.join(f'{method}()' for method in self.methods)}"

    def read(self, value: Any) -> Any:
        """Return the object."""
        if isinstance(value, type):
            return BROKEN
        has_all = all(callable(getattr(value, method, None)) for method in self.methods)
        return value if has_all else BROKEN


@dataclass(frozen=True, slots=True)
class Table(Rule):
    """A mapping whose keys are texts; it is returned as a dict.

    Args:
        of: rule of every value, None for any.
        keys: names that it must hold.

    Example:
        >>> Table(Number(above=0))({"params": np.float32(4.0)}, "`at`")
        {'params': 4.0}
    """

    of: Rule | None = None
    keys: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """What the value must be."""
        values = "values" if self.of is None else f"values, each {self.of.text}"
        keys = f" with {', '.join(self.keys)}" if self.keys else ""
        return f"a dict of names and {values}{keys}"

    def read(self, value: Any) -> Any:
        """Return the mapping as a dict."""
        if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
            return BROKEN
        if any(key not in value for key in self.keys):
            return BROKEN
        if self.of is None:
            return dict(value)
        read = {key: self._item(item) for key, item in value.items()}
        return BROKEN if any(item is BROKEN for item in read.values()) else read

    def _item(self, item: Any) -> Any:
        assert self.of is not None
        return None if item is None and self.of.optional else self.of.read(item)


@dataclass(frozen=True, slots=True)
class Row(Rule):
    """A list or tuple, each item of which keeps a rule; it is returned as a tuple.

    A text, a set or a generator is none: its items have no meaning, no order, or are gone after one
    reading.

    Args:
        of: rule of every item.
        length: number of items, None for any.
        empty: whether there may be no item.

    Example:
        >>> Row(Count(1))([1, np.int64(3)], "`levels`")
        (1, 3)
        >>> Row(Text())("ab", "`mutate`")
        Traceback (most recent call last):
        ...
        ValueError: `mutate` must be a list or tuple, each item a str that is not empty, got 'ab'
    """

    of: Rule
    length: int | None = None
    empty: bool = True

    @property
    def text(self) -> str:
        """What the value must be."""
        length = "" if self.length is None else f" of {self.length}"
        length += "" if self.empty else " that is not empty"
        return f"a list or tuple{length}, each item {self.of.text}"

    def read(self, value: Any) -> Any:
        """Return the items as a tuple."""
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, list | tuple | range):
            return BROKEN
        if self.length is not None and len(value) != self.length:
            return BROKEN
        if not (self.empty or len(value)):
            return BROKEN
        read = tuple(self.of.read(item) for item in value)
        return BROKEN if any(item is BROKEN for item in read) else read


def store(instance: object, error: type[Exception] = ValueError, /, **rules: Rule) -> None:
    """Check the named fields of a frozen dataclass in its making, and store what the rules return.

    Args:
        instance: the object.
        error: class of what is raised.
        **rules: rule of each field by its name.

    Raises:
        ValueError: for a field that breaks its rule, or `error` in its place.
    """
    kind = type(instance).__name__
    for name, rule in rules.items():
        value = getattr(instance, name)
        read = rule(value, f"`{name}` of {kind}", error)
        if read is not value:
            object.__setattr__(instance, name, read)


def _bounds(
    least: float | None, above: float | None, most: float | None, below: float | None
) -> str:
    lower = f"of at least {least:g}" if least is not None else ""
    lower = f"above {above:g}" if above is not None else lower
    upper = f"at most {most:g}" if most is not None else ""
    upper = f"below {below:g}" if below is not None else upper
    bounds = " and ".join(bound for bound in (lower, upper) if bound)
    return f" {bounds}" if bounds else ""
