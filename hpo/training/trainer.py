"""A training function for `optimize`, from a model, its data and a loss.

::

    trainer = TorchTrainer(
        make_model=lambda config, scale: MyModel(width=scale["width"]),
        make_data=lambda config, split: my_data(split),
        loss=lambda model, batch: F.cross_entropy(model(batch[0]), batch[1]),
        settings=lambda config: Settings(
            examples=100_000, batch_size=64, optimizer=AdamW(lr=config["lr"]), schedule=Cosine()
        ),
    )
    optimize(trainer, space, cost="flops", ...)

The trainer chooses the device, trains in bfloat16 where that is fast, clips, accumulates, follows a
schedule, evaluates, reports, and saves what it needs to resume exactly: on a CPU in float32, a run
that was killed and resumed equals an uninterrupted one to the last bit. A training function with a
loop of its own needs none of this: `ctx` is enough.

Words::

    example     what the loss is a mean over: an image, a sequence
    update      one step of the optimizer, on `batch_size` examples
    evaluation  a pass over the validation data after each of `evaluations` equal parts of the run;
                it is reported under its number, counted from one, which with a fidelity in the
                space is the level in `ctx.fidelity`
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from hpo.space.arguments import Count, Flag, Function, Kind, Number, Row, Table, store
from hpo.training.accounting import ParameterCount, Quantity, Work, count_parameters
from hpo.training.data import Batch, Split
from hpo.training.devices import Precision, best_device, free_memory, is_out_of_memory, seeded
from hpo.training.distributed.parallel import FSDP, Parallel, device_of_rank
from hpo.training.optimizers import UPDATE_RULE, ParameterGroup, UpdateRule, plain_groups
from hpo.training.range_test import RangeTest, range_test
from hpo.training.schedules import (
    SCHEDULE,
    Constant,
    LearningRateSchedule,
    WarmupStableDecay,
)
from hpo.training.training_run import Branch, TrainingRun

if TYPE_CHECKING:
    from hpo.study.context import Context

__all__ = [
    "Batch",
    "Branch",
    "Config",
    "Precision",
    "RangeTest",
    "Scale",
    "Settings",
    "TorchTrainer",
    "TrainingRun",
]

Config: TypeAlias = Mapping[str, Any]
Scale: TypeAlias = Mapping[str, float]

_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one training besides its model and data.

    Args:
        examples: Number of examples to train on in all.
        batch_size: Examples in an update; the last update takes what is left.
        optimizer: Optimizer with its peak rates.
        schedule: Share of the peak rates over the run.
        clip: Largest norm of the gradient, None for no limit.
        micro_batch: Largest number of examples that go through the model at once, None for all of
            an update. Gradients are accumulated, and each example has the same weight.
        evaluations: Number of evaluations on the validation data.
        divergence: Factor on the first training loss. The run ends as diverged once the mean
            training loss of 16 updates, or the validation loss, is not finite or exceeds the first
            training loss by this factor, if that is positive. `math.inf` leaves only the former.
        checkpoint_updates: Updates between checkpoints, besides those that
            `TorchTrainer.checkpoint_seconds` asks for; None for no others.

    Raises:
        ValueError: A value is out of range.

    Example:
        >>> from hpo.training.optimizers import AdamW
        >>> settings = Settings(examples=1000, batch_size=64, optimizer=AdamW(lr=1e-3))
        >>> settings.updates
        16
    """

    examples: int
    batch_size: int
    optimizer: UpdateRule
    schedule: LearningRateSchedule = field(default_factory=Constant)
    clip: float | None = 1.0
    micro_batch: int | None = None
    evaluations: int = 4
    divergence: float = 3.0
    checkpoint_updates: int | None = None

    def __post_init__(self) -> None:
        count, optional = Count(1), Count(1, optional=True)
        store(
            self,
            examples=count,
            batch_size=count,
            optimizer=UPDATE_RULE,
            schedule=SCHEDULE,
            clip=Number(above=0, optional=True, infinite=True, way_out="None switches it off"),
            micro_batch=optional,
            evaluations=count,
            divergence=Number(above=1, infinite=True, way_out="math.inf switches it off"),
            checkpoint_updates=optional,
        )

    @property
    def updates(self) -> int:
        """The number of updates of the whole run."""
        return math.ceil(self.examples / self.batch_size)

    def evaluated_after(self, number: int) -> int:
        """Return the number of updates after which evaluation `number`, from one, is due.

        Example:
            >>> from hpo.training.optimizers import AdamW
            >>> settings = Settings(1000, 64, AdamW(lr=1e-3), evaluations=4)
            >>> [settings.evaluated_after(number) for number in (1, 2, 3, 4)]
            [4, 8, 12, 16]
        """
        return math.ceil(self.updates * number / self.evaluations)


@dataclass(frozen=True, slots=True)
class TorchTrainer:
    """Training function `trainer(config, ctx)`, made from its parts.

    Args:
        make_model: Function of the config and the values of the scale axes that returns the model.
            It draws the initial weights from torch's global generator, which is seeded with the
            trial's seed, or from a generator of its own.
        make_data: Function of the config and the split. For `Split.TRAIN` it returns a `Source`, or
            an iterable of batches that can be iterated over repeatedly, such as a `DataLoader`; an
            update takes `batch_size` examples of it, whatever the size of its batches. For
            `Split.VALIDATION` it returns an iterable of batches.
        loss: Function of the model and a batch that returns the mean loss over the batch, a scalar.
            It may depend on `model.training`.
        settings: Function of the config that returns the settings.
        groups: Function of the model and the optimizer that returns parameter groups, see
            `parametrization`.
        measure: Function of the model and a validation batch that returns further figures by name,
            means over the examples.
        work: Function of the model and a batch that returns FLOPs and tokens of one example; None
            lets torch count them on the first batch.
        count: Function of the model that returns how many parameters are embedding and how many
            are not.
        cost: Quantity that is reported as the cost; name the same unit in `optimize(cost=)`.
        device: Device to train on; None for the best available.
        precision: Number format of products; None for bfloat16 on CUDA and float32 elsewhere.
        peak_flops: Largest FLOP/s of the device, for the metric `mfu`; None takes it from the data
            sheets of common GPUs.
        compile: Whether to train through `torch.compile`, which pays in long runs.
        checkpoint_seconds: Seconds of work that may be lost to a kill. With a fidelity in the
            space, a checkpoint is also saved before each report, since a scheduler may end the
            stage there.
        warm_start: Share of `ctx.parent_checkpoint` in the initial weights of a run that has no
            checkpoint of its own; the rest are new weights. With `optimize(warm_start=True)` the
            parent is the best earlier run. 1 copies its weights; a value in between shrinks and
            perturbs them (Ash & Adams, 2020, arXiv:1910.08475). This concerns weights and buffers
            whose name and shape are in both models, not the states of optimizers. The share of all
            weights that it concerned is returned as `warm_started`.
        parallel: How the processes of a `torchrun` train one model: `DDP()` or `FSDP()` of
            `hpo.training.distributed.parallel`; None, and one process, for one device.

    Raises:
        ValueError: `warm_start` lies outside [0, 1] or is used with `FSDP`, or `peak_flops` is not
            positive.

    Example:
        >>> from hpo.training.data import Shuffled
        >>> from hpo.training.optimizers import SGD
        >>> x = torch.linspace(-1, 1, 40)[:, None]
        >>> trainer = TorchTrainer(
        ...     make_model=lambda config, scale: nn.Linear(1, 1),
        ...     make_data=lambda config, split: Shuffled([x]) if split is Split.TRAIN else [(x,)],
        ...     loss=lambda model, batch: (model(batch[0]) - 3 * batch[0]).square().mean(),
        ...     settings=lambda config: Settings(400, 10, SGD(lr=config["lr"])),
        ... )
        >>> result = trainer.train({"lr": 0.1})
        >>> result["loss"] < 0.1, result["examples"], result["params"]
        (True, 400.0, 2.0)
    """

    make_model: Callable[[Config, Scale], nn.Module]
    make_data: Callable[[Config, Split], Any]
    loss: Callable[[nn.Module, Batch], Tensor]
    settings: Callable[[Config], Settings]
    groups: Callable[[nn.Module, UpdateRule], Sequence[ParameterGroup]] = plain_groups
    measure: Callable[[nn.Module, Batch], Mapping[str, Tensor]] | None = None
    work: Callable[[nn.Module, Batch], Work] | None = None
    count: Callable[[nn.Module], ParameterCount] = count_parameters
    cost: Quantity = Quantity.FLOPS
    device: torch.device | None = None
    precision: Precision | None = None
    peak_flops: float | None = None
    compile: bool = False
    checkpoint_seconds: float = 60.0
    warm_start: float = 0.0
    parallel: Parallel | None = None

    def __post_init__(self) -> None:
        store(
            self,
            make_model=Function("make_model(config, scale)"),
            make_data=Function("make_data(config, split)"),
            loss=Function("loss(model, batch)"),
            settings=Function("settings(config)"),
            groups=Function("groups(model, rule)"),
            measure=Function("measure(model, batch)", optional=True),
            work=Function("work(model, batch)", optional=True),
            count=Function("count(model)"),
            cost=Kind(Quantity, way_out="write Quantity.FLOPS or another member"),
            device=Kind(torch.device, optional=True, way_out='write torch.device("cuda")'),
            precision=Kind(Precision, optional=True, way_out="write Precision.FLOAT32"),
            peak_flops=Number(above=0, optional=True, way_out="None takes it from data sheets"),
            compile=Flag(),
            checkpoint_seconds=Number(least=0, infinite=True, way_out="60 is usual"),
            warm_start=Number(
                least=0, most=1, way_out="it is a share of the weights, 0 trains from new ones"
            ),
            parallel=Kind(Parallel, optional=True, way_out="write DDP() or FSDP()"),
        )
        if isinstance(self.parallel, FSDP) and self.warm_start > 0:
            raise ValueError(
                f"`warm_start` must be 0 with FSDP, got {self.warm_start}; use DDP(), or load "
                "weights in make_model"
            )

    def __call__(self, config: Config, ctx: Context) -> dict[str, float]:
        """Run one trial, or one more stage of it.

        Args:
            config: Config of the trial.
            ctx: Context of the trial.

        Returns:
            `loss`, `cost`, all of `Usage.metrics`, `updates_per_second`, `tokens_per_second` and
            `mfu` of this stage, and what `measure` returned. The loss of a run that diverged is
            NaN. Reports have further metrics: training loss, gradient norms, the share of clipped
            updates, and those of `hpo.training.metrics`.

        Raises:
            MemoryError: Memory was exhausted. All that the run held is released.
        """
        return self._guarded(
            ctx.seed, lambda device: TrainingRun(self, config, ctx.scale, ctx.seed, device).fit(ctx)
        )

    def train(
        self, config: Config, *, scale: Scale | None = None, seed: int = 0
    ) -> dict[str, float]:
        """Train outside a study, in one go and without checkpoints.

        Args:
            config: Config, as in a trial.
            scale: Values of the scale axes.
            seed: Seed of the weights and of the order of the data.

        Returns:
            What a trial returns.

        Raises:
            MemoryError: Memory was exhausted. All that the run held is released.
        """
        config, scale, seed = _checked(config, scale, seed)
        return self._guarded(
            seed, lambda device: TrainingRun(self, config, scale, seed, device).fit(None)
        )

    def branch(
        self,
        config: Config,
        *,
        scale: Scale | None = None,
        seed: int = 0,
        **axis: Sequence[float],
    ) -> list[Branch]:
        """Train once to several horizons: one stable run, with a cooldown for each of them.

        Hägele et al., 2024 (arXiv:2405.18392, section 4): points for the law's token axis at a
        fraction of the cost of separate runs. On a CPU in float32 each loss is that of a separate
        run with the same seed, to the last bit.

        Args:
            config: Config, as in a trial.
            scale: Values of the other scale axes.
            seed: Seed of the weights and of the order of the data.
            axis: Name of one scale axis and its values, such as `tokens=[1e6, 2e6, 4e6]`.
                `settings(config | {"tokens": 1e6})` are the settings of the run to 1e6: they must
                differ in `examples` alone and have the schedule `WarmupStableDecay`.

        Returns:
            One result for each value, from small to large, to be told as a run of its own that
            costs what it took beyond the ones before. The list ends with the first run that
            diverged before its cooldown. Under `optimize`, `branch_trial` tells them.

        Raises:
            ValueError: There is not exactly one axis, or the settings do not allow branches.
            MemoryError: Memory was exhausted. All that the run held is released.

        Example:
            >>> from hpo.training.data import Shuffled
            >>> from hpo.training.optimizers import SGD
            >>> from hpo.training.schedules import WarmupStableDecay
            >>> x = torch.linspace(-1, 1, 40)[:, None]
            >>> data = {Split.TRAIN: Shuffled([x]), Split.VALIDATION: [(x,)]}
            >>> trainer = TorchTrainer(
            ...     make_model=lambda config, scale: nn.Linear(1, 1),
            ...     make_data=lambda config, split: data[split],
            ...     loss=lambda model, batch: (model(batch[0]) - 3 * batch[0]).square().mean(),
            ...     settings=lambda config: Settings(
            ...         int(config["tokens"]), 10, SGD(lr=config["lr"]), WarmupStableDecay()
            ...     ),
            ... )
            >>> for branch in trainer.branch({"lr": 0.01}, tokens=[100, 200, 400]):
            ...     print(branch.horizon, branch.loss < 3, branch.metrics["tokens"])
            100 True 100.0
            200 True 200.0
            400 True 400.0
        """
        config, sizes, seed = _checked(config, scale, seed)
        return self._branched(config, sizes, seed, *_one_axis(axis), None)

    def branch_trial(self, config: Config, ctx: Context, **axis: Sequence[float]) -> dict[str, Any]:
        """Run a trial whose way to its own horizon also tells the loss at shorter ones.

        To be called in a training function of `optimize`, whose result it returns. A report and a
        checkpoint follow each horizon, so that a run that was killed resumes behind the last one.

        Args:
            config: Config of the trial.
            ctx: Context of the trial.
            axis: Name of one scale axis and its values, of which the largest is the trial's own;
                see `branch`.

        Returns:
            `loss` and the other figures of the run to the last horizon, `cost` of everything, and
            `branches`, the loss at each shorter horizon, which the scaling law learns too.

        Raises:
            ValueError: There is not exactly one axis, its largest value is not the config's, the
                space has a fidelity, or the settings do not allow branches.
            MemoryError: Memory was exhausted. All that the run held is released.

        Example:
            >>> from hpo import Axis, Budget, Float, Scale, optimize
            >>> from hpo.training.data import Shuffled
            >>> from hpo.training.optimizers import SGD
            >>> from hpo.training.schedules import WarmupStableDecay
            >>> x = torch.linspace(-1, 1, 40)[:, None]
            >>> data = {Split.TRAIN: Shuffled([x]), Split.VALIDATION: [(x,)]}
            >>> trainer = TorchTrainer(
            ...     make_model=lambda config, scale: nn.Linear(1, 1),
            ...     make_data=lambda config, split: data[split],
            ...     loss=lambda model, batch: (model(batch[0]) - 3 * batch[0]).square().mean(),
            ...     settings=lambda config: Settings(
            ...         int(config["tokens"]), 10, SGD(lr=config["lr"]), WarmupStableDecay()
            ...     ),
            ... )
            >>> def train(config, ctx):
            ...     whole = config["tokens"]
            ...     return trainer.branch_trial(config, ctx, tokens=[whole / 4, whole / 2, whole])
            >>> space = {"lr": Float(1e-3, 1e-1, log=True), "tokens": Scale(200, 400)}
            >>> result = optimize(train, space, budget=Budget(trials=2), cost="flops")
            >>> [len(observation.branches) for observation in result.log.observations]
            [2, 2]
        """
        name, values = _one_axis(axis)
        own = config.get(name)
        if own is None or not math.isclose(values[-1], own):
            raise ValueError(
                f"the largest value of `{name}` must be the trial's own, {own}, got {values[-1]:g};"
                f' write {name}=[0.5 * config["{name}"], config["{name}"]]'
            )
        if ctx.fidelity is not None:
            raise ValueError(
                f"a trial with branches must run to its end, got the fidelity {ctx.fidelity}; take "
                "the fidelity out of the space, or call the trainer itself"
            )
        values[-1] = own
        found = self._branched(config, ctx.scale, ctx.seed, name, values, ctx)
        costs = [branch.cost for branch in found]
        return {
            **found[-1].metrics,
            "loss": found[-1].loss if len(found) == len(values) else math.nan,
            "cost": max(costs) if self.cost is Quantity.PEAK_MEMORY else sum(costs),
            "branches": [
                {name: branch.horizon, "loss": branch.loss}
                for branch in found[: len(values) - 1]
                if math.isfinite(branch.loss)
            ],
        }

    def _branched(
        self,
        config: Config,
        sizes: Scale,
        seed: int,
        name: str,
        values: Sequence[float],
        ctx: Context | None,
    ) -> list[Branch]:
        """Train to each value of the axis `name`, from small to large."""
        horizons = [(value, self.settings({**config, name: value})) for value in values]
        _check_branches(horizons)

        def train(device: torch.device) -> list[Branch]:
            last = {**config, name: values[-1]}
            run = TrainingRun(self, last, {**sizes, name: values[-1]}, seed, device)
            return run.branch([*horizons[:-1], (values[-1], run.settings)], ctx)

        return self._guarded(seed, train)

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
        """Train while the learning rate grows from update to update.

        The test ends early once the loss has trebled. Its result sets the search interval of the
        rate: `Float(*test.box, log=True)`.

        Args:
            config: Config, as in a trial.
            scale: Values of the scale axes.
            seed: Seed of the weights and of the order of the data.
            lowest: First factor on the peak rates of the settings.
            highest: Last factor on the peak rates of the settings.
            updates: Updates from the first to the last factor, at most those of the whole run.

        Warns:
            UserWarning: The loss was lowest at an end of the range.

        Returns:
            Loss against learning rate.

        Raises:
            ValueError: `0 < lowest < highest` does not hold, or training failed within 3 updates.

        Example:
            >>> from hpo.training.data import Shuffled
            >>> from hpo.training.optimizers import SGD
            >>> x = torch.linspace(-1, 1, 40)[:, None]
            >>> trainer = TorchTrainer(
            ...     make_model=lambda config, scale: nn.Linear(1, 1),
            ...     make_data=lambda config, split: Shuffled([x]),
            ...     loss=lambda model, batch: (model(batch[0]) - 3 * batch[0]).square().mean(),
            ...     settings=lambda config: Settings(10_000, 10, SGD(lr=1e-2)),
            ... )
            >>> low, high = trainer.range_test({}, highest=1e4).box
            >>> low < 0.1 < high
            True
        """
        config, scale, seed = _checked(config, scale, seed)
        lowest = Number(above=0)(lowest, "`lowest`")
        highest = Number(above=0, most=1e12)(highest, "`highest`")
        updates = Count(3, way_out="200 is usual")(updates, "`updates`")
        if not 0 < lowest < highest:
            raise ValueError(
                f"`0 < lowest < highest` must hold, got {lowest} and {highest}; swap them?"
            )

        def test(device: torch.device) -> RangeTest:
            run = TrainingRun(self, config, scale, seed, device)
            return range_test(run, lowest, highest, updates)

        return self._guarded(seed, test)

    def _guarded(self, seed: int, train: Callable[[torch.device], _Result]) -> _Result:
        """Call `train` on the device with seeded generators; free memory if it runs out."""
        device = self.device or best_device()
        if self.parallel is not None:
            device = device_of_rank(device)
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


def _one_axis(axis: Mapping[str, Sequence[float]]) -> tuple[str, list[float]]:
    """Return the one axis and its values, ascending."""
    if len(axis) != 1:
        raise ValueError(
            f"one axis must be given, such as tokens=[1e6, 2e6], got {len(axis)}: {list(axis)}"
        )
    ((name, given),) = axis.items()
    return name, sorted(set(Row(Number(above=0), empty=False)(given, f"`{name}`")))


def _check_branches(horizons: Sequence[tuple[float, Settings]]) -> None:
    """Raise ValueError unless the settings are those of one run to several horizons."""
    last = horizons[-1][1]
    if not isinstance(last.schedule, WarmupStableDecay):
        raise ValueError(
            f"branches need the schedule WarmupStableDecay, got {last.schedule}: under another one "
            "a shorter run is no part of a longer one"
        )
    for value, settings in horizons:
        if replace(settings, examples=last.examples) != last:
            raise ValueError(
                "settings(config) must differ in `examples` alone between the branches, got "
                f"{settings} at {value:g} and {last} at {horizons[-1][0]:g}"
            )


def _checked(config: Config, scale: Scale | None, seed: int) -> tuple[Config, Scale, int]:
    """Return the arguments of a run outside of a study, checked."""
    sizes: Scale = Table(Number(above=0), optional=True)(scale, "`scale`") or {}
    return Table()(config, "`config`"), sizes, Count(0, most=2**64 - 1)(seed, "`seed`")
