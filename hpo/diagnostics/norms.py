"""Whether norms and logits of the best runs stay within bounds as models grow.

Small runs foretell what will make the large one unstable: the metric of the best run at each size
follows a power law, which is extended to the target (Wortsman et al., 2023, arXiv:2309.14322,
section 3)::

    ln m = a + sum_j b_j ln s_j + noise

m    metric of the best run of a size
s_j  scale axes

A metric whose limit lies inside the 90 % prediction interval at the target may cross it, one whose
limit lies below the interval does.

The norm of the read-out is a check on the recommendation: at the best learning rate and batch size
it is the same at every scale (Filatov et al., 2025, arXiv:2510.03871). If it drifts among the best
runs, the best settings of some sizes have not been found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import numpy as np

from hpo.errors import SpaceError, printable_str
from hpo.optimizer.recommend import check_target
from hpo.optimizer.result import Result
from hpo.space.arguments import Kind, Number, Table
from hpo.trials import Observation, Status
from surrogates.data import Array

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["LIMITS", "READOUT", "NormCheck", "NormLaw", "NormVerdict", "check_norms"]

#: Metric of `TorchTrainer` that is constant at the best settings.
READOUT = "readout_norm"

#: Largest value of a metric with which training was stable: attention logits in Wortsman et al.,
#: section 3.1; of the others no limit is known, but their growth is shown.
LIMITS: Mapping[str, float] = {
    "attention_logit_max": 1e4,
    "activation_max": math.inf,
    "weight_norm": math.inf,
    "gradient_norm_max": math.inf,
    READOUT: math.inf,
}

_LEVEL = 0.9
_SPARE = 1  # sizes beyond the coefficients, so that there is a residual
_CONSTANT = 0.1  # largest slope of a norm that counts as constant: 10^0.1 = 1.26 in ten times


class NormVerdict(Enum):
    """What the runs say of a metric at the target.

    Example:
        >>> NormVerdict("stays below its limit")
        <NormVerdict.BELOW: 'stays below its limit'>
    """

    BELOW = "stays below its limit"
    MAY_CROSS = "may cross its limit"
    CROSSES = "crosses its limit"
    CONSTANT = "constant, as at the best settings"
    DRIFTS = "drifts: the best settings of some sizes are not found yet"
    UNCLEAR = "not identified by these runs"
    NO_LIMIT = "no limit is known"


@dataclass(frozen=True, slots=True)
class NormLaw:
    """Law of one metric of the best runs.

    Attributes:
        metric: Name of the metric.
        slopes: d ln metric / d ln axis, by axis.
        slope_intervals: Their 90 % intervals.
        at_target: Median of the metric at the target; None without one.
        interval: Its 90 % prediction interval; None without a target.
        limit: Largest value known to be stable; infinite if none is known.
        verdict: What follows.
        sizes: Number of sizes that the law is fitted to.
    """

    metric: str
    slopes: dict[str, float]
    slope_intervals: dict[str, tuple[float, float]]
    at_target: float | None
    interval: tuple[float, float] | None
    limit: float
    verdict: NormVerdict
    sizes: int


@dataclass(frozen=True, slots=True)
class NormCheck:
    """Result of :func:`check_norms`; `str` gives a table.

    Attributes:
        laws: One law for each metric that enough sizes have.
        target: Scale values that the laws are extended to; None without a target.
        missing: Metrics without a law, and why.
    """

    laws: tuple[NormLaw, ...]
    target: dict[str, float] | None
    missing: dict[str, str]

    def law(self, metric: str) -> NormLaw:
        """Return the law of a metric.

        Raises:
            KeyError: For a metric without a law, with the reason.
        """
        for law in self.laws:
            if law.metric == metric:
                return law
        reason = self.missing.get(metric, f"laws are known of {[law.metric for law in self.laws]}")
        raise KeyError(f"no law of {metric!r}: {reason}")

    @printable_str
    def __str__(self) -> str:
        where = "" if self.target is None else f" at {_sizes(self.target)}"
        lines = [f"Metrics of the best run of each size{where}, with 90 % intervals"]
        width = max((len(law.metric) for law in self.laws), default=0)
        for law in self.laws:
            slopes = ", ".join(
                f"{axis}^{slope:+.2f} ({law.slope_intervals[axis][0]:+.2f} to "
                f"{law.slope_intervals[axis][1]:+.2f})"
                for axis, slope in law.slopes.items()
            )
            line = f"{law.metric:{width}}  {slopes}"
            if law.at_target is not None and law.interval is not None:
                line += f"  {law.at_target:.3g} ({law.interval[0]:.3g} to {law.interval[1]:.3g})"
            limit = f" {law.limit:g}" if law.limit < math.inf else ""
            lines.append(f"{line}  {law.verdict.value}{limit}")
        lines += [f"{metric}: {reason}" for metric, reason in self.missing.items()]
        return "\n".join(lines)

    def to_pandas(self) -> pd.DataFrame:
        """Return one row for each metric and axis."""
        import pandas as pd

        return pd.DataFrame(
            {
                "metric": law.metric,
                "axis": axis,
                "slope": slope,
                "slope_low": law.slope_intervals[axis][0],
                "slope_high": law.slope_intervals[axis][1],
                "at_target": law.at_target,
                "low": None if law.interval is None else law.interval[0],
                "high": None if law.interval is None else law.interval[1],
                "limit": law.limit,
                "verdict": law.verdict.value,
            }
            for law in self.laws
            for axis, slope in law.slopes.items()
        )


def check_norms(
    result: Result,
    target: Mapping[str, float] | None = None,
    *,
    limits: Mapping[str, float] | None = None,
) -> NormCheck:
    """Fit laws to norms and logits of the best run of each size, and extend them to the target.

    Args:
        result: Result of a study whose runs told such metrics, as those of `TorchTrainer` do.
        target: Scale values of the final run; None takes the study's own.
        limits: Largest stable value by metric, added to :data:`LIMITS`.

    Returns:
        Laws with verdicts.

    Raises:
        SpaceError: If the space has no scale axes, or the target does not fit it.

    Example:
        >>> from hpo import Axis, Float, Optimizer, Scale
        >>> params = Scale(1e5, 1e8, axis=Axis.PARAMS)
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "params": params})
        >>> for n in (1e5, 1e6, 1e7, 1e8):
        ...     for lr in (1e-3, 1e-2):
        ...         told = {"attention_logit_max": 2.0 * (n / 1e5) ** 0.7 * (1 + lr)}
        ...         _ = optimizer.tell({"lr": lr, "params": n}, 5 * n**-0.1 + lr, metrics=told)
        >>> check = check_norms(optimizer.result(), {"params": 1e11})
        >>> law = check.law("attention_logit_max")
        >>> round(law.slopes["params"], 2), law.verdict.value
        (0.7, 'crosses its limit')
    """
    result = Kind(Result, way_out="pass what optimize() returned")(result, "`result`", TypeError)
    space = result.space
    if not space.scales:
        raise SpaceError("`result` must have scale axes; declare Scale(1e5, 1e7, axis=Axis.PARAMS)")
    given = Table(Number(above=0, infinite=True), optional=True)(limits, "`limits`") or {}
    target = result.target if target is None else target
    if target is not None:
        target = check_target(space, target)
    known = {**LIMITS, **given}
    best = _best_runs(result)
    laws: list[NormLaw] = []
    missing: dict[str, str] = {}
    for metric, limit in known.items():
        having = [(run, value) for run in best if (value := _metric(run, metric)) is not None]
        if not having:
            if metric in given:
                missing[metric] = "no run told it as a positive number"
            continue
        law = _law(metric, limit, having, space.scales, target)
        if isinstance(law, str):
            missing[metric] = law
        else:
            laws.append(law)
    return NormCheck(tuple(laws), None if target is None else dict(target), missing)


def _best_runs(result: Result) -> list[Observation]:
    """The best completed run of each size."""
    best: dict[tuple[float, ...], Observation] = {}
    for run in result.log.observations:
        if run.status is not Status.COMPLETED or run.loss is None:
            continue
        size = tuple(run.config[name] for name in result.space.scales)
        sign = result.warp.encoder.direction.sign
        before = best.get(size)
        if before is None or before.loss is None or sign * run.loss < sign * before.loss:
            best[size] = run
    return list(best.values())


def _metric(run: Observation, name: str) -> float | None:
    """A metric as returned, or as reported last; None unless it is a positive number."""
    reported: Mapping[str, Any] = run.reports[-1].metrics if run.reports else {}
    value = run.metrics.get(name, reported.get(name))
    return float(value) if isinstance(value, int | float) and 0 < value < math.inf else None


def _law(
    metric: str,
    limit: float,
    having: list[tuple[Observation, float]],
    axes: tuple[str, ...],
    target: Mapping[str, float] | None,
) -> NormLaw | str:
    """The law of a metric; a sentence where the runs have too few sizes for one."""
    from scipy.stats import t

    S = np.log([[run.config[axis] for axis in axes] for run, _ in having])
    moving = [j for j in range(len(axes)) if np.ptp(S[:, j]) > 0]
    names = [axes[j] for j in moving]
    least = len(moving) + 1 + _SPARE
    if len(having) < least or not moving:
        return f"told at {len(having)} sizes; {max(least, 3)} are needed"
    center = S[:, moving].mean(0)
    X = np.column_stack([np.ones(len(S)), S[:, moving] - center])
    if np.linalg.matrix_rank(X) < X.shape[1]:
        return f"{' and '.join(names)} grow together, so that their parts cannot be told apart"
    y = np.log([value for _, value in having])
    coefficients, *_ = np.linalg.lstsq(X, y, rcond=None)
    freedom = len(y) - X.shape[1]
    variance = float(((y - X @ coefficients) ** 2).sum()) / freedom
    covariance: Array = variance * np.linalg.inv(X.T @ X)
    half = float(t.ppf(0.5 + _LEVEL / 2, freedom))
    slopes = {name: float(b) for name, b in zip(names, coefficients[1:], strict=True)}
    spread = half * np.sqrt(np.diag(covariance)[1:])
    intervals = {
        name: (slopes[name] - float(w), slopes[name] + float(w))
        for name, w in zip(names, spread, strict=True)
    }
    at_target = interval = None
    if target is not None:
        s = np.log([target[name] for name in names]) - center
        row = np.concatenate([[1.0], s])
        middle = float(row @ coefficients)
        width = half * math.sqrt(variance + float(row @ covariance @ row))
        at_target = math.exp(min(middle, 700.0))
        interval = math.exp(max(middle - width, -700.0)), math.exp(min(middle + width, 700.0))
    verdict = _constancy(intervals) if metric == READOUT else _crossing(limit, interval)
    return NormLaw(metric, slopes, intervals, at_target, interval, limit, verdict, len(having))


def _constancy(intervals: Mapping[str, tuple[float, float]]) -> NormVerdict:
    if any(low > _CONSTANT or high < -_CONSTANT for low, high in intervals.values()):
        return NormVerdict.DRIFTS
    inside = all(-_CONSTANT <= low and high <= _CONSTANT for low, high in intervals.values())
    return NormVerdict.CONSTANT if inside else NormVerdict.UNCLEAR


def _crossing(limit: float, interval: tuple[float, float] | None) -> NormVerdict:
    if limit == math.inf:
        return NormVerdict.NO_LIMIT
    if interval is None:
        return NormVerdict.UNCLEAR
    low, high = interval
    if low > limit:
        return NormVerdict.CROSSES
    return NormVerdict.MAY_CROSS if high > limit else NormVerdict.BELOW


def _sizes(target: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.3g}" for name, value in target.items())
