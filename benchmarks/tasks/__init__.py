"""The registry: which tasks exist, by name and by suite, each family imported only when asked.

A name is `family/instance`, and may carry wrappers: `lcbench/3945+noise=0.05+failures=0.1`
(`benchmarks.tasks.wrappers`). A family is a module with `names() -> tuple[str, ...]` and
`load(name) -> Task`, which raises `DataMissing` when its data is not here.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import import_module
from typing import Protocol, cast

from benchmarks.task import Task

__all__ = ["FAMILIES", "SUITES", "load", "names"]

#: First part of a name -> module of the family.
FAMILIES: Mapping[str, str] = {
    "synthetic": "benchmarks.tasks.synthetic",
    "fcnet": "benchmarks.tasks.tables",
    "hpobench": "benchmarks.tasks.tables",
    "nasbench201": "benchmarks.tasks.tables",
    "lcbench": "benchmarks.tasks.yahpo",
    "rpart": "benchmarks.tasks.yahpo",
    "yahpo": "benchmarks.tasks.yahpo",
    "hpob": "benchmarks.tasks.hpob",
    "curve-bank": "benchmarks.tasks.curve_bank",
}

_HPOBENCH = (
    "australian",
    "blood_transfusion",
    "car",
    "credit_g",
    "kc1",
    "phoneme",
    "segment",
    "vehicle",
)
_NASBENCH201 = ("cifar10", "cifar100", "imagenet")
_FCNET = (
    "naval_propulsion",
    "parkinsons_telemonitoring",
    "protein_structure",
    "slice_localization",
)
_SYNTHETIC = ("branin", "hartmann6", "ackley10", "ellipsoid6", "mixed")
#: The LCBench instances that the engine's design has seen.
_LCBENCH_DESIGN = ("167168", "189873", "189906", "3945")
#: The first eight others, and the first eight of rpart, both by their ids sorted as numbers.
_LCBENCH = ("7593", "34539", "126025", "126026", "126029", "146212", "167104", "167149")
_RPART = ("3", "6", "11", "12", "14", "15", "16", "18")

_CURVE_BANK = ("mlp", "resnet", "transformer")
#: HPO-B-v3's meta-test split: search space -> its tasks.
_HPOB = {
    "4796": "3549 3918 9903 23",
    "5527": "146064 146065 9914 145804 31 10101",
    "5636": "146064 145804 9914 146065 10101 31",
    "5859": "9983 31 37 3902 9977 125923",
    "5860": "14965 9976 3493",
    "5889": "9971 3918",
    "5891": "9889 3899 6566 9980 3891 3492",
    "5906": "9971 3918",
    "5965": "145836 9914 3903 10101 9889 49 9946",
    "5970": "37 3492 9952 49 34536 14951",
    "5971": "10093 3954 43 34536 9970 6566",
    "6766": "3903 146064 145953 145804 31 10101",
    "6767": "146065 145804 146064 9914 9967 31",
    "6794": "145804 3 146065 10101 9914 31",
    "7607": "14965 145976 3896 3913 3903 9946 9967",
    "7609": "145854 3903 9967 145853 34537 125923 145878",
}

#: Suite -> names of its tasks. "fcnet", "synthetic", "crossing", "curve-bank", "curve-bank-scale"
#: and "lcbench-design" are for development;
#: "hpob-style", "lcbench" and "rpart" are reported; "hpob-*" need the data of HPO-B (5 seeds).
SUITES: Mapping[str, tuple[str, ...]] = {
    "smoke": ("synthetic/branin-0", "synthetic/mixed-0", "synthetic/curves-0"),
    "synthetic": (
        *(f"synthetic/{name}-{seed}" for name in _SYNTHETIC for seed in range(2)),
        "synthetic/curves-0",
        "synthetic/drift-0",
        "synthetic/mixed-0+noise=0.02",
        "synthetic/hartmann6-0+failures=0.1",
    ),
    "fcnet": tuple(f"fcnet/{name}" for name in _FCNET),
    "crossing": tuple(f"synthetic/crossing-{seed}" for seed in range(4)),
    "curve-bank": tuple(f"curve-bank/{name}-large" for name in _CURVE_BANK),
    "curve-bank-scale": tuple(f"curve-bank/{name}" for name in _CURVE_BANK),
    "hpob-style": (
        *(f"hpobench/{name}" for name in _HPOBENCH),
        *(f"nasbench201/{name}" for name in _NASBENCH201),
    ),
    "lcbench": tuple(f"lcbench/{instance}" for instance in _LCBENCH),
    "lcbench-design": tuple(f"lcbench/{instance}" for instance in _LCBENCH_DESIGN),
    "rpart": tuple(f"rpart/{instance}" for instance in _RPART),
    "hpob-v3-test": tuple(f"hpob/v3-test/{s}/{t}" for s, ts in _HPOB.items() for t in ts.split()),
    "hpob-continuous": tuple(
        f"hpob/continuous/{s}/{t}" for s, ts in _HPOB.items() for t in ts.split()
    ),
}


class _Family(Protocol):
    def names(self) -> tuple[str, ...]: ...
    def load(self, name: str) -> Task: ...


def _family(prefix: str) -> _Family:
    if prefix not in FAMILIES:
        raise ValueError(
            f"a task name starts with one of {list(FAMILIES)}, got {prefix!r}; `python -m"
            " benchmarks list` shows every name"
        )
    return cast(_Family, import_module(FAMILIES[prefix]))


def names(family: str) -> tuple[str, ...]:
    """Return the names of all tasks of a family; raises `ValueError` for an unknown one."""
    return tuple(name for name in _family(family).names() if name.startswith(f"{family}/"))


@functools.lru_cache(maxsize=64)
def load(name: str) -> Task:
    """Return the task called `name`; loaded once per process, as tables are read-only.

    Raises:
        ValueError: for an unknown name.
        DataMissing: if its data is not on this machine.
    """
    plain, *wrappers = name.split("+")
    task = _family(plain.partition("/")[0]).load(plain)
    if wrappers:
        from benchmarks.tasks.wrappers import wrap

        task = wrap(task, wrappers)
    return task
