"""Intervals that are right as often as they say: conformal quantiles, free for a GP, kept online.

Notation:

=========  ======  ===============================================================================
``alpha``          share of runs an interval may miss; coverage is ``1 - alpha``
``s``      (n,)    scores, larger is stranger; for a Gaussian process ``|y_i - mu_-i| / sd_-i`` of
                   the leave-one-out prediction of run i, in closed form; while runs are few, under
                   hyperparameters that were learned without it
``w``      (n,)    weight of each score, where a new run has weight 1
``beta``           share of the scores at least as large as that of a run told later; the interval
                   at level ``a`` covered it when ``a <= beta``
=========  ======  ===============================================================================

:func:`conformal_quantile` has the finite-sample level right: with all weights 1 it is the
``ceil((n + 1) (1 - alpha))``-th smallest score, larger than the empirical quantile, and infinite
where ``n`` runs cannot promise that much (Vovk, Gammerman & Shafer 2005). Weights stand for runs
that are less like the next one (Barber et al. 2023, "Conformal prediction beyond exchangeability").

:class:`OnlineLevel` corrects what exchangeability misses, since configs are chosen and not drawn:
dynamically tuned adaptive conformal inference (DtACI; Gibbs & Candes 2024, JMLR 25, algorithm 2).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np

from surrogates.base import Posterior
from surrogates.data import Array, TrainingData
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.numerics import normal_half_width

STEP_SIZES = tuple(0.001 * 2.0**k for k in range(8))  # gamma of the paper's experts
_MEMORY = 100  # tells over which the weights of the experts should be near the best's
_ROUNDING = 1e-9  # (n + 1) (1 - alpha) is often a whole number in theory and a hair more in floats
_HALF_LIFE = 200.0  # tells after which a residual counts half
_SCALE_REACH = 3.0  # e-folds of size after which a residual counts half
_FOLDS = 10
_SD_FLOOR = 1e-12  # relative; a constant history predicts itself without error


def conformal_quantile(scores: Array, coverage: float, weights: Array | None = None) -> float:
    """The smallest score that a new one stays under with probability at least ``coverage``.

    Args:
        scores: ``(n,)``, n may be 0.
        coverage: in (0, 1).
        weights: ``(n,)``, non-negative, relative to 1 of the new score; None is all 1.

    Returns infinity where the scores cannot promise ``coverage``.

    Raises:
        ValueError: for a coverage outside (0, 1) or a negative weight.
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
    """``2^(-age / half_life)``; age 0 is the run told last."""
    return np.asarray(0.5 ** (ages / half_life))


def scale_weights(scales: Array, at: Array, reach: float = _SCALE_REACH) -> Array:
    """``2^(-distance / reach)`` from each run's size to ``at``.

    Args:
        scales: n x a, natural coordinates of the scale axes (ln N, ln D).
        at: ``(a,)``.
        reach: distance, in e-folds over all axes, at which a run counts half.
    """
    distance = np.sqrt(np.sum((scales - at) ** 2, axis=1))
    return np.asarray(0.5 ** (distance / reach))


@dataclass(frozen=True, slots=True)
class OnlineLevel:
    """Which level to use now so that ``alpha`` of the runs are missed in the long run.

    One expert a step size gamma runs adaptive conformal inference, ``a <- a + gamma (alpha -
    err)``; the level used is their mean under exponential weights on the pinball loss of ``beta``.

    Attributes:
        alpha: aimed share of misses, in (0, 1).
        experts: ``(k,)``, level of each; may leave [0, 1], as the guarantee needs.
        log_weights: ``(k,)``, normalized so that the largest is 0.
        told: number of runs taken in. missed: of those, how many the interval in use missed.
    """

    alpha: float
    experts: Array
    log_weights: Array
    observed: int = 0
    missed: int = 0

    @classmethod
    def start(cls, alpha: float) -> OnlineLevel:
        """Every expert at ``alpha``. Raises ValueError unless it lies in (0, 1)."""
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
        """The state after a run of which the interval at level a covered all ``a <= beta``."""
        a, k = self.alpha, len(self.experts)
        # eq. for eta: sqrt(3 / I) sqrt((ln(I k) + 2) / ((1 - a)^2 a^3 + a^2 (1 - a)^3)), whose
        # denominator is (a (1 - a))^2
        eta = np.sqrt(3.0 / _MEMORY * (np.log(_MEMORY * k) + 2.0)) / (a * (1.0 - a))
        sigma = 0.5 / _MEMORY  # share of the weight that is handed round, so that none dies out
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
    model: GaussianProcess, data: TrainingData, theta: Array
) -> tuple[Array, ...]:
    """What ``model`` learns without each fold, row i being in fold ``i mod 10``; ten fits.

    Args:
        data: of n >= 10 rows, so that no fold is empty.
        theta: learned from all of it, where each fit starts.

    Raises:
        ValueError: with fewer rows.
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
    """What :class:`~surrogates.gp.GPPredictor` offers: predictions of each run from all others."""

    @property
    def y(self) -> Array: ...

    def leave_one_out(self) -> Posterior: ...


@dataclass(frozen=True, slots=True)
class Calibration:
    """How many of its standard deviations a Gaussian posterior is off, as shown by its own runs.

    Attributes:
        scores: ``(n,)``, ``|y_i - mu_-i| / sd_-i``.
        weights: ``(n,)``, of recency and scale.
        levels: online corrections by coverage; a coverage without one is used as it is.
    """

    scores: Array
    weights: Array
    levels: dict[float, OnlineLevel] = field(default_factory=dict)

    @classmethod
    def of(cls, predictor: LeaveOneOut, weights: Array | None = None) -> Calibration:
        """From the leave-one-out residuals of a fitted Gaussian process, O(n^3) once."""
        posterior = predictor.leave_one_out()
        unit = max(float(np.max(np.abs(predictor.y), initial=0.0)), np.finfo(float).tiny)
        sd = np.sqrt(posterior.variance) + _SD_FLOOR * unit
        scores = np.abs(predictor.y - posterior.mean) / sd
        return cls(scores, np.ones(len(scores)) if weights is None else weights)

    @classmethod
    def recent(cls, predictor: GPPredictor, count: int) -> Calibration:
        """From the leave-one-out residuals of the last ``count`` rows, O(count^3)."""
        precision = predictor.factor.inverse_diagonal_of_last(count)
        scores = np.abs(predictor.weights[-len(precision) :]) / np.sqrt(precision)
        return cls(scores, np.ones(len(scores)))

    @classmethod
    def cross_fitted(
        cls, model: GaussianProcess, data: TrainingData, thetas: tuple[Array, ...]
    ) -> Calibration:
        """From leave-one-out residuals under hyperparameters that have not seen the row either.

        While rows are few, hyperparameters learned from all of them fit each too well: 90 %
        intervals then cover 80 % at n = 30 (docs/calibration.md).

        Args:
            data: all rows so far; those told since ``thetas`` were learned go on in their fold.
            thetas: of :func:`fold_hyperparameters`.
        """
        fold = np.arange(len(data)) % len(thetas)
        scores = np.empty(len(data))
        for k, theta in enumerate(thetas):
            scores[fold == k] = cls.of(model.predictor(data, theta)).scores[fold == k]
        return cls(scores, np.ones(len(scores)))

    def multiplier(self, coverage: float) -> float:
        """Standard deviations to each side, infinite where the runs cannot promise ``coverage``."""
        online = self.levels.get(coverage)
        level = 1.0 - coverage if online is None else online.level
        if level <= 0.0:
            return np.inf
        if level >= 1.0:
            return 0.0
        return conformal_quantile(self.scores, 1.0 - level, self.weights)

    def finite_multiplier(self, coverage: float) -> float:
        """:meth:`multiplier` for people: never infinite.

        Where nothing can be promised it is the normal one or the largest score, if that is more.
        """
        multiplier = self.multiplier(coverage)
        if np.isfinite(multiplier):
            return multiplier
        return max(normal_half_width(coverage), float(np.max(self.scores, initial=0.0)))


def rank_of(score: float, scores: Array, weights: Array | None = None) -> float:
    """``beta``: weighted share of the scores, the new one included, at least as large as ``score``.

    The interval of :func:`conformal_quantile` at ``1 - a`` covers the new score iff ``a`` is below
    it, ties apart.
    """
    w = np.ones(len(scores)) if weights is None else weights
    return float((np.sum(w[scores >= score]) + 1.0) / (np.sum(w) + 1.0))
