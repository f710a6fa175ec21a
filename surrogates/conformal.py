"""Conformal calibration of Gaussian posteriors: leave-one-out scores, quantiles and online levels.

Notation:

=========  ======  ===============================================================================
`alpha`            share of runs an interval may miss; coverage is `1 - alpha`
`s`        (n,)    nonconformity scores; for a Gaussian process `|y_i - mu_-i| / sd_-i` of the
                   leave-one-out prediction of run i, in closed form; while runs are few, under
                   hyperparameters that were learned without it
`w`        (n,)    weight of each score, where a new run has weight 1
`beta`             share of the scores at least as large as that of a later run; the interval at
                   level `a` covered it when `a <= beta`
=========  ======  ===============================================================================

`conformal_quantile` has the finite-sample level right: with all weights 1 it is the
`ceil((n + 1) (1 - alpha))`-th smallest score, larger than the empirical quantile, and infinite
where `n` runs cannot guarantee that much (Vovk, Gammerman & Shafer 2005). Weights stand for runs
that are less like the next one (Barber et al. 2023, "Conformal prediction beyond exchangeability").

`OnlineLevel` corrects what exchangeability misses, since configs are chosen and not drawn:
dynamically tuned adaptive conformal inference (DtACI; Gibbs & Candes 2024, JMLR 25, algorithm 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from surrogates.base import Posterior, Surrogate
from surrogates.data import Array, IntArray, TrainingData
from surrogates.gp import GPPredictor
from surrogates.numerics import normal_half_width

STEP_SIZES = tuple(0.001 * 2.0**k for k in range(8))  # gamma of the paper's experts
_MEMORY = 100  # runs over which the weights of the experts should be near the best's
_ROUNDING = 1e-9  # (n + 1) (1 - alpha) may be a whole number in theory and a bit more in floats
_HALF_LIFE = 200.0  # runs after which a residual counts half
_SCALE_REACH = 3.0  # e-folds of size after which a residual counts half
_FOLDS = 10
_SD_FLOOR = 1e-12  # relative; a constant history predicts itself without error


def conformal_quantile(scores: Array, coverage: float, weights: Array | None = None) -> float:
    """Return the smallest score that a new one stays under with probability at least `coverage`.

    Args:
        scores: `(n,)`, n may be 0.
        coverage: probability, in (0, 1).
        weights: `(n,)`, non-negative, relative to 1 of the new score; None is all 1.

    Returns:
        A score, or infinity where the scores cannot guarantee `coverage`.

    Raises:
        ValueError: for a coverage outside (0, 1) or a negative weight.

    Example:
        >>> conformal_quantile(np.arange(1.0, 20.0), 0.9)
        18.0
        >>> conformal_quantile(np.arange(1.0, 9.0), 0.9)
        inf
    """
    if not 0.0 < coverage < 1.0:
        raise ValueError(f"`coverage` must lie in (0, 1), got {coverage}; try 0.9")
    w = np.ones(len(scores)) if weights is None else weights
    if np.any(w < 0.0):
        raise ValueError(f"`weights` must be >= 0, got {float(np.min(w))}")
    order = np.argsort(scores, kind="stable")
    reached = np.cumsum(w[order])
    needed = coverage * (float(np.sum(w)) + 1.0) * (1.0 - _ROUNDING)
    place = int(np.searchsorted(reached, needed))
    return float(scores[order[place]]) if place < len(scores) else np.inf


def recency_weights(ages: Array, half_life: float = _HALF_LIFE) -> Array:
    """Return the weights `2^(-age / half_life)`.

    Args:
        ages: `(n,)`, number of runs told since; age 0 is the latest run.
        half_life: age at which a run counts half.

    Example:
        >>> recency_weights(np.array([0.0, 200.0])).tolist()
        [1.0, 0.5]
    """
    return np.asarray(0.5 ** (ages / half_life))


def scale_weights(scales: Array, at: Array, reach: float = _SCALE_REACH) -> Array:
    """Return the weights `2^(-distance / reach)` from each run's size to `at`.

    Args:
        scales: `n x a`, natural coordinates of the scale axes (ln N, ln D).
        at: `(a,)`.
        reach: distance, in e-folds over all axes, at which a run counts half.

    Example:
        >>> scale_weights(np.array([[0.0, 0.0], [3.0, 0.0]]), np.zeros(2)).tolist()
        [1.0, 0.5]
    """
    distance = np.sqrt(np.sum((scales - at) ** 2, axis=1))
    return np.asarray(0.5 ** (distance / reach))


@dataclass(frozen=True, slots=True)
class OnlineLevel:
    """The level to use now so that `alpha` of the runs are missed in the long run.

    One expert per step size gamma runs adaptive conformal inference, `a <- a + gamma (alpha -
    err)`; the level used is their mean under exponential weights on the pinball loss of `beta`.

    Args:
        alpha: target share of misses, in (0, 1).
        experts: `(k,)`, level of each; may leave [0, 1], as the guarantee needs.
        log_weights: `(k,)`, normalized so that the largest is 0.
        observed: number of runs taken in.
        missed: number of those that the interval in use missed.

    Example:
        >>> state = OnlineLevel.start(0.1)
        >>> for _ in range(5):
        ...     state = state.updated(0.0)  # even the widest interval missed
        >>> state.observed, state.missed, state.level < 0.1
        (5, 4, True)
    """

    alpha: float
    experts: Array
    log_weights: Array
    observed: int = 0
    missed: int = 0

    @classmethod
    def start(cls, alpha: float) -> OnlineLevel:
        """Return the state before any run, every expert at `alpha`.

        Args:
            alpha: target share of misses.

        Raises:
            ValueError: unless alpha lies in (0, 1).
        """
        if not 0.0 < alpha < 1.0:
            raise ValueError(f"`alpha` must lie in (0, 1), got {alpha}; 0.1 covers 90 %")
        k = len(STEP_SIZES)
        return cls(alpha, np.full(k, alpha), np.zeros(k))

    @property
    def level(self) -> float:
        """The level to use now, in [0, 1]; 0 asks for everything, 1 for nothing."""
        weights = np.exp(self.log_weights)
        return float(np.clip(weights @ self.experts / np.sum(weights), 0.0, 1.0))

    def updated(self, beta: float) -> OnlineLevel:
        """Return the state after one more run.

        Args:
            beta: largest level a at which the interval covered the run.
        """
        a, k = self.alpha, len(self.experts)
        # eq. for eta: sqrt(3 / I) sqrt((ln(I k) + 2) / ((1 - a)^2 a^3 + a^2 (1 - a)^3)), whose
        # denominator is (a (1 - a))^2
        eta = np.sqrt(3.0 / _MEMORY * (np.log(_MEMORY * k) + 2.0)) / (a * (1.0 - a))
        sigma = 0.5 / _MEMORY  # share of the weight spread over all experts, so that none vanishes
        loss = a * (beta - self.experts) - np.minimum(0.0, beta - self.experts)
        log_weights = self.log_weights - eta * loss
        weights = np.exp(log_weights - np.max(log_weights))
        weights = (1.0 - sigma) * weights + sigma * np.mean(weights)
        return replace(
            self,
            experts=self.experts + np.array(STEP_SIZES) * (a - (self.experts > beta)),
            log_weights=np.log(weights / np.max(weights)),
            observed=self.observed + 1,
            missed=self.missed + int(self.level > beta),
        )


def fold_hyperparameters(
    model: Surrogate[GPPredictor], data: TrainingData, theta: Array
) -> tuple[Array, ...]:
    """Return what `model` learns without each fold, row i being in fold `i mod 10`; ten fits.

    Args:
        model: Gaussian process to learn with.
        data: n >= 10 rows, so that no fold is empty.
        theta: hyperparameters learned from all rows, where each fit starts.

    Raises:
        ValueError: with fewer rows.

    Example:
        >>> from surrogates.data import Columns
        >>> from surrogates.gp import GaussianProcess
        >>> X = np.linspace(0.0, 1.0, 10)[:, None]
        >>> data = TrainingData(X, np.sin(6.0 * X[:, 0]), Columns.of_decisions("x"))
        >>> model = GaussianProcess(max_iterations=3, warm_iterations=1)
        >>> len(fold_hyperparameters(model, data, model.learn(data)))
        10
    """
    n = len(data)
    if n < _FOLDS:
        raise ValueError(f"`data` must have at least {_FOLDS} rows, got {n}; use Calibration.of")
    fold = np.arange(n) % _FOLDS
    rest = (np.flatnonzero(fold != k) for k in range(_FOLDS))
    return tuple(
        model.learn(TrainingData(data.X[rows], data.y[rows], data.columns), theta, cold=False)
        for rows in rest
    )


class LeaveOneOut(Protocol):
    """A predictor with leave-one-out predictions, such as `GPPredictor`.

    Example:
        >>> def z_scores(predictor: LeaveOneOut) -> Array:
        ...     left_out = predictor.leave_one_out()
        ...     return (predictor.y - left_out.mean) / np.sqrt(left_out.variance)
    """

    @property
    def y(self) -> Array:
        """Training targets, `(n,)`."""
        ...

    def leave_one_out(self) -> Posterior:
        """Return the prediction of each target from all others, noise included."""
        ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """Number of posterior standard deviations that cover, measured on the model's own runs.

    Args:
        scores: `(n,)`, `|y_i - mu_-i| / sd_-i`.
        weights: `(n,)`, of recency and scale.
        levels: online corrections by coverage; a coverage without one is used as it is.

    Example:
        >>> scores = np.abs(np.random.default_rng(0).standard_normal(999))
        >>> round(Calibration(scores, np.ones(999)).multiplier(0.9), 2)
        1.56
    """

    scores: Array
    weights: Array
    levels: dict[float, OnlineLevel] = field(default_factory=dict)

    @classmethod
    def of(cls, predictor: LeaveOneOut, weights: Array | None = None) -> Calibration:
        """Return the calibration by the leave-one-out residuals of a Gaussian process, O(n^3) once.

        Args:
            predictor: fitted process.
            weights: `(n,)`, weight of each run; None is all 1.
        """
        posterior = predictor.leave_one_out()
        unit = max(float(np.max(np.abs(predictor.y), initial=0.0)), np.finfo(float).tiny)
        sd = np.sqrt(posterior.variance) + _SD_FLOOR * unit
        scores = np.abs(predictor.y - posterior.mean) / sd
        return cls(scores, np.ones(len(scores)) if weights is None else weights)

    @classmethod
    def recent(cls, predictor: GPPredictor, count: int) -> Calibration:
        """Return the calibration by leave-one-out residuals of the last `count` rows, O(count^3).

        Args:
            predictor: fitted process.
            count: number of rows.
        """
        precision = predictor.factor.inverse_diagonal_of_last(count)
        scores = np.abs(predictor.weights[-len(precision) :]) / np.sqrt(precision)
        return cls(scores, np.ones(len(scores)))

    @classmethod
    def by_group(cls, predictor: GPPredictor, groups: IntArray) -> Calibration:
        """Return the calibration by residuals of each run without the others of its group.

        With P the inverse of the covariance and B the rows of a group, the errors are
        `P_BB^-1 (P (y - m))_B` and their covariance `P_BB^-1` (Rasmussen & Williams 2006, sec.
        5.4.2, for blocks).

        Args:
            predictor: fitted process.
            groups: `(m,)`, group of each of the last m rows, such as their size.
        """
        precision = predictor.factor.inverse_of_last(len(groups))
        weighted = predictor.weights[-len(groups) :]
        scores = np.empty(len(groups))
        for group in np.unique(groups):
            rows = np.flatnonzero(groups == group)
            covariance = np.linalg.inv(precision[np.ix_(rows, rows)])
            error = covariance @ weighted[rows]
            scores[rows] = np.abs(error) / np.sqrt(np.diagonal(covariance))
        return cls(scores, np.ones(len(scores)))

    @classmethod
    def cross_fitted(
        cls, model: Surrogate[GPPredictor], data: TrainingData, thetas: tuple[Array, ...]
    ) -> Calibration:
        """Return the calibration by residuals under hyperparameters learned without the row.

        While rows are few, hyperparameters learned from all of them fit each too well: 90 %
        intervals then cover 80 % at n = 30 (docs/appendix/calibration.md).

        Args:
            model: Gaussian process.
            data: all rows so far; rows added since `thetas` were learned continue the folds.
            thetas: hyperparameters without each fold, from `fold_hyperparameters`.
        """
        fold = np.arange(len(data)) % len(thetas)
        scores = np.empty(len(data))
        for k, theta in enumerate(thetas):
            scores[fold == k] = cls.of(model.predictor(data, theta)).scores[fold == k]
        return cls(scores, np.ones(len(scores)))

    def multiplier(self, coverage: float) -> float:
        """Return the half width in posterior standard deviations.

        It is infinite where the runs cannot guarantee `coverage`.
        """
        online = self.levels.get(coverage)
        level = 1.0 - coverage if online is None else online.level
        if level <= 0.0:
            return np.inf
        if level >= 1.0:
            return 0.0
        return conformal_quantile(self.scores, 1.0 - level, self.weights)

    def finite_multiplier(self, coverage: float) -> float:
        """Return `multiplier` for display: never infinite.

        Where nothing can be guaranteed it is the normal one or the largest score, whichever is
        larger.
        """
        multiplier = self.multiplier(coverage)
        if np.isfinite(multiplier):
            return multiplier
        return max(normal_half_width(coverage), float(np.max(self.scores, initial=0.0)))


def rank_of(score: float, scores: Array, weights: Array | None = None) -> float:
    """Return `beta`, the weighted share of the scores that are at least `score`.

    The new score itself counts among them.

    The interval of `conformal_quantile` at `1 - a` covers the new score iff `a` is below it, ties
    apart.

    Args:
        score: score of a new run.
        scores: `(n,)`, scores of earlier runs.
        weights: `(n,)`, their weights; None is all 1.

    Example:
        >>> rank_of(2.5, np.array([1.0, 2.0, 3.0]))
        0.5
    """
    w = np.ones(len(scores)) if weights is None else weights
    return float((np.sum(w[scores >= score]) + 1.0) / (np.sum(w) + 1.0))
