"""Cost model: a log-linear law in the scales with a Gaussian process on top.

Notation, for one row x with natural scale coordinates `s_a` (ln N, ln D, ln epochs, ..)::

    ln c = c0 + sum_a gamma_a (s_a - sbar_a) + sum_j w_j (x_j - 1/2) + offsets + f(x) + e

`gamma_a ~ N(1, 0.3^2)`: compute is about 6 N D (Kaplan et al. 2020, section 2.1), seconds nearly
so; `w_j ~ N(0, 1)` per box width; `c0` vague. The linear coefficients are integrated out
(`surrogates.basis_gp`), so the interval of a cost at a scale never run before is as wide as it
should be. `f` is a Matern process, `e` the run-to-run noise; both learned by marginal likelihood.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import log_ndtr

from surrogates.basis_gp import (
    BasisKernel,
    NoisePrior,
    ProcessPrior,
    ResidualCovariance,
    fit_residual,
)
from surrogates.data import Array, Columns, IntArray, TrainingData
from surrogates.gp import GPPredictor, NormalPrior, representative

_LOG_ROOT_TAU = 0.5 * np.log(2.0 * np.pi)


@dataclass(frozen=True, slots=True)
class CostModel:
    """Prior of ln cost; `fit` turns it into a `CostPredictor`.

    Args:
        exponent: prior of every gamma (slope in ln scale or ln fidelity).
        level_sd: prior sd of c0 about the median cost, in e-folds.
        slope_sd: prior sd of w, in e-folds across the box of a decision column.
        code_sd: prior sd of each code's offset, in e-folds.
        variance: prior of the logarithm of the residual variance.
        noise: prior of the logarithm of the run-to-run variance.
        max_rows: number of rows beyond which only `representative` ones teach hyperparameters.

    Example:
        >>> from surrogates.data import ColumnKind
        >>> columns = Columns(
        ...     (ColumnKind.SCALE,), ("params",), np.log([1e6]), np.log([1e3]), (0,)
        ... )
        >>> X = np.array([[0.0], [0.2], [0.4]])
        >>> seconds = 1e-5 * np.exp(columns.origin + columns.width * X)[:, 0]
        >>> predictor = CostModel().fit(TrainingData(X, np.log(seconds), columns))
        >>> np.exp(predictor.posterior(np.array([[1.0]])).mean).round(-3).tolist()
        [10000.0]
    """

    exponent: NormalPrior = NormalPrior(1.0, 0.3)
    level_sd: float = 5.0
    slope_sd: float = 1.0
    code_sd: float = 0.7
    variance: NormalPrior = NormalPrior(2.0 * float(np.log(0.2)), 1.5)
    noise: NormalPrior = NormalPrior(2.0 * float(np.log(0.05)), 2.0)
    max_rows: int = 300

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """Return the hyperparameters `theta` of highest posterior density for `data.y` = ln cost.

        Args:
            data: n rows; n may be 0.
            warm: an earlier `theta` to start from.
            cold: whether to start from the prior mean instead; it always is without `warm`.
        """
        if len(data) > self.max_rows:
            rows = representative(data.X[:, data.columns.numeric], data.y, self.max_rows)
            data = TrainingData(data.X[rows], data.y[rows], data.columns)
        phi = self._basis(data).value(data.X)
        residual = data.y - self._mean(data).value(data.X)
        start = None if cold else warm
        errors = NoisePrior(self.noise, NormalPrior(0.0, 1.0), np.zeros(len(data)))
        return fit_residual(residual, phi @ phi.T, (self._part(data),), errors, warm=start)

    def fit(self, data: TrainingData) -> CostPredictor:
        """Return the posterior under hyperparameters learned from `data` itself."""
        return self.predictor(data, self.learn(data))

    def predictor(self, data: TrainingData, theta: Array) -> CostPredictor:
        """Return the posterior under fixed `theta`.

        Args:
            data: rows and ln costs.
            theta: hyperparameters.

        Raises:
            NumericalError: if the covariance matrix cannot be factorized.
        """
        residual = ResidualCovariance.from_theta((self._part(data),), theta)
        kernel = BasisKernel(residual.kernels, self._basis(data))
        return CostPredictor.build(
            kernel, data.X, data.y, residual.noise_variance, self._mean(data)
        )

    def _mean(self, data: TrainingData) -> LinearMean:
        columns, axes = data.columns, _axes(data.columns)
        slope = np.zeros(len(columns.kinds))
        slope[axes] = self.exponent.mean * columns.width[axes]
        reference = _reference(data)
        level = float(np.median(data.y - (data.X - reference) @ slope)) if len(data) else 0.0
        return LinearMean(level, slope, reference)

    def _basis(self, data: TrainingData) -> LinearBasis:
        columns, axes = data.columns, _axes(data.columns)
        sd = np.zeros(len(columns.kinds))
        sd[axes] = self.exponent.sd * columns.width[axes]
        sd[columns.decision] = self.slope_sd
        return LinearBasis(
            columns, _reference(data), sd[columns.numeric], self.level_sd, self.code_sd
        )

    def _part(self, data: TrainingData) -> ProcessPrior:
        columns = data.columns
        p = len(columns.numeric)
        length = NormalPrior(float(np.log(1.0 + 0.3 * p)), 0.7)
        return ProcessPrior(
            data.X,
            columns.numeric,
            columns.categorical,
            self.variance,
            (length,) * p,
            NormalPrior(-0.5 * float(np.log(max(p, 1))), 1.0),
        )


@dataclass(frozen=True, slots=True)
class LinearMean:
    """The prior mean `level + (x - reference) . slope`.

    Args:
        level: value at the reference.
        slope: `(d,)`, slope per unit of each column.
        reference: `(d,)`.

    Example:
        >>> LinearMean(1.0, np.array([2.0]), np.array([0.5])).value(np.array([[1.5]])).tolist()
        [3.0]
    """

    level: float
    slope: Array
    reference: Array

    def value(self, X: Array) -> Array:
        """Return the mean at the rows of `X`, `(n,)`."""
        return np.asarray(self.level + (X - self.reference) @ self.slope)

    def gradient(self, X: Array) -> Array:
        """Return the slope at every row, `n x d`."""
        return np.tile(self.slope, (len(X), 1))


@dataclass(frozen=True, slots=True)
class LinearBasis:
    """A constant, every numeric column about `reference` and every code, times prior sds.

    Args:
        columns: roles of the columns.
        reference: `(d,)`.
        sd: `(p,)`, prior sd of the slope of each numeric column.
        level_sd: prior sd of the constant.
        code_sd: prior sd of the offset of each code.

    Example:
        >>> columns = Columns.of_decisions("x")
        >>> basis = LinearBasis(columns, np.array([0.5]), np.array([2.0]), 5.0, 1.0)
        >>> basis.value(np.array([[1.0]])).tolist()
        [[5.0, 1.0]]
    """

    columns: Columns
    reference: Array
    sd: Array
    level_sd: float
    code_sd: float

    def value(self, X: Array) -> Array:
        """Return the features, `n x p`."""
        numeric = self.columns.numeric
        linear = (X[:, numeric] - self.reference[numeric]) * self.sd
        codes = self.code_sd * self.columns.one_hot(X)
        return np.concatenate([np.full((len(X), 1), self.level_sd), linear, codes], axis=1)

    def gradient(self, X: Array) -> Array:
        """Return the derivatives of the features, `n x p x d`."""
        numeric = self.columns.numeric
        p = 1 + len(numeric) + sum(self.columns.categories)
        gradient = np.zeros((len(X), p, X.shape[1]))
        gradient[:, 1 + np.arange(len(numeric)), numeric] = self.sd
        return gradient


@dataclass(frozen=True, slots=True)
class CostPredictor(GPPredictor):
    """Posterior of ln cost, noise-free like every predictor; its own methods add the noise.

    Example:
        >>> X = np.array([[0.0], [0.5], [1.0]])
        >>> data = TrainingData(X, np.log([1.0, 2.0, 4.0]), Columns.of_decisions("width"))
        >>> predictor = CostModel().fit(data)
        >>> row = np.array([[0.5]])
        >>> for cap in (1.0, 2.0, 4.0):
        ...     print(cap, np.exp(predictor.log_probability_below(row, np.log(cap))).round(2))
        1.0 [0.]
        2.0 [0.5]
        4.0 [1.]
    """

    def log_probability_below(self, X: Array, log_cap: float, widening: float = 1.0) -> Array:
        """Return ln P(cost of one run <= cap), `(m,)`, exact also where P underflows.

        `P = Phi((ln cap - m) / sqrt(v + noise))`.

        Args:
            X: `m x d`.
            log_cap: ln cap.
            widening: factor on the standard deviation, such as a calibration's.
        """
        posterior = self.posterior(X)
        spread = widening * self._spread(posterior.variance)
        return np.asarray(log_ndtr((log_cap - posterior.mean) / spread))

    def log_probability_below_gradient(
        self, X: Array, log_cap: float, widening: float = 1.0
    ) -> tuple[Array, Array]:
        """Return `log_probability_below` `(m,)` and its derivative in `X`, `m x d`.

        Args:
            X: `m x d`.
            log_cap: ln cap.
            widening: factor on the standard deviation.
        """
        posterior = self.posterior_gradient(X)
        spread = widening * self._spread(posterior.variance)
        z = (log_cap - posterior.mean) / spread
        log_p = log_ndtr(z)
        d_z = -posterior.d_mean / spread[:, None]
        d_z -= (0.5 * z * (widening / spread) ** 2)[:, None] * posterior.d_variance
        # d ln Phi(z) = pdf / Phi dz, the ratio formed in logs so that it survives Phi = 0
        ratio = np.exp(-0.5 * z**2 - _LOG_ROOT_TAU - log_p)
        return np.asarray(log_p), ratio[:, None] * d_z

    def _spread(self, variance: Array) -> Array:
        return np.asarray(np.sqrt(variance + self.noise_variance))


def _reference(data: TrainingData) -> Array:
    """Return the anchor of the linear law, `(d,)`: the mean scale and the middle of the box."""
    reference = np.full(data.X.shape[1], 0.5)
    if len(data):
        axes = _axes(data.columns)
        reference[axes] = data.X[:, axes].mean(axis=0)
    return reference


def _axes(columns: Columns) -> IntArray:
    """Return the columns whose natural coordinate is the logarithm of an amount of work."""
    return np.concatenate([columns.scale, columns.fidelity])
