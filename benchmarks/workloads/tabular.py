"""A multilayer perceptron on the small tables that come with scikit-learn.

    from benchmarks.workloads.tabular import SklearnTable, tabular_trainer
    optimize(tabular_trainer(SklearnTable.BREAST_CANCER), space, cost="flops", ...)

A fixed random quarter of the rows is used for validation. Columns are standardized by the other
rows. The loss is the cross-entropy in nats, or for `DIABETES` the mean squared error in units of
the variance of the training targets. An epoch is the number of whole updates nearest to one pass,
and the learning rate does not depend on the length of the run, so the first epochs of a long run
are exactly a shorter run.

    N  parameters, all of them        i  columns of the table
    w  width of the hidden layers     o  outputs: classes, or one for a regression
    L  hidden layers
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.training.accounting import Work
from hpo.training.data import Shuffled, Split
from hpo.training.optimizers import AdamW
from hpo.training.schedules import Constant
from hpo.training.trainer import Settings, TorchTrainer

_VALIDATION_SHARE = 0.25
_SPLIT_SEED = 0


class SklearnTable(Enum):
    """A table of scikit-learn; nothing is downloaded."""

    BREAST_CANCER = "breast_cancer"  # 569 rows, 30 columns, 2 classes
    WINE = "wine"  # 178 rows, 13 columns, 3 classes
    DIABETES = "diabetes"  # 442 rows, 10 columns, a regression


@dataclass(frozen=True, slots=True)
class Rows:
    """A table in two parts: inputs `n x i`, standardized; targets `n`, classes or real numbers."""

    train_inputs: Tensor
    train_targets: Tensor
    validation_inputs: Tensor
    validation_targets: Tensor

    @property
    def outputs(self) -> int:
        """Classes; one for a regression."""
        if self.train_targets.is_floating_point():
            return 1
        return 1 + int(self.train_targets.max())


@cache
def rows(table: SklearnTable) -> Rows:
    """Return the two parts of `table`; read once per process."""
    from sklearn import datasets

    bunch = getattr(datasets, f"load_{table.value}")()
    inputs = torch.tensor(np.asarray(bunch.data), dtype=torch.float32)
    kind = torch.float32 if table is SklearnTable.DIABETES else torch.int64
    targets = torch.tensor(np.asarray(bunch.target), dtype=kind)
    order = torch.from_numpy(np.random.default_rng(_SPLIT_SEED).permutation(len(targets)))
    held = round(_VALIDATION_SHARE * len(targets))
    validation, train = order[:held], order[held:]
    inputs = (inputs - inputs[train].mean(0)) / inputs[train].std(0)
    if kind == torch.float32:
        targets = (targets - targets[train].mean()) / targets[train].std()
    return Rows(inputs[train], targets[train], inputs[validation], targets[validation])


@dataclass(frozen=True, slots=True)
class PerceptronRecipe:
    """Settings of a run besides its size.

    Attributes:
        lr: AdamW's rate after the warm-up.
        weight_decay: weight decay, on weights only.
        batch_size: rows in an update.
        dropout: rate after each hidden layer.
        warmup: epochs over which the rate rises from zero.
        epochs: length of the run; each epoch ends with a validation.

    Raises:
        ValueError: if a value is out of range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    batch_size: int = 32
    dropout: float = 0.0
    warmup: float = 0.0
    epochs: int = 20

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "epochs"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        for name in ("weight_decay", "warmup"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"`dropout` must lie in [0, 1), got {self.dropout}")


@dataclass(frozen=True, slots=True)
class PerceptronShape:
    """`inputs` i, `depth` L hidden layers of `width` w, `outputs` o. `ValueError` below 1."""

    inputs: int
    width: int
    outputs: int
    depth: int = 2

    def __post_init__(self) -> None:
        for name in ("inputs", "width", "outputs", "depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")

    @property
    def parameters(self) -> int:
        """N = w (i + (L - 1) w + o) weights and L w + o biases."""
        return self._weights + self.depth * self.width + self.outputs

    @property
    def training_flops(self) -> int:
        """FLOPs of one row: three products per weight, two in the first layer."""
        return 2 * (3 * self._weights - self.inputs * self.width)

    @property
    def _weights(self) -> int:
        return self.width * (self.inputs + (self.depth - 1) * self.width + self.outputs)


def params_to_shape(n_params: float, *, inputs: int = 30, outputs: int = 2) -> PerceptronShape:
    """Return two hidden layers of the width whose N is nearest to `n_params`.

    Within 5 % from 1000 parameters on. The defaults fit `SklearnTable.BREAST_CANCER`.

    Raises:
        ValueError: for fewer parameters than width 1 has.
    """
    fewest = PerceptronShape(inputs, 1, outputs).parameters
    if not (math.isfinite(n_params) and n_params >= fewest):
        raise ValueError(
            f"`n_params` must be finite and at least the {fewest} of width 1, got {n_params}"
        )
    # N = w^2 + (i + o + 2) w + o solved for w; the nearest N is at a neighboring integer.
    half = 0.5 * (inputs + outputs + 2)
    width = math.sqrt(half**2 + n_params - outputs) - half
    candidates = [
        PerceptronShape(inputs, max(1, near), outputs)
        for near in (math.floor(width), math.ceil(width))
    ]
    return min(candidates, key=lambda shape: abs(shape.parameters - n_params))


class Perceptron(nn.Module):
    """Scores of rows. He initialization from torch's global stream; the read-out starts at zero."""

    def __init__(self, shape: PerceptronShape, *, dropout: float = 0.0) -> None:
        super().__init__()
        self.shape = shape
        widths = [shape.inputs] + [shape.width] * shape.depth
        self.hidden = nn.ModuleList(
            nn.Linear(before, after) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Linear(shape.width, shape.outputs)
        self.dropout = nn.Dropout(dropout)
        for layer in self.hidden:
            assert isinstance(layer, nn.Linear)
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, or the prediction of a regression, `B x o`, of rows `x` `B x i`."""
        for layer in self.hidden:
            x = self.dropout(torch.relu(layer(x)))
        scores: Tensor = self.head(x)
        return scores


def tabular_loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Return the cross-entropy if the targets are classes, else the mean squared error."""
    inputs, targets = batch
    scores = model(inputs)
    if targets.is_floating_point():
        return F.mse_loss(scores[:, 0], targets)
    return F.cross_entropy(scores, targets)


def tabular_trainer(table: SklearnTable = SklearnTable.BREAST_CANCER) -> TorchTrainer:
    """Return a training function for configs of `params` and any fields of `PerceptronRecipe`.

    It reports after each epoch and returns what `TorchTrainer` does, with FLOPs as the cost, and
    for classes `error`, the share of validation rows that are classified wrongly.
    """

    def make_model(config: Mapping[str, Any], scale: Mapping[str, float]) -> Perceptron:
        params, recipe = _split(config)
        data = rows(table)
        shape = params_to_shape(params, inputs=data.train_inputs.shape[1], outputs=data.outputs)
        return Perceptron(shape, dropout=recipe.dropout)

    def make_data(config: Mapping[str, Any], split: Split) -> Any:
        data = rows(table)
        if split is Split.TRAIN:
            return Shuffled([data.train_inputs, data.train_targets])
        return [(data.validation_inputs, data.validation_targets)]

    def settings(config: Mapping[str, Any]) -> Settings:
        _, recipe = _split(config)
        # Whole updates only: a part of one at the end of an epoch would be missing in a longer run.
        updates = max(1, round(len(rows(table).train_targets) / recipe.batch_size))
        return Settings(
            examples=recipe.epochs * updates * recipe.batch_size,
            batch_size=recipe.batch_size,
            optimizer=AdamW(recipe.lr, recipe.weight_decay),
            schedule=Constant(warmup=recipe.warmup * updates),
            evaluations=recipe.epochs,
        )

    return TorchTrainer(
        make_model,
        make_data,
        tabular_loss,
        settings,
        measure=None if table is SklearnTable.DIABETES else _error,
        work=_work,
    )


def _work(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Work:
    assert isinstance(model, Perceptron)
    return Work(float(model.shape.training_flops), 0.0)


def _error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
    inputs, targets = batch
    return {"error": (model(inputs).argmax(1) != targets).float().mean()}


def _split(config: Mapping[str, Any]) -> tuple[float, PerceptronRecipe]:
    fields = {field.name for field in dataclasses.fields(PerceptronRecipe)}
    if "params" not in config:
        raise ValueError(f"`params` must be in the config; got {dict(config)}")
    if unknown := sorted(set(config) - fields - {"params"}):
        raise ValueError(f"`config` may name {sorted(fields)} besides `params`; got {unknown}")
    settings = {name: value for name, value in config.items() if name in fields}
    return float(config["params"]), PerceptronRecipe(**settings)
