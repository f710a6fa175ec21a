"""Prior of the scaling law with its drifting bowl, whitened.

Notation as in `surrogates.scaling_law.parametric_loss`. Parameters are written `theta = mu + L u`
with prior `u ~ N(0, I)`, so that one ridge damps all of them alike.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from surrogates.data import Array, Columns
from surrogates.scaling_law.parametric_loss import ThetaLayout

BoolArray = NDArray[np.bool_]

E_FOLDS = 3.0  # of a log or logit setting that make one step (`Reach`)
_DOUBT = 4.0  # weight of the middle of what was tried beside the best quarter, in runs
_SHARED = 0.9  # correlation between the asymmetry above and below an optimum
_HUGE = 1e100  # losses are cut here, so that their squares are finite


@dataclass(frozen=True, slots=True)
class Anchor:
    """Prior of the optimum itself at one scale, in natural units (ln lr, ..).

    Args:
        at: `(scales,)`, natural coordinates of the SCALE columns (ln N, ln D, ..).
        mean: `(decisions,)`, prior mean of the optimum.
        sd: `(decisions,)`, prior sd; may be inf where nothing is known.

    Example:
        >>> Anchor(np.log([1e8]), np.log([3e-4]), np.array([0.5])).sd.tolist()
        [0.5]
    """

    at: Array
    mean: Array
    sd: Array


@dataclass(frozen=True, slots=True)
class DriftPrior:
    """Prior of how the optimum of each decision moves with each scale.

    Args:
        mean: `decisions x scales`, change of the natural optimum per natural unit of scale, such as
            d ln lr / d ln N.
        sd: `decisions x scales`, its prior sd, > 0 and finite.
        anchor: prior of the optimum at one scale, if there is any.

    Raises:
        ValueError: when shapes differ or an sd is not positive.

    Example:
        >>> halves_per_fourfold = DriftPrior(np.array([[-0.5]]), np.array([[0.1]]))
        >>> halves_per_fourfold.mean.shape
        (1, 1)
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
    """Widths of the default priors; *spread* is that of the losses (`LossUnits`).

    Args:
        exponent: median of alpha.
        exponent_sd: sd of ln alpha; 90 % lie in 0.05 .. 0.6, which holds the exponents of Hoffmann
            et al. (0.28, 0.34) and of Kaplan et al. 2020 (0.076, 0.095).
        slope: median of `sum_a alpha_a R_a`, what one e-fold of every axis removes at the reference
            scale, as a share of the loss. The slopes are what data determine first. A prior on R
            itself would read a steep slope as a large exponent, and see the end of the improvement
            too soon.
        slope_sd: sd of the logarithm of each term.
        gamma: median of gamma, between Kaplan's and Hoffmann's.
        gamma_sd: sd of ln gamma.
        curvature: median of the sum of all h in spreads per step squared (`Reach`).
        curvature_sd: sd of ln h.
        asymmetry_sd: sd of lam of a linear setting, per step.
        log_asymmetry_sd: sd of lam of a log or logit setting, per e-fold; a loss that is a parabola
            in the learning rate itself has lam = 1.
        optimum_sd: sd of a about the middle of the runs, in units of their spread.
        drift_sd: sd of b where no `DriftPrior` is given, steps per e-fold of scale.
        bend_sd: sd of q, steps per e-fold of scale squared. The best lr of GPT-2-style models
            curves at larger scales (arXiv:2606.29158).
        coupling_sd: sd of the entries of M, in steps.
        offset_sd: sd of each code's offset, in spreads.

    Example:
        >>> LawPrior(drift_sd=0.05).exponent
        0.17
    """

    exponent: float = 0.22
    exponent_sd: float = 0.35
    slope: float = 0.12
    slope_sd: float = 0.8
    gamma: float = 0.8
    gamma_sd: float = 0.5
    curvature: float = 2.0
    curvature_sd: float = 1.2
    asymmetry_sd: float = 1.0
    log_asymmetry_sd: float = 0.4
    optimum_sd: float = 0.4
    drift_sd: float = 0.1
    bend_sd: float = 0.003
    coupling_sd: float = 0.3
    offset_sd: float = 0.5


@dataclass(frozen=True, slots=True)
class LossUnits:
    """Location and spread of the losses; makes every prior free of scale.

    Args:
        level: median loss.
        spread: standard deviation, in which losses beyond `median + 3 (median - best)` count as
            being there.

    Example:
        >>> units = LossUnits.of(np.array([1.0, 2.0, 3.0, 1e9]))
        >>> units.level, round(units.spread, 2)
        (2.5, 2.28)
    """

    level: float
    spread: float

    @classmethod
    def of(cls, y: Array) -> LossUnits:
        """Return the units of losses `y` `(n,)`; n may be 0."""
        if not len(y):
            return cls(0.0, 1.0)
        y = np.clip(y, -_HUGE, _HUGE)
        level, best = float(np.median(y)), float(np.min(y))
        below = level - best or float(np.max(y)) - best
        spread = float(np.std(np.minimum(y, level + 3.0 * below)))
        return cls(level, max(spread, 1e-6 * abs(level), 1e-12))

    def bounded(self, y: Array) -> Array:
        """Return `y` with losses that only say "diverged" set to one high value."""
        return np.clip(y, -_HUGE, self.level + 30.0 * self.spread)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where the runs lie in each decision and how far a step must be to matter, in box widths.

    Priors in these units do not depend on the declared bounds. A log or logit setting has steps of
    three e-folds, whatever was tried; a linear one those of the runs.

    Args:
        middle: `(decisions,)`, mean of the best quarter of the runs, drawn to the middle of what
            was tried while they are few. The optimum is expected there, so that a setting without
            effect stays at the best known value.
        step: `(decisions,)`, width over which a setting typically matters.
        spread: `(decisions,)`, width of the region tried, at least one step.

    Example:
        >>> X = np.linspace(0.0, 0.5, 101)[:, None]
        >>> reach = Reach.of(Columns.of_decisions("momentum"), X, (X[:, 0] - 0.1) ** 2)
        >>> reach.middle.round(1).tolist(), reach.step.round(1).tolist()
        ([0.1], [0.5])
    """

    middle: Array
    step: Array
    spread: Array

    @classmethod
    def of(cls, columns: Columns, X: Array, y: Array) -> Reach:
        """Return the reach of rows `X` `n x d` with losses `y` `(n,)`; n may be 0."""
        z, width = X[:, columns.decision], columns.width[columns.decision]
        relative = relative_decisions(columns)
        if not len(X):
            ones = np.ones(len(width))
            return cls(0.5 * ones, np.where(relative, E_FOLDS / width, 1.0), ones)
        tried = np.sqrt(12.0) * z.std(axis=0)
        tried = np.where(tried > 1e-9, tried, 1.0)
        step = np.where(relative, E_FOLDS / width, tried)
        order = np.argsort(beside_trend(X[:, columns.scale], y), kind="stable")
        best = z[order[: max(3, len(X) // 4)]]
        tried_middle = 0.5 * (z.min(axis=0) + z.max(axis=0))
        middle = (best.sum(axis=0) + _DOUBT * tried_middle) / (len(best) + _DOUBT)
        return cls(middle, step, np.maximum(step, tried))


def relative_decisions(columns: Columns) -> BoolArray:
    """Return whether each decision is measured in e-folds, `(decisions,)`.

    Args:
        columns: roles of the columns.

    Example:
        >>> relative_decisions(Columns.of_decisions("momentum")).tolist()
        [False]
    """
    relative = np.array(columns.relative or (False,) * len(columns.kinds), dtype=bool)
    return relative[columns.decision]


def beside_trend(scales: Array, y: Array) -> Array:
    """Return losses less a plane through the scales, `(n,)`: how good a run is for its size.

    Args:
        scales: `n x axes`.
        y: `(n,)`, losses; far ones are bounded for the plane.

    Example:
        >>> scales = np.array([[0.0], [1.0], [2.0], [0.0]])
        >>> beside_trend(scales, np.array([3.0, 2.0, 1.0, 3.5])).argmax()
        3
    """
    planes = np.concatenate([np.ones((len(y), 1)), scales], axis=1)
    middle = float(np.median(y))
    bounded = np.minimum(y, middle + 3.0 * (middle - float(np.min(y))))
    normal = planes.T @ planes + 1e-6 * len(y) * np.eye(planes.shape[1])
    slope = linalg.solve(normal, planes.T @ bounded, assume_a="pos")
    return np.asarray(y - planes @ slope)


@dataclass(frozen=True, slots=True)
class Whitening:
    """The affine map `theta = mean + root u`, `u ~ N(0, I)`.

    Args:
        mean: `(size,)`, prior mean of theta.
        root: `size x size`, lower triangular root of its prior covariance.

    Example:
        >>> prior = Whitening(np.array([1.0]), np.array([[2.0]]))
        >>> prior.theta(np.array([3.0])).tolist(), prior.u(np.array([7.0])).tolist()
        ([7.0], [3.0])
    """

    mean: Array
    root: Array

    def theta(self, u: Array) -> Array:
        """Return theta at `u`."""
        return np.asarray(self.mean + self.root @ u)

    def u(self, theta: Array) -> Array:
        """Return u at `theta`, the inverse of `Whitening.theta`."""
        return np.asarray(linalg.solve_triangular(self.root, theta - self.mean, lower=True))


def neutral_sd(columns: Columns, column: int) -> float:
    """Return the prior sd of the drift of one decision without a rule, natural units per e-fold.

    That of a linear setting is a share of its declared range, before any run.

    Args:
        columns: roles of the columns.
        column: index of the decision's column.

    Example:
        >>> neutral_sd(Columns.of_decisions("momentum"), 0)
        0.1
    """
    relative = bool(columns.relative) and columns.relative[column]
    return LawPrior().drift_sd * (E_FOLDS if relative else float(columns.width[column]))


def whitening(
    layout: ThetaLayout,
    columns: Columns,
    reference: Array,
    units: LossUnits,
    reach: Reach,
    prior: LawPrior,
    drift: DriftPrior | None,
) -> Whitening:
    """Return the prior of theta about a reference scale.

    Args:
        layout: meaning of theta.
        columns: roles of the columns.
        reference: `(axes,)`, natural coordinates.
        units: location and spread of the losses.
        reach: place and width of the runs.
        prior: widths.
        drift: prior of the drift; None is zero-mean and `prior.drift_sd` wide.

    Example:
        >>> columns = Columns.of_decisions("lr")
        >>> layout = ThetaLayout.of(columns, 0)
        >>> reach = Reach.of(columns, np.zeros((0, 1)), np.zeros(0))
        >>> units = LossUnits(3.0, 0.5)
        >>> prior = whitening(layout, columns, np.zeros(0), units, reach, LawPrior(), None)
        >>> prior.mean[layout.optimum].tolist()
        [0.5]
    """
    mean, sd = np.zeros(layout.size), np.ones(layout.size)
    axes, decisions = len(layout.axes), len(layout.decisions)
    mean[0], sd[0] = units.level - units.spread, 3.0 * units.spread
    # Losses are positive and a good part of them can be trained away. But a loss that carries a
    # huge constant (its spread is then a tiny share) must not be expected to shrink by much of it,
    # and one about zero must be able to shrink.
    slope = prior.slope * np.clip(abs(units.level), units.spread, 250.0 * units.spread)
    mean[layout.log_reducible] = np.log(slope / (max(axes, 1) * prior.exponent))
    sd[layout.log_reducible] = prior.slope_sd
    mean[layout.log_exponent] = np.log(prior.exponent)
    sd[layout.log_exponent] = prior.exponent_sd
    mean[layout.log_gamma], sd[layout.log_gamma] = np.log(prior.gamma), prior.gamma_sd
    sd[layout.offsets] = prior.offset_sd * units.spread
    step = reach.step
    # what all settings together can gain is known better than their number
    shared = min(1.0, np.sqrt(2.0 / max(decisions, 1)))
    curvature = prior.curvature * units.spread / max(decisions, 1)
    mean[layout.log_curvature] = np.log(curvature) - 2.0 * np.log(step)
    sd[layout.log_curvature] = prior.curvature_sd
    relative = relative_decisions(columns)
    asymmetry = np.where(relative, E_FOLDS * prior.log_asymmetry_sd, prior.asymmetry_sd) / step
    sd[layout.asymmetry] = np.tile(asymmetry, 2)
    mean[layout.optimum], sd[layout.optimum] = (
        reach.middle,
        prior.optimum_sd * reach.spread * shared,
    )
    slope_mean = np.zeros((decisions, axes))
    slope_sd = np.repeat(prior.drift_sd * step[:, None], axes, axis=1)
    width = columns.width[layout.decisions]
    if drift is not None:
        known = drift.mean.shape[1]  # the fidelity axis, if any, comes after the scales
        slope_mean[:, :known] = drift.mean / width[:, None]
        slope_sd[:, :known] = drift.sd / width[:, None]
    mean[layout.drift], sd[layout.drift] = slope_mean.ravel(), slope_sd.ravel()
    sd[layout.bend] = np.repeat(prior.bend_sd * step, axes)
    if layout.pairs:
        first, second = np.array(layout.pairs, dtype=np.intp).T
        sd[layout.couplings] = prior.coupling_sd * step[first] / step[second] * shared
    root = np.diag(sd)
    # both sides of a bowl have most of their asymmetry in common
    above = layout.asymmetry.start + np.arange(decisions)
    root[above + decisions, above] = _SHARED * asymmetry
    root[above + decisions, above + decisions] *= np.sqrt(1.0 - _SHARED**2)
    # ln R_a = ln slope_a - ln alpha_a, with independent slope and exponent
    root[layout.log_reducible, layout.log_exponent] -= prior.exponent_sd * np.eye(axes)
    if drift is not None and drift.anchor is not None:
        mean, root = _anchored(mean, root, layout, columns, reference, drift.anchor)
    return Whitening(mean, root)


def _anchored(
    mean: Array,
    root: Array,
    layout: ThetaLayout,
    columns: Columns,
    reference: Array,
    anchor: Anchor,
) -> tuple[Array, Array]:
    """Return the prior given that `z*` at the anchor's scale is distributed as it says, too."""
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
        start = layout.bend.start + j * axes
        row[start : start + axes] = 0.5 * step**2
        aim = (anchor.mean[j] - columns.origin[column]) / columns.width[column]
        noise = (anchor.sd[j] / columns.width[column]) ** 2
        gain = covariance @ row / (row @ covariance @ row + noise)
        mean = mean + gain * (aim - row @ mean)
        covariance = covariance - np.outer(gain, row @ covariance)
    covariance = 0.5 * (covariance + covariance.T)
    return mean, np.asarray(linalg.cholesky(covariance, lower=True))
