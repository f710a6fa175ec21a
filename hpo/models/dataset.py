"""Runs on their way as rows: one for each level at which a run was looked at.

A row is a config with the level r in the fidelity column, ``ln(r / low) / ln(high / low)``, and the
loss that was reported at r or returned by a stage that ended there.

Only studies in which a scheduler places runs are read. Each level of a run counts once, by what was
said first; a lost attempt and the run that carries it on are one run, and a result from elsewhere
is a run of its own. Reports are read at the ends of stages, at levels at least `SPACING` times the
one before, and where a run was stopped: those in between say little that their neighbors do not,
and a Gaussian process pays for each row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from hpo.space import Fidelity
from hpo.space.encoding import Encoder
from hpo.trials import Cause, Observation, Report, Reported, Status, Trial, TrialLog
from surrogates.data import Array

SPACING = 3


@dataclass(frozen=True, slots=True)
class Dataset:
    """Rows from which the loss is learned, in the order they were told.

    Attributes:
        X: n x d, encoded configs; where runs are partial, with their level in the fidelity column.
        loss: `(n,)`, smaller is better.
        ended: `(n,)`, whether the row is of a run at full fidelity.
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
        loss: ``(n,)``, smaller is better.
        log_cost: ``(n,)``, ln cost; NaN where none was told or it was zero.
        numbers: trial numbers.
    """

    X: Array
    loss: Array
    log_cost: Array
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.loss)


class PartialRuns:
    """What a log says of runs before their end, as arrays; grows with the log.

    Nothing is read where the space has no fidelity, or has scale axes: there the scaling model
    speaks, which knows whole runs only.

    Attributes:
        X: n x d, encoded configs with the level in the fidelity column.
        loss: `(n,)`, smaller is better.
        ends: m x d, each run that has a row, at full fidelity.
        paid: k x d and `(k,)`, ends of stages with the ln cost of the run up to there.
    """

    def __init__(self, encoder: Encoder) -> None:
        self._encoder = encoder
        self._fidelity = None if encoder.space.scales else encoder.space.fidelity
        width = len(encoder.columns.kinds)
        self.X = np.zeros((0, width))
        self.loss = np.zeros(0)
        self.ends = np.zeros((0, width))
        self.paid = (np.zeros((0, width)), np.zeros(0))
        self._seen = 0
        self._levels: dict[int, int] = {}  # of each placed trial, up to which it trains now
        self._runs: dict[int, _PartialRun] = {}  # by trial
        self._elsewhere: list[Observation] = []  # unplaced, told before any placed run was

    def __len__(self) -> int:
        return len(self.loss)

    @property
    def dataset(self) -> Dataset:
        """The rows with their losses."""
        return Dataset(self.X, self.loss, self.ended)

    @property
    def ended(self) -> NDArray[np.bool_]:
        """`(n,)`, rows at full fidelity."""
        return np.asarray(np.all(self.X[:, self._encoder.columns.fidelity] == 1.0, axis=1))

    def at_full_fidelity(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """`config` at full fidelity, however far it was to go when it was asked."""
        if self._encoder.space.fidelity is None:
            return dict(config)
        fidelity = self._encoder.space[self._encoder.space.fidelity]
        assert isinstance(fidelity, Fidelity)
        return {**config, self._encoder.space.fidelity: fidelity.high}

    def at_current_level(self, trial: Trial) -> dict[str, Any]:
        """The config of a running `trial` at the level it trains up to."""
        if self._fidelity is None or trial.assignment is None:
            return trial.config
        return {**trial.config, self._fidelity: trial.assignment.level}

    def sync(self, log: TrialLog) -> None:
        """Take in what is new in `log`."""
        if self._fidelity is None:
            return
        for event in log.events(self._seen):
            self._seen += 1
            match event:
                case Trial():
                    self._placed(event)
                case Reported(number, report) if number in self._runs:
                    self._reported(self._runs[number], report)
                case Observation() if event.number in self._runs:
                    self._told(self._runs[event.number], event)
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

    def _placed(self, trial: Trial) -> None:
        if trial.assignment is None:
            return
        self._levels[trial.number] = trial.assignment.level
        if trial.number in self._runs:
            return
        parent = None if trial.parent is None else self._runs.get(trial.parent)
        config = self.at_full_fidelity(trial.config)
        if parent is None or parent.config != config:  # a new run, or a changed clone
            parent = _PartialRun(config)
        self._runs[trial.number] = parent

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


class _PartialRun:
    """`read`: highest level with a row. `reached`, `loss`: of the last report, as told."""

    __slots__ = ("config", "loss", "reached", "read")

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.read = self.reached = 0
        self.loss: float | None = None
