"""What is stored with a trial of an Optuna study, in the format of `split_numbered`.

See :mod:`hpo.trials.attributes`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from optuna.trial import FrozenTrial

from hpo.space.arguments import Kind
from hpo.trials import Prediction
from hpo.trials.attributes import read_if_whole, split_numbered

if TYPE_CHECKING:
    from optuna.study import Study

__all__ = ["ASKED", "ASSIGNMENT", "prediction_of", "read_attribute", "write_attribute"]

ASKED = "scaletune:asked"  # the proposed values and their prediction
ASSIGNMENT = "scaletune:place"  # the rung assignment that a pruner made


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
    trial = Kind(FrozenTrial, way_out="pass one of study.trials")(trial, "`trial`")
    asked = read_attribute(trial.system_attrs, ASKED)
    return None if asked is None else Prediction.from_json(asked["belief"])


def write_attribute(study: Study, trial: FrozenTrial, key: str, value: Mapping[str, Any]) -> None:
    """Store `value` as system attributes of `trial`."""
    storage = study._storage  # the only way to system attributes that is not deprecated
    for name, content in split_numbered(key, value):
        storage.set_trial_system_attr(trial._trial_id, name, content)


def read_attribute(attributes: Mapping[str, Any], key: str) -> dict[str, Any] | None:
    """Return what `write_attribute` stored; None if it is missing or incomplete."""
    return read_if_whole(attributes, key)
