"""Turn the claims of transfer rules that hold together into one prior of how every optimum drifts.

Notation as in `hpo.scaling.claims`. Rules that contradict each other are not pooled but compete
(`hpo.scaling.rule_mixture`). Several claims about one slope that were meant together, as where a
user states two, are pooled as measurements of one quantity (`pooled`). A claim with `given` adds
the pooled slopes of those other parameters, with their uncertainty. Levels are carried along the
pooled slopes to the geometric middle of the scales and pooled there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpo.errors import SpaceError
from hpo.scaling.claims import Level, MeanSd, Neutral, Slope, TransferRule
from hpo.space import Float, Int, Parameter, SearchSpace
from hpo.space.scalars import shown
from surrogates.data import Array, Columns
from surrogates.scaling_law.prior import Anchor, DriftPrior, neutral_sd

_FAR = 3.0  # standard deviations that a level may lie outside the searched range


def check_priors(priors: object) -> tuple[TransferRule, ...] | None:
    """Return the rules that the user's `priors` name, each once.

    Args:
        priors: list of transfer rules, `Neutral()` or None.

    Returns:
        The rules; an empty tuple for no rule at all; None where the user named none, so that every
        published rule that fits the space competes.

    Raises:
        SpaceError: for anything that is not a sequence of rules.

    Example:
        >>> from hpo import MuP, Neutral, TokenHorizon
        >>> check_priors([MuP(), TokenHorizon()])
        (MuP(sd=0.2), TokenHorizon(exponent=-0.32, sd=0.15))
        >>> check_priors(Neutral()), check_priors(None)
        ((), None)
    """
    if priors is None:
        return None
    if isinstance(priors, Neutral):
        return ()
    hint = (
        "write priors=[MuP(), TokenHorizon()], or priors=Neutral() for no rule;"
        " hpo.scaling.transfer_rules lists all rules"
    )
    if isinstance(priors, str) or not isinstance(priors, Sequence):
        raise SpaceError(
            f"priors must be a list of rules, Neutral() or None, got {shown(priors)}; {hint}"
        )
    for rule in priors:
        if isinstance(rule, type):
            raise SpaceError(
                f"priors must hold rules, got the class {rule.__name__}; write {rule.__name__}()"
            )
        if not isinstance(rule, TransferRule):
            raise SpaceError(
                f"priors must hold rules with a method claims(space), got {shown(rule)}; {hint}"
            )
    rules: list[TransferRule] = []
    for rule in priors:  # a rule given twice is no second opinion
        if not isinstance(rule, Neutral) and rule not in rules:
            rules.append(rule)
    return tuple(rules)


def drift_prior(
    rules: Sequence[TransferRule], space: SearchSpace, columns: Columns
) -> DriftPrior | None:
    """Return the prior of the drift of every optimum if all of the rules hold; None without rules.

    Args:
        rules: transfer rules that hold together.
        space: search space whose roles and axes the rules refer to.
        columns: meaning of the same space's encoded columns.

    Raises:
        SpaceError: where a rule needs what the space lacks, where a level lies far outside the
            searched range, or where claims depend on one another in a circle.

    Example:
        >>> from hpo import Axis, Scale, Slope
        >>> from hpo.space.encoding import Encoder
        >>> tokens = Scale(1e7, 1e9, axis=Axis.TOKENS)
        >>> space = SearchSpace({"lr": Float(1e-4, 1e-1, log=True), "tokens": tokens})
        >>> prior = drift_prior([Slope("lr", "tokens", -0.3, 0.1)], space, Encoder(space).columns)
        >>> prior.mean, prior.sd
        (array([[-0.3]]), array([[0.1]]))
    """
    if not rules:
        return None
    if not space.scales:
        raise SpaceError(
            "priors describe how optima drift with scale and need a space with Scale axes, got"
            f" {rules!r} for a space without one; declare one, such as"
            ' "tokens": Scale(1e7, 1e9, axis=Axis.TOKENS), or leave priors out'
        )
    pool = _Pool(space, columns)
    for rule in rules:
        for claim in rule.claims(space):
            pool.add(rule, claim)
    decisions = [columns.names[j] for j in columns.decision]
    table = np.array([[pool.slope(j, a) for a in space.scales] for j in decisions])
    table = table.reshape(len(decisions), len(space.scales), 2)
    return DriftPrior(table[:, :, 0].copy(), table[:, :, 1].copy(), pool.anchor(decisions))


def pooled(estimates: Sequence[MeanSd]) -> MeanSd:
    """Return one estimate of a quantity from several independent ones (random effects).

    With weights w = 1 / sd^2 and Q = sum w (mean - weighted mean)^2, the variance between claims is
    tau^2 = max(0, (Q - (k - 1)) / (sum w - sum w^2 / sum w)), added to each variance before the
    product of the Gaussians is taken (DerSimonian & Laird 1986, equation 8). Two claims of equal
    sd that lie Delta > sqrt(2) sd apart are pooled to their midpoint, +- Delta / 2.

    Args:
        estimates: mean and standard deviation of each, none of them a copy of another.

    Returns:
        Mean and standard deviation.

    Example:
        >>> mean, sd = pooled([(-1.0, 0.1), (0.0, 0.1)])
        >>> round(mean, 6), round(sd, 6)
        (-0.5, 0.5)
    """
    mean, sd = np.array(estimates, dtype=np.float64).T
    w = 1.0 / (sd**2 + between_variance(mean, sd))
    return float(w @ mean / w.sum()), float(w.sum() ** -0.5)


def between_variance(mean: Array, sd: Array) -> float:
    """Return tau^2 of independent estimates of one quantity (DerSimonian & Laird 1986, eq. 8).

    Args:
        mean: `(k,)`, the estimates.
        sd: `(k,)`, their standard deviations.

    Example:
        >>> round(between_variance(np.array([-1.0, 0.0]), np.array([0.1, 0.1])), 3)
        0.49
    """
    w = 1.0 / sd**2
    total = w.sum()
    Q = float(w @ (mean - w @ mean / total) ** 2)
    room = float(total - w @ w / total)
    return max(0.0, (Q - (len(w) - 1)) / room) if room > 1e-12 * total else 0.0


class _Pool:
    """Claims about one space, pooled on demand."""

    def __init__(self, space: SearchSpace, columns: Columns) -> None:
        self._space = space
        self._slopes: dict[tuple[str, str], list[Slope]] = {}
        self._levels: dict[str, list[Level]] = {}
        self._neutral_sd = {columns.names[j]: neutral_sd(columns, j) for j in columns.decision}

    def add(self, rule: TransferRule, claim: Slope | Level) -> None:
        """Keep a claim of `rule`, once its names are found in the space."""
        scales = [claim.scale] if isinstance(claim, Slope) else list(claim.at)
        for name in scales:
            if name not in self._space.scales:
                raise SpaceError(
                    f"a claim of {rule!r} must be about a scale axis of the space, got {name!r}; it"
                    f" has {list(self._space.scales)}"
                )
        for name in (claim.parameter, *(claim.given if isinstance(claim, Slope) else ())):
            if name not in self._neutral_sd:
                raise SpaceError(
                    f"a claim of {rule!r} must be about a numeric parameter of the space, got"
                    f" {name!r}; it has {list(self._neutral_sd)}"
                )
        # A claim made twice is no second measurement.
        if isinstance(claim, Slope):
            slopes = self._slopes.setdefault((claim.parameter, claim.scale), [])
            slopes.extend([claim] if claim not in slopes else [])
        else:
            levels = self._levels.setdefault(claim.parameter, [])
            levels.extend([claim] if claim not in levels else [])

    def slope(self, parameter: str, scale: str, chain: tuple[str, ...] = ()) -> MeanSd:
        """Return mean and sd of one slope; the neutral prior where nothing was claimed.

        Claims with the same `given` are pooled before that part is added: they share its error.
        """
        if parameter in chain:
            raise SpaceError(
                "claims must not depend on one another in a circle, got"
                f" {' -> '.join([*chain, parameter])} along {scale!r}; leave out one `given`"
            )
        claims = self._slopes.get((parameter, scale))
        if claims is None:
            return 0.0, self._neutral_sd[parameter]
        alike: dict[tuple[tuple[str, float], ...], list[MeanSd]] = {}
        for claim in claims:
            given = tuple(sorted(claim.given.items()))
            alike.setdefault(given, []).append((claim.mean, claim.sd))
        estimates = []
        for given, claimed in alike.items():
            mean, sd = pooled(claimed)
            for other, weight in given:
                its_mean, its_sd = self.slope(other, scale, (*chain, parameter))
                mean, sd = mean + weight * its_mean, math.hypot(sd, weight * its_sd)
            estimates.append((mean, sd))
        return pooled(estimates)

    def anchor(self, decisions: Sequence[str]) -> Anchor | None:
        """Return the levels, carried along the slopes to the middle of the scales and pooled."""
        if not self._levels:
            return None
        middle = {name: axis.log_middle for name, axis in self._space.scale_axes.items()}
        mean, sd = np.zeros(len(decisions)), np.full(len(decisions), np.inf)
        for i, name in enumerate(decisions):
            if name in self._levels:
                mean[i], sd[i] = pooled([self._carried(x, middle) for x in self._levels[name]])
                self._check_inside(name, mean[i], sd[i])
        return Anchor(np.array(list(middle.values())), mean, sd)

    def _carried(self, level: Level, middle: Mapping[str, float]) -> MeanSd:
        mean, sd = _natural(self._space[level.parameter], level.value, level), level.sd
        for scale, value in level.at.items():
            slope, slope_sd = self.slope(level.parameter, scale)
            step = middle[scale] - math.log(value)
            mean, sd = mean + slope * step, math.hypot(sd, slope_sd * step)
        return mean, sd

    def _check_inside(self, name: str, mean: float, sd: float) -> None:
        parameter = self._space[name]
        if not isinstance(parameter, Float | Int) or not parameter.bounded:
            return
        low, high = (_natural(parameter, float(end), name) for end in parameter.limits)
        if not low - _FAR * sd <= mean <= high + _FAR * sd:
            value = parameter.unit.value_of(mean)
            raise SpaceError(
                f"priors must put the best `{name}` near the searched range"
                f" {list(parameter.limits)}, got {value:.3g} at the middle of the scales; check the"
                " units (a batch in sequences needs StepLaw(sequence_length=...)), widen the"
                " range, or leave the levels out"
            )


def _natural(parameter: Parameter, value: float, what: object) -> float:
    """Return `value` in the natural unit of the parameter, checked to have one."""
    low, high = parameter.unit.domain
    if not low < value < high:
        raise SpaceError(
            f"the value of {what!r} must lie inside ({low:g}, {high:g}), got {value!r}; give it as"
            " a config would hold it, not its logarithm"
        )
    return parameter.unit.natural_of(value)
