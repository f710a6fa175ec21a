"""Earlier runs of the same task, as a search of a given space can learn them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from hpo.errors import SpaceError
from hpo.space import Direction, SearchSpace
from hpo.space.scalars import shown
from hpo.trials.log import TrialLog
from hpo.trials.read_runs.runs import Runs, read_runs
from hpo.trials.records import SECONDS, Cause, Observation

__all__ = ["History", "earlier_runs"]

#: What holds earlier runs: what `read_runs` returned or can read, an object with a `log`, such as a
#: `Result` or an `Optimizer`, or observations.
History: TypeAlias = Any

_log = logging.getLogger(__name__)


def earlier_runs(
    source: History, space: SearchSpace, direction: Direction, cost: str | None
) -> tuple[Observation, ...]:
    """Return earlier runs in the space, direction and cost unit of a study.

    Runs that the space cannot hold are left out with a warning.

    Args:
        source: Runs, or what holds them.
        space: Space of the study.
        direction: Direction of the study.
        cost: Unit of its costs; None where none is declared.

    Raises:
        TypeError: If the source holds no runs.
        RunFileError: If it cannot be read.
        SpaceError: If the space can hold none of the runs.
        ValueError: If the runs have another direction.

    Example:
        >>> from hpo.space import Float
        >>> space = SearchSpace({"x": Float(0.0, 1.0)})
        >>> runs = earlier_runs([{"x": 0.5, "loss": 2.5}], space, Direction.MINIMIZE, None)
        >>> [(run.config, run.loss) for run in runs]
        [({'x': 0.5}, 2.5)]
    """
    log = getattr(source, "log", None)
    if isinstance(log, TrialLog):
        told = getattr(source, "direction", None)
        _check_direction("the result", told if isinstance(told, str) else None, direction)
        unit = getattr(source, "cost_unit", None)
        return _priced(_fitting("the result", log.runs, space), unit, cost)
    if isinstance(source, list | tuple) and source and isinstance(source[0], Observation):
        return _fitting("the observations", source, space)
    runs = source
    if not isinstance(runs, Runs):
        try:
            runs = read_runs(source, space=space, direction=direction.value)
        except TypeError:
            raise TypeError(
                "`history` must be a result, observations, or what `read_runs` can read, got"
                f" {shown(source)}; pass the path of a table of runs"
            ) from None
        for sentence in runs.guesses.rows:
            _log.info("history: %s", sentence)
    _check_direction(runs.name, runs.direction, direction)
    observations: Sequence[Observation] = runs.observations
    if runs.space != space:
        observations = _fitting(runs.name, observations, space)
    return _priced(observations, runs.cost_unit, cost)


def _check_direction(name: str, theirs: str | None, direction: Direction) -> None:
    if theirs is not None and theirs != direction.value:
        raise ValueError(
            f"earlier runs must have the direction of the search, {direction.value}, got {theirs}"
            f" from {name}; read them with direction={direction.value!r}"
        )


def _fitting(
    name: str, observations: Iterable[Observation], space: SearchSpace
) -> tuple[Observation, ...]:
    """Return the runs that the space can hold, and warn of the others."""
    fitting, why = [], Counter[str]()
    for observation in observations:
        if observation.cause is Cause.LOST:
            continue
        try:
            config = space.canonical(observation.config, extrapolate=True)
        except SpaceError as error:
            why[str(error)] += 1
            continue
        fitting.append(replace(observation, config=config))
    if why:
        first, count = why.most_common(1)[0]
        if not fitting:
            raise SpaceError(f"the space can hold none of the runs from {name}: {first}")
        _log.warning(
            "left out %d runs from %s that the space cannot hold, %d of them because %s",
            why.total(),
            name,
            count,
            first,
        )
    return tuple(fitting)


def _priced(
    observations: Iterable[Observation], unit: str | None, cost: str | None
) -> tuple[Observation, ...]:
    """Return the runs with costs in the unit of the study; None where they have none."""
    if unit == cost and cost is not None:
        return tuple(observations)
    timed = cost == SECONDS
    return tuple(replace(o, cost=o.seconds if timed else None) for o in observations)
