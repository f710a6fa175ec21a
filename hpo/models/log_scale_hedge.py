"""Hedge over the scaling of inputs: as declared, or with wide linear ranges in logarithms.

A weight decay in [1e-5, 0.1] that was declared linear has its best values in a thousandth of its
box. No stationary process on that box can resolve them: it distinguishes the bound from the rest,
and the search stays at the bound. On the logarithm it finds them.

So where :func:`~hpo.space.encoding.wide_parameters` names any, one model is kept for each of two
input scalings, and asks are divided between them by the posterior probability of each scaling
under equal priors::

    P(scaling | losses) ~ p(losses | scaling),   never below FLOOR

with the marginal likelihood of each model's Gaussian process (Rasmussen & Williams 2006, eq. 5.8,
at the fitted hyperparameters). The division follows a low-discrepancy sequence over the indices of
the asks and draws no random number; everything is a function of the log. Results are reported by
the more likely model. Beyond `EVIDENCE_ROWS` runs it answers all asks, as two models of thousands
of runs are expensive.

The start points are spread evenly on the declared scaling, so that a range that was meant to be
linear costs nothing while little is known. Where the space has scale axes there is only one
scaling: the scaling law defines them as logarithms. docs/engine.md has figures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit

from hpo.models.fitted import Models
from hpo.models.other_tasks import OtherTasks
from hpo.models.refits import EVIDENCE_ROWS
from hpo.models.surrogate_selector import SurrogateChoice, SurrogateSelector
from hpo.space.encoding import Encoder, wide_parameters
from hpo.trials import TrialLog
from hpo.trials.other_tasks import OtherTask
from surrogates.data import Array
from surrogates.numerics import NumericalError, kronecker
from surrogates.scaling_law.model import ScalingModel
from surrogates.transforms import CYCLE, Transform

FLOOR = 0.1  # least share of the asks that each scaling answers
_STEP = math.sqrt(2.0)  # irrational step of the sequence that divides the asks


@dataclass(frozen=True, slots=True)
class InputWarp:
    """Models of one log under one input scaling.

    Attributes:
        models: Surrogates, with the encoder of this scaling.
        selector: Choice between the surrogates of the loss.

    Example:
        >>> from hpo.space import Float, SearchSpace
        >>> encoder = Encoder(SearchSpace({"decay": Float(1e-5, 0.1)}), log_axes=["decay"])
        >>> models = Models(encoder)
        >>> InputWarp(models, SurrogateSelector(models, SurrogateChoice.GP)).log_parameters
        ('decay',)
    """

    models: Models
    selector: SurrogateSelector

    @property
    def encoder(self) -> Encoder:
        """Encoder of this scaling."""
        return self.models.encoder

    @property
    def log_parameters(self) -> tuple[str, ...]:
        """Linear parameters whose logarithm is modeled; empty for the declared scaling."""
        return self.encoder.log_axes

    def snapshot(self) -> InputWarp:
        """Return a copy that later results do not change."""
        models = self.models.snapshot()
        return InputWarp(models, self.selector.snapshot(models))


class LogScaleHedge:
    """Models of one log, one set per input scaling; a :class:`~hpo.schedulers.Forecast`.

    Args:
        encoder: Encoder of the declared scaling.
        scaling: Model of the loss where the space has scale axes.
        choice: Surrogates that may model the loss.
        other_tasks: Runs of other tasks, if any.

    Attributes:
        all: One entry per input scaling, the declared one first.

    Example:
        >>> from hpo.space import Float, SearchSpace
        >>> encoder = Encoder(SearchSpace({"decay": Float(1e-5, 0.1)}))
        >>> hedge = LogScaleHedge(encoder, ScalingModel(), SurrogateChoice.AUTO)
        >>> [warp.log_parameters for warp in hedge.all]
        [(), ('decay',)]
        >>> hedge.for_ask(0) is hedge.declared  # before any loss
        True
    """

    def __init__(
        self,
        encoder: Encoder,
        scaling: ScalingModel,
        choice: SurrogateChoice,
        other_tasks: Sequence[OtherTask] = (),
    ) -> None:
        space = encoder.space
        encoders = [encoder]
        if not space.scales and (wide := wide_parameters(space)):
            encoders.append(Encoder(space, encoder.direction, log_axes=wide))
        learned = OtherTasks.useful(encoders, () if space.scales else other_tasks)
        models = [Models(e, scaling, tasks) for e, tasks in zip(encoders, learned, strict=True)]
        self.all = tuple(InputWarp(m, SurrogateSelector(m, choice)) for m in models)

    @property
    def declared(self) -> InputWarp:
        """Models under the declared scaling."""
        return self.all[0]

    def sync(self, log: TrialLog) -> None:
        """Add what was told since the last call to all models; selectors synchronize when used."""
        for warp in self.all:
            warp.models.sync(log)

    @property
    def fallbacks(self) -> int:
        """Number of times that a model could not be built and an earlier fit was used."""
        return sum(warp.models.fallbacks for warp in self.all)

    def for_ask(self, index: int) -> InputWarp:
        """Return the models that answer an ask; the declared ones before any loss.

        Args:
            index: Index of the ask.
        """
        if len(self.all) == 1 or not 0 < self._rows <= EVIDENCE_ROWS:
            return self.most_likely()
        share = np.clip(self._probability(CYCLE[index % len(CYCLE)]), FLOOR, 1.0 - FLOOR)
        return self.all[-1] if kronecker(index, _STEP) < share else self.declared

    def most_likely(self) -> InputWarp:
        """Return the models under which the losses are most likely."""
        return self.all[-1] if self._probability(Transform.RAW) > 0.5 else self.declared

    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """Return the probability that each run ends as well as the best, `(m,)`.

        It is asked of the most likely models: :meth:`hpo.models.fitted.Models.probability_of_best`.

        Args:
            log: Log to synchronize with first.
            numbers: Numbers of trials that a scheduler placed.
        """
        self.sync(log)
        return self.most_likely().models.probability_of_best(log, numbers)

    @property
    def _rows(self) -> int:
        """Number of rows from which the loss is learned."""
        return len(self.declared.models.data)

    def _probability(self, transform: Transform) -> float:
        """Return the probability of the logarithmic scaling, in [0, 1]; 0 where there is none."""
        if len(self.all) == 1 or not self._rows:
            return 0.0
        try:
            declared, logarithmic = (warp.models.evidence(transform) for warp in self.all)
        except NumericalError:
            return 0.5
        return float(expit(logarithmic - declared))
