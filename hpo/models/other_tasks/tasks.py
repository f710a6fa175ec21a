"""What runs of other tasks say under one encoder: start points, and the prior of the loss.

The *portfolio* is the sequence of configs that would have served the other tasks best. Each task's
surrogate predicts the loss of every config that any of them ran; losses are replaced by ranks, so
that no task counts more for its units; and the configs are chosen one by one to minimize the mean
over tasks of the best rank so far, which is submodular, so the greedy choice is near the best one
(Wistuba et al. 2015; Winkelmolen et al. 2020).

Tasks that do not agree with each other will not agree with the next one either. Their *agreement*
is the median over pairs of tasks of Kendall's tau between what one task's surrogate predicts and
what the other's runs show. Below `LEAST_AGREEMENT` the tasks are not used, and the search is the
one without them. Random histories of 100 runs had .29 to .70 in five families of benchmarks, and
-.03 to .06 where losses were shuffled or functions unrelated.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.stats import kendalltau, rankdata

from hpo.models.other_tasks.transfer_process import TaskMean, TransferProcess, features
from hpo.space.encoding import Encoder
from hpo.trials.other_tasks import OtherTask
from surrogates.data import Array, TrainingData
from surrogates.gp import GaussianProcess, GPPredictor, representative
from surrogates.transforms import Transform

_log = logging.getLogger(__name__)

LEAST_AGREEMENT = 0.15
PORTFOLIO = 3  # start points that other tasks suggest
_BEST = 3  # rows of each task that are candidates of every ask
_ROWS = 2000  # of all tasks: every prediction evaluates a kernel at them
_FEWEST, _MOST = 40, 200  # rows of one task


@dataclass(frozen=True, slots=True)
class PortfolioStart:
    """A start point that other tasks suggest.

    Attributes:
        row: `(d,)`, its row.
        other_tasks: Tasks that no other member of the portfolio serves better, each with its share
            of them.
    """

    row: Array
    other_tasks: tuple[tuple[str, float], ...]


class OtherTasks:
    """Runs of other tasks as rows, with the models learned from them.

    Args:
        encoder: Encoder of the space.
        tasks: Runs of each task, at least one task.

    Attributes:
        names: Names of the tasks.

    Example:
        >>> from hpo.space import Float, SearchSpace
        >>> encoder = Encoder(SearchSpace({"x": Float(0.0, 1.0)}))
        >>> grid = [{"x": i / 20} for i in range(21)]
        >>> bowls = {"a": 0.3, "b": 0.35}
        >>> tasks = OtherTasks(encoder, [
        ...     OtherTask(name, tuple(grid), tuple((c["x"] - best) ** 2 for c in grid))
        ...     for name, best in bowls.items()
        ... ])
        >>> tasks.agree
        True
        >>> tasks.portfolio()[0].row.tolist(), tasks.portfolio()[0].other_tasks
        ([0.3], (('a', 1.0),))
    """

    def __init__(self, encoder: Encoder, tasks: Sequence[OtherTask]) -> None:
        self.names = tuple(task.name for task in tasks)
        self._columns = encoder.columns
        most = min(max(_ROWS // len(tasks), _FEWEST), _MOST)
        rows, best = [], []
        for task in tasks:
            X, loss = encoder.encode(task.configs), encoder.loss_sign * np.array(task.losses)
            best.append(encoder.snap(X[np.argsort(loss, kind="stable")[:_BEST]]))
            kept = representative(X[:, self._columns.numeric], loss, most)
            rows.append((X[kept], loss[kept]))
        self.best_rows = np.concatenate(best)
        self._rows = tuple(rows)
        self._processes: dict[Transform, TransferProcess] = {}

    @classmethod
    def useful(
        cls, encoders: Sequence[Encoder], tasks: Sequence[OtherTask]
    ) -> tuple[OtherTasks | None, ...]:
        """Return the tasks under each encoder; None where there are none, or they disagree.

        Args:
            encoders: Encoders of one space, the declared one first, which decides.
            tasks: Runs of each task.
        """
        if not tasks:
            return (None,) * len(encoders)
        learned = tuple(cls(encoder, tasks) for encoder in encoders)
        if learned[0].agree:
            return learned
        _log.warning(
            "nothing is learned from the other tasks %s, which do not agree with each other: the"
            " median of Kendall's tau is %.2f, and %.2f is needed",
            list(learned[0].names),
            learned[0].agreement,
            LEAST_AGREEMENT,
        )
        return (None,) * len(encoders)

    def process(self, transform: Transform) -> TransferProcess:
        """Return the model of transformed losses that learns from the tasks.

        Args:
            transform: Output transform of all losses.
        """
        if transform not in self._processes:
            columns = self._columns
            tasks = [
                GaussianProcess().fit(TrainingData(X, transform(loss), columns))
                for X, loss in self._rows
            ]
            self._processes[transform] = TransferProcess(tasks, columns)
        return self._processes[transform]

    @cached_property
    def agreement(self) -> float:
        """Median of Kendall's tau over pairs of tasks, in [-1, 1]; 1 for a single task."""
        tasks = self.process(Transform.WINSOR).tasks
        taus = []
        for t, task in enumerate(tasks):
            predicted = features(tasks, task.X)
            taus += [
                float(kendalltau(predicted[:, s], task.y).statistic)
                for s in range(len(tasks))
                if s != t
            ]
        return float(np.median(np.nan_to_num(taus))) if taus else 1.0

    @property
    def agree(self) -> bool:
        """Whether the tasks agree well enough with each other to expect it of the next one."""
        return self.agreement >= LEAST_AGREEMENT

    def portfolio(self) -> tuple[PortfolioStart, ...]:
        """Return the start points that the tasks suggest, best first."""
        tasks = self.process(Transform.WINSOR).tasks
        X = np.unique(np.concatenate([rows for rows, _ in self._rows]), axis=0)
        ranks = rankdata(features(tasks, X), axis=0)
        best, chosen = np.full(len(tasks), np.inf), list[int]()
        for _ in range(min(PORTFOLIO, len(X))):
            score = np.minimum(ranks, best).mean(axis=1)
            score[chosen] = np.inf
            if score.min() >= best.mean():
                break  # every task is served as well as it can be
            chosen.append(int(np.argmin(score)))
            best = np.minimum(best, ranks[chosen[-1]])
        server = np.argmin(ranks[chosen], axis=0)
        served = [[self.names[t] for t in np.flatnonzero(server == i)] for i in range(len(chosen))]
        return tuple(
            PortfolioStart(X[i], tuple((name, 1.0 / len(names)) for name in names))
            for i, names in zip(chosen, served, strict=True)
        )

    def shares(self, predictor: GPPredictor) -> tuple[tuple[str, float], ...]:
        """Return each task's share of the prior of `predictor`, largest first, without zeros.

        The prior's standard deviation is shared out in proportion to u_t for each task, whose
        losses have unit variance, and the standard deviation of g for the target's own runs.

        Args:
            predictor: Model of the loss.
        """
        mean = predictor.prior_mean
        if not isinstance(mean, TaskMean):
            return ()
        own = float(np.sqrt(predictor.kernel.diagonal(predictor.X[:1])[0])) / mean.scale
        shares = mean.weights / (mean.weights.sum() + own)
        order = np.argsort(-shares, kind="stable")
        return tuple((self.names[t], float(shares[t])) for t in order if shares[t] > 0.0)


class LazyProcess:
    """The model of :meth:`OtherTasks.process`, fitted to the tasks when it is first used.

    Args:
        tasks: Runs of other tasks.
        transform: Output transform of all losses.
    """

    def __init__(self, tasks: OtherTasks, transform: Transform) -> None:
        self._tasks, self._transform = tasks, transform

    def learn(self, data: TrainingData, warm: Array | None = None, cold: bool = True) -> Array:
        """See `TransferProcess.learn`."""
        return self._tasks.process(self._transform).learn(data, warm, cold)

    def predictor(self, data: TrainingData, theta: Array) -> GPPredictor:
        """See `TransferProcess.predictor`."""
        return self._tasks.process(self._transform).predictor(data, theta)
