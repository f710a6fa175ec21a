"""Log prior of locality: prefer rows near good ones without ruling out the rest."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surrogates.data import Array, IntArray


@dataclass(frozen=True, slots=True)
class TrustRegion:
    """Term `max_o - sum_j ln(1 + ((x_j - o_j) / r_j)^2)` over centers `o`.

    The tails are heavy: leaving in one column costs a few nats, however far, and being within the
    radii costs little in any number of columns, where a product of normals would drown the
    improvement.

    Attributes:
        centers: k x d, members of the front; none makes the term zero.
        radii: `(d,)`, in units of x, > 0; only the entries of `columns` are read.
        columns: Numeric columns that the region restrains; none makes the term zero.

    Example:
        >>> region = TrustRegion(np.zeros((1, 2)), np.full(2, 0.1), np.array([0]))
        >>> region.value(np.array([[0.0, 0.9], [0.1, 0.9]])).round(3).tolist()  # 0 and -ln 2
        [-0.0, -0.693]
    """

    centers: Array
    radii: Array
    columns: IntArray

    def value(self, X: Array) -> Array:
        """Return the log prior, `(m,)`, at most zero."""
        return self._nearest(X)[0]

    def gradient(self, X: Array) -> tuple[Array, Array]:
        """Return the log prior and its derivatives, m x d, about the nearest center."""
        value, nearest = self._nearest(X)
        slope = np.zeros(X.shape)
        if len(self.columns) and len(self.centers):
            radii = self.radii[self.columns]
            steps = (X[:, self.columns] - self.centers[nearest][:, self.columns]) / radii
            slope[:, self.columns] = -2.0 * steps / (1.0 + steps**2) / radii
        return value, slope

    def _nearest(self, X: Array) -> tuple[Array, IntArray]:
        """Return the value of the prior and the index of the center it is measured from."""
        if not len(self.columns) or not len(self.centers):
            return np.zeros(len(X)), np.zeros(len(X), dtype=np.intp)
        steps = X[:, None, self.columns] - self.centers[None, :, self.columns]
        penalty = np.sum(np.log1p((steps / self.radii[self.columns]) ** 2), axis=2)
        nearest = np.argmin(penalty, axis=1)
        return -penalty[np.arange(len(X)), nearest], nearest
