"""The fitted surrogates of one trial log.

Everything here is a cache: a function of the observations in the order they were told, rebuilt from
nothing when needed and then equal to the last bit. To that end models are built anew only at the
counts 1, 2, .., 11, 13, 15, .. (each the ceiling of 1.1 times the one before) and rows told in
between are appended one at a time. Hyperparameters are learned at these counts too, every fit
starting from the one before it. A model that is not asked for is not fitted; asked for later, it
replays the counts it missed.

Of a long study only its end is replayed: beyond some hundred rows, models of whole runs learn at
every third count, and every fourth of those fits goes back to the prior and an early fit, so that
no fit hangs on more than a few before it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hpo.models.dataset import PartialRuns
from hpo.models.refits import RefitChain
from hpo.space.encoding import Encoder
from hpo.trials import Cause, Status, TrialLog
from surrogates.base import Predictor, Rescaled
from surrogates.calibration import Calibration, conformal_quantile
from surrogates.cost import CostModel, CostPredictor
from surrogates.data import Array, IntArray, TrainingData
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.numerics import single_threaded
from surrogates.scaling import ScalingModel, ScalingPredictor
from surrogates.success import SuccessModel, SuccessPredictor
from surrogates.transforms import CYCLE, Transform, location_scale

_MAX_STAGES = 500  # the same where rows are stages: a suggestion buys only a part of a run
_AS_GOOD = 0.1  # of the spread of the losses
_RECENT = 200  # rows among which ends calibrate the forecast of others
_FEWEST_ENDS = 10
_COVERED_ENDS = 0.8
_FACTORS = (0.25, 4.0)  # least and most by which a standard deviation is multiplied
_LARGEST_LOSS = 1e140  # what lies beyond counts as this much: its square would not be a float


@dataclass(frozen=True, slots=True)
class CompletedRuns:
    """Completed trials as arrays, in tell order.

    Attributes:
        X: n x d, encoded configs.
        loss: ``(n,)``, smaller is better.
        log_cost: ``(n,)``, ln cost; NaN where none was told or it was zero.
        numbers: trial numbers.
    """

    X: Array
    loss: Array
    log_cost: Array
    numbers: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.loss)


class Models:
    """Surrogates of loss, cost and success, each fitted when it is first asked for.

    Args:
        encoder: of the space; losses are turned by ``encoder.loss_sign`` so that less is better.
        scaling: the value model where the space has scale axes.

    Attributes:
        runs: completed trials.
        stages: runs seen on their way.
        resting: r x d, paused trials at full fidelity.
    """

    def __init__(self, encoder: Encoder, scaling: ScalingModel | None = None) -> None:
        self.encoder = encoder
        columns = encoder.columns
        empty = np.zeros((0, len(columns.kinds)))
        self.runs = CompletedRuns(empty, np.zeros(0), np.zeros(0), ())
        self._paid: tuple[Array, Array] = (empty, np.zeros(0))
        self._survived: tuple[Array, Array] = (empty, np.zeros(0))
        self.resting = empty
        self._absorbed = 0
        self.stages = PartialRuns(encoder)
        self._values = {
            transform: RefitChain(GaussianProcess(), columns, transform) for transform in Transform
        }
        self._stage_values = {
            transform: RefitChain(GaussianProcess(), columns, transform, _MAX_STAGES, chained=None)
            for transform in Transform
        }
        self._cost = RefitChain(CostModel(), columns, _unchanged)
        self.scaling_model = scaling or ScalingModel()
        self._scaling = RefitChain(self.scaling_model, columns, _unchanged)

    @property
    def fallbacks(self) -> int:
        """How often a model could not be built and an earlier fit of it was used."""
        values = (*self._values.values(), *self._stage_values.values())
        chains = (*values, self._cost, self._scaling)
        return sum(chain.fallbacks for chain in chains)

    def sync(self, log: TrialLog) -> None:
        """Take in what was told since the last call."""
        self.stages.sync(log)
        self.resting = self.encoder.encode([self.stages.top(o.config) for o in log.paused])
        news = [o for o in log.observations[self._absorbed :] if o.cause is not Cause.LOST]
        self._absorbed = len(log.observations)
        if not news:
            return
        X = self.encoder.encode([o.config for o in news])
        done = np.array([o.status is Status.COMPLETED for o in news])
        cost = np.array([np.nan if not o.cost else np.log(o.cost) for o in news])
        completed = [o for o in news if o.status is Status.COMPLETED]
        loss = self.encoder.loss_sign * np.array([o.loss for o in completed], dtype=np.float64)
        self.runs = CompletedRuns(
            np.concatenate([self.runs.X, X[done]]),
            np.concatenate([self.runs.loss, np.clip(loss, -_LARGEST_LOSS, _LARGEST_LOSS)]),
            np.concatenate([self.runs.log_cost, cost[done]]),
            (*self.runs.numbers, *(o.number for o in completed)),
        )
        paid = np.isfinite(cost) & done
        self._paid = _stack(self._paid, X[paid], cost[paid])
        failed = np.array([o.status is Status.FAILED for o in news])
        self._survived = _stack(self._survived, X, 1.0 - failed)

    def value(self, transform: Transform) -> tuple[GPPredictor, IntArray]:
        """Plain Gaussian process on transformed losses, and the rows of ``runs`` behind it."""
        chain = self._values[transform]
        return chain.at(self.runs.X, self.runs.loss), chain.rows

    def stage_value(self, transform: Transform) -> tuple[GPPredictor, IntArray]:
        """Gaussian process over configs and levels, and the rows of ``stages`` behind it."""
        chain = self._stage_values[transform]
        return chain.at(self.stages.X, self.stages.loss), chain.rows

    def evidence(self, transform: Transform) -> float:
        """ln density of the losses under the process, at its last fit to at most ``JUDGED`` rows.

        It compares models of one log on other axes. Between two fits it would say more of how far
        the next runs surprised the old hyperparameters than of the axes. May raise NumericalError.
        """
        if len(self.stages):
            return self._stage_values[transform].evidence(self.stages.X, self.stages.loss)
        return self._values[transform].evidence(self.runs.X, self.runs.loss)

    @single_threaded
    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """Probability that each run ends about as well as the best is believed to, ``(m,)``.

        About: within a tenth of the spread of the losses. Against the bare best, once that is well
        known, the runs of which least is known would come first, however poor their ends look.

        The best is the smallest posterior mean of a run that has come to its end or, before there
        is one, of the ends of those under way. The transform of the losses changes with every row,
        as in the search. Standard deviations are those that the ends known so far ask for.
        :class:`~hpo.schedulers.Forecast`.

        Args:
            numbers: of trials that a scheduler placed.
        """
        self.sync(log)
        if not len(self.stages):
            return np.full(len(numbers), 0.5)
        predictor, rows = self.stage_value(CYCLE[len(self.stages) % len(CYCLE)])
        X = self.encoder.encode([self.stages.top(log.trial(n).config) for n in numbers])
        ended = self.stages.ended[rows]
        known = predictor.training_mean()[ended]
        best = np.min(known if len(known) else predictor.posterior(self.stages.tops).mean)
        end = predictor.posterior(X)
        sd = _calibration_of_ends(predictor, ended) * np.sqrt(end.variance)
        return np.asarray(ndtr((best + _AS_GOOD - end.mean) / sd))

    def hyperparameters(self, transform: Transform, count: int) -> Array:
        """Of the plain process at ``count`` runs, one of :func:`refits_up_to`."""
        return self._values[transform].theta(self.runs.X, self.runs.loss, count)

    def scaling(self) -> tuple[ScalingPredictor, IntArray]:
        """Value model with a scaling law, on losses as they are, and its rows of ``runs``."""
        return self._scaling.at(self.runs.X, self.runs.loss), self._scaling.rows

    def loss(self) -> Predictor:
        """The model that speaks to people: raw loss, smaller is better."""
        if len(self.encoder.columns.scale):
            return self.scaling()[0]
        predictor, _ = self.value(Transform.RAW)
        return Rescaled(predictor, *location_scale(self.runs.loss))

    def end_of_runs(self) -> Predictor:
        """:meth:`loss` where runs were seen on their way, before any has come to its end."""
        predictor, _ = self.stage_value(Transform.RAW)
        return Rescaled(predictor, *location_scale(self.stages.loss))

    def cost(self) -> CostPredictor | None:
        """Model of ln cost, or None before any positive cost was told."""
        paid = self.stages.paid if len(self.stages) else self._paid
        return self._cost.at(*paid) if len(paid[1]) else None

    @property
    def survived(self) -> tuple[Array, Array]:
        """Rows of all runs that teach, n x d, and whether each came to its end, ``(n,)`` 0 or 1."""
        X, survived = self._survived
        return np.concatenate([X, self.resting]), np.append(survived, np.ones(len(self.resting)))

    def success(self) -> SuccessPredictor | None:
        """Model of survival, or None while nothing has failed."""
        if np.all(self._survived[1] == 1.0):
            return None
        X, survived = self.survived
        return SuccessModel().fit(TrainingData(X, survived, self.encoder.columns))


def _calibration_of_ends(predictor: GPPredictor, ended: NDArray[np.bool_]) -> float:
    """Factor on the standard deviation of an end; 1 while too few are known.

    From each recent end's residual when it is left out, its run's earlier levels being known, as
    they are when a scheduler asks. Residuals of all rows would say less: most are of low levels.
    """
    scores = Calibration.recent(predictor, _RECENT).scores
    scores = scores[ended[-len(scores) :]]
    if len(scores) < _FEWEST_ENDS:
        return 1.0
    normal = float(ndtri(0.5 * (1.0 + _COVERED_ENDS)))
    return float(np.clip(conformal_quantile(scores, _COVERED_ENDS) / normal, *_FACTORS))


def _unchanged(y: Array) -> Array:
    return y


def _stack(have: tuple[Array, Array], X: Array, y: Array) -> tuple[Array, Array]:
    return np.concatenate([have[0], X]), np.concatenate([have[1], y])
