"""Leases: which processes drive a study, and whether they are still alive.

A lease names the process that holds it and the wall-clock time at which it expires unless it is
renewed. On the holder's own machine the process itself is looked up, so a study can be continued at
once after `kill -9`; in the holder's own process it lasts exactly as long as the call that took it.
Everywhere else it ends when it expires, even if the holder could not give it up because its storage
was away. Between machines this needs clocks that agree to within `DURATION`.

A database may be gone for longer than a lease lasts, with every driver waiting for it. A driver
that could not renew its own lease therefore does not hold that against others (`ObserverClock`),
and one that starts gives holders of leases that ended lately a moment to come back.

Each driver of a study has an index, from 0, which is part of the key of its random numbers.
`claim_index` gives the lowest free one to exactly one driver.
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Any

DURATION = 60.0  # seconds a lease lasts without renewal
RENEWAL = 10.0  # seconds between renewals
DRIVER_KEY = "scaletune:driver:"  # and an index: study attribute with the lease that holds it
WANTED_KEY = "scaletune:wanted:"  # and an owner: study attribute with the index it wants
RETRY = 1.0  # seconds before a renewal that failed is tried again
RETURN = 3.0  # seconds in which a driver whose storage is back renews its lease
_YIELD = 0.02  # seconds between looks at others who want the same driver index

_log = logging.getLogger(__name__)

_held_here: set[tuple[int, str]] = set()  # process and owner of each lease that is held here


@dataclass(frozen=True, slots=True)
class Lease:
    """Claim of one driver on a study.

    Attributes:
        owner: Unique id of one `optimize()` call.
        machine: Host, boot and process namespace, within which `pid` has a meaning.
        pid: Process id.
        born: Start time of that process in clock ticks since boot, because process ids are reused.
        expires: Unix time in seconds; 0 once the lease is given up.

    Example:
        >>> lease = Lease.take()
        >>> lease.alive, lease.released().alive
        (True, False)
    """

    owner: str
    machine: str
    pid: int
    born: int
    expires: float

    @classmethod
    def take(cls) -> Lease:
        """Return a new lease for this process, which holds it until `end`."""
        pid = os.getpid()
        expires = time.time() + DURATION
        lease = cls(uuid.uuid4().hex, _machine(), pid, _born(pid) or 0, expires)
        _held_here.add((pid, lease.owner))
        return lease

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Lease:
        """Return the lease that `to_json` stored."""
        return cls(**stored)

    def to_json(self) -> dict[str, Any]:
        """Return the lease as JSON-compatible values."""
        return asdict(self)

    def renewed(self) -> Lease:
        """Return the same claim, for another `DURATION` from now."""
        return Lease(self.owner, self.machine, self.pid, self.born, time.time() + DURATION)

    def released(self) -> Lease:
        """Return the same claim, given up."""
        return Lease(self.owner, self.machine, self.pid, self.born, 0.0)

    def end(self) -> None:
        """Let this process hold it no longer, whatever storage says of it."""
        _held_here.discard((self.pid, self.owner))

    @property
    def alive(self) -> bool:
        """Whether the holder still drives its trials."""
        return self.holds(time.time())

    def holds(self, now: float) -> bool:
        """Return whether the holder still drives its trials, if the clock says `now`.

        Args:
            now: Unix time in seconds.
        """
        if self.expires == 0.0:
            return False
        if self.machine == _machine():
            if self.pid == os.getpid():
                return _born(self.pid) == self.born and (self.pid, self.owner) in _held_here
            if _born(self.pid) != self.born:
                return False
        return now < self.expires


class ObserverClock:
    """Time at which a driver judges the leases of others.

    It stands still while the driver itself is cut off from storage, and until others that were cut
    off, too, have had the time to renew theirs.
    """

    def __init__(self) -> None:
        self._renewed: float | None = None
        self._before, self._until = 0.0, 0.0  # the time that holds, and until when it does

    def renewed(self) -> None:
        """Note that this driver's own lease was written just now."""
        now = time.time()
        if self._renewed is not None and now - self._renewed > DURATION / 2:
            self._before, self._until = self._renewed, now + 2 * RENEWAL
        self._renewed = now

    def now(self) -> float:
        """Return the time at which to judge, in Unix seconds."""
        now = time.time()
        if now < self._until:
            return self._before
        if self._renewed is not None and now - self._renewed > DURATION / 2:
            return self._renewed
        return now


def claim_index(
    lease: Lease,
    attributes: Callable[[], Mapping[str, Any]],
    write: Callable[[str, dict[str, Any]], None],
    clock: Callable[[], float] = time.time,
) -> int:
    """Take the lowest driver index that no living driver holds.

    Of several drivers that want one index at once, the one with the smallest owner gets it. Each
    first writes under a key of its own that it wants the index, then looks: of two, at least one
    sees the other.

    Args:
        lease: Lease of the driver.
        attributes: Reads all attributes of the study, at once.
        write: Writes one attribute of the study.
        clock: Time at which the leases of others are judged.

    Returns:
        The index, which is written as held by `lease`.
    """

    def want(index: int | None) -> None:
        write(f"{WANTED_KEY}{lease.owner}", {"driver": index, "lease": lease.to_json()})

    for index in count():
        want(index)
        while True:
            held, rivals = _claims(attributes(), index, clock(), but=lease.owner)
            if held or any(owner < lease.owner for owner in rivals):
                break
            if not rivals:
                write(f"{DRIVER_KEY}{index}", lease.to_json())
                want(None)
                return index
            time.sleep(_YIELD)  # they will see the smaller owner, or have it already
    raise AssertionError("count() does not end")


def _claims(
    attributes: Mapping[str, Any], index: int, now: float, *, but: str
) -> tuple[bool, list[str]]:
    """Whether a living owner holds the index, and the living owners that want it.

    Both are read at once: an owner that has the index wants it until that is written.
    """
    stored = attributes.get(f"{DRIVER_KEY}{index}")
    held = None if stored is None else Lease.from_json(stored)
    wanted = [v for k, v in attributes.items() if k.startswith(WANTED_KEY)]
    rivals = [Lease.from_json(v["lease"]) for v in wanted if v["driver"] == index]
    living = [rival.owner for rival in rivals if rival.owner != but and rival.holds(now)]
    return held is not None and held.owner != but and held.holds(now), living


class LeaseRenewer:
    """Renews a lease from a thread, so that it does not expire during a long training step.

    Args:
        renew: Writes the renewed lease.
    """

    def __init__(self, renew: Callable[[], None]) -> None:
        self._renew = renew
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="scaletune-lease", daemon=True)

    def __enter__(self) -> LeaseRenewer:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """End the thread; the lease is not renewed any more after this returns."""
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        pause = RENEWAL
        while not self._done.wait(pause):
            try:
                self._renew()
                pause = RENEWAL
            except Exception as error:  # the storage may be busy only now
                if pause != RETRY:
                    _log.warning("the lease could not be renewed, trying again: %s", error)
                pause = RETRY


def _machine() -> str:
    """Name of what process ids are unique in: host name, boot id, process namespace."""
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
    """Without /proc: 0 if `pid` can be signaled or belongs to another user, None if not.

    On Windows no process can be asked so: it counts as running until its lease expires.
    """
    if sys.platform == "win32":
        return 0
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        return 0
    return 0
