"""Runs of other tasks, as a study of one task is given them.

Every history is a number of random runs of each other task, drawn anew for each seed:

* `related`: the other tasks of the task's own family, which share its space;
* `shuffled`: five of these with their losses shuffled, so that nothing is left to learn;
* `mixed`: five functions of other families, each read from the task's space through its own random
  assignment of columns: smooth functions that have nothing to do with the task or with each other;
* `foreign`: five tasks of one other family, read through one assignment: they agree with each
  other as related tasks do, and have nothing to do with the task.
"""

from __future__ import annotations

import functools
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks import tasks
from benchmarks.simulate import draw
from hpo.space.encoding import Encoder

__all__ = ["DESIGN", "FAMILIES", "KINDS", "ROWS", "Runs", "family", "history"]

#: Runs of one other task: (config, loss).
Runs = list[tuple[dict[str, Any], float]]

ROWS = 100  # runs of each other task
UNRELATED = 5  # tasks that have nothing to do with the target

#: Family -> its tasks, which share one space.
FAMILIES: Mapping[str, tuple[str, ...]] = {
    "FCNet": tasks.SUITES["fcnet"],
    "HPOBench": tuple(n for n in tasks.SUITES["hpob-style"] if n.startswith("hpobench")),
    "NAS-Bench-201": tuple(n for n in tasks.SUITES["hpob-style"] if n.startswith("nasbench")),
    "LCBench": tasks.SUITES["lcbench"],
    "rpart": tasks.SUITES["rpart"],
}
#: Tasks on which choices were made; the others are held out.
DESIGN: frozenset[str] = frozenset(
    (
        "fcnet/naval_propulsion",
        "fcnet/slice_localization",
        *FAMILIES["HPOBench"][:4],
        *FAMILIES["NAS-Bench-201"][:1],
        *FAMILIES["LCBench"][:4],
        *FAMILIES["rpart"][:4],
    )
)


def family(task: str) -> str:
    """Return the family that `task` belongs to."""
    return next(name for name, members in FAMILIES.items() if task in members)


def history(kind: str, task: str, seed: int) -> dict[str, Runs]:
    """Return the runs of each other task.

    Args:
        kind: key of `KINDS`.
        task: name of the task that learns from them.
        seed: seed of the study.
    """
    return KINDS[kind](task, seed)


@functools.lru_cache(maxsize=32)
def _random_runs(task: str, seed: int) -> tuple[tuple[dict[str, Any], float], ...]:
    loaded = tasks.load(task)
    rng = np.random.default_rng([seed, zlib.crc32(task.encode()), 7])
    found: Runs = []
    while len(found) < ROWS:
        config = draw(loaded.space, rng)
        loss = loaded.evaluate(config, None, rng).loss
        if loss is not None:
            found.append((config, loss))
    return tuple(found)


def _related(task: str, seed: int) -> dict[str, Runs]:
    return {m: list(_random_runs(m, seed)) for m in FAMILIES[family(task)] if m != task}


def _shuffled(task: str, seed: int) -> dict[str, Runs]:
    rng = np.random.default_rng([seed, 3])
    others = [m for m in FAMILIES[family(task)] if m != task]
    found = {}
    for i in range(UNRELATED):
        runs = _random_runs(others[i % len(others)], seed + 100 * i)
        order = rng.permutation(len(runs))
        found[f"shuffled {i}"] = [
            (config, runs[k][1]) for (config, _), k in zip(runs, order, strict=True)
        ]
    return found


def _mixed(task: str, seed: int) -> dict[str, Runs]:
    others = [members for name, members in FAMILIES.items() if name != family(task)]
    picked = [others[i % len(others)][(seed + i // len(others)) % 3] for i in range(UNRELATED)]
    return {source: _read_through(task, source, [seed, 5, i]) for i, source in enumerate(picked)}


def _foreign(task: str, seed: int) -> dict[str, Runs]:
    others = [
        members
        for name, members in FAMILIES.items()
        if name != family(task) and len(members) >= UNRELATED
    ]
    members = others[(seed + zlib.crc32(task.encode())) % len(others)]
    return {source: _read_through(task, source, [seed, 5]) for source in members[:UNRELATED]}


def _read_through(task: str, source: str, key: Sequence[int]) -> Runs:
    """Return runs of `source` at configs of the space of `task`, columns assigned at random."""
    loaded, read = tasks.load(task), tasks.load(source)
    here, there = Encoder(loaded.space), Encoder(read.space)
    assigned = np.random.default_rng(key).integers(0, len(here.lower), len(there.lower))
    rng = np.random.default_rng([*key, zlib.crc32(source.encode())])
    configs = [draw(loaded.space, rng) for _ in range(ROWS)]
    X = here.encode(configs)
    unit = X / np.maximum(X.max(axis=0), 1.0)  # codes of categories are above 1
    rows = there.lower + unit[:, assigned] * (there.upper - there.lower)
    losses = [read.evaluate(config, None, rng).loss for config in there.decode(there.snap(rows))]
    return [(c, loss) for c, loss in zip(configs, losses, strict=True) if loss is not None]


#: Name of a kind of history -> function of task and seed.
KINDS: Mapping[str, Callable[[str, int], dict[str, Runs]]] = {
    "related": _related,
    "shuffled": _shuffled,
    "mixed": _mixed,
    "foreign": _foreign,
}
