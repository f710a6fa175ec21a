"""The next config by posterior sampling from the quantile forest."""

from __future__ import annotations

import numpy as np

from hpo.acquisition import (
    CostBelow,
    ProbabilityOfSuccess,
    SharedLevel,
    Staircase,
    Sum,
    Term,
)
from hpo.acquisition.maximize import Region, best_of, maximize
from hpo.models.fitted import Models
from hpo.optimizer.suggest import (
    _CANDIDATES,
    _CENTRES,
    _GLOBAL_SHARE,
    _NARROWEST,
    _SLACK,
    _WIDEST,
    _WITHOUT_LENGTHS,
    CostLimits,
    Suggestion,
    _below_cap,
    _cost_level,
    _known_costs,
    _Mean,
    region_scale,
)
from surrogates.data import Array
from surrogates.quantile import ForestPredictor, at_level, moments
from surrogates.transforms import location_scale


def suggest_by_quantiles(
    models: Models,
    forest: ForestPredictor,
    runs: tuple[Array, Array],
    pending: Array,
    taken: Array,
    limits: CostLimits,
    *,
    cost_aware: bool,
    who: str,
    rng: np.random.Generator,
    pool: Array | None = None,
) -> Suggestion:
    """The next row by posterior sampling from quantile trees: one level drawn for all rows.

    Args:
        models: of cost and survival, fitted to the log.
        forest: fitted to ``runs``.
        runs: n x d and ``(n,)``, n >= 1; ln costs are read from ``models`` where search looks at
            cost, and then these must be its runs.
        pending, taken, limits, cost_aware, rng, pool: as for :func:`suggest`.
        who: speaks, for the reason.
    """
    encoder, (X, loss), cost, level = models.encoder, runs, models.cost(), float(rng.random())
    if len(pending):  # believed to end where the trees expect, so that the next looks elsewhere
        forest = forest.condition(pending, moments(forest, pending).mean)
    draws = at_level(forest, X, level)
    terms: list[Term] = []
    success = models.success()
    if success is not None:
        terms.append(ProbabilityOfSuccess(success))
    if cost is not None and limits.log_cap is not None:
        terms.append(_below_cap(cost, limits.log_cap))
    eligible = np.ones(len(X), dtype=bool)
    threshold = Staircase.build(np.zeros(len(X)), draws[:, None], 0.0, None)
    if cost_aware and cost is not None:
        log_costs = _known_costs(models.runs.log_cost, X, cost)
        at, top = _cost_level(encoder, encoder.box(X), cost, log_costs, limits, pool, rng)
        threshold = Staircase.build(log_costs, draws[:, None], at, _Mean(cost))
        ceiling = at + max(_SLACK, 0.1 * (top - at))
        terms.append(CostBelow(cost, ceiling))
        eligible = log_costs <= ceiling
    order = np.argsort(moments(forest, X).mean, kind="stable")
    centers = X[order[eligible[order]][:_CENTRES]]
    acquisition = Sum((SharedLevel(forest, level, threshold, _spread(draws, loss)), *terms))
    if pool is not None:
        choice = best_of(pool, acquisition.value(pool), taken)
    else:
        radii = np.full(len(encoder.lower), _WITHOUT_LENGTHS)
        radii = np.clip(radii * region_scale(loss, int(encoder.free.sum())), _NARROWEST, _WIDEST)
        where = Region(*encoder.box(centers), centers, radii, X[:0], _GLOBAL_SHARE)
        choice = maximize(
            acquisition, encoder, where, taken, candidates=_CANDIDATES, rng=rng, smooth=False
        )
    what = f"best draw at quantile level {level:.2f}"
    if choice.repeated:
        what = f"every other config of the {'space' if pool is None else 'pool'} was tried"
    return Suggestion(choice.row, f"{who}: {what}", forest)


def _spread(draws: Array, loss: Array) -> float:
    """How far draws lie apart, or if they agree, losses; no difference of these overflows it."""
    low, high = np.quantile(draws, [0.25, 0.75])
    return max(float(high - low), location_scale(draws)[1], 1e-9 * location_scale(loss)[1])
