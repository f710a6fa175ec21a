"""A fitted parametric loss as parts of a Gaussian process: coordinates, features and prior mean.

The loss `m(x; theta)`, `theta = mu + L u` with prior `u ~ N(0, I)`, is linearized at the MAP
estimate u^ with features `Phi = (dm / dtheta) L`::

    y = m(x; u^) - Phi(x) u^ + Phi(x) u + ..,    u ~ N(0, I)  (the prior!)

and u is integrated out: kernel `Phi Phi^T`, prior mean `m(x; u^) - Phi u^`
(`surrogates.basis_gp`). Conditioning on the data then does to u exactly what a Laplace
approximation does. Putting the Laplace *posterior* covariance into the kernel and conditioning on
the same rows would use every run twice and give intervals that are too short.

Gradients in x are analytic but for `dPhi / dx`, a batched central difference.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from surrogates.data import Array, Columns
from surrogates.kernels import MaternHamming
from surrogates.scaling_law.parametric_loss import ParametricLoss

_STEP = 1e-5  # of the central difference, in box widths


def align(loss: ParametricLoss, X: Array) -> Array:
    """Return `X` with z replaced by `z - z*(s)`, `n x d`.

    Args:
        loss: parametric loss, which knows the drifting optimum.
        X: `n x d`.

    Example:
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> theta = np.zeros(layout.size)
        >>> theta[layout.optimum] = 0.25
        >>> align(ParametricLoss(layout, np.zeros(0), theta), np.array([[0.75]])).tolist()
        [[0.5]]
    """
    aligned = X.copy()
    aligned[:, loss.layout.decisions] = loss.displacement(X)
    return aligned


@dataclass(frozen=True, slots=True)
class AlignedKernel:
    """The kernel `base` in drift-aligned coordinates.

    Args:
        base: kernel of the aligned rows.
        loss: parametric loss, which knows the drifting optimum.

    Example:
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> columns = Columns.of_decisions("lr")
        >>> layout = ThetaLayout.of(columns, 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> kernel = AlignedKernel(MaternHamming.from_theta(columns, np.zeros(2)), loss)
        >>> kernel.diagonal(np.zeros((2, 1))).tolist()
        [1.0, 1.0]
    """

    base: MaternHamming
    loss: ParametricLoss

    def cross(self, A: Array, B: Array) -> Array:
        """Return the covariances, `a x b`."""
        return self.base.cross(align(self.loss, A), align(self.loss, B))

    def diagonal(self, A: Array) -> Array:
        """Return the variances, `(a,)`."""
        return self.base.diagonal(A)

    def cross_gradient(self, A: Array, B: Array) -> tuple[Array, Array]:
        """Return the covariances and their derivatives in the rows of `A`, `a x b x d`."""
        K, gradient = self.base.cross_gradient(align(self.loss, A), align(self.loss, B))
        layout = self.loss.layout
        # dz~_j / dx_a = -dz*_j / ds_a unit_a
        drift = self.loss.drift_at(layout.scales(A)) * layout.unit
        gradient[:, :, layout.axes] -= gradient[:, :, layout.decisions] @ drift
        return K, gradient

    def diagonal_gradient(self, A: Array) -> Array:
        """Return zeros, `a x d`: the base kernel is stationary."""
        return np.zeros(A.shape)


@dataclass(frozen=True, slots=True)
class BowlKernel:
    """The kernel `a(x) a(x') base` in drift-aligned coordinates, with `a = b^2 / (b + near)`.

    b is the loss above the floor. Far up the bowl the process changes it by a share; near its
    bottom by less and less, so that the formula alone says where the bottom is.

    Args:
        base: kernel of the aligned rows.
        loss: parametric loss, which knows the bowl.
        near: loss above the floor below which the formula is trusted.

    Example:
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> columns = Columns.of_decisions("lr")
        >>> layout = ThetaLayout.of(columns, 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> base = MaternHamming.from_theta(columns, np.zeros(2))
        >>> BowlKernel(base, loss, 0.5).diagonal(np.array([[0.0], [1.0]])).tolist()
        [0.0, 0.0625]
    """

    base: MaternHamming
    loss: ParametricLoss
    near: float

    def cross(self, A: Array, B: Array) -> Array:
        """Return the covariances, `a x b`."""
        K = self.base.cross(align(self.loss, A), align(self.loss, B))
        return np.asarray(self._amplitude(A)[:, None] * K * self._amplitude(B))

    def diagonal(self, A: Array) -> Array:
        """Return the variances, `(a,)`."""
        return self.base.diagonal(A) * self._amplitude(A) ** 2

    def cross_gradient(self, A: Array, B: Array) -> tuple[Array, Array]:
        """Return the covariances and their derivatives in the rows of `A`, `a x b x d`."""
        K, gradient = AlignedKernel(self.base, self.loss).cross_gradient(A, B)
        own, other, slope = self._amplitude(A), self._amplitude(B), self._slope(A)
        gradient = own[:, None, None] * gradient + K[:, :, None] * slope[:, None, :]
        return own[:, None] * K * other, gradient * other[None, :, None]

    def diagonal_gradient(self, A: Array) -> Array:
        """Return the derivatives of `diagonal`, `a x d`."""
        scale = 2.0 * self.base.diagonal(A) * self._amplitude(A)
        return np.asarray(scale[:, None] * self._slope(A))

    def _amplitude(self, A: Array) -> Array:
        return bowl_amplitude(self.loss, A, self.near)

    def _slope(self, A: Array) -> Array:
        b = self.loss.excess(A)
        slope = b * (b + 2.0 * self.near) / (b + self.near) ** 2
        return np.asarray(slope[:, None] * self.loss.excess_gradient(A))


def bowl_amplitude(loss: ParametricLoss, X: Array, near: float) -> Array:
    """Return `b^2 / (b + near)` at the rows of `X`, `(n,)`; see `BowlKernel`.

    Args:
        loss: parametric loss.
        X: `n x d`.
        near: loss above the floor below which the formula is trusted, > 0.

    Example:
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> bowl_amplitude(loss, np.array([[1.0]]), 0.5).tolist()
        [0.25]
    """
    b = loss.excess(X)
    return np.asarray(b**2 / (b + near))


@dataclass(frozen=True, slots=True)
class JacobianBasis:
    """The features `Phi = (dm / dtheta) L`.

    Args:
        loss: parametric loss at the MAP estimate.
        columns: roles of the columns.
        root: `size x size`, L.

    Example:
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> columns = Columns.of_decisions("lr")
        >>> layout = ThetaLayout.of(columns, 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> JacobianBasis(loss, columns, np.eye(layout.size)).value(np.zeros((3, 1))).shape
        (3, 7)
    """

    loss: ParametricLoss
    columns: Columns
    root: Array

    def value(self, X: Array) -> Array:
        """Return the features, `n x size`."""
        return self.loss.jacobian(X) @ self.root

    def gradient(self, X: Array) -> Array:
        """Return the derivatives of the features, by central differences.

        All columns are computed in two calls of the Jacobian.
        """
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
    """The prior mean `m(x; u^) - Phi u^`.

    Args:
        basis: features at the MAP estimate.
        mode: `(size,)`, u^.

    Example:
        >>> from surrogates.scaling_law.parametric_loss import ThetaLayout
        >>> columns = Columns.of_decisions("lr")
        >>> layout = ThetaLayout.of(columns, 0)
        >>> loss = ParametricLoss(layout, np.zeros(0), np.zeros(layout.size))
        >>> basis = JacobianBasis(loss, columns, np.eye(layout.size))
        >>> LinearizedMean(basis, np.zeros(layout.size)).value(np.array([[1.0]])).tolist()
        [0.5]
    """

    basis: JacobianBasis
    mode: Array

    def value(self, X: Array) -> Array:
        """Return the mean at the rows of `X`, `(n,)`."""
        return np.asarray(self.basis.loss.value(X) - self.basis.value(X) @ self.mode)

    def gradient(self, X: Array) -> Array:
        """Return its derivative, `n x d`."""
        through = np.einsum("ipd,p->id", self.basis.gradient(X), self.mode)
        return np.asarray(self.basis.loss.gradient(X) - through)
