"""What runs of other tasks are worth to a search, and what unrelated ones cost.

    OMP_NUM_THREADS=1 python -m benchmarks transfer run --seeds 3
    OMP_NUM_THREADS=1 python -m benchmarks transfer run --histories shuffled mixed foreign \\
        --methods scaletune scaletune-alone
    python -m benchmarks transfer report
    python -m benchmarks transfer report --write docs/appendix/benchmarks_transfer.md

Leave one task out: each task is searched with random runs of the other tasks of its family at hand
(`benchmarks.experiments.transfer.histories`), by scaletune with and without them and by rivals
(`methods`). Rows measured once are in `--out` and are not run again. `report` prints regret and
rank; `--write` puts the tables between the marks of a Markdown file.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import rankdata

from benchmarks import environments, tasks
from benchmarks.experiments.transfer.histories import DESIGN, FAMILIES, KINDS, family, history
from benchmarks.experiments.transfer.methods import ENVIRONMENTS, METHODS
from benchmarks.jsonlines import append_row, read_rows
from benchmarks.markdown import table_head, table_row

OUT = Path("runs/transfer.jsonl")
TRIALS = 25
SHOWN = (1, 3, 5, 10, 25)  # trials after which regret is shown
OURS, ALONE = "scaletune", "scaletune-alone"
NONE = "none"  # the history of a method that uses none
BEGIN, END = "<!-- transfer tables -->", "<!-- end of transfer tables -->"
_BLIND = (ALONE, "random")  # methods that use no history: one row serves every kind
_TIE = 1e-6  # regrets closer than this are equal

#: (method, task, seed, kind of history) -> best regret after each trial.
Rows = dict[tuple[str, str, int, str], list[float]]


def one(method: str, task: str, seed: int, kind: str, trials: int) -> list[float]:
    """Return the best regret after each trial of one study.

    Args:
        method: key of `METHODS`.
        task: name of the task.
        seed: seed of the method, of its histories and of the task's noise.
        kind: key of `histories.KINDS`, or "none".
        trials: number of trials.
    """
    loaded = tasks.load(task)
    peer = METHODS[method](loaded, {} if kind == NONE else history(kind, task, seed), seed)
    rng = np.random.default_rng([seed, 9])
    best, curve = 1.0, []
    for _ in range(trials):
        job = peer.ask()
        assert job is not None  # a method of full runs always has one
        evaluation = loaded.evaluate(job.config, None, rng)
        peer.tell(job, evaluation)
        if evaluation.loss is not None:
            best = min(best, loaded.bounds.regret(evaluation.loss))
        curve.append(float(f"{best:.6g}"))
    return curve


def measure(
    methods: Iterable[str],
    names: Iterable[str],
    seeds: Iterable[int],
    kinds: Iterable[str],
    *,
    trials: int,
    out: Path,
) -> None:
    """Run what the file lacks, seed by seed, so that a stopped run is still a fair comparison."""
    done = load(out)
    for seed, kind, task, method in product(seeds, kinds, names, methods):
        given = NONE if method in _BLIND else kind
        key = (method, task, seed, given)
        if key in done:
            continue
        started = time.process_time()
        environment = ENVIRONMENTS.get(method, "main")
        here = environments.python(environment) == Path(sys.executable)
        if environment == "main" or here:
            curve = one(*key, trials=trials)
        elif environments.is_made(environment):
            curve = _elsewhere(environment, key, trials)
        else:
            continue
        done[key] = curve
        row = {"method": method, "task": task, "seed": seed, "history": given, "regret": curve}
        append_row(out, row | {"seconds": round(time.process_time() - started, 2)})


def _elsewhere(environment: str, key: tuple[str, str, int, str], trials: int) -> list[float]:
    """Run `one` with the interpreter of another environment."""
    command = [str(environments.python(environment)), "-m", "benchmarks", "transfer", "one"]
    command += [*map(str, key), "--trials", str(trials)]
    printed = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    curve: list[float] = json.loads(printed.splitlines()[-1])
    return curve


def load(path: Path) -> Rows:
    """Return the rows of the file."""
    return {
        (row["method"], row["task"], row["seed"], row["history"]): row["regret"]
        for row in read_rows(path)
    }


def regret_table(rows: Rows, kind: str, chosen: Callable[[str], bool] = lambda _: True) -> str:
    """Return mean regret by family and method with one kind of history, as Markdown.

    Only studies that every method of the table has run count.

    Args:
        rows: measured rows.
        kind: kind of history.
        chosen: whether a task counts.
    """
    methods, studies = _common(rows, kind, chosen)
    lines = table_head(["tasks", "method", *(f"n = {n}" for n in SHOWN), "mean rank at 10, 25"])
    for name in (*FAMILIES, "all"):
        members = [study for study in studies if name in ("all", family(study[0]))]
        if not members:
            continue
        ranks = {n: _ranks(rows, kind, methods, members, n) for n in (10, 25)}
        for i, method in enumerate(methods):
            curves = np.array([rows[_key(method, study, kind)] for study in members])
            cells = [f"{curves[:, n - 1].mean():.4f}" for n in SHOWN]
            rank = ", ".join(f"{ranks[n][i]:.2f}" for n in (10, 25))
            label = f"{name} ({len(members)} studies)" if i == 0 else ""
            lines.append(table_row([label, method, *cells, rank]))
    return "\n".join(lines)


def ratio_table(rows: Rows) -> str:
    """Return ours with other tasks over ours without, by kind of history, as Markdown."""
    lines = table_head(
        ["history", "tasks", "studies", *(f"n = {n}" for n in SHOWN)],
    )
    halves: Mapping[str, Callable[[str], bool]] = {
        "design": lambda task: task in DESIGN,
        "held out": lambda task: task not in DESIGN,
        "all": lambda task: True,
    }
    for kind, (half, chosen) in product(KINDS, halves.items()):
        studies = [
            (task, seed)
            for method, task, seed, given in rows
            if method == OURS and given == kind and chosen(task)
            if _key(ALONE, (task, seed), kind) in rows
        ]
        if not studies:
            continue
        ours, alone = (
            np.mean([rows[_key(method, study, kind)] for study in studies], axis=0)
            for method in (OURS, ALONE)
        )
        cells = [
            f"{ours[n - 1]:.4f} / {alone[n - 1]:.4f} = {ours[n - 1] / alone[n - 1]:.2f}"
            for n in SHOWN
        ]
        lines.append(table_row([kind, half, len(studies), *cells]))
    return "\n".join(lines)


def _key(method: str, study: tuple[str, int], kind: str) -> tuple[str, str, int, str]:
    return (method, *study, NONE if method in _BLIND else kind)


def _common(
    rows: Rows, kind: str, chosen: Callable[[str], bool]
) -> tuple[list[str], list[tuple[str, int]]]:
    """Return methods with this history, and the studies that all of them have run."""
    ran: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for method, task, seed, given in rows:
        if given == kind or method in _BLIND:
            ran[method].add((task, seed))
    methods = [method for method in METHODS if method in ran]
    studies = set.intersection(*ran.values()) if ran else set()
    return methods, sorted(study for study in studies if chosen(study[0]))


def _ranks(
    rows: Rows, kind: str, methods: Sequence[str], studies: Sequence[tuple[str, int]], n: int
) -> list[float]:
    """Return the mean rank of each method after `n` trials; ties share their mean rank."""
    table = [[rows[_key(m, study, kind)][n - 1] for m in methods] for study in studies]
    ranks = rankdata(np.round(np.array(table) / _TIE), axis=1)
    return [float(rank) for rank in ranks.mean(axis=0)]


def report(rows: Rows) -> Iterator[str]:
    """Yield the paragraphs of the report."""
    yield "Regret of scaletune with the other tasks, without them, and their ratio:"
    yield ratio_table(rows)
    yield "Mean regret and rank of every method with the related tasks as history:"
    yield regret_table(rows, "related")


def inserted(text: str, shown: str) -> str:
    """Return `text` with `shown` between the two marks.

    Raises:
        ValueError: if the marks are not there.
    """
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not (found and closed):
        raise ValueError(f"the file must hold the lines {BEGIN!r} and {END!r}; add them")
    return f"{before}{BEGIN}\n\n{shown}\n\n{END}{after}"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks transfer`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    everything = [task for members in FAMILIES.values() for task in members]
    part = commands.add_parser("run", help="run what the file lacks")
    part.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    part.add_argument("--tasks", nargs="+", default=everything, metavar="TASK")
    part.add_argument("--histories", nargs="+", default=["related"], choices=list(KINDS))
    part.add_argument("--seeds", type=int, default=3)
    part.add_argument("--first-seed", type=int, default=0)
    part.add_argument("--trials", type=int, default=TRIALS)
    part.add_argument("--out", type=Path, default=OUT)
    part.set_defaults(action=_run)
    part = commands.add_parser("report", help="print the tables")
    part.add_argument("--out", type=Path, default=OUT)
    part.add_argument("--write", type=Path, metavar="FILE", help="Markdown with the two marks")
    part.set_defaults(action=_report)
    part = commands.add_parser("one", help="one study: prints the best regret after each trial")
    part.add_argument("method", choices=list(METHODS))
    part.add_argument("task")
    part.add_argument("seed", type=int)
    part.add_argument("history", choices=[*KINDS, NONE])
    part.add_argument("--trials", type=int, default=TRIALS)
    part.set_defaults(action=_one)


def _run(given: argparse.Namespace) -> int:
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    unmade = {ENVIRONMENTS[m] for m in given.methods if m in ENVIRONMENTS}
    for name in sorted(e for e in unmade if not environments.is_made(e)):
        print(f"missing: run `python -m benchmarks env {name}` for its methods", file=sys.stderr)
    measure(given.methods, given.tasks, seeds, given.histories, trials=given.trials, out=given.out)
    return 0


def _report(given: argparse.Namespace) -> int:
    shown = "\n\n".join(report(load(given.out)))
    print(shown)
    if given.write:
        given.write.write_text(inserted(given.write.read_text(encoding="utf-8"), shown))
    return 0


def _one(given: argparse.Namespace) -> int:
    curve: Any = one(given.method, given.task, given.seed, given.history, given.trials)
    print(json.dumps(curve))
    return 0
