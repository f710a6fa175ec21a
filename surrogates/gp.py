"""Exact Gaussian process regression: posterior, hyperparameter fit and cheap growth by rows.

Notation: `y = m(X) + f(X) + e` with prior mean `m`, `f ~ GP(0, k)`, `e ~ N(0, v)`;
`K = k(X, X) + v I = L L^T` and `w = K^-1 (y - m(X))`. Equation numbers are those of Rasmussen &
Williams, *Gaussian Processes for Machine Learning* (2006).

Fitting (`GaussianProcess`) finds hyperparameters; `GPPredictor` is the algebra on fixed
hyperparameters, for any kernel and prior mean, so the scaling and cost models use it too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
from scipy.optimize import minimize

from surrogates.base import JointPosterior, Posterior, PosteriorGradient
from surrogates.data import Array, Columns, IntArray, TrainingData
from surrogates.kernels import (
    Kernel,
    MaternHamming,
    PairedRows,
    cross_and_pullback,
    squared_distances,
)
from surrogates.numerics import (
    Factor,
    NumericalError,
    cholesky,
    lower_inverse,
    negative_log_density,
)

MIN_VARIANCE = 1e-14  # of the prior variance: rounding may leave a posterior variance below zero
_TOLERANCE = 1e-5  # of the objective: more digits of a posterior mode change no forecast
_MOST_PAIRED = 2**20  # entries of the differences of all pairs; more do not stay in a cache
FAR_AWAY = 1e25  # value of an objective where it cannot be computed: a line search steps back


class MeanFunction(Protocol):
    """A prior mean with its derivative.

    Example:
        >>> mean: MeanFunction = ZeroMean()
        >>> mean.value(np.ones((2, 1))).tolist()
        [0.0, 0.0]
    """

    def value(self, X: Array) -> Array:
        """Return the prior mean at the rows of `X`, `(n,)`."""
        ...

    def gradient(self, X: Array) -> Array:
        """Return its derivative, `n x d`, zero in categorical columns."""
        ...


@dataclass(frozen=True, slots=True)
class ZeroMean:
    """The prior mean of standardized targets.

    Example:
        >>> ZeroMean().value(np.ones((2, 1))).tolist()
        [0.0, 0.0]
    """

    def value(self, X: Array) -> Array:
        """Return zeros, `(n,)`."""
        return np.zeros(len(X))

    def gradient(self, X: Array) -> Array:
        """Return zeros, `n x d`."""
        return np.zeros(X.shape)


@dataclass(frozen=True, slots=True)
class GPPredictor:
    """Posterior of a Gaussian process with fixed hyperparameters; built with `build`.

    Args:
        kernel: covariance function k.
        prior_mean: prior mean m.
        X: `n x d`, training rows.
        y: `(n,)`, training targets.
        noise_variance: v, variance of a single run around the noise-free value.
        factor: Cholesky factor of K.
        weights: `(n,)`, w.

    Example:
        >>> kernel = MaternHamming.from_theta(Columns.of_decisions("x"), np.log([1.0, 0.5]))
        >>> X, y = np.array([[0.0], [1.0]]), np.array([-1.0, 1.0])
        >>> predictor = GPPredictor.build(kernel, X, y, noise_variance=0.01)
        >>> predictor.posterior(np.array([[0.0], [0.5]])).variance.round(3).tolist()
        [0.01, 0.522]
        >>> grown = predictor.condition(np.array([[0.5]]), np.array([0.3]))
        >>> grown.posterior(np.array([[0.5]])).mean.round(2).tolist()
        [0.29]
    """

    kernel: Kernel
    prior_mean: MeanFunction
    X: Array
    y: Array
    noise_variance: float
    factor: Factor
    weights: Array

    @classmethod
    def build(
        cls,
        kernel: Kernel,
        X: Array,
        y: Array,
        noise_variance: float,
        prior_mean: MeanFunction | None = None,
    ) -> Self:
        """Factorize the covariance of all rows, O(n^3).

        Args:
            kernel: covariance function.
            X: `n x d`; n may be 0.
            y: `(n,)`.
            noise_variance: variance of a single run.
            prior_mean: prior mean; None is zero.

        Raises:
            NumericalError: if the covariance matrix cannot be factorized at any jitter.
        """
        prior_mean = prior_mean or ZeroMean()
        K = kernel.cross(X, X)
        K[np.diag_indices(len(X))] += noise_variance
        factor = cholesky(K)
        weights = factor.solve(y - prior_mean.value(X))
        return cls(kernel, prior_mean, X, y, noise_variance, factor, weights)

    def condition(self, X: Array, y: Array) -> Self:
        """Append rows one at a time, O(n^2) each: any grouping of them gives the same bits.

        Args:
            X: `k x d`, new rows.
            y: `(k,)`, their targets.
        """
        rows, factor = self.X, self.factor
        for i in range(len(X)):
            row = X[i : i + 1]
            variance = float(self.kernel.diagonal(row)[0]) + self.noise_variance
            factor = factor.append(self.kernel.cross(row, rows)[0], variance)
            rows = np.concatenate([rows, row])
        return replace(self, X=rows, factor=factor).with_targets(np.concatenate([self.y, y]))

    def with_targets(self, y: Array) -> Self:
        """Return the predictor of the same rows with other targets `y` `(n,)`, O(n^2)."""
        return replace(self, y=y, weights=self.factor.solve(y - self.prior_mean.value(self.X)))

    def posterior(self, X: Array) -> Posterior:
        """Return the marginal posterior at the rows of `X`, eqs. 2.25 and 2.26."""
        k = self.kernel.cross(X, self.X).T  # Fortran order: the triangular solve takes it as it is
        mean = self.prior_mean.value(X) + self.weights @ k
        return Posterior(mean, self._variance(k, X))

    def _variance(self, k: Array, X: Array) -> Array:
        prior = self.kernel.diagonal(X)
        half = self.factor.half_solve(k)
        variance = prior - np.einsum("nm,nm->m", half, half)
        return np.asarray(np.maximum(variance, MIN_VARIANCE * prior))

    def posterior_gradient(self, X: Array) -> PosteriorGradient:
        """Return the marginal posterior at the rows of `X` with its derivatives."""
        k, pullback = cross_and_pullback(self.kernel, X, self.X)
        prior = self.kernel.diagonal(X)
        solved = self.factor.solve(k.T).T
        variance = np.maximum(prior - np.einsum("mn,mn->m", k, solved), MIN_VARIANCE * prior)
        d_mean = self.prior_mean.gradient(X) + pullback(np.broadcast_to(self.weights, k.shape))
        d_variance = self.kernel.diagonal_gradient(X) - 2.0 * pullback(solved)
        mean = self.prior_mean.value(X) + k @ self.weights
        return PosteriorGradient(mean, variance, d_mean, d_variance)

    def joint_posterior(self, X: Array) -> JointPosterior:
        """Return the joint posterior at the rows of `X`."""
        k = self.kernel.cross(X, self.X).T
        half = self.factor.half_solve(k)
        covariance = self.kernel.cross(X, X) - half.T @ half
        mean = self.prior_mean.value(X) + self.weights @ k
        return JointPosterior(mean, 0.5 * (covariance + covariance.T))

    def training_mean(self) -> Array:
        """Return the posterior mean at the training rows, `y - v w`, without a solve; `(n,)`."""
        return np.asarray(self.y - (self.noise_variance + self.factor.jitter) * self.weights)

    def leave_one_out(self) -> Posterior:
        """Return the prediction of each target from all others, noise included (eqs. 5.12)."""
        variance = 1.0 / self.factor.inverse_diagonal()
        return Posterior(self.y - self.weights * variance, variance)

    def log_evidence(self) -> float:
        """Return ln p(y | X), eq. 2.30."""
        misfit = float((self.y - self.prior_mean.value(self.X)) @ self.weights)
        size = self.factor.log_determinant() + len(self.y) * float(np.log(2.0 * np.pi))
        return -0.5 * (misfit + size)

    def fantasize(self, X: Array, count: int, rng: np.random.Generator) -> Fantasies:
        """Draw joint fantasies of noisy outcomes at p pending rows; all share one factor.

        The draws are of observed values, so each fantasy is an outcome the model considers
        possible.

        Args:
            X: `p x d`, pending rows.
            count: number of fantasies S.
            rng: source of randomness.
        """
        joint = self.joint_posterior(X)
        noise = np.sqrt(self.noise_variance) * rng.standard_normal((count, len(X)))
        outcomes = joint.sample(count, rng) + noise
        grown = self.condition(X, joint.mean)
        targets = np.concatenate([np.tile(self.y, (count, 1)), outcomes], axis=1)
        residuals = targets - self.prior_mean.value(grown.X)
        return Fantasies(grown, targets.T, grown.factor.solve(np.asfortranarray(residuals.T)))


@dataclass(frozen=True, slots=True)
class Fantasies:
    """A predictor under S fantasies of pending outcomes: S means, one shared variance.

    Args:
        predictor: posterior after the pending rows; its own targets are not used.
        y: `n x S`, targets of each fantasy, the imagined ones last.
        weights: `n x S`, `K^-1 (y_s - m)` of each fantasy.

    Example:
        >>> kernel = MaternHamming.from_theta(Columns.of_decisions("x"), np.log([1.0, 0.5]))
        >>> predictor = GPPredictor.build(kernel, np.zeros((1, 1)), np.zeros(1), 0.01)
        >>> fantasies = predictor.fantasize(np.array([[1.0]]), 4, np.random.default_rng(0))
        >>> fantasies.means(np.array([[0.0], [1.0], [2.0]])).shape
        (3, 4)
    """

    predictor: GPPredictor
    y: Array
    weights: Array

    def training_means(self) -> Array:
        """Return `GPPredictor.training_mean` under each fantasy, `n x S`."""
        ridge = self.predictor.noise_variance + self.predictor.factor.jitter
        return np.asarray(self.y - ridge * self.weights)

    def means(self, X: Array) -> Array:
        """Return the posterior means at the m rows of `X` under each fantasy, `m x S`."""
        k = self.predictor.kernel.cross(X, self.predictor.X)
        return np.asarray(self.predictor.prior_mean.value(X)[:, None] + k @ self.weights)

    def means_and_pullback(self, X: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return `means`, and how sums of them change with the rows of `X`.

        Args:
            X: `m x d`.

        Returns:
            The means, `m x S`, and a function of coefficients `c` `m x S` that returns
            `sum_s c_s d means_s / dx`, `m x d`.
        """
        mean = self.predictor.prior_mean
        k, pullback = cross_and_pullback(self.predictor.kernel, X, self.predictor.X)

        def of_means(c: Array) -> Array:
            own = np.sum(c, axis=1)[:, None] * mean.gradient(X)
            return np.asarray(own + pullback(c @ self.weights.T))

        return mean.value(X)[:, None] + k @ self.weights, of_means


@dataclass(frozen=True, slots=True)
class NormalPrior:
    """A normal prior on one entry of `theta`.

    Args:
        mean: prior mean.
        sd: prior standard deviation, > 0.

    Example:
        >>> NormalPrior(0.0, 1.0)
        NormalPrior(mean=0.0, sd=1.0)
    """

    mean: float
    sd: float


@dataclass(frozen=True, slots=True)
class GaussianProcess:
    """Maximum-a-posteriori fit of a `MaternHamming` kernel and the noise to standardized targets.

    `theta = (ln s, ln l_1.., ln w_1.., ln v)`. The prior on the lengths grows with the square root
    of the number of columns, which keeps the prior complexity of the function from exploding with d
    (Hvarfner, Hellsten & Nardi 2024, eq. 9: ln l ~ N(sqrt(2) + ln(d) / 2, 3)). The density
    maximized is that of l, not of ln l, whose mode is lower by the variance 3. Optimizing over ln l
    without that term makes everything smooth and calls the rest noise (10-d Ackley after 100
    trials, 5 seeds: median regret 0.92 of the spread against 0.30).

    Args:
        variance: prior on ln s.
        noise: prior on ln v.
        length: prior on ln l at d = 1, mode of the density of l as its mean.
        weight: prior on ln w at d = 1; its mean falls by ln(d) / 2 as the lengths grow.
        max_rows: number of rows beyond which only `representative` ones teach hyperparameters.
        max_iterations: L-BFGS iterations from the prior mean.
        warm_iterations: L-BFGS iterations from a warm start.

    Example:
        >>> X = np.linspace(0.0, 1.0, 9)[:, None]
        >>> data = TrainingData(X, np.sqrt(2.0) * np.sin(6.0 * X[:, 0]), Columns.of_decisions("x"))
        >>> predictor = GaussianProcess().fit(data)
        >>> predictor.posterior(np.array([[0.3]])).mean.round(2).tolist()
        [1.37]
    """

    variance: NormalPrior = NormalPrior(0.0, 1.0)
    noise: NormalPrior = NormalPrior(float(np.log(1e-4)), 2.0)
    length: NormalPrior = NormalPrior(float(np.sqrt(2.0)) - 3.0, float(np.sqrt(3.0)))
    weight: NormalPrior = NormalPrior(0.0, 1.0)
    max_rows: int = 400
    max_iterations: int = 40
    warm_iterations: int = 15

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """Return the hyperparameters `theta` of highest posterior density found.

        Args:
            data: rows with targets standardized to about unit variance.
            warm: an earlier `theta` to start from.
            cold: whether to start from the prior mean as well (always done without `warm`).
        """
        if len(data) > self.max_rows:
            rows = representative(data.X[:, data.columns.numeric], data.y, self.max_rows)
            data = TrainingData(data.X[rows], data.y[rows], data.columns)
        prior_mean, prior_sd = self.prior(data.columns)
        starts = [] if warm is None else [(warm, self.warm_iterations)]
        if cold or warm is None:
            starts.append((prior_mean, self.max_iterations))
        objective = _NegativeLogPosterior(data, prior_mean, prior_sd)
        bounds = list(zip(prior_mean - 5.0 * prior_sd, prior_mean + 5.0 * prior_sd, strict=True))
        bounds[0] = (np.log(1e-3), np.log(1e3))
        bounds[-1] = (np.log(1e-8), np.log(2.0))
        best, best_value = prior_mean, np.inf
        for start, iterations in starts:
            found = minimize(
                objective,
                np.clip(start, *np.transpose(bounds)),
                jac=True,
                method="L-BFGS-B",
                bounds=bounds,
                options={"maxiter": iterations, "ftol": _TOLERANCE, "gtol": 1e-3},
            )
            if found.fun < best_value:
                best, best_value = np.asarray(found.x), float(found.fun)
        return best

    def predictor(self, data: TrainingData, theta: Array) -> GPPredictor:
        """Return the posterior under fixed `theta`.

        Args:
            data: rows and targets; they may be others than those learned from.
            theta: hyperparameters.

        Raises:
            NumericalError: if the covariance matrix cannot be factorized.
        """
        kernel = MaternHamming.from_theta(data.columns, theta[:-1])
        return GPPredictor.build(kernel, data.X, data.y, float(np.exp(theta[-1])))

    def fit(self, data: TrainingData) -> GPPredictor:
        """Return the posterior under hyperparameters learned from `data` itself."""
        return self.predictor(data, self.learn(data))

    def prior(self, columns: Columns) -> tuple[Array, Array]:
        """Return means and standard deviations of the normal prior on `theta`, `(1 + p + q + 1,)`.

        Args:
            columns: roles of the columns.
        """
        p, q = len(columns.numeric), len(columns.categorical)
        half_log_d = 0.5 * np.log(max(p + q, 1))
        mean = np.concatenate(
            [
                [self.variance.mean],
                np.full(p, self.length.mean + half_log_d),
                np.full(q, self.weight.mean - half_log_d),
                [self.noise.mean],
            ]
        )
        sd = np.concatenate(
            [
                [self.variance.sd],
                np.full(p, self.length.sd),
                np.full(q, self.weight.sd),
                [self.noise.sd],
            ]
        )
        return mean, sd


class _NegativeLogPosterior:
    """Objective `-ln p(y | X, theta) - ln p(theta)`, less a constant, with its gradient."""

    def __init__(self, data: TrainingData, prior_mean: Array, prior_sd: Array) -> None:
        self._data = data
        self._prior_mean = prior_mean
        self._prior_sd = prior_sd
        entries = len(data) * (len(data) - 1) // 2 * data.X.shape[1]
        self._pairs = PairedRows.of(data.X, data.columns) if entries <= _MOST_PAIRED else None

    def __call__(self, theta: Array) -> tuple[float, Array]:
        kernel = MaternHamming.from_theta(self._data.columns, theta[:-1])
        noise = float(np.exp(theta[-1]))
        try:
            if self._pairs is None:
                value, gradient, trace = self._by_matrices(kernel, noise)
            else:
                value, gradient, trace = self._by_pairs(self._pairs, kernel, noise)
        except NumericalError:
            return FAR_AWAY, np.zeros_like(theta)
        z = (theta - self._prior_mean) / self._prior_sd
        return value + 0.5 * float(z @ z), np.append(gradient, noise * trace) + z / self._prior_sd

    def _by_matrices(self, kernel: MaternHamming, noise: float) -> tuple[float, Array, float]:
        """Return `-ln p(y | X, theta)`, its derivative in the kernel, and that in the noise."""
        X, y = self._data.X, self._data.y
        K, slope = kernel.gram(X)
        covariance = np.array(K, order="F")
        covariance[np.diag_indices(len(y))] += noise
        value, sensitivity = negative_log_density(covariance, y)
        return (
            value,
            kernel.pullback(X, K, slope, sensitivity),
            float(np.trace(sensitivity)),
        )

    def _by_pairs(
        self, pairs: PairedRows, kernel: MaternHamming, noise: float
    ) -> tuple[float, Array, float]:
        """Return the same; off the diagonal `K^-1 - w w^T` counts twice, for both of its halves."""
        values, slopes = pairs.gram(kernel)
        variance = float(np.exp(kernel.log_variance))
        covariance = pairs.matrix(values, variance + noise)
        value, inverse, w = lower_inverse(covariance, self._data.y)
        flat = inverse.ravel(order="F")
        sensitivity = flat[pairs.places]
        sensitivity -= w[pairs.first] * w[pairs.second]
        trace = 0.5 * float(np.sum(flat[:: pairs.count + 1]) - w @ w)
        gradient = pairs.pullback(kernel, values, slopes, sensitivity)
        gradient[0] += variance * trace
        return value, gradient, trace


_COVERED = 20_000  # rows among which a covering subset is looked for


def representative(X: Array, y: Array, count: int) -> IntArray:
    """Return the sorted indices of `count` rows that represent all.

    They are the best 40 % and a covering rest.

    The best values of `y` mark where precision matters; the others are chosen farthest-point first
    (Gonzalez 1985), which greedily shrinks the largest distance from any row to a kept one and so
    the largest posterior variance. Deterministic: no random subset.

    Args:
        X: `n x p`, numeric columns in comparable units.
        y: `(n,)`, smaller is better.
        count: number of rows to keep.

    Example:
        >>> X = np.linspace(0.0, 1.0, 11)[:, None]
        >>> representative(X, np.abs(X[:, 0] - 0.2), 5).tolist()
        [1, 2, 4, 6, 10]
    """
    n = len(y)
    if n <= count:
        return np.arange(n)
    best = np.argsort(y, kind="stable")[: max(1, int(0.4 * count))]
    if n > max(_COVERED, count):  # of so many, every k-th covers as well
        pool = np.union1d(best, np.arange(0, n, -(-n // max(_COVERED, count))))
        return pool[representative(X[pool], y[pool], count)]
    kept = list(best)
    distance = squared_distances(X, X[kept]).min(axis=1)
    distance[kept] = -1.0  # below the 0 of a duplicate, so that no row is kept twice
    while len(kept) < count:
        farthest = int(np.argmax(distance))
        kept.append(farthest)
        distance = np.minimum(distance, np.sum((X - X[farthest]) ** 2, axis=1))
        distance[farthest] = -1.0
    return np.sort(np.array(kept, dtype=np.intp))
