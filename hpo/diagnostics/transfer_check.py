"""Check whether the best setting of each tuned parameter stays the same as models grow.

Tuning a small model and training a large one with its setting works only where the optimum does not
move with scale, as muP claims for the learning rate. :func:`check_transfer` fits the scaling law
(:mod:`surrogates.scaling_law.model`) with a neutral prior, whatever transfer rules the study used,
and reads the drift of every optimum off it::

    b_ja = dz*_j / ds_a      z*_j best parameter j in natural units (ln lr, log-odds of beta2)
                             s_a  ln of scale axis a

With the central 90 % interval of b and a tolerance t the verdict is

* *invariant within tolerance* if the interval lies inside [-t, t];
* *drifts* if the interval excludes 0 and is not inside [-t, t];
* *not identified by these runs* otherwise, with the reason.

The default t of 0.15 lets a best learning rate change by 10^0.15 = 1.4 in ten times the scale.

**Neutral, and near the bottom.** The prior on b is 0 +- 1, wide enough for lr ~ 1 / width. The
search's own prior is narrower and would pull a steep slope toward "transfers". Of many runs the
better quarter is used, by their loss above the fitted best at their scale: no formula of the bowl
is true far up its walls, where most of the runs of a grid lie. On the small cells of the Step Law
data (1,174 runs) all runs give d ln lr / d ln N = -0.32 +- 0.04, the better quarter -0.66 +- 0.21,
and parabolas through the best runs of each cell -1.0.

Transfer rules are shown beside the verdict: their prior slope, and their posterior with the runs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hpo.diagnostics.transfer_reason import TransferReason, TransferReasonKind, TransferVerdict
from hpo.drawing.plot_data import TransferPanel
from hpo.errors import SpaceError, UnknownNameError, printable_str
from hpo.optimizer.result import Result
from hpo.scaling.claims import Priors
from hpo.scaling.drift_prior import check_priors, drift_prior
from hpo.space import Categorical, SearchSpace, Unit
from hpo.space.arguments import File, Kind, Number, OneOf
from hpo.space.encoding import Encoder
from hpo.trials import Cause, Status
from surrogates.data import Array, TrainingData
from surrogates.gp import representative
from surrogates.numerics import normal_half_width, single_threaded
from surrogates.scaling_law.coefficients import Estimate
from surrogates.scaling_law.mixture import DriftMixture
from surrogates.scaling_law.model import ScalingModel, ScalingPredictor
from surrogates.scaling_law.prior import DriftPrior, neutral_sd

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

BoolArray = NDArray[np.bool_]

TOLERANCE = 0.15

_LINEAR_SHARE = 1 / 7  # of a linear range counts as an e-fold: three decades have seven
_NEUTRAL_SD = 1.0  # natural units per e-fold
_KEPT_SHARE, _KEPT_EACH = 4, 30  # one in four runs is used, and at least 30 for each column
_MAX_ROWS = 2000  # of a factor
_ONE_SIZE = math.log(1.5)  # an axis that varies by less is one size
_LITTLE = 0.5  # of the prior variance; what is left of it where runs say little
_ONE_SIDED = 0.05  # share of runs on the other side of the optimum below which all are on one
_TOGETHER = 0.98  # correlation from which two axes are one
_MOST_SIZES = 30  # beyond it runs are grouped along the axis drawn
_BINS = 8
_CROWD = 3  # runs of one size from which the best of them is marked

_NINETY = normal_half_width(0.9)  # in standard deviations


@dataclass(frozen=True, slots=True)
class Drift:
    """Slope and verdict of one parameter along one scale axis.

    Attributes:
        parameter: Name of the parameter.
        axis: Name of the scale axis.
        unit: Natural unit of the parameter, such as "ln lr".
        slope: Natural units per e-fold of the axis, from the runs and a neutral prior.
        interval: Central 90 % interval of the slope.
        tolerance: Largest slope that counts as invariant, in the same unit.
        with_rules: Slope from the runs and the transfer rules as the prior; None where no rule
            covers it.
        reason: Reason for the verdict.

    Example:
        >>> reason = TransferReason(TransferReasonKind.ONE_SIZE, "lr", "params")
        >>> slope = Estimate(0.0, 1.0, 0.0, 1.0)
        >>> drift = Drift("lr", "params", "ln lr", slope, (-1.6, 1.6), 0.15, None, reason)
        >>> drift.verdict.value
        'not identified by these runs'
    """

    parameter: str
    axis: str
    unit: str
    slope: Estimate
    interval: tuple[float, float]
    tolerance: float
    with_rules: Estimate | None
    reason: TransferReason

    @property
    def verdict(self) -> TransferVerdict:
        """What the runs say about it."""
        return self.reason.verdict


@dataclass(frozen=True, slots=True)
class TransferCheck:
    """Result of :func:`check_transfer`; `str` gives a table, :meth:`plot` a figure.

    Attributes:
        drifts: Slopes and verdicts, one per numeric parameter and scale axis.
        not_judged: Parameters without a slope, and why.
        runs: Number of completed runs.
        used: Number of those that the slopes are fitted to.
        failed: Number of runs that failed because of their config.

    Example:
        >>> import math
        >>> from hpo import Axis, Float, Optimizer, Scale, check_transfer
        >>> params = Scale(1e5, 1e7, axis=Axis.PARAMS)
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "params": params})
        >>> for n in (1e5, 1e6, 1e7):
        ...     for lr in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        ...         distance = math.log(lr / 3e-3) + 0.5 * math.log(n / 1e6)  # lr* ~ n^-0.5
        ...         loss = 1.5 + 20 * n**-0.3 + 0.05 * distance**2
        ...         _ = optimizer.tell({"lr": lr, "params": n}, loss=loss)
        >>> check = check_transfer(optimizer.result())
        >>> print(str(check).splitlines()[0])
        15 completed runs; slopes with 90 % intervals
        >>> check.drift("lr", "params").reason.kind.name
        'MOVES'
    """

    drifts: tuple[Drift, ...]
    not_judged: dict[str, str]
    runs: int
    used: int
    failed: int
    _fit: _Fit = field(repr=False)

    @property
    def space(self) -> SearchSpace:
        """Search space of the runs.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> optimizer = Optimizer({"x": Float(0, 1), "n": Scale(1, 100)})
            >>> for x, n in ((0.2, 1), (0.5, 10), (0.8, 100)):
            ...     _ = optimizer.tell({"x": x, "n": n}, loss=(x - 0.5) ** 2 + 1 / n)
            >>> check = check_transfer(optimizer.result())
            >>> check.space.scales
            ('n',)
        """
        return self._fit.encoder.space

    def drift(self, parameter: str, axis: str) -> Drift:
        """Return slope and verdict of one pair.

        Args:
            parameter: Name of a numeric parameter.
            axis: Name of a scale axis.

        Raises:
            KeyError: If the pair was not judged.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> optimizer = Optimizer({"x": Float(0, 1), "n": Scale(1, 100)})
            >>> for x, n in ((0.2, 1), (0.5, 10), (0.8, 100)):
            ...     _ = optimizer.tell({"x": x, "n": n}, loss=(x - 0.5) ** 2 + 1 / n)
            >>> check = check_transfer(optimizer.result())
            >>> check.drift("x", "n").unit
            'x'
        """
        parameters = tuple(dict.fromkeys(found.parameter for found in self.drifts))
        OneOf(parameters)(parameter, "`parameter`", UnknownNameError)
        along = {found.axis: found for found in self.drifts if found.parameter == parameter}
        return along[OneOf(tuple(along))(axis, "`axis`", UnknownNameError)]

    def panel(self, parameter: str, axis: str) -> TransferPanel:
        """Return what :meth:`plot` shows of one pair.

        Args:
            parameter: Name of a numeric parameter.
            axis: Name of a scale axis.

        Raises:
            KeyError: If the pair was not judged.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> optimizer = Optimizer({"x": Float(0, 1), "n": Scale(1, 100)})
            >>> for x, n in ((0.2, 1), (0.5, 10), (0.8, 100)):
            ...     _ = optimizer.tell({"x": x, "n": n}, loss=(x - 0.5) ** 2 + 1 / n)
            >>> check = check_transfer(optimizer.result())
            >>> check.panel("x", "n").setting.tolist()
            [0.2, 0.5, 0.8]
        """
        return self._fit.panel(self.drift(parameter, axis))

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with one row per pair.

        Its columns are parameter, axis, slope, sd, low, high, tolerance, verdict and reason; with
        transfer rules also rule_prior, rule_prior_sd, rule_posterior and rule_posterior_sd.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> optimizer = Optimizer({"x": Float(0, 1), "n": Scale(1, 100)})
            >>> for x, n in ((0.2, 1), (0.5, 10), (0.8, 100)):
            ...     _ = optimizer.tell({"x": x, "n": n}, loss=(x - 0.5) ** 2 + 1 / n)
            >>> check = check_transfer(optimizer.result())
            >>> check.to_pandas()[["parameter", "axis", "verdict"]].values.tolist()
            [['x', 'n', 'not identified by these runs']]
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
                "reason": str(d.reason),
            }
            if d.with_rules is not None:
                row |= {
                    "rule_prior": d.with_rules.prior_mean,
                    "rule_prior_sd": d.with_rules.prior_sd,
                    "rule_posterior": d.with_rules.mean,
                    "rule_posterior_sd": d.with_rules.sd,
                }
            rows.append(row)
        return pd.DataFrame(rows)

    @printable_str
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
            if d.with_rules is not None:
                lines.append(
                    f"{'':{width + reach + 9}}rules said {d.with_rules.prior_mean:+.3f} +-"
                    f" {d.with_rules.prior_sd:.2g}; with the runs {d.with_rules.mean:+.3f} +-"
                    f" {d.with_rules.sd:.2g}"
                )
        lines += [f"{name}: not judged, {why}" for name, why in self.not_judged.items()]
        return "\n".join(lines)

    def plot(self, path: str | Path | None = None) -> Figure:
        """Plot the runs and the fitted optimum of every pair.

        Args:
            path: File to save the figure to, its suffix giving the format; None for no file.

        Returns:
            The figure; see :func:`hpo.drawing.plots.plot_transfer`.

        Example:
            >>> from hpo import Float, Optimizer, Scale
            >>> optimizer = Optimizer({"x": Float(0, 1), "n": Scale(1, 100)})
            >>> for x, n in ((0.2, 1), (0.5, 10), (0.8, 100)):
            ...     _ = optimizer.tell({"x": x, "n": n}, loss=(x - 0.5) ** 2 + 1 / n)
            >>> check = check_transfer(optimizer.result())
            >>> check.plot().axes[0].get_xlabel()
            'n'
        """
        from hpo.drawing.plots import plot_transfer

        path = File(optional=True)(path, "`path`")
        return plot_transfer([self._fit.panel(drift) for drift in self.drifts], path)


@single_threaded
def check_transfer(
    result: Result, *, priors: Priors = None, tolerance: float = TOLERANCE
) -> TransferCheck:
    """Check whether the best setting of each tuned parameter is the same at every scale.

    Args:
        result: Result of a study, or of an optimizer that recorded earlier runs
            (:func:`hpo.trials.read_runs.read_runs`).
        priors: Transfer rules to show beside the verdicts, which they do not change; by default
            those the study was told. They are shown as if all of them held.
        tolerance: Slope up to which the optimum of a log or logit parameter counts as invariant, in
            natural units per e-fold of scale. For a linear parameter a seventh of its range counts
            as one natural unit.

    Returns:
        Slope and verdict of every numeric parameter along every scale axis.

    Raises:
        ValueError: If no trial was completed, or the tolerance is not positive.
        SpaceError: If the space has no scale axes or no numeric parameters, or a rule does not fit
            it.

    Example:
        >>> import math
        >>> from hpo import Axis, Float, Optimizer, Scale, check_transfer
        >>> params = Scale(1e5, 1e7, axis=Axis.PARAMS)
        >>> optimizer = Optimizer({"lr": Float(1e-4, 1e-1, log=True), "params": params})
        >>> for n in (1e5, 1e6, 1e7):
        ...     for lr in (3e-4, 1e-3, 3e-3, 1e-2, 3e-2):
        ...         distance = math.log(lr / 3e-3) + 0.5 * math.log(n / 1e6)  # lr* ~ n^-0.5
        ...         loss = 1.5 + 20 * n**-0.3 + 0.05 * distance**2
        ...         _ = optimizer.tell({"lr": lr, "params": n}, loss=loss)
        >>> check = check_transfer(optimizer.result())
        >>> drift = check.drift("lr", "params")
        >>> drift.verdict.value, round(drift.slope.mean, 2)
        ('drifts', -0.5)
    """
    result = Kind(Result, way_out="pass what `optimize` or load_result returned")(
        result, "`result`"
    )
    tolerance = Number(above=0, way_out="0.15 is the default")(tolerance, "`tolerance`")
    runs, encoder = result.models.law_runs, result.models.encoder
    if not encoder.space.scales:
        raise SpaceError(
            "a transfer check needs scale axes, got none; declare the sizes of the runs, such as"
            " Scale(1e5, 1e7, axis=Axis.PARAMS)"
        )
    if not len(encoder.columns.decision):
        raise SpaceError("a transfer check needs a numeric parameter that was tuned, got none")
    if not len(runs):
        raise ValueError("a transfer check needs completed runs, got none; run or tell some")
    neutral = ScalingModel(DriftMixture.of(_neutral(encoder)))
    near = _near_the_bottom(TrainingData(runs.X, runs.loss, encoder.columns), neutral)
    fit = _Fit(encoder, runs.X, runs.loss, neutral.fit(near), _active(result))
    rules = check_priors(priors)
    if rules is None and result.rules is not None and result.rules.chosen:
        rules = tuple(rule for competing in result.rules.rules for rule in competing.rules)
    together = drift_prior(rules or (), encoder.space, encoder.columns)
    with_rules = None if together is None else ScalingModel(DriftMixture.of(together)).fit(near)
    failed = [o for o in result.log.observations if o.status is Status.FAILED]
    return TransferCheck(
        drifts=fit.drifts(with_rules, tolerance),
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
    """Return the prior of zero drift with a standard deviation of one natural unit per e-fold."""
    columns, axes = encoder.columns, len(encoder.columns.scale)
    folds = [_fold(encoder, columns.names[j]) for j in columns.decision]
    sd = np.repeat(_NEUTRAL_SD * np.array(folds)[:, None], axes, axis=1)
    return DriftPrior(np.zeros_like(sd), sd)


def _fold(encoder: Encoder, name: str) -> float:
    """Return the number of natural units of a parameter that count as one e-fold."""
    if encoder.space[name].unit is not Unit.LINEAR:
        return 1.0
    return _LINEAR_SHARE * float(encoder.columns.width[encoder.index(name)])


def _near_the_bottom(data: TrainingData, model: ScalingModel) -> TrainingData:
    """Return the runs of least loss above the best that a fit to all expects at their scale."""
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
    """Return by parameter whether each completed run or branch had it, `(n,)`."""
    configs = []
    for number in result.models.law_runs.numbers:
        observation = result.log.observation(number)
        assert observation is not None
        configs.append(observation.config)
    return {name: np.array([name in config for config in configs]) for name in result.space}


@dataclass(frozen=True, slots=True)
class _Fit:
    """All runs, `X` n x d with losses `y`, and the law fitted to those near the bottom.

    Attributes:
        encoder: Encoder of the space.
        X: Encoded configs.
        y: Losses; less is better.
        predictor: Fitted law.
        active: By parameter, whether each run had it, `(n,)`.
    """

    encoder: Encoder
    X: Array
    y: Array
    predictor: ScalingPredictor
    active: dict[str, BoolArray]

    def drifts(self, with_rules: ScalingPredictor | None, tolerance: float) -> tuple[Drift, ...]:
        """Return slope and verdict of every pair; `with_rules` is the law fitted with rules."""
        law, space = self.predictor.law(), self.encoder.space
        ruled = None if with_rules is None else with_rules.law()
        found = []
        for j, parameter in enumerate(law.decisions):
            allowed = tolerance * _fold(self.encoder, parameter)
            for a, axis in enumerate(space.scales):
                slope = law.drift[j][a]
                interval = (slope.mean - _NINETY * slope.sd, slope.mean + _NINETY * slope.sd)
                found.append(
                    Drift(
                        parameter=parameter,
                        axis=axis,
                        unit=space[parameter].unit.label(parameter),
                        slope=slope,
                        interval=interval,
                        tolerance=allowed,
                        with_rules=None
                        if ruled is None
                        else self._if_covered(parameter, ruled.drift[j][a]),
                        reason=self._judge(j, a, parameter, slope, interval, allowed),
                    )
                )
        return tuple(found)

    def panel(self, drift: Drift) -> TransferPanel:
        """Return what is drawn of one pair."""
        parameter, axis = drift.parameter, drift.axis
        kind, loss, X = self.encoder.space[parameter], self.predictor.loss, self.X
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
        optima = []
        for s in line_scale:
            at = middle.copy()
            at[a] = s
            optima.append(self.predictor.optimum(at))
        line = np.array([optimum.mean[j] for optimum in optima])
        half = _NINETY * np.sqrt([optimum.covariance[j, j] for optimum in optima])
        return TransferPanel(
            parameter=parameter,
            axis=axis,
            label=drift.unit if kind.unit is Unit.LOGIT else parameter,
            log=kind.unit is Unit.LOG,
            verdict=drift.verdict.value,
            slope=drift.slope.mean,
            slope_interval=drift.interval,
            scale=scales[:, a],
            setting=setting,
            excess=excess,
            best=_best_of_each(scales, a, excess),
            line_scale=line_scale,
            line=line,
            low=line - half,
            high=line + half,
        )

    def _judge(
        self,
        j: int,
        a: int,
        parameter: str,
        slope: Estimate,
        interval: tuple[float, float],
        tolerance: float,
    ) -> TransferReason:
        """Return the reason for the verdict on decision j along scale axis a."""
        axis = self.encoder.space.scales[a]
        if (gap := self._gap(j, a, parameter)) is not None:
            return TransferReason(gap, parameter, axis)
        low, high = interval
        if -tolerance <= low and high <= tolerance:
            return TransferReason(
                TransferReasonKind.WITHIN_TOLERANCE, parameter, axis, tolerance=tolerance
            )
        if low > 0.0 or high < 0.0:
            return self._movement(parameter, axis, slope.mean)
        if (other := self._confounded_with(a)) is not None:
            return TransferReason(TransferReasonKind.CONFOUNDED, parameter, axis, other_axis=other)
        if slope.sd**2 > _LITTLE * slope.prior_sd**2:
            return TransferReason(TransferReasonKind.FEW_RUNS, parameter, axis)
        return TransferReason(
            TransferReasonKind.WIDE_INTERVAL, parameter, axis, tolerance=tolerance
        )

    def _gap(self, j: int, a: int, parameter: str) -> TransferReasonKind | None:
        """Return why no fit could identify this slope; None if one could."""
        rows = self.active[parameter]
        s, z = self._scales()[rows, a], self._settings(j)[rows]
        if not len(s) or float(np.ptp(s)) < _ONE_SIZE:
            return TransferReasonKind.ONE_SIZE
        if float(np.ptp(z)) < 1e-9:
            return TransferReasonKind.ONE_VALUE
        above = self.predictor.loss.displacement(self.X)[rows, j] > 0.0
        big = s > 0.5 * (s.min() + s.max())
        shares = [float(above[half].mean()) for half in (big, ~big)]
        if max(shares) < _ONE_SIDED:
            return TransferReasonKind.NONE_ABOVE
        if min(shares) > 1.0 - _ONE_SIDED:
            return TransferReasonKind.NONE_BELOW
        return None

    def _confounded_with(self, a: int) -> str | None:
        """Return the scale axis that grew together with axis a; None if none did."""
        axes, scales = self.encoder.space.scales, self._scales()
        for other in range(len(axes)):
            if other == a or float(np.ptp(scales[:, other])) == 0.0:
                continue
            if abs(np.corrcoef(scales[:, a], scales[:, other])[0, 1]) > _TOGETHER:
                return axes[other]
        return None

    def _movement(self, parameter: str, axis: str, slope: float) -> TransferReason:
        """Return the reason for a slope that excludes zero."""
        decade, unit = slope * math.log(10.0), self.encoder.space[parameter].unit
        moves = TransferReasonKind.MOVES
        if unit is Unit.LOG:
            return TransferReason(moves, parameter, axis, ln_factor=decade)
        if unit is Unit.LOGIT:
            return TransferReason(moves, parameter, axis, log_odds=decade)
        return TransferReason(moves, parameter, axis, difference=decade)

    def _if_covered(self, parameter: str, estimate: Estimate) -> Estimate | None:
        """Return `estimate`, or None if its prior is the search's own, which no rule has set."""
        own = neutral_sd(self.encoder.columns, self.encoder.index(parameter))
        default = math.isclose(estimate.prior_sd, own)
        return None if default and estimate.prior_mean == 0.0 else estimate

    def _scales(self) -> Array:
        """Return natural scale coordinates, n x axes of the law (a fidelity comes last)."""
        return self.predictor.loss.layout.scales(self.X)

    def _settings(self, j: int) -> Array:
        """Return decision j in natural units, `(n,)`."""
        column = self.encoder.columns.decision[j]
        origin, width = self.encoder.columns.origin[column], self.encoder.columns.width[column]
        return np.asarray(origin + width * self.X[:, column])

    def _slopes(self, j: int) -> Array:
        return np.array([estimate.mean for estimate in self.predictor.law().drift[j]])


def _best_of_each(scales: Array, a: int, excess: Array) -> tuple[int, ...]:
    """Return the index of the best run of each size, or of each of a few bins along axis a."""
    sizes, group = np.unique(np.round(scales, 3), axis=0, return_inverse=True)
    if len(sizes) > _MOST_SIZES:
        s = scales[:, a]
        edges = np.linspace(s.min(), s.max(), _BINS + 1)[1:-1]
        group = np.digitize(s, edges)
    group = np.ravel(group)
    members = [np.flatnonzero(group == g) for g in np.unique(group)]
    return tuple(int(rows[np.argmin(excess[rows])]) for rows in members if len(rows) >= _CROWD)
