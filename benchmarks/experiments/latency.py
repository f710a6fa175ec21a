"""Time and memory of one ask + tell beside Optuna's GPSampler, by number of told trials.

    OMP_NUM_THREADS=1 python -m benchmarks latency

Eight continuous dimensions, everything in memory, one thread. Both methods are first told the same
n random points. The first three asks after that are timed apart: in them each of our three output
transforms is fitted to the n points. Then `--asks` consecutive ask + tell pairs are timed, with the
refits that fall on them. Printed are the mean and the median over them, the ratio of the medians,
and the peak resident memory of a process that did nothing else. Seconds are those of the processor.
A small study that is not timed loads what is imported on first use. At the largest n only ours is
run.
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from hpo import Float, Optimizer
from hpo.space import Parameter

DIMENSIONS = 8
WARM_UP = 3
IMPORTED_BY = 200  # told trials after which an ask uses every model, so that all is imported
Pair = Callable[[], None]  # one ask and one tell
SPACE: dict[str, Parameter] = {f"x{i}": Float(0.0, 1.0) for i in range(DIMENSIONS)}


def loss(config: dict[str, float]) -> float:
    """Return a smooth function with an optimum inside and mild interactions."""
    x = np.array([config[f"x{i}"] for i in range(DIMENSIONS)])
    return float(np.sum((x - 0.3) ** 2) + 0.2 * np.sin(5.0 * x[0]) * x[1])


def points(n: int) -> list[dict[str, float]]:
    """Draw `n` uniform configs, the same ones on every call."""
    rows = np.random.default_rng(0).random((n, DIMENSIONS))
    return [{f"x{i}": float(v) for i, v in enumerate(row)} for row in rows]


def scaletune(n: int) -> Pair:
    """Return our ask + tell after `n` told trials."""
    optimizer = Optimizer(SPACE, seed=0)
    for config in points(n):
        optimizer.tell(config, loss(config))

    def pair() -> None:
        trial = optimizer.ask()
        optimizer.tell(trial, loss(trial.config))

    return pair


def optuna_gp(n: int) -> Pair:
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

    def pair() -> None:
        trial = study.ask(distributions)
        study.tell(trial, loss(trial.params))

    return pair


METHODS: dict[str, Callable[[int], Pair]] = {"scaletune": scaletune, "optuna-gp": optuna_gp}


def seconds_of(pair: Pair) -> float:
    """Return the processor seconds of one ask + tell."""
    start = time.process_time()
    pair()
    return time.process_time() - start


@dataclass(frozen=True)
class Measured:
    """What one process measured.

    Attributes:
        mean: Mean seconds of an ask + tell.
        median: Median of them.
        first: Seconds of the first `WARM_UP` of them after the points were told.
        memory: Peak resident memory in MiB.
    """

    mean: float
    median: float
    first: float
    memory: float


def measure(method: str, n: int, asks: int) -> Measured:
    """Return what a fresh process measures."""
    command = [sys.executable, "-m", "benchmarks", "latency", "--one", method, str(n), str(asks)]
    threads = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    answer = subprocess.run(command, env=threads, stdout=subprocess.PIPE, text=True, check=True)
    return Measured(*map(float, answer.stdout.split()))


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
    warm = METHODS[method](IMPORTED_BY)
    for _ in range(WARM_UP):
        warm()
    pair = METHODS[method](n)
    first = sum(seconds_of(pair) for _ in range(WARM_UP))
    seconds = [seconds_of(pair) for _ in range(asks)]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(float(np.mean(seconds)), float(np.median(seconds)), first, peak)


def _print_table(sizes: Sequence[int], largest: int, asks: int) -> None:
    print(f"{'':6} {'scaletune, ms':>30} {'optuna-gp, ms':>21} {'':6} {'MiB':>11}")
    print(
        f"{'n':>6} {'mean':>10} {'median':>9} {'first 3':>9} {'mean':>11} {'median':>9}"
        f" {'ratio':>6} {'ours':>5} {'its':>5}"
    )
    for n in [*sizes, largest] if largest else sizes:
        ours = measure("scaletune", n, asks)
        row = f"{n:6d} {1e3 * ours.mean:10.1f} {1e3 * ours.median:9.1f} {1e3 * ours.first:9.0f}"
        if n == largest:
            print(f"{row} {'':11} {'':9} {'':6} {ours.memory:5.0f}")
            continue
        theirs = measure("optuna-gp", n, asks)
        print(
            f"{row} {1e3 * theirs.mean:11.1f} {1e3 * theirs.median:9.1f}"
            f" {theirs.median / ours.median:6.1f} {ours.memory:5.0f} {theirs.memory:5.0f}",
            flush=True,
        )
