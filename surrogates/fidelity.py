"""Reports of runs at several levels, as rows a surrogate can learn from.

Notation: a *report* is one value of one trial at one level (epochs, steps), smaller is better;
``X`` n x d holds one row a trial, whose fidelity column is set to the level that is asked about.

Two ways to learn from runs that went different distances:

* :meth:`Reports.last`, the last report of each trial whatever its level, as in the
  conformal-quantile paper (Salinas et al. 2023, section 5). Under a scheduler that lets only good
  runs go on, being far along is itself a sign of being good, and ranks survive the mixing. It needs
  no model of levels, and where runs are stopped at random it is wrong.
* :meth:`Reports.every`, all reports with their level as an input, and :class:`MonotoneLevels`: more
  training does not make a run worse, so the quantiles of one config at all levels are pooled until
  they fall with the level.

Both are functions of the reports, not of the trials: when an old trial reports again, what is
fitted to them changes. :attr:`Reports.revision` says when.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from surrogates.data import Array, Columns, IntArray, TrainingData
from surrogates.quantile import QuantileForest, SampledQuantiles


@dataclass(frozen=True, slots=True)
class Reports:
    """What trials reported, in the order it came in.

    Args:
        X: t x d, one row a trial; its fidelity column is not read.
        columns: of X, with exactly one fidelity column.
        trial: ``(r,)``, row of X that each report belongs to.
        level: ``(r,)``, encoded as the fidelity column is.
        value: ``(r,)``.

    Raises:
        ValueError: for lengths that differ, an unknown trial, or another number of fidelities.
    """

    X: Array
    columns: Columns
    trial: IntArray
    level: Array
    value: Array

    def __post_init__(self) -> None:
        if len(self.columns.fidelity) != 1:
            raise ValueError(
                f"`columns` must have one fidelity column, got {len(self.columns.fidelity)}"
            )
        if not len(self.trial) == len(self.level) == len(self.value):
            raise ValueError(
                "`trial`, `level` and `value` must have one entry a report, got "
                f"{len(self.trial)}, {len(self.level)}, {len(self.value)}"
            )
        if len(self.trial) and not 0 <= int(self.trial.min()) <= int(self.trial.max()) < len(
            self.X
        ):
            raise ValueError(f"`trial` must name rows of X, 0 to {len(self.X) - 1}")

    @property
    def revision(self) -> int:
        """Grows with every report, also of a trial that reported before: the time to fit again."""
        return len(self.value)

    def last(self) -> TrainingData:
        """One row for each trial with a report: its furthest one, the later of two at one level."""
        order = np.lexsort((np.arange(len(self.trial)), self.level, self.trial))
        ends = np.append(np.diff(self.trial[order]) != 0, True)[: len(order)]
        return self._rows(np.sort(order[ends]))

    def every(self) -> TrainingData:
        """One row a report."""
        return self._rows(np.arange(len(self.trial)))

    def _rows(self, kept: IntArray) -> TrainingData:
        X = self.X[self.trial[kept]].copy()
        X[:, self.columns.fidelity[0]] = self.level[kept]
        return TrainingData(X, self.value[kept], self.columns)


@dataclass(frozen=True, slots=True)
class MonotoneLevels:
    """Quantiles that do not rise with the level; a :class:`~surrogates.quantile.SampledQuantiles`.

    Args:
        inner: fitted to rows with their level as an input.
        column: of the level.
        levels: ``(L,)``, ascending, the levels at which reports are made.
        weights: ``(L,)``, how much each counts in pooling, > 0, such as its number of reports.
    """

    inner: SampledQuantiles
    column: int
    levels: Array
    weights: Array

    def quantiles(self, X: Array) -> Array:
        """At each row's own level, read at the nearest of ``levels``; may be infinite at the ends.

        An infinite quantile at one level is one at every level: it comes from the count of runs.
        """
        q = self.inner.quantiles(X)
        known = np.isfinite(q[0]) if len(q) else np.zeros(0, dtype=bool)
        pooled = self.finite_quantiles(X)
        return np.where(known, pooled, q) if len(q) else q

    def finite_quantiles(self, X: Array) -> Array:
        L, m = len(self.levels), len(X)
        rows = np.tile(X, (L, 1))
        rows[:, self.column] = np.repeat(self.levels, m)
        q = self.inner.finite_quantiles(rows).reshape(L, m, -1)
        nearest = np.argmin(np.abs(X[:, self.column, None] - self.levels), axis=1)
        return np.asarray(pooled_falling(q, self.weights)[nearest, np.arange(m)])


def pooled_falling(values: Array, weights: Array) -> Array:
    """The closest non-increasing sequences in weighted least squares, along the first axis.

    Pool adjacent violators in its closed form, ``g_r = min_(a <= r) max_(b >= r) mean(a .. b)``
    (Robertson, Wright & Dykstra 1988, section 1.4), for all columns at once.

    Args:
        values: L x anything.
        weights: ``(L,)``, > 0.
    """
    L = len(values)
    w = weights.reshape(-1, *[1] * (values.ndim - 1))
    total = np.concatenate([np.zeros((1, *values.shape[1:])), np.cumsum(w * values, axis=0)])
    count = np.concatenate([[0.0], np.cumsum(weights)])
    out = np.full(values.shape, np.inf)
    for a in range(L):
        means = np.stack(
            [(total[b + 1] - total[a]) / (count[b + 1] - count[a]) for b in range(a, L)]
        )
        highest = np.maximum.accumulate(means[::-1], axis=0)[::-1]
        out[a:] = np.minimum(out[a:], highest)
    return out


def pooled_forest(
    reports: Reports, *, model: QuantileForest | None = None, seed: int = 0
) -> MonotoneLevels:
    """A quantile forest on every report, monotone in the level.

    Reports of one trial are not exchangeable with each other, so its intervals promise less than
    those of the last reports; what it adds is the belief at levels a run has not reached.

    Raises:
        ValueError: without any report.
    """
    predictor = (model or QuantileForest()).fit(reports.every(), seed=seed)
    levels, counts = np.unique(reports.level, return_counts=True)
    column = int(reports.columns.fidelity[0])
    return MonotoneLevels(predictor, column, levels, counts.astype(np.float64))


def reports_of(
    X: Array, columns: Columns, curves: Sequence[Sequence[tuple[float, float]]]
) -> Reports:
    """:class:`Reports` from one sequence of (encoded level, value) a row of ``X``."""
    flat = [(t, level, value) for t, curve in enumerate(curves) for level, value in curve]
    trial, level, value = zip(*flat, strict=True) if flat else ((), (), ())
    return Reports(
        X,
        columns,
        np.array(trial, dtype=np.intp),
        np.array(level, dtype=np.float64),
        np.array(value, dtype=np.float64),
    )
