"""How well is the end of a run foreseen? Coverage and error of curve extrapolation on real curves.

    OMP_NUM_THREADS=1 python -m benchmarks.curves [GROUP ...]    # under a minute each, alone;
                                                                 # bank, lcbench-design, lcbench

A study is 27 runs in the state that successive halving leaves them in: 18 stopped after a ninth of
their levels, 6 after a third, 3 complete. From it the model learns what runs share. Then runs that
are not in the study are shown up to 10, 20 and 50 % of their last level and their last report is
foreseen. Compared are the last value seen and a power law ``a + b t^-c`` fitted to the run by least
squares with a, b >= 0. Runs that diverge before their end are not asked about; in a study they
count as far as they went.

Coverage is that of the 90 % interval. A row is the mean over the tasks of a group, with the lowest
and highest task. Errors are absolute, in the units of the loss, of the median; "wins" counts the
tasks on which ours is below both others.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from benchmarks.simulate import draw
from benchmarks.tasks import SUITES, load
from benchmarks.tasks.curve_bank import read_bank
from surrogates.learning_curves import Curve, CurveModel

Array = NDArray[np.float64]

SHARES = (0.1, 0.2, 0.5)
STUDY = 27
RUNS = 127  # drawn of each LCBench instance
TESTED = 40  # at most, of each study
STUDIES = {"bank": 5, "lcbench-design": 2, "lcbench": 2}  # the bank has few runs
_EXPONENTS = np.geomspace(0.05, 5.0, 25)


@dataclass(frozen=True, slots=True)
class Recorded:
    """Curves of one task: `levels` (k,), `losses` runs x k, NaN after a divergence."""

    name: str
    levels: Array
    losses: Array


def recorded(group: str) -> Iterator[Recorded]:
    """The tasks of a group."""
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
    """Runs of a study, stopped as successive halving with eta = 3 stops them."""
    k = len(task.levels)
    stops = [k // 9] * (2 * STUDY // 3) + [k // 3] * (2 * STUDY // 9) + [k] * (STUDY // 9)
    return [
        Curve(task.levels[:stop], task.losses[row, :stop])
        for row, stop in zip(rows, stops, strict=True)
    ]


def power_law(levels: Array, values: Array, end: float) -> float:
    """``a + b t^-c`` at ``end``, by least squares over a, b >= 0 and a grid of c."""
    fits = []
    for c in _EXPONENTS:
        coefficients, misfit = nnls(np.stack([np.ones_like(levels), levels**-c], axis=1), values)
        fits.append((misfit, float(coefficients @ [1.0, end**-c])))
    return min(fits)[1]


def measure(task: Recorded, studies: int) -> Mapping[float, Array]:
    """For each share of the curve: inside, width, our error, last value's, power law's."""
    rows: dict[float, list[tuple[float, ...]]] = {share: [] for share in SHARES}
    end = task.levels[-1]
    for study in range(studies):
        seed = zlib.crc32(task.name.encode())  # studies of unlike tasks share no choice of runs
        order = np.random.default_rng([seed, study]).permutation(len(task.losses))
        model = CurveModel(task.levels[0], end)
        predictor = model.fit(studied(task, order[:STUDY]))
        others = [row for row in order[STUDY:] if np.all(np.isfinite(task.losses[row]))]
        for row in others[:TESTED]:
            losses = task.losses[row]
            for share in SHARES:
                k = int(np.searchsorted(task.levels, round(share * end), "right"))
                levels, values = task.levels[:k], losses[:k]
                belief = predictor.predict(Curve(levels, values), end)
                low, middle, high = (belief.quantile(p)[0] for p in (0.05, 0.5, 0.95))
                truth = losses[-1]
                rows[share].append(
                    (
                        float(low <= truth <= high),
                        high - low,
                        abs(middle - truth),
                        abs(losses[k - 1] - truth),
                        abs(power_law(levels, values, end) - truth),
                    )
                )
    return {share: np.mean(found, axis=0) for share, found in rows.items()}


def table(groups: list[str]) -> Iterator[str]:
    """Lines of Markdown."""
    columns = ("coverage (lowest, highest)", "width", "ours", "last value", "power law", "wins")
    yield f"| curves | seen | {' | '.join(columns)} |"
    yield "|---" * 8 + "|"
    for group in groups:
        start = time.perf_counter()
        found = {task.name: measure(task, STUDIES[group]) for task in recorded(group)}
        for share in SHARES:
            by_task = np.array([shares[share] for shares in found.values()])
            inside, width, ours, last, law = by_task.mean(axis=0)
            spread = f"{100 * by_task[:, 0].min():.0f}, {100 * by_task[:, 0].max():.0f}"
            wins = int(np.sum(by_task[:, 2] < by_task[:, 3:].min(axis=1)))
            yield (
                f"| {group} ({len(found)}) | {100 * share:.0f} % | {100 * inside:.1f} % ({spread})"
                f" | {width:.3f} | {ours:.4f} | {last:.4f} | {law:.4f} | {wins} |"
            )
        print(f"{group}: {time.perf_counter() - start:.0f} s", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=", ".join(STUDIES))
    groups = parser.parse_args().groups
    if unknown := set(groups) - set(STUDIES):
        parser.error(
            f"no group is called {', '.join(sorted(unknown))}; choose from {', '.join(STUDIES)}"
        )
    for line in table(groups or list(STUDIES)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
