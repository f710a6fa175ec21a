"""What differs between systems about the processes of trials, in one place.

==================  ==============================  ========================  ===================
                    Linux                           macOS                     Windows
==================  ==============================  ========================  ===================
started by          a fork server                   a fork server             spawn
killed with it      all below it, by `/proc`        its process group         the process alone
memory limit        watched, and allocations fail   as far as it limits data  none
its driver dies     it ends, by the kernel          it ends, by a pipe        it ends, by a pipe
==================  ==============================  ========================  ===================

A fork server preloads torch, so a process starts in hundredths of a second; one that is spawned
loads what it needs itself.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

__all__ = [
    "KILL",
    "OWN_SIGNALS",
    "available_cores",
    "cgroup_oom_kills",
    "default_start_method",
    "end_group",
    "forget_server",
    "lead_group",
    "limit_memory",
    "resident_bytes",
    "server_pid",
    "server_runs",
    "start_methods",
]

#: Signal that ends a process whatever it does.
KILL: signal.Signals
if sys.platform == "win32":
    KILL = signal.SIGTERM
else:
    KILL = signal.SIGKILL

#: Signals that a process sends to itself, or meets by its own doing.
OWN_SIGNALS = frozenset(
    getattr(signal, name)
    for name in "SIGSEGV SIGABRT SIGBUS SIGILL SIGFPE SIGPIPE SIGSYS SIGTRAP".split()
    if hasattr(signal, name)
)

_server: Any = forkserver._forkserver  # what its types leave out is read here


def start_methods() -> tuple[str, ...]:
    """Return the ways in which a trial's process can be started here, the usual one first.

    `fork` is none of them: a forked process shares locks and GPU state with its driver.

    Example:
        >>> start_methods()[-1]
        'spawn'
    """
    return tuple(
        name for name in ("forkserver", "spawn") if name in multiprocessing.get_all_start_methods()
    )


def default_start_method() -> str:
    """Return how a trial's process is started if nothing else is said."""
    return start_methods()[0]


def server_pid() -> int | None:
    """Return the process id of this process's fork server; None without one."""
    pid: int | None = _server._forkserver_pid
    return pid


def server_runs(pid: int | None) -> bool:
    """Return whether a fork server of this process runs; `multiprocessing` keeps its exit status.

    Args:
        pid: Its process id.
    """
    if pid is None or sys.platform == "win32":
        return False
    if sys.platform == "darwin":  # which has no waitid; one that nobody has waited for yet runs
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return True
    try:
        ended = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return ended is None


def forget_server() -> None:
    """Let a forked child start a fork server of its own: its parent's is no child of it."""
    if _server._forkserver_alive_fd is not None:
        with suppress(OSError):
            os.close(_server._forkserver_alive_fd)
    _server._forkserver_alive_fd = _server._forkserver_address = _server._forkserver_pid = None
    _server._lock = threading.Lock()


if sys.platform != "win32":
    os.register_at_fork(after_in_child=forget_server)


def lead_group() -> None:
    """Let this process lead a group of its own, which Ctrl-C in a terminal does not reach."""
    if sys.platform == "win32":
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # there are no such groups
    else:
        os.setsid()


def end_group(leader: int | None) -> bool:
    """Kill the process group that a process leads.

    Args:
        leader: Process id of its leader; None for the group of this process.

    Returns:
        Whether there was such a group.
    """
    if sys.platform == "win32":
        if leader is None:
            os._exit(1)
        return False
    try:
        os.killpg(0 if leader is None else leader, KILL)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def limit_memory(memory: int) -> None:
    """Let allocations far above `memory` bytes fail, so that a function can raise MemoryError.

    Data segments are counted when mapped, resident memory when touched, hence a quarter of slack.

    Args:
        memory: Limit in bytes.
    """
    if sys.platform == "win32":
        return
    import resource

    ceiling = memory + memory // 4 + _pages("self", 5)
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    if hard != resource.RLIM_INFINITY:
        ceiling = min(ceiling, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (ceiling, hard))


def resident_bytes(pid: int | None) -> int:
    """Return the resident memory of a process; 0 where `/proc` does not tell or it is gone.

    Args:
        pid: Process id.
    """
    return _pages(str(pid), 1)


def _pages(process: str, field: int) -> int:
    """Bytes that a field of `/proc/<process>/statm` tells; 0 where there is none."""
    if sys.platform == "win32":
        return 0
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[field])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def available_cores() -> int:
    """Return how many cores this process may use."""
    if sys.platform == "linux":
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def cgroup_oom_kills() -> int:
    """Return how often the kernel killed for memory in our cgroup; 0 where that is not counted."""
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
