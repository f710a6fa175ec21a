"""Locality as a log prior: stay near what is known to be good, without ever forbidding the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surrogates.data import Array, IntArray


@dataclass(frozen=True, slots=True)
class TrustRegion:
    """``max_o -ln(1 + mean_j ((x_j - o_j) / r_j)^2)`` over centres ``o``.

    The tails are heavy and the squared distance is averaged over columns, so the prior never grows
    with the number of columns until it drowns the improvement, as a product of normals would.

    Args:
        centres: k x d, the members of the front.
        radii: ``(d,)``, in units of x, > 0; only the entries of ``columns`` are read.
        columns: numeric columns the region restrains; none makes the term zero.
    """

    centres: Array
    radii: Array
    columns: IntArray

    def value(self, X: Array) -> Array:
        return self._nearest(X)[0]

    def gradient(self, X: Array) -> tuple[Array, Array]:
        value, nearest = self._nearest(X)
        slope = np.zeros(X.shape)
        if len(self.columns) and len(self.centres):
            steps = X[:, self.columns] - self.centres[nearest][:, self.columns]
            d_distance = 2.0 * steps / self.radii[self.columns] ** 2 / len(self.columns)
            slope[:, self.columns] = -d_distance * np.exp(value)[:, None]  # 1 / (1 + distance)
        return value, slope

    def _nearest(self, X: Array) -> tuple[Array, IntArray]:
        """Value of the prior and index of the centre it is measured from."""
        if not len(self.columns) or not len(self.centres):
            return np.zeros(len(X)), np.zeros(len(X), dtype=np.intp)
        steps = X[:, None, self.columns] - self.centres[None, :, self.columns]
        distance = np.mean((steps / self.radii[self.columns]) ** 2, axis=2)
        nearest = np.argmin(distance, axis=1)
        return -np.log1p(distance[np.arange(len(X)), nearest]), nearest
