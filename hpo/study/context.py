"""What a training function sees of the study: its trial, its seed, and a way to report.

    def train(config, ctx):
        state = ctx.load() or fresh_state(config, seed=ctx.seed)
        for step in range(state.step, steps):
            loss = ...
            ctx.save(state)
            ctx.report(step=step, loss=loss, cost=flops_so_far)
        return loss

With a fidelity in the space, a step counts its unit, done so far, and the function trains up to
`ctx.fidelity` (the same as the config's own entry). A scheduler may call it again later with a
higher one; what it then loads is what it saved last. Save before reporting: a report may end it.
"""

from __future__ import annotations

import math
import numbers
import operator
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from hpo.errors import Stop, StudyError
from hpo.schedulers import Decision
from hpo.study.checkpoints import PARENT_FILE, CheckpointKey, Saved, load_state, prepare, save_state
from hpo.trials import Report, Trial


@dataclass(frozen=True, slots=True)
class Paid:
    """What a trial has used before this stage of it: cost, seconds, and its last reported step."""

    cost: float = 0.0
    seconds: float = 0.0
    step: int = -1


class Channel(Protocol):
    """The way from a running trial to its driver and back."""

    def send(self, report: Report) -> Decision:
        """Hand over `report` and wait for the answer."""
        ...


class Context:
    """One running trial as its training function sees it.

    Attributes:
        trial: number, config, and what the model believed when it asked.
        seed: a seed for this trial's own randomness, the same again when the trial is retried.
        fidelity: the level to train up to now, if the space has one.
        scale: the values of the scale axes.
        last_loss: the loss reported last, or None.
        last_cost: what the trial has cost by the last report that said so, or None. Earlier stages
            are in it, and counted twice where they had to be trained again.
        diverged: whether a NaN or infinite loss was reported.
        refusal: the error raised by a wrong call of `report`, or None.
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
        paid: Paid = Paid(),  # noqa: B008  a frozen value
    ) -> None:
        self.trial = trial
        self.seed = seed
        self.fidelity = fidelity
        self.scale = dict(scale or {})
        self.last_loss: float | None = None
        self.last_cost: float | None = None
        self.diverged = False
        self.refusal: Exception | None = None
        self._channel = channel
        self._checkpoint_dir = checkpoint_dir
        self._checkpoint_key = checkpoint_key
        self._paid = paid
        self._last_step = paid.step
        self._stopped = False
        self._paused = False
        self._started = time.perf_counter()
        self._loaded: Saved | None = None
        self._saved = False
        self._counted = 0.0  # the user's own count of the cost
        self._offset: float | None = None  # from that count to the trial's cost

    @property
    def config(self) -> dict[str, Any]:
        """The trial's configuration, as a copy that may be changed freely."""
        return dict(self.trial.config)

    @property
    def checkpoint_dir(self) -> Path | None:
        """This trial's own folder, made when first asked for; emptied when the trial is done."""
        if self._checkpoint_dir is not None and self._checkpoint_key is not None:
            prepare(self._checkpoint_dir, self._checkpoint_key)
        elif self._checkpoint_dir is not None:
            self._checkpoint_dir.mkdir(parents=True, exist_ok=True)
        return self._checkpoint_dir

    @property
    def can_save(self) -> bool:
        """Whether there is a folder, so that `save` and `load` may be called."""
        return self._checkpoint_dir is not None

    @property
    def parent_checkpoint(self) -> Any | None:
        """What the run that this one descends from had saved, loaded on the CPU; None without one.

        A clone's parent is the run that it was cloned from, as it was then: `load` gives the same
        state, until the clone saves its own. Under `optimize(warm_start=True)` the parent of any
        other trial is the best one that had finished when it was started; `load` gives None there,
        for nothing of this trial has been trained. It is a copy of its own, which may be changed.
        """
        if self._checkpoint_dir is None:
            return None
        saved = load_state(self._checkpoint_dir, PARENT_FILE, key=self._checkpoint_key)
        return None if saved is None else saved.state

    @property
    def should_stop(self) -> bool:
        """Whether the trial was told to end here, for code that caught `Stop` to tidy up."""
        return self._stopped

    @property
    def paused(self) -> bool:
        """Whether it was told to end here for now only, and may be continued."""
        return self._paused

    @property
    def seconds(self) -> float:
        """Training time of this trial so far, including that of a loaded checkpoint.

        What was trained in vain, for it came after the checkpoint or there is none, is in it too if
        an earlier stage was charged for it.
        """
        elapsed = time.perf_counter() - self._started
        carried = 0.0 if self._loaded is None else self._loaded.seconds
        return self._paid.seconds + carried + elapsed - min(carried, self._paid.seconds)

    def report(
        self,
        *,
        step: int,
        loss: float | None = None,
        cost: float | None = None,
        metrics: Mapping[str, Any] | None = None,
    ) -> None:
        """Tell the study how the trial is doing.

        `step`: >= 0 and growing; a step that was already reported is ignored, so code that goes
        on from a checkpoint may repeat some. `loss`: in the user's own direction. `cost`: consumed
        since the run began from nothing, in the study's unit, that of a loaded checkpoint
        included. `metrics`: more numbers to keep.

        Raises `hpo.Stop` when the trial is to end here, also on a NaN or infinite loss; TypeError
        or ValueError for wrong arguments, which ends the study.
        """
        if self._stopped:
            raise Stop(f"trial {self.trial.number} was already told to stop")
        try:
            report = Report(
                step=_to_step(step),
                loss=None if loss is None else to_float(loss, "loss"),
                cost=None if cost is None else self._total(to_cost(cost), _to_step(step)),
                metrics=_to_numbers({} if metrics is None else metrics),
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
        decision = self._channel.send(report)
        if decision is not Decision.CONTINUE:
            self._stopped, self._paused = True, decision is Decision.PAUSE
            what = "pause" if self._paused else "stop"
            raise Stop(f"trial {self.trial.number} was told to {what} at step {report.step}")

    def finish(self, cost: float) -> None:
        """Take in the cost that the training function returned, in its own count.

        Raises ValueError as `report` does.
        """
        level = self._last_step if self.fidelity is None else self.fidelity
        total = self._total(cost, max(level, self._last_step))
        self.last_cost = max(total, self.last_cost or 0.0)

    def save(self, state: Any) -> None:
        """Keep `state` (tensors and plain values) for the case that this trial is interrupted.

        Raises TypeError for values that could not be loaded again; StudyError without a folder.
        """
        offset = self._offset
        if offset is None:
            offset = self._paid.cost if self._loaded is None else self._loaded.offset
        save_state(
            self._folder("save"),
            state,
            seconds=self.seconds,
            cost=self._counted,
            offset=offset,
            key=self._checkpoint_key,
        )
        self._saved = True

    def load(self) -> Any | None:
        """What this trial, or the one that it continues, saved last; None if nothing."""
        saved = load_state(self._folder("load"), key=self._checkpoint_key)
        if saved is None:
            return None
        if not self._saved:  # an earlier stage's or attempt's: what led to it is this trial's, too
            self._loaded, self._counted = saved, saved.cost
        return saved.state

    def _total(self, counted: float, step: int) -> float:
        """The trial's cost for the user's own count of it at `step`.

        Raises ValueError for a count that fell below the one of the loaded checkpoint.
        """
        if self._loaded is not None and counted < self._loaded.cost:
            raise ValueError(
                f"cost must not fall below that of the loaded checkpoint, {self._loaded.cost!r}, "
                f"got {counted!r}; keep the count in the saved state and go on from it"
            )
        if self._offset is None:
            self._offset = self._resolved(step)
        self._counted = max(counted, self._counted)
        return counted + self._offset

    def _resolved(self, step: int) -> float:
        """What to add to the user's count, from the first step that is counted in this stage.

        Without a checkpoint everything comes on top of what was paid. With one, a first step beyond
        the last paid one says that nothing is done again, so the count goes on from where it was;
        else it goes on from where the checkpoint was.
        """
        paid = self._paid
        if self._loaded is None:
            return paid.cost
        base = self._loaded.cost if step <= paid.step else paid.cost - self._loaded.offset
        return paid.cost - min(base, paid.cost)

    def _folder(self, action: str) -> Path:
        if self._checkpoint_dir is None:
            raise StudyError(
                f"ctx.{action} needs a checkpoint folder and this context has none; run the trial "
                "through optimize(), or pass checkpoint_dir= to Context"
            )
        return self._checkpoint_dir


def to_float(value: Any, argument: str) -> float:
    """A real number, NumPy scalar or 0-d tensor as a float; it may be NaN or infinite.

    Raises TypeError for anything else, naming `argument`.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            return math.copysign(math.inf, value)
    if getattr(value, "shape", None) == () and hasattr(value, "item"):
        item = value.item()
        if isinstance(item, numbers.Real) and not isinstance(item, bool):
            return float(item)
    raise TypeError(
        f"{argument} must be a real number, got {value!r} of type {type(value).__name__}; "
        "convert it with float(...)"
    )


def to_cost(value: Any) -> float:
    """`to_float` for a cost, which must be finite and not negative; else ValueError."""
    cost = to_float(value, "cost")
    if not (math.isfinite(cost) and cost >= 0):
        raise ValueError(
            f"cost must be finite and at least 0, got {cost!r}; "
            "report what the trial has consumed so far"
        )
    return cost


def _to_numbers(metrics: Mapping[str, Any]) -> dict[str, float]:
    """Metrics as floats; TypeError for what is not a dict of names and numbers."""
    if not isinstance(metrics, Mapping):
        raise TypeError(f"metrics must be a dict of names and numbers, got {metrics!r}")
    return {str(name): to_float(value, f"metric {name!r}") for name, value in metrics.items()}


def _to_step(step: Any) -> int:
    """A step as an int >= 0; TypeError or ValueError otherwise."""
    try:
        number = operator.index(step)
    except TypeError:
        raise TypeError(f"step must be an int, got {step!r}; count epochs or batches") from None
    if number < 0:
        raise ValueError(f"step must be at least 0, got {number}; count from zero")
    return number
