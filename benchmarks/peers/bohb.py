"""The original BOHB, from HpBandSter: kernel densities choose configs for Hyperband's brackets.

HpBandSter's own master communicates with workers over a network; here its parts are combined as
its master does, without a network: `get_next_iteration` opens a bracket if no open one has a run,
and results go first to the bracket, then to the config generator. Budgets are floats, rounded to
whole levels. Failed runs are told as such: the generator counts them as bad, and the bracket
drops them. It draws from the process-wide generators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.base import Checkpoints, Job, Unsupported
from benchmarks.peers.seeding import seeded
from benchmarks.peers.spaces import CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from ConfigSpace import ConfigurationSpace
    from hpbandster.optimizers.config_generators.bohb import BOHB
    from hpbandster.optimizers.iterations import SuccessiveHalving

_ETA = 3  # HpBandSter's default


@dataclass(frozen=True, slots=True)
class _Run:
    """One run as HpBandSter knows it; `id` holds the bracket's index first."""

    id: tuple[int, int, int]
    codes: dict[str, Any]
    budget: float


class BohbPeer:
    """Successive brackets; while a bracket waits for its rung, the next one opens."""

    def __init__(
        self, generator: BOHB, translation: Translation, low: int, high: int, seed: int
    ) -> None:
        self._generator = generator
        self._translation = translation
        self._seed = seed
        self._asked = 0
        self._count = -int(np.log(low / high) / np.log(_ETA)) + 1
        self._budgets = high * np.power(float(_ETA), -np.linspace(self._count - 1, 0, self._count))
        self._brackets: list[SuccessiveHalving] = []
        self._checkpoints = Checkpoints()
        self._running: dict[int, _Run] = {}

    def ask(self) -> Job | None:
        with seeded(self._seed, self._asked):
            run = self._next_run()
        self._asked += 1
        config = self._translation.config(run.codes)
        job = self._checkpoints.job(run.id, config, round(run.budget))
        self._running[job.number] = run
        return job

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        run = self._running.pop(job.number, None)
        if run is None:
            return  # a start point: a bracket takes results of its own configs only
        self._checkpoints.finished(run.id, job, evaluation)
        told = _told(run, evaluation)
        with seeded(self._seed, 2**32 + self._asked):
            self._brackets[run.id[0]].register_result(told)
            self._generator.new_result(told)

    def _next_run(self) -> _Run:
        while True:
            for bracket in self._brackets:
                run = None if bracket.is_finished else bracket.get_next_run()
                if run is not None:
                    return _Run(run[0], run[1], float(run[2]))
            self._brackets.append(self._bracket(len(self._brackets)))

    def _bracket(self, index: int) -> SuccessiveHalving:
        """Bracket `index`, sized as `hpbandster.optimizers.BOHB.get_next_iteration` does."""
        from hpbandster.optimizers.iterations import SuccessiveHalving

        rungs = self._count - index % self._count
        first = int(self._count // rungs * _ETA ** (rungs - 1))
        return SuccessiveHalving(
            HPB_iter=index,
            num_configs=[max(first // _ETA**rung, 1) for rung in range(rungs)],
            budgets=self._budgets[-rungs:],
            config_sampler=self._generator.get_config,
        )


def make(task: Task, *, seed: int, trials: int) -> BohbPeer:
    """See `benchmarks.peers`."""
    from hpbandster.optimizers.config_generators.bohb import BOHB

    if task.levels is None:
        raise Unsupported(f"BOHB needs a fidelity, and {task.name} has no levels")
    translation = Translation(task.space, peer="BOHB", conditional=True)
    generator = BOHB(configspace=_config_space(translation, seed))
    return BohbPeer(generator, translation, task.levels.low, task.levels.high, seed)


def _config_space(translation: Translation, seed: int) -> ConfigurationSpace:
    """As `benchmarks.peers.configspace`, for the older release that HpBandSter needs."""
    from ConfigSpace import (
        CategoricalHyperparameter,
        ConfigurationSpace,
        InCondition,
        UniformFloatHyperparameter,
        UniformIntegerHyperparameter,
    )

    space = ConfigurationSpace(seed=seed % 2**31)
    for axis in translation.axes:
        if axis.kind is CodeKind.CATEGORY:
            added = CategoricalHyperparameter(axis.name, list(range(axis.size)))
        elif axis.kind is CodeKind.INTEGER:
            added = UniformIntegerHyperparameter(
                axis.name, int(axis.low), int(axis.high), log=axis.log
            )
        else:
            added = UniformFloatHyperparameter(axis.name, axis.low, axis.high, log=axis.log)
        space.add_hyperparameter(added)
    for axis in translation.axes:
        if axis.parent is not None:
            child, parent = (space.get_hyperparameter(n) for n in (axis.name, axis.parent))
            space.add_condition(InCondition(child, parent, list(axis.values)))
    return space


def _told(run: _Run, evaluation: Evaluation) -> Any:
    from hpbandster.core.dispatcher import Job as Told

    told = Told(run.id, config=run.codes, budget=run.budget)
    told.result = None if evaluation.loss is None else {"loss": evaluation.loss}
    return told
