"""Spaces in terms of ConfigSpace, which SMAC, DEHB and BOHB use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from benchmarks.peers.spaces import CodedAxis, CodeKind, Translation

if TYPE_CHECKING:
    from ConfigSpace import Configuration, ConfigurationSpace
    from ConfigSpace.hyperparameters import Hyperparameter

__all__ = ["config_space", "configuration"]


def config_space(translation: Translation, seed: int) -> ConfigurationSpace:
    """Return the searched axes with their conditions; it samples from its own stream."""
    from ConfigSpace import ConfigurationSpace, InCondition

    space = ConfigurationSpace(seed=seed)
    for axis in translation.axes:
        space.add(_hyperparameter(axis))
    for axis in translation.axes:
        if axis.parent is not None:
            space.add(InCondition(space[axis.name], space[axis.parent], list(axis.values)))
    return space


def configuration(
    space: ConfigurationSpace, translation: Translation, config: Mapping[str, Any]
) -> Configuration:
    """Return `config` as a ConfigSpace configuration."""
    from ConfigSpace import Configuration

    return Configuration(space, values=translation.codes(config))


def _hyperparameter(axis: CodedAxis) -> Hyperparameter[Any]:
    from ConfigSpace import (
        CategoricalHyperparameter,
        UniformFloatHyperparameter,
        UniformIntegerHyperparameter,
    )

    if axis.kind is CodeKind.CATEGORY:
        return CategoricalHyperparameter(axis.name, list(range(axis.size)))
    if axis.kind is CodeKind.INTEGER:
        return UniformIntegerHyperparameter(axis.name, int(axis.low), int(axis.high), log=axis.log)
    return UniformFloatHyperparameter(axis.name, float(axis.low), float(axis.high), log=axis.log)
