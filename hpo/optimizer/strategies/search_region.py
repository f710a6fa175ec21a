"""Where a strategy looks: radii around good rows, and moves of a row to other scales."""

from __future__ import annotations

import numpy as np

from hpo.space.encoding import Encoder
from surrogates.data import Array
from surrogates.gp import GPPredictor
from surrogates.kernels import MaternHamming
from surrogates.scaling_law.model import ScalingPredictor

CANDIDATES = 1024  # rows scored in the first stage of the maximizer
GLOBAL_SHARE = 0.5  # of them drawn from the whole box, in plain search
CENTERS = 5  # best visited rows to search around, in plain search
FANTASIES = 16  # joint posterior samples at pending rows
REGION = 8.0  # the trust region's radius, in those of the clouds
SMALLEST_REGION = 0.5  # of the box: the region is a preference, never a wall
WIDEST, NARROWEST = 0.5, 0.002  # radii, in box widths
WITHOUT_LENGTHS = 0.25  # box widths, where the model has no length-scale in these columns
_LENGTH_SHARE = 0.5  # a cloud's radius, in length-scales


def region_scale(losses: Array, columns: int) -> float:
    """Return the factor of the trust region after the losses told so far, in order.

    Doubled after three improvements in a row and halved after ``max(4, columns)`` tells without one
    (TuRBO, Eriksson et al. 2019, section 3.1), but bounded instead of restarted: global candidates
    stay in the pool anyway. An improvement counts when it exceeds a thousandth of the spread.
    """
    factor, won, lost = 1.0, 0, 0
    if len(losses) < 2:
        return factor
    best = np.minimum.accumulate(losses)
    needed = 1e-3 * (float(np.median(losses)) - best[:-1])
    improved = losses[1:] < best[:-1] - needed
    for success in improved:
        won, lost = (won + 1, 0) if success else (0, lost + 1)
        if won == 3:
            factor, won = min(2.0 * factor, 2.0), 0
        elif lost == max(4, columns):
            factor, lost = max(0.5 * factor, 2.0**-6), 0
    return factor


def radii(predictor: GPPredictor, encoder: Encoder, factor: float) -> Array:
    """Return `(d,)`: half a learned length-scale times the region's factor, within limits.

    It is a quarter of the box where the model's kernel has no length-scales in these columns.
    """
    numeric = encoder.columns.numeric
    radii = np.full(len(encoder.lower), WITHOUT_LENGTHS)
    if isinstance(predictor.kernel, MaternHamming):
        radii[numeric] = _LENGTH_SHARE * predictor.kernel.lengths
    return np.clip(radii * factor, NARROWEST, WIDEST)


def scale_moves(
    encoder: Encoder,
    predictor: GPPredictor,
    members: Array,
    rng: np.random.Generator,
    each: int = 8,
) -> Array:
    """Return front members moved to other scales along the drift of the optimum, `(k each) x d`."""
    scale = encoder.columns.scale
    if not len(scale):
        return members[:0]
    X = np.repeat(members, each, axis=0)
    moved = X.copy()
    moved[:, scale] = rng.random((len(X), len(scale)))
    if isinstance(predictor, ScalingPredictor):
        moved = predictor.moved_along_drift(X, moved)
    return encoder.snap(moved)
