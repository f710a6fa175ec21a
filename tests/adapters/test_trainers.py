"""The callbacks in real trainers, paused and promoted by a real study."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
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


class Reports:
    """A context that keeps what is reported."""

    checkpoint_dir = None

    def __init__(self) -> None:
        self.seen: list[dict[str, Any]] = []

    def report(self, **report: Any) -> None:
        self.seen.append(report)


def test_metrics_of_hugging_face_are_kept_whatever_type_of_number_they_have() -> None:
    pytest.importorskip("transformers", reason="pip install 'scaletune[transformers]' to run this")
    from hpo.adapters.transformers import TrialCallback

    measured = {
        "eval_loss": np.float32(0.5),
        "eval_f1": np.float64(0.25),
        "eval_top1": torch.tensor([0.75]),
        "eval_ok": np.True_,
        "eval_model": "bert",
        "eval_rows": np.ones(3),
        "eval_none": None,
    }
    for epochs, state, step in (
        (True, {"epoch": 1.5}, 1),  # half of the second epoch is not trained
        (True, {"epoch": 2.0}, 2),
        (True, {"epoch": 2.9999999}, 3),
        (False, {"epoch": 1.5, "global_step": 30}, 30),
    ):
        context: Any = Reports()
        callback, control = TrialCallback(context, epochs=epochs), SimpleNamespace()
        now: Any = SimpleNamespace(is_world_process_zero=True, total_flos=1.0, **state)
        callback.on_train_begin(None, now, control)
        callback.on_evaluate(None, now, control, metrics=measured)
        callback.on_save(None, now, control)
        (report,) = context.seen
        assert (report["step"], report["loss"]) == (step, 0.5)
        assert report["metrics"] == {"eval_f1": 0.25, "eval_top1": 0.75, "eval_ok": 1.0}
    with pytest.raises(ValueError, match="must name a number, got 'eval_model'"):
        TrialCallback(context, metric="eval_model").on_evaluate(
            None, now, control, metrics=measured
        )


def test_metrics_of_lightning_are_kept_and_an_epoch_without_validation_is_passed_over() -> None:
    pytest.importorskip(
        "lightning.pytorch", reason="pip install 'scaletune[lightning]' to run this"
    )
    from hpo.adapters.lightning import TrialCallback

    context: Any = Reports()
    callback = TrialCallback(context, "val_loss")
    trainer: Any = SimpleNamespace(
        callback_metrics={"train_loss": torch.tensor(2.0)},
        check_val_every_n_epoch=2,
        current_epoch=0,
        is_global_zero=True,
    )
    callback.on_train_epoch_end(trainer, None)
    assert not context.seen
    trainer.current_epoch = 1
    with pytest.raises(ValueError, match="must be a logged metric"):
        callback.on_train_epoch_end(trainer, None)
    trainer.callback_metrics |= {"val_loss": torch.tensor([0.5]), "acc": torch.tensor(0.75)}
    callback.on_train_epoch_end(trainer, None)
    (report,) = context.seen
    assert report["step"] == 2 and float(report["loss"]) == 0.5
    assert report["metrics"] == {"train_loss": 2.0, "acc": 0.75}
