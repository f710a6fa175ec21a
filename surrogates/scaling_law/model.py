"""The value model: a scaling law over a drifting bowl, and a Gaussian process on what it misses.

::

    y = m(x; theta) + g(z~, s) + q(s) + r(s) + e         theta = mu + L u,  u ~ N(0, I)

``m`` is the parametric loss of :mod:`surrogates.scaling_law.parametric_loss`; ``g`` a Matern process in
*drift-aligned* coordinates ``z~ = z - z*(s)``, so that what a proxy taught about a place relative
to its optimum holds at the same relative place of the target; ``q`` a Matern process in the scales
alone, which lets the law be wrong; ``r`` another that forgets within a tenth of an e-fold: what all
runs of one size share, such as a deeper or wider shape than the law's average, and no other size
does; ``e ~ N(0, v + (c d)^2 (1 + (d / spread)^2))`` with d the distance above the best loss at that
scale: the bowl is trusted only near its bottom, and a run that left the bowl altogether, on its way
to divergence, says next to nothing about where the bottom is.

How the uncertainty of theta is carried into every prediction: :mod:`surrogates.scaling_law.linearized`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np

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
from surrogates.scaling_law.linearized import AlignedKernel, JacobianBasis, LinearizedMean, align
from surrogates.scaling_law.map_fit import descend, ridge_start
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout
from surrogates.scaling_law.prior import DriftPrior, LawPrior, LossUnits, Whitening, whitening

_SHAPE_REACH = 0.1  # prior median of the length-scale of r, in e-folds of scale


@dataclass(frozen=True, slots=True)
class ScalingModel:
    """Prior beliefs about the loss; :meth:`learn` and :meth:`predictor` as every surrogate.

    Args:
        drift: transfer rules as priors on the drift of the optimum, else weak and zero-mean.
        prior: widths of all other beliefs.
        residual_share, scale_share, shape_share, noise_share: prior medians of the standard
            deviations of g, q, r and e, as shares of the spread of the losses.
        inadequacy: prior median of c, extra standard deviation of a run per unit of loss above
            the optimum, near it.
        max_couplings: pairs of decisions are coupled while there are at most this many pairs.
        max_rows: beyond it, parameters are learned from this many rows.
    """

    drift: DriftPrior | None = None
    prior: LawPrior = field(default_factory=LawPrior)
    residual_share: float = 0.08
    scale_share: float = 0.05
    shape_share: float = 0.03
    noise_share: float = 0.03
    discrepancy: float = 0.15
    max_couplings: int = 28
    max_rows: int = 300

    def fit(self, data: TrainingData) -> ScalingPredictor:
        """:meth:`learn`, then :meth:`predictor`."""
        return self.predictor(data, self.learn(data))

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """MAP of the law and of the residual's hyperparameters, as one vector.

        Args:
            data: n rows and losses as they are (no transform); n may be 0.
            warm: what an earlier call returned, as a further starting point.
            cold: whether to start from a ridge fit and the prior as well.

        Returns:
            ``(level, spread, reference.., theta of the law.., ln s, ln l.., ln v)``.
        """
        if len(data) > self.max_rows:
            rows = representative(data.X[:, data.columns.numeric], data.y, self.max_rows)
            data = TrainingData(data.X[rows], data.y[rows], data.columns)
        layout = ThetaLayout.of(data.columns, self.max_couplings)
        units = LossUnits.of(data.y)
        X, y = data.X, units.bounded(data.y)
        reference = layout.scales(X).mean(axis=0) if len(X) else layout.origin + 0.5 * layout.unit
        prior = whitening(layout, data.columns, reference, units, self.prior, self.drift)
        blank = ParametricLoss(layout, reference, prior.mean)
        old = None if warm is None else FittedParameters.from_vector(warm, layout)
        starts = [np.zeros(layout.size), ridge_start(X, y, prior, blank)] if len(X) else []
        if old is not None:
            start = np.clip(prior.u(old.loss(layout).rebased(reference).theta), -3.0, 3.0)
            starts = [*starts, start] if cold else [start]
        mode = self._independent_mode(X, y, prior, blank, units, starts)
        hyper = None if old is None else old.hyper
        for iterations in (25, 8):
            law = replace(blank, theta=prior.theta(mode))
            phi = law.jacobian(X) @ prior.root
            squares = discrepancy_factors(law, X, y, units)
            parts = self._parts(law, data.columns, X, units)
            hyper = fit_residual(
                y - law.value(X) + phi @ mode,
                phi @ phi.T,
                parts,
                self._errors(units, squares),
                warm=hyper,
                max_iterations=iterations,
            )
            residual = ResidualCovariance.from_theta(parts, hyper)
            covariance = np.diag(residual.noise_variance + residual.discrepancy_variance * squares)
            for part, kernel in zip(parts, residual.kernels, strict=True):
                covariance += kernel.cross(part.X, part.X)
            noise_root = cholesky(covariance).head
            mode = descend(mode, X, y, prior, blank, noise_root, max_steps=15).u
        assert hyper is not None
        return FittedParameters(units, reference, prior.theta(mode), hyper).to_vector()

    def predictor(self, data: TrainingData, theta: Array) -> ScalingPredictor:
        """The posterior under fixed ``theta``. Raises NumericalError if it cannot be factorized."""
        layout = ThetaLayout.of(data.columns, self.max_couplings)
        fitted = FittedParameters.from_vector(theta, layout)
        units, loss = fitted.units, fitted.loss(layout)
        prior = whitening(layout, data.columns, loss.reference, units, self.prior, self.drift)
        parts = self._parts(loss, data.columns, data.X, units)
        residual = ResidualCovariance.from_theta(parts, fitted.hyper)
        kernels, noise_variance = residual.kernels, residual.noise_variance
        basis = JacobianBasis(loss, data.columns, prior.root)
        kernel = BasisKernel((AlignedKernel(kernels[0], loss), *kernels[1:]), basis)
        mean = LinearizedMean(basis, prior.u(loss.theta))
        y = units.bounded(data.y)
        row_noise = residual.discrepancy_variance * discrepancy_factors(loss, data.X, y, units)
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
            residual.discrepancy_variance,
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
        """MAP of u with g + q + r + e taken as independent noise, from the best of ``starts``."""
        if not len(X):
            return np.zeros(blank.layout.size)
        noise = ((self.residual_share + self.noise_share) * units.spread) ** 2

        def row_sd(law: ParametricLoss) -> Array:
            return np.sqrt(noise + self.discrepancy**2 * discrepancy_factors(law, X, y, units))

        modes = []
        for u in starts:
            for _ in range(2):
                sd = row_sd(replace(blank, theta=prior.theta(u)))
                u = descend(u, X, y, prior, blank, sd, max_steps=12).u
            law = replace(blank, theta=prior.theta(u))
            sd = row_sd(law)
            fit = float(np.sum(0.5 * ((y - law.value(X)) / sd) ** 2 + np.log(sd)) + 0.5 * u @ u)
            modes.append((fit, u))
        return min(modes, key=lambda pair: pair[0])[1]

    def _errors(self, units: LossUnits, squares: Array) -> NoisePrior:
        noise = _log_variance(self.noise_share * units.spread, 1.5)
        return NoisePrior(noise, _log_variance(self.discrepancy, 1.2), squares)

    def _parts(
        self, loss: ParametricLoss, columns: Columns, X: Array, units: LossUnits
    ) -> tuple[ProcessPrior, ...]:
        """Processes g and, where there is a scale axis, q and r; lengths in box widths."""
        layout = loss.layout
        decisions, axes = len(layout.decisions), len(layout.axes)
        wide = NormalPrior(float(np.log(0.5 + 0.15 * decisions)), 0.7)
        folds = tuple(NormalPrior(float(np.log(3.0 / unit)), 0.7) for unit in layout.unit)
        by_column = dict(zip(layout.axes.tolist(), folds, strict=True))
        lengths = tuple(by_column.get(int(j), wide) for j in columns.numeric)
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
        variance = _log_variance(self.scale_share * units.spread, 1.5)
        q = ProcessPrior(X, layout.axes, none, variance, folds, NormalPrior(0.0, 1.0))
        narrow = tuple(NormalPrior(float(np.log(_SHAPE_REACH / unit)), 0.3) for unit in layout.unit)
        variance = _log_variance(self.shape_share * units.spread, 1.5)
        return (g, q, ProcessPrior(X, layout.axes, none, variance, narrow, NormalPrior(0.0, 1.0)))


@dataclass(frozen=True, slots=True)
class FittedParameters:
    """What :meth:`ScalingModel.learn` returns, named."""

    units: LossUnits
    reference: Array
    theta: Array
    hyper: Array

    def to_vector(self) -> Array:
        return np.concatenate(
            [[self.units.level, self.units.spread], self.reference, self.theta, self.hyper]
        )

    @classmethod
    def from_vector(cls, vector: Array, layout: ThetaLayout) -> FittedParameters:
        units, reference, theta, hyper = np.split(
            vector, np.cumsum([2, len(layout.axes), layout.size])
        )
        return cls(LossUnits(float(units[0]), float(units[1])), reference, theta, hyper)

    def loss(self, layout: ThetaLayout) -> ParametricLoss:
        return ParametricLoss(layout, self.reference, self.theta)


def discrepancy_factors(loss: ParametricLoss, X: Array, y: Array, units: LossUnits) -> Array:
    """``d^2 (1 + (d / spread)^2)``, ``(n,)``, what the error variance of told runs grows with.

    d is above the best loss by the model or as observed, whichever is further.
    """
    return _discrepancy_factors_at(
        loss, np.maximum(loss.excess(X), np.abs(y - loss.floor(X))), units
    )


def _discrepancy_factors_at(loss: ParametricLoss, distance: Array, units: LossUnits) -> Array:
    if not len(loss.layout.decisions):  # no bowl that a run could have left
        return np.asarray(distance**2)
    return np.asarray(distance**2 * (1.0 + (distance / units.spread) ** 2))


@dataclass(frozen=True, slots=True)
class Estimate:
    """One coefficient with its prior and posterior; ``sd`` are standard errors."""

    mean: float
    sd: float
    prior_mean: float
    prior_sd: float


@dataclass(frozen=True, slots=True)
class ScalingLaw:
    """The law read out of a fit, in natural units.

    Attributes:
        irreducible: E, in units of the loss.
        reducible: R of each axis, loss still removable at ``reference``.
        exponent: alpha of each axis (SCALE columns, then FIDELITY).
        optimum: natural optimum of each decision at ``reference``.
        drift: decisions x axes, change of the natural optimum per e-fold of scale.
        reference: ``(axes,)``, natural scale coordinates that the coefficients refer to.
        decisions, axes: names of the columns.

    R and alpha are estimated through their logarithms (the standard errors are first order), the
    others directly.
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
    """Belief about ``z*`` at one scale, natural units: ``mean`` (decisions,), ``covariance``.

    ``prior_covariance``: before any run.
    """

    mean: Array
    covariance: Array
    prior_covariance: Array


@dataclass(frozen=True, slots=True)
class ScalingPredictor(GPPredictor):
    """Belief about the loss at any config and scale.

    Attributes:
        units: level and spread of the losses at the fit.
        prior: of theta.
        growth: c^2, see the module's opening.
        row_noise: ``(n,)``, variance of each training row beyond ``noise_variance``.
    """

    units: LossUnits
    prior: Whitening
    discrepancy_variance: float
    row_noise: Array

    @property
    def loss(self) -> ParametricLoss:
        """The parametric part at the MAP estimate."""
        return self._basis.loss

    @property
    def columns(self) -> Columns:
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
        """As :meth:`GPPredictor.condition`, each row with its own noise."""
        y = self.units.bounded(y)
        rows, factor, row_noise = self.X, self.factor, self.row_noise
        for i in range(len(X)):
            row = X[i : i + 1]
            own = self.discrepancy_variance * discrepancy_factors(
                self.loss, row, y[i : i + 1], self.units
            )
            variance = self.kernel.diagonal(row) + self.noise_variance + own
            factor = factor.append(self.kernel.cross(row, rows)[0], float(variance[0]))
            rows, row_noise = np.concatenate([rows, row]), np.concatenate([row_noise, own])
        grown = replace(self, X=rows, factor=factor, row_noise=row_noise)
        return grown.with_targets(np.concatenate([self.y, y]))

    def with_targets(self, y: Array) -> Self:
        y = self.units.bounded(y)
        weights = self.factor.solve(y - self.prior_mean.value(self.X))
        return replace(self, y=y, weights=weights)

    def training_mean(self) -> Array:
        return np.asarray(self.y - self.ridge * self.weights)

    @property
    def ridge(self) -> Array:
        """``(n,)``, what was added to the diagonal of the kernel matrix."""
        return self.noise_variance + self.row_noise + self.factor.jitter

    def posterior(self, X: Array) -> Posterior:
        """As every predictor's, with the features computed once."""
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
        """As every predictor's, with the features and their differences computed once."""
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
        fantasies = GPPredictor.fantasize(self, X, count, rng)
        return ScalingFantasies(fantasies.predictor, fantasies.y, fantasies.weights)

    def moved_along_drift(self, X: Array, moved: Array) -> Array:
        """``moved`` m x d, the decisions as far from their optimum as in ``X``: along the drift."""
        result = moved.copy()
        layout = self.loss.layout
        result[:, layout.decisions] = self.loss.displacement(X) + self.loss.optimum_at(
            layout.scales(moved)
        )
        return result

    def optimum(self, scales: Array) -> Optimum:
        """Belief about the parametric optimum at ``scales`` ``(axes,)``, natural coordinates.

        It may lie outside the box. The loss also holds g and the categorical columns, so the best
        config is the minimum of :meth:`posterior`; this is its smooth, law-like part.
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
        """Posterior covariance of ``z*`` at ``scales`` ``(axes,)`` with the latent loss at ``X``.

        m x decisions, in losses times box widths. Told a loss at ``x``, the posterior about ``z*``
        loses ``c c^T / (variance + noise)`` of its covariance, c the row of ``x``.
        """
        seen, phi = self._basis.value(self.X), self._basis.value(X)
        root = self._optimum_rows(scales) @ self.prior.root
        solved = self.factor.solve(np.asfortranarray(seen @ root.T))
        return np.asarray(phi @ root.T - self.kernel.cross(X, self.X) @ solved)

    def error_variance(self, X: Array, discrepancy: float = 0.0) -> Array:
        """``(m,)``, variance of one run about the latent loss, where the law expects it to end.

        ``inadequacy``: c at least, for whoever distrusts the bowl more than the runs so far do.
        """
        variance = max(self.discrepancy_variance, discrepancy**2)
        far = _discrepancy_factors_at(self.loss, self.loss.excess(X), self.units)
        return np.asarray(self.noise_variance + variance * far)

    def _optimum_rows(self, scales: Array) -> Array:
        """``A``, decisions x p, with ``z* = A theta`` at ``scales``."""
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
        """Posterior mean ``(p,)`` and covariance of theta under the linearized model."""
        phi = self._basis.value(self.X)
        half = self.factor.half_solve(np.asfortranarray(phi))
        root = self.prior.root
        mean = self.prior.mean + root @ (phi.T @ self.weights)
        return mean, root @ (np.eye(phi.shape[1]) - half.T @ half) @ root.T

    def law(self) -> ScalingLaw:
        """Coefficients with standard errors, prior and posterior side by side."""
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
        """``E = c - sum R`` to first order."""
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
    """Fantasies of a predictor whose rows differ in noise."""

    def training_means(self) -> Array:
        assert isinstance(self.predictor, ScalingPredictor)
        return np.asarray(self.y - self.predictor.ridge[:, None] * self.weights)


def _log_variance(sd: float, width: float) -> NormalPrior:
    """Prior of ln variance with median ``sd**2``."""
    return NormalPrior(2.0 * float(np.log(sd)), width)
