"""A callback that connects a Lightning `Trainer` to a trial.

::

    def train(config, ctx):
        trainer = Trainer(max_epochs=ctx.fidelity, callbacks=[TrialCallback(ctx, "val_loss")],
                          logger=False, enable_checkpointing=False)
        trainer.fit(model, data, ckpt_path=last_checkpoint(ctx), weights_only=True)
        return trainer.callback_metrics["val_loss"]

Each validation is saved as a checkpoint before it is reported, so that a trial that pauses there
resumes from it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from hpo.adapters.amounts import numbers_among
from hpo.adapters.ranks import meet, report_on_all
from hpo.study.context import Context

__all__ = ["TrialCallback", "last_checkpoint"]

_FILE = "last.ckpt"


class TrialCallback(Callback):
    """Reports every validation to the study, which may end the training there.

    Of several processes all end when the study says so.

    Args:
        ctx: Context of the trial.
        monitor: Logged metric that is the loss.
        epochs: Whether the space's fidelity counts epochs; otherwise it counts optimizer steps.

    Example:
        Needs the extra `lightning`::

            def train(config, ctx):
                callback = TrialCallback(ctx, "val_loss")
                trainer = Trainer(max_epochs=ctx.fidelity, callbacks=[callback])
                trainer.fit(model, data, ckpt_path=last_checkpoint(ctx), weights_only=True)
                return trainer.callback_metrics["val_loss"]
    """

    def __init__(self, ctx: Context, monitor: str, *, epochs: bool = True) -> None:
        self._ctx = ctx
        self._monitor = monitor
        self._epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save a checkpoint, then report.

        Raises:
            Stop: When the study ends or pauses the trial.
            ValueError: If the metric was not logged.
        """
        measured = dict(trainer.callback_metrics)
        every = trainer.check_val_every_n_epoch or 1
        if self._monitor not in measured and (trainer.current_epoch + 1) % every:
            return  # no validation yet
        if self._monitor not in measured:
            raise ValueError(
                f"`monitor` must be a logged metric, got {self._monitor!r} and logged are "
                f"{sorted(measured)}; log it in validation_step"
            )
        folder = self._ctx.checkpoint_dir
        if folder is not None:
            trainer.save_checkpoint(folder / _FILE)
        report_on_all(
            self._ctx,
            first=trainer.is_global_zero,
            broadcast=self._told(trainer),
            step=trainer.current_epoch + 1 if self._epochs else trainer.global_step,
            loss=measured.pop(self._monitor),
            metrics=numbers_among(measured),
        )

    @staticmethod
    def _told(trainer: Trainer) -> Callable[[Any], Any]:
        if getattr(trainer, "world_size", 1) == 1:
            return lambda value: value
        broadcast: Callable[[Any], Any] = trainer.strategy.broadcast
        return broadcast


def last_checkpoint(ctx: Context) -> Path | None:
    """Return the checkpoint in the trial's folder, for `trainer.fit(ckpt_path=)`; None without."""
    folder = ctx.checkpoint_dir
    found = folder is not None and (folder / _FILE).exists()
    meet(ctx)  # before any of them writes there
    return folder / _FILE if folder is not None and found else None
