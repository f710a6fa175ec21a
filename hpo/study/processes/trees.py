"""End a process with all that it has started, in whatever session or group that now is.

A process group is not enough: `torchrun`, and everything that calls `setsid`, starts processes in
groups of their own. On Linux a trial's process adopts what its children leave behind
(`adopt_orphans`), so the tree below it is whole, and `/proc` shows that tree. Once it is gone, what
is left is found by a mark in the environment. Elsewhere the group is all that can be ended.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from hpo.study.processes.system import KILL

__all__ = ["MARK", "adopt_orphans", "descendants", "end_marked", "end_tree", "end_with_parent"]

MARK = "SCALETUNE_TRIAL"  # in the environment of a trial and of what it starts
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
_ROUNDS = 20  # looks at a tree that keeps growing


def adopt_orphans() -> None:
    """Become the parent of what this process's children leave behind, where that is possible."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent() -> None:
    """Let the system kill this process when the thread that started it ends, on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def descendants(root: int) -> list[int]:
    """Return the processes below a process, parents first; none where `/proc` does not tell.

    Args:
        root: Process id.

    Example:
        >>> import subprocess
        >>> child = subprocess.Popen(["sleep", "60"])
        >>> child.pid in descendants(os.getpid())
        True
        >>> end_tree(child.pid)
        >>> child.wait()
        -9
    """
    children: dict[int, list[int]] = {}
    for process, (parent, state) in _processes().items():
        if state not in "ZX":
            children.setdefault(parent, []).append(process)
    found = [root]
    for process in found:
        found += children.get(process, ())
    return found[1:]


def end_tree(root: int, *, keep_root: bool = False, but: Collection[int | None] = ()) -> None:
    """Kill a process and all below it, so that none can start another meanwhile.

    Args:
        root: Process id; one that is gone is ignored.
        keep_root: Whether the process itself goes on.
        but: Processes below it that go on.
    """
    stopped = set[int]()
    if not keep_root:
        _pause(root)
    for _ in range(_ROUNDS):
        new = [p for p in descendants(root) if p not in stopped and p not in but]
        if not new:
            break
        for process in new:
            _pause(process)
            stopped.add(process)
    for process in stopped if keep_root else {root, *stopped}:
        _send(process, KILL)


def end_marked(mark: str) -> None:
    """Kill every process of this user whose environment has a mark, on Linux.

    Args:
        mark: Value of `MARK`, which no other trial has.
    """
    entry = f"{MARK}={mark}".encode()
    for _ in range(_ROUNDS):
        found = [process for process in _numbers() if entry in _environment(process)]
        if not found:
            return
        for process in found:
            _send(process, KILL)


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state of every process."""
    found = {}
    for process in _numbers():
        with suppress(OSError):  # it is gone
            stat = Path("/proc", str(process), "stat").read_bytes()
            state, parent = stat.rpartition(b")")[2].decode().split()[:2]
            found[process] = int(parent), state
    return found


def _numbers() -> list[int]:
    """Process ids of this system."""
    names = os.listdir("/proc") if sys.platform == "linux" else []
    return [int(name) for name in names if name.isdecimal()]


def _environment(process: int) -> list[bytes]:
    """Environment with which a process was started; empty for one that is gone or another's."""
    try:
        return Path("/proc", str(process), "environ").read_bytes().split(b"\0")
    except OSError:
        return []


def _pause(process: int) -> None:
    if sys.platform != "win32":
        _send(process, signal.SIGSTOP)


def _send(process: int, number: signal.Signals) -> None:
    with suppress(OSError):  # it is gone, or another user's
        os.kill(process, number)
