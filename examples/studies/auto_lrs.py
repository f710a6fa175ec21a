"""Search a learning-rate schedule stage by stage on a paused run, after AutoLRS.

    python -m examples.studies.auto_lrs [--stages 8] [--looks 6] [--seed 0]

A run is divided into stages. In each stage several rates are tried from the same checkpoint,
proposed by a model of the loss as a function of the rate, and the run continues from the best one.
The rates chosen form a schedule. Jin et al. (2021, arXiv:2105.10762) try each rate for a tenth of a
stage and extrapolate; stages are short here, so each rate is tried for a whole stage and the best
one need not be trained again. For comparison, the peak of a cosine schedule is searched with the
same number of whole runs, so that both cost the same.

A perceptron learns scikit-learn's digits. Rates are chosen by the loss on a quarter of the images.
The losses on another quarter, which no choice used, are printed as well.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from benchmarks.workloads.digits import digits
from hpo import Float, Optimizer, Report, Role, Trial
from hpo.schedulers import Decision
from hpo.study.checkpoints import CheckpointKey, CheckpointStore
from hpo.study.context import Context
from hpo.training.data import Shuffled, Split
from hpo.training.optimizers import AdamW
from hpo.training.schedules import Constant, Cosine, LearningRateSchedule
from hpo.training.trainer import Settings, TorchTrainer

SPACE = {"lr": Float(1e-4, 1e-1, log=True, role=Role.LR)}
UPDATES = 40  # in a stage
BATCH_SIZE = 32
WIDTH = 64


class AlwaysContinue:
    """Channel that lets every run continue."""

    def send(self, report: Report) -> Decision:
        """Answer a report."""
        return Decision.CONTINUE


@dataclass(frozen=True, slots=True)
class Trained:
    """Paused run; `loss` is that on the images that choose, `unseen` that on the others."""

    number: int
    lr: float
    loss: float
    unseen: float


def trainer(schedule: LearningRateSchedule, stages: int) -> TorchTrainer:
    """Return a trainer of configs of `lr` up to the end of `stage`; a whole run has `stages`."""

    def make_model(config: Mapping[str, Any], scale: Mapping[str, float]) -> nn.Module:
        return nn.Sequential(
            nn.Flatten(), nn.Linear(64, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, 10),
        )  # fmt: skip

    def make_data(config: Mapping[str, Any], split: Split) -> Any:
        data = digits()
        if split is Split.TRAIN:
            return Shuffled([data.train_images, data.train_labels])
        return [(data.validation_images, data.validation_labels)]

    def settings(config: Mapping[str, Any]) -> Settings:
        return Settings(
            examples=config["stage"] * UPDATES * BATCH_SIZE,
            batch_size=BATCH_SIZE,
            optimizer=AdamW(config["lr"]),
            schedule=schedule,
            evaluations=config["stage"],
        )

    def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
        images, labels = batch
        if not model.training:  # every other held-out image is for choosing
            images, labels = images[::2], labels[::2]
        return F.cross_entropy(model(images), labels)

    def unseen(model: nn.Module, batch: tuple[Tensor, Tensor]) -> dict[str, Tensor]:
        return {"unseen": F.cross_entropy(model(batch[0][1::2]), batch[1][1::2])}

    return TorchTrainer(make_model, make_data, loss, settings, measure=unseen)


class Runs:
    """Runs that can start from the checkpoints of others."""

    def __init__(self, trainer: TorchTrainer, folder: Path, seed: int) -> None:
        self._trainer, self._seed = trainer, seed
        self._key = CheckpointKey(
            study="auto-lrs", config="any"
        )  # any run may start from any other
        self._store = CheckpointStore(folder, self._key.study)
        self._count = 0

    def train(self, lr: float, stage: int, parent: Trained | None = None) -> Trained:
        """Train a new run to the end of `stage`, from the checkpoint of `parent` if given."""
        number, self._count = self._count, self._count + 1
        if parent is not None:
            self._store.link(parent.number, number, self._key)
        config = {"lr": lr, "stage": stage}
        ctx = Context(
            Trial(number=number, config=config, ask_index=number, prediction=None),
            seed=self._seed,
            channel=AlwaysContinue(),
            checkpoint_dir=self._store.folder(number),
            checkpoint_key=self._key,
            fidelity=stage,
        )
        outcome = self._trainer(config, ctx)
        return Trained(number, lr, outcome["loss"], outcome.get("unseen", math.nan))

    def forget(self, run: Trained) -> None:
        """Delete the checkpoint of `run`."""
        self._store.remove(run.number)


def best_rate(looks: int, seed: int, train: Callable[[float], Trained]) -> tuple[Trained, ...]:
    """Return the runs of a search over the rate, best first; those that diverged come last."""
    optimizer = Optimizer(SPACE, seed=seed)
    tried = []
    for _ in range(looks):
        trial = optimizer.ask()
        run = train(trial.config["lr"])
        if math.isfinite(run.loss):
            optimizer.tell(trial, loss=run.loss)
        else:
            optimizer.tell(trial, failed="diverged")
        tried.append(run)
    return tuple(sorted(tried, key=lambda run: run.loss if math.isfinite(run.loss) else math.inf))


def by_stages(runs: Runs, stages: int, looks: int, seed: int) -> list[Trained]:
    """Return the best run of every stage, each continued from the one before."""
    path: list[Trained] = []
    for stage in range(1, stages + 1):
        parent = path[-1] if path else None

        def train(lr: float, stage: int = stage, parent: Trained | None = parent) -> Trained:
            return runs.train(lr, stage, parent)

        best, *others = best_rate(looks, seed + stage, train)
        path.append(best)
        for run in others:
            runs.forget(run)
    return path


def main() -> None:
    """Search both kinds of schedule and print them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument(
        "--stages", type=int, default=8, help=f"stages of {UPDATES} updates (default 8)"
    )
    parser.add_argument(
        "--looks", type=int, default=6, help="rates tried in each stage (default 6)"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the runs and the searches")
    arguments = parser.parse_args()
    stages, looks, seed = arguments.stages, arguments.looks, arguments.seed
    torch.set_num_threads(1)  # faster for a model this small
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        searched = Runs(trainer(Constant(), stages), Path(folder) / "stages", seed)
        path = by_stages(searched, stages, looks, seed)
        shape = Cosine(warmup=0.05, final=0.0)
        cosines = Runs(trainer(shape, stages), Path(folder) / "cosine", seed)
        cosine = best_rate(looks, seed, lambda lr: cosines.train(lr, stages))[0]

    table = Table(title="The schedule found, and the best cosine")
    for column in ("updates", "lr", "loss", "cosine's lr"):
        table.add_column(column, justify="right")
    for stage, run in enumerate(path):
        middle = shape.share((stage + 0.5) * UPDATES, stages * UPDATES)
        table.add_row(
            f"{stage * UPDATES} to {(stage + 1) * UPDATES}",
            f"{run.lr:.2g}",
            f"{run.loss:.4f}",
            f"{cosine.lr * middle:.2g}",
        )
    console.print(table)
    for name, run in (("by stages", path[-1]), ("cosine", cosine)):
        console.print(
            f"{name}: loss {run.loss:.4f} on the images that choose, {run.unseen:.4f} on the others"
        )
    console.print(
        f"Each took {looks * stages} stages of {UPDATES} updates, {looks} runs of {stages} stages."
    )


if __name__ == "__main__":
    main()
