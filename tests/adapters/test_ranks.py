"""Adapters of trainers in two processes: both end where the study ends the trial."""

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from hpo import Context, Stop
from hpo.adapters.ranks import broadcast, report_on_all
from hpo.schedulers import Decision
from hpo.study.process_runner import ProcessRunner
from hpo.study.processes.ranks import launch
from hpo.trials import Status
from tests.contracts.runner import Bench, Config
from tests.study.processes.test_ranks import at, ended

BEGIN = """
import os
import torch
import hpo

x = torch.linspace(-1, 1, 16)[:, None]
y = 2 * x + 0.5
torch.manual_seed(0)

with hpo.connect() as ctx:
    (ctx.checkpoint_dir / f"pid{ctx.rank}").write_text(str(os.getpid()))
    lr, epochs = 0.1, 4
"""
LIGHTNING = """
    import lightning.pytorch as pl
    from hpo.adapters.lightning import TrialCallback, last_checkpoint

    class Linear(pl.LightningModule):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
        def training_step(self, batch, index):
            return torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
        def validation_step(self, batch, index):
            loss = torch.nn.functional.mse_loss(self.layer(batch[0]), batch[1])
            self.log("val_loss", loss, sync_dist=True)
        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=lr)

    data = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    trainer = pl.Trainer(
        max_epochs=epochs, callbacks=[TrialCallback(ctx, "val_loss")], logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        accelerator="cpu", strategy="ddp", devices=2, num_sanity_val_steps=0,
    )
    trainer.fit(Linear(), data, data, ckpt_path=last_checkpoint(ctx), weights_only=True)
    ctx.complete(trainer.callback_metrics["val_loss"].item())
"""
TRANSFORMERS = """
    import transformers
    from hpo.adapters.transformers import TrialCallback, last_checkpoint

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
        def forward(self, x=None, labels=None):
            out = self.layer(x)
            return {"loss": torch.nn.functional.mse_loss(out, labels), "logits": out}

    class Points(torch.utils.data.Dataset):
        def __len__(self):
            return 16
        def __getitem__(self, index):
            return {"x": x[index], "labels": y[index]}

    arguments = transformers.TrainingArguments(
        output_dir=str(ctx.checkpoint_dir), learning_rate=lr, num_train_epochs=epochs,
        per_device_train_batch_size=4, eval_strategy="epoch", save_strategy="no",
        report_to="none", disable_tqdm=True, use_cpu=True, ddp_backend="gloo",
    )
    trainer = transformers.Trainer(
        Linear(), arguments, train_dataset=Points(), eval_dataset=Points(),
        callbacks=[TrialCallback(ctx)],
    )
    trainer.train(resume_from_checkpoint=last_checkpoint(ctx))
    ctx.complete(trainer.evaluate()["eval_loss"])
"""
ACCELERATE = """
    from accelerate import Accelerator
    from hpo.adapters.accelerate import AcceleratedTrial

    accelerator = Accelerator(cpu=True)
    assert accelerator.num_processes == 2
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, y), batch_size=4)
    model, optimizer, loader = accelerator.prepare(model, optimizer, loader)
    trial = AcceleratedTrial(ctx, accelerator)
    for epoch in range(trial.resume() + 1, epochs + 1):
        for inputs, targets in loader:
            loss = torch.nn.functional.mse_loss(model(inputs), targets)
            accelerator.backward(loss)
            optimizer.step()
            optimizer.zero_grad()
        loss = accelerator.reduce(loss.detach(), "mean").item()
        trial.report(step=epoch, loss=loss, metrics={"lr": lr, "name": "sgd"})
    ctx.complete(loss)
"""


@pytest.mark.guests
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("library", "script"),
    [("lightning", LIGHTNING), ("transformers", TRANSFORMERS), ("accelerate", ACCELERATE)],
    ids=["lightning", "transformers", "accelerate"],
)
def test_a_trial_in_two_processes_pauses_resumes_and_stops(
    tmp_path: Path, library: str, script: str
) -> None:
    pytest.importorskip(library, reason=f"pip install 'scaletune[{library}]' to run this")
    (tmp_path / "train.py").write_text(BEGIN + script)

    def train(config: Config, ctx: Context) -> Any:
        torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
        return launch(ctx, [sys.executable, *torchrun, str(tmp_path / "train.py")])

    bench = Bench(ProcessRunner, tmp_path)
    for decision, status in ((Decision.PAUSE, Status.PAUSED), (Decision.STOP, Status.STOPPED)):
        step = 1 if decision is Decision.PAUSE else 3
        (outcome,) = bench.run(train, {}, answer=at(step, decision))
        assert outcome.status is status, outcome.text
        assert ended(tmp_path)
    bench.runner.close()
    assert [report.step for _, report in bench.reports] == [1, 2, 3]


def told_to_stop(rank: int, folder: str) -> None:
    class First:
        checkpoint_dir = None

        def report(self, **report: Any) -> None:
            assert rank == 0
            raise Stop("trial 0 was told to stop at step 1")

    torch.distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
    context: Any = First()
    try:
        report_on_all(context, first=rank == 0, broadcast=broadcast, step=1, loss=1.0)
    except Stop as stop:
        Path(folder, f"stopped{rank}").write_text(str(stop))
    torch.distributed.destroy_process_group()


@pytest.mark.engine
def test_a_context_that_only_the_first_process_has_ends_the_others_too(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(told_to_stop, args=(str(tmp_path),), nprocs=2)
    for rank in range(2):
        told = (tmp_path / f"stopped{rank}").read_text()
        assert told == "trial 0 was told to stop at step 1"


def test_an_error_of_the_first_process_ends_the_others_too() -> None:
    class Broken:
        def report(self, **report: Any) -> None:
            raise ValueError("step must be at least 0")

    context: Any = Broken()
    sent: list[Any] = []

    def passed(value: Any) -> Any:
        sent.append(value)
        return sent[0]

    with pytest.raises(ValueError, match="step must be"):
        report_on_all(context, first=True, broadcast=passed, step=-1)
    with pytest.raises(RuntimeError, match="the first process could not report: step must be"):
        report_on_all(context, first=False, broadcast=passed, step=-1)
