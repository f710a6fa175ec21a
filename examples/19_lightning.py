"""Lightning: each validation is saved and reported, so a trial may pause there and resume.

    python examples/19_lightning.py

Install Lightning with `pip install '.[lightning]'` in a clone.
"""

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from hpo import ASHA, Budget, Context, Fidelity, Float, SearchSpace, optimize
from hpo.adapters.lightning import TrialCallback, last_checkpoint

x = torch.linspace(-1, 1, 64)[:, None]
DATA = DataLoader(TensorDataset(x, 2 * x + 0.5), batch_size=16)
SPACE = SearchSpace({"lr": Float(1e-3, 1.0, log=True), "epochs": Fidelity(1, 9)})


class Line(LightningModule):  # type: ignore[misc]
    """A line that is fitted to points."""

    def __init__(self, lr: float) -> None:
        super().__init__()
        self.layer, self.lr = torch.nn.Linear(1, 1), lr

    def training_step(self, batch: Any, index: int) -> Any:
        return mse_loss(self.layer(batch[0]), batch[1])

    def validation_step(self, batch: Any, index: int) -> None:
        self.log("val_loss", mse_loss(self.layer(batch[0]), batch[1]))

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def train(config: dict[str, Any], ctx: Context) -> float:
    """Train up to the level that the scheduler asks for."""
    torch.manual_seed(ctx.seed)
    callback = TrialCallback(ctx, "val_loss")
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False}
    trainer = Trainer(
        max_epochs=ctx.fidelity, callbacks=[callback], enable_checkpointing=False, **quiet
    )
    checkpoint = last_checkpoint(ctx)
    trainer.fit(Line(config["lr"]), DATA, DATA, ckpt_path=checkpoint, weights_only=True)
    return float(trainer.callback_metrics["val_loss"])


if __name__ == "__main__":
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    result = optimize(train, SPACE, budget=Budget(trials=9), scheduler=ASHA())
    ended = sum(trial.assignment.level == 9 for trial in result.log.trials if trial.assignment)
    print(f"9 configs, {ended} trained for 9 epochs; best loss {result.best_observed.loss:.4f}")
