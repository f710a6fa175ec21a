"""What is stored with a trial of an Optuna study, and how.

A value is JSON cut into chunks that every database takes: attribute `KEY` holds their number,
`KEY:0`, `KEY:1`, ... the chunks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from hpo.trials import Prediction

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["ASKED", "ASSIGNMENT", "prediction_of", "read_attribute", "write_attribute"]

ASKED = "scaletune:asked"  # the proposed values and their prediction
ASSIGNMENT = "scaletune:place"  # the rung assignment that a pruner made

_LONGEST_VALUE = 2000  # characters; some databases refuse texts above 2045


def prediction_of(trial: FrozenTrial) -> Prediction | None:
    """Return what the sampler predicted of a trial when it proposed it.

    Args:
        trial: Trial of a study with a `ScaleTuneSampler`, in any state.

    Returns:
        The prediction; None for a trial that was drawn at random or came from another sampler.

    Example:
        >>> import optuna
        >>> from hpo.adapters.optuna import ScaleTuneSampler, prediction_of
        >>> study = optuna.create_study(sampler=ScaleTuneSampler(seed=0))
        >>> study.optimize(lambda trial: trial.suggest_float("x", -5, 5) ** 2, n_trials=6)
        >>> prediction_of(study.trials[0]) is None  # nothing is known before the first trial
        True
        >>> prediction = prediction_of(study.trials[-1])
        >>> low, high = prediction.loss_interval
        >>> low < prediction.loss < high
        True
    """
    asked = read_attribute(trial.system_attrs, ASKED)
    return None if asked is None else Prediction.from_json(asked["belief"])


def write_attribute(study: Study, trial: FrozenTrial, key: str, value: Mapping[str, Any]) -> None:
    """Store `value` as system attributes of `trial`."""
    text = json.dumps(value)
    chunks = [text[i : i + _LONGEST_VALUE] for i in range(0, len(text), _LONGEST_VALUE)]
    storage = study._storage  # the only way to system attributes that is not deprecated
    for index, chunk in enumerate(chunks):
        storage.set_trial_system_attr(trial._trial_id, f"{key}:{index}", chunk)
    storage.set_trial_system_attr(trial._trial_id, key, len(chunks))


def read_attribute(attributes: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return what `write_attribute` stored; None if it is missing or incomplete."""
    count = attributes.get(key)
    if count is None:
        return None
    try:
        value: dict[str, Any] = json.loads("".join(attributes[f"{key}:{i}"] for i in range(count)))
    except (KeyError, ValueError):
        return None  # another worker is writing it at this moment
    return value
