"""Cells of a table as numbers: units, decimal commas, thousands, durations, and what is missing.

Every cell is one of four things::

    a number     3e-4   125M   1.4T   0,0003   1,000,000   1.000.000   12.5%   2^-7   1:23:45
    said NaN     nan    -nan   1.#QNAN                      a number that is none
    missing      ""     NA     null   -    #N/A             nobody wrote a value
    text         adamw  big                                 anything else

Whether a comma is decimal is decided for a column, and where the column alone does not tell
("3,392"), by the other columns of the table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from hpo.space.scalars import real, scalar
from surrogates.data import Array

__all__ = ["Numbers", "decimal_mark", "is_missing", "read_number", "read_numbers"]

_MISSING = frozenset(
    {
        "", "na", "n/a", "#n/a", "<na>", "n.a.", "null", "none", "nil", "nat", "missing", "unknown",
        "undefined", "-", "--", "---", "\u2013", "\u2014", ".", "?", "#value!", "#ref!", "#div/0!",
    }
)  # fmt: skip
_NAN = frozenset(
    {"nan", "+nan", "-nan", "nan(ind)", "-nan(ind)", "1.#qnan", "-1.#qnan", "1.#ind", "-1.#ind"}
)
_INFINITE = {"1.#inf": math.inf, "-1.#inf": -math.inf, "\u221e": math.inf, "-\u221e": -math.inf}
_FACTORS = {
    "k": 1e3, "thousand": 1e3, "tsd": 1e3,
    "m": 1e6, "mm": 1e6, "mn": 1e6, "mio": 1e6, "million": 1e6, "millions": 1e6,
    "b": 1e9, "bn": 1e9, "g": 1e9, "mrd": 1e9, "billion": 1e9, "billions": 1e9,
    "t": 1e12, "tn": 1e12, "trillion": 1e12, "trillions": 1e12,
    "p": 1e15,
}  # fmt: skip
_WORDS = r"(?:param(?:eter)?s?|tok(?:en)?s?|flops?|steps?|epochs?|gpu-?\s?h(?:ours)?|gpu-?hours?)"
_FLOPS = {"": 1.0, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "p": 1e15, "e": 1e18, "z": 1e21}
_SECONDS = {
    "ms": 1e-3, "msec": 1e-3,
    "s": 1.0, "sec": 1.0, "secs": 1.0, "second": 1.0, "seconds": 1.0,
    "m": 60.0, "min": 60.0, "mins": 60.0, "minute": 60.0, "minutes": 60.0,
    "h": 3600.0, "hr": 3600.0, "hrs": 3600.0, "hour": 3600.0, "hours": 3600.0,
    "d": 86400.0, "day": 86400.0, "days": 86400.0,
    "w": 604800.0, "week": 604800.0, "weeks": 604800.0,
}  # fmt: skip

_SPACES = "\u00a0\u202f\u2009"
_CORE = re.compile(r"[+-]?(?:\d[\d.,' _\u2019]*|[.,]\d+)")
_COMMA_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(?:,\d{3})+\.?\d*")
_DOT_GROUPS = re.compile(r"[+-]?[1-9]\d{0,2}(?:\.\d{3})+(?:,\d*)?")
_GROUPED = re.compile(r"([+-]?\d{1,3})((?:[ '\u2019_]\d{3})+)(?![\d ])")
_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)\s*(.*)", re.DOTALL)
_POWER = re.compile(r"([+-]?\d+(?:\.\d+)?)\s*(?:\^|\*\*)\s*([+-]?\d{1,4})")
_TIMES_TEN = re.compile(r"([+-]?[\d.]+)\s*[x\u00d7*\u00b7]\s*10\s*(?:\^|\*\*)?\s*([+-]?\d{1,4})")
_WRAPPED = re.compile(r"(?:tensor|array|np\.\w+|numpy\.\w+|\w+float\w*)\(\s*\[?([^,\])]+).*\)")
_CLOCK = re.compile(
    r"(?:(\d+)\s*(?:-|d|days?),?\s*)?(?:(\d+):)?(\d{1,4}):(\d{1,2}(?:[.,]\d+)?)", re.IGNORECASE
)
_PARTS = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\.?,?\s*", re.IGNORECASE)
_LARGER_THAN = re.compile(r"(?:>=?|\u2265)\s*(.+)")


@dataclass(frozen=True, slots=True)
class Numbers:
    """Cells of one column as numbers.

    Attributes:
        values: Numbers, perhaps infinite, `(n,)`; NaN where a cell is none.
        missing: Cells without a value, `(n,)`.
        text: Cells that are neither a number nor missing, `(n,)`.
    """

    values: Array
    missing: NDArray[np.bool_]
    text: NDArray[np.bool_]

    @property
    def are_numbers(self) -> bool:
        """Whether every cell that is not missing is a number, and one is."""
        return not self.text.any() and not self.missing.all()


def is_missing(cell: object) -> bool:
    """Return whether nobody wrote a value.

    Example:
        >>> [is_missing(cell) for cell in ("", " NA ", None, 0, "nan", float("nan"))]
        [True, True, True, False, False, False]
    """
    return cell is None or (isinstance(cell, str) and cell.strip().lower() in _MISSING)


def read_numbers(cells: Sequence[object], *, decimal: str = ".", duration: bool = False) -> Numbers:
    """Read the cells of one column.

    Args:
        cells: Texts, numbers, durations or None.
        decimal: Decimal mark of the column.
        duration: Whether numbers are seconds, so that "1d 2h" and "5m" are durations.

    Example:
        >>> read = read_numbers(["125M", "1.4T", "", "big", "nan"])
        >>> read.values.tolist(), read.missing.tolist(), read.text.tolist()[3]
        ([125000000.0, 1400000000000.0, nan, nan, nan], [False, False, True, False, False], True)
    """
    if (plain := _plain_floats(cells)) is not None and (decimal == "." or plain[1]):
        nothing = np.zeros(len(cells), dtype=bool)
        return Numbers(plain[0], nothing, nothing)
    values = np.full(len(cells), np.nan)
    missing, text = np.zeros(len(cells), dtype=bool), np.zeros(len(cells), dtype=bool)
    known: dict[str, float | None] = {}
    for i, cell in enumerate(cells):
        if is_missing(cell):
            missing[i] = True
            continue
        if isinstance(cell, str):
            if cell not in known:
                known[cell] = read_number(cell, decimal=decimal, duration=duration)
            number = known[cell]
        elif isinstance(cell, timedelta):
            number = cell.total_seconds()
        else:
            number = real(cell)
        if number is None:
            text[i] = True
        else:
            values[i] = number
    return Numbers(values, missing, text)


def decimal_mark(cells: Iterable[object], other: str | None = None) -> str | None:
    """Return the decimal mark of a column, or None where its cells do not tell.

    Args:
        cells: Cells of the column; only texts count.
        other: Mark to assume where they do not tell.

    Example:
        >>> decimal_mark(["0,0003", "0,001"]), decimal_mark(["1,000,000"]), decimal_mark(["3,392"])
        (',', '.', None)
        >>> decimal_mark(["1.000.000", "350.000"]), decimal_mark(["1.000"], other=",")
        (',', ',')
    """
    cores = []
    for cell in cells:
        if isinstance(cell, str) and ("," in cell or cell.count(".") > 1 or other == ","):
            found = _CORE.match(cell.strip())
            if found is not None:
                cores.append(found[0].rstrip())
    commas = [core for core in cores if "," in core]
    for core in commas:
        if "." in core:
            return "," if core.rfind(",") > core.rfind(".") else "."
        if core.count(",") > 1:
            return "."
    if any(not _COMMA_GROUPS.fullmatch(core) for core in commas):
        return ","
    if commas:
        return other
    if any(core.count(".") > 1 for core in cores):
        return ","
    dots = [core for core in cores if "." in core]
    if dots and all(_DOT_GROUPS.fullmatch(core) for core in dots):
        return other
    return "."


def read_number(text: str, *, decimal: str = ".", duration: bool = False) -> float | None:
    """Return the number that a text stands for, NaN and infinities included; None if it is none.

    Args:
        text: Text of a cell that is not missing.
        decimal: Decimal mark.
        duration: Whether it may be a duration, which is returned in seconds.

    Example:
        >>> [read_number(text) for text in ("7B", "12.5%", "1,000,000", "1 000", "2^-7", "3x10^8")]
        [7000000000.0, 0.125, 1000000.0, 1000.0, 0.0078125, 300000000.0]
        >>> read_number("1.000.000,5", decimal=","), read_number("adamw"), read_number("-NaN")
        (1000000.5, None, nan)
        >>> [read_number(text, duration=True) for text in ("1:23:45", "1d 2h", "90 min")]
        [5025.0, 93600.0, 5400.0]
    """
    text = text.strip().replace("\u2212", "-").strip("$\u20ac\u00a3 ")
    if "_" not in text and (decimal == "." or "." not in text):
        try:
            return float(text)
        except ValueError:
            pass
    low = text.lower()
    if low in _NAN:
        return math.nan
    if low in _INFINITE:
        return _INFINITE[low]
    for space in _SPACES:
        text = text.replace(space, " ")
    if duration and (seconds := _duration(text)) is not None:
        return seconds
    if text.endswith("%"):
        share = read_number(text[:-1], decimal=decimal)
        return None if share is None else share / 100.0
    return _with_unit(_point_decimal(text, decimal))


def at_least(text: str, decimal: str = ".") -> bool:
    """Return whether a text says that a number is above a bound, such as ">10".

    Example:
        >>> at_least(">10"), at_least("10"), at_least("> x")
        (True, False, False)
    """
    found = _LARGER_THAN.fullmatch(text.strip())
    return found is not None and read_number(found[1], decimal=decimal) is not None


def whole_numbers(cells: Sequence[object], numbers: Numbers) -> bool:
    """Return whether every number is whole and was written as such.

    Example:
        >>> [whole_numbers(cells, read_numbers(cells)) for cells in (["8", "16"], ["1.0"], [2, 4])]
        [True, False, True]
    """
    there = numbers.values[np.isfinite(numbers.values)]
    if not len(there) or np.any(there != np.round(there)):
        return False
    return not any(
        isinstance(cell, float) or (isinstance(cell, str) and re.search(r"[.,eE]\d", cell))
        for cell in map(scalar, cells)
    )


def _plain_floats(cells: Sequence[object]) -> tuple[Array, bool] | None:
    """Return cells that are plain numbers all, and whether none has a point; the quick way."""
    first = cells[0] if len(cells) else None
    if isinstance(first, bool) or not isinstance(first, str | int | float):
        return None
    kind = type(first)
    if any(type(cell) is not kind for cell in cells):
        return None
    if kind is str and any("_" in cell for cell in cells):  # type: ignore[operator]
        return None
    try:
        values = np.array(list(map(float, cells)))  # type: ignore[arg-type]
    except (ValueError, OverflowError):
        return None
    return values, kind is not str or not any("." in cell for cell in cells)  # type: ignore[operator]


def _point_decimal(text: str, decimal: str) -> str:
    """Return a text with a decimal point and without separators of thousands."""
    text = _GROUPED.sub(lambda found: found[1] + re.sub(r"\D", "", found[2]), text, count=1)
    core = _CORE.match(text)
    if core is None:
        return text
    number, rest = core[0], text[core.end() :]
    if decimal == ",":
        if "." in number and not _DOT_GROUPS.fullmatch(number.rstrip()):
            return text if "," not in number else "x"  # a decimal point after all, or nonsense
        return number.replace(".", "").replace(",", ".") + rest
    if "," in number:
        return number.replace(",", "") + rest if _COMMA_GROUPS.fullmatch(number.rstrip()) else "x"
    return text


def _with_unit(text: str) -> float | None:
    """Return a number with a decimal point, perhaps with a unit behind it."""
    if (found := _POWER.fullmatch(text)) is not None:
        return _power(float(found[1]), int(found[2]))
    if (found := _TIMES_TEN.fullmatch(text)) is not None:
        base = read_number(found[1])
        return None if base is None else base * _power(10.0, int(found[2]))
    if (found := _WRAPPED.fullmatch(text)) is not None:
        return read_number(found[1])
    found = _NUMBER.fullmatch(text)
    if found is None:
        return None
    factor = _factor(found[2].strip().lower())
    return None if factor is None else float(found[1]) * factor


def _factor(unit: str) -> float | None:
    if not unit:
        return 1.0
    if unit in _FACTORS:
        return _FACTORS[unit]
    if (found := re.fullmatch(r"([kmgtpez]?)\s?flops?", unit)) is not None:
        return _FLOPS[found[1]]
    found = re.fullmatch(rf"([a-z]*?)\s*{_WORDS}", unit)
    if found is None:
        return None
    return _FACTORS.get(found[1]) if found[1] else 1.0


def _power(base: float, exponent: int) -> float:
    try:
        return float(base**exponent)
    except (OverflowError, ZeroDivisionError):
        return math.inf


def _duration(text: str) -> float | None:
    if (clock := _CLOCK.fullmatch(text)) is not None:
        days, hours, minutes = (float(part or 0) for part in clock.groups()[:3])
        seconds = float(clock[4].replace(",", "."))
        return 86400.0 * days + 3600.0 * hours + 60.0 * minutes + seconds
    total, place = 0.0, 0
    text = text.lower()
    while place < len(text):
        part = _PARTS.match(text, place)
        if part is None or part[2] not in _SECONDS:
            return None
        total += float(part[1]) * _SECONDS[part[2]]
        place = part.end()
    return total if place else None
