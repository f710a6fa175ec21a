"""The loss model: a scaling law over a drifting bowl, and Gaussian processes on what it misses.

::

    y = m(x; theta) + g(z~, s) + a(x) h(z~, s) + q(s) + r(s) + e,    theta = mu + L u,  u ~ N(0, I)

`m` is the parametric loss (`parametric_loss`), g, h, q and r are the residual processes, a what the
bowl leaves to h (`processes`), e the errors of single runs (`errors`). How the uncertainty of theta
enters every prediction: `linearized`. Where transfer rules compete, mu and L are those of the
mixture of their priors, weighted by their evidence (`mixture`). Beyond the runs the law is off by
more than all this says; how much more is learned from forecasts of the more expensive runs by the
cheaper ones (`rolling_origin`).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Self

import numpy as np
from scipy.stats import t

from surrogates.base import Posterior, PosteriorGradient
from surrogates.basis_gp import BasisKernel, NoisePrior, ResidualCovariance, fit_residual
from surrogates.data import Array, Columns, TrainingData
from surrogates.gp import MIN_VARIANCE, Fantasies, GPPredictor, representative
from surrogates.kernels import Kernel
from surrogates.numerics import NumericalError, cholesky
from surrogates.scaling_law.coefficients import Estimate, Optimum, ScalingLaw
from surrogates.scaling_law.errors import (
    DF,
    RunErrors,
    degrees_of_freedom,
    discrepancy_factors,
    factors_at,
    outlier_factors,
)
from surrogates.scaling_law.linearized import JacobianBasis, LinearizedMean
from surrogates.scaling_law.map_fit import descend, ridge_start
from surrogates.scaling_law.mixture import (
    DriftMixture,
    log_evidences,
    moment_matched,
    updated,
)
from surrogates.scaling_law.parametric_loss import ParametricLoss, ThetaLayout
from surrogates.scaling_law.prior import (
    LawPrior,
    LossUnits,
    Reach,
    Whitening,
    beside_trend,
    whitening,
)
from surrogates.scaling_law.processes import (
    ResidualShares,
    log_variance,
    process_kernels,
    process_priors,
)
from surrogates.scaling_law.rolling_origin import Forecasts, distance_beyond, growth, origins

_REWEIGHTED = 4  # fits of the law to independent errors, each with the weights of the one before


@dataclass(frozen=True, slots=True)
class ScalingModel:
    """Prior of the loss; `learn` and `predictor` as every surrogate.

    Args:
        drift: transfer rules that compete as priors on the drift of the optimum, else weak and
            zero-mean.
        prior: widths of all other priors.
        shares: sizes of the residual processes.
        noise_share: prior median of the sd of a repeated run, as a share of the spread of losses.
        discrepancy: prior median of c, extra standard deviation of a run per unit of loss above the
            optimum.
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

    drift: DriftMixture | None = None
    prior: LawPrior = field(default_factory=LawPrior)
    shares: ResidualShares = field(default_factory=ResidualShares)
    noise_share: float = 0.03
    discrepancy: float = 0.15
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
            The vector of `FittedParameters`.
        """
        data = self._taught(data)
        frame = self._frame(data)
        X, y, units = data.X, frame.units.bounded(data.y), frame.units
        weights = frame.weights
        prior = frame.prior(weights)
        blank = frame.loss(prior.mean)
        old = None if warm is None else self._parameters(warm, frame.layout)
        starts = (
            [np.zeros(frame.layout.size), ridge_start(X, y, prior, blank, frame.reach)]
            if len(X)
            else []
        )
        if old is not None:
            start = np.clip(prior.u(old.loss(frame.layout).rebased(frame.reference).theta), -3, 3)
            starts = [*starts, start] if cold else [start]
        df = DF if old is None else old.df
        mode = self._independent_mode(X, y, prior, blank, units, starts)
        hyper = None if old is None else old.hyper
        fitted: FittedParameters | None = None
        for iterations in (25, 8):
            law = frame.loss(prior.theta(mode))
            parts = process_priors(self.shares, law, data.columns, X, units, frame.reach)
            factors = discrepancy_factors(law, X, y, units)
            if fitted is None:
                sd = self._independent_sd(y - law.value(X), factors, units)
                inflation = outlier_factors((y - law.value(X)) / sd, df)
            else:
                inflation = self._errors(fitted, law).inflation(law, X, y)
            phi = law.jacobian(X) @ prior.root
            hyper = fit_residual(
                y - law.value(X) + phi @ mode,
                phi @ phi.T,
                parts,
                self._noise_prior(units, factors, inflation),
                warm=hyper,
                max_iterations=iterations,
            )
            theta = prior.theta(mode)
            fitted = FittedParameters(
                units, frame.reference, frame.reach, df, 0.0, weights, theta, hyper
            )
            noise_root = cholesky(self._residual_covariance(fitted, law, X, y)).head
            mode = descend(mode, X, y, prior, blank, noise_root, max_steps=15).u
            law = frame.loss(prior.theta(mode))
            if len(X):
                weights = frame.updated(law, X, y, noise_root)
            theta, prior = law.theta, frame.prior(weights)
            mode = prior.u(theta)
            df = degrees_of_freedom((y - law.value(X)) / self._errors(fitted, law).scale(law, X, y))
        if self.drift is not None and len(X):  # the prior has moved since the last descent
            mode = descend(mode, X, y, prior, blank, noise_root, max_steps=8).u
        assert hyper is not None
        fitted = FittedParameters(
            units, frame.reference, frame.reach, df, 0.0, weights, prior.theta(mode), hyper
        )
        return replace(fitted, growth=self._growth(data, fitted, frame)).to_vector()

    def predictor(self, data: TrainingData, theta: Array) -> ScalingPredictor:
        """Return the posterior under fixed `theta`.

        Args:
            data: rows and losses.
            theta: vector that `learn` returned.

        Raises:
            NumericalError: if the covariance matrix cannot be factorized.
        """
        layout = ThetaLayout.of(data.columns, self.max_couplings)
        fitted = self._parameters(theta, layout)
        frame = _Frame.of(self, data.columns, layout, fitted.reference, fitted.units, fitted.reach)
        before = frame.prior(frame.weights)
        return self._posterior(data, fitted, frame.prior(fitted.weights), before)

    def _posterior(
        self, data: TrainingData, fitted: FittedParameters, prior: Whitening, before: Whitening
    ) -> ScalingPredictor:
        layout = ThetaLayout.of(data.columns, self.max_couplings)
        loss = fitted.loss(layout)
        errors = self._errors(fitted, loss)
        basis = JacobianBasis(loss, data.columns, prior.root)
        kernel = BasisKernel(tuple(errors.kernels), basis)
        mean = LinearizedMean(basis, prior.u(loss.theta))
        y = fitted.units.bounded(data.y)
        row_noise = errors.beyond_noise(loss, data.X, y)
        covariance = kernel.cross(data.X, data.X)
        noise = errors.residual.noise_variance
        covariance[np.diag_indices(len(y))] += noise + row_noise
        factor = cholesky(covariance)
        weights = factor.solve(y - mean.value(data.X))
        return ScalingPredictor(
            kernel, mean, data.X, y, noise, factor, weights, prior, errors, row_noise,
            fitted.growth, fitted.weights, before,
        )  # fmt: skip

    def _taught(self, data: TrainingData) -> TrainingData:
        """Return the rows that teach parameters: all, or those best for their size and a spread."""
        if len(data) <= self.max_rows:
            return data
        X = data.X[:, data.columns.numeric]
        good = beside_trend(data.X[:, data.columns.scale], LossUnits.of(data.y).bounded(data.y))
        rows = representative(X / np.maximum(np.ptp(X, axis=0), 1e-9), good, self.max_rows)
        return TrainingData(data.X[rows], data.y[rows], data.columns)

    def _frame(self, data: TrainingData) -> _Frame:
        layout = ThetaLayout.of(data.columns, self.max_couplings)
        middle = layout.origin + 0.5 * layout.unit
        reference = layout.scales(data.X).mean(axis=0) if len(data) else middle
        units = LossUnits.of(data.y)
        reach = Reach.of(data.columns, data.X, units.bounded(data.y))
        return _Frame.of(self, data.columns, layout, reference, units, reach)

    def _parameters(self, theta: Array, layout: ThetaLayout) -> FittedParameters:
        rules = 0 if self.drift is None else len(self.drift.weights)
        return FittedParameters.from_vector(theta, layout, rules)

    def _errors(self, fitted: FittedParameters, loss: ParametricLoss) -> RunErrors:
        """Return the errors of runs, with the processes about `loss`."""
        layout = loss.layout
        parts = process_priors(
            self.shares, loss, layout.columns, np.zeros((0, len(layout.columns.kinds))),
            fitted.units, fitted.reach,
        )  # fmt: skip
        residual = ResidualCovariance.from_theta(parts, fitted.hyper)
        kernels = process_kernels(residual.kernels, loss, fitted.units)
        return RunErrors(kernels, residual, fitted.units, fitted.df)

    def _residual_covariance(
        self, fitted: FittedParameters, loss: ParametricLoss, X: Array, y: Array
    ) -> Array:
        """Return the covariance of the losses about the law, `n x n`."""
        errors = self._errors(fitted, loss)
        own = errors.residual.noise_variance + errors.beyond_noise(loss, X, y)
        covariance = np.diag(own)
        for kernel in errors.kernels:
            covariance += kernel.cross(X, X)
        return covariance

    def _growth(self, data: TrainingData, fitted: FittedParameters, frame: _Frame) -> float:
        """Return tau, learned from forecasts of the more expensive runs by the cheaper ones."""
        layout, prior = frame.layout, frame.prior(fitted.weights)
        if not len(layout.axes):
            return 0.0
        blank = frame.loss(prior.mean)
        start = prior.u(fitted.theta)
        start[layout.log_exponent] = start[layout.log_reducible] = start[layout.log_gamma] = 0.0
        found = []
        for cheap, expensive in origins(layout.scales(data.X)):
            known = TrainingData(data.X[cheap], data.y[cheap], data.columns)
            X, y = known.X, frame.units.bounded(known.y)
            try:
                root = cholesky(self._residual_covariance(fitted, fitted.loss(layout), X, y)).head
                u = descend(start, X, y, prior, blank, root, max_steps=8).u
                then = self._posterior(known, replace(fitted, theta=prior.theta(u)), prior, prior)
            except NumericalError:
                continue
            found.append(then.forecasts(data.X[expensive], data.y[expensive]))
        scatter = self._errors(fitted, fitted.loss(layout)).scatter
        return growth(found, float(np.sqrt(scatter * frame.units.spread)))

    def _independent_mode(
        self,
        X: Array,
        y: Array,
        prior: Whitening,
        blank: ParametricLoss,
        units: LossUnits,
        starts: list[Array],
    ) -> Array:
        """Return the MAP of u with all residuals as independent t errors, from the best start."""
        if not len(X):
            return np.zeros(blank.layout.size)

        def gap_and_sd(u: Array) -> tuple[Array, Array]:
            law = replace(blank, theta=prior.theta(u))
            gap = y - law.value(X)
            return gap, self._independent_sd(gap, discrepancy_factors(law, X, y, units), units)

        modes = []
        for u in starts:
            for _ in range(_REWEIGHTED):
                gap, sd = gap_and_sd(u)
                robust = sd * np.sqrt(outlier_factors(gap / sd, DF))
                u = descend(u, X, y, prior, blank, robust, max_steps=8).u
            gap, sd = gap_and_sd(u)
            fit = float(np.sum(np.log(sd) - t.logpdf(gap / sd, DF)) + 0.5 * u @ u)
            modes.append((fit, u))
        return min(modes, key=lambda pair: pair[0])[1]

    def _independent_sd(self, gap: Array, factors: Array, units: LossUnits) -> Array:
        """Return the scale of each run's error before anything is learned of it, `(n,)`."""
        least = self.noise_share * units.spread
        most = (self.shares.residual + self.noise_share) * units.spread
        typical = 1.48 * float(np.median(np.abs(gap))) if len(gap) else least
        scale = float(np.clip(typical, least, most))
        return np.asarray(np.sqrt(scale**2 + self.discrepancy**2 * factors))

    def _noise_prior(self, units: LossUnits, factors: Array, inflation: Array) -> NoisePrior:
        noise = log_variance(self.noise_share * units.spread, 1.5)
        return NoisePrior(noise, log_variance(self.discrepancy, 1.2), factors, inflation)


@dataclass(frozen=True, slots=True)
class _Frame:
    """What the rows of a fit say before it, and the prior of theta under each rule."""

    layout: ThetaLayout
    reference: Array
    units: LossUnits
    reach: Reach
    weights: Array  # of the rules before the runs, none without any
    components: tuple[Whitening, ...]

    @classmethod
    def of(
        cls,
        model: ScalingModel,
        columns: Columns,
        layout: ThetaLayout,
        reference: Array,
        units: LossUnits,
        reach: Reach,
    ) -> _Frame:
        rules = (None,) if model.drift is None else model.drift.priors
        components = tuple(
            whitening(layout, columns, reference, units, reach, model.prior, rule) for rule in rules
        )
        weights = np.zeros(0) if model.drift is None else model.drift.weights
        return cls(layout, reference, units, reach, weights, components)

    def loss(self, theta: Array) -> ParametricLoss:
        return ParametricLoss(self.layout, self.reference, theta)

    def prior(self, weights: Array) -> Whitening:
        """Return the one prior of theta under rules of these weights."""
        return moment_matched(self.components, weights if len(weights) else np.ones(1))

    def updated(self, law: ParametricLoss, X: Array, y: Array, noise_root: Array) -> Array:
        """Return the weights of the rules after the runs, by the evidence linearized at `law`."""
        if not len(self.weights):
            return self.weights
        J = law.jacobian(X)
        target = y - law.value(X) + J @ law.theta
        return updated(self.weights, log_evidences(self.components, target, J, noise_root))


@dataclass(frozen=True, slots=True)
class FittedParameters:
    """The vector of `ScalingModel.learn`, named.

    Args:
        units: location and spread of the losses.
        reference: `(axes,)`, reference scale.
        reach: place and width of the runs.
        df: degrees of freedom of the errors.
        growth: tau, error of the law per e-fold beyond the runs.
        weights: `(rules,)`, posterior weights of the rules.
        theta: `(size,)`, parameters of the law.
        hyper: hyperparameters of the residual processes.

    Example:
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> reach = Reach(np.array([0.5]), np.array([1.0]), np.array([1.0]))
        >>> fitted = FittedParameters(
        ...     LossUnits(3.0, 0.5), np.zeros(0), reach, 4.0, 0.1, np.zeros(0),
        ...     np.zeros(layout.size), np.array([0.1, 0.2]),
        ... )
        >>> again = FittedParameters.from_vector(fitted.to_vector(), layout, 0)
        >>> again.units, again.growth, again.hyper.tolist()
        (LossUnits(level=3.0, spread=0.5), 0.1, [0.1, 0.2])
    """

    units: LossUnits
    reference: Array
    reach: Reach
    df: float
    growth: float
    weights: Array
    theta: Array
    hyper: Array

    def to_vector(self) -> Array:
        """Return all parameters as one vector."""
        head = [self.units.level, self.units.spread, self.df, self.growth]
        reach = [self.reach.middle, self.reach.step, self.reach.spread]
        tail = [self.weights, self.theta, self.hyper]
        return np.concatenate([head, self.reference, *reach, *tail])

    @classmethod
    def from_vector(cls, vector: Array, layout: ThetaLayout, rules: int) -> FittedParameters:
        """Read a vector written by `to_vector`.

        Args:
            vector: the vector.
            layout: meaning of theta.
            rules: number of rules that compete.
        """
        lengths = [4, len(layout.axes), 3 * len(layout.decisions), rules, layout.size]
        head, reference, reach, weights, theta, hyper = np.split(vector, np.cumsum(lengths))
        level, spread, df, growth = head.tolist()
        return cls(
            LossUnits(level, spread), reference, Reach(*np.split(reach, 3)), df, growth, weights,
            theta, hyper,
        )  # fmt: skip

    def loss(self, layout: ThetaLayout) -> ParametricLoss:
        """Return the parametric loss at these parameters."""
        return ParametricLoss(layout, self.reference, self.theta)


@dataclass(frozen=True, slots=True)
class ScalingPredictor(GPPredictor):
    """Posterior of the loss at any config and scale.

    Args:
        prior: prior of theta.
        errors: errors of single runs about the law.
        row_noise: `(n,)`, variance of each training row beyond `noise_variance`.
        growth: tau, standard deviation of the law's error per e-fold beyond the runs.
        rule_weights: `(rules,)`, posterior weights of the transfer rules that compete.
        before: prior of theta before the runs, under the rules' prior weights.

    Example:
        >>> X = np.linspace(0.0, 1.0, 8)[:, None]
        >>> data = TrainingData(X, (X[:, 0] - 0.4) ** 2, Columns.of_decisions("lr"))
        >>> predictor = ScalingModel().fit(data)
        >>> near, far = predictor.error_variance(np.array([[0.4], [1.0]]))
        >>> bool(near < far)
        True
    """

    prior: Whitening
    errors: RunErrors
    row_noise: Array
    growth: float
    rule_weights: Array
    before: Whitening

    @property
    def units(self) -> LossUnits:
        """Location and spread of the losses at the fit."""
        return self.errors.units

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
            own = self.errors.beyond_noise(self.loss, row, y[i : i + 1])
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
        phi, k = self._cross(X)
        prior = np.einsum("mp,mp->m", phi, phi)
        for part in self._parts:
            prior += part.diagonal(X)
        mean = self.loss.value(X) - phi @ self._mode + k @ self.weights
        half = self.factor.half_solve(k.T)
        variance = prior - np.einsum("nm,nm->m", half, half)
        return Posterior(mean, np.maximum(variance, MIN_VARIANCE * prior))

    def mean(self, X: Array) -> Array:
        """Return the posterior mean at the rows of `X`, `(m,)`, which is quicker alone."""
        phi, k = self._cross(X)
        return np.asarray(self.loss.value(X) - phi @ self._mode + k @ self.weights)

    def _cross(self, X: Array) -> tuple[Array, Array]:
        """Return features of the rows of `X`, and their covariance with the training rows."""
        phi = self._basis.value(X)
        k = phi @ self._basis.value(self.X).T
        for part in self._parts:
            k += part.cross(X, self.X)
        return phi, k

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
        rows = self.optimum_rows(scales)
        mean, covariance = self.coefficients()
        layout, columns = self.loss.layout, self.columns
        origin, width = columns.origin[layout.decisions], columns.width[layout.decisions]
        units, prior = np.outer(width, width), rows @ self.before.root
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
        root = self.optimum_rows(scales) @ self.prior.root
        solved = self.factor.solve(np.asfortranarray(seen @ root.T))
        return np.asarray(phi @ root.T - self.kernel.cross(X, self.X) @ solved)

    def error_variance(self, X: Array, discrepancy: float = 0.0) -> Array:
        """Return the variance of one run about the latent loss the law expects, `(m,)`.

        Args:
            X: `m x d`.
            discrepancy: least value of c, for callers that trust the bowl less than the fit does.
        """
        residual = self.errors.residual
        variance = max(residual.discrepancy_variance, discrepancy**2)
        far = factors_at(self.loss, self.loss.excess(X), self.units)
        return np.asarray(residual.noise_variance + variance * far)

    def extrapolation_variance(self, X: Array) -> Array:
        """Return the variance of the law's error at scales beyond the runs, `(m,)`, 0 among them.

        It is `(tau d)^2` with d the distance in e-folds (`distance_beyond`).

        Args:
            X: `m x d`.
        """
        layout = self.loss.layout
        d = distance_beyond(layout.scales(self.X), layout.scales(X))
        return np.asarray((self.growth * d) ** 2)

    def forecasts(self, X: Array, y: Array) -> Forecasts:
        """Return how well rows beyond the runs are foreseen, those far from the optimum left out.

        Args:
            X: `m x d`.
            y: `(m,)`, losses.
        """
        layout = self.loss.layout
        near = self.loss.excess(X) < self.units.spread
        X, y = X[near], self.units.bounded(y[near])
        p = self.posterior(X)
        d = distance_beyond(layout.scales(self.X), layout.scales(X))
        return Forecasts(np.abs(y - p.mean), np.sqrt(p.variance + self.error_variance(X)), d)

    def optimum_rows(self, scales: Array) -> Array:
        """Return `A`, `decisions x p`, with `z* = A theta` at `scales`."""
        layout = self.loss.layout
        step = scales - self.loss.reference
        J, A = len(layout.decisions), len(layout.axes)
        rows = np.zeros((J, layout.size))
        rows[np.arange(J), layout.optimum.start + np.arange(J)] = 1.0
        for j in range(J):
            for group, entries in ((layout.drift, step), (layout.bend, 0.5 * step**2)):
                start = group.start + j * A
                rows[j, start : start + A] = entries
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
        prior_covariance = self.before.root @ self.before.root.T
        prior_sd = np.sqrt(np.diagonal(prior_covariance))

        def linear(i: int, origin: float = 0.0, width: float = 1.0) -> Estimate:
            return Estimate(
                float(origin + width * mean[i]),
                float(width * sd[i]),
                float(origin + width * self.before.mean[i]),
                float(width * prior_sd[i]),
            )

        def exponential(i: int) -> Estimate:
            value, prior = float(np.exp(mean[i])), float(np.exp(self.before.mean[i]))
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
        before, prior_slope = value(self.before.mean)
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
