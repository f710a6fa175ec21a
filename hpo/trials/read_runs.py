"""Read runs made elsewhere from a CSV file: one row per run, with settings, sizes and a loss.

Columns are what the caller says they are, or what their names are well known for (`lr`,
`batch_size`, `N`, `tokens`, `loss`, ..). Every guess is a note that the caller can show: nothing is
assumed silently.

A row whose loss is `nan` or `inf` is a run that diverged. A row with an empty cell where a number
is needed is left out and counted. Anything else that is not a number is an error with its line.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

from hpo.space import Axis, Categorical, DirectionName, Float, Parameter, Role, Scale, SearchSpace
from hpo.trials.records import Cause, Observation, Status

__all__ = ["ColumnScale", "EarlierRuns", "RunFileError", "read_runs"]

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
_WIDE = 10.0  # ratio of largest to smallest from which an unknown positive column is log
_MOST_CHOICES = 50
_LARGEST, _SMALLEST = 1e100, 1e-100  # no setting or size lies beyond; pictures would overflow

Member = TypeVar("Member", bound=Enum)


class RunFileError(ValueError):
    r"""A file or an option that cannot be read; the message is one line with the way out.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "runs.csv")
        ...     _ = path.write_text("lr,params,loss\n1e-3,big,2.5\n")
        ...     try:
        ...         read_runs(path)
        ...     except RunFileError as error:
        ...         print(str(error).split(";")[0])
        runs.csv, line 2: `params` must be a number, got 'big'
    """


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


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    r"""Runs that were read, as an optimizer of the same space can record them.

    Attributes:
        space: Space of the columns, each from its least to its largest value.
        observations: One per complete row, in the order of the file; their numbers count from 0.
        direction: Direction of the loss.
        cost_unit: Name of the column of the cost; None without one.
        notes: Sentences on what was assumed.

    Example:
        >>> import tempfile
        >>> from hpo import Optimizer
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "runs.csv")
        ...     _ = path.write_text("lr,params,loss\n1e-3,1e6,2.5\n1e-2,1e6,2.1\n1e-2,1e7,1.7\n")
        ...     runs = read_runs(path)
        >>> optimizer = Optimizer(runs.space, direction=runs.direction, cost=runs.cost_unit)
        >>> for observation in runs.observations:
        ...     optimizer.record(observation)
        >>> optimizer.result().best.loss
        1.7
    """

    space: SearchSpace
    observations: tuple[Observation, ...]
    direction: DirectionName
    cost_unit: str | None
    notes: tuple[str, ...]


def read_runs(
    path: str | Path,
    *,
    params: Sequence[str] = (),
    scales: Sequence[str] = (),
    loss: str | None = None,
    cost: str | None = None,
    direction: DirectionName = "minimize",
) -> EarlierRuns:
    r"""Read a CSV file of finished runs.

    Args:
        path: Path of the file, which has a header line; commas, semicolons or tabs.
        params: Tuned columns as "name", "name:kind" or "name:kind:role", such as "lr:log:lr", with
            a kind of `ColumnScale`; none takes those of well-known names.
        scales: Size columns as "name" or "name:axis", such as "N:params"; none as above.
        loss: Name of the column of the loss; None looks for a well-known name.
        cost: Name of the column of the cost; None looks for a well-known name, and there need not
            be one.
        direction: Direction of the loss.

    Returns:
        The runs with their space, and notes on what was assumed.

    Raises:
        RunFileError: If the file or an option cannot be read.
        SpaceError: If there are values that no parameter can take.
        OSError: If the file cannot be opened.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder, "runs.csv")
        ...     _ = path.write_text("lr,params,loss\n1e-3,1e6,2.5\n1e-2,1e6,nan\n1e-2,1e7,1.7\n")
        ...     runs = read_runs(path)
        >>> print("\n".join(runs.notes))
        tuned: lr (log, role lr)
        scale: params (params)
        loss: loss
        >>> [observation.loss for observation in runs.observations]
        [2.5, None, 1.7]
    """
    table = _Table.read(Path(path))
    columns = _Columns.of(table, params=params, scales=scales, loss=loss, cost=cost)
    rows = table.complete(columns.numeric, columns.choices, columns.loss)
    notes = []
    if left_out := len(table.rows) - len(rows):
        notes.append(f"left out {left_out} of {len(table.rows)} rows with empty cells")
    if not rows:
        raise RunFileError(
            f"{table.name} needs at least one complete row, got none; fill its cells"
        )
    values: dict[str, list[Any]] = {n: list(table.numbers(n, rows)) for n in columns.numeric}
    values |= {name: table.texts(name, rows) for name in columns.choices}
    space, found = _space(table, columns, values)
    notes += [*found, *columns.notes(table)]
    search = SearchSpace(space)
    configs = [{name: values[name][i] for name in space} for i in range(len(rows))]
    losses = table.losses(columns.loss, rows)
    costs = table.costs(columns.cost, rows)
    observations = _observations(search, configs, losses, costs)
    return EarlierRuns(search, observations, direction, columns.cost, tuple(notes))


def _space(
    table: _Table, columns: _Columns, values: dict[str, list[Any]]
) -> tuple[dict[str, Parameter], list[str]]:
    """Return the parameters of the columns, from least to largest value, and notes on them.

    Raises:
        RunFileError: If nothing was tuned, or there is no size.
    """
    space: dict[str, Parameter] = {}
    notes = []
    for name, (declared, role) in columns.settings.items():
        parameter, scale = _parameter(table, name, declared, role, values[name])
        if parameter is None:
            notes.append(f"{name} has one value only and is not judged")
            continue
        space[name] = parameter
        with_role = "" if role is Role.OTHER else f", role {role.value}"
        notes.append(f"tuned: {name} ({scale.value}{with_role})")
    for name, axis in columns.sizes.items():
        low, high = min(values[name]), max(values[name])
        if low < _SMALLEST:
            raise RunFileError(
                f"`{name}` must hold positive sizes, got {low:g} to {high:g}; drop"
                " those rows, or leave it out of --scale"
            )
        space[name] = Scale(low, high, axis=axis)
        notes.append(f"scale: {name} ({axis.value})")
    if not any(not isinstance(p, Scale) for p in space.values()):
        raise RunFileError(
            f"{table.name} needs a tuned column with more than one value, got {table.header};"
            " name one, such as --param lr:log:lr"
        )
    if not columns.sizes:
        raise RunFileError(
            f"{table.name} needs a column with the size of the runs, got {table.header}; name it,"
            " such as --scale params"
        )
    return space, notes


def _observations(
    space: SearchSpace,
    configs: Sequence[dict[str, Any]],
    losses: Sequence[float],
    costs: Sequence[float | None],
) -> tuple[Observation, ...]:
    """Return the runs as results of trials; a loss that is not finite is a run that diverged."""
    return tuple(
        Observation(
            number=i,
            config=space.canonical(config),
            loss=loss if math.isfinite(loss) else None,
            cost=cost,
            status=Status.COMPLETED if math.isfinite(loss) else Status.FAILED,
            cause=None if math.isfinite(loss) else Cause.DIVERGED,
            order=i,
            ask_index=None,
        )
        for i, (config, loss, cost) in enumerate(zip(configs, losses, costs, strict=True))
    )


# --- the file ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Table:
    """Header and cells as texts; `lines` are line numbers of the rows."""

    name: str
    header: list[str]
    rows: list[list[str]]
    lines: list[int]

    @classmethod
    def read(cls, path: Path) -> _Table:
        try:
            text = path.read_text(encoding="utf-8-sig")
        except UnicodeDecodeError as error:
            raise RunFileError(
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
                    raise RunFileError(
                        f"{path.name}, line {reader.line_num}: got {len(cells)} cells where the"
                        f" header has {len(header)}; fix that line"
                    )
                rows.append(cells)
                lines.append(reader.line_num)
        except csv.Error as error:
            raise RunFileError(
                f"{path.name}, line {reader.line_num}: cannot be read as CSV ({error}); fix that"
                " line"
            ) from None
        if not header:
            raise RunFileError(f"{path.name} is empty; it needs a header line and one row a run")
        counts = Counter(header)
        if bad := [name for name in header if not name or counts[name] > 1]:
            raise RunFileError(
                f"{path.name}: columns need names of their own, got {bad[0]!r} more than once or"
                " empty; rename them"
            )
        return cls(path.name, header, rows, lines)

    def one_of(self, named: str | None, known: Sequence[str], option: str) -> str | None:
        """Return the column named, else the first well-known one, else None."""
        if named is not None:
            self.require(named, option)
            return named
        by_name = {_plain(name): name for name in reversed(self.header)}
        return next((by_name[name] for name in known if name in by_name), None)

    def require(self, name: str, option: str) -> None:
        if name not in self.header:
            raise RunFileError(
                f"--{option} must name a column of {self.name}, got {name!r}; it has {self.header}"
            )

    def complete(self, numeric: Sequence[str], other: Sequence[str], loss: str) -> list[int]:
        """Return indices of the rows in which none of these cells is empty."""
        places = [self.header.index(name) for name in (*numeric, *other, loss)]
        return [i for i, row in enumerate(self.rows) if all(row[j] for j in places)]

    def texts(self, name: str, rows: Sequence[int]) -> list[str]:
        j = self.header.index(name)
        return [self.rows[i][j] for i in rows]

    def numbers(self, name: str, rows: Sequence[int]) -> list[float]:
        """Return finite numbers; RunFileError with the line otherwise."""
        values = []
        for i, text in zip(rows, self.texts(name, rows), strict=True):
            value = self._number(i, name, text)
            if not abs(value) < _LARGEST:
                raise RunFileError(
                    f"{self.name}, line {self.lines[i]}: `{name}` must be a finite number, got"
                    f" {text!r}; drop that line"
                )
            values.append(value)
        return values

    def losses(self, name: str, rows: Sequence[int]) -> list[float]:
        """Return numbers; `nan` and `inf` are allowed."""
        texts = self.texts(name, rows)
        return [self._number(i, name, text) for i, text in zip(rows, texts, strict=True)]

    def costs(self, name: str | None, rows: Sequence[int]) -> list[float | None]:
        """Return numbers >= 0; None where the cell is empty or nan, or without such a column."""
        if name is None:
            return [None] * len(rows)
        costs: list[float | None] = []
        for i, text in zip(rows, self.texts(name, rows), strict=True):
            value = self._number(i, name, text) if text else math.nan
            if value < 0 or math.isinf(value):
                raise RunFileError(
                    f"{self.name}, line {self.lines[i]}: `{name}` must be finite and >= 0, got"
                    f" {text!r}; leave the cell empty if it is not known"
                )
            costs.append(None if math.isnan(value) else value)
        return costs

    def _number(self, row: int, name: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise RunFileError(
                f"{self.name}, line {self.lines[row]}: `{name}` must be a number, got"
                f" {text[:40]!r}; fix the cell, or say --param {name}:choice if it is a category"
            ) from None


# --- what the columns are ------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Columns:
    """What each column is.

    Attributes:
        loss: Name of the column of the loss.
        cost: Name of the column of the cost; None without one.
        sizes: What each size column measures.
        settings: Scale (None: to be guessed from the values) and role of each tuned column.
    """

    loss: str
    cost: str | None
    sizes: dict[str, Axis]
    settings: dict[str, tuple[ColumnScale | None, Role]]

    @classmethod
    def of(
        cls,
        table: _Table,
        *,
        params: Sequence[str],
        scales: Sequence[str],
        loss: str | None,
        cost: str | None,
    ) -> _Columns:
        """Return those that are named, and the well-known ones where none is named."""
        loss_column = table.one_of(loss, _LOSSES, "loss")
        if loss_column is None:
            raise RunFileError(
                f"{table.name} needs a column with the loss, got {table.header}; name it with"
                " --loss COLUMN"
            )
        cost_column = table.one_of(cost, _COSTS, "cost")
        taken = [loss_column] if cost_column is None else [loss_column, cost_column]
        sizes = _scale_columns(table, scales, taken)
        settings = _setting_columns(table, params, [*taken, *sizes])
        _check_distinct([*taken, *sizes, *settings])
        return cls(loss_column, cost_column, sizes, settings)

    @property
    def choices(self) -> list[str]:
        """Tuned columns of categories."""
        return [n for n, (scale, _) in self.settings.items() if scale is ColumnScale.CHOICE]

    @property
    def numeric(self) -> list[str]:
        """Size columns and tuned columns of numbers."""
        return [*self.sizes, *(name for name in self.settings if name not in self.choices)]

    def notes(self, table: _Table) -> list[str]:
        """Return notes on cost, loss and what is not used."""
        used = {self.loss, self.cost, *self.sizes, *self.settings}
        notes = [] if self.cost is None else [f"cost: {self.cost}"]
        notes.append(f"loss: {self.loss}")
        if ignored := [name for name in table.header if name not in used]:
            notes.append(f"ignored: {', '.join(ignored)}")
        return notes


def _scale_columns(table: _Table, named: Sequence[str], taken: Sequence[str]) -> dict[str, Axis]:
    """Return size columns with what they measure; those of well-known names if none is named."""
    known = {name: axis for axis, names in _AXES.items() for name in names}
    if named:
        found: dict[str, Axis] = {}
        for text in named:
            name, options = _specification(table, text, "scale", 1)
            _check_named_once(name, text, found, "scale")
            guess = known.get(_plain(name), Axis.OTHER)
            found[name] = _member(Axis, options[0], text, "scale") if options else guess
        return found
    found = {}
    for name in table.header:
        if name not in taken and _plain(name) in known:
            axis = known[_plain(name)]
            if axis not in found.values():
                found[name] = axis
    if Axis.PARAMS in found.values():  # width and depth repeat the same
        found = {n: axis for n, axis in found.items() if axis in (Axis.PARAMS, Axis.TOKENS)}
    return found


def _setting_columns(
    table: _Table, named: Sequence[str], taken: Sequence[str]
) -> dict[str, tuple[ColumnScale | None, Role]]:
    """Return tuned columns with their scale (None: to be guessed from the values) and role."""
    known = {name: role for role, names in _PARAMETERS.items() for name in names}
    if not named:
        return {
            name: (None, known[_plain(name)])
            for name in table.header
            if name not in taken and _plain(name) in known
        }
    found: dict[str, tuple[ColumnScale | None, Role]] = {}
    for text in named:
        name, options = _specification(table, text, "param", 2)
        _check_named_once(name, text, found, "param")
        scale = _member(ColumnScale, options[0], text, "param") if options else None
        role = known.get(_plain(name), Role.OTHER)
        if len(options) > 1:
            role = _member(Role, options[1], text, "param")
        found[name] = (scale, role)
    return found


def _check_named_once(name: str, text: str, found: Collection[str], option: str) -> None:
    """Refuse a column that the same option has named before."""
    if name in found:
        raise RunFileError(
            f"`--{option}` must name each column once, got `{name}` again in {text!r};"
            " leave one out"
        )


def _parameter(
    table: _Table, name: str, scale: ColumnScale | None, role: Role, values: Sequence[Any]
) -> tuple[Parameter | None, ColumnScale]:
    """Return the parameter of a column, None if it has one value only, and the column's scale."""
    if scale is ColumnScale.CHOICE:
        choices = tuple(dict.fromkeys(values))
        if len(choices) > _MOST_CHOICES:
            raise RunFileError(
                f"`{name}` must have at most {_MOST_CHOICES} different values as a choice, got"
                f" {len(choices)}; say --param {name}:log or {name}:linear"
            )
        return (Categorical(choices, role=role) if len(choices) > 1 else None), scale
    low, high = min(values), max(values)
    if scale is None:
        scale = _likely_scale(role, low, high)
    if low == high:
        return None, scale
    log, logit = scale is ColumnScale.LOG, scale is ColumnScale.LOGIT
    if (log and low <= _SMALLEST) or (logit and not (0 < low and high < 1)):
        inside = "positive" if log else "inside (0, 1)"
        raise RunFileError(
            f"`{name}` must be {inside} to be read as {scale.value}, got {low:g} to {high:g} in"
            f" {table.name}; say --param {name}:linear, or drop those rows"
        )
    return Float(low, high, log=log, logit=logit, role=role), scale


def _likely_scale(role: Role, low: float, high: float) -> ColumnScale:
    if role in _LOGIT and 0 < low and high < 1:
        return ColumnScale.LOGIT
    if low < _SMALLEST or role in _LINEAR or role in _LOGIT:
        return ColumnScale.LINEAR
    wide = role is not Role.OTHER or high / low >= _WIDE
    return ColumnScale.LOG if wide else ColumnScale.LINEAR


def _specification(table: _Table, text: str, option: str, most: int) -> tuple[str, list[str]]:
    """Split `name:option:option`; a column name may hold colons itself."""
    name, *options = [text] if text in table.header else text.split(":")
    table.require(name, option)
    if len(options) > most:
        form = "name:kind:role" if most == 2 else "name:axis"
        raise RunFileError(f"--{option} must look like {form}, got {text!r}; drop the rest")
    return name, options


def _member(members: type[Member], value: str, text: str, option: str) -> Member:
    try:
        return members(value.strip().lower())
    except ValueError:
        allowed = [member.value for member in members]
        raise RunFileError(
            f"--{option} {text}: {value!r} must be one of {allowed}; pick one"
        ) from None


def _check_distinct(names: Sequence[str]) -> None:
    for name, count in Counter(names).items():
        if count > 1:
            raise RunFileError(f"`{name}` is named for two purposes; keep one")


def _plain(name: str) -> str:
    """Write `name` as well-known names are written: "Learning Rate" becomes learning_rate."""
    return re.sub(r"[^a-z0-9]+", "_", name.strip().lower()).strip("_")
