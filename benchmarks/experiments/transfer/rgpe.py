"""RGPE, the ranking-weighted Gaussian process ensemble, from its authors' formulas.

Feurer, Letham, Hutter, Bakshy, "Practical Transfer Learning for Bayesian Optimization"
(arXiv 1802.02219, v4), whose equations are named below. Each task, the target among them, has a
Gaussian process on its own standardized losses. In each of `DRAWS` draws from the posteriors at the
target's runs the model that misranks fewest pairs of them wins; the target's own model draws from
its leave-one-out posterior. A model's weight is its share of wins. A model is discarded where its
median number of misranked pairs is above the 95th percentile of the target's (weight dilution). The
ensemble's mean is the weighted sum of means, its variance that of variances with squared weights
(eqs. 3 and 4), and expected improvement is maximized over random candidates and neighbors of the
best runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from benchmarks.experiments.transfer.histories import Runs
from benchmarks.peers.base import FullRuns, Job
from benchmarks.peers.spaces import Translation
from benchmarks.simulate import draw
from benchmarks.task import Evaluation, Task
from hpo.space.encoding import Encoder, row_keys
from surrogates.data import TrainingData
from surrogates.gp import GaussianProcess, GPPredictor
from surrogates.transforms import standardize

Array = NDArray[np.float64]

DRAWS = 256
CANDIDATES = 1000
_NEIGHBORS = 500
_STEP = 0.1  # of the range, of neighbors of the best runs
_PERCENTILE = 95.0
_FEWEST = 3  # runs below which all other tasks count alike


class RGPE(FullRuns):
    """One study; see the module."""

    def __init__(self, task: Task, histories: Mapping[str, Runs], seed: int) -> None:
        super().__init__()
        Translation(task.space, peer="RGPE")  # refuses what it cannot search
        self._space, self._encoder = task.space, Encoder(task.space)
        self._rng = np.random.default_rng(seed)
        self._others = [
            self._model(self._encoder.encode([c for c, _ in runs]), np.array([y for _, y in runs]))
            for runs in histories.values()
        ]
        self._configs: list[dict[str, Any]] = []
        self._losses: list[float] = []
        self._visited: set[bytes] = set()

    def suggest(self, number: int) -> dict[str, Any]:
        models, weights = self._ensemble()
        X = self._candidates()
        posteriors = [model.posterior(X) for model in models]
        mean = sum(w * p.mean for w, p in zip(weights, posteriors, strict=True))
        variance = sum(w**2 * p.variance for w, p in zip(weights, posteriors, strict=True))
        sd = np.sqrt(variance)
        if self._losses:
            runs = self._encoder.encode(self._configs)
            pairs = zip(weights, models, strict=True)
            best = np.min(sum(w * model.posterior(runs).mean for w, model in pairs))
        else:
            best = np.min(mean)
        z = (best - mean) / sd
        gain = sd * (z * ndtr(z) + np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi))
        row = X[int(np.argmax(gain))]
        self._visited.add(row_keys(row[None])[0])
        return self._encoder.decode(row[None])[0]

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        if evaluation.loss is not None:
            self._configs.append(job.config)
            self._losses.append(evaluation.loss)

    def _model(self, X: Array, losses: Array) -> GPPredictor:
        return GaussianProcess().fit(TrainingData(X, standardize(losses), self._encoder.columns))

    def _ensemble(self) -> tuple[list[GPPredictor], Array]:
        others = self._others
        if len(self._losses) < _FEWEST:
            return others, np.full(len(others), 1.0 / len(others))
        X, y = self._encoder.encode(self._configs), np.array(self._losses)
        target = self._model(X, y)
        misranked = np.stack(
            [
                *(_misranked(o.joint_posterior(X).sample(DRAWS, self._rng), y) for o in others),
                self._own_misranked(target, y),
            ]
        )
        limit = np.percentile(misranked[-1], _PERCENTILE)
        kept = np.median(misranked, axis=1) <= limit
        kept[-1] = True
        lowest = np.where(kept[:, None], misranked, np.inf)
        # ties go to the target where it is among them, else to one of them at random
        best = lowest == lowest.min(axis=0)
        winners = np.argmax(best * self._rng.random(best.shape), axis=0)
        winners[best[-1]] = len(others)
        weights = np.bincount(winners, minlength=len(misranked)) / DRAWS
        return [*others, target], weights

    def _own_misranked(self, target: GPPredictor, y: Array) -> Array:
        """Return pairs misranked by the target's leave-one-out draws against its runs (eq. 6)."""
        left_out = target.leave_one_out()
        draws = left_out.mean + np.sqrt(left_out.variance) * self._rng.standard_normal(
            (DRAWS, len(y))
        )
        own = target.y
        wrong = (draws[:, :, None] < own[None, None, :]) ^ (own[:, None] < own[None, :])
        return np.asarray(wrong.sum(axis=(1, 2)), dtype=np.float64)

    def _candidates(self) -> Array:
        rows = [self._encoder.encode([draw(self._space, self._rng) for _ in range(CANDIDATES)])]
        if self._losses:
            best = np.argsort(self._losses)[:5]
            near = self._encoder.encode([self._configs[i] for i in best])
            near = near[self._rng.integers(0, len(near), _NEIGHBORS)]
            moved = self._rng.random(near.shape) < 2.0 / near.shape[1]
            other = self._encoder.encode([draw(self._space, self._rng) for _ in range(_NEIGHBORS)])
            numeric = np.zeros(near.shape[1], dtype=bool)
            numeric[self._encoder.columns.numeric] = True
            step = near + _STEP * self._rng.standard_normal(near.shape)
            near = np.where(moved, np.where(numeric, np.clip(step, 0.0, 1.0), other), near)
            rows.append(self._encoder.snap(near))
        X = np.concatenate(rows)
        new = [i for i, key in enumerate(row_keys(X)) if key not in self._visited]
        return X[new] if new else X


def _misranked(draws: Array, y: Array) -> Array:
    """Return the number of misranked pairs of each draw, `(DRAWS,)` (eq. 5)."""
    wrong = (draws[:, :, None] < draws[:, None, :]) ^ (y[:, None] < y[None, :])
    return np.asarray(wrong.sum(axis=(1, 2)), dtype=np.float64)
