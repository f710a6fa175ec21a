"""Runner that runs each trial in a process of its own, which can be killed."""

from __future__ import annotations

import gc
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import types
import uuid
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import connection as pipes
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

from hpo.errors import StudyError
from hpo.schedulers import Decision
from hpo.space.arguments import BROKEN, Count, Flag, OneOf, Row, Rule
from hpo.space.scalars import shown
from hpo.study.processes.by_value import send_by_value
from hpo.study.processes.imports import watch_imports
from hpo.study.processes.slots import Slots
from hpo.study.processes.system import (
    KILL,
    OWN_SIGNALS,
    available_cores,
    cgroup_oom_kills,
    default_start_method,
    end_group,
    forget_server,
    lead_group,
    limit_memory,
    resident_bytes,
    server_pid,
    server_runs,
    start_methods,
)
from hpo.study.processes.trees import (
    MARK,
    adopt_orphans,
    descendants,
    end_marked,
    end_tree,
    end_with_parent,
)
from hpo.study.runners import (
    Job,
    OnReport,
    Outcome,
    Task,
    execute,
    in_a_folder,
    lost,
    pickled,
    traceback_text,
    unloadable,
)
from hpo.trials import Cause, Report, Status
from hpo.trials.budget import Limits

_MEMORY_POLL = 0.1  # seconds between looks at a worker's resident memory
_END_GRACE = 1.0  # seconds a worker may take to flush its streams after its outcome
_START_GRACE = 300.0  # seconds a worker may take to import what it needs before its clock starts
_START_TRIES = 3  # of a process whose fork server is gone
_UNKNOWN_EXIT = 255  # exit code that multiprocessing gives when the fork server is gone
_GROWTH = 2**28  # bytes that a reused worker may hold beyond what its first trial has left
_starting = threading.Lock()  # held while `__main__` is hidden


@dataclass(slots=True)
class _Worker:
    """A running process of `ProcessRunner` as the driver sees it.

    Attributes:
        lifeline: Write end of a pipe that is never written to. When the driver dies it closes, and
            the worker ends too.
        started: Monotonic time at which the function began, or before that the process.
        deadline: Monotonic time at which the worker is killed.
        training: Whether the function has begun.
        cost: Highest cost that was reported.
        server: Process id of the fork server that it was forked from.
        mark: Mark in the environment of the process and of all that it starts.
        gpus: The GPUs that it sees, if assigned.
        first: Bytes that it held after its first trial; None before that.
    """

    job: Job
    process: BaseProcess
    pipe: Connection
    lifeline: Connection
    started: float
    deadline: float
    server: int | None
    mark: str
    training: bool = False
    cost: float | None = None
    gpus: tuple[str, ...] = ()
    first: int | None = None

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


@dataclass(frozen=True, slots=True)
class _GPUName(Rule):
    """Name of one GPU: its number, or what CUDA_VISIBLE_DEVICES may hold for it."""

    @property
    def text(self) -> str:
        return "a number or the name of one GPU"

    def read(self, value: Any) -> Any:
        """Return the name as a text."""
        if isinstance(value, str):
            return value.strip() if value.strip() and "," not in value else BROKEN
        return str(Count(0)(value, "gpu"))


_GPU = _GPUName()


class ProcessRunner:
    """Runs each trial in a process of its own, forked from a server with torch preloaded if it can.

    So leaked memory and GPU state end with the trial, and a trial can be killed for its time or
    its memory. Each worker leads its own process group: Ctrl-C in a terminal reaches the driver
    only, and killing a trial kills its data loaders as well. The training function is sent by
    cloudpickle; a script needs no `if __name__ == "__main__"` guard.

    It is the default of `optimize` for several workers, and under limits on time or memory.

    Data loaders with workers, pools and `torch.multiprocessing.spawn` work inside a trial as in
    a script, also with classes and functions of that script. A trial that ends takes all of them
    along, and everything else that it has started, in whatever process group it is.

    Time to load modules is not part of a trial's seconds, and so of no cost that is measured.

    Args:
        gpus: Names of the GPUs to share out, as in CUDA_VISIBLE_DEVICES. Each trial sees those
            with the fewest others on them. Without any, trials see what the driver sees.
        per_gpu: Number of trials that may share one GPU at a time.
        gpus_per_trial: Number of GPUs that a trial sees, or a function of its config that returns
            it, such as `lambda config: 8 if config["params"] > 1e9 else 1`. A trial waits until
            as many have room, and later ones wait behind it.
        reuse: Whether a process goes on to the next trial or stage, so that modules and data which
            the function keeps in globals are loaded once. What one trial changes there, another one
            sees. A process is replaced after a failure, and when it has grown by 256 MiB.
        start_method: How processes are started: "forkserver", or "spawn", which loads Python and
            torch anew for each. None takes a fork server where the system has one, as Linux and
            macOS do and Windows does not.

    Raises:
        ValueError: For `per_gpu` or `gpus_per_trial` below 1, or more GPUs in a trial than there
            are.

    Example:
        Two trials at a time, each of which sees one GPU:

        >>> from hpo import Budget, Float, ProcessRunner, optimize
        >>> result = optimize(
        ...     lambda config, ctx: config["x"] ** 2,
        ...     {"x": Float(-1.0, 1.0)},
        ...     budget=Budget(trials=2),
        ...     workers=2,
        ...     runner=ProcessRunner(gpus=[0, 1]),
        ... )
        >>> len(result.log)
        2
    """

    interruptible = False

    def __init__(
        self,
        *,
        gpus: Sequence[int | str] = (),
        per_gpu: int = 1,
        gpus_per_trial: int | Callable[[Mapping[str, Any]], int] = 1,
        reuse: bool = False,
        start_method: str | None = None,
    ) -> None:
        names = Row(_GPU, way_out='write gpus=[0, 1] or gpus=["GPU-8932f937"]')(
            list(gpus) if isinstance(gpus, range) else gpus, "`gpus`"
        )
        if len(set(names)) < len(names):
            raise ValueError(
                f"`gpus` must name each GPU once, got {shown(gpus)}; per_gpu=2 puts two trials on"
                " each"
            )
        self._gpus = names
        self._per_gpu = Count(1, way_out="1 gives each trial a GPU of its own")(
            per_gpu, "`per_gpu`"
        )
        self._slots = Slots(names, self._per_gpu)
        self._share = gpus_per_trial if callable(gpus_per_trial) else self._checked(gpus_per_trial)
        self._reuse = Flag()(reuse, "`reuse`")
        self._workers: dict[int, _Worker] = {}
        self._idle: list[_Worker] = []
        self._waiting: deque[tuple[Job, int]] = deque()
        self._most = 1  # processes at a time
        self._task = b""
        self._limits = Limits()
        self._threads = 1
        self._oom_kills = 0
        self._method = default_start_method()
        if start_method is not None:
            way_out = "None takes the first of them"
            self._method = OneOf(start_methods(), way_out=way_out)(start_method, "`start_method`")
        self._context: Any = multiprocessing.get_context(self._method)

    def open(self, task: Task, workers: int) -> None:
        """Prepare to run up to `workers` jobs of `task` at a time; no process is started yet.

        Args:
            task: What all jobs share.
            workers: Largest number of unfinished jobs.

        Raises:
            TypeError: For a training function that cannot be pickled.
            StudyError: In a process that may not start others.
            ValueError: For more workers than the GPUs have room for.

        Example:
            >>> from hpo import Limits
            >>> from hpo.study.runners import Task
            >>> task = Task(lambda config, ctx: config["x"] ** 2, None, (), Limits(seconds=60))
            >>> runner = ProcessRunner(gpus=[0, 1])
            >>> runner.open(task, workers=2)
            >>> runner.open(task, workers=3)  # doctest: +ELLIPSIS
            Traceback (most recent call last):
            ValueError: workers=3 do not fit on 2 GPUs with per_gpu=1; ...
            >>> runner.close()
        """
        share = 1 if callable(self._share) else self._share
        places = self._per_gpu * (len(self._gpus) // share)
        if self._gpus and workers > places:
            each = "" if share == 1 else f" and gpus_per_trial={share}"
            raise ValueError(
                f"workers={workers} do not fit on {len(self._gpus)} GPUs with per_gpu="
                f"{self._per_gpu}{each}; use workers={places}, or a larger per_gpu"
            )
        if multiprocessing.current_process().daemon:
            raise StudyError(
                "trials cannot run in processes of their own here, because this process is a "
                "daemon, as those of multiprocessing.Pool are; start it by "
                "concurrent.futures.ProcessPoolExecutor, or run inline with workers=1 and no time "
                "or memory limit"
            )
        self._task = pickled(
            task,
            "in worker processes",
            ", or run inline with workers=1 and no time or memory limit",
        )
        self._limits = task.limits
        self._most = workers
        self._threads = max(1, available_cores() // workers)
        self._oom_kills = cgroup_oom_kills()
        if self._method == "forkserver":
            preload = ["torch", "cloudpickle", "hpo.study.process_runner"]
            self._context.set_forkserver_preload(preload)

    def submit(self, job: Job) -> None:
        """Start a process for a job; see `Runner.submit`.

        Args:
            job: The trial to run.

        Example:
            The first process takes seconds to start, the next ones hundredths of a second:

            >>> from pathlib import Path
            >>> from hpo import Limits, Trial
            >>> from hpo.schedulers import Decision
            >>> from hpo.study.runners import Job, Task
            >>> runner = ProcessRunner()
            >>> task = Task(lambda config, ctx: config["x"] ** 2, None, (), Limits(seconds=60))
            >>> runner.open(task, workers=1)
            >>> job = Job(Trial(0, {"x": 0.5}, 0, None), seed=0, checkpoint_dir=Path("unused"))
            >>> runner.submit(job)
            >>> [outcome] = runner.poll(
            ...     60.0, lambda trial, report: Decision.CONTINUE
            ... )
            >>> outcome.status.value, outcome.loss
            ('completed', 0.25)
            >>> runner.close()
        """
        self._waiting.append((job, self._count(job)))
        self._start_waiting()

    def _count(self, job: Job) -> int:
        """Number of GPUs for a job; 0 where none are shared out."""
        if not self._gpus:
            return 0
        if callable(self._share):
            return self._checked(self._share(dict(job.trial.config)))
        return self._share

    def _checked(self, count: Any) -> int:
        """A number of GPUs for one trial, at most as many as there are."""
        way_out = "name the GPUs, as in ProcessRunner(gpus=range(8), gpus_per_trial=2)"
        whole: int = Count(1, most=max(1, len(self._gpus)), way_out=way_out)(
            count, "`gpus_per_trial`"
        )
        return whole

    def _start_waiting(self) -> None:
        """Start the jobs that fit, in the order in which they came."""
        while self._waiting:
            job, count = self._waiting[0]
            ready = self._ready(count)
            gpus = self._slots.take(count, first=() if ready is None else ready.gpus)
            if gpus is None:
                return
            self._waiting.popleft()
            try:
                self._workers[job.trial.number] = self._begin(job, gpus, ready)
            except BaseException:
                self._slots.give(gpus)
                raise

    def _ready(self, count: int) -> _Worker | None:
        """An idle worker with `count` GPUs, the one used last."""
        fitting = [worker for worker in self._idle if len(worker.gpus) == count]
        return fitting[-1] if fitting else None

    def _begin(self, job: Job, gpus: tuple[str, ...], ready: _Worker | None) -> _Worker:
        """A worker for a job, which is `ready` if that sees the same GPUs, or a new one."""
        if ready is not None and ready.gpus == gpus and ready.process.is_alive():
            with suppress(OSError):  # it ends just now
                ready.pipe.send(job)
                self._idle.remove(ready)
                now = time.monotonic()
                ready.job, ready.training, ready.cost = job, False, None
                ready.started, ready.deadline = now, now + _START_GRACE
                return ready
        for worker in list(self._idle):  # what it holds on these GPUs, and in memory
            crowded = len(self._idle) + len(self._workers) >= self._most
            if crowded or set(gpus) & set(worker.gpus) or not worker.process.is_alive():
                self._idle.remove(worker)
                _end(worker)
        for left in reversed(range(_START_TRIES)):
            try:
                return self._start(job, gpus)
            except (EOFError, OSError) as error:  # the fork server was killed, or never came up
                if isinstance(error, ChildProcessError):
                    forget_server()  # somebody else has waited for it
                if left == 0:
                    raise _no_process(job, error) from error
        raise AssertionError("unreachable")

    def _start(self, job: Job, gpus: tuple[str, ...]) -> _Worker:
        """A worker for a job, which has just been started."""
        ours, theirs = self._context.Pipe()
        watched, lifeline = self._context.Pipe(duplex=False)
        mark = uuid.uuid4().hex
        settings = _Settings(
            self._threads,
            self._limits.memory,
            ",".join(gpus) if gpus else None,
            self._reuse,
            mark,
            multiprocessing.get_start_method(allow_none=True),
            dict(os.environ),
        )
        process = self._context.Process(
            target=_work,
            args=(self._task, job, theirs, watched, settings),
            name=f"scaletune-trial-{job.trial.number}",
        )
        try:
            with _without_main_module():
                process.start()
        except BaseException:
            ours.close()
            lifeline.close()
            raise
        finally:
            theirs.close()
            watched.close()
        now = time.monotonic()
        return _Worker(
            job,
            process,
            ours,
            lifeline,
            started=now,
            deadline=now + _START_GRACE,
            server=server_pid() if self._method == "forkserver" else None,
            mark=mark,
            gpus=gpus,
        )

    def poll(self, timeout: float, on_report: OnReport) -> list[Outcome]:
        """Answer reports, and return the jobs that ended; see `Runner.poll`.

        Args:
            timeout: Seconds to wait at most, about.
            on_report: Function that is called as `on_report(trial, report)` once per report; its
                answer is carried back to the trial.

        Returns:
            The outcomes of the jobs that ended; an empty list if none did.

        Example:
            >>> from hpo import Limits
            >>> from hpo.schedulers import Decision
            >>> from hpo.study.runners import Task
            >>> runner = ProcessRunner()
            >>> runner.open(Task(lambda config, ctx: 0.5, None, (), Limits()), workers=2)
            >>> runner.poll(0.0, lambda trial, report: Decision.CONTINUE)  # nothing runs
            []
            >>> runner.close()
        """
        until = time.monotonic() + timeout
        while True:
            self._start_waiting()
            self._wait(until)
            outcomes = [self._serve(worker, on_report) for worker in list(self._workers.values())]
            ended = [outcome for outcome in outcomes if outcome is not None]
            if ended or not self._workers or time.monotonic() >= until:
                return ended

    def began(self, number: int) -> float | None:
        """Return when the function of a running trial was called; None if it was not yet.

        Args:
            number: Number of the trial.

        Returns:
            Monotonic time.

        Example:
            >>> ProcessRunner().began(0)
        """
        worker = self._workers.get(number)
        return worker.started if worker is not None and worker.training else None

    def kill(self, number: int) -> None:
        """Kill trial `number` and the processes that it started; see `Runner.kill`.

        Args:
            number: Number of the trial; one that is not running is ignored.

        Example:
            >>> runner = ProcessRunner()
            >>> runner.kill(0)  # nothing runs under this number
            >>> runner.close()
        """
        self._waiting = deque(item for item in self._waiting if item[0].trial.number != number)
        worker = self._workers.pop(number, None)
        if worker is not None:
            self._slots.give(worker.gpus)
            _end(worker)

    def close(self) -> None:
        """Kill every trial that still runs; calling it again does nothing.

        Example:
            >>> runner = ProcessRunner()
            >>> runner.close()
            >>> runner.close()
        """
        self._waiting.clear()
        for number in list(self._workers):
            self.kill(number)
        while self._idle:
            _end(self._idle.pop())

    def _wait(self, until: float) -> None:
        """Sleep until something may have happened, at most until `until`."""
        workers = self._workers.values()
        moments = [until, *(worker.deadline for worker in workers)]
        if self._limits.memory is not None:
            moments.append(time.monotonic() + _MEMORY_POLL)
        watched = [w.pipe for w in workers] + [w.process.sentinel for w in workers]
        pipes.wait(watched, max(0.0, min(moments) - time.monotonic()))

    def _serve(self, worker: _Worker, on_report: OnReport) -> Outcome | None:
        """Answer what `worker` sent; its outcome if it ended or must end."""
        alive = worker.process.is_alive()  # asked first: then all that a dead worker sent is read
        while (message := _received(worker.pipe)) is not None:
            match message:
                case Outcome():
                    worker.process.join(_END_GRACE)
                    self.kill(message.number)
                    return message
                case _Ready():
                    self._rest(worker)
                    return message.outcome
                case Report():
                    self._answer(worker, message, on_report)
                case _Closed():
                    worker.process.join(_END_GRACE)
                    return self._died(worker)
                case _:
                    self._start_clock(worker)
        if not alive:
            return self._died(worker)
        return self._over_limit(worker)

    def _rest(self, worker: _Worker) -> None:
        """Keep a worker for another job, unless it has grown too much."""
        resident = resident_bytes(worker.process.pid)
        if worker.first is None:
            worker.first = resident
        if resident > worker.first + _GROWTH:
            self.kill(worker.job.trial.number)
            return
        del self._workers[worker.job.trial.number]
        self._slots.give(worker.gpus)
        self._idle.append(worker)

    def _answer(self, worker: _Worker, report: Report, on_report: OnReport) -> None:
        """Carry the answer to `report` back; what `on_report` raises is the driver's own error."""
        if report.cost is not None:
            worker.cost = max(report.cost, worker.cost or 0.0)
        decision = on_report(worker.job.trial, report)
        with suppress(OSError):  # the worker is gone, as the next look at it shows
            worker.pipe.send(decision)

    def _start_clock(self, worker: _Worker) -> None:
        worker.training = True
        worker.started = time.monotonic()
        limit = None if worker.job.confirming else self._limits.seconds
        worker.deadline = math.inf if limit is None else worker.started + limit

    def _over_limit(self, worker: _Worker) -> Outcome | None:
        memory = self._limits.memory
        if memory is not None and (resident := resident_bytes(worker.process.pid)) > memory:
            text = f"killed at {resident} resident bytes; the limit is {memory}"
            return self._ended_by_force(worker, Cause.OOM, text)
        if time.monotonic() < worker.deadline:
            return None
        if not worker.training:
            return self._lost(worker, f"the worker did not start within {_START_GRACE:.0f} s")
        text = f"killed after {self._limits.seconds} s, its time limit"
        return self._ended_by_force(worker, Cause.TIMEOUT, text)

    def _died(self, worker: _Worker) -> Outcome:
        """The outcome of a worker that ended without sending one.

        A process that others kill is lost. One that crashes or exits may be its config's fault, so
        it is lost, too, but without an error that ends the study.
        """
        oom_kills = cgroup_oom_kills()
        code = worker.process.exitcode
        out_of_memory = oom_kills > self._oom_kills and code == -KILL
        self._oom_kills = oom_kills
        if code is None:
            text = "the worker process closed its connection to the driver"
            return self._ended_by_force(worker, Cause.LOST, text)
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if out_of_memory:
            return self._ended_by_force(worker, Cause.OOM, f"{how}: out of memory in the cgroup")
        if code == _UNKNOWN_EXIT and worker.server is not None and not server_runs(worker.server):
            return self._lost(worker, "the fork server was killed, and the worker process with it")
        text = f"the worker process ended with {how}"
        if code < 0 and -code not in OWN_SIGNALS:
            way_out = (
                "the system does this when memory runs out, so try fewer workers or "
                "Budget(per_trial=Limits(memory=...)), and call again"
            )
            return self._lost(worker, text, way_out)
        return self._ended_by_force(worker, Cause.LOST, text)

    def _ended_by_force(self, worker: _Worker, cause: Cause, text: str) -> Outcome:
        """End a worker, with an outcome that may be its config's fault."""
        number, seconds = worker.job.trial.number, self._seconds(worker)
        self.kill(number)
        return Outcome(
            number, Status.FAILED, seconds=seconds, cause=cause, cost=worker.cost, text=text
        )

    def _lost(
        self, worker: _Worker, text: str, way_out: str = "mend that and call again"
    ) -> Outcome:
        """End a worker, with an outcome that is the machine's."""
        seconds = self._seconds(worker)
        self.kill(worker.job.trial.number)
        return lost(worker.job, text, seconds=seconds, cost=worker.cost, way_out=way_out)

    def _seconds(self, worker: _Worker) -> float:
        return worker.job.consumed.seconds + (worker.seconds if worker.training else 0.0)


@dataclass(frozen=True, slots=True)
class _PipeChannel:
    """Channel over a pipe: a report one way, the decision the other.

    Attributes:
        pipe: End of the pipe in the worker.
        terminated: Event that SIGTERM sets. Then the trial ends at its next report, which it has
            saved just before.
    """

    pipe: Connection
    terminated: threading.Event

    def send(self, report: Report) -> Decision:
        if self.terminated.is_set():
            return Decision.STOP
        self.pipe.send(report)
        decision: Decision = self.pipe.recv()
        return decision


@dataclass(frozen=True, slots=True)
class _Settings:
    """How a worker process is to run.

    Attributes:
        threads: Threads of each library.
        memory: Limit in bytes, if there is one.
        gpus: Value of CUDA_VISIBLE_DEVICES; None leaves it.
        reuse: Whether to wait for another job after each.
        mark: Mark in the environment.
        start_method: How multiprocessing starts processes in the driver; None if that is open.
        environment: Variables of the driver, which may have changed since the fork server started.
    """

    threads: int
    memory: int | None
    gpus: str | None
    reuse: bool
    mark: str
    start_method: str | None
    environment: dict[str, str] = field(repr=False)  # it may hold credentials


@dataclass(frozen=True, slots=True)
class _Ready:
    """An outcome of a worker that can run another job."""

    outcome: Outcome


def _work(
    task: bytes, job: Job, pipe: Connection, lifeline: Connection, settings: _Settings
) -> None:
    """Body of a worker process: run one job, send its outcome, end; or wait for another job."""
    lead_group()
    os.environ.clear()
    os.environ.update(settings.environment)
    os.environ[MARK] = settings.mark
    if settings.gpus is not None:
        # torch is loaded, but looks only when first used
        os.environ["CUDA_VISIBLE_DEVICES"] = settings.gpus
    _die_with_driver(lifeline)
    _limit_threads(settings.threads)
    if settings.memory is not None:
        limit_memory(settings.memory)
    send_by_value(settings.start_method)
    watch_imports()
    try:
        loaded: Task = pickle.loads(task)
    except Exception as error:  # anything can go wrong while the user's modules are imported
        pipe.send(lost(job, f"{traceback_text(error)}\n{unloadable(error)}", seconds=0.0))
        return
    terminated = _terminations()
    process = os.getpid()
    while True:
        pipe.send("training")
        try:
            outcome = execute(loaded, job, _PipeChannel(pipe, terminated))
        except (EOFError, OSError):
            return  # the driver is gone
        if terminated.is_set() and outcome.status is Status.STOPPED:
            outcome = lost(job, "ended by SIGTERM", seconds=outcome.seconds, cost=outcome.cost)
        if os.getpid() != process:
            return  # a child that the function forked and let return
        if not settings.reuse or terminated.is_set() or not _is_clean(outcome):
            pipe.send(outcome)
            return
        pipe.send(_Ready(outcome))
        try:
            job = pipe.recv()
        except (EOFError, OSError):
            return  # the study has ended


def _is_clean(outcome: Outcome) -> bool:
    """Whether nothing of a trial is left in this process that could disturb the next one."""
    if outcome.status is Status.FAILED:
        return False
    gc.collect()  # models hold reference cycles, and so do data loaders with their processes
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    tracker: Any = resource_tracker._resource_tracker
    multiprocessing.active_children()  # waits for those that have ended
    return not {*descendants(os.getpid())} - {tracker._pid, server_pid()}


def _terminations() -> threading.Event:
    """An event that SIGTERM sets, as schedulers of clusters send it before they kill.

    Children of this process keep the default: SIGTERM ends them.
    """
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    if sys.platform != "win32":
        os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    return terminated


def _die_with_driver(lifeline: Connection) -> None:
    """End this process and its children as soon as the driver is gone.

    The pipe's end of file shows it on every system. Linux also signals when the fork server dies,
    which follows the driver's death; that works while a C extension holds the interpreter lock.
    """

    def watch() -> None:
        try:
            lifeline.recv()
        except (EOFError, OSError):
            end_tree(os.getpid(), keep_root=True)
            end_group(None)

    threading.Thread(target=watch, name="scaletune-lifeline", daemon=True).start()
    end_with_parent()
    adopt_orphans()


def _limit_threads(threads: int) -> None:
    """Share the cores fairly: `threads` for each library of this process that asks."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)  # for libraries still to be loaded
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _end(worker: _Worker) -> None:
    """Kill a worker with all that it started, and release its pipes."""
    assert worker.process.pid is not None  # or the group killed would be our own
    if worker.process.is_alive():
        end_tree(worker.process.pid)
    if not end_group(worker.process.pid):
        worker.process.kill()  # it does not lead a group of its own yet, or is gone
    worker.process.join()
    worker.process.close()
    worker.pipe.close()
    worker.lifeline.close()
    end_marked(worker.mark)


def _no_process(job: Job, error: Exception) -> StudyError:
    """The error of a process that cannot be started, with the way out."""
    what = str(error) or "the fork server ends at once"
    way_out = "look at the limits on processes and open files (ulimit -a)"
    if not in_a_folder():
        what = "the working directory of this process has been deleted"
        way_out = "change to one that exists (os.chdir)"
    return StudyError(
        f"no process can be started for trial {job.trial.number}: {what}; {way_out}, then call "
        "again. What was told before is still there"
    )


class _Closed:
    """In place of a message: the other end of the pipe is closed, or sends what is no message."""


def _received(pipe: Connection) -> object:
    """What a worker has sent; None if that is nothing, `_Closed` if nothing more can come."""
    try:
        return pipe.recv() if pipe.poll() else None
    except Exception:  # a function may write anything to a descriptor that is not its own
        return _Closed()


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the user's script again in every worker.

    The training function travels by value, so nothing of `__main__` is needed there, and a script
    without the `if __name__ == "__main__"` guard would start its study over in each worker.
    """
    with _starting:
        main = sys.modules["__main__"]
        method = multiprocessing.get_start_method(allow_none=True)
        sys.modules["__main__"] = types.ModuleType("__main__")
        try:
            yield
        finally:
            sys.modules["__main__"] = main
            if method is None:  # asking for it has set it, and the user could not any more
                multiprocessing.set_start_method(None, force=True)
