"""What each column was taken for, and why: the table that is shown to the user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from hpo.errors import printable_str

__all__ = ["Guess", "Guesses", "Use"]

_LONGEST = 60  # letters of a cell of the printed table


class Use(Enum):
    """Use of a column.

    Example:
        >>> Use.TUNED.value
        'tuned'
    """

    TUNED = "tuned"
    SCALE = "scale"
    FIDELITY = "fidelity"
    LOSS = "loss"
    COST = "cost"
    SECONDS = "seconds"
    STATUS = "status"
    LEFT_OUT = "left out"


@dataclass(frozen=True, slots=True)
class Guess:
    """What one column was taken for.

    Attributes:
        column: Name of the column.
        use: Its use.
        kind: Scale and role of a setting, axis of a size, direction of a loss.
        values: Its values in short, such as "0.0001 to 0.1".
        reason: Reason for the use.

    Example:
        >>> print(Guess("lr", Use.TUNED, "log, role lr", "0.0001 to 0.1", "well-known name"))
        lr: tuned (log, role lr), 0.0001 to 0.1; well-known name
    """

    column: str
    use: Use
    kind: str
    values: str
    reason: str

    def __str__(self) -> str:
        kind = f" ({self.kind})" if self.kind else ""
        return f"{self.column}: {self.use.value}{kind}, {self.values}; {self.reason}"


@dataclass(frozen=True, slots=True)
class Guesses:
    """What every column was taken for, and what became of the rows; `print` shows one table.

    Attributes:
        columns: One guess a column, used ones first.
        rows: Sentences on the rows: how many were read, left out and failed, and why.

    Example:
        >>> print(Guesses((Guess("lr", Use.TUNED, "log", "1 to 2", "its name"),), ("2 rows read",)))
        column  read as     values  because
        lr      tuned, log  1 to 2  its name
        2 rows read
    """

    columns: tuple[Guess, ...]
    rows: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Guess]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)

    def __getitem__(self, column: str) -> Guess:
        """Return the guess of a column.

        Raises:
            KeyError: If there is no such column.
        """
        for guess in self.columns:
            if guess.column == column:
                return guess
        raise KeyError(f"no column {column!r}; there are {[g.column for g in self.columns]}")

    @printable_str
    def __str__(self) -> str:
        table = [("column", "read as", "values", "because")]
        for guess in self.columns:
            use = f"{guess.use.value}, {guess.kind}" if guess.kind else guess.use.value
            table.append((_cut(guess.column), use, _cut(guess.values), guess.reason))
        widths = [max(len(row[j]) for row in table) for j in range(3)]
        lines = [
            "  ".join([*(cell.ljust(w) for cell, w in zip(row, widths, strict=False)), row[3]])
            for row in table
        ]
        return "\n".join([*(line.rstrip() for line in lines), *self.rows])


def _cut(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
