"""Whether a search that ends by its expected regret has found what it says.

    OMP_NUM_THREADS=1 python -m benchmarks stopping [TASK ...] [--seed 1] [--trials 60]    # minutes

Each task is searched once to the last trial, without stopping. From the start on, after every
second trial, the expected regret (`result.expected_regret`) is compared with tolerances, in shares
of the spread of random configs: the median loss of 200 of them minus the best known one. A study
stops at the first count at which the expected regret is within the tolerance. A row has how many
studies stopped, in how many of them the true regret of the believed best was within the tolerance,
the median number of trials, and the largest true regret at a stop, in tolerances.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.markdown import table_head, table_row
from benchmarks.simulate import draw
from benchmarks.tasks import load
from hpo import Optimizer

#: Tasks that the rule was chosen on; all are among those of the engine's design.
TASKS = (
    *(f"lcbench/{instance}" for instance in ("3945", "167168", "189873", "189906")),
    *(f"synthetic/{name}-{k}" for name in ("branin", "hartmann6", "mixed") for k in (0, 1)),
    "synthetic/ellipsoid6-0",
    "synthetic/mixed-0+noise=0.02",
)
TOLERANCES = (0.01, 0.03, 0.1)
_RANDOM = 200


@dataclass(frozen=True, slots=True)
class Count:
    """Regret after a number of trials, in shares of the spread of random configs."""

    trials: int
    expected: float
    true: float


def searched(name: str, trials: int, seed: int) -> list[Count]:
    """Return the expected and the true regret along one study."""
    task, rng = load(name), np.random.default_rng(seed)
    drawn = [task.evaluate(draw(task.space, rng), None, rng).loss for _ in range(_RANDOM)]
    losses = [loss for loss in drawn if loss is not None]
    spread = float(np.median(losses)) - task.bounds.best
    optimizer, true, counts = Optimizer(task.space, seed=seed), {}, []
    for i in range(trials):
        trial = optimizer.ask(among=task.pool)
        found = task.evaluate(trial.config, None, rng)
        if found.loss is None:
            optimizer.tell(trial, failed=found.failed)
        else:
            optimizer.tell(trial, found.loss)
            true[trial.number] = found.loss if found.true_loss is None else found.true_loss
        if i % 2 == 0 and (expected := optimizer.expected_regret()) is not None:
            best = optimizer.result().best.number
            regret = (true[best] - task.bounds.best) / spread
            counts.append(Count(i + 1, expected / spread, regret))
    return counts


def table(tasks: Sequence[str], trials: int, seed: int) -> Iterator[str]:
    """Yield the lines of a Markdown table."""
    studies = []
    for name in tasks:
        studies.append(searched(name, trials, seed))
        print(name, file=sys.stderr)
    yield from table_head(["tolerance", "stopped", "within it", "trials", "largest regret"])
    for tolerance in TOLERANCES:
        stops = [
            next((count for count in study if count.expected <= tolerance), None)
            for study in studies
        ]
        ended = [count for count in stops if count is not None]
        within = sum(count.true <= tolerance for count in ended)
        largest = max((count.true / tolerance for count in ended), default=float("nan"))
        at = float(np.median([count.trials for count in ended])) if ended else float("nan")
        row = [f"{tolerance:g}", f"{len(ended)} of {len(studies)}", within, f"{at:.0f}"]
        yield table_row([*row, f"{largest:.1f}"])


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks stopping`."""
    parser.add_argument("tasks", nargs="*", metavar="TASK", help="by default those of the design")
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    for line in table(given.tasks or TASKS, given.trials, given.seed):
        print(line, flush=True)
    return 0
