"""Coefficients of the scaling law and the optimum at one scale, as a fit reports them."""

from __future__ import annotations

from dataclasses import dataclass

from surrogates.data import Array


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
        >>> import numpy as np
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.scaling_law.model import ScalingModel
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
        >>> import numpy as np
        >>> from surrogates.data import Columns, TrainingData
        >>> from surrogates.scaling_law.model import ScalingModel
        >>> X = np.linspace(0.0, 1.0, 8)[:, None]
        >>> data = TrainingData(X, (X[:, 0] - 0.4) ** 2, Columns.of_decisions("lr"))
        >>> ScalingModel().fit(data).optimum(np.zeros(0)).mean.round(1).tolist()
        [0.4]
    """

    mean: Array
    covariance: Array
    prior_covariance: Array
