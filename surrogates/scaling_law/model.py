"""The loss model: a scaling law over a drifting bowl, and a Gaussian process on what it misses.

::

    y = m(x; theta) + g(z~, s) + q(s) + r(s) + e         theta = mu + L u,  u ~ N(0, I)

`m` is the parametric loss of `surrogates.scaling_law.parametric_loss`; `g` a Matern process in
*drift-aligned* coordinates `z~ = z - z*(s)`, so that what a proxy taught about a place relative to
its optimum holds at the same relative place of the target; `q` a Matern process in the scales
alone, which lets the law be wrong; `r` another with a length of a tenth of an e-fold: what all runs
of one size share, such as a deeper or wider shape than the law's average, and no other size does;
`e ~ N(0, v + (c d)^2 (1 + (d / spread)^2))` with d the distance above the best loss at that scale.
The second term is the model discrepancy variance: the bowl is accurate only near its bottom, and a
run that left the bowl altogether, about to diverge, says next to nothing about where the bottom is.

How the uncertainty of theta enters every prediction: `surrogates.scaling_law.linearized`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from scipy.stats import t

from surrogates.base import Posterior, PosteriorGradient
from surrogates.basis_gp import (
    BasisKernel,
    NoisePrior,
    ProcessPrior,
    ResidualCovariance,
    fit_residual,
)
from surrogates.data import Array, Columns, TrainingData
from surrogates.gp import MIN_VARIANCE, Fantasies, GPPredictor, NormalPrior, representative
from surrogates.kernels import Kernel
from surrogates.numerics import cholesky
from surrogates.scaling_law.linearized import AlignedKernel, BowlKernel, JacobianBasis, LinearizedMean, align
from surrogates.scaling_law.map_fit import descend, ridge_start
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout
from surrogates.scaling_law.prior import DriftPrior, LawPrior, LossUnits, Reach, Whitening, whitening

FAR = 0.11
_DF = 4.0  # prior median of the degrees of freedom of the errors
_DFS = (2.0, 3.0, 4.0, 6.0, 9.0, 16.0, 40.0)
_SHAPE_REACH = 0.1  # prior median of the length-scale of r, in e-folds of scale


@dataclass(frozen=True, slots=True)
class ScalingModel:
    """Prior of the loss; `learn` and `predictor` as every surrogate.

    Args:
        drift: transfer rules as priors on the drift of the optimum, else weak and zero-mean.
        prior: widths of all other priors.
        residual_share: prior median of the sd of g, as a share of the spread of the losses.
        scale_share: the same of q.
        shape_share: the same of r.
        noise_share: the same of e at the optimum.
        discrepancy: prior median of c, extra standard deviation of a run per unit of loss above the
            optimum, near it.
        max_couplings: number of pairs of decisions up to which all are coupled.
        max_rows: number of rows beyond which only `representative` ones teach parameters.

    Example:
        >>> from surrogates.data import ColumnKind
        >>> columns = Columns(
        ...     (ColumnKind.DECISION, ColumnKind.SCALE), ("lr", "params"),
        ...     np.log([1e-4, 1e6]), np.log([1e3, 1e2]), (0, 0),
        ... )
        >>> X = np.random.default_rng(0).random((20, 2))
        >>> best = 0.7 - 0.4 * X[:, 1]  # the best learning rate falls with size
        >>> y = 2.0 + np.exp(-X[:, 1]) + (X[:, 0] - best) ** 2
        >>> predictor = ScalingModel().fit(TrainingData(X, y, columns))
        >>> bool(predictor.law().drift[0][0].mean < 0.0)
        True
    """

    drift: DriftPrior | None = None
    prior: LawPrior = field(default_factory=LawPrior)
    residual_share: float = 0.08
    scale_share: float = 0.003
    shape_share: float = 0.01
    noise_share: float = 0.03
    discrepancy: float = 0.15
    q_width: float = 0.7
    bowl_share: float = 0.6
    disc_w: float = 1.2
    max_couplings: int = 28
    max_rows: int = 500

    def fit(self, data: TrainingData) -> ScalingPredictor:
        """Return the posterior under parameters learned from `data` itself."""
        return self.predictor(data, self.learn(data))

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """Return the MAP of the law and of the residual's hyperparameters, as one vector.

        Args:
            data: n rows and losses as they are (no transform); n may be 0.
            warm: vector that an earlier call returned, as a further starting point.
            cold: whether to start from a ridge fit and the prior as well.

        Returns:
            `(level, spread, reference.., theta of the law.., ln s, ln l.., ln v)`.
        """
        if len(data) > self.max_rows:
            rows = representative(data.X[:, data.columns.numeric], data.y, self.max_rows)
            data = TrainingData(data.X[rows], data.y[rows], data.columns)
        layout = ThetaLayout.of(data.columns, self.max_couplings)
        units = LossUnits.of(data.y)
        X, y = data.X, units.bounded(data.y)
        reference = layout.scales(X).mean(axis=0) if len(X) else layout.origin + 0.5 * layout.unit
        reach = Reach.of(data.columns, X, y)
        prior = whitening(layout, data.columns, reference, units, reach, self.prior, self.drift)
        blank = ParametricLoss(layout, reference, prior.mean)
        old = None if warm is None else FittedParameters.from_vector(warm, layout)
        df = _DF if old is None else old.df
        starts = [np.zeros(layout.size), ridge_start(X, y, prior, blank)] if len(X) else []
        if old is not None:
            start = np.clip(prior.u(old.loss(layout).rebased(reference).theta), -3.0, 3.0)
            starts = [*starts, start] if cold else [start]
        mode = self._independent_mode(X, y, prior, blank, units, starts)
        hyper = None if old is None else old.hyper
        residual: ResidualCovariance | None = None
        for iterations in (25, 8):
            law = replace(blank, theta=prior.theta(mode))
            phi = law.jacobian(X) @ prior.root
            squares = discrepancy_factors(law, X, y, units)
            parts = self._parts(law, data.columns, X, units, reach)
            gap = y - law.value(X)
            if residual is None:
                sd = self._independent_sd(gap, squares, units)
                inflation = outlier_factors(gap / sd, df)
            else:
                kernels = self._kernels(residual.kernels, law)
                inflation = residual_inflation(expected_variance(kernels, residual, X, squares), residual.noise_variance, gap, df)
            hyper = fit_residual(
                gap + phi @ mode,
                phi @ phi.T,
                parts,
                self._errors(units, squares, inflation),
                warm=hyper,
                max_iterations=iterations,
            )
            residual = ResidualCovariance.from_theta(parts, hyper)
            kernels = self._kernels(residual.kernels, law)
            inflation = residual_inflation(expected_variance(kernels, residual, X, squares), residual.noise_variance, gap, df)
            covariance = np.diag(
                residual.noise_variance * inflation + residual.discrepancy_variance * squares
            )
            for kernel in self._kernels(residual.kernels, law):
                covariance += kernel.cross(X, X)
            noise_root = cholesky(covariance).head
            mode = descend(mode, X, y, prior, blank, noise_root, max_steps=15).u
            law = replace(blank, theta=prior.theta(mode))
            squares = discrepancy_factors(law, X, y, units)
            total = expected_variance(self._kernels(residual.kernels, law), residual, X, squares)
            df = degrees_of_freedom((y - law.value(X)) / np.sqrt(total))
        assert hyper is not None
        return FittedParameters(units, reference, reach, df, prior.theta(mode), hyper).to_vector()

    def predictor(self, data: TrainingData, theta: Array) -> ScalingPredictor:
        """Return the posterior under fixed `theta`.

        Args:
            data: rows and losses.
            theta: vector that `learn` returned.

        Raises:
            NumericalError: if the covariance matrix cannot be factorized.
        """
        layout = ThetaLayout.of(data.columns, self.max_couplings)
        fitted = FittedParameters.from_vector(theta, layout)
        units, loss, reach = fitted.units, fitted.loss(layout), fitted.reach
        prior = whitening(
            layout, data.columns, loss.reference, units, reach, self.prior, self.drift
        )
        parts = self._parts(loss, data.columns, data.X, units, reach)
        residual = ResidualCovariance.from_theta(parts, fitted.hyper)
        kernels, noise_variance = residual.kernels, residual.noise_variance
        basis = JacobianBasis(loss, data.columns, prior.root)
        kernel = BasisKernel(self._kernels(kernels, loss), basis)
        mean = LinearizedMean(basis, prior.u(loss.theta))
        y = units.bounded(data.y)
        row_noise = row_errors(self._kernels(kernels, loss), residual, loss, data.X, y, units, fitted.df)
        covariance = kernel.cross(data.X, data.X)
        covariance[np.diag_indices(len(y))] += noise_variance + row_noise
        factor = cholesky(covariance)
        return ScalingPredictor(
            kernel,
            mean,
            data.X,
            y,
            noise_variance,
            factor,
            factor.solve(y - mean.value(data.X)),
            units,
            prior,
            residual,
            fitted.df,
            row_noise,
        )

    def _independent_mode(
        self,
        X: Array,
        y: Array,
        prior: Whitening,
        blank: ParametricLoss,
        units: LossUnits,
        starts: list[Array],
    ) -> Array:
        """Return the MAP of u with g + q + r + e as independent noise, from the best start."""
        if not len(X):
            return np.zeros(blank.layout.size)

        def row_sd(law: ParametricLoss) -> tuple[Array, Array]:
            gap = y - law.value(X)
            return gap, self._independent_sd(gap, discrepancy_factors(law, X, y, units), units)

        modes = []
        for u in starts:
            for _ in range(4):
                gap, sd = row_sd(replace(blank, theta=prior.theta(u)))
                robust = sd * np.sqrt(outlier_factors(gap / sd, _DF))
                u = descend(u, X, y, prior, blank, robust, max_steps=12).u
            gap, sd = row_sd(replace(blank, theta=prior.theta(u)))
            fit = float(-np.sum(t.logpdf(gap / sd, _DF) - np.log(sd)) + 0.5 * u @ u)
            modes.append((fit, u))
        return min(modes, key=lambda pair: pair[0])[1]

    def _independent_sd(self, gap: Array, squares: Array, units: LossUnits) -> Array:
        """Return the scale of each run's error before anything is learned of it, `(n,)`."""
        least = self.noise_share * units.spread
        most = (self.residual_share + self.noise_share) * units.spread
        scale = float(np.clip(1.48 * np.median(np.abs(gap)), least, most))
        return np.asarray(np.sqrt(scale**2 + self.discrepancy**2 * squares))

    def _errors(self, units: LossUnits, squares: Array, inflation: Array) -> NoisePrior:
        noise = _log_variance(self.noise_share * units.spread, 1.5)
        return NoisePrior(noise, _log_variance(self.discrepancy, self.disc_w), squares, inflation)

    def _decision_parts(self, g, loss, X):
        if not self.bowl_share:
            return (g,)
        return (g, replace(g, variance=_log_variance(self.bowl_share, 0.7), amplitude=loss.excess(X)))

    def _kernels(self, kernels, loss):
        if len(kernels) == 2:
            return kernels
        if len(kernels) == 1:
            return (AlignedKernel(kernels[0], loss),)
        if len(kernels) == 3:
            return (AlignedKernel(kernels[0], loss), *kernels[1:])
        return (AlignedKernel(kernels[0], loss), BowlKernel(kernels[1], loss), *kernels[2:])

    def _parts(
        self, loss: ParametricLoss, columns: Columns, X: Array, units: LossUnits, reach: Reach
    ) -> tuple[ProcessPrior, ...]:
        """Return processes g and, where there is a scale axis, q and r; lengths in box widths."""
        layout = loss.layout
        decisions, axes = len(layout.decisions), len(layout.axes)
        near = np.log((0.5 + 0.15 * decisions) * reach.spread)
        folds = tuple(NormalPrior(float(np.log(3.0 / unit)), 0.7) for unit in layout.unit)
        by_column = dict(zip(layout.axes.tolist(), folds, strict=True))
        by_column |= {
            j: NormalPrior(float(x), 0.7) for j, x in zip(layout.decisions.tolist(), near, strict=True)
        }
        lengths = tuple(by_column[int(j)] for j in columns.numeric)
        none = np.zeros(0, dtype=np.intp)
        g = ProcessPrior(
            align(loss, X),
            columns.numeric,
            columns.categorical,
            _log_variance(self.residual_share * units.spread, 1.5),
            lengths,
            NormalPrior(-0.5 * float(np.log(max(decisions, 1))), 1.0),
        )
        if not axes:
            return (g,)
        variance = _log_variance(self.scale_share * units.spread, self.q_width)
        q = ProcessPrior(X, layout.axes, none, variance, folds, NormalPrior(0.0, 1.0))
        narrow = tuple(NormalPrior(float(np.log(_SHAPE_REACH / unit)), 0.3) for unit in layout.unit)
        variance = _log_variance(self.shape_share * units.spread, self.q_width)
        g = self._decision_parts(g, loss, X) if decisions or len(columns.categorical) else ()
        return (*g, q, ProcessPrior(X, layout.axes, none, variance, narrow, NormalPrior(0.0, 1.0)))


@dataclass(frozen=True, slots=True)
class FittedParameters:
    """The vector of `ScalingModel.learn`, named.

    Args:
        units: location and spread of the losses.
        reference: `(axes,)`, reference scale.
        theta: `(size,)`, parameters of the law.
        hyper: hyperparameters of the residual processes.

    Example:
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> vector = np.concatenate([[3.0, 0.5], np.zeros(layout.size), [0.1, 0.2]])
        >>> fitted = FittedParameters.from_vector(vector, layout)
        >>> fitted.units, fitted.hyper.tolist()
        (LossUnits(level=3.0, spread=0.5), [0.1, 0.2])
    """

    units: LossUnits
    reference: Array
    reach: Reach
    df: float
    theta: Array
    hyper: Array

    def to_vector(self) -> Array:
        """Return all parameters as one vector."""
        head = [self.units.level, self.units.spread]
        reach = [self.reach.middle, self.reach.step, self.reach.spread]
        return np.concatenate([head, self.reference, *reach, [self.df], self.theta, self.hyper])

    @classmethod
    def from_vector(cls, vector: Array, layout: ThetaLayout) -> FittedParameters:
        """Read a vector written by `to_vector`."""
        J = len(layout.decisions)
        units, reference, reach, df, theta, hyper = np.split(
            vector, np.cumsum([2, len(layout.axes), 3 * J, 1, layout.size])
        )
        unit = LossUnits(float(units[0]), float(units[1]))
        return cls(unit, reference, Reach(*np.split(reach, 3)), float(df[0]), theta, hyper)

    def loss(self, layout: ThetaLayout) -> ParametricLoss:
        """Return the parametric loss at these parameters."""
        return ParametricLoss(layout, self.reference, self.theta)


def discrepancy_factors(loss: ParametricLoss, X: Array, y: Array, units: LossUnits) -> Array:
    """Return the factors of the model discrepancy variance, `d^2 (1 + (d / spread)^2)`, `(n,)`.

    d is the distance above the best loss by the model or as observed, whichever is larger.

    Args:
        loss: parametric loss.
        X: `n x d`.
        y: `(n,)`, observed losses.
        units: location and spread of the losses.

    Example:
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> units = LossUnits(0.0, 1.0)
        >>> discrepancy_factors(loss, np.zeros((1, 1)), np.array([2.0]), units).tolist()
        [20.0]
    """
    return _discrepancy_factors_at(
        loss, np.maximum(loss.excess(X), y - loss.floor(X)), units
    )


def _discrepancy_factors_at(loss: ParametricLoss, distance: Array, units: LossUnits) -> Array:
    if not len(loss.layout.decisions):  # no bowl that a run could have left
        return np.zeros(len(distance))
    return np.asarray(distance**2 * (1.0 + FAR * (distance / units.spread) ** 2))


def outlier_factors(z: Array, df: float) -> Array:
    """Return by how much the variance of each error is inflated under Student's t, >= 1.

    A t variable is normal with a variance drawn from an inverse gamma distribution; given its
    value z, in units of its scale, the mean precision is `(df + 1) / (df + z^2)` (Lange, Little &
    Taylor 1989, eq. 7).

    Args:
        z: `(n,)`, standardized errors.
        df: degrees of freedom.

    Example:
        >>> outlier_factors(np.array([0.5, 10.0]), 4.0).tolist()
        [1.0, 20.8]
    """
    return np.maximum(1.0, (df + z**2) / (df + 1.0))


def degrees_of_freedom(z: Array) -> float:
    """Return the degrees of freedom of highest posterior density for standardized errors `(n,)`.

    Their scale is fitted with them. The prior of ln df is normal about ln 4.

    Args:
        z: `(n,)`, errors in units of what they are expected to be.

    Example:
        >>> degrees_of_freedom(np.random.default_rng(0).standard_normal(500))
        16.0
    """
    best, chosen = -np.inf, _DF
    middle = 1.48 * float(np.median(np.abs(z))) if len(z) else 1.0
    for df in _DFS:
        prior = -0.5 * (np.log(df / _DF) / 0.7) ** 2
        for scale in max(middle, 1e-9) * np.array([0.7, 0.85, 1.0, 1.2]):
            fit = float(np.sum(t.logpdf(z / scale, df) - np.log(scale))) + prior
            if fit > best:
                best, chosen = fit, df
    return chosen


def residual_inflation(variance: Array, noise: float, gap: Array, df: float) -> Array:
    """Return the factor on the noise variance of each row, `(n,)`, >= 1."""
    return 1.0 + variance / noise * (outlier_factors(gap / np.sqrt(variance), df) - 1.0)


def expected_variance(kernels, residual: ResidualCovariance, X: Array, squares: Array) -> Array:
    """Return the variance of each run about the law, outliers aside, `(n,)`."""
    processes = sum(kernel.diagonal(X) for kernel in kernels)
    return residual.noise_variance + processes + residual.discrepancy_variance * squares


def row_errors(
    kernels,
    residual: ResidualCovariance,
    loss: ParametricLoss,
    X: Array,
    y: Array,
    units: LossUnits,
    df: float,
) -> Array:
    """Return the error variance of each row beyond that of a run near the optimum, `(n,)`."""
    squares = discrepancy_factors(loss, X, y, units)
    variance = expected_variance(kernels, residual, X, squares)
    inflation = residual_inflation(variance, residual.noise_variance, y - loss.value(X), df)
    return residual.noise_variance * (inflation - 1.0) + residual.discrepancy_variance * squares


@dataclass(frozen=True, slots=True)
class Estimate:
    """One coefficient with its prior and posterior.

    Args:
        mean: posterior mean.
        sd: posterior standard error.
        prior_mean: prior mean.
        prior_sd: prior standard deviation.

    Example:
        >>> Estimate(0.3, 0.1, 0.2, 0.4).sd
        0.1
    """

    mean: float
    sd: float
    prior_mean: float
    prior_sd: float


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """The law read out of a fit, in natural units.

    R and alpha are estimated through their logarithms (the standard errors are first order), the
    others directly.

    Args:
        irreducible: E, in units of the loss.
        reducible: R of each axis, loss still removable at `reference`.
        exponent: alpha of each axis (SCALE columns, then FIDELITY).
        optimum: natural optimum of each decision at `reference`.
        drift: `decisions x axes`, change of the natural optimum per e-fold of scale.
        reference: `(axes,)`, natural scale coordinates that the coefficients refer to.
        decisions: names of the decision columns.
        axes: names of the scale axes.

    Example:
        >>> X = np.linspace(0.0, 1.0, 8)[:, None]
        >>> data = TrainingData(X, (X[:, 0] - 0.4) ** 2, Columns.of_decisions("lr"))
        >>> round(ScalingModel().fit(data).law().optimum[0].mean, 1)
        0.4
    """

    irreducible: Estimate
    reducible: tuple[Estimate, ...]
    exponent: tuple[Estimate, ...]
    optimum: tuple[Estimate, ...]
    drift: tuple[tuple[Estimate, ...], ...]
    reference: Array
    decisions: tuple[str, ...]
    axes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Optimum:
    """Posterior of `z*` at one scale, natural units.

    Args:
        mean: `(decisions,)`, posterior mean.
        covariance: `decisions x decisions`, posterior covariance.
        prior_covariance: `decisions x decisions`, covariance before any run.

    Example:
        >>> X = np.linspace(0.0, 1.0, 8)[:, None]
        >>> data = TrainingData(X, (X[:, 0] - 0.4) ** 2, Columns.of_decisions("lr"))
        >>> ScalingModel().fit(data).optimum(np.zeros(0)).mean.round(1).tolist()
        [0.4]
    """

    mean: Array
    covariance: Array
    prior_covariance: Array


@dataclass(frozen=True, slots=True)
class ScalingPredictor(GPPredictor):
    """Posterior of the loss at any config and scale.

    Args:
        units: location and spread of the losses at the fit.
        prior: prior of theta.
        residual: covariance of what the law leaves over.
        df: degrees of freedom of the errors.
        row_noise: `(n,)`, variance of each training row beyond `noise_variance`.

    Example:
        >>> X = np.linspace(0.0, 1.0, 8)[:, None]
        >>> data = TrainingData(X, (X[:, 0] - 0.4) ** 2, Columns.of_decisions("lr"))
        >>> predictor = ScalingModel().fit(data)
        >>> near, far = predictor.error_variance(np.array([[0.4], [1.0]]))
        >>> bool(near < far)
        True
    """

    units: LossUnits
    prior: Whitening
    residual: ResidualCovariance
    df: float
    row_noise: Array

    @property
    def loss(self) -> ParametricLoss:
        """The parametric part at the MAP estimate."""
        return self._basis.loss

    @property
    def columns(self) -> Columns:
        """Roles of the columns."""
        return self._basis.columns

    @property
    def _basis(self) -> JacobianBasis:
        assert isinstance(self.prior_mean, LinearizedMean)
        return self.prior_mean.basis

    @property
    def _mode(self) -> Array:
        assert isinstance(self.prior_mean, LinearizedMean)
        return self.prior_mean.mode

    @property
    def _parts(self) -> tuple[Kernel, ...]:
        assert isinstance(self.kernel, BasisKernel)
        return self.kernel.parts

    def condition(self, X: Array, y: Array) -> Self:
        """Append rows as `GPPredictor.condition`, each with its own noise."""
        y = self.units.bounded(y)
        rows, factor, row_noise = self.X, self.factor, self.row_noise
        for i in range(len(X)):
            row = X[i : i + 1]
            own = row_errors(self.kernel.parts, self.residual, self.loss, row, y[i : i + 1], self.units, self.df)
            variance = self.kernel.diagonal(row) + self.noise_variance + own
            factor = factor.append(self.kernel.cross(row, rows)[0], float(variance[0]))
            rows, row_noise = np.concatenate([rows, row]), np.concatenate([row_noise, own])
        grown = replace(self, X=rows, factor=factor, row_noise=row_noise)
        return grown.with_targets(np.concatenate([self.y, y]))

    def with_targets(self, y: Array) -> Self:
        """Return the predictor of the same rows with other targets `y` `(n,)`."""
        y = self.units.bounded(y)
        weights = self.factor.solve(y - self.prior_mean.value(self.X))
        return replace(self, y=y, weights=weights)

    def training_mean(self) -> Array:
        """Return the posterior mean at the training rows, `(n,)`."""
        return np.asarray(self.y - self.ridge * self.weights)

    @property
    def ridge(self) -> Array:
        """Amount added to the diagonal of the kernel matrix, `(n,)`."""
        return self.noise_variance + self.row_noise + self.factor.jitter

    def posterior(self, X: Array) -> Posterior:
        """Return the marginal posterior at the rows of `X`; the features are computed once."""
        phi = self._basis.value(X)
        prior = np.einsum("mp,mp->m", phi, phi)
        k = phi @ self._basis.value(self.X).T
        for part in self._parts:
            k += part.cross(X, self.X)
            prior += part.diagonal(X)
        mean = self.loss.value(X) - phi @ self._mode + k @ self.weights
        half = self.factor.half_solve(k.T)
        variance = prior - np.einsum("nm,nm->m", half, half)
        return Posterior(mean, np.maximum(variance, MIN_VARIANCE * prior))

    def posterior_gradient(self, X: Array) -> PosteriorGradient:
        """Return the marginal posterior and its derivatives; the features are computed once."""
        basis, mode = self._basis, self._mode
        phi, d_phi = basis.value(X), basis.gradient(X)
        seen = basis.value(self.X)
        k, dk = phi @ seen.T, np.matmul(seen, d_phi)
        prior = np.einsum("mp,mp->m", phi, phi)
        d_prior = 2.0 * np.einsum("mp,mpd->md", phi, d_phi)
        for part in self._parts:
            own, own_gradient = part.cross_gradient(X, self.X)
            k += own
            dk += own_gradient
            prior += part.diagonal(X)
            d_prior += part.diagonal_gradient(X)
        solved = self.factor.solve(k.T).T
        mean = self.loss.value(X) - phi @ mode + k @ self.weights
        d_mean = self.loss.gradient(X) - np.einsum("mpd,p->md", d_phi, mode)
        d_mean += np.einsum("mnd,n->md", dk, self.weights)
        variance = np.maximum(prior - np.einsum("mn,mn->m", k, solved), MIN_VARIANCE * prior)
        d_variance = d_prior - 2.0 * np.einsum("mnd,mn->md", dk, solved)
        return PosteriorGradient(mean, variance, d_mean, d_variance)

    def fantasize(self, X: Array, count: int, rng: np.random.Generator) -> ScalingFantasies:
        """Draw joint fantasies of noisy outcomes at pending rows, as `GPPredictor.fantasize`."""
        fantasies = GPPredictor.fantasize(self, X, count, rng)
        return ScalingFantasies(fantasies.predictor, fantasies.y, fantasies.weights)

    def moved_along_drift(self, X: Array, moved: Array) -> Array:
        """Return `moved` with each decision as far from its optimum as in `X`.

        Args:
            X: `m x d`, rows whose place relative to the optimum is kept.
            moved: `m x d`, rows at the new scales.

        Returns:
            `m x d`.
        """
        result = moved.copy()
        layout = self.loss.layout
        result[:, layout.decisions] = self.loss.displacement(X) + self.loss.optimum_at(
            layout.scales(moved)
        )
        return result

    def optimum(self, scales: Array) -> Optimum:
        """Return the posterior of the parametric optimum at `scales` `(axes,)`.

        `scales` are natural coordinates. It may lie outside the box. The loss also holds g and the
        categorical columns, so the best config is the minimum of `posterior`; this is its smooth,
        law-like part.
        """
        rows = self._optimum_rows(scales)
        mean, covariance = self.coefficients()
        layout, columns = self.loss.layout, self.columns
        origin, width = columns.origin[layout.decisions], columns.width[layout.decisions]
        units, prior = np.outer(width, width), rows @ self.prior.root
        return Optimum(
            origin + width * (rows @ mean),
            units * (rows @ covariance @ rows.T),
            units * (prior @ prior.T),
        )

    def optimum_covariance(self, X: Array, scales: Array) -> Array:
        """Return the posterior covariance of `z*` at `scales` with the latent loss at `X`.

        Given a loss at `x`, the posterior of `z*` loses `c c^T / (variance + noise)` of its
        covariance, c the row of `x`.

        Args:
            X: `m x d`.
            scales: `(axes,)`, natural coordinates.

        Returns:
            `m x decisions`, in losses times box widths.
        """
        seen, phi = self._basis.value(self.X), self._basis.value(X)
        root = self._optimum_rows(scales) @ self.prior.root
        solved = self.factor.solve(np.asfortranarray(seen @ root.T))
        return np.asarray(phi @ root.T - self.kernel.cross(X, self.X) @ solved)

    def error_variance(self, X: Array, discrepancy: float = 0.0) -> Array:
        """Return the variance of one run about the latent loss the law expects, `(m,)`.

        Args:
            X: `m x d`.
            discrepancy: least value of c, for callers that trust the bowl less than the fit does.
        """
        variance = max(self.residual.discrepancy_variance, discrepancy**2)
        far = _discrepancy_factors_at(self.loss, self.loss.excess(X), self.units)
        return np.asarray(self.noise_variance + variance * far)

    def _optimum_rows(self, scales: Array) -> Array:
        """Return `A`, `decisions x p`, with `z* = A theta` at `scales`."""
        layout = self.loss.layout
        step = scales - self.loss.reference
        J, A = len(layout.decisions), len(layout.axes)
        rows = np.zeros((J, layout.size))
        rows[np.arange(J), layout.optimum.start + np.arange(J)] = 1.0
        for j in range(J):
            start = layout.drift.start + j * A
            rows[j, start : start + A] = step
        return rows

    def coefficients(self) -> tuple[Array, Array]:
        """Return posterior mean `(p,)` and covariance of theta under the linearized model."""
        phi = self._basis.value(self.X)
        half = self.factor.half_solve(np.asfortranarray(phi))
        root = self.prior.root
        mean = self.prior.mean + root @ (phi.T @ self.weights)
        return mean, root @ (np.eye(phi.shape[1]) - half.T @ half) @ root.T

    def law(self) -> ScalingLaw:
        """Return the coefficients with standard errors, prior and posterior side by side."""
        layout, columns = self.loss.layout, self.columns
        mean, covariance = self.coefficients()
        sd = np.sqrt(np.diagonal(covariance))
        prior_covariance = self.prior.root @ self.prior.root.T
        prior_sd = np.sqrt(np.diagonal(prior_covariance))

        def linear(i: int, origin: float = 0.0, width: float = 1.0) -> Estimate:
            return Estimate(
                float(origin + width * mean[i]),
                float(width * sd[i]),
                float(origin + width * self.prior.mean[i]),
                float(width * prior_sd[i]),
            )

        def exponential(i: int) -> Estimate:
            value, prior = float(np.exp(mean[i])), float(np.exp(self.prior.mean[i]))
            return Estimate(value, value * float(sd[i]), prior, prior * float(prior_sd[i]))

        reducible = range(layout.log_reducible.start, layout.log_reducible.stop)
        exponent = range(layout.log_exponent.start, layout.log_exponent.stop)
        A = len(layout.axes)
        origin, width = columns.origin[layout.decisions], columns.width[layout.decisions]
        decisions = range(len(layout.decisions))
        return ScalingLaw(
            self._irreducible(mean, covariance, prior_covariance),
            tuple(exponential(i) for i in reducible),
            tuple(exponential(i) for i in exponent),
            tuple(linear(layout.optimum.start + j, origin[j], width[j]) for j in decisions),
            tuple(
                tuple(linear(layout.drift.start + j * A + a, 0.0, width[j]) for a in range(A))
                for j in decisions
            ),
            self.loss.reference,
            tuple(columns.names[j] for j in layout.decisions),
            tuple(columns.names[a] for a in layout.axes),
        )

    def _irreducible(self, mean: Array, covariance: Array, prior_covariance: Array) -> Estimate:
        """Return the estimate of `E = c - sum R`, to first order."""
        where = self.loss.layout.log_reducible

        def value(theta: Array) -> tuple[float, Array]:
            R = np.exp(theta[where])
            slope = np.zeros_like(theta)
            slope[0], slope[where] = 1.0, -R
            return float(theta[0] - R.sum()), slope

        now, slope = value(mean)
        before, prior_slope = value(self.prior.mean)
        return Estimate(
            now,
            float(np.sqrt(slope @ covariance @ slope)),
            before,
            float(np.sqrt(prior_slope @ prior_covariance @ prior_slope)),
        )


@dataclass(frozen=True, slots=True)
class ScalingFantasies(Fantasies):
    """Fantasies of a predictor whose rows differ in noise.

    Example:
        >>> X = np.linspace(0.0, 1.0, 8)[:, None]
        >>> data = TrainingData(X, (X[:, 0] - 0.4) ** 2, Columns.of_decisions("lr"))
        >>> predictor = ScalingModel().fit(data)
        >>> fantasies = predictor.fantasize(np.array([[0.2]]), 3, np.random.default_rng(0))
        >>> fantasies.training_means().shape
        (9, 3)
    """

    def training_means(self) -> Array:
        """Return `ScalingPredictor.training_mean` under each fantasy, `n x S`."""
        assert isinstance(self.predictor, ScalingPredictor)
        return np.asarray(self.y - self.predictor.ridge[:, None] * self.weights)


def _log_variance(sd: float, width: float) -> NormalPrior:
    """Return the prior of ln variance with median `sd**2`."""
    return NormalPrior(2.0 * float(np.log(sd)), width)
