"""The curve bank: recorded training runs, level by level, as tasks.

`python -m benchmarks record` trained every config of three workloads (`benchmarks.recording`) at
three sizes through 27 levels; the table it made ships here. Two tasks per workload:

* `curve-bank/W` has a scale axis, `params`, with the three sizes as its legal values: for methods
  that learn from small networks. Best and worst are those of all sizes.
* `curve-bank/W-large` is the largest size alone: 27 levels at one price each, for methods that stop
  runs early.

with W one of mlp, resnet, transformer. The loss is the validation cross-entropy in nats and the
cost training FLOPs; seconds, errors and training losses stand in the `RecordedTable`. Both are
finite: only recorded configs may be evaluated (`Task.pool`). A run is not noisy: it was recorded
once, under one seed, and its seed noise is a fixed part of the task.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.recording.workloads import LEVELS, WORKLOADS
from benchmarks.task import Bounds, DataMissing, Evaluation, Levels, Point
from hpo import Axis, Categorical, Int, Scale, SearchSpace, SpaceError

__all__ = ["BANK", "Bank", "CurveBankTask", "RecordedTable", "load", "names", "read_bank"]

BANK = Path(__file__).parents[1] / "data" / "curve_bank.npz"
SHA256 = "f6c170f7e1327b1a58bf18e47725a3ceb1f62bf39e12500ce01a1233eba21f7f"
#: Name of the scale axis: parameters as built, non-embedding ones for the transformer.
SIZE = "params"

_FAMILY = "curve-bank"
_LARGE = "-large"


@dataclass(frozen=True, slots=True)
class RecordedTable:
    """All runs of one workload; S sizes, n configs, 27 levels.

    Curves are `S x n x 27`, read-only, costs cumulative. From the level in which a run diverged,
    `loss` is NaN; the others are NaN from the next level.

    Attributes:
        workload: name of the workload.
        loss: validation loss.
        error: share of validation images classified wrongly; NaN for the transformer.
        train_loss: mean training loss of the level.
        flops: training FLOPs.
        seconds: processor seconds of one thread.
        parameters: sizes, `(S,)`, ascending.
        configs: settings, `(n,)`.
    """

    workload: str
    loss: NDArray[np.float32]
    error: NDArray[np.float32]
    train_loss: NDArray[np.float32]
    flops: NDArray[np.float32]
    seconds: NDArray[np.float32]
    parameters: tuple[int, ...]
    configs: tuple[dict[str, Any], ...]


@dataclass(frozen=True, slots=True)
class Bank:
    """All recorded tables by workload, and `provenance`: command, dates, versions, machines."""

    tables: Mapping[str, RecordedTable]
    provenance: Mapping[str, Any]


def names() -> tuple[str, ...]:
    """Return the names of all tasks of the family."""
    return tuple(f"{_FAMILY}/{w}{suffix}" for w in WORKLOADS for suffix in ("", _LARGE))


def load(name: str) -> CurveBankTask:
    """Return the task called `name`; raises `ValueError` for an unknown one."""
    if name not in names():
        raise ValueError(f"`name` must be one of {list(names())}, got {name!r}; use one of these")
    workload = name.removeprefix(f"{_FAMILY}/").removesuffix(_LARGE)
    return CurveBankTask.of(read_bank().tables[workload], name=name, large=name.endswith(_LARGE))


@cache
def read_bank(path: Path = BANK, sha256: str | None = SHA256) -> Bank:
    """Read a bank and check its `sha256` (None: any), shapes, and configs by their spaces.

    Raises:
        DataMissing: if there is no such file.
        ValueError: if a check fails.
    """
    if not path.exists():
        raise DataMissing(f"{path} is missing; make it: python -m benchmarks record --out {path}")
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if sha256 is not None and found != sha256:
        raise ValueError(
            f"{path} must have sha256 {sha256}, got {found}; restore the file, or read another"
            " recording with sha256=None"
        )
    with np.load(path, allow_pickle=False) as arrays:
        present = [name for name in WORKLOADS if f"{name}/loss" in arrays]
        tables = {name: _table(name, arrays, path) for name in present}
        return Bank(tables, json.loads(str(arrays["provenance"])))


def _table(name: str, arrays: Mapping[str, NDArray[Any]], path: Path) -> RecordedTable:
    workload = WORKLOADS[name]
    columns = {column: arrays[f"{name}/config/{column}"] for column in workload.space}
    parameters = tuple(int(p) for p in arrays[f"{name}/parameters"])
    shape = (len(workload.sizes), len(next(iter(columns.values()))), LEVELS)
    curves: dict[str, NDArray[np.float32]] = {}
    for curve in ("loss", "error", "train_loss", "flops", "seconds"):
        values = arrays[f"{name}/{curve}"]
        if values.shape != shape or values.dtype != np.float32:
            raise ValueError(
                f"{name}/{curve} in {path} must be float32 of shape {shape}, got {values.dtype} of"
                f" {values.shape}; record the bank again"
            )
        values.setflags(write=False)
        curves[curve] = values
    if list(parameters) != sorted(set(parameters)) or len(parameters) != shape[0]:
        raise ValueError(f"{name}/parameters in {path} must hold 3 growing sizes, got {parameters}")
    configs = tuple(
        workload.space.validate(_config(workload.space, columns, row)) for row in range(shape[1])
    )
    return RecordedTable(workload=name, parameters=parameters, configs=configs, **curves)


def _config(space: SearchSpace, columns: Mapping[str, NDArray[Any]], row: int) -> dict[str, Any]:
    """Inverse of the packing: NaN is inactive, a category its position."""
    config: dict[str, Any] = {}
    for name, parameter in space.items():
        value = float(columns[name][row])
        if np.isnan(value):
            continue
        if isinstance(parameter, Categorical):
            config[name] = parameter.choices[int(value)]
        else:
            config[name] = int(value) if isinstance(parameter, Int) else value
    return config


@dataclass(frozen=True, slots=True)
class CurveBankTask:
    """One task over one `RecordedTable`; make it with `of`. `rows`: config key -> size and row."""

    name: str
    space: SearchSpace
    table: RecordedTable
    pool: tuple[dict[str, Any], ...]
    bounds: Bounds
    rows: Mapping[Hashable, tuple[int, int]]
    unit: str = "flops"
    levels: Levels = Levels("level", 1, LEVELS)
    seen_in_design: bool = True  # engine defaults may be chosen on it

    @classmethod
    def of(cls, table: RecordedTable, *, name: str, large: bool) -> CurveBankTask:
        """Make a task over all sizes, with a scale axis, or over the largest alone if `large`."""
        space = WORKLOADS[table.workload].space
        sizes = range(len(table.parameters))
        if large:
            sizes = sizes[-1:]
        else:
            axis = Scale(table.parameters[0], table.parameters[-1], axis=Axis.PARAMS)
            space = SearchSpace({**space, SIZE: axis})
        pool, rows = [], {}
        for size in sizes:
            for row, settings in enumerate(table.configs):
                scale = {} if large else {SIZE: float(table.parameters[size])}
                config = space.validate({**settings, **scale})
                pool.append(config)
                rows[space.key(config)] = size, row
        last = table.loss[list(sizes), :, -1]
        bounds = Bounds(float(np.nanmin(last)), float(np.nanmax(last)))
        return cls(name, space, table, tuple(pool), bounds, rows)

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        """Return the recorded run up to `level`; `rng` is not used.

        Raises `SpaceError` for a config that was not recorded.
        """
        asked = self.levels.check(level)
        found = self.rows.get(self.space.key(self.space.validate(config)))
        if found is None:
            raise SpaceError(
                f"`config` must be one of the {len(self.pool)} in the pool of {self.name}, got"
                f" {dict(config)}; ask for the nearest"
            )
        losses, costs = self.table.loss[found][:asked], self.table.flops[found][:asked]
        finite = np.isfinite(losses)
        reached = asked if finite.all() else int(np.argmin(finite))
        curve = tuple(Point(i + 1, float(losses[i]), float(costs[i])) for i in range(reached))
        if reached < asked:
            return Evaluation(None, float(costs[reached]), curve, "diverged")
        return Evaluation(curve[-1].loss, curve[-1].cost, curve)
