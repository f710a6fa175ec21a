"""Two small classifiers of handwritten digits: a multilayer perceptron and a residual network.

    from benchmarks.workloads.digits import train_mlp
    optimize(train_mlp, space, cost="flops", ...)

The images are scikit-learn's: 1797 of 8 x 8 pixels in ten classes, in the order in which they were
collected. The first half is trained on and the second half validated on, so that most writers in
the second were never seen; shuffling would make the task much easier. The loss is the validation
cross-entropy in nats.

The learning rate does not depend on the length of the run: after a linear warm-up counted in epochs
it stays constant or falls as a power of time. The first r epochs of a run are therefore exactly the
run of r epochs, so epochs can be used as a fidelity.

FLOPs follow `hpo.training.accounting`: a multiply-add is two; only products and convolutions are
counted, and these exactly. The first layer needs no gradient of its input. Notation:

    N  parameters, all of them     w  width of the hidden layers      c  channels of the first stage
    L  hidden layers               b  residual blocks in each stage   m  inner channels of a block
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from hpo.study.context import Context

SIDE = 8
CLASSES = 10
#: A run has diverged once the mean training loss of an epoch, or the validation loss after it,
#: exceeds this many times the loss of guessing.
DIVERGED = 2.0
#: Both networks shrink without end; below this many parameters they no longer learn the digits.
FEWEST_PARAMS = 500

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "relu": F.relu,
    "gelu": F.gelu,
    "tanh": torch.tanh,
}
_OPTIMIZERS = ("adamw", "sgd")


@dataclass(frozen=True, slots=True)
class DigitsRecipe:
    """Settings of a run besides its size. The defaults are usual ones.

    Attributes:
        optimizer: "adamw" or "sgd".
        lr: peak learning rate.
        momentum: momentum of SGD.
        beta2: decay of AdamW's second moment.
        weight_decay: weight decay of AdamW, or the L2 penalty of SGD; on weights only, not on
            biases and norms.
        batch_size: approximate number of images per step (an epoch is cut into equal batches).
        dropout: rate after each hidden layer, or inside each residual block.
        label_smoothing: share of the target spread over all classes, in training only.
        shift: largest number of pixels by which training images are moved.
        warmup: epochs over which the rate rises from zero.
        decay: exponent of the rate's decay, see `learning_rate`.
        activation: "relu", "gelu" or "tanh".

    Raises:
        ValueError: if a value is out of range.
    """

    optimizer: str = "adamw"
    lr: float = 1e-3
    momentum: float = 0.9
    beta2: float = 0.999
    weight_decay: float = 0.01
    batch_size: int = 64
    dropout: float = 0.0
    label_smoothing: float = 0.0
    shift: int = 0
    warmup: float = 0.0
    decay: float = 0.0
    activation: str = "relu"

    def __post_init__(self) -> None:
        for name, choices in (("optimizer", _OPTIMIZERS), ("activation", tuple(_ACTIVATIONS))):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {choices}, got {getattr(self, name)!r}")
        for name in ("lr", "batch_size"):
            if not getattr(self, name) > 0:
                raise ValueError(f"`{name}` must be positive, got {getattr(self, name)}")
        for name in ("momentum", "beta2", "dropout", "label_smoothing"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"`{name}` must lie in [0, 1), got {getattr(self, name)}")
        for name in ("weight_decay", "warmup", "decay"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)}")
        if not 0 <= self.shift < SIDE:
            raise ValueError(f"`shift` must be 0 to {SIDE - 1} pixels, got {self.shift}")

    def learning_rate(self, epochs: float) -> float:
        """Return the rate after t `epochs`: lr t / warmup, then lr (1 + t - warmup)^-decay."""
        if epochs < self.warmup:
            return self.lr * epochs / self.warmup
        return float(self.lr * (1.0 + epochs - self.warmup) ** -self.decay)


class NetworkShape(Protocol):
    """Integers that define a network, and what follows from them."""

    @property
    def parameters(self) -> int:
        """All parameters, N."""
        ...

    @property
    def training_flops(self) -> int:
        """FLOPs of one image forward and backward."""
        ...

    def build(self, recipe: DigitsRecipe, *, rng: torch.Generator) -> nn.Module:
        """Return the network with fresh weights; `rng` draws them, and later its dropout."""
        ...


@dataclass(frozen=True, slots=True)
class MlpShape:
    """`depth` L hidden layers of `width` w each. Raises `ValueError` if one is below 1."""

    width: int
    depth: int = 2

    def __post_init__(self) -> None:
        _check_positive(width=self.width, depth=self.depth)

    @property
    def parameters(self) -> int:
        """Weights, and a bias per unit."""
        return self._weights + self.depth * self.width + CLASSES

    @property
    def training_flops(self) -> int:
        """Three products per weight, two in the first layer."""
        return 2 * (3 * self._weights - SIDE**2 * self.width)

    @property
    def _weights(self) -> int:
        return self.width * (SIDE**2 + (self.depth - 1) * self.width + CLASSES)

    def build(self, recipe: DigitsRecipe, *, rng: torch.Generator) -> Mlp:
        return Mlp(self, recipe, rng=rng)


@dataclass(frozen=True, slots=True)
class ResNetShape:
    """Two stages of `blocks` b residual blocks: `channels` c on 8 x 8 pixels, then 2 c on 4 x 4.

    `inner`: m, the channels between a block's two convolutions; 2 m in the second stage. Raises
    `ValueError` if one is below 1.
    """

    channels: int
    inner: int
    blocks: int = 1

    def __post_init__(self) -> None:
        _check_positive(channels=self.channels, inner=self.inner, blocks=self.blocks)

    @property
    def parameters(self) -> int:
        """Convolutions without biases; gain and bias of each norm; the read-out."""
        c, m, b = self.channels, self.inner, self.blocks
        norms = b * 2 * (c + m) + (b - 1) * 4 * (c + m) + (2 * c + 4 * m) + 4 * c
        return sum(self._weights) + norms + (2 * c + 1) * CLASSES

    @property
    def training_flops(self) -> int:
        """Three times the forward pass, less the first layer's gradient of its input."""
        stem, first, second = (
            2 * weights * pixels
            for weights, pixels in zip(self._weights, (SIDE**2, SIDE**2, SIDE**2 // 4), strict=True)
        )
        return 2 * stem + 3 * (first + second + 2 * 2 * self.channels * CLASSES)

    @property
    def _weights(self) -> tuple[int, int, int]:
        """Convolution weights of the stem, the first and the second stage."""
        c, m, b = self.channels, self.inner, self.blocks
        entry = 9 * c * 2 * m + 9 * 2 * m * 2 * c + 2 * c * c  # halves the image; 1 x 1 shortcut
        return 9 * c, b * 18 * c * m, entry + (b - 1) * 72 * c * m

    def build(self, recipe: DigitsRecipe, *, rng: torch.Generator) -> ResNet:
        return ResNet(self, recipe, rng=rng)


def mlp_shape_for(n_params: float) -> MlpShape:
    """Return two hidden layers of the width whose N is nearest to `n_params`.

    Within 5 % from 1000 parameters on. Raises `ValueError` below `FEWEST_PARAMS`.
    """
    _check_size(n_params)
    # N = w^2 + (64 + 10 + 2) w + 10 solved for w; the nearest N is at a neighboring integer.
    width = math.sqrt(38.0**2 + n_params - CLASSES) - 38.0
    candidates = (MlpShape(max(1, math.floor(width))), MlpShape(math.ceil(width)))
    return min(candidates, key=lambda shape: abs(shape.parameters - n_params))


def resnet_shape_for(n_params: float) -> ResNetShape:
    """Return the shape whose N is nearest to `n_params`, with blocks growing as channels / 16.

    Channels are too coarse to reach a given count, so the inner channels, on average equally many,
    are adjusted to it. Within 10 % from 1000 parameters on. Raises `ValueError` below
    `FEWEST_PARAMS`.
    """
    _check_size(n_params)
    previous = plain = _plain_resnet(1)
    while plain.parameters < n_params:
        previous, plain = plain, _plain_resnet(plain.channels + 1)
    if n_params / previous.parameters < plain.parameters / n_params:
        plain = previous
    c, b = plain.channels, plain.blocks
    per_inner = ResNetShape(c, 2, b).parameters - ResNetShape(c, 1, b).parameters
    inner = round(c + (n_params - plain.parameters) / per_inner)
    return ResNetShape(c, max(1, inner), b)


def _plain_resnet(channels: int) -> ResNetShape:
    return ResNetShape(channels, channels, max(1, round(channels / 16)))


class Mlp(nn.Module):
    """Class scores of images. He initialization; the read-out starts at zero."""

    def __init__(self, shape: MlpShape, recipe: DigitsRecipe, *, rng: torch.Generator) -> None:
        super().__init__()
        widths = [SIDE**2] + [shape.width] * shape.depth
        self.hidden = nn.ModuleList(
            nn.Linear(before, after) for before, after in zip(widths, widths[1:], strict=False)
        )
        self.head = nn.Linear(shape.width, CLASSES)
        self.activation = _ACTIVATIONS[recipe.activation]
        self.dropout = Dropout(recipe.dropout, rng=rng)
        _initialize(self, rng)

    def forward(self, images: Tensor) -> Tensor:
        """`images`: `B x 1 x 8 x 8`. Returns `B x 10` logits."""
        x = images.flatten(1)
        for layer in self.hidden:
            x = self.dropout(self.activation(layer(x)))
        logits: Tensor = self.head(x)
        return logits


class ResNet(nn.Module):
    """Class scores of images: pre-activation residual blocks (He et al., 2016, fig. 4e)."""

    def __init__(self, shape: ResNetShape, recipe: DigitsRecipe, *, rng: torch.Generator) -> None:
        super().__init__()
        c, m = shape.channels, shape.inner
        self.stem = nn.Conv2d(1, c, 3, padding=1, bias=False)
        stages = [(c, m, c)] * shape.blocks + [(c, 2 * m, 2 * c)]
        stages += [(2 * c, 2 * m, 2 * c)] * (shape.blocks - 1)
        self.blocks = nn.ModuleList(ResidualBlock(*sizes, recipe, rng=rng) for sizes in stages)
        self.norm = nn.BatchNorm2d(2 * c)
        self.head = nn.Linear(2 * c, CLASSES)
        self.activation = _ACTIVATIONS[recipe.activation]
        _initialize(self, rng)

    def forward(self, images: Tensor) -> Tensor:
        """`images`: `B x 1 x 8 x 8`. Returns `B x 10` logits."""
        x = self.stem(images)
        for block in self.blocks:
            x = block(x)
        x = self.activation(self.norm(x)).mean((2, 3))
        logits: Tensor = self.head(x)
        return logits


class ResidualBlock(nn.Module):
    """x + conv(drop(act(norm(conv(act(norm(x))))))); halves the image where channels grow."""

    def __init__(
        self, before: int, inner: int, after: int, recipe: DigitsRecipe, *, rng: torch.Generator
    ) -> None:
        super().__init__()
        stride = 1 if after == before else 2
        self.norm_in = nn.BatchNorm2d(before)
        self.conv_in = nn.Conv2d(before, inner, 3, stride=stride, padding=1, bias=False)
        self.norm_out = nn.BatchNorm2d(inner)
        self.conv_out = nn.Conv2d(inner, after, 3, padding=1, bias=False)
        self.shortcut = (
            nn.Conv2d(before, after, 1, stride=stride, bias=False) if stride > 1 else nn.Identity()
        )
        self.activation = _ACTIVATIONS[recipe.activation]
        self.dropout = Dropout(recipe.dropout, rng=rng)

    def forward(self, x: Tensor) -> Tensor:
        inner = self.conv_in(self.activation(self.norm_in(x)))
        inner = self.dropout(self.activation(self.norm_out(inner)))
        out: Tensor = self.shortcut(x) + self.conv_out(inner)
        return out


class Dropout(nn.Module):
    """Dropout that draws from `rng`; torch's own draws from the global stream."""

    def __init__(self, rate: float, *, rng: torch.Generator) -> None:
        super().__init__()
        self.rate = rate
        self.rng = rng

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return x
        kept = torch.empty_like(x).bernoulli_(1 - self.rate, generator=self.rng)
        return x * kept.div_(1 - self.rate)


@dataclass(frozen=True, slots=True)
class Epoch:
    """State of a run after `number` epochs, counted from one.

    Attributes:
        number: epochs trained.
        loss: validation cross-entropy in nats, NaN if the run diverged.
        error: share of validation images classified wrongly.
        train_loss: mean training loss over the epoch, as minimized.
        flops: FLOPs spent on training so far.
    """

    number: int
    loss: float
    error: float
    train_loss: float
    flops: float

    @property
    def diverged(self) -> bool:
        return not math.isfinite(self.loss)


def train_epochs(shape: NetworkShape, recipe: DigitsRecipe, *, seed: int) -> Iterator[Epoch]:
    """Train from scratch, an epoch each time the iterator is advanced; ends once a run diverged.

    Args:
        shape: network to train.
        recipe: settings of the run.
        seed: seed of weights, order of the images, shifts and dropout. Equal seeds give the same
            run bit for bit on one machine with one number of threads.
    """
    rng = torch.Generator().manual_seed(seed)
    data = digits()
    images = shifted(data.train_images, recipe.shift)
    with torch.random.fork_rng(devices=[]):  # layers first draw weights of their own
        model = shape.build(recipe, rng=rng)
    optimizer = _optimizer(model, recipe)
    count = len(data.train_labels)
    steps = max(1, round(count / recipe.batch_size))
    number = 0
    while True:
        total = torch.zeros(())
        for step, rows in enumerate(torch.randperm(count, generator=rng).tensor_split(steps)):
            moves = torch.randint(images.shape[1], (2, len(rows)), generator=rng)
            scores = model(images[rows, moves[0], moves[1]][:, None])
            loss = F.cross_entropy(
                scores, data.train_labels[rows], label_smoothing=recipe.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            # The rate at the middle of the step, so that the first of a warm-up is not wasted.
            for group in optimizer.param_groups:
                group["lr"] = recipe.learning_rate(number + (step + 0.5) / steps)
            optimizer.step()
            total += loss.detach() * len(rows)
        number += 1
        train_loss = float(total) / count
        flops = float(number * count * shape.training_flops)
        value, error = _validate(model, data)
        limit = DIVERGED * math.log(CLASSES)
        if not (train_loss <= limit and value <= limit):  # also where one is NaN
            yield Epoch(number, math.nan, math.nan, train_loss, flops)
            return
        yield Epoch(number, value, error, train_loss, flops)


def train_mlp(config: Mapping[str, Any], ctx: Context) -> dict[str, float]:
    """Train the perceptron as one trial; reports every epoch.

    Args:
        config: `params`, `epochs` and fields of `DigitsRecipe`.
        ctx: context of the trial.

    Returns:
        `loss`, `cost` in FLOPs, `error`, `params` as built and `seconds`; the loss of a diverged
        run is NaN.

    Raises:
        ValueError: for an unknown name in the config.
    """
    return _train(mlp_shape_for(_size(config)), config, ctx)


def train_resnet(config: Mapping[str, Any], ctx: Context) -> dict[str, float]:
    """Train the residual network as one trial; otherwise as `train_mlp`."""
    return _train(resnet_shape_for(_size(config)), config, ctx)


def _train(shape: NetworkShape, config: Mapping[str, Any], ctx: Context) -> dict[str, float]:
    start = time.perf_counter()
    if not config.get("epochs", 0) >= 1:
        raise ValueError(f"`epochs` must be in the config and at least 1; got {dict(config)}")
    settings = {k: v for k, v in config.items() if k not in ("params", "epochs")}
    fields = {field.name for field in dataclasses.fields(DigitsRecipe)}
    if unknown := sorted(set(settings) - fields):
        raise ValueError(
            f"`config` may name {sorted(fields)} besides params and epochs; got {unknown}"
        )
    for epoch in train_epochs(shape, DigitsRecipe(**settings), seed=ctx.seed):
        if not epoch.diverged:
            ctx.report(
                step=epoch.number,
                loss=epoch.loss,
                cost=epoch.flops,
                metrics={"error": epoch.error, "train_loss": epoch.train_loss},
            )
        if epoch.number >= config["epochs"]:
            break
    return {
        "loss": epoch.loss,
        "cost": epoch.flops,
        "error": epoch.error,
        "params": float(shape.parameters),
        "seconds": time.perf_counter() - start,
    }


@dataclass(frozen=True, slots=True)
class Digits:
    """Images `n x 8 x 8`, standardized by the training half, and labels `n` in 0..9."""

    train_images: Tensor
    train_labels: Tensor
    validation_images: Tensor
    validation_labels: Tensor


@cache
def digits() -> Digits:
    """Return the two halves of scikit-learn's digits; read once per process, without download."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    images = torch.tensor(bunch.images, dtype=torch.float32)
    labels = torch.tensor(bunch.target, dtype=torch.int64)
    half = len(labels) // 2
    mean, spread = images[:half].mean(), images[:half].std()
    images = (images - mean) / spread
    return Digits(images[:half], labels[:half], images[half:], labels[half:])


def shifted(images: Tensor, shift: int) -> Tensor:
    """Return every image moved by up to s = `shift` pixels, `n x (2 s + 1) x (2 s + 1) x 8 x 8`."""
    background = float(images.min())
    padded = F.pad(images, (shift,) * 4, value=background)
    return padded.unfold(1, SIDE, 1).unfold(2, SIDE, 1)


@torch.no_grad()
def _validate(model: nn.Module, data: Digits) -> tuple[float, float]:
    """Cross-entropy and error on the second half."""
    model.eval()
    scores = model(data.validation_images[:, None])
    model.train()
    wrong = scores.argmax(1) != data.validation_labels
    return float(F.cross_entropy(scores, data.validation_labels)), float(wrong.float().mean())


def _optimizer(model: nn.Module, recipe: DigitsRecipe) -> torch.optim.Optimizer:
    """SGD or AdamW that decays weights and leaves biases and norms alone."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim >= 2], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    # Fused: one kernel for all parameters, much faster for models this small.
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, fused=True)
    return torch.optim.AdamW(groups, lr=recipe.lr, betas=(0.9, recipe.beta2), fused=True)


@torch.no_grad()
def _initialize(model: nn.Module, rng: torch.Generator) -> None:
    """Weights with variance 2 / fan-in (He et al., 2015), biases and the read-out at zero."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            module.weight.normal_(std=0.0 if name == "head" else (2 / fan_in) ** 0.5, generator=rng)
            if module.bias is not None:
                module.bias.zero_()


def _size(config: Mapping[str, Any]) -> float:
    if "params" not in config:
        raise ValueError(f"`params` must be in the config; got {dict(config)}")
    return float(config["params"])


def _check_size(n_params: float) -> None:
    if not (math.isfinite(n_params) and n_params >= FEWEST_PARAMS):
        raise ValueError(
            f"`n_params` must be a finite number of at least {FEWEST_PARAMS}, got {n_params}"
        )


def _check_positive(**sizes: int) -> None:
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"`{name}` must be at least 1, got {size}")
