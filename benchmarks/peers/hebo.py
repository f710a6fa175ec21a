"""HEBO with its defaults: a warped GP, three acquisitions at once, evolutionary search.

It knows no failures but drops losses that are not finite, so failed runs are told as NaN. It draws
from the process-wide generators. Its release pins NumPy < 1.25 and pymoo 0.6.0, on which it does
not depend in what is used here; the environment installs it beside current ones.
"""

from __future__ import annotations

import warnings
from contextlib import redirect_stdout
from io import StringIO
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.peers.base import FullRuns, Job
from benchmarks.peers.seeding import seeded
from benchmarks.peers.spaces import CodedAxis, CodeKind, Translation
from benchmarks.task import Evaluation, Task

if TYPE_CHECKING:
    from hebo.optimizers.hebo import HEBO


class HeboPeer(FullRuns):
    """Rows are codes, as a data frame of one row."""

    def __init__(self, hebo: HEBO, translation: Translation, seed: int) -> None:
        super().__init__()
        self._hebo = hebo
        self._translation = translation
        self._seed = seed

    def suggest(self, number: int) -> dict[str, Any]:
        # It prints its jitter, and calls what pandas and scikit-learn have deprecated.
        with seeded(self._seed, number), redirect_stdout(StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            row = self._hebo.suggest(1).iloc[0]
        return self._translation.config(row.to_dict())

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        import pandas as pd

        loss = np.nan if evaluation.loss is None else evaluation.loss
        codes = pd.DataFrame([self._translation.codes(job.config)])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._hebo.observe(codes, np.array([[loss]]))


def make(task: Task, *, seed: int, trials: int) -> HeboPeer:
    """See `benchmarks.peers`."""
    from hebo.design_space.design_space import DesignSpace
    from hebo.optimizers.hebo import HEBO

    translation = Translation(task.space, peer="HEBO")
    space = DesignSpace().parse([_dimension(axis) for axis in translation.axes])
    return HeboPeer(HEBO(space, scramble_seed=seed % 2**31), translation, seed)


def _dimension(axis: CodedAxis) -> dict[str, Any]:
    if axis.kind is CodeKind.CATEGORY:
        return {"name": axis.name, "type": "cat", "categories": list(range(axis.size))}
    kind = {
        (CodeKind.REAL, False): "num",
        (CodeKind.REAL, True): "pow",
        (CodeKind.INTEGER, False): "int",
        (CodeKind.INTEGER, True): "pow_int",
    }[axis.kind, axis.log]
    dimension = {"name": axis.name, "type": kind, "lb": axis.low, "ub": axis.high}
    return dimension | ({"base": 10} if axis.log else {})
