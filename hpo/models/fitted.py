"""Fitted surrogates of one trial log: loss, cost and probability of success.

Everything here is a cache: a function of the observations in the order they were told, rebuilt from
nothing when needed and then equal to the last bit (:mod:`hpo.models.refits`). A model is fitted
when it is first used; used late, it replays the refits it missed.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, ndtri

from hpo.models.dataset import CompletedRuns, Dataset, PartialRuns
from hpo.models.other_tasks import LazyProcess, OtherTasks
from hpo.models.refits import FRESH, RefitChain, Representatives
from hpo.space.encoding import Encoder
from hpo.trials import Cause, Observation, Status, TrialLog
from hpo.trials.serialized import ThreadLock
from surrogates.base import Predictor, Rescaled, Surrogate
from surrogates.conformal import Calibration, conformal_quantile
from surrogates.cost import CostModel, CostPredictor
from surrogates.data import Array, IntArray, TrainingData
from surrogates.feasibility import FeasibilityModel, FeasibilityPredictor
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.numerics import single_threaded
from surrogates.scaling_law.model import ScalingModel, ScalingPredictor
from surrogates.transforms import CYCLE, Transform, location_scale

# Rows of a factor; fewer than for whole runs, as one suggestion starts only a part of a run.
MAX_PARTIAL_ROWS = 500
MANY = 2200  # runs up to which every one is compared with an answer; as many as a factor may have
_AS_GOOD = 0.1  # standard deviations of the losses within which an end is as good as the best
_RECENT = 200  # rows whose ends calibrate the forecast of others
_FEWEST_ENDS = 10  # ends below which nothing is calibrated
_COVERED_ENDS = 0.8  # coverage at which ends are calibrated
_FACTORS = (0.25, 4.0)  # smallest and largest factor on a standard deviation
_LARGEST_LOSS = 1e140  # larger losses are clipped to it: their squares would not be floats


class Models:
    """Surrogates of loss, cost and success, each fitted when it is first used.

    Args:
        encoder: Encoder of the space; losses are multiplied by `encoder.loss_sign`, so that smaller
            is better.
        scaling: Loss model where the space has scale axes; None is the default one.
        other_tasks: Runs of other tasks that whole runs learn from; None for no task.

    Attributes:
        encoder: Encoder of the rows.
        other_tasks: Runs of other tasks; None for no task.
        runs: Completed trials.
        law_runs: The same and the branches of all trials, from which the scaling law is learned.
        partial_runs: Reports and stages of runs that a scheduler placed.
        paused: r x d, paused trials at full fidelity.
        read: Number of completed runs told before the first that was asked.
        lock: Held by whoever uses models that several threads may reach.

    Example:
        >>> from hpo.space import Float, SearchSpace
        >>> from hpo.trials import Observation
        >>> log, models = TrialLog(), Models(Encoder(SearchSpace({"x": Float(0.0, 1.0)})))
        >>> for i, (x, loss) in enumerate([(0.0, 1.0), (0.4, 0.1), (1.0, 0.8)]):
        ...     _ = log.tell(
        ...         Observation(i, {"x": x}, loss, None, Status.COMPLETED, None, i, ask_index=None)
        ...     )
        >>> models.sync(log)
        >>> models.runs.loss.tolist()
        [1.0, 0.1, 0.8]
        >>> models.loss().posterior(np.array([[0.4], [0.9]])).mean.shape
        (2,)
        >>> models.cost() is None and models.success() is None  # no cost was told, none failed
        True
    """

    def __init__(
        self,
        encoder: Encoder,
        scaling: ScalingModel | None = None,
        other_tasks: OtherTasks | None = None,
    ) -> None:
        self.encoder = encoder
        self.lock = ThreadLock()
        self.other_tasks = other_tasks
        columns = encoder.columns
        empty = np.zeros((0, len(columns.kinds)))
        self.runs = self.law_runs = CompletedRuns(empty, np.zeros(0), np.zeros(0), ())
        self._paid: tuple[Array, Array] = (empty, np.zeros(0))
        self._outcomes: tuple[Array, Array] = (empty, np.zeros(0))
        self.paused = empty
        self._seen = 0  # observations of the log that are among the rows
        self.read = 0
        self.partial_runs = PartialRuns(encoder)
        self._feasibility: tuple[tuple[Array, Array], FeasibilityPredictor] | None = None
        rows = Representatives(columns)
        self._values = {
            transform: RefitChain(
                self.process(transform),
                columns,
                transform,
                fresh=FRESH,
                taught=GaussianProcess().max_rows,
                representatives=rows,
            )
            for transform in Transform
        }
        self._partial_values = {
            transform: RefitChain(
                GaussianProcess(), columns, transform, MAX_PARTIAL_ROWS, chained=None, fresh=FRESH
            )
            for transform in Transform
        }
        self._cost = RefitChain(CostModel(), columns, _unchanged)
        self.scaling_model = scaling or ScalingModel()
        self._scaling = RefitChain(self.scaling_model, columns, _unchanged)

    def process(self, transform: Transform) -> Surrogate[GPPredictor]:
        """Return the Gaussian process of whole runs, not yet fitted.

        Args:
            transform: Output transform of the losses.
        """
        if self.other_tasks is None:
            return GaussianProcess()
        return LazyProcess(self.other_tasks, transform)

    @property
    def follows_other_tasks(self) -> bool:
        """Whether the model of raw losses uses runs of other tasks."""
        if self.other_tasks is None or not len(self.runs):
            return False
        return bool(self.other_tasks.shares(self.whole_run_value(Transform.RAW)[0]))

    @property
    def fallbacks(self) -> int:
        """Number of times that a model could not be built and an earlier fit of it was used."""
        values = (*self._values.values(), *self._partial_values.values())
        chains = (*values, self._cost, self._scaling)
        return sum(chain.fallbacks for chain in chains)

    def sync(self, log: TrialLog) -> None:
        """Add what was told since the last call."""
        self.partial_runs.sync(log)
        top = self.partial_runs.at_full_fidelity
        self.paused = self.encoder.encode([top(o.config) for o in log.paused])
        news = [o for o in log.observations[self._seen :] if o.cause is not Cause.LOST]
        self._seen = len(log.observations)
        if not news:
            return
        X = self.encoder.encode([o.config for o in news])
        done = np.array([o.status is Status.COMPLETED for o in news])
        cost = np.array([np.nan if not o.cost else np.log(o.cost) for o in news])
        completed = [o for o in news if o.status is Status.COMPLETED]
        self._count_read(completed)
        loss = self.encoder.loss_sign * np.array([o.loss for o in completed], dtype=np.float64)
        self.runs = CompletedRuns(
            np.concatenate([self.runs.X, X[done]]),
            np.concatenate([self.runs.loss, np.clip(loss, -_LARGEST_LOSS, _LARGEST_LOSS)]),
            np.concatenate([self.runs.log_cost, cost[done]]),
            (*self.runs.numbers, *(o.number for o in completed)),
        )
        self.law_runs = self._with_branches(news, X, loss, cost[done])
        self._scaling.read = self._law_rows_read()
        paid = np.isfinite(cost) & done
        self._paid = _stack(self._paid, X[paid], cost[paid])
        failed = np.array([o.status is Status.FAILED for o in news])
        self._outcomes = _stack(self._outcomes, X, 1.0 - failed)

    def _count_read(self, completed: Sequence[Observation]) -> None:
        """Count the runs told before the first that was asked; none of their fits is chained."""
        if self.read == len(self.runs):
            asked = (k for k, o in enumerate(completed) if o.ask_index is not None)
            self.read += next(asked, len(completed))
        for chain in (*self._values.values(), self._cost):
            chain.read = self.read

    def _law_rows_read(self) -> int:
        """Return how many rows of `law_runs` are of runs told before the first that was asked."""
        if self.read == len(self.runs):
            return len(self.law_runs)
        return self.law_runs.numbers.index(self.runs.numbers[self.read])

    def _with_branches(
        self, news: Sequence[Observation], X: Array, loss: Array, log_cost: Array
    ) -> CompletedRuns:
        """Return `law_runs` with new trials, each after its branches, whose cost is not known."""
        if len(self.law_runs) == len(self.runs) - len(loss) and not any(o.branches for o in news):
            return self.runs
        rows, losses, costs, numbers, done = [], [], [], [], 0
        for observation, row in zip(news, X, strict=True):
            for branch in observation.branches:
                rows.append(self.encoder.encode([branch.config(observation.config)])[0])
                losses.append(self.encoder.loss_sign * branch.loss)
                costs.append(np.nan)
                numbers.append(observation.number)
            if observation.status is Status.COMPLETED:
                rows.append(row)
                losses.append(loss[done])
                costs.append(log_cost[done])
                numbers.append(observation.number)
                done += 1
        before = self.law_runs
        return CompletedRuns(
            np.concatenate([before.X, np.reshape(rows, (-1, before.X.shape[1]))]),
            np.append(before.loss, np.clip(losses, -_LARGEST_LOSS, _LARGEST_LOSS)),
            np.append(before.log_cost, costs),
            (*before.numbers, *numbers),
        )

    @property
    def answering(self) -> CompletedRuns:
        """Completed runs beside which an answer is looked for: of thousands the fitted ones.

        They hold the best runs and a covering rest (`surrogates.gp.representative`).
        """
        if len(self.runs) <= MANY:
            return self.runs
        runs = self.runs
        if len(self.encoder.columns.scale):
            rows, runs = self.scaling()[1], self.law_runs
        else:
            rows = self.whole_run_value(Transform.RAW)[1]
        numbers = tuple(runs.numbers[i] for i in rows.tolist())
        return CompletedRuns(runs.X[rows], runs.loss[rows], runs.log_cost[rows], numbers)

    @property
    def uses_partial_runs(self) -> bool:
        """Whether the loss is learned from partial runs, as under a scheduler."""
        return len(self.partial_runs) > 0

    @property
    def data(self) -> Dataset:
        """Rows from which the loss is learned: partial runs if there are any, else whole ones."""
        if self.uses_partial_runs:
            return self.partial_runs.dataset
        return Dataset(self.runs.X, self.runs.loss, np.ones(len(self.runs), dtype=bool))

    def value(self, transform: Transform) -> tuple[GPPredictor, IntArray]:
        """Return the Gaussian process on transformed losses, and the rows of `data` it is built on.

        Args:
            transform: Output transform.
        """
        if not self.uses_partial_runs:
            return self.whole_run_value(transform)
        chain = self._partial_values[transform]
        return chain.at(self.partial_runs.X, self.partial_runs.loss), chain.rows

    def whole_run_value(self, transform: Transform) -> tuple[GPPredictor, IntArray]:
        """Return the same for completed runs alone, with the rows of `runs` it is built on.

        Args:
            transform: Output transform.
        """
        chain = self._values[transform]
        return chain.at(self.runs.X, self.runs.loss), chain.rows

    def evidence(self, transform: Transform) -> float:
        """Return the log marginal likelihood at the last fit to at most `EVIDENCE_ROWS` rows.

        It compares models of one log under other input scalings. Between two fits it would depend
        more on how well the old hyperparameters predicted the next runs than on the scaling.

        Args:
            transform: Output transform.

        Raises:
            NumericalError: If the process cannot be built.
        """
        chains = self._partial_values if self.uses_partial_runs else self._values
        return chains[transform].evidence(self.data.X, self.data.loss)

    @single_threaded
    def probability_of_best(self, log: TrialLog, numbers: Sequence[int]) -> Array:
        """Return the probability that each run ends as well as the best, `(m,)`.

        It is a probability of improvement at full fidelity with a tolerance of 0.1 standard
        deviations of the losses. Without the tolerance, once the best is well known, the most
        uncertain runs would come first, however poor their predicted ends are.

        The best is the smallest posterior mean of a run at full fidelity or, before there is one,
        of the predicted ends of all runs. The transform of the losses changes with every row, as in
        the search. Standard deviations are calibrated by the ends known so far. See
        :class:`~hpo.schedulers.Forecast`.

        Args:
            log: Log to synchronize with first.
            numbers: Numbers of trials that a scheduler placed.
        """
        self.sync(log)
        if not self.uses_partial_runs:
            return np.full(len(numbers), 0.5)
        partial = self.partial_runs
        predictor, rows = self.value(CYCLE[len(partial) % len(CYCLE)])
        X = self.encoder.encode([partial.at_full_fidelity(log.trial(n).config) for n in numbers])
        ended = partial.ended[rows]
        known = predictor.training_mean()[ended]
        best = np.min(known if len(known) else predictor.posterior(partial.ends).mean)
        end = predictor.posterior(X)
        sd = _calibration_of_ends(predictor, ended) * np.sqrt(end.variance)
        return np.asarray(ndtr((best + _AS_GOOD - end.mean) / sd))

    def hyperparameters(self, transform: Transform, count: int) -> Array:
        """Return the hyperparameters of the Gaussian process on the first `count` whole runs.

        Args:
            transform: Output transform.
            count: Number of rows, one of the counts of `refits_up_to`.
        """
        return self._values[transform].theta(self.runs.X, self.runs.loss, count)

    def scaling(self) -> tuple[ScalingPredictor, IntArray]:
        """Return the scaling model of raw losses, and the rows of `law_runs` it is built on."""
        return self._scaling.at(self.law_runs.X, self.law_runs.loss), self._scaling.rows

    def loss(self) -> Predictor:
        """Return the loss model of whole runs in the user's units, smaller is better."""
        if len(self.encoder.columns.scale):
            return self.scaling()[0]
        predictor, _ = self.whole_run_value(Transform.RAW)
        return Rescaled(predictor, *location_scale(self.runs.loss))

    def loss_at_full_fidelity(self) -> Predictor:
        """Return the loss model of `data`, which are partial runs where there are any."""
        if not self.uses_partial_runs:
            return self.loss()
        predictor, _ = self.value(Transform.RAW)
        return Rescaled(predictor, *location_scale(self.partial_runs.loss))

    def cost(self) -> CostPredictor | None:
        """Return the model of ln cost, or None before any positive cost was told."""
        paid = self.partial_runs.paid if self.uses_partial_runs else self._paid
        return self._cost.at(*paid) if len(paid[1]) else None

    @property
    def outcomes(self) -> tuple[Array, Array]:
        """Rows of all runs but lost ones, n x d, and whether each did not fail, `(n,)`, 0 or 1."""
        X, success = self._outcomes
        return np.concatenate([X, self.paused]), np.append(success, np.ones(len(self.paused)))

    def success(self) -> FeasibilityPredictor | None:
        """Return the model of success, fitted once for these runs; None before a failure."""
        if np.all(self._outcomes[1] == 1.0):
            return None
        X, success = self.outcomes
        fitted = self._feasibility
        if fitted is None or not all(map(np.array_equal, fitted[0], (X, success))):
            data = TrainingData(X, success, self.encoder.columns)
            fitted = self._feasibility = (X, success), FeasibilityModel().fit(data)
        return fitted[1]

    def snapshot(self) -> Models:
        """Return a copy that later calls of `sync` on these models do not change."""
        same = copy.copy(self)
        same.lock = ThreadLock()
        same._values = {key: chain.snapshot() for key, chain in self._values.items()}
        same._partial_values = {k: chain.snapshot() for k, chain in self._partial_values.items()}
        same._cost, same._scaling = self._cost.snapshot(), self._scaling.snapshot()
        same.partial_runs = copy.copy(self.partial_runs)
        return same


def _calibration_of_ends(predictor: GPPredictor, ended: NDArray[np.bool_]) -> float:
    """Return the factor on the standard deviation of a predicted end; 1 while few are known.

    It is the conformal quantile of the recent ends' leave-one-out residuals. The earlier levels of
    the run stay among the data, as when a scheduler asks. Residuals of all rows would say less, as
    most rows are of low levels.
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
