"""Tables of runs, as they come: a column of cells each, and where in the source each row stands."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from hpo.space import DirectionName, Parameter, SearchSpace
from hpo.space.scalars import scalar
from hpo.trials.read_runs.cells import is_missing
from hpo.trials.read_runs.errors import RunFileError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Table", "of_frame", "of_records"]

_LOG = "log_history"  # of the Hugging Face trainer: what it logged, step by step


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of runs.

    Attributes:
        name: Name of the source, for messages.
        columns: Cells by name of the column, all of one length.
        where: Function from the index of a row to its place in the source, such as "line 7".
        delimiter: Delimiter between the cells of a text file; empty for other sources.
        declared: Parameters that the source itself declares, by column.
        direction: Direction of the loss that the source declares.
        loss: Column of the loss that the source declares.
        cost: Column of the cost that the source declares, "none" for no costs.
        space: Space that the source declares.
        notes: Sentences on how the source was read.
    """

    name: str
    columns: dict[str, list[object]]
    where: Callable[[int], str]
    delimiter: str = ""
    declared: Mapping[str, Parameter] = field(default_factory=dict)
    direction: DirectionName | None = None
    loss: str | None = None
    cost: str | None = None
    space: SearchSpace | None = None
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(next(iter(self.columns.values()), ()))

    def at(self, row: int) -> str:
        """Return the place of a row with the name of the source."""
        return f"{self.name}, {self.where(row)}"


def of_records(
    records: Iterable[Mapping[str, Any]], name: str, where: Callable[[int], str], **more: Any
) -> Table:
    """Return a table of one mapping a run; nested ones become columns such as `config.lr`.

    Args:
        records: Values by name, one mapping a run.
        name: Name of the source.
        where: Function from the index of a record to its place.
        more: Further fields of the table.

    Raises:
        RunFileError: If a record is no mapping.

    Example:
        >>> table = of_records([{"config": {"lr": 0.1}, "loss": 2.5}, {"loss": 2.0}], "x", str)
        >>> table.columns
        {'config.lr': [0.1, None], 'loss': [2.5, 2.0]}
    """
    columns: dict[str, list[object]] = {}
    count = 0
    for i, record in enumerate(records):
        if not isinstance(record, Mapping):
            raise RunFileError(
                f"{name}, {where(i)}: every run must be a mapping of names to values, got"
                f" {type(record).__name__}; write it as {{'lr': 0.001, 'loss': 2.5}}"
            )
        for key, value in _flat(record):
            cells = columns.get(key)
            if cells is None:
                cells = columns[key] = [None] * count
            if len(cells) == count:  # of two equal names the first counts
                cells.append(value)
        count = i + 1
        for cells in columns.values():
            if len(cells) < count:
                cells.append(None)
    return Table(name, columns, where, **more)


def of_frame(frame: pd.DataFrame, name: str, **more: Any) -> Table:
    """Return a table of a pandas DataFrame; names of an index that has them are columns, too.

    Args:
        frame: One row a run.
        name: Name of the source.
        more: Further fields of the table.

    Example:
        >>> import pandas as pd
        >>> of_frame(pd.DataFrame({"lr": [0.1, 0.2]}), "the DataFrame").columns
        {'lr': [0.1, 0.2]}
    """
    if any(level is not None for level in frame.index.names):
        taken = {str(column) for column in frame.columns}
        frame = frame.reset_index(
            names=[
                "index" if level is None else f"{level}.index" if str(level) in taken else level
                for level in frame.index.names
            ]
        )
    names: list[str] = []
    for column in frame.columns:
        parts = column if isinstance(column, tuple) else (column,)
        names.append(".".join(str(part) for part in parts if str(part)))
    names = distinct(names)
    cells = {
        column: [_plain(value) for value in frame.iloc[:, j].tolist()]
        for j, column in enumerate(names)
    }
    return Table(name, cells, lambda i: f"row {i}", **more)


def expanded(table: Table) -> Table:
    """Return a table whose columns of mappings, or of texts of such, are columns of their own.

    Example:
        >>> table = Table("x", {"config": ['{"lr": 0.1}', None], "loss": [2.5, 2.0]}, str)
        >>> expanded(table).columns
        {'loss': [2.5, 2.0], 'config.lr': [0.1, None]}
    """
    found: dict[str, list[object]] = {}
    for name, cells in table.columns.items():
        first = next((cell for cell in cells if not is_missing(cell)), None)
        mappings = [_mapping(cell) for cell in cells] if _may_be_mapping(first) else [None]
        if None in mappings or not any(mappings):
            found[name] = cells
            continue
        inner = of_records([{name: mapping} for mapping in mappings], table.name, table.where)
        found |= {key: values for key, values in inner.columns.items() if key != name}
    order = [name for name in found if name in table.columns]
    order += [name for name in found if name not in table.columns]
    return replace(table, columns={name: found[name] for name in order})


def _may_be_mapping(cell: object) -> bool:
    return isinstance(cell, Mapping) or (isinstance(cell, str) and cell[:1] == "{")


def _mapping(cell: object) -> Mapping[str, Any] | None:
    """Return the mapping that a cell is, or holds as JSON or as Python writes it; None for none."""
    if is_missing(cell):
        return {}
    if isinstance(cell, Mapping):
        return cell
    if not isinstance(cell, str) or cell[:1] != "{":
        return None
    for parse in (json.loads, ast.literal_eval):
        try:
            value = parse(cell)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
        if isinstance(value, Mapping):
            return value
    return None


def distinct(names: Sequence[str]) -> list[str]:
    """Return names of their own: the second `lr` is `lr.1`, as in pandas.

    Example:
        >>> distinct(["lr", "loss", "lr", ""])
        ['lr', 'loss', 'lr.1', 'Unnamed: 3']
    """
    found: list[str] = []
    for j, name in enumerate(names):
        name = name or f"Unnamed: {j}"
        k, own = 0, name
        while own in found or (k > 0 and own in names):
            k += 1
            own = f"{name}.{k}"
        found.append(own)
    return found


def _flat(record: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, object]]:
    for key, value in record.items():
        name = f"{prefix}{key}"
        if name == _LOG and isinstance(value, list):
            logged: dict[str, Any] = {}
            for entry in value:
                logged.update(entry if isinstance(entry, Mapping) else {})
            yield from _flat(logged, prefix)
        elif isinstance(value, Mapping):
            keys = set(value)
            if "value" in keys and keys <= {"value", "desc"}:  # as W&B writes its config.yaml
                yield name, _plain(value["value"])
            else:
                yield from _flat(value, f"{name}.")
        else:
            yield name, _plain(value)


def _plain(value: object) -> object:
    """Return a cell as a text, number, bool, duration or None."""
    value = scalar(value)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if type(value).__name__ in ("NaTType", "NAType"):
        return None
    if isinstance(value, list | tuple) and len(value) == 1:
        return _plain(value[0])
    return value
