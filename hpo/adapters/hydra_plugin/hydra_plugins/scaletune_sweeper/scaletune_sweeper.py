"""`hydra/sweeper=scaletune`: Hydra imports this at every start, so it imports nothing heavy."""

from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


@dataclass
class ScaleTuneSweeperConf:
    """Options under `hydra.sweeper`; see `hpo.adapters.hydra.sweep`."""

    _target_: str = "hydra_plugins.scaletune_sweeper.scaletune_sweeper.ScaleTuneSweeper"
    n_trials: int = 20
    n_jobs: int = 1
    direction: str = "minimize"
    cost: str | None = None
    target: dict[str, float] | None = None
    seed: int = 0
    max_failure_rate: float = 1.0
    params: dict[str, str] = field(default_factory=dict)


ConfigStore.instance().store(
    group="hydra/sweeper", name="scaletune", node=ScaleTuneSweeperConf, provider="scaletune"
)


class ScaleTuneSweeper(Sweeper):
    """Hands a sweep to `hpo.adapters.hydra`."""

    def __init__(
        self,
        n_trials: int,
        n_jobs: int,
        direction: str,
        cost: str | None,
        target: DictConfig | None,
        seed: int,
        max_failure_rate: float,
        params: DictConfig,
    ) -> None:
        self._trials, self._jobs = n_trials, n_jobs
        self._direction: Any = direction
        self._cost, self._target, self._seed = cost, target, seed
        self._max_failure_rate = max_failure_rate
        self._params = params
        self.config: DictConfig | None = None
        self.hydra_context: HydraContext | None = None
        self.launcher: Launcher | None = None

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Called by Hydra before `sweep`."""
        self.hydra_context, self.config = hydra_context, config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> None:
        """Run the sweep; its results are in the sweep's folder."""
        from hpo.adapters.hydra import sweep

        assert self.hydra_context is not None
        assert self.config is not None and self.launcher is not None
        sweep(
            arguments,
            params=dict(self._params),
            context=self.hydra_context,
            config=self.config,
            launcher=self.launcher,
            trials=self._trials,
            jobs=self._jobs,
            direction=self._direction,
            cost=self._cost,
            target=None if self._target is None else dict(self._target),
            seed=self._seed,
            max_failure_rate=self._max_failure_rate,
        )
