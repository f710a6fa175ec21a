"""Log expected improvement over a loss-against-cost front, in several imagined worlds.

Notation: ``mean``, ``variance`` of the noise-free loss at a candidate, ``F`` the loss to beat,
``z = (F - mean) / sd`` and ``h(z) = phi(z) + z Phi(z)``, so that ``EI = sd h(z)``. Working with
``ln EI`` keeps gradients alive where EI underflows (Ament et al. 2023, *Unexpected Improvements to
Expected Improvement*, eq. 9).

Pending trials enter as fantasies: S joint draws of their outcomes, each with its own front; the
acquisition is the log of the mean improvement over the S worlds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.special import erfcx, log_ndtr, logsumexp

from surrogates.base import Predictor
from surrogates.data import Array

_LOG_ROOT_2PI = 0.5 * np.log(2.0 * np.pi)
_ROOT_HALF_PI = np.sqrt(0.5 * np.pi)


def log_h(z: Array) -> Array:
    """``ln(phi(z) + z Phi(z))`` without cancellation, for ``|z| < 1e150``.

    Near zero and above, the sum itself is accurate. Below -1 both summands nearly cancel; there
    :func:`_log_tail` takes over.
    """
    z = np.asarray(z, dtype=np.float64)
    upper = np.maximum(z, -1.0)
    direct = np.log(np.exp(-0.5 * upper**2 - _LOG_ROOT_2PI) + upper * np.exp(log_ndtr(upper)))
    tail = -0.5 * z**2 - _LOG_ROOT_2PI + _log_tail(z)
    return np.asarray(np.where(z > -1.0, direct, tail))


def log_h_slopes(z: Array) -> tuple[Array, Array]:
    """``Phi(z) / h(z)`` and ``phi(z) / h(z)``, to working precision for ``|z| < 1e150``.

    Below -1 the Gaussian is divided out by hand: a difference of the logarithms would lose as many
    digits as z^2 has.
    """
    z = np.asarray(z, dtype=np.float64)
    upper = np.maximum(z, -1.0)
    log_upper = log_h(upper)
    a = np.maximum(-z, 1.0)
    density = np.where(
        z > -1.0, np.exp(-0.5 * upper**2 - _LOG_ROOT_2PI - log_upper), np.exp(-_log_tail(z))
    )
    mills = _ROOT_HALF_PI * erfcx(a / np.sqrt(2.0))
    return np.where(z > -1.0, np.exp(log_ndtr(upper) - log_upper), mills * density), density


def _log_tail(z: Array) -> Array:
    """``ln(h(z) / phi(z)) = ln(1 - a sqrt(pi/2) erfcx(a / sqrt(2)))`` with ``a = max(-z, 1)``.

    The bracket cancels for large a; beyond 1000 its asymptotic series 1/a^2 - 3/a^4 replaces it.
    """
    a = np.clip(-z, 1.0, 1e3)
    bracket = np.log1p(-_ROOT_HALF_PI * a * erfcx(a / np.sqrt(2.0)))
    far = np.maximum(-z, 1e3)
    series = -2.0 * np.log(far) + np.log1p(-3.0 / far**2)
    return np.where(z < -1e3, series, bracket)


def expected_improvement_log(mean: Array, variance: Array, threshold: Array | float) -> Array:
    """``ln E[max(threshold - f, 0)]`` for ``f ~ N(mean, variance)``; arrays broadcast."""
    sd = np.sqrt(variance)
    return np.asarray(np.log(sd) + log_h((threshold - mean) / sd))


def knowledge_gradient(mean: float, variance: float, noise_variance: float, rival: float) -> float:
    """Expected fall of the smallest posterior mean from measuring one known point once more.

    Frazier, Powell & Dayanik (2009), eq. 14. Its posterior mean will change by a normal amount of
    sd ``s = variance / sqrt(variance + noise_variance)``, and the gain is
    ``s h(-|mean - rival| / s)``.

    Args:
        mean, variance: belief about the point.
        noise_variance: of one measurement.
        rival: smallest posterior mean among the other points.
    """
    if variance <= 0.0:
        return 0.0
    s = variance / np.sqrt(variance + noise_variance)
    return float(s * np.exp(log_h(np.array(-abs(mean - rival) / s))))


class Threshold(Protocol):
    """The loss to beat at each candidate, in each world."""

    def levels(self, X: Array) -> Array:
        """M x S."""
        ...


class CostMean(Protocol):
    """The part of a cost model that a front needs: predicted ln cost ``(m,)``."""

    def mean(self, X: Array) -> Array: ...


@dataclass(frozen=True, slots=True)
class Staircase:
    """The front ``F(c)``: the smallest posterior mean among visited points no dearer than ``c``.

    Posterior means, not observations, so that no lucky run becomes a goal nobody can reach.
    Following CARBS (arXiv 2306.08055, section 4.2), the front is clamped at a drawn level ``c_t``:
    a candidate must beat ``F(max(c, c_t))``, so cheap and slightly better does not win every time.
    Without a cost model the front is one number a world.

    Args:
        log_costs: ``(k,)``, ascending; ln cost of the visited points.
        running: k x S, smallest posterior mean up to that cost, per world.
        level: ln c_t.
        cost: predicted ln cost of candidates; None when the search does not look at cost.
    """

    log_costs: Array
    running: Array
    level: float
    cost: CostMean | None

    @classmethod
    def build(
        cls, log_costs: Array, means: Array, level: float, cost: CostMean | None
    ) -> Staircase:
        """From unsorted ``log_costs`` ``(k,)`` and ``means`` k x S."""
        order = np.argsort(log_costs, kind="stable")
        return cls(log_costs[order], np.minimum.accumulate(means[order], axis=0), level, cost)

    def levels(self, X: Array) -> Array:
        if self.cost is None:
            return np.broadcast_to(self.running[-1], (len(X), self.running.shape[1]))
        at = np.maximum(self.cost.mean(X), self.level)
        place = np.searchsorted(self.log_costs, at, side="right") - 1
        return np.asarray(self.running[np.maximum(place, 0)])


class WorldMeans(Protocol):
    """Posterior means in S imagined worlds, as :class:`surrogates.gp.Fantasies` gives them."""

    def means(self, X: Array) -> Array: ...

    def means_gradient(self, X: Array) -> Array: ...


@dataclass(frozen=True, slots=True)
class Improvement:
    """``ln (1/S) sum_s EI_s``: log expected improvement averaged over worlds.

    Args:
        predictor: belief after the pending rows; its variance holds in every world.
        threshold: loss to beat.
        worlds: means per world; None when nothing is pending (one world, the predictor's own mean).
    """

    predictor: Predictor
    threshold: Threshold
    worlds: WorldMeans | None = None

    def value(self, X: Array) -> Array:
        posterior = self.predictor.posterior(X)
        means = posterior.mean[:, None] if self.worlds is None else self.worlds.means(X)
        variance = posterior.variance[:, None]
        log_ei = expected_improvement_log(means, variance, self.threshold.levels(X))
        return np.asarray(logsumexp(log_ei, axis=1) - np.log(log_ei.shape[1]))

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """The threshold is held fixed: it is piecewise constant in the candidate."""
        p = self.predictor.posterior_gradient(X)
        if self.worlds is None:
            means, d_means = p.mean[:, None], p.d_mean[:, None, :]
        else:
            means, d_means = self.worlds.means(X), self.worlds.means_gradient(X)
        sd = np.sqrt(p.variance)[:, None]
        z = (self.threshold.levels(X) - means) / sd
        log_ei = np.log(sd) + log_h(z)
        value = logsumexp(log_ei, axis=1)
        share = np.exp(log_ei - value[:, None])
        # dEI/dmean = -Phi(z), dEI/dsd = phi(z); both over EI = sd h(z)
        by_mean, by_sd = log_h_slopes(z)
        slope = -np.einsum("ms,msd->md", share * by_mean / sd, d_means)
        slope += np.sum(share * by_sd, axis=1)[:, None] * p.d_variance / (2.0 * sd**2)
        return value - np.log(log_ei.shape[1]), slope
