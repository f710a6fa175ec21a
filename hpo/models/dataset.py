"""Training rows of the surrogates: completed runs and partial runs of a log, as arrays.

Partial runs are the data of multi-fidelity models: one row for each config and level observed. A
row is the encoded config with the level r in the fidelity column, `ln(r / low) / ln(high / low)`,
and the loss that was reported at r or returned by a stage that ended there.

Partial runs are read only in studies where a scheduler assigns levels. Each level of a run counts
once, by the first loss known there. A lost attempt and the trial that continues it are one run; a
result from elsewhere is a run of its own. Rows are made of the ends of stages, of reports at levels
at least `SPACING` times the level of the row before, and of the last report of a stopped run. The
reports in between add little to their neighbors, and the cost of a Gaussian process grows with the
cube of its rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.schedulers.run_history import RunFold
from hpo.space import Fidelity
from hpo.space.encoding import Encoder
from hpo.trials import (
    Cause,
    Observation,
    Report,
    Reported,
    RungAssignment,
    Status,
    Trial,
    TrialLog,
)
from surrogates.data import Array

SPACING = 3  # least ratio of the levels of two reports of a run that become rows


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows from which the loss is learned, in the order they were told.

    Attributes:
        X: n x d, encoded configs; where runs are partial, with their level in the fidelity column.
        loss: `(n,)`, smaller is better.
        ended: `(n,)`, whether the row is at full fidelity.

    Example:
        >>> len(Dataset(np.zeros((3, 2)), np.ones(3), np.ones(3, dtype=bool)))
        3
    """

    X: Array
    loss: Array
    ended: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.loss)


@dataclass(frozen=True, slots=True)
class CompletedRuns:
    """Completed trials as arrays, in tell order.

    Attributes:
        X: n x d, encoded configs.
        loss: `(n,)`, smaller is better.
        log_cost: `(n,)`, ln cost; NaN where none was told or it was zero.
        numbers: Numbers of the trials.

    Example:
        >>> runs = CompletedRuns(np.zeros((1, 2)), np.ones(1), np.log([3.0]), (7,))
        >>> len(runs), runs.numbers
        (1, (7,))
    """

    X: Array
    loss: Array
    log_cost: Array
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.loss)


class _PartialRun:
    """Progress of one run.

    Attributes:
        config: Config at full fidelity.
        read: Highest level with a row.
        reached: Step of the last report.
        loss: Loss of the last report, as told.
    """

    __slots__ = ("config", "loss", "reached", "read")

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.read = self.reached = 0
        self.loss: float | None = None


class PartialRuns(RunFold[_PartialRun]):
    """Partial runs of a log as arrays; grows with the log.

    Nothing is read where the space has no fidelity, or has scale axes: the scaling model is fitted
    to whole runs only.

    Args:
        encoder: Encoder of the rows.

    Attributes:
        X: n x d, encoded configs with the level in the fidelity column.
        loss: `(n,)`, smaller is better.
        ends: m x d, each run that has a row, at full fidelity.
        paid: Ends of stages, k x d, and the ln cost of the run up to each, `(k,)`.

    Example:
        >>> from hpo.space import Fidelity, Float, SearchSpace
        >>> from hpo.trials import RungAssignment
        >>> space = SearchSpace({"x": Float(0.0, 1.0), "epochs": Fidelity(1, 9)})
        >>> log, partial = TrialLog(), PartialRuns(Encoder(space))
        >>> log.add(Trial(0, {"x": 0.5, "epochs": 9}, 0, None, None, RungAssignment(level=9)))
        >>> for step, loss in ((1, 0.9), (3, 0.7)):
        ...     _ = log.report(0, Report(step, loss))
        >>> partial.sync(log)
        >>> partial.X.tolist(), partial.loss.tolist()
        ([[0.5, 0.0], [0.5, 0.5]], [0.9, 0.7])
    """

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self._encoder = encoder
        self._fidelity = None if encoder.space.scales else encoder.space.fidelity
        width = len(encoder.columns.kinds)
        self.X = np.zeros((0, width))
        self.loss = np.zeros(0)
        self.ends = np.zeros((0, width))
        self.paid = (np.zeros((0, width)), np.zeros(0))
        self._levels: dict[int, int] = {}  # by trial, the level up to which it trains now
        self._elsewhere: list[Observation] = []  # results without a run, told before any run was

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def dataset(self) -> Dataset:
        """The rows with their losses."""
        return Dataset(self.X, self.loss, self.ended)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """Whether each row is at full fidelity, `(n,)`."""
        return np.asarray(np.all(self.X[:, self._encoder.columns.fidelity] == 1.0, axis=1))

    def at_full_fidelity(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return `config` at full fidelity, whatever fidelity it was asked with."""
        if self._encoder.space.fidelity is None:
            return dict(config)
        fidelity = self._encoder.space[self._encoder.space.fidelity]
        assert isinstance(fidelity, Fidelity)
        return {**config, self._encoder.space.fidelity: fidelity.high}

    def at_current_level(self, trial: Trial) -> dict[str, Any]:
        """Return the config of a running `trial` at the level it trains up to."""
        if self._fidelity is None or trial.assignment is None:
            return trial.config
        return {**trial.config, self._fidelity: trial.assignment.level}

    def sync(self, log: TrialLog) -> None:
        """Add the rows of new events of `log`."""
        if self._fidelity is None:
            return
        for run, event in self._events(log):
            match event:
                case Trial(assignment=RungAssignment(level)) if run is not None:
                    self._levels[event.number] = level
                case Reported(_, report) if run is not None:
                    self._reported(run, report)
                case Observation() if run is not None:
                    self._told(run, event)
                case Observation() if event.status is Status.COMPLETED:
                    self._elsewhere.append(event)
            if len(self) and self._elsewhere:
                for observation in self._elsewhere:
                    assert observation.loss is not None  # it was completed
                    level = observation.config[self._fidelity]
                    self._add(
                        _PartialRun(self.at_full_fidelity(observation.config)),
                        level,
                        observation.loss,
                    )
                self._elsewhere.clear()

    def _start(self, trial: Trial, parent: _PartialRun | None) -> _PartialRun | None:
        if trial.assignment is None:
            return None
        return _PartialRun(self.at_full_fidelity(trial.config))

    def _continues(self, trial: Trial, parent: _PartialRun) -> bool:
        """Return whether it is the same run, and not a changed clone."""
        same = parent.config == self.at_full_fidelity(trial.config)
        return trial.assignment is not None and same

    def _reported(self, run: _PartialRun, report: Report) -> None:
        if report.loss is None or not math.isfinite(report.loss) or report.step <= run.reached:
            return
        run.reached, run.loss = report.step, report.loss
        if report.step >= SPACING * run.read:
            self._add(run, report.step, report.loss)

    def _told(self, run: _PartialRun, observation: Observation) -> None:
        if observation.cause is Cause.LOST:
            return
        level = self._levels[observation.number]
        match observation.status:
            case Status.PAUSED | Status.COMPLETED if observation.loss is not None:
                self._add(run, level, observation.loss)
                if observation.cost:
                    X, log_cost = self.paid
                    self.paid = (
                        np.concatenate([X, self._row(run, level)]),
                        np.append(log_cost, math.log(observation.cost)),
                    )
            case Status.STOPPED if run.loss is not None:
                self._add(run, run.reached, run.loss)

    def _add(self, run: _PartialRun, level: int, loss: float) -> None:
        assert self._fidelity is not None
        level = min(level, run.config[self._fidelity])
        if level <= run.read:
            return
        if not run.read:
            self.ends = np.concatenate([self.ends, self._encoder.encode([run.config])])
        run.read = level
        run.reached = max(run.reached, level)
        self.X = np.concatenate([self.X, self._row(run, level)])
        self.loss = np.append(self.loss, self._encoder.loss_sign * loss)

    def _row(self, run: _PartialRun, level: int) -> Array:
        assert self._fidelity is not None
        return self._encoder.encode([{**run.config, self._fidelity: level}])
