"""Runner that runs each trial in a process of its own, which can be killed."""

from __future__ import annotations

import ctypes
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import connection as pipes
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any

from hpo.schedulers import Decision
from hpo.space.arguments import BROKEN, Count, Row, Rule
from hpo.space.scalars import shown
from hpo.study.runners import Job, OnReport, Outcome, Task, execute, traceback_text
from hpo.trials import Cause, Report, Status
from hpo.trials.budget import Limits

_MEMORY_POLL = 0.1  # seconds between looks at a worker's resident memory
_END_GRACE = 1.0  # seconds a worker may take to flush its streams after its outcome
_START_GRACE = 300.0  # seconds a worker may take to import what it needs before its clock starts
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


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
        gpu: The one GPU that it sees, if assigned.
    """

    job: Job
    process: ForkServerProcess
    pipe: Connection
    lifeline: Connection
    started: float
    deadline: float
    training: bool = False
    cost: float | None = None
    gpu: str | None = None

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
    """Runs each trial in a process of its own, forked from a server with torch preloaded.

    So leaked memory and GPU state end with the trial, and a trial can be killed for its time or
    its memory. Each worker leads its own process group: Ctrl-C in a terminal reaches the driver
    only, and killing a trial kills its data loaders as well. The training function is sent by
    cloudpickle; a script needs no `if __name__ == "__main__"` guard.

    It is the default of `optimize` for several workers, and under limits on time or memory.

    Args:
        gpus: Names of the GPUs to share out, as in CUDA_VISIBLE_DEVICES. Each trial sees the one
            with the fewest others on it. Without any, trials see what the driver sees.
        per_gpu: Number of trials that may share one GPU at a time.

    Raises:
        ValueError: For `per_gpu` below 1.

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

    def __init__(self, *, gpus: Sequence[int | str] = (), per_gpu: int = 1) -> None:
        names = Row(_GPU, way_out='write gpus=[0, 1] or gpus=["GPU-8932f937"]')(gpus, "`gpus`")
        if len(set(names)) < len(names):
            raise ValueError(
                f"`gpus` must name each GPU once, got {shown(gpus)}; per_gpu=2 puts two trials on"
                " each"
            )
        self._gpus = names
        self._per_gpu = Count(1, way_out="1 gives each trial a GPU of its own")(
            per_gpu, "`per_gpu`"
        )
        self._workers: dict[int, _Worker] = {}
        self._task = b""
        self._limits = Limits()
        self._threads = 1
        self._oom_kills = 0
        self._context = multiprocessing.get_context("forkserver")

    def open(self, task: Task, workers: int) -> None:
        """Prepare to run up to `workers` jobs of `task` at a time; no process is started yet.

        Args:
            task: What all jobs share.
            workers: Largest number of unfinished jobs.

        Raises:
            TypeError: For a training function that cannot be pickled.
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
        places = self._per_gpu * len(self._gpus)
        if self._gpus and workers > places:
            raise ValueError(
                f"workers={workers} do not fit on {len(self._gpus)} GPUs with per_gpu="
                f"{self._per_gpu}; use workers={places}, or a larger per_gpu"
            )
        import cloudpickle  # type: ignore[import-untyped]  # it publishes no types

        try:
            self._task = cloudpickle.dumps(task)
        except (TypeError, pickle.PicklingError, AttributeError, RecursionError) as error:
            raise TypeError(
                f"train_fn must be picklable to run in worker processes, but {error}; create "
                "locks, open files, CUDA tensors and the like inside the function, or run inline "
                "with workers=1 and no time or memory limit"
            ) from error
        self._limits = task.limits
        self._threads = max(1, _available_cores() // workers)
        self._oom_kills = _cgroup_oom_kills()
        self._context.set_forkserver_preload(["torch", "cloudpickle", "hpo.study.process_runner"])

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
        ours, theirs = self._context.Pipe()
        watched, lifeline = self._context.Pipe(duplex=False)
        gpu = self._free_gpu()
        process = self._context.Process(
            target=_work,
            args=(self._task, job, theirs, watched, self._threads, self._limits.memory, gpu),
            name=f"scaletune-trial-{job.trial.number}",
        )
        with _without_main_module():
            process.start()
        theirs.close()
        watched.close()
        now = time.monotonic()
        self._workers[job.trial.number] = _Worker(
            job, process, ours, lifeline, started=now, deadline=now + _START_GRACE, gpu=gpu
        )

    def _free_gpu(self) -> str | None:
        """The GPU with the fewest trials on it, the first of equals."""
        taken = [worker.gpu for worker in self._workers.values()]
        return min(self._gpus, key=taken.count, default=None)

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
            self._wait(until)
            outcomes = [self._serve(worker, on_report) for worker in list(self._workers.values())]
            ended = [outcome for outcome in outcomes if outcome is not None]
            if ended or not self._workers or time.monotonic() >= until:
                return ended

    def kill(self, number: int) -> None:
        """Kill trial `number` and the processes that it started; see `Runner.kill`.

        Args:
            number: Number of the trial; one that is not running is ignored.

        Example:
            >>> runner = ProcessRunner()
            >>> runner.kill(0)  # nothing runs under this number
            >>> runner.close()
        """
        worker = self._workers.pop(number, None)
        if worker is not None:
            _end(worker)

    def close(self) -> None:
        """Kill every trial that still runs; calling it again does nothing.

        Example:
            >>> runner = ProcessRunner()
            >>> runner.close()
            >>> runner.close()
        """
        for number in list(self._workers):
            self.kill(number)

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
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Outcome):
                    worker.process.join(_END_GRACE)
                    self.kill(message.number)
                    return message
                if isinstance(message, Report):
                    self._answer(worker, message, on_report)
                else:
                    self._start_clock(worker)
        except (EOFError, OSError):
            worker.process.join()
            alive = False
        if not alive:
            return self._died(worker)
        return self._over_limit(worker)

    def _answer(self, worker: _Worker, report: Report, on_report: OnReport) -> None:
        if report.cost is not None:
            worker.cost = max(report.cost, worker.cost or 0.0)
        worker.pipe.send(on_report(worker.job.trial, report))

    def _start_clock(self, worker: _Worker) -> None:
        worker.training = True
        worker.started = time.monotonic()
        limit = None if worker.job.confirming else self._limits.seconds
        worker.deadline = math.inf if limit is None else worker.started + limit

    def _over_limit(self, worker: _Worker) -> Outcome | None:
        memory = self._limits.memory
        if memory is not None and (resident := _resident_bytes(worker.process.pid)) > memory:
            text = f"killed at {resident} resident bytes; the limit is {memory}"
            return self._ended_by_force(worker, Cause.OOM, text)
        if time.monotonic() < worker.deadline:
            return None
        if not worker.training:
            text = f"the worker did not start within {_START_GRACE:.0f} s"
            return self._ended_by_force(worker, Cause.LOST, text)
        text = f"killed after {self._limits.seconds} s, its time limit"
        return self._ended_by_force(worker, Cause.TIMEOUT, text)

    def _died(self, worker: _Worker) -> Outcome:
        """The outcome of a worker that ended without sending one."""
        oom_kills = _cgroup_oom_kills()
        out_of_memory = oom_kills > self._oom_kills and worker.process.exitcode == -signal.SIGKILL
        self._oom_kills = oom_kills
        code = worker.process.exitcode
        how = f"signal {-code}" if code is not None and code < 0 else f"exit code {code}"
        if out_of_memory:
            return self._ended_by_force(worker, Cause.OOM, f"{how}: out of memory in the cgroup")
        return self._ended_by_force(worker, Cause.LOST, f"the worker process ended with {how}")

    def _ended_by_force(self, worker: _Worker, cause: Cause, text: str) -> Outcome:
        number = worker.job.trial.number
        seconds = worker.job.consumed.seconds + (worker.seconds if worker.training else 0.0)
        self.kill(number)
        return Outcome(
            number, Status.FAILED, seconds=seconds, cause=cause, cost=worker.cost, text=text
        )


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


def _work(
    task: bytes,
    job: Job,
    pipe: Connection,
    lifeline: Connection,
    threads: int,
    memory: int | None,
    gpu: str | None,
) -> None:
    """Body of a worker process: run one job, send its outcome, end."""
    os.setsid()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu  # torch is loaded, but looks only when first used
    _die_with_driver(lifeline)
    _limit_threads(threads)
    if memory is not None:
        _limit_memory(memory)
    try:
        loaded: Task = pickle.loads(task)
    except Exception as error:  # anything can go wrong while the user's modules are imported
        text = f"train_fn could not be loaded in the worker:\n{traceback_text(error)}"
        pipe.send(Outcome(job.trial.number, Status.FAILED, 0.0, Cause.ERROR, text=text))
        return
    terminated = _terminations()
    process = os.getpid()
    pipe.send("training")
    outcome = execute(loaded, job, _PipeChannel(pipe, terminated))
    if terminated.is_set() and outcome.status is Status.STOPPED:
        text = "ended by SIGTERM; it is continued from what it saved last"
        outcome = replace(
            outcome, status=Status.FAILED, cause=Cause.LOST, loss=None, text=text, refusal=None
        )
    if os.getpid() == process:  # else a child that the function forked and let return
        pipe.send(outcome)


def _terminations() -> threading.Event:
    """An event that SIGTERM sets, as schedulers of clusters send it before they kill.

    Children of this process keep the default: SIGTERM ends them.
    """
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
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
            os.killpg(0, signal.SIGKILL)

    threading.Thread(target=watch, name="scaletune-lifeline", daemon=True).start()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _limit_threads(threads: int) -> None:
    """Share the cores fairly: `threads` for each library of this process that asks."""
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[variable] = str(threads)  # for libraries still to be loaded
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)


def _limit_memory(memory: int) -> None:
    """Let allocations far above `memory` bytes fail, so that the function can raise MemoryError.

    Data segments are counted when mapped, resident memory when touched, hence a quarter of slack.
    """
    import resource

    ceiling = memory + memory // 4 + _data_bytes()
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        ceiling = min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, hard))


def _end(worker: _Worker) -> None:
    """Kill a worker with its process group and release its pipes."""
    assert worker.process.pid is not None  # or the group killed would be our own
    try:
        os.killpg(worker.process.pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        worker.process.kill()  # it does not lead a group of its own yet, or is gone
    worker.process.join()
    worker.process.close()
    worker.pipe.close()
    worker.lifeline.close()


@contextmanager
def _without_main_module() -> Iterator[None]:
    """Keep multiprocessing from importing the user's script again in every worker.

    The training function travels by value, so nothing of `__main__` is needed there, and a script
    without the `if __name__ == "__main__"` guard would start its study over in each worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _available_cores() -> int:
    """Cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _resident_bytes(pid: int | None) -> int:
    """Resident memory of a process; 0 where /proc does not tell or the process is gone."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _data_bytes() -> int:
    """Writable private memory this process has mapped; 0 where /proc does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[5])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def _cgroup_oom_kills() -> int:
    """How often the kernel killed for memory in our cgroup so far; 0 where that is not counted."""
    try:
        groups = Path("/proc/self/cgroup").read_text().split()
    except OSError:
        return 0
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            file = Path("/sys/fs/cgroup", path.lstrip("/"), "memory.events")
        elif "memory" in controllers.split(","):
            file = Path("/sys/fs/cgroup/memory", path.lstrip("/"), "memory.oom_control")
        else:
            continue
        try:
            counts = dict(entry.split() for entry in file.read_text().splitlines())
        except (OSError, ValueError):
            continue
        return int(counts.get("oom_kill", 0))
    return 0
