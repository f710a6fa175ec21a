"""A callback that connects a Hugging Face `Trainer` to a trial.

::

    def train(config, ctx):
        args = TrainingArguments(
            output_dir=str(ctx.checkpoint_dir), learning_rate=config["lr"],
            num_train_epochs=ctx.fidelity, eval_strategy="epoch", save_strategy="no",
        )
        trainer = Trainer(model, args, ..., callbacks=[TrialCallback(ctx)])
        trainer.train(resume_from_checkpoint=last_checkpoint(ctx))
        return trainer.evaluate()["eval_loss"]

Each evaluation is saved as a checkpoint before it is reported, so that a trial that pauses there
resumes from it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import get_last_checkpoint

from hpo.adapters.amounts import number_or_none, numbers_among
from hpo.adapters.ranks import broadcast, meet, report_on_all
from hpo.space.scalars import shown
from hpo.study.context import Context

__all__ = ["TrialCallback", "last_checkpoint"]

_ROUNDING = 1e-6  # of an epoch, which the trainer counts in fractions


class TrialCallback(TrainerCallback):
    """Reports every evaluation to the study, which may end the training there.

    Of several processes all end when the study says so.

    Args:
        ctx: Context of the trial.
        metric: Entry of the evaluation that is the loss.
        epochs: Whether the space's fidelity counts epochs; otherwise it counts optimizer steps.
        flops: Whether the trainer's count of FLOPs is the cost.

    Example:
        Needs the extra `transformers`::

            def train(config, ctx):
                trainer = Trainer(model, arguments, callbacks=[TrialCallback(ctx, flops=True)])
                trainer.train(resume_from_checkpoint=last_checkpoint(ctx))
                return trainer.evaluate()["eval_loss"]
    """

    def __init__(
        self, ctx: Context, *, metric: str = "eval_loss", epochs: bool = True, flops: bool = False
    ) -> None:
        self._ctx = ctx
        self._metric = metric
        self._epochs = epochs
        self._flops = flops
        self._evaluated: dict[str, Any] | None = None
        self._training = False

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **others: Any,
    ) -> None:
        """Start to report evaluations."""
        self._training = True

    def on_train_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **others: Any,
    ) -> None:
        """Stop reporting evaluations: the last one is what the training function returns."""
        self._training = False

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> None:
        """Keep the evaluation, and have the trainer save its state.

        Raises:
            ValueError: If the metric is no entry of the evaluation, or no number.
        """
        if metrics is None or self._metric not in metrics:
            known = sorted(metrics or {})
            raise ValueError(
                f"`metric` must be an entry of the evaluation, got {self._metric!r} and entries "
                f"are {known}; name one of them, and give the trainer an eval_dataset"
            )
        if number_or_none(metrics[self._metric]) is None:
            raise ValueError(
                f"`metric` must name a number, got {self._metric!r}, which is "
                f"{shown(metrics[self._metric])}; return a number from compute_metrics"
            )
        if not self._training:
            return  # an evaluation after training, for the training function to return
        self._evaluated = dict(metrics)
        control.should_save = True

    def on_save(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **others: Any,
    ) -> None:
        """Report the evaluation of this checkpoint.

        Raises:
            Stop: When the study ends or pauses the trial.
        """
        measured, self._evaluated = self._evaluated, None
        if measured is None:
            return
        loss = number_or_none(measured.pop(self._metric))
        epoch = math.floor((state.epoch or 0.0) + _ROUNDING)  # one that is half done is not done
        report_on_all(
            self._ctx,
            first=state.is_world_process_zero,
            broadcast=broadcast,
            step=epoch if self._epochs else state.global_step,
            loss=loss,
            cost=float(state.total_flos) if self._flops else None,
            metrics=numbers_among(measured),
        )


def last_checkpoint(ctx: Context) -> str | None:
    """Return the newest checkpoint in the trial's folder; None if there is none.

    Args:
        ctx: Context of the trial.

    Returns:
        Path for `trainer.train(resume_from_checkpoint=)`.
    """
    folder = ctx.checkpoint_dir
    found: str | None = None if folder is None else get_last_checkpoint(str(folder))
    meet(ctx)  # before any of them writes there
    return found
