"""Pool the claims of several transfer rules into the prior of the optimum's drift."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from hpo.errors import SpaceError
from hpo.scaling.claims import Level, Normal, Slope, TransferRule
from hpo.space import Float, Int, Parameter, Scale, SearchSpace
from surrogates.data import Columns
from surrogates.scaling_law.prior import Anchor, DriftPrior, LawPrior

_FAR = 3.0  # standard deviations that a level may lie outside the searched range


def check_priors(priors: object) -> tuple[TransferRule, ...]:
    """`priors` as a tuple of rules; None is none.

    Raises SpaceError for anything that is not a sequence of rules.
    """
    if priors is None:
        return ()
    hint = "write priors=[MuP(), TokenHorizon()]; hpo.scaling.transfer_rules has the rules"
    if isinstance(priors, str) or not isinstance(priors, Sequence):
        raise SpaceError(f"priors must be a list of rules or None, got {priors!r}; {hint}")
    for rule in priors:
        if isinstance(rule, type):
            raise SpaceError(
                f"priors must hold rules, got the class {rule.__name__}; write {rule.__name__}()"
            )
        if not isinstance(rule, TransferRule):
            raise SpaceError(
                f"priors must hold rules with a method claims(space), got {rule!r}; {hint}"
            )
    return tuple(priors)


def drift_prior(
    rules: Sequence[TransferRule], space: SearchSpace, columns: Columns
) -> DriftPrior | None:
    """What `rules` together believe about the drift of every optimum; None without rules.

    Args:
        rules: see :func:`check_priors`.
        space: whose roles and axes they refer to.
        columns: of the same space's encoded rows.

    Raises:
        SpaceError: where a rule speaks of what the space lacks, where a level lies far outside the
            searched range, or where claims depend on one another in a circle.
    """
    if not rules:
        return None
    if not space.scales:
        raise SpaceError(
            f"priors speak of drift with scale and need a space with Scale axes, got {rules!r};"
            ' declare one, such as "tokens": Scale(1e7, 1e9, axis=Axis.TOKENS), or leave priors out'
        )
    beliefs = _Beliefs(space, columns)
    for rule in rules:
        for claim in rule.claims(space):
            beliefs.add(rule, claim)
    decisions = [columns.names[j] for j in columns.decision]
    table = np.array([[beliefs.slope(j, a) for a in space.scales] for j in decisions])
    table = table.reshape(len(decisions), len(space.scales), 2)
    return DriftPrior(table[:, :, 0].copy(), table[:, :, 1].copy(), beliefs.anchor(decisions))


def pooled(beliefs: Sequence[Normal]) -> Normal:
    """One belief from several (mean, sd) about one quantity, none of them a copy of another.

    With weights w = 1 / sd^2 and Q = sum w (mean - weighted mean)^2, the variance between claims is
    tau^2 = max(0, (Q - (k - 1)) / (sum w - sum w^2 / sum w)), added to each variance before the
    product of the Gaussians is taken (DerSimonian & Laird 1986, equation 8). Two claims of equal
    sd that lie Delta > sqrt(2) sd apart are pooled to half their distance, +- Delta / 2.
    """
    mean, sd = np.array(beliefs, dtype=np.float64).T
    w = 1.0 / sd**2
    total = w.sum()
    Q = float(w @ (mean - w @ mean / total) ** 2)
    room = float(total - w @ w / total)
    between = max(0.0, (Q - (len(w) - 1)) / room) if room > 1e-12 * total else 0.0
    w = 1.0 / (sd**2 + between)
    return float(w @ mean / w.sum()), float(w.sum() ** -0.5)


class _Beliefs:
    """Claims about one space, pooled on demand."""

    def __init__(self, space: SearchSpace, columns: Columns) -> None:
        self._space = space
        self._slopes: dict[tuple[str, str], list[Slope]] = {}
        self._levels: dict[str, list[Level]] = {}
        neutral = LawPrior().drift_sd
        self._neutral_sd = {columns.names[j]: neutral * columns.width[j] for j in columns.decision}

    def add(self, rule: TransferRule, claim: Slope | Level) -> None:
        """Keep a claim of `rule` about names that exist."""
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
        # Said twice, as by MuP and CompleteP, it is no second measurement.
        if isinstance(claim, Slope):
            slopes = self._slopes.setdefault((claim.parameter, claim.scale), [])
            slopes.extend([claim] if claim not in slopes else [])
        else:
            levels = self._levels.setdefault(claim.parameter, [])
            levels.extend([claim] if claim not in levels else [])

    def slope(self, parameter: str, scale: str, asking: tuple[str, ...] = ()) -> Normal:
        """The pooled belief about one slope; the neutral one where nothing was claimed.

        Claims with the same `given` are pooled before that part is added: they share its error.
        """
        if parameter in asking:
            raise SpaceError(
                "claims must not depend on one another in a circle, got"
                f" {' -> '.join([*asking, parameter])} along {scale!r}; leave out one `given`"
            )
        claims = self._slopes.get((parameter, scale))
        if claims is None:
            return 0.0, self._neutral_sd[parameter]
        alike: dict[tuple[tuple[str, float], ...], list[Normal]] = {}
        for claim in claims:
            given = tuple(sorted(claim.given.items()))
            alike.setdefault(given, []).append((claim.mean, claim.sd))
        beliefs = []
        for given, said in alike.items():
            mean, sd = pooled(said)
            for other, weight in given:
                its_mean, its_sd = self.slope(other, scale, (*asking, parameter))
                mean, sd = mean + weight * its_mean, math.hypot(sd, weight * its_sd)
            beliefs.append((mean, sd))
        return pooled(beliefs)

    def anchor(self, decisions: Sequence[str]) -> Anchor | None:
        """Levels, carried along the slopes to the middle of the scales and pooled there."""
        if not self._levels:
            return None
        middle = middle_of_scales(self._space)
        mean, sd = np.zeros(len(decisions)), np.full(len(decisions), np.inf)
        for i, name in enumerate(decisions):
            if name in self._levels:
                mean[i], sd[i] = pooled([self._carried(x, middle) for x in self._levels[name]])
                self._check_inside(name, mean[i], sd[i])
        return Anchor(np.array(list(middle.values())), mean, sd)

    def _carried(self, level: Level, middle: Mapping[str, float]) -> Normal:
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
            value = math.exp(mean) if parameter.log else mean
            raise SpaceError(
                f"priors must put the best `{name}` near the searched range"
                f" {list(parameter.limits)}, got {value:.3g} at the middle of the scales; check the"
                " units (a batch in sequences needs StepLaw(sequence_length=...)), widen the"
                " range, or leave the levels out"
            )


def middle_of_scales(space: SearchSpace) -> dict[str, float]:
    """Ln of the geometric middle of each scale axis."""
    middle = {}
    for name in space.scales:
        scale = space[name]
        assert isinstance(scale, Scale)
        middle[name] = 0.5 * (math.log(scale.low) + math.log(scale.high))
    return middle


def _natural(parameter: Parameter, value: float, what: object) -> float:
    """`value` in the units the parameter is searched in."""
    if isinstance(parameter, Float | Int) and parameter.log:
        low, high = 0.0, math.inf
    elif isinstance(parameter, Float) and parameter.logit:
        low, high = 0.0, 1.0
    else:
        return value
    if not low < value < high:
        raise SpaceError(
            f"the value of {what!r} must lie inside ({low:g}, {high:g}), got {value!r}; give it as"
            " a config would hold it, not its logarithm"
        )
    return math.log(value) if high == math.inf else math.log(value / (1.0 - value))
