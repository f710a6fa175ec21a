"""Time and memory of one ask + tell beside Optuna's GPSampler, by number of told trials.

    OMP_NUM_THREADS=1 python -m benchmarks latency

Eight continuous dimensions, everything in memory, one thread. Both methods are first told the same
n random points. Three asks are not timed: in them our three output transforms replay the refits
that a run of n trials would have done before (their time is printed). Then `--asks` consecutive
ask + tell pairs are timed, with the refits that fall on them. Printed are the mean over them and
the peak resident memory of a process that did nothing else. At the largest n only ours is run.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Sequence

import numpy as np

from hpo import Float, Optimizer
from hpo.space import Parameter

DIMENSIONS = 8
WARM_UP = 3
SPACE: dict[str, Parameter] = {f"x{i}": Float(0.0, 1.0) for i in range(DIMENSIONS)}


def loss(config: dict[str, float]) -> float:
    """Return a smooth function with an optimum inside and mild interactions."""
    x = np.array([config[f"x{i}"] for i in range(DIMENSIONS)])
    return float(np.sum((x - 0.3) ** 2) + 0.2 * np.sin(5.0 * x[0]) * x[1])


def points(n: int) -> list[dict[str, float]]:
    """Draw `n` uniform configs, the same ones on every call."""
    rows = np.random.default_rng(0).random((n, DIMENSIONS))
    return [{f"x{i}": float(v) for i, v in enumerate(row)} for row in rows]


def time_scaletune(n: int, asks: int) -> list[float]:
    """Return the seconds of each of `asks` pairs of ask and tell after `n` told trials."""
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
    """Return the same for Optuna's GPSampler."""
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
    """Return mean seconds and peak MiB, measured in a fresh process."""
    command = [sys.executable, "-m", "benchmarks", "latency", "--one", method, str(n), str(asks)]
    threads = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=threads, stdout=subprocess.PIPE, text=True, check=True)
    seconds, memory = answer.stdout.split()
    return float(seconds), float(memory)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks latency`."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[20, 50, 100, 200, 500, 1000])
    parser.add_argument("--largest", type=int, default=10_000, help="ours only; 0 for none")
    parser.add_argument("--asks", type=int, default=20)
    parser.add_argument("--one", nargs=3, metavar=("METHOD", "N", "ASKS"), help=argparse.SUPPRESS)
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    if given.one:
        method, n, asks = given.one
        _print_one(method, int(n), int(asks))
    else:
        _print_table(given.sizes, given.largest, given.asks)
    return 0


def _print_one(method: str, n: int, asks: int) -> None:
    seconds = METHODS[method](n, asks)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(float(np.mean(seconds)), peak)


def _print_table(sizes: Sequence[int], largest: int, asks: int) -> None:
    print(f"{'n':>6} {'scaletune ms':>13} {'optuna-gp ms':>13} {'ratio':>6} {'MiB':>6} {'MiB':>6}")
    for n in sizes:
        ours, our_memory = measure("scaletune", n, asks)
        theirs, their_memory = measure("optuna-gp", n, asks)
        print(
            f"{n:6d} {1e3 * ours:13.1f} {1e3 * theirs:13.1f} {theirs / ours:6.1f}"
            f" {our_memory:6.0f} {their_memory:6.0f}"
        )
    if largest:
        ours, memory = measure("scaletune", largest, asks)
        print(f"{largest:6d} {1e3 * ours:13.1f} {'':13} {'':6} {memory:6.0f}")
