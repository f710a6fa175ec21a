"""The byte-level transformer, trained level by level.

A level is a fixed number of bytes, the same for all settings and sizes. The learning rate rises
over a warm-up counted in levels and then stays constant or falls as a power of time. It does not
depend on the length of the run, so the first r levels of a run are exactly the run of r levels.
(With the cosine of `benchmarks.workloads.language_model`, every length would be another run.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.workloads.corpus import sample_sequences, spread_sequences, standard_library
from hpo.training.accounting import training_flops_per_token
from hpo.training.transformer import VOCABULARY, Transformer, params_to_shape

CONTEXT = 64
SEQUENCES_PER_LEVEL = 96
VALIDATION_SEQUENCES = 128
#: A run has diverged once the mean training loss of a level, or the validation loss after it,
#: exceeds this many times the loss of guessing.
DIVERGED = 2.0


@dataclass(frozen=True, slots=True)
class Settings:
    """`lr`, `weight_decay` (on matrices), `beta2`: AdamW's. `batch_size`: sequences per step,
    nearly. `clip`: largest norm of the gradient. `dropout`: in the residual stream. `warmup`:
    levels over which the rate rises. `decay`: exponent of its fall afterwards.
    """

    lr: float
    weight_decay: float
    beta2: float
    batch_size: int
    clip: float
    dropout: float
    warmup: float
    decay: float

    def learning_rate(self, levels: float) -> float:
        """lr t / warmup, then lr (1 + t - warmup)^-decay, t in levels."""
        if levels < self.warmup:
            return self.lr * levels / self.warmup
        return float(self.lr * (1.0 + levels - self.warmup) ** -self.decay)


def train_levels(
    params: float, config: Mapping[str, float], *, seed: int
) -> Iterator[tuple[float, float, float]]:
    """Yield validation loss, mean training loss (nats per byte) and training FLOPs of each level.

    Trains a level each time the iterator is advanced; ends after a level that diverged, with loss
    NaN.
    """
    settings = Settings(**config)  # type: ignore[arg-type]  # batch_size is an int in the space
    rng = torch.Generator().manual_seed(seed)
    shape = params_to_shape(params)
    model = Transformer(shape, context=CONTEXT, dropout=settings.dropout, rng=rng)
    groups = [
        {
            "params": [p for p in model.parameters() if p.ndim >= 2],
            "weight_decay": settings.weight_decay,
        },
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=settings.lr, betas=(0.9, settings.beta2), fused=True)
    corpus = standard_library()
    held_out = spread_sequences(corpus.validation, VALIDATION_SEQUENCES, CONTEXT + 1)
    dropout = _Stream(seed)
    flops_per_level = training_flops_per_token(shape, CONTEXT) * SEQUENCES_PER_LEVEL * CONTEXT
    level = 0
    while True:
        text = sample_sequences(corpus.train, SEQUENCES_PER_LEVEL, CONTEXT + 1, rng=rng)
        with dropout.drawn_from():
            train_loss = _train_level(model, optimizer, settings, text, level)
        level += 1
        value = _validation_loss(model, held_out)
        limit = DIVERGED * math.log(VOCABULARY)
        if not (train_loss <= limit and value <= limit):  # also where one is NaN
            yield math.nan, train_loss, level * flops_per_level
            return
        yield value, train_loss, level * flops_per_level


def _train_level(
    model: Transformer,
    optimizer: torch.optim.Optimizer,
    settings: Settings,
    text: Tensor,
    level: int,
) -> float:
    """Train on the sequences of one level, after `level` others; return the mean training loss."""
    steps = max(1, round(SEQUENCES_PER_LEVEL / settings.batch_size))
    total = torch.zeros(())
    for step, batch in enumerate(text.tensor_split(steps)):
        loss = _loss(model, batch)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        nn.utils.clip_grad_norm_(model.parameters(), settings.clip)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate(level + (step + 0.5) / steps)
        optimizer.step()
        total += loss.detach() * len(batch)
    return float(total) / SEQUENCES_PER_LEVEL


class _Stream:
    """torch's global random stream, borrowed for one run's dropout and put back between levels."""

    def __init__(self, seed: int) -> None:
        self._state = torch.Generator().manual_seed(seed).get_state()

    @contextmanager
    def drawn_from(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=[]):
            torch.set_rng_state(self._state)
            yield
            self._state = torch.get_rng_state()


def _loss(model: Transformer, sequences: Tensor) -> Tensor:
    return F.cross_entropy(model(sequences[:, :-1]).flatten(0, 1), sequences[:, 1:].flatten())


@torch.no_grad()
def _validation_loss(model: Transformer, held_out: Tensor) -> float:
    model.eval()
    loss = float(_loss(model, held_out))
    model.train()
    return loss
