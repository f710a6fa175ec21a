"""Coverage and error of learning-curve extrapolation on recorded curves.

    OMP_NUM_THREADS=1 python -m benchmarks curves [GROUP ...]    # under a minute each, alone;
                                                                 # bank, lcbench-design, lcbench

A study is 27 runs in the state that successive halving leaves them in: 18 stopped after a ninth of
their levels, 6 after a third, 3 complete. From it the model learns what runs share. Then runs that
are not in the study are shown up to 10, 20 and 50 % of their last level, and their last report is
predicted. Compared are the last value seen and a power law `a + b t^-c` fitted to the run by least
squares with a, b >= 0. Runs that diverge before their end are not predicted; in a study they count
up to where they diverged.

Coverage is that of the 90 % interval. A row is the mean over the tasks of a group, with the lowest
and highest task. Errors are absolute, in the units of the loss, of the median; "wins" counts the
tasks on which ours is below both others.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.markdown import table_head, table_row
from benchmarks.simulate import draw
from benchmarks.tasks import SUITES, load
from benchmarks.tasks.curve_bank import read_bank
from surrogates.learning_curves import Curve, CurveModel, CurvePredictor

Array = NDArray[np.float64]

SHARES = (0.1, 0.2, 0.5)
STUDY = 27
RUNS = 127  # drawn of each LCBench instance
TESTED = 40  # at most, of each study
STUDIES = {"bank": 5, "lcbench-design": 2, "lcbench": 2}  # the bank has few runs
_EXPONENTS = np.geomspace(0.05, 5.0, 25)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Curves of one task: `levels` `(k,)`, `losses` runs x k, NaN after a divergence."""

    name: str
    levels: Array
    losses: Array


def recorded(group: str) -> Iterator[Recorded]:
    """Yield the tasks of a group."""
    if group == "bank":
        for workload, table in read_bank().tables.items():
            for parameters, losses in zip(table.parameters, table.loss, strict=True):
                levels = np.arange(1.0, losses.shape[1] + 1.0)
                yield Recorded(f"{workload}-{parameters}", levels, losses.astype(np.float64))
        return
    for name in SUITES[group]:
        task = load(name)
        rng = np.random.default_rng(0)
        curves = [task.evaluate(draw(task.space, rng), None, rng).curve for _ in range(RUNS)]
        levels = np.array([float(point.level) for point in curves[0]])
        losses = np.array([[point.loss for point in curve] for curve in curves])
        yield Recorded(name, levels, losses)


def studied(task: Recorded, rows: NDArray[np.intp]) -> list[Curve]:
    """Return the runs of a study, stopped as successive halving with eta = 3 stops them."""
    k = len(task.levels)
    stops = [k // 9] * (2 * STUDY // 3) + [k // 3] * (2 * STUDY // 9) + [k] * (STUDY // 9)
    return [
        Curve(task.levels[:stop], task.losses[row, :stop])
        for row, stop in zip(rows, stops, strict=True)
    ]


def power_law(levels: Array, values: Array, end: float) -> float:
    """Return `a + b t^-c` at `end`, by least squares over a, b >= 0 and a grid of c."""
    fits = []
    for c in _EXPONENTS:
        coefficients, misfit = nnls(np.stack([np.ones_like(levels), levels**-c], axis=1), values)
        fits.append((misfit, float(coefficients @ [1.0, end**-c])))
    return min(fits)[1]


def measure(task: Recorded, studies: int) -> Mapping[float, Array]:
    """Average over `studies` studies and the runs outside of each.

    Returns:
        For each share of the curve: coverage, width, and the absolute errors of ours, of the last
        value and of the power law, `(5,)`.
    """
    rows: dict[float, list[tuple[float, ...]]] = {share: [] for share in SHARES}
    for study in range(studies):
        seed = zlib.crc32(task.name.encode())  # studies of unlike tasks share no choice of runs
        order = np.random.default_rng([seed, study]).permutation(len(task.losses))
        model = CurveModel(task.levels[0], task.levels[-1])
        predictor = model.fit(studied(task, order[:STUDY]))
        others = [row for row in order[STUDY:] if np.all(np.isfinite(task.losses[row]))]
        for row, share in product(others[:TESTED], SHARES):
            rows[share].append(_errors(predictor, task.levels, task.losses[row], share))
    return {share: np.mean(found, axis=0) for share, found in rows.items()}


def _errors(
    predictor: CurvePredictor, levels: Array, losses: Array, share: float
) -> tuple[float, ...]:
    """Predict the last loss of one run from the given share of its levels."""
    end, truth = levels[-1], losses[-1]
    k = int(np.searchsorted(levels, round(share * end), "right"))
    belief = predictor.predict(Curve(levels[:k], losses[:k]), end)
    low, middle, high = (belief.quantile(p)[0] for p in (0.05, 0.5, 0.95))
    return (
        float(low <= truth <= high),
        high - low,
        abs(middle - truth),
        abs(losses[k - 1] - truth),
        abs(power_law(levels[:k], losses[:k], end) - truth),
    )


def table(groups: Sequence[str]) -> Iterator[str]:
    """Yield the lines of a Markdown table, a group's as soon as it is measured."""
    columns = ("coverage (lowest, highest)", "width", "ours", "last value", "power law", "wins")
    yield from table_head(["curves", "seen", *columns])
    for group in groups:
        start = time.perf_counter()
        found = {task.name: measure(task, STUDIES[group]) for task in recorded(group)}
        for share in SHARES:
            by_task = np.array([shares[share] for shares in found.values()])
            inside, width, ours, last, law = by_task.mean(axis=0)
            spread = f"{100 * by_task[:, 0].min():.0f}, {100 * by_task[:, 0].max():.0f}"
            wins = int(np.sum(by_task[:, 2] < by_task[:, 3:].min(axis=1)))
            errors = (f"{error:.4f}" for error in (ours, last, law))
            first = (f"{group} ({len(found)})", f"{100 * share:.0f} %")
            covered = f"{100 * inside:.1f} % ({spread})"
            yield table_row([*first, covered, f"{width:.3f}", *errors, wins])
        print(f"{group}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks curves`."""
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(STUDIES))
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    if unknown := set(given.groups) - set(STUDIES):
        raise ValueError(
            f"`GROUP` must be one of {list(STUDIES)}, got {', '.join(sorted(unknown))}"
        )
    for line in table(given.groups or list(STUDIES)):
        print(line, flush=True)
    return 0
