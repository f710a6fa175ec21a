"""Decoder-only transformer over bytes, and its shape for a given number of parameters.

Pre-norm blocks (RMSNorm), rotary positions, causal attention, GELU feed-forward, untied head, no
biases; optional grouped queries, normalized queries and keys, and experts. Notation, also used in
`accounting`:

    B  sequences in a batch          d  width (residual stream)        h  heads, each d / h wide
    T  context, bytes per sequence   L  depth (blocks)                 g  key and value heads, <= h
    V  vocabulary, 256 bytes         f  hidden width of feed-forward   E  experts, k of them used
    N  non-embedding parameters: the blocks and the last norm, neither byte embedding nor head
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hpo.space.arguments import Count, Flag, Kind, Number, store

VOCABULARY = 256
_HEAD_WIDTHS = (16, 32, 64, 128)
_MAX_WIDTH = 32768
_ROTARY_BASE = 10_000.0


@dataclass(frozen=True, slots=True)
class TransformerShape:
    """Sizes of a transformer.

    Args:
        width: Width of the residual stream, d; a multiple of `heads`.
        depth: Number of blocks, L.
        heads: Number of attention heads, h.
        hidden: Width of the feed-forward layer, f; of each expert if there are several.
        queries_per_key: Query heads that share a key and value head, h / g (Ainslie et al., 2023).
        experts: Number of experts, E.
        experts_used: Number of experts for each byte, k.

    Raises:
        ValueError: A size is below 1, the head width d / h is not an even integer (rotary positions
            rotate pairs of coordinates), h / g does not divide h, or k exceeds E.

    Example:
        >>> shape = TransformerShape(width=64, depth=2, heads=4, hidden=256)
        >>> shape.head_width, shape.non_embedding, shape.embedding
        (16, 98624, 32768)
    """

    width: int
    depth: int
    heads: int
    hidden: int
    queries_per_key: int = 1
    experts: int = 1
    experts_used: int = 1

    def __post_init__(self) -> None:
        store(self, **{field.name: Count(1, most=2**40) for field in fields(self)})
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise ValueError(
                "`width / heads` must be an even integer, got "
                f"width={self.width}, heads={self.heads}; change one of them"
            )
        if self.heads % self.queries_per_key:
            raise ValueError(
                "`queries_per_key` must divide `heads`, got "
                f"heads={self.heads}, queries_per_key={self.queries_per_key}"
            )
        if self.experts_used > self.experts:
            raise ValueError(
                "`experts_used` must be at most `experts`, got "
                f"{self.experts_used} of {self.experts}"
            )

    @property
    def key_value_heads(self) -> int:
        """Number of key and value heads, g."""
        return self.heads // self.queries_per_key

    @property
    def head_width(self) -> int:
        """Width of a head, d / h."""
        return self.width // self.heads

    @property
    def non_embedding(self) -> int:
        """Non-embedding parameters: N = L (2 d^2 + 2 d^2 g / h + 2 E d f + 2 d) + d.

        The terms are attention, feed-forward and two norms of each block, and the last norm. With
        E > 1, a router adds d E to each block. Normalized queries and keys add no parameters.
        """
        d = self.width
        attention = 2 * d * d + 2 * d * self.key_value_heads * self.head_width
        feed_forward = self.experts * 2 * d * self.hidden
        router = d * self.experts if self.experts > 1 else 0
        return self.depth * (attention + feed_forward + router + 2 * d) + d

    @property
    def embedding(self) -> int:
        """Parameters of the byte embedding and the untied head, 2 V d."""
        return 2 * VOCABULARY * self.width


def params_to_shape(n_params: float) -> TransformerShape:
    """Return the shape whose non-embedding parameter count is nearest to `n_params`.

    Width and depth follow L = 2 (d / 32)^0.55, which passes near common shapes (d = 768, L = 12;
    d = 2048, L = 20), and never fall as `n_params` grows. L is at least 2, since one block cannot
    form induction heads and would not lie on the same scaling law. The width is a multiple of the
    head width, too coarse to hit a count, so the hidden width, 4 d on average, takes up the
    remainder.

    Args:
        n_params: Non-embedding parameters, N, at least 1000.

    Returns:
        Shape within 5 % of `n_params` from 10^4 to 10^9.

    Raises:
        ValueError: `n_params` is below 1000 or not finite.

    Example:
        >>> shape = params_to_shape(1e6)
        >>> shape.width, shape.depth, shape.hidden, shape.non_embedding
        (128, 4, 704, 984192)
    """
    most = _plain_shape(_MAX_WIDTH).non_embedding
    n_params = Number(least=1000, most=most, way_out="change the bounds of the scale")(
        n_params, "`n_params`"
    )
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
    return TransformerShape(
        d, depth, plain.heads, max(multiple, multiple * round(hidden / multiple))
    )


def _plain_shape(width: int) -> TransformerShape:
    depth = max(2, round(2 * (width / 32) ** 0.55))
    return TransformerShape(width, depth, width // _head_width(width), 4 * width)


def _head_width(width: int) -> int:
    """Return the widest of 16 ... 128 that leaves at least four heads, else half the width."""
    # Narrower heads are slow: on a CPU, attention with heads of 8 takes twice the time of 16.
    return max((h for h in _HEAD_WIDTHS if 4 * h <= width), default=width // 2)


class Transformer(nn.Module):
    """Transformer that returns next-byte logits for a batch of byte sequences.

    Initial weights: the embedding is normal with variance 1, so that what the blocks add does not
    outweigh a byte; matrices have variance 1 / fan-in; the head is zero, so the first loss is
    exactly ln V. Without a `branch_factor`, the variance of matrices that write into the residual
    stream is further divided by 2 L.

    Args:
        shape: Sizes of the model.
        context: Length of the longest sequence, T.
        dropout: Rate after the embedding and at the end of each residual branch.
        qk_norm: Whether queries and keys are scaled to length (d / h)^1/2 before their product
            (Henry et al., 2020), which bounds the attention logits.
        attention_scale: Factor on the logits of attention; None for (d / h)^-1/2. muP requires
            h / d where heads widen.
        branch_factor: Factor on all residual branches, see `parametrization`.
        rng: Generator of the initial weights.

    Example:
        >>> shape = TransformerShape(width=16, depth=2, heads=2, hidden=32)
        >>> model = Transformer(shape, context=8, rng=torch.Generator().manual_seed(0))
        >>> model(torch.zeros(3, 8, dtype=torch.int64)).shape
        torch.Size([3, 8, 256])
    """

    rotation: Tensor

    def __init__(
        self,
        shape: TransformerShape,
        *,
        context: int,
        dropout: float = 0.0,
        qk_norm: bool = False,
        attention_scale: float | None = None,
        branch_factor: float | None = None,
        rng: torch.Generator,
    ) -> None:
        super().__init__()
        self.shape = shape = Kind(TransformerShape)(shape, "`shape`")
        self.context = context = Count(1, most=2**40)(context, "`context`")
        dropout = Number(least=0, below=1, way_out="0 leaves it out")(dropout, "`dropout`")
        self.dropout = dropout
        qk_norm = Flag()(qk_norm, "`qk_norm`")
        attention_scale = Number(optional=True)(attention_scale, "`attention_scale`")
        branch_factor = Number(optional=True)(branch_factor, "`branch_factor`")
        rng = Kind(torch.Generator, way_out="write torch.Generator().manual_seed(0)")(rng, "`rng`")
        self.embedding = nn.Embedding(VOCABULARY, shape.width)
        factor = 1.0 if branch_factor is None else branch_factor
        self.blocks = nn.ModuleList(
            Block(
                shape,
                dropout,
                qk_norm=qk_norm,
                attention_scale=attention_scale,
                branch_factor=factor,
            )
            for _ in range(shape.depth)
        )
        self.norm = nn.RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, VOCABULARY, bias=False)
        rotation = _rotation(context, shape.head_width)
        self.register_buffer("rotation", rotation, persistent=False)
        self._initialize(rng, branches=2 * shape.depth if branch_factor is None else 1)

    @torch.no_grad()
    def _initialize(self, rng: torch.Generator, *, branches: int) -> None:
        for name, weight in self.blocks.named_parameters():
            if weight.ndim >= 2:
                into_stream = name.endswith(("attention_out.weight", "down.weight", "down"))
                shares = weight.shape[-1] * (branches if into_stream else 1)
                weight.normal_(std=shares**-0.5, generator=rng)
        self.embedding.weight.normal_(generator=rng)
        self.head.weight.zero_()

    def forward(self, text: Tensor) -> Tensor:
        """Return `B x T x V` logits.

        Args:
            text: Byte values, `B x T`, T at most the context.
        """
        x = _dropout(self.embedding(text), self.dropout, self.training)
        rotation = self.rotation[:, : text.shape[1]]
        for block in self.blocks:
            x = block(x, rotation)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def imbalance(self) -> Tensor | None:
        """Return how unevenly the last batch used the experts, as a mean over blocks.

        The value is 1 where all are used equally and at most E; its gradient spreads the load
        (Fedus et al., 2022, eq. 4).

        Returns:
            Scalar, or None without experts.
        """
        found = [
            b.feed_forward.imbalance for b in self.blocks if isinstance(b.feed_forward, Experts)
        ]
        return torch.stack(found).mean() if found else None


class Block(nn.Module):
    """Residual block: x + c attention(norm(x)), then x + c feed_forward(norm(x)).

    Args:
        shape: Sizes of the model.
        dropout: Rate at the end of each residual branch.
        qk_norm: Whether queries and keys are normalized.
        attention_scale: Factor on the logits of attention; None for (d / h)^-1/2.
        branch_factor: Factor on both residual branches, c.

    Example:
        >>> shape = TransformerShape(8, 1, heads=2, hidden=16)
        >>> block = Block(shape, 0.0, qk_norm=False, attention_scale=None, branch_factor=0.0)
        >>> x = torch.ones(1, 3, 8)
        >>> torch.equal(block(x, torch.ones(2, 3, 4)), x)
        True
    """

    def __init__(
        self,
        shape: TransformerShape,
        dropout: float,
        *,
        qk_norm: bool,
        attention_scale: float | None,
        branch_factor: float,
    ) -> None:
        super().__init__()
        d = shape.width
        self.shape = shape
        self.dropout = dropout
        self.qk_norm = qk_norm
        self.attention_scale = attention_scale
        self.branch_factor = branch_factor
        self.attention_norm = nn.RMSNorm(d)
        self.attention_in = nn.Linear(
            d, d + 2 * shape.key_value_heads * shape.head_width, bias=False
        )
        self.attention_out = nn.Linear(d, d, bias=False)
        self.feed_forward_norm = nn.RMSNorm(d)
        self.feed_forward = Experts(shape) if shape.experts > 1 else FeedForward(shape)

    def forward(self, x: Tensor, rotation: Tensor) -> Tensor:
        """Return `B x T x d` for `x` of that shape; `rotation`: `2 x T x d/h`."""
        x = self._add(x, self._attention(self.attention_norm(x), rotation))
        return self._add(x, self.feed_forward(self.feed_forward_norm(x)))

    def _add(self, x: Tensor, branch: Tensor) -> Tensor:
        branch = _dropout(branch, self.dropout, self.training)
        return x + (branch if self.branch_factor == 1.0 else self.branch_factor * branch)

    def _attention(self, x: Tensor, rotation: Tensor) -> Tensor:
        B, T, d = x.shape
        h, g, width = self.shape.heads, self.shape.key_value_heads, self.shape.head_width
        qkv = self.attention_in(x).view(B, T, h + 2 * g, width).transpose(1, 2)
        q, k, v = qkv[:, :h], qkv[:, h : h + g], qkv[:, h + g :]  # each B x heads x T x d/h
        if self.qk_norm:
            q, k = F.rms_norm(q, (width,)), F.rms_norm(k, (width,))
        mixed = F.scaled_dot_product_attention(
            _rotate(q, rotation),
            _rotate(k, rotation),
            v,
            is_causal=True,
            scale=self.attention_scale,
            enable_gqa=g < h,
        )
        out: Tensor = self.attention_out(mixed.transpose(1, 2).reshape(B, T, d))
        return out


class FeedForward(nn.Module):
    """Feed-forward layer, down(gelu(up(x))).

    Args:
        shape: Sizes of the model.

    Example:
        >>> FeedForward(TransformerShape(8, 1, heads=2, hidden=16))(torch.zeros(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.up = nn.Linear(shape.width, shape.hidden, bias=False)
        self.down = nn.Linear(shape.hidden, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return `... x d` for `x` of that shape."""
        out: Tensor = self.down(F.gelu(self.up(x), approximate="tanh"))
        return out


class Experts(nn.Module):
    """Mixture of feed-forward layers, k of E for each byte (Shazeer et al., 2017).

    The outputs of a byte's k experts are weighted by a softmax over its k largest router scores.

    Args:
        shape: Sizes of the model.

    Example:
        >>> experts = Experts(TransformerShape(8, 1, heads=2, hidden=16, experts=4, experts_used=2))
        >>> experts(torch.zeros(1, 3, 8)).shape
        torch.Size([1, 3, 8])
    """

    imbalance: Tensor

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        E, f, d = shape.experts, shape.hidden, shape.width
        self.used = shape.experts_used
        self.router = nn.Linear(d, E, bias=False)
        self.up = nn.Parameter(torch.empty(E, f, d))
        self.down = nn.Parameter(torch.empty(E, d, f))

    def forward(self, x: Tensor) -> Tensor:
        """Return `... x d` for `x` of that shape, and set `imbalance`."""
        rows = x.flatten(0, -2)
        scores = self.router(rows)  # n x E
        best, chosen = scores.topk(self.used, dim=-1)
        shares = best.softmax(-1)
        out = torch.zeros_like(rows)
        for expert, (up, down) in enumerate(zip(self.up, self.down, strict=True)):
            row, place = (chosen == expert).nonzero(as_tuple=True)
            mixed = F.linear(F.gelu(F.linear(rows[row], up), approximate="tanh"), down)
            out = out.index_add(0, row, mixed * shares[row, place, None])
        load = F.one_hot(chosen, len(self.up)).float().mean((0, 1))
        self.imbalance = len(self.up) * (load * scores.float().softmax(-1).mean(0)).sum()
        return out.view_as(x)


def next_byte_loss(
    model: nn.Module, text: Tensor, *, z_loss: float = 0.0, balance: float = 0.0
) -> Tensor:
    """Return the mean cross-entropy of each byte given those before it, in nats.

    Args:
        model: Model that maps bytes to logits.
        text: Byte values, `B x (T + 1)`.
        z_loss: Factor on the mean square of the log normalizer, added in training only (Chowdhery
            et al., 2022, section 5); it keeps logits from drifting.
        balance: Factor on the imbalance of experts, added in training only.

    Example:
        >>> shape = TransformerShape(width=16, depth=2, heads=2, hidden=32)
        >>> model = Transformer(shape, context=8, rng=torch.Generator().manual_seed(0))
        >>> loss = next_byte_loss(model, torch.zeros(3, 9, dtype=torch.int64))
        >>> round(float(loss.detach()), 4)  # ln 256, since the head starts at zero
        5.5452
    """
    logits = model(text[:, :-1]).flatten(0, 1).float()
    loss = F.cross_entropy(logits, text[:, 1:].flatten())
    if not model.training:
        return loss
    if z_loss > 0:
        loss = loss + z_loss * logits.logsumexp(-1).square().mean()
    if balance > 0 and isinstance(model, Transformer):
        imbalance = model.imbalance()
        loss = loss if imbalance is None else loss + balance * imbalance
    return loss


def _rotation(context: int, head_width: int) -> Tensor:
    """Return cosines and signed sines of rotary angles (Su et al., 2021, eq. 34), `2 x T x d/h`."""
    frequency = _ROTARY_BASE ** (-torch.arange(0, head_width, 2) / head_width)
    angle = torch.arange(context)[:, None] * frequency
    return torch.stack(
        (torch.cat((angle.cos(), angle.cos()), -1), torch.cat((-angle.sin(), angle.sin()), -1))
    )


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotate coordinate i together with coordinate i + d/2h of `x`, `B x h x T x d/h`."""
    return x * rotation[0] + x.roll(x.shape[-1] // 2, dims=-1) * rotation[1]


def _dropout(x: Tensor, rate: float, training: bool) -> Tensor:
    if not training or rate == 0:  # F.dropout would draw and multiply a full mask even at rate 0
        return x
    out: Tensor = F.dropout(x, rate)
    return out
