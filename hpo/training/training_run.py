"""One training in progress: its update, its loop with reports, its checkpoints and branches."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from hpo.training.accounting import Meter, Quantity, Usage, Work, count_work
from hpo.training.data import Batch, BatchStream, Split, examples_in, to_device
from hpo.training.devices import (
    Precision,
    peak_flops_per_second,
    random_states,
    restore_random_states,
)
from hpo.training.distributed.parallel import Ranks, whole_tensor
from hpo.training.metrics import ActivationRecorder, LogitRecorder, RunningMetrics, weight_metrics
from hpo.training.optimizers.averaging import evaluation_weights, has_evaluation_weights
from hpo.training.schedules import WarmupStableDecay

if TYPE_CHECKING:
    from hpo.study.context import Context
    from hpo.training.distributed.shards import ShardedCheckpoints
    from hpo.training.trainer import Config, Scale, Settings, TorchTrainer

_UPDATES_BETWEEN_CHECKS = 16  # reading a loss waits for the device
_FROM_CONFIG = ("params", "lr", "betas")  # entries of a group that no checkpoint holds


@dataclass(frozen=True, slots=True)
class Branch:
    """One horizon of `TorchTrainer.branch`.

    Args:
        horizon: Value of the axis.
        loss: Validation loss of the run to there; NaN if it diverged.
        cost: Cost in the trainer's unit, beyond that of the horizons before.
        metrics: Further figures, as a trial returns them, of the run to there alone.

    Example:
        >>> Branch(1e6, 2.5, 3e12, {"tokens": 1e6}).loss
        2.5
    """

    horizon: float
    loss: float
    cost: float
    metrics: Mapping[str, float]


@dataclass(slots=True)
class _Branches:
    """What was found on the way of one stable run.

    Attributes:
        found: The horizons, in order.
        spent: Cost of all of them.
        beside: Examples that were trained on in their cooldowns.
    """

    found: list[Branch] = field(default_factory=list)
    spent: float = 0.0
    beside: int = 0

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> _Branches:
        """Return what `dataclasses.asdict` made a table of."""
        return cls([Branch(**one) for one in stored["found"]], stored["spent"], stored["beside"])


class TrainingRun:
    """Model, optimizers, data and progress of one training.

    To be made and used inside `devices.seeded`, with the global generators to itself.

    Args:
        trainer: Trainer that makes the parts.
        config: Config of the trial.
        scale: Values of the scale axes.
        seed: Seed of the order of the data.
        device: Device to train on.

    Example:
        >>> from hpo.training.data import Shuffled
        >>> from hpo.training.devices import seeded
        >>> from hpo.training.optimizers import SGD
        >>> from hpo.training.trainer import Settings, TorchTrainer
        >>> x = torch.tensor([[1.0], [2.0]])
        >>> trainer = TorchTrainer(
        ...     make_model=lambda config, scale: nn.Linear(1, 1),
        ...     make_data=lambda config, split: Shuffled([x]) if split is Split.TRAIN else [(x,)],
        ...     loss=lambda model, batch: (model(batch[0]) - 3 * batch[0]).square().mean(),
        ...     settings=lambda config: Settings(100, 2, SGD(0.05)),
        ... )
        >>> cpu = torch.device("cpu")
        >>> with seeded(0, cpu):
        ...     run = TrainingRun(trainer, {}, {}, 0, cpu)
        ...     losses = [float(run.update()) for _ in range(10)]
        >>> losses[-1] < losses[0], run.updates, run.examples
        (True, 10, 20)
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
        self._length = self.settings.examples  # of the whole run
        self.meter = Meter(device)
        self.ranks = Ranks(trainer.parallel, device)
        self.model = self.ranks.shard(trainer.make_model(config, scale).to(device))
        # A compiled module is one, whatever the signature of torch.compile says.
        forward = cast(nn.Module, torch.compile(self.model)) if trainer.compile else self.model
        self._loss = partial(trainer.loss, self.ranks.wrap(forward))
        self.weights = [weight for weight in self.model.parameters() if weight.requires_grad]
        self._groups = trainer.groups(self.model, self.settings.optimizer)
        self.optimizers = self.settings.optimizer.build(self._groups)
        for optimizer in self.optimizers if self.ranks.sharded else ():
            if isinstance(optimizer, torch.optim.SGD):
                for group in optimizer.param_groups:
                    group["fused"] = False  # torch has none for sharded weights
        self._peaks = _peaks(self.optimizers)
        self._betas = _betas(self.optimizers)
        self._built = [_settings(optimizer) for optimizer in self.optimizers]
        self._data = BatchStream(
            trainer.make_data(config, Split.TRAIN),
            micro_batch=(self.settings.micro_batch or self.settings.batch_size) * self.ranks.size,
            seed=seed,
        )
        self._validation_data = trainer.make_data(config, Split.VALIDATION)
        precision = trainer.precision or (
            Precision.BFLOAT16 if device.type == "cuda" else Precision.FLOAT32
        )
        self._in_bfloat16 = precision is Precision.BFLOAT16
        self.parameters = trainer.count(self.model)
        self.work: Work | None = None
        self.updates = 0  # done so far
        self.examples = 0
        self.evaluations = 0
        self._recent = RunningMetrics()
        self._before: list[Tensor] | None = None  # weights before the last update
        self._reported = (time.perf_counter(), 0)  # the last report's time and examples
        self._first_loss: float | None = None
        self._warm_started = 0.0  # share of the weights that were mixed with the parent's
        self._branches: _Branches | None = None  # those that were trained, if any are asked for
        self._saved_at = time.monotonic()
        self._shards: ShardedCheckpoints | None = None
        if self.ranks.sharded:
            from hpo.training.distributed.shards import ShardedCheckpoints  # loads much

            self._shards = ShardedCheckpoints(self.model, self.optimizers, self.ranks)

    @property
    def peak_lr(self) -> float:
        """The largest peak learning rate of all parameter groups."""
        return max(peak for _, peak in self._peaks)

    def fit(self, ctx: Context | None) -> dict[str, float]:
        """Train to the end, or to the level asked for, from the checkpoint if there is one.

        Args:
            ctx: Context of the trial, which receives reports and checkpoints; None for neither.

        Returns:
            What `TorchTrainer.__call__` returns.
        """
        if ctx is not None:
            self._check_ranks(ctx)
            self._check_level(ctx)
            if not self._resume(ctx) and self.trainer.warm_start > 0:
                self._mix_in_parent(ctx)
            self._reported = time.perf_counter(), self.examples
        started, before, examples = time.perf_counter(), self.updates, self.examples
        loss, measured = math.nan, dict[str, float]()
        for number in range(self.evaluations + 1, self.settings.evaluations + 1):
            due = self.settings.evaluated_after(number)
            if not self._train_until(due, ctx):
                loss = math.nan
                break
            loss, measured = self._evaluate()
            if self._has_diverged(loss):
                loss = math.nan
                break
            self.evaluations = number
            if ctx is not None:
                self._report(ctx, loss, measured)
        if ctx is not None and self._shards is not None:
            self._shards.finish(ctx)
        seconds = time.perf_counter() - started
        usage = self.usage()
        return {
            "loss": loss,
            "cost": usage.of(self.trainer.cost),
            **usage.metrics(),
            **measured,
            **({"warm_started": self._warm_started} if self.trainer.warm_start > 0 else {}),
            "updates_per_second": (self.updates - before) / seconds if seconds > 0 else 0.0,
            **self._speed(self.examples - examples, seconds),
        }

    def update(self, share: float | None = None) -> Tensor:
        """Take one step of the optimizers.

        Args:
            share: Share of the peak learning rates; None follows the schedule.

        Returns:
            Mean loss before the step, a scalar that may not be computed yet on a GPU.
        """
        settings = self.settings
        count = min(settings.batch_size, settings.examples - self.examples)
        total: Tensor | None = None
        pieces = self._data.pieces(self.examples, count)
        for (batch, share_of_update), last in self.ranks.with_last(pieces):
            mine, weight = self.ranks.part(batch)
            placed, part = to_device(mine, self.device), share_of_update * weight
            if self.work is None:
                self._measure_work(placed)
            with self.ranks.accumulating(last=last):
                with self._autocast():
                    loss = self._loss(placed)
                if part != 1.0:
                    loss = loss * part
                loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            total = loss.detach() if total is None else total + loss.detach()
        assert total is not None
        total = self.ranks.mean(total)
        if share is None:
            share = self._scheduled(count)
        if settings.clip is not None:
            norm = nn.utils.clip_grad_norm_(self.weights, settings.clip)
            self._recent.add_norm(whole_tensor(norm))
        for group, peak in self._peaks:
            group["lr"] = peak * share
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.updates += 1
        self.examples += count
        self._recent.add_loss(total)
        return total

    def _scheduled(self, count: int) -> float:
        """Share of the peak rates for an update of `count` examples; sets beta2 if it changes."""
        settings = self.settings
        # At the middle of the step, so that neither the first nor the last is wasted.
        done = self.updates + 0.5 * count / settings.batch_size
        total = settings.examples / settings.batch_size
        schedule = settings.schedule
        if isinstance(schedule, WarmupStableDecay) and schedule.beta2 is not None:
            cools = schedule.cools(done, total)
            for group, (beta1, beta2) in self._betas:
                group["betas"] = (beta1, schedule.beta2 if cools else beta2)
        return schedule.share(done, total)

    def usage(self) -> Usage:
        """Return what the run has consumed so far, over all its stages."""
        return Usage(
            parameters=self.parameters,
            examples=self.examples,
            work=self.work or Work(0.0, 0.0),
            seconds=self.meter.seconds,
            peak_memory=self.meter.peak_memory,
            energy=self.meter.energy,
        )

    def _train_until(self, until: int, ctx: Context | None) -> bool:
        """Train up to update `until`; return False if the run diverged."""
        every = self.settings.checkpoint_updates
        while self.updates < until:
            report_follows = self.updates == until - 1
            if ctx is not None and report_follows and not self.ranks.sharded:
                self._before = [w.detach().clone() for g in self._groups for w in g.parameters]
            self.update()
            if self.updates % _UPDATES_BETWEEN_CHECKS == 0 and self._has_diverged():
                return False
            due = every is not None and self.updates % every == 0
            if ctx is not None and self._shards is not None:
                self._shards.finish_if_written(ctx)
            if ctx is not None and (due or self._checkpoint_is_due()) and self.updates < until:
                self._save(ctx)
        return not self._has_diverged()

    def _has_diverged(self, validation: float | None = None) -> bool:
        """Return whether the recent training losses, or the validation loss, show divergence."""
        self._recent.gather()
        if self._first_loss is None and self._recent.losses:
            self._first_loss = self._recent.losses[0]
        loss = (
            self._recent.mean_of_last(_UPDATES_BETWEEN_CHECKS) if validation is None else validation
        )
        if not math.isfinite(loss):
            return True
        first = self._first_loss
        # `not ... <=` rather than `>`: a first loss that is NaN counts as divergence.
        return first is not None and not (first <= 0 or loss <= self.settings.divergence * first)

    @torch.no_grad()
    def _evaluate(self) -> tuple[float, dict[str, float]]:
        """Return mean validation loss and figures; record activations on the first batch.

        The random states are kept, so that training does not depend on how often it is evaluated.
        """
        states = random_states(self.device)
        self.model.eval()
        activations, logits = ActivationRecorder(self.model), LogitRecorder()
        total, sums = 0.0, dict[str, float]()
        seen = 0
        measure = self.trainer.measure
        with evaluation_weights(self.optimizers, self.weights):
            for batch in self._validation_data:
                mine, weight = self.ranks.part(batch)
                placed = to_device(mine, self.device)
                count, share = examples_in(batch), weight * examples_in(batch)
                with self._autocast(), ExitStack() as watched:
                    if seen == 0:
                        watched.enter_context(activations)
                        watched.enter_context(logits)
                    loss = self.trainer.loss(self.model, placed)
                figures = {} if measure is None else measure(self.model, placed)
                total += float(loss) * share
                for name, value in figures.items():
                    sums[name] = sums.get(name, 0.0) + float(value) * share
                seen += count
        self.model.train()
        if seen == 0:
            raise ValueError(
                "make_data(config, Split.VALIDATION) must give at least one batch each time it is "
                "iterated over, got none; return a list, not a generator"
            )
        self._recent.activations = activations.largest()
        self._recent.logits = logits.metrics()
        restore_random_states(states, self.device)
        total, *rest = self.ranks.means([total, *sums.values()])
        sums = dict(zip(sums, rest, strict=True))
        return total / seen, {name: value / seen for name, value in sums.items()}

    def _report(self, ctx: Context, loss: float, measured: Mapping[str, float]) -> None:
        usage = self.usage()
        then, examples = self._reported
        metrics = {
            **usage.metrics(),
            **self._speed(self.examples - examples, time.perf_counter() - then),
            **self._recent.metrics(self.settings.clip),
            **(
                {} if self.ranks.sharded else weight_metrics(self.model, self._groups, self._before)
            ),
            **measured,
        }
        self._recent, self._before = RunningMetrics(), None
        # First, for a report may end the stage; and a later run may start from this one's weights.
        if ctx.fidelity is not None or self._checkpoint_is_due() or self.trainer.warm_start > 0:
            self._save(ctx)
        if self._shards is not None:
            self._shards.finish(ctx)
        ctx.report(
            step=self.evaluations, loss=loss, cost=usage.of(self.trainer.cost), metrics=metrics
        )
        self._reported = time.perf_counter(), self.examples

    def _speed(self, examples: int, seconds: float) -> dict[str, float]:
        """Tokens per second, and the share of the device's peak FLOP/s where that is known.

        The share is the model FLOPs utilization of Chowdhery et al., 2022 (appendix B).
        """
        if self.work is None or seconds <= 0:
            return {}
        speed = {"tokens_per_second": examples * self.work.tokens / seconds}
        peak = self.trainer.peak_flops or peak_flops_per_second(self.device)
        if peak is not None:
            speed["mfu"] = examples * self.work.flops / seconds / (peak * self.ranks.size)
        return speed

    def _measure_work(self, batch: Batch) -> None:
        """Set `work`, once a run on its first piece, without changing the random states."""
        if self.trainer.work is not None:
            self.work = self.trainer.work(self.model, batch)
            return
        states = random_states(self.device)
        buffers = {name: value.clone() for name, value in self.model.named_buffers()}
        self.work = count_work(self.model, batch, self.trainer.loss)
        with torch.no_grad():
            for name, value in self.model.named_buffers():
                value.copy_(buffers[name])  # running means of norms
        restore_random_states(states, self.device)

    def _autocast(self) -> AbstractContextManager[Any]:
        if not self._in_bfloat16:
            return nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    # --- checkpoints ---

    def _checkpoint_is_due(self) -> bool:
        late = time.monotonic() - self._saved_at >= self.trainer.checkpoint_seconds
        return self.ranks.agreed(late)

    def _save(self, ctx: Context) -> None:
        """Save everything that the rest of the run depends on."""
        if not ctx.can_save:
            return
        if self._shards is None:
            ctx.save({**self._state(), "meter": self.meter.state()})
        else:
            rest = {**self._rest(), "meter": self.meter.state()}
            self._shards.begin(ctx, rest, self.updates)
        self._saved_at = time.monotonic()

    def _state(self) -> dict[str, Any]:
        """Everything that the rest of the run depends on; tensors are those in use."""
        return {
            **self._weights_state(),
            "optimizers": [optimizer.state_dict()["state"] for optimizer in self.optimizers],
            **self._rest(),
        }

    def _rest(self) -> dict[str, Any]:
        """What the rest of the run depends on besides weights and states of optimizers."""
        self._recent.gather()
        return {
            "progress": [
                [
                    _changed(group, built)
                    for group, built in zip(groups, self._built[i], strict=True)
                ]
                for i, groups in enumerate(o.param_groups for o in self.optimizers)
            ],
            "random": random_states(self.device),
            "data": self._data.state(),
            "updates": self.updates,
            "examples": self.examples,
            "evaluations": self.evaluations,
            "length": self._length,
            "first_loss": self._first_loss,
            "recent": self._recent.state(),
            "work": None if self.work is None else [self.work.flops, self.work.tokens],
            "warm_started": self._warm_started,
            **({} if self._branches is None else {"branches": asdict(self._branches)}),
        }

    def _check_ranks(self, ctx: Context) -> None:
        if self.ranks.size != ctx.ranks:
            raise ValueError(
                f"ctx must belong to all {self.ranks.size} processes of the training, got that of "
                f"{ctx.ranks}; use `with hpo.connect() as ctx:` in each, and start them by "
                "hpo.launch, with TorchTrainer(parallel=DDP()) or FSDP()"
            )

    def _weights_state(self) -> dict[str, Any]:
        """The model as it is evaluated, and the weights in training where they are others."""
        if not any(has_evaluation_weights(optimizer) for optimizer in self.optimizers):
            return {"model": self.model.state_dict()}
        with evaluation_weights(self.optimizers, self.weights) as trained:
            return {"model": copy.deepcopy(self.model.state_dict()), "trained": trained}

    def _check_level(self, ctx: Context) -> None:
        if ctx.fidelity is not None and ctx.fidelity != self.settings.evaluations:
            raise ValueError(
                "settings(config).evaluations must be the level to train up to, config's own entry "
                f"of the fidelity, which is {ctx.fidelity}, got {self.settings.evaluations}"
            )

    @torch.no_grad()
    def _mix_in_parent(self, ctx: Context) -> None:
        """Mix the parent's weights into the initial ones; see `TorchTrainer.warm_start`."""
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
        """Restore the checkpoint; return False if there is none."""
        state = ctx.load() if ctx.can_save else None
        if state is None:
            return False
        settings = self.settings
        if settings.schedule.follows_length and state["length"] != self._length:
            raise ValueError(
                f"{settings.schedule} depends on the length of the run, which was "
                f"{state['length']} examples when it was paused and is {self._length} now; "
                "use Constant, Power or WarmupStableDecay(decay=0), or keep the length fixed"
            )
        self.meter.resume(state["meter"])
        if "shards" in state and self._shards is not None:
            self._shards.load(ctx, state["shards"])
        elif "shards" in state or self._shards is not None:
            raise ValueError(
                "this trial was saved with another `parallel`, whose checkpoint cannot be read "
                "with this one; keep FSDP(), or another, for the whole study"
            )
        self._restore(state)
        return True

    def _restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `_state` returned; its tensors are copied, or not used afterwards."""
        if "model" in state:  # else they come from shards
            self._restore_weights(state)
        progress = state.get("progress") or [[{} for _ in built] for built in self._built]
        for optimizer, built, changed in zip(self.optimizers, self._built, progress, strict=True):
            for group, settings, entries in zip(
                optimizer.param_groups, built, changed, strict=True
            ):
                weights = group["params"]
                group.clear()
                group.update({"params": weights, **settings, **entries})
        # Loading makes new groups, whose rates are those of the last update.
        for (_, peak), (group, _) in zip(self._peaks, _peaks(self.optimizers), strict=True):
            group["lr"] = peak
        self._peaks = _peaks(self.optimizers)
        for (_, betas), group in zip(self._betas, _with_betas(self.optimizers), strict=True):
            group["betas"] = betas
        self._betas = _betas(self.optimizers)
        self.updates, self.examples = state["updates"], state["examples"]
        self.evaluations = state["evaluations"]
        self._first_loss = state["first_loss"]
        self._warm_started = state.get("warm_started", 0.0)
        if "branches" in state and self._branches is not None:
            self._branches = _Branches.of(state["branches"])
        self._recent = RunningMetrics.of(state["recent"])
        self.work = None if state["work"] is None else Work(*state["work"])
        self._data.resume(state["data"], self.device)
        restore_random_states(state["random"], self.device)

    def _restore_weights(self, state: Mapping[str, Any]) -> None:
        """Restore weights and states of optimizers."""
        self.model.load_state_dict(state["model"])
        if "trained" in state:
            with torch.no_grad():
                for weight, value in zip(self.weights, state["trained"], strict=True):
                    weight.copy_(value)
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            # Rates and decays are those of the config, which a clone may have changed.
            optimizer.load_state_dict(
                {"state": saved, "param_groups": optimizer.state_dict()["param_groups"]}
            )

    # --- branches ---

    def branch(
        self, horizons: Sequence[tuple[float, Settings]], ctx: Context | None = None
    ) -> list[Branch]:
        """Train along the stable part of the longest run, and cool down once for each horizon.

        Args:
            horizons: Values of the axis, ascending, each with the settings of a run to there; the
                last ones are this run's own.
            ctx: Context of the trial, which receives a report and a checkpoint after each horizon,
                and checkpoints of the stable part when they are due; None for neither.

        Returns:
            What each run would have come to, with what it took beyond the ones before; up to the
            first that diverged before its cooldown.
        """
        done = self._branches = _Branches()
        if ctx is not None:
            self._check_ranks(ctx)
            if not self._resume(ctx) and self.trainer.warm_start > 0:
                self._mix_in_parent(ctx)
            done = self._branches
            self._reported = time.perf_counter(), self.examples
        whole = self.settings
        for horizon, settings in horizons[len(done.found) :]:
            self.settings = settings
            diverged = not self._train_until(self._stable_updates(settings), ctx)
            stable = copy.deepcopy(self._state())
            loss, measured = math.nan, dict[str, float]()
            if not diverged and self._train_until(settings.updates, None):
                loss, measured = self._evaluate()
                loss = math.nan if self._has_diverged(loss) else loss
            usage = self.usage()
            cost = self.trainer.cost
            total = replace(usage, examples=usage.examples + done.beside).of(cost)
            charged = total if cost is Quantity.PEAK_MEMORY else total - done.spent
            metrics = {**usage.metrics(), **measured}
            done.found.append(Branch(horizon, loss, charged, metrics))
            if diverged:  # and so would every longer run
                break
            done.spent = total
            done.beside += self.examples - stable["examples"]
            if settings is not whole:
                self._restore({**stable, "branches": asdict(done)})
                done = self._branches
                if ctx is not None:
                    self._report_branch(ctx, done)
        self.settings = whole
        return done.found

    def _report_branch(self, ctx: Context, done: _Branches) -> None:
        """Save the stable run and report what was found so far; `Stop` may be raised."""
        self._save(ctx)
        if self._shards is not None:
            self._shards.finish(ctx)
        last = done.found[-1]
        finite = last.loss if math.isfinite(last.loss) else None
        ctx.report(step=len(done.found), loss=finite, cost=done.spent, metrics=last.metrics)

    @staticmethod
    def _stable_updates(settings: Settings) -> int:
        """Updates before the first that takes place in the cooldown."""
        schedule = settings.schedule
        assert isinstance(schedule, WarmupStableDecay)
        total = settings.examples / settings.batch_size
        updates = range(settings.updates)
        return next((n for n in updates if schedule.cools(n + 0.5, total)), settings.updates)


def _peaks(optimizers: Iterable[torch.optim.Optimizer]) -> list[tuple[dict[str, Any], float]]:
    """Return every group as built, with its peak learning rate."""
    return [(group, group["lr"]) for optimizer in optimizers for group in optimizer.param_groups]


def _with_betas(optimizers: Iterable[torch.optim.Optimizer]) -> list[dict[str, Any]]:
    """Groups of optimizers of Adam's kind."""
    return [
        group for optimizer in optimizers for group in optimizer.param_groups if "betas" in group
    ]


def _betas(
    optimizers: Iterable[torch.optim.Optimizer],
) -> list[tuple[dict[str, Any], tuple[float, float]]]:
    """Return those groups as built, with their decays of the moments."""
    return [(group, tuple(group["betas"])) for group in _with_betas(optimizers)]


def _settings(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return the entries of every group as built."""
    return [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]


def _changed(group: Mapping[str, Any], built: Mapping[str, Any]) -> dict[str, Any]:
    """Return what an optimizer notes in a group as it goes on, such as its number of updates."""
    return {
        name: value
        for name, value in group.items()
        if name not in _FROM_CONFIG and (name not in built or value != built[name])
    }
