"""A real training run to tune: next-byte prediction on the standard library's source.

    from benchmarks.workloads.language_model import train_language_model
    optimize(train_language_model, space, cost="flops", ...)

The config names the scale, `params` and `tokens`, and any field of `LanguageModelRecipe`; the loss
is the cross-entropy on files that were not trained on, in nats per byte, and the cost the training
FLOPs of `hpo.training.accounting`. It runs on a CUDA device if there is one, else on Apple's, else
on the CPU.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from benchmarks.workloads.corpus import spread_sequences, standard_library
from hpo.training.accounting import (
    ParameterCount,
    Work,
    achieved_flops_per_second,
    training_flops_per_token,
)
from hpo.training.data import Split, Windows
from hpo.training.devices import best_device, seeded
from hpo.training.optimizers import AdamW
from hpo.training.schedules import Cosine
from hpo.training.trainer import Settings, TorchTrainer, TrainingRun
from hpo.training.transformer import Transformer, next_byte_loss, params_to_shape

if TYPE_CHECKING:
    from hpo.study.context import Context

VALIDATION_SEQUENCES = 256
EVALUATIONS = 4
_CLIP_NORM = 1.0
_DIVERGENCE = 3.0


@dataclass(frozen=True, slots=True)
class LanguageModelRecipe:
    """Settings of a run besides its scale. The defaults are usual ones.

    Attributes:
        lr: peak learning rate.
        weight_decay: AdamW's weight decay, on matrices only.
        beta1: decay of AdamW's first moment.
        beta2: decay of AdamW's second moment.
        warmup: share of the tokens over which the learning rate rises from zero.
        batch_size: sequences per step.
        dropout: rate in the residual stream.
        context: bytes per sequence.
        final_lr: end of the cosine decay, as a share of the peak.

    Raises:
        ValueError: if a value is out of range.
    """

    lr: float = 1e-3
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    warmup: float = 0.05
    batch_size: int = 32
    dropout: float = 0.0
    context: int = 64
    final_lr: float = 0.1

    def __post_init__(self) -> None:
        for name in ("lr", "batch_size", "context"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        for name in ("beta1", "beta2", "dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}")
        for name in ("warmup", "final_lr"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"`{name}` must lie in [0, 1], got {getattr(self, name)}")

    def settings(self, tokens: float) -> Settings:
        """Return the trainer's settings of a run on `tokens` bytes."""
        examples = max(1, round(tokens / self.context))
        return Settings(
            examples=examples,
            batch_size=self.batch_size,
            optimizer=AdamW(
                self.lr, self.weight_decay, beta1=self.beta1, beta2=self.beta2, epsilon=1e-8
            ),
            schedule=Cosine(warmup=self.warmup, final=self.final_lr),
            clip=_CLIP_NORM,
            evaluations=min(EVALUATIONS, math.ceil(examples / self.batch_size)),
            # Guessing costs ln 256; with a rate that is much too high, the loss stays above it.
            divergence=_DIVERGENCE,
        )


def train_language_model(config: Mapping[str, Any], ctx: Context) -> dict[str, float]:
    """Train one transformer from scratch, as one trial.

    Reports after each quarter of the run.

    Args:
        config: `params` (non-embedding parameters), `tokens` (bytes to train on, each seen about
            once unless the corpus is smaller) and any fields of `LanguageModelRecipe`.
        ctx: context of the trial.

    Returns:
        What `TorchTrainer` returns: `loss` in nats per byte, NaN if it diverged, `cost` in FLOPs,
        `params` as built.

    Raises:
        ValueError: for a name that is neither a scale nor a field of `LanguageModelRecipe`.
    """
    return TRAINER(config, ctx)


def train_transformer(config: Mapping[str, Any], *, seed: int) -> dict[str, float]:
    """Train one transformer outside of a study; see `train_language_model`."""
    return TRAINER.train(config, seed=seed)


def measured_flops_per_second(
    params: float, recipe: LanguageModelRecipe | None = None, *, seconds: float = 1.0
) -> float:
    """Return the training FLOPs per second that this machine achieves, by a short timed run.

    Args:
        params: non-embedding parameters of the model.
        recipe: settings of the run; by default the usual ones.
        seconds: time to measure.
    """
    recipe = recipe or LanguageModelRecipe()
    device = best_device()
    endless = {"params": params, "tokens": 1e15, **dataclasses.asdict(recipe)}
    with seeded(0, device):
        run = TrainingRun(TRAINER, endless, {}, 0, device)

        def step() -> float:
            float(run.update(share=1.0))  # waits for the device
            assert run.work is not None
            return run.work.flops * recipe.batch_size

        return achieved_flops_per_second(step, seconds=seconds)


def _model(config: Mapping[str, Any], scale: Mapping[str, float]) -> Transformer:
    params, _, recipe = _split(config)
    return Transformer(
        params_to_shape(params),
        context=recipe.context,
        dropout=recipe.dropout,
        rng=torch.default_generator,
    )


def _data(config: Mapping[str, Any], split: Split) -> Any:
    length = _split(config)[2].context + 1
    corpus = standard_library()
    if split is Split.TRAIN:
        return Windows(corpus.train, length)
    return [spread_sequences(corpus.validation, VALIDATION_SEQUENCES, length)]


def _settings(config: Mapping[str, Any]) -> Settings:
    _, tokens, recipe = _split(config)
    return recipe.settings(tokens)


def transformer_work(model: nn.Module, text: Tensor) -> Work:
    """FLOPs and tokens of one sequence of `text`, `B x (T + 1)`, by the formula."""
    assert isinstance(model, Transformer)
    tokens = text.shape[1] - 1
    return Work(tokens * training_flops_per_token(model.shape, tokens), tokens)


def transformer_parameters(model: nn.Module) -> ParameterCount:
    """The read-out counts as embedding, as in scaling laws."""
    assert isinstance(model, Transformer)
    return ParameterCount(model.shape.non_embedding, model.shape.embedding)


def _split(config: Mapping[str, Any]) -> tuple[float, float, LanguageModelRecipe]:
    scales = ("params", "tokens")
    fields = {field.name for field in dataclasses.fields(LanguageModelRecipe)}
    if missing := [name for name in scales if name not in config]:
        raise ValueError(f"`config` must name the scale, but lacks {missing}; got {dict(config)}")
    if unknown := sorted(set(config) - fields - set(scales)):
        raise ValueError(f"`config` may name {sorted(fields)} besides {scales}; got {unknown}")
    settings = {name: value for name, value in config.items() if name in fields}
    return float(config["params"]), float(config["tokens"]), LanguageModelRecipe(**settings)


TRAINER = TorchTrainer(
    make_model=_model,
    make_data=_data,
    loss=next_byte_loss,
    settings=_settings,
    work=transformer_work,
    count=transformer_parameters,
)
"""Trains configs as `train_language_model` describes them."""
