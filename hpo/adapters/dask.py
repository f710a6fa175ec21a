"""Dask clusters as a place to run the trials of `optimize`.

    optimize(train, space, budget=..., workers=16, runner=DaskRunner("tcp://scheduler:8786"))

Dask cannot kill a running task. So every trial has a process of its own on its worker, and an event
tells the worker to kill it.
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
    the study must be one that all machines see.

    Args:
        cluster: Client, or address of a scheduler; None starts a cluster on this machine's loopback
            interface, with one worker for each trial at a time.
        resources: Dask resources that one trial takes, such as `{"GPU": 1}`.

    Example:
        Needs the extra `dask`::

            runner = DaskRunner("tcp://scheduler:8786", resources={"GPU": 1})
            optimize(train, space, budget=Budget(trials=64), workers=16, runner=runner)
    """

    def __init__(
        self, cluster: Client | str | None = None, *, resources: dict[str, float] | None = None
    ) -> None:
        super().__init__()
        self._cluster = cluster
        self._resources = resources
        self._client: Client | None = None
        self._futures: dict[int, Future] = {}
        self._prefix = ""  # of the names of queues and events, which a cluster shares

    def _connect(self, workers: int) -> None:
        if isinstance(self._cluster, Client):
            self._client = self._cluster
        elif self._cluster is not None:
            self._client = Client(self._cluster)
        else:
            self._client = Client(
                n_workers=workers, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
            )
        self._prefix = f"scaletune-{uuid.uuid4().hex}"
        self._inbox = Queue(self._prefix, client=self._client)

    def _launch(self, number: int, request: Request) -> None:
        assert self._client is not None
        self._futures[number] = self._client.submit(
            _run_under_dask,
            request,
            self._prefix,
            pure=False,  # or a promoted trial would get the result of its last stage
            retries=0,
            resources=self._resources,
        )

    def _messages(self) -> list[ReportMessage]:
        if not self._inbox.qsize():
            return []
        stored = self._inbox.get(batch=True)
        return [ReportMessage(number, Report.from_json(report)) for number, report in stored]

    def _answer(self, message: ReportMessage, decision: Decision) -> None:
        Queue(f"{self._prefix}-{message.number}", client=self._client).put(decision.value)

    def _finished(self, timeout: float) -> dict[int, Outcome | Exception]:
        try:
            wait(list(self._futures.values()), timeout=timeout, return_when="FIRST_COMPLETED")
        except TimeoutError:
            return {}
        finished: dict[int, Outcome | Exception] = {}
        for number, future in list(self._futures.items()):
            if not future.done():
                continue
            del self._futures[number]
            error = future.exception()
            finished[number] = future.result() if error is None else error
        return finished

    def _out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, MemoryError)

    def _kill(self, number: int) -> None:
        future = self._futures.pop(number, None)
        if future is not None:
            Event(f"{self._prefix}-{number}", client=self._client).set()
            future.cancel()

    def _disconnect(self) -> None:
        client, self._client = self._client, None
        if client is not None and client is not self._cluster:
            client.close()
            if self._cluster is None and client.cluster is not None:
                client.cluster.close()


class _DaskChannel:
    """A trial's end of the channel to its driver: queues and an event with names of its own."""

    def __init__(self, prefix: str, number: int) -> None:
        self._outbox = Queue(prefix)
        self._answers = Queue(f"{prefix}-{number}")
        self._kill = Event(f"{prefix}-{number}")

    def send(self, message: ReportMessage) -> None:
        self._outbox.put((message.number, message.report.to_json()))

    def fetch(self, number: int) -> Decision | None:
        try:
            return Decision(self._answers.get(timeout=1.0))
        except TimeoutError:
            return None

    def killed(self) -> bool:
        return bool(self._kill.is_set())


def _run_under_dask(request: Request, prefix: str) -> Any:
    # Dask marks its workers as daemons, which may have no children; a trial's ends with its parent.
    multiprocessing.current_process().daemon = False
    return host(request, _DaskChannel(prefix, request.job.trial.number))
