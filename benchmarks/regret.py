"""Regret on synthetic functions against Optuna's GPSampler, seed by seed.

    OMP_NUM_THREADS=1 python -m benchmarks.regret --seeds 20 --trials 100 --out regret.csv

Both methods see the same functions under the same seeds with their own defaults. The figure is the
geometric mean over functions of the ratio of median regrets (ours over theirs), with a paired
bootstrap over seeds; regrets are floored at 1e-4 of the function's spread. Rows already in the
output file are not run again. Install the extra `bench`: with greenlet, which it names, Optuna's
sampler is faster.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.tasks.synthetic import PROBLEMS, Problem
from hpo import Optimizer, SearchSpace

FLOOR = 1e-4
_BOOTSTRAPS = 2000
Row = tuple[str, str, int, int]


def run_scaletune(problem: Problem, trials: int, seed: int) -> list[float]:
    """Losses in the order of the trials."""
    optimizer = Optimizer(problem.space, seed=seed)
    losses = []
    for _ in range(trials):
        trial = optimizer.ask()
        losses.append(problem.evaluate(trial.config))
        optimizer.tell(trial, losses[-1])
    return losses


def run_optuna_gp(problem: Problem, trials: int, seed: int) -> list[float]:
    """Losses in the order of the trials, Optuna's GPSampler with its defaults."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = SearchSpace(problem.space)
    distributions = space.distributions(Optimizer(space).ask().config, {})
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=seed))
    losses = []
    for _ in range(trials):
        trial = study.ask(distributions)
        losses.append(problem.evaluate(trial.params))
        study.tell(trial, losses[-1])
    return losses


METHODS: dict[str, Callable[[Problem, int, int], list[float]]] = {
    "scaletune": run_scaletune,
    "optuna-gp": run_optuna_gp,
}


def run(row: Row) -> tuple[Row, float, float]:
    """Best regret as a share of the spread, and seconds, of one row."""
    method, name, seed, trials = row
    problem = PROBLEMS[name](seed)
    start = time.perf_counter()
    losses = METHODS[method](problem, trials, seed)
    return row, min(losses) / problem.spread, time.perf_counter() - start


def summary(regret: dict[str, NDArray[np.float64]]) -> str:
    """Table and bootstrap from regrets per method, each functions x seeds."""
    ours, theirs = (np.maximum(regret[m], FLOOR) for m in ("scaletune", "optuna-gp"))
    lines = [
        f"{'function':12} {'scaletune':>12} {'optuna-gp':>12} {'ratio':>8}   median regret / spread"
    ]
    for i, name in enumerate(PROBLEMS):
        a, b = np.median(ours[i]), np.median(theirs[i])
        lines.append(f"{name:12} {a:12.2e} {b:12.2e} {a / b:8.2f}")
    rng = np.random.default_rng(0)
    picks = rng.integers(ours.shape[1], size=(_BOOTSTRAPS, ours.shape[1]))
    log_ratios = np.log(np.median(ours[:, picks], axis=2)) - np.log(
        np.median(theirs[:, picks], axis=2)
    )
    low, high = np.exp(np.quantile(log_ratios.mean(axis=0), [0.05, 0.95]))
    point = np.exp(np.mean(np.log(np.median(ours, axis=1)) - np.log(np.median(theirs, axis=1))))
    lines.append(
        f"geometric mean of ratios {point:.3f}, 90 % bootstrap interval {low:.3f} .. {high:.3f}"
    )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--out", type=Path, default=Path("regret.csv"))
    arguments = parser.parse_args()
    done: dict[Row, float] = {}
    if arguments.out.exists():
        with arguments.out.open() as file:
            for method, name, seed, trials, share, _ in csv.reader(file):
                done[method, name, int(seed), int(trials)] = float(share)
    wanted = [
        (method, name, seed, arguments.trials)
        for seed, method, name in product(range(arguments.seeds), arguments.methods, PROBLEMS)
    ]
    with (
        ProcessPoolExecutor(arguments.workers) as pool,
        arguments.out.open("a", newline="") as file,
    ):
        writer = csv.writer(file)
        for row, regret, seconds in pool.map(run, [row for row in wanted if row not in done]):
            done[row] = regret
            writer.writerow([*row, f"{regret:.6e}", f"{seconds:.3f}"])
            file.flush()
    if set(METHODS) <= set(arguments.methods):
        shape = (len(PROBLEMS), arguments.seeds)
        regrets = {
            method: np.array(
                [
                    [done[method, name, seed, arguments.trials] for seed in range(shape[1])]
                    for name in PROBLEMS
                ]
            )
            for method in METHODS
        }
        print(summary(regrets))


if __name__ == "__main__":
    main()
