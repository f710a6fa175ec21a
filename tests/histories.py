"""Histories for tests: logs, models and optimizers made of configs and losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hpo import Cause, Observation, Optimizer, Status, Trial
from hpo.models.fitted import Models
from hpo.space import Parameter, SearchSpace
from hpo.space.encoding import Encoder
from hpo.trials import Event, Reported, TrialLog

Config = dict[str, Any]


def random_configs(space: Mapping[str, Parameter], count: int, *, seed: int = 0) -> list[Config]:
    """Return configs drawn evenly from the space."""
    encoder = Encoder(SearchSpace(space))
    U = np.random.default_rng(seed).random((count, len(encoder.lower)))
    return encoder.decode(encoder.from_unit(U, (encoder.lower, encoder.upper)))


def observation(
    number: int, config: Config, loss: float | None, cost: float | None = None
) -> Observation:
    """Return the result of a config that was never asked; without a loss it ran out of memory."""
    status, cause = (Status.COMPLETED, None) if loss is not None else (Status.FAILED, Cause.OOM)
    return Observation(number, config, loss, cost, status, cause, number, ask_index=None)


def log_of(
    configs: Sequence[Config],
    losses: Sequence[float | None],
    costs: Sequence[float] | None = None,
    *,
    asked: bool = False,
) -> TrialLog:
    """Return a log of these results, in order, as if each was asked or as read from elsewhere."""
    log = TrialLog()
    for i, (config, loss) in enumerate(zip(configs, losses, strict=True)):
        result = observation(i, config, loss, None if costs is None else costs[i])
        if asked:
            log.add(Trial(i, config, ask_index=i, prediction=None))
            result = replace(result, ask_index=i)
        log.tell(result)
    return log


def models_of(
    space: Mapping[str, Parameter],
    configs: Sequence[Config],
    losses: Sequence[float | None],
    costs: Sequence[float] | None = None,
    *,
    asked: bool = False,
) -> Models:
    """Return the models of these results."""
    models = Models(Encoder(SearchSpace(space)))
    models.sync(log_of(configs, losses, costs, asked=asked))
    return models


def replay(events: Sequence[Event], optimizer: Optimizer) -> Optimizer:
    """Tell an optimizer the events of another one's log, and return it."""
    log = optimizer.log
    for event in events:
        match event:
            case Trial() if event.number < log.next_number:
                assert event.assignment is not None
                log.resume(event.number, event.assignment.level)
            case Trial():
                optimizer.add_pending(event)
            case Reported(number, report):
                log.report(number, report)
            case Observation():
                optimizer.record(event)
    return optimizer
