"""Whether the answer at the target is right and honest: one command, one table, with rivals.

    OMP_NUM_THREADS=1 python -m benchmarks target
    OMP_NUM_THREADS=1 python -m benchmarks target --only chinchilla ncpl --out runs/target.jsonl

Each row of the table is a figure of one question: what it must be, what scaletune reaches, and what
rivals reach. Rows measured once are read from `--out`; `--write FILE` puts the table between the
marks of a Markdown file.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.experiments.target import chinchilla, failures, sweeps, transfer
from benchmarks.experiments.target.question import Question, RivalMissing, Row, table
from benchmarks.jsonlines import append_row, read_rows
from benchmarks.task import DataMissing

QUESTIONS: tuple[Question, ...] = (
    *chinchilla.QUESTIONS,
    *sweeps.QUESTIONS,
    *transfer.QUESTIONS,
    *failures.QUESTIONS,
)
BEGIN, END = "<!-- target table -->", "<!-- end of target table -->"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks target`."""
    names = [question.name for question in QUESTIONS]
    methods = dict.fromkeys(name for question in QUESTIONS for name in question.methods)
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="NAME",
        default=names,
        help=f"questions, or the first words of some, of: {', '.join(names)}",
    )
    parser.add_argument("--methods", nargs="+", choices=list(methods), metavar="METHOD")
    parser.add_argument("--seeds", type=int, help="of each question that draws; default: its own")
    parser.add_argument("--out", type=Path, help="file to append to; what it holds is not rerun")
    parser.add_argument("--write", type=Path, metavar="FILE", help="Markdown with the two marks")
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    questions = chosen(given.only)
    rows = [_read(line) for line in read_rows(given.out)] if given.out else []
    for row in measured(questions, given.methods, given.seeds, rows):
        line = {
            "question": row.question,
            "case": row.case,
            "method": row.method,
            "seed": row.seed,
            "values": {name: float(f"{value:.6g}") for name, value in row.values.items()},
        }
        print(json.dumps(line), file=sys.stderr, flush=True)
        if given.out:
            append_row(given.out, line)
        rows.append(row)
    shown = table(questions, rows)
    print(shown)
    if given.write:
        given.write.write_text(inserted(given.write.read_text(encoding="utf-8"), shown))
    return 0


def chosen(names: Iterable[str]) -> tuple[Question, ...]:
    """Return the questions of these names, or whose names begin with one and a dash.

    Raises:
        ValueError: for a name that fits none.
    """
    kept = []
    for name in names:
        fitting = [q for q in QUESTIONS if q.name == name or q.name.startswith(f"{name}-")]
        if not fitting:
            known = [question.name for question in QUESTIONS]
            raise ValueError(f"`--only` takes names out of {known}, got {name!r}")
        kept += fitting
    return tuple(question for question in QUESTIONS if question in kept)


def measured(
    questions: Sequence[Question],
    methods: Sequence[str] | None,
    seeds: int | None,
    done: Iterable[Row],
) -> Iterator[Row]:
    """Yield what is asked for and not done yet, as soon as it is measured.

    A method that cannot run here, or a table that is not here, is named once on standard error.

    Args:
        questions: what to measure.
        methods: methods to measure; all if None.
        seeds: number of seeds of questions that draw; their own if None.
        done: rows that are known.
    """
    known = {row.key for row in done}
    told: set[str] = set()
    for question in questions:
        count = question.seeds if seeds is None or question.seeds == 1 else seeds
        for case in question.cases:
            for method in question.methods:
                if methods is not None and method not in methods:
                    continue
                for seed in range(count):
                    key = (question.name, case, method, seed)
                    if key in known or question.skipped(case, method, seed):
                        continue
                    try:
                        values = question.measure(case, method, seed)
                    except (RivalMissing, DataMissing) as reason:
                        if str(reason) not in told:
                            told.add(str(reason))
                            print(f"left out: {method}: {reason}", file=sys.stderr, flush=True)
                        break
                    yield Row(*key, values)


def _read(line: dict[str, object]) -> Row:
    return Row(**line)  # type: ignore[arg-type]


def inserted(page: str, shown: str) -> str:
    """Return a page with the table between its two marks.

    Raises:
        ValueError: if a mark is missing.

    Example:
        >>> inserted(f"a\\n{BEGIN}\\n{END}\\nb", "| x |").splitlines()[2]
        '| x |'
    """
    before, begun, rest = page.partition(BEGIN)
    _, ended, after = rest.partition(END)
    if not begun or not ended:
        raise ValueError(f"`--write` needs a file with the lines {BEGIN!r} and {END!r}; add them")
    return f"{before}{BEGIN}\n{shown}\n{END}{after}"
