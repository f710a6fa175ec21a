"""Choose per ask between the Gaussian process and the quantile forest, and calibrate both.

Two surrogates model the loss: the Gaussian process of :mod:`hpo.models.fitted`, and a conformalized
quantile forest (:mod:`surrogates.quantile_forest`) that assumes nothing about the noise and splits
categories freely. Both are scored by their one-step-ahead (prequential) forecasts. The runs told
between two of the counts at which hyperparameters are learned form a *block*. Both models are
fitted to the runs before it and scored on it by the continuous ranked probability score (CRPS) of
winsorized losses, in which an extreme run weighs no more than a bad one. With the mean scores
`C_gp`, `C_forest` of the last `WINDOW` blocks, nine tenths of all runs, in which a block counts
`FORGETTING` times as much as the next one::

    share of asks given to the forest = clip((1 - C_forest / C_gp - margin) / FULL, 0, 1)

so the change is smooth. The :func:`margin`, by which the forest must be better, depends on the
space. On smooth columns a better forecast does not yet make a better search: the process
interpolates between the values that were tried and converges to the optimum, which trees, constant
between their splits, cannot (docs/appendix/calibration.md). There the process is used alone until
the forest is clearly better. Where there is nothing between two values the process has no such
advantage, and the better forecast is the better guide: at equal scores, and before there are any,
each answers half of the asks.

The division follows a low-discrepancy sequence over the indices of the asks and draws no random
number: where the share is 0, the asks are those of the process alone. Everything is a function of
the log. A log that begins with runs read from elsewhere has one block among them.

The same blocks calibrate the intervals shown to people. Scores are leave-one-out residuals of the
last runs, weighted by recency, and the level is corrected online by the misses in these blocks.
While runs are few, each residual is taken under hyperparameters learned without it. Intervals of
the forest are corrected in the same way
(:class:`surrogates.quantile_forest.OnlineConformal`).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components
from scipy.special import ndtr

from hpo.models.fitted import Models
from hpo.models.refits import refits_up_to
from hpo.space.arguments import Member
from hpo.space.encoding import Encoder
from surrogates.conformal import (
    Calibration,
    OnlineLevel,
    fold_hyperparameters,
    rank_of,
    recency_weights,
    scale_weights,
)
from surrogates.data import Array, IntArray, TrainingData
from surrogates.gp import GPPredictor
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
_FINE = 0.125  # of the range: a lattice with longer steps has nothing between its values
_MOSTLY = 0.5  # share of smooth columns below which the margin shrinks in proportion
_FIRST = 17  # runs before the first block
_STRIDE = 3  # counts a block: scoring then costs a tenth of an ask
_FEWEST_READ = 128  # runs read from elsewhere that forecast later ones of them
_ROWS = 500  # last rows that both surrogates are fitted to for scoring, and scored on
_RECENT = 200  # runs whose residuals calibrate
_BY_SIZE = 1000  # the same, left out size by size
_SAME_SIZE = 1e-6  # difference of encoded sizes that is none
_KNOWN = 4  # processes whose scores are kept
_CROSS_FITTED = range(10, 129)  # runs; with fewer no fold, with more the fits would take too long
_GOLDEN = 0.5 * (np.sqrt(5.0) - 1.0)  # irrational step of the sequence that divides the asks


class SurrogateChoice(Enum):
    """Surrogates that may model the loss: both in proportion to forecast skill, or one of them.

    Example:
        >>> SurrogateChoice.of("quantile")
        <SurrogateChoice.QUANTILE: 'quantile'>
    """

    AUTO = "auto"
    GP = "gp"
    QUANTILE = "quantile"

    @classmethod
    def of(cls, name: str) -> SurrogateChoice:
        """Return the choice called `name`.

        Raises:
            ValueError: If there is no such choice.
        """
        choice: SurrogateChoice = Member(cls, way_out="pick one")(name, "`surrogate`")
        return choice


def margin(encoder: Encoder) -> float:
    """Return the relative CRPS improvement that the forest must have before it is used.

    It is `MARGIN` where at least half the columns that can vary are smooth (continuous or a fine
    lattice). It is `-FULL / 2`, which treats both alike, where none is. Between, it changes in
    proportion.

    Args:
        encoder: Encoder of the space.

    Example:
        >>> from hpo.space import Categorical, Float, SearchSpace
        >>> margin(Encoder(SearchSpace({"lr": Float(0.0, 1.0)})))
        0.1
        >>> margin(Encoder(SearchSpace({"kind": Categorical(["a", "b"])})))
        -0.2
    """
    columns, movable = encoder.columns, encoder.free
    smooth = np.zeros_like(movable)
    smooth[columns.numeric] = encoder.steps[columns.numeric] <= _FINE
    share = int(np.sum(smooth & movable)) / max(int(np.sum(movable)), 1)
    weight = min(share / _MOSTLY, 1.0)
    return float(weight * MARGIN - (1.0 - weight) * 0.5 * FULL)


def share_of_forest(process_score: float, forest_score: float, margin: float) -> float:
    """Return the share of the asks that the forest answers, in [0, 1].

    Args:
        process_score: Mean CRPS of the process; 0 before there is one.
        forest_score: Mean CRPS of the forest.
        margin: Relative improvement of the CRPS from which the forest is used.

    Example:
        >>> [share_of_forest(1.0, score, margin=0.1) for score in (1.0, 0.95, 0.4)]
        [0.0, 0.0, 1.0]
    """
    better = 1.0 - forest_score / process_score if process_score > 0.0 else 0.0
    return float(np.clip((better - margin) / FULL, 0.0, 1.0))


@dataclass(frozen=True, slots=True)
class Block:
    """Scores of the forecasts that were made before one block of runs.

    Attributes:
        scores: Mean CRPS of the process and of the forest; None where there was no forecast, or
            none is wanted.
        betas: Rank of each run among the residuals of the process before it
            (`surrogates.conformal.rank_of`).
        conformity_scores: Conformity scores of the forest; None where it is never used.
    """

    scores: Array | None
    betas: tuple[float, ...]
    conformity_scores: ForecastScores | None


class SurrogateSelector:
    """Choice between the two surrogates of one log by the skill of their past forecasts.

    Args:
        models: Models of the same log, synchronized before every use.
        choice: Surrogates that may be used.

    Example:
        >>> from hpo.space import Categorical, SearchSpace
        >>> models = Models(Encoder(SearchSpace({"kind": Categorical(["a", "b", "c"])})))
        >>> selector = SurrogateSelector(models, SurrogateChoice.AUTO)
        >>> selector.share, [selector.uses_forest(index) for index in range(4)]
        (0.5, [True, False, False, True])
    """

    def __init__(self, models: Models, choice: SurrogateChoice) -> None:
        self._models, self._choice = models, choice
        # the forest knows nothing of other tasks, so it must be better than the process that does
        self._margin = MARGIN if models.other_tasks else margin(models.encoder)
        self._blocks: dict[int, Block] = {}  # by their end
        self._level = OnlineLevel.start(1.0 - COVERAGE)
        self._ahead = OnlineConformal.start(COVERAGE)
        self._scores = np.zeros(2)  # of the process and the forest, discounted by FORGETTING
        self._forest: tuple[int, ForestPredictor] | None = None
        self._folds: dict[int, tuple[Array, ...]] = {}  # hyperparameters of its folds by count
        self._cross_fitted: dict[int, Array] = {}  # scores of the first runs by their count
        self._known_scores: list[tuple[GPPredictor, bool, Array]] = []

    def sync(self) -> None:
        """Score the blocks that the log has completed since the last call.

        There are none where the loss is learned by another model: from partial runs, or with scale
        axes, where the scaling model is used alone.
        """
        if self._models.uses_partial_runs or len(self._models.encoder.columns.scale):
            return
        bounds = self._bounds()
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
            if block.conformity_scores is not None:
                self._ahead = self._ahead.updated(block.conformity_scores)

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Blocks within the window, oldest first."""
        return tuple(self._blocks.values())

    @property
    def share(self) -> float:
        """Share of the asks that the forest answers, in [0, 1]."""
        if self._choice is not SurrogateChoice.AUTO:
            return float(self._choice is SurrogateChoice.QUANTILE)
        process, forest = self._scores.tolist()
        return share_of_forest(process, forest, self._margin)

    def uses_forest(self, index: int) -> bool:
        """Return whether the forest answers an ask.

        On partial runs it answers only if the user named it.

        Args:
            index: Index of the ask.
        """
        if self._models.uses_partial_runs and self._choice is not SurrogateChoice.QUANTILE:
            return False
        return bool(kronecker(index, _GOLDEN) < self.share)

    @property
    def forest_share(self) -> float | None:
        """Share of the asks that the forest answers; None where the user named the forest."""
        return None if self._choice is SurrogateChoice.QUANTILE else self.share

    def snapshot(self, models: Models) -> SurrogateSelector:
        """Return a copy that later runs do not change.

        Args:
            models: Snapshot of the models.
        """
        same = copy.copy(self)
        same._models = models
        return same

    def forest(self) -> ForestPredictor:
        """Return the quantile forest on `training_data`, which must have a row."""
        n = len(self._models.data)
        if self._forest is None or self._forest[0] != n:
            data = TrainingData(*self.training_data(), self._models.encoder.columns)
            self._forest = n, QuantileForest().fit(data, rng=np.random.default_rng(n))
        return self._forest[1]

    def training_data(self) -> tuple[Array, Array]:
        """Return rows and losses from which the forest learns, n x d and `(n,)`.

        They are those of every completed run. Of partial runs the last report of each counts,
        whatever its level, as if it were made at full fidelity.
        """
        partial, runs = self._models.partial_runs, self._models.runs
        if not len(partial):
            return runs.X, runs.loss
        column = int(self._models.encoder.columns.fidelity[0])
        ends = partial.X.copy()
        ends[:, column] = 1.0
        X, run = np.unique(ends, axis=0, return_inverse=True)
        last = last_reports(
            X, self._models.encoder.columns, run.ravel(), partial.X[:, column], partial.loss
        )
        last.X[:, column] = 1.0
        return last.X, last.y

    def calibration(self, predictor: GPPredictor, row: Array, *, online: bool) -> Calibration:
        """Return the calibration of intervals of `predictor` at one row.

        Args:
            predictor: Model of loss or ln cost, on rows in the order they were told.
            row: 1 x d, row to predict.
            online: Whether `predictor` is the process on raw losses, whose level is corrected by
                the misses in the blocks.
        """
        scores = self._residuals(predictor) if online else self._left_out(predictor, row)
        weights = recency_weights(np.arange(len(scores))[::-1].astype(np.float64))
        columns = self._models.encoder.columns
        if len(columns.scale):
            width = columns.width[columns.scale]
            sizes = predictor.X[-len(scores) :, columns.scale] * width
            weights = weights * scale_weights(sizes, row[0, columns.scale] * width)
        return Calibration(scores, weights, {COVERAGE: self._level} if online else {})

    def interval(self, forest: ForestPredictor, row: Array) -> tuple[float, float, float]:
        """Return lower end, median and upper end of the forest's interval at one row.

        Args:
            forest: Quantile forest.
            row: 1 x d, row to predict.
        """
        return self._ahead.interval(forest, row)

    def _bounds(self) -> list[int]:
        """Return the counts between which blocks lie.

        Of the runs that were read from elsewhere one block is scored, or none where they are few:
        models of all blocks would take longer than everything else that a first ask needs.
        """
        counts = refits_up_to(len(self._models.runs))[::_STRIDE]
        bounds = [count for count in counts if count >= _FIRST]
        read = [count for count in bounds if count <= self._models.read]
        kept = 2 if len(read) > 1 and read[-2] >= _FEWEST_READ else 1
        return bounds[max(len(read) - kept, 0) :][-WINDOW - 1 :]

    def _block(self, start: int, end: int) -> Block:
        """Score the runs from `start` to `end`, forecast from those before `start`."""
        columns, runs = self._models.encoder.columns, self._models.runs
        known = slice(max(0, start - _ROWS), start)
        scored = slice(max(start, end - _ROWS), end)
        X, y = runs.X[scored], Transform.WINSOR(runs.loss[:end])
        forest = conformity_scores = None
        if self._choice is not SurrogateChoice.GP:
            data = TrainingData(runs.X[known], y[known], columns)
            forest = QuantileForest().fit(data, rng=np.random.default_rng(start))
            conformity_scores = self._conformity_scores(forest, start, end)
        if self._choice is SurrogateChoice.QUANTILE:
            return Block(None, (), conformity_scores)
        try:
            raw = self._process(Transform.RAW, start, end, known)
            winsor = self._process(Transform.WINSOR, start, end, known)
            betas = self._betas(raw, start, end)
        except NumericalError:
            return Block(None, (), conformity_scores)
        if forest is None:
            return Block(None, betas, None)
        mean, sd = _forecast(winsor, X)
        scores = [normal_crps(y[scored], mean, sd), crps(forest, X, y[scored])]
        return Block(np.mean(scores, axis=1), betas, conformity_scores)

    def _betas(self, raw: GPPredictor, start: int, end: int) -> tuple[float, ...]:
        """Return the ranks of the runs of a block, each forecast from the runs up to a count.

        That is the last count of refits before each. Forecast from the runs before `start` they
        would be predicted worse than when they were asked: 50 % intervals then covered 60 % on
        LCBench.
        """
        runs, past, betas = self._models.runs, self._residuals(raw), []
        y = Transform.RAW(runs.loss[:end])
        for first, last in pairwise(at for at in refits_up_to(end) if at >= start):
            known = slice(max(0, first - _ROWS), first)
            asked = slice(max(first, end - _ROWS), last)
            if asked.start >= last:
                continue
            process = self._process(Transform.RAW, start, end, known) if first > start else raw
            mean, sd = _forecast(process, runs.X[asked])
            betas += [rank_of(float(z), past) for z in np.abs(y[asked] - mean) / sd]
        return tuple(betas)

    def _conformity_scores(self, forest: ForestPredictor, start: int, end: int) -> ForecastScores:
        """Return scores of `forest`, fitted to the last rows before `start`, on raw losses.

        As for the process, runs told by the last count are known: they are added to the leaves.
        """
        runs, count = self._models.runs, len(forest.leaf_weights.y)
        y = runs.loss[start - count : start]
        leaves = forest.leaf_weights.with_targets(y)
        q, rows = leaves.out_of_bag(np.arange(count))
        left_out, ahead = conformity(q, y[rows]), []
        for first, last in pairwise(at for at in refits_up_to(end) if at >= start):
            asked = slice(max(first, end - _ROWS), last)
            if asked.start < last:
                ahead.append(conformity(leaves.quantiles(runs.X[asked]), runs.loss[asked]))
            leaves = leaves.with_rows(runs.X[first:last], runs.loss[first:last])
        return ForecastScores(left_out, np.concatenate(ahead))

    def _process(self, transform: Transform, start: int, end: int, known: slice) -> GPPredictor:
        """Build the process on the rows `known` with the hyperparameters learned at `start`.

        Targets are transformed as at `end`.
        """
        runs = self._models.runs
        y = transform(runs.loss[:end])[known]
        data = TrainingData(runs.X[known], y, self._models.encoder.columns)
        theta = self._models.hyperparameters(transform, start)
        return self._models.process(transform).predictor(data, theta)

    def _left_out(self, process: GPPredictor, row: Array) -> Array:
        """Return scores of the last runs, forecast without themselves.

        At a size that was never run they are forecast without all other runs of their size, too,
        and the losses of one run, which share its seed, without each other. They are kept for the
        processes asked about last.
        """
        scale = self._models.encoder.columns.scale
        sizes = process.X[-_BY_SIZE:, scale]
        ran = np.all(np.abs(sizes - row[0, scale]) < _SAME_SIZE, axis=1)
        by_size = bool(len(scale)) and not ran.any()
        for known, was_by_size, scores in self._known_scores:
            if known is process and was_by_size == by_size:
                return scores
        runs = self._runs_of(process)
        if by_size:
            _, groups = np.unique(np.round(sizes / _SAME_SIZE), axis=0, return_inverse=True)
            groups = groups.ravel() if runs is None else _joined(groups.ravel(), runs[-_BY_SIZE:])
            scores = Calibration.by_group(process, groups).scores
        elif runs is not None:
            scores = Calibration.by_group(process, runs[-_RECENT:]).scores
        else:
            scores = _last_residuals(process)
        self._known_scores = [(process, by_size, scores), *self._known_scores[: _KNOWN - 1]]
        return scores

    def _runs_of(self, process: GPPredictor) -> IntArray | None:
        """Return the number of the trial of each row; None where every row is a trial's own."""
        models = self._models
        if models.law_runs is models.runs:
            return None
        law, rows = models.scaling()
        return np.array(models.law_runs.numbers)[rows] if process is law else None

    def _residuals(self, raw: GPPredictor) -> Array:
        """Return scores of the process on raw losses on the first runs, about as many as its rows.

        Where they are cross-fitted, they are those of the last count at which models were built.
        The folds learn at every `_STRIDE`-th of these counts, which are the bounds of the blocks.
        """
        n = len(raw.y)
        if n not in _CROSS_FITTED:
            return _last_residuals(raw)
        counts = refits_up_to(n)
        count, learned = counts[-1], counts[(len(counts) - 1) // _STRIDE * _STRIDE]
        if count not in self._cross_fitted:
            model = self._models.process(Transform.RAW)
            try:
                if learned not in self._folds:
                    theta = self._models.hyperparameters(Transform.RAW, learned)
                    self._folds[learned] = fold_hyperparameters(model, self._first(learned), theta)
                scores = Calibration.cross_fitted(model, self._first(count), self._folds[learned])
            except NumericalError:
                return _last_residuals(raw)
            self._cross_fitted[count] = scores.scores
        return self._cross_fitted[count]

    def _first(self, count: int) -> TrainingData:
        """Return the first runs with their standardized losses."""
        runs = self._models.runs
        y = Transform.RAW(runs.loss[:count])
        return TrainingData(runs.X[:count], y, self._models.encoder.columns)


def _joined(one: IntArray, other: IntArray) -> IntArray:
    """Return groups in which rows are together that share a group of either kind, `(n,)`."""
    graph = csr_matrix((one[:, None] == one) | (other[:, None] == other))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.intp)


def _last_residuals(process: GPPredictor) -> Array:
    return Calibration.recent(process, _RECENT).scores


def _forecast(process: GPPredictor, X: Array) -> tuple[Array, Array]:
    """Return mean and standard deviation of new runs."""
    posterior = process.posterior(X)
    return posterior.mean, np.sqrt(posterior.variance + process.noise_variance)


def normal_crps(y: Array, mean: Array, sd: Array) -> Array:
    """Return the CRPS of normal forecasts (Gneiting & Raftery 2007, eq. 21), `(n,)`.

    Args:
        y: Outcomes, `(n,)`.
        mean: Means of the forecasts, `(n,)`.
        sd: Standard deviations of the forecasts, `(n,)`, > 0.

    Example:
        >>> normal_crps(np.array([1.0, 4.0]), np.ones(2), np.ones(2)).round(3).tolist()
        [0.234, 2.437]
    """
    z = (y - mean) / sd
    density = np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)
    return np.asarray(sd * (z * (2.0 * ndtr(z) - 1.0) + 2.0 * density - 1.0 / np.sqrt(np.pi)))
