"""The parametric part of the value model: a scaling law over a bowl that drifts with scale.

Notation, for one row x of ``X`` (:class:`ParametricLoss` evaluates n rows at once):

``s_a``      natural coordinate of scale axis a (ln N, ln D, ..; also ln epochs, the fidelity);
             ``D_a = s_a - sbar_a`` about the reference scale ``sbar``
``z_j``      decision column j in box widths (x itself)
``R_a``      loss that axis a can still remove at the reference scale: ``A_a exp(-alpha_a sbar_a)``
``z*_j``     ``a_j + sum_a b_ja D_a``, the drifting optimum
``t``        ``M (z - z*)`` with M unit upper triangular (couplings, such as lr with batch size)

The loss is Chinchilla's (Hoffmann et al. 2022, eq. 2) with a bowl added::

    y   = c + sum_a R_a (e_a - 1) + rho^kappa sum_j h_j phi(t_j, lam_j) + offsets
    e_a = exp(-alpha_a D_a)
    rho = sum_a R_a e_a / sum_a R_a              reducible loss relative to the reference scale
    phi = (exp(lam t) - 1 - lam t) / lam^2       linex; t^2 / 2 as lam -> 0

so ``E = c - sum_a R_a`` is the irreducible loss, ``h_j`` the curvature at the optimum and ``lam_j``
the asymmetry (positive: a cliff above, as for learning rates). With M unit triangular the quadratic
limit ``t^T diag(h) t`` is an LDL^T form: whatever the couplings, ``z*`` is the only minimum.

The parameters are one real vector::

    theta = (c, ln R.., ln alpha.., logit kappa, offsets.., ln h.., lam.., a.., b.., m..)
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy.special import expit

from surrogates.data import Array, Columns, IntArray

_MAX_EXPONENT = 25.0  # beyond it the law is not meant to be read; keeps exp finite
_SERIES = 0.05  # |lam t| below which phi and its derivatives are summed as series


@dataclass(frozen=True, slots=True)
class Layout:
    """Where each group of parameters sits in theta, and which columns it refers to.

    Attributes:
        decisions: columns of z.
        axes: columns of s, SCALE first, then FIDELITY.
        origin, unit: ``s_a = origin_a + unit_a X[:, axes_a]``.
        codes: (column, code) of each offset; the prior keeps them centred.
        pairs: (j, k), j < k, positions in ``decisions`` of each coupling ``m_jk``.
    """

    decisions: IntArray
    axes: IntArray
    origin: Array
    unit: Array
    codes: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]

    @classmethod
    def of(cls, columns: Columns, max_pairs: int) -> Layout:
        """Couplings for all pairs of decisions if they number at most ``max_pairs``, else none."""
        axes = np.concatenate([columns.scale, columns.fidelity])
        pairs = tuple(combinations(range(len(columns.decision)), 2))
        return cls(
            columns.decision,
            axes,
            columns.origin[axes],
            columns.width[axes],
            tuple((int(q), v) for q in columns.categorical for v in range(columns.categories[q])),
            pairs if len(pairs) <= max_pairs else (),
        )

    @property
    def size(self) -> int:
        return int(self.couplings.stop)

    @property
    def log_reducible(self) -> slice:
        return slice(1, 1 + len(self.axes))

    @property
    def log_exponent(self) -> slice:
        start = self.log_reducible.stop
        return slice(start, start + len(self.axes))

    @property
    def shrinkage(self) -> int:
        return int(self.log_exponent.stop)

    @property
    def offsets(self) -> slice:
        start = self.shrinkage + 1
        return slice(start, start + len(self.codes))

    @property
    def log_curvature(self) -> slice:
        start = self.offsets.stop
        return slice(start, start + len(self.decisions))

    @property
    def asymmetry(self) -> slice:
        start = self.log_curvature.stop
        return slice(start, start + len(self.decisions))

    @property
    def optimum(self) -> slice:
        start = self.asymmetry.stop
        return slice(start, start + len(self.decisions))

    @property
    def drift(self) -> slice:
        """Row-major: all axes of decision 0, then of decision 1, .."""
        start = self.optimum.stop
        return slice(start, start + len(self.decisions) * len(self.axes))

    @property
    def couplings(self) -> slice:
        start = self.drift.stop
        return slice(start, start + len(self.pairs))

    def scales(self, X: Array) -> Array:
        """``s``, n x axes."""
        return np.asarray(self.origin + self.unit * X[:, self.axes])


@dataclass(frozen=True, slots=True)
class ParametricLoss:
    """The formula of this module's opening at fixed ``theta``.

    Args:
        layout: meaning of theta.
        reference: ``(axes,)``, sbar.
        theta: ``(layout.size,)``.
    """

    layout: Layout
    reference: Array
    theta: Array

    @property
    def optimum(self) -> Array:
        """``a``, ``(decisions,)``: z* at the reference scale."""
        return self.theta[self.layout.optimum]

    @property
    def drift(self) -> Array:
        """``b``, decisions x axes."""
        shape = (len(self.layout.decisions), len(self.layout.axes))
        return self.theta[self.layout.drift].reshape(shape)

    def rebased(self, reference: Array) -> ParametricLoss:
        """The same function written about another reference scale."""
        layout, theta = self.layout, self.theta.copy()
        step = reference - self.reference
        exponent = np.exp(theta[layout.log_exponent])
        before = np.exp(theta[layout.log_reducible])
        theta[layout.log_reducible] -= np.clip(exponent * step, -_MAX_EXPONENT, _MAX_EXPONENT)
        after = np.exp(theta[layout.log_reducible])
        theta[0] += after.sum() - before.sum()
        if len(step):
            kappa = expit(theta[layout.shrinkage])
            theta[layout.log_curvature] += kappa * np.log(after.sum() / before.sum())
        theta[layout.optimum] += self.drift @ step
        return ParametricLoss(layout, reference, theta)

    def optimum_at(self, scales: Array) -> Array:
        """``z*`` at the rows of ``scales`` m x axes; m x decisions."""
        return np.asarray(self.optimum + (scales - self.reference) @ self.drift.T)

    def displacement(self, X: Array) -> Array:
        """``z - z*``, n x decisions."""
        return X[:, self.layout.decisions] - self.optimum_at(self.layout.scales(X))

    def value(self, X: Array) -> Array:
        """``y``, ``(n,)``."""
        return self.floor(X) + self.excess(X)

    def floor(self, X: Array) -> Array:
        """The loss at the optimum of each row's scale and categories, ``(n,)``."""
        law = self._law(X)
        offsets = _indicators(X, self.layout.codes) @ self.theta[self.layout.offsets]
        return np.asarray(self.theta[0] + (law.reducible * (law.decay - 1.0)).sum(axis=1) + offsets)

    def excess(self, X: Array) -> Array:
        """Loss above the floor, ``(n,)``, >= 0."""
        bowl = self._bowl(X)
        return np.asarray(self._law(X).curvature * (bowl.shape @ bowl.curvature))

    def jacobian(self, X: Array) -> Array:
        """``dy / dtheta``, n x size."""
        layout, theta = self.layout, self.theta
        law, bowl = self._law(X), self._bowl(X)
        J = np.empty((len(X), layout.size))
        J[:, 0] = 1.0
        # d ln rho / d ln R_a and d / d ln alpha_a, both through the shares of the reducible loss
        reduced = law.reducible * law.decay
        slope = -reduced * law.exponent * law.offset
        excess = law.curvature * (bowl.shape @ bowl.curvature)
        kappa = expit(theta[layout.shrinkage])
        total, at_reference = reduced.sum(axis=1, keepdims=True), law.reducible.sum()
        if len(layout.axes):
            pull = (kappa * excess)[:, None]
            shares = reduced / total - law.reducible / at_reference
            J[:, layout.log_reducible] = reduced - law.reducible + pull * shares
            J[:, layout.log_exponent] = slope * (1.0 + pull / total)
        J[:, layout.shrinkage] = excess * law.log_rho * kappa * (1.0 - kappa)
        J[:, layout.offsets] = _indicators(X, layout.codes)
        weight = law.curvature[:, None] * bowl.curvature
        J[:, layout.log_curvature] = weight * bowl.shape
        J[:, layout.asymmetry] = weight * bowl.shape_by_asymmetry
        by_t = weight * bowl.shape_slope  # dy / dt_j
        by_z = by_t @ bowl.mixing  # dy / d(z - z*)_k
        J[:, layout.optimum] = -by_z
        drift = -by_z[:, :, None] * law.offset[:, None, :]
        J[:, layout.drift] = drift.reshape(len(X), by_z.shape[1] * law.offset.shape[1])
        for position, (j, k) in zip(_positions(layout.couplings), layout.pairs, strict=True):
            J[:, position] = by_t[:, j] * bowl.displacement[:, k]
        return J

    def gradient(self, X: Array) -> Array:
        """``dy / dX``, n x d, zero in categorical columns."""
        law, bowl = self._law(X), self._bowl(X)
        G = np.zeros(X.shape)
        weight = law.curvature[:, None] * bowl.curvature
        by_z = (weight * bowl.shape_slope) @ bowl.mixing
        G[:, self.layout.decisions] = by_z
        if len(self.layout.axes):
            reduced = law.reducible * law.decay
            slope = -law.exponent * reduced
            kappa = expit(self.theta[self.layout.shrinkage])
            pull = kappa * law.curvature * (bowl.shape @ bowl.curvature) / reduced.sum(axis=1)
            by_s = slope * (1.0 + pull[:, None]) - by_z @ self.drift
            G[:, self.layout.axes] = by_s * self.layout.unit
        return G

    def _law(self, X: Array) -> _Law:
        theta, layout = self.theta, self.layout
        offset = layout.scales(X) - self.reference
        reducible = np.exp(theta[layout.log_reducible])
        exponent = np.exp(theta[layout.log_exponent])
        decay = np.exp(np.clip(-exponent * offset, -_MAX_EXPONENT, _MAX_EXPONENT))
        if len(layout.axes):
            log_rho = np.log(decay @ reducible / reducible.sum())
        else:
            log_rho = np.zeros(len(X))
        curvature = np.exp(expit(theta[layout.shrinkage]) * log_rho)
        return _Law(offset, reducible, exponent, decay, log_rho, curvature)

    def _bowl(self, X: Array) -> _Bowl:
        theta, layout = self.theta, self.layout
        mixing = np.eye(len(layout.decisions))
        for position, (j, k) in zip(_positions(layout.couplings), layout.pairs, strict=True):
            mixing[j, k] = theta[position]
        displacement = self.displacement(X)
        shape, slope, by_asymmetry = linex(displacement @ mixing.T, theta[layout.asymmetry])
        curvature = np.exp(theta[layout.log_curvature])
        return _Bowl(displacement, mixing, curvature, shape, slope, by_asymmetry)


@dataclass(frozen=True, slots=True)
class _Law:
    offset: Array  # D, n x axes
    reducible: Array  # R, (axes,)
    exponent: Array  # alpha, (axes,)
    decay: Array  # e, n x axes
    log_rho: Array  # (n,)
    curvature: Array  # rho^kappa, (n,)


@dataclass(frozen=True, slots=True)
class _Bowl:
    displacement: Array  # z - z*, n x decisions
    mixing: Array  # M
    curvature: Array  # h, (decisions,)
    shape: Array  # phi, n x decisions
    shape_slope: Array  # d phi / dt
    shape_by_asymmetry: Array  # d phi / d lam


def linex(t: Array, asymmetry: Array) -> tuple[Array, Array, Array]:
    """``phi(t, lam)`` and its derivatives in t and lam, for ``t`` n x j and ``asymmetry`` ``(j,)``.

    With ``w = lam t``: ``phi = t^2 A(w)``, ``dphi/dt = t B(w)``, ``dphi/dlam = t^3 C(w)``::

        A = (e^w - 1 - w) / w^2,   B = (e^w - 1) / w,   C = (w (e^w + 1) - 2 (e^w - 1)) / w^3

    which lose all digits near w = 0 and are summed as series there.
    """
    w = np.clip(asymmetry * t, -_MAX_EXPONENT, _MAX_EXPONENT)
    small = np.abs(w) < _SERIES
    safe = np.where(small, 1.0, w)
    grown = np.expm1(safe)
    A = (grown - safe) / safe**2
    B = grown / safe
    C = (safe * (grown + 2.0) - 2.0 * grown) / safe**3
    w = np.where(small, w, 0.0)
    A = np.where(small, _series(w, (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720, 1 / 5040)), A)
    B = np.where(small, _series(w, (1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720)), B)
    C = np.where(small, _series(w, (1 / 6, 1 / 12, 1 / 40, 1 / 180, 1 / 1008, 1 / 6720)), C)
    return t**2 * A, t * B, t**3 * C


def _series(w: Array, coefficients: tuple[float, ...]) -> Array:
    """Horner's rule, lowest order first."""
    total = np.zeros_like(w)
    for coefficient in reversed(coefficients):
        total = total * w + coefficient
    return total


def _indicators(X: Array, codes: tuple[tuple[int, int], ...]) -> Array:
    """n x codes, 1 where a row has that code in that column."""
    result = np.zeros((len(X), len(codes)))
    for i, (column, code) in enumerate(codes):
        result[:, i] = X[:, column] == code
    return result


def _positions(group: slice) -> range:
    return range(group.start, group.stop)
