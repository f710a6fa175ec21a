"""Text files of runs, CSV and JSON: encoding, delimiter and header are found out."""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hpo.trials.read_runs.cells import is_missing, read_number
from hpo.trials.read_runs.errors import RunFileError
from hpo.trials.read_runs.tables import Table, distinct, of_records

__all__ = ["decoded", "read_csv", "read_json", "records_of_json"]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_PACKED = ((b"\x1f\x8b", gzip.decompress), (b"BZh", bz2.decompress), (b"\xfd7zXZ", lzma.decompress))
_DELIMITERS = (",", ";", "\t", "|")
_TITLES = 6  # lines above the header that may hold a title
_SNIFFED = 50  # rows that tell the delimiter
_LISTS = ("runs", "trials", "results", "experiments", "data", "rows", "history")
_NULS = 0.2  # share of NUL bytes from which a text is UTF-16 without a mark


def decoded(data: bytes, name: str) -> str:
    """Return bytes as text: UTF-8, UTF-16 or UTF-32 by their mark, else UTF-8, else Latin.

    Args:
        data: Bytes of the file, perhaps packed by gzip, bzip2 or xz.
        name: Name of the file.

    Raises:
        RunFileError: If they are no text.

    Example:
        >>> decoded("lr;loss".encode("utf-16"), "x"), decoded("Größe".encode("latin-1"), "x")
        ('lr;loss', 'Größe')
    """
    for mark, unpack in _PACKED:
        if data.startswith(mark):
            try:
                data = unpack(data)
            except (OSError, EOFError, ValueError, lzma.LZMAError) as error:
                raise RunFileError(f"{name} cannot be unpacked ({error}); save it again") from None
    encodings = [encoding for mark, encoding in _MARKS if data.startswith(mark)][:1]
    if not encodings:
        even, odd = data[0:2000:2].count(0), data[1:2000:2].count(0)
        if max(even, odd) > _NULS * max(1, len(data[:2000])):
            encodings = ["utf-16-le" if odd >= even else "utf-16-be"]
        else:
            encodings = ["utf-8", "cp1252", "latin-1"]
    for encoding in encodings:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        if "\0" in text:
            break
        return text.replace("\r\n", "\n").replace("\r", "\n")
    raise RunFileError(f"{name} must be a text file, got bytes that are none; save it as CSV")


def read_csv(text: str, name: str) -> Table:
    r"""Return the table of a CSV text: delimiter, Excel's `sep=` line and comments are found out.

    Args:
        text: Whole text.
        name: Name of the file.

    Raises:
        RunFileError: If it is no table with a header; the message names the line.

    Example:
        >>> table = read_csv("sep=;\nlr;loss;\n0,1;2,5;\n", "runs.csv")
        >>> table.columns, table.where(0), table.delimiter
        ({'lr': ['0,1'], 'loss': ['2,5']}, 'line 3', ';')
    """
    lines = text.split("\n")
    start, named = 0, None
    while start < len(lines):
        line = lines[start].strip()
        said = re.fullmatch(r"\"?sep=(.|\\t)\"?[,;\t]*", line, re.IGNORECASE)
        if said is not None:
            named = "\t" if said[1] == "\\t" else said[1]
        elif line and not _is_comment(lines, start):
            break
        start += 1
    body = "\n".join(lines[start:])
    if not body.strip():
        raise RunFileError(f"{name} is empty; it needs a header line and one row a run")
    if named is None and lines[start] != lines[start].lstrip() and "\t" not in lines[start]:
        body = lines[start].lstrip() + body[len(lines[start]) :]
    body, titles = _without_title(_without_pipes(body)) if named is None else (body, 0)
    start += titles
    delimiter = named or _delimiter(body)[0]
    rows, numbers = _cells(body, delimiter, name, start)
    header, *rows = rows
    numbers = numbers[1:]
    width = len(header)
    while width > 1 and not header[width - 1] and all(not any(row[width - 1 :]) for row in rows):
        width -= 1  # delimiters at the end of every line
    for row, number in zip(rows, numbers, strict=True):
        if len(row) > width and any(row[width:]) or len(row) < width:
            raise RunFileError(
                f"{name}, line {number}: got {len(row)} cells where the header has {width};"
                " fix that line"
            )
    header = [cell.lstrip("#").strip() if j == 0 else cell for j, cell in enumerate(header[:width])]
    if rows and all(not is_missing(cell) and read_number(cell) is not None for cell in header):
        raise RunFileError(
            f"{name}, line {start + 1}: the header must name the columns, got numbers alone; add a"
            " first line such as lr,params,loss"
        )
    names = distinct(header)
    cells = list(zip(*(row[:width] for row in rows), strict=True)) if rows else [()] * width
    columns: dict[str, list[object]] = {column: list(cells[j]) for j, column in enumerate(names)}
    return Table(name, columns, lambda i: f"line {numbers[i]}", delimiter)


def _cells(body: str, delimiter: str, name: str, before: int) -> tuple[list[list[str]], list[int]]:
    """Return rows of stripped cells, and the line of each; empty rows are left out.

    The csv module tells lines and short rows, which pandas fills without a word.
    """
    csv.field_size_limit(2**30)
    found: list[tuple[list[str], int]] = []
    if delimiter == " ":
        found = [(line.split(), number) for number, line in enumerate(body.split("\n"), 1)]
    for strict in (True, False) if not found else ():
        lines = io.StringIO(body, newline="")
        reader = csv.reader(lines, delimiter=delimiter, skipinitialspace=True, strict=strict)
        found = []
        try:
            for cells in reader:
                found.append((cells, reader.line_num))
            break
        except csv.Error as error:
            if "unexpected end" in str(error) or not strict:
                opened = found[-1][1] + 1 if found else 1
                raise RunFileError(
                    f"{name}, line {before + opened}: cannot be read as CSV ({error}); close the"
                    " quotes of that line"
                ) from None
    rows, numbers = [], []
    for cells, number in found:
        stripped = [cell.strip() for cell in cells]
        if any(stripped):
            rows.append(stripped)
            numbers.append(before + number)
    return rows, numbers


def _is_comment(lines: Sequence[str], place: int) -> bool:
    """Return whether a line is a comment, and not a header behind a hash."""
    if not lines[place].lstrip().startswith("#"):
        return False
    after = next((line for line in lines[place + 1 :] if line.strip()), "")
    counts = [max(line.count(mark) for mark in _DELIMITERS) for line in (lines[place], after)]
    return counts[0] != counts[1] or not counts[0] or after.lstrip().startswith("#")


def _without_pipes(body: str) -> str:
    """Return a table as Markdown writes it without the bars at its sides and below its header."""
    lines = body.rstrip("\n").split("\n")
    if len(lines) < 2 or not all(re.fullmatch(r"\s*\|.*\|\s*", line) for line in lines):
        return body
    if re.fullmatch(r"[\s|:-]+", lines[1]):
        lines[1] = ""
    return "\n".join(line.strip().strip("|") for line in lines)


def _without_title(body: str) -> tuple[str, int]:
    """Return a text without lines above the header that hold one cell, and how many those are."""
    if _delimiter(body)[1]:
        return body, 0
    lines = body.split("\n")
    for count in range(1, min(_TITLES, len(lines) - 1)):
        below = "\n".join(lines[count:])
        if lines[count].strip() and _delimiter(below)[1]:
            return below, count
    return body, 0


def _delimiter(body: str) -> tuple[str, bool]:
    """Return the delimiter that divides the first rows most evenly, and whether one does.

    It is a space where none does but spaces, and a comma for a single column.
    """
    best, most = ",", 0.0
    sample = "\n".join(body.split("\n", _SNIFFED + 1)[: _SNIFFED + 1])
    for delimiter in _DELIMITERS:
        reader = csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)
        try:
            widths = [len(row) for row in reader if any(cell.strip() for cell in row)]
        except csv.Error:
            continue
        if not widths or widths[0] < 2:
            continue
        even = sum(abs(width - widths[0]) <= 1 for width in widths) / len(widths)
        score = even + 1e-3 * min(widths[0], 100)
        if score > most:
            best, most = delimiter, score
    if not most:
        widths = [len(line.split()) for line in sample.split("\n") if line.strip()]
        if len(widths) > 1 and widths[0] > 1 and len(set(widths)) == 1:
            return " ", True
    return best, most > 0.0


def read_json(text: str, name: str) -> Table:
    r"""Return the table of a JSON text, or of JSON lines.

    Args:
        text: Whole text.
        name: Name of the file.

    Raises:
        RunFileError: If it is neither; the message names the line.

    Example:
        >>> read_json('{"lr": 0.1, "loss": 2.5}\n{"lr": 0.2, "loss": NaN}\n', "x").columns
        {'lr': [0.1, 0.2], 'loss': [2.5, nan]}
    """
    records, lines = records_of_json(text, name)
    if not lines:
        return of_records(records, name, lambda i: f"run {i}")
    return of_records(records, name, lambda i: f"line {lines[i]}")


def records_of_json(text: str, name: str) -> tuple[list[Any], list[int]]:
    """Return the runs of a JSON text, and the line of each where they are JSON lines."""
    try:
        return _runs_in(json.loads(text)), []
    except json.JSONDecodeError as error:
        if "Extra data" not in error.msg and "\n" not in text.strip():
            raise RunFileError(
                f"{name}, line {error.lineno}: cannot be read as JSON ({error.msg}); fix that line"
            ) from None
    except RecursionError:
        raise RunFileError(f"{name} cannot be read as JSON: it is nested too deeply") from None
    records, lines = [], []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            records.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            said = getattr(error, "msg", str(error)[:80])
            raise RunFileError(
                f"{name}, line {number}: cannot be read as JSON ({said}); fix that line"
            ) from None
        lines.append(number)
    return records, lines


def _runs_in(value: Any) -> list[Any]:
    """Return the runs of a JSON value: of a list, of columns, of a table of pandas, or of one."""
    if not isinstance(value, Mapping):
        return list(value) if isinstance(value, list) else [value]
    columns, data = value.get("columns"), value.get("data")
    if isinstance(columns, list) and isinstance(data, list):  # orient="split"
        return [dict(zip(map(str, columns), row, strict=False)) for row in data]
    for name in _LISTS:
        inside = value.get(name)
        if isinstance(inside, list) and inside and all(isinstance(run, Mapping) for run in inside):
            return inside
    parts = list(value.values())
    if parts and all(isinstance(part, list) for part in parts):
        if len({len(part) for part in parts}) == 1 and len(parts) > 1:
            return [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
        return [value]
    if parts and all(isinstance(part, Mapping) for part in parts):
        keys = [list(part) for part in parts]
        if all(key == keys[0] for key in keys) and all(k.lstrip("-").isdigit() for k in keys[0]):
            return [{name: part[k] for name, part in value.items()} for k in keys[0]]
        if len(parts) > 1 and all(str(k).lstrip("-").isdigit() for k in value):
            return parts  # orient="index"
    return [value]
