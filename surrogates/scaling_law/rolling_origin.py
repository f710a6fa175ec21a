"""How far the law is off beyond the runs, learned from forecasts of some of them by cheaper ones.

The runs are cut at several sizes. The law is fitted to those below a cut and foresees those above
it (rolling-origin evaluation, Tashman 2000). Let |e| be the error of a forecast, s the standard
deviation it claimed and d its distance beyond the runs below the cut, in e-folds. An interval
`+- z sqrt(s^2 + (tau d)^2)`, with z = 1.64 for 90 %, covers the run from ::

    tau = sqrt(max(0, (|e| / z)^2 - s^2)) / d

on. tau is set to the 90 % quantile of these scores: a conformal quantile, in which every cut counts
the same, as its forecasts err together. A few scores from a prior are added, since three cuts are
no more than three experiments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri

from surrogates.data import Array
from surrogates.numerics import normal_half_width

_COVERAGE = 0.9
_SHARES = (0.4, 0.55, 0.7)  # of the runs below a cut
_FEWEST = 6  # runs below a cut
_NEAREST = 0.5  # e-folds beyond the runs below a cut from which on a forecast counts
_PRIOR_TAU = 0.25  # prior scale of tau, in units between the runs' scatter and their spread
_PRIOR_WEIGHT = 1.0  # of all prior scores, in cuts


@dataclass(frozen=True, slots=True)
class Forecasts:
    """Forecasts of runs beyond a cut.

    Args:
        error: `(m,)`, absolute errors.
        sd: `(m,)`, standard deviations they claimed.
        distance: `(m,)`, e-folds beyond the runs below the cut.

    Example:
        >>> Forecasts(np.array([0.3]), np.array([0.1]), np.array([2.0])).distance.tolist()
        [2.0]
    """

    error: Array
    sd: Array
    distance: Array


def distance_beyond(runs: Array, scales: Array) -> Array:
    """Return by how many e-folds each scale lies beyond all runs, `(m,)`, 0 among them.

    It is the larger of the distance in compute, taken as the product of the axes, and of the
    distance along any one axis.

    Args:
        runs: `n x axes`, natural coordinates of the runs; n may be 0.
        scales: `m x axes`, natural coordinates.

    Example:
        >>> runs, scales = np.log([[1e6, 1e8]]), np.log([[1e6, 1e8], [1e7, 1e9], [1e8, 1e6]])
        >>> distance_beyond(runs, scales).round(2).tolist()
        [0.0, 4.61, 4.61]
    """
    if not len(runs) or not runs.shape[1]:
        return np.zeros(len(scales))
    compute = scales.sum(axis=1) - runs.sum(axis=1).max()
    along = (scales - runs.max(axis=0)).max(axis=1)
    return np.asarray(np.maximum(np.maximum(compute, along), 0.0))


def origins(scales: Array) -> Iterator[tuple[Array, Array]]:
    """Yield the rows below each cut and those beyond it, as two masks `(n,)`.

    Args:
        scales: `n x axes`, natural coordinates of the runs.

    Example:
        >>> scales = np.arange(20.0)[:, None]
        >>> [(int(cheap.sum()), int(expensive.sum())) for cheap, expensive in origins(scales)]
        [(8, 12), (11, 9), (14, 6)]
    """
    if not scales.shape[1] or not len(scales):
        return
    compute = scales.sum(axis=1)
    for cut in sorted({float(np.quantile(compute, share)) for share in _SHARES}):
        cheap = compute <= cut
        expensive = compute > compute[cheap].max() + _NEAREST
        if cheap.sum() >= _FEWEST and expensive.any() and np.ptp(compute[cheap]) > _NEAREST:
            yield cheap, expensive


def growth(cuts: Sequence[Forecasts], unit: float) -> float:
    """Return tau, the law's error per e-fold beyond the runs, in units of the loss.

    Args:
        cuts: forecasts beyond each cut.
        unit: loss that sets the prior: the geometric mean of how the best runs scatter about the
            law and of how far all losses spread.

    Example:
        >>> far = np.full(50, 2.0)
        >>> exact = Forecasts(np.full(50, 0.1), np.full(50, 0.1), far)
        >>> off = Forecasts(np.full(50, 0.5), np.full(50, 0.1), far)
        >>> round(growth([exact], 0.1), 3), round(growth([off, off, off], 0.1), 2)
        (0.03, 0.14)
    """
    z = normal_half_width(_COVERAGE)
    levels = (np.arange(20) + 0.5) / 20
    scores = [_PRIOR_TAU * unit * ndtri(0.5 + 0.5 * levels)]
    weights = [np.full(20, _PRIOR_WEIGHT / 20)]
    for cut in cuts:
        if len(cut.error):
            short = np.sqrt(np.maximum(0.0, (cut.error / z) ** 2 - cut.sd**2))
            scores.append(short / np.maximum(cut.distance, _NEAREST))
            weights.append(np.full(len(short), 1.0 / len(short)))
    score, weight = np.concatenate(scores), np.concatenate(weights)
    order = np.argsort(score, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    place = min(int(np.searchsorted(share, _COVERAGE)), len(score) - 1)
    return float(score[order[place]])
