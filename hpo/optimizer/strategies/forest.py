"""Posterior sampling from the quantile forest: one quantile level drawn for all rows."""

from __future__ import annotations

import numpy as np

from hpo.acquisition import (
    CostBelow,
    ProbabilityOfSuccess,
    Region,
    SharedLevel,
    Staircase,
    Sum,
    Term,
)
from hpo.optimizer.ask import Ask, Search
from hpo.optimizer.strategies.cost_levels import (
    SLACK,
    CostMean,
    below_cap,
    cost_level,
    known_costs,
)
from hpo.optimizer.strategies.search_region import (
    CANDIDATES,
    CENTERS,
    GLOBAL_SHARE,
    NARROWEST,
    WIDEST,
    WITHOUT_LENGTHS,
    region_scale,
)
from hpo.trials import Reason, ReasonKind
from surrogates.data import Array
from surrogates.quantile_forest import at_level, moments
from surrogates.transforms import location_scale


def sample_forest(ask: Ask) -> Search:
    """Maximize the improvement of one posterior sample of the loss (Thompson sampling)."""
    models, encoder, rng, limits = ask.models, ask.encoder, ask.rng, ask.limits
    forest = ask.warp.selector.forest()
    X, loss = ask.warp.selector.training_data()
    cost, level = models.cost(), float(rng.random())
    if len(ask.pending):  # taken to end where the forest expects, so that the next looks elsewhere
        forest = forest.condition(ask.pending, moments(forest, ask.pending).mean)
    draws = at_level(forest, X, level)
    terms: list[Term] = []
    success = models.success()
    if success is not None:
        terms.append(ProbabilityOfSuccess(success))
    if cost is not None and limits.log_cap is not None:
        terms.append(below_cap(cost, limits.log_cap))
    eligible = np.ones(len(X), dtype=bool)
    threshold = Staircase.build(np.zeros(len(X)), draws[:, None], 0.0, None)
    if ask.cost_aware and cost is not None and not models.uses_partial_runs:
        log_costs = known_costs(models.runs.log_cost, X, cost)
        at, top = cost_level(encoder, encoder.box(X), cost, log_costs, limits, ask.pool, rng)
        threshold = Staircase.build(log_costs, draws[:, None], at, CostMean(cost))
        ceiling = at + max(SLACK, 0.1 * (top - at))
        terms.append(CostBelow(cost, ceiling))
        eligible = log_costs <= ceiling
    order = np.argsort(moments(forest, X).mean, kind="stable")
    centers = X[order[eligible[order]][:CENTERS]]
    radii = np.full(len(encoder.lower), WITHOUT_LENGTHS)
    radii = np.clip(radii * region_scale(loss, int(encoder.free.sum())), NARROWEST, WIDEST)
    return Search(
        Sum((SharedLevel(forest, level, threshold, _spread(draws, loss)), *terms)),
        Region(
            *encoder.box(centers),
            centers=centers,
            radii=radii,
            extra=X[:0],
            global_share=GLOBAL_SHARE,
            candidates=CANDIDATES,
            smooth=False,
        ),
        Reason(
            ReasonKind.POSTERIOR_SAMPLE,
            surrogate="quantile forest",
            quantile=level,
            forest_share=ask.warp.selector.forest_share,
        ),
        forest=forest,
    )


def _spread(draws: Array, loss: Array) -> float:
    """How far draws lie apart, or if they agree, losses; no difference of these overflows it."""
    low, high = np.quantile(draws, [0.25, 0.75])
    return max(float(high - low), location_scale(draws)[1], 1e-9 * location_scale(loss)[1])
