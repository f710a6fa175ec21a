"""The methods of the comparison, each with the runs of other tasks at hand.

* `scaletune`: `Optimizer(other_tasks=...)`. `scaletune-alone`: the same without other tasks.
* `optuna-tpe`, `optuna-gp`: Optuna's samplers after the best config of each other task was
  enqueued, in the order of the tasks.
* `rgpe`: :mod:`benchmarks.experiments.transfer.rgpe`.
* `syne-box`, `syne-zero-shot`, `syne-quantile`: Syne Tune's `BoundingBox` around random search as
  in its documentation, `ZeroShotTransfer(use_surrogates=True)` and
  `QuantileBasedSurrogateSearcher`, in Syne Tune's own environment.
* `random`: random search.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from benchmarks.experiments.transfer.histories import Runs
from benchmarks.peers.base import Peer
from benchmarks.peers.optuna_tpe import OptunaPeer
from benchmarks.peers.scaletune import Scaletune
from benchmarks.peers.spaces import Translation
from benchmarks.peers.syne_tune import SyneTunePeer, domains, silence
from benchmarks.task import Task
from hpo import Optimizer

__all__ = ["ENVIRONMENTS", "METHODS"]

_LOSS = "loss"

Make = Callable[[Task, Mapping[str, Runs], int], Peer]


def _scaletune(task: Task, histories: Mapping[str, Runs], seed: int) -> Scaletune:
    return Scaletune(Optimizer(task.space, other_tasks=histories, seed=seed))


def _alone(task: Task, histories: Mapping[str, Runs], seed: int) -> Scaletune:
    return Scaletune(Optimizer(task.space, seed=seed))


def _random(task: Task, histories: Mapping[str, Runs], seed: int) -> Peer:
    from benchmarks.peers import random_search

    return random_search.make(task, seed=seed, trials=0)


def _rgpe(task: Task, histories: Mapping[str, Runs], seed: int) -> Peer:
    from benchmarks.experiments.transfer.rgpe import RGPE

    return RGPE(task, histories, seed)


def _optuna(sampler: str) -> Make:
    def make(task: Task, histories: Mapping[str, Runs], seed: int) -> Peer:
        from benchmarks.peers import optuna_gp, optuna_tpe

        module = {"gp": optuna_gp, "tpe": optuna_tpe}[sampler]
        peer: OptunaPeer = module.make(task, seed=seed, trials=0)
        translation = Translation(task.space, peer="Optuna", conditional=True)
        for runs in histories.values():
            config, _ = min(runs, key=lambda run: run[1])
            peer.study.enqueue_trial(dict(translation.codes(config)))
        return peer

    return make


def _syne(kind: str) -> Make:
    def make(task: Task, histories: Mapping[str, Runs], seed: int) -> Peer:
        import pandas as pd
        from syne_tune.optimizer.baselines import RandomSearch
        from syne_tune.optimizer.schedulers.single_objective_scheduler import (
            SingleObjectiveScheduler,
        )
        from syne_tune.optimizer.schedulers.transfer_learning import (
            BoundingBox,
            TransferLearningTaskEvaluations,
            ZeroShotTransfer,
        )
        from syne_tune.optimizer.schedulers.transfer_learning.quantile_based import (
            quantile_based_searcher,
        )

        silence()
        translation = Translation(task.space, peer="Syne Tune")
        space = domains(translation)
        evaluations = {
            name: TransferLearningTaskEvaluations(
                space,
                pd.DataFrame([translation.codes(config) for config, _ in runs]),
                [_LOSS],
                np.array([loss for _, loss in runs])[:, None, None, None],
            )
            for name, runs in histories.items()
        }
        given: dict[str, Any] = {"random_seed": seed}
        if kind == "box":
            scheduler = BoundingBox(
                lambda box, metric, minimize, number: RandomSearch(
                    box, metric=metric, do_minimize=minimize, random_seed=number
                ),
                space,
                _LOSS,
                evaluations,
                **given,
            )
        elif kind == "zero-shot":
            scheduler = ZeroShotTransfer(space, _LOSS, evaluations, use_surrogates=True, **given)
        else:
            searcher = quantile_based_searcher.QuantileBasedSurrogateSearcher(
                space, evaluations, **given
            )
            scheduler = SingleObjectiveScheduler(space, _LOSS, searcher=searcher, **given)
        return SyneTunePeer(translation, scheduler, seed)

    return make


#: Name -> what makes a study of a task, with the runs of other tasks and a seed.
METHODS: Mapping[str, Make] = {
    "scaletune": _scaletune,
    "scaletune-alone": _alone,
    "optuna-tpe": _optuna("tpe"),
    "optuna-gp": _optuna("gp"),
    "rgpe": _rgpe,
    "syne-box": _syne("box"),
    "syne-zero-shot": _syne("zero-shot"),
    "syne-quantile": _syne("quantile"),
    "random": _random,
}
#: Method -> its environment (`benchmarks.environments`), if not the main one.
ENVIRONMENTS: Mapping[str, str] = {name: "syne" for name in METHODS if name.startswith("syne-")}
