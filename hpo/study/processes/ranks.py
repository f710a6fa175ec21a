"""A trial in several processes: the ranks of a distributed run share the trial's context.

    def train(config, ctx):  # in the trial's own process
        return hpo.launch(ctx, ["torchrun", "--standalone", "--nproc-per-node=8", "train.py"])

    with hpo.connect() as ctx:  # train.py, on every rank
        ctx.complete(fit(ctx.config, ctx))

Every rank calls `ctx.report`, `ctx.save` and `ctx.load`, in the same order. Rank 0 talks to the
driver and writes the checkpoint; the others learn what came of it, so all of them raise `Stop` at
the same report, and none goes on before a checkpoint is whole.

The trial's process listens on a socket in a folder of its own, for its owner only; the key that
opens it is in the environment of the ranks. No collective of the training library is used, so it
makes no difference which library that is, and a rank that waits for one that has died is told so.
`torch.multiprocessing.spawn(run, args=(ctx,))` works as well: a context that is sent to a new
process becomes that of a rank.

Words
-----
round   the ranks of one launch; a launcher that restarts them makes another
step    one exchange of a round; every rank counts its own, so equal numbers belong together
notes   what the trial's own context must know of rank 0's
"""

from __future__ import annotations

import copyreg
import os
import queue
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import AuthenticationError
from multiprocessing import context as multiprocessing_context
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from types import TracebackType
from typing import Any

from hpo.errors import Stop, StudyError
from hpo.schedulers import Decision
from hpo.space.arguments import Count, Kind, Row, Table, Text
from hpo.study.checkpoints import Saved
from hpo.study.context import Context
from hpo.study.processes.imports import training_clock
from hpo.study.processes.trees import end_tree
from hpo.trials import Report

__all__ = ["RankContext", "connect", "launch"]

_ADDRESS, _KEY = "SCALETUNE_SOCKET", "SCALETUNE_KEY"  # in the environment of a rank
_LONGEST_PATH = 100  # characters of a socket's path, of which Linux takes 107 and macOS 103
_LONGEST_TEXT = 4000  # characters of a traceback
_NOTED = ("last_loss", "last_cost", "diverged", "_stopped", "_paused", "_last_step", "_saved")
_NOTED_COST = ("_counted", "_offset")


# --- in the trial's process ----------------------------------------------------------------------


@dataclass(eq=False, slots=True)
class _Round:
    """Ranks that belong together, and how far they are; guarded by the hub's condition."""

    joined: set[int] = field(default_factory=set)
    gone: dict[int, str] = field(default_factory=dict)  # how they went
    ranks: int = 1
    shared: dict[int, Any] = field(default_factory=dict)  # by step: what rank 0 tells the others
    arrived: dict[int, set[int]] = field(default_factory=dict)  # by step


class _Hub:
    """Serves the ranks of a trial.

    Args:
        ctx: Context of the trial, in its own process.
    """

    def __init__(self, ctx: Context) -> None:
        self.ctx = ctx
        self.key = secrets.token_bytes(32)
        folder = tempfile.mkdtemp(prefix="scaletune-")  # for its owner only
        if len(folder) > _LONGEST_PATH:
            os.rmdir(folder)
            folder = tempfile.mkdtemp(prefix="scaletune-", dir="/tmp")
        self._folder = folder
        self.address = str(Path(folder, "s"))
        self._listener = Listener(self.address, "AF_UNIX", backlog=128, authkey=self.key)
        self._changed = threading.Condition()
        self._round = _Round()
        self.reports: queue.SimpleQueue[tuple[Report, queue.SimpleQueue[Any]] | None] | None = None
        self.result: list[Any] = []
        self.failure: Exception | None = None
        self.began: float | None = None  # when the first rank came
        self._closed = False
        threading.Thread(target=self._accept, name="scaletune-ranks", daemon=True).start()

    def environment(self) -> dict[str, str]:
        """Return what a rank finds in its environment."""
        return {_ADDRESS: self.address, _KEY: self.key.hex()}

    def welcome(self) -> dict[str, Any]:
        """Return the arguments of a rank's context."""
        ctx = self.ctx
        return {
            "trial": ctx.trial,
            "seed": ctx.seed,
            "checkpoint_dir": ctx.checkpoint_dir,
            "checkpoint_key": ctx._checkpoint_key,
            "fidelity": ctx.fidelity,
            "scale": ctx.scale,
            "consumed": ctx._consumed,
            "furthest": ctx._furthest,
        }

    def close(self) -> None:
        """Stop listening. Ranks that still run are ended by that."""
        self._closed = True
        with suppress(OSError):
            self._listener.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _accept(self) -> None:
        while not self._closed:
            try:
                pipe = self._listener.accept()
            except (OSError, EOFError, AuthenticationError):
                if self._closed:
                    return
                continue
            threading.Thread(target=self._serve, args=(pipe,), daemon=True).start()

    def _serve(self, pipe: Connection) -> None:
        """Answer one rank until it leaves; the first message says which it is."""
        rank, round_ = -1, self._round
        try:
            kind, *arguments = pipe.recv()
            if kind == "watch":  # held open until this process ends
                pipe.recv()
                return
            rank, ranks = arguments
            round_ = self._join(rank, ranks)
            pipe.send(self.welcome())
            while True:
                kind, *arguments = pipe.recv()
                if kind == "leave":
                    self._leave(round_, rank, *arguments)
                    return
                pipe.send(self._answer(round_, rank, kind, arguments))
        except (EOFError, OSError):
            self._leave(round_, rank, None)
        finally:
            pipe.close()

    def _join(self, rank: int, ranks: int) -> _Round:
        with self._changed:
            if rank in self._round.joined:
                self._round = _Round()
                self.failure, self.result = None, []
            self._round.joined.add(rank)
            self._round.ranks = ranks
            if self.began is None:
                self.began = training_clock()
            return self._round

    def _leave(self, round_: _Round, rank: int, failure: Exception | None) -> None:
        with self._changed:
            if rank >= 0:
                round_.gone[rank] = "failed" if failure is not None else "ended"
            if failure is not None and self.failure is None:
                self.failure = failure
            self._changed.notify_all()

    def _answer(self, round_: _Round, rank: int, kind: str, arguments: list[Any]) -> Any:
        match kind, arguments:
            case "report", [report]:
                return self._report(report)
            case "share", [step, told, notes]:
                self._note(notes)
                with self._changed:
                    round_.shared[step] = told
                    self._changed.notify_all()
            case "follow", [step]:
                return self._wait(round_, lambda: step in round_.shared, 0, step)
            case "meet", [step]:
                with self._changed:
                    round_.arrived.setdefault(step, set()).add(rank)
                    self._changed.notify_all()
                return self._wait(
                    round_, lambda: len(round_.arrived[step]) >= round_.ranks, None, 0
                )
            case "complete", [result]:
                self.result = [result]
        return None

    def _wait(self, round_: _Round, done: Any, awaited: int | None, step: int) -> Any:
        """Wait for rank `awaited`, or all of them; an error once that cannot happen any more."""
        with self._changed:
            while not done():
                gone = [r for r in sorted(round_.gone) if awaited is None or r == awaited]
                gone = [r for r in gone if awaited == r or self._is_missing(round_, r)]
                if gone:
                    return ConnectionResetError(
                        f"rank {gone[0]} of this trial {round_.gone[gone[0]]} before the others"
                    )
                self._changed.wait()
            return round_.shared[step] if awaited is not None else None

    @staticmethod
    def _is_missing(round_: _Round, rank: int) -> bool:
        """Whether a rank that is gone has missed the newest meeting."""
        return rank not in round_.arrived[max(round_.arrived)]

    def _report(self, report: Report) -> Any:
        """Carry a report to the driver, from the thread that waits for the ranks, if one does."""
        reports = self.reports
        if reports is None:
            return self.send(report)
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        reports.put((report, answer))
        return answer.get()

    def send(self, report: Report) -> Any:
        """Send a report to the driver; its decision, or the error that it met."""
        try:
            return self.ctx._channel.send(report)
        except BaseException as error:
            self.ctx.driver_error = error
            return StudyError(f"the study ends at step {report.step}: {error!r}")

    def _note(self, notes: Mapping[str, Any]) -> None:
        ctx = self.ctx
        for name in (*_NOTED, *_NOTED_COST):
            setattr(ctx, name, notes[name])
        if notes["loaded"] is not None:
            ctx._loaded = Saved(None, *notes["loaded"])
        if notes["error"] is not None:
            setattr(ctx, *notes["error"])
            self.failure = notes["error"][1]


def _hub_of(ctx: Context) -> _Hub:
    if ctx._hub is None:
        ctx._hub = _Hub(ctx)
    hub: _Hub = ctx._hub
    return hub


def launch(
    ctx: Context, command: Sequence[str | os.PathLike[str]], *, env: Mapping[str, str] | None = None
) -> Any:
    r"""Run a command whose processes are the ranks of this trial, and return their result.

    Args:
        ctx: Context of the trial.
        command: Program and arguments, such as `["torchrun", "--standalone", "--nproc-per-node=8",
            "train.py"]`, whose processes call `connect`. On this machine only.
        env: Environment of the command; None for that of this process.

    Returns:
        What rank 0 gave to `ctx.complete`, or else the loss that it reported last.

    Raises:
        Stop: The study has told the ranks to end here. Let it pass.
        MemoryError: A rank has run out of memory.
        RuntimeError: A rank has failed, or the command has ended otherwise without a result.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> script = "import hpo\nwith hpo.connect() as ctx: ctx.complete(ctx.config['x'] ** 2)"
        >>> def train(config, ctx):
        ...     return launch(ctx, [sys.executable, "-c", script])
        >>> result = optimize(train, {"x": Float(1, 2)}, budget=Budget(trials=1))
        >>> result.best.loss == result.best.config["x"] ** 2
        True
    """
    ctx = Kind(Context, way_out="pass the ctx of the training function")(ctx, "`ctx`")
    command = Row(Kind((str, os.PathLike)), empty=False, way_out='write ["torchrun", "train.py"]')(
        command, "`command`"
    )
    env = Table(Text(), optional=True)(env, "`env`")
    hub = _Hub(ctx)
    hub.reports = queue.SimpleQueue()
    started = training_clock()
    environment = {**(os.environ if env is None else env), **hub.environment()}
    process = subprocess.Popen(command, env=environment)
    try:
        ended = threading.Thread(
            target=lambda: (process.wait(), hub.reports.put(None)),  # type: ignore[union-attr]
            daemon=True,
        )
        ended.start()
        while (item := hub.reports.get()) is not None:
            report, answer = item
            answer.put(hub.send(report))
        if hub.began is not None:
            ctx._started += hub.began - started  # the ranks have loaded their modules until then
        return _read_end(ctx, hub, process.returncode, command)
    finally:
        if process.returncode is None:
            end_tree(process.pid)
            process.wait()
        hub.close()


def _read_end(ctx: Context, hub: _Hub, code: int, command: Sequence[Any]) -> Any:
    """Result of the ranks, or the error that they have met."""
    if ctx._stopped or ctx.driver_error is not None:
        raise Stop(f"trial {ctx.trial.number} was told to end in its ranks")
    if hub.failure is not None:
        raise hub.failure
    if code < 0:
        name = signal.strsignal(-code) or str(-code)
        raise RuntimeError(f"the ranks' launcher {command[0]} was killed by signal: {name}")
    if code > 0:
        raise RuntimeError(
            f"the ranks' launcher {command[0]} ended with exit code {code}; what went wrong is in "
            "what it has written, and `with hpo.connect() as ctx:` in the script hands it on"
        )
    if hub.result:
        return hub.result[0]
    if ctx.last_loss is None:
        raise RuntimeError(
            f"{command[0]} ended without a result; call ctx.complete(loss) on the context of "
            "hpo.connect() in each of its processes"
        )
    return ctx.last_loss


# --- in a rank -----------------------------------------------------------------------------------


class _Link:
    """Connection of a rank to its trial, made when it is first needed.

    Args:
        address: Path of the socket.
        key: Key that opens it.
        rank: Number of this process among the ranks; None to find it out.
        ranks: Number of ranks; None to find it out.
    """

    def __init__(self, address: str, key: bytes, rank: int | None, ranks: int | None) -> None:
        self.address, self.key = address, key
        self._given = rank, ranks
        self._pipe: Any = None  # a connection once it has joined
        self._step = 0
        self.rank, self.ranks = 0, 1

    def join(self) -> dict[str, Any] | None:
        """Connect, once; return the arguments of the context, or None if that was before."""
        if self._pipe is not None:
            return None
        self.rank, self.ranks = _place(*self._given)
        try:
            pipe = Client(self.address, "AF_UNIX", authkey=self.key)
            watched = Client(self.address, "AF_UNIX", authkey=self.key)
        except (OSError, EOFError, AuthenticationError) as error:
            raise StudyError(
                f"the trial of this process cannot be reached: {error}; the ranks must run on its "
                "machine, as processes of hpo.launch, and end before it"
            ) from error
        watched.send(("watch",))
        threading.Thread(target=_end_without, args=(watched,), daemon=True).start()
        pipe.send(("join", self.rank, self.ranks))
        self._pipe = pipe
        welcome: dict[str, Any] = pipe.recv()
        return welcome

    def ask(self, kind: str, *arguments: Any) -> Any:
        """Send a message and return the answer; raise it if it is an error."""
        self.join()
        assert self._pipe is not None
        self._pipe.send((kind, *arguments))
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def step(self) -> int:
        """Return the number of the next exchange."""
        self.join()
        self._step += 1
        return self._step

    def leave(self, failure: Exception | None) -> None:
        """Say that this rank ends, and of what."""
        if self._pipe is not None:
            with suppress(OSError):
                self._pipe.send(("leave", failure))


def _place(rank: int | None, ranks: int | None) -> tuple[int, int]:
    """Number of this process and of all ranks: as given, of torch.distributed, of torchrun, one."""
    torch = sys.modules.get("torch")
    distributed = getattr(torch, "distributed", None)
    if rank is None and distributed is not None and distributed.is_available():
        if distributed.is_initialized():
            return distributed.get_rank(), distributed.get_world_size()
    if rank is None:
        rank = int(os.environ.get("RANK", 0))
    if ranks is None:
        ranks = int(os.environ.get("WORLD_SIZE", 1))
    return rank, ranks


def _end_without(watched: Connection) -> None:
    """End this process, and what it has started, as soon as its trial is gone."""
    with suppress(EOFError, OSError):
        watched.recv()
    end_tree(os.getpid())


@dataclass(frozen=True, slots=True)
class _LinkChannel:
    """Channel of rank 0, over its link."""

    link: _Link

    def send(self, report: Report) -> Decision:
        decision: Decision = self.link.ask("report", report)
        return decision


class RankContext(Context):
    """The context of one rank of a trial; `connect` makes it.

    Its methods are those of `Context`, and every rank calls them, in the same order. Used in a
    `with` block it ends the rank quietly when the study ends the trial, and hands an error on.

    Args:
        link: Connection to the trial.
        arguments: Arguments of the context.
    """

    def __init__(self, link: _Link, arguments: Mapping[str, Any]) -> None:
        super().__init__(**arguments, channel=_LinkChannel(link))
        self._link = link

    @property
    def rank(self) -> int:
        """Number of this process among the ranks of the trial."""
        self._link.join()
        return self._link.rank

    @property
    def ranks(self) -> int:
        """Number of ranks of the trial."""
        self._link.join()
        return self._link.ranks

    def report(
        self,
        *,
        step: int,
        loss: float | None = None,
        cost: float | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Report progress on every rank; what rank 0 says counts, see `Context.report`.

        Args:
            step: Position of the run.
            loss: Loss in the user's own direction; on rank 0.
            cost: Cost consumed since the run began; on rank 0.
            metrics: Further numbers; on rank 0.

        Raises:
            Stop: On every rank, when the trial is to end here.
            TypeError: For an argument of a wrong type, on every rank.
            ValueError: For a negative step or cost, on every rank.
            ConnectionResetError: Rank 0 has ended before.
        """
        if self._stopped:
            raise Stop(f"trial {self.trial.number} was already told to stop")
        number = self._link.step()
        if self.rank == 0:
            with _Sharing(self, number):
                super().report(step=step, loss=loss, cost=cost, metrics=metrics)
        else:
            self._follow(number)
        if self._stopped:
            raise Stop(f"trial {self.trial.number} was told to end at step {step}")

    def save(self, state: Any) -> None:
        """Save the state of rank 0 once all have come here; see `Context.save`.

        What other ranks hold of their own they write into `checkpoint_dir` before, and read after
        `load`; `torch.distributed.checkpoint` does that for sharded weights.

        Args:
            state: Tensors, plain Python values, and dicts, lists and tuples of them.

        Raises:
            TypeError: For values that could not be loaded again.
            OSError: If the disk fails or is full, on every rank.
            StudyError: If there is no checkpoint folder.
            ConnectionResetError: A rank has ended before.
        """
        self.barrier()
        number = self._link.step()
        if self.rank == 0:
            with _Sharing(self, number):
                super().save(state)
        else:
            self._follow(number)

    def load(self) -> Any | None:
        """Return the state of rank 0, on every rank; see `Context.load`.

        Returns:
            The state, with its tensors on the CPU.

        Raises:
            OSError: If the disk fails.
            StudyError: If there is no checkpoint folder.
            ConnectionResetError: A rank has ended before.
        """
        self.barrier()
        number = self._link.step()
        if self.rank == 0:
            with _Sharing(self, number) as sharing:
                state = super().load()
                sharing.found = state is not None
            return state
        return super().load() if self._follow(number) else None

    def barrier(self) -> None:
        """Wait until every rank has come here.

        Raises:
            ConnectionResetError: A rank has ended before.
        """
        number = self._link.step()
        self._link.ask("meet", number)

    def complete(self, result: Any) -> None:
        """Hand over what the training function returns; what rank 0 gives counts.

        Args:
            result: The loss, or a dict with it, as a training function returns it.
        """
        if self.rank == 0:
            self._link.ask("complete", result)

    def _follow(self, number: int) -> bool:
        """Take over what came of rank 0's call; whether it found a state."""
        told = self._link.ask("follow", number)
        for name in _NOTED:
            setattr(self, name, told[name])
        if told["error"] is not None:
            raise told["error"]
        found: bool = told["found"]
        return found

    def __enter__(self) -> RankContext:
        self._link.join()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        ended = error is None or isinstance(error, Stop)
        self._link.leave(None if ended else _sent(error, self._link.rank))
        return isinstance(error, Stop)


class _Sharing:
    """Tells the other ranks, and the trial, how a call of rank 0 ended."""

    def __init__(self, ctx: RankContext, number: int) -> None:
        self._ctx, self._number = ctx, number
        self.found = False

    def __enter__(self) -> _Sharing:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        ctx = self._ctx
        failure = _plain(error) if isinstance(error, Exception) else None
        told = {name: getattr(ctx, name) for name in _NOTED}
        attribute = "refusal" if error is ctx.refusal else "fault"
        noted = failure is not None and error in (ctx.refusal, ctx.fault)
        notes = told | {name: getattr(ctx, name) for name in _NOTED_COST}
        notes["loaded"] = None if ctx._loaded is None else ctx._loaded[1:]
        notes["error"] = (attribute, failure) if noted else None
        told |= {"found": self.found, "error": failure}
        ctx._link.ask("share", self._number, told, notes)


def _plain(error: Exception) -> Exception:
    """`error` as one of the classes that every process knows."""
    for kind in (TypeError, ValueError, StudyError):
        if isinstance(error, kind):
            return kind(str(error))
    if isinstance(error, OSError):
        return OSError(error.errno, str(error))
    return RuntimeError(f"{type(error).__name__}: {error}")


def _sent(error: BaseException | None, rank: int) -> Exception:
    """What the trial is told of an error that ends a rank."""
    assert error is not None
    text = f"rank {rank} failed\n" + "".join(traceback.format_exception(error))[-_LONGEST_TEXT:]
    torch = sys.modules.get("torch")
    if isinstance(error, MemoryError) or (
        torch is not None and isinstance(error, torch.OutOfMemoryError)
    ):
        return MemoryError(text)
    if isinstance(error, OSError) and not isinstance(error, ConnectionError):
        return OSError(error.errno, text)
    return RuntimeError(text)


def connect(*, rank: int | None = None, ranks: int | None = None) -> RankContext:
    """Return the context of the trial that has started this process; see `launch`.

    Args:
        rank: Number of this process among the ranks; None takes it from `torch.distributed` if that
            is initialized, or else from the environment that `torchrun` makes.
        ranks: Number of ranks; None as above.

    Raises:
        StudyError: If no trial has started this process, or it is gone.

    Example:
        On every rank of a script that `launch` has started::

            with hpo.connect() as ctx:
                state = ctx.load() or {"epoch": 0}
                for epoch in range(state["epoch"] + 1, ctx.fidelity + 1):
                    loss = train_epoch(...)
                    ctx.save({"epoch": epoch})
                    ctx.report(step=epoch, loss=loss)  # raises Stop on every rank
                ctx.complete(loss)
    """
    rank = Count(0, optional=True)(rank, "`rank`")
    ranks = Count(1, optional=True)(ranks, "`ranks`")
    if _ADDRESS not in os.environ or _KEY not in os.environ:
        raise StudyError(
            "this process belongs to no trial; start it by hpo.launch(ctx, command) inside the "
            "training function of optimize()"
        )
    link = _Link(os.environ[_ADDRESS], bytes.fromhex(os.environ[_KEY]), rank, ranks)
    arguments = link.join()
    assert arguments is not None
    return RankContext(link, arguments)


def _received(address: str, key: bytes, arguments: Mapping[str, Any]) -> RankContext:
    """The context of a rank, in a process to which that of its trial was sent."""
    return RankContext(_Link(address, key, None, None), arguments)


def _reduce(ctx: Context) -> tuple[Any, ...]:
    """Send the context of a trial to a process that is just being started, as that of a rank."""
    if multiprocessing_context.get_spawning_popen() is None:
        raise TypeError(
            "a context cannot be pickled, except to start a process with it, as "
            "torch.multiprocessing.spawn(run, args=(ctx,)) does; send ctx.config, or start the "
            "processes by hpo.launch"
        )
    hub = _hub_of(ctx)
    return _received, (hub.address, hub.key, hub.welcome())


copyreg.pickle(Context, _reduce)
