"""Hedge over the scaling of inputs: as declared, or with wide linear ranges in logarithms.

A weight decay in [1e-5, 0.1] that was declared linear has its best values in a thousandth of its
box, which no stationary process on that box can resolve: it sees the bound and the rest, and the
search stays there. In logarithms it finds them.

So where :func:`~hpo.space.encoding.wide_parameters` names any, one model is kept for each of two
input scalings, and asks are divided between them by the posterior probability of each scaling,
from equal prior ones::

    P(scaling | losses) ~ p(losses | scaling),   never below FLOOR

with the marginal likelihood of each model's process (Rasmussen & Williams 2006, eq. 5.8, at the
fitted hyperparameters). Which ask goes to which follows a low-discrepancy sequence over their
indices and draws no random number; everything is a function of the log. Results are reported by the
more likely one, and once `JUDGED` runs have been told it has all asks: two models of thousands of
runs are expensive.

The start points lie evenly on the declared scaling, so that a range that was meant to be linear
costs nothing while little is known. Scale axes are logarithms by definition and the law knows no
others: there is only one scaling there. docs/engine.md has figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from hpo.models.fitted import Models
from hpo.models.refits import JUDGED
from hpo.models.surrogate_selector import SurrogateChoice, SurrogateSelector
from hpo.space.encoding import Encoder, wide_parameters
from hpo.trials import TrialLog
from surrogates.data import Array
from surrogates.numerics import NumericalError, kronecker
from surrogates.scaling_law.model import ScalingModel
from surrogates.transforms import CYCLE, Transform

FLOOR = 0.1  # of the asks, to each view
_STEP = math.sqrt(2.0)


@dataclass(frozen=True, slots=True)
class InputWarp:
    """One log on one set of axes.

    Attributes:
        models: and their encoder.
        members: who of them speaks.
    """

    models: Models
    selector: SurrogateSelector

    @property
    def encoder(self) -> Encoder:
        """Encoder of this scaling."""
        return self.models.encoder

    @property
    def log_parameters(self) -> tuple[str, ...]:
        """Linear parameters that are seen in logarithms; empty for the declared scaling."""
        return self.encoder.log_axes

    def snapshot(self) -> InputWarp:
        """Return this as it is now, unchanged by what is told later."""
        models = self.models.snapshot()
        return InputWarp(models, self.selector.snapshot(models))


class LogScaleHedge:
    """The models of one log, one per input scaling; a :class:`~hpo.schedulers.Forecast`.

    Args:
        encoder: Encoder of the declared scaling.
        scaling: Model of the loss where the space has scale axes.
        choice: Surrogates that may model the loss.
    """

    def __init__(self, encoder: Encoder, scaling: ScalingModel, choice: SurrogateChoice) -> None:
        space = encoder.space
        encoders = [encoder]
        if not space.scales and (wide := wide_parameters(space)):
            encoders.append(Encoder(space, encoder.direction, log_axes=wide))
        models = [Models(e, scaling) for e in encoders]
        self.all = tuple(InputWarp(m, SurrogateSelector(m, choice)) for m in models)

    @property
    def declared(self) -> InputWarp:
        """The one with the declared scaling."""
        return self.all[0]

    def sync(self, log: TrialLog) -> None:
        """Take in what was told since the last call; selectors wait until they are asked."""
        for warp in self.all:
            warp.models.sync(log)

    @property
    def fallbacks(self) -> int:
        """Number of times that a model could not be built and an earlier fit was used."""
        return sum(warp.models.fallbacks for warp in self.all)

    def for_ask(self, index: int) -> InputWarp:
        """Return the one that answers the ask of this `index`; the declared one before any loss."""
        if len(self.all) == 1 or not 0 < self._told <= JUDGED:
            return self.most_likely()
        share = np.clip(self._probability(CYCLE[index % len(CYCLE)]), FLOOR, 1.0 - FLOOR)
        return self.all[-1] if kronecker(index, _STEP) < share else self.declared

    def most_likely(self) -> InputWarp:
        """Return the one under which the losses are most likely."""
        return self.all[-1] if self._probability(Transform.RAW) > 0.5 else self.declared

    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """See :meth:`hpo.models.fitted.Models.probability_of_best`."""
        self.sync(log)
        return self.most_likely().models.probability_of_best(log, numbers)

    @property
    def _told(self) -> int:
        """Rows that the processes know."""
        return len(self.declared.models.data)

    def _probability(self, transform: Transform) -> float:
        """Return that of the scaling in logarithms, in [0, 1]; 0 where there is none."""
        if len(self.all) == 1 or not self._told:
            return 0.0
        try:
            declared, logarithmic = (warp.models.evidence(transform) for warp in self.all)
        except NumericalError:
            return 0.5
        return float(expit(logarithmic - declared))
