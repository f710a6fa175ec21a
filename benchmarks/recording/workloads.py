"""The curve bank's workloads: three, each over one space and at three sizes.

A level is one pass over the 898 training images of the digits, or 6144 bytes for the transformer.
No schedule depends on the length of the run, so that the first r levels of a run are exactly a run
of r levels. Bounds are wide on purpose: they include runs that diverge, that learn nothing, that
overfit, and that start slowly and end best (warm-up, dropout, shifts, small or decaying learning
rates).

This module loads no torch: tasks read the spaces from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hpo import Categorical, Float, Int, Role, SearchSpace

LEVELS = 27


@dataclass(frozen=True, slots=True)
class Reading:
    """State of a run after one more level.

    Attributes:
        loss: validation cross-entropy in nats, NaN once the run diverged.
        error: share of validation images classified wrongly; NaN for the transformer.
        train_loss: mean training loss over the level, as minimized.
        flops: FLOPs spent on training so far.
    """

    loss: float
    error: float
    train_loss: float
    flops: float


@dataclass(frozen=True, slots=True)
class Workload:
    """A training run with its space and sizes.

    Attributes:
        name: name of the workload.
        space: settings of a run.
        sizes: requested numbers of parameters, ascending.
        parameters: function of the size; parameters as built, non-embedding ones for the
            transformer.
        train: function of size, config and seed; readings without end, or up to the level that
            diverged.
    """

    name: str
    space: SearchSpace
    sizes: tuple[float, float, float]
    parameters: Callable[[float], int]
    train: Callable[[float, Mapping[str, Any], int], Iterator[Reading]]


def _mlp_parameters(size: float) -> int:
    from benchmarks.workloads.digits import mlp_shape_for

    return mlp_shape_for(size).parameters


def _resnet_parameters(size: float) -> int:
    from benchmarks.workloads.digits import resnet_shape_for

    return resnet_shape_for(size).parameters


def _transformer_parameters(size: float) -> int:
    from hpo.training.transformer import params_to_shape

    return params_to_shape(size).non_embedding


def _train_mlp(size: float, config: Mapping[str, Any], seed: int) -> Iterator[Reading]:
    from benchmarks.workloads.digits import DigitsRecipe, mlp_shape_for, train_epochs

    for epoch in train_epochs(mlp_shape_for(size), DigitsRecipe(**config), seed=seed):
        yield Reading(epoch.loss, epoch.error, epoch.train_loss, epoch.flops)


def _train_resnet(size: float, config: Mapping[str, Any], seed: int) -> Iterator[Reading]:
    from benchmarks.workloads.digits import DigitsRecipe, resnet_shape_for, train_epochs

    for epoch in train_epochs(resnet_shape_for(size), DigitsRecipe(**config), seed=seed):
        yield Reading(epoch.loss, epoch.error, epoch.train_loss, epoch.flops)


def _train_transformer(size: float, config: Mapping[str, Any], seed: int) -> Iterator[Reading]:
    from benchmarks.recording.transformer import train_levels

    for loss, train_loss, flops in train_levels(size, config, seed=seed):
        yield Reading(loss, math.nan, train_loss, flops)


WORKLOADS: Mapping[str, Workload] = {
    "mlp": Workload(
        name="mlp",
        space=SearchSpace(
            {
                "optimizer": Categorical(["adamw", "sgd"]),
                "lr": Float(1e-4, 1.0, log=True, role=Role.LR),
                "momentum": Float(0.3, 0.99, logit=True, when=("optimizer", ["sgd"])),
                "beta2": Float(
                    0.9, 0.999, logit=True, role=Role.BETA2, when=("optimizer", ["adamw"])
                ),
                "weight_decay": Float(1e-5, 1.0, log=True, role=Role.WEIGHT_DECAY),
                "batch_size": Int(16, 256, log=True, role=Role.BATCH),
                "dropout": Float(0.0, 0.6, role=Role.DROPOUT),
                "warmup": Float(0.0, 6.0, role=Role.WARMUP),
                "decay": Float(0.0, 1.0),
                "activation": Categorical(["relu", "gelu", "tanh"]),
            }
        ),
        sizes=(2e3, 1e4, 5e4),
        parameters=_mlp_parameters,
        train=_train_mlp,
    ),
    "resnet": Workload(
        name="resnet",
        space=SearchSpace(
            {
                "optimizer": Categorical(["adamw", "sgd"]),
                "lr": Float(1e-3, 1.0, log=True, role=Role.LR),
                "momentum": Float(0.3, 0.99, logit=True, when=("optimizer", ["sgd"])),
                "weight_decay": Float(1e-5, 1.0, log=True, role=Role.WEIGHT_DECAY),
                "batch_size": Int(16, 256, log=True, role=Role.BATCH),
                "dropout": Float(0.0, 0.5, role=Role.DROPOUT),
                "label_smoothing": Float(0.0, 0.3),
                "shift": Int(0, 2),
                "warmup": Float(0.0, 6.0, role=Role.WARMUP),
                "decay": Float(0.0, 1.0),
            }
        ),
        sizes=(1250.0, 3750.0, 11250.0),
        parameters=_resnet_parameters,
        train=_train_resnet,
    ),
    "transformer": Workload(
        name="transformer",
        space=SearchSpace(
            {
                "lr": Float(3e-4, 0.3, log=True, role=Role.LR),
                "weight_decay": Float(1e-3, 1.0, log=True, role=Role.WEIGHT_DECAY),
                "beta2": Float(0.9, 0.999, logit=True, role=Role.BETA2),
                "batch_size": Int(4, 32, log=True, role=Role.BATCH),
                "clip": Float(0.1, 100.0, log=True),
                "dropout": Float(0.0, 0.3, role=Role.DROPOUT),
                "warmup": Float(0.0, 6.0, role=Role.WARMUP),
                "decay": Float(0.0, 1.0),
            }
        ),
        sizes=(4e3, 16e3, 64e3),
        parameters=_transformer_parameters,
        train=_train_transformer,
    ),
}
