"""The next run to start where runs are seen before their end."""

from __future__ import annotations

import numpy as np

from hpo.acquisition import (
    Improvement,
    ProbabilityOfSuccess,
    Staircase,
    Sum,
    Term,
    TrustRegion,
)
from hpo.acquisition.maximize import Region, best_of, maximize
from hpo.models.fitted import Models
from hpo.optimizer.suggest import (
    _CANDIDATES,
    _CENTRES,
    _GLOBAL_SHARE,
    _REGION,
    _SMALLEST_REGION,
    _WORLDS,
    CostLimits,
    Suggestion,
    _below_cap,
    _radii,
)
from surrogates.data import Array
from surrogates.gp import GPPredictor
from surrogates.transforms import CYCLE

_HOPEFULS = 16  # resting runs that count as pending at their ends
_TWINS = 4  # times as many are looked at
_OWN_VARIANCE = 1e-6  # share of a row's variance that others leave of it, below which it is a twin
_EXPLORE_EVERY = 4  # new runs that may pause: one in so many is drawn at random


def suggest_run(
    models: Models,
    pending: Array,
    taken: Array,
    limits: CostLimits,
    *,
    index: int,
    rng: np.random.Generator,
    pool: Array | None = None,
) -> Suggestion:
    """The next run to start where runs are seen on their way: the one whose end promises most.

    Expected improvement at full fidelity over the best run that has come to its end, or could:
    runs on their way there and the most hopeful of those that rest count as pending at their ends,
    since nobody needs a twin of a run that waits to go on. Swersky et al. (2014), "Freeze-thaw
    Bayesian optimization", has the idea.

    One in four is drawn at random: it costs no more than its first level, and without it some
    studies stayed in the first valley they found (mean regret after 5 trainings of each of 4
    workers on four instances of LCBench and two of crossing curves, 4 seeds: .125 without, .086).

    Args:
        models: fitted to the log, with ``models.stages`` not empty.
        pending: p x d, rows that run, with the level they train up to.
        taken, limits, index, rng, pool: as for :func:`suggest`.
    """
    encoder, stages = models.encoder, models.stages
    if index % _EXPLORE_EVERY == 0:
        drawn = rng.random((1, len(encoder.lower)))
        X = encoder.from_unit(drawn, encoder.box(stages.tops)) if pool is None else pool
        return Suggestion(best_of(X, rng.random(len(X)), taken).row, "explores: one in four does")
    transform = CYCLE[index % len(CYCLE)]
    predictor, rows = models.stage_value(transform)
    means, ends = predictor.training_mean()[:, None], predictor.posterior(stages.tops).mean
    pending = np.concatenate([pending, _hopefuls(predictor, pending, models.resting)])
    ended = np.concatenate([stages.X[rows], pending])[:, encoder.columns.fidelity[0]] == 1.0
    belief, worlds = predictor, None
    if len(pending):
        worlds = predictor.fantasize(pending, _WORLDS, rng)
        belief, means = worlds.predictor, worlds.training_means()
    standard = means[ended] if ended.any() else ends[:, None]
    threshold = Staircase.build(np.zeros(len(standard)), standard, 0.0, None)
    terms: list[Term] = []
    success, cost = models.success(), models.cost()
    if success is not None:
        terms.append(ProbabilityOfSuccess(success))
    if cost is not None and limits.log_cap is not None:
        terms.append(_below_cap(cost, limits.log_cap))
    centers = stages.tops[np.argsort(ends, kind="stable")[:_CENTRES]]
    radii = _radii(predictor, encoder, 1.0)
    region = TrustRegion(centers, np.maximum(_REGION * radii, _SMALLEST_REGION), encoder.unbounded)
    acquisition = Sum((Improvement(belief, threshold, worlds), *terms, region))
    if pool is not None:
        choice = best_of(pool, acquisition.value(pool), taken)
    else:
        where = Region(*encoder.box(centers), centers, radii, centers[:0], _GLOBAL_SHARE)
        choice = maximize(acquisition, encoder, where, taken, candidates=_CANDIDATES // 2, rng=rng)
    reason = "promises most at its end" if not choice.repeated else "every other config was tried"
    return Suggestion(
        choice.row, f"{reason}: log-EI {choice.value:.2f} under the {transform.value} model"
    )


def _hopefuls(predictor: GPPredictor, pending: Array, resting: Array) -> Array:
    """Of the `resting` rows, m x d at full fidelity, those whose ends may be lowest.

    Of twins, and beside a twin that is `pending`, one is enough: a row is left out where the rows
    before it leave next to nothing of its variance, by a Cholesky factorization in that order.
    """
    end = predictor.posterior(resting)
    order = np.argsort(end.mean - np.sqrt(end.variance), kind="stable")
    rows = np.concatenate([pending, resting[order[: _TWINS * _HOPEFULS]]])
    covariance = predictor.joint_posterior(rows).covariance
    left = np.diagonal(covariance).copy()
    least = _OWN_VARIANCE * left
    factor = np.zeros((len(rows), 0))
    kept: list[int] = []
    for i in range(len(rows)):
        if len(kept) < _HOPEFULS and left[i] > least[i]:
            known = left[i] + predictor.noise_variance
            column = (covariance[:, i] - factor @ factor[i]) / np.sqrt(known)
            factor = np.column_stack([factor, column])
            left -= column**2
            kept += [i] if i >= len(pending) else []
    return rows[kept]
