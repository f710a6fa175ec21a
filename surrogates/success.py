"""Will a run survive? Bayesian logistic regression on linear and quadratic features.

Notation: ``u_j = x_j - 1/2`` numeric entries about the middle of the box; features ``phi(x)`` (p,) are
1, every ``u_j`` and ``u_j^2 - 1/12`` (centred under the uniform law), and one indicator per code of a
categorical or activity column. Weights ``w ~ N(0, S)``, S diagonal, and::

    P(success | x, w) = sigmoid(f(x)),     f(x) = o(x) + phi(x)^T w
    o(x)              = logit(P0) sqrt(1 + pi v0(x) / 8),    v0(x) = phi(x)^T S phi(x)

The offset ``o`` makes the *averaged* prior probability equal ``P0`` at every x. A constant offset would
not: where the prior is vague, averaging a sigmoid over it gives one half, and an untouched corner of
the box would look like a coin toss.

The posterior of w is approximated by Laplace, N(w_hat, C) (Bishop 2006, section 4.5), and predictions
average the sigmoid over f ~ N(m, v) by MacKay's formula (1992, eq. 10)::

    P(success | x) = sigmoid(m / sqrt(1 + pi v / 8)),    v a *variance*
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import linalg
from scipy.special import expit, log_expit, logit

from surrogates.data import Array, Columns, TrainingData

_MACKAY = np.pi / 8.0
_NEWTON_STEPS = 50
_TOLERANCE = 1e-10  # of the log posterior, in nats


@dataclass(frozen=True, slots=True)
class SuccessModel:
    """Prior beliefs about failures; :meth:`fit` turns them into a :class:`SuccessPredictor`.

    Args:
        prior_probability: P0, probability of success before any data, in (0, 1).
        intercept_sd: log-odds by which the whole box may differ from P0.
        slope_sd: log-odds across the width of the box that one numeric column may explain.
        code_sd: log-odds that one code of a categorical column may explain.
        busy: number of numeric columns above which ``slope_sd`` shrinks like 1/sqrt(d), so that
            the prior spread of f does not grow with the dimension.
    """

    prior_probability: float = 0.95
    intercept_sd: float = 1.5
    slope_sd: float = 6.0
    code_sd: float = 1.5
    busy: int = 6

    def __post_init__(self) -> None:
        if not 0.0 < self.prior_probability < 1.0:
            raise ValueError(
                "0 < prior_probability < 1 must hold, "
                f"got {self.prior_probability}; 0.95 is the default"
            )

    def fit(self, data: TrainingData) -> SuccessPredictor:
        """Laplace posterior given ``data.y`` in {0, 1} (1 = success); n may be 0.

        Raises:
            ValueError: if a label is neither 0 nor 1.
        """
        if not np.all((data.y == 0.0) | (data.y == 1.0)):
            raise ValueError("success labels must be 0 or 1, encode a failed run as 0")
        columns = data.columns
        prior_sd = self._prior_sd(columns)
        blank = SuccessPredictor(
            columns, prior_sd, float(logit(self.prior_probability)), np.zeros_like(prior_sd), None
        )
        phi = blank.features(data.X) * prior_sd  # whitened: weights ~ N(0, I)
        weights, root = _laplace(phi, data.y, blank.offset(phi))
        return SuccessPredictor(columns, prior_sd, blank.prior_logit, weights, root)

    def _prior_sd(self, columns: Columns) -> Array:
        d = len(columns.numeric)
        slope = self.slope_sd * min(1.0, np.sqrt(self.busy / max(d, 1)))
        codes = sum(columns.categories[q] for q in columns.categorical)
        return np.concatenate(
            [[self.intercept_sd], np.full(2 * d, slope), np.full(codes, self.code_sd)]
        )


@dataclass(frozen=True, slots=True)
class SuccessPredictor:
    """Posterior over the weights, and the probabilities that follow from it.

    Attributes:
        prior_sd: ``(p,)``, sqrt of the diagonal of S.
        prior_logit: logit(P0).
        weights: ``(p,)``, w_hat / prior_sd.
        root: lower Cholesky factor of the whitened posterior precision, p x p; None means I (no data).
    """

    columns: Columns
    prior_sd: Array
    prior_logit: float
    weights: Array
    root: Array | None

    def probability(self, X: Array) -> Array:
        """P(success) at the m rows of ``X``, ``(m,)``."""
        phi = self.features(X) * self.prior_sd
        mean, variance = self._moments(phi)
        return np.asarray(expit(mean / np.sqrt(1.0 + _MACKAY * variance)))

    def log_probability(self, X: Array) -> Array:
        """ln P(success), ``(m,)``, exact also where P underflows."""
        phi = self.features(X) * self.prior_sd
        mean, variance = self._moments(phi)
        return np.asarray(log_expit(mean / np.sqrt(1.0 + _MACKAY * variance)))

    def log_probability_gradient(self, X: Array) -> tuple[Array, Array]:
        """ln P(success) ``(m,)`` and its derivative in ``X``, m x d, zero in categorical columns."""
        phi = self.features(X) * self.prior_sd
        mean, variance = self._moments(phi)
        shrink = np.sqrt(1.0 + _MACKAY * variance)
        # f = o + phi w, o = c sqrt(1 + pi v0 / 8); v = phi C phi; all through d/dphi
        d_offset = self.prior_logit * _MACKAY * phi / self._widening(phi)[:, None]
        d_mean = d_offset + self.weights
        d_variance = 2.0 * self._covariance_product(phi)
        d_score = d_mean / shrink[:, None]
        d_score -= (0.5 * _MACKAY * mean / shrink**3)[:, None] * d_variance
        score = mean / shrink
        d_score *= expit(-score)[:, None]  # d ln sigmoid(a) = sigmoid(-a) da
        gradient = np.zeros(X.shape)
        numeric = self.columns.numeric
        d = len(numeric)
        linear, square = d_score[:, 1 : 1 + d], d_score[:, 1 + d : 1 + 2 * d]
        u = X[:, numeric] - 0.5
        gradient[:, numeric] = linear * self.prior_sd[1 : 1 + d]
        gradient[:, numeric] += 2.0 * u * square * self.prior_sd[1 + d : 1 + 2 * d]
        return np.asarray(log_expit(score)), gradient

    def features(self, X: Array) -> Array:
        """``phi`` at the rows of ``X``, m x p."""
        u = X[:, self.columns.numeric] - 0.5
        indicators = [
            (X[:, q, None] == np.arange(self.columns.categories[q])).astype(np.float64)
            for q in self.columns.categorical
        ]
        return np.concatenate([np.ones((len(X), 1)), u, u**2 - 1.0 / 12.0, *indicators], axis=1)

    def offset(self, phi: Array) -> Array:
        """``o`` at whitened features m x p."""
        return np.asarray(self.prior_logit * self._widening(phi))

    def _widening(self, phi: Array) -> Array:
        return np.asarray(np.sqrt(1.0 + _MACKAY * np.einsum("ij,ij->i", phi, phi)))

    def _moments(self, phi: Array) -> tuple[Array, Array]:
        """Mean and variance of f at whitened features, ``(m,)`` each."""
        variance = np.einsum("ij,ij->i", phi, self._covariance_product(phi))
        return self.offset(phi) + phi @ self.weights, variance

    def _covariance_product(self, phi: Array) -> Array:
        """``phi C`` for the whitened posterior covariance C."""
        if self.root is None:
            return phi
        return np.asarray(linalg.cho_solve((self.root, True), phi.T).T)


def _laplace(phi: Array, labels: Array, offset: Array) -> tuple[Array, Array | None]:
    """Mode of the whitened weights and the Cholesky factor of the precision there.

    The log posterior is strictly concave, so Newton with step halving reaches its only maximum.
    """
    p = phi.shape[1]
    weights = np.zeros(p)
    if not len(labels):
        return weights, None
    signs = 2.0 * labels - 1.0

    def log_posterior(w: Array) -> float:
        return float(np.sum(log_expit(signs * (offset + phi @ w))) - 0.5 * w @ w)

    value = log_posterior(weights)
    for _ in range(_NEWTON_STEPS):
        gradient = phi.T @ (labels - expit(offset + phi @ weights)) - weights
        step = linalg.cho_solve((_precision_root(phi, offset, weights), True), gradient)
        gain = float(gradient @ step)
        if gain < _TOLERANCE:
            break
        length = 1.0
        while (trial := log_posterior(weights + length * step)) < value and length > 1e-6:
            length *= 0.5
        weights, value = weights + length * step, trial
    return weights, _precision_root(phi, offset, weights)


def _precision_root(phi: Array, offset: Array, weights: Array) -> Array:
    """Lower Cholesky factor of ``I + phi^T W phi``, W the Bernoulli variances."""
    p = expit(offset + phi @ weights)
    precision = np.eye(phi.shape[1]) + (phi * (p * (1.0 - p))[:, None]).T @ phi
    return np.asarray(linalg.cholesky(precision, lower=True))
