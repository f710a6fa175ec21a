"""Bayesian extrapolation of learning curves, calibrated from the first reports of a study on.

Notation, for one run reported at levels `t_1 < .. < t_n` (epochs, steps; n may be 0):

==========  =======================================================================================
`y(t)`      what a run reports at level t, smaller is better
`z`         `w(y)`, y under the study's `LossWarp`: standardized, logarithmic near the floor
`low`       first level of a run, where every shape is 0
`high`      level at which a run is complete, where every shape is 1; later ones may be asked too
`phi_j`     shape j: a power law, an exponential, or a log-power (Hill) curve
`s`         how much a run moves, `tau` how it strays from its shape, `sigma` its own noise
==========  =======================================================================================

A *cell* (j, s, tau, sigma) is a Gaussian process with three linear coefficients::

    z(t) = v + s d phi_j(t) + s r (t - low) / (high - low) + tau W(u(t)) + sigma e(t)
    (v, d, r) ~ N(mu, Sigma),    u(t) = ln(t / low) / ln(high / low),    W a Wiener process

v is where the run starts, d its way down, r a drift up (overfitting). The coefficients are
integrated out, so the posterior of a cell is Gaussian in closed form, and the posterior of a run is
the mixture of all cells under the weights `pi_j rho_(s,tau,sigma) p(z | cell)^TEMPER`.

What runs of one study share is learned from all their reports, finished or not, by a few steps of
expectation maximization: mu and Sigma under a normal-inverse-Wishart prior, pi and rho under
Dirichlet priors. It is a mixture of experts over the parametric families of Domhan et al. (2015)
with the coefficients of a hierarchical linear model (Gelman et al. 2013, ch. 15) and a random walk
in log time where theirs has independent errors.

Two measures guard against curves that follow no formula (docs/appendix/curves.md has figures): a
run is read at no more than `REPORTS` levels, spread evenly in log time, and its likelihood is
tempered. With every report and no tempering, a smooth early stretch fixes a shape with far too much
certainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import logsumexp, ndtr

from surrogates.base import JointPosterior, Posterior
from surrogates.data import Array

REPORTS = 6  # levels at which a run is read
TEMPER = 0.6  # power of the likelihood in the weights of the cells

_POWERS = tuple(product((0.05, 0.3, 0.7, 1.2, 2.0, 4.0), (0.0, 3.0)))  # exponent, offset in low
_TIMES = tuple(np.linspace(0.1, 1.2, 8))  # of exponentials, as u
_MIDDLES = tuple(product(np.linspace(0.0, 1.2, 9), (1.0, 2.0, 4.0)))  # of Hill curves, as u; slope

_SHAPES = len(_POWERS) + len(_TIMES) + len(_MIDDLES)
_S = np.array([0.1, 0.3, 1.0, 2.0])
_TAU = np.array([0.003, 0.03, 0.1, 0.3, 1.0])
_SIGMA = np.array([0.001, 0.01, 0.03, 0.1, 0.3])
_SCALES = (len(_S), len(_TAU), len(_SIGMA))
_CELLS = (_SHAPES, *_SCALES)
_COUNT = int(np.prod(_CELLS))

_COEFFICIENTS = np.array([0.5, -1.0, 0.0])  # prior mean of (v, d, r)
_SPREAD = np.array([1.5, 1.5, 0.3])  # and its sds
_MEAN_STRENGTH = 1.0  # of the prior of mu, in runs
_SPREAD_STRENGTH = 4.0  # of the prior of Sigma
_CELL_STRENGTH = 20.0  # of the priors of pi and rho

_FLOOR = 0.3  # distance from best report to floor, in distances from best to median report
_UPPER_KNEE = 0.9  # quantile of the reports above which the warp is a line
_NEGLIGIBLE = 1e-3  # joint weight of the lightest cells, which a prediction leaves out
_BISECTIONS = 40
_NODES, _NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(3)
_STEPS = (np.arange(64) + 0.5) / 64


@dataclass(frozen=True, slots=True)
class Curve:
    """Reports of one run, in order of level.

    Reports may come in any order. Of several at one level the last one given counts; reports that
    are not finite are dropped.

    Args:
        levels: `(k,)`, positive.
        values: `(k,)`, smaller is better.

    Raises:
        ValueError: on shapes that disagree, or a level that is not positive and finite.

    Example:
        >>> curve = Curve([3, 1, 2, 1], [0.3, 9.0, 0.5, 0.7])
        >>> curve.levels.tolist(), curve.values.tolist()
        ([1.0, 2.0, 3.0], [0.7, 0.5, 0.3])
    """

    levels: Array
    values: Array

    def __post_init__(self) -> None:
        levels = np.array(self.levels, dtype=np.float64)
        values = np.array(self.values, dtype=np.float64)
        if levels.ndim != 1 or levels.shape != values.shape:
            raise ValueError(
                f"`levels` and `values` must be (k,) alike, got {levels.shape} and {values.shape};"
                " give one value per level"
            )
        bad = np.flatnonzero(~(np.isfinite(levels) & (levels > 0)))
        if len(bad):
            raise ValueError(
                f"`levels` must be positive and finite, got {levels[bad[0]]} at position {bad[0]};"
                " count epochs or steps from 1"
            )
        kept = np.isfinite(values)
        # unique() keeps the first of equals: read backwards, that is the report given last
        unique, position = np.unique(levels[kept][::-1], return_index=True)
        object.__setattr__(self, "levels", unique)
        object.__setattr__(self, "values", values[kept][::-1][position])

    def __len__(self) -> int:
        return len(self.levels)

    def thinned(self, reports: int) -> Curve:
        """Return at most `reports` of the reports, evenly in log level, both ends included."""
        if len(self) <= reports:
            return self
        logs = np.log(self.levels)
        wanted = np.linspace(logs[-1], logs[0], reports)
        nearest = np.unique(np.argmin(np.abs(logs[:, None] - wanted), axis=0))
        return Curve(self.levels[nearest], self.values[nearest])


@dataclass(frozen=True, slots=True)
class LossWarp:
    """The map `z = (ln(y - floor) - location) / scale` between the knees, lines outside.

    Losses fall by ratios of what is left rather than by differences: in logarithms the held-out
    error of the end was a quarter smaller. The lines keep the map smooth and increasing for every
    y: below, when a report is better than anything the floor was chosen from; above, so that a
    rising run is continued by differences, where ratios would extrapolate it to absurd losses.

    Args:
        floor: loss that is never reached by the logarithm.
        lower_knee: loss below which the map is a line.
        upper_knee: loss above which the map is a line.
        location: mean of the logarithms.
        scale: standard deviation of the logarithms.

    Example:
        >>> warp = LossWarp.of(np.array([0.2, 0.3, 0.5, 1.0]))
        >>> warp.invert(warp.apply(np.array([0.25]))).round(6).tolist()
        [0.25]
    """

    floor: float
    lower_knee: float
    upper_knee: float
    location: float
    scale: float

    @classmethod
    def of(cls, values: Array) -> LossWarp:
        """Return the warp of a study's values, at least one."""
        best, median, high, worst = np.quantile(values, [0.0, 0.5, _UPPER_KNEE, 1.0])
        resolution = max(1e-12 * abs(best), 1e-12 * abs(worst), 1e-150)
        widths = (median - best, worst - best, abs(median), 1.0)  # the later for constant values
        width = next(w for w in widths if w > resolution)
        floor = float(best - _FLOOR * width)
        lower_knee = float(best - 0.5 * _FLOOR * width)
        plain = cls(floor, lower_knee, float(high), 0.0, 1.0)
        low, middle, high = np.quantile(plain.apply(values), [0.1, 0.5, 0.9])
        # 2.56 sds lie between the 10 % and 90 % quantiles of a normal law
        spread = float(high - low) / 2.56
        return cls(
            floor, lower_knee, plain.upper_knee, float(middle), spread if spread > 1e-6 else 1.0
        )

    def apply(self, y: Array) -> Array:
        """Return z at the values `y`."""
        logs = np.log(np.clip(y, self.lower_knee, self.upper_knee) - self.floor)
        logs += np.minimum(y - self.lower_knee, 0.0) / (self.lower_knee - self.floor)
        logs += np.maximum(y - self.upper_knee, 0.0) / (self.upper_knee - self.floor)
        return np.asarray((logs - self.location) / self.scale)

    def invert(self, z: Array) -> Array:
        """Return y at the values `z`."""
        logs = self.location + self.scale * z
        foot, head = self.lower_knee - self.floor, self.upper_knee - self.floor
        y = self.lower_knee + foot * np.expm1(
            np.clip(logs, np.log(foot), np.log(head)) - np.log(foot)
        )
        y += foot * np.minimum(logs - np.log(foot), 0.0)
        return np.asarray(y + head * np.maximum(logs - np.log(head), 0.0))


class EndDistribution(Protocol):
    """Predictive distribution of one run's reports at m levels.

    Example:
        >>> def beats(end: EndDistribution, best: float) -> bool:
        ...     return bool(end.probability_below(best)[0] > 0.5)
    """

    def probability_below(self, value: float) -> Array:
        """Return P(y < value), `(m,)`."""
        ...

    def quantile(self, p: float) -> Array:
        """Return the p-quantile of y, `(m,)`; 0 < p < 1."""
        ...


@dataclass(frozen=True, slots=True)
class CurveDistribution:
    """Predictive distribution of a run's reports at m levels: a warped mixture of c normals.

    Args:
        weight: `(c,)`, weights of the components, sum 1.
        mean: `m x c`, means of z.
        sd: `m x c`, standard deviations of z.
        warp: map from y to z.

    Example:
        >>> warp = LossWarp(0.0, 1e-9, 1e9, 0.0, 1.0)
        >>> end = CurveDistribution(np.ones(1), np.zeros((1, 1)), np.ones((1, 1)), warp)
        >>> end.quantile(0.5).round(3).tolist(), end.probability_below(1.0).tolist()
        ([1.0], [0.5])
    """

    weight: Array
    mean: Array
    sd: Array
    warp: LossWarp

    def probability_below(self, value: float) -> Array:
        """Return P(y < value), `(m,)`."""
        z = self.warp.apply(np.array(value, dtype=np.float64))
        return np.asarray(ndtr((z - self.mean) / self.sd) @ self.weight)

    def quantile(self, p: float) -> Array:
        """Return the p-quantile at each level, `(m,)`.

        Raises:
            ValueError: unless 0 < p < 1.
        """
        if not 0.0 < p < 1.0:
            raise ValueError(f"`0 < p < 1` must hold, got {p!r}; quantiles at 0 and 1 are infinite")
        return self.warp.invert(self._quantile(p))

    def posterior(self) -> Posterior:
        """Return mean and variance with the outer half percents moved to their quantiles.

        The variance includes the noise of a report. Without the cut, a cell of small weight and
        large spread could carry the mean of the exponential off.
        """
        moments = []
        ends = zip(self._quantile(0.005), self._quantile(0.995), strict=True)
        for mean, sd, (low, high) in zip(self.mean, self.sd, ends, strict=True):
            # integrated over steps that are small where there is mass, by quantiles of the mixture
            # with each normal replaced by three Gauss-Hermite nodes, and nowhere large
            nodes = (mean + sd * _NODES[:, None]).ravel()
            order = np.argsort(nodes)
            mass = np.cumsum((_NODE_WEIGHTS[:, None] * self.weight).ravel()[order])
            steps = nodes[order][np.searchsorted(mass, _STEPS * mass[-1])]
            z = np.sort(np.clip(np.concatenate([steps, np.linspace(low, high, 32)]), low, high))
            F = ndtr((z[:, None] - mean) / sd) @ self.weight
            y = self.warp.invert(z)
            middles = np.concatenate([y[:1], 0.5 * (y[1:] + y[:-1]), y[-1:]])
            masses = np.diff(np.concatenate([[0.0], F, [1.0]]))
            center = masses @ middles
            moments.append((center, masses @ (middles - center) ** 2))
        found = np.array(moments)
        return Posterior(found[:, 0], found[:, 1])

    def _quantile(self, p: float) -> Array:
        """Return the p-quantile of z, `(m,)`.

        It is found by bisection between the lowest and highest quantile of any cell.
        """
        reach = 1.0 + np.sqrt(-2.0 * np.log(min(p, 1.0 - p)))  # more sds than any normal quantile
        low, high = (self.mean - reach * self.sd).min(1), (self.mean + reach * self.sd).max(1)
        for _ in range(_BISECTIONS):
            middle = 0.5 * (low + high)
            below = ndtr((middle[:, None] - self.mean) / self.sd) @ self.weight < p
            low, high = np.where(below, middle, low), np.where(below, high, middle)
        return np.asarray(0.5 * (low + high))


@dataclass(frozen=True, slots=True)
class CurveModel:
    """Prior of the runs of a study; `fit` makes a `CurvePredictor`.

    Args:
        low: first level, > 0; no report may lie below it.
        high: level of a complete run, > low.
        steps: number of EM steps; 0 keeps the prior, and learns only the warp.
        max_runs: number of runs beyond which a sample is used, evenly from the shortest to the
            longest, so that runs stopped early are represented.

    Raises:
        ValueError: unless `0 < low < high`.

    Example:
        >>> levels = np.arange(1.0, 28.0)
        >>> done = Curve(levels, 0.3 + levels**-0.7)
        >>> partial = Curve(levels[:3], 0.4 + levels[:3] ** -0.7)
        >>> predictor = CurveModel(low=1, high=27, steps=2).fit([done, partial])
        >>> end = predictor.predict(partial, 27)
        >>> bool(done.values[-1] < end.quantile(0.5)[0] < partial.values[-1])
        True
    """

    low: float
    high: float
    steps: int = 6
    max_runs: int = 64

    def __post_init__(self) -> None:
        if not 0.0 < self.low < self.high < np.inf:
            raise ValueError(
                f"`0 < low < high` must hold, got low={self.low}, high={self.high};"
                " give the first level of a run and that of a complete one"
            )

    def fit(self, curves: Sequence[Curve]) -> CurvePredictor:
        """Learn what the runs share.

        Runs read at the same levels are handled together: 3 ms per step and distinct set of levels.

        Args:
            curves: reports of each run; runs without any are left out.

        Raises:
            ValueError: without any report, or with one below `low`.
        """
        curves = [curve for curve in curves if len(curve)]
        if not curves:
            raise ValueError("`curves` must hold a finite report; wait for the first one")
        for curve in curves:
            _check_above(curve.levels, self.low)
        warp = LossWarp.of(np.concatenate([curve.values for curve in curves]))
        order = sorted(range(len(curves)), key=lambda i: len(curves[i]))
        if len(order) > self.max_runs:
            ranks = np.linspace(0, len(order) - 1, self.max_runs).round().astype(int)
            order = [order[rank] for rank in ranks]
        groups: dict[tuple[float, ...], list[Array]] = {}  # runs read at the same levels
        for i in order:
            read = curves[i].thinned(REPORTS)
            groups.setdefault(tuple(read.levels), []).append(warp.apply(read.values))
        read_alike = [(np.array(levels), np.array(z)) for levels, z in groups.items()]
        shared = SharedParameters.prior()
        for _ in range(self.steps):
            shared = shared.em_step(read_alike, self.low, self.high)
        return CurvePredictor(self.low, self.high, warp, shared)


@dataclass(frozen=True, slots=True)
class SharedParameters:
    """Parameters that all runs of a study share.

    Args:
        mu: `(3,)`, mean of the coefficients (v, d, r).
        covariance: `3 x 3`, their covariance.
        log_shapes: `(J,)`, ln pi.
        log_scales: `S x T x N`, ln rho, over s, tau and sigma.

    Example:
        >>> SharedParameters.prior().mu.tolist()
        [0.5, -1.0, 0.0]
    """

    mu: Array
    covariance: Array
    log_shapes: Array
    log_scales: Array

    @classmethod
    def prior(cls) -> SharedParameters:
        """Return the parameters before any run."""
        return cls(
            _COEFFICIENTS,
            np.diag(_SPREAD**2),
            np.full(_SHAPES, -np.log(_SHAPES)),
            np.full(_SCALES, -np.log(np.prod(_SCALES))),
        )

    def em_step(
        self, groups: Sequence[tuple[Array, Array]], low: float, high: float
    ) -> SharedParameters:
        """Return the parameters after one step of expectation maximization.

        Args:
            groups: levels `(n,)` and z `runs x n` of the runs read at the same levels.
            low: first level.
            high: level of a complete run.
        """
        runs = 0
        first, second = np.zeros(3), np.zeros((3, 3))
        shapes = np.full(_SHAPES, _CELL_STRENGTH / _SHAPES)
        scales = np.full(_SCALES, _CELL_STRENGTH / np.prod(_SCALES))
        for levels, z in groups:
            cells = Cells.at(self, levels, np.empty(0), low, high)
            seen = cells.whitened(z)
            weight = cells.weights(seen)
            step = np.einsum("pkc,krc->prc", cells.coefficients, seen)
            runs += len(z)
            first += np.einsum("rc,prc->p", weight, step)
            second += np.einsum("rc,prc,qrc->pq", weight, step, step, optimize=True)
            known = np.einsum("c,pkc,qkc->pq", weight.sum(0), *[cells.coefficients] * 2)
            second += len(z) * self.covariance - known
            by_cell = weight.sum(0).reshape(_CELLS)
            shapes += by_cell.sum((1, 2, 3))
            scales += by_cell.sum(0)
        # moments about this step's mu; the maximum under the normal-inverse-Wishart prior
        away = _COEFFICIENTS - self.mu
        move = (first + _MEAN_STRENGTH * away) / (runs + _MEAN_STRENGTH)
        about = second - np.outer(first, move) - np.outer(move, first) + runs * np.outer(move, move)
        prior = _SPREAD_STRENGTH * np.diag(_SPREAD**2)
        prior += _MEAN_STRENGTH * np.outer(move - away, move - away)
        return SharedParameters(
            self.mu + move,
            (about + prior) / (runs + _SPREAD_STRENGTH),
            np.log(shapes / shapes.sum()),
            np.log(scales / scales.sum()),
        )


@dataclass(frozen=True, slots=True)
class Cells:
    """All c cells given reports at n levels, before the values are known.

    Everything follows from one Cholesky factor per cell, `K = L L^T` over the reports, continued by
    the rows of what is asked: `cov(asked, reports) L^-T`.

    Args:
        prior: `(n + m) x c`, prior mean at the reports, then at the m asked levels.
        factor: `n x n x c`, L; entries above the diagonal are not used.
        asked: `m x n x c`, its continuation by the asked levels.
        coefficients: `3 x n x c`, its continuation by (v, d, r).
        variance: `m x c`, variance of a report at the asked levels, given those seen.
        log_prior: `(c,)`, ln pi + ln rho.

    Example:
        >>> levels, asked = np.array([1.0, 2.0]), np.array([10.0])
        >>> cells = Cells.at(SharedParameters.prior(), levels, asked, 1.0, 10.0)
        >>> weights = cells.weights(cells.whitened(np.array([[0.5, 0.1]])))
        >>> round(float(weights.sum()), 6)
        1.0
    """

    prior: Array
    factor: Array
    asked: Array
    coefficients: Array
    variance: Array
    log_prior: Array

    @classmethod
    def at(
        cls, shared: SharedParameters, levels: Array, asked: Array, low: float, high: float
    ) -> Cells:
        """Factorize all cells.

        Args:
            shared: parameters of the study.
            levels: `(n,)`, levels of the reports.
            asked: `(m,)`, levels to predict.
            low: first level.
            high: level of a complete run.
        """
        n, m = len(levels), len(asked)
        every = np.concatenate([levels, asked])
        basis = _basis(every, low, high)  # (n + m) x 3 x J
        amount = np.stack([np.ones_like(_S), _S, _S])  # 3 x S, what s multiplies
        mean = np.einsum("ipj,ps,p->ijs", basis, amount, shared.mu)
        # covariance of (v, d, r) with the reports, then of all levels with them
        beside = np.einsum("pq,qs,kqj->pkjs", shared.covariance, amount, basis[:n])
        linear = np.einsum("ipj,ps,pkjs->ikjs", basis, amount, beside, optimize=True)
        own = np.einsum(
            "ipj,ps,pq,qs,iqj->ijs", basis, amount, shared.covariance, amount, basis, optimize=True
        )
        u = _log_time(every, low, high)
        walk = np.minimum(u[:, None], u[:n])[:, :, None, None] * (_TAU**2)[:, None]
        walk = np.broadcast_to(walk, (n + m, n, len(_TAU), len(_SIGMA))).copy()
        walk[np.arange(n), np.arange(n)] += _SIGMA**2
        K = linear[..., None, None] + walk[:, :, None, None]
        rows = np.concatenate([K, np.broadcast_to(beside[..., None, None], (3, n, *_CELLS))])
        factor = _continued_cholesky(rows.reshape(n + m + 3, n, _COUNT))
        alone = u[n:, None, None] * (_TAU**2)[:, None] + _SIGMA**2
        total = (own[n:, :, :, None, None] + alone[:, None, None]).reshape(m, _COUNT)
        variance = total - np.sum(factor[n : n + m] ** 2, axis=1)
        log_prior = shared.log_shapes[:, None, None, None] + shared.log_scales
        spread = np.broadcast_to(mean[..., None, None], (n + m, *_CELLS)).reshape(n + m, _COUNT)
        return cls(
            spread,
            factor[:n],
            factor[n : n + m],
            factor[n + m :],
            np.maximum(variance, _SIGMA[0] ** 2),
            log_prior.ravel(),
        )

    def whitened(self, z: Array) -> Array:
        """Return `L^-1 (z - prior)`, `n x runs x c`, for `z` `runs x n`."""
        n = len(self.factor)
        e = z.T[:, :, None] - self.prior[:n, None]
        for k in range(n):
            e[k] -= np.einsum("ic,irc->rc", self.factor[k, :k], e[:k])
            e[k] /= self.factor[k, k]
        return np.asarray(e)

    def weights(self, e: Array) -> Array:
        """Return the posterior weights of the cells, `runs x c`, each row of sum 1."""
        diagonal = self.factor[np.arange(len(e)), np.arange(len(e))]
        log_density = -0.5 * np.sum(e**2, axis=0) - np.sum(np.log(diagonal), axis=0)
        logs = TEMPER * log_density + self.log_prior
        return np.asarray(np.exp(logs - logsumexp(logs, axis=1, keepdims=True)))


@dataclass(frozen=True, slots=True)
class CurvePredictor:
    """Predictions of any run of a study.

    A run that has grown needs no new fit: hand over its longer curve.

    Args:
        low: first level.
        high: level of a complete run.
        warp: map from y to z.
        shared: parameters that the runs share.

    Example:
        >>> levels = np.arange(1.0, 10.0)
        >>> curve = Curve(levels, 0.3 + 1.0 / levels)
        >>> predictor = CurveModel(low=1, high=9, steps=1).fit([curve])
        >>> predictor.predict(curve, [9, 18]).quantile(0.9).shape
        (2,)
    """

    low: float
    high: float
    warp: LossWarp
    shared: SharedParameters

    def predict(self, curve: Curve, levels: ArrayLike) -> CurveDistribution:
        """Return the predictive distribution of a run's reports at `levels`.

        Args:
            curve: reports so far; without any, the prediction of a run not yet started.
            levels: `(m,)` or a single level, at or above `low`.

        Raises:
            ValueError: if a level or a report lies below `low`.
        """
        asked = np.atleast_1d(np.asarray(levels, dtype=np.float64))
        cells, seen, weight = self._given(curve, asked)
        order = np.argsort(weight)
        kept = order[np.cumsum(weight[order]) > _NEGLIGIBLE]
        mean = cells.prior[-len(asked) :, kept] + np.einsum(
            "ikc,kc->ic", cells.asked[..., kept], seen[:, kept]
        )
        sd = np.sqrt(cells.variance[:, kept])
        return CurveDistribution(weight[kept] / weight[kept].sum(), mean, sd, self.warp)

    def sample(
        self, curve: Curve, levels: ArrayLike, count: int, *, rng: np.random.Generator
    ) -> Array:
        """Return `count x m` joint draws of a run's reports at `levels`.

        Args:
            curve: reports so far.
            levels: `(m,)` or a single level, at or above `low`.
            count: number of draws.
            rng: source of randomness.

        Raises:
            ValueError: as `predict`.
        """
        asked = np.atleast_1d(np.asarray(levels, dtype=np.float64))
        cells, seen, weight = self._given(curve, asked)
        z = np.empty((count, len(asked)))
        drawn = rng.choice(len(weight), size=count, p=weight)
        for cell in np.unique(drawn):
            mine = drawn == cell
            known = cells.asked[:, :, cell]
            joint = JointPosterior(
                cells.prior[-len(asked) :, cell] + known @ seen[:, cell],
                self._covariance(asked, int(cell)) - known @ known.T,
            )
            z[mine] = joint.sample(int(mine.sum()), rng)
        return self.warp.invert(z)

    def _given(self, curve: Curve, asked: Array) -> tuple[Cells, Array, Array]:
        """Return the cells, the whitened reports `n x c` and the weights `(c,)`."""
        _check_above(np.concatenate([curve.levels, asked]), self.low)
        read = curve.thinned(REPORTS)
        cells = Cells.at(self.shared, read.levels, asked, self.low, self.high)
        seen = cells.whitened(self.warp.apply(read.values)[None])
        return cells, seen[:, 0], cells.weights(seen)[0]

    def _covariance(self, levels: Array, cell: int) -> Array:
        """Return the prior covariance of the reports at m levels under one cell, `m x m`."""
        j, s, tau, sigma = np.unravel_index(cell, _CELLS)
        basis = _basis(levels, self.low, self.high)[:, :, j] * np.array([1.0, _S[s], _S[s]])
        u = _log_time(levels, self.low, self.high)
        walk = _TAU[tau] ** 2 * np.minimum(u[:, None], u)
        noise = _SIGMA[sigma] ** 2 * np.eye(len(levels))
        return np.asarray(basis @ self.shared.covariance @ basis.T + walk + noise)


def _continued_cholesky(rows: Array) -> Array:
    """Return `[L; B L^-T]` of `[K; B]`, `q x n x c` with K `n x n`, for all c cells at once.

    One pass over n columns: for n of at most six and thousands of cells, a loop over columns is
    faster than LAPACK called cell by cell.
    """
    factor = rows.copy()
    for k in range(rows.shape[1]):
        factor[k:, k] -= np.einsum("ijc,jc->ic", factor[k:, :k], factor[k, :k])
        factor[k, k] = np.sqrt(factor[k, k])
        factor[k + 1 :, k] /= factor[k, k]
    return factor


def _basis(levels: Array, low: float, high: float) -> Array:
    """Return what v, d and r multiply at s = 1, `n x 3 x J`."""
    ends = np.array([low, high])
    start, end = _decay(ends, low, high)
    shapes = (_decay(levels, low, high) - start) / (end - start)
    drift = np.broadcast_to(((levels - low) / (high - low))[:, None], shapes.shape)
    return np.stack([np.ones_like(shapes), shapes, drift], axis=1)


def _decay(levels: Array, low: float, high: float) -> Array:
    """Return every family, falling with level, in units of its own, `n x J`."""
    t = levels[:, None] / low
    reach = high / low
    exponent, offset = np.array(_POWERS).T
    time = reach ** np.array(_TIMES)
    middle, slope = np.array(_MIDDLES).T
    power = (t + offset) ** -exponent
    exponential = np.exp(-t / time)
    hill = 1.0 / (1.0 + (t / reach**middle) ** slope)
    return np.concatenate([power, exponential, hill], axis=1)


def _log_time(levels: Array, low: float, high: float) -> Array:
    return np.asarray(np.log(levels / low) / np.log(high / low))


def _check_above(levels: Array, low: float) -> None:
    if len(levels) and levels.min() < low:
        raise ValueError(
            f"levels must be at least low={low}, got {levels.min()}; build the CurveModel with the"
            " first level of a run"
        )
