"""Live view of a study on a terminal: trials, best loss, spend, front size, time to go.

Nothing is shown where stdout is not a terminal, such as in a log file, a notebook or a test.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import numpy as np

from hpo.errors import printable
from hpo.optimizer.result import Result
from hpo.space import Direction
from hpo.study.callbacks import Callback, StudyState
from hpo.trials import Observation, Status, Trial
from hpo.trials.pareto import front

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

    def on_start(self, run: StudyState) -> None:
        """Show the table, on a terminal."""
        if not self._enabled:
            return
        from rich.console import Console
        from rich.live import Live

        console = self._console or Console()
        if not console.is_terminal:
            return
        self._started = time.monotonic()
        self._spent_before = run.ledger.spent.seconds
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
            title=Text(printable(f"scaletune {run.name or ''}".strip())), show_header=False
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
