"""What a training function sees of the study: its trial, its seed, and a way to report.

    def train(config, ctx):
        state = ctx.load() or fresh_state(config, seed=ctx.seed)
        for step in range(state.step, steps):
            loss = ...
            ctx.save(state)
            ctx.report(step=step, loss=loss, cost=flops_so_far)
        return loss

With a fidelity in the space, a step counts its unit, done so far, and the function trains up to
`ctx.fidelity`, which is also the config's own entry. A scheduler may call the function again later
with a higher fidelity; `ctx.load` then returns what was saved last. Save before reporting: a report
may end the trial.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpo.errors import Stop, StudyError
from hpo.schedulers import Decision
from hpo.space.arguments import Count, Kind, Number, Table
from hpo.space.scalars import metric_values, shown, to_float, whole
from hpo.study.checkpoints import (
    PARENT_FILE,
    CheckpointKey,
    Saved,
    causes,
    load_state,
    make_private,
    prepare,
    save_state,
)
from hpo.study.processes.imports import training_clock
from hpo.trials import FurthestStep, Report, Trial


@dataclass(frozen=True, slots=True)
class Consumed:
    """What a trial has used before this stage of it.

    Attributes:
        cost: Cost in the study's unit.
        seconds: Wall-clock time of the training function.
        step: Last reported step; -1 if none was.
    """

    cost: float = 0.0
    seconds: float = 0.0
    step: int = -1


class Channel(Protocol):
    """Connection of a running trial to its driver."""

    def send(self, report: Report) -> Decision:
        """Hand over a report and wait for the answer."""
        ...


class Context:
    """One running trial as its training function sees it.

    `optimize` makes one for each call of the training function. To call a training function
    elsewhere, such as in a test, make one with a channel that answers its reports.

    Args:
        trial: The trial to run.
        seed: Seed for the trial's own randomness.
        channel: Connection to the driver.
        checkpoint_dir: Folder for `save` and `load`; None if there is none.
        checkpoint_key: Key of the checkpoints it may write and read; None outside of a study.
        fidelity: Level to train up to.
        scale: Values of the scale axes.
        consumed: What earlier stages of the trial have used.
        furthest: Largest step that may be reported; None without a fidelity.

    Attributes:
        trial: Number, config, and what the models predicted when it was asked.
        seed: Seed for this trial's own randomness, the same again when the trial is retried.
        fidelity: Level to train up to now, if the space has a fidelity.
        scale: Values of the scale axes.
        last_loss: Loss reported last, or None.
        last_cost: Cost of the trial by the last report that gave one, or None. Earlier stages are
            included, and counted twice where they had to be trained again.
        last_metrics: Metrics reported so far in this stage, each as reported last.
        diverged: Whether a NaN or infinite loss was reported.
        refusal: Error raised by a wrong call of `report`, or None.
        fault: Error of the disk under the last checkpoint that could not be written or read, or
            None. It says nothing about the config, even if it ends the run.
        driver_error: Error of the driver that a report has met, or None. `report` raises `Stop` in
            its place, and `execute` raises it once the function has ended.

    Example:
        >>> from hpo import Budget, Float, optimize
        >>> def train(config, ctx):
        ...     state = ctx.load() or {"step": 0}
        ...     for step in range(state["step"] + 1, 4):
        ...         ctx.save({"step": step})
        ...         ctx.report(step=step, loss=config["x"] ** 2 + 1 / step)
        ...     return config["x"] ** 2 + 1 / step
        >>> result = optimize(train, {"x": Float(-1, 1)}, budget=Budget(trials=2))
        >>> [report.step for report in result.log.reports(0)]
        [1, 2, 3]
    """

    def __init__(
        self,
        trial: Trial,
        *,
        seed: int,
        channel: Channel,
        checkpoint_dir: Path | None = None,
        checkpoint_key: CheckpointKey | None = None,
        fidelity: int | None = None,
        scale: Mapping[str, float] | None = None,
        consumed: Consumed = Consumed(),  # noqa: B008  a frozen value
        furthest: FurthestStep | None = None,
    ) -> None:
        self.trial = Kind(Trial)(trial, "`trial`")
        self.seed = Count(0)(seed, "`seed`")
        self.fidelity = Count(0, optional=True)(fidelity, "`fidelity`")
        self.scale = Table(Number(above=0), optional=True)(scale, "`scale`") or {}
        if channel is not None and not callable(getattr(channel, "send", None)):
            raise TypeError(
                f"`channel` must have a method send(report), got {shown(channel)}; write an object"
                " whose send returns Decision.CONTINUE"
            )
        folder = Kind(Path, optional=True, way_out='write Path("checkpoints")')
        checkpoint_dir = folder(checkpoint_dir, "`checkpoint_dir`")
        checkpoint_key = Kind(CheckpointKey, optional=True)(checkpoint_key, "`checkpoint_key`")
        consumed = Kind(Consumed)(consumed, "`consumed`")
        furthest = Kind(FurthestStep, optional=True)(furthest, "`furthest`")
        self.last_loss: float | None = None
        self.last_cost: float | None = None
        self.last_metrics: dict[str, Any] = {}
        self.diverged = False
        self.refusal: Exception | None = None
        self.fault: Exception | None = None
        self.driver_error: BaseException | None = None
        self._hub: Any = None  # serves processes that were started with this context
        self._channel = channel
        self._checkpoint_dir = checkpoint_dir
        self._checkpoint_key = checkpoint_key
        self._consumed = consumed
        self._furthest = furthest
        self._last_step = consumed.step
        self._stopped = False
        self._paused = False
        self._started = training_clock()
        self._loaded: Saved | None = None
        self._saved = False
        self._counted = 0.0  # the user's own count of the cost
        self._offset: float | None = None  # from that count to the trial's cost

    @property
    def config(self) -> dict[str, Any]:
        """The trial's config, as a copy that may be changed freely.

        Example:
            >>> from hpo import Trial
            >>> ctx = Context(Trial(0, {"lr": 0.1}, 0, None), seed=0, channel=None)
            >>> config = ctx.config
            >>> config["lr"] = 1.0
            >>> ctx.config
            {'lr': 0.1}
        """
        return dict(self.trial.config)

    @property
    def checkpoint_dir(self) -> Path | None:
        """This trial's own folder, made at first use; deleted when the trial is done.

        Example:
            >>> from hpo import Budget, Float, optimize
            >>> def train(config, ctx):
            ...     notes = ctx.checkpoint_dir / "notes.txt"
            ...     notes.write_text("kept beside the saved state")
            ...     print(ctx.checkpoint_dir.name, notes.exists())
            ...     return config["x"]
            >>> result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=2))
            0 True
            1 True
        """
        with self._noting_faults():
            if self._checkpoint_dir is not None and self._checkpoint_key is not None:
                prepare(self._checkpoint_dir, self._checkpoint_key)
            elif self._checkpoint_dir is not None:
                make_private(self._checkpoint_dir)
        return self._checkpoint_dir

    @property
    def can_save(self) -> bool:
        """Whether there is a folder, so that `save` and `load` may be called.

        Example:
            >>> from hpo import Trial
            >>> ctx = Context(Trial(0, {"lr": 0.1}, 0, None), seed=0, channel=None)
            >>> state = ctx.load() if ctx.can_save else None
            >>> ctx.can_save, state
            (False, None)
        """
        return self._checkpoint_dir is not None

    @property
    def parent_checkpoint(self) -> Any | None:
        """State of the run that this one descends from, loaded onto the CPU; None without one.

        A clone's parent is the run that it was cloned from, as it was then: `load` returns the same
        state until the clone saves its own. Under `optimize(warm_start=True)` the parent of any
        other trial is the best one that had finished when it was started; there `load` returns
        None, because nothing of this trial has been trained. Each access makes a new copy.

        Example:
            >>> from hpo import Budget, Float, optimize
            >>> def train(config, ctx):
            ...     print(ctx.parent_checkpoint)
            ...     ctx.save({"weights": [1.0, 2.0]})
            ...     return config["x"]
            >>> result = optimize(train, {"x": Float(0, 1)}, budget=Budget(trials=2),
            ...                   warm_start=True)
            None
            {'weights': [1.0, 2.0]}
        """
        if self._checkpoint_dir is None:
            return None
        with self._noting_faults():
            saved = load_state(self._checkpoint_dir, PARENT_FILE, key=self._checkpoint_key)
        return None if saved is None else saved.state

    @property
    def should_stop(self) -> bool:
        """Whether the trial was told to end here, for code that caught `Stop` to clean up.

        Example:
            >>> from hpo import Budget, Float, optimize
            >>> def train(config, ctx):
            ...     try:
            ...         for step in range(1, 10):
            ...             ctx.report(step=step, loss=config["x"] / step, cost=step)
            ...     finally:
            ...         print(f"step {step}, should_stop {ctx.should_stop}")
            >>> result = optimize(train, {"x": Float(1, 2)}, cost="steps",
            ...                   budget=Budget(trials=1, per_trial=2.0))
            step 2, should_stop True
        """
        return self._stopped

    @property
    def paused(self) -> bool:
        """Whether the trial was told to end here for now only, and may be continued.

        Example:
            >>> from hpo import Stop, Trial
            >>> from hpo.schedulers import Decision
            >>> class Pausing:  # a driver that answers every report with a pause
            ...     def send(self, report):
            ...         return Decision.PAUSE
            >>> ctx = Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=Pausing())
            >>> try:
            ...     ctx.report(step=1, loss=0.5)
            ... except Stop:
            ...     print(ctx.paused)
            True
        """
        return self._paused

    @property
    def seconds(self) -> float:
        """Training time of this trial so far, including that of a loaded checkpoint.

        In a process of its own, time to load modules is not counted.

        Training that was lost, because it came after the checkpoint or there is none, is included
        if an earlier stage was charged for it.

        Example:
            >>> from hpo import Trial
            >>> ctx = Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None,
            ...               consumed=Consumed(seconds=3600.0))
            >>> 3600.0 <= ctx.seconds < 3660.0
            True
        """
        elapsed = training_clock() - self._started
        carried = 0.0 if self._loaded is None else self._loaded.seconds
        return self._consumed.seconds + carried + elapsed - min(carried, self._consumed.seconds)

    def report(
        self,
        *,
        step: int,
        loss: float | None = None,
        cost: float | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Report progress to the study.

        Args:
            step: Position of the run, >= 0 and growing, in the unit of the fidelity if the space
                has one. A step that was already reported is ignored, so code that continues from a
                checkpoint may repeat some.
            loss: Loss in the user's own direction.
            cost: Cost consumed since the run began, in the study's unit. The cost that led to a
                loaded checkpoint is included.
            metrics: Further numbers to keep, by name; True and False are 1 and 0, None is dropped.

        Raises:
            Stop: When the trial is to end here, also on a NaN or infinite loss. Let it pass.
            TypeError: For an argument of a wrong type, which ends the study.
            ValueError: For a negative step or cost, or a step beyond the fidelity, which ends the
                study.

        Example:
            >>> def train(config, ctx):
            ...     for step in range(1, 11):
            ...         loss = config["x"] / step
            ...         ctx.report(step=step, loss=loss, metrics={"lr": 0.1 / step})
            ...     return loss
            >>> from hpo import Budget, Float, optimize
            >>> result = optimize(train, {"x": Float(1, 2)}, budget=Budget(trials=1))
            >>> result.log.reports(0)[-1].metrics
            {'lr': 0.01}
        """
        if self._stopped:
            raise Stop(f"trial {self.trial.number} was already told to stop")
        try:
            report = Report(
                step=_to_step(step, self._furthest),
                loss=None if loss is None else to_float(loss, "loss"),
                cost=None if cost is None else self._total(to_cost(cost), _to_step(step, None)),
                metrics={} if metrics is None else metric_values(metrics, texts=False),
            )
        except (TypeError, ValueError) as error:
            self.refusal = error
            raise
        if report.step <= self._last_step:
            return
        self._last_step = report.step
        if report.cost is not None:
            self.last_cost = max(report.cost, self.last_cost or 0.0)
        if report.loss is not None and not math.isfinite(report.loss):
            self.diverged = self._stopped = True
            raise Stop(f"loss is {report.loss} at step {report.step}")
        if report.loss is not None:
            self.last_loss = report.loss
        self.last_metrics.update(report.metrics)
        try:
            decision = self._channel.send(report)
        except BaseException as error:
            self.driver_error, self._stopped = error, True
            raise Stop(f"the study ends at step {report.step}: {error!r}") from error
        if decision is not Decision.CONTINUE:
            self._stopped, self._paused = True, decision is Decision.PAUSE
            what = "pause" if self._paused else "stop"
            raise Stop(f"trial {self.trial.number} was told to {what} at step {report.step}")

    def finish(self, cost: float) -> None:
        """Record the cost that the training function returned, in its own count.

        Args:
            cost: Cost of the run.

        Raises:
            ValueError: For a cost below that of the loaded checkpoint.

        Example:
            A run that starts over without a checkpoint is charged for both attempts:

            >>> from hpo import Trial
            >>> ctx = Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None,
            ...               consumed=Consumed(cost=2.0))
            >>> ctx.finish(3.5)
            >>> ctx.last_cost
            5.5
        """
        level = self._last_step if self.fidelity is None else self.fidelity
        total = self._total(to_cost(cost), max(level, self._last_step))
        self.last_cost = max(total, self.last_cost or 0.0)

    def save(self, state: Any) -> None:
        """Save `state`, from which this trial continues if it is interrupted, paused or cloned.

        Args:
            state: Tensors, plain Python values, and dicts, lists and tuples of them.

        Raises:
            TypeError: For values that could not be loaded again.
            OSError: If the disk fails or is full; the checkpoint before is kept. If the function
                lets it pass, the run is lost, and continued from that checkpoint.
            StudyError: If there is no checkpoint folder.

        Example:
            >>> import tempfile
            >>> from pathlib import Path
            >>> from hpo import Trial
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     ctx = Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None,
            ...                   checkpoint_dir=Path(folder, "0"))
            ...     before = ctx.load()
            ...     ctx.save({"step": 3})
            ...     print(before, ctx.load())
            None {'step': 3}
        """
        offset = self._offset
        if offset is None:
            offset = self._consumed.cost if self._loaded is None else self._loaded.offset
        folder = self._folder("save")
        with self._noting_faults():
            save_state(
                folder,
                state,
                seconds=self.seconds,
                cost=self._counted,
                offset=offset,
                key=self._checkpoint_key,
            )
        self._saved = True

    def load(self) -> Any | None:
        """Return what this trial, or the one that it continues, saved last; None if nothing.

        Returns:
            The state, with its tensors on the CPU. A damaged file counts as nothing, with a
            warning.

        Raises:
            OSError: If the disk fails; the run is then lost and tried again.
            StudyError: If there is no checkpoint folder.

        Example:
            A second attempt continues from what the first one saved:

            >>> import tempfile
            >>> from pathlib import Path
            >>> from hpo import Trial
            >>> def attempt(folder):
            ...     return Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None,
            ...                    checkpoint_dir=Path(folder, "0"))
            >>> with tempfile.TemporaryDirectory() as folder:
            ...     attempt(folder).save({"step": 3})
            ...     print(attempt(folder).load())
            {'step': 3}
        """
        folder = self._folder("load")
        with self._noting_faults():
            saved = load_state(folder, key=self._checkpoint_key)
        if saved is None:
            return None
        if not self._saved:  # from an earlier stage or attempt, whose cost and time count here
            self._loaded, self._counted = saved, saved.cost
        return saved.state

    @property
    def rank(self) -> int:
        """Number of this process among those of the trial; 0 where there is only one.

        Example:
            >>> from hpo import Trial
            >>> ctx = Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None)
            >>> ctx.rank, ctx.ranks
            (0, 1)
        """
        return 0

    @property
    def ranks(self) -> int:
        """Number of processes of the trial that call its context; see `hpo.connect`.

        Example:
            >>> from hpo import Trial
            >>> Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None).ranks
            1
        """
        return 1

    def barrier(self) -> None:
        """Wait until every rank of the trial has come here; with one there is nothing to wait for.

        Example:
            >>> from hpo import Trial
            >>> Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None).barrier()
        """

    @property
    def has_ranks(self) -> bool:
        """Whether processes were started with this context, as `torch.multiprocessing.spawn` does.

        Example:
            >>> from hpo import Trial
            >>> Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None).has_ranks
            False
        """
        return self._hub is not None

    def close(self) -> None:
        """End what serves the processes that were started with this context, if there is such.

        Example:
            >>> from hpo import Trial
            >>> Context(Trial(0, {"x": 1.0}, 0, None), seed=0, channel=None).close()
        """
        if self._hub is not None:
            self._hub.close()

    def _total(self, counted: float, step: int) -> float:
        """Cost of the trial for the user's own count of it at `step`.

        Raises:
            ValueError: For a count below that of the loaded checkpoint.
        """
        if self._loaded is not None and counted < self._loaded.cost:
            raise ValueError(
                f"cost must not fall below that of the loaded checkpoint, {self._loaded.cost!r}, "
                f"got {counted!r}; keep the count in the saved state and continue from it"
            )
        if self._offset is None:
            self._offset = self._resolved(step)
        self._counted = max(counted, self._counted)
        return counted + self._offset

    def _resolved(self, step: int) -> float:
        """Amount to add to the user's count, from the first step that is counted in this stage.

        Without a checkpoint everything is added to what was consumed before. With one, a first step
        beyond the last one consumed says that nothing is trained again, so the count continues from
        where it was; else it continues from where the checkpoint was.
        """
        before = self._consumed
        if self._loaded is None:
            return before.cost
        base = self._loaded.cost if step <= before.step else before.cost - self._loaded.offset
        return before.cost - min(base, before.cost)

    @contextmanager
    def _noting_faults(self) -> Iterator[None]:
        """Note an error of the disk, so that it is told from one of the training function."""
        try:
            yield
        except Exception as error:
            if any(isinstance(cause, OSError | StudyError) for cause in causes(error)):
                self.fault = error
            raise

    def _folder(self, action: str) -> Path:
        if self._checkpoint_dir is None:
            raise StudyError(
                f"ctx.{action} needs a checkpoint folder and this context has none; run the trial "
                "through optimize(), or pass checkpoint_dir= to Context"
            )
        return self._checkpoint_dir


def to_cost(value: Any) -> float:
    """Return a cost as a float.

    Raises:
        TypeError: For a value that is no real number.
        ValueError: For a negative or non-finite cost.
    """
    cost = to_float(value, "cost")
    if not (math.isfinite(cost) and cost >= 0):
        raise ValueError(
            f"cost must be finite and at least 0, got {cost!r}; "
            "report what the trial has consumed so far"
        )
    return cost


def _to_step(step: Any, furthest: FurthestStep | None) -> int:
    """A step as an int >= 0; TypeError or ValueError otherwise."""
    number = whole(step)
    if number is None:
        raise TypeError(f"step must be an int, got {shown(step)}; count epochs or batches")
    if number < 0:
        raise ValueError(f"step must be at least 0, got {number}; count from zero")
    if furthest is not None:
        furthest.check(number)
    return number
