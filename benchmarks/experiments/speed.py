"""Time to a good answer: how much sooner multi-fidelity methods reach a regret.

    OMP_NUM_THREADS=1 python -m benchmarks speed run --out DIR --workers 4     # again: continues
    OMP_NUM_THREADS=1 python -m benchmarks speed run --out DIR --workers 64 \\
        --methods scaletune-levels --enough 0.1
    python -m benchmarks speed report DIR      # docs/appendix/benchmarks_speed.md, its figure

Every study runs until the virtual clock shows the time of 40 full trainings, whatever it trained by
then: all methods have equal time, in which W workers of random search do about 40 W full trainings.

Notation
--------
clock    virtual time in mean full trainings of the task (recorded costs of 256 random configs)
regret   normalized, of the best full-fidelity run that ended by then; 1 before the first
target   the median over seeds of the final regret of the method that sets it
time     to a target: the median over seeds of the clock at which a study first reaches it, which is
         the clock at which the method's median curve comes down to the target. A study that never
         reaches it counts with the whole 40
speed    time of the method that set the target over the time of ours

Medians are the lower of the middle two, so that the method which sets a target has reached it by
its end. They are not paired by seed: studies of equal seed have no config in common, so a pair is
as noisy as any two studies, and every lucky study would set a target of its own. The bootstrap
draws tasks and, within each, the seeds of each method anew, and finds target and best rival anew in
each draw.

`--enough Q` stops a study once its figures cannot change any more: at the lowest Q-quantile over
seeds of the final regrets of any other method in the table (Q = 0: of any study). Its regret then
stays what it is, and a drawn target below it counts as unreached, against that method.

DIR holds `studies.jsonl`, one line a study, only ever appended to, by any number of processes; the
last line of a study counts, and a study whose line is damaged is run again.
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import environments, peers, tasks
from benchmarks.analysis import Interval, percentiles
from benchmarks.environments import ROOT
from benchmarks.jsonlines import append_row, read_rows
from benchmarks.markdown import table_head, table_row
from benchmarks.simulate import Ending, StudyLimits, full_cost, simulate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

Array = NDArray[np.float64]

__all__ = [
    "HORIZON",
    "RegretCurve",
    "SpeedComparison",
    "SpeedStudy",
    "compare",
    "follow",
    "pooled",
    "read",
]

PAGES = ROOT / "docs" / "appendix"
TABLE = "studies.jsonl"
HORIZON = 40.0
MARKS = (1.0, 2.0, 5.0, 10.0, 20.0, 40.0)
OURS, RANDOM = "scaletune-levels", "random"
ASHA = ("asha", "plain-asha")
RIVALS = (
    *ASHA,
    *("hyperband", "tpe-hyperband", "plain-hyperband"),
    *("one-epoch", "dehb", "bohb", "asha-cqr"),
)
METHODS = (RANDOM, "optuna-tpe", *RIVALS)
FAMILIES = ("lcbench", "rpart", "curve-bank", "crossing")
ERROR, UNSUPPORTED, ENOUGH, HORIZON_REACHED = "error", "unsupported", "enough", "horizon"
_UNIT_CONFIGS = 256
_DRAWS = 1000
_LEVEL = 0.90


@dataclass(frozen=True, slots=True, order=True)
class SpeedStudy:
    """One method on one task under one seed, with so many simulated workers."""

    workers: int
    task: str
    method: str
    seed: int


@dataclass(frozen=True, slots=True)
class RegretCurve:
    """The result of a study: regret against time, and how the study ended.

    Attributes:
        clock: time of each change of the incumbent, ascending.
        regret: regret after each change.
        ending: "horizon", "enough", an `Ending` of the simulation, "error" or "unsupported".
        end: clock of the last finished job.
        jobs: number of finished jobs.
        seconds: real time of the method's own asks and tells.
    """

    clock: tuple[float, ...] = ()
    regret: tuple[float, ...] = ()
    ending: str = HORIZON_REACHED
    end: float = HORIZON
    jobs: int = 0
    seconds: float = 0.0

    def at(self, clocks: Array) -> Array:
        """Return the regret at each of some clocks, 1 before the first full run."""
        index = np.searchsorted(self.clock, clocks, side="right")
        return np.asarray(np.array([1.0, *self.regret])[index])

    def first(self, targets: Array) -> Array:
        """Return the clock at which each target is first reached; the horizon where never."""
        there = np.array([*self.regret, -math.inf]) <= targets[:, None]
        return np.asarray(np.array([*self.clock, HORIZON])[there.argmax(axis=1)])


# --- running -------------------------------------------------------------------------------------


@cache
def unit(name: str) -> float:
    """Return the mean cost of a full training of a task, the unit of the clock."""
    return full_cost(tasks.load(name), count=_UNIT_CONFIGS)


def follow(
    study: SpeedStudy, *, enough: float | None = None, seconds: float | None = None
) -> RegretCurve:
    """Run one study; a method that fails keeps the curve it had.

    Args:
        study: study to run.
        enough: regret at which to stop; None to run to the horizon.
        seconds: limit on the method's own time, after which it is stopped.
    """
    clock: list[float] = []
    regret: list[float] = []
    ending, now, jobs, own = HORIZON_REACHED, 0.0, 0, 0.0
    task, one = tasks.load(study.task), unit(study.task)
    bounds = task.bounds
    try:
        trials = math.ceil(HORIZON * study.workers)
        for event in simulate(
            task,
            peers.make(study.method, task, seed=study.seed, trials=trials),
            seed=study.seed,
            limits=StudyLimits(cost=math.inf, seconds=seconds),
            workers=study.workers,
        ):
            if isinstance(event, Ending):
                ending = event.value
                break
            if event.time > HORIZON * one:
                break
            now, jobs, own = event.time / one, jobs + 1, own + event.ask_s + event.tell_s
            if event.incumbent is None:
                continue
            reached = bounds.regret(event.incumbent)
            if not regret or reached != regret[-1]:
                clock.append(now)
                regret.append(reached)
            if enough is not None and reached <= enough:
                ending = ENOUGH
                break
    except peers.Unsupported as refusal:
        print(f"{study}: {refusal}", file=sys.stderr)
        ending = UNSUPPORTED
    except Exception:  # a rival's bug must not end the comparison; it is on record
        traceback.print_exc()
        ending = ERROR
    return RegretCurve(tuple(clock), tuple(regret), ending, now, jobs, own)


def read(path: Path) -> dict[SpeedStudy, RegretCurve]:
    """Return the studies in a file, of each the one written last."""
    key = tuple(field.name for field in fields(SpeedStudy))
    studies: dict[SpeedStudy, RegretCurve] = {}
    for row in read_rows(path):
        study = SpeedStudy(**{name: row.pop(name) for name in key})
        row |= {name: tuple(row[name]) for name in ("clock", "regret")}
        studies[study] = RegretCurve(**row)
    return studies


def append(path: Path, study: SpeedStudy, curve: RegretCurve) -> None:
    """Append one study to a file."""
    append_row(path, asdict(study) | asdict(curve))


def enough_for(
    study: SpeedStudy, done: Mapping[SpeedStudy, RegretCurve], quantile: float
) -> float | None:
    """Return the lowest `quantile` over seeds of any other method's final regrets, or None."""
    ends: dict[str, list[float]] = {}
    for other, curve in done.items():
        if (other.workers, other.task) == (study.workers, study.task) and other.method in METHODS:
            ends.setdefault(other.method, []).extend(_ends([curve]))
    ends.pop(study.method, None)
    return min((float(np.quantile(e, quantile)) for e in ends.values()), default=None)


def waiting(
    done: Mapping[SpeedStudy, RegretCurve],
    planned: Iterable[SpeedStudy],
    quantile: float | None,
    seconds: float | None = None,
) -> Iterator[tuple[SpeedStudy, float | None]]:
    """Yield the studies still to be run, each with the regret at which to stop it.

    A study that was stopped, by its regret or by its method's `seconds`, is run again if it may run
    further now. A task whose pool has no more members than there are workers is left out: every
    method starts all of it at once.
    """
    for study in planned:
        pool = tasks.load(study.task).pool
        if pool is not None and len(pool) <= study.workers:
            continue
        enough = None if quantile is None else enough_for(study, done, quantile)
        before = done.get(study)
        if before is None:
            yield study, enough
        elif before.ending == ENOUGH:
            if enough is None or before.regret[-1] > enough:
                yield study, enough
        elif before.ending == Ending.SECONDS.value:
            if seconds is None or before.seconds < seconds:
                yield study, enough


def _run(given: argparse.Namespace) -> int:
    """Run what is not done yet, seed by seed, each method in the interpreter of its environment."""
    given.out.mkdir(parents=True, exist_ok=True)
    interpreters = _by_interpreter(given.methods)
    seeds = range(given.first_seed, given.first_seed + given.seeds)
    for workers, seed, (python, methods) in product(given.workers, seeds, interpreters.items()):
        _run_methods(given, workers, seed, python, methods)
    return 0


def _by_interpreter(methods: Sequence[str]) -> dict[Path, list[str]]:
    """Interpreter -> the methods that run in it; those that cannot run here are left out."""
    found: dict[Path, list[str]] = {}
    for method in methods:
        reason = peers.missing(method)
        if reason is not None:
            print(f"missing: {method}: {reason}", file=sys.stderr)
            continue
        python = environments.python(peers.PEERS[method].environment)
        found.setdefault(python, []).append(method)
    return found


def _run_methods(
    given: argparse.Namespace, workers: int, seed: int, python: Path, methods: Sequence[str]
) -> None:
    """Run what is not done yet of one seed, here or in the interpreter of these methods."""
    table = given.out / TABLE
    names = [task for name in given.tasks for task in tasks.SUITES.get(name, (name,))]
    planned = [SpeedStudy(workers, task, method, seed) for method in methods for task in names]
    todo = list(waiting(read(table), planned, given.enough, given.seconds))
    if todo and python != Path(sys.executable):
        _delegate(python, given, workers, seed, methods)
        return
    for study, enough in todo:
        curve = follow(study, enough=enough, seconds=given.seconds)
        append(table, study, curve)
        print(study, curve.ending, f"{curve.seconds:.1f} s", flush=True)


def _delegate(
    python: Path, given: argparse.Namespace, workers: int, seed: int, methods: Sequence[str]
) -> None:
    """Run the same command for one seed in another interpreter; its failure is no error here."""
    words: list[object] = ["--out", given.out.resolve(), "--workers", workers, "--seeds", 1]
    words += ["--first-seed", seed, "--methods", *methods, "--tasks", *given.tasks]
    for name in ("enough", "seconds"):
        value = getattr(given, name)
        words += [] if value is None else [f"--{name}", value]
    subprocess.run(
        [python, "-m", "benchmarks", "speed", "run", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )


# --- speeds --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SpeedComparison:
    """One method against those that may set the target, on one task.

    Attributes:
        task: name of the task.
        setter: method that set the target.
        target: regret to reach.
        theirs: time of the setter to the target.
        ours: time of our method to the target.
        reached: share of our studies that reached it.
        log_speeds: `(1 + draws,)` of ln theirs / ours; the measured one first, then those of the
            bootstrap.
    """

    task: str
    setter: str
    target: float
    theirs: float
    ours: float
    reached: float
    log_speeds: Array


def compare(
    task: str,
    curves: Mapping[str, Sequence[RegretCurve]],
    ours: str,
    setters: Sequence[str],
    rng: np.random.Generator,
    draws: int = _DRAWS,
) -> SpeedComparison:
    """Compare `ours` with the setter of the lowest target; of equals, with the first to reach it.

    Args:
        task: name of the task.
        curves: curves of each method on the task, by seed.
        ours: method whose speed is measured.
        setters: methods of which the best sets the target.
        rng: source of the bootstrap's draws.
        draws: number of bootstrap draws.
    """
    counts = {method: len(curves[method]) for method in (ours, *setters)}
    drawn = {
        method: np.vstack([np.arange(count), rng.integers(count, size=(draws, count))])
        for method, count in counts.items()
    }
    target, theirs, mine = (np.empty((len(setters), 1 + draws)) for _ in range(3))
    for row, setter in enumerate(setters):
        ends = _ends(curves[setter])
        picked = _middle(drawn[setter], ends[drawn[setter]])
        target[row] = ends[picked]
        for times, method in ((theirs, setter), (mine, ours)):
            first = np.array([curve.first(ends) for curve in curves[method]])
            clocks = first[drawn[method], picked[:, None]]
            times[row] = _middle(clocks, clocks)
    order = np.where(target == target.min(axis=0), theirs, np.inf)
    chosen = order.argmin(axis=0), np.arange(1 + draws)
    aim = float(target[chosen][0])
    return SpeedComparison(
        task=task,
        setter=setters[int(chosen[0][0])],
        target=aim,
        theirs=float(theirs[chosen][0]),
        ours=float(mine[chosen][0]),
        reached=float((_ends(curves[ours]) <= aim).mean()),
        log_speeds=np.log(theirs[chosen] / mine[chosen]),
    )


def _ends(curves: Sequence[RegretCurve]) -> Array:
    """Regrets at the horizon, `(S,)`."""
    return np.array([float(curve.at(np.array([HORIZON]))[0]) for curve in curves])


def _middle(values: NDArray[np.generic], keys: Array) -> NDArray[np.generic]:
    """Of each row of `values` the one whose key is the row's lower median."""
    order = np.argsort(keys, axis=1, kind="stable")
    return np.take_along_axis(values, order[:, [(keys.shape[1] - 1) // 2]], axis=1)[:, 0]


def pooled(comparisons: Sequence[SpeedComparison], rng: np.random.Generator) -> Interval:
    """Return the geometric mean of the speeds over tasks and its 90 % bootstrap interval."""
    logs = np.array([found.log_speeds for found in comparisons])  # (T, 1 + draws)
    picks = rng.integers(len(comparisons), size=(logs.shape[1] - 1, len(comparisons)))
    means = np.take_along_axis(logs[:, 1:].T, picks, axis=1).mean(axis=1)
    return Interval(*(math.exp(v) for v in (logs[:, 0].mean(), *percentiles(means, _LEVEL))))


# --- the page ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StudiesByTask:
    """The studies with one number of workers: task -> method -> curves by seed."""

    workers: int
    curves: Mapping[str, Mapping[str, Sequence[RegretCurve]]]

    @property
    def families(self) -> dict[str, list[str]]:
        """Tasks by family, where there are any."""
        own = {f: [t for t in tasks.SUITES[f] if t in self.curves] for f in FAMILIES}
        return {family: names for family, names in own.items() if names}

    def compared(
        self, names: Iterable[str], ours: str, setters: Sequence[str], rng: np.random.Generator
    ) -> list[SpeedComparison]:
        """Return one comparison for each task that has `ours` and any of the `setters`."""
        found = []
        for name in names:
            here = self.curves[name]
            there = [method for method in setters if method in here and method != ours]
            if ours in here and there:
                found.append(compare(name, here, ours, there, rng))
        return found

    def curve(self, names: Iterable[str], method: str, clocks: Array) -> Array | None:
        """Return the mean regret over seeds, then over those tasks that the method ran on."""
        own = [self.curves[name][method] for name in names if method in self.curves[name]]
        if not own:
            return None
        by_task = [np.mean([c.at(clocks) for c in curves], axis=0) for curves in own]
        return np.asarray(np.mean(by_task, axis=0))


def tables(done: Mapping[SpeedStudy, RegretCurve]) -> list[StudiesByTask]:
    """Sort the studies by number of workers."""
    sorted_in: dict[int, dict[str, dict[str, list[RegretCurve]]]] = {}
    for study, curve in sorted(done.items()):
        if curve.ending != UNSUPPORTED:
            methods = sorted_in.setdefault(study.workers, {}).setdefault(study.task, {})
            methods.setdefault(study.method, []).append(curve)
    return [StudiesByTask(workers, curves) for workers, curves in sorted_in.items()]


def page(found: Sequence[StudiesByTask], ours: str) -> str:
    """Return the page in Markdown."""
    text = [_INTRODUCTION.format(ours=ours)]
    for table in found:
        rng = np.random.default_rng(0)
        text.append(f"## {table.workers} workers\n")
        text += [*_headline(table, ours, rng), *_methods(table, rng), *_tasks(table, ours, rng)]
    return "\n".join(text)


_INTRODUCTION = """# Time to a good answer

This page is generated by `python -m benchmarks speed report`; `python -m benchmarks speed --help`
describes the protocol and the terms. Runs are simulated with recorded costs, so no time depends
on the machine. Time is counted in mean full trainings per worker, 40 in all.

The speed of {ours} is a ratio of two times to the same regret, medians over seeds: the
time of random search (or of the best multi-fidelity rival on the task) divided by that of
{ours}. The regret is the rival's median regret at the end. A study that never reaches
it counts with the full 40. Intervals are 90 % bootstrap intervals over tasks and seeds.

![Mean normalized regret against time](figures/speed.svg)
"""


def _headline(table: StudiesByTask, ours: str, rng: np.random.Generator) -> Iterator[str]:
    everything = [name for names in table.families.values() for name in names]
    if not table.compared(everything, ours, (RANDOM,), rng):
        yield f"No studies of {ours} yet.\n"
        return
    columns = (ours, "tasks", "speed against random", "speed against the best rival", "reached")
    yield from table_head(columns)
    for family, names in {**table.families, "all": everything}.items():
        random, best = (table.compared(names, ours, who, rng) for who in ((RANDOM,), RIVALS))
        if random and best:
            speeds = [_interval(pooled(found, rng)) for found in (random, best)]
            reached = [f"{np.mean([r.reached for r in found]):.0%}" for found in (random, best)]
            yield table_row([family, len(random), *speeds, ", ".join(reached)])
    yield ""
    for asha in ASHA:
        crossing = table.compared(table.families.get("crossing", ()), ours, (asha,), rng)
        if crossing:
            speed = pooled(crossing, rng)
            yield (
                f"On tasks whose curves cross, our time over that of `{asha}`, both to the"
                f" final regret of `{asha}`:"
                f" {1 / speed.value:.2f} ({1 / speed.high:.2f} to {1 / speed.low:.2f}).\n"
            )


def _methods(table: StudiesByTask, rng: np.random.Generator) -> Iterator[str]:
    marks = [f"{mark:g}" for mark in MARKS]
    columns = ["method, mean regret after", "seeds", *marks]
    yield from table_head([*columns, "speed against random", "ms per job", "cut short"])
    everything = [name for names in table.families.values() for name in names]
    for method in _present(table):
        regret = table.curve(everything, method, np.array(MARKS))
        assert regret is not None  # it is present
        own = [table.curves[name][method] for name in everything if method in table.curves[name]]
        seeds = sorted({len(curves) for curves in own})
        flat = [curve for curves in own for curve in curves]
        cost = 1e3 * sum(c.seconds for c in flat) / max(sum(c.jobs for c in flat), 1)
        compared = table.compared(everything, method, (RANDOM,), rng)
        cut = {e: sum(c.ending == e for c in flat) for e in (ENOUGH, Ending.SECONDS.value, ERROR)}
        count = f"{seeds[0]}{f' to {seeds[-1]}' if len(seeds) > 1 else ''}"
        yield table_row(
            [
                method,
                count if len(own) == len(everything) else f"{count} on {len(own)} tasks",
                *(f"{value:.4f}" for value in regret),
                _interval(pooled(compared, rng)) if compared else "",
                f"{cost:.1f}",
                ", ".join(f"{n} {e}" for e, n in cut.items() if n),
            ]
        )
    yield ""


def _tasks(table: StudiesByTask, ours: str, rng: np.random.Generator) -> Iterator[str]:
    rows = []
    for name in (name for names in table.families.values() for name in names):
        for random in table.compared([name], ours, (RANDOM,), rng):
            for best in table.compared([name], ours, RIVALS, rng):
                rows.append([name, *_row(random), best.setter, *_row(best)])
    if rows:
        against = ["its time", "our time", "speed"]
        random_columns = ["random's final regret", *against]
        rival_columns = ["best rival", "its final regret", *against]
        yield from table_head(["task", *random_columns, *rival_columns])
    yield from map(table_row, rows)
    yield ""


def _row(r: SpeedComparison) -> list[str]:
    times = [f"{clock:.2f}" for clock in (r.theirs, r.ours, math.exp(r.log_speeds[0]))]
    return [f"{r.target:.4f}", *times]


def _interval(value: Interval) -> str:
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def _present(table: StudiesByTask) -> list[str]:
    """Methods in the order of `METHODS`, others first."""
    there = dict.fromkeys(method for here in table.curves.values() for method in here)
    return [m for m in there if m not in METHODS] + [m for m in METHODS if m in there]


def _draw_panel(
    axes: Axes, table: StudiesByTask, family: str, styles: Mapping[str, tuple[str, Any]], ours: str
) -> dict[str, Line2D]:
    """Draw the methods' curves on one family; returns the line of each method that has one."""
    from benchmarks.figures import FLOOR

    clocks = np.geomspace(0.05, HORIZON, 200)
    axes.set(xscale="log", yscale="log", title=f"{family}, {table.workers} workers")
    axes.grid(axis="y", alpha=0.25)
    lines: dict[str, Line2D] = {}
    for method in reversed(list(styles)):  # ours on top
        color, dashes = styles[method]
        curve = table.curve(table.families.get(family, ()), method, clocks)
        if curve is not None:
            wide = 2.4 if method == ours else 1.2
            (lines[method],) = axes.plot(
                clocks, np.maximum(curve, FLOOR), color=color, ls=dashes, lw=wide
            )
    if not lines:
        axes.set_axis_off()
        axes.set_title("")
    return lines


def draw(found: Sequence[StudiesByTask], ours: str, path: Path) -> None:
    """Draw regret against the clock: a row per number of workers, a column per family."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from benchmarks.figures import STYLE, colors

    methods = list(dict.fromkeys(m for table in found for m in _present(table)))
    named = ["scaletune" if method == ours else method for method in methods]
    palette = colors(named)
    styles = {method: palette[name] for method, name in zip(methods, named, strict=True)}
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 2.6 * len(found) + 0.9), layout="constrained")
        panels = figure.subplots(len(found), len(FAMILIES), sharex=True, squeeze=False)
        handles: dict[str, Line2D] = {}
        for (table, family), axes in zip(product(found, FAMILIES), panels.flat, strict=True):
            handles |= _draw_panel(axes, table, family, styles, ours)
        figure.supxlabel("time, in mean full trainings per worker", fontsize=9)
        figure.supylabel("mean normalized regret", fontsize=9)
        shown = [m for m in methods if m in handles]
        figure.legend(
            [handles[m] for m in shown],
            shown,
            loc="outside upper center",
            ncols=min(len(shown), 6),
            frameon=False,
        )
        figure.savefig(path, metadata={"Date": None})


def _report(given: argparse.Namespace) -> int:
    done = read(given.out / TABLE)
    found = tables(done)
    if not found:
        raise ValueError(f"no studies in {given.out}; make them: python -m benchmarks speed run")
    given.figure.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(page(found, given.ours))
    draw(found, given.ours, given.figure)
    print(given.page, given.figure)
    return 0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks speed`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    runs = commands.add_parser("run", help="run studies into a table, or continue it")
    runs.add_argument("--out", type=Path, default=Path("runs") / "speed")
    runs.add_argument("--tasks", nargs="+", default=list(FAMILIES), help="tasks or suites")
    runs.add_argument("--methods", nargs="+", default=list(METHODS))
    runs.add_argument("--seeds", type=int, default=20)
    runs.add_argument("--first-seed", type=int, default=0)
    runs.add_argument("--workers", type=int, nargs="+", default=[4, 64], help="simulated")
    runs.add_argument("--enough", type=float, metavar="Q", help="stop early, see the module")
    runs.add_argument("--seconds", type=float, help="of a method's own time per study")
    runs.set_defaults(action=_run)
    report = commands.add_parser("report", help="the page and the picture")
    report.add_argument("out", type=Path, help="what `run --out` named")
    report.add_argument("--ours", default=OURS, help="the method whose speed is shown")
    report.add_argument("--page", type=Path, default=PAGES / "benchmarks_speed.md")
    report.add_argument("--figure", type=Path, default=PAGES / "figures" / "speed.svg")
    report.set_defaults(action=_report)
