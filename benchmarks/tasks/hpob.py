"""HPO-B (Pineda Arango et al. 2021): its files, its protocol, and result files in its shape.

    python -m benchmarks.tasks.hpob --table runs/hpob-v3-test/results.csv --method scaletune \\
        --out scaletune.json

Notation
--------
space, task   ids as strings, "5971" and "9970": 16 search spaces and 86 meta-test tasks in v3
X, y          `n x d` in [0, 1], and `n` scores that are maximized
y scaled      (y - min) / (max - min) over the task's table; loss = 1 - y scaled = normalized regret

* `hpob/v3-test/SPACE/TASK`, discrete: only the n recorded configs may be run (`Task.pool`).
* `hpob/continuous/SPACE/TASK`: any x in [0, 1]^d, answered by the benchmark's XGBoost surrogate,
  scaled by the surrogate's own extremes and clipped to [0, 1]; start points answer from the table.

`other_tasks()` are the runs of the same space's meta-train tasks, for methods of the transfer
setting; the augmented file of them is taken where it is there.

`starts(seed)` are the five official ones of `test0` .. `test4` for seeds 0 to 4; 100 trials follow.
Files are looked for under `hpob/` (`benchmarks.tasks.data`): `meta-test-dataset.json` and
`bo-initializations.json`, for continuous tasks also `saved-surrogates/`. They are not fetched: the
evaluations are about 600 MB, and the project's page says where they are now.

What differs from the reference code, which is read here only for its formats: see
`docs/appendix/benchmarks_tasks.md`.
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.task import Bounds, DataMissing, Evaluation, Point
from benchmarks.tasks import data
from hpo import Float, SearchSpace

__all__ = [
    "Continuous",
    "Discrete",
    "FormatError",
    "Results",
    "TaskData",
    "load",
    "names",
    "official_curve",
    "read_results",
    "read_split",
    "read_starts",
    "risen",
    "write_results",
]

Array = NDArray[np.float64]
#: space -> task -> seed -> 101 incumbents of y scaled, the first after the start points.
Results = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]

#: Split -> the files whose tables it joins, in the order in which they override one another.
SPLITS: Mapping[str, tuple[str, ...]] = {
    "v3-train": ("meta-train-dataset.json",),
    "v3-train-augmented": ("meta-train-dataset-augmented.json",),
    "v3-validation": ("meta-validation-dataset.json",),
    "v3-test": ("meta-test-dataset.json",),
    "v2": ("meta-train-dataset.json", "meta-validation-dataset.json", "meta-test-dataset.json"),
    "v1": (
        "meta-train-dataset-augmented.json",
        "meta-validation-dataset.json",
        "meta-test-dataset.json",
    ),
}
_TRANSFER_ROWS = 300  # of each meta-train task, drawn at random
SEEDS = ("test0", "test1", "test2", "test3", "test4")
START_POINTS = 5
_ROUNDING = 1e-9  # by which an incumbent may fall
TRIALS = 100
_HINT = (
    "get HPO-B's data as its repository's README says (github.com/machinelearningnuremberg/HPO-B)"
    " and unpack it into `hpob/` of the folder in $SCALETUNE_DATA"
)


class FormatError(ValueError):
    """A file that is not what HPO-B ships; the message names file, place, rule and value."""


# --- reading -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TaskData:
    """The table of one task: `X` is `n x d` in [0, 1], `y` `(n,)`, larger is better."""

    X: Array
    y: Array

    @cached_property
    def scaled(self) -> Array:
        """`(n,)`, y scaled to [0, 1] over the table; all 1 where y is constant."""
        low, width = self.y.min(), np.ptp(self.y)
        return np.asarray((self.y - low) / width if width > 0 else np.ones_like(self.y))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise FormatError(f"{path}: not a JSON file ({reason}); download it again") from None
    if not isinstance(content, dict):
        raise FormatError(f"{path}: must hold an object, got {type(content).__name__}")
    return content


def _member(content: Any, key: str, place: str) -> Any:
    if not isinstance(content, dict) or key not in content:
        some = list(content)[:5] if isinstance(content, dict) else type(content).__name__
        raise FormatError(f"{place}: must hold `{key}`, got {some}")
    return content[key]


def _numbers(content: Any, place: str) -> Array:
    """A list of finite numbers, or of lists of equally many, as an array."""
    try:
        array = np.array(content, dtype=np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        reason = str(error).splitlines()[0]
        raise FormatError(f"{place}: must be a list of numbers ({reason})") from None
    if array.ndim == 0 or array.size == 0 or not np.isfinite(array).all():
        raise FormatError(f"{place}: must be a list of finite numbers, got shape {array.shape}")
    return array


def _task_data(content: Any, place: str) -> TaskData:
    X = _numbers(_member(content, "X", place), f"{place}/X")
    y = _numbers(_member(content, "y", place), f"{place}/y")
    if y.ndim == 2 and y.shape[1] == 1:  # as the official files have it
        y = y[:, 0]
    if X.ndim != 2 or y.ndim != 1 or len(X) != len(y):
        raise FormatError(f"{place}: X must be n x d and y n, got {X.shape} and {y.shape}")
    if X.min() < 0.0 or X.max() > 1.0:
        raise FormatError(f"{place}/X: must lie in [0, 1], got {X.min():g} to {X.max():g}")
    return TaskData(X, y)


class _Split(Mapping[tuple[str, str], TaskData]):
    """(space, task) -> its table, checked when it is asked for: whole files hold millions."""

    def __init__(self, path: Path, content: Mapping[str, Any]) -> None:
        self._path, self._content = path, content
        for space, tasks in content.items():
            if not isinstance(tasks, dict):
                raise FormatError(f"{path}: space {space} must hold an object of tasks")

    def __getitem__(self, key: tuple[str, str]) -> TaskData:
        space, task = key
        if task not in self._content.get(space, {}):
            raise KeyError(key)
        return _task_data(self._content[space][task], f"{self._path}: {space}/{task}")

    def __iter__(self) -> Any:
        return ((space, task) for space, tasks in self._content.items() for task in tasks)

    def __len__(self) -> int:
        return sum(len(tasks) for tasks in self._content.values())


def read_split(folder: Path, split: str) -> Mapping[tuple[str, str], TaskData]:
    """All tables of a split, by (space, task).

    `folder`: holds the official JSON files. `split`: a key of `SPLITS`. Raises `ValueError` for an
    unknown split, `DataMissing` for a missing file, `FormatError` for a broken one (a broken table
    when it is looked up).
    """
    if split not in SPLITS:
        raise ValueError(f"`split` must be one of {list(SPLITS)}, got {split!r}; pick one")
    joined: dict[str, Any] = {}
    for file in SPLITS[split]:
        if not (folder / file).is_file():
            raise DataMissing(f"{folder / file} does not exist; {_HINT}")
        for space, tasks in _Split(folder / file, _read_json(folder / file))._content.items():
            joined.setdefault(space, {}).update(tasks)
    return _Split(folder, joined)


def read_starts(folder: Path, space: str, task: str, count: int) -> dict[str, tuple[int, ...]]:
    """Seed ("test0" ..) -> the rows of its five start points in a table of `count` rows.

    Raises `DataMissing` without `bo-initializations.json`, `FormatError` where it is broken.
    """
    path = folder / "bo-initializations.json"
    if not path.is_file():
        raise DataMissing(f"{path} does not exist; {_HINT}")
    place = f"{path}: {space}/{task}"
    entry = _member(_member(_read_json(path), space, str(path)), task, f"{path}: {space}")
    starts = {}
    for seed in SEEDS:
        rows = _member(entry, seed, place)
        legal = isinstance(rows, list) and all(
            isinstance(row, int) and not isinstance(row, bool) and 0 <= row < count for row in rows
        )
        if not legal or len(rows) != START_POINTS or len(set(rows)) != START_POINTS:
            raise FormatError(
                f"{place}/{seed}: must be {START_POINTS} different rows below {count}, got {rows!r}"
            )
        starts[seed] = tuple(rows)
    return starts


# --- tasks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Recorded:
    """What both modes share. `start_rows`: rows of the five start points, per official seed."""

    name: str
    data: TaskData
    start_rows: Mapping[str, tuple[int, ...]]
    folder: Path = Path()
    unit: str = "evaluations"
    levels: None = None
    seen_in_design: bool = False

    @cached_property
    def space(self) -> SearchSpace:
        """Columns of X as the benchmark encodes them, so one-hot columns are numbers here."""
        return SearchSpace({f"x{j}": Float(0.0, 1.0) for j in range(self.data.X.shape[1])})

    @property
    def bounds(self) -> Bounds:
        """Losses are normalized regrets already."""
        return Bounds(0.0, 1.0)

    def config(self, row: int) -> dict[str, float]:
        """The config of a row of X."""
        return {f"x{j}": float(value) for j, value in enumerate(self.data.X[row])}

    def starts(self, seed: int) -> list[dict[str, float]]:
        """The five official start points; raises `ValueError` for a seed beyond 0 to 4."""
        if not 0 <= seed < len(SEEDS):
            raise ValueError(f"HPO-B has start points for seeds 0 to 4, got {seed}; use --seeds 5")
        return [self.config(row) for row in self.start_rows[SEEDS[seed]]]

    def other_tasks(self) -> dict[str, list[tuple[dict[str, float], float]]]:
        """Runs of the meta-train tasks of the same space, with losses that are minimized.

        Raises `DataMissing` without the meta-train files, and `ValueError` where they have no task
        of the space.
        """
        space = self.name.split("/")[2]
        augmented = (self.folder / SPLITS["v3-train-augmented"][0]).is_file()
        split = _split(self.folder, "v3-train-augmented" if augmented else "v3-train")
        found: dict[str, list[tuple[dict[str, float], float]]] = {}
        for number, key in enumerate(key for key in split if key[0] == space):
            table = split[key]
            rng = np.random.default_rng([number])
            rows = rng.permutation(len(table.y))[:_TRANSFER_ROWS]
            found[key[1]] = [
                (
                    {f"x{j}": float(v) for j, v in enumerate(table.X[i])},
                    float(1.0 - table.scaled[i]),
                )
                for i in rows
            ]
        if not found:
            raise ValueError(f"the meta-train files in {self.folder} have no task of space {space}")
        return found

    @cached_property
    def _rows(self) -> dict[tuple[float, ...], list[int]]:
        rows: dict[tuple[float, ...], list[int]] = {}
        for row, x in enumerate(self.data.X):
            rows.setdefault(tuple(x.tolist()), []).append(row)
        return rows

    def _check(self, config: Mapping[str, Any], level: int | None) -> tuple[float, ...]:
        if level is not None:
            raise ValueError(f"`level` must be None for {self.name}, got {level!r}; it has none")
        valid = self.space.validate(config)
        return tuple(valid[name] for name in self.space)


@dataclass(frozen=True)
class Discrete(_Recorded):
    """Pool mode. A config recorded several times answers with one of its records, drawn."""

    @cached_property
    def pool(self) -> tuple[dict[str, Any], ...]:
        return tuple(self.config(rows[0]) for rows in self._rows.values())

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        rows = self._rows.get(self._check(config, level))
        if rows is None:
            raise ValueError(
                f"{self.name} may only be asked at its {len(self._rows)} recorded configs, got"
                f" {dict(config)}; take one from `pool`"
            )
        row = rows[0] if len(rows) == 1 else rows[int(rng.integers(len(rows)))]
        return _evaluation(float(self.data.scaled[row]))


@dataclass(frozen=True)
class Continuous(_Recorded):
    """Surrogate mode. `model`: the XGBoost file; `low`, `high`: extremes that scale its answers."""

    model: Path = Path()
    low: float = 0.0
    high: float = 1.0
    pool: None = None

    @cached_property
    def _booster(self) -> Any:
        try:
            import xgboost  # type: ignore[import-not-found]  # optional, and large
        except ModuleNotFoundError as error:
            raise DataMissing(
                f"{self.name} needs XGBoost, which is not installed; run `pip install xgboost`"
            ) from error
        booster = xgboost.Booster()
        try:
            booster.load_model(self.model)
        except xgboost.core.XGBoostError as error:
            reason = str(error).splitlines()[0]
            raise FormatError(
                f"{self.model}: not a model of XGBoost ({reason}); download it again"
            ) from None
        return lambda x: booster.predict(xgboost.DMatrix(x))[0]

    @cached_property
    def _start_scores(self) -> dict[tuple[float, ...], float]:
        rows = {row for listed in self.start_rows.values() for row in listed}
        return {tuple(self.data.X[row].tolist()): float(self.data.y[row]) for row in rows}

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        x = self._check(config, level)
        score = self._start_scores.get(x)
        if score is None:
            score = float(self._booster(np.array([x])))
        return _evaluation(min(max((score - self.low) / (self.high - self.low), 0.0), 1.0))


def _evaluation(scaled: float) -> Evaluation:
    return Evaluation(1.0 - scaled, 1.0, (Point(1, 1.0 - scaled, 1.0),))


def _extremes(folder: Path, key: str) -> tuple[float, float]:
    path = folder / "summary-stats.json"
    if not path.is_file():
        raise DataMissing(f"{path} does not exist; {_HINT}")
    entry = _member(_read_json(path), key, str(path))
    low, high = (_member(entry, end, f"{path}: {key}") for end in ("y_min", "y_max"))
    numbers = all(isinstance(v, int | float) and math.isfinite(v) for v in (low, high))
    if not numbers or not low < high:
        raise FormatError(f"{path}: {key} needs y_min < y_max, got {low!r} and {high!r}")
    return float(low), float(high)


@functools.lru_cache(maxsize=2)
def _split(folder: Path, split: str) -> Mapping[tuple[str, str], TaskData]:
    return read_split(folder, split)


def _folder() -> Path:
    return data.find("hpob/meta-test-dataset.json", _HINT).parent


def names() -> tuple[str, ...]:
    """Names of all tasks of v3-test in both modes; none without the data."""
    try:
        listed = list(_split(_folder(), "v3-test"))
    except DataMissing:
        return ()
    return tuple(
        f"hpob/{mode}/{space}/{task}"
        for mode in ("v3-test", "continuous")
        for space, task in listed
    )


def load(name: str) -> Discrete | Continuous:
    """`hpob/v3-test/SPACE/TASK` or `hpob/continuous/SPACE/TASK`.

    Raises `ValueError` for another name, `DataMissing` without the files, `FormatError` for a
    broken one.
    """
    parts = name.split("/")
    if len(parts) != 4 or parts[1] not in ("v3-test", "continuous"):
        raise ValueError(
            f"an HPO-B task is called hpob/v3-test/SPACE/TASK or hpob/continuous/SPACE/TASK, got"
            f" {name!r}; try hpob/v3-test/5971/9970"
        )
    _, mode, space, task = parts
    folder = _folder()
    split = _split(folder, "v3-test")
    if (space, task) not in split:
        raise ValueError(f"{folder} has no task {space}/{task}; `tasks.names('hpob')` lists them")
    table = split[space, task]
    starts = read_starts(folder, space, task, len(table.y))
    if mode == "v3-test":
        return Discrete(name, table, starts, folder)
    surrogates, key = folder / "saved-surrogates", f"surrogate-{space}-{task}"
    low, high = _extremes(surrogates, key)
    if not (surrogates / f"{key}.json").is_file():
        raise DataMissing(f"{surrogates / key}.json does not exist; {_HINT}")
    return Continuous(
        name, table, starts, folder, model=surrogates / f"{key}.json", low=low, high=high
    )


# --- results in the official shape ---------------------------------------------------------------


def official_curve(start_losses: Sequence[float], losses: Sequence[float]) -> list[float]:
    """101 incumbents of y scaled: the best of the start points, then after each of 100 trials.

    `start_losses`, `losses`: normalized regrets in the order of evaluation. A run that ended early
    because it found the table's optimum is continued with 1.

    Raises `ValueError` for another number of start points, and for a run that is too short and did
    not find the optimum: continuing it would flatter or harm it unseen.
    """
    if len(start_losses) != START_POINTS:
        raise ValueError(f"`start_losses` must be {START_POINTS}, got {len(start_losses)}")
    best = np.minimum.accumulate([min(start_losses), *losses])[: TRIALS + 1]
    if len(best) <= TRIALS and best[-1] > 0.0:
        raise ValueError(
            f"`losses` must hold {TRIALS} trials unless the optimum was found, got {len(losses)};"
            " finish the run"
        )
    padded = [*(1.0 - best).tolist(), *[1.0] * (TRIALS + 1 - len(best))]
    return [float(value) for value in padded]


def write_results(path: Path, results: Results) -> None:
    """Write `{space: {task: {seed: [101 incumbents]}}}`; raises `FormatError` for another shape."""
    _check_results(results, "results", length=TRIALS + 1)
    path.write_text(json.dumps(results))


def read_results(path: Path) -> Results:
    """Read a published result file, of any number of incumbents, as it is.

    Raises `FormatError`. A file whose incumbents fall is made to rise by `risen`.
    """
    results = _read_json(path)
    _check_results(results, str(path), length=None, rising=False)
    return results


def risen(results: Results) -> tuple[Results, int]:
    """Return the results with each curve replaced by its running maximum, and how many fell.

    An incumbent is the best value so far, so a curve that falls holds single values or an error.
    """
    fell = 0
    made: dict[str, dict[str, dict[str, list[float]]]] = {}
    for space, tasks in results.items():
        for task, seeds in tasks.items():
            for seed, curve in seeds.items():
                best = np.maximum.accumulate(np.array(curve, dtype=np.float64).ravel())
                fell += bool((np.diff(np.ravel(curve)) < -_ROUNDING).any())
                made.setdefault(space, {}).setdefault(task, {})[seed] = best.tolist()
    return made, fell


def _check_results(results: Results, place: str, length: int | None, rising: bool = True) -> None:
    for space, tasks in results.items():
        if not isinstance(tasks, Mapping):
            raise FormatError(f"{place}: {space} must hold an object of tasks")
        for task, seeds in tasks.items():
            if not isinstance(seeds, Mapping):
                raise FormatError(f"{place}: {space}/{task} must hold an object of seeds")
            for seed, curve in seeds.items():
                _check_curve(curve, f"{place}: {space}/{task}/{seed}", length, rising)


def _check_curve(curve: object, where: str, length: int | None, rising: bool) -> None:
    values = _numbers(curve, where)
    if length is None and values.ndim == 2 and values.shape[1] == 1:  # as some files have it
        values = values[:, 0]
    if values.ndim != 1 or (length is not None and len(values) != length):
        raise FormatError(f"{where}: must be {length} numbers, got {values.shape}")
    falls = rising and bool((np.diff(values) < -_ROUNDING).any())
    if values.min() < 0 or values.max() > 1 or falls:
        raise FormatError(f"{where}: incumbents must rise within [0, 1]")


def from_table(path: Path, method: str) -> Results:
    """Official results of one method from a result table of `python -m benchmarks run`.

    Raises `ValueError` where a study is unfinished, was run without the official start points or
    under another seed, and where both modes are in the table.
    """
    from benchmarks.table import read

    results: dict[str, dict[str, dict[str, list[float]]]] = {}
    modes: set[str] = set()
    for study, record in read(path).items():
        family, _, place = study.task.partition("/")
        if study.method != method or family != "hpob" or "+" in place:
            continue  # a wrapped task is another task
        mode, space, task = place.split("/")
        if study.seed >= len(SEEDS):
            raise ValueError(f"HPO-B has seeds 0 to 4, got {study}; report those five only")
        modes.add(mode)
        if len(modes) > 1:
            raise ValueError(f"{path} holds the modes {sorted(modes)}; run them into two tables")
        losses = [1.0 if o.loss is None else o.loss for o in record.outcomes if o.number >= 0]
        starts = [1.0 if o.loss is None else o.loss for o in record.outcomes if o.number < 0]
        curve = official_curve(starts, losses)
        results.setdefault(space, {}).setdefault(task, {})[SEEDS[study.seed]] = curve
    if not results:
        raise ValueError(f"{path} holds no HPO-B study of `{method}`; check --method")
    return results


def main(words: Sequence[str] | None = None) -> int:
    """The command in the module's docstring; returns its exit status."""
    parser = argparse.ArgumentParser(description="write HPO-B's result file from a result table")
    parser.add_argument("--table", type=Path, required=True)
    parser.add_argument("--method", required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args(words)
    try:
        write_results(arguments.out, from_table(arguments.table, arguments.method))
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
