"""How much sooner is a good answer there? Multi-fidelity methods by their time to a regret.

    OMP_NUM_THREADS=1 python -m benchmarks.speed run --out DIR --workers 4      # again: goes on
    OMP_NUM_THREADS=1 python -m benchmarks.speed run --out DIR --workers 64 \\
        --methods scaletune-levels --enough 0.1
    python -m benchmarks.speed report DIR      # docs/benchmarks_speed.md, docs/figures/speed.svg

Every study runs until the virtual clock shows the time of 40 full trainings, whatever it trained by
then: all methods have equal time, in which W workers of random search do about 40 W full trainings.

Notation
--------
clock    virtual time in mean full trainings of the task (recorded costs of 256 random configs)
regret   normalized, of the best full-fidelity run that ended by then; 1 before the first
target   the median over seeds of the regret at the end of the method that sets it
time     to a target: the median over seeds of the clock at which a study first is there, which is
         the clock at which the method's median curve comes down to the target. A study that never
         is counts with the whole 40
speed    time of the method that set the target over the time of ours

Medians are the lower of the middle two, so that who sets a target has reached it by its end. They
are not paired by seed: studies of equal seed have no config in common, so a pair is as noisy as any
two studies, and every lucky study would set a target of its own. The bootstrap draws tasks and,
within each, the seeds of each method anew, and finds target and best rival anew in each draw.

`--enough Q` stops a study where nothing asked of it can change any more: at the lowest Q-quantile
over seeds of the end regrets of any other method in the table (Q = 0: of any study). Its regret is
then carried on unchanged, and a drawn target below it counts as unreached, against that method.

DIR holds `studies.jsonl`, one line a study, only ever appended to, by any number of processes; the
last line of a study counts, and a damaged one is run again.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import environments, peers, tasks
from benchmarks.analysis import Interval
from benchmarks.simulate import Ending, Limits, full_cost, simulate

Array = NDArray[np.float64]

__all__ = ["HORIZON", "Course", "Race", "Study", "follow", "pooled", "race", "read"]

ROOT = Path(__file__).resolve().parent.parent
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
class Study:
    """One method on one task under one seed, with so many simulated workers."""

    workers: int
    task: str
    method: str
    seed: int


@dataclass(frozen=True, slots=True)
class Course:
    """What became of a study.

    `clock`, `regret`: of each change of the incumbent, in order. `ending`: "horizon", "enough", an
    `Ending` of the simulation, "error" or "unsupported". `end`: clock of the last finished job.
    `jobs`: finished. `seconds`: real ones of the method's own asks and tells.
    """

    clock: tuple[float, ...] = ()
    regret: tuple[float, ...] = ()
    ending: str = HORIZON_REACHED
    end: float = HORIZON
    jobs: int = 0
    seconds: float = 0.0

    def at(self, clocks: Array) -> Array:
        """Regret at each of some clocks, 1 before the first full run."""
        index = np.searchsorted(self.clock, clocks, side="right")
        return np.asarray(np.array([1.0, *self.regret])[index])

    def first(self, targets: Array) -> Array:
        """Clock at which the study first has each of some targets; the horizon where never."""
        there = np.array([*self.regret, -math.inf]) <= targets[:, None]
        return np.asarray(np.array([*self.clock, HORIZON])[there.argmax(axis=1)])


# --- running -------------------------------------------------------------------------------------


@cache
def unit(name: str) -> float:
    """Mean cost of a full training of a task, which the clock counts in."""
    return full_cost(tasks.load(name), count=_UNIT_CONFIGS)


def follow(study: Study, *, enough: float | None = None, seconds: float | None = None) -> Course:
    """Run one study; a method that breaks down keeps what it had.

    `enough`: regret at which to stop. `seconds`: of the method's own time, after which it is
    stopped.
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
            limits=Limits(cost=math.inf, seconds=seconds),
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
    return Course(tuple(clock), tuple(regret), ending, now, jobs, own)


def read(path: Path) -> dict[Study, Course]:
    """The studies in a table, the last line of each."""
    known = {field.name for field in fields(Study)}
    studies: dict[Study, Course] = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        try:
            values = json.loads(line)
            study = Study(**{name: values.pop(name) for name in known})
            values |= {name: tuple(values[name]) for name in ("clock", "regret")}
            studies[study] = Course(**values)
        except (ValueError, TypeError, KeyError):
            continue  # cut off by a kill
    return studies


def append(path: Path, study: Study, course: Course) -> None:
    """One line, written at once."""
    with path.open("a") as table:
        table.write(json.dumps(asdict(study) | asdict(course)) + "\n")


def enough_for(study: Study, done: Mapping[Study, Course], quantile: float) -> float | None:
    """The lowest `quantile` over seeds of the end regrets of any other method; None if none ran."""
    ends: dict[str, list[float]] = {}
    for other, course in done.items():
        if (other.workers, other.task) == (study.workers, study.task) and other.method in METHODS:
            ends.setdefault(other.method, []).extend(_ends([course]))
    ends.pop(study.method, None)
    return min((float(np.quantile(e, quantile)) for e in ends.values()), default=None)


def waiting(
    done: Mapping[Study, Course],
    planned: Iterable[Study],
    quantile: float | None,
    seconds: float | None = None,
) -> Iterator[tuple[Study, float | None]]:
    """Studies still to be run, each with the regret at which to stop it.

    One that was stopped, by its regret or by its method's `seconds`, is run again when it may go
    further now. A pool that has no more members than there are workers is left out: every method
    starts all of it at once.
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


def _run(given: argparse.Namespace) -> None:
    """Run what is not done yet, seed by seed, each method in the interpreter of its environment."""
    given.out.mkdir(parents=True, exist_ok=True)
    table = given.out / TABLE
    names = [task for name in given.tasks for task in tasks.SUITES.get(name, (name,))]
    by_interpreter: dict[Path, list[str]] = {}
    for method in given.methods:
        reason = peers.missing(method)
        if reason is not None:
            print(f"missing: {method}: {reason}", file=sys.stderr)
            continue
        python = environments.python(peers.PEERS[method].environment)
        by_interpreter.setdefault(python, []).append(method)
    for workers in given.workers:
        for seed in range(given.first_seed, given.first_seed + given.seeds):
            for python, methods in by_interpreter.items():
                planned = [Study(workers, t, m, seed) for m in methods for t in names]
                todo = list(waiting(read(table), planned, given.enough, given.seconds))
                if todo and python != Path(sys.executable):
                    _delegate(python, given, workers, seed, methods)
                    continue
                for study, enough in todo:
                    course = follow(study, enough=enough, seconds=given.seconds)
                    append(table, study, course)
                    print(study, course.ending, f"{course.seconds:.1f} s", flush=True)


def _delegate(
    python: Path, given: argparse.Namespace, workers: int, seed: int, methods: Sequence[str]
) -> None:
    """The same command for one seed in another interpreter; goes on whatever becomes of it."""
    words: list[object] = ["--out", given.out.resolve(), "--workers", workers, "--seeds", 1]
    words += ["--first-seed", seed, "--methods", *methods, "--tasks", *given.tasks]
    for name in ("enough", "seconds"):
        value = getattr(given, name)
        words += [] if value is None else [f"--{name}", value]
    subprocess.run(
        [python, "-m", "benchmarks.speed", "run", *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=False,
    )


# --- speeds --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Race:
    """One method against those who may set the target, on one task.

    `setter`, `target`: who set it, and the regret. `theirs`, `ours`: times to it. `reached`: share
    of our studies that got there. `log_speeds`: `(1 + draws,)` of ln theirs / ours; first the one
    measured, then those of the bootstrap.
    """

    task: str
    setter: str
    target: float
    theirs: float
    ours: float
    reached: float
    log_speeds: Array


def race(
    task: str,
    courses: Mapping[str, Sequence[Course]],
    ours: str,
    setters: Sequence[str],
    rng: np.random.Generator,
    draws: int = _DRAWS,
) -> Race:
    """`ours` against the setter of the lowest target, of equals the one that is there first.

    `courses`: of the methods on the task, by seed.
    """
    counts = {method: len(courses[method]) for method in (ours, *setters)}
    drawn = {
        method: np.vstack([np.arange(count), rng.integers(count, size=(draws, count))])
        for method, count in counts.items()
    }
    target, theirs, mine = (np.empty((len(setters), 1 + draws)) for _ in range(3))
    for row, setter in enumerate(setters):
        ends = _ends(courses[setter])
        picked = middle_of_scales(drawn[setter], ends[drawn[setter]])
        target[row] = ends[picked]
        for times, method in ((theirs, setter), (mine, ours)):
            first = np.array([course.first(ends) for course in courses[method]])
            clocks = first[drawn[method], picked[:, None]]
            times[row] = middle_of_scales(clocks, clocks)
    order = np.where(target == target.min(axis=0), theirs, np.inf)
    chosen = order.argmin(axis=0), np.arange(1 + draws)
    aim = float(target[chosen][0])
    return Race(
        task=task,
        setter=setters[int(chosen[0][0])],
        target=aim,
        theirs=float(theirs[chosen][0]),
        ours=float(mine[chosen][0]),
        reached=float((_ends(courses[ours]) <= aim).mean()),
        log_speeds=np.log(theirs[chosen] / mine[chosen]),
    )


def _ends(courses: Sequence[Course]) -> Array:
    """`(S,)` regrets at the horizon."""
    return np.array([float(course.at(np.array([HORIZON]))[0]) for course in courses])


def middle_of_scales(values: NDArray[np.generic], keys: Array) -> NDArray[np.generic]:
    """Of each row of `values` the one whose key is the row's lower median."""
    order = np.argsort(keys, axis=1, kind="stable")
    return np.take_along_axis(values, order[:, [(keys.shape[1] - 1) // 2]], axis=1)[:, 0]


def pooled(races: Sequence[Race], rng: np.random.Generator) -> Interval:
    """Geometric mean of the speeds over tasks, with its 90 % interval over tasks and seeds."""
    logs = np.array([race.log_speeds for race in races])  # (T, 1 + draws)
    picks = rng.integers(len(races), size=(logs.shape[1] - 1, len(races)))
    means = np.take_along_axis(logs[:, 1:].T, picks, axis=1).mean(axis=1)
    low, high = np.quantile(means, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(*(math.exp(v) for v in (logs[:, 0].mean(), low, high)))


# --- the page ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Table:
    """The studies with one number of workers: task -> method -> courses by seed."""

    workers: int
    courses: Mapping[str, Mapping[str, Sequence[Course]]]

    @property
    def families(self) -> dict[str, list[str]]:
        """Tasks by family, where there are any."""
        own = {f: [t for t in tasks.SUITES[f] if t in self.courses] for f in FAMILIES}
        return {family: names for family, names in own.items() if names}

    def races(
        self, names: Iterable[str], ours: str, setters: Sequence[str], rng: np.random.Generator
    ) -> list[Race]:
        """One for each task that has `ours` and any of the `setters`."""
        found = []
        for name in names:
            here = self.courses[name]
            there = [method for method in setters if method in here and method != ours]
            if ours in here and there:
                found.append(race(name, here, ours, there, rng))
        return found

    def curve(self, names: Iterable[str], method: str, clocks: Array) -> Array | None:
        """Mean regret over seeds, then over those of the tasks that the method ran on."""
        own = [self.courses[name][method] for name in names if method in self.courses[name]]
        if not own:
            return None
        by_task = [np.mean([c.at(clocks) for c in courses], axis=0) for courses in own]
        return np.asarray(np.mean(by_task, axis=0))


def tables(done: Mapping[Study, Course]) -> list[Table]:
    """One for each number of workers."""
    sorted_in: dict[int, dict[str, dict[str, list[Course]]]] = {}
    for study, course in sorted(done.items()):
        if course.ending != UNSUPPORTED:
            methods = sorted_in.setdefault(study.workers, {}).setdefault(study.task, {})
            methods.setdefault(study.method, []).append(course)
    return [Table(workers, courses) for workers, courses in sorted_in.items()]


def page(found: Sequence[Table], ours: str) -> str:
    """The page in Markdown."""
    text = [_INTRODUCTION.format(ours=ours)]
    for table in found:
        rng = np.random.default_rng(0)
        text.append(f"## {table.workers} workers\n")
        text += [*_headline(table, ours, rng), *_methods(table, rng), *_tasks(table, ours, rng)]
    return "\n".join(text)


_INTRODUCTION = """# Time to a good answer

Made by `python -m benchmarks.speed report`; protocol and terms are those of `benchmarks/speed.py`.
Simulated on recorded costs, so the machine plays no part in any time. Time counts in mean full
trainings per worker, 40 in all. Speed: how many times sooner {ours} has, in the median over seeds,
the regret that random search (or the best of the multi-fidelity rivals on the task) has in the
median at the end. A study that never gets there counts with the whole 40. Intervals are 90 %
bootstrap intervals over tasks and seeds.

![Mean normalized regret against time](figures/speed.svg)
"""


def _headline(table: Table, ours: str, rng: np.random.Generator) -> Iterator[str]:
    everything = [name for names in table.families.values() for name in names]
    if not table.races(everything, ours, (RANDOM,), rng):
        yield f"No studies of {ours} yet.\n"
        return
    yield f"| {ours} | tasks | speed against random | speed against the best rival | reached |"
    yield "|---|---|---|---|---|"
    for family, names in {**table.families, "all": everything}.items():
        random, best = (table.races(names, ours, who, rng) for who in ((RANDOM,), RIVALS))
        if random and best:
            reached = [f"{np.mean([r.reached for r in races]):.0%}" for races in (random, best)]
            yield (
                f"| {family} | {len(random)} | {_interval(pooled(random, rng))}"
                f" | {_interval(pooled(best, rng))} | {', '.join(reached)} |"
            )
    yield ""
    for asha in ASHA:
        crossing = table.races(table.families.get("crossing", ()), ours, (asha,), rng)
        if crossing:
            speed = pooled(crossing, rng)
            yield (
                f"Where curves cross, our time over that of `{asha}` to its end regret:"
                f" {1 / speed.value:.2f} ({1 / speed.high:.2f} to {1 / speed.low:.2f}).\n"
            )


def _methods(table: Table, rng: np.random.Generator) -> Iterator[str]:
    marks = " | ".join(f"{mark:g}" for mark in MARKS)
    yield (
        f"| method, mean regret after | seeds | {marks} | speed against random | ms a job"
        " | cut short |"
    )
    yield "|---" * (len(MARKS) + 5) + "|"
    everything = [name for names in table.families.values() for name in names]
    for method in _present(table):
        regret = table.curve(everything, method, np.array(MARKS))
        assert regret is not None  # it is present
        own = [table.courses[name][method] for name in everything if method in table.courses[name]]
        seeds = sorted({len(courses) for courses in own})
        flat = [course for courses in own for course in courses]
        cost = 1e3 * sum(c.seconds for c in flat) / max(sum(c.jobs for c in flat), 1)
        races = table.races(everything, method, (RANDOM,), rng)
        cut = {e: sum(c.ending == e for c in flat) for e in (ENOUGH, Ending.SECONDS.value, ERROR)}
        yield (
            f"| {method} | {seeds[0]}{f' to {seeds[-1]}' if len(seeds) > 1 else ''}"
            f"{'' if len(own) == len(everything) else f' on {len(own)} tasks'}"
            f" | {' | '.join(f'{value:.4f}' for value in regret)}"
            f" | {_interval(pooled(races, rng)) if races else ''} | {cost:.1f}"
            f" | {', '.join(f'{n} {e}' for e, n in cut.items() if n)} |"
        )
    yield ""


def _tasks(table: Table, ours: str, rng: np.random.Generator) -> Iterator[str]:
    rows = []
    for name in (name for names in table.families.values() for name in names):
        for random in table.races([name], ours, (RANDOM,), rng):
            for best in table.races([name], ours, RIVALS, rng):
                rows.append([name, *_row(random), best.setter, *_row(best)])
    if rows:
        yield (
            "| task | random's end | its time | ours | speed"
            " | best rival | its end | its time | ours | speed |"
        )
        yield "|---" * 10 + "|"
    yield from (f"| {' | '.join(row)} |" for row in rows)
    yield ""


def _row(r: Race) -> list[str]:
    times = [f"{clock:.2f}" for clock in (r.theirs, r.ours, math.exp(r.log_speeds[0]))]
    return [f"{r.target:.4f}", *times]


def _interval(value: Interval) -> str:
    return f"{value.value:.2f} ({value.low:.2f} to {value.high:.2f})"


def _present(table: Table) -> list[str]:
    """Methods in the order of `METHODS`, others first."""
    there = dict.fromkeys(method for here in table.courses.values() for method in here)
    return [m for m in there if m not in METHODS] + [m for m in METHODS if m in there]


def draw(found: Sequence[Table], ours: str, path: Path) -> None:
    """Mean regret against the clock: a row for each number of workers, a column for each family."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    from benchmarks.figures import FLOOR, STYLE, colors

    clocks = np.geomspace(0.05, HORIZON, 200)
    methods = list(dict.fromkeys(m for table in found for m in _present(table)))
    styles = colors(["scaletune" if m == ours else m for m in methods])
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(11.0, 2.6 * len(found) + 0.9), layout="constrained")
        panels = figure.subplots(len(found), len(FAMILIES), sharex=True, squeeze=False)
        handles = {}
        for table, row in zip(found, panels, strict=True):
            for family, axes in zip(FAMILIES, row, strict=True):
                axes.set(xscale="log", yscale="log", title=f"{family}, {table.workers} workers")
                axes.grid(axis="y", alpha=0.25)
                for method in reversed(methods):  # ours on top
                    curve = table.curve(table.families.get(family, ()), method, clocks)
                    if curve is not None:
                        color, dashes = styles["scaletune" if method == ours else method]
                        wide = 2.4 if method == ours else 1.2
                        (handles[method],) = axes.plot(
                            clocks, np.maximum(curve, FLOOR), color=color, ls=dashes, lw=wide
                        )
                if not axes.lines:
                    axes.set_axis_off()
                    axes.set_title("")
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


def _report(given: argparse.Namespace) -> None:
    done = read(given.out / TABLE)
    found = tables(done)
    if not found:
        raise ValueError(f"no studies in {given.out}; make them: python -m benchmarks.speed run")
    given.figure.parent.mkdir(parents=True, exist_ok=True)
    given.page.write_text(page(found, given.ours))
    draw(found, given.ours, given.figure)
    print(given.page, given.figure)


def main(words: Sequence[str] | None = None) -> int:
    """Exit status: 0, or 2 when refused."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    runs = commands.add_parser("run", help="run studies into a table, or go on with it")
    runs.add_argument("--out", type=Path, default=Path("runs") / "speed")
    runs.add_argument("--tasks", nargs="+", default=list(FAMILIES), help="tasks or suites")
    runs.add_argument("--methods", nargs="+", default=list(METHODS))
    runs.add_argument("--seeds", type=int, default=20)
    runs.add_argument("--first-seed", type=int, default=0)
    runs.add_argument("--workers", type=int, nargs="+", default=[4, 64], help="simulated")
    runs.add_argument("--enough", type=float, metavar="Q", help="stop early, see the module")
    runs.add_argument("--seconds", type=float, help="of a method's own time per study")
    runs.set_defaults(command=_run)
    report = commands.add_parser("report", help="the page and the picture")
    report.add_argument("out", type=Path, help="what `run --out` named")
    report.add_argument("--ours", default=OURS, help="the method whose speed is shown")
    report.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks_speed.md")
    report.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "speed.svg")
    report.set_defaults(command=_report)
    given = parser.parse_args(words)
    try:
        given.command(given)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
