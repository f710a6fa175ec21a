"""Choose per ask between the Gaussian process and the quantile forest, and calibrate both.

Two surrogates model the loss: the Gaussian process of :mod:`hpo.models.fitted`, and a conformalized
quantile forest (:mod:`surrogates.quantile_forest`) that assumes nothing about the noise and splits
categories freely. Both are scored by their one-step-ahead (prequential) forecasts. The runs told
between two of the counts at which hyperparameters are learned form a *block*; both models know the
runs before it and are scored on it by the continuous ranked probability score (CRPS) of winsorized
losses, on which a few wild runs weigh no more than bad ones. With the mean scores `C_gp`,
`C_forest` of the last `WINDOW` blocks, nine tenths of all runs, in which a block counts
`FORGETTING` as much as the next one::

    share of asks given to the forest = clip((1 - C_forest / C_gp - margin) / FULL, 0, 1)

so the change is smooth. How much better the forest must be, the :func:`margin`, depends on the
space. A better forecast is not yet a better search where columns are smooth: there the process also
knows between the values that were tried and walks to the optimum, which trees, constant between
their splits, cannot (docs/calibration.md), so it is used alone until the forest is clearly better.
Where there is nothing between two values, neither has that advantage, and the better forecast is
the better guide: at equal scores, and before there are any, each answers half of the asks.

Which ask uses which follows a low-discrepancy sequence over their indices and draws no random
number: where the share is 0, the asks are those of the process alone. Everything is a function of
the log.

The same blocks calibrate the intervals shown to people: scores are leave-one-out residuals of the
last runs, weighted by recency, and the level is corrected online by the misses of the same blocks.
While runs are few, each residual is taken under hyperparameters learned without it. Intervals of
the forest are corrected in the same way (:class:`surrogates.quantile.OnlineConformal`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import numpy as np
from scipy.special import ndtr

from hpo.models.fitted import Models
from hpo.models.refits import refits_up_to
from hpo.space.encoding import Encoder
from surrogates.conformal import (
    Calibration,
    OnlineLevel,
    fold_hyperparameters,
    rank_of,
    recency_weights,
    scale_weights,
)
from surrogates.data import Array, TrainingData
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.numerics import NumericalError, kronecker
from surrogates.quantile_forest import (
    ForecastScores,
    ForestPredictor,
    OnlineConformal,
    QuantileForest,
    conformity,
    crps,
    last_reports,
)
from surrogates.transforms import Transform

COVERAGE = 0.9  # of every interval shown to a person
FORGETTING = 0.85
WINDOW = 8  # blocks that are remembered: all of them up to 249 runs; resuming costs no more
MARGIN = 0.1  # minimum relative CRPS improvement before the forest is used, on smooth spaces
FULL = 0.4  # improvement beyond the margin at which the forest answers every ask
_FINE = 0.125  # of its range: a lattice with longer steps has nothing between its values
_MOSTLY = 0.5  # of the columns; where fewer are smooth, the process' advantage goes with them
_FIRST = 17  # runs before the first block
_STRIDE = 3  # counts a block: scoring then costs a tenth of an ask
_ROWS = 500  # of the past that both members are fitted to for scoring
_RECENT = 200  # runs whose residuals calibrate
_CROSS_FITTED = range(10, 129)  # runs; with fewer no fold, with more the fits would take too long
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)


class SurrogateChoice(Enum):
    """Surrogates that may model the loss: both in proportion to forecast skill, or one of them."""

    AUTO = "auto"
    GP = "gp"
    QUANTILE = "quantile"

    @classmethod
    def of(cls, name: str) -> SurrogateChoice:
        """Return the choice called `name`; raises ValueError for an unknown one."""
        try:
            return cls(name)
        except ValueError:
            known = [choice.value for choice in cls]
            raise ValueError(f"`surrogate` must be one of {known}, got {name!r}") from None


def margin(encoder: Encoder) -> float:
    """Return the relative CRPS improvement that the forest must have before it is used.

    It is ``MARGIN`` where at least half the columns that can move are smooth, continuous or a fine
    lattice; ``-FULL / 2``, which treats both alike, where none is; in proportion between.
    """
    columns, movable = encoder.columns, encoder.free
    smooth = np.zeros_like(movable)
    smooth[columns.numeric] = encoder.steps[columns.numeric] <= _FINE
    share = int(np.sum(smooth & movable)) / max(int(np.sum(movable)), 1)
    weight = min(share / _MOSTLY, 1.0)
    return float(weight * MARGIN - (1.0 - weight) * 0.5 * FULL)


@dataclass(frozen=True, slots=True)
class Block:
    """Scores of the forecasts made before one block of runs.

    Attributes:
        scores: Mean CRPS of the process and of the forest; None where there was no forecast, or
            none is wanted.
        betas: Rank of each run among the residuals of the process before it (:func:`rank_of`).
        foreseen: Conformity scores of the forest; None where it is never used.
    """

    scores: Array | None
    betas: tuple[float, ...]
    foreseen: ForecastScores | None


class SurrogateSelector:
    """The two surrogates of one log with the skill of their past forecasts.

    Args:
        models: Models of the same log, synchronized before every use.
        choice: Surrogates that may be used.
    """

    def __init__(self, models: Models, choice: SurrogateChoice) -> None:
        self._models, self._choice = models, choice
        self._margin = margin(models.encoder)
        self._blocks: dict[int, Block] = {}  # by their end
        self._level = OnlineLevel.start(1.0 - COVERAGE)
        self._ahead = OnlineConformal.start(COVERAGE)
        self._scores = np.zeros(2)  # of the process and the forest, forgetting
        self._forest: tuple[int, ForestPredictor] | None = None
        self._folds: tuple[int, tuple[Array, ...]] = 0, ()  # at a count, what its folds learned

    def sync(self) -> None:
        """Score the blocks that the log has completed since the last call.

        There are none where the loss is learned from partial runs, by another process.
        """
        if self._models.uses_partial_runs:
            return
        n = len(self._models.runs)
        bounds = [c for c in refits_up_to(n)[::_STRIDE] if c >= _FIRST][-WINDOW - 1 :]
        ends = bounds[1:]
        if ends == list(self._blocks):
            return
        known = self._blocks
        self._blocks = {
            end: known[end] if end in known else self._block(start, end)
            for start, end in pairwise(bounds)
        }
        self._scores = np.zeros(2)
        self._level = OnlineLevel.start(1.0 - COVERAGE)
        self._ahead = OnlineConformal.start(COVERAGE)
        for block in self.blocks:
            if block.scores is not None:
                self._scores = FORGETTING * self._scores + block.scores
            for beta in block.betas:
                self._level = self._level.updated(beta)
            if block.foreseen is not None:
                self._ahead = self._ahead.updated(block.foreseen)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks that are remembered, oldest first."""
        return tuple(self._blocks.values())

    @property
    def share(self) -> float:
        """Share of the asks that the forest answers, in [0, 1]."""
        if self._choice is not SurrogateChoice.AUTO:
            return float(self._choice is SurrogateChoice.QUANTILE)
        better = 1.0 - self._scores[1] / self._scores[0] if self._scores[0] > 0.0 else 0.0
        return float(np.clip((better - self._margin) / FULL, 0.0, 1.0))

    def uses_forest(self, index: int) -> bool:
        """Return whether the forest answers the ask of this `index`.

        On partial runs it does so only if it was named.
        """
        if self._models.uses_partial_runs and self._choice is not SurrogateChoice.QUANTILE:
            return False
        return bool(kronecker(index, _GOLDEN) < self.share)

    @property
    def forest_share(self) -> float | None:
        """Share of the asks that the forest answers; None where the user named the forest."""
        return None if self._choice is SurrogateChoice.QUANTILE else self.share

    def snapshot(self, models: Models) -> SurrogateSelector:
        """Return this as it is now, over a snapshot of its models."""
        same = copy.copy(self)
        same._models = models
        return same

    def forest(self) -> ForestPredictor:
        """Return the quantile forest on :meth:`training_data`, which must have a row."""
        n = len(self._models.data)
        if self._forest is None or self._forest[0] != n:
            data = TrainingData(*self.training_data(), self._models.encoder.columns)
            self._forest = n, QuantileForest().fit(data, rng=np.random.default_rng(n))
        return self._forest[1]

    def training_data(self) -> tuple[Array, Array]:
        """Return what the forest learns from, n x d and `(n,)`: every completed run.

        Of partial runs it is the last report of each, whatever its level, as if it were the end.
        """
        stages, runs = self._models.partial_runs, self._models.runs
        if not len(stages):
            return runs.X, runs.loss
        column = int(self._models.encoder.columns.fidelity[0])
        tops = stages.X.copy()
        tops[:, column] = 1.0
        X, run = np.unique(tops, axis=0, return_inverse=True)
        last = last_reports(
            X, self._models.encoder.columns, run.ravel(), stages.X[:, column], stages.loss
        )
        last.X[:, column] = 1.0
        return last.X, last.y

    def calibration(self, predictor: GPPredictor, row: Array, *, online: bool) -> Calibration:
        """Return by how much posteriors of `predictor` at `row` are to be widened or narrowed.

        Args:
            predictor: Model of loss or ln cost, on rows in the order they were told.
            row: 1 x d.
            online: Whether it is the process on raw losses, whose misses were counted.
        """
        scores = self._residuals(predictor) if online else _last_residuals(predictor)
        weights = recency_weights(np.arange(len(scores))[::-1].astype(np.float64))
        columns = self._models.encoder.columns
        if len(columns.scale):
            width = columns.width[columns.scale]
            sizes = predictor.X[-len(scores) :, columns.scale] * width
            weights = weights * scale_weights(sizes, row[0, columns.scale] * width)
        return Calibration(scores, weights, {COVERAGE: self._level} if online else {})

    def interval(self, forest: ForestPredictor, row: Array) -> tuple[float, float, float]:
        """Return lower end, median and upper end of the forest's interval at `row`, 1 x d."""
        return self._ahead.interval(forest, row)

    def _block(self, start: int, end: int) -> Block:
        """Score the runs from `start` to `end`, forecast from those before `start`."""
        columns, runs = self._models.encoder.columns, self._models.runs
        known = slice(max(0, start - _ROWS), start)
        X, y = runs.X[start:end], Transform.WINSOR(runs.loss[:end])
        forest = foreseen = None
        if self._choice is not SurrogateChoice.GP:
            data = TrainingData(runs.X[known], y[known], columns)
            forest = QuantileForest().fit(data, rng=np.random.default_rng(start))
            foreseen = self._foreseen(forest, start, end)
        if self._choice is SurrogateChoice.QUANTILE:
            return Block(None, (), foreseen)
        try:
            raw = self._process(Transform.RAW, start, end, known)
            winsor = self._process(Transform.WINSOR, start, end, known)
            betas = self._betas(raw, start, end)
        except NumericalError:
            return Block(None, (), foreseen)
        if forest is None:
            return Block(None, betas, None)
        mean, sd = _forecast(winsor, X)
        scores = [normal_crps(y[start:], mean, sd), crps(forest, X, y[start:])]
        return Block(np.mean(scores, axis=1), betas, foreseen)

    def _betas(self, raw: GPPredictor, start: int, end: int) -> tuple[float, ...]:
        """Return ranks of the runs of a block, each forecast from the runs up to the count before.

        From `start` on they would be forecast worse than when they were asked for: 50 % intervals
        then covered 60 % on LCBench.
        """
        runs, past, betas = self._models.runs, self._residuals(raw), []
        y = Transform.RAW(runs.loss[:end])
        for first, last in pairwise(at for at in refits_up_to(end) if at >= start):
            known = slice(max(0, first - _ROWS), first)
            process = self._process(Transform.RAW, start, end, known) if first > start else raw
            mean, sd = _forecast(process, runs.X[first:last])
            betas += [rank_of(float(z), past) for z in np.abs(y[first:last] - mean) / sd]
        return tuple(betas)

    def _foreseen(self, forest: ForestPredictor, start: int, end: int) -> ForecastScores:
        """Return scores of `forest`, fitted to the last rows before `start`, on raw losses.

        As for the process, runs told by the count before are known: they fall into the leaves.
        """
        runs, count = self._models.runs, len(forest.leaf_weights.y)
        y = runs.loss[start - count : start]
        leaves = forest.leaf_weights.with_targets(y)
        q, rows = leaves.out_of_bag(np.arange(count))
        left_out, ahead = conformity(q, y[rows]), []
        for first, last in pairwise(at for at in refits_up_to(end) if at >= start):
            asked = slice(max(first, end - _ROWS), last)  # more are never looked at
            if asked.start < last:
                ahead.append(conformity(leaves.quantiles(runs.X[asked]), runs.loss[asked]))
            leaves = leaves.with_rows(runs.X[first:last], runs.loss[first:last])
        return ForecastScores(left_out, np.concatenate(ahead))

    def _process(self, transform: Transform, start: int, end: int, known: slice) -> GPPredictor:
        """Build the process on the rows `known`, with what was learned at `start`.

        Targets are transformed as at `end`.
        """
        runs = self._models.runs
        y = transform(runs.loss[:end])[known]
        data = TrainingData(runs.X[known], y, self._models.encoder.columns)
        return GaussianProcess().predictor(data, self._models.hyperparameters(transform, start))

    def _residuals(self, raw: GPPredictor) -> Array:
        """Return scores of the process on raw losses on the first runs, as many as it has rows."""
        n = len(raw.y)
        if n not in _CROSS_FITTED:
            return _last_residuals(raw)
        count = refits_up_to(n)[-1]
        columns, model = self._models.encoder.columns, GaussianProcess()
        try:
            if self._folds[0] != count:
                runs, theta = self._models.runs, self._models.hyperparameters(Transform.RAW, count)
                data = TrainingData(runs.X[:count], Transform.RAW(runs.loss[:count]), columns)
                self._folds = count, fold_hyperparameters(model, data, theta)
            data = TrainingData(raw.X, raw.y, columns)
            return Calibration.cross_fitted(model, data, self._folds[1]).scores
        except NumericalError:
            return _last_residuals(raw)


def _last_residuals(process: GPPredictor) -> Array:
    return Calibration.recent(process, _RECENT).scores


def _forecast(process: GPPredictor, X: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of new runs."""
    belief = process.posterior(X)
    return belief.mean, np.sqrt(belief.variance + process.noise_variance)


def normal_crps(y: Array, mean: Array, sd: Array) -> Array:
    """Return the CRPS of normal forecasts (Gneiting & Raftery 2007, eq. 21), `(n,)`."""
    z = (y - mean) / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(sd * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi)))
