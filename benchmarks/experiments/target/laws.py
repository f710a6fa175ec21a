"""Rivals that predict the loss of runs: Chinchilla's law by Huber loss, a plain process, trees.

N: parameters. D: tokens. A table of features is `(n, d)`, one run a row, each column already on the
scale on which equal distances mean equal changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from benchmarks.experiments.target.question import Array, Foreseen

DELTA = 1e-3  # of ln loss, from which on a residual counts linearly (Hoffmann et al. 2022)
NINETY = 1.6448536269514722  # half-width of a normal central 90 % interval, in sd


@dataclass(frozen=True, slots=True)
class PowerLaw:
    """L = E + A N^-alpha + B D^-beta.

    Attributes:
        E: loss that no size removes.
        ln_A: ln of the loss removed by parameters, at one parameter.
        alpha: exponent of N.
        ln_B: ln of the loss removed by tokens, at one token.
        beta: exponent of D.
    """

    E: float
    ln_A: float
    alpha: float
    ln_B: float
    beta: float

    def predict(self, N: Array, D: Array) -> Array:
        """Return the loss at sizes, `(n,)` each.

        Example:
            >>> law = PowerLaw(1.8, 6.2, 0.35, 7.6, 0.37)
            >>> law.predict(np.array([7e10]), np.array([1.4e12])).round(2)
            array([1.94])
        """
        by_N, by_D = self.ln_A - self.alpha * np.log(N), self.ln_B - self.beta * np.log(D)
        return np.asarray(self.E + np.exp(by_N) + np.exp(by_D))

    def best_size(self, compute: float) -> float:
        """Return the N of least loss where 6 N D = `compute` (Hoffmann et al. 2022, eq. 4)."""
        ln_G = (np.log(self.alpha / self.beta) + self.ln_A - self.ln_B) / (self.alpha + self.beta)
        return float(np.exp(ln_G + self.exponent * np.log(compute / 6.0)))

    @property
    def exponent(self) -> float:
        """The a of N* ~ C^a.

        Example:
            >>> round(PowerLaw(1.8, 6.2, 0.35, 7.6, 0.37).exponent, 3)
            0.514
        """
        return self.beta / (self.alpha + self.beta)


def huber(N: Array, D: Array, loss: Array, delta: float = DELTA) -> PowerLaw:
    """Fit a power law by the Huber loss of ln loss, with L-BFGS from a grid of starts.

    As Hoffmann et al. 2022, appendix D.3, and Besiroglu et al. 2024.

    Args:
        N: parameters, `(n,)`.
        D: tokens, `(n,)`.
        loss: final losses, `(n,)`, positive.
        delta: residual of ln loss from which on it counts linearly.
    """
    from scipy.optimize import minimize

    ln_N, ln_D, ln_loss = np.log(N), np.log(D), np.log(loss)
    middle_N, middle_D = float(ln_N.mean()), float(ln_D.mean())
    n, d = ln_N - middle_N, ln_D - middle_D

    def objective(theta: Array) -> tuple[float, Array]:
        e, a, alpha, b, beta = theta
        parts = np.stack([np.full_like(n, e), a - alpha * n, b - beta * d])
        top = parts.max(axis=0)
        log_sum = top + np.log(np.exp(parts - top).sum(axis=0))
        share = np.exp(parts - log_sum)
        miss = log_sum - ln_loss
        small = np.abs(miss) <= delta
        # In units of delta^2, so that the optimizer's tolerances suit it.
        value = np.where(small, 0.5 * (miss / delta) ** 2, np.abs(miss) / delta - 0.5).sum()
        pull = np.where(small, miss / delta, np.sign(miss)) / delta
        by_N, by_D = pull * share[1], pull * share[2]
        gradient = [(pull * share[0]).sum(), by_N.sum(), -(by_N @ n), by_D.sum(), -(by_D @ d)]
        return float(value) / len(n), np.array(gradient) / len(n)

    floor = float(np.quantile(loss, 0.02))
    spread = max(float(np.quantile(loss, 0.5)) - 0.8 * floor, 0.1 * floor)
    fits = []
    for share, alpha, beta in product((0.5, 0.8), (0.2, 0.5), (0.2, 0.5)):
        start = [np.log(share * floor), np.log(spread / 2), alpha, np.log(spread / 2), beta]
        fits.append(
            minimize(
                objective,
                np.array(start),
                jac=True,
                method="L-BFGS-B",
                bounds=[(-5.0, 5.0), (-15.0, 5.0), (1e-3, 3.0), (-15.0, 5.0), (1e-3, 3.0)],
                options={"maxiter": 2000, "maxfun": 4000},
            )
        )
    e, a, alpha, b, beta = min(fits, key=lambda fit: float(fit.fun)).x.tolist()
    return PowerLaw(float(np.exp(e)), a + alpha * middle_N, alpha, b + beta * middle_D, beta)


def process(told: Array, loss: Array, asked: Array) -> Foreseen:
    """Return what a plain Gaussian process foresees, with 90 % intervals of one run.

    Args:
        told: features of the runs told, `(n, d)`.
        loss: their losses, `(n,)`.
        asked: features to predict at, `(m, d)`.
    """
    from surrogates.data import ColumnKind, Columns, TrainingData
    from surrogates.gp import GaussianProcess

    low, width = told.min(axis=0), np.ptp(told, axis=0)
    width[width == 0.0] = 1.0
    count = told.shape[1]
    names = tuple(f"x{i}" for i in range(count))
    columns = Columns((ColumnKind.DECISION,) * count, names, low, width, (0,) * count)
    level, unit = float(loss.mean()), float(loss.std()) or 1.0
    data = TrainingData((told - low) / width, (loss - level) / unit, columns)
    model = GaussianProcess()
    predictor = model.predictor(data, model.learn(data))
    belief = predictor.posterior((asked - low) / width)
    middle = level + unit * belief.mean
    half = NINETY * unit * np.sqrt(belief.variance + predictor.noise_variance)
    return Foreseen(middle, middle - half, middle + half)


def trees(told: Array, loss: Array, asked: Array, seed: int = 0) -> Foreseen:
    """Return what gradient-boosted trees foresee; the ends are quantiles at 5 and 95 %.

    Trees on the configuration are a baseline of NCPL (arXiv 2602.10300). Arguments as `process`.
    """
    from sklearn.ensemble import HistGradientBoostingRegressor

    def fitted(**how: object) -> Array:
        model = HistGradientBoostingRegressor(
            random_state=seed, max_iter=300, learning_rate=0.05, min_samples_leaf=5, **how
        )
        return np.asarray(model.fit(told, loss).predict(asked), dtype=np.float64)

    low, high = (fitted(loss="quantile", quantile=level) for level in (0.05, 0.95))
    return Foreseen(fitted(), np.minimum(low, high), np.maximum(low, high))
