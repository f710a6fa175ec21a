"""Any source of runs as one table: files, folders, frames, lists, studies and tracking servers."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hpo.trials.read_runs import studies
from hpo.trials.read_runs.errors import RunFileError
from hpo.trials.read_runs.tables import Table, of_frame, of_records
from hpo.trials.read_runs.text_files import decoded, read_csv, read_json, records_of_json

__all__ = ["read_table"]

_PARQUET, _SQLITE, _ZIP = b"PAR1", b"SQLite format 3\0", b"PK\x03\x04"
_JSON_SUFFIXES = (".json", ".jsonl", ".ndjson", ".jsonlines")
_CSV_SUFFIXES = (".csv", ".tsv")
_SETTINGS_FILES = ("config", "params", "hparams", "args", "hyperparameters", "settings")


def read_table(source: Any, study_name: str | None = None) -> Table:
    """Return the table of a source.

    Args:
        source: What `read_runs` takes.
        study_name: Name of the study in an Optuna storage.

    Raises:
        RunFileError: If it cannot be read.
        OSError: If a file cannot be opened.
        TypeError: If it is no source.

    Example:
        >>> read_table([{"lr": 0.1, "loss": 2.5}]).columns
        {'lr': [0.1], 'loss': [2.5]}
    """
    if studies.is_optuna(source, "Study"):
        return studies.of_optuna(source)
    if studies.is_optuna(source, "Storage"):
        return studies.of_optuna_storage(source, study_name)
    if isinstance(source, str):
        scheme, _, rest = source.partition(":")
        if scheme == "wandb":
            return studies.of_wandb(rest)
        if scheme == "mlflow":
            return studies.of_mlflow(rest)
        if "://" in source:
            return studies.of_optuna_storage(source, study_name)
    if isinstance(source, str | Path):
        return _of_path(Path(source), study_name)
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(source, pandas.DataFrame):
        return of_frame(source, "the DataFrame")
    if callable(to_dicts := getattr(source, "to_dicts", None)):  # of Polars
        return of_records(to_dicts(), "the DataFrame", lambda i: f"row {i}")
    if callable(to_pandas := getattr(source, "to_pandas", None)):
        return of_frame(to_pandas(), "the table")
    if isinstance(source, Mapping):
        return _of_columns(source)
    if isinstance(source, Iterable):
        runs = list(source)
        if runs and all(studies.is_tracked_run(run) for run in runs):
            return studies.of_tracked_runs(runs, "the runs")
        return of_records(runs, "the list", lambda i: f"item {i}")
    raise TypeError(
        "`source` must be a file, a folder, a DataFrame, a list of dicts, an Optuna study or a"
        f" storage, got {type(source).__name__}; pass the path of a CSV file"
    )


def _of_columns(source: Mapping[str, Any]) -> Table:
    """Return the table of a mapping from names to columns."""
    lengths = {
        len(cells) if isinstance(cells, Sequence) and not isinstance(cells, str) else -1
        for cells in (getattr(c, "tolist", lambda c=c: c)() for c in source.values())
    }
    if len(lengths) != 1 or -1 in lengths:
        return of_records([source], "the mapping", lambda i: f"run {i}")
    import pandas as pd

    return of_frame(pd.DataFrame(dict(source)), "the mapping")


def _of_path(path: Path, study_name: str | None) -> Table:
    if path.is_dir():
        return _of_folder(path)
    suffix = path.suffix.lower()
    with path.open("rb") as file:
        start = file.read(16)
    if start.startswith(_SQLITE):
        return studies.of_optuna_storage(f"sqlite:///{path}", study_name)
    if start.startswith(_PARQUET) or suffix in (".parquet", ".pq", ".feather"):
        return _of_binary(path, "read_feather" if suffix == ".feather" else "read_parquet")
    if start.startswith(_ZIP) or suffix in (".xlsx", ".xls", ".ods"):
        return _of_binary(path, "read_excel")
    text = decoded(path.read_bytes(), path.name)
    if suffix in _JSON_SUFFIXES or text.lstrip()[:1] in ("{", "["):
        if not text.strip():
            raise RunFileError(f"{path.name} is empty; it needs one run a line")
        return read_json(text, path.name)
    return read_csv(text, path.name)


def _of_binary(path: Path, reader: str) -> Table:
    import pandas as pd

    try:
        frame = getattr(pd, reader)(path)
    except ImportError as error:
        said = str(error).splitlines()[0]
        raise RunFileError(
            f"{path.name} needs a package that is not installed ({said}); install it, or save the"
            " runs as CSV"
        ) from None
    except Exception as error:  # of damaged files: each format has its own
        raise RunFileError(f"{path.name} cannot be read: {error}; save the runs as CSV") from None
    return of_frame(frame, path.name)


def _of_folder(folder: Path) -> Table:
    """Return the runs of a folder: one a file, or one a subfolder, of JSON or CSV."""
    files = [
        path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part[:1] == "." for part in path.relative_to(folder).parts)
    ]
    for suffixes in (_JSON_SUFFIXES, _CSV_SUFFIXES):
        chosen = [path for path in files if path.suffix.lower() in suffixes]
        if chosen:
            break
    else:
        raise RunFileError(f"{folder} holds no JSON or CSV files; give the folder of the runs")
    records: list[Any] = []
    places: list[str] = []
    for parent in dict.fromkeys(path.parent for path in chosen):
        inside = [path for path in chosen if path.parent == parent]
        of_one = parent != folder and len({path.stem for path in inside}) > 1
        merged: dict[str, Any] = {}
        for path in inside:
            name = path.relative_to(folder).as_posix()
            text = decoded(path.read_bytes(), name)
            if not text.strip():
                continue
            if suffixes == _CSV_SUFFIXES:
                table = read_csv(text, name)
                rows: list[Any] = [
                    dict(zip(table.columns, row, strict=True))
                    for row in zip(*table.columns.values(), strict=True)
                ]
            else:
                rows, _ = records_of_json(text, name)
            if of_one and all(isinstance(row, Mapping) for row in rows):
                for row in rows:  # the last line of a log counts
                    merged |= {path.stem: row} if path.stem in _SETTINGS_FILES else dict(row)
            else:
                records += rows
                places += [f"{name}, run {k}" if len(rows) > 1 else name for k in range(len(rows))]
        if merged:
            records.append(merged)
            places.append(parent.relative_to(folder).as_posix())
    return of_records(records, folder.name or str(folder), lambda i: places[i])
