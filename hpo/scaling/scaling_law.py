"""The fitted scaling law as people read it: coefficients beside their priors, and what to train.

Notation as in :mod:`surrogates.scaling_law.parametric_loss`: at the best settings, and relative to the reference
scale, the loss is ::

    E + R rho,    rho = (sum_a w_a exp(-alpha_a D_a / gamma))^gamma,    w_a = R_a / R

with ``D_a = s_a - sbar_a`` the distance of scale axis a from the reference, in natural units (ln N,
ln D, ..). Everything here is that law's; the processes that the value model adds to it, and with
them `result.recommend`, may say a little more where there are runs.

**Compute-optimal allocation.** A run costs ``ln C = k + sum_a c_a s_a``; for 6 N D, k = ln 6 and
both c are 1. rho rises with the sum inside it, so gamma decides how much loss there is but not how
to share compute: with ``p_a = alpha_a / gamma`` and a multiplier ln m, ::

    D_a = (ln(w_a p_a / c_a) - ln m) / p_a
    ln m = (k - ln C + sum_a c_a (sbar_a + ln(w_a p_a / c_a) / p_a)) / sum_a (c_a / p_a)

For gamma = 1 and 6 N D this is eq. 4 of Hoffmann et al. 2022. Each axis grows as C to the power
``(1 / alpha_a) / sum_b (c_b / alpha_b)``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from hpo.scaling.allocation import Allocation
from hpo.scaling.coefficient_table import Coefficient, as_frame, as_text, natural_name
from hpo.scaling.cost_law import CostLaw
from hpo.space import Axis, Scale
from hpo.space.encoding import Encoder
from surrogates.data import Array, ColumnKind
from surrogates.numerics import single_threaded
from surrogates.scaling_law.model import Estimate, ScalingLaw, ScalingPredictor

if TYPE_CHECKING:
    import pandas as pd

_DRAWS = 1000
_LEAST_RATE = 0.02  # exponent of cost below which a draw has lost its meaning
_KEY = 0xA110C  # random key of the draws: the same fit gives the same intervals


@dataclass(frozen=True, slots=True)
class FittedLaw:
    """Prior and posterior of every coefficient; print it, or take :meth:`to_pandas`.

    Attributes:
        coefficients: as arrays know them; losses in the direction that is minimized inside.
        gamma: how the axes combine, 1 for a sum of powers.
    """

    coefficients: ScalingLaw
    gamma: Estimate
    _encoder: Encoder = field(repr=False)
    _predictor: ScalingPredictor = field(repr=False)
    _cost: CostLaw | None = field(repr=False)

    @classmethod
    def of(cls, encoder: Encoder, predictor: ScalingPredictor, cost: CostLaw | None) -> FittedLaw:
        """Read a fit; `cost` is what a run costs, None for 6 N D."""
        mean, covariance = predictor.coefficients()
        i = predictor.loss.layout.log_gamma
        prior_sd = float(np.linalg.norm(predictor.prior.root[i]))
        value, prior = float(np.exp(mean[i])), float(np.exp(predictor.prior.mean[i]))
        sd = math.sqrt(float(covariance[i, i]))
        gamma = Estimate(value, value * sd, prior, prior * prior_sd)
        return cls(predictor.law(), gamma, encoder, predictor, cost)

    def exponent(self, axis: str) -> Estimate:
        """Alpha of a scale axis (or the fidelity), by name; KeyError for another name."""
        return self.coefficients.exponent[_index(axis, self.coefficients.axes)]

    def slope(self, parameter: str, axis: str) -> Estimate:
        """Drift of the best `parameter` along `axis`, natural units; KeyError for other names."""
        row = self.coefficients.drift[_index(parameter, self.coefficients.decisions)]
        return row[_index(axis, self.coefficients.axes)]

    def optimum(self, parameter: str) -> Estimate:
        """Best `parameter` at the mean scale of the runs, natural units; KeyError for others."""
        return self.coefficients.optimum[_index(parameter, self.coefficients.decisions)]

    @property
    def rows(self) -> tuple[Coefficient, ...]:
        """Every coefficient with a prior, drift first."""
        law, space = self.coefficients, self._encoder.space
        names = [natural_name(name, space[name]) for name in law.decisions]
        axes = [natural_name(axis, space[axis]) for axis in law.axes]
        rows = [
            Coefficient(f"d {name} / d {axis}", estimate)
            for name, slopes in zip(names, law.drift, strict=True)
            for axis, estimate in zip(axes, slopes, strict=True)
        ]
        rows += [
            Coefficient(f"best {name}", estimate)
            for name, estimate in zip(names, law.optimum, strict=True)
        ]
        rows += [
            Coefficient(f"exponent of {axis}", estimate)
            for axis, estimate in zip(law.axes, law.exponent, strict=True)
        ]
        rows += [
            Coefficient(f"loss {axis} can remove", estimate)
            for axis, estimate in zip(law.axes, law.reducible, strict=True)
        ]
        sign, E = self._encoder.loss_sign, law.irreducible
        floor = Estimate(sign * E.mean, E.sd, sign * E.prior_mean, E.prior_sd)
        return (*rows, Coefficient("gamma", self.gamma), Coefficient("irreducible loss", floor))

    def to_pandas(self) -> pd.DataFrame:
        """One row a coefficient: prior, prior_sd, posterior, posterior_sd, informed_by_data."""
        return as_frame(self.rows)

    def __str__(self) -> str:
        at = ", ".join(
            f"{axis} {math.exp(s):.4g}"
            for axis, s in zip(
                self.coefficients.axes, self.coefficients.reference.tolist(), strict=True
            )
        )
        note = f"Best values and removable losses are those at {at}; +- one standard error."
        return f"{as_text(self.rows)}\n{note}"

    @single_threaded
    def allocation(self, compute: float, cost: CostLaw | None = None) -> Allocation:
        """Sizes that make the law's loss least for one run that costs `compute`.

        Where the laws are poorly identified the intervals say so; far from the runs, so does
        :meth:`~hpo.optimizer.result.Result.recommend` at the answer.

        Args:
            compute: what the run may cost, in the unit of `cost`.
            cost: the law of that unit, such as ``result.wall_clock_law`` to share out seconds; by
                default that of the study's declared unit if costs were told, else 6 N D FLOPs.

        Raises:
            ValueError: for a compute that is not positive and finite, without costs for a space
                whose axes are not parameters and tokens, or if cost does not rise with every axis.
        """
        if not 0 < compute < math.inf:
            raise ValueError(
                f"`compute` must be positive and finite, got {compute!r}; give e.g. 1e20"
            )
        rng = np.random.default_rng(_KEY)
        level, rate, unit = self._price(cost or self._cost, rng)
        layout, count = self._predictor.loss.layout, rate.shape[1]
        mean, covariance = self._predictor.coefficients()
        root = np.linalg.cholesky(covariance + 1e-12 * np.diag(np.diagonal(covariance)))
        draws = mean + rng.standard_normal((_DRAWS, len(mean))) @ root.T
        theta = np.concatenate([mean[None, :], draws])

        reference = self.coefficients.reference
        alpha = np.exp(theta[:, layout.log_exponent])
        gamma = np.exp(theta[:, layout.log_gamma])[:, None]
        log_R = theta[:, layout.log_reducible]
        p = (alpha / gamma)[:, :count]
        total = logsumexp(log_R, axis=1)[:, None]
        pull = (log_R[:, :count] - total + np.log(p / rate)) / p
        spare = level - math.log(compute) + ((reference[:count] + pull) * rate).sum(axis=1)
        log_m = spare / (rate / p).sum(axis=1)
        scales = reference[:count] + pull - log_m[:, None] / p

        offset = np.zeros_like(log_R) + (layout.origin + layout.unit) - reference  # full fidelity
        offset[:, :count] = scales - reference[:count]
        rho = np.exp(gamma[:, 0] * logsumexp(log_R - total - alpha * offset / gamma, axis=1))
        sign = self._encoder.loss_sign
        best_codes = _best_offsets(layout.codes, theta[:, layout.offsets])
        loss = sign * (theta[:, 0] + np.exp(total[:, 0]) * (rho - 1.0) + best_codes)
        power = (1.0 / alpha[:, :count]) / (rate / alpha[:, :count]).sum(axis=1)[:, None]

        names = self.coefficients.axes[:count]
        low, high = np.quantile(scales[1:], [0.05, 0.95], axis=0)
        least, most = np.quantile(power[1:], [0.05, 0.95], axis=0)
        bounds = np.quantile(loss[1:], [0.05, 0.95])
        return Allocation(
            compute=float(compute),
            unit=unit,
            scale=dict(zip(names, np.exp(scales[0]).tolist(), strict=True)),
            intervals=_pairs(names, np.exp(low), np.exp(high)),
            exponents=dict(zip(names, power[0].tolist(), strict=True)),
            exponent_intervals=_pairs(names, least, most),
            loss=float(loss[0]),
            loss_interval=(float(bounds[0]), float(bounds[1])),
        )

    def frontier(self, computes: Sequence[float], cost: CostLaw | None = None) -> pd.DataFrame:
        """Loss against compute with the best sizes at each; one :meth:`allocation` a row.

        Columns: compute, loss, loss_low, loss_high and one for each scale axis.
        """
        import pandas as pd

        best = [self.allocation(compute, cost) for compute in computes]
        return pd.DataFrame(
            {
                "compute": b.compute,
                "loss": b.loss,
                "loss_low": b.loss_interval[0],
                "loss_high": b.loss_interval[1],
                **b.scale,
            }
            for b in best
        )

    def _price(self, cost: CostLaw | None, rng: np.random.Generator) -> tuple[Array, Array, str]:
        """K ``(m,)``, c m x axes and the unit of ``ln C = k + c . s``: the mean, then draws."""
        if cost is not None:
            level, rate = cost.lines(self._best_row(), _DRAWS, rng)
            if np.any(rate[0] <= 0.0):
                axes = self.coefficients.axes
                names = [a for a, c in zip(axes, rate[0], strict=False) if c <= 0.0]
                raise ValueError(
                    f"costs must rise with every scale axis to be shared out, but the fitted costs"
                    f" do not rise with {names}; run more proxies that differ in it"
                )
            return level, np.maximum(rate, _LEAST_RATE), cost.unit
        space = self._encoder.space
        measured = [scale.axis for n in space.scales if isinstance(scale := space[n], Scale)]
        if sorted(measured, key=lambda axis: axis.value) != [Axis.PARAMS, Axis.TOKENS]:
            raise ValueError(
                f"6 N D needs exactly the scale axes PARAMS and TOKENS, got {list(space.scales)};"
                " mark them with axis=, or name a cost= unit and tell costs, so that theirs is"
                " learned"
            )
        return np.full(1 + _DRAWS, math.log(6.0)), np.ones((1 + _DRAWS, 2)), "FLOPs (6 N D)"

    def _best_row(self) -> Array:
        """``(d,)``: the law's best settings at the reference, every group active, full fidelity."""
        columns = self._encoder.columns
        row = np.zeros(len(columns.kinds))
        row[columns.fidelity] = 1.0
        row[[kind is ColumnKind.ACTIVITY for kind in columns.kinds]] = 1.0
        row[columns.decision] = np.clip(self._predictor.loss.optimum, 0.0, 1.0)
        return row


def _index(name: str, names: tuple[str, ...]) -> int:
    if name not in names:
        raise KeyError(f"the law has no {name!r}; it has {list(names)}")
    return names.index(name)


def _pairs(names: tuple[str, ...], low: Array, high: Array) -> dict[str, tuple[float, float]]:
    ends = zip(names, low.tolist(), high.tolist(), strict=True)
    return {name: (first, last) for name, first, last in ends}


def _best_offsets(codes: tuple[tuple[int, int], ...], offsets: Array) -> Array:
    """Sum over the categorical columns of the least offset, one a row of ``offsets``."""
    columns = np.array([column for column, _ in codes], dtype=np.intp)
    best = np.zeros(len(offsets))
    for column in np.unique(columns):
        best += offsets[:, columns == column].min(axis=1)
    return best
