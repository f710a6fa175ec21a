"""Live view of a study on a terminal: trials, best loss, spend, front size, time to go.

Nothing is shown where stdout is not a terminal, such as in a log file, a notebook or a test.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from contextlib import suppress
from typing import IO, TYPE_CHECKING, cast

import numpy as np

from hpo.errors import printable
from hpo.optimizer.result import Result
from hpo.space import Direction
from hpo.study.callbacks import Callback, StudyState
from hpo.trials import Cause, Observation, Status, Trial
from hpo.trials.pareto import front
from hpo.trials.records import SECONDS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

_REFRESH = 4  # times a second
_BAR = 32  # characters


class Progress(Callback):
    """Callback that keeps one table on the terminal up to date while a study runs.

    `optimize` adds one unless a `Progress` is among its callbacks.

    Args:
        console: Console to draw on, by default stdout.
        enabled: Whether to draw at all.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...                   budget=Budget(trials=2), callbacks=[Progress(enabled=False)])
    """

    def __init__(self, *, console: Console | None = None, enabled: bool = True) -> None:
        self._console = console
        self._enabled = enabled
        self._live: Live | None = None
        self._started = 0.0
        self._spent_before = 0.0
        self._found: str | None = None

    def on_start(self, run: StudyState) -> None:
        """Show the table, on a terminal."""
        if not self._enabled:
            return
        from rich.console import Console
        from rich.live import Live

        console = self._console or Console(file=cast(IO[str], _Terminal(sys.stdout)))
        if not console.is_terminal:
            return
        self._started = time.monotonic()
        self._spent_before = run.ledger.spent.seconds
        self._found = continued(run)
        self._live = Live(
            get_renderable=lambda: self.table(run), console=console, refresh_per_second=_REFRESH
        )
        self._live.start()

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        """Redraw the table."""
        if self._live is not None:
            self._live.refresh()

    def on_error(self, run: StudyState, error: BaseException) -> None:
        """Leave the last table on the terminal."""
        self._stop()

    def on_finish(self, run: StudyState, result: Result) -> None:
        """Leave the last table on the terminal."""
        self._stop()

    def _stop(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def table(self, run: StudyState) -> Table:
        """Return the table as it is now."""
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        seconds = self._spent_before + time.monotonic() - self._started
        spent, budget = run.ledger.spent, run.ledger.budget
        table = Table(
            title=Text(printable(f"scaletune {run.name or ''}".strip())),
            caption=None if self._found is None else Text(printable(self._found)),
            show_header=False,
        )
        table.add_column(style="bold")
        table.add_column(justify="right")
        table.add_column()
        amounts = [
            ("trials", float(spent.trials), budget.trials, ""),
            ("seconds", seconds, budget.seconds, ""),
            ("cost", spent.cost, budget.cost, printable(run.cost or "")),
        ]
        done = 0.0
        for label, used, limit, note in amounts:
            if limit is None:
                table.add_row(label, f"{used:.5g}", Text(note))
                continue
            done = max(done, used / limit)
            bar = ProgressBar(total=limit, completed=min(used, limit), width=_BAR)
            table.add_row(label, f"{used:.5g} / {limit:.5g}", bar)
        table.add_row("now", f"{len(run.log.pending)} running", _failures(run))
        table.add_row("best loss", *_best(run))
        table.add_row("front", str(front_size(run)), "trials")
        table.add_row("time to go", _duration(seconds * (1.0 / done - 1.0)) if done > 0 else "?")
        return table


def continued(run: StudyState) -> str | None:
    """Return in one line what earlier calls have left and what this one does; None if it is new.

    Args:
        run: A study that was just opened and read back.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> class Announce(Callback):
        ...     def on_start(self, run):
        ...         print(continued(run))
        >>> from optuna.storages import InMemoryStorage
        >>> storage = InMemoryStorage()
        >>> for trials in (2, 5):
        ...     result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...                       budget=Budget(trials=trials), name="mine", storage=storage,
        ...                       callbacks=[Announce()])
        None
        study 'mine' goes on from 2 trials (2 completed); 2 of 5 trials are spent, the rest is now
    """
    if not run.log.trials:
        return None
    runs = [o.status.value for o in run.log.runs if o.cause is not Cause.LOST]
    states = Counter(
        [*runs, *("paused" for _ in run.log.paused), *("running" for _ in run.log.pending)]
    )
    total = sum(states.values())
    counted = f" ({', '.join(f'{n} {state}' for state, n in states.items())})" if total else ""
    found = f"study {run.name!r} goes on from {total} trial{'s' * (total != 1)}{counted}"
    spent, budget = run.ledger.spent, run.ledger.budget
    limits = [
        (used, limit, unit)
        for used, limit, unit in (
            (spent.trials, budget.trials, "trials"),
            (spent.seconds, budget.seconds, "seconds"),
            (spent.cost, budget.cost, f"of cost ({run.cost or SECONDS})"),
        )
        if limit is not None
    ]
    if not limits:
        return found
    amounts = ", ".join(f"{used:.5g} of {limit:.5g} {unit}" for used, limit, unit in limits)
    over = any(used > limit for used, limit, _ in limits)
    if not any(used >= limit for used, limit, _ in limits):
        return f"{found}; {amounts} are spent, the rest is now"
    rule = "which is more than this budget" if over else "which is all of the budget"
    return (
        f"{found}; {amounts} are spent, {rule}: no new trial starts; give a larger budget= for "
        "more, or another name= to start anew"
    )


class _Terminal:
    """Standard output for a view: what it cannot show is replaced, and no error ends a study.

    A terminal may be of another encoding than a study's name, or be closed while the study runs.

    Args:
        file: The stream; None if the process has none.
    """

    def __init__(self, file: IO[str] | None) -> None:
        self._file = file

    @property
    def encoding(self) -> str:
        return getattr(self._file, "encoding", None) or "utf-8"

    def isatty(self) -> bool:
        with suppress(OSError, ValueError):  # it is closed
            return self._file is not None and self._file.isatty()
        return False

    def fileno(self) -> int:
        if self._file is None:
            raise OSError("there is no standard output")
        return self._file.fileno()

    def write(self, text: str) -> int:
        shown = text.encode(self.encoding, "backslashreplace").decode(self.encoding)
        with suppress(OSError, ValueError):
            if self._file is not None:
                self._file.write(shown)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            if self._file is not None:
                self._file.flush()


def front_size(run: StudyState) -> int:
    """Return the number of completed trials that no other beats in both observed loss and cost."""
    sign = Direction(run.direction).sign
    completed = [o for o in _completed(run) if o.cost is not None and o.loss is not None]
    losses = np.array([sign * o.loss for o in completed if o.loss is not None])
    costs = np.array([o.cost for o in completed if o.cost is not None])
    return len(front(losses, costs)) if completed else 0


def _best(run: StudyState) -> tuple[str, str]:
    """Best observed loss and the trial that it is from."""
    found = [(o.loss, o.number) for o in _completed(run) if o.loss is not None]
    if not found:
        return "-", ""
    loss, number = min(found) if run.direction == "minimize" else max(found)
    return f"{loss:.6g}", f"trial {number}"


def _completed(run: StudyState) -> list[Observation]:
    return [o for o in run.log.observations if o.status is Status.COMPLETED]


def _failures(run: StudyState) -> str:
    """How many trials failed and how many were stopped."""
    failed = sum(o.status is Status.FAILED for o in run.log.observations)
    stopped = sum(o.status is Status.STOPPED for o in run.log.observations)
    return f"{failed} failed, {stopped} stopped"


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds, at least zero."""
    whole = int(max(0.0, seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
