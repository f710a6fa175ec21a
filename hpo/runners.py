"""Where trials run: in the driver itself, or in one process each.

A runner takes jobs, answers what came of them, and carries reports and decisions in between:

    job      one trial to run, its seed and its checkpoint folder
    task     what all jobs of a study share: the training function, how to read a config, the limits
    outcome  how a job ended, whoever noticed

`execute` turns whatever a training function does (return, raise, diverge, run out of memory) into
an outcome; it is the same code in the driver and in a worker.
"""

from __future__ import annotations

import ctypes
import errno
import math
import multiprocessing
import os
import pickle
import signal
import sys
import threading
import time
import traceback
import types
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from multiprocessing import connection as pipes
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import Any, Protocol, TypeAlias

from hpo.budget import Limits
from hpo.errors import Stop
from hpo.observations import Cause, Report, Status, Trial
from hpo.schedulers import Decision
from hpo.training.checkpoints import CheckpointKey
from hpo.training.context import Channel, Context, Paid, to_cost, to_float

TrainFunction: TypeAlias = Callable[[dict[str, Any], Context], Any]
OnReport: TypeAlias = Callable[[Trial, Report], Decision]

_LONGEST_TEXT = 4000  # characters of a traceback that are kept, from its end
_MEMORY_POLL = 0.1  # seconds between looks at a worker's resident memory
_END_GRACE = 1.0  # seconds a worker may take to flush its streams after its outcome
_START_GRACE = 300.0  # seconds a worker may take to import what it needs before its clock starts
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@dataclass(frozen=True, slots=True)
class Task:
    """What all trials of a study share.

    `fidelity`, `scales`: names of those parameters in a config. `limits`: of each trial.
    """

    train: TrainFunction
    fidelity: str | None
    scales: tuple[str, ...]
    limits: Limits

    def context(self, job: Job, channel: Channel) -> Context:
        """The context of `job`, reporting over `channel`; it sees the level to train up to now."""
        trial = job.trial
        if self.fidelity is not None and trial.place is not None:
            trial = replace(trial, config={**trial.config, self.fidelity: trial.place.level})
        return Context(
            trial,
            seed=job.seed,
            channel=channel,
            checkpoint_dir=job.checkpoint_dir,
            checkpoint_key=job.checkpoint_key,
            fidelity=None if self.fidelity is None else trial.config[self.fidelity],
            scale={name: trial.config[name] for name in self.scales},
            paid=job.paid,
        )

    def pauses(self, trial: Trial) -> bool:
        """Whether a run of `trial` that returns is not at its end: its config allows more."""
        if self.fidelity is None or trial.place is None:
            return False
        highest: int = trial.config[self.fidelity]
        return trial.place.level < highest


@dataclass(frozen=True, slots=True)
class Job:
    """One trial to run, its seed, and the folder for its checkpoints.

    `confirming`: a run of the recommendation at the target, which may be far larger than any trial
    of the search, and so is not bound by the time limit of those. `paid`: what earlier stages used.
    `checkpoint_key`: whose checkpoints it may write and read; None outside of a study.
    """

    trial: Trial
    seed: int
    checkpoint_dir: Path
    confirming: bool = False
    paid: Paid = Paid()
    checkpoint_key: CheckpointKey | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial ended.

    `loss`: in the user's direction. `cost`: of all stages of the trial, in the study's unit; None
    if none was reported in this one. `seconds`: wall-clock of the training function, all stages.
    `text`: a traceback or a reason.
    `refusal`: the error that ends the study, when the function broke the rules of `optimize`.
    """

    number: int
    status: Status
    seconds: float
    cause: Cause | None = None
    loss: float | None = None
    cost: float | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    refusal: Exception | None = None


class Runner(Protocol):
    """Runs jobs of one study. Calls come from one thread, `open` first and `close` last."""

    def open(self, task: Task, on_report: OnReport, workers: int) -> None:
        """Prepare to run up to `workers` jobs of `task` at a time.

        `on_report(trial, report)` is called during `poll`, once per report, and its answer is
        carried back. Raises TypeError or ValueError for what this runner cannot do.
        """
        ...

    def submit(self, job: Job) -> None:
        """Take on `job`; at most `workers` are unfinished at any time."""
        ...

    def poll(self, timeout: float) -> list[Outcome]:
        """Serve reports, and return the jobs that ended, after at most about `timeout` seconds."""
        ...

    def kill(self, number: int) -> None:
        """End trial `number` now, without an outcome and without harm to the others."""
        ...

    def close(self) -> None:
        """Kill what still runs and let go of everything; calling it again does nothing."""
        ...


def execute(task: Task, job: Job, channel: Channel) -> Outcome:
    """Run one job to its end, in this process, and say how it ended.

    Only KeyboardInterrupt passes through: it is about the study, not about the trial.
    """
    context = task.context(job, channel)
    refusal: Exception | None = None
    loss: float | None = None
    cause: Cause | None = None
    metrics: dict[str, Any] = {}
    text = ""
    try:
        returned = task.train(context.config, context)
    except Stop:
        loss = context.last_loss
        status = Status.PAUSED if context.paused else Status.STOPPED
    except (Exception, SystemExit) as error:
        status, cause = Status.FAILED, _cause(error)
        text = _traceback(error)
        refusal = context.refusal if error is context.refusal else None
    else:
        status = Status.STOPPED if context.should_stop else Status.COMPLETED
        if context.paused or (status is Status.COMPLETED and task.pauses(job.trial)):
            status = Status.PAUSED
        try:
            loss, metrics = _read_returned(returned, context)
        except (TypeError, ValueError) as error:
            status, cause, text, refusal = Status.FAILED, Cause.ERROR, str(error), error
    if status is Status.PAUSED and loss is None:
        status, cause = Status.FAILED, Cause.ERROR
        text = f"no loss was reported up to level {context.fidelity}, where the run was to pause"
        refusal = ValueError(f"{text}; report one, or return it at ctx.fidelity")
    if context.diverged or (loss is not None and not math.isfinite(loss)):
        status, cause = Status.FAILED, Cause.DIVERGED
        text = text or f"the loss became {'non-finite' if loss is None else loss}"
    return Outcome(
        number=job.trial.number,
        status=status,
        seconds=context.seconds,
        cause=cause,
        loss=None if status is Status.FAILED else loss,
        cost=context.last_cost,
        metrics=metrics,
        text=text,
        refusal=None if refusal is None else refusal.with_traceback(None),
    )


class InlineRunner:
    """Runs one trial at a time inside the driver; nothing is pickled, nothing can be killed."""

    def __init__(self) -> None:
        self._task: Task | None = None
        self._on_report: OnReport | None = None
        self._jobs: deque[Job] = deque()

    def open(self, task: Task, on_report: OnReport, workers: int) -> None:
        """See `Runner`. Raises ValueError for several workers, a time or a memory limit."""
        if workers != 1:
            raise ValueError(
                f"InlineRunner runs one trial at a time, got workers={workers}; "
                "leave out runner= to get one process per trial"
            )
        if task.limits.seconds is not None or task.limits.memory is not None:
            raise ValueError(
                f"InlineRunner cannot enforce {task.limits}; leave out runner= to run each trial "
                "in a process that can be killed, or drop the limit"
            )
        self._task, self._on_report = task, on_report

    def submit(self, job: Job) -> None:
        self._jobs.append(job)

    def poll(self, timeout: float) -> list[Outcome]:
        """Run the next job to its end, however long it takes."""
        assert self._task is not None and self._on_report is not None
        if not self._jobs:
            return []
        job = self._jobs.popleft()
        return [execute(self._task, job, _DirectChannel(job.trial, self._on_report))]

    def kill(self, number: int) -> None:
        self._jobs = deque(job for job in self._jobs if job.trial.number != number)

    def close(self) -> None:
        self._jobs.clear()


@dataclass(frozen=True, slots=True)
class _DirectChannel:
    """A channel that is a function call."""

    trial: Trial
    on_report: OnReport

    def send(self, report: Report) -> Decision:
        return self.on_report(self.trial, report)


@dataclass(slots=True)
class _Worker:
    """A running process of `ProcessRunner` as the driver sees it.

    `lifeline`: write end of a pipe that nobody writes to; when the driver dies it closes
    and the worker goes too. `started`: when the function began, or before that the process.
    `deadline`: monotonic seconds at which patience ends. `cost`: the highest one reported.
    `gpu`: the one it sees, if assigned.
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


class ProcessRunner:
    """Runs each trial in a process of its own, forked from a server with torch preloaded.

    So leaked memory and GPU state die with the trial, and a trial can be killed for its time or
    its memory. Workers lead their own process group: Ctrl-C in a terminal reaches the driver only,
    and killing a trial takes its data loaders along. The training function travels by cloudpickle;
    a script needs no `if __name__ == "__main__"` guard.

    Args:
        gpus: names of the GPUs to share out, as in CUDA_VISIBLE_DEVICES; each trial sees the one
            with the fewest others on it. Without any, trials see what the driver sees.
        per_gpu: trials that may be on one GPU at a time.

    Raises:
        ValueError: for `per_gpu` below 1.
    """

    def __init__(self, *, gpus: Sequence[int | str] = (), per_gpu: int = 1) -> None:
        if per_gpu < 1:
            raise ValueError(f"`per_gpu` must be at least 1, got {per_gpu}")
        self._gpus = tuple(str(gpu) for gpu in gpus)
        self._per_gpu = per_gpu
        self._workers: dict[int, _Worker] = {}
        self._task = b""
        self._limits = Limits()
        self._on_report: OnReport | None = None
        self._threads = 1
        self._oom_kills = 0
        self._context = multiprocessing.get_context("forkserver")

    def open(self, task: Task, on_report: OnReport, workers: int) -> None:
        """See `Runner`.

        Raises TypeError if the training function cannot be pickled, and ValueError for more workers
        than there are places on the GPUs.
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
        self._on_report = on_report
        self._threads = max(1, _available_cores() // workers)
        self._oom_kills = _cgroup_oom_kills()
        self._context.set_forkserver_preload(["torch", "cloudpickle", "hpo.runners"])

    def submit(self, job: Job) -> None:
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

    def poll(self, timeout: float) -> list[Outcome]:
        until = time.monotonic() + timeout
        while True:
            self._wait(until)
            outcomes = [self._serve(worker) for worker in list(self._workers.values())]
            ended = [outcome for outcome in outcomes if outcome is not None]
            if ended or not self._workers or time.monotonic() >= until:
                return ended

    def kill(self, number: int) -> None:
        worker = self._workers.pop(number, None)
        if worker is not None:
            _end(worker)

    def close(self) -> None:
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

    def _serve(self, worker: _Worker) -> Outcome | None:
        """Answer what `worker` sent; its outcome if it ended or must end."""
        alive = worker.process.is_alive()  # asked first: what a dead worker sent is all there
        try:
            while worker.pipe.poll():
                message = worker.pipe.recv()
                if isinstance(message, Outcome):
                    worker.process.join(_END_GRACE)
                    self.kill(message.number)
                    return message
                if isinstance(message, Report):
                    self._answer(worker, message)
                else:
                    self._start_clock(worker)
        except (EOFError, OSError):
            worker.process.join()
            alive = False
        if not alive:
            return self._died(worker)
        return self._over_limit(worker)

    def _answer(self, worker: _Worker, report: Report) -> None:
        assert self._on_report is not None
        if report.cost is not None:
            worker.cost = max(report.cost, worker.cost or 0.0)
        worker.pipe.send(self._on_report(worker.job.trial, report))

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
        seconds = worker.job.paid.seconds + (worker.seconds if worker.training else 0.0)
        self.kill(number)
        return Outcome(
            number, Status.FAILED, seconds=seconds, cause=cause, cost=worker.cost, text=text
        )


@dataclass(frozen=True, slots=True)
class _PipeChannel:
    """A channel over a pipe: a report one way, the decision the other.

    `terminated`: set by SIGTERM. Then the trial ends at its next report, saved just before.
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
    except Exception as error:  # anything can go wrong while a stranger's modules are imported
        text = f"train_fn could not be loaded in the worker:\n{_traceback(error)}"
        pipe.send(Outcome(job.trial.number, Status.FAILED, 0.0, Cause.ERROR, text=text))
        return
    terminated = _terminations()
    process = os.getpid()
    pipe.send("training")
    outcome = execute(loaded, job, _PipeChannel(pipe, terminated))
    if terminated.is_set() and outcome.status is Status.STOPPED:
        text = "ended by SIGTERM; it goes on from what it saved last"
        outcome = replace(
            outcome, status=Status.FAILED, cause=Cause.LOST, loss=None, text=text, refusal=None
        )
    if os.getpid() == process:  # else a child that the function forked and let return
        pipe.send(outcome)


def _terminations() -> threading.Event:
    """An event that SIGTERM sets, as schedulers of clusters send it before they kill.

    Children of this process are ended by it as ever.
    """
    terminated = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: terminated.set())
    os.register_at_fork(after_in_child=lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL))
    return terminated


def _die_with_driver(lifeline: Connection) -> None:
    """End this process and its children as soon as the driver is gone.

    The pipe's end of file tells it everywhere; Linux also signals when the fork server dies, which
    the driver's death entails, and that works while a C extension holds the interpreter lock.
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
    """Let allocations far above `memory` bytes fail, which is kinder than being killed.

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


def _read_returned(returned: Any, context: Context) -> tuple[float, dict[str, Any]]:
    """Loss and metrics of what a training function returned; a cost goes to `context`.

    Raises TypeError or ValueError for anything but a number or a dict with a loss.
    """
    if not isinstance(returned, Mapping):
        if returned is None:
            raise TypeError(
                "train_fn must return its loss, got None; end it with `return loss` or "
                '`return {"loss": loss}`'
            )
        return to_float(returned, "the loss returned by train_fn"), {}
    if "loss" not in returned:
        raise ValueError(
            'a dict returned by train_fn must have an entry "loss", got the keys '
            f'{sorted(map(str, returned))}; rename the objective to "loss"'
        )
    if returned.get("cost") is not None:
        context.finish(to_cost(returned["cost"]))
    metrics = {name: value for name, value in returned.items() if name not in ("loss", "cost")}
    loss = to_float(returned["loss"], "the loss returned by train_fn")
    return loss, {str(name): _plain(value, name) for name, value in metrics.items()}


def _plain(value: Any, name: Any) -> float | str | bool | None:
    """A returned metric that any storage holds: a number as a float, a text, a truth, or None."""
    if value is None or isinstance(value, bool | str):
        return value
    return to_float(value, f"metric {name!r}")


def _cause(error: BaseException) -> Cause:
    """Out of memory or any other error."""
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (
        torch is not None and isinstance(error, torch.OutOfMemoryError)
    ):
        return Cause.OOM
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return Cause.OOM
    text = str(error)
    if isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "not enough memory" in text or "out of memory" in text
    ):
        return Cause.OOM  # torch has no type of its own for the CPU and for some CUDA libraries
    return Cause.ERROR


def _traceback(error: BaseException) -> str:
    """The traceback as text, from its end if it is long."""
    text = "".join(traceback.format_exception(error))
    return text if len(text) <= _LONGEST_TEXT else "[...]\n" + text[-_LONGEST_TEXT:]


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
