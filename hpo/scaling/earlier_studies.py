"""What earlier studies across scale say about the next one: a transfer rule made from their laws.

Notation as in `hpo.scaling.claims`; k studies, each with an estimate m_i +- s_i of one slope or
level from its own runs, fitted without any published rule.

Studies differ by more than the error of each: another architecture or another data set moves the
optimum. So a coefficient of the next study is predicted with random effects::

    m_i ~ N(theta_i, s_i^2),    theta_i ~ N(mu, tau^2),    theta_new ~ N(mu, tau^2)

tau^2 is DerSimonian and Laird's moment estimate (1986, equation 8) on k - 1 degrees of freedom,
averaged with a prior guess on `_PRIOR_DEGREES`, as two studies that happen to agree show little.
With w_i = 1 / (s_i^2 + tau^2), the next study's coefficient is `sum w m / sum w` with variance
`1 / sum w + tau^2` (Higgins, Thompson & Spiegelhalter 2009, section 4.1).

The rule competes with the published ones (`hpo.scaling.rule_mixture`); the runs decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from hpo.scaling.claims import Level, MeanSd, Slope
from hpo.scaling.drift_prior import between_variance
from hpo.scaling.scaling_law import FittedLaw
from hpo.space import SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials.other_tasks import OtherTask
from surrogates.data import Columns, TrainingData
from surrogates.gp import representative
from surrogates.numerics import NumericalError
from surrogates.scaling_law.coefficients import Estimate
from surrogates.scaling_law.model import ScalingModel
from surrogates.scaling_law.prior import neutral_sd

_PRIOR_DEGREES = 2.0  # weight of the guess of tau^2, in studies
_SLOPE_TAU = 0.3  # guess of tau of a slope, of the standard deviation of the neutral prior
_LEVEL_TAU = 0.1  # guess of tau of a level, of the searched range
_MOST_RUNS = 400  # of a study, that its law is fitted to
_LEAST_INFORMED = 0.2  # share of the prior variance that runs must have removed to count


class EarlierStudies:
    """The rule that the next study is like the earlier ones.

    Args:
        slopes: claims about slopes.
        levels: claims about levels.
        studies: number of studies.

    Example:
        >>> rule = EarlierStudies((Slope("lr", "params", -0.5, 0.1),), (), studies=3)
        >>> rule.source, rule.studies
        ('3 other tasks', 3)
    """

    def __init__(self, slopes: Sequence[Slope], levels: Sequence[Level], studies: int) -> None:
        self.slopes, self.levels, self.studies = tuple(slopes), tuple(levels), studies
        self.source = f"{studies} other task{'s' if studies > 1 else ''}"

    def claims(self, space: SearchSpace) -> tuple[Slope | Level, ...]:
        """Return the claims.

        Args:
            space: search space, which is that of the studies.
        """
        return (*self.slopes, *self.levels)


def new_study(estimates: Sequence[MeanSd], tau: float) -> MeanSd:
    """Return mean and standard deviation of a coefficient of the next study.

    Args:
        estimates: mean and standard deviation of each study.
        tau: guess of the standard deviation between studies.

    Example:
        >>> mean, sd = new_study([(-0.5, 0.05), (-0.5, 0.05), (-0.5, 0.05)], tau=0.2)
        >>> round(mean, 3), round(sd, 3)
        (-0.5, 0.166)
        >>> round(new_study([(-1.0, 0.05), (0.0, 0.05)], tau=0.2)[1], 2)  # they disagree
        0.54
    """
    mean, sd = np.array(estimates, dtype=np.float64).T
    k = len(mean)
    found = between_variance(mean, sd)
    variance = ((k - 1) * found + _PRIOR_DEGREES * tau**2) / (k - 1 + _PRIOR_DEGREES)
    w = 1.0 / (sd**2 + variance)
    return float(w @ mean / w.sum()), math.sqrt(float(1.0 / w.sum() + variance))


def earlier_studies(encoder: Encoder, tasks: Sequence[OtherTask]) -> EarlierStudies | None:
    """Return the rule that runs of other tasks make; None where they say nothing.

    Each task's law is fitted to its own runs under the neutral prior, so that no published rule
    counts twice.

    Args:
        encoder: encoder of a space with scale axes.
        tasks: runs of each task.
    """
    laws, columns = [], encoder.columns
    for task in tasks:
        X, loss = encoder.encode(task.configs), encoder.loss_sign * np.array(task.losses)
        kept = representative(X[:, columns.numeric], loss, _MOST_RUNS)
        try:
            law = ScalingModel().fit(TrainingData(X[kept], loss[kept], columns))
        except NumericalError:
            continue
        laws.append(FittedLaw.of(encoder, law, None))
    return from_laws(laws, encoder.space, columns) if laws else None


def from_laws(
    laws: Sequence[FittedLaw], space: SearchSpace, columns: Columns
) -> EarlierStudies | None:
    """Return the rule that earlier studies make; None where their runs say nothing.

    Args:
        laws: fitted law of each study, under the neutral prior.
        space: space of the studies.
        columns: columns of its rows.
    """
    middle = {name: math.exp(axis.log_middle) for name, axis in space.scale_axes.items()}
    slopes, levels = [], []
    for j in columns.decision:
        name, width = columns.names[j], float(columns.width[j])
        for scale in space.scales:
            known = _informed([law.slope(name, scale) for law in laws])
            if known:
                mean, sd = new_study(known, _SLOPE_TAU * neutral_sd(columns, j))
                slopes.append(Slope(name, scale, mean, sd))
        known = _informed([law.best(name, middle) for law in laws])
        if known:
            mean, sd = new_study(known, _LEVEL_TAU * width)
            ends = float(columns.origin[j]), float(columns.origin[j]) + width
            inside = min(max(mean, ends[0]), ends[1])
            levels.append(Level(name, middle, space[name].unit.value_of(inside), sd))
    return EarlierStudies(slopes, levels, len(laws)) if slopes or levels else None


def _informed(estimates: Sequence[Estimate]) -> list[MeanSd]:
    """Return what the runs of each study say, without its prior; those that say little are not in.

    Posterior = prior x likelihood, all normal, so precisions and precision-weighted means subtract.
    """
    found = []
    for estimate in estimates:
        after, before = estimate.sd**-2, estimate.prior_sd**-2
        if before <= (1.0 - _LEAST_INFORMED) * after:
            likelihood = after - before
            mean = (after * estimate.mean - before * estimate.prior_mean) / likelihood
            found.append((mean, likelihood**-0.5))
    return found
