"""The callbacks in real trainers, paused and promoted by a real study."""

from pathlib import Path
from typing import Any

import pytest
import torch

from hpo import ASHA, Budget, Context, Fidelity, Float, optimize

pytestmark = [pytest.mark.guests, pytest.mark.filterwarnings("ignore")]  # the trainers' own

SPACE = {"lr": Float(1e-3, 0.3, log=True), "epochs": Fidelity(1, 3)}


def line() -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.linspace(-1, 1, 16)[:, None]
    return x, 2 * x + 0.5


def check(result: Any, seen: list[tuple[int, int, int]]) -> None:
    """Every trial reported its epochs once each; promoted ones began where they had paused."""
    trials = result.study.trials
    assert any("scaletune:resumed:0" in t.user_attrs for t in trials)
    for trial in trials:
        steps = sorted(trial.intermediate_values)
        assert steps == list(range(1, len(steps) + 1))
    starts = {start for _, start, _ in seen}
    assert starts == {0, 1}
    assert "FAIL" not in {t.state.name for t in trials}


def test_lightning_trials_pause_and_resume(tmp_path: Path) -> None:
    lightning = pytest.importorskip(
        "lightning.pytorch", reason="pip install 'scaletune[lightning]' to run this"
    )
    from hpo.adapters.lightning import TrialCallback, last_checkpoint

    class Linear(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self, lr: float) -> None:
            super().__init__()
            self.layer, self.lr = torch.nn.Linear(1, 1), lr

        def training_step(self, batch: Any, index: int) -> Any:
            return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])

        def validation_step(self, batch: Any, index: int) -> None:
            self.log("val_loss", torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=self.lr)

    seen: list[tuple[int, int, int]] = []

    def train(config: dict[str, Any], ctx: Context) -> float:
        torch.manual_seed(0)
        data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*line()), batch_size=4)
        trainer = lightning.Trainer(
            max_epochs=ctx.fidelity,
            callbacks=[TrialCallback(ctx, "val_loss")],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            accelerator="cpu",
        )
        checkpoint = last_checkpoint(ctx)
        start = 0
        if checkpoint is not None:
            start = torch.load(checkpoint, weights_only=True)["epoch"] + 1
        seen.append((ctx.trial.number, start, ctx.fidelity or 0))
        trainer.fit(Linear(config["lr"]), data, data, ckpt_path=checkpoint, weights_only=True)
        return float(trainer.callback_metrics["val_loss"])

    result = optimize(
        train,
        SPACE,
        budget=Budget(trials=4),
        scheduler=ASHA(),
        name="s",
        storage=f"sqlite:///{tmp_path / 'study.db'}",
    )
    check(result, seen)


def test_hugging_face_trials_pause_and_resume(tmp_path: Path) -> None:
    transformers = pytest.importorskip(
        "transformers", reason="pip install 'scaletune[transformers]' to run this"
    )
    pytest.importorskip("accelerate", reason="the Trainer of transformers needs it")
    from hpo.adapters.transformers import TrialCallback, last_checkpoint

    class Linear(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)

        def forward(self, x: Any = None, labels: Any = None) -> Any:
            y = self.layer(x)
            return {"loss": torch.nn.functional.mse_loss(y, labels), "logits": y}

    class Points(torch.utils.data.Dataset):  # type: ignore[type-arg]
        def __len__(self) -> int:
            return 16

        def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
            x, y = line()
            return {"x": x[index], "labels": y[index]}

    seen: list[tuple[int, int, int]] = []

    def train(config: dict[str, Any], ctx: Context) -> float:
        torch.manual_seed(0)
        arguments = transformers.TrainingArguments(
            output_dir=str(ctx.checkpoint_dir),
            learning_rate=config["lr"],
            num_train_epochs=ctx.fidelity,
            per_device_train_batch_size=4,
            eval_strategy="epoch",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            use_cpu=True,
        )
        trainer = transformers.Trainer(
            Linear(),
            arguments,
            train_dataset=Points(),
            eval_dataset=Points(),
            callbacks=[TrialCallback(ctx)],
        )
        checkpoint = last_checkpoint(ctx)
        start = 0 if checkpoint is None else int(checkpoint.rpartition("-")[2]) // 4
        seen.append((ctx.trial.number, start, ctx.fidelity or 0))
        trainer.train(resume_from_checkpoint=checkpoint)
        return float(trainer.evaluate()["eval_loss"])

    result = optimize(
        train,
        SPACE,
        budget=Budget(trials=4),
        scheduler=ASHA(),
        name="s",
        storage=f"sqlite:///{tmp_path / 'study.db'}",
    )
    check(result, seen)
