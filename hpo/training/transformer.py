"""A decoder-only transformer over bytes, and the shape that a parameter count stands for.

Pre-norm blocks (RMSNorm), rotary positions, causal attention, GELU feed-forward, untied head, no
biases. Notation, used in `accounting` too:

    B  sequences in a batch          d  width (residual stream)        h  heads, each d / h wide
    T  context, bytes per sequence   L  depth (blocks)
    V  vocabulary, 256 bytes         f  hidden width of feed-forward
    N  non-embedding parameters: the blocks and the last norm, neither byte embedding nor head
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VOCABULARY = 256
_HEAD_WIDTHS = (16, 32, 64, 128)
_MAX_WIDTH = 32768
_ROTARY_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class Shape:
    """The four integers that fix the size of a transformer.

    `width` d, a multiple of `heads`; `depth` L; `heads` h; `hidden` f, the feed-forward width.
    Raises `ValueError` where one is below 1 or the head width `d / h` is not an even integer
    (rotary positions turn pairs of coordinates).
    """

    width: int
    depth: int
    heads: int
    hidden: int

    def __post_init__(self) -> None:
        for name in ("width", "depth", "heads", "hidden"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be at least 1, got {getattr(self, name)}")
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                "`width / heads` must be an even integer, got "
                f"width={self.width}, heads={self.heads}; change one of them"
            )

    @property
    def non_embedding(self) -> int:
        """N = L (4 d^2 + 2 d f + 2 d) + d: attention, feed-forward, two norms; the last norm."""
        d, f = self.width, self.hidden
        return self.depth * (4 * d * d + 2 * d * f + 2 * d) + d

    @property
    def embedding(self) -> int:
        """2 V d: the byte embedding and the untied head."""
        return 2 * VOCABULARY * self.width


def params_to_shape(n_params: float) -> Shape:
    """The shape whose non-embedding parameter count is nearest to `n_params`.

    Width and depth follow L = 2 (d / 32)^0.55, which passes near the shapes people train (d = 768,
    L = 12; d = 2048, L = 20), and never fall as `n_params` grows; L is at least 2, since one block
    cannot form induction heads and would not lie on the same law. Width moves in whole heads, too
    coarse to hit a count, so the hidden width, 4 d on average, takes up the remainder.

    Returns a shape within 5 % of `n_params` from 10^4 to 10^9. Raises `ValueError` below 1000.
    """
    if not (math.isfinite(n_params) and n_params >= 1000):
        raise ValueError(f"`n_params` must be a finite number of at least 1000, got {n_params}")
    shapes = (_plain_shape(d) for d in range(8, _MAX_WIDTH, 4) if d % _head_width(d) == 0)
    previous = plain = next(shapes)
    for plain in shapes:
        if plain.non_embedding >= n_params:
            break
        previous = plain
    if n_params / previous.non_embedding < plain.non_embedding / n_params:
        plain = previous
    d, depth = plain.width, plain.depth
    multiple = 4 if d < 64 else 8 if d < 128 else 64
    hidden = ((n_params - d) / depth - 4 * d * d - 2 * d) / (2 * d)
    return Shape(d, depth, plain.heads, max(multiple, multiple * round(hidden / multiple)))


def _plain_shape(width: int) -> Shape:
    depth = max(2, round(2 * (width / 32) ** 0.55))
    return Shape(width, depth, width // _head_width(width), 4 * width)


def _head_width(width: int) -> int:
    """The widest of 16 ... 128 that leaves at least four heads, else half the width."""
    # Narrower heads are slow: on a CPU, attention with heads of 8 takes twice the time of 16.
    return max((h for h in _HEAD_WIDTHS if 4 * h <= width), default=width // 2)


class Transformer(nn.Module):
    """Next-byte logits for a batch of byte sequences.

    `shape`: the sizes. `context`: T, the longest sequence. `dropout`: rate after the embedding and
    at the end of each residual branch. `rng`: draws the initial weights: the embedding normal with
    variance 1, so that a byte is not drowned by what the blocks add to it; matrices with variance
    1 / fan-in, those that write into the residual stream further divided by 2 L; the head starts
    at zero, so the first loss is ln V exactly.
    """

    rotation: Tensor

    def __init__(
        self, shape: Shape, *, context: int, dropout: float = 0.0, rng: torch.Generator
    ) -> None:
        super().__init__()
        self.shape = shape
        self.context = context
        self.dropout = dropout
        self.embedding = nn.Embedding(VOCABULARY, shape.width)
        self.blocks = nn.ModuleList(Block(shape, dropout) for _ in range(shape.depth))
        self.norm = nn.RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, VOCABULARY, bias=False)
        rotation = _rotation(context, shape.width // shape.heads)
        self.register_buffer("rotation", rotation, persistent=False)
        self._initialise(rng)

    @torch.no_grad()
    def _initialise(self, rng: torch.Generator) -> None:
        for name, weight in self.blocks.named_parameters():
            if weight.ndim == 2:
                into_stream = name.endswith(("attention_out.weight", "down.weight"))
                shares = weight.shape[1] * (2 * self.shape.depth if into_stream else 1)
                weight.normal_(std=shares**-0.5, generator=rng)
        self.embedding.weight.normal_(generator=rng)
        self.head.weight.zero_()

    def forward(self, text: Tensor) -> Tensor:
        """`text`: `B x T` byte values, T at most the context. Returns `B x T x V` logits."""
        x = _dropout(self.embedding(text), self.dropout, self.training)
        rotation = self.rotation[:, : text.shape[1]]
        for block in self.blocks:
            x = block(x, rotation)
        logits: Tensor = self.head(self.norm(x))
        return logits


class Block(nn.Module):
    """x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, shape: Shape, dropout: float) -> None:
        super().__init__()
        d = shape.width
        self.heads = shape.heads
        self.dropout = dropout
        self.attention_norm = nn.RMSNorm(d)
        self.attention_in = nn.Linear(d, 3 * d, bias=False)
        self.attention_out = nn.Linear(d, d, bias=False)
        self.feed_forward_norm = nn.RMSNorm(d)
        self.up = nn.Linear(d, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, d, bias=False)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        x = x + _dropout(self._attention(x, rotation), self.dropout, self.training)
        hidden = F.gelu(self.up(self.feed_forward_norm(x)), approximate="tanh")
        return x + _dropout(self.down(hidden), self.dropout, self.training)

    def _attention(self, x: Tensor, rotation: Tensor) -> Tensor:
        B, T, d = x.shape
        qkv = self.attention_in(self.attention_norm(x)).view(B, T, 3, self.heads, d // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)  # each B x h x T x d/h
        mixed = F.scaled_dot_product_attention(
            _rotate(q, rotation), _rotate(k, rotation), v, is_causal=True
        )
        out: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(B, T, d))
        return out


def _rotation(context: int, head_width: int) -> Tensor:
    """Cosines and signed sines of the rotary angles (Su et al., 2021, eq. 34): `2 x T x d/h`."""
    frequency = _ROTARY_BASE ** (-torch.arange(0, head_width, 2) / head_width)
    angle = torch.arange(context)[:, None] * frequency
    return torch.stack(
        (torch.cat((angle.cos(), angle.cos()), -1), torch.cat((-angle.sin(), angle.sin()), -1))
    )


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Turns coordinate i together with coordinate i + d/2h of `x`, `B x h x T x d/h`."""
    return x * rotation[0] + x.roll(x.shape[-1] // 2, dims=-1) * rotation[1]


def _dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    if not training or rate == 0:  # F.dropout would draw and multiply a full mask even at rate 0
        return x
    out: Tensor = F.dropout(x, rate)
    return out
