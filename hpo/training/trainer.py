"""A training function for `optimize`, from a model, its data and a loss.

    trainer = TorchTrainer(
        make_model=lambda config, scale: MyModel(width=scale["width"]),
        make_data=lambda config, split: my_data(split),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        settings=lambda config: Settings(
            examples=100_000, batch_size=64, optimizer=AdamW(lr=config["lr"]), schedule=Cosine()
        ),
    )
    optimize(trainer, space, cost="flops", ...)

It chooses the device, trains in bfloat16 where that is fast, clips, accumulates, follows a
schedule, evaluates, reports, and saves what it needs to go on exactly where it was: on a CPU in
float32 a run that was killed and resumed equals one that was not to the last bit. Whoever has a
loop of their own needs none of it: `ctx` does.

Words
-----
example     what the loss is a mean over: an image, a sequence
update      one step of the optimizer, on `batch_size` examples
evaluation  a look at the validation data after each of `evaluations` equal parts of the run; it is
            reported under its number, counted from one, which with a fidelity in the space is the
            level that `ctx.fidelity` speaks of
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

import numpy as np
import torch
from torch import Tensor, nn

from hpo.training.accounting import (
    Meter,
    Parameters,
    Quantity,
    Usage,
    Work,
    counted_parameters,
    counted_work,
)
from hpo.training.data import Source, Split, examples_in, to_device
from hpo.training.devices import (
    best_device,
    free_memory,
    is_out_of_memory,
    random_states,
    restore_random_states,
    seeded,
)
from hpo.training.optimizers import Group, Rule, plain_groups
from hpo.training.schedules import Constant, Exponential, Schedule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hpo.study.context import Context

Config: TypeAlias = Mapping[str, Any]
Scale: TypeAlias = Mapping[str, float]
Batch: TypeAlias = Any

_Result = TypeVar("_Result")

_UPDATES_BETWEEN_CHECKS = 16  # looking at a loss waits for the device
_SMOOTHING = 0.9  # of the losses of a range test


class Precision(Enum):
    """What matrix products are computed in; weights and optimizer states are float32 always."""

    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"


@dataclass(frozen=True, slots=True)
class Settings:
    """One trial's training, besides model and data.

    `examples`: how many are trained on in all. `batch_size`: examples in an update; the last one
    takes what is left. `optimizer`: rule and peak rates. `clip`: largest norm of the gradient, None
    for any. `micro_batch`: most examples that go through the model at once, None for all of an
    update; gradients are accumulated, and each example counts the same. `evaluations`: how often
    to look at the validation data. `divergence`: the run is given up once the mean training loss of
    16 updates, or the validation loss, is not finite or exceeds this many times the first training
    loss (as long as that is positive); infinity leaves only the former. `checkpoint_updates`: save
    after every so many updates, besides what `TorchTrainer.checkpoint_seconds` asks for.

    Raises `ValueError` where a value is out of range.
    """

    examples: int
    batch_size: int
    optimizer: Rule
    schedule: Schedule = field(default_factory=Constant)
    clip: float | None = 1.0
    micro_batch: int | None = None
    evaluations: int = 4
    divergence: float = 3.0
    checkpoint_updates: int | None = None

    def __post_init__(self) -> None:
        for name in ("examples", "batch_size", "evaluations", "micro_batch", "checkpoint_updates"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"`{name}` must be at least 1, got {value}")
        if self.clip is not None and not self.clip > 0:
            raise ValueError(f"`clip` must be positive, got {self.clip}; None leaves it out")
        if not self.divergence > 1:
            raise ValueError(
                f"`divergence` must exceed 1, got {self.divergence}; math.inf switches it off"
            )

    @property
    def updates(self) -> int:
        """Of the whole run."""
        return math.ceil(self.examples / self.batch_size)

    def evaluated_after(self, number: int) -> int:
        """Updates done when evaluation `number`, from one, is due."""
        return math.ceil(self.updates * number / self.evaluations)


@dataclass(frozen=True, slots=True)
class RangeTest:
    """Loss against a learning rate that grows from update to update (Smith, 2017).

    `share`: factor on the peak rates of the settings, `(n,)`, ascending. `loss`: smoothed training
    loss there, `(n,)`. `rate`: the peak rate of the settings, so that `share * rate` is a rate.
    """

    rate: float
    share: NDArray[np.float64]
    loss: NDArray[np.float64]

    @property
    def halfway(self) -> float:
        """The rate at which the loss had fallen halfway to its lowest."""
        middle = 0.5 * (self.loss[0] + self.loss[self._lowest])
        return float(self.rate * self.share[int(np.argmax(self.loss <= middle))])

    @property
    def lowest(self) -> float:
        """The rate at which the loss was lowest; at higher ones training soon diverges."""
        return float(self.rate * self.share[self._lowest])

    @property
    def box(self) -> tuple[float, float]:
        """A box to search: from a thirtieth of `halfway` to three times `lowest`.

        A rate that is good for a few hundred updates is about the largest that is good for many.
        """
        return self.halfway / 30, 3 * self.lowest

    @property
    def _lowest(self) -> int:
        return max(1, int(np.argmin(self.loss)))


@dataclass(frozen=True, slots=True)
class TorchTrainer:
    """A training function `trainer(config, ctx)`, in parts.

    Args:
        make_model: from the config and the values of the scale axes; draws its initial weights from
            torch's global stream, which is seeded with the trial's seed, or from a generator.
        make_data: for `Split.TRAIN`, a `Source`, or anything that can be iterated over again and
            again, batch by batch, such as a `DataLoader` whose batches are updates; for
            `Split.VALIDATION`, an iterable of batches.
        loss: mean over a batch, a scalar; it may look at `model.training`.
        settings: from the config.
        groups: parameter groups of the model, see `parametrization`.
        measure: further validation figures of a batch by name, means over its examples.
        work: FLOPs and tokens of one example; by default torch counts them on the first batch.
        count: how many parameters are embedding, and how many not.
        cost: what is reported as the cost; name the same unit in `optimize(cost=)`.
        device: None for the best there is. `precision`: None for bfloat16 on CUDA and float32
            elsewhere. `compile`: whether to train through `torch.compile`, which pays in long runs.
        checkpoint_seconds: how much work may be lost to a kill. With a fidelity in the space it is
            also saved before each report, for a scheduler may end the stage there.
        warm_start: share of `ctx.parent_checkpoint` in the initial weights of a run that begins
            from nothing, the rest being fresh ones; with `optimize(warm_start=True)` the parent is
            the best earlier run. 1 takes its weights over; in between they are shrunk and perturbed
            (Ash & Adams, 2020, arXiv:1910.08475). Weights and buffers whose name and shape are in
            both models are concerned, states of optimizers are not. What share of all weights that
            was is returned as `warm_started`.

    Raises `ValueError` for a `warm_start` that is no share.
    """

    make_model: Callable[[Config, Scale], nn.Module]
    make_data: Callable[[Config, Split], Any]
    loss: Callable[[nn.Module, Batch], Tensor]
    settings: Callable[[Config], Settings]
    groups: Callable[[nn.Module, Rule], Sequence[Group]] = plain_groups
    measure: Callable[[nn.Module, Batch], Mapping[str, Tensor]] | None = None
    work: Callable[[nn.Module, Batch], Work] | None = None
    count: Callable[[nn.Module], Parameters] = counted_parameters
    cost: Quantity = Quantity.FLOPS
    device: torch.device | None = None
    precision: Precision | None = None
    compile: bool = False
    checkpoint_seconds: float = 60.0
    warm_start: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warm_start <= 1:
            raise ValueError(
                f"`warm_start` must lie in [0, 1], a share of the weights, got {self.warm_start}"
            )

    def __call__(self, config: Config, ctx: Context) -> dict[str, float]:
        """One trial, or one more stage of it.

        Returns `loss`, `cost`, all of `Usage.metrics`, `updates_per_second` of this stage and what
        `measure` says. The loss of a run that diverged is NaN. Raises `MemoryError`, with all that
        the run held set free, where memory did not suffice; other errors pass through.
        """
        return self._guarded(
            ctx.seed, lambda device: Run(self, config, ctx.scale, ctx.seed, device).fit(ctx)
        )

    def train(
        self, config: Config, *, scale: Scale | None = None, seed: int = 0
    ) -> dict[str, float]:
        """The same outside a study, in one go and without checkpoints."""
        return self._guarded(
            seed, lambda device: Run(self, config, scale or {}, seed, device).fit(None)
        )

    def range_test(
        self,
        config: Config,
        *,
        scale: Scale | None = None,
        seed: int = 0,
        lowest: float = 1e-4,
        highest: float = 1e2,
        updates: int = 200,
    ) -> RangeTest:
        """Trains while the rate grows from `lowest` to `highest` times that of the settings.

        It ends early once the loss has trebled, and takes about as long as `updates` updates. The
        outcome sets the box of a search: `Float(*test.box, log=True)`.
        """
        if not 0 < lowest < highest:
            raise ValueError(f"`0 < lowest < highest` must hold, got {lowest} and {highest}")

        def test(device: torch.device) -> RangeTest:
            run = Run(self, config, scale or {}, seed, device)
            return run.range_test(lowest, highest, updates)

        return self._guarded(seed, test)

    def _guarded(self, seed: int, train: Callable[[torch.device], _Result]) -> _Result:
        device = self.device or best_device()
        try:
            with seeded(seed, device):
                return train(device)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            text = str(error)
        # The error and the frames it held, with model and batch in them, are gone by now.
        free_memory(device)
        raise MemoryError(f"out of memory on {device}: {text}")


class Run:
    """A model with its optimizers, data and place in the run: what one trial is made of.

    Made and used inside `devices.seeded`, with the global random streams to itself.
    """

    def __init__(
        self,
        trainer: TorchTrainer,
        config: Config,
        scale: Scale,
        seed: int,
        device: torch.device,
    ) -> None:
        self.trainer, self.seed, self.device = trainer, seed, device
        self.settings = trainer.settings(config)
        self.meter = Meter(device)
        self.model = trainer.make_model(config, scale).to(device)
        # A compiled module is one, whatever the signature of torch.compile says.
        forward = cast(nn.Module, torch.compile(self.model)) if trainer.compile else self.model
        self._loss = partial(trainer.loss, forward)
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        groups = trainer.groups(self.model, self.settings.optimizer)
        self.optimizers = self.settings.optimizer.build(groups)
        self._peaks = _peaks(self.optimizers)
        self._data = _Examples(trainer.make_data(config, Split.TRAIN), self.settings, seed)
        self._held_out = trainer.make_data(config, Split.VALIDATION)
        precision = trainer.precision or (
            Precision.BFLOAT16 if device.type == "cuda" else Precision.FLOAT32
        )
        self._half = precision is Precision.BFLOAT16
        self.parameters = trainer.count(self.model)
        self.work: Work | None = None
        self.updates = 0  # done so far
        self.examples = 0
        self.evaluations = 0
        self._recent = _Recent()
        self._first_loss: float | None = None
        self._warm_started = 0.0  # share of the weights that a parent had a say in
        self._saved_at = time.monotonic()

    def fit(self, ctx: Context | None) -> dict[str, float]:
        """Goes on from the checkpoint, if there is one, to the end or the level asked for."""
        if ctx is not None:
            self._check_level(ctx)
            if not self._resume(ctx) and self.trainer.warm_start > 0:
                self._take_over(ctx)
        started, before = time.perf_counter(), self.updates
        loss, measured = math.nan, dict[str, float]()
        for number in range(self.evaluations + 1, self.settings.evaluations + 1):
            due = self.settings.evaluated_after(number)
            if not self._advance(due, ctx):
                loss = math.nan
                break
            loss, measured = self._evaluate()
            if not self._bearable(loss):
                loss = math.nan
                break
            self.evaluations = number
            if ctx is not None:
                self._report(ctx, loss, measured)
        seconds = time.perf_counter() - started
        usage = self.usage()
        return {
            "loss": loss,
            "cost": usage.of(self.trainer.cost),
            **usage.metrics(),
            **measured,
            **({"warm_started": self._warm_started} if self.trainer.warm_start > 0 else {}),
            "updates_per_second": (self.updates - before) / seconds if seconds > 0 else 0.0,
        }

    def update(self, share: float | None = None) -> Tensor:
        """One step of the optimizers; returns the mean loss before it, not yet waited for.

        `share`: of the peak learning rates; None follows the schedule.
        """
        settings = self.settings
        count = min(settings.batch_size, settings.examples - self.examples)
        total: Tensor | None = None
        for batch, part in self._data.pieces(self.examples, count):
            placed = to_device(batch, self.device)
            if self.work is None:
                self._measure_work(placed)
            with self._autocast():
                loss = self._loss(placed)
            if part != 1.0:
                loss = loss * part
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        if share is None:
            # At the middle of the step, so that neither the first nor the last is wasted.
            done = self.updates + 0.5 * count / settings.batch_size
            share = settings.schedule.share(done, settings.examples / settings.batch_size)
        if settings.clip is not None:
            self._recent.norms.append(nn.utils.clip_grad_norm_(self.weights, settings.clip))
        for group, peak in self._peaks:
            group["lr"] = peak * share
        for rule in self.optimizers:
            rule.step()
            rule.zero_grad(set_to_none=True)
        self.updates += 1
        self.examples += count
        self._recent.losses.append(total)
        return total

    def range_test(self, lowest: float, highest: float, updates: int) -> RangeTest:
        """See `TorchTrainer.range_test`."""
        rise = Exponential(lowest / highest)
        shares, losses = [], list[float]()
        smooth = 0.0
        for i in range(min(updates, self.settings.updates)):
            share = highest * rise.share(i, updates - 1)
            smooth = _SMOOTHING * smooth + (1 - _SMOOTHING) * float(self.update(share))
            unbiased = smooth / (1 - _SMOOTHING ** (i + 1))
            if not math.isfinite(unbiased) or (losses and unbiased > 3 * abs(losses[0])):
                break
            shares.append(share)
            losses.append(unbiased)
        if len(losses) < 3:
            raise ValueError(
                f"training must survive at least 3 updates, got {len(losses)}; lower `lowest` or "
                "train on more examples"
            )
        rate = max(peak for _, peak in self._peaks)
        return RangeTest(rate, np.array(shares), np.array(losses))

    def usage(self) -> Usage:
        """What the run has consumed so far."""
        return Usage(
            parameters=self.parameters,
            examples=self.examples,
            work=self.work or Work(0.0, 0.0),
            seconds=self.meter.seconds,
            peak_memory=self.meter.peak_memory,
            energy=self.meter.energy,
        )

    def _advance(self, until: int, ctx: Context | None) -> bool:
        """Trains up to update `until`; False once it diverged."""
        every = self.settings.checkpoint_updates
        while self.updates < until:
            self.update()
            if self.updates % _UPDATES_BETWEEN_CHECKS == 0 and not self._bearable():
                return False
            due = every is not None and self.updates % every == 0
            if ctx is not None and (due or self._overdue()) and self.updates < until:
                self._save(ctx)
        return self._bearable()

    def _bearable(self, validation: float | None = None) -> bool:
        """Whether the recent training losses, or the validation loss, are no sign of divergence."""
        self._recent.gather()
        if self._first_loss is None and self._recent.all_losses:
            self._first_loss = self._recent.all_losses[0]
        loss = (
            self._recent.mean_of_last(_UPDATES_BETWEEN_CHECKS) if validation is None else validation
        )
        if not math.isfinite(loss):
            return False
        first = self._first_loss
        return first is None or first <= 0 or loss <= self.settings.divergence * first

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, dict[str, float]]:
        """Mean validation loss and figures; the first batch also tells the size of activations."""
        self.model.eval()
        watch = _Activations(self.model)
        total, sums = 0.0, dict[str, float]()
        seen = 0
        measure = self.trainer.measure
        for batch in self._held_out:
            placed = to_device(batch, self.device)
            count = examples_in(placed)
            with self._autocast(), watch if seen == 0 else nullcontext():
                loss = self.trainer.loss(self.model, placed)
            figures = {} if measure is None else measure(self.model, placed)
            total += float(loss) * count
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value) * count
            seen += count
        self.model.train()
        if seen == 0:
            raise ValueError(
                "make_data(config, Split.VALIDATION) must give at least one batch each time it is "
                "iterated over, got none; return a list, not a generator"
            )
        self._recent.activations = watch.largest()
        return total / seen, {name: value / seen for name, value in sums.items()}

    def _report(self, ctx: Context, loss: float, measured: Mapping[str, float]) -> None:
        usage = self.usage()
        metrics = {**usage.metrics(), **self._recent.metrics(self.settings.clip), **measured}
        metrics["weight_norm"] = float(nn.utils.get_total_norm(self.weights))
        self._recent = _Recent()
        # First, for a report may end the stage; and a later run may start from this one's weights.
        if ctx.fidelity is not None or self._overdue() or self.trainer.warm_start > 0:
            self._save(ctx)
        ctx.report(
            step=self.evaluations, loss=loss, cost=usage.of(self.trainer.cost), metrics=metrics
        )

    def _measure_work(self, batch: Batch) -> None:
        """Once a run, on its first piece; it must not move the random streams."""
        if self.trainer.work is not None:
            self.work = self.trainer.work(self.model, batch)
            return
        states = random_states(self.device)
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        self.work = counted_work(self.model, batch, self.trainer.loss)
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                value.copy_(buffers[name])  # running means of norms
        restore_random_states(states, self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._half:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _overdue(self) -> bool:
        return time.monotonic() - self._saved_at >= self.trainer.checkpoint_seconds

    def _save(self, ctx: Context) -> None:
        """Everything that the rest of the run depends on."""
        if not ctx.can_save:
            return
        self._recent.gather()
        ctx.save(
            {
                "model": self.model.state_dict(),
                "optimizers": [rule.state_dict()["state"] for rule in self.optimizers],
                "random": random_states(self.device),
                "data": self._data.state(),
                "updates": self.updates,
                "examples": self.examples,
                "evaluations": self.evaluations,
                "length": self.settings.examples,
                "first_loss": self._first_loss,
                "recent": self._recent.state(),
                "work": None if self.work is None else [self.work.flops, self.work.tokens],
                "meter": self.meter.state(),
                "warm_started": self._warm_started,
            }
        )
        self._saved_at = time.monotonic()

    def _check_level(self, ctx: Context) -> None:
        if ctx.fidelity is not None and ctx.fidelity != self.settings.evaluations:
            raise ValueError(
                "settings(config).evaluations must be the level to train up to, config's own entry "
                f"of the fidelity, which is {ctx.fidelity}, got {self.settings.evaluations}"
            )

    @torch.no_grad()
    def _take_over(self, ctx: Context) -> None:
        """Mixes the parent's weights into the fresh ones; see `TorchTrainer.warm_start`."""
        parent = ctx.parent_checkpoint
        if parent is None:
            return
        taken = 0
        weights = dict(self.model.named_parameters())
        for name, value in self.model.state_dict().items():
            earlier = parent["model"].get(name)
            if earlier is None or earlier.shape != value.shape or not value.is_floating_point():
                continue
            value.lerp_(earlier.to(value), self.trainer.warm_start)
            taken += value.numel() if name in weights else 0
        self._warm_started = taken / sum(weight.numel() for weight in weights.values())

    def _resume(self, ctx: Context) -> bool:
        """Goes to where the checkpoint was; False if there is none."""
        state = ctx.load() if ctx.can_save else None
        if state is None:
            return False
        settings = self.settings
        if settings.schedule.follows_length and state["length"] != settings.examples:
            raise ValueError(
                f"{settings.schedule} depends on the length of the run, which was "
                f"{state['length']} examples when it was paused and is {settings.examples} now; "
                "use Constant, Power or WarmupStableDecay(decay=0), or keep the length fixed"
            )
        self.model.load_state_dict(state["model"])
        for rule, saved in zip(self.optimizers, state["optimizers"], strict=True):
            # Rates and decays are those of the config, which a clone may have changed.
            rule.load_state_dict(
                {"state": saved, "param_groups": rule.state_dict()["param_groups"]}
            )
        # Loading makes new groups, whose rates are still those that they were built with.
        self._peaks = _peaks(self.optimizers)
        self.updates, self.examples = state["updates"], state["examples"]
        self.evaluations = state["evaluations"]
        self._first_loss = state["first_loss"]
        self._warm_started = state.get("warm_started", 0.0)
        self._recent = _Recent.of(state["recent"])
        self.work = None if state["work"] is None else Work(*state["work"])
        self.meter.resume(state["meter"])
        self._data.resume(state["data"], self.device)
        restore_random_states(state["random"], self.device)
        return True


def _peaks(optimizers: Iterable[torch.optim.Optimizer]) -> list[tuple[dict[str, Any], float]]:
    """Every group as built, beside its peak rate."""
    return [(group, group["lr"]) for rule in optimizers for group in rule.param_groups]


class _Examples:
    """Training batches by position, out of a `Source` or of something to iterate over."""

    def __init__(self, data: Any, settings: Settings, seed: int) -> None:
        self._source = data if isinstance(data, Source) else None
        if self._source is None and not isinstance(data, Iterable):
            raise TypeError(
                "make_data(config, Split.TRAIN) must return a Source or an iterable of batches, "
                f"got {type(data).__name__}; wrap tensors as Shuffled([inputs, targets])"
            )
        self._loader: Iterable[Batch] = () if self._source is not None else data
        self._micro = settings.micro_batch or settings.batch_size
        self._seed = seed
        self._batches: Iterator[Batch] | None = None
        self._epoch_began: dict[str, Any] | None = None  # where the random streams stood
        self._taken = 0  # batches of the epoch

    def pieces(self, first: int, count: int) -> Iterator[tuple[Batch, float]]:
        """Examples `first` .. `first + count - 1`, with the share of each piece in the mean."""
        if self._source is None:
            yield self._next(), 1.0
            return
        for start in range(0, count, self._micro):
            size = min(self._micro, count - start)
            yield self._source.batch(first + start, size, seed=self._seed), size / count

    def state(self) -> dict[str, Any]:
        """For a checkpoint; a `Source` needs none."""
        return {"epoch_began": self._epoch_began, "taken": self._taken}

    def resume(self, state: Mapping[str, Any], device: torch.device) -> None:
        """Play the epoch again up to where it was; the caller restores the streams afterwards."""
        if state["epoch_began"] is None:
            return
        restore_random_states(state["epoch_began"], device)
        self._begin()
        assert self._batches is not None
        for _ in islice(self._batches, state["taken"]):
            pass
        self._taken = state["taken"]

    def _begin(self) -> None:
        self._epoch_began = random_states(torch.device("cpu"))
        self._batches, self._taken = iter(self._loader), 0

    def _next(self) -> Batch:
        if self._batches is None:
            self._begin()
        assert self._batches is not None
        batch = next(self._batches, None)
        if batch is None:
            self._begin()
            batch = next(self._batches, None)
        if batch is None:
            raise ValueError(
                "make_data(config, Split.TRAIN) must give at least one batch each time it is "
                "iterated over, got none; return a DataLoader or a list, not a generator"
            )
        self._taken += 1
        return batch


class _Recent:
    """Losses and gradient norms since the last report; waits for the device only in `gather`."""

    def __init__(self) -> None:
        self.losses: list[Tensor] = []  # not yet looked at
        self.norms: list[Tensor] = []
        self.all_losses: list[float] = []
        self.all_norms: list[float] = []
        self.activations: float | None = None

    def gather(self) -> None:
        if self.losses:
            self.all_losses += torch.stack(self.losses).tolist()
            self.losses = []
        if self.norms:
            self.all_norms += torch.stack(self.norms).tolist()
            self.norms = []

    def mean_of_last(self, count: int) -> float:
        last = self.all_losses[-count:]
        return sum(last) / len(last) if last else 0.0

    def metrics(self, clip: float | None) -> dict[str, float]:
        """Means and extremes by name."""
        self.gather()
        found: dict[str, float] = {}
        if self.all_losses:
            found["train_loss"] = sum(self.all_losses) / len(self.all_losses)
        if self.all_norms and clip is not None:
            found["gradient_norm"] = sum(self.all_norms) / len(self.all_norms)
            found["gradient_norm_max"] = max(self.all_norms)
            found["clipped"] = sum(norm > clip for norm in self.all_norms) / len(self.all_norms)
        if self.activations is not None:
            found["activation_max"] = self.activations
        return found

    def state(self) -> dict[str, list[float]]:
        self.gather()
        return {"losses": list(self.all_losses), "norms": list(self.all_norms)}

    @classmethod
    def of(cls, state: Mapping[str, list[float]]) -> _Recent:
        recent = cls()
        recent.all_losses, recent.all_norms = list(state["losses"]), list(state["norms"])
        return recent


class _Activations:
    """While entered, notes the root mean square of what each leaf module puts out."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._squares: list[Tensor] = []
        self._hooks: list[torch.utils.hooks.RemovableHandle] = []

    def __enter__(self) -> None:
        for module in self._model.modules():
            if not any(True for _ in module.children()):
                self._hooks.append(module.register_forward_hook(self._note))

    def __exit__(self, *_: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def largest(self) -> float | None:
        """Over all leaf modules; None if none put out a tensor of numbers."""
        return float(torch.stack(self._squares).max().sqrt()) if self._squares else None

    def _note(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.is_floating_point():
            self._squares.append(output.detach().float().square().mean())
