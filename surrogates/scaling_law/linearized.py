"""A fitted parametric loss as parts of a Gaussian process: coordinates, features and prior mean.

The loss ``m(x; theta)``, ``theta = mu + L u`` with prior ``u ~ N(0, I)``, is linearized at the MAP
estimate u^ with features ``Phi = (dm / dtheta) L``::

    y = m(x; u^) - Phi(x) u^ + Phi(x) u + ..,    u ~ N(0, I)  (the prior!)

and u is integrated out: kernel ``Phi Phi^T``, prior mean ``m(x; u^) - Phi u^``
(:mod:`surrogates.basis_gp`). Conditioning on the data then does to u exactly what a Laplace
approximation does. Putting the Laplace *posterior* covariance into the kernel and conditioning on
the same rows would use every run twice and give intervals that are too short.

Gradients in x are analytic but for ``dPhi / dx``, a batched central difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surrogates.data import Array, Columns
from surrogates.kernels import MaternHamming
from surrogates.scaling_law.parametric_loss import ParametricLoss

_STEP = 1e-5  # of the central difference, in box widths


def align(loss: ParametricLoss, X: Array) -> Array:
    """``X`` with z replaced by ``z - z*(s)``, n x d."""
    aligned = X.copy()
    aligned[:, loss.layout.decisions] = loss.displacement(X)
    return aligned


@dataclass(frozen=True, slots=True)
class AlignedKernel:
    """``base`` in drift-aligned coordinates; a :class:`~surrogates.kernels.Kernel`."""

    base: MaternHamming
    loss: ParametricLoss

    def cross(self, A: Array, B: Array) -> Array:
        return self.base.cross(align(self.loss, A), align(self.loss, B))

    def diagonal(self, A: Array) -> Array:
        return self.base.diagonal(A)

    def cross_gradient(self, A: Array, B: Array) -> tuple[Array, Array]:
        K, gradient = self.base.cross_gradient(align(self.loss, A), align(self.loss, B))
        layout = self.loss.layout
        # dz~_j / dx_a = -b_ja unit_a
        through_drift = gradient[:, :, layout.decisions] @ (self.loss.drift * layout.unit)
        gradient[:, :, layout.axes] -= through_drift
        return K, gradient

    def diagonal_gradient(self, A: Array) -> Array:
        return np.zeros(A.shape)


@dataclass(frozen=True, slots=True)
class JacobianBasis:
    """``Phi = (dm / dtheta) L``; a :class:`~surrogates.basis_gp.Basis`."""

    loss: ParametricLoss
    columns: Columns
    root: Array

    def value(self, X: Array) -> Array:
        return self.loss.jacobian(X) @ self.root

    def gradient(self, X: Array) -> Array:
        """Central differences, all columns in two calls of the Jacobian."""
        numeric = self.columns.numeric
        m, d = X.shape
        shifts = np.zeros((len(numeric), 1, d))
        shifts[np.arange(len(numeric)), 0, numeric] = _STEP
        above = self.value((X + shifts).reshape(-1, d))
        below = self.value((X - shifts).reshape(-1, d))
        slopes = ((above - below) / (2.0 * _STEP)).reshape(len(numeric), m, above.shape[1])
        gradient = np.zeros((m, slopes.shape[2], d))
        gradient[:, :, numeric] = slopes.transpose(1, 2, 0)
        return gradient


@dataclass(frozen=True, slots=True)
class LinearizedMean:
    """``m(x; u^) - Phi u^``; a :class:`~surrogates.gp.MeanFunction`."""

    basis: JacobianBasis
    mode: Array

    def value(self, X: Array) -> Array:
        return np.asarray(self.basis.loss.value(X) - self.basis.value(X) @ self.mode)

    def gradient(self, X: Array) -> Array:
        through = np.einsum("ipd,p->id", self.basis.gradient(X), self.mode)
        return np.asarray(self.basis.loss.gradient(X) - through)
