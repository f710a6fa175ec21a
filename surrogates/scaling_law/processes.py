"""Residual processes of the loss model: what the law leaves over and runs have in common.

::

    g(z~, s)       Matern, in coordinates aligned to the drifting optimum: what a proxy taught about
                   a place relative to its optimum holds at the same relative place of the target
    a(x) h(z~, s)  the same times what the bowl leaves to it (`BowlKernel`): the bowl is deeper or
                   flatter than its formula, but its bottom stays where it is
    q(s)           Matern in the scales: a law of another form
    r(s)           another with a length of a tenth of an e-fold: what runs of one size share, such
                   as a deeper or wider shape, and no other size does

The first two need a decision or a category, the last two a scale axis. The prior of q
is narrow. A wide one would explain what runs at several sizes say about the exponents, which are
all that reaches beyond them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from surrogates.basis_gp import ProcessPrior
from surrogates.data import Array, Columns
from surrogates.gp import NormalPrior
from surrogates.kernels import Kernel, MaternHamming
from surrogates.scaling_law.linearized import AlignedKernel, BowlKernel, align, bowl_amplitude
from surrogates.scaling_law.parametric_loss import ParametricLoss
from surrogates.scaling_law.prior import LossUnits, Reach

NEAR = 0.3  # spreads above the floor below which the bowl's formula is trusted
_SHAPE_REACH = 0.1  # prior median of the length-scale of r, in e-folds of scale
_SCALE_REACH = 3.0  # the same of q and, along the scales, of g and h


@dataclass(frozen=True, slots=True)
class ResidualShares:
    """Prior medians of the processes' standard deviations, as shares of the spread of the losses.

    Args:
        residual: g.
        bowl: h, as a share of the bowl far above the floor.
        scale: q.
        shape: r.

    Example:
        >>> ResidualShares(bowl=0.3).scale
        0.003
    """

    residual: float = 0.015
    bowl: float = 0.15
    scale: float = 0.003
    shape: float = 0.01


def process_priors(
    shares: ResidualShares,
    loss: ParametricLoss,
    columns: Columns,
    X: Array,
    units: LossUnits,
    reach: Reach,
) -> tuple[ProcessPrior, ...]:
    """Return the priors of the processes of a space, lengths in box widths.

    Args:
        shares: prior medians of their standard deviations.
        loss: parametric loss, which knows the drifting optimum and the bowl.
        columns: roles of the columns.
        X: `n x d`.
        units: location and spread of the losses.
        reach: place and width of the runs.

    Example:
        >>> from surrogates.data import ColumnKind
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> columns = Columns(
        ...     (ColumnKind.DECISION, ColumnKind.SCALE), ("lr", "params"),
        ...     np.log([1e-4, 1e6]), np.log([1e3, 1e2]), (0, 0),
        ... )
        >>> layout, X = ThetaLayout.of(columns, 0), np.zeros((3, 2))
        >>> loss = ParametricLoss(layout, np.log([1e7]), np.zeros(layout.size))
        >>> units, reach = LossUnits(3.0, 0.5), Reach.of(columns, X[:0], X[:0, 0])
        >>> parts = process_priors(ResidualShares(), loss, columns, X, units, reach)
        >>> [part.numeric.tolist() for part in parts]  # g, h, q, r
        [[0, 1], [0, 1], [1], [1]]
    """
    layout = loss.layout
    J = len(layout.decisions)
    near = np.log((0.5 + 0.15 * J) * reach.spread)
    priors = {
        int(j): NormalPrior(float(x), 0.7) for j, x in zip(layout.decisions, near, strict=True)
    }
    folds = tuple(NormalPrior(float(np.log(_SCALE_REACH / unit)), 0.7) for unit in layout.unit)
    priors |= dict(zip(layout.axes.tolist(), folds, strict=True))
    parts: tuple[ProcessPrior, ...] = ()
    if J or len(columns.categorical):
        g = ProcessPrior(
            align(loss, X),
            columns.numeric,
            columns.categorical,
            log_variance(shares.residual * units.spread, 1.5),
            tuple(priors[int(j)] for j in columns.numeric),
            NormalPrior(-0.5 * float(np.log(max(J, 1))), 1.0),
        )
        parts = (g,)
        if J:
            bowl = replace(
                g,
                variance=log_variance(shares.bowl, 0.8),
                amplitude=bowl_amplitude(loss, X, NEAR * units.spread),
            )
            parts = (g, bowl)
    if not len(layout.axes):
        return parts
    none, weights = np.zeros(0, dtype=np.intp), NormalPrior(0.0, 1.0)
    narrow = tuple(NormalPrior(float(np.log(_SHAPE_REACH / unit)), 0.3) for unit in layout.unit)
    q, r = (
        ProcessPrior(
            X, layout.axes, none, log_variance(share * units.spread, 0.7), lengths, weights
        )
        for share, lengths in ((shares.scale, folds), (shares.shape, narrow))
    )
    return (*parts, q, r)


def process_kernels(
    kernels: tuple[MaternHamming, ...], loss: ParametricLoss, units: LossUnits
) -> tuple[Kernel, ...]:
    """Return the kernels of `process_priors` as functions of the rows themselves.

    Args:
        kernels: kernel of each process, in its own coordinates.
        loss: parametric loss.
        units: location and spread of the losses.

    Example:
        >>> from surrogates.data import ColumnKind
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> columns = Columns(
        ...     (ColumnKind.DECISION, ColumnKind.SCALE), ("lr", "params"),
        ...     np.log([1e-4, 1e6]), np.log([1e3, 1e2]), (0, 0),
        ... )
        >>> layout, X = ThetaLayout.of(columns, 0), np.zeros((3, 2))
        >>> loss = ParametricLoss(layout, np.log([1e7]), np.zeros(layout.size))
        >>> units, reach = LossUnits(3.0, 0.5), Reach.of(columns, X[:0], X[:0, 0])
        >>> parts = process_priors(ResidualShares(), loss, columns, X, units, reach)
        >>> learned = tuple(part.kernel(np.zeros(part.size)) for part in parts)
        >>> [type(kernel).__name__ for kernel in process_kernels(learned, loss, units)]
        ['AlignedKernel', 'BowlKernel', 'MaternHamming', 'MaternHamming']
    """
    J, layout = len(loss.layout.decisions), loss.layout
    own = int(bool(J or layout.codes)) + int(bool(J))
    wrapped: list[Kernel] = [AlignedKernel(kernel, loss) for kernel in kernels[:own][:1]]
    wrapped += [BowlKernel(kernel, loss, NEAR * units.spread) for kernel in kernels[:own][1:]]
    return (*wrapped, *kernels[own:])


def log_variance(sd: float, width: float) -> NormalPrior:
    """Return the prior of ln variance with median `sd**2`.

    Args:
        sd: median of the standard deviation.
        width: sd of the logarithm of the variance.

    Example:
        >>> log_variance(1.0, 0.5)
        NormalPrior(mean=0.0, sd=0.5)
    """
    return NormalPrior(2.0 * float(np.log(sd)), width)
