"""Hydra: a sweep of an application by our sweeper.

    python examples/18_hydra.py

Hydra is told `hydra/sweeper=scaletune` and which values to search, on the command line or, as here,
in the application's `sys.argv`. Install it with `pip install '.[hydra]'` in a clone.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import hydra
from hydra.core.config_store import ConfigStore


@dataclass
class Config:
    """Settings of one training."""

    lr: float = 0.01
    layers: int = 3
    optimizer: str = "adamw"


ConfigStore.instance().store("config", Config)
SWEEP = [
    "--multirun",
    "hydra/sweeper=scaletune",
    "hydra.sweeper.n_trials=12",
    "hydra.sweep.dir=sweep",
    "lr=tag(log, lr, interval(1e-4, 1e-1))",
    "layers=range(2, 9)",
    "optimizer=choice(adamw, lion)",
]


@hydra.main(version_base=None, config_name="config")  # type: ignore[untyped-decorator]
def train(config: Config) -> float:
    """Return a stand-in for a validation loss."""
    worse = 0.0 if config.optimizer == "lion" else 0.3
    return math.log10(config.lr / 3e-3) ** 2 + 0.05 * abs(config.layers - 4) + worse


if __name__ == "__main__":
    sys.argv += SWEEP
    train()
    print(Path("sweep", "optimization_results.yaml").read_text())
