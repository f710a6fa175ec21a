"""One suggestion: from fitted models to the next row to try.

The search is cost-aware where cost means something to the user, and walks the front of loss against
cost: each ask draws a cost level from a stratified sequence, asks for an improvement over the front
at that level, and stays near front members unless the model sees a reason to leave. Without a cost
model it is plain Bayesian optimization with the same parts. CARBS (arXiv 2306.08055) is the
ancestor; front values are posterior means, radii are learned, and nothing falls back to chance in
silence.

Notation: ``X`` encoded rows, losses already turned so that less is better, costs in ln.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import qmc

from hpo.acquisition import (
    CostBelow,
    Improvement,
    ProbabilityOfSuccess,
    Staircase,
    Sum,
    TargetGain,
    Term,
    TrustRegion,
    knowledge_gradient,
)
from hpo.acquisition.maximize import Region, best_of, maximize
from hpo.models.fitted import Models
from hpo.space.encoding import Box, Encoder
from hpo.trials.pareto import front
from surrogates.calibration import Calibration
from surrogates.cost import CostPredictor
from surrogates.data import Array, IntArray
from surrogates.gp import GPPredictor
from surrogates.kernels import MaternHamming
from surrogates.quantile import ForestPredictor
from surrogates.scaling import ScalingPredictor
from surrogates.transforms import CYCLE

_WORLDS = 16  # fantasies for pending trials
_CANDIDATES = 1024
_WORK = 5e8  # candidates x rows^2 beyond which fewer candidates are scored
_GLOBAL_SHARE = 0.5  # of candidates, in plain search
_GLOBAL_SHARE_FRONT = 0.1  # in cost-aware search, which is local around a whole front
_CENTRES = 5  # best visited rows to search around, in plain search
_LENGTH_SHARE = 0.5  # a cloud's radius, in length-scales
_WIDEST, _NARROWEST = 0.5, 0.002  # radii, in box widths
_WITHOUT_LENGTHS = 0.25  # box widths, where the model has no length in these columns
_REGION = 8.0  # the trust region's radius, in those of the clouds
_SMALLEST_REGION = 0.5  # of the box: the region is a preference, never a wall
_CHEAP_SHARE = 0.2  # of the range of ln cost: the cheap end competes as one point, as in CARBS
_CALIBRATED = 200  # runs whose cost calibrates the cap
_CAP_COVERAGE, _CAP_NORMAL = 0.9, 1.6448536269514722  # interval compared, its normal half-width
_SLACK = 0.35  # e-folds that a candidate may cost above the drawn level
FRONT_EVERY = 2  # with a target, every so many asks walk the front, the others serve the target
_MIN_REPLICATED_NOISE = 1e-3  # of the variance of the losses; the prior of the noise lies below


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A row to try and why; ``trees`` if it was they who chose it."""

    row: Array
    reason: str
    trees: ForestPredictor | None = None


@dataclass(frozen=True, slots=True)
class CostLimits:
    """What the next trial may cost; None without limit. ``level`` in (0, 1) places its level."""

    log_cap: float | None
    level: float


def stratified(index: int) -> float:
    """Van der Corput's sequence in base 2: every prefix of it covers (0, 1) evenly."""
    value, denominator = 0.0, 1.0
    index += 1
    while index:
        index, digit = divmod(index, 2)
        denominator *= 2.0
        value += digit / denominator
    return value


def region_scale(losses: Array, columns: int) -> float:
    """Factor of the trust region after the losses told so far, in order.

    Doubled after three improvements in a row and halved after ``max(4, columns)`` tells without one
    (TuRBO, Eriksson et al. 2019, section 3.1), but bounded instead of restarted: global candidates
    stay in the pool anyway. An improvement counts when it exceeds a thousandth of the spread.
    """
    factor, won, lost = 1.0, 0, 0
    if len(losses) < 2:
        return factor
    best = np.minimum.accumulate(losses)
    needed = 1e-3 * (float(np.median(losses)) - best[:-1])
    improved = losses[1:] < best[:-1] - needed
    for success in improved:
        won, lost = (won + 1, 0) if success else (0, lost + 1)
        if won == 3:
            factor, won = min(2.0 * factor, 2.0), 0
        elif lost == max(4, columns):
            factor, lost = max(0.5 * factor, 2.0**-6), 0
    return factor


def suggest(
    models: Models,
    pending: Array,
    taken: Array,
    limits: CostLimits,
    *,
    cost_aware: bool,
    index: int,
    rng: np.random.Generator,
    pool: Array | None = None,
    target: Array | None = None,
) -> Suggestion:
    """The next row, from at least one completed run.

    Args:
        models: fitted to the log, with ``models.runs`` not empty.
        pending: p x d, rows asked and not told.
        taken: t x d, every row asked so far.
        limits: on the cost of this trial.
        cost_aware: whether to walk the front of loss against cost.
        index: of this ask; it picks the output transform.
        rng: the only source of chance.
        pool: q x d, the only rows that may be asked; None for all of the space.
        target: ``(scales,)``, encoded; then every other ask buys what teaches most about the best
            config there per unit of cost. Those in between walk the front up to the dearest
            proxies, without which the law would be learned from the cheapest alone.

    Raises:
        ArithmeticError: when no model can be built; the caller says so in the belief.
    """
    encoder, runs = models.encoder, models.runs
    predictor, rows, name = _value_model(models, index)
    cost = models.cost()
    if target is not None and index % FRONT_EVERY:
        assert isinstance(predictor, ScalingPredictor)  # a target needs scale axes
        return _for_target(models, predictor, pending, taken, limits, pool, target, rng)
    X, log_costs = runs.X[rows], _known_costs(runs.log_cost[rows], runs.X[rows], cost)
    means, belief, worlds = predictor.training_mean()[:, None], predictor, None
    if len(pending):
        worlds = predictor.fantasize(pending, _WORLDS, rng)
        belief, means = worlds.predictor, worlds.training_means()
        pending_costs = np.zeros(len(pending)) if cost is None else cost.posterior(pending).mean
        log_costs = np.concatenate([log_costs, pending_costs])
    terms: list[Term] = []
    success = models.success()
    if success is not None:
        terms.append(ProbabilityOfSuccess(success))
    if cost is not None and limits.log_cap is not None:
        terms.append(_below_cap(cost, limits.log_cap))
    if cost_aware and cost is not None:
        box = encoder.box(X)
        level, top = _cost_level(encoder, box, cost, log_costs, limits, pool, rng)
        threshold = Staircase.build(log_costs, means, level, _Mean(cost))
        ceiling = level + max(_SLACK, 0.1 * (top - level))
        terms.append(CostBelow(cost, ceiling))
        members = front(predictor.training_mean(), log_costs[: len(X)])
        eligible = log_costs[: len(X)] <= ceiling
        reason = f"improves the front near {np.exp(level):.3g} cost"
    else:
        within = _affordable(log_costs, cost, limits)
        threshold = Staircase.build(np.zeros(int(within.sum())), means[within], 0.0, None)
        eligible = _affordable(log_costs[: len(X)], cost, limits)
        order = np.argsort(predictor.training_mean(), kind="stable")
        members = order[eligible[order]][:_CENTRES]
        box = encoder.box(X[members])
        reason = "improves the best loss"
    radii = _radii(predictor, encoder, region_scale(runs.loss, int(encoder.free.sum())))
    restrained = encoder.columns.decision if cost_aware else encoder.unbounded
    region = TrustRegion(X[members], np.maximum(_REGION * radii, _SMALLEST_REGION), restrained)
    acquisition = Sum((Improvement(belief, threshold, worlds), *terms, region))
    where = Region(
        *box,
        centers=X[members],
        radii=radii,
        extra=_scale_moves(encoder, predictor, X[members], rng) if cost_aware else X[:0],
        global_share=_GLOBAL_SHARE_FRONT if cost_aware else _GLOBAL_SHARE,
    )
    if pool is not None:
        choice = best_of(pool, acquisition.value(pool), taken)
    else:
        count = int(np.clip(_WORK / len(rows) ** 2, _CANDIDATES // 4, _CANDIDATES))
        choice = maximize(acquisition, encoder, where, taken, candidates=count, rng=rng)
    if not len(pending) and pool is None:
        again = _replicate(predictor, belief, X, eligible, choice.row)
        if again is not None:
            reason = f"repeats a front member: noise is what the {name} model doubts"
            return Suggestion(X[again], reason)
    if choice.repeated:
        reason = f"every other config of the {'space' if pool is None else 'pool'} was tried"
    return Suggestion(choice.row, f"{reason}: log-EI {choice.value:.2f} under the {name} model")


def _for_target(
    models: Models,
    predictor: ScalingPredictor,
    pending: Array,
    taken: Array,
    limits: CostLimits,
    pool: Array | None,
    target: Array,
    rng: np.random.Generator,
) -> Suggestion:
    """The row that lowers the expected regret at ``target`` most per unit of cost."""
    encoder, cost, success = models.encoder, models.cost(), models.success()
    at = np.ones((1, len(encoder.lower)))  # at full fidelity
    at[0, encoder.columns.scale] = target
    belief = predictor
    if len(pending):  # what a run teaches does not depend on its loss, so any will do
        belief = predictor.condition(pending, predictor.posterior(pending).mean)
    gain = TargetGain(belief, belief.loss.layout.scales(at)[0], cost)
    terms: list[Term] = [gain]
    if success is not None:
        terms.append(ProbabilityOfSuccess(success))
    if cost is not None and limits.log_cap is not None:
        terms.append(_below_cap(cost, limits.log_cap))
    acquisition = Sum(tuple(terms))
    if pool is not None:
        choice = best_of(pool, acquisition.value(pool), taken)
    else:
        members = np.argsort(predictor.training_mean(), kind="stable")[:_CENTRES]
        centers = models.runs.X[members]
        radii = np.full(len(encoder.lower), _WITHOUT_LENGTHS)
        extra = _scale_moves(encoder, predictor, centers, rng)
        box = encoder.box(centers)
        where = Region(*box, centers, radii, extra, global_share=_GLOBAL_SHARE)
        choice = maximize(acquisition, encoder, where, taken, candidates=_CANDIDATES, rng=rng)
    return Suggestion(
        choice.row,
        f"teaches most about the target per cost: expected regret there is {gain.regret:.3g}",
    )


def explore(
    models: Models,
    taken: Array,
    *,
    rng: np.random.Generator,
    pool: Array | None = None,
    candidates: int = 256,
) -> Suggestion:
    """Before any completed run: far from what was tried, where failure is least likely."""
    encoder = models.encoder
    X = pool
    if X is None:
        sample = qmc.Sobol(taken.shape[1], scramble=True, rng=rng).random(candidates)
        X = encoder.from_unit(sample, (encoder.lower, encoder.upper))
    score = np.zeros(len(X))
    success = models.success()
    if success is not None:
        score += success.log_probability(X)
    if len(taken):
        steps = X[:, None, :] - taken[None, :, :]
        score += np.log(np.min(np.mean(steps**2, axis=2), axis=1) + 1e-12) / 2.0
    return Suggestion(X[int(np.argmax(score))], "explores: nothing has been completed yet")


def _value_model(models: Models, index: int) -> tuple[GPPredictor, IntArray, str]:
    """The model of the loss that this ask uses, its rows, and its name."""
    if len(models.encoder.columns.scale):
        predictor, rows = models.scaling()
        return predictor, rows, "scaling"
    transform = CYCLE[index % len(CYCLE)]
    return *models.value(transform), transform.value


@dataclass(frozen=True, slots=True)
class _Mean:
    """The mean of a cost model, as fronts need it."""

    cost: CostPredictor

    def mean(self, X: Array) -> Array:
        return self.cost.posterior(X).mean


def _known_costs(log_costs: Array, X: Array, cost: CostPredictor | None) -> Array:
    """Observed ln costs, predicted where none was told; zeros without a cost model."""
    if cost is None:
        return np.zeros(len(X))
    missing = np.isnan(log_costs)
    known = log_costs.copy()
    if np.any(missing):
        known[missing] = cost.posterior(X[missing]).mean
    return known


def _below_cap(cost: CostPredictor, log_cap: float) -> CostBelow:
    """That a run stays below the cap, as sure as the cost model's own errors allow.

    Never surer than the model is itself: a run above the cap is lost, one below it is not won.
    """
    widening = Calibration.recent(cost, _CALIBRATED).shown(_CAP_COVERAGE) / _CAP_NORMAL
    return CostBelow(cost, log_cap, max(widening, 1.0))


def _affordable(
    log_costs: Array, cost: CostPredictor | None, limits: CostLimits
) -> NDArray[np.bool_]:
    """Which runs are within the cap, give or take their noise; all if none is.

    The others are no standard to beat: nothing that may be run reaches it.
    """
    everything = np.ones(len(log_costs), dtype=bool)
    if cost is None or limits.log_cap is None:
        return everything
    within = log_costs <= limits.log_cap + 2.0 * np.sqrt(cost.noise_variance)
    return within if within.any() else everything


def _cost_level(
    encoder: Encoder,
    box: Box,
    cost: CostPredictor,
    log_costs: Array,
    limits: CostLimits,
    pool: Array | None,
    rng: np.random.Generator,
) -> tuple[float, float]:
    """The cost level of this ask, and the highest one possible, both in ln.

    Levels run from the cheap end of the visited runs to the dearest run that the box (or the pool)
    and the cap allow. The cheap end is a share of the range, not of the runs as in CARBS: there
    dear runs raise it, the next runs are dearer still, and the cheap half of the front is never
    seen again.
    """
    within = pool
    if within is None:
        sample = qmc.Sobol(len(encoder.lower), scramble=True, rng=rng).random(128)
        within = encoder.from_unit(sample, box)
    reachable = cost.posterior(within).mean
    cheapest = float(np.min(log_costs))
    high = max(float(np.max(reachable)), float(np.max(log_costs)))
    if limits.log_cap is not None:
        high = min(high, limits.log_cap)
    low = min(cheapest + _CHEAP_SHARE * (high - cheapest), high)
    return low + limits.level * (high - low), high


def _radii(predictor: GPPredictor, encoder: Encoder, factor: float) -> Array:
    """``(d,)``: half a learned length times the region's factor, within sensible limits.

    A quarter of the box, where the model's kernel has no lengths in these columns.
    """
    numeric = encoder.columns.numeric
    radii = np.full(len(encoder.lower), _WITHOUT_LENGTHS)
    if isinstance(predictor.kernel, MaternHamming):
        radii[numeric] = _LENGTH_SHARE * predictor.kernel.lengths
    return np.clip(radii * factor, _NARROWEST, _WIDEST)


def _scale_moves(
    encoder: Encoder,
    predictor: GPPredictor,
    members: Array,
    rng: np.random.Generator,
    each: int = 8,
) -> Array:
    """Front members carried to other scales along the drift of the optimum, ``(k * each) x d``."""
    scale = encoder.columns.scale
    if not len(scale):
        return members[:0]
    X = np.repeat(members, each, axis=0)
    moved = X.copy()
    moved[:, scale] = rng.random((len(X), len(scale)))
    if isinstance(predictor, ScalingPredictor):
        moved = predictor.carried(X, moved)
    return encoder.snap(moved)


def _replicate(
    predictor: GPPredictor, belief: GPPredictor, X: Array, eligible: NDArray[np.bool_], row: Array
) -> int | None:
    """The visited row to measure again if that teaches more than the new ``row``, else None.

    Only the best of the ``eligible`` rows can be it: the front member at the level of this ask.
    The gain of either is the expected fall of the smallest posterior mean at that level (knowledge
    gradient), so the two are in the same unit. The noise is the model's, but never more than what
    repeats have shown: a model that cannot follow the function calls the rest noise, and repeats
    unmask it.
    """
    noise = min(predictor.noise_variance, _repeat_variance(X, predictor.y))
    least = _MIN_REPLICATED_NOISE * float(np.var(predictor.y))
    rows = np.flatnonzero(eligible)
    if noise <= least or len(rows) < 2:
        return None
    means = predictor.training_mean()[rows]
    best = int(np.argmin(means))
    rival = float(np.min(np.delete(means, best)))
    now, pair = float(means[best]), belief.posterior(np.stack([X[rows[best]], row]))
    again = knowledge_gradient(now, float(pair.variance[0]), noise, rival)
    new = knowledge_gradient(float(pair.mean[1]), float(pair.variance[1]), noise, now)
    return int(rows[best]) if again > new else None


def _repeat_variance(X: Array, y: Array) -> float:
    """Pooled variance of ``y`` within groups of equal rows; infinite while nothing was repeated."""
    _, group, counts = np.unique(X, axis=0, return_inverse=True, return_counts=True)
    freedom = len(y) - len(counts)
    if not freedom:
        return np.inf
    means = np.bincount(group, weights=y) / counts
    return float(np.sum((y - means[group]) ** 2) / freedom)
