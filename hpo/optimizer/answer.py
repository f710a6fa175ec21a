"""Where the answer of a recommendation lies: which settings, at one scale.

Without scale axes the answer minimizes the posterior mean plus one standard deviation over the
searched box, so that it stays where the model knows something. With them the law's optimum z* at
the target has a posterior of its own, `ScalingPredictor.optimum`:

* beyond the runs the numeric settings are its mean, wherever it lies, but for a nudge of 9 %;
* at their sizes the same cautious optimum as without a law, inside the 90 % band of z*;
* up to one e-fold beyond them a smooth mean of the two, by the logarithm of the extrapolation.

Only physical and hard bounds limit it (:attr:`~hpo.space.search_space.SearchSpace.extrapolated`).
Settings without any effect that the runs could show keep the value of the best run. An answer that
told runs beside it refute is replaced by the settings of the best run that they do not refute.

Notation: entries x as in :mod:`hpo.space.encoding`; a run is *followed* to the target when its
settings are moved along those slopes of z* whose 90 % interval excludes 0.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from hpo.acquisition import ProbabilityOfSuccess, Region, Sum, Term, maximize
from hpo.errors import SpaceError
from hpo.models.dataset import CompletedRuns
from hpo.models.fitted import Models
from hpo.models.intervals import extrapolation
from hpo.space import Float, Int, Role
from hpo.space.encoding import Encoder
from surrogates.base import Predictor
from surrogates.data import Array, IntArray
from surrogates.numerics import normal_half_width
from surrogates.scaling_law.coefficients import Optimum
from surrogates.scaling_law.model import ScalingPredictor
from surrogates.scaling_law.prior import relative_decisions
from surrogates.transforms import location_scale

_NINETY = normal_half_width(0.9)  # in standard deviations
_CAUTION = 1.0  # standard deviations added to the mean when choosing what to recommend
_NUDGE = math.log(1.09)  # natural units by which an answer may leave the law's optimum
_FAR_OUT = 1e6  # box widths; no law is read beyond
_LOOKED_THROUGH = 4096  # rows over the box, where `where` forbids the answer
_ROWS = 9  # along a setting, where its effect is looked for
_LITTLE = 0.5  # of a run's noise: an effect that may be smaller is none
_NEAR = 0.15  # of the tried range, root mean square over the settings: runs beside the answer
_WEIGHT = 0.1  # distance, likewise, at which a run's word has lost 40 % of its weight
_SURPRISED = 4.0  # standard deviations above the prediction that make a run a refutation
_WORSE = 0.5  # of median - best loss, likewise


@dataclass(frozen=True, slots=True)
class Refutation:
    """Told run that contradicts the model's own answer, and the run that replaces it.

    Attributes:
        near: Position of the refuting run among the completed ones; None if it failed.
        predicted: Loss that the model expected at the refuting run, smaller is better.
        best: Position of the run whose settings are taken instead.
        least: Least loss at the target that the run allows, smaller is better.
        row: 1 x d, its settings at the target.
    """

    near: int | None
    predicted: float
    best: int
    least: float
    row: Array


@dataclass(frozen=True, slots=True)
class Answer:
    """Settings to recommend at one scale.

    Attributes:
        row: 1 x d, encoded.
        no_effect: Columns of settings without any effect that the runs could show.
        refutation: Why the model's own answer was not taken; None if it was.
    """

    row: Array
    no_effect: IntArray
    refutation: Refutation | None


def answer(models: Models, model: Predictor, fixed: Array, rng: np.random.Generator) -> Answer:
    """Return the settings expected to do best at one scale.

    Args:
        models: Models of the log, of at least one completed run.
        model: Model of the loss, smaller is better.
        fixed: `(scales,)`, encoded values of the scale axes.
        rng: Source of the candidates.

    Raises:
        SpaceError: If `where` allows no config at that scale that can be found.
    """
    encoder, runs = models.encoder, models.answering
    scale = encoder.columns.scale
    losses = models.runs.loss
    unit = float(np.median(losses) - np.min(losses)) or location_scale(losses)[1]
    score = Cautious(model, scale, fixed, unit)
    visited = encoder.snap(at_scale(runs.X, scale, fixed), keep_scale=True)
    if isinstance(model, ScalingPredictor) and len(encoder.columns.decision):
        found = _LawAnswer(models, runs, model, fixed, unit, score).answer(rng)
    else:
        row = _best_row(models, encoder, score, visited, rng)
        found = Answer(at_scale(row, scale, fixed), np.zeros(0, dtype=np.intp), None)
    if encoder.space.where is None:
        return found
    return replace(found, row=_allowed_row(models, score, found.row, visited, rng))


def law_optimum(encoder: Encoder, model: ScalingPredictor, row: Array, fixed: Array) -> Optimum:
    """Return the posterior of the law's optimum at encoded scales `fixed`."""
    at = at_scale(row, encoder.columns.scale, fixed)
    return model.optimum(model.loss.layout.scales(at)[0])


def walls(encoder: Encoder) -> tuple[Array, Array]:
    """Return the least and largest entries that an answer may have, each `(d,)`.

    They are the physical bounds, and the declared ones of what is `hard`.
    """
    far = np.full(len(encoder.lower), _FAR_OUT)
    wide = encoder.within(-far, far)
    return wide.lower, wide.upper


def at_scale(X: Array, scale: IntArray, fixed: Array) -> Array:
    """Return the rows of `X` with the scale entries `fixed`."""
    moved = X.copy()
    moved[:, scale] = fixed
    return moved


@dataclass(frozen=True, slots=True)
class Cautious:
    """Minus (mean + some standard deviations) at fixed scale; a :class:`~hpo.acquisition.Term`.

    It is measured in multiples of `unit`, the loss that weighs as much as a factor e of P(success):
    an answer must not depend on the unit of the loss.
    """

    model: Predictor
    scale: IntArray
    fixed: Array
    unit: float
    caution: float = _CAUTION

    def value(self, X: Array) -> Array:
        """Return the term at the rows of `X`, `(m,)`."""
        p = self.model.posterior(at_scale(X, self.scale, self.fixed))
        return -(p.mean + self.caution * np.sqrt(p.variance)) / self.unit

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return the term and its derivatives at the rows of `X`."""
        p = self.model.posterior_gradient(at_scale(X, self.scale, self.fixed))
        sd = np.sqrt(np.maximum(p.variance, np.finfo(float).tiny))  # tiny losses: it underflows
        slope = -(p.d_mean + self.caution * p.d_variance / (2.0 * sd)[:, None])
        slope[:, self.scale] = 0.0
        return -(p.mean + self.caution * sd) / self.unit, slope / self.unit


def _best_row(
    models: Models, encoder: Encoder, score: Term, visited: Array, rng: np.random.Generator
) -> Array:
    """Return the best row of `score` and the probability of success together, 1 x d."""
    centers = visited[np.argsort(-score.value(visited), kind="stable")[:5]]
    success = models.success()
    if success is not None:
        score = Sum((score, ProbabilityOfSuccess(success)))
    lower, upper = encoder.box(centers)
    region = Region(
        lower,
        upper,
        centers=centers,
        radii=np.full(len(lower), 0.25),
        extra=encoder.snap(centers),
        global_share=0.5,
        candidates=1024,
    )
    return maximize(score, encoder, region, centers[:0], rng=rng).row[None, :]


def _allowed_row(
    models: Models, score: Cautious, row: Array, visited: Array, rng: np.random.Generator
) -> Array:
    """Return `row`, or the best row that `where` allows at the scale of the answer, 1 x d.

    It is looked for among the runs moved to that scale, over the searched box, and on the way from
    the best of these to `row`.
    """
    encoder = models.encoder
    scale, fixed = score.scale, score.fixed
    wide = encoder.within(np.minimum(row[0], encoder.lower), np.maximum(row[0], encoder.upper))
    if wide.allowed(row)[0]:
        return row
    U = rng.random((_LOOKED_THROUGH, len(encoder.lower)))
    spread = encoder.from_unit(U, encoder.box(visited))
    X = np.concatenate([visited, at_scale(spread, scale, fixed)])
    X = X[wide.allowed(X)]
    if not len(X):
        sizes = wide.decode(row)[0]
        at = {name: sizes[name] for name in encoder.space.scales}
        raise SpaceError(
            f"`where` ({encoder.space.where}) must allow some config{f' at {at}' if at else ''},"
            " got False for all that were tried; loosen it, or ask for another target"
        )
    success = models.success()
    total = Sum((score, *([] if success is None else [ProbabilityOfSuccess(success)])))
    best = X[[int(np.argmax(total.value(X)))]]
    way = best + np.linspace(0.0, 1.0, _ROWS)[:, None] * (row - best)
    codes = encoder.columns.categorical
    way[:, codes] = best[:, codes]
    way = wide.snap(way, keep_scale=True)
    X = np.concatenate([best, way[wide.allowed(way)]])
    return X[[int(np.argmax(total.value(X)))]]


@dataclass(frozen=True, slots=True)
class _LawAnswer:
    """The answer where there is a law of how the optimum moves."""

    models: Models
    runs: CompletedRuns
    model: ScalingPredictor
    fixed: Array
    unit: float
    score: Cautious

    @property
    def _encoder(self) -> Encoder:
        return self.models.encoder

    @property
    def _decisions(self) -> IntArray:
        return self._encoder.columns.decision

    def answer(self, rng: np.random.Generator) -> Answer:
        """Return the settings, checked against the told runs."""
        followed = self._followed(self.runs.X)
        best = followed[[int(np.argmin(self.model.mean(followed)))]]
        quiet = self._no_effect(best[0])
        row = self._row(followed, best[0], quiet, rng)
        refutation = self._refuted(row, quiet)
        if refutation is not None:
            row = refutation.row
        return Answer(row, quiet, refutation)

    def _row(
        self, followed: Array, best: Array, quiet: IntArray, rng: np.random.Generator
    ) -> Array:
        """Return the answer before it is checked, 1 x d."""
        encoder, scale = self._encoder, self._encoder.columns.scale
        low, high, law = self._band(followed)
        for ends in (low, high, law):
            ends[quiet] = best[quiet]
        beyond = float(np.clip(math.log(extrapolation(self.models, self.fixed)), 0.0, 1.0))
        share = beyond**2 * (3.0 - 2.0 * beyond)  # of the law; smooth at both ends
        row = best[None, :]
        if share < 1.0:
            inside = encoder.within(low, high)
            visited = inside.snap(followed)
            row = _best_row(self.models, inside, self.score, visited, rng)
        if share > 0.0:
            place = row[0].copy()
            place[self._decisions] += share * (law - place)[self._decisions]
            reach = self._nudge(quiet)
            there = encoder.within(place - reach, place + reach)
            row = _best_row(self.models, there, self.score, there.snap(followed), rng)
        return self._legal(at_scale(row, scale, self.fixed))

    def _nudge(self, quiet: IntArray) -> Array:
        """Return how far the answer may lie from the law's optimum beyond the runs, `(d,)`.

        Log and logit settings may by a factor of 1.09: the runs nearest to the optimum, followed to
        the target, say more about its last digits than the law does.
        """
        columns = self._encoder.columns
        reach = np.zeros(len(columns.kinds))
        loud = np.setdiff1d(self._decisions[relative_decisions(columns)], quiet)
        reach[loud] = _NUDGE / columns.width[loud]
        return reach

    def _legal(self, rows: Array) -> Array:
        """Return `rows` with legal settings inside the walls, at their own scales."""
        low, high = walls(self._encoder)
        decisions, legal = self._decisions, rows.copy()
        legal[:, decisions] = np.clip(rows, low, high)[:, decisions]
        wide = self._encoder.within(
            np.minimum(legal.min(axis=0), low * 0.0), np.maximum(legal.max(axis=0), low * 0.0 + 1.0)
        )
        return wide.snap(legal, keep_scale=True)

    def _band(self, followed: Array) -> tuple[Array, Array, Array]:
        """Return the ends of where to search inside the data, and the law's optimum, each `(d,)`.

        The ends are those of the law's 90 % band, as far as it overlaps with what was tried; where
        it does not, both are its nearer end.
        """
        columns, decisions = self._encoder.columns, self._decisions
        optimum = law_optimum(self._encoder, self.model, followed[:1], self.fixed)
        least, most = walls(self._encoder)
        low, high = followed.min(axis=0), followed.max(axis=0)
        law = followed[0].copy()
        origin, width = columns.origin[decisions], columns.width[decisions]
        mean = (optimum.mean - origin) / width
        half = _NINETY * np.sqrt(np.diagonal(optimum.covariance)) / width
        first, last = (
            np.maximum(low[decisions], mean - half),
            np.minimum(high[decisions], mean + half),
        )
        apart = first > last
        nearer = np.where(low[decisions] > mean, mean + half, mean - half)
        low[decisions] = np.where(apart, nearer, first)
        high[decisions] = np.where(apart, nearer, last)
        law[decisions] = mean
        ends = (np.clip(end, least, most) for end in (low, high, law))
        return next(ends), next(ends), next(ends)

    def _slopes(self) -> Array:
        """Return the identified slopes of the optimum, decisions x axes, box widths per e-fold."""
        width = self._encoder.columns.width[self._decisions]
        slopes = np.zeros((len(width), len(self.model.loss.layout.axes)))
        for j, row in enumerate(self.model.law().drift):
            for a, slope in enumerate(row):
                if abs(slope.mean) > _NINETY * slope.sd:
                    slopes[j, a] = slope.mean / width[j]
        return slopes

    def _followed(self, X: Array) -> Array:
        """Return the rows followed to the target, with legal settings."""
        moved = at_scale(X, self._encoder.columns.scale, self.fixed)
        scales = self.model.loss.layout.scales
        moved[:, self._decisions] += (scales(moved) - scales(X)) @ self._slopes().T
        return self._legal(moved)

    def _no_effect(self, best: Array) -> IntArray:
        """Return the columns of settings whose effect the runs do not show, `(k,)`.

        Two things must agree: what the bowl costs from its bottom to the end of the tried range,
        and how much the posterior mean differs along that range at the middle of the sizes; both by
        the lower end of their 90 % intervals. What a transfer rule says something about is left to
        the rule.
        """
        encoder, model, runs = self._encoder, self.model, self.runs
        none: IntArray = np.zeros(0, dtype=np.intp)
        if len(runs) < 2 * len(self._decisions):
            return none
        layout = model.loss.layout
        middle = at_scale(best[None, :], encoder.columns.scale, self._middle())
        low, high = runs.X.min(axis=0), runs.X.max(axis=0)
        sd = np.sqrt(np.diagonal(model.coefficients()[1]))[layout.log_curvature]
        curvature = np.diagonal(model.loss.curvature_at(layout.scales(middle)[0]))
        cost = 0.5 * curvature * (0.5 * (high - low)[self._decisions]) ** 2
        slopes = model.prior.mean[layout.drift].reshape(len(self._decisions), -1)
        ruled = np.any(slopes != 0.0, axis=1).tolist()
        least = _LITTLE * math.sqrt(model.noise_variance)
        quiet = []
        for j, column in enumerate(self._decisions.tolist()):
            parameter = encoder.space[encoder.columns.names[column]]
            role = None if not isinstance(parameter, Float | Int) else parameter.role
            if ruled[j] or role in (Role.LR, Role.BATCH):
                continue
            if cost[j] * (1.0 - _NINETY * sd[j]) > least:
                continue
            line = np.repeat(middle, _ROWS, axis=0)
            line[:, column] = np.linspace(low[column], high[column], _ROWS)
            seen = model.joint_posterior(line)
            ends = [int(np.argmin(seen.mean)), int(np.argmax(seen.mean))]
            variance = seen.covariance[np.ix_(ends, ends)]
            spread = math.sqrt(max(variance[0, 0] + variance[1, 1] - 2.0 * variance[0, 1], 0.0))
            if float(np.ptp(seen.mean)) - _NINETY * spread <= least:
                quiet.append(column)
        return np.array(quiet, dtype=np.intp)

    def _middle(self) -> Array:
        return np.asarray(np.mean(self.runs.X[:, self._encoder.columns.scale], axis=0))

    def _refuted(self, row: Array, quiet: IntArray) -> Refutation | None:
        """Return the run that refutes `row` and the one to take instead; None if it stands.

        Runs are compared with it once followed to the target and once where they are: a law whose
        bowl is wrong has a wrong drift, too. For the same reason the run whose settings are taken
        is followed to the target only where no completed run refutes the law.
        """
        runs, model = self.runs, self.model
        own = model.posterior(runs.X)
        margin = np.maximum(
            _SURPRISED * np.sqrt(own.variance + model.noise_variance), _WORSE * self.unit
        )
        slopes = self._slopes()
        views = [_View(self, quiet, own.mean, margin, slopes, counts_failures=True)]
        if slopes.any():
            still = np.zeros_like(slopes)
            views.append(_View(self, quiet, own.mean, margin, still, counts_failures=False))
        near = next((n for view in views if (n := view.refuter(row)) is not None), None)
        if near is None:
            return None
        completed = near < len(runs)
        at_target = at_scale(runs.X, self._encoder.columns.scale, self.fixed)
        settings = at_target if completed else self._followed(runs.X)
        order = np.argsort(runs.loss, kind="stable").tolist()
        best = next(
            (i for i in order if all(v.refuter(settings[[i]]) is None for v in views)), order[0]
        )
        row = settings[[best]]
        gain = float(model.loss.floor(runs.X[[best]])[0] - model.loss.floor(row)[0])
        return Refutation(
            near if completed else None,
            float(own.mean[near]) if completed else math.nan,
            best,
            float(runs.loss[best]) - gain,
            row,
        )


@dataclass(frozen=True, slots=True)
class _View:
    """The told runs beside an answer, once they are moved along `slopes`.

    A completed run refutes the model where its loss is far above what the model expects at its own
    config, and far above what it expects at the answer's place at the run's size. A failed one
    does where it is followed to the target: what fails at one size need not at another. They refute
    an answer if they outweigh the runs that did well near it or, for an answer outside of what was
    tried, near the closest place inside.
    """

    law: _LawAnswer
    quiet: IntArray
    own_mean: Array
    margin: Array
    slopes: Array
    counts_failures: bool

    def refuter(self, row: Array) -> int | None:
        """Return the position of the nearest run that refutes `row`, failed ones last, or None."""
        law, runs = self.law, self.law.runs
        columns, decisions = law.models.encoder.columns, law.models.encoder.columns.decision
        scales = law.model.loss.layout.scales
        X, success = law.models.outcomes
        failed = X[success == 0.0] if self.counts_failures else X[:0]
        rows = np.concatenate([runs.X, failed])
        moved = at_scale(rows, columns.scale, law.fixed)
        moved[:, decisions] += (scales(moved) - scales(rows)) @ self.slopes.T
        inside = row.copy()
        inside[:, decisions] = np.clip(row, moved.min(axis=0), moved.max(axis=0))[:, decisions]
        distance = self._distance(inside, moved)
        place = np.repeat(inside, len(runs), axis=0)
        place[:, columns.scale] = runs.X[:, columns.scale]
        place[:, decisions] += (scales(place) - scales(inside)) @ self.slopes.T
        poor = runs.loss > law.model.mean(place) + self.margin
        surprising = runs.loss > self.own_mean + self.margin
        all_failed = np.ones(len(failed), dtype=bool)
        refuting = np.append(surprising & poor, all_failed) & (distance < _NEAR)
        supporting = np.append(~poor, ~all_failed)
        weight = np.exp(-0.5 * (distance / _WEIGHT) ** 2)
        if weight[refuting].sum() <= weight[supporting].sum():
            return None
        return int(np.argmin(np.where(refuting, distance, math.inf)))

    def _distance(self, row: Array, moved: Array) -> Array:
        """Return how far each moved run is from `row`, in tried ranges; inf in another category.

        It is the root mean square over the settings that have an effect.
        """
        columns = self.law.models.encoder.columns
        loud = np.setdiff1d(columns.decision, self.quiet)
        if not len(loud):
            return np.full(len(moved), math.inf)
        reach = np.maximum(np.ptp(moved[:, loud], axis=0), 1e-9)
        distance = np.sqrt(np.mean(((moved[:, loud] - row[0, loud]) / reach) ** 2, axis=1))
        same = np.all(moved[:, columns.categorical] == row[0, columns.categorical], axis=1)
        return np.where(same, distance, math.inf)
