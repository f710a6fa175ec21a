"""Large studies: many trials, reports, metrics, dimensions, categories and conditions.

    OMP_NUM_THREADS=1 python -m benchmarks load
    OMP_NUM_THREADS=1 python -m benchmarks load --cases "2,000 trials" --at 100 200

Each case is one study in a process that does nothing else; the training function takes no time.
Printed are the seconds of the whole study, imports aside, and those of them that the driver
computed, which other programs on the machine lengthen less; the driver's computing time of the mean
and of the longest ask (between one result and the next start); the seconds to read the study again
where it is stored; and the peak resident memory of the driver.

The cases of many trials also print open files, processes and memory on the way, which must stay as
they are. Where models are fitted an ask takes tens of milliseconds or more, so the same trials are
also run with a training function that diverges.
"""

from __future__ import annotations

import argparse
import logging
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.markdown import table_head, table_row
from hpo import (
    Budget,
    Callback,
    Categorical,
    Context,
    Float,
    Observation,
    Trial,
    load_result,
    optimize,
)
from hpo.space import Parameter
from hpo.study.callbacks import StudyState

ASKED = 30  # trials of the cases about asks
METRICS = 1_000
COLUMNS = (
    "case",
    "2,000 trials",
    "study, s",
    "driver, s",
    "mean ask, ms",
    "longest ask, ms",
    "read, s",
    "peak, MiB",
)
WATCHED = (
    "trials told",
    "s",
    "driver, s",
    "open files",
    "processes",
    "driver, MiB",
    "workers, MiB",
)

Train = Callable[[dict[str, Any], Context], Any]


@dataclass(frozen=True)
class Case:
    """One study.

    Attributes:
        space: Its parameters.
        train: Its training function.
        trials: Number of trials.
        stored: Whether it is kept in an SQLite file.
        workers: Number of trials at a time.
    """

    space: Mapping[str, Parameter]
    train: Train
    trials: int = ASKED
    stored: bool = False
    workers: int = 1


def bowl(config: dict[str, Any], ctx: Context) -> float:
    """Return a smooth loss of the numeric values; any text costs its length."""
    return sum((v - 0.3) ** 2 if isinstance(v, float) else len(str(v)) for v in config.values())


def diverging(config: dict[str, Any], ctx: Context) -> float:
    """Return NaN: while no run was completed, an ask fits no model and takes milliseconds."""
    return math.nan


def reporting(config: dict[str, Any], ctx: Context, *, reports: int = 100_000) -> float:
    """Report losses with a metric each."""
    for step in range(reports):
        ctx.report(step=step, loss=1.0 / (step + 1), metrics={"lr": 0.1})
    return 1.0 / reports


def measuring(config: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Return `METRICS` metrics, and report as many at ten steps."""
    metrics = {f"metric {i}": i / 7 for i in range(METRICS)}
    for step in range(10):
        ctx.report(step=step, loss=1.0, metrics=metrics)
    return {"loss": bowl(config, ctx), **metrics}


def floats(count: int) -> dict[str, Parameter]:
    """Return `count` parameters in [0, 1]."""
    return {f"x{i}": Float(0.0, 1.0) for i in range(count)}


def conditional(count: int) -> dict[str, Parameter]:
    """Return a choice of ten models with `count` parameters in all, each active under one model."""
    models = [f"model {i}" for i in range(10)]
    own: dict[str, Parameter] = {
        f"x{i}": Float(0.0, 1.0, when=("model", [models[i % 10]])) for i in range(count)
    }
    return {"model": Categorical(models), **own}


CASES: Mapping[str, Case] = {
    "2,000 trials": Case(floats(1), bowl, trials=2000, stored=True, workers=2),
    "2,000 trials that diverge": Case(floats(1), diverging, trials=2000, stored=True, workers=2),
    "100,000 reports, in memory": Case(floats(1), reporting, trials=1),
    "100,000 reports, SQLite": Case(floats(1), reporting, trials=1, stored=True),
    "10,000 reports, 2 workers": Case(
        floats(1), partial(reporting, reports=10_000), trials=1, stored=True, workers=2
    ),
    "1,000 metrics, in memory": Case(floats(1), measuring),
    "1,000 metrics, SQLite": Case(floats(1), measuring, stored=True),
    "1,000 dimensions": Case(floats(1000), bowl),
    "500 categories": Case({"kind": Categorical([f"{i:x}" for i in range(500)])}, bowl),
    "200 conditional parameters": Case(conditional(200), bowl),
}


@dataclass
class Watch(Callback):
    """Notes the asks of a study, and what it holds open after some of its trials.

    Attributes:
        at: Numbers of told trials after which to look.
        asks: Computing time of each ask in seconds: from a result, or the start of the study, to
            the next start.
        told: Number of trials told so far.
        began: Time at the start of the study, and computing time of this process then.
    """

    at: frozenset[int] = frozenset()
    asks: list[float] = field(default_factory=list)
    told: int = 0
    began: tuple[float, float] = (0.0, 0.0)
    _last: float = 0.0

    def on_start(self, run: StudyState) -> None:
        """Start the clock: the study is open, and all modules are loaded."""
        self._last = time.process_time()
        self.began = (time.perf_counter(), self._last)

    def on_trial_start(self, run: StudyState, trial: Trial) -> None:
        """Note the seconds of an ask."""
        now = time.process_time()
        self.asks.append(now - self._last)
        self._last = now

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        """Print what is open after some of the trials."""
        self.told += 1
        if self.told in self.at:
            seconds = (f"{amount:.0f}" for amount in self.seconds())
            print(table_row([self.told, *seconds, *held()]), flush=True)
        self._last = time.process_time()

    def seconds(self) -> tuple[float, float]:
        """Return the seconds since the start of the study, and the driver's computing time."""
        return time.perf_counter() - self.began[0], time.process_time() - self.began[1]


def held() -> tuple[int, int, int, int]:
    """Return open files, processes below this one, and MiB of this process and of those."""
    below = descendants(os.getpid())
    return (
        len(list(Path("/proc/self/fd").iterdir())),
        len(below),
        resident([os.getpid()]),
        resident(below),
    )


def descendants(process: int) -> list[int]:
    """Return the processes that `process` or one of its children started, on Linux."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it has ended
            parents[int(entry.name)] = int(fields[1])
    found, before = {process}, 0
    while len(found) > before:
        before = len(found)
        found |= {child for child, parent in parents.items() if parent in found}
    return sorted(found - {process})


def resident(processes: Sequence[int]) -> int:
    """Return the resident MiB of processes, those that have ended left out."""
    pages = 0
    for process in processes:
        try:
            pages += int(Path(f"/proc/{process}/statm").read_text().split()[1])
        except OSError:
            continue
    return pages * resource.getpagesize() // 2**20


def run(case: Case, trials: int, at: Sequence[int], folder: Path) -> list[str]:
    """Run the study of a case, and return the cells of its row after the name.

    Args:
        case: The study.
        trials: Number of its trials.
        at: Numbers of told trials after which to print what is open.
        folder: Empty folder for its files.
    """
    logging.getLogger("hpo").setLevel(logging.ERROR)  # of each trial that diverges
    watch = Watch(at=frozenset(at))
    where: dict[str, Any] = {}
    if case.stored:
        where = {"name": "load", "storage": f"sqlite:///{folder}/load.db"}
    optimize(
        case.train,
        case.space,
        budget=Budget(trials=trials),
        workers=case.workers,
        callbacks=[watch],
        **where,
    )
    seconds, read = watch.seconds(), ""
    if case.stored:
        start = time.perf_counter()
        load_result(where["name"], storage=where["storage"])
        read = f"{time.perf_counter() - start:.1f}"
    return [
        str(watch.told),
        *(f"{amount:.1f}" for amount in seconds),
        f"{1e3 * sum(watch.asks) / len(watch.asks):.0f}",
        f"{1e3 * max(watch.asks):.0f}",
        read,
        str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024),
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks load`."""
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES])
    parser.add_argument("--trials", type=int, help="in place of each case's own")
    parser.add_argument("--at", type=int, nargs="+", default=[200, 1000, 2000])
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    if given.one:
        (name,) = given.cases
        with tempfile.TemporaryDirectory() as folder:
            cells = run(CASES[name], given.trials or CASES[name].trials, given.at, Path(folder))
        print(table_row([name, *cells]))
        return 0
    watched: dict[str, list[str]] = {}
    print("\n".join(table_head(COLUMNS)), flush=True)
    for name in given.cases:
        words = ["--one", "--cases", name, "--at", *map(str, given.at)]
        words += [] if given.trials is None else ["--trials", str(given.trials)]
        command = [sys.executable, "-m", "benchmarks", "load", *words]
        answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        *watched[name], row = answer.stdout.splitlines()
        print(row, flush=True)
    for name, rows in watched.items():
        if rows:
            print("\n".join(["", name, "", *table_head(WATCHED), *rows]))
    return 0
