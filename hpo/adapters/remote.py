"""Running trials on a cluster: what Ray and Dask have in common.

On the machine that a cluster picks, :func:`host` runs one trial in a process of its own with the
local `ProcessRunner`, so limits on time and memory and ways to fail are the same there as here:

    Request         from the driver: a trial to run, with all that the other machine needs
    ReportMessage   to the driver: a report of a trial, which waits for a decision
    Decision        back from the driver
"""

from __future__ import annotations

import pickle
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

from hpo.schedulers import Decision
from hpo.study.process_runner import ProcessRunner
from hpo.study.runners import Job, OnReport, Outcome, Task, lost, pickled, unloadable
from hpo.trials import Cause, Report, Status, Trial

__all__ = ["RemoteChannel", "RemoteRunner", "ReportMessage", "Request", "host"]

_POLL = 0.05  # seconds between looks for messages and answers
_KILL_POLL = 0.25  # seconds between a host's looks at whether its trial was killed


@dataclass(frozen=True, slots=True)
class ReportMessage:
    """A report that waits for a decision.

    Attributes:
        number: Number of the trial.
        report: Its report.
    """

    number: int
    report: Report


@dataclass(frozen=True, slots=True)
class Request:
    """A trial to run on another machine.

    Attributes:
        task: The study's `Task`, pickled by cloudpickle.
        job: The trial and where it starts.
    """

    task: bytes
    job: Job


class RemoteChannel(Protocol):
    """Connection of a trial on another machine to its driver."""

    def send(self, message: ReportMessage) -> None:
        """Send a report."""
        ...

    def fetch(self, number: int) -> Decision | None:
        """Return the decision about trial `number`, once; None while there is none."""
        ...

    def killed(self) -> bool:
        """Return whether the driver has killed the trial."""
        ...


def host(request: Request, channel: RemoteChannel) -> Outcome:
    """Run one trial in a process of its own on this machine, and return how it ended."""

    def ask(trial: Trial, report: Report) -> Decision:
        channel.send(ReportMessage(trial.number, report))
        while (decision := channel.fetch(trial.number)) is None:
            if channel.killed():
                return Decision.STOP
            time.sleep(_POLL / 5)
        return decision

    runner = ProcessRunner()
    try:
        task: Task = pickle.loads(request.task)
    except Exception as error:  # importing the user's modules may raise anything
        return lost(request.job, unloadable(error), seconds=0.0)
    runner.open(task, workers=1)
    try:
        runner.submit(request.job)
        while not channel.killed():
            for outcome in runner.poll(_KILL_POLL, ask):
                return outcome
        text = "killed by its driver"
        return Outcome(request.job.trial.number, Status.FAILED, 0.0, Cause.LOST, text=text)
    finally:
        runner.close()


class RemoteRunner(ABC):
    """A `Runner` over a cluster; a subclass launches tasks, carries messages and kills."""

    interruptible = False

    def __init__(self) -> None:
        self._task = b""
        self._jobs: dict[int, Job] = {}
        self._started: dict[int, float] = {}
        self._costs: dict[int, float] = {}

    def open(self, task: Task, workers: int) -> None:
        """Connect to the cluster; see `Runner`.

        Raises:
            TypeError: If the training function cannot be pickled.
        """
        self._task = pickled(task, "on other machines")
        self._connect(workers)

    def submit(self, job: Job) -> None:
        """Launch a trial; see `Runner`."""
        number = job.trial.number
        self._jobs[number] = job
        self._started[number] = time.monotonic()
        self._launch(number, Request(self._task, job))

    def poll(self, timeout: float, on_report: OnReport) -> list[Outcome]:
        """Answer reports, and return the trials that have ended; see `Runner`."""
        until = time.monotonic() + timeout
        while self._jobs:
            for message in self._messages():
                job = self._jobs.get(message.number)
                if job is None:
                    continue  # of a trial that was killed
                if message.report.cost is not None:
                    self._costs[message.number] = message.report.cost
                self._answer(message, on_report(job.trial, message.report))
            wait = min(max(until - time.monotonic(), 0.0), _POLL)
            ended = [self._outcome(n, end) for n, end in self._finished(wait).items()]
            if ended or time.monotonic() >= until:
                return ended
        return []

    def kill(self, number: int) -> None:
        """Kill a trial; see `Runner`."""
        if self._jobs.pop(number, None) is not None:
            self._kill(number)

    def close(self) -> None:
        """Kill all trials and disconnect; see `Runner`."""
        for number in list(self._jobs):
            self.kill(number)
        self._disconnect()

    def _outcome(self, number: int, end: Outcome | Exception) -> Outcome:
        job = self._jobs.pop(number)
        seconds = job.consumed.seconds + time.monotonic() - self._started.pop(number)
        cost = self._costs.pop(number, None)
        if isinstance(end, Outcome):
            return end
        text = f"{type(end).__name__}: {str(end).strip().splitlines()[0] if str(end) else ''}"
        if not self._out_of_memory(end):
            return lost(job, text, seconds=seconds, cost=cost)
        return Outcome(number, Status.FAILED, seconds, Cause.OOM, cost=cost, text=text)

    @abstractmethod
    def _connect(self, workers: int) -> None:
        """Connect to the cluster."""

    @abstractmethod
    def _launch(self, number: int, request: Request) -> None:
        """Have `host(request, channel)` run somewhere."""

    @abstractmethod
    def _messages(self) -> list[ReportMessage]:
        """Messages that have come since the last call."""

    @abstractmethod
    def _answer(self, message: ReportMessage, decision: Decision) -> None:
        """Send the decision about a report."""

    @abstractmethod
    def _finished(self, timeout: float) -> dict[int, Outcome | Exception]:
        """Trials that have ended, after at most `timeout` seconds: their outcome or their error."""

    @abstractmethod
    def _out_of_memory(self, error: Exception) -> bool:
        """Whether a trial without an outcome was killed for its memory."""

    @abstractmethod
    def _kill(self, number: int) -> None:
        """Kill a trial and its processes, and nothing else."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Disconnect from the cluster; a second call does nothing."""
