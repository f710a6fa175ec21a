"""A callback that ties a Lightning `Trainer` to a trial.

    def train(config, ctx):
        trainer = Trainer(max_epochs=ctx.fidelity, callbacks=[TrialCallback(ctx, "val_loss")],
                          logger=False, enable_checkpointing=False)
        trainer.fit(model, data, ckpt_path=last_checkpoint(ctx), weights_only=True)
        return trainer.callback_metrics["val_loss"]

Each validation is saved as a checkpoint first and reported then, so that a trial which is paused
there goes on from there.
"""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import Callback, LightningModule, Trainer

from hpo.study.context import Context

__all__ = ["TrialCallback", "last_checkpoint"]

_FILE = "last.ckpt"


class TrialCallback(Callback):
    """Reports every validation to the study, which may end the training there.

    Args:
        ctx: of the trial.
        monitor: the logged metric that is the loss.
        epochs: whether steps are counted in epochs, as the space's fidelity then is; else in
            optimizer steps.
    """

    def __init__(self, ctx: Context, monitor: str, *, epochs: bool = True) -> None:
        self._ctx = ctx
        self._monitor = monitor
        self._epochs = epochs

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, then report; raises `hpo.Stop` when told to."""
        if self._monitor not in trainer.callback_metrics:
            raise ValueError(
                f"`monitor` must be a logged metric, got {self._monitor!r} where there are "
                f"{sorted(trainer.callback_metrics)}; log it in validation_step"
            )
        folder = self._ctx.checkpoint_dir
        if folder is not None:
            trainer.save_checkpoint(folder / _FILE)
        if not trainer.is_global_zero:
            return
        self._ctx.report(
            step=trainer.current_epoch + 1 if self._epochs else trainer.global_step,
            loss=float(trainer.callback_metrics[self._monitor]),
        )


def last_checkpoint(ctx: Context) -> Path | None:
    """The checkpoint in the trial's folder, for `trainer.fit(ckpt_path=)`."""
    folder = ctx.checkpoint_dir
    if folder is None or not (folder / _FILE).exists():
        return None
    return folder / _FILE
