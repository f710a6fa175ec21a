"""Errors of single runs about the loss model: Student's t, wider the further from the best.

The error of run i is ::

    e_i ~ t_df,    squared scale  s_i^2 = v + P(x_i) + c^2 f_i,    f_i = d_i^2 (1 + (d_i / 3 S)^2)

with v the variance of a repeated run, P that of the residual processes, S the spread of the losses
and c the model discrepancy per unit of d, the distance above the best loss at that scale by the
model or as observed, whichever is larger: the bowl is accurate only near its bottom.

A t variable is normal with a variance drawn from an inverse gamma distribution, so given a run's
standardized distance z from the law its variance is expected to be larger by
`(df + z^2) / (df + 1)` (Lange, Little & Taylor 1989, eq. 7). With these variances held fixed
everything stays Gaussian, and a wrong decimal or a run that diverged hardly moves the fit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import t

from surrogates.basis_gp import ResidualCovariance
from surrogates.data import Array
from surrogates.kernels import Kernel
from surrogates.scaling_law.parametric_loss import ParametricLoss
from surrogates.scaling_law.prior import LossUnits

DF = 4.0  # prior median of the degrees of freedom
_DFS = (2.0, 3.0, 4.0, 6.0, 9.0, 16.0, 40.0)
_DF_SD = 0.7  # prior sd of their logarithm
_FAR = 3.0  # spreads above the best loss beyond which a run says next to nothing


@dataclass(frozen=True, slots=True)
class RunErrors:
    """Learned errors of single runs.

    Args:
        kernels: kernels of the residual processes.
        residual: v and c^2, with the kernels' own parameters.
        units: location and spread of the losses.
        df: degrees of freedom.

    Example:
        >>> from surrogates.data import Columns
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> errors = RunErrors((), ResidualCovariance((), 0.01, 0.0), LossUnits(0.0, 1.0), 4.0)
        >>> X, y = np.zeros((2, 1)), np.array([0.1, 10.0])  # as expected, and a wrong decimal
        >>> errors.scale(loss, X, y).round(3).tolist()
        [0.1, 0.1]
        >>> errors.inflation(loss, X, y).round(1).tolist()
        [1.0, 2000.8]
    """

    kernels: Sequence[Kernel]
    residual: ResidualCovariance
    units: LossUnits
    df: float

    @property
    def scatter(self) -> float:
        """Standard deviation of the best runs about a law of the scales: noise, q and r."""
        of_scales = self.residual.kernels[-2:]  # q and r are the last processes
        variance = sum(float(np.exp(kernel.log_variance)) for kernel in of_scales)
        return float(np.sqrt(self.residual.noise_variance + variance))

    def scale(self, loss: ParametricLoss, X: Array, y: Array) -> Array:
        """Return s, the scale of each run's distance from the law, `(n,)`.

        Args:
            loss: parametric loss.
            X: `n x d`.
            y: `(n,)`, observed losses.
        """
        processes = sum((kernel.diagonal(X) for kernel in self.kernels), np.zeros(len(X)))
        noise = self.residual.noise_variance + self.residual.discrepancy_variance * (
            discrepancy_factors(loss, X, y, self.units)
        )
        return np.asarray(np.sqrt(noise + processes))

    def inflation(self, loss: ParametricLoss, X: Array, y: Array) -> Array:
        """Return the factor on the noise variance of each run, 1 but for outliers, `(n,)`.

        Args:
            loss: parametric loss.
            X: `n x d`.
            y: `(n,)`, observed losses.
        """
        s = self.scale(loss, X, y)
        excess = outlier_factors((y - loss.value(X)) / s, self.df) - 1.0
        return np.asarray(1.0 + excess * s**2 / self.residual.noise_variance)

    def beyond_noise(self, loss: ParametricLoss, X: Array, y: Array) -> Array:
        """Return the error variance of each run beyond v, `(n,)`.

        Args:
            loss: parametric loss.
            X: `n x d`.
            y: `(n,)`, observed losses.
        """
        factors = discrepancy_factors(loss, X, y, self.units)
        inflation = self.inflation(loss, X, y) - 1.0
        return np.asarray(
            self.residual.noise_variance * inflation + self.residual.discrepancy_variance * factors
        )


def discrepancy_factors(loss: ParametricLoss, X: Array, y: Array, units: LossUnits) -> Array:
    """Return the factors f of the model discrepancy variance, `(n,)`.

    Args:
        loss: parametric loss.
        X: `n x d`.
        y: `(n,)`, observed losses.
        units: location and spread of the losses.

    Example:
        >>> from surrogates.data import Columns
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> X, y = np.array([[0.0], [2.0]]), np.array([0.0, 1.0])
        >>> discrepancy_factors(loss, X, y, LossUnits(0.0, 1.0)).round(2).tolist()
        [0.0, 5.78]
    """
    return factors_at(loss, np.maximum(loss.excess(X), y - loss.floor(X)), units)


def factors_at(loss: ParametricLoss, distance: Array, units: LossUnits) -> Array:
    """Return the same at distances above the best loss, `(n,)`.

    Args:
        loss: parametric loss.
        distance: `(n,)`, d.
        units: location and spread of the losses.

    Example:
        >>> from surrogates.data import Columns
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> factors_at(loss, np.array([1.0]), LossUnits(0.0, 1.0)).round(2).tolist()
        [1.11]
    """
    if not len(loss.layout.decisions):  # no bowl that a run could have left
        return np.zeros(len(distance))
    return np.asarray(distance**2 * (1.0 + (distance / (_FAR * units.spread)) ** 2))


def outlier_factors(z: Array, df: float) -> Array:
    """Return by how much the variance of each error is inflated under Student's t, >= 1.

    Args:
        z: `(n,)`, errors in units of their scale.
        df: degrees of freedom.

    Example:
        >>> outlier_factors(np.array([0.5, 10.0]), 4.0).tolist()
        [1.0, 20.8]
    """
    return np.maximum(1.0, (df + z**2) / (df + 1.0))


def degrees_of_freedom(z: Array) -> float:
    """Return the degrees of freedom of highest posterior density for standardized errors.

    Their scale is fitted with them. The prior of ln df is normal about ln 4.

    Args:
        z: `(n,)`, errors in units of what they are expected to be.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> degrees_of_freedom(rng.standard_normal(500)), degrees_of_freedom(rng.standard_t(2, 500))
        (9.0, 2.0)
    """
    if not len(z):
        return DF
    scales = max(1.48 * float(np.median(np.abs(z))), 1e-9) * np.geomspace(0.6, 1.5, 10)
    fits = [
        np.max(t.logpdf(z / scales[:, None], df).sum(axis=1) - len(z) * np.log(scales))
        - 0.5 * (np.log(df / DF) / _DF_SD) ** 2
        for df in _DFS
    ]
    return _DFS[int(np.argmax(fits))]
