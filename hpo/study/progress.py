"""Live view of a study: trials, best loss, spend, front size, time to go.

On a terminal it is one table that is kept up to date, in a notebook one HTML table below the cell,
and elsewhere, as in a log file, a line of the log every minute.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np

from hpo.errors import printable
from hpo.optimizer.result import Result
from hpo.optimizer.summary import states
from hpo.space import Direction
from hpo.space.arguments import Number
from hpo.study.callbacks import Callback, StudyState
from hpo.trials import Observation, Status, Trial
from hpo.trials.pareto import front
from hpo.trials.printing import Grid, Part, as_html, as_text
from hpo.trials.records import SECONDS

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

_REFRESH = 4  # times a second
_BAR = 32  # characters
_NOTEBOOK_REFRESH = 1.0  # seconds

_log = logging.getLogger(__name__)


class Progress(Callback):
    """Callback that shows how far a study is: on a terminal, in a notebook, or in the log.

    `optimize` adds one unless a `Progress` is among its callbacks. Where there is neither a
    terminal nor a notebook, a line is logged every minute, at level INFO of `hpo.study.progress`;
    it goes to standard error where no logging is set up.

    Args:
        console: Console to draw on, by default stdout.
        enabled: Whether to show anything.
        every: Seconds between two lines of the log.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...                   budget=Budget(trials=2), callbacks=[Progress(enabled=False)])
    """

    def __init__(
        self, *, console: Console | None = None, enabled: bool = True, every: float = 60.0
    ) -> None:
        self._console = console
        self._enabled = enabled
        self._every = Number(above=0, way_out="60 is usual")(every, "`every`")
        self._live: Live | None = None
        self._display: Any = None  # handle of a display in a notebook
        self._ticker: _Ticker | None = None
        self._lines = 0  # of the log so far
        self._started = 0.0
        self._spent_before = 0.0
        self._found: str | None = None

    def on_start(self, run: StudyState) -> None:
        """Show the table, or begin to log."""
        if not self._enabled:
            return
        self._started = time.monotonic()
        self._spent_before = run.ledger.spent.seconds
        self._found, self._lines = continued(run), 0
        if self._console is None and _in_notebook():
            from IPython.display import HTML, display

            self._display = display(HTML(self.html(run)), display_id=True)
            self._ticker = _Ticker(_NOTEBOOK_REFRESH, lambda: self._update(run))
        elif not self._draw(run):
            self._ticker = _Ticker(self._every, lambda: self._log_line(run))

    def _draw(self, run: StudyState) -> bool:
        """Draw the table on a terminal; False if there is none."""
        from rich.console import Console
        from rich.live import Live

        console = self._console or Console(file=cast(IO[str], _Terminal(sys.stdout)))
        if not console.is_terminal:
            return False
        self._live = Live(
            get_renderable=lambda: self.table(run), console=console, refresh_per_second=_REFRESH
        )
        self._live.start()
        return True

    def on_trial_end(self, run: StudyState, trial: Trial, observation: Observation) -> None:
        """Redraw the table."""
        if self._live is not None:
            self._live.refresh()

    def on_error(self, run: StudyState, error: BaseException) -> None:
        """Leave the last table, or log the last line."""
        self._stop(run)

    def on_finish(self, run: StudyState, result: Result) -> None:
        """Leave the last table, or log the last line."""
        self._stop(run)

    def _stop(self, run: StudyState) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self._ticker is not None:
            self._ticker.stop()
            self._ticker = None
            if self._display is not None:
                self._update(run)
                self._display = None
            elif self._lines:
                self._log_line(run)

    def _update(self, run: StudyState) -> None:
        from IPython.display import HTML

        self._display.update(HTML(self.html(run)))

    def _log_line(self, run: StudyState) -> None:
        self._lines += 1
        _say(self.line(run))

    def table(self, run: StudyState) -> Table:
        """Return the table of a terminal as it is now."""
        return progress_table(run, self._rows(run), self._found)

    def html(self, run: StudyState) -> str:
        """Return the table of a notebook as it is now."""
        rows = [
            (row.label, row.value, row.note if row.share is None else f"{min(row.share, 1.0):.0%}")
            for row in self._rows(run)
        ]
        parts: list[Part] = [progress_title(run), Grid((), rows)]
        return as_html([*parts, *([] if self._found is None else [self._found])])

    def line(self, run: StudyState) -> str:
        """Return the line of a log as it is now."""
        rows = {row.label: row for row in self._rows(run)}
        words = [f"{rows['trials'].value} trials", rows["now"].value, rows["now"].note]
        for label, row in rows.items():
            if label.startswith("best ") and row.note:
                words.append(f"{label} {row.value} ({row.note})")
        words.append(f"{rows['seconds'].value} seconds")
        if rows["cost"].value != "0":
            words.append(f"cost {rows['cost'].value} {rows['cost'].note}".rstrip())
        words.append(f"time to go {rows['time to go'].value}")
        return as_text([f"{progress_title(run)}: {', '.join(words)}"])

    def _rows(self, run: StudyState) -> list[Row]:
        seconds = self._spent_before + time.monotonic() - self._started
        return progress_rows(run, seconds, len(run.log.pending))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a view.

    Attributes:
        label: What it tells.
        value: The value, as text.
        note: What stands behind it.
        share: Share of a limit that is used; None without one.
    """

    label: str
    value: str
    note: str = ""
    share: float | None = None


def progress_rows(run: StudyState, seconds: float, running: int) -> list[Row]:
    """Return what is shown of a study, line by line.

    Args:
        run: The study.
        seconds: Seconds that it has been driven.
        running: Number of trials that run now.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> class Show(Callback):
        ...     def on_finish(self, run, result):
        ...         print(progress_rows(run, 2.0, 0)[0])
        >>> result = optimize(lambda config, ctx: config["x"], {"x": Float(0, 1)},
        ...                   budget=Budget(trials=2), callbacks=[Show()])
        Row(label='trials', value='2 / 2', note='', share=1.0)
    """
    spent, budget = run.ledger.spent, run.ledger.budget
    found, done = [], 0.0
    for label, used, limit, note in (
        ("trials", float(spent.trials), budget.trials, ""),
        ("seconds", seconds, budget.seconds, ""),
        ("cost", spent.cost, budget.cost, run.cost or ""),
    ):
        if limit is None:
            found.append(Row(label, f"{used:.5g}", note))
            continue
        done = max(done, used / limit)
        found.append(Row(label, f"{used:.5g} / {limit:.5g}", note, used / limit))
    left = _duration(seconds * (1.0 / done - 1.0)) if done > 0 else "?"
    return [
        *found,
        Row("now", f"{running} running", _failures(run)),
        Row(f"best {Direction(run.direction).noun}", *_best(run)),
        Row("front", str(front_size(run)), "trials"),
        Row("time to go", left),
    ]


def progress_table(run: StudyState, rows: Sequence[Row], caption: str | None = None) -> Table:
    """Return the lines of a study as the table of a terminal.

    Args:
        run: The study.
        rows: Its lines.
        caption: What stands below them.
    """
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=Text(progress_title(run)),
        caption=None if caption is None else Text(printable(caption)),
        show_header=False,
    )
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column()
    for row in rows:
        bar = (
            None
            if row.share is None
            else ProgressBar(total=1.0, completed=min(row.share, 1.0), width=_BAR)
        )
        table.add_row(row.label, row.value, bar or Text(printable(row.note)))
    return table


class _Ticker(threading.Thread):
    """Thread that acts at regular times until it is stopped."""

    def __init__(self, every: float, act: Callable[[], None]) -> None:
        super().__init__(name="scaletune-progress", daemon=True)
        self._every, self._act, self._over = every, act, threading.Event()
        self.start()

    def run(self) -> None:
        while not self._over.wait(self._every):
            with suppress(RuntimeError):  # the log grew meanwhile: the next time shows it
                self._act()

    def stop(self) -> None:
        self._over.set()
        self.join(timeout=5.0)


def _say(text: str) -> None:
    """Log a line; on standard error where the program has set up no logging."""
    if _log.hasHandlers():
        _log.info("%s", text)
    elif logging.lastResort is not None and _log.isEnabledFor(logging.WARNING):
        record = _log.makeRecord(_log.name, logging.INFO, __file__, 0, text, (), None)
        logging.lastResort.handle(record)


def progress_title(run: StudyState) -> str:
    """Return the title of a view of a study."""
    return printable(f"scaletune {run.name or ''}".strip())


def _in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


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
        study 'mine' continues from 2 trials (2 completed); 2 of 5 trials are spent, the rest is now
    """
    if not run.log.trials:
        return None
    counts = states(run.log)
    total = sum(counts.values())
    counted = f" ({', '.join(f'{n} {state}' for state, n in counts.items())})" if total else ""
    found = f"study {run.name!r} continues from {total} trial{'s' * (total != 1)}{counted}"
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
