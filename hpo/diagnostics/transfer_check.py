"""Does the best setting stay put as models grow? Each tuned parameter, judged by the runs alone.

Tuning small and training big works as it is only where the optimum does not move with scale: the
promise of muP for the learning rate, say. :func:`check_transfer` fits the scaling law
(:mod:`surrogates.scaling_law.model`) with a neutral prior, whatever rules the study believed, and reads the
drift of every optimum off it::

    b_ja = dz*_j / ds_a      z*_j best parameter j in natural units (ln lr, log-odds of beta2)
                             s_a  ln of scale axis a

With the central 90 % interval of b and a tolerance t the verdict is

* *invariant within tolerance* if the interval lies inside [-t, t];
* *drifts* if the interval excludes 0 and is not inside [-t, t];
* *not identified by these runs* otherwise, with the reason.

The default t of 0.15 lets a best learning rate change by 10^0.15 = 1.4 in ten times the scale.

**Neutral, and near the bottom.** The prior on b is 0 +- 1, wide enough for lr ~ 1 / width; the
search's own is narrower, and would pull a steep slope towards "transfers". Of many runs the better
quarter is used, by their loss above the fitted best at their scale: no formula of the bowl is true
far up its walls, and there are most of the runs of a grid. On the small cells of the Step Law data
(1,174 runs) all runs say d ln lr / d ln N = -0.32 +- 0.04, the better quarter -0.66 +- 0.21, and
parabolas through the best runs of each cell -1.0.

Rules are shown beside it: what they believed, and what they believe after the runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpo.errors import SpaceError
from hpo.optimizer.result import Result
from hpo.scaling.claims import TransferRule
from hpo.scaling.coefficient_table import natural_name
from hpo.scaling.drift_prior import check_priors, drift_prior
from hpo.space import Categorical, Float, Int, SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials import Cause, Status
from surrogates.data import Array, TrainingData
from surrogates.gp import representative
from surrogates.numerics import normal_half_width, single_threaded
from surrogates.scaling_law.model import Estimate, ScalingModel, ScalingPredictor
from surrogates.scaling_law.prior import DriftPrior, LawPrior

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BoolArray = NDArray[np.bool_]

TOLERANCE = 0.15

_LINEAR_SHARE = 1 / 7  # of the range of a linear parameter is its e-fold, as for three decades
_NEUTRAL_SD = 1.0  # e-folds per e-fold
_KEPT_SHARE, _KEPT_EACH = 4, 30  # one in four runs is used, but 30 for each column if there are
_MAX_ROWS = 2000  # of a factor
_ONE_SIZE = math.log(1.5)  # an axis that varies by less is one size
_LITTLE = 0.5  # of the prior variance: runs that removed less say little
_ONE_SIDED = 0.05  # share of runs on the other side of the optimum below which all are on one
_TOGETHER = 0.98  # correlation from which two axes are one
_MOST_SIZES = 30  # beyond it runs are grouped along the axis drawn
_BINS = 8
_CROWD = 3  # runs of a size of which one is marked as the best

NINETY = normal_half_width(0.9)  # in standard deviations


class Verdict(Enum):
    """What the runs say about one parameter along one scale axis."""

    INVARIANT = "invariant within tolerance"
    DRIFTS = "drifts"
    UNKNOWN = "not identified by these runs"


@dataclass(frozen=True, slots=True)
class Drift:
    """One parameter along one scale axis.

    Attributes:
        unit: natural unit of the parameter, such as "ln lr".
        slope: natural units per e-fold of the axis, by the runs and a neutral prior.
        interval: central 90 % of it. tolerance: in the same unit.
        ruled: the same with the rules of the study: prior and posterior; None where none speaks.
        reason: in plain words.
    """

    parameter: str
    axis: str
    unit: str
    slope: Estimate
    interval: tuple[float, float]
    tolerance: float
    ruled: Estimate | None
    verdict: Verdict
    reason: str


@dataclass(frozen=True, slots=True)
class Panel:
    """What there is to draw of one parameter along one axis; natural units throughout.

    The runs are moved along the fitted drift to the mean of all *other* axes, so that they show
    what the line does.

    Attributes:
        scale: ``(n,)``, ln of the axis. setting: ``(n,)``, the parameter.
        excess: ``(n,)``, loss above the fitted best at that scale.
        best: indices of the best run of each size.
        line_scale, line, low, high: ``(m,)``, fitted optimum with its 90 % band.
    """

    scale: Array
    setting: Array
    excess: Array
    best: tuple[int, ...]
    line_scale: Array
    line: Array
    low: Array
    high: Array


@dataclass(frozen=True, slots=True)
class TransferCheck:
    """Verdicts of :func:`check_transfer`; print it, take :meth:`to_pandas`, or :meth:`plot` it.

    Attributes:
        drifts: one a numeric parameter and scale axis.
        not_judged: parameters without a slope, and why.
        runs: completed. used: how many of them the slopes are fitted to. failed: others that the
            config is to blame for.
    """

    drifts: tuple[Drift, ...]
    not_judged: dict[str, str]
    runs: int
    used: int
    failed: int
    _fit: _Fit = field(repr=False)

    @property
    def space(self) -> SearchSpace:
        return self._fit.encoder.space

    def drift(self, parameter: str, axis: str) -> Drift:
        """The verdict on one pair; KeyError for another."""
        for found in self.drifts:
            if (found.parameter, found.axis) == (parameter, axis):
                return found
        raise KeyError(f"no verdict on {parameter!r} along {axis!r}")

    def panel(self, parameter: str, axis: str) -> Panel:
        """What :meth:`plot` draws of one pair; KeyError for another."""
        self.drift(parameter, axis)
        return self._fit.panel(parameter, axis)

    def to_pandas(self) -> pd.DataFrame:
        """One row a pair: parameter, axis, slope, sd, low, high, tolerance, verdict, reason.

        With rules also rule_prior, rule_prior_sd, rule_posterior and rule_posterior_sd.
        """
        import pandas as pd

        rows = []
        for d in self.drifts:
            row = {
                "parameter": d.parameter,
                "axis": d.axis,
                "slope": d.slope.mean,
                "sd": d.slope.sd,
                "low": d.interval[0],
                "high": d.interval[1],
                "tolerance": d.tolerance,
                "verdict": d.verdict.value,
                "reason": d.reason,
            }
            if d.ruled is not None:
                row |= {
                    "rule_prior": d.ruled.prior_mean,
                    "rule_prior_sd": d.ruled.prior_sd,
                    "rule_posterior": d.ruled.mean,
                    "rule_posterior_sd": d.ruled.sd,
                }
            rows.append(row)
        return pd.DataFrame(rows)

    def __str__(self) -> str:
        failed = f" and {self.failed} failed" if self.failed else ""
        used = f", the best {self.used} used" if self.used < self.runs else ""
        lines = [f"{self.runs} completed{failed} runs{used}; slopes with 90 % intervals"]
        width = max((len(d.parameter) for d in self.drifts), default=0)
        reach = max((len(d.axis) for d in self.drifts), default=0)
        for d in self.drifts:
            low, high = d.interval
            lines.append(
                f"{d.parameter:{width}} along {d.axis:{reach}}  {d.slope.mean:+.3f}"
                f" ({low:+.3f} to {high:+.3f})  {d.verdict.value}: {d.reason}"
            )
            if d.ruled is not None:
                lines.append(
                    f"{'':{width + reach + 9}}rules said {d.ruled.prior_mean:+.3f} +-"
                    f" {d.ruled.prior_sd:.2g}; with the runs {d.ruled.mean:+.3f} +-"
                    f" {d.ruled.sd:.2g}"
                )
        lines += [f"{name}: not judged, {why}" for name, why in self.not_judged.items()]
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Runs and fitted optimum of every pair; see :func:`hpo.drawing.plots.plot_transfer`."""
        from hpo.drawing.plots import plot_transfer

        return plot_transfer(self, path)


@single_threaded
def check_transfer(
    result: Result, *, priors: Sequence[TransferRule] | None = None, tolerance: float = TOLERANCE
) -> TransferCheck:
    """Whether the best setting of each tuned parameter is the same at every scale.

    Args:
        result: of a study, or of a sweep (:func:`hpo.diagnostics.csv_runs.read_sweep`).
        priors: rules to show beside the verdicts; by default those the study was run with. They do
            not change a verdict.
        tolerance: how far the optimum of a log or logit parameter may move per e-fold of scale and
            still count as invariant. For a linear one a seventh of its range counts as an e-fold.

    Raises:
        ValueError: before any trial was completed, or for a tolerance that is not positive.
        SpaceError: for a space without scale axes or without numeric parameters, or rules that do
            not fit it.
    """
    runs, encoder = result.models.runs, result.models.encoder
    if not 0 < tolerance < math.inf:
        raise ValueError(
            f"`tolerance` must be positive and finite, got {tolerance!r}; 0.15 is the default"
        )
    if not encoder.space.scales:
        raise SpaceError(
            "a transfer check needs scale axes, got none; declare the sizes of the runs, such as"
            " Scale(1e5, 1e7, axis=Axis.PARAMS)"
        )
    if not len(encoder.columns.decision):
        raise SpaceError("a transfer check needs a numeric parameter that was tuned, got none")
    if not len(runs):
        raise ValueError("a transfer check needs completed runs, got none; run or tell some")
    neutral = ScalingModel(_neutral(encoder))
    near = _near_the_bottom(TrainingData(runs.X, runs.loss, encoder.columns), neutral)
    fit = _Fit(encoder, runs.X, runs.loss, neutral.fit(near), _active(result))
    rules = result.models.scaling_model.drift
    if priors is not None:
        rules = drift_prior(check_priors(priors), encoder.space, encoder.columns)
    ruled = None if rules is None else ScalingModel(rules).fit(near)
    failed = [o for o in result.log.observations if o.status is Status.FAILED]
    return TransferCheck(
        drifts=fit.drifts(ruled, tolerance),
        not_judged={
            name: "a choice has no optimum that could move"
            for name in encoder.space.decisions
            if isinstance(encoder.space[name], Categorical)
            and encoder.index(name) not in encoder.columns.decision
        },
        runs=len(runs),
        used=len(near),
        failed=sum(o.cause is not Cause.LOST for o in failed),
        _fit=fit,
    )


def _neutral(encoder: Encoder) -> DriftPrior:
    """No drift, give or take an e-fold per e-fold."""
    columns, axes = encoder.columns, len(encoder.columns.scale)
    folds = [_fold(encoder, columns.names[j]) for j in columns.decision]
    sd = np.repeat(_NEUTRAL_SD * np.array(folds)[:, None], axes, axis=1)
    return DriftPrior(np.zeros_like(sd), sd)


def _fold(encoder: Encoder, name: str) -> float:
    """Natural units of a parameter that count as one e-fold."""
    parameter = encoder.space[name]
    folded = isinstance(parameter, Float | Int) and parameter.log
    if folded or (isinstance(parameter, Float) and parameter.logit):
        return 1.0
    return _LINEAR_SHARE * float(encoder.columns.width[encoder.index(name)])


def _near_the_bottom(data: TrainingData, model: ScalingModel) -> TrainingData:
    """The runs of least loss above the best that a fit to all expects at their scale."""
    columns = data.columns
    enough = _KEPT_EACH * (len(columns.numeric) + len(columns.categorical))
    count = min(len(data), max(len(data) // _KEPT_SHARE, enough))
    if count == len(data) <= _MAX_ROWS:
        return data
    rows = representative(data.X[:, columns.numeric], data.y, _MAX_ROWS)
    first = model.fit(TrainingData(data.X[rows], data.y[rows], columns))
    order = np.argsort(data.y - first.loss.floor(data.X), kind="stable")[:count]
    kept = np.sort(order)
    spread = representative(data.X[kept][:, columns.numeric], data.y[kept], _MAX_ROWS)
    return TrainingData(data.X[kept][spread], data.y[kept][spread], columns)


def _active(result: Result) -> dict[str, BoolArray]:
    """By parameter, whether each completed run had it, ``(n,)``."""
    configs = []
    for number in result.models.runs.numbers:
        observation = result.log.observation(number)
        assert observation is not None
        configs.append(observation.config)
    return {name: np.array([name in config for config in configs]) for name in result.space}


@dataclass(frozen=True, slots=True)
class _Fit:
    """All runs, ``X`` n x d with losses ``y``, and the law fitted to those near the bottom."""

    encoder: Encoder
    X: Array
    y: Array
    predictor: ScalingPredictor
    active: dict[str, BoolArray]

    def drifts(self, ruled: ScalingPredictor | None, tolerance: float) -> tuple[Drift, ...]:
        law, space = self.predictor.law(), self.encoder.space
        after = None if ruled is None else ruled.law()
        found = []
        for j, parameter in enumerate(law.decisions):
            allowed = tolerance * _fold(self.encoder, parameter)
            for a, axis in enumerate(space.scales):
                slope = law.drift[j][a]
                interval = (slope.mean - NINETY * slope.sd, slope.mean + NINETY * slope.sd)
                verdict, reason = self._judge(j, a, parameter, slope, interval, allowed)
                found.append(
                    Drift(
                        parameter,
                        axis,
                        natural_name(parameter, space[parameter]),
                        slope,
                        interval,
                        allowed,
                        None if after is None else self._if_ruled(parameter, after.drift[j][a]),
                        verdict,
                        reason,
                    )
                )
        return tuple(found)

    def panel(self, parameter: str, axis: str) -> Panel:
        loss, X = self.predictor.loss, self.X
        names = self.predictor.law().decisions
        j, a = names.index(parameter), self.encoder.space.scales.index(axis)
        rows = np.flatnonzero(self.active[parameter])
        scales, setting = self._scales()[rows], self._settings(j)[rows]
        middle = self._scales().mean(axis=0)
        away = scales - middle
        away[:, a] = 0.0
        setting = setting - away @ self._slopes(j)
        excess = self.y[rows] - loss.floor(X[rows])
        low, high = float(scales[:, a].min()), float(scales[:, a].max())
        line_scale = np.linspace(low, high, 40)
        beliefs = []
        for s in line_scale:
            at = middle.copy()
            at[a] = s
            beliefs.append(self.predictor.optimum(at))
        line = np.array([belief.mean[j] for belief in beliefs])
        half = NINETY * np.sqrt([belief.covariance[j, j] for belief in beliefs])
        best = _best_of_each(scales, a, excess)
        return Panel(
            scales[:, a], setting, excess, best, line_scale, line, line - half, line + half
        )

    def _judge(
        self,
        j: int,
        a: int,
        parameter: str,
        slope: Estimate,
        interval: tuple[float, float],
        tolerance: float,
    ) -> tuple[Verdict, str]:
        gap = self._gap(j, a, parameter)
        if gap is not None:
            return Verdict.UNKNOWN, gap
        low, high = interval
        if -tolerance <= low and high <= tolerance:
            return Verdict.INVARIANT, f"within +-{tolerance:.2g} of no drift"
        if low > 0.0 or high < 0.0:
            return Verdict.DRIFTS, self._say(parameter, self.encoder.space.scales[a], slope.mean)
        return Verdict.UNKNOWN, self._doubt(a, slope, tolerance)

    def _gap(self, j: int, a: int, parameter: str) -> str | None:
        """Why no fit could know this slope; None if one could."""
        axis, rows = self.encoder.space.scales[a], self.active[parameter]
        s, z = self._scales()[rows, a], self._settings(j)[rows]
        if not len(s) or float(np.ptp(s)) < _ONE_SIZE:
            return f"one size only: every run had nearly the same {axis}"
        if float(np.ptp(z)) < 1e-9:
            return f"every run had the same {parameter}"
        above = self.predictor.loss.displacement(self.X)[rows, j] > 0.0
        big = s > 0.5 * (s.min() + s.max())
        shares = [float(above[half].mean()) for half in (big, ~big)]
        if max(shares) < _ONE_SIDED:
            return f"all runs are on one side: none had a {parameter} above its best"
        if min(shares) > 1.0 - _ONE_SIDED:
            return f"all runs are on one side: none had a {parameter} below its best"
        return None

    def _doubt(self, a: int, slope: Estimate, tolerance: float) -> str:
        """Why the interval holds both no drift and too much of it."""
        axes, scales = self.encoder.space.scales, self._scales()
        for other in range(len(axes)):
            if other == a or float(np.ptp(scales[:, other])) == 0.0:
                continue
            if abs(np.corrcoef(scales[:, a], scales[:, other])[0, 1]) > _TOGETHER:
                return f"{axes[a]} and {axes[other]} grew together; vary one at a fixed other"
        if slope.sd**2 > _LITTLE * slope.prior_sd**2:
            return f"the runs say little about it; more of them at both ends of {axes[a]} would"
        return (
            f"the interval holds no drift and drifts beyond +-{tolerance:.2g}; more runs near the"
            f" best, at both ends of {axes[a]}, would tell"
        )

    def _say(self, parameter: str, axis: str, slope: float) -> str:
        """A slope in plain words."""
        decade, verb = slope * math.log(10.0), "rises" if slope > 0 else "falls"
        kind = self.encoder.space[parameter]
        if isinstance(kind, Float | Int) and kind.log:
            amount = f"{math.exp(min(abs(decade), 700.0)):.3g} times"
            return f"the best {parameter} {verb} {amount} in ten times the {axis}"
        unit = " in log-odds" if isinstance(kind, Float) and kind.logit else ""
        return f"the best {parameter} {verb} by {abs(decade):.3g}{unit} in ten times the {axis}"

    def _if_ruled(self, parameter: str, estimate: Estimate) -> Estimate | None:
        """`estimate`, unless its prior is what the search believes where no rule speaks."""
        width = float(self.encoder.columns.width[self.encoder.index(parameter)])
        silent = math.isclose(estimate.prior_sd, LawPrior().drift_sd * width)
        return None if silent and estimate.prior_mean == 0.0 else estimate

    def _scales(self) -> Array:
        """Natural scale coordinates, n x axes of the law (a fidelity comes last)."""
        return self.predictor.loss.layout.scales(self.X)

    def _settings(self, j: int) -> Array:
        """Decision j in natural units, ``(n,)``."""
        column = self.encoder.columns.decision[j]
        origin, width = self.encoder.columns.origin[column], self.encoder.columns.width[column]
        return np.asarray(origin + width * self.X[:, column])

    def _slopes(self, j: int) -> Array:
        return np.array([estimate.mean for estimate in self.predictor.law().drift[j]])


def _best_of_each(scales: Array, a: int, excess: Array) -> tuple[int, ...]:
    """Index of the run of least excess of each size, or of each of a few bins along axis a."""
    sizes, group = np.unique(np.round(scales, 3), axis=0, return_inverse=True)
    if len(sizes) > _MOST_SIZES:
        s = scales[:, a]
        edges = np.linspace(s.min(), s.max(), _BINS + 1)[1:-1]
        group = np.digitize(s, edges)
    group = np.ravel(group)
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    return tuple(int(rows[np.argmin(excess[rows])]) for rows in members if len(rows) >= _CROWD)
