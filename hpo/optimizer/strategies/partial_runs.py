"""Choose the next run to start where the model sees partial runs, as under a scheduler.

Swersky et al. (2014), "Freeze-thaw Bayesian optimization", has the idea.
"""

from __future__ import annotations

import numpy as np

from hpo.acquisition import (
    Improvement,
    ProbabilityOfSuccess,
    Region,
    Staircase,
    Sum,
    Term,
    TrustRegion,
)
from hpo.optimizer.ask import Ask, Search
from hpo.optimizer.strategies.cost_levels import below_cap
from hpo.optimizer.strategies.search_region import (
    CANDIDATES,
    CENTERS,
    FANTASIES,
    GLOBAL_SHARE,
    REGION,
    SMALLEST_REGION,
    radii,
)
from hpo.trials import Reason, ReasonKind
from surrogates.data import Array
from surrogates.gp import GPPredictor
from surrogates.transforms import CYCLE

_MOST_PAUSED = 16  # paused runs that count as pending at full fidelity
_CONSIDERED = 4  # times as many are looked at
_MIN_CONDITIONAL_VARIANCE = 1e-6  # share of a row's variance, below which it is a near-duplicate


def improve_full_fidelity(ask: Ask) -> Search:
    """Maximize expected improvement at full fidelity.

    It is the improvement over the best run that has come to its end, or could: running trials and
    the most promising paused ones count as pending at full fidelity, so that near-duplicates of
    them are not proposed.
    """
    models, encoder, rng = ask.models, ask.encoder, ask.rng
    data, ends = models.data, models.partial_runs.ends
    transform = CYCLE[ask.index % len(CYCLE)]
    predictor, rows = models.value(transform)
    means, expected = predictor.training_mean()[:, None], predictor.posterior(ends).mean
    pending = np.concatenate([ask.pending, _most_promising(predictor, ask.pending, models.paused)])
    ended = np.concatenate([data.X[rows], pending])[:, encoder.columns.fidelity[0]] == 1.0
    posterior, fantasies = predictor, None
    if len(pending):
        fantasies = predictor.fantasize(pending, FANTASIES, rng)
        posterior, means = fantasies.predictor, fantasies.training_means()
    standard = means[ended] if ended.any() else expected[:, None]
    threshold = Staircase.build(np.zeros(len(standard)), standard, 0.0, None)
    terms: list[Term] = []
    success, cost = models.success(), models.cost()
    if success is not None:
        terms.append(ProbabilityOfSuccess(success))
    if cost is not None and ask.limits.log_cap is not None:
        terms.append(below_cap(cost, ask.limits.log_cap))
    centers = ends[np.argsort(expected, kind="stable")[:CENTERS]]
    width = radii(predictor, encoder, 1.0)
    trust = TrustRegion(centers, np.maximum(REGION * width, SMALLEST_REGION), encoder.unbounded)
    return Search(
        Sum((Improvement(posterior, threshold, fantasies), *terms, trust)),
        Region(
            *encoder.box(centers),
            centers=centers,
            radii=width,
            extra=centers[:0],
            global_share=GLOBAL_SHARE,
            candidates=CANDIDATES // 2,
        ),
        Reason(ReasonKind.IMPROVE_FULL_FIDELITY, surrogate=transform.value),
        reports_value=True,
    )


def _most_promising(predictor: GPPredictor, pending: Array, paused: Array) -> Array:
    """Of the `paused` rows, m x d at full fidelity, those whose ends may be lowest.

    Of twins, and beside a twin that is `pending`, one is enough: a row is left out where the rows
    before it leave next to nothing of its variance, by a Cholesky factorization in that order.
    """
    end = predictor.posterior(paused)
    order = np.argsort(end.mean - np.sqrt(end.variance), kind="stable")
    rows = np.concatenate([pending, paused[order[: _CONSIDERED * _MOST_PAUSED]]])
    covariance = predictor.joint_posterior(rows).covariance
    left = np.diagonal(covariance).copy()
    least = _MIN_CONDITIONAL_VARIANCE * left
    factor = np.zeros((len(rows), 0))
    kept: list[int] = []
    for i in range(len(rows)):
        if len(kept) < _MOST_PAUSED and left[i] > least[i]:
            known = left[i] + predictor.noise_variance
            column = (covariance[:, i] - factor @ factor[i]) / np.sqrt(known)
            factor = np.column_stack([factor, column])
            left -= column**2
            kept += [i] if i >= len(pending) else []
    return rows[kept]
