"""Fitted scaling law: coefficients beside their priors, and the compute-optimal sizes.

Notation as in `surrogates.scaling_law.parametric_loss`: at the best settings, and relative to the
reference scale, the loss is ::

    E + R rho,    rho = (sum_a w_a exp(-alpha_a D_a / gamma))^gamma,    w_a = R_a / R

with D_a = s_a - sbar_a the distance of scale axis a from the reference, in natural units (ln N,
ln D, ..). Everything here follows from that law alone. `result.recommend` also uses the Gaussian
processes that the value model adds to it, which matter near the runs.

**Compute-optimal allocation.** A run costs ln C = k + sum_a c_a s_a; for 6 N D, k = ln 6 and both c
are 1. rho rises with the sum inside it, so gamma decides how much loss there is but not how to
share compute: with p_a = alpha_a / gamma and a multiplier ln m, ::

    D_a = (ln(w_a p_a / c_a) - ln m) / p_a
    ln m = (k - ln C + sum_a c_a (sbar_a + ln(w_a p_a / c_a) / p_a)) / sum_a (c_a / p_a)

For gamma = 1 and 6 N D this is eq. 4 of Hoffmann et al. 2022. Each axis grows as C to the power
(1 / alpha_a) / sum_b (c_b / alpha_b).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import logsumexp

from hpo.errors import UnknownNameError, printable_str
from hpo.scaling.allocation import Allocation
from hpo.scaling.coefficient_table import Coefficient, as_frame, as_grid, as_text
from hpo.scaling.cost_law import CostLaw
from hpo.scaling.rule_mixture import RuleMixture
from hpo.scaling.rule_table import RuleWeight, rules_as_grid, rules_as_text
from hpo.space import Axis
from hpo.space.arguments import Kind, Number, OneOf, Row, Table
from hpo.space.checks import LARGEST_FLOAT
from hpo.space.encoding import Encoder
from hpo.trials.printing import as_html
from hpo.trials.table_columns import column_names
from surrogates.data import Array, ColumnKind
from surrogates.numerics import normal_half_width, single_threaded
from surrogates.scaling_law.coefficients import Estimate, ScalingLaw
from surrogates.scaling_law.model import ScalingPredictor
from surrogates.scaling_law.rolling_origin import distance_beyond

if TYPE_CHECKING:
    import pandas as pd

_DRAWS = 1000  # of the coefficients, for intervals
_LEAST_RATE = 0.02  # exponent of cost that cannot be told from 0; less makes no sense
_NINETY = normal_half_width(0.9)  # in standard deviations
_KEY = 0xA110C  # random key of the draws: the same fit gives the same intervals
_FARTHEST = 690.0  # logarithm of a size; exp overflows beyond 709
_SIZE = Number(above=0, most=LARGEST_FLOAT, way_out="give e.g. 1e9")


@dataclass(frozen=True, slots=True)
class FittedLaw:
    """Prior and posterior of every coefficient of the scaling law of a study.

    `result.scaling_law` holds one; print it, or take `to_pandas()`.

    Attributes:
        coefficients: coefficients as the surrogate has them, for a loss that is minimized.
        gamma: how the axes combine, 1 for a sum of powers.
        rules: weight of every competing transfer rule before and after the runs, and last of none
            of them; empty where no rule had a say.

    Example:
        >>> from hpo import Axis, Float, Optimizer, Scale, Slope
        >>> space = {
        ...     "lr": Float(1e-4, 1e-1, log=True),
        ...     "params": Scale(1e5, 1e7, axis=Axis.PARAMS),
        ...     "tokens": Scale(1e6, 1e8, axis=Axis.TOKENS),
        ... }
        >>> optimizer = Optimizer(space, priors=[Slope("lr", "tokens", -0.3, 0.1)])
        >>> for i in range(12):
        ...     lr, N, D = 10.0 ** (i % 4 - 4), 10.0 ** (5 + i % 3), 10.0 ** (6 + i // 3 % 3)
        ...     loss = 2 + (1e5 / N) ** 0.3 + (1e6 / D) ** 0.3 + 0.05 * math.log(lr / 3e-3) ** 2
        ...     _ = optimizer.tell({"lr": lr, "params": N, "tokens": D}, loss)
        >>> law = optimizer.result().scaling_law
        >>> round(law.slope("lr", "tokens").prior_mean, 3)  # -0.3 with probability 3/4, else 0
        -0.225
        >>> [(rule.name, round(rule.before, 2)) for rule in law.rules]
        [('your slopes and levels', 0.75), ('none of them', 0.25)]
        >>> 0.1 < law.exponent("params").mean < 0.4
        True
        >>> 1e-4 < math.exp(law.optimum("lr").mean) < 1e-1
        True
        >>> best = law.allocation(1e17)
        >>> best.unit, sorted(best.scale)
        ('FLOPs (6 N D)', ['params', 'tokens'])
    """

    coefficients: ScalingLaw
    gamma: Estimate
    rules: tuple[RuleWeight, ...]
    _encoder: Encoder = field(repr=False)
    _predictor: ScalingPredictor = field(repr=False)
    _cost: CostLaw | None = field(repr=False)

    @classmethod
    def of(
        cls,
        encoder: Encoder,
        predictor: ScalingPredictor,
        cost: CostLaw | None,
        rules: RuleMixture | None = None,
    ) -> FittedLaw:
        """Read the law out of a fit.

        Args:
            encoder: encoder of the space.
            predictor: fitted value model.
            cost: law of what a run costs, None for 6 N D.
            rules: competing transfer rules that the model was fitted with, None for none.
        """
        mean, covariance = predictor.coefficients()
        i = predictor.loss.layout.log_gamma
        prior_sd = float(np.linalg.norm(predictor.prior.root[i]))
        value, prior = float(np.exp(mean[i])), float(np.exp(predictor.prior.mean[i]))
        sd = math.sqrt(float(covariance[i, i]))
        gamma = Estimate(value, value * sd, prior, prior * prior_sd)
        return cls(predictor.law(), gamma, _weighed(rules, predictor), encoder, predictor, cost)

    def exponent(self, axis: str) -> Estimate:
        """Return alpha of a scale axis or the fidelity.

        Args:
            axis: name of the axis.

        Raises:
            KeyError: for any other name.
        """
        return self.coefficients.exponent[_index("axis", axis, self.coefficients.axes)]

    def slope(self, parameter: str, axis: str) -> Estimate:
        """Return the drift of the best setting along an axis, in natural units.

        Args:
            parameter: name of a numeric parameter.
            axis: name of a scale axis or the fidelity.

        Raises:
            KeyError: for any other names.
        """
        row = self.coefficients.drift[_index("parameter", parameter, self.coefficients.decisions)]
        return row[_index("axis", axis, self.coefficients.axes)]

    def optimum(self, parameter: str) -> Estimate:
        """Return the best setting at the mean scale of the runs, in natural units.

        Args:
            parameter: name of a numeric parameter.

        Raises:
            KeyError: for any other name.
        """
        return self.coefficients.optimum[
            _index("parameter", parameter, self.coefficients.decisions)
        ]

    def best(self, parameter: str, at: Mapping[str, float]) -> Estimate:
        """Return the best setting at one scale, bend included, in natural units.

        Args:
            parameter: name of a numeric parameter.
            at: value of every scale axis; a fidelity that is left out counts as complete.

        Raises:
            KeyError: for any other name.
            ValueError: where a scale axis has no value, or one that is not positive and finite.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "n": Scale(1e5, 1e7)})
            >>> for i in range(12):
            ...     n, k = 10.0 ** (5 + i // 4), i % 4
            ...     loss = n**-0.3 + 0.1 * (k - 1.5) ** 2
            ...     _ = optimizer.tell({"lr": 10 ** (-3.2 + k / 2), "n": n}, loss)
            >>> law = optimizer.result().scaling_law
            >>> round(math.exp(law.best("lr", {"n": 1e9}).mean), 3)
            0.004
        """
        j = _index("parameter", parameter, self.coefficients.decisions)
        at = Table(way_out="give each scale axis a value, such as {'params': 1e9}")(at, "`at`")
        missing = [axis for axis in self._encoder.space.scales if axis not in at]
        if missing:
            raise ValueError(f"`at` must give every scale axis a value, got none for {missing}")
        layout = self._predictor.loss.layout
        scales = layout.origin + layout.unit  # full fidelity
        for axis, value in at.items():
            place = _index("at", axis, self.coefficients.axes)
            scales[place] = math.log(_SIZE(value, f"`at[{axis!r}]`"))
        optimum, columns = self._predictor.optimum(scales), self._encoder.columns
        column = columns.decision[j]
        rows = self._predictor.optimum_rows(scales)[j]
        middle = float(rows @ self._predictor.before.mean)
        return Estimate(
            float(optimum.mean[j]),
            math.sqrt(float(optimum.covariance[j, j])),
            float(columns.origin[column] + columns.width[column] * middle),
            math.sqrt(float(optimum.prior_covariance[j, j])),
        )

    @property
    def rows(self) -> tuple[Coefficient, ...]:
        """Every coefficient with a prior, drift first."""
        law, space = self.coefficients, self._encoder.space
        names = [space[name].unit.label(name) for name in law.decisions]
        axes = [space[axis].unit.label(axis) for axis in law.axes]
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
        """Return a table with one row per coefficient.

        Columns: coefficient, prior, prior_sd, posterior, posterior_sd, informed_by_data.
        """
        return as_frame(self.rows)

    def _note(self) -> str:
        at = ", ".join(
            f"{axis} {math.exp(s):.4g}"
            for axis, s in zip(
                self.coefficients.axes, self.coefficients.reference.tolist(), strict=True
            )
        )
        return (
            f"Best values and removable losses are those at {at}; +- one standard error.\n"
            "Slopes are those at this size and may bend; law.best(parameter, at={...}) includes it."
        )

    @printable_str
    def __str__(self) -> str:
        table = f"\n\n{rules_as_text(self.rules)}" if self.rules else ""
        return f"{as_text(self.rows)}\n{self._note()}{table}"

    def _repr_html_(self) -> str:
        rules = [rules_as_grid(self.rules)] if self.rules else []
        return as_html([as_grid(self.rows), self._note(), *rules])

    @single_threaded
    def allocation(self, compute: float, cost: CostLaw | None = None) -> Allocation:
        """Return the sizes of least loss for one run that costs `compute`.

        Intervals are wide where the laws are poorly identified. Far from the runs,
        `result.recommend` at the answer warns as well.

        Args:
            compute: cost of the run, in the unit of `cost`.
            cost: law of that unit, such as `result.wall_clock_law` to divide seconds; by default
                the law of the study's declared unit if costs were told, else 6 N D FLOPs.

        Raises:
            ValueError: for a compute that is not positive and finite, or so far from the costs of
                the runs that no number holds the sizes, for a space without costs whose axes are
                not parameters and tokens, or if the 90 % interval of an exponent of cost reaches 0,
                so that an axis may cost nothing.
        """
        compute = replace(_SIZE, way_out="give e.g. 1e20")(compute, "`compute`")
        cost = Kind(CostLaw, optional=True, way_out="pass result.cost_law")(cost, "`cost`")
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
        if not np.abs(scales[0]).max() <= _FARTHEST:
            raise ValueError(
                f"`compute` must lie nearer to the costs of the runs, got {compute!r} {unit}, for"
                " which the law names sizes beyond any number; give what a run may cost"
            )
        scales = np.clip(scales, -_FARTHEST, _FARTHEST)

        offset = np.zeros_like(log_R) + (layout.origin + layout.unit) - reference  # full fidelity
        offset[:, :count] = scales - reference[:count]
        with np.errstate(over="ignore"):  # of a draw that gives no interval
            rho = np.exp(gamma[:, 0] * logsumexp(log_R - total - alpha * offset / gamma, axis=1))
        sign = self._encoder.loss_sign
        best_codes = _best_offsets(layout.codes, theta[:, layout.offsets])
        loss = sign * (theta[:, 0] + np.exp(total[:, 0]) * (rho - 1.0) + best_codes)
        power = (1.0 / alpha[:, :count]) / (rate / alpha[:, :count]).sum(axis=1)[:, None]

        names = self.coefficients.axes[:count]
        low, high = np.quantile(scales[1:], [0.05, 0.95], axis=0)
        least, most = np.quantile(power[1:], [0.05, 0.95], axis=0)
        low_loss, high_loss = np.quantile(loss[1:], [0.05, 0.95])
        own = _NINETY * self._run_sd(offset[:1] + reference)
        below = math.hypot(float(loss[0] - low_loss), own)
        above = math.hypot(float(high_loss - loss[0]), own)
        return Allocation(
            compute=float(compute),
            unit=unit,
            scale=dict(zip(names, np.exp(scales[0]).tolist(), strict=True)),
            intervals=_pairs(names, np.exp(low), np.exp(high)),
            exponents=dict(zip(names, power[0].tolist(), strict=True)),
            exponent_intervals=_pairs(names, least, most),
            loss=float(loss[0]),
            loss_interval=(float(loss[0]) - below, float(loss[0]) + above),
        )

    def _run_sd(self, scales: Array) -> float:
        """Return the standard deviation of a run about the law at one row of natural scales."""
        predictor = self._predictor
        runs = predictor.loss.layout.scales(predictor.X)
        drift = predictor.growth * float(distance_beyond(runs, scales)[0])
        return math.hypot(math.sqrt(predictor.noise_variance), drift)

    def frontier(self, computes: Sequence[float], cost: CostLaw | None = None) -> pd.DataFrame:
        """Return a table of the least loss against compute, one row per `allocation`.

        Columns: compute, loss, loss_low, loss_high and one for each scale axis, which is called
        `params_loss` and so on where its own name is one of these.

        Args:
            computes: costs of one run, in the unit of `cost`.
            cost: law of that unit, as in `allocation`.

        Raises:
            ValueError: as `allocation` does.
        """
        import pandas as pd

        given: tuple[float, ...] = Row(_SIZE, way_out="write [1e18, 1e20]")(computes, "`computes`")
        best = [self.allocation(compute, cost) for compute in given]
        ours = ("compute", "loss", "loss_low", "loss_high")
        columns, _ = column_names(ours, self._encoder.space.scales)
        rows = [
            (b.compute, b.loss, *b.loss_interval, *(b.scale[name] for name in columns))
            for b in best
        ]
        return pd.DataFrame(rows, columns=[*ours, *columns.values()])

    def _price(self, cost: CostLaw | None, rng: np.random.Generator) -> tuple[Array, Array, str]:
        """Return k `(m,)`, c `m x axes` and the unit of ln C = k + c . s: the mean, then draws."""
        if cost is not None:
            level, rate = cost.lines(self._best_row(), _DRAWS, rng)
            least, most = np.quantile(rate[1:], [0.05, 0.95], axis=0)
            flat = [
                f"{axis!r} (cost grows as its power {c:.2g}, {low:.2g} to {high:.2g})"
                for axis, c, low, high in zip(
                    self.coefficients.axes, rate[0], least, most, strict=False
                )
                if min(c, low) < _LEAST_RATE
            ]
            if flat:
                raise ValueError(
                    "costs must rise with every scale axis for an allocation, or the best size has"
                    f" no bound, but they cannot be told from constant in {', '.join(flat)}; run"
                    " more proxies that differ in it, or tell a cost= that counts it, such as FLOPs"
                )
            return level, np.maximum(rate, _LEAST_RATE), cost.unit
        space = self._encoder.space
        measured = [scale.axis for scale in space.scale_axes.values()]
        if sorted(measured, key=lambda axis: axis.value) != [Axis.PARAMS, Axis.TOKENS]:
            raise ValueError(
                "an allocation of 6 N D FLOPs needs exactly the scale axes PARAMS and TOKENS, got"
                f" {list(space.scales)}; mark them with axis=, or name a cost= unit and tell costs,"
                " from which the law of costs is learned"
            )
        return np.full(1 + _DRAWS, math.log(6.0)), np.ones((1 + _DRAWS, 2)), "FLOPs (6 N D)"

    def _best_row(self) -> Array:
        """Return `(d,)`, the law's best settings, every group active, full fidelity."""
        columns = self._encoder.columns
        row = np.zeros(len(columns.kinds))
        row[columns.fidelity] = 1.0
        row[[kind is ColumnKind.ACTIVITY for kind in columns.kinds]] = 1.0
        row[columns.decision] = np.clip(self._predictor.loss.optimum, 0.0, 1.0)
        return row


def _weighed(rules: RuleMixture | None, predictor: ScalingPredictor) -> tuple[RuleWeight, ...]:
    """Return the weight of each rule before and after the runs, and last of none of them."""
    if rules is None:
        return ()
    prior = rules.drift.weights
    before = rules.of_rules(prior).tolist()
    after = rules.of_rules(predictor.rule_weights).tolist()
    named = [*((rule.name, rule.source) for rule in rules.rules), ("none of them", "")]
    return tuple(
        RuleWeight(name, source, *weights)
        for (name, source), *weights in zip(named, before, after, strict=True)
    )


def _index(argument: str, name: str, names: tuple[str, ...]) -> int:
    return names.index(OneOf(names)(name, f"`{argument}`", UnknownNameError))


def _pairs(names: tuple[str, ...], low: Array, high: Array) -> dict[str, tuple[float, float]]:
    ends = zip(names, low.tolist(), high.tolist(), strict=True)
    return {name: (first, last) for name, first, last in ends}


def _best_offsets(codes: tuple[tuple[int, int], ...], offsets: Array) -> Array:
    """Return the sum over the categorical columns of the least offset, per row of `offsets`."""
    columns = np.array([column for column, _ in codes], dtype=np.intp)
    best = np.zeros(len(offsets))
    for column in np.unique(columns):
        best += offsets[:, columns == column].min(axis=1)
    return best
