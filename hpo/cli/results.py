"""Results as JSON and as files, and studies as a shell names them."""

from __future__ import annotations

import shlex
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from hpo.optimizer.result import FrontMember, Result

__all__ = ["TableFormat", "result_as_json", "shell_words", "write_table"]


class TableFormat(StrEnum):
    """Format of a table of trials."""

    CSV = "csv"
    JSONL = "jsonl"
    PARQUET = "parquet"


def shell_words(name: str, storage: str | None) -> str:
    """Return a study as the words of a command, without the password of its storage.

    Args:
        name: Name of the study.
        storage: Its Optuna URL; None for the default file.

    Example:
        >>> shell_words("run 1", "postgresql://me:secret@host/runs")
        "'run 1' --storage 'postgresql://me:***@host/runs'"
        >>> shell_words("run-1", None)
        'run-1'
    """
    from hpo.study.storage import without_password

    words = [name] if storage is None else [name, "--storage", without_password(storage)]
    return shlex.join(words)


def result_as_json(result: Result) -> dict[str, Any]:
    """Return what was asked, spent and found, as JSON can hold it.

    Args:
        result: The result.

    Example:
        >>> from hpo import Float, Optimizer
        >>> optimizer = Optimizer({"x": Float(0, 1)})
        >>> _ = optimizer.tell({"x": 0.5}, loss=0.25)
        >>> found = result_as_json(optimizer.result())
        >>> found["trials"], found["best"]["config"]
        ({'completed': 1}, {'x': 0.5})
    """
    from hpo.optimizer.summary import states
    from hpo.space import Direction

    any_found = bool(result.candidates())
    limits = {} if result.budget is None else asdict(result.budget)
    return {
        "study": None if result.study is None else result.study.study_name,
        "direction": Direction.of_sign(result.models.encoder.loss_sign).value,
        "trials": dict(states(result.log)),
        "spent": None if result.spent is None else asdict(result.spent),
        "budget": {name: limit for name, limit in limits.items() if limit is not None},
        "cost_unit": result.cost_unit,
        "best": _member(result.best) if any_found else None,
        "best_observed": _member(result.best_observed) if any_found else None,
        "interrupted": result.interrupted,
    }


def _member(member: FrontMember) -> dict[str, Any]:
    return {
        "number": member.number,
        "config": member.config,
        "loss": member.loss,
        "expected_loss": member.expected_loss,
        "cost": member.cost,
    }


def write_table(frame: pd.DataFrame, path: Path | None, kind: TableFormat) -> str | None:
    """Write a table of trials; return its text where there is no path.

    Args:
        frame: The table.
        path: File to write; None for none.
        kind: Its format.

    Raises:
        ValueError: For Parquet without a file, or without pyarrow.
    """
    if kind is TableFormat.CSV:
        text: str | None = frame.to_csv(path, index=False)
        return text
    if kind is TableFormat.JSONL:
        lines: str = frame.to_json(orient="records", lines=True, date_format="iso")
        if path is None:
            return lines
        path.write_text(lines, encoding="utf-8")
        return None
    if path is None:
        raise ValueError("--format parquet needs a file; add --output trials.parquet")
    try:
        frame.to_parquet(path, index=False)
    except ImportError:
        raise ValueError(
            "Parquet needs pyarrow, which is not installed; run: pip install pyarrow, or write"
            " --format csv"
        ) from None
    return None
