"""YAHPO Gym's surrogate networks, read straight from ONNX (Pfisterer et al. 2022).

    python -m benchmarks.tasks.yahpo --fetch lcbench rbv2_rpart    # into $SCALETUNE_DATA, by sha256
    python -m benchmarks.tasks.yahpo --bounds                      # rewrite data/yahpo_bounds.json
                                                                   # for the suites' tasks

A scenario is a network over (instance, config, fidelity), trained on real runs:

* `lcbench/ID`: learning curves of networks on an OpenML task, levels are epochs 2 to 52 (at epoch 1
  the surrogate looks untrained), loss 1 - validation accuracy, cost the cumulative seconds.
* `rpart/ID`: decision trees, levels are percent of the training set, loss 1 - accuracy, cost the
  seconds of training; a run at a higher level starts afresh (`Levels.continues` is False).
* `yahpo/SCENARIO/ID`: any other scenario of release 1.0.2 whose folder is here, in the same way.

`config_space.json` gives parameters, logs and conditions, `encoding.json` which columns are
categorical and their codes. Neither gives the order of columns and outputs, which `_ORDERS` and
`_OUTPUTS` hold (YAHPO Gym's documentation); a network of another shape is refused.

Best and worst losses of a surrogate are not known exactly. `search_bounds` estimates them, the same
on every machine up to rounding, and the answers for the suites ship in `data/yahpo_bounds.json`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import hashlib
import json
import logging
import os
import sys
import urllib.request
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.task import Bounds, DataMissing, Evaluation, Levels, Point
from benchmarks.tasks import SUITES, data
from hpo import Categorical, Float, Int, SearchSpace
from hpo.space import Parameter, Role
from hpo.space.parameters import When

__all__ = ["FormatError", "Surrogate", "SurrogateTask", "load", "names", "search_bounds"]

_log = logging.getLogger(__name__)

Array = NDArray[np.float64]
Config = Mapping[str, Any]

#: Release 1.0.2, by its commit.
_SOURCE = (
    "https://raw.githubusercontent.com/slds-lmu/yahpo_data/efdab9072f63bd680396cd4b78b927c4a0caaad3"
)
_FILES = ("config_space.json", "encoding.json", "model.onnx")
#: sha256 of the files whose figures are reported.
_CHECKSUMS: Mapping[str, tuple[str, str, str]] = {
    "lcbench": (
        "4d1c78a91429b4a37628e13f286cf1abe15f778a09722a4c01714f2d72a8200d",
        "d8af928f412bbeb07e58ecd69877fcab35fbc595333d1c1c3f76120d2f2508da",
        "b45c0d85ae39abf8820c8bea5ac82f415763afcbaf3b725e36af452b09cb6dcd",
    ),
    "rbv2_rpart": (
        "86de5b9c8f9bc2f82eaafa099b9920445ce6edbe56509c9736af71d53ef4a630",
        "e978cd3de5b8fbad4f7dbb7a15bed94738d37c24a0bfb3cbdf33509ba91df49c",
        "af34bb810107fd809bdd74be227685fb2a1c5cb7b1f3c2dde5629e42ef6819f3",
    ),
}

#: Family name in a task's name -> scenario.
_SHORT = {"lcbench": "lcbench", "rpart": "rbv2_rpart"}
#: LCBench instances that the engine's design has seen; none of rpart's.
_SEEN = {"lcbench": frozenset({"167168", "189873", "189906", "3945"})}
_BOUNDS_FILE = Path(__file__).resolve().parents[1] / "data" / "yahpo_bounds.json"

_ROLES = {
    "learning_rate": Role.LR,
    "batch_size": Role.BATCH,
    "weight_decay": Role.WEIGHT_DECAY,
    "max_dropout": Role.DROPOUT,
}


# --- the order of columns and outputs ------------------------------------------------------------

_SVM = ("cost", "gamma", "tolerance", "degree")
_GLMNET = ("alpha", "s")
_RPART = ("cp", "maxdepth", "minbucket", "minsplit")
_RANGER = ("num.trees", "sample.fraction", "mtry.power", "min.node.size", "num.random.splits")
_AKNN = ("k", "M", "ef", "ef_construction")
_XGBOOST = (
    "nrounds",
    "eta",
    "gamma",
    "lambda",
    "alpha",
    "subsample",
    "max_depth",
    "min_child_weight",
    "colsample_bytree",
    "colsample_bylevel",
    "rate_drop",
    "skip_drop",
)
_FACTORS = ("respect.unordered.factors", "splitrule")
_IMPUTE = "num.impute.selected.cpo"
_IAML_RANGER = tuple(name.replace("mtry.power", "mtry.ratio") for name in _RANGER)


def _of(learner: str, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(f"{learner}.{name}" for name in names)


def _rbv2(numeric: Sequence[str], categorical: Sequence[str] = ()) -> tuple[str, ...]:
    # `repl` is numeric in some releases and categorical in others: it is last among either.
    return (*numeric, "trainsize", "task_id", *categorical, _IMPUTE, "repl")


#: Scenario -> its columns, in an order that holds among the numeric and among the categorical ones.
_ORDERS: Mapping[str, tuple[str, ...]] = {
    "lcbench": (
        "epoch",
        "batch_size",
        "learning_rate",
        "momentum",
        "weight_decay",
        "num_layers",
        "max_units",
        "max_dropout",
        "OpenML_task_id",
    ),
    "rbv2_svm": _rbv2(_SVM, ["kernel"]),
    "rbv2_glmnet": _rbv2(_GLMNET),
    "rbv2_rpart": _rbv2(_RPART),
    "rbv2_ranger": _rbv2(_RANGER, _FACTORS),
    "rbv2_aknn": _rbv2(_AKNN, ["distance"]),
    "rbv2_xgboost": _rbv2(_XGBOOST, ["booster"]),
    "rbv2_super": _rbv2(
        (
            *_of("svm", _SVM),
            *_of("glmnet", _GLMNET),
            *_of("rpart", _RPART),
            *_of("ranger", _RANGER),
            *_of("aknn", _AKNN),
            *_of("xgboost", _XGBOOST),
        ),
        ["learner_id", "svm.kernel", *_of("ranger", _FACTORS), "aknn.distance", "xgboost.booster"],
    ),
    "iaml_glmnet": (*_GLMNET, "trainsize", "task_id"),
    "iaml_rpart": (*_RPART, "trainsize", "task_id"),
    "iaml_ranger": (*_IAML_RANGER, "trainsize", "task_id", "replace", *_FACTORS),
    "iaml_xgboost": (*_XGBOOST, "trainsize", "task_id", "booster"),
    "iaml_super": (
        *_of("ranger", _IAML_RANGER),
        *_of("rpart", _RPART),
        *_of("glmnet", _GLMNET),
        *_of("xgboost", _XGBOOST),
        "trainsize",
        "task_id",
        "learner",
        *_of("ranger", ("replace", *_FACTORS)),
        "xgboost.booster",
    ),
    "nb301": (
        "epoch",
        *(
            f"NetworkSelectorDatasetInfo_COLON_darts_COLON_edge_{cell}_{edge}"
            for cell in ("normal", "reduce")
            for edge in range(14)
        ),
        *(
            f"NetworkSelectorDatasetInfo_COLON_darts_COLON_inputs_node_{cell}_{node}"
            for cell in ("normal", "reduce")
            for node in range(3, 6)
        ),
    ),
}

_RBV2_OUTPUTS = ("acc", "bac", "auc", "brier", "logloss", "timetrain", "timepredict")
#: First part of a scenario's name -> its outputs, one tuple per release.
_OUTPUTS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "lcbench": (
        (
            "time",
            "val_accuracy",
            "val_cross_entropy",
            "val_balanced_accuracy",
            "test_cross_entropy",
            "test_balanced_accuracy",
        ),
    ),
    "rbv2": (_RBV2_OUTPUTS, (*_RBV2_OUTPUTS[:4], "f1", *_RBV2_OUTPUTS[4:], "memory")),
    "iaml": (
        (
            "mmce",
            "f1",
            "auc",
            "logloss",
            "ramtrain",
            "rammodel",
            "rampredict",
            "timetrain",
            "timepredict",
            "mec",
            "ias",
            "nf",
        ),
    ),
    "nb301": (
        ("val_accuracy", "val_cross_entropy", "runtime", "runtime_increase"),
        ("val_accuracy", "val_cross_entropy", "runtime", "runtime_increase", "model_parameters"),
    ),
}


def _same(values: Array) -> Array:
    return values


def _error(values: Array) -> Array:
    return 1.0 - values


def _error_of_percent(values: Array) -> Array:
    return 1.0 - values / 100.0


#: First part of a scenario's name -> output that is the loss, how it becomes one, output of cost.
_TARGETS: Mapping[str, tuple[str, Callable[[Array], Array], str]] = {
    "lcbench": ("val_accuracy", _error_of_percent, "time"),
    "rbv2": ("acc", _error, "timetrain"),
    "iaml": ("mmce", _same, "timetrain"),
    "nb301": ("val_accuracy", _error_of_percent, "runtime"),
}
_INSTANCE_NAMES = ("task_id", "OpenML_task_id")
#: Fidelities that end up at their full value; the one that is varied comes first.
_FIDELITIES = ("epoch", "trainsize", "repl")
#: A level of a fractional fidelity is this share of it.
_PERCENT = 0.01
_SMALLEST_COST = 1e-3


# --- a scenario ----------------------------------------------------------------------------------


class FormatError(ValueError):
    """Files that are not what YAHPO ships; one line that names them and the reason."""


@contextlib.contextmanager
def _reading(folder: Path) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of the files in `folder`."""
    try:
        yield
    except (FormatError, DataMissing):
        raise
    except Exception as error:  # any shape of JSON, any message of the network's runtime
        lines = str(error).splitlines() or [""]
        raise FormatError(
            f"{folder} does not hold what YAHPO ships ({type(error).__name__}: {lines[0]}); fetch"
            " or clone it again"
        ) from error


@dataclass(frozen=True)
class Surrogate:
    """One scenario: its network and how configs become its inputs.

    `scenario`: its name. `folder`: holds the three files. Networks run on one thread.
    """

    scenario: str
    folder: Path

    @property
    def kind(self) -> str:
        """First part of the scenario's name, the key of the tables above."""
        return self.scenario.partition("_")[0]

    @cached_property
    def _declared(self) -> dict[str, dict[str, Any]]:
        listed = json.loads((self.folder / "config_space.json").read_text())
        return {entry["name"]: entry for entry in listed["hyperparameters"]}

    @cached_property
    def _conditions(self) -> list[dict[str, Any]]:
        listed = json.loads((self.folder / "config_space.json").read_text())
        if listed.get("forbiddens"):
            raise FormatError(
                f"{self.scenario} forbids combinations of values, which no search space here can"
                " say; choose another scenario"
            )
        return list(listed["conditions"])

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        return dict(json.loads((self.folder / "encoding.json").read_text()))

    @cached_property
    def _session(self) -> Any:
        try:
            import onnxruntime  # type: ignore[import-untyped]  # it ships no types
        except ModuleNotFoundError as error:
            raise DataMissing(
                "YAHPO surrogates need onnxruntime; run `pip install 'scaletune[bench]'`"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        with _reading(self.folder):
            session = onnxruntime.InferenceSession(
                self.folder / "model.onnx", options, providers=["CPUExecutionProvider"]
            )
            found = {entry.name: entry.shape[1] for entry in session.get_inputs()}
        wanted = {"x_cat": len(self.categorical), "x_cont": len(self.numeric)}
        if {name: wanted[name] for name in found if name in wanted} != found:
            raise FormatError(
                f"the network of {self.scenario} takes {found} columns, and its files describe"
                f" {wanted}; use config_space.json, encoding.json and model.onnx of one release"
            )
        return session

    @cached_property
    def _columns(self) -> tuple[str, ...]:
        order = _ORDERS[self.scenario]
        unknown = set(self._declared) ^ set(order)
        if unknown:
            raise FormatError(
                f"config_space.json of {self.scenario} and the known columns differ in"
                f" {sorted(unknown)}; use the files of YAHPO's release 1.0"
            )
        return order

    @cached_property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric input columns."""
        return tuple(name for name in self._columns if name not in self._codes)

    @cached_property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical input columns."""
        return tuple(name for name in self._columns if name in self._codes)

    @cached_property
    def outputs(self) -> tuple[str, ...]:
        """Names of the output columns."""
        with _reading(self.folder):
            width = self._session.get_outputs()[0].shape[1]
        for names in _OUTPUTS[self.kind]:
            if len(names) == width:
                return names
        raise FormatError(
            f"the network of {self.scenario} has {width} outputs, known releases have"
            f" {[len(names) for names in _OUTPUTS[self.kind]]}; use YAHPO's release 1.0"
        )

    @property
    def instance(self) -> str | None:
        """Name of the column that says which data set; None where there is just one."""
        return next((name for name in _INSTANCE_NAMES if name in self._declared), None)

    @property
    def instances(self) -> tuple[str, ...]:
        """The data sets that the network was trained on and the space lists, by number."""
        if self.instance is None:
            return ("CIFAR10",)
        known = set(self._codes[self.instance])
        choices = [str(c) for c in self._declared[self.instance]["choices"] if str(c) in known]
        return tuple(sorted(choices, key=lambda choice: (len(choice), choice)))

    @property
    def fidelity(self) -> str | None:
        """Name of the varied fidelity; `repl` is none beside another and is kept at its most."""
        return next((name for name in _FIDELITIES if name in self._declared), None)

    @cached_property
    def levels(self) -> Levels | None:
        """Integer levels of the fidelity; percent where it is a fraction."""
        if self.fidelity is None:
            return None
        declared = self._declared[self.fidelity]
        low, high = declared["lower"], declared["upper"]
        if declared["type"] == "uniform_float":
            percent = (round(low / _PERCENT), round(high / _PERCENT))
            return Levels(f"percent of {self.fidelity}", *percent, continues=False)
        # LCBench's curves begin at epoch 2: at 1 the network answers as if untrained.
        return Levels(self.fidelity, 2 if self.scenario == "lcbench" else int(low), int(high))

    @cached_property
    def fixed(self) -> dict[str, Any]:
        """Values that no config holds: fidelities at their most, constants."""
        fixed = {n: self._declared[n]["upper"] for n in _FIDELITIES if n in self._declared}
        constants = {n: d["value"] for n, d in self._declared.items() if d["type"] == "constant"}
        return fixed | constants

    @cached_property
    def space(self) -> SearchSpace:
        """The tuned parameters with their logs, integers and conditions."""
        tuned = [n for n in self._declared if n not in self.fixed and n != self.instance]
        when = self._when()
        return SearchSpace({n: _parameter(n, self._declared[n], when.get(n)) for n in tuned})

    def _when(self) -> dict[str, When]:
        """Child -> the one condition it hangs on, which implies every other of its conditions."""
        atoms: dict[str, list[tuple[str, frozenset[Any]]]] = {}
        for condition in self._conditions:
            atoms.setdefault(condition["child"], []).extend(_atoms(condition))

        def implies(one: tuple[str, frozenset[Any]], other: tuple[str, frozenset[Any]]) -> bool:
            if one[0] == other[0]:
                return one[1] <= other[1]
            return any(implies(upper, other) for upper in atoms.get(one[0], ()))

        chosen: dict[str, When] = {}
        for child, listed in atoms.items():
            enough = [a for a in listed if all(implies(a, b) for b in listed)]
            if not enough:
                raise FormatError(
                    f"`{child}` of {self.scenario} hangs on several independent parents, which no"
                    " search space here can say; choose another scenario"
                )
            chosen[child] = (enough[0][0], sorted(enough[0][1], key=str))
        return chosen

    def check(self) -> None:
        """Read everything but the network; raises `FormatError` where the files are damaged."""
        with _reading(self.folder):
            if self.fidelity is not None and self.fidelity not in self.numeric:
                raise ValueError(f"the fidelity `{self.fidelity}` is categorical")
            np.array([self.fixed[n] for n in self.numeric if n in self.fixed], np.float32)
            for name in self.categorical:
                np.array(list(self._codes[name].values()), np.int32)
                parameter = self.space.get(name)
                for value in getattr(parameter, "choices", ()):
                    self._code(name, value)
            _ = self.levels, self.instances

    def predict(self, configs: Sequence[Config], instance: str, fidelities: Array) -> Array:
        """`n x outputs` for n configs; `fidelities`: `(n,)` in the network's unit (1.0, epochs).

        An inactive parameter is 0 when numeric and the code of "#na#" when categorical, which is
        what the networks were trained with.
        """
        fixed = dict(self.fixed)
        if self.instance is not None:
            fixed[self.instance] = instance
        rows = [{**fixed, **config} for config in configs]
        numeric = np.array([[row.get(n, 0) for n in self.numeric] for row in rows], np.float32)
        codes = [[self._code(n, row.get(n)) for n in self.categorical] for row in rows]
        if self.fidelity is not None:
            numeric[:, self.numeric.index(self.fidelity)] = fidelities
        return self._run(numeric, np.array(codes, np.int32))

    def predict_curve(self, config: Config, instance: str, fidelities: Array) -> Array:
        """`predict` for one config at several fidelities, in one call of the network."""
        row = {**self.fixed, **config, **({self.instance: instance} if self.instance else {})}
        numeric = np.array([row.get(n, 0) for n in self.numeric], np.float32)
        codes = np.array([self._code(n, row.get(n)) for n in self.categorical], np.int32)
        numeric = np.tile(numeric, (len(fidelities), 1))
        if self.fidelity is not None:
            numeric[:, self.numeric.index(self.fidelity)] = fidelities
        return self._run(numeric, np.tile(codes, (len(fidelities), 1)))

    def _code(self, name: str, value: Any) -> int:
        codes = self._codes[name]
        key = "#na#" if value is None else str(value)
        if key not in codes:
            raise ValueError(
                f"`{name}` of {self.scenario} has no code for {value!r}; known: {codes}"
            )
        return codes[key]

    def _run(self, numeric: NDArray[np.float32], codes: NDArray[np.int32]) -> Array:
        feed: dict[str, Any] = {"x_cont": numeric}
        if self.categorical:
            feed["x_cat"] = codes
        return np.asarray(self._session.run(None, feed)[0], np.float64)


def _parameter(name: str, declared: Mapping[str, Any], when: When | None) -> Parameter:
    role, kind = _ROLES.get(name, Role.OTHER), declared["type"]
    if kind == "categorical":
        return Categorical(declared["choices"], role=role, when=when)
    if kind == "ordinal":
        return Categorical(declared["sequence"], ordered=True, role=role, when=when)
    low, high, log = declared["lower"], declared["upper"], bool(declared["log"])
    if kind == "uniform_int":
        return Int(int(low), int(high), log=log, role=role, when=when)
    if kind == "uniform_float":
        return Float(float(low), float(high), log=log, role=role, when=when)
    raise ValueError(
        f"`{name}` has the unknown type {kind!r} in config_space.json; see `_parameter`"
    )


def _atoms(condition: Mapping[str, Any]) -> list[tuple[str, frozenset[Any]]]:
    """A condition as (parent, values) pairs that must all hold."""
    kind = condition["type"]
    if kind == "EQ":
        return [(condition["parent"], frozenset([condition["value"]]))]
    if kind == "IN":
        return [(condition["parent"], frozenset(condition["values"]))]
    if kind == "AND":
        return [atom for part in condition["conditions"] for atom in _atoms(part)]
    raise ValueError(f"a condition of type {kind!r} is not known; EQ, IN and AND are")


# --- tasks ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SurrogateTask:
    """One instance of a scenario. Curves hold every level up to the one asked for where a run can
    continue, and otherwise the last point only."""

    name: str
    surrogate: Surrogate
    instance: str
    unit: str = "seconds"
    pool: None = None

    @property
    def space(self) -> SearchSpace:
        return self.surrogate.space

    @property
    def levels(self) -> Levels | None:
        return self.surrogate.levels

    @property
    def seen_in_design(self) -> bool:
        return self.instance in _SEEN.get(self.surrogate.scenario, frozenset())

    @cached_property
    def bounds(self) -> Bounds:
        """Best and worst known; from `data/yahpo_bounds.json`, or searched where it is silent."""
        stored = _stored_bounds().get(self.name)
        if stored is not None:
            return Bounds(*stored)
        _log.info("searching for the best and worst losses of %s", self.name)
        return search_bounds(self)

    def evaluate(self, config: Config, level: int | None, rng: np.random.Generator) -> Evaluation:
        config = self.space.validate(config)
        if self.levels is None:
            if level is not None:
                raise ValueError(f"`level` must be None for {self.name}, got {level!r}")
            levels = np.array([1])
        else:
            last = self.levels.check(level)
            levels = np.arange(self.levels.low if self.levels.continues else last, last + 1)
        predicted = self.surrogate.predict_curve(config, self.instance, self._natural(levels))
        losses, costs = self._losses(predicted), self._costs(predicted)
        curve = tuple(
            Point(int(reached), float(loss), float(cost))
            for reached, loss, cost in zip(levels, losses, costs, strict=True)
        )
        return Evaluation(curve[-1].loss, curve[-1].cost, curve)

    def full_losses(self, configs: Sequence[Config]) -> Array:
        """`(n,)` losses at full fidelity, in one call of the network."""
        top = np.array([1 if self.levels is None else self.levels.high] * len(configs))
        return self._losses(self.surrogate.predict(configs, self.instance, self._natural(top)))

    def _natural(self, levels: NDArray[np.int64]) -> Array:
        """Levels in the unit of the network."""
        fraction = self.levels is not None and not self.levels.continues
        return np.asarray(levels * (_PERCENT if fraction else 1.0), np.float64)

    def _losses(self, predicted: Array) -> Array:
        # A network may leave [0, 1] by a hair, where no accuracy can be.
        name, to_loss, _ = _TARGETS[self.surrogate.kind]
        values = to_loss(predicted[:, self.surrogate.outputs.index(name)])
        return np.asarray(np.clip(values, 0.0, 1.0))

    def _costs(self, predicted: Array) -> Array:
        # Predicted seconds of a curve may dip by an epoch's noise; what was spent cannot.
        seconds = predicted[:, self.surrogate.outputs.index(_TARGETS[self.surrogate.kind][2])]
        return np.asarray(np.maximum.accumulate(np.maximum(seconds, _SMALLEST_COST)))


@functools.lru_cache(maxsize=1)
def _stored_bounds() -> dict[str, tuple[float, float]]:
    if not _BOUNDS_FILE.exists():
        return {}
    return {name: tuple(pair) for name, pair in json.loads(_BOUNDS_FILE.read_text()).items()}


def search_bounds(task: SurrogateTask, samples: int = 20_000, rounds: int = 30) -> Bounds:
    """Best and worst loss at full fidelity found by a fixed search, seeded by the task's name.

    `samples` uniform configs of the space (logs uniform in logs), then, for the best and again for
    the worst, `rounds` of 400 neighbors: of the 20 leading configs each parameter is redrawn with
    probability 0.4, numeric ones normally around their value with a width that shrinks from 20 % to
    0.2 % of their range. An optimizer may still find a little better; regret is then clipped to 0.
    """
    rng = np.random.default_rng(zlib.crc32(task.name.encode()))
    configs = [_draw(task.space, None, 1.0, rng) for _ in range(samples)]
    losses = task.full_losses(configs)
    found = []
    for sign in (1.0, -1.0):
        order = np.argsort(sign * losses, kind="stable")[:20]
        leading, values = [configs[i] for i in order], losses[order]
        for width in np.geomspace(0.2, 0.002, rounds):
            near = [_draw(task.space, config, width, rng) for config in leading * 20]
            leading, values = leading + near, np.concatenate([values, task.full_losses(near)])
            order = np.argsort(sign * values, kind="stable")[:20]
            leading, values = [leading[i] for i in order], values[order]
        found.append(float(values[0]))
    return Bounds(*found)


def _draw(
    space: SearchSpace, around: Config | None, width: float, rng: np.random.Generator
) -> dict[str, Any]:
    """A uniform config, or a neighbor of `around`."""
    config: dict[str, Any] = {}
    for name in space.parents_first:
        parameter = space[name]
        when = getattr(parameter, "when", None)
        if when is not None and config.get(when[0]) not in when[1]:
            continue
        old = None if around is None else around.get(name)
        if old is not None and rng.random() >= 0.4:
            config[name] = old
        elif isinstance(parameter, Categorical):
            config[name] = parameter.choices[int(rng.integers(len(parameter.choices)))]
        elif isinstance(parameter, Float | Int):
            low, high = parameter.limits
            ends = np.log([low, high]) if parameter.log else np.array([low, high], float)
            if old is None:
                value = rng.uniform(*ends)
            else:
                here = np.log(old) if parameter.log else float(old)
                value = np.clip(here + width * (ends[1] - ends[0]) * rng.normal(), *ends)
            config[name] = parameter.canonical(float(np.exp(value) if parameter.log else value))
    return {name: config[name] for name in space if name in config}


@functools.lru_cache(maxsize=8)
def _surrogate(scenario: str) -> Surrogate:
    if scenario not in _ORDERS:
        raise ValueError(f"a YAHPO scenario is one of {list(_ORDERS)}, got {scenario!r}")
    hint = (
        f"run `python -m benchmarks.tasks.yahpo --fetch {scenario}`"
        if scenario in _CHECKSUMS
        else "clone https://github.com/slds-lmu/yahpo_data as `yahpo` into $SCALETUNE_DATA"
    )
    model = data.find(f"yahpo/{scenario}/model.onnx", hint)
    surrogate = Surrogate(scenario, model.parent)
    surrogate.check()
    return surrogate


def names() -> tuple[str, ...]:
    """Names of every instance of every scenario whose folder is here."""
    found: list[str] = []
    for scenario in _ORDERS:
        try:
            surrogate = _surrogate(scenario)
        except DataMissing:
            continue
        short = next((s for s, long in _SHORT.items() if long == scenario), f"yahpo/{scenario}")
        found.extend(f"{short}/{instance}" for instance in surrogate.instances)
    return tuple(found)


def load(name: str) -> SurrogateTask:
    """`lcbench/ID`, `rpart/ID` or `yahpo/SCENARIO/ID`.

    Raises `ValueError` for an unknown scenario or instance, `DataMissing` without its files,
    `FormatError` where they are damaged.
    """
    family, _, rest = name.partition("/")
    scenario, _, instance = (
        rest if family == "yahpo" else f"{_SHORT.get(family)}/{rest}"
    ).partition("/")
    surrogate = _surrogate(scenario)
    if instance not in surrogate.instances:
        raise ValueError(
            f"{scenario} has the instances {list(surrogate.instances)}, got {instance!r}; pick one"
        )
    return SurrogateTask(name, surrogate, instance)


# --- commands ------------------------------------------------------------------------------------


def fetch(scenario: str) -> Path:
    """Download a scenario's files, check their sha256, and only then put them in place.

    Raises `ValueError` for a scenario without known checksums and for a file that does not match.
    """
    if scenario not in _CHECKSUMS:
        raise ValueError(
            f"checksums are known for {list(_CHECKSUMS)}, got {scenario!r}; clone"
            " https://github.com/slds-lmu/yahpo_data as `yahpo` into $SCALETUNE_DATA instead"
        )
    folder = data.cache() / "yahpo" / scenario
    folder.mkdir(parents=True, exist_ok=True)
    for file, checksum in zip(_FILES, _CHECKSUMS[scenario], strict=True):
        with urllib.request.urlopen(f"{_SOURCE}/{scenario}/{file}") as answer:
            content = answer.read()
        found = hashlib.sha256(content).hexdigest()
        if found != checksum:
            raise ValueError(
                f"{scenario}/{file} from {_SOURCE} has sha256 {found}, expected {checksum}; try"
                " again, or clone the repository by hand"
            )
        part = folder / f"{file}.part"
        part.write_bytes(content)
        os.replace(part, folder / file)
    return folder


def main(words: Sequence[str] | None = None) -> int:
    """The commands in the module's docstring; returns the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--fetch", nargs="+", default=[], metavar="SCENARIO")
    parser.add_argument("--bounds", action="store_true", help="search and write the bounds file")
    arguments = parser.parse_args(words)
    try:
        for scenario in arguments.fetch:
            print(fetch(scenario))
        if arguments.bounds:
            _write_bounds()
    except (ValueError, OSError) as error:  # no network included
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _write_bounds() -> None:
    found = {}
    suites = [name for suite in SUITES.values() for name in suite]
    for name in [n for n in suites if n.partition("/")[0] in _SHORT]:
        bounds = search_bounds(load(name))
        found[name] = (round(bounds.best, 6), round(bounds.worst, 6))
        print(f"{name} {found[name][0]:.6f} {found[name][1]:.6f}", file=sys.stderr)
    _BOUNDS_FILE.parent.mkdir(exist_ok=True)
    lines = ",\n".join(f'"{name}": [{b}, {w}]' for name, (b, w) in found.items())
    _BOUNDS_FILE.write_text(f"{{\n{lines}\n}}\n")


if __name__ == "__main__":
    sys.exit(main())
