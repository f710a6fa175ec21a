"""The original CARBS, from a source checkout that `SCALETUNE_CARBS` names (it is on no registry).

It searches a front of loss against cost, so costs are told in the task's unit. It knows numbers
only. Every parameter needs a center, here the middle of its range on its own scale, and a scale:
left at 1 (decades) on log axes; elsewhere a quarter of the range, which is what 1 is to a log axis
of four decades, and at least 10/3 for integers, below which its radius reaches no neighbor.
It seeds the process-wide generators, so each call runs under generators of its own. Logging to a
service and checkpoints are off; the rest are its defaults.
"""

from __future__ import annotations

import math
import os
import sys
from typing import TYPE_CHECKING, Any

from benchmarks.peers.base import FullRuns, Job, Unsupported
from benchmarks.peers.seeding import seeded
from benchmarks.peers.spaces import CodedAxis, CodeKind, Translation
from benchmarks.task import Evaluation, Task
from hpo import SearchSpace

if TYPE_CHECKING:
    from carbs import CARBS
    from carbs.utils import Param

_REACH = 1 / 0.3  # one over its `initial_search_radius`


class CarbsPeer(FullRuns):
    """`suggest` and `observe`."""

    def __init__(self, carbs: CARBS, translation: Translation, seed: int) -> None:
        super().__init__()
        self._carbs = carbs
        self._translation = translation
        self._seed = seed
        self._suggested: dict[int, dict[str, Any]] = {}

    def suggest(self, number: int) -> dict[str, Any]:
        with seeded(self._seed, number):
            suggestion = self._carbs.suggest().suggestion
        self._suggested[number] = suggestion
        return self._translation.config(suggestion)

    def tell(self, job: Job, evaluation: Evaluation) -> None:
        from carbs import ObservationInParam

        # With the key of an outstanding suggestion, so that it no longer counts as outstanding.
        told = self._suggested.pop(job.number, {}) | self._translation.codes(job.config)
        observation = ObservationInParam(
            input=told,
            output=0.0 if evaluation.loss is None else evaluation.loss,
            cost=evaluation.cost,
            is_failure=evaluation.loss is None,
        )
        with seeded(self._seed, 2**32 + job.number):
            self._carbs.observe(observation)


def make(task: Task, *, seed: int, trials: int) -> CarbsPeer:
    """See `benchmarks.peers`."""
    return over(task.space, seed=seed)


def over(space: SearchSpace, *, seed: int) -> CarbsPeer:
    """The peer for a space; raises `Unsupported` for one with categories."""
    checkout = os.environ["SCALETUNE_CARBS"]
    if checkout not in sys.path:
        sys.path.append(checkout)
    from carbs import CARBS, CARBSParams
    from loguru import logger

    logger.disable("carbs")
    translation = Translation(space, peer="CARBS")
    spaces = [_parameter(axis) for axis in translation.axes]
    parameters = CARBSParams(
        better_direction_sign=-1,
        seed=seed % 2**31,
        is_wandb_logging_enabled=False,
        is_saved_on_every_observation=False,
    )
    with seeded(seed, 2**33):
        return CarbsPeer(CARBS(parameters, spaces), translation, seed)


def _parameter(axis: CodedAxis) -> Param:
    from carbs import LinearSpace, LogSpace, Param

    if axis.kind is CodeKind.CATEGORY:
        raise Unsupported(f"CARBS knows numbers only, and `{axis.name}` is a category")
    whole = axis.kind is CodeKind.INTEGER
    low, high = float(axis.low), float(axis.high)
    if axis.log:
        center = math.sqrt(low * high)
        space = LogSpace(min=low, max=high, is_integer=whole)
    else:
        center = (low + high) / 2
        scale = max((high - low) / 4, _REACH if whole else 0.0)
        space = LinearSpace(min=low, max=high, scale=scale, is_integer=whole)
    return Param(name=axis.name, space=space, search_center=round(center) if whole else center)
