"""Probability of success of a run: Bayesian logistic regression on linear and quadratic features.

Notation: `u_j = x_j - 1/2` numeric entries about the middle of the box; features `phi(x)` (p,) are
1, every `u_j`, every `u_j^2 - 1/12` (centered under the uniform law) and one indicator per code of
a categorical or activity column. Weights `w ~ N(0, S)`, S diagonal, and::

    P(success | x, w) = sigmoid(f(x)),     f(x) = o(x) + phi(x)^T w
    o(x)              = logit(P0) sqrt(1 + pi v0(x) / 8),    v0(x) = phi(x)^T S phi(x)

The offset `o` makes the *averaged* prior probability equal `P0` at every x. A constant offset would
not: where the prior is vague, averaging a sigmoid over it gives one half, and an unexplored corner
of the box would look like a coin toss.

Most columns have nothing to do with failures, so S is learned: both weights of numeric column j
share a variance `r_j slope_sd^2` with an inverse-gamma prior of mode below 1, updated by
expectation maximization (automatic relevance determination; Bishop 2006, section 7.2). Measured on
17 successes and 3 failures in 8 columns, of which one matters: held-out log loss 0.20, with fixed S
0.36.

The posterior of w is approximated by Laplace, N(w_hat, C) (Bishop 2006, section 4.5), and
predictions average the sigmoid over f ~ N(m, v) by MacKay's formula (1992, eq. 10)::

    P(success | x) = sigmoid(m / sqrt(1 + pi v / 8)),    v a *variance*
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import linalg
from scipy.special import expit, log_expit, logit

from surrogates.data import Array, Columns, TrainingData

_MACKAY = np.pi / 8.0
_NEWTON_STEPS = 50
_TOLERANCE = 1e-9  # of the log posterior, in nats
_RELEVANCE_PASSES = 5


@dataclass(frozen=True, slots=True)
class FeasibilityModel:
    """Prior of failures; `fit` turns it into a `FeasibilityPredictor`.

    Args:
        prior_probability: P0, probability of success before any data, in (0, 1).
        intercept_sd: log-odds by which the whole box may differ from P0.
        slope_sd: log-odds across the width of the box that one numeric column may explain.
        scale_square_sd: the same for the squares of scale columns; None is slope_sd.
        code_sd: log-odds that one code of a categorical column may explain.
        relevance: weight of the prior "this column explains nothing" in relevance determination, in
            observations; small values switch columns off sooner.

    Raises:
        ValueError: if `prior_probability` is not in (0, 1).

    Example:
        >>> X = np.linspace(0.0, 1.0, 20)[:, None]
        >>> succeeded = (X[:, 0] < 0.7).astype(float)
        >>> data = TrainingData(X, succeeded, Columns.of_decisions("lr"))
        >>> predictor = FeasibilityModel().fit(data)
        >>> predictor.probability(np.array([[0.2], [0.95]])).round(2).tolist()
        [1.0, 0.08]
    """

    prior_probability: float = 0.95
    intercept_sd: float = 1.5
    slope_sd: float = 6.0
    scale_square_sd: float | None = None
    code_sd: float = 1.5
    relevance: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 < self.prior_probability < 1.0:
            raise ValueError(
                "0 < prior_probability < 1 must hold, "
                f"got {self.prior_probability}; 0.95 is the default"
            )

    def fit(self, data: TrainingData) -> FeasibilityPredictor:
        """Return the Laplace posterior given labels `data.y` in {0, 1} (1 = success).

        Args:
            data: n rows; n may be 0.

        Raises:
            ValueError: if a label is neither 0 nor 1.
        """
        if not np.all((data.y == 0.0) | (data.y == 1.0)):
            raise ValueError("success labels must be 0 or 1, encode a failed run as 0")
        columns = data.columns
        ceiling = self._prior_sd(columns)
        predictor = FeasibilityPredictor(
            columns,
            ceiling,
            ceiling,
            float(logit(self.prior_probability)),
            np.zeros_like(ceiling),
            np.eye(len(ceiling)),
        )
        if not len(data):
            return predictor
        features = predictor.features(data.X)
        for _ in range(_RELEVANCE_PASSES):
            predictor = _laplace(predictor, features, data.y)
            predictor = replace(predictor, prior_sd=self._relevant_sd(predictor, ceiling))
        return _laplace(predictor, features, data.y)

    def _relevant_sd(self, predictor: FeasibilityPredictor, ceiling: Array) -> Array:
        """Return the prior sd of every weight, `(p,)`, after one step of EM on `r_j`."""
        d = len(predictor.columns.numeric)
        second_moment = predictor.weights**2 + np.diagonal(predictor.covariance)
        second_moment = second_moment * (predictor.prior_sd / ceiling) ** 2
        energy = 0.5 * (second_moment[1 : 1 + d] + second_moment[1 + d : 1 + 2 * d])
        relevance = np.sqrt((self.relevance + energy) / (self.relevance + 1.0))
        sd = ceiling.copy()
        sd[1 : 1 + 2 * d] *= np.tile(relevance, 2)
        return sd

    def _prior_sd(self, columns: Columns) -> Array:
        d = len(columns.numeric)
        codes = sum(columns.categories[q] for q in columns.categorical)
        squares = np.full(d, self.slope_sd)
        if self.scale_square_sd is not None:
            squares[np.isin(columns.numeric, columns.scale)] = self.scale_square_sd
        slopes = np.full(d, self.slope_sd)
        return np.concatenate([[self.intercept_sd], slopes, squares, np.full(codes, self.code_sd)])


@dataclass(frozen=True, slots=True)
class FeasibilityPredictor:
    """Posterior over the weights, and the probabilities that follow from it.

    Args:
        columns: roles of the columns.
        ceiling: `(p,)`, sqrt of the diagonal of S before relevance is learned.
        prior_sd: `(p,)`, sqrt of the diagonal of S.
        prior_logit: logit(P0).
        weights: `(p,)`, w_hat / prior_sd.
        covariance: `p x p`, C in the same units.

    Example:
        >>> nothing = TrainingData(np.zeros((0, 1)), np.zeros(0), Columns.of_decisions("lr"))
        >>> predictor = FeasibilityModel(prior_probability=0.9).fit(nothing)
        >>> predictor.probability(np.array([[0.0], [5.0]])).round(3).tolist()
        [0.9, 0.9]
    """

    columns: Columns
    ceiling: Array
    prior_sd: Array
    prior_logit: float
    weights: Array
    covariance: Array

    def probability(self, X: Array) -> Array:
        """Return P(success) at the m rows of `X`, `(m,)`."""
        phi = self.features(X) * self.prior_sd
        mean, variance = self._moments(phi)
        return np.asarray(expit(mean / np.sqrt(1.0 + _MACKAY * variance)))

    def log_probability(self, X: Array) -> Array:
        """Return ln P(success) at the rows of `X`, `(m,)`, exact also where P underflows."""
        phi = self.features(X) * self.prior_sd
        mean, variance = self._moments(phi)
        return np.asarray(log_expit(mean / np.sqrt(1.0 + _MACKAY * variance)))

    def log_probability_gradient(self, X: Array) -> tuple[Array, Array]:
        """Return `log_probability` `(m,)` and its derivative in `X`, `m x d`."""
        phi = self.features(X) * self.prior_sd
        mean, variance = self._moments(phi)
        shrink = np.sqrt(1.0 + _MACKAY * variance)
        # f = o + phi w, o = c sqrt(1 + pi v0 / 8); v = phi C phi; all through d/dphi
        d_offset = self.prior_logit * _MACKAY * phi * self._held**2 / self._widening(phi)[:, None]
        d_mean = d_offset + self.weights
        d_variance = 2.0 * phi @ self.covariance
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

    def sample(self, X: Array, count: int, rng: np.random.Generator) -> Array:
        """Return P(success | w) at the rows of `X` under posterior draws of w.

        All rows of one draw share their w, so the place where a draw crosses one half is itself a
        draw.

        Args:
            X: `m x d`.
            count: number of draws.
            rng: source of randomness.

        Returns:
            `count x m`.
        """
        phi = self.features(X) * self.prior_sd
        root = linalg.cholesky(self.covariance, lower=True)
        weights = self.weights + rng.standard_normal((count, len(self.weights))) @ root.T
        return np.asarray(expit(self.offset(phi) + weights @ phi.T))

    def features(self, X: Array) -> Array:
        """Return `phi` at the rows of `X`, `m x p`."""
        u = X[:, self.columns.numeric] - 0.5
        # an empty block would change the memory order of the result, and so the last bits of a fit
        codes = [self.columns.one_hot(X)] if len(self.columns.categorical) else []
        return np.concatenate([np.ones((len(X), 1)), u, u**2 - 1.0 / 12.0, *codes], axis=1)

    def offset(self, phi: Array) -> Array:
        """Return `o` at whitened features `phi`, `m x p`."""
        return np.asarray(self.prior_logit * self._widening(phi))

    @property
    def _held(self) -> Array:
        """Return how much of each whitened feature enters the offset, `(p,)`.

        Growth of S beyond the ceiling does not enter: the weights must outgrow the offset, so an
        offset that grew with them would drive both until every probability is 0 or 1 (successes
        inside a ball, 20 runs in 8 columns: held-out log loss 4.1; held back 0.9).
        """
        return np.minimum(1.0, self.ceiling / self.prior_sd)

    def _widening(self, phi: Array) -> Array:
        held = phi * self._held
        return np.asarray(np.sqrt(1.0 + _MACKAY * np.einsum("ij,ij->i", held, held)))

    def _moments(self, phi: Array) -> tuple[Array, Array]:
        """Return mean and variance of f at whitened features, `(m,)` each."""
        variance = np.einsum("ij,ij->i", phi @ self.covariance, phi)
        return self.offset(phi) + phi @ self.weights, variance


def _laplace(
    predictor: FeasibilityPredictor, features: Array, labels: Array
) -> FeasibilityPredictor:
    """Return the predictor with the mode of the whitened weights and the covariance there.

    The log posterior is strictly concave, so Newton with step halving reaches its only maximum.

    Args:
        predictor: prior and a starting point.
        features: `n x p`, n >= 1.
        labels: `(n,)`, 0 or 1.
    """
    phi = features * predictor.prior_sd
    offset = predictor.offset(phi)
    signs = 2.0 * labels - 1.0

    def log_posterior(w: Array) -> float:
        return float(np.sum(log_expit(signs * (offset + phi @ w))) - 0.5 * w @ w)

    weights = predictor.weights
    value = log_posterior(weights)
    for _ in range(_NEWTON_STEPS):
        p = expit(offset + phi @ weights)
        precision = (phi * (p * (1.0 - p))[:, None]).T @ phi
        precision[np.diag_indices(len(weights))] += 1.0
        root = linalg.cho_factor(precision, lower=True)
        gradient = phi.T @ (labels - p) - weights
        step = linalg.cho_solve(root, gradient)
        if gradient @ step < _TOLERANCE:
            break
        length = 1.0
        while (trial := log_posterior(weights + length * step)) < value and length > _TOLERANCE:
            length *= 0.5
        weights, value = weights + length * step, trial
    return replace(
        predictor, weights=weights, covariance=linalg.cho_solve(root, np.eye(len(weights)))
    )
