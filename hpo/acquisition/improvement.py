"""Log expected improvement over a front of loss against cost, averaged over fantasies.

Notation: `mean`, `variance` of the noise-free loss at a candidate, `F` the loss to beat,
`z = (F - mean) / sd` and `h(z) = phi(z) + z Phi(z)`, so that `EI = sd h(z)`. Working with `ln EI`
keeps gradients alive where EI underflows (Ament et al. 2023, *Unexpected Improvements to Expected
Improvement*, eq. 9).

Pending trials enter as fantasies: S joint posterior samples of their outcomes, each with its own
front. The acquisition is the log of the mean improvement over the S fantasies.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import erfcx, ndtr

from surrogates.base import Predictor
from surrogates.data import Array

_LOG_ROOT_2PI = 0.5 * np.log(2.0 * np.pi)
_ROOT_HALF_PI = np.sqrt(0.5 * np.pi)


def log_h(z: Array) -> Array:
    """Return `ln(phi(z) + z Phi(z))` without cancellation, for `|z| < 1e150`.

    Args:
        z: Standardized gaps, any shape.

    Example:
        >>> log_h(np.array([0.0, -100.0])).round(3).tolist()
        [-0.919, -5010.13]
    """
    return log_h_and_slopes(z)[0]


def log_h_and_slopes(z: Array) -> tuple[Array, Array, Array]:
    """Return `ln h(z)`, `Phi(z) / h(z)` and `phi(z) / h(z)` to working precision, `|z| < 1e150`.

    Near zero and above, the sum `h` itself is accurate. Below -1 both summands nearly cancel; there
    `phi(z)` is divided out by hand. A difference of logarithms would lose as many digits as z^2
    has.

    Args:
        z: Standardized gaps, any shape.

    Example:
        >>> [part.round(3).tolist() for part in log_h_and_slopes(np.array([0.0, -100.0]))[1:]]
        [[1.253, 100.02], [1.0, 10002.999]]
    """
    z = np.asarray(z, dtype=np.float64)
    upper = np.maximum(z, -1.0)
    density, below = np.exp(-0.5 * upper**2 - _LOG_ROOT_2PI), ndtr(upper)
    h = density + upper * below
    value, by_mean, by_sd = map(np.asarray, (np.log(h), below / h, density / h))
    far = z <= -1.0
    if np.any(far):
        a = -z[far]
        mills = _ROOT_HALF_PI * erfcx(a / np.sqrt(2.0))
        log_ratio = _log_tail(a, mills)
        value[far] = -0.5 * a**2 - _LOG_ROOT_2PI + log_ratio
        by_sd[far] = np.exp(-log_ratio)
        by_mean[far] = mills * by_sd[far]
    return value, by_mean, by_sd


def _log_tail(a: Array, mills: Array) -> Array:
    """Return `ln(h(-a) / phi(a)) = ln(1 - a m)` for a >= 1, with Mills's ratio `m` at a.

    The bracket cancels for large a; beyond 1000 its asymptotic series 1/a^2 - 3/a^4 replaces it.
    """
    series = a > 1e3
    bracket = np.log1p(-np.where(series, 0.0, a * mills))
    far = np.maximum(a, 1e3)
    return np.where(series, -2.0 * np.log(far) + np.log1p(-3.0 / far**2), bracket)


def expected_improvement_log(mean: Array, variance: Array, threshold: Array | float) -> Array:
    """Return `ln E[max(threshold - f, 0)]` for `f ~ N(mean, variance)`; arrays broadcast.

    Args:
        mean: Posterior mean of the loss.
        variance: Posterior variance of the noise-free loss, > 0.
        threshold: Loss to beat.

    Example:
        >>> expected_improvement_log(np.array([1.0]), np.array([1e-20]), 3.0).round(3).tolist()
        [0.693]
    """
    sd = np.sqrt(variance)
    return np.asarray(np.log(sd) + log_h((threshold - mean) / sd))


def knowledge_gradient(mean: float, variance: float, noise_variance: float, rival: float) -> float:
    """Return the expected fall of the smallest posterior mean from measuring one point once.

    Frazier, Powell & Dayanik (2009), eq. 14. The posterior mean of the point will change by a
    normal amount of sd `s = variance / sqrt(variance + noise_variance)`, and the gain is
    `s h(-|mean - rival| / s)`.

    Args:
        mean: Posterior mean of the point.
        variance: Posterior variance of the point.
        noise_variance: Variance of one measurement.
        rival: Smallest posterior mean among the other points.

    Example:
        >>> round(knowledge_gradient(0.0, 1.0, 0.5, rival=0.3), 3)
        0.197
    """
    if variance <= 0.0:
        return 0.0
    s = variance / np.sqrt(variance + noise_variance)
    return float(s * np.exp(log_h(np.array(-abs(mean - rival) / s))))


class Threshold(Protocol):
    """Loss to beat at each candidate, under each fantasy."""

    def levels(self, X: Array) -> Array:
        """Return the loss to beat at the m rows of `X`, m x S."""
        ...


class MeanLogCost(Protocol):
    """The part of a cost model that a front needs."""

    def mean(self, X: Array) -> Array:
        """Return the predicted ln cost at the rows of `X`, `(m,)`."""
        ...


@dataclass(frozen=True, slots=True)
class Staircase:
    """Front `F(c)`: the smallest posterior mean among visited points that cost at most `c`.

    It is made of posterior means, not observations, so that a lucky run does not become a goal that
    no config can reach. Following CARBS (arXiv 2306.08055, section 4.2), the front is clamped at a
    drawn level `c_t`: a candidate must beat `F(max(c, c_t))`, so cheap and slightly better does not
    win every time. Without a cost model the front is one number per fantasy.

    Attributes:
        log_costs: `(k,)`, ascending; ln cost of the visited points.
        running: k x S, smallest posterior mean up to that cost, per fantasy.
        level: Drawn level, `ln c_t`.
        cost: Predicted ln cost of candidates; None when the search ignores cost.

    Example:
        >>> class FirstColumn:
        ...     def mean(self, X):
        ...         return X[:, 0]
        >>> means = np.array([[0.5], [2.0], [2.5]])
        >>> front = Staircase.build(np.array([3.0, 1.0, 2.0]), means, -np.inf, FirstColumn())
        >>> front.levels(np.array([[1.0], [2.9], [3.0]]))[:, 0].tolist()
        [2.0, 2.0, 0.5]
    """

    log_costs: Array
    running: Array
    level: float
    cost: MeanLogCost | None

    @classmethod
    def build(
        cls, log_costs: Array, means: Array, level: float, cost: MeanLogCost | None
    ) -> Staircase:
        """Return the front of visited points in any order.

        Args:
            log_costs: Ln cost of the points, `(k,)`.
            means: Posterior means of the points, k x S.
            level: Drawn level, `ln c_t`.
            cost: Predicted ln cost of candidates, or None.
        """
        order = np.argsort(log_costs, kind="stable")
        return cls(log_costs[order], np.minimum.accumulate(means[order], axis=0), level, cost)

    def levels(self, X: Array) -> Array:
        """Return the loss to beat at the m rows of `X`, m x S.

        Below the cheapest visited point it is the loss of that point.
        """
        if self.cost is None:
            return np.broadcast_to(self.running[-1], (len(X), self.running.shape[1]))
        at = np.maximum(self.cost.mean(X), self.level)
        place = np.searchsorted(self.log_costs, at, side="right") - 1
        return np.asarray(self.running[np.maximum(place, 0)])


class FantasyMeans(Protocol):
    """Posterior means under S fantasies, as :class:`surrogates.gp.Fantasies` gives them."""

    def means(self, X: Array) -> Array:
        """Return the means at the m rows of `X`, m x S."""
        ...

    def means_and_pullback(self, X: Array) -> tuple[Array, Callable[[Array], Array]]:
        """Return the means, and how sums of them change with the rows of `X`.

        The function of coefficients `c`, m x S, returns `sum_s c_s d means_s / dx`, m x d.
        """
        ...


@dataclass(frozen=True, slots=True)
class Improvement:
    """Term `ln (1/S) sum_s EI_s`: log expected improvement averaged over fantasies.

    Attributes:
        predictor: Model conditioned on the pending rows; its variance holds under every fantasy.
        threshold: Loss to beat.
        fantasies: Posterior means per fantasy; None when nothing is pending (S = 1, the
            predictor's own mean).

    Example:
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.gp import GaussianProcess
        >>> X = np.array([[0.0], [0.3], [0.6], [1.0]])
        >>> data = TrainingData(X, np.array([1.0, 0.1, 0.3, 1.2]), Columns.of_decisions("x"))
        >>> process = GaussianProcess().fit(data)
        >>> front = Staircase.build(np.zeros(4), process.training_mean()[:, None], 0.0, None)
        >>> near, far = Improvement(process, front).value(np.array([[0.4], [1.0]]))
        >>> bool(near > far)
        True
    """

    predictor: Predictor
    threshold: Threshold
    fantasies: FantasyMeans | None = None

    def value(self, X: Array) -> Array:
        """Return the log expected improvement, `(m,)`."""
        posterior = self.predictor.posterior(X)
        means = posterior.mean[:, None] if self.fantasies is None else self.fantasies.means(X)
        variance = posterior.variance[:, None]
        log_ei = expected_improvement_log(means, variance, self.threshold.levels(X))
        return _log_mean(log_ei)

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return the log expected improvement and its derivatives, m x d.

        The threshold is held fixed: it is piecewise constant in the candidate.
        """
        p = self.predictor.posterior_gradient(X)
        sd = np.sqrt(p.variance)[:, None]
        if self.fantasies is None:
            means, pullback = p.mean[:, None], None
        else:
            means, pullback = self.fantasies.means_and_pullback(X)
        # dEI/dmean = -Phi(z), dEI/dsd = phi(z); both over EI = sd h(z)
        log_h_of, by_mean, by_sd = log_h_and_slopes((self.threshold.levels(X) - means) / sd)
        log_ei = np.log(sd) + log_h_of
        value = _log_mean(log_ei)
        share = np.exp(log_ei - value[:, None]) / log_ei.shape[1]
        slope = np.sum(share * by_sd, axis=1)[:, None] * p.d_variance / (2.0 * sd**2)
        by_means = share * by_mean / sd
        return value, slope - (by_means * p.d_mean if pullback is None else pullback(by_means))


def _log_mean(logs: Array) -> Array:
    """Return the log of the mean of `exp(logs)` over the columns, `(m,)`."""
    if logs.shape[1] == 1:
        return logs[:, 0]
    return np.asarray(np.logaddexp.reduce(logs, axis=1) - np.log(logs.shape[1]))
