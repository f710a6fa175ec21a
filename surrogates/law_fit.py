"""Fitting the scaling law with its drifting bowl: prior beliefs, start and robust MAP.

Notation as in :mod:`surrogates.chinchilla`. Parameters are written ``theta = mu + L u`` with prior
``u ~ N(0, I)``, so that one ridge damps all of them alike. The fit maximises the posterior under

    y_i = m(x_i; u) + e_i,    e_i ~ N(0, s^2 + (c d_i)^2)

where ``d_i``, the distance of run i from the best loss at its scale, is taken from the iterate
before. Runs far above the optimum, diverged ones above all, thus count less and less (for large d_i
by 1/d_i^2, as under a Cauchy likelihood): a quadratic bowl is only true near its bottom, and that
is where the answer lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from surrogates.chinchilla import Layout, ParametricLoss
from surrogates.data import Array, Columns

_MAX_STEPS = 40  # of Levenberg-Marquardt
_GAIN = 1e-5  # nats; a step that gains less ends the search
_HUGE = 1e100  # losses are cut here, so that their squares are finite
_REACH = 4.0  # prior standard deviations that any parameter may move from its mean


@dataclass(frozen=True, slots=True)
class Anchor:
    """Belief about the optimum itself at one scale, in natural units (ln lr, ..).

    Args:
        at: ``(scales,)``, natural coordinates of the SCALE columns (ln N, ln D, ..).
        mean, sd: ``(decisions,)``; sd may be inf where nothing is known.
    """

    at: Array
    mean: Array
    sd: Array


@dataclass(frozen=True, slots=True)
class DriftPrior:
    """Belief about how the optimum of each decision moves with each scale, before any data.

    Args:
        mean, sd: decisions x scales, change of the natural optimum per natural unit of scale,
            such as d ln lr / d ln N; sd > 0, finite.
        anchor: belief about the optimum at one scale, if there is any.

    Raises:
        ValueError: when shapes differ or an sd is not positive.
    """

    mean: Array
    sd: Array
    anchor: Anchor | None = None

    def __post_init__(self) -> None:
        if self.mean.shape != self.sd.shape or self.mean.ndim != 2:
            raise ValueError(
                "mean and sd must both be decisions x scales, "
                f"got {self.mean.shape} and {self.sd.shape}"
            )
        if not np.all((self.sd > 0) & np.isfinite(self.sd)):
            raise ValueError(
                "sd must be positive and finite; use a large one where little is known"
            )


@dataclass(frozen=True, slots=True)
class LawPrior:
    """Widths of the default beliefs; *spread* is that of the losses (:class:`Units`).

    Attributes:
        exponent, exponent_sd: median of alpha and sd of its logarithm; 90 % lie in 0.05 .. 0.6,
            which holds the exponents of Hoffmann et al. (0.28, 0.34) and of Kaplan et al. 2020
            (0.076, 0.095).
        slope, slope_sd: median of ``sum_a alpha_a R_a``, what one e-fold of every axis removes at
            the reference scale, as a share of the loss, and sd of the logarithm of each term. The
            slopes are what data tell first. A prior on R itself would read a steep slope as a large
            exponent, and see the end of the improvement too soon.
        gamma, gamma_sd: median of gamma and sd of its logarithm, between Kaplan's and Hoffmann's.
        curvature, curvature_sd: median of h in spreads per box width squared, sd of its logarithm.
        asymmetry_sd: of lam, per box width.
        optimum_sd: of a about the middle of the box, in box widths.
        drift_sd: of b where no :class:`DriftPrior` is given, box widths per e-fold of scale.
        coupling_sd: of the entries of M.
        offset_sd: of each code's offset, in spreads.
    """

    exponent: float = 0.17
    exponent_sd: float = 0.8
    slope: float = 0.12
    slope_sd: float = 0.8
    gamma: float = 0.4
    gamma_sd: float = 0.9
    curvature: float = 2.0
    curvature_sd: float = 1.5
    asymmetry_sd: float = 2.0
    optimum_sd: float = 0.4
    drift_sd: float = 0.1
    coupling_sd: float = 0.3
    offset_sd: float = 0.5


@dataclass(frozen=True, slots=True)
class Units:
    """Where the losses lie and how much good ones differ; makes every prior free of scale.

    ``level`` is the median loss, ``spread`` a standard deviation in which losses beyond
    ``median + 3 (median - best)`` count as being there.
    """

    level: float
    spread: float

    @classmethod
    def of(cls, y: Array) -> Units:
        if not len(y):
            return cls(0.0, 1.0)
        y = np.clip(y, -_HUGE, _HUGE)
        level, best = float(np.median(y)), float(np.min(y))
        below = level - best or float(np.max(y)) - best
        spread = float(np.std(np.minimum(y, level + 3.0 * below)))
        return cls(level, max(spread, 1e-6 * abs(level), 1e-12))

    def bounded(self, y: Array) -> Array:
        """``y`` with losses that only say "diverged" set to one high value."""
        return np.clip(y, -_HUGE, self.level + 30.0 * self.spread)


@dataclass(frozen=True, slots=True)
class Whitening:
    """``theta = mean + root u``, ``u ~ N(0, I)``."""

    mean: Array
    root: Array

    def theta(self, u: Array) -> Array:
        return np.asarray(self.mean + self.root @ u)

    def u(self, theta: Array) -> Array:
        """Inverse of :meth:`theta`."""
        return np.asarray(linalg.solve_triangular(self.root, theta - self.mean, lower=True))


def whitening(
    layout: Layout,
    columns: Columns,
    reference: Array,
    units: Units,
    prior: LawPrior,
    drift: DriftPrior | None,
) -> Whitening:
    """Prior of theta about ``reference``."""
    mean, sd = np.zeros(layout.size), np.ones(layout.size)
    axes, decisions = len(layout.axes), len(layout.decisions)
    mean[0], sd[0] = units.level - units.spread, 3.0 * units.spread
    # Losses are positive and a good part of them can be trained away. But a loss that carries a
    # huge constant (its spread is then a tiny share) must not be believed to shrink by much of it,
    # and one about zero must be able to shrink.
    slope = prior.slope * np.clip(abs(units.level), units.spread, 250.0 * units.spread)
    mean[layout.log_reducible] = np.log(slope / (max(axes, 1) * prior.exponent))
    sd[layout.log_reducible] = prior.slope_sd
    mean[layout.log_exponent] = np.log(prior.exponent)
    sd[layout.log_exponent] = prior.exponent_sd
    mean[layout.log_gamma], sd[layout.log_gamma] = np.log(prior.gamma), prior.gamma_sd
    sd[layout.offsets] = prior.offset_sd * units.spread
    mean[layout.log_curvature] = np.log(prior.curvature * units.spread)
    sd[layout.log_curvature] = prior.curvature_sd
    sd[layout.asymmetry] = prior.asymmetry_sd
    mean[layout.optimum], sd[layout.optimum] = 0.5, prior.optimum_sd
    slope_mean, slope_sd = np.zeros((decisions, axes)), np.full((decisions, axes), prior.drift_sd)
    width = columns.width[layout.decisions]
    if drift is not None:
        known = drift.mean.shape[1]  # the fidelity axis, if any, comes after the scales
        slope_mean[:, :known] = drift.mean / width[:, None]
        slope_sd[:, :known] = drift.sd / width[:, None]
    mean[layout.drift], sd[layout.drift] = slope_mean.ravel(), slope_sd.ravel()
    sd[layout.couplings] = prior.coupling_sd
    root = np.diag(sd)
    # ln R_a = ln slope_a - ln alpha_a, with independent slope and exponent
    root[layout.log_reducible, layout.log_exponent] -= prior.exponent_sd * np.eye(axes)
    if drift is not None and drift.anchor is not None:
        mean, root = _anchored(mean, root, layout, columns, reference, drift.anchor)
    return Whitening(mean, root)


def _anchored(
    mean: Array, root: Array, layout: Layout, columns: Columns, reference: Array, anchor: Anchor
) -> tuple[Array, Array]:
    """The prior given ``a_j + sum_a b_ja (at_a - sbar_a) ~ N(anchor)`` too, a Gaussian product."""
    covariance = root @ root.T
    axes = len(layout.axes)
    step = np.zeros(axes)
    step[: len(anchor.at)] = anchor.at - reference[: len(anchor.at)]
    for j in np.flatnonzero(np.isfinite(anchor.sd)):
        column = layout.decisions[j]
        row = np.zeros(layout.size)
        row[layout.optimum.start + j] = 1.0
        start = layout.drift.start + j * axes
        row[start : start + axes] = step
        aim = (anchor.mean[j] - columns.origin[column]) / columns.width[column]
        noise = (anchor.sd[j] / columns.width[column]) ** 2
        gain = covariance @ row / (row @ covariance @ row + noise)
        mean = mean + gain * (aim - row @ mean)
        covariance = covariance - np.outer(gain, row @ covariance)
    covariance = 0.5 * (covariance + covariance.T)
    return mean, np.asarray(linalg.cholesky(covariance, lower=True))


@dataclass(frozen=True, slots=True)
class Mode:
    """Where a search ended: ``u`` and the negative log posterior there (constants dropped)."""

    u: Array
    value: float


def descend(
    start: Array,
    X: Array,
    y: Array,
    prior: Whitening,
    template: ParametricLoss,
    noise_root: Array,
    max_steps: int = _MAX_STEPS,
) -> Mode:
    """Levenberg-Marquardt on ``|C^-1 (y - m(u))|^2 / 2 + |u|^2 / 2``.

    Args:
        start: ``(p,)``.
        X, y: n rows and losses.
        prior: of theta.
        template: supplies layout and reference.
        noise_root: C, lower Cholesky factor of the covariance of y about m, n x n, or its diagonal
            ``(n,)`` where the rows are independent.
        max_steps: evaluations of the Jacobian at most.
    """

    def loss(u: Array) -> ParametricLoss:
        return ParametricLoss(template.layout, template.reference, prior.theta(u))

    def whiten(B: Array) -> Array:
        if noise_root.ndim == 1:
            return np.asarray((B.T / noise_root).T)
        return np.asarray(linalg.solve_triangular(noise_root, B, lower=True))

    def objective(u: Array) -> tuple[float, Array]:
        residual = whiten(y - loss(u).value(X))
        return 0.5 * float(residual @ residual + u @ u), residual

    u = start
    value, residual = objective(u)
    damping = 1e-2
    for _ in range(max_steps):
        G = whiten(loss(u).jacobian(X) @ prior.root)
        gradient = G.T @ residual - u
        curvature = G.T @ G
        diagonal = np.diagonal(curvature).copy()
        gain = 0.0
        while damping < 1e8:
            shifted = curvature + np.diag(1.0 + damping * (1.0 + diagonal))
            step = linalg.solve(shifted, gradient, assume_a="pos", check_finite=False)
            trial = np.clip(u + step, -_REACH, _REACH)
            trial_value, trial_residual = objective(trial)
            gain = value - trial_value
            if gain > 0.0:
                break
            damping *= 6.0
        if gain <= 0.0:
            break
        u, value, residual = trial, trial_value, trial_residual
        damping = max(damping / 4.0, 1e-9)
        if gain < _GAIN * max(1.0, value):
            break
    return Mode(u, value)


def ridge_start(X: Array, y: Array, prior: Whitening, template: ParametricLoss) -> Array:
    """A starting ``u`` from a linear fit: the quadratic bowl is linear in z^2, z and z D.

    ``h_j = 2 coef(z_j^2)``, ``a_j = -coef(z_j) / h_j``, ``b_ja = -coef(z_j D_a) / h_j`` and, with
    alpha at its prior, ``R_a = -coef(D_a) / alpha_a``. Columns whose curvature comes out negative
    keep their prior. Offsets of codes are linear too, and needed from the start: without them every
    run of a worse category would look far from the optimum. Far-off runs are damped by refitting
    with weights.
    """
    layout = template.layout
    theta = prior.mean.copy()
    z = X[:, layout.decisions] - 0.5
    D = layout.scales(X) - template.reference
    n, J = z.shape
    A = D.shape[1]
    products = (z[:, :, None] * D[:, None, :]).reshape(n, J * A)
    codes = layout.indicators(X)
    Q = codes.shape[1]
    F = np.concatenate([np.ones((n, 1)), D, z, z**2, products, codes], axis=1)
    # interactions are the best determined by the prior, so they are the most damped
    damping = np.repeat([1e-6, 1e-3, 0.03, 0.3, 0.03], [1, A, 2 * J, J * A, Q])
    excess = np.zeros(n)
    coefficients = np.zeros(F.shape[1])
    for _ in range(3):
        scale = np.median(excess) + 1e-3 * np.max(excess)
        weight = 1.0 / (1.0 + (excess / scale) ** 2) if scale > 0.0 else np.ones(n)
        normal = (F.T * weight) @ F + np.diag(damping)
        coefficients = linalg.solve(normal, F.T @ (weight * y), assume_a="pos")
        offsets = coefficients[F.shape[1] - Q :]
        trend = y - D @ coefficients[1 : 1 + A] - codes @ offsets
        excess = np.maximum(trend - np.quantile(trend, 0.1), 0.0)
    slope, linear, square = np.split(coefficients[1 : 1 + A + 2 * J], [A, A + J])
    product = coefficients[1 + A + 2 * J : F.shape[1] - Q].reshape(J, A)
    theta[0] = coefficients[0]
    theta[layout.offsets] = coefficients[F.shape[1] - Q :]
    exponent = np.exp(theta[layout.log_exponent])
    falls = slope < 0
    theta[layout.log_reducible][falls] = np.log(-slope[falls] / exponent[falls])
    bowls = square > 0
    h = 2.0 * square[bowls]
    theta[layout.log_curvature][bowls] = np.log(h)
    theta[layout.optimum][bowls] = 0.5 - linear[bowls] / h
    drift = theta[layout.drift].reshape(J, A)
    drift[bowls] = -product[bowls] / h[:, None]
    theta[layout.drift] = drift.ravel()
    return np.asarray(np.clip(prior.u(theta), -2.0, 2.0))
