"""Runs made elsewhere, read from a CSV file: one row a run, with settings, sizes and a loss.

Columns are what the caller says they are, or what their names are well known for (``lr``,
``batch_size``, ``N``, ``tokens``, ``loss``, ..). Every guess is a note that the caller can show:
nothing is assumed in silence.

A row whose loss is ``nan`` or ``inf`` is a run that diverged; one with an empty cell where a number
is needed is left out and counted. Anything else that is not a number is an error with its line.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from hpo.models.fitted import Models
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.surrogate_selector import SurrogateChoice, SurrogateSelector
from hpo.optimizer.result import Result
from hpo.space import Axis, Categorical, Float, Parameter, Role, Scale, SearchSpace
from hpo.space.encoding import Direction, Encoder
from hpo.trials import Cause, Observation, Status, TrialLog

__all__ = ["Kind", "Sweep", "SweepError", "read_sweep"]

_LOSSES = (
    "loss",
    "val_loss",
    "valid_loss",
    "validation_loss",
    "eval_loss",
    "test_loss",
    "final_loss",
    "train_loss",
)
_COSTS = ("cost", "flops", "compute", "seconds", "runtime", "time")
_PARAMETERS = {
    Role.LR: ("lr", "learning_rate", "max_lr", "peak_lr", "base_lr", "eta"),
    Role.BATCH: ("batch", "batch_size", "bs", "bsz", "global_batch_size"),
    Role.WEIGHT_DECAY: ("wd", "weight_decay", "decay"),
    Role.BETA1: ("beta1", "beta_1", "adam_beta1"),
    Role.BETA2: ("beta2", "beta_2", "adam_beta2"),
    Role.EPSILON: ("eps", "epsilon", "adam_eps", "adam_epsilon"),
    Role.WARMUP: ("warmup", "warmup_steps", "warmup_tokens", "warmup_ratio"),
    Role.DROPOUT: ("dropout",),
    Role.INIT: ("init", "init_std", "init_scale", "initializer_range"),
}
_AXES = {
    Axis.PARAMS: ("params", "n", "n_params", "num_params", "parameters", "model_size", "size"),
    Axis.TOKENS: ("tokens", "d", "n_tokens", "num_tokens", "train_tokens", "data"),
    Axis.WIDTH: ("width", "hidden", "hidden_size", "d_model", "n_embd", "dim"),
    Axis.DEPTH: ("depth", "layers", "n_layers", "num_layers", "n_layer"),
}
_LINEAR = (Role.DROPOUT,)
_LOGIT = (Role.BETA1, Role.BETA2)
_WIDE = 10.0  # ratio of largest to smallest from which an unknown positive column is read as log
_MOST_CHOICES = 50
_LARGEST, _SMALLEST = 1e100, 1e-100  # no setting or size lies beyond; pictures would overflow

Member = TypeVar("Member", bound=Enum)


class SweepError(ValueError):
    """A file or an option that cannot be read, with the way out."""


class Kind(Enum):
    """How a column of settings is searched."""

    LOG = "log"
    LINEAR = "linear"
    LOGIT = "logit"
    CHOICE = "choice"


@dataclass(frozen=True, slots=True)
class Sweep:
    """What was read: a result as of a finished study, and what had to be assumed on the way."""

    result: Result
    notes: tuple[str, ...]


def read_sweep(
    path: str | Path,
    *,
    params: Sequence[str] = (),
    scales: Sequence[str] = (),
    loss: str | None = None,
    cost: str | None = None,
    direction: Direction = "minimize",
) -> Sweep:
    """Read a CSV file of finished runs.

    Args:
        path: of the file, with a header line; commas, semicolons or tabs.
        params: tuned columns as "name", "name:kind" or "name:kind:role", such as "lr:log:lr"; none
            are those of well-known names.
        scales: size columns as "name" or "name:axis", such as "N:params"; none as above.
        loss, cost: names of columns; None looks for a well-known name (a cost is optional).
        direction: of the loss.

    Raises:
        SweepError: for a file or an option that cannot be read; one line, with the way out.
        SpaceError: for values that no parameter can take.
        OSError: if the file cannot be opened.
    """
    table = _Table.read(Path(path))
    notes: list[str] = []
    loss_column = table.one_of(loss, _LOSSES, "loss")
    if loss_column is None:
        raise SweepError(
            f"{table.name} needs a column with the loss, got {table.header}; name it with"
            " --loss COLUMN"
        )
    cost_column = table.one_of(cost, _COSTS, "cost")
    taken = [loss_column] if cost_column is None else [loss_column, cost_column]
    sizes = _scale_columns(table, scales, taken)
    settings = _setting_columns(table, params, [*taken, *sizes])
    _check_distinct([*taken, *sizes, *settings])
    numeric = [*sizes, *(n for n, (kind, _) in settings.items() if kind is not Kind.CHOICE)]
    rows = table.complete(numeric, [n for n in settings if n not in numeric], loss_column)
    if left_out := len(table.rows) - len(rows):
        notes.append(f"left out {left_out} of {len(table.rows)} rows with empty cells")
    if not rows:
        raise SweepError(f"{table.name} needs at least one complete row, got none; fill its cells")
    values: dict[str, list[Any]] = {name: list(table.numbers(name, rows)) for name in numeric}
    values |= {n: table.texts(n, rows) for n in settings if n not in numeric}

    space: dict[str, Parameter] = {}
    for name, (kind, role) in settings.items():
        parameter, kind = _parameter(table, name, kind, role, values[name])
        if parameter is None:
            notes.append(f"{name} has one value only and is not judged")
            continue
        space[name] = parameter
        said = "" if role is Role.OTHER else f", role {role.value}"
        notes.append(f"tuned: {name} ({kind.value}{said})")
    for name, axis in sizes.items():
        low, high = min(values[name]), max(values[name])
        if low < _SMALLEST:
            raise SweepError(
                f"`{name}` must hold positive sizes, got {low:g} to {high:g}; drop"
                " those rows, or leave it out of --scale"
            )
        space[name] = Scale(low, high, axis=axis)
        notes.append(f"scale: {name} ({axis.value})")
    used = [*taken, *sizes, *settings]
    if cost_column is not None:
        notes.append(f"cost: {cost_column}")
    notes.append(f"loss: {loss_column}")
    if ignored := [name for name in table.header if name not in used]:
        notes.append(f"ignored: {', '.join(ignored)}")
    if not any(not isinstance(p, Scale) for p in space.values()):
        raise SweepError(
            f"{table.name} needs a tuned column with more than one value, got {table.header};"
            " name one, such as --param lr:log:lr"
        )
    if not sizes:
        raise SweepError(
            f"{table.name} needs a column with the size of the runs, got {table.header}; name it,"
            " such as --scale params"
        )
    search = SearchSpace(space)
    configs = [{name: values[name][i] for name in space} for i in range(len(rows))]
    losses = table.losses(loss_column, rows)
    costs = table.costs(cost_column, rows)
    return Sweep(_result(search, configs, losses, costs, cost_column, direction), tuple(notes))


def _result(
    space: SearchSpace,
    configs: Sequence[dict[str, Any]],
    losses: Sequence[float],
    costs: Sequence[float | None],
    cost_unit: str | None,
    direction: Direction,
) -> Result:
    """The runs as a finished study; a loss that is not finite is a run that diverged."""
    log = TrialLog()
    for i, (config, loss, cost) in enumerate(zip(configs, losses, costs, strict=True)):
        finite = math.isfinite(loss)
        log.tell(
            Observation(
                number=i,
                config=space.canonical(config),
                loss=loss if finite else None,
                cost=cost,
                status=Status.COMPLETED if finite else Status.FAILED,
                cause=None if finite else Cause.DIVERGED,
                order=i,
                ask_index=None,
            )
        )
    models = Models(Encoder(space, direction))
    models.sync(log)
    warp = InputWarp(models, SurrogateSelector(models, SurrogateChoice.GP))
    return Result(log, warp, None, cost_unit)


# --- the file ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    """Header and cells as texts; ``lines`` are line numbers of the rows."""

    name: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    @classmethod
    def read(cls, path: Path) -> _Table:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise SweepError(
                f"{path.name} must be UTF-8 text, got a byte that is not at position"
                f" {error.start}; save it as CSV (UTF-8)"
            ) from None
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        lines_in = io.StringIO(text, newline="")
        reader = csv.reader(lines_in, delimiter=delimiter, skipinitialspace=True)
        header: list[str] = []
        rows, lines = [], []
        try:
            for cells in reader:
                cells = [cell.strip() for cell in cells]
                if not any(cells):
                    continue
                if not header:
                    header = cells
                    continue
                if len(cells) != len(header):
                    raise SweepError(
                        f"{path.name}, line {reader.line_num}: got {len(cells)} cells where the"
                        f" header has {len(header)}; fix that line"
                    )
                rows.append(cells)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise SweepError(
                f"{path.name}, line {reader.line_num}: cannot be read as CSV ({error}); fix that"
                " line"
            ) from None
        if not header:
            raise SweepError(f"{path.name} is empty; it needs a header line and one row a run")
        counts = Counter(header)
        if bad := [name for name in header if not name or counts[name] > 1]:
            raise SweepError(
                f"{path.name}: columns need names of their own, got {bad[0]!r} more than once or"
                " empty; rename them"
            )
        return cls(path.name, header, rows, lines)

    def one_of(self, named: str | None, known: Sequence[str], option: str) -> str | None:
        """The column named, else the first well-known one, else None."""
        if named is not None:
            self.require(named, option)
            return named
        by_name = {_plain(name): name for name in reversed(self.header)}
        return next((by_name[name] for name in known if name in by_name), None)

    def require(self, name: str, option: str) -> None:
        if name not in self.header:
            raise SweepError(
                f"--{option} must name a column of {self.name}, got {name!r}; it has {self.header}"
            )

    def complete(self, numeric: Sequence[str], other: Sequence[str], loss: str) -> list[int]:
        """Rows in which none of these cells is empty."""
        places = [self.header.index(name) for name in (*numeric, *other, loss)]
        return [i for i, row in enumerate(self.rows) if all(row[j] for j in places)]

    def texts(self, name: str, rows: Sequence[int]) -> list[str]:
        j = self.header.index(name)
        return [self.rows[i][j] for i in rows]

    def numbers(self, name: str, rows: Sequence[int]) -> list[float]:
        """Finite numbers; SweepError with the line otherwise."""
        values = []
        for i, text in zip(rows, self.texts(name, rows), strict=True):
            value = self._number(i, name, text)
            if not abs(value) < _LARGEST:
                raise SweepError(
                    f"{self.name}, line {self.lines[i]}: `{name}` must be a finite number, got"
                    f" {text!r}; drop that line"
                )
            values.append(value)
        return values

    def losses(self, name: str, rows: Sequence[int]) -> list[float]:
        """Numbers; ``nan`` and ``inf`` are allowed."""
        texts = self.texts(name, rows)
        return [self._number(i, name, text) for i, text in zip(rows, texts, strict=True)]

    def costs(self, name: str | None, rows: Sequence[int]) -> list[float | None]:
        """Numbers >= 0; None where the cell is empty or nan, or without such a column."""
        if name is None:
            return [None] * len(rows)
        costs: list[float | None] = []
        for i, text in zip(rows, self.texts(name, rows), strict=True):
            value = self._number(i, name, text) if text else math.nan
            if value < 0 or math.isinf(value):
                raise SweepError(
                    f"{self.name}, line {self.lines[i]}: `{name}` must be finite and >= 0, got"
                    f" {text!r}; leave the cell empty if it is not known"
                )
            costs.append(None if math.isnan(value) else value)
        return costs

    def _number(self, row: int, name: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise SweepError(
                f"{self.name}, line {self.lines[row]}: `{name}` must be a number, got"
                f" {text[:40]!r}; fix the cell, or say --param {name}:choice if it is a category"
            ) from None


# --- what the columns are ------------------------------------------------------------------------


def _scale_columns(table: _Table, named: Sequence[str], taken: Sequence[str]) -> dict[str, Axis]:
    """Size columns with what they measure; those of well-known names if none is named."""
    known = {name: axis for axis, names in _AXES.items() for name in names}
    if named:
        found = {}
        for text in named:
            name, options = _specification(table, text, "scale", 1)
            guess = known.get(_plain(name), Axis.OTHER)
            found[name] = _member(Axis, options[0], text, "scale") if options else guess
        return found
    found = {}
    for name in table.header:
        if name not in taken and _plain(name) in known:
            axis = known[_plain(name)]
            if axis not in found.values():
                found[name] = axis
    if Axis.PARAMS in found.values():  # width and depth say the same once more
        found = {n: axis for n, axis in found.items() if axis in (Axis.PARAMS, Axis.TOKENS)}
    return found


def _setting_columns(
    table: _Table, named: Sequence[str], taken: Sequence[str]
) -> dict[str, tuple[Kind | None, Role]]:
    """Tuned columns with kind (None: to be guessed from the values) and role."""
    known = {name: role for role, names in _PARAMETERS.items() for name in names}
    if not named:
        return {
            name: (None, known[_plain(name)])
            for name in table.header
            if name not in taken and _plain(name) in known
        }
    found: dict[str, tuple[Kind | None, Role]] = {}
    for text in named:
        name, options = _specification(table, text, "param", 2)
        kind = _member(Kind, options[0], text, "param") if options else None
        role = known.get(_plain(name), Role.OTHER)
        if len(options) > 1:
            role = _member(Role, options[1], text, "param")
        found[name] = (kind, role)
    return found


def _parameter(
    table: _Table, name: str, kind: Kind | None, role: Role, values: Sequence[Any]
) -> tuple[Parameter | None, Kind]:
    """The parameter of a column, None if it has one value only, and its kind."""
    if kind is Kind.CHOICE:
        choices = tuple(dict.fromkeys(values))
        if len(choices) > _MOST_CHOICES:
            raise SweepError(
                f"`{name}` must have at most {_MOST_CHOICES} different values as a choice, got"
                f" {len(choices)}; say --param {name}:log or {name}:linear"
            )
        return (Categorical(choices, role=role) if len(choices) > 1 else None), kind
    low, high = min(values), max(values)
    if kind is None:
        kind = _likely_kind(role, low, high)
    if low == high:
        return None, kind
    allowed = {Kind.LOG: low > _SMALLEST, Kind.LOGIT: 0 < low and high < 1, Kind.LINEAR: True}[kind]
    if not allowed:
        inside = "positive" if kind is Kind.LOG else "inside (0, 1)"
        raise SweepError(
            f"`{name}` must be {inside} to be read as {kind.value}, got {low:g} to {high:g} in"
            f" {table.name}; say --param {name}:linear, or drop those rows"
        )
    return Float(low, high, log=kind is Kind.LOG, logit=kind is Kind.LOGIT, role=role), kind


def _likely_kind(role: Role, low: float, high: float) -> Kind:
    if role in _LOGIT and 0 < low and high < 1:
        return Kind.LOGIT
    if low < _SMALLEST or role in _LINEAR or role in _LOGIT:
        return Kind.LINEAR
    return Kind.LOG if role is not Role.OTHER or high / low >= _WIDE else Kind.LINEAR


def _specification(table: _Table, text: str, option: str, most: int) -> tuple[str, list[str]]:
    """``name:option:option``; a column name may hold colons itself."""
    name, *options = [text] if text in table.header else text.split(":")
    table.require(name, option)
    if len(options) > most:
        form = "name:kind:role" if most == 2 else "name:axis"
        raise SweepError(f"--{option} must look like {form}, got {text!r}; drop the rest")
    return name, options


def _member(kind: type[Member], value: str, text: str, option: str) -> Member:
    try:
        return kind(value.strip().lower())
    except ValueError:
        allowed = [member.value for member in kind]
        raise SweepError(
            f"--{option} {text}: {value!r} must be one of {allowed}; pick one"
        ) from None


def _check_distinct(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise SweepError(f"`{name}` is named for two purposes; keep one")


def _plain(name: str) -> str:
    """`name` as well-known names are written: "Learning Rate" is learning_rate."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
