"""Improve the front of loss against cost or, where cost is no matter, the best loss.

Each ask draws a cost level from a stratified sequence, asks for an improvement over the front at
that level, and stays near front members unless the model sees a reason to leave. Without a cost
model it is plain Bayesian optimization with the same parts. CARBS (arXiv 2306.08055) is the
ancestor; here front values are posterior means, radii are learned, and a failed model is reported.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hpo.acquisition import (
    CostBelow,
    Improvement,
    Region,
    Staircase,
    Sum,
    TrustRegion,
    knowledge_gradient,
)
from hpo.models.fitted import Models
from hpo.optimizer.ask import Ask, Search
from hpo.optimizer.strategies.cost_levels import (
    SLACK,
    CostMean,
    affordable,
    cost_level,
    known_costs,
    requirements,
)
from hpo.optimizer.strategies.search_region import (
    CANDIDATES,
    CENTERS,
    FANTASIES,
    GLOBAL_SHARE,
    REGION,
    SMALLEST_REGION,
    radii,
    region_scale,
    scale_moves,
)
from hpo.trials import Reason, ReasonKind
from hpo.trials.pareto import front
from surrogates.data import Array, IntArray
from surrogates.gp import GPPredictor
from surrogates.transforms import CYCLE

_GLOBAL_SHARE_FRONT = (
    0.1  # of candidates, in cost-aware search, which is local around a whole front
)
_WORK = 5e8  # candidates x rows^2 beyond which fewer candidates are scored
_MIN_REPLICATED_NOISE = 1e-3  # of the variance of the losses; the prior of the noise lies below


def improve_front(ask: Ask) -> Search:
    """Maximize expected improvement over the front at one cost level, or over the best loss.

    Raises:
        ArithmeticError: If no model can be built.
    """
    models, encoder, rng = ask.models, ask.encoder, ask.rng
    pending, limits = ask.pending, ask.limits
    runs = models.law_runs if len(encoder.columns.scale) else models.runs
    predictor, rows, name = _value_model(models, ask.index)
    cost = models.cost()
    X, log_costs = runs.X[rows], known_costs(runs.log_cost[rows], runs.X[rows], cost)
    means, posterior, fantasies = predictor.training_mean()[:, None], predictor, None
    if len(pending):
        fantasies = predictor.fantasize(pending, FANTASIES, rng)
        posterior, means = fantasies.predictor, fantasies.training_means()
        pending_costs = np.zeros(len(pending)) if cost is None else cost.posterior(pending).mean
        log_costs = np.concatenate([log_costs, pending_costs])
    terms = requirements(models, limits)
    # told runs may lie outside the space
    legal = np.isclose(encoder.snap(X), X).all(axis=1) & encoder.allowed(X)
    if ask.cost_aware and cost is not None:
        box = encoder.box(X)
        outside = np.flatnonzero(~legal & legal.any())
        told = np.maximum(log_costs, np.min(np.delete(log_costs, outside)))
        level, top = cost_level(encoder, box, cost, told, limits, ask.pool, rng)
        threshold = Staircase.build(log_costs, means, level, CostMean(cost))
        ceiling = level + max(SLACK, 0.1 * (top - level))
        terms.append(CostBelow(cost, ceiling))
        members = front(predictor.training_mean(), log_costs[: len(X)])
        eligible = log_costs[: len(X)] <= ceiling
        why = Reason(ReasonKind.IMPROVE_FRONT, surrogate=name, cost_level=float(np.exp(level)))
    else:
        within = affordable(log_costs, cost, limits)
        threshold = Staircase.build(np.zeros(int(within.sum())), means[within], 0.0, None)
        eligible = affordable(log_costs[: len(X)], cost, limits)
        order = np.argsort(predictor.training_mean(), kind="stable")
        members = order[eligible[order]][:CENTERS]
        box = encoder.box(X[members])
        why = Reason(ReasonKind.IMPROVE_LOSS, surrogate=name)
    extra = scale_moves(encoder, predictor, X[members], rng) if ask.cost_aware else X[:0]
    if models.other_tasks is not None:
        why = replace(why, other_tasks=models.other_tasks.shares(predictor))
        extra = np.concatenate([extra, models.other_tasks.best_rows])
    width = radii(predictor, encoder, region_scale(runs.loss, int(encoder.free.sum())))
    restrained = encoder.columns.decision if ask.cost_aware else encoder.unbounded
    trust = TrustRegion(X[members], np.maximum(REGION * width, SMALLEST_REGION), restrained)
    region = Region(
        *box,
        centers=X[members],
        radii=width,
        extra=extra,
        global_share=_GLOBAL_SHARE_FRONT if ask.cost_aware else GLOBAL_SHARE,
        candidates=int(np.clip(_WORK / len(rows) ** 2, CANDIDATES // 4, CANDIDATES)),
    )

    def replicate(row: Array) -> tuple[Array, Reason] | None:
        again = _replicate(predictor, posterior, X, eligible & legal, row)
        return None if again is None else (X[again], Reason(ReasonKind.REPLICATE, surrogate=name))

    return Search(
        Sum((Improvement(posterior, threshold, fantasies), *terms, trust)),
        region,
        why,
        reports_value=True,
        instead=replicate if not len(pending) and ask.pool is None else None,
    )


def _value_model(models: Models, index: int) -> tuple[GPPredictor, IntArray, str]:
    """Return the model of the loss that this ask uses, its rows, and its name."""
    if len(models.encoder.columns.scale):
        predictor, rows = models.scaling()
        return predictor, rows, "scaling"
    transform = CYCLE[index % len(CYCLE)]
    return *models.whole_run_value(transform), transform.value


def _replicate(
    predictor: GPPredictor,
    posterior: GPPredictor,
    X: Array,
    eligible: NDArray[np.bool_],
    row: Array,
) -> int | None:
    """Return the visited row to measure again if that teaches more than the new `row`, else None.

    Only the best of the `eligible` rows can be it: the front member at the level of this ask.
    The gain of either is the expected fall of the smallest posterior mean at that level (knowledge
    gradient), so the two are in the same unit. The noise is the model's, but never more than
    repeats have shown: a model that cannot follow the function explains the rest as noise, and
    repeats correct that.
    """
    noise = min(predictor.noise_variance, _repeat_variance(X, predictor.y))
    least = _MIN_REPLICATED_NOISE * float(np.var(predictor.y))
    rows = np.flatnonzero(eligible)
    if noise <= least or len(rows) < 2:
        return None
    means = predictor.training_mean()[rows]
    best = int(np.argmin(means))
    rival = float(np.min(np.delete(means, best)))
    now, pair = float(means[best]), posterior.posterior(np.stack([X[rows[best]], row]))
    again = knowledge_gradient(now, float(pair.variance[0]), noise, rival)
    new = knowledge_gradient(float(pair.mean[1]), float(pair.variance[1]), noise, now)
    return int(rows[best]) if again > new else None


def _repeat_variance(X: Array, y: Array) -> float:
    """Return the pooled variance of `y` within groups of equal rows; infinite without any."""
    _, group, counts = np.unique(X, axis=0, return_inverse=True, return_counts=True)
    freedom = len(y) - len(counts)
    if not freedom:
        return np.inf
    means = np.bincount(group, weights=y) / counts
    return float(np.sum((y - means[group]) ** 2) / freedom)
