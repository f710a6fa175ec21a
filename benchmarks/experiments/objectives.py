"""Hypervolume of several objectives on two small problems, against random search and Optuna.

    OMP_NUM_THREADS=1 python -m benchmarks objectives [--trials 60] [--seeds 5]    # 20 minutes

Branin-Currin has two objectives over two settings; the disc brake has two over four settings and
four constraints (Tanabe & Ishibuchi 2020). Both are those of BoTorch's test functions, with its
reference points. A row is the mean volume that the feasible trials of a study dominate, as a share
of the largest volume that any study of the problem reached after all its trials, with the lowest
and highest seed. "sampler" is this engine inside Optuna (`ScaleTuneSampler`).
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
from collections.abc import Iterator, Sequence

import numpy as np
import optuna
from numpy.typing import NDArray

from benchmarks.markdown import table_head, table_row
from hpo import Float, Optimizer

Array = NDArray[np.float64]
Run = tuple[list[float], list[float]]  # objectives, and how much each constraint is exceeded

PROBLEMS = ("BraninCurrin", "DiscBrake")
_SHOWN = (1 / 3, 2 / 3, 1.0)  # of the trials, where the volume is taken


class Problem:
    """One of BoTorch's test problems, minimized.

    Args:
        name: Name of its class.
    """

    def __init__(self, name: str) -> None:
        from botorch.test_functions import multi_objective

        self._inner = getattr(multi_objective, name)()
        self.bounds = self._inner.bounds.numpy().T
        self.objectives = int(self._inner.num_objectives)
        self.constraints = int(getattr(self._inner, "num_constraints", 0))
        self._reference = np.array(self._inner._ref_point, dtype=np.float64)

    def __call__(self, row: Sequence[float]) -> Run:
        """Return the objectives of a row, and how much each constraint is exceeded (<= 0: kept)."""
        import torch

        X = torch.tensor([row], dtype=torch.float64)
        slack = self._inner.evaluate_slack_true(X)[0].tolist() if self.constraints else []
        return self._inner.evaluate_true(X)[0].tolist(), [-value for value in slack]

    def volume(self, runs: Sequence[Run]) -> float:
        """Return the volume that the feasible runs dominate."""
        import torch
        from botorch.utils.multi_objective.hypervolume import Hypervolume

        feasible = [values for values, excess in runs if all(each <= 0 for each in excess)]
        points = -np.array(feasible).reshape(-1, self.objectives)
        points = points[np.all(points > -self._reference, axis=1)]
        if not len(points):
            return 0.0
        from botorch.utils.multi_objective.pareto import is_non_dominated

        found = torch.tensor(points)
        front = found[is_non_dominated(found)]
        return float(Hypervolume(torch.tensor(-self._reference)).compute(front))


def scaletune(problem: Problem, trials: int, seed: int) -> list[Run]:
    """Return the runs of one study of the optimizer."""
    names = [f"f{k}" for k in range(problem.objectives)]
    limits = [f"g{k}" for k in range(problem.constraints)]
    optimizer = Optimizer(
        {f"x{k}": Float(low, high) for k, (low, high) in enumerate(problem.bounds.tolist())},
        objectives=dict.fromkeys(names, "minimize"),
        constraints={name: ("<=", 0.0) for name in limits} or None,
        seed=seed,
    )
    runs = []
    for _ in range(trials):
        trial = optimizer.ask()
        values, excess = problem([trial.config[f"x{k}"] for k in range(len(problem.bounds))])
        told = dict(zip([*names[1:], *limits], [*values[1:], *excess], strict=True))
        optimizer.tell(trial, values[0], metrics=told)
        runs.append((values, excess))
    return runs


def _optuna_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "NSGA-II":
        return optuna.samplers.NSGAIISampler(population_size=10, seed=seed)
    if name == "TPE":
        return optuna.samplers.TPESampler(multivariate=True, seed=seed)
    return optuna.samplers.RandomSampler(seed=seed)


def in_optuna(name: str, problem: Problem, trials: int, seed: int) -> list[Run]:
    """Return the runs of one study of Optuna."""
    if name == "sampler":
        from hpo.adapters.optuna import ScaleTuneSampler

        sampler: optuna.samplers.BaseSampler = ScaleTuneSampler(seed=seed)
    else:
        sampler = _optuna_sampler(name, seed)
    study = optuna.create_study(directions=["minimize"] * problem.objectives, sampler=sampler)
    runs = []

    def objective(trial: optuna.Trial) -> tuple[float, ...]:
        bounds = enumerate(problem.bounds.tolist())
        values, excess = problem([trial.suggest_float(f"x{k}", *ends) for k, ends in bounds])
        for k, value in enumerate(excess):
            trial.set_constraint(f"g{k}", value)
        runs.append((values, excess))
        return tuple(values)

    study.optimize(objective, n_trials=trials)
    return runs


METHODS = ("scaletune", "sampler", "NSGA-II", "TPE", "random")


def table(
    problems: Sequence[str], methods: Sequence[str], trials: int, seeds: int
) -> Iterator[str]:
    """Yield the lines of a Markdown table, a problem's once it is measured."""
    shown = [max(1, round(share * trials)) for share in _SHOWN]
    yield from table_head(
        ["problem", "method", *(f"after {n}" for n in shown), "lowest, highest", "s a study"]
    )
    for name in problems:
        problem = Problem(name)
        volumes: dict[str, Array] = {}
        seconds: dict[str, float] = {}
        for method in methods:
            began = time.perf_counter()
            found = []
            for seed in range(seeds):
                if method == "scaletune":
                    runs = scaletune(problem, trials, seed)
                else:
                    runs = in_optuna(method, problem, trials, seed)
                found.append([problem.volume(runs[:n]) for n in shown])
            volumes[method] = np.array(found)
            seconds[method] = (time.perf_counter() - began) / seeds
            print(f"{name}, {method}: {seconds[method]:.0f} s a study", file=sys.stderr)
        largest = max(float(each[:, -1].max()) for each in volumes.values())
        for method, each in volumes.items():
            share = each / largest
            ends = f"{share[:, -1].min():.3f}, {share[:, -1].max():.3f}"
            means = [f"{mean:.3f}" for mean in share.mean(axis=0)]
            yield table_row([name, method, *means, ends, f"{seconds[method]:.1f}"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks objectives`."""
    parser.add_argument("problems", nargs="*", metavar="PROBLEM", help=", ".join(PROBLEMS))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seeds", type=int, default=5)
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    if unknown := set(given.problems) - set(PROBLEMS):
        raise ValueError(
            f"`PROBLEM` must be one of {list(PROBLEMS)}, got {', '.join(sorted(unknown))}"
        )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("hpo").setLevel(logging.ERROR)
    for line in table(given.problems or PROBLEMS, given.methods, given.trials, given.seeds):
        print(line, flush=True)
    return 0
