"""The result table: one CSV file, one line per finished job, only ever appended to.

A line is written with one `write` and synced before the next job starts, so a kill at any moment
loses at most the job in flight. A line without its end (a kill inside a write) is dropped when the
run continues, and any line that does not parse is skipped when reading. Besides jobs there are
notes, which have one of these statuses:

* `end:trials`, `end:cost`, `end:seconds`, `end:method`, `end:error`, `end:unsupported`: the reason
  why the study ended and what it had spent. All but the first two mean before its limit. The last
  such note of a study counts.
* `void`: the lines above of this study do not count; it was started again.

Columns: suite, task, method, seed, then those of `simulate.Outcome`.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import os
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.simulate import Outcome

__all__ = ["COLUMNS", "Appender", "Note", "Record", "Study", "prepare", "read"]

_OUTCOME = tuple(f.name for f in dataclasses.fields(Outcome))
COLUMNS = ("suite", "task", "method", "seed", *_OUTCOME)
_INTEGERS = ("trial", "number", "level")
_OPTIONAL = ("level", "loss", "incumbent")
VOID = "void"
END = "end:"


@dataclass(frozen=True, slots=True, order=True)
class Study:
    """One method on one task under one seed."""

    suite: str
    task: str
    method: str
    seed: int


@dataclass(frozen=True, slots=True)
class Note:
    """How a study ended: `reason` as in the module's list, and what it had spent."""

    reason: str
    effort: float
    cost: float
    seconds: float


@dataclass(slots=True)
class Record:
    """The lines of one study in the table."""

    outcomes: list[Outcome] = field(default_factory=list)
    note: Note | None = None


class Appender:
    """Appends lines to the table, each synced; several processes may hold one.

    `O_APPEND` makes the kernel place every line at the end, whoever wrote the last one.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.close(self._file)

    def outcome(self, study: Study, outcome: Outcome) -> None:
        """Append one finished job."""
        self._append(study, dataclasses.astuple(outcome))

    def note(self, study: Study, record: Record, reason: str) -> None:
        """Append a note with `reason` "void" or "end:..."; amounts spent are the record's."""
        outcomes = record.outcomes
        last = outcomes[-1] if outcomes else None
        asks, tells = sum(o.ask_s for o in outcomes), sum(o.tell_s for o in outcomes)
        spent = (last.cost, last.effort, last.time) if last else (0.0, 0.0, 0.0)
        jobs = sum(o.trial >= 0 for o in outcomes)
        self._append(study, (jobs, -1, None, None, None, 0.0, *spent, asks, tells, reason))

    def _append(self, study: Study, values: tuple[object, ...]) -> None:
        line = _line((*dataclasses.astuple(study), *values))
        os.write(self._file, line)
        os.fsync(self._file)


def prepare(path: Path) -> None:
    """Prepare `path` for appending: write the header of a new file, drop a cut-off last line."""
    if not path.exists() or path.stat().st_size == 0:
        path.write_bytes(_line(COLUMNS))
        return
    with path.open("r+b") as file:
        whole = file.read()
        kept = whole.rfind(b"\n") + 1
        if whole[: len(_line(COLUMNS))] != _line(COLUMNS):
            raise ValueError(
                f"{path} is not a result table of this version (its first line differs);"
                " choose another --out"
            )
        file.truncate(kept)


def read(path: Path) -> dict[Study, Record]:
    """Return the lines that count of every study in the table."""
    records: dict[Study, Record] = {}
    text = path.read_text(encoding="utf-8")
    for fields in csv.reader(io.StringIO(text[: text.rfind("\n") + 1])):
        parsed = _parse(fields)
        if parsed is None:
            continue
        study, outcome = parsed
        record = records.setdefault(study, Record())
        if outcome.status == VOID:
            records[study] = Record()
        elif outcome.status.startswith(END):
            seconds = outcome.ask_s + outcome.tell_s
            record.note = Note(outcome.status, outcome.effort, outcome.cost, seconds)
        else:
            record.outcomes.append(outcome)
            record.note = None
    return records


def _line(values: tuple[object, ...]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(
        ["" if v is None else repr(float(v)) if isinstance(v, float) else v for v in values]
    )
    return text.getvalue().encode()


def _parse(fields: list[str]) -> tuple[Study, Outcome] | None:
    """None for the header and for a damaged line."""
    if len(fields) != len(COLUMNS):
        return None
    try:
        study = Study(fields[0], fields[1], fields[2], int(fields[3]))
        values: dict[str, object] = {"status": fields[-1]}
        for name, text in zip(_OUTCOME[:-1], fields[4:-1], strict=True):
            missing = not text and name in _OPTIONAL
            values[name] = None if missing else (int if name in _INTEGERS else float)(text)
    except ValueError:
        return None
    return study, Outcome(**values)  # type: ignore[arg-type]  # built by the fields' own names
