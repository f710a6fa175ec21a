"""Configs that no model of the loss chooses: start points, exploration, random draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.stats import qmc

from hpo.acquisition import Rows
from hpo.optimizer.ask import Ask, Search
from hpo.trials import Reason, ReasonKind
from surrogates.data import Array

_CANDIDATES = 256
_REDRAWS = 64  # of a random config that `where` forbids, before the last is moved to an allowed one


@dataclass(frozen=True, slots=True)
class _Scores:
    """Log scores of given rows; a term whose rows are known beforehand."""

    scores: Array

    def value(self, X: Array) -> Array:
        assert len(X) == len(self.scores)
        return self.scores

    def gradient(self, X: Array) -> tuple[Array, Array]:
        return self.value(X), np.zeros(X.shape)


def start_point(ask: Ask) -> Search:
    """Propose the start point of this ask, or what comes nearest to it in the pool."""
    start = ask.start
    assert start is not None
    X = start.row[None] if ask.pool is None else ask.pool
    nearness = -np.sum((X - start.row) ** 2, axis=1)
    why = Reason(
        ReasonKind.START_POINT,
        start=(start.number, start.count),
        other_tasks=start.other_tasks,
    )
    return Search(_Scores(nearness), Rows(X), why)


def explore(ask: Ask) -> Search:
    """Propose a row far from what was tried, where failure is least likely."""
    encoder, taken = ask.encoder, ask.taken
    X = ask.pool
    if X is None:
        sample = qmc.Sobol(taken.shape[1], scramble=True, rng=ask.rng).random(_CANDIDATES)
        X = encoder.repaired(encoder.from_unit(sample, (encoder.lower, encoder.upper)))
    score = np.zeros(len(X))
    success = ask.models.success()
    if success is not None:
        score += success.log_probability(X)
    if len(taken):
        steps = X[:, None, :] - taken[None, :, :]
        score += np.log(np.min(np.mean(steps**2, axis=2), axis=1) + 1e-12) / 2.0
    return Search(_Scores(score), Rows(X), Reason(ReasonKind.EXPLORE))


def random_config(ask: Ask) -> Search:
    """Draw a config at random, where runs may pause.

    It costs no more than its first level, and without it some studies stayed in the first valley
    they found (mean regret after 5 trainings of each of 4 workers on four instances of LCBench and
    two of crossing curves, 4 seeds: .125 without, .086 with one in four).
    """
    encoder, rng = ask.encoder, ask.rng
    drawn, box = rng.random((1, len(encoder.lower))), encoder.box(ask.models.partial_runs.ends)
    X = ask.pool
    if X is None:
        X = encoder.from_unit(drawn, box)
        for _ in range(_REDRAWS):
            if encoder.allowed(X)[0]:
                break
            X = encoder.from_unit(rng.random(drawn.shape), box)
    return Search(_Scores(rng.random(len(X))), Rows(X), Reason(ReasonKind.RANDOM))
