"""A real training run to tune: next-byte prediction on the standard library's source.

    from hpo.training.language_model import train_language_model
    optimize(train_language_model, space, cost="flops", ...)

The config names the scale, `params` and `tokens`, and any field of `Recipe`; the loss is the
cross-entropy on files that were not trained on, in nats per byte, and the cost the training FLOPs
of `accounting`. On a CUDA device when there is one, else on Apple's, else on the CPU.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.training.accounting import achieved_flops_per_second, training_flops_per_token
from hpo.training.corpus import sample_sequences, spread_sequences, standard_library
from hpo.training.transformer import Transformer, params_to_shape

if TYPE_CHECKING:
    from hpo.training.context import Context

VALIDATION_SEQUENCES = 256
EVALUATIONS = 4
_CLIP_NORM = 1.0
_STEPS_BETWEEN_CHECKS = 16


@dataclass(frozen=True, slots=True)
class Recipe:
    """The settings of a run besides its scale. The defaults are those people start from.

    `lr`: peak learning rate. `weight_decay`: AdamW's, on matrices only. `beta1`, `beta2`: its
    moment decays. `warmup`: share of the tokens over which the learning rate rises from zero.
    `batch_size`: sequences per step. `dropout`: rate in the residual stream. `context`: bytes per
    sequence. `final_lr`: where the cosine decay ends, as a share of the peak.

    Raises `ValueError` where a value is out of range.
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

    def learning_rate(self, progress: float) -> float:
        """The rate when a share `progress` in [0, 1] of the tokens is done: linear, then cosine."""
        if progress < self.warmup:
            return self.lr * progress / self.warmup
        decayed = (progress - self.warmup) / (1 - self.warmup) if self.warmup < 1 else 1.0
        cosine = 0.5 * (1 + math.cos(math.pi * decayed))
        return self.lr * (self.final_lr + (1 - self.final_lr) * cosine)


def train_language_model(config: Mapping[str, Any], ctx: Context) -> dict[str, float]:
    """One trial: `train_transformer` with the seed and the reports of `ctx`."""
    return train_transformer(config, seed=ctx.seed, report=ctx.report)


def train_transformer(
    config: Mapping[str, Any], *, seed: int, report: Callable[..., None] | None = None
) -> dict[str, float]:
    """Trains one transformer from scratch and returns its validation loss and what it cost.

    `config`: `params` (non-embedding parameters), `tokens` (bytes to train on, each seen about once
    while the corpus lasts) and any fields of `Recipe`. `seed` draws weights, batches and dropout.
    `report(step=, loss=, cost=)` is called after each quarter of the run.

    Returns `loss` in nats per byte, `cost` in FLOPs, `params` as built and `seconds`. A loss that
    is NaN or infinite ends the run and is returned as NaN, with the cost so far. Raises
    `ValueError` for a name that is neither a scale nor a field of `Recipe`.
    """
    params, tokens, recipe = _split(config)
    device = best_device()
    with _seeded(seed, device):
        return _train(_Run(params, recipe, seed=seed, device=device), tokens, report)


def measured_flops_per_second(
    params: float, recipe: Recipe | None = None, *, seconds: float = 1.0
) -> float:
    """Training FLOPs per second that this machine achieves at `params`, by a short timed run."""
    recipe = recipe or Recipe()
    device = best_device()
    with _seeded(0, device):
        run = _Run(params, recipe, seed=0, device=device)

        def step() -> float:
            float(run.step(recipe.batch_size, lr=recipe.lr))  # waits for the device
            return run.flops(recipe.batch_size)

        return achieved_flops_per_second(step, seconds=seconds)


def best_device() -> torch.device:
    """CUDA, else Apple's Metal, else the CPU."""
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


class _Run:
    """A model with its optimizer, text and random stream: what one training step needs."""

    def __init__(self, params: float, recipe: Recipe, *, seed: int, device: torch.device) -> None:
        self.recipe = recipe
        self.device = device
        self.rng = torch.Generator().manual_seed(seed)
        self.model = Transformer(
            params_to_shape(params), context=recipe.context, dropout=recipe.dropout, rng=self.rng
        ).to(device)
        self.optimizer = _adamw(self.model, recipe)
        corpus = standard_library()
        self.text = corpus.train.to(device)
        length = recipe.context + 1
        self.held_out = spread_sequences(corpus.validation, VALIDATION_SEQUENCES, length).to(device)

    def flops(self, sequences: int) -> float:
        per_token = training_flops_per_token(self.model.shape, self.recipe.context)
        return per_token * sequences * self.recipe.context

    def step(self, sequences: int, *, lr: float) -> Tensor:
        """One update on fresh sequences; returns their mean loss, not yet waited for."""
        batch = sample_sequences(self.text, sequences, self.recipe.context + 1, rng=self.rng)
        loss = self._loss(batch)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(self.model.parameters(), _CLIP_NORM)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def validation_loss(self) -> float:
        self.model.eval()
        loss = float(self._loss(self.held_out))
        self.model.train()
        return loss

    def _loss(self, sequences: Tensor) -> Tensor:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            logits = self.model(sequences[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), sequences[:, 1:].flatten())


def _train(run: _Run, tokens: float, report: Callable[..., None] | None) -> dict[str, float]:
    start = time.perf_counter()
    recipe = run.recipe
    total = max(1, round(tokens / recipe.context))  # sequences; the last step takes the remainder
    steps = math.ceil(total / recipe.batch_size)
    report_at = {math.ceil(steps * (i + 1) / EVALUATIONS) for i in range(EVALUATIONS)}
    done = 0
    loss = math.nan
    for step in range(1, steps + 1):
        sequences = min(recipe.batch_size, total - done)
        done += sequences
        # The rate at the middle of the step, so that neither the first nor the last is wasted.
        batch_loss = run.step(sequences, lr=recipe.learning_rate((done - sequences / 2) / total))
        # Looking at a loss waits for the device, so not at every step.
        if step % _STEPS_BETWEEN_CHECKS == 0 and not math.isfinite(float(batch_loss)):
            loss = math.nan
            break
        if step in report_at:
            loss = run.validation_loss()
            if not math.isfinite(loss):
                loss = math.nan
                break
            if report is not None:
                report(step=step, loss=loss, cost=run.flops(done))
    return {
        "loss": loss,
        "cost": run.flops(done),
        "params": float(run.model.shape.non_embedding),
        "seconds": time.perf_counter() - start,
    }


def _split(config: Mapping[str, Any]) -> tuple[float, float, Recipe]:
    scales = ("params", "tokens")
    fields = {field.name for field in dataclasses.fields(Recipe)}
    if missing := [name for name in scales if name not in config]:
        raise ValueError(f"`config` must name the scale, but lacks {missing}; got {dict(config)}")
    if unknown := sorted(set(config) - fields - set(scales)):
        raise ValueError(f"`config` may name {sorted(fields)} besides {scales}; got {unknown}")
    settings = {name: value for name, value in config.items() if name in fields}
    return float(config["params"]), float(config["tokens"]), Recipe(**settings)


def _adamw(model: nn.Module, recipe: Recipe) -> torch.optim.AdamW:
    """AdamW that decays matrices and leaves the norms' gains alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # One kernel for all parameters: a third of the time of the plain loop on small models.
    fused = parameters[0].device.type in ("cpu", "cuda")
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2), fused=fused)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Dropout draws from torch's global stream: seeds it inside, puts it back after."""
    cuda = [torch.cuda.current_device()] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        torch.manual_seed(seed)
        yield
