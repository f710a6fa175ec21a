"""Which column is what: as the user says, else by well-known names and by what the cells hold."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from typing import TypeVar

import numpy as np

from hpo.space import Axis, DirectionName, Parameter, Role, Scale, SearchSpace
from hpo.space.parameters import Categorical, Fidelity, condition
from hpo.trials.read_runs import names as known
from hpo.trials.read_runs.cells import (
    Numbers,
    decimal_mark,
    is_missing,
    read_numbers,
    whole_numbers,
)
from hpo.trials.read_runs.errors import RunFileError, option
from hpo.trials.read_runs.guesses import Guess, Use
from hpo.trials.read_runs.names import Namespace, namespace, spellings
from hpo.trials.read_runs.outcomes import RunState, state_of, states_of_flag
from hpo.trials.read_runs.tables import Table

__all__ = ["Choice", "Column", "ColumnScale", "Named", "choose", "columns_of"]

_GENERIC_SIZE = 100.0  # a column called `n` or `size` holds sizes if one is at least this
_LEAST_FLOPS = 1e12  # a column called `C` holds FLOPs if none is less
_FEW = 12  # different texts up to which an unknown column is a category
_RESULT_WORDS = frozenset(
    "loss acc accuracy error err ppl perplexity bpb metric score auc f1 grad norm throughput mfu"
    " memory mem speed time seconds runtime hours steps step epoch epochs iter samples examples"
    " date timestamp lr_last nan std var mean reward flops".split()
)
Member = TypeVar("Member", bound=Enum)


class ColumnScale(Enum):
    """How a column of settings is searched.

    Example:
        >>> [scale.value for scale in ColumnScale]
        ['log', 'linear', 'logit', 'choice']
    """

    LOG = "log"
    LINEAR = "linear"
    LOGIT = "logit"
    CHOICE = "choice"


@dataclass(frozen=True)
class Column:
    """One column with its cells, read as numbers when that is first asked for."""

    name: str
    cells: Sequence[object] = field(repr=False)
    decimal: str

    @cached_property
    def numbers(self) -> Numbers:
        """Cells as numbers."""
        return read_numbers(self.cells, decimal=self.decimal)

    @cached_property
    def durations(self) -> Numbers:
        """Cells as seconds."""
        return read_numbers(self.cells, decimal=self.decimal, duration=True)

    @cached_property
    def are_numbers(self) -> bool:
        """Whether every cell with a value is a number."""
        return self.numbers.are_numbers

    @property
    def mostly_numbers(self) -> bool:
        """Whether more than half of the cells with a value are numbers."""
        there = np.count_nonzero(~self.numbers.missing)
        return bool(there > 0) and 2 * int(np.count_nonzero(self.numbers.text)) < int(there)

    @property
    def has_numbers(self) -> bool:
        """Whether a cell is a number."""
        return bool(np.any(~self.numbers.missing & ~self.numbers.text))

    @cached_property
    def texts(self) -> list[str | None]:
        """Cells as texts; None where one is missing."""
        return [None if is_missing(cell) else str(cell).strip() for cell in self.cells]

    @cached_property
    def distinct(self) -> list[str]:
        """Different texts, in the order of their first appearance."""
        return [text for text in dict.fromkeys(self.texts) if text is not None]

    @cached_property
    def varies(self) -> bool:
        """Whether there are at least two different values."""
        if self.are_numbers:
            there = self.numbers.values[~np.isnan(self.numbers.values)]
            return len(there) > 0 and bool(there.min() < there.max())
        return len(self.distinct) > 1

    @cached_property
    def are_whole(self) -> bool:
        """Whether all are whole numbers, written as such."""
        return self.are_numbers and whole_numbers(self.cells, self.numbers)

    @property
    def in_short(self) -> str:
        """Values in a few letters."""
        if self.mostly_numbers:
            there = self.numbers.values[np.isfinite(self.numbers.values)]
            if not len(there):
                return ""
            low, high = there.min(), there.max()
            span = f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"
            others = dict.fromkeys(
                str(cell) for cell, text in zip(self.cells, self.numbers.text, strict=True) if text
            )
            return ", ".join([span, *[*others][:2]])
        if len(self.distinct) > 4:
            return f"{', '.join(self.distinct[:3])}, ... ({len(self.distinct)} different)"
        return ", ".join(self.distinct)


def columns_of(table: Table) -> dict[str, Column]:
    """Return the columns of a table, with the decimal mark of each."""
    marks = {name: decimal_mark(cells) for name, cells in table.columns.items()}
    columns = {name: Column(name, c, marks[name] or ".") for name, c in table.columns.items()}
    comma = any(mark == "," and columns[name].are_numbers for name, mark in marks.items())
    if not comma and table.delimiter in (";", "\t", "|"):
        pointed = re.compile(r"\s*[+-]?\d*\.\d+([eE][+-]?\d+)?\s*")
        comma = None in marks.values() and not any(
            isinstance(cell, str) and pointed.fullmatch(cell)
            for cells in table.columns.values()
            for cell in cells
        )
    if not comma:
        return columns
    return {
        name: Column(name, cells, decimal_mark(cells, ",") or ".")
        for name, cells in table.columns.items()
    }


@dataclass(frozen=True, slots=True)
class Named:
    """What the user says about columns."""

    params: Sequence[str] = ()
    scales: Sequence[str] = ()
    loss: str | None = None
    cost: str | None = None
    seconds: str | None = None
    status: str | None = None
    fidelity: str | None = None
    ignore: Sequence[str] = ()
    space: SearchSpace | None = None
    direction: DirectionName | None = None


@dataclass(slots=True)
class Choice:
    """What each column is.

    Attributes:
        loss: Column of the loss.
        direction: Direction of the loss.
        cost: Column of the cost; None without one.
        cost_unit: Unit of the cost; None without one.
        seconds: Column of the wall-clock time; None without one.
        states: State of each run; empty without a column of them.
        sizes: Quantity of each size column.
        settings: Scale (None: to be found from the values) and role of each tuned column.
        fidelity: Column of the fidelity; None without one.
        of_space: Column of each parameter of the space given; None without a space.
        guesses: Guess of each column that has been decided.
    """

    loss: str = ""
    direction: DirectionName = "minimize"
    cost: str | None = None
    cost_unit: str | None = None
    seconds: str | None = None
    states: list[RunState | None] = field(default_factory=list)
    sizes: dict[str, Axis] = field(default_factory=dict)
    settings: dict[str, tuple[ColumnScale | None, Role]] = field(default_factory=dict)
    fidelity: str | None = None
    of_space: dict[str, str] | None = None
    guesses: dict[str, Guess] = field(default_factory=dict)

    def take(self, column: Column, use: Use, kind: str, reason: str) -> None:
        """Record the use of a column; what the user named twice is refused."""
        before = self.guesses.get(column.name)
        if before is not None and before.use is not Use.LEFT_OUT:
            raise RunFileError(f"`{column.name}` is named for two purposes; keep one")
        self.guesses[column.name] = Guess(column.name, use, kind, column.in_short, reason)

    def leave(self, column: Column, reason: str) -> None:
        """Record why a column is left out."""
        values = column.in_short
        self.guesses[column.name] = Guess(column.name, Use.LEFT_OUT, "", values, reason)


class _Chooser:
    """Decides what each column of one table is."""

    def __init__(self, table: Table, columns: Mapping[str, Column], named: Named) -> None:
        self.table, self.columns, self.named = table, columns, named
        self.found = Choice()

    def choose(self) -> Choice:
        """Return the decision on every column."""
        self._ignored()
        named_cost = self._named_cost()
        self._loss()
        if named_cost is not None:
            self._take_cost(named_cost, "named by you")
        if self.named.status is not None:
            self._states([self._column(self.named.status, "status")], "named by you")
        if self.named.seconds is not None:
            column = self._column(self.named.seconds, "seconds")
            self._take_seconds(column, "named by you")
        if self.named.space is not None:
            self._of_space(self.named.space)
        else:
            self._named_settings()
            self._guessed_cost(named_cost)
            self._guessed_states()
            self._guessed_seconds()
            self._sizes_and_settings()
        self._guessed_states()
        self._guessed_seconds()
        self._guessed_cost(named_cost)
        for name, column in self.columns.items():
            if name not in self.found.guesses:
                self.found.leave(column, self._why_not(column))
        return self.found

    # --- what is told of runs -----------------------------------------------------------------

    def _ignored(self) -> None:
        for name in self.named.ignore:
            self.found.leave(self._column(name, "ignore"), "ignored by you")
        first = next(iter(self.columns.values()))
        if first.name.startswith("Unnamed: ") and first.are_whole:
            self.found.leave(first, "row numbers")
        for name, column in self.columns.items():
            base, _, number = name.rpartition(".")
            if number.isdigit() and base in self.columns and name not in self._said():
                same = column.texts == self.columns[base].texts
                why = "the same values as" if same else "a second column called"
                more = "" if same else f", with other values; name it `{name}` to use it"
                self.found.leave(column, f"{why} `{base}`{more}")

    def _said(self) -> set[str]:
        """Return the names that the user has given."""
        named = self.named
        said = [named.loss, named.cost, named.seconds, named.status, named.fidelity]
        said += [text.split(":")[0] for text in (*named.params, *named.scales)]
        return {name for name in said if name} | {*named.params, *named.scales}

    def _loss(self) -> None:
        name, reason = self.named.loss, "named by you"
        if name is not None:
            name = self._column(name, "loss").name
        elif self.table.loss is not None:
            name, reason = self.table.loss, "objective of the study"
        else:
            name, reason = self._guessed_loss()
        larger = known.place_of_result(name, known.BETTER_LARGER) is not None
        direction: DirectionName = "maximize" if larger else "minimize"
        self.found.direction = self.named.direction or self.table.direction or direction
        self.found.loss = name
        kind = f"{self.found.direction}d"
        self.found.take(self.columns[name], Use.LOSS, kind, reason)

    def _guessed_loss(self) -> tuple[str, str]:
        found: list[tuple[float, str]] = []
        for offset, listed in ((0.0, known.LOSSES), (1000.0, known.BETTER_LARGER)):
            for name in self._free():
                place = known.place_of_result(name, listed)
                if place is not None and self.columns[name].has_numbers:
                    found.append((offset + place, name))
        found.sort(key=lambda pair: pair[0])
        if found:
            name = found[0][1]
            others = [other for _, other in found[1:] if known.namespace(other) is not None]
            reason = "well-known name of a result"
            if others:
                reason = f"best known name among {', '.join([name, *others][:4])}"
            return name, reason
        last = [
            name
            for name in self._free()
            if spellings(name)[0].endswith("loss")
            and namespace(name) is not Namespace.SETTING
            and self.columns[name].has_numbers
        ]
        if len(last) == 1:
            return last[0], "the only name that ends with loss"
        raise RunFileError(
            f"{self.table.name} needs a column with the loss, got {[*self.columns]}; name it with"
            f" {option('loss', 'COLUMN')}"
        )

    def _states(self, columns: Sequence[Column], reason: str) -> None:
        for column in columns:
            flag = self._flag(column)
            states = (
                [state_of(cell) for cell in column.cells]
                if flag is None
                else states_of_flag(column.cells, flag)
            )
            before = self.found.states or [None] * len(states)
            vague = (None, RunState.COMPLETED, RunState.ERROR)  # another column may say more
            self.found.states = [
                new if new is not None and old in vague else old
                for old, new in zip(before, states, strict=True)
            ]
            self.found.take(column, Use.STATUS, "", reason)

    def _flag(self, column: Column) -> RunState | None:
        for value, spelled in known.FLAGS.items():
            if spellings(column.name)[-1] in spelled:
                return RunState(value)
        return None

    def _guessed_states(self) -> None:
        chosen = []
        for name in self._free():
            column = self.columns[name]
            if namespace(name) is Namespace.SETTING or not column.distinct:
                continue
            states = [state_of(text) for text in column.distinct[:50]]
            is_state = spellings(name)[-1] in known.STATES and self.named.status is None
            if is_state and any(state is not None for state in states):
                chosen.append(column)
            flags = (RunState.COMPLETED, RunState.ERROR)
            if self._flag(column) is not None and all(state in flags for state in states):
                if all(
                    text.lower() in ("true", "false", "0", "1", "yes", "no", "0.0", "1.0")
                    for text in column.distinct
                ):
                    chosen.append(column)
        self._states(chosen, "well-known name, and states of runs")

    def _take_seconds(self, column: Column, reason: str) -> None:
        self._check_numbers(column, column.durations, "seconds")
        self.found.take(column, Use.SECONDS, "wall-clock time", reason)
        self.found.seconds = column.name

    def _guessed_seconds(self) -> None:
        if self.found.seconds is not None or self.found.cost_unit == "seconds":
            return
        for column in self._known_results(known.SECONDS_NAMES):
            if column.durations.are_numbers:
                self._take_seconds(column, "well-known name; the cost if you say cost='seconds'")
                return

    def _named_cost(self) -> str | None:
        """Return the column that the user named as the cost; None for none or a guess."""
        cost = self.named.cost
        if cost is None or cost in self.columns or cost not in ("seconds", "none"):
            return None if cost is None else self._column(cost, "cost").name
        if cost == "none":
            return None
        for column in self._known_results(known.SECONDS_NAMES):
            if column.durations.are_numbers:
                return column.name
        raise RunFileError(
            f"{self.table.name} needs a column with the time of each run for cost='seconds', got"
            f" {[*self.columns]}; name it with {option('cost', 'COLUMN')}"
        )

    def _take_cost(self, name: str, reason: str) -> None:
        column = self.columns[name]
        unit = name if namespace(name) is Namespace.NONE else spellings(name)[-1]
        if known.place_of_result(name, known.SECONDS_NAMES) is not None:
            unit = "seconds"
        elif spellings(name)[-1] == "c":
            unit = "flops"
        self.found.take(column, Use.COST, "" if unit == name else unit, reason)
        self.found.cost, self.found.cost_unit = name, unit

    def _guessed_cost(self, named: str | None) -> None:
        if self.found.cost is not None or named is not None or self.named.cost == "none":
            return
        for column in self._known_results(known.COSTS):
            least = column.numbers.values[np.isfinite(column.numbers.values)]
            if not column.mostly_numbers or (
                spellings(column.name)[-1] == "c" and (not len(least) or least.min() < _LEAST_FLOPS)
            ):
                continue
            self._take_cost(column.name, "well-known name of a cost")
            return

    def _known_results(self, listed: Sequence[str]) -> list[Column]:
        """Return free columns of results called as in the list, in its order."""
        found = []
        for name in self._free():
            place = known.place_of_result(name, listed)
            if place is None and spellings(name)[-1] in listed:
                place = len(listed) + listed.index(spellings(name)[-1])
            if place is not None and namespace(name) is not Namespace.SETTING:
                found.append((place, name))
        return [self.columns[name] for _, name in sorted(found, key=lambda pair: pair[0])]

    # --- sizes and settings -------------------------------------------------------------------

    def _named_settings(self) -> None:
        named = self.named
        if named.fidelity is not None:
            column = self._column(named.fidelity, "fidelity")
            self._check_numbers(column, column.numbers, "fidelity")
            self.found.take(column, Use.FIDELITY, "", "named by you")
            self.found.fidelity = column.name
        self._named_scales()
        self._named_params()

    def _sizes_and_settings(self) -> None:
        if not self.named.scales:
            self._guessed_scales()
        if not self.named.params:
            self._guessed_settings()

    def _named_scales(self) -> None:
        for text in self.named.scales:
            name, options = self._specification(text, "scales", 1)
            if name in self.found.sizes:
                raise _twice("scale", name, text)
            meaning = known.known_as(name, known.AXES)
            guess = Axis.OTHER if meaning is None else meaning[0]
            axis = _member(Axis, options[0], text, "scale") if options else guess
            self._take_size(self.columns[name], axis, "named by you")

    def _named_params(self) -> None:
        for text in self.named.params:
            name, options = self._specification(text, "params", 2)
            if name in self.found.settings:
                raise _twice("param", name, text)
            meaning = known.known_as(name, known.SETTINGS)
            role = Role.OTHER if meaning is None else meaning[0]
            scale = _member(ColumnScale, options[0], text, "param") if options else None
            if len(options) > 1:
                role = _member(Role, options[1], text, "param")
            if scale is None and name not in self.table.declared:
                column = self.columns[name]
                scale = None if column.mostly_numbers else ColumnScale.CHOICE
            self._take_setting(self.columns[name], scale, role, "named by you")

    def _take_size(self, column: Column, axis: Axis, reason: str) -> None:
        self._check_numbers(column, column.numbers, "scales")
        self.found.take(column, Use.SCALE, axis.value, reason)
        self.found.sizes[column.name] = axis

    def _take_setting(
        self, column: Column, scale: ColumnScale | None, role: Role, reason: str
    ) -> None:
        self.found.take(column, Use.TUNED, "", reason)
        self.found.settings[column.name] = (scale, role)

    def _guessed_scales(self) -> None:
        best: dict[Axis, tuple[tuple[int, int, int], str]] = {}
        for order, name in enumerate(self._free()):
            meaning = known.known_as(name, known.AXES)
            if meaning is None or known.known_as(name, {0: known.NOT_TUNED}) is not None:
                continue
            axis, place = meaning
            declared = name in self.table.declared or name.startswith("params_")
            if declared and axis not in (Axis.PARAMS, Axis.TOKENS):
                continue  # a shape that was tuned
            if not self._looks_like_sizes(self.columns[name]):
                continue
            rank = (_RANKS[namespace(name)], place, order)
            if axis not in best or rank < best[axis][0]:
                best[axis] = rank, name
        if Axis.PARAMS in best:  # width and depth repeat the same
            for axis in (Axis.WIDTH, Axis.DEPTH):
                if axis in best:
                    name = best.pop(axis)[1]
                    measure = best[Axis.PARAMS][1]
                    self.found.leave(
                        self.columns[name], f"`{measure}` measures the size of the model already"
                    )
        for name in self._free():
            for axis in best:
                if best[axis][1] == name:
                    self._take_size(self.columns[name], axis, f"well-known name of {_SIZES[axis]}")

    def _looks_like_sizes(self, column: Column) -> bool:
        spelled = {*spellings(column.name)} & {*known.GENERIC}
        if not spelled:
            return column.mostly_numbers
        values = column.numbers.values[np.isfinite(column.numbers.values)]
        if not column.mostly_numbers or not len(values) or values.min() <= 0:
            return False
        return bool(values.max() >= _GENERIC_SIZE) or "depth" in spelled

    def _guessed_settings(self) -> None:
        apart = any(namespace(name) is Namespace.SETTING for name in self._free())
        candidates: dict[str, tuple[Role, int]] = {}
        for name in self._free():
            meaning = known.known_as(name, known.SETTINGS)
            if name in self.table.declared:
                candidates[name] = (Role.OTHER, 0) if meaning is None else meaning
            elif meaning is not None and namespace(name) not in (Namespace.RESULT, Namespace.META):
                candidates[name] = meaning
        taken: dict[Role, str] = {}
        order = {name: j for j, name in enumerate(candidates)}
        ranked = sorted(
            candidates, key=lambda n: (_RANKS[namespace(n)], candidates[n][1], order[n])
        )
        for name in ranked:
            role, _ = candidates[name]
            column = self.columns[name]
            if not column.varies and name not in self.table.declared:
                self.found.leave(column, "one value only")
                continue
            if (same := self._repeats(column)) is not None:
                self.found.leave(column, f"the same values as `{same}`")
                continue
            if apart and role in taken and namespace(name) is not Namespace.SETTING:
                self.found.leave(column, f"`{taken[role]}` is the setting")
                continue
            if role is not Role.OTHER and role in taken:
                role = Role.OTHER
            taken.setdefault(role, name)
            scale = None if column.mostly_numbers else ColumnScale.CHOICE
            if name in self.table.declared:
                reason = "parameter of the study"
            elif role is Role.OTHER:
                reason = "well-known name of a setting"
            else:
                reason = f"well-known name of {_ROLES[role]}"
            self._take_setting(column, scale, role, reason)
        if apart or not self.found.settings:
            self._unknown_settings(apart)
        order = {name: j for j, name in enumerate(self.columns)}
        kept = sorted(self.found.settings, key=lambda name: order[name])
        self.found.settings = {name: self.found.settings[name] for name in kept}

    def _unknown_settings(self, apart: bool) -> None:
        """Take columns of unknown names among the settings, or where there is no other setting."""
        wanted = Namespace.SETTING if apart else Namespace.NONE
        for name in self._free():
            column = self.columns[name]
            if namespace(name) is not wanted or self._is_not_tuned(column):
                continue
            words = {*spellings(name)[0].split("_")}
            if not apart and (words & _RESULT_WORDS or self._is_result(name)):
                continue
            if not column.varies:
                self.found.leave(column, "one value only")
            elif not column.mostly_numbers and (
                len(column.distinct) > _FEW or len(column.distinct) == len(column.cells)
            ):
                self.found.leave(column, "texts, nearly one a run")
            elif self._follows_size(column):
                self.found.leave(column, "it follows the size of the run")
            elif (same := self._repeats(column)) is not None:
                self.found.leave(column, f"the same values as `{same}`")
            else:
                scale = None if column.mostly_numbers else ColumnScale.CHOICE
                reason = "it varies among the settings" if apart else "it varies, and may be tuned"
                self._take_setting(column, scale, Role.OTHER, reason)

    def _is_result(self, name: str) -> bool:
        lists = (known.LOSSES, known.BETTER_LARGER, known.COSTS, known.SECONDS_NAMES)
        return any(known.place_of_result(name, listed) is not None for listed in lists) or (
            spellings(name)[-1] in known.STATES
        )

    def _is_not_tuned(self, column: Column) -> bool:
        leaf = spellings(column.name)[-1]
        return leaf in known.NOT_TUNED or column.name.startswith("Unnamed: ") or not column.distinct

    def _follows_size(self, column: Column) -> bool:
        """Return whether a column has one value at each size of the runs."""
        if not self.found.sizes or not any(self.columns[n].varies for n in self.found.sizes):
            return False
        at: dict[tuple[float, ...], str | None] = {}
        sizes = np.stack([self.columns[n].numbers.values for n in self.found.sizes], axis=1)
        for size, text in zip(map(tuple, sizes.tolist()), column.texts, strict=True):
            if at.setdefault(size, text) != text:
                return False
        return len(at) < len(column.cells)

    def _repeats(self, column: Column) -> str | None:
        """Return a column taken before that has the same values."""
        for name in self.found.settings:
            other = self.columns[name]
            if other.are_numbers and column.are_numbers:
                if np.array_equal(other.numbers.values, column.numbers.values, equal_nan=True):
                    return name
            elif other.texts == column.texts:
                return name
        return None

    def _of_space(self, space: SearchSpace) -> None:
        if self.named.params or self.named.scales or self.named.fidelity:
            raise RunFileError(
                "space= says what is tuned and what is a size, got params=, scales= or fidelity="
                " beside it; leave those out"
            )
        self.found.of_space = {}
        for name, parameter in space.items():
            column = self._column_of(name, parameter)
            if column is None:
                continue
            use = Use.TUNED
            if isinstance(parameter, Scale):
                use = Use.SCALE
            elif isinstance(parameter, Fidelity):
                use = Use.FIDELITY
            reason = "named in the space" if column.name == name else f"`{name}` of the space"
            self.found.take(column, use, "", reason)
            self.found.of_space[name] = column.name

    def _column_of(self, name: str, parameter: Parameter) -> Column | None:
        """Return the column of a parameter; None where the space itself says its value."""
        if name in self.columns:
            return self.columns[name]
        wanted = spellings(name)[0]
        found = [n for n in self._free() if wanted in spellings(n)]
        found.sort(key=lambda n: (_RANKS[namespace(n)], len(spellings(n))))
        if not found:
            found = [n for n in self._free() if self._has_meaning(n, parameter)]
            found = found if len(found) == 1 else []
        if found:
            return self.columns[found[0]]
        one = isinstance(parameter, Fidelity) or condition(parameter) is not None
        if isinstance(parameter, Categorical):
            one = one or len(parameter.choices) == 1
        elif parameter.low is not None and parameter.low == parameter.high:
            one = True
        if not one:
            raise RunFileError(
                f"{self.table.name} needs a column for `{name}` of the space, got"
                f" {[*self.columns]}; rename the column, or take `{name}` out of the space"
            )
        return None

    def _has_meaning(self, column: str, parameter: Parameter) -> bool:
        if isinstance(parameter, Scale):
            meaning = known.known_as(column, known.AXES)
            return meaning is not None and meaning[0] is parameter.axis
        if isinstance(parameter, Fidelity) or parameter.role is Role.OTHER:
            return False
        setting = known.known_as(column, known.SETTINGS)
        return setting is not None and setting[0] is parameter.role

    # --- words ---------------------------------------------------------------------------------

    def _why_not(self, column: Column) -> str:
        leaf = spellings(column.name)[-1]
        if not column.distinct:
            return "it is empty"
        if leaf in known.STEPS:
            return "steps; name it as the fidelity if runs of other lengths are to be compared"
        if "seed" in leaf:
            return "seeds; runs of the same settings are replicates"
        if leaf in known.NOT_TUNED:
            return "it tells which run it is, not how it was set"
        if self.named.space is not None:
            return "it is not in the space"
        if self._is_result(column.name):
            return "another result"
        if not column.varies:
            return "one value only"
        if self.named.params and known.known_as(column.name, known.SETTINGS) is not None:
            return "you named the tuned columns"
        return f"no well-known name; to tune it say {option('params', column.name)}"

    def _free(self) -> list[str]:
        return [name for name in self.columns if name not in self.found.guesses]

    def _column(self, name: str, said: str) -> Column:
        if name not in self.columns:
            wanted = spellings(name)[0]
            ending = [column for column in self.columns if wanted in spellings(column)]
            if len(ending) == 1 and wanted:  # "lr" for config.optimizer.lr
                return self.columns[ending[0]]
            shown = {"params": "param", "scales": "scale"}.get(said, said)
            raise RunFileError(
                f"--{shown} must name a column of {self.table.name}, got {name!r}; it has"
                f" {[*self.columns]}"
            )
        return self.columns[name]

    def _specification(self, text: str, said: str, most: int) -> tuple[str, list[str]]:
        """Split `name:option:option`; a column name may hold colons itself."""
        name, *options = [text] if text in self.columns else text.split(":")
        name = self._column(name, said).name
        if len(options) > most:
            form = "name:kind:role" if most == 2 else "name:axis"
            raise RunFileError(f"--{said[:-1]} must look like {form}, got {text!r}; drop the rest")
        return name, options

    def _check_numbers(self, column: Column, numbers: Numbers, said: str) -> None:
        """Refuse a column without a number where numbers are needed."""
        if not np.any(~numbers.text & ~numbers.missing):
            found = column.distinct[:1] or ["empty cells"]
            raise RunFileError(
                f"{self.table.name}: `{column.name}` must hold numbers, got {found[0]!r}; name"
                f" another column with {option(said, 'COLUMN')}"
            )


_RANKS = {Namespace.SETTING: 0, Namespace.NONE: 1, Namespace.RESULT: 2, Namespace.META: 3}
_SIZES = {
    Axis.PARAMS: "a number of parameters",
    Axis.TOKENS: "a number of tokens",
    Axis.WIDTH: "a width",
    Axis.DEPTH: "a depth",
}
_ROLES = {
    Role.LR: "a learning rate",
    Role.BATCH: "a batch size",
    Role.WEIGHT_DECAY: "a weight decay",
    Role.BETA1: "beta 1",
    Role.BETA2: "beta 2",
    Role.EPSILON: "epsilon",
    Role.WARMUP: "a warmup",
    Role.DROPOUT: "dropout",
    Role.INIT: "the scale of the initialization",
    Role.OTHER: "a setting",
}


def choose(table: Table, columns: Mapping[str, Column], named: Named) -> Choice:
    """Return what each column is.

    Args:
        table: Table of at least one row.
        columns: Its columns.
        named: What the user says.

    Raises:
        RunFileError: If there is no loss, or what the user says does not fit the table.
    """
    return _Chooser(table, columns, named).choose()


def _member(members: type[Member], value: str, text: str, said: str) -> Member:
    try:
        return members(value.strip().lower())
    except ValueError:
        allowed = [member.value for member in members]
        raise RunFileError(
            f"--{said} {text}: {value!r} must be one of {allowed}; pick one"
        ) from None


def _twice(said: str, name: str, text: str) -> RunFileError:
    return RunFileError(
        f"`--{said}` must name each column once, got `{name}` again in {text!r}; leave one out"
    )


def names_in(columns: Collection[str] | Iterable[str]) -> str:
    """Return names as one text, for a message."""
    return ", ".join(f"`{name}`" for name in columns)
