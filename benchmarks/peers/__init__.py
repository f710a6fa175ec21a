"""The methods under comparison, each behind ask and tell, its library imported only when it runs.

Every module here has factories `(task, *, seed, trials) -> Peer`; `PEERS` names them, their
requirements and their environment (`benchmarks.environments`). A peer that cannot run is reported
by `missing` with the reason, never left out silently.
"""

from __future__ import annotations

import functools
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from benchmarks import environments
from benchmarks.peers.base import Job, Peer, Unsupported
from benchmarks.task import Task

__all__ = ["PEERS", "Entry", "Job", "Peer", "Unsupported", "make", "missing"]

PAGE = "docs/appendix/benchmarks_peers.md"


@dataclass(frozen=True, slots=True)
class Entry:
    """Where a peer is found.

    `factory`: "module:function" under `benchmarks.peers`. `environment`: "main" or a name of
    `benchmarks.environments`. `requires`: import names that must be there, beside the project's
    own. `multi_fidelity`: whether it runs only on tasks with levels. `folder`: environment variable
    that names a folder it needs and no registry has (a source checkout, weights).
    """

    factory: str
    environment: str = "main"
    requires: tuple[str, ...] = ()
    multi_fidelity: bool = False
    folder: str | None = None


PEERS: Mapping[str, Entry] = {
    "scaletune": Entry("scaletune:by_trials"),
    "scaletune-cost": Entry("scaletune:by_cost"),
    "scaletune-transfer": Entry("scaletune:by_transfer"),
    "scaletune-gp": Entry("scaletune:by_process"),
    "scaletune-quantile": Entry("scaletune:by_trees"),
    "scaletune-levels": Entry("scaletune_levels:freeze_thaw", multi_fidelity=True),
    "scaletune-asha": Entry("scaletune_levels:asha", multi_fidelity=True),
    "plain-asha": Entry("staged:asha", multi_fidelity=True),
    "plain-hyperband": Entry("staged:hyperband", multi_fidelity=True),
    "random": Entry("random_search:make"),
    "optuna-tpe": Entry("optuna_tpe:make", requires=("optuna",)),
    "optuna-gp": Entry("optuna_gp:make", requires=("optuna", "torch")),
    "smac": Entry("smac:hyperparameter_optimization", "smac", ("smac",)),
    "smac-bb": Entry("smac:black_box", "smac", ("smac",)),
    "botorch": Entry("botorch_qlogei:make", requires=("botorch",)),
    "syne-cqr": Entry("syne_tune:cqr", "syne", ("syne_tune", "xgboost")),
    "asha": Entry("syne_tune:asha", "syne", ("syne_tune", "xgboost"), multi_fidelity=True),
    "asha-cqr": Entry("syne_tune:asha_cqr", "syne", ("syne_tune", "xgboost"), multi_fidelity=True),
    "syne-bohb": Entry("syne_tune:bohb", "syne", ("syne_tune", "statsmodels"), multi_fidelity=True),
    "hyperband": Entry("hyperband:random", requires=("optuna",), multi_fidelity=True),
    "tpe-hyperband": Entry("hyperband:tpe", requires=("optuna",), multi_fidelity=True),
    "one-epoch": Entry("one_epoch:make", multi_fidelity=True),
    "hebo": Entry("hebo:make", "bo", ("hebo",)),
    "ax": Entry("ax:make", "bo", ("ax",)),
    "bohb": Entry("bohb:make", "bohb", ("hpbandster", "ConfigSpace"), multi_fidelity=True),
    "neps-priorband": Entry("neps:priorband", "neps", ("neps",), multi_fidelity=True),
    "neps-ifbo": Entry(
        "neps:ifbo", "neps", ("neps", "ifbo"), multi_fidelity=True, folder="SCALETUNE_IFBO"
    ),
    "carbs": Entry("carbs:make", "carbs", ("pyro", "wandb"), folder="SCALETUNE_CARBS"),
    "dehb": Entry("dehb:make", "smac", ("dehb",), multi_fidelity=True),
}


def missing(name: str) -> str | None:
    """Return why peer `name` cannot run here, with the way out; None if it can.

    Looks into the peer's own environment, so it may start an interpreter (once per environment).

    Raises:
        ValueError: for an unknown name.
    """
    entry = _entry(name)
    if entry.folder is not None:
        named = os.environ.get(entry.folder)
        if not named:
            return f"{entry.folder} is not set; {PAGE} says which folder it names"
        if not Path(named).is_dir():
            return f"{entry.folder}={named} is no folder; {PAGE} says which one it names"
    if not environments.is_made(entry.environment):
        return (
            f"environment {entry.environment} is not made; run `python -m benchmarks env"
            f" {entry.environment}`"
        )
    absent = [module for module in entry.requires if not _importable(entry.environment, module)]
    if absent:
        way_out = (
            "pip install -e '.[bench]'"
            if entry.environment == "main"
            else f"python -m benchmarks env {entry.environment}"
        )
        return f"{', '.join(absent)} is not installed in {entry.environment}; run `{way_out}`"
    return None


def make(name: str, task: Task, *, seed: int, trials: int) -> Peer:
    """Make peer `name` on `task`, in this interpreter.

    Args:
        name: name in `PEERS`.
        task: task to tune.
        seed: seed of the method.
        trials: full trainings it will get, on which some methods' defaults depend.

    Raises:
        Unsupported: if it cannot search this task.
        ImportError: if it is not installed here.
    """
    entry = _entry(name)
    if entry.multi_fidelity and task.levels is None:
        raise Unsupported(f"{name} needs a fidelity, and {task.name} has no levels")
    module, _, function = entry.factory.partition(":")
    factory = cast(
        Callable[..., Peer], getattr(import_module(f"benchmarks.peers.{module}"), function)
    )
    return factory(task, seed=seed, trials=trials)


def _entry(name: str) -> Entry:
    if name not in PEERS:
        raise ValueError(f"a peer is one of {list(PEERS)}, got {name!r}")
    return PEERS[name]


@functools.cache
def _importable(environment: str, module: str) -> bool:
    python = environments.python(environment)
    if python == Path(sys.executable):
        return find_spec(module) is not None
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
