"""Ray clusters as a place to run the trials of `optimize`.

    optimize(train, space, budget=..., workers=16, runner=RayRunner(gpus=0.5))

Each trial runs on whatever machine of the cluster is free, in a process of its own there.
"""

from __future__ import annotations

from typing import Any

import ray

from hpo.adapters.remote import RemoteRunner, ReportMessage, Request, host
from hpo.schedulers import Decision
from hpo.study.runners import Outcome

__all__ = ["RayRunner"]


class RayRunner(RemoteRunner):
    """Runs each trial on a machine of a Ray cluster, in a process of its own there.

    Limits on time and memory hold as with local processes. Checkpoints are files, so the folder of
    the study must be one that all machines see.

    Args:
        cpus: CPUs that one trial takes.
        gpus: GPUs that one trial takes; a fraction lets several trials share one.
        address: Address of the cluster, as in `ray.init`; None uses the one that is connected, or
            starts one on this machine.

    Example:
        Needs the extra `ray`::

            optimize(train, space, budget=Budget(trials=64), workers=16, runner=RayRunner(gpus=0.5))
    """

    def __init__(self, *, cpus: float = 1.0, gpus: float = 0.0, address: str | None = None) -> None:
        super().__init__()
        self._resources = {"num_cpus": cpus, "num_gpus": gpus}
        self._address = address
        self._connected_here = False  # whether the connection is this runner's to end
        self._messages_actor: Any = None
        self._references: dict[int, Any] = {}

    def _connect(self, workers: int) -> None:
        if not ray.is_initialized():
            ray.init(address=self._address, include_dashboard=False, log_to_driver=False)
            self._connected_here = True
        # Zero CPUs, or the actor would take a trial's place on a small cluster.
        self._messages_actor = ray.remote(num_cpus=0)(_MessageActor).remote()

    def _launch(self, number: int, request: Request) -> None:
        run = ray.remote(**self._resources, max_retries=0)(_run_under_ray)
        self._references[number] = run.remote(request, self._messages_actor)

    def _messages(self) -> list[ReportMessage]:
        messages: list[ReportMessage] = ray.get(self._messages_actor.collect.remote())
        return messages

    def _answer(self, message: ReportMessage, decision: Decision) -> None:
        self._messages_actor.answer.remote(message.number, decision)

    def _finished(self, timeout: float) -> dict[int, Outcome | Exception]:
        numbers = {reference: number for number, reference in self._references.items()}
        done, _ = ray.wait(list(numbers), num_returns=1, timeout=timeout)
        finished: dict[int, Outcome | Exception] = {}
        for reference in done:
            number = numbers[reference]
            try:
                finished[number] = ray.get(reference)
            except ray.exceptions.RayError as error:
                finished[number] = error
            self._references.pop(number)
        return finished

    def _out_of_memory(self, error: Exception) -> bool:
        return isinstance(error, ray.exceptions.OutOfMemoryError)

    def _kill(self, number: int) -> None:
        reference = self._references.pop(number, None)
        if reference is not None:
            ray.cancel(reference, force=True)

    def _disconnect(self) -> None:
        if self._messages_actor is not None:
            ray.kill(self._messages_actor)
            self._messages_actor = None
        if self._connected_here:
            ray.shutdown()
            self._connected_here = False


class _MessageActor:
    """Reports from trials to their driver, and its answers."""

    def __init__(self) -> None:
        self._messages: list[ReportMessage] = []
        self._answers: dict[int, Decision] = {}

    def send(self, message: ReportMessage) -> None:
        self._messages.append(message)

    def collect(self) -> list[ReportMessage]:
        messages, self._messages = self._messages, []
        return messages

    def answer(self, number: int, decision: Decision) -> None:
        self._answers[number] = decision

    def fetch(self, number: int) -> Decision | None:
        return self._answers.pop(number, None)


class _RayChannel:
    """A trial's end of the channel to its driver."""

    def __init__(self, actor: Any) -> None:
        self._actor = actor

    def send(self, message: ReportMessage) -> None:
        ray.get(self._actor.send.remote(message))

    def fetch(self, number: int) -> Decision | None:
        decision: Decision | None = ray.get(self._actor.fetch.remote(number))
        return decision

    def killed(self) -> bool:
        return False  # Ray kills this process, and the trial's ends with it


def _run_under_ray(request: Request, actor: Any) -> Outcome:
    return host(request, _RayChannel(actor))
