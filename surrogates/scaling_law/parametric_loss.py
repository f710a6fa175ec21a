"""The parametric part of the loss model: a scaling law over a bowl that drifts with scale.

Notation, for one row x of `X` (`ParametricLoss` evaluates n rows at once):

`s_a`        natural coordinate of scale axis a (ln N, ln D, ..; also ln epochs, the fidelity);
             `D_a = s_a - sbar_a` about the reference scale `sbar`
`z_j`        decision column j in box widths (x itself)
`R_a`        loss that axis a can still remove at the reference scale, `R = sum_a R_a`
`z*_j`       `a_j + sum_a (b_ja D_a + q_ja D_a^2 / 2)`, the drifting optimum and its bend
`t`          `M (z - z*)` with M unit triangular in the order of the names (couplings, such as lr
             with batch size)

The loss is a scaling law with a bowl added::

    y   = c + R (rho - 1) + rho^kappa sum_j h_j phi(t_j, lam_j) + offsets
    rho = (sum_a (R_a / R) exp(-alpha_a D_a / gamma))^gamma
    phi = w^2 / 2,   w = (exp(lam t) - 1) / lam      w = t as lam -> 0

`rho` is the reducible loss relative to the reference scale, a power mean of what each axis leaves.
`gamma = 1` adds them, `E + A N^-alpha + B D^-beta` (Hoffmann et al. 2022, eq. 2); a small gamma
lets the scarcer axis be the bottleneck, as `(A N^(-alpha/beta) + B / D)^beta` does (Kaplan et al.
2020, eq. 1.5, where gamma = beta). At the reference every slope is `-alpha_a R_a`, whatever gamma;
far along one axis alone the reducible loss falls with exponent alpha_a; with one axis gamma is
idle.

`E = c - R` is the irreducible loss and `h_j` the curvature at the optimum. `lam_j` differs between
the two sides of the optimum. A positive one above it is a cliff, as for learning rates; below it,
the loss levels off at `h / (2 lam^2)`, that of a run which learns nothing; both together are a
parabola in `exp(lam t)`, as in the learning rate itself with lam = 1 per e-fold (Morse 1929, eq. 1
has the same form). Negative ones are the mirror image, and 0 is a parabola in t. With M unit
triangular the quadratic limit `t^T diag(h) t` is an LDL^T form: whatever the couplings, `z*` is the
only minimum.

The parameters are one real vector::

    theta = (c, ln alpha.., ln R.., ln gamma, logit kappa, offsets.., ln h.., lam above..,
             lam below.., a.., b.., q.., m..)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

from surrogates.data import Array, Columns, IntArray

BoolArray = NDArray[np.bool_]

_MAX_EXPONENT = 25.0  # beyond it the law is not meant to be read; keeps exp finite
_KEPT = 4  # arrays of rows whose law and bowl are remembered
_SERIES = 0.05  # |lam t| below which phi and its derivatives are summed as series


@dataclass(frozen=True, slots=True)
class _Groups:
    """Positions of the groups of theta, in their order; described in `ThetaLayout`."""

    log_exponent: slice
    log_reducible: slice
    log_gamma: int
    offsets: slice
    log_curvature: slice
    asymmetry: slice
    optimum: slice
    drift: slice
    bend: slice
    couplings: slice
    size: int

    @classmethod
    def of(cls, axes: int, codes: int, decisions: int, pairs: int) -> _Groups:
        lengths = [1, axes, axes, 1, 1, codes, decisions, 2 * decisions, decisions]
        lengths += [decisions * axes, decisions * axes, pairs]
        ends = np.cumsum(lengths).tolist()
        _, alpha, R, gamma, _, *rest = (
            slice(a, b) for a, b in zip([0, *ends[:-1]], ends, strict=True)
        )
        offsets, curvature, asymmetry, optimum, drift, bend, couplings = rest
        return cls(
            alpha, R, gamma.start, offsets, curvature, asymmetry, optimum, drift, bend, couplings,
            size=ends[-1],
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class ThetaLayout:
    """Position of each group of parameters in theta, and the columns it refers to.

    Args:
        columns: roles of the columns of X.
        decisions: columns of z.
        axes: columns of s, SCALE first, then FIDELITY.
        origin: `(axes,)`, with `s_a = origin_a + unit_a X[:, axes_a]`.
        unit: `(axes,)`.
        codes: (column, code) of each offset, in the order of `Columns.one_hot`; the prior keeps
            the offsets centered.
        pairs: (j, k), positions in `decisions` of each coupling `m_jk`, j before k by name, so that
            the order of the columns does not matter.
        groups: positions of each group.

    Example:
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr", "batch"), max_pairs=28)
        >>> layout.size, layout.optimum, layout.pairs
        (12, slice(9, 11, None), ((1, 0),))
    """

    columns: Columns
    decisions: IntArray
    axes: IntArray
    origin: Array
    unit: Array
    codes: tuple[tuple[int, int], ...]
    pairs: tuple[tuple[int, int], ...]
    groups: _Groups

    @classmethod
    def of(cls, columns: Columns, max_pairs: int) -> ThetaLayout:
        """Return the layout for `columns`.

        Args:
            columns: roles of the columns.
            max_pairs: number of pairs of decisions up to which all are coupled, beyond it none is.
        """
        axes = np.concatenate([columns.scale, columns.fidelity])
        by_name = sorted(
            range(len(columns.decision)), key=lambda j: columns.names[columns.decision[j]]
        )
        pairs = tuple(combinations(by_name, 2))
        pairs = pairs if len(pairs) <= max_pairs else ()
        codes = tuple(
            (int(q), v) for q in columns.categorical for v in range(columns.categories[q])
        )
        groups = _Groups.of(len(axes), len(codes), len(columns.decision), len(pairs))
        origin, width = columns.origin[axes], columns.width[axes]
        return cls(columns, columns.decision, axes, origin, width, codes, pairs, groups)

    @property
    def size(self) -> int:
        """Length of theta."""
        return self.groups.size

    @property
    def log_exponent(self) -> slice:
        """Positions of ln alpha, one per axis."""
        return self.groups.log_exponent

    @property
    def log_reducible(self) -> slice:
        """Positions of ln R, one per axis."""
        return self.groups.log_reducible

    @property
    def log_gamma(self) -> int:
        """Position of ln gamma."""
        return self.groups.log_gamma

    @property
    def shrinkage(self) -> int:
        """Position of logit kappa."""
        return self.groups.log_gamma + 1

    @property
    def offsets(self) -> slice:
        """Positions of the offsets, one per code."""
        return self.groups.offsets

    @property
    def log_curvature(self) -> slice:
        """Positions of ln h, one per decision."""
        return self.groups.log_curvature

    @property
    def asymmetry(self) -> slice:
        """Positions of lam: above the optimum of each decision, then below it."""
        return self.groups.asymmetry

    @property
    def optimum(self) -> slice:
        """Positions of a, one per decision."""
        return self.groups.optimum

    @property
    def drift(self) -> slice:
        """Positions of b, row-major: all axes of decision 0, then of decision 1, .."""
        return self.groups.drift

    @property
    def bend(self) -> slice:
        """Positions of q, in the order of `drift`."""
        return self.groups.bend

    @property
    def couplings(self) -> slice:
        """Positions of the couplings m."""
        return self.groups.couplings

    def scales(self, X: Array) -> Array:
        """Return `s` at the rows of `X`, `n x axes`."""
        return np.asarray(self.origin + self.unit * X[:, self.axes])


@dataclass(frozen=True, slots=True)
class ParametricLoss:
    """The formula at the head of this module at fixed `theta`.

    Args:
        layout: meaning of theta.
        reference: `(axes,)`, sbar.
        theta: `(layout.size,)`.

    Example:
        >>> layout = ThetaLayout.of(Columns.of_decisions("lr"), 0)
        >>> theta = np.zeros(layout.size)
        >>> theta[0], theta[layout.optimum], theta[layout.log_curvature] = 3.0, 0.4, np.log(2.0)
        >>> loss = ParametricLoss(layout, np.zeros(0), theta)
        >>> loss.value(np.array([[0.4], [0.9]])).tolist()
        [3.0, 3.25]
    """

    layout: ThetaLayout
    reference: Array
    theta: Array
    _memo: list[_Rows] = field(default_factory=list, init=False, repr=False, compare=False)

    @property
    def optimum(self) -> Array:
        """`a`, `(decisions,)`: z* at the reference scale."""
        return self.theta[self.layout.optimum]

    @property
    def drift(self) -> Array:
        """`b`, `decisions x axes`: the drift at the reference scale."""
        shape = (len(self.layout.decisions), len(self.layout.axes))
        return self.theta[self.layout.drift].reshape(shape)

    @property
    def bend(self) -> Array:
        """`q`, `decisions x axes`: change of the drift per natural unit of scale."""
        shape = (len(self.layout.decisions), len(self.layout.axes))
        return self.theta[self.layout.bend].reshape(shape)

    def rebased(self, reference: Array) -> ParametricLoss:
        """Return the same function written about another reference scale."""
        layout, theta = self.layout, self.theta.copy()
        step = reference - self.reference
        law = self._law(reference[None, :])
        theta[0] += law.total * (law.rho[0] - 1.0)
        # an axis may have become negligible, but its logarithm stays finite
        shares = np.maximum(law.shares[0], np.exp(-2.0 * _MAX_EXPONENT))
        theta[layout.log_reducible] = np.log(law.total * law.rho[0] * shares)
        theta[layout.log_curvature] += expit(theta[layout.shrinkage]) * law.log_rho[0]
        theta[layout.optimum] = self.optimum_at(reference[None, :])[0]
        theta[layout.drift] += (self.bend * step).ravel()
        return ParametricLoss(layout, reference, theta)

    def optimum_at(self, scales: Array) -> Array:
        """Return `z*` at the rows of `scales` `m x axes`; `m x decisions`."""
        step = scales - self.reference
        return np.asarray(self.optimum + step @ self.drift.T + 0.5 * step**2 @ self.bend.T)

    def drift_at(self, scales: Array) -> Array:
        """Return `dz* / ds` at the rows of `scales` `m x axes`; `m x decisions x axes`."""
        return np.asarray(self.drift + self.bend * (scales - self.reference)[:, None, :])

    def displacement(self, X: Array) -> Array:
        """Return `z - z*`, `n x decisions`."""
        return self._rows(X).bowl.displacement

    def _displacement(self, X: Array) -> Array:
        return X[:, self.layout.decisions] - self.optimum_at(self.layout.scales(X))

    def _rows(self, X: Array) -> _Rows:
        """Return law and bowl at the rows of `X`, kept for the arrays asked about last.

        A prediction asks for value, floor, features and kernels of the same rows, and of the
        training rows each time. Arrays are not changed in place anywhere in this package.
        """
        place = next((i for i, rows in enumerate(self._memo) if rows.X is X), None)
        if place is None:
            rows = _Rows(X, self._law(self.layout.scales(X)), self._bowl(X))
            del self._memo[: len(self._memo) + 1 - _KEPT]
        else:
            rows = self._memo.pop(place)
        self._memo.append(rows)
        return rows

    def value(self, X: Array) -> Array:
        """Return the loss `y`, `(n,)`."""
        return self.floor(X) + self.excess(X)

    def floor(self, X: Array) -> Array:
        """Return the loss at the optimum of each row's scale and categories, `(n,)`."""
        law = self._rows(X).law
        offsets = self.layout.columns.one_hot(X) @ self.theta[self.layout.offsets]
        return np.asarray(self.theta[0] + law.total * (law.rho - 1.0) + offsets)

    def excess(self, X: Array) -> Array:
        """Return the loss above the floor, `(n,)`, >= 0."""
        rows = self._rows(X)
        return np.asarray(rows.law.curvature * (rows.bowl.shape @ rows.bowl.curvature))

    def curvature_at(self, scales: Array) -> Array:
        """Return `d^2 y / dz dz'` at the optimum of `scales` `(axes,)`; `decisions x decisions`."""
        mixing = self._mixing()
        curvature = np.exp(self.theta[self.layout.log_curvature])
        shrunk = self._law(scales[None, :]).curvature[0]
        return np.asarray(shrunk * (mixing.T * curvature) @ mixing)

    def jacobian(self, X: Array) -> Array:
        """Return `dy / dtheta`, `n x size`."""
        rows = self._rows(X)
        if rows.jacobian is None:
            rows.jacobian = self._jacobian(X, rows.law, rows.bowl)
        return rows.jacobian

    def _jacobian(self, X: Array, law: _Law, bowl: _Bowl) -> Array:
        layout, theta = self.layout, self.theta
        J = np.empty((len(X), layout.size))
        J[:, 0] = 1.0
        excess = law.curvature * (bowl.shape @ bowl.curvature)
        kappa = expit(theta[layout.shrinkage])
        # dy / d ln rho through the floor and through the bowl
        by_log_rho = (law.total * law.rho + kappa * excess)[:, None]
        spent = law.exponent * law.offset  # alpha_a D_a
        by_R = law.gamma * (law.shares - law.weight)
        direct = law.total * law.weight * (law.rho[:, None] - 1.0)  # R itself, at fixed rho
        J[:, layout.log_reducible] = by_log_rho * by_R + direct
        J[:, layout.log_exponent] = -by_log_rho * law.shares * spent
        by_gamma = law.log_rho + (law.shares * spent).sum(axis=1)
        J[:, layout.log_gamma] = by_log_rho[:, 0] * by_gamma
        J[:, layout.shrinkage] = excess * law.log_rho * kappa * (1.0 - kappa)
        J[:, layout.offsets] = layout.columns.one_hot(X)
        weight = law.curvature[:, None] * bowl.curvature
        J[:, layout.log_curvature] = weight * bowl.shape
        by_asymmetry = weight * bowl.shape_by_asymmetry
        above = bowl.above
        J[:, layout.asymmetry] = np.concatenate(
            [np.where(above, by_asymmetry, 0.0), np.where(above, 0.0, by_asymmetry)], axis=1
        )
        by_t = weight * bowl.shape_slope  # dy / dt_j
        by_z = by_t @ bowl.mixing  # dy / d(z - z*)_k
        J[:, layout.optimum] = -by_z
        drift = -by_z[:, :, None] * law.offset[:, None, :]
        J[:, layout.drift] = drift.reshape(len(X), by_z.shape[1] * law.offset.shape[1])
        bend = 0.5 * drift * law.offset[:, None, :]
        J[:, layout.bend] = bend.reshape(len(X), by_z.shape[1] * law.offset.shape[1])
        for position, (j, k) in zip(_positions(layout.couplings), layout.pairs, strict=True):
            J[:, position] = by_t[:, j] * bowl.displacement[:, k]
        return J

    def gradient(self, X: Array) -> Array:
        """Return `dy / dX`, `n x d`, zero in categorical columns."""
        law = self._rows(X).law
        G = self.excess_gradient(X)
        by_s = -(law.total * law.rho)[:, None] * law.shares * law.exponent
        G[:, self.layout.axes] += by_s * self.layout.unit
        return G

    def excess_gradient(self, X: Array) -> Array:
        """Return the derivatives of `excess`, `n x d`."""
        law, bowl = self._rows(X).law, self._rows(X).bowl
        G = np.zeros(X.shape)
        weight = law.curvature[:, None] * bowl.curvature
        by_z = (weight * bowl.shape_slope) @ bowl.mixing
        G[:, self.layout.decisions] = by_z
        kappa = expit(self.theta[self.layout.shrinkage])
        by_log_rho = kappa * law.curvature * (bowl.shape @ bowl.curvature)
        drift = self.drift_at(self.layout.scales(X))
        by_s = -by_log_rho[:, None] * law.shares * law.exponent
        by_s -= np.einsum("nj,nja->na", by_z, drift)
        G[:, self.layout.axes] = by_s * self.layout.unit
        return G

    def _law(self, scales: Array) -> _Law:
        """Return the law at the rows of `scales`, `m x axes`."""
        theta, layout = self.theta, self.layout
        offset = scales - self.reference
        reducible = np.exp(theta[layout.log_reducible])
        exponent = np.exp(theta[layout.log_exponent])
        gamma = float(np.exp(theta[layout.log_gamma]))
        total = float(reducible.sum())
        weight = reducible / total if len(reducible) else reducible
        if not len(reducible):
            flat = np.zeros(len(scales))
            ones = flat + 1.0
            return _Law(offset, weight, total, exponent, gamma, offset, flat, ones, ones)
        left = np.log(weight) - np.clip(exponent * offset, -_MAX_EXPONENT, _MAX_EXPONENT) / gamma
        worst = left.max(axis=1, keepdims=True)
        powers = np.exp(left - worst)
        summed = powers.sum(axis=1, keepdims=True)
        log_rho = gamma * (worst + np.log(summed))[:, 0]
        curvature = np.exp(expit(theta[layout.shrinkage]) * log_rho)
        shares = powers / summed
        return _Law(
            offset, weight, total, exponent, gamma, shares, log_rho, np.exp(log_rho), curvature
        )

    def _bowl(self, X: Array) -> _Bowl:
        theta, layout, mixing = self.theta, self.layout, self._mixing()
        displacement = self._displacement(X)
        t = displacement @ mixing.T
        above, below = np.split(theta[layout.asymmetry], 2)
        shape, slope, by_asymmetry = valley(t, np.where(t > 0.0, above, below))
        curvature = np.exp(theta[layout.log_curvature])
        return _Bowl(displacement, mixing, curvature, shape, slope, by_asymmetry, t > 0.0)

    def _mixing(self) -> Array:
        """Return `M`, unit upper triangular."""
        mixing = np.eye(len(self.layout.decisions))
        for position, (j, k) in zip(
            _positions(self.layout.couplings), self.layout.pairs, strict=True
        ):
            mixing[j, k] = self.theta[position]
        return mixing


@dataclass(slots=True)
class _Rows:
    X: Array
    law: _Law
    bowl: _Bowl
    jacobian: Array | None = None


@dataclass(frozen=True, slots=True)
class _Law:
    offset: Array  # D, m x axes
    weight: Array  # R_a / R, (axes,)
    total: float  # R
    exponent: Array  # alpha, (axes,)
    gamma: float
    shares: Array  # of each axis in the reducible loss, m x axes: -d ln rho / d (alpha_a D_a)
    log_rho: Array  # (m,)
    rho: Array  # (m,)
    curvature: Array  # rho^kappa, (m,)


@dataclass(frozen=True, slots=True)
class _Bowl:
    displacement: Array  # z - z*, n x decisions
    mixing: Array  # M
    curvature: Array  # h, (decisions,)
    shape: Array  # phi, n x decisions
    shape_slope: Array  # d phi / dt
    shape_by_asymmetry: Array  # d phi / d lam, of the side that the row is on
    above: BoolArray  # whether t > 0, n x decisions


def valley(t: Array, asymmetry: Array) -> tuple[Array, Array, Array]:
    """Return `phi(t, lam) = w^2 / 2` and its derivatives in t and lam.

    With `x = lam t`: `w = t B(x)`, `dw/dt = e^x`, `dw/dlam = t^2 C(x)`::

        B = (e^x - 1) / x,   C = (x e^x - e^x + 1) / x^2

    which lose all digits near x = 0 and are summed as series there.

    Args:
        t: `n x j`.
        asymmetry: `n x j` or `(j,)`, lam.

    Example:
        >>> phi, slope, _ = valley(np.array([[2.0]]), np.zeros(1))
        >>> phi.tolist(), slope.tolist()
        ([[2.0]], [[2.0]])
    """
    x = asymmetry * t
    small = np.abs(x) < _SERIES
    safe = np.where(small, 1.0, x)
    x = np.clip(x, -_MAX_EXPONENT, _MAX_EXPONENT)
    grown = np.expm1(np.clip(safe, -_MAX_EXPONENT, _MAX_EXPONENT))
    B = grown / safe
    C = (safe * (grown + 1.0) - grown) / safe**2
    near = np.where(small, x, 0.0)
    B = np.where(small, _series(near, (1.0, 1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720)), B)
    C = np.where(small, _series(near, (1 / 2, 1 / 3, 1 / 8, 1 / 30, 1 / 144, 1 / 840)), C)
    w = t * B
    return 0.5 * w**2, w * np.exp(x), w * t**2 * C


def _series(w: Array, coefficients: tuple[float, ...]) -> Array:
    """Return the polynomial with `coefficients`, lowest order first, by Horner's rule."""
    total = np.zeros_like(w)
    for coefficient in reversed(coefficients):
        total = total * w + coefficient
    return total


def _positions(group: slice) -> range:
    return range(group.start, group.stop)
