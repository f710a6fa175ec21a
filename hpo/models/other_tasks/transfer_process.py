"""Gaussian process whose prior comes from runs of other tasks.

Notation: f_t the surrogate of task t, on its own standardized losses; y the standardized losses of
the target, n of them; T the number of tasks; k the number of hyperparameters of a
:class:`~surrogates.gp.GaussianProcess`. The target's loss is modeled as::

    y(x) = a (c + sum_t u_t f_t(x) + g(x)),    u_t >= 0,    g ~ GP(0, k(theta))

so every other task is a feature of the prior mean, and g is how the target differs from their sum.
As g is learned from the target's own runs, it corrects the other tasks where they are wrong.

How much tasks differ is learned from the other tasks themselves, each predicted from the rest
(:meth:`TransferProcess.between`): theta, with the length scales of the difference, and the slope of
a task's loss against the mean of the others. Their values are the center of the prior of theta and,
divided by T, of each u_t. This is the empirical Bayes of Wang et al. (2024, "Pre-trained Gaussian
processes for Bayesian optimization", HyperBO), with a mean for each task in place of one network.
The factor a is free: the target's losses are standardized by their own spread, and runs at good
configs spread less than the random ones of a history.

Nothing may be lost where the tasks mislead. The process without them is fitted as well, and the one
of higher posterior density at its mode, with `LOG_ODDS` in favor of the tasks beforehand, is used:
it has u = 0 if that is the one without. And a single task gets u_t = 0 where it misranks: where its
Kendall's tau with the target's losses is below zero at a level of `_MISRANKED`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.optimize import minimize
from scipy.stats import kendalltau

from surrogates.data import Array, Columns, TrainingData
from surrogates.gp import FAR_AWAY, GaussianProcess, GPPredictor, NormalPrior, representative
from surrogates.kernels import MaternHamming
from surrogates.numerics import NumericalError, negative_log_density_terms

LOG_ODDS = 3.0  # of the process with the other tasks, where these agree with each other
_LOG_ODDS_OF_ONE = 1.0  # of the process with a single one, which nothing vouches for
_SLOPE = 0.5  # of a task against the only other one, where nothing shows how tasks differ
_THETA_SD = 0.5  # prior standard deviation of theta around that of the other tasks
_WEIGHT = 0.3  # prior standard deviation of u_t
_LOG_SCALE = NormalPrior(0.0, 1.0)  # of ln a
_OFFSET = NormalPrior(0.0, 1.0)  # of c, over features centered at the target's runs
_MISRANKED = 0.1  # level of the test that drops a task
_LARGEST_WEIGHT = 3.0
_LARGEST_LOG_SCALE = 4.0


@dataclass(frozen=True, slots=True)
class TaskMean:
    """The prior mean `a (c + sum_t u_t f_t)`; tasks of weight 0 are left out.

    Attributes:
        tasks: Surrogates of the tasks.
        weights: `(T,)`, u.
        offset: c.
        scale: a.

    Example:
        >>> X, columns = np.array([[0.0], [1.0]]), Columns.of_decisions("x")
        >>> task = GaussianProcess().fit(TrainingData(X, np.array([-1.0, 1.0]), columns))
        >>> mean = TaskMean((task,), np.array([0.5]), offset=1.0, scale=2.0)
        >>> mean.value(X).round(1).tolist()
        [1.0, 3.0]
    """

    tasks: tuple[GPPredictor, ...]
    weights: Array
    offset: float
    scale: float

    def value(self, X: Array) -> Array:
        """Return the prior mean at the rows of `X`, `(n,)`."""
        total = np.full(len(X), self.offset)
        for task, weight in self._used:
            total += weight * _mean(task, X)
        return self.scale * total

    def gradient(self, X: Array) -> Array:
        """Return its derivative, `n x d`."""
        total = np.zeros(X.shape)
        for task, weight in self._used:
            _, slope = task.kernel.cross_gradient(X, task.X)
            total += weight * np.einsum("mnd,n->md", slope, task.weights)
        return self.scale * total

    @property
    def _used(self) -> list[tuple[GPPredictor, float]]:
        pairs = zip(self.tasks, self.weights.tolist(), strict=True)
        return [(task, weight) for task, weight in pairs if weight > 0.0]


def features(tasks: Sequence[GPPredictor], X: Array) -> Array:
    """Return the posterior mean of each task at the rows of `X`, `n x T`."""
    return np.stack([_mean(task, X) for task in tasks], axis=1)


def _mean(task: GPPredictor, X: Array) -> Array:
    return np.asarray(task.kernel.cross(X, task.X) @ task.weights)


@dataclass(frozen=True, slots=True)
class Difference:
    """How the losses of one task differ from those of others: the prior of the target.

    Attributes:
        theta: `(k,)`, hyperparameters of the difference g.
        slope: Slope of a task's loss against the mean of the others.
    """

    theta: Array
    slope: float


@dataclass(frozen=True, slots=True)
class _Layout:
    """Places in the hyperparameters of a `TransferProcess`.

    They are (whether tasks are used, theta of the process without them, theta of g, ln a, c, u).
    """

    k: int

    def without(self, theta: Array) -> Array:
        return theta[1 : 1 + self.k]

    def coefficients(self, theta: Array) -> Array:
        """Return (theta of g, ln a, c, u)."""
        return theta[1 + self.k :]


class TransferProcess:
    """A :class:`~surrogates.base.Surrogate` of the target's loss that learns from other tasks.

    Args:
        tasks: Surrogates of the other tasks, at least one.
        columns: Columns of all rows.

    Attributes:
        tasks: Surrogates of the other tasks.

    Example:
        >>> X, columns = np.linspace(0.0, 1.0, 12)[:, None], Columns.of_decisions("x")
        >>> bowl = TrainingData(X, 4.0 * (X[:, 0] - 0.3) ** 2 - 1.0, columns)
        >>> process = TransferProcess((GaussianProcess().fit(bowl),), columns)
        >>> few = TrainingData(X[[0, 4, 11]], bowl.y[[0, 4, 11]], columns)
        >>> predictor = process.predictor(few, process.learn(few))
        >>> abs(float(predictor.posterior(np.array([[0.7]])).mean[0]) + 0.36) < 0.1
        True
    """

    def __init__(self, tasks: Sequence[GPPredictor], columns: Columns) -> None:
        self.tasks = tuple(tasks)
        self._columns = columns
        self._plain = GaussianProcess()
        self._prior, self._prior_sd = self._plain.prior(columns)
        self._difference = self.between()
        self._layout = _Layout(len(self._prior))

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """Return the hyperparameters, those of both processes and which of them is better.

        Args:
            data: Rows of the target with standardized losses.
            warm: Earlier hyperparameters to start from.
            cold: Whether to start from the prior as well (always done without `warm`).
        """
        part = self._layout
        if len(data) > self._plain.max_rows:
            rows = representative(data.X[:, data.columns.numeric], data.y, self._plain.max_rows)
            data = TrainingData(data.X[rows], data.y[rows], data.columns)
        before = None if warm is None else part.without(warm)
        without = self._plain.learn(data, before, cold)
        found, density = self._coefficients(data, None if warm is None else part.coefficients(warm))
        odds = LOG_ODDS if len(self.tasks) > 1 else _LOG_ODDS_OF_ONE
        used = density + odds > self._density_without(data, without)
        return np.concatenate([[float(used)], without, found])

    def predictor(self, data: TrainingData, theta: Array) -> GPPredictor:
        """Return the posterior under fixed hyperparameters.

        Args:
            data: Rows and standardized losses of the target.
            theta: Hyperparameters.

        Raises:
            NumericalError: If the covariance matrix cannot be factorized.
        """
        part = self._layout
        if not theta[0]:
            return self._plain.predictor(data, part.without(theta))
        own, log_scale, offset, weights = _split(part.coefficients(theta), part.k)
        own = own.copy()
        own[[0, -1]] += 2.0 * log_scale  # variances of g and of the noise, in units of y
        kernel = MaternHamming.from_theta(data.columns, own[:-1])
        mean = TaskMean(self.tasks, weights, offset, float(np.exp(log_scale)))
        return GPPredictor.build(kernel, data.X, data.y, float(np.exp(own[-1])), mean)

    def between(self) -> Difference:
        """Return how tasks differ, by predicting each of them from the mean of the others."""
        if len(self.tasks) == 1:
            return Difference(_theta(self.tasks[0]), _SLOPE)
        others = []
        for t, task in enumerate(self.tasks):
            mean = np.delete(features(self.tasks, task.X), t, axis=1).mean(axis=1)
            others.append((task.X, task.y - task.y.mean(), mean - mean.mean()))

        def objective(v: Array) -> tuple[float, Array]:
            theta, slope = v[:-1], v[-1]
            z = (theta - self._prior) / self._prior_sd
            value, gradient = 0.5 * float(z @ z), np.append(z / self._prior_sd, 0.0)
            for X, y, mean in others:
                part, d_theta, d_residual = self._density(X, y - slope * mean, theta)
                value += part
                gradient[:-1] += d_theta
                gradient[-1] -= mean @ d_residual
            return value, gradient

        bounds = [*self._bounds(self._prior), (0.0, _LARGEST_WEIGHT)]
        start = np.append(self._prior, _SLOPE)
        found, _ = _minimized(objective, start, bounds, self._plain.max_iterations)
        return Difference(found[:-1], float(found[-1]))

    def _coefficients(self, data: TrainingData, warm: Array | None) -> tuple[Array, float]:
        """Return (theta of g, ln a, c, u) of highest posterior density, and its logarithm.

        The prior is narrow, so one start is enough: `warm`, or the mode of the prior.
        """
        k, count, n = self._layout.k, len(self.tasks), len(data)
        F = features(self.tasks, data.X)
        misranked = [_misranks(predicted, data.y) for predicted in F.T]
        center = F.mean(axis=0)
        F -= center
        mean = np.concatenate(
            [
                self._difference.theta,
                [_LOG_SCALE.mean, _OFFSET.mean],
                np.full(count, self._difference.slope / count),
            ]
        )
        sd = np.concatenate(
            [np.full(k, _THETA_SD), [_LOG_SCALE.sd, _OFFSET.sd], np.full(count, _WEIGHT)]
        )

        def objective(v: Array) -> tuple[float, Array]:
            theta, log_scale, offset, weights = _split(v, k)
            z = data.y * np.exp(-log_scale)
            value, d_theta, d_residual = self._density(data.X, z - offset - F @ weights, theta)
            gradient = np.concatenate(
                [d_theta, [n - d_residual @ z, -d_residual.sum()], -(d_residual @ F)]
            )
            apart = (v - mean) / sd
            return value + n * log_scale + 0.5 * float(apart @ apart), gradient + apart / sd

        bounds = [
            *self._bounds(mean[:k]),
            (-_LARGEST_LOG_SCALE, _LARGEST_LOG_SCALE),
            (-5.0 * _OFFSET.sd, 5.0 * _OFFSET.sd),
            *[(0.0, 0.0 if wrong else _LARGEST_WEIGHT) for wrong in misranked],
        ]
        start = mean if warm is None else warm.copy()
        if warm is not None:
            start[k + 1] += center @ start[k + 2 :]
        most = self._plain.max_iterations if warm is None else self._plain.warm_iterations
        best, value = _minimized(objective, start, bounds, most)
        best[k + 1] -= center @ best[k + 2 :]
        return best, -value

    def _density_without(self, data: TrainingData, theta: Array) -> float:
        """Return the log posterior density without the tasks, up to the constant of the other."""
        z = (theta - self._prior) / self._prior_sd
        return -self._density(data.X, data.y, theta)[0] - 0.5 * float(z @ z)

    def _density(self, X: Array, residual: Array, theta: Array) -> tuple[float, Array, Array]:
        """Return `-ln N(residual; 0, K)` less a constant, with its derivatives.

        Raises:
            NumericalError: If the covariance matrix cannot be factorized.
        """
        kernel = MaternHamming.from_theta(self._columns, theta[:-1])
        noise = np.exp(theta[-1])
        K, slope = kernel.gram(X)
        covariance = np.array(K, order="F")
        covariance[np.diag_indices(len(X))] += noise
        value, sensitivity, d_residual = negative_log_density_terms(covariance, residual)
        d_theta = np.append(
            kernel.pullback(X, K, slope, sensitivity), noise * float(np.trace(sensitivity))
        )
        return value, d_theta, d_residual

    def _bounds(self, center: Array) -> list[tuple[float, float]]:
        """Return bounds of theta around `center`."""
        low, high = center - 5.0 * self._prior_sd, center + 5.0 * self._prior_sd
        low[0], high[0] = np.log([1e-4, 1e3])
        low[-1], high[-1] = np.log([1e-8, 2.0])
        return list(zip(low, high, strict=True))


def _split(v: Array, k: int) -> tuple[Array, float, float, Array]:
    return v[:k], float(v[k]), float(v[k + 1]), v[k + 2 :]


def _misranks(predicted: Array, y: Array) -> bool:
    """Return whether predictions order the losses worse than chance would."""
    if len(y) < 2 or np.ptp(predicted) == 0.0 or np.ptp(y) == 0.0:
        return False
    return bool(kendalltau(predicted, y, alternative="less").pvalue < _MISRANKED)


def _theta(task: GPPredictor) -> Array:
    """Return the hyperparameters that `task` was built with."""
    kernel = task.kernel
    assert isinstance(kernel, MaternHamming)
    return np.concatenate(
        [
            [kernel.log_variance],
            kernel.log_lengths,
            kernel.log_weights,
            [np.log(task.noise_variance)],
        ]
    )


Objective: TypeAlias = Callable[[Array], tuple[float, Array]]


def _minimized(
    objective: Objective, start: Array, bounds: Sequence[tuple[float, float]], iterations: int
) -> tuple[Array, float]:
    """Return the minimum that L-BFGS finds from `start`, and its value."""

    def guarded(v: Array) -> tuple[float, Array]:
        try:
            return objective(v)
        except NumericalError:
            return FAR_AWAY, np.zeros_like(v)

    found = minimize(
        guarded,
        np.clip(start, *np.transpose(bounds)),
        jac=True,
        method="L-BFGS-B",
        bounds=list(bounds),
        options={"maxiter": iterations, "ftol": 1e-7, "gtol": 1e-4},
    )
    return np.array(found.x), float(found.fun)
