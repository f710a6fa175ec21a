"""What Ray and Dask have in common as places where trials run.

On the machine that a cluster picks, :func:`host` runs one trial in a process of its own with the
local `ProcessRunner`: its limits on time and memory, its child processes, and its ways to die are
the same there as here. Letters go from that machine to the driver, answers come back:

    letter    a report of trial `number`, which waits for an answer
    request   a trial to run, with everything that the other machine needs to know
"""

from __future__ import annotations

import pickle
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from hpo.schedulers import Decision
from hpo.study.process_runner import ProcessRunner
from hpo.study.runners import Job, OnReport, Outcome, Task
from hpo.trials import Cause, Report, Status, Trial

__all__ = ["ReportMessage", "RemoteChannel", "Outcome", "RemoteRunner", "Request", "host"]

_POLL = 0.05  # seconds between looks for letters and answers
_LOOK = 0.25  # seconds between a host's looks at whether its trial was killed


@dataclass(frozen=True, slots=True)
class ReportMessage:
    """A report that waits for its answer."""

    number: int
    report: Report


@dataclass(frozen=True, slots=True)
class Request:
    """A trial to run elsewhere. `task`: the study's `Task`, by cloudpickle."""

    task: bytes
    job: Job


class RemoteChannel(Protocol):
    """The way between a trial that runs elsewhere and its driver."""

    def send(self, letter: ReportMessage) -> None:
        """Hand over a letter."""
        ...

    def fetch(self, number: int) -> Decision | None:
        """The answer to trial `number`, once; None while there is none."""
        ...

    def killed(self) -> bool:
        """Whether the driver wants the trial to end now."""
        ...


def host(request: Request, mailbox: RemoteChannel) -> Outcome:
    """Run one trial in a process of its own on this machine, and say how it ended."""

    def ask(trial: Trial, report: Report) -> Decision:
        mailbox.send(ReportMessage(trial.number, report))
        while (decision := mailbox.fetch(trial.number)) is None:
            if mailbox.killed():
                return Decision.STOP
            time.sleep(_POLL / 5)
        return decision

    runner = ProcessRunner()
    try:
        task: Task = pickle.loads(request.task)
    except Exception as error:  # anything can go wrong while a stranger's modules are imported
        text = f"train_fn could not be loaded on the other machine: {error!r}"
        return Outcome(request.job.trial.number, Status.FAILED, 0.0, Cause.ERROR, text=text)
    runner.open(task, workers=1)
    try:
        runner.submit(request.job)
        while not mailbox.killed():
            for outcome in runner.poll(_LOOK, ask):
                return outcome
        text = "killed by its driver"
        return Outcome(request.job.trial.number, Status.FAILED, 0.0, Cause.LOST, text=text)
    finally:
        runner.close()


class RemoteRunner(ABC):
    """A `Runner` over a cluster: derive from it and say how to launch, talk and end."""

    interruptible = False

    def __init__(self) -> None:
        self._task = b""
        self._jobs: dict[int, Job] = {}
        self._started: dict[int, float] = {}
        self._costs: dict[int, float] = {}

    def open(self, task: Task, workers: int) -> None:
        """See `Runner`. Raises TypeError if the training function cannot be pickled."""
        import cloudpickle  # type: ignore[import-untyped]  # it publishes no types

        try:
            self._task = cloudpickle.dumps(task)
        except (TypeError, pickle.PicklingError, AttributeError, RecursionError) as error:
            raise TypeError(
                f"train_fn must be picklable to run on other machines, but {error}; create locks, "
                "open files, CUDA tensors and the like inside the function"
            ) from error
        self._connect(workers)

    def submit(self, job: Job) -> None:
        """See `Runner`."""
        number = job.trial.number
        self._jobs[number] = job
        self._started[number] = time.monotonic()
        self._launch(number, Request(self._task, job))

    def poll(self, timeout: float, on_report: OnReport) -> list[Outcome]:
        """See `Runner`."""
        until = time.monotonic() + timeout
        while self._jobs:
            for letter in self._letters():
                job = self._jobs.get(letter.number)
                if job is None:
                    continue  # of a trial that was killed
                if letter.report.cost is not None:
                    self._costs[letter.number] = letter.report.cost
                self._answer(letter, on_report(job.trial, letter.report))
            wait = min(max(until - time.monotonic(), 0.0), _POLL)
            ended = [self._outcome(n, end) for n, end in self._ended(wait).items()]
            if ended or time.monotonic() >= until:
                return ended
        return []

    def kill(self, number: int) -> None:
        """See `Runner`."""
        if self._jobs.pop(number, None) is not None:
            self._end(number)

    def close(self) -> None:
        """See `Runner`."""
        for number in list(self._jobs):
            self.kill(number)
        self._disconnect()

    def _outcome(self, number: int, end: Outcome | Exception) -> Outcome:
        job = self._jobs.pop(number)
        seconds = job.consumed.seconds + time.monotonic() - self._started.pop(number)
        cost = self._costs.pop(number, None)
        if isinstance(end, Outcome):
            return end
        cause = Cause.OOM if self._out_of_memory(end) else Cause.LOST
        text = f"{type(end).__name__}: {str(end).strip().splitlines()[0] if str(end) else ''}"
        return Outcome(number, Status.FAILED, seconds, cause, cost=cost, text=text)

    @abstractmethod
    def _connect(self, workers: int) -> None:
        """Reach the cluster."""

    @abstractmethod
    def _launch(self, number: int, request: Request) -> None:
        """Have `host(request, mailbox)` run somewhere."""

    @abstractmethod
    def _letters(self) -> list[ReportMessage]:
        """Letters that have come since the last look."""

    @abstractmethod
    def _answer(self, letter: ReportMessage, decision: Decision) -> None:
        """Answer one of them."""

    @abstractmethod
    def _ended(self, timeout: float) -> dict[int, Outcome | Exception]:
        """Trials that have ended, after at most `timeout` seconds: their outcome, or why none."""

    @abstractmethod
    def _out_of_memory(self, error: Exception) -> bool:
        """Whether a trial without an outcome was killed for its memory."""

    @abstractmethod
    def _end(self, number: int) -> None:
        """Kill a trial and its processes, and nothing else."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Let go of the cluster; calling it again does nothing."""
