"""Dask as a place where `optimize` runs its trials.

    optimize(train, space, budget=..., workers=16, runner=DaskRunner("tcp://scheduler:8786"))

Dask cannot kill a task that runs, so every trial has a process of its own on its worker, and a
killed one is told so by an event that its host looks at.
"""

from __future__ import annotations

import multiprocessing
import uuid
from typing import Any

from distributed import Client, Event, Future, Queue, TimeoutError, wait

from hpo.adapters.remote import RemoteRunner, ReportMessage, Request, host
from hpo.schedulers import Decision
from hpo.study.runners import Outcome
from hpo.trials import Report

__all__ = ["DaskRunner"]


class DaskRunner(RemoteRunner):
    """Runs each trial on a worker of a Dask cluster, in a process of its own there.

    Limits on time and memory hold as with local processes. Checkpoints are files, so the folder of
    the run must be one that all machines see.

    Args:
        cluster: a client, or the address of a scheduler; None starts a cluster here, on the
            loopback interface, of one worker for each trial at a time.
        resources: of Dask, that one trial takes, such as `{"GPU": 1}`.
    """

    def __init__(
        self, cluster: Client | str | None = None, *, resources: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        self._cluster = cluster
        self._resources = resources
        self._client: Client | None = None
        self._futures: dict[int, Future] = {}
        self._run = ""  # sets this run's names apart from those of others on the cluster

    def _connect(self, workers: int) -> None:
        if isinstance(self._cluster, Client):
            self._client = self._cluster
        elif self._cluster is not None:
            self._client = Client(self._cluster)
        else:
            self._client = Client(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
            )
        self._run = f"scaletune-{uuid.uuid4().hex}"
        self._inbox = Queue(self._run, client=self._client)

    def _launch(self, number: int, request: Request) -> None:
        assert self._client is not None
        self._futures[number] = self._client.submit(
            _run_under_dask,
            request,
            self._run,
            pure=False,  # a key of its own, or a promoted run is answered with its last stage
            retries=0,
            resources=self._resources,
        )

    def _letters(self) -> list[ReportMessage]:
        if not self._inbox.qsize():
            return []
        stored = self._inbox.get(batch=True)
        return [ReportMessage(number, Report.from_json(report)) for number, report in stored]

    def _answer(self, letter: ReportMessage, decision: Decision) -> None:
        Queue(f"{self._run}-{letter.number}", client=self._client).put(decision.value)

    def _ended(self, timeout: float) -> dict[int, Outcome | Exception]:
        try:
            wait(list(self._futures.values()), timeout=timeout, return_when="FIRST_COMPLETED")
        except TimeoutError:
            return {}
        ended: dict[int, Outcome | Exception] = {}
        for number, future in list(self._futures.items()):
            if not future.done():
                continue
            del self._futures[number]
            error = future.exception()
            ended[number] = future.result() if error is None else error
        return ended

    def _out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError)

    def _end(self, number: int) -> None:
        future = self._futures.pop(number, None)
        if future is not None:
            Event(f"{self._run}-{number}", client=self._client).set()
            future.cancel()

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None and client is not self._cluster:
            client.close()
            if self._cluster is None and client.cluster is not None:
                client.cluster.close()


class _DaskMailbox:
    """The trial's end of the mail: queues and an event that are named after the run."""

    def __init__(self, run: str, number: int) -> None:
        self._outbox = Queue(run)
        self._answers = Queue(f"{run}-{number}")
        self._kill = Event(f"{run}-{number}")

    def send(self, letter: ReportMessage) -> None:
        self._outbox.put((letter.number, letter.report.to_json()))

    def fetch(self, number: int) -> Decision | None:
        try:
            return Decision(self._answers.get(timeout=1.0))
        except TimeoutError:
            return None

    def killed(self) -> bool:
        return bool(self._kill.is_set())


def _run_under_dask(request: Request, run: str) -> Any:
    # Dask marks its workers as daemons, which may have no children; ours end with their parent.
    multiprocessing.current_process().daemon = False
    return host(request, _DaskMailbox(run, request.job.trial.number))
