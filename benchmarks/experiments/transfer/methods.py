"""The methods of the comparison, each with the runs of other tasks at hand.

* `scaletune`: `Optimizer(other_tasks=...)`. `scaletune-alone`: the same without other tasks.
* `optuna-tpe`, `optuna-gp`: Optuna's samplers after the best config of each other task was
  enqueued, in the order of the tasks.
* `rgpe`: :mod:`benchmarks.experiments.transfer.rgpe`.
* `syne-box`, `syne-zero-shot`, `syne-quantile`: Syne Tune's `BoundingBox` around random search,
  as in its documentation, `ZeroShotTransfer(use_surrogates=True)` and
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
_SYNE_CANDIDATES = 100_000

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


def _of_whole_numbers(domain: Any) -> Any:
    """Return a choice among NumPy's integers, which its checks refuse, as one among Python's."""
    from syne_tune.config_space import Categorical, choice

    if not isinstance(domain, Categorical):
        return domain
    return choice([int(category) for category in domain.categories])


def _syne(kind: str) -> Make:
    def make(task: Task, histories: Mapping[str, Runs], seed: int) -> Peer:
        import pandas as pd
        from syne_tune.optimizer.baselines import RandomSearch
        from syne_tune.optimizer.schedulers import single_objective_scheduler
        from syne_tune.optimizer.schedulers.transfer_learning import (
            bounding_box,
            transfer_learning_task_evaluation,
            zero_shot,
        )
        from syne_tune.optimizer.schedulers.transfer_learning.quantile_based import (
            quantile_based_searcher,
        )

        silence()
        translation = Translation(task.space, peer="Syne Tune")
        space = domains(translation)
        evaluations = {
            name: transfer_learning_task_evaluation.TransferLearningTaskEvaluations(
                space,
                pd.DataFrame([translation.codes(config) for config, _ in runs]),
                [_LOSS],
                np.array([loss for _, loss in runs])[:, None, None, None],
            )
            for name, runs in histories.items()
        }
        given: dict[str, Any] = {"random_seed": seed}
        if kind == "box":
            scheduler = bounding_box.BoundingBox(
                lambda box, metric, minimize, number: RandomSearch(
                    {name: _of_whole_numbers(domain) for name, domain in box.items()},
                    metrics=[metric],
                    do_minimize=minimize,
                    random_seed=number,
                ),
                space,
                _LOSS,
                evaluations,
                **given,
            )
        elif kind == "zero-shot":

            class ZeroShot(zero_shot.ZeroShotTransfer):  # type: ignore[misc]
                """With the generator that 0.16.0 uses before it has made it."""

                random_state = np.random.RandomState(seed)

            scheduler = ZeroShot(space, _LOSS, evaluations, use_surrogates=True, **given)
        else:

            class Quantile(quantile_based_searcher.QuantileBasedSurrogateSearcher):  # type: ignore[misc]
                """With its 100,000 candidates drawn column by column, which is quicker."""

                def _sample_random_config(self) -> dict[str, Any]:
                    if not hasattr(self, "rows"):
                        columns = [
                            domain.sample(size=_SYNE_CANDIDATES, random_state=self.random_state)
                            for domain in self.config_space.values()
                        ]
                        self.rows = zip(*columns, strict=True)
                    return dict(zip(self.config_space, next(self.rows), strict=True))

            searcher = Quantile(space, evaluations, **given)
            scheduler = single_objective_scheduler.SingleObjectiveScheduler(
                space, _LOSS, searcher=searcher, **given
            )
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
