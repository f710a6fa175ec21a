"""Who drives a study, and whether that driver still lives.

A lease names the process that holds it and the wall-clock time at which it expires unless it is
renewed. On the holder's own machine the process itself is asked, so a study can go on at once after
`kill -9`; from elsewhere only the expiry tells, which needs clocks that agree to within `DURATION`.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

DURATION = 60.0  # seconds a lease lasts without renewal
RENEWAL = 10.0  # seconds between renewals

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Lease:
    """One driver's claim.

    `owner`: unique to one `optimize()` call. `machine`: host, boot and process namespace, within
    which `pid` has a meaning. `born`: start time of that process in clock ticks since boot, for
    process ids are used again. `expires`: Unix time, seconds; 0 once it is given up.
    """

    owner: str
    machine: str
    pid: int
    born: int
    expires: float

    @classmethod
    def take(cls) -> Lease:
        """A new lease for this process."""
        pid = os.getpid()
        expires = time.time() + DURATION
        return cls(uuid.uuid4().hex, _machine(), pid, _born(pid) or 0, expires)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Lease:
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def renewed(self) -> Lease:
        """The same claim, for another `DURATION` from now."""
        return Lease(self.owner, self.machine, self.pid, self.born, time.time() + DURATION)

    def released(self) -> Lease:
        """The claim given up."""
        return Lease(self.owner, self.machine, self.pid, self.born, 0.0)

    @property
    def alive(self) -> bool:
        """Whether the holder still drives its trials."""
        if self.expires == 0.0:
            return False
        if self.machine == _machine():
            return _born(self.pid) == self.born
        return time.time() < self.expires


class LeaseRenewer:
    """Renews a lease from a thread, so that a long silent training step does not let it expire."""

    def __init__(self, renew: Callable[[], None]) -> None:
        self._renew = renew
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scaletune-lease", daemon=True)

    def __enter__(self) -> LeaseRenewer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End the thread; no renewal happens after this returns."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(RENEWAL):
            try:
                self._renew()
            except Exception as error:  # a storage that is busy now may not be at the next turn
                _log.warning("the lease could not be renewed: %s", error)


def _machine() -> str:
    """Where a process id means something: host name, boot id, process namespace."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:
        boot = namespace = ""
    return f"{socket.gethostname()} {boot} {namespace}"


def _born(pid: int) -> int | None:
    """Start time of a running process; 0 where that cannot be read; None if it does not run."""
    try:
        # The command name, in parentheses, may hold spaces; what follows it may not.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None if Path("/proc/self/stat").exists() else _signaled(pid)
    state, start = fields[0], fields[19]
    return None if state in "ZX" else int(start)


def _signaled(pid: int) -> int | None:
    """Without /proc: 0 if `pid` can be signaled or belongs to another user, None if not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0
