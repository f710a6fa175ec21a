"""Roles of parameters and quantities of scale axes, by which transfer rules find them."""

from __future__ import annotations

from enum import Enum

__all__ = ["Axis", "Role"]


class Role(Enum):
    """Role of a parameter in the training run; transfer rules find their parameters by it.

    Example:
        >>> from hpo import Float
        >>> Float(1e-4, 1e-1, log=True, role=Role.LR).role
        <Role.LR: 'lr'>
    """

    LR = "lr"
    BATCH = "batch"
    WEIGHT_DECAY = "weight_decay"
    BETA1 = "beta1"
    BETA2 = "beta2"
    EPSILON = "epsilon"
    WARMUP = "warmup"
    DROPOUT = "dropout"
    INIT = "init"
    OTHER = "other"


class Axis(Enum):
    """Quantity that a scale axis measures; transfer rules and the scaling law look for it.

    Example:
        >>> from hpo import Scale
        >>> Scale(64, 1024, axis=Axis.WIDTH).axis
        <Axis.WIDTH: 'width'>
    """

    PARAMS = "params"
    WIDTH = "width"
    DEPTH = "depth"
    TOKENS = "tokens"
    OTHER = "other"
