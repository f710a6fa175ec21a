"""On which axes a study is looked at: as declared, or with wide linear ranges in logarithms.

A weight decay in [1e-5, 0.1] that was declared linear has its best values in a thousandth of its
box, which no stationary process on that box can resolve: it sees the bound and the rest, and the
search stays there. In logarithms it finds them.

So where :func:`~hpo.space.encoding.wide_parameters` names any, two *views* of one log are kept, each with
its own encoder and models, and asks are divided between them by the posterior probability of each,
from equal prior ones::

    P(view | losses) ~ p(losses | view),   never below FLOOR

with the evidence of each view's process (Rasmussen & Williams 2006, eq. 5.8, at the fitted
hyperparameters). Which ask goes to which follows a low-discrepancy sequence over their indices and
draws no random number; everything is a function of the log. The likelier view speaks of results,
and once ``JUDGED`` runs have been told it has all asks: two models of thousands of runs are dear.

The start points lie evenly on the axes declared, so that a range that was meant to be linear costs
nothing while little is known. Scale axes are logarithms by definition and the law knows no others:
there is one view there. docs/engine.md has figures.
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
from surrogates.numerics import NumericalError
from surrogates.scaling import ScalingModel
from surrogates.transforms import CYCLE, Transform

FLOOR = 0.1  # of the asks, to each view
_TURN = math.sqrt(2.0)


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
        """Of these axes."""
        return self.models.encoder

    @property
    def axes(self) -> str:
        """What a reason says of the axes; nothing where they are those declared."""
        names = self.encoder.log_axes
        return f" (in logarithms: {', '.join(names)})" if names else ""


class LogScaleHedge:
    """The views of one log; a :class:`~hpo.schedulers.Forecast`, by the likelier.

    Args:
        encoder: on the axes declared.
        scaling: the value model where the space has scale axes.
        choice: who may model the loss.
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
        """The one on the axes declared."""
        return self.all[0]

    def sync(self, log: TrialLog) -> None:
        """Take in what was told since the last call; members wait until they are asked."""
        for view in self.all:
            view.models.sync(log)

    @property
    def fallbacks(self) -> int:
        """How often a model fell back to an earlier fit."""
        return sum(view.models.fallbacks for view in self.all)

    def at(self, index: int) -> InputWarp:
        """Whose turn the ask of this ``index`` is; before any loss, that of the axes declared."""
        if len(self.all) == 1 or not 0 < self._told <= JUDGED:
            return self.most_likely()
        share = np.clip(self._probability(CYCLE[index % len(CYCLE)]), FLOOR, 1.0 - FLOOR)
        return self.all[-1] if (index + 0.5) * _TURN % 1.0 < share else self.declared

    def most_likely(self) -> InputWarp:
        """The one that explains the losses best."""
        return self.all[-1] if self._probability(Transform.RAW) > 0.5 else self.declared

    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """See :meth:`hpo.models.Models.probability_of_best`."""
        self.sync(log)
        return self.most_likely().models.probability_of_best(log, numbers)

    @property
    def _told(self) -> int:
        """Rows that the processes know."""
        models = self.declared.models
        return len(models.stages) or len(models.runs)

    def _probability(self, transform: Transform) -> float:
        """Of the view in logarithms, in [0, 1]; 0 where there is none."""
        if len(self.all) == 1 or not self._told:
            return 0.0
        try:
            declared, logarithmic = (view.models.evidence(transform) for view in self.all)
        except NumericalError:
            return 0.5
        return float(expit(logarithmic - declared))
