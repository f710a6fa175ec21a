"""Seconds for one ask + tell against Optuna's GPSampler, by number of told trials, with memory.

    OMP_NUM_THREADS=1 python -m benchmarks.latency

Eight continuous dimensions, everything in memory, one thread. Both methods are first told the same
n random points. Three asks go untimed: in them our three output transforms replay the refits that a
run of n trials would have done on its way (their time is printed). Then `--asks` consecutive
ask + tell pairs are timed, refits wherever they fall. Quoted are the mean over them and the peak
resident memory of a process that did nothing else. At the largest n only ours is run.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time

import numpy as np

from hpo import Float, Optimizer
from hpo.space import Parameter

DIMENSIONS = 8
WARM_UP = 3
SPACE: dict[str, Parameter] = {f"x{i}": Float(0.0, 1.0) for i in range(DIMENSIONS)}


def loss(config: dict[str, float]) -> float:
    """A smooth function with an optimum inside and mild interactions."""
    x = np.array([config[f"x{i}"] for i in range(DIMENSIONS)])
    return float(np.sum((x - 0.3) ** 2) + 0.2 * np.sin(5.0 * x[0]) * x[1])


def points(n: int) -> list[dict[str, float]]:
    rows = np.random.default_rng(0).random((n, DIMENSIONS))
    return [{f"x{i}": float(v) for i, v in enumerate(row)} for row in rows]


def time_scaletune(n: int, asks: int) -> list[float]:
    optimizer = Optimizer(SPACE, seed=0)
    for config in points(n):
        optimizer.tell(config, loss(config))
    first = time.perf_counter()
    for _ in range(WARM_UP):  # each output transform replays the refits of the n told trials once
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.config))
    print(f"  first asks after loading {n}: {time.perf_counter() - first:.2f} s", file=sys.stderr)
    seconds = []
    for _ in range(asks):
        start = time.perf_counter()
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.config))
        seconds.append(time.perf_counter() - start)
    return seconds


def time_optuna(n: int, asks: int) -> list[float]:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in SPACE
    }
    study = optuna.create_study(sampler=optuna.samplers.GPSampler(seed=0))
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=config, distributions=distributions, value=loss(config)
            )
            for config in points(n)
        ]
    )
    seconds = []
    for _ in range(asks + WARM_UP):
        start = time.perf_counter()
        trial = study.ask(distributions)
        study.tell(trial, loss(trial.params))
        seconds.append(time.perf_counter() - start)
    return seconds[WARM_UP:]


METHODS = {"scaletune": time_scaletune, "optuna-gp": time_optuna}


def measure(method: str, n: int, asks: int) -> tuple[float, float]:
    """Mean seconds and peak MiB, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.latency", "--one", method, str(n), str(asks)]
    threads = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=threads, stdout=subprocess.PIPE, text=True, check=True)
    seconds, memory = answer.stdout.split()
    return float(seconds), float(memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 100, 200, 500, 1000])
    parser.add_argument("--largest", type=int, default=10_000, help="ours only; 0 for none")
    parser.add_argument("--asks", type=int, default=20)
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "N", "ASKS"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        method, n, asks = arguments.one
        seconds = METHODS[method](int(n), int(asks))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(float(np.mean(seconds)), peak)
        return
    print(f"{'n':>6} {'scaletune ms':>13} {'optuna-gp ms':>13} {'ratio':>6} {'MiB':>6} {'MiB':>6}")
    for n in arguments.sizes:
        ours, our_memory = measure("scaletune", n, arguments.asks)
        theirs, their_memory = measure("optuna-gp", n, arguments.asks)
        print(
            f"{n:6d} {1e3 * ours:13.1f} {1e3 * theirs:13.1f} {theirs / ours:6.1f}"
            f" {our_memory:6.0f} {their_memory:6.0f}"
        )
    if arguments.largest:
        ours, memory = measure("scaletune", arguments.largest, arguments.asks)
        print(f"{arguments.largest:6d} {1e3 * ours:13.1f} {'':13} {'':6} {memory:6.0f}")


if __name__ == "__main__":
    main()
