"""Robust maximum-a-posteriori fit of the scaling law: start and descent.

Notation as in `surrogates.scaling_law.parametric_loss`, with `theta = mu + L u` and prior
`u ~ N(0, I)`. The fit maximizes the posterior under::

    y_i = m(x_i; u) + e_i,    e_i ~ N(0, s^2 + (c d_i)^2)

where `d_i`, the distance of run i from the best loss at its scale, is taken from the iterate
before. Runs far above the optimum, diverged ones above all, thus count less and less (for large d_i
by 1/d_i^2, as under a Cauchy likelihood): a quadratic bowl is only true near its bottom, and that
is where the answer lies.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg

from surrogates.data import Array
from surrogates.scaling_law.parametric_loss import ParametricLoss
from surrogates.scaling_law.prior import Reach, Whitening

_MAX_STEPS = 40  # of Levenberg-Marquardt
_GAIN = 1e-5  # nats; a step that gains less ends the search
_WIDE = 400  # parameters beyond which fewer rows are solved in their own space
_REACH = 4.0  # prior standard deviations that any parameter may move from its mean


@dataclass(frozen=True, slots=True)
class Mode:
    """End point of a search.

    Args:
        u: `(p,)`, whitened parameters.
        value: negative log posterior there, constants dropped.

    Example:
        >>> Mode(np.zeros(2), 1.5).value
        1.5
    """

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
    """Minimize `|C^-1 (y - m(u))|^2 / 2 + |u|^2 / 2` by Levenberg-Marquardt.

    Args:
        start: `(p,)`.
        X: `n x d`.
        y: `(n,)`, losses.
        prior: prior of theta.
        template: loss that supplies layout and reference.
        noise_root: C, lower Cholesky factor of the covariance of y about m, `n x n`, or its
            diagonal `(n,)` where the rows are independent.
        max_steps: largest number of evaluations of the Jacobian.

    Returns:
        The mode found.

    Example:
        >>> from surrogates.data import Columns
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> from surrogates.scaling_law.prior import LawPrior, LossUnits, whitening
        >>> columns = Columns.of_decisions("lr")
        >>> layout, X = ThetaLayout.of(columns, 0), np.linspace(0.0, 1.0, 9)[:, None]
        >>> y = 3.0 + (X[:, 0] - 0.3) ** 2
        >>> reach, units = Reach.of(columns, X, y), LossUnits.of(y)
        >>> prior = whitening(layout, columns, np.zeros(0), units, reach, LawPrior(), None)
        >>> template = ParametricLoss(layout, np.zeros(0), prior.mean)
        >>> start = ridge_start(X, y, prior, template, reach)
        >>> mode = descend(start, X, y, prior, template, np.full(9, 0.01))
        >>> prior.theta(mode.u)[layout.optimum].round(1).tolist()
        [0.3]
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
        few_rows = _WIDE < len(u) > 2 * len(y)
        curvature = None if few_rows else G.T @ G
        diagonal = (G * G).sum(axis=0) if curvature is None else np.diagonal(curvature).copy()
        gain = 0.0
        while damping < 1e8:
            shift = 1.0 + damping * (1.0 + diagonal)
            if curvature is None:
                step = _solve_by_rows(G, shift, gradient)
            else:
                shifted = curvature + np.diag(shift)
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


def _solve_by_rows(G: Array, shift: Array, b: Array) -> Array:
    """Return `(G' G + diag(shift))^-1 b` by Woodbury's identity, O(n^2 p) for G `n x p`."""
    scaled = G / shift
    inner = np.eye(len(G)) + scaled @ G.T
    correction = linalg.solve(inner, scaled @ b, assume_a="pos", check_finite=False)
    return np.asarray(b / shift - scaled.T @ correction)


def ridge_start(
    X: Array, y: Array, prior: Whitening, template: ParametricLoss, reach: Reach
) -> Array:
    """Return a starting `u` from a linear fit: the quadratic bowl is linear in z^2, z and z D.

    `h_j = 2 coef(z_j^2)`, `a_j = -coef(z_j) / h_j`, `b_ja = -coef(z_j D_a) / h_j` and, with alpha
    at its prior, `R_a = -coef(D_a) / alpha_a`. Columns whose curvature comes out negative keep
    their prior. Offsets of codes are linear too, and needed from the start: without them every run
    of a worse category would look far from the optimum. Far-off runs are damped by refitting with
    weights.

    Args:
        X: `n x d`, n >= 1.
        y: `(n,)`, losses.
        prior: prior of theta.
        template: loss that supplies layout and reference.
        reach: place and width of the runs.

    Example:
        See `descend`.
    """
    layout = template.layout
    theta = prior.mean.copy()
    middle = prior.mean[layout.optimum]
    step = reach.step
    z = (X[:, layout.decisions] - middle) / step
    D = layout.scales(X) - template.reference
    n, J = z.shape
    A = D.shape[1]
    products = (z[:, :, None] * D[:, None, :]).reshape(n, J * A)
    codes = layout.columns.one_hot(X)
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
    theta[layout.log_curvature][bowls] = np.log(h) - 2.0 * np.log(step[bowls])
    theta[layout.optimum][bowls] = middle[bowls] - step[bowls] * linear[bowls] / h
    drift = theta[layout.drift].reshape(J, A)
    drift[bowls] = -step[bowls, None] * product[bowls] / h[:, None]
    theta[layout.drift] = drift.ravel()
    return np.asarray(np.clip(prior.u(theta), -2.0, 2.0))
