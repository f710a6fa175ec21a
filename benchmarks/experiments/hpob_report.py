"""HPO-B's own table: our runs beside the published per-trial results of its methods.

    python -m benchmarks run hpob-v3-test --methods scaletune random optuna-tpe
    python -m benchmarks hpob-report runs/hpob-v3-test --published $SCALETUNE_DATA/hpob/results

Rank and normalized regret after 5, 15, 25, 50 and 100 trials, as in the paper (Pineda Arango et al.
2021), over all (space, task, seed) that every method shown has; also the means over spaces, which
have 2 to 7 tasks each. Ties share their mean rank, after rounding to 8 digits. A published file is
`METHOD.json`, `{space: {task: {seed: [incumbents of y scaled]}}}`, the first of them that after the
start points. One whose incumbents fall is made to rise, with a note; one that ends early is not
shown beyond its end. Where no file is given, the means that were once computed from the published
files are printed below (`PUBLISHED`); they belong to all 430 runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from benchmarks.markdown import table_head, table_row
from benchmarks.table import read
from benchmarks.tasks import hpob

Array = NDArray[np.float64]

SHOWN = (5, 15, 25, 50, 100)
_DIGITS = 8
#: Mean normalized regret over the 430 runs of v3-test, after 5, 25, 50 and 100 trials, computed
#: from the result files of HPO-B's repository; "T" used the meta-train tasks.
PUBLISHED: Mapping[str, tuple[float, float, float, float]] = {
    "Random": (0.1419, 0.0864, 0.0722, 0.0540),
    "GP": (0.1059, 0.0511, 0.0345, 0.0258),
    "DNGO": (0.0989, 0.0449, 0.0285, 0.0224),
    "DGP": (0.0994, 0.0480, 0.0281, 0.0173),
    "BOHAMIANN": (0.1176, 0.0461, 0.0280, 0.0158),
    "RGPE (T)": (0.1036, 0.0562, 0.0464, 0.0278),
    "TST (T)": (0.1040, 0.0510, 0.0389, 0.0278),
    "TAF (T)": (0.1011, 0.0467, 0.0359, 0.0254),
    "FSBO (T)": (0.0874, 0.0356, 0.0210, 0.0125),
    "FSBO2 (T)": (0.0814, 0.0286, 0.0182, 0.0105),
}
_PUBLISHED_AT = (5, 25, 50, 100)

#: (space, task, seed) -> incumbents of y scaled.
Curves = dict[tuple[str, str, str], Array]


def curves(results: hpob.Results) -> Curves:
    """Return the curves of a result file by space, task and seed."""
    return {
        (space, task, seed): np.array(curve, dtype=np.float64).ravel()
        for space, tasks in results.items()
        for task, seeds in tasks.items()
        for seed, curve in seeds.items()
    }


def published(folder: Path) -> tuple[dict[str, Curves], list[str]]:
    """Return the methods whose result files are in `folder`, and notes on what was mended.

    Raises:
        FormatError: for a file of another shape.
    """
    found, notes = {}, []
    for path in sorted(folder.glob("*.json")):
        results, fell = hpob.risen(hpob.read_results(path))
        found[path.stem] = curves(results)
        if fell:
            notes.append(
                f"{path.stem}: {fell} of {len(found[path.stem])} curves fell and were replaced by"
                " their running maximum"
            )
    return found, notes


def ours(folders: Sequence[Path]) -> tuple[dict[str, Curves], list[str]]:
    """Return the methods of result tables of `python -m benchmarks run`, and notes.

    Raises:
        ValueError: where a study is unfinished, or was run under other rules.
    """
    found: dict[str, Curves] = {}
    notes = []
    for folder in folders:
        table = folder / "results.csv"
        methods = dict.fromkeys(study.method for study in read(table))
        for method in methods:
            try:
                found.setdefault(method, {}).update(curves(hpob.from_table(table, method)))
            except ValueError as error:
                notes.append(f"{method} of {folder} is left out: {error}")
    return {method: runs for method, runs in found.items() if runs}, notes


def report(methods: Mapping[str, Curves], at: Sequence[int] = SHOWN) -> Iterator[str]:
    """Yield the lines of the table.

    Args:
        methods: curves of each method.
        at: numbers of trials.
    """
    shared = sorted(set.intersection(*(set(runs) for runs in methods.values())))
    if not shared:
        raise ValueError(
            f"the methods {list(methods)} have no run of one space, task and seed in common"
        )
    spaces = sorted({space for space, _, _ in shared})
    yield f"{len(shared)} runs of {len(spaces)} spaces that every method has."
    yield ""
    yield from table_head(
        [
            "method",
            *(f"regret at {n}" for n in at),
            *(f"rank at {n}" for n in at),
            f"regret at {at[-1]}, mean over spaces",
        ]
    )
    regret = {
        name: np.array([[_regret(runs[key], n) for n in at] for key in shared])
        for name, runs in methods.items()
    }
    ranks = _ranks(np.stack(list(regret.values())))
    for i, (name, values) in enumerate(regret.items()):
        of_spaces = [values[[key[0] == space for key in shared]].mean(axis=0) for space in spaces]
        yield table_row(
            [
                name,
                *map(_shown, values.mean(axis=0).tolist()),
                *map(_shown, ranks[i].tolist(), [2] * len(at)),
                _shown(float(np.mean(of_spaces, axis=0)[-1])),
            ]
        )


def _regret(curve: Array, trials: int) -> float:
    """Return the regret after `trials`; NaN beyond the end of the curve."""
    return float(1.0 - curve[trials]) if trials < len(curve) else np.nan


def _ranks(regret: Array) -> Array:
    """Return mean ranks, `methods x n`, among the methods that have a value at each n.

    Args:
        regret: `methods x runs x n`.
    """
    mean = np.full((regret.shape[0], regret.shape[2]), np.nan)
    for j in range(regret.shape[2]):
        has = np.isfinite(regret[:, :, j]).all(axis=1)
        if has.any():
            mean[has, j] = rankdata(regret[has, :, j].round(_DIGITS), axis=0).mean(axis=1)
    return mean


def _shown(value: float, digits: int = 4) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else "-"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `python -m benchmarks hpob-report`."""
    parser.add_argument("folders", nargs="*", type=Path, help="what `run --out` named")
    parser.add_argument(
        "--published", type=Path, metavar="FOLDER", help="result files of HPO-B's repository"
    )
    parser.add_argument("--at", type=int, nargs="+", default=list(SHOWN), metavar="TRIALS")
    parser.set_defaults(action=_run)


def _run(given: argparse.Namespace) -> int:
    methods, notes = ours(given.folders)
    if given.published is not None:
        if not given.published.is_dir():
            raise ValueError(f"--published must name a folder, got {given.published}")
        theirs, mended = published(given.published)
        methods, notes = {**methods, **theirs}, [*notes, *mended]
    for note in notes:
        print(f"note: {note}", file=sys.stderr)
    if not methods:
        raise ValueError("nothing to report: name folders of runs, or --published")
    print("\n".join(report(methods, sorted(given.at))))
    if given.published is None:
        print("\nMeans of the published result files over all 430 runs, for comparison:\n")
        lines = table_head(["method", *(f"regret at {n}" for n in _PUBLISHED_AT)])
        lines += [table_row([name, *map(_shown, row)]) for name, row in PUBLISHED.items()]
        print("\n".join(lines))
    return 0
