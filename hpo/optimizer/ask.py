"""One ask: everything that is known when a config is to be proposed, and the strategy to use.

An :class:`Ask` goes to one strategy (:mod:`hpo.optimizer.strategies`), which returns a
:class:`Search`: an acquisition to maximize, a region to look in, and a reason. One maximizer does
the rest.

Which strategy answers depends on the data and the index alone, never on a random draw:

===================  ===============================================================================
turn                 when
===================  ===============================================================================
`START`              while start points are left
`EXPLORE`            before any run was completed
`RANDOM`             partial runs: one ask in `RANDOM_EVERY`
`PARTIAL_RUNS`       partial runs, as under a scheduler
`FOREST`             the quantile forest's share of the asks (:mod:`hpo.models.surrogate_selector`)
`OBJECTIVES`         several objectives, or constraints
`TARGET`             a target is named: every ask but one in `FRONT_EVERY`
`FRONT`              else: the front of loss against cost, or the best loss if cost is ignored
===================  ===============================================================================

Which input scaling and which output transform the models use is decided by the same index
(:mod:`hpo.models.log_scale_hedge`, `surrogates.transforms.CYCLE`).

Notation: `X` encoded rows, losses with the sign that makes smaller better, costs in ln.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum

import numpy as np

from hpo.acquisition import Region, Rows, Term, maximize
from hpo.models.fitted import Models
from hpo.models.log_scale_hedge import InputWarp
from hpo.models.objectives import ObjectiveModels
from hpo.space.encoding import Encoder
from hpo.trials import Reason
from surrogates.data import Array
from surrogates.quantile_forest import ForestPredictor

FRONT_EVERY = 2  # with a target, one ask in so many walks the front, the others serve the target
RANDOM_EVERY = 4  # new runs that may pause: one in so many is drawn at random


class Turn(Enum):
    """The strategy that answers an ask."""

    START = "start"
    EXPLORE = "explore"
    RANDOM = "random"
    PARTIAL_RUNS = "partial runs"
    FOREST = "forest"
    OBJECTIVES = "objectives"
    TARGET = "target"
    FRONT = "front"


@dataclass(frozen=True, slots=True)
class CostLimits:
    """What the next trial may cost.

    Attributes:
        log_cap: Largest ln cost; None without limit.
        level: Cost level of this ask, as a share in (0, 1) of the range of possible ln costs.
    """

    log_cap: float | None
    level: float


@dataclass(frozen=True, slots=True)
class Start:
    """The start point of this ask.

    Attributes:
        row: `(d,)`, the row of the initial design.
        number: Its number, from 1.
        count: Number of start points.
        other_tasks: Other tasks that it did best on, with their shares.
    """

    row: Array
    number: int
    count: int
    other_tasks: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Ask:
    """Everything that a strategy may use.

    Attributes:
        warp: Models of the log under one input scaling, and the choice between surrogates.
        turn: Strategy that answers.
        index: Index of the ask; it picks the output transform.
        pending: `(p, d)`, rows asked whose results are not known yet.
        taken: `(t, d)`, every row asked so far, at full fidelity.
        pool: `(q, d)`, the only rows that may be asked; None for all of the space.
        limits: Limits on the cost of the trial.
        cost_aware: Whether to weigh loss against cost.
        target: `(scales,)`, encoded sizes to serve; None without a target.
        start: Start point of this ask; None when all of them were asked.
        objectives: Models of several objectives; None for one loss.
        rng: Source of every random number of the ask.
    """

    warp: InputWarp
    turn: Turn
    index: int
    pending: Array
    taken: Array
    pool: Array | None
    limits: CostLimits
    cost_aware: bool
    target: Array | None
    start: Start | None
    objectives: ObjectiveModels | None
    rng: np.random.Generator

    @property
    def models(self) -> Models:
        """Surrogates of loss, cost and success."""
        return self.warp.models

    @property
    def encoder(self) -> Encoder:
        """Encoder of the rows."""
        return self.warp.encoder


@dataclass(frozen=True, slots=True)
class Search:
    """The acquisition that a strategy wants maximized, and where.

    Attributes:
        acquisition: Sum of log terms, larger is better.
        region: Where to look; replaced by the pool if the ask has one.
        reason: Why; what the maximizer found is added to it.
        reports_value: Whether the reason shows the acquisition, a log expected improvement.
        forest: Quantile forest, if it chooses the row.
        instead: Function of the row found that may return a row to run in its place, with the
            reason; None to keep it.
    """

    acquisition: Term
    region: Region | Rows
    reason: Reason
    reports_value: bool = False
    forest: ForestPredictor | None = None
    instead: Callable[[Array], tuple[Array, Reason] | None] | None = None


@dataclass(frozen=True, slots=True)
class Suggestion:
    """A row to try, `(d,)`, and why; `forest` if the quantile forest chose it."""

    row: Array
    reason: Reason
    forest: ForestPredictor | None = None


def whose_turn(
    warp: InputWarp,
    *,
    index: int,
    starting: bool,
    has_target: bool,
    only_target: bool,
    objectives: ObjectiveModels | None = None,
) -> Turn:
    """Return the strategy that answers the ask of this `index`.

    Args:
        warp: Models for this ask.
        index: Index of the ask.
        starting: Whether start points are left.
        has_target: Whether a target is named.
        only_target: Whether no ask may walk the front.
        objectives: Models of several objectives; None for one loss.
    """
    if starting:
        return Turn.START
    if objectives is not None:
        if warp.models.uses_partial_runs and index % RANDOM_EVERY == 0:
            return Turn.RANDOM
        return Turn.OBJECTIVES if len(objectives.X) else Turn.EXPLORE
    forest = warp.selector.uses_forest(index)
    if warp.models.uses_partial_runs and not forest:
        return Turn.RANDOM if index % RANDOM_EVERY == 0 else Turn.PARTIAL_RUNS
    if not len(warp.models.data):
        return Turn.EXPLORE
    if forest:
        return Turn.FOREST
    if has_target and (only_target or index % FRONT_EVERY):
        return Turn.TARGET
    return Turn.FRONT


def carry_out(search: Search, ask: Ask) -> Suggestion:
    """Return the row that maximizes a search's acquisition, with the complete reason.

    Args:
        search: Acquisition and region that the strategy chose.
        ask: The ask that it answers.

    Raises:
        ArithmeticError: If an acquisition is not a number.
    """
    where = search.region if ask.pool is None else Rows(ask.pool)
    found = maximize(search.acquisition, ask.encoder, where, ask.taken, rng=ask.rng)
    if search.instead is not None and (other := search.instead(found.row)) is not None:
        return Suggestion(other[0], _seen(other[1], ask))
    all_tried = found.repeated and (ask.pool is not None or isinstance(search.region, Region))
    row = found.row if ask.pool is not None else ask.encoder.repaired(found.row[None])[0]
    reason = replace(
        search.reason,
        repeated=all_tried,
        from_pool=ask.pool is not None,
        log_acquisition=found.value if search.reports_value else None,
    )
    return Suggestion(row, _seen(reason, ask), search.forest)


def _seen(reason: Reason, ask: Ask) -> Reason:
    return replace(reason, log_parameters=ask.warp.log_parameters)
